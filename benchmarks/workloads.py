"""Workloads: what a client and a server do on a channel, whatever library is under it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from statistics import median
from typing import Any

from . import first_byte
from .contenders.peer import HEADER, Channel, Peer
from .scenarios import Exchange, FirstByte, Handshakes, Idle, Resumptions, Workload

RECEIVE_SIZE = 256 * 1024
_OPENERS = 16  # connections that are opened at the same time where many are needed
_SMALL = Exchange(connections=1, request_size=64, reply_size=64, write_size=64)


async def answer(peer: Peer, channel: Channel) -> None:
    """Be a server to one client: answer each request until the client closes."""
    # A client that closes may reset the connection, as tickets that it has not read are still there.  One
    # that was cut off says so itself.
    with suppress(*peer.gone):
        if header := await channel.receive(HEADER.size):
            request_size, reply_size = HEADER.unpack(header)
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
        In what time it was done ("seconds"), the medians of its parts ("parts"), and its `summary`.
    """
    client = _Client(peer, port)
    work = await client.prepare(workload)
    await work(warm_up)
    mark()
    started = time.perf_counter()
    durations = await work(seconds)
    elapsed = time.perf_counter() - started
    mark()
    await client.close()
    parts = {name: median(times) for name, times in client.parts.items()}
    return {"seconds": elapsed, "parts": parts, **summary(durations)}


def summary(durations: Sequence[float]) -> dict[str, float]:
    """Return how often it was done, and what half and 99 in 100 of the times took at most, in seconds."""
    ascending = sorted(durations)

    def at(share: float) -> float:
        return ascending[int(len(ascending) * share)]

    return {"count": len(ascending), "median": at(0.5), "percentile_99": at(0.99)}


class _Client:
    def __init__(self, peer: Peer, port: int) -> None:
        self._peer = peer
        self._port = port
        self._channels: list[Channel] = []
        self._sessions: dict[int, object] = {}
        self.parts: dict[str, list[float]] = {}

    async def prepare(self, workload: Workload) -> Callable[[float], Awaitable[list[float]]]:
        """Return what does the workload for so many seconds, and returns how long it took each time."""
        match workload:
            case Exchange():
                await self._open(workload, workload.connections)
                return partial(self._exchange, workload)
            case Handshakes():
                await self._open(_SMALL, workload.held)
                return partial(self._handshakes, workload.at_once)
            case Resumptions():
                return partial(self._resumptions, workload.at_once)
            case Idle():
                return partial(self._fill, iter((workload.before, workload.connections)))
            case FirstByte():
                return partial(self._start, iter((1, workload.starts)))

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    async def _open(self, exchange: Exchange, connections: int) -> list[float]:
        """Open connections and make the first exchange on each."""

        async def open_some(some: int) -> list[float]:
            durations = []
            for _ in range(some):
                started = time.perf_counter()
                channel = await self._peer.connect(self._port)
                durations.append(time.perf_counter() - started)
                self._channels.append(channel)
                await channel.send(HEADER.pack(exchange.request_size, exchange.reply_size))
                await _requests(channel, exchange, seconds=0)
            return durations

        openers = min(_OPENERS, connections)
        shares = [len(range(opener, connections, openers)) for opener in range(openers)]
        return await self._all([partial(open_some, share) for share in shares])

    async def _all(self, jobs: Sequence[Callable[[], Awaitable[list[float]]]]) -> list[float]:
        """Do the jobs at the same time, and return all that they return."""
        return list(chain.from_iterable(await self._peer.gather(jobs)))

    async def _exchange(self, exchange: Exchange, seconds: float) -> list[float]:
        return await self._all([partial(_requests, channel, exchange, seconds) for channel in self._channels])

    async def _handshakes(self, at_once: int, seconds: float) -> list[float]:
        async def one_by_one() -> list[float]:
            deadline = time.perf_counter() + seconds
            durations = []
            while True:
                started = time.perf_counter()
                channel = await self._peer.connect(self._port)
                durations.append(time.perf_counter() - started)
                await channel.close()
                if time.perf_counter() >= deadline:
                    return durations

        return await self._all([one_by_one] * at_once)

    async def _resumptions(self, at_once: int, seconds: float) -> list[float]:
        async def one_by_one(place: int) -> list[float]:
            deadline = time.perf_counter() + seconds
            durations = []
            while True:
                started = time.perf_counter()
                session = self._sessions.get(place)
                channel = await self._peer.resume(self._port, session)
                await channel.send(HEADER.pack(_SMALL.request_size, _SMALL.reply_size))
                await _requests(channel, _SMALL, seconds=0)
                assert channel.session is not None
                if (newest := channel.session()) is None:
                    raise ConnectionError("the server has sent no session")
                self._sessions[place] = newest
                await channel.close()
                ended = time.perf_counter()
                if session is not None:  # the first of all is a full one, and belongs to the warm-up
                    durations.append(ended - started)
                if durations and ended >= deadline:
                    return durations

        return await self._all([partial(one_by_one, place) for place in range(at_once)])

    async def _fill(self, connections: Iterator[int], _seconds: float) -> list[float]:
        return await self._open(_SMALL, next(connections))

    async def _start(self, starts: Iterator[int], _seconds: float) -> list[float]:
        done = [first_byte.start(self._peer, self._port) for _ in range(next(starts))]
        self.parts = {
            "import": [start.importing for start in done],
            "connect": [start.connecting for start in done],
        }
        return [start.total for start in done]


async def _requests(channel: Channel, exchange: Exchange, seconds: float) -> list[float]:
    """Send requests and await replies, at least once and for so many seconds; return how long each took."""
    block = bytes(exchange.write_size)
    writes = exchange.request_size // exchange.write_size
    durations = []
    started = time.perf_counter()
    deadline = started + seconds
    while True:
        for _ in range(writes):
            await channel.send(block)
        if not await _receive_all(channel, exchange.reply_size):
            raise ConnectionError("the server hung up")
        ended = time.perf_counter()
        durations.append(ended - started)
        if ended >= deadline:
            return durations
        started = ended
