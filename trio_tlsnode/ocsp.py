"""OCSP: what a certificate's issuer says of it at the moment, and whether a response that says so is good.

A server staples the response to its certificate (RFC 6066, section 8), and a client judges it as RFC 6960
demands.  Nothing is sent or fetched here.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from .certificates import Certificate
from .der import elements
from .diagnosis import moment
from .errors import CertificateError, CertificateProblem, ConfigurationError

OCSPMode = Literal["verify", "require"]
"""How a client judges: a response that is stapled ("verify"), or also that there is one ("require")."""

CLOCK_SKEW: Final = dt.timedelta(minutes=5)
"""How far the clocks of a responder and of who judges its response may be apart."""

MAX_AGE: Final = dt.timedelta(days=1)
"""How old a response may be that does not say when the next one is due; `CLOCK_SKEW` comes on top."""


def ocsp_problem(
    response: bytes | None,
    *,
    certificate: Certificate,
    issuer: Certificate | None,
    at: dt.datetime | None = None,
    require: bool = False,
) -> CertificateProblem | None:
    """Return what is wrong with a certificate by the OCSP response to it, or None if all is well.

    All is well without a response too, unless one is required here, or by the certificate itself ("must
    staple", RFC 7633).  A response counts if it is the issuer's own, or of a responder to whom the issuer has
    given a certificate for that purpose (RFC 6960, section 4.2.2.2); whether that one has been revoked is not
    asked.  If there are several answers for the certificate, all of them must be good.

    The codes are OpenSSL's as far as it has one: ``CERT_REVOKED``, ``OCSP_CERT_UNKNOWN``,
    ``OCSP_NO_RESPONSE``, ``OCSP_RESP_INVALID``, ``OCSP_VERIFY_FAILED`` (the issuer is not known),
    ``OCSP_WRONG_CERTIFICATE``, ``OCSP_RESPONDER_UNAUTHORIZED``, ``OCSP_SIGNATURE_FAILURE``,
    ``OCSP_NOT_YET_VALID`` and ``OCSP_HAS_EXPIRED``.

    Args:
        response: The stapled response in DER, or None if there is none.
        certificate: The certificate that it should be for.
        issuer: The certificate of its issuer, if that is known.  It is taken to be trusted.
        at: The moment as of which the response is judged, an aware datetime; None is now.
        require: Whether there must be a response.

    Raises:
        ConfigurationError: `at` has no time zone.
    """
    if at is None:
        at = dt.datetime.now(dt.UTC)
    elif at.tzinfo is None:
        raise ConfigurationError("at must name its time zone, as datetime.UTC", option="at")
    finding = _judge(response, certificate, issuer, at, require)
    if finding is None:
        return None
    code, detail = finding
    return CertificateProblem(code, f"{_TEXTS[code]}{detail}", 0, certificate)


def ocsp_request(certificate: Certificate, issuer: Certificate) -> bytes:
    """Return the question that a responder is asked about a certificate, in DER.

    It is as RFC 5019 has it, so that all responders know it and caches can hold the answer: for one
    certificate, named by SHA-1, without nonce and signature.

    Args:
        certificate: The certificate.
        issuer: The certificate of its issuer.

    Raises:
        CertificateError: one of the two cannot be read.
    """
    return _certificate_id(certificate.x509, issuer.x509, _SHA1).public_bytes(Encoding.DER)


def is_ocsp_response(data: bytes) -> bool:
    """Whether this is an OCSP response at all, be it good or bad.

    Args:
        data: What should be one, in DER.
    """
    try:
        ocsp.load_der_ocsp_response(data)
    except _UNREADABLE:
        return False
    return True


def fresh_until(response: bytes, certificate: Certificate) -> dt.datetime | None:
    """Return when the next response for a certificate is due, in UTC; None if that cannot be told.

    The response is not judged.

    Args:
        response: A response in DER.
        certificate: The certificate.
    """
    with contextlib.suppress(CertificateError, *_UNREADABLE):
        answers = _answers(ocsp.load_der_ocsp_response(response), certificate.x509)
        due = {answer.next_update_utc for answer in answers}
        return None if None in due else min(filter(None, due), default=None)
    return None


def responder_urls(certificate: Certificate) -> tuple[str, ...]:
    """Return the HTTP URLs of the responders that a certificate names, in its order.

    Args:
        certificate: The certificate.

    Raises:
        CertificateError: the certificate's authorityInfoAccess cannot be read.
    """
    places = certificate.info_access.get("OCSP - URI", ())
    return tuple(place for place in places if _HTTP_URL.fullmatch(place))


# OpenSSL's texts (X509_verify_cert_error_string), and ours where it has none.
_TEXTS: Final = {
    "CERT_REVOKED": "certificate revoked",
    "OCSP_CERT_UNKNOWN": "OCSP unknown cert",
    "OCSP_HAS_EXPIRED": "OCSP response has expired",
    "OCSP_NO_RESPONSE": "no OCSP response available for certificate",
    "OCSP_NOT_YET_VALID": "OCSP response not yet valid (contains a date in the future)",
    "OCSP_RESPONDER_UNAUTHORIZED": "OCSP responder not authorized",
    "OCSP_RESP_INVALID": "OCSP response(s) invalid",
    "OCSP_SIGNATURE_FAILURE": "OCSP response signature verification failure",
    "OCSP_VERIFY_FAILED": "OCSP verification failed",
    "OCSP_WRONG_CERTIFICATE": "OCSP response is for another certificate",
}

UNREADABLE_RESPONSE: Final = CertificateProblem(
    "OCSP_RESP_INVALID", f"{_TEXTS['OCSP_RESP_INVALID']}: it cannot be read", 0, None
)
"""What is wrong with a response of which OpenSSL can read nothing, so that it does not hand it out."""

# What `cryptography` and `der` raise where they cannot read a response, or a certificate in it; it warns of
# names that are out of the ordinary, and warnings can be errors.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    IndexError,
    UserWarning,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

_SHA1: Final = hashes.SHA1()  # noqa: S303 - it only names certificates and keys
_BROKEN: Final = (hashes.MD5, hashes.SHA1)
_PSS_HASHES: Final[dict[bytes, hashes.HashAlgorithm]] = {
    bytes.fromhex("608648016503040201"): hashes.SHA256(),
    bytes.fromhex("608648016503040202"): hashes.SHA384(),
    bytes.fromhex("608648016503040203"): hashes.SHA512(),
}
_PSS_HASH: Final = 0xA0  # the context tag in RFC 4055's RSASSA-PSS-params

# A line break would let a certificate write a request of its own.
_HTTP_URL: Final = re.compile("https?://[!-~]+", re.IGNORECASE)

_Finding = tuple[str, str] | None
"""A code and what follows its text, or None if all is well."""


def _judge(
    response: bytes | None,
    certificate: Certificate,
    issuer: Certificate | None,
    at: dt.datetime,
    require: bool,
) -> _Finding:
    if response is None:
        if _must_staple(certificate):
            return "OCSP_NO_RESPONSE", ": it must always come with one"
        return ("OCSP_NO_RESPONSE", "") if require else None
    try:
        parsed = ocsp.load_der_ocsp_response(response)
        if parsed.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            answer = parsed.response_status.name.lower().replace("_", " ")
            return "OCSP_RESP_INVALID", f": the responder says {answer!r}"
        if issuer is None:
            return "OCSP_VERIFY_FAILED", ": the certificate's issuer is not known"
        answers = list(_answers(parsed, certificate.x509, issuer.x509))
        if not answers:
            return "OCSP_WRONG_CERTIFICATE", ""
        extensions = [*parsed.extensions]
        if len([*parsed.responses]) == 1:  # where there are several, `cryptography` does not show theirs
            extensions += parsed.single_extensions
        if _demands_unknown(extensions):
            return "OCSP_RESP_INVALID", ": a critical extension is not known"
        findings = [_judge_time(answer, at) or _judge_status(answer) for answer in answers]
        return _judge_signature(parsed, response, issuer.x509, at) or next(filter(None, findings), None)
    except CertificateError as damage:
        return "OCSP_VERIFY_FAILED", f": {damage.reason}"
    except _UNREADABLE:
        return "OCSP_RESP_INVALID", ": it cannot be read"


def _must_staple(certificate: Certificate) -> bool:
    try:
        feature = _extension(certificate.x509, x509.TLSFeature)
    except (CertificateError, *_UNREADABLE):
        return False
    return feature is not None and x509.TLSFeatureType.status_request in feature


# For which certificate


def _answers(
    response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate | None = None
) -> Iterator[ocsp.OCSPSingleResponse]:
    """Yield the answers for a certificate; without its issuer, those with its number and issuer's name."""
    for answer in response.responses:
        if answer.serial_number != certificate.serial_number:
            continue
        try:
            # The name is read from the certificate itself.
            asked = _certificate_id(certificate, issuer or certificate, answer.hash_algorithm)
        except (UnsupportedAlgorithm, ValueError):
            continue  # by this algorithm nobody has asked
        if answer.issuer_name_hash == asked.issuer_name_hash and (
            issuer is None or answer.issuer_key_hash == asked.issuer_key_hash
        ):
            yield answer


def _certificate_id(
    certificate: x509.Certificate, issuer: x509.Certificate, algorithm: hashes.HashAlgorithm
) -> ocsp.OCSPRequest:
    return ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, algorithm).build()


# By whom


def _judge_signature(
    response: ocsp.OCSPResponse, der: bytes, issuer: x509.Certificate, at: dt.datetime
) -> _Finding:
    doubt = "it is not the issuer, and shows no certificate of its own"
    failure: _Finding = None
    for signer in dict.fromkeys((issuer, *response.certificates)):
        if not _is_named(signer, response):
            continue
        lack = "" if signer == issuer else _lack(signer, issuer, at)
        if lack:
            doubt = lack
            continue
        try:
            _verify(response, der, signer)
        except InvalidSignature:
            failure = "OCSP_SIGNATURE_FAILURE", ""
        except UnsupportedAlgorithm as unsupported:
            failure = "OCSP_SIGNATURE_FAILURE", f": {unsupported}"
        else:
            return None
    return failure or ("OCSP_RESPONDER_UNAUTHORIZED", f": {doubt}")


def _is_named(signer: x509.Certificate, response: ocsp.OCSPResponse) -> bool:
    """Whether the response names this one as its responder, by name or by key."""
    key_hash = response.responder_key_hash
    if key_hash is None:
        return signer.subject == response.responder_name
    return _certificate_id(signer, signer, _SHA1).issuer_key_hash == key_hash


def _lack(delegate: x509.Certificate, issuer: x509.Certificate, at: dt.datetime) -> str:
    """Return why the owner of a certificate may not speak for the issuer, or ""."""
    try:
        delegate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_UNREADABLE):
        return "its certificate is not from the issuer"
    if not delegate.not_valid_before_utc <= at <= delegate.not_valid_after_utc:
        first, last = delegate.not_valid_before_utc, delegate.not_valid_after_utc
        return f"its certificate is valid from {moment(first)} to {moment(last)}"
    purposes = _extension(delegate, x509.ExtendedKeyUsage)
    usage = _extension(delegate, x509.KeyUsage)
    if purposes is None or ExtendedKeyUsageOID.OCSP_SIGNING not in purposes:
        return "its certificate is not for OCSP"
    if usage is not None and not (usage.digital_signature or usage.content_commitment):
        return "its certificate is not for signatures"
    if _demands_unknown(delegate.extensions):
        return "a critical extension of its certificate is not known"
    return ""


def _verify(response: ocsp.OCSPResponse, der: bytes, signer: x509.Certificate) -> None:
    """Return if this one has signed the response.

    Raises:
        InvalidSignature: it has not.
        UnsupportedAlgorithm: that cannot be told.
    """
    key = signer.public_key()
    signature, signed = response.signature, response.tbs_response_bytes
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(signature, signed)
        return
    is_pss = response.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS
    digest = _pss_hash(der, signed) if is_pss else response.signature_hash_algorithm
    if digest is None:
        raise InvalidSignature
    if isinstance(digest, _BROKEN):
        raise UnsupportedAlgorithm(f"{digest.name} is broken")
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, signed, ec.ECDSA(digest))
    elif not isinstance(key, rsa.RSAPublicKey):
        raise UnsupportedAlgorithm("the key is of another kind than RSA, EC and EdDSA")
    elif is_pss:
        key.verify(signature, signed, padding.PSS(padding.MGF1(digest), padding.PSS.AUTO), digest)
    else:
        key.verify(signature, signed, padding.PKCS1v15(), digest)


def _pss_hash(der: bytes, signed: bytes) -> hashes.HashAlgorithm:
    """Return the hash of an RSASSA-PSS signature (RFC 4055), which `cryptography` does not tell."""
    (_, algorithm), *_ = elements(der.partition(signed)[2])
    _, (_, parameters) = elements(algorithm)
    for _, sequence in elements(dict(elements(parameters)).get(_PSS_HASH, b"")):
        (_, identifier), *_ = elements(sequence)
        if identifier in _PSS_HASHES:
            return _PSS_HASHES[identifier]
    raise UnsupportedAlgorithm("RSASSA-PSS with another digest than SHA-256, SHA-384 and SHA-512")


# When, and what it says


def _judge_time(answer: ocsp.OCSPSingleResponse, at: dt.datetime) -> _Finding:
    since, due = answer.this_update_utc, answer.next_update_utc
    # Of differences: a date at the end of the calendar cannot be moved.
    if since - at > CLOCK_SKEW:
        return "OCSP_NOT_YET_VALID", f": it is of {moment(since)}"
    if due is None and at - since > MAX_AGE + CLOCK_SKEW:
        return "OCSP_HAS_EXPIRED", f": it is of {moment(since)}, and does not say when the next is due"
    if due is not None and at - due > CLOCK_SKEW:
        return "OCSP_HAS_EXPIRED", f": the next was due on {moment(due)}"
    return None


def _judge_status(answer: ocsp.OCSPSingleResponse) -> _Finding:
    if answer.certificate_status is ocsp.OCSPCertStatus.GOOD:
        return None
    if answer.certificate_status is ocsp.OCSPCertStatus.UNKNOWN:
        return "OCSP_CERT_UNKNOWN", ""
    assert answer.revocation_time_utc is not None
    reason = answer.revocation_reason
    why = "" if reason is None else f" ({reason.name.replace('_', ' ')})"
    return "CERT_REVOKED", f" on {moment(answer.revocation_time_utc)}{why}"


# Extensions

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    with contextlib.suppress(x509.ExtensionNotFound):
        return certificate.extensions.get_extension_for_class(kind).value
    return None


def _demands_unknown(extensions: Iterable[x509.Extension[x509.ExtensionType]]) -> bool:
    """Whether one of the extensions must be understood, and is not."""
    return any(
        extension.critical and isinstance(extension.value, x509.UnrecognizedExtension)
        for extension in extensions
    )
