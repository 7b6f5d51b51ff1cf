"""Cancelling a TLSStream's calls: at every await, and what is left afterwards.

A call is made again and again on a new connection, and cancelled at its first, second, third ... step, until
it gets through.  Whatever the step: the stream works, or fails with a typed error; nobody hangs; nothing that
was received is lost; and a stream that was closed is closed.
"""

from __future__ import annotations

import fcntl
import itertools
import sys
import termios
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

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
from trio_tlsnode.testing import tls_pair

Operation = Callable[[TLSStream], Awaitable[object]]
Streams = tuple[TLSStream, TLSStream]

LARGE = bytes(index % 251 for index in range(1 << 20))


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await open_stream_to_socket_listener(listener)
        return client, await listener.accept()


@pytest.fixture(params=["TLSv1.2", "TLSv1.3"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["memory", "lockstep", "socket"])
def kind(request: pytest.FixtureRequest, autojump_clock: MockClock) -> str:
    """The kind of transport; whoever hangs on it sees the mock clock jump to his time-out."""
    # The kernel may take a moment to deliver what was sent.
    autojump_clock.autojump_threshold = 0.05 if request.param == "socket" else 0
    return str(request.param)


async def connect(kind: str, version: str, **options: Any) -> Streams:
    transports: Any = {"memory": memory_stream_pair, "lockstep": lockstep_stream_pair, "socket": tcp_pair}[
        kind
    ]()
    return await tls_pair(await transports if kind == "socket" else transports, version=version, **options)


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope at the n-th step of a task: while it still waits, or when what it waits for has
    come."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, n: int, when: str) -> None:
        self._task = task
        self._scope = scope
        self.steps_left = n
        self._when = when

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and self._when == "when it comes":
            self._count()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and self._when == "while it waits":
            self._count()

    def _count(self) -> None:
        self.steps_left -= 1
        if self.steps_left == 0:
            self._scope.cancel()


Result = Literal["done", "cancelled", "failed"]


async def cancelled_at_step(n: int, when: str, call: Callable[[], Awaitable[object]]) -> tuple[Result, bool]:
    """Make a call and cancel it at its n-th step; tell how it ended, and whether there was such a step."""
    with trio.CancelScope() as scope:
        canceller = CancelAtStep(trio.lowlevel.current_task(), scope, n, when)
        trio.lowlevel.add_instrument(canceller)
        try:
            await call()
            result: Result = "done"
        except (tls.TLSError, trio.ClosedResourceError, trio.BusyResourceError):
            result = "failed"
        finally:
            trio.lowlevel.remove_instrument(canceller)
    return "cancelled" if scope.cancelled_caught else result, canceller.steps_left <= 0


async def each_step(attempt: Callable[[int, str], Awaitable[bool]]) -> None:
    """Try with 1, 2, 3 ... until there is no such step any more."""
    for when in ("while it waits", "when it comes"):
        for n in itertools.count(1):
            with trio.fail_after(1000):
                if not await attempt(n, when):
                    break
        assert n > 1


async def receive_all(stream: TLSStream) -> bytes:
    """Receive until the end, orderly or not."""
    received = b""
    try:
        while data := await stream.receive_some():
            received += data
    except (tls.TLSError, trio.ClosedResourceError):
        pass
    return received


async def exchange(client: TLSStream, server: TLSStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"question")
        assert await server.receive_some() == b"question"
        nursery.start_soon(server.send_all, b"answer")
        assert await client.receive_some() == b"answer"


async def close(*streams: TLSStream) -> None:
    """Close, and see that it was done."""
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(stream.aclose)
    for stream in streams:
        assert stream._engine._ssl is None
        with pytest.raises(trio.ClosedResourceError):
            await stream.transport_stream.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_handshake(autojump_clock: MockClock, kind: str, version: str, side: str) -> None:
    async def attempt(n: int, when: str) -> bool:
        client, server = await connect(kind, version, handshake=False)
        stream, peer = (client, server) if side == "client" else (server, client)

        async def handshake_of_peer() -> None:
            try:
                await peer.do_handshake()
            except tls.TLSError:
                await peer.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(handshake_of_peer)
            result, cancelled = await cancelled_at_step(n, when, stream.do_handshake)
            assert result != "failed"
            try:
                await stream.do_handshake()
            except tls.ConnectionLost as error:
                # Over a socket nothing is ever half sent for good.
                assert error.code == "ECANCELED"
                assert kind != "socket"
                await stream.aclose()
            else:
                await exchange(client, server)
        await close(client, server)
        return cancelled

    await each_step(attempt)


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "1 MiB"])
async def test_sending(autojump_clock: MockClock, kind: str, version: str, data: bytes) -> None:
    async def attempt(n: int, when: str) -> bool:
        client, server = await connect(kind, version)
        received = b""

        async def receive() -> None:
            nonlocal received
            received = await receive_all(server)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            result, cancelled = await cancelled_at_step(n, when, partial(client.send_all, data))
            # Receiving is not impaired.
            nursery.start_soon(server.send_all, b"still there?")
            assert await client.receive_some() == b"still there?"
            try:
                await client.send_all(b"more")
            except tls.ConnectionLost as error:
                assert (error.code, result) == ("ECANCELED", "cancelled")
                expected = None
            else:
                expected = b"more" if result == "cancelled" else data + b"more"
            await close(client)
        if expected is None:
            assert data.startswith(received)
            with pytest.raises(tls.TruncationError):
                await server.receive_some()
        else:
            assert received == expected
            assert await server.receive_some() == b""
        await close(server)
        return cancelled

    await each_step(attempt)


@pytest.mark.parametrize("max_bytes", [None, 1000])
async def test_receiving_loses_nothing(
    autojump_clock: MockClock, kind: str, version: str, max_bytes: int | None
) -> None:
    data = LARGE[: 20_000 if max_bytes else 100_000]

    async def attempt(n: int, when: str) -> bool:
        client, server = await connect(kind, version)
        received = b""

        async def receive() -> None:
            nonlocal received
            while data := await server.receive_some(max_bytes):
                received += data

        async def send() -> None:
            # In small pieces, so that the receiver has to wait often.
            for at in range(0, len(data), len(data) // 5):
                await client.send_all(data[at : at + len(data) // 5])
                await wait_all_tasks_blocked()
            await client.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            _, cancelled = await cancelled_at_step(n, when, receive)
            await receive()
        assert received == data
        await close(client, server)
        return cancelled

    await each_step(attempt)


async def test_saying_goodbye(autojump_clock: MockClock, kind: str, version: str) -> None:
    async def attempt(n: int, when: str) -> bool:
        client, server = await connect(kind, version)
        ended: list[bytes] = []

        async def receive() -> None:
            ended.append(await receive_all(server))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            result, cancelled = await cancelled_at_step(n, when, client.send_eof)
            nursery.start_soon(server.send_all, b"still there?")
            assert await client.receive_some() == b"still there?"
            try:
                await client.send_all(b"more")
            except trio.ClosedResourceError:
                expected = b""
            except tls.ConnectionLost as error:
                assert (error.code, result) == ("ECANCELED", "cancelled")
                expected = b""
            else:
                # It was cancelled before anything was said.
                assert result == "cancelled"
                expected = b"more"
            await close(client)
        assert ended == [expected]
        await close(server)
        return cancelled

    await each_step(attempt)


async def test_waiting_for_room_costs_nothing(autojump_clock: MockClock, kind: str, version: str) -> None:
    async def attempt(n: int, when: str) -> bool:
        client, server = await connect(kind, version)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.receive_some)
            _, cancelled = await cancelled_at_step(n, when, client.wait_send_all_might_not_block)
            await client.send_all(b"x")
        await exchange(client, server)
        await close(client, server)
        return cancelled

    await each_step(attempt)


@pytest.mark.parametrize("peer_receives", [True, False])
async def test_closing_closes_in_any_case(
    autojump_clock: MockClock, kind: str, version: str, peer_receives: bool
) -> None:
    async def attempt(n: int, when: str) -> bool:
        client, server = await connect(kind, version)
        async with trio.open_nursery() as nursery:
            if peer_receives:
                nursery.start_soon(receive_all, server)
            result, cancelled = await cancelled_at_step(n, when, client.aclose)
            assert result != "failed"
            await close(client)
        await close(server)
        return cancelled

    await each_step(attempt)


@pytest.mark.feature("A3")
async def test_wrapping_closes_the_transport_unless_it_gets_through(
    autojump_clock: MockClock, kind: str, version: str
) -> None:
    async def attempt(n: int, when: str) -> bool:
        like_it, server = await connect(kind, version, handshake=False)
        transport = like_it.transport_stream
        made: list[TLSStream] = []

        async def wrap() -> None:
            made.append(await tls.wrap_client(transport, context=like_it._engine.context))

        async def serve() -> None:
            try:
                await server.do_handshake()
            except tls.TLSError:
                assert not made

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            result, cancelled = await cancelled_at_step(n, when, wrap)
        assert bool(made) == (result == "done")
        if made:
            await exchange(made[0], server)
        await close(*made, server)
        with pytest.raises(trio.ClosedResourceError):
            await transport.send_all(b"x")
        return cancelled

    await each_step(attempt)


@pytest.mark.feature("A1")
async def test_connecting_leaves_no_connection_behind_unless_it_gets_through(
    version: str, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    like_it, server_like = await tls_pair(version=version, handshake=False)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def attempt(n: int, when: str) -> bool:
        made: list[TLSStream] = []

        async def connect() -> None:
            made.append(
                await tls.connect("127.0.0.1", port, server_name="localhost", context=like_it._engine.context)
            )

        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                server = TLSStream(await listener.accept(), server_like._engine.context, server_side=True)
                async with server:
                    await receive_all(server)

            nursery.start_soon(serve)
            result, cancelled = await cancelled_at_step(n, when, connect)
            assert bool(made) == (result == "done")
            await close(*made)
            # It ends as soon as its client is gone; if there was none, it is not waited for.
            with trio.move_on_after(1):
                await trio.sleep_forever()
            nursery.cancel_scope.cancel()
        return cancelled

    async with listener:
        await each_step(attempt)


# The rules one by one


@pytest.mark.parametrize("failing", [False, True])
async def test_a_cancelled_task_hands_its_handshake_to_the_next_that_waits(
    autojump_clock: MockClock, version: str, failing: bool
) -> None:
    options = {"client_options": {"host": "wrong.example"}} if failing else {}
    client, server = await connect("memory", version, handshake=False, **options)
    results: list[str] = []

    async def handshake(stream: TLSStream) -> None:
        try:
            await stream.do_handshake()
            results.append("done")
        except tls.ConnectionFailed as error:
            results.append(type(error).__name__)

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as cancelled:
                cancelled.start_soon(client.do_handshake)
                await wait_all_tasks_blocked()
                cancelled.start_soon(client.do_handshake)
                for _ in range(3):
                    nursery.start_soon(handshake, client)
                await wait_all_tasks_blocked()
                cancelled.cancel_scope.cancel()
            nursery.start_soon(handshake, server)
    assert sorted(results) == (["IdentityError"] * 3 + ["PeerAlert"] if failing else ["done"] * 4)


@pytest.mark.parametrize("transport", ["lockstep", "socket"])
async def test_an_interrupted_send_ends_sending_and_nothing_else(version: str, transport: str) -> None:
    client, server = await connect(transport, version)
    async with client, server, trio.open_nursery() as nursery:
        async with trio.open_nursery() as sending:
            sending.start_soon(client.send_all, LARGE * 20)
            await wait_all_tasks_blocked()
            sending.cancel_scope.cancel()
        calls: list[Operation] = [
            lambda stream: stream.send_all(b"x"),
            lambda stream: stream.send_all(b""),
            lambda stream: stream.send_eof(),
            lambda stream: stream.wait_send_all_might_not_block(),
        ]
        for call in calls:
            with pytest.raises(tls.ConnectionLost) as caught:
                await call(client)
            assert (caught.value.code, caught.value.side, caught.value.phase) == (
                "ECANCELED",
                "usage",
                "secure",
            )
            assert caught.value.stream is client
        # It waits for an answer that comes only now.
        nursery.start_soon(send_later, server, b"an answer all the same")
        assert await client.receive_some() == b"an answer all the same"
        nursery.start_soon(client.aclose)
        with pytest.raises(tls.TruncationError):
            while await server.receive_some():
                pass


async def send_later(stream: TLSStream, data: bytes) -> None:
    await wait_all_tasks_blocked()
    await stream.send_all(data)


async def test_a_send_that_was_cancelled_while_the_handshake_was_waited_for_costs_nothing(
    version: str,
) -> None:
    client, server = await connect("memory", version, handshake=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        async with trio.open_nursery() as sending:
            sending.start_soon(client.send_all, b"never sent")
            await wait_all_tasks_blocked()
            sending.cancel_scope.cancel()
        nursery.start_soon(server.do_handshake)
    await exchange(client, server)


async def test_a_handshake_that_was_interrupted_while_it_sent_fails_for_good(version: str) -> None:
    client, _ = await connect("lockstep", version, handshake=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    calls: list[Operation] = [
        lambda stream: stream.do_handshake(),
        lambda stream: stream.receive_some(),
        lambda stream: stream.send_all(b"x"),
    ]
    for call in calls:
        with pytest.raises(tls.ConnectionLost) as caught:
            await call(client)
        assert (caught.value.code, caught.value.phase) == ("ECANCELED", "handshake")
    with pytest.raises(trio.NeedHandshakeError):
        _ = client.info


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how full a socket is")
async def test_a_goodbye_without_room_is_sent_while_reading_and_does_not_hold_it_up(
    autojump_clock: MockClock, version: str
) -> None:
    autojump_clock.autojump_threshold = 0.05
    one, other = trio.socket.socketpair()
    client, server = await tls_pair((trio.SocketStream(one), trio.SocketStream(other)), version=version)
    # Linux takes a write to a Unix socket whole as long as there is any room.
    room = one.getsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF)
    sent = 0
    while int.from_bytes(fcntl.ioctl(one.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder) < room:
        await client.send_all(bytes(16384))
        sent += 16384
    async with client, server, trio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, LARGE)
        async with trio.open_nursery() as saying:
            saying.start_soon(client.send_eof)
            await wait_all_tasks_blocked()
            saying.cancel_scope.cancel()
        with trio.fail_after(60):
            received = 0
            while received < len(LARGE):
                received += len(await client.receive_some())
            nursery.start_soon(client.receive_some)
            assert await receive_all(server) == bytes(sent)
            assert await server.receive_some() == b""
        nursery.cancel_scope.cancel()
