'use strict';
// A TLS server on a free port.

const tls = require('tls');
const { config, follow, tell, tellError, tellSecure } = require('./lines');

const server = tls.createServer(config.options, (socket) => {
  tellSecure('secureConnection', socket);
  follow(socket);
  if (config.answer) socket.end(config.answer);
  if (config.answerSoon) setImmediate(() => socket.end(config.answerSoon));
});
server.on('tlsClientError', (error) => tellError('tlsClientError', error));
server.listen(0, '127.0.0.1', () => tell('listening', { port: server.address().port }));
