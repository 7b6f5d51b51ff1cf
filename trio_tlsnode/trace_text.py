"""A trace as text: its facts in a few words, and a timeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .info import ConnectionInfo
from .shown_text import columns, counted, duration, printable, wrapped
from .trace_events import ApplicationData, Event, Failure, Wait

if TYPE_CHECKING:
    from .trace import HandshakeTrace


def outcome(trace: HandshakeTrace) -> str:
    """Return how a handshake ended: "full", "resumed", "failed", or "in progress" if it has not.

    Args:
        trace: The trace.
    """
    if trace.info is not None:
        return "resumed" if trace.info.session_reused else "full"
    return "in progress" if trace.failure is None else "failed"


def facts(trace: HandshakeTrace) -> Iterator[str]:
    """Yield a handshake in a few words: version, cipher suite, outcome, and how long it took.

    Args:
        trace: The trace.
    """
    if trace.protocol is not None:
        yield trace.protocol
    if trace.info is not None:
        yield trace.info.cipher.standard_name
    how = outcome(trace)
    yield f"{how} handshake" if how in ("full", "resumed") else f"handshake {how}"
    yield from measures(trace)


def measures(trace: HandshakeTrace) -> Iterator[str]:
    """Yield how long a handshake took, in round trips and in time.

    Args:
        trace: The trace.
    """
    if trace.round_trips:
        yield counted(trace.round_trips, "round trip")
    if trace.duration is not None:
        yield duration(trace.duration)


def details(trace: HandshakeTrace) -> Iterator[str]:
    """Yield what was negotiated besides version and cipher suite.

    Args:
        trace: The trace.
    """
    if trace.info is not None and trace.info.server_name is not None:
        yield f"server name {printable(trace.info.server_name)}"
    if trace.info is not None and trace.info.alpn_protocol is not None:
        yield f"ALPN {printable(trace.info.alpn_protocol)}"


def peer(trace: HandshakeTrace) -> str:
    """Return what the other side is.

    Args:
        trace: The trace.
    """
    return "server" if trace.role == "client" else "client"


def spent(trace: HandshakeTrace) -> tuple[tuple[str, float], tuple[str, float], tuple[str, float]]:
    """Return where the time went, in words and seconds: with the peer, in callbacks, here.

    Args:
        trace: The trace.
    """
    time = trace.time_spent
    return (f"{peer(trace)} and network", time.peer), ("callbacks", time.callbacks), ("here", time.here)


def arrow(trace: HandshakeTrace, *, sent: bool) -> str:
    """Return from whom to whom something goes.

    Args:
        trace: The trace.
        sent: Whether this side sends it.
    """
    return "client --> server" if sent == (trace.role == "client") else "client <-- server"


def stamped(time: float, text: str) -> str:
    """Return a line with its time.

    Args:
        time: When, in seconds since the trace began.
        text: What there is to say.
    """
    return f"{duration(time):>13}  {text}"


def timeline(trace: HandshakeTrace, story: Iterable[Event], width: int) -> Iterator[str]:
    """Yield a trace line by line.

    Args:
        trace: The trace.
        story: What happened, in the order in which it is told.
        width: How many columns a line may have.
    """

    def lines(start: str, text: str) -> Iterator[str]:
        for line in wrapped(text, width - len(start), columns):
            yield f"{start}{line}".rstrip()
            start = " " * len(start)

    yield from lines("", ", ".join(facts(trace)))
    yield from lines("", ", ".join([f"seen by the {trace.role}", *details(trace), "{} is encrypted"]))
    times = [f"{what} {duration(time)}" for what, time in spent(trace) if time > 0]
    if times:
        yield from lines("", f"time: {', '.join(times)}")
    yield ""
    for event in story:
        if isinstance(event, int):
            yield f"{'...':>13}  {counted(event, 'message')} left out"
        elif isinstance(event, Wait):
            yield from lines(stamped(event.end, ""), str(event))
        elif isinstance(event, Failure):
            yield from lines(stamped(event.time, ""), str(event))
        elif isinstance(event, ConnectionInfo):
            yield stamped(trace.duration or 0.0, "secure")
        elif isinstance(event, ApplicationData):
            yield from lines(" " * 15, str(event))
        else:
            yield from lines(stamped(event.start, f"{arrow(trace, sent=event.sent)}  "), str(event))
            for row in event.rows():
                if isinstance(row, int):
                    yield f"    ... {counted(row, 'message')} left out"
                else:
                    yield from lines(f"    {row.marked_name:23}{row.size:9,}  ", row.description)
