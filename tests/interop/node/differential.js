'use strict';
// Runs scenarios with Node's tls on both sides, one after the other: what happened to each side comes out.
//
// In:  { scenarios: [{ server, client, talk, times, look }], contents: { name: base64 } }
// Out: [{ server, client }], each with `events` in their order, and `facts` once it was secure.

const net = require('net');
const tls = require('tls');

const PATIENCE = 10000;
// For who never says anything, and may wait for ever.
const LITTLE_PATIENCE = 500;
// What a server may still have to say once its client is gone.
const AFTERWARDS = 3000;

// Of what is larger, its length will do.
const SMALL = 100;

const { scenarios, contents } = JSON.parse(require('fs').readFileSync(0));

const codeOf = (error) => error.code || `without code: ${error.message.replace(/^error:[^:]*:[^:]*:[^:]*:/, '')}`;

// Options as data: "$name" is a content, and callbacks are tables.
function resolved(value) {
  if (typeof value === 'string' && value[0] === '$') return Buffer.from(contents[value.slice(1)], 'base64');
  if (Array.isArray(value)) return value.map(resolved);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, resolved(each)]));
}

function fromTable({ returns, raises }) {
  if (raises) throw new Error(raises);
  return returns;
}

const CALLBACKS = {
  SNICallback: (table) => (name, answer) => {
    const found = table[name];
    if (found === 'raises') answer(new Error('no such host'));
    else if (found === 'no context') answer(null, {});
    else answer(null, found ? tls.createSecureContext(optionsOf(found)) : null);
  },
  ALPNCallback: (table) => () => fromTable(table),
  checkServerIdentity: (table) => () => (table.refuses ? new Error(table.refuses) : fromTable(table)),
  pskCallback: (table) => (socket, identity) => {
    if (table.raises) throw new Error(table.raises);
    if (identity === undefined) return table.key ? { identity: table.identity, psk: Buffer.from(table.key, 'hex') } : null;
    return Object.hasOwn(table, identity) ? Buffer.from(table[identity], 'hex') : null;
  },
};

function optionsOf({ show, trust, contexts, ...options }) {
  const made = {};
  if (show) Object.assign(made, resolved({ key: `$${show}.key`, cert: `$${show}.cert` }));
  if (trust) made.ca = resolved(trust.map((name) => `$${name}`));
  for (const [name, value] of Object.entries(options)) {
    const isTable = CALLBACKS[name] && value !== null && typeof value === 'object' && !Array.isArray(value);
    made[name] = isTable ? CALLBACKS[name](value) : resolved(value);
  }
  return made;
}

// What is known of a connection once it is secure.

const orNull = (value) => (value === undefined || value === false ? null : value);

function certificate(seen) {
  if (!seen || !seen.raw) return null;
  const chain = [];
  for (let at = seen; at && !chain.some(({ raw }) => raw === at.raw.toString('base64')); at = at.issuerCertificate) {
    const { issuerCertificate, ...fields } = at;
    for (const [name, value] of Object.entries(fields)) {
      if (Buffer.isBuffer(value)) fields[name] = value.toString('base64');
    }
    chain.push(fields);
  }
  return chain;
}

const LOOKS = {
  protocol: (socket) => socket.getProtocol(),
  cipher: (socket) => socket.getCipher().standardName,
  authorized: (socket) => socket.authorized,
  authorizationError: (socket) => orNull(socket.authorizationError && (socket.authorizationError.code || socket.authorizationError)),
  alpn: (socket) => orNull(socket.alpnProtocol),
  servername: (socket) => orNull(socket.servername),
  reused: (socket) => socket.isSessionReused(),
  peer: (socket) => orNull((socket.getPeerCertificate().subject || {}).CN),
  ephemeral: (socket) => {
    const key = socket.getEphemeralKeyInfo();
    return key && key.type ? { type: key.type, name: orNull(key.name), size: key.size } : null;
  },
  sigalgs: (socket) => socket.getSharedSigalgs(),
  certificates: (socket) => certificate(socket.getPeerCertificate(true)),
  own: (socket) => orNull(((socket.getCertificate() || {}).subject || {}).CN),
  suite: (socket) => socket.getCipher(),
  exporter: (socket) => [10, 128].map((size) => socket.exportKeyingMaterial(size, 'label', Buffer.from('context')).length),
  encrypted: (socket) => socket.encrypted,
  fragment: (socket) => [512, 16384].map((size) => socket.setMaxSendFragment(size)),
};
const ALWAYS = ['protocol', 'cipher', 'authorized', 'authorizationError', 'alpn', 'servername', 'reused', 'peer'];

// Both sides of a connection do some steps, and note what happens meanwhile.

class Side {
  constructor(looks) {
    this.looks = looks;
    this.result = { events: [] };
    this.closed = new Promise((resolve) => { this.hasClosed = resolve; });
    this.ended = new Promise((resolve) => { this.hasEnded = resolve; });
    this.received = '';
  }

  note(event) {
    this.result.events.push(event);
  }

  follow(socket) {
    socket.on('data', (data) => {
      if (!this.received) this.note('data');
      this.received += data.toString('latin1');
    });
    // An end before the connection is secure, or after an error, is none of data.
    socket.on('end', () => { if (this.result.facts && !this.failed) this.note('end'); this.hasEnded(); });
    socket.on('error', (error) => { this.failed = true; this.note(`error ${codeOf(error)}`); });
    socket.on('close', () => {
      this.note('close');
      if (this.received) this.result.received = this.received.length < SMALL ? this.received : this.received.length;
      this.hasEnded();
      this.hasClosed();
    });
  }

  secure(socket, event) {
    this.note(event);
    if (this.result.facts) return;
    this.result.facts = Object.fromEntries(this.looks.map((name) => [name, LOOKS[name](socket)]));
  }

  async act(socket, steps) {
    for (const [verb, argument] of steps) {
      if (socket.destroyed) return;
      await VERBS[verb](socket, argument, this);
    }
  }
}

const VERBS = {
  send: (socket, text) => new Promise((resolve) => { socket.write(text, resolve); }),
  fill: (socket, size) => new Promise((resolve) => { socket.write(Buffer.alloc(size), resolve); }),
  end: (socket) => { socket.end(); },
  read: (socket, _, side) => side.ended,
  // Ends the transport without a goodbye.
  cut: (socket) => { socket.transport.destroy(); },
  disable: (socket) => { socket.disableRenegotiation(); },
  renegotiate: (socket, _, side) => new Promise((resolve) => {
    const begun = socket.renegotiate({ rejectUnauthorized: false }, (error) => {
      side.note(error ? `renegotiate ${codeOf(error)}` : 'renegotiated');
      resolve();
    });
    if (begun) side.ended.then(resolve);
  }),
};

const within = (time, promise) => new Promise((resolve) => {
  const timer = setTimeout(() => resolve(false), time);
  promise.then(() => { clearTimeout(timer); resolve(true); });
});

// Servers and clients

function rawServer(text) {
  return net.createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', () => socket.end(text));
  });
}

// `current` returns the side that the next connection belongs to.
function tlsServer(scenario, server, current, keylog) {
  const serve = (socket) => {
    const side = current();
    side.follow(socket);
    side.act(socket, scenario.talk.server);
  };
  if (scenario.talk.transport) {
    // The TLS socket is made by hand, so that its transport can be cut.
    const secureContext = tls.createSecureContext(optionsOf(server));
    return net.createServer((transport) => {
      const socket = new tls.TLSSocket(transport, { isServer: true, secureContext });
      socket.transport = transport;
      transport.on('error', () => {});
      socket.on('secure', () => current().secure(socket, 'secureConnection'));
      serve(socket);
    });
  }
  const made = tls.createServer(optionsOf(server), (socket) => {
    current().secure(socket, 'secureConnection');
    serve(socket);
  });
  for (const [pattern, context] of server.contexts || []) made.addContext(pattern, tls.createSecureContext(optionsOf(context)));
  made.on('tlsClientError', (error) => {
    current().note(`tlsClientError ${codeOf(error)}`);
    current().hasClosed();
  });
  if (keylog) made.on('keylog', (line) => keylog.push(line.toString().split(' ')[0]));
  return made;
}

function rawClient(port, text, side) {
  const socket = net.connect({ port, host: '127.0.0.1' });
  let received = '';
  socket.on('connect', () => { if (text === 'gone') socket.destroy(); else if (text) socket.write(Buffer.from(text, 'latin1')); });
  socket.on('data', (data) => { received += data.toString('hex'); });
  socket.on('end', () => side.note('end'));
  socket.on('error', (error) => side.note(`error ${codeOf(error)}`));
  socket.on('close', () => { side.note('close'); if (received) side.result.received = received; side.hasClosed(); });
}

function tlsClient(scenario, client, port, session, side) {
  const options = { port, host: '127.0.0.1', ...optionsOf(client) };
  if (session) options.session = session;
  const socket = tls.connect(options);
  socket.on('secureConnect', () => {
    side.secure(socket, 'secureConnect');
    if (!side.acting) side.acting = side.act(socket, scenario.talk.client);
  });
  if (scenario.look.includes('sessions')) side.result.sessions = 0;
  socket.on('session', (made) => {
    side.session = made;
    if (scenario.look.includes('sessions')) side.result.sessions++;
  });
  side.follow(socket);
}

async function connection(scenario, port, session) {
  const side = new Side(scenario.looks);
  const { client } = scenario;
  try {
    if ('raw' in client) rawClient(port, client.raw, side);
    else tlsClient(scenario, client, port, session, side);
  } catch (error) {
    side.note(`refused ${codeOf(error)}`);
    side.refused = true;
    side.hasClosed();
  }
  if (!await within(client.raw === '' ? LITTLE_PATIENCE : PATIENCE, side.closed)) side.note('never closed');
  return side;
}

const listening = (server) => new Promise((resolve) => {
  server.listen(0, '127.0.0.1', () => resolve(server.address().port));
});

async function closedPort() {
  const probe = net.createServer();
  const port = await listening(probe);
  await new Promise((resolve) => { probe.close(resolve); });
  return port;
}

async function run(scenario) {
  const { server: options, look } = scenario;
  scenario.looks = [...ALWAYS, ...look.filter((name) => LOOKS[name])];
  const keylog = look.includes('keylog') ? [] : null;
  const isTLS = options && !('raw' in options);
  let side = new Side(scenario.looks);
  let server;
  try {
    if (options) server = isTLS ? tlsServer(scenario, options, () => side, keylog) : rawServer(options.raw);
  } catch (error) {
    return { server: { events: [`refused ${codeOf(error)}`] }, client: null };
  }
  const port = await (server ? listening(server) : closedPort());
  let client;
  let session;
  for (let time = 0; time < scenario.times; time++) {
    side = new Side(scenario.looks);
    client = await connection(scenario, port, session);
    session = client.session || session;
    if (isTLS && !client.refused) await within(AFTERWARDS, side.closed);
  }
  if (server) server.close();
  const outcome = { server: isTLS && !client.refused ? side.result : null, client: client.result };
  return keylog ? { ...outcome, keylog } : outcome;
}

(async () => {
  const outcomes = [];
  for (const scenario of scenarios) outcomes.push(await run(scenario));
  process.stdout.write(JSON.stringify(outcomes), () => process.exit());
})();
