"""ClientHello: the first message of a TLS client, read from the wire before OpenSSL sees it.

`ClientHello.parse` reads one handshake message (RFC 8446, section 4.1.2; RFC 5246, section 7.4.1.2),
`ClientHelloReader` finds that message in what a client sends, and `looks_like` names a first flight that is
no TLS.  Every extension that the parser knows is checked when the message is parsed, but what no server needs
for each handshake is made only when it is asked for; it cannot fail then.  Whether the offer is acceptable is
OpenSSL's business, not the parser's.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Self

from .alerts import Alert
from .html_table import few, html_table
from .iana import CIPHER_SUITES, EXTENSIONS, GREASE, SIGNATURE_SCHEMES, SUPPORTED_GROUPS, VERSIONS, names

_Numbers = tuple[int, ...]

_START: Final = struct.Struct(">B3sH32sB").unpack_from
_U16: Final = struct.Struct(">H").unpack_from
_U16_U16: Final = struct.Struct(">HH").unpack_from
_SERVER_NAME_START: Final = struct.Struct(">HBH").unpack_from

_HANDSHAKE: Final = 22
_RECORD_TYPES: Final = frozenset((20, 21, _HANDSHAKE, 23))
_MAX_RECORD: Final = 1 << 14  # RFC 8446, section 5.1: what is not encrypted may not be longer
_CLIENT_HELLO: Final = 1
_OCSP: Final = 1

_SERVER_NAME: Final = 0
_STATUS_REQUEST: Final = 5
_SUPPORTED_GROUPS: Final = 10
_EC_POINT_FORMATS: Final = 11
_SIGNATURE_ALGORITHMS: Final = 13
_ALPN: Final = 16
_SESSION_TICKET: Final = 35
_PRE_SHARED_KEY: Final = 41
_EARLY_DATA: Final = 42
_SUPPORTED_VERSIONS: Final = 43
_PSK_KEY_EXCHANGE_MODES: Final = 45
_POST_HANDSHAKE_AUTH: Final = 49
_KEY_SHARE: Final = 51


class MalformedClientHello(ValueError):  # noqa: N818 - named like the errors of this package
    """Bytes that are no ClientHello, or one that breaks the rules of its own structure.

    Attributes:
        reason: What is wrong, in words.
        alert: What the client should be told; None if the bytes are no TLS at all, since whoever sent them
            would not understand an alert.
    """

    def __init__(self, reason: str, alert: Alert | None = Alert.decode_error) -> None:
        super().__init__(reason)
        self.reason = reason
        self.alert = alert

    @property
    def is_tls(self) -> bool:
        """Whether the bytes look like TLS at all."""
        return self.alert is not None


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client offers and asks for, as it stands in its ClientHello.

    `cipher_suites` and `extensions` are exactly what was sent, GREASE (RFC 8701) included.  The other lists
    of 16-bit numbers, the names and the fingerprints leave GREASE out.

    Attributes:
        legacy_version: The version field: 0x0303 for TLS 1.2 and 1.3.
        random: The client's 32 random bytes.
        session_id: The session to resume up to TLS 1.2, an arbitrary value in TLS 1.3.
        compression_methods: The compression methods; only 0, none, is in use.
        server_name: The host name that the client wants, as sent: printable ASCII, but possibly with
            upper-case letters or a trailing dot, or an IP address.  None without the extension.
        supported_versions: The versions; without the extension only `legacy_version`.
    """

    legacy_version: int
    random: bytes = field(repr=False)
    session_id: bytes = field(repr=False)
    compression_methods: _Numbers = field(repr=False)
    server_name: str | None
    supported_versions: _Numbers
    # As they were sent: made into objects, 32 KiB of a hostile client's would take a megabyte.
    _cipher_suites: bytes = field(repr=False)
    _extensions: bytes = field(repr=False)
    # Of the extensions that are asked for, where in these the bodies begin.
    _places: dict[int, int] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, message: bytes) -> Self:
        """Return the ClientHello that a handshake message holds.

        Args:
            message: The whole message with its header of four bytes, out of its records.

        Raises:
            MalformedClientHello: It is another message, has a wrong length somewhere, has an extension
                twice, or an extension that the parser knows breaks its rules.
        """
        try:
            kind, length, version, random, session_id_size = _START(message)
            if kind != _CLIENT_HELLO:
                raise MalformedClientHello("not a ClientHello", Alert.unexpected_message)
            if int.from_bytes(length) != len(message) - 4:
                raise MalformedClientHello("the message has the wrong length")
            if session_id_size > 32:
                raise MalformedClientHello("session_id: too long")
            at = 39 + session_id_size
            session_id = message[39:at]
            (size,) = _U16(message, at)
            if not size or size % 2:
                raise MalformedClientHello("cipher_suites: wrong length")
            at += 2 + size
            cipher_suites = message[at - size : at]
            size = message[at]
            if not size:
                raise MalformedClientHello("compression_methods: empty")
            at += 1 + size
            compression_methods = tuple(message[at - size : at])
            data = message[at + 2 :]
            # Clients older than extensions end here.
            places, views = ({}, {}) if at == len(message) else _check_extensions(data, _U16(message, at)[0])
        except (struct.error, IndexError):
            raise MalformedClientHello("cut short") from None
        return cls(
            legacy_version=version,
            random=random,
            session_id=session_id,
            compression_methods=compression_methods,
            server_name=views.get(_SERVER_NAME),
            supported_versions=views.get(_SUPPORTED_VERSIONS, (version,)),
            _cipher_suites=cipher_suites,
            _extensions=data,
            _places=places,
        )

    @property
    def cipher_suites(self) -> _Numbers:
        """The numbers of the cipher suites, the client's favourite first."""
        return struct.unpack(f">{len(self._cipher_suites) // 2}H", self._cipher_suites)

    @property
    def extensions(self) -> tuple[tuple[int, bytes], ...]:
        """Type and body of each extension, in order."""
        data = self._extensions
        extensions = []
        at = 0
        while at < len(data):
            kind, size = _U16_U16(data, at)
            at += 4 + size
            extensions.append((kind, data[at - size : at]))
        return tuple(extensions)

    @property
    def alpn_protocols(self) -> tuple[str, ...]:
        """The application protocols, the client's favourite first; each byte is one character."""
        body = self._body(_ALPN)
        return () if body is None else _alpn_protocols(body)

    @property
    def size(self) -> int:
        """How long its lists are on the wire, in bytes: nearly all of the message."""
        return len(self._cipher_suites) + len(self._extensions)

    @property
    def groups(self) -> _Numbers:
        """The groups for key exchange, the client's favourite first."""
        return _u16_list(self._body(_SUPPORTED_GROUPS))

    @property
    def key_share_groups(self) -> _Numbers:
        """The groups for which the client has sent a key share."""
        body = self._body(_KEY_SHARE)
        return () if body is None else _without_grease(_key_share_groups(body))

    @property
    def signature_algorithms(self) -> _Numbers:
        """The signature schemes that the client can verify."""
        return _u16_list(self._body(_SIGNATURE_ALGORITHMS))

    @property
    def ec_point_formats(self) -> _Numbers:
        """The point formats of elliptic curves, as sent."""
        return tuple((self._body(_EC_POINT_FORMATS) or b"")[1:])

    @property
    def requests_ocsp(self) -> bool:
        """Whether the client asks for a stapled OCSP response."""
        body = self._body(_STATUS_REQUEST)
        return body is not None and body[0] == _OCSP

    @property
    def session_ticket(self) -> bytes | None:
        """The ticket of TLS 1.2: empty if the client only asks for one, None without the extension."""
        return self._body(_SESSION_TICKET)

    @property
    def psk_identities(self) -> tuple[bytes, ...]:
        """The identities of the pre-shared keys, or the tickets, of TLS 1.3."""
        body = self._body(_PRE_SHARED_KEY)
        return () if body is None else _psk_identities(body)

    @property
    def psk_key_exchange_modes(self) -> _Numbers:
        """How a pre-shared key may be used (0: alone, 1: with a key exchange), as sent."""
        return tuple((self._body(_PSK_KEY_EXCHANGE_MODES) or b"")[1:])

    @property
    def post_handshake_auth(self) -> bool:
        """Whether the client may be asked for a certificate after the handshake."""
        return self._body(_POST_HANDSHAKE_AUTH) is not None

    @property
    def early_data(self) -> bool:
        """Whether the client sends data before the handshake is done (0-RTT)."""
        return self._body(_EARLY_DATA) is not None

    @property
    def version_names(self) -> tuple[str, ...]:
        """The names of `supported_versions` ("TLSv1.3")."""
        return names(self.supported_versions, VERSIONS)

    @property
    def cipher_names(self) -> tuple[str, ...]:
        """IANA's names of `cipher_suites` ("TLS_AES_128_GCM_SHA256")."""
        return names(self.cipher_suites, CIPHER_SUITES)

    @property
    def extension_names(self) -> tuple[str, ...]:
        """IANA's names of the types of `extensions` ("server_name")."""
        return names([kind for kind, _ in self.extensions], EXTENSIONS)

    @property
    def group_names(self) -> tuple[str, ...]:
        """IANA's names of `groups` ("X25519MLKEM768")."""
        return names(self.groups, SUPPORTED_GROUPS)

    @property
    def signature_algorithm_names(self) -> tuple[str, ...]:
        """IANA's names of `signature_algorithms` ("ecdsa_secp256r1_sha256")."""
        return names(self.signature_algorithms, SIGNATURE_SCHEMES)

    @property
    def ja3_text(self) -> str:
        """What `ja3` is the hash of: version, suites, extensions, groups and point formats."""
        lists = (
            (self.legacy_version,),
            _without_grease(self.cipher_suites),
            self._extension_types,
            self.groups,
            self.ec_point_formats,
        )
        return ",".join("-".join(map(str, numbers)) for numbers in lists)

    @property
    def ja3(self) -> str:
        """The JA3 fingerprint of the client's software (https://github.com/salesforce/ja3)."""
        return hashlib.md5(self.ja3_text.encode(), usedforsecurity=False).hexdigest()

    @property
    def ja4(self) -> str:
        """The JA4 fingerprint of the client's software (FoxIO's JA4.md), which ignores the order of lists."""
        suites = _without_grease(self.cipher_suites)
        extensions = self._extension_types
        version = _JA4_VERSIONS.get(max(self.supported_versions, default=0), "00")
        name = "d" if _SERVER_NAME in extensions else "i"
        counts = f"{min(len(suites), 99):02}{min(len(extensions), 99):02}"
        hashed = _hex_list(sorted(set(extensions) - {_SERVER_NAME, _ALPN}))
        if self.signature_algorithms:
            hashed += "_" + _hex_list(self.signature_algorithms)
        start = f"t{version}{name}{counts}{self._ja4_alpn}"
        return f"{start}_{_ja4_hash(_hex_list(sorted(suites)))}_{_ja4_hash(hashed)}"

    def _repr_html_(self) -> str:
        ticket = self.session_ticket
        facts = {
            "server_name": self.server_name,
            "alpn_protocols": few(self.alpn_protocols),
            "version_names": few(self.version_names),
            "cipher_names": few(self.cipher_names),
            "group_names": few(self.group_names),
            "key_share_groups": few(names(self.key_share_groups, SUPPORTED_GROUPS)),
            "signature_algorithm_names": few(self.signature_algorithm_names),
            "extension_names": few(self.extension_names),
            "session_ticket": "asked for" if ticket == b"" else ticket and f"{len(ticket)} bytes",
            "psk_identities": len(self.psk_identities) or None,
            "early_data": self.early_data,
            "requests_ocsp": self.requests_ocsp,
            "post_handshake_auth": self.post_handshake_auth,
            "ja3": self.ja3,
        }
        return html_table("ClientHello", facts, badge=self.ja4)

    def __repr__(self) -> str:
        return (
            f"ClientHello(legacy_version={self.legacy_version!r}, server_name={self.server_name!r}, "
            f"alpn_protocols={self.alpn_protocols!r}, supported_versions={self.supported_versions!r})"
        )

    def _body(self, extension: int) -> bytes | None:
        at = self._places.get(extension)
        return None if at is None else self._extensions[at : at + _U16(self._extensions, at - 2)[0]]

    @property
    def _extension_types(self) -> _Numbers:
        return _without_grease(tuple([kind for kind, _ in self.extensions]))

    @property
    def _ja4_alpn(self) -> str:
        if not self.alpn_protocols:
            return "00"
        first = self.alpn_protocols[0]
        ends = first[0] + first[-1]
        if ends.isascii() and ends.isalnum():
            return ends
        digits = first.encode("latin-1").hex()
        return digits[0] + digits[-1]


class ClientHelloReader:
    """Finds the ClientHello in what a client sends, fed in pieces of any size, in linear time.

    After a hello or an error it has no more to say and is to be fed no more.

    Args:
        limit: The most bytes that the hello may take on the wire, with the headers of its records.

    Attributes:
        received: Everything that was fed, also what follows the hello: what OpenSSL is to be fed.  As long as
            more is needed, it is within the limit.
    """

    __slots__ = ("_at", "_limit", "_message", "_record_left", "_size", "received")

    def __init__(self, limit: int = 32768) -> None:
        self.received = bytearray()
        self._limit = limit
        self._at = 0  # of `received`, how much was consumed
        self._record_left = 0
        self._message = bytearray()
        self._size = 4  # of the message; of its header until that is known

    def feed(self, data: bytes | bytearray | memoryview) -> ClientHello | None:
        """Take the next bytes of the client and return its hello, or None if more is needed.

        Raises:
            MalformedClientHello: These bytes cannot become a ClientHello that `ClientHello.parse` accepts,
                or it would exceed the limit.  This is said at the first byte that makes it certain, except
                that the first two bytes are seen together where only the second tells TLS from the rest.
        """
        self.received += data
        while (missing := self._size - len(self._message)) > 0:
            # What is missing takes at least so much, if not more records.
            if self._at + (0 if self._record_left else 5) + missing > self._limit:
                raise MalformedClientHello("the ClientHello is too long")
            if not self._record_left and not self._begin_record():
                return None
            piece = self.received[self._at : self._at + min(self._record_left, missing)]
            if not piece:
                return None
            self._at += len(piece)
            self._record_left -= len(piece)
            self._message += piece
            if self._message[0] != _CLIENT_HELLO:
                raise MalformedClientHello("not a ClientHello", Alert.unexpected_message)
            if len(self._message) == 4:
                self._size = 4 + int.from_bytes(self._message[1:])
        # Who keeps the reader, as an error does, shall not keep the message twice.
        message = bytes(self._message)
        self._message.clear()
        return ClientHello.parse(message)

    def _begin_record(self) -> bool:
        """Check what has arrived of a record's header, and consume it if it is whole."""
        header = self.received[self._at : self._at + 5]
        first = self._at == 0
        if first and header and header[0] not in _RECORD_TYPES:
            raise MalformedClientHello("no TLS record", None)
        if len(header) < 2:
            return False
        if header[1] != 3:
            raise MalformedClientHello("no TLS record", None if first else Alert.protocol_version)
        if header[0] != _HANDSHAKE:
            raise MalformedClientHello("not a handshake record", Alert.unexpected_message)
        if len(header) < 5:
            return False
        (size,) = _U16(header, 3)
        if not size:
            raise MalformedClientHello("an empty record")
        if size > _MAX_RECORD:
            raise MalformedClientHello("the record is too long", Alert.record_overflow)
        self._at += 5
        self._record_left = size
        return True


def looks_like(first_bytes: bytes | bytearray) -> str | None:
    """Return what a first flight of a client or a server that is no TLS looks like.

    Args:
        first_bytes: What has arrived so far; no more than the first 1024 bytes are looked at.

    Returns:
        Such as "an HTTP request" or "an SSH banner"; "no TLS record" if it is certainly no TLS but not known
        either; None if it is TLS or may become it.  "a TLS alert" is TLS that ends before it began.
    """
    start = bytes(first_bytes[:1024])
    for pattern, what in _FIRST_FLIGHTS:
        if pattern.match(start):
            return what
    may_be_tls = not start or (start[0] in _RECORD_TYPES and start[1:2] in (b"", b"\x03"))
    return None if may_be_tls else "no TLS record"


def _check_extensions(data: bytes, length: int) -> tuple[dict[int, int], dict[int, Any]]:
    """Return where the bodies of those extensions begin that are checked, and what the checks returned."""
    end = len(data)
    if length != end:
        raise MalformedClientHello("extensions: wrong length")
    seen = set()
    places: dict[int, int] = {}
    views: dict[int, Any] = {}
    at = 0
    while at < end:
        kind, size = _U16_U16(data, at)
        at += 4 + size
        if kind in seen:
            raise MalformedClientHello("an extension twice", Alert.illegal_parameter)
        seen.add(kind)
        if kind in _CHECKS:
            places[kind] = at - size
            name, check = _CHECKS[kind]
            try:
                views[kind] = check(data[at - size : at])
            except MalformedClientHello as error:
                raise MalformedClientHello(f"{name}: {error.reason}", error.alert) from None
            except (struct.error, IndexError):
                raise MalformedClientHello(f"{name}: cut short") from None
    if at != end:
        raise MalformedClientHello("the last extension is cut short")
    if _PRE_SHARED_KEY in views and kind != _PRE_SHARED_KEY:
        raise MalformedClientHello("pre_shared_key: not the last extension", Alert.illegal_parameter)
    return places, views


def _server_name(body: bytes) -> str:
    size, kind, name_size = _SERVER_NAME_START(body)
    # Exactly one name, of type host_name, as in OpenSSL: no other type was ever defined.
    if size != len(body) - 2 or kind != 0 or name_size != size - 3:
        raise MalformedClientHello("not exactly one host name")
    if not name_size:
        raise MalformedClientHello("empty")
    name = body[5:].decode("latin-1")
    # OpenSSL lets bytes of 128 and more pass, which would be a way around rules for names.
    if name_size > 255 or not name.isascii() or not name.isprintable():
        raise MalformedClientHello("no printable ASCII of at most 255 bytes", Alert.unrecognized_name)
    return name


def _alpn_protocols(body: bytes) -> tuple[str, ...]:
    end = len(body)
    if _U16(body)[0] != end - 2 or end == 2:
        raise MalformedClientHello("wrong length")
    protocols = []
    at = 2
    while at < end:
        start = at + 1
        at = start + body[at]
        if at == start or at > end:
            raise MalformedClientHello("a protocol is empty or cut short")
        protocols.append(body[start:at].decode("latin-1"))
    return tuple(protocols)


def _supported_versions(body: bytes) -> _Numbers:
    size = len(body) - 1
    if body[0] != size or not size or size % 2:
        raise MalformedClientHello("wrong length")
    return _without_grease(struct.unpack_from(f">{size // 2}H", body, 1))


def _check_u16_list(body: bytes) -> None:
    size = len(body) - 2
    if _U16(body)[0] != size or not size or size % 2:
        raise MalformedClientHello("wrong length")


def _check_u8_list(body: bytes) -> None:
    if body[0] != len(body) - 1 or not body[0]:
        raise MalformedClientHello("wrong length")


def _check_empty(body: bytes) -> None:
    if body:
        raise MalformedClientHello("not empty")


def _check_nothing(body: bytes) -> None:
    """Take what is no list of anything."""


def _check_status_request(body: bytes) -> None:
    if body[0] == _OCSP:  # no other type is in use, and OpenSSL ignores them
        (responders_size,) = _U16(body, 1)
        (extensions_size,) = _U16(body, 3 + responders_size)
        if 5 + responders_size + extensions_size != len(body):
            raise MalformedClientHello("wrong length")


def _key_share_groups(body: bytes) -> _Numbers:
    end = len(body)
    if _U16(body)[0] != end - 2:
        raise MalformedClientHello("wrong length")
    groups = []
    at = 2
    while at < end:
        group, size = _U16_U16(body, at)
        at += 4 + size
        if not size or at > end:
            raise MalformedClientHello("a key share is empty or cut short")
        groups.append(group)
    return tuple(groups)


def _psk_identities(body: bytes) -> tuple[bytes, ...]:
    identities_end = 2 + _U16(body)[0]
    identities = []
    at = 2
    while at < identities_end:
        start = at + 2
        at = start + _U16(body, at)[0]
        identities.append(body[start:at])
        at += 4  # the obfuscated age of the ticket
        if at == start + 4 or at > identities_end:
            raise MalformedClientHello("an identity is empty or cut short")
    if not identities or _U16(body, identities_end)[0] != len(body) - identities_end - 2:
        raise MalformedClientHello("wrong length")
    at = identities_end + 2
    binders = 0
    while at < len(body):
        size = body[at]
        at += 1 + size
        binders += 1
        if size < 32 or at > len(body):
            raise MalformedClientHello("a binder is cut short")
    if binders != len(identities):
        raise MalformedClientHello("not one binder for each identity", Alert.illegal_parameter)
    return tuple(identities)


_CHECKS: Final[dict[int, tuple[str, Callable[[bytes], object]]]] = {
    _SERVER_NAME: ("server_name", _server_name),
    _STATUS_REQUEST: ("status_request", _check_status_request),
    _SUPPORTED_GROUPS: ("supported_groups", _check_u16_list),
    _EC_POINT_FORMATS: ("ec_point_formats", _check_u8_list),
    _SIGNATURE_ALGORITHMS: ("signature_algorithms", _check_u16_list),
    _ALPN: ("application_layer_protocol_negotiation", _alpn_protocols),
    _SESSION_TICKET: ("session_ticket", _check_nothing),
    _PRE_SHARED_KEY: ("pre_shared_key", _psk_identities),
    _EARLY_DATA: ("early_data", _check_empty),
    _SUPPORTED_VERSIONS: ("supported_versions", _supported_versions),
    _PSK_KEY_EXCHANGE_MODES: ("psk_key_exchange_modes", _check_u8_list),
    _POST_HANDSHAKE_AUTH: ("post_handshake_auth", _check_empty),
    _KEY_SHARE: ("key_share", _key_share_groups),
}
"""The extensions that are checked: name, and what refuses a malformed body and may return what it says."""


def _u16_list(body: bytes | None) -> _Numbers:
    """Return the numbers of a list that was checked, or none if its extension is absent."""
    return () if body is None else _without_grease(struct.unpack(f">{len(body) // 2 - 1}H", body[2:]))


def _without_grease(numbers: _Numbers) -> _Numbers:
    if GREASE.isdisjoint(numbers):
        return numbers
    return tuple([number for number in numbers if number not in GREASE])


_JA4_VERSIONS: Final = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}


def _hex_list(numbers: Iterable[int]) -> str:
    return ",".join([f"{number:04x}" for number in numbers])


def _ja4_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else "0" * 12


_FIRST_FLIGHTS: Final = tuple(
    (re.compile(pattern, re.DOTALL), what)
    for pattern, what in (
        (rb"\x15\x03[\x00-\x04]\x00\x02", "a TLS alert"),
        (rb"[\x80-\xff].\x01(?:\x00\x02|\x03[\x00-\x04])", "an SSLv2 ClientHello"),
        (rb"PRI \* HTTP/2", "an HTTP/2 preface"),
        (rb"CONNECT |[A-Z]{3,20} https?://", "an HTTP proxy request"),
        (rb"[A-Z]{3,20} [/*]", "an HTTP request"),
        (rb"HTTP/[0-9]", "an HTTP response"),
        (rb"SSH-[0-9]", "an SSH banner"),
        (rb"PROXY (?:TCP[46]|UNKNOWN)|\r\n\r\n\x00\r\nQUIT\n", "a PROXY protocol header"),
        (rb"\x00\x00..(?:\x00\x03\x00.|\x04\xd2\x16[\x2e-\x30])", "a PostgreSQL startup message"),
        (rb"(?i:EHLO|HELO|LHLO) ", "an SMTP command"),
        (rb"220[ -][^\r\n]*(?i:SMTP|LMTP)", "an SMTP greeting"),
        (rb"220[ -][^\r\n]*(?i:FTP)", "an FTP greeting"),
        (rb"220[ -]", "an SMTP or FTP greeting"),
        (rb"(?i:AUTH TLS|AUTH SSL|FEAT)\r?\n", "an FTP command"),
        (rb"\* (?:OK|PREAUTH|BYE)\b", "an IMAP greeting"),
        (rb"(?i:[a-z0-9.]+ (?:CAPABILITY|STARTTLS|NOOP|LOGIN|AUTHENTICATE|ID|LOGOUT)\b)", "an IMAP command"),
        (rb"\+OK\b", "a POP3 greeting"),
        (rb"(?i:CAPA|STLS|APOP [^\r\n]*)\r?\n", "a POP3 command"),
        (rb"(?i:USER) ", "a POP3 or FTP command"),
    )
)
"""How first flights that are no TLS begin; the first pattern that matches counts."""
