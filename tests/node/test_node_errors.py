"""Failures, as Node.js's own tests have them: what is told of them, to whom, and what goes on."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from faults import only
from meetings import come_to, failure_of, in_both_versions, read_to_end, secure_pair
from parties import agent, party, trust
from trio.testing import memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import Alert, SecureContext, TLSServer, TLSStream, wrap_client
from trio_tlsnode.testing import RecordingStream

LOCALHOST = SecureContext(**party("rsa_cert").options)
TRUSTING = SecureContext(ca=trust("rsa_cert"))
# No TLS at all, and what is too long for a record of it.
JUNK = bytes([0x2A]) * 1024
TOO_LONG = bytes([0xFF]) * 6
# What the versions of OpenSSL say to the latter, and what the other side is told.
OF_TOO_LONG = {
    "ERR_SSL_PACKET_LENGTH_TOO_LONG": Alert.record_overflow,
    "ERR_SSL_WRONG_VERSION_NUMBER": Alert.protocol_version,
    "ERR_SSL_BAD_RECORD_TYPE": Alert.unexpected_message,
}


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def never(_stream: TLSStream) -> None:
    raise AssertionError("the handler was called")


# What is no TLS


@pytest.mark.feature("B6")
@pytest.mark.node("test-tls-alert-handling.js")
@in_both_versions
async def test_nonsense_on_one_connection_ends_it_alone_and_both_sides_know_why(
    version: str, nursery: trio.Nursery
) -> None:
    server = TLSServer(echo, LOCALHOST)
    context = SecureContext(ca=trust("rsa_cert"), **only(version))
    undisturbed = await wrap_client(come_to(server, nursery), context=context)
    transport = come_to(server, nursery)
    disturbed = await wrap_client(transport, context=context)
    for turn in range(20):
        await undisturbed.send_all(b"x")
        assert await undisturbed.receive_some() == b"x"
        if turn == 10:
            await disturbed.send_all(b"y")
            assert await disturbed.receive_some() == b"y"
            await transport.send_all(TOO_LONG)
    error = await failure_of(server)
    # It was secure: in Node this is no tlsClientError, but the stream's own error.
    assert isinstance(error, tls.ProtocolError)
    assert error.phase == "secure"
    with pytest.raises(tls.PeerAlert) as caught:
        await disturbed.receive_some()
    assert caught.value.alert is OF_TOO_LONG[error.code]
    await undisturbed.send_eof()
    assert await read_to_end(undisturbed) == b""


@pytest.mark.feature("B6")
@pytest.mark.node(
    "test-tls-server-failed-handshake-emits-clienterror.js",
    "test-tls-junk-closes-server.js",
)
@pytest.mark.parametrize("junk", [JUNK, b"blah\nblah\nblah\n"], ids=["asterisks", "lines"])
async def test_a_client_that_speaks_no_tls_is_one_failure_and_the_server_goes_on(
    junk: bytes, nursery: trio.Nursery
) -> None:
    served: list[TLSStream] = []

    async def handler(stream: TLSStream) -> None:
        served.append(stream)

    server = TLSServer(handler, LOCALHOST)
    transport = come_to(server, nursery)
    await transport.send_all(junk)
    error = await failure_of(server)
    assert isinstance(error, tls.NotTLS)
    assert (error.phase, error.first_bytes) == ("hello", junk[:32])
    assert error.code in ("ERR_SSL_WRONG_VERSION_NUMBER", "ERR_SSL_PACKET_LENGTH_TOO_LONG")
    # Perhaps an alert, and then the end.
    assert (await read_to_end(transport))[:1] in (b"", b"\x15")
    assert not served
    async with await wrap_client(come_to(server, nursery), context=TRUSTING) as client:
        assert await read_to_end(client) == b""
    assert served


@pytest.mark.feature("C1")
@pytest.mark.node("test-tls-socket-failed-handshake-emits-error.js", "test-tls-delayed-attach-error.js")
async def test_a_stream_by_hand_fails_of_what_had_arrived_before_it_was_made(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = memory_stream_pair()
    await left.send_all(JUNK)
    await trio.sleep(0.2)
    stream = TLSStream(right, LOCALHOST, server_side=True)
    with pytest.raises(tls.NotTLS) as caught:
        await stream.do_handshake()
    assert caught.value.code == "ERR_SSL_WRONG_VERSION_NUMBER"
    assert caught.value.stream is stream
    await stream.aclose()
    await read_to_end(left)


@pytest.mark.feature("G11")
@pytest.mark.node("test-tls-junk-server.js")
async def test_a_server_that_speaks_no_tls_is_told_from_one_that_does() -> None:
    left, right = memory_stream_pair()
    await right.send_all(b"I was waiting for you, hello!")
    with pytest.raises(tls.NotTLS) as caught:
        await wrap_client(left, context=TRUSTING)
    assert caught.value.code in ("ERR_SSL_PACKET_LENGTH_TOO_LONG", "ERR_SSL_WRONG_VERSION_NUMBER")
    assert caught.value.first_bytes == b"I was waiting for you, hello!"


# Who hangs up


@pytest.mark.feature("B6")
@pytest.mark.node("test-tls-econnreset.js")
async def test_a_client_that_says_nothing_and_hangs_up_is_one_failure(nursery: trio.Nursery) -> None:
    server = TLSServer(never, LOCALHOST)
    await trio.aclose_forcefully(come_to(server, nursery))
    error = await failure_of(server)
    assert isinstance(error, tls.ConnectionLost)
    assert (error.phase, error.code, error.bytes_received) == ("hello", "ECONNRESET", 0)
    assert error.reason == "the client hung up before the connection was secure"


async def hang_up(listener: trio.SocketListener) -> None:
    """Accept one connection, and end it once the client has said its first words."""
    async with await listener.accept() as stream:
        await stream.receive_some()


async def unix_listener(path: Path) -> trio.SocketListener:
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen()
    return trio.SocketListener(sock)


@pytest.mark.feature("A21")
@pytest.mark.node("test-tls-wrap-econnreset.js")
@pytest.mark.node("test-tls-wrap-econnreset-localaddress.js")
@pytest.mark.node("test-tls-wrap-econnreset-socket.js")
@pytest.mark.parametrize("how", ["host", "local address", "own socket"])
async def test_a_server_that_hangs_up_early_is_told_with_both_addresses(
    how: str, nursery: trio.Nursery
) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(hang_up, listener)
    port = listener.socket.getsockname()[1]
    with pytest.raises(tls.ConnectionLost) as caught:
        if how == "own socket":
            await wrap_client(await trio.open_tcp_stream("127.0.0.1", port), context=TRUSTING)
        else:
            local = {"local_address": "127.0.0.1", "family": 4} if how == "local address" else {}
            await tls.connect("127.0.0.1", port, context=TRUSTING, **local)  # type: ignore[arg-type]
    error = caught.value
    assert (error.code, error.phase, error.retryable) == ("ECONNRESET", "handshake", True)
    # Node tells what connecting was asked for, and nothing of a socket of the caller's.
    assert error.remote_address == tls.Address("127.0.0.1", port, "IPv4")
    assert error.stream is not None
    assert error.stream.local_address is not None
    assert error.stream.local_address.host == "127.0.0.1"
    await listener.aclose()


@pytest.mark.feature("A21")
@pytest.mark.node("test-tls-wrap-econnreset-pipe.js")
async def test_a_server_that_hangs_up_early_is_told_with_its_path(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    listener = await unix_listener(tmp_path / "socket")
    nursery.start_soon(hang_up, listener)
    with pytest.raises(tls.ConnectionLost) as caught:
        await tls.connect_unix(tmp_path / "socket", context=TRUSTING)
    assert caught.value.code == "ECONNRESET"
    assert caught.value.remote_address == tls.Address(str(tmp_path / "socket"), 0, "unix")
    await listener.aclose()


@pytest.mark.feature("F7")
@pytest.mark.node("test-tls-connect.js")
async def test_ciphers_that_do_not_exist_are_refused_before_anything_is_connected() -> None:
    with pytest.raises(tls.ConfigurationError, match="no cipher match") as caught:
        await tls.connect("127.0.0.1", 1, ciphers="rick-128-roll")
    assert caught.value.code == "ERR_SSL_NO_CIPHER_MATCH"


# What the application does wrong


class ThrownError(Exception):
    """What a callback raises."""


def throw(*_: object) -> Any:
    raise ThrownError


PSK = {"ciphers": "PSK", **only("TLSv1.2")}
KEY = tls.PreSharedKey("TestUser", bytes(16))


@pytest.mark.feature("B6")
@pytest.mark.node("test-tls-psk-alpn-callback-exception-handling.js")
@pytest.mark.parametrize("raises", [False, True], ids=["a wrong result", "an exception"])
@pytest.mark.parametrize("callback", ["server's psk", "alpn_callback", "client's psk"])
async def test_what_a_callback_does_wrong_fails_that_connection_alone(
    callback: str, raises: bool, nursery: trio.Nursery
) -> None:
    wrong = throw if raises else lambda *_: "no such thing"
    server_options: dict[str, Any] = {}
    client_options: dict[str, Any] = {"psk": lambda _hint: KEY}
    ours = theirs = SecureContext(**PSK)
    if callback == "alpn_callback":
        server_options["alpn_callback"] = wrong
        client_options = {"alpn_protocols": ["http/1.1", "h2"]}
        ours, theirs = TRUSTING, LOCALHOST
    elif callback == "server's psk":
        server_options["psk"] = wrong
    else:
        server_options["psk"] = lambda *_: KEY
        client_options["psk"] = wrong
    server = TLSServer(never, theirs, **server_options)
    with pytest.raises(tls.ConnectionFailed) as caught:
        await wrap_client(come_to(server, nursery), context=ours, **client_options)
    told, at_fault = caught.value, await failure_of(server)
    if callback == "client's psk":
        told, at_fault = at_fault, told
    assert isinstance(told, tls.PeerAlert)
    assert isinstance(at_fault, tls.CallbackError)
    assert isinstance(at_fault.__cause__, ThrownError) is raises
    assert at_fault.callback == callback.rpartition(" ")[2]
    # Node has ERR_INVALID_ARG_TYPE for the other two.
    of_alpn = callback == "alpn_callback" and not raises
    assert at_fault.code == ("ERR_TLS_ALPN_CALLBACK_INVALID_RESULT" if of_alpn else "ERR_TLS_CALLBACK")
    assert raises or "returned" in at_fault.reason


# What the peer does wrong in the middle


def prf(secret: bytes, label: bytes, seed: bytes, size: int) -> bytes:
    """Return what TLS 1.2 derives from a secret (RFC 5246, section 5, with SHA-256)."""
    seed = label + seed
    derived, chained = b"", seed
    while len(derived) < size:
        chained = hmac.digest(secret, chained, hashlib.sha256)
        derived += hmac.digest(secret, chained + seed, hashlib.sha256)
    return derived[:size]


@pytest.mark.feature("B6")
@pytest.mark.node("test-tls-write-error.js")
async def test_an_illegal_handshake_message_while_the_server_sends_ends_the_connection() -> None:
    secrets: list[str] = []
    left, right = memory_stream_pair()
    recorded = RecordingStream(left)
    client, server = await secure_pair(
        {"ca": trust("ec"), "ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256"},
        agent("ec"),
        version="TLSv1.2",
        transports=(recorded, right),
        client_options={"host": "agent2", "keylog": lambda line, _stream: secrets.append(line)},
    )
    # Behind the header of the record and of the message and the version, each hello has its random bytes.
    _, client_random, master_secret = secrets[0].split()
    server_random = recorded.received[11:43]
    assert recorded.sent[11:43].hex() == client_random
    seed = server_random + bytes.fromhex(client_random)
    keys = prf(bytes.fromhex(master_secret), b"key expansion", seed, 40)
    client_key, client_salt = keys[:16], keys[32:36]
    # A message of a type that there is not, in the record behind the Finished message.
    sequence, header, message = (1).to_bytes(8), b"\x16\x03\x03", b"\x63\x00\x00\x00"
    sealed = AESGCM(client_key).encrypt(
        client_salt + sequence, message, sequence + header + len(message).to_bytes(2)
    )
    record = sequence + sealed
    errors: list[tls.TLSError] = []

    async def send() -> None:
        try:
            while True:
                await server.send_all(bytes(1000))
        except trio.BrokenResourceError:
            pass

    async def receive() -> None:
        try:
            await server.receive_some()
        except tls.TLSError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(send)
        assert await client.receive_some()
        await left.send_all(header + len(record).to_bytes(2) + record)
        with pytest.raises(tls.PeerAlert) as caught:
            async for _ in client:
                pass
        nursery.cancel_scope.cancel()
    assert caught.value.alert is Alert.unexpected_message
    assert [error.code for error in errors] == ["ERR_SSL_UNEXPECTED_MESSAGE"]
