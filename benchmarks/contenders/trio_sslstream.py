"""trio.SSLStream."""

from __future__ import annotations

import ssl
from typing import cast

import trio

from .on_trio import TransportPeer
from .peer import HOST, SERVER_NAME, Channel
from .stdlib_ssl import StdlibPeer


class SSLStreamPeer(StdlibPeer, TransportPeer):
    """The standard library's TLS over trio, as trio does it."""

    packages = ("trio",)

    def server_stream(self, transport: trio.SocketStream) -> trio.SSLStream[trio.SocketStream]:
        return trio.SSLStream(transport, self.server_context, server_side=True)

    async def connect(self, port: int) -> Channel:
        return await self.resume(port, None)

    async def resume(self, port: int, session: object) -> Channel:
        transport = await trio.open_tcp_stream(HOST, port)
        stream = trio.SSLStream(transport, self.client_context, server_hostname=SERVER_NAME)
        # Trio has no way to it of its own.
        connection: ssl.SSLObject = stream._ssl_object
        if session is not None:
            connection.session = cast("ssl.SSLSession", session)
        await stream.do_handshake()
        return Channel(stream.send_all, stream.receive_some, stream.aclose, lambda: connection.session)


PEER = SSLStreamPeer
