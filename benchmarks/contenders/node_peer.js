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
  ciphers: 'TLS_AES_256_GCM_SHA384',
  ...(setup.groups === null ? {} : { ecdhCurve: setup.groups }),
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
    const count = await work(seconds);
    const elapsed = (performance.now() - started) / 1000;
    await mark();
    await client.close();
    write({ count, seconds: elapsed });
  }
}

async function mark() {
  write({ mark: true });
  await read();
}

class Client {
  constructor(port) {
    this.sockets = [];
    const trust = { ...options, ca: file('ca.pem') };
    this.target = {
      port,
      host: HOST,
      servername: 'localhost',
      noDelay: true,
      ...(setup.context_per_connect ? trust : { secureContext: tls.createSecureContext(trust) }),
    };
  }

  async prepare(workload) {
    switch (workload.kind) {
      case 'exchange':
        await this.open(workload, workload.connections);
        return (seconds) => sum(this.sockets.map((socket) => requests(socket, workload, seconds)));
      case 'handshakes':
        return (seconds) => this.handshakes(workload.at_once, seconds);
      case 'resumptions':
        return (seconds) => this.resumptions(workload.at_once, seconds);
      case 'idle':
        return () => this.open(SMALL, workload.connections);
      default:
        throw new Error(`no such workload: ${workload.kind}`);
    }
  }

  connect(session) {
    return new Promise((resolve, reject) => {
      const socket = tls.connect(session === undefined ? this.target : { ...this.target, session });
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
      while (left-- > 0) {
        const socket = await this.connect();
        this.sockets.push(socket);
        const header = Buffer.alloc(8);
        header.writeUInt32BE(exchange.request_size, 0);
        header.writeUInt32BE(exchange.reply_size, 4);
        socket.write(header);
        await requests(socket, exchange, 0);
      }
    };
    await Promise.all(Array.from({ length: OPENERS }, openSome));
    return connections;
  }

  async handshakes(atOnce, seconds) {
    const deadline = performance.now() + seconds * 1000;
    const oneByOne = async () => {
      let count = 0;
      do {
        await end(await this.connect());
        count += 1;
      } while (performance.now() < deadline);
      return count;
    };
    return sum(Array.from({ length: atOnce }, oneByOne));
  }

  async resumptions(atOnce, seconds) {
    const deadline = performance.now() + seconds * 1000;
    const header = Buffer.alloc(8);
    header.writeUInt32BE(SMALL.request_size, 0);
    header.writeUInt32BE(SMALL.reply_size, 4);
    const oneByOne = async () => {
      let count = -1;  // the first is a full one, and is not counted
      let session;
      do {
        const socket = await this.connect(session);
        if (count >= 0 && !socket.isSessionReused()) throw new Error('a session was not resumed');
        socket.write(header);
        await requests(socket, SMALL, 0);
        session = socket.newestSession ?? session;
        await end(socket);
        count += 1;
      } while (count < 1 || performance.now() < deadline);
      return count;
    };
    return sum(Array.from({ length: atOnce }, oneByOne));
  }

  async close() {
    await Promise.all(this.sockets.map(end));
  }
}

// Sends requests and awaits their replies, at least once and for so many seconds; resolves to how many.
function requests(socket, exchange, seconds) {
  return new Promise((resolve, reject) => {
    const block = Buffer.alloc(exchange.write_size);
    const deadline = performance.now() + seconds * 1000;
    let count = 0;
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
      count += 1;
      if (performance.now() < deadline) {
        request();
        return;
      }
      socket.off('data', receive);
      socket.off('close', hungUp);
      socket.off('error', reject);
      resolve(count);
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

async function sum(promises) {
  return (await Promise.all(promises)).reduce((total, count) => total + count, 0);
}

const main = setup.role === 'server' ? serve : measure;
main().catch((error) => {
  console.error(error);
  process.exit(1);
});
