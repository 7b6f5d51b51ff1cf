"""ProxyHandler: a server's handler that passes each connection on to a plain service behind it.

It is the TLS in front of a service that has none.  All that is TLS is the `TLSServer`'s: certificates by
name, application protocols, client certificates, hot reload, closing with grace.  The handler chooses the
service, decides whether this client may use it, and passes bytes on until both directions have ended.

What goes wrong on one side ends one connection, and the other side is not told that all has arrived: without
close_notify a client, by a reset a service.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

import trio

from .addresses import Address
from .certificates import Certificate
from .client_rule import ClientRule
from .connect_errors import connect_error
from .dialing import Dialer
from .errors import (
    CertificateError,
    ConfigurationError,
    ConfigurationTypeError,
    ConnectError,
    ConnectionFailed,
)
from .identity import to_ascii
from .option_values import check_seconds
from .proxy_protocol import ProxyProtocol, proxy_header
from .stream import TLSStream
from .tcp_options import check_port

Backend: TypeAlias = "tuple[str, int] | os.PathLike[str]"
"""Where a service is: a host and a port, or the path of a Unix socket."""

ProxyOutcome = Literal[
    "done", "no route", "not allowed", "backend unreachable", "backend lost", "client lost", "cancelled"
]
"""How a connection through a proxy ended: "done" is by both sides, "cancelled" by closing the server."""

_PIECE: Final = 64 * 1024


@dataclasses.dataclass(frozen=True)
class ProxyRoute:
    """Where connections go, and which.

    Attributes:
        backend: The service: (host, port), or the path of a Unix socket.
        names: The server names that clients send, with ``*`` within a label (``*.app.test``); empty is any
            name, and none at all.
        alpn_protocols: The application protocols that were negotiated; empty is any, and none at all.  The
            server has to offer them, too.
        allow: Rules for the client's verified certificate, one of which must let it in; empty lets everybody
            in who has come so far.

    Raises:
        ConfigurationError: a name cannot be one, or there can be no such service.
    """

    backend: Backend
    names: Sequence[str] = ()
    alpn_protocols: Sequence[str] = ()
    allow: Sequence[ClientRule] = ()

    def __post_init__(self) -> None:
        """Refuse names that are none, and services that can be nowhere."""
        if isinstance(self.names, str) or isinstance(self.alpn_protocols, str):
            raise ConfigurationError("names and alpn_protocols are lists", option="routes")
        _ = self._patterns
        _check_backend(self.backend)

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(map(_pattern, self.names))

    def matches(self, server_name: str | None, alpn_protocol: str | None) -> bool:
        """Whether a connection goes this way.

        Args:
            server_name: The name that its client has sent.
            alpn_protocol: The application protocol that was negotiated.
        """
        if self.alpn_protocols and alpn_protocol not in self.alpn_protocols:
            return False
        if not self.names:
            return True
        name = (server_name or "").removesuffix(".")
        return any(pattern.fullmatch(name) for pattern in self._patterns)

    @property
    def place(self) -> str:
        """The service in words: "127.0.0.1:8080"."""
        if isinstance(self.backend, tuple):
            host, port = self.backend
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return os.fspath(self.backend)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProxiedConnection:
    """What became of one connection through a proxy.

    Attributes:
        remote_address: Where the client was, if the transport could tell.
        server_name: The name that it sent, or None.
        alpn_protocol: The application protocol, or None.
        client: The common name of its verified certificate, or if that has none the rule that let it in.
        backend: Where the service is, or None if there was no route.
        bytes_received: What came from the client, in bytes of plaintext.
        bytes_sent: What went to it.
        duration: How long it took, in seconds, without the handshake.
        outcome: How it ended.
        reason: Why, where it did not end well; else "".
    """

    remote_address: Address | None
    server_name: str | None
    alpn_protocol: str | None
    client: str | None
    backend: str | None
    bytes_received: int
    bytes_sent: int
    duration: float
    outcome: ProxyOutcome
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as what JSON has: the attributes."""
        address = self.remote_address
        facts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return facts | {
            "remote_address": None if address is None else address._asdict(),
            "duration": round(self.duration, 3),
        }


class ProxyHandler:
    """A handler for `TLSServer` that passes connections on to plain services.

    ``TLSServer(ProxyHandler([ProxyRoute(("127.0.0.1", 8080))]), context)`` is a whole proxy.  To ask for
    client certificates, and what to do with those that are not verified, is the server's business
    (``request_cert``, ``reject_unauthorized``); rules let in verified ones alone.

    Args:
        routes: Where connections go; the first that matches is taken, and without one the connection is
            closed.
        proxy_protocol: Tell the services who their clients are by this version of the PROXY protocol; they
            must expect it.
        connect_timeout: How long connecting to a service may take, in seconds.
        half_open_timeout: How long nothing may pass when one direction has ended, in seconds.
        on_end: Called with a `ProxiedConnection` when a connection has ended.

    Raises:
        ConfigurationError: there is no route, or an option cannot be used.
    """

    def __init__(
        self,
        routes: Sequence[ProxyRoute],
        *,
        proxy_protocol: ProxyProtocol | None = None,
        connect_timeout: float = 10.0,
        half_open_timeout: float = 60.0,
        on_end: Callable[[ProxiedConnection], object] | None = None,
    ) -> None:
        self._routes = tuple(routes)
        if not self._routes:
            raise ConfigurationError("a proxy needs a route", option="routes")
        if proxy_protocol not in (None, 1, 2):
            raise ConfigurationError(
                f"the PROXY protocol has versions 1 and 2. Received {proxy_protocol!r}",
                option="proxy_protocol",
            )
        self._proxy_protocol = proxy_protocol
        self._connect_timeout = check_seconds("connect_timeout", connect_timeout)
        self._half_open_timeout = check_seconds("half_open_timeout", half_open_timeout)
        self._on_end = on_end

    async def __call__(self, stream: TLSStream) -> None:
        """Pass one connection on, until it has ended.

        Args:
            stream: The connection.

        Raises:
            ConnectionFailed: the client's side failed.
        """
        started = trio.current_time()
        passage = _Passage(stream)
        try:
            await self._pass_on(stream, passage)
        finally:
            try:
                if not passage.sent_all:
                    # Without close_notify: the client must not take what it has for all that there is.
                    await trio.aclose_forcefully(stream)
            finally:
                if self._on_end is not None:
                    self._on_end(passage.ended(trio.current_time() - started))

    async def _pass_on(self, stream: TLSStream, passage: _Passage) -> None:
        info = stream.info
        route = next(
            (route for route in self._routes if route.matches(info.server_name, info.alpn_protocol)), None
        )
        if route is None:
            passage.end("no route", f"nothing is served by the name {info.server_name or 'of nobody'}")
            return
        passage.backend = route.place
        if not passage.let_in(route.allow):
            return
        try:
            backend = await self._connect(route)
        except (ConfigurationError, ConnectError) as error:
            passage.end("backend unreachable", str(error))
            return
        except trio.TooSlowError:
            passage.end("backend unreachable", f"no connection within {self._connect_timeout:g} seconds")
            return
        try:
            await self._relay(stream, backend, passage)
        except ConnectionFailed as error:
            passage.end("client lost", str(error))
            raise
        except trio.BrokenResourceError as error:
            cause = error.__cause__
            passage.end("backend lost", (isinstance(cause, OSError) and cause.strerror) or str(error))
        finally:
            if not passage.received_all:
                _reset_when_closed(backend)
            await trio.aclose_forcefully(backend)

    async def _relay(self, stream: TLSStream, backend: trio.SocketStream, passage: _Passage) -> None:
        """Pass bytes on in both directions until both have ended.

        Raises:
            ConnectionFailed: the client's side failed.
            trio.BrokenResourceError: the service's did.
        """
        failures: list[trio.BrokenResourceError] = []
        half_open = False
        if self._proxy_protocol is not None:
            await backend.send_all(
                proxy_header(self._proxy_protocol, stream.remote_address, stream.local_address, stream.info)
            )

        async def run(direction: Callable[[], Awaitable[None]]) -> None:
            nonlocal half_open
            try:
                await direction()
            except trio.BrokenResourceError as error:
                failures.append(error)
                nursery.cancel_scope.cancel()
            else:
                half_open = True
                note_progress()

        def note_progress() -> None:
            if half_open:
                nursery.cancel_scope.deadline = trio.current_time() + self._half_open_timeout

        async def to_backend() -> None:
            async for data in stream:
                passage.bytes_received += len(data)
                if not await _sent(backend.send_all(data)):
                    return
                note_progress()
            passage.received_all = await _sent(backend.send_eof())

        async def to_client() -> None:
            while data := await backend.receive_some(_PIECE):
                await stream.send_all(data)
                passage.bytes_sent += len(data)
                note_progress()
            await stream.send_eof()
            passage.sent_all = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, to_backend)
            nursery.start_soon(run, to_client)
        if failures:
            raise failures[0]
        if not nursery.cancel_scope.cancelled_caught:
            passage.end("done", "")
            return
        outcome: ProxyOutcome = "done" if passage.sent_all else "backend lost"
        silent = "client" if passage.sent_all else "service"
        seconds = f"{self._half_open_timeout:g} seconds"
        passage.end(outcome, f"nothing came from the {silent} for {seconds} after the other side's end")

    async def _connect(self, route: ProxyRoute) -> trio.SocketStream:
        with trio.fail_after(self._connect_timeout):
            if isinstance(route.backend, tuple):
                return await Dialer().dial(*route.backend)
            path = os.fspath(route.backend)
            try:
                return await trio.open_unix_socket(path)
            except OSError as error:
                raise connect_error(error, path, None) from error


async def _sent(sending: Awaitable[None]) -> bool:
    """Return whether a service still reads; one that does not may have answered before."""
    try:
        await sending
    except trio.BrokenResourceError:
        return False
    return True


class _Passage:
    """What is known of a connection that is passed on.

    Attributes:
        backend: Where the service is, once that is known.
        bytes_received: What has come from the client.
        bytes_sent: What has gone to it.
        received_all: Whether the client has ended its direction, and the service was told so.
        sent_all: Whether the service has, and the client was told so.
    """

    def __init__(self, stream: TLSStream) -> None:
        self._stream = stream
        self.backend: str | None = None
        self.bytes_received = 0
        self.bytes_sent = 0
        self.received_all = False
        self.sent_all = False
        self._client: str | None = None
        self._outcome: ProxyOutcome = "cancelled"
        self._reason = ""

    def let_in(self, rules: Sequence[ClientRule]) -> bool:
        """Whether the client may come in."""
        certificate = self._stream.info.peer_certificate if self._stream.authorized else None
        if certificate is not None:
            self._client = _common_name(certificate)
        if not rules:
            return True
        if certificate is None:
            self.end("not allowed", "the client has no verified certificate")
            return False
        rule = next((rule for rule in rules if rule.allows(certificate)), None)
        if rule is None:
            self.end("not allowed", f"no rule lets {self._client or 'this client'} in")
            return False
        self._client = self._client or str(rule)
        return True

    def end(self, outcome: ProxyOutcome, reason: str) -> None:
        """Note how it ended."""
        self._outcome, self._reason = outcome, reason

    def ended(self, duration: float) -> ProxiedConnection:
        """Return what became of it."""
        info = self._stream.info
        return ProxiedConnection(
            remote_address=self._stream.remote_address,
            server_name=info.server_name,
            alpn_protocol=info.alpn_protocol,
            client=self._client,
            backend=self.backend,
            bytes_received=self.bytes_received,
            bytes_sent=self.bytes_sent,
            duration=duration,
            outcome=self._outcome,
            reason=self._reason,
        )


def _common_name(certificate: Certificate) -> str | None:
    try:
        name = certificate.subject.get("CN")
    except CertificateError:
        return None
    return name if name is None or isinstance(name, str) else name[0]


def _check_backend(backend: Backend) -> None:
    """Refuse what can be the place of no service.

    Raises:
        ConfigurationError: it is neither host and port nor a path.
    """
    if isinstance(backend, os.PathLike):
        return
    if not (isinstance(backend, tuple) and len(backend) == 2 and isinstance(backend[0], str)):
        raise ConfigurationTypeError(
            f"backend is (host, port), or the pathlib.Path of a Unix socket. Received {backend!r}",
            option="backend",
        )
    host, port = backend
    check_port("backend", port)
    try:
        to_ascii(host)
    except ValueError as error:
        raise ConfigurationError(f"{host!r} is no host name: {error}", option="backend") from error


def _reset_when_closed(transport: trio.SocketStream) -> None:
    """Have a connection end with a reset; one over a Unix socket knows none."""
    with contextlib.suppress(OSError, trio.ClosedResourceError):
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _pattern(name: str) -> re.Pattern[str]:
    """Return what a server name has to match.

    Raises:
        ConfigurationError: it is no name.
    """
    try:
        labels = [to_ascii(label) for label in name.removesuffix(".").split(".")]
    except ValueError as error:
        raise ConfigurationError(f"{name!r} is no host name: {error}", option="routes") from error
    if not all(labels):
        raise ConfigurationError(f"{name!r} is no host name", option="routes")
    wildcards = re.escape(".".join(labels)).replace(r"\*", "[^.]*")
    return re.compile(wildcards, re.IGNORECASE | re.ASCII)
