"""OpenSSL's error queue, and the TLSError that its numbers make."""

from __future__ import annotations

from ..alerts import Alert
from ..errors import ConnectionFailed, PeerAlert, ProtocolError
from .library import ffi, lib

_SSL_LIBRARY = "SSL routines"
# SSL_AD_REASON_OFFSET: an alert from the peer is queued as this plus its number.
_ALERT_OFFSET = 1000
# Says only that the record layer gave up; the entry before or after it says why.
_WITHOUT_NEWS = "record layer failure"
# OpenSSL's own verdict on a stapled OCSP response that it cannot read has an alert's number too.
_UNREADABLE_STAPLE = "tlsv1 bad certificate status response"


def drain() -> list[tuple[str, str, int]]:
    """Empty the calling thread's error queue; return (library, reason, reason number), oldest first."""
    entries = []
    while number := lib.ERR_get_error():
        library = lib.ERR_lib_error_string(number)
        reason = lib.ERR_reason_error_string(number)
        entries.append(
            (
                "" if library == ffi.NULL else ffi.string(library).decode(),
                "" if reason == ffi.NULL else ffi.string(reason).decode(),
                lib.ERR_GET_REASON(number),
            )
        )
    return entries


def node_code(library: str, reason: str) -> str:
    """Return Node's code for an entry of the queue: ``ERR_SSL_WRONG_VERSION_NUMBER``.

    OpenSSL 4 renamed the texts of SSLv3's alerts to "tls alert ..."; the familiar spelling is kept.
    """
    name = reason.upper().replace(" ", "_").replace("-", "_")
    if library == _SSL_LIBRARY:
        if name.startswith(("TLS_ALERT_", "SSL/TLS_ALERT_")):
            name = "SSLV3_ALERT_" + name.partition("ALERT_")[2]
        return f"ERR_SSL_{name}"
    return f"ERR_OSSL_{library.removesuffix(' routines').upper().replace(' ', '_')}_{name}"


def connection_error() -> ConnectionFailed:
    """Empty the queue after a failed call on a connection; return the error that it stands for."""
    entries = drain()
    candidates = [entry for entry in entries if entry[0] == _SSL_LIBRARY and entry[1] != _WITHOUT_NEWS]
    if not candidates:
        library, reason, _ = entries[0] if entries else (_SSL_LIBRARY, "internal error", 0)
        return ProtocolError(reason, code=node_code(library, reason))
    library, reason, number = candidates[0]
    code = node_code(library, reason)
    description = number - _ALERT_OFFSET
    own_verdict = reason == _UNREADABLE_STAPLE and entries[0][0] != _SSL_LIBRARY
    if 0 <= description <= 255 and not own_verdict:
        try:
            alert: Alert | int = Alert(description)
            name = Alert(description).name
        except ValueError:
            alert, name = description, f"number {description}"
        return PeerAlert(f"the peer sent the alert {name}", code=code, alert=alert)
    return ProtocolError(reason, code=code)
