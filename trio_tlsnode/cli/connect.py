"""``tlsnode connect``: tells what a connection negotiated, and passes standard input and output on."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from pathlib import Path
from typing import IO, Any, Final

import click
import trio
from rich.console import Console

from .. import ConnectionFailed, TLSStream
from .. import connect as tls_connect
from .credential_options import context_options, credential_options
from .description import connection_rows, problem_rows, summary
from .failure import run
from .terminal import print_line, print_rows, terminal

_HTTPS_PORT: Final = 443
_PIECE: Final = 64 * 1024


def parse_destination(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST``, ``HOST:PORT``, ``[ADDRESS]:PORT``, ``[ADDRESS]`` or an IPv6 address.

    Raises:
        click.BadParameter: it is none of these.
    """
    with contextlib.suppress(ValueError):
        ipaddress.IPv6Address(text)
        return text, _HTTPS_PORT
    match = re.fullmatch(r"(?:\[([^][/]+)\]|([^][/:]+))(?::(.*))?", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no HOST[:PORT]")
    host = match[1] or match[2]
    port = str(_HTTPS_PORT) if match[3] is None else match[3]
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{port!r} is no port: a number from 1 to 65535 is expected")
    return host, int(port)


@click.command(short_help="Connect to a TLS server, and tell what was negotiated.")
@click.argument("destination", metavar="HOST[:PORT]", type=parse_destination)
@credential_options
@click.option("--servername", metavar="NAME", help="The name to send and to verify; by default HOST.")
@click.option("--alpn", multiple=True, metavar="NAME", help="Offer an application protocol; may be repeated.")
@click.option("--min-version", metavar="VERSION", help="The oldest protocol version, such as TLSv1.2.")
@click.option("--max-version", metavar="VERSION", help="The newest protocol version, such as TLSv1.3.")
@click.option(
    "--insecure-skip-verification",
    is_flag=True,
    help="Go on if the server is not who it should be, and say so.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long it may take until the connection is secure.",
)
@click.option("--brief", is_flag=True, help="Tell what was negotiated in one line.")
def connect(
    destination: tuple[str, int],
    cert: Path | None,
    key: Path | None,
    passphrase_file: IO[bytes] | None,
    ca: Path | None,
    servername: str | None,
    alpn: tuple[str, ...],
    min_version: str | None,
    max_version: str | None,
    insecure_skip_verification: bool,
    timeout: float,
    brief: bool,
) -> None:
    """Connect to a TLS server, and pass standard input and output through the connection.

    First, what was negotiated is told on the standard error output.  At the end of the standard input the
    server is told so, and what it still sends is received.  The port is 443 unless another one is named.

    The exit status is 0 if the server has ended the connection, 1 if its certificate is not to be trusted or
    is for another name, 2 for wrong usage or a file that cannot be used, 3 if there was no connection or it
    broke, 4 if the server speaks no TLS, refused us or has nothing in common with us, 5 if it took too long.
    """
    run(
        converse,
        destination,
        {
            **context_options(cert, key, passphrase_file, ca),
            "server_name": servername,
            "alpn_protocols": alpn,
            "min_version": min_version,
            "max_version": max_version,
            "reject_unauthorized": not insecure_skip_verification,
        },
        timeout,
        brief,
    )


async def converse(
    destination: tuple[str, int],
    options: dict[str, Any],
    timeout: float,
    brief: bool,
    source: int = 0,
    sink: int = 1,
) -> None:
    """Connect, tell what was negotiated, and pass data both ways until the server's end.

    Args:
        destination: Host and port.
        options: What `trio_tlsnode.connect` takes.
        timeout: How long connecting and the handshake may take together, in seconds.
        brief: Whether to tell in one line.
        source: The descriptor of the file to send.
        sink: The descriptor of the file to write to.

    Raises:
        TLSError: the connection was not made, or failed.
        trio.TooSlowError: it was not made in time.
        OSError: a file cannot be read or written.
    """
    host, port = destination
    try:
        with trio.fail_after(timeout):
            stream = await tls_connect(host, port, handshake_timeout=timeout, **options)
    except trio.TooSlowError:
        raise trio.TooSlowError(f"no secure connection to {host}:{port} in {timeout:g} seconds") from None
    async with stream:
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
        print_line(console, (f"The server is NOT verified: {error.reason} [{error.code}]", "bold red"))
        print_rows(console, problem_rows(error))
    elif not brief:
        print_line(console, ("The server is verified.", "green"))
