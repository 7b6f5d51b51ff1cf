"""TrioPeer: a peer whose connections are trio's streams."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ClassVar

import trio

from .peer import HOST, Channel, Peer, T


def stream_channel(stream: trio.abc.Stream) -> Channel:
    """Return a trio stream as a channel."""
    return Channel(stream.send_all, stream.receive_some, stream.aclose)


class TrioPeer(Peer):
    """What all libraries on trio have in common."""

    gone: ClassVar[tuple[type[Exception], ...]] = (trio.BrokenResourceError,)

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return trio.run(main)

    async def gather(self, jobs: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
        returned: list[T] = []

        async def collect(job: Callable[[], Awaitable[T]]) -> None:
            returned.append(await job())

        async with trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(collect, job)
        return returned


class TransportPeer(TrioPeer):
    """A peer that puts its stream on top of trio's TCP stream."""

    @abstractmethod
    def server_stream(self, transport: trio.SocketStream) -> trio.abc.Stream:
        """Return the server's stream over an accepted connection."""

    async def serve(
        self, answer: Callable[[Channel], Awaitable[None]], listening: Callable[[int], None]
    ) -> None:
        async def handler(transport: trio.SocketStream) -> None:
            await answer(stream_channel(self.server_stream(transport)))

        listeners = await trio.open_tcp_listeners(0, host=HOST)
        listening(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(handler, listeners)
