"""``tlsnode trace``: the timeline of a handshake, and of the one that resumes its session."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import click
import trio
from rich.console import Console
from rich.text import Text

from .. import HandshakeTrace, StartTLSProtocol, TLSError
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
    traces: list[HandshakeTrace] = []
    error: Exception | None = None
    try:
        connect = partial(
            reach, destination[0], port_of(destination, starttls), timeout=timeout, **options
        )
        run(partial(observe, connect, traces, resume=resume), reraise=True)
    except (TLSError, trio.TooSlowError, OSError) as failure:
        error = failure
    status = ExitStatus.OK if error is None else exit_status(error)
    seen = [item for item in traces if item.started_at is not None]
    if json is not None:
        json.print(report={"traces": [item.to_dict() for item in seen]}, error=error, exit_status=status)
    else:
        show(terminal(), seen)
        if error is not None:
            tell(error)
    raise click.exceptions.Exit(status or 0)
