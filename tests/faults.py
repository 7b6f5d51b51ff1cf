"""Faults: what can be wrong with a certificate; and pairs of streams, one of which shows it to the other."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import trio
from trio.testing import memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import Alert, SecureContext, TLSStream
from trio_tlsnode.testing import Authority, IssuedCertificate

AUTHORITY = Authority()
# Whom the certificate is shown by; the other side judges it.
PRESENTERS = ("server", "client")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """A faulty certificate and what is to be learnt of it.

    Attributes:
        method: The authority's method that makes it.
        options: The method's options.
        code: The code of the error.
        reason: OpenSSL's text.
        alert: What the presenter is told.
        advice: What the hint says at least.
        depth: Where in the chain the fault is.
        before: The codes of the problems that OpenSSL finds before it, at the same depth.
        presenters: Whose fault it can be.
        crl: The authority's method for the revocation lists of the judge.
    """

    method: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    code: str
    reason: str
    alert: Alert
    advice: str
    depth: int = 0
    before: tuple[str, ...] = ()
    presenters: tuple[str, ...] = PRESENTERS
    crl: str | None = None

    @property
    def issued(self) -> IssuedCertificate:
        """The certificate; the same one each time."""
        return issued_for(self.method, **self.options)

    @property
    def judging(self) -> dict[str, Any]:
        """What the judge's context needs to find the fault."""
        return {} if self.crl is None else {"crl": getattr(AUTHORITY, self.crl)()}

    def __str__(self) -> str:
        options = "".join(f"-{value}" for value in self.options.values())
        return f"{self.method}{options}" + (f"-{self.crl}" if self.crl else "")


FAULTS = [
    Fault(
        method="expired",
        code="CERT_HAS_EXPIRED",
        reason="certificate has expired",
        alert=Alert.certificate_expired,
        advice="'s certificate expired on ",
    ),
    Fault(
        method="not_yet_valid",
        code="CERT_NOT_YET_VALID",
        reason="certificate is not yet valid or the system clock is incorrect",
        alert=Alert.bad_certificate,
        advice="'s certificate becomes valid on ",
    ),
    Fault(
        method="wrong_purpose",
        options={"side": "server"},
        code="INVALID_PURPOSE",
        reason="unsuitable certificate purpose",
        alert=Alert.unsupported_certificate,
        presenters=("server",),
        advice="is clientAuth). Have it issued with the extended key usage serverAuth.",
    ),
    Fault(
        method="wrong_purpose",
        options={"side": "client"},
        code="INVALID_PURPOSE",
        reason="unsuitable certificate purpose",
        alert=Alert.unsupported_certificate,
        presenters=("client",),
        advice="is serverAuth). Have it issued with the extended key usage clientAuth.",
    ),
    Fault(
        method="weak_key",
        code="EE_KEY_TOO_SMALL",
        reason="EE certificate key too weak",
        alert=Alert.bad_certificate,
        advice="has a key, of 1024 bits, that is too weak",
    ),
    Fault(
        method="unknown_critical_extension",
        code="UNHANDLED_CRITICAL_EXTENSION",
        reason="unhandled critical extension",
        alert=Alert.certificate_unknown,
        advice="issued without that extension",
    ),
    Fault(
        method="bad_signature",
        code="CERT_SIGNATURE_FAILURE",
        reason="certificate signature failure",
        alert=Alert.decrypt_error,
        advice="Install the certificate again",
    ),
    Fault(
        method="self_signed",
        code="DEPTH_ZERO_SELF_SIGNED_CERT",
        reason="self-signed certificate",
        alert=Alert.unknown_ca,
        advice="The fingerprint is ",
    ),
    Fault(
        method="untrusted",
        code="UNABLE_TO_VERIFY_LEAF_SIGNATURE",
        reason="unable to verify the first certificate",
        alert=Alert.unknown_ca,
        before=("UNABLE_TO_GET_ISSUER_CERT_LOCALLY",),
        advice="trust its root by ca=[...]",
    ),
    Fault(
        method="untrusted",
        options={"intermediates": 1},
        code="UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
        reason="unable to get local issuer certificate",
        alert=Alert.unknown_ca,
        depth=1,
        advice="'s chain ends with 'trustme ",
    ),
    Fault(
        method="untrusted_root",
        code="SELF_SIGNED_CERT_IN_CHAIN",
        reason="self-signed certificate in certificate chain",
        alert=Alert.unknown_ca,
        depth=1,
        advice="'s chain ends with the root 'trustme ",
    ),
    Fault(
        method="missing_intermediate",
        code="UNABLE_TO_VERIFY_LEAF_SIGNATURE",
        reason="unable to verify the first certificate",
        alert=Alert.unknown_ca,
        before=("UNABLE_TO_GET_ISSUER_CERT_LOCALLY",),
        advice="it belongs behind the ",
    ),
    Fault(
        method="expired_intermediate",
        code="CERT_HAS_EXPIRED",
        reason="certificate has expired",
        alert=Alert.certificate_expired,
        depth=1,
        advice="The certificate of 'trustme ",
    ),
    Fault(
        method="invalid_ca",
        code="INVALID_PURPOSE",
        reason="unsuitable certificate purpose",
        alert=Alert.unsupported_certificate,
        depth=1,
        before=("INVALID_CA",),
        advice="is no authority's, and so cannot issue others",
    ),
    Fault(
        method="path_length_exceeded",
        code="PATH_LENGTH_EXCEEDED",
        reason="path length constraint exceeded",
        alert=Alert.unknown_ca,
        depth=2,
        advice="issued by an authority that may",
    ),
    Fault(
        method="chain_too_long",
        code="UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
        reason="unable to get local issuer certificate",
        alert=Alert.unknown_ca,
        depth=101,
        before=("CERT_CHAIN_TOO_LONG",),
        advice="nearer to the root",
    ),
    Fault(
        method="name_not_permitted",
        code="PERMITTED_VIOLATION",
        reason="permitted subtree violation",
        alert=Alert.certificate_unknown,
        advice="names that the authority may vouch for",
    ),
    Fault(
        method="revoked",
        code="CERT_REVOKED",
        reason="certificate revoked",
        alert=Alert.certificate_revoked,
        crl="crl",
        advice="was revoked by 'trustme ",
    ),
    Fault(
        method="good",
        code="CRL_HAS_EXPIRED",
        reason="CRL has expired",
        alert=Alert.certificate_expired,
        crl="expired_crl",
        advice="Fetch the current list",
    ),
    Fault(
        method="good",
        code="CRL_NOT_YET_VALID",
        reason="CRL is not yet valid",
        alert=Alert.bad_certificate,
        crl="not_yet_valid_crl",
        advice="Set the clock right",
    ),
    Fault(
        method="good",
        code="CRL_SIGNATURE_FAILURE",
        reason="CRL signature failure",
        alert=Alert.decrypt_error,
        crl="bad_signature_crl",
        advice="Fetch the revocation list again",
    ),
]


@functools.cache
def issued_for(fault: str, **options: Any) -> IssuedCertificate:
    issued = getattr(AUTHORITY, fault)("localhost", **options)
    assert isinstance(issued, IssuedCertificate)
    return issued


def shown_by(fault: str, **options: Any) -> dict[str, Any]:
    """Return the options of a context that shows such a certificate."""
    return {**issued_for(fault, **options).options}


def only(version: str) -> dict[str, Any]:
    return {"min_version": version, "max_version": version}


async def outcome(stream: TLSStream, *, wait: bool = False) -> tls.TLSError | None:
    """Do the handshake; return what it failed of.  A client of TLS 1.3 learns of it only while it waits."""
    try:
        await stream.do_handshake()
        if wait:
            await stream.receive_some()
    except tls.TLSError as error:
        await trio.aclose_forcefully(stream)
        # From Python 3.12 on, a traceback keeps the frames of those who called, and so what holds this.
        return error.with_traceback(None)
    await stream.aclose()
    return None


async def meet(judge: TLSStream, presenter: TLSStream) -> tuple[tls.TLSError | None, tls.TLSError | None]:
    """Let two streams do their handshake; return what each failed of."""
    failures: dict[TLSStream, tls.TLSError | None] = {}

    async def one(stream: TLSStream) -> None:
        failures[stream] = await outcome(stream, wait=stream is presenter)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, judge)
        nursery.start_soon(one, presenter)
    return failures[judge], failures[presenter]


def judge_and_presenter(
    issued: IssuedCertificate,
    presenter: str,
    version: str,
    *,
    judging: dict[str, Any] | None = None,
    **judge_options: Any,
) -> tuple[TLSStream, TLSStream]:
    """Return a stream that is shown a certificate, and the one that shows it."""
    # Whoever shows a weak key must be allowed to.
    shown = SecureContext(ca=AUTHORITY.ca, ciphers="DEFAULT@SECLEVEL=0", **issued.options, **only(version))
    judging = {"ca": AUTHORITY.ca, **shown_by("good"), **only(version), **(judging or {})}
    left, right = memory_stream_pair()
    if presenter == "server":
        judge = TLSStream(left, SecureContext(**judging), host="localhost", **judge_options)
        return judge, TLSStream(right, shown, server_side=True)
    judge = TLSStream(left, SecureContext(**judging), server_side=True, request_cert=True, **judge_options)
    return judge, TLSStream(right, shown, host="localhost")
