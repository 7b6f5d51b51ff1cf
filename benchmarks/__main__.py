"""The command: ``python -m benchmarks`` measures, ``... compare OLD NEW`` sets two runs side by side."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from . import runner
from .contenders import CONTENDERS, Contender
from .credentials import KEY_TYPES, write_credentials
from .report import Report
from .results import Results
from .scenarios import SCENARIOS, Scenario


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Returns:
        The exit status: 1 if a contender failed.
    """
    options = _parser().parse_args(arguments)
    report = Report(markdown=options.markdown)
    if options.command == "compare":
        report.compare(Results.read(options.old), Results.read(options.new))
        return 0
    results = _measure(options)
    report.show(results)
    if options.json is not None:
        results.write(options.json)
    return 1 if results.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure TLS implementations.")
    parser.add_argument(
        "--quick", action="store_true", help="fewer scenarios and rounds, shorter: two minutes"
    )
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument(
        "--contender", nargs="+", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS)
    )
    parser.add_argument("--rounds", type=int, help="how often each measurement is repeated (5; quick: 3)")
    parser.add_argument("--seconds", type=float, help="how long one measurement takes (0.8; quick: 0.4)")
    parser.add_argument(
        "--groups", choices=["x25519", "default"], default="x25519", help="key exchange groups"
    )
    parser.add_argument("--key", choices=KEY_TYPES, default="ecdsa-p256", help="the server's key")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables on a terminal too")
    compare = parser.add_subparsers(dest="command").add_parser("compare", help="set two runs side by side")
    compare.add_argument("old", type=Path)
    compare.add_argument("new", type=Path)
    return parser


def _measure(options: argparse.Namespace) -> Results:
    settings = runner.Settings(
        groups=options.groups,
        key_type=options.key,
        rounds=options.rounds or (3 if options.quick else 5),
        seconds=options.seconds or (0.4 if options.quick else 0.8),
    )
    scenarios = _scenarios(options)
    contenders = _contenders(options)
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        Progress(
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            auto_refresh=False,  # which would take the processor from what is measured
            disable=not console.is_terminal,
        ) as progress,
    ):
        write_credentials(Path(directory), settings.key_type)
        task = progress.add_task("", total=runner.steps(settings, scenarios, contenders))

        def proceed(step: str) -> None:
            progress.update(task, description=step, advance=1, refresh=True)

        return trio.run(runner.run, settings, scenarios, contenders, Path(directory), proceed)


def _scenarios(options: argparse.Namespace) -> list[Scenario]:
    if options.scenario:
        return [SCENARIOS[name] for name in options.scenario]
    runs = {"quick"} if options.quick else {"quick", "default"}
    return [scenario for scenario in SCENARIOS.values() if scenario.run in runs]


def _contenders(options: argparse.Namespace) -> list[Contender]:
    if options.contender:
        return [CONTENDERS[name] for name in options.contender]
    present = []
    for contender in CONTENDERS.values():
        if contender.missing:
            print(f"left out: {contender.name}, as {contender.missing} is not there")
        else:
            present.append(contender)
    return present


if __name__ == "__main__":
    raise SystemExit(main())
