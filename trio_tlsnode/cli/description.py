"""The description of a connection in words: what was negotiated, who the peer is, what is wrong with it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

from .. import Certificate, CertificateError, ConnectionInfo, ConnectionLost, EphemeralKey, TLSStream
from .terminal import Row


def summary(info: ConnectionInfo) -> str:
    """Return what was negotiated as one line."""
    parts = [f"{info.protocol} {info.cipher.standard_name}"]
    if info.server_name is not None:
        parts.append(f"SNI {info.server_name}")
    if info.alpn_protocol is not None:
        parts.append(f"ALPN {info.alpn_protocol}")
    if info.session_reused:
        parts.append("resumed")
    if info.peer_certificate is not None:
        verified = "verified" if info.authorized else "not verified"
        parts.append(f"{_subject(info.peer_certificate)} ({verified})")
    return ", ".join(parts)


def connection_report(stream: TLSStream) -> dict[str, Any]:
    """Return what is told of a connection as JSON.

    Args:
        stream: The connection.
    """
    local, remote = stream.local_address, stream.remote_address
    return {
        "local_address": None if local is None else local._asdict(),
        "remote_address": None if remote is None else remote._asdict(),
        "info": stream.info.to_dict(),
    }


def connection_rows(info: ConnectionInfo) -> Iterator[Row]:
    """Yield what was negotiated, without the verdict on the peer."""
    yield "protocol", info.protocol
    yield "cipher", f"{info.cipher.standard_name} ({info.cipher.secret_bits} bits)"
    yield "group", _group(info.ephemeral_key)
    yield "server name", info.server_name or "none was sent"
    yield "ALPN", info.alpn_protocol or "none"
    yield "session", "resumed" if info.session_reused else "new"
    if info.peer_certificate is not None:
        yield from certificate_rows(info.peer_certificate)


def _group(key: EphemeralKey | None) -> str:
    if key is None:
        return "none: without keys of its own for this connection"
    return f"{key.type}, {key.size} bits" if key.name is None else f"{key.name} ({key.type})"


def certificate_rows(certificate: Certificate) -> Iterator[Row]:
    """Yield whom a certificate is for, who says so, and until when."""
    yield "certificate", _subject(certificate)
    yield "for", _readable(lambda: certificate.subject_alt_name or "no alternative name")
    yield "issued by", _readable(lambda: _name(certificate.issuer))
    yield "valid", _readable(lambda: _validity(certificate))


def problem_rows(error: CertificateError) -> Iterator[Row]:
    """Yield what is wrong with a certificate, and what can be done about it."""
    for problem in error.problems:
        whose = "" if problem.certificate is None else f": {_subject(problem.certificate)}"
        yield "problem", f"{problem.reason} [{problem.code}], depth {problem.depth}{whose}"


def error_rows(error: BaseException) -> Iterator[Row]:
    """Yield the facts that an error has besides its text."""
    if isinstance(error, CertificateError):
        yield from problem_rows(error)
        if error.certificate is not None:
            yield from certificate_rows(error.certificate)
    elif isinstance(error, ConnectionLost) and error.progress is not None:
        yield "progress", error.progress
        yield "passed", f"{error.bytes_sent} bytes sent, {error.bytes_received} received"


def _subject(certificate: Certificate) -> str:
    return _readable(lambda: _name(certificate.subject))


def _readable(read: Callable[[], str]) -> str:
    """Return a field of a certificate, which may be damaged."""
    try:
        return read()
    except CertificateError as damage:
        return f"unreadable: {damage.reason}"


def _name(name: dict[str, str | tuple[str, ...]]) -> str:
    values = [
        f"{attribute}={value}"
        for attribute, values in name.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    return ", ".join(values) or "an empty name"


def _validity(certificate: Certificate) -> str:
    now = dt.datetime.now(dt.UTC)
    first, last = certificate.valid_from, certificate.valid_to
    if now < first:
        state = "not yet valid"
    elif now > last:
        state = "expired"
    else:
        state = f"{(last - now).days} days left"
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC ({state})"
