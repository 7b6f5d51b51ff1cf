"""The command: ``python -m benchmarks.reliability storm|slow|soak|late|reload|fuzz``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from . import fuzz, late, reload, slow, soak, storm
from .hostile import TARGETS
from .processes import own_core
from .server import allow_many_files
from .tables import conditions

_Outcome = tuple[str, list[str]]
"""A Markdown table, and which promises were broken."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Returns:
        The exit status: 1 if a promise was broken, 2 if something is missing.
    """
    options = _parser().parse_args(arguments)
    if options.command == "fuzz":
        if (lack := fuzz.missing()) is not None:
            print(lack, file=sys.stderr)
            return 2
        try:
            table, broken = _fuzz(options)
        except fuzz.FuzzerFailedError as error:
            print(error, file=sys.stderr)
            return 2
    else:
        allow_many_files()
        with own_core():
            table, broken = trio.run(_MEASUREMENTS[options.command], options)
    print(conditions(), table, sep="\n\n")
    for promise in broken:
        print(f"\nBROKEN: {promise}")
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability", description="See what a server endures."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("storm", help="clients connect all at once, while others ping")
    command.add_argument("--clients", type=int, default=2000)
    command.add_argument("--pingers", type=int, default=50)
    command.add_argument("--within", type=float, default=1.0, help="seconds in which all connect")
    command.add_argument("--quiet", type=float, default=5.0, help="seconds to measure before")
    command = commands.add_parser("slow", help="peers that send little, or read nothing")
    command.add_argument("--connections", type=int, default=5000)
    command.add_argument("--timeout", type=float, default=30.0, help="the server's time-outs, in seconds")
    command.add_argument("--kind", nargs="+", choices=slow.KINDS, default=list(slow.KINDS), metavar="KIND")
    command = commands.add_parser("soak", help="very many connections, a third failing")
    command.add_argument("--connections", type=int, default=50_000)
    command.add_argument("--kept-errors", type=int, default=1000)
    command = commands.add_parser("late", help="peers that misbehave after the handshake")
    command.add_argument("--peers", type=int, default=10_000)
    command = commands.add_parser("reload", help="files of credentials are replaced under load")
    command.add_argument("--requests", type=int, default=10_000)
    command.add_argument("--reloads", type=int, default=100)
    command = commands.add_parser("fuzz", help="hostile bytes, guided by coverage")
    command.add_argument("--seconds", type=float, default=3600.0, help="for all targets together")
    command.add_argument("--target", nargs="+", choices=TARGETS, metavar="TARGET", help=", ".join(TARGETS))
    command.add_argument("--keep", action="store_true", help="replace the corpus by the new one")
    return parser


async def _storm(options: Any) -> _Outcome:
    phases = await storm.storm(
        clients=options.clients, pingers=options.pingers, within=options.within, quiet=options.quiet
    )
    table = storm.report(phases, options.clients, options.pingers, options.within)
    return table, storm.broken(phases, options.clients)


async def _slow(options: Any) -> _Outcome:
    results = [
        await slow.slow(kind, connections=options.connections, timeout=options.timeout)
        for kind in options.kind
    ]
    return slow.report(results, options.timeout), slow.broken(results, options.connections)


async def _soak(options: Any) -> _Outcome:
    result = await soak.soak(connections=options.connections, kept=options.kept_errors)
    return soak.report(result), soak.broken(result)


async def _late(options: Any) -> _Outcome:
    result = await late.late(peers=options.peers)
    return late.report(result), late.broken(result, options.peers)


async def _reload(options: Any) -> _Outcome:
    result = await reload.reload(requests=options.requests, reloads=options.reloads)
    return reload.report(result), reload.broken(result)


_MEASUREMENTS: dict[str, Callable[[Any], Awaitable[_Outcome]]] = {
    "storm": _storm,
    "slow": _slow,
    "soak": _soak,
    "late": _late,
    "reload": _reload,
}


def _fuzz(options: Any) -> _Outcome:
    targets = options.target or list(TARGETS)
    seconds = options.seconds / len(targets)
    results = []
    for target in targets:
        print(f"fuzzing {target} for {seconds:,.0f} s", file=sys.stderr, flush=True)
        results.append(fuzz.fuzz(target, seconds, keep=options.keep))
    broken = [f"{result.target}: {result.found}\n{result.report}" for result in results if result.found]
    return fuzz.report(results, seconds), broken


if __name__ == "__main__":
    raise SystemExit(main())
