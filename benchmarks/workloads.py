"""Workloads: what a client and a server do on a channel, whatever library is under it."""

from __future__ import annotations

import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from .scenarios import Exchange, Handshakes, Idle, Resumptions, Workload

if TYPE_CHECKING:
    from .contenders.peer import Channel, Peer

RECEIVE_SIZE = 256 * 1024
_OPENERS = 16  # connections that are opened at the same time where many are needed
_HEADER = struct.Struct("!II")  # the first bytes on a connection: sizes of a request and of a reply
_SMALL = Exchange(connections=1, request_size=64, reply_size=64, write_size=64)


async def answer(peer: Peer, channel: Channel) -> None:
    """Be a server to one client: answer each request until the client closes."""
    # A client that closes may reset the connection, as tickets that it has not read are still there.  One
    # that was cut off says so itself.
    with suppress(*peer.gone):
        if header := await channel.receive(_HEADER.size):
            request_size, reply_size = _HEADER.unpack(header)
            reply = bytes(reply_size)
            while await _receive_all(channel, request_size):
                await channel.send(reply)
    with suppress(*peer.gone):
        await channel.close()


async def _receive_all(channel: Channel, size: int) -> bool:
    """Receive so many bytes; return False if the end came first."""
    while size > 0:
        data = await channel.receive(RECEIVE_SIZE)
        if not data:
            return False
        size -= len(data)
    return True


async def measure(
    peer: Peer, port: int, workload: Workload, seconds: float, warm_up: float, mark: Callable[[], None]
) -> dict[str, Any]:
    """Be the client of a workload: warm up, then do it for so many seconds, between two marks.

    Returns:
        How often it was done ("count"), and in what time ("seconds").
    """
    client = _Client(peer, port)
    work = await client.prepare(workload)
    await work(warm_up)
    mark()
    started = time.perf_counter()
    count = await work(seconds)
    elapsed = time.perf_counter() - started
    mark()
    await client.close()
    return {"count": count, "seconds": elapsed}


class _Client:
    def __init__(self, peer: Peer, port: int) -> None:
        self._peer = peer
        self._port = port
        self._channels: list[Channel] = []

    async def prepare(self, workload: Workload) -> Callable[[float], Awaitable[int]]:
        """Return what does the workload for so many seconds and returns how often."""
        match workload:
            case Exchange():
                await self._open(workload, workload.connections)
                return partial(self._exchange, workload)
            case Handshakes():
                return partial(self._handshakes, workload.at_once)
            case Resumptions():
                return partial(self._resumptions, workload.at_once)
            case Idle():
                return partial(self._fill, workload.connections)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    async def _open(self, exchange: Exchange, connections: int) -> None:
        """Open connections and make the first exchange on each."""

        async def open_some(some: int) -> None:
            for _ in range(some):
                channel = await self._peer.connect(self._port)
                self._channels.append(channel)
                await channel.send(_HEADER.pack(exchange.request_size, exchange.reply_size))
                await _requests(channel, exchange, seconds=0)

        openers = min(_OPENERS, connections)
        shares = [len(range(opener, connections, openers)) for opener in range(openers)]
        await self._peer.gather([partial(open_some, share) for share in shares])

    async def _exchange(self, exchange: Exchange, seconds: float) -> int:
        jobs = [partial(_requests, channel, exchange, seconds) for channel in self._channels]
        return sum(await self._peer.gather(jobs))

    async def _handshakes(self, at_once: int, seconds: float) -> int:
        async def one_by_one() -> int:
            deadline = time.perf_counter() + seconds
            count = 0
            while True:
                channel = await self._peer.connect(self._port)
                await channel.close()
                count += 1
                if time.perf_counter() >= deadline:
                    return count

        return sum(await self._peer.gather([one_by_one] * at_once))

    async def _resumptions(self, at_once: int, seconds: float) -> int:
        async def one_by_one() -> int:
            deadline = time.perf_counter() + seconds
            session: object = None
            # The first is a full one, and is not counted.
            count = -1
            while True:
                channel = await self._peer.resume(self._port, session)
                await channel.send(_HEADER.pack(_SMALL.request_size, _SMALL.reply_size))
                await _requests(channel, _SMALL, seconds=0)
                assert channel.session is not None
                session = channel.session()
                if session is None:
                    raise ConnectionError("the server has sent no session")
                await channel.close()
                count += 1
                if count > 0 and time.perf_counter() >= deadline:
                    return count

        return sum(await self._peer.gather([one_by_one] * at_once))

    async def _fill(self, connections: int, _seconds: float) -> int:
        await self._open(_SMALL, connections)
        return connections


async def _requests(channel: Channel, exchange: Exchange, seconds: float) -> int:
    """Send requests and await their replies, at least once and for so many seconds; return how many."""
    block = bytes(exchange.write_size)
    writes = exchange.request_size // exchange.write_size
    deadline = time.perf_counter() + seconds
    count = 0
    while True:
        for _ in range(writes):
            await channel.send(block)
        if not await _receive_all(channel, exchange.reply_size):
            raise ConnectionError("the server hung up")
        count += 1
        if time.perf_counter() >= deadline:
            return count
