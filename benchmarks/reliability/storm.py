"""Storm: many clients connect within a second, while established connections go on.

How long do the round trips of the established ones take meanwhile, with the turnstile and without?  And does
any handshake fail that had time enough?
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import trio

import trio_tlsnode as tls

from .clients import Pinger, connect, pinging, trust_in
from .processes import Server, open_process, open_server
from .server import allow_many_files
from .tables import milliseconds, table

# So that pinging takes a small part of the server, and still is there in each moment of the storm.
_INTERVAL = 0.02


class Phase(NamedTuple):
    """A time during which round trips were measured, in seconds.

    Attributes:
        name: What it was.
        median: The round trip in the middle.
        p99: That of which 99 of 100 take no longer.
        longest: The longest.
        handshakes: How many handshakes were done; None where there was no storm.
        failed: How many failed.
        took: How long it took until the last of them was done.
    """

    name: str
    median: float
    p99: float
    longest: float
    handshakes: int | None = None
    failed: int = 0
    took: float = math.nan


async def storm(*, clients: int, pingers: int, within: float, quiet: float) -> list[Phase]:
    """Measure before and during a storm, with the turnstile and without.

    Args:
        clients: How many clients make the storm.
        pingers: How many established connections there are.
        within: In how many seconds all of them connect.
        quiet: For how many seconds the established ones are measured before.
    """
    phases = []
    for turnstile in (True, False):
        async with open_server(turnstile=turnstile) as server:
            phases += await _storm(server, clients, pingers, within, quiet, turnstile)
    return phases


async def _storm(
    server: Server, clients: int, pingers: int, within: float, quiet: float, turnstile: bool
) -> list[Phase]:
    trust = trust_in((server.directory / "ca.pem").read_bytes())
    how = "with the turnstile" if turnstile else "without the turnstile"
    setup = {"port": server.port, "directory": str(server.directory), "clients": clients, "within": within}
    async with (
        open_process("storm", setup) as process,
        pinging(server.port, trust(), number=pingers, interval=_INTERVAL) as pinger,
    ):
        await process.hear()
        pinger.begin()
        await trio.sleep(quiet)
        before = _phase(f"before, {how}", pinger)
        pinger.begin()
        result = await process.ask("begin")
        during = _phase(f"storm, {how}", pinger)._replace(
            handshakes=result["done"], failed=result["failed"], took=result["seconds"]
        )
    return [before, during]


def _phase(name: str, pinger: Pinger) -> Phase:
    return Phase(name, pinger.median, pinger.quantile(0.99), max(pinger.seconds, default=math.nan))


def broken(phases: list[Phase], clients: int) -> list[str]:
    """Return which promises were broken."""
    return [
        f"{phase.name}: {phase.failed} of {clients} handshakes failed"
        for phase in phases
        if phase.handshakes is not None and (phase.failed or phase.handshakes != clients)
    ]


def report(phases: list[Phase], clients: int, pingers: int, within: float) -> str:
    """Return the results as Markdown."""
    rows = [
        (
            phase.name,
            *map(milliseconds, (phase.median, phase.p99, phase.longest)),
            "" if phase.handshakes is None else f"{phase.handshakes:,}",
            "" if phase.handshakes is None else phase.failed,
            "" if phase.handshakes is None else f"{phase.took:.2f} s",
        )
        for phase in phases
    ]
    columns = ("", "median, ms", "p99, ms", "longest, ms", "handshakes", "failed", "all done after")
    title = (
        f"Round trips of {pingers} established connections, and {clients:,} clients that connect in "
        f"{within:g} s"
    )
    return table(title, columns, rows)


# The process that makes the storm


async def _make_storm(setup: dict[str, Any], trust: tls.SecureContext) -> None:
    number, within = setup["clients"], setup["within"]
    done = failed = 0
    enough = trio.Event()

    async def client(index: int) -> None:
        nonlocal done, failed
        await trio.sleep(within * index / number)
        try:
            stream = await connect(setup["port"], trust, index)
            done += 1
        except (OSError, tls.TLSError):
            failed += 1
            stream = None
        if done + failed == number:
            enough.set()
        if stream is not None:
            await enough.wait()
            await trio.aclose_forcefully(stream)

    print("{}", flush=True)
    async with trio.lowlevel.FdStream(os.dup(0)) as questions:
        await questions.receive_some()
        started = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for index in range(number):
                nursery.start_soon(client, index)
            await enough.wait()
            seconds = time.perf_counter() - started
            print(json.dumps({"done": done, "failed": failed, "seconds": seconds}), flush=True)
        await questions.receive_some()


def main() -> None:
    """Be the process that makes the storm."""
    allow_many_files()
    # The established connections are measured on the same core: their turn comes first.
    os.nice(19)
    setup = json.loads(sys.argv[1])
    trio.run(_make_storm, setup, tls.SecureContext(ca=Path(setup["directory"]) / "ca.pem"))


if __name__ == "__main__":
    main()
