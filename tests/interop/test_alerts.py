"""Alerts: after each failure of ours the peer knows why, and after each of its own so do we."""

from __future__ import annotations

import dataclasses
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
from peers import (
    OTHER_SIDE,
    PATIENCE,
    VERSIONS,
    Issue,
    echo,
    in_both_roles,
    in_both_versions,
    localhost,
    only,
    our_client,
    our_context,
    our_stream,
    serving,
    standard_context,
    standard_socket,
    tcp_pair,
)
from trio.testing import memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode.testing import Authority, IssuedCertificate, RecordingStream, default_authority, tls_pair

in_thread = trio.to_thread.run_sync

ALERT, HANDSHAKE, APPLICATION_DATA = 21, 22, 23
CLIENT_HELLO, SERVER_HELLO = 1, 2

# OpenSSL's names of alerts that a peer has sent, which Node and the standard library show too.
NAMES = {
    tls.Alert.unexpected_message: "SSLV3_ALERT_UNEXPECTED_MESSAGE",
    tls.Alert.bad_record_mac: "SSLV3_ALERT_BAD_RECORD_MAC",
    tls.Alert.handshake_failure: "SSLV3_ALERT_HANDSHAKE_FAILURE",
    tls.Alert.bad_certificate: "SSLV3_ALERT_BAD_CERTIFICATE",
    tls.Alert.unsupported_certificate: "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    tls.Alert.certificate_revoked: "SSLV3_ALERT_CERTIFICATE_REVOKED",
    tls.Alert.certificate_expired: "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    tls.Alert.certificate_unknown: "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    tls.Alert.illegal_parameter: "SSLV3_ALERT_ILLEGAL_PARAMETER",
    tls.Alert.unknown_ca: "TLSV1_ALERT_UNKNOWN_CA",
    tls.Alert.access_denied: "TLSV1_ALERT_ACCESS_DENIED",
    tls.Alert.decode_error: "TLSV1_ALERT_DECODE_ERROR",
    tls.Alert.decrypt_error: "TLSV1_ALERT_DECRYPT_ERROR",
    tls.Alert.protocol_version: "TLSV1_ALERT_PROTOCOL_VERSION",
    tls.Alert.insufficient_security: "TLSV1_ALERT_INSUFFICIENT_SECURITY",
    tls.Alert.internal_error: "TLSV1_ALERT_INTERNAL_ERROR",
    tls.Alert.unrecognized_name: "TLSV1_UNRECOGNIZED_NAME",
    tls.Alert.certificate_required: "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    tls.Alert.no_application_protocol: "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
}


def record(kind: int, body: bytes) -> bytes:
    return bytes((kind, 3, 3)) + len(body).to_bytes(2, "big") + body


def message(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + len(body).to_bytes(3, "big") + body


def records(wire: bytes | bytearray) -> list[tuple[int, bytes]]:
    """Return the type and the body of each record."""
    found = []
    while wire:
        end = 5 + int.from_bytes(wire[3:5], "big")
        assert len(wire) >= end
        found.append((wire[0], bytes(wire[5:end])))
        wire = wire[end:]
    return found


def in_the_clear(alert: tls.Alert) -> tuple[int, bytes]:
    """Return the record of a fatal alert."""
    return ALERT, bytes((2, alert))


# We refuse the peer


def refuse_all(name: str, certificate: object) -> None:
    raise ValueError("nobody is good enough")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why we refuse a peer, and what it hears.

    Attributes:
        what: What is wrong, in a word.
        role: Our role.
        code: The code of our error.
        alert: What the peer hears.
        versions: The versions that the peer may speak.
        context: The options of our context.
        options: The options of our stream or server.
        issue: How the peer's certificate is made; by default, servers have a good one and clients none.
        alpn_protocols: The peer's application protocols.
    """

    what: str
    role: str
    code: str
    alert: tls.Alert
    versions: tuple[str, ...] = VERSIONS
    context: dict[str, Any] = dataclasses.field(default_factory=dict)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    issue: Issue | None = None
    alpn_protocols: tuple[str, ...] = ()

    @property
    def certificate(self) -> IssuedCertificate | None:
        """The certificate that the peer presents."""
        if self.issue is not None:
            return self.issue(default_authority(), "localhost")
        return localhost() if self.role == "client" else None


REFUSALS = [
    Refusal(
        what="untrusted",
        role="client",
        code="UNABLE_TO_VERIFY_LEAF_SIGNATURE",
        alert=tls.Alert.unknown_ca,
        issue=Authority.untrusted,
    ),
    Refusal(
        what="expired",
        role="client",
        code="CERT_HAS_EXPIRED",
        alert=tls.Alert.certificate_expired,
        issue=Authority.expired,
    ),
    Refusal(
        what="wrong-name",
        role="client",
        code="ERR_TLS_CERT_ALTNAME_INVALID",
        alert=tls.Alert.bad_certificate,
        issue=Authority.wrong_name,
    ),
    Refusal(
        what="identity-callback",
        role="client",
        code="ERR_TLS_CERT_ALTNAME_INVALID",
        alert=tls.Alert.bad_certificate,
        options={"check_server_identity": refuse_all},
    ),
    Refusal(
        what="wrong-purpose",
        role="client",
        code="INVALID_PURPOSE",
        alert=tls.Alert.unsupported_certificate,
        issue=Authority.wrong_purpose,
    ),
    Refusal(
        what="bad-signature",
        role="client",
        code="CERT_SIGNATURE_FAILURE",
        alert=tls.Alert.decrypt_error,
        issue=Authority.bad_signature,
    ),
    Refusal(
        what="untrusted",
        role="server",
        code="UNABLE_TO_VERIFY_LEAF_SIGNATURE",
        alert=tls.Alert.unknown_ca,
        options={"request_cert": True},
        issue=Authority.untrusted,
    ),
    Refusal(
        what="expired",
        role="server",
        code="CERT_HAS_EXPIRED",
        alert=tls.Alert.certificate_expired,
        options={"request_cert": True},
        issue=Authority.expired,
    ),
    Refusal(
        what="no-certificate",
        role="server",
        code="ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE",
        alert=tls.Alert.handshake_failure,
        versions=("TLSv1.2",),
        options={"request_cert": True},
    ),
    Refusal(
        what="no-certificate",
        role="server",
        code="ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE",
        alert=tls.Alert.certificate_required,
        versions=("TLSv1.3",),
        options={"request_cert": True},
    ),
    Refusal(
        what="protocol",
        role="server",
        code="ERR_SSL_NO_APPLICATION_PROTOCOL",
        alert=tls.Alert.no_application_protocol,
        options={"alpn_protocols": ["h2"]},
        alpn_protocols=("imap",),
    ),
    Refusal(
        what="version",
        role="server",
        code="ERR_SSL_UNSUPPORTED_PROTOCOL",
        alert=tls.Alert.protocol_version,
        versions=("TLSv1.2",),
        context=only("TLSv1.3"),
    ),
    Refusal(
        what="version",
        role="server",
        code="ERR_SSL_UNSUPPORTED_PROTOCOL",
        alert=tls.Alert.protocol_version,
        versions=("TLSv1.3",),
        context=only("TLSv1.2"),
    ),
    Refusal(
        what="cipher",
        role="server",
        code="ERR_SSL_NO_SHARED_CIPHER",
        alert=tls.Alert.handshake_failure,
        # One that is off by default, and one that our certificate does not suit.
        context={"ciphers": "TLS_AES_128_CCM_SHA256:AES128-GCM-SHA256"},
    ),
    Refusal(
        what="sni-callback",
        role="server",
        code="ERR_TLS_CALLBACK",
        alert=tls.Alert.unrecognized_name,
        options={"sni_callback": lambda name: 1 // 0},
    ),
    Refusal(
        what="no-context",
        role="server",
        code="ERR_TLS_CALLBACK",
        alert=tls.Alert.internal_error,
        options={"sni_callback": lambda name: "no context"},
    ),
]

each_refusal = pytest.mark.parametrize(
    ("refusal", "version"),
    [
        pytest.param(refusal, version, id=f"{refusal.role}-{refusal.what}-{version}")
        for refusal in REFUSALS
        for version in refusal.versions
    ],
)


async def failure_of(stream: tls.TLSStream) -> tls.ConnectionFailed:
    """Return what a stream fails of: in the handshake, or in waiting for data after it."""
    with pytest.raises(tls.ConnectionFailed) as raised:
        await stream.receive_some()
    return raised.value


async def failures_of(*streams: tls.TLSStream) -> list[tls.ConnectionFailed]:
    """Return what each of two connected streams fails of."""
    failures: dict[tls.TLSStream, tls.ConnectionFailed] = {}

    async def note(stream: tls.TLSStream) -> None:
        failures[stream] = await failure_of(stream)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(note, stream)
    return [failures[stream] for stream in streams]


@pytest.mark.feature("A6")
@pytest.mark.feature("B8")
@pytest.mark.feature("B9")
@pytest.mark.feature("B11")
@each_refusal
async def test_a_peer_in_memory_hears_why_we_refuse_it(refusal: Refusal, version: str) -> None:
    our_end, their_end = memory_stream_pair()
    recording = RecordingStream(our_end)
    presented: Any = {} if refusal.certificate is None else refusal.certificate.options
    ours = our_stream(recording, refusal.role, our_context(**refusal.context), **refusal.options)
    theirs = our_stream(
        their_end,
        OTHER_SIDE[refusal.role],
        tls.SecureContext(ca=default_authority().ca, **presented, **only(version)),
        alpn_protocols=refusal.alpn_protocols,
    )
    our_failure, their_failure = await failures_of(ours, theirs)
    assert our_failure.code == refusal.code
    assert our_failure.phase == "handshake"
    assert isinstance(their_failure, tls.PeerAlert)
    assert their_failure.alert is refusal.alert
    assert their_failure.code == f"ERR_SSL_{NAMES[refusal.alert]}"
    if version == "TLSv1.2":
        assert records(recording.sent)[-1] == in_the_clear(refusal.alert)


@pytest.mark.interop
@pytest.mark.feature("A6")
@pytest.mark.feature("B6")
@pytest.mark.feature("B8")
@pytest.mark.feature("B9")
@pytest.mark.feature("B11")
@each_refusal
async def test_a_peer_on_a_socket_hears_why_we_refuse_it(
    tmp_path: Path, refusal: Refusal, version: str
) -> None:
    their_context = standard_context(OTHER_SIDE[refusal.role], version, tmp_path, refusal.certificate)
    their_context.set_alpn_protocols(refusal.alpn_protocols)
    heard = []

    def use(sock: socket.socket) -> None:
        side = OTHER_SIDE[refusal.role]
        with standard_socket(their_context, sock, side, suppress_ragged_eofs=False) as theirs:
            theirs.recv(1)

    def listen_to_the_end(sock: socket.socket) -> None:
        with sock, pytest.raises(ssl.SSLError) as raised:
            use(sock)
        heard.append(str(raised.value))

    if refusal.role == "client":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(PATIENCE)
            port = listener.getsockname()[1]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(in_thread, lambda: listen_to_the_end(listener.accept()[0]))
                with pytest.raises(tls.ConnectionFailed) as refused:
                    await our_client(port, our_context(**refusal.context), **refusal.options)
        our_failure = refused.value
    else:
        server = tls.TLSServer(echo, our_context(**refusal.context), **refusal.options)
        async with serving(server) as ours:
            address = ("127.0.0.1", ours.port)
            await in_thread(lambda: listen_to_the_end(socket.create_connection(address, PATIENCE)))
            our_failure = await ours.failure()
    assert our_failure.code == refusal.code
    # The name of the alert stands in words alone where Python does not know it.
    (text,) = heard
    assert NAMES[refusal.alert] in text.upper().replace(" ", "_")


# What is not even TLS as it should be

each_malformed_hello = pytest.mark.parametrize(
    ("hello", "alert"),
    [
        (record(HANDSHAKE, message(CLIENT_HELLO, b"\3\3")), tls.Alert.decode_error),
        (record(HANDSHAKE, message(SERVER_HELLO, b"\3\3")), tls.Alert.unexpected_message),
        (record(APPLICATION_DATA, b"data"), tls.Alert.unexpected_message),
    ],
    ids=["cut-short", "server-hello", "application-data"],
)


@each_malformed_hello
async def test_who_sends_no_client_hello_hears_it_in_the_clear(hello: bytes, alert: tls.Alert) -> None:
    client_end, server_end = memory_stream_pair()
    await client_end.send_all(hello)
    error = await failure_of(our_stream(server_end, "server"))
    assert isinstance(error, tls.ProtocolError)
    assert error.phase == "hello"
    assert records(await client_end.receive_some())[-1] == in_the_clear(alert)


@pytest.mark.feature("B6")
@each_malformed_hello
async def test_who_sends_no_client_hello_over_a_socket_hears_it_in_the_clear(
    hello: bytes, alert: tls.Alert
) -> None:
    async with serving(tls.TLSServer(echo, our_context())) as ours:
        async with await trio.open_tcp_stream("127.0.0.1", ours.port) as client:
            await client.send_all(hello)
            answer = b"".join([data async for data in client])
        assert isinstance(await ours.failure(), tls.ProtocolError)
    assert records(answer)[-1] == in_the_clear(alert)


async def test_who_answers_with_a_malformed_server_hello_hears_it_in_the_clear() -> None:
    client_end, server_end = memory_stream_pair()
    await server_end.send_all(record(HANDSHAKE, message(SERVER_HELLO, b"\3\3")))
    error = await failure_of(our_stream(client_end, "client"))
    assert isinstance(error, tls.ProtocolError)
    assert records(await server_end.receive_some())[-1] == in_the_clear(tls.Alert.decode_error)


# A record that is none of this connection's.
FORGED = record(APPLICATION_DATA, bytes(32))


@in_both_versions
@in_both_roles
async def test_a_peer_in_memory_hears_that_its_record_arrived_garbled(role: str, version: str) -> None:
    client, server = await tls_pair(version=version)
    ours, theirs = (client, server) if role == "client" else (server, client)
    await theirs.transport_stream.send_all(FORGED)
    our_failure, their_failure = await failures_of(ours, theirs)
    assert isinstance(our_failure, tls.ProtocolError)
    assert our_failure.code == "ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
    assert our_failure.phase == "secure"
    assert isinstance(their_failure, tls.PeerAlert)
    assert their_failure.alert is tls.Alert.bad_record_mac
    assert their_failure.phase == "secure"


@pytest.mark.interop
@in_both_versions
@in_both_roles
async def test_a_peer_on_a_socket_hears_that_its_record_arrived_garbled(
    tmp_path: Path, role: str, version: str
) -> None:
    our_end, sock = await tcp_pair()
    ours = our_stream(our_end, role)
    context = standard_context(OTHER_SIDE[role], version, tmp_path)

    def forge() -> None:
        # Whatever is written to the descriptor passes by the encryption.
        with socket.socket(fileno=os.dup(sock.fileno())) as in_the_clear:
            with standard_socket(context, sock, OTHER_SIDE[role]) as theirs:
                in_the_clear.sendall(FORGED)
                with pytest.raises(ssl.SSLError) as raised:
                    theirs.recv(1)
        assert raised.value.reason == NAMES[tls.Alert.bad_record_mac]

    async with ours, trio.open_nursery() as nursery:
        nursery.start_soon(in_thread, forge)
        assert isinstance(await failure_of(ours), tls.ProtocolError)


# The peer refuses us


@pytest.mark.feature("D4")
@pytest.mark.parametrize("alert", [alert for alert in tls.Alert if alert is not tls.Alert.close_notify])
async def test_each_alert_of_a_peer_is_named(alert: tls.Alert) -> None:
    client_end, server_end = memory_stream_pair()
    await server_end.send_all(alert.plaintext_record())
    error = await failure_of(our_stream(client_end, "client"))
    assert isinstance(error, tls.PeerAlert)
    assert error.alert is alert
    assert alert.name in str(error)
    assert error.side == "peer"
    assert error.phase == "handshake"
    if alert in NAMES:
        assert error.code == f"ERR_SSL_{NAMES[alert]}"


async def test_an_alert_of_a_peer_that_nobody_knows_is_its_number() -> None:
    client_end, server_end = memory_stream_pair()
    await server_end.send_all(record(ALERT, bytes((2, 199))))
    error = await failure_of(our_stream(client_end, "client"))
    assert isinstance(error, tls.PeerAlert)
    assert error.alert == 199


@pytest.mark.feature("B8")
async def test_a_client_that_is_refused_late_hears_it_in_each_later_call() -> None:
    client, server = await tls_pair(
        handshake=False, server_context=our_context(), server_options={"request_cert": True}
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(failure_of, server)
        await client.do_handshake()
    for _ in range(2):
        error = await failure_of(client)
        assert isinstance(error, tls.PeerAlert)
        assert error.alert is tls.Alert.certificate_required
        assert error.phase == "secure"
    with pytest.raises(tls.PeerAlert):
        await client.send_all(b"too late")


@pytest.mark.feature("B8")
async def test_a_client_that_only_sends_hears_why_it_was_refused_late() -> None:
    async with serving(tls.TLSServer(echo, our_context(), request_cert=True)) as ours:
        client = await our_client(ours.port, tls.SecureContext(ca=default_authority().ca))
        await ours.failure()

        async def send_for_ever() -> None:
            while True:
                await client.send_all(bytes(65536))

        async with client:
            with pytest.raises(tls.PeerAlert) as raised:
                await send_for_ever()
    assert raised.value.alert is tls.Alert.certificate_required
