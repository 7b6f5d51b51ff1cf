"""The PROXY protocol: how a proxy tells a server behind it who its client is.

See https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt.  The header is the first that is sent to the
server, which must expect it and must be reachable through the proxy alone: anybody can write such a header.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from .addresses import Address
    from .info import ConnectionInfo

ProxyProtocol = Literal[1, 2]
"""A version of the PROXY protocol: 1 is a line of text, 2 is binary and tells more."""

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_PROXY: Final = 0x21
_TCP4, _TCP6, _UNSPECIFIED = 0x11, 0x21, 0x00
_ALPN, _AUTHORITY, _SSL = 0x01, 0x02, 0x20
_SSL_VERSION, _SSL_COMMON_NAME, _SSL_CIPHER = 0x21, 0x22, 0x23
_CLIENT_SSL, _CLIENT_CERT_CONN, _CLIENT_CERT_SESS = 0x01, 0x02, 0x04


def proxy_header(
    version: ProxyProtocol, source: Address | None, destination: Address | None, info: ConnectionInfo
) -> bytes:
    """Return the header for one connection.

    Args:
        version: The version of the protocol.
        source: Where the client is, if that is known.
        destination: Where it has connected to, if that is known.
        info: What was negotiated with it; version 2 tells the server name, the application protocol, the
            version and suite of TLS, and a client certificate's common name.
    """
    return _text(source, destination) if version == 1 else _binary(source, destination, info)


def _text(source: Address | None, destination: Address | None) -> bytes:
    if (
        source is None
        or destination is None
        or source.family == "unix"
        or source.family != destination.family
    ):
        return b"PROXY UNKNOWN\r\n"
    family = "TCP4" if source.family == "IPv4" else "TCP6"
    line = f"PROXY {family} {_bare(source)} {_bare(destination)} {source.port} {destination.port}\r\n"
    return line.encode("ascii")


def _binary(source: Address | None, destination: Address | None, info: ConnectionInfo) -> bytes:
    family, addresses = _UNSPECIFIED, b""
    if source is not None and destination is not None and source.family == destination.family != "unix":
        family = _TCP4 if source.family == "IPv4" else _TCP6
        packed = [ipaddress.ip_address(_bare(address)).packed for address in (source, destination)]
        addresses = b"".join(packed) + struct.pack("!HH", source.port, destination.port)
    body = addresses + _facts(info)
    return _SIGNATURE + struct.pack("!BBH", _PROXY, family, len(body)) + body


def _facts(info: ConnectionInfo) -> bytes:
    facts = b""
    if info.alpn_protocol is not None:
        facts += _fact(_ALPN, info.alpn_protocol.encode("latin-1"))
    if info.server_name is not None:
        facts += _fact(_AUTHORITY, info.server_name.encode())
    client, verified = _CLIENT_SSL, True
    common_name = b""
    if info.peer_certificate is not None:
        client |= _CLIENT_CERT_SESS | (0 if info.session_reused else _CLIENT_CERT_CONN)
        verified = info.authorized
        common_name = _common_name(info)
    inner = _fact(_SSL_VERSION, info.protocol.encode())
    if common_name:
        inner += _fact(_SSL_COMMON_NAME, common_name)
    inner += _fact(_SSL_CIPHER, info.cipher.name.encode())
    return facts + _fact(_SSL, struct.pack("!BI", client, 0 if verified else 1) + inner)


def _common_name(info: ConnectionInfo) -> bytes:
    """Return the common name of a client's certificate that is verified, or nothing."""
    if info.peer_certificate is None or not info.authorized:
        return b""
    name = info.peer_certificate.subject.get("CN", "")
    return (name if isinstance(name, str) else name[0]).encode()


def _fact(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def _bare(address: Address) -> str:
    """Return an IP address without its zone."""
    return address.host.partition("%")[0]
