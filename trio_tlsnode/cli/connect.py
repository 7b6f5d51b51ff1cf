"""``tlsnode connect``: tells what a connection negotiated, and passes standard input and output on."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import click
import trio
from rich.console import Console

from .. import ConnectionFailed, StartTLSProtocol, TLSStream
from .credential_options import context_options, credential_options, in_options
from .description import connection_report, connection_rows, problem_rows, summary
from .destination import Destination, port_of
from .failure import run
from .reach import client_options, destination_argument, reach
from .report import JSONOutput, json_option
from .terminal import print_line, print_rows, print_text, terminal

_PIECE: Final = 64 * 1024


@click.command(short_help="Connect to a TLS server, and tell what was negotiated.")
@destination_argument
@credential_options
@client_options
@click.option("--brief", is_flag=True, help="Tell what was negotiated in one line.")
@json_option
def connect(
    destination: Destination,
    cert: Path | None,
    key: Path | None,
    passphrase_file: IO[bytes] | None,
    ca: Path | None,
    servername: str | None,
    starttls: StartTLSProtocol | None,
    alpn: tuple[str, ...],
    min_version: str | None,
    max_version: str | None,
    insecure_skip_verification: bool,
    timeout: float,
    brief: bool,
    as_json: bool,
) -> None:
    """Connect to a TLS server, and pass standard input and output through the connection.

    First, what was negotiated is told on the standard error output.  At the end of the standard input the
    server is told so, and what it still sends is received.

    The port is 443 unless another one is named; with --starttls, the protocol's own (SMTP's is 587).

    The exit status is 0 if the server has ended the connection, 1 if its certificate is not to be trusted or
    is for another name, 2 for wrong usage or a file that cannot be used, 3 if there was no connection or it
    broke, 4 if the server speaks no TLS, refused us or has nothing in common with us, 5 if it took too long.
    """
    json = JSONOutput("connect", sys.stderr, indent=None) if as_json else None
    options = {
        **context_options(cert, key, passphrase_file, ca),
        "starttls": starttls,
        "server_name": servername,
        "alpn_protocols": alpn,
        "min_version": min_version,
        "max_version": max_version,
        "reject_unauthorized": not insecure_skip_verification,
    }
    place = (destination[0], port_of(destination, starttls))
    run(partial(converse, place, options, timeout, brief, json=json), json=json)


async def converse(
    destination: tuple[str, int],
    options: dict[str, Any],
    timeout: float,
    brief: bool,
    source: int = 0,
    sink: int = 1,
    *,
    json: JSONOutput | None = None,
) -> None:
    """Connect, tell what was negotiated, and pass data both ways until the server's end.

    Args:
        destination: Host and port.
        options: What `reach` takes.
        timeout: How long connecting and the handshake may take together, in seconds.
        brief: Whether to tell in one line.
        source: The descriptor of the file to send.
        sink: The descriptor of the file to write to.
        json: Where to tell it as JSON, if not in words.

    Raises:
        TLSError: the connection was not made, or failed.
        trio.TooSlowError: it was not made in time.
        OSError: a file cannot be read or written.
    """
    async with await reach(*destination, timeout=timeout, **options) as stream:
        if json is not None:
            json.print(report=connection_report(stream))
        else:
            _tell(terminal(stderr=True), stream, brief=brief)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send, stream, source)
            await _receive(stream, sink)
            nursery.cancel_scope.cancel()


async def _send(stream: TLSStream, source: int) -> None:
    try:
        while data := await trio.to_thread.run_sync(os.read, source, _PIECE, abandon_on_cancel=True):
            await stream.send_all(data)
        await stream.send_eof()
    except (ConnectionFailed, trio.ClosedResourceError):
        # Why, the peer may have said: it is found by receiving.
        pass


async def _receive(stream: TLSStream, sink: int) -> None:
    async for data in stream:
        try:
            await trio.to_thread.run_sync(_write_all, sink, data, abandon_on_cancel=True)
        except BrokenPipeError:
            # Who reads our output has enough.
            return


def _write_all(sink: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sink, view) :]


def _tell(console: Console, stream: TLSStream, *, brief: bool) -> None:
    if brief:
        print_line(console, summary(stream.info))
    else:
        print_line(console, (f"Connected to {stream.remote_address}", "bold"))
        print_rows(console, connection_rows(stream.info))
    error = stream.authorization_error
    if error is not None:
        print_text(console, f"The server is NOT verified: {error.reason} [{error.code}]", "bold red")
        print_rows(console, problem_rows(error))
        print_rows(console, [("what to do", in_options(error.hint))] if error.hint else [])
    elif not brief:
        print_line(console, ("The server is verified.", "green"))
