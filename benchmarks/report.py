"""Report: results as tables for people."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .contenders import OURS
from .results import GOALS, Results

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
        self._figures(results)
        for failure in results.failures:
            self._console.print(f"[bold red]FAILED[/] {escape(failure)}")

    def compare(self, old: Results, new: Results) -> None:
        """Print two runs side by side: the medians, and the ratios, which another machine changes less."""
        for title, results in (("Old run", old), ("New run", new)):
            self._console.print(title, style="bold")
            self._conditions(results)
        table = self._table("figure", "contender", "old", "new", "new ÷ old", "ratio, old", "ratio, new")
        for name, figures in new.figures.items():
            if name not in old.figures:
                continue
            title = f"{figures.title}, {figures.unit}"
            for contender in figures.rounds:
                before, after = old.figures[name].median(contender), figures.median(contender)
                change = after / before if before and after is not None else None
                ratios = old.figures[name].ratio(contender), figures.ratio(contender)
                table.add_row(
                    title,
                    contender,
                    _number(before),
                    _number(after),
                    _ratio(change),
                    *("" if contender == OURS else _ratio(ratio) for ratio in ratios),
                )
                title = ""
            self._end_section(table)
        self._console.print(table)

    def _conditions(self, results: Results) -> None:
        settings, machine = results.settings, results.machine
        cores = "a core each for server and client" if machine["cores"] else "processes not pinned to cores"
        self._console.print(f"{machine['time']}, {machine['system']}, {machine['processor']}, {cores}")
        if machine["load"] > _QUIET:
            self._console.print(
                f"The machine was not quiet at the start (load {machine['load']:.1f}): "
                "believe the ratios, not the figures."
            )
        self._console.print(
            f"groups: {settings['groups']}, key: {settings['key_type']}, "
            f"{settings['rounds']} rounds of {settings['seconds']} s"
        )
        table = self._table("contender", "what is in it", "what is negotiated", numbers=False)
        for name, versions in results.versions.items():
            contents = ", ".join(f"{part} {version}" for part, version in versions.items())
            table.add_row(name, contents.replace("OpenSSL OpenSSL", "OpenSSL"), results.negotiated[name])
        self._console.print(table)

    def _figures(self, results: Results) -> None:
        table = self._table("figure", "contender", "median", "least", "most", f"{OURS} ÷ it", "goal")
        for name, figures in results.figures.items():
            title = f"{figures.title}, {figures.unit}" + (
                "" if figures.more_is_better else " (less is better)"
            )
            for contender in figures.rounds:
                spread = figures.sorted(contender)
                table.add_row(
                    title,
                    contender,
                    _number(figures.median(contender)),
                    _number(spread[0] if spread else None),
                    _number(spread[-1] if spread else None),
                    "" if contender == OURS else _ratio(figures.ratio(contender)),
                    self._goal(results, name, contender),
                )
                title = ""
            self._end_section(table)
        self._console.print(table)

    def _goal(self, results: Results, metric: str, contender: str) -> str:
        figures = results.figures[metric]
        for goal in GOALS:
            fits = goal.metric == metric and goal.contender == contender
            if fits and goal.groups in {None, results.settings["groups"]}:
                verdict = {True: "[green]reached[/]", False: "[red]missed[/]", None: "?"}[
                    goal.reached(figures)
                ]
                return f"{'≥' if figures.more_is_better else '≤'} {goal.limit:g} {verdict}"
        return ""

    def _table(self, *columns: str, numbers: bool = True) -> Table:
        table = Table(box=box.MARKDOWN if self._markdown else box.SIMPLE_HEAD)
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if numbers and number > 1 else "left")
        return table

    def _end_section(self, table: Table) -> None:
        if not self._markdown:  # which has no lines within a table
            table.add_section()


def _number(value: float | None) -> str:
    if value is None:
        return "failed"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
