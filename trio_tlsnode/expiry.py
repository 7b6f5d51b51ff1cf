"""Expiry: until when the certificates and revocation lists of a file are valid."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
from typing import Any, Final, Literal

from cryptography import x509

from .certificates import Certificate
from .credentials import Passphrase, load_credentials, load_crls, load_trusted_certificates
from .errors import CertificateError, ConfigurationError

ExpiryState = Literal["valid", "due", "expired", "not yet valid", "unreadable"]
"""How something stands at a moment: "due" is still valid, but should be renewed by now."""

# Renewals that happen by themselves, at two thirds of the validity or 30 days before its end, should be done
# by then.
_SHARE: Final = 4
_AHEAD: Final = dt.timedelta(days=21)
# Tried in this order; each says so if a file holds something else.
_NO_CERTIFICATE: Final = "ERR_OSSL_PEM_NO_START_LINE"
_NO_LIST: Final = "ERR_CRYPTO_OPERATION_FAILED"
_NO_PFX: Final = ("ERR_OSSL_ASN1_WRONG_TAG", "ERR_OSSL_ASN1_NOT_ENOUGH_DATA")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """Until when one certificate, or one revocation list, is valid.

    Attributes:
        path: The file that it is from.
        kind: Which of the two it is.
        name: Whom a certificate is for, or who issued a list.
        valid_from: The first moment of its validity; None if it is unreadable.
        valid_to: The last moment; None if it is unreadable, or a list that names no end.
        at: The moment as of which `state` is true.
        state: How it stands: "valid", "due", "expired", "not yet valid" or "unreadable".
        fingerprint256: The SHA-256 digest of a certificate, as upper-case hex with colons; None for a list.
    """

    path: str
    kind: Literal["certificate", "revocation list"]
    name: str
    valid_from: dt.datetime | None
    valid_to: dt.datetime | None
    at: dt.datetime
    state: ExpiryState
    fingerprint256: str | None

    @property
    def remaining(self) -> dt.timedelta | None:
        """How long it is still valid, negative if it has expired; None if it names no end."""
        return None if self.valid_to is None else self.valid_to - self.at

    def to_dict(self) -> dict[str, Any]:
        """Return it as what JSON has: the attributes, and ``remaining_seconds``.  Moments are in ISO 8601."""
        remaining = self.remaining
        return dataclasses.asdict(self) | {
            "valid_from": self.valid_from and self.valid_from.isoformat(timespec="seconds"),
            "valid_to": self.valid_to and self.valid_to.isoformat(timespec="seconds"),
            "at": self.at.isoformat(timespec="seconds"),
            "remaining_seconds": None if remaining is None else int(remaining.total_seconds()),
        }


def expiries(
    path: os.PathLike[str],
    *,
    passphrase: Passphrase | None = None,
    ahead: dt.timedelta | None = None,
    at: dt.datetime | None = None,
) -> tuple[Expiry, ...]:
    """Return until when the certificates, and the revocation lists, of a file are valid.

    Args:
        path: The file: PEM with any number of them, keys beside them too; or DER; or PKCS#12.
        passphrase: For PKCS#12.
        ahead: How long before its end something is due; None is a quarter of its validity, at most 21 days.
        at: The moment to judge by, an aware datetime; None is now.

    Returns:
        One for each, in the order of the file; certificates come first.

    Raises:
        ConfigurationError: the file cannot be read, or holds neither certificates nor lists.
    """
    at = dt.datetime.now(dt.UTC) if at is None else at
    name = os.fspath(path)
    found = [
        _of_certificate(name, Certificate.from_x509(item), at, ahead)
        for item in _certificates(path, passphrase)
    ]
    found += [_of_list(name, item, at, ahead) for item in _lists(path)]
    if not found:
        raise ConfigurationError(
            f"{name}: it holds neither certificates nor revocation lists", code=_NO_CERTIFICATE, path=name
        )
    return tuple(found)


def expiry_state(
    valid_from: dt.datetime | None,
    valid_to: dt.datetime | None,
    *,
    at: dt.datetime,
    ahead: dt.timedelta | None = None,
) -> ExpiryState:
    """Return how something stands that is valid from one moment to another.

    Args:
        valid_from: The first moment of its validity, if that can be read.
        valid_to: The last moment; None is never.
        at: The moment to judge by.
        ahead: As for `expiries`.
    """
    if valid_from is None:
        return "unreadable"
    if at < valid_from:
        return "not yet valid"
    if valid_to is None:
        return "valid"
    if at > valid_to:
        return "expired"
    if ahead is None:
        ahead = min(_AHEAD, (valid_to - valid_from) / _SHARE)
    return "due" if valid_to - at < ahead else "valid"


def _certificates(path: os.PathLike[str], passphrase: Passphrase | None) -> list[x509.Certificate]:
    try:
        return list(load_trusted_certificates(path) or ())
    except ConfigurationError as error:
        if error.code != _NO_CERTIFICATE:
            raise _located(error) from error
    try:
        pfx = load_credentials(pfx=path, passphrase=passphrase)
    except ConfigurationError as error:
        if error.code in _NO_PFX:
            return []
        raise _located(error) from error
    own = [certificate for pair in pfx.certified_keys for certificate in pair.chain]
    return list(dict.fromkeys((*own, *pfx.trusted)))


def _lists(path: os.PathLike[str]) -> list[x509.CertificateRevocationList]:
    try:
        return [item.crl for item in load_crls(path)]
    except ConfigurationError as error:
        if error.code != _NO_LIST:
            raise _located(error) from error
        return []


def _located(error: ConfigurationError) -> ConfigurationError:
    """Return an error that names the file, and not an option of a context."""
    reason = error.reason.removeprefix(f"{error.option} ({error.path}): ")
    return ConfigurationError(f"{error.path}: {reason}", code=error.code, path=error.path)


def _of_certificate(
    path: str, certificate: Certificate, at: dt.datetime, ahead: dt.timedelta | None
) -> Expiry:
    try:
        first, last = certificate.valid_from, certificate.valid_to
        state = expiry_state(first, last, at=at, ahead=ahead)
    except CertificateError:
        first, last, state = None, None, "unreadable"
    return Expiry(
        path=path,
        kind="certificate",
        name=_whom(certificate),
        valid_from=first,
        valid_to=last,
        at=at,
        state=state,
        fingerprint256=certificate.fingerprint256,
    )


def _of_list(
    path: str, crl: x509.CertificateRevocationList, at: dt.datetime, ahead: dt.timedelta | None
) -> Expiry:
    first, last = crl.last_update_utc, crl.next_update_utc
    return Expiry(
        path=path,
        kind="revocation list",
        name=crl.issuer.rfc4514_string(),
        valid_from=first,
        valid_to=last,
        at=at,
        state=expiry_state(first, last, at=at, ahead=ahead),
        fingerprint256=None,
    )


def _whom(certificate: Certificate) -> str:
    """Return whom a certificate is for: its names, or who its subject is."""
    try:
        names = [value for _, value in certificate.alt_names]
        if names:
            return ", ".join(names)
        subject = certificate.subject
        called = subject.get("CN") or ", ".join(
            part for value in subject.values() for part in ([value] if isinstance(value, str) else value)
        )
        return called if isinstance(called, str) else called[0]
    except CertificateError:
        return ""
