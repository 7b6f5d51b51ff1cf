"""ConnectionInfo: what a handshake negotiated, as one frozen value."""

from __future__ import annotations

import base64
import dataclasses
from typing import TYPE_CHECKING, Any, Final, Literal

from .errors import CertificateError
from .html_table import few, html_fields, html_line, html_table
from .iana import CIPHER_SUITES, VERSIONS

if TYPE_CHECKING:
    from .certificates import Certificate

_SUITE_NUMBERS: Final = {name: number for number, name in CIPHER_SUITES.items()}
_VERSION_NUMBERS: Final = {name: number for number, name in VERSIONS.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Cipher:
    """A cipher suite, as Node's ``getCipher()`` shows it.

    Attributes:
        name: OpenSSL's name ("ECDHE-RSA-AES128-GCM-SHA256").
        standard_name: IANA's name ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256").
        version: The least protocol version that has the suite, as OpenSSL spells it ("TLSv1.2").
        secret_bits: The strength of its encryption, in bits.
    """

    name: str
    standard_name: str
    version: str
    secret_bits: int

    def _html_line_(self) -> str:
        return html_line(self.standard_name, f"{self.secret_bits} bits")

    def _repr_html_(self) -> str:
        return html_fields(self)


@dataclasses.dataclass(frozen=True, slots=True)
class EphemeralKey:
    """The keys of a key exchange, made for it alone, as Node's ``getEphemeralKeyInfo()`` shows them.

    Attributes:
        type: "DH", "ECDH", or "KEM" for post-quantum groups, hybrids included.
        name: The group, as OpenSSL calls it ("X25519", "prime256v1", "X25519MLKEM768"); None for "DH".
        size: The size of a key in bits; of a KEM its parameter (768 for "X25519MLKEM768").
    """

    type: Literal["DH", "ECDH", "KEM"]
    name: str | None
    size: int

    def _html_line_(self) -> str:
        return html_line(self.name or self.type, f"{self.type}, {self.size}")

    def _repr_html_(self) -> str:
        return html_fields(self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionInfo:
    """What was negotiated: there once the handshake is done, and readable for ever.

    Attributes:
        protocol: "TLSv1.2", "TLSv1.3" ...
        cipher: The cipher suite.
        ephemeral_key: The group of the key exchange; None where the keys were exchanged without one, as by
            RSA or a pre-shared key alone.
        shared_signature_algorithms: On a server: the signature algorithms that both sides have, as OpenSSL
            and Node call them ("RSA-PSS+SHA256"); the server's favourite first, or with
            ``honor_cipher_order=False`` the client's.  Empty on a client.
        alpn_protocol: The application protocol, or None where none was negotiated (Node: ``false``).
        server_name: The name that the client sent as SNI, or None (Node: ``false``).
        authorized: On a client: the server's chain and name are verified.  On a server: a client
            certificate was asked for, presented and verified.  On both, a pre-shared key stands in for the
            certificate.
        authorization_error: Why not, if the peer was to be verified and was not refused; else None.
        session_reused: Whether the handshake resumed an earlier session; as in Node, also where a
            pre-shared key of TLS 1.3 was used.
        psk_identity: The identity of the pre-shared key that was used, be it where the session that is
            resumed was made; or None.
        certificate: Our own certificate, if one was used.
        peer_certificate: The peer's certificate, if it presented one; its issuers are linked to it, up to the
            root if that is known.
        peer_certificate_chain: The certificates that the peer sent, its own first.
        verified_chain: The chain from the peer's certificate to a trusted one; empty if there is none.
        early_data_accepted: Whether early data was accepted; None where none was sent.
        ocsp_response: On a client: the OCSP response that the server has stapled, DER, or None.
    """

    protocol: str
    cipher: Cipher
    ephemeral_key: EphemeralKey | None
    shared_signature_algorithms: tuple[str, ...]
    alpn_protocol: str | None
    server_name: str | None
    authorized: bool
    authorization_error: CertificateError | None
    session_reused: bool
    psk_identity: str | None
    certificate: Certificate | None
    peer_certificate: Certificate | None
    peer_certificate_chain: tuple[Certificate, ...]
    verified_chain: tuple[Certificate, ...]
    ocsp_response: bytes | None
    early_data_accepted: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as what JSON has.

        The keys are the names of the attributes, here and of `Cipher` and `EphemeralKey`.  Certificates are
        as `Certificate.to_dict` has them, the error as `TLSError.to_dict`; the OCSP response is in Base64.
        """
        facts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        error, response, key = self.authorization_error, self.ocsp_response, self.ephemeral_key
        return facts | {
            "cipher": dataclasses.asdict(self.cipher),
            "ephemeral_key": None if key is None else dataclasses.asdict(key),
            "shared_signature_algorithms": list(self.shared_signature_algorithms),
            "authorization_error": None if error is None else error.to_dict(),
            "certificate": self.certificate and self.certificate.to_dict(),
            "peer_certificate": self.peer_certificate and self.peer_certificate.to_dict(),
            "peer_certificate_chain": [item.to_dict() for item in self.peer_certificate_chain],
            "verified_chain": [item.to_dict() for item in self.verified_chain],
            "ocsp_response": None if response is None else base64.b64encode(response).decode("ascii"),
        }

    def asgi_extension(self) -> dict[str, Any]:
        """Return what belongs into ``scope["extensions"]["tls"]`` of an ASGI server.

        The keys are those of https://asgi.readthedocs.io/en/latest/specs/tls.html.  ``client_cert_name`` is
        also None if the subject of the client's certificate is damaged.
        """
        certificate, error = self.peer_certificate, self.authorization_error
        return {
            "server_cert": self.certificate and self.certificate.pem,
            "client_cert_chain": [item.pem for item in self.peer_certificate_chain],
            "client_cert_name": certificate and _rfc4514_name(certificate),
            # A client without certificate has none that could be wrong.
            "client_cert_error": f"{error.reason} [{error.code}]" if error and certificate else None,
            "tls_version": _VERSION_NUMBERS.get(self.protocol),
            "cipher_suite": _SUITE_NUMBERS.get(self.cipher.standard_name),
        }

    def _repr_html_(self) -> str:
        facts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        facts["shared_signature_algorithms"] = few(self.shared_signature_algorithms)
        if self.ocsp_response is not None:
            facts["ocsp_response"] = f"{len(self.ocsp_response)} bytes"
        if self.authorized:
            return html_table("ConnectionInfo", facts, badge="authorized", tone="good")
        badge = "" if self.authorization_error is None else "not authorized"
        return html_table("ConnectionInfo", facts, badge=badge, tone="bad")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatistics:
    """How many bytes have passed through a stream (Node's ``bytesRead`` and ``bytesWritten``).

    Attributes:
        plaintext_sent: Encrypted for the peer.
        plaintext_received: Decrypted from the peer.
        ciphertext_sent: Given to the transport, handshake and overhead included.
        ciphertext_received: Taken from the transport, handshake and overhead included.
    """

    plaintext_sent: int
    plaintext_received: int
    ciphertext_sent: int
    ciphertext_received: int

    def _repr_html_(self) -> str:
        return html_fields(self)


def _rfc4514_name(certificate: Certificate) -> str | None:
    try:
        return certificate.x509.subject.rfc4514_string()
    except (CertificateError, ValueError):
        return None
