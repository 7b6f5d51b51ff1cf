'use strict';
// A TLS client that connects where each order says, or a TLS server that greets; both tell of their sessions.

const tls = require('tls');
const { createInterface } = require('readline');
const { config, tell, tellError } = require('./lines');

const base64 = (buffer) => buffer && buffer.toString('base64');

// Connect, wait for the greeting, and part.
function visit({ port, session }) {
  const told = [];
  const socket = tls.connect({
    host: '127.0.0.1',
    ...config.options,
    port,
    session: session && Buffer.from(session, 'base64'),
  });
  socket.on('session', (one) => told.push(base64(one)));
  socket.on('error', (error) => tellError('error', error));
  socket.once('data', () => {
    // Of tickets that came together with the greeting it is told by then.
    setImmediate(() => {
      tell('visited', {
        reused: socket.isSessionReused(),
        told,
        ticket: base64(socket.getTLSTicket()),
        authorized: socket.authorized,
      });
      socket.end();
    });
  });
}

function serve() {
  const sessions = new Map();
  const server = tls.createServer(config.options, (socket) => {
    tell('visited', { reused: socket.isSessionReused() });
    socket.on('error', (error) => tellError('error', error));
    socket.end('hello\n');
  });
  server.on('newSession', (id, data, done) => {
    sessions.set(base64(id), data);
    done();
  });
  server.on('resumeSession', (id, done) => {
    tell('resumeSession', { id: base64(id) });
    done(null, sessions.get(base64(id)));
  });
  server.on('tlsClientError', (error) => tellError('tlsClientError', error));
  server.listen(0, '127.0.0.1', () => tell('listening', { port: server.address().port }));
}

if (config.role === 'server') serve();
else createInterface({ input: process.stdin }).on('line', (line) => visit(JSON.parse(line)));
