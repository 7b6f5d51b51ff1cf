"""A thousand bad clients of many kinds: each is reported once, and a good one notices nothing."""

from __future__ import annotations

import gc
import os
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_tlsnode import (
    CertificateError,
    ConnectionFailed,
    Engine,
    PeerAlert,
    SecureContext,
    TLSServer,
    TLSStream,
    wrap_client,
)
from trio_tlsnode.testing import MemoryListener, default_authority

pytestmark = pytest.mark.feature("B6")

CA = default_authority().ca
CLIENT = SecureContext(ca=CA)
SERVER = SecureContext(
    **default_authority().good("localhost").options, ciphers="ECDHE+AESGCM:TLS_AES_256_GCM_SHA384"
)
WRONG_CA = SecureContext(ca=[])
NO_COMMON_CIPHER = SecureContext(ca=CA, ciphers="TLS_CHACHA20_POLY1305_SHA256")
NO_COMMON_VERSION = SecureContext(
    ca=CA, ciphers="DEFAULT@SECLEVEL=0", min_version="TLSv1", max_version="TLSv1.1"
)

HANDSHAKE_TIMEOUT = 60.0
NUMBER = 1000
# No more at once, as each has two file descriptors here.
AT_ONCE = 50


def client_hello() -> bytes:
    engine = Engine(CLIENT)
    engine.do_handshake()
    return engine.drain()


HELLO = client_hello()


async def until_the_end(transport: trio.abc.Stream) -> None:
    """Receive until the server closes the connection."""
    try:
        while await transport.receive_some():
            pass
    except trio.BrokenResourceError:
        pass


async def speak_http(transport: trio.abc.Stream) -> None:
    await transport.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await until_the_end(transport)


async def send_junk(transport: trio.abc.Stream) -> None:
    await transport.send_all(bytes(range(256)))
    await until_the_end(transport)


async def disconnect(_transport: trio.abc.Stream) -> None:
    pass


async def send_half_a_hello(transport: trio.abc.Stream) -> None:
    await transport.send_all(HELLO[: len(HELLO) // 2])


async def be_silent(transport: trio.abc.Stream) -> None:
    await until_the_end(transport)


async def stop_half_way(transport: trio.abc.Stream) -> None:
    await transport.send_all(HELLO[: len(HELLO) // 2])
    await until_the_end(transport)


async def reset_half_way(transport: trio.abc.Stream) -> None:
    await transport.send_all(HELLO)
    await transport.receive_some()
    if isinstance(transport, trio.SocketStream):
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.socket.close()


async def distrust(transport: trio.abc.Stream) -> None:
    with pytest.raises(CertificateError):
        await wrap_client(transport, context=WRONG_CA)


async def offer_no_common_cipher(transport: trio.abc.Stream) -> None:
    with pytest.raises(PeerAlert):
        await wrap_client(transport, context=NO_COMMON_CIPHER)


async def offer_no_common_version(transport: trio.abc.Stream) -> None:
    with pytest.raises(PeerAlert):
        await wrap_client(transport, context=NO_COMMON_VERSION)


async def offer_no_common_protocol(transport: trio.abc.Stream) -> None:
    with pytest.raises(PeerAlert):
        await wrap_client(transport, context=CLIENT, alpn_protocols=["smtp"])


async def garble_a_record(transport: trio.abc.Stream) -> None:
    await wrap_client(transport, context=CLIENT)
    await transport.send_all(b"\x17\x03\x03\x00\x40" + bytes(64))
    await until_the_end(transport)


async def vanish_once_secure(transport: trio.abc.Stream) -> None:
    await wrap_client(transport, context=CLIENT)


BadClient = Callable[[trio.abc.Stream], Awaitable[None]]
KINDS: list[tuple[BadClient, str]] = [
    (speak_http, "ERR_SSL_HTTP_REQUEST"),
    (send_junk, "ERR_SSL_WRONG_VERSION_NUMBER"),
    (disconnect, "ECONNRESET"),
    (send_half_a_hello, "ECONNRESET"),
    (be_silent, "ERR_TLS_HANDSHAKE_TIMEOUT"),
    (stop_half_way, "ERR_TLS_HANDSHAKE_TIMEOUT"),
    (reset_half_way, "ECONNRESET"),
    (distrust, "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA"),
    (offer_no_common_cipher, "ERR_SSL_NO_SHARED_CIPHER"),
    (offer_no_common_version, "ERR_SSL_UNSUPPORTED_PROTOCOL"),
    (offer_no_common_protocol, "ERR_SSL_NO_APPLICATION_PROTOCOL"),
    (garble_a_record, "ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
    (vanish_once_secure, "ERR_SSL_UNEXPECTED_EOF_WHILE_READING"),
]
PATIENT = (be_silent, stop_half_way)


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


def new_server() -> TLSServer:
    return TLSServer(
        echo,
        SERVER,
        alpn_protocols=["h2"],
        handshake_timeout=HANDSHAKE_TIMEOUT,
        client_error_limit=NUMBER,
    )


class Storm:
    """Many bad clients and a good one at a server.

    Attributes:
        echoes: How many echoes the good client got so far.
        reported: What the supervising task was told: the peer's port, where there are ports, and the code.
        expected: What it should be told.
    """

    def __init__(self, server: TLSServer, connect: Callable[[], Awaitable[trio.abc.Stream]]) -> None:
        self.server = server
        self._connect = connect
        self.echoes = 0
        self.reported: Counter[tuple[int, str]] = Counter()
        self.expected: Counter[tuple[int, str]] = Counter()

    async def run(self, clock: MockClock) -> None:
        """Let them all loose; return when the server is closed."""
        patient = sum(KINDS[number % len(KINDS)][0] in PATIENT for number in range(NUMBER))
        limiter = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._supervise)
            enough = await nursery.start(self._be_good)
            async with trio.open_nursery() as clients:
                for number in range(NUMBER):
                    clients.start_soon(self._be_bad, *KINDS[number % len(KINDS)], limiter)
                while self.server.statistics().accepted <= NUMBER or self.reported.total() < NUMBER - patient:
                    await trio.lowlevel.checkpoint()
                assert self.server.statistics().open == patient + 1
                clock.jump(HANDSHAKE_TIMEOUT)
            enough.set()
            await self.server.aclose()

    async def _be_good(self, task_status: trio.TaskStatus[trio.Event]) -> None:
        enough = trio.Event()
        async with await wrap_client(await self._connect(), context=CLIENT, alpn_protocols=["h2"]) as stream:
            task_status.started(enough)
            while not enough.is_set():
                message = b"echo %d" % self.echoes
                await stream.send_all(message)
                received = b""
                while len(received) < len(message):
                    received += await stream.receive_some()
                assert received == message
                self.echoes += 1

    async def _be_bad(self, behave: BadClient, code: str, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            transport = await self._connect()
            port = 0
            if isinstance(transport, trio.SocketStream):
                port = transport.socket.getsockname()[1]
            self.expected[port, code] += 1
            if behave not in PATIENT:
                await behave(transport)
                await trio.aclose_forcefully(transport)
                return
        # Those who wait for the end of time hold up nobody else.
        await behave(transport)
        await transport.aclose()

    async def _supervise(self) -> None:
        async for group in self.server.client_errors():
            assert group.dropped == 0
            for error in group.exceptions:
                assert isinstance(error, ConnectionFailed)
                port = error.remote_address.port if error.remote_address is not None else 0
                self.reported[port, error.code] += 1


def assert_all_told(storm: Storm) -> None:
    assert storm.reported == storm.expected
    assert storm.expected.total() == NUMBER
    statistics = storm.server.statistics()
    assert statistics.accepted == NUMBER + 1
    assert statistics.open == statistics.dropped == 0
    assert Counter(statistics.failed) == Counter(
        {
            code: sum(n for (_, each), n in storm.expected.items() if each == code)
            for _, code in storm.expected
        }
    )
    assert storm.echoes > 10


async def test_a_thousand_bad_clients_in_memory(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    server = new_server()
    listener = MemoryListener()
    tasks = trio.lowlevel.current_statistics().tasks_living
    await nursery.start(server.serve_listeners, [listener])
    storm = Storm(server, listener.connect)
    await storm.run(mock_clock)
    await wait_all_tasks_blocked()
    assert_all_told(storm)
    assert trio.lowlevel.current_statistics().tasks_living == tasks


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted by /proc")
async def test_a_thousand_bad_clients_over_sockets(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    server = new_server()
    gc.collect()
    tasks = trio.lowlevel.current_statistics().tasks_living
    files = open_files()
    await nursery.start(server.serve, 0, "127.0.0.1")
    (address,) = server.addresses
    storm = Storm(server, partial(trio.open_tcp_stream, address.host, address.port))
    await storm.run(mock_clock)
    await wait_all_tasks_blocked()
    assert_all_told(storm)
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert open_files() == files


@pytest.mark.parametrize(("behave", "code"), KINDS)
async def test_one_bad_client_does_not_end_the_server(
    behave: BadClient, code: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = new_server()
    listener = MemoryListener()
    await nursery.start(server.serve_listeners, [listener])
    transport = await listener.connect()
    await behave(transport)
    await transport.aclose()
    async with await wrap_client(await listener.connect(), context=CLIENT) as client:
        await client.send_all(b"still there?")
        assert await client.receive_some() == b"still there?"
    (error,) = (await anext(server.client_errors())).exceptions
    assert isinstance(error, ConnectionFailed)
    assert error.code == code
