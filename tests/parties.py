"""Parties: the authorities and agents of Node.js's own tests by their roles, with keys that are made anew.

``agent1`` is of ``ca1``, ``agent2`` vouches for itself, ``agent3`` is of ``ca2``, and so is ``agent4``, which
is for clients alone.  ``agent6`` and ``agent10`` show an intermediate, ``ec10`` is as ``agent10`` with EC
keys.  None of them has alternative names, so that each is judged by its common name.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_NOT_BEFORE = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_NOT_AFTER = dt.datetime(2200, 1, 1, tzinfo=dt.UTC)
_ACCESS = x509.AuthorityInformationAccess(
    [
        x509.AccessDescription(
            AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://ocsp.nodejs.org/")
        ),
        x509.AccessDescription(
            AuthorityInformationAccessOID.CA_ISSUERS,
            x509.UniformResourceIdentifier("http://ca.nodejs.org/ca.cert"),
        ),
    ]
)
_ATTRIBUTES = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
    "emailAddress": NameOID.EMAIL_ADDRESS,
}
_JOYENT = ("C=US", "ST=CA", "L=SF", "O=Joyent", "OU=Node.js")
_RY = "emailAddress=ry@tinyclouds.org"
_FOUNDATION = ("C=US", "ST=CA", "L=SF", "O=The Node.js Foundation", "OU=Node.js")
_ADAM = ("C=HU", "L=Budapest", "O=Tresorit", "CN=Ádám Lippai", "emailAddress=adam.lippai@tresorit.com")
_LOCALHOST = ("C=UK", "O=node.js", "OU=Test TLS Certificate", "OU=Engineering", "CN=localhost")


@dataclasses.dataclass(frozen=True)
class _Role:
    """What a party's certificate says.

    Attributes:
        subject: Its name.
        issuer: Who has signed it; None is itself.
        key_type: Its key.
        ca: Whether it may sign others.
        shows: Whose certificates stand behind its own in its file.
        extensions: What else its certificate says.
    """

    subject: tuple[str, ...]
    issuer: str | None = None
    key_type: Literal["RSA", "EC"] = "RSA"
    ca: bool = False
    shows: tuple[str, ...] = ()
    extensions: tuple[x509.ExtensionType, ...] = ()


_CLIENT_ONLY = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),)
_ROLES = {
    "ca1": _Role((*_JOYENT, "CN=ca1", _RY), ca=True),
    "ca2": _Role((*_JOYENT, "CN=ca2", _RY), ca=True),
    "ca3": _Role((*_JOYENT, "CN=ca3", _RY), "ca1", ca=True),
    "ca4": _Role((*_FOUNDATION, "CN=ca4", "emailAddress=ca4@example.org"), "ca2", ca=True),
    "ca5": _Role((*_FOUNDATION, "CN=ca5", "emailAddress=ca5@example.org"), key_type="EC", ca=True),
    "ca6": _Role((*_FOUNDATION, "CN=ca6", "emailAddress=ca6@example.org"), "ca5", key_type="EC", ca=True),
    "agent1": _Role((*_JOYENT, "CN=agent1", _RY), "ca1", extensions=(_ACCESS,)),
    "agent2": _Role((*_JOYENT, "CN=agent2", _RY)),
    "agent3": _Role((*_JOYENT, "CN=agent3", _RY), "ca2"),
    "agent4": _Role((*_JOYENT, "CN=agent4", _RY), "ca2", extensions=_CLIENT_ONLY),
    "agent5": _Role(_ADAM, "ca2", extensions=_CLIENT_ONLY),
    "agent6": _Role(_ADAM, "ca3", shows=("ca3",)),
    "agent10": _Role((*_FOUNDATION, "CN=agent10.example.com"), "ca4", shows=("ca4",)),
    "ec10": _Role((*_FOUNDATION, "CN=agent10.example.com"), "ca6", key_type="EC", shows=("ca6",)),
    "ec": _Role((*_JOYENT, "CN=agent2", _RY), key_type="EC"),
    "rsa_cert": _Role((*_LOCALHOST, "emailAddress=alex@aub.dev"), ca=True),
}


@dataclasses.dataclass(frozen=True)
class Party:
    """A private key and what goes with it.

    Attributes:
        name: Node's name for it.
        key: The private key; as an object it is not parsed for each context.
        certificate: Its certificate.
        shown: The certificates that stand behind its own in its file, without a root.
    """

    name: str
    key: PrivateKey
    certificate: x509.Certificate
    shown: tuple[x509.Certificate, ...]

    @property
    def key_pem(self) -> bytes:
        """The private key, PEM."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def single(self) -> bytes:
        """Its own certificate, PEM; of an authority: what to trust."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def cert(self) -> bytes:
        """Its file: its certificate and its intermediates, PEM."""
        return self.single + b"".join(each.public_bytes(Encoding.PEM) for each in self.shown)

    @property
    def options(self) -> dict[str, Any]:
        """What a `SecureContext` needs to present it."""
        return {"key": self.key, "cert": self.cert}

    def pfx(self, passphrase: bytes, *authorities: str) -> bytes:
        """Return it as PKCS#12, with its intermediates and these authorities."""
        return pkcs12.serialize_key_and_certificates(
            self.name.encode(),
            self.key,
            self.certificate,
            [*self.shown, *(party(name).certificate for name in authorities)],
            BestAvailableEncryption(passphrase),
        )


@functools.cache
def party(name: str) -> Party:
    """Return an authority or an agent, the same one each time."""
    role = _ROLES[name]
    key: PrivateKey = (
        ec.generate_private_key(ec.SECP256R1())
        if role.key_type == "EC"
        else rsa.generate_private_key(65537, 2048)
    )
    issuer = None if role.issuer is None else party(role.issuer)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(role.subject))
        .issuer_name(_named(role.subject) if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
    )
    if role.ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    for extension in role.extensions:
        builder = builder.add_extension(extension, critical=False)
    certificate = builder.sign(key if issuer is None else issuer.key, SHA256())
    return Party(name, key, certificate, tuple(party(each).certificate for each in role.shows))


def agent(name: str, *trusted: str, **options: Any) -> dict[str, Any]:
    """Return the options of a context that shows an agent's certificate and trusts these authorities."""
    return {**party(name).options, **({"ca": trust(*trusted)} if trusted else {}), **options}


def trust(*names: str) -> list[bytes]:
    """Return the certificates of authorities, PEM: a context's ``ca``."""
    return [party(name).single for name in names]


@functools.cache
def crl(issuer: str, *revoked: str) -> bytes:
    """Return an authority's list of revoked agents, PEM."""
    authority = party(issuer)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(_NOT_BEFORE)
        .next_update(_NOT_AFTER)
    )
    for name in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(party(name).certificate.serial_number)
            .revocation_date(_NOT_BEFORE)
            .build()
        )
    return builder.sign(authority.key, SHA256()).public_bytes(Encoding.PEM)


def _named(attributes: tuple[str, ...]) -> x509.Name:
    named = (attribute.partition("=") for attribute in attributes)
    return x509.Name([x509.NameAttribute(_ATTRIBUTES[kind], value) for kind, _, value in named])
