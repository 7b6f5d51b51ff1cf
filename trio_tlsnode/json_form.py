"""JSON form: certificates and errors as what JSON has, with keys that stay."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from .addresses import Address
from .alerts import Alert
from .errors import (
    CertificateError,
    CertificateProblem,
    ConfigurationError,
    ConnectError,
    ConnectionFailed,
    ConnectionLost,
    FeatureUnavailable,
    HandshakeTimeout,
    IdentityError,
    NotTLS,
    PeerAlert,
    TLSError,
)

if TYPE_CHECKING:
    from .certificates import Certificate


def certificate_dict(certificate: Certificate) -> dict[str, Any]:
    """Return a certificate as what JSON has.

    The keys are the names of `Certificate`'s attributes, and ``pem``.  Moments are in ISO 8601.  What cannot
    be read of a damaged certificate is None.

    Args:
        certificate: The certificate.
    """
    view = certificate
    return {
        "subject": _readable(lambda: _name(view.subject)),
        "issuer": _readable(lambda: _name(view.issuer)),
        "alt_names": _readable(lambda: [list(pair) for pair in view.alt_names]),
        "valid_from": _readable(lambda: moment(view.valid_from)),
        "valid_to": _readable(lambda: moment(view.valid_to)),
        "serial_number": _readable(lambda: view.serial_number),
        "bits": _readable(lambda: view.bits),
        "asn1_curve": _readable(lambda: view.asn1_curve),
        "ca": _readable(lambda: view.ca),
        "ext_key_usage": _readable(lambda: list(view.ext_key_usage)),
        "fingerprint256": view.fingerprint256,
        "pem": pem(view),
    }


def error_dict(error: TLSError) -> dict[str, Any]:
    """Return an error as what JSON has: its class, and the attributes that the class documents.

    A certificate is as in `certificate_dict`, an alert its name (or number), an address its host, port and
    family.  The stream and the ClientHello are left out.

    Args:
        error: The error.
    """
    facts = {
        "class": type(error).__name__,
        "code": error.code,
        "reason": error.reason,
        "side": error.side,
        "retryable": error.retryable,
    }
    for cls, names in _ATTRIBUTES.items():
        if isinstance(error, cls):
            facts |= {name: _plain(getattr(error, name)) for name in names}
    return facts


def pem(certificate: Certificate) -> str:
    """Return a certificate as PEM.

    Args:
        certificate: The certificate.
    """
    return ssl.DER_cert_to_PEM_cert(certificate.raw)


def moment(time: dt.datetime) -> str:
    """Return a moment in ISO 8601, in UTC and to the second ("2026-01-31T12:00:00Z").

    Args:
        time: An aware datetime.
    """
    return f"{time.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


_ATTRIBUTES: Final[dict[type[TLSError], tuple[str, ...]]] = {
    ConfigurationError: ("option", "path"),
    FeatureUnavailable: ("feature",),
    ConnectError: ("host", "port"),
    ConnectionFailed: ("phase", "remote_address", "server_name"),
    HandshakeTimeout: ("timeout",),
    NotTLS: ("looks_like",),
    CertificateError: ("depth", "certificate", "problems", "hint"),
    IdentityError: ("host", "presented"),
    PeerAlert: ("alert",),
    ConnectionLost: ("progress", "bytes_received", "bytes_sent"),
}


def _plain(fact: Any) -> Any:
    if isinstance(fact, Address):
        return fact._asdict()
    if isinstance(fact, Alert):
        return fact.name
    if isinstance(fact, CertificateProblem):
        whose = fact.certificate
        return {
            "code": fact.code,
            "reason": fact.reason,
            "depth": fact.depth,
            "fingerprint256": None if whose is None else whose.fingerprint256,
        }
    if isinstance(fact, tuple):
        return [_plain(part) for part in fact]
    return certificate_dict(fact) if hasattr(fact, "fingerprint256") else fact


def _name(name: dict[str, str | tuple[str, ...]]) -> dict[str, str | list[str]]:
    return {key: value if isinstance(value, str) else list(value) for key, value in name.items()}


def _readable(read: Callable[[], Any]) -> Any:
    """Return a field of a certificate, or None if that is damaged."""
    try:
        return read()
    except CertificateError:
        return None
