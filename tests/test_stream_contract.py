"""TLSStream keeps trio's contract of a stream, and what TLS adds to it, over memory and over sockets."""

from __future__ import annotations

import fcntl
import sys
import termios
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import (
    MockClock,
    assert_checkpoints,
    check_half_closeable_stream,
    lockstep_stream_pair,
    memory_stream_pair,
    open_stream_to_socket_listener,
    wait_all_tasks_blocked,
)

import trio_tlsnode as tls
from trio_tlsnode.stream import TLSStream
from trio_tlsnode.testing import DelayingStream, OneByteStream, RecordingStream, TransportWrapper, tls_pair

VERSIONS = ("TLSv1.2", "TLSv1.3")
Streams = tuple[TLSStream, TLSStream]
MakePair = Callable[..., Awaitable[Streams]]


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await open_stream_to_socket_listener(listener)
        return client, await listener.accept()


async def memory_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return memory_stream_pair()


TRANSPORTS: dict[str, Callable[[], Awaitable[Any]]] = {"memory": memory_pair, "socket": tcp_pair}


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=TRANSPORTS)
async def pair(request: pytest.FixtureRequest, version: str) -> AsyncIterator[Streams]:
    """A client and a server, over each version and each kind of transport."""
    client, server = await tls_pair(await TRANSPORTS[request.param](), version=version)
    yield client, server
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


async def receive_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    received = b""
    while len(received) < count:
        received += await stream.receive_some(count - len(received))
    return received


# The generic kit


def clog(stream: TLSStream) -> None:
    """Fill the kernel's buffer with records that nobody reads, none of them half sent.

    Linux takes a write to a Unix socket whole as long as there is any room, and tells how much is left.
    """
    assert isinstance(stream.transport_stream, trio.SocketStream)
    sock = stream.transport_stream.socket
    room = sock.getsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF)
    while int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder) < room:
        stream._engine.encrypt(bytes(16384), 0, 16384)
        assert stream._flush_nowait()


@pytest.mark.feature("G1")
@pytest.mark.feature("A13")
async def test_it_is_a_half_closeable_stream_over_memory(version: str) -> None:
    async def clogged() -> Streams:
        return await tls_pair(lockstep_stream_pair(), version=version)

    await check_half_closeable_stream(partial(tls_pair, version=version), clogged)


@pytest.mark.feature("G1")
@pytest.mark.feature("A13")
async def test_it_is_a_half_closeable_stream_over_sockets(version: str) -> None:
    async def connected() -> Streams:
        return await tls_pair(await tcp_pair(), version=version)

    async def clogged() -> Streams:
        one, other = trio.socket.socketpair()
        streams = await tls_pair((trio.SocketStream(one), trio.SocketStream(other)), version=version)
        for stream in streams:
            clog(stream)
        return streams

    await check_half_closeable_stream(connected, clogged if sys.platform == "linux" else None)


# Checkpoints


async def test_each_call_of_a_finished_connection_is_a_checkpoint(pair: Streams) -> None:
    client, server = pair
    with assert_checkpoints():
        await client.do_handshake()
    with assert_checkpoints():
        await client.wait_send_all_might_not_block()
    with assert_checkpoints():
        await client.send_all(b"")
    with assert_checkpoints():
        await client.send_all(b"12")
    assert await server.receive_some(1) == b"1"
    with assert_checkpoints():
        assert await server.receive_some(1) == b"2"  # it is there already
    with assert_checkpoints():
        await client.send_eof()
    with assert_checkpoints():
        await client.send_eof()
    assert await server.receive_some() == b""
    with assert_checkpoints():
        assert await server.receive_some() == b""
    for stream in pair:
        with assert_checkpoints():
            await stream.aclose()
        with assert_checkpoints():
            await stream.aclose()


async def test_a_call_that_was_cancelled_before_does_nothing(pair: Streams) -> None:
    client, server = pair
    await client.send_all(b"before")
    calls: list[Callable[[], Awaitable[object]]] = [
        client.do_handshake,
        partial(client.send_all, b"never"),
        client.wait_send_all_might_not_block,
        client.send_eof,
        server.receive_some,
    ]
    for call in calls:
        with trio.CancelScope() as scope:
            scope.cancel()
            await call()
        assert scope.cancelled_caught
    await client.send_all(b" and after")
    assert await receive_exactly(server, 16) == b"before and after"


async def test_a_receiver_that_is_never_out_of_data_lets_others_run() -> None:
    one, other = trio.socket.socketpair()
    client, server = await tls_pair((trio.SocketStream(one), trio.SocketStream(other)))
    async with client, server, trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, bytes(4 << 20))
        left = 4 << 20
        while left:
            await wait_all_tasks_blocked()  # so that the socket is full
            with assert_checkpoints():
                left -= len(await server.receive_some())


# What goes in and what comes out


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 300_000])
async def test_any_amount_arrives_whole(pair: Streams, size: int) -> None:
    client, server = pair
    data = bytes(index * 7 % 251 for index in range(size))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, data)
        assert await receive_exactly(server, size) == data
        nursery.start_soon(server.send_all, data)
        assert await receive_exactly(client, size) == data


@pytest.mark.parametrize(("size", "records"), [(0, 0), (1, 1), (16383, 1), (16384, 1), (16385, 2)])
async def test_a_record_holds_at_most_16_kib(version: str, size: int, records: int) -> None:
    left, right = memory_stream_pair()
    recorder = RecordingStream(left)
    client, _ = await tls_pair((recorder, right), version=version)
    handshake = len(recorder.sent)
    await client.send_all(bytes(size))
    at, count = handshake, 0
    while at < len(recorder.sent):
        at += 5 + int.from_bytes(recorder.sent[at + 3 : at + 5])
        count += 1
    assert count == records


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"abcdef", b"abcdef"),
        (bytearray(b"abcdef"), b"abcdef"),
        (memoryview(b"abcdef"), b"abcdef"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (memoryview(b"abcdef")[::-1], b"fedcba"),
        (memoryview(b"abcdefgh").cast("I"), b"abcdefgh"),
        (memoryview(b"abcdefgh").cast("B", (2, 4)), b"abcdefgh"),
    ],
    ids=["bytes", "bytearray", "memoryview", "every second byte", "backwards", "integers", "two-dimensional"],
)
async def test_bytes_of_every_kind_can_be_sent(
    pair: Streams, data: bytes | bytearray | memoryview, expected: bytes
) -> None:
    client, server = pair
    await client.send_all(data)
    assert await receive_exactly(server, len(expected)) == expected


@pytest.mark.parametrize("data", ["text", None, 5, [1, 2]])
async def test_what_is_not_bytes_is_refused_and_costs_nothing(pair: Streams, data: Any) -> None:
    client, server = pair
    with pytest.raises(TypeError):
        await client.send_all(data)
    await client.send_all(b"fine")
    assert await receive_exactly(server, 4) == b"fine"


@pytest.mark.feature("A15")
@pytest.mark.parametrize(
    ("max_bytes", "error"), [(0, ValueError), (-1, ValueError), ("5", TypeError), (1.5, TypeError)]
)
async def test_a_limit_that_makes_no_sense_is_refused_and_costs_nothing(
    pair: Streams, max_bytes: Any, error: type[Exception]
) -> None:
    client, server = pair
    await client.send_all(b"fine")
    with pytest.raises(error):
        await server.receive_some(max_bytes)
    assert await receive_exactly(server, 4) == b"fine"


@pytest.mark.feature("A15")
async def test_receive_some_returns_at_most_what_was_asked_for_and_256_kib_by_default(pair: Streams) -> None:
    client, server = pair
    sizes = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, bytes(1 << 20))
        await wait_all_tasks_blocked()
        for limit, largest in ((1, 1), (100, 100), (None, 1 << 18), (1 << 30, 1 << 18)):
            sizes.append(len(await server.receive_some(limit)))
            assert sizes[-1] <= largest
        await receive_exactly(server, (1 << 20) - sum(sizes))


async def test_a_large_arrival_can_be_read_byte_by_byte(pair: Streams) -> None:
    client, server = pair
    data = bytes(index % 251 for index in range(40_000))
    await client.send_all(data)
    received = [await server.receive_some(1) for _ in range(3000)]
    # Another connection's arrival uses the same memory in between.
    other_client, other_server = await tls_pair()
    await other_client.send_all(b"\xff" * 40_000)
    assert await receive_exactly(other_server, 40_000) == b"\xff" * 40_000
    received += [await server.receive_some(1) for _ in range(1000)]
    received.append(await receive_exactly(server, 36_000))
    assert b"".join(received) == data


async def test_a_transport_that_delivers_single_bytes_changes_nothing(version: str) -> None:
    left, right = memory_stream_pair()
    client, server = await tls_pair((OneByteStream(left), OneByteStream(right)), version=version)
    await client.send_all(b"question")
    assert await receive_exactly(server, 8) == b"question"
    await server.send_all(b"answer")
    assert await receive_exactly(client, 6) == b"answer"
    await client.aclose()
    assert await server.receive_some() == b""


async def test_it_is_an_async_iterator_over_what_the_peer_says(pair: Streams) -> None:
    client, server = pair
    async with client:
        await client.send_all(b"all of it")
    assert b"".join([data async for data in server]) == b"all of it"


@pytest.mark.feature("C21")
@pytest.mark.node("test-https-byteswritten.js")
async def test_statistics_count_plaintext_and_ciphertext(pair: Streams) -> None:
    client, server = pair
    before = client.statistics()
    assert (before.plaintext_sent, before.plaintext_received) == (0, 0)
    assert before.ciphertext_sent > 200
    await client.send_all(bytes(1000))
    await receive_exactly(server, 1000)
    assert client.statistics().plaintext_sent == server.statistics().plaintext_received == 1000
    assert client.statistics().ciphertext_sent == server.statistics().ciphertext_received
    assert 1000 < client.statistics().ciphertext_sent - before.ciphertext_sent < 1050


@pytest.mark.feature("C19")
@pytest.mark.feature("C4")
async def test_addresses_and_encrypted_are_there_before_the_handshake_and_after_closing() -> None:
    one, other = await tcp_pair()
    client, server = await tls_pair((one, other), handshake=False)
    host, port = other.socket.getsockname()
    where = tls.Address(host, port, "IPv4")
    assert client.remote_address == server.local_address == where
    for stream in (client, server):
        await trio.aclose_forcefully(stream)
    assert client.remote_address == server.local_address == where
    assert client.encrypted is True
    memory_client, _ = await tls_pair()
    assert memory_client.local_address is None
    assert memory_client.remote_address is None


async def test_repr_tells_role_state_and_what_was_negotiated() -> None:
    client, server = await tls_pair(handshake=False, version="TLSv1.3")
    assert repr(client) == "<TLSStream client, open, before the handshake>"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    assert repr(server).startswith("<TLSStream server, open, TLSv1.3, TLS_")
    await server.aclose()
    assert repr(server).startswith("<TLSStream server, closed, TLSv1.3, TLS_")
    with pytest.raises(tls.ConnectionFailed):
        await (await failed_client()).send_all(b"x")


async def failed_client() -> TLSStream:
    transport, peer = memory_stream_pair()
    client, _ = await tls_pair((transport, memory_stream_pair()[0]), handshake=False)
    await peer.aclose()
    with pytest.raises(tls.ConnectionLost):
        await client.do_handshake()
    assert repr(client) == "<TLSStream client, failed, before the handshake>"
    return client


# Options


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("handshake_timeout", "5", "ERR_INVALID_ARG_TYPE"),
        ("handshake_timeout", True, "ERR_INVALID_ARG_TYPE"),
        ("handshake_timeout", None, "ERR_INVALID_ARG_TYPE"),
        ("handshake_timeout", -1, "ERR_OUT_OF_RANGE"),
        ("close_timeout", float("nan"), "ERR_OUT_OF_RANGE"),
        ("server_name", "127.0.0.1", "ERR_INVALID_ARG_VALUE"),
        ("host", b"localhost", "ERR_INVALID_ARG_TYPE"),
        ("check_server_identity", "no", "ERR_INVALID_ARG_TYPE"),
        ("alpn_protocols", [""], "ERR_OUT_OF_RANGE"),
    ],
)
async def test_an_option_that_cannot_be_used_is_refused_when_the_stream_is_made(
    option: str, value: object, code: str
) -> None:
    with pytest.raises(tls.ConfigurationError) as caught:
        await tls_pair(client_options={option: value}, handshake=False)
    assert caught.value.code == code
    assert caught.value.option is not None
    assert caught.value.option.startswith(option)


@pytest.mark.node("test-tls-wrap-event-emmiter.js")
@pytest.mark.parametrize("server_side", [False, True])
async def test_a_context_or_transport_of_the_wrong_type_is_refused(server_side: bool) -> None:
    transport, _ = memory_stream_pair()
    with pytest.raises(tls.ConfigurationTypeError, match="SecureContext"):
        TLSStream(transport, {}, server_side=server_side)  # type: ignore[call-overload]
    client, server = await tls_pair()
    context = (server if server_side else client)._engine.context
    with pytest.raises(tls.ConfigurationTypeError, match="transport"):
        TLSStream(trio.socket.socket, context, server_side=server_side)  # type: ignore[call-overload]


# Before and after the handshake


@pytest.mark.feature("C23")
async def test_before_the_handshake_nothing_is_known_and_nothing_wrong_is_said() -> None:
    client, _ = await tls_pair(handshake=False)
    for name in ("info", "authorized", "authorization_error", "alpn_protocol", "server_name"):
        with pytest.raises(trio.NeedHandshakeError):
            getattr(client, name)
    assert client.client_hello is None


@pytest.mark.feature("C1")
@pytest.mark.feature("C3")
@pytest.mark.feature("C6")
async def test_what_was_negotiated_is_one_value_that_outlives_the_connection(version: str) -> None:
    client, server = await tls_pair(version=version, client_options={"host": "localhost"})
    for stream in (client, server):
        info = stream.info
        await stream.aclose()
        assert stream.info is info
        assert info.protocol == version
        assert stream.server_name == info.server_name == "localhost"
        assert stream.alpn_protocol is info.alpn_protocol is None
    assert (client.authorized, client.authorization_error) == (True, None)
    assert (server.authorized, server.authorization_error) == (False, None)
    hello = server.client_hello
    assert hello is not None
    assert hello.server_name == "localhost"


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_data_before_the_handshake_does_it_first(version: str, kind: str) -> None:
    client, server = await tls_pair(await TRANSPORTS[kind](), version=version, handshake=False)
    received = []

    async def receive() -> None:
        received.append(await receive_exactly(server, 5))

    async with client, server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(client.send_all, b"hello")
        assert received == [b"hello"]
        assert client.info.protocol == server.info.protocol == version


async def test_goodbye_before_the_handshake_does_it_first_too() -> None:
    client, server = await tls_pair(handshake=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_eof)
        nursery.start_soon(server.wait_send_all_might_not_block)
    assert await server.receive_some() == b""
    await server.send_all(b"the answer")
    assert await client.receive_some() == b"the answer"


# Packets


async def test_a_client_says_its_first_words_in_one_write(version: str) -> None:
    left, right = memory_stream_pair()
    recorder = RecordingStream(left)
    client, _ = await tls_pair((recorder, right), version=version)
    written = len([1 for direction, _ in recorder.record if direction == "sent"])
    await client.send_all(bytes(10_000))
    assert len([1 for direction, _ in recorder.record if direction == "sent"]) == written + 1 == 3


@pytest.mark.parametrize(("version", "writes"), [("TLSv1.2", 3), ("TLSv1.3", 2)])
async def test_a_server_sends_its_tickets_together_with_its_first_words(version: str, writes: int) -> None:
    left, right = memory_stream_pair()
    recorder = RecordingStream(right)
    client, server = await tls_pair((left, recorder), version=version)
    await client.send_all(b"question")
    assert await server.receive_some() == b"question"
    with trio.move_on_after(0):
        await server.receive_some()  # waiting for more is no reason to send them
    await server.send_all(b"answer")
    assert len([1 for direction, _ in recorder.record if direction == "sent"]) == writes
    assert await client.receive_some() == b"answer"


# Several tasks at once


@pytest.mark.parametrize("kind", ["memory", "lockstep", "socket"])
async def test_both_sides_send_and_receive_at_once_whatever_the_transport_buffers(
    autojump_clock: MockClock, version: str, kind: str
) -> None:
    transports = lockstep_stream_pair() if kind == "lockstep" else await TRANSPORTS[kind]()
    autojump_clock.autojump_threshold = 0.05 if kind == "socket" else 0
    client, server = await tls_pair(transports, version=version)
    from_client, from_server = bytes(b"\xaa" * 700_000), bytes(b"\x55" * 700_000)
    received: dict[TLSStream, bytes] = {}

    async def receive(stream: TLSStream) -> None:
        received[stream] = await receive_exactly(stream, 700_000)

    async with client, server:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send_all, from_client)
                nursery.start_soon(server.send_all, from_server)
                await wait_all_tasks_blocked()
                nursery.start_soon(receive, client)
                nursery.start_soon(receive, server)
        assert received[server] == from_client
        assert received[client] == from_server


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_a_second_task_in_the_same_direction_is_a_mistake_of_the_program(
    version: str, kind: str
) -> None:
    client, server = await tls_pair(await TRANSPORTS[kind](), version=version, handshake=False)
    async with client, server, trio.open_nursery() as nursery:
        nursery.start_soon(client.receive_some)
        nursery.start_soon(client.send_all, b"x")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await client.receive_some()
        for call in (client.send_eof, client.wait_send_all_might_not_block, partial(client.send_all, b"y")):
            with pytest.raises(trio.BusyResourceError):
                await call()
        # Who was there first is not disturbed.
        assert await server.receive_some() == b"x"
        await server.send_all(b"answer")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how full a socket is")
async def test_waiting_for_room_and_answering_the_peer_do_not_get_in_each_others_way(
    autojump_clock: MockClock, version: str
) -> None:
    autojump_clock.autojump_threshold = 0.05
    one, other = trio.socket.socketpair()
    client, server = await tls_pair((trio.SocketStream(one), trio.SocketStream(other)), version=version)
    clog(client)
    sent = client.statistics().plaintext_sent
    # As if the peer had asked for something: an answer that waits for room, and for whoever sends it.
    client._engine.encrypt(b"the answer", 0, 10)
    assert not client._flush_nowait()
    async with client, server, trio.open_nursery() as nursery:
        for first, second in (
            (client.receive_some, client.wait_send_all_might_not_block),
            (client.wait_send_all_might_not_block, client.receive_some),
        ):
            async with trio.open_nursery() as waiting:
                waiting.start_soon(first)
                await wait_all_tasks_blocked()
                waiting.start_soon(second)
                await wait_all_tasks_blocked()
                waiting.cancel_scope.cancel()
        nursery.start_soon(client.wait_send_all_might_not_block)
        await wait_all_tasks_blocked()
        nursery.start_soon(client.receive_some)
        with trio.fail_after(60):
            assert (await receive_exactly(server, sent + 10)).endswith(b"the answer")
        nursery.cancel_scope.cancel()


@pytest.mark.feature("A3")
async def test_tls_runs_inside_tls(version: str) -> None:
    transports = await tcp_pair()
    outer = await tls_pair(transports, version=version)
    client, server = await tls_pair(outer, version="TLSv1.3")
    async with client, server:
        assert client.remote_address == outer[0].remote_address is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, bytes(100_000))
            assert await receive_exactly(server, 100_000) == bytes(100_000)
        await client.send_eof()
        assert await server.receive_some() == b""
        await server.send_all(b"the answer")
        assert await client.receive_some() == b"the answer"
    assert [transport.socket.fileno() for transport in transports] == [-1, -1]


def test_two_loops_in_two_threads_keep_their_data_apart(version: str) -> None:
    received: dict[int, bytes] = {}
    together = threading.Barrier(2)

    async def exchange(byte: int) -> None:
        client, server = await tls_pair(await tcp_pair(), version=version)
        together.wait()
        async with client, server:
            for _ in range(40):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.send_all, bytes([byte]) * 50_000)
                    received[byte] = received.get(byte, b"") + await receive_exactly(server, 50_000)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=trio.run, args=(exchange, byte)) for byte in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert {byte: set(data) for byte, data in received.items()} == {1: {1}, 2: {2}}
    assert len(received[1]) == len(received[2]) == 2_000_000


class ProtectionRecorder(TransportWrapper):
    """Writes down whether the caller is protected against KeyboardInterrupt."""

    def __init__(self, transport: trio.abc.Stream) -> None:
        super().__init__(transport)
        self.protected: list[bool] = []

    async def _send(self, data: bytes) -> None:
        self.protected.append(trio.lowlevel.currently_ki_protected())
        await super()._send(data)

    async def _receive(self, max_bytes: int) -> bytes:
        self.protected.append(trio.lowlevel.currently_ki_protected())
        return await super()._receive(max_bytes)


async def test_a_keyboard_interrupt_cannot_strike_between_the_steps() -> None:
    left, right = memory_stream_pair()
    recorder = ProtectionRecorder(left)
    client, server = await tls_pair((recorder, right))
    await client.send_all(b"question")
    await server.send_all(b"answer")
    await client.receive_some()
    await client.send_eof()
    await client.aclose()
    assert len(recorder.protected) > 4
    assert all(recorder.protected)
    assert not trio.lowlevel.currently_ki_protected()


async def test_a_slow_transport_takes_only_its_time(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    client, server = await tls_pair((DelayingStream(left, delay=1), right), version="TLSv1.3")
    # One flight there, one back, one there again, which the server need not wait for.
    assert trio.current_time() == 3
    await client.send_all(b"question")
    assert trio.current_time() == 4
    assert await server.receive_some() == b"question"
