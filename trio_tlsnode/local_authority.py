"""LocalAuthority: a certificate authority for local names, kept in a folder, that can vouch for nothing else.

Whoever trusts it trusts whoever can read its key.  So its own certificate says, in name constraints that
clients enforce (RFC 5280, section 4.2.1.10), that it is for names which nobody can have in public: those that
RFC 6761 and its relatives reserve, and private addresses.  It cannot have other authorities below it, and is
for TLS alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import errno
import getpass
import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .certificates import Certificate
from .errors import ConfigurationError
from .identity import to_ascii

KeyType = Literal["EC", "RSA"]
"""The type of a private key: "EC" is P-256, "RSA" has 2048 bits."""

_PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

LOCAL_DOMAINS: Final = ("localhost", "test", "example", "invalid", "local", "internal", "home.arpa")
"""The domains that are never delegated in public: RFC 6761, 6762 and 8375, and ICANN's "internal"."""

LOCAL_NETWORKS: Final[tuple[_Network, ...]] = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
)
"""The networks of loopback, private and link-local addresses."""

_CA_FILE: Final = "ca.pem"
_KEY_FILE: Final = "ca-key.pem"
_CA_DAYS: Final = 3650
# What browsers accept at most, since 2020.
DEFAULT_DAYS: Final = 397
# For clocks that are a little slow.
_BEFORE: Final = dt.timedelta(hours=1)
_LEAST_RSA_BITS: Final = 2048
# X.520's upper bound for a common name.
_LONGEST_NAME: Final = 64


@dataclasses.dataclass(frozen=True, slots=True)
class LocalCertificate:
    """A certificate that a `LocalAuthority` has issued.

    Attributes:
        cert: The certificate, PEM.
        key: Its private key, PEM (PKCS#8, not encrypted); None where somebody else has it.
        ca: The authority's certificate, PEM: what peers are to trust.
    """

    cert: bytes
    key: bytes | None = dataclasses.field(repr=False)
    ca: bytes

    @property
    def certificate(self) -> Certificate:
        """The certificate, to be read."""
        return Certificate.from_x509(x509.load_pem_x509_certificate(self.cert))

    def write_to(self, cert: os.PathLike[str], key: os.PathLike[str] | None = None) -> None:
        """Write the files, in the place of older ones; nobody but their owner can read the key's.

        Each is there whole or not at all.  The key comes first.

        Args:
            cert: Where the certificate goes.
            key: Where the key goes, if it does.

        Raises:
            ConfigurationError: a file cannot be written, or the key is not known.
        """
        if key is not None:
            if self.key is None:
                raise ConfigurationError("the private key is not known: somebody else has it", option="key")
            _replace(Path(key), self.key, 0o600)
        _replace(Path(cert), self.cert, 0o644)

    def write_pfx_to(self, path: os.PathLike[str], passphrase: str | bytes) -> None:
        """Write what `pfx` returns, readable for the owner of the file alone.

        Args:
            path: Where it goes.
            passphrase: What it is encrypted with.

        Raises:
            ConfigurationError: as for `pfx`, or the file cannot be written.
        """
        _replace(Path(path), self.pfx(passphrase), 0o600)

    def pfx(self, passphrase: str | bytes) -> bytes:
        """Return certificate, key and authority as PKCS#12, for programs that want that.

        Args:
            passphrase: What it is encrypted with.

        Raises:
            ConfigurationError: the key is not known, or the passphrase is empty.
        """
        secret = passphrase.encode() if isinstance(passphrase, str) else passphrase
        if self.key is None or not secret:
            raise ConfigurationError("PKCS#12 needs the private key, and a passphrase", option="pfx")
        key = load_pem_private_key(self.key, None)
        assert isinstance(key, _PrivateKey)
        return pkcs12.serialize_key_and_certificates(
            None,
            key,
            x509.load_pem_x509_certificate(self.cert),
            [x509.load_pem_x509_certificate(self.ca)],
            BestAvailableEncryption(secret),
        )


class LocalAuthority:
    """An authority that issues certificates for local names, and can issue no others.

    `open` returns the one of a folder, which it makes if it is not there.

    Attributes:
        folder: Where it is kept: ``ca.pem``, which peers are to trust, and ``ca-key.pem``, which nobody but
            its owner can read.
        made: Whether it was made just now.
        certificate: Its certificate.
    """

    def __init__(self, folder: Path, certificate: x509.Certificate, key: _PrivateKey, *, made: bool) -> None:
        self.folder = folder
        self.made = made
        self.certificate = Certificate.from_x509(certificate)
        self._certificate = certificate
        self._key = key

    @classmethod
    def open(cls, folder: os.PathLike[str]) -> LocalAuthority:
        """Return the authority of a folder; make it if there is none.

        Args:
            folder: The folder, which is made too, readable for its owner alone.

        Raises:
            ConfigurationError: what is there cannot be used, or the folder cannot be written to.  Nothing is
                ever replaced.
        """
        path = Path(folder)
        ca, key = path / _CA_FILE, path / _KEY_FILE
        with _telling(path):
            present = [file.name for file in (ca, key) if file.exists()]
            if not present:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                certificate, private_key = _make_authority()
                _write_new(key, _pkcs8(private_key), 0o600)
                _write_new(ca, certificate.public_bytes(Encoding.PEM), 0o644)
                return cls(path, certificate, private_key, made=True)
            if len(present) == 1:
                raise _unusable(path, f"has {present[0]}, but not the other file")
            certificate = x509.load_pem_x509_certificate(ca.read_bytes())
            loaded = load_pem_private_key(key.read_bytes(), None)
        if not isinstance(loaded, _PrivateKey) or loaded.public_key() != certificate.public_key():
            raise _unusable(path, "has a key that is not its certificate's")
        if dt.datetime.now(dt.UTC) > certificate.not_valid_after_utc:
            raise _unusable(path, "has an authority that has expired")
        return cls(path, certificate, loaded, made=False)

    @property
    def ca_path(self) -> Path:
        """The file of its certificate: what peers are to trust."""
        return self.folder / _CA_FILE

    def issue(
        self, *names: str, client: bool = False, key_type: KeyType = "EC", days: float = DEFAULT_DAYS
    ) -> LocalCertificate:
        """Issue a certificate, with a new key.

        Args:
            names: Whom it is for.  A server: local names, with ``*`` for their first label, and local
                addresses.  A client: anything; the first is the common name, e-mail addresses and URIs become
                alternative names.
            client: Whether it is a client's.
            key_type: What kind of key.
            days: For how long it is valid.

        Raises:
            ConfigurationError: there is no name, or one that is not local.
        """
        key = _make_key(key_type)
        cert = self._sign(key.public_key(), names, client=client, days=days)
        return LocalCertificate(cert, _pkcs8(key), self.certificate.pem.encode())

    def sign_request(
        self, request: bytes, *, client: bool = False, days: float = DEFAULT_DAYS
    ) -> LocalCertificate:
        """Issue a certificate for a certificate signing request (PKCS#10), whose key stays where it is.

        Only the names of the request count: its subjectAltName, or without one its common name.

        Args:
            request: The request, PEM.
            client: Whether it is a client's.
            days: For how long the certificate is valid.

        Raises:
            ConfigurationError: the request cannot be read, is not signed by its own key, or is for a name
                that is not local.
        """
        try:
            parsed = x509.load_pem_x509_csr(request)
            is_signed = parsed.is_signature_valid
            names = _names_of(parsed)
        except (ValueError, x509.UnsupportedGeneralNameType) as error:
            raise ConfigurationError(f"the request cannot be read: {error}", option="request") from error
        if not is_signed:
            raise ConfigurationError("the request is not signed by its own key", option="request")
        key = parsed.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise ConfigurationError("the request's key is neither RSA nor EC", option="request")
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
            raise ConfigurationError(
                f"the request's key has only {key.key_size} bits; RSA needs {_LEAST_RSA_BITS}",
                option="request",
            )
        cert = self._sign(key, names, client=client, days=days)
        return LocalCertificate(cert, None, self.certificate.pem.encode())

    def _sign(
        self,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        names: tuple[str, ...],
        *,
        client: bool,
        days: float,
    ) -> bytes:
        if not names:
            raise ConfigurationError("a certificate is for at least one name", option="names")
        if not days > 0:
            raise ConfigurationError(f"days must be more than 0. Received {days}", option="days")
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "tlsnode local certificate")]
        if client:
            subject.append(x509.NameAttribute(NameOID.COMMON_NAME, _common_name(names[0])))
            alternatives = [name for name in map(_client_name, names) if name is not None]
        else:
            alternatives = [_server_name(name) for name in names]
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BEFORE)
            .not_valid_after(min(now + dt.timedelta(days=days), self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM)

    def __repr__(self) -> str:
        return f"<LocalAuthority in {self.folder}>"


# Names


def _server_name(name: str) -> x509.GeneralName:
    """Return a local name as it stands in a certificate.

    Raises:
        ConfigurationError: it is not local, or no name.
    """
    address = None
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(name)
    if address is not None:
        if not any(address in network for network in LOCAL_NETWORKS):
            raise ConfigurationError(
                f"{name} is a public address: local ones are of loopback, private and link-local networks",
                option="names",
            )
        return x509.IPAddress(address)
    star, rest = ("*.", name[2:]) if name.startswith("*.") else ("", name)
    try:
        host = to_ascii(rest).removesuffix(".").lower()
    except ValueError as error:
        raise ConfigurationError(f"{name!r} is no host name: {error}", option="names") from error
    labels = host.split(".")
    if not all(label and set(label) <= _LETTERS and len(label) < 64 for label in labels):
        raise ConfigurationError(f"{name!r} is no host name", option="names")
    domain = next((domain for domain in LOCAL_DOMAINS if f".{host}".endswith(f".{domain}")), None)
    if domain is None:
        raise ConfigurationError(
            f"{name} may be somebody's in public: local names are localhost, and those that end with "
            f"{', '.join(f'.{domain}' for domain in LOCAL_DOMAINS)}",
            option="names",
        )
    if star and host == domain:
        raise ConfigurationError(
            f"no client takes {name}: put a name between, as in *.app.{domain}", option="names"
        )
    return x509.DNSName(star + host)


_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


def _client_name(name: str) -> x509.GeneralName | None:
    """Return a client's name as an alternative name, or None if it is only a common name.

    Raises:
        ConfigurationError: it has letters that such names do not have.
    """
    kind = x509.UniformResourceIdentifier if "://" in name else x509.RFC822Name if "@" in name else None
    try:
        return None if kind is None else kind(name)
    except ValueError as error:
        raise ConfigurationError(
            f"{name!r} cannot stand in a certificate: {error}", option="names"
        ) from error


def _common_name(name: str) -> str:
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise ConfigurationError(
            f"a common name has 1 to {_LONGEST_NAME} printable characters. Received {name!r}", option="names"
        )
    return name


def _names_of(request: x509.CertificateSigningRequest) -> tuple[str, ...]:
    try:
        found = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return tuple(
            str(attribute.value) for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        )
    return tuple(str(name.value) for name in found)


# Making it


def _make_authority() -> tuple[x509.Certificate, _PrivateKey]:
    key = _make_key("EC")
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "tlsnode local authority"),
            # Whose it is, for those who find it among the authorities that they trust.
            x509.NameAttribute(NameOID.COMMON_NAME, _whose()[:_LONGEST_NAME]),
        ]
    )
    constraints = x509.NameConstraints(
        permitted_subtrees=[
            *map(x509.DNSName, LOCAL_DOMAINS),
            *map(x509.IPAddress, LOCAL_NETWORKS),
        ],
        excluded_subtrees=None,
    )
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + dt.timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(usages, critical=False)
        .add_extension(constraints, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    return certificate, key


def _whose() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError, ImportError):
        # A user without a name, as in some containers.
        return socket.gethostname()


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _make_key(key_type: KeyType) -> _PrivateKey:
    if key_type == "EC":
        return ec.generate_private_key(ec.SECP256R1())
    if key_type == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=_LEAST_RSA_BITS)
    raise ConfigurationError(f'key_type is "EC" or "RSA". Received {key_type!r}', option="key_type")


def _pkcs8(key: _PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


# Files


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole, or not at all, in the place of an older one."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}",
            code=errno.errorcode.get(error.errno or 0, "EIO"),
            path=str(path),
        ) from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


@contextlib.contextmanager
def _telling(folder: Path) -> Iterator[None]:
    """Raise what the system says of a folder, or what is in it, as a ConfigurationError."""
    try:
        yield
    except ConfigurationError:
        raise
    except OSError as error:
        raise _unusable(folder, f"cannot be used: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise _unusable(folder, f"has files that cannot be read: {error}") from error


def _unusable(folder: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the folder {folder} {why}. Name another folder, or empty this one",
        option="folder",
        path=str(folder),
    )
