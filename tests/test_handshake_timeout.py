"""The handshake time-out: one span from accept on, to the second, whatever the peer or a callback does."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_tlsnode import (
    Address,
    CallbackError,
    ConfigurationError,
    ConfigurationTypeError,
    ConnectionFailed,
    Engine,
    HandshakeTimeout,
    PeerAlert,
    ProtocolError,
    SecureContext,
    TLSServer,
    TLSStream,
    wrap_client,
)
from trio_tlsnode.testing import MemoryListener, OneByteStream, StallingStream, default_authority

pytestmark = pytest.mark.feature("B7")

CLIENT = SecureContext(ca=default_authority().ca)
SERVER = SecureContext(**default_authority().good("localhost").options)


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def serve(nursery: trio.Nursery, server: TLSServer) -> MemoryListener:
    listener = MemoryListener()
    await nursery.start(server.serve_listeners, [listener])
    return listener


async def next_failure(server: TLSServer) -> ConnectionFailed:
    """Return the one failure that comes next."""
    group = await anext(server.client_errors())
    (error,) = group.exceptions
    assert isinstance(error, ConnectionFailed)
    return error


async def assert_times_out(
    server: TLSServer, transport: trio.abc.ReceiveStream, *, at: float
) -> HandshakeTimeout:
    """Expect the time-out of the one connection, at that time, and its transport to be closed."""
    error = await next_failure(server)
    assert trio.current_time() == at
    assert type(error) is HandshakeTimeout
    assert error.code == "ERR_TLS_HANDSHAKE_TIMEOUT"
    assert error.retryable
    await receive_forever(transport)  # it ends: the transport is closed
    assert server.statistics().open == 0
    return error


async def receive_forever(transport: trio.abc.ReceiveStream) -> None:
    async for _ in transport:
        pass


async def trickle(transport: trio.abc.SendStream, data: bytes) -> None:
    """Send one byte a second until the peer is gone."""
    for byte in data:
        try:
            await transport.send_all(bytes((byte,)))
        except trio.BrokenResourceError:
            return
        await trio.sleep(1)


def new_client(context: SecureContext = CLIENT, host: str = "localhost", alpn: Sequence[str] = ()) -> Engine:
    """Return a client's engine that has its ClientHello to say."""
    engine = Engine(context, host=host, alpn_protocols=alpn)
    engine.do_handshake()
    return engine


def client_hello(server_name: str = "localhost") -> bytes:
    return new_client(host=server_name).drain()


async def forever(*_args: object) -> None:
    await trio.sleep_forever()


# A server


@pytest.mark.node("test-tls-timeout-server.js", "test-https-timeout-server.js")
async def test_silent_client_is_timed_out_to_the_second(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = TLSServer(echo, SERVER, handshake_timeout=10)
    client = await (await serve(nursery, server)).connect()
    error = await assert_times_out(server, client, at=10)
    assert error.timeout == 10
    assert error.phase == "hello"
    assert await client.receive_some() == b""


async def test_silent_client_is_not_timed_out_earlier(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    server = TLSServer(echo, SERVER, handshake_timeout=10)
    client = await (await serve(nursery, server)).connect()
    await wait_all_tasks_blocked()
    mock_clock.jump(9.999)
    await wait_all_tasks_blocked()
    assert server.statistics().open == 1
    mock_clock.jump(0.001)
    await assert_times_out(server, client, at=10)


async def test_time_out_is_two_minutes_by_default(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    server = TLSServer(echo, SERVER)
    client = await (await serve(nursery, server)).connect()
    await assert_times_out(server, client, at=120)


async def test_time_out_of_a_socket_closes_it(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    server = TLSServer(echo, SERVER, handshake_timeout=10)
    (listener,) = await nursery.start(server.serve, 0, "127.0.0.1")
    async with await trio.testing.open_stream_to_socket_listener(listener) as client:
        while not server.statistics().open:
            await wait_all_tasks_blocked()
        mock_clock.jump(10)
        error = await next_failure(server)
        assert type(error) is HandshakeTimeout
        assert error.remote_address == Address("127.0.0.1", client.socket.getsockname()[1], "IPv4")
        assert await client.receive_some() == b""


async def test_trickled_hello_does_not_extend_the_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = TLSServer(echo, SERVER, handshake_timeout=10)
    client = await (await serve(nursery, server)).connect()
    nursery.start_soon(trickle, client, client_hello())
    error = await assert_times_out(server, client, at=10)
    assert error.phase == "hello"
    assert error.client_hello is None


async def test_bytes_trickled_after_the_hello_do_not_extend_the_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = TLSServer(echo, SERVER, handshake_timeout=10)
    client = await (await serve(nursery, server)).connect()
    engine = new_client()
    await client.send_all(engine.drain())
    await trio.sleep(4)
    engine.feed(await client.receive_some())
    engine.do_handshake()
    nursery.start_soon(trickle, client, engine.drain())
    error = await assert_times_out(server, client, at=10)
    assert error.phase == "handshake"
    assert error.server_name == "localhost"


async def test_client_that_takes_nothing_is_timed_out(autojump_clock: MockClock) -> None:
    server = TLSServer(echo, SERVER, handshake_timeout=10)
    client, transport = memory_stream_pair()
    await client.send_all(client_hello())
    await server.handle(StallingStream(transport, send_after=100))
    await assert_times_out(server, client, at=10)


async def test_on_connection_that_never_returns_is_timed_out(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = TLSServer(echo, SERVER, handshake_timeout=10, on_connection=forever)
    client = await (await serve(nursery, server)).connect()
    await client.send_all(client_hello())
    error = await assert_times_out(server, client, at=10)
    assert error.phase == "hello"
    assert await client.receive_some() == b""


async def test_sni_callback_that_never_returns_is_timed_out(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = TLSServer(echo, SERVER, handshake_timeout=10, sni_callback=forever)
    client = await (await serve(nursery, server)).connect()
    await client.send_all(client_hello("a.example"))
    error = await assert_times_out(server, client, at=10)
    assert error.phase == "handshake"
    assert error.server_name == "a.example"
    assert error.client_hello is not None


@pytest.mark.parametrize(("pause", "secure"), [(3.0, True), (4.0, False)])
async def test_callbacks_and_peer_share_one_span(
    pause: float, *, secure: bool, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def slow(*_args: object) -> None:
        await trio.sleep(pause)

    server = TLSServer(echo, SERVER, handshake_timeout=10, on_connection=slow, sni_callback=slow)
    client = await (await serve(nursery, server)).connect()
    engine = new_client()
    await client.send_all(engine.drain())
    engine.feed(await client.receive_some())
    if not secure:
        await assert_times_out(server, client, at=10)
        return
    engine.do_handshake()
    await trio.sleep(pause)
    await client.send_all(engine.drain())
    await wait_all_tasks_blocked()
    assert server.statistics().secure == 1


async def test_secure_connection_has_all_the_time_in_the_world(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = TLSServer(echo, SERVER, handshake_timeout=10)
    transport = await (await serve(nursery, server)).connect()
    async with await wrap_client(transport, context=CLIENT, handshake_timeout=10) as client:
        await trio.sleep(50_000)
        await client.send_all(b"still here")
        assert await client.receive_some() == b"still here"


async def test_without_a_time_out_the_client_may_take_for_ever(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = TLSServer(echo, SERVER, handshake_timeout=math.inf)
    transport = await (await serve(nursery, server)).connect()
    await trio.sleep(50_000)
    async with await wrap_client(transport, context=CLIENT) as client:
        await client.send_all(b"sorry, I am late")
        assert await client.receive_some() == b"sorry, I am late"


async def test_callback_that_raises_as_its_time_is_up_is_that_connection_s_failure(
    autojump_clock: MockClock,
) -> None:
    async def fails_when_cancelled(*_args: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up failed")

    async def fails_in_a_nursery(*_args: object) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_when_cancelled)
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

    callbacks: list[Callable[..., Awaitable[None]]] = [fails_when_cancelled, fails_in_a_nursery]
    for callback in callbacks:
        for options in ({"on_connection": callback}, {"sni_callback": callback}):
            server = TLSServer(echo, SERVER, handshake_timeout=10, **options)  # type: ignore[arg-type]
            client, transport = memory_stream_pair()
            await client.send_all(client_hello())
            await server.handle(transport)
            error = await next_failure(server)
            assert type(error) is CallbackError
            assert error.callback == next(iter(options))


async def test_what_failed_is_not_forgotten_when_the_alert_cannot_be_sent_in_time(
    autojump_clock: MockClock,
) -> None:
    server = TLSServer(echo, SERVER, handshake_timeout=2, close_timeout=5, alpn_protocols=["h2"])
    client, transport = memory_stream_pair()
    await client.send_all(new_client(alpn=["http/1.1"]).drain())
    await server.handle(StallingStream(transport, send_after=0))
    error = await next_failure(server)
    assert trio.current_time() == 2
    assert type(error) is ProtocolError
    assert error.code == "ERR_SSL_NO_APPLICATION_PROTOCOL"


async def test_what_openssl_refused_is_not_forgotten_when_the_alert_cannot_be_sent_in_time(
    autojump_clock: MockClock,
) -> None:
    context = SecureContext(**default_authority().good("localhost").options, max_version="TLSv1.2")
    server = TLSServer(echo, context, handshake_timeout=2, close_timeout=5)
    client, transport = memory_stream_pair()
    await client.send_all(new_client(SecureContext(ca=[], min_version="TLSv1.3")).drain())
    await server.handle(StallingStream(transport, send_after=0))
    error = await next_failure(server)
    assert trio.current_time() == 2
    assert error.code == "ERR_SSL_UNSUPPORTED_PROTOCOL"


async def test_cancelling_from_outside_is_no_time_out(autojump_clock: MockClock) -> None:
    server = TLSServer(echo, SERVER, handshake_timeout=10)
    _client, transport = memory_stream_pair()
    with trio.move_on_after(5) as scope:
        await server.handle(transport)
    assert scope.cancelled_caught
    assert trio.current_time() == 5
    assert not server.statistics().failed


# A client, and streams made by hand


async def test_silent_server_is_timed_out_to_the_second(autojump_clock: MockClock) -> None:
    transport, server = memory_stream_pair()
    with pytest.raises(HandshakeTimeout) as caught:
        await wrap_client(transport, context=CLIENT, handshake_timeout=10)
    assert trio.current_time() == 10
    assert caught.value.timeout == 10
    assert caught.value.phase == "handshake"
    await receive_forever(server)  # it ends: the transport is closed


async def test_server_that_sends_a_byte_now_and_then_is_timed_out(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    transport, server = memory_stream_pair()
    nursery.start_soon(receive_forever, server)
    nursery.start_soon(trickle, server, b"\x16\x03\x03\x40\x00\x02" + bytes(100))
    with pytest.raises(HandshakeTimeout):
        await wrap_client(transport, context=CLIENT, handshake_timeout=10)
    assert trio.current_time() == 10


async def test_server_that_takes_nothing_is_timed_out(autojump_clock: MockClock) -> None:
    transport, server = memory_stream_pair()
    with pytest.raises(HandshakeTimeout):
        await wrap_client(StallingStream(transport, send_after=0), context=CLIENT, handshake_timeout=10)
    assert trio.current_time() == 10
    assert await server.receive_some() == b""


async def test_sni_callback_of_a_stream_made_by_hand_is_timed_out(autojump_clock: MockClock) -> None:
    client, transport = memory_stream_pair()
    await client.send_all(client_hello())
    stream = TLSStream(transport, SERVER, server_side=True, sni_callback=forever, handshake_timeout=10)
    with pytest.raises(HandshakeTimeout):
        await stream.do_handshake()
    assert trio.current_time() == 10
    await stream.aclose()


async def test_all_who_wait_for_the_handshake_get_the_time_out(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    transport, _server = memory_stream_pair()
    stream = TLSStream(transport, CLIENT, handshake_timeout=10)
    timed_out: list[float] = []

    async def expect_time_out(use: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(HandshakeTimeout):
            await use()
        timed_out.append(trio.current_time())

    async with trio.open_nursery() as waiters:
        waiters.start_soon(expect_time_out, stream.do_handshake)
        waiters.start_soon(expect_time_out, stream.do_handshake)
        waiters.start_soon(expect_time_out, stream.receive_some)
    await expect_time_out(stream.send_eof)
    assert timed_out == [10] * 4
    await stream.aclose()


async def test_time_runs_from_the_first_call_and_not_anew_with_each(autojump_clock: MockClock) -> None:
    transport, _server = memory_stream_pair()
    stream = TLSStream(transport, CLIENT, handshake_timeout=10)
    await trio.sleep(1000)
    with trio.move_on_after(6):
        await stream.do_handshake()
    with pytest.raises(HandshakeTimeout):
        await stream.do_handshake()
    assert trio.current_time() == 1010
    await stream.aclose()


async def test_client_learns_why_it_was_refused_before_its_own_time_is_up(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = TLSServer(echo, SERVER, alpn_protocols=["h2"])
    transport = await (await serve(nursery, server)).connect()
    with pytest.raises(PeerAlert):
        await wrap_client(
            OneByteStream(transport), context=CLIENT, alpn_protocols=["http/1.1"], handshake_timeout=1
        )
    assert trio.current_time() == 0


@pytest.mark.parametrize("value", [-1, math.nan])
def test_time_out_below_zero_is_refused(value: float) -> None:
    with pytest.raises(ConfigurationError, match="out of range") as caught:
        TLSServer(echo, SERVER, handshake_timeout=value)
    assert caught.value.code == "ERR_OUT_OF_RANGE"
    assert caught.value.option == "handshake_timeout"


@pytest.mark.parametrize("value", ["10", None, True])
def test_time_out_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ConfigurationTypeError) as caught:
        TLSServer(echo, SERVER, handshake_timeout=value)
    assert caught.value.option == "handshake_timeout"


async def test_time_out_of_zero_lets_nobody_in(autojump_clock: MockClock) -> None:
    server = TLSServer(echo, SERVER, handshake_timeout=0)
    client, transport = memory_stream_pair()
    await client.send_all(client_hello())
    await server.handle(transport)
    await assert_times_out(server, client, at=0)
