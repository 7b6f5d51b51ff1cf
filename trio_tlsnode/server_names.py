"""Server names: what a client sends as SNI (RFC 6066), and whom it expects to meet."""

from __future__ import annotations

import ipaddress
from typing import Final

from .errors import ConfigurationError, ConfigurationTypeError
from .identity import to_ascii

# Node's.
_DEFAULT_HOST: Final = "localhost"
# OpenSSL's TLSEXT_MAXLEN_host_name.
_MAX_SNI: Final = 255


def client_names(host: str | None, server_name: str | None) -> tuple[str | None, str]:
    """Return what a client sends as SNI, or None, and the name that it verifies."""
    for option, value in (("host", host), ("server_name", server_name)):
        if value is not None and not isinstance(value, str):
            raise ConfigurationTypeError(f"{option} must be a str. Received {value!r}", option=option)
    if server_name and _is_ip_address(server_name):
        raise ConfigurationError(
            f"server_name may not be an IP address: it is sent as SNI (RFC 6066). Received {server_name!r}",
            option="server_name",
        )
    identity = server_name or host or _DEFAULT_HOST
    if server_name == "" or _is_ip_address(identity):
        return None, identity
    try:
        return _sni(identity), identity
    except ValueError as error:
        raise ConfigurationError(
            f"{identity!r} is no host name: {error}", option="server_name" if server_name else "host"
        ) from error


def _sni(name: str) -> str:
    """Return a host name as it is sent.

    Raises:
        ValueError: it cannot be sent: OpenSSL would cut it off, or leave it out.
    """
    sent = to_ascii(name.removesuffix("."))
    if not 1 <= len(sent) <= _MAX_SNI:
        raise ValueError(f"it must have 1 to {_MAX_SNI} characters")
    if not sent.isprintable() or " " in sent:
        raise ValueError("it has a space or a control character")
    return sent


def _is_ip_address(text: str) -> bool:
    if ":" not in text and not text.removesuffix(".")[-1:].isdigit():
        # Most names are told from an address by this, at a tenth of the cost.
        return False
    try:
        ipaddress.ip_address(text.removesuffix(".").partition("%")[0])
    except ValueError:
        return False
    return True
