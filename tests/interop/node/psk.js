'use strict';
// A TLS client, or a server on a free port, with pre-shared keys: `config.keys`, in hex, by their identities.

const tls = require('tls');
const { config, follow, tell, tellError, tellSecure } = require('./lines');

function tellAll(event, socket) {
  tellSecure(event, socket);
  tell('reused', { reused: socket.isSessionReused() });
  follow(socket);
}

function key(identity) {
  return Object.hasOwn(config.keys, identity) ? Buffer.from(config.keys[identity], 'hex') : null;
}

function serve() {
  const pskCallback = (socket, identity) => {
    tell('asked', { identity });
    return key(identity);
  };
  const server = tls.createServer({ ...config.options, pskCallback }, (socket) => tellAll('secureConnection', socket));
  server.on('tlsClientError', (error) => tellError('tlsClientError', error));
  server.listen(0, '127.0.0.1', () => tell('listening', { port: server.address().port }));
}

function connect() {
  const pskCallback = (hint) => {
    tell('asked', { hint });
    const [identity] = Object.keys(config.keys);
    return identity === undefined ? null : { identity, psk: key(identity) };
  };
  const session = config.session && Buffer.from(config.session, 'hex');
  // With no certificate, Node's own check would refuse.
  const checkServerIdentity = () => undefined;
  const socket = tls.connect({ host: '127.0.0.1', ...config.options, session, pskCallback, checkServerIdentity });
  socket.on('session', (made) => tell('session', { hex: made.toString('hex') }));
  socket.on('secureConnect', () => tellAll('secureConnect', socket));
  socket.on('error', (error) => tellError('error', error));
}

({ serve, connect })[config.role]();
