'use strict';
// One client or server after the other, as they are ordered: an order is a line of JSON, and so is its answer.

const tls = require('tls');
const { createInterface } = require('readline');

// Return what becomes of a connection, once it is closed.
function outcomeOf(socket, secure) {
  return new Promise((resolve) => {
    let code = null;
    socket.on('secureConnect', () => { secure = true; });
    socket.on('error', (error) => { code = error.code; });
    socket.on('close', () => resolve({ secure, code, authorizationError: socket.authorizationError }));
    socket.resume();
  });
}

let served;

const orders = {
  // Connect; the answer is the outcome.
  connect: (options) => outcomeOf(tls.connect({ host: '127.0.0.1', ...options }), false),

  // Listen on a free port for one client; the answer is the port.
  listen: (options) => new Promise((resolve) => {
    const server = tls.createServer(options);
    served = new Promise((resolveOutcome) => {
      server.on('secureConnection', (socket) => resolveOutcome(outcomeOf(socket, true)));
      server.on('tlsClientError', ({ code }, { authorizationError }) => {
        resolveOutcome({ secure: false, code, authorizationError });
      });
    }).finally(() => server.close());
    server.listen(0, '127.0.0.1', () => resolve(server.address().port));
  }),

  // The answer is the outcome of the client that was listened for.
  outcome: () => served,
};

createInterface({ input: process.stdin }).on('line', async (line) => {
  const { order, options } = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(await orders[order](options))}\n`);
});
