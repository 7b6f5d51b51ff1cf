"""SSL_CTX: what connections are made from, built once from parsed options."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ..credentials import CertifiedKey
from ..dh import FFDHE_BITS, DHGroup
from ..errors import ConfigurationError, ConnectionFailed, FeatureUnavailable
from ..iana import SIGNATURE_SCHEMES
from ..options import (
    SSL_OP_ALLOW_CLIENT_RENEGOTIATION,
    SSL_OP_NO_ANTI_REPLAY,
    SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION,
)
from ..psk import PSKRole
from . import callbacks, error_queue, groups
from .buffers import buffers
from .cipher_list import CipherList
from .connection import Connection
from .library import NULL, SSL, crypto, features, lib, pointer_to
from .suggestions import did_you_mean

VERIFY_NONE: int = lib.SSL_VERIFY_NONE
VERIFY_PEER: int = lib.SSL_VERIFY_PEER
VERIFY_REQUIRED: int = lib.SSL_VERIFY_PEER | lib.SSL_VERIFY_FAIL_IF_NO_PEER_CERT
VERIFY_POST_HANDSHAKE: int = lib.SSL_VERIFY_POST_HANDSHAKE

VERSIONS = {
    "TLSv1": lib.TLS1_VERSION,
    "TLSv1.1": lib.TLS1_1_VERSION,
    "TLSv1.2": lib.TLS1_2_VERSION,
    "TLSv1.3": lib.TLS1_3_VERSION,
}
"""The protocol versions by Node's names, oldest first."""

# As `SIGNATURE_SCHEMES` does, these name what ``sigalgs`` takes: a key and a hash.
_KEYS_AND_HASHES: Final = tuple(
    f"{key}+{digest}"
    for key in ("RSA", "RSA-PSS", "ECDSA", "DSA")
    for digest in ("SHA1", "SHA224", "SHA256", "SHA384", "SHA512")
)


def _refused(error: SSL.Error | crypto.Error, reason: str, option: str) -> ConfigurationError:
    """Return pyOpenSSL's error as ours, with Node's code."""
    # pyOpenSSL's entries are (library, function, reason).
    library, *_, detail = error.args[0][0] if error.args and error.args[0] else ("", "")
    code = error_queue.node_code(library, detail) if detail else None
    detail = detail and f": {detail}"
    return ConfigurationError(f"{reason}{detail}", code=code, option=option)


# A handshake's, with a HelloRetryRequest.
_MOST_FLIGHTS: Final = 4


class SSLContext:
    """One ``SSL_CTX`` for one role.

    Attributes:
        pointer: The ``SSL_CTX *``, kept alive by this object.
        session_id_context: What its sessions are tied to.
        own_ders: The DER of its own certificates that were presented by now, by their ``X509 *``.
    """

    session_id_context = b""

    def __init__(
        self, *, server_side: bool, verify_mode: int, options: int = 0, honor_cipher_order: bool = True
    ) -> None:
        self.own_ders: dict[Any, bytes] = {}
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD if server_side else SSL.TLS_CLIENT_METHOD)
        self.pointer: Any = self._context._context  # noqa: SLF001 - the seam's business
        ctx = self.pointer
        # Partial writes would hand back the loop over records that write_from does anyway.
        lib.SSL_CTX_clear_mode(ctx, lib.SSL_MODE_ENABLE_PARTIAL_WRITE)
        lib.SSL_CTX_set_mode(ctx, lib.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | lib.SSL_MODE_RELEASE_BUFFERS)
        options |= lib.SSL_OP_NO_COMPRESSION
        if server_side:
            # Their number is limited, on clients too.  Resumed, nobody would ask for a certificate.
            options |= SSL_OP_ALLOW_CLIENT_RENEGOTIATION | SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION
            if honor_cipher_order:
                options |= lib.SSL_OP_CIPHER_SERVER_PREFERENCE
            lib.SSL_CTX_set_alpn_select_cb(ctx, callbacks.on_alpn_select, NULL)
            lib.SSL_CTX_set_tlsext_servername_callback(ctx, callbacks.on_server_name)
            lib.SSL_CTX_set_tlsext_status_cb(ctx, callbacks.on_status_request)
        else:
            lib.SSL_CTX_set_tlsext_status_cb(ctx, callbacks.on_status_response)
        lib.SSL_CTX_set_verify(ctx, verify_mode, callbacks.on_verify)
        lib.SSL_CTX_set_options(ctx, options)

    def set_versions(self, least: str, greatest: str) -> None:
        """Allow the protocol versions from `least` to `greatest`, both of `VERSIONS`."""
        self._context.set_min_proto_version(VERSIONS[least])
        self._context.set_max_proto_version(VERSIONS[greatest])

    def set_ciphers(self, ciphers: CipherList, *, without: Iterable[str] = ()) -> None:
        """Allow the cipher suites of a list, at its security level.

        Args:
            ciphers: The list.
            without: How the keys may not be exchanged in the older versions ("kRSA").

        Raises:
            ConfigurationError: nothing matches (``ERR_SSL_NO_CIPHER_MATCH``).
        """
        # With the level alone there is nothing that could match.
        older = ciphers.older or ("" if ciphers.security_level is None else "DEFAULT")
        if older:
            older += "".join(f":!{exchange}" for exchange in without)
        if ciphers.security_level is not None:
            older += f":@SECLEVEL={ciphers.security_level}"
        try:
            self._context.set_tls13_ciphersuites(":".join(ciphers.tls13).encode())
            if older:
                self._context.set_cipher_list(older.encode())
        except SSL.Error as error:
            raise _refused(error, f"no cipher suite matches {ciphers.text!r}", "ciphers") from error

    def set_groups(self, names: str) -> None:
        """Allow the key-exchange groups of a list that `check_groups` has passed, most preferred first."""
        groups.set_groups(self._context, names)

    def set_signature_algorithms(self, algorithms: str) -> None:
        """Allow the signature algorithms of a list separated by colons, most preferred first.

        Raises:
            ConfigurationError: one is unknown.
            FeatureUnavailable: the bindings cannot choose them.
        """
        if not features["sigalgs"]:
            raise FeatureUnavailable(
                "signature algorithms cannot be chosen with this build of cryptography", feature="sigalgs"
            )
        if not self._takes_signature_algorithms(algorithms):
            unknown = next(
                (name for name in algorithms.split(":") if not self._takes_signature_algorithms(name)),
                algorithms,
            )
            known = (*SIGNATURE_SCHEMES.values(), *_KEYS_AND_HASHES)
            raise ConfigurationError(
                f"this OpenSSL has no signature algorithm {unknown!r}{did_you_mean(unknown, known)}. "
                f"Received sigalgs={algorithms!r}",
                code="ERR_CRYPTO_OPERATION_FAILED",
                option="sigalgs",
            )

    def _takes_signature_algorithms(self, algorithms: str) -> bool:
        taken: bool = lib.SSL_CTX_set1_sigalgs_list(self.pointer, algorithms.encode()) == 1
        error_queue.drain()
        return taken

    def set_dh_group(self, group: DHGroup) -> None:
        """Use a Diffie-Hellman group in TLS 1.2 and older.

        Raises:
            ConfigurationError: it is too small for the security level of the ciphers.
        """
        pem = group.pem()
        bio = lib.BIO_new_mem_buf(pem, len(pem))
        dh = lib.PEM_read_bio_DHparams(bio, NULL, NULL, NULL)
        lib.BIO_free(bio)
        if dh == NULL or lib.SSL_CTX_set_tmp_dh(self.pointer, dh) != 1:
            entries = error_queue.drain()
            lib.DH_free(dh)
            library, reason, _ = (
                entries[0] if entries else ("SSL routines", "unable to load dh parameters", 0)
            )
            raise ConfigurationError(
                f"the Diffie-Hellman group of {group.bits} bits cannot be used: {reason}",
                code=error_queue.node_code(library, reason),
                option="dhparam",
            )
        lib.DH_free(dh)

    def prefer_dh_group(self, group: DHGroup) -> None:
        """Have none of RFC 7919's groups among the default ones that is smaller than this one.

        OpenSSL 4 prefers those that both sides have to `set_dh_group`'s.  Older versions do not, and take no
        such list.
        """
        names = [
            f"-ffdhe{bits}" if bits < group.bits else f"ffdhe{bits}"
            for bits in FFDHE_BITS
            if bits <= group.bits
        ]
        groups.set_groups(self._context, ":".join(("DEFAULT", *names)))

    @property
    def has_psk_suites(self) -> bool:
        """Whether there is a suite with pre-shared keys for the versions before TLS 1.3."""
        return any("PSK" in name for name in SSL.Connection(self._context, None).get_cipher_list())

    def use_pre_shared_keys(self, role: PSKRole, ciphers: CipherList, *, server_side: bool) -> None:
        """Let connections ask for pre-shared keys.

        Args:
            role: What has to be known of them beforehand.
            ciphers: What `set_ciphers` was given.
            server_side: For which role.

        Raises:
            FeatureUnavailable: the bindings cannot do it.
        """
        if not (features["psk"] and features["psk_tls13"]):
            raise FeatureUnavailable(
                "pre-shared keys cannot be used with this build of cryptography", feature="psk"
            )
        ctx = self.pointer
        if not server_side:
            lib.SSL_CTX_set_psk_client_callback(ctx, callbacks.on_psk_client)
            lib.SSL_CTX_set_psk_use_session_callback(ctx, callbacks.on_psk_use_session)
            return
        if role.identity_hint is not None:
            lib.SSL_CTX_use_psk_identity_hint(ctx, role.identity_hint)
        lib.SSL_CTX_set_psk_find_session_callback(ctx, callbacks.on_psk_find_session)
        if role.hash != "SHA384":
            # With this one and without a certificate, OpenSSL prefers suites with SHA-256.
            lib.SSL_CTX_set_psk_server_callback(ctx, callbacks.on_psk_server)
        if role.hash is not None:
            # Only these can use the key.
            suites = sorted(ciphers.tls13, key=lambda name: not name.endswith(str(role.hash)))
            self._context.set_tls13_ciphersuites(":".join(suites).encode())
            lib.SSL_CTX_set_options(ctx, lib.SSL_OP_CIPHER_SERVER_PREFERENCE)

    def fault_at_start(self) -> ConnectionFailed | None:
        """Return what a client fails of before it has sent anything, or None.

        Some options exclude one another, and OpenSSL says so only when a handshake begins.
        """
        connection = Connection()
        connection.open(self, server_side=False)
        try:
            connection.step_handshake()
        except ConnectionFailed as error:
            return error
        finally:
            connection.release()
        return None

    def first_flight(self) -> bytes:
        """Return what a client sends first; nothing if it cannot begin."""
        connection = Connection()
        connection.open(self, server_side=False)
        try:
            connection.step_handshake()
            return bytes(buffers.outgoing_view[: connection.drain_into(0)])
        except ConnectionFailed:
            return b""
        finally:
            connection.release()

    def use_certified_key(self, certified_key: CertifiedKey) -> None:
        """Present a certificate, proved by its private key.

        Raises:
            ConfigurationError: OpenSSL refuses the pair at this security level, or it is none.
        """
        try:
            self._context.use_certificate(certified_key.chain[0])
            key = crypto.load_privatekey(crypto.FILETYPE_ASN1, certified_key.private_key_der())
            if lib.SSL_CTX_use_PrivateKey(self.pointer, key._pkey) != 1:  # noqa: SLF001 - the seam's business
                raise SSL.Error([(library, "", reason) for library, reason, _ in error_queue.drain()])
            self._context.check_privatekey()
        except (SSL.Error, crypto.Error) as error:
            raise _refused(error, "the certificate and its key cannot be used", "cert") from error

    def present_chain(self, issuers: Iterable[x509.Certificate]) -> None:
        """Send these certificates behind our own, whichever that is.

        Raises:
            ConfigurationError: OpenSSL cannot read one.
        """
        for certificate in issuers:
            with _reading(certificate, "cert"):
                self._context.add_extra_chain_cert(certificate)

    def complete_chains_with(self, issuers: Iterable[x509.Certificate]) -> None:
        """Send of these certificates those that have issued our own: a context has room for one chain only.

        They are looked for in the store.  What has issued itself would be an anchor there, and is left out.

        Raises:
            ConfigurationError: OpenSSL cannot read one.
        """
        store = _store_of(self._context)
        for certificate in issuers:
            with _reading(certificate, "cert"):
                issuer = crypto.X509.from_cryptography(certificate)
            pointer = issuer._x509  # noqa: SLF001 - the seam's business
            if lib.X509_NAME_cmp(lib.X509_get_subject_name(pointer), lib.X509_get_issuer_name(pointer)):
                store.add_cert(issuer)

    def trust(self, certificates: Iterable[x509.Certificate], option: str) -> None:
        """Trust these certificates.

        Args:
            certificates: Any, be they an authority's or not.
            option: Which option they are from.

        Raises:
            ConfigurationError: OpenSSL cannot read one.
        """
        _add_to(self._context, certificates, option)

    def share_trust(self, certificates: tuple[x509.Certificate, ...]) -> None:
        """Trust these certificates, in a store that is made once for all contexts that trust the same.

        Raises:
            ConfigurationError: OpenSSL cannot read one.
        """
        store = _store_of(_shared_store(certificates))
        pointer = store._store  # noqa: SLF001 - the seam's business
        lib.X509_STORE_up_ref(pointer)
        lib.SSL_CTX_set_cert_store(self.pointer, pointer)

    def name_authorities(self, certificates: Iterable[x509.Certificate]) -> None:
        """Tell the clients that are asked for a certificate from whom it may be."""
        for certificate in certificates:
            self._context.add_client_ca(certificate)

    def revoke(self, crls: Iterable[x509.CertificateRevocationList]) -> None:
        """Refuse what these lists name; with one, every certificate of a chain needs a current one.

        Raises:
            ConfigurationError: OpenSSL cannot read one.
        """
        store = _store_of(self._context)
        for crl in crls:
            try:
                store.add_crl(crl)
            except crypto.Error as error:
                raise _refused(error, "crl: OpenSSL cannot read a revocation list", "crl") from error
            store.set_flags(lib.X509_V_FLAG_CRL_CHECK | lib.X509_V_FLAG_CRL_CHECK_ALL)

    def allow_partial_trust_chain(self) -> None:
        """Let a trusted certificate that is no root end a chain."""
        _store_of(self._context).set_flags(lib.X509_V_FLAG_PARTIAL_CHAIN)

    def verify_at(self, seconds: int) -> None:
        """Judge certificates as of a moment, in seconds since the epoch."""
        lib.X509_VERIFY_PARAM_set_time(lib.SSL_CTX_get0_param(self.pointer), seconds)

    def set_session_timeout(self, seconds: int) -> None:
        """Let sessions be resumed for so many seconds."""
        lib.SSL_CTX_set_timeout(self.pointer, seconds)

    def sample_session(self, client: SSLContext) -> bytes | None:
        """Return a session that a server's context makes with a client, or None if it makes none.

        Args:
            client: A context that accepts any server.
        """
        ends = Connection(), Connection()
        ends[0].open(client, server_side=False)
        ends[1].open(self, server_side=True)
        lib.SSL_set_verify(ends[1].ssl, VERIFY_NONE, NULL)
        # A server that accepts early data gives each client of TLS 1.3 an identifier in place of a ticket.
        lib.SSL_set_options(ends[1].ssl, SSL_OP_NO_ANTI_REPLAY)
        try:
            for _ in range(_MOST_FLIGHTS):
                for end, other in (ends, ends[::-1]):
                    if end.step_handshake():
                        end.peek()
                    flight = bytes(buffers.outgoing_view[: end.drain_into(0)])
                    if flight:
                        other.feed_from(pointer_to(flight), len(flight))
                        other.settle()
            return ends[0].current_session()
        except ConnectionFailed:
            return None
        finally:
            for end in ends:
                end.release()

    def accept_early_data(self, most: int) -> None:
        """Accept early data from clients that resume a session of TLS 1.3, each session once.

        Args:
            most: How much, in bytes.

        Raises:
            FeatureUnavailable: the bindings cannot do it.
        """
        if not features["early_data"]:
            raise FeatureUnavailable(
                "early data cannot be used with this build of cryptography", feature="early_data"
            )
        lib.SSL_CTX_set_max_early_data(self.pointer, most)

    def forget_sessions(self) -> None:
        """Resume no session, and hand out none that could be."""
        lib.SSL_CTX_set_options(self.pointer, lib.SSL_OP_NO_TICKET)
        lib.SSL_CTX_set_session_cache_mode(self.pointer, lib.SSL_SESS_CACHE_OFF)
        # In TLS 1.3 there are tickets all the same; nobody needs to keep them.
        self.set_session_timeout(1)

    def set_session_id_context(self, value: bytes) -> None:
        """Let sessions resume only where this value is the same: at most 32 bytes."""
        self.session_id_context = value
        self._context.set_session_id(value)


def can_read(certificate: x509.Certificate) -> bool:
    """Whether OpenSSL can read a certificate, too: it looks at parts that cryptography leaves for later."""
    try:
        crypto.X509.from_cryptography(certificate)
    except crypto.Error:
        return False
    return True


@contextlib.contextmanager
def _reading(certificate: x509.Certificate, option: str) -> Iterator[None]:
    """Let an error that OpenSSL cannot read a certificate name the option that it is from."""
    try:
        yield
    except crypto.Error as error:
        fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
        reason = f"{option}: OpenSSL cannot read the certificate with the fingerprint {fingerprint}"
        raise _refused(error, reason, option) from error


def _store_of(context: SSL.Context) -> crypto.X509Store:
    store = context.get_cert_store()
    assert store is not None
    return store


def _add_to(context: SSL.Context, certificates: Iterable[x509.Certificate], option: str) -> None:
    store = _store_of(context)
    for certificate in certificates:
        with _reading(certificate, option):
            store.add_cert(crypto.X509.from_cryptography(certificate))


# Few, and found by identity: comparing some hundred certificates would cost more than a handshake does.
_shared_stores: list[tuple[tuple[x509.Certificate, ...], SSL.Context]] = []
_MOST_SHARED_STORES = 4


def _shared_store(certificates: tuple[x509.Certificate, ...]) -> SSL.Context:
    for shared, context in _shared_stores:
        if shared is certificates:
            return context
    context = SSL.Context(SSL.TLS_METHOD)
    _add_to(context, certificates, "ca")
    del _shared_stores[: 1 - _MOST_SHARED_STORES]
    _shared_stores.append((certificates, context))
    return context
