"""Report: results as tables for people."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .contenders import OURS
from .goals import GOALS
from .growth import GROWTHS
from .results import Figures, Results, confidence

_PLAIN_WIDTH = 200  # nothing is cut off where there is no terminal
_ON_CURVES = {curve.metric(point) for growth in GROWTHS for curve in growth.curves for point in growth.points}
_QUIET = 0.5  # the load average up to which nobody else seems to be at work


class Report:
    """Prints tables: with colours and lines on a terminal, in Markdown elsewhere or if asked for."""

    def __init__(self, *, markdown: bool) -> None:
        console = Console(highlight=False)
        self._markdown = markdown or not console.is_terminal
        if self._markdown:
            console = Console(highlight=False, no_color=True, width=_PLAIN_WIDTH)
        self._console = console

    def show(self, results: Results) -> None:
        """Print where and how was measured, the figures, and what failed."""
        self._conditions(results)
        rounds = results.settings["rounds"]
        self._console.print(f"ratio: how many times the contender's figure that of {results.subject} is")
        if rounds > 1:
            self._console.print(
                f"interval: where the ratio lies with a probability of {confidence(rounds):.0%}"
            )
        for name, figures in results.figures.items():
            if name not in _ON_CURVES:
                self._figures(name, figures, results.subject)
        self._curves(results)
        self._verdict(results)
        for failure in results.failures:
            self._console.print(f"[bold red]FAILED[/] {escape(failure)}")

    def _figures(self, name: str, figures: Figures, subject: str) -> None:
        table = self._table("contender", "median", "least", "most", "ratio", "interval", "goal")
        for contender in figures.rounds:
            spread = figures.sorted(contender)
            table.add_row(
                contender,
                _number(figures.median(contender)),
                _number(spread[0] if spread else None),
                _number(spread[-1] if spread else None),
                _ratio(figures.ratio(contender, subject)),
                _interval(figures.interval(contender, subject)),
                _goal(name, figures, contender),
            )
        self._print(figures.title, figures, table)

    def _curves(self, results: Results) -> None:
        """Print each curve as one table, with a row for each of its points."""
        for growth in GROWTHS:
            for curve in growth.curves:
                points = {
                    point: results.figures[curve.metric(point)]
                    for point in growth.points
                    if curve.metric(point) in results.figures
                }
                if not points:
                    continue
                contenders = list(
                    dict.fromkeys(name for figures in points.values() for name in figures.rounds)
                )
                table = self._table(growth.along, *contenders)
                for point, figures in points.items():
                    table.add_row(f"{point:,}", *(_number(figures.median(name)) for name in contenders))
                self._print(curve.title, figures, table)

    def _verdict(self, results: Results) -> None:
        """Say in a line how many goals were reached, and in a table which were not."""
        measured = [
            (goal, results.figures[goal.metric], reached)
            for goal in GOALS
            if goal.metric in results.figures
            and (reached := goal.reached(results.figures[goal.metric])) is not None
        ]
        if not measured:
            return
        missed = [(goal, figures) for goal, figures, reached in measured if not reached]
        self._heading(f"{len(measured) - len(missed)} of {len(measured)} goals reached")
        if missed:
            table = self._table("missed", "against", "is", "goal")
            for goal, figures in missed:
                table.add_row(
                    figures.title,
                    "" if goal.contender == OURS else goal.contender,
                    _ratio(goal.figure(figures)),
                    goal.text(figures),
                )
            self._console.print(table)

    def compare(self, old: Results, new: Results) -> None:
        """Print two runs side by side: the medians, and the ratios, which another machine changes less."""
        for title, results in (("Old run", old), ("New run", new)):
            self._heading(title)
            self._conditions(results)
        for name, figures in new.figures.items():
            if name not in old.figures:
                continue
            table = self._table("contender", "old", "new", "new ÷ old", "old ratio", "new ratio")
            for contender in figures.rounds:
                before, after = old.figures[name].median(contender), figures.median(contender)
                table.add_row(
                    contender,
                    _number(before),
                    _number(after),
                    _ratio(after / before if before and after is not None else None),
                    _ratio(old.figures[name].ratio(contender, old.subject)),
                    _ratio(figures.ratio(contender, new.subject)),
                )
            self._print(figures.title, figures, table)

    def _conditions(self, results: Results) -> None:
        settings, machine = results.settings, results.machine
        cores = "a core each for server and client" if machine["cores"] else "processes not pinned to cores"
        self._console.print(f"{machine['time']}, {machine['system']}, {machine['processor']}, {cores}")
        if machine["load"] > _QUIET:
            self._console.print(f"The machine was not quiet when it began: load {machine['load']:.1f}.")
        self._console.print(
            f"key: {settings['key_type']}, {settings['rounds']} rounds of {settings['seconds']} s"
        )
        table = self._table("contender", "what is in it", "what is negotiated", numbers=False)
        for name, versions in results.versions.items():
            contents = ", ".join(f"{part} {version}" for part, version in versions.items())
            table.add_row(
                name, contents.replace("OpenSSL OpenSSL", "OpenSSL"), "; ".join(results.negotiated[name])
            )
        self._console.print(table)

    def _print(self, title: str, figures: Figures, table: Table) -> None:
        rule = "" if figures.more_is_better else " (less is better)"
        self._heading(f"{title}, {figures.unit}{rule}")
        self._console.print(table)

    def _heading(self, text: str) -> None:
        self._console.print(f"**{text}**" if self._markdown else f"[bold]{text}[/]")

    def _table(self, *columns: str, numbers: bool = True) -> Table:
        table = Table(box=box.MARKDOWN if self._markdown else box.SIMPLE_HEAD)
        for column in columns:
            is_number = numbers and column != columns[0]
            table.add_column(column, justify="right" if is_number else "left", no_wrap=column == columns[0])
        return table


def _goal(metric: str, figures: Figures, contender: str) -> str:
    for goal in GOALS:
        if (goal.metric, goal.contender) == (metric, contender):
            verdict = {True: "[green]reached[/]", False: "[red]missed[/]", None: "?"}[goal.reached(figures)]
            return f"{goal.text(figures)} {verdict}"
    return ""


def _number(value: float | None) -> str:
    if value is None:
        return "failed"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
