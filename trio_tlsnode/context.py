"""SecureContext: the options of a TLS endpoint, validated and frozen, from which connections are made."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import hashlib
import math
import weakref
from typing import Any, Final, Literal, NamedTuple, TypedDict, Unpack

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from . import ca_store
from ._openssl.cipher_list import parse_ciphers
from ._openssl.groups import check_groups, iana_name, is_curve_of_tls12
from ._openssl.ssl_ctx import VERIFY_NONE, VERIFY_PEER, VERSIONS, SSLContext
from .certificates import Certificate
from .client_hello import ClientHelloReader
from .credentials import (
    CertificateOption,
    Credentials,
    CrlOption,
    DHOption,
    KeyOption,
    Passphrase,
    PfxOption,
    RevocationList,
    TrustedOption,
    load_credentials,
    load_crls,
    load_dhparam,
)
from .defaults import check_text, defaults, trusted_by_default
from .dh import DHGroup
from .errors import ConfigurationError, ConfigurationTypeError
from .option_names import refuse_unknown
from .option_values import check_flag
from .options import SSL_OP_NO_TICKET, SSL_OP_NO_TLSv1_3
from .psk import PSKRole
from .sessions import KEY_NAME_SIZE, Session

# How many contexts made from options given directly to connect() are kept for the next call.
_SHARED_CONTEXTS: Final = 64
# How many lists of trusted certificates are kept by their fingerprints.
_FINGERPRINTS: Final = 8
# Node's default; OpenSSL's own is two hours.
_SESSION_TIMEOUT: Final = 300.0
# How long a client means to use a session, as far as the server does not want less: what RFC 5246, appendix
# F.1.4, suggests as the upper limit.
_CLIENT_SESSION_TIMEOUT: Final = 24 * 3600
# What NIST SP 800-57 sets beside P-256 and Ed25519.
_DH_BITS_FOR_CURVES: Final = 3072
_MAX_INT: Final = 2**31 - 1
# OpenSSL's names for how keys are exchanged up to TLS 1.2: by a group of the server's own, and by none.
_DHE: Final = ("kDHE", "kDHEPSK")
_WITHOUT_GROUP: Final = ("kRSA", "kPSK", "kRSAPSK")
# OpenSSL's SSL_MAX_SID_CTX_LENGTH.
_MAX_SESSION_ID_CONTEXT: Final = 32
# What a client can fail of before it has sent anything: the option at fault, and what to do.
_REMEDIES: Final = {
    "ERR_SSL_NO_PROTOCOLS_AVAILABLE": (
        "secure_options",
        "secure_options switches off every version from min_version to max_version",
    ),
    "ERR_SSL_NO_CIPHERS_AVAILABLE": (
        "ciphers",
        "no suite can be used at this security level and with these versions",
    ),
    "ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM": (
        "sigalgs",
        "no signature algorithm can be used at this security level and with these versions",
    ),
    "ERR_SSL_NO_SUITABLE_GROUPS": (
        "groups",
        "no group can be used at this security level and with max_version",
    ),
    "ERR_SSL_NO_SUITABLE_KEY_SHARE": (
        "groups",
        "no default group can be used at this security level; name stronger ones in groups",
    ),
}
_SECURITY_LEVEL_REMEDY: Final = (
    "{} needs a lower security level: add @SECLEVEL=0 to ciphers, as in "
    'ciphers="DEFAULT@SECLEVEL=0"; it is broken and only for peers that cannot be renewed'
)


class _Role(NamedTuple):
    """What an ``SSL_CTX`` is for; those of one context differ in nothing else."""

    server_side: bool
    verify_mode: int
    psk: PSKRole | None
    ocsp: str
    resumable: bool
    max_early_data: int


class IssuedBy(NamedTuple):
    """A certificate of our own, and its issuer's if that is known."""

    certificate: Certificate
    issuer: Certificate | None


class CredentialOptions(TypedDict, total=False):
    """The options of a `SecureContext` that say who we are and whom we trust."""

    key: KeyOption
    cert: CertificateOption
    passphrase: Passphrase | None
    pfx: PfxOption
    ca: TrustedOption
    crl: CrlOption


class ContextOptions(CredentialOptions, total=False):
    """The options of a `SecureContext`, for calls that pass them on."""

    allow_partial_trust_chain: bool
    verification_time: dt.datetime | None
    ciphers: str | None
    honor_cipher_order: bool
    min_version: str | None
    max_version: str | None
    secure_protocol: str | None
    secure_options: int | None
    groups: str | None
    require_groups: str | None
    ecdh_curve: str | None
    sigalgs: str | None
    dhparam: DHOption
    session_timeout: float | None
    session_id_context: str | bytes | None
    client_cert_engine: str | None
    private_key_engine: str | None
    private_key_identifier: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Settings:
    """Parsed options: all that an ``SSL_CTX`` is made from.  Equal settings make equal contexts."""

    credentials: Credentials
    trusted: tuple[x509.Certificate, ...]
    has_own_trust: bool
    crls: tuple[RevocationList, ...]
    allow_partial_trust_chain: bool
    verification_time: dt.datetime | None
    ciphers: str
    honor_cipher_order: bool
    min_version: str
    max_version: str
    secure_options: int
    groups: str
    required_groups: tuple[str, ...]
    sigalgs: str | None
    dhparam: DHGroup | Literal["auto"] | None
    session_timeout: float
    session_id_context: bytes | None

    @classmethod
    def parse(
        cls,
        *,
        key: KeyOption = None,
        cert: CertificateOption = None,
        passphrase: Passphrase | None = None,
        pfx: PfxOption = None,
        ca: TrustedOption = None,
        crl: CrlOption = None,
        allow_partial_trust_chain: bool = False,
        verification_time: dt.datetime | None = None,
        ciphers: str | None = None,
        honor_cipher_order: bool = True,
        min_version: str | None = None,
        max_version: str | None = None,
        secure_protocol: str | None = None,
        secure_options: int | None = None,
        groups: str | None = None,
        require_groups: str | None = None,
        ecdh_curve: str | None = None,
        sigalgs: str | None = None,
        dhparam: DHOption = None,
        session_timeout: float | None = None,
        session_id_context: str | bytes | None = None,
        client_cert_engine: str | None = None,
        private_key_engine: str | None = None,
        private_key_identifier: str | None = None,
    ) -> _Settings:
        _refuse_engines(client_cert_engine, private_key_engine, private_key_identifier)
        suites = _text("ciphers", ciphers) or defaults.ciphers
        if groups is not None and ecdh_curve is not None:
            raise ConfigurationError("groups and ecdh_curve are two names of one option", option="ecdh_curve")
        required = _required_groups(require_groups, groups if ecdh_curve is None else ecdh_curve)
        least, greatest = _with_groups(
            required, *_with_suites(suites, *_versions(min_version, max_version, secure_protocol))
        )
        trusted, has_own_trust = _trust(ca)
        curves = "groups" if ecdh_curve is None else "ecdh_curve"
        return cls(
            credentials=load_credentials(key=key, cert=cert, pfx=pfx, passphrase=passphrase),
            trusted=trusted,
            has_own_trust=has_own_trust,
            crls=load_crls(crl),
            allow_partial_trust_chain=check_flag("allow_partial_trust_chain", allow_partial_trust_chain),
            verification_time=_time("verification_time", verification_time),
            ciphers=suites,
            honor_cipher_order=check_flag("honor_cipher_order", honor_cipher_order),
            min_version=least,
            max_version=greatest,
            secure_options=_bits("secure_options", secure_options),
            groups=":".join(required)
            or check_groups(
                _text(curves, ecdh_curve if groups is None else groups) or defaults.groups, option=curves
            ),
            required_groups=required,
            sigalgs=_text("sigalgs", sigalgs),
            dhparam=load_dhparam(dhparam),
            session_timeout=_session_timeout(session_timeout),
            session_id_context=_session_id_context(session_id_context),
        )

    def with_credentials(self, options: CredentialOptions) -> _Settings:
        """Return settings with other credentials; what no option says stays as it is."""
        changes: dict[str, Any] = {}
        if not options.keys().isdisjoint(("key", "cert", "pfx")):
            changes["credentials"] = load_credentials(
                key=options.get("key"),
                cert=options.get("cert"),
                pfx=options.get("pfx"),
                passphrase=options.get("passphrase"),
            )
        if "ca" in options:
            changes["trusted"], changes["has_own_trust"] = _trust(options["ca"])
        if "crl" in options:
            changes["crls"] = load_crls(options["crl"])
        return dataclasses.replace(self, **changes)

    def build(self, role: _Role) -> SSLContext:
        server_side, verify_mode = role.server_side, role.verify_mode
        ctx = SSLContext(
            server_side=server_side,
            verify_mode=verify_mode,
            options=self.secure_options,
            honor_cipher_order=self.honor_cipher_order,
        )
        self._negotiate(ctx, dhe=not server_side or self.dhparam is not None)
        if server_side and self.dhparam is not None:
            group = self.dh_group(self.dhparam)
            ctx.set_dh_group(group)
            if self.groups == "auto":
                ctx.prefer_dh_group(group)
        self._present_and_trust(ctx)
        ctx.revoke(crl.crl for crl in self.crls)
        if self.allow_partial_trust_chain:
            ctx.allow_partial_trust_chain()
        if self.verification_time is not None:
            ctx.verify_at(int(self.verification_time.timestamp()))
        ctx.set_session_timeout(math.ceil(self.session_timeout) if server_side else _CLIENT_SESSION_TIMEOUT)
        ctx.set_session_id_context(
            self.session_digest(server_side=server_side, verify_mode=verify_mode, ocsp=role.ocsp)
        )
        if role.psk is not None:
            ctx.use_pre_shared_keys(role.psk, parse_ciphers(self.ciphers), server_side=server_side)
        if role.max_early_data:
            ctx.accept_early_data(role.max_early_data)
        if not role.resumable or (server_side and not self.session_timeout):
            # OpenSSL takes a time of 0 for its default of two hours.
            ctx.forget_sessions()
        return ctx

    def _negotiate(self, ctx: SSLContext, *, dhe: bool) -> None:
        # Ciphers first: their @SECLEVEL decides which keys and groups are too small.
        without = (
            *(() if dhe and not self.required_groups else _DHE),
            *(_WITHOUT_GROUP if self.required_groups else ()),
        )
        ctx.set_ciphers(parse_ciphers(self.ciphers), without=without)
        ctx.set_versions(self.min_version, self.max_version)
        if self.groups != "auto":
            ctx.set_groups(self.groups)
        if self.sigalgs is not None:
            ctx.set_signature_algorithms(self.sigalgs)

    def check_start(self, ctx: SSLContext, *, server_side: bool) -> None:
        """Refuse options with which no handshake could begin.

        Args:
            ctx: What was built of these settings.
            server_side: For which role.

        Raises:
            ConfigurationError: they exclude one another, or the security level excludes what they name.
        """
        if server_side:
            # OpenSSL says so only to clients.
            ctx = SSLContext(server_side=False, verify_mode=VERIFY_NONE, options=self.secure_options)
            self._negotiate(ctx, dhe=True)
        fault = ctx.fault_at_start()
        if fault is None:
            return
        option, remedy = _REMEDIES.get(fault.code, (None, ""))
        if fault.code == "ERR_SSL_NO_PROTOCOLS_AVAILABLE" and self.max_version in ("TLSv1", "TLSv1.1"):
            option, remedy = "max_version", _SECURITY_LEVEL_REMEDY.format(self.max_version)
        if server_side and option == "groups":
            # It may be for those clients alone that it suits.
            return
        if option == "ciphers" and parse_ciphers(self.ciphers).pre_shared:
            # These suites need a callback, which a connection has.
            return
        raise ConfigurationError(f"{fault.reason}: {remedy}", code=fault.code, option=option)

    def _present_and_trust(self, ctx: SSLContext) -> None:
        certified_keys = self.credentials.certified_keys
        several_chains = len(certified_keys) > 1 and any(len(pair.chain) > 1 for pair in certified_keys)
        if (
            self.has_own_trust
            or self.crls
            or self.credentials.trusted
            or self.allow_partial_trust_chain
            or several_chains
        ):
            # What is added to the store must not reach those who share the default one.
            ctx.trust(self.trusted, "ca")
            ctx.trust(self.credentials.trusted, "pfx")
        else:
            ctx.share_trust(self.trusted)
        ctx.name_authorities((*(self.trusted if self.has_own_trust else ()), *self.credentials.trusted))
        for certified_key in certified_keys:
            ctx.use_certified_key(certified_key)
        if several_chains:
            self._complete_chains(ctx)
        elif certified_keys:
            ctx.present_chain(certified_keys[0].chain[1:])

    def dh_group(self, dhparam: DHGroup | Literal["auto"]) -> DHGroup:
        """Return the group; "auto" is as strong as the strongest key."""
        if dhparam != "auto":
            return dhparam
        keys = [pair.private_key for pair in self.credentials.certified_keys]
        sizes = (key.key_size if isinstance(key, rsa.RSAPrivateKey) else _DH_BITS_FOR_CURVES for key in keys)
        return DHGroup.ffdhe(max(sizes, default=_DH_BITS_FOR_CURVES))

    def _complete_chains(self, ctx: SSLContext) -> None:
        if self.allow_partial_trust_chain:
            raise ConfigurationError(
                "several certificates with chains of their own do not go with allow_partial_trust_chain: "
                "their issuers would be trusted; use one context for each",
                option="allow_partial_trust_chain",
            )
        for certified_key in self.credentials.certified_keys:
            ctx.complete_chains_with(certified_key.chain[1:])

    def issuer_of(self, der: bytes) -> x509.Certificate | None:
        """Return the certificate that issued one of ours, if it is in a chain or trusted."""
        chain = next(
            pair.chain
            for pair in self.credentials.certified_keys
            if pair.chain[0].public_bytes(Encoding.DER) == der
        )
        for candidate in (*chain[1:], *self.credentials.trusted, *self.trusted):
            if candidate.subject == chain[0].issuer:
                try:
                    chain[0].verify_directly_issued_by(candidate)
                except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
                    continue
                return candidate
        return None

    def session_digest(self, *, server_side: bool, verify_mode: int, ocsp: str = "") -> bytes:
        """Return what ties a session to the trust under which it was made: 32 bytes.

        Args:
            server_side: For which role.  A client's session is tied to its own certificates too, as a server
                that resumes remembers who the client was; and to what a server would refuse the connection
                for, rather than do a full handshake: the suites, and the form of the keys.
            verify_mode: OpenSSL's bits for whether the peer must be verified.
            ocsp: How a client judges OCSP responses.
        """
        digest = hashlib.sha256(
            bytes((verify_mode, self.allow_partial_trust_chain))
            + b"".join(crl.crl.fingerprint(hashes.SHA256()) for crl in self.crls)
        )
        digest.update(_fingerprint(self.trusted))
        digest.update(_fingerprint(self.credentials.trusted))
        if server_side:
            digest.update(self.session_id_context or b"")
        else:
            options = (ocsp, self.ciphers, self.secure_options, self.required_groups)
            digest.update(repr(options).encode())
            for pair in self.credentials.certified_keys:
                digest.update(pair.chain[0].fingerprint(hashes.SHA256()))
        return digest.digest()


@functools.lru_cache(_FINGERPRINTS)
def _fingerprint(certificates: tuple[x509.Certificate, ...]) -> bytes:
    """Return what tells a list of certificates from all others; Mozilla's takes some milliseconds."""
    return b"".join(certificate.fingerprint(hashes.SHA256()) for certificate in certificates)


class SecureContext:
    """The options of a TLS endpoint, validated at once and frozen (Node's ``tls.createSecureContext``).

    One context serves any number of servers and clients; a change is a new context.
    `trio_tlsnode.defaults` is read when the context is made.

    Args:
        key: The private key, or a list of them: PEM text, bytes, a `pathlib.Path`, or cryptography's object.
        cert: The certificate, its intermediates behind it but not the root, or a list of such chains; forms
            as for `key`.
        passphrase: What encrypted keys are opened with.
        pfx: PKCS#12 files with key, certificate and CAs, or a list of them; forms as for `key`.
        ca: The certificates that are trusted, in place of Mozilla's; ``[]`` trusts nobody, "system" whom the
            operating system trusts.
        crl: Certificate revocation lists; with one, every certificate of a chain needs one that is current.
        allow_partial_trust_chain: Let a trusted intermediate be enough, without its root.
        verification_time: The moment at which certificates are to be valid, an aware datetime; None is now.
            For tests, and for looking at the past.
        ciphers: Cipher suites in OpenSSL's syntax, names in any case; names of TLS 1.3 (``TLS_...``) may
            stand among them, and without one the default ones stay.  ``@SECLEVEL=n`` sets the security level,
            of this context alone.
        honor_cipher_order: Servers: our order of suites counts, not the client's.
        min_version: The oldest protocol version, "TLSv1.2" by default; older ones are broken.
        max_version: The newest protocol version, "TLSv1.3" by default.
        secure_protocol: Node's older way to choose a version ("TLSv1_2_method"); not with the two above.
        secure_options: Bits of `trio_tlsnode.options`, in addition to those that are always set.
        groups: Key-exchange groups separated by colons, most preferred first ("X25519MLKEM768:X25519"), or
            "auto" for OpenSSL's own choice; names in any case.
        require_groups: The same list, in place of `groups`, of names alone: a connection whose keys are not
            exchanged in one of these is refused.  Up to TLS 1.2 this leaves the suites with ECDHE, and if no
            elliptic curve is among the groups ("X25519MLKEM768"), there is TLS 1.3 alone.
        ecdh_curve: Node's name for `groups`.
        sigalgs: Signature algorithms separated by colons, most preferred first
            ("RSA-PSS+SHA256:ECDSA+SHA256").
        dhparam: Servers: the Diffie-Hellman group of TLS 1.2: PEM of at least 1024 bits (2048 is wise),
            "auto" for one of RFC 7919 as strong as the key, None for no DHE.  A client that names groups of
            RFC 7919 gets one that is at least as large, if `groups` is "auto".
        session_timeout: Servers: how long a session may be resumed, in seconds, rounded up; 300 by default,
            and 0 lets none be.
        session_id_context: Servers: what tells the sessions of this context from those of others, at most 32
            bytes; by default it is derived from whom the context trusts.
        client_cert_engine: Refused: OpenSSL 4 has no engines.
        private_key_engine: Refused likewise.
        private_key_identifier: Refused likewise.

    Raises:
        ConfigurationError: an option cannot be used; its `option`, `path` and `code` say which and why.
        ConfigurationTypeError: an option has the wrong type.
        FeatureUnavailable: the linked OpenSSL lacks what was asked for.
    """

    __slots__ = (
        "__weakref__",
        "_identities",
        "_issued",
        "_settings",
        "_signature_algorithms",
        "_ssl_ctxs",
        "_ticket_key_names",
    )

    _settings: _Settings
    _ssl_ctxs: dict[_Role, SSLContext]
    # This context with the credentials of others.
    _identities: weakref.WeakKeyDictionary[SecureContext, SecureContext]
    _issued: dict[bytes, IssuedBy]
    _signature_algorithms: tuple[int, ...]
    _ticket_key_names: dict[SSLContext, bytes | None]

    def __init__(self, **options: Unpack[ContextOptions]) -> None:
        self._adopt(_Settings.parse(**options))

    def _adopt(self, settings: _Settings) -> None:
        object.__setattr__(self, "_settings", settings)
        object.__setattr__(self, "_ssl_ctxs", {})
        object.__setattr__(self, "_identities", weakref.WeakKeyDictionary())
        object.__setattr__(self, "_issued", {})
        object.__setattr__(self, "_signature_algorithms", ())
        object.__setattr__(self, "_ticket_key_names", {})
        # What OpenSSL refuses is refused here and now.
        server_side = self.has_identity or settings.dhparam is not None
        ctx = self.ssl_ctx(server_side=server_side, verify_mode=VERIFY_NONE if server_side else VERIFY_PEER)
        settings.check_start(ctx, server_side=server_side)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a SecureContext is frozen: make a new one instead of setting {name}")

    @property
    def has_identity(self) -> bool:
        """Whether there is a certificate or key to present, as every server needs."""
        return bool(self._settings.credentials.certified_keys)

    def check_server_side(self) -> None:
        """Raise `ConfigurationError` if no server can use this context; it may lack a certificate."""
        self.ssl_ctx(server_side=True, verify_mode=VERIFY_NONE)

    @property
    def verification_time(self) -> dt.datetime | None:
        """The moment at which certificates are to be valid; None is now."""
        return self._settings.verification_time

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """The certificates that may be presented, without their chains, DER."""
        return tuple(
            pair.chain[0].public_bytes(Encoding.DER) for pair in self._settings.credentials.certified_keys
        )

    @property
    def required_groups(self) -> tuple[str, ...]:
        """The key-exchange groups one of which must be used; empty if there is no such demand."""
        return self._settings.required_groups

    @property
    def dh_bits(self) -> int | None:
        """The size of the Diffie-Hellman group that a server has of its own, in bits."""
        settings = self._settings
        return None if settings.dhparam is None else settings.dh_group(settings.dhparam).bits

    @property
    def can_use_psk(self) -> bool:
        """Whether a pre-shared key could be used: in TLS 1.3 always, before it with suites for it."""
        if self.allows_tls13:
            return True
        return self.ssl_ctx(server_side=False, verify_mode=VERIFY_PEER).has_psk_suites

    @property
    def allows_tls13(self) -> bool:
        """Whether TLS 1.3 may be used."""
        settings = self._settings
        return settings.max_version == "TLSv1.3" and not settings.secure_options & SSL_OP_NO_TLSv1_3

    @property
    def issues_tickets(self) -> bool:
        """Whether a server gives clients session tickets, rather than keep their sessions."""
        return not self._settings.secure_options & SSL_OP_NO_TICKET

    def with_credentials(self, **options: Unpack[CredentialOptions]) -> SecureContext:
        """Return a context with other keys, certificates, trust or revocation lists, and all else the same.

        `key`, `cert` and `pfx` belong together: where one of them is given, all are replaced.  `ca` and `crl`
        are replaced each by itself; what is not given stays.  A server whose certificate was renewed gets the
        result by `TLSServer.set_secure_context`; `watch_credentials` does that, too.

        Args:
            **options: ``key``, ``cert``, ``passphrase``, ``pfx``, ``ca`` and ``crl``, as `SecureContext`
                explains them.

        Returns:
            A new context; this one if nothing is different.

        Raises:
            ConfigurationError: as `SecureContext` does.
        """
        refuse_unknown(options, CredentialOptions.__annotations__.keys(), of="with_credentials")
        settings = self._settings.with_credentials(options)
        return self if settings == self._settings else self._with(settings)

    def with_credentials_of(self, other: SecureContext) -> SecureContext:
        """Return this context with another one's keys, certificates and chains.

        Args:
            other: Whose; it must present a certificate.
        """
        merged = self._identities.get(other)
        if merged is None:
            credentials = dataclasses.replace(
                other._settings.credentials,
                trusted=self._settings.credentials.trusted,
            )
            merged = self._with(dataclasses.replace(self._settings, credentials=credentials))
            for der in other.certificates:
                # Its issuer may be trusted there alone.
                issued = other.issued(der)
                if issued.issuer is not None:
                    merged._issued[der] = issued  # noqa: SLF001 - its own
            self._identities[other] = merged
        return merged

    def issued(self, der: bytes) -> IssuedBy:
        """Return one of `certificates` as an object, and its issuer's certificate if that is at hand.

        Args:
            der: The certificate.
        """
        found = self._issued.get(der)
        if found is None:
            issuer = self._settings.issuer_of(der)
            found = self._issued[der] = IssuedBy(
                Certificate(der), None if issuer is None else Certificate(issuer.public_bytes(Encoding.DER))
            )
        return found

    def ssl_ctx(
        self,
        *,
        server_side: bool,
        verify_mode: int,
        psk: PSKRole | None = None,
        ocsp: str = "",
        resumable: bool = True,
        max_early_data: int = 0,
    ) -> SSLContext:
        """Return the ``SSL_CTX`` for a role, made when the role is first taken.

        Each demand on client certificates has its own, so that no session made under one resumes under
        another.

        Args:
            server_side: Which role.
            verify_mode: OpenSSL's bits for whether the peer must be verified.
            psk: What connections with pre-shared keys need; None allows none.
            ocsp: How a client judges OCSP responses: what was not judged resumes only where it need not be.
            resumable: Servers: whether sessions can be resumed, and are given to clients to be.
            max_early_data: Servers: how much early data a session allows, in bytes.
        """
        role = _Role(server_side, verify_mode, psk, ocsp, resumable, max_early_data)
        ctx = self._ssl_ctxs.get(role)
        if ctx is None:
            ctx = self._ssl_ctxs[role] = self._settings.build(role)
        return ctx

    @property
    def signature_algorithms(self) -> tuple[int, ...]:
        """The numbers of the signature algorithms that a connection may use, most preferred first."""
        found = self._signature_algorithms
        if not found:
            # OpenSSL does not tell, but a client's hello does.
            hello = self.ssl_ctx(server_side=False, verify_mode=VERIFY_NONE).first_flight()
            reader = ClientHelloReader()
            parsed = reader.feed(hello)
            found = () if parsed is None else parsed.signature_algorithms
            object.__setattr__(self, "_signature_algorithms", found)
        return found

    def ticket_key_name(self, server: SSLContext) -> bytes | None:
        """Return the name of the keys of a server's tickets, or None if it has none.

        OpenSSL does not tell it, so the context shakes hands with itself, once.

        Args:
            server: What `ssl_ctx` has returned for the server's role.
        """
        if server not in self._ticket_key_names:
            session = server.sample_session(self.ssl_ctx(server_side=False, verify_mode=VERIFY_NONE))
            ticket = None if session is None else Session.parse(session).ticket
            self._ticket_key_names[server] = None if ticket is None else ticket[:KEY_NAME_SIZE]
        return self._ticket_key_names[server]

    def renewed(self) -> SecureContext:
        """Return a context of the same options, with ticket keys of its own."""
        return self._with(self._settings)

    def differs_in_credentials_alone(self, other: SecureContext) -> bool:
        """Whether another context has the same options and trust, its own keys and certificates left aside.

        Args:
            other: The other one.
        """
        mine, others = self._settings, other._settings
        return mine.credentials.trusted == others.credentials.trusted and mine == dataclasses.replace(
            others, credentials=mine.credentials
        )

    @property
    def session_timeout(self) -> float:
        """How long a server's session may be resumed, in seconds."""
        return self._settings.session_timeout

    @classmethod
    def _with(cls, settings: _Settings) -> SecureContext:
        context = cls.__new__(cls)
        context._adopt(settings)  # noqa: SLF001 - its own
        return context

    def __repr__(self) -> str:
        settings = self._settings
        return (
            f"<SecureContext {settings.min_version} to {settings.max_version}, "
            f"{len(settings.credentials.certified_keys)} own certificates, {len(settings.trusted)} trusted>"
        )


@functools.lru_cache(_SHARED_CONTEXTS)
def _context_of(settings: _Settings) -> SecureContext:
    return SecureContext._with(settings)  # noqa: SLF001 - a second constructor


def shared_context(options: ContextOptions) -> SecureContext:
    """Return the context of these options: the same one for equal options.

    Args:
        options: What `SecureContext` takes, by name.

    Raises:
        ConfigurationError: as `SecureContext` does.
    """
    return _context_of(_Settings.parse(**options))


def _trust(ca: TrustedOption) -> tuple[tuple[x509.Certificate, ...], bool]:
    """Return the certificates that are trusted, and whether they are not the default ones."""
    own = ca_store.parse(ca)
    return (trusted_by_default(), False) if own is None else (own, True)


def _required_groups(value: str | None, groups: str | None) -> tuple[str, ...]:
    """Return the groups one of which must be used; empty if there is no such demand."""
    option = "require_groups"
    if value is None:
        return ()
    names = check_text(option, value)
    if groups is not None:
        raise ConfigurationError(
            "require_groups says which groups may be used, and groups would say it again", option=option
        )
    plain = check_groups(names, option=option)
    required = tuple(iana_name(name) for name in plain.split(":"))
    if None in required:
        raise ConfigurationError(
            f"{option} takes the names of groups separated by colons. Received {value!r}", option=option
        )
    return tuple(filter(None, required))


def _with_groups(required: tuple[str, ...], least: str, greatest: str) -> tuple[str, str]:
    """Return the oldest and the newest version of those in which keys can be exchanged as is required."""
    if not required or any(map(is_curve_of_tls12, required)):
        return least, greatest
    if greatest != "TLSv1.3":
        raise ConfigurationError(
            f"no suitable groups: require_groups has none for {greatest}. Received {':'.join(required)!r}",
            code="ERR_SSL_NO_SUITABLE_GROUPS",
            option="require_groups",
        )
    return "TLSv1.3", greatest


def _text(option: str, value: str | None) -> str | None:
    """Return a text option; None and the empty text mean that it is not set."""
    return None if value is None else check_text(option, value) or None


def _bits(option: str, value: int | None) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationTypeError(
            f'The "options.{option}" property must be of type number. Received {value!r}', option=option
        )
    if not 0 <= value < 1 << 64:
        raise ConfigurationError(f"{option} is out of range", code="ERR_OUT_OF_RANGE", option=option)
    return value


def _time(option: str, value: dt.datetime | None) -> dt.datetime | None:
    if value is not None and not isinstance(value, dt.datetime):
        raise ConfigurationTypeError(f"{option} must be a datetime. Received {value!r}", option=option)
    if value is not None and value.tzinfo is None:
        raise ConfigurationError(f"{option} must name its time zone, as datetime.UTC", option=option)
    return value


def _session_timeout(value: float | None) -> float:
    option = "session_timeout"
    if value is None:
        return _SESSION_TIMEOUT
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationTypeError(
            f'The "options.{option}" property must be of type number. Received {value!r}', option=option
        )
    if not 0 <= value <= _MAX_INT:
        raise ConfigurationError(
            f'The value of "options.{option}" is out of range. It must be >= 0 && <= {_MAX_INT}. '
            f"Received {value!r}",
            code="ERR_OUT_OF_RANGE",
            option=option,
        )
    return value


def _session_id_context(value: str | bytes | None) -> bytes | None:
    option = "session_id_context"
    if value is None:
        return None
    if not isinstance(value, (str, bytes)):
        raise ConfigurationTypeError(
            f'The "options.{option}" property must be of type string. Received {value!r}', option=option
        )
    encoded = value.encode() if isinstance(value, str) else value
    if len(encoded) > _MAX_SESSION_ID_CONTEXT:
        raise ConfigurationError(
            f"{option} has {len(encoded)} bytes; at most {_MAX_SESSION_ID_CONTEXT} are possible",
            code="ERR_SSL_SSL_SESSION_ID_CONTEXT_TOO_LONG",
            option=option,
        )
    return encoded


def _refuse_engines(*values: str | None) -> None:
    options = ("client_cert_engine", "private_key_engine", "private_key_identifier")
    for option, value in zip(options, values, strict=True):
        if value is not None:
            raise ConfigurationError(
                f"{option}: OpenSSL 4 has no engines; load the key and give it as key=, or terminate TLS "
                "where the hardware key is",
                code="ERR_CRYPTO_CUSTOM_ENGINE_NOT_SUPPORTED",
                option=option,
            )


def _versions(least: str | None, greatest: str | None, method: str | None) -> tuple[str, str]:
    """Return the oldest and the newest version."""
    if _text("secure_protocol", method) is not None:
        assert method is not None
        if least is not None or greatest is not None:
            raise ConfigurationError(
                "secure_protocol does not go with min_version and max_version",
                code="ERR_TLS_PROTOCOL_VERSION_CONFLICT",
                option="secure_protocol",
            )
        oldest, newest = _method_versions(method)
    else:
        oldest = _version("min_version", least) or defaults.min_version
        newest = _version("max_version", greatest) or defaults.max_version
    order = list(VERSIONS)
    if order.index(oldest) > order.index(newest):
        raise ConfigurationError(
            f"min_version {oldest} is newer than max_version {newest}: no version is left",
            code="ERR_SSL_NO_PROTOCOLS_AVAILABLE",
            option="min_version" if method is None else "secure_protocol",
        )
    return oldest, newest


def _with_suites(ciphers: str, least: str, greatest: str) -> tuple[str, str]:
    """Return the oldest and the newest version of those for which there are suites."""
    suites = parse_ciphers(ciphers)
    if (not suites.older and greatest != "TLSv1.3") or (not suites.tls13 and least == "TLSv1.3"):
        raise ConfigurationError(
            f"no cipher match: ciphers has no suite for {least} to {greatest}. Received {ciphers!r}",
            code="ERR_SSL_NO_CIPHER_MATCH",
            option="ciphers",
        )
    return least if suites.older else "TLSv1.3", greatest if suites.tls13 else min(greatest, "TLSv1.2")


def _version(option: str, value: str | None) -> str | None:
    version = _text(option, value)
    if version is not None and version not in VERSIONS:
        raise ConfigurationError(
            f"{version!r} is not a valid {option.replace('_', ' ')}; there are {', '.join(VERSIONS)}",
            code="ERR_TLS_INVALID_PROTOCOL_VERSION",
            option=option,
        )
    return version


def _method_versions(method: str) -> tuple[str, str]:
    """Return what Node's names for OpenSSL's methods allow; one for clients or servers counts for both."""
    name = method.removesuffix("_method").removesuffix("_client").removesuffix("_server")
    known = method.endswith("_method")
    if known and name in ("SSLv2", "SSLv3"):
        reason = f"{name} methods disabled: they are broken beyond repair"
    elif known and name == "TLS":
        return next(iter(VERSIONS)), "TLSv1.3"
    elif known and name == "SSLv23":
        return defaults.min_version, "TLSv1.2"
    elif known and name in ("TLSv1", "TLSv1_1", "TLSv1_2"):
        version = name.replace("_", ".")
        return version, version
    else:
        reason = f"Unknown method: {method}"
    raise ConfigurationError(reason, code="ERR_TLS_INVALID_PROTOCOL_METHOD", option="secure_protocol")
