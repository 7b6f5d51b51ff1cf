"""What ``tlsnode serve --http`` answers with, and as much of HTTP/1.1 as that takes (RFC 9112)."""

from __future__ import annotations

import dataclasses
import re
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Final

import trio

from .. import TLSStream
from .description import connection_rows
from .http_folder import Found, look_up
from .terminal import printable

# A request's line and header fields have room in it; no more of a client's bytes is ever kept.
_MAX_HEAD: Final = 16 * 1024
# How long a client may be silent, and take for a request, in seconds.
_PATIENCE: Final = 30.0
_METHODS: Final = ("GET", "HEAD")
# How much of a file is read at once.
_PIECE: Final = 256 * 1024

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rb"(%b) ([!-~]+) HTTP/(\d)\.(\d)" % _TOKEN)
# Lines may end without CR, as when a person types them, and empty ones may precede a request (2.2).
_LINE_END: Final = re.compile(rb"\r?\n")
_END: Final = re.compile(rb"\r?\n\r?\n")
_EMPTY_LINES: Final = re.compile(rb"(?:\r?\n)+")
_FIELD: Final = re.compile(rb"(%b):([\t -~\x80-\xff]*)" % _TOKEN)
_LENGTH: Final = re.compile(r"[0-9]+")


class BadRequest(Exception):  # noqa: N818 - what HTTP calls it
    """A request that cannot be answered with the page.

    Attributes:
        status: What to answer instead.
    """

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """The head of a request.

    Attributes:
        method: "GET".
        target: "/".
        keep_alive: Whether the client may send another request on the same connection.
    """

    method: str
    target: str
    keep_alive: bool


def parse_request(head: bytes) -> Request:
    """Return the request of a head, which is all that stands before the empty line.

    Raises:
        BadRequest: it is no HTTP/1 request.
    """
    line, *field_lines = _LINE_END.split(head)
    method, target, minor = _parse_request_line(line)
    fields: dict[str, list[str]] = {}
    for field_line in field_lines:
        field = _FIELD.fullmatch(field_line)
        if field is None:
            raise BadRequest(HTTPStatus.BAD_REQUEST)
        name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1").strip(" \t")
        fields.setdefault(name, []).append(value)
    if len(fields.get("host", ())) != 1 and (minor > 0 or "host" in fields):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    lengths = fields.get("content-length", ["0"])
    if not all(map(_LENGTH.fullmatch, lengths)):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    options = {option.strip().lower() for option in ",".join(fields.get("connection", ())).split(",")}
    # No body is read, so what follows a request that has one is not the next request.
    has_body = "transfer-encoding" in fields or lengths != ["0"]
    persistent = "close" not in options and (minor > 0 or "keep-alive" in options)
    return Request(method, target, keep_alive=persistent and not has_body)


def _parse_request_line(line: bytes) -> tuple[str, str, int]:
    """Return method, target and minor version."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    if match[3] != b"1":
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    return match[1].decode("ascii"), match[2].decode("ascii"), int(match[4])


async def serve_page(stream: TLSStream, folder: Path | None = None) -> None:
    """Answer the requests of a connection.

    Args:
        stream: The connection.
        folder: Whose files to answer with; None is a page that shows what the connection negotiated.

    Raises:
        ConnectionFailed: the connection failed.
    """
    received = bytearray()
    keep_alive = True
    while keep_alive:
        head = None
        try:
            with trio.move_on_after(_PATIENCE) as patience:
                head = await _receive_head(stream, received)
            if patience.cancelled_caught and received:
                raise BadRequest(HTTPStatus.REQUEST_TIMEOUT)
            if head is None:
                return
            request = parse_request(head)
            if request.method not in _METHODS:
                raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED)
        except BadRequest as refused:
            found = _made(refused.status, f"{refused.status.value} {refused.status.phrase}\n")
            assert isinstance(found.content, bytes)
            await stream.send_all(_head(found, keep_alive=False) + found.content)
            return
        keep_alive = request.keep_alive
        if folder is None:
            found = _made(HTTPStatus.OK, _page(stream, request))
        else:
            found = await trio.to_thread.run_sync(look_up, folder, request.target)
        await stream.send_all(_head(found, keep_alive=keep_alive))
        if request.method != "HEAD" and not await _send_content(stream, found):
            return


async def _receive_head(stream: TLSStream, received: bytearray) -> bytes | None:
    """Take the next request's head off what was received; None at the end of the connection.

    Raises:
        BadRequest: what was received does not begin like a request, or is too long for one.
    """
    while True:
        if empty_lines := _EMPTY_LINES.match(received):
            del received[: empty_lines.end()]
        end = _END.search(received)
        if (len(received) if end is None else end.start()) > _MAX_HEAD:
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if end is not None:
            head = bytes(received[: end.start()])
            del received[: end.end()]
            return head
        line, line_end, _ = received.partition(b"\n")
        if line_end:
            # Who speaks something else is told at once, as an empty line may never come.
            _parse_request_line(bytes(line).removesuffix(b"\r"))
        data = await stream.receive_some(_MAX_HEAD)
        if not data:
            return None
        received += data


def _page(stream: TLSStream, request: Request) -> str:
    rows = [
        ("target", request.target),
        ("client", str(stream.remote_address)),
        *connection_rows(stream.info),
    ]
    lines = [f"{label:12} {printable(value)}" for label, value in rows]
    return "\n".join(["This page came over TLS.", "", *lines, ""])


def _made(status: HTTPStatus, text: str) -> Found:
    content = text.encode()
    return Found(status, "text/plain; charset=utf-8", content, len(content))


def _head(found: Found, *, keep_alive: bool) -> bytes:
    fields = {
        "Date": formatdate(usegmt=True),
        "Content-Type": found.content_type,
        "Content-Length": str(found.size),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Connection": "keep-alive" if keep_alive else "close",
    }
    if found.status == HTTPStatus.METHOD_NOT_ALLOWED:
        fields["Allow"] = ", ".join(_METHODS)
    if found.location is not None:
        fields["Location"] = found.location
    head = [
        f"HTTP/1.1 {found.status.value} {found.status.phrase}",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    return "\r\n".join([*head, "", ""]).encode("ascii")


async def _send_content(stream: TLSStream, found: Found) -> bool:
    """Send what was found; return whether it was as long as was promised."""
    if isinstance(found.content, bytes):
        await stream.send_all(found.content)
        return True
    left = found.size
    try:
        async with await trio.open_file(found.content, "rb") as file:
            while left and (data := await file.read(min(left, _PIECE))):
                await stream.send_all(data)
                left -= len(data)
    except OSError:
        return False
    return left == 0
