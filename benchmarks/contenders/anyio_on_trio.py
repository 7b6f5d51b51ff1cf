"""anyio's TLSStream, on trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSListener, TLSStream

from .on_trio import TrioPeer
from .peer import HOST, SERVER_NAME, Channel
from .stdlib_ssl import StdlibPeer


def _channel(stream: TLSStream) -> Channel:
    return Channel(stream.send, stream.receive, stream.aclose)


class AnyioPeer(StdlibPeer, TrioPeer):
    """The standard library's TLS over trio, as anyio does it."""

    gone = (anyio.BrokenResourceError, anyio.EndOfStream)
    packages = ("anyio", "trio")

    async def serve(
        self, answer: Callable[[Channel], Awaitable[None]], listening: Callable[[int], None]
    ) -> None:
        async def handler(stream: TLSStream) -> None:
            await answer(_channel(stream))

        listener = await anyio.create_tcp_listener(local_host=HOST)
        listening(listener.extra(SocketAttribute.local_port))
        await TLSListener(listener, self.server_context).serve(handler)

    async def connect(self, port: int) -> Channel:
        return _channel(
            await anyio.connect_tcp(HOST, port, ssl_context=self.client_context, tls_hostname=SERVER_NAME)
        )


PEER = AnyioPeer
