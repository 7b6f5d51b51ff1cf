"""Dialer: TCP connections to the first address of a host that answers (Happy Eyeballs, RFC 8305).

It does what `trio.open_tcp_stream` does, in the same order and with the same delay, and two things more that
cannot be had from it: one address family alone, and a local port.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import itertools
import math
import socket
from typing import Any, Final, Literal

import trio

from .connect_errors import connect_error
from .errors import ConfigurationError, ConfigurationTypeError
from .option_values import check_seconds
from .tcp_options import check_port

Family = Literal["IPv4", "IPv6", 4, 6, 0]
"""An address family: by its name, or as Node.js has it, where 0 is both."""

# How long an attempt is alone before the next address is tried, in seconds, as trio.open_tcp_stream has it.
DEFAULT_DELAY: Final = 0.25

_FAMILIES: Final[dict[str | int | None, int]] = {
    None: socket.AF_UNSPEC,
    0: socket.AF_UNSPEC,
    4: socket.AF_INET,
    6: socket.AF_INET6,
    "IPv4": socket.AF_INET,
    "IPv6": socket.AF_INET6,
}
_ANY_ADDRESS: Final[dict[int, str]] = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 - where we call from

# What getaddrinfo gives: family, type, protocol, canonical name, address.
_Target = tuple[Any, Any, int, str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dialer:
    """How TCP connections are made.

    Attributes:
        family: The only address family to use; None is both.
        local_address: The IP address to connect from; None leaves it to the system.  Only the host's
            addresses of its family are tried.
        local_port: The port to connect from; 0 leaves it to the system.
        delay: How long an attempt is alone before the next address is tried, in seconds; None waits until it
            has failed.

    Raises:
        ConfigurationError: one cannot be used, or two contradict each other.
    """

    family: Family | None = None
    local_address: str | None = None
    local_port: int = 0
    delay: float | None = DEFAULT_DELAY

    def __post_init__(self) -> None:
        """Refuse what cannot be used."""
        if isinstance(self.family, bool) or not isinstance(self.family, (str, int, type(None))):
            raise ConfigurationTypeError(
                f'family must be "IPv4" or "IPv6". Received {self.family!r}', option="family"
            )
        if self.family not in _FAMILIES:
            raise ConfigurationError(
                f'family must be "IPv4" or "IPv6". Received {self.family!r}', option="family"
            )
        check_port("local_port", self.local_port)
        if self.delay is not None:
            check_seconds("happy_eyeballs_delay", self.delay)
        if self.local_address is None:
            return
        if _FAMILIES[self.family] not in (socket.AF_UNSPEC, _family_of(self.local_address)):
            raise ConfigurationError(
                f"local_address is not of family {self.family!r}: {self.local_address}",
                option="local_address",
            )

    async def dial(self, host: str, port: int) -> trio.SocketStream:
        """Connect to a host.

        Args:
            host: Its name or IP address.
            port: The port.

        Returns:
            The connection.

        Raises:
            ConfigurationError: this can be no host's name.
            ConnectError: the name is not known, or no address of it answered; its cause is the system's
                error, or a group of them.

        Cancelling closes what was opened.
        """
        try:
            targets = await self._targets(host, port)
        except UnicodeError as error:
            raise ConfigurationError(f"{host!r} is no host name: {error}", option="host") from error
        except OSError as error:
            raise connect_error(error, host, port) from error
        if len(targets) == 1:
            # A race of one needs no nursery.
            try:
                return trio.SocketStream(await self._connect(targets[0]))
            except OSError as error:
                raise connect_error(error, host, port) from error
        errors: list[OSError] = []
        connected: list[trio.socket.SocketType] = []

        async def attempt(target: _Target, failed: trio.Event) -> None:
            try:
                connected.append(await self._connect(target))
            except OSError as error:
                errors.append(error)
                failed.set()
            else:
                nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                for target in targets:
                    failed = trio.Event()
                    nursery.start_soon(attempt, target, failed)
                    with trio.move_on_after(math.inf if self.delay is None else self.delay):
                        await failed.wait()
            if connected:
                return trio.SocketStream(connected.pop(0))
        finally:
            # Two may have answered at once, or the caller is cancelled.
            for sock in connected:
                sock.close()
        cause = errors[0] if len(errors) == 1 else ExceptionGroup("no address answered", errors)
        raise connect_error(errors[0], host, port) from cause

    async def _targets(self, host: str, port: int) -> list[_Target]:
        """Return where to connect to: of two families in turn, that of the first address first."""
        family = _FAMILIES[self.family] if self.local_address is None else _family_of(self.local_address)
        if family in (socket.AF_UNSPEC, socket.AF_INET) and _is_ipv4(host):
            # What getaddrinfo would say, without asking it.
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
        found: list[_Target] = [
            target
            for target in await trio.socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
            # A resolver of the application's may not have been told.
            if family in (socket.AF_UNSPEC, target[0])
        ]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "no address was found")
        first = [target for target in found if target[0] == found[0][0]]
        others = [target for target in found if target[0] != found[0][0]]
        pairs = itertools.zip_longest(first, others)
        return [target for pair in pairs for target in pair if target is not None]

    async def _connect(self, target: _Target) -> trio.socket.SocketType:
        family, kind, protocol, _, address = target
        sock = trio.socket.socket(family, kind, protocol)
        try:
            if self.local_address is not None or self.local_port:
                await self._bind(sock, family)
            await sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _bind(self, sock: trio.socket.SocketType, family: int) -> None:
        if self.local_port:
            # For several attempts at once, and so soon after an earlier connection; libuv has it so.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            # Where it exists, connecting chooses the port: one may serve connections to several hosts.
            with contextlib.suppress(AttributeError, OSError):
                sock.setsockopt(socket.IPPROTO_IP, trio.socket.IP_BIND_ADDRESS_NO_PORT, 1)
        await sock.bind((self.local_address or _ANY_ADDRESS[family], self.local_port))


def _is_ipv4(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        return False
    return True


def _family_of(local_address: str) -> int:
    """Return the family of an IP address.

    Raises:
        ConfigurationTypeError: it is no str.
        ConfigurationError: it is no IP address.
    """
    if not isinstance(local_address, str):
        raise ConfigurationTypeError(
            f"local_address must be a str. Received {local_address!r}", option="local_address"
        )
    try:
        version = ipaddress.ip_address(local_address).version
    except ValueError:
        raise ConfigurationError(
            f"local_address must be an IP address. Received {local_address!r}",
            code="ERR_INVALID_IP_ADDRESS",
            option="local_address",
        ) from None
    return socket.AF_INET if version == 4 else socket.AF_INET6
