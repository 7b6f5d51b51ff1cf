"""Late: peers that misbehave after the handshake, and a handler that catches nothing."""

from __future__ import annotations

import time
from collections import Counter
from typing import Final, NamedTuple

import trio

from .clients import open_transport, pinging, trust_in
from .misdeeds import AFTER, commit
from .processes import open_server
from .tables import milliseconds, table

_AT_ONCE: Final = 50
_PING_INTERVAL: Final = 0.02
_PATIENCE: Final = 60.0


class Result(NamedTuple):
    """What became of the peers.

    Attributes:
        done: How often each misdeed was done.
        failed: What the server has counted, by code.
        left: How many connections were left, the good one's aside.
        p99: The good client's round trip of which 99 of 100 take no longer, in seconds.
        seconds: How long it took.
        memory: How much more memory the server has at the end, in bytes.
    """

    done: Counter[str]
    failed: Counter[str]
    left: int
    p99: float
    seconds: float
    memory: int


async def late(*, peers: int) -> Result:
    """Let so many peers misbehave, one good client beside them."""
    async with open_server(client_error_limit=1) as server:
        trust = trust_in((server.directory / "ca.pem").read_bytes())
        limiter = trio.CapacityLimiter(_AT_ONCE)
        done: Counter[str] = Counter()

        async def misbehave(number: int) -> None:
            misdeed = AFTER[number % len(AFTER)]
            async with limiter:
                await commit(misdeed, await open_transport(server.port, number), trust)
                done[str(misdeed)] += 1

        async with pinging(server.port, trust(), number=1, interval=_PING_INTERVAL) as pinger:
            before = await server.ask("settle")
            started = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for number in range(peers):
                    nursery.start_soon(misbehave, number)
            await server.until_open(1, _PATIENCE)
            seconds = time.perf_counter() - started
            after = await server.ask("settle")
    return Result(
        done,
        Counter(after["statistics"]["failed"]),
        after["ssl"] - 1,
        pinger.quantile(0.99),
        seconds,
        after["memory"] - before["memory"],
    )


def broken(result: Result, peers: int) -> list[str]:
    """Return which promises were broken."""
    promises = []
    if result.failed.total() != peers:
        promises.append(f"{result.failed.total()} of {peers} failures were told of")
    if result.left:
        promises.append(f"{result.left} connections are left")
    return promises


def report(result: Result) -> str:
    """Return the results as Markdown."""
    rows = [(code, f"{number:,}") for code, number in sorted(result.failed.items())]
    title = (
        f"{result.done.total():,} peers misbehave after the handshake ({len(result.done)} ways, "
        f"{result.seconds:.0f} s); the server lives, {result.left} connections are left, memory "
        f"{result.memory / 1024:+,.0f} KiB, a good client's p99 {milliseconds(result.p99)} ms"
    )
    return table(title, ("told of as", "times"), rows)
