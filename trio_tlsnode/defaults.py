"""Defaults: what a SecureContext takes where it is told nothing; settable for the whole process."""

from __future__ import annotations

from typing import Any, Final, cast

from cryptography import x509

from . import ca_store
from ._openssl.ssl_ctx import VERSIONS
from .credentials import TrustedOption
from .errors import ConfigurationError, ConfigurationTypeError
from .option_values import check_limit, check_seconds

# Forward secrecy and AEAD first, then what else is strong; nothing anonymous, unencrypted or obsolete.
_CORE_CIPHERS: Final = (
    "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:"
    "ECDHE-RSA-CHACHA20-POLY1305:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:"
    "ECDHE-RSA-AES128-GCM-SHA256:"
    "DHE-RSA-AES256-GCM-SHA384:"
    "DHE-RSA-AES128-GCM-SHA256:"
    "HIGH:!aNULL:!eNULL:!EXPORT:!DES:!3DES:!RC4:!MD5:!PSK:!SRP:!CAMELLIA:!ARIA:!DSS"
)


# Node's CLIENT_RENEG_LIMIT and CLIENT_RENEG_WINDOW.
_RENEGOTIATION_LIMIT: Final = 3
_RENEGOTIATION_WINDOW: Final = 600.0


def check_text(option: str, value: str) -> str:
    """Return a text that names something of OpenSSL's.

    Raises:
        ConfigurationTypeError: it is no str.
        ConfigurationError: no name has such characters; at a NUL OpenSSL would stop reading.
    """
    if not isinstance(value, str):
        raise ConfigurationTypeError(
            f'The "options.{option}" property must be of type string. Received {value!r}', option=option
        )
    if not value.isascii() or not value.isprintable():
        raise ConfigurationError(
            f"The property 'options.{option}' must be of visible ASCII characters. Received {value!r}",
            option=option,
        )
    return value


class Defaults:
    """The process's defaults (Node's ``tls.DEFAULT_...``); read when a `SecureContext` is made.

    Attributes:
        ciphers: The cipher list, in OpenSSL's syntax with TLS 1.3's names mixed in.  It sets no security
            level, so OpenSSL's own applies: 2, which wants RSA and DH of 2048 bits.
        groups: The key-exchange groups, or "auto" for OpenSSL's own choice.
        min_version: The oldest protocol version ("TLSv1.2").
        max_version: The newest protocol version ("TLSv1.3").
        renegotiation_limit: How often a peer of TLS 1.2 may renegotiate within `renegotiation_window`.
        renegotiation_window: A time in seconds.
        ca: The certificates that are trusted where a context does not say; forms as for
            ``SecureContext(ca=...)``.  None is Mozilla's list and the extra one of the environment.
    """

    __slots__ = (
        "ca",
        "ciphers",
        "groups",
        "max_version",
        "min_version",
        "renegotiation_limit",
        "renegotiation_window",
    )

    ciphers: str
    groups: str
    min_version: str
    max_version: str
    renegotiation_limit: int
    renegotiation_window: float
    ca: TrustedOption

    def __init__(self) -> None:
        self.reset()

    @property
    def core_ciphers(self) -> str:
        """The cipher list that `reset` returns to (Node's ``defaultCoreCipherList``)."""
        return _CORE_CIPHERS

    def reset(self) -> None:
        """Return to the values that this package comes with."""
        self.ciphers = _CORE_CIPHERS
        self.groups = "auto"
        self.min_version = "TLSv1.2"
        self.max_version = "TLSv1.3"
        self.renegotiation_limit = _RENEGOTIATION_LIMIT
        self.renegotiation_window = _RENEGOTIATION_WINDOW
        self.ca = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__slots__:
            raise AttributeError(f"there is no default {name!r} that can be set", name=name, obj=self)
        if name == "ca":
            # Refused now, not when the next context is made; copied, as a list may change.
            value = ca_store.parse(value)
        elif name == "renegotiation_limit":
            check_limit(name, value)
        elif name == "renegotiation_window":
            check_seconds(name, value)
        else:
            check_text(name, value)
        if name.endswith("_version") and value not in VERSIONS:
            raise ConfigurationError(
                f"{value!r} is no protocol version; there are {', '.join(VERSIONS)}",
                code="ERR_TLS_INVALID_PROTOCOL_VERSION",
                option=name,
            )
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in sorted(self.__slots__))
        return f"<trio_tlsnode.defaults {values}>"


defaults = Defaults()


def trusted_by_default() -> tuple[x509.Certificate, ...]:
    """Return whom contexts trust that are not told; the same tuple until `defaults.ca` changes."""
    # Setting it has parsed it.
    chosen = cast("tuple[x509.Certificate, ...] | None", defaults.ca)
    return ca_store.default() if chosen is None else chosen


def get_ca_certificates(name: str = "default") -> tuple[str, ...]:
    """Return a list of trusted certificates as PEM (Node's ``tls.getCACertificates``).

    Args:
        name: "default" (what a context trusts unless told otherwise), "bundled" (Mozilla's list), "system"
            (the operating system's) or "extra" (the file that ``NODE_EXTRA_CA_CERTS`` names).

    Raises:
        ConfigurationError: there is no such list.
        ConfigurationTypeError: `name` is no str.
    """
    if name == "default":
        return ca_store.pems(trusted_by_default())
    return ca_store.ca_certificates(name)
