'use strict';
// Node.js: both sides of its tls module, told by JSON lines what to do, as worker.py describes.

const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');
const tls = require('node:tls');

const HOST = '127.0.0.1';
const OPENERS = 16;  // connections that are opened at the same time where many are needed
const SMALL = { request_size: 64, reply_size: 64, write_size: 64 };

const setup = JSON.parse(process.argv[2]);
const file = (name) => fs.readFileSync(path.join(setup.directory, name));
const options = {
  minVersion: 'TLSv1.3',
  ciphers: setup.cipher,
  ...(setup.group === null ? {} : { ecdhCurve: setup.group }),
};
const versions = { 'Node.js': process.versions.node, OpenSSL: process.versions.openssl };
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

function write(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

async function read() {
  const { value, done } = await lines.next();
  if (done) process.exit(0);
  return JSON.parse(value);
}

// --- server

async function serve() {
  const server = tls.createServer({ ...options, key: file('key.pem'), cert: file('cert.pem'), noDelay: true }, answer);
  server.on('tlsClientError', (error) => console.error(error));
  await new Promise((resolve) => server.listen(0, HOST, 2048, resolve));
  write({ versions, port: server.address().port });
  for (;;) {
    const { settle } = await read();
    const { user, system } = process.cpuUsage();
    if (settle) global.gc();
    write({ cpu: (user + system) / 1e6, memory: process.memoryUsage.rss() });
  }
}

function answer(socket) {
  let requestSize;
  let reply;
  let left;
  socket.on('data', (data) => {
    if (reply === undefined) {  // the first bytes: sizes of a request and of a reply
      requestSize = data.readUInt32BE(0);
      reply = Buffer.alloc(data.readUInt32BE(4));
      left = requestSize + 8;
    }
    left -= data.length;
    if (left > 0) return;
    left = requestSize;
    socket.write(reply);
  });
  socket.on('error', () => socket.destroy());  // one that was cut off says so itself
}

// --- client

async function measure() {
  write({ versions });
  for (;;) {
    const { port, workload, seconds, warm_up: warmUp } = await read();
    const client = new Client(port);
    const work = await client.prepare(workload);
    await work(warmUp);
    await mark();
    const started = performance.now();
    const durations = await work(seconds);
    const elapsed = (performance.now() - started) / 1000;
    await mark();
    await client.close();
    write({ seconds: elapsed, ...summary(durations) });
  }
}

async function mark() {
  write({ mark: true });
  await read();
}

// As workloads.summary.
function summary(durations) {
  const sorted = Float64Array.from(durations).sort();
  const at = (share) => sorted[Math.floor(sorted.length * share)];
  return { count: sorted.length, median: at(0.5), percentile_99: at(0.99), parts: {} };
}

class Client {
  constructor(port) {
    this.sockets = [];
    this.sessions = [];
    const trust = { ...options, ca: file('ca.pem') };
    this.target = {
      port,
      host: HOST,
      servername: 'localhost',
      ...(setup.context_per_connect ? trust : { secureContext: tls.createSecureContext(trust) }),
    };
  }

  async prepare(workload) {
    switch (workload.kind) {
      case 'exchange':
        await this.open(workload, workload.connections);
        return (seconds) => all(this.sockets.map((socket) => requests(socket, workload, seconds)));
      case 'handshakes':
        await this.open(SMALL, workload.held);
        return (seconds) => this.handshakes(workload.at_once, seconds);
      case 'resumptions':
        return (seconds) => this.resumptions(workload.at_once, seconds);
      case 'idle': {
        const numbers = [workload.before, workload.connections];
        return () => this.open(SMALL, numbers.shift());
      }
      default:
        throw new Error(`no such workload: ${workload.kind}`);
    }
  }

  connect(session) {
    return new Promise((resolve, reject) => {
      const socket = tls.connect(session === undefined ? this.target : { ...this.target, session });
      socket.setNoDelay(true);  // tls.connect drops the option of that name
      socket.on('session', (newest) => { socket.newestSession = newest; });
      socket.once('error', reject);
      socket.once('secureConnect', () => {
        socket.off('error', reject);
        resolve(socket);
      });
    });
  }

  // Opens connections and makes the first exchange on each.
  async open(exchange, connections) {
    let left = connections;
    const openSome = async () => {
      const durations = [];
      while (left-- > 0) {
        const started = performance.now();
        const socket = await this.connect();
        durations.push((performance.now() - started) / 1000);
        this.sockets.push(socket);
        const header = Buffer.alloc(8);
        header.writeUInt32BE(exchange.request_size, 0);
        header.writeUInt32BE(exchange.reply_size, 4);
        socket.write(header);
        await requests(socket, exchange, 0);
      }
      return durations;
    };
    return all(Array.from({ length: OPENERS }, openSome));
  }

  async handshakes(atOnce, seconds) {
    const deadline = performance.now() + seconds * 1000;
    const oneByOne = async () => {
      const durations = [];
      do {
        const started = performance.now();
        const socket = await this.connect();
        durations.push((performance.now() - started) / 1000);
        await end(socket);
      } while (performance.now() < deadline);
      return durations;
    };
    return all(Array.from({ length: atOnce }, oneByOne));
  }

  async resumptions(atOnce, seconds) {
    const deadline = performance.now() + seconds * 1000;
    const header = Buffer.alloc(8);
    header.writeUInt32BE(SMALL.request_size, 0);
    header.writeUInt32BE(SMALL.reply_size, 4);
    const oneByOne = async (_, place) => {
      const durations = [];
      do {
        const started = performance.now();
        const session = this.sessions[place];
        const socket = await this.connect(session);
        if (session !== undefined && !socket.isSessionReused()) throw new Error('a session was not resumed');
        socket.write(header);
        await requests(socket, SMALL, 0);
        this.sessions[place] = socket.newestSession ?? session;
        await end(socket);
        // The first of all is a full one, and belongs to the warm-up.
        if (session !== undefined) durations.push((performance.now() - started) / 1000);
      } while (durations.length < 1 || performance.now() < deadline);
      return durations;
    };
    return all(Array.from({ length: atOnce }, oneByOne));
  }

  async close() {
    await Promise.all(this.sockets.map(end));
  }
}

// Sends requests and awaits their replies, at least once and for so many seconds; resolves to how long each took.
function requests(socket, exchange, seconds) {
  return new Promise((resolve, reject) => {
    const block = Buffer.alloc(exchange.write_size);
    const durations = [];
    let started = performance.now();
    const deadline = started + seconds * 1000;
    let unsent;
    let unanswered;
    const send = () => {
      while (unsent > 0) {
        unsent -= block.length;
        if (!socket.write(block)) {
          socket.once('drain', send);
          return;
        }
      }
    };
    const request = () => {
      unsent = exchange.request_size;
      unanswered = exchange.reply_size;
      send();
    };
    const receive = (data) => {
      unanswered -= data.length;
      if (unanswered > 0) return;
      const ended = performance.now();
      durations.push((ended - started) / 1000);
      started = ended;
      if (ended < deadline) {
        request();
        return;
      }
      socket.off('data', receive);
      socket.off('close', hungUp);
      socket.off('error', reject);
      resolve(durations);
    };
    const hungUp = () => reject(new Error('the server hung up'));
    socket.on('data', receive);
    socket.on('close', hungUp);
    socket.on('error', reject);
    request();
  });
}

// Sends the end and does not wait for the peer's, as trio does.
function end(socket) {
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.resume();
    socket.end(resolve);
  });
}

async function all(promises) {
  return (await Promise.all(promises)).flat();
}

const main = setup.role === 'server' ? serve : measure;
main().catch((error) => {
  console.error(error);
  process.exit(1);
});
