"""Report: results as tables for people."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .contenders import OURS
from .goals import GOALS
from .results import Figures, Results

_PLAIN_WIDTH = 200  # nothing is cut off where there is no terminal
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
        self._console.print(f"ratio: how many times the contender's figure that of {OURS} is")
        for name, figures in results.figures.items():
            table = self._table("contender", "median", "least", "most", "ratio", "goal")
            for contender in figures.rounds:
                spread = figures.sorted(contender)
                table.add_row(
                    contender,
                    _number(figures.median(contender)),
                    _number(spread[0] if spread else None),
                    _number(spread[-1] if spread else None),
                    _ratio(figures.ratio(contender)),
                    _goal(results, name, contender),
                )
            self._print(figures, table)
        for failure in results.failures:
            self._console.print(f"[bold red]FAILED[/] {escape(failure)}")

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
                    _ratio(old.figures[name].ratio(contender)),
                    _ratio(figures.ratio(contender)),
                )
            self._print(figures, table)

    def _conditions(self, results: Results) -> None:
        settings, machine = results.settings, results.machine
        cores = "a core each for server and client" if machine["cores"] else "processes not pinned to cores"
        self._console.print(f"{machine['time']}, {machine['system']}, {machine['processor']}, {cores}")
        if machine["load"] > _QUIET:
            self._console.print(f"The machine was not quiet when it began: load {machine['load']:.1f}.")
        self._console.print(
            f"groups: {settings['groups']}, key: {settings['key_type']}, "
            f"{settings['rounds']} rounds of {settings['seconds']} s"
        )
        table = self._table("contender", "what is in it", "what is negotiated", numbers=False)
        for name, versions in results.versions.items():
            contents = ", ".join(f"{part} {version}" for part, version in versions.items())
            table.add_row(name, contents.replace("OpenSSL OpenSSL", "OpenSSL"), results.negotiated[name])
        self._console.print(table)

    def _print(self, figures: Figures, table: Table) -> None:
        rule = "" if figures.more_is_better else " (less is better)"
        self._heading(f"{figures.title}, {figures.unit}{rule}")
        self._console.print(table)

    def _heading(self, text: str) -> None:
        self._console.print(f"**{text}**" if self._markdown else f"[bold]{text}[/]")

    def _table(self, *columns: str, numbers: bool = True) -> Table:
        table = Table(box=box.MARKDOWN if self._markdown else box.SIMPLE_HEAD)
        for column in columns:
            is_number = numbers and column != columns[0]
            table.add_column(column, justify="right" if is_number else "left", no_wrap=column == columns[0])
        return table


def _goal(results: Results, metric: str, contender: str) -> str:
    figures = results.figures[metric]
    for goal in GOALS:
        fits = goal.metric == metric and goal.contender == contender
        if fits and goal.groups in {None, results.settings["groups"]}:
            verdict = {True: "[green]reached[/]", False: "[red]missed[/]", None: "?"}[goal.reached(figures)]
            return f"{'≥' if figures.more_is_better else '≤'} {goal.limit:g} {verdict}"
    return ""


def _number(value: float | None) -> str:
    if value is None:
        return "failed"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
