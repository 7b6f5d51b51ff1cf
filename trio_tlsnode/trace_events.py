"""The events of a trace: flights and their messages, waits, application data, and a failure.

The text of each is one line, harmless to a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .alerts import Alert
from .info import ConnectionInfo
from .shown_text import counted, duration, printable

FIRST_MESSAGES: Final = 16
"""How many messages at the beginning of a flight are kept, if there are too many."""


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

    @property
    def marked_name(self) -> str:
        """The name as in the figures of RFC 8446: what is encrypted is in braces."""
        return f"{{{self.name}}}" if self.encrypted else self.name

    def __str__(self) -> str:
        said = self.description and f": {self.description}"
        return f"{self.marked_name}, {counted(self.size, 'byte')}{said}"


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

    def rows(self) -> Iterator[Message | int]:
        """Yield the messages, and where some were left out their number."""
        yield from self.messages[:FIRST_MESSAGES]
        if self.left_out:
            yield self.left_out
        yield from self.messages[FIRST_MESSAGES:]

    def __str__(self) -> str:
        within = f" within {duration(self.end - self.start)}" if self.records > 1 else ""
        return f"{counted(self.bytes, 'byte')} in {counted(self.records, 'record')}{within}"


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

    def __str__(self) -> str:
        return f"{printable(self.callback)} took {duration(self.end - self.start)}"


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

    def __str__(self) -> str:
        directions = (
            (self.bytes_sent, self.records_sent, "sent"),
            (self.bytes_received, self.records_received, "received"),
        )
        passed = [
            f"{counted(size, 'byte')} in {counted(records, 'record')} {how}"
            for size, records, how in directions
            if records
        ]
        return f"application data: {', '.join(passed) or 'none'}"


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

    def __str__(self) -> str:
        return f"failed: {self.error}: {self.text}"


Event = Flight | Wait | ConnectionInfo | ApplicationData | Failure | int
"""What is told of a connection: what was negotiated stands for the end of the handshake, and a number for
messages that were left out."""
