"""SecureContext's options: every form that they take, what they do in handshakes, and what is refused."""

from __future__ import annotations

import base64
import builtins
import contextlib
import datetime as dt
import io
import math
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from engine_pairs import CA, Kind, client, identity, node_table, server, shake_hands
from hypothesis import given
from hypothesis import settings as run
from hypothesis import strategies as st
from OpenSSL import SSL

import trio_tlsnode as tls
from trio_tlsnode import (
    CertificateError,
    ConfigurationError,
    ConfigurationTypeError,
    ConnectionInfo,
    Engine,
    SecureContext,
    TLSServer,
    TLSStream,
)
from trio_tlsnode._openssl.ssl_ctx import VERIFY_PEER
from trio_tlsnode.context import ContextOptions
from trio_tlsnode.testing import Authority, IssuedCertificate, default_authority

NODE = node_table("options")
AUTHORITY = default_authority()
UNKNOWN = "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
VERSIONS = ["TLSv1.2", "TLSv1.3"]


def refusal(**settings: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        SecureContext(**settings)
    return caught.value


def only(version: str) -> dict[str, Any]:
    return {"min_version": version, "max_version": version}


def verdict(client: SecureContext, server: SecureContext) -> str | None:
    """Return why a client refuses a server, or None."""
    error = shake_hands(client, server).client_error
    assert error is None or isinstance(error, CertificateError)
    return None if error is None else error.code


def certificates(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def to_der(pem: bytes) -> bytes:
    """Return what is in the first PEM block."""
    return base64.b64decode(pem.split(b"-----")[2])


def pfx(leaf: IssuedCertificate, *authorities: bytes, passphrase: str = "") -> bytes:
    own, *intermediates = certificates(leaf.cert)
    return pkcs12.serialize_key_and_certificates(
        None,
        load_pem_private_key(leaf.key, None),  # type: ignore[arg-type]
        own,
        [*intermediates, *(certificate for pem in authorities for certificate in certificates(pem))],
        BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption(),
    )


# Which certificate is presented


@pytest.mark.feature("F3")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["RSA", "RSA-PSS", "EC", "Ed25519", "Ed448"])
def test_every_kind_of_key_is_presented(kind: Kind, version: str) -> None:
    info = shake_hands(client(**only(version)), server(kind)).info
    assert info.authorized
    assert info.protocol == version
    assert info.peer_certificate is not None
    assert info.peer_certificate.raw == certificates(identity(kind)["cert"])[0].public_bytes(Encoding.DER)


@pytest.mark.feature("F3")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["RSA", "RSA-PSS", "EC", "Ed25519"])
def test_every_kind_of_key_is_presented_by_clients_too(kind: Kind, version: str) -> None:
    asking = client(**identity(kind), **only(version))
    engines = [
        Engine(asking),
        Engine(SecureContext(ca=CA, **identity("EC")), server_side=True, request_cert=True),
    ]
    for _ in range(3):
        for side in (0, 1):
            engines[side].do_handshake()
            if output := engines[side].drain():
                engines[1 - side].feed(output)
    assert isinstance(engines[1].info, ConnectionInfo)
    assert engines[1].info.authorized


class TwoIdentities:
    """An RSA and an ECDSA certificate, each below an intermediate of an authority of its own."""

    def __init__(self) -> None:
        self.authorities = {"RSA": Authority(key_type="RSA"), "EC": Authority()}
        self.leaves = {
            kind: authority.good("localhost", intermediates=1) for kind, authority in self.authorities.items()
        }
        self.ca = [authority.ca for authority in self.authorities.values()]
        self.contexts = [SecureContext(**form) for form in self.forms()]

    def chain(self, kind: str) -> list[bytes]:
        return [one.public_bytes(Encoding.DER) for one in certificates(self.leaves[kind].cert)]

    def forms(self) -> Iterator[dict[str, Any]]:
        """Yield the options that present both: keys and certificates in any order, or as PKCS#12."""
        rsa, ec = self.leaves["RSA"], self.leaves["EC"]
        yield {"key": [rsa.key, ec.key], "cert": [rsa.cert, ec.cert]}
        yield {"key": [rsa.key, ec.key], "cert": [ec.cert, rsa.cert]}
        yield {"key": ec.key + rsa.key, "cert": [rsa.cert, certificates(ec.cert)]}
        yield {"key": rsa.key, "cert": rsa.cert, "pfx": pfx(ec)}
        yield {"pfx": [pfx(ec), (pfx(rsa, passphrase="rsa"), "rsa")]}


@pytest.fixture(scope="module")
def two() -> TwoIdentities:
    return TwoIdentities()


def asking_for(kind: str, version: str, ca: list[bytes]) -> SecureContext:
    """Return a client that takes signatures of one kind alone."""
    algorithms = {"RSA": "RSA-PSS+SHA256:RSA+SHA256", "EC": "ECDSA+SHA256"}[kind]
    return SecureContext(ca=ca, sigalgs=algorithms, **only(version))


@pytest.mark.feature("F3")
@pytest.mark.feature("F4")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["RSA", "EC"])
def test_each_of_two_certificates_is_presented_with_its_own_chain_alone(
    kind: str, version: str, two: TwoIdentities
) -> None:
    asking = asking_for(kind, version, two.ca)
    for presenting in two.contexts:
        info = shake_hands(asking, presenting).info
        assert info.authorized
        assert [certificate.raw for certificate in info.peer_certificate_chain] == two.chain(kind)


@pytest.mark.feature("F3")
@pytest.mark.node("test-tls-multi-key.js")
@pytest.mark.parametrize(
    ("suite", "kind"), [("ECDHE-ECDSA-AES256-GCM-SHA384", "EC"), ("ECDHE-RSA-AES256-GCM-SHA384", "RSA")]
)
def test_suite_of_tls_1_2_decides_which_certificate_is_presented(
    suite: str, kind: str, two: TwoIdentities
) -> None:
    asking = SecureContext(ca=two.ca, ciphers=suite, max_version="TLSv1.2")
    info = shake_hands(asking, two.contexts[0]).info
    assert info.cipher.name == suite
    assert [certificate.raw for certificate in info.peer_certificate_chain] == two.chain(kind)


@pytest.mark.feature("F3")
def test_chains_of_different_length_are_not_mixed(two: TwoIdentities) -> None:
    plain = two.authorities["RSA"].good("localhost")
    deep = two.authorities["EC"].good("localhost", intermediates=2)
    both = SecureContext(key=[plain.key, deep.key], cert=[plain.cert, deep.cert])
    for kind, length in (("RSA", 1), ("EC", 3)):
        info = shake_hands(asking_for(kind, "TLSv1.3", two.ca), both).info
        assert len(info.peer_certificate_chain) == length


@pytest.mark.feature("F3")
@pytest.mark.feature("F2")
def test_root_in_a_chain_that_is_presented_is_not_trusted_for_that(two: TwoIdentities) -> None:
    presented = [leaf.cert + two.authorities[kind].ca for kind, leaf in two.leaves.items()]
    both = SecureContext(key=[leaf.key for leaf in two.leaves.values()], cert=presented, ca=[])
    for kind, leaf in two.leaves.items():
        assert verdict(both, SecureContext(**leaf.options)) is not None
        info = shake_hands(asking_for(kind, "TLSv1.3", two.ca), both).info
        assert [certificate.raw for certificate in info.peer_certificate_chain] == two.chain(kind)


@pytest.mark.feature("F3")
@pytest.mark.feature("F6")
def test_two_chains_do_not_go_with_partial_trust(two: TwoIdentities) -> None:
    error = refusal(**next(two.forms()), allow_partial_trust_chain=True)
    assert error.option == "allow_partial_trust_chain"


@pytest.mark.feature("F3")
def test_key_without_certificate_and_certificate_without_key_are_of_no_use_and_no_error() -> None:
    leaf = AUTHORITY.good("localhost")
    useless: list[dict[str, Any]] = [
        {"key": leaf.key},
        {"cert": leaf.cert},
        {"key": None, "cert": False, "pfx": ""},
    ]
    for settings in useless:
        assert not SecureContext(**settings).has_identity
        assert verdict(SecureContext(ca=CA, **settings), server()) is None


@pytest.mark.feature("F3")
def test_key_of_another_certificate_is_refused() -> None:
    error = refusal(key=AUTHORITY.good("localhost").key, cert=AUTHORITY.good("localhost").cert)
    assert error.code == "ERR_OSSL_X509_KEY_VALUES_MISMATCH"


# Memory and files


@pytest.mark.feature("F3")
@pytest.mark.feature("F2")
def test_what_is_given_in_memory_never_touches_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = AUTHORITY.good("localhost", intermediates=1)
    given: dict[str, Any] = {
        "key": leaf.key,
        "cert": leaf.cert,
        "ca": AUTHORITY.ca,
        "crl": AUTHORITY.crl(),
        "dhparam": "auto",
        "pfx": pfx(AUTHORITY.good("localhost"), AUTHORITY.ca, passphrase="pfx"),
        "passphrase": "pfx",
    }

    def refuse(*args: object, **options: object) -> Any:
        pytest.fail(f"a file was opened: {args}")

    with monkeypatch.context() as spied:
        for owner, name in ((builtins, "open"), (io, "open"), (os, "open"), (pathlib.Path, "open")):
            spied.setattr(owner, name, refuse)
        spied.setattr("tempfile._get_candidate_names", refuse)
        context = SecureContext(**given)
        outcome = shake_hands(context, context)
    assert outcome.info.authorized


@pytest.mark.feature("F2")
@pytest.mark.feature("F3")
@pytest.mark.feature("F5")
def test_files_are_read_when_the_context_is_made_and_not_again(tmp_path: pathlib.Path) -> None:
    leaf = AUTHORITY.good("localhost")
    content = {"key": leaf.key, "cert": leaf.cert, "ca": AUTHORITY.ca, "crl": AUTHORITY.crl()}
    paths = {option: tmp_path / option for option in content}
    for option, path in paths.items():
        path.write_bytes(content[option])
    context = SecureContext(**paths)  # type: ignore[arg-type]
    for path in paths.values():
        path.unlink()
    assert shake_hands(context, context).info.authorized


@pytest.mark.feature("F2")
@pytest.mark.feature("F15")
@pytest.mark.parametrize("option", ["key", "cert", "pfx", "ca", "crl", "dhparam"])
def test_missing_file_is_named(option: str, tmp_path: pathlib.Path) -> None:
    error = refusal(**{option: tmp_path / "missing"})
    assert (error.code, error.option, error.path) == ("ENOENT", option, str(tmp_path / "missing"))


# Trust


@pytest.mark.feature("F2")
@pytest.mark.parametrize(
    "form",
    [
        lambda pem: pem,
        bytes.decode,
        bytearray,
        memoryview,
        to_der,
        lambda pem: [pem],
        lambda pem: (Authority().ca, pem),
        lambda pem: Authority().ca + b"some text between them\n" + pem,
        lambda pem: AUTHORITY.good("unrelated").cert + pem,
        lambda pem: certificates(pem),
        lambda pem: certificates(pem)[0],
        lambda pem: pem.replace(b"CERTIFICATE", b"X509 CERTIFICATE"),
        lambda pem: pem.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
        lambda pem: pem.replace(b"\n", b"\r\n"),
        lambda pem: pem.rstrip(b"\n"),
    ],
)
def test_ca_is_trusted_in_every_form(form: Callable[[bytes], Any]) -> None:
    assert verdict(SecureContext(ca=form(AUTHORITY.ca)), server()) is None


@pytest.mark.feature("F2")
@pytest.mark.parametrize("ca", [[], (), Authority().ca])
def test_ca_replaces_all_others(ca: Any) -> None:
    assert verdict(SecureContext(ca=ca), server()) == UNKNOWN


@pytest.mark.feature("F2")
@pytest.mark.parametrize("version", VERSIONS)
def test_self_signed_certificate_may_be_its_own_anchor(version: str) -> None:
    leaf = AUTHORITY.self_signed("localhost")
    presenting = SecureContext(**leaf.options)
    assert verdict(SecureContext(ca=leaf.cert, **only(version)), presenting) is None
    assert verdict(SecureContext(ca=CA, **only(version)), presenting) == "DEPTH_ZERO_SELF_SIGNED_CERT"


@pytest.mark.feature("F2")
def test_server_completes_its_own_chain_from_ca() -> None:
    leaf = AUTHORITY.good("localhost", intermediates=1)
    alone = certificates(leaf.cert)[0]
    assert verdict(client(), SecureContext(key=leaf.key, cert=alone)) == UNKNOWN
    completed = SecureContext(key=leaf.key, cert=alone, ca=[leaf.intermediates, AUTHORITY.ca])
    assert verdict(client(), completed) is None


@pytest.mark.feature("F2")
@pytest.mark.node("test-tls-addca.js")
def test_one_context_s_ca_is_not_another_s() -> None:
    trusting, other = SecureContext(ca=CA), SecureContext()
    assert verdict(trusting, server()) is None
    assert verdict(other, server()) == UNKNOWN


@pytest.mark.feature("F2")
@pytest.mark.parametrize(
    ("wrong", "belongs"),
    [
        (AUTHORITY.good("localhost").key, "key="),
        (pfx(AUTHORITY.good("localhost")), "pfx="),
        (AUTHORITY.crl(), "crl="),
    ],
)
def test_what_is_no_certificate_is_told_where_it_belongs(wrong: bytes, belongs: str) -> None:
    error = refusal(ca=wrong)
    assert error.option == "ca"
    assert belongs in str(error)


@pytest.mark.feature("F6")
@pytest.mark.node("test-tls-client-allow-partial-trust-chain.js")
@pytest.mark.parametrize("version", VERSIONS)
def test_intermediate_is_enough_only_where_that_is_allowed(version: str) -> None:
    leaf = AUTHORITY.good("localhost", intermediates=1)
    presenting = SecureContext(**leaf.options)
    trusting: dict[str, Any] = {"ca": leaf.intermediates, **only(version)}
    assert verdict(SecureContext(**trusting), presenting) == "UNABLE_TO_GET_ISSUER_CERT"
    assert verdict(SecureContext(**trusting, allow_partial_trust_chain=True), presenting) is None
    # The certificate itself is enough, too.
    own = leaf.certificate
    assert verdict(SecureContext(ca=own, allow_partial_trust_chain=True, **only(version)), presenting) is None


@pytest.mark.feature("F4")
@pytest.mark.parametrize("version", VERSIONS)
def test_authorities_inside_pfx_are_trusted(version: str) -> None:
    mine, theirs = Authority(), Authority()
    data = pfx(mine.good("localhost", intermediates=1), mine.ca, theirs.ca)
    both = SecureContext(pfx=data, **only(version))
    for authority in (mine, theirs):
        assert verdict(both, SecureContext(**authority.good("localhost").options)) is None
    assert verdict(SecureContext(ca=mine.ca), both) is None
    # They are so in addition to what ca says.
    assert verdict(SecureContext(pfx=data, ca=[]), SecureContext(**mine.good("localhost").options)) is None
    assert verdict(SecureContext(pfx=data, ca=CA), server()) is None


def authorities_named_by(context: SecureContext) -> set[str]:
    """Return from whom a client's certificate may be, as a server says when it asks for one."""
    asked = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    asked.set_connect_state()
    asking = Engine(context, server_side=True, request_cert=True, reject_unauthorized=False)
    for _ in range(3):
        with contextlib.suppress(SSL.WantReadError):
            asked.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            asking.feed(asked.bio_read(65536))
            asking.do_handshake()
            asked.bio_write(asking.drain())
    return {str(name.organizationalUnitName) for name in asked.get_client_ca_list()}


@pytest.mark.feature("F2")
@pytest.mark.feature("F4")
def test_server_names_the_authorities_that_it_was_given_and_no_default_ones() -> None:
    leaf = AUTHORITY.good("localhost")
    (root,) = certificates(AUTHORITY.ca)
    (name,) = root.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATIONAL_UNIT_NAME)
    for settings in ({"ca": AUTHORITY.ca, **leaf.options}, {"pfx": pfx(leaf, AUTHORITY.ca)}):
        assert authorities_named_by(SecureContext(**settings)) == {name.value}
    assert authorities_named_by(SecureContext(**leaf.options)) == set()


# Revocation


CRL_FORMS: list[Callable[[bytes], Any]] = [
    lambda pem: pem,
    bytes.decode,
    bytearray,
    memoryview,
    lambda pem: [pem],
    lambda pem: (x509.load_pem_x509_crl(pem), Authority().crl()),
    lambda pem: Authority().crl() + pem,
    to_der,
    lambda pem: x509.load_pem_x509_crl(pem),
]


@pytest.mark.feature("F5")
@pytest.mark.parametrize("form", CRL_FORMS)
def test_revoked_certificate_is_refused_in_every_form_of_the_list(form: Callable[[bytes], Any]) -> None:
    authority = Authority()
    good, revoked = authority.good("localhost"), authority.revoked("localhost")
    context = SecureContext(ca=authority.ca, crl=form(authority.crl()))
    assert verdict(context, SecureContext(**good.options)) is None
    assert verdict(context, SecureContext(**revoked.options)) == "CERT_REVOKED"


@pytest.mark.feature("F5")
@pytest.mark.parametrize("version", VERSIONS)
def test_every_certificate_of_a_chain_needs_a_list(version: str) -> None:
    authority = Authority()
    leaf = authority.good("localhost", intermediates=1)
    presenting = SecureContext(**leaf.options)
    root_list, *_ = authority.crl().partition(b"-----END X509 CRL-----\n")
    both, root_alone = authority.crl(), root_list + b"-----END X509 CRL-----\n"
    assert verdict(SecureContext(ca=authority.ca, crl=both, **only(version)), presenting) is None
    assert (
        verdict(SecureContext(ca=authority.ca, crl=root_alone, **only(version)), presenting)
        == "UNABLE_TO_GET_CRL"
    )
    assert (
        verdict(SecureContext(ca=authority.ca, crl=authority.expired_crl()), presenting) == "CRL_HAS_EXPIRED"
    )
    stranger = Authority().crl()
    assert verdict(SecureContext(ca=authority.ca, crl=stranger), presenting) == "UNABLE_TO_GET_CRL"


@pytest.mark.feature("F5")
@pytest.mark.node("test-crypto.js")
@pytest.mark.parametrize("crl", [b"not a CRL", AUTHORITY.ca, AUTHORITY.good("localhost").key])
def test_what_is_no_revocation_list_is_refused_as_in_node(crl: bytes) -> None:
    error = refusal(crl=crl)
    assert (error.code, error.option) == ("ERR_CRYPTO_OPERATION_FAILED", "crl")
    assert "Failed to parse CRL" in str(error)


def test_certificates_are_judged_as_of_the_time_that_is_given() -> None:
    authority = Authority()
    expired = SecureContext(**authority.expired("localhost").options)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=100)
    assert verdict(SecureContext(ca=authority.ca), expired) == "CERT_HAS_EXPIRED"
    assert verdict(SecureContext(ca=authority.ca, verification_time=past), expired) is None
    assert refusal(verification_time=past.replace(tzinfo=None)).option == "verification_time"


# Bytes that only OpenSSL looks at


def with_broken_name(pem: bytes) -> bytes:
    """Return what cryptography takes, as it leaves names for later, and OpenSSL does not."""
    der = to_der(pem)
    assert b"trustme" in der
    return der.replace(b"trustme", b"\xff\xfe\xfd\xfc\xfb\xfa\xf9")


@pytest.mark.feature("F15")
@pytest.mark.parametrize(
    ("option", "settings"),
    [
        ("ca", {"ca": with_broken_name(AUTHORITY.ca)}),
        ("crl", {"crl": with_broken_name(AUTHORITY.crl())}),
        ("cert", {**identity(), "cert": [[identity()["cert"], with_broken_name(AUTHORITY.ca)]]}),
    ],
)
def test_what_openssl_alone_cannot_read_is_a_typed_error(option: str, settings: dict[str, Any]) -> None:
    error = refusal(**settings)
    assert type(error) is ConfigurationError
    assert error.option == option
    assert "OpenSSL cannot read" in str(error)


# What is refused: engines, wrong types, values out of range, unknown names


@pytest.mark.feature("F11")
@pytest.mark.parametrize("option", ["client_cert_engine", "private_key_engine", "private_key_identifier"])
@pytest.mark.parametrize("value", ["pkcs11", "", 1, b"engine"])
def test_engines_are_refused_with_what_to_use_instead(option: str, value: Any) -> None:
    error = refusal(**{option: value})
    assert (error.code, error.option) == ("ERR_CRYPTO_CUSTOM_ENGINE_NOT_SUPPORTED", option)
    assert "key=" in str(error)


@pytest.mark.feature("F15")
@pytest.mark.parametrize("option", NODE["null_is_unset"])
def test_none_means_that_an_option_is_not_set_as_in_node(option: str) -> None:
    assert SecureContext(**{option: None})._settings == SecureContext()._settings  # type: ignore[arg-type]


# For each option, what it never takes; what Node.js is known to refuse is among it.
NO_TEXT = [1, 1.5, True, b"text", ["text"], {}, object()]
NO_FLAG = [0, 1, None, "yes", [], object()]
NO_CONTENT = [1, 1.5, True, {}, object(), [None], [True], [1]]
WRONG: dict[str, list[Any]] = {
    "key": [*NO_CONTENT, {"pem": b"not in a list"}],
    "cert": [*NO_CONTENT, {"pem": b"not in a list"}],
    "pfx": NO_CONTENT,
    "ca": NO_CONTENT,
    "crl": NO_CONTENT,
    "dhparam": [1, 1.5, True, {}, object(), [b""]],
    "passphrase": [1, 1.5, True, ["secret"], {}, object()],
    "ciphers": NO_TEXT,
    "min_version": NO_TEXT,
    "max_version": NO_TEXT,
    "secure_protocol": NO_TEXT,
    "groups": NO_TEXT,
    "require_groups": NO_TEXT,
    "ecdh_curve": NO_TEXT,
    "sigalgs": NO_TEXT,
    "honor_cipher_order": NO_FLAG,
    "allow_partial_trust_chain": NO_FLAG,
    "secure_options": ["1", 1.5, True, [1], object()],
    "session_timeout": ["abcd", True, [300], object()],
    "session_id_context": [1, 1.5, True, ["id"], bytearray(b"id"), object()],
    "verification_time": [1, 1.5, "now", dt.date(2030, 1, 1), object()],
}
ENGINES = {"client_cert_engine", "private_key_engine", "private_key_identifier"}


def test_no_option_is_forgotten_here() -> None:
    assert WRONG.keys() | ENGINES == ContextOptions.__annotations__.keys()
    for option in WRONG.keys() & NODE["wrong_type"].keys():
        assert all(value in WRONG[option] for value in NODE["wrong_type"][option])


def assert_names_the_option(error: ConfigurationError, option: str) -> None:
    assert type(error) is ConfigurationTypeError
    assert isinstance(error, TypeError)
    assert isinstance(error, ValueError)
    assert error.code == "ERR_INVALID_ARG_TYPE"
    # Of a list, the item is named.
    assert (error.option or "").partition("[")[0] == option
    assert option in str(error)


@pytest.mark.feature("F15")
@pytest.mark.node("test-tls-basic-validations.js")
@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option, values in WRONG.items() for value in values]
)
def test_option_of_a_context_of_the_wrong_type_is_refused(option: str, value: Any) -> None:
    assert_names_the_option(refusal(**{option: value}), option)


@pytest.mark.feature("F15")
def test_error_about_a_secret_does_not_tell_it() -> None:
    for option in ("key", "passphrase", "pfx"):
        assert "hunter2" not in str(
            refusal(**{option: ["hunter2"] if option == "passphrase" else {"pem": "hunter2"}})
        )


@pytest.mark.feature("B16")
@pytest.mark.feature("F15")
@pytest.mark.node("test-tls-session-timeout-errors.js")
@pytest.mark.parametrize("value", [*NODE["out_of_range"]["session_timeout"], -0.1, 2**31, math.inf, math.nan])
def test_session_timeout_out_of_range_is_refused_as_in_node(value: float) -> None:
    error = refusal(session_timeout=value)
    assert (error.code, error.option) == ("ERR_OUT_OF_RANGE", "session_timeout")
    assert 'The value of "options.session_timeout" is out of range. It must be >= 0 && <= 2147483647' in str(
        error
    )


@pytest.mark.feature("B16")
@pytest.mark.parametrize("value", [0, 0.5, 300, 2**31 - 1])
def test_session_timeout_is_taken_in_seconds(value: float) -> None:
    assert shake_hands(client(session_timeout=value), server(session_timeout=value)).info.authorized


@pytest.mark.feature("B16")
def test_session_id_context_has_at_most_32_bytes() -> None:
    for value in ("", "id", "ü" * 16, b"\0" * 32, None):
        assert shake_hands(client(session_id_context=value), server(session_id_context=value)).info.authorized
    for value in ("ü" * 17, b"\0" * 33):
        error = refusal(session_id_context=value)
        assert (error.code, error.option) == ("ERR_SSL_SSL_SESSION_ID_CONTEXT_TOO_LONG", "session_id_context")


@pytest.mark.feature("F15")
@pytest.mark.parametrize("option", ["cypher", "Key", "rejectUnauthorized", "reject_unauthorized"])
async def test_unknown_option_is_a_type_error_that_names_it(option: str) -> None:
    with pytest.raises(TypeError, match=option):
        SecureContext(**{option: 1})  # type: ignore[arg-type]
    transport, _ = trio.testing.memory_stream_pair()
    if option != "reject_unauthorized":
        with pytest.raises(TypeError, match=option):
            TLSStream(transport, client(), **{option: 1})  # type: ignore[call-overload]
        with pytest.raises(TypeError, match=option):
            TLSServer(handler, server(), **{option: 1})  # type: ignore[arg-type]


async def handler(stream: TLSStream) -> None:
    """Do nothing."""


STREAM_WRONG: dict[str, list[Any]] = {
    "host": [1, b"localhost", ["localhost"], object()],
    "server_name": [1, b"localhost", ["localhost"], object()],
    "check_server_identity": NODE["wrong_type"]["check_server_identity"],
    "min_dh_size": NODE["wrong_type"]["min_dh_size"],
    "reject_unauthorized": NO_FLAG,
    "alpn_protocols": [1, "h2", [1], [None], object()],
    "handshake_timeout": [*NODE["wrong_type"]["handshake_timeout"], None, True, object()],
    "close_timeout": ["5", None, True, object()],
    "https_compatible": NO_FLAG,
}
SERVER_WRONG: dict[str, list[Any]] = {
    "sni_callback": NODE["wrong_type"]["sni_callback"],
    "request_cert": NO_FLAG,
    **{
        option: STREAM_WRONG[option]
        for option in (
            "reject_unauthorized",
            "alpn_protocols",
            "handshake_timeout",
            "close_timeout",
            "https_compatible",
        )
    },
}


def cases(table: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(option, value) for option, values in table.items() for value in values]


@pytest.mark.feature("F15")
@pytest.mark.node("test-tls-basic-validations.js")
@pytest.mark.parametrize(("option", "value"), cases(STREAM_WRONG))
async def test_option_of_a_client_s_stream_of_the_wrong_type_is_refused(option: str, value: Any) -> None:
    transport, _ = trio.testing.memory_stream_pair()
    with pytest.raises(ConfigurationError) as caught:
        TLSStream(transport, client(), **{option: value})
    assert_names_the_option(caught.value, option)


@pytest.mark.feature("F15")
@pytest.mark.node("test-tls-basic-validations.js")
@pytest.mark.parametrize(("option", "value"), cases(SERVER_WRONG))
async def test_option_of_a_server_of_the_wrong_type_is_refused(option: str, value: Any) -> None:
    transport, _ = trio.testing.memory_stream_pair()
    with pytest.raises(ConfigurationError) as caught:
        TLSStream(transport, server(), server_side=True, **{option: value})
    assert_names_the_option(caught.value, option)
    with pytest.raises(ConfigurationError) as caught:
        TLSServer(handler, server(), **{option: value})
    assert_names_the_option(caught.value, option)


@pytest.mark.feature("F15")
@pytest.mark.node("test-tls-no-cert-required.js")
@pytest.mark.parametrize("value", [None, 1, {}, "context", SSL.Context(SSL.TLS_METHOD)])
async def test_context_of_the_wrong_type_is_refused(value: Any) -> None:
    transport, _ = trio.testing.memory_stream_pair()
    for make in (
        lambda: TLSStream(transport, value),
        lambda: TLSStream(transport, value, server_side=True),
        lambda: TLSServer(handler, value),
        lambda: Engine(value),
    ):
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert_names_the_option(caught.value, "context")


@pytest.mark.feature("F15")
@pytest.mark.parametrize(("option", "value"), [(option, values[0]) for option, values in WRONG.items()])
async def test_option_of_a_context_given_to_connect_is_refused_before_connecting(
    option: str, value: Any
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await tls.connect("name.invalid", 443, **{option: value})
    assert_names_the_option(caught.value, option)


@pytest.mark.feature("F15")
@pytest.mark.parametrize(
    ("option", "value"),
    [("handshake_timeout", -1), ("handshake_timeout", math.nan), ("close_timeout", -0.1), ("min_dh_size", 0)],
)
async def test_option_of_a_stream_out_of_range_is_refused(option: str, value: Any) -> None:
    transport, _ = trio.testing.memory_stream_pair()
    with pytest.raises(ConfigurationError) as caught:
        TLSStream(transport, client(), **{option: value})
    assert (caught.value.code, caught.value.option) == ("ERR_OUT_OF_RANGE", option)


# Garbage


def mutations(seed: bytes) -> st.SearchStrategy[bytes]:
    """Return a strategy for content in which some bytes are others, more or fewer."""
    places = st.lists(
        st.tuples(st.integers(0, len(seed) - 1), st.integers(0, 2), st.binary(max_size=3)),
        min_size=1,
        max_size=3,
    )

    def mutated(changes: list[tuple[int, int, bytes]]) -> bytes:
        content = bytearray(seed)
        for at, removed, added in changes:
            content[at : at + removed] = added
        return bytes(content)

    return places.map(mutated)


LEAF = AUTHORITY.good("localhost", intermediates=1)
SEEDS = {
    "key": [LEAF.key, to_der(LEAF.key)],
    "cert": [LEAF.cert, to_der(LEAF.cert)],
    "ca": [AUTHORITY.ca, to_der(AUTHORITY.ca)],
    "crl": [AUTHORITY.crl(), to_der(AUTHORITY.crl())],
    "pfx": [pfx(LEAF, AUTHORITY.ca)],
}
# What else it takes for the option to have an effect.
BESIDE: dict[str, dict[str, Any]] = {
    "key": {"cert": LEAF.cert},
    "cert": {"key": identity()["key"]},
    "dhparam": identity("RSA"),
}
ENCRYPTED_PFX = pfx(LEAF, passphrase="secret")
contents = st.one_of(st.text(max_size=50), st.binary(max_size=50))
garbage = st.one_of(
    st.tuples(st.sampled_from(["key", "cert", "pfx", "ca", "crl", "dhparam"]), contents),
    st.tuples(
        st.sampled_from(
            [
                "ciphers",
                "min_version",
                "max_version",
                "secure_protocol",
                "groups",
                "require_groups",
                "sigalgs",
            ]
        ),
        st.text(max_size=20),
    ),
    st.tuples(st.just("session_id_context"), contents),
    *(st.tuples(st.just(option), mutations(seed)) for option, seeds in SEEDS.items() for seed in seeds),
)


@pytest.mark.feature("F15")
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@run(max_examples=300)
@given(garbage)
def test_garbage_is_a_typed_error_or_a_value(case: tuple[str, Any]) -> None:
    option, value = case
    with contextlib.suppress(ConfigurationError):
        context = SecureContext(**{"ca": CA, **BESIDE.get(option, {}), option: value})
        # Each role is made, too.
        for server_side in (False, True):
            context.ssl_ctx(server_side=server_side, verify_mode=VERIFY_PEER)


@pytest.mark.feature("F3")
@pytest.mark.feature("F15")
@run(max_examples=50)
@given(contents)
def test_any_passphrase_opens_or_does_not(passphrase: Any) -> None:
    encrypted = load_pem_private_key(LEAF.key, None).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret")
    )
    both: list[dict[str, Any]] = [{"key": encrypted, "cert": LEAF.cert}, {"pfx": ENCRYPTED_PFX}]
    for settings in both:
        with pytest.raises(ConfigurationError) as caught:
            SecureContext(**settings, passphrase=passphrase)
        assert caught.value.code in {"ERR_OSSL_BAD_DECRYPT", "ERR_OSSL_PKCS12_MAC_VERIFY_FAILURE"}
