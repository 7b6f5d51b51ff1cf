"""An echo server whose counters Prometheus can read: python examples/metrics.py key.pem cert.pem

Try it: curl http://localhost:9100/metrics

The format is Prometheus' text, which OpenTelemetry's collector reads too; the standard library is enough.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import trio

import trio_tlsnode as tls

# Nobody who asks for the counters has to say more, or takes longer.
MOST_BYTES = 8192
SECONDS = 5


async def echo(stream: tls.TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


def exposition(statistics: tls.ServerStatistics) -> str:
    """Return the counters of a server in Prometheus' text format."""
    return "".join(f"{line}\n" for line in _lines(statistics))


def _lines(statistics: tls.ServerStatistics) -> Iterator[str]:
    single = (
        ("connections_open", "gauge", "Connections there are now.", statistics.open),
        ("connections_handshaking", "gauge", "Those that are not secure yet.", statistics.handshaking),
        ("handshakes_waiting", "gauge", "Those that wait for one of max_handshakes.", statistics.waiting),
        ("connections_total", "counter", "Connections there ever were.", statistics.accepted),
        ("connections_secure_total", "counter", "Those that finished the handshake.", statistics.secure),
        ("connections_resumed_total", "counter", "Those that resumed a session.", statistics.resumed),
        ("failures_dropped_total", "counter", "Failures that nobody fetched in time.", statistics.dropped),
        (
            "no_room_total",
            "counter",
            "Connections that could not be accepted (EMFILE ...).",
            statistics.no_room,
        ),
    )
    for name, kind, meaning, value in single:
        yield f"# HELP tls_{name} {meaning}"
        yield f"# TYPE tls_{name} {kind}"
        yield f"tls_{name} {value}"
    yield "# HELP tls_failures_total Connections that failed, by the code of the error."
    yield "# TYPE tls_failures_total counter"
    for code, number in sorted(statistics.failed.items()):
        yield f'tls_failures_total{{code="{code}"}} {number}'


async def answer(server: tls.TLSServer, stream: trio.SocketStream) -> None:
    """Answer one HTTP request, whatever it asks for, with the counters."""
    with contextlib.suppress(trio.BrokenResourceError), trio.move_on_after(SECONDS):
        request = b""
        while b"\r\n\r\n" not in request and len(request) < MOST_BYTES:
            data = await stream.receive_some()
            if not data:
                return
            request += data
        body = exposition(server.statistics()).encode()
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        await stream.send_all(head.encode() + body)


async def report(server: tls.TLSServer) -> None:
    """Look after the failures, which are counted in any case, so that they are not logged."""
    async for group in server.client_errors():
        for error in group.exceptions:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)


async def main(key: Path, cert: Path, port: int = 8443, metrics_port: int = 9100) -> None:
    server = tls.TLSServer(echo, tls.SecureContext(key=key, cert=cert), handshake_timeout=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(report, server)
        await nursery.start(server.serve, port)
        # For this machine only: who may know how busy the server is, is another question.
        serve_metrics = partial(trio.serve_tcp, partial(answer, server), metrics_port, host="127.0.0.1")
        listeners = await nursery.start(serve_metrics)
        print("listening on", ", ".join(map(str, server.addresses)))
        print(f"metrics at http://localhost:{listeners[0].socket.getsockname()[1]}/metrics")


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), Path(sys.argv[2]))
