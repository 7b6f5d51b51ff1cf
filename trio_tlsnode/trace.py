"""HandshakeTrace: what happened on the wire in one connection's handshake, and when.

It is told of each record and message as OpenSSL's message callback is, and keeps of them what may be shown to
anybody: names, sizes, times and what is negotiated, but no keys, no tickets and no application data.  Its
memory is bounded, whatever the peer sends.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import itertools
import math
import sys
import unicodedata
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

from .alerts import Alert
from .certificates import Certificate
from .client_hello import ClientHello
from .errors import CertificateError, ConfigurationError, ConfigurationTypeError, TLSError
from .iana import CIPHER_SUITES, SIGNATURE_SCHEMES, SUPPORTED_GROUPS, VERSIONS, names
from .info import ConnectionInfo

Role = Literal["client", "server"]

# What OpenSSL's message callback calls content types (SSL_CTX_set_msg_callback(3)).
_CHANGE_CIPHER_SPEC: Final = 20
_ALERT: Final = 21
_HANDSHAKE: Final = 22
_APPLICATION_DATA: Final = 23
_RECORD_HEADER: Final = 256
_INNER_CONTENT_TYPE: Final = 257

_SERVER_HELLO: Final = 2
_STATUS_REQUEST: Final = 5
_ALPN: Final = 16
_PRE_SHARED_KEY: Final = 41
_EARLY_DATA: Final = 42
_SUPPORTED_VERSIONS: Final = 43
_CERTIFICATE_AUTHORITIES: Final = 47
_KEY_SHARE: Final = 51
# The random of a ServerHello that is a HelloRetryRequest (RFC 8446, section 4.1.3).
_RETRY_RANDOM: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_ALERT_LEVELS: Final = {1: "warning", 2: "fatal"}
_COMPRESSIONS: Final = {1: "zlib", 2: "brotli", 3: "zstd"}
_TLS13: Final = 0x0304

# A handshake has at most seven flights, and a dozen messages in each; a peer may send any number.
_FIRST_ENTRIES, _LAST_ENTRIES = 20, 8
_FIRST_MESSAGES, _LAST_MESSAGES = 16, 4
_LONGEST_TEXT: Final = 240

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A handshake message, an alert or a ChangeCipherSpec.

    Attributes:
        time: When it was complete, in seconds since the trace began.
        sent: Whether this side sent it.
        name: Its name in the RFCs ("ServerHello"); "Message 99" if they have none.
        size: Its size without that of its record, in bytes.
        records: How many records were begun for it: 0 if it came in that of the message before it.
        encrypted: Whether it was encrypted on the wire.
        description: What it says, one line of printable text, or "".
        alert: What an alert says; a plain int where it is none of RFC 8446's; None for other messages.
    """

    time: float
    sent: bool
    name: str
    size: int
    records: int
    encrypted: bool
    description: str = ""
    alert: Alert | int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """What one side said until the other side said something, or application data was sent.

    Attributes:
        sent: Whether this side sent it.
        start: When its first record began, in seconds since the trace began.
        end: When the last of it was there.
        bytes: Its size on the wire, with the headers of its records.
        records: How many records it has.
        after_handshake: Whether both sides had finished the handshake before.
        messages: Its messages; of very many the first and the last ones.
        left_out: How many messages between those were left out.
    """

    sent: bool
    start: float
    end: float
    bytes: int
    records: int
    after_handshake: bool
    messages: tuple[Message, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Wait:
    """A callback of the application that the handshake waited for.

    Attributes:
        callback: The option under which it was given ("sni_callback").
        start: When it was called, in seconds since the trace began.
        end: When it was done.
    """

    callback: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class ApplicationData:
    """How much application data has passed on the wire; bytes count the headers of the records.

    Attributes:
        records_sent: Records from this side.
        bytes_sent: Their size.
        records_received: Records from the peer.
        bytes_received: Their size.
    """

    records_sent: int
    bytes_sent: int
    records_received: int
    bytes_received: int


@dataclass(frozen=True, slots=True)
class TimeSpent:
    """Where the time of a handshake went, in seconds.

    Attributes:
        peer: Until the peer's flights were there and read; the network is part of it.
        callbacks: In callbacks of the application.
        here: For everything else on this side.
    """

    peer: float
    callbacks: float
    here: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection failed.

    Attributes:
        time: When, in seconds since the trace began.
        error: The class of the error ("CertificateError").
        code: Its code ("CERT_HAS_EXPIRED").
        text: The error in words, one line of printable text.
    """

    time: float
    error: str
    code: str
    text: str


class HandshakeTrace:
    """The flights, messages, alerts and times of one connection's handshake.

    As text it is a timeline, and in a notebook a diagram.  It goes on after the handshake with messages and
    alerts; application data is only counted.  Times are trio's clock's, as this side saw it happen.

    Args:
        on_line: Called with one line of text for each message, wait and outcome as it happens.

    Attributes:
        role: Which side's view this is.
        started_at: When the trace began, on trio's clock; None before that.
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

        Raises:
            ConfigurationError: the trace has seen another connection.
        """
        if self.started_at is not None:
            raise ConfigurationError(
                "a HandshakeTrace is for one connection; give the class to have one for each", option="trace"
            )
        self.role = role
        self.started_at = now

    def plaintext(self, sent: bool, records: bytes | bytearray, now: float) -> None:
        """Take the first message of a side from the wire.

        That is the ClientHello, which a server reads before there is an ``SSL``, or the alert with which it
        refuses one.  What OpenSSL tells of the same ClientHello later is not taken again.

        Args:
            sent: Whether this side sends it.
            records: What goes over the wire; what follows the first message is not looked at.
            now: The time.
        """
        self._told_already = not sent
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

        The version is not looked at: it becomes the negotiated one too late.
        """
        if self._told_already:
            if not sent:
                self._told_already = content_type != _HANDSHAKE
                return
            self._told_already = False
        self._take(sent, content_type, data, now)

    def waited(self, callback: str, start: float, end: float) -> None:
        """Take that the handshake waited for a callback of the application, and when."""
        wait = Wait(callback, self._since_start(start), self._since_start(end))
        self._append(wait)
        self._say(wait.end, _wait_text(wait))

    def finished(self, info: ConnectionInfo, now: float) -> None:
        """Take that the handshake is done."""
        self.info = info
        self.duration = self._since_start(now)
        self._say(self.duration, f"secure: {', '.join(_facts(self))}")

    def failed(self, error: TLSError, now: float) -> None:
        """Take that the connection failed, in its handshake or later."""
        for direction in (self._incoming, self._outgoing):
            self._settle(direction, is_application_data=False)
        time = self._since_start(now)
        self.failure = Failure(time, type(error).__name__, error.code, _printable(str(error)))
        if self.duration is None:
            self.duration = time
        self._say(time, _failure_text(self.failure))

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
        """Return a message as one line: when, from whom to whom, its name, its size, what it says."""
        return f"{_time_column(message.time)}  {self._arrow(message.sent)}  {_message_text(message)}"

    def text(self, width: int = 80) -> str:
        """Return all of it as a timeline.

        Args:
            width: How many columns a line may have, at least 60.
        """
        if width < 60:
            raise ValueError(f"width must be at least 60. Received {width}")
        return "\n".join(self._timeline(width))

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<HandshakeTrace of a {self.role}: {', '.join(_facts(self))}>"

    def _repr_html_(self) -> str:
        return _Diagram(self, self._story()).svg()

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
            self._add(direction, "Alert", 2, f"{level} {_name_of(alert)}", now, alert)

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
        if self._version == _TLS13:
            self._add(direction, "ChangeCipherSpec", 1, "for middleboxes only", now)
        else:
            self._add(direction, "ChangeCipherSpec", 1, "", now)
            direction.cipher_changed = self._version is not None

    def _take_handshake_message(self, direction: _Direction, message: bytes, now: float) -> None:
        if message[0] == _SERVER_HELLO:
            self._version = _selected_version(message)
        name, description = _described(message, tls13=self._version == _TLS13)
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
        self._say(now, f"{self._arrow(message.sent)}  {_message_text(message)}")

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

    def _story(self) -> Iterator[_Event]:
        """Yield what happened in the order in which it is told; a number stands for messages left out."""
        info = self.info
        for entry in self._entries.with_gap():
            # A server's tickets leave before it takes its handshake for done.
            if info is not None and isinstance(entry, _OpenFlight) and self._follows_handshake(entry):
                yield info
                info = None
            yield self._left_out if isinstance(entry, int) else entry
        if info is not None:
            yield info
        data = self.application_data
        if data.records_sent or data.records_received:
            yield data
        if self.failure is not None:
            yield self.failure

    def _follows_handshake(self, flight: _OpenFlight) -> bool:
        return flight.after_handshake and self.duration is not None and flight.start >= self.duration

    def _timeline(self, width: int) -> Iterator[str]:
        def lines(start: str, text: str) -> Iterator[str]:
            for line in _wrapped(text, width - len(start), _columns):
                yield f"{start}{line}"
                start = " " * len(start)

        yield from lines("", ", ".join(_facts(self)))
        yield from lines("", ", ".join([f"seen by the {self.role}", *_details(self), "{} is encrypted"]))
        spent = [f"{what} {_duration(time)}" for what, time in _spent(self) if time > 0]
        if spent:
            yield from lines("", f"time: {', '.join(spent)}")
        yield ""
        for event in self._story():
            if isinstance(event, int):
                yield f"{'...':>13}  {_count(event, 'message')} left out"
            elif isinstance(event, Wait):
                yield from lines(f"{_time_column(event.end)}  ", _wait_text(event))
            elif isinstance(event, Failure):
                yield from lines(f"{_time_column(event.time)}  ", _failure_text(event))
            elif isinstance(event, ConnectionInfo):
                yield f"{_time_column(self.duration or 0.0)}  secure"
            elif isinstance(event, ApplicationData):
                yield from lines(" " * 15, _data_text(event))
            else:
                start = f"{_time_column(event.start)}  {self._arrow(event.sent)}  "
                yield from lines(start, _flight_text(event))
                for message in event.messages.with_gap():
                    if isinstance(message, int):
                        yield f"    ... {_count(message, 'message')} left out"
                        continue
                    start = f"    {_marked(message):23}{message.size:9,}  "
                    for line in lines(start, message.description):
                        yield line.rstrip()

    def _arrow(self, sent: bool) -> str:
        return "client --> server" if sent == (self.role == "client") else "client <-- server"

    def _say(self, time: float, text: str) -> None:
        if self._on_line is not None:
            self._on_line(f"{_time_column(time)}  {text}")


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
        self.bytes = self.records = 0
        self.messages: _Ends[Message] = _Ends(_FIRST_MESSAGES, _LAST_MESSAGES)

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


_Event = _OpenFlight | Wait | ConnectionInfo | ApplicationData | Failure | int


# What messages say


class _Body:
    """The body of a handshake message, or a part of it, read from its beginning.

    A ValueError says that it is cut short.

    Attributes:
        data: All of it; of a message also its header.
        tls13: Whether the message is one of TLS 1.3.
    """

    __slots__ = ("_at", "data", "tls13")

    def __init__(self, data: bytes, at: int = 0, *, tls13: bool = False) -> None:
        self.data = data
        self.tls13 = tls13
        self._at = at

    def __bool__(self) -> bool:
        return self._at < len(self.data)

    def take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self.data):
            raise ValueError("cut short")
        return self.data[start : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> _Body:
        """Read a vector of which the length has `size` bytes."""
        return _Body(self.take(self.number(size)))

    def extensions(self) -> dict[int, _Body]:
        found = {}
        # A ServerHello of TLS 1.2 may end before them.
        block = self.vector(2) if self else self
        while block:
            kind = block.number(2)
            found[kind] = block.vector(2)
        return found


def _described(message: bytes, *, tls13: bool) -> tuple[str, str]:
    """Return the name of a handshake message and what it says, whatever it holds."""
    kind = message[0]
    name, describe = _MESSAGES.get(kind, (f"Message {kind}", None))
    if kind == _SERVER_HELLO and message[6:38] == _RETRY_RANDOM:
        name = "HelloRetryRequest"
    if describe is None:
        return name, ""
    said: list[str] = []
    try:
        said.extend(describe(_Body(message, 4, tls13=tls13)))
    except (ValueError, CertificateError) as malformed:
        # What came before it is kept.
        said.append(f"malformed: {malformed}")
    return name, _printable("; ".join(said))


def _client_hello(message: _Body) -> Iterator[str]:
    hello = ClientHello.parse(message.data)
    yield hello.server_name or "no server name"
    if hello.alpn_protocols:
        yield f"ALPN {_some(hello.alpn_protocols)}"
    yield _some(hello.version_names)
    if hello.key_share_groups:
        yield f"key share {_some(names(hello.key_share_groups, SUPPORTED_GROUPS))}"
    if hello.session_ticket:
        yield "session ticket"
    if hello.psk_identities:
        yield _count(len(hello.psk_identities), "pre-shared key")
    if hello.early_data:
        yield "early data"


def _server_hello(message: _Body) -> Iterator[str]:
    version, suite, extensions = _server_choice(message)
    yield VERSIONS.get(version) or f"version 0x{version:04x}"
    yield CIPHER_SUITES.get(suite) or f"cipher suite 0x{suite:04x}"
    if _KEY_SHARE in extensions:
        group = extensions[_KEY_SHARE].number(2)
        yield SUPPORTED_GROUPS.get(group) or f"group 0x{group:04x}"
    if _PRE_SHARED_KEY in extensions:
        yield "pre-shared key accepted"
    yield from _alpn(extensions)


def _server_choice(message: _Body) -> tuple[int, int, dict[int, _Body]]:
    """Return the version, the cipher suite and the extensions of a ServerHello."""
    version = message.number(2)
    message.take(32)
    message.vector(1)
    suite = message.number(2)
    message.take(1)
    extensions = message.extensions()
    if _SUPPORTED_VERSIONS in extensions:
        version = extensions[_SUPPORTED_VERSIONS].number(2)
    return version, suite, extensions


def _selected_version(server_hello: bytes) -> int | None:
    try:
        return _server_choice(_Body(server_hello, 4))[0]
    except ValueError:
        return None


def _encrypted_extensions(message: _Body) -> Iterator[str]:
    extensions = message.extensions()
    yield from _alpn(extensions)
    if _EARLY_DATA in extensions:
        yield "early data accepted"


def _alpn(extensions: dict[int, _Body]) -> Iterator[str]:
    if _ALPN in extensions:
        protocol = extensions[_ALPN].vector(2).vector(1)
        yield f"ALPN {protocol.data.decode('latin-1')}"


def _certificate(message: _Body) -> Iterator[str]:
    if message.tls13:
        message.vector(1)
    ders, stapled = [], False
    chain = message.vector(3)
    while chain:
        ders.append(chain.vector(3).data)
        if message.tls13:
            stapled |= _STATUS_REQUEST in chain.extensions()
    if not ders:
        yield "no certificate"
        return
    yield _count(len(ders), "certificate")
    yield _owner(Certificate(ders[0]))
    if stapled:
        yield "OCSP response"


def _owner(certificate: Certificate) -> str:
    subject = certificate.subject
    owner = subject.get("CN") or next((value for _, value in certificate.alt_names), None)
    owner = owner or next(iter(subject.values()), "") or "no name"
    return owner if isinstance(owner, str) else owner[0]


def _certificate_request(message: _Body) -> Iterator[str]:
    message.vector(1)
    if message.tls13:
        authorities = message.extensions().get(_CERTIFICATE_AUTHORITIES, _Body(b"\0\0")).vector(2)
    else:
        message.vector(2)
        authorities = message.vector(2)
    count = 0
    while authorities:
        authorities.vector(2)
        count += 1
    yield _count(count, "acceptable authority", "acceptable authorities") if count else "any authority"


def _server_key_exchange(message: _Body) -> Iterator[str]:
    # Only the cipher suite tells how to read it; where it is not a named curve this is a size.
    if message.number(1) == 3 and (group := SUPPORTED_GROUPS.get(message.number(2))):
        yield group


def _certificate_verify(message: _Body) -> Iterator[str]:
    # Before TLS 1.2 there is a size instead.
    scheme = SIGNATURE_SCHEMES.get(message.number(2))
    if scheme is not None:
        yield scheme


def _certificate_status(message: _Body) -> Iterator[str]:
    message.number(1)
    yield f"OCSP response, {_count(message.number(3), 'byte')}"


def _compressed_certificate(message: _Body) -> Iterator[str]:
    algorithm = message.number(2)
    yield _COMPRESSIONS.get(algorithm) or f"algorithm {algorithm}"
    yield _count(message.number(3), "byte")


def _new_session_ticket(message: _Body) -> Iterator[str]:
    yield f"lifetime {message.number(4):,} s"
    if message.tls13:
        message.take(4)
        message.vector(1)
        message.vector(2)
        if _EARLY_DATA in message.extensions():
            yield "early data allowed"


def _key_update(message: _Body) -> Iterator[str]:
    yield "update requested" if message.number(1) else "update not requested"


_MESSAGES: Final[dict[int, tuple[str, Callable[[_Body], Iterator[str]] | None]]] = {
    0: ("HelloRequest", None),
    1: ("ClientHello", _client_hello),
    2: ("ServerHello", _server_hello),
    4: ("NewSessionTicket", _new_session_ticket),
    5: ("EndOfEarlyData", None),
    8: ("EncryptedExtensions", _encrypted_extensions),
    11: ("Certificate", _certificate),
    12: ("ServerKeyExchange", _server_key_exchange),
    13: ("CertificateRequest", _certificate_request),
    14: ("ServerHelloDone", None),
    15: ("CertificateVerify", _certificate_verify),
    16: ("ClientKeyExchange", None),
    20: ("Finished", None),
    22: ("CertificateStatus", _certificate_status),
    24: ("KeyUpdate", _key_update),
    25: ("CompressedCertificate", _compressed_certificate),
}
"""The handshake messages of TLS: the name of each, and what yields in words what one says."""


def _some(texts: Sequence[str]) -> str:
    """Return the first of many texts."""
    more = len(texts) - 4
    return ", ".join(texts[:4]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _alert(number: int) -> Alert | int:
    try:
        return Alert(number)
    except ValueError:
        return number


def _name_of(alert: Alert | int) -> str:
    return alert.name if isinstance(alert, Alert) else f"alert {alert}"


# Text


def _printable(text: str) -> str:
    """Return a text from a peer as one line of what is only text to a terminal, and not too long."""
    shown = "".join(
        [letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: _LONGEST_TEXT + 1]]
    )
    return shown if len(shown) <= _LONGEST_TEXT else f"{shown[: _LONGEST_TEXT - 1]}…"


def _duration(seconds: float) -> str:
    return f"{1000 * seconds:,.3f} ms" if seconds < 100 else f"{seconds:,.1f} s"


def _time_column(seconds: float) -> str:
    return f"{_duration(seconds):>13}"


def _marked(message: Message) -> str:
    """Return a message's name as in the figures of RFC 8446: what is encrypted is in braces."""
    return f"{{{message.name}}}" if message.encrypted else message.name


def _message_text(message: Message) -> str:
    said = message.description and f": {message.description}"
    return f"{_marked(message)}, {_count(message.size, 'byte')}{said}"


def _wait_text(wait: Wait) -> str:
    return f"{_printable(wait.callback)} took {_duration(wait.end - wait.start)}"


def _failure_text(failure: Failure) -> str:
    return f"failed: {failure.error}: {failure.text}"


def _data_text(data: ApplicationData) -> str:
    directions = (
        (data.bytes_sent, data.records_sent, "sent"),
        (data.bytes_received, data.records_received, "received"),
    )
    passed = [
        f"{_count(size, 'byte')} in {_count(records, 'record')} {how}"
        for size, records, how in directions
        if records
    ]
    return f"application data: {', '.join(passed)}"


def _flight_text(flight: _OpenFlight) -> str:
    within = f" within {_duration(flight.end - flight.start)}" if flight.records > 1 else ""
    return f"{_count(flight.bytes, 'byte')} in {_count(flight.records, 'record')}{within}"


def _outcome(trace: HandshakeTrace) -> str:
    if trace.info is not None:
        return "resumed" if trace.info.session_reused else "full"
    return "in progress" if trace.failure is None else "failed"


def _facts(trace: HandshakeTrace) -> Iterator[str]:
    """Yield a handshake in a few words."""
    if trace.protocol is not None:
        yield trace.protocol
    if trace.info is not None:
        yield trace.info.cipher.standard_name
    outcome = _outcome(trace)
    yield f"{outcome} handshake" if outcome in ("full", "resumed") else f"handshake {outcome}"
    yield from _measures(trace)


def _measures(trace: HandshakeTrace) -> Iterator[str]:
    if trace.round_trips:
        yield _count(trace.round_trips, "round trip")
    if trace.duration is not None:
        yield _duration(trace.duration)


def _details(trace: HandshakeTrace) -> Iterator[str]:
    """Yield what was negotiated besides."""
    if trace.info is not None and trace.info.server_name is not None:
        yield f"server name {_printable(trace.info.server_name)}"
    if trace.info is not None and trace.info.alpn_protocol is not None:
        yield f"ALPN {_printable(trace.info.alpn_protocol)}"


def _peer(trace: HandshakeTrace) -> Role:
    return "server" if trace.role == "client" else "client"


def _spent(trace: HandshakeTrace) -> tuple[tuple[str, float], ...]:
    """Return where the time went, in words and seconds."""
    spent = trace.time_spent
    return (f"{_peer(trace)} and network", spent.peer), ("callbacks", spent.callbacks), ("here", spent.here)


def _columns(text: str) -> int:
    """Return how many columns of a terminal a text takes at most."""
    return len(text) if text.isascii() else sum(2 if _is_wide(letter) else 1 for letter in text)


def _is_wide(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) in ("W", "F")


def _wrapped(text: str, width: float, measure: Callable[[str], float]) -> list[str]:
    """Return a text as lines; words that are too long are broken."""
    lines = [""]
    for word in text.split(" "):
        line = f"{lines[-1]} {word}" if lines[-1] else word
        if measure(line) <= width:
            lines[-1] = line
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if measure(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


# The diagram

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


class _Diagram:
    """A trace as a picture in SVG, drawn from top to bottom.

    The client's lane is on the left.  The lane of the side that saw it all has the times beside it, and the
    colours of where the time went.
    """

    def __init__(self, trace: HandshakeTrace, story: Iterable[_Event]) -> None:
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
        label = html.escape(", ".join(_facts(self._trace)))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {math.ceil(self._y)}" role="img"'
            f' aria-label="{label}" style="width:100%;max-width:{_WIDTH}px;height:auto;display:block"'
            f' font-family="{_FONT}" font-size="12" fill="currentColor">{"".join(self._shapes)}</svg>'
        )

    # Around the lanes

    def _heading(self) -> None:
        badge, colour = _BADGES[_outcome(self._trace)]
        width = _pixels(badge, 12) + 26
        self._rectangle(0, 2, width, 24, colour, radius=12)
        self._text(width / 2, 18.5, badge, weight=700, fill="#fff", anchor="middle")
        info = self._trace.info
        title = [fact for fact in (self._trace.protocol, info and info.cipher.standard_name) if fact]
        self._text(width + 12, 20, _DOT.join(title), size=16, weight=600)
        self._text(0, 46, _DOT.join([*_measures(self._trace), *_details(self._trace)]), size=13, most=_WIDTH)
        self._y = 58

    def _time_bar(self) -> None:
        spent = [
            (what, time, colour)
            for (what, time), colour in zip(_spent(self._trace), (_GREY, _AMBER, _BLUE), strict=True)
            if time > 0
        ]
        whole = sum(time for _, time, _ in spent)
        bar, label = 0.0, 0.0
        for what, time, colour in spent:
            width = _WIDTH * time / whole
            self._rectangle(bar, self._y, max(width - 2, 1), 8, colour, radius=2)
            bar += width
            text = f"{what} {_duration(time)}, {time / whole:.0%}"
            self._rectangle(label, self._y + 17, 9, 9, colour, radius=2)
            self._text(label + 14, self._y + 25.5, text, size=11.5, dim=True)
            label += _pixels(text, 11.5) + 32
        self._y += 42 if spent else 0

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

    def _event(self, event: _Event) -> None:
        if isinstance(event, _OpenFlight):
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

    def _flight(self, flight: _OpenFlight) -> None:
        colour = "" if flight.after_handshake else _BLUE if flight.sent else _GREY
        self._gap(flight.start, colour)
        begin = self._y
        self._y += 32
        self._text(_WIDTH / 2, self._y - 8, _flight_text(flight), weight=600, anchor="middle")
        self._when(flight.start)
        self._arrow(rightwards=flight.sent == (self._trace.role == "client"))
        self._y += 7
        for is_band, rows in itertools.groupby(flight.messages.with_gap(), _is_encrypted):
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
        lines = _wrapped(message.description, _BARS_AT - _TEXTS_AT - 10, lambda text: _pixels(text, 12))
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
        self._beside(begin, _wait_text(wait), weight=600)
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
        lines = _wrapped(failure.text, _RIGHT - _LEFT - 24, lambda text: _pixels(text, 12))
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
        self._text(_WIDTH / 2, self._y - 8, _data_text(data), dim=True, anchor="middle")
        self._arrow(rightwards=True, leftwards=True, dashed=True)

    def _left_out(self, count: int) -> None:
        self._text(_NAMES_AT, self._y + 15, f"… {_count(count, 'message')} left out …", dim=True)
        self._y += _ROW

    def _gap(self, until: float, colour: str) -> None:
        """Go down by the time in which nothing was to be seen."""
        begin, span = self._y, max(0.0, until - self._time)
        self._y += _height(span)
        if colour and span > _NOTEWORTHY * (self._trace.duration or math.inf):
            self._y = max(self._y, begin + _ROW)
            whom = "here" if colour == _BLUE else f"for the {_peer(self._trace)}"
            self._beside(begin, f"{_duration(span)} {whom}", dim=True)
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
        self._text(self._here - 12 * self._inwards, y, _duration(time), size=11.5, dim=True, anchor=anchor)

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
            shown = f"{_wrapped(text, most - size, lambda part: _pixels(part, size))[0]}…"
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
    return size * sum(1.0 if _is_wide(letter) else _ADVANCES.get(letter, 0.62) for letter in text)


_ADVANCES: Final = dict.fromkeys("iIjlft.,:;'|!()[]{} -", 0.38) | dict.fromkeys("mwMWABCDGHNOQRSTUV_@%", 0.7)
"""How wide letters are that are narrower or wider than most, in parts of the size."""


Trace = HandshakeTrace | type[HandshakeTrace] | Callable[[str, Any], object] | bool | None
"""``trace``: a `HandshakeTrace`, the class for a new one, a function that is called with each line and the
stream, or True for lines on the standard error."""


def handshake_trace(trace: Trace, engine: weakref.ref[Any]) -> HandshakeTrace:
    """Return what is told of a connection's messages.

    Args:
        trace: The option.
        engine: Whose connection it is.

    Raises:
        ConfigurationTypeError: it is nothing of that kind.
    """
    if isinstance(trace, HandshakeTrace):
        return trace
    if trace is HandshakeTrace:
        return HandshakeTrace()
    if trace is True:
        return HandshakeTrace(on_line=_to_standard_error)
    if not callable(trace):
        raise ConfigurationTypeError(
            f"trace must be a HandshakeTrace, the class, a function or a bool. Received {trace!r}",
            option="trace",
        )
    return HandshakeTrace(on_line=functools.partial(_to_function, trace, engine))


def _to_standard_error(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _to_function(function: Callable[[str, Any], object], engine: weakref.ref[Any], line: str) -> None:
    owner = engine()
    function(line, None if owner is None else owner.stream)
