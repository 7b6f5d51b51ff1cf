"""Negotiation: what two peers agreed on, as it stands in the server's hello on the wire."""

from __future__ import annotations

import dataclasses
import struct

_HANDSHAKE = 22
_APPLICATION_DATA = 23
_SERVER_HELLO = 2
_SUPPORTED_VERSIONS = 43
_KEY_SHARE = 51

_VERSIONS = {0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
_CIPHERS = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
}
_GROUPS = {
    0x0017: "P-256",
    0x0018: "P-384",
    0x001D: "X25519",
    0x11EB: "SecP256r1MLKEM768",
    0x11EC: "X25519MLKEM768",
}


@dataclasses.dataclass(frozen=True)
class Negotiated:
    """What was agreed on; a code point that has no name here is given as a number.

    Attributes:
        version: The protocol version.
        cipher: The cipher suite.
        group: The group of the key exchange; "" if there was none that the server's hello tells.
    """

    version: str
    cipher: str
    group: str

    def __str__(self) -> str:
        return f"{self.version}, {self.cipher}, {self.group}"


def negotiated(from_server: bytes) -> Negotiated:
    """Return what the server's first bytes on a connection say was agreed on (RFC 8446, section 4.1.3).

    A HelloRetryRequest looks like a server's hello; the one that counts is the last.
    """
    hello = _server_hellos(_handshake_messages(from_server))[-1]
    (version,) = struct.unpack_from("!H", hello)
    session_id_size = hello[34]
    cipher, _compression, extensions_size = struct.unpack_from("!HBH", hello, 35 + session_id_size)
    extensions = hello[len(hello) - extensions_size :]
    group = ""
    while extensions:
        kind, size = struct.unpack_from("!HH", extensions)
        if kind == _SUPPORTED_VERSIONS:
            (version,) = struct.unpack_from("!H", extensions, 4)
        elif kind == _KEY_SHARE:
            (number,) = struct.unpack_from("!H", extensions, 4)
            group = _GROUPS.get(number, hex(number))
        extensions = extensions[4 + size :]
    return Negotiated(_VERSIONS.get(version, hex(version)), _CIPHERS.get(cipher, hex(cipher)), group)


def _handshake_messages(records: bytes) -> bytes:
    """Return the handshake messages that stand in the clear, one after the other."""
    messages = b""
    while records and records[0] != _APPLICATION_DATA:
        kind, _version, size = struct.unpack_from("!BHH", records)
        if kind == _HANDSHAKE:
            messages += records[5 : 5 + size]
        records = records[5 + size :]
    return messages


def _server_hellos(messages: bytes) -> list[bytes]:
    hellos = []
    while messages:
        size = int.from_bytes(messages[1:4], "big")
        if messages[0] == _SERVER_HELLO:
            hellos.append(messages[4 : 4 + size])
        messages = messages[4 + size :]
    return hellos
