"""An echo server with a supervising task: python examples/echo_server.py key.pem cert.pem [port]

Try it: tlsnode connect localhost:8443 --ca cert.pem
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

import trio_tlsnode as tls


async def echo(stream: tls.TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def report(server: tls.TLSServer) -> None:
    """Tell what clients do wrong; the server does not care."""
    async for group in server.client_errors():
        for error in group.exceptions:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)


async def main(key: Path, cert: Path, port: int) -> None:
    context = tls.SecureContext(key=key, cert=cert)
    server = tls.TLSServer(echo, context, handshake_timeout=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(report, server)
        await nursery.start(server.serve, port)
        print("listening on", ", ".join(map(str, server.addresses)))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else 8443)
