"""Groups: the key-exchange groups that the linked OpenSSL has, by their names."""

from __future__ import annotations

import functools
import re
from typing import Final

from ..errors import ConfigurationError, FeatureUnavailable
from ..iana import SUPPORTED_GROUPS
from ..info import EphemeralKey
from . import error_queue
from .library import SSL, features, lib
from .suggestions import did_you_mean

# By these names, too, OpenSSL and Node know them.
_OTHER_NAMES: Final = ("P-256", "P-384", "P-521", "prime256v1")
_IANA_NAMES: Final = {name.lower(): name for name in SUPPORTED_GROUPS.values()} | {
    "p-256": "secp256r1",
    "prime256v1": "secp256r1",
    "p-384": "secp384r1",
    "p-521": "secp521r1",
}
# OpenSSL's short names, which Node shows, where they are not IANA's.
_SHORT_NAMES: Final = {"x25519": "X25519", "x448": "X448", "secp256r1": "prime256v1"}
# Of the keys whose size is not in their name, in bits.
_SIZES: Final = {"x25519": 253, "x448": 448, "curveSM2": 256}
# Those of RFC 8422 and RFC 7027: TLS 1.2 exchanges keys by them, as by groups of RFC 7919, and by no others.
_CURVES: Final = re.compile(r"x25519|x448|sec[pt]\d+[kr]\d|brainpoolP\d+r1")
# What OpenSSL understands in front of a name (openssl's SSL_CTX_set1_groups_list).
_PREFIXES: Final = "?*-"


def get_groups() -> list[str]:
    """Return the names of all key-exchange groups that can be negotiated (Node: ``crypto.getCurves()``).

    They are IANA's, sorted; ``SecureContext(groups=...)`` takes names in any case.  Some are off by default.

    Raises:
        FeatureUnavailable: the bindings cannot choose groups.
    """
    return list(_available())


@functools.cache
def _available() -> tuple[str, ...]:
    found = (name for name in SUPPORTED_GROUPS.values() if _has(name))
    return tuple(sorted(found, key=str.lower))


def iana_name(group: str) -> str | None:
    """Return IANA's name of a group that is called by any of its names, in any case; None if it has none."""
    return _IANA_NAMES.get(group.lower())


def is_curve_of_tls12(group: str) -> bool:
    """Whether keys can be exchanged by a group in TLS 1.2, by ECDHE.

    Args:
        group: IANA's name of it.
    """
    return _CURVES.fullmatch(group) is not None


@functools.cache
def ephemeral_key(group: str) -> EphemeralKey:
    """Return the kind of key that a group stands for.

    Args:
        group: What OpenSSL calls the group.
    """
    name = iana_name(group) or group
    numbers = re.findall(r"[0-9]{3,}", name)
    size = _SIZES.get(name) or int(numbers[-1] if numbers else 0)
    if name.startswith("ffdhe"):
        return EphemeralKey(type="DH", name=None, size=size)
    return EphemeralKey(
        type="KEM" if "MLKEM" in name else "ECDH", name=_SHORT_NAMES.get(name, name), size=size
    )


def set_groups(context: SSL.Context, groups: str) -> bool:
    """Let a context have these groups, most preferred first; return whether OpenSSL takes the list.

    Raises:
        FeatureUnavailable: the bindings cannot choose groups.
    """
    if not features["groups"]:
        raise FeatureUnavailable(
            "groups cannot be chosen with this build of cryptography; 47 or newer can", feature="groups"
        )
    pointer = context._context  # noqa: SLF001 - the seam's business
    taken: bool = lib.SSL_CTX_set1_curves_list(pointer, groups.encode()) == 1
    error_queue.drain()
    return taken


def _has(groups: str) -> bool:
    # Of a context of its own: OpenSSL does not guard them against other threads.
    return set_groups(SSL.Context(SSL.TLS_METHOD), groups)


def check_groups(groups: str, *, option: str) -> str:
    """Return a list of groups as it may be set; "auto", OpenSSL's own choice, stays what it is.

    Args:
        groups: Names separated by colons, most preferred first.
        option: Which option it is from.

    Raises:
        ConfigurationError: a name is unknown.
        FeatureUnavailable: the bindings cannot choose groups.
    """
    if groups.lower() == "auto":
        return "auto"
    if _has(groups):
        return groups
    raise ConfigurationError(
        f"Failed to set ECDH curve: {_fault_of(groups)}. Received {option}={groups!r}",
        code="ERR_CRYPTO_OPERATION_FAILED",
        option=option,
    )


def _fault_of(groups: str) -> str:
    """Return, in words, what is wrong with a list that OpenSSL does not take."""
    for element in re.split("[:/]", groups):
        name = element.lstrip(_PREFIXES)
        if not name:
            return "an element of the list is empty"
        if name.upper() != "DEFAULT" and not _has(name):
            return f"this OpenSSL has no group {name!r}{did_you_mean(name, (*_available(), *_OTHER_NAMES))}"
    return "OpenSSL does not understand the list"
