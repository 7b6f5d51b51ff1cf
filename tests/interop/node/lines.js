'use strict';
// What the scripts share: events go out and orders come in, a line of JSON each.

const { createHash } = require('crypto');
const { createInterface } = require('readline');

const config = JSON.parse(process.argv[2]);

function tell(event, facts) {
  process.stdout.write(`${JSON.stringify({ event, ...facts })}\n`);
}

function tellError(event, { code, message, reason }) {
  tell(event, { code, message, reason });
}

function tellSecure(event, socket) {
  tell(event, {
    protocol: socket.getProtocol(),
    cipher: socket.getCipher().standardName,
    servername: socket.servername,
    alpnProtocol: socket.alpnProtocol,
    authorized: socket.authorized,
    authorizationError: socket.authorizationError,
    peer: socket.getPeerCertificate().subject,
  });
}

// Tell what the socket receives, or echo it, and call the methods that are ordered.
function follow(socket) {
  const digest = createHash('sha256');
  let length = 0;
  socket.on('data', (data) => {
    digest.update(data);
    length += data.length;
  });
  socket.on('end', () => tell('end', { length, sha256: digest.digest('hex') }));
  socket.on('error', (error) => tellError('error', error));
  socket.on('close', (hadError) => tell('close', { hadError }));
  if (config.echo) socket.pipe(socket);
  createInterface({ input: process.stdin }).on('line', (line) => {
    const { method, text, times } = JSON.parse(line);
    socket[method](text && text.repeat(times));
  });
}

module.exports = { config, follow, tell, tellError, tellSecure };
