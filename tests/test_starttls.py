"""StartTLS: what was read before TLS began is the beginning of TLS, or it is refused."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, open_stream_to_socket_listener, wait_all_tasks_blocked

from trio_tlsnode import (
    Alert,
    ConfigurationError,
    ConfigurationTypeError,
    ConnectionFailed,
    NotTLS,
    PeerAlert,
    ProtocolError,
    SecureContext,
    TLSServer,
    TLSStream,
    wrap_client,
)
from trio_tlsnode.testing import RecordingStream, default_authority

pytestmark = pytest.mark.feature("G8")

LOCALHOST = default_authority().good("localhost").options
VERSIONS = ("TLSv1.2", "TLSv1.3")

# What somebody on the way may put behind "STARTTLS", or behind the answer to it.
COMMAND = b"MAIL FROM:<mallory@example.com>\r\n"
ANSWER = b"250-AUTH PLAIN\r\n250 OK\r\n"


def client_context(**options: Any) -> SecureContext:
    return SecureContext(ca=default_authority().ca, **options)


class Echo:
    """A server that echoes, and all that its handler has received."""

    def __init__(self, **options: Any) -> None:
        self.received = b""
        self.server = TLSServer(self.handle, SecureContext(**LOCALHOST), **options)
        self._errors = self.server.client_errors()

    async def handle(self, stream: TLSStream) -> None:
        async for data in stream:
            self.received += data
            await stream.send_all(data)

    async def failure(self) -> ConnectionFailed:
        (error,) = (await anext(self._errors)).exceptions
        assert isinstance(error, ConnectionFailed)
        return error


@contextlib.asynccontextmanager
async def connection(kind: str) -> AsyncIterator[tuple[trio.abc.Stream, trio.abc.Stream]]:
    """Give the two ends of a connection, the client's first."""
    if kind == "memory":
        yield memory_stream_pair()
        return
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await open_stream_to_socket_listener(listener)
        yield client, await listener.accept()


async def read_line(stream: trio.abc.Stream) -> tuple[bytes, bytes]:
    """Return the next line of a stream, and what was read beyond it."""
    received = b""
    while b"\n" not in received:
        received += await stream.receive_some()
    line, _, rest = received.partition(b"\n")
    return line, rest


@pytest.mark.parametrize("kind", ["memory", "socket"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_connection_that_was_used_in_plaintext_goes_on_with_tls(
    kind: str, version: str, nursery: trio.Nursery
) -> None:
    echo = Echo()

    async def serve(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"220 hello\n")
        assert await read_line(stream) == (b"STARTTLS", b"")
        await stream.send_all(b"220 go ahead\n")
        await echo.server.handle(stream)

    async with connection(kind) as (client, transport):
        nursery.start_soon(serve, transport)
        assert await read_line(client) == (b"220 hello", b"")
        await client.send_all(b"STARTTLS\n")
        line, rest = await read_line(client)
        assert line == b"220 go ahead"
        context = client_context(min_version=version, max_version=version)
        async with await wrap_client(client, context=context, initial=rest) as stream:
            await stream.send_all(b"secret")
            assert await stream.receive_some() == b"secret"


# A server that has read too far


@pytest.mark.parametrize("kind", ["memory", "socket"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("count", [1, 4, 5, 6, 100, 65536])
async def test_server_goes_on_with_the_beginning_of_tls_that_was_read_with_the_plaintext(
    kind: str, version: str, count: int, nursery: trio.Nursery
) -> None:
    echo = Echo()

    async def serve(stream: trio.abc.Stream) -> None:
        read_too_far = await stream.receive_some(count)
        await echo.server.handle(stream, initial=read_too_far)

    async with connection(kind) as (client, transport):
        nursery.start_soon(serve, transport)
        context = client_context(min_version=version, max_version=version)
        async with await wrap_client(client, context=context) as stream:
            await stream.send_all(b"secret")
            assert await stream.receive_some() == b"secret"


async def test_early_data_that_was_read_with_the_plaintext_arrives(nursery: trio.Nursery) -> None:
    early: list[bytes] = []
    context = SecureContext(**LOCALHOST)

    async def handler(stream: TLSStream) -> None:
        early.append(stream.early_data)
        await stream.send_all(b"welcome")

    async def serve(stream: trio.abc.Stream) -> None:
        await server.handle(stream, initial=await stream.receive_some())

    async def connect(**options: Any) -> bytes:
        client, transport = memory_stream_pair()
        nursery.start_soon(serve, transport)
        async with await wrap_client(client, host="localhost", context=trusting, **options) as stream:
            assert await stream.receive_some() == b"welcome"
            assert stream.session is not None
            return stream.session

    server = TLSServer(handler, context, max_early_data=1000)
    trusting = client_context()
    session = await connect()
    await connect(session=session, early_data=b"at once")
    assert early == [b"", b"at once"]


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
async def test_server_takes_bytes_of_every_kind_and_the_callers_may_change(
    form: Any, nursery: trio.Nursery
) -> None:
    echo = Echo()
    client, transport = memory_stream_pair()

    async def serve() -> None:
        buffer = bytearray(await transport.receive_some())
        async with trio.open_nursery() as handling:
            handling.start_soon(lambda: echo.server.handle(transport, initial=form(buffer)))
            await wait_all_tasks_blocked()
            buffer[:] = bytes(len(buffer))

    nursery.start_soon(serve)
    async with await wrap_client(client, context=client_context()) as stream:
        await stream.send_all(b"secret")
        assert await stream.receive_some() == b"secret"


async def test_beginning_of_tls_is_kept_while_the_connection_waits_for_its_place(
    nursery: trio.Nursery,
) -> None:
    echo = Echo(max_connections=1)
    client, transport = memory_stream_pair()
    nursery.start_soon(echo.server.handle, transport)
    first = await wrap_client(client, context=client_context())
    client, transport = memory_stream_pair()

    async def serve() -> None:
        await echo.server.handle(transport, initial=await transport.receive_some())

    nursery.start_soon(serve)
    second = TLSStream(client, client_context())
    nursery.start_soon(second.do_handshake)
    await wait_all_tasks_blocked()
    assert echo.server.statistics().accepted == 1
    await first.aclose()
    await second.send_all(b"secret")
    assert await second.receive_some() == b"secret"
    await second.aclose()


# What is put in by others


@pytest.mark.parametrize(
    ("plaintext", "looks_like"),
    [
        (COMMAND, "no TLS record"),
        (b"EHLO mallory\r\n", "an SMTP command"),
        (b"\r\n", "no TLS record"),
        (b"\0", "no TLS record"),
        (b"GET / HTTP/1.1\r\n\r\n", "an HTTP request"),
    ],
)
@pytest.mark.parametrize("then_tls", [False, True])
async def test_server_refuses_plaintext_behind_the_last_line(
    plaintext: bytes, looks_like: str, *, then_tls: bool, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    echo = Echo()
    client, transport = memory_stream_pair()
    victim = TLSStream(client, client_context())

    async def shake_hands() -> None:
        with pytest.raises(ConnectionFailed):
            await victim.do_handshake()

    initial = plaintext
    if then_tls:
        nursery.start_soon(shake_hands)
        initial += await transport.receive_some()
    await echo.server.handle(transport, initial=initial)
    error = await echo.failure()
    assert isinstance(error, NotTLS)
    assert error.reason == f"the peer sent {looks_like} where TLS was to begin"
    assert (error.looks_like, error.first_bytes, error.phase) == (looks_like, initial[:32], "hello")
    assert echo.received == b""
    statistics = echo.server.statistics()
    assert (statistics.accepted, statistics.secure) == (1, 0)
    assert statistics.failed == {"ERR_SSL_WRONG_VERSION_NUMBER": 1}
    assert trio.current_time() == 0


@pytest.mark.parametrize("initial", [b"", b"\x16", b"\x16\x03"])
async def test_server_refuses_plaintext_that_comes_later(initial: bytes, nursery: trio.Nursery) -> None:
    echo = Echo()
    client, transport = memory_stream_pair()
    nursery.start_soon(lambda: echo.server.handle(transport, initial=initial))
    await client.send_all(COMMAND * 20)
    error = await echo.failure()
    assert error.phase == "hello"
    assert echo.server.statistics().secure == 0
    assert echo.received == b""


@pytest.mark.parametrize(
    ("plaintext", "looks_like"),
    [
        (ANSWER, "no TLS record"),
        (b"220 mx.example.com ESMTP\r\n", "an SMTP greeting"),
        (b"\n", "no TLS record"),
        (b"* OK IMAP4rev1\r\n", "an IMAP greeting"),
    ],
)
async def test_client_refuses_plaintext_behind_the_last_answer_and_sends_nothing(
    plaintext: bytes, looks_like: str
) -> None:
    end, transport = memory_stream_pair()
    client = RecordingStream(end)
    with pytest.raises(NotTLS) as caught:
        await wrap_client(client, context=client_context(), initial=plaintext)
    error = caught.value
    assert error.reason == f"the peer sent {looks_like} where TLS was to begin"
    assert (error.looks_like, error.first_bytes, error.phase) == (looks_like, plaintext[:32], "handshake")
    assert (error.side, error.retryable) == ("peer", False)
    assert client.sent == b""
    assert await transport.receive_some() == b""


@pytest.mark.parametrize("initial", [b"", b"\x16", b"\x15"])
async def test_client_refuses_plaintext_that_comes_later(initial: bytes, nursery: trio.Nursery) -> None:
    client, transport = memory_stream_pair()
    nursery.start_soon(transport.send_all, ANSWER * 20)
    with pytest.raises(ConnectionFailed) as caught:
        await wrap_client(client, context=client_context(), initial=initial)
    assert (caught.value.phase, caught.value.side) == ("handshake", "peer")


async def test_alert_in_place_of_a_handshake_is_what_it_says() -> None:
    client, _transport = memory_stream_pair()
    alert = bytes((21, 3, 3, 0, 2, 2, Alert.internal_error))
    with pytest.raises(PeerAlert) as caught:
        await wrap_client(client, context=client_context(), initial=alert)
    assert caught.value.alert is Alert.internal_error


async def test_server_whose_answer_was_read_before_the_hello_proves_nothing() -> None:
    """What a server said to somebody else cannot pass for an answer to us."""
    context = client_context(max_version="TLSv1.2")
    client, transport = memory_stream_pair()
    recording = RecordingStream(client)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Echo().server.handle, transport)
        async with await wrap_client(recording, context=context):
            pass
    client, transport = memory_stream_pair()
    await transport.send_eof()
    with pytest.raises(ProtocolError) as caught:
        await wrap_client(client, context=context, initial=recording.received)
    assert caught.value.code == "ERR_SSL_BAD_SIGNATURE"


# Wrong usage


@pytest.mark.parametrize("initial", ["220 go ahead", None, 5, [22, 3]])
async def test_what_is_no_bytes_is_refused_and_not_shown(initial: Any) -> None:
    client, transport = memory_stream_pair()
    with pytest.raises(ConfigurationTypeError) as caught:
        await wrap_client(client, context=client_context(), initial=initial)
    assert caught.value.option == "initial"
    assert caught.value.reason == f"initial must be bytes. Received an instance of {type(initial).__name__}"
    assert await transport.receive_some() == b""

    client, transport = memory_stream_pair()
    with pytest.raises(ConfigurationTypeError) as caught:
        await Echo().server.handle(transport, initial=initial)
    assert caught.value.option == "initial"


async def test_wrong_option_beside_it_is_told_first_and_nothing_is_sent() -> None:
    end, _transport = memory_stream_pair()
    client = RecordingStream(end)
    with pytest.raises(ConfigurationError) as caught:
        await wrap_client(client, context=client_context(), handshake_timeout=-1, initial=ANSWER)
    assert caught.value.option == "handshake_timeout"
    assert client.sent == b""
