"""Engine: TLS without I/O, whatever the pieces, whatever the bytes."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

import trio_tlsnode as tls
from trio_tlsnode import Engine, Want
from trio_tlsnode.errors import NeedHandshakeError
from trio_tlsnode.testing import default_authority

pytestmark = pytest.mark.feature("C22")

VERSIONS = ("TLSv1.2", "TLSv1.3")
each_version = pytest.mark.parametrize("version", VERSIONS)
few = settings(max_examples=25)
many = settings(max_examples=100)

# How a HelloRetryRequest is told from a ServerHello (RFC 8446, section 4.1.3).
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


@functools.cache
def client_context(version: str | None = None, **options: Any) -> tls.SecureContext:
    return tls.SecureContext(ca=default_authority().ca, min_version=version, max_version=version, **options)


@functools.cache
def server_context(version: str | None = None, name: str = "localhost", **options: Any) -> tls.SecureContext:
    credentials = default_authority().good(name).options
    return tls.SecureContext(**credentials, min_version=version, max_version=version, **options)


def engines(version: str | None = None, **options: Any) -> tuple[Engine, Engine]:
    return Engine(client_context(version), host="localhost", **options), Engine(
        server_context(version), server_side=True
    )


def exchange(client: Engine, server: Engine) -> None:
    """Carry ciphertext both ways until there is no more."""
    moved = True
    while moved:
        moved = False
        for engine, peer in ((client, server), (server, client)):
            data = engine.drain()
            if data:
                peer.feed(data)
                moved = True


def shake_hands(client: Engine, server: Engine) -> None:
    while client.info is None or server.info is None:
        for engine, peer in ((client, server), (server, client)):
            if engine.info is None:
                engine.do_handshake()
            if data := engine.drain():
                peer.feed(data)


def connected(version: str | None = None, **options: Any) -> tuple[Engine, Engine]:
    client, server = engines(version, **options)
    shake_hands(client, server)
    assert server.read() is client.read() is Want.READ
    return client, server


def read_all(engine: Engine, max_bytes: int = 1 << 18) -> bytes:
    received = b""
    while isinstance(data := engine.read(max_bytes), bytes) and data:
        received += data
    return received


# Conversations


class Talker:
    """One side: does the handshake, says what it has to say and goodbye, and notes what it hears."""

    def __init__(self, engine: Engine, says: Iterable[bytes], max_bytes: int = 1 << 18) -> None:
        self.engine = engine
        self.says = list(says)
        self.max_bytes = max_bytes
        self.heard = b""
        self.ended = False
        self.failure: tls.ConnectionFailed | None = None

    def go_on(self) -> None:
        if self.failure is not None or self.ended:
            return
        try:
            if self.engine.info is None:
                if isinstance(self.engine.do_handshake(), Want):
                    return
                for data in self.says:
                    self.engine.write(data)
                self.engine.shutdown()
            while not isinstance(heard := self.engine.read(self.max_bytes), Want):
                self.heard += heard
                if not heard:
                    self.ended = True
                    return
        except tls.ConnectionFailed as error:
            self.failure = error


def converse(
    client: Talker,
    server: Talker,
    sizes: Iterator[int],
    change: Callable[[Talker, bytes], bytes] | None = None,
) -> None:
    """Let two talk until neither has anything to say, in pieces of these sizes; then end the transport."""
    under_way: dict[Talker, bytearray] = {client: bytearray(), server: bytearray()}
    moved = True
    while moved:
        moved = False
        for talker, peer in ((client, server), (server, client)):
            talker.go_on()
            data = talker.engine.drain()
            under_way[peer] += data if change is None else change(talker, data)
        for talker, waiting in under_way.items():
            if waiting:
                size = next(sizes)
                talker.engine.feed(waiting[:size])
                del waiting[:size]
                moved = True
    for talker in (client, server):
        talker.engine.feed(b"")
        talker.go_on()


SAYS = bytes(index * 7 % 251 for index in range(65_000))


@each_version
@few
@given(
    sizes=st.lists(st.one_of(st.integers(1, 50), st.integers(51, 70_000)), min_size=1, max_size=8),
    max_bytes=st.one_of(st.integers(1, 100), st.integers(101, 1 << 19)),
    cuts=st.lists(st.integers(0, 65_000), max_size=5),
)
def test_no_split_changes_the_result(version: str, sizes: list[int], max_bytes: int, cuts: list[int]) -> None:
    # As much as is done in a moment.
    whole = SAYS[: 200 * min(max_bytes, *sizes)]
    edges = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    says = [whole[start:end] for start, end in itertools.pairwise(edges)]
    client, server = engines(version, alpn_protocols=["a", "b"])
    talkers = Talker(client, says, max_bytes), Talker(server, says, max_bytes)
    converse(*talkers, itertools.cycle(sizes))
    for talker in talkers:
        assert talker.failure is None
        assert talker.heard == whole
        assert talker.ended
        info = talker.engine.info
        assert info is not None
        assert (info.protocol, info.server_name, info.alpn_protocol) == (version, "localhost", None)


@each_version
@pytest.mark.parametrize("receiver", ["client", "server"])
@many
@given(position=st.integers(0, 3500), mask=st.integers(1, 255), size=st.sampled_from([40, 1 << 20]))
def test_a_changed_byte_is_a_typed_error_or_does_not_matter(
    version: str, receiver: str, position: int, mask: int, size: int
) -> None:
    client, server = engines(version)
    talkers = {"client": Talker(client, [b"from the client"]), "server": Talker(server, [b"from the server"])}
    seen = 0

    def change(talker: Talker, data: bytes) -> bytes:
        nonlocal seen
        if talker is talkers[receiver]:
            return data
        at, seen = position - seen, seen + len(data)
        if not 0 <= at < len(data):
            return data
        return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]

    converse(talkers["client"], talkers["server"], itertools.repeat(size), change)
    for talker, said in ((talkers["client"], b"from the server"), (talkers["server"], b"from the client")):
        # What is heard is what was said, or nothing; and only after all of it there is an orderly end.
        assert talker.heard in (said, b"")
        assert talker.ended == (talker.failure is None)
        assert talker.heard == said or not talker.ended


@each_version
@pytest.mark.parametrize("server_side", [False, True])
@few
@given(
    garbage=st.binary(max_size=300),
    whole=st.booleans(),
    start=st.sampled_from([b"", b"\x16\x03\x03\x00\x30", b"\x15\x03\x03\x00\x02"]),
)
def test_garbage_is_a_typed_error_at_the_latest_when_it_ends(
    version: str, server_side: bool, garbage: bytes, whole: bool, start: bytes
) -> None:
    engine = engines(version)[server_side]
    pieces = [start + garbage] if whole else [bytes([byte]) for byte in start + garbage]
    with pytest.raises(tls.ConnectionFailed) as caught:
        for piece in [*pieces, b""]:
            engine.do_handshake()
            engine.feed(piece)
        engine.do_handshake()
    with pytest.raises(tls.ConnectionFailed) as again:
        engine.do_handshake()
    assert (type(again.value), again.value.args) == (type(caught.value), caught.value.args)


# The order of things


def test_before_the_handshake_there_is_no_data() -> None:
    for engine in engines():
        assert engine.info is None
        for call in (engine.read, lambda: engine.write(b"x"), engine.shutdown):  # noqa: B023 - called in this turn of the loop
            with pytest.raises(NeedHandshakeError):
                call()
    client, server = engines()
    shake_hands(client, server)  # and nothing is broken by it


def test_a_client_speaks_first_and_only_when_it_is_asked_to() -> None:
    client, server = engines()
    assert client.drain() == server.drain() == b""
    assert server.do_handshake() is Want.READ
    assert server.drain() == b""
    assert client.do_handshake() is Want.READ
    assert client.drain()[:2] == b"\x16\x03"
    assert client.drain() == b""


@each_version
def test_a_finished_handshake_stays_finished(version: str) -> None:
    for engine in connected(version):
        assert engine.do_handshake() is engine.info is not None


@each_version
def test_data_goes_both_ways_and_is_counted(version: str) -> None:
    client, server = connected(version)
    client.write(b"question")
    server.write(b"answer")
    exchange(client, server)
    assert server.read() == b"question"
    assert client.read() == b"answer"
    assert client.read() is server.read() is Want.READ
    assert (client.plaintext_sent, client.plaintext_received) == (8, 6)
    assert (server.plaintext_sent, server.plaintext_received) == (6, 8)
    assert client.ciphertext_sent == server.ciphertext_received > 8
    assert server.ciphertext_sent == client.ciphertext_received > 6


@each_version
def test_goodbye_is_said_once_and_reading_goes_on(version: str) -> None:
    client, server = connected(version)
    server.write(b"tickets are out of the way")
    exchange(client, server)
    client.read()
    client.shutdown()
    assert client.close_notify_sent
    assert len(client.drain()) in (24, 31)
    client.shutdown()
    assert client.drain() == b""
    server.write(b"the answer")
    exchange(client, server)
    assert client.read() == b"the answer"


@each_version
def test_after_the_peers_goodbye_there_is_an_end_for_ever(version: str) -> None:
    client, server = connected(version)
    server.write(b"the last word")
    server.shutdown()
    exchange(client, server)
    assert client.read() == b"the last word"
    assert client.read() == client.read() == b""
    client.feed(b"")
    assert client.read() == b""


@each_version
@pytest.mark.feature("C24")
def test_an_end_without_goodbye_is_an_error_unless_it_is_to_be_tolerated(version: str) -> None:
    client, server = connected(version, https_compatible=True)
    client.feed(b"")
    assert client.read() == b""
    server.feed(b"")
    for _ in range(2):
        with pytest.raises(tls.TruncationError):
            server.read()


@pytest.mark.parametrize(("server_side", "who"), [(False, "the connection"), (True, "the client")])
@pytest.mark.parametrize("sent", [0, 5, 60])
def test_an_end_during_the_handshake_is_a_lost_connection(server_side: bool, who: str, sent: int) -> None:
    client, server = engines()
    engine, peer = (server, client) if server_side else (client, server)
    client.do_handshake()
    if not server_side:
        server.feed(client.drain())
        server.do_handshake()
    engine.feed(peer.drain()[:sent])
    engine.feed(b"")
    for _ in range(2):
        with pytest.raises(tls.ConnectionLost, match=who):
            engine.do_handshake()


@each_version
def test_a_failure_is_repeated_as_a_new_instance_and_its_alert_can_be_drained(version: str) -> None:
    client, server = connected(version)
    server.feed(b"\x17\x03\x03\x00\x20" + bytes(32))
    calls: list[Callable[[], object]] = [server.read, server.read, lambda: server.write(b"x")]
    errors: list[tls.ConnectionFailed] = []
    for call in calls:
        with pytest.raises(tls.ProtocolError) as caught:
            call()
        errors.append(caught.value)
    assert len(set(map(id, errors))) == 3
    assert {(error.code, error.args) for error in errors} == {(errors[0].code, errors[0].args)}
    assert server._error is not None
    assert server._error.__traceback__ is None
    client.feed(server.drain())
    with pytest.raises(tls.PeerAlert) as alerted:
        client.read()
    assert alerted.value.alert is tls.Alert.bad_record_mac


# Bytes


@pytest.mark.parametrize("data", ["text", None, 5])
def test_what_is_not_bytes_is_refused_and_costs_nothing(data: Any) -> None:
    client, server = connected()
    with pytest.raises(TypeError):
        client.write(data)
    with pytest.raises(TypeError):
        server.feed(data)
    client.write(b"fine")
    exchange(client, server)
    assert server.read() == b"fine"


@pytest.mark.parametrize("max_bytes", [0, -1])
def test_a_limit_that_makes_no_sense_is_refused_and_costs_nothing(max_bytes: int) -> None:
    client, server = connected()
    client.write(b"fine")
    exchange(client, server)
    with pytest.raises(ValueError, match="max_bytes"):
        server.read(max_bytes)
    assert server.read(2) == b"fi"
    assert server.read(1 << 40) == b"ne"


def every_second_byte(data: bytes) -> memoryview:
    doubled = bytearray(2 * len(data))
    doubled[::2] = data
    return memoryview(doubled)[::2]


@pytest.mark.parametrize(
    "kind",
    [
        bytes,
        bytearray,
        memoryview,
        every_second_byte,
        lambda data: memoryview(data).cast("B", (1, len(data))),
    ],
)
@pytest.mark.parametrize("size", [4, 50_000])
def test_bytes_of_every_kind_go_in(kind: Callable[[bytes], bytes], size: int) -> None:
    client, server = connected()
    data = bytes(index % 251 for index in range(size))
    client.write(kind(data))
    server.feed(kind(client.drain()))
    assert read_all(server) == data


@pytest.mark.parametrize("size", [100, 100_000, 600_000])
def test_what_was_fed_may_be_overwritten_at_once(size: int) -> None:
    client, server = connected()
    data = bytes(index % 251 for index in range(size))
    client.write(data)
    ciphertext = client.drain()
    half = len(ciphertext) // 2
    buffer = bytearray(len(ciphertext))
    for piece in (ciphertext[:half], ciphertext[half:]):
        buffer[: len(piece)] = piece
        server.feed(memoryview(buffer)[: len(piece)])
        buffer[:] = b"\xff" * len(buffer)
        buffer.append(0)
        del buffer[-1]
    assert read_all(server) == data


@each_version
@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 256 * 1024, 1_000_000])
def test_any_amount_is_written_and_read_whole(version: str, size: int) -> None:
    client, server = connected(version)
    data = bytes(index * 7 % 251 for index in range(size))
    client.write(data)
    ciphertext = client.drain()
    records = -(-size // 16384)
    assert len(ciphertext) == size + records * (29 if version == "TLSv1.2" else 22)
    server.feed(ciphertext)
    assert read_all(server) == data


def test_writing_nothing_says_nothing() -> None:
    client, _ = connected()
    client.write(b"")
    assert client.drain() == b""


def test_writes_that_are_not_drained_wait_in_order() -> None:
    client, server = connected()
    for part in (b"a" * 600_000, b"b", b"c" * 600_000):
        client.write(part)
    client.shutdown()
    server.feed(client.drain())
    assert client.drain() == b""
    assert read_all(server) == b"a" * 600_000 + b"b" + b"c" * 600_000
    assert server.read() == b""


def test_what_was_fed_can_be_read_byte_by_byte_with_others_in_between() -> None:
    client, server = connected()
    other_client, other_server = connected()
    data = bytes(index % 251 for index in range(60_000))
    client.write(data)
    ciphertext = client.drain()
    server.feed(ciphertext[:50_000])
    received = b""
    for _ in range(1500):
        byte = server.read(1)
        assert isinstance(byte, bytes)
        received += byte
        if len(received) % 500 == 0:
            other_client.write(b"\xee" * 40_000)
            other_server.feed(other_client.drain())
            assert read_all(other_server) == b"\xee" * 40_000
    server.feed(ciphertext[50_000:50_001])
    server.feed(ciphertext[50_001:])
    assert received + read_all(server, 7000) == data


def test_data_that_comes_with_the_last_message_of_the_handshake_is_not_lost() -> None:
    client, server = engines("TLSv1.3")
    client.do_handshake()
    server.feed(client.drain())
    server.do_handshake()
    client.feed(server.drain())
    client.do_handshake()
    client.write(bytes(100_000))
    client.shutdown()
    server.feed(client.drain())
    server.do_handshake()
    assert read_all(server) == bytes(100_000)
    assert server.read() == b""


@pytest.mark.parametrize("hold", [False, True])
def test_tickets_can_be_held_until_there_is_something_to_go_with(hold: bool) -> None:
    client, server = engines("TLSv1.3")
    client.do_handshake()
    server.feed(client.drain())
    server.do_handshake()
    client.feed(server.drain())
    client.do_handshake()
    server.feed(client.drain())
    server.do_handshake()
    tickets = bytes(server.collect(hold=hold))
    assert bool(tickets) == (not hold)
    server.write(b"x")
    last = server.drain()
    assert len(last) > 300 if hold else len(last) < 30
    client.feed(tickets + last)
    assert client.read() == b"x"


# A server's choice


def hello_of(client: Engine) -> bytes:
    client.do_handshake()
    return client.drain()


def test_a_server_stops_at_the_hello_and_lets_its_user_choose() -> None:
    client = Engine(client_context(), server_name="other.example", alpn_protocols=["h2", "http/1.1"])
    server = Engine(server_context(), server_side=True)
    assert server.read_client_hello() is Want.READ
    server.feed(hello_of(client))
    assert server.read_client_hello() is server.read_client_hello() is server.client_hello is not None
    assert server.undecided
    assert server.drain() == b""
    assert server.server_name == "other.example"
    other = server_context(name="other.example")
    server.choose(other, alpn_protocol="http/1.1", request_cert=True, reject_unauthorized=False)
    assert server.context is other
    shake_hands(client, server)
    assert client.info is not None
    assert server.info is not None
    assert client.info.alpn_protocol == server.info.alpn_protocol == "http/1.1"
    assert client.info.authorized
    # It was asked for one and has none.
    assert server.info.authorization_error is not None
    assert server.info.authorization_error.code == "UNABLE_TO_GET_ISSUER_CERT"


def test_a_server_that_is_told_nothing_goes_on_with_its_own_context_and_protocols() -> None:
    client = Engine(client_context(), host="localhost", alpn_protocols=["h2", "http/1.1"])
    server = Engine(server_context(), server_side=True, alpn_protocols=["http/1.1", "h2"])
    shake_hands(client, server)
    assert client.info is not None
    assert client.info.alpn_protocol == "http/1.1"


def test_a_refusal_before_a_choice_is_an_alert_in_the_clear() -> None:
    client, server = engines()
    server.feed(hello_of(client))
    server.read_client_hello()
    refusal = tls.ProtocolError("not today", code="ERR_NOT_TODAY")
    for _ in range(2):
        with pytest.raises(tls.ProtocolError) as caught:
            server.refuse(refusal, tls.Alert.access_denied)
        assert caught.value is not refusal
        assert caught.value.code == "ERR_NOT_TODAY"
    assert server.drain() == b"\x15\x03\x03\x00\x02\x02\x31"
    with pytest.raises(tls.ProtocolError, match="not today"):
        server.do_handshake()
    client.feed(b"\x15\x03\x03\x00\x02\x02\x31")
    with pytest.raises(tls.PeerAlert) as alerted:
        client.do_handshake()
    assert alerted.value.alert is tls.Alert.access_denied


@pytest.mark.parametrize("size", [1, 7])
def test_an_alert_is_no_way_to_begin(size: int) -> None:
    server = Engine(server_context(), server_side=True)
    alert = tls.Alert.handshake_failure.plaintext_record()
    with pytest.raises(tls.ProtocolError):
        for at in range(0, len(alert), size):
            server.feed(alert[at : at + size])
            assert server.do_handshake() is Want.READ
    assert server.drain() == tls.Alert.unexpected_message.plaintext_record()


def test_a_hello_is_understood_one_byte_at_a_time() -> None:
    client, server = engines(alpn_protocols=["h2"])
    *most, last = hello_of(client)
    for byte in most:
        server.feed(bytes([byte]))
        assert server.do_handshake() is Want.READ
        assert server.client_hello is None
    server.feed(bytes([last]))
    shake_hands(client, server)
    assert server.client_hello is not None
    assert server.client_hello.alpn_protocols == ("h2",)
    assert server.ciphertext_received == client.ciphertext_sent


def test_the_server_name_is_the_one_that_was_sent() -> None:
    client = Engine(client_context(), host="LocalHost", check_server_identity=lambda *_: None)
    server = Engine(server_context(), server_side=True)
    shake_hands(client, server)
    assert server.info is not None
    assert server.info.server_name == server.server_name == client.server_name == "LocalHost"


# What is no TLS

FIRST_FLIGHTS = [
    (True, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "an HTTP request", "ERR_SSL_HTTP_REQUEST"),
    (True, b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH banner", "ERR_SSL_WRONG_VERSION_NUMBER"),
    (True, b"EHLO mail.example\r\n", "an SMTP command", "ERR_SSL_WRONG_VERSION_NUMBER"),
    (False, b"HTTP/1.1 400 Bad Request\r\n\r\n", "an HTTP response", "ERR_SSL_WRONG_VERSION_NUMBER"),
    (False, b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH banner", "ERR_SSL_WRONG_VERSION_NUMBER"),
    (False, b"220 mail.example ESMTP\r\n", None, "ERR_SSL_WRONG_VERSION_NUMBER"),
    (True, b"\x00\x01\x02\x03\x04\x05\x06\x07\x08", "no TLS record", "ERR_SSL_WRONG_VERSION_NUMBER"),
    (False, b"\x00\x01\x02\x03\x04\x05\x06\x07\x08", "no TLS record", "ERR_SSL_WRONG_VERSION_NUMBER"),
]


@pytest.mark.feature("G11")
@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(("server_side", "flight", "what", "code"), FIRST_FLIGHTS)
def test_what_is_no_tls_is_named_whatever_the_pieces(
    server_side: bool, flight: bytes, what: str | None, code: str, size: int
) -> None:
    engine = engines()[server_side]
    with pytest.raises(tls.NotTLS) as caught:
        for at in range(0, len(flight), size):
            engine.do_handshake()
            engine.feed(flight[at : at + size])
        engine.do_handshake()
    error = caught.value
    assert error.code == code
    assert what is None or error.looks_like == what
    assert error.looks_like in str(error)
    assert flight[:32].startswith(error.first_bytes)
    assert len(error.first_bytes) >= 8


@pytest.mark.parametrize("server_side", [False, True])
def test_a_few_bytes_of_something_else_are_refused_when_they_end(server_side: bool) -> None:
    engine = engines()[server_side]
    engine.do_handshake()
    engine.feed(b"hello\n")
    assert engine.do_handshake() is Want.READ
    engine.feed(b"")
    with pytest.raises(tls.NotTLS) as caught:
        engine.do_handshake()
    assert caught.value.looks_like == "no TLS record"


# Hellos made by hand


def vector(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width) + content


def u16s(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(2) for number in numbers)


X25519, P256 = 0x001D, 0x0017
P256_SHARE = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
)


def client_hello(
    name: bytes | None = b"localhost",
    share: tuple[int, bytes] = (X25519, bytes(range(32))),
    *more: tuple[int, bytes],
    protocols: tuple[bytes, ...] = (b"h2", b"http/1.1"),
    suites: tuple[int, ...] = (0x1301,),
) -> bytes:
    """Build a hello of TLS 1.3 that OpenSSL takes, in records."""
    extensions = [
        (10, vector(2, u16s(X25519, P256))),
        (13, vector(2, u16s(0x0403, 0x0804))),
        (16, vector(2, b"".join(vector(1, protocol) for protocol in protocols))),
        (43, vector(1, u16s(0x0304))),
        (51, vector(2, u16s(share[0]) + vector(2, share[1]))),
        *more,
    ]
    if name is not None:
        extensions.append((0, vector(2, b"\0" + vector(2, name))))
    body = b"\x03\x03" + bytes(32) + b"\0" + vector(2, u16s(*suites)) + b"\x01\0"
    body += vector(2, b"".join(u16s(kind) + vector(2, content) for kind, content in extensions))
    message = b"\x01" + vector(3, body)
    return b"".join(
        b"\x16\x03\x01" + vector(2, message[at : at + 16384]) for at in range(0, len(message), 16384)
    )


def openssl_answer(hello: bytes) -> bytes:
    """What OpenSSL's own server says to a hello, without us before it."""
    certificate = default_authority().good("localhost")
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(certificate.certificate)
    key = load_pem_private_key(certificate.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    context.use_privatekey(key)
    server = SSL.Connection(context)
    server.set_accept_state()
    server.bio_write(hello)
    with pytest.raises(SSL.WantReadError):
        server.do_handshake()
    return server.bio_read(1 << 16)


def is_server_hello(answer: bytes) -> bool:
    return answer[0] == 22 and answer[5] == 2 and answer[11:43] != RETRY_RANDOM


ACCEPTED_BY_OPENSSL = {
    "a hello of 71 KB": (
        # So many suites, and an extension that nobody knows.
        lambda: client_hello(
            b"localhost", (X25519, bytes(range(32))), (0xFF02, bytes(60_000)), suites=(0x1301,) * 5_500
        ),
        tls.Alert.decode_error,
    ),
    "a name with byte E9": (lambda: client_hello(b"caf\xe9.example"), tls.Alert.unrecognized_name),
}


@pytest.mark.parametrize(("make", "alert"), ACCEPTED_BY_OPENSSL.values(), ids=ACCEPTED_BY_OPENSSL.keys())
@pytest.mark.parametrize("size", [1 << 20, 1000, 1])
def test_a_hello_that_no_choice_could_be_made_for_is_never_served(
    make: Callable[[], bytes], alert: tls.Alert, size: int
) -> None:
    hello = make()
    assert is_server_hello(openssl_answer(hello))
    server = Engine(server_context(), server_side=True)
    with pytest.raises(tls.ProtocolError):
        for at in range(0, len(hello), size):
            server.feed(hello[at : at + size])
            assert server.read_client_hello() is Want.READ
    assert server.client_hello is None
    assert server.info is None
    assert server.drain() == bytes((21, 3, 3, 0, 2, 2, alert))
    for call in (server.do_handshake, server.read_client_hello):
        with pytest.raises(tls.ProtocolError):
            call()
    assert server.drain() == b""


def test_what_openssl_refuses_too_has_its_verdict_and_its_alert() -> None:
    hello = client_hello(None, (X25519, bytes(range(32))), (0, b"\0\0"))
    server = Engine(server_context(), server_side=True)
    server.feed(hello)
    with pytest.raises(tls.ProtocolError) as caught:
        server.do_handshake()
    assert caught.value.code.startswith("ERR_SSL_")
    assert server.drain() == tls.Alert.decode_error.plaintext_record()
    assert server.info is None


# HelloRetryRequest


@pytest.mark.feature("F9")
def test_a_client_without_the_right_share_is_asked_again() -> None:
    client = Engine(client_context(groups="X25519:P-256"), host="localhost")
    server = Engine(server_context(groups="P-256"), server_side=True)
    server.feed(hello_of(client))
    server.do_handshake()
    retry = server.drain()
    assert retry[11:43] == RETRY_RANDOM
    client.feed(retry)
    shake_hands(client, server)
    client.write(b"question")
    exchange(client, server)
    assert server.read() == b"question"
    assert server.info is not None
    assert server.info.server_name == "localhost"


def answer_to_second_hello(second: bytes) -> tuple[Engine, bytes]:
    """What a server that knows P-256 alone says to a second hello, after it has asked for that."""
    server = Engine(server_context(groups="P-256"), server_side=True, alpn_protocols=["h2"])
    server.feed(client_hello())
    assert server.do_handshake() is Want.READ
    assert server.drain()[11:43] == RETRY_RANDOM
    server.feed(second)
    with contextlib.suppress(tls.ProtocolError):
        server.do_handshake()
    return server, server.drain()


def test_a_second_hello_that_names_the_same_host_is_served() -> None:
    _, answer = answer_to_second_hello(client_hello(share=(P256, P256_SHARE)))
    assert is_server_hello(answer)


@pytest.mark.parametrize("name", [b"other.example", b"localhosT", None])
def test_a_second_hello_that_names_another_host_is_refused(name: bytes | None) -> None:
    server, answer = answer_to_second_hello(client_hello(name, (P256, P256_SHARE)))
    assert answer == tls.Alert.illegal_parameter.plaintext_record()
    with pytest.raises(tls.ProtocolError, match="server name") as caught:
        server.do_handshake()
    assert caught.value.code == "ERR_SSL_BAD_EXTENSION"
    assert server.info is None


def test_a_second_hello_that_offers_no_longer_what_was_chosen_is_refused() -> None:
    server, answer = answer_to_second_hello(
        client_hello(b"localhost", (P256, P256_SHARE), protocols=(b"http/1.1",))
    )
    assert answer == tls.Alert.no_application_protocol.plaintext_record()
    with pytest.raises(tls.ProtocolError):
        server.do_handshake()
    assert server.info is None


# Options


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"server_name": "192.0.2.1"}, "server_name"),
        ({"server_name": "::1"}, "server_name"),
        ({"host": 5}, "host"),
        ({"server_name": b"localhost"}, "server_name"),
        ({"host": "bücher..example"}, "host"),
        ({"check_server_identity": None}, "check_server_identity"),
        ({"alpn_protocols": "h2"}, "alpn_protocols"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(options: dict[str, Any], option: str) -> None:
    with pytest.raises(tls.ConfigurationError) as caught:
        Engine(client_context(), **options)
    assert caught.value.option == option
    with pytest.raises(tls.ConfigurationTypeError, match="SecureContext"):
        Engine(None, **options)  # type: ignore[arg-type]


@pytest.mark.feature("A4")
@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"host": "localhost"}, "localhost"),
        ({"host": "localhost."}, "localhost"),
        ({"host": "127.0.0.1"}, None),
        ({"host": "::1"}, None),
        ({"host": "fe80::1%eth0"}, None),
        ({"host": "127.0.0.1", "server_name": "localhost"}, "localhost"),
        ({"host": "other.example", "server_name": "localhost"}, "localhost"),
        ({"host": "localhost", "server_name": ""}, None),
        ({"host": "bücher.example"}, "xn--bcher-kva.example"),
        ({}, "localhost"),
    ],
)
def test_the_name_is_sent_if_it_is_one(options: Any, sent: str | None) -> None:
    client = Engine(client_context(), **options)
    server = Engine(server_context(), server_side=True)
    assert client.server_name == sent
    server.feed(hello_of(client))
    hello = server.read_client_hello()
    assert not isinstance(hello, Want)
    assert hello.server_name == server.server_name == sent


# What OpenSSL leaves to us


@pytest.mark.feature("A5")
@pytest.mark.parametrize("suite", ["ADH-AES256-GCM-SHA384", "AECDH-AES256-SHA"])
def test_a_server_that_shows_no_certificate_is_refused_though_the_suite_asks_for_none(suite: str) -> None:
    anonymous = {"ciphers": f"{suite}:@SECLEVEL=0"}
    server = Engine(server_context("TLSv1.2", dhparam="auto", **anonymous), server_side=True)
    client = Engine(client_context("TLSv1.2", **anonymous), host="localhost")
    with pytest.raises(tls.CertificateError, match="no certificate"):
        shake_hands(client, server)
    server.feed(client.drain())
    assert server.read() == b""
    with pytest.raises(tls.CertificateError, match="no certificate"):
        client.do_handshake()


def test_a_server_that_shows_no_certificate_may_be_tolerated() -> None:
    anonymous = {"ciphers": "AECDH-AES256-SHA:@SECLEVEL=0"}
    server = Engine(server_context("TLSv1.2", **anonymous), server_side=True)
    client = Engine(client_context("TLSv1.2", **anonymous), host="localhost", reject_unauthorized=False)
    shake_hands(client, server)
    assert client.info is not None
    assert not client.info.authorized
    assert client.info.authorization_error is not None


@pytest.mark.feature("A6")
def test_an_async_check_of_the_identity_refuses() -> None:
    async def check(_host: str, _certificate: tls.Certificate | None) -> None:
        pass

    client, server = engines(check_server_identity=check)
    with pytest.raises(tls.IdentityError, match="async") as caught:
        shake_hands(client, server)
    assert isinstance(caught.value.__cause__, TypeError)


@each_version
@pytest.mark.parametrize("role", ["client", "server"])
def test_a_goodbye_in_the_handshake_is_a_hang_up(version: str, role: str) -> None:
    client, server = engines(version)
    client.do_handshake()
    engine = client
    if role == "server":
        server.feed(client.drain())
        server.do_handshake()
        engine = server
    engine.feed(bytes.fromhex("15030300020100"))
    for _ in range(2):
        with pytest.raises(tls.ConnectionLost, match="before") as caught:
            engine.do_handshake()
        assert caught.value.code == "ECONNRESET"


def test_a_goodbye_confirms_too() -> None:
    client, server = connected("TLSv1.2")
    assert client.confirm() is Want.READ
    server.shutdown()
    client.feed(server.drain())
    assert client.confirm() is True


@pytest.mark.parametrize("option", ["host", "server_name"])
@pytest.mark.parametrize(
    "name", [".", "a" * 256, "a\0.example", "a b.example", "a\n.example"], ids=["dot", "long", *"0 n"]
)
def test_a_name_that_cannot_be_sent_is_refused(option: str, name: str) -> None:
    options: dict[str, Any] = {option: name}
    with pytest.raises(tls.ConfigurationError, match="no host name") as caught:
        Engine(client_context(), **options)
    assert caught.value.option == option


def test_an_engine_that_was_released_keeps_nothing_of_what_its_peer_sent() -> None:
    client, _ = engines()
    client.do_handshake()
    server = Engine(server_context(), server_side=True, alpn_protocols=["h2"])
    server.feed(client.drain() + bytes(100_000))
    server.read_client_hello()
    server.feed(bytes(100_000))
    server.release()
    assert server._reader is not None
    assert not server._reader.received
    assert not server.early


def test_an_interrupt_in_the_check_of_the_identity_comes_through() -> None:
    def check(_host: str, _certificate: tls.Certificate | None) -> None:
        raise KeyboardInterrupt

    client, server = engines(check_server_identity=check)
    with pytest.raises(KeyboardInterrupt):
        shake_hands(client, server)
    with pytest.raises(tls.ProtocolError, match="certificate verify failed"):
        client.do_handshake()
