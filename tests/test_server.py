"""TLSServer: its options, one connection from accept to the end of its nursery, and its counts."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_tlsnode import (
    Address,
    Alert,
    CallbackError,
    ConfigurationError,
    ConfigurationTypeError,
    ConnectionFailed,
    ConnectionLost,
    PeerAlert,
    PreSharedKey,
    ProtocolError,
    SecureContext,
    ServerStatistics,
    TLSServer,
    TLSStream,
    wrap_client,
)
from trio_tlsnode.testing import MemoryListener, RecordingStream, default_authority

CLIENT = SecureContext(ca=default_authority().ca)
SERVER = SecureContext(**default_authority().good("localhost").options)


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def connect_to(nursery: trio.Nursery, server: TLSServer, **options: Any) -> TLSStream:
    """Return a client of the server, over memory."""
    client, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    return await wrap_client(client, context=CLIENT, **options)


async def next_failure(server: TLSServer) -> ConnectionFailed:
    (error,) = (await anext(server.client_errors())).exceptions
    assert isinstance(error, ConnectionFailed)
    return error


# Options

WRONG_TYPES: list[tuple[str, Any]] = [
    ("handler", None),
    ("handler", "echo"),
    ("context", None),
    ("context", {"key": "k", "cert": "c"}),
    ("sni_callback", "localhost"),
    ("on_connection", 1),
    ("alpn_protocols", "h2"),
    ("alpn_protocols", 2),
    ("alpn_protocols", ["h2", None]),
    ("handshake_timeout", "1"),
    ("handshake_timeout", None),
    ("close_timeout", None),
    ("close_timeout", True),
    ("request_cert", None),
    ("reject_unauthorized", None),
    ("reject_unauthorized", 0),
    ("https_compatible", "yes"),
    ("client_error_limit", None),
    ("client_error_limit", 10.0),
    ("client_error_limit", True),
]
WRONG_VALUES: list[tuple[str, Any, str]] = [
    ("alpn_protocols", [""], "ERR_OUT_OF_RANGE"),
    ("alpn_protocols", ["x" * 256], "ERR_OUT_OF_RANGE"),
    ("alpn_protocols", b"\x02h2\x00", "ERR_INVALID_ARG_VALUE"),
    ("handshake_timeout", -0.1, "ERR_OUT_OF_RANGE"),
    ("close_timeout", float("nan"), "ERR_OUT_OF_RANGE"),
    ("client_error_limit", 0, "ERR_OUT_OF_RANGE"),
]


def make_server(**options: Any) -> TLSServer:
    return TLSServer(options.pop("handler", echo), options.pop("context", SERVER), **options)


@pytest.mark.feature("F15")
@pytest.mark.parametrize(("option", "value"), WRONG_TYPES)
def test_option_of_the_wrong_type_is_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigurationTypeError) as caught:
        make_server(**{option: value})
    error = caught.value
    assert isinstance(error, TypeError)
    assert isinstance(error, ValueError)
    assert error.code == "ERR_INVALID_ARG_TYPE"
    assert error.option is not None
    assert error.option.startswith(option)
    assert error.side == "usage"
    assert not error.retryable


@pytest.mark.feature("F15")
@pytest.mark.parametrize(("option", "value", "code"), WRONG_VALUES)
def test_option_with_an_impossible_value_is_refused(option: str, value: object, code: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_server(**{option: value})
    assert not isinstance(caught.value, TypeError)
    assert caught.value.code == code
    assert caught.value.option is not None
    assert caught.value.option.startswith(option)


@pytest.mark.feature("B1")
@pytest.mark.node("test-tls-no-cert-required.js")
@pytest.mark.parametrize("options", [{}, {"ca": default_authority().ca}])
def test_context_without_certificate_and_key_is_refused(options: Any) -> None:
    with pytest.raises(ConfigurationError, match="certificate and its key") as caught:
        TLSServer(echo, SecureContext(**options))
    assert not isinstance(caught.value, TypeError)
    assert caught.value.option == "context"


@pytest.mark.feature("B1")
def test_all_options_but_handler_and_context_are_named() -> None:
    with pytest.raises(TypeError):
        TLSServer(echo, SERVER, lambda _name: None)  # type: ignore[call-arg, arg-type]


@pytest.mark.feature("B10")
@pytest.mark.parametrize("arguments", [("*.example.com", None), (None, SERVER), (b"a.example", SERVER)])
def test_add_context_refuses_wrong_types(arguments: tuple[Any, Any]) -> None:
    with pytest.raises(ConfigurationTypeError):
        TLSServer(echo, SERVER).add_context(*arguments)


@pytest.mark.feature("B10")
def test_add_context_refuses_an_empty_name() -> None:
    with pytest.raises(ConfigurationError) as caught:
        TLSServer(echo, SERVER).add_context("", SERVER)
    assert caught.value.code == "ERR_TLS_REQUIRED_SERVER_NAME"


@pytest.mark.feature("B10")
async def test_add_context_refuses_a_context_without_certificate(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER)
    with pytest.raises(ConfigurationError, match="certificate and its key") as caught:
        server.add_context("*.example.com", SecureContext(ca=default_authority().ca))
    assert caught.value.option == "context"
    client = await connect_to(nursery, server, host="a.example.com", check_server_identity=accept)
    await client.aclose()


@pytest.mark.feature("B10")
async def test_add_context_takes_one_without_certificate_where_there_are_pre_shared_keys(
    nursery: trio.Nursery,
) -> None:
    key = PreSharedKey("me", b"k" * 32)
    server = TLSServer(echo, SERVER, psk=lambda _stream, _identity: key)
    server.add_context("a.example", SecureContext())
    client = await connect_to(nursery, server, server_name="a.example", psk=lambda _hint: key)
    assert client.info.psk_identity == "me"
    await client.aclose()


def accept(*_args: object) -> None:
    """Check no name."""


@pytest.mark.feature("B9")
async def test_sni_callback_s_context_without_certificate_is_a_fault_of_the_callback(
    nursery: trio.Nursery,
) -> None:
    server = TLSServer(echo, SERVER, sni_callback=lambda _name: SecureContext())
    with pytest.raises(PeerAlert) as refused:
        await connect_to(nursery, server, server_name="localhost")
    assert refused.value.alert == Alert.internal_error
    error = await next_failure(server)
    assert type(error) is CallbackError
    assert error.callback == "sni_callback"
    assert isinstance(error.__cause__, ConfigurationError)
    assert "certificate and its key" in str(error.__cause__)


# One connection


@pytest.mark.feature("B1")
async def test_handler_is_called_with_a_stream_whose_handshake_is_done(nursery: trio.Nursery) -> None:
    seen: list[tuple[TLSStream, str, str | None, bool]] = []

    async def handler(stream: TLSStream) -> None:
        seen.append((stream, stream.info.protocol, stream.server_name, stream.encrypted))
        await echo(stream)

    server = TLSServer(handler, SERVER)
    listener = MemoryListener()
    await nursery.start(server.serve_listeners, [listener])
    client = await wrap_client(await listener.connect(), host="localhost", context=CLIENT)
    await client.send_all(b"hello")
    assert await client.receive_some() == b"hello"
    ((stream, *facts),) = seen
    assert type(stream) is TLSStream
    assert facts == ["TLSv1.3", "localhost", True]
    await client.aclose()


@pytest.mark.feature("B1")
async def test_connections_are_served_at_the_same_time(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER)
    clients = [await connect_to(nursery, server) for _ in range(5)]
    for number, client in enumerate(reversed(clients)):
        await client.send_all(bytes((number,)))
    assert [await client.receive_some() for client in clients] == [b"\4", b"\3", b"\2", b"\1", b"\0"]
    assert server.statistics().open == 5
    for client in clients:
        await client.aclose()


@pytest.mark.feature("B1")
async def test_handler_s_end_says_goodbye_to_the_client(nursery: trio.Nursery) -> None:
    async def handler(stream: TLSStream) -> None:
        await stream.send_all(b"that is all")

    client = await connect_to(nursery, TLSServer(handler, SERVER))
    assert await client.receive_some() == b"that is all"
    assert await client.receive_some() == b""
    await client.aclose()


@pytest.mark.feature("B1")
async def test_handler_may_close_its_stream(nursery: trio.Nursery) -> None:
    async def handler(stream: TLSStream) -> None:
        async with stream:
            await stream.send_all(b"done")

    server = TLSServer(handler, SERVER)
    client = await connect_to(nursery, server)
    assert await client.receive_some() == b"done"
    assert await client.receive_some() == b""
    await wait_all_tasks_blocked()
    assert server.statistics().open == 0
    assert not server.statistics().failed
    await client.aclose()


@pytest.mark.feature("B1")
async def test_nursery_of_a_connection_is_there_before_its_handshake(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER)
    client, transport = memory_stream_pair()
    await client.send_all(b"GET / HTTP/1.1\r\n\r\n")
    await server.handle(transport)
    error = await next_failure(server)
    assert error.stream is not None
    assert isinstance(error.stream.nursery, trio.Nursery)


@pytest.mark.feature("B1")
async def test_nurseries_of_two_connections_are_two(nursery: trio.Nursery) -> None:
    nurseries: list[trio.Nursery | None] = []

    async def handler(stream: TLSStream) -> None:
        nurseries.append(stream.nursery)
        await echo(stream)

    server = TLSServer(handler, SERVER)
    clients = [await connect_to(nursery, server), await connect_to(nursery, server)]
    await wait_all_tasks_blocked()
    first, second = nurseries
    assert first is not None
    assert second is not None
    assert first is not second
    for client in clients:
        await client.aclose()


@pytest.mark.feature("B1")
async def test_background_tasks_use_the_stream_until_the_handler_returns(nursery: trio.Nursery) -> None:
    ended: list[str] = []

    async def background(stream: TLSStream) -> None:
        await stream.send_all(b"from the background")
        try:
            await trio.sleep_forever()
        finally:
            ended.append("background")

    async def handler(stream: TLSStream) -> None:
        assert stream.nursery is not None
        stream.nursery.start_soon(background, stream)
        await stream.receive_some()
        ended.append("handler")

    server = TLSServer(handler, SERVER)
    client = await connect_to(nursery, server)
    assert await client.receive_some() == b"from the background"
    assert not ended
    await client.send_all(b"enough")
    assert await client.receive_some() == b""
    assert ended == ["handler", "background"]
    await wait_all_tasks_blocked()
    assert server.statistics().open == 0
    assert not server.statistics().failed
    await client.aclose()


@pytest.mark.feature("B1")
async def test_goodbye_is_said_after_the_background_tasks_have_ended(nursery: trio.Nursery) -> None:
    async def farewell(stream: TLSStream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await stream.send_all(b"last words of the background")

    async def handler(stream: TLSStream) -> None:
        assert stream.nursery is not None
        stream.nursery.start_soon(farewell, stream)
        await stream.receive_some()

    client = await connect_to(nursery, TLSServer(handler, SERVER))
    await client.send_all(b"enough")
    assert await client.receive_some() == b"last words of the background"
    assert await client.receive_some() == b""
    await client.aclose()


@pytest.mark.feature("B1")
async def test_stream_s_nursery_takes_nothing_any_more_once_the_connection_has_ended(
    nursery: trio.Nursery,
) -> None:
    streams: list[TLSStream] = []

    async def handler(stream: TLSStream) -> None:
        streams.append(stream)

    client = await connect_to(nursery, TLSServer(handler, SERVER))
    assert await client.receive_some() == b""
    (stream,) = streams
    assert stream.nursery is not None
    with pytest.raises(RuntimeError, match="closed"):
        stream.nursery.start_soon(trio.sleep_forever)
    assert stream.info.protocol == "TLSv1.3"
    await client.aclose()


@pytest.mark.feature("B3")
async def test_handle_serves_any_stream_and_returns_when_the_connection_has_ended(
    nursery: trio.Nursery,
) -> None:
    server = TLSServer(echo, SERVER)
    client_end, server_end = memory_stream_pair()
    returned = trio.Event()

    async def handle() -> None:
        await server.handle(server_end)
        returned.set()

    nursery.start_soon(handle)
    client = await wrap_client(client_end, context=CLIENT)
    await client.send_all(b"over memory")
    assert await client.receive_some() == b"over memory"
    await wait_all_tasks_blocked()
    assert not returned.is_set()
    await client.aclose()
    await returned.wait()
    with pytest.raises(trio.ClosedResourceError):
        await server_end.receive_some()


@pytest.mark.feature("B3")
async def test_handle_reports_failures_as_for_every_connection() -> None:
    server = TLSServer(echo, SERVER)
    client, transport = memory_stream_pair()
    await client.aclose()
    await server.handle(transport)
    assert isinstance(await next_failure(server), ConnectionLost)


@pytest.mark.feature("B3")
async def test_handle_refuses_what_is_no_stream() -> None:
    server = TLSServer(echo, SERVER)
    with pytest.raises(ConfigurationTypeError):
        await server.handle(b"bytes")  # type: ignore[arg-type]
    assert server.statistics().accepted == 0


@pytest.mark.feature("B3")
async def test_handle_serves_tls_within_tls(nursery: trio.Nursery) -> None:
    inner = TLSServer(echo, SERVER)
    outer = TLSServer(inner.handle, SERVER)
    tunnel = await connect_to(nursery, outer)
    client = await wrap_client(tunnel, context=CLIENT)
    await client.send_all(b"twice encrypted")
    assert await client.receive_some() == b"twice encrypted"
    await client.aclose()
    await wait_all_tasks_blocked()
    assert outer.statistics().open == inner.statistics().open == 0
    assert not outer.statistics().failed
    assert not inner.statistics().failed


# ALPN


@pytest.mark.feature("B11")
@pytest.mark.parametrize(
    ("offered", "preferred", "chosen"),
    [
        (["http/1.1", "h2"], ["h2", "http/1.1"], "h2"),
        (["h2", "http/1.1"], ["http/1.1", "h2"], "http/1.1"),
        (["http/1.1"], ["h2", "http/1.1"], "http/1.1"),
        ([b"h2"], b"\x02h3\x02h2", "h2"),
        (["h2"], (protocol for protocol in ("h2",)), "h2"),
        (None, ["h2"], None),
        (["h2"], None, None),
        ([], ["h2"], None),
        (["h2"], [], None),
        (None, None, None),
    ],
)
async def test_server_s_preference_chooses_the_protocol(
    offered: Any, preferred: Any, chosen: str | None, nursery: trio.Nursery
) -> None:
    seen: list[str | None] = []

    async def handler(stream: TLSStream) -> None:
        seen.append(stream.alpn_protocol)

    server = TLSServer(handler, SERVER, alpn_protocols=preferred)
    client = await connect_to(nursery, server, alpn_protocols=offered)
    assert await client.receive_some() == b""
    assert seen == [chosen]
    assert client.alpn_protocol == client.info.alpn_protocol == chosen
    await client.aclose()


@pytest.mark.feature("B11")
async def test_one_list_of_protocols_serves_every_connection(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, alpn_protocols=iter(["h2"]))
    for _ in range(2):
        client = await connect_to(nursery, server, alpn_protocols=["h2"])
        assert client.alpn_protocol == "h2"
        await client.aclose()


@pytest.mark.feature("B11")
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_no_protocol_in_common_is_refused_with_the_alert(version: str, nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, alpn_protocols=["h2"])
    client, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    context = SecureContext(ca=default_authority().ca, min_version=version, max_version=version)
    with pytest.raises(PeerAlert) as refused:
        await wrap_client(client, context=context, alpn_protocols=["http/1.1"])
    assert refused.value.alert == Alert.no_application_protocol
    error = await next_failure(server)
    assert type(error) is ProtocolError
    assert error.code == "ERR_SSL_NO_APPLICATION_PROTOCOL"


# on_connection


@pytest.mark.feature("B24")
@pytest.mark.parametrize("is_async", [False, True])
async def test_on_connection_gets_the_remote_address(*, is_async: bool, nursery: trio.Nursery) -> None:
    seen: list[Address | None] = []

    async def note_later(address: Address | None) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(address)

    server = TLSServer(echo, SERVER, on_connection=note_later if is_async else seen.append)
    (listener,) = await nursery.start(server.serve, 0, "127.0.0.1")
    transport = await trio.testing.open_stream_to_socket_listener(listener)
    async with await wrap_client(transport, context=CLIENT) as client:
        await client.send_all(b"let in")
        assert await client.receive_some() == b"let in"
        assert seen == [client.local_address]
    (address,) = seen
    assert address is not None
    assert (address.host, address.family) == ("127.0.0.1", "IPv4")


@pytest.mark.feature("B24")
async def test_on_connection_gets_none_where_the_transport_cannot_tell(nursery: trio.Nursery) -> None:
    seen: list[Address | None] = []
    client = await connect_to(nursery, TLSServer(echo, SERVER, on_connection=seen.append))
    assert seen == [None]
    await client.aclose()


@pytest.mark.feature("B24")
@pytest.mark.parametrize("is_async", [False, True])
async def test_on_connection_that_raises_refuses_before_any_tls(*, is_async: bool) -> None:
    def refuse(_address: Address | None) -> None:
        raise PermissionError("not from there")

    async def refuse_later(address: Address | None) -> None:
        await trio.lowlevel.checkpoint()
        refuse(address)

    server = TLSServer(echo, SERVER, on_connection=refuse_later if is_async else refuse)
    client, transport = memory_stream_pair()
    recorded = RecordingStream(transport)
    await client.send_all(b"\x16\x03\x01")
    await server.handle(recorded)
    assert recorded.record == []
    assert await client.receive_some() == b""
    error = await next_failure(server)
    assert type(error) is CallbackError
    assert error.callback == "on_connection"
    assert (error.phase, error.side) == ("hello", "local")
    assert isinstance(error.__cause__, PermissionError)


@pytest.mark.feature("B24")
async def test_on_connection_s_result_does_not_matter(nursery: trio.Nursery) -> None:
    client = await connect_to(nursery, TLSServer(echo, SERVER, on_connection=lambda _address: False))
    await client.aclose()


# Counts


@pytest.mark.feature("B23")
async def test_statistics_count_what_became_of_the_connections(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, client_error_limit=1)
    assert server.statistics() == ServerStatistics(
        open=0, handshaking=0, waiting=0, accepted=0, secure=0, resumed=0, failed={}, dropped=0
    )
    client = await connect_to(nursery, server)
    await wait_all_tasks_blocked()
    assert server.statistics() == ServerStatistics(
        open=1, handshaking=0, waiting=0, accepted=1, secure=1, resumed=0, failed={}, dropped=0
    )
    silent, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    await wait_all_tasks_blocked()
    assert server.statistics() == ServerStatistics(
        open=2, handshaking=1, waiting=0, accepted=2, secure=1, resumed=0, failed={}, dropped=0
    )
    await client.aclose()
    await silent.aclose()
    await wait_all_tasks_blocked()
    other, transport = memory_stream_pair()
    await other.send_all(b"GET / HTTP/1.1\r\n\r\n")
    await server.handle(transport)
    assert server.statistics() == ServerStatistics(
        open=0,
        handshaking=0,
        waiting=0,
        accepted=3,
        secure=1,
        resumed=0,
        failed={"ECONNRESET": 1, "ERR_SSL_HTTP_REQUEST": 1},
        dropped=1,
    )


@pytest.mark.feature("B23")
async def test_statistics_are_a_snapshot() -> None:
    server = TLSServer(echo, SERVER)
    before = server.statistics()
    client, transport = memory_stream_pair()
    await client.aclose()
    await server.handle(transport)
    assert before.failed == {}
    with pytest.raises(AttributeError):
        before.open = 1  # type: ignore[misc]


@pytest.mark.feature("B23")
async def test_repr_tells_where_and_how_many(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER)
    assert repr(server) == "<TLSServer on nowhere, open connections: 0>"
    (listener,) = await nursery.start(server.serve, 0, "127.0.0.1")
    port = listener.socket.getsockname()[1]
    assert repr(server) == f"<TLSServer on 127.0.0.1:{port}, open connections: 0>"


# What is left


async def good(client: TLSStream, _transport: trio.abc.Stream) -> None:
    await client.send_all(b"x")
    await client.receive_some()
    await client.aclose()


async def rude(_client: TLSStream, transport: trio.abc.Stream) -> None:
    await transport.send_all(b"\x17\x03\x03\x00\x40" + bytes(64))


@pytest.mark.feature("B1")
@pytest.mark.parametrize("behave", [good, rude])
async def test_nothing_of_a_connection_is_left_without_the_garbage_collector(
    behave: Callable[..., Any], nursery: trio.Nursery
) -> None:
    streams: list[weakref.ref[TLSStream]] = []

    async def handler(stream: TLSStream) -> None:
        streams.append(weakref.ref(stream))
        await echo(stream)

    server = TLSServer(handler, SERVER, client_error_limit=1)
    server._client_errors.report(ConnectionLost("takes the only place"))
    gc.collect()
    gc.disable()
    try:
        client_end, server_end = memory_stream_pair()
        nursery.start_soon(server.handle, server_end)
        client = await wrap_client(client_end, context=CLIENT)
        await behave(client, client_end)
        await wait_all_tasks_blocked()
        assert server.statistics().open == 0
        (stream,) = streams
        assert stream() is None
    finally:
        gc.enable()
