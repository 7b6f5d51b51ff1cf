"""How a TLSStream ends: goodbyes, truncation, half-closing, and closes that nobody can hold up."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import (
    MockClock,
    lockstep_stream_pair,
    memory_stream_pair,
    open_stream_to_socket_listener,
    wait_all_tasks_blocked,
)

import trio_tlsnode as tls
from trio_tlsnode.stream import TLSStream
from trio_tlsnode.testing import FailingStream, RecordingStream, TransportWrapper, tls_pair

VERSIONS = ("TLSv1.2", "TLSv1.3")
# A record that is an alert to the record layer, or hides one (TLS 1.3), and no larger than one of them.
CLOSE_NOTIFY_SIZE = {"TLSv1.2": 5 + 26, "TLSv1.3": 5 + 19}

Streams = tuple[TLSStream, TLSStream]
Connect = Callable[..., Awaitable[Streams]]


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await open_stream_to_socket_listener(listener)
        return client, await listener.accept()


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def connect(version: str) -> AsyncIterator[Connect]:
    """Makes pairs over "memory" (any buffer), "lockstep" (none) or "socket", and closes them at last."""
    made: list[TLSStream] = []

    async def connect(kind: str = "memory", **options: Any) -> Streams:
        transports: Any = {
            "memory": memory_stream_pair,
            "lockstep": lockstep_stream_pair,
            "socket": tcp_pair,
        }[kind]()
        pair = await tls_pair(
            await transports if kind == "socket" else transports, version=version, **options
        )
        made.extend(pair)
        return pair

    yield connect
    for stream in made:
        await trio.aclose_forcefully(stream)


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([data async for data in stream])


async def assert_closed(transport: trio.abc.Stream) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await transport.send_all(b"x")


def no_time_passes() -> Any:
    """A scope that fails as soon as the mock clock jumps: somebody waited for a time-out."""
    return trio.fail_after(0.001)


# What the other side's end looks like


async def goodbye(peer: TLSStream) -> None:
    await peer.aclose()


async def end(peer: TLSStream) -> None:
    await peer.transport_stream.aclose()


async def end_in_a_record(peer: TLSStream) -> None:
    peer._engine.write(b"this never arrives")
    await peer.transport_stream.send_all(peer._engine.drain()[:-1])
    await peer.transport_stream.aclose()


async def reset(peer: TLSStream) -> None:
    transport = peer.transport_stream
    if isinstance(transport, trio.SocketStream):
        transport.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
    await transport.aclose()


@pytest.mark.feature("C24")
@pytest.mark.parametrize("kind", ["memory", "socket"])
@pytest.mark.parametrize("reader_is_client", [True, False], ids=["client", "server"])
@pytest.mark.parametrize("https_compatible", [True, False])
@pytest.mark.parametrize(
    ("close", "strict", "tolerant"),
    [
        (goodbye, None, None),
        (end, tls.TruncationError, None),
        (end_in_a_record, tls.TruncationError, None),
        (reset, tls.ConnectionLost, tls.ConnectionLost),
    ],
)
async def test_an_end_without_goodbye_is_an_error_unless_it_is_to_be_tolerated(
    connect: Connect,
    kind: str,
    reader_is_client: bool,
    https_compatible: bool,
    close: Callable[[TLSStream], Awaitable[None]],
    strict: type[tls.ConnectionLost] | None,
    tolerant: type[tls.ConnectionLost] | None,
) -> None:
    options = {
        "client_options" if reader_is_client else "server_options": {"https_compatible": https_compatible}
    }
    client, server = await connect(kind, **options)
    reader, peer = (client, server) if reader_is_client else (server, client)
    if kind == "memory" and close is reset:
        # The two first calls of the peer's transport were made in the handshake.
        reader._link.transport = FailingStream(reader.transport_stream, receive=2)
    await peer.send_all(b"before")
    assert await reader.receive_some() == b"before"
    await close(peer)
    expected = tolerant if https_compatible else strict
    for _ in range(2):
        if expected is None:
            assert await reader.receive_some() == b""
            continue
        with pytest.raises(tls.ConnectionLost) as caught:
            await reader.receive_some()
        assert type(caught.value) is expected
        assert caught.value.code == (
            "ECONNRESET" if close is reset else "ERR_SSL_UNEXPECTED_EOF_WHILE_READING"
        )
        assert (caught.value.phase, caught.value.side, caught.value.retryable) == ("secure", "network", True)


async def test_what_arrived_before_the_end_is_delivered_before_the_error(connect: Connect) -> None:
    client, server = await connect()
    await server.send_all(b"all that was sent")
    await server.transport_stream.aclose()
    assert await client.receive_some(3) == b"all"
    assert await client.receive_some() == b" that was sent"
    with pytest.raises(tls.TruncationError):
        await client.receive_some()


async def test_a_truncated_connection_can_still_be_sent_on(connect: Connect) -> None:
    client, server = await connect()
    assert isinstance(server.transport_stream, trio.abc.HalfCloseableStream)
    await server.transport_stream.send_eof()
    with pytest.raises(tls.TruncationError):
        await client.receive_some()
    await client.send_all(b"are you there?")
    await client.aclose()
    assert await receive_all(server) == b"are you there?"


# Half-closing


@pytest.mark.feature("A13")
@pytest.mark.parametrize("kind", ["memory", "lockstep", "socket"])
async def test_after_a_goodbye_the_other_direction_goes_on(connect: Connect, kind: str) -> None:
    client, server = await connect(kind)

    async def answer() -> None:
        question = await receive_all(server)
        for _ in range(3):
            await server.send_all(question * 20_000)
        await server.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        await client.send_all(b"question")
        await client.send_eof()
        assert await receive_all(client) == b"question" * 60_000
    assert await client.receive_some() == b""


@pytest.mark.feature("A13")
async def test_goodbye_is_said_once(version: str) -> None:
    left, right = memory_stream_pair()
    recorder = RecordingStream(left)
    client, server = await tls_pair((recorder, right), version=version)
    sent_before = len(recorder.sent)
    await client.send_eof()
    await client.send_eof()
    await client.aclose()
    assert len(recorder.sent) - sent_before == CLOSE_NOTIFY_SIZE[version]
    assert await server.receive_some() == b""


@pytest.mark.feature("A13")
async def test_after_goodbye_nothing_can_be_sent(connect: Connect) -> None:
    client, server = await connect()
    await client.send_eof()
    for call in (
        partial(client.send_all, b"x"),
        partial(client.send_all, b""),
        client.wait_send_all_might_not_block,
    ):
        with pytest.raises(trio.ClosedResourceError):
            await call()
    await client.do_handshake()
    await server.send_all(b"the answer")
    assert await client.receive_some() == b"the answer"


# Closing says goodbye, and waits for nobody


@pytest.mark.parametrize("kind", ["memory", "socket"])
async def test_closing_says_goodbye_and_does_not_wait_for_the_peers(
    autojump_clock: MockClock, connect: Connect, kind: str
) -> None:
    autojump_clock.autojump_threshold = 0.05
    client, server = await connect(kind)
    with no_time_passes():
        async with client:
            pass
        assert await server.receive_some() == b""
    await assert_closed(client.transport_stream)


@pytest.mark.feature("G12")
@pytest.mark.parametrize("close_timeout", [5.0, 0.25, 0])
async def test_a_peer_without_room_holds_up_closing_for_close_timeout(
    autojump_clock: MockClock, connect: Connect, close_timeout: float
) -> None:
    client, _ = await connect("lockstep", client_options={"close_timeout": close_timeout})
    await client.aclose()
    assert trio.current_time() == close_timeout
    await assert_closed(client.transport_stream)
    assert client._engine._ssl is None


async def test_close_timeout_is_five_seconds_unless_told_otherwise(
    autojump_clock: MockClock, connect: Connect
) -> None:
    _, server = await connect("lockstep")
    await server.aclose()
    assert trio.current_time() == 5


class SlowToClose(TransportWrapper):
    """A transport whose closing takes for ever, unless it is cancelled."""

    async def aclose(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            await super().aclose()


async def test_a_transport_that_is_slow_to_close_holds_up_closing_for_close_timeout(
    autojump_clock: MockClock,
) -> None:
    left, right = memory_stream_pair()
    client, server = await tls_pair((SlowToClose(left), right), client_options={"close_timeout": 3})
    await client.aclose()
    assert trio.current_time() == 3
    await assert_closed(client.transport_stream)
    assert await server.receive_some() == b""


async def test_an_alert_that_the_peer_does_not_take_is_given_up_after_close_timeout(
    autojump_clock: MockClock,
) -> None:
    client, server = await tls_pair(
        lockstep_stream_pair(), handshake=False, client_options={"host": "wrong.example", "close_timeout": 3}
    )

    async def answer_and_fall_silent() -> None:
        with trio.CancelScope() as silence:
            server._link.transport = HangsAfterSending(server.transport_stream, silence)
            await server.do_handshake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_and_fall_silent)
        with pytest.raises(tls.IdentityError):
            await client.do_handshake()
    assert trio.current_time() == 3


class HangsAfterSending(TransportWrapper):
    """Cancels a scope once it has sent."""

    def __init__(self, transport: trio.abc.Stream, scope: trio.CancelScope) -> None:
        super().__init__(transport)
        self._scope = scope

    async def _send(self, data: bytes) -> None:
        await super()._send(data)
        self._scope.cancel()


@pytest.mark.parametrize("kind", ["memory", "lockstep", "socket"])
async def test_two_sides_that_close_at_once_both_get_away(
    autojump_clock: MockClock, connect: Connect, kind: str
) -> None:
    autojump_clock.autojump_threshold = 0.05
    client, server = await connect(kind)
    with no_time_passes():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            nursery.start_soon(server.aclose)


async def test_two_sides_with_full_pipes_that_close_at_once_both_get_away(
    autojump_clock: MockClock, version: str
) -> None:
    autojump_clock.autojump_threshold = 0.05
    one, other = trio.socket.socketpair()
    pair = await tls_pair((trio.SocketStream(one), trio.SocketStream(other)), version=version)
    for stream in pair:
        while stream._flush_nowait():
            stream._engine.encrypt(bytes(16384), 0, 16384)
    with no_time_passes():
        async with trio.open_nursery() as nursery:
            for stream in pair:
                nursery.start_soon(stream.aclose)


# Transports without any buffer, and the tickets of TLS 1.3


async def test_connecting_and_closing_needs_no_buffer(autojump_clock: MockClock, connect: Connect) -> None:
    client, server = await connect("lockstep")
    with no_time_passes():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            assert await server.receive_some() == b""
        await server.aclose()


@pytest.mark.parametrize("size", [1, 300_000])
async def test_a_client_that_only_writes_needs_no_buffer(
    autojump_clock: MockClock, connect: Connect, size: int
) -> None:
    client, server = await connect("lockstep")

    async def write() -> None:
        await client.send_all(bytes(size))
        await client.aclose()

    with no_time_passes():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            assert await receive_all(server) == bytes(size)
        await server.aclose()


@pytest.mark.parametrize("size", [1, 300_000])
async def test_a_client_that_only_reads_needs_no_buffer(
    autojump_clock: MockClock, connect: Connect, size: int
) -> None:
    client, server = await connect("lockstep")

    async def write() -> None:
        await server.send_all(bytes(size))
        await server.aclose()

    with no_time_passes():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            assert await receive_all(client) == bytes(size)
        await client.aclose()


# Sockets: closing over unread input destroys what is on its way

ANSWER = bytes(index % 251 for index in range(300_000))


async def connect_with_buffers(version: str, *, writer_is_client: bool) -> Streams:
    """Connect so that the writer's kernel takes an answer at once, and the reader's only some of it."""
    client, server = await tcp_pair()
    writer, reader = (client, server) if writer_is_client else (server, client)
    writer.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 1 << 20)
    if hasattr(trio.socket, "TCP_NOTSENT_LOWAT"):
        # Trio lets the kernel take little more than it can send.
        writer.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, 1 << 30)
    reader.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 1 << 17)
    return await tls_pair((client, server), version=version)


async def test_a_client_that_only_writes_loses_nothing(version: str) -> None:
    client, server = await connect_with_buffers(version, writer_is_client=True)
    async with server:
        await server.send_all(b"a greeting that nobody reads")
        await client.send_all(ANSWER)
        await client.aclose()
        assert await receive_all(server) == ANSWER


async def test_a_client_that_connects_writes_and_closes_at_once_loses_nothing(version: str) -> None:
    client, server = await connect_with_buffers(version, writer_is_client=True)
    async with server:
        await client.send_all(ANSWER)
        await client.aclose()
        assert await receive_all(server) == ANSWER


@pytest.mark.feature("B5")
@pytest.mark.parametrize("unread", [b"", bytes(10_000)], ids=["a goodbye", "data and a goodbye"])
async def test_an_answer_arrives_whole_though_something_was_never_read(version: str, unread: bytes) -> None:
    client, server = await connect_with_buffers(version, writer_is_client=False)
    async with client:
        await client.send_all(b"question")
        assert await server.receive_some() == b"question"
        await client.send_all(unread)
        await client.send_eof()
        await server.send_all(ANSWER)
        await server.aclose()
        assert await receive_all(client) == ANSWER


async def test_what_could_not_be_sent_yet_goes_before_the_goodbye(connect: Connect) -> None:
    client, server = await connect("socket")
    sent = 0
    while client._flush_nowait():
        client._engine.encrypt(bytes(16384), 0, 16384)
        sent += 16384
    received = b""
    async with trio.open_nursery() as nursery:
        # All but the last record, so that there is room again for its rest and for the goodbye.
        while len(received) < sent - 16384:
            received += await server.receive_some()
        nursery.start_soon(client.aclose)
        assert received + await receive_all(server) == bytes(sent)
    assert await server.receive_some() == b""


# When there is nobody to say goodbye to, or no way to say it


async def test_closing_before_the_handshake_says_nothing() -> None:
    left, right = memory_stream_pair()
    recorder = RecordingStream(left)
    client, server = await tls_pair((recorder, right), handshake=False)
    await client.aclose()
    assert recorder.record == []
    with pytest.raises(tls.ConnectionLost) as caught:
        await server.do_handshake()
    assert caught.value.phase == "hello"
    with pytest.raises(trio.ClosedResourceError):
        await client.do_handshake()


async def test_closing_during_the_handshake_says_nothing_more(connect: Connect) -> None:
    client, server = await connect(handshake=False)

    async def expect_closed() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await client.do_handshake()

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(expect_closed)
        await wait_all_tasks_blocked()
        sent = client.statistics().ciphertext_sent
        await client.aclose()
    assert client.statistics().ciphertext_sent == sent
    with pytest.raises(tls.ConnectionLost):
        await server.do_handshake()


async def test_closing_after_a_failure_says_nothing_more() -> None:
    left, right = memory_stream_pair()
    recorder = RecordingStream(left)
    client, server = await tls_pair((recorder, right))
    await server.transport_stream.send_all(b"\x17\x03\x03\x00\x05wrong")
    with pytest.raises(tls.ProtocolError):
        await client.receive_some()
    said = recorder.record.copy()
    await client.aclose()
    assert recorder.record == said


async def test_closing_while_another_task_waits_for_room_says_goodbye() -> None:
    one, other = trio.socket.socketpair()
    client, server = await tls_pair((trio.SocketStream(one), trio.SocketStream(other)))
    # There is room, but not so much that it would be worth to wake a writer.
    await client.send_all(bytes(100_000))

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await client.wait_send_all_might_not_block()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await client.aclose()
    assert len(await receive_all(server)) == 100_000
    await server.aclose()


class BreaksWhenClosed(TransportWrapper):
    """A transport on which a send never ends, and breaks when it is closed."""

    async def _send(self, _data: bytes) -> None:
        await self._closed.wait()
        raise trio.BrokenResourceError


async def test_a_send_that_breaks_over_closing_is_a_closed_stream() -> None:
    left, _ = memory_stream_pair()
    client, _ = await tls_pair((BreaksWhenClosed(left), memory_stream_pair()[0]), handshake=False)

    async def handshake() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await client.do_handshake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(handshake)
        await wait_all_tasks_blocked()
        await client.aclose()


async def test_closing_while_another_task_sends_says_no_goodbye(connect: Connect) -> None:
    client, server = await connect("lockstep")

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await client.send_all(bytes(1 << 20))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert await server.receive_some(1) == b"\0"
        await client.aclose()
    with pytest.raises(tls.TruncationError):
        await receive_all(server)


@pytest.mark.parametrize("kind", ["memory", "socket"])
async def test_closing_over_a_transport_that_is_closed_already_is_no_error(
    connect: Connect, kind: str
) -> None:
    client, _ = await connect(kind)
    await client.transport_stream.aclose()
    await client.aclose()
    assert client._engine._ssl is None


async def test_closing_over_a_transport_that_breaks_is_no_error() -> None:
    left, right = memory_stream_pair()
    # The handshake takes two sends of a client.
    client, _ = await tls_pair((FailingStream(left, send=3), right))
    await client.aclose()
    await assert_closed(client.transport_stream)


@pytest.mark.parametrize("kind", ["memory", "lockstep", "socket"])
async def test_a_cancelled_close_closes_all_the_same_and_at_once(
    autojump_clock: MockClock, connect: Connect, kind: str
) -> None:
    autojump_clock.autojump_threshold = 0.05
    for stream in await connect(kind):
        with no_time_passes(), trio.CancelScope() as scope:
            scope.cancel()
            await stream.aclose()
        assert scope.cancelled_caught
        await assert_closed(stream.transport_stream)
        assert stream._engine._ssl is None
        for call in (
            stream.receive_some,
            partial(stream.send_all, b""),
            stream.do_handshake,
            stream.send_eof,
        ):
            with pytest.raises(trio.ClosedResourceError):
                await call()


async def test_a_second_close_meanwhile_does_not_disturb_the_first(connect: Connect) -> None:
    client, server = await connect("lockstep")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.aclose)
        await wait_all_tasks_blocked()
        await client.aclose()
        assert await server.receive_some() == b""


async def test_closing_ends_the_calls_of_other_tasks(connect: Connect) -> None:
    client, _ = await connect("lockstep")

    async def expect_closed(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await call()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, client.receive_some)
        nursery.start_soon(expect_closed, partial(client.send_all, b"x"))
        await wait_all_tasks_blocked()
        await client.aclose()


async def test_a_stream_that_is_closed_while_a_callback_chooses_makes_no_ssl() -> None:
    chosen = trio.Event()

    async def choose(_name: str) -> None:
        await chosen.wait()

    client, server = await tls_pair(
        handshake=False, client_options={"host": "localhost"}, server_options={"sni_callback": choose}
    )

    async def expect_closed() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await server.do_handshake()

    async def expect_lost() -> None:
        with pytest.raises(tls.ConnectionLost):
            await client.do_handshake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed)
        nursery.start_soon(expect_lost)
        await wait_all_tasks_blocked()
        await server.aclose()
        chosen.set()
    assert server._engine._ssl is None
