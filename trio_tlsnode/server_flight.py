"""ServerFlight: what a server of TLS 1.2 or older says in the clear, as far as OpenSSL does not tell it."""

from __future__ import annotations

from typing import Final

from .iana import CIPHER_SUITES

_ALERT_RECORD: Final = 21
_HANDSHAKE_RECORD: Final = 22
_SERVER_HELLO: Final = 2
_SERVER_KEY_EXCHANGE: Final = 12
# Of a ServerHello: version, random, and the byte that says how long the session id behind them is.
_SESSION_ID_LENGTH_AT: Final = 2 + 32


def ephemeral_dh_bits(flight: bytes) -> int | None:
    """Return the size of the finite-field Diffie-Hellman group that a server chose, in bits.

    OpenSSL knows it but does not tell (RFC 5246, section 7.4.3).

    Args:
        flight: What the server has sent so far, from its first byte on.

    Returns:
        None if the cipher suite has no such group, or the message that names it has not arrived.
    """
    messages = _handshake_bytes(flight)
    at = 0
    while at + 4 <= len(messages):
        kind, end = messages[at], at + 4 + int.from_bytes(messages[at + 1 : at + 4])
        body = messages[at + 4 : end]
        if end > len(messages):
            break
        if kind == _SERVER_HELLO and not _has_dhe_suite(body):
            break
        if kind == _SERVER_KEY_EXCHANGE:
            return int.from_bytes(body[2 : 2 + int.from_bytes(body[:2])]).bit_length()
        at = end
    return None


def _handshake_bytes(flight: bytes) -> bytes:
    """Return the handshake messages of the leading records that are in the clear."""
    found = []
    at = 0
    # OpenSSL passes over warnings wherever they stand.
    while at < len(flight) and flight[at] in (_HANDSHAKE_RECORD, _ALERT_RECORD):
        end = at + 5 + int.from_bytes(flight[at + 3 : at + 5])
        if flight[at] == _HANDSHAKE_RECORD:
            found.append(flight[at + 5 : end])
        at = end
    return b"".join(found)


def _has_dhe_suite(server_hello: bytes) -> bool:
    if len(server_hello) <= _SESSION_ID_LENGTH_AT:
        return False
    at = _SESSION_ID_LENGTH_AT + 1 + server_hello[_SESSION_ID_LENGTH_AT]
    name = CIPHER_SUITES.get(int.from_bytes(server_hello[at : at + 2]), "")
    return name.startswith("TLS_DHE_")
