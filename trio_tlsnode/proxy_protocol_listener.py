"""ProxyProtocolListener: a listener behind a balancer that says who its clients are (the PROXY protocol).

A balancer that passes TLS on as it is makes all connections itself.  What it writes in front of each is read
here, so that the streams above have the addresses of clients.  Anybody can write such a header: so it is
believed only where the connection comes from a trusted address.  There it has to be, as the protocol demands;
elsewhere it is what it is to any TLS server, no TLS.
"""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Iterable
from typing import Final, Self, TypeAlias

import trio

from .addresses import Address
from .errors import ConfigurationError, ConfigurationTypeError, ProtocolError
from .listening import open_tcp_listeners
from .proxy_protocol import read_proxy_header

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# The trusted peers of Unix sockets: their file's permissions decide who they are.
_UNIX: Final = "unix"
_PIECE: Final = 4096


class ProxyProtocolListener(trio.abc.Listener[trio.abc.HalfCloseableStream]):
    """A listener whose streams have the addresses that a trusted balancer tells, by version 1 or 2.

    ``server.serve_listeners([ProxyProtocolListener(listener, trusted=["10.0.0.7"])])`` serves behind it.

    The header is read with the first data, so a connection that says nothing holds nobody up, and the
    handshake's time-out counts.  Until then the addresses of a stream are not known (None).  A connection of
    the balancer's own, such as a health check, has its own addresses; one with a broken header fails.

    Args:
        listener: The listener below, which becomes this one's own.
        trusted: Whose headers are believed: addresses and networks ("10.0.0.0/8"), and "unix" for all who can
            connect to a Unix socket.  Connections from elsewhere are those of clients themselves.

    Attributes:
        transport_listener: The listener below.

    Raises:
        ConfigurationError: nobody is trusted, or an address cannot be one.
    """

    def __init__(self, listener: trio.SocketListener, trusted: Iterable[str]) -> None:
        self.transport_listener = listener
        self._unix, self._networks = _parsed(trusted)

    @classmethod
    async def open(cls, port: int, host: str | None = None, *, trusted: Iterable[str]) -> list[Self]:
        """Listen on all addresses of a host.

        Args:
            port: The port; 0 lets the kernel choose one for all addresses.
            host: The name or address; None is all addresses of the machine.
            trusted: As for the class.

        Raises:
            ConfigurationError: nobody is trusted, or an argument cannot be used.
            ConnectError: an address cannot be listened on.
        """
        known = trusted if isinstance(trusted, str) else tuple(trusted)
        # Before anything is opened.
        _parsed(known)
        return [cls(listener, known) for listener in await open_tcp_listeners(port, host)]

    @property
    def address(self) -> Address | None:
        """Where it listens."""
        sock = self.transport_listener.socket
        return Address.from_sockname(sock.family, sock.getsockname())

    async def accept(self) -> trio.abc.HalfCloseableStream:
        """Wait for the next connection.

        Raises:
            OSError: as for `trio.SocketListener`.
            trio.ClosedResourceError: this listener was closed, before or meanwhile.
        """
        stream = await self.transport_listener.accept()
        sock = stream.socket
        try:
            local = Address.from_sockname(sock.family, sock.getsockname())
            remote = Address.from_sockname(sock.family, sock.getpeername())
        except OSError:
            # It has been reset already, as whoever reads from it will find out.
            return stream
        if remote is None or not self._trusts(remote):
            return stream
        return _IntroducedStream(stream, local, remote)

    async def aclose(self) -> None:
        """Accept no more; the streams that were accepted live on."""
        await self.transport_listener.aclose()

    def _trusts(self, peer: Address) -> bool:
        if peer.family == "unix":
            return self._unix
        address = ipaddress.ip_address(peer.host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            # As a socket for both families tells it.
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


class _IntroducedStream(trio.abc.HalfCloseableStream):
    """A connection that begins with a header of the PROXY protocol.

    Args:
        transport: The connection.
        local: Our address towards the balancer.
        remote: The balancer's.
    """

    def __init__(self, transport: trio.SocketStream, local: Address | None, remote: Address) -> None:
        self._transport = transport
        self._own = local, remote
        self._told: tuple[Address | None, Address | None] = (None, None)
        self._introduced = False
        self._ahead = b""

    @property
    def local_address(self) -> Address | None:
        """Where the client has connected to, once that is known."""
        return self._told[0]

    @property
    def remote_address(self) -> Address | None:
        """Where the client is, once that is known."""
        return self._told[1]

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        while not self._introduced:
            data = await self._transport.receive_some(_PIECE)
            if not data:
                self._told = self._own
                return b""
            self._ahead += data
            self._read_header()
        if not self._ahead:
            return await self._transport.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        size = len(self._ahead) if max_bytes is None else max_bytes
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def _read_header(self) -> None:
        """Read the header, if it is complete.

        Raises:
            ProtocolError: it is malformed, or there is none.
        """
        try:
            header = read_proxy_header(self._ahead)
        except ValueError as error:
            self._told = self._own
            refusal = ProtocolError(f"{self._own[1]} is a trusted proxy, but {error}", code="EPROTO")
            # The system's number is what a TLSStream above makes its own code of.
            raise refusal from OSError(errno.EPROTO, os.strerror(errno.EPROTO))
        if header is None:
            return
        self._introduced = True
        self._ahead = self._ahead[header.length :]
        self._told = self._own if header.source is None else (header.destination, header.source)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._transport.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._transport.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._transport.send_eof()

    async def aclose(self) -> None:
        await self._transport.aclose()


def _parsed(trusted: Iterable[str]) -> tuple[bool, tuple[_Network, ...]]:
    """Return whether the peers of Unix sockets are trusted, and which networks."""
    if isinstance(trusted, str):
        raise ConfigurationTypeError(f"trusted is a list. Received {trusted!r}", option="trusted")
    places = list(trusted)
    if not places:
        raise ConfigurationError("nobody is trusted: name the balancer's address", option="trusted")
    try:
        networks = tuple(ipaddress.ip_network(place) for place in places if place != _UNIX)
    except ValueError as error:
        raise ConfigurationError(str(error), option="trusted") from error
    return _UNIX in places, networks
