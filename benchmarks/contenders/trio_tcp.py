"""Plain TCP on trio: the floor that no TLS on trio can pass."""

from __future__ import annotations

import trio

from .on_trio import TransportPeer, stream_channel
from .peer import HOST, Channel


class TCPPeer(TransportPeer):
    """trio's own TCP stream."""

    packages = ("trio",)

    def server_stream(self, transport: trio.SocketStream) -> trio.SocketStream:
        return transport

    async def connect(self, port: int) -> Channel:
        return stream_channel(await trio.open_tcp_stream(HOST, port))


PEER = TCPPeer
