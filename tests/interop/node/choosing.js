'use strict';
// A TLS client, or a TLS server on a free port that chooses per connection; both tell of their key exchange.

const tls = require('tls');
const { config, follow, tell, tellError, tellSecure } = require('./lines');

function tellAll(event, socket) {
  tellSecure(event, socket);
  tell('ephemeralKey', { key: socket.getEphemeralKeyInfo() });
  follow(socket);
}

// Answer with the context of a name; one that is no object stands for what is no context, or for an error.
function SNICallback(name, callback) {
  const found = config.sni[name];
  if (found === 'throw') callback(new Error('no such host'));
  else if (found === 'wrong') callback(null, {});
  else callback(null, found ? tls.createSecureContext(found) : null);
}

// Answer with the second protocol, or one that is named; or throw; or show another certificate first.
function ALPNCallback({ servername, protocols }) {
  tell('choice', { servername, protocols });
  if (config.alpn === 'throw') throw new Error('thrown');
  if (config.alpn === 'second') return protocols[1];
  if (config.alpn.credentials) {
    this.setKeyCert(tls.createSecureContext(config.alpn.credentials));
    return protocols[0];
  }
  return config.alpn;
}

if (config.role === 'client') {
  const socket = tls.connect({ host: '127.0.0.1', ...config.options });
  socket.on('secureConnect', () => tellAll('secureConnect', socket));
  socket.on('error', (error) => tellError('error', error));
} else {
  const options = { ...config.options };
  if (config.sni) options.SNICallback = SNICallback;
  if (config.alpn) options.ALPNCallback = ALPNCallback;
  const server = tls.createServer(options, (socket) => tellAll('secureConnection', socket));
  for (const [pattern, context] of Object.entries(config.contexts || {})) server.addContext(pattern, context);
  server.on('tlsClientError', (error) => tellError('tlsClientError', error));
  server.listen(0, '127.0.0.1', () => tell('listening', { port: server.address().port }));
}
