"""ClientRule: which client certificates are let in, by the names in them."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from typing import Final, Literal, get_args

from .certificates import Certificate
from .errors import CertificateError, ConfigurationError

ClientNameKind = Literal["DNS", "URI", "email", "IP", "CN"]
"""A kind of name in a certificate: of the subjectAltName, or the common name of the subject."""

_KINDS: Final[tuple[ClientNameKind, ...]] = get_args(ClientNameKind)
# As `Certificate.alt_names` calls them.
_ALT_NAMES: Final = {"DNS": "DNS", "URI": "URI", "email": "email", "IP": "IP Address"}
# What a wildcard stands for: a part of a name that has one owner.
_PARTS: Final = {"DNS": "[^.]+", "URI": "[^/]+", "email": "[^@]+", "CN": None}


@dataclasses.dataclass(frozen=True, slots=True)
class ClientRule:
    """A rule that lets in clients by a name in their certificate, which has to be verified otherwise.

    Attributes:
        kind: Which kind of name: "DNS", "URI", "email", "IP" or "CN".
        pattern: The name.  ``*`` stands for a part of it: in a DNS name within one label, in a URI between
            slashes, in an e-mail address on one side of the at sign.  An IP may be a network
            ("10.0.0.0/8").  A common name has no wildcards.

    Raises:
        ConfigurationError: there is no such kind, or no such pattern.
    """

    kind: ClientNameKind
    pattern: str

    def __post_init__(self) -> None:
        """Refuse what cannot be a rule."""
        if self.kind not in _KINDS:
            raise ConfigurationError(
                f"{self.kind!r} is no kind of name; there are {', '.join(_KINDS)}", option="allow"
            )
        if not self.pattern:
            raise ConfigurationError("a rule needs a name", option="allow")
        if self.kind == "IP":
            try:
                ipaddress.ip_network(self.pattern)
            except ValueError as error:
                raise ConfigurationError(
                    f"{self.pattern!r} is no address or network: {error}", option="allow"
                ) from error

    @classmethod
    def parse(cls, text: str) -> ClientRule:
        """Return the rule of a text such as ``DNS:*.clients.test`` or ``URI:spiffe://app.test/web``.

        Args:
            text: A kind, a colon, and a pattern.

        Raises:
            ConfigurationError: it is no rule.
        """
        kind, colon, pattern = text.partition(":")
        found = next((known for known in _KINDS if known.lower() == kind.lower()), None)
        if found is None or not colon:
            raise ConfigurationError(
                f"{text!r} is no rule: DNS:NAME, URI:URI, email:ADDRESS, IP:NETWORK or CN:NAME is expected",
                option="allow",
            )
        return cls(found, pattern)

    def allows(self, certificate: Certificate) -> bool:
        """Whether a certificate has such a name.  Whether it can be trusted is another question.

        Args:
            certificate: The certificate.  One whose names are damaged is not let in.
        """
        try:
            return any(map(self._matches, self._names(certificate)))
        except CertificateError:
            return False

    def _names(self, certificate: Certificate) -> tuple[str, ...]:
        if self.kind == "CN":
            names = certificate.subject.get("CN", ())
            return (names,) if isinstance(names, str) else names
        wanted = _ALT_NAMES[self.kind]
        return tuple([value for kind, value in certificate.alt_names if kind == wanted])

    def _matches(self, name: str) -> bool:
        if self.kind == "IP":
            try:
                return ipaddress.ip_address(name) in ipaddress.ip_network(self.pattern)
            except ValueError:
                return False
        part = _PARTS[self.kind]
        pattern = (
            re.escape(self.pattern) if part is None else part.join(map(re.escape, self.pattern.split("*")))
        )
        # Domains have no case; what stands before the at sign, and in a URI, may have one.
        flags = re.IGNORECASE if self.kind == "DNS" else 0
        return re.fullmatch(pattern, name, flags | re.ASCII) is not None

    def __str__(self) -> str:
        return f"{self.kind}:{self.pattern}"
