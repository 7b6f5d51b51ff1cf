"""Two engines connected in memory, and identities for them: handshakes without an event loop."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import json
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from trio_tlsnode import ConnectionFailed, ConnectionInfo, Engine, SecureContext
from trio_tlsnode.der import SEQUENCE, elements, encoded
from trio_tlsnode.testing import default_authority

Kind = Literal["EC", "RSA", "RSA-PSS", "Ed25519", "Ed448", "RSA-1024", "RSA-512"]

# Flights that any handshake needs, with some to spare.
MOST_FLIGHTS = 8

BIT_STRING = 0x03
RSASSA_PSS = bytes.fromhex("06092a864886f70d01010a")
# Two primes of 256 bits each: no library makes keys as small as that any more.
P = 0xE491E51789A41D67EA3840B0E1B67B9AB71ED5F1EAEA6F479461D6C6A991CB0B
Q = 0xDDF0C25B15F0A0C947E1823A8FD6C1D4A09AD23C342F050162DDB8111C358C7D


def node_table(name: str) -> Any:
    """Return what Node.js does, as data."""
    return json.loads((Path(__file__).parent / "data" / "node" / f"{name}.json").read_text(encoding="utf-8"))


@functools.cache
def identity(kind: Kind = "EC") -> dict[str, Any]:
    """Return the options of a server for "localhost", with a key of this kind, that is trusted by `CA`.

    The key is an object, as reading one of RSA takes longer than a handshake.
    """
    if kind in ("EC", "RSA"):
        leaf = default_authority().good("localhost", key_type="RSA" if kind == "RSA" else "EC")
        return {"key": load_pem_private_key(leaf.key, None), "cert": leaf.cert}
    key = _private_key(kind)
    return {"key": key, "cert": _issue("localhost", key, rsa_pss=kind == "RSA-PSS")}


def _private_key(kind: Kind) -> CertificateIssuerPrivateKeyTypes:
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "Ed448":
        return ed448.Ed448PrivateKey.generate()
    if kind == "RSA-512":
        public = rsa.RSAPublicNumbers(65537, P * Q)
        d = pow(65537, -1, (P - 1) * (Q - 1))
        crt = rsa.rsa_crt_dmp1(d, P), rsa.rsa_crt_dmq1(d, Q), rsa.rsa_crt_iqmp(P, Q)
        return rsa.RSAPrivateNumbers(P, Q, d, *crt, public).private_key()
    return rsa.generate_private_key(65537, 1024 if kind == "RSA-1024" else 2048)


@functools.cache
def _root_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _issue(
    name: str, key: CertificateIssuerPrivateKeyTypes, *, rsa_pss: bool = False, ca: bool = False
) -> bytes:
    """Return a certificate signed by the root key, PEM."""
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(_root_key(), SHA256())
    )
    if rsa_pss:
        certificate = x509.load_der_x509_certificate(
            _with_rsa_pss_key(certificate.public_bytes(Encoding.DER))
        )
    return certificate.public_bytes(Encoding.PEM)


def _with_rsa_pss_key(certificate: bytes) -> bytes:
    """Return a certificate whose RSA key is for PSS alone (RFC 4055), signed anew; no library makes one."""
    [(_, content)] = elements(certificate)
    (_, signed), algorithm, _ = elements(content)
    fields = elements(signed)
    (at,) = [
        index
        for index, (_, field) in enumerate(fields)
        if b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01" in field[:20]
    ]
    _, (_, public_key) = elements(fields[at][1])
    fields[at] = (SEQUENCE, encoded(SEQUENCE, RSASSA_PSS) + encoded(BIT_STRING, public_key))
    tbs = encoded(SEQUENCE, b"".join(encoded(*field) for field in fields))
    signature = _root_key().sign(tbs, ec.ECDSA(SHA256()))
    return encoded(SEQUENCE, tbs + encoded(*algorithm) + encoded(BIT_STRING, b"\0" + signature))


CA = [default_authority().ca, _issue("root", _root_key(), ca=True)]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a handshake ended.

    Attributes:
        client: What the client knows of it, if it is done.
        server: What the server knows of it, if it is done.
        client_error: Why it failed, as the client has it.
        server_error: Why it failed, as the server has it.
        server_flight: All that the server sent.
    """

    client: ConnectionInfo | None
    server: ConnectionInfo | None
    client_error: ConnectionFailed | None
    server_error: ConnectionFailed | None
    server_flight: bytes

    @property
    def info(self) -> ConnectionInfo:
        """What the client knows of a handshake that is done on both sides."""
        assert (self.client_error, self.server_error) == (None, None)
        assert self.client is not None
        assert self.server is not None
        assert self.client.cipher == self.server.cipher
        return self.client

    @property
    def codes(self) -> tuple[str | None, str | None]:
        """The codes of the errors on the client and on the server."""
        client, server = (
            None if error is None else error.code for error in (self.client_error, self.server_error)
        )
        return client, server


def shake_hands(client: SecureContext, server: SecureContext, **options: Any) -> Outcome:
    """Do a handshake.

    Args:
        client: The client's context.
        server: The server's context.
        options: Further options of the client's engine.
    """
    engines = [Engine(client, **options), Engine(server, server_side=True)]
    errors: list[ConnectionFailed | None] = [None, None]
    server_flight = b""
    for _ in range(MOST_FLIGHTS):
        for side in (0, 1):
            try:
                engines[side].do_handshake()
            except ConnectionFailed as error:
                errors[side] = errors[side] or error
            if output := engines[side].drain():
                engines[1 - side].feed(output)
                server_flight += output if side else b""
    return Outcome(engines[0].info, engines[1].info, errors[0], errors[1], server_flight)


def client(**options: Any) -> SecureContext:
    """Return a client's context that trusts `CA`."""
    return SecureContext(**{"ca": CA, **options})


def server(kind: Kind = "EC", **options: Any) -> SecureContext:
    """Return a server's context for "localhost", with a key of this kind."""
    return SecureContext(**identity(kind), **options)
