"""Connections on which another handshake follows the first, and what passes between their ends meanwhile."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode import Engine, SecureContext, TLSStream, Want
from trio_tlsnode.testing import Authority, default_authority

TRUSTED, UNTRUSTED = default_authority(), Authority()
TRANSPORTS = ("memory", "socket")
# Flights of a handshake, with some to spare.
MOST_FLIGHTS = 10
CHUNK = bytes(range(256)) * 150

Streams = tuple[TLSStream, TLSStream]


@functools.cache
def of_client(name: str | None) -> dict[str, bytes]:
    """Return the options of a client that presents a certificate: "alice" is trusted, "mallory" is not."""
    if name is None:
        return {}
    authority = TRUSTED if name == "alice" else UNTRUSTED
    return dict(authority.client(name).options)  # type: ignore[arg-type]  # a TypedDict is none


def client_context(version: str, name: str | None = None, **options: Any) -> SecureContext:
    return SecureContext(
        **{"ca": TRUSTED.ca, "min_version": version, "max_version": version, **of_client(name), **options}
    )


@functools.cache
def _of_server() -> dict[str, bytes]:
    return dict(TRUSTED.good("localhost").options)  # type: ignore[arg-type]  # a TypedDict is none


def server_context(version: str, **options: Any) -> SecureContext:
    return SecureContext(
        **{"ca": TRUSTED.ca, "min_version": version, "max_version": version, **_of_server(), **options}
    )


# Without an event loop


def engines(
    version: str = "TLSv1.2",
    *,
    of_client: SecureContext | None = None,
    of_server: SecureContext | None = None,
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
) -> tuple[Engine, Engine]:
    """Return a client and a server whose handshake is done, all that they have said included."""
    ends = (
        Engine(of_client or client_context(version), host="localhost", **(client or {})),
        Engine(of_server or server_context(version), server_side=True, **(server or {})),
    )
    for _ in range(MOST_FLIGHTS):
        for end, other in (ends, ends[::-1]):
            if end.info is None:
                end.do_handshake()
            if output := end.drain():
                other.feed(output)
    exchange(*ends)
    return ends


def exchange(*ends: Engine) -> tuple[bytes, bytes]:
    """Let two engines read and answer until they have nothing more to say; return what each has read."""
    received = [bytearray(), bytearray()]
    quiet = False
    while not quiet:
        quiet = True
        for index, end in enumerate(ends):
            while isinstance(data := end.read(), bytes) and data:
                received[index] += data
            if output := end.drain():
                ends[1 - index].feed(output)
                quiet = False
    return bytes(received[0]), bytes(received[1])


def records(data: bytes) -> list[bytes]:
    """Split ciphertext into its records."""
    found = []
    while data:
        end = 5 + int.from_bytes(data[3:5])
        found.append(data[:end])
        data = data[end:]
    return found


def renegotiated(starting: Engine, other: Engine) -> None:
    """Do a renegotiation that one side asks for."""
    starting.renegotiate(request_cert=False)
    for _ in range(MOST_FLIGHTS):
        if starting.finish_handshake() is True:
            exchange(starting, other)
            return
        for end, peer in ((starting, other), (other, starting)):
            if output := end.drain():
                peer.feed(output)
            assert peer.read() is Want.READ
    raise AssertionError("it never ends")


# With streams


def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    one, other = trio.socket.socketpair()
    return trio.SocketStream(one), trio.SocketStream(other)


def transport_pair(kind: str) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return memory_stream_pair() if kind == "memory" else socket_pair()


@contextlib.asynccontextmanager
async def pair(
    version: str = "TLSv1.2",
    transports: str | tuple[trio.abc.Stream, trio.abc.Stream] = "memory",
    *,
    presents: str | None = None,
    of_client: SecureContext | None = None,
    of_server: SecureContext | None = None,
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
) -> AsyncIterator[Streams]:
    """Connect a client and a server, and close them at the end."""
    left, right = transport_pair(transports) if isinstance(transports, str) else transports
    ends = (
        TLSStream(left, of_client or client_context(version, presents), host="localhost", **(client or {})),
        TLSStream(right, of_server or server_context(version), server_side=True, **(server or {})),
    )
    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(end.do_handshake)
    try:
        yield ends
    finally:
        for end in ends:
            await trio.aclose_forcefully(end)


async def read_on(stream: TLSStream) -> None:
    """Receive, and forget it, until the peer says goodbye."""
    async for _ in stream:
        pass


async def receive_exactly(stream: TLSStream, count: int) -> bytes:
    received = b""
    while len(received) < count:
        received += await stream.receive_some(count - len(received))
    return received


@contextlib.asynccontextmanager
async def beside(*functions: Callable[..., Any]) -> AsyncIterator[trio.Nursery]:
    """Run tasks beside the block; at its end cancel them, when they have done what there is to do."""
    async with trio.open_nursery() as nursery:
        for function in functions:
            nursery.start_soon(function)
        yield nursery
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


class Traffic:
    """What passes in both directions at once.

    Attributes:
        received: How much has arrived at either end, in bytes.
    """

    def __init__(self, ends: Streams) -> None:
        self._ends = ends
        self._over = False
        self._sent = [hashlib.sha256(), hashlib.sha256()]
        self._digests = [hashlib.sha256(), hashlib.sha256()]
        self.received = [0, 0]

    async def _send(self, index: int) -> None:
        stream, count = self._ends[index], 0
        while not self._over:
            data = count.to_bytes(8) + CHUNK
            self._sent[index].update(data)
            await stream.send_all(data)
            count += 1
            # As much as the other side reads, not more.
            while count * len(data) > self.received[1 - index] + 4 * len(data):
                await trio.lowlevel.checkpoint()
        await stream.send_eof()

    async def _receive(self, index: int) -> None:
        async for data in self._ends[index]:
            self._digests[index].update(data)
            self.received[index] += len(data)

    async def goes_on(self) -> None:
        """Wait until more has arrived at either end."""
        before = list(self.received)
        while any(now == then for now, then in zip(self.received, before, strict=True)):
            await trio.lowlevel.checkpoint()

    def end(self) -> None:
        self._over = True

    @property
    def is_whole(self) -> bool:
        return all(
            sent.digest() == received.digest()
            for sent, received in zip(self._sent, reversed(self._digests), strict=True)
        )


@contextlib.asynccontextmanager
async def full_duplex(ends: Streams) -> AsyncIterator[Traffic]:
    """Send and receive on both ends, by four tasks, while the block runs; all must arrive as it was sent."""
    traffic = Traffic(ends)
    async with trio.open_nursery() as nursery:
        for index in (0, 1):
            nursery.start_soon(traffic._send, index)
            nursery.start_soon(traffic._receive, index)
        while 0 in traffic.received:
            await trio.lowlevel.checkpoint()
        yield traffic
        traffic.end()
    assert traffic.is_whole


def codes(info: tls.ConnectionInfo) -> str | None:
    """Return why a peer is not to be trusted, as a code."""
    return None if info.authorization_error is None else info.authorization_error.code
