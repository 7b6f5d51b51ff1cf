"""aclose: no new connections, the open ones are waited for, and ended when the grace is over."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from trio_tlsnode import (
    ConfigurationError,
    ConnectError,
    SecureContext,
    TLSServer,
    TLSStream,
    TruncationError,
    connect,
    wrap_client,
)
from trio_tlsnode.testing import MemoryListener, StallingStream, default_authority

pytestmark = pytest.mark.feature("B5")

CLIENT = SecureContext(ca=default_authority().ca)
SERVER = SecureContext(**default_authority().good("localhost", "127.0.0.1").options)


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


class Serving:
    """A server on a listener in memory, the clients that connect to it, and when its serving ended."""

    def __init__(self, handler: Callable[[TLSStream], Awaitable[object]] = echo, **options: Any) -> None:
        self.server = TLSServer(handler, SERVER, **options)
        self.listener = MemoryListener()
        self.ended = trio.Event()

    async def serve(self, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED) -> None:
        await self.server.serve_listeners([self.listener], task_status=task_status)
        self.ended.set()

    async def client(self) -> TLSStream:
        client = await wrap_client(await self.listener.connect(), context=CLIENT)
        await client.send_all(b"hello")
        return client


async def start(nursery: trio.Nursery, *arguments: Any, **options: Any) -> Serving:
    serving = Serving(*arguments, **options)
    await nursery.start(serving.serve)
    return serving


async def test_idle_server_ends_at_once(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    serving = await start(nursery)
    await serving.server.aclose()
    await serving.ended.wait()
    assert serving.server.addresses == ()


async def test_new_connections_are_refused_while_the_open_ones_end(nursery: trio.Nursery) -> None:
    serving = await start(nursery)
    client = await serving.client()
    nursery.start_soon(serving.server.aclose)
    await wait_all_tasks_blocked()
    with pytest.raises(ConnectionRefusedError):
        await serving.listener.connect()
    assert not serving.ended.is_set()
    await client.send_all(b", still there?")
    received = b""
    while len(received) < 19:
        received += await client.receive_some()
    assert received == b"hello, still there?"
    await client.aclose()
    await serving.ended.wait()


async def test_new_connections_over_tcp_are_refused_while_the_open_ones_end(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER)
    await nursery.start(server.serve, 0, "127.0.0.1")
    (address,) = server.addresses
    client = await connect("127.0.0.1", address.port, context=CLIENT)
    nursery.start_soon(server.aclose)
    while server.addresses:
        await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()
    with pytest.raises(ConnectError) as refused:
        await connect("127.0.0.1", address.port, context=CLIENT)
    assert refused.value.code == "ECONNREFUSED"
    await client.send_all(b"still there?")
    assert await client.receive_some() == b"still there?"
    await client.aclose()


async def test_once_it_is_closed_a_new_connection_over_tcp_is_refused(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER)
    await nursery.start(server.serve, 0, "127.0.0.1")
    port = server.addresses[0].port
    await server.aclose()
    with pytest.raises(OSError, match="all attempts"):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_connection_in_the_queue_is_closed_without_tls(nursery: trio.Nursery) -> None:
    serving = await start(nursery)
    transport = await serving.listener.connect()
    await serving.server.aclose()
    assert await transport.receive_some() == b""
    await wait_all_tasks_blocked()
    assert serving.server.statistics().accepted == 0


async def test_stream_handed_to_a_closed_server_is_closed_without_tls() -> None:
    server = TLSServer(echo, SERVER)
    await server.aclose()
    client, transport = memory_stream_pair()
    with assert_checkpoints():
        await server.handle(transport)
    assert await client.receive_some() == b""
    assert server.statistics().accepted == 0


async def test_without_grace_period_it_takes_as_long_as_it_takes(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def slow(stream: TLSStream) -> None:
        await stream.receive_some()
        await trio.sleep(50_000)
        await stream.send_all(b"here you are")

    serving = await start(nursery, slow)
    client = await serving.client()
    await serving.server.aclose()
    assert trio.current_time() == 50_000
    assert await client.receive_some() == b"here you are"
    assert await client.receive_some() == b""
    await client.aclose()


@pytest.mark.parametrize("grace", [0, 0.5, 30])
async def test_what_is_left_after_the_grace_is_cancelled(
    grace: float, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    cancelled: list[float] = []

    async def stubborn(stream: TLSStream) -> None:
        await stream.receive_some()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(trio.current_time())

    serving = await start(nursery, stubborn)
    clients = [await serving.client() for _ in range(3)]
    await wait_all_tasks_blocked()
    await serving.server.aclose(grace)
    assert cancelled == [grace] * 3
    assert trio.current_time() == grace
    assert serving.server.statistics().open == 0
    assert not serving.server.statistics().failed
    await serving.ended.wait()
    for client in clients:
        with pytest.raises(TruncationError):
            await client.receive_some()


async def test_server_does_not_wait_longer_than_it_must(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def brief(_stream: TLSStream) -> None:
        await trio.sleep(2)

    serving = await start(nursery, brief)
    await serving.client()
    await serving.server.aclose(30)
    assert trio.current_time() == 2


async def test_handler_may_take_leave_after_it_was_cancelled(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def polite(stream: TLSStream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(1, shield=True):
                await stream.send_all(b"sorry, we are closing")
                await stream.send_eof()

    serving = await start(nursery, polite)
    client = await serving.client()
    await serving.server.aclose(5)
    assert await client.receive_some() == b"sorry, we are closing"
    assert await client.receive_some() == b""
    await client.aclose()


async def test_second_call_waits_as_well_and_may_shorten_the_grace(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    serving = await start(nursery)
    await serving.client()
    returned: list[tuple[str, float]] = []

    async def close(name: str, grace: float | None) -> None:
        await serving.server.aclose(grace)
        returned.append((name, trio.current_time()))

    async with trio.open_nursery() as closers:
        closers.start_soon(close, "patient", None)
        closers.start_soon(close, "also patient", 100)
        await trio.sleep(1)
        closers.start_soon(close, "impatient", 2)
    assert sorted(returned) == [("also patient", 3), ("impatient", 3), ("patient", 3)]


async def test_closing_a_closed_server_is_a_checkpoint(nursery: trio.Nursery) -> None:
    serving = await start(nursery)
    await serving.server.aclose()
    for grace in (None, 0, 1):
        with assert_checkpoints():
            await serving.server.aclose(grace)


async def test_server_that_never_served_can_be_closed(mock_clock: MockClock) -> None:
    await TLSServer(echo, SERVER).aclose()


async def test_connections_that_were_handed_in_are_waited_for_too(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = TLSServer(echo, SERVER)
    client_end, server_end = memory_stream_pair()
    nursery.start_soon(server.handle, server_end)
    await wrap_client(client_end, context=CLIENT)
    await server.aclose(7)
    assert trio.current_time() == 7


async def test_connection_that_handshakes_has_the_grace_to_finish_and_to_be_served(
    nursery: trio.Nursery,
) -> None:
    serving = await start(nursery)
    transport = await serving.listener.connect()
    await wait_all_tasks_blocked()
    nursery.start_soon(serving.server.aclose, 10)
    await wait_all_tasks_blocked()
    client = await wrap_client(transport, context=CLIENT)
    await client.send_all(b"just in time")
    assert await client.receive_some() == b"just in time"
    await client.aclose()
    await serving.ended.wait()


async def test_connection_that_still_handshakes_after_the_grace_is_cancelled_and_not_a_failure(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    serving = await start(nursery)
    transport = await serving.listener.connect()
    await wait_all_tasks_blocked()
    await serving.server.aclose(10)
    assert trio.current_time() == 10
    assert await transport.receive_some() == b""
    assert not serving.server.statistics().failed


async def test_cancelled_close_leaves_the_connections_alone(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    serving = await start(nursery)
    client = await serving.client()
    with trio.move_on_after(3) as scope:
        await serving.server.aclose()
    assert scope.cancelled_caught
    assert await client.receive_some() == b"hello"
    with pytest.raises(ConnectionRefusedError):
        await serving.listener.connect()
    await client.aclose()
    await serving.server.aclose()


async def test_cancelling_serve_ends_all_connections_at_once(mock_clock: MockClock) -> None:
    ended: list[str] = []

    async def handler(stream: TLSStream) -> None:
        try:
            await echo(stream)
        finally:
            ended.append("handler")

    async with trio.open_nursery() as nursery:
        serving = await start(nursery, handler)
        clients = [await serving.client() for _ in range(3)]
        silent = await serving.listener.connect()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert ended == ["handler"] * 3
    assert serving.server.statistics().open == 0
    assert not serving.server.statistics().failed
    assert await silent.receive_some() == b""
    for client in clients:
        assert await client.receive_some() == b"hello"
        with pytest.raises(TruncationError):
            await client.receive_some()
    assert trio.current_time() == 0


async def test_client_that_takes_no_goodbye_holds_the_end_up_for_close_timeout_only(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def brief(_stream: TLSStream) -> None:
        stalled._send_room = 0

    server = TLSServer(brief, SERVER, close_timeout=3)
    client_end, server_end = memory_stream_pair()
    stalled = StallingStream(server_end)
    nursery.start_soon(server.handle, stalled)
    client = await wrap_client(client_end, context=CLIENT)
    await server.aclose()
    assert trio.current_time() == 3
    assert not server.statistics().failed
    with pytest.raises(TruncationError):
        await client.receive_some()


async def test_reply_in_flight_arrives_whole_over_tcp(nursery: trio.Nursery) -> None:
    reply = bytes(1_000_000)

    async def handler(stream: TLSStream) -> None:
        await stream.receive_some()
        await stream.send_all(reply)

    server = TLSServer(handler, SERVER)
    await nursery.start(server.serve, 0, "127.0.0.1")
    client = await connect("127.0.0.1", server.addresses[0].port, context=CLIENT)
    # More than the handler reads: closing over unread input would reset the connection and cut the reply.
    await client.send_all(b"request")
    await wait_all_tasks_blocked()
    await client.send_all(b"one more that nobody reads")
    nursery.start_soon(server.aclose)
    received = bytearray()
    async for data in client:
        received += data
    assert received == reply
    await client.aclose()


@pytest.mark.parametrize("grace", [-1, math.nan])
async def test_grace_below_zero_is_refused_and_nothing_closed(grace: float) -> None:
    server = TLSServer(echo, SERVER)
    with pytest.raises(ConfigurationError):
        await server.aclose(grace)
    client, transport = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, transport)
        async with await wrap_client(client, context=CLIENT):
            assert server.statistics().accepted == 1
