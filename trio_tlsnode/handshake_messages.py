"""The handshake messages of TLS: the name of each, and what one says, in a few words.

What a message says is what is negotiated and shown: no keys, no tickets, no random bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from .certificates import Certificate
from .client_hello import ClientHello
from .errors import CertificateError
from .iana import CIPHER_SUITES, SIGNATURE_SCHEMES, SUPPORTED_GROUPS, VERSIONS, names
from .shown_text import counted, printable

SERVER_HELLO: Final = 2
"""The type of a ServerHello, and of a HelloRetryRequest."""

_STATUS_REQUEST: Final = 5
_ALPN: Final = 16
_PRE_SHARED_KEY: Final = 41
_EARLY_DATA: Final = 42
_SUPPORTED_VERSIONS: Final = 43
_CERTIFICATE_AUTHORITIES: Final = 47
_KEY_SHARE: Final = 51
# The random of a ServerHello that is a HelloRetryRequest (RFC 8446, section 4.1.3).
_RETRY_RANDOM: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_COMPRESSIONS: Final = {1: "zlib", 2: "brotli", 3: "zstd"}


def described(message: bytes, *, tls13: bool) -> tuple[str, str]:
    """Return the name of a handshake message in the RFCs and what it says, whatever it holds.

    Args:
        message: The message with its header, at least one byte.
        tls13: Whether it is one of TLS 1.3.

    Returns:
        The name ("Message 99" if there is none), and one line of printable text, or "".
    """
    kind = message[0]
    name, describe = _MESSAGES.get(kind, (f"Message {kind}", None))
    if kind == SERVER_HELLO and message[6:38] == _RETRY_RANDOM:
        name = "HelloRetryRequest"
    if describe is None:
        return name, ""
    said: list[str] = []
    try:
        said.extend(describe(_Body(message, 4, tls13=tls13)))
    except (ValueError, CertificateError) as malformed:
        # What came before it is kept.
        said.append(f"malformed: {malformed}")
    return name, printable("; ".join(said))


def selected_version(server_hello: bytes) -> int | None:
    """Return the number of the version that a server chooses, or None if it cannot be read.

    Args:
        server_hello: The message with its header.
    """
    try:
        return _server_choice(_Body(server_hello, 4))[0]
    except ValueError:
        return None


class _Body:
    """The body of a handshake message, or a part of it, read from its beginning.

    A ValueError says that it is cut short.

    Attributes:
        data: All of it; of a message also its header.
        tls13: Whether the message is one of TLS 1.3.
    """

    __slots__ = ("_at", "data", "tls13")

    def __init__(self, data: bytes, at: int = 0, *, tls13: bool = False) -> None:
        self.data = data
        self.tls13 = tls13
        self._at = at

    def __bool__(self) -> bool:
        return self._at < len(self.data)

    def take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self.data):
            raise ValueError("cut short")
        return self.data[start : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> _Body:
        """Read a vector of which the length has `size` bytes."""
        return _Body(self.take(self.number(size)))

    def extensions(self) -> dict[int, _Body]:
        found = {}
        # A ServerHello of TLS 1.2 may end before them.
        block = self.vector(2) if self else self
        while block:
            kind = block.number(2)
            found[kind] = block.vector(2)
        return found


def _client_hello(message: _Body) -> Iterator[str]:
    hello = ClientHello.parse(message.data)
    yield hello.server_name or "no server name"
    if hello.alpn_protocols:
        yield f"ALPN {_some(hello.alpn_protocols)}"
    yield _some(hello.version_names)
    if hello.key_share_groups:
        yield f"key share {_some(names(hello.key_share_groups, SUPPORTED_GROUPS))}"
    if hello.session_ticket:
        yield "session ticket"
    if hello.psk_identities:
        yield counted(len(hello.psk_identities), "pre-shared key")
    if hello.early_data:
        yield "early data"


def _server_hello(message: _Body) -> Iterator[str]:
    version, suite, extensions = _server_choice(message)
    yield VERSIONS.get(version) or f"version 0x{version:04x}"
    yield CIPHER_SUITES.get(suite) or f"cipher suite 0x{suite:04x}"
    if _KEY_SHARE in extensions:
        group = extensions[_KEY_SHARE].number(2)
        yield SUPPORTED_GROUPS.get(group) or f"group 0x{group:04x}"
    if _PRE_SHARED_KEY in extensions:
        yield "pre-shared key accepted"
    yield from _alpn(extensions)


def _server_choice(message: _Body) -> tuple[int, int, dict[int, _Body]]:
    """Return the version, the cipher suite and the extensions of a ServerHello."""
    version = message.number(2)
    message.take(32)
    message.vector(1)
    suite = message.number(2)
    message.take(1)
    extensions = message.extensions()
    if _SUPPORTED_VERSIONS in extensions:
        version = extensions[_SUPPORTED_VERSIONS].number(2)
    return version, suite, extensions


def _encrypted_extensions(message: _Body) -> Iterator[str]:
    extensions = message.extensions()
    yield from _alpn(extensions)
    if _EARLY_DATA in extensions:
        yield "early data accepted"


def _alpn(extensions: dict[int, _Body]) -> Iterator[str]:
    if _ALPN in extensions:
        protocol = extensions[_ALPN].vector(2).vector(1)
        yield f"ALPN {protocol.data.decode('latin-1')}"


def _certificate(message: _Body) -> Iterator[str]:
    if message.tls13:
        message.vector(1)
    ders, stapled = [], False
    chain = message.vector(3)
    while chain:
        ders.append(chain.vector(3).data)
        if message.tls13:
            stapled |= _STATUS_REQUEST in chain.extensions()
    if not ders:
        yield "no certificate"
        return
    yield counted(len(ders), "certificate")
    yield _owner(Certificate(ders[0]))
    if stapled:
        yield "OCSP response"


def _owner(certificate: Certificate) -> str:
    subject = certificate.subject
    owner = subject.get("CN") or next((value for _, value in certificate.alt_names), None)
    owner = owner or next(iter(subject.values()), "") or "no name"
    return owner if isinstance(owner, str) else owner[0]


def _certificate_request(message: _Body) -> Iterator[str]:
    message.vector(1)
    if message.tls13:
        authorities = message.extensions().get(_CERTIFICATE_AUTHORITIES, _Body(b"\0\0")).vector(2)
    else:
        message.vector(2)
        authorities = message.vector(2)
    count = 0
    while authorities:
        authorities.vector(2)
        count += 1
    yield counted(count, "acceptable authority", "acceptable authorities") if count else "any authority"


def _server_key_exchange(message: _Body) -> Iterator[str]:
    # Only the cipher suite tells how to read it; where it is not a named curve this is a size.
    if message.number(1) == 3 and (group := SUPPORTED_GROUPS.get(message.number(2))):
        yield group


def _certificate_verify(message: _Body) -> Iterator[str]:
    # Before TLS 1.2 there is a size instead.
    scheme = SIGNATURE_SCHEMES.get(message.number(2))
    if scheme is not None:
        yield scheme


def _certificate_status(message: _Body) -> Iterator[str]:
    message.number(1)
    yield f"OCSP response, {counted(message.number(3), 'byte')}"


def _compressed_certificate(message: _Body) -> Iterator[str]:
    algorithm = message.number(2)
    yield _COMPRESSIONS.get(algorithm) or f"algorithm {algorithm}"
    yield counted(message.number(3), "byte")


def _new_session_ticket(message: _Body) -> Iterator[str]:
    yield f"lifetime {message.number(4):,} s"
    if message.tls13:
        message.take(4)
        message.vector(1)
        message.vector(2)
        if _EARLY_DATA in message.extensions():
            yield "early data allowed"


def _key_update(message: _Body) -> Iterator[str]:
    yield "update requested" if message.number(1) else "update not requested"


def _some(texts: Sequence[str]) -> str:
    """Return the first of many texts."""
    more = len(texts) - 4
    return ", ".join(texts[:4]) + (f" and {more} more" if more > 0 else "")


_MESSAGES: Final[dict[int, tuple[str, Callable[[_Body], Iterator[str]] | None]]] = {
    0: ("HelloRequest", None),
    1: ("ClientHello", _client_hello),
    2: ("ServerHello", _server_hello),
    4: ("NewSessionTicket", _new_session_ticket),
    5: ("EndOfEarlyData", None),
    8: ("EncryptedExtensions", _encrypted_extensions),
    11: ("Certificate", _certificate),
    12: ("ServerKeyExchange", _server_key_exchange),
    13: ("CertificateRequest", _certificate_request),
    14: ("ServerHelloDone", None),
    15: ("CertificateVerify", _certificate_verify),
    16: ("ClientKeyExchange", None),
    20: ("Finished", None),
    22: ("CertificateStatus", _certificate_status),
    24: ("KeyUpdate", _key_update),
    25: ("CompressedCertificate", _compressed_certificate),
}
"""The handshake messages of TLS: the name of each, and what yields in words what one says."""
