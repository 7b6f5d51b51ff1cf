"""Links: how ciphertext moves between an engine and the transport below it.

There are two: `SocketLink` reads a socket into the thread's buffer and writes from it, and `StreamLink` uses
the methods that every `trio.abc.Stream` has.  Neither knows TLS.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import os
from collections.abc import Callable
from typing import Any, ClassVar, Final

import trio

from ._openssl.buffers import INCOMING_SIZE, buffers
from ._openssl.library import pointer_to
from .addresses import Address
from .errors import ConnectionLost

Feed = Callable[[Any, int], None]
"""Takes ciphertext: a pointer and a length."""

# How many full reads are thrown away at closing: more than a kernel's buffer, less than a fast peer can send.
_MOST_DISCARDED: Final = 64
# What one receive_some() of a generic transport is asked for.
_STREAM_READ_SIZE: Final = 64 * 1024


class Link(abc.ABC):
    """How ciphertext moves.

    Attributes:
        resumable: Whether a cancelled `send` has sent nothing; otherwise nobody knows how much.
        closes_at_once: Whether closing the transport waits for nothing but a checkpoint.
        transport: The stream below.
    """

    __slots__ = ("_local_address", "_remote_address", "transport")

    resumable: ClassVar[bool]
    closes_at_once: ClassVar[bool]

    def __init__(self, transport: trio.abc.Stream) -> None:
        self.transport: Any = transport
        self._local_address: Address | None = None
        self._remote_address: Address | None = None
        # Now: a peer that has reset the connection has no address any more.
        self._locate()

    @property
    def local_address(self) -> Address | None:
        """Where we are, if the transport can tell."""
        self._locate()
        return self._local_address

    @property
    def remote_address(self) -> Address | None:
        """Where the peer is, if the transport can tell."""
        self._locate()
        return self._remote_address

    def _locate(self) -> None:
        """Ask for the addresses, unless they are known: a transport may be connected later."""
        if self._remote_address is None:
            self._ask_for_addresses()

    @abc.abstractmethod
    def _ask_for_addresses(self) -> None:
        """Take the addresses from the transport, as far as it can tell."""

    @abc.abstractmethod
    async def fill(self, feed: Feed) -> bool:
        """Wait for ciphertext and feed it; return False if the transport has ended.

        Nothing is awaited between reading and feeding.  Cancelling loses nothing.

        Raises:
            ConnectionLost: the transport broke.
            trio.ClosedResourceError: it was closed, before or meanwhile.
        """

    @abc.abstractmethod
    def fill_nowait(self, feed: Feed) -> bool:
        """Feed what has arrived, if the transport can tell without waiting; return whether there was any."""

    @abc.abstractmethod
    def send_nowait(self, data: memoryview) -> int:
        """Send what the transport takes without waiting; return how many bytes.

        Raises:
            ConnectionLost: the transport broke.
            trio.ClosedResourceError: it was closed.
        """

    @abc.abstractmethod
    async def send(self, data: bytes) -> int:
        """Send some or all data, waiting once; return how many bytes.

        Raises:
            ConnectionLost: the transport broke.
            trio.ClosedResourceError: it was closed, before or meanwhile.
        """

    @abc.abstractmethod
    def discard_nowait(self) -> None:
        """Throw away what has arrived, if the transport can tell without waiting."""


class SocketLink(Link):
    """Moves ciphertext between a socket and the thread's buffers, without copies of its own."""

    __slots__ = ("_more", "_socket")

    resumable = True
    closes_at_once = True

    def __init__(self, transport: trio.SocketStream) -> None:
        self._socket = transport.socket
        super().__init__(transport)
        # Whether the last read filled the buffer.  If not, the socket was empty after it: it costs less to
        # wait at once than to ask once more.
        self._more = False

    def _ask_for_addresses(self) -> None:
        sock = self._socket
        family = sock.family
        with contextlib.suppress(OSError):
            self._local_address = Address.from_sockname(family, sock.getsockname())
            self._remote_address = Address.from_sockname(family, sock.getpeername())

    def _fileno(self) -> int:
        # Asked for at each use: a number kept across a wait may be another connection's by then.
        fileno = self._socket.fileno()
        if fileno < 0:
            raise trio.ClosedResourceError("this stream was closed")
        return fileno

    def _read(self) -> int:
        """Read into the thread's buffer; return -1 if there is nothing yet."""
        try:
            count = os.readv(self._fileno(), (buffers.incoming_view,))
        except BlockingIOError:
            self._more = False
            return -1
        except OSError as error:
            raise _lost(error) from error
        self._more = count == INCOMING_SIZE
        return count

    async def fill(self, feed: Feed) -> bool:
        """Wait for the socket to be readable, read once, and feed."""
        if self._more:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._fileno())
        while (count := self._read()) < 0:
            await trio.lowlevel.wait_readable(self._fileno())
        if count:
            feed(buffers.incoming, count)
        return count > 0

    def fill_nowait(self, feed: Feed) -> bool:
        """Read once, if there is anything, and feed."""
        count = self._read()
        if count > 0:
            feed(buffers.incoming, count)
        return count > 0

    def send_nowait(self, data: memoryview) -> int:
        """Write to the socket what fits into the kernel's buffer."""
        try:
            return os.write(self._fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise _lost(error) from error

    async def send(self, data: bytes) -> int:
        """Wait until the socket takes something, and write once."""
        await trio.lowlevel.wait_writable(self._fileno())
        return self.send_nowait(memoryview(data))

    def discard_nowait(self) -> None:
        """Read until the socket is empty: closing it over unread input resets the connection."""
        with contextlib.suppress(ConnectionLost, trio.ClosedResourceError):
            for _ in range(_MOST_DISCARDED):
                if self._read() < INCOMING_SIZE:
                    break


class StreamLink(Link):
    """Moves ciphertext through the methods of any `trio.abc.Stream`."""

    __slots__ = ()

    resumable = False
    closes_at_once = False

    def _ask_for_addresses(self) -> None:
        # TLS over TLS, and wrappers that tell where they lead to.
        self._local_address = _address_of(self.transport, "local_address")
        self._remote_address = _address_of(self.transport, "remote_address")

    async def fill(self, feed: Feed) -> bool:
        """Receive once, and feed."""
        try:
            data = await self.transport.receive_some(_STREAM_READ_SIZE)
        except trio.BrokenResourceError as error:
            raise _broken(error) from error
        if data:
            feed(pointer_to(data), len(data))
        return bool(data)

    def fill_nowait(self, feed: Feed) -> bool:  # noqa: ARG002 - as the other link has it
        """Feed nothing: a stream cannot be asked without waiting."""
        return False

    def send_nowait(self, data: memoryview) -> int:  # noqa: ARG002 - as the other link has it
        """Send nothing: a stream cannot be asked without waiting."""
        return 0

    async def send(self, data: bytes) -> int:
        """Send all data."""
        try:
            await self.transport.send_all(data)
        except trio.BrokenResourceError as error:
            raise _broken(error) from error
        return len(data)

    def discard_nowait(self) -> None:
        """Discard nothing: a stream cannot be asked without waiting."""


def link_for(transport: trio.abc.Stream) -> Link:
    """Return the link that suits a transport."""
    # A subclass may have its own ideas of sending and receiving, which only its methods know.
    if type(transport) is trio.SocketStream and hasattr(os, "readv"):
        return SocketLink(transport)
    return StreamLink(transport)


def _address_of(transport: object, name: str) -> Address | None:
    address = getattr(transport, name, None)
    return address if isinstance(address, Address) else None


def _lost(error: OSError) -> ConnectionLost:
    code = errno.errorcode.get(error.errno or 0, "ECONNRESET")
    return ConnectionLost(
        f"the connection was lost: {os.strerror(error.errno or errno.ECONNRESET)}", code=code
    )


def _broken(error: trio.BrokenResourceError) -> ConnectionLost:
    cause = error.__cause__
    if isinstance(cause, OSError):
        return _lost(cause)
    return ConnectionLost("the connection was lost: the transport broke")
