"""check_server_identity: is this certificate for this name?

The verdicts and reasons are those of Node.js's ``tls.checkServerIdentity``, which follows RFC 6125: the names
of the subjectAltName come first, the common name counts only if there is no DNS name, and URIs never count.

A name that is not ASCII is compared in its A-label form, made by the ``idna`` package exactly as Trio makes
it before it asks the resolver (UTS 46, then IDNA 2008): the name that is checked is the name that was looked
up.  Node compares such a name as it stands, and the standard library's codec follows IDNA 2003, which takes
some names for others ("faß.de" for "fass.de").
"""

from __future__ import annotations

import functools
import re
import socket
import string
from typing import NamedTuple, Protocol

import idna

from .certificates import MOST_REMEMBERED, Certificate, Name
from .errors import CertificateError, ConfigurationTypeError, IdentityError


def check_server_identity(hostname: str, certificate: Certificate | None) -> None:
    """Return if the certificate is for this host, else raise.

    Whether the certificate can be trusted is another question, which is not asked here.

    Args:
        hostname: The name or IP address that was asked for.  A dot at its end does not count.
        certificate: The server's certificate.  None (a pre-shared key was used) is accepted.

    Raises:
        IdentityError: The certificate is for other names (``ERR_TLS_CERT_ALTNAME_INVALID``), or its
            subjectAltName cannot be read (``ERR_TLS_CERT_ALTNAME_FORMAT``).
        CertificateError: The certificate's subject was needed and cannot be read.
        ConfigurationTypeError: `hostname` is not a string.
    """
    if not isinstance(hostname, str):
        raise ConfigurationTypeError(
            f"a host is a name or an IP address as str, not {type(hostname).__name__}", option="host"
        )
    if certificate is None:
        return
    if isinstance(certificate, Certificate) and len(certificate.raw) <= MOST_REMEMBERED:
        refusal = _remembered_verdict(hostname, certificate.raw)
    else:
        refusal = _judge(hostname, certificate)
    if refusal is not None:
        raise IdentityError(
            refusal.reason,
            host=hostname,
            code=refusal.code,
            certificate=certificate,
            presented=refusal.presented,
            hint=refusal.hint,
        )


def to_ascii(hostname: str) -> str:
    """Return a host name with its U-labels as A-labels; one in ASCII is returned unchanged.

    Raises:
        ValueError: IDNA does not allow the name.
    """
    return hostname if hostname.isascii() else idna.encode(hostname, uts46=True).decode("ascii")


class _Named(Protocol):
    """What is read of a certificate."""

    @property
    def subject(self) -> Name: ...

    @property
    def subject_alt_name(self) -> str | None: ...


class _Refusal(NamedTuple):
    reason: str
    presented: tuple[str, ...]
    hint: str
    code: str = "ERR_TLS_CERT_ALTNAME_INVALID"


def _judge(hostname: str, certificate: _Named) -> _Refusal | None:
    """Return why the certificate is not for this host, or None if it is."""
    try:
        alt_names = certificate.subject_alt_name or ""
        entries = _split(alt_names)
    except (CertificateError, ValueError):
        return _Refusal(
            "Invalid subject alternative name string",
            (),
            "The certificate's names are damaged. Have it issued again.",
            code="ERR_TLS_CERT_ALTNAME_FORMAT",
        )
    dns_names = [entry[4:] for entry in entries if entry.startswith("DNS:")]
    addresses = [_canonical_ip(entry[11:]) for entry in entries if entry.startswith("IP Address:")]
    host = hostname.removesuffix(".")
    try:
        ascii_host = to_ascii(host)
    except ValueError:
        ascii_host = host

    address = _canonical_ip(ascii_host)
    if address:
        if address in addresses:
            return None
        reason = f"IP: {host} is not in the cert's list: {', '.join(addresses)}"
        return _refusal(reason, f"IP Address:{address}", [*dns_names, *addresses])

    names = dns_names
    if dns_names:
        reason = f"Host: {host}. is not in the cert's altnames: {alt_names}"
    elif common_name := certificate.subject.get("CN"):
        names = [common_name] if isinstance(common_name, str) else list(common_name)
        reason = f"Host: {host}. is not cert's CN: {','.join(names)}"
    else:
        reason = "Cert does not contain a DNS name"
    labels = ascii_host.removesuffix(".").translate(_LOWER).split(".")
    if any(_matches(labels, name) for name in names):
        return None
    return _refusal(reason, f"DNS:{ascii_host}", [*names, *addresses])


@functools.lru_cache(maxsize=128)
def _remembered_verdict(hostname: str, der: bytes) -> _Refusal | None:
    return _judge(hostname, Certificate(der))


def _refusal(reason: str, missing: str, names: list[str]) -> _Refusal:
    presented = tuple(filter(None, names))
    if not presented:
        return _Refusal(reason, (), f"Have the certificate issued with {missing} in its subjectAltName.")
    shown = ", ".join([name if name.isprintable() else repr(name) for name in presented[:5]])
    more = f" and {len(presented) - 5} more" if len(presented) > 5 else ""
    hint = (
        f"The certificate is for {shown}{more}. Connect by a name that it is for, "
        f"or have it issued with {missing} in its subjectAltName."
    )
    return _Refusal(reason, presented, hint)


_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|, |[^",]+|,', re.DOTALL)


def _split(alt_names: str) -> list[str]:
    """Split the text of a subjectAltName into its entries, unquoted.

    Raises:
        ValueError: a part in quotes is no JSON string.
    """
    if '"' not in alt_names:
        return alt_names.split(", ")
    import json

    entries = [""]
    at = 0
    while at < len(alt_names):
        piece = _PIECE.match(alt_names, at)
        if piece is None:
            raise ValueError("unbalanced quotes")
        at = piece.end()
        if piece[0] == ", ":
            entries.append("")
        else:
            entries[-1] += json.loads(piece[0]) if piece[0][0] == '"' else piece[0]
    return entries


def _canonical_ip(text: str) -> str:
    """Return an IP address as ``inet_ntop`` writes it, without its zone; "" for what is no address."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    if family == socket.AF_INET6:
        text = re.sub("%.+", "", text)
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError):
        return ""


_VISIBLE_ASCII = re.compile(r"[!-\x7f]+")
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def _matches(labels: list[str], pattern: str) -> bool:
    """Whether a name of a certificate covers a host's labels (RFC 6125, section 6.4).

    A wildcard stands for (a part of) the left-most label, not directly below a top-level domain, and not
    within an A-label.  U-labels in a certificate never match: how they are encoded is anyone's guess.
    """
    if not _VISIBLE_ASCII.fullmatch(pattern):
        return False
    wanted = pattern.removesuffix(".").lower().split(".")
    if "" in wanted or wanted[1:] != labels[1:]:
        return False
    first = wanted[0]
    prefix, wildcard, suffix = first.partition("*")
    if not wildcard or "xn--" in first:
        return first == labels[0]
    return (
        len(wanted) > 2
        and "*" not in suffix
        and len(labels[0]) >= len(prefix) + len(suffix)
        and labels[0].startswith(prefix)
        and labels[0].endswith(suffix)
    )
