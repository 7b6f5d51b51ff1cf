"""The command: ``python -m benchmarks`` measures what has a goal; others measure more, compare and plot."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trio
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from . import revisions, runner
from .contenders import CONTENDERS, OURS, Contender
from .credentials import KEY_TYPES, write_credentials
from .limits import files_needed, raise_file_limit
from .report import Report
from .results import Results
from .runs import GOALS_RUN, GROWTH_RUN, QUICK_RUN, REVISIONS_RUN, SCENARIOS, SWEEP_RUN, Run, Turn, turns_of
from .scenarios import OWN_GROUPS, USUAL, Scenario

_PLOTS = Path(__file__).parents[1] / "docs" / "_static"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Returns:
        The exit status: 1 if a contender failed.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    report = Report(markdown=options.markdown)
    match options.command:
        case "plot":
            return _plot(options)
        case "compare" if all(Path(name).is_file() for name in (options.old, options.new)):
            report.compare(Results.read(Path(options.old)), Results.read(Path(options.new)))
            return 0
        case "compare":
            try:
                results = _measure_revisions(options)
            except revisions.RevisionError as error:
                parser.error(
                    f"{options.old} and {options.new} are neither two files nor two commits: {error}"
                )
        case "sweep":
            results = _measure_run(SWEEP_RUN, options)
        case "growth":
            results = _measure_run(GROWTH_RUN, options)
        case _:
            results = _measure_run(QUICK_RUN if options.quick else GOALS_RUN, options)
    report.show(results)
    if options.json is not None:
        results.write(options.json)
    return 1 if results.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure TLS implementations: without a command, all that this package has a goal for.",
    )
    parser.set_defaults(
        quick=False, scenario=None, contender=None, rounds=None, seconds=None, json=None, markdown=False
    )
    parser.set_defaults(groups="x25519", key="ecdsa-p256")
    parser.add_argument("--quick", action="store_true", help="fewer scenarios and rounds: three minutes")
    _add_contenders(parser)
    _add_options(parser)
    # What stands before a command is not replaced by defaults of the command.
    add = partial(parser.add_subparsers(dest="command").add_parser, argument_default=argparse.SUPPRESS)
    for command in (
        add("sweep", help="measure other sizes and ciphers"),
        add("growth", help="measure how cost grows with sizes and with connections"),
    ):
        _add_contenders(command)
        _add_options(command)
    compare = add("compare", help="set two runs side by side, or measure two commits in one run")
    compare.add_argument("old", help="the JSON file of a run, or a commit")
    compare.add_argument("new", help="the same")
    _add_options(compare)
    plot = add("plot", help="draw what runs came to")
    plot.add_argument("results", nargs="+", type=Path, metavar="FILE", help="the JSON file of a run")
    plot.add_argument("--folder", type=Path, default=_PLOTS, help="where to (docs/_static)")
    return parser


def _add_contenders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--contender", nargs="+", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS)
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all commands that measure."""
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--rounds", type=int, help="how often each measurement is repeated")
    parser.add_argument("--seconds", type=float, help="how long one measurement takes")
    parser.add_argument("--groups", choices=["x25519", "default"], help="key exchange groups (x25519)")
    parser.add_argument("--key", choices=KEY_TYPES, help="the server's key (ecdsa-p256)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables on a terminal too")


def _measure_run(run: Run, options: argparse.Namespace) -> Results:
    chosen = options.contender and _present(options.contender)
    return _measure(run, options, [(scenarios, chosen or _present(names)) for scenarios, names in run.parts])


def _measure_revisions(options: argparse.Namespace) -> Results:
    with tempfile.TemporaryDirectory() as directory:
        old, new = (
            revisions.contender(role, revision, Path(directory, role))
            for role, revision in (("old", options.old), ("new", options.new))
        )
        parts = [(scenarios, [old, new]) for scenarios, _names in REVISIONS_RUN.parts]
        return _measure(REVISIONS_RUN, options, parts, subject=new.name)


def _measure(
    run: Run,
    options: argparse.Namespace,
    parts: Sequence[tuple[Sequence[Scenario], Sequence[Contender]]],
    subject: str = OURS,
) -> Results:
    settings = runner.Settings(
        key_type=options.key,
        rounds=options.rounds or run.rounds,
        seconds=options.seconds or run.seconds,
    )
    turns = _turns(options, parts)
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
        task = progress.add_task("", total=runner.steps(settings, turns))

        def proceed(step: str) -> None:
            progress.update(task, description=step, advance=1, refresh=True)

        return trio.run(runner.run, settings, turns, Path(directory), proceed, subject)


def _turns(
    options: argparse.Namespace, parts: Sequence[tuple[Sequence[Scenario], Sequence[Contender]]]
) -> list[Turn]:
    """Return who does what in a round, as far as the options and the machine let them."""
    if options.scenario:
        everybody = list(dict.fromkeys(contender for _scenarios, some in parts for contender in some))
        parts = [([SCENARIOS[name] for name in options.scenario], everybody)]
    if options.groups == "default":
        parts = [([_on_own_groups(scenario) for scenario in scenarios], some) for scenarios, some in parts]
    possible = [(_within_limits(scenarios), contenders) for scenarios, contenders in parts]
    # A scenario on its own groups may be there twice.
    return list(dict.fromkeys(turn for part in possible for turn in turns_of(*part)))


def _on_own_groups(scenario: Scenario) -> Scenario:
    return scenario.on(OWN_GROUPS) if scenario.terms == USUAL else scenario


def _within_limits(scenarios: Sequence[Scenario]) -> list[Scenario]:
    limit = raise_file_limit()
    possible = []
    for scenario in scenarios:
        if (needed := files_needed(scenario.workload)) > limit:
            print(
                f"left out: {scenario.name}, which needs {needed:,} open files in a process; this machine "
                f"allows {limit:,} (see ulimit -Hn)"
            )
        else:
            possible.append(scenario)
    return possible


def _present(names: Sequence[str]) -> list[Contender]:
    present = []
    for contender in map(CONTENDERS.__getitem__, names):
        if contender.missing:
            print(f"left out: {contender.name}, as {contender.missing} is not there")
        else:
            present.append(contender)
    return present


def _plot(options: argparse.Namespace) -> int:
    from . import plots  # nothing else needs matplotlib

    for path in plots.write([Results.read(path) for path in options.results], options.folder):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
