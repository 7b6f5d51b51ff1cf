"""Credentials: private keys with their certificate chains, trusted certificates and revocation lists.

Whatever form they are given in (content, a file, an object of cryptography, lists of these), they come out as
the same immutable values, equal and hashable by what they certify, and never showing a secret.  A file is
opened only for an `os.PathLike`; nothing is ever written.  What cannot be used is a `ConfigurationError` that
names the option, the file and the remedy.  OpenSSL itself is not touched here.
"""

from __future__ import annotations

import binascii
import dataclasses
import errno
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, Literal, NamedTuple, TypeAlias, TypeGuard, TypeVar, get_args

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from .der import OCTET_STRING, SEQUENCE, encoded
from .dh import DHGroup
from .errors import ConfigurationError, ConfigurationTypeError

_T = TypeVar("_T")

PrivateKey: TypeAlias = CertificateIssuerPrivateKeyTypes
Passphrase: TypeAlias = str | bytes | bytearray | memoryview

Unset: TypeAlias = Literal[False, 0, ""] | None
Content: TypeAlias = str | bytes | bytearray | memoryview | os.PathLike[str]

KeyItem: TypeAlias = (
    Content | PrivateKey | tuple[Content | PrivateKey, Passphrase | None] | Mapping[str, object]
)
KeyOption: TypeAlias = Content | PrivateKey | Sequence[KeyItem] | Unset
PfxItem: TypeAlias = Content | tuple[Content, Passphrase | None] | Mapping[str, object]
PfxOption: TypeAlias = Content | Sequence[PfxItem] | Unset
CertificateItem: TypeAlias = Content | x509.Certificate
CertificateOption: TypeAlias = CertificateItem | Sequence[CertificateItem | Sequence[CertificateItem]] | Unset
TrustedOption: TypeAlias = CertificateItem | Sequence[CertificateItem] | Unset
DHOption: TypeAlias = Content | Unset
CrlItem: TypeAlias = Content | x509.CertificateRevocationList
CrlOption: TypeAlias = CrlItem | Sequence[CrlItem] | Unset

_PRIVATE_KEY_TYPES: Final[tuple[type, ...]] = get_args(CertificateIssuerPrivateKeyTypes)
_RSA_PSS: Final = x509.PublicKeyAlgorithmOID.RSASSA_PSS
# How a PKCS#8 key begins (RFC 5958): version 0, algorithm id-RSASSA-PSS without restrictions (RFC 4055).
_RSA_PSS_PKCS8_PREFIX: Final = bytes.fromhex("020100 300b 0609 2a864886f70d01010a")

_KEY_LABELS: Final = frozenset(
    {"PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY"}
)
_CERTIFICATE_LABELS: Final = frozenset({"CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"})
_DH_LABELS: Final = frozenset({"DH PARAMETERS"})
_CRL_LABELS: Final = frozenset({"X509 CRL"})
# What nobody should use at all, and what nobody should use without need (RFC 9325, section 4.3).
_LEAST_DH_BITS: Final = 1024
_WISE_DH_BITS: Final = 2048
_PEM_MARKER: Final = re.compile(rb"-----(BEGIN|END) ([A-Z0-9 ]+)-----")

# What cryptography raises for bytes that it cannot make sense of.
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


@dataclasses.dataclass(frozen=True, slots=True)
class CertifiedKey:
    """A certificate chain and the private key of its first certificate: who we are to a peer.

    Two are equal when their chains are: the key follows from the first certificate.

    Attributes:
        private_key: The private key, an object of cryptography.
        chain: Our own certificate first, then those of its issuers, as they are presented.
    """

    private_key: PrivateKey = dataclasses.field(repr=False, compare=False)
    chain: tuple[x509.Certificate, ...]

    def private_key_der(self) -> bytes:
        """Return the private key as unencrypted PKCS#8, in the algorithm that the certificate names.

        cryptography takes every RSA key for a plain one; OpenSSL wants an RSASSA-PSS key to go with an
        RSASSA-PSS certificate.
        """
        if self.chain[0].public_key_algorithm_oid != _RSA_PSS:
            return self.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        pkcs1 = self.private_key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        return encoded(SEQUENCE, _RSA_PSS_PKCS8_PREFIX + encoded(OCTET_STRING, pkcs1))


@dataclasses.dataclass(frozen=True, slots=True)
class Credentials:
    """Everything that the options ``key``, ``cert`` and ``pfx`` of one context gave.

    Attributes:
        certified_keys: The pairs that can be used, in the order of ``cert``, then of ``pfx``.
        trusted: The CA certificates inside ``pfx``: trusted in addition to what ``ca`` says.
        unpaired_chains: What ``cert`` gave when there was no ``key``.  Allowed, as in Node, and of no use.
        unpaired_keys: The public keys (SubjectPublicKeyInfo, DER) of what ``key`` gave when there was no
            ``cert``; likewise.
    """

    certified_keys: tuple[CertifiedKey, ...] = ()
    trusted: tuple[x509.Certificate, ...] = ()
    unpaired_chains: tuple[tuple[x509.Certificate, ...], ...] = ()
    unpaired_keys: tuple[bytes, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class RevocationList:
    """One certificate revocation list, hashable, which cryptography's own object is not.

    Attributes:
        crl: The list, an object of cryptography.
    """

    crl: x509.CertificateRevocationList

    def __hash__(self) -> int:
        return hash(self.crl.signature)


def load_credentials(
    *,
    key: KeyOption = None,
    cert: CertificateOption = None,
    pfx: PfxOption = None,
    passphrase: Passphrase | None = None,
) -> Credentials:
    """Load private keys and certificate chains, and find out which belong together.

    A str or bytes is content (PEM; bytes may also be DER), an `os.PathLike` is a file.  None, "", False and 0
    mean that an option is not set.  See ``key``, ``cert``, ``pfx`` and ``passphrase`` of Node's
    ``tls.createSecureContext``.

    Args:
        key: Private keys in any order: content (PKCS#8, PKCS#1 or SEC1, encrypted or not), a file, an object
            of cryptography, or a list of these.  In a list, a pair ``(content, passphrase)`` or a mapping
            ``{"pem": content, "passphrase": ...}`` gives an item its own passphrase.
        cert: Certificate chains in any order, each with our own certificate first: content, a file, an object
            of cryptography, or a list of chains.  A list inside the list is one chain in pieces.
        pfx: PKCS#12 content or files, each with a key, its certificate and CAs, or a list of these.  In a
            list, a pair, or a mapping ``{"buf": content, "passphrase": ...}``, has its own passphrase.
        passphrase: For everything encrypted that has no passphrase of its own.  Ignored by a key that is not
            encrypted.

    Raises:
        ConfigurationError: Something cannot be read, decrypted or parsed, or a key and a certificate were
            given that do not belong together (``ERR_OSSL_X509_KEY_VALUES_MISMATCH``).
        ConfigurationTypeError: Something is of a wrong type.
    """
    shared = _passphrase("passphrase", passphrase)
    # Node looks at the certificates first, so they are what it reports when both are wrong.
    chains = [_chain(option, item) for option, item in _items("cert", cert)]
    keys = [found for item in _secret_items("key", key, "pem", shared) for found in _keys(*item)]
    certified, unpaired_chains, unpaired_keys = _pair(keys, chains)
    trusted: list[x509.Certificate] = []
    for secret_item in _secret_items("pfx", pfx, "buf", shared):
        own, authorities = _pfx(*secret_item)
        certified.append(own)
        trusted += authorities
    return Credentials(
        certified_keys=tuple(dict.fromkeys(certified)),
        trusted=tuple(dict.fromkeys(trusted)),
        unpaired_chains=tuple(chain.certificates for chain in unpaired_chains),
        unpaired_keys=tuple(key.public_key for key in unpaired_keys),
    )


def load_trusted_certificates(ca: TrustedOption) -> tuple[x509.Certificate, ...] | None:
    """Load the certificates that are trusted in place of the default ones, each once.

    Args:
        ca: Content (any number of PEM certificates, or one as DER), a file, an object of cryptography, or a
            list of these.  Need not be CA certificates.  An empty list trusts nothing.

    Returns:
        The certificates; None when the option is not set, so that the defaults apply.

    Raises:
        ConfigurationError: Something cannot be read or parsed, or holds no certificate.
        ConfigurationTypeError: Something is of a wrong type.
    """
    if _is_unset(ca):
        return None
    pieces = [_piece(option, item) for option, item in _items("ca", ca)]
    return tuple(dict.fromkeys(certificate for piece in pieces for certificate in piece.certificates))


def load_crls(crl: CrlOption) -> tuple[RevocationList, ...]:
    """Load certificate revocation lists, each once.

    Args:
        crl: Content (any number of PEM lists, or one as DER), a file, an object of cryptography, or a list of
            these.

    Returns:
        The revocation lists; none when the option is not set.

    Raises:
        ConfigurationError: Something cannot be read, or is no revocation list
            (``ERR_CRYPTO_OPERATION_FAILED``).
        ConfigurationTypeError: Something is of a wrong type.
    """
    found: list[RevocationList] = []
    for option, item in _items("crl", crl):
        if isinstance(item, x509.CertificateRevocationList):
            found.append(RevocationList(item))
        else:
            source, content = _content(option, item, "a certificate revocation list of cryptography")
            found += [RevocationList(parsed) for parsed in _parse(_CRL, source, content)]
    return tuple(dict.fromkeys(found))


# Where something came from, and how it is read


def load_dhparam(dhparam: DHOption) -> DHGroup | Literal["auto"] | None:
    """Load a Diffie-Hellman group.

    Args:
        dhparam: Content (PEM or DER, as ``openssl dhparam`` makes it) or a file; "auto" stays what it is.

    Returns:
        The group, or "auto"; None when the option is not set.

    Raises:
        ConfigurationError: It cannot be read or parsed, or has less than 1024 bits.
        ConfigurationTypeError: It is of a wrong type.
    """
    if _is_unset(dhparam):
        return None
    if dhparam == "auto":
        return "auto"
    source, content = _content("dhparam", dhparam)
    group, *_ = _parse(_DH_GROUP, source, content)
    if group.bits < _LEAST_DH_BITS:
        raise source.error(f"DH parameter is less than {_LEAST_DH_BITS} bits", ConfigurationError.code)
    if group.bits < _WISE_DH_BITS:
        warnings.warn(f"DH parameter is less than {_WISE_DH_BITS} bits", RuntimeWarning, stacklevel=2)
    return group


@dataclasses.dataclass(frozen=True, slots=True)
class _Source:
    """Where something was given: what an error about it names."""

    option: str
    path: str | None = None

    def __str__(self) -> str:
        return self.option if self.path is None else f"{self.option} ({self.path})"

    def error(self, reason: str, code: str) -> ConfigurationError:
        return ConfigurationError(f"{self}: {reason}", code=code, option=self.option, path=self.path)


def _is_unset(value: object) -> bool:
    return value is None or (isinstance(value, str | int) and not value)


def _items(option: str, value: object) -> list[tuple[str, object]]:
    """Return the items of an option, each under the name by which an error calls it."""
    if _is_unset(value):
        return []
    if isinstance(value, list | tuple):
        return [(f"{option}[{index}]", item) for index, item in enumerate(value)]
    return [(option, value)]


def _wrong_type(option: str, expected: str, value: object) -> ConfigurationTypeError:
    # Node also prints the value; ours may be a key or a passphrase.
    return ConfigurationTypeError(
        f'The "options.{option}" property must be {expected}. Received an instance of {type(value).__name__}',
        option=option,
    )


def _content(option: str, value: object, expected_object: str = "") -> tuple[_Source, bytes]:
    """Return what was given as bytes; read it if it is a file."""
    if isinstance(value, str):
        return _Source(option), value.encode(errors="replace")
    if isinstance(value, bytes | bytearray | memoryview):
        return _Source(option), bytes(value)
    if isinstance(value, os.PathLike):
        return _file(option, value)
    expected = "of type str, bytes, bytearray or memoryview (content), or os.PathLike (a file)"
    raise _wrong_type(option, f"{expected}, or {expected_object}" if expected_object else expected, value)


_FILE_REASONS: Final = {
    "ENOENT": "there is no such file",
    "EISDIR": "this is a folder, and a file is expected",
    "EACCES": "this process has no permission to read the file",
}


def _file(option: str, value: os.PathLike[Any]) -> tuple[_Source, bytes]:
    try:
        path = os.fsdecode(value)
    except TypeError as error:
        raise _wrong_type(option, "an os.PathLike whose __fspath__ gives str or bytes", value) from error
    source = _Source(option, path)
    try:
        with open(path, "rb") as file:
            return source, file.read()
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "EIO")
        reason = _FILE_REASONS.get(code, f"the file cannot be read: {error.strerror}")
        raise source.error(reason, code) from error
    except ValueError as error:  # a NUL character in the name
        raise source.error("no file can have this name", ConfigurationError.code) from error


def _passphrase(option: str, value: object) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        # A lone surrogate fits no passphrase, and the error for it would hold the passphrase.
        return value.encode(errors="surrogatepass")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise _wrong_type(option, "of type str, bytes, bytearray or memoryview", value)


def _secret_items(
    option: str, value: object, content_name: str, shared: bytes | None
) -> Iterator[tuple[str, object, bytes | None]]:
    """Yield the items of ``key`` or ``pfx``, each with the passphrase that applies to it."""
    in_list = isinstance(value, list | tuple)
    for name, item in _items(option, value):
        own: object = None
        if in_list and isinstance(item, tuple) and len(item) == 2:
            item, own = item
        elif in_list and isinstance(item, Mapping) and content_name in item:
            item, own = item[content_name], item.get("passphrase")
        yield name, item, shared if own is None else _passphrase(f"{name}.passphrase", own)


# PEM and DER


class _Block(NamedTuple):
    """One PEM block: its label, all of its text, and what stands between its two marker lines."""

    label: str
    text: bytes
    body: bytes


def _pem_blocks(source: _Source, content: bytes) -> list[_Block]:
    blocks: list[_Block] = []
    begin: re.Match[bytes] | None = None
    for marker in _PEM_MARKER.finditer(content):
        if marker[1] == b"BEGIN" and begin is None:
            begin = marker
        elif begin is not None:
            if marker[1] == b"BEGIN" or marker[2] != begin[2]:
                break
            text = content[begin.start() : marker.end()]
            blocks.append(_Block(begin[2].decode(), text, content[begin.end() : marker.start()]))
            begin = None
    if begin is not None:
        label = begin[2].decode()
        raise source.error(
            f'"-----BEGIN {label}-----" has no "-----END {label}-----" after it: the text is cut off or '
            "mixed up; copy it again, whole",
            "ERR_OSSL_PEM_BAD_END_LINE",
        )
    return blocks


def _damage(block: _Block) -> str:
    """Return what to do about a PEM block that cannot be decoded."""
    if rb"\n" in block.body:
        return (
            "its line ends are the two characters backslash and n, as environment variables often have "
            r"them; replace('\\n', '\n') mends that"
        )
    return "it is damaged; copy or export it again"


def _der_content(data: bytes) -> tuple[int, int] | None:
    """Return where the content of the leading SEQUENCE begins and ends; None if it is not there whole."""
    if len(data) < 2 or data[0] != 0x30:
        return None
    start, length = 2, data[1]
    if length == 0x80:  # of indefinite length: BER, which Windows and Java write in PKCS#12
        return start, len(data)
    if length > 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start])
    return (start, start + length) if start + length <= len(data) else None


def _is_pkcs12(data: bytes) -> bool:
    # PFX ::= SEQUENCE { version INTEGER {v3(3)}, ... } (RFC 7292); nothing else here begins with version 3.
    bounds = _der_content(data)
    return bounds is not None and data[bounds[0] : bounds[0] + 3] == b"\x02\x01\x03"


_DESCRIPTIONS: Final = {
    "key": "a private key, which belongs into key=",
    "cert": "a certificate, which belongs into cert= or ca=",
    "crl": "a certificate revocation list, which belongs into crl=",
    "pfx": "PKCS#12 data, which belongs into pfx=",
}


def _what_it_is(source: _Source, content: bytes, blocks: Sequence[_Block]) -> str:
    """Return, in words, what was found where something else was expected."""
    if not content.strip():
        return "it is empty"
    for block in blocks:
        if block.label == "OPENSSH PRIVATE KEY":
            return "it holds a key in OpenSSH's own format; convert it with: ssh-keygen -p -m PKCS8 -f FILE"
        for kind, labels in (("key", _KEY_LABELS), ("cert", _CERTIFICATE_LABELS), ("crl", _CRL_LABELS)):
            if block.label in labels:
                return f"it holds {_DESCRIPTIONS[kind]}"
    if blocks:
        return f"it holds PEM, but of another kind: {blocks[0].label}"
    der = _kind_of_der(content)
    if der is not None:
        return f"it is {_DESCRIPTIONS[der]}"
    if source.path is None:
        return (
            'it has no "-----BEGIN ...-----" line and is no complete DER; a str or bytes is the '
            "content itself, for a file give pathlib.Path(...)"
        )
    return 'it has no "-----BEGIN ...-----" line and is no complete DER'


def _kind_of_der(data: bytes) -> str | None:
    if _is_pkcs12(data):
        return "pfx"
    for kind, load in (("cert", x509.load_der_x509_certificate), ("crl", x509.load_der_x509_crl)):
        try:
            load(data)
        except _UNREADABLE:
            continue
        return kind
    try:
        load_der_private_key(data, None)
    except TypeError:  # it is encrypted
        return "key"
    except _UNREADABLE:
        return None
    return "key"


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind(Generic[_T]):
    """A kind of DER that PEM labels announce, and the codes of Node for what can be wrong with it."""

    noun: str
    labels: frozenset[str]
    load: Callable[[bytes], _T]
    missing: str
    bad_base64: str
    damaged: str


_CERTIFICATE: Final = _Kind(
    "certificate",
    _CERTIFICATE_LABELS,
    x509.load_der_x509_certificate,
    missing="ERR_OSSL_PEM_NO_START_LINE",
    bad_base64="ERR_OSSL_PEM_BAD_BASE64_DECODE",
    damaged="ERR_OSSL_PEM_ASN1_LIB",
)
_DH_GROUP: Final = _Kind(
    "DH parameters",
    _DH_LABELS,
    DHGroup.from_der,
    missing="ERR_OSSL_PEM_NO_START_LINE",
    bad_base64="ERR_OSSL_PEM_BAD_BASE64_DECODE",
    damaged="ERR_OSSL_PEM_ASN1_LIB",
)
_CRL: Final = _Kind(
    "CRL",
    _CRL_LABELS,
    x509.load_der_x509_crl,
    missing="ERR_CRYPTO_OPERATION_FAILED",
    bad_base64="ERR_CRYPTO_OPERATION_FAILED",
    damaged="ERR_CRYPTO_OPERATION_FAILED",
)


def _parse(kind: _Kind[_T], source: _Source, content: bytes) -> list[_T]:
    """Return everything of a kind that the content holds: all its PEM blocks of that kind, or one DER."""
    blocks = _pem_blocks(source, content)
    wanted = [block for block in blocks if block.label in kind.labels]
    if wanted:
        return [_parse_block(kind, source, block) for block in wanted]
    try:
        return [kind.load(content)]
    except _UNREADABLE as error:
        found = _what_it_is(source, content, blocks)
        raise source.error(f"Failed to parse {kind.noun}: {found}", kind.missing) from error


def _parse_block(kind: _Kind[_T], source: _Source, block: _Block) -> _T:
    try:
        der = binascii.a2b_base64(b"".join(block.body.split()), strict_mode=True)
    except binascii.Error as error:
        raise source.error(
            f"Failed to parse {kind.noun}: its base64 is wrong: {_damage(block)}", kind.bad_base64
        ) from error
    if block.label == "TRUSTED CERTIFICATE" and (bounds := _der_content(der)) is not None:
        der = der[: bounds[1]]  # OpenSSL's own trust settings follow the certificate
    try:
        return kind.load(der)
    except _UNREADABLE as error:
        raise source.error(f"Failed to parse {kind.noun}: {_damage(block)}", kind.damaged) from error


# Certificate chains, keys, PKCS#12


class _Chain(NamedTuple):
    source: _Source
    certificates: tuple[x509.Certificate, ...]


class _Key(NamedTuple):
    source: _Source
    private_key: PrivateKey
    public_key: bytes


def _chain(option: str, item: object) -> _Chain:
    """Return one item of ``cert``: a chain, whole or in pieces."""
    if not isinstance(item, list | tuple):
        return _piece(option, item)
    pieces = [_piece(name, piece) for name, piece in _items(option, item)]
    if not pieces:
        raise _Source(option).error(
            "the chain is empty; it must begin with our own certificate", _CERTIFICATE.missing
        )
    return _Chain(
        pieces[0].source, tuple(certificate for piece in pieces for certificate in piece.certificates)
    )


def _piece(option: str, item: object) -> _Chain:
    """Return the certificates that one item gives, in their order."""
    if isinstance(item, x509.Certificate):
        return _Chain(_Source(option), (item,))
    source, content = _content(option, item, "a certificate of cryptography")
    return _Chain(source, tuple(_parse(_CERTIFICATE, source, content)))


def _keys(option: str, item: object, passphrase: bytes | None) -> list[_Key]:
    """Return the private keys that one item of ``key`` gives."""
    if _is_private_key(item):
        return [_key(_Source(option), item)]
    source, content = _content(option, item, "a private key of cryptography that can sign")
    blocks = _pem_blocks(source, content)
    wanted = [block for block in blocks if block.label in _KEY_LABELS]
    if wanted:
        return [
            _key(source, _private_key(source, load_pem_private_key, block.text, passphrase, _damage(block)))
            for block in wanted
        ]
    if not blocks and _kind_of_der(content) == "key":
        return [
            _key(source, _private_key(source, load_der_private_key, content, passphrase, "export it again"))
        ]
    found = _what_it_is(source, content, blocks)
    raise source.error(f"no private key: {found}", "ERR_OSSL_PEM_NO_START_LINE")


def _private_key(
    source: _Source,
    load: Callable[[bytes, bytes | None], object],
    data: bytes,
    passphrase: bytes | None,
    remedy: str,
) -> object:
    try:
        return load(data, None)
    except TypeError as error:  # how cryptography says that it is encrypted
        encrypted = error
    except _UNREADABLE as error:
        raise source.error(f"the private key cannot be read: {remedy}", "ERR_OSSL_UNSUPPORTED") from error
    if passphrase is None:
        raise source.error(
            "bad decrypt: the private key is encrypted and no passphrase was given; give passphrase=, or a "
            "pair in a list: key=[(content, passphrase)]",
            "ERR_OSSL_BAD_DECRYPT",
        ) from encrypted
    try:
        return load(data, passphrase)
    except _UNREADABLE as error:
        raise source.error(
            "bad decrypt: the passphrase is wrong, or the private key is encrypted in an unknown way",
            "ERR_OSSL_BAD_DECRYPT",
        ) from error


def _is_private_key(value: object) -> TypeGuard[PrivateKey]:
    return isinstance(value, _PRIVATE_KEY_TYPES)


def _key(source: _Source, private_key: object) -> _Key:
    if not _is_private_key(private_key):
        raise source.error(
            "this private key cannot sign, so it cannot prove who we are; give an RSA, ECDSA or Ed25519 key",
            "ERR_SSL_UNKNOWN_CERTIFICATE_TYPE",
        )
    public_key = private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return _Key(source, private_key, public_key)


def _public_key(source: _Source, certificate: x509.Certificate) -> bytes:
    """Return the public key of a certificate in the form in which `_key` gives that of a private key."""
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except _UNREADABLE as error:
        raise source.error(
            "the public key in the certificate is of no known kind; give an RSA, ECDSA or Ed25519 one",
            "ERR_SSL_UNKNOWN_CERTIFICATE_TYPE",
        ) from error


def _pair(
    keys: Sequence[_Key], chains: Sequence[_Chain]
) -> tuple[list[CertifiedKey], list[_Chain], list[_Key]]:
    """Match keys with chains; return the pairs, the chains without a key, and the keys without a chain."""
    by_public_key = {key.public_key: key for key in keys}
    certified: list[CertifiedKey] = []
    paired: set[bytes] = set()
    lone_chains: list[_Chain] = []
    for chain in chains:
        public_key = _public_key(chain.source, chain.certificates[0])
        if public_key in by_public_key:
            certified.append(CertifiedKey(by_public_key[public_key].private_key, chain.certificates))
            paired.add(public_key)
        else:
            lone_chains.append(chain)
    lone_keys = [key for public_key, key in by_public_key.items() if public_key not in paired]
    if keys and chains and (lone_keys or lone_chains):
        raise _mismatch(lone_keys, lone_chains)
    return certified, lone_chains, lone_keys


def _mismatch(lone_keys: Sequence[_Key], lone_chains: Sequence[_Chain]) -> ConfigurationError:
    if not lone_keys:
        source = lone_chains[0].source
        reason = (
            "no private key in key= is for this certificate; if it is an issuer's, it belongs behind ours in "
            "one item: cert=[[ours, issuer]]"
        )
    else:
        source, _, public_key = lone_keys[0]
        reason = "no certificate in cert= is for this private key"
        for chain in lone_chains:
            if public_key in [_public_key(chain.source, issuer) for issuer in chain.certificates[1:]]:
                reason = (
                    f"its certificate is not the first in {chain.source}; put it first, its issuers behind it"
                )
                break
            reason += f"; {chain.source} is for another one"
    return source.error(f"key values mismatch: {reason}", "ERR_OSSL_X509_KEY_VALUES_MISMATCH")


def _pfx(option: str, item: object, passphrase: bytes | None) -> tuple[CertifiedKey, list[x509.Certificate]]:
    """Return the pair that one item of ``pfx`` holds, and the CA certificates next to it."""
    source, content = _content(option, item)
    if not _is_pkcs12(content):
        blocks = _pem_blocks(source, content)
        found = _what_it_is(source, content, blocks)
        if blocks or _der_content(content) is not None:
            raise source.error(f"wrong tag: this is no PKCS#12 data: {found}", "ERR_OSSL_ASN1_WRONG_TAG")
        raise source.error(f"not enough data for PKCS#12: {found}", "ERR_OSSL_ASN1_NOT_ENOUGH_DATA")
    if passphrase is not None and not _is_pkcs12_passphrase(passphrase):
        raise source.error(
            "mac verify failure: the passphrase of PKCS#12 data is text without NUL characters",
            "ERR_OSSL_PKCS12_MAC_VERIFY_FAILURE",
        )
    from cryptography.hazmat.primitives.serialization import pkcs12

    try:
        bundle = pkcs12.load_pkcs12(content, passphrase)
    except (UnsupportedAlgorithm, TypeError) as error:
        raise source.error(
            "Unsupported PKCS12 PFX data; export it again with AES and an RSA, ECDSA or Ed25519 key",
            "ERR_CRYPTO_UNSUPPORTED_OPERATION",
        ) from error
    except ValueError as error:
        known = "no passphrase was given" if passphrase is None else "the passphrase does not open it"
        raise source.error(
            f"mac verify failure: {known}, or the data is damaged", "ERR_OSSL_PKCS12_MAC_VERIFY_FAILURE"
        ) from error
    if bundle.key is None:
        raise source.error(
            "Unable to load private key from PFX data: it holds none; export it with its key, or give its "
            "certificates as ca=",
            "ERR_CRYPTO_OPERATION_FAILED",
        )
    if bundle.cert is None:
        raise source.error(
            "Unable to load certificate from PFX data: it holds none for its key; export both together",
            "ERR_CRYPTO_OPERATION_FAILED",
        )
    authorities = [found.certificate for found in bundle.additional_certs]
    own = _key(source, bundle.key)
    return CertifiedKey(own.private_key, _with_issuers(bundle.cert.certificate, authorities)), authorities


def _is_pkcs12_passphrase(passphrase: bytes) -> bool:
    # cryptography panics at a NUL, and fails on anything but UTF-8 before it has tried.
    try:
        passphrase.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in passphrase


def _with_issuers(
    certificate: x509.Certificate, authorities: Sequence[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    """Return the chain from a certificate up, of those at hand; PKCS#12 keeps them in no particular order."""
    chain = [certificate]
    remaining = list(authorities)
    while not _issued(chain[-1], chain[-1]):
        issuer = next((other for other in remaining if _issued(other, chain[-1])), None)
        if issuer is None:
            break
        remaining.remove(issuer)
        chain.append(issuer)
    return tuple(chain)


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*_UNREADABLE, InvalidSignature):
        return False
    return True
