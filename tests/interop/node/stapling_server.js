'use strict';
// A TLS server on a free port that staples what it is told.

const tls = require('tls');
const { config, tell, tellError, tellSecure } = require('./lines');

const hex = (bytes) => bytes && bytes.toString('hex');
const server = tls.createServer(config.options, (socket) => {
  tellSecure('secureConnection', socket);
  socket.end('welcome');
});
server.on('OCSPRequest', (certificate, issuer, callback) => {
  tell('OCSPRequest', { certificate: hex(certificate), issuer: hex(issuer) });
  callback(null, config.staple && Buffer.from(config.staple, 'hex'));
});
server.on('tlsClientError', (error) => tellError('tlsClientError', error));
server.listen(0, '127.0.0.1', () => tell('listening', { port: server.address().port }));
