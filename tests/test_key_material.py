"""What both ends derive from their keys: exported material, Finished messages and channel bindings; and the
signature algorithms that they share.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.hashes import MD5, SHA1, SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from later_handshakes import (
    TRUSTED,
    client_context,
    engines,
    exchange,
    pair,
    renegotiated,
    server_context,
)

import trio_tlsnode as tls
from trio_tlsnode import Engine, Want
from trio_tlsnode.channel_binding import channel_binding
from trio_tlsnode.options import SSL_OP_NO_EXTENDED_MASTER_SECRET
from trio_tlsnode.signature_algorithms import shared_signature_algorithms

VERSIONS = ("TLSv1.2", "TLSv1.3")
in_both_versions = pytest.mark.parametrize("version", VERSIONS)
LABEL = "EXPORTER-trio-tlsnode"
Hash = type[SHA256] | type[SHA384]


# Another way to the same: RFC 5705 for TLS 1.2, RFC 8446 for TLS 1.3


def expand_label(secret: bytes, label: bytes, context: bytes, length: int, algorithm: Hash) -> bytes:
    """HKDF-Expand-Label of RFC 8446, section 7.1."""
    label = b"tls13 " + label
    info = length.to_bytes(2) + bytes((len(label),)) + label + bytes((len(context),)) + context
    return HKDFExpand(algorithm(), length, info).derive(secret)


def exported_13(secret: bytes, label: str, context: bytes, length: int, algorithm: Hash) -> bytes:
    """The exporter of RFC 8446, section 7.5, from the exporter secret."""
    name = algorithm.name
    derived = expand_label(
        secret, label.encode(), hashlib.new(name, b"").digest(), algorithm.digest_size, algorithm
    )
    return expand_label(derived, b"exporter", hashlib.new(name, context).digest(), length, algorithm)


def exported_12(
    master: bytes, randoms: bytes, label: str, context: bytes | None, length: int, algorithm: Hash
) -> bytes:
    """The exporter of RFC 5705, by the pseudo-random function of RFC 5246, section 5."""
    seed = label.encode() + randoms
    if context is not None:
        seed += len(context).to_bytes(2) + context
    digest = functools.partial(hmac.digest, master, digest=algorithm.name)
    output, value = b"", seed
    while len(output) < length:
        value = digest(value)
        output += digest(value + seed)
    return output[:length]


class Secrets:
    """The secrets of a client's connection, and what follows from them."""

    def __init__(self, version: str, suite: str) -> None:
        self.version = version
        self.algorithm: Hash = SHA384 if suite.endswith("SHA384") else SHA256
        self.lines: dict[str, list[str]] = {}
        self.flights = {True: b"", False: b""}

    def keylog(self, line: str, _stream: object) -> None:
        label, *values = line.split()
        self.lines.setdefault(label, []).append(values[-1])

    def exported(self, label: str, context: bytes | None, length: int) -> bytes:
        if self.version == "TLSv1.3":
            secret = bytes.fromhex(self.lines["EXPORTER_SECRET"][-1])
            return exported_13(secret, label, context or b"", length, self.algorithm)
        master = bytes.fromhex(self.lines["CLIENT_RANDOM"][-1])
        randoms = b"".join(self.random(of_client) for of_client in (True, False))
        return exported_12(master, randoms, label, context, length, self.algorithm)

    def random(self, of_client: bool) -> bytes:
        # Behind 5 bytes of a record's header, 4 of a message's and 2 of a version.
        return self.flights[of_client][11:43]


def traced(version: str, suite: str) -> tuple[Engine, Engine, Secrets]:
    """Return connected ends with this cipher suite, and the secrets between them."""
    secrets = Secrets(version, suite)
    client = Engine(
        client_context(version, ciphers=suite), host="localhost", keylog=secrets.keylog, renegotiation_limit=0
    )
    server = Engine(server_context(version), server_side=True, renegotiation_limit=0)
    while client.info is None or server.info is None:
        for end, other in ((client, server), (server, client)):
            if end.info is None:
                end.do_handshake()
            if output := end.drain():
                secrets.flights[end is client] += output
                other.feed(output)
    exchange(client, server)
    return client, server, secrets


SUITES = [
    ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
    ("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
]


# Exporting


@pytest.mark.feature("C13")
@pytest.mark.parametrize(("version", "suite"), SUITES)
@pytest.mark.parametrize("context", [None, b"", b"\0\1\2\3", bytes(300)])
@pytest.mark.parametrize("length", [1, 32, 128, 1000])
def test_what_is_exported_is_what_the_rfcs_define(
    version: str, suite: str, context: bytes | None, length: int
) -> None:
    client, server, secrets = connection(version, suite)
    expected = secrets.exported(LABEL, context, length)
    assert client.export_keying_material(length, LABEL, context) == expected
    assert server.export_keying_material(length, LABEL, context) == expected


@functools.cache
def connection(version: str, suite: str) -> tuple[Engine, Engine, Secrets]:
    return traced(version, suite)


@pytest.mark.feature("C13")
@in_both_versions
def test_no_context_is_an_empty_one_in_tls_1_3_alone(version: str) -> None:
    client, _ = engines(version)
    material = {context: client.export_keying_material(32, LABEL, context) for context in (None, b"", b"x")}
    assert len(set(material.values())) == (3 if version == "TLSv1.2" else 2)
    assert client.export_keying_material(32, "EXPORTER-other") not in material.values()


@pytest.mark.feature("C13")
@in_both_versions
@pytest.mark.parametrize("context", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"a-b-c-")[::2]])
def test_a_context_may_be_in_any_memory(version: str, context: Any) -> None:
    client, _ = engines(version)
    assert client.export_keying_material(8, LABEL, context) == client.export_keying_material(8, LABEL, b"abc")


@pytest.mark.feature("C13")
@in_both_versions
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("32", LABEL), TypeError),
        ((32.0, LABEL), TypeError),
        ((True, LABEL), TypeError),
        ((32, LABEL.encode()), TypeError),
        ((32, None), TypeError),
        ((32, LABEL, "context"), TypeError),
        ((32, LABEL, 5), TypeError),
        ((0, LABEL), ValueError),
        ((-3, LABEL), ValueError),
        ((65536, LABEL), ValueError),
        ((1 << 70, LABEL), ValueError),
        ((32, ""), ValueError),
    ],
)
async def test_wrong_arguments_are_told_and_the_connection_goes_on(
    version: str, arguments: Any, error: type[Exception]
) -> None:
    async with pair(version) as (client, server):
        with pytest.raises(error):
            client.export_keying_material(*arguments)
        await client.send_all(b"it goes on")
        assert await server.receive_some() == b"it goes on"


@pytest.mark.feature("C13")
@pytest.mark.parametrize(
    ("version", "length", "label"),
    [("TLSv1.2", 16, "client finished"), ("TLSv1.3", 65535, LABEL), ("TLSv1.3", 16, "x" * 300)],
)
def test_what_openssl_refuses_is_a_mistake_of_the_program_and_not_the_connection_s(
    version: str, length: int, label: str
) -> None:
    client, server = engines(version)
    with pytest.raises(tls.ConfigurationError) as caught:
        client.export_keying_material(length, label)
    assert caught.value.code.startswith("ERR_")
    client.write(b"it goes on")
    assert exchange(client, server) == (b"", b"it goes on")


@pytest.mark.feature("C13")
def test_a_label_that_is_reserved_up_to_tls_1_2_is_as_good_as_any_in_tls_1_3() -> None:
    """Node.js's own example is one."""
    client, server = engines("TLSv1.3")
    for context in (None, b"", b"\0\1\2\3"):
        material = client.export_keying_material(128, "client finished", context)
        assert material == server.export_keying_material(128, "client finished", context)
        assert len(material) == 128


@pytest.mark.feature("C13")
@in_both_versions
def test_a_resumed_connection_has_material_of_its_own(version: str) -> None:
    sessions: list[bytes] = []
    contexts: Any = {"of_client": client_context(version), "of_server": server_context(version)}
    first, _ = engines(version, **contexts, client={"on_session": sessions.append})
    client, server = engines(version, **contexts, client={"session": sessions[-1]})
    assert client.info is not None
    assert client.info.session_reused
    material = client.export_keying_material(32, LABEL)
    assert material == server.export_keying_material(32, LABEL)
    assert material != first.export_keying_material(32, LABEL)


@pytest.mark.feature("C13")
def test_after_a_renegotiation_the_material_is_another_one() -> None:
    client, server = engines()
    before = client.export_keying_material(32, LABEL)
    renegotiated(client, server)
    after = client.export_keying_material(32, LABEL)
    assert after == server.export_keying_material(32, LABEL)
    assert after != before


@pytest.mark.feature("C23")
@pytest.mark.parametrize("role", ["client", "server"])
def test_while_the_keys_change_nothing_is_exported(role: str) -> None:
    """OpenSSL would mix the keys of one handshake with the randoms of the other."""
    client, server = engines(client={"renegotiation_limit": 0}, server={"renegotiation_limit": 9})
    material = client.export_keying_material(32, LABEL), channel_binding(client, "tls-unique")
    client.renegotiate()
    assert client.finish_handshake() is Want.READ
    server.feed(client.drain())
    assert server.read() is Want.READ
    end = client if role == "client" else server
    calls: list[Callable[[], bytes]] = [
        lambda: end.export_keying_material(32, LABEL),
        lambda: channel_binding(end, "tls-unique"),
        lambda: channel_binding(end, "tls-exporter"),
    ]
    for call in calls:
        with pytest.raises(trio.NeedHandshakeError):
            call()
    client.feed(server.drain())
    exchange(client, server)
    assert client.finish_handshake() is True
    assert material[0] != client.export_keying_material(32, LABEL) == server.export_keying_material(32, LABEL)
    assert material[1] != channel_binding(client, "tls-unique") == channel_binding(server, "tls-unique")


# Finished messages


@pytest.mark.feature("C11")
@in_both_versions
async def test_each_side_knows_both_finished_messages(version: str) -> None:
    async with pair(version) as (client, server):
        assert client.finished == server.peer_finished
        assert server.finished == client.peer_finished
        assert client.finished is not None
        assert server.finished is not None
        assert client.finished != server.finished
        length = 12 if version == "TLSv1.2" else 48
        assert len(client.finished) == len(server.finished) == length


@pytest.mark.feature("C11")
@pytest.mark.feature("C23")
async def test_before_the_handshake_there_is_none() -> None:
    async with pair() as (client, _):
        stream = tls.TLSStream(client.transport_stream, client_context("TLSv1.3"), host="localhost")
        assert (stream.finished, stream.peer_finished) == (None, None)
        with pytest.raises(trio.NeedHandshakeError):
            stream.export_keying_material(32, LABEL)
        for kind in ("tls-exporter", "tls-unique", "tls-server-end-point"):
            with pytest.raises(trio.NeedHandshakeError):
                stream.channel_binding(kind)


@pytest.mark.feature("C11")
@pytest.mark.feature("C13")
@in_both_versions
async def test_once_closed_there_is_nothing_to_be_had_any_more(version: str) -> None:
    async with pair(version) as (client, server):
        await client.aclose()
        with pytest.raises(trio.ClosedResourceError):
            client.export_keying_material(32, LABEL)
        with pytest.raises(trio.ClosedResourceError):
            client.channel_binding("tls-server-end-point")
        assert (client.finished, client.peer_finished) == (None, None)
        client._engine.release()
        with pytest.raises(trio.NeedHandshakeError):
            client._engine.export_keying_material(32, LABEL)
        # The other side has not closed yet.
        assert server.export_keying_material(32, LABEL)


@pytest.mark.feature("C11")
def test_finished_messages_are_the_latest() -> None:
    client, server = engines()
    before = client.finished(of_peer=False), client.finished(of_peer=True)
    renegotiated(client, server)
    after = client.finished(of_peer=False), client.finished(of_peer=True)
    assert not set(before) & set(after)
    assert after == (server.finished(of_peer=True), server.finished(of_peer=False))


# Channel bindings


@pytest.mark.feature("C11")
@pytest.mark.parametrize(("version", "suite"), SUITES)
def test_tls_exporter_is_what_rfc_9266_defines(version: str, suite: str) -> None:
    client, server, secrets = connection(version, suite)
    expected = secrets.exported("EXPORTER-Channel-Binding", b"", 32)
    assert channel_binding(client, "tls-exporter") == channel_binding(server, "tls-exporter") == expected


@pytest.mark.feature("C11")
@pytest.mark.parametrize("kind", ["tls-exporter", "tls-unique"])
def test_without_an_extended_master_secret_there_is_no_binding(kind: Any) -> None:
    ends = engines(
        of_server=server_context("TLSv1.2", secure_options=SSL_OP_NO_EXTENDED_MASTER_SECRET),
        client={"renegotiation_limit": 0},
        server={"renegotiation_limit": 0},
    )
    for end in ends:
        with pytest.raises(ValueError, match="extended master secret"):
            channel_binding(end, kind)
        assert channel_binding(end, "tls-server-end-point")


@pytest.mark.feature("C11")
@pytest.mark.parametrize("role", ["client", "server"])
async def test_tls_exporter_is_for_those_who_do_not_renegotiate(role: str) -> None:
    async with pair("TLSv1.2") as ends:
        stream = ends[role == "server"]
        with pytest.raises(ValueError, match="disable_renegotiation"):
            stream.channel_binding()
        stream.disable_renegotiation()
        assert len(stream.channel_binding()) == 32
    async with pair("TLSv1.3") as ends:
        assert ends[0].channel_binding() == ends[1].channel_binding()


@pytest.mark.feature("C11")
def test_tls_unique_is_the_first_finished_message() -> None:
    sessions: list[bytes] = []
    contexts: Any = {"of_client": client_context("TLSv1.2"), "of_server": server_context("TLSv1.2")}
    client, server = engines(**contexts, client={"on_session": sessions.append})
    expected = client.finished(of_peer=False)
    assert channel_binding(client, "tls-unique") == channel_binding(server, "tls-unique") == expected
    client, server = engines(**contexts, client={"session": sessions[-1]})
    # Of a session that is resumed, the server comes first.
    expected = server.finished(of_peer=False)
    assert channel_binding(client, "tls-unique") == channel_binding(server, "tls-unique") == expected
    renegotiated(client, server)
    expected = client.finished(of_peer=False)
    assert channel_binding(client, "tls-unique") == channel_binding(server, "tls-unique") == expected


@pytest.mark.feature("C11")
def test_tls_1_3_has_no_tls_unique() -> None:
    for end in engines("TLSv1.3"):
        with pytest.raises(ValueError, match="take tls-exporter"):
            channel_binding(end, "tls-unique")


@pytest.mark.feature("C11")
@in_both_versions
@pytest.mark.parametrize("key_type", ["EC", "RSA"])
def test_tls_server_end_point_is_the_hash_of_the_server_s_certificate(version: str, key_type: Any) -> None:
    context = server_context(version, **TRUSTED.good("localhost", key_type=key_type).options)
    expected = hashlib.sha256(context.certificates[0]).digest()
    for end in engines(version, of_server=context):
        assert channel_binding(end, "tls-server-end-point") == expected


class Presented:
    """An engine's connection on which a certificate was presented."""

    def __init__(self, name: str | None, raw: bytes = b"certificate") -> None:
        hashes = {algorithm.name: algorithm for algorithm in (MD5(), SHA1(), SHA384(), SHA512())}
        x509 = SimpleNamespace(signature_hash_algorithm=None if name is None else hashes[name])
        self.server_certificate = SimpleNamespace(raw=raw, x509=x509)
        self.info = SimpleNamespace(protocol="TLSv1.3")

    def require_keys(self) -> None:
        pass


@pytest.mark.feature("C11")
@pytest.mark.parametrize(
    ("signed_with", "hashed_with"),
    [("md5", "sha256"), ("sha1", "sha256"), ("sha384", "sha384"), ("sha512", "sha512")],
)
def test_the_hash_is_that_of_the_signature_unless_it_is_broken(signed_with: str, hashed_with: str) -> None:
    engine: Any = Presented(signed_with)
    assert (
        channel_binding(engine, "tls-server-end-point") == hashlib.new(hashed_with, b"certificate").digest()
    )


@pytest.mark.feature("C11")
def test_a_signature_without_a_hash_leaves_it_undefined() -> None:
    engine: Any = Presented(None)
    with pytest.raises(ValueError, match="undefined"):
        channel_binding(engine, "tls-server-end-point")


@pytest.mark.feature("C11")
@in_both_versions
@pytest.mark.parametrize("certificates", [1, 2])
def test_a_server_that_resumes_says_only_what_it_knows(version: str, certificates: int) -> None:
    """A session does not tell by which certificate the client knows the server."""
    sessions: list[bytes] = []
    issued = [TRUSTED.good("localhost"), TRUSTED.good("localhost", key_type="RSA")][:certificates]
    contexts: Any = {
        "of_client": client_context(version, sigalgs="ECDSA+SHA256"),
        "of_server": tls.SecureContext(
            key=[leaf.key for leaf in issued],
            cert=[leaf.cert for leaf in issued],
            min_version=version,
            max_version=version,
        ),
    }
    client, server = engines(version, **contexts, client={"on_session": sessions.append})
    expected = channel_binding(client, "tls-server-end-point")
    assert channel_binding(server, "tls-server-end-point") == expected
    client, server = engines(version, **contexts, client={"session": sessions[-1]})
    assert server.info is not None
    assert server.info.session_reused
    assert channel_binding(client, "tls-server-end-point") == expected
    if certificates == 1:
        assert channel_binding(server, "tls-server-end-point") == expected
        return
    with pytest.raises(ValueError, match="one of several"):
        channel_binding(server, "tls-server-end-point")


@pytest.mark.feature("C11")
async def test_other_kinds_are_unknown() -> None:
    async with pair() as (client, _):
        with pytest.raises(ValueError, match="no channel binding 'tls-unique-for-telnet'"):
            client.channel_binding("tls-unique-for-telnet")  # type: ignore[arg-type]  # it is none


# Signature algorithms

THEIRS = "RSA-PSS+SHA512:RSA-PSS+SHA256:ECDSA+SHA256:RSA+SHA256:RSA+SHA224"
OURS = "RSA+SHA256:RSA-PSS+SHA256:ECDSA+SHA256:RSA-PSS+SHA512:RSA+SHA384:RSA+SHA224"


@pytest.mark.feature("C8")
@in_both_versions
@pytest.mark.parametrize("honor_cipher_order", [True, False])
def test_shared_algorithms_stand_in_the_order_that_counts(version: str, honor_cipher_order: bool) -> None:
    client, server = engines(
        version,
        of_client=client_context(version, sigalgs=THEIRS),
        of_server=server_context(version, sigalgs=OURS, honor_cipher_order=honor_cipher_order),
    )
    expected = [
        name for name in (OURS if honor_cipher_order else THEIRS).split(":") if name in THEIRS.split(":")
    ]
    if version == "TLSv1.3":
        expected.remove("RSA+SHA224")
    assert server.info is not None
    assert client.info is not None
    assert list(server.info.shared_signature_algorithms) == expected
    assert client.info.shared_signature_algorithms == ()


@pytest.mark.feature("C8")
def test_names_are_those_of_node_js() -> None:
    numbers = (0x0403, 0x0807, 0x0808, 0x0804, 0x0809, 0x0401, 0x0402, 0x0203, 0x0904, 0x081A, 0x0708, 0xFFFF)
    names = ("ECDSA+SHA256", "Ed25519+UNDEF", "Ed448+UNDEF", "RSA-PSS+SHA256", "RSA-PSS+SHA256", "RSA+SHA256")
    assert shared_signature_algorithms(numbers, numbers, "TLSv1.3") == names
    assert shared_signature_algorithms(numbers, numbers, "TLSv1.2") == (*names, "DSA+SHA256", "ECDSA+SHA1")
    assert shared_signature_algorithms(numbers, (), "TLSv1.2") == ()


@pytest.mark.feature("C8")
def test_after_a_renegotiation_they_are_the_same() -> None:
    client, server = engines()
    assert server.info is not None
    before = server.info.shared_signature_algorithms
    assert before
    renegotiated(client, server)
    assert server.info.shared_signature_algorithms == before
