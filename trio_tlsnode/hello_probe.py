"""HelloProbe: a ClientHello that is only made to see what a server answers to it.

What a server chooses it says in the clear, in its first flight, and no key is needed to read it.  So a probe
can offer what no OpenSSL has any more, and costs the server next to nothing.  In TLS 1.3 it offers no key
share: the server answers with a HelloRetryRequest, which names its favourite among the groups (RFC 8446,
section 4.1.4).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from typing import Final

from .alerts import Alert
from .iana import CIPHER_SUITES, SIGNATURE_SCHEMES, SUPPORTED_GROUPS, VERSIONS
from .server_flight import ephemeral_dh_bits, messages, uses_dhe

SSL3: Final = 0x0300
TLS12: Final = 0x0303
TLS13: Final = 0x0304

_HANDSHAKE_RECORD: Final = 22
_ALERT_RECORD: Final = 21
_FATAL: Final = 2
_CLIENT_HELLO: Final = 1
_SERVER_HELLO: Final = 2
_SERVER_KEY_EXCHANGE: Final = 12
_SERVER_HELLO_DONE: Final = 14
_NAMED_CURVE: Final = b"\x03"
_MOST_IN_A_RECORD: Final = 1 << 14
# That a client knows of safe renegotiation (RFC 5746): some servers refuse one that does not.
_RENEGOTIATION_SCSV: Final = 0x00FF

_SERVER_NAME: Final = 0
_SUPPORTED_GROUPS: Final = 10
_EC_POINT_FORMATS: Final = 11
_SIGNATURE_ALGORITHMS: Final = 13
_SUPPORTED_VERSIONS: Final = 43
_KEY_SHARE: Final = 51

# A ServerHello: version, random, the length of the session id; behind that id, suite and compression method.
_SESSION_ID_AT: Final = 2 + 32

# They need something that both sides know beforehand: a key, a password, a Kerberos server.
_PREARRANGED: Final = ("PSK", "SRP", "KRB5", "ECCPWD", "ECJPAKE")
# What clients should want comes first, for servers that leave the choice to them.
_PREFERENCES: Final = ("ECDHE", "DHE", "GCM", "CHACHA20", "CCM")


def _older_suites() -> tuple[int, ...]:
    found = [
        (number, name)
        for number, name in CIPHER_SUITES.items()
        if number and "_WITH_" in name and not any(word in name for word in _PREARRANGED)
    ]
    found.sort(key=lambda suite: -sum(word in suite[1] for word in _PREFERENCES))
    return tuple(number for number, _ in found)


OLDER_SUITES: Final = _older_suites()
"""The cipher suites up to TLS 1.2, but for those that need something agreed upon beforehand."""

TLS13_SUITES: Final = tuple(
    number for number, name in CIPHER_SUITES.items() if "_WITH_" not in name and not name.endswith("_SCSV")
)
"""The cipher suites of TLS 1.3."""

GROUPS: Final = tuple(
    number for number, name in SUPPORTED_GROUPS.items() if not name.startswith("arbitrary_")
)
"""The key-exchange groups that have a name."""

CURVES: Final = tuple(number for number in GROUPS if not SUPPORTED_GROUPS[number].startswith("ffdhe"))
"""Those without RFC 7919's: who offers these does not see a server's own group for DHE suites."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HelloProbe:
    """What is offered to a server.

    Attributes:
        version: The only protocol version in TLS 1.3, the newest one before that.
        cipher_suites: The cipher suites, as numbers.
        groups: The key-exchange groups, as numbers.
        server_name: The name to send as SNI, if any.
    """

    version: int
    cipher_suites: tuple[int, ...]
    groups: tuple[int, ...] = GROUPS
    server_name: str | None = None

    def record(self) -> bytes:
        """Return the ClientHello, with random bytes of its own, as it is sent."""
        tls13 = self.version == TLS13
        suites = self.cipher_suites if tls13 else (*self.cipher_suites, _RENEGOTIATION_SCSV)
        hello = b"".join(
            (
                min(self.version, TLS12).to_bytes(2),
                os.urandom(32),
                # As in the middlebox compatibility mode (RFC 8446, appendix D.4).
                _vector(1, os.urandom(32) if tls13 else b""),
                _vector(2, _numbers(suites)),
                _vector(1, b"\0"),
                b"" if self.version == SSL3 else self._extensions(),
            )
        )
        message = bytes((_CLIENT_HELLO,)) + _vector(3, hello)
        assert len(message) <= _MOST_IN_A_RECORD
        # Servers before TLS 1.3 look at this version, too; all take the oldest that the hello is for.
        version = min(self.version, 0x0301)
        return bytes((_HANDSHAKE_RECORD,)) + version.to_bytes(2) + _vector(2, message)

    def _extensions(self) -> bytes:
        bodies = {}
        if self.server_name:
            bodies[_SERVER_NAME] = _vector(2, b"\0" + _vector(2, self.server_name.encode("ascii")))
        bodies[_SUPPORTED_GROUPS] = _vector(2, _numbers(self.groups))
        bodies[_EC_POINT_FORMATS] = b"\1\0"
        if self.version >= TLS12:
            bodies[_SIGNATURE_ALGORITHMS] = _vector(2, _numbers(SIGNATURE_SCHEMES))
        if self.version == TLS13:
            bodies[_SUPPORTED_VERSIONS] = _vector(1, TLS13.to_bytes(2))
            bodies[_KEY_SHARE] = _vector(2, b"")
        return _vector(2, b"".join(kind.to_bytes(2) + _vector(2, body) for kind, body in bodies.items()))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HelloAnswer:
    """What a server answered.

    Attributes:
        version: The version that it chose; None if it refused, as all others then.
        cipher_suite: The cipher suite that it chose.
        group: The group that it chose, where its first flight names one.
        dh_bits: The size of its own finite-field Diffie-Hellman group, where it uses one.
        alert: With what it refused; None if it only hung up, or did not refuse.
    """

    version: int | None = None
    cipher_suite: int | None = None
    group: int | None = None
    dh_bits: int | None = None
    alert: Alert | int | None = None


REFUSED: Final = HelloAnswer()
"""The answer of a server that hangs up, or speaks something else."""


def answer_of(flight: bytes) -> HelloAnswer | None:
    """Return a server's answer, or None if more of it has to arrive.

    Args:
        flight: What the server has sent so far, from its first byte on.
    """
    refusal = _refusal(flight)
    if refusal is not None:
        return refusal
    answer: HelloAnswer | None = None
    for kind, body in messages(flight):
        if answer is None:
            if kind != _SERVER_HELLO:
                return REFUSED
            answer = _server_hello(body)
            suite = CIPHER_SUITES.get(answer.cipher_suite or 0, "")
            if answer.version == TLS13 or not (uses_curve(suite) or uses_dhe(suite)):
                return answer
        elif kind == _SERVER_KEY_EXCHANGE:
            if uses_dhe(suite):
                return dataclasses.replace(answer, dh_bits=ephemeral_dh_bits(flight))
            named = body[:1] == _NAMED_CURVE
            return dataclasses.replace(answer, group=int.from_bytes(body[1:3]) if named else None)
        elif kind == _SERVER_HELLO_DONE:
            return answer
    return None


def uses_curve(cipher_suite: str) -> bool:
    """Whether a cipher suite up to TLS 1.2 exchanges keys by a curve that the server names.

    Args:
        cipher_suite: IANA's name of it.
    """
    return cipher_suite.startswith(("TLS_ECDHE_", "TLS_ECDH_anon_"))


def _refusal(flight: bytes) -> HelloAnswer | None:
    """Return the answer of a server that sends a fatal alert, or no TLS."""
    at = 0
    while at < len(flight):
        if flight[at] not in (_HANDSHAKE_RECORD, _ALERT_RECORD):
            # Behind its first messages, what a server of TLS 1.3 sends is encrypted.
            return None if at else REFUSED
        end = at + 5 + int.from_bytes(flight[at + 3 : at + 5])
        # Servers warn of a name that they do not know, and go on.
        if flight[at] == _ALERT_RECORD and len(flight) >= end >= at + 7 and flight[at + 5] == _FATAL:
            number = flight[at + 6]
            return HelloAnswer(alert=Alert(number) if number in _ALERTS else number)
        at = end
    return None


_ALERTS: Final = frozenset(Alert)


def _server_hello(body: bytes) -> HelloAnswer:
    version = int.from_bytes(body[:2])
    at = _SESSION_ID_AT + 1 + int.from_bytes(body[_SESSION_ID_AT : _SESSION_ID_AT + 1])
    suite = int.from_bytes(body[at : at + 2])
    group = None
    # Suite, compression method, and the length of the extensions.
    at += 2 + 1 + 2
    while at + 4 <= len(body):
        kind, size = int.from_bytes(body[at : at + 2]), int.from_bytes(body[at + 2 : at + 4])
        value = body[at + 4 : at + 4 + size]
        if kind == _SUPPORTED_VERSIONS:
            version = int.from_bytes(value)
        elif kind == _KEY_SHARE:
            group = int.from_bytes(value[:2])
        at += 4 + size
    return HelloAnswer(version=version, cipher_suite=suite, group=group) if version in VERSIONS else REFUSED


def _vector(size: int, content: bytes) -> bytes:
    """Return a vector of which the length has `size` bytes."""
    return len(content).to_bytes(size) + content


def _numbers(numbers: Iterable[int]) -> bytes:
    return b"".join(number.to_bytes(2) for number in numbers)
