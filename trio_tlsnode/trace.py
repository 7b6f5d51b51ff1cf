"""HandshakeTrace: what happened on the wire in one connection's handshake, and when.

It is told of each record and message as OpenSSL's message callback is, and keeps of them what may be shown to
anybody: names, sizes, times and what is negotiated, but no keys, no tickets and no application data.  Its
memory is bounded, whatever the peer sends.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from .alerts import Alert
from .errors import ConfigurationError, ConfigurationTypeError, TLSError
from .handshake_messages import SERVER_HELLO, described, selected_version
from .iana import VERSIONS
from .info import ConnectionInfo
from .shown_text import printable
from .trace_diagram import Diagram
from .trace_events import (
    FIRST_MESSAGES,
    ApplicationData,
    Event,
    Failure,
    Flight,
    Message,
    TimeSpent,
    Wait,
)
from .trace_text import arrow, facts, stamped, timeline

if TYPE_CHECKING:
    from .record_layer import RecordLayer
    from .stream import TLSStream

Role = Literal["client", "server"]

# What OpenSSL's message callback calls content types (SSL_CTX_set_msg_callback(3)).
_CHANGE_CIPHER_SPEC: Final = 20
_ALERT: Final = 21
_HANDSHAKE: Final = 22
_APPLICATION_DATA: Final = 23
_RECORD_HEADER: Final = 256
_INNER_CONTENT_TYPE: Final = 257

_ALERT_LEVELS: Final = {1: "warning", 2: "fatal"}
_TLS13: Final = 0x0304

# A handshake has at most seven flights, and a dozen messages in each; a peer may send any number.
_FIRST_ENTRIES, _LAST_ENTRIES = 20, 8
_LAST_MESSAGES = 4

_T = TypeVar("_T")


class HandshakeTrace:
    """The flights, messages, alerts and times of one connection's handshake.

    As text it is a timeline, and in a notebook a diagram.  It goes on after the handshake with messages and
    alerts; application data is only counted.  Times are trio's clock's, as this side saw it happen.

    Args:
        on_line: Called with one line of text for each message, wait and outcome as it happens.

    Attributes:
        role: Which side's view this is; known once the trace has begun.
        started_at: When it began, with the handshake, on trio's clock; None before that.
        info: What was negotiated, once the handshake is done.
        duration: How long the handshake took until it was done or had failed, in seconds; else None.
        failure: Why the connection failed, if it did.
    """

    def __init__(self, *, on_line: Callable[[str], object] | None = None) -> None:
        self.role: Role = "client"
        self.started_at: float | None = None
        self.info: ConnectionInfo | None = None
        self.duration: float | None = None
        self.failure: Failure | None = None
        self._on_line = on_line
        # Flights and waits, in the order in which they came.
        self._entries: _Ends[_OpenFlight | Wait] = _Ends(_FIRST_ENTRIES, _LAST_ENTRIES)
        self._left_out = 0
        self._flight: _OpenFlight | None = None
        self._incoming = _Direction(sent=False)
        self._outgoing = _Direction(sent=True)
        # What the ServerHello says.
        self._version: int | None = None
        # Whether OpenSSL will tell of a received message that `plaintext` was given.
        self._told_already = False

    # What the connection tells

    def start(self, role: Role, now: float) -> None:
        """Begin.

        Args:
            role: Which side's view this is.
            now: The time, in seconds, as everywhere here.

        Raises:
            ConfigurationError: the trace has seen another connection.
        """
        if self.started_at is not None:
            raise _for_one_connection()
        self.role = role
        self.started_at = now

    def plaintext(self, sent: bool, records: bytes | bytearray, now: float) -> None:
        """Take the first message of a side from the wire.

        That is the ClientHello, which a server reads before there is an ``SSL``, or the alert of a side that
        gives up.  What OpenSSL tells of the same ClientHello later is not taken again, and what it has told
        of an answer that the alert replaces is forgotten.

        Args:
            sent: Whether this side sends it.
            records: What goes over the wire; what follows the first message is not looked at.
            now: The time.
        """
        self._told_already = not sent
        if sent and self._flight is not None and self._flight.sent:
            self._flight.clear()
            self._outgoing.cipher_changed = self._outgoing.finished = False
            self._outgoing.unsettled = None
            self._outgoing.new_records = 0
        rest = memoryview(records)
        message = b""
        while len(rest) > 5 and rest[0] in (_HANDSHAKE, _ALERT):
            content_type, end = rest[0], 5 + int.from_bytes(rest[3:5])
            self._take(sent, _RECORD_HEADER, bytes(rest[:5]), now)
            message += rest[5:end]
            rest = rest[end:]
            size = 2 if content_type == _ALERT else 4 + int.from_bytes(message[1:4])
            if len(message) >= size:
                self._take(sent, content_type, message[:size], now)
                break

    def record(self, sent: bool, version: int, content_type: int, data: bytes, now: float) -> None:  # noqa: ARG002
        """Take what OpenSSL's message callback is given (SSL_CTX_set_msg_callback(3)), and the time.

        Args:
            sent: Whether it leaves.
            version: Not looked at: it becomes the negotiated one too late.
            content_type: Of what kind it is; 256 is a record's header.
            data: The bytes.
            now: The time.
        """
        if self._told_already:
            if not sent:
                self._told_already = content_type != _HANDSHAKE
                return
            self._told_already = False
        self._take(sent, content_type, data, now)

    def waited(self, callback: str, start: float, end: float) -> None:
        """Take that the handshake waited for a callback of the application.

        Args:
            callback: The option under which it was given.
            start: When it was called.
            end: When it was done.
        """
        wait = Wait(callback, self._since_start(start), self._since_start(end))
        self._append(wait)
        self._say(wait.end, str(wait))

    def finished(self, info: ConnectionInfo, now: float) -> None:
        """Take that the handshake is done.

        Args:
            info: What was negotiated.
            now: The time.
        """
        self.info = info
        self.duration = self._since_start(now)
        self._say(self.duration, f"secure: {', '.join(facts(self))}")

    def failed(self, error: TLSError, now: float) -> None:
        """Take that the connection failed, in its handshake or later.

        Args:
            error: Why.
            now: The time.
        """
        for direction in (self._incoming, self._outgoing):
            self._settle(direction, is_application_data=False)
        time = self._since_start(now)
        self.failure = Failure(time, type(error).__name__, error.code, printable(str(error)))
        if self.duration is None:
            self.duration = time
        self._say(time, str(self.failure))

    # What it knows

    @property
    def flights(self) -> tuple[Flight, ...]:
        """The flights, oldest first; of very many the first and the last ones."""
        return tuple([flight.frozen() for flight in self._open_flights()])

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of these flights, oldest first."""
        return tuple([message for flight in self._open_flights() for message in flight.messages])

    @property
    def alerts(self) -> tuple[Message, ...]:
        """Those messages that are alerts."""
        return tuple([message for message in self.messages if message.alert is not None])

    @property
    def waits(self) -> tuple[Wait, ...]:
        """The callbacks of the application that were waited for, oldest first."""
        return tuple([entry for entry in self._entries if isinstance(entry, Wait)])

    @property
    def left_out(self) -> int:
        """How many messages were left out because there were too many."""
        return self._left_out + sum(flight.messages.left_out for flight in self._open_flights())

    @property
    def application_data(self) -> ApplicationData:
        """How much application data has passed."""
        sent, received = self._outgoing, self._incoming
        return ApplicationData(
            sent.application_records,
            sent.application_bytes,
            received.application_records,
            received.application_bytes,
        )

    @property
    def protocol(self) -> str | None:
        """The version that the server chose ("TLSv1.3"), once it is known."""
        return None if self._version is None else VERSIONS.get(self._version, f"0x{self._version:04x}")

    @property
    def resumed(self) -> bool | None:
        """Whether the handshake resumed an earlier session; None as long as it is not done."""
        return None if self.info is None else self.info.session_reused

    @property
    def round_trips(self) -> int:
        """How often the client had to wait for the server in the handshake."""
        servers = [flight for flight in self._handshake_flights() if flight.sent == (self.role == "server")]
        return sum(any(message.alert is None for message in flight.messages) for flight in servers)

    @property
    def time_spent(self) -> TimeSpent:
        """Where the time of the handshake went, as far as it is known."""
        spans: list[tuple[float, float, bool]] = []
        done, awaits_peer = 0.0, self.role == "server"
        for flight in self._handshake_flights():
            spans.append((done, flight.end, not flight.sent))
            done, awaits_peer = flight.end, flight.sent
        if self.duration is not None:
            # What is last done in a handshake that succeeds is done here.
            spans.append((done, self.duration, awaits_peer and self.info is None))
        callbacks, others = 0.0, {True: 0.0, False: 0.0}
        for start, end, for_peer in spans:
            waited = sum(max(0.0, min(end, wait.end) - max(start, wait.start)) for wait in self.waits)
            callbacks += waited
            others[for_peer] += max(0.0, end - start - waited)
        return TimeSpent(peer=others[True], callbacks=callbacks, here=others[False])

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as what JSON has.

        The keys are the names of the attributes, here and of `Flight`, `Message`, `Wait`, `TimeSpent`,
        `ApplicationData` and `Failure`; the messages are in their flights.  Instead of ``info`` there are its
        ``cipher`` (IANA's name), ``alpn_protocol`` and ``server_name``.  An alert is a number.
        """
        info = self.info
        return {
            "role": self.role,
            "started_at": self.started_at,
            "duration": self.duration,
            "protocol": self.protocol,
            "cipher": info and info.cipher.standard_name,
            "alpn_protocol": info and info.alpn_protocol,
            "server_name": info and info.server_name,
            "resumed": self.resumed,
            "round_trips": self.round_trips,
            "time_spent": dataclasses.asdict(self.time_spent),
            "flights": [
                dataclasses.asdict(flight)
                | {"messages": [dataclasses.asdict(message) for message in flight.messages]}
                for flight in self.flights
            ],
            "waits": [dataclasses.asdict(wait) for wait in self.waits],
            "application_data": dataclasses.asdict(self.application_data),
            "failure": self.failure and dataclasses.asdict(self.failure),
            "left_out": self.left_out,
        }

    # As text

    def line(self, message: Message) -> str:
        """Return a message as one line: when, from whom to whom, its name, its size, what it says.

        Args:
            message: One of `messages`.
        """
        return stamped(message.time, self._line_of(message))

    def text(self, width: int = 80) -> str:
        """Return all of it as a timeline.

        Args:
            width: How many columns a line may have, at least 60.

        Raises:
            ValueError: it is less.
        """
        if width < 60:
            raise ValueError(f"width must be at least 60. Received {width}")
        return "\n".join(timeline(self, self._story(), width))

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<HandshakeTrace of a {self.role}: {', '.join(facts(self))}>"

    def _repr_html_(self) -> str:
        return Diagram(self, self._story()).svg()

    def _since_start(self, now: float) -> float:
        return now - (self.started_at or 0.0)

    def _open_flights(self) -> list[_OpenFlight]:
        return [entry for entry in self._entries if isinstance(entry, _OpenFlight)]

    def _handshake_flights(self) -> list[_OpenFlight]:
        return [flight for flight in self._open_flights() if not flight.after_handshake]

    # Records and messages

    def _take(self, sent: bool, content_type: int, data: bytes, now: float) -> None:
        now = self._since_start(now)
        direction = self._outgoing if sent else self._incoming
        if content_type == _RECORD_HEADER and len(data) == 5:
            self._begin_record(direction, data[0], 5 + int.from_bytes(data[3:]), now)
        elif content_type == _INNER_CONTENT_TYPE:
            self._settle(direction, is_application_data=_APPLICATION_DATA in data[:1])
        elif content_type == _HANDSHAKE and len(data) >= 4:
            self._take_handshake_message(direction, data, now)
        elif content_type == _ALERT and len(data) == 2:
            level = _ALERT_LEVELS.get(data[0], f"level {data[0]}")
            alert = _alert(data[1])
            name = alert.name if isinstance(alert, Alert) else f"alert {alert}"
            self._add(direction, "Alert", 2, f"{level} {name}", now, alert)

    def _begin_record(self, direction: _Direction, content_type: int, size: int, now: float) -> None:
        self._settle(direction, is_application_data=False)
        is_opaque = content_type == _APPLICATION_DATA
        direction.encrypted = is_opaque or direction.cipher_changed
        if is_opaque:
            direction.unsettled = (size, now)
            if self._version is not None and self._version < _TLS13:
                self._settle(direction, is_application_data=True)
        elif content_type in (_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE):
            self._count_record(direction, size, now)
            if content_type == _CHANGE_CIPHER_SPEC:
                self._change_cipher_spec(direction, now)

    def _settle(self, direction: _Direction, *, is_application_data: bool) -> None:
        """Count a record of which the header did not tell what it holds."""
        if direction.unsettled is None:
            return
        (size, time), direction.unsettled = direction.unsettled, None
        if is_application_data:
            direction.application_records += 1
            direction.application_bytes += size
            self._flight = None
        else:
            self._count_record(direction, size, time)

    def _count_record(self, direction: _Direction, size: int, now: float) -> None:
        flight = self._flight_of(direction, now)
        flight.bytes += size
        flight.records += 1
        flight.end = now
        direction.new_records += 1

    def _change_cipher_spec(self, direction: _Direction, now: float) -> None:
        # OpenSSL tells of those that are sent only; a record of this type can hold nothing else.
        # Up to TLS 1.2, it cannot come before the ServerHello.
        if self._version in (None, _TLS13):
            self._add(direction, "ChangeCipherSpec", 1, "for middleboxes only", now)
        else:
            self._add(direction, "ChangeCipherSpec", 1, "", now)
            direction.cipher_changed = True

    def _take_handshake_message(self, direction: _Direction, message: bytes, now: float) -> None:
        if message[0] == SERVER_HELLO:
            self._version = selected_version(message)
        name, description = described(message, tls13=self._version == _TLS13)
        self._add(direction, name, len(message), description, now)

    def _add(
        self,
        direction: _Direction,
        name: str,
        size: int,
        description: str,
        now: float,
        alert: Alert | int | None = None,
    ) -> None:
        message = Message(
            time=now,
            sent=direction.sent,
            name=name,
            size=size,
            records=direction.new_records,
            encrypted=direction.encrypted,
            description=description,
            alert=alert,
        )
        direction.new_records = 0
        flight = self._flight_of(direction, now)
        flight.end = now
        flight.messages.append(message)
        direction.finished |= name == "Finished"
        self._say(now, self._line_of(message))

    def _flight_of(self, direction: _Direction, now: float) -> _OpenFlight:
        after_handshake = self._incoming.finished and self._outgoing.finished
        flight = self._flight
        if flight is None or (flight.sent, flight.after_handshake) != (direction.sent, after_handshake):
            flight = self._flight = _OpenFlight(direction.sent, now, after_handshake)
            self._append(flight)
        return flight

    def _append(self, entry: _OpenFlight | Wait) -> None:
        dropped = self._entries.append(entry)
        if isinstance(dropped, _OpenFlight):
            self._left_out += dropped.messages.total

    # Words

    def _story(self) -> Iterator[Event]:
        """Yield what happened in the order in which it is told; a number stands for messages left out."""
        info = self.info
        for entry in self._entries.with_gap():
            # A server's tickets leave before it takes its handshake for done.
            if info is not None and isinstance(entry, _OpenFlight) and self._follows_handshake(entry):
                yield info
                info = None
            if isinstance(entry, int):
                yield self._left_out
            else:
                yield entry.frozen() if isinstance(entry, _OpenFlight) else entry
        if info is not None:
            yield info
        data = self.application_data
        if data.records_sent or data.records_received:
            yield data
        if self.failure is not None:
            yield self.failure

    def _follows_handshake(self, flight: _OpenFlight) -> bool:
        return flight.after_handshake and self.duration is not None and flight.start >= self.duration

    def _line_of(self, message: Message) -> str:
        return f"{arrow(self, sent=message.sent)}  {message}"

    def _say(self, time: float, text: str) -> None:
        on_line, self._on_line = self._on_line, None
        if on_line is not None:
            # One that raises is not called again, and what else there is to know is kept all the same.
            on_line(stamped(time, text))
            self._on_line = on_line


class _Ends(Generic[_T]):
    """A sequence of which only the first and the last items are kept.

    Attributes:
        total: How many items there were.
    """

    __slots__ = ("_first", "_last", "_most_first", "total")

    def __init__(self, first: int, last: int) -> None:
        self._first: list[_T] = []
        self._most_first = first
        self._last: deque[_T] = deque(maxlen=last)
        self.total = 0

    def append(self, item: _T) -> _T | None:
        """Append an item; return the one that is dropped for it, if any."""
        self.total += 1
        if len(self._first) < self._most_first:
            self._first.append(item)
            return None
        dropped = self._last[0] if len(self._last) == self._last.maxlen else None
        self._last.append(item)
        return dropped

    @property
    def left_out(self) -> int:
        """How many items were dropped."""
        return self.total - len(self._first) - len(self._last)

    def __iter__(self) -> Iterator[_T]:
        yield from self._first
        yield from self._last

    def with_gap(self) -> Iterator[_T | int]:
        """Yield the items, and between the first and the last how many were dropped, if any were."""
        yield from self._first
        if self.left_out:
            yield self.left_out
        yield from self._last


class _OpenFlight:
    """A `Flight` that may still grow."""

    __slots__ = ("after_handshake", "bytes", "end", "messages", "records", "sent", "start")

    def __init__(self, sent: bool, start: float, after_handshake: bool) -> None:
        self.sent = sent
        self.start = self.end = start
        self.after_handshake = after_handshake
        self.clear()

    def clear(self) -> None:
        self.bytes = self.records = 0
        self.messages: _Ends[Message] = _Ends(FIRST_MESSAGES, _LAST_MESSAGES)

    def frozen(self) -> Flight:
        return Flight(
            sent=self.sent,
            start=self.start,
            end=self.end,
            bytes=self.bytes,
            records=self.records,
            after_handshake=self.after_handshake,
            messages=tuple(self.messages),
            left_out=self.messages.left_out,
        )


@dataclass(slots=True)
class _Direction:
    """What one side has sent.

    Attributes:
        sent: Whether that is this side.
        cipher_changed: Whether its records are encrypted since a ChangeCipherSpec, up to TLS 1.2.
        encrypted: Whether its last record is encrypted.
        unsettled: Size and time of its last record, if it is not known yet what that holds.
        new_records: How many records were begun since its last message.
        finished: Whether it has finished the handshake.
        application_records: How many records it has sent with application data.
        application_bytes: Their size with their headers.
    """

    sent: bool
    cipher_changed: bool = False
    encrypted: bool = False
    unsettled: tuple[int, float] | None = None
    new_records: int = 0
    finished: bool = False
    application_records: int = 0
    application_bytes: int = 0


def _alert(number: int) -> Alert | int:
    try:
        return Alert(number)
    except ValueError:
        return number


def _for_one_connection() -> ConfigurationError:
    return ConfigurationError(
        "a HandshakeTrace is for one connection; give the class to have one for each", option="trace"
    )


LineSink = Callable[[str, "TLSStream"], object]
"""Called with a line, without its end, and the stream of which it tells; an `Engine` alone has None."""

Trace = HandshakeTrace | type[HandshakeTrace] | LineSink | bool | None
"""``trace``: a `HandshakeTrace`, the class for a new one, a function that is called with each line and the
stream, or True for lines on the standard error."""


def handshake_trace(trace: Trace, engine: weakref.ref[RecordLayer]) -> HandshakeTrace:
    """Return what is told of a connection's messages.

    Args:
        trace: The option.
        engine: Whose connection it is.

    Raises:
        ConfigurationError: it has seen another connection.
        ConfigurationTypeError: it is nothing of that kind.
    """
    if isinstance(trace, HandshakeTrace):
        if trace.started_at is not None:
            raise _for_one_connection()
        return trace
    if isinstance(trace, type) and issubclass(trace, HandshakeTrace):
        return trace()
    if trace is True:
        return HandshakeTrace(on_line=_to_standard_error)
    if not callable(trace):
        raise ConfigurationTypeError(
            f"trace must be a HandshakeTrace, the class, a function or a bool. Received {trace!r}",
            option="trace",
        )
    return HandshakeTrace(on_line=functools.partial(_to_function, trace, engine))


def trace_for_each(trace: Trace) -> Trace:
    """Return what is told of several connections' messages.

    Raises:
        ConfigurationError: it is for one alone.
    """
    if isinstance(trace, HandshakeTrace):
        raise _for_one_connection()
    return trace


def _to_standard_error(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _to_function(function: Callable[..., object], engine: weakref.ref[RecordLayer], line: str) -> None:
    owner = engine()
    result = function(line, None if owner is None else owner.stream)
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError("it is called within OpenSSL and may not be async")
