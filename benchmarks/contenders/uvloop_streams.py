"""asyncio's streams on uvloop."""

from __future__ import annotations

import uvloop

from .asyncio_streams import AsyncioPeer


class UvloopPeer(AsyncioPeer):
    """The standard library's TLS over uvloop."""

    packages = ("uvloop",)

    def new_loop(self) -> uvloop.Loop:
        return uvloop.new_event_loop()


PEER = UvloopPeer
