"""The PROXY protocol on its way in: what a header says, and whom a listener believes."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import trio_tlsnode as tls
from trio_tlsnode.proxy_protocol import ProxyHeader, read_proxy_header
from trio_tlsnode.testing import Authority

pytestmark = pytest.mark.feature("G5")

AUTHORITY = Authority()
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT, SERVER = tls.Address("192.0.2.1", 1000, "IPv4"), tls.Address("192.0.2.2", 443, "IPv4")
CLIENT6, SERVER6 = tls.Address("2001:db8::1", 1000, "IPv6"), tls.Address("2001:db8::2", 443, "IPv6")
LINE = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n"


def binary(command: int, family: int, body: bytes, *, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


TCP4 = bytes.fromhex("c0000201 c0000202 03e8 01bb")
TCP6 = bytes.fromhex("20010db8000000000000000000000001 20010db8000000000000000000000002 03e8 01bb")
UNIX = b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")
FACTS = bytes.fromhex("04 0004 00000000")

HEADERS = [
    (LINE, (CLIENT, SERVER)),
    (b"PROXY TCP6 2001:db8::1 2001:DB8::2 1000 443\r\n", (CLIENT6, SERVER6)),
    (b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n", None),
    (b"PROXY UNKNOWN\r\n", (None, None)),
    (b"PROXY UNKNOWN 192.0.2.1 whatever\r\n", (None, None)),
    (binary(0x21, 0x11, TCP4), (CLIENT, SERVER)),
    (binary(0x21, 0x11, TCP4 + FACTS), (CLIENT, SERVER)),
    (binary(0x21, 0x21, TCP6), (CLIENT6, SERVER6)),
    (binary(0x21, 0x31, UNIX), (tls.Address("/run/a", 0, "unix"), tls.Address("/run/b", 0, "unix"))),
    (binary(0x21, 0x00, b""), (None, None)),
    (binary(0x21, 0x00, FACTS), (None, None)),
    (binary(0x20, 0x00, b""), (None, None)),
    (binary(0x20, 0x11, TCP4), (None, None)),
]


@pytest.mark.parametrize(("header", "addresses"), HEADERS)
def test_a_header_tells_the_addresses_whatever_follows_it(header: bytes, addresses: Any) -> None:
    for rest in (b"", b"\x16\x03\x01", header):
        read = read_proxy_header(header + rest)
        assert read is not None
        assert read.length == len(header)
        assert addresses is None or (read.source, read.destination) == addresses


@pytest.mark.parametrize("header", [header for header, _ in HEADERS])
def test_a_header_that_is_not_complete_is_waited_for(header: bytes) -> None:
    assert [read_proxy_header(header[:length]) for length in range(len(header))] == [None] * len(header)


@pytest.mark.parametrize(
    "header",
    [
        b"G",
        b"\x16\x03\x01",
        b"PROXX ",
        b"\r\n\r\n\0\r\nQUIX",
        b"proxy TCP4 192.0.2.1 192.0.2.2 1000 443\r\n",
        b"PROXY  TCP4 192.0.2.1 192.0.2.2 1000 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443 \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1000\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 65536\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01000 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.256 1000 443\r\n",
        b"PROXY TCP4 192.0.2.01 192.0.2.2 1000 443\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1000 443\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1000 443\r\n",
        b"PROXY TCP6 fe80::1%eth0 fe80::2 1000 443\r\n",
        b"PROXY TCP5 192.0.2.1 192.0.2.2 1000 443\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1000 443\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY UNKNOWN".ljust(106) + b"\r\n",
        b"PROXY ".ljust(107, b"x"),
        binary(0x11, 0x11, TCP4),
        binary(0x22, 0x11, TCP4),
        binary(0x21, 0x12, TCP4),
        binary(0x21, 0x41, TCP4),
        binary(0x21, 0x11, TCP4[:-1]),
        binary(0x21, 0x21, TCP4),
        binary(0x21, 0x11, b"", length=65535),
    ],
)
def test_what_breaks_the_protocol_is_refused(header: bytes) -> None:
    with pytest.raises(ValueError, match=r"PROXY|address"):
        read_proxy_header(header)


@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]), st.binary())
def test_nothing_else_comes_of_any_bytes(start: bytes, rest: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(read_proxy_header(start + rest), ProxyHeader | None)


# The listener


class Behind:
    """A server behind a balancer, and what its handler has seen."""

    def __init__(self, address: tls.Address) -> None:
        self.port = address.port
        self.seen: list[tuple[tls.Address | None, tls.Address | None]] = []
        self.server = tls.TLSServer(self._note, tls.SecureContext(**AUTHORITY.good("localhost").options))
        self._errors = self.server.client_errors()

    async def _note(self, stream: tls.TLSStream) -> None:
        self.seen.append((stream.remote_address, stream.local_address))
        async for data in stream:
            await stream.send_all(data)

    async def ask(self, *pieces: bytes) -> tls.Address | None:
        """Send pieces in front of TLS, and say something; return our own address."""
        transport = await trio.open_tcp_stream("127.0.0.1", self.port)
        for piece in pieces:
            await transport.send_all(piece)
        async with await tls.wrap_client(transport, host="localhost", ca=AUTHORITY.ca) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
            return stream.local_address

    async def failure(self) -> tls.ConnectionFailed:
        (error,) = (await anext(self._errors)).exceptions
        assert isinstance(error, tls.ConnectionFailed)
        return error


@contextlib.asynccontextmanager
async def behind(*trusted: str) -> AsyncIterator[Behind]:
    (listener,) = await tls.ProxyProtocolListener.open(0, "127.0.0.1", trusted=trusted)
    assert listener.address is not None
    running = Behind(listener.address)
    async with trio.open_nursery() as nursery:
        await nursery.start(running.server.serve_listeners, [listener])
        yield running
        await running.server.aclose(0)


@pytest.mark.parametrize("header", [LINE, binary(0x21, 0x11, TCP4 + FACTS)])
@pytest.mark.parametrize("trusted", ["127.0.0.1", "127.0.0.0/8"])
async def test_a_trusted_balancer_says_who_its_clients_are(header: bytes, trusted: str) -> None:
    async with behind("10.0.0.0/8", trusted) as running:
        await running.ask(header)
        assert running.seen == [(CLIENT, SERVER)]


async def test_a_header_may_come_byte_by_byte() -> None:
    async with behind("127.0.0.1") as running:
        await running.ask(*(bytes([byte]) for byte in LINE))
        assert running.seen == [(CLIENT, SERVER)]


async def test_a_connection_of_the_balancers_own_has_its_own_addresses() -> None:
    async with behind("127.0.0.1") as running:
        own = await running.ask(binary(0x20, 0x00, b""))
        assert [remote for remote, _ in running.seen] == [own]


async def test_who_is_not_trusted_is_a_client_and_may_send_no_header() -> None:
    async with behind("10.0.0.0/8") as running:
        own = await running.ask()
        assert [remote for remote, _ in running.seen] == [own]
        with pytest.raises(tls.ConnectionFailed):
            await running.ask(LINE)
        failure = await running.failure()
    assert isinstance(failure, tls.NotTLS)
    assert failure.looks_like == "a PROXY protocol header"


@pytest.mark.parametrize("header", [b"", b"PROXY TCP4 a b 1 2\r\n"])
async def test_a_trusted_balancer_has_to_send_a_header_that_is_one(header: bytes) -> None:
    async with behind("127.0.0.1") as running:
        with pytest.raises(tls.ConnectionFailed):
            await running.ask(header)
        failure = await running.failure()
        assert running.seen == []
    assert failure.code == "EPROTO"
    assert "is a trusted proxy, but" in str(failure.__cause__)
    assert failure.remote_address is not None
    assert failure.remote_address.host == "127.0.0.1"


async def test_a_balancer_that_connects_and_goes_away_is_no_more_than_that() -> None:
    async with behind("127.0.0.1") as running:
        async with await trio.open_tcp_stream("127.0.0.1", running.port) as transport:
            await transport.send_all(LINE[:10])
            await transport.send_eof()
            assert await transport.receive_some() == b""
        assert isinstance(await running.failure(), tls.ConnectionLost)


async def test_who_sends_no_header_holds_nobody_up_and_has_the_time_of_a_handshake() -> None:
    async with behind("127.0.0.1") as running:
        async with await trio.open_tcp_stream("127.0.0.1", running.port):
            await running.ask(LINE)
        assert running.seen == [(CLIENT, SERVER)]


async def test_peers_of_a_unix_socket_are_trusted_if_asked_to_be(
    nursery: trio.Nursery, tmp_path: Any
) -> None:
    for trusted, first in ((["unix"], (CLIENT, SERVER)), (["127.0.0.1"], None)):
        path = str(tmp_path / trusted[0])
        sock = trio.socket.socket(socket.AF_UNIX)
        await sock.bind(path)
        sock.listen()
        listener = tls.ProxyProtocolListener(trio.SocketListener(sock), trusted)
        async with listener, await trio.open_unix_socket(path) as client:
            await client.send_all(LINE + b"rest")
            stream = await listener.accept()
            async with stream:
                assert await stream.receive_some(2) == (b"re" if first else b"PR")
                if first:
                    assert await stream.receive_some() == b"st"
                    told = stream.remote_address, stream.local_address  # type: ignore[attr-defined]
                    assert told == first


async def test_a_stream_behind_a_balancer_is_a_half_closeable_one(nursery: trio.Nursery) -> None:
    (listener,) = await tls.ProxyProtocolListener.open(0, "127.0.0.1", trusted=["127.0.0.1"])
    assert listener.address is not None
    async with listener, await trio.open_tcp_stream("127.0.0.1", listener.address.port) as client:
        await client.send_all(LINE)
        await client.send_eof()
        async with await listener.accept() as stream:
            assert await stream.receive_some() == b""
            await stream.wait_send_all_might_not_block()
            await stream.send_all(b"bye")
            await stream.send_eof()
            assert b"".join([data async for data in client]) == b"bye"


@pytest.mark.parametrize(
    ("trusted", "reason"),
    [([], "nobody is trusted"), (["x"], "'x'"), (["10.0.0.1/8"], "host bits"), ("10.0.0.1", "is a list")],
)
async def test_who_is_to_be_trusted_has_to_be_somebody(trusted: Any, reason: str) -> None:
    with pytest.raises(tls.ConfigurationError, match=reason) as caught:
        await tls.ProxyProtocolListener.open(0, "127.0.0.1", trusted=trusted)
    assert caught.value.option == "trusted"


async def test_an_address_that_is_taken_is_told_as_for_a_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(tls.ConnectError) as caught:
            await tls.ProxyProtocolListener.open(taken.getsockname()[1], "127.0.0.1", trusted=["unix"])
    assert caught.value.code == "EADDRINUSE"


async def test_a_proxy_hands_on_what_the_balancer_in_front_of_it_has_told() -> None:
    received: list[bytes] = []

    async def note(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            received.append(b"".join([data async for data in stream]))

    async with trio.open_nursery() as nursery:
        (service,) = await nursery.start(partial(trio.serve_tcp, note, 0, host="127.0.0.1"))
        route = tls.ProxyRoute(service.socket.getsockname()[:2])
        async with behind("127.0.0.1") as running:
            running.server.handler = tls.ProxyHandler([route], proxy_protocol=1)
            transport = await trio.open_tcp_stream("127.0.0.1", running.port)
            await transport.send_all(binary(0x21, 0x11, TCP4))
            async with await tls.wrap_client(transport, host="localhost", ca=AUTHORITY.ca) as stream:
                await stream.send_all(b"hello")
                await stream.send_eof()
                assert await stream.receive_some() == b""
        nursery.cancel_scope.cancel()
    assert received == [LINE + b"hello"]
