"""asyncio's streams."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ClassVar

from benchmarks.workloads import RECEIVE_SIZE

from .peer import HOST, SERVER_NAME, Channel, T
from .stdlib_ssl import StdlibPeer

_BACKLOG = 2048  # its default of a hundred is soon full


def _channel(reader: StreamReader, writer: StreamWriter) -> Channel:
    async def send(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    async def close() -> None:
        writer.close()
        await writer.wait_closed()

    return Channel(send, reader.read, close)


class AsyncioPeer(StdlibPeer):
    """The standard library's TLS over asyncio's own loop."""

    gone = (ConnectionError, ssl.SSLError)
    packages: ClassVar[tuple[str, ...]] = ()

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop to run on."""
        return asyncio.new_event_loop()

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            return runner.run(main())

    async def gather(self, jobs: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
        return await asyncio.gather(*(job() for job in jobs))

    async def serve(
        self, answer: Callable[[Channel], Awaitable[None]], listening: Callable[[int], None]
    ) -> None:
        async def handler(reader: StreamReader, writer: StreamWriter) -> None:
            await answer(_channel(reader, writer))

        server = await asyncio.start_server(
            handler, HOST, 0, ssl=self.server_context, limit=RECEIVE_SIZE, backlog=_BACKLOG
        )
        listening(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    async def connect(self, port: int) -> Channel:
        return _channel(
            *await asyncio.open_connection(
                HOST, port, ssl=self.client_context, server_hostname=SERVER_NAME, limit=RECEIVE_SIZE
            )
        )


PEER = AsyncioPeer
