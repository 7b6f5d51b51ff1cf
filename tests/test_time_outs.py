"""The time-outs of a connection that is secure: idle, send and close, on Trio's clock."""

from __future__ import annotations

import math
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from later_handshakes import (
    TRANSPORTS,
    beside,
    client_context,
    pair,
    read_on,
    receive_exactly,
    records,
    server_context,
    socket_pair,
    transport_pair,
)
from trio.testing import MockClock, memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import stream as stream_module
from trio_tlsnode.stream import TLSStream
from trio_tlsnode.testing import DelayingStream, MemoryListener, StallingStream, TransportWrapper

pytestmark = pytest.mark.feature("G12")

VERSIONS = ("TLSv1.2", "TLSv1.3")
in_both_versions = pytest.mark.parametrize("version", VERSIONS)
over_both = pytest.mark.parametrize("transport", TRANSPORTS)
in_both_roles = pytest.mark.parametrize("role", ["client", "server"])
IDLE: dict[str, Any] = {"idle_timeout": 10.0}
SEND: dict[str, Any] = {"send_timeout": 10.0}
# More than the buffers of a pair of sockets take.
MUCH = bytes(4 << 20)


async def fails_at(
    time: float, error: type[tls.ConnectionFailed], call: Callable[[], Awaitable[object]]
) -> None:
    """Expect a time-out at a time, counted from now."""
    time += trio.current_time()
    with pytest.raises(error) as caught:
        while True:
            await call()
            await trio.lowlevel.checkpoint()
    assert trio.current_time() == pytest.approx(time)
    assert type(caught.value) is error
    assert caught.value.retryable
    assert (caught.value.phase, caught.value.side) == ("secure", "network")


# Idle


@in_both_versions
@over_both
@in_both_roles
@pytest.mark.feature("A12")
async def test_a_silent_peer_ends_the_connection(
    version: str, transport: str, role: str, autojump_clock: MockClock
) -> None:
    options: Any = {role: IDLE}
    async with pair(version, transport, **options) as ends:
        stream, other = ends if role == "client" else ends[::-1]
        with pytest.raises(tls.IdleTimeout) as caught:
            await stream.receive_some()
        assert (caught.value.timeout, caught.value.code) == (10.0, "ERR_TLS_IDLE_TIMEOUT")
        assert caught.value.stream is stream
        calls: list[Callable[[], Awaitable[object]]] = [
            stream.receive_some,
            lambda: stream.send_all(b"x"),
            stream.send_eof,
            lambda: stream.receive_into(bytearray(1)),
        ]
        for call in calls:
            await fails_at(0, tls.IdleTimeout, call)
        # No goodbye: what the peer has is not known to be complete.
        with pytest.raises(tls.ConnectionLost):
            await read_on(other)
        await stream.aclose()


@over_both
async def test_the_time_is_counted_from_when_somebody_waits(
    transport: str, autojump_clock: MockClock
) -> None:
    async with pair(transports=transport, server=IDLE) as (client, server):
        await trio.sleep(100)
        await client.send_all(b"in time")
        assert await server.receive_some() == b"in time"
        await trio.sleep(100)
        await fails_at(10, tls.IdleTimeout, server.receive_some)


@over_both
async def test_time_is_not_counted_where_nobody_waits(transport: str, autojump_clock: MockClock) -> None:
    async with pair(transports=transport, server=IDLE) as (client, server):
        for _ in range(3):
            with trio.move_on_after(9):
                await server.receive_some()
            await trio.sleep(9)
        await client.send_all(b"here")
        assert await server.receive_some() == b"here"


@in_both_versions
@over_both
async def test_a_peer_that_says_little_keeps_the_connection_alive(
    version: str, transport: str, autojump_clock: MockClock
) -> None:
    async with pair(version, transport, server=IDLE) as (client, server):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def trickle() -> None:
                for byte in b"slowly":
                    await trio.sleep(9)
                    await client.send_all(bytes((byte,)))

            assert await receive_exactly(server, 6) == b"slowly"
        await fails_at(10, tls.IdleTimeout, server.receive_some)


@over_both
async def test_a_part_of_a_record_is_a_sign_of_life(transport: str, autojump_clock: MockClock) -> None:
    async with pair(transports=transport, server=IDLE) as (client, server):
        client._engine.write(b"data")
        ciphertext = client._engine.drain()
        start = trio.current_time()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def trickle() -> None:
                for byte in ciphertext:
                    await trio.sleep(9)
                    await client.transport_stream.send_all(bytes((byte,)))

            assert await server.receive_some() == b"data"
        assert trio.current_time() == start + 9 * len(ciphertext)


@in_both_versions
@over_both
async def test_what_is_sent_is_activity_too(version: str, transport: str, autojump_clock: MockClock) -> None:
    async with pair(version, transport, server=IDLE) as (client, server), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            with pytest.raises(tls.ConnectionLost):
                await read_on(client)

        nursery.start_soon(fails_at, 66, tls.IdleTimeout, server.receive_some)
        for _ in range(9):
            await server.send_all(b"still here")
            await trio.sleep(7)
        assert trio.current_time() == 63
        # Nothing was sent by this.
        await server.send_all(b"")


@over_both
async def test_a_sender_that_waits_learns_of_it(transport: str, autojump_clock: MockClock) -> None:
    transports = clogged(transport)
    async with pair(transports=transports, server=IDLE) as (_client, server), trio.open_nursery() as nursery:
        nursery.start_soon(fails_at, 10, tls.IdleTimeout, lambda: server.send_all(MUCH))
        nursery.start_soon(fails_at, 10, tls.IdleTimeout, server.receive_some)


def clogged(transport: str) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """Return transports of which the server's takes less than a handshake and a mebibyte."""
    left, right = transport_pair(transport)
    return (left, right) if transport == "socket" else (left, StallingStream(right, send_after=100_000))


async def test_all_who_wait_get_the_same(autojump_clock: MockClock) -> None:
    async with pair(server={**IDLE, "handshake_timeout": 100.0}) as (_client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_at, 10, tls.IdleTimeout, server.receive_some)
            nursery.start_soon(fails_at, 10, tls.IdleTimeout, server.renegotiate)


@over_both
@pytest.mark.parametrize("idle", [None, math.inf])
async def test_without_it_a_peer_may_be_silent_for_ever(
    transport: str, idle: float | None, autojump_clock: MockClock
) -> None:
    async with pair(transports=transport, server={"idle_timeout": idle}) as (client, server):
        with trio.move_on_after(1e6) as scope:
            await server.receive_some()
        assert scope.cancelled_caught
        await client.send_all(b"here")
        assert await server.receive_some() == b"here"


async def test_a_handshake_has_a_time_out_of_its_own(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    transports = DelayingStream(left, delay=11), right
    async with pair(transports=transports, client=IDLE, server=IDLE) as (_client, server):
        assert trio.current_time() > 40
        await fails_at(10, tls.IdleTimeout, server.receive_some)


# Sending


@in_both_versions
@over_both
async def test_a_peer_that_stops_reading_ends_the_connection(
    version: str, transport: str, autojump_clock: MockClock
) -> None:
    async with pair(version, clogged(transport), server=SEND) as (_client, server):
        with pytest.raises(tls.SendTimeout) as caught:
            await server.send_all(MUCH)
        assert (caught.value.timeout, caught.value.code) == (10.0, "ERR_TLS_SEND_TIMEOUT")
        assert (caught.value.phase, caught.value.retryable, caught.value.stream) == ("secure", True, server)
        assert trio.current_time() == pytest.approx(10)
        await fails_at(0, tls.SendTimeout, lambda: server.send_all(b"x"))
        await fails_at(0, tls.SendTimeout, server.receive_some)
        await server.aclose()
        assert trio.current_time() == pytest.approx(10)


class TricklingStream(TransportWrapper):
    """A transport that takes a kilobyte a second."""

    async def _send(self, data: bytes) -> None:
        for start in range(0, len(data), 1000):
            await super()._send(data[start : start + 1000])
            await trio.sleep(1)


@in_both_versions
async def test_a_peer_that_reads_a_trickle_is_too_slow_in_memory(
    version: str, autojump_clock: MockClock
) -> None:
    left, right = memory_stream_pair()
    async with pair(version, (left, TricklingStream(right)), server=SEND) as (_client, server):
        start = trio.current_time()
        await server.send_all(bytes(8000))
        assert trio.current_time() > start + 7
        await fails_at(10, tls.SendTimeout, lambda: server.send_all(bytes(12_000)))


@in_both_versions
async def test_a_peer_that_reads_a_trickle_is_too_slow_on_a_socket(
    version: str, autojump_clock: MockClock
) -> None:
    async with pair(version, "socket", server=SEND) as (client, server):
        raw = client.transport_stream
        assert isinstance(raw, trio.SocketStream)

        async def trickle() -> None:
            while True:
                await trio.sleep(1)
                await raw.receive_some(20_000)

        async with beside(trickle):
            start = trio.current_time()
            with pytest.raises(tls.SendTimeout):
                await server.send_all(MUCH)
            # It has taken some of it, but not one send of 256 KiB in time.
            assert 10 <= trio.current_time() - start <= 40
            assert server.statistics().plaintext_sent > 0


@over_both
async def test_a_peer_that_reads_fast_enough_may_take_as_long_as_it_likes(
    transport: str, autojump_clock: MockClock
) -> None:
    async with pair(transports=transport, server=SEND) as (client, server):
        received = 0

        async def read() -> None:
            nonlocal received
            while received < len(MUCH):
                await trio.sleep(4)
                received += len(await client.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await server.send_all(MUCH)
        assert received == len(MUCH)
        assert trio.current_time() > 40


@over_both
async def test_who_receives_learns_of_it(transport: str, autojump_clock: MockClock) -> None:
    async with pair(transports=clogged(transport), server=SEND) as (_client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_at, 10, tls.SendTimeout, server.receive_some)
            nursery.start_soon(fails_at, 10, tls.SendTimeout, lambda: server.send_all(MUCH))


async def test_what_arrives_meanwhile_does_not_prolong_it(autojump_clock: MockClock) -> None:
    """A receiver, too, sends what waits, again and again."""
    left, right = socket_pair()
    async with pair("TLSv1.3", (left, right), server=SEND) as (client, server):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def chatter() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    while True:
                        client._engine.write(b"chatter")
                        await left.send_all(client._engine.drain())
                        await trio.sleep(3)

            @nursery.start_soon
            async def listen() -> None:
                with pytest.raises(tls.SendTimeout):
                    await read_on(server)

            await fails_at(10, tls.SendTimeout, lambda: server.send_all(MUCH))


@pytest.mark.parametrize("call", [TLSStream.send_eof, TLSStream.renegotiate])
async def test_a_goodbye_and_a_question_are_sent_in_time_too(
    call: Callable[[TLSStream], Awaitable[object]], autojump_clock: MockClock
) -> None:
    left, right = memory_stream_pair()
    stalling = StallingStream(right)
    async with pair(transports=(left, stalling), server=SEND) as (_client, server):
        stalling._send_room = 0
        await fails_at(10, tls.SendTimeout, partial(call, server))


@over_both
@pytest.mark.parametrize("send", [None, math.inf])
async def test_without_it_a_peer_may_take_for_ever(
    transport: str, send: float | None, autojump_clock: MockClock
) -> None:
    async with pair(transports=clogged(transport), server={"send_timeout": send}) as (_client, server):
        with trio.move_on_after(1e6) as scope:
            await server.send_all(MUCH)
        assert scope.cancelled_caught


@pytest.mark.parametrize("error", [tls.IdleTimeout, tls.SendTimeout])
async def test_an_error_keeps_nothing_of_what_led_to_it(
    error: type[tls.ConnectionFailed], autojump_clock: MockClock
) -> None:
    """A frame whose own exception is among its variables is a cycle, and keeps its connection."""
    async with pair(transports=clogged("memory"), server={**IDLE, **SEND}) as (_client, server):
        with pytest.raises(error) as caught:
            await (server.receive_some() if error is tls.IdleTimeout else server.send_all(MUCH))
        for frame, _ in traceback.walk_tb(caught.value.__traceback__):
            if frame.f_code.co_filename == stream_module.__file__:
                assert caught.value not in frame.f_locals.values()


# A server's


@pytest.mark.feature("B9")
@pytest.mark.parametrize("error", [tls.IdleTimeout, tls.SendTimeout])
async def test_a_server_reports_it_and_has_closed_the_connection(
    error: type[tls.ConnectionFailed], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def handler(stream: TLSStream) -> None:
        if error is tls.SendTimeout:
            await stream.send_all(MUCH)
        await stream.receive_some()

    server = tls.TLSServer(handler, server_context("TLSv1.3"), **IDLE, **SEND)
    left, right = memory_stream_pair()
    nursery.start_soon(server.handle, StallingStream(right, send_after=20_000))
    client = TLSStream(left, client_context("TLSv1.3"), host="localhost")
    await client.do_handshake()
    (failure,) = (await anext(server.client_errors())).exceptions
    assert type(failure) is error
    assert failure.phase == "secure"
    assert trio.current_time() == pytest.approx(10)
    assert server.statistics().open == 0
    assert server.statistics().failed == {failure.code: 1}
    with pytest.raises(tls.ConnectionLost):
        await read_on(client)
    nursery.cancel_scope.cancel()


async def test_clients_have_them_as_well(autojump_clock: MockClock) -> None:
    async def silent(stream: TLSStream) -> None:
        await trio.sleep_forever()

    listener = MemoryListener()
    server = tls.TLSServer(silent, server_context("TLSv1.3"))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners, [listener])
        client = await tls.wrap_client(await listener.connect(), context=client_context("TLSv1.3"), **IDLE)
        await fails_at(10, tls.IdleTimeout, client.receive_some)
        nursery.cancel_scope.cancel()


# Closing


@in_both_versions
@over_both
@pytest.mark.parametrize("seconds", [0, 2, 5.0])
async def test_a_goodbye_takes_no_longer_than_the_close_time_out(
    version: str, transport: str, seconds: float, autojump_clock: MockClock
) -> None:
    async with pair(version, clogged(transport), server={"close_timeout": seconds}) as (_client, server):
        if transport == "socket":
            raw = server.transport_stream
            assert isinstance(raw, trio.SocketStream)
            with pytest.raises(BlockingIOError):
                while True:
                    raw.socket._sock.send(bytes(1 << 16))  # type: ignore[attr-defined]  # without waiting
        else:
            assert isinstance(server.transport_stream, StallingStream)
            server.transport_stream._send_room = 0
        start = trio.current_time()
        await server.aclose()
        assert trio.current_time() == start + seconds


async def test_closing_is_quiet_where_the_send_time_out_comes_first(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    stalling = StallingStream(right)
    async with pair(transports=(left, stalling), server={**SEND, "close_timeout": 50}) as (_client, server):
        stalling._send_room = 0
        start = trio.current_time()
        await server.aclose()
        assert trio.current_time() == start + 10


async def test_an_alert_takes_no_longer_than_the_close_time_out(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    stalling = StallingStream(right)
    async with pair(transports=(left, stalling), server={"close_timeout": 3}) as (client, server):
        stalling._send_room = 0
        await left.send_all(b"\x17\3\3\0\1x")
        start = trio.current_time()
        with pytest.raises(tls.ProtocolError):
            await server.receive_some()
        assert trio.current_time() == start + 3
        assert records(client._engine.drain()) == []


# What is no time-out

OPTIONS = ("handshake_timeout", "close_timeout", "idle_timeout", "send_timeout")


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(
    ("value", "code"),
    [
        (-1, "ERR_OUT_OF_RANGE"),
        (-0.001, "ERR_OUT_OF_RANGE"),
        (math.nan, "ERR_OUT_OF_RANGE"),
        (-math.inf, "ERR_OUT_OF_RANGE"),
        ("10", "ERR_INVALID_ARG_TYPE"),
        (True, "ERR_INVALID_ARG_TYPE"),
        ([], "ERR_INVALID_ARG_TYPE"),
    ],
)
def test_other_values_are_refused(option: str, value: Any, code: str) -> None:
    transport, _ = memory_stream_pair()
    makers: list[Callable[[], object]] = [
        lambda: TLSStream(transport, client_context("TLSv1.3"), **{option: value}),
        lambda: TLSStream(transport, server_context("TLSv1.3"), server_side=True, **{option: value}),
        lambda: tls.TLSServer(read_on, server_context("TLSv1.3"), **{option: value}),
    ]
    for make in makers:
        with pytest.raises(tls.ConfigurationError) as caught:
            make()
        assert (caught.value.code, caught.value.option) == (code, option)


@pytest.mark.parametrize("option", ["handshake_timeout", "close_timeout"])
def test_these_cannot_be_left_out(option: str) -> None:
    transport, _ = memory_stream_pair()
    options: dict[str, Any] = {option: None}
    with pytest.raises(tls.ConfigurationTypeError):
        TLSStream(transport, client_context("TLSv1.3"), **options)
