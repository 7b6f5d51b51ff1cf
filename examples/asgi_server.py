"""An ASGI application served by Hypercorn over trio_tlsnode, with ``scope["extensions"]["tls"]`` filled in.

    python examples/asgi_server.py key.pem cert.pem [client-ca.pem]
    curl --cacert ca.pem --cert client.pem --key client-key.pem https://localhost:8443/

`hypercorn.trio.serve` opens its own listeners, whose TLS is the standard library's, and takes no others.  But
its class that serves one connection takes the stream from outside, and asks it for little more than any
stream of Trio has: ``do_handshake``, ``selected_alpn_protocol`` and the socket below.  So a `TLSServer`
accepts, and Hypercorn speaks HTTP/1.1 or HTTP/2, by ALPN, and WebSockets.  These classes of Hypercorn are not
documented; this example is tested with its version 0.18.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIFramework, ConnectionState
from hypercorn.utils import wrap_app

import trio_tlsnode as tls

GRACE = 10


class HypercornStream:
    """A `TLSStream` that tells its protocol where Hypercorn asks for it."""

    def __init__(self, stream: tls.TLSStream) -> None:
        self._stream = stream

    def selected_alpn_protocol(self) -> str | None:
        return self._stream.alpn_protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class WithTLS:
    """An application that is told, in the scope of each request, of the TLS of its connection."""

    def __init__(self, app: AppWrapper, stream: tls.TLSStream) -> None:
        self._app = app
        self._stream = stream

    async def __call__(self, scope: Any, *rest: Any) -> None:
        # Asked for each request: a client may have been asked for its certificate meanwhile.
        scope["extensions"]["tls"] = self._stream.info.asgi_extension()
        await self._app(scope, *rest)


class Service:
    """An application behind a `TLSServer`, whose handler is `handle`.

    Args:
        app: The application.
        config: Hypercorn's; all that it says of addresses and TLS is not used.
    """

    def __init__(self, app: ASGIFramework, config: Config | None = None) -> None:
        self._config = Config() if config is None else config
        self._app = wrap_app(app, self._config.wsgi_max_body_size, "asgi")
        self._worker = WorkerContext(self._config.max_requests)
        self._state: dict[str, Any] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have the application started in the block, and shut down after it."""
        lifespan = Lifespan(self._app, self._config, self._state)
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            yield
            await lifespan.wait_for_shutdown()
            nursery.cancel_scope.cancel()

    async def handle(self, stream: tls.TLSStream) -> None:
        # Their annotations ask for more than is used of them.
        app: Any = WithTLS(self._app, stream)
        adapted: Any = HypercornStream(stream)
        state = ConnectionState(self._state.copy())
        await TCPServer(app, self._config, self._worker, state, adapted).run()

    async def end(self) -> None:
        """Send clients away that have nothing to ask."""
        await self._worker.terminated.set()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Tell clients what the application knows of their TLS."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
        return
    known = {"http_version": scope["http_version"], **scope["extensions"]["tls"]}
    body = json.dumps(known, indent=2).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def main(key: Path, cert: Path, client_ca: Path | None, port: int) -> None:
    service = Service(app)
    server = tls.TLSServer(
        service.handle,
        tls.SecureContext(key=key, cert=cert, ca=client_ca),
        alpn_protocols=["h2", "http/1.1"],
        # A client without a certificate, or with a wrong one, is the application's to judge.
        request_cert=client_ca is not None,
        reject_unauthorized=False,
        # Hypercorn has none, and shields what it sends.
        send_timeout=30,
        https_compatible=True,
    )
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with service.running(), trio.open_nursery() as nursery:
            await nursery.start(server.serve, port, "localhost")
            print("listening on port", server.addresses[0].port, flush=True)
            await anext(signals)
            await service.end()
            await server.aclose(GRACE)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    match sys.argv[1:]:
        case [key, cert]:
            trio.run(main, Path(key), Path(cert), None, 8443)
        case [key, cert, client_ca]:
            trio.run(main, Path(key), Path(cert), Path(client_ca), 8443)
        case _:
            sys.exit(__doc__)
