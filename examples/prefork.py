"""An echo server of several processes: python examples/prefork.py key.pem cert.pem [port [workers]]

The server is made before the workers are forked, so that they share the keys of its session tickets: a
session that one of them made resumes in each.  They also share the listening socket, and the kernel gives
each client to one that waits.  A worker that dies is replaced.  SIGTERM, or Ctrl-C, lets each of them accept
no more, wait for its clients for up to GRACE seconds, and end.

Try it: openssl s_client -connect localhost:8443 -reconnect -tls1_2 -CAfile cert.pem
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import trio

import trio_tlsnode as tls

GRACE = 10
# What the first process waits for.
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


async def echo(stream: tls.TLSStream) -> None:
    await stream.send_all(f"worker {os.getpid()}\n".encode())
    async for data in stream:
        await stream.send_all(data)


async def work(server: tls.TLSServer, listening: socket.socket) -> None:
    """Serve until there is a signal to end."""
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    with trio.open_signal_receiver(signal.SIGTERM) as received:
        # One that came earlier comes now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_listeners, [listener])
            await anext(received)
            await server.aclose(GRACE)


def start_worker(server: tls.TLSServer, listening: socket.socket) -> int:
    """Fork a worker; return its process id.  In the worker itself, this does not return."""
    worker = os.fork()
    if worker:
        print("started worker", worker, flush=True)
        return worker
    # Ctrl-C goes to all processes, and the first one passes it on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        trio.run(work, server, listening)
    finally:
        # Whatever happened, a worker does not go on as the first process.
        failed = sys.exc_info()[0] is not None
        if failed:
            traceback.print_exc()
        os._exit(failed)


def main(key: Path, cert: Path, port: int, workers: int) -> None:
    server = tls.TLSServer(echo, tls.SecureContext(key=key, cert=cert), handshake_timeout=10)
    listening = socket.create_server(("localhost", port), backlog=1024)
    # What comes while nobody waits for it is kept.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    print("listening on port", listening.getsockname()[1], flush=True)
    running = {start_worker(server, listening) for _ in range(workers)}
    while signal.sigwait(SIGNALS) == signal.SIGCHLD:
        for worker, status in ended():
            running.remove(worker)
            if not os.WIFSIGNALED(status):
                # It was not killed but has failed, and the next one may fail as soon.
                time.sleep(1)
            running.add(start_worker(server, listening))
    listening.close()
    for worker in running:
        os.kill(worker, signal.SIGTERM)
    while running:
        worker, _ = os.wait()
        running.remove(worker)
        print("ended worker", worker, flush=True)


def ended() -> list[tuple[int, int]]:
    """Return the process id and the status of each worker that has ended."""
    found: list[tuple[int, int]] = []
    # Several may have ended when there is one signal.
    with contextlib.suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(one)
    return found


if __name__ == "__main__":
    arguments = dict(enumerate(sys.argv))
    main(
        Path(arguments[1]),
        Path(arguments[2]),
        int(arguments.get(3, 8443)),
        int(arguments.get(4, os.cpu_count() or 1)),
    )
