"""OCSP: each way in which a response can be bad has a code of its own, and what is good is accepted."""

from __future__ import annotations

import datetime as dt
import functools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from trio_tlsnode import Certificate, CertificateError, CertificateProblem, ConfigurationError
from trio_tlsnode._openssl.verification import name_of, text_of
from trio_tlsnode.der import elements, encoded
from trio_tlsnode.diagnosis import DIAGNOSES, hint
from trio_tlsnode.ocsp import (
    CLOCK_SKEW,
    MAX_AGE,
    fresh_until,
    ocsp_problem,
    ocsp_request,
    responder_urls,
)
from trio_tlsnode.testing import Authority, IssuedCertificate

pytestmark = pytest.mark.feature("A10")

NOW = dt.datetime(2026, 1, 3, 10, 30, tzinfo=dt.UTC)
SECOND, DAY = dt.timedelta(seconds=1), dt.timedelta(days=1)
URL = "http://ocsp.example/"

AUTHORITY = Authority(now=NOW)
LEAF = AUTHORITY.good("a.example", ocsp_url=URL)
STAPLING = AUTHORITY.must_staple("a.example", ocsp_url=URL)


def view(issued: IssuedCertificate) -> Certificate:
    return Certificate.from_x509(issued.certificate)


ISSUER = view(AUTHORITY.ca_with_key())


def problem(
    response: bytes | None,
    issued: IssuedCertificate = LEAF,
    *,
    issuer: Certificate | None = ISSUER,
    at: dt.datetime | None = NOW,
    require: bool = False,
) -> CertificateProblem | None:
    return ocsp_problem(response, certificate=view(issued), issuer=issuer, at=at, require=require)


def code(*arguments: Any, **options: Any) -> str | None:
    found = problem(*arguments, **options)
    return None if found is None else found.code


def private_key(issued: IssuedCertificate) -> Any:
    return load_pem_private_key(issued.key, None)


# What is good


@pytest.mark.parametrize("responder", ["issuer", "delegate"])
@pytest.mark.parametrize("named_by", ["name", "key"])
def test_a_response_of_the_issuer_or_its_delegate_is_good(responder: Any, named_by: Any) -> None:
    assert problem(AUTHORITY.ocsp_response(LEAF, responder=responder, named_by=named_by)) is None


@pytest.mark.parametrize(
    "algorithm", [hashes.SHA1(), hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]
)
def test_a_response_may_name_the_certificate_by_any_hash(algorithm: hashes.HashAlgorithm) -> None:
    response = AUTHORITY.ocsp_response(LEAF, algorithm=algorithm)
    assert problem(response) is None
    assert fresh_until(response, view(LEAF)) == dt.datetime(3000, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize("responder", ["issuer", "delegate"])
def test_a_response_of_an_intermediate_is_good_for_what_that_has_issued(responder: Any) -> None:
    issued = AUTHORITY.good("a.example", intermediates=1)
    response = AUTHORITY.ocsp_response(issued, responder=responder)
    assert code(response, issued, issuer=view(AUTHORITY.ca_with_key(intermediates=1))) is None
    assert code(response, issued) == "OCSP_WRONG_CERTIFICATE"


def test_without_a_moment_it_is_judged_as_of_now() -> None:
    now = dt.datetime.now(dt.UTC)
    authority = Authority()
    issued = authority.good("a.example")
    issuer = view(authority.ca_with_key())
    fresh = authority.ocsp_response(issued, next_update=now + DAY)
    assert code(fresh, issued, issuer=issuer, at=None) is None
    expired = authority.expired_ocsp_response(issued)
    assert code(expired, issued, issuer=issuer, at=None) == "OCSP_HAS_EXPIRED"


def test_the_moment_must_have_a_time_zone() -> None:
    with pytest.raises(ConfigurationError, match="time zone") as caught:
        problem(None, at=NOW.replace(tzinfo=None))
    assert caught.value.option == "at"


# What is not


FAULTS: dict[str, tuple[Callable[[], bytes | None], str, str]] = {
    "none": (lambda: None, "OCSP_NO_RESPONSE", ": it must always come with one"),
    "garbage": (lambda: b"garbage", "OCSP_RESP_INVALID", ": it cannot be read"),
    "empty": (lambda: b"", "OCSP_RESP_INVALID", ": it cannot be read"),
    "unsuccessful": (
        AUTHORITY.unsuccessful_ocsp_response,
        "OCSP_RESP_INVALID",
        ": the responder says 'try later'",
    ),
    "wrong certificate": (lambda: AUTHORITY.wrong_ocsp_response(STAPLING), "OCSP_WRONG_CERTIFICATE", ""),
    "stranger": (
        lambda: AUTHORITY.unauthorized_ocsp_response(STAPLING),
        "OCSP_RESPONDER_UNAUTHORIZED",
        ": its certificate is not from the issuer",
    ),
    "without purpose": (
        lambda: AUTHORITY.unauthorized_ocsp_response(STAPLING, responder="without purpose"),
        "OCSP_RESPONDER_UNAUTHORIZED",
        ": its certificate is not for OCSP",
    ),
    "expired responder": (
        lambda: AUTHORITY.unauthorized_ocsp_response(STAPLING, responder="expired"),
        "OCSP_RESPONDER_UNAUTHORIZED",
        ": its certificate is valid from 2000-01-01 00:00 UTC to 2026-01-02 10:30 UTC",
    ),
    "bad signature": (lambda: AUTHORITY.bad_signature_ocsp_response(STAPLING), "OCSP_SIGNATURE_FAILURE", ""),
    "not yet valid": (
        lambda: AUTHORITY.not_yet_valid_ocsp_response(STAPLING),
        "OCSP_NOT_YET_VALID",
        ": it is of 2026-01-04 10:30 UTC",
    ),
    "expired": (
        lambda: AUTHORITY.expired_ocsp_response(STAPLING),
        "OCSP_HAS_EXPIRED",
        ": the next was due on 2026-01-02 10:30 UTC",
    ),
    "old": (
        lambda: AUTHORITY.ocsp_response(STAPLING, next_update=None),
        "OCSP_HAS_EXPIRED",
        ": it is of 2000-01-01 00:00 UTC, and does not say when the next is due",
    ),
    "unknown": (lambda: AUTHORITY.ocsp_response(STAPLING, status="unknown"), "OCSP_CERT_UNKNOWN", ""),
    "revoked": (
        lambda: AUTHORITY.ocsp_response(STAPLING, status="revoked"),
        "CERT_REVOKED",
        " on 2026-01-02 10:30 UTC",
    ),
}

OPENSSL_TEXTS = {name_of(result): text_of(result) for result in range(1, 104)}


@pytest.mark.feature("D4")
@pytest.mark.feature("G2")
@pytest.mark.parametrize(("make", "expected", "detail"), FAULTS.values(), ids=FAULTS)
def test_each_fault_has_its_code(make: Callable[[], bytes | None], expected: str, detail: str) -> None:
    found = problem(make(), STAPLING)
    assert found is not None
    assert (found.code, found.depth, found.certificate) == (expected, 0, view(STAPLING))
    assert found.reason.endswith(detail)
    text = found.reason.removesuffix(detail)
    assert text == OPENSSL_TEXTS.get(expected, text)
    assert hint([found], peer="server", at=NOW)
    assert expected in DIAGNOSES


def test_a_certificate_s_own_demand_is_met_by_a_good_response() -> None:
    assert problem(AUTHORITY.ocsp_response(STAPLING), STAPLING) is None


def test_none_is_missed_unless_one_is_required() -> None:
    assert problem(None) is None
    found = problem(None, require=True)
    assert found is not None
    assert found.code == "OCSP_NO_RESPONSE"
    assert found.reason == "no OCSP response available for certificate"
    assert problem(AUTHORITY.ocsp_response(LEAF), require=True) is None


def test_only_the_feature_status_request_demands_a_response() -> None:
    version_2 = x509.TLSFeature([x509.TLSFeatureType.status_request_v2])
    assert code(None, changed(LEAF, version_2)) is None


@pytest.mark.parametrize(
    "status", ["malformed_request", "internal_error", "try_later", "sig_required", "unauthorized"]
)
def test_what_a_responder_says_instead_of_an_answer_is_told(status: Any) -> None:
    found = problem(AUTHORITY.unsuccessful_ocsp_response(status))
    assert found is not None
    assert found.code == "OCSP_RESP_INVALID"
    assert found.reason.endswith(f"says {status.replace('_', ' ')!r}")


def test_without_the_issuer_nothing_can_be_judged() -> None:
    assert code(AUTHORITY.ocsp_response(LEAF), issuer=None) == "OCSP_VERIFY_FAILED"
    assert code(b"garbage", issuer=None) == "OCSP_RESP_INVALID"
    assert code(None, issuer=None) is None


def test_a_certificate_that_cannot_be_read_cannot_be_judged() -> None:
    damaged = Certificate(b"0")
    for certificate, issuer in ((damaged, ISSUER), (view(LEAF), damaged)):
        found = ocsp_problem(AUTHORITY.ocsp_response(LEAF), certificate=certificate, issuer=issuer, at=NOW)
        assert found is not None
        assert found.code == "OCSP_VERIFY_FAILED"
        assert "cannot be read" in found.reason
    assert ocsp_problem(None, certificate=damaged, issuer=ISSUER) is None


@pytest.mark.feature("G2")
def test_a_revoked_certificate_is_so_whoever_says_it_and_the_reason_is_told() -> None:
    authority = Authority(now=NOW)
    issued = authority.good("a.example")
    issuer = view(authority.ca_with_key())
    assert code(authority.ocsp_response(issued), issued, issuer=issuer) is None
    authority.revoke(issued, reason=x509.ReasonFlags.key_compromise)
    (entry,) = x509.load_pem_x509_crl(authority.crl())
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.name == "key_compromise"
    for responder in ("issuer", "delegate"):
        found = problem(authority.ocsp_response(issued, responder=responder), issued, issuer=issuer)
        assert found is not None
        assert found.code == "CERT_REVOKED"
        assert found.reason == "certificate revoked on 2026-01-02 10:30 UTC (key compromise)"
    assert code(authority.ocsp_response(issued, status="good"), issued, issuer=issuer) is None


# When


@pytest.mark.parametrize(
    ("since", "due", "expected"),
    [
        (CLOCK_SKEW, DAY, None),
        (CLOCK_SKEW + SECOND, DAY, "OCSP_NOT_YET_VALID"),
        (-DAY, -CLOCK_SKEW, None),
        (-DAY, -CLOCK_SKEW - SECOND, "OCSP_HAS_EXPIRED"),
        (-MAX_AGE - CLOCK_SKEW, None, None),
        (-MAX_AGE - CLOCK_SKEW - SECOND, None, "OCSP_HAS_EXPIRED"),
        (CLOCK_SKEW + SECOND, None, "OCSP_NOT_YET_VALID"),
    ],
)
def test_clocks_may_differ_by_so_much(
    since: dt.timedelta, due: dt.timedelta | None, expected: str | None
) -> None:
    response = AUTHORITY.ocsp_response(
        LEAF, this_update=NOW + since, next_update=None if due is None else NOW + due
    )
    assert code(response) == expected


def test_the_end_of_the_calendar_is_a_date_too() -> None:
    end = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
    assert problem(AUTHORITY.ocsp_response(LEAF, next_update=end)) is None
    assert code(AUTHORITY.ocsp_response(LEAF, this_update=end, next_update=end)) == "OCSP_NOT_YET_VALID"
    assert fresh_until(AUTHORITY.ocsp_response(LEAF, next_update=end), view(LEAF)) == end


# Several answers

SUCCESSFUL = bytes((0x0A, 1, 0))
BASIC_RESPONSE = bytes.fromhex("06092b0601050507300101")
ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def assembled(signed: bytes, algorithm: bytes, signature: bytes, *shown: x509.Certificate) -> bytes:
    """Return an OCSP response (RFC 6960, section 4.2.1) with these certificates."""
    certificates = b"".join(certificate.public_bytes(Encoding.DER) for certificate in shown)
    optional = encoded(0xA0, encoded(0x30, certificates)) if shown else b""
    basic = encoded(0x30, signed + algorithm + encoded(0x03, b"\0" + signature) + optional)
    return encoded(0x30, SUCCESSFUL + encoded(0xA0, encoded(0x30, BASIC_RESPONSE + encoded(0x04, basic))))


def parts(response: bytes) -> dict[int, bytes]:
    """Return the contents of a response's signed part, by their tags."""
    [(_, content)] = elements(ocsp.load_der_ocsp_response(response).tbs_response_bytes)
    return dict(elements(content))


def signed_anew(fields: dict[int, bytes], *shown: x509.Certificate, key: Any = None) -> bytes:
    """Return a response of these parts, signed by the authority or with an EC key."""
    signed = encoded(0x30, b"".join(encoded(tag, content) for tag, content in fields.items()))
    key = key or private_key(AUTHORITY.ca_with_key())
    return assembled(signed, ECDSA_WITH_SHA256, key.sign(signed, ec.ECDSA(hashes.SHA256())), *shown)


def several(*responses: bytes) -> bytes:
    """Return a response with the answers of these."""
    answers = b"".join(parts(response)[0x30] for response in responses)
    return signed_anew({**parts(responses[0]), 0x30: answers})


def test_of_several_answers_the_one_for_the_certificate_counts() -> None:
    others = [AUTHORITY.ocsp_response(AUTHORITY.good("b.example"), status="revoked") for _ in range(2)]
    mine = AUTHORITY.ocsp_response(LEAF, next_update=NOW + DAY)
    response = several(others[0], mine, others[1])
    assert problem(response) is None
    assert fresh_until(response, view(LEAF)) == NOW + DAY
    assert code(several(*others)) == "OCSP_WRONG_CERTIFICATE"
    assert fresh_until(several(*others), view(LEAF)) is None
    assert code(several(others[0], AUTHORITY.ocsp_response(LEAF, status="unknown"))) == "OCSP_CERT_UNKNOWN"


def test_all_answers_for_the_certificate_must_be_good() -> None:
    good = AUTHORITY.ocsp_response(LEAF, algorithm=hashes.SHA256())
    due = AUTHORITY.ocsp_response(LEAF, next_update=NOW + DAY)
    bad = AUTHORITY.ocsp_response(LEAF, status="revoked", next_update=None, this_update=NOW)
    assert problem(several(good, due)) is None
    assert fresh_until(several(good, due), view(LEAF)) == NOW + DAY
    assert code(several(good, bad)) == code(several(bad, good)) == "CERT_REVOKED"
    assert fresh_until(several(good, bad), view(LEAF)) is None


def test_an_answer_with_another_number_name_key_or_hash_is_for_another_certificate() -> None:
    response = AUTHORITY.ocsp_response(LEAF)
    answer = ocsp.load_der_ocsp_response(response)
    content = parts(response)
    number = answer.serial_number.to_bytes(20).lstrip(b"\0")
    sha1 = bytes.fromhex("2b0e03021a")
    for part in (answer.issuer_name_hash, answer.issuer_key_hash, number, sha1):
        assert part in content[0x30]
        changed_part = part[:-1] + bytes((part[-1] ^ 1,))
        other = signed_anew({**content, 0x30: content[0x30].replace(part, changed_part)})
        assert code(other) == "OCSP_WRONG_CERTIFICATE"


# By whom


def changed(
    issued: IssuedCertificate,
    *extensions: x509.ExtensionType,
    critical: bool = False,
    signer: IssuedCertificate | None = None,
) -> IssuedCertificate:
    """Return the certificate with these extensions besides its own, signed by the authority or the signer."""
    original = issued.certificate
    replaced = {extension.oid for extension in extensions}
    builder = x509.CertificateBuilder(
        original.issuer,
        original.subject,
        original.public_key(),
        original.serial_number,
        original.not_valid_before_utc,
        original.not_valid_after_utc,
        [extension for extension in original.extensions if extension.oid not in replaced],
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=critical)
    certificate = builder.sign(private_key(signer or AUTHORITY.ca_with_key()), hashes.SHA256())
    return IssuedCertificate(issued.key, certificate.public_bytes(Encoding.PEM))


OCSP_SIGNING = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
SIGNING_CERTIFICATES_ALONE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.25.168237145205446"), b"\x05\x00")


@pytest.mark.parametrize(
    ("extensions", "options", "lack"),
    [
        ([OCSP_SIGNING], {}, None),
        ([x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])], {}, "is not for OCSP"),
        ([OCSP_SIGNING, SIGNING_CERTIFICATES_ALONE], {}, "is not for signatures"),
        ([OCSP_SIGNING, UNKNOWN], {"critical": True}, "a critical extension of its certificate is not known"),
        ([OCSP_SIGNING, UNKNOWN], {"critical": False}, None),
        ([OCSP_SIGNING], {"signer": LEAF}, "is not from the issuer"),
    ],
)
def test_a_delegate_needs_a_certificate_for_that_from_the_issuer(
    extensions: list[x509.ExtensionType], options: dict[str, Any], lack: str | None
) -> None:
    delegate = changed(AUTHORITY.good("responder.example"), *extensions, **options)
    found = problem(AUTHORITY.ocsp_response(LEAF, responder=delegate))
    if lack is None:
        assert found is None
    else:
        assert found is not None
        assert found.code == "OCSP_RESPONDER_UNAUTHORIZED"
        assert found.reason.endswith(lack)


def test_a_delegate_of_an_intermediate_does_not_speak_for_the_root() -> None:
    below = AUTHORITY.good("responder.example", intermediates=1)
    delegate = changed(below, OCSP_SIGNING, signer=AUTHORITY.ca_with_key(intermediates=1))
    assert code(AUTHORITY.ocsp_response(LEAF, responder=delegate)) == "OCSP_RESPONDER_UNAUTHORIZED"


def test_a_certificate_that_is_for_everything_is_not_for_ocsp() -> None:
    delegate = AUTHORITY.ca_with_key(intermediates=1)
    assert view(delegate).ext_key_usage == ()
    found = problem(AUTHORITY.ocsp_response(LEAF, responder=delegate))
    assert found is not None
    assert found.reason == "OCSP responder not authorized: its certificate is not for OCSP"


def test_a_delegate_s_certificate_with_a_broken_digest_does_not_count() -> None:
    delegate = changed(AUTHORITY.good("responder.example"), OCSP_SIGNING)
    [(_, content)] = elements(delegate.certificate.tbs_certificate_bytes)
    fields = elements(content)
    ecdsa_with_sha1 = bytes.fromhex("06072a8648ce3d0401")
    fields[2] = 0x30, ecdsa_with_sha1
    signed = encoded(0x30, b"".join(encoded(*field) for field in fields))
    signature = private_key(AUTHORITY.ca_with_key()).sign(signed, ec.ECDSA(hashes.SHA1()))
    shown = x509.load_der_x509_certificate(
        encoded(0x30, signed + encoded(0x30, ecdsa_with_sha1) + encoded(0x03, b"\0" + signature))
    )
    found = problem(response_by(shown, private_key(delegate), shown))
    assert found is not None
    assert found.reason == "OCSP responder not authorized: its certificate is not from the issuer"


def response_by(named: x509.Certificate, key: Any, *shown: x509.Certificate) -> bytes:
    """Return a good answer for the leaf in somebody's name, signed with the key."""
    fields = {**parts(AUTHORITY.ocsp_response(LEAF)), 0xA1: named.subject.public_bytes()}
    return signed_anew(fields, *shown, key=key)


def test_a_delegate_must_show_its_certificate() -> None:
    delegate = changed(AUTHORITY.good("responder.example"), OCSP_SIGNING)
    named, key = delegate.certificate, private_key(delegate)
    for shown in ([], [LEAF.certificate]):
        found = problem(response_by(named, key, *shown))
        assert found is not None
        assert found.code == "OCSP_RESPONDER_UNAUTHORIZED"
        assert found.reason.endswith("shows no certificate of its own")
    assert problem(response_by(named, key, LEAF.certificate, named)) is None


def test_who_takes_another_s_name_is_found_out_by_the_signature() -> None:
    delegate = changed(AUTHORITY.good("responder.example"), OCSP_SIGNING).certificate
    stranger = AUTHORITY.good("stranger.example")
    key = private_key(stranger)
    for response in (
        response_by(ISSUER.x509, key),
        response_by(ISSUER.x509, key, ISSUER.x509),
        response_by(ISSUER.x509, key, stranger.certificate),
        response_by(delegate, key, delegate),
    ):
        assert code(response) == "OCSP_SIGNATURE_FAILURE"


def test_of_two_certificates_with_the_name_one_must_fit() -> None:
    old = changed(AUTHORITY.good("responder.example"), OCSP_SIGNING)
    new_key = ec.generate_private_key(ec.SECP256R1())
    named = old.certificate
    new = (
        x509.CertificateBuilder(named.issuer, named.subject, new_key.public_key(), 2)
        .not_valid_before(named.not_valid_before_utc)
        .not_valid_after(named.not_valid_after_utc)
        .add_extension(OCSP_SIGNING, critical=False)
        .sign(private_key(AUTHORITY.ca_with_key()), hashes.SHA256())
    )
    both = (named, new)
    assert problem(response_by(named, new_key, *both)) is None
    assert problem(response_by(named, private_key(old), *both)) is None
    assert code(response_by(named, private_key(LEAF), *both)) == "OCSP_SIGNATURE_FAILURE"


# By what signature


@functools.cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def own_certificate(key: Any, digest: Any) -> x509.Certificate:
    """Return a certificate that its own key has signed."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority")])
    return x509.CertificateBuilder(name, name, key.public_key(), 7, NOW - DAY, NOW + DAY).sign(key, digest)


def own_response(certificate: x509.Certificate, key: Any, digest: hashes.HashAlgorithm | None) -> bytes:
    """Return the response of a self-signed certificate's owner to that very certificate."""
    builder = ocsp.OCSPResponseBuilder().add_response(
        certificate,
        certificate,
        hashes.SHA1(),
        ocsp.OCSPCertStatus.GOOD,
        NOW,
        NOW + DAY,
        revocation_time=None,
        revocation_reason=None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, certificate)
    return builder.sign(key, digest).public_bytes(Encoding.DER)


def own_problem(response: bytes, certificate: x509.Certificate) -> CertificateProblem | None:
    itself = Certificate.from_x509(certificate)
    return ocsp_problem(response, certificate=itself, issuer=itself, at=NOW)


def with_last_bit_flipped(der: bytes) -> bytes:
    return der[:-1] + bytes((der[-1] ^ 1,))


@pytest.mark.parametrize(
    ("make_key", "digest"),
    [
        (rsa_key, hashes.SHA256()),
        (rsa_key, hashes.SHA512()),
        (lambda: ec.generate_private_key(ec.SECP384R1()), hashes.SHA384()),
        (lambda: ec.generate_private_key(ec.SECP521R1()), hashes.SHA512()),
        (ed25519.Ed25519PrivateKey.generate, None),
        (ed448.Ed448PrivateKey.generate, None),
    ],
)
def test_signatures_of_every_kind_are_verified(
    make_key: Callable[[], Any], digest: hashes.HashAlgorithm | None
) -> None:
    key = make_key()
    certificate = own_certificate(key, digest)
    response = own_response(certificate, key, digest)
    assert own_problem(response, certificate) is None
    bad = own_problem(with_last_bit_flipped(response), certificate)
    assert bad is not None
    assert bad.code == "OCSP_SIGNATURE_FAILURE"


RSASSA_PSS = bytes.fromhex("06092a864886f70d01010a")
MGF1 = bytes.fromhex("06092a864886f70d010108")


def pss_parameters(digest: Any, number: str) -> bytes:
    """Return the parameters of RFC 4055 for a digest of the SHA-2 family with this number in hex."""
    hashed = encoded(0x30, bytes.fromhex(f"06096086480165030402{number}0500"))
    fields = {
        0xA0: hashed,
        0xA1: encoded(0x30, MGF1 + hashed),
        0xA2: bytes((0x02, 1, digest.digest_size)),
    }
    return encoded(0x30, b"".join(encoded(tag, content) for tag, content in fields.items()))


def pss_response(certificate: x509.Certificate, digest: Any, parameters: bytes) -> bytes:
    response = ocsp.load_der_ocsp_response(own_response(certificate, rsa_key(), hashes.SHA256()))
    signed = response.tbs_response_bytes
    padded = padding.PSS(padding.MGF1(digest), digest.digest_size)
    signature = rsa_key().sign(signed, padded, digest)
    return assembled(signed, encoded(0x30, RSASSA_PSS + parameters), signature)


@pytest.mark.parametrize(
    ("digest", "number"), [(hashes.SHA256(), "01"), (hashes.SHA384(), "02"), (hashes.SHA512(), "03")]
)
def test_signatures_of_rsassa_pss_are_verified(digest: Any, number: str) -> None:
    certificate = own_certificate(rsa_key(), hashes.SHA256())
    response = pss_response(certificate, digest, pss_parameters(digest, number))
    assert own_problem(response, certificate) is None
    bad = own_problem(with_last_bit_flipped(response), certificate)
    assert bad is not None
    assert bad.code == "OCSP_SIGNATURE_FAILURE"


@pytest.mark.parametrize(
    ("digest", "parameters", "expected"),
    [
        (hashes.SHA224(), pss_parameters(hashes.SHA224(), "04"), "OCSP_SIGNATURE_FAILURE"),
        (hashes.SHA1(), encoded(0x30, b""), "OCSP_SIGNATURE_FAILURE"),
        (hashes.SHA1(), b"", "OCSP_RESP_INVALID"),
        (hashes.SHA1(), encoded(0x30, encoded(0xA0, b"0")), "OCSP_RESP_INVALID"),
    ],
    ids=["SHA-224", "SHA-1, by default", "no parameters", "garbage"],
)
def test_signatures_of_rsassa_pss_with_another_digest_are_refused(
    digest: Any, parameters: bytes, expected: str
) -> None:
    certificate = own_certificate(rsa_key(), hashes.SHA256())
    found = own_problem(pss_response(certificate, digest, parameters), certificate)
    assert found is not None
    assert found.code == expected


def test_signatures_with_a_broken_digest_are_refused() -> None:
    certificate = own_certificate(rsa_key(), hashes.SHA256())
    sha1_with_rsa = bytes.fromhex("300d06092a864886f70d0101050500")
    response = own_response(certificate, rsa_key(), hashes.SHA256())
    signed = ocsp.load_der_ocsp_response(response).tbs_response_bytes
    signature = rsa_key().sign(signed, padding.PKCS1v15(), hashes.SHA1())
    found = own_problem(assembled(signed, sha1_with_rsa, signature), certificate)
    assert found is not None
    assert (found.code, found.reason) == (
        "OCSP_SIGNATURE_FAILURE",
        "OCSP response signature verification failure: sha1 is broken",
    )


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("300a06082a8648ce3d04037f", "not recognized"),
        ("300506032b6570", "verification failure"),
    ],
    ids=["unknown", "of another kind of key"],
)
def test_signatures_by_an_algorithm_that_does_not_fit_are_refused(algorithm: str, expected: str) -> None:
    response = AUTHORITY.ocsp_response(LEAF)
    signed = ocsp.load_der_ocsp_response(response).tbs_response_bytes
    found = problem(assembled(signed, bytes.fromhex(algorithm), b"0" * 64))
    assert found is not None
    assert found.code == "OCSP_SIGNATURE_FAILURE"
    assert found.reason.endswith(expected)


def test_keys_of_another_kind_are_refused() -> None:
    key = dsa.generate_private_key(1024)
    certificate = own_certificate(key, hashes.SHA256())
    found = own_problem(own_response(certificate, key, hashes.SHA256()), certificate)
    assert found is not None
    assert found.code == "OCSP_SIGNATURE_FAILURE"
    assert found.reason.endswith(": the key is of another kind than RSA, EC and EdDSA")


# Extensions


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize("place", ["response", "answer"])
def test_only_a_critical_extension_must_be_known(critical: bool, place: str) -> None:
    # A responder that is named by its key leaves the tag 0xA1 to the extensions.
    fields = parts(AUTHORITY.ocsp_response(LEAF, named_by="key"))
    extension = bytes.fromhex("0603290304") + (b"\x01\x01\xff" if critical else b"") + b"\x04\x02\x05\x00"
    extensions = encoded(0x30, encoded(0x30, extension))
    if place == "response":
        fields[0xA1] = extensions
    else:
        [(_, answer)] = elements(fields[0x30])
        fields[0x30] = encoded(0x30, answer + encoded(0xA1, extensions))
    found = problem(signed_anew(fields))
    assert (found is not None) is critical
    if found is not None:
        assert found.reason == "OCSP response(s) invalid: a critical extension is not known"


# Garbage


@given(st.binary(max_size=200))
def test_garbage_is_invalid(garbage: bytes) -> None:
    assert code(garbage) == "OCSP_RESP_INVALID"
    assert fresh_until(garbage, view(LEAF)) is None


RESPONSES = [
    AUTHORITY.ocsp_response(LEAF),
    AUTHORITY.ocsp_response(LEAF, status="revoked", named_by="key"),
    AUTHORITY.ocsp_response(LEAF, responder="delegate"),
    AUTHORITY.unauthorized_ocsp_response(LEAF),
    AUTHORITY.unsuccessful_ocsp_response(),
]


@given(st.data())
def test_what_is_signed_cannot_be_changed(data: st.DataObject) -> None:
    response = data.draw(st.sampled_from(RESPONSES))
    mutated = bytearray(response)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(response) - 1))
        mutated[at] = data.draw(st.sampled_from([0, 1, 5, 0x30, 0x80, 0xFF]) | st.integers(0, 255))
    found = code(bytes(mutated))
    fresh_until(bytes(mutated), view(LEAF))
    if found is None:
        signed = ocsp.load_der_ocsp_response(bytes(mutated)).tbs_response_bytes
        assert any(signed in response for response in RESPONSES)
    else:
        assert found in DIAGNOSES


@given(st.data())
def test_a_damaged_answer_has_a_code_even_if_it_is_signed(data: st.DataObject) -> None:
    content = parts(RESPONSES[0])
    answers = bytearray(content[0x30])
    at = data.draw(st.integers(0, len(answers) - 1))
    answers[at] = data.draw(st.integers(0, 255))
    assert code(signed_anew({**content, 0x30: bytes(answers)})) in {None, *DIAGNOSES}


def test_a_response_that_is_cut_short_or_goes_on_is_invalid() -> None:
    response = RESPONSES[0]
    for size in range(len(response)):
        assert code(response[:size]) == "OCSP_RESP_INVALID"
    assert code(response + b"\0") == "OCSP_RESP_INVALID"


def test_a_name_that_cannot_be_is_invalid_as_is_one_that_is_warned_of() -> None:
    content = parts(AUTHORITY.ocsp_response(LEAF))

    def named(attribute: str, value: bytes) -> bytes:
        pair = encoded(0x30, bytes.fromhex(attribute) + value)
        name = encoded(0x30, encoded(0x31, pair))
        return signed_anew({**content, 0xA1: name})

    bit_string, long_country = b"\x03\x02\x00\x00", b"\x13\x05abcde"
    assert code(named("0603550403", bit_string)) == "OCSP_RESP_INVALID"
    assert code(named("0603550406", long_country)) == "OCSP_RESP_INVALID"


# What a stapler needs


@pytest.mark.feature("B18")
def test_the_request_is_as_rfc_5019_has_it() -> None:
    request = ocsp.load_der_ocsp_request(ocsp_request(view(LEAF), ISSUER))
    response = ocsp.load_der_ocsp_response(AUTHORITY.ocsp_response(LEAF))
    assert isinstance(request.hash_algorithm, hashes.SHA1)
    assert request.serial_number == LEAF.certificate.serial_number
    assert request.issuer_name_hash == response.issuer_name_hash
    assert request.issuer_key_hash == response.issuer_key_hash
    assert len(request.extensions) == 0


@pytest.mark.feature("B18")
def test_a_certificate_that_cannot_be_read_cannot_be_asked_about() -> None:
    for certificate, issuer in ((Certificate(b"0"), ISSUER), (view(LEAF), Certificate(b"0"))):
        with pytest.raises(CertificateError, match="cannot be read"):
            ocsp_request(certificate, issuer)


@pytest.mark.feature("B18")
@pytest.mark.parametrize("next_update", [NOW, NOW - DAY, None])
def test_a_response_is_fresh_until_the_next_is_due(next_update: dt.datetime | None) -> None:
    for responder in ("issuer", "delegate"):
        response = AUTHORITY.ocsp_response(LEAF, responder=responder, next_update=next_update)
        assert fresh_until(response, view(LEAF)) == next_update


@pytest.mark.feature("B18")
def test_a_response_that_does_not_answer_is_fresh_at_no_time() -> None:
    assert fresh_until(AUTHORITY.unsuccessful_ocsp_response(), view(LEAF)) is None
    assert fresh_until(AUTHORITY.wrong_ocsp_response(LEAF), view(LEAF)) is None
    assert fresh_until(AUTHORITY.ocsp_response(LEAF), Certificate(b"0")) is None


@pytest.mark.feature("B18")
@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], ()),
        (["http://a.example/", "HTTPS://b.example/x"], ("http://a.example/", "HTTPS://b.example/x")),
        (["ldap://a.example/", "http://b.example/"], ("http://b.example/",)),
        (["http://a.example/ HTTP/1.1\r\nHost: b.example", "http://", "http:// b.example"], ()),
    ],
)
def test_the_responders_are_those_with_a_url_of_http(places: list[str], expected: tuple[str, ...]) -> None:
    issued = AUTHORITY.good("a.example")
    if places:
        access = [
            x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(place))
            for place in places
        ]
        issued = changed(issued, x509.AuthorityInformationAccess(access))
    assert responder_urls(view(issued)) == expected


@pytest.mark.feature("B18")
@pytest.mark.feature("G2")
def test_the_authority_names_its_responder() -> None:
    assert responder_urls(view(LEAF)) == responder_urls(view(STAPLING)) == (URL,)
    assert responder_urls(view(AUTHORITY.must_staple("a.example"))) == ()


# What a person can do about it


@pytest.mark.feature("D4")
@pytest.mark.feature("G11")
def test_the_hint_names_the_times() -> None:
    expired = problem(AUTHORITY.expired_ocsp_response(LEAF))
    early = problem(AUTHORITY.not_yet_valid_ocsp_response(LEAF))
    gone = problem(AUTHORITY.ocsp_response(LEAF, status="revoked"))
    assert expired is not None
    assert early is not None
    assert gone is not None
    assert hint([expired], peer="server", at=NOW).startswith(
        "OCSP response has expired: the next was due on 2026-01-02 10:30 UTC "
        "(it is judged as of 2026-01-03 10:30 UTC). Have the server fetch its response again"
    )
    assert ": it is of 2026-01-04 10:30 UTC (the clock here says " in hint([early], peer="server")
    assert " on 2026-01-02 10:30 UTC. Have a new one issued" in hint([gone], peer="server")


@pytest.mark.feature("D4")
@pytest.mark.feature("G11")
def test_the_hint_names_the_responder_to_ask() -> None:
    missing = problem(None, require=True)
    assert missing is not None
    assert hint([missing], peer="server").endswith(f"The certificate names the responder {URL!r}.")
    nowhere = problem(None, AUTHORITY.good("a.example"), require=True)
    assert nowhere is not None
    assert hint([nowhere], peer="server").endswith(DIAGNOSES["OCSP_NO_RESPONSE"].remedy)


# A foreign responder, and a foreign client


REVOKED = AUTHORITY.good("revoked.example")
AUTHORITY.revoke(REVOKED, reason=x509.ReasonFlags.ca_compromise)


@pytest.fixture
def responder_options(tmp_path: Path) -> list[str]:
    key, certificate = AUTHORITY.ca_with_key().write_to(tmp_path)
    index = tmp_path / "index.txt"
    index.write_bytes(AUTHORITY.index(LEAF, STAPLING, REVOKED))
    return ["-index", f"{index}", "-CA", f"{certificate}", "-rsigner", f"{certificate}", "-rkey", f"{key}"]


@pytest.mark.feature("B18")
@pytest.mark.feature("G2")
@pytest.mark.parametrize(
    ("issued", "expected"),
    [(LEAF, None), (REVOKED, "CERT_REVOKED"), (AUTHORITY.good("new.example"), "OCSP_CERT_UNKNOWN")],
    ids=["good", "revoked", "unknown"],
)
def test_openssl_answers_our_request(
    openssl: str,
    tmp_path: Path,
    responder_options: list[str],
    issued: IssuedCertificate,
    expected: str | None,
) -> None:
    request, response = tmp_path / "request", tmp_path / "response"
    request.write_bytes(ocsp_request(view(issued), ISSUER))
    files = ["-reqin", f"{request}", "-respout", f"{response}", "-ndays", "1"]
    subprocess.run([openssl, "ocsp", *files, *responder_options], check=True, capture_output=True)
    found = problem(response.read_bytes(), issued, at=None)
    assert (None if found is None else found.code) == expected
    if expected == "CERT_REVOKED":
        assert found is not None
        assert found.reason == "certificate revoked on 2026-01-02 10:30 UTC (ca compromise)"


@pytest.mark.feature("G2")
@pytest.mark.parametrize("responder", ["issuer", "delegate"])
@pytest.mark.parametrize("status", ["good", "revoked", "unknown"])
def test_openssl_reads_the_authority_s_response(
    openssl: str, tmp_path: Path, responder: Any, status: Any
) -> None:
    _, issuer = AUTHORITY.ca_with_key().write_to(tmp_path / "issuer")
    _, leaf = LEAF.write_to(tmp_path / "leaf")
    response = tmp_path / "response"
    response.write_bytes(AUTHORITY.ocsp_response(LEAF, status=status, responder=responder))
    files = ["-respin", f"{response}", "-issuer", f"{issuer}", "-cert", f"{leaf}", "-CAfile", f"{issuer}"]
    done = subprocess.run([openssl, "ocsp", *files, "-no_nonce"], check=True, capture_output=True, text=True)
    assert "Response verify OK" in done.stderr
    assert f"{leaf}: {status}" in done.stdout


# The authority


@pytest.mark.feature("G2")
def test_an_authority_speaks_only_of_its_own_certificates() -> None:
    foreign = Authority().good("a.example")
    for speak in (AUTHORITY.ocsp_response, AUTHORITY.wrong_ocsp_response, AUTHORITY.index):
        with pytest.raises(ValueError, match="own authority"):
            speak(foreign)
