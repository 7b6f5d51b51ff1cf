"""HelloProbe: what is offered, and what servers of several kinds answer."""

from __future__ import annotations

import socket
import subprocess
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from trio_tlsnode import Alert, ClientHello, SecureContext, TLSServer, TLSStream
from trio_tlsnode.client_hello import ClientHelloReader
from trio_tlsnode.dh import DHGroup
from trio_tlsnode.hello_probe import (
    GROUPS,
    OLDER_SUITES,
    REFUSED,
    SSL3,
    TLS12,
    TLS13,
    TLS13_SUITES,
    HelloAnswer,
    HelloProbe,
    answer_of,
)
from trio_tlsnode.iana import CIPHER_SUITES, SUPPORTED_GROUPS
from trio_tlsnode.testing import default_authority

pytestmark = pytest.mark.feature("G5")

# The second Oakley group (RFC 2409, section 6.2), 1024 bits.
OAKLEY_2 = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF",
    16,
)
X25519 = 0x001D
P256 = 0x0017


def offered(probe: HelloProbe) -> ClientHello:
    hello = ClientHelloReader().feed(probe.record())
    assert hello is not None
    return hello


async def ignore(stream: TLSStream) -> None:
    pass


async def answer(probe: HelloProbe, key_type: Any = "EC", **options: Any) -> HelloAnswer:
    """Return what a server of ours answers, read byte by byte."""
    issued = default_authority().good("localhost", key_type=key_type)
    server = TLSServer(ignore, SecureContext(**issued.options, **options))
    server.client_errors()
    client, transport = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, transport)
        await client.send_all(probe.record())
        flight = b""
        while (found := answer_of(flight)) is None:
            data = await client.receive_some(1)
            if not data:
                found = REFUSED
                break
            flight += data
        nursery.cancel_scope.cancel()
    return found


# What is offered


@pytest.mark.parametrize("version", [0x0301, 0x0302, TLS12, TLS13])
def test_a_probe_is_a_hello_for_one_version_with_all_that_it_names(version: int) -> None:
    suites = TLS13_SUITES if version == TLS13 else OLDER_SUITES
    hello = offered(HelloProbe(version=version, cipher_suites=suites, server_name="example.org"))
    assert hello.server_name == "example.org"
    assert hello.supported_versions == (version,)
    assert {*suites} <= {*hello.cipher_suites}
    assert hello.groups == GROUPS
    assert hello.key_share_groups == ()


def test_a_probe_for_ssl_3_has_no_extensions() -> None:
    hello = offered(HelloProbe(version=SSL3, cipher_suites=OLDER_SUITES, server_name="example.org"))
    assert hello.legacy_version == SSL3
    assert hello.extensions == ()


def test_suites_that_need_something_prearranged_are_not_offered() -> None:
    names = [CIPHER_SUITES[suite] for suite in (*OLDER_SUITES, *TLS13_SUITES)]
    assert not [name for name in names if "PSK" in name or "SRP" in name or "SCSV" in name]
    assert "TLS_RSA_EXPORT_WITH_RC4_40_MD5" in names


# What is answered


async def test_tls_1_3_names_its_favourite_group_without_any_key() -> None:
    probe = HelloProbe(version=TLS13, cipher_suites=TLS13_SUITES, groups=(P256, X25519))
    found = await answer(probe, groups="x25519:secp256r1")
    assert found == HelloAnswer(version=TLS13, cipher_suite=0x1302, group=X25519)


async def test_tls_1_2_names_its_curve() -> None:
    probe = HelloProbe(version=TLS12, cipher_suites=OLDER_SUITES, groups=(P256,))
    found = await answer(probe)
    assert (found.version, found.group, found.alert) == (TLS12, P256, None)
    assert CIPHER_SUITES[found.cipher_suite or 0] == "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"


@pytest.mark.filterwarnings("ignore:DH parameter is less than 2048 bits")
@pytest.mark.parametrize(("groups", "bits"), [((X25519,), 1024), ((X25519, 0x0100), 2048)])
async def test_of_a_dhe_suite_the_size_of_the_group_is_read(groups: tuple[int, ...], bits: int) -> None:
    # The server's own group, unless the client names one of RFC 7919.
    dhe = tuple(suite for suite in OLDER_SUITES if CIPHER_SUITES[suite].startswith("TLS_DHE_RSA"))
    found = await answer(
        HelloProbe(version=TLS12, cipher_suites=dhe, groups=groups),
        "RSA",
        dhparam=DHGroup(OAKLEY_2, 2).pem(),
        ciphers="DHE+AESGCM:@SECLEVEL=0",
        max_version="TLSv1.2",
    )
    assert (found.dh_bits, found.group) == (bits, None)


async def test_an_anonymous_suite_needs_no_certificate() -> None:
    anonymous = tuple(suite for suite in OLDER_SUITES if "_ECDH_anon_" in CIPHER_SUITES[suite])
    probe = HelloProbe(version=TLS12, cipher_suites=anonymous, groups=(X25519,))
    found = await answer(probe, ciphers="aNULL:@SECLEVEL=0", max_version="TLSv1.2")
    assert found.group == X25519


@pytest.mark.parametrize(
    ("version", "suites", "alert"),
    [
        (0x0301, OLDER_SUITES, Alert.protocol_version),
        (SSL3, OLDER_SUITES, Alert.protocol_version),
        (TLS12, (0x0005,), Alert.handshake_failure),
        (TLS13, (0x1304,), Alert.handshake_failure),
    ],
)
async def test_a_refusal_has_its_alert(version: int, suites: tuple[int, ...], alert: Alert) -> None:
    assert await answer(HelloProbe(version=version, cipher_suites=suites)) == HelloAnswer(alert=alert)


# What servers may send


FATAL = bytes.fromhex("15 0303 0002 02 28")
WARNING = bytes.fromhex("15 0303 0002 01 70")


@pytest.mark.parametrize(
    ("flight", "expected"),
    [
        (b"", None),
        (b"\x16\x03\x03\x00", None),
        (FATAL, HelloAnswer(alert=Alert.handshake_failure)),
        (FATAL[:-1], None),
        (WARNING, None),
        (WARNING + FATAL, HelloAnswer(alert=Alert.handshake_failure)),
        (FATAL[:-1] + b"\xfe", HelloAnswer(alert=254)),
        (b"HTTP/1.1 400 Bad Request\r\n", REFUSED),
        # A message that no server begins with.
        (bytes.fromhex("16 0303 0004 0b 000000"), REFUSED),
        # A version that nobody knows.
        (bytes.fromhex("16 0303 002a 02 000026 0399") + bytes(32) + bytes.fromhex("00 1301 00"), REFUSED),
    ],
)
def test_what_is_no_choice_is_a_refusal_or_waited_for(flight: bytes, expected: HelloAnswer | None) -> None:
    assert answer_of(flight) == expected


@given(st.binary(max_size=200))
def test_whatever_a_server_sends_is_read_without_an_error(junk: bytes) -> None:
    answer_of(junk)
    answer_of(b"\x16\x03\x03" + len(junk).to_bytes(2) + junk)
    hello = b"\x02" + len(junk).to_bytes(3) + junk
    answer_of(b"\x16\x03\x03" + len(hello).to_bytes(2) + hello)


# Foreign servers


def test_openssl_and_its_groups(openssl: str, tmp_path: Any) -> None:
    key, cert = default_authority().good("localhost").write_to(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    command = [openssl, "s_server", "-accept", f"127.0.0.1:{port}", "-key", str(key), "-cert", str(cert)]
    with subprocess.Popen(
        [*command, "-groups", "X448:P-256"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            while b"ACCEPT" not in process.stdout.readline():
                pass
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(HelloProbe(version=TLS13, cipher_suites=TLS13_SUITES).record())
                flight = b""
                while (found := answer_of(flight)) is None:
                    flight += connection.recv(4096)
        finally:
            process.terminate()
    assert SUPPORTED_GROUPS[found.group or 0] in ("x448", "secp256r1")
