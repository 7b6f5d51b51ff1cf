"""Plots: the figures of runs as SVG, for light pages and for dark ones."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from .contenders import CONTENDERS, OURS
from .goals import GOALS
from .growth import GROWTHS, Growth
from .results import Figures, Results
from .scenarios import KIB, MIB

_INK = "#7d828a"  # is read on white and on black
_HIT, _MISSED = "#2e9e5b", "#d9534f"
_COLOURS = dict(
    zip(
        CONTENDERS,
        ("#2f81f7", "#e8853a", "#a678c8", "#c9a227", "#d4689a", "#3da35d", "#2aa6a0", "#8f959e"),
        strict=True,
    )
)
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.facecolor": "none",
    "font.size": 8,
    "grid.alpha": 0.25,
    "grid.color": _INK,
    "legend.frameon": False,
    "savefig.facecolor": "none",
    # Text stays text, and the same results make the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
_PANEL_WIDTH = 3.1  # inches
_LEAST_WIDTH = 5.0  # for the legend
_TITLE_WIDTH = 36  # characters

_Draw = Callable[[Mapping[str, Figures]], Figure | None]

BARS = {
    "benchmark-throughput": ("bulk-16", "bulk-64", "bulk-256"),
    "benchmark-messages": ("ping-pong", "ping-pong-64", "exchange-1000"),
    "benchmark-handshakes": ("handshakes-1", "handshakes-16"),
    "benchmark-resumptions": ("resumptions-1", "resumptions-16"),
    "benchmark-cost": ("handshakes-1-cpu", "memory", "first-byte"),
    "benchmark-sizes": ("bulk-4", "bulk-1024", "messages-1", "messages-16"),
    "benchmark-ciphers": ("bulk-256", "bulk-256-aes-128-gcm", "bulk-256-chacha20"),
}


def write(runs: Sequence[Results], folder: Path) -> list[Path]:
    """Draw each plot from the first of the runs that has its figures.

    Args:
        runs: What was measured.
        folder: Where the plots go.

    Returns:
        The files that were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(_STYLE):
        for name, draw in _plots().items():
            plot = next(filter(None, (draw(run.figures) for run in runs)), None)
            if plot is not None:
                path = folder / f"{name}.svg"
                plot.savefig(path, metadata={"Date": None})
                written.append(path)
    return written


def _plots() -> dict[str, _Draw]:
    """Return what draws each plot, by name."""
    return {
        "benchmark-goals": _draw_goals,
        **{name: partial(_draw_bars, metrics) for name, metrics in BARS.items()},
        **{growth.name: partial(_draw_growth, growth) for growth in GROWTHS},
    }


def _draw_bars(metrics: Sequence[str], figures: Mapping[str, Figures]) -> Figure | None:
    """Draw a panel of bars for each metric: the medians, with the least and the most."""
    if not all(name in figures for name in metrics):
        return None
    rows = max(len(figures[name].rounds) for name in metrics)
    plot, panels = _panels(len(metrics), height=0.75 + 0.22 * rows)
    for panel, name in zip(panels, metrics, strict=True):
        each = figures[name]
        medians = _medians(each)
        names = list(reversed(medians))
        panel.barh(
            names, [medians[name] for name in names], color=[_colour(name) for name in names], height=0.7
        )
        for row, contender in enumerate(names):
            spread = each.sorted(contender)
            panel.plot([spread[0], spread[-1]], [row, row], color=_INK, linewidth=1)
            panel.annotate(
                _short(medians[contender]),
                (spread[-1], row),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                color=_INK,
                fontsize=7,
            )
        panel.set_title(_wrapped(each.title), loc="left")
        panel.set_xlabel(_unit(each))
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.xaxis.set_major_formatter("{x:,g}")
        panel.margins(x=0.18)
        panel.grid(visible=False, axis="y")
    return plot


def _draw_growth(growth: Growth, figures: Mapping[str, Figures]) -> Figure | None:
    """Draw a panel for each curve, with a line for each contender."""
    points = [
        point for point in growth.points if all(curve.metric(point) in figures for curve in growth.curves)
    ]
    if not points:
        return None
    plot, panels = _panels(len(growth.curves), height=2.8)
    for panel, curve in zip(panels, growth.curves, strict=True):
        medians = {point: _medians(figures[curve.metric(point)]) for point in points}
        for contender in dict.fromkeys(chain.from_iterable(medians.values())):
            measured = {point: of[contender] for point, of in medians.items() if contender in of}
            panel.plot(
                list(measured),
                list(measured.values()),
                color=_colour(contender),
                label=contender,
                marker="o",
                markersize=3,
                linewidth=2 if contender == OURS else 1.2,
            )
        panel.set_xscale("log")
        panel.set_xticks(points, [_short_count(point) for point in points])
        panel.xaxis.set_minor_locator(NullLocator())
        if curve.logarithmic:
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_minor_locator(NullLocator())
        else:
            panel.set_ylim(bottom=0)
        panel.yaxis.set_major_formatter("{x:,g}")
        panel.set_title(_wrapped(curve.title), loc="left")
        panel.set_xlabel(growth.along)
        panel.set_ylabel(_unit(figures[curve.metric(points[0])]))
    handles, labels = panels[0].get_legend_handles_labels()
    plot.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return plot


def _draw_goals(figures: Mapping[str, Figures]) -> Figure | None:
    """Draw each goal that is a ratio: where it lies, the interval, and what was reached."""
    measured = [
        (goal, figures[goal.metric], ratio, interval)
        for goal in GOALS
        if goal.metric in figures and not goal.difference
        if (ratio := figures[goal.metric].ratio(goal.contender)) is not None
        and (interval := figures[goal.metric].interval(goal.contender)) is not None
    ]
    if not measured:
        return None
    plot = Figure(figsize=(7.5, 0.9 + 0.24 * len(measured)), layout="constrained")
    panel = plot.subplots()
    for row, (goal, each, ratio, interval) in enumerate(reversed(measured)):
        colour = _HIT if goal.reached(each) else _MISSED
        panel.plot(interval, [row, row], color=colour, linewidth=1.5)
        panel.plot([ratio], [row], color=colour, marker="o", markersize=4)
        panel.plot([goal.limit], [row], color=_INK, marker="|", markersize=9, markeredgewidth=2)
    panel.axvline(1, color=_INK, linewidth=0.8)
    panel.set_xscale("log")
    panel.set_yticks(
        range(len(measured)), [f"{goal.metric} ÷ {goal.contender}" for goal, *_ in reversed(measured)]
    )
    ticks = [0.25, 0.5, 1, 2, 4]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_title(f"{OURS} ÷ the other, its interval, and the goal (|)", loc="left")
    return plot


def _panels(number: int, height: float) -> tuple[Figure, list[Axes]]:
    width = max(_PANEL_WIDTH * number, _LEAST_WIDTH)
    plot = Figure(figsize=(width, height), layout="constrained")
    return plot, list(plot.subplots(1, number, squeeze=False).flat)


def _medians(figures: Figures) -> dict[str, float]:
    """Return the medians of the contenders that have one."""
    medians = {name: figures.median(name) for name in figures.rounds}
    return {name: median for name, median in medians.items() if median is not None}


def _colour(contender: str) -> str:
    return _COLOURS.get(contender, _INK)


def _wrapped(title: str) -> str:
    return "\n".join(textwrap.wrap(title, _TITLE_WIDTH))


def _unit(figures: Figures) -> str:
    return figures.unit if figures.more_is_better else f"{figures.unit} (less is better)"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _short_count(count: int) -> str:
    """Return a number of bytes or of connections, the powers of two in KiB and MiB."""
    for size, name in ((MIB, "MiB"), (KIB, "KiB")):
        if count % size == 0:
            return f"{count // size} {name}"
    return f"{count:,}"
