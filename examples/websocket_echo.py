"""WebSockets over trio_tlsnode, by trio-websocket: a server that sends everything back, and a client.

    python examples/websocket_echo.py serve key.pem cert.pem [port]
    python examples/websocket_echo.py send wss://localhost:8443/ ca.pem hello

trio-websocket takes any stream of Trio, so both sides give it one whose handshake is done.  The task that it
starts for each connection lives in the nursery that it is given: on the server, the connection's own.  It has
no time-outs for streams that are given to it, so those are here.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Unpack
from urllib.parse import urlsplit

import trio
import trio_websocket

import trio_tlsnode as tls

# How long it may take to open a WebSocket, and to close it, in seconds.
PATIENCE = 10
LONGEST_MESSAGE = 64 * 1024

# The server


async def echo(stream: tls.TLSStream) -> None:
    """Send back what comes: the handler of a `TLSServer`."""
    assert stream.nursery is not None
    websocket = None
    with contextlib.suppress(trio_websocket.ConnectionClosed):
        # Without it, a client that leaves early would be waited for for ever.
        with trio.move_on_after(PATIENCE):
            request = await trio_websocket.wrap_server_stream(
                stream.nursery, stream, max_message_size=LONGEST_MESSAGE
            )
            websocket = await request.accept()
        while websocket is not None:
            await websocket.send_message(await websocket.get_message())


async def serve(
    key: Path,
    cert: Path,
    port: int,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled."""
    context = tls.SecureContext(key=key, cert=cert)
    # WebSockets begin in HTTP/1.1; a browser that was offered h2 as well would take that.
    server = tls.TLSServer(echo, context, alpn_protocols=["http/1.1"], send_timeout=PATIENCE)
    await server.serve(port, "localhost", task_status=task_status)


# The client


@contextlib.asynccontextmanager
async def open_websocket(
    nursery: trio.Nursery,
    url: str,
    context: tls.SecureContext,
    **options: Unpack[tls.ClientStreamOptions],
) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    """Have a WebSocket in the block.

    Args:
        nursery: For the task that reads; where the server refuses the WebSocket, it is this task that raises.
        url: Where it is ("wss://...").
        context: Who is trusted, who we are, and the rest of TLS.
        **options: As for `trio_tlsnode.connect`.
    """
    options.setdefault("alpn_protocols", ["http/1.1"])
    parts = urlsplit(url)
    resource = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    with trio.fail_after(PATIENCE):
        secure = await tls.connect(
            parts.hostname or "localhost", parts.port or 443, context=context, **options
        )
    # A WebSocket that the server has closed does not close its stream.
    async with secure:
        # Any stream will do, whatever the annotation of trio-websocket says.
        stream: Any = secure
        with trio.fail_after(PATIENCE):
            websocket = await trio_websocket.wrap_client_stream(
                nursery, stream, parts.netloc, resource, max_message_size=LONGEST_MESSAGE
            )
        yield websocket
        with trio.move_on_after(PATIENCE):
            await websocket.aclose()


async def send(url: str, ca: Path, message: str) -> str | bytes:
    """Send a message; return what comes back."""
    context = tls.SecureContext(ca=ca)
    async with trio.open_nursery() as nursery, open_websocket(nursery, url, context) as websocket:
        await websocket.send_message(message)
        return await websocket.get_message()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", key, cert]:
            trio.run(serve, Path(key), Path(cert), 8443)
        case ["serve", key, cert, port]:
            trio.run(serve, Path(key), Path(cert), int(port))
        case ["send", url, ca, message]:
            print(trio.run(send, url, Path(ca), message))
        case _:
            sys.exit(__doc__)
