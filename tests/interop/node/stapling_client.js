'use strict';
// A TLS client that asks for a stapled OCSP response.

const tls = require('tls');
const { config, follow, tell, tellSecure } = require('./lines');

const socket = tls.connect({ host: '127.0.0.1', requestOCSP: true, ...config.options });
socket.on('OCSPResponse', (response) => tell('OCSPResponse', { response: response && response.toString('hex') }));
socket.on('secureConnect', () => tellSecure('secureConnect', socket));
follow(socket);
