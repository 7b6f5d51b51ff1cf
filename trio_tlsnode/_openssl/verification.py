"""PeerVerification: what OpenSSL finds wrong with the peer's certificate chain, and the verdict on it.

OpenSSL calls back for each problem and, at last, once with depth 0 and no new problem.  The verdict falls
at that last call, so that all problems are known when it is made, and inside the handshake, so that the peer
gets the alert that fits the last problem, which is also the one that Node reports.
"""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..certificates import Certificate
from ..diagnosis import Peer, hint
from ..errors import CertificateError, CertificateProblem, IdentityError
from ..identity import check_server_identity
from .library import NULL, ffi, lib

# X509_V_ERR_... by their numbers, up to OpenSSL 4.0's last one.  The bindings lack nearly half of the
# constants.
_NAMES = """
    OK UNSPECIFIED UNABLE_TO_GET_ISSUER_CERT UNABLE_TO_GET_CRL UNABLE_TO_DECRYPT_CERT_SIGNATURE
    UNABLE_TO_DECRYPT_CRL_SIGNATURE UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY CERT_SIGNATURE_FAILURE
    CRL_SIGNATURE_FAILURE CERT_NOT_YET_VALID CERT_HAS_EXPIRED CRL_NOT_YET_VALID CRL_HAS_EXPIRED
    ERROR_IN_CERT_NOT_BEFORE_FIELD ERROR_IN_CERT_NOT_AFTER_FIELD ERROR_IN_CRL_LAST_UPDATE_FIELD
    ERROR_IN_CRL_NEXT_UPDATE_FIELD OUT_OF_MEM DEPTH_ZERO_SELF_SIGNED_CERT SELF_SIGNED_CERT_IN_CHAIN
    UNABLE_TO_GET_ISSUER_CERT_LOCALLY UNABLE_TO_VERIFY_LEAF_SIGNATURE CERT_CHAIN_TOO_LONG CERT_REVOKED
    NO_ISSUER_PUBLIC_KEY PATH_LENGTH_EXCEEDED INVALID_PURPOSE CERT_UNTRUSTED CERT_REJECTED
    SUBJECT_ISSUER_MISMATCH AKID_SKID_MISMATCH AKID_ISSUER_SERIAL_MISMATCH KEYUSAGE_NO_CERTSIGN
    UNABLE_TO_GET_CRL_ISSUER UNHANDLED_CRITICAL_EXTENSION KEYUSAGE_NO_CRL_SIGN
    UNHANDLED_CRITICAL_CRL_EXTENSION INVALID_NON_CA PROXY_PATH_LENGTH_EXCEEDED
    KEYUSAGE_NO_DIGITAL_SIGNATURE PROXY_CERTIFICATES_NOT_ALLOWED INVALID_EXTENSION
    INVALID_POLICY_EXTENSION NO_EXPLICIT_POLICY DIFFERENT_CRL_SCOPE UNSUPPORTED_EXTENSION_FEATURE
    UNNESTED_RESOURCE PERMITTED_VIOLATION EXCLUDED_VIOLATION SUBTREE_MINMAX APPLICATION_VERIFICATION
    UNSUPPORTED_CONSTRAINT_TYPE UNSUPPORTED_CONSTRAINT_SYNTAX UNSUPPORTED_NAME_SYNTAX
    CRL_PATH_VALIDATION_ERROR PATH_LOOP SUITE_B_INVALID_VERSION SUITE_B_INVALID_ALGORITHM
    SUITE_B_INVALID_CURVE SUITE_B_INVALID_SIGNATURE_ALGORITHM SUITE_B_LOS_NOT_ALLOWED
    SUITE_B_CANNOT_SIGN_P_384_WITH_P_256 HOSTNAME_MISMATCH EMAIL_MISMATCH IP_ADDRESS_MISMATCH
    DANE_NO_MATCH EE_KEY_TOO_SMALL CA_KEY_TOO_SMALL CA_MD_TOO_WEAK INVALID_CALL STORE_LOOKUP
    NO_VALID_SCTS PROXY_SUBJECT_NAME_VIOLATION OCSP_VERIFY_NEEDED OCSP_VERIFY_FAILED OCSP_CERT_UNKNOWN
    UNSUPPORTED_SIGNATURE_ALGORITHM SIGNATURE_ALGORITHM_MISMATCH SIGNATURE_ALGORITHM_INCONSISTENCY
    INVALID_CA PATHLEN_INVALID_FOR_NON_CA PATHLEN_WITHOUT_KU_KEY_CERT_SIGN
    KU_KEY_CERT_SIGN_INVALID_FOR_NON_CA ISSUER_NAME_EMPTY SUBJECT_NAME_EMPTY
    MISSING_AUTHORITY_KEY_IDENTIFIER MISSING_SUBJECT_KEY_IDENTIFIER EMPTY_SUBJECT_ALT_NAME
    EMPTY_SUBJECT_SAN_NOT_CRITICAL CA_BCONS_NOT_CRITICAL AUTHORITY_KEY_IDENTIFIER_CRITICAL
    SUBJECT_KEY_IDENTIFIER_CRITICAL CA_CERT_MISSING_KEY_USAGE EXTENSIONS_REQUIRE_VERSION_3
    EC_KEY_EXPLICIT_PARAMS RPK_UNTRUSTED OCSP_RESP_INVALID OCSP_SIGNATURE_FAILURE OCSP_NOT_YET_VALID
    OCSP_HAS_EXPIRED OCSP_NO_RESPONSE CRL_VERIFY_FAILED EMPTY_AUTHORITY_KEY_IDENTIFIER
    AKID_ISSUER_SERIAL_NOT_PAIRED
""".split()  # noqa: SIM905 - a list of as many strings would hide that they are numbered


def name_of(result: int) -> str:
    """Return the name of a verify result: OpenSSL's constant without its prefix, as Node spells it."""
    return _NAMES[result] if 0 <= result < len(_NAMES) else f"X509_V_ERR_{result}"


def text_of(result: int) -> str:
    """Return OpenSSL's familiar text for a verify result."""
    text: str = ffi.string(lib.X509_verify_cert_error_string(result)).decode()
    return text


def der_of(x509: Any, known: dict[Any, bytes]) -> bytes:
    """Return the DER of an ``X509 *``, which stays the caller's.

    Args:
        x509: The certificate.
        known: The DER of those that are known, to which this one is added.  OpenSSL must keep them meanwhile.
    """
    found = known.get(x509)
    if found is not None:
        return found
    bio = lib.BIO_new(lib.BIO_s_mem())
    try:
        lib.i2d_X509_bio(bio, x509)
        data = ffi.new("char **")
        length = lib.BIO_get_mem_data(bio, data)
        der = known[x509] = bytes(ffi.buffer(data[0], length))
        return der
    finally:
        lib.BIO_free(bio)


def ders_of(stack: Any, known: dict[Any, bytes]) -> tuple[bytes, ...]:
    """Return the DER of each certificate of a ``STACK_OF(X509) *``, which stays the caller's.

    Args:
        stack: The certificates.
        known: As for `der_of`.
    """
    if stack == NULL:
        return ()
    return tuple([der_of(lib.sk_X509_value(stack, index), known) for index in range(lib.sk_X509_num(stack))])


class PeerVerification:
    """The verdict on one peer's certificate chain.

    Attributes:
        problems: What is wrong with the chain, in the order in which OpenSSL found it.
        identity_error: The identity check's refusal.
        judged: Whether OpenSSL has asked for the verdict.
        ders: The DER of certificates of this handshake, by their ``X509 *``.
    """

    __slots__ = (
        "_at",
        "_check_identity",
        "_host",
        "_peer",
        "_reject",
        "ders",
        "identity_error",
        "judged",
        "problems",
    )

    def __init__(
        self,
        *,
        peer: Peer,
        reject: bool,
        at: dt.datetime | None = None,
        host: str = "",
        check_identity: Callable[[str, Certificate | None], object] | None = None,
    ) -> None:
        """Prepare a verdict.

        Args:
            peer: Which role the peer has.
            reject: Whether a problem ends the handshake; otherwise it is only remembered.
            at: The moment as of which OpenSSL judges; None is now.
            host: The name or address that the peer's certificate must be for.
            check_identity: Called with `host` and the peer's certificate once its chain is trusted; raises,
                or returns an exception, to refuse.
        """
        self._peer: Peer = peer
        self._reject = reject
        self._at = at
        self._host = host
        self._check_identity = check_identity
        self.judged = False
        self.ders: dict[Any, bytes] = {}
        self.problems: list[CertificateProblem] = []
        self.identity_error: IdentityError | None = None

    def on_verify(self, ok: int, store_ctx: Any) -> bool:
        """Take one call of OpenSSL's verify callback; return whether the verification goes on."""
        depth = lib.X509_STORE_CTX_get_error_depth(store_ctx)
        if not ok:
            result = lib.X509_STORE_CTX_get_error(store_ctx)
            x509 = lib.X509_STORE_CTX_get_current_cert(store_ctx)
            certificate = None if x509 == NULL else Certificate(der_of(x509, self.ders))
            self.problems.append(CertificateProblem(name_of(result), text_of(result), depth, certificate))
            # Name constraints are examined after the chain, and so after the verdict.
            return not (self.judged and self._reject)
        if depth > 0:
            return True
        self.judged = True
        if self._asks_for_identity:
            certificate = Certificate(der_of(lib.X509_STORE_CTX_get0_cert(store_ctx), self.ders))
            self.identity_error = self._refusal(certificate)
        if not self._reject:
            return True
        if self.problems:
            return False
        if self.identity_error is None:
            return True
        lib.X509_STORE_CTX_set_error(store_ctx, lib.X509_V_ERR_HOSTNAME_MISMATCH)
        return False

    def without_handshake(self, chain: Sequence[Certificate], result: int) -> CertificateError | None:
        """Return the verdict on a peer that presented nothing: it resumed a session, or has a pre-shared key.

        Args:
            chain: What it presented when the session was made, as far as that is known, its own first.
            result: What OpenSSL's verification gave then.
        """
        certificate = chain[0] if chain else None
        if result == lib.X509_V_OK:
            self.problems += self._out_of_date(chain)
        elif certificate is not None:
            self.problems.append(CertificateProblem(name_of(result), text_of(result), 0, certificate))
        if self._asks_for_identity:
            self.identity_error = self._refusal(certificate)
        return self.error()

    def is_current(self, chain: Sequence[Certificate]) -> bool:
        """Whether certificates are valid at the moment as of which is judged.

        Args:
            chain: The certificates, the peer's own first.
        """
        return not any(self._out_of_date(chain))

    def _out_of_date(self, chain: Sequence[Certificate]) -> Iterator[CertificateProblem]:
        """Yield a problem for each certificate that is not valid, the peer's own last, as OpenSSL does."""
        at = dt.datetime.now(dt.UTC) if self._at is None else self._at
        for depth, certificate in reversed([*enumerate(chain)]):
            if certificate.valid_to < at:
                result = lib.X509_V_ERR_CERT_HAS_EXPIRED
            elif certificate.valid_from > at:
                result = lib.X509_V_ERR_CERT_NOT_YET_VALID
            else:
                continue
            yield CertificateProblem(name_of(result), text_of(result), depth, certificate)

    def is_for_peer(self, certificate: Certificate) -> bool:
        """Whether the identity check would accept a certificate.

        Args:
            certificate: The peer's.
        """
        return self._check_identity is None or self._refusal(certificate) is None

    @property
    def _asks_for_identity(self) -> bool:
        # A check of the application's is asked only about chains that are trusted.  The standard one tells of
        # a wrong name in any case, so that nobody mends the chain only to learn of the name.
        check = self._check_identity
        return check is check_server_identity or (check is not None and not self.problems)

    def _refusal(self, certificate: Certificate | None) -> IdentityError | None:
        assert self._check_identity is not None
        try:
            result = self._check_identity(self._host, certificate)
        except Exception as refusal:  # noqa: BLE001 - a refusal may be any exception; it becomes the cause
            return self._refused(refusal, certificate)
        if inspect.iscoroutine(result):
            # What it would have said is not known.
            result.close()
            result = TypeError("it is called within OpenSSL and may not be async")
        return self._refused(result, certificate) if isinstance(result, Exception) else None

    def _refused(self, refusal: Exception, certificate: Certificate | None) -> IdentityError:
        if isinstance(refusal, IdentityError):
            return refusal.again()
        error = IdentityError(
            f"check_server_identity refused the certificate: {refusal}",
            host=self._host,
            certificate=certificate,
            hint="This program's own check_server_identity has refused it; the cause of this error says why.",
        )
        if not self._reject:
            # The verdict lives as long as the connection; with a traceback's frames it would be a cycle.
            refusal.__traceback__ = None
        error.__cause__ = refusal
        return error

    def error(self) -> CertificateError | None:
        """Hand out the verdict: None, or the last problem, as Node reports it."""
        identity_error, self.identity_error = self.identity_error, None
        if not self.problems:
            return identity_error
        error = certificate_error(self.problems, peer=self._peer, at=self._at)
        if identity_error is not None:
            error.problems += identity_error.problems
            error.hint += f" {identity_error.hint}"
        return error


def certificate_error(
    problems: Sequence[CertificateProblem], *, peer: Peer, at: dt.datetime | None = None
) -> CertificateError:
    """Return the error that stands for these problems: it is named after the last one, as Node's is.

    Args:
        problems: What is wrong with a chain, in the order in which OpenSSL found it.
        peer: Whose chain it is.
        at: The moment as of which it was judged; None is now.
    """
    last = problems[-1]
    return CertificateError(
        last.reason,
        code=last.code,
        certificate=last.certificate,
        depth=last.depth,
        problems=tuple(problems),
        hint=hint(problems, peer=peer, at=at),
    )
