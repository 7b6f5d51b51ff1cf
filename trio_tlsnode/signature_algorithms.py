"""Signature algorithms, as OpenSSL and Node call them, and those that two sides share."""

from __future__ import annotations

import functools
from typing import Final

# OpenSSL's names of a key and a hash; TLS 1.3's for RSA-PSS keys differ in the number alone.
_NAMES: Final = {
    0x0403: "ECDSA+SHA256",
    0x0503: "ECDSA+SHA384",
    0x0603: "ECDSA+SHA512",
    0x0807: "Ed25519+UNDEF",
    0x0808: "Ed448+UNDEF",
    0x0804: "RSA-PSS+SHA256",
    0x0805: "RSA-PSS+SHA384",
    0x0806: "RSA-PSS+SHA512",
    0x0809: "RSA-PSS+SHA256",
    0x080A: "RSA-PSS+SHA384",
    0x080B: "RSA-PSS+SHA512",
    0x0401: "RSA+SHA256",
    0x0501: "RSA+SHA384",
    0x0601: "RSA+SHA512",
    0x0303: "ECDSA+SHA224",
    0x0203: "ECDSA+SHA1",
    0x0301: "RSA+SHA224",
    0x0201: "RSA+SHA1",
    0x0302: "DSA+SHA224",
    0x0202: "DSA+SHA1",
    0x0402: "DSA+SHA256",
    0x0502: "DSA+SHA384",
    0x0602: "DSA+SHA512",
}
_WEAK_HASHES: Final = ("SHA1", "SHA224")


@functools.lru_cache(64)
def shared_signature_algorithms(
    own: tuple[int, ...], offered: tuple[int, ...], protocol: str, *, own_order: bool = True
) -> tuple[str, ...]:
    """Return the names of the algorithms that a server shares with a client (``SSL_get_shared_sigalgs``).

    Args:
        own: The server's, most preferred first.
        offered: The client's, most preferred first.
        protocol: The protocol version; TLS 1.3 leaves out DSA and weak hashes.
        own_order: Whether the server's order counts, and not the client's.
    """
    ordered, others = (own, offered) if own_order else (offered, own)
    names = (_NAMES.get(number, "") for number in ordered if number in others)
    return tuple(name for name in names if name and not (protocol == "TLSv1.3" and _is_obsolete(name)))


def _is_obsolete(name: str) -> bool:
    return name.startswith("DSA") or name.endswith(_WEAK_HASHES)
