"""Session: what a TLS session says of itself; and SessionCache: a client's sessions, by peer.

A session is the DER of OpenSSL's ``SSL_SESSION``: keys, what was negotiated with them, and what the server
finds its own half by, a ticket or a session identifier.  A handshake that resumes it needs no certificates
and no signatures.

**Why a session never crosses its key.**  A server that resumes presents no certificate: it shows that it has
the keys, and that is all (RFC 8446, section 2.2; RFC 5246, section 7.3).  Whether to trust it was decided
once, under the options of that time, and OpenSSL reports the stored verdict again, whatever the new
connection trusts.  So a session is found only by who asks for the same peer in the same way: place and name
(RFC 8446, section 4.6.1, wants the same SNI), trust, own certificate (the server remembers who its client
was), protocols.  The key stands for all of that; here it is opaque.

**Why a ticket of TLS 1.3 is used once.**  Who watches the wire sees the ticket when it is used, so a second
use tells that both connections are the same client's (RFC 8446, appendix C.4).  Servers send new ones.  A
session of TLS 1.2 stays: what names it was seen when it was issued, and a resumption need not bring another.

**What ends a session.**  A connection that ends with a fatal alert takes its session along: RFC 5246, section
7.2.2, demands it, and RFC 8446, section 6, wants its tickets discarded.  A transport that ends without
close_notify does not: that rule was TLS 1.0's (RFC 5246, section 7.2.1), and TLS 1.3 has none like it.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from .der import INTEGER, OCTET_STRING, SEQUENCE, elements, encoded, only_element
from .errors import ConfigurationError, ConfigurationTypeError
from .html_table import html_fields, html_table
from .iana import CIPHER_SUITES, VERSIONS
from .option_values import check_count

if TYPE_CHECKING:
    from .certificates import Certificate

MAX_LIFETIME: Final = 7 * 24 * 3600
"""How long a client may keep a ticket at most, in seconds, whatever the server says (RFC 8446, 4.6.1)."""

KEY_NAME_SIZE: Final = 16
"""How many bytes of a ticket name the keys that it is encrypted with (RFC 5077, section 4)."""

_TLS13: Final = "TLSv1.3"

# The form of the structure that OpenSSL writes.
_FORM: Final = b"\1"
# What stands before the optional fields: form, version, suite, identifier and master secret.
_REQUIRED_FIELDS: Final = 5
# The optional fields of its SSL_SESSION_ASN1: context-specific tags, in this order, of one octet.
_TIME: Final = 0xA1
_TIMEOUT: Final = 0xA2
_PEER_CERTIFICATE: Final = 0xA3
_SESSION_ID_CONTEXT: Final = 0xA4
_VERIFY_RESULT: Final = 0xA5
_SERVER_NAME: Final = 0xA6
_TICKET_LIFETIME_HINT: Final = 0xA9
_TICKET: Final = 0xAA
_MAX_EARLY_DATA: Final = 0xAF
_ALPN_PROTOCOL: Final = 0xB0
_LAST_TAG: Final = 0xBE
# What the fields hold.  A later OpenSSL may have more of them.
_TYPES: Final = {
    **dict.fromkeys(range(0xA1, 0xB5), OCTET_STRING),
    **dict.fromkeys((_TIME, _TIMEOUT, _VERIFY_RESULT, _TICKET_LIFETIME_HINT, _MAX_EARLY_DATA), INTEGER),
    # Flags, what is added to a ticket's age, the size of fragments, the group.
    **dict.fromkeys((0xAD, 0xAE, 0xB1, 0xB3), INTEGER),
    _PEER_CERTIFICATE: SEQUENCE,
}
# Those that a lifetime depends on.
_TERMS: Final = (_TIMEOUT, _TICKET_LIFETIME_HINT, _TICKET)
# An unsigned number of 64 bits.
_LONGEST_NUMBER: Final = 9


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Session:
    """What a session says of itself, its keys left out.

    Attributes:
        protocol: "TLSv1.2", "TLSv1.3" ...
        cipher_suite: IANA's number of the cipher suite.
        standard_name: IANA's name of it ("TLS_AES_256_GCM_SHA384"), or the number in hex.
        session_id: The session identifier.  In TLS 1.3, and beside a ticket, it is the client's own.
        ticket: The server's ticket, a secret, or None.
        ticket_lifetime_hint: How long the server means to take the ticket, in seconds; 0 if it does not say.
        time: When the session was made, in seconds since 1970.
        timeout: How long our own side means to use it, in seconds.
        peer_certificate: The certificate that the peer presented, in DER, or None.
        session_id_context: What whoever made it has tied it to; OpenSSL resumes it nowhere else.
        verify_result: What its verification gave, as OpenSSL's number; 0 is success.
        server_name: The name that the client sent as SNI, or None.
        max_early_data: How many bytes of early data the server takes.
        alpn_protocol: The application protocol, or None.
    """

    protocol: str
    cipher_suite: int
    standard_name: str
    session_id: bytes
    ticket: bytes | None
    ticket_lifetime_hint: int
    time: int
    timeout: int
    peer_certificate: bytes | None
    session_id_context: bytes
    verify_result: int
    server_name: str | None
    max_early_data: int
    alpn_protocol: str | None

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read a session.

        Only the structure is judged, and not the certificate in it: whether a session can be used is for
        OpenSSL to say, and for the server.

        Args:
            data: The DER of an ``SSL_SESSION``.

        Raises:
            ConfigurationError: it is something else, is cut, or is followed by something.
            ConfigurationTypeError: it is not bytes.
        """
        fields = _read(data, _TYPES)
        return cls(
            protocol=fields.protocol,
            cipher_suite=fields.cipher_suite,
            standard_name=CIPHER_SUITES.get(fields.cipher_suite) or f"0x{fields.cipher_suite:04x}",
            session_id=fields.session_id,
            ticket=fields.octets(_TICKET),
            ticket_lifetime_hint=fields.number(_TICKET_LIFETIME_HINT),
            time=fields.number(_TIME),
            timeout=fields.number(_TIMEOUT),
            peer_certificate=fields.peer_certificate,
            session_id_context=fields.octets(_SESSION_ID_CONTEXT) or b"",
            verify_result=fields.number(_VERIFY_RESULT),
            server_name=fields.text(_SERVER_NAME),
            max_early_data=fields.number(_MAX_EARLY_DATA),
            alpn_protocol=fields.text(_ALPN_PROTOCOL),
        )

    @property
    def resumable(self) -> bool:
        """Whether there is something to resume it by: a ticket, or before TLS 1.3 a session identifier."""
        return _resumable(self.protocol, self.ticket, self.session_id)

    @property
    def lifetime(self) -> int:
        """How long it may be used once it is made, in seconds: as both sides mean to, and at most 7 days.

        A hint of 0 says nothing before TLS 1.3 (RFC 5077, section 3.3); there it says that the ticket is not
        to be kept (RFC 8446, section 4.6.1).
        """
        return _lifetime(self.protocol, self.timeout, self.ticket_lifetime_hint)

    @property
    def expires_at(self) -> int:
        """When its lifetime is over, in seconds since 1970."""
        return self.time + self.lifetime

    def __repr__(self) -> str:
        name = "" if self.server_name is None else f" with {self.server_name!r}"
        resumable = f"resumable for {self.lifetime} s" if self.resumable else "not resumable"
        return f"<Session{name}, {self.protocol}, {self.standard_name}, {resumable}>"

    def _repr_html_(self) -> str:
        facts = {
            "protocol": self.protocol,
            "standard_name": self.standard_name,
            "server_name": self.server_name,
            "alpn_protocol": self.alpn_protocol,
            "ticket": None if self.ticket is None else f"{len(self.ticket)} bytes",
            "lifetime": f"{self.lifetime} s",
            "verify_result": self.verify_result,
            "max_early_data": f"{self.max_early_data} bytes",
        }
        badge = "resumable" if self.resumable else "not resumable"
        return html_table("Session", facts, badge=badge, tone="good" if self.resumable else "plain")


def _resumable(protocol: str, ticket: bytes | None, session_id: bytes) -> bool:
    return ticket is not None or (protocol != _TLS13 and session_id != b"")


def _lifetime(protocol: str, timeout: int, hint: int) -> int:
    if not hint and protocol != _TLS13:
        hint = timeout
    return min(timeout, hint, MAX_LIFETIME)


class _Fields:
    """The fields of a session.

    Args:
        data: The session in DER.
        wanted: The tags of the optional fields to look into.

    Raises:
        ValueError, LookupError: it is no session.
    """

    __slots__ = ("_values", "cipher_suite", "peer_certificate", "protocol", "session_id")

    def __init__(self, data: bytes, wanted: Iterable[int]) -> None:
        sequence, content = only_element(data)
        form, protocol, cipher_suite, session_id, master_secret, *optional = elements(content)
        if (sequence, form, protocol[0]) != (SEQUENCE, (INTEGER, _FORM), INTEGER):
            raise ValueError("no sequence that begins as a session")
        if not cipher_suite[0] == session_id[0] == master_secret[0] == OCTET_STRING:
            raise ValueError("no octets where there must be some")
        if len(cipher_suite[1]) != 2:
            raise ValueError("no number of a cipher suite")
        contents = dict(optional)
        tags = list(contents)
        if len(tags) != len(optional) or tags != sorted(tags):
            raise ValueError("fields out of order")
        if tags and not _TIME <= tags[0] <= tags[-1] <= _LAST_TAG:
            raise ValueError("no tag of a field")
        self.protocol = VERSIONS[int.from_bytes(protocol[1])]
        self.cipher_suite = int.from_bytes(cipher_suite[1])
        self.session_id = session_id[1]
        self.peer_certificate = contents.get(_PEER_CERTIFICATE)
        self._values = {tag: _value(tag, contents[tag]) for tag in wanted if tag in contents}

    def number(self, tag: int) -> int:
        return int.from_bytes(self._values.get(tag, b""))

    def octets(self, tag: int) -> bytes | None:
        # OpenSSL, too, takes an empty ticket for none.
        return self._values.get(tag) or None

    def text(self, tag: int) -> str | None:
        octets = self.octets(tag)
        return None if octets is None else octets.decode("latin-1")


def _value(tag: int, content: bytes) -> bytes:
    inner, value = only_element(content)
    if inner != _TYPES[tag]:
        raise ValueError("a field of another type")
    if inner == INTEGER and not (0 < len(value) <= _LONGEST_NUMBER and value[0] < 0x80):
        raise ValueError("a number out of range")
    return value


def named(session: bytes, server_name: str) -> bytes:
    """Return a session that says for which name it is.

    OpenSSL's says so only if the server has acknowledged the name, which many do not (RFC 6066, section 3).

    Args:
        session: The DER of an ``SSL_SESSION``.
        server_name: What the client has sent as SNI.
    """
    _, content = only_element(session)
    fields = elements(content)
    if any(tag == _SERVER_NAME for tag, _ in fields):
        return session
    fields.append((_SERVER_NAME, encoded(OCTET_STRING, server_name.encode("ascii"))))
    required, optional = fields[:_REQUIRED_FIELDS], sorted(fields[_REQUIRED_FIELDS:])
    return encoded(SEQUENCE, b"".join(encoded(*field) for field in (*required, *optional)))


def _read(data: bytes | bytearray | memoryview, wanted: Iterable[int]) -> _Fields:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        # What was given instead may be as secret.
        raise ConfigurationTypeError(
            f"session must be bytes. Received an instance of {type(data).__name__}", option="session"
        )
    try:
        return _Fields(bytes(data), wanted)
    except (ValueError, LookupError) as error:
        raise ConfigurationError("session must be an SSL_SESSION in DER", option="session") from error


class PeerChains(NamedTuple):
    """The certificates of a peer, of which a session holds the first alone; the peer's own comes first.

    Attributes:
        presented: Those that the peer presented when the session was made.
        verified: The chain from the peer's own to a trusted one; empty if it was not trusted.
    """

    presented: tuple[Certificate, ...]
    verified: tuple[Certificate, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SessionCacheStatistics:
    """How well a `SessionCache` serves.

    Attributes:
        hits: How often `SessionCache.take` had a session.
        misses: How often it had none.
        stored: How many sessions were ever stored.
    """

    hits: int
    misses: int
    stored: int

    def _repr_html_(self) -> str:
        return html_fields(self)


class _Kept(NamedTuple):
    """A session in a cache.

    Attributes:
        session: Its DER.
        chains: The peer's certificates, if they are known.
        single_use: Whether it is gone once it is taken.
        stored_at: When it came, on the clock of who stored it.
        expires_at: When its lifetime is over, on that clock.
    """

    session: bytes
    chains: PeerChains | None
    single_use: bool
    stored_at: float
    expires_at: float


class SessionCache:
    """The sessions of a client, by peer, for ``connect(session_cache=...)``.

    It keeps secrets, and only in memory.  A process that forks should `clear` it on one side: both would use
    the same tickets.  Its methods are atomic, so a cache used by several threads gives a ticket to one alone.

    Times come from one clock that never goes back, such as `trio.current_time`.  Each run of Trio has a clock
    of its own, with another beginning; a session that another run stored seems to have expired, or to come
    from the future, and is dropped.

    Args:
        max_sessions: The most sessions to keep.  When there are more, the peer that was unused for longest
            loses all of its.
        max_per_peer: The most sessions to keep of one peer; the oldest go first.

    Raises:
        ConfigurationError: a limit is less than 1.
        ConfigurationTypeError: a limit is no int.
    """

    __slots__ = ("_count", "_hits", "_lock", "_max_per_peer", "_max_sessions", "_misses", "_peers", "_stored")

    def __init__(self, max_sessions: int = 1024, max_per_peer: int = 4) -> None:
        self._max_sessions = check_count("max_sessions", max_sessions)
        self._max_per_peer = min(check_count("max_per_peer", max_per_peer), max_sessions)
        self._lock = threading.Lock()
        # The peer that was used last stands last.  No list is empty.
        self._peers: OrderedDict[Hashable, list[_Kept]] = OrderedDict()
        self._count = self._hits = self._misses = self._stored = 0

    def take(self, key: Hashable, now: float) -> bytes | None:
        """Return the newest session of a peer that can be used, or None; one of TLS 1.3 leaves the cache.

        Args:
            key: Everything that a session may not cross.
            now: The time, in seconds.
        """
        taken = self.take_with_chains(key, now)
        return None if taken is None else taken[0]

    def take_with_chains(self, key: Hashable, now: float) -> tuple[bytes, PeerChains | None] | None:
        """Do as `take` does; return the peer's certificates as well, as far as they were stored.

        Args:
            key: As for `take`.
            now: As for `take`.
        """
        with self._lock:
            usable = self._remove(key, now)
            if not usable:
                self._misses += 1
                return None
            self._hits += 1
            newest = usable.pop() if usable[-1].single_use else usable[-1]
            self._put_back(key, usable)
            return newest.session, newest.chains

    def store(
        self,
        key: Hashable,
        session: bytes | bytearray | memoryview,
        now: float,
        chains: PeerChains | None = None,
    ) -> None:
        """Keep a session that has just arrived, if it can be resumed.  Its lifetime counts from now.

        A session that is there already stays as it is.

        Args:
            key: Everything that a session may not cross.
            session: The DER of an ``SSL_SESSION``.
            now: The time, in seconds.
            chains: The peer's certificates, if they are known.

        Raises:
            ConfigurationError: `session` is something else, as far as its lifetime shows.
            ConfigurationTypeError: it is not bytes.
        """
        fields = _read(session, _TERMS)
        lifetime = _lifetime(fields.protocol, fields.number(_TIMEOUT), fields.number(_TICKET_LIFETIME_HINT))
        if not lifetime or not _resumable(fields.protocol, fields.octets(_TICKET), fields.session_id):
            return
        arrived = _Kept(bytes(session), chains, fields.protocol == _TLS13, now, now + lifetime)
        with self._lock:
            usable = self._remove(key, now)
            if arrived.session not in [kept.session for kept in usable]:
                usable.append(arrived)
                self._stored += 1
            self._put_back(key, usable[-self._max_per_peer :])
            while self._count > self._max_sessions:
                _, unused = self._peers.popitem(last=False)
                self._count -= len(unused)

    def forget(self, key: Hashable) -> None:
        """Drop all sessions of a peer: it refused one, or a connection to it ended with a fatal alert.

        Args:
            key: As it was stored under.
        """
        with self._lock:
            self._count -= len(self._peers.pop(key, ()))

    def clear(self) -> None:
        """Drop all sessions; the statistics stay."""
        with self._lock:
            self._peers.clear()
            self._count = 0

    @property
    def statistics(self) -> SessionCacheStatistics:
        """How well the cache has served since it was made."""
        with self._lock:
            return SessionCacheStatistics(hits=self._hits, misses=self._misses, stored=self._stored)

    def _remove(self, key: Hashable, now: float) -> list[_Kept]:
        """Take a peer's sessions out; return those that can be used, the oldest first."""
        sessions = self._peers.pop(key, ())
        self._count -= len(sessions)
        return [kept for kept in sessions if kept.stored_at <= now < kept.expires_at]

    def _put_back(self, key: Hashable, sessions: list[_Kept]) -> None:
        """Keep a peer's sessions, as those that were used last."""
        if sessions:
            self._peers[key] = sessions
            self._count += len(sessions)

    def __len__(self) -> int:
        """Return how many sessions there are; expired ones count until something is done with their peer."""
        return self._count

    def __repr__(self) -> str:
        return f"<SessionCache, sessions: {self._count}, peers: {len(self._peers)}>"
