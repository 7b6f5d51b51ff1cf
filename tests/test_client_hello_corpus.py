"""ClientHellos as they come: recorded ones, what becomes of them when they are changed, and the limits.

The judges are tshark, which reads the same hellos, and OpenSSL: no hello that OpenSSL answers may get by
without a choice for the very name that OpenSSL sees.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, NamedTuple

import pytest
from client_hellos import expected, ja4, read_by_tshark, recorded
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from OpenSSL._util import ffi, lib

from trio_tlsnode import Alert, ClientHello, ConnectionFailed, Engine, SecureContext, Want
from trio_tlsnode.client_hello import ClientHelloReader, MalformedClientHello
from trio_tlsnode.iana import CIPHER_SUITES, SIGNATURE_SCHEMES
from trio_tlsnode.testing import default_authority

pytestmark = pytest.mark.feature("G4")

RECORDED = recorded()
EXPECTED = expected()
LIMIT = 32 * 1024

HANDSHAKE_RECORD, CHANGE_CIPHER_SPEC = b"\x16", bytes.fromhex("140303000101")
# How a HelloRetryRequest is told from a ServerHello (RFC 8446, section 4.1.3).
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")

SERVER_NAME, ALPN, PRE_SHARED_KEY, EARLY_DATA, SUPPORTED_VERSIONS, KEY_SHARE = 0, 16, 41, 42, 43, 51
P256 = 0x0017

Extensions = list[tuple[int, bytes]]


def vector(width: int, content: bytes) -> bytes:
    """What TLS writes for variable-length data: its length in so many bytes, then the data."""
    return len(content).to_bytes(width) + content


def u16s(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(2) for number in numbers)


def records(message: bytes, size: int = 16384) -> bytes:
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + vector(2, piece) for piece in pieces)


def message(
    extensions: Iterable[tuple[int, bytes]],
    *,
    session_id: bytes = b"",
    suites: bytes = u16s(0x1301),
    compression: bytes = b"\0",
    version: int = 0x0303,
    random: bytes = bytes(32),
) -> bytes:
    body = version.to_bytes(2) + random + vector(1, session_id) + vector(2, suites) + vector(1, compression)
    body += vector(2, b"".join(u16s(kind) + vector(2, content) for kind, content in extensions))
    return b"\x01" + vector(3, body)


def with_extensions(hello: ClientHello, extensions: Extensions) -> bytes:
    """A hello as it was, but for its extensions."""
    return message(
        extensions,
        session_id=hello.session_id,
        suites=u16s(*hello.cipher_suites),
        compression=bytes(hello.compression_methods),
        version=hello.legacy_version,
        random=hello.random,
    )


def server_name(name: bytes) -> bytes:
    return vector(2, b"\0" + vector(2, name))


def alpn(*protocols: bytes) -> bytes:
    return vector(2, b"".join(vector(1, protocol) for protocol in protocols))


def read(flight: bytes) -> ClientHello:
    hello = ClientHelloReader().feed(flight)
    assert hello is not None
    return hello


def views(hello: ClientHello) -> dict[str, object]:
    """Everything that is made only when it is asked for."""
    properties = [name for name, value in vars(ClientHello).items() if isinstance(value, property)]
    return {name: getattr(hello, name) for name in properties}


# tshark

GREASED = message(
    [
        (0x0A0A, b""),
        (10, vector(2, u16s(0x1A1A, 0x11EC, 29))),
        (11, b"\x01\0"),
        (13, vector(2, u16s(0x2A2A, 0x0403))),
        (ALPN, alpn(b"\x3a\x3a", b"h2")),
        (SUPPORTED_VERSIONS, vector(1, u16s(0x4A4A, 0x0304))),
        (0xFAFA, b"\0"),
    ],
    suites=u16s(0x5A5A, 0x1301, 0xC02B),
)
MADE = {
    "nothing but what must be": message([], version=0x0301),
    "GREASE everywhere": GREASED,
    "a name alone": message([(SERVER_NAME, server_name(b"server.example"))]),
    "all that has a name": message([(13, vector(2, u16s(*SIGNATURE_SCHEMES)))], suites=u16s(*CIPHER_SUITES)),
}
FLIGHTS = RECORDED | {name: records(made) for name, made in MADE.items()}


@functools.cache
def tshark_reads(tshark: str) -> dict[str, dict[str, Any]]:
    return dict(zip(FLIGHTS, read_by_tshark(tshark, FLIGHTS.values()), strict=True))


@pytest.mark.parametrize("name", FLIGHTS)
def test_tshark_reads_the_same(tshark: str, name: str) -> None:
    facts = tshark_reads(tshark)[name]
    hello = read(FLIGHTS[name])
    assert hello.server_name == facts["server_name"]
    assert list(hello.alpn_protocols) == facts["alpn_protocols"]
    assert list(hello.supported_versions) == facts["supported_versions"]
    assert list(hello.cipher_suites) == facts["cipher_suites"]
    assert [kind for kind, _ in hello.extensions] == facts["extension_types"]
    assert list(hello.groups) == facts["groups"]
    assert list(hello.key_share_groups) == facts["key_share_groups"]
    assert list(hello.signature_algorithms) == facts["signature_algorithms"]
    assert (hello.random.hex(), hello.session_id.hex()) == (facts["random"], facts["session_id"])


@pytest.mark.parametrize("name", FLIGHTS)
def test_tshark_makes_the_same_fingerprints(tshark: str, name: str) -> None:
    facts = tshark_reads(tshark)[name]
    hello = read(FLIGHTS[name])
    assert (hello.ja3_text, hello.ja3) == (facts["ja3_text"], facts["ja3"])
    assert hello.ja4 == ja4(facts)
    if name in RECORDED:
        # Only newer ones have a JA4 of their own.
        assert hello.ja4 == facts.get("ja4", hello.ja4)


def test_numbers_have_the_names_that_tshark_knows(tshark: str) -> None:
    facts = tshark_reads(tshark)["all that has a name"]
    for fact, table, least in (
        ("cipher_suites", CIPHER_SUITES, 340),
        ("signature_algorithms", SIGNATURE_SCHEMES, 15),
    ):
        known = {
            number: name for number, name in zip(facts[fact], facts[f"{fact}_names"], strict=True) if name
        }
        assert known == {number: table[number] for number in known}
        assert len(known) > least


# What is recorded


def test_extensions_have_names_without_grease() -> None:
    hello = read(RECORDED["openssl_s_client_psk"])
    assert hello.extension_names[:3] == ("server_name", "ec_point_formats", "supported_groups")
    assert hello.extension_names[-1] == "pre_shared_key"
    assert ClientHello.parse(GREASED).extension_names == (
        *("supported_groups", "ec_point_formats", "signature_algorithms"),
        *("application_layer_protocol_negotiation", "supported_versions"),
    )
    assert ClientHello.parse(message([(0x7777, b"")])).extension_names == ("0x7777",)


def test_what_each_kind_of_client_is_known_by() -> None:
    chromium = read(RECORDED["chromium"])
    assert {"encrypted_client_hello", "compress_certificate"} <= set(chromium.extension_names)
    assert chromium.group_names[0] == read(RECORDED["pyopenssl"]).group_names[0] == "X25519MLKEM768"
    assert read(RECORDED["chromium_no_name"]).server_name is None
    assert read(RECORDED["chromium_tls1_2"]).version_names == ("TLSv1.2",)
    assert read(RECORDED["curl_http1_1"]).alpn_protocols == ("http/1.1",)
    assert read(RECORDED["curl_tls1_2"]).alpn_protocols == ()
    assert read(RECORDED["openssl_s_client_old"]).version_names == ("TLSv1.1",)
    assert read(RECORDED["openssl_s_client_groups"]).group_names == (
        *("secp521r1", "x448", "ffdhe2048", "brainpoolP256r1"),
    )
    assert read(RECORDED["openssl_s_client_psk"]).psk_identities == (b"client",)


def test_only_what_makes_a_client_known_makes_its_fingerprint() -> None:
    ja4s = {name: facts["ja4"].split("_") for name, facts in EXPECTED.items()}
    assert ja4s["chromium"][1:] == ja4s["chromium_no_name"][1:]
    assert (ja4s["curl"][0][-2:], ja4s["curl_http1_1"][0][-2:]) == ("h2", "h1")
    assert ja4s["curl"][1:] == ja4s["curl_http1_1"][1:]
    assert (ja4s["node"][0][-2:], ja4s["node_https"][0][-2:]) == ("h2", "00")


# Changed hellos

Mutation = Callable[[st.DrawFn, bytearray], None]


def _place(draw: st.DrawFn, flight: bytearray) -> int:
    return draw(st.integers(0, max(len(flight) - 1, 0)))


def flip_a_bit(draw: st.DrawFn, flight: bytearray) -> None:
    if flight:
        flight[_place(draw, flight)] ^= 1 << draw(st.integers(0, 7))


def cut_out(draw: st.DrawFn, flight: bytearray) -> None:
    start = _place(draw, flight)
    del flight[start : start + draw(st.sampled_from([1, 2, 4, 40]))]


def cut_off(draw: st.DrawFn, flight: bytearray) -> None:
    del flight[_place(draw, flight) :]


def insert(draw: st.DrawFn, flight: bytearray) -> None:
    start = _place(draw, flight)
    flight[start:start] = draw(st.binary(min_size=1, max_size=8))


def append(draw: st.DrawFn, flight: bytearray) -> None:
    flight += draw(st.sampled_from([b"\0", b"\x17\x03\x03\0\x03abc", bytes.fromhex("15030300020100")]))


def _length_fields(flight: bytearray) -> list[int]:
    """Where the last bytes of the length fields are, as far as they can be followed."""
    places = [4, 8, 43]
    with contextlib.suppress(IndexError):
        at = 44 + flight[43]
        places.append(at + 1)
        at += 2 + int.from_bytes(flight[at : at + 2])
        places.append(at)
        at += 1 + flight[at]
        places.append(at + 1)
        at += 2
        while at < len(flight):
            # Of the extension, and of what most extensions begin with.
            places += [at + 3, at + 4, at + 5]
            at += 4 + int.from_bytes(flight[at + 2 : at + 4])
    return [place for place in places if place < len(flight)]


def change_a_length(draw: st.DrawFn, flight: bytearray) -> None:
    if places := _length_fields(flight):
        place = draw(st.sampled_from(places))
        flight[place] = (flight[place] + draw(st.sampled_from([-1, 1, 2, 128]))) % 256


def split_records(draw: st.DrawFn, flight: bytearray) -> None:
    end = 5 + int.from_bytes(flight[3:5])
    flight[:end] = records(bytes(flight[5:end]), draw(st.sampled_from([1, 3, 50, 500])))


NAMES = [
    *(server_name(b"other.example"), server_name(b"SERVER.example."), server_name(b"192.0.2.1")),
    *(server_name(b"caf\xe9.example"), server_name(b"server.example\0.evil"), server_name(b"")),
    *(server_name(b"a" * 255), server_name(b"a" * 256), server_name(b"a b"), b"", b"\0\0"),
    vector(2, b"\0" + vector(2, b"server.example") + b"\0" + vector(2, b"other.example")),
    vector(2, b"\1" + vector(2, b"server.example")),
    vector(2, b"\1" + vector(2, b"other") + b"\0" + vector(2, b"server.example")),
]


def rename(draw: st.DrawFn, extensions: Extensions) -> None:
    extensions[:] = [extension for extension in extensions if extension[0] != SERVER_NAME]
    extensions.insert(0, (SERVER_NAME, draw(st.sampled_from(NAMES))))


def remove(draw: st.DrawFn, extensions: Extensions) -> None:
    extensions.remove(draw(st.sampled_from(extensions)))


def repeat(draw: st.DrawFn, extensions: Extensions) -> None:
    extensions.insert(draw(st.integers(0, len(extensions))), draw(st.sampled_from(extensions)))


def shuffle(draw: st.DrawFn, extensions: Extensions) -> None:
    extensions[:] = draw(st.permutations(extensions))


def change_a_body(draw: st.DrawFn, extensions: Extensions) -> None:
    index = draw(st.integers(0, len(extensions) - 1))
    kind, body = extensions[index]
    changed = bytearray(body)
    draw(st.sampled_from([flip_a_bit, cut_out, insert]))(draw, changed)
    extensions[index] = (kind, bytes(changed))


def add_any(draw: st.DrawFn, extensions: Extensions) -> None:
    extensions.insert(0, (draw(st.integers(0, 60)), draw(st.binary(max_size=6))))


def change_extensions(draw: st.DrawFn, flight: bytearray) -> None:
    """Change the extensions so that all lengths around them stay right."""
    try:
        hello = ClientHelloReader().feed(flight)
    except MalformedClientHello:
        return
    if hello is None or not hello.extensions:
        return
    extensions = list(hello.extensions)
    draw(st.sampled_from([rename, remove, repeat, shuffle, change_a_body, add_any]))(draw, extensions)
    flight[: 5 + int.from_bytes(flight[3:5])] = records(with_extensions(hello, extensions))


MUTATIONS: list[Mutation] = [
    *(flip_a_bit, cut_out, cut_off, insert, append, change_a_length),
    *[change_extensions] * 4,
]


@st.composite
def changed(draw: st.DrawFn, flights: st.SearchStrategy[bytes]) -> bytes:
    flight = bytearray(draw(flights))
    for mutate in draw(st.lists(st.sampled_from(MUTATIONS), min_size=1, max_size=3)):
        mutate(draw, flight)
    if draw(st.booleans()):
        split_records(draw, flight)
    return bytes(flight)


recorded_flights = st.sampled_from(sorted(RECORDED)).map(lambda name: RECORDED[name])
sizes = st.sampled_from([1, 7, 100, 1 << 16])


def pieces_of(flight: bytes, size: int) -> list[bytes]:
    return [flight[at : at + size] for at in range(0, len(flight), size)]


def verdict(pieces: Iterable[bytes]) -> ClientHello | tuple[str, Alert | None] | None:
    """What a reader makes of pieces: a hello, the facts of its error, or None if it waits for more."""
    reader = ClientHelloReader()
    try:
        for piece in pieces:
            hello = reader.feed(piece)
            assert len(reader.received) <= LIMIT + len(piece)
            if hello is not None:
                return hello
    except MalformedClientHello as error:
        return error.reason, error.alert
    return None


@settings(max_examples=150)
@given(changed(recorded_flights), sizes)
def test_a_changed_hello_is_read_or_refused_whatever_the_pieces(flight: bytes, size: int) -> None:
    found = verdict(pieces_of(flight, size))
    assert found == verdict([flight])
    if isinstance(found, ClientHello):
        views(found)
        assert ClientHello.parse(with_extensions(found, list(found.extensions))) == found


# OpenSSL's view

CERTIFICATE = default_authority().good("server.example", "*.example")
OLD_TOO: dict[str, Any] = {"min_version": "TLSv1", "ciphers": "DEFAULT:@SECLEVEL=0"}


def context(**options: Any) -> SecureContext:
    return SecureContext(**CERTIFICATE.options, **OLD_TOO, **options)


class Choices:
    """Contexts by the names that they are for, and what is chosen of a hello's protocols."""

    def __init__(self, **options: Any) -> None:
        self.default, self.named, self.other = (context(**options) for _ in range(3))

    def context_for(self, name: str | None) -> SecureContext:
        return {None: self.default, "server.example": self.named}.get(name, self.other)

    def protocol_for(self, hello: ClientHello) -> str | None:
        return "http/1.1" if "http/1.1" in hello.alpn_protocols else None


CHOICES = Choices()
ONLY_P256 = Choices(groups="P-256")


class Answer(NamedTuple):
    """How a server has taken a first flight.

    Attributes:
        sent: What it said.
        refused: Whether it has given up.
        names: The names that OpenSSL saw.
    """

    sent: bytes
    refused: bool
    names: set[str | None]

    @property
    def accepted(self) -> bool:
        """Whether it has said something else than an alert."""
        return self.sent.startswith(HANDSHAKE_RECORD)


def step(engine: Engine, choices: Choices) -> None:
    """Go on as a server's stream does."""
    if engine.client_hello is None:
        hello = engine.read_client_hello()
        if isinstance(hello, Want):
            return
        engine.choose(choices.context_for(hello.server_name), alpn_protocol=choices.protocol_for(hello))
    engine.do_handshake()


def answer_of_engine(engine: Engine, pieces: Iterable[bytes], choices: Choices) -> Answer:
    sent = b""
    refused = False
    try:
        for piece in pieces:
            engine.feed(piece)
            step(engine, choices)
            sent += engine.drain()
    except ConnectionFailed:
        refused = True
    return Answer(sent + engine.drain(), refused, {seen_name(engine)})


def seen_name(engine: Engine) -> str | None:
    """The name that OpenSSL saw, or None, also if there is no ``SSL`` yet."""
    if engine._ssl is None:
        return None
    name = lib.SSL_get_servername(engine._ssl, lib.TLSEXT_NAMETYPE_host_name)
    return None if name == ffi.NULL else ffi.string(name).decode("latin-1")


@functools.cache
def openssl_context() -> SSL.Context:
    made = SSL.Context(SSL.TLS_SERVER_METHOD)
    made.use_certificate(CERTIFICATE.certificate)
    key = load_pem_private_key(CERTIFICATE.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    made.use_privatekey(key)
    made.set_min_proto_version(SSL.TLS1_VERSION)
    made.set_cipher_list(OLD_TOO["ciphers"].encode())
    made.set_session_id(b"test")
    made.set_tlsext_servername_callback(lambda server: seen_by_openssl[server].add(server.get_servername()))
    return made


# The names in the hellos of each connection.
seen_by_openssl: defaultdict[SSL.Connection, set[bytes | None]] = defaultdict(set)


def answer_of_openssl(flight: bytes) -> Answer:
    """What OpenSSL's own server says, without us before it."""
    server = SSL.Connection(openssl_context())
    server.set_accept_state()
    if flight:
        server.bio_write(flight)
    refused = False
    try:
        server.do_handshake()
    except SSL.WantReadError:
        pass
    except SSL.Error:
        refused = True
    sent = b""
    with contextlib.suppress(SSL.WantReadError):
        sent = server.bio_read(1 << 16)
    names = {None if name is None else name.decode("latin-1") for name in seen_by_openssl.pop(server, ())}
    return Answer(sent, refused, names)


def check_against_openssl(flight: bytes, size: int = 1 << 16) -> None:
    engine = Engine(CHOICES.default, server_side=True)
    ours = answer_of_engine(engine, pieces_of(flight, size), CHOICES)
    theirs = answer_of_openssl(flight)
    if ours.accepted:
        assert theirs.accepted
        assert engine.client_hello is not None
        name = engine.client_hello.server_name
        assert theirs.names == ours.names == {name}
        assert engine.context is CHOICES.context_for(name)
    elif theirs.accepted:
        assert ours.refused
        assert not ours.sent or ours.sent[0] == 21
    engine.release()


@pytest.mark.feature("B9")
@pytest.mark.parametrize("name", RECORDED)
def test_openssl_and_we_answer_the_recorded_hellos_for_the_same_name(name: str) -> None:
    check_against_openssl(RECORDED[name])
    assert answer_of_openssl(RECORDED[name]).accepted


@pytest.mark.feature("B9")
@settings(max_examples=150)
@given(changed(recorded_flights), sizes)
def test_no_changed_hello_is_answered_without_a_choice_for_the_name_that_openssl_sees(
    flight: bytes, size: int
) -> None:
    check_against_openssl(flight, size)


@pytest.mark.feature("B9")
@pytest.mark.parametrize("behind", [b"", b"\x17\x03\x03\0\x03abc", b"\0" * 10])
@pytest.mark.parametrize("size", [1, 1 << 16])
def test_nothing_behind_a_hello_makes_an_answer_to_it_leave(behind: bytes, size: int) -> None:
    hello = read(RECORDED["curl"])
    extensions = [(kind, body) for kind, body in hello.extensions if kind != SERVER_NAME]
    flight = records(with_extensions(hello, [(SERVER_NAME, server_name(b"caf\xe9.example")), *extensions]))
    assert answer_of_openssl(flight + behind).accepted
    engine = Engine(CHOICES.default, server_side=True)
    ours = answer_of_engine(engine, pieces_of(flight + behind, size), CHOICES)
    assert ours.refused
    assert ours.sent == Alert.unrecognized_name.plaintext_record()


# The second hello, after a HelloRetryRequest

P256_SHARE = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
)
ASKED_AGAIN = {
    name: flight
    for name, flight in RECORDED.items()
    if P256 in read(flight).groups and read(flight).key_share_groups and not read(flight).early_data
}


def asked_again(name: str) -> tuple[Engine, ClientHello]:
    """A server that has asked a recorded client for another key share, and its first hello."""
    engine = Engine(ONLY_P256.default, server_side=True)
    answer = answer_of_engine(engine, [ASKED_AGAIN[name]], ONLY_P256)
    assert answer.sent[11:43] == RETRY_RANDOM
    assert engine.client_hello is not None
    return engine, engine.client_hello


def second_hello(first: ClientHello, **changes: bytes | None) -> bytes:
    """What a client says when it is asked for its share of P-256.

    Args:
        first: What it said before.
        changes: The bodies of extensions that are different now, by the names of the constants; None leaves
            one out.
    """
    bodies = {kind: body for kind, body in first.extensions if kind not in (PRE_SHARED_KEY, EARLY_DATA)}
    bodies[KEY_SHARE] = vector(2, u16s(P256) + vector(2, P256_SHARE))
    for name, body in changes.items():
        kind = globals()[name]
        bodies.pop(kind, None)
        if body is not None:
            bodies[kind] = body
    return records(with_extensions(first, list(bodies.items())))


def second_answer(engine: Engine, second: bytes) -> Answer:
    answer = answer_of_engine(engine, [second], ONLY_P256)
    return answer._replace(sent=answer.sent.removeprefix(CHANGE_CIPHER_SPEC))


def selected_protocol(engine: Engine) -> str | None:
    data, length = ffi.new("unsigned char **"), ffi.new("unsigned int *")
    lib.SSL_get0_alpn_selected(engine._ssl, data, length)
    return bytes(ffi.buffer(data[0], length[0])).decode("latin-1") if length[0] else None


@pytest.mark.feature("B9")
@pytest.mark.parametrize("name", ASKED_AGAIN)
def test_a_second_hello_like_the_first_is_answered(name: str) -> None:
    engine, first = asked_again(name)
    assert second_answer(engine, second_hello(first)).accepted
    assert seen_name(engine) == first.server_name
    assert selected_protocol(engine) == ONLY_P256.protocol_for(first)


@pytest.mark.feature("B9")
@pytest.mark.parametrize("name", ["chromium", "curl", "node", "pyopenssl"])
@pytest.mark.parametrize(
    "changes",
    [
        {"SERVER_NAME": server_name(b"other.example")},
        {"SERVER_NAME": server_name(b"SERVER.example")},
        {"SERVER_NAME": server_name(b"server.example.")},
        {"SERVER_NAME": server_name(b"caf\xe9.example")},
        {"SERVER_NAME": server_name(b"server.example\0.evil")},
        {"SERVER_NAME": None},
        # What is left of it is a hello of TLS 1.2, in which a name is not looked at again.
        {"SERVER_NAME": server_name(b"other.example"), "SUPPORTED_VERSIONS": None},
        {"SERVER_NAME": server_name(b"other.example"), "SUPPORTED_VERSIONS": vector(1, u16s(0x0303))},
        {"SUPPORTED_VERSIONS": None},
    ],
    ids=["other", "case", "dot", "E9", "NUL", "none", "other, TLS 1.2", "other, TLS 1.2 again", "TLS 1.2"],
)
def test_a_second_hello_for_another_name_is_refused(name: str, changes: dict[str, bytes | None]) -> None:
    engine, first = asked_again(name)
    answer = second_answer(engine, second_hello(first, **changes))
    assert answer.refused
    assert answer.sent[:1] == b"\x15"
    assert engine.info is None


@pytest.mark.feature("B9")
@pytest.mark.parametrize("name", ["chromium_no_name", "openssl_s_client_no_name"])
def test_a_second_hello_may_not_bring_a_name(name: str) -> None:
    engine, first = asked_again(name)
    answer = second_answer(engine, second_hello(first, SERVER_NAME=server_name(b"server.example")))
    assert answer.sent == Alert.illegal_parameter.plaintext_record()


@pytest.mark.feature("B11")
@pytest.mark.parametrize("protocols", [alpn(b"h2"), alpn(b"http/1"), alpn(b"http/1.1x", b"x")])
@pytest.mark.parametrize("name", ["chromium", "curl", "node"])
def test_a_second_hello_may_not_take_back_the_protocol_that_was_chosen(name: str, protocols: bytes) -> None:
    engine, first = asked_again(name)
    answer = second_answer(engine, second_hello(first, ALPN=protocols))
    assert answer.refused
    assert answer.sent == Alert.no_application_protocol.plaintext_record()


@pytest.mark.feature("B11")
def test_protocols_that_only_the_second_hello_offers_are_not_chosen() -> None:
    engine, first = asked_again("node_https")
    assert second_answer(engine, second_hello(first, ALPN=alpn(b"http/1.1"))).accepted
    assert selected_protocol(engine) is None


@pytest.mark.feature("B9")
@settings(max_examples=100)
@given(st.data(), st.sampled_from(sorted(ASKED_AGAIN)))
def test_whatever_the_second_hello_is_the_name_stays(data: st.DataObject, name: str) -> None:
    engine, first = asked_again(name)
    second = data.draw(changed(st.just(second_hello(first))))
    if second_answer(engine, second).accepted:
        assert seen_name(engine) == first.server_name
        assert selected_protocol(engine) in (None, ONLY_P256.protocol_for(first))
    engine.release()


# The limits


def lines_run(function: Callable[[], object]) -> int:
    """How many lines a call runs."""
    count = 0

    def trace(_frame: FrameType, _event: str, _arg: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    # What others have left to be collected would be counted too.
    gc.disable()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


class CountedBytes(bytes):
    """Bytes that count how much is copied out of them, and out of what was copied."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if isinstance(found, int):
            return found
        CountedBytes.copied += len(found)
        return CountedBytes(found)


def bytes_copied(made: bytes) -> int:
    CountedBytes.copied = 0
    with contextlib.suppress(MalformedClientHello):
        ClientHello.parse(CountedBytes(made))
    return CountedBytes.copied


def identities(count: int) -> bytes:
    named = vector(2, (vector(2, b"name") + bytes(4)) * count)
    return named + vector(2, vector(1, bytes(32)) * count)


MANY: dict[str, Callable[[int], bytes]] = {
    "extensions": lambda count: message([(0x4000 + number, b"12") for number in range(count)]),
    "the same extension": lambda count: message([(0x7777, b"")] * count),
    "suites": lambda count: message([], suites=u16s(0x1301) * count),
    "groups": lambda count: message([(10, vector(2, u16s(29) * count))]),
    "signature algorithms": lambda count: message([(13, vector(2, u16s(0x0403) * count))]),
    "protocols": lambda count: message([(ALPN, alpn(*[b"h2"] * count))]),
    "key shares": lambda count: message([(KEY_SHARE, vector(2, (u16s(29) + vector(2, b"x")) * count))]),
    "identities": lambda count: message([(PRE_SHARED_KEY, identities(count))]),
}


def parse_and_view(made: bytes) -> None:
    with contextlib.suppress(MalformedClientHello):
        views(ClientHello.parse(made))


@pytest.mark.parametrize("what", MANY)
def test_parsing_takes_linear_time(what: str) -> None:
    def grown(measure: Callable[[bytes], int]) -> list[int]:
        least, twice, most = (measure(MANY[what](count)) for count in (100, 200, 400))
        return [twice - least, (most - twice) // 2]

    once, again = grown(lambda made: lines_run(lambda: parse_and_view(made)))
    assert again <= once + 1
    once, again = grown(bytes_copied)
    assert again <= once + 1


def test_a_hello_in_ten_thousand_pieces_takes_linear_time() -> None:
    def work(size: int) -> int:
        made = message([(0x7777, bytes(size - len(message([(0x7777, b"")]))))])
        reader = ClientHelloReader(limit=100_000)
        pieces = pieces_of(records(made), 6)
        return lines_run(lambda: [reader.feed(piece) for piece in pieces])

    half, whole = work(30_000), work(60_000)
    assert 1.9 * half < whole <= 2 * half + 100


def test_a_server_takes_linear_time_over_many_pieces() -> None:
    def work(size: int) -> int:
        made = message([(0x7777, bytes(size))])
        engine = Engine(CHOICES.default, server_side=True)
        pieces = pieces_of(records(made), 3)[:-1]

        def feed() -> None:
            for piece in pieces:
                engine.feed(piece)
                assert engine.read_client_hello() is Want.READ

        return lines_run(feed)

    half, whole = work(7_500), work(15_000)
    assert 1.9 * half < whole <= 2.1 * half


@pytest.mark.parametrize("size", [7, 1000])
@pytest.mark.parametrize(("announced", "record"), [(LIMIT - 20, 16384), (5450, 1)])
def test_memory_stays_within_the_limit(announced: int, record: int, size: int) -> None:
    *pieces, last = pieces_of(records(b"\x01" + vector(3, bytes(announced)), record), size)
    reader = ClientHelloReader()
    tracemalloc.start()
    try:
        for piece in pieces:
            assert reader.feed(piece) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert LIMIT - size - 60 < len(reader.received) <= LIMIT
    # What was received, the message out of its records, and what growing them takes for a moment.
    assert peak < 3 * LIMIT
    with pytest.raises(MalformedClientHello):
        reader.feed(last)
