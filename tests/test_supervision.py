"""What clients did wrong goes to one supervising task; a program's own defects do not."""

from __future__ import annotations

import gc
import logging
import socket
import struct
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from trio_tlsnode import (
    Address,
    Alert,
    CallbackError,
    ConnectionFailed,
    ConnectionLost,
    NotTLS,
    PeerAlert,
    ProtocolError,
    SecureContext,
    TLSClientErrors,
    TLSError,
    TLSServer,
    TLSStream,
    TruncationError,
    wrap_client,
)
from trio_tlsnode.testing import default_authority

pytestmark = pytest.mark.feature("B6")

CLIENT = SecureContext(ca=default_authority().ca)
SERVER = SecureContext(**default_authority().good("localhost").options)

HTTP_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
# A record of application data that nobody can decrypt.
GARBLED_RECORD = b"\x17\x03\x03\x00\x40" + bytes(64)

MemoryStream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def fail_once(server: TLSServer, first_bytes: bytes = HTTP_REQUEST) -> None:
    """Let one client fail; return when that was reported."""
    client, transport = memory_stream_pair()
    await client.send_all(first_bytes)
    await client.send_eof()
    await server.handle(transport)


async def connected(nursery: trio.Nursery, server: TLSServer) -> tuple[TLSStream, MemoryStream, MemoryStream]:
    """Connect a client; return it and both ends of the transport."""
    client_end, server_end = memory_stream_pair()
    nursery.start_soon(server.handle, server_end)
    client = await wrap_client(client_end, context=CLIENT)
    await wait_all_tasks_blocked()
    assert server.statistics().open
    return client, client_end, server_end


def errors_of(group: TLSClientErrors) -> list[ConnectionFailed]:
    errors = [error for error in group.exceptions if isinstance(error, ConnectionFailed)]
    assert len(errors) == len(group.exceptions)
    return errors


async def next_failures(server: TLSServer) -> list[ConnectionFailed]:
    return errors_of(await anext(server.client_errors()))


async def next_failure(server: TLSServer) -> ConnectionFailed:
    (error,) = await next_failures(server)
    return error


# Turns


async def test_group_has_what_failed_since_the_last_turn_oldest_first() -> None:
    server = TLSServer(echo, SERVER)
    failures = server.client_errors()
    await fail_once(server)
    await fail_once(server, b"SSH-2.0-OpenSSH_9.9\r\n")
    await fail_once(server, b"")
    group = await anext(failures)
    assert type(group) is TLSClientErrors
    assert [type(error) for error in group.exceptions] == [NotTLS, NotTLS, ConnectionLost]
    first, second, _ = group.exceptions
    assert isinstance(first, NotTLS)
    assert isinstance(second, NotTLS)
    assert (first.looks_like, second.looks_like) == ("an HTTP request", "an SSH banner")
    assert group.dropped == 0
    await fail_once(server, b"")
    assert [type(error) for error in (await anext(failures)).exceptions] == [ConnectionLost]


async def test_supervisor_is_woken_by_a_failure(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER)
    turns: list[int] = []

    async def supervise() -> None:
        async for group in server.client_errors():
            turns.append(len(group.exceptions))

    nursery.start_soon(supervise)
    await wait_all_tasks_blocked()
    assert not turns
    await fail_once(server)
    await wait_all_tasks_blocked()
    await fail_once(server)
    await wait_all_tasks_blocked()
    assert turns == [1, 1]


async def test_slow_supervisor_gets_larger_groups(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    server = TLSServer(echo, SERVER)
    turns: list[int] = []

    async def supervise() -> None:
        async for group in server.client_errors():
            turns.append(len(group.exceptions))
            await trio.sleep(10.4)

    nursery.start_soon(supervise)
    for _ in range(25):
        await fail_once(server)
        await trio.sleep(1)
    await trio.sleep(10)
    assert turns == [1, 10, 10, 4]


async def test_slow_supervisor_costs_bounded_memory_and_is_told_what_was_dropped() -> None:
    server = TLSServer(echo, SERVER, client_error_limit=3)
    failures = server.client_errors()
    first_bytes = [HTTP_REQUEST, b"", b"SSH-2.0-x\r\n", b"", b""]
    for data in first_bytes:
        await fail_once(server, data)
    group = await anext(failures)
    assert [type(error) for error in group.exceptions] == [NotTLS, ConnectionLost, NotTLS]
    assert group.dropped == 2
    await fail_once(server)
    group = await anext(failures)
    assert (len(group.exceptions), group.dropped) == (1, 0)
    assert server.statistics().dropped == 2
    assert sum(server.statistics().failed.values()) == 6


async def test_a_thousand_failures_are_kept_by_default() -> None:
    server = TLSServer(echo, SERVER)
    failures = server.client_errors()
    error = ConnectionLost("gone")
    for _ in range(1001):
        server._client_errors.report(error)
    group = await anext(failures)
    assert (len(group.exceptions), group.dropped) == (1000, 1)


async def test_connection_never_waits_for_the_supervisor(autojump_clock: MockClock) -> None:
    server = TLSServer(echo, SERVER, client_error_limit=1)
    server.client_errors()
    for _ in range(3):
        await fail_once(server)
    assert trio.current_time() == 0


async def test_each_turn_is_a_checkpoint() -> None:
    server = TLSServer(echo, SERVER)
    failures = server.client_errors()
    await fail_once(server)
    with assert_checkpoints():
        await anext(failures)
    await server.aclose()
    with assert_checkpoints(), pytest.raises(StopAsyncIteration):
        await anext(failures)


# The group


@pytest.fixture
async def mixed_group() -> TLSClientErrors:
    """A group of NotTLS, ConnectionLost and CallbackError; two more were dropped."""

    def refuse(_name: str) -> None:
        raise LookupError("no such host")

    server = TLSServer(echo, SERVER, client_error_limit=3, sni_callback=refuse)
    await fail_once(server)
    await fail_once(server, b"")
    async with trio.open_nursery() as nursery:
        client, transport = memory_stream_pair()
        nursery.start_soon(server.handle, transport)
        with pytest.raises(PeerAlert):
            await wrap_client(client, context=CLIENT)
    await fail_once(server)
    await fail_once(server)
    return await anext(server.client_errors())


async def test_except_star_sorts_by_class_and_keeps_what_was_dropped(mixed_group: TLSClientErrors) -> None:
    caught: list[BaseExceptionGroup[Any]] = []
    try:
        raise mixed_group
    except* NotTLS as group:
        caught.append(group)
    except* ConnectionLost as group:
        caught.append(group)
    except* TLSError as group:
        caught.append(group)
    assert [[type(error) for error in group.exceptions] for group in caught] == [
        [NotTLS],
        [ConnectionLost],
        [CallbackError],
    ]
    for part in caught:
        assert type(part) is TLSClientErrors
        assert part.dropped == 2


async def test_what_except_star_leaves_over_keeps_what_was_dropped(mixed_group: TLSClientErrors) -> None:
    def handle_what_is_not_tls() -> None:
        try:
            raise mixed_group
        except* NotTLS:
            pass

    with pytest.raises(TLSClientErrors) as caught:
        handle_what_is_not_tls()
    first, second = caught.value.exceptions
    assert isinstance(first, ConnectionLost)
    assert isinstance(second, CallbackError)
    assert caught.value.dropped == 2


async def test_split_and_subgroup_keep_what_was_dropped(mixed_group: TLSClientErrors) -> None:
    matching, others = mixed_group.split(NotTLS)
    for part in (matching, others, mixed_group.subgroup(ConnectionLost)):
        assert type(part) is TLSClientErrors
        assert part.dropped == 2
        assert part.message == mixed_group.message


async def test_group_is_caught_as_what_each_of_its_errors_is(mixed_group: TLSClientErrors) -> None:
    assert isinstance(mixed_group, ExceptionGroup)
    with pytest.RaisesGroup(trio.BrokenResourceError, trio.BrokenResourceError, trio.BrokenResourceError):
        raise mixed_group


# Facts


async def test_failure_before_the_hello_says_who_and_what() -> None:
    server = TLSServer(echo, SERVER)
    await fail_once(server)
    error = await next_failure(server)
    assert isinstance(error, NotTLS)
    assert error.code == "ERR_SSL_HTTP_REQUEST"
    assert error.phase == "hello"
    assert isinstance(error.stream, TLSStream)
    assert error.remote_address is None
    assert error.server_name is None
    assert error.client_hello is None
    assert not error.retryable


async def test_failure_after_the_hello_says_what_the_client_wanted(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, alpn_protocols=["h2"])
    client, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    with pytest.raises(PeerAlert):
        await wrap_client(client, host="a.example", context=CLIENT, alpn_protocols=["http/1.1"])
    error = await next_failure(server)
    assert isinstance(error, ProtocolError)
    assert error.code == "ERR_SSL_NO_APPLICATION_PROTOCOL"
    assert error.phase == "handshake"
    assert error.server_name == "a.example"
    assert error.client_hello is not None
    assert error.client_hello.alpn_protocols == ("http/1.1",)


async def test_failure_over_a_socket_has_the_remote_address(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER)
    (listener,) = await nursery.start(server.serve, 0, "127.0.0.1")
    async with await trio.testing.open_stream_to_socket_listener(listener) as client:
        port = client.socket.getsockname()[1]
        await client.send_all(HTTP_REQUEST)
        assert await client.receive_some() == b""
    error = await next_failure(server)
    assert error.remote_address == Address("127.0.0.1", port, "IPv4")
    assert f"127.0.0.1:{port}" in str(error)
    assert error.stream is not None
    assert error.stream.remote_address == error.remote_address


async def test_what_a_callback_raised_is_the_cause(nursery: trio.Nursery) -> None:
    def refuse(_name: str) -> None:
        raise LookupError("no such host")

    server = TLSServer(echo, SERVER, sni_callback=refuse)
    client, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    with pytest.raises(PeerAlert) as refused:
        await wrap_client(client, context=CLIENT)
    assert refused.value.alert == Alert.unrecognized_name
    error = await next_failure(server)
    assert isinstance(error, CallbackError)
    assert (error.callback, error.side) == ("sni_callback", "local")
    assert isinstance(error.__cause__, LookupError)


async def test_nothing_is_left_of_a_connection_whose_failure_is_told(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER)
    _client, client_end, _ = await connected(nursery, server)
    await client_end.send_all(GARBLED_RECORD)
    error = await next_failure(server)
    assert server.statistics().open == 0
    assert error.stream is not None
    assert error.stream._engine._ssl is None
    with pytest.raises(trio.ClosedResourceError):
        await error.stream.receive_some()


async def test_errors_are_kept_without_traceback_and_what_it_holds(nursery: trio.Nursery) -> None:
    class Large:
        pass

    large: list[weakref.ref[Large]] = []

    async def handler(stream: TLSStream) -> None:
        local = Large()
        large.append(weakref.ref(local))
        try:
            raise LookupError("what was being handled")
        except LookupError:
            await echo(stream)
        del local

    server = TLSServer(handler, SERVER)
    for misdeed, _, _ in MISDEEDS:
        await misdeed(*await connected(nursery, server))
        await wait_all_tasks_blocked()
    for error in await next_failures(server):
        assert error.phase == "secure"
        assert error.__traceback__ is None
        assert error.__context__ is None
    gc.collect()
    assert [reference() for reference in large] == [None, None, None]


# Nobody supervises


async def test_unsupervised_failure_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    server = TLSServer(echo, SERVER)
    with caplog.at_level(logging.INFO, "trio_tlsnode"):
        await fail_once(server)
    (record,) = caplog.records
    assert record.name == "trio_tlsnode"
    assert record.levelno == logging.INFO
    assert record.exc_info is None
    assert "an HTTP request" in record.getMessage()
    assert "\n" not in record.getMessage()


async def test_log_is_limited_by_rate(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    server = TLSServer(echo, SERVER)
    with caplog.at_level(logging.INFO, "trio_tlsnode"):
        for _ in range(30):
            await fail_once(server)
        *lines, last = caplog.messages
        assert len(lines) == 20
        assert all("an HTTP request" in line for line in lines)
        assert last.startswith("more connections fail; for 10 seconds they are counted")
        caplog.clear()
        await trio.sleep(10)
        await fail_once(server)
        await fail_once(server)
    skipped, *others = caplog.messages
    assert skipped.startswith("10 more connections failed")
    assert len(others) == 2
    assert server.statistics().failed == {"ERR_SSL_HTTP_REQUEST": 32}


async def test_log_lines_cannot_be_forged(caplog: pytest.LogCaptureFixture, nursery: trio.Nursery) -> None:
    class Forger:
        def __repr__(self) -> str:
            return "\nCRITICAL all is lost\x1b[2J\u202e"

    server = TLSServer(echo, SERVER, sni_callback=lambda _name: Forger())  # type: ignore[arg-type, return-value]
    client, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    with caplog.at_level(logging.INFO, "trio_tlsnode"):
        with pytest.raises(PeerAlert):
            await wrap_client(client, context=CLIENT)
        await wait_all_tasks_blocked()
    (message,) = caplog.messages
    assert "\\nCRITICAL" in message
    assert message.isprintable()


async def test_supervised_failures_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    server = TLSServer(echo, SERVER)
    server.client_errors()
    with caplog.at_level(logging.INFO, "trio_tlsnode"):
        await fail_once(server)
    assert not caplog.records


async def test_unsupervised_server_goes_on_counts_and_keeps_the_first_failures(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, client_error_limit=5)
    for _ in range(8):
        await fail_once(server)
    client, _, _ = await connected(nursery, server)
    await client.send_all(b"hello")
    assert await client.receive_some() == b"hello"
    statistics = server.statistics()
    assert statistics.failed == {"ERR_SSL_HTTP_REQUEST": 8}
    assert statistics.dropped == 3
    group = await anext(server.client_errors())
    assert (len(group.exceptions), group.dropped) == (5, 3)
    await client.aclose()


# The supervising task


async def test_iteration_ends_when_the_server_is_closed(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER)
    turns: list[int] = []
    ended = trio.Event()

    async def supervise() -> None:
        async for group in server.client_errors():
            turns.append(len(group.exceptions))
        ended.set()

    nursery.start_soon(supervise)
    await wait_all_tasks_blocked()
    await server.aclose()
    await ended.wait()
    assert not turns


async def test_what_failed_before_the_end_is_still_delivered() -> None:
    server = TLSServer(echo, SERVER)
    await fail_once(server)
    await server.aclose()
    turns = [len(group.exceptions) async for group in server.client_errors()]
    assert turns == [1]


async def test_what_fails_while_the_server_closes_is_delivered(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER)
    _client, client_end, _ = await connected(nursery, server)
    nursery.start_soon(server.aclose)
    await wait_all_tasks_blocked()
    await client_end.send_all(GARBLED_RECORD)
    turns = [len(group.exceptions) async for group in server.client_errors()]
    assert turns == [1]


async def test_task_that_is_cancelled_and_replaced_loses_nothing(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER)
    heard: list[str] = []

    async def supervise(scope: trio.CancelScope) -> None:
        with scope:
            async for group in server.client_errors():
                heard.extend(error.code for error in errors_of(group))

    codes: list[str] = []
    # Cancelled while it waits, at the very moment of the failure (both orders), and before it ever ran.
    for when in ("waiting", "after the failure", "before the failure", "at the start"):
        scope = trio.CancelScope()
        if when != "at the start":
            nursery.start_soon(supervise, scope)
            await wait_all_tasks_blocked()
        if when in ("waiting", "before the failure"):
            scope.cancel()
        if when == "waiting":
            await wait_all_tasks_blocked()
        code = f"ERR_{len(codes)}"
        codes.append(code)
        server._client_errors.report(ConnectionLost("gone", code=code))
        scope.cancel()
        if when == "at the start":
            nursery.start_soon(supervise, scope)
        await wait_all_tasks_blocked()
    nursery.start_soon(supervise, trio.CancelScope())
    await wait_all_tasks_blocked()
    assert heard == codes


async def test_what_the_supervising_task_raises_goes_where_its_nursery_sends_it(
    nursery: trio.Nursery,
) -> None:
    server = TLSServer(echo, SERVER)
    client, _, _ = await connected(nursery, server)
    await fail_once(server)
    with pytest.RaisesGroup(NotTLS):
        async for group in server.client_errors():
            raise group
    await client.send_all(b"unimpressed")
    assert await client.receive_some() == b"unimpressed"
    await client.aclose()


# What a secure connection's own stream raised


async def garble(_client: TLSStream, client_end: MemoryStream, _server_end: MemoryStream) -> None:
    await client_end.send_all(GARBLED_RECORD)


async def truncate(_client: TLSStream, client_end: MemoryStream, _server_end: MemoryStream) -> None:
    await client_end.send_stream.aclose()


async def late_alert(client: TLSStream, _client_end: MemoryStream, server_end: MemoryStream) -> None:
    await server_end.send_all(GARBLED_RECORD)
    with pytest.raises(ProtocolError):
        await client.receive_some()


Misdeed = Callable[[TLSStream, MemoryStream, MemoryStream], Awaitable[None]]
MISDEEDS: list[tuple[Misdeed, type[ConnectionFailed], str]] = [
    (garble, ProtocolError, "ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
    (truncate, TruncationError, "ERR_SSL_UNEXPECTED_EOF_WHILE_READING"),
    (late_alert, PeerAlert, "ERR_SSL_SSLV3_ALERT_BAD_RECORD_MAC"),
]


@pytest.mark.parametrize(("misdeed", "kind", "code"), MISDEEDS)
async def test_own_stream_s_failure_ends_that_connection_alone(
    misdeed: Misdeed, kind: type[ConnectionFailed], code: str, nursery: trio.Nursery
) -> None:
    server = TLSServer(echo, SERVER)
    other, _, _ = await connected(nursery, server)
    client, client_end, server_end = await connected(nursery, server)
    assert server.statistics().open == 2
    await misdeed(client, client_end, server_end)
    error = await next_failure(server)
    assert type(error) is kind
    assert error.code == code
    assert error.phase == "secure"
    assert error.server_name == "localhost"
    assert server.statistics().open == 1
    await other.send_all(b"undisturbed")
    assert await other.receive_some() == b"undisturbed"
    await other.aclose()


async def test_reset_of_a_secure_connection_ends_it_alone(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER)
    (listener,) = await nursery.start(server.serve, 0, "127.0.0.1")
    transport = await trio.testing.open_stream_to_socket_listener(listener)
    await wrap_client(transport, context=CLIENT)
    while not server.statistics().secure:
        await wait_all_tasks_blocked()
    transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.socket.close()
    error = await next_failure(server)
    assert type(error) is ConnectionLost
    assert (error.code, error.phase, error.progress) == ("ECONNRESET", "secure", None)
    assert server.statistics().open == 0


@pytest.mark.parametrize("misdeed", [misdeed for misdeed, _, _ in MISDEEDS])
async def test_failure_is_reported_once_however_many_tasks_met_it(
    misdeed: Misdeed, nursery: trio.Nursery
) -> None:
    met: list[TLSError] = []

    async def use(operation: Callable[[], Awaitable[object]]) -> None:
        try:
            await operation()
        except TLSError as error:
            met.append(error)
            raise

    async def handler(stream: TLSStream) -> None:
        failed = trio.Event()

        async def receive_after_that() -> None:
            with trio.CancelScope(shield=True):
                await failed.wait()
                await use(stream.receive_some)

        assert stream.nursery is not None
        stream.nursery.start_soon(receive_after_that)
        async with trio.open_nursery() as inner:
            inner.start_soon(receive_after_that)
            try:
                await use(stream.receive_some)
            finally:
                failed.set()

    server = TLSServer(handler, SERVER)
    client, client_end, server_end = await connected(nursery, server)
    await misdeed(client, client_end, server_end)
    await next_failure(server)
    await wait_all_tasks_blocked()
    assert len(met) == 3
    assert sum(server.statistics().failed.values()) == 1


async def test_handler_that_catches_its_stream_s_error_is_not_reported(nursery: trio.Nursery) -> None:
    caught: list[TLSError] = []

    async def handler(stream: TLSStream) -> None:
        try:
            await stream.receive_some()
        except TLSError as error:
            caught.append(error)

    server = TLSServer(handler, SERVER)
    _client, client_end, _ = await connected(nursery, server)
    await client_end.send_all(GARBLED_RECORD)
    await wait_all_tasks_blocked()
    assert [type(error) for error in caught] == [ProtocolError]
    assert not server.statistics().failed
    assert server.statistics().open == 0


# What a handler raises of its own


@pytest.mark.node("test-tls-handshake-exception.js")
@pytest.mark.parametrize("where", ["handler", "background"])
async def test_handler_s_own_defect_propagates(where: str, nursery: trio.Nursery) -> None:
    async def fail() -> None:
        raise ValueError("a defect")

    async def handler(stream: TLSStream) -> None:
        if where == "handler":
            await fail()
        assert stream.nursery is not None
        stream.nursery.start_soon(fail)
        await trio.sleep_forever()

    server = TLSServer(handler, SERVER)
    client_end, server_end = memory_stream_pair()
    nursery.start_soon(wrap_ignoring_failure, client_end)
    with pytest.RaisesGroup(ValueError, flatten_subgroups=True) as caught:
        await server.handle(server_end)
    assert caught.value.__context__ is None
    assert not server.statistics().failed
    assert server.statistics().open == 0
    with pytest.raises(trio.ClosedResourceError):
        await server_end.send_all(b"?")


async def wrap_ignoring_failure(transport: trio.abc.Stream) -> None:
    try:
        stream = await wrap_client(transport, context=CLIENT)
    except trio.BrokenResourceError:
        return
    await trio.aclose_forcefully(stream)


async def test_handler_s_own_defect_ends_serve_as_in_trio(nursery: trio.Nursery) -> None:
    async def handler(_stream: TLSStream) -> None:
        raise ValueError("a defect")

    server = TLSServer(handler, SERVER)
    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        async with trio.open_nursery() as serving:
            (listener,) = await serving.start(server.serve, 0, "127.0.0.1")
            transport = await trio.testing.open_stream_to_socket_listener(listener)
            nursery.start_soon(wrap_ignoring_failure, transport)


async def test_own_failure_is_reported_and_a_defect_beside_it_propagates(nursery: trio.Nursery) -> None:
    async def handler(stream: TLSStream) -> None:
        try:
            await stream.receive_some()
        except TLSError as error:
            raise ExceptionGroup("both", [error, ValueError("a defect")]) from None

    server = TLSServer(handler, SERVER)
    client_end, server_end = memory_stream_pair()

    async def misbehave() -> None:
        await wrap_client(client_end, context=CLIENT)
        await client_end.send_all(GARBLED_RECORD)

    nursery.start_soon(misbehave)
    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        await server.handle(server_end)
    assert isinstance(await next_failure(server), ProtocolError)


async def test_failure_of_another_stream_is_the_handler_s_own(nursery: trio.Nursery) -> None:
    async def handler(_stream: TLSStream) -> None:
        upstream, nobody = memory_stream_pair()
        await nobody.aclose()
        await wrap_client(upstream, context=CLIENT)

    server = TLSServer(handler, SERVER)
    client_end, server_end = memory_stream_pair()
    nursery.start_soon(wrap_ignoring_failure, client_end)
    with pytest.RaisesGroup(ConnectionLost, flatten_subgroups=True):
        await server.handle(server_end)
    assert not server.statistics().failed


async def test_own_failure_wrapped_in_another_error_is_the_handler_s_own(nursery: trio.Nursery) -> None:
    async def handler(stream: TLSStream) -> None:
        try:
            await stream.receive_some()
        except TLSError as error:
            raise RuntimeError("the request was cut") from error

    server = TLSServer(handler, SERVER)
    client_end, server_end = memory_stream_pair()

    async def misbehave() -> None:
        await wrap_client(client_end, context=CLIENT)
        await client_end.send_all(GARBLED_RECORD)

    nursery.start_soon(misbehave)
    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        await server.handle(server_end)
    assert not server.statistics().failed


async def test_cancelling_is_never_swallowed(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER)
    client_end, server_end = memory_stream_pair()
    scope = trio.CancelScope()
    went_on = trio.Event()

    async def handle() -> None:
        with scope:
            await server.handle(server_end)
            went_on.set()

    nursery.start_soon(handle)
    await wrap_client(client_end, context=CLIENT)
    scope.cancel()
    await wait_all_tasks_blocked()
    assert scope.cancelled_caught
    assert not went_on.is_set()
    assert not server.statistics().failed
    assert server.statistics().open == 0


async def test_cancelling_is_not_swallowed_by_a_failure_that_came_with_it(nursery: trio.Nursery) -> None:
    async def handler(stream: TLSStream) -> None:
        async def receive() -> None:
            with trio.CancelScope(shield=True):
                await stream.receive_some()

        async with trio.open_nursery() as inner:
            inner.start_soon(receive)
            await trio.sleep_forever()

    server = TLSServer(handler, SERVER)
    client_end, server_end = memory_stream_pair()
    scope = trio.CancelScope()
    went_on = trio.Event()

    async def handle() -> None:
        with scope:
            await server.handle(server_end)
            went_on.set()

    nursery.start_soon(handle)
    await wrap_client(client_end, context=CLIENT)
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    await client_end.send_all(GARBLED_RECORD)
    await wait_all_tasks_blocked()
    assert scope.cancelled_caught
    assert not went_on.is_set()
    assert isinstance(await next_failure(server), ProtocolError)


def test_failures_are_contained_where_nurseries_are_not_strict() -> None:
    server = TLSServer(echo, SERVER)

    async def main() -> None:
        await fail_once(server)
        assert isinstance(await next_failure(server), NotTLS)

    with pytest.warns(trio.TrioDeprecationWarning, match="strict_exception_groups"):
        trio.run(main, strict_exception_groups=False)
