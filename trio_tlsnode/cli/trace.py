"""``tlsnode trace``: the timeline of a handshake, and of the one that resumes its session."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Final

import click
import trio
from rich.console import Console
from rich.text import Text

from .. import ConnectionFailed, HandshakeTrace, StartTLSProtocol, TLSStream
from .credential_options import FILE, context_options, credential_options
from .destination import Destination, port_of
from .failure import ExitStatus, exit_status, run, tell
from .reach import client_options, destination_argument, reach
from .report import JSONOutput, json_option
from .terminal import terminal

# How long the server may take to say goodbye, or to give a session, in seconds.
_PATIENCE: Final = 1.0
# What a trace needs at least.
_LEAST_WIDTH: Final = 60
_STYLES: Final = (("client --> server", "cyan"), ("client <-- server", "green"), ("  failed: ", "bold red"))


@click.command(short_help="Show the timeline of a handshake.")
@destination_argument
@credential_options
@client_options
@click.option("--resume", is_flag=True, help="Connect again, and show how the session is resumed.")
@click.option("--keylog", type=FILE, metavar="FILE", help="Append the secrets to a file, for Wireshark.")
@json_option
def trace(
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
    resume: bool,
    keylog: Path | None,
    as_json: bool,
) -> None:
    """Show the timeline of a handshake: each flight and message, its size, when it came, and what it says.

    It is shown whether the handshake succeeds or fails.  Nothing is sent but a goodbye.

    The port is 443 unless another one is named; with --starttls, the protocol's own (SMTP's is 587).

    The exit status is 0 if the handshake was done, 1 if the server's certificate is not to be trusted or is
    for another name, 2 for wrong usage or a file that cannot be used, 3 if there was no connection or it
    broke, 4 if the server speaks no TLS, refused us or has nothing in common with us, 5 if it took too long.
    """
    json = JSONOutput("trace", sys.stdout) if as_json else None
    options = {
        **context_options(cert, key, passphrase_file, ca),
        "starttls": starttls,
        "server_name": servername,
        "alpn_protocols": alpn,
        "min_version": min_version,
        "max_version": max_version,
        "reject_unauthorized": not insecure_skip_verification,
        "keylog": keylog,
    }
    connect = partial(reach, destination[0], port_of(destination, starttls), timeout=timeout, **options)
    traces, error = run(partial(observe, connect, resume=resume), json=json)
    status = ExitStatus.OK if error is None else exit_status(error)
    if json is not None:
        report = {"traces": [observed.to_dict() for observed in traces]}
        json.print(report=report, error=error, exit_status=status)
    else:
        show(terminal(), traces)
        if error is not None:
            tell(error)
    raise click.exceptions.Exit(status or 0)


async def observe(
    connect: Callable[..., Awaitable[TLSStream]], *, resume: bool = False
) -> tuple[list[HandshakeTrace], Exception | None]:
    """Do a handshake, and perhaps another one that resumes its session.

    Args:
        connect: Makes a connection; takes the options ``trace`` and ``session``.
        resume: Whether to do two.

    Returns:
        What was seen, and what it failed of, if it did.

    Raises:
        TLSError: there was not even a connection.
        OSError: likewise.
    """
    traces: list[HandshakeTrace] = []
    session: bytes | None = None
    for _ in range(2 if resume else 1):
        trace = HandshakeTrace()
        try:
            async with await connect(trace=trace, session=session) as stream:
                with trio.move_on_after(_PATIENCE):
                    await stream.send_eof()
                    async for _ in stream:
                        pass
                session = stream.session
        except (ConnectionFailed, trio.TooSlowError) as error:
            if trace.started_at is None:
                raise
            return [*traces, trace], error
        traces.append(trace)
    return traces, None


def show(console: Console, traces: Sequence[HandshakeTrace]) -> None:
    """Print timelines.

    Args:
        console: Where to.
        traces: What was seen.
    """
    for index, trace in enumerate(traces):
        if index:
            console.print()
        for number, line in enumerate(trace.text(max(console.width, _LEAST_WIDTH)).splitlines()):
            style = next((style for mark, style in _STYLES if mark in line), "bold" if number == 0 else "")
            console.print(Text(line, style=style), soft_wrap=True)
