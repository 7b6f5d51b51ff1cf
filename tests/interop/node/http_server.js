'use strict';
// An HTTP server without TLS, on a free port.

const http = require('http');
const { tell } = require('./lines');

const server = http.createServer();
server.listen(0, '127.0.0.1', () => tell('listening', { port: server.address().port }));
