"""max_connections and max_handshakes: who waits, where, and that every place is given back."""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from trio_tlsnode import (
    ConfigurationError,
    ConfigurationTypeError,
    Engine,
    HandshakeTimeout,
    PreSharedKey,
    SecureContext,
    TLSServer,
    TLSStream,
    connect,
    wrap_client,
)
from trio_tlsnode.testing import MemoryListener, default_authority

pytestmark = pytest.mark.feature("B22")

CLIENT = SecureContext(ca=default_authority().ca)
SERVER = SecureContext(**default_authority().good("localhost", "127.0.0.1").options)


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def serve(nursery: trio.Nursery, server: TLSServer) -> MemoryListener:
    """Serve on a listener in memory."""
    server.client_errors()
    listener = MemoryListener()
    await nursery.start(server.serve_listeners, [listener])
    return listener


async def secure(transport: trio.abc.Stream) -> TLSStream:
    with trio.fail_after(5):
        return await wrap_client(transport, context=CLIENT)


async def assert_served(transport: trio.abc.Stream) -> None:
    async with await secure(transport) as client:
        await client.send_all(b"is this on?")
        assert await client.receive_some() == b"is this on?"


def client_hello() -> bytes:
    engine = Engine(CLIENT, host="localhost")
    engine.do_handshake()
    return engine.drain()


# Options


@pytest.mark.feature("F15")
@pytest.mark.parametrize("option", ["max_connections", "max_handshakes"])
@pytest.mark.parametrize("value", [True, 1.0, "1", math.inf])
def test_limit_of_the_wrong_type_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationTypeError) as caught:
        TLSServer(echo, SERVER, **{option: value})
    assert caught.value.option == option


@pytest.mark.feature("F15")
@pytest.mark.parametrize("option", ["max_connections", "max_handshakes"])
@pytest.mark.parametrize("value", [0, -1])
def test_limit_below_one_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TLSServer(echo, SERVER, **{option: value})
    assert caught.value.option == option
    assert caught.value.code == "ERR_OUT_OF_RANGE"


@pytest.mark.feature("F15")
@pytest.mark.parametrize(
    ("name", "meant"),
    [("maxConnections", "max_connections"), ("noDelay", "no_delay"), ("keepAlive", "keep_alive")],
)
def test_option_in_node_s_spelling_is_suggested(name: str, meant: str) -> None:
    options: dict[str, Any] = {name: 1}
    with pytest.raises(TypeError, match=f"did you mean {meant}"):
        TLSServer(echo, SERVER, **options)


# max_connections


async def test_beyond_max_connections_clients_wait_in_the_listener_s_queue(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, max_connections=2)
    listener = await serve(nursery, server)
    first, second = [await secure(await listener.connect()) for _ in range(2)]
    transport = await listener.connect()
    await transport.send_all(client_hello())
    await wait_all_tasks_blocked()
    assert (server.statistics().open, server.statistics().accepted) == (2, 2)
    assert listener._queue.statistics().current_buffer_used == 1
    await first.aclose()
    assert await transport.receive_some() != b""
    assert (server.statistics().open, server.statistics().accepted) == (2, 3)
    await second.aclose()


async def test_beyond_max_connections_clients_wait_in_the_kernel_s_queue(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, max_connections=1)
    await nursery.start(server.serve, 0, "127.0.0.1")
    (address,) = server.addresses
    first = await connect("127.0.0.1", address.port, context=CLIENT)
    transport = await trio.open_tcp_stream("127.0.0.1", address.port)
    await transport.send_all(client_hello())
    await wait_all_tasks_blocked()
    assert server.statistics().accepted == 1
    await first.aclose()
    assert await transport.receive_some() != b""
    assert server.statistics().accepted == 2
    await transport.aclose()


async def returns(_stream: TLSStream) -> None:
    pass


async def fails(stream: TLSStream) -> None:
    await stream.receive_some()


def refuse(_address: object) -> None:
    raise PermissionError


async def knock(transport: trio.abc.Stream) -> None:
    await wrap_client(transport, context=CLIENT)


async def break_off(transport: trio.abc.Stream) -> None:
    await wrap_client(transport, context=CLIENT)
    await transport.aclose()


async def talk_http(transport: trio.abc.Stream) -> None:
    await transport.send_all(b"GET / HTTP/1.1\r\n\r\n")


async def be_silent(_transport: trio.abc.Stream) -> None:
    pass


async def hang_up(transport: trio.abc.Stream) -> None:
    await transport.aclose()


@pytest.mark.parametrize(
    ("behave", "handler", "options"),
    [
        (knock, returns, {}),
        (break_off, fails, {}),
        (talk_http, echo, {}),
        (hang_up, echo, {}),
        (be_silent, echo, {"handshake_timeout": 1}),
        (be_silent, echo, {"on_connection": refuse}),
    ],
)
async def test_place_is_given_back_however_a_connection_ends(
    behave: Callable[[trio.abc.Stream], Awaitable[None]],
    handler: Callable[[TLSStream], Awaitable[None]],
    options: dict[str, Any],
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    server = TLSServer(handler, SERVER, max_connections=1, **options)
    listener = await serve(nursery, server)
    for count in range(1, 4):
        transport = await listener.connect()
        await behave(transport)
        await trio.sleep(2)
        assert (server.statistics().open, server.statistics().accepted) == (0, count)


async def test_place_is_given_back_when_a_handler_is_defective() -> None:
    async def defective(_stream: TLSStream) -> None:
        raise ZeroDivisionError

    server = TLSServer(defective, SERVER, max_connections=1)
    for _ in range(2):
        client, transport = memory_stream_pair()
        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.handle, transport)
                await secure(client)


async def test_listener_to_which_nobody_comes_keeps_no_place(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, max_connections=1)
    listeners = [MemoryListener() for _ in range(3)]
    await nursery.start(server.serve_listeners, listeners)
    for listener in (*listeners, *reversed(listeners)):
        await assert_served(await listener.connect())
    assert server.statistics().accepted == 6


async def test_clients_of_several_listeners_share_the_places(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, max_connections=1)
    listeners = [MemoryListener() for _ in range(3)]
    await nursery.start(server.serve_listeners, listeners)
    first = await secure(await listeners[0].connect())
    waiting = [await listener.connect() for listener in listeners for _ in range(2)]
    await wait_all_tasks_blocked()
    assert (server.statistics().open, server.statistics().accepted) == (1, 1)
    nursery.start_soon(first.aclose)
    async with trio.open_nursery() as clients:
        for transport in waiting:
            clients.start_soon(assert_served, transport)
    assert server.statistics().accepted == 7


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_client_that_was_accepted_and_waits_for_a_place_is_closed_with_the_server(
    how: str, nursery: trio.Nursery
) -> None:
    server = TLSServer(echo, SERVER, max_connections=1)
    listeners = [MemoryListener() for _ in range(2)]
    async with trio.open_nursery() as serving:
        await serving.start(server.serve_listeners, listeners)
        first = await secure(await listeners[0].connect())
        waiting = await listeners[1].connect()
        await wait_all_tasks_blocked()
        assert listeners[1]._queue.statistics().current_buffer_used == 0
        if how == "closed":
            nursery.start_soon(server.aclose)
        else:
            serving.cancel_scope.cancel()
        assert await waiting.receive_some() == b""
        with trio.CancelScope(shield=True):
            await first.aclose()
    assert server.statistics().accepted == 1
    assert server.statistics().open == 0


async def test_lack_of_room_is_waited_for_without_losing_a_place(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = TLSServer(echo, SERVER, max_connections=1)
    listener = await serve(nursery, server)
    for _ in range(3):
        listener.fail(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    for _ in range(2):
        await assert_served(await listener.connect())
    assert trio.current_time() == pytest.approx(0.3)
    assert server.statistics().no_room == 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# max_connections and handle()


async def test_handle_waits_for_a_place_and_its_time_runs_from_then_on(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = TLSServer(echo, SERVER, max_connections=1, handshake_timeout=10)
    first_client, first = memory_stream_pair()
    nursery.start_soon(server.handle, first)
    client = await secure(first_client)
    silent, second = memory_stream_pair()
    nursery.start_soon(server.handle, second)
    await trio.sleep(100)
    assert (server.statistics().open, server.statistics().accepted) == (1, 1)
    await client.aclose()
    assert await silent.receive_some() == b""
    assert trio.current_time() == 110
    await wait_all_tasks_blocked()
    assert server.statistics().failed == {"ERR_TLS_HANDSHAKE_TIMEOUT": 1}


async def test_handle_that_is_cancelled_while_it_waits_closes_its_stream(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, max_connections=1)
    first_client, first = memory_stream_pair()
    nursery.start_soon(server.handle, first)
    client = await secure(first_client)
    peer, second = memory_stream_pair()
    async with trio.open_nursery() as waiting:
        waiting.start_soon(server.handle, second)
        await wait_all_tasks_blocked()
        waiting.cancel_scope.cancel()
    assert await peer.receive_some() == b""
    await client.aclose()
    third_client, third = memory_stream_pair()
    nursery.start_soon(server.handle, third)
    await assert_served(third_client)


async def test_handle_that_waits_returns_when_the_server_is_closed(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, max_connections=1)
    first_client, first = memory_stream_pair()
    nursery.start_soon(server.handle, first)
    client = await secure(first_client)
    peer, second = memory_stream_pair()
    late_peer, third = memory_stream_pair()
    async with trio.open_nursery() as waiting:
        waiting.start_soon(server.handle, second)
        await wait_all_tasks_blocked()
        nursery.start_soon(server.aclose)
    with assert_checkpoints():
        await server.handle(third)
    assert await peer.receive_some() == await late_peer.receive_some() == b""
    await client.send_all(b"still there?")
    assert await client.receive_some() == b"still there?"
    await client.aclose()
    assert server.statistics().accepted == 1


# max_handshakes


async def test_silent_clients_hold_no_handshake(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, max_handshakes=1)
    listener = await serve(nursery, server)
    silent = [await listener.connect() for _ in range(5)]
    await silent[0].send_all(client_hello()[:-1])
    await wait_all_tasks_blocked()
    await assert_served(await listener.connect())
    await wait_all_tasks_blocked()
    statistics = server.statistics()
    assert (statistics.open, statistics.handshaking, statistics.waiting) == (5, 5, 0)
    for transport in silent:
        await transport.aclose()


async def test_handshake_is_held_from_the_hello_to_the_end(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, max_handshakes=2)
    listener = await serve(nursery, server)
    begun = [await listener.connect() for _ in range(2)]
    for transport in begun:
        await transport.send_all(client_hello())
    waiting = await listener.connect()
    await waiting.send_all(client_hello())
    await wait_all_tasks_blocked()
    statistics = server.statistics()
    assert (statistics.open, statistics.handshaking, statistics.waiting) == (3, 3, 1)
    await begun[0].aclose()
    assert await waiting.receive_some() != b""
    assert server.statistics().waiting == 0
    await begun[1].aclose()
    # Established connections hold none.
    clients = [await secure(await listener.connect()) for _ in range(4)]
    await wait_all_tasks_blocked()
    assert (server.statistics().open, server.statistics().handshaking) == (5, 1)
    for client in clients:
        await client.aclose()


async def test_callbacks_are_within_the_handshake_that_is_counted(nursery: trio.Nursery) -> None:
    at_once = most = 0

    async def choose(_name: str) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(at_once, most)
        await wait_all_tasks_blocked()
        at_once -= 1

    server = TLSServer(echo, SERVER, max_handshakes=2, sni_callback=choose)
    listener = await serve(nursery, server)

    async def client() -> None:
        transport = await listener.connect()
        async with await wrap_client(transport, host="localhost", context=CLIENT):
            pass

    async with trio.open_nursery() as clients:
        for _ in range(6):
            clients.start_soon(client)
    assert most == 2
    assert server.statistics().secure == 6


async def test_waiting_for_a_handshake_is_within_the_time_out(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = TLSServer(echo, SERVER, max_handshakes=1, handshake_timeout=10)
    listener = await serve(nursery, server)
    stalled = await listener.connect()
    await stalled.send_all(client_hello())
    await trio.sleep(4)
    waiting = [await listener.connect() for _ in range(2)]
    for transport in waiting:
        await transport.send_all(client_hello())
    errors = server.client_errors()
    (first,) = (await anext(errors)).exceptions
    assert trio.current_time() == 10
    # One of those that wait has the place now, and does not finish either.
    late = (await anext(errors)).exceptions
    assert trio.current_time() == 14
    assert [type(error) for error in (first, *late)] == [HandshakeTimeout] * 3
    assert {error.phase for error in (first, *late) if isinstance(error, HandshakeTimeout)} == {"handshake"}
    assert server.statistics().waiting == 0
    await assert_served(await listener.connect())


@pytest.mark.parametrize("answer", [b"\x16\x03\x03\x00\x02\x01\x00", b"\x15\x03\x03\x00\x02\x02\x28", b""])
async def test_handshake_that_fails_is_given_back(answer: bytes, nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, max_handshakes=1)
    listener = await serve(nursery, server)
    for _ in range(3):
        transport = await listener.connect()
        await transport.send_all(client_hello())
        await transport.send_all(answer) if answer else await transport.send_eof()
        while await transport.receive_some():
            pass
    await assert_served(await listener.connect())
    assert sum(server.statistics().failed.values()) == 3


async def test_handshake_that_is_refused_is_given_back(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, max_handshakes=1, alpn_protocols=["h2"])
    listener = await serve(nursery, server)
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await wrap_client(await listener.connect(), context=CLIENT, alpn_protocols=["other"])
    await assert_served(await listener.connect())


async def test_who_waits_for_a_handshake_and_is_cancelled_takes_none(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, max_handshakes=1)
    stalled, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    await stalled.send_all(client_hello())
    async with trio.open_nursery() as cancelled:
        peer, transport = memory_stream_pair()
        cancelled.start_soon(server.handle, transport)
        await peer.send_all(client_hello())
        await wait_all_tasks_blocked()
        assert server.statistics().waiting == 1
        cancelled.cancel_scope.cancel()
    assert server.statistics().waiting == 0
    await stalled.aclose()
    client, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    await assert_served(client)


async def test_handshake_of_a_stream_by_hand_has_no_limit() -> None:
    with pytest.raises(TypeError, match="max_handshakes"):
        TLSStream(memory_stream_pair()[0], SERVER, server_side=True, max_handshakes=1)


# The end of the server


async def test_closing_serves_those_that_wait_for_a_handshake(nursery: trio.Nursery) -> None:
    server = TLSServer(returns, SERVER, max_handshakes=1)
    listener = await serve(nursery, server)
    stalled = await listener.connect()
    await stalled.send_all(client_hello())
    secured: list[str] = []

    async def client() -> None:
        stream = await secure(await listener.connect())
        secured.append(stream.info.protocol)

    async with trio.open_nursery() as clients:
        for _ in range(3):
            clients.start_soon(client)
        await wait_all_tasks_blocked()
        assert server.statistics().waiting == 3
        clients.start_soon(server.aclose)
        await wait_all_tasks_blocked()
        await stalled.aclose()
    assert len(secured) == 3


async def test_closing_with_grace_ends_those_that_wait_for_a_handshake(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = TLSServer(echo, SERVER, max_connections=3, max_handshakes=1)
    listener = await serve(nursery, server)
    clients = [await listener.connect() for _ in range(5)]
    for client in clients:
        await client.send_all(client_hello())
    await wait_all_tasks_blocked()
    assert (server.statistics().open, server.statistics().waiting) == (3, 2)
    await server.aclose(grace=7)
    assert trio.current_time() == 7
    statistics = server.statistics()
    assert (statistics.open, statistics.handshaking, statistics.waiting) == (0, 0, 0)
    for client in clients[1:]:
        assert await client.receive_some() == b""


async def test_cancelling_ends_all_that_wait(autojump_clock: MockClock) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    server = TLSServer(echo, SERVER, max_connections=3, max_handshakes=1)
    async with trio.open_nursery() as nursery:
        listener = await serve(nursery, server)
        clients = [await listener.connect() for _ in range(5)]
        for client in clients:
            await client.send_all(client_hello())
            _, transport = memory_stream_pair()
            nursery.start_soon(server.handle, transport)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    statistics = server.statistics()
    assert (statistics.open, statistics.handshaking, statistics.waiting) == (0, 0, 0)
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    # All places are free again.
    async with trio.open_nursery() as nursery:
        listener = await serve(nursery, server)
        clients_again = [await secure(await listener.connect()) for _ in range(3)]
        assert server.statistics().open == 3
        for again in clients_again:
            await again.aclose()
        nursery.cancel_scope.cancel()


# Many

PSK = PreSharedKey("a thousand", b"k" * 32)
# Without signatures and certificates, so that a thousand handshakes take no time.
CHEAP: dict[str, Any] = {"ciphers": "PSK-AES128-GCM-SHA256", "max_version": "TLSv1.2"}


async def test_a_thousand_clients_are_all_served_ten_at_a_time() -> None:
    most_open = served = 0

    async def handler(stream: TLSStream) -> None:
        nonlocal most_open
        most_open = max(most_open, server.statistics().open)
        await echo(stream)

    async def client(number: int) -> None:
        nonlocal served
        transport = await listeners[number % 2].connect()
        if number % 10 == 0:
            await transport.aclose()
            return
        async with await wrap_client(transport, context=context, psk=lambda _hint: PSK) as stream:
            await stream.send_all(b"me too")
            assert await stream.receive_some() == b"me too"
        served += 1

    context = SecureContext(**CHEAP)
    server = TLSServer(
        handler, context, max_connections=10, max_handshakes=5, psk=lambda _stream, _identity: PSK
    )
    server.client_errors()
    tasks = trio.lowlevel.current_statistics().tasks_living
    listeners = [MemoryListener() for _ in range(2)]
    async with trio.open_nursery() as serving:
        await serving.start(server.serve_listeners, listeners)
        async with trio.open_nursery() as clients:
            for number in range(1000):
                clients.start_soon(client, number)
        await server.aclose()
    statistics = server.statistics()
    assert served == statistics.secure == 900
    assert statistics.accepted == 1000
    assert statistics.failed == {"ECONNRESET": 100}
    assert (statistics.open, statistics.handshaking, statistics.waiting) == (0, 0, 0)
    assert most_open == 10
    assert trio.lowlevel.current_statistics().tasks_living == tasks
