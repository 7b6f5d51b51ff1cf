"""DHGroup: read, written, and those of RFC 7919."""

from __future__ import annotations

import subprocess

import pytest
from engine_pairs import client, server, shake_hands
from hypothesis import given
from hypothesis import strategies as st

from trio_tlsnode.der import INTEGER, SEQUENCE, encoded, encoded_integer
from trio_tlsnode.dh import FFDHE_BITS, DHGroup

pytestmark = pytest.mark.feature("F9")


def parameter(prime: int, generator: int, *more: bytes) -> bytes:
    return encoded(SEQUENCE, encoded_integer(prime) + encoded_integer(generator) + b"".join(more))


@pytest.mark.parametrize("bits", FFDHE_BITS)
def test_groups_of_rfc_7919_are_those_that_openssl_negotiates(bits: int) -> None:
    group = DHGroup.ffdhe(bits)
    assert (group.bits, group.generator) == (bits, 2)
    # With a name of RFC 7919 on both sides, OpenSSL takes its own.
    settings = {"groups": f"ffdhe{bits}", "max_version": "TLSv1.2", "ciphers": "DHE-RSA-AES128-GCM-SHA256"}
    outcome = shake_hands(client(**settings), server("RSA", **settings, dhparam="auto"))
    assert outcome.info.authorized
    assert group.prime.to_bytes(bits // 8) in outcome.server_flight


@pytest.mark.parametrize("bits", FFDHE_BITS)
def test_primes_of_rfc_7919_have_the_shape_that_it_gives_them(bits: int) -> None:
    prime = DHGroup.ffdhe(bits).prime.to_bytes(bits // 8)
    # The first digits of e follow the ones.
    assert prime.startswith(bytes.fromhex("ffffffffffffffff adf85458a2bb4a9a afdc5620273d3cf1"))
    assert prime.endswith(bytes.fromhex("ffffffffffffffff"))


def test_primes_of_rfc_7919_are_safe() -> None:
    prime = DHGroup.ffdhe(2048).prime
    # Fermat's test, for the prime and for half of it; 2 generates the subgroup of that order.
    half = prime // 2
    assert pow(3, prime - 1, prime) == 1
    assert pow(3, half - 1, half) == 1
    assert pow(2, half, prime) == 1


@pytest.mark.parametrize(
    ("wanted", "bits"),
    [(1, 2048), (1024, 2048), (2048, 2048), (2049, 3072), (4096, 4096), (8192, 8192), (16384, 8192)],
)
def test_smallest_group_that_is_large_enough_is_taken(wanted: int, bits: int) -> None:
    assert DHGroup.ffdhe(wanted).bits == bits


@pytest.mark.parametrize("bits", FFDHE_BITS)
def test_pem_is_what_openssl_reads_and_der_what_it_writes(bits: int, openssl: str) -> None:
    command = [openssl, "dhparam", "-outform", "DER"]
    pem = DHGroup.ffdhe(bits).pem()
    der = subprocess.run(command, input=pem, capture_output=True, check=True).stdout
    assert DHGroup.from_der(der) == DHGroup.ffdhe(bits)


def test_length_of_private_values_may_follow() -> None:
    assert DHGroup.from_der(parameter(23, 5, encoded_integer(160))) == DHGroup(23, 5)


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30",
        b"\x30\x80\x00\x00",
        b"\x30\x03\x02\x01\x17",  # no generator
        parameter(23, 5)[:-1],
        parameter(23, 5) + b"\0",
        parameter(23, 5) + parameter(23, 5),
        encoded(0x31, parameter(23, 5)[2:]),
        encoded(SEQUENCE, encoded(0x04, b"\x17") + encoded_integer(5)),
        encoded(SEQUENCE, encoded(INTEGER, b"") + encoded_integer(5)),
        encoded(SEQUENCE, encoded(INTEGER, b"\x97") + encoded_integer(5)),  # a negative number
        parameter(0, 2),
        parameter(23, 0),
        parameter(23, 1),
        parameter(23, 23),
        parameter(24, 5),
    ],
)
def test_what_is_no_group_is_refused(der: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, its caller names the option
        DHGroup.from_der(der)


@given(st.integers(2, 1 << 2048), st.integers(2, 4))
def test_every_group_is_read_as_it_was_written(half: int, generator: int) -> None:
    group = DHGroup(2 * half + 1, generator)
    assert DHGroup.from_der(parameter(group.prime, group.generator)) == group


@given(st.binary(max_size=64))
def test_garbage_is_refused_by_a_value_error(der: bytes) -> None:
    try:
        group = DHGroup.from_der(der)
    except ValueError:
        return
    assert 1 < group.generator < group.prime
