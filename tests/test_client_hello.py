"""ClientHello: parsing, fingerprints, finding it in records, and naming what is no TLS.

The recordings of real clients, and what tshark has read in them, are those of client_hellos.py.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import trustme
from client_hellos import expected, recorded
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from OpenSSL._util import lib

from trio_tlsnode.alerts import Alert
from trio_tlsnode.client_hello import ClientHello, ClientHelloReader, MalformedClientHello, looks_like
from trio_tlsnode.iana import CIPHER_SUITES, GREASE, SIGNATURE_SCHEMES, SUPPORTED_GROUPS

pytestmark = pytest.mark.feature("G4")

EXPECTED = expected()
CERTIFICATE = trustme.CA().issue_cert("server.example")
RECORDED = recorded()

fuzzed = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def vector(width: int, content: bytes) -> bytes:
    """What TLS writes for variable-length data: its length in so many bytes, then the data."""
    return len(content).to_bytes(width) + content


def u16s(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(2) for number in numbers)


def message(
    *extensions: tuple[int, bytes],
    version: int = 0x0303,
    session_id: bytes = b"",
    suites: Sequence[int] = (0x1301,),
    compression: bytes = b"\0",
) -> bytes:
    """Build a ClientHello message; without extensions it has not even the length of their list."""
    body = version.to_bytes(2) + bytes(32)
    body += vector(1, session_id) + vector(2, u16s(*suites)) + vector(1, compression)
    if extensions:
        body += vector(2, b"".join(u16s(kind) + vector(2, content) for kind, content in extensions))
    return b"\x01" + vector(3, body)


def records(content: bytes, *sizes: int) -> bytes:
    """Put a message into records of these sizes, and what remains into records of the largest size."""
    out = b""
    for size in (*sizes, *[16384] * (len(content) // 16384 + 1)):
        if content:
            out += b"\x16\x03\x01" + vector(2, content[:size])
            content = content[size:]
    return out


def server_name(name: bytes) -> tuple[int, bytes]:
    return 0, vector(2, b"\0" + vector(2, name))


def alpn(*protocols: bytes) -> tuple[int, bytes]:
    return 16, vector(2, b"".join(vector(1, protocol) for protocol in protocols))


def first_flight(
    context: SSL.Context, configure: Callable[[SSL.Connection], object] = lambda _: None
) -> bytes:
    """What an OpenSSL client sends first."""
    client = SSL.Connection(context, None)
    client.set_connect_state()
    configure(client)
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    return client.bio_read(65536)


def read(first_flight: bytes) -> ClientHello:
    hello = ClientHelloReader().feed(first_flight)
    assert hello is not None
    return hello


def outcome(pieces: Iterable[bytes], limit: int = 32768) -> ClientHello | tuple[str, Alert | None] | None:
    """What a reader makes of pieces: a hello, the facts of its error, or None if it waits for more."""
    reader = ClientHelloReader(limit)
    try:
        return next(filter(None, map(reader.feed, pieces)), None)
    except MalformedClientHello as error:
        return error.reason, error.alert


def one_by_one(data: bytes | bytearray) -> list[bytes]:
    return [bytes([byte]) for byte in data]


def views(hello: ClientHello) -> list[object]:
    """Everything that is made only when it is asked for."""
    as_sent = {"cipher_suites", "extensions", "size"}
    properties = [name for name, value in vars(ClientHello).items() if isinstance(value, property)]
    return [getattr(hello, name) for name in properties if name not in as_sent]


# Hellos of real clients.


@pytest.mark.parametrize("name", EXPECTED)
def test_real_hellos_are_read_as_tshark_reads_them(name: str) -> None:
    hello = read(RECORDED[name])
    expected = EXPECTED[name]
    assert hello.server_name == expected["server_name"]
    assert list(hello.alpn_protocols) == expected["alpn_protocols"]
    assert list(hello.supported_versions) == expected["supported_versions"]
    assert list(hello.cipher_suites) == expected["cipher_suites"]
    assert [kind for kind, _ in hello.extensions] == expected["extension_types"]
    assert list(hello.groups) == expected["groups"]
    assert list(hello.key_share_groups) == expected["key_share_groups"]
    assert list(hello.signature_algorithms) == expected["signature_algorithms"]
    assert hello.random.hex() == expected["random"]
    assert hello.session_id.hex() == expected["session_id"]
    assert hello.ja3_text == expected["ja3_text"]
    assert hello.ja3 == expected["ja3"]
    assert hello.ja4 == expected["ja4"]
    assert hello.compression_methods == (0,)


@pytest.mark.parametrize("name", EXPECTED)
def test_everything_real_clients_offer_has_a_name(name: str) -> None:
    hello = read(RECORDED[name])
    all_names = (
        *hello.version_names,
        *hello.cipher_names,
        *hello.extension_names,
        *hello.group_names,
        *hello.signature_algorithm_names,
    )
    assert [text for text in all_names if text.startswith("0x")] == []


def test_names_are_those_of_iana_and_versions_those_of_openssl() -> None:
    hello = read(RECORDED["chromium"])
    assert hello.version_names == ("TLSv1.3", "TLSv1.2")
    assert hello.cipher_names[:4] == (
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    )
    assert hello.group_names == ("X25519MLKEM768", "x25519", "secp256r1", "secp384r1")
    assert hello.signature_algorithm_names[:4] == ("mldsa44", "mldsa65", "mldsa87", "ecdsa_secp256r1_sha256")
    assert read(RECORDED["openssl_s_client_tls1_2"]).cipher_names[-1] == "TLS_EMPTY_RENEGOTIATION_INFO_SCSV"


def test_a_number_without_a_name_is_its_own_name() -> None:
    hello = ClientHello.parse(message((10, vector(2, u16s(0x7777))), suites=[0x00FE], version=0x0305))
    assert hello.cipher_names == ("0x00fe",)
    assert hello.group_names == ("0x7777",)
    assert hello.version_names == ("0x0305",)


def test_what_clients_ask_for_beyond_the_choice_of_a_certificate() -> None:
    tls12 = read(RECORDED["openssl_s_client_tls1_2"])
    assert (tls12.requests_ocsp, tls12.session_ticket, tls12.psk_key_exchange_modes) == (True, b"", ())
    resuming = read(RECORDED["openssl_s_client_ticket"])
    assert resuming.session_ticket is not None
    assert len(resuming.session_ticket) == 176
    tls13 = read(RECORDED["openssl_s_client_tls1_3"])
    assert (tls13.post_handshake_auth, tls13.requests_ocsp, tls13.early_data) == (True, False, False)
    early = read(RECORDED["openssl_s_client_early_data"])
    assert (early.early_data, early.psk_key_exchange_modes) == (True, (1,))
    assert [len(identity) for identity in early.psk_identities] == [32]


# The value.


def test_a_hello_without_extensions_has_empty_views() -> None:
    hello = ClientHello.parse(message(version=0x0300, session_id=b"id", suites=[5, 4]))
    assert hello == ClientHello.parse(message(version=0x0300, session_id=b"id", suites=[5, 4]))
    assert (hello.legacy_version, hello.session_id, hello.cipher_suites) == (0x0300, b"id", (5, 4))
    assert (hello.server_name, hello.session_ticket) == (None, None)
    assert hello.supported_versions == (0x0300,)
    for name in (
        *("extensions", "alpn_protocols", "groups", "key_share_groups", "signature_algorithms"),
        *("ec_point_formats", "psk_identities", "psk_key_exchange_modes"),
    ):
        assert getattr(hello, name) == ()
    for name in ("requests_ocsp", "post_handshake_auth", "early_data"):
        assert getattr(hello, name) is False
    assert hello.ja3_text == "768,5-4,,,"


def test_it_is_a_frozen_value_that_can_be_hashed_and_pickled() -> None:
    hello = read(RECORDED["curl"])
    with pytest.raises(AttributeError):
        hello.server_name = "other.example"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(hello)) == hello
    assert len({hello, copy.copy(hello)}) == 1
    assert len(repr(hello)) < 200


@pytest.mark.parametrize(
    "name",
    ["server.example", "Server.EXAMPLE.", "192.0.2.1", "2001:db8::1", "xn--bcher-kva.example", "a" * 255],
)
def test_a_server_name_is_passed_on_as_sent(name: str) -> None:
    assert ClientHello.parse(message(server_name(name.encode()))).server_name == name


def test_bytes_of_a_protocol_are_its_characters() -> None:
    assert ClientHello.parse(message(alpn(b"h2", b"\x0a\xff"))).alpn_protocols == ("h2", "\x0a\xff")


def test_an_unknown_status_type_is_no_request_for_ocsp() -> None:
    assert not ClientHello.parse(message((5, b"\x02 whatever"))).requests_ocsp
    assert ClientHello.parse(message((5, b"\x01\0\x03abc\0\0"))).requests_ocsp


def test_pre_shared_keys_are_listed_in_order() -> None:
    identities = vector(2, b"first") + bytes(4) + vector(2, b"second") + bytes(4)
    body = vector(2, identities) + vector(2, vector(1, bytes(32)) + vector(1, bytes(48)))
    assert ClientHello.parse(message((41, body))).psk_identities == (b"first", b"second")


def test_grease_stays_only_in_what_is_raw() -> None:
    grease = sorted(GREASE)
    assert (len(grease), hex(grease[0]), hex(grease[-1])) == (16, "0xa0a", "0xfafa")
    plain = message(
        (0x0A, vector(2, u16s(29))),
        (0x0D, vector(2, u16s(0x0403))),
        (0x2B, vector(1, u16s(0x0304))),
        (0x33, vector(2, u16s(29) + vector(2, b"share"))),
    )
    greased = message(
        (0x1A1A, b""),
        (0x0A, vector(2, u16s(0x2A2A, 29))),
        (0x0D, vector(2, u16s(0x3A3A, 0x0403))),
        (0x2B, vector(1, u16s(0x4A4A, 0x0304))),
        (0x33, vector(2, u16s(0x2A2A) + vector(2, b"\0") + u16s(29) + vector(2, b"share"))),
        (0x5A5A, b"\0"),
        suites=[0x6A6A, 0x1301],
    )
    with_grease, without = ClientHello.parse(greased), ClientHello.parse(plain)
    assert with_grease.cipher_suites == (0x6A6A, 0x1301)
    assert [kind for kind, _ in with_grease.extensions] == [0x1A1A, 0x0A, 0x0D, 0x2B, 0x33, 0x5A5A]
    assert with_grease.supported_versions == (0x0304,)
    assert views(with_grease) == views(without)


# Fingerprints.


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (
            "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0",
            "ada70206e40642a3e4461f35503241d5",
        ),
        ("769,4-5-10-9-100-98-3-6-19-18-99,,,", "de350869b8c85de67a350c8d186f11e6"),
    ],
)
def test_ja3_is_that_of_its_published_examples(text: str, digest: str) -> None:
    version, suites, kinds, groups, formats = (
        [int(number) for number in part.split("-") if number] for part in text.split(",")
    )
    bodies = {0: server_name(b"x")[1], 10: vector(2, u16s(*groups)), 11: vector(1, bytes(formats))}
    hello = ClientHello.parse(
        message(*[(kind, bodies[kind]) for kind in kinds], version=version[0], suites=suites)
    )
    assert (hello.ja3_text, hello.ja3) == (text, digest)


def hex_numbers(text: str) -> list[int]:
    return [int(number, 16) for number in text.split(",")]


JA4_SUITES = hex_numbers("1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035")
JA4_EXTENSIONS = hex_numbers(
    "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015"
)
JA4_SIGNATURES = (0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)
JA4_BODIES = {
    0x0000: server_name(b"server.example")[1],
    0x0005: b"\x01\0\0\0\0",
    0x000A: vector(2, u16s(29)),
    0x000B: b"\x01\0",
    0x000D: vector(2, u16s(*JA4_SIGNATURES)),
    0x0010: alpn(b"h2", b"http/1.1")[1],
    0x002B: vector(1, u16s(0x0A0A, 0x0304, 0x0303)),
    0x002D: b"\x01\x01",
    0x0033: vector(2, u16s(29) + vector(2, b"share")),
}


def ja4_example(*kinds: int, suites: Sequence[int] = JA4_SUITES) -> str:
    return ClientHello.parse(
        message(*[(kind, JA4_BODIES.get(kind, b"")) for kind in kinds], suites=suites)
    ).ja4


def test_ja4_is_that_of_its_published_example() -> None:
    assert ja4_example(*JA4_EXTENSIONS) == "t13d1516h2_8daaf6152771_e5627efa2ab1"
    assert ja4_example(*reversed(JA4_EXTENSIONS)) == "t13d1516h2_8daaf6152771_e5627efa2ab1"


def test_ja4_without_signature_algorithms_is_that_of_its_published_example() -> None:
    bodies = {**JA4_BODIES, 0x000D: vector(2, u16s(0x0A0A))}
    extensions = [(kind, bodies.get(kind, b"")) for kind in JA4_EXTENSIONS]
    assert ClientHello.parse(message(*extensions)).ja4.endswith("_6d807ffa2a79")


def test_ja4_of_nothing_is_zeros() -> None:
    assert ja4_example(suites=[0x0A0A]) == "t12i000000_000000000000_000000000000"
    assert ja4_example(0x0000, 0x0010) == "t12d1502h2_8daaf6152771_000000000000"


def test_ja4_counts_to_99() -> None:
    kinds = range(1000, 1120)
    assert ja4_example(*kinds, suites=range(1, 200)).startswith("t12i999900_")


@pytest.mark.parametrize(
    ("protocol", "ends"),
    [
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"h", "hh"),
        (b"\xab", "ab"),
        (b"\xab\xcd", "ad"),
        (b"\x30\xab", "3b"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"\x30\xab\xcd\x31", "01"),
        (b" ", "20"),
    ],
)
def test_ja4_shows_the_ends_of_the_first_protocol(protocol: bytes, ends: str) -> None:
    assert ClientHello.parse(message(alpn(protocol, b"spdy/3"))).ja4[8:10] == ends


@pytest.mark.parametrize(
    ("version", "code"),
    [
        (0x0304, "13"),
        (0x0303, "12"),
        (0x0302, "11"),
        (0x0301, "10"),
        (0x0300, "s3"),
        (0x0002, "s2"),
        (0x0399, "00"),
    ],
)
def test_ja4_shows_the_highest_version(version: int, code: str) -> None:
    assert ClientHello.parse(message(version=version)).ja4.startswith(f"t{code}i")
    assert ClientHello.parse(message((43, vector(1, u16s(2, version))))).ja4.startswith(f"t{code}i")


# What is malformed.

DECODE_ERROR, ILLEGAL_PARAMETER = Alert.decode_error, Alert.illegal_parameter

MALFORMED_EXTENSIONS = [
    *[
        (kind, body, DECODE_ERROR)
        for kind in (10, 13)
        for body in (b"", b"\0", b"\0\0", b"\0\3\0\1\2", b"\0\4\0\1")
    ],
    *[(kind, body, DECODE_ERROR) for kind in (11, 45) for body in (b"", b"\0", b"\1", b"\2\0", b"\1\0\0")],
    *[(kind, b"\0", DECODE_ERROR) for kind in (42, 49)],
    *[(43, body, DECODE_ERROR) for body in (b"", b"\0", b"\1\3", b"\2\3", b"\3\3\4\3", b"\2\3\4\0")],
    *[
        (5, body, DECODE_ERROR)
        for body in (b"", b"\1", b"\1\0\0", b"\1\0\0\0", b"\1\0\0\0\0\0", b"\1\0\1\0\0")
    ],
    *[
        (16, body, DECODE_ERROR)
        for body in (b"", b"\0\0", b"\0\1\0", b"\0\3\2h2\0", b"\0\3\3h2", b"\0\4\2h2")
    ],
    *[(51, body, DECODE_ERROR) for body in (b"", b"\0", b"\0\1\0", b"\0\4\0\x1d\0\0", b"\0\5\0\x1d\0\2\0")],
    (0, b"", DECODE_ERROR),
    (0, b"\0\0", DECODE_ERROR),
    (0, server_name(b"")[1], DECODE_ERROR),
    (0, server_name(b"a")[1] + b"\0", DECODE_ERROR),
    (0, vector(2, b"\1" + vector(2, b"a")), DECODE_ERROR),
    (0, vector(2, b"\0" + vector(2, b"a") + b"\0" + vector(2, b"b")), DECODE_ERROR),
    (0, b"\0\4\0\0\2a", DECODE_ERROR),
    *[
        (0, server_name(name)[1], Alert.unrecognized_name)
        for name in (b"a\0.example", b"caf\xe9.example", "café.example".encode(), b"a" * 256, b"a\r\nb")
    ],
    (41, b"", DECODE_ERROR),
    (41, b"\0\0\0\0", DECODE_ERROR),
    (41, b"\0\7\0\1a\0\0\0\0", DECODE_ERROR),
    (41, b"\0\6\0\0\0\0\0\0" + vector(2, vector(1, bytes(32))), DECODE_ERROR),
    (41, b"\0\7\0\2a\0\0\0\0" + vector(2, vector(1, bytes(32))), DECODE_ERROR),
    (41, b"\0\7\0\1a\0\0\0\0" + vector(2, vector(1, bytes(31))), DECODE_ERROR),
    (41, b"\0\7\0\1a\0\0\0\0" + vector(2, b"\x21" + bytes(32)), DECODE_ERROR),
    (41, b"\0\7\0\1a\0\0\0\0" + vector(2, vector(1, bytes(32))) + b"\0", DECODE_ERROR),
    (41, b"\0\7\0\1a\0\0\0\0" + vector(2, vector(1, bytes(32)) * 2), ILLEGAL_PARAMETER),
]


@pytest.mark.parametrize(("kind", "body", "alert"), MALFORMED_EXTENSIONS)
def test_a_malformed_extension_is_refused_when_the_hello_is_parsed(
    kind: int, body: bytes, alert: Alert
) -> None:
    with pytest.raises(MalformedClientHello, match=r"^[a-z_]+: ") as caught:
        ClientHello.parse(message((23, b""), (kind, body)))
    assert caught.value.alert is alert


WHOLE = message(alpn(b"h2"))
MALFORMED = {
    "nothing": (b"", DECODE_ERROR),
    "another message": (b"\x02" + WHOLE[1:], Alert.unexpected_message),
    "a length that is too small": (WHOLE + b"\0", DECODE_ERROR),
    "a length that is too large": (WHOLE[:-1], DECODE_ERROR),
    "a long session id": (message(session_id=bytes(33)), DECODE_ERROR),
    "no suites": (message(suites=[]), DECODE_ERROR),
    "half a suite": (b"\x01" + vector(3, b"\3\3" + bytes(32) + b"\0" + b"\0\3abc" + b"\1\0"), DECODE_ERROR),
    "no compression methods": (message(compression=b""), DECODE_ERROR),
    "a list of extensions that is too long": (b"\x01" + vector(3, message()[4:] + b"\0\1"), DECODE_ERROR),
    "bytes after the extensions": (b"\x01" + vector(3, WHOLE[4:] + b"\0"), DECODE_ERROR),
    "half of the length of extensions": (b"\x01" + vector(3, message()[4:] + b"\0"), DECODE_ERROR),
    "an extension cut short": (b"\x01" + vector(3, message()[4:] + b"\0\5\0\x17\0\2a"), DECODE_ERROR),
    "a known extension twice": (message(alpn(b"h2"), alpn(b"h3")), ILLEGAL_PARAMETER),
    "an unknown extension twice": (message((0x7777, b""), (0x7777, b"")), ILLEGAL_PARAMETER),
    "a pre-shared key that is not last": (
        message((41, b"\0\7\0\1a\0\0\0\0" + vector(2, vector(1, bytes(32)))), (23, b"")),
        ILLEGAL_PARAMETER,
    ),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_message_with_a_flaw_is_refused(what: str) -> None:
    flawed, alert = MALFORMED[what]
    with pytest.raises(MalformedClientHello) as caught:
        ClientHello.parse(flawed)
    assert caught.value.alert is alert
    assert caught.value.is_tls


def test_a_message_may_end_early_only_before_its_extensions() -> None:
    whole = message(alpn(b"h2"), version=0x0301)
    for end in range(4, len(whole)):
        parsed = outcome([records(b"\x01" + vector(3, whole[4:end]))])
        assert isinstance(parsed, ClientHello) is (end == len(message()))


def test_the_error_is_a_value_error_that_keeps_its_facts_when_copied() -> None:
    with pytest.raises(ValueError, match="an extension twice") as caught:
        ClientHello.parse(message((23, b""), (23, b"")))
    error = caught.value
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is MalformedClientHello
        assert (str(other), other.reason, other.alert) == ("an extension twice",) * 2 + (ILLEGAL_PARAMETER,)


@fuzzed
@given(
    st.sampled_from(sorted(RECORDED)),
    st.lists(st.tuples(st.integers(0, 2100), st.integers(0, 255)), max_size=8),
    st.integers(0, 2100),
)
def test_garbled_hellos_are_read_or_refused_and_nothing_else(
    name: str, changes: list[tuple[int, int]], end: int
) -> None:
    data = bytearray(RECORDED[name])
    for at, byte in changes:
        data[at % len(data)] = byte
    for garbled in (bytes(data), bytes(data[:end])):
        result = outcome([garbled])
        if isinstance(result, ClientHello):
            views(result)


@fuzzed
@given(
    st.lists(
        st.tuples(st.integers(0, 52), st.binary(max_size=12)), max_size=4, unique_by=lambda pair: pair[0]
    )
)
def test_any_extension_bodies_are_read_or_refused_and_nothing_else(
    extensions: list[tuple[int, bytes]],
) -> None:
    result = outcome([records(message(*extensions))])
    if isinstance(result, ClientHello):
        assert list(result.extensions) == extensions
        views(result)


# The reader.


@pytest.mark.parametrize("name", EXPECTED)
def test_the_reader_waits_for_the_last_byte_and_keeps_every_byte(name: str) -> None:
    data = RECORDED[name]
    size = 5 + int.from_bytes(data[3:5])
    reader = ClientHelloReader()
    assert [piece for piece in one_by_one(data[: size - 1]) if reader.feed(piece) is not None] == []
    assert reader.feed(data[size - 1 :]) == read(data)
    assert reader.received == data


@fuzzed
@given(
    st.sampled_from(sorted(RECORDED)),
    st.lists(st.integers(1, 700), max_size=6),
    st.lists(st.integers(0, 3000), max_size=6),
)
def test_neither_records_nor_pieces_change_the_hello(name: str, sizes: list[int], cuts: list[int]) -> None:
    whole = RECORDED[name]
    end = 5 + int.from_bytes(whole[3:5])
    data = records(whole[5:end], *sizes) + whole[end:]
    bounds = sorted({0, len(data), *[cut % len(data) for cut in cuts]})
    reader = ClientHelloReader()
    hello = None
    for start, stop in itertools.pairwise(bounds):
        if hello is None:
            hello = reader.feed(data[start:stop])
            assert reader.received == data[:stop]
    assert hello == read(whole)


@fuzzed
@given(
    st.sampled_from(sorted(RECORDED)),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3),
    st.lists(st.integers(1, 50), max_size=4),
    st.sampled_from([100, 300, 32768]),
)
def test_pieces_do_not_change_the_verdict_either(
    name: str, changes: list[tuple[int, int]], sizes: list[int], limit: int
) -> None:
    whole = RECORDED[name]
    data = bytearray(records(whole[5 : 5 + int.from_bytes(whole[3:5])], *sizes))
    for at, byte in changes:
        data[at] = byte
    assert outcome(one_by_one(data), limit) == outcome([bytes(data)], limit)


@pytest.mark.parametrize(
    ("data", "certain_at", "alert"),
    [
        (b"GET / HTTP/1.1\r\n", 1, None),
        (b"\x80\x2e\x01\x00\x02", 1, None),
        (b"\x00" * 10, 1, None),
        (b"\x16\x02\x00\x00\x05", 2, None),
        (b"\x17\x04", 2, None),
        (b"\x15\x03\x03\x00\x02\x02\x28", 2, Alert.unexpected_message),
        (b"\x17\x03\x03\x00\x05hello", 2, Alert.unexpected_message),
        (b"\x16\x03\x01\x00\x00", 5, Alert.decode_error),
        (b"\x16\x03\x01\x40\x01", 5, Alert.record_overflow),
        (b"\x16\x03\x01\x00\x09\x02", 6, Alert.unexpected_message),
        (b"\x16\x03\x01\x00\x09\x01\x00\x80\x00", 9, Alert.decode_error),
        (b"\x16\x03\x01\x00\x09\x01\x00\x00\x00", 9, Alert.decode_error),
        (b"\x16\x03\x01\x00\x01\x01\x16\x02", 8, Alert.protocol_version),
        (b"\x16\x03\x01\x00\x01\x01\x17\x03", 8, Alert.unexpected_message),
        (b"\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x00", 11, Alert.decode_error),
    ],
)
def test_the_reader_refuses_as_soon_as_it_is_certain(
    data: bytes, certain_at: int, alert: Alert | None
) -> None:
    reader = ClientHelloReader()
    for piece in one_by_one(data[: certain_at - 1]):
        assert reader.feed(piece) is None
    with pytest.raises(MalformedClientHello) as caught:
        reader.feed(data[certain_at - 1 :])
    assert caught.value.alert is alert
    assert caught.value.is_tls is (alert is not None)
    assert reader.received == data


def test_a_record_of_the_largest_size_is_read() -> None:
    whole = message((0x7777, bytes(16384 - len(message((0x7777, b""))))))
    assert records(whole)[3:5] == b"\x40\x00"
    assert read(records(whole)) == ClientHello.parse(whole)


def test_the_limit_counts_the_bytes_on_the_wire() -> None:
    data = records(WHOLE, 5, 5)
    for pieces in ([data], one_by_one(data)):
        assert isinstance(outcome(pieces, limit=len(data)), ClientHello)
        assert outcome(pieces, limit=len(data) - 1) == ("the ClientHello is too long", DECODE_ERROR)


def test_a_hello_that_announces_more_than_the_limit_is_refused_at_once() -> None:
    assert outcome([b"\x16\x03\x01\x40\x00\x01\x00\x80\x00"]) == ("the ClientHello is too long", DECODE_ERROR)


def test_many_small_records_cannot_get_around_the_limit() -> None:
    whole = message((0x7777, bytes(10_000)))
    reader = ClientHelloReader()
    with pytest.raises(MalformedClientHello, match="too long"):
        reader.feed(records(whole, *[1] * len(whole)))
    assert isinstance(outcome([records(whole)]), ClientHello)


class CountingBuffer(bytearray):
    """A buffer that counts the bytes that are read from it."""

    read = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        self.read += len(found) if isinstance(key, slice) else 1
        return found


@pytest.mark.parametrize("record_size", [1, 16384])
def test_the_work_grows_only_with_the_bytes_however_small_the_pieces(record_size: int) -> None:
    def work(size: int) -> int:
        whole = message((0x7777, bytes(size - len(message((0x7777, b""))))))
        reader = ClientHelloReader(limit=100_000)
        reader.received, reader._message = CountingBuffer(), CountingBuffer()
        hello = None
        for piece in one_by_one(records(whole, *[record_size] * len(whole))):
            assert hello is None
            hello = reader.feed(piece)
        assert hello == ClientHello.parse(whole)
        return reader.received.read + reader._message.read

    base, one, ten = work(100), work(200) - work(100), work(1100) - work(100)
    assert ten == 10 * one
    assert base < 100 * 30


# What is no TLS.


@pytest.mark.feature("G11")
@pytest.mark.parametrize(
    ("first_bytes", "what"),
    [
        (b"GET / HTTP/1.1\r\nHost: server.example\r\n", "an HTTP request"),
        (b"POST /path", "an HTTP request"),
        (b"OPTIONS * HTTP/1.1", "an HTTP request"),
        (b"PROPFIND /calendar HTTP/1.1", "an HTTP request"),
        (b"CONNECT server.example:443 HTTP/1.1", "an HTTP proxy request"),
        (b"GET http://server.example/ HTTP/1.1", "an HTTP proxy request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "an HTTP/2 preface"),
        (b"HTTP/1.1 400 Bad Request\r\n", "an HTTP response"),
        (b"SSH-2.0-OpenSSH_9.2p1", "an SSH banner"),
        (b"EHLO client.example\r\n", "an SMTP command"),
        (b"helo client", "an SMTP command"),
        (b"220 mail.example ESMTP Postfix\r\n", "an SMTP greeting"),
        (b"220-mail.example ESMTP Exim\r\n220 ", "an SMTP greeting"),
        (b"220 (vsFTPd 3.0.3)\r\n", "an FTP greeting"),
        (b"220 ready\r\n", "an SMTP or FTP greeting"),
        (b"AUTH TLS\r\n", "an FTP command"),
        (b"* OK [CAPABILITY IMAP4rev1] ready.\r\n", "an IMAP greeting"),
        (b"* BYE overloaded\r\n", "an IMAP greeting"),
        (b"a001 CAPABILITY\r\n", "an IMAP command"),
        (b"1 starttls\r\n", "an IMAP command"),
        (b"+OK POP3 ready <1.2@mail.example>\r\n", "a POP3 greeting"),
        (b"CAPA\r\n", "a POP3 command"),
        (b"APOP user c4c9334bac560ecc979e58001b3e22fb\r\n", "a POP3 command"),
        (b"USER alice\r\n", "a POP3 or FTP command"),
        (bytes.fromhex("0000000804d2162f"), "a PostgreSQL startup message"),
        (bytes.fromhex("0000000804d21630"), "a PostgreSQL startup message"),
        (bytes.fromhex("0000002900030000") + b"user\0alice\0", "a PostgreSQL startup message"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n", "a PROXY protocol header"),
        (b"PROXY UNKNOWN\r\n", "a PROXY protocol header"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "a PROXY protocol header"),
        (bytes.fromhex("802e0100020015000000100100800200800300"), "an SSLv2 ClientHello"),
        (bytes.fromhex("80310103010018000000100000390000380000"), "an SSLv2 ClientHello"),
        (bytes.fromhex("15030300020228"), "a TLS alert"),
        (b"\0\0\0\0", "no TLS record"),
        (b"\xff\xfe\xfd", "no TLS record"),
        (b"G", "no TLS record"),
        (b"hello", "no TLS record"),
        (b"\x16\x02\x01", "no TLS record"),
        (b"\x16\xfe\xff\0\0", "no TLS record"),
        (b"", None),
        (b"\x16", None),
        (b"\x15\x03\x03\x00", None),
        (b"\x15\x03\x03\x00\x1a" + bytes(26), None),
        (b"\x17\x03\x03\x00\x05", None),
    ],
)
def test_first_flights_are_named(first_bytes: bytes, what: str | None) -> None:
    assert looks_like(first_bytes) == what
    assert looks_like(bytearray(first_bytes)) == what


def test_no_start_of_a_hello_looks_like_something_else() -> None:
    for data in RECORDED.values():
        assert {looks_like(data[:end]) for end in range(len(data))} == {None}


@fuzzed
@given(st.one_of(st.binary(max_size=40), st.tuples(st.integers(20, 24), st.binary(max_size=9)).map(
    lambda start: bytes([start[0]]) + start[1]
)))  # fmt: skip
def test_what_the_reader_takes_for_no_tls_has_a_name_and_nothing_else_has(data: bytes) -> None:
    verdict = outcome([data])
    is_tls = not isinstance(verdict, tuple) or verdict[1] is not None
    assert (looks_like(data) in (None, "a TLS alert")) is is_tls


# Against OpenSSL.


@pytest.mark.parametrize("name", [None, "server.example"])
@pytest.mark.parametrize("protocols", [(), ("h2", "http/1.1")])
@pytest.mark.parametrize(
    ("lowest", "highest"),
    [
        (SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION),
        (SSL.TLS1_3_VERSION, SSL.TLS1_3_VERSION),
        (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION),
    ],
)
@pytest.mark.parametrize("ocsp", [False, True])
def test_openssl_clients_are_understood(
    name: str | None, protocols: tuple[str, ...], lowest: int, highest: int, ocsp: bool
) -> None:
    def configure(client: SSL.Connection) -> None:
        if name:
            client.set_tlsext_host_name(name.encode())
        if protocols:
            client.set_alpn_protos([protocol.encode() for protocol in protocols])
        if ocsp:
            client.request_ocsp()

    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(lowest)
    context.set_max_proto_version(highest)
    hello = read(first_flight(context, configure))
    assert (hello.server_name, hello.alpn_protocols, hello.requests_ocsp) == (name, protocols, ocsp)
    assert set(hello.supported_versions) == {lowest, highest}
    assert (0x1301 in hello.cipher_suites) is (highest == SSL.TLS1_3_VERSION)
    assert (0xC02B in hello.cipher_suites) is (lowest == SSL.TLS1_2_VERSION)
    assert bool(hello.key_share_groups) is (highest == SSL.TLS1_3_VERSION)
    assert set(hello.key_share_groups) <= set(hello.groups)


@fuzzed
@given(
    st.sampled_from(sorted(RECORDED)),
    st.lists(st.tuples(st.integers(43, 2100), st.integers(0, 255)), max_size=2),
)
def test_openssl_reads_the_same_name_and_protocols_from_what_both_accept(
    name: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(RECORDED[name])
    for at, byte in changes:
        data[at % len(data)] = byte
    seen: dict[str, object] = {}

    def see_name(connection: SSL.Connection) -> None:
        seen["server_name"] = connection.get_servername()

    def see_protocols(_: SSL.Connection, protocols: list[bytes]) -> Any:
        seen["alpn_protocols"] = protocols
        return SSL.NO_OVERLAPPING_PROTOCOLS

    context = SSL.Context(SSL.TLS_METHOD)
    CERTIFICATE.configure_cert(context)
    context.set_session_id(b"test")
    context.set_tlsext_servername_callback(see_name)
    context.set_alpn_select_callback(see_protocols)
    server = SSL.Connection(context, None)
    server.set_accept_state()
    server.bio_write(bytes(data))
    with contextlib.suppress(SSL.Error):  # what OpenSSL has seen until then counts
        server.do_handshake()
    hello = outcome([bytes(data)])
    if isinstance(hello, ClientHello):
        name_sent = None if hello.server_name is None else hello.server_name.encode()
        assert seen.get("server_name", name_sent) == name_sent
        protocols_sent = [protocol.encode("latin-1") for protocol in hello.alpn_protocols]
        assert seen.get("alpn_protocols", protocols_sent) == protocols_sent


def test_groups_have_the_names_that_openssl_knows() -> None:
    compared = 0
    for group in SUPPORTED_GROUPS.values():
        context = SSL.Context(SSL.TLS_METHOD)
        if lib.SSL_CTX_set1_curves_list(context._context, group.encode()):
            if group in ("brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1"):
                context.set_max_proto_version(SSL.TLS1_2_VERSION)
            assert read(first_flight(context)).group_names == (group,)
            compared += 1
    assert compared > 10


def test_signature_schemes_have_the_names_that_openssl_knows() -> None:
    compared = 0
    for scheme in SIGNATURE_SCHEMES.values():
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        if lib.SSL_CTX_set1_sigalgs_list(context._context, scheme.encode()):
            assert read(first_flight(context)).signature_algorithm_names == (scheme,)
            compared += 1
    assert compared > 10


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_cipher_suites_have_the_standard_names_that_openssl_prints() -> None:
    command = ["openssl", "ciphers", "-V", "-stdname", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    suites = {}
    for line in printed.splitlines():
        number, _, name, *_ = line.split()
        high, low = number.split(",")
        suites[int(high, 16) << 8 | int(low, 16)] = name
    assert len(suites) > 50
    assert {number: CIPHER_SUITES.get(number) for number in suites} == suites
