"""What a TLSStream's failures say, whom they reach, and that they let go of what failed."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing
from trio.testing import (
    MockClock,
    lockstep_stream_pair,
    memory_stream_pair,
    open_stream_to_socket_listener,
    wait_all_tasks_blocked,
)

import trio_tlsnode as tls
from trio_tlsnode._openssl import callbacks
from trio_tlsnode.stream import TLSStream
from trio_tlsnode.testing import (
    FailingStream,
    GarblingStream,
    IssuedCertificate,
    RecordingStream,
    TransportWrapper,
    default_authority,
    tls_pair,
)

Streams = tuple[TLSStream, TLSStream]

HTTP = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await open_stream_to_socket_listener(listener)
        return client, await listener.accept()


async def unix_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    one, other = trio.socket.socketpair()
    return trio.SocketStream(one), trio.SocketStream(other)


@pytest.fixture(params=["TLSv1.2", "TLSv1.3"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def socket_pair(version: str) -> AsyncIterator[Streams]:
    client, server = await tls_pair(await tcp_pair(), version=version)
    yield client, server
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


async def failure_of(call: Callable[[], Awaitable[object]]) -> tls.ConnectionFailed:
    with pytest.raises(tls.ConnectionFailed) as caught:
        await call()
    return caught.value


# Ways to fail


def raise_lookup_error(*_: object) -> None:
    raise LookupError("no such host here")


class Failure(NamedTuple):
    """A stream whose handshake is about to fail, and of what."""

    stream: TLSStream
    peer: trio.abc.Stream
    error: type[tls.ConnectionFailed]
    code: str
    phase: str
    alert: tls.Alert | None


async def wrong_name() -> Failure:
    client, server = await tls_pair(handshake=False, client_options={"host": "wrong.example"})
    return Failure(
        client,
        server,
        tls.IdentityError,
        "ERR_TLS_CERT_ALTNAME_INVALID",
        "handshake",
        tls.Alert.bad_certificate,
    )


async def refused_by_a_callback() -> Failure:
    client, server = await tls_pair(
        handshake=False, client_options={"check_server_identity": raise_lookup_error}
    )
    return Failure(
        client,
        server,
        tls.IdentityError,
        "ERR_TLS_CERT_ALTNAME_INVALID",
        "handshake",
        tls.Alert.bad_certificate,
    )


async def unknown_authority() -> Failure:
    client, server = await tls_pair(handshake=False, client_context=tls.SecureContext(ca=[]))
    return Failure(
        client,
        server,
        tls.CertificateError,
        "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
        "handshake",
        tls.Alert.unknown_ca,
    )


async def expired() -> Failure:
    authority = default_authority()
    client, server = await tls_pair(
        handshake=False, server_context=tls.SecureContext(**authority.expired("localhost").options)
    )
    return Failure(
        client,
        server,
        tls.CertificateError,
        "CERT_HAS_EXPIRED",
        "handshake",
        tls.Alert.certificate_expired,
    )


async def no_common_protocol() -> Failure:
    client, server = await tls_pair(
        handshake=False, client_options={"alpn_protocols": ["h2"]}, server_options={"alpn_protocols": ["h3"]}
    )
    return Failure(
        server,
        client,
        tls.ProtocolError,
        "ERR_SSL_NO_APPLICATION_PROTOCOL",
        "handshake",
        tls.Alert.no_application_protocol,
    )


async def no_common_version() -> Failure:
    client, server = await tls_pair(
        handshake=False, client_context=tls.SecureContext(ca=default_authority().ca, max_version="TLSv1.2")
    )
    old = TLSStream(
        server.transport_stream,
        tls.SecureContext(**default_authority().good("localhost").options, min_version="TLSv1.3"),
        server_side=True,
    )
    return Failure(
        old,
        client,
        tls.ProtocolError,
        "ERR_SSL_UNSUPPORTED_PROTOCOL",
        "handshake",
        tls.Alert.protocol_version,
    )


async def failing_callback() -> Failure:
    client, server = await tls_pair(
        handshake=False,
        client_options={"host": "localhost"},
        server_options={"sni_callback": raise_lookup_error},
    )
    return Failure(
        server, client, tls.CallbackError, "ERR_TLS_CALLBACK", "handshake", tls.Alert.unrecognized_name
    )


async def no_tls() -> Failure:
    client, server = await tls_pair(handshake=False)
    await client.transport_stream.send_all(HTTP)
    return Failure(server, client.transport_stream, tls.NotTLS, "ERR_SSL_HTTP_REQUEST", "hello", None)


async def hung_up() -> Failure:
    client, server = await tls_pair(handshake=False)
    await server.transport_stream.aclose()
    return Failure(client, server.transport_stream, tls.ConnectionLost, "ECONNRESET", "handshake", None)


FAILURES = [
    wrong_name,
    refused_by_a_callback,
    unknown_authority,
    expired,
    no_common_protocol,
    no_common_version,
    failing_callback,
    no_tls,
    hung_up,
]
each_failure = pytest.mark.parametrize("make", FAILURES)
MakeFailure = Callable[[], Awaitable[Failure]]


async def handshake_of_peer(peer: trio.abc.Stream, failures: list[tls.ConnectionFailed]) -> None:
    if isinstance(peer, TLSStream):
        try:
            await peer.do_handshake()
            # In TLS 1.3 a server's refusal may come later.
            await peer.receive_some()
        except tls.ConnectionFailed as error:
            failures.append(error)


@each_failure
async def test_every_task_that_waits_for_a_handshake_that_fails_gets_the_same_cause(
    autojump_clock: MockClock, make: MakeFailure
) -> None:
    failure = await make()
    stream = failure.stream
    errors: list[tls.ConnectionFailed] = []
    said_to_peer: list[tls.ConnectionFailed] = []

    async def fail(call: Callable[[], Awaitable[object]]) -> None:
        errors.append(await failure_of(call))

    calls: list[Callable[[], Awaitable[object]]] = [
        *[stream.do_handshake] * 5,
        stream.receive_some,
        partial(stream.send_all, b"x"),
    ]
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(fail, call)
            await wait_all_tasks_blocked()
            nursery.start_soon(handshake_of_peer, failure.peer, said_to_peer)
        # And so does every later call.
        for call in (*calls, stream.send_eof, stream.wait_send_all_might_not_block):
            errors.append(await failure_of(call))
    first, *others = errors
    assert type(first) is failure.error
    assert (first.code, first.phase) == (failure.code, failure.phase)
    assert first.stream is stream
    for index, error in enumerate(others, 1):
        assert all(error is not earlier for earlier in errors[:index])
        assert type(error) is type(first)
        assert error.args == first.args
        assert vars(error) == vars(first)
        assert error.__cause__ is first.__cause__
    if failure.alert is not None:
        (said,) = said_to_peer
        assert isinstance(said, tls.PeerAlert)
        assert said.alert is failure.alert


@each_failure
async def test_what_is_kept_of_a_failure_has_no_traceback_and_no_stream(make: MakeFailure) -> None:
    failure = await make()
    stream = failure.stream
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handshake_of_peer, failure.peer, [])
        for _ in range(3):
            await failure_of(stream.do_handshake)
    kept = stream._failure
    assert kept is not None
    assert kept.__traceback__ is None
    assert kept.__context__ is None
    assert kept.stream is None


async def test_a_callbacks_exception_is_the_cause() -> None:
    for make in (failing_callback, refused_by_a_callback):
        failure = await make()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handshake_of_peer, failure.peer, [])
            error = await failure_of(failure.stream.do_handshake)
            assert isinstance(error.__cause__, LookupError)
            assert error.__cause__.__traceback__ is not None


# Letting go

ENDINGS: list[Callable[[], Awaitable[Failure | Streams]]] = [
    *FAILURES,
    tls_pair,
    partial(tls_pair, version="TLSv1.2"),
]


@pytest.mark.parametrize(
    "make", ENDINGS, ids=[*[make.__name__ for make in FAILURES], "no failure (1.3)", "no failure (1.2)"]
)
async def test_a_closed_stream_is_freed_with_its_last_reference(
    make: Callable[[], Awaitable[Failure | Streams]],
) -> None:
    async def try_handshake(stream: TLSStream) -> None:
        with contextlib.suppress(tls.ConnectionFailed):
            await stream.do_handshake()
            await stream.receive_some()

    async def live_and_die() -> list[weakref.ref[Any]]:
        made = await make()
        streams: list[TLSStream]
        if isinstance(made, Failure):
            streams = [made.stream, made.peer] if isinstance(made.peer, TLSStream) else [made.stream]
            async with trio.open_nursery() as nursery:
                for stream in (*streams, made.stream):
                    nursery.start_soon(try_handshake, stream)
        else:
            client, server = made
            streams = [client, server]
            await client.send_all(b"question")
            await server.receive_some()
        for stream in streams:
            await stream.aclose()
            assert stream._engine._ssl is None
        await trio.aclose_forcefully(made[1])
        return [weakref.ref(thing) for stream in streams for thing in (stream, stream._engine)]

    gc.collect()
    gc.disable()
    try:
        connections = len(callbacks.connections)
        left = await live_and_die()
        # Trio itself holds the last exception of a task until its next turn.
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        assert [ref() for ref in left] == [None] * len(left)
        assert len(callbacks.connections) <= connections
    finally:
        gc.enable()


async def test_a_stream_that_nobody_closes_is_freed_too() -> None:
    gc.collect()
    gc.disable()
    try:
        connections = len(callbacks.connections)
        client, server = await tls_pair()
        assert len(callbacks.connections) == connections + 2
        with pytest.raises(trio.ClosedResourceError):
            await server.transport_stream.aclose()
            await server.receive_some()
        del client, server
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        assert len(callbacks.connections) == connections
    finally:
        gc.enable()


async def test_an_error_that_is_kept_keeps_no_ssl_alive() -> None:
    connections = len(callbacks.connections)
    failure = await no_common_protocol()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handshake_of_peer, failure.peer, [])
        error = await failure_of(failure.stream.do_handshake)
    await failure.stream.aclose()
    await trio.aclose_forcefully(failure.peer)
    assert error.stream is failure.stream
    assert failure.stream._engine._ssl is None
    assert len(callbacks.connections) == connections


# Facts


async def test_an_error_tells_whose_it_is() -> None:
    one, other = await tcp_pair()
    client, server = await tls_pair(
        (one, other),
        handshake=False,
        client_options={"host": "localhost", "alpn_protocols": ["h2"]},
        server_options={"alpn_protocols": ["h3"]},
    )
    async with client, server, trio.open_nursery() as nursery:
        nursery.start_soon(handshake_of_peer, client, [])
        error = await failure_of(server.do_handshake)
        assert error.stream is server
        assert error.remote_address == server.remote_address == client.local_address
        assert error.server_name == "localhost"
        assert error.client_hello is server.client_hello
        assert error.client_hello is not None
        assert error.client_hello.alpn_protocols == ("h2",)
        assert str(server.remote_address) in str(error)


@pytest.mark.feature("A21")
async def test_a_lost_connection_tells_how_far_it_got(version: str) -> None:
    client, server = await tls_pair(version=version, handshake=False)
    hello_read = trio.Event()

    async def hang_up() -> None:
        assert len(await server.transport_stream.receive_some()) == client.statistics().ciphertext_sent
        await server.transport_stream.aclose()
        hello_read.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        error = await failure_of(client.do_handshake)
    assert isinstance(error, tls.ConnectionLost)
    assert error.progress == "SSLv3/TLS write client hello"
    assert error.bytes_sent == client.statistics().ciphertext_sent > 100
    assert error.bytes_received == 0
    assert (error.code, error.side, error.retryable) == ("ECONNRESET", "network", True)
    assert "before it was secure" in str(error)


@pytest.mark.feature("A21")
async def test_a_server_tells_how_much_of_a_hello_had_come() -> None:
    client, server = await tls_pair(handshake=False)
    await client.transport_stream.send_all(b"\x16\x03\x01\x02\x00\x01\x00")
    await client.transport_stream.aclose()
    error = await failure_of(server.do_handshake)
    assert isinstance(error, tls.ConnectionLost)
    assert (error.phase, error.progress, error.bytes_sent, error.bytes_received) == ("hello", None, 0, 7)
    assert error.client_hello is None


async def test_a_connection_that_is_lost_later_has_no_progress_but_sums(version: str) -> None:
    client, server = await tls_pair(version=version)
    await server.transport_stream.aclose()
    error = await failure_of(client.receive_some)
    assert isinstance(error, tls.TruncationError)
    assert error.progress is None
    assert error.bytes_sent == client.statistics().ciphertext_sent
    assert error.bytes_received == client.statistics().ciphertext_received > 500


@pytest.mark.parametrize("direction", ["send", "receive"])
@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (ConnectionResetError(104, "reset"), "ECONNRESET"),
        (OSError(110, "timed out"), "ETIMEDOUT"),
        (BrokenPipeError(32, "pipe"), "EPIPE"),
        (None, "ECONNRESET"),
        (ValueError("odd"), "ECONNRESET"),
    ],
)
async def test_a_transport_that_breaks_gives_the_code_of_its_cause(
    direction: str, cause: Exception | None, code: str
) -> None:
    left, right = memory_stream_pair()
    broken = trio.BrokenResourceError("broken")
    broken.__cause__ = cause
    # The handshake takes two sends and one receive of a client.
    fault: dict[str, int] = {"send": 3} if direction == "send" else {"receive": 2}
    client, _ = await tls_pair((FailingStream(left, **fault, error=broken), right), version="TLSv1.3")
    call: Any = partial(client.send_all, b"x") if direction == "send" else client.receive_some
    for _ in range(2):
        error = await failure_of(call)
        assert type(error) is tls.ConnectionLost
        assert (error.code, error.phase, error.side) == (code, "secure", "network")
        assert error.__cause__ is broken


async def test_a_transport_that_is_closed_behind_our_back_is_no_failure_of_the_connection() -> None:
    client, _ = await tls_pair()

    async def expect_closed(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await call()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, client.receive_some)
        await wait_all_tasks_blocked()
        await client.transport_stream.aclose()
    await expect_closed(partial(client.send_all, b"x"))


# Alerts


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (no_common_protocol, tls.Alert.no_application_protocol),
        (failing_callback, tls.Alert.unrecognized_name),
    ],
)
async def test_a_refusal_before_there_is_an_ssl_is_a_plaintext_alert(make: MakeFailure, code: int) -> None:
    failure = await make()
    recorder = RecordingStream(failure.stream.transport_stream)
    failure.stream._link.transport = recorder
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handshake_of_peer, failure.peer, [])
        await failure_of(failure.stream.do_handshake)
    assert recorder.sent == bytes((21, 3, 3, 0, 2, 2, code))
    assert failure.stream._engine._ssl is None


def untrusted_client() -> IssuedCertificate:
    return default_authority().self_signed("somebody")


async def connect_with_certificate(
    transports: Any, version: str, certificate: IssuedCertificate | None
) -> tuple[TLSStream, TLSStream, list[tls.ConnectionFailed]]:
    """Connect a client to a server that asks for a certificate; the client gets through in TLS 1.3."""
    authority = default_authority()
    credentials: Any = {} if certificate is None else certificate.options
    client, server = await tls_pair(
        transports,
        handshake=False,
        client_context=tls.SecureContext(ca=authority.ca, max_version=version, **credentials),
        server_context=tls.SecureContext(ca=authority.ca, **authority.good("localhost").options),
        server_options={"request_cert": True},
    )
    failures: list[tls.ConnectionFailed] = []

    async def serve() -> None:
        failures.append(await failure_of(server.do_handshake))
        await server.aclose()

    async def connect() -> None:
        try:
            await client.do_handshake()
        except tls.ConnectionFailed as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        nursery.start_soon(connect)
    return client, server, failures


@pytest.mark.parametrize(
    ("certificate", "alert"),
    [(None, tls.Alert.certificate_required), (untrusted_client, tls.Alert.unknown_ca)],
)
@pytest.mark.parametrize("kind", ["memory", "socket"])
async def test_in_tls_1_3_a_client_learns_by_its_first_call_that_its_certificate_was_refused(
    certificate: Callable[[], IssuedCertificate] | None, alert: tls.Alert, kind: str
) -> None:
    transports = await tcp_pair() if kind == "socket" else memory_stream_pair()
    client, _, failures = await connect_with_certificate(transports, "TLSv1.3", certificate and certificate())
    async with client:
        (refusal,) = failures
        assert isinstance(refusal, tls.CertificateError)
        assert refusal.phase == "handshake"
        for _ in range(2):
            error = await failure_of(client.receive_some)
            assert isinstance(error, tls.PeerAlert)
            assert (error.alert, error.phase, error.side) == (alert, "secure", "peer")


async def test_in_tls_1_2_a_client_learns_it_in_the_handshake() -> None:
    client, _, failures = await connect_with_certificate(None, "TLSv1.2", None)
    assert sorted(type(failure).__name__ for failure in failures) == ["CertificateError", "PeerAlert"]
    assert (await failure_of(client.receive_some)).phase == "handshake"


@pytest.mark.parametrize("connect", [tcp_pair, unix_pair])
async def test_who_cannot_send_any_more_is_told_why_if_the_peer_has_said_why(
    connect: Callable[[], Awaitable[Any]],
) -> None:
    client, _, _ = await connect_with_certificate(await connect(), "TLSv1.3", None)

    async def send_until_it_fails() -> None:
        while True:
            await client.send_all(bytes(1000))

    async with client:
        error = await failure_of(send_until_it_fails)
        assert isinstance(error, tls.PeerAlert)
        assert error.alert is tls.Alert.certificate_required
        assert (await failure_of(client.receive_some)).code == error.code


async def test_an_alert_comes_after_the_data_that_was_sent_before_it(version: str) -> None:
    client, server = await tls_pair(version=version)
    await server.send_all(b"before")
    # The server cannot read this, says so, and is done.
    await client.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert isinstance(await failure_of(server.receive_some), tls.ProtocolError)
    assert await client.receive_some() == b"before"
    error = await failure_of(client.receive_some)
    assert isinstance(error, tls.PeerAlert)
    assert error.alert is tls.Alert.bad_record_mac
    assert isinstance(await failure_of(partial(client.send_all, b"x")), tls.PeerAlert)


async def test_what_arrived_before_nonsense_is_delivered_before_the_error(version: str) -> None:
    client, server = await tls_pair(version=version)
    await client.send_all(b"sense")
    await client.transport_stream.send_all(HTTP)
    assert await server.receive_some() == b"sense"
    assert isinstance(await failure_of(server.receive_some), tls.ProtocolError)


# Losing the way out is not losing the way in


@pytest.mark.parametrize("connect", [tcp_pair, unix_pair])
async def test_a_reset_that_a_send_meets_takes_nothing_away_that_has_arrived(
    version: str, connect: Callable[[], Awaitable[Any]]
) -> None:
    client, server = await tls_pair(await connect(), version=version)
    await server.send_all(b"the whole answer")
    assert await client.receive_some(3) == b"the"
    # Closing a socket over unread input is a reset.
    await client.send_all(b"unread")
    await server.transport_stream.aclose()

    async def send_until_it_fails() -> None:
        while True:
            await client.send_all(b"x")

    async with client:
        error = await failure_of(send_until_it_fails)
        assert type(error) is tls.ConnectionLost
        assert error.code in ("ECONNRESET", "EPIPE")
        assert await client.receive_some() == b" whole answer"
        for call in (client.receive_some, partial(client.send_all, b"y")):
            assert isinstance(await failure_of(call), tls.ConnectionLost)


async def test_a_broken_way_out_leaves_the_way_in_open() -> None:
    left, right = memory_stream_pair()
    client, server = await tls_pair((FailingStream(left, send=3), right))
    for _ in range(2):
        assert isinstance(await failure_of(partial(client.send_all, b"x")), tls.ConnectionLost)
    assert isinstance(await failure_of(client.send_eof), tls.ConnectionLost)
    await server.send_all(b"still here")
    assert await client.receive_some() == b"still here"
    await server.aclose()
    assert await client.receive_some() == b""


async def test_waiting_for_room_on_a_broken_transport_fails_the_sending() -> None:
    class NoRoom(FailingStream):
        async def _wait_for_room(self) -> None:
            await self._fail()

    left, right = memory_stream_pair()
    client, server = await tls_pair((NoRoom(left), right))
    assert isinstance(await failure_of(client.wait_send_all_might_not_block), tls.ConnectionLost)
    assert isinstance(await failure_of(partial(client.send_all, b"x")), tls.ConnectionLost)
    await server.send_all(b"still here")
    assert await client.receive_some() == b"still here"


# Time


@pytest.mark.feature("B7")
@pytest.mark.parametrize("seconds", [120.0, 0.5, 0])
@pytest.mark.parametrize("role", ["client", "server"])
async def test_a_silent_peer_is_given_up_to_the_second(
    autojump_clock: MockClock, role: str, seconds: float
) -> None:
    options: Any = {} if seconds == 120 else {f"{role}_options": {"handshake_timeout": seconds}}
    client, server = await tls_pair(handshake=False, **options)
    stream = client if role == "client" else server
    errors = []

    async def wait() -> None:
        errors.append(await failure_of(stream.do_handshake))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
    assert trio.current_time() == seconds
    errors.append(await failure_of(stream.receive_some))
    assert trio.current_time() == seconds
    for error in errors:
        assert isinstance(error, tls.HandshakeTimeout)
        assert isinstance(error, trio.TooSlowError)
        assert (error.timeout, error.code) == (seconds, "ERR_TLS_HANDSHAKE_TIMEOUT")
        assert (error.phase, error.retryable) == ("handshake" if role == "client" else "hello", True)


@pytest.mark.feature("B7")
async def test_trickled_bytes_and_other_waiters_do_not_extend_the_time(autojump_clock: MockClock) -> None:
    client, server = await tls_pair(handshake=False, server_options={"handshake_timeout": 10})

    async def trickle() -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            for byte in client._engine.drain():
                await client.transport_stream.send_all(bytes([byte]))
                await trio.sleep(1)

    assert client._engine.do_handshake() is tls.Want.READ
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        with trio.move_on_after(4):
            await server.do_handshake()
        assert isinstance(await failure_of(server.do_handshake), tls.HandshakeTimeout)
        assert trio.current_time() == 10
        await server.aclose()


@pytest.mark.feature("B7")
async def test_the_time_covers_callbacks(autojump_clock: MockClock) -> None:
    async def ponder(_name: str) -> None:
        await trio.sleep(1000)

    client, server = await tls_pair(
        handshake=False,
        client_options={"host": "localhost"},
        server_options={"sni_callback": ponder, "handshake_timeout": 7},
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handshake_of_peer, client, [])
        error = await failure_of(server.do_handshake)
        assert isinstance(error, tls.HandshakeTimeout)
        assert (error.phase, error.server_name, trio.current_time()) == ("handshake", "localhost", 7)
        await server.aclose()


class BlockedFromSecondSend(TransportWrapper):
    """A transport that lets a client's hello pass, and nothing after it."""

    sends = 0

    async def _send(self, data: bytes) -> None:
        self.sends += 1
        if self.sends > 1:
            await self._closed.wait()
            raise trio.ClosedResourceError
        await super()._send(data)


async def test_a_time_out_in_the_middle_of_the_last_send_stays_a_time_out(
    autojump_clock: MockClock, version: str
) -> None:
    left, right = memory_stream_pair()
    client, server = await tls_pair(
        (BlockedFromSecondSend(left), right),
        version=version,
        handshake=False,
        client_options={"handshake_timeout": 3},
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handshake_of_peer, server, [])
        calls: list[Callable[[], Awaitable[object]]] = [
            client.do_handshake,
            client.do_handshake,
            client.receive_some,
            partial(client.send_all, b"x"),
        ]
        for call in calls:
            error = await failure_of(call)
            assert isinstance(error, tls.HandshakeTimeout)
            assert error.phase == "handshake"
        assert trio.current_time() == 3
        await client.aclose()


@pytest.mark.parametrize(("close_timeout", "until"), [(2, 2), (5, 3)])
async def test_what_failed_in_time_is_no_time_out_though_its_alert_does_not_leave(
    autojump_clock: MockClock, close_timeout: float, until: float
) -> None:
    left, right = memory_stream_pair()
    client, server = await tls_pair(
        (BlockedFromSecondSend(left), right),
        handshake=False,
        client_options={"host": "wrong.example", "handshake_timeout": 3, "close_timeout": close_timeout},
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handshake_of_peer, server, [])
        for _ in range(2):
            assert isinstance(await failure_of(client.do_handshake), tls.IdentityError)
            assert trio.current_time() == until
        await client.aclose()


async def test_what_failed_stays_failed_though_its_task_was_cancelled_over_the_alert(
    autojump_clock: MockClock,
) -> None:
    calls = []

    def refuse_once(_name: str) -> None:
        calls.append(_name)
        raise LookupError

    client, server = await tls_pair(
        lockstep_stream_pair(),
        handshake=False,
        client_options={"host": "localhost"},
        server_options={"sni_callback": refuse_once},
    )

    async def say_hello_and_read_nothing() -> None:
        assert client._engine.do_handshake() is tls.Want.READ
        await client.transport_stream.send_all(client._engine.drain())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(say_hello_and_read_nothing)
        with trio.move_on_after(1) as scope:
            await server.do_handshake()
        assert scope.cancelled_caught
        assert isinstance(await failure_of(server.do_handshake), tls.CallbackError)
    assert calls == ["localhost"]


# A peer, or somebody in the middle, who changes what is sent


@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("garbled", ["client", "server"])
async def test_a_changed_byte_is_noticed_or_does_not_matter_and_nobody_hangs(
    autojump_clock: MockClock, version: str, garbled: str, part: int
) -> None:
    """Every 37th byte here; the tests of the engine try any."""
    position = part * 37
    while True:
        transports: Any = memory_stream_pair()
        garbling = GarblingStream(transports[garbled == "server"], position=position, mask=0x10)
        client, server = await tls_pair(
            (garbling, transports[1]) if garbled == "client" else (transports[0], garbling),
            version=version,
            handshake=False,
        )
        results: dict[TLSStream, bytes] = {}

        async def talk(stream: TLSStream, results: dict[TLSStream, bytes] = results) -> None:
            try:
                await stream.do_handshake()
                await stream.send_all(b"what is sent")
                results[stream] = await stream.receive_some()
            except tls.ConnectionFailed:
                results[stream] = b""
            await stream.aclose()

        with trio.fail_after(200):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk, client)
                nursery.start_soon(talk, server)
        assert set(results.values()) <= {b"what is sent", b""}
        received = (client if garbled == "client" else server).statistics().ciphertext_received
        if position >= received:
            break
        position += 8 * 37


# A number that the kernel uses again


class Before(trio.abc.Instrument):
    """Calls something just before a task's next step, when what it waits for has come already."""

    def __init__(self, task: trio.lowlevel.Task, call: Callable[[], object]) -> None:
        self._task = task
        self._call: Callable[[], object] | None = call

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and self._call is not None:
            call, self._call = self._call, None
            call()


@pytest.mark.parametrize("late", [False, True], ids=["while it waits", "when there is something"])
async def test_a_receive_never_reads_from_another_socket_that_got_the_same_number(
    socket_pair: Streams, late: bool
) -> None:
    client, server = socket_pair
    assert isinstance(client.transport_stream, trio.SocketStream)
    sock = client.transport_stream.socket
    number = sock.fileno()
    stranger, strangers_peer = trio.socket.socketpair()
    await strangers_peer.send(b"\x17\x03\x03 somebody else's business")

    def use_number_again() -> None:
        sock.close()
        os.dup2(stranger.fileno(), number)

    async def receive(task_status: trio.TaskStatus[trio.lowlevel.Task]) -> None:
        task_status.started(trio.lowlevel.current_task())
        with pytest.raises(trio.ClosedResourceError):
            await client.receive_some()

    try:
        async with trio.open_nursery() as nursery:
            receiver = await nursery.start(receive)
            await wait_all_tasks_blocked()
            if late:
                trio.lowlevel.add_instrument(Before(receiver, use_number_again))
                await server.send_all(b"something")
            else:
                use_number_again()
        assert (await stranger.recv(100)).endswith(b"somebody else's business")
    finally:
        os.close(number)
        stranger.close()
        strangers_peer.close()


@pytest.mark.feature("B8")
async def test_what_an_accepted_client_has_sent_is_read_though_it_takes_no_ticket_any_more() -> None:
    """Over a socket the ticket leaves at once; that it cannot leave does not end the handshake."""
    authority = default_authority()
    client = tls.Engine(
        tls.SecureContext(ca=authority.ca, **authority.client("alice").options, min_version="TLSv1.3"),
        host="localhost",
    )
    context = tls.SecureContext(ca=authority.ca, **authority.good("localhost").options)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        transport = await trio.testing.open_stream_to_socket_listener(listener)
        server = TLSStream(await listener.accept(), context, server_side=True, request_cert=True)
    async with server, transport:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            while client.do_handshake() is tls.Want.READ:
                await transport.send_all(client.drain())
                client.feed(await transport.receive_some())
            client.write(b"all of it")
            # Nothing is awaited here, so the server finds the last flight and the reset together.
            os.write(transport.socket.fileno(), client.drain())
            transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.socket.close()
        assert server.authorized
        assert await server.receive_some() == b"all of it"
