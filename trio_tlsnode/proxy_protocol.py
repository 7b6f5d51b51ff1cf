"""The PROXY protocol: how a proxy tells a server behind it who its client is.

See https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt.  The header is the first that is sent to the
server, which must expect it and must be reachable through the proxy alone: anybody can write such a header.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import struct
from typing import TYPE_CHECKING, Final, Literal

from .addresses import Address
from .errors import CertificateError

if TYPE_CHECKING:
    from .info import ConnectionInfo

ProxyProtocol = Literal[1, 2]
"""A version of the PROXY protocol: 1 is a line of text, 2 is binary and tells more."""

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6, _UNIX, _UNSPECIFIED = 0x11, 0x21, 0x31, 0x00
# How long two addresses of a family are, with their ports.
_SIZES: Final = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}
_LINE_START: Final = b"PROXY "
# The longest line that there can be, with its end, and more facts than any proxy tells.
_LONGEST_LINE: Final = 107
_MOST_BYTES: Final = 4096
_LINE: Final = re.compile(rb"PROXY (TCP[46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) ([0-9]{1,5}) ([0-9]{1,5})")
_ALPN, _AUTHORITY, _SSL = 0x01, 0x02, 0x20
_SSL_VERSION, _SSL_COMMON_NAME, _SSL_CIPHER = 0x21, 0x22, 0x23
_CLIENT_SSL, _CLIENT_CERT_CONN, _CLIENT_CERT_SESS = 0x01, 0x02, 0x04


@dataclasses.dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a proxy says of a connection.

    Attributes:
        source: Where its client is; None if it does not say: a connection of its own, such as a health check,
            or one of which it knows nothing.
        destination: Where that has connected to, likewise.
        length: The length of the header, in bytes.
    """

    source: Address | None
    destination: Address | None
    length: int


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """Return the header, of version 1 or 2, that a connection begins with.

    Args:
        data: What has arrived so far.

    Returns:
        The header, or None if it is not complete.

    Raises:
        ValueError: it does not begin with a header, or with one that breaks the protocol.
    """
    if data[:12] == _SIGNATURE[: len(data)]:
        return _read_binary(data)
    if data[:6] == _LINE_START[: len(data)]:
        return _read_text(data)
    raise ValueError("there is no PROXY protocol header")


def _read_text(data: bytes) -> ProxyHeader | None:
    line, end, _ = data[:_LONGEST_LINE].partition(b"\r\n")
    if not end:
        if len(data) >= _LONGEST_LINE:
            raise ValueError("the line of the PROXY protocol header is too long")
        return None
    length = len(line) + 2
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return ProxyHeader(None, None, length)
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("the PROXY protocol header is malformed")
    family, *texts = (text.decode() for text in match.groups())
    hosts = [ipaddress.ip_address(text) for text in texts[:2]]
    ports = [int(text) for text in texts[2:]]
    if any(f"TCP{host.version}" != family for host in hosts):
        raise ValueError("the PROXY protocol header has addresses of another family")
    if any(port > 65535 or str(port) != text for port, text in zip(ports, texts[2:], strict=True)):
        raise ValueError("the PROXY protocol header has a port that is none")
    return ProxyHeader(_at(hosts[0], ports[0]), _at(hosts[1], ports[1]), length)


def _read_binary(data: bytes) -> ProxyHeader | None:
    if len(data) < _FIXED.size:
        return None
    _, command, family, size = _FIXED.unpack_from(data)
    if command not in (_LOCAL, _PROXY) or family not in _SIZES or not _SIZES[family] <= size <= _MOST_BYTES:
        raise ValueError("the PROXY protocol header is malformed")
    length = _FIXED.size + size
    if len(data) < length:
        return None
    addresses = data[_FIXED.size : _FIXED.size + _SIZES[family]]
    if command == _LOCAL or family == _UNSPECIFIED:
        return ProxyHeader(None, None, length)
    if family == _UNIX:
        paths = [
            path.partition(b"\0")[0].decode(errors="replace") for path in (addresses[:108], addresses[108:])
        ]
        return ProxyHeader(Address(paths[0], 0, "unix"), Address(paths[1], 0, "unix"), length)
    half = (len(addresses) - 4) // 2
    source, destination = (ipaddress.ip_address(part) for part in (addresses[:half], addresses[half:-4]))
    ports = struct.unpack("!HH", addresses[-4:])
    return ProxyHeader(_at(source, ports[0]), _at(destination, ports[1]), length)


def _at(host: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> Address:
    return Address(str(host), port, "IPv4" if host.version == 4 else "IPv6")


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
    return _FIXED.pack(_SIGNATURE, _PROXY, family, len(body)) + body


def _facts(info: ConnectionInfo) -> bytes:
    facts = b""
    if info.alpn_protocol is not None:
        facts += _fact(_ALPN, info.alpn_protocol.encode("latin-1"))
    if info.server_name is not None:
        facts += _fact(_AUTHORITY, info.server_name.encode())
    client, verified = _CLIENT_SSL, False
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
    try:
        name = info.peer_certificate.subject.get("CN", "")
    except CertificateError:
        return b""
    return (name if isinstance(name, str) else name[0]).encode()


def _fact(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def _bare(address: Address) -> str:
    """Return an IP address without its zone."""
    return address.host.partition("%")[0]
