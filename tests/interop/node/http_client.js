'use strict';
// An HTTP client without TLS.

const http = require('http');
const { config, tell, tellError } = require('./lines');

http.get({ host: '127.0.0.1', ...config.options }, (answer) => tell('answer', { status: answer.statusCode }))
  .on('error', (error) => tellError('error', error));
