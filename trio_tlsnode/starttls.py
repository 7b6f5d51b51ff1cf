"""StartTLS: how a client asks a server that begins in plaintext to go on with TLS.

What was read behind the server's last word in plaintext is handed on, to be refused by the handshake: it is
where somebody on the way could put commands of his own (CVE-2011-0411, CVE-2021-23222).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal, get_args

import trio

from .client_hello import looks_like
from .errors import ConfigurationError, ConnectionFailed, ConnectionLost, NotTLS, ProtocolError
from .shown_text import printable

StartTLSProtocol = Literal["smtp", "imap", "pop3", "postgres"]
"""A protocol that can change to TLS."""

STARTTLS_PROTOCOLS: Final[tuple[StartTLSProtocol, ...]] = get_args(StartTLSProtocol)
"""The protocols that can change to TLS."""

REFUSED: Final = "ERR_TLS_STARTTLS_REFUSED"
"""The code of the `NotTLS` for a server that will not change to TLS."""

# RFC 5321 allows 512 bytes and RFC 1939 as many; IMAP's capabilities may be longer.
_LONGEST_LINE: Final = 8192
# More lines in an answer no server has in earnest.
_MOST_LINES: Final = 100
# PostgreSQL's SSLRequest: its length, and 1234.5679.
_SSL_REQUEST: Final = bytes.fromhex("00000008 04d2162f")


async def request_starttls(stream: trio.abc.Stream, protocol: StartTLSProtocol) -> bytes:
    """Ask a server to go on with TLS, in the protocol that it speaks: SMTP, IMAP, POP3 or PostgreSQL.

    ``wrap_client(stream, initial=await request_starttls(stream, "smtp"), host=...)`` does the rest.

    Args:
        stream: A connection on which nothing has passed yet.
        protocol: "smtp" (RFC 3207), "imap" (RFC 9051), "pop3" (RFC 2595) or "postgres".

    Returns:
        What was read behind the server's last word, for ``initial``: normally nothing.

    Raises:
        NotTLS: the server does not offer TLS, or refuses it (``ERR_TLS_STARTTLS_REFUSED``).
        ProtocolError: it does not speak this protocol.
        ConnectionLost: the connection ended or broke.
        ConfigurationError: there is no such protocol.

    Cancelling leaves the stream in the middle of an answer.
    """
    check_starttls(protocol)
    conversation = _Conversation(stream, protocol)
    try:
        await _REQUESTS[protocol](conversation)
    except ConnectionFailed:
        raise
    except trio.BrokenResourceError as error:
        raise conversation.lost("the connection broke before the server agreed to TLS") from error
    return conversation.ahead


def check_starttls(protocol: StartTLSProtocol | None) -> None:
    """Return if this is a protocol that can change to TLS, or None.

    Args:
        protocol: The protocol.

    Raises:
        ConfigurationError: it is something else.
    """
    if protocol is not None and protocol not in _REQUESTS:
        raise ConfigurationError(
            f"{protocol!r} cannot change to TLS here; there are {', '.join(STARTTLS_PROTOCOLS)}",
            option="starttls",
        )


class _Conversation:
    """The plaintext part of a connection, line by line.

    Attributes:
        stream: The connection.
        ahead: What was read beyond the last line.
    """

    def __init__(self, stream: trio.abc.Stream, protocol: StartTLSProtocol) -> None:
        self.stream = stream
        self.ahead = b""
        self._protocol = protocol.upper() if protocol != "postgres" else "PostgreSQL"

    async def line(self) -> bytes:
        """Return the next line, without its end."""
        while b"\n" not in self.ahead:
            if len(self.ahead) > _LONGEST_LINE:
                raise self.no_such_protocol(self.ahead)
            self.ahead += await self.receive()
        line, _, self.ahead = self.ahead.partition(b"\n")
        return line.removesuffix(b"\r")

    async def receive(self, most: int = _LONGEST_LINE) -> bytes:
        data = await self.stream.receive_some(most)
        if not data:
            raise self.lost("the connection ended before the server agreed to TLS")
        return bytes(data)

    async def say(self, line: bytes) -> None:
        await self.stream.send_all(line + b"\r\n")

    def lost(self, reason: str) -> ConnectionLost:
        error = ConnectionLost(reason)
        error.phase = "hello"
        return error

    def refused(self, reason: str, answer: bytes) -> NotTLS:
        """Return the error for a server that will not change to TLS."""
        what = f"{'an' if self._protocol[0] in 'SI' else 'a'} {self._protocol} server without TLS"
        error = NotTLS(reason, code=REFUSED, looks_like=what, first_bytes=answer[:32])
        error.phase = "hello"
        return error

    def no_such_protocol(self, answer: bytes) -> ProtocolError:
        """Return the error for a server that speaks something else."""
        found = looks_like(answer)
        known = "" if found in (None, "no TLS record") else f" ({found})"
        shown = printable(answer[:80].decode("latin-1"))
        error = ProtocolError(f"the server does not speak {self._protocol}{known}: it said {shown!r}")
        error.phase = "hello"
        return error


async def _request_smtp(server: _Conversation) -> None:
    await _smtp_answer(server, b"220")
    await server.say(b"EHLO localhost")
    offers = await _smtp_answer(server, b"250")
    if b"STARTTLS" not in {line[4:].strip().upper() for line in offers}:
        raise server.refused("the server does not offer STARTTLS", offers[0])
    await server.say(b"STARTTLS")
    await _smtp_answer(server, b"220", refusable=True)


async def _smtp_answer(server: _Conversation, status: bytes, *, refusable: bool = False) -> list[bytes]:
    """Return the lines of an answer, which must have this status."""
    lines = [await server.line()]
    while lines[-1][:3].isdigit() and lines[-1][3:4] == b"-" and len(lines) < _MOST_LINES:
        lines.append(await server.line())
    last = lines[-1]
    if last[:3] == status and last[3:4] in (b" ", b""):
        return lines
    # Any other status is still SMTP's.
    if refusable or (last[:3].isdigit() and last[:1] in b"45" and last[3:4] in (b" ", b"")):
        raise server.refused(f"the server refuses: {printable(last.decode('latin-1'))}", last)
    raise server.no_such_protocol(lines[0])


async def _request_imap(server: _Conversation) -> None:
    greeting = await server.line()
    word = greeting[:5].upper()
    if word in (b"* BYE", b"* PRE"):
        raise server.refused(f"the server refuses: {printable(greeting.decode('latin-1'))}", greeting)
    if word[:4] != b"* OK":
        raise server.no_such_protocol(greeting)
    await server.say(b"a STARTTLS")
    for _ in range(_MOST_LINES):
        answer = await server.line()
        if answer[:5].upper() == b"A OK ":
            return
        if answer[:2] != b"* ":
            break
    raise server.refused(f"the server refuses: {printable(answer.decode('latin-1'))}", answer)


async def _request_pop3(server: _Conversation) -> None:
    greeting = await server.line()
    if greeting[:3] != b"+OK":
        raise server.no_such_protocol(greeting)
    await server.say(b"STLS")
    answer = await server.line()
    if answer[:3] != b"+OK":
        raise server.refused(f"the server refuses: {printable(answer.decode('latin-1'))}", answer)


async def _request_postgres(server: _Conversation) -> None:
    await server.stream.send_all(_SSL_REQUEST)
    # One byte and no more: what comes behind it is TLS, or is refused by the handshake.
    answer = await server.receive(1)
    if answer == b"N":
        raise server.refused("the server does not offer TLS", answer)
    if answer != b"S":
        raise server.no_such_protocol(answer)


_REQUESTS: Final[dict[StartTLSProtocol, Callable[[_Conversation], Awaitable[None]]]] = {
    "smtp": _request_smtp,
    "imap": _request_imap,
    "pop3": _request_pop3,
    "postgres": _request_postgres,
}
