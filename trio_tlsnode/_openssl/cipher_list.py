"""CipherList: a list of cipher suites in OpenSSL's syntax, in which TLS 1.3's names may stand too.

OpenSSL takes the suites of TLS 1.3 apart from the older ones, and passes over names that it does not know.
Here a name that nobody knows is an error, as a list with a typing error in it is not what it looks like.
Names of what OpenSSL once had, such as ``RC4-SHA`` or ``!EXPORT``, are still known, and match nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Final

from ..errors import ConfigurationError
from ..iana import CIPHER_SUITES
from .library import SSL
from .suggestions import did_you_mean

TLS13_CIPHERS: Final = ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")
"""The suites that are on by default in TLS 1.3, in OpenSSL's order."""

# openssl-ciphers(1), with what former versions had.
_KEYWORDS: Final = (
    "3DES ADH AECDH AES AES128 AES256 AESCCM AESCCM8 AESGCM ALL ARIA ARIA128 ARIA256 ARIAGCM CAMELLIA "
    "CAMELLIA128 CAMELLIA256 CBC CHACHA20 COMPLEMENTOFALL COMPLEMENTOFDEFAULT DEFAULT DES DH DHE DSS ECDH "
    "ECDHE ECDSA EDH EECDH EXP EXPORT EXPORT40 EXPORT56 FIPS GOST12 GOST89 GOST89MAC GOST94 HIGH IDEA "
    "KRB5 LOW MD5 MEDIUM NULL PSK RC2 RC4 RSA SEED SHA SHA1 SHA256 SHA384 SRP SSLv2 SSLv3 SUITEB128 "
    "SUITEB128C2 SUITEB128ONLY SUITEB192 TLSv1 TLSv1.0 TLSv1.2 aDH aDSS aECDH aECDSA aGOST aGOST01 "
    "aGOST12 aNULL aPSK aRSA aSRP eNULL kDH kDHE kDHEPSK kDHd kDHr kECDH kECDHE kECDHEPSK kECDHr kEDH "
    "kEECDH kGOST kGOST18 kPSK kRSA kRSAPSK kSRP"
)
# OpenSSL passes over these anywhere but at the beginning.
_ONLY_FIRST: Final = ("DEFAULT", "SUITEB")
# Suites that are no more, by what their names have in them.
_REMOVED: Final = re.compile(
    r"(.*-)?(3?DES|EXP\d*|GOST\w+|IDEA|KRB5|RC[24]|SEED)(-.*)?|(EC)?DH-(RSA|DSS|ECDSA)-.*", re.IGNORECASE
)
_SEPARATORS: Final = re.compile(r"[:,; ]+")


@dataclasses.dataclass(frozen=True, slots=True)
class CipherList:
    """A list of cipher suites, taken apart.

    Attributes:
        text: The list as it was given.
        tls13: The suites of TLS 1.3, most preferred first.
        older: OpenSSL's expression for the suites of the older versions, or "".
        security_level: What ``@SECLEVEL`` says, or None.
        pre_shared: Whether suites with pre-shared keys are named in it.
    """

    text: str
    tls13: tuple[str, ...]
    older: str
    security_level: int | None
    pre_shared: bool


@functools.lru_cache(64)
def parse_ciphers(ciphers: str) -> CipherList:
    """Take a list of cipher suites apart.

    Without a name of TLS 1.3 its default suites stay; without anything else there is no suite for the
    older versions.

    Raises:
        ConfigurationError: there is no name in it, or one that is unknown (``ERR_SSL_NO_CIPHER_MATCH``).
    """
    elements = [element for element in _SEPARATORS.split(ciphers) if element]
    if not elements:
        raise _invalid(ciphers, "it names nothing")
    added: list[str] = []
    excluded: set[str] = set()
    older: list[str] = []
    security_level = None
    # "DEFAULT!RC4@SECLEVEL=0" has three parts.
    for part in (part for element in elements for part in re.split("(?<=.)(?=[!@])", element)):
        operator = part[0] if part[0] in "-+!@" else ""
        name = part[len(operator) :]
        if operator == "@" and name.upper() == "STRENGTH":
            older.append(part)
        elif operator == "@":
            security_level = _security_level(ciphers, name)
        elif _is_tls13(name):
            suite = _known(ciphers, name)
            if operator in ("-", "!"):
                excluded.add(suite)
            else:
                added.append(suite)
        else:
            pieces = [_known(ciphers, piece) for piece in name.split("+")]
            if older and pieces[0].startswith(_ONLY_FIRST):
                raise _invalid(ciphers, f"{name} has an effect only at the beginning")
            older.append(operator + "+".join(pieces))
    if not added and not older:
        raise _no_match(ciphers, "it adds no suite")
    return CipherList(
        text=ciphers,
        tls13=tuple(suite for suite in dict.fromkeys(added or TLS13_CIPHERS) if suite not in excluded),
        older=":".join(older),
        security_level=security_level,
        pre_shared=any("PSK" in element.upper() and element[0] not in "-!" for element in elements),
    )


def get_ciphers() -> list[str]:
    """Return the names of all cipher suites that the linked OpenSSL has (Node's ``tls.getCiphers()``).

    They are sorted and in lower case; ``SecureContext(ciphers=...)`` takes names in any case.  Some are
    broken, and some are off by default or at the default security level.
    """
    return sorted(_suites())


@functools.cache
def _suites() -> Mapping[str, str]:
    """Return the suites as OpenSSL spells them, by their names in lower case."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_tls13_ciphersuites(":".join(filter(_is_tls13, CIPHER_SUITES.values())).encode())
    context.set_cipher_list(b"ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return {name.lower(): name for name in SSL.Connection(context, None).get_cipher_list()}


@functools.cache
def _names() -> Mapping[str, str]:
    """Return all that may stand in a list, as OpenSSL spells it, by its name in lower case."""
    others = (*CIPHER_SUITES.values(), *_KEYWORDS.split())
    return {**{name.lower(): name for name in others}, **_suites()}


def _is_tls13(name: str) -> bool:
    """Whether this is how a suite of TLS 1.3 is named: it says nothing of key exchange and authentication."""
    return name.upper().startswith("TLS_") and "_WITH_" not in name.upper()


def _known(ciphers: str, name: str) -> str:
    """Return a name as OpenSSL spells it."""
    known = _names().get(name.lower())
    if known is not None:
        return known
    if _REMOVED.fullmatch(name):
        return name
    raise _no_match(
        ciphers, f"there is no cipher suite or keyword {name!r}{did_you_mean(name, _names().values())}"
    )


def _security_level(ciphers: str, command: str) -> int:
    match = re.fullmatch("SECLEVEL=([0-5])", command, re.IGNORECASE)
    if match is None:
        raise _invalid(ciphers, f"@{command} is neither @STRENGTH nor @SECLEVEL=0 to @SECLEVEL=5")
    return int(match[1])


def _invalid(ciphers: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"The argument 'options.ciphers' is invalid: {reason}. Received {ciphers!r}", option="ciphers"
    )


def _no_match(ciphers: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"no cipher match: {reason}. Received ciphers={ciphers!r}",
        code="ERR_SSL_NO_CIPHER_MATCH",
        option="ciphers",
    )
