"""A context's options, as Node.js's own tests have them: which forms are taken, and what is presented.

More of these tables are in tests/test_context_options.py and tests/test_credentials.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from engine_pairs import node_table, shake_hands
from meetings import come_to, read_to_end
from parties import Party, party, trust

from trio_tlsnode import (
    Certificate,
    CertificateError,
    ConfigurationError,
    ConfigurationTypeError,
    SecureContext,
    TLSServer,
    TLSStream,
    wrap_client,
)

NODE = node_table("credential-forms")
OURS: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "text": bytes.decode,
    "array": bytearray,
    "view": memoryview,
}


def refusal(**options: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        SecureContext(**options)
    return caught.value


# Types


def given(form: Any, *contents: bytes) -> Any:
    """Return what a form of the table means; a list has one content for each of its items."""
    if isinstance(form, list):
        return [given(item, content) for item, content in zip(form, contents, strict=False)]
    if isinstance(form, dict):
        return {name: given(item, *contents) for name, item in form.items()}
    return OURS[form](contents[0]) if form in OURS else form


KEYS = [party(name).key_pem for name in ("ec", "agent2")]
CERTS = [party(name).single for name in ("ec", "agent2")]


@pytest.mark.feature("F3")
@pytest.mark.node("test-tls-options-boolean-check.js", "test-https-options-boolean-check.js")
@pytest.mark.parametrize(NODE["key_and_cert"]["columns"], NODE["key_and_cert"]["taken"])
def test_key_and_cert_take_the_forms_that_they_do_in_node(key: Any, cert: Any) -> None:
    context = SecureContext(key=given(key, *KEYS), cert=given(cert, *CERTS))
    assert context.has_identity == (bool(key) and bool(cert))


@pytest.mark.feature("F15")
@pytest.mark.node("test-tls-options-boolean-check.js", "test-https-options-boolean-check.js")
@pytest.mark.parametrize(("key", "cert", "place"), NODE["key_and_cert"]["refused"])
def test_key_and_cert_refuse_the_types_that_they_do_in_node(key: Any, cert: Any, place: str) -> None:
    error = refusal(key=given(key, *KEYS), cert=given(cert, *CERTS))
    assert type(error) is ConfigurationTypeError
    assert (error.code, error.option) == ("ERR_INVALID_ARG_TYPE", place)


@pytest.mark.feature("F2")
@pytest.mark.node("test-tls-options-boolean-check.js", "test-https-options-boolean-check.js")
@pytest.mark.parametrize("ca", NODE["ca"]["taken"])
def test_ca_takes_the_forms_that_it_does_in_node(ca: Any) -> None:
    SecureContext(ca=given(ca, *trust("ca1", "ca2")))


@pytest.mark.feature("F15")
@pytest.mark.node("test-tls-options-boolean-check.js", "test-https-options-boolean-check.js")
@pytest.mark.parametrize(("ca", "place"), NODE["ca"]["refused"])
def test_ca_refuses_the_types_that_it_does_in_node(ca: Any, place: str) -> None:
    error = refusal(ca=given(ca, *trust("ca1", "ca2")))
    assert (error.code, error.option) == ("ERR_INVALID_ARG_TYPE", place)


# Passphrases


def key_of_the_table(key: Any, form: str) -> Any:
    if isinstance(key, list):
        return [key_of_the_table(item, form) for item in key]
    if isinstance(key, dict):
        return {**key, "pem": key_of_the_table(key["pem"], form)}
    if key == "plain":
        return OURS[form](party("ec").key_pem)
    encrypted = party("ec").key.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"password")
    )
    return OURS[form](encrypted)


@pytest.mark.feature("F3")
@pytest.mark.node("test-tls-passphrase.js")
@pytest.mark.parametrize("form", OURS)
@pytest.mark.parametrize(NODE["passphrase"]["columns"], NODE["passphrase"]["taken"])
def test_a_key_opens_with_the_passphrases_that_it_does_in_node(
    key: Any, passphrase: str | None, form: str
) -> None:
    cert = [party("ec").single] if isinstance(key, list) else party("ec").single
    assert SecureContext(key=key_of_the_table(key, form), cert=cert, passphrase=passphrase).has_identity


@pytest.mark.feature("F3")
@pytest.mark.node("test-tls-passphrase.js")
@pytest.mark.parametrize("form", OURS)
@pytest.mark.parametrize(NODE["passphrase"]["columns"], NODE["passphrase"]["refused"])
def test_a_key_stays_shut_where_it_does_in_node(key: Any, passphrase: str | None, form: str) -> None:
    error = refusal(key=key_of_the_table(key, form), cert=party("ec").single, passphrase=passphrase)
    assert error.code == "ERR_OSSL_BAD_DECRYPT"
    assert "bad decrypt" in str(error)


@pytest.mark.feature("F4")
@pytest.mark.node("test-tls-legacy-pfx.js")
def test_pkcs12_as_old_programs_write_it_is_read(openssl: str, tmp_path: Path) -> None:
    (tmp_path / "both.pem").write_bytes(party("ec").key_pem + party("ec").single)
    command = [openssl, "pkcs12", "-export", "-legacy", "-certpbe", "PBE-SHA1-RC2-40"]
    bundle = tmp_path / "legacy.pfx"
    subprocess.run(
        [*command, "-in", tmp_path / "both.pem", "-out", bundle, "-passout", "pass:legacy"],
        check=True,
        capture_output=True,
    )
    # Node.js with OpenSSL 3: ERR_CRYPTO_UNSUPPORTED_OPERATION, "Unsupported PKCS12 PFX data".
    assert SecureContext(pfx=bundle, passphrase="legacy").has_identity


# Several identities


def pairs(*parties: Party) -> dict[str, Any]:
    """Return keys, and certificates in the other order."""
    return {"key": [one.key_pem for one in parties], "cert": [one.cert for one in reversed(parties)]}


IDENTITIES: dict[str, tuple[str, str, Callable[[Party, Party], dict[str, Any]]]] = {
    "pairs": ("ec", "agent1", pairs),
    "pairs with chains": ("ec10", "agent10", pairs),
    "EC beside PKCS#12": (
        "ec10",
        "agent10",
        lambda ec, rsa: {"key": ec.key_pem, "cert": ec.cert, "pfx": rsa.pfx(b"sample")},
    ),
    "RSA beside PKCS#12": (
        "ec10",
        "agent10",
        lambda ec, rsa: {"key": rsa.key_pem, "cert": rsa.cert, "pfx": ec.pfx(b"sample")},
    ),
    "PKCS#12": ("ec", "agent1", lambda ec, rsa: {"pfx": [rsa.pfx(b"sample"), ec.pfx(b"sample")]}),
    "PKCS#12 with chains": (
        "ec10",
        "agent10",
        lambda ec, rsa: {"pfx": [ec.pfx(b"sample"), (rsa.pfx(b"another"), "another")]},
    ),
}
SUITES = {
    "EC": ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    "RSA": ("ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
}


@pytest.mark.feature("F3")
@pytest.mark.feature("F4")
@pytest.mark.node("test-tls-multi-key.js")
@pytest.mark.parametrize(("ec", "rsa", "options"), IDENTITIES.values(), ids=IDENTITIES)
@pytest.mark.parametrize("kind", SUITES)
def test_the_suite_decides_which_of_two_identities_is_shown(
    kind: str, ec: str, rsa: str, options: Callable[[Party, Party], dict[str, Any]]
) -> None:
    server = SecureContext(**options(party(ec), party(rsa)), passphrase="sample")
    name, standard_name = SUITES[kind]
    client = SecureContext(
        ca=trust("ca1", "ca2", "ca5", "ec"), ciphers=name, min_version="TLSv1.2", max_version="TLSv1.2"
    )
    judged: list[tuple[str, Any]] = []

    def judge(host: str, certificate: Certificate | None) -> None:
        assert certificate is not None
        judged.append((host, certificate.subject["CN"]))

    info = shake_hands(client, server, host="localhost", check_server_identity=judge).info
    shown = party(ec if kind == "EC" else rsa)
    assert info.authorized
    assert info.peer_certificate is not None
    assert info.peer_certificate.x509 == shown.certificate
    assert judged == [("localhost", info.peer_certificate.subject["CN"])]
    assert (info.peer_certificate.asn1_curve == "prime256v1") == (kind == "EC")
    assert (info.peer_certificate.exponent is not None) == (kind == "RSA")
    assert (info.cipher.name, info.cipher.standard_name, info.cipher.version) == (
        name,
        standard_name,
        "TLSv1.2",
    )


# Another context while the server runs


@pytest.mark.feature("B14")
@pytest.mark.node("test-tls-set-secure-context.js")
async def test_contexts_take_turns_and_an_open_connection_lives_through_them(nursery: trio.Nursery) -> None:
    async def echo(stream: TLSStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    good, bad = (SecureContext(**party(name).options) for name in ("agent1", "agent2"))
    server = TLSServer(echo, good)
    client = SecureContext(ca=trust("ca1"))
    first = await wrap_client(come_to(server, nursery), host="agent1", context=client)
    said = b""
    for context, word in ((good, b"multi-"), (bad, b"request-"), (good, b"success-"), (bad, b"fun!")):
        server.set_secure_context(context)
        transport = come_to(server, nursery)
        if context is good:
            stream = await wrap_client(transport, host="agent1", context=client)
            await stream.send_eof()
            assert await read_to_end(stream) == b""
        else:
            with pytest.raises(CertificateError) as caught:
                await wrap_client(transport, host="agent1", context=client)
            assert caught.value.code == "DEPTH_ZERO_SELF_SIGNED_CERT"
        await first.send_all(word)
        said += await first.receive_some()
    assert said == b"multi-request-success-fun!"
    await first.aclose()
