"""PeerVerification: what OpenSSL finds wrong with the peer's certificate chain, and the verdict on it.

OpenSSL calls back for each problem and, at last, once with depth 0 and no new problem.  The verdict falls
at that last call, so that all problems are known when it is made, and inside the handshake, so that the peer
gets the alert that fits the last problem, which is also the one that Node reports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..certificates import Certificate
from ..errors import CertificateError, CertificateProblem, IdentityError
from .library import NULL, ffi, lib

_PREFIX = "X509_V_ERR_"
# Results that have a number but no constant in cryptography's bindings.
_WITHOUT_CONSTANT = {
    1: "UNSPECIFIED",
    66: "EE_KEY_TOO_SMALL",
    67: "CA_KEY_TOO_SMALL",
    68: "CA_MD_TOO_WEAK",
}

_names: dict[int, str] = _WITHOUT_CONSTANT | {
    getattr(lib, constant): constant.removeprefix(_PREFIX)
    for constant in dir(lib)
    if constant.startswith(_PREFIX)
}


def name_of(result: int) -> str:
    """Return the name of a verify result: OpenSSL's constant without its prefix, as Node spells it."""
    return _names.get(result, f"X509_V_ERR_{result}")


def text_of(result: int) -> str:
    """Return OpenSSL's familiar text for a verify result."""
    text: str = ffi.string(lib.X509_verify_cert_error_string(result)).decode()
    return text


def der_of(x509: Any) -> bytes:
    """Return the DER of an ``X509 *``, which stays the caller's."""
    bio = lib.BIO_new(lib.BIO_s_mem())
    try:
        lib.i2d_X509_bio(bio, x509)
        data = ffi.new("char **")
        length = lib.BIO_get_mem_data(bio, data)
        return bytes(ffi.buffer(data[0], length))
    finally:
        lib.BIO_free(bio)


def ders_of(stack: Any) -> tuple[bytes, ...]:
    """Return the DER of each certificate of a ``STACK_OF(X509) *``, which stays the caller's."""
    if stack == NULL:
        return ()
    return tuple(der_of(lib.sk_X509_value(stack, index)) for index in range(lib.sk_X509_num(stack)))


class PeerVerification:
    """The verdict on one peer's certificate chain.

    Attributes:
        problems: What is wrong with the chain, in the order in which OpenSSL found it.
        identity_error: The identity check's refusal.
    """

    __slots__ = ("_check_identity", "_host", "_judged", "_reject", "identity_error", "problems")

    def __init__(
        self,
        *,
        reject: bool,
        host: str = "",
        check_identity: Callable[[str, Certificate], object] | None = None,
    ) -> None:
        """Prepare a verdict.

        Args:
            reject: Whether a problem ends the handshake; otherwise it is only remembered.
            host: The name or address that the peer's certificate must be for.
            check_identity: Called with `host` and the peer's certificate once its chain is trusted; raises,
                or returns an exception, to refuse.
        """
        self._reject = reject
        self._host = host
        self._check_identity = check_identity
        self._judged = False
        self.problems: list[CertificateProblem] = []
        self.identity_error: IdentityError | None = None

    def on_verify(self, ok: int, store_ctx: Any) -> bool:
        """Take one call of OpenSSL's verify callback; return whether the verification goes on."""
        depth = lib.X509_STORE_CTX_get_error_depth(store_ctx)
        if not ok:
            result = lib.X509_STORE_CTX_get_error(store_ctx)
            x509 = lib.X509_STORE_CTX_get_current_cert(store_ctx)
            certificate = None if x509 == NULL else Certificate(der_of(x509))
            self.problems.append(CertificateProblem(name_of(result), text_of(result), depth, certificate))
            # Name constraints are examined after the chain, and so after the verdict.
            return not (self._judged and self._reject)
        if depth > 0:
            return True
        self._judged = True
        if self.problems:
            return not self._reject
        if self._check_identity is None:
            return True
        certificate = Certificate(der_of(lib.X509_STORE_CTX_get0_cert(store_ctx)))
        self.identity_error = self._refusal(certificate)
        if self.identity_error is None or not self._reject:
            return True
        lib.X509_STORE_CTX_set_error(store_ctx, lib.X509_V_ERR_HOSTNAME_MISMATCH)
        return False

    def _refusal(self, certificate: Certificate) -> IdentityError | None:
        assert self._check_identity is not None
        try:
            result = self._check_identity(self._host, certificate)
        except Exception as refusal:  # noqa: BLE001 - a refusal may be any exception; it becomes the cause
            return self._refused(refusal, certificate)
        return self._refused(result, certificate) if isinstance(result, Exception) else None

    def _refused(self, refusal: Exception, certificate: Certificate) -> IdentityError:
        if isinstance(refusal, IdentityError):
            return refusal.again()
        error = IdentityError(
            f"check_server_identity refused the certificate: {refusal}",
            host=self._host,
            certificate=certificate,
        )
        if not self._reject:
            # The verdict lives as long as the connection; with a traceback's frames it would be a cycle.
            refusal.__traceback__ = None
        error.__cause__ = refusal
        return error

    def error(self) -> CertificateError | None:
        """Hand out the verdict: None, or the last problem, as Node reports it."""
        if self.problems:
            return certificate_error(self.problems)
        error, self.identity_error = self.identity_error, None
        return error


def certificate_error(problems: Sequence[CertificateProblem]) -> CertificateError:
    """Return the error that stands for these problems: it is named after the last one, as Node's is."""
    last = problems[-1]
    return CertificateError(
        last.reason, code=last.code, certificate=last.certificate, depth=last.depth, problems=tuple(problems)
    )


def resumed_problem(result: int, certificate: Certificate | None) -> CertificateProblem:
    """Return the verify result that a resumed session carries as a problem of the peer's certificate."""
    return CertificateProblem(name_of(result), text_of(result), 0, certificate)
