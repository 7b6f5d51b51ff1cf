"""Certificate: a view of one X.509 certificate, with the fields that Node.js's certificate object has.

The fields are read from the DER by a small reader of our own, because they must be there for every
certificate that OpenSSL accepts in a handshake: `cryptography` parses all extensions or none, and refuses
names such as a dNSName with an 8-bit character, which Node shows, escaped.  Public keys are left to
`cryptography`, and the whole certificate is there as its object, `Certificate.x509`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import hashlib
import itertools
import re
import ssl
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from .der import Element, elements, encoded
from .errors import CertificateError, ConfigurationError, ConfigurationTypeError
from .html_table import few, html_line, html_table

Name = dict[str, str | tuple[str, ...]]
"""A distinguished name: OpenSSL's short names to values, a tuple where an attribute is repeated."""


MOST_REMEMBERED: Final = 8192
"""Of certificates up to this size, in bytes, something is remembered: peers choose what they present."""


class Certificate:
    """One X.509 certificate: its DER, and what that says.

    Making one costs next to nothing; the DER is read when a field is first asked for.  Certificates are
    equal if their DER is.  No field can be set, and each access of a dict gives a new one.

    A field of a damaged certificate raises a `CertificateError` with the code
    ``ERR_OSSL_ASN1_DECODE_ERROR``; the other fields stay readable as far as the outer structure is whole.

    Args:
        der: The certificate in DER.
        issuer: The certificate that issued it, if it is known.

    Raises:
        ConfigurationTypeError: `der` is not bytes.
    """

    __slots__ = ("__weakref__", "_candidates", "_issuer", "_key", "_parts", "_raw", "_x509")

    def __init__(self, der: bytes | bytearray | memoryview, *, issuer: Certificate | None = None) -> None:
        if not isinstance(der, bytes | bytearray | memoryview):
            raise ConfigurationTypeError(
                f"a certificate is made from DER bytes, not {type(der).__name__}", option="cert"
            )
        self._raw = bytes(der)
        self._issuer = issuer
        self._candidates: tuple[Certificate, ...] = ()
        self._parts: _Parts | None = None
        self._key: _Key | None = None
        self._x509: x509.Certificate | None = None

    @classmethod
    def chain(cls, ders: Sequence[bytes | bytearray | memoryview]) -> Self:
        """Return the first certificate of a chain, the others within reach as its `issuer_certificate`.

        A link is made where one certificate names the other as its issuer, in whatever order they come,
        as Node does; what issued nothing is left out.

        Args:
            ders: The certificates in DER, the leaf first.

        Raises:
            ConfigurationError: `ders` is empty.
        """
        if not ders:
            raise ConfigurationError("a chain has at least one certificate", option="cert")
        leaf = cls(ders[0])
        leaf._candidates = tuple([Certificate(der) for der in ders[1:]])
        return leaf

    @classmethod
    def from_x509(cls, certificate: x509.Certificate, *, issuer: Certificate | None = None) -> Self:
        """Return the view of a certificate that `cryptography` has read.

        Args:
            certificate: What `cryptography` made of it; it becomes `x509`.
            issuer: The certificate that issued it, if it is known.
        """
        view = cls(certificate.public_bytes(serialization.Encoding.DER), issuer=issuer)
        view._x509 = certificate
        return view

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, Certificate) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)

    def __getstate__(self) -> tuple[bytes, Certificate | None, tuple[Certificate, ...]]:
        return self._raw, self._issuer, self._candidates

    def __setstate__(self, state: tuple[bytes, Certificate | None, tuple[Certificate, ...]]) -> None:
        self._raw, self._issuer, self._candidates = state
        self._parts = self._key = self._x509 = None

    # The certificate as a whole

    @property
    def raw(self) -> bytes:
        """The certificate in DER."""
        return self._raw

    @property
    def pem(self) -> str:
        """The certificate in PEM."""
        return ssl.DER_cert_to_PEM_cert(self._raw)

    @property
    def x509(self) -> x509.Certificate:
        """The certificate as `cryptography`'s object, for everything that has no field here.

        Raises:
            CertificateError: `cryptography` refuses the certificate.
        """
        if self._x509 is None:
            # It warns of what RFC 5280 does not allow, and a peer chooses what is in its certificate.
            with _Reading(self, "certificate"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    self._x509 = x509.load_der_x509_certificate(self._raw)
                except x509.InvalidVersion as unknown:
                    raise ValueError(str(unknown)) from unknown
        return self._x509

    @property
    def fingerprint(self) -> str:
        """The SHA-1 digest of the DER, as upper-case hex with colons."""
        return _colon_hex(hashlib.sha1(self._raw, usedforsecurity=False).digest())

    @property
    def fingerprint256(self) -> str:
        """The SHA-256 digest of the DER, as upper-case hex with colons."""
        return _colon_hex(hashlib.sha256(self._raw).digest())

    @property
    def fingerprint512(self) -> str:
        """The SHA-512 digest of the DER, as upper-case hex with colons."""
        return _colon_hex(hashlib.sha512(self._raw).digest())

    @property
    def issuer_certificate(self) -> Certificate | None:
        """The certificate that issued this one, if it is known; a self-signed certificate's is itself."""
        if self._issuer is not None:
            return self._issuer
        if self._was_issued_by(self):
            return self
        for index, candidate in enumerate(self._candidates):
            if self._was_issued_by(candidate):
                candidate._candidates = self._candidates[:index] + self._candidates[index + 1 :]  # noqa: SLF001
                self._issuer = candidate
                return candidate
        return None

    # Who it is for, and who says so

    @property
    def subject(self) -> Name:
        """Who the certificate is for.

        Attributes that OpenSSL has no short name for have their number in dots as key.  A value that is no
        string is given as ``#`` and the hex of its DER.
        """
        with _Reading(self, "subject"):
            return _name_dict(self._read().subject)

    @property
    def issuer(self) -> Name:
        """Who issued the certificate, in the form of `subject`."""
        with _Reading(self, "issuer"):
            return _name_dict(self._read().issuer)

    @property
    def serial_number(self) -> str:
        """The serial number as upper-case hex."""
        number = int.from_bytes(self._read().serial_number, signed=True)
        digits = f"{abs(number):X}"
        if number and len(digits) % 2:
            digits = "0" + digits
        return "-" + digits if number < 0 else digits

    @property
    def alt_names(self) -> tuple[tuple[str, str], ...]:
        """The names of the subjectAltName extension, as pairs of kind and value.

        The kinds are "DNS", "IP Address", "URI", "email", "DirName", "Registered ID", "othername",
        "X400Name" and "EdiPartyName".
        """
        return tuple([(kind, value) for kind, value, _ in self._general_names()])

    @property
    def subject_alt_name(self) -> str | None:
        """The subjectAltName extension as one text (``"DNS:a.example, IP Address:192.0.2.1"``), or None.

        A value that could be mistaken for more than one name, or has unprintable characters, stands in
        double quotes, escaped as JSON (CVE-2021-44532).
        """
        if _SUBJECT_ALT_NAME not in self._read().extensions:
            return None
        return ", ".join([_general_name_text(*name) for name in self._general_names()])

    @property
    def info_access(self) -> dict[str, tuple[str, ...]]:
        """Where to ask about the certificate (``{"OCSP - URI": ("http://ocsp.example/",)}``), or {}."""
        places: dict[str, list[str]] = {}
        with _Reading(self, "authorityInfoAccess"):
            for _, description in self._sequence(_AUTHORITY_INFO_ACCESS):
                (_, method), (tag, location) = elements(description)
                kind, value, _ = _general_name(tag, location)
                number = _dotted(method)
                key = f"{_ACCESS_METHODS.get(number, number)} - {kind}"
                places.setdefault(key, []).append(value)
        return {key: tuple(values) for key, values in places.items()}

    # What it may do, and when

    @property
    def valid_from(self) -> dt.datetime:
        """The first moment of its validity, in UTC."""
        with _Reading(self, "notBefore"):
            return _time(elements(self._read().validity)[0])

    @property
    def valid_to(self) -> dt.datetime:
        """The last moment of its validity, in UTC."""
        with _Reading(self, "notAfter"):
            return _time(elements(self._read().validity)[1])

    @property
    def ca(self) -> bool:
        """Whether it may issue certificates: its basicConstraints say so and its keyUsage does not forbid it.

        False where one of these extensions is damaged.  (OpenSSL's ``X509_check_ca() == 1``.)
        """
        try:
            constraints = dict(self._sequence(_BASIC_CONSTRAINTS))
            path_length = int.from_bytes(constraints.get(_INTEGER, b""), signed=True)
            is_ca = constraints.get(_BOOLEAN) == b"\xff"
            return is_ca and path_length >= 0 and self._may_sign_certificates()
        except (ValueError, IndexError):
            return False

    @property
    def ext_key_usage(self) -> tuple[str, ...]:
        """The object identifiers of what the key may be used for; empty if nothing restricts it."""
        with _Reading(self, "extKeyUsage"):
            return tuple(_dotted(purpose) for _, purpose in self._sequence(_EXT_KEY_USAGE))

    # Its key

    @property
    def public_key(self) -> bytes:
        """The public key, a SubjectPublicKeyInfo in DER."""
        return encoded(_SEQUENCE, self._read().public_key)

    @property
    def bits(self) -> int | None:
        """The size of an RSA or EC key, or None."""
        return self._key_facts().bits

    @property
    def modulus(self) -> str | None:
        """The modulus of an RSA key as upper-case hex, or None."""
        return self._key_facts().modulus

    @property
    def exponent(self) -> str | None:
        """The exponent of an RSA key as hex ("0x10001"), or None."""
        return self._key_facts().exponent

    @property
    def asn1_curve(self) -> str | None:
        """OpenSSL's name of an EC key's curve ("prime256v1"), or None."""
        return self._key_facts().asn1_curve

    @property
    def nist_curve(self) -> str | None:
        """NIST's name of an EC key's curve ("P-256"), or None."""
        return self._key_facts().nist_curve

    # The certificate for others to read

    def as_node_dict(self, *, detailed: bool = True) -> dict[str, Any]:
        """Return what Node's ``getPeerCertificate(detailed)`` gives: its keys, lists and text forms.

        What Node leaves out is left out, and buffers are bytes.  A damaged extension is None, a time that
        RFC 5280 forbids is "Bad time value".  Only a name with a value that is no string, which Node leaves
        out as a whole, is here as in `subject`.

        Args:
            detailed: Whether to add the chain under ``issuerCertificate``.  As in Node, that of a
                self-signed certificate is the very same dict.
        """
        if not detailed:
            return self._node_fields()
        chain = list(self._chain())
        nodes = [certificate.as_node_dict(detailed=False) for certificate in chain]
        for node, issuer in itertools.pairwise(nodes):
            node["issuerCertificate"] = issuer
        if chain[-1].issuer_certificate is not None:
            nodes[-1]["issuerCertificate"] = nodes[-1]
        return nodes[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the certificate as what JSON has.

        The keys are the names of the attributes; moments are in ISO 8601.  What is damaged is None.
        """
        return {name: self._as_json(name) for name in _IN_JSON}

    def _as_json(self, name: str) -> Any:
        try:
            value = getattr(self, name)
        except CertificateError:
            return None
        return value.isoformat() if isinstance(value, dt.datetime) else _lists(value)

    def __repr__(self) -> str:
        try:
            until = self.valid_to.date()
            return f"<Certificate {_title(self.subject)!r}, issued by {_title(self.issuer)!r}, until {until}>"
        except CertificateError as damage:
            return f"<Certificate of {len(self._raw)} bytes: {damage.reason}>"

    def _html_line_(self) -> str:
        try:
            names = [value for _, value in self.alt_names]
            title = ", ".join(names[:3]) if names and "CN" not in self.subject else _title(self.subject)
            return html_line(title, f"issued by {_title(self.issuer)}, until {self.valid_to.date()}")
        except CertificateError:
            return html_line(repr(self))

    def _repr_html_(self) -> str:
        try:
            issuers = tuple(self._chain())[1:]
            key = f"{self.nist_curve or self.asn1_curve or 'RSA'}, {self.bits} bits" if self.bits else None
            facts = {
                "subject": _one_line(self.subject),
                "subject_alt_name": self.subject_alt_name,
                "issuer": _one_line(self.issuer),
                "issuer_certificate": issuers,
                "valid_from": f"{self.valid_from:%Y-%m-%d %H:%M:%S} UTC",
                "valid_to": f"{self.valid_to:%Y-%m-%d %H:%M:%S} UTC",
                "serial_number": self.serial_number,
                "public key": key,
                "ca": self.ca,
                "ext_key_usage": few(self.ext_key_usage),
                "fingerprint256": self.fingerprint256,
            }
        except CertificateError:
            return f"<p>{html_line(repr(self))}</p>"
        return html_table("Certificate", facts)

    def _chain(self) -> Iterator[Certificate]:
        """Yield this certificate and its issuers, as far as they are known."""
        certificate: Certificate | None = self
        while certificate is not None:
            yield certificate
            issuer = certificate.issuer_certificate
            certificate = None if issuer == certificate else issuer

    # Reading the DER

    def _read(self) -> _Parts:
        if self._parts is None:
            with _Reading(self, "certificate"):
                small = len(self._raw) <= MOST_REMEMBERED
                self._parts = _remembered_parts(self._raw) if small else _Parts.of(self._raw)
        return self._parts

    def _extension(self, identifier: bytes) -> Element | None:
        """Return the value of an extension, None if the certificate lacks it."""
        extension = self._read().extensions.get(identifier)
        if extension is None:
            return None
        [value] = elements(elements(extension)[-1][1])
        return value

    def _sequence(self, identifier: bytes) -> list[Element]:
        """Return the elements of an extension that is a SEQUENCE, none if the certificate lacks it."""
        value = self._extension(identifier)
        if value is None:
            return []
        tag, content = value
        if tag != _SEQUENCE:
            raise ValueError("no SEQUENCE")
        return elements(content)

    def _general_names(self) -> list[_GeneralName]:
        with _Reading(self, "subjectAltName"):
            return [_general_name(tag, content) for tag, content in self._sequence(_SUBJECT_ALT_NAME)]

    def _may_sign_certificates(self) -> bool:
        value = self._extension(_KEY_USAGE)
        if value is None:
            return True
        _, bits = value
        return len(bits) > 1 and bool(bits[1] & _KEY_CERT_SIGN)

    def _was_issued_by(self, issuer: Certificate) -> bool:
        """Whether names, key identifiers and key usage say so (OpenSSL's ``X509_check_issued``)."""
        with _Reading(self, "certificate"):
            ours, theirs = self._read(), issuer._read()
            if ours.issuer != theirs.subject and _name_text(ours.issuer) != _name_text(theirs.subject):
                return False
            authority = dict(self._sequence(_AUTHORITY_KEY_IDENTIFIER))
            key_identifier = issuer._extension(_SUBJECT_KEY_IDENTIFIER)
            if key_identifier and authority.get(_AUTHORITY_KEY_ID, key_identifier[1]) != key_identifier[1]:
                return False
            if authority.get(_AUTHORITY_SERIAL, theirs.serial_number) != theirs.serial_number:
                return False
            return issuer._may_sign_certificates()

    def _key_facts(self) -> _Key:
        if self._key is None:
            with _Reading(self, "public key"):
                self._key = _Key.of(self.public_key)
        return self._key

    def _node_fields(self) -> dict[str, Any]:
        extensions = self._read().extensions
        fields: dict[str, Any] = {"subject": _with_lists(self.subject), "issuer": _with_lists(self.issuer)}
        if _SUBJECT_ALT_NAME in extensions:
            fields["subjectaltname"] = None
            with contextlib.suppress(CertificateError):
                fields["subjectaltname"] = self.subject_alt_name
        if _AUTHORITY_INFO_ACCESS in extensions:
            fields["infoAccess"] = None
            with contextlib.suppress(CertificateError):
                fields["infoAccess"] = {key: list(places) for key, places in self.info_access.items()}
        fields["ca"] = self.ca
        key = self._key_facts()
        facts = {
            "modulus": key.modulus,
            "bits": key.bits,
            "exponent": key.exponent,
            "pubkey": key.node_pubkey,
            "asn1Curve": key.asn1_curve,
            "nistCurve": key.nist_curve,
        }
        fields |= {name: value for name, value in facts.items() if value is not None}
        with _Reading(self, "validity"):
            not_before, not_after = elements(self._read().validity)
        fields["valid_from"] = _node_time(not_before)
        fields["valid_to"] = _node_time(not_after)
        fields["fingerprint"] = self.fingerprint
        fields["fingerprint256"] = self.fingerprint256
        fields["fingerprint512"] = self.fingerprint512
        with contextlib.suppress(CertificateError):
            if purposes := self.ext_key_usage:
                fields["ext_key_usage"] = list(purposes)
        fields["serialNumber"] = self.serial_number
        fields["raw"] = self._raw
        return fields


_BOOLEAN, _INTEGER, _SEQUENCE = 0x01, 0x02, 0x30
_CERTIFICATE_TAGS = [_INTEGER, *5 * [_SEQUENCE]]
_UTF8_STRING, _IA5_STRING, _UTC_TIME = 0x0C, 0x16, 0x17
_VERSION, _EXTENSIONS = 0xA0, 0xA3  # the context tags of RFC 5280's TBSCertificate
_AUTHORITY_KEY_ID, _AUTHORITY_SERIAL = 0x80, 0x82  # those of its AuthorityKeyIdentifier
_KEY_CERT_SIGN = 0x04  # in the first octet of keyUsage

# Object identifiers: those of extensions as DER, that of a key as its content.
_SUBJECT_KEY_IDENTIFIER = bytes.fromhex("0603551d0e")
_KEY_USAGE = bytes.fromhex("0603551d0f")
_SUBJECT_ALT_NAME = bytes.fromhex("0603551d11")
_BASIC_CONSTRAINTS = bytes.fromhex("0603551d13")
_AUTHORITY_KEY_IDENTIFIER = bytes.fromhex("0603551d23")
_EXT_KEY_USAGE = bytes.fromhex("0603551d25")
_AUTHORITY_INFO_ACCESS = bytes.fromhex("06082b06010505070101")
_RSA_ENCRYPTION = bytes.fromhex("2a864886f70d010101")

_ATTRIBUTES = {
    "2.5.4.3": "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "street",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.13": "description",
    "2.5.4.15": "businessCategory",
    "2.5.4.16": "postalAddress",
    "2.5.4.17": "postalCode",
    "2.5.4.18": "postOfficeBox",
    "2.5.4.20": "telephoneNumber",
    "2.5.4.41": "name",
    "2.5.4.42": "GN",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.45": "x500UniqueIdentifier",
    "2.5.4.46": "dnQualifier",
    "2.5.4.51": "houseIdentifier",
    "2.5.4.65": "pseudonym",
    "2.5.4.72": "role",
    "2.5.4.97": "organizationIdentifier",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.3": "mail",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.44": "uid",
    "1.2.643.3.131.1.1": "INN",
    "1.2.643.100.1": "OGRN",
    "1.2.643.100.3": "SNILS",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.2.840.113549.1.9.2": "unstructuredName",
    "1.2.840.113549.1.9.8": "unstructuredAddress",
    "1.3.6.1.4.1.311.60.2.1.1": "jurisdictionL",
    "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionST",
    "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionC",
}
"""OpenSSL's short names of the attributes that certificates use."""

_ACCESS_METHODS = {
    "1.3.6.1.5.5.7.48.1": "OCSP",
    "1.3.6.1.5.5.7.48.2": "CA Issuers",
    "1.3.6.1.5.5.7.48.3": "AD Time Stamping",
    "1.3.6.1.5.5.7.48.4": "ad dvcs",
    "1.3.6.1.5.5.7.48.5": "CA Repository",
    "1.3.6.1.5.5.7.48.10": "RPKI Manifest",
    "1.3.6.1.5.5.7.48.11": "Signed Object",
    "1.3.6.1.5.5.7.48.13": "RPKI Notify",
}
"""OpenSSL's long names of the access methods."""

_LATIN1_NAMES = {0x81: "email", 0x82: "DNS", 0x86: "URI"}
"""The kinds of GeneralName that are strings of octets."""

_OTHER_NAMES = {
    "1.3.6.1.4.1.311.20.2.3": ("UPN", _UTF8_STRING),
    "1.3.6.1.5.5.7.8.5": ("XmppAddr", _UTF8_STRING),
    "1.3.6.1.5.5.7.8.7": ("SRVName", _IA5_STRING),
    "1.3.6.1.5.5.7.8.8": ("NAIRealm", _UTF8_STRING),
    "1.3.6.1.5.5.7.8.9": ("SmtpUTF8Mailbox", _UTF8_STRING),
}
"""The otherNames that Node shows: the label, and the one string type that each may have."""

_ENCODINGS = {
    _UTF8_STRING: "utf-8",
    0x12: "latin-1",  # NumericString
    0x13: "latin-1",  # PrintableString
    0x14: "latin-1",  # T61String
    _IA5_STRING: "latin-1",
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
"""How OpenSSL decodes the string types that names may have."""

_CURVES = {"secp192r1": "prime192v1", "secp256r1": "prime256v1"}
"""OpenSSL's names of curves where they are not those of `cryptography`."""

_NIST_CURVES = {
    "prime192v1": "P-192",
    "secp224r1": "P-224",
    "prime256v1": "P-256",
    "secp384r1": "P-384",
    "secp521r1": "P-521",
}
_TIME = re.compile("[0-9]{14}Z")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# What Node puts in quotes, and what it then escapes.  8-bit characters are text where a type holds UTF-8.
_UNSAFE = re.compile(r"""[^ -~]|["\\,']""")
_UNSAFE_UTF8 = re.compile(r"""[\x00-\x1f\x7f"\\,']""")
_ESCAPED = re.compile(r"""[^ -~]|["\\,]""")
_ESCAPED_UTF8 = re.compile(r"""[\x00-\x1f\x7f"\\,]""")


class _Reading:
    """Turn what the reading of DER raises into the `CertificateError` of a certificate's field."""

    __slots__ = ("_certificate", "_field")

    def __init__(self, certificate: Certificate, field: str) -> None:
        self._certificate = certificate
        self._field = field

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ValueError | IndexError):
            raise CertificateError(
                f"the {self._field} cannot be read: {error}",
                code="ERR_OSSL_ASN1_DECODE_ERROR",
                certificate=self._certificate,
            ) from error


class _Parts(NamedTuple):
    """What the outer structure of a certificate holds (RFC 5280, section 4.1), each as DER content.

    An extension is found by the whole DER of its identifier.
    """

    serial_number: bytes
    issuer: bytes
    validity: bytes
    subject: bytes
    public_key: bytes
    extensions: dict[bytes, bytes]

    @classmethod
    def of(cls, der: bytes) -> _Parts:
        [(_, certificate)] = elements(der)
        fields = elements(elements(certificate)[0][1])
        if fields[0][0] == _VERSION:
            del fields[0]
        if [tag for tag, _ in fields[:6]] != _CERTIFICATE_TAGS:
            raise ValueError("this is no X.509 certificate")
        extensions: dict[bytes, bytes] = {}
        tag, content = fields[-1]
        if tag == _EXTENSIONS:
            [(_, sequence)] = elements(content)
            for _, extension in elements(sequence):
                extensions.setdefault(extension[: 2 + extension[1]], extension)
        (_, serial_number), _, (_, issuer), (_, validity), (_, subject), (_, public_key) = fields[:6]
        return cls(serial_number, issuer, validity, subject, public_key, extensions)


# A client meets the same few certificates again and again.
_remembered_parts = functools.lru_cache(maxsize=128)(_Parts.of)


class _Key(NamedTuple):
    """What Node tells of a public key, as far as `cryptography` knows its curve."""

    modulus: str | None = None
    bits: int | None = None
    exponent: str | None = None
    node_pubkey: bytes | None = None
    asn1_curve: str | None = None
    nist_curve: str | None = None

    @classmethod
    def of(cls, public_key: bytes) -> _Key:
        """Return the facts of a SubjectPublicKeyInfo: none for kinds that Node tells nothing of."""
        [(_, content)] = elements(public_key)
        (_, algorithm), *_ = elements(content)
        (_, identifier), *_ = elements(algorithm)
        try:
            key = serialization.load_der_public_key(public_key)
        except (ValueError, UnsupportedAlgorithm):
            return cls()
        if isinstance(key, rsa.RSAPublicKey) and identifier == _RSA_ENCRYPTION:
            numbers = key.public_numbers()
            encoded = key.public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            return cls(f"{numbers.n:X}", key.key_size, f"0x{numbers.e:x}", encoded)
        if isinstance(key, ec.EllipticCurvePublicKey):
            curve = _CURVES.get(key.curve.name, key.curve.name)
            point = key.public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
            )
            return cls(None, key.key_size, None, point, curve, _NIST_CURVES.get(curve))
        return cls()


_GeneralName = tuple[str, str, bool]
"""A name of the subjectAltName: its kind, its value, and whether the value was UTF-8 and not Latin-1."""


def _general_name_text(kind: str, value: str, utf8: bool) -> str:
    """Return a name as it stands in `Certificate.subject_alt_name`."""
    if not (_UNSAFE_UTF8 if utf8 else _UNSAFE).search(value):
        return f"{kind}:{value}"
    escaped = (_ESCAPED_UTF8 if utf8 else _ESCAPED).sub(_escape, value)
    return f'{kind}:"{escaped}"'


def _escape(unsafe: re.Match[str]) -> str:
    character = unsafe[0]
    return f"\\{character}" if character in '"\\' else f"\\u{ord(character):04x}"


def _general_name(tag: int, content: bytes) -> _GeneralName:
    """Read one GeneralName (RFC 5280, section 4.2.1.6) into Node's form."""
    if tag in _LATIN1_NAMES:
        return _LATIN1_NAMES[tag], content.decode("latin-1"), False
    match tag:
        case 0xA0:
            return _other_name(content)
        case 0xA3:
            return "X400Name", "<unsupported>", False
        case 0xA4:
            [(_, name)] = elements(content)
            return "DirName", _name_text(name), True
        case 0xA5:
            return "EdiPartyName", "<unsupported>", False
        case 0x87:
            return "IP Address", _ip_text(content), False
        case 0x88:
            return "Registered ID", _dotted(content), False
    raise ValueError(f"a name of the unknown kind {tag:#x}")


def _other_name(content: bytes) -> _GeneralName:
    (_, identifier), (_, wrapped) = elements(content)
    [(tag, value)] = elements(wrapped)
    label, string_tag = _OTHER_NAMES.get(_dotted(identifier), ("", None))
    if tag != string_tag:
        return "othername", "<unsupported>", False
    return "othername", f"{label}:{_string(tag, value)}", tag == _UTF8_STRING


def _ip_text(address: bytes) -> str:
    if len(address) == 4:
        return ".".join(map(str, address))
    if len(address) == 16:
        return ":".join(f"{int.from_bytes(address[at : at + 2]):X}" for at in range(0, 16, 2))
    return f"<invalid length={len(address)}>"


def _name_dict(name: bytes) -> Name:
    attributes: dict[str, list[str]] = {}
    for pairs in _relative_names(name):
        for key, tag, content in pairs:
            attributes.setdefault(key, []).append(_string(tag, content))
    return {key: values[0] if len(values) == 1 else tuple(values) for key, values in attributes.items()}


def _name_text(name: bytes) -> str:
    """Return a distinguished name in the form of RFC 2253, as OpenSSL prints it: the last part first."""
    parts = []
    for pairs in reversed(_relative_names(name)):
        values = []
        for key, tag, content in reversed(pairs):
            if key[0].isdigit() or tag not in _ENCODINGS:
                value = _hex_dump(tag, content)
            else:
                value = re.sub(r'[,+"\\<>;]|\A[ #]| \Z', r"\\\g<0>", _string(tag, content))
            values.append(f"{key}={value}")
        parts.append("+".join(values))
    return ",".join(parts)


def _relative_names(name: bytes) -> list[list[tuple[str, int, bytes]]]:
    """Return, for each relative name, its attributes: the key, and the value's tag and content."""
    relative_names = []
    for _, attributes in elements(name):
        pairs = []
        for _, attribute in elements(attributes):
            (_, identifier), (tag, content) = elements(attribute)
            number = _dotted(identifier)
            pairs.append((_ATTRIBUTES.get(number, number), tag, content))
        relative_names.append(pairs)
    return relative_names


def _string(tag: int, content: bytes) -> str:
    if tag not in _ENCODINGS:
        return _hex_dump(tag, content)
    return content.decode(_ENCODINGS[tag], errors="replace")


def _hex_dump(tag: int, content: bytes) -> str:
    return "#" + encoded(tag, content).hex().upper()


def _title(name: Name) -> str:
    """Return what a person would call the owner of a name: its common name, if it has one."""
    common_name = name.get("CN") or _one_line(name)
    return common_name if isinstance(common_name, str) else common_name[0]


def _one_line(name: Name) -> str:
    pairs = [
        f"{key}={value}"
        for key, values in name.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    return ", ".join(pairs)


def _with_lists(name: Name) -> dict[str, str | list[str]]:
    return {key: value if isinstance(value, str) else list(value) for key, value in name.items()}


def _time(element: Element) -> dt.datetime:
    tag, content = element
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    if not _TIME.fullmatch(text):
        raise ValueError(f"{text!r} is no time of RFC 5280")
    # Much quicker than strptime, which a client that resumes would feel.
    month, day, hour, minute, second = [int(text[at : at + 2]) for at in range(4, 14, 2)]
    return dt.datetime(int(text[:4]), month, day, hour, minute, second, tzinfo=dt.UTC)


def _node_time(element: Element) -> str:
    """Return a time as OpenSSL's ``ASN1_TIME_print`` writes it."""
    try:
        time = _time(element)
    except ValueError:
        return "Bad time value"
    return f"{_MONTHS[time.month - 1]} {time.day:2} {time:%H:%M:%S} {time.year} GMT"


_IN_JSON = (
    *("subject", "issuer", "alt_names", "valid_from", "valid_to", "serial_number", "bits", "asn1_curve"),
    *("ca", "ext_key_usage", "fingerprint256", "pem"),
)


def _lists(value: Any) -> Any:
    """Return a value with lists in the place of its tuples, as JSON knows no others."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple) else value


def _colon_hex(digest: bytes) -> str:
    return digest.hex(":").upper()


def _dotted(identifier: bytes) -> str:
    """Return an object identifier's content as numbers with dots."""
    if not identifier or identifier[-1] > 0x7F:
        raise ValueError("an object identifier that is cut short")
    numbers = []
    number = 0
    for octet in identifier:
        number = number << 7 | octet & 0x7F
        if octet < 0x80:
            numbers.append(number)
            number = 0
        elif number >> 128:
            raise ValueError("an object identifier with a number above 128 bits")
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))
