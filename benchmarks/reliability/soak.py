"""Soak: very many connections, a third of which fail; nothing of them may be left.

The server's garbage collector is off, so that a reference cycle is a leak.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import trio

from .clients import connect, open_transport, trust_in
from .misdeeds import AFTER, BEFORE, Trust, commit
from .processes import Server, open_server
from .tables import table

_AT_ONCE: Final = 32
_SAMPLES: Final = 50
_PATIENCE: Final = 60.0
# Before that share of the connections, the allocator still looks for its shape.
_WARM_UP: Final = 0.2
# What counts as no growth, in bytes for each connection: 1.6 MB over 50,000.
_MOST_SLOPE: Final = 32.0
_MOST_FOR_KEPT: Final = 10_000_000
_MISDEEDS: Final = (*BEFORE, *AFTER)
_MESSAGE: Final = bytes(1000)


class Sample(NamedTuple):
    """The server after some connections.

    Attributes:
        connections: How many there were so far.
        memory: Its resident memory, in bytes.
        files: Its open files.
    """

    connections: int
    memory: int
    files: int


class Result(NamedTuple):
    """What is left of very many connections.

    Attributes:
        samples: The server, at equal distances.
        failed: How many failures were told of.
        slope: By how much its memory grows with each connection after the warm-up, in bytes.
        files: How many more files are open at the end than at the beginning.
        ssl: How many ``SSL`` objects are left.
        garbage: How many objects were in cycles, of all the connections.
        kept: What 1,000 kept errors take, in bytes.
        statistics_cost: How long `TLSServer.statistics` takes, in seconds.
        seconds: How long it took.
    """

    samples: list[Sample]
    failed: int
    slope: float
    files: int
    ssl: int
    garbage: int
    kept: int
    statistics_cost: float
    seconds: float

    @property
    def connections(self) -> int:
        """How many connections there were."""
        return self.samples[-1].connections


def slope(samples: Sequence[Sample]) -> float:
    """Return by how much the memory grows with each connection: least squares, in bytes."""
    count = len(samples)
    mean_x = sum(sample.connections for sample in samples) / count
    mean_y = sum(sample.memory for sample in samples) / count
    below = sum((sample.connections - mean_x) ** 2 for sample in samples)
    if not below:
        return 0.0
    return sum((sample.connections - mean_x) * (sample.memory - mean_y) for sample in samples) / below


async def soak(*, connections: int, kept: int) -> Result:
    """Open so many connections, a third of which fail, and look at what is left.

    Args:
        connections: How many.
        kept: How many errors are kept to see what they take.
    """
    started = time.perf_counter()
    async with open_server(client_error_limit=1, collects_garbage=False) as server:
        trust = trust_in((server.directory / "ca.pem").read_bytes())
        await _some(server, 0, len(_MISDEEDS) * 3, trust)
        await server.ask("garbage")
        before = await _settled(server)
        done, samples = 0, []
        for step in range(1, _SAMPLES + 1):
            until = connections * step // _SAMPLES
            await _some(server, done, until, trust)
            done = until
            usage = await _settled(server)
            samples.append(Sample(done, usage["memory"], usage["files"]))
        after = await _settled(server)
        cost = (await server.ask("statistics_cost"))["seconds"]
        garbage = (await server.ask("garbage"))["garbage"]
    failed = sum(after["statistics"]["failed"].values()) - sum(before["statistics"]["failed"].values())
    return Result(
        samples=samples,
        failed=failed,
        slope=slope(samples[int(_SAMPLES * _WARM_UP) :]),
        files=after["files"] - before["files"],
        ssl=after["ssl"],
        garbage=garbage,
        kept=await kept_errors(kept),
        statistics_cost=cost,
        seconds=time.perf_counter() - started,
    )


async def kept_errors(number: int) -> int:
    """Return what 1,000 errors take in memory that nobody has fetched, in bytes, after keeping some."""
    async with open_server(client_error_limit=number, traces_memory=True) as server:
        trust = trust_in((server.directory / "ca.pem").read_bytes())
        await _some(server, 0, number, trust, fails_each=1)
        await _settled(server)
        kept = await server.ask("kept_errors")
        return int(kept["bytes"] / kept["number"] * 1000)


async def _settled(server: Server) -> dict[str, Any]:
    await server.until_open(0, _PATIENCE)
    return await server.ask("settle")


async def _some(server: Server, start: int, end: int, trust: Trust, *, fails_each: int = 3) -> None:
    """Open the connections of these numbers; every third one, by default, fails."""
    limiter = trio.CapacityLimiter(_AT_ONCE)

    async def one(number: int) -> None:
        async with limiter:
            if fails_each and number % fails_each == 0:
                misdeed = _MISDEEDS[number // fails_each % len(_MISDEEDS)]
                await commit(misdeed, await open_transport(server.port, number), trust)
            else:
                await _be_good(server.port, number, trust)

    async with trio.open_nursery() as nursery:
        for number in range(start, end):
            nursery.start_soon(one, number)


async def _be_good(port: int, number: int, trust: Trust) -> None:
    async with await connect(port, trust(), number) as stream:
        await stream.send_all(_MESSAGE)
        received = 0
        with contextlib.suppress(StopAsyncIteration):
            while received < len(_MESSAGE):
                received += len(await anext(stream))


def broken(result: Result) -> list[str]:
    """Return which promises were broken."""
    promises = {
        f"memory grows by {result.slope:.0f} bytes with each connection": result.slope > _MOST_SLOPE,
        f"{result.files} files are left open": result.files > 0,
        f"{result.ssl} SSL objects are left": result.ssl > 0,
        f"1,000 kept errors take {result.kept:,} bytes": result.kept > _MOST_FOR_KEPT,
        f"{result.failed} failures were told of": result.failed != -(-result.connections // 3),
    }
    return [promise for promise, is_broken in promises.items() if is_broken]


def report(result: Result) -> str:
    """Return the results as Markdown."""
    first, last = result.samples[int(_SAMPLES * _WARM_UP)], result.samples[-1]
    rows = [
        ("failures told of", f"{result.failed:,}"),
        (f"memory after {first.connections:,} connections, MiB", f"{first.memory / 2**20:.1f}"),
        (f"memory after {last.connections:,} connections, MiB", f"{last.memory / 2**20:.1f}"),
        ("growth, bytes for each connection", f"{result.slope:.1f}"),
        ("open files, more than before", result.files),
        ("`SSL` objects left", result.ssl),
        ("objects in reference cycles, for each connection", f"{result.garbage / last.connections:.2f}"),
        ("1,000 kept errors, MB", f"{result.kept / 1e6:.2f}"),
        ("`server.statistics()`, µs", f"{result.statistics_cost * 1e6:.1f}"),
    ]
    title = (
        f"{last.connections:,} connections, a third failing, no garbage collector ({result.seconds:.0f} s)"
    )
    return table(title, ("", "figure"), rows)
