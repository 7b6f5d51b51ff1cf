"""advice: what a person can do about an error."""

from __future__ import annotations

from typing import Final

from .alerts import Alert
from .errors import (
    CertificateError,
    ConnectError,
    ConnectionLost,
    HandshakeTimeout,
    NotTLS,
    PeerAlert,
)

_PRIVILEGED: Final = 1024

_NO_CONNECTION: Final = {
    "ECONNREFUSED": "Nothing listens there: start the server, or name the port on which it listens.",
    "ENOENT": "There is no such socket: start the server, or name the path on which it listens.",
    "ENOTFOUND": "Look whether the name is spelt right, and whether this machine can resolve it.",
    "EAI_AGAIN": "The name server does not answer: look whether this machine has a network.",
    "ETIMEDOUT": "Look whether the host is up, and whether a firewall is in between.",
    "EHOSTUNREACH": "Look whether the host is up, and whether a firewall is in between.",
    "ENETUNREACH": "This machine has no way to that network: look at its addresses and routes.",
    "EADDRINUSE": "Another program listens there: end it, or take another port.",
    "EADDRNOTAVAIL": "An address to listen on has to be one of this machine's own.",
}
_ABOUT_OUR_CERTIFICATE: Final = frozenset(
    {
        Alert.certificate_required,
        Alert.bad_certificate,
        Alert.unsupported_certificate,
        Alert.certificate_revoked,
        Alert.certificate_expired,
        Alert.certificate_unknown,
        Alert.unknown_ca,
        Alert.access_denied,
    }
)
_ALERTS: Final = {
    Alert.protocol_version: "The two have no version in common: look at min_version= and max_version=.",
    Alert.handshake_failure: "The two have too little in common: look at the versions and suites of both.",
    Alert.unrecognized_name: "The server is not for this name: ask for another one by server_name=.",
    Alert.no_application_protocol: "The server has none of these protocols: look at alpn_protocols=.",
}
# What servers that begin in plaintext say first.
_PLAINTEXT: Final = {
    "an SMTP greeting": "smtp",
    "an SMTP or FTP greeting": "smtp",
    "an IMAP greeting": "imap",
    "a POP3 greeting": "pop3",
}
_OTHER_PORT: Final = (
    "Name the port on which the server speaks TLS; where it begins in plaintext, ask by starttls=."
)


def advice(error: BaseException) -> str:
    """Return what a person can do about an error of a client, or of listening, in a sentence or two.

    Args:
        error: Any error.  Options are called as those of `connect` and `SecureContext` ("ca=").

    Returns:
        The advice; "" where there is none.
    """
    if isinstance(error, CertificateError):
        return error.hint
    if isinstance(error, ConnectError):
        if error.code == "EACCES" and error.port is not None and error.port < _PRIVILEGED:
            return f"Ports below {_PRIVILEGED} need a privilege: take another port, or get it."
        return _NO_CONNECTION.get(error.code, "")
    if isinstance(error, NotTLS):
        return _about_other_protocol(error)
    if isinstance(error, PeerAlert):
        if error.alert in _ABOUT_OUR_CERTIFICATE:
            return "The server wants a client certificate that it trusts: give one by cert= and key=."
        return _ALERTS.get(error.alert, "") if isinstance(error.alert, Alert) else ""
    if isinstance(error, HandshakeTimeout):
        return _OTHER_PORT
    if isinstance(error, ConnectionLost) and error.progress is not None:
        return "Look whether the server speaks TLS on this port, and what its log says."
    return ""


def _about_other_protocol(error: NotTLS) -> str:
    if error.code == "ERR_TLS_STARTTLS_REFUSED":
        return "Switch TLS on in the server, or name the port on which it speaks TLS from the beginning."
    if error.looks_like in _PLAINTEXT:
        return f'The server begins in plaintext: ask for TLS by starttls="{_PLAINTEXT[error.looks_like]}".'
    if error.looks_like == "an HTTP request":
        return "The client should ask by https:// instead of http://."
    return _OTHER_PORT
