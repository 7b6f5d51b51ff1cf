"""Authority: a certificate authority for tests, which makes good certificates and every kind of bad one.

Keys and certificates are made in memory and anew for each authority, so nothing in a repository expires.
trustme makes the authority and its ordinary certificates.  It makes no faulty ones: those are what it made,
with one fault put in, and signed again by means of `cryptography`.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import ipaddress
import textwrap
from collections.abc import Collection
from pathlib import Path
from typing import Final, Literal, TypedDict

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, ExtensionOID

try:
    import trustme
except ImportError as missing:
    raise ImportError("the test kit needs trustme: pip install 'trio-tlsnode[testing]'") from missing

from ..certificates import Certificate

KeyType = Literal["EC", "RSA"]
OCSPStatus = Literal["good", "revoked", "unknown"]
UnsuccessfulStatus = Literal[
    "malformed_request", "internal_error", "try_later", "sig_required", "unauthorized"
]

_OCSP_STATUS: Final = {
    "good": ocsp.OCSPCertStatus.GOOD,
    "revoked": ocsp.OCSPCertStatus.REVOKED,
    "unknown": ocsp.OCSPCertStatus.UNKNOWN,
}
_RESPONDER_ID: Final = {"name": ocsp.OCSPResponderEncoding.NAME, "key": ocsp.OCSPResponderEncoding.HASH}

_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
_KEY_TYPES: Final = {"EC": trustme.KeyType.ECDSA, "RSA": trustme.KeyType.RSA}

# Between these, trustme's authorities and certificates are valid.
_BEGINNING: Final = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_END: Final = dt.datetime(3000, 1, 1, tzinfo=dt.UTC)
_DAY: Final = dt.timedelta(days=1)

# So many intermediates OpenSSL follows unless it is told otherwise.
_DEFAULT_DEPTH: Final = 100


class CredentialOptions(TypedDict):
    """The options of a `SecureContext` by which it presents a certificate."""

    key: bytes
    cert: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A private key and the certificate chain that goes with it.

    Attributes:
        key: The private key, PEM (PKCS#8, not encrypted).
        cert: The chain, PEM: the certificate itself, then the intermediates, without the root.
    """

    key: bytes = dataclasses.field(repr=False)
    cert: bytes

    @property
    def options(self) -> CredentialOptions:
        """What a context needs to present this certificate: ``SecureContext(**leaf.options)``."""
        return {"key": self.key, "cert": self.cert}

    @property
    def intermediates(self) -> bytes:
        """The chain without the certificate itself, PEM; empty where the root has signed it.

        Who trusts these and not the root gets UNABLE_TO_GET_ISSUER_CERT, unless partial chains are allowed.
        """
        return self.cert.partition(b"-----END CERTIFICATE-----\n")[2]

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate itself as `cryptography` sees it.

        Raises:
            ValueError: `cryptography` cannot parse it, as with `Authority.unreadable_date`.
        """
        return x509.load_pem_x509_certificate(self.cert)

    def _repr_html_(self) -> str:
        blocks = self.cert.split(b"-----BEGIN CERTIFICATE-----")[1:]
        ders = [base64.b64decode(block.partition(b"-----END")[0]) for block in blocks]
        return Certificate.chain(ders)._repr_html_()

    def write_to(self, folder: Path) -> tuple[Path, Path]:
        """Write the key and the chain into a folder, for peers that want files.

        Args:
            folder: Where ``key.pem`` (mode 0600) and ``cert.pem`` go.  It is made if it is missing.

        Returns:
            The paths of the key and of the chain.
        """
        folder.mkdir(parents=True, exist_ok=True)
        key_path, cert_path = folder / "key.pem", folder / "cert.pem"
        key_path.unlink(missing_ok=True)
        key_path.touch(mode=0o600)
        key_path.write_bytes(self.key)
        cert_path.write_bytes(self.cert)
        return key_path, cert_path


class Authority:
    """A certificate authority for tests.

    `good`, `client` and `must_staple` issue what those accept who trust `ca`.  Each other method makes a
    certificate, a revocation list or an OCSP response with one fault, and names the result of verifying it:
    OpenSSL's ``X509_V_ERR_`` name of the first error.  A verifier that goes on after an error, as Node.js
    does, may report a later one.  The results of OCSP responses are those of `trio_tlsnode`.

    Names are what trustme takes: DNS names ("localhost", ``"*.example.com"``), IP addresses ("::1"), networks
    and e-mail addresses.  They become subject alternative names.  To give none is a ValueError.

    Args:
        now: The time to which "expired" and "not yet valid" refer; by default the present.  Whatever has no
            fault in its dates is valid from 2000 to 3000.
        key_type: The keys of the authority and, unless told otherwise, of its certificates: "EC" (P-256, made
            quickly) or "RSA" (2048 bits).

    Raises:
        ValueError: `now` has no time zone, or is not between 2000 and 3000.
    """

    def __init__(self, *, now: dt.datetime | None = None, key_type: KeyType = "EC") -> None:
        if now is None:
            now = dt.datetime.now(dt.UTC)
        elif now.tzinfo is None:
            raise ValueError("now must have a time zone")
        if not _BEGINNING + _DAY < now < _END - _DAY:
            raise ValueError(f"now must be between the years 2000 and 3000, not {now}")
        self._now = now
        self._key_type: KeyType = key_type
        # The root, then the intermediates that were needed so far, each signed by the one before it.
        self._line = [trustme.CA(path_length=_DEFAULT_DEPTH + 1, key_type=_KEY_TYPES[key_type])]
        self._revoked: dict[x509.Certificate, x509.ReasonFlags | None] = {}

    @property
    def ca(self) -> bytes:
        """The root certificate, PEM: what to trust."""
        return self._line[0].cert_pem.bytes()

    # Without fault

    def good(
        self,
        *names: str,
        intermediates: int = 0,
        key_type: KeyType | None = None,
        ocsp_url: str | None = None,
    ) -> IssuedCertificate:
        """Issue a certificate without fault, for servers and for clients.

        Args:
            names: Whom it is for.
            intermediates: How many of them stand between it and the root.
            key_type: Its key; by default the authority's type.
            ocsp_url: Where its OCSP responder is, if it shall name one.
        """
        issuer = self._issuer(intermediates)
        issued = self._issue(issuer, *names, key_type=key_type)
        return issued if ocsp_url is None else _with_optional(issued, issuer, _access(ocsp_url))

    def must_staple(
        self, *names: str, intermediates: int = 0, ocsp_url: str | None = None
    ) -> IssuedCertificate:
        """Issue a certificate that must come with an OCSP response (RFC 7633): without, OCSP_NO_RESPONSE.

        Args:
            names: Whom it is for.
            intermediates: How many of them stand between it and the root.
            ocsp_url: Where its OCSP responder is, if it shall name one.
        """
        feature = x509.TLSFeature([x509.TLSFeatureType.status_request])
        issued = self.good(*names, intermediates=intermediates, ocsp_url=ocsp_url)
        return _with_optional(issued, self._issuer(intermediates), feature)

    def client(self, common_name: str, *names: str, intermediates: int = 0) -> IssuedCertificate:
        """Issue a certificate without fault, for clients alone.

        Args:
            common_name: Whom it is for ("alice"): the common name of its subject.
            names: Its subject alternative names, if it shall have any.
            intermediates: How many of them stand between it and the root.
        """
        issuer = self._issuer(intermediates)
        issued = self._issue(issuer, *names, common_name=common_name)
        return _with_leaf(
            issued,
            _signed(
                issued.certificate,
                _private_key(issuer),
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
                without=() if names else (ExtensionOID.SUBJECT_ALTERNATIVE_NAME,),
            ),
        )

    # With a fault of its own

    def expired(self, *names: str) -> IssuedCertificate:
        """Issue a certificate that expired a day ago: CERT_HAS_EXPIRED.

        Args:
            names: Whom it is for.
        """
        return self._issue(self._line[0], *names, not_after=self._now - _DAY)

    def not_yet_valid(self, *names: str) -> IssuedCertificate:
        """Issue a certificate that becomes valid in a day: CERT_NOT_YET_VALID.

        Args:
            names: Whom it is for.
        """
        return self._issue(self._line[0], *names, not_before=self._now + _DAY)

    def wrong_name(self, *names: str, instead: str = "somebody-else.invalid") -> IssuedCertificate:
        """Issue a certificate for somebody else: HOSTNAME_MISMATCH, where OpenSSL is asked to check the name.

        Args:
            names: Whom it is not for.
            instead: Whom it is for.

        Raises:
            ValueError: `instead` is one of the names.
        """
        if instead in names:
            raise ValueError(f"a certificate for {instead!r} would have the right name")
        return self.good(instead)

    def wrong_purpose(self, *names: str, side: Literal["server", "client"] = "server") -> IssuedCertificate:
        """Issue a certificate that one side may not use: INVALID_PURPOSE.

        Args:
            names: Whom it is for.
            side: Who may not use it, and the other side may.
        """
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if side == "server" else ExtendedKeyUsageOID.SERVER_AUTH
        issued = self.good(*names)
        return _with_leaf(issued, _signed(issued.certificate, self._root_key, x509.ExtendedKeyUsage([usage])))

    def revoked(self, *names: str, intermediates: int = 0) -> IssuedCertificate:
        """Issue a certificate and revoke it: CERT_REVOKED, where the verifier is given `crl`.

        Args:
            names: Whom it is for.
            intermediates: How many of them stand between it and the root.
        """
        issued = self.good(*names, intermediates=intermediates)
        self.revoke(issued)
        return issued

    def weak_key(self, *names: str) -> IssuedCertificate:
        """Issue a certificate for a key of 1024-bit RSA: EE_KEY_TOO_SMALL, from security level 2 on.

        Who presents it needs a lower level ("DEFAULT@SECLEVEL=1" among the ciphers).

        Args:
            names: Whom it is for.
        """
        key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - the fault
        issued = self.good(*names)
        certificate = _signed(issued.certificate, self._root_key, public_key=key.public_key())
        return _with_leaf(IssuedCertificate(_pkcs8(key), issued.cert), certificate)

    def unknown_critical_extension(self, *names: str) -> IssuedCertificate:
        """Issue a certificate with a critical extension that nobody knows: UNHANDLED_CRITICAL_EXTENSION.

        Args:
            names: Whom it is for.
        """
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.25.168237145205446"), b"\x05\x00")
        issued = self.good(*names)
        return _with_leaf(issued, _signed(issued.certificate, self._root_key, unknown))

    def bad_signature(self, *names: str) -> IssuedCertificate:
        """Issue a certificate whose signature is wrong in one bit: CERT_SIGNATURE_FAILURE.

        Args:
            names: Whom it is for.
        """
        issued = self.good(*names)
        return _with_leaf(
            issued, _pem("CERTIFICATE", _last_bit_flipped(issued.certificate.public_bytes(Encoding.DER)))
        )

    def unreadable_date(
        self, *names: str, field: Literal["not_before", "not_after"] = "not_after"
    ) -> IssuedCertificate:
        """Issue a certificate in which a date is none.

        The result is ERROR_IN_CERT_NOT_BEFORE_FIELD or ERROR_IN_CERT_NOT_AFTER_FIELD.  `cryptography` cannot
        parse such a certificate at all.

        Args:
            names: Whom it is for.
            field: Which date.
        """
        date = _encoded(_BEGINNING if field == "not_before" else _END)
        issued = self.good(*names)
        der = _patched(issued.certificate, date, _no_date(date), self._root_key)
        return _with_leaf(issued, _pem("CERTIFICATE", der))

    # With an issuer that is not to be trusted

    def self_signed(self, *names: str) -> IssuedCertificate:
        """Issue a certificate that its own key has signed: DEPTH_ZERO_SELF_SIGNED_CERT.

        Args:
            names: Whom it is for.
        """
        issued = self.good(*names)
        leaf = issued.certificate
        return _with_leaf(
            issued,
            _signed(
                leaf,
                _load_key(issued.key),
                issuer=leaf.subject,
                without=(ExtensionOID.AUTHORITY_KEY_IDENTIFIER,),
            ),
        )

    def untrusted(self, *names: str, intermediates: int = 0) -> IssuedCertificate:
        """Issue a certificate of an authority that nobody knows: UNABLE_TO_GET_ISSUER_CERT_LOCALLY.

        Without intermediates a verifier that goes on ends with UNABLE_TO_VERIFY_LEAF_SIGNATURE.

        Args:
            names: Whom it is for.
            intermediates: How many of them stand between it and the unknown root.
        """
        return self._stranger().good(*names, intermediates=intermediates)

    def untrusted_root(self, *names: str) -> IssuedCertificate:
        """Issue a certificate of an unknown authority with its root in the chain: SELF_SIGNED_CERT_IN_CHAIN.

        Args:
            names: Whom it is for.
        """
        stranger = self._stranger()
        issued = stranger.good(*names)
        return dataclasses.replace(issued, cert=issued.cert + stranger.ca)

    def missing_intermediate(self, *names: str) -> IssuedCertificate:
        """Issue a certificate without its intermediate in the chain: UNABLE_TO_GET_ISSUER_CERT_LOCALLY.

        A verifier that goes on ends with UNABLE_TO_VERIFY_LEAF_SIGNATURE.

        Args:
            names: Whom it is for.
        """
        return self._issue(self._issuer(1), *names, chain=b"")

    def expired_intermediate(self, *names: str) -> IssuedCertificate:
        """Issue a certificate below an intermediate that expired a day ago: CERT_HAS_EXPIRED, at depth 1.

        Args:
            names: Whom it is for.
        """
        issuer = self._issuer(1)
        chain = _signed(_certificate(issuer), self._root_key, not_after=self._now - _DAY)
        return self._issue(issuer, *names, chain=chain)

    def invalid_ca(self, *names: str) -> IssuedCertificate:
        """Issue a certificate below one that is no authority: INVALID_CA.

        Args:
            names: Whom it is for.
        """
        issuer = self._issuer(1)
        no_authority = x509.BasicConstraints(ca=False, path_length=None)
        return self._issue(issuer, *names, chain=_signed(_certificate(issuer), self._root_key, no_authority))

    def path_length_exceeded(self, *names: str) -> IssuedCertificate:
        """Issue a certificate below an intermediate that must have none below it: PATH_LENGTH_EXCEEDED.

        Args:
            names: Whom it is for.
        """
        last = trustme.CA(parent_cert=self._line[0], path_length=0)
        one_more = trustme.CA(parent_cert=last, path_length=0)
        return self._issue(one_more, *names)

    def chain_too_long(self, *names: str) -> IssuedCertificate:
        """Issue a certificate below more intermediates than OpenSSL follows by default: CERT_CHAIN_TOO_LONG.

        Args:
            names: Whom it is for.
        """
        issuer = self._line[0]
        for _ in range(_DEFAULT_DEPTH + 1):
            issuer = issuer.create_child_ca()
        return self._issue(issuer, *names)

    def name_not_permitted(self, *names: str) -> IssuedCertificate:
        """Issue a certificate below an intermediate that may vouch for others only: PERMITTED_VIOLATION.

        Args:
            names: Whom it is for.
        """
        issuer = self._issuer(1)
        others = x509.NameConstraints(
            permitted_subtrees=[
                x509.DNSName("somebody-else.invalid"),
                x509.RFC822Name("somebody-else.invalid"),
                x509.IPAddress(ipaddress.ip_network("192.0.2.1/32")),
            ],
            excluded_subtrees=None,
        )
        return self._issue(issuer, *names, chain=_signed(_certificate(issuer), self._root_key, others))

    # Revocation

    def revoke(self, issued: IssuedCertificate, *, reason: x509.ReasonFlags | None = None) -> None:
        """Revoke a certificate of this authority, by the lists and OCSP responses that are made from now on.

        Args:
            issued: The certificate.
            reason: Why, if they shall say so.

        Raises:
            ValueError: the certificate is of another authority.
        """
        self._issuer_of(issued)
        self._revoked[issued.certificate] = reason

    def crl(self) -> bytes:
        """Make the revocation lists of the root and of each intermediate so far, PEM, one after the other.

        Who has only the lists of another authority gets UNABLE_TO_GET_CRL.
        """
        return b"".join(self._crl(issuer).public_bytes(Encoding.PEM) for issuer in self._line)

    def expired_crl(self) -> bytes:
        """Make the lists of `crl`, to be replaced a day ago: CRL_HAS_EXPIRED."""
        lists = (self._crl(issuer, next_update=self._now - _DAY) for issuer in self._line)
        return b"".join(crl.public_bytes(Encoding.PEM) for crl in lists)

    def not_yet_valid_crl(self) -> bytes:
        """Make the lists of `crl`, valid in a day: CRL_NOT_YET_VALID."""
        lists = (self._crl(issuer, last_update=self._now + _DAY) for issuer in self._line)
        return b"".join(crl.public_bytes(Encoding.PEM) for crl in lists)

    def bad_signature_crl(self) -> bytes:
        """Make the lists of `crl`, with signatures that are wrong in one bit: CRL_SIGNATURE_FAILURE."""
        lists = (self._crl(issuer).public_bytes(Encoding.DER) for issuer in self._line)
        return b"".join(_pem("X509 CRL", _last_bit_flipped(der)) for der in lists)

    def unreadable_date_crl(self, field: Literal["last_update", "next_update"] = "next_update") -> bytes:
        """Make the lists of `crl`, with a date that is none.

        The result is ERROR_IN_CRL_LAST_UPDATE_FIELD or ERROR_IN_CRL_NEXT_UPDATE_FIELD.  `cryptography` cannot
        parse such a list at all.

        Args:
            field: Which date.
        """
        date = _encoded(_BEGINNING if field == "last_update" else _END)
        patched = (
            _patched(self._crl(issuer), date, _no_date(date), _private_key(issuer)) for issuer in self._line
        )
        return b"".join(_pem("X509 CRL", der) for der in patched)

    # OCSP

    def ocsp_response(
        self,
        issued: IssuedCertificate,
        *,
        status: OCSPStatus | None = None,
        responder: IssuedCertificate | Literal["issuer", "delegate"] = "issuer",
        named_by: Literal["name", "key"] = "name",
        algorithm: HashAlgorithm | None = None,
        this_update: dt.datetime = _BEGINNING,
        next_update: dt.datetime | None = _END,
    ) -> bytes:
        """Make an OCSP response to a certificate, DER.

        Args:
            issued: The certificate.
            status: What it says: CERT_REVOKED and OCSP_CERT_UNKNOWN are the results of "revoked" and
                "unknown".  None is "revoked" after `revoke`, else "good".
            responder: Who signs it: the certificate's issuer; one whom the issuer has certified for that; or
                the owner of this certificate and key.
            named_by: How it names who has signed it.
            algorithm: The hash by which it names the certificate's issuer; None is SHA-1, as all do.
            this_update: From when it is.
            next_update: When the next one is due; None if it shall not say so.

        Raises:
            ValueError: the certificate is of another authority.
        """
        certificate, issuer = issued.certificate, _certificate(self._issuer_of(issued))
        if responder == "issuer":
            signer = _with_key(self._issuer_of(issued))
        else:
            signer = self._delegate(issued) if responder == "delegate" else responder
        if status is None:
            status = "revoked" if certificate in self._revoked else "good"
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                certificate,
                issuer,
                algorithm or SHA1(),  # noqa: S303 - it only names the issuer
                _OCSP_STATUS[status],
                this_update,
                next_update,
                revocation_time=self._now - _DAY if status == "revoked" else None,
                revocation_reason=self._revoked.get(certificate) if status == "revoked" else None,
            )
            .responder_id(_RESPONDER_ID[named_by], signer.certificate)
        )
        if signer.certificate != issuer:
            builder = builder.certificates([signer.certificate])
        return builder.sign(_load_key(signer.key), SHA256()).public_bytes(Encoding.DER)

    def expired_ocsp_response(self, issued: IssuedCertificate) -> bytes:
        """Make a response that was to be replaced a day ago: OCSP_HAS_EXPIRED.

        Args:
            issued: The certificate.
        """
        return self.ocsp_response(issued, next_update=self._now - _DAY)

    def not_yet_valid_ocsp_response(self, issued: IssuedCertificate) -> bytes:
        """Make a response that is of tomorrow: OCSP_NOT_YET_VALID.

        Args:
            issued: The certificate.
        """
        return self.ocsp_response(issued, this_update=self._now + _DAY)

    def bad_signature_ocsp_response(self, issued: IssuedCertificate) -> bytes:
        """Make a response whose signature is wrong in one bit: OCSP_SIGNATURE_FAILURE.

        Args:
            issued: The certificate.
        """
        return _last_bit_flipped(self.ocsp_response(issued))

    def unauthorized_ocsp_response(
        self,
        issued: IssuedCertificate,
        *,
        responder: Literal["stranger", "without purpose", "expired"] = "stranger",
    ) -> bytes:
        """Make a response by somebody who may not: OCSP_RESPONDER_UNAUTHORIZED.

        Args:
            issued: The certificate.
            responder: Who signs it: another authority; or one whom the issuer has certified, but not for
                OCSP; or for OCSP, until a day ago.
        """
        if responder == "stranger":
            signer = self._stranger().ca_with_key()
        elif responder == "expired":
            signer = self._delegate(issued, not_after=self._now - _DAY)
        else:
            signer = self._delegate(issued, ExtendedKeyUsageOID.SERVER_AUTH)
        return self.ocsp_response(issued, responder=signer)

    def wrong_ocsp_response(self, issued: IssuedCertificate) -> bytes:
        """Make a response to another certificate of the same issuer: OCSP_WRONG_CERTIFICATE.

        Args:
            issued: The certificate that it is not for.
        """
        intermediates = self._line.index(self._issuer_of(issued))
        return self.ocsp_response(self.good("somebody-else.invalid", intermediates=intermediates))

    def unsuccessful_ocsp_response(self, status: UnsuccessfulStatus = "try_later") -> bytes:
        """Make a response in which the responder gives no answer: OCSP_RESP_INVALID.

        Args:
            status: Why not (RFC 6960, section 4.2.1).
        """
        reason = ocsp.OCSPResponseStatus[status.upper()]
        return ocsp.OCSPResponseBuilder.build_unsuccessful(reason).public_bytes(Encoding.DER)

    def ca_with_key(self, *, intermediates: int = 0) -> IssuedCertificate:
        """Return a certificate of the authority's own and its key, for responders such as ``openssl ocsp``.

        Args:
            intermediates: Which one: that of the root (0), or of its first (1) or a further intermediate.
        """
        return _with_key(self._issuer(intermediates))

    def index(self, *issued: IssuedCertificate) -> bytes:
        """Return the index file of ``openssl ca`` for some certificates: what ``openssl ocsp -index`` reads.

        Args:
            issued: The certificates that a responder shall know.

        Raises:
            ValueError: a certificate is of another authority.
        """
        return b"".join(map(self._index_line, issued))

    @property
    def _root_key(self) -> _PrivateKey:
        return _private_key(self._line[0])

    def _issuer(self, intermediates: int) -> trustme.CA:
        if intermediates < 0:
            raise ValueError(f"intermediates must be 0 or more, not {intermediates}")
        while len(self._line) <= intermediates:
            self._line.append(self._line[-1].create_child_ca(_KEY_TYPES[self._key_type]))
        return self._line[intermediates]

    def _issuer_of(self, issued: IssuedCertificate) -> trustme.CA:
        for issuer in self._line:
            if _certificate(issuer).subject == issued.certificate.issuer:
                return issuer
        raise ValueError("only its own authority can speak of a certificate")

    def _delegate(
        self,
        issued: IssuedCertificate,
        purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.OCSP_SIGNING,
        not_after: dt.datetime = _END,
    ) -> IssuedCertificate:
        issuer = self._issuer_of(issued)
        delegate = self._issue(issuer, "responder.invalid", not_after=not_after)
        usage = x509.ExtendedKeyUsage([purpose])
        return _with_leaf(delegate, _signed(delegate.certificate, _private_key(issuer), usage))

    def _stranger(self) -> Authority:
        return Authority(now=self._now, key_type=self._key_type)

    def _issue(
        self,
        issuer: trustme.CA,
        *names: str,
        common_name: str | None = None,
        not_before: dt.datetime = _BEGINNING,
        not_after: dt.datetime = _END,
        key_type: KeyType | None = None,
        chain: bytes | None = None,
    ) -> IssuedCertificate:
        """Issue by trustme.  `chain` is presented with the certificate instead of its intermediates."""
        issued = issuer.issue_cert(
            *names,
            common_name=common_name,
            not_before=not_before,
            not_after=not_after,
            key_type=_KEY_TYPES[key_type or self._key_type],
        )
        leaf, *intermediates = (blob.bytes() for blob in issued.cert_chain_pems)
        return IssuedCertificate(
            key=_pkcs8(_load_key(issued.private_key_pem.bytes())),
            cert=leaf + (b"".join(intermediates) if chain is None else chain),
        )

    def _crl(
        self,
        issuer: trustme.CA,
        *,
        last_update: dt.datetime = _BEGINNING,
        next_update: dt.datetime = _END,
    ) -> x509.CertificateRevocationList:
        certificate = _certificate(issuer)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(certificate.subject)
            .last_update(last_update)
            .next_update(next_update)
            .add_extension(x509.CRLNumber(len(self._revoked)), critical=False)
        )
        for revoked, reason in self._revoked.items():
            if revoked.issuer == certificate.subject:
                entry = x509.RevokedCertificateBuilder(revoked.serial_number, self._now - _DAY)
                if reason is not None:
                    entry = entry.add_extension(x509.CRLReason(reason), critical=False)
                builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(_private_key(issuer), SHA256())

    def _index_line(self, issued: IssuedCertificate) -> bytes:
        self._issuer_of(issued)
        certificate = issued.certificate
        number = f"{certificate.serial_number:X}"
        number = number.zfill(len(number) + len(number) % 2)
        flag, revoked = b"V", b""
        if certificate in self._revoked:
            flag, revoked = b"R", _digits(self._now - _DAY)
            if (reason := self._revoked[certificate]) is not None:
                revoked += f",{reason.value}".encode()
        until = _digits(certificate.not_valid_after_utc)
        return b"\t".join(
            (flag, until, revoked, number.encode(), b"unknown", f"/serialNumber={number}\n".encode())
        )


def _certificate(ca: trustme.CA) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ca.cert_pem.bytes())


def _private_key(ca: trustme.CA) -> _PrivateKey:
    return _load_key(ca.private_key_pem.bytes())


def _with_key(ca: trustme.CA) -> IssuedCertificate:
    return IssuedCertificate(_pkcs8(_private_key(ca)), ca.cert_pem.bytes())


def _load_key(pem: bytes) -> _PrivateKey:
    key = load_pem_private_key(pem, password=None)
    assert isinstance(key, _PrivateKey)
    return key


def _pkcs8(key: _PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _with_leaf(issued: IssuedCertificate, leaf: bytes) -> IssuedCertificate:
    return dataclasses.replace(issued, cert=leaf + issued.intermediates)


def _with_optional(
    issued: IssuedCertificate, issuer: trustme.CA, extension: x509.ExtensionType
) -> IssuedCertificate:
    """Return the certificate with an extension that who does not know it may ignore."""
    return _with_leaf(issued, _signed(issued.certificate, _private_key(issuer), extension, critical=False))


def _access(ocsp_url: str) -> x509.AuthorityInformationAccess:
    place = x509.UniformResourceIdentifier(ocsp_url)
    return x509.AuthorityInformationAccess(
        [x509.AccessDescription(AuthorityInformationAccessOID.OCSP, place)]
    )


def _signed(
    original: x509.Certificate,
    key: _PrivateKey,
    *extensions: x509.ExtensionType,
    issuer: x509.Name | None = None,
    public_key: rsa.RSAPublicKey | None = None,
    not_after: dt.datetime | None = None,
    without: Collection[x509.ObjectIdentifier] = (),
    critical: bool = True,
) -> bytes:
    """Return the certificate with some of its facts replaced, signed with the key, as PEM."""
    replaced = {*without, *(extension.oid for extension in extensions)}
    builder = x509.CertificateBuilder(
        issuer_name=issuer or original.issuer,
        subject_name=original.subject,
        public_key=public_key or original.public_key(),
        serial_number=original.serial_number,
        not_valid_before=original.not_valid_before_utc,
        not_valid_after=not_after or original.not_valid_after_utc,
        extensions=[extension for extension in original.extensions if extension.oid not in replaced],
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


# What no library will make is made from the bytes (DER, X.690).


def _patched(
    original: x509.Certificate | x509.CertificateRevocationList, old: bytes, new: bytes, key: _PrivateKey
) -> bytes:
    """Return the certificate or list with some bytes replaced by as many, signed with the key, as DER."""
    if isinstance(original, x509.Certificate):
        signed = original.tbs_certificate_bytes
    else:
        signed = original.tbs_certlist_bytes
    assert signed.count(old) == 1
    assert len(new) == len(old)
    _, _, algorithm = original.public_bytes(Encoding.DER).partition(signed)
    algorithm = algorithm[: 2 + algorithm[1]]  # a short SEQUENCE: two bytes, then as many as the second says
    patched = signed.replace(old, new)
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(patched, padding.PKCS1v15(), SHA256())
    else:
        signature = key.sign(patched, ec.ECDSA(SHA256()))
    return _der(0x30, patched + algorithm + _der(0x03, b"\0" + signature))


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content


def _encoded(date: dt.datetime) -> bytes:
    """Return the date as in certificates: UTCTime until 2049, then GeneralizedTime (RFC 5280, 4.1.2.5)."""
    if date.year < 2050:
        return _der(0x17, date.strftime("%y%m%d%H%M%SZ").encode())
    return _der(0x18, date.strftime("%Y%m%d%H%M%SZ").encode())


def _digits(date: dt.datetime) -> bytes:
    return _encoded(date)[2:]


def _no_date(date: bytes) -> bytes:
    """Return the encoded date with nines for its digits: month 99."""
    return date[:2] + b"9" * len(date[2:-1]) + date[-1:]


def _last_bit_flipped(der: bytes) -> bytes:
    """Return what is signed with another signature, whose last bit is the last of all."""
    return der[:-1] + bytes((der[-1] ^ 1,))


def _pem(label: str, der: bytes) -> bytes:
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", "")).encode()
