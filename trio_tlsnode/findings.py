"""Finding: something that is wrong with a server's TLS, why that matters, and what to do about it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from .certificates import Certificate
from .diagnosis import DIAGNOSES, hint, moment
from .errors import CertificateError, ConnectionFailed, NotTLS
from .expiry import expiry_state
from .identity import check_server_identity
from .ocsp import ocsp_problem

if TYPE_CHECKING:
    from .inspection import Inspection

Severity = Literal["error", "warning", "advice"]
"""How much a finding matters: "error" (clients are refused, or attackers have it easy), "warning" (a
weakness, or something that will be an error soon), "advice" (it could be better)."""

_SEVERITIES: Final[dict[Severity, int]] = {"error": 0, "warning": 1, "advice": 2}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong.

    Attributes:
        severity: How much it matters.
        code: What it is, for programs: the code of an error, or one of this module's ("OLD_PROTOCOL").
        summary: What it is, in a few words.
        cause: Why it matters, in one or two sentences, or "".
        remedy: What to do about it, in one or two sentences.
    """

    severity: Severity
    code: str
    summary: str
    cause: str
    remedy: str


def findings(inspection: Inspection) -> tuple[Finding, ...]:
    """Return what is wrong with a server, the worst first.

    Args:
        inspection: What is known of it.
    """
    found = itertools.chain(
        _connection(inspection),
        _certificate(inspection),
        _dates(inspection),
        _chain(inspection),
        _staple(inspection),
        _protocols(inspection),
        _ciphers(inspection),
        _key_exchange(inspection),
        _resumption(inspection),
    )
    return tuple(sorted(found, key=lambda finding: _SEVERITIES[finding.severity]))


# The connection that an ordinary client makes


def _connection(inspection: Inspection) -> Iterator[Finding]:
    failure = inspection.failure
    if failure is None or isinstance(failure, CertificateError):
        return
    cause, remedy = _why_not(inspection, failure)
    yield Finding(
        severity="error",
        code=failure.code,
        summary=f"an ordinary client gets no connection: {failure.reason}",
        cause=cause,
        remedy=remedy,
    )


def _why_not(inspection: Inspection, failure: ConnectionFailed) -> tuple[str, str]:
    """Return why an ordinary client gets no connection, and what to do."""
    versions = [version for version, there in inspection.protocols.items() if there]
    if versions and {"TLSv1.2", "TLSv1.3"}.isdisjoint(versions):
        return (
            f"It wants TLS 1.2 or newer, and the server has {_listed(list(map(_spoken, versions)))}.",
            "Switch on TLS 1.2 and 1.3 in the server, with their default cipher suites.",
        )
    if inspection.wants_client_certificate:
        return (
            "The server asks for a client certificate, and was given none that it takes.",
            "Give a certificate by cert= and key= that the server trusts.",
        )
    if isinstance(failure, NotTLS):
        return (
            "What came first from the server is no TLS.",
            "Name the port on which it speaks TLS; where it begins in plaintext, ask for TLS by starttls=.",
        )
    return "", "Look whether the server speaks TLS on this port, and what its log says."


# Its certificate


# What OpenSSL says of a certificate as a consequence of the other thing.
_CONSEQUENCES: Final = {"UNABLE_TO_GET_ISSUER_CERT_LOCALLY": "UNABLE_TO_VERIFY_LEAF_SIGNATURE"}
# Its own cause says that the certificate is trusted, which here it need not be.
_OTHER_NAME: Final = "Whoever has a certificate for another name may be somebody else."


def _certificate(inspection: Inspection) -> Iterator[Finding]:
    info = inspection.info
    if info is None or info.authorization_error is None:
        return
    error = info.authorization_error
    codes = {problem.code for problem in error.problems}
    told = set()
    for problem in error.problems:
        if problem.code in told or _CONSEQUENCES.get(problem.code) in codes:
            continue
        told.add(problem.code)
        diagnosis = DIAGNOSES.get(problem.code)
        is_name = problem.code == "ERR_TLS_CERT_ALTNAME_INVALID"
        yield Finding(
            severity="error",
            code=problem.code,
            summary=problem.reason,
            cause=_OTHER_NAME if is_name else "" if diagnosis is None else diagnosis.cause,
            remedy=_about_name(inspection) if is_name else hint((problem,), peer="server"),
        )


def _about_name(inspection: Inspection) -> str:
    info = inspection.info
    assert info is not None
    try:
        check_server_identity(inspection.server_name or inspection.host, info.peer_certificate)
    except CertificateError as error:
        return error.hint
    return DIAGNOSES["ERR_TLS_CERT_ALTNAME_INVALID"].remedy


def _dates(inspection: Inspection) -> Iterator[Finding]:
    info = inspection.info
    if info is None:
        return
    # The root's end is the business of those who trust it.
    chain = info.verified_chain[:-1] or info.peer_certificate_chain
    for depth, certificate in enumerate(chain):
        try:
            last = certificate.valid_to
            if expiry_state(certificate.valid_from, last, at=inspection.inspected_at) != "due":
                continue
        except CertificateError:
            continue
        what = "the certificate" if depth == 0 else "an intermediate certificate"
        yield Finding(
            severity="warning",
            code="CERTIFICATE_EXPIRES_SOON",
            summary=f"{what} expires in {_days(last - inspection.inspected_at)}",
            cause=f"Its validity ends on {moment(last)}, and clients refuse it from then on.",
            remedy="Have it renewed and installed now; if that should happen by itself, see why it has not.",
        )


def _days(time: dt.timedelta) -> str:
    if time.days:
        return f"{time.days} day{'s' if time.days > 1 else ''}"
    hours = int(time.total_seconds() // 3600)
    return f"{hours} hour{'' if hours == 1 else 's'}"


def _chain(inspection: Inspection) -> Iterator[Finding]:
    info = inspection.info
    if info is None or not info.verified_chain:
        return
    sent, verified = info.peer_certificate_chain, info.verified_chain
    if _is_root(verified[-1]) and len(sent) > 1 and verified[-1] in sent:
        yield Finding(
            severity="advice",
            code="CHAIN_HAS_ROOT",
            summary="the root is sent with the chain",
            cause="Clients have the root or do not trust it; sending it only makes each handshake longer.",
            remedy="Take the root out of the file of the server's certificate.",
        )
    unneeded = [certificate for certificate in sent if certificate not in verified]
    if unneeded:
        yield Finding(
            severity="advice",
            code="CHAIN_HAS_OTHERS",
            summary=f"{len(unneeded)} of the {len(sent)} certificates that are sent were not needed",
            cause="Each makes every handshake longer; older clients may take one for the way to a root.",
            remedy="Send the certificate and the intermediates up to the root, and no others.",
        )
    needed = [certificate for certificate in sent if certificate in verified]
    if needed != [certificate for certificate in verified if certificate in sent]:
        yield Finding(
            severity="advice",
            code="CHAIN_OUT_OF_ORDER",
            summary="the certificates are sent out of order",
            cause="In TLS 1.2 each must certify the one before it; some clients insist on that.",
            remedy="Put them in the order of the chain: the server's own first, then its issuer, and so on.",
        )


def _is_root(certificate: Certificate) -> bool:
    return certificate.issuer_certificate == certificate


def _staple(inspection: Inspection) -> Iterator[Finding]:
    info = inspection.info
    if info is None or info.peer_certificate is None or info.session_reused:
        return
    leaf = info.peer_certificate
    issuer = leaf.issuer_certificate
    problem = ocsp_problem(info.ocsp_response, certificate=leaf, issuer=issuer, at=inspection.inspected_at)
    if problem is None or (problem.code == "OCSP_VERIFY_FAILED" and issuer is None):
        return
    error = info.authorization_error
    if error is not None and problem.code in [known.code for known in error.problems]:
        return
    yield Finding(
        severity="error",
        code=problem.code,
        summary=problem.reason,
        cause=DIAGNOSES[problem.code].cause,
        remedy=hint((problem,), peer="server"),
    )


# What it has switched on


_OLD: Final[dict[str, tuple[Severity, str]]] = {
    "SSLv3": ("error", "Whoever is on the way can read what is sent over it, by POODLE (RFC 7568)."),
    "TLSv1": ("warning", "It rests on SHA-1 and MD5, and has been withdrawn (RFC 8996)."),
    "TLSv1.1": ("warning", "It rests on SHA-1 and MD5, and has been withdrawn (RFC 8996)."),
}


def _protocols(inspection: Inspection) -> Iterator[Finding]:
    there = inspection.protocols
    for version, (severity, cause) in _OLD.items():
        if there.get(version):
            yield Finding(
                severity=severity,
                code="OLD_PROTOCOL",
                summary=f"{_spoken(version)} is switched on",
                cause=cause,
                remedy="Switch it off: all clients that are maintained have TLS 1.2.",
            )
    if there.get("TLSv1.2") and there.get("TLSv1.3") is False:
        yield Finding(
            severity="advice",
            code="NO_TLS13",
            summary="there is no TLS 1.3",
            cause="It is one round trip quicker, encrypts the certificates, and has no weak suites.",
            remedy="Switch it on; if the server does not have it, replace its TLS library by a newer one.",
        )


_DEFAULTS: Final = (
    "Switch them off: leave the choice of suites to the defaults of a TLS library that is maintained."
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Weakness:
    """What is wrong with cipher suites that have something in their names."""

    code: str
    severity: Severity
    words: tuple[str, ...]
    summary: str
    cause: str
    remedy: str = _DEFAULTS


_WEAKNESSES: Final = (
    _Weakness(
        "NO_ENCRYPTION",
        "error",
        ("_NULL_", "TLS_SHA256_", "TLS_SHA384_"),
        "suites without encryption",
        "What is sent with them can be read by everybody on the way.",
    ),
    _Weakness(
        "NO_AUTHENTICATION",
        "error",
        ("_anon_",),
        "suites without authentication",
        "Everybody on the way can pass for the server.",
    ),
    _Weakness(
        "BROKEN_CIPHER",
        "error",
        ("_EXPORT_", "_RC4_", "_RC2_", "_DES_", "_DES40_", "_MD5"),
        "broken suites",
        "What is sent with them can be decrypted with moderate means (RFC 7465, FREAK).",
    ),
    _Weakness(
        "SMALL_BLOCKS",
        "warning",
        ("_3DES_", "_IDEA_"),
        "suites with blocks of 64 bits",
        "In long connections, what is sent with them can be guessed (Sweet32).",
    ),
    _Weakness(
        "NO_FORWARD_SECRECY",
        "warning",
        ("TLS_RSA_", "TLS_DH_", "TLS_ECDH_"),
        "suites without forward secrecy",
        "Whoever gets the server's key can decrypt what was recorded before; RSA key exchange has been "
        "broken by ROBOT and its relatives again and again.",
    ),
    _Weakness(
        "CBC",
        "advice",
        ("_CBC_",),
        "suites in CBC mode",
        "They have needed one repair after the other (Lucky 13); all clients of TLS 1.2 have better ones.",
        "Leave only suites with GCM, CCM or ChaCha20: ECDHE+AESGCM:ECDHE+CHACHA20 in OpenSSL's words.",
    ),
)


def _ciphers(inspection: Inspection) -> Iterator[Finding]:
    suites: dict[str, list[str]] = {}
    for version, names in inspection.cipher_suites.items():
        for name in names:
            weakness = _weakness(name)
            # What is wrong with the older versions is not their choice of CBC modes.
            if weakness is not None and (weakness.code != "CBC" or version == "TLSv1.2"):
                suites.setdefault(weakness.code, []).append(name)
    for weakness in _WEAKNESSES:
        if found := list(dict.fromkeys(suites.get(weakness.code, ()))):
            yield Finding(
                severity=weakness.severity,
                code=weakness.code,
                summary=f"{weakness.summary}: {_listed(found)}",
                cause=weakness.cause,
                remedy=weakness.remedy,
            )


def _weakness(suite: str) -> _Weakness | None:
    """Return the worst that is wrong with a cipher suite."""
    for weakness in _WEAKNESSES:
        if any(word in f"{suite}_" for word in weakness.words):
            return weakness
    return None


_POST_QUANTUM: Final = ("MLKEM", "Kyber")
_WISE_DH_BITS: Final = 2048
_LEAST_DH_BITS: Final = 1024
# Of less than 224 bits, by the sizes in their names.
_SMALL_CURVES: Final = ("160", "163", "192", "193")


def _key_exchange(inspection: Inspection) -> Iterator[Finding]:
    bits = inspection.dh_bits
    if bits is not None and bits < _WISE_DH_BITS:
        yield Finding(
            severity="error" if bits <= _LEAST_DH_BITS else "warning",
            code="SMALL_DH_GROUP",
            summary=f"the Diffie-Hellman group has only {bits} bits",
            cause="Groups of 1024 bits are within reach of attackers, whom one computation serves for all "
            "connections (Logjam).",
            remedy="Switch the DHE suites off, or take a group of RFC 7919 (ffdhe2048 or larger).",
        )
    groups = list(dict.fromkeys(itertools.chain(*inspection.groups.values())))
    small = [
        name for name in groups if name.startswith("sec") and any(size in name for size in _SMALL_CURVES)
    ]
    if small:
        yield Finding(
            severity="warning",
            code="SMALL_CURVE",
            summary=f"curves that are too small: {_listed(small)}",
            cause="Keys on them are weaker than RSA keys of 2048 bits.",
            remedy="Leave the choice of groups to the defaults of the TLS library: x25519, P-256 and P-384.",
        )
    if inspection.groups.get("TLSv1.3") and not any(
        mark in name for name in groups for mark in _POST_QUANTUM
    ):
        yield Finding(
            severity="advice",
            code="NO_POST_QUANTUM_GROUP",
            summary="there is no post-quantum key exchange",
            cause="What is recorded today may be decrypted by a quantum computer later.",
            remedy="Switch on X25519MLKEM768; OpenSSL has it from version 3.5 on.",
        )


def _resumption(inspection: Inspection) -> Iterator[Finding]:
    outcomes = [*inspection.resumption.values()]
    if outcomes and all(outcome in ("none", "refused") for outcome in outcomes):
        yield Finding(
            severity="advice",
            code="NO_RESUMPTION",
            summary="sessions are not resumed",
            cause="Each connection of a client costs a full handshake.",
            remedy="Switch session tickets on, with keys that all processes of the server share.",
        )


def _spoken(version: str) -> str:
    """Return the version as people call it ("TLSv1" is TLS 1.0)."""
    return {"SSLv3": "SSL 3.0", "TLSv1": "TLS 1.0"}.get(version) or version.replace("v", " ")


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = len(names) - most
    if more > 1:
        return f"{', '.join(names[:most])} and {more} more"
    return ", ".join(names)
