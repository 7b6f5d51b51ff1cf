"""connect: a TLS client's way to a stream whose handshake is done."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Any, Final, NamedTuple, Unpack, cast

import trio

from ._links import link_for
from .client_options import ClientStreamOptions, client_parts
from .connect_errors import connect_error
from .context import ContextOptions, SecureContext, shared_context
from .dialing import DEFAULT_DELAY, Dialer, Family
from .engine import Engine
from .errors import ConfigurationError, ConfigurationTypeError
from .option_names import refuse_unknown
from .peer_sessions import PeerSessions
from .sessions import SessionCache
from .stream import TLSStream, check_initial, check_transport
from .tcp_options import TCPOptions, check_port
from .timeouts import Timeouts


class ClientOptions(ContextOptions, ClientStreamOptions, total=False):
    """The options of a client: those of `SecureContext`, those of `ClientStreamOptions`, and a cache.

    Attributes:
        session_cache: Where sessions are kept, to be resumed by the next connection to the same peer under
            the same trust.  `connect` has one for each run of Trio by default; None does without.  The peer
            is the one at that host and port, or path, and for `wrap_client` at the address that a socket
            leads to; of other transports only the name tells.
    """

    session_cache: SessionCache | None


_UNSET: Final = object()
_OPTIONS: Final = ClientOptions.__annotations__.keys()
# Those that `connect` names itself are never among its others, but may have been meant.
_CONNECT_OPTIONS: Final = _OPTIONS | {
    *("family", "local_address", "local_port", "no_delay", "keep_alive", "happy_eyeballs_delay")
}
_CONTEXT_OPTIONS: Final = frozenset(ContextOptions.__annotations__)


async def connect(
    host: str = "localhost",
    port: int = 443,
    *,
    context: SecureContext | None = None,
    family: Family | None = None,
    local_address: str | None = None,
    local_port: int = 0,
    no_delay: bool = True,
    keep_alive: bool | float = False,
    happy_eyeballs_delay: float | None = DEFAULT_DELAY,
    **options: Unpack[ClientOptions],
) -> TLSStream:
    """Connect to a TLS server over TCP and do the handshake (Node's ``tls.connect``).

    Bound the whole by a cancel scope; the handshake has a time-out of its own.  Names are resolved by
    `trio.socket.getaddrinfo`; another way (Node's ``lookup``) is a `trio.abc.HostnameResolver`, given to
    `trio.socket.set_custom_hostname_resolver`.

    Args:
        host: The name or IP address; of several addresses, the first that answers (RFC 8305).
        port: The port, 0 to 65535.
        context: What the connection is made from.  Without it, the options of `SecureContext` may be given
            directly; equal options share one context.
        family: The only address family to use, "IPv4" or "IPv6" (or 4 and 6, as Node has it); None is both.
        local_address: The IP address to connect from; None leaves it to the system.
        local_port: The port to connect from; 0 leaves it to the system.
        no_delay: Send small pieces of data at once, instead of waiting for more (``TCP_NODELAY``).
        keep_alive: Probe a connection on which nothing happens (``SO_KEEPALIVE``); a number is after how many
            seconds, rounded up, at most 32767.
        happy_eyeballs_delay: How long an attempt to connect is alone before the next address is tried as
            well, in seconds; None waits until it has failed.
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
    refuse_unknown(options, _CONNECT_OPTIONS, of="a client")
    _check_host(host)
    check_port("port", port)
    dialer = Dialer(
        family=family, local_address=local_address, local_port=local_port, delay=happy_eyeballs_delay
    )
    tcp_options = TCPOptions(no_delay=no_delay, keep_alive=keep_alive)
    prepared = _prepared(context, host, options, place=(host.lower(), port), cached=True)
    transport = await dialer.dial(host, port)
    tcp_options.apply(transport.socket)
    return await _handshake(transport, prepared)


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
    prepared = _prepared(context, host, options, place=os.fspath(path), cached=False)
    try:
        transport = await trio.open_unix_socket(os.fspath(path))
    except OSError as error:
        raise connect_error(error, os.fsdecode(path), None) from error
    return await _handshake(transport, prepared)


async def wrap_client(
    stream: trio.abc.Stream,
    *,
    host: str | None = None,
    context: SecureContext | None = None,
    initial: bytes | bytearray | memoryview = b"",
    **options: Unpack[ClientOptions],
) -> TLSStream:
    """Do a client's handshake over a stream that is connected already: TLS in TLS, StartTLS, tests.

    Args:
        stream: The transport, which becomes the TLS stream's own: it is closed with it, and if the handshake
            fails or is cancelled.
        host: The name or IP address that is sent as SNI and verified; without it, "localhost" is verified.
        context: As for `connect`.
        initial: What was read from `stream` behind the server's last word in plaintext.  Nothing belongs
            there: a server does not speak first in TLS.  Give it, rather than throw it away, so that what
            somebody has put there is refused.
        **options: As for `connect`.

    Returns:
        A stream whose handshake is done.

    Raises:
        NotTLS: `initial` does not begin as TLS does; nothing is sent then.
        TLSError: as for `connect`, but no `ConnectError`.

    Cancelling closes `stream`.
    """
    check_transport(stream)
    try:
        prepared = _prepared(context, host, options, place=_place_of(stream, options), cached=False)
        already_read = check_initial(initial)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return await _handshake(stream, prepared, already_read)


# Of each run of Trio its own: it belongs to one thread and has one clock.
_sessions_of_run: Final[trio.lowlevel.RunVar[SessionCache]] = trio.lowlevel.RunVar("trio_tlsnode sessions")


class _Prepared(NamedTuple):
    """What a client's options give, before there is a transport, so that bad ones are refused by then."""

    engine: Engine
    timeouts: Timeouts
    confirm: bool
    sessions: PeerSessions | None


def _prepared(
    context: SecureContext | None, host: str | None, options: ClientOptions, *, place: Hashable, cached: bool
) -> _Prepared:
    """Return what the stream is made of.

    Args:
        context: As for `connect`.
        host: As for `connect`.
        options: As for `connect`.
        place: What tells the peer from all others, beside its name.
        cached: Whether sessions are kept if no option says so.
    """
    context, rest = _split(context, options)
    cache = rest.pop("session_cache", _UNSET)
    engine, timeouts, confirm = client_parts(context, host, rest)
    own_session = rest.get("session") is not None or rest.get("psk") is not None
    if cache is _UNSET:
        cache = _session_cache_of_this_run() if cached and not own_session else None
    elif cache is not None:
        if not isinstance(cache, SessionCache):
            raise ConfigurationTypeError(
                f"session_cache must be a SessionCache or None. Received {cache!r}", option="session_cache"
            )
        if own_session:
            raise ConfigurationError(
                "session_cache does not go with session, nor with psk, whose sessions nobody can verify",
                option="session_cache",
            )
    sessions = None if cache is None else PeerSessions(cache, engine, place)
    return _Prepared(engine, timeouts, confirm, sessions)


def _place_of(stream: trio.abc.Stream, options: ClientOptions) -> Hashable:
    """Return where a transport leads to, if it can tell: there may be several servers of one name."""
    return None if options.get("session_cache") is None else link_for(stream).remote_address


def _session_cache_of_this_run() -> SessionCache:
    try:
        return _sessions_of_run.get()
    except LookupError:
        cache = SessionCache()
        _sessions_of_run.set(cache)
        return cache


async def _handshake(transport: trio.abc.Stream, prepared: _Prepared, initial: bytes = b"") -> TLSStream:
    owner: trio.abc.AsyncResource = transport
    sessions = prepared.sessions
    try:
        owner = stream = TLSStream._of_client(transport, *prepared, initial=initial)  # noqa: SLF001 - a second constructor
        if sessions is not None:
            # Only now: a ticket that is taken is gone, whether there is a connection or not.
            sessions.offer(prepared.engine)
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(owner)
        raise
    if sessions is not None:
        sessions.settle(stream.info)
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
