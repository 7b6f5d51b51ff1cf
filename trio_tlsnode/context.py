"""SecureContext: the options of a TLS endpoint, validated and frozen, from which connections are made."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Any, Final, TypedDict

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes


from ._openssl.ssl_ctx import VERIFY_NONE, VERIFY_PEER, VERSIONS, SSLContext
from .credentials import (
    CertificateOption,
    Credentials,
    CrlOption,
    KeyOption,
    Passphrase,
    PfxOption,
    RevocationList,
    TrustedOption,
    load_credentials,
    load_crls,
    load_trusted_certificates,
)
from .defaults import defaults
from .errors import ConfigurationError, ConfigurationTypeError

# How many contexts made from options given directly to connect() are kept for the next call.
_SHARED_CONTEXTS: Final = 64


class ContextOptions(TypedDict, total=False):
    """The options of a `SecureContext`, for calls that pass them on."""

    key: KeyOption
    cert: CertificateOption
    passphrase: Passphrase | None
    pfx: PfxOption
    ca: TrustedOption
    crl: CrlOption
    allow_partial_trust_chain: bool
    ciphers: str | None
    min_version: str | None
    max_version: str | None
    groups: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Settings:
    """Parsed options: all that an ``SSL_CTX`` is made from.  Equal settings make equal contexts."""

    credentials: Credentials
    trusted: tuple[x509.Certificate, ...] | None
    crls: tuple[RevocationList, ...]
    allow_partial_trust_chain: bool
    ciphers: str
    min_version: str
    max_version: str
    groups: str

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
        ciphers: str | None = None,
        min_version: str | None = None,
        max_version: str | None = None,
        groups: str | None = None,
    ) -> _Settings:
        least = _version("min_version", min_version, defaults.min_version)
        greatest = _version("max_version", max_version, defaults.max_version)
        order = list(VERSIONS)
        if order.index(least) > order.index(greatest):
            raise ConfigurationError(
                f"min_version {least} is newer than max_version {greatest}: no version is left",
                code="ERR_TLS_INVALID_PROTOCOL_VERSION",
                option="min_version",
            )
        return cls(
            credentials=load_credentials(key=key, cert=cert, pfx=pfx, passphrase=passphrase),
            trusted=load_trusted_certificates(ca),
            crls=load_crls(crl),
            allow_partial_trust_chain=bool(allow_partial_trust_chain),
            ciphers=_text("ciphers", ciphers, defaults.ciphers),
            min_version=least,
            max_version=greatest,
            groups=_text("groups", groups, defaults.groups),
        )

    def build(self, *, server_side: bool, verify_mode: int) -> SSLContext:
        ctx = SSLContext(server_side=server_side, verify_mode=verify_mode)
        # Ciphers first: their @SECLEVEL decides which keys are too small.
        has_older = ctx.set_ciphers(self.ciphers)
        least = self.min_version
        if not has_older:
            if self.max_version != "TLSv1.3":
                raise ConfigurationError(
                    f"ciphers name suites of TLS 1.3 only, but max_version is {self.max_version}",
                    code="ERR_SSL_NO_CIPHER_MATCH",
                    option="ciphers",
                )
            least = "TLSv1.3"
        ctx.set_versions(least, self.max_version)
        if self.groups != "auto":
            ctx.set_groups(self.groups)
        own_chains = [certified_key.chain for certified_key in self.credentials.certified_keys]
        several_chains = len(own_chains) > 1 and any(len(chain) > 1 for chain in own_chains)
        if self.trusted is not None:
            ctx.trust(self.trusted)
        elif self.crls or self.credentials.trusted or self.allow_partial_trust_chain or several_chains:
            # What follows must not reach into the store that all others share.
            ctx.trust_bundle_alone(certifi.where())
        else:
            ctx.trust_bundle(certifi.where())
        ctx.trust(self.credentials.trusted)
        for certified_key in self.credentials.certified_keys:
            ctx.use_certified_key(certified_key)
        if several_chains:
            self._complete_chains_from_store(ctx)
        elif own_chains:
            ctx.present_chain(own_chains[0][1:])
        ctx.revoke(crl.crl for crl in self.crls)
        if self.allow_partial_trust_chain:
            ctx.allow_partial_trust_chain()
        if server_side:
            ctx.set_session_id_context(self._trust_digest(verify_mode))
        return ctx

    def _complete_chains_from_store(self, ctx: SSLContext) -> None:
        """Let OpenSSL find the issuers of each certificate: a context has room for one chain only.

        They are no anchors by being in the store, unless partial chains are allowed.
        """
        if self.allow_partial_trust_chain:
            raise ConfigurationError(
                "several certificates with chains of their own do not go with allow_partial_trust_chain: "
                "their issuers would be trusted; use one context for each",
                option="allow_partial_trust_chain",
            )
        for certified_key in self.credentials.certified_keys:
            ctx.add_issuers(certified_key.chain[1:])

    def _trust_digest(self, verify_mode: int) -> bytes:
        """Return what ties a session to the trust under which it was made: 32 bytes."""
        digest = hashlib.sha256(
            bytes((verify_mode, self.trusted is None, self.allow_partial_trust_chain))
            + b"".join(crl.crl.fingerprint(hashes.SHA256()) for crl in self.crls)
        )
        for certificate in (*(self.trusted or ()), *self.credentials.trusted):
            digest.update(certificate.fingerprint(hashes.SHA256()))
        return digest.digest()


class SecureContext:
    """The options of a TLS endpoint, validated at once and frozen (Node's ``tls.createSecureContext``).

    One context serves any number of servers and clients; a change is a new context.
    `trio_tlsnode.defaults` is read when the context is made.

    Args:
        key: The private key, or a list of them: PEM text, bytes, a `pathlib.Path`, or cryptography's object.
        cert: The certificate, its intermediates behind it, or a list of such chains; forms as for `key`.
        passphrase: What encrypted keys are opened with.
        pfx: PKCS#12 files with key, certificate and CAs, or a list of them; forms as for `key`.
        ca: The certificates that are trusted, in place of Mozilla's; ``[]`` trusts nobody.
        crl: Certificate revocation lists; with one, every certificate of a chain needs one that is current.
        allow_partial_trust_chain: Let a trusted intermediate be enough, without its root.
        ciphers: Cipher suites in OpenSSL's syntax; names of TLS 1.3 (``TLS_...``) may stand among them.
        min_version: The oldest protocol version, "TLSv1.2" by default.
        max_version: The newest protocol version, "TLSv1.3" by default.
        groups: Key-exchange groups separated by colons, most preferred first ("X25519MLKEM768:X25519").

    Raises:
        ConfigurationError: an option cannot be used; its `option`, `path` and `code` say which and why.
        ConfigurationTypeError: an option has the wrong type.
        FeatureUnavailable: the linked OpenSSL lacks what was asked for.
    """

    __slots__ = ("__weakref__", "_settings", "_ssl_ctxs")

    _settings: _Settings
    _ssl_ctxs: dict[tuple[bool, int], SSLContext]

    def __init__(
        self,
        *,
        key: KeyOption = None,
        cert: CertificateOption = None,
        passphrase: Passphrase | None = None,
        pfx: PfxOption = None,
        ca: TrustedOption = None,
        crl: CrlOption = None,
        allow_partial_trust_chain: bool = False,
        ciphers: str | None = None,
        min_version: str | None = None,
        max_version: str | None = None,
        groups: str | None = None,
    ) -> None:
        self._adopt(
            _Settings.parse(
                key=key,
                cert=cert,
                passphrase=passphrase,
                pfx=pfx,
                ca=ca,
                crl=crl,
                allow_partial_trust_chain=allow_partial_trust_chain,
                ciphers=ciphers,
                min_version=min_version,
                max_version=max_version,
                groups=groups,
            )
        )

    def _adopt(self, settings: _Settings) -> None:
        object.__setattr__(self, "_settings", settings)
        object.__setattr__(self, "_ssl_ctxs", {})
        # What OpenSSL refuses is refused here and now.
        self.ssl_ctx(server_side=self.has_identity, verify_mode=VERIFY_NONE if self.has_identity else VERIFY_PEER)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a SecureContext is frozen: make a new one instead of setting {name}")

    @property
    def has_identity(self) -> bool:
        """Whether there is a certificate or key to present, as every server needs."""
        return bool(self._settings.credentials.certified_keys)

    def ssl_ctx(self, *, server_side: bool, verify_mode: int) -> SSLContext:
        """Return the ``SSL_CTX`` for a role, made when the role is first taken.

        Each demand on client certificates has its own, so that no session made under one resumes under
        another.
        """
        role = (server_side, verify_mode)
        ctx = self._ssl_ctxs.get(role)
        if ctx is None:
            ctx = self._ssl_ctxs[role] = self._settings.build(server_side=server_side, verify_mode=verify_mode)
        return ctx

    def __repr__(self) -> str:
        settings = self._settings
        trust = "Mozilla's roots" if settings.trusted is None else f"{len(settings.trusted)} certificates"
        return (
            f"<SecureContext {settings.min_version} to {settings.max_version}, "
            f"{len(settings.credentials.certified_keys)} certificates of its own, trusts {trust}>"
        )


@functools.lru_cache(_SHARED_CONTEXTS)
def _context_of(settings: _Settings) -> SecureContext:
    context = SecureContext.__new__(SecureContext)
    context._adopt(settings)  # noqa: SLF001 - a second constructor
    return context


def shared_context(options: ContextOptions) -> SecureContext:
    """Return the context of these options: the same one for equal options.

    Args:
        options: What `SecureContext` takes, by name.

    Raises:
        ConfigurationError: as `SecureContext` does.
    """
    return _context_of(_Settings.parse(**options))


def _text(option: str, value: str | None, default: str) -> str:
    if value is None or value == "":
        return default
    if not isinstance(value, str):
        raise ConfigurationTypeError(
            f'The "options.{option}" property must be of type string. Received {value!r}', option=option
        )
    return value


def _version(option: str, value: str | None, default: str) -> str:
    version = _text(option, value, default)
    if version not in VERSIONS:
        raise ConfigurationError(
            f"{version!r} is not a valid {option.replace('_', ' ')}; there are {', '.join(VERSIONS)}",
            code="ERR_TLS_INVALID_PROTOCOL_VERSION",
            option=option,
        )
    return version
