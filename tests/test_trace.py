"""HandshakeTrace: what is kept of a handshake, and how it is shown."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import json
import pickle
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from hypothesis import example, given, settings
from hypothesis import strategies as st
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib

from trio_tlsnode import Alert, ConfigurationError, ConnectionInfo, ProtocolError
from trio_tlsnode.info import Cipher
from trio_tlsnode.testing import default_authority
from trio_tlsnode.trace import HandshakeTrace
from trio_tlsnode.trace_events import ApplicationData, Flight, Message, TimeSpent, Wait

pytestmark = [pytest.mark.feature("B21"), pytest.mark.feature("G3")]

TLS12, TLS13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
each_version = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])

Event = tuple[bool, int, int, bytes]
ALERT, HANDSHAKE, HEADER, INNER_TYPE = 21, 22, 256, 257

# A step of OpenSSL, and the way to the peer.
STEP, TRANSIT = 0.001, 0.010

_sinks: dict[Any, Callable[[Event], object]] = {}


@ffi.callback("void(int, int, int, const void *, size_t, SSL *, void *)")  # type: ignore[untyped-decorator]
def on_message(sent: int, version: int, content_type: int, data: Any, size: int, ssl: Any, _: Any) -> None:
    _sinks[ssl]((bool(sent), version, content_type, bytes(ffi.buffer(data, size))))


@functools.cache
def context(
    *,
    server_side: bool = False,
    with_certificate: bool = False,
    trusting: bool = True,
    version: int = TLS13,
    groups: str = "X25519:P-256",
    verify: int = SSL.VERIFY_NONE,
) -> SSL.Context:
    """Return a context of pyOpenSSL that tells of its messages."""
    made = SSL.Context(SSL.TLS_SERVER_METHOD if server_side else SSL.TLS_CLIENT_METHOD)
    made.set_max_proto_version(version)
    made.set_verify(verify, None)
    made.set_session_id(b"trace")
    if server_side or with_certificate:
        leaf = default_authority().good("localhost")
        key = load_pem_private_key(leaf.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        made.use_certificate(x509.load_pem_x509_certificates(leaf.cert)[0])
        made.use_privatekey(key)
    if trusting:
        (root,) = x509.load_pem_x509_certificates(default_authority().ca)
        store = made.get_cert_store()
        assert store is not None
        store.add_cert(crypto.X509.from_cryptography(root))
    pointer = made._context
    assert lib.SSL_CTX_set1_curves_list(pointer, groups.encode()) == 1
    lib.SSL_CTX_set_msg_callback(pointer, on_message)
    return made


def info(**facts: Any) -> ConnectionInfo:
    cipher = Cipher(name="AES", standard_name="TLS_AES_256_GCM_SHA384", version="TLSv1.3", secret_bits=256)
    unknown = dict.fromkeys(field.name for field in dataclasses.fields(ConnectionInfo))
    return ConnectionInfo(**{**unknown, "protocol": "TLSv1.3", "cipher": cipher, **facts})


class Side:
    """One side of a connection, and its trace."""

    def __init__(self, made: SSL.Context, clock: Clock, *, client: bool) -> None:
        self.trace = HandshakeTrace()
        self.events: list[Event] = []
        self.ciphertext_sent = 0
        self.connection = SSL.Connection(made, None)
        self.done = False
        self._clock = clock
        _sinks[self.connection._ssl] = self._take
        if client:
            self.connection.set_connect_state()
            self.connection.set_tlsext_host_name(b"localhost")
        else:
            self.connection.set_accept_state()
        self.trace.start("client" if client else "server", clock.now)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self.trace.record(*event, self._clock.now)

    def step(self) -> None:
        self._clock.now += STEP
        try:
            if self.done:
                self.connection.recv(1 << 16)
                return
            self.connection.do_handshake()
            self.done = True
            reused = bool(lib.SSL_session_reused(self.connection._ssl))
            protocol = self.connection.get_protocol_version_name()
            self.trace.finished(info(protocol=protocol, session_reused=reused), self._clock.now)
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.done = True
            self.trace.failed(ProtocolError(str(error), code="ERR_SSL_TEST"), self._clock.now)

    def drain(self) -> bytes:
        try:
            data = self.connection.bio_read(1 << 20)
        except SSL.WantReadError:
            return b""
        self.ciphertext_sent += len(data)
        return data


@dataclasses.dataclass
class Clock:
    now: float = 1000.0


class Pair(NamedTuple):
    client: Side
    server: Side
    clock: Clock

    def exchange(self) -> None:
        """Let both sides say what they have to say."""
        for _ in range(5):
            for side, peer in ((self.client, self.server), (self.server, self.client)):
                side.step()
                if data := side.drain():
                    self.clock.now += TRANSIT
                    peer.connection.bio_write(data)


def handshake(
    client: SSL.Context | None = None,
    server: SSL.Context | None = None,
    *,
    session: SSL.Session | None = None,
) -> Pair:
    clock = Clock()
    pair = Pair(
        Side(client or context(), clock, client=True),
        Side(server or context(server_side=True), clock, client=False),
        clock,
    )
    if session is not None:
        pair.client.connection.set_session(session)
    pair.exchange()
    return pair


@functools.cache
def full(version: int = TLS13) -> Pair:
    return handshake(context(version=version))


@functools.cache
def resumed(version: int = TLS13) -> Pair:
    session = full(version).client.connection.get_session()
    return handshake(context(version=version), session=session)


@functools.cache
def with_client_certificate(version: int = TLS13) -> Pair:
    return handshake(
        context(version=version, with_certificate=True),
        context(server_side=True, verify=SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT),
    )


@functools.cache
def with_retry() -> Pair:
    return handshake(context(), context(server_side=True, groups="P-256"))


@functools.cache
def refused_by_client() -> Pair:
    return handshake(context(trusting=False, verify=SSL.VERIFY_PEER))


@functools.cache
def refused_by_server() -> Pair:
    verify = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    return handshake(context(), context(server_side=True, verify=verify))


HANDSHAKES: dict[str, Callable[[], Pair]] = {
    "full 1.3": full,
    "full 1.2": functools.partial(full, TLS12),
    "resumed 1.3": resumed,
    "resumed 1.2": functools.partial(resumed, TLS12),
    "client certificate 1.3": with_client_certificate,
    "client certificate 1.2": functools.partial(with_client_certificate, TLS12),
    "retry": with_retry,
    "refused by client": refused_by_client,
    "refused by server": refused_by_server,
}
each_handshake = pytest.mark.parametrize("name", HANDSHAKES)


def figure(trace: HandshakeTrace) -> list[str]:
    """Return the flights of a handshake as in the figures of RFC 8446."""
    lines = []
    for flight in trace.flights:
        names = [f"{{{message.name}}}" if message.encrypted else message.name for message in flight.messages]
        arrow = ">" if flight.sent == (trace.role == "client") else "<"
        lines.append(f"{arrow} {' '.join(names)}")
    return lines


def said(trace: HandshakeTrace, name: str) -> list[str]:
    return [message.description for message in trace.messages if message.name == name]


# What is kept

ENCRYPTED_FLIGHT = "{EncryptedExtensions} {Certificate} {CertificateVerify} {Finished}"


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize(
    ("name", "flights"),
    [
        (
            "full 1.3",
            [
                "> ClientHello",
                f"< ServerHello ChangeCipherSpec {ENCRYPTED_FLIGHT}",
                "> ChangeCipherSpec {Finished}",
                "< {NewSessionTicket} {NewSessionTicket}",
            ],
        ),
        (
            "full 1.2",
            [
                "> ClientHello",
                "< ServerHello Certificate ServerKeyExchange ServerHelloDone",
                "> ClientKeyExchange ChangeCipherSpec {Finished}",
                "< NewSessionTicket ChangeCipherSpec {Finished}",
            ],
        ),
        (
            "resumed 1.3",
            [
                "> ClientHello",
                "< ServerHello ChangeCipherSpec {EncryptedExtensions} {Finished}",
                "> ChangeCipherSpec {Finished}",
                "< {NewSessionTicket}",
            ],
        ),
        (
            "resumed 1.2",
            [
                "> ClientHello",
                "< ServerHello ChangeCipherSpec {Finished}",
                "> ChangeCipherSpec {Finished}",
            ],
        ),
        (
            "client certificate 1.2",
            [
                "> ClientHello",
                "< ServerHello Certificate ServerKeyExchange CertificateRequest ServerHelloDone",
                "> Certificate ClientKeyExchange CertificateVerify ChangeCipherSpec {Finished}",
                "< NewSessionTicket ChangeCipherSpec {Finished}",
            ],
        ),
    ],
)
def test_each_side_tells_the_flights_and_what_is_encrypted(name: str, flights: list[str], side: str) -> None:
    assert figure(getattr(HANDSHAKES[name](), side).trace) == flights


@each_handshake
def test_both_sides_tell_the_same_messages(name: str) -> None:
    pair = HANDSHAKES[name]()
    views: list[list[Any]] = [[], []]
    for view, side in zip(views, (pair.client, pair.server), strict=True):
        for message in side.trace.messages:
            by_client = message.sent == (side.trace.role == "client")
            view.append((by_client, message.name, message.size, message.description, message.records))
    # One that gives up has not read the rest.
    for view, other in (views, views[::-1]):
        for by_client in (True, False):
            mine, others = ([entry for entry in part if entry[0] == by_client] for part in (view, other))
            assert mine[: len(others)] == others[: len(mine)]


@each_handshake
def test_flights_and_application_data_are_all_that_is_sent(name: str) -> None:
    pair = HANDSHAKES[name]()
    for side in (pair.client, pair.server):
        sent = sum(flight.bytes for flight in side.trace.flights if flight.sent)
        assert sent + side.trace.application_data.bytes_sent == side.ciphertext_sent


@each_version
def test_a_resumed_handshake_is_told_from_a_full_one(version: int) -> None:
    for side in (full(version).client, full(version).server):
        assert side.trace.resumed is False
        assert "Certificate" in [message.name for message in side.trace.messages]
    for side in (resumed(version).client, resumed(version).server):
        assert side.trace.resumed is True
        assert "Certificate" not in [message.name for message in side.trace.messages]
    assert HandshakeTrace().resumed is None


@pytest.mark.parametrize(
    ("name", "count"), [("full 1.3", 1), ("retry", 2), ("full 1.2", 2), ("resumed 1.2", 1)]
)
def test_round_trips_are_counted(name: str, count: int) -> None:
    pair = HANDSHAKES[name]()
    assert (pair.client.trace.round_trips, pair.server.trace.round_trips) == (count, count)


def test_messages_say_what_they_ask_for_and_what_is_chosen() -> None:
    trace = full().client.trace
    assert said(trace, "ClientHello") == ["localhost; TLSv1.3, TLSv1.2; key share x25519"]
    assert said(trace, "ServerHello") == ["TLSv1.3; TLS_AES_256_GCM_SHA384; x25519"]
    assert said(trace, "Certificate") == ["2 certificates; localhost"]
    assert said(trace, "CertificateVerify") == ["ecdsa_secp256r1_sha256"]
    assert said(trace, "NewSessionTicket") == ["lifetime 7,200 s"] * 2
    assert trace.protocol == "TLSv1.3"


def test_tls12_says_its_group_and_its_ticket() -> None:
    trace = full(TLS12).client.trace
    assert said(trace, "ServerKeyExchange") == ["x25519"]
    assert said(trace, "Certificate") == ["2 certificates; localhost"]
    assert said(resumed(TLS12).client.trace, "ClientHello") == ["localhost; TLSv1.2; session ticket"]
    assert trace.protocol == "TLSv1.2"


def test_a_resumption_of_tls13_is_seen_in_the_hellos() -> None:
    trace = resumed().server.trace
    assert said(trace, "ClientHello")[0].endswith("; 1 pre-shared key")
    assert said(trace, "ServerHello")[0].endswith("; pre-shared key accepted")


def test_a_retry_is_no_server_hello() -> None:
    trace = with_retry().client.trace
    assert said(trace, "HelloRetryRequest") == ["TLSv1.3; TLS_AES_256_GCM_SHA384; secp256r1"]
    assert said(trace, "ClientHello")[1].endswith("key share secp256r1")
    assert len(said(trace, "ServerHello")) == 1


@each_version
def test_a_clients_certificate_is_told(version: int) -> None:
    trace = with_client_certificate(version).server.trace
    assert said(trace, "CertificateRequest") == ["any authority"]
    assert said(trace, "Certificate") == ["2 certificates; localhost"] * 2


def test_an_alert_and_a_failure_are_told_by_both_sides() -> None:
    for side in (refused_by_client().client, refused_by_client().server):
        (alert,) = side.trace.alerts
        assert alert.alert is Alert.unknown_ca
        assert (alert.description, alert.size) == ("fatal unknown_ca", 2)
        assert alert.sent == (side.trace.role == "client")
        assert not alert.encrypted
        assert side.trace.failure is not None
        assert (side.trace.failure.error, side.trace.failure.code) == ("ProtocolError", "ERR_SSL_TEST")


def test_an_alert_after_the_clients_handshake_is_kept() -> None:
    trace = refused_by_server().client.trace
    assert trace.info is not None
    assert [alert.alert for alert in trace.alerts] == [Alert.certificate_required]
    assert trace.flights[-1].after_handshake
    assert said(trace, "Certificate")[1] == "no certificate"


def test_an_alert_that_has_no_name_is_a_number() -> None:
    trace = HandshakeTrace()
    trace.record(False, 0x0303, HEADER, bytes.fromhex("1503030002"), 1.0)
    trace.record(False, 0x0303, ALERT, bytes((3, 250)), 1.0)
    (alert,) = trace.alerts
    assert (alert.alert, alert.description) == (250, "level 3 alert 250")


def test_flights_after_the_handshake_are_marked() -> None:
    for version in (TLS12, TLS13):
        for side in (full(version).client, full(version).server):
            marks = [flight.after_handshake for flight in side.trace.flights]
            assert marks == [False, False, False, version == TLS13]


def test_times_are_those_of_the_clock_since_the_start() -> None:
    trace = full().client.trace
    assert trace.started_at == 1000.0
    hello, answer, *_ = trace.flights
    assert hello.start == pytest.approx(STEP)
    assert answer.start == pytest.approx(STEP + TRANSIT + STEP + TRANSIT + STEP)
    assert trace.duration == pytest.approx(answer.end)
    assert [message.time for message in trace.messages] == sorted(message.time for message in trace.messages)


@each_version
def test_application_data_is_only_counted(version: int) -> None:
    pair = handshake(context(version=version))
    messages = [len(side.trace.messages) for side in (pair.client, pair.server)]
    before = pair.client.ciphertext_sent
    for _ in range(7):
        pair.client.connection.send(bytes(10_000))
    pair.exchange()
    for side, kept in zip((pair.client, pair.server), messages, strict=True):
        assert len(side.trace.messages) == kept
    sent = pair.client.ciphertext_sent - before
    assert pair.client.trace.application_data == ApplicationData(7, sent, 0, 0)
    assert pair.server.trace.application_data.bytes_received > 0


def test_what_comes_after_application_data_is_a_flight_of_its_own() -> None:
    pair = handshake(context(version=TLS12))
    flights = len(pair.server.trace.flights)
    pair.server.connection.send(b"data")
    pair.server.connection.shutdown()
    pair.exchange()
    assert figure(pair.server.trace)[flights:] == ["< {Alert}"]
    assert said(pair.client.trace, "Alert") == ["warning close_notify"]


@each_handshake
def test_no_secret_and_no_random_bytes_are_kept(name: str) -> None:
    pair = HANDSHAKES[name]()
    for side in (pair.client, pair.server):
        kept = pickle.dumps(side.trace)
        for _, _, content_type, data in side.events:
            if content_type == HANDSHAKE:
                pieces = [data[at : at + 12] for at in range(4, len(data) - 12, 12)]
                assert not [piece for piece in pieces if any(piece) and piece in kept]


# What a server reads before OpenSSL does


def wire(events: list[Event]) -> bytes:
    """Return the first flight of a client as it is on the wire."""
    header, hello = (data for _, _, content_type, data in events[:2] if content_type in (HEADER, HANDSHAKE))
    return header + hello


def test_a_hello_is_told_when_it_arrives_and_only_once() -> None:
    client, server, _ = full()
    trace = HandshakeTrace()
    trace.start("server", 1.0)
    trace.plaintext(False, wire(client.events), 1.5)
    trace.waited("sni_callback", 1.5, 3.5)
    for event in server.events:
        trace.record(*event, 4.0)
    assert figure(trace) == figure(server.trace)
    assert [flight.bytes for flight in trace.flights] == [flight.bytes for flight in server.trace.flights]
    assert trace.messages[0].time == 0.5
    assert trace.waits == (Wait("sni_callback", 0.5, 2.5),)
    assert trace.time_spent == TimeSpent(peer=0.5, callbacks=2.0, here=0.5)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_hello_may_come_in_many_records(size: int) -> None:
    hello = wire(full().client.events)[5:]
    pieces = [hello[at : at + size] for at in range(0, len(hello), size)]
    trace = HandshakeTrace()
    trace.plaintext(False, b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces), 0)
    (message,) = trace.messages
    assert (message.name, message.size, message.records) == ("ClientHello", len(hello), len(pieces))
    assert trace.flights[0].bytes == len(hello) + 5 * len(pieces)


def test_a_refusal_before_openssl_is_told() -> None:
    trace = HandshakeTrace()
    trace.start("server", 0)
    trace.plaintext(False, bytearray(wire(full().client.events)), 1)
    trace.plaintext(True, Alert.unrecognized_name.plaintext_record(), 2)
    assert figure(trace) == ["> ClientHello", "< Alert"]
    assert trace.flights[1].bytes == 7


def test_a_hello_that_openssl_refuses_unread_does_not_hide_the_alert() -> None:
    trace = HandshakeTrace()
    trace.start("server", 0)
    broken = bytes.fromhex("1603010005 01ffffff 00")
    trace.plaintext(False, broken, 1)
    trace.record(False, 0x0301, HEADER, broken[:5], 2)
    trace.record(True, 0x0303, HEADER, bytes.fromhex("1503030002"), 2)
    trace.record(True, 0x0303, ALERT, bytes((2, 47)), 2)
    assert figure(trace) == ["> ", "< Alert"]
    assert (trace.flights[0].bytes, trace.flights[0].records) == (10, 1)


def test_what_is_no_tls_is_not_taken() -> None:
    trace = HandshakeTrace()
    trace.plaintext(False, b"GET / HTTP/1.1\r\n\r\n", 0)
    trace.record(False, 0x0303, HEADER, b"GET /", 0)
    assert trace.flights == ()


# Records by hand


def message(kind: int, body: bytes = b"") -> bytes:
    return bytes((kind,)) + len(body).to_bytes(3) + body


SERVER_HELLO = message(2, bytes.fromhex("0303") + bytes(33) + bytes.fromhex("130100 0006 002b00020304"))


class Script:
    """A connection of TLS 1.3 whose peer does what it likes."""

    def __init__(self, **options: Any) -> None:
        self.trace = HandshakeTrace(**options)
        self.now = 0.0
        self.trace.start("client", self.now)
        self.record(sent=True, messages=[message(1)], encrypted=False)
        self.record(sent=False, messages=[SERVER_HELLO], encrypted=False)

    def finish(self) -> None:
        self.record(sent=False, messages=[message(20)])
        self.record(sent=True, messages=[message(20)])
        self.trace.finished(info(), self.now)

    def record(self, *, sent: bool, messages: list[bytes], encrypted: bool = True, inner: int = 22) -> None:
        size = sum(map(len, messages)) + 17
        self.event(sent, HEADER, bytes((23 if encrypted else 22, 3, 3)) + size.to_bytes(2))
        if encrypted:
            self.event(sent, INNER_TYPE, bytes((inner,)))
        for data in messages:
            self.event(sent, HANDSHAKE, data)

    def event(self, sent: bool, content_type: int, data: bytes) -> None:
        self.now += 0.001
        self.trace.record(sent, 0x0304, content_type, data, self.now)


def test_messages_may_share_a_record() -> None:
    script = Script()
    script.record(sent=False, messages=[message(8, b"\0\0"), message(20)])
    assert [(part.name, part.records) for part in script.trace.messages[2:]] == [
        ("EncryptedExtensions", 1),
        ("Finished", 0),
    ]


def test_a_message_may_take_many_records() -> None:
    script = Script()
    script.record(sent=False, messages=[])
    script.record(sent=False, messages=[message(11, bytes(30_000))])
    assert script.trace.messages[-1].records == 2


def test_key_updates_tell_whether_one_is_wanted() -> None:
    script = Script()
    script.finish()
    script.record(sent=False, messages=[message(24, b"\1")])
    script.record(sent=True, messages=[message(24, b"\0")])
    assert said(script.trace, "KeyUpdate") == ["update requested", "update not requested"]
    assert all(flight.after_handshake for flight in script.trace.flights[-2:])


def test_early_data_is_application_data_and_a_record_that_is_skipped_is_not() -> None:
    script = Script()
    script.record(sent=True, messages=[], inner=23)
    assert script.trace.application_data == ApplicationData(1, 22, 0, 0)
    script.event(False, HEADER, bytes.fromhex("1703030100"))
    script.event(False, HEADER, bytes.fromhex("1703030100"))
    script.trace.failed(ProtocolError("cannot be read", code="ERR_SSL_TEST"), script.now)
    assert script.trace.flights[-1].records == 2
    assert script.trace.application_data == ApplicationData(1, 22, 0, 0)


def test_memory_is_bounded_whatever_the_peer_sends() -> None:
    script = Script()
    script.finish()
    for _ in range(300):
        script.record(sent=False, messages=[message(4, bytes(9))])
    (flight,) = [flight for flight in script.trace.flights if flight.after_handshake]
    assert (flight.records, len(flight.messages), flight.left_out) == (300, 20, 280)
    for number in range(300):
        script.record(sent=number % 2 == 0, messages=[message(24, b"\0")])
    script.event(False, ALERT, bytes((2, 10)))
    trace = script.trace
    assert len(trace.flights) == 28
    assert len(trace.messages) + trace.left_out == 4 + 300 + 300 + 1
    assert trace.messages[0].name == "ClientHello"
    assert trace.alerts[-1] is trace.messages[-1]
    assert f"{trace.left_out - 280} messages left out" in trace.text()
    assert "280 messages left out" in trace._repr_html_()
    assert len(pickle.dumps(trace)) < 20_000


def test_a_long_description_is_cut() -> None:
    protocols = b"".join(bytes((200,)) + bytes((letter,)) * 200 for letter in b"abc")
    extension = (16).to_bytes(2) + (len(protocols) + 2).to_bytes(2) + len(protocols).to_bytes(2) + protocols
    body = bytes.fromhex("0303") + bytes(33) + bytes.fromhex("00021301 0100") + len(extension).to_bytes(2)
    trace = HandshakeTrace()
    trace.record(True, 0x0301, HANDSHAKE, message(1, body + extension), 0)
    (hello,) = trace.messages
    assert len(hello.description) == 240
    assert hello.description.endswith("b…")


# What messages say


def description(data: bytes, *, tls13: bool = True) -> str:
    trace = HandshakeTrace()
    if tls13:
        trace.record(False, 0x0304, HANDSHAKE, SERVER_HELLO, 0)
    trace.record(False, 0x0304, HANDSHAKE, data, 0)
    return trace.messages[-1].description


def vector(size: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return len(content).to_bytes(size) + content


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (message(8, bytes.fromhex("0009 0010 0005 0003 02 6832")), "ALPN h2"),
        (message(8, bytes.fromhex("0004 002a 0000")), "early data accepted"),
        (message(4, bytes.fromhex("00000e10 00000000 00 0000 0000")), "lifetime 3,600 s"),
        (message(4, bytes(11) + b"\0\x08\0\x2a\0\4" + bytes(4)), "lifetime 0 s; early data allowed"),
        (message(13, bytes.fromhex("00 000c 002f 0008 0006 0001 41 0001 42")), "2 acceptable authorities"),
        (message(13, bytes.fromhex("00 0000")), "any authority"),
        (message(25, bytes.fromhex("0002 000400 00")), "brotli; 1,024 bytes"),
        (message(25, bytes.fromhex("0009 000001 00")), "algorithm 9; 1 byte"),
        (message(22, bytes.fromhex("01 000200") + bytes(512)), "OCSP response, 512 bytes"),
        (message(12, bytes.fromhex("03 001d 01 00")), "x25519"),
        (message(12, bytes.fromhex("0100") + bytes(300)), ""),
        (message(15, bytes.fromhex("0100 0000")), ""),
        (message(11, bytes.fromhex("00 000000")), "no certificate"),
        (message(11, bytes.fromhex("00 000004 000002 0500")), "malformed: cut short"),
        (message(5), ""),
        (message(2, b"\x99\x99" + bytes(33) + b"\xff\xff\0"), "version 0x9999; cipher suite 0xffff"),
        (message(2, bytes(34) + b"\xff"), "malformed: cut short"),
        (message(1), "malformed: cut short"),
    ],
)  # fmt: skip
def test_a_message_is_described(data: bytes, text: str) -> None:
    assert description(data) == text


def test_a_hello_with_early_data_says_so() -> None:
    start = b"\x03\x03" + bytes(33) + bytes.fromhex("0002 1301 01 00")
    hello = message(1, start + bytes.fromhex("0004 002a 0000"))
    assert description(hello) == "no server name; TLSv1.2; early data"


def test_a_message_that_no_rfc_names_is_a_number() -> None:
    trace = HandshakeTrace()
    trace.record(False, 0x0304, HANDSHAKE, message(99, b"abc"), 0)
    assert (trace.messages[0].name, trace.messages[0].size) == ("Message 99", 7)


@functools.cache
def certificate(common_names: tuple[str, ...], organization: str = "", alt_name: str = "") -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(x509.NameOID.COMMON_NAME, name) for name in common_names]
    if organization:
        attributes.append(x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organization))
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=1))
    )
    if alt_name:
        names = x509.SubjectAlternativeName([x509.DNSName(alt_name)])
        builder = builder.add_extension(names, critical=True)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("subject", "owner"),
    [
        ((("example.com",), "Example", "other.example"), "example.com"),
        ((("first", "second"),), "first"),
        (((), "", "only.example"), "only.example"),
        (((), "Example Ltd"), "Example Ltd"),
        (((),), "no name"),
        ((("a\x1b[31m\n\u202eb",),), r"a\x1b[31m\n\u202eb"),
    ],
)
def test_a_certificate_is_told_by_whose_it_is(subject: Any, owner: str) -> None:
    der = certificate(*subject)
    old = message(11, vector(3, vector(3, der), vector(3, der)))
    assert description(old, tls13=False) == f"2 certificates; {owner}"
    stapled = vector(2, (5).to_bytes(2), vector(2, b"\1\0\0\0"))
    new = message(11, vector(1) + vector(3, vector(3, der), stapled))
    assert description(new) == f"1 certificate; {owner}; OCSP response"


def test_what_was_read_before_the_damage_is_told() -> None:
    chain = vector(3, vector(3, b"no certificate"), vector(2))
    start, _, rest = description(message(11, vector(1) + chain)).partition("; ")
    assert start == "1 certificate"
    assert rest.startswith("malformed: ")


# Showing it


def columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def check_shown(trace: HandshakeTrace) -> None:
    for width in (60, 80, 120):
        lines = trace.text(width).split("\n")
        assert max(map(columns, lines)) <= width
        assert all(line.isprintable() and line == line.rstrip() for line in lines)
    assert all(trace.line(part).isprintable() for part in trace.messages)
    assert repr(trace).isprintable()
    picture = ET.fromstring(trace._repr_html_())
    tags = {element.tag.rpartition("}")[2] for element in picture.iter()}
    assert tags <= {"svg", "rect", "path", "text", "title"}
    assert not [element for element in picture.iter() if {"id", "class", "href"} & element.attrib.keys()]
    assert json.loads(json.dumps(trace.to_dict())) == trace.to_dict()


@each_handshake
def test_every_handshake_can_be_shown(name: str) -> None:
    pair = HANDSHAKES[name]()
    check_shown(pair.client.trace)
    check_shown(pair.server.trace)


def test_a_trace_that_saw_nothing_can_be_shown() -> None:
    trace = HandshakeTrace()
    check_shown(trace)
    assert str(trace) == "handshake in progress\nseen by the client, {} is encrypted\n"
    assert repr(trace) == "<HandshakeTrace of a client: handshake in progress>"


def test_the_text_is_a_timeline() -> None:
    script = Script()
    script.trace.waited("psk_callback", script.now, script.now + 0.5)
    script.now += 0.5
    script.record(sent=False, messages=[message(8, bytes.fromhex("0009 0010 0005 0003 02 6832"))])
    script.finish()
    script.record(sent=False, messages=[message(4, bytes.fromhex("00000e10 00000000 00 0000 0000"))])
    script.record(sent=True, messages=[], inner=23)
    assert str(script.trace) == TIMELINE.removeprefix("\n").removesuffix("\n")


TIMELINE = """
TLSv1.3, TLS_AES_256_GCM_SHA384, full handshake, 1 round trip, 513.000 ms
seen by the client, {} is encrypted
time: server and network 8.000 ms, callbacks 500.000 ms, here 5.000 ms

     1.000 ms  client --> server  26 bytes in 1 record
    ClientHello                    4  malformed: cut short
     3.000 ms  client <-- server  135 bytes in 3 records within 507.000 ms
    ServerHello                   50  TLSv1.3; TLS_AES_128_GCM_SHA256
    {EncryptedExtensions}         15  ALPN h2
    {Finished}                     4
   504.000 ms  psk_callback took 500.000 ms
   511.000 ms  client --> server  26 bytes in 1 record
    {Finished}                     4
   513.000 ms  secure
   514.000 ms  client <-- server  39 bytes in 1 record
    {NewSessionTicket}            17  lifetime 3,600 s
               application data: 22 bytes in 1 record sent
"""


def test_a_width_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 60"):
        HandshakeTrace().text(59)


def test_lines_come_as_it_happens() -> None:
    lines: list[str] = []
    script = Script(on_line=lines.append)
    assert lines == [script.trace.line(part) for part in script.trace.messages]
    assert (
        lines[1] == "     4.000 ms  client <-- server  ServerHello, 50 bytes: TLSv1.3; TLS_AES_128_GCM_SHA256"
    )
    script.trace.waited("alpn_callback", 0.25, 0.5)
    script.finish()
    script.trace.failed(ProtocolError("broken\nhere", code="ERR_SSL_TEST"), 2.0)
    assert lines[2] == "   500.000 ms  alpn_callback took 250.000 ms"
    assert lines[-2] == (
        "    10.000 ms  secure: TLSv1.3, TLS_AES_256_GCM_SHA384, full handshake, 1 round trip, 10.000 ms"
    )
    assert lines[-1] == r" 2,000.000 ms  failed: ProtocolError: broken\nhere [ERR_SSL_TEST]"


@pytest.mark.parametrize(
    ("name", "badge"),
    [("full 1.3", "FULL HANDSHAKE"), ("resumed 1.2", "RESUMED"), ("refused by client", "FAILED")],
)
def test_the_diagram_tells_at_a_glance_how_it_went(name: str, badge: str) -> None:
    assert f">{badge}<" in HANDSHAKES[name]().client.trace._repr_html_()


def test_the_diagram_marks_what_is_encrypted() -> None:
    def locks(trace: HandshakeTrace) -> int:
        return trace._repr_html_().count("a3 3 0 0 1 6 0v2")

    trace = full(TLS12).client.trace
    # Two messages, the end, and the legend.
    assert locks(trace) == 4
    clear = HandshakeTrace()
    clear.plaintext(True, Alert.handshake_failure.plaintext_record(), 0)
    assert locks(clear) == 0


def test_the_diagram_says_where_time_and_data_went() -> None:
    script = Script()
    script.trace.waited("alpn_callback", script.now, script.now + 0.25)
    script.now += 0.5
    script.record(sent=True, messages=[message(20)])
    script.now += 0.75
    script.finish()
    script.record(sent=True, messages=[], inner=23)
    picture = script.trace._repr_html_()
    assert ">alpn_callback took 250.000 ms<" in picture
    assert ">251.000 ms here<" in picture
    assert ">751.000 ms for the server<" in picture
    assert ">application data: 22 bytes in 1 record sent<" in picture


def test_a_long_description_takes_three_lines_of_the_diagram() -> None:
    trace = HandshakeTrace()
    chain = vector(3, vector(3, certificate(("word " * 12 + "end",), "", "")), vector(2))
    trace.record(False, 0x0304, HANDSHAKE, SERVER_HELLO, 0)
    trace.record(False, 0x0304, HANDSHAKE, message(11, vector(1) + chain), 0)
    assert " end<" in trace._repr_html_()
    trace.record(
        False,
        0x0304,
        HANDSHAKE,
        message(8, vector(2, b"\0\x10", vector(2, vector(2, vector(1, b"w" * 230))))),
        0,
    )
    assert re.findall(">(w+…?)<", trace._repr_html_())[-1].endswith("w…")


def test_nothing_from_the_peer_becomes_markup() -> None:
    evil = "<script>alert('1')</script>&\"\u202e\x00"
    trace = HandshakeTrace()
    trace.start("client", 0)
    for data in (
        SERVER_HELLO,
        message(11, vector(1) + vector(3, vector(3, certificate((evil,))), vector(2))),
    ):
        trace.record(False, 0x0304, HANDSHAKE, data, 0)
    trace.waited(evil, 0, 1)
    trace.finished(info(server_name=evil, alpn_protocol=evil), 1)
    trace.failed(ProtocolError(evil, code="ERR_SSL_TEST"), 1)
    check_shown(trace)
    assert "<script" not in trace._repr_html_()
    assert "&lt;script&gt;" in trace._repr_html_()


def test_wide_letters_count_twice() -> None:
    trace = HandshakeTrace()
    trace.start("server", 0)
    trace.failed(ProtocolError("日本語" * 60, code="ERR_SSL_TEST"), 1)
    check_shown(trace)


def test_the_dict_has_what_is_documented() -> None:
    facts = full().server.trace.to_dict()
    assert facts.keys() == {
        "role", "started_at", "duration", "protocol", "cipher", "alpn_protocol", "server_name", "resumed",
        "round_trips", "time_spent", "flights", "waits", "application_data", "failure", "left_out",
    }  # fmt: skip
    assert facts["flights"][0].keys() == {field.name for field in dataclasses.fields(Flight)}
    assert facts["flights"][0]["messages"][0].keys() == {field.name for field in dataclasses.fields(Message)}
    assert refused_by_client().client.trace.to_dict()["flights"][-1]["messages"][0]["alert"] == 48


def test_the_time_spent_adds_up() -> None:
    for name in HANDSHAKES:
        for side in HANDSHAKES[name]()[:2]:
            assert isinstance(side, Side)
            spent = side.trace.time_spent
            assert spent.peer + spent.callbacks + spent.here == pytest.approx(side.trace.duration)


def test_a_client_that_was_never_answered_has_waited_for_the_server() -> None:
    trace = HandshakeTrace()
    trace.start("client", 0)
    trace.record(True, 0x0301, HEADER, bytes.fromhex("1603010004"), 1)
    trace.record(True, 0x0301, HANDSHAKE, message(1), 1)
    trace.failed(ProtocolError("too slow", code="ERR_TLS_HANDSHAKE_TIMEOUT"), 10)
    assert trace.time_spent == TimeSpent(peer=9, callbacks=0, here=1)


def test_a_trace_is_for_one_connection() -> None:
    trace = HandshakeTrace()
    trace.start("client", 0)
    with pytest.raises(ConfigurationError, match="one connection") as caught:
        trace.start("client", 1)
    assert caught.value.option == "trace"


# Whatever the peer sends


def hellos() -> Iterator[bytes]:
    for path in sorted((Path(__file__).parent / "data" / "client_hello").glob("*.hex")):
        yield bytes.fromhex(re.sub(r"\s", "", path.read_text(encoding="ascii")))[5:]


@functools.cache
def real_messages() -> list[bytes]:
    events = [event for pair in HANDSHAKES.values() for event in pair().client.events]
    return [*hellos(), *(data for _, _, content_type, data in events if content_type == HANDSHAKE)]


@st.composite
def damaged_messages(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(real_messages())))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@settings(max_examples=60)
@given(data=damaged_messages(), tls13=st.booleans())
def test_a_damaged_message_never_raises(data: bytes, tls13: bool) -> None:
    trace = HandshakeTrace()
    if tls13:
        trace.record(False, 0x0304, HANDSHAKE, SERVER_HELLO, 0)
    trace.record(False, 0x0304, HANDSHAKE, data, 0)
    assert all(part.description.isprintable() and len(part.description) <= 240 for part in trace.messages)


events = st.tuples(
    st.booleans(),
    st.just(0x0304),
    st.sampled_from([20, ALERT, HANDSHAKE, 23, HEADER, INNER_TYPE, 512]),
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(range(19, 26)).map(lambda kind: bytes((kind, 3, 3, 0, 9))),
        st.integers(0, 25).flatmap(lambda kind: st.binary(max_size=60).map(functools.partial(message, kind))),
    ),
)


@settings(max_examples=30)
@given(script=st.lists(events, max_size=60), role=st.sampled_from(["client", "server"]), first=st.binary())
@example(script=[], role="server", first=b"\x16\x03\x01\x00\x00" * 3)
def test_no_sequence_of_events_raises(script: list[Event], role: Any, first: bytes) -> None:
    trace = HandshakeTrace(on_line=lambda line: line.isprintable() or pytest.fail(line))
    trace.start(role, 0.0)
    trace.plaintext(False, first, 0.0)
    for number, event in enumerate(script):
        trace.record(*event, number / 1000)
    check_shown(trace)
    trace.failed(ProtocolError("over", code="ERR_SSL_TEST"), 1.0)
    check_shown(trace)
