'use strict';
// A TLS client, or a TLS server on a free port; both tell the lines of their key log.

const tls = require('tls');
const { config, follow, tell, tellSecure } = require('./lines');

const tellLine = (line) => tell('keylog', { line: line.toString() });

if (config.role === 'client') {
  const socket = tls.connect({ host: '127.0.0.1', ...config.options });
  socket.on('keylog', tellLine);
  socket.on('secureConnect', () => tellSecure('secureConnect', socket));
  follow(socket);
} else {
  const server = tls.createServer(config.options, (socket) => {
    tellSecure('secureConnection', socket);
    follow(socket);
  });
  server.on('keylog', tellLine);
  server.listen(0, '127.0.0.1', () => tell('listening', { port: server.address().port }));
}
