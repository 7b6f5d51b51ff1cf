'use strict';
// A TLS client.

const tls = require('tls');
const { config, follow, tellSecure } = require('./lines');

const socket = tls.connect({ host: '127.0.0.1', ...config.options });
socket.on('secureConnect', () => tellSecure('secureConnect', socket));
follow(socket);
