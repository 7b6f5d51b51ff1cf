"""HandshakeTrace: what happened on the wire in one connection's handshake, and when.

It is told of each record and message as OpenSSL's message callback is, and keeps of them what may be shown to
anybody: names, sizes, times and what is negotiated, but no keys, no tickets and no application data.  Its
memory is bounded, whatever the peer sends.
"""

from __future__ import annotations

import dataclasses
import html
import math
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

from .alerts import Alert
from .certificates import Certificate
from .client_hello import ClientHello
from .errors import CertificateError, ConfigurationError, TLSError
from .iana import CIPHER_SUITES, SIGNATURE_SCHEMES, SUPPORTED_GROUPS, VERSIONS, names
from .info import ConnectionInfo

Role = Literal["client", "server"]

# What OpenSSL's message callback calls content types (SSL_CTX_set_msg_callback(3)).
_CHANGE_CIPHER_SPEC: Final = 20
_ALERT: Final = 21
_HANDSHAKE: Final = 22
_APPLICATION_DATA: Final = 23
_HEARTBEAT: Final = 24
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
_FIRST_ENTRIES, _LAST_ENTRIES = 24, 16
_FIRST_MESSAGES, _LAST_MESSAGES = 24, 8
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
        rest = memoryview(records)
        message = b""
        while len(rest) > 5 and rest[0] in (_HANDSHAKE, _ALERT):
            content_type, end = rest[0], 5 + int.from_bytes(rest[3:5])
            self.record(sent, 0, _RECORD_HEADER, bytes(rest[:5]), now)
            message += rest[5:end]
            rest = rest[end:]
            size = 2 if content_type == _ALERT else 4 + int.from_bytes(message[1:4])
            if len(message) >= size:
                self.record(sent, 0, content_type, message[:size], now)
                break
        self._told_already = not sent

    def record(self, sent: bool, version: int, content_type: int, data: bytes, now: float) -> None:  # noqa: ARG002 - the version is not yet the negotiated one when it matters
        """Take what OpenSSL's message callback is given (SSL_CTX_set_msg_callback(3)), and the time."""
        if self._told_already:
            if not sent:
                self._told_already = content_type != _HANDSHAKE
                return
            self._told_already = False
        now = self._since_start(now)
        direction = self._outgoing if sent else self._incoming
        if content_type == _RECORD_HEADER and len(data) == 5:
            self._begin_record(direction, data[0], 5 + int.from_bytes(data[3:]), now)
        elif content_type == _INNER_CONTENT_TYPE:
            self._settle(direction, is_application_data=data[:1] == bytes((_APPLICATION_DATA,)))
        elif content_type == _HANDSHAKE:
            self._take_handshake_message(direction, data, now)
        elif content_type == _ALERT and len(data) == 2:
            level = _ALERT_LEVELS.get(data[0], f"level {data[0]}")
            alert = _alert(data[1])
            self._add(direction, "Alert", 2, f"{level} {_name_of(alert)}", now, alert)

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
        return sum(flight.sent == (self.role == "server") for flight in self._handshake_flights())

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
        return _Diagram(self, list(self._story())).svg()

    def _since_start(self, now: float) -> float:
        return now - (self.started_at or 0.0)

    def _open_flights(self) -> list[_OpenFlight]:
        return [entry for entry in self._entries if isinstance(entry, _OpenFlight)]

    def _handshake_flights(self) -> list[_OpenFlight]:
        return [flight for flight in self._open_flights() if not flight.after_handshake]

    # Records and messages

    def _begin_record(self, direction: _Direction, content_type: int, size: int, now: float) -> None:
        self._settle(direction, is_application_data=False)
        is_opaque = content_type == _APPLICATION_DATA
        direction.encrypted = is_opaque or direction.cipher_changed
        if is_opaque:
            direction.unsettled = (size, now)
            if self._version is not None and self._version < _TLS13:
                self._settle(direction, is_application_data=True)
        elif content_type in (_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _HEARTBEAT):
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
        if len(message) < 4:
            return
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
            if isinstance(entry, int):
                yield self._left_out
                continue
            if info is not None and isinstance(entry, _OpenFlight) and entry.after_handshake:
                yield info
                info = None
            yield entry
        if info is not None:
            yield info
        data = self.application_data
        if data.records_sent or data.records_received:
            yield data
        if self.failure is not None:
            yield self.failure

    def _timeline(self, width: int) -> Iterator[str]:
        def lines(start: str, text: str) -> Iterator[str]:
            for line in _wrapped(text, width - len(start), _columns):
                yield f"{start}{line}"
                start = " " * len(start)

        yield from lines("", ", ".join(_facts(self)))
        yield from lines("", f"seen by the {self.role}" + "".join([f", {fact}" for fact in _details(self)]))
        spent = ", ".join([f"{what} {_duration(time)}" for what, time in _spent(self)])
        yield from lines("", f"time: {spent}; {{}} is encrypted")
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
    yield f"OCSP response, {message.number(3):,} bytes"


def _compressed_certificate(message: _Body) -> Iterator[str]:
    algorithm = message.number(2)
    yield _COMPRESSIONS.get(algorithm) or f"algorithm {algorithm}"
    yield f"{message.number(3):,} bytes"


def _new_session_ticket(message: _Body) -> Iterator[str]:
    yield f"lifetime {message.number(4)} s"
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
    return (
        f"application data: {_count(data.bytes_sent, 'byte')} in {_count(data.records_sent, 'record')} sent, "
        f"{_count(data.bytes_received, 'byte')} in {_count(data.records_received, 'record')} received"
    )


def _flight_text(flight: _OpenFlight) -> str:
    duration = _duration(flight.end - flight.start)
    within = "" if duration == _duration(0) else f", {duration}"
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
    yield _count(trace.round_trips, "round trip")
    if trace.duration is not None:
        yield _duration(trace.duration)


def _details(trace: HandshakeTrace) -> Iterator[str]:
    """Yield what was negotiated besides."""
    if trace.info is not None and trace.info.server_name is not None:
        yield f"server name {_printable(trace.info.server_name)}"
    if trace.info is not None and trace.info.alpn_protocol is not None:
        yield f"ALPN {_printable(trace.info.alpn_protocol)}"


def _spent(trace: HandshakeTrace) -> tuple[tuple[str, float], ...]:
    """Return where the time went, in words and seconds."""
    spent = trace.time_spent
    peer = "server" if trace.role == "client" else "client"
    return (f"{peer} and network", spent.peer), ("callbacks", spent.callbacks), ("here", spent.here)


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

_WIDTH: Final = 880
_LANES: Final = (100, 780)
_INSIDE: Final = (118, 762)
_NAMES_AT: Final = 144
_SAYS_AT: Final = 300
_BARS_AT: Final = 626
_BAR_WIDTH: Final = 64
_ROW: Final = 22
_LINE: Final = 15
# Text and lines have the page's own colour; these are readable on white and on black.
_BLUE, _GREEN, _AMBER, _RED, _GREY = "#3b82f6", "#059669", "#d97706", "#dc2626", "#7c8798"
_BADGES: Final = {
    "full": ("FULL", "#2563eb"),
    "resumed": ("RESUMED", "#047857"),
    "failed": ("FAILED", "#b91c1c"),
    "in progress": ("IN PROGRESS", "#6b7280"),
}
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


class _Diagram:
    """A trace as a picture, drawn from top to bottom in SVG.

    The client's lane is on the left and the server's on the right.  The lane of the side that saw it is
    coloured by where the time went, and has the times next to it.
    """

    def __init__(self, trace: HandshakeTrace, story: Sequence[_Event]) -> None:
        self._trace = trace
        self._parts: list[str] = []
        self._y = 0.0
        # Up to when time has been accounted for.
        self._time = 0.0
        self._local, self._remote = _LANES if trace.role == "client" else _LANES[::-1]
        self._inwards = 1 if trace.role == "client" else -1
        sizes = [message.size for event in story if isinstance(event, _OpenFlight) for message in event.messages]
        self._largest = max(sizes, default=1)
        self._heading()
        lanes_at = len(self._parts)
        top = self._y
        for number, event in enumerate(story):
            self._event(event, is_last=number == len(story) - 1)
        self._y += 16
        lanes = [
            f'<path d="M{x} {top:.0f}V{self._y:.0f}" stroke="currentColor" stroke-opacity=".35" stroke-width="1.5"/>'
            for x in _LANES
        ]
        self._parts[lanes_at:lanes_at] = lanes
        self._legend()

    def svg(self) -> str:
        label = html.escape(", ".join(_facts(self._trace)), quote=True)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {math.ceil(self._y)}" '
            f'width="100%" style="max-width: {_WIDTH}px; height: auto; display: block" role="img" '
            f'aria-label="{label}" font-family="{_FONT}" font-size="12" fill="currentColor" '
            f'stroke="none">{"".join(self._parts)}</svg>'
        )

    # Parts of the picture

    def _heading(self) -> None:
        badge, colour = _BADGES[_outcome(self._trace)]
        badge_width = 22 + 8.2 * len(badge)
        self._rectangle(0, 4, badge_width, 24, colour, radius=12)
        self._text(badge_width / 2, 20.5, badge, size=11.5, weight=700, fill="#fff", anchor="middle", spacing=0.6)
        info = self._trace.info
        title = [fact for fact in (self._trace.protocol, info and info.cipher.standard_name) if fact]
        self._text(badge_width + 14, 22, " \u00b7 ".join(title) or "TLS", size=16, weight=600, most=640)
        facts = [_count(self._trace.round_trips, "round trip")]
        if self._trace.duration is not None:
            facts.append(_duration(self._trace.duration))
        self._text(0, 48, " \u00b7 ".join([*facts, *_details(self._trace)]), dim=True, most=_WIDTH)
        self._y = 58
        self._time_bar()
        self._y += 12
        for x, name in zip(_LANES, ("Client", "Server"), strict=True):
            here = x == self._local
            self._rectangle(x - 58, self._y, 116, 30, "currentColor", radius=6, opacity=0.12 if here else 0.05)
            self._text(x, self._y + 19.5, name + (" (here)" if here else ""), weight=600, anchor="middle", size=13)
        self._y += 30

    def _time_bar(self) -> None:
        spent = [
            (what, time, colour)
            for (what, time), colour in zip(_spent(self._trace), (_GREY, _AMBER, _BLUE), strict=True)
        ]
        whole = sum(time for _, time, _ in spent)
        if whole <= 0:
            return
        x = 0.0
        for what, time, colour in spent:
            width = _WIDTH * time / whole
            if width > 0:
                self._rectangle(x, self._y, max(width - 1.5, 1), 9, colour, radius=2)
            x += width
        x = 0.0
        for what, time, colour in spent:
            if time <= 0:
                continue
            label = f"{what} {_duration(time)} ({time / whole:.0%})"
            self._rectangle(x, self._y + 18, 9, 9, colour, radius=2)
            self._text(x + 15, self._y + 26.5, label, dim=True, size=11.5)
            x += 15 + _pixels(label, 11.5) + 24
        self._y += 38

    def _event(self, event: _Event, *, is_last: bool) -> None:
        if isinstance(event, _OpenFlight):
            self._draw_flight(event)
        elif isinstance(event, Wait):
            self._wait(event)
        elif isinstance(event, ConnectionInfo):
            self._secure()
        elif isinstance(event, Failure):
            self._failure(event)
        elif isinstance(event, ApplicationData):
            self._application_data(event)
        else:
            self._note(f"{_count(event, 'message')} left out")

    def _gap(self, until: float, colour: str) -> None:
        """Go down the lane by how long nothing was to be seen; ten times as long is a little further."""
        span = max(0.0, until - self._time)
        height = 12 + 13 * math.log10(1 + 1000 * span)
        self._lane(height, colour if span else "")
        self._time = max(self._time, until)
        self._y += height

    def _lane(self, height: float, colour: str) -> None:
        if colour:
            self._rectangle(self._local - 3, self._y, 6, height, colour)

    def _draw_flight(self, flight: _OpenFlight) -> None:
        colour = "" if flight.after_handshake else _BLUE if flight.sent else _GREY
        self._gap(flight.start, colour)
        begin, self._y = self._y, self._y + 22
        start, end = (self._local, self._remote) if flight.sent else (self._remote, self._local)
        direction = 1 if end > start else -1
        tip = end - 5 * direction if end == self._local else end
        y = self._y
        self._parts.append(
            f'<path d="M{start + 4 * direction} {y:.1f}H{tip - 9 * direction}" stroke="currentColor" stroke-width="1.75" fill="none"/>'
            f'<path d="M{tip} {y:.1f}l{-11 * direction} -5.5v11z"/>'
        )
        self._text((start + end) / 2, y - 7, _flight_text(flight), weight=600, anchor="middle")
        self._time_label(y, flight.start)
        self._y += 8
        self._messages(flight)
        self._y += 4
        height = self._y - begin
        self._y = begin
        self._lane_behind(height, colour)
        self._y = begin + height
        self._time = max(self._time, flight.end)
