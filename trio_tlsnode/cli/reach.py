"""reach: how commands that are clients get a secure connection, and the options for that."""

from __future__ import annotations

import errno
import math
import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click
import trio

from .. import ConnectError, StartTLSProtocol, TLSStream, connect, request_starttls, wrap_client
from .destination import split_destination

Command = TypeVar("Command", bound=Callable[..., Any])

starttls_option = click.option(
    "--starttls",
    type=click.Choice(get_args(StartTLSProtocol)),
    help="Begin in plaintext, and ask for TLS in this protocol.",
)
destination_argument = click.argument("destination", metavar="HOST[:PORT]", type=split_destination)


def client_options(command: Command) -> Command:
    """Give a command the options of a client, apart from its certificate and whom it trusts."""
    for option in (
        click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=30,
            show_default=True,
            metavar="SECONDS",
            help="How long it may take until the connection is secure.",
        ),
        click.option(
            "--insecure-skip-verification",
            is_flag=True,
            help="Go on if the server is not who it should be, and say so.",
        ),
        click.option(
            "--max-version", metavar="VERSION", help="The newest protocol version, such as TLSv1.3."
        ),
        click.option(
            "--min-version", metavar="VERSION", help="The oldest protocol version, such as TLSv1.2."
        ),
        click.option(
            "--alpn", multiple=True, metavar="NAME", help="Offer an application protocol; may be repeated."
        ),
        click.option("--servername", metavar="NAME", help="The name to send and to verify; by default HOST."),
        starttls_option,
    ):
        command = option(command)
    return command


async def reach(
    host: str,
    port: int,
    *,
    starttls: StartTLSProtocol | None = None,
    timeout: float = math.inf,
    **options: Any,
) -> TLSStream:
    """Return a connection to a server whose handshake is done.

    Args:
        host: The server's name or address.
        port: Its port.
        starttls: The protocol in which it is asked for TLS, if it begins in plaintext.
        timeout: How long all of it may take, in seconds.
        options: What `trio_tlsnode.connect` takes.

    Raises:
        TLSError: the connection was not made.
        trio.TooSlowError: it was not made in time.
    """
    try:
        with trio.fail_after(timeout):
            if starttls is None:
                return await connect(host, port, handshake_timeout=timeout, **options)
            transport = await _dial(host, port)
            try:
                initial = await request_starttls(transport, starttls)
            except BaseException:
                await trio.aclose_forcefully(transport)
                raise
            return await wrap_client(
                transport, host=host, initial=initial, handshake_timeout=timeout, **options
            )
    except trio.TooSlowError:
        raise trio.TooSlowError(f"no secure connection to {host}:{port} in {timeout:g} seconds") from None


async def _dial(host: str, port: int) -> trio.SocketStream:
    """Connect without TLS.

    Raises:
        ConnectError: there is no connection.
    """
    try:
        return await trio.open_tcp_stream(host, port)
    except socket.gaierror as error:
        reason = f"the name cannot be resolved ({error.strerror})"
        raise ConnectError(reason, code="ENOTFOUND", host=host, port=port) from error
    except OSError as error:
        # Trio's own says only that it has tried; of several addresses, the first tells why.
        cause = error.__cause__
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        number = getattr(cause, "errno", None) or error.errno or errno.ECONNREFUSED
        code = errno.errorcode.get(number, "ECONNREFUSED")
        raise ConnectError(os.strerror(number), code=code, host=host, port=port) from error
