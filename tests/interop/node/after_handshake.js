'use strict';
// A TLS client, or a server on a free port, that is ordered what to do once it is secure: an order is a line of
// JSON, [name, ...arguments], and each is answered by an event of its name.

const tls = require('tls');
const { createInterface } = require('readline');
const { config, tell, tellError } = require('./lines');

if (config.renegotiationLimit !== undefined) tls.CLIENT_RENEG_LIMIT = config.renegotiationLimit;

function hex(buffer) {
  return buffer === undefined ? null : buffer.toString('hex');
}

// What can be ordered; the answer is what is returned.
const orders = {
  // Several times, one after the other.
  renegotiate: async (socket, options, times) => {
    for (let done = 0; done < times; done += 1) {
      const error = await new Promise((resolve) => { socket.renegotiate(options, resolve); });
      if (error) return { done, code: error.code };
      if (done + 1 < times) await new Promise(setImmediate);
    }
    return { done: times, code: null };
  },
  disableRenegotiation: (socket) => { socket.disableRenegotiation(); },
  write: (socket, text) => new Promise((resolve) => { socket.write(text, resolve); }),
  end: (socket, text) => { socket.end(text); },
  setMaxSendFragment: (socket, size) => ({ set: socket.setMaxSendFragment(size) }),
  peer: (socket) => ({
    authorized: socket.authorized,
    authorizationError: socket.authorizationError && (socket.authorizationError.code || socket.authorizationError),
    name: (socket.getPeerCertificate().subject || {}).CN,
  }),
  keys: (socket, length, label, context) => ({
    finished: hex(socket.getFinished()),
    peerFinished: hex(socket.getPeerFinished()),
    exported: hex(context === null
      ? socket.exportKeyingMaterial(length, label)
      : socket.exportKeyingMaterial(length, label, Buffer.from(context, 'hex'))),
  }),
  sigalgs: (socket) => ({ shared: socket.getSharedSigalgs() }),
};

function follow(socket) {
  let received = '';
  let length = 0;
  socket.setEncoding('latin1');
  socket.on('data', (text) => {
    length += text.length;
    received = (received + text).slice(-100);
    tell('data', { received, length });
  });
  socket.on('end', () => tell('ended', { received, length }));
  socket.on('error', (error) => tellError('error', error));
  socket.on('close', (hadError) => tell('close', { hadError }));
  createInterface({ input: process.stdin }).on('line', async (line) => {
    const [name, ...args] = JSON.parse(line);
    tell(name, await orders[name](socket, ...args));
  });
}

function serve() {
  const server = tls.createServer(config.options, (socket) => {
    tell('secure', { authorized: socket.authorized });
    follow(socket);
  });
  server.on('tlsClientError', (error) => tellError('tlsClientError', error));
  server.listen(0, '127.0.0.1', () => tell('listening', { port: server.address().port }));
}

function connect() {
  const socket = tls.connect({ host: '127.0.0.1', ...config.options });
  socket.once('secureConnect', () => tell('secure', { authorized: socket.authorized }));
  follow(socket);
}

({ serve, connect })[config.role]();
