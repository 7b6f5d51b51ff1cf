"""ServerFlight: what a server of TLS 1.2 or older says in the clear, as far as OpenSSL does not tell it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .iana import CIPHER_SUITES

_ALERT_RECORD: Final = 21
_HANDSHAKE_RECORD: Final = 22
_SERVER_HELLO: Final = 2
_SERVER_KEY_EXCHANGE: Final = 12
_MESSAGE_HEADER: Final = 4
_EARLY_DATA: Final = 42
# Of a ServerHello: version, random, and the byte that says how long the session id behind them is.
_SESSION_ID_LENGTH_AT: Final = 2 + 32
# The registry names two suites of RFC 6655 in its own way: TLS_PSK_DHE_WITH_AES_128_CCM_8, and ..._256_....
_DHE_PSK: Final = ("TLS_DHE_PSK_", "TLS_PSK_DHE_")
_DHE: Final = ("TLS_DHE_", *_DHE_PSK)


def uses_dhe(cipher_suite: str) -> bool:
    """Whether a cipher suite exchanges keys by finite-field Diffie-Hellman, with keys of this connection.

    Args:
        cipher_suite: IANA's name of it.
    """
    return cipher_suite.startswith(_DHE)


def ephemeral_dh_bits(flight: bytes) -> int | None:
    """Return the size of the finite-field Diffie-Hellman group that a server chose, in bits.

    OpenSSL knows it but does not tell (RFC 5246, section 7.4.3).

    Args:
        flight: What the server has sent so far, from its first byte on.

    Returns:
        None if the cipher suite has no such group, or the message that names it has not arrived.
    """
    suite = ""
    for kind, body in messages(flight):
        if kind == _SERVER_HELLO:
            suite = CIPHER_SUITES.get(_cipher_suite(body) or 0, "")
            if not uses_dhe(suite):
                break
        if kind == _SERVER_KEY_EXCHANGE:
            # With pre-shared keys, a hint comes first (RFC 4279, section 3).
            at = 2 + int.from_bytes(body[:2]) if suite.startswith(_DHE_PSK) else 0
            return int.from_bytes(body[at + 2 : at + 2 + int.from_bytes(body[at : at + 2])]).bit_length()
    return None


def selected_cipher_suite(flight: bytes) -> int | None:
    """Return the number of the cipher suite in a server's first message, a HelloRetryRequest included.

    Args:
        flight: What the server has sent so far, from its first byte on.

    Returns:
        None if it has not arrived.
    """
    for kind, body in messages(flight):
        return _cipher_suite(body) if kind == _SERVER_HELLO else None
    return None


def accepts_early_data(encrypted_extensions: bytes) -> bool:
    """Whether a server accepts early data, as its EncryptedExtensions say (RFC 8446, section 4.2.10).

    Args:
        encrypted_extensions: The message with its header.
    """
    at = _MESSAGE_HEADER + 2
    while at + 4 <= len(encrypted_extensions):
        if int.from_bytes(encrypted_extensions[at : at + 2]) == _EARLY_DATA:
            return True
        at += 4 + int.from_bytes(encrypted_extensions[at + 2 : at + 4])
    return False


def messages(flight: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each message that has arrived whole, as long as they are in the clear.

    Args:
        flight: What the server has sent so far, from its first byte on.
    """
    found = _handshake_bytes(flight)
    at = 0
    while at + 4 <= len(found):
        start, end = at + 4, at + 4 + int.from_bytes(found[at + 1 : at + 4])
        if end > len(found):
            break
        yield found[at], found[start:end]
        at = end


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


def _cipher_suite(server_hello: bytes) -> int | None:
    if len(server_hello) <= _SESSION_ID_LENGTH_AT:
        return None
    at = _SESSION_ID_LENGTH_AT + 1 + server_hello[_SESSION_ID_LENGTH_AT]
    return int.from_bytes(server_hello[at : at + 2])
