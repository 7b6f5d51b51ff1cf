"""A trace as a picture in SVG, for notebooks."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from .info import ConnectionInfo
from .shown_text import counted, duration, is_wide, wrapped
from .trace_events import ApplicationData, Event, Failure, Flight, Message, Wait
from .trace_text import details, facts, measures, outcome, peer, spent

if TYPE_CHECKING:
    from .trace import HandshakeTrace

# Across, in units of SVG, which are pixels at full size.
_WIDTH: Final = 880
_LEFT_LANE, _RIGHT_LANE = 100, 780
_LEFT, _RIGHT = 118, 762
_NAMES_AT, _TEXTS_AT, _BARS_AT, _BAR_WIDTH = 144, 302, 652, 46
# Down.
_ROW, _LINE = 22, 15
_MOST_LINES: Final = 3
# What part of the whole time makes a pause worth its own words.
_NOTEWORTHY: Final = 0.1
# Text and lines have the page's own colour; these can be told apart on white and on black.
_BLUE, _GREEN, _AMBER, _RED, _GREY = "#3b82f6", "#10a37a", "#e08a1e", "#e5484d", "#8b95a5"
_BADGES: Final = {
    "full": ("FULL HANDSHAKE", "#2563eb"),
    "resumed": ("RESUMED", "#047857"),
    "failed": ("FAILED", "#c02a2f"),
    "in progress": ("IN PROGRESS", "#6b7280"),
}
_FONT: Final = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
_DOT: Final = " \u00b7 "


class Diagram:
    """A trace as a picture in SVG, drawn from top to bottom.

    The client's lane is on the left.  The lane of the side that saw it all has the times beside it, and the
    colours of where the time went.

    Args:
        trace: The trace.
        story: What happened, in the order in which it is told.
    """

    def __init__(self, trace: HandshakeTrace, story: Iterable[Event]) -> None:
        self._trace = trace
        self._shapes: list[str] = []
        self._y = 0.0
        # Up to when the lane tells where the time went.
        self._time = 0.0
        self._awaits_peer = trace.role == "server"
        self._here, self._inwards = (_LEFT_LANE, 1) if trace.role == "client" else (_RIGHT_LANE, -1)
        self._largest = max([message.size for message in trace.messages], default=1)
        self._heading()
        self._time_bar()
        self._lane_names()
        behind, top = len(self._shapes), self._y
        for event in story:
            self._event(event)
        self._y += 14
        for x in (_LEFT_LANE, _RIGHT_LANE):
            lane = f'<path d="M{x} {top:.1f}V{self._y:.1f}" stroke="currentColor" stroke-opacity=".4"/>'
            self._shapes.insert(behind, lane)
        self._legend()

    def svg(self) -> str:
        """Return the picture; it has no names, styles or scripts that could meet those of a page."""
        label = html.escape(", ".join(facts(self._trace)))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {math.ceil(self._y)}" role="img"'
            f' aria-label="{label}" style="width:100%;max-width:{_WIDTH}px;height:auto;display:block"'
            f' font-family="{_FONT}" font-size="12" fill="currentColor">{"".join(self._shapes)}</svg>'
        )

    # Around the lanes

    def _heading(self) -> None:
        badge, colour = _BADGES[outcome(self._trace)]
        width = _pixels(badge, 12) + 26
        self._rectangle(0, 2, width, 24, colour, radius=12)
        self._text(width / 2, 18.5, badge, weight=700, fill="#fff", anchor="middle")
        info = self._trace.info
        title = [fact for fact in (self._trace.protocol, info and info.cipher.standard_name) if fact]
        self._text(width + 12, 20, _DOT.join(title), size=16, weight=600)
        self._text(0, 46, _DOT.join([*measures(self._trace), *details(self._trace)]), size=13, most=_WIDTH)
        self._y = 58

    def _time_bar(self) -> None:
        parts = [
            (what, time, colour)
            for (what, time), colour in zip(spent(self._trace), (_GREY, _AMBER, _BLUE), strict=True)
            if time > 0
        ]
        whole = sum(time for _, time, _ in parts)
        bar, label = 0.0, 0.0
        for what, time, colour in parts:
            width = _WIDTH * time / whole
            self._rectangle(bar, self._y, max(width - 2, 1), 8, colour, radius=2)
            bar += width
            text = f"{what} {duration(time)}, {time / whole:.0%}"
            self._rectangle(label, self._y + 17, 9, 9, colour, radius=2)
            self._text(label + 14, self._y + 25.5, text, size=11.5, dim=True)
            label += _pixels(text, 11.5) + 32
        self._y += 42 if parts else 0

    def _lane_names(self) -> None:
        for x, name in ((_LEFT_LANE, "Client"), (_RIGHT_LANE, "Server")):
            is_here = x == self._here
            opacity = 0.13 if is_here else 0.06
            self._rectangle(x - 56, self._y, 112, 28, "currentColor", radius=6, opacity=opacity)
            name += " (here)" if is_here else ""
            self._text(x, self._y + 18.5, name, size=13, weight=600, anchor="middle")
        self._y += 28

    def _legend(self) -> None:
        if any(message.encrypted for message in self._trace.messages):
            self._rectangle(_LEFT, self._y + 2, 28, 18, _GREEN, radius=5, opacity=0.18)
            self._lock(_LEFT + 9, self._y + 5)
            self._text(_NAMES_AT + 8, self._y + 15, "encrypted on the wire", size=11.5, dim=True)
        if self._trace.messages:
            self._text(_RIGHT - 8, self._y + 15, "sizes in bytes", size=11.5, dim=True, anchor="end")
        self._y += 24

    # Between the lanes

    def _event(self, event: Event) -> None:
        if isinstance(event, Flight):
            self._flight(event)
        elif isinstance(event, Wait):
            self._wait(event)
        elif isinstance(event, ConnectionInfo):
            self._secure()
        elif isinstance(event, ApplicationData):
            self._application_data(event)
        elif isinstance(event, Failure):
            self._failure(event)
        else:
            self._left_out(event)

    def _flight(self, flight: Flight) -> None:
        colour = "" if flight.after_handshake else _BLUE if flight.sent else _GREY
        self._gap(flight.start, colour)
        begin = self._y
        self._y += 32
        self._text(_WIDTH / 2, self._y - 8, str(flight), weight=600, anchor="middle")
        self._when(flight.start)
        self._arrow(rightwards=flight.sent == (self._trace.role == "client"))
        self._y += 7
        for is_band, rows in itertools.groupby(flight.rows(), _is_encrypted):
            behind, top = len(self._shapes), self._y
            for row in rows:
                if isinstance(row, Message):
                    self._message(row)
                else:
                    self._left_out(row)
            if is_band:
                self._rectangle(
                    _LEFT, top, _RIGHT - _LEFT, self._y - top, _GREEN, radius=5, opacity=0.18, layer=behind
                )
        self._track(begin, colour)
        self._time = max(self._time, flight.end)
        self._awaits_peer = flight.sent

    def _message(self, message: Message) -> None:
        y = self._y + 15
        colour = _RED if _is_fatal(message) else "currentColor"
        if message.encrypted:
            self._lock(_LEFT + 9, y - 10)
        title = self._trace.line(message)
        self._text(_NAMES_AT, y, message.name, weight=600, fill=colour, title=title)
        lines = wrapped(message.description, _BARS_AT - _TEXTS_AT - 10, lambda text: _pixels(text, 12))
        if len(lines) > _MOST_LINES:
            lines[_MOST_LINES - 1 :] = [f"{lines[_MOST_LINES - 1]}…"]
        for number, line in enumerate(lines):
            self._text(_TEXTS_AT, y + number * _LINE, line, fill=colour)
        width = max(1.5, _BAR_WIDTH * message.size / self._largest)
        self._rectangle(_BARS_AT, y - 8, width, 8, "currentColor", radius=1.5, opacity=0.35)
        self._text(_RIGHT - 8, y, f"{message.size:,}", anchor="end")
        self._y += _ROW + _LINE * (len(lines) - 1)

    def _wait(self, wait: Wait) -> None:
        self._gap(wait.start, _GREY if self._awaits_peer else _BLUE)
        begin = self._y
        self._y += 22 + _height(wait.end - wait.start)
        self._beside(begin, str(wait), weight=600)
        self._when(wait.start, begin + 15)
        self._track(begin, _AMBER)
        self._time = max(self._time, wait.end)

    def _secure(self) -> None:
        self._gap(self._trace.duration or 0.0, _BLUE)
        self._y += 6
        self._rectangle(_LEFT_LANE, self._y, _RIGHT_LANE - _LEFT_LANE, 24, _GREEN, opacity=0.3)
        self._lock(_WIDTH / 2 - 30, self._y + 6)
        self._text(_WIDTH / 2 - 12, self._y + 16.5, "secure", size=13, weight=700)
        self._when(self._trace.duration or 0.0, self._y + 16)
        self._y += 24

    def _failure(self, failure: Failure) -> None:
        colour = _GREY if self._awaits_peer else _BLUE
        self._gap(failure.time, colour if self._trace.info is None else "")
        self._y += 6
        lines = wrapped(failure.text, _RIGHT - _LEFT - 24, lambda text: _pixels(text, 12))
        height = 30 + _LINE * len(lines)
        self._rectangle(_LEFT, self._y, _RIGHT - _LEFT, height, _RED, radius=5, opacity=0.18)
        self._cross(self._here, self._y + height / 2)
        self._when(failure.time, self._y + height / 2 + 4)
        self._text(_LEFT + 12, self._y + 18, failure.error, size=13, weight=700, fill=_RED)
        for number, line in enumerate(lines, 1):
            self._text(_LEFT + 12, self._y + 20 + number * _LINE, line)
        self._y += height

    def _application_data(self, data: ApplicationData) -> None:
        self._y += 34
        self._text(_WIDTH / 2, self._y - 8, str(data), dim=True, anchor="middle")
        self._arrow(rightwards=True, leftwards=True, dashed=True)

    def _left_out(self, count: int) -> None:
        self._text(_NAMES_AT, self._y + 15, f"… {counted(count, 'message')} left out …", dim=True)
        self._y += _ROW

    def _gap(self, until: float, colour: str) -> None:
        """Go down by the time in which nothing was to be seen."""
        begin, span = self._y, max(0.0, until - self._time)
        self._y += _height(span)
        if colour and span > _NOTEWORTHY * (self._trace.duration or math.inf):
            self._y = max(self._y, begin + _ROW)
            whom = "here" if colour == _BLUE else f"for the {peer(self._trace)}"
            self._beside(begin, f"{duration(span)} {whom}", dim=True)
        self._track(begin, colour)
        self._time += span

    def _track(self, begin: float, colour: str) -> None:
        """Colour the lane of this side from a height down to where we are."""
        if colour:
            self._rectangle(self._here - 3, begin, 6, self._y - begin, colour)

    # Shapes

    def _when(self, time: float, y: float | None = None) -> None:
        y = self._y + 4 if y is None else y
        anchor = "end" if self._inwards > 0 else "start"
        self._text(self._here - 12 * self._inwards, y, duration(time), size=11.5, dim=True, anchor=anchor)

    def _beside(self, begin: float, text: str, *, weight: int = 400, dim: bool = False) -> None:
        """Write beside the lane of this side, half-way from a height down to where we are."""
        x, y = self._here + 18 * self._inwards, (begin + self._y) / 2 + 4
        anchor = "start" if self._inwards > 0 else "end"
        self._text(x, y, text, weight=weight, dim=dim, anchor=anchor, most=_RIGHT - _LEFT)

    def _arrow(self, *, rightwards: bool, leftwards: bool | None = None, dashed: bool = False) -> None:
        leftwards = not rightwards if leftwards is None else leftwards
        left, right = _LEFT_LANE + 5, _RIGHT_LANE - 5
        dashes = ' stroke-dasharray="5 4" stroke-opacity=".6"' if dashed else ""
        self._shapes.append(
            f'<path d="M{left + 6 * leftwards} {self._y:.1f}H{right - 6 * rightwards}" stroke="currentColor"'
            f' stroke-width="1.8"{dashes}/>'
        )
        for x, back, is_tip in ((left, 11, leftwards), (right, -11, rightwards)):
            if is_tip:
                self._shapes.append(f'<path d="M{x} {self._y:.1f}l{back} -5.5v11z"/>')

    def _lock(self, x: float, y: float) -> None:
        self._shapes.append(
            f'<path d="M{x + 2} {y + 5:.1f}v-2a3 3 0 0 1 6 0v2" fill="none"'
            f' stroke="{_GREEN}" stroke-width="1.6"/>'
            f'<rect x="{x}" y="{y + 5:.1f}" width="10" height="7" rx="1.5" fill="{_GREEN}"/>'
        )

    def _cross(self, x: float, y: float) -> None:
        self._shapes.append(
            f'<path d="M{x - 6} {y - 6:.1f}l12 12m0 -12l-12 12" stroke="{_RED}" stroke-width="3.5"/>'
        )

    def _rectangle(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str,
        *,
        radius: float = 0,
        opacity: float = 1,
        layer: int | None = None,
    ) -> None:
        shape = (
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius}"'
            f' fill="{fill}" fill-opacity="{opacity}"/>'
        )
        self._shapes.insert(len(self._shapes) if layer is None else layer, shape)

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12,
        weight: int = 400,
        fill: str = "currentColor",
        anchor: str = "start",
        dim: bool = False,
        most: float = math.inf,
        title: str = "",
    ) -> None:
        shown = text
        if _pixels(text, size) > most:
            shown = f"{wrapped(text, most - size, lambda part: _pixels(part, size))[0]}…"
            title = text
        opacity = ' fill-opacity=".7"' if dim else ""
        title = f"<title>{html.escape(title)}</title>" if title else ""
        self._shapes.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
            f' fill="{fill}"{opacity}>{html.escape(shown)}{title}</text>'
        )


def _is_encrypted(row: Message | int) -> bool:
    return isinstance(row, Message) and row.encrypted


def _is_fatal(message: Message) -> bool:
    return message.alert is not None and message.description.startswith("fatal")


def _height(seconds: float) -> float:
    """Return how far down a time goes: ten times as long is a little further."""
    return 12 * math.log10(1 + 1000 * max(0.0, seconds))


def _pixels(text: str, size: float) -> float:
    """Return about how wide a text is: there are wider fonts than most, and narrower ones."""
    return size * sum(1.0 if is_wide(letter) else _ADVANCES.get(letter, 0.62) for letter in text)


_ADVANCES: Final = dict.fromkeys("iIjlft.,:;'|!()[]{} -", 0.38) | dict.fromkeys("mwMWABCDGHNOQRSTUV_@%", 0.7)
"""How wide letters are that are narrower or wider than most, in parts of the size."""
