"""trio.SSLStream."""

from __future__ import annotations

import trio

from .on_trio import TransportPeer, stream_channel
from .peer import HOST, SERVER_NAME, Channel
from .stdlib_ssl import StdlibPeer


class SSLStreamPeer(StdlibPeer, TransportPeer):
    """The standard library's TLS over trio, as trio does it."""

    packages = ("trio",)

    def server_stream(self, transport: trio.SocketStream) -> trio.SSLStream[trio.SocketStream]:
        return trio.SSLStream(transport, self.server_context, server_side=True)

    async def connect(self, port: int) -> Channel:
        transport = await trio.open_tcp_stream(HOST, port)
        stream = trio.SSLStream(transport, self.client_context, server_hostname=SERVER_NAME)
        await stream.do_handshake()
        return stream_channel(stream)


PEER = SSLStreamPeer
