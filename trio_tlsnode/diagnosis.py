"""Diagnosis: what a certificate error means, and what a person can do about it.

There is one for each result that OpenSSL's verification can have (``X509_verify_cert_error_string``), and for
the codes that a `CertificateError` has besides.  `hint` says it of one chain, with its names and dates.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from .errors import CertificateError, CertificateProblem

if TYPE_CHECKING:
    from .certificates import Certificate, Name

Peer = Literal["server", "client"]
"""Whose certificate is judged."""


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the code of a certificate error means.

    Attributes:
        cause: Why the certificate is refused, in one or two sentences.
        remedy: What can be done about it, in one or two sentences.
    """

    cause: str
    remedy: str


_REISSUE: Final = "Have the certificate issued again, by a tool that follows RFC 5280."
_REISSUE_AUTHORITY: Final = (
    "Have the authority's certificate issued again, by a tool that follows RFC 5280, "
    "and replace it in the chain."
)
_FETCH_LIST: Final = "Fetch the revocation list again; if it is no better, its issuer has to mend it."
_PROXY: Final = "Present the certificate from which the proxy certificate was made."
_OCSP: Final = (
    "Have the server ask the responder again, and look whether it is the one that the certificate names."
)
_SUITE_B: Final = "Have the chain issued with P-256 and SHA-256, or with P-384 and SHA-384, throughout."
_RENEW_CHAIN: Final = (
    "Present the intermediate that really issued the certificate; after a renewal, replace both together."
)
_NAMES: Final = "Have it issued for names that the authority may vouch for, or by another authority."
_CONSTRAINTS: Final = (
    "Have the authority's certificate issued again with name constraints that OpenSSL knows: "
    "DNS names, IP and e-mail addresses, URIs and directory names."
)

_MEANINGS: Final[dict[str, tuple[str, str]]] = {
    # Node's names of OpenSSL's verify results
    "UNABLE_TO_GET_ISSUER_CERT": (
        (
            "The chain ends with an intermediate that is trusted, but its root is not. "
            "On a server it is also Node's code for a client that presented no certificate."
        ),
        "Trust the root by ca=, or let the intermediate be enough by allow_partial_trust_chain=True.",
    ),
    "UNABLE_TO_GET_CRL": (
        (
            "There are revocation lists, but none of an authority in the chain; "
            "with one list, every certificate of the chain needs its issuer's."
        ),
        "Add the current list of each authority in the chain, the root's too, to crl=.",
    ),
    "UNABLE_TO_DECRYPT_CERT_SIGNATURE": (
        "The signature of the certificate cannot be decrypted with its issuer's key.",
        _REISSUE,
    ),
    "UNABLE_TO_DECRYPT_CRL_SIGNATURE": (
        "The signature of the revocation list cannot be decrypted with its issuer's key.",
        _FETCH_LIST,
    ),
    "UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY": (
        "The public key in the certificate of an authority cannot be read.",
        _REISSUE_AUTHORITY,
    ),
    "CERT_SIGNATURE_FAILURE": (
        (
            "The signature does not fit the certificate: it was changed after it was issued, "
            "or another key of an authority with the same name has signed it."
        ),
        "Install the certificate again as it was issued, with the intermediates that belong to it.",
    ),
    "CRL_SIGNATURE_FAILURE": (
        "The signature does not fit the revocation list: it was changed, or is another authority's.",
        _FETCH_LIST,
    ),
    "CERT_NOT_YET_VALID": (
        "The validity of the certificate begins later than the clock of the verifier says.",
        "Set the clock right if it is wrong; otherwise have a certificate issued that is valid now.",
    ),
    "CERT_HAS_EXPIRED": (
        "The validity of the certificate has ended, by the clock of the verifier.",
        "Have it renewed and installed where it is presented; if the clock is wrong, set that right.",
    ),
    "CRL_NOT_YET_VALID": (
        "The revocation list is made out for a later time than the clock of the verifier says.",
        "Set the clock right if it is wrong; otherwise give the list that is current by crl=.",
    ),
    "CRL_HAS_EXPIRED": (
        "The next revocation list is due, so this one does not count any more.",
        "Fetch the current list from its issuer and give it by crl=; do so whenever a new one is due.",
    ),
    "ERROR_IN_CERT_NOT_BEFORE_FIELD": (
        "The date from which the certificate is valid is not a date.",
        _REISSUE,
    ),
    "ERROR_IN_CERT_NOT_AFTER_FIELD": (
        "The date until which the certificate is valid is not a date.",
        _REISSUE,
    ),
    "ERROR_IN_CRL_LAST_UPDATE_FIELD": ("The date of the revocation list is not a date.", _FETCH_LIST),
    "ERROR_IN_CRL_NEXT_UPDATE_FIELD": (
        "The date at which the next revocation list is due is not a date.",
        _FETCH_LIST,
    ),
    "OUT_OF_MEM": (
        "There was no memory left for the verification.",
        "Give the process more memory and try again; nothing is known to be wrong with the certificate.",
    ),
    "DEPTH_ZERO_SELF_SIGNED_CERT": (
        "The peer's certificate is signed by its own key, and it is not among those that are trusted.",
        (
            "Trust this very certificate by ca=, fetched by another way than this connection; "
            "or have one issued by an authority that is trusted."
        ),
    ),
    "SELF_SIGNED_CERT_IN_CHAIN": (
        "The peer sent its chain up to the root, and that root is not among those that are trusted.",
        (
            "Trust the root by ca= if it is your authority's, fetched by another way than this connection. "
            "If you do not know it, somebody may be in between: a proxy that inspects, or an attacker."
        ),
    ),
    "UNABLE_TO_GET_ISSUER_CERT_LOCALLY": (
        "The chain ends with a certificate whose issuer was not sent and is not trusted here.",
        (
            "Trust the issuing authority by ca= if it is a private one; "
            "otherwise have the peer put the missing intermediate behind its certificate in cert=."
        ),
    ),
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE": (
        "The peer sent its certificate alone, and who issued that is not trusted here.",
        (
            "Have the peer put its intermediates behind its certificate in cert=; "
            "if a private authority issued it, trust that by ca=."
        ),
    ),
    "CERT_CHAIN_TOO_LONG": (
        "There are more intermediates between the certificate and the root than OpenSSL follows: 100.",
        "Have the certificate issued by an authority nearer to the root.",
    ),
    "CERT_REVOKED": (
        "The issuer has withdrawn the certificate, as its revocation list or an OCSP response says.",
        "Have a new certificate issued for a new key; the old key may be in the wrong hands.",
    ),
    "PATH_LENGTH_EXCEEDED": (
        "An authority in the chain has more intermediates below it than its certificate allows (pathlen).",
        "Have it issued by an authority that may, or that authority's own with a greater pathlen.",
    ),
    "INVALID_PURPOSE": (
        "The certificate, or that of an authority above it, may not be used for this side of TLS.",
        "Have it issued with the extended key usage serverAuth for a server, clientAuth for a client.",
    ),
    "CERT_UNTRUSTED": (
        "The root is known, but its trust settings do not name this side of TLS.",
        "Give the root by ca= as an ordinary certificate, without trust settings.",
    ),
    "CERT_REJECTED": (
        "The trust settings of the root reject it for this side of TLS.",
        "Have the certificate issued by another authority; the root is rejected on purpose.",
    ),
    "HOSTNAME_MISMATCH": (
        "The certificate is not for the name that was asked for.",
        "Connect by a name that the certificate is for, or have it issued for this name too.",
    ),
    "INVALID_CA": (
        "A certificate in the chain has issued another one, but is no authority's (basicConstraints).",
        "Have the certificate issued by an authority; an ordinary certificate cannot issue others.",
    ),
    # OpenSSL's names where Node has none
    "UNSPECIFIED": (
        "The certificate was refused and nobody said why.",
        "Look at what the verifying program itself checks, and at the other problems of the chain.",
    ),
    "NO_ISSUER_PUBLIC_KEY": ("The certificate of an authority has no public key.", _REISSUE_AUTHORITY),
    "SUBJECT_ISSUER_MISMATCH": (
        "The next certificate of the chain is not the one that is named as the issuer.",
        _RENEW_CHAIN,
    ),
    "AKID_SKID_MISMATCH": (
        "The issuer's key is not the one that the certificate names, though the issuer's name is.",
        _RENEW_CHAIN,
    ),
    "AKID_ISSUER_SERIAL_MISMATCH": (
        "The issuer's certificate is not the one that the certificate names by its serial number.",
        _RENEW_CHAIN,
    ),
    "KEYUSAGE_NO_CERTSIGN": (
        "The certificate of an authority does not allow it to sign certificates (keyCertSign).",
        _REISSUE_AUTHORITY,
    ),
    "UNABLE_TO_GET_CRL_ISSUER": (
        "The certificate of the authority that made the revocation list cannot be found.",
        "Add that authority's certificate to ca=.",
    ),
    "UNHANDLED_CRITICAL_EXTENSION": (
        "The certificate has an extension that has to be understood, and OpenSSL does not know it.",
        "Have the certificate issued without that extension, or with the extension not marked critical.",
    ),
    "KEYUSAGE_NO_CRL_SIGN": (
        "The authority that made the revocation list may not sign such lists (cRLSign).",
        "Have the authority's certificate issued again with the key usage cRLSign.",
    ),
    "UNHANDLED_CRITICAL_CRL_EXTENSION": (
        "The revocation list has an extension that has to be understood, and OpenSSL does not know it.",
        "Ask the issuer for a list without that extension, a complete one instead of a delta.",
    ),
    "INVALID_NON_CA": (
        "The certificate is an authority's, where an ordinary one is needed.",
        "Have the certificate issued with basicConstraints CA:FALSE.",
    ),
    "PROXY_PATH_LENGTH_EXCEEDED": (
        "There are more proxy certificates (RFC 3820) below one another than the first one allows.",
        _PROXY,
    ),
    "KEYUSAGE_NO_DIGITAL_SIGNATURE": (
        "A proxy certificate (RFC 3820) was made from a certificate that may not sign (digitalSignature).",
        _PROXY,
    ),
    "PROXY_CERTIFICATES_NOT_ALLOWED": (
        "The chain has a proxy certificate (RFC 3820), and those are not accepted here.",
        _PROXY,
    ),
    "INVALID_EXTENSION": (
        "An extension of the certificate is damaged, or contradicts another one.",
        _REISSUE,
    ),
    "INVALID_POLICY_EXTENSION": (
        "A policy extension of the certificate is damaged, or contradicts another one.",
        _REISSUE,
    ),
    "NO_EXPLICIT_POLICY": (
        "A policy is required, and the chain has none that all of its certificates share.",
        "Have the chain issued under one policy, or by authorities that do not require one.",
    ),
    "DIFFERENT_CRL_SCOPE": (
        "The issuer's revocation list is for other certificates than this one.",
        "Give the issuer's complete revocation list, which covers this kind of certificate.",
    ),
    "UNSUPPORTED_EXTENSION_FEATURE": (
        "An extension asks for something that OpenSSL does not do.",
        "Have the certificate, or the revocation list, issued without that feature.",
    ),
    "UNNESTED_RESOURCE": (
        "The certificate is for Internet resources (RFC 3779) that an authority above it does not hold.",
        "Have the certificate issued for resources that the authorities above it hold.",
    ),
    "PERMITTED_VIOLATION": (
        "An authority in the chain may vouch for certain names only, and the certificate has another one.",
        _NAMES,
    ),
    "EXCLUDED_VIOLATION": (
        "The certificate has a name for which an authority in the chain may not vouch.",
        _NAMES,
    ),
    "SUBTREE_MINMAX": (
        "The name constraints of an authority have a minimum or maximum; RFC 5280 forbids that.",
        _CONSTRAINTS,
    ),
    "APPLICATION_VERIFICATION": (
        "A check of the verifying program's own has refused the certificate.",
        "Look at what that program checks besides the chain.",
    ),
    "UNSUPPORTED_CONSTRAINT_TYPE": (
        "The name constraints of an authority are for a kind of name that OpenSSL does not know.",
        _CONSTRAINTS,
    ),
    "UNSUPPORTED_CONSTRAINT_SYNTAX": (
        "The name constraints of an authority are written in a way that OpenSSL does not know.",
        _CONSTRAINTS,
    ),
    "UNSUPPORTED_NAME_SYNTAX": (
        "A name of the certificate cannot be compared with the name constraints of an authority.",
        "Have the certificate issued with that name in its ordinary form.",
    ),
    "CRL_PATH_VALIDATION_ERROR": (
        "The chain of the authority that made the revocation list cannot be verified.",
        "Add the certificates from that authority up to its root to ca=.",
    ),
    "PATH_LOOP": (
        "The certificates of the chain have issued one another in a circle.",
        "Present the chain that leads to a root, without the cross-signed certificates.",
    ),
    "SUITE_B_INVALID_VERSION": (
        "Suite B is required, and a certificate is older than X.509 version 3.",
        _SUITE_B,
    ),
    "SUITE_B_INVALID_ALGORITHM": (
        "Suite B is required, and a certificate has a key that is not of an elliptic curve.",
        _SUITE_B,
    ),
    "SUITE_B_INVALID_CURVE": (
        "Suite B is required, and a key is of a curve other than P-256 and P-384.",
        _SUITE_B,
    ),
    "SUITE_B_INVALID_SIGNATURE_ALGORITHM": (
        "Suite B is required, and a signature uses another digest than the curve's own.",
        _SUITE_B,
    ),
    "SUITE_B_LOS_NOT_ALLOWED": (
        "A level of Suite B is required that does not allow the curve of a certificate.",
        _SUITE_B,
    ),
    "SUITE_B_CANNOT_SIGN_P_384_WITH_P_256": (
        "Suite B is required, and a key of P-384 is signed by one of P-256, which is weaker.",
        _SUITE_B,
    ),
    "EMAIL_MISMATCH": (
        "The certificate is not for the e-mail address that was asked for.",
        "Ask for an address that the certificate is for, or have it issued for this one too.",
    ),
    "IP_ADDRESS_MISMATCH": (
        "The certificate is not for the IP address that was asked for.",
        "Connect by a name that the certificate is for, or have it issued for the IP address too.",
    ),
    "DANE_NO_MATCH": (
        "No TLSA record of the name matches the certificate (DANE).",
        "Publish the TLSA record of the certificate that is presented, and wait until old ones have expired.",
    ),
    "EE_KEY_TOO_SMALL": (
        "The key of the certificate is too weak for the security level of the verifier.",
        (
            "Have a certificate issued for a new key: RSA of 2048 bits or more, or P-256. "
            "For a peer that cannot be renewed, lower the level of this one context by @SECLEVEL in ciphers=."
        ),
    ),
    "CA_KEY_TOO_SMALL": (
        "The key of an authority in the chain is too weak for the security level of the verifier.",
        (
            "Have the certificate issued by an authority with a key of 2048 bits RSA or more, or P-256. "
            "For a peer that cannot be renewed, lower the level of this one context by @SECLEVEL in ciphers=."
        ),
    ),
    "CA_MD_TOO_WEAK": (
        "A certificate in the chain is signed with a digest that is broken, MD5 or SHA-1.",
        (
            "Have the certificate issued again with SHA-256. "
            "For a peer that cannot be renewed, lower the level of this one context by @SECLEVEL in ciphers=."
        ),
    ),
    "INVALID_CALL": (
        "OpenSSL was called wrongly, so nothing was verified.",
        "This is a defect of the verifying program, not of the certificate: report it.",
    ),
    "STORE_LOOKUP": (
        "The search for the issuer among the trusted certificates has failed.",
        "Look at whether the trusted certificates can be read, and try again.",
    ),
    "NO_VALID_SCTS": (
        "Certificate Transparency is required, and no log has a valid record of the certificate.",
        "Have the certificate issued by an authority that submits it to the public logs.",
    ),
    "PROXY_SUBJECT_NAME_VIOLATION": (
        "The name of a proxy certificate (RFC 3820) is not made from that of its issuer.",
        _PROXY,
    ),
    "OCSP_VERIFY_NEEDED": (
        "An OCSP response is required, and the certificate has not been looked up yet.",
        _OCSP,
    ),
    "OCSP_VERIFY_FAILED": (
        "The OCSP response cannot be verified: the issuer's certificate is not known, or cannot be read.",
        "Have the server put its intermediate behind its certificate in cert=, or trust the issuer by ca=.",
    ),
    "OCSP_CERT_UNKNOWN": (
        "The OCSP responder does not know the certificate.",
        (
            "Look whether the responder that was asked is the one that the certificate names. "
            "A certificate that was issued just now may become known to it a little later."
        ),
    ),
    "UNSUPPORTED_SIGNATURE_ALGORITHM": (
        "The certificate is signed by an algorithm that this OpenSSL does not have.",
        "Have the certificate issued with an algorithm that all have: ECDSA or RSA with SHA-256.",
    ),
    "SIGNATURE_ALGORITHM_MISMATCH": (
        "The certificate is signed by an algorithm that does not belong to its issuer's key.",
        _RENEW_CHAIN,
    ),
    "SIGNATURE_ALGORITHM_INCONSISTENCY": (
        "The certificate names its signature algorithm twice, and differently.",
        _REISSUE,
    ),
    "PATHLEN_INVALID_FOR_NON_CA": (
        "The certificate limits the intermediates below it (pathlen), but is no authority's.",
        _REISSUE,
    ),
    "PATHLEN_WITHOUT_KU_KEY_CERT_SIGN": (
        "The certificate limits the intermediates below it (pathlen), but may not sign any.",
        _REISSUE,
    ),
    "KU_KEY_CERT_SIGN_INVALID_FOR_NON_CA": (
        "The certificate may sign certificates (keyCertSign), but is no authority's.",
        _REISSUE,
    ),
    "ISSUER_NAME_EMPTY": ("The certificate does not name its issuer.", _REISSUE),
    "SUBJECT_NAME_EMPTY": ("The certificate of an authority has no name.", _REISSUE_AUTHORITY),
    "MISSING_AUTHORITY_KEY_IDENTIFIER": (
        "The certificate does not say which of its issuer's keys has signed it (authorityKeyIdentifier).",
        _REISSUE,
    ),
    "MISSING_SUBJECT_KEY_IDENTIFIER": (
        "The certificate of an authority does not identify its key (subjectKeyIdentifier).",
        _REISSUE_AUTHORITY,
    ),
    "EMPTY_SUBJECT_ALT_NAME": ("The certificate has a subjectAltName without any name in it.", _REISSUE),
    "EMPTY_SUBJECT_SAN_NOT_CRITICAL": (
        "The certificate has names in its subjectAltName alone, which is not marked critical.",
        _REISSUE,
    ),
    "CA_BCONS_NOT_CRITICAL": (
        "The basicConstraints of an authority are not marked critical.",
        _REISSUE_AUTHORITY,
    ),
    "AUTHORITY_KEY_IDENTIFIER_CRITICAL": (
        "The authorityKeyIdentifier is marked critical, which it may not be.",
        _REISSUE,
    ),
    "SUBJECT_KEY_IDENTIFIER_CRITICAL": (
        "The subjectKeyIdentifier is marked critical, which it may not be.",
        _REISSUE,
    ),
    "CA_CERT_MISSING_KEY_USAGE": (
        "The certificate of an authority does not say what its key may be used for (keyUsage).",
        _REISSUE_AUTHORITY,
    ),
    "EXTENSIONS_REQUIRE_VERSION_3": (
        "The certificate has extensions, but says that it is older than X.509 version 3.",
        _REISSUE,
    ),
    "EC_KEY_EXPLICIT_PARAMS": (
        "A key gives the parameters of its curve instead of its name, which attackers can make use of.",
        "Make the key anew on a named curve, P-256 say, and have the certificate issued for it.",
    ),
    "RPK_UNTRUSTED": (
        "The peer presented a raw public key, and no such key is trusted here.",
        "Have the peer present a certificate.",
    ),
    "OCSP_RESP_INVALID": (
        "What was stapled is not an OCSP response, or one in which the responder refuses to answer.",
        _OCSP,
    ),
    "OCSP_SIGNATURE_FAILURE": (
        (
            "The signature does not fit the OCSP response: it was changed after it was made, "
            "or another key of the same name, or an algorithm that is not safe, was used."
        ),
        _OCSP,
    ),
    "OCSP_NOT_YET_VALID": (
        "The OCSP response is made out for a later time than the clock of the verifier says.",
        "Set the clock right if it is wrong; otherwise fetch the response again.",
    ),
    "OCSP_HAS_EXPIRED": (
        "The next OCSP response is due, so this one does not count any more.",
        "Have the server fetch its response again, well before the old one is due.",
    ),
    "OCSP_NO_RESPONSE": (
        (
            "The server stapled no OCSP response, and the client requires one, "
            "or the certificate says that it always comes with one (must-staple)."
        ),
        "Have the server staple the response that the responder of its certificate gives.",
    ),
    "CRL_VERIFY_FAILED": ("The revocation list cannot be verified.", _FETCH_LIST),
    "EMPTY_AUTHORITY_KEY_IDENTIFIER": (
        "The certificate has an authorityKeyIdentifier with nothing in it.",
        _REISSUE,
    ),
    "AKID_ISSUER_SERIAL_NOT_PAIRED": (
        "The authorityKeyIdentifier names its issuer without a serial number, or the other way round.",
        _REISSUE,
    ),
    # What is found besides the chain
    "OCSP_RESPONDER_UNAUTHORIZED": (
        (
            "The OCSP response is signed neither by the issuer of the certificate "
            "nor by a responder that the issuer has certified for OCSP signing."
        ),
        (
            "Have the server ask the responder that the certificate names. "
            "A responder with a key of its own needs a certificate for OCSPSigning, directly from the issuer."
        ),
    ),
    "OCSP_WRONG_CERTIFICATE": (
        "The OCSP response is for another certificate than the one that the server presents.",
        "Have the server fetch a response for its present certificate, whenever that is replaced.",
    ),
    "ERR_TLS_CERT_ALTNAME_INVALID": (
        "The certificate is trusted, but is not for the name or address that was asked for.",
        "Connect by a name that the certificate is for, or have it issued for this one too.",
    ),
    "ERR_TLS_CERT_ALTNAME_FORMAT": ("The names of the certificate cannot be read.", _REISSUE),
    "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        "The server requires a certificate of its clients, and this one presented none.",
        "Give the client a certificate by cert= and key=, issued by an authority that the server trusts.",
    ),
    "ERR_OSSL_ASN1_DECODE_ERROR": ("A part of the certificate is damaged.", _REISSUE),
}

DIAGNOSES: Final[Mapping[str, Diagnosis]] = MappingProxyType(
    {code: Diagnosis(*meaning) for code, meaning in _MEANINGS.items()}
)
"""What each code of a `CertificateError` means; OpenSSL's verify results without their prefix."""

# A malicious chain can have a hundred things wrong with it, and names of any length.
_MOST_CAUSES: Final = 3
_LONGEST_NAME: Final = 100
# What OpenSSL says of a certificate only because it has said the other thing.
_CONSEQUENCES: Final = {
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE": "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
    "UNABLE_TO_GET_ISSUER_CERT_LOCALLY": "CERT_CHAIN_TOO_LONG",
    "INVALID_PURPOSE": "INVALID_CA",
}
_PURPOSES: Final = {"1.3.6.1.5.5.7.3.1": "serverAuth", "1.3.6.1.5.5.7.3.2": "clientAuth"}


def hint(problems: Sequence[CertificateProblem], *, peer: Peer, at: dt.datetime | None = None) -> str:
    """Return what a person can do about the problems of one chain: a few sentences, on one line.

    Args:
        problems: What is wrong with the chain, in the order in which OpenSSL found it.
        peer: Whose chain it is.
        at: The moment as of which it was judged; None is now.
    """
    found = {(problem.code, problem.depth) for problem in problems}
    causes = [
        problem for problem in problems if (_CONSEQUENCES.get(problem.code), problem.depth) not in found
    ]
    advice = dict.fromkeys(_advice(problem, peer, at) for problem in causes[-_MOST_CAUSES:])
    return " ".join(filter(None, advice))


def _advice(problem: CertificateProblem, peer: Peer, at: dt.datetime | None) -> str:
    advise = _ADVICE.get(problem.code)
    if advise is not None and problem.certificate is not None:
        try:
            return advise(_Case(problem, problem.certificate, peer, at))
        except CertificateError:
            pass  # the certificate is damaged: what can be said without it is said
    diagnosis = DIAGNOSES.get(problem.code)
    return "" if diagnosis is None else diagnosis.remedy


@dataclasses.dataclass(frozen=True, slots=True)
class _Case:
    """A certificate at fault, and how its facts read in a sentence.

    Attributes:
        problem: What is wrong with it.
        certificate: The certificate.
        peer: Whose chain it is.
        at: The moment as of which it was judged; None is now.
    """

    problem: CertificateProblem
    certificate: Certificate
    peer: Peer
    at: dt.datetime | None

    @property
    def the_certificate(self) -> str:
        if self.problem.depth == 0:
            return f"The {self.peer}'s certificate"
        return f"The certificate of {self.subject} in the {self.peer}'s chain"

    @property
    def subject(self) -> str:
        return _who(self.certificate.subject)

    @property
    def issuer(self) -> str:
        return _who(self.certificate.issuer)

    @property
    def clock(self) -> str:
        if self.at is not None:
            return f"it is judged as of {moment(self.at)}"
        return f"the clock here says {moment(dt.datetime.now(dt.UTC))}"


def _expired(case: _Case) -> str:
    return (
        f"{case.the_certificate} expired on {moment(case.certificate.valid_to)} ({case.clock}). "
        "Have it renewed, and install the new one where this one is presented."
    )


def _not_yet_valid(case: _Case) -> str:
    return (
        f"{case.the_certificate} becomes valid on {moment(case.certificate.valid_from)} ({case.clock}). "
        "Set the clock right if it is wrong; otherwise have one issued that is valid now."
    )


def _missing_issuer(case: _Case) -> str:
    if case.problem.depth:
        return (
            f"The {case.peer}'s chain ends with {case.subject}, and {case.issuer}, who issued that, is not "
            "trusted here. If that is your authority, trust its root by ca=[...]."
        )
    published = case.certificate.info_access.get("CA Issuers - URI", ())
    where = f" It is published at {_quoted(published[0])}." if published else ""
    return (
        f"{case.issuer} issued the {case.peer}'s certificate, and is neither trusted here nor in the chain "
        f"that was sent. If it is an intermediate, it belongs behind the {case.peer}'s own certificate in "
        f"cert=.{where} If it is your authority, trust its root by ca=[...]."
    )


def _missing_root(case: _Case) -> str:
    return (
        f"{case.subject} is trusted, but is no root, and {case.issuer}, who issued it, is not trusted here. "
        "Trust that root by ca=[...], or let the intermediate be enough by allow_partial_trust_chain=True."
    )


def _self_signed(case: _Case) -> str:
    return (
        f"{case.the_certificate} is signed by its own key. If its SHA-256 fingerprint is the one "
        "that its owner tells you, trust it by ca=[...]; otherwise have one issued by an authority that is "
        f"trusted. The fingerprint is {case.certificate.fingerprint256}."
    )


def _unknown_root(case: _Case) -> str:
    return (
        f"The {case.peer}'s chain ends with the root {case.subject}, which is not trusted here. "
        "If its SHA-256 fingerprint is that of your authority, trust it by ca=[...]; otherwise somebody may "
        f"be in between. The fingerprint is {case.certificate.fingerprint256}."
    )


def _no_list(case: _Case) -> str:
    return (
        f"crl= has no revocation list of {case.issuer}. "
        "Add its current list; with one list, each authority in the chain needs one."
    )


def _revoked(case: _Case) -> str:
    number = case.certificate.serial_number
    when = case.problem.reason.removeprefix(
        "certificate revoked"
    )  # an OCSP response says it, a list does not
    return (
        f"{case.the_certificate}, with the serial number {number}, was revoked by {case.issuer}{when}. "
        "Have a new one issued for a new key; the old key may be in the wrong hands."
    )


def _wrong_purpose(case: _Case) -> str:
    purposes = [_PURPOSES.get(purpose, purpose) for purpose in case.certificate.ext_key_usage[:5]]
    listed = f" (its extended key usage is {', '.join(purposes)})" if purposes else ""
    return (
        f"{case.the_certificate} may not be used for TLS {case.peer}s{listed}. "
        f"Have it issued with the extended key usage {case.peer}Auth."
    )


def _no_authority(case: _Case) -> str:
    return (
        f"{case.the_certificate} is no authority's, and so cannot issue others. "
        f"Have the {case.peer}'s certificate issued by an authority."
    )


def _weak_key(case: _Case) -> str:
    size = f", of {case.certificate.bits} bits," if case.certificate.bits else ""
    return (
        f"{case.the_certificate} has a key{size} that is too weak for the security level here. "
        "Have one issued for a new key: RSA of 2048 bits or more, or P-256."
    )


def _bad_response(case: _Case) -> str:
    places = case.certificate.info_access.get("OCSP - URI", ())
    where = f" The certificate names the responder {_quoted(places[0])}." if places else ""
    return f"{_capitalized(case.problem.reason)}. {DIAGNOSES[case.problem.code].remedy}{where}"


def _response_of_another_time(case: _Case) -> str:
    return f"{_capitalized(case.problem.reason)} ({case.clock}). {DIAGNOSES[case.problem.code].remedy}"


_ADVICE: Final[Mapping[str, Callable[[_Case], str]]] = {
    "CERT_HAS_EXPIRED": _expired,
    "CERT_NOT_YET_VALID": _not_yet_valid,
    "UNABLE_TO_GET_ISSUER_CERT_LOCALLY": _missing_issuer,
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE": _missing_issuer,
    "UNABLE_TO_GET_ISSUER_CERT": _missing_root,
    "DEPTH_ZERO_SELF_SIGNED_CERT": _self_signed,
    "SELF_SIGNED_CERT_IN_CHAIN": _unknown_root,
    "UNABLE_TO_GET_CRL": _no_list,
    "CERT_REVOKED": _revoked,
    "INVALID_PURPOSE": _wrong_purpose,
    "INVALID_CA": _no_authority,
    "EE_KEY_TOO_SMALL": _weak_key,
    "CA_KEY_TOO_SMALL": _weak_key,
    "OCSP_NO_RESPONSE": _bad_response,
    "OCSP_RESP_INVALID": _bad_response,
    "OCSP_WRONG_CERTIFICATE": _bad_response,
    "OCSP_RESPONDER_UNAUTHORIZED": _bad_response,
    "OCSP_SIGNATURE_FAILURE": _bad_response,
    "OCSP_NOT_YET_VALID": _response_of_another_time,
    "OCSP_HAS_EXPIRED": _response_of_another_time,
    "OCSP_CERT_UNKNOWN": _bad_response,
}


def _who(name: Name) -> str:
    """Return how the owner of a name is called in a sentence: by the common name, if there is one."""
    called = name.get("CN") or ", ".join(
        part for value in name.values() for part in ([value] if isinstance(value, str) else value)
    )
    return _quoted(called if isinstance(called, str) else called[0])


def _quoted(text: str) -> str:
    """Return what a peer has written, without what it could forge further lines with."""
    return repr(text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}...")


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def moment(time: dt.datetime) -> str:
    """Return a time as it stands in the texts of errors, in UTC."""
    return f"{time.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
