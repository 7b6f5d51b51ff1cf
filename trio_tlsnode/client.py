"""connect: a TLS client's way to a stream whose handshake is done."""

from __future__ import annotations

import errno
import functools
import os
import socket
from collections.abc import Callable
from typing import Any, Final, Unpack, cast

import trio

from .context import ContextOptions, SecureContext, shared_context
from .errors import ConfigurationError, ConfigurationTypeError, ConnectError
from .option_names import refuse_unknown
from .stream import ClientStreamOptions, TLSStream, check_transport, client_parts


class ClientOptions(ContextOptions, ClientStreamOptions, total=False):
    """The options of a client: those of `SecureContext` and those of `ClientStreamOptions`."""


_OPTIONS: Final = ClientOptions.__annotations__.keys()
_CONTEXT_OPTIONS: Final = frozenset(ContextOptions.__annotations__)


async def connect(
    host: str = "localhost",
    port: int = 443,
    *,
    context: SecureContext | None = None,
    **options: Unpack[ClientOptions],
) -> TLSStream:
    """Connect to a TLS server over TCP and do the handshake (Node's ``tls.connect``).

    Bound the whole by a cancel scope; the handshake has a time-out of its own.

    Args:
        host: The name or IP address; of several addresses, the first that answers (RFC 8305).
        port: The port, 0 to 65535.
        context: What the connection is made from.  Without it, the options of `SecureContext` may be given
            directly; equal options share one context.
        **options: As `ClientStreamOptions` and `SecureContext` explain them.

    Returns:
        A stream whose handshake is done.  Use it in ``async with``.

    Raises:
        ConfigurationError: an option cannot be used, or options of a context are given beside one.
        ConnectError: no connection could be made; its `code` says why ("ENOTFOUND", "ECONNREFUSED" ...).
        HandshakeTimeout: the handshake was not done within `handshake_timeout` seconds.
        CertificateError: the server's certificate was refused; `IdentityError` if it is for another name.
        ConnectionFailed: the handshake failed otherwise.

    Cancelling closes what was opened.
    """
    _check_host(host)
    _check_port(port)
    over = _prepared(context, host, options)
    try:
        transport = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise _connect_error(error, host, port) from error
    except UnicodeError as error:
        raise ConfigurationError(f"{host!r} is no host name: {error}", option="host") from error
    return await _handshake(transport, over)


async def connect_unix(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    host: str | None = None,
    context: SecureContext | None = None,
    **options: Unpack[ClientOptions],
) -> TLSStream:
    """Connect to a TLS server over a Unix socket and do the handshake.

    Args:
        path: Where the socket is.
        host: The name that is sent as SNI and verified; without it, "localhost" is verified.
        context: As for `connect`.
        **options: As for `connect`.

    Returns:
        A stream whose handshake is done.

    Raises:
        ConnectError: no connection could be made ("ENOENT", "ECONNREFUSED").
        TLSError: as for `connect`.

    Cancelling closes what was opened.
    """
    over = _prepared(context, host, options)
    try:
        transport = await trio.open_unix_socket(os.fspath(path))
    except OSError as error:
        raise _connect_error(error, os.fsdecode(path), None) from error
    return await _handshake(transport, over)


async def wrap_client(
    stream: trio.abc.Stream,
    *,
    host: str | None = None,
    context: SecureContext | None = None,
    **options: Unpack[ClientOptions],
) -> TLSStream:
    """Do a client's handshake over a stream that is connected already: TLS in TLS, StartTLS, tests.

    Args:
        stream: The transport, which becomes the TLS stream's own: it is closed with it, and if the handshake
            fails or is cancelled.
        host: The name or IP address that is sent as SNI and verified; without it, "localhost" is verified.
        context: As for `connect`.
        **options: As for `connect`.

    Returns:
        A stream whose handshake is done.

    Raises:
        TLSError: as for `connect`, but no `ConnectError`.

    Cancelling closes `stream`.
    """
    check_transport(stream)
    try:
        over = _prepared(context, host, options)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return await _handshake(stream, over)


_Over = Callable[[trio.abc.Stream], TLSStream]


def _prepared(context: SecureContext | None, host: str | None, options: ClientOptions) -> _Over:
    """Return what makes the stream over a transport: options are refused before there is one."""
    context, rest = _split(context, options)
    engine, timeouts, confirm = client_parts(context, host, rest)
    return functools.partial(
        TLSStream._of_client,  # noqa: SLF001 - a second constructor
        engine=engine,
        timeouts=timeouts,
        confirm=confirm,
    )


async def _handshake(transport: trio.abc.Stream, over: _Over) -> TLSStream:
    owner: trio.abc.AsyncResource = transport
    try:
        owner = stream = over(transport)
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(owner)
        raise
    return stream


def _split(context: SecureContext | None, options: ClientOptions) -> tuple[SecureContext, dict[str, Any]]:
    """Return the context and the options that are not the context's."""
    refuse_unknown(options, _OPTIONS, of="a client")
    for_context = {name: value for name, value in options.items() if name in _CONTEXT_OPTIONS}
    if context is None:
        context = shared_context(cast("ContextOptions", for_context))
    elif for_context:
        raise ConfigurationError(
            f"with context=, its options belong into the context: {', '.join(sorted(for_context))}",
            option=next(iter(for_context)),
        )
    return context, {name: value for name, value in options.items() if name not in for_context}


def _check_host(host: str) -> None:
    if not isinstance(host, str):
        raise ConfigurationTypeError(f"host must be a str. Received {host!r}", option="host")


def _check_port(port: int) -> None:
    if isinstance(port, bool) or not isinstance(port, int):
        raise ConfigurationTypeError(f"port must be an int. Received {port!r}", option="port")
    if not 0 <= port <= 65535:
        raise ConfigurationError(
            f"port must be >= 0 and < 65536. Received {port}", code="ERR_SOCKET_BAD_PORT", option="port"
        )


def _connect_error(error: OSError, host: str, port: int | None) -> ConnectError:
    """Return why there is no connection; of several addresses that failed, the first one's reason."""
    first = error
    while first.errno is None and first.__cause__ is not None:
        # Trio gathers what each address gave in a group, as the cause of one OSError.
        cause = first.__cause__
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if not isinstance(cause, OSError):
            break
        first = cause
    if isinstance(first, socket.gaierror):
        code = "EAI_AGAIN" if first.errno == socket.EAI_AGAIN else "ENOTFOUND"
        return ConnectError(
            f"the name cannot be resolved ({first.strerror})", code=code, host=host, port=port
        )
    if first.errno is None:
        # The resolver knew the name, and no address for it.
        return ConnectError(str(first), code="ENOTFOUND", host=host, port=port)
    code = errno.errorcode.get(first.errno, "ECONNREFUSED")
    # Trio puts the address into the text, where a ConnectError has it already.
    reason = os.strerror(first.errno) if first.errno else str(first)
    return ConnectError(reason, code=code, host=host, port=port)
