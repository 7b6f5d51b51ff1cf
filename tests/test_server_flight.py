"""ServerFlight: the size of a Diffie-Hellman group, read off what a server says in the clear."""

from __future__ import annotations

from typing import Any

import pytest
from engine_pairs import client, server, shake_hands
from hypothesis import given
from hypothesis import strategies as st

from trio_tlsnode import ConnectionInfo, Engine, ProtocolError, Want
from trio_tlsnode.dh import DHGroup
from trio_tlsnode.server_flight import ephemeral_dh_bits

pytestmark = pytest.mark.feature("A9")

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE = 20, 21, 22
SERVER_HELLO, CERTIFICATE, SERVER_KEY_EXCHANGE = 2, 11, 12
DHE_RSA_AES128_GCM, ECDHE_RSA_AES128_GCM, NO_SUITE = 0x009E, 0xC02F, 0xFEFE


def record(content: bytes, kind: int = HANDSHAKE) -> bytes:
    return bytes((kind, 3, 3)) + len(content).to_bytes(2) + content


def message(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + len(body).to_bytes(3) + body


def server_hello(suite: int, session_id: bytes = b"") -> bytes:
    body = b"\3\3" + bytes(32) + bytes((len(session_id),)) + session_id + suite.to_bytes(2) + b"\0"
    return message(SERVER_HELLO, body)


def key_exchange(prime: bytes) -> bytes:
    return message(SERVER_KEY_EXCHANGE, len(prime).to_bytes(2) + prime + b"\0\1\2\0\1\7" + bytes(40))


PRIME = b"\xff" * 128
# user_canceled, which OpenSSL passes over
WARNING = record(b"\1\x5a", ALERT)
MESSAGES = server_hello(DHE_RSA_AES128_GCM) + message(CERTIFICATE, bytes(50)) + key_exchange(PRIME)


def flight_of(**settings: Any) -> bytes:
    """Return what a server with an RSA key says in a handshake of TLS 1.2."""
    asking = client(**{"max_version": "TLSv1.2", **settings})
    answering = server("RSA", ciphers="ALL", dhparam=DHGroup.ffdhe(3072).pem())
    outcome = shake_hands(asking, answering)
    assert outcome.info.authorized
    return outcome.server_flight


@pytest.mark.parametrize("groups", ["X25519", "ffdhe3072:X25519"])
def test_group_of_a_real_server_is_known_as_soon_as_its_message_is_whole(groups: str) -> None:
    flight = flight_of(ciphers="DHE-RSA-AES128-GCM-SHA256", groups=groups)
    known = [ephemeral_dh_bits(flight[:length]) for length in range(len(flight) + 1)]
    first = known.index(3072)
    assert set(known[:first]) == {None}
    assert set(known[first:]) == {3072}


@pytest.mark.parametrize(
    "settings",
    [
        {"ciphers": "ECDHE-RSA-AES128-GCM-SHA256"},
        {"ciphers": "AES128-GCM-SHA256"},
        {"max_version": "TLSv1.3"},
        {"max_version": "TLSv1.3", "groups": "ffdhe3072"},
    ],
)
def test_there_is_none_without_a_suite_that_has_one(settings: dict[str, str]) -> None:
    assert ephemeral_dh_bits(flight_of(**settings)) is None


@pytest.mark.parametrize("length", [1, 3, 5, 100, 10_000])
def test_messages_may_be_spread_over_records_anyhow(length: int) -> None:
    records = [record(MESSAGES[at : at + length]) for at in range(0, len(MESSAGES), length)]
    assert ephemeral_dh_bits(b"".join(records)) == 1024


@pytest.mark.parametrize(
    ("prime", "bits"),
    [(b"\xff" * 128, 1024), (b"\0\0" + b"\xff" * 128, 1024), (b"\x7f" + b"\xff" * 127, 1023), (b"", 0)],
)
def test_size_is_that_of_the_number_not_of_its_bytes(prime: bytes, bits: int) -> None:
    assert ephemeral_dh_bits(record(server_hello(DHE_RSA_AES128_GCM) + key_exchange(prime))) == bits


@pytest.mark.parametrize("session_id", [b"", bytes(32)])
def test_session_id_does_not_matter(session_id: bytes) -> None:
    assert (
        ephemeral_dh_bits(record(server_hello(DHE_RSA_AES128_GCM, session_id) + key_exchange(PRIME))) == 1024
    )


@pytest.mark.parametrize("suite", [ECDHE_RSA_AES128_GCM, NO_SUITE])
def test_message_of_another_key_exchange_is_not_misread(suite: int) -> None:
    assert ephemeral_dh_bits(record(server_hello(suite) + key_exchange(PRIME))) is None


def test_what_follows_another_kind_of_record_is_encrypted() -> None:
    hello = record(server_hello(DHE_RSA_AES128_GCM))
    changed = record(b"\1", CHANGE_CIPHER_SPEC)
    assert ephemeral_dh_bits(hello + changed + record(key_exchange(PRIME))) is None


def test_alert_hides_nothing() -> None:
    flight = record(server_hello(DHE_RSA_AES128_GCM)) + WARNING + record(key_exchange(PRIME))
    assert ephemeral_dh_bits(flight) == 1024


def shown(flight: list[bytes]) -> ConnectionInfo | Want:
    """Return what a client makes of pieces of a server's first flight; its group has 3072 bits."""
    visitor = Engine(
        client(max_version="TLSv1.2", ciphers="DHE-RSA-AES128-GCM-SHA256"), host="localhost", min_dh_size=3073
    )
    visitor.do_handshake()
    answering = Engine(server("RSA", ciphers="ALL", dhparam=DHGroup.ffdhe(3072).pem()), server_side=True)
    answering.feed(visitor.drain())
    answering.do_handshake()
    first = answering.drain()
    at = 5 + int.from_bytes(first[3:5])
    for piece in (first[:at], *flight, first[at:]):
        visitor.feed(piece)
        visitor.do_handshake()
    answering.feed(visitor.drain())
    answering.do_handshake()
    visitor.feed(answering.drain())
    return visitor.do_handshake()


def test_group_that_is_too_small_is_refused_behind_a_warning_too() -> None:
    with pytest.raises(ProtocolError, match="3072 bits") as caught:
        shown([WARNING])
    assert caught.value.code == "ERR_TLS_DH_PARAM_SIZE"


def test_group_that_is_not_seen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_tlsnode._openssl.connection._LONGEST_FLIGHT", 50)
    with pytest.raises(ProtocolError, match="unknown") as caught:
        shown([])
    assert caught.value.code == "ERR_TLS_DH_PARAM_SIZE"


@pytest.mark.parametrize(
    "flight", [b"", b"\x16", b"\x16\3\3", b"\x16\3\3\0\0", b"HTTP/1.1 400 Bad Request\r\n"]
)
def test_there_is_none_in_what_is_no_flight(flight: bytes) -> None:
    assert ephemeral_dh_bits(flight) is None


def test_hello_that_is_too_short_names_no_suite() -> None:
    for length in range(40):
        ephemeral_dh_bits(record(message(SERVER_HELLO, bytes(length)) + key_exchange(PRIME)))
        assert ephemeral_dh_bits(record(message(SERVER_HELLO, b"\3\3" + b"\xff" * length))) is None


@given(st.binary(max_size=100), st.integers(0, len(MESSAGES)))
def test_garbage_is_no_error(garbage: bytes, at: int) -> None:
    ephemeral_dh_bits(garbage)
    bits = ephemeral_dh_bits(record(MESSAGES[:at] + garbage))
    assert bits is None or 0 <= bits <= 8 * 65535
