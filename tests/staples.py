"""Staples: what can be wrong with an OCSP response; and pairs of streams, one of which staples it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from faults import AUTHORITY, only
from trio.testing import memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import SecureContext, TLSStream
from trio_tlsnode.ocsp import OCSPMode
from trio_tlsnode.testing import IssuedCertificate


@functools.cache
def leaf() -> IssuedCertificate:
    """Return the certificate to which responses are stapled, for "localhost"."""
    return AUTHORITY.good("localhost")


@functools.cache
def must_staple() -> IssuedCertificate:
    """Return one that must come with a response."""
    return AUTHORITY.must_staple("localhost")


def view(issued: IssuedCertificate) -> tls.Certificate:
    """Return the certificate itself as callbacks get it."""
    return tls.Certificate.from_x509(issued.certificate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadStaple:
    """A staple that is refused, and what is to be learnt of it.

    Attributes:
        method: The authority's method that makes it; without one, nothing is stapled.
        options: The method's options.
        code: The code of the error.
        reason: How the error's text begins.
        advice: What the hint says at least.
        issued: What it is stapled to.
        ocsp: The client's mode by which it is found.
    """

    method: str | None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    code: str
    reason: str
    advice: str
    issued: Callable[[], IssuedCertificate] = leaf
    ocsp: OCSPMode = "verify"

    @property
    def response(self) -> bytes | None:
        """The response in DER, or None."""
        if self.method is None:
            return None
        issued = () if self.method == "unsuccessful_ocsp_response" else (self.issued(),)
        response = getattr(AUTHORITY, self.method)(*issued, **self.options)
        assert isinstance(response, bytes)
        return response

    @property
    def how(self) -> str:
        """How it is made, in words."""
        if self.method is None:
            made = "no response"
        else:
            options = (f"{option}={value!r}" for option, value in self.options.items())
            issued = () if self.method == "unsuccessful_ocsp_response" else ("issued",)
            made = f"`authority.{self.method}({', '.join((*issued, *options))})`"
        certificate = " to `authority.must_staple(name)`" if self.issued is must_staple else ""
        return f"{made} stapled{certificate}, and `ocsp={self.ocsp!r}`"

    def __str__(self) -> str:
        what = (self.method or "nothing").removesuffix("_ocsp_response")
        return "-".join((what, *map(str, self.options.values()), *([] if self.method else [self.ocsp])))


BAD_STAPLES = [
    BadStaple(
        method="ocsp_response",
        options={"status": "revoked"},
        code="CERT_REVOKED",
        reason="certificate revoked on ",
        advice="The server's certificate, with the serial number ",
    ),
    BadStaple(
        method="ocsp_response",
        options={"status": "unknown"},
        code="OCSP_CERT_UNKNOWN",
        reason="OCSP unknown cert",
        advice="little later",
    ),
    BadStaple(
        method="expired_ocsp_response",
        code="OCSP_HAS_EXPIRED",
        reason="OCSP response has expired: the next was due on ",
        advice="Have the server fetch its response again",
    ),
    BadStaple(
        method="ocsp_response",
        options={"next_update": None},
        code="OCSP_HAS_EXPIRED",
        reason="OCSP response has expired: it is of 2000-01-01",
        advice="Have the server fetch its response again",
    ),
    BadStaple(
        method="not_yet_valid_ocsp_response",
        code="OCSP_NOT_YET_VALID",
        reason="OCSP response not yet valid (contains a date in the future)",
        advice="Set the clock right",
    ),
    BadStaple(
        method="unauthorized_ocsp_response",
        options={"responder": "stranger"},
        code="OCSP_RESPONDER_UNAUTHORIZED",
        reason="OCSP responder not authorized: its certificate is not from the issuer",
        advice="ask the responder that the certificate names",
    ),
    BadStaple(
        method="unauthorized_ocsp_response",
        options={"responder": "without purpose"},
        code="OCSP_RESPONDER_UNAUTHORIZED",
        reason="OCSP responder not authorized: its certificate is not for OCSP",
        advice="ask the responder that the certificate names",
    ),
    BadStaple(
        method="unauthorized_ocsp_response",
        options={"responder": "expired"},
        code="OCSP_RESPONDER_UNAUTHORIZED",
        reason="OCSP responder not authorized: its certificate is valid from ",
        advice="ask the responder that the certificate names",
    ),
    BadStaple(
        method="wrong_ocsp_response",
        code="OCSP_WRONG_CERTIFICATE",
        reason="OCSP response is for another certificate",
        advice="fetch a response for its present certificate",
    ),
    BadStaple(
        method="bad_signature_ocsp_response",
        code="OCSP_SIGNATURE_FAILURE",
        reason="OCSP response signature verification failure",
        advice="ask the responder again",
    ),
    BadStaple(
        method="unsuccessful_ocsp_response",
        code="OCSP_RESP_INVALID",
        reason="OCSP response(s) invalid: the responder says 'try later'",
        advice="ask the responder again",
    ),
    BadStaple(
        method=None,
        ocsp="require",
        code="OCSP_NO_RESPONSE",
        reason="no OCSP response available for certificate",
        advice="Have the server staple",
    ),
    BadStaple(
        method=None,
        issued=must_staple,
        code="OCSP_NO_RESPONSE",
        reason="no OCSP response available for certificate: it must always come with one",
        advice="Have the server staple",
    ),
]


@functools.cache
def presenting(issued: IssuedCertificate, version: str) -> SecureContext:
    """Return a server's context with a certificate, for one protocol version."""
    return SecureContext(ca=AUTHORITY.ca, **issued.options, **only(version))


@functools.cache
def trusting(version: str) -> SecureContext:
    """Return a client's context for one protocol version."""
    return SecureContext(ca=AUTHORITY.ca, **only(version))


def judge_and_stapler(
    response: bytes | None, version: str, *, issued: IssuedCertificate | None = None, **client_options: Any
) -> tuple[TLSStream, TLSStream]:
    """Return a client's stream, and a server's that staples a response to a certificate."""
    left, right = memory_stream_pair()
    client = TLSStream(left, trusting(version), host="localhost", **client_options)
    server = presenting(issued or leaf(), version)
    return client, TLSStream(right, server, server_side=True, ocsp_callback=lambda *_: response)
