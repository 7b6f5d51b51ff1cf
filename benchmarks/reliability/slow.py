"""Slow: thousands of connections that send nothing, or little, or read nothing.

What does each of them cost the server in memory, when are they gone, and what does a good client notice?
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import trio

import trio_tlsnode as tls

from .clients import HOST, connect, pinging, trust_in
from .misdeeds import Trust
from .processes import open_server
from .tables import milliseconds, table

_AT_ONCE: Final = 50
_PING_INTERVAL: Final = 0.005
# For these shares of the time-outs, and at least so many seconds, the good client is measured.
_SHARE_BEFORE: Final = 0.1
_SHARE_MEANWHILE: Final = 0.5
_SHORTEST: Final = 0.2
# So much is sent by those who read nothing of the echo; their own receive buffer is as small as may be.
_UNREAD: Final = bytes(32 * 1024)
_SMALL_BUFFER: Final = 4096
# What freeing all of them may take after their time is over, in seconds for a thousand.
_SECONDS_PER_THOUSAND: Final = 5.0
_SLACK: Final = 5.0


async def _plain(port: int, number: int) -> trio.SocketStream:
    sock = trio.socket.socket()
    await sock.bind((f"127.0.0.{2 + number % 8}", 0))
    await sock.connect((HOST, port))
    return trio.SocketStream(sock)


def _hello(trust: Trust) -> bytes:
    engine = tls.Engine(trust(), host="localhost")
    engine.do_handshake()
    hello = engine.drain()
    engine.release()
    return hello


async def silent(port: int, number: int, _trust: Trust) -> trio.abc.AsyncResource:
    """Send nothing."""
    return await _plain(port, number)


async def half_a_hello(port: int, number: int, trust: Trust) -> trio.abc.AsyncResource:
    """Send half a ClientHello."""
    stream = await _plain(port, number)
    hello = _hello(trust)
    await stream.send_all(hello[: len(hello) // 2])
    return stream


async def only_a_hello(port: int, number: int, trust: Trust) -> trio.abc.AsyncResource:
    """Send a ClientHello, and no more."""
    stream = await _plain(port, number)
    await stream.send_all(_hello(trust))
    return stream


async def reading_nothing(port: int, number: int, trust: Trust) -> trio.abc.AsyncResource:
    """Ask for data, and read none of it."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
    await sock.bind((f"127.0.0.{2 + number % 8}", 0))
    await sock.connect((HOST, port))
    stream = await tls.wrap_client(trio.SocketStream(sock), host="localhost", context=trust())
    with trio.move_on_after(0.1):
        await stream.send_all(_UNREAD)
    return stream


async def idle(port: int, number: int, trust: Trust) -> trio.abc.AsyncResource:
    """Be a good client that has nothing to say, for comparison."""
    return await connect(port, trust(), number)


Open = Callable[[int, int, Trust], Awaitable[trio.abc.AsyncResource]]
KINDS: Final[dict[str, Open]] = {
    "send nothing": silent,
    "send one byte a second": half_a_hello,
    "send half a ClientHello": half_a_hello,
    "send a ClientHello and no more": only_a_hello,
    "read nothing": reading_nothing,
}
_TRICKLE: Final = "send one byte a second"


class Result(NamedTuple):
    """What one kind of peers cost.

    Attributes:
        kind: What they do.
        connections: How many there were.
        memory: What each cost, in bytes.
        before: A good client's p99 before they came, in seconds.
        median: A good client's round trip meanwhile, in the middle, in seconds.
        p99: That of which 99 of 100 take no longer.
        freed_after: How long after the last one's time was over none was left, in seconds.
        left: How many ``SSL`` objects were left, the good client's aside.
        reported: How many failures were counted.
    """

    kind: str
    connections: int
    memory: float
    before: float
    median: float
    p99: float
    freed_after: float
    left: int
    reported: int


async def slow(kind: str, *, connections: int, timeout: float) -> Result:
    """Measure one kind of peers.

    Args:
        kind: One of `KINDS`.
        connections: How many of them.
        timeout: The server's time-outs for the handshake and for sending, in seconds.
    """
    async with open_server(handshake_timeout=timeout, send_timeout=timeout, client_error_limit=1) as server:
        trust = trust_in((server.directory / "ca.pem").read_bytes())
        async with pinging(server.port, trust(), number=1, interval=_PING_INTERVAL) as pinger:
            # Once before, for what the first of a kind costs alone.
            await trio.aclose_forcefully(await KINDS[kind](server.port, 0, trust))
            await server.until(lambda statistics: statistics["failed"] != {}, timeout + _SLACK)
            pinger.begin()
            await trio.sleep(max(timeout * _SHARE_BEFORE, _SHORTEST))
            p99_before = pinger.quantile(0.99)
            before = await server.ask("settle")
            accepted = before["statistics"]["accepted"] + connections
            limiter = trio.CapacityLimiter(_AT_ONCE)
            peers: list[trio.abc.AsyncResource] = []

            async def open_one(number: int) -> None:
                async with limiter:
                    peers.append(await KINDS[kind](server.port, number, trust))

            async with trio.open_nursery() as nursery:
                for number in range(connections):
                    nursery.start_soon(open_one, number)
            opened = time.perf_counter()
            async with trio.open_nursery() as nursery:
                if kind == _TRICKLE:
                    nursery.start_soon(_trickle, peers)
                await server.until(lambda statistics: statistics["accepted"] == accepted, _SLACK)
                meanwhile = await server.ask("settle")
                pinger.begin()
                await trio.sleep(max(timeout * _SHARE_MEANWHILE, _SHORTEST))
                median, p99 = pinger.median, pinger.quantile(0.99)
                patience = timeout + _SLACK + _SECONDS_PER_THOUSAND * connections / 1000
                in_time = await server.until_open(1, patience)
                freed = time.perf_counter() - opened - timeout if in_time else math.inf
                nursery.cancel_scope.cancel()
            after = await server.ask("settle")
            for peer in peers:
                await trio.aclose_forcefully(peer)
    failed = sum(after["statistics"]["failed"].values()) - sum(before["statistics"]["failed"].values())
    open_then = meanwhile["statistics"]["open"] - 1
    return Result(
        kind,
        open_then,
        (meanwhile["memory"] - before["memory"]) / max(open_then, 1),
        p99_before,
        median,
        p99,
        freed,
        after["ssl"] - 1,
        failed,
    )


async def _trickle(peers: list[trio.abc.AsyncResource]) -> None:
    """Let each peer send a byte each second."""
    while True:
        started = trio.current_time()
        for peer in peers:
            assert isinstance(peer, trio.SocketStream)
            with contextlib.suppress(trio.BrokenResourceError):
                await peer.send_all(b"\0")
        await trio.sleep_until(started + 1)


def broken(results: list[Result], connections: int) -> list[str]:
    """Return which promises were broken."""
    promises = []
    for result in results:
        if result.freed_after == math.inf:
            promises.append(f"{result.kind}: they were not freed")
        if result.left:
            promises.append(f"{result.kind}: {result.left} SSL objects are left")
        if result.reported != connections:
            promises.append(f"{result.kind}: {result.reported} of {connections} were told of")
    return promises


def report(results: list[Result], timeout: float) -> str:
    """Return the results as Markdown."""
    rows = [
        (
            result.kind,
            f"{result.connections:,}",
            f"{result.memory / 1024:.1f}",
            milliseconds(result.before),
            milliseconds(result.p99),
            milliseconds(result.median),
            f"{max(result.freed_after, 0):.1f}",
            result.left,
        )
        for result in results
    ]
    columns = (
        *("peers that", "at once", "memory of each, KiB"),
        *("good client's p99 before, ms", "p99 meanwhile, ms", "median, ms"),
        *("all freed after their time, s", "left"),
    )
    return table(f"Slow and silent peers; time-outs of {timeout:g} s", columns, rows)
