"""Staples: what can be wrong with an OCSP response; and pairs of streams, one of which staples it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import trio
from faults import AUTHORITY, only
from trio.testing import memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import SecureContext, TLSStream
from trio_tlsnode.ocsp import OCSPMode
from trio_tlsnode.testing import IssuedCertificate, TransportWrapper


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
        swapped: Whether it takes the place of a good one on the way, as OpenSSL's servers do not staple it.
    """

    method: str | None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    code: str
    reason: str
    advice: str
    issued: Callable[[], IssuedCertificate] = leaf
    ocsp: OCSPMode = "verify"
    swapped: bool = False

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
            made = "nothing"
        else:
            options = (f"{option}={value!r}" for option, value in self.options.items())
            issued = () if self.method == "unsuccessful_ocsp_response" else ("issued",)
            made = f"`authority.{self.method}({', '.join((*issued, *options))})`"
        stapled = "put in the place of the staple on the way" if self.swapped else "stapled"
        certificate = " to `authority.must_staple(name)`" if self.issued is must_staple else ""
        return f"{made} {stapled}{certificate}, and `ocsp={self.ocsp!r}`"

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
        swapped=True,
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


class Swapping(TransportWrapper):
    """A client's transport on which a staple of TLS 1.2 is replaced by other bytes.

    Args:
        transport_stream: What it wraps.
        staple: What the server staples.
        instead: What the client gets.
    """

    def __init__(self, transport_stream: trio.abc.Stream, staple: bytes, instead: bytes) -> None:
        super().__init__(transport_stream)
        self._before, self._after = _certificate_status(staple), _certificate_status(instead)

    async def _receive(self, max_bytes: int) -> bytes:
        return (await super()._receive(max_bytes)).replace(self._before, self._after)


def _certificate_status(response: bytes) -> bytes:
    """Return a message of its own record (RFC 6066, section 8)."""
    body = b"\x01" + len(response).to_bytes(3) + response
    message = b"\x16" + len(body).to_bytes(3) + body
    return b"\x16\x03\x03" + len(message).to_bytes(2) + message


def judge_and_stapler(
    response: bytes | None,
    version: str,
    *,
    issued: IssuedCertificate | None = None,
    swapped: bool = False,
    **client_options: Any,
) -> tuple[TLSStream, TLSStream]:
    """Return a client's stream, and a server's that staples a response to a certificate.

    Args:
        response: What the client gets.
        version: The protocol version.
        issued: The certificate.
        swapped: Whether the server staples a good response, and the client gets another one.
        client_options: Those of the client.
    """
    issued = issued or leaf()
    left, right = memory_stream_pair()
    transport: trio.abc.Stream = left
    if swapped:
        assert response is not None
        good = AUTHORITY.ocsp_response(issued)
        transport, response = Swapping(left, good, response), good
    client = TLSStream(transport, trusting(version), host="localhost", **client_options)
    server = presenting(issued, version)
    return client, TLSStream(right, server, server_side=True, ocsp_callback=lambda *_: response)
