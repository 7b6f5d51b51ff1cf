"""Credentials: every accepted form gives the same values, everything else an error that says what to do."""

from __future__ import annotations

import base64
import builtins
import contextlib
import datetime as dt
import errno
import functools
import io
import itertools
import os
import pathlib
import ssl
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_tlsnode.credentials import (
    CertifiedKey,
    Credentials,
    PrivateKey,
    load_credentials,
    load_crls,
    load_trusted_certificates,
)
from trio_tlsnode.errors import ConfigurationError, ConfigurationTypeError

# What is made: a root, an intermediate, and one leaf of each kind of key below the intermediate

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
SECRET = "correct horse"
OPTIONS = ["key", "cert", "pfx", "ca", "crl"]


MadeKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def issue(subject: str, key: MadeKey, issuer: str, issuer_key: MadeKey) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(sum(subject.encode()))
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=1))
    )
    return builder.sign(issuer_key, hashes.SHA256())


@functools.cache
def private_key(kind: str) -> MadeKey:
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def certificate(kind: str) -> x509.Certificate:
    issuer = {"root": "root", "intermediate": "root"}.get(kind, "intermediate")
    return issue(kind, private_key(kind), issuer, private_key(issuer))


def cert_pem(*kinds: str) -> bytes:
    return b"".join(certificate(kind).public_bytes(Encoding.PEM) for kind in kinds)


@functools.cache
def key_pem(kind: str, form: PrivateFormat = PrivateFormat.PKCS8, passphrase: str = "") -> bytes:
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    return private_key(kind).private_bytes(Encoding.PEM, form, encryption)


@functools.cache
def pfx(
    kind: str = "ec", *, passphrase: str = SECRET, key: bool = True, cert: bool = True, legacy: bool = False
) -> bytes:
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(1)
    if legacy:
        builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC).hmac_hash(
            hashes.SHA1()
        )
    return pkcs12.serialize_key_and_certificates(
        None,
        private_key(kind) if key else None,
        certificate(kind) if cert else None,
        [certificate("root"), certificate("intermediate")] if cert else None,
        builder.build(passphrase.encode()) if passphrase else NoEncryption(),
    )


@functools.cache
def crl_pem() -> bytes:
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name("root"))
        .last_update(NOW)
        .next_update(NOW + dt.timedelta(days=1))
        .sign(private_key("root"), hashes.SHA256())
    )
    return crl.public_bytes(Encoding.PEM)


def key_der(kind: str = "ec") -> bytes:
    return private_key(kind).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def block(label: str, der: bytes | bytearray) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), body, label.encode())


def public(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def same_key(certified: CertifiedKey, kind: str) -> bool:
    return public(certified.private_key) == public(private_key(kind))


def pair(kind: str, *issuers: str) -> CertifiedKey:
    return CertifiedKey(private_key(kind), (certificate(kind), *map(certificate, issuers)))


def load(**options: Any) -> Any:
    if "ca" in options:
        return load_trusted_certificates(**options)
    if "crl" in options:
        return load_crls(**options)
    return load_credentials(**options)


def refused(place: str, code: str, **options: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load(**options)
    assert (caught.value.option, caught.value.code) == (place, code)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return caught.value


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    load_credentials(key=key_pem("ec"), cert=cert_pem("ec"))  # what is imported late, is imported now

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a file was opened")

    for module in (builtins, io, os):
        monkeypatch.setattr(module, "open", refuse)


# Accepted forms

FORMS: dict[str, Callable[[bytes], Any]] = {
    "bytes": lambda pem: pem,
    "str": lambda pem: pem.decode(),
    "bytearray": bytearray,
    "memoryview": memoryview,
    "no newline at the end": lambda pem: pem.rstrip(),
    "CRLF": lambda pem: pem.replace(b"\n", b"\r\n"),
    "a stray END before": lambda pem: b"-----END CERTIFICATE-----\n" + pem,
    "text before": lambda pem: "Bag Attributes\n  ¡localKeyID!: 01\n".encode() + pem,
    "one item in a list": lambda pem: [pem],
    "one item in a tuple": lambda pem: (pem,),
}


@pytest.mark.feature("F3")
@pytest.mark.node("test-tls-cert-regression.js")
@pytest.mark.parametrize("form", FORMS)
def test_content_is_accepted_in_every_form(form: str, no_files: None) -> None:
    shape = FORMS[form]
    loaded = load_credentials(key=shape(key_pem("ec")), cert=shape(cert_pem("ec", "intermediate")))
    assert loaded == Credentials(certified_keys=(pair("ec", "intermediate"),))
    assert same_key(loaded.certified_keys[0], "ec")
    assert load_trusted_certificates(shape(cert_pem("root"))) == (certificate("root"),)
    assert len(load_crls(shape(crl_pem()))) == 1


@pytest.mark.feature("F3")
@pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
def test_keys_of_each_kind_are_accepted_as_pem_der_and_objects(kind: str, no_files: None) -> None:
    der = key_der(kind)
    encrypted = private_key(kind).private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET.encode())
    )
    certificates: list[bytes | x509.Certificate] = [
        cert_pem(kind),
        certificate(kind).public_bytes(Encoding.DER),
        certificate(kind),
    ]
    keys = [key_pem(kind), der, encrypted, private_key(kind)]
    for key, cert in zip(keys, itertools.cycle(certificates), strict=False):
        loaded = load_credentials(key=key, cert=cert, passphrase=SECRET)
        assert loaded.certified_keys == (pair(kind),)
        assert same_key(loaded.certified_keys[0], kind)


@pytest.mark.feature("F3")
@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_traditional_keys_are_accepted_plain_and_encrypted(kind: str) -> None:
    plain = key_pem(kind, PrivateFormat.TraditionalOpenSSL)
    encrypted = key_pem(kind, PrivateFormat.TraditionalOpenSSL, SECRET)
    assert b"Proc-Type: 4,ENCRYPTED" in encrypted
    for key in (plain, encrypted, encrypted.replace(b"\n", b"\r\n")):
        loaded = load_credentials(key=key, cert=cert_pem(kind), passphrase=SECRET)
        assert same_key(loaded.certified_keys[0], kind)


@pytest.mark.feature("F3")
def test_files_are_read_from_paths(tmp_path: pathlib.Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(cert_pem("ec") + b"\n" + key_pem("ec"))
    bundle = tmp_path / "ec.pfx"
    bundle.write_bytes(pfx())
    loaded = load_credentials(key=both, cert=[both], pfx=[(bundle, SECRET)])
    assert loaded.certified_keys == (pair("ec"), pair("ec", "intermediate", "root"))
    assert load_trusted_certificates(both) == (certificate("ec"),)


@pytest.mark.feature("F2")
@pytest.mark.parametrize("label", ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"])
def test_each_label_of_a_certificate_is_known(label: str) -> None:
    pem = block(label, certificate("root").public_bytes(Encoding.DER))
    assert load_trusted_certificates(pem) == (certificate("root"),)


@pytest.mark.feature("F2")
def test_trust_settings_behind_a_trusted_certificate_are_left_out() -> None:
    server_auth = bytes.fromhex("300c 300a 0608 2b06010505070301")
    pem = block("TRUSTED CERTIFICATE", certificate("root").public_bytes(Encoding.DER) + server_auth)
    assert load_trusted_certificates(pem) == (certificate("root"),)


@pytest.mark.feature("F2")
def test_trusted_certificates_are_kept_once_and_in_order() -> None:
    several = b"# leaf, no CA\n" + cert_pem("ec", "root")
    found = load_trusted_certificates([several.decode(), certificate("intermediate"), cert_pem("root")])
    assert found == (certificate("ec"), certificate("root"), certificate("intermediate"))


@pytest.mark.feature("F2")
def test_an_empty_list_trusts_nothing_and_an_unset_option_leaves_the_defaults() -> None:
    assert load_trusted_certificates([]) == ()
    for unset in (None, False, "", 0):
        assert load_trusted_certificates(unset) is None


@pytest.mark.feature("F3")
@pytest.mark.parametrize("unset", [None, False, "", 0, [], ()])
def test_unset_options_give_nothing(unset: Any) -> None:
    assert load_credentials(key=unset, cert=unset, pfx=unset) == Credentials()
    assert load_crls(unset) == ()


@pytest.mark.feature("F5")
def test_revocation_lists_are_kept_once() -> None:
    crl = x509.load_pem_x509_crl(crl_pem())
    found = load_crls([crl, crl_pem() + crl_pem(), crl.public_bytes(Encoding.DER)])
    assert [each.crl for each in found] == [crl]
    assert hash(found) == hash(load_crls(crl_pem()))


# Which key belongs to which chain


@pytest.mark.feature("F3")
def test_keys_and_chains_are_matched_in_any_order() -> None:
    loaded = load_credentials(
        key=[key_pem("ec"), key_pem("ed25519"), key_pem("rsa")],
        cert=[cert_pem("rsa"), cert_pem("ec", "intermediate"), cert_pem("ed25519")],
    )
    assert loaded.certified_keys == (pair("rsa"), pair("ec", "intermediate"), pair("ed25519"))
    assert all(map(same_key, loaded.certified_keys, ["rsa", "ec", "ed25519"]))


@pytest.mark.feature("F3")
def test_several_keys_may_stand_in_one_pem() -> None:
    loaded = load_credentials(key=key_pem("ec") + key_pem("rsa"), cert=[cert_pem("rsa"), cert_pem("ec")])
    assert loaded.certified_keys == (pair("rsa"), pair("ec"))


@pytest.mark.feature("F3")
def test_a_chain_may_be_given_in_pieces() -> None:
    pieces: list[bytes | x509.Certificate] = [certificate("ec"), cert_pem("intermediate")]
    assert load_credentials(key=key_pem("ec"), cert=[pieces]).certified_keys == (pair("ec", "intermediate"),)
    refused("cert[0]", "ERR_OSSL_PEM_NO_START_LINE", cert=[[]])
    refused("cert[0][1]", "ERR_INVALID_ARG_TYPE", cert=[[certificate("ec"), pieces]])


@pytest.mark.feature("F3")
def test_a_key_or_a_certificate_alone_is_accepted_and_shown_as_unpaired() -> None:
    assert load_credentials(key=key_pem("ec")).unpaired_keys == (public(private_key("ec")),)
    assert load_credentials(cert=cert_pem("ec")).unpaired_chains == ((certificate("ec"),),)
    assert load_credentials(key=key_pem("rsa"), pfx=pfx(), passphrase=SECRET).certified_keys == (
        pair("ec", "intermediate", "root"),
    )


@pytest.mark.feature("F3")
def test_a_key_of_another_certificate_is_refused_with_both_places(tmp_path: pathlib.Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    key.write_bytes(key_pem("rsa"))
    cert.write_bytes(cert_pem("ec"))
    error = refused("key", "ERR_OSSL_X509_KEY_VALUES_MISMATCH", key=key, cert=cert)
    assert error.path == str(key)
    assert "key values mismatch" in error.reason
    assert str(cert) in error.reason


@pytest.mark.feature("F3")
def test_what_finds_no_partner_among_others_is_named() -> None:
    two_keys, two_chains = [key_pem("ec"), key_pem("rsa")], [cert_pem("ec"), cert_pem("rsa")]
    mismatch = "ERR_OSSL_X509_KEY_VALUES_MISMATCH"
    refused("key[1]", mismatch, key=two_keys, cert=cert_pem("ec"))
    refused("cert[1]", mismatch, key=key_pem("ec"), cert=two_chains)


@pytest.mark.feature("F3")
def test_a_chain_in_the_wrong_order_or_split_over_items_is_explained() -> None:
    mismatch = "ERR_OSSL_X509_KEY_VALUES_MISMATCH"
    error = refused("key", mismatch, key=key_pem("ec"), cert=cert_pem("intermediate", "ec"))
    assert "its certificate is not the first in cert" in error.reason
    error = refused("cert[1]", mismatch, key=key_pem("ec"), cert=[cert_pem("ec"), cert_pem("intermediate")])
    assert "cert=[[ours, issuer]]" in error.reason


@pytest.mark.feature("F3")
def test_equal_credentials_are_equal_and_hashable_whatever_their_form() -> None:
    plain = load_credentials(key=[key_pem("ec"), key_pem("rsa")], cert=[cert_pem("rsa"), cert_pem("ec")])
    other = load_credentials(
        key=[private_key("rsa"), key_pem("ec", passphrase=SECRET)],
        cert=[certificate("rsa"), cert_pem("ec")],
        passphrase=SECRET,
    )
    assert (plain, hash(plain)) == (other, hash(other))
    assert plain != load_credentials(key=key_pem("ec"), cert=cert_pem("ec"))


@pytest.mark.feature("F3")
def test_nothing_shows_a_secret() -> None:
    loaded = load_credentials(key=[(key_pem("ec", passphrase=SECRET), SECRET)], cert=cert_pem("ec"))
    assert repr(loaded.certified_keys[0]).startswith("CertifiedKey(chain=(<Certificate")
    assert SECRET not in repr(loaded)
    assert "PrivateKey" not in repr(loaded)


RSA_ALGORITHM = bytes.fromhex("300d 0609 2a864886f70d010101 0500")
RSA_PSS_ALGORITHM = bytes.fromhex("300d 0609 2a864886f70d01010a 3000")


@pytest.mark.feature("F3")
def test_an_rsa_pss_key_goes_with_its_certificate_in_openssl(tmp_path: pathlib.Path) -> None:
    """Both are made from the plain RSA pair; that this breaks the certificate's signature does not matter."""
    key = key_der("rsa")
    cert = certificate("rsa").public_bytes(Encoding.DER)
    loaded = load_credentials(
        key=key.replace(RSA_ALGORITHM, RSA_PSS_ALGORITHM), cert=cert.replace(RSA_ALGORITHM, RSA_PSS_ALGORITHM)
    )
    (certified,) = loaded.certified_keys
    assert_openssl_takes(certified, tmp_path)


@pytest.mark.feature("F3")
@pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
def test_the_private_key_is_handed_to_openssl_as_pkcs8(kind: str, tmp_path: pathlib.Path) -> None:
    assert_openssl_takes(pair(kind), tmp_path)


def assert_openssl_takes(certified: CertifiedKey, tmp_path: pathlib.Path) -> None:
    pem = tmp_path / "both.pem"
    pem.write_bytes(
        block("PRIVATE KEY", certified.private_key_der())
        + b"".join(each.public_bytes(Encoding.PEM) for each in certified.chain)
    )
    ssl.create_default_context().load_cert_chain(pem)


# Passphrases


def encrypted_key() -> bytes:
    return key_pem("ec", passphrase=SECRET)


@pytest.mark.feature("F3")
@pytest.mark.node("test-tls-passphrase.js")
@pytest.mark.parametrize(
    ("key", "passphrase"),
    [
        (lambda: encrypted_key(), SECRET),
        (lambda: encrypted_key().decode(), SECRET.encode()),
        (lambda: [encrypted_key()], bytearray(SECRET.encode())),
        (lambda: [encrypted_key()], memoryview(SECRET.encode())),
        (lambda: [(encrypted_key(), SECRET)], None),
        (lambda: [(encrypted_key(), SECRET)], "another"),
        (lambda: [(encrypted_key(), None)], SECRET),
        (lambda: [{"pem": encrypted_key(), "passphrase": SECRET}], None),
        (lambda: [{"pem": encrypted_key(), "passphrase": SECRET}], "another"),
        (lambda: [{"pem": encrypted_key()}], SECRET),
        (lambda: key_pem("ec"), "ignored"),
        (lambda: [{"pem": key_pem("ec"), "passphrase": "ignored"}], None),
        (lambda: [(private_key("ec"), "ignored")], "ignored"),
    ],
)
def test_the_passphrase_of_an_item_wins_and_a_plain_key_ignores_any(key: Any, passphrase: Any) -> None:
    loaded = load_credentials(key=key(), cert=cert_pem("ec"), passphrase=passphrase)
    assert same_key(loaded.certified_keys[0], "ec")


@pytest.mark.feature("F3")
@pytest.mark.node("test-tls-passphrase.js")
@pytest.mark.parametrize(
    ("option", "key", "passphrase"),
    [
        ("key", lambda: encrypted_key(), None),
        ("key", lambda: encrypted_key(), "invalid"),
        ("key", lambda: encrypted_key(), ""),
        ("key", lambda: encrypted_key(), "\ud800"),
        ("key[0]", lambda: [encrypted_key()], None),
        ("key[0]", lambda: [{"pem": encrypted_key()}], "invalid"),
        ("key[0]", lambda: [{"pem": encrypted_key(), "passphrase": "invalid"}], SECRET),
        ("key[1]", lambda: [key_pem("ec"), (encrypted_key(), "")], SECRET),
        ("key", lambda: key_pem("ec", PrivateFormat.TraditionalOpenSSL, SECRET), "invalid"),
    ],
)
def test_a_missing_or_wrong_passphrase_is_a_bad_decrypt(option: str, key: Any, passphrase: Any) -> None:
    error = refused(option, "ERR_OSSL_BAD_DECRYPT", key=key(), passphrase=passphrase)
    assert "bad decrypt" in error.reason
    assert isinstance(error.__cause__, (ValueError, TypeError))


# PKCS#12


@pytest.mark.feature("F4")
@pytest.mark.node("test-tls-legacy-pfx.js", "test-crypto.js")
@pytest.mark.parametrize(
    ("given", "passphrase"),
    [
        (lambda: pfx(), SECRET),
        (lambda: pfx(), SECRET.encode()),
        (lambda: [pfx()], SECRET),
        (lambda: [(pfx(), SECRET)], "another"),
        (lambda: [{"buf": pfx(), "passphrase": SECRET}], "another"),
        (lambda: [{"buf": bytearray(pfx())}], SECRET),
        (lambda: pfx(legacy=True), SECRET),
        (lambda: pfx(passphrase=""), None),
        (lambda: pfx(passphrase=""), ""),
    ],
)
def test_pkcs12_gives_a_pair_its_chain_and_trusted_certificates(
    given: Any, passphrase: Any, no_files: None
) -> None:
    loaded = load_credentials(pfx=given(), passphrase=passphrase)
    assert loaded.certified_keys == (pair("ec", "intermediate", "root"),)
    assert same_key(loaded.certified_keys[0], "ec")
    assert set(loaded.trusted) == {certificate("intermediate"), certificate("root")}


@pytest.mark.feature("F4")
def test_several_pkcs12_and_pems_go_together() -> None:
    loaded = load_credentials(
        key=key_pem("ed25519"),
        cert=cert_pem("ed25519"),
        pfx=[pfx("rsa"), (pfx(passphrase=""), "")],
        passphrase=SECRET,
    )
    assert [each.chain[0] for each in loaded.certified_keys] == [
        certificate(kind) for kind in ("ed25519", "rsa", "ec")
    ]
    assert len(loaded.trusted) == 2


@pytest.mark.feature("F4")
def test_only_issuers_are_presented_from_pkcs12() -> None:
    """Of two CAs of one name, the one that signed; and nothing that is unrelated."""
    impostor = issue("intermediate", private_key("other"), "root", private_key("other"))
    others = [certificate("rsa"), impostor, certificate("root"), certificate("intermediate")]
    bundle = pkcs12.serialize_key_and_certificates(
        None, private_key("ec"), certificate("ec"), others, NoEncryption()
    )
    loaded = load_credentials(pfx=bundle)
    assert loaded.certified_keys == (pair("ec", "intermediate", "root"),)
    assert set(loaded.trusted) == set(others)


@pytest.mark.feature("F4")
def test_pkcs12_without_the_issuer_presents_the_certificate_alone() -> None:
    bundle = pkcs12.serialize_key_and_certificates(
        None, private_key("ec"), certificate("ec"), [certificate("root")], NoEncryption()
    )
    assert load_credentials(pfx=bundle).certified_keys == (pair("ec"),)


@pytest.mark.feature("F4")
@pytest.mark.filterwarnings("ignore:PKCS#12 bundle could not be parsed as DER:UserWarning")
def test_pkcs12_of_indefinite_length_is_accepted() -> None:
    der = pfx()
    assert der[1] == 0x82
    loaded = load_credentials(pfx=b"\x30\x80" + der[4:] + b"\0\0", passphrase=SECRET)
    assert loaded.certified_keys == (pair("ec", "intermediate", "root"),)


@pytest.mark.feature("F4")
@pytest.mark.node("test-crypto.js")
@pytest.mark.parametrize("passphrase", [None, "", "invalid", b"\xff", "a\0b", "\ud800"])
def test_a_missing_or_wrong_passphrase_of_pkcs12_is_a_mac_failure(passphrase: Any) -> None:
    error = refused("pfx", "ERR_OSSL_PKCS12_MAC_VERIFY_FAILURE", pfx=pfx(), passphrase=passphrase)
    assert "mac verify failure" in error.reason


@pytest.mark.feature("F4")
@pytest.mark.node("test-tls-invalid-pfx.js")
def test_pkcs12_that_lacks_something_is_refused() -> None:
    failed = "ERR_CRYPTO_OPERATION_FAILED"
    error = refused("pfx", failed, pfx=pfx(key=False), passphrase=SECRET)
    assert error.reason.startswith("pfx: Unable to load private key from PFX data")
    error = refused("pfx[0]", failed, pfx=[pfx(cert=False)], passphrase=SECRET)
    assert error.reason.startswith("pfx[0]: Unable to load certificate from PFX data")


@pytest.mark.feature("F4")
def test_a_key_that_cannot_sign_is_refused_in_pkcs12_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(data: bytes, password: bytes | None) -> None:
        raise TypeError("Key must be RSA, DSA, EllipticCurve, ED25519, or ED448 private key, or None.")

    monkeypatch.setattr(pkcs12, "load_pkcs12", unsupported)
    error = refused("pfx", "ERR_CRYPTO_UNSUPPORTED_OPERATION", pfx=pfx(), passphrase=SECRET)
    assert "Unsupported PKCS12 PFX data" in error.reason


@pytest.mark.feature("F4")
@pytest.mark.node("test-crypto.js")
def test_what_is_no_pkcs12_is_named() -> None:
    error = refused("pfx", "ERR_OSSL_ASN1_NOT_ENOUGH_DATA", pfx="sample")
    assert "not enough data" in error.reason
    refused("pfx", "ERR_OSSL_ASN1_NOT_ENOUGH_DATA", pfx=pfx()[:500], passphrase=SECRET)
    for content in (cert_pem("ec"), certificate("ec").public_bytes(Encoding.DER)):
        error = refused("pfx", "ERR_OSSL_ASN1_WRONG_TAG", pfx=content)
        assert "a certificate, which belongs into cert= or ca=" in error.reason


# What cannot be read


@pytest.mark.feature("F3")
@pytest.mark.parametrize("option", OPTIONS)
def test_a_file_that_cannot_be_read_is_named(
    option: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing.pem"
    assert refused(option, "ENOENT", **{option: missing}).path == str(missing)
    assert "folder" in refused(option, "EISDIR", **{option: tmp_path}).reason
    refused(option, "ENAMETOOLONG", **{option: pathlib.Path("x" * 5000)})
    refused(option, "ERR_INVALID_ARG_VALUE", **{option: pathlib.Path("a\0b")})

    def forbid(*args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    with pytest.raises(ConfigurationError, match="is no complete DER") as caught:
        load(**{option: [junk]})
    assert (caught.value.option, caught.value.path) == (f"{option}[0]", str(junk))

    monkeypatch.setattr(builtins, "open", forbid)
    error = refused(option, "EACCES", **{option: missing})
    assert "permission" in error.reason
    assert isinstance(error.__cause__, PermissionError)


NO_START = "ERR_OSSL_PEM_NO_START_LINE"
FAILED = "ERR_CRYPTO_OPERATION_FAILED"
ANOTHER_KIND: dict[str, tuple[Callable[[], str | bytes], str]] = {
    "nothing": (lambda: b" \n", "it is empty"),
    "a path in a str": (lambda: "/etc/ssl/key.pem", "for a file give pathlib.Path(...)"),
    "a public key": (
        lambda: block("PUBLIC KEY", public(private_key("ec"))),
        "PEM, but of another kind: PUBLIC KEY",
    ),
    "an OpenSSH key": (lambda: key_pem("ec", PrivateFormat.OpenSSH), "ssh-keygen"),
    "PKCS#12": (lambda: pfx(), "PKCS#12 data, which belongs into pfx="),
    "a key": (lambda: key_pem("ec"), "a private key, which belongs into key="),
    "a key in DER": (
        lambda: key_der(),
        "a private key, which belongs into key=",
    ),
    "a certificate": (lambda: cert_pem("ec"), "a certificate, which belongs into cert= or ca="),
    "a CRL": (lambda: crl_pem(), "a certificate revocation list, which belongs into crl="),
    "a CRL in DER": (
        lambda: x509.load_pem_x509_crl(crl_pem()).public_bytes(Encoding.DER),
        "a certificate revocation list, which belongs into crl=",
    ),
}


@pytest.mark.feature("F2")
@pytest.mark.parametrize(
    ("option", "given"),
    [
        (option, given)
        for option in ("key", "cert", "ca", "crl")
        for given, (_, words) in ANOTHER_KIND.items()
        if f"{option}=" not in words
    ],
)
def test_something_of_another_kind_is_called_by_its_name(option: str, given: str) -> None:
    content, words = ANOTHER_KIND[given]
    error = refused(option, FAILED if option == "crl" else NO_START, **{option: content()})
    assert words in error.reason


@pytest.mark.feature("F3")
@pytest.mark.parametrize(
    ("option", "label", "body", "code"),
    [
        ("cert", "CERTIFICATE", "AAAA", "ERR_OSSL_PEM_ASN1_LIB"),
        ("ca", "TRUSTED CERTIFICATE", "AAAA", "ERR_OSSL_PEM_ASN1_LIB"),
        ("ca", "CERTIFICATE", "A!AA", "ERR_OSSL_PEM_BAD_BASE64_DECODE"),
        ("crl", "X509 CRL", "AAAA", FAILED),
        ("crl", "X509 CRL", "A!AA", FAILED),
        ("key", "PRIVATE KEY", "AAAA", "ERR_OSSL_UNSUPPORTED"),
        ("key", "RSA PRIVATE KEY", "A!AA", "ERR_OSSL_UNSUPPORTED"),
    ],
)
def test_a_damaged_body_is_refused_and_its_cause_kept(option: str, label: str, body: str, code: str) -> None:
    junk = f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"
    error = refused(option, code, **{option: junk})
    assert "damaged" in error.reason
    assert isinstance(error.__cause__, ValueError)
    if option == "ca":
        refused(option, code, **{option: cert_pem("root").decode() + junk})


@pytest.mark.feature("F3")
@pytest.mark.parametrize(
    "content",
    [
        lambda: cert_pem("ec")[:-30],
        lambda: cert_pem("ec")[:-30] + cert_pem("root"),
        lambda: cert_pem("ec").replace(b"END CERTIFICATE", b"END X"),
    ],
)
def test_a_block_that_does_not_end_is_refused(content: Any) -> None:
    for option in ("key", "cert", "ca", "crl", "pfx"):
        refused(option, "ERR_OSSL_PEM_BAD_END_LINE", **{option: content()})


@pytest.mark.feature("F3")
def test_line_ends_spelt_as_backslash_n_are_recognised() -> None:
    for option, pem in (("key", key_pem("ec")), ("cert", cert_pem("ec"))):
        with pytest.raises(ConfigurationError, match="backslash and n"):
            load(**{option: pem.replace(b"\n", rb"\n")})


@pytest.mark.feature("F3")
def test_a_key_that_cannot_sign_is_refused() -> None:
    key = x25519.X25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert "cannot sign" in refused("key", "ERR_SSL_UNKNOWN_CERTIFICATE_TYPE", key=pem).reason
    refused("key", "ERR_INVALID_ARG_TYPE", key=key)


@pytest.mark.feature("F3")
def test_a_certificate_with_an_unknown_kind_of_key_is_refused() -> None:
    der = (
        certificate("ed25519")
        .public_bytes(Encoding.DER)
        .replace(bytes.fromhex("06032b6570"), bytes.fromhex("06032b6579"))
    )
    refused("cert", "ERR_SSL_UNKNOWN_CERTIFICATE_TYPE", cert=der)


# Wrong types

TYPE_ERROR = "ERR_INVALID_ARG_TYPE"


@pytest.mark.feature("F15")
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("wrong", [True, 1, 1.5, {}, {"pem": b""}, object(), {b"set"}, iter([]), str, 0.0])
def test_a_value_of_a_wrong_type_is_refused_with_nodes_words(option: str, wrong: Any) -> None:
    error = refused(option, TYPE_ERROR, **{option: wrong})
    assert isinstance(error, ConfigurationTypeError)
    assert isinstance(error, TypeError)
    assert f'The "options.{option}" property must be of type str, bytes' in error.reason
    assert error.reason.endswith(f"Received an instance of {type(wrong).__name__}")


@pytest.mark.feature("F15")
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("wrong", [True, False, None, 0])
def test_a_wrong_item_is_reported_by_its_place(option: str, wrong: Any) -> None:
    good: dict[str, Any] = {
        "key": key_pem("ec"),
        "cert": cert_pem("ec"),
        "pfx": pfx(passphrase=""),
        "ca": certificate("ec"),
        "crl": crl_pem(),
    }
    for items, index in (([wrong, good[option]], 0), ([good[option], wrong], 1), ([wrong, 1], 0)):
        refused(f"{option}[{index}]", TYPE_ERROR, **{option: items})


@pytest.mark.feature("F15")
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("empty", ["", b""])
def test_empty_content_is_an_error_in_a_list(option: str, empty: Any) -> None:
    with pytest.raises(ConfigurationError, match="it is empty") as caught:
        load(**{option: [empty]})
    assert caught.value.option == f"{option}[0]"


@pytest.mark.feature("F15")
def test_wrong_types_of_objects_and_forms_are_refused() -> None:
    refused("cert", TYPE_ERROR, key=True, cert=True)  # the certificate is looked at first, as in Node
    refused("key", TYPE_ERROR, key=certificate("ec"))
    refused("cert", TYPE_ERROR, cert=private_key("ec"))
    refused("key[0]", TYPE_ERROR, key=[{}])
    refused("key[0]", TYPE_ERROR, key=[{"pem": 1}])
    refused("key[0]", TYPE_ERROR, key=[(key_pem("ec"), SECRET, SECRET)])
    refused("ca[0]", TYPE_ERROR, ca=[[certificate("ec")]])
    refused("crl", TYPE_ERROR, crl=certificate("ec"))

    class NoPath(os.PathLike[str]):
        def __fspath__(self) -> Any:
            return 1

    refused("key", TYPE_ERROR, key=NoPath())


@pytest.mark.feature("F15")
@pytest.mark.parametrize("wrong", [1, 0, True, False, [], {}])
def test_a_passphrase_of_a_wrong_type_is_refused(wrong: Any) -> None:
    refused("passphrase", TYPE_ERROR, key=key_pem("ec"), passphrase=wrong)
    refused("key[0].passphrase", TYPE_ERROR, key=[(key_pem("ec"), wrong)])
    refused("pfx[0].passphrase", TYPE_ERROR, pfx=[{"buf": pfx(), "passphrase": wrong}])


# Garbage gives a typed error or a value

# Hypothesis needs two seconds to prepare the whole of Unicode.
TEXT = st.text("aZ0 -=+/\n\0é\N{SNOWMAN}")
GARBAGE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXT
    | st.binary()
    | st.builds(pathlib.PurePath, TEXT)
    | st.sampled_from(
        [block("CERTIFICATE", b"0"), block("PRIVATE KEY", b"0"), b"0\x82", b"-----BEGIN X-----"]
    ),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.sampled_from(["pem", "buf"]), inner)
    ),
    max_leaves=6,
)
PASSPHRASES = st.none() | TEXT | st.binary() | st.just("\ud800")


def load_or_refuse(option: str, value: object, passphrase: object) -> None:
    """Any other exception fails the test; what is loaded must be hashable."""
    options = {option: value, "passphrase": passphrase} if option in ("key", "pfx") else {option: value}
    with contextlib.suppress(ConfigurationError):
        hash(load(**options))


@pytest.mark.feature("F15")
@pytest.mark.parametrize("option", OPTIONS)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(value=GARBAGE, passphrase=PASSPHRASES)
def test_garbage_gives_a_value_or_a_typed_error(option: str, value: object, passphrase: object) -> None:
    load_or_refuse(option, value, passphrase)


@pytest.mark.feature("F15")
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.filterwarnings("ignore:PKCS#12 bundle could not be parsed as DER:UserWarning")
@pytest.mark.parametrize("option", OPTIONS)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(position=st.integers(0, 2000), value=st.integers(0, 255), passphrase=PASSPHRASES)
def test_one_changed_byte_gives_a_value_or_a_typed_error(
    option: str, position: int, value: int, passphrase: object
) -> None:
    label, der = {
        "key": ("PRIVATE KEY", key_der()),
        "cert": ("CERTIFICATE", certificate("ec").public_bytes(Encoding.DER)),
        "pfx": ("PKCS12", pfx(passphrase="")),
        "ca": ("TRUSTED CERTIFICATE", certificate("ec").public_bytes(Encoding.DER)),
        "crl": ("X509 CRL", x509.load_pem_x509_crl(crl_pem()).public_bytes(Encoding.DER)),
    }[option]
    changed = bytearray(der)
    changed[position % len(der)] = value
    load_or_refuse(option, changed, passphrase)
    load_or_refuse(option, block(label, changed), passphrase)
