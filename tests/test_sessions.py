"""Session and SessionCache: what a session says of itself, and which session a connection is given."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import threading
import time
from typing import Any

import pytest
from engine_pairs import client, server
from hypothesis import given
from hypothesis import strategies as st

from trio_tlsnode import ConfigurationError, Engine
from trio_tlsnode._openssl.library import NULL, ffi, lib
from trio_tlsnode.certificates import Certificate
from trio_tlsnode.der import INTEGER, OCTET_STRING, SEQUENCE, elements, encoded, encoded_integer
from trio_tlsnode.errors import ConfigurationTypeError
from trio_tlsnode.iana import VERSIONS
from trio_tlsnode.options import SSL_OP_NO_TICKET
from trio_tlsnode.sessions import MAX_LIFETIME, Session, SessionCache, SessionCacheStatistics

TLS12, TLS13 = 0x0303, 0x0304
MASTER_SECRET = bytes(range(48))
TICKET = b"the ticket is secret"
SERVER_TIMEOUT, DAY = 100, 24 * 3600

# Sessions of real handshakes


@dataclasses.dataclass(frozen=True)
class Finished:
    """The sessions of a handshake, and who knows of it.

    Attributes:
        sessions: The client's and the server's, in DER.
        client: The client's engine.
    """

    sessions: tuple[bytes, bytes]
    client: Engine


def to_der(session: Any) -> bytes:
    size = lib.i2d_SSL_SESSION(session, NULL)
    der = ffi.new("unsigned char[]", size)
    assert lib.i2d_SSL_SESSION(session, ffi.new("unsigned char **", der)) == size
    return bytes(ffi.buffer(der, size))


def session_of(engine: Engine) -> bytes:
    session = ffi.gc(lib.SSL_get1_session(engine._ssl), lib.SSL_SESSION_free)
    return to_der(session)


def rewritten(der: bytes) -> bytes | None:
    """Return a session as OpenSSL writes it once it has read it, or None if it does not."""
    start = ffi.from_buffer(der)
    session = lib.d2i_SSL_SESSION(
        NULL, ffi.new("unsigned char **", ffi.cast("unsigned char *", start)), len(der)
    )
    lib.ERR_clear_error()
    return None if session == NULL else to_der(ffi.gc(session, lib.SSL_SESSION_free))


@functools.cache
def handshake(version: str, secure_options: int = 0) -> Finished:
    accepting = server(
        min_version=version,
        max_version=version,
        secure_options=secure_options,
        session_timeout=SERVER_TIMEOUT,
    )
    # It is for servers: a client asks for what the server allows, and at most for a day.
    ours = Engine(client(session_timeout=1), host="localhost", alpn_protocols=["h2", "http/1.1"])
    theirs = Engine(accepting, server_side=True, alpn_protocols=["h2"])
    while ours.info is None or theirs.info is None:
        for engine, peer in ((ours, theirs), (theirs, ours)):
            engine.do_handshake()
            if output := engine.drain():
                peer.feed(output)
    theirs.write(b"with tickets")
    ours.feed(theirs.drain())
    assert ours.read() == b"with tickets"
    return Finished((session_of(ours), session_of(theirs)), ours)


BOTH_VERSIONS = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
BOTH_NAMINGS = pytest.mark.parametrize("options", [0, SSL_OP_NO_TICKET], ids=["ticket", "identifier"])


def real_sessions() -> list[bytes]:
    return [
        session
        for version, options in itertools.product(["TLSv1.2", "TLSv1.3"], [0, SSL_OP_NO_TICKET])
        for session in handshake(version, options).sessions
    ]


@BOTH_VERSIONS
@BOTH_NAMINGS
def test_session_says_what_was_negotiated(version: str, options: int) -> None:
    result = handshake(version, options)
    session, info = Session.parse(result.sessions[0]), result.client.info
    assert info is not None
    assert info.peer_certificate is not None
    assert session.protocol == info.protocol == version
    assert session.standard_name == info.cipher.standard_name
    assert session.alpn_protocol == info.alpn_protocol == "h2"
    assert session.server_name == info.server_name == "localhost"
    assert session.peer_certificate == info.peer_certificate.raw
    assert (session.verify_result, session.max_early_data) == (0, 0)
    assert session.timeout == DAY
    assert 0 <= time.time() - session.time < 600


@BOTH_VERSIONS
def test_lifetime_is_what_both_sides_agree_to(version: str) -> None:
    session = Session.parse(handshake(version).sessions[0])
    assert (session.ticket_lifetime_hint, session.lifetime) == (SERVER_TIMEOUT, SERVER_TIMEOUT)
    assert session.expires_at == session.time + SERVER_TIMEOUT


@BOTH_VERSIONS
@BOTH_NAMINGS
def test_client_session_of_a_handshake_can_be_resumed(version: str, options: int) -> None:
    session = Session.parse(handshake(version, options).sessions[0])
    assert session.resumable
    # In TLS 1.3, a session identifier goes in a ticket.
    assert (session.ticket is None) == (version == "TLSv1.2" and options == SSL_OP_NO_TICKET)


@BOTH_VERSIONS
def test_server_with_tickets_keeps_nothing_to_resume(version: str) -> None:
    assert not Session.parse(handshake(version).sessions[1]).resumable


def test_verify_result_is_the_stored_one() -> None:
    ours = Engine(client(ca=[]), host="localhost", reject_unauthorized=False)
    theirs = Engine(server(), server_side=True)
    while ours.info is None:
        ours.do_handshake()
        theirs.feed(ours.drain())
        theirs.do_handshake()
        ours.feed(theirs.drain())
    session = Session.parse(session_of(ours))
    # unable to verify the first certificate
    assert session.verify_result == 21
    # The ticket is yet to come.
    assert not session.resumable


def test_openssl_reads_what_we_read() -> None:
    assert all(rewritten(session) == session for session in real_sessions())
    for session in (made(), made(TLS12), made(more=field(16, b"h2"))):
        openssls = rewritten(session)
        assert openssls is not None
        assert Session.parse(openssls) == Session.parse(session)


# Sessions made by hand


def field(number: int, value: int | bytes | None) -> bytes:
    """Return an optional field."""
    if value is None:
        return b""
    content = encoded_integer(value) if isinstance(value, int) else encoded(OCTET_STRING, value)
    return encoded(0xA0 + number, content)


def made(
    protocol: int = TLS13,
    *,
    suite: bytes = b"\x13\x02",
    session_id: bytes = b"",
    time: int | None = 1_000,
    timeout: int | None = 300,
    hint: int | None = 300,
    ticket: bytes | None = TICKET,
    more: bytes = b"",
) -> bytes:
    """Return a session in DER."""
    return encoded(
        SEQUENCE,
        encoded_integer(1)
        + encoded_integer(protocol)
        + encoded(OCTET_STRING, suite)
        + encoded(OCTET_STRING, session_id)
        + encoded(OCTET_STRING, MASTER_SECRET)
        + field(1, time)
        + field(2, timeout)
        + field(9, hint)
        + field(10, ticket)
        + more,
    )


@pytest.mark.parametrize(
    ("protocol", "timeout", "hint", "lifetime"),
    [
        (TLS13, 300, 200, 200),
        (TLS13, 200, 300, 200),
        (TLS13, 300, None, 0),
        (TLS13, None, 300, 0),
        (TLS13, MAX_LIFETIME + 1, MAX_LIFETIME + 1, MAX_LIFETIME),
        (TLS12, 300, 200, 200),
        (TLS12, 200, 300, 200),
        (TLS12, 300, None, 300),
        (TLS12, None, None, 0),
        (TLS12, 1 << 40, None, MAX_LIFETIME),
    ],
)
def test_lifetime_is_the_shortest_of_what_limits_it(
    protocol: int, timeout: int | None, hint: int | None, lifetime: int
) -> None:
    session = Session.parse(made(protocol, timeout=timeout, hint=hint))
    assert session.lifetime == lifetime
    assert session.expires_at == 1_000 + lifetime


@pytest.mark.parametrize(
    ("protocol", "ticket", "session_id", "resumable"),
    [
        (TLS13, TICKET, b"", True),
        (TLS13, None, b"id", False),
        (TLS13, b"", b"id", False),
        (TLS12, TICKET, b"", True),
        (TLS12, None, b"id", True),
        (TLS12, b"", b"", False),
        (TLS12, None, b"", False),
    ],
)
def test_resumable_needs_what_the_server_finds_it_by(
    protocol: int, ticket: bytes | None, session_id: bytes, resumable: bool
) -> None:
    session = Session.parse(made(protocol, ticket=ticket, session_id=session_id))
    assert session.resumable == resumable
    assert (session.ticket, session.session_id) == (ticket or None, session_id)


def test_what_is_not_there_is_none_or_nought() -> None:
    session = Session.parse(made(time=None, timeout=None, hint=None, ticket=None))
    assert (session.peer_certificate, session.server_name, session.alpn_protocol) == (None, None, None)
    assert (session.time, session.timeout, session.ticket_lifetime_hint) == (0, 0, 0)
    assert (session.verify_result, session.max_early_data) == (0, 0)


def test_all_bytes_like_forms_are_read() -> None:
    der = made()
    assert Session.parse(der) == Session.parse(bytearray(der)) == Session.parse(memoryview(der))


def test_early_data_and_verify_result_are_read() -> None:
    der = made(hint=None, ticket=None, more=field(5, 18) + field(15, 16384) + field(16, b"h2"))
    session = Session.parse(der)
    assert (session.verify_result, session.max_early_data, session.alpn_protocol) == (18, 16384, "h2")


def test_suite_without_a_name_is_named_by_its_number() -> None:
    session = Session.parse(made(suite=b"\xfe\xed"))
    assert (session.cipher_suite, session.standard_name) == (0xFEED, "0xfeed")


def test_fields_of_a_later_openssl_are_passed_over() -> None:
    assert Session.parse(made(more=encoded(0xB5, b"whatever"))) == Session.parse(made())


def test_session_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Session.parse(made()).timeout = 1  # type: ignore[misc]


def test_no_secret_is_shown() -> None:
    session = Session.parse(made(more=field(16, b"h2")))
    cache = SessionCache()
    cache.store(TICKET, made(), now=0)
    error = refused(made() + b"\0")
    shown = [
        repr(session),
        session._repr_html_(),
        repr(cache),
        repr(cache.statistics),
        str(error),
        repr(error),
        error._repr_html_(),
    ]
    assert shown[0] == "<Session, TLSv1.3, TLS_AES_256_GCM_SHA384, resumable for 300 s>"
    assert shown[2] == "<SessionCache, sessions: 1, peers: 1>"
    for text in shown:
        for secret in (TICKET, MASTER_SECRET[-8:]):
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text


def test_name_of_the_peer_is_shown_escaped() -> None:
    der = made(hint=None, ticket=None, more=field(6, b"<\n\xff>"))
    session = Session.parse(der)
    assert session.server_name == "<\n\xff>"
    assert repr(session) == r"<Session with '<\nÿ>', TLSv1.3, TLS_AES_256_GCM_SHA384, not resumable>"
    assert r"&lt;\nÿ&gt;" in session._repr_html_()


# What is no session


def refused(data: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        Session.parse(data)
    assert caught.value.option == "session"
    return caught.value


@pytest.mark.feature("A7")
def test_cut_session_is_refused() -> None:
    der = handshake("TLSv1.3").sessions[0]
    assert {refused(der[:size]).code for size in range(len(der))} == {"ERR_INVALID_ARG_VALUE"}


@pytest.mark.parametrize("following", [b"\0", b"\0\0", made()])
def test_session_with_something_behind_it_is_refused(following: bytes) -> None:
    refused(made() + following)


def required(
    *, form: bytes = b"\1", protocol: bytes = b"\3\4", suite: bytes = b"\x13\x02", octets: int = OCTET_STRING
) -> bytes:
    return (
        encoded(INTEGER, form)
        + encoded(INTEGER, protocol)
        + encoded(octets, suite)
        + encoded(OCTET_STRING, b"")
        + encoded(OCTET_STRING, MASTER_SECRET)
    )


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"garbage",
        b"-----BEGIN SSL SESSION PARAMETERS-----",
        encoded(SEQUENCE, b""),
        encoded(OCTET_STRING, required()),
        encoded(SEQUENCE, required(form=b"\2")),
        encoded(SEQUENCE, required(protocol=b"\3\5")),
        encoded(SEQUENCE, required(protocol=b"\xfe\xfd")),
        encoded(SEQUENCE, required(suite=b"\x13")),
        encoded(SEQUENCE, required(suite=b"\0\x13\x02")),
        encoded(SEQUENCE, required(octets=INTEGER)),
        encoded(SEQUENCE, required()[:-2]),
        made(more=field(5, 18)),
        made(more=field(10, TICKET)),
        made(more=field(9, 300)),
        made(more=encoded(0xA0, b"")),
        made(more=encoded(0xC1, b"")),
        made(more=encoded(OCTET_STRING, b"")),
        made(ticket=None, more=encoded(0xAA, encoded_integer(1))),
        made(ticket=None, more=encoded(0xAA, b"")),
        made(ticket=None, more=encoded(0xAA, encoded(OCTET_STRING, b"a") * 2)),
        made(more=encoded(0xAD, encoded(OCTET_STRING, b"\1"))),
        made(more=encoded(0xAF, encoded(INTEGER, b""))),
        made(more=encoded(0xAF, encoded(INTEGER, b"\x80"))),
        made(more=encoded(0xAF, encoded(INTEGER, b"\1" * 10))),
        made(hint=None, ticket=None, more=encoded(0xA3, encoded(OCTET_STRING, b"certificate"))),
    ],
)
def test_garbage_is_refused(der: bytes) -> None:
    assert refused(der).code == "ERR_INVALID_ARG_VALUE"


@pytest.mark.parametrize("value", [None, "DER", 5, [48], Session.parse(made())])
def test_what_is_not_bytes_is_refused_without_being_shown(value: Any) -> None:
    error = refused(value)
    assert isinstance(error, ConfigurationTypeError)
    assert str(error) == (
        f"session must be bytes. Received an instance of {type(value).__name__} [ERR_INVALID_ARG_TYPE]"
    )


def test_memory_that_is_gone_is_refused() -> None:
    view = memoryview(made())
    view.release()
    refused(view)


@st.composite
def damaged_sessions(draw: st.DrawFn) -> bytes:
    """Draw sessions with some bytes changed, left out or put in."""
    der = bytearray(draw(st.sampled_from(real_sessions())))
    for _ in range(draw(st.integers(1, 3))):
        # Most of what makes a difference stands near the beginning and the end.
        at = draw(st.one_of(st.integers(0, 120), st.integers(-320, -1), st.integers(0, len(der) - 1)))
        match draw(st.sampled_from(["change", "drop", "insert"])):
            case "change":
                der[at % len(der)] = draw(st.integers(0, 255))
            case "drop":
                del der[at % len(der)]
            case "insert":
                der.insert(at % len(der), draw(st.integers(0, 255)))
    return bytes(der)


def is_read_by_openssl_alone(session: bytes) -> bool:
    """Whether there is something in it that has no meaning: a negative number, a version without a name."""
    [(_, content)] = elements(session)
    _, (_, protocol), *others = elements(content)
    return int.from_bytes(protocol) not in VERSIONS or any(
        inner[0] == INTEGER and inner[2] & 0x80 for tag, inner in others if tag > 0xA0
    )


@given(damaged_sessions())
def test_damaged_session_is_read_or_refused(der: bytes) -> None:
    try:
        session = Session.parse(der)
    except ConfigurationError as error:
        assert error.option == "session"
        assert rewritten(der) != der or is_read_by_openssl_alone(der)
        return
    assert session.protocol in VERSIONS.values()
    assert 0 <= session.lifetime <= MAX_LIFETIME
    assert session.expires_at >= session.time
    assert isinstance(session.resumable, bool)
    assert repr(session)
    assert session._repr_html_()
    if session.peer_certificate is not None:
        assert repr(Certificate(session.peer_certificate))


@given(damaged_sessions() | st.binary(max_size=60))
def test_cache_keeps_a_damaged_session_or_refuses_it(der: bytes) -> None:
    cache = SessionCache()
    try:
        cache.store("peer", der, now=0)
    except ConfigurationError:
        refused(der)
        assert len(cache) == 0
    assert cache.take("peer", now=0) in (None, der)


# The cache

names = itertools.count()


def ticket(lifetime: int = 300) -> bytes:
    """Return a new session of TLS 1.3."""
    return made(TLS13, ticket=b"%d" % next(names), hint=lifetime)


def lasting(lifetime: int = 300) -> bytes:
    """Return a new session of TLS 1.2."""
    return made(TLS12, ticket=b"%d" % next(names), hint=lifetime)


def filled(*peers: str, **limits: int) -> SessionCache:
    """Return a cache with a lasting session for each peer, which is made of its name."""
    cache = SessionCache(**limits)
    for peer in peers:
        cache.store(peer, made(TLS12, ticket=peer.encode()), now=0)
    return cache


def peers_of(cache: SessionCache) -> list[Any]:
    """Return the peers that a cache has sessions of, the one that was unused for longest first."""
    return list(cache._peers)


@pytest.mark.feature("A19")
def test_ticket_of_tls_1_3_is_given_once() -> None:
    cache, session = SessionCache(), ticket()
    cache.store("peer", session, now=0)
    assert [cache.take("peer", now=1) for _ in range(2)] == [session, None]
    assert (len(cache), peers_of(cache)) == (0, [])


@pytest.mark.feature("A19")
def test_session_of_tls_1_2_stays() -> None:
    cache, session = SessionCache(), lasting()
    cache.store("peer", session, now=0)
    assert [cache.take("peer", now=1) for _ in range(3)] == [session] * 3


@pytest.mark.feature("A19")
def test_session_is_given_to_nobody_with_another_key() -> None:
    cache = filled("peer")
    assert cache.take("other", now=0) is None
    assert cache.take(("peer",), now=0) is None


def test_newest_comes_first() -> None:
    cache = SessionCache()
    sessions = [ticket(), lasting(), ticket(), ticket()]
    for session in sessions:
        cache.store("peer", session, now=0)
    _, lasting_one, third, fourth = sessions
    assert [cache.take("peer", now=0) for _ in range(4)] == [fourth, third, lasting_one, lasting_one]


@pytest.mark.feature("A19")
@pytest.mark.parametrize("new", [ticket, lasting])
def test_session_is_there_until_its_lifetime_is_over(new: Any) -> None:
    for age, is_there in ((0, True), (99.999, True), (100, False), (101, False)):
        cache, session = SessionCache(), new(lifetime=100)
        cache.store("peer", session, now=5000.5)
        assert cache.take("peer", now=5000.5 + age) == (session if is_there else None)


def test_no_session_is_kept_for_more_than_seven_days() -> None:
    session = made(TLS12, timeout=1 << 40, hint=1 << 31)
    for age, found in ((MAX_LIFETIME - 1, session), (MAX_LIFETIME, None)):
        cache = SessionCache()
        cache.store("peer", session, now=0)
        assert cache.take("peer", now=age) == found


def test_expired_session_gives_way_to_an_older_one_that_is_not() -> None:
    cache, older = SessionCache(), ticket(lifetime=100)
    cache.store("peer", older, now=0)
    cache.store("peer", ticket(lifetime=10), now=0)
    assert cache.take("peer", now=50) == older
    assert len(cache) == 0


def test_expired_sessions_take_no_room_from_others() -> None:
    cache, older, newer = SessionCache(max_per_peer=2), ticket(lifetime=100), ticket()
    for session, now in ((older, 0), (ticket(lifetime=10), 0), (newer, 50)):
        cache.store("peer", session, now)
    assert [cache.take("peer", now=50) for _ in range(3)] == [newer, older, None]


def test_session_from_the_future_is_dropped() -> None:
    cache = SessionCache()
    cache.store("peer", lasting(), now=1000)
    assert cache.take("peer", now=999) is None
    assert len(cache) == 0


@pytest.mark.parametrize(
    "session",
    [
        made(ticket=None, hint=None),
        made(TLS12, ticket=None, session_id=b""),
        made(hint=None),
        made(TLS12, timeout=None, hint=None),
    ],
    ids=["no ticket", "no name", "not to be kept", "no time"],
)
def test_session_that_cannot_be_resumed_is_not_kept(session: bytes) -> None:
    cache = SessionCache()
    cache.store("peer", session, now=0)
    assert (len(cache), cache.statistics.stored) == (0, 0)


def test_same_ticket_is_not_kept_twice() -> None:
    cache, session = SessionCache(), ticket(lifetime=100)
    for now in (0, 50):
        cache.store("peer", session, now)
    assert cache.statistics.stored == len(cache) == 1
    # Nor longer than at first.
    assert cache.take("peer", now=100) is None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_is_kept_does_not_change_with_its_owner(kind: Any) -> None:
    cache, session = SessionCache(), ticket()
    given = kind(session)
    cache.store("peer", given, now=0)
    if isinstance(given, bytearray):
        given[:] = bytes(len(given))
    taken = cache.take("peer", now=0)
    assert (type(taken), taken) == (bytes, session)


def test_garbage_leaves_the_cache_as_it_was() -> None:
    cache = filled("peer")
    for garbage in (b"garbage", None):
        with pytest.raises(ConfigurationError, match="session"):
            cache.store("peer", garbage, now=0)  # type: ignore[arg-type]
    assert cache.take("peer", now=0) == made(TLS12, ticket=b"peer")


def test_oldest_sessions_of_a_peer_go_first() -> None:
    cache, sessions = SessionCache(max_per_peer=2), [ticket() for _ in range(3)]
    for session in sessions:
        cache.store("peer", session, now=0)
    assert [cache.take("peer", now=0) for _ in range(3)] == [sessions[2], sessions[1], None]


def test_peer_that_was_unused_for_longest_goes_first() -> None:
    cache = filled("a", "b", "c", max_sessions=3)
    cache.take("a", now=0)
    cache.take("nobody", now=0)
    cache.store("b", made(TLS12, ticket=b"b"), now=0)
    assert peers_of(cache) == ["c", "a", "b"]
    cache.store("d", lasting(), now=0)
    assert peers_of(cache) == ["a", "b", "d"]


def test_peer_that_goes_loses_all_its_sessions() -> None:
    cache = filled("a", "b", max_sessions=3)
    cache.store("a", lasting(), now=0)
    cache.take("b", now=0)
    cache.store("c", lasting(), now=0)
    assert (peers_of(cache), len(cache)) == (["b", "c"], 2)


def test_one_peer_alone_can_fill_a_cache() -> None:
    cache, sessions = SessionCache(max_sessions=2, max_per_peer=4), [ticket() for _ in range(3)]
    for session in sessions:
        cache.store("peer", session, now=0)
    assert [cache.take("peer", now=0) for _ in range(3)] == [sessions[2], sessions[1], None]


def test_forgotten_peer_has_no_session() -> None:
    cache = filled("a", "a", "b")
    cache.forget("a")
    cache.forget("nobody")
    assert (peers_of(cache), len(cache)) == (["b"], 1)


def test_cleared_cache_has_no_session() -> None:
    cache = filled("a", "b")
    cache.clear()
    assert (peers_of(cache), len(cache)) == ([], 0)


def test_statistics_count_what_was_asked_for() -> None:
    cache = filled("a", "b")
    for peer in ("a", "a", "nobody"):
        cache.take(peer, now=0)
    cache.take("b", now=10_000)
    cache.clear()
    assert cache.statistics == SessionCacheStatistics(hits=2, misses=2, stored=2)


@pytest.mark.parametrize("option", ["max_sessions", "max_per_peer"])
@pytest.mark.parametrize("value", [0, -1])
def test_limit_below_one_is_refused(option: str, value: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be at least 1") as caught:
        SessionCache(**{option: value})
    assert (caught.value.option, caught.value.code) == (option, "ERR_OUT_OF_RANGE")


@pytest.mark.parametrize("option", ["max_sessions", "max_per_peer"])
@pytest.mark.parametrize("value", [None, "4", 4.0, True])
def test_limit_that_is_no_number_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationTypeError, match=f"{option} must be an int") as caught:
        SessionCache(**{option: value})
    assert caught.value.option == option


def test_threads_are_never_given_the_same_ticket() -> None:
    cache = SessionCache(max_per_peer=200)
    sessions = [ticket() for _ in range(200)]
    taken: list[bytes] = []
    start = threading.Barrier(4)

    def use(own: list[bytes]) -> None:
        start.wait()
        for session in own:
            cache.store("peer", session, now=0)
            if (found := cache.take("peer", now=0)) is not None:
                taken.append(found)

    threads = [threading.Thread(target=use, args=(sessions[at::4],)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(sessions)
    assert len(cache) == 0


@dataclasses.dataclass
class Entry:
    """A session in the model."""

    peer: str
    session: bytes
    single_use: bool
    stored_at: int
    expires_at: int


class Model:
    """A cache in the plainest words: a list of sessions, the oldest first, and one of peers, by last use."""

    def __init__(self, max_sessions: int, max_per_peer: int) -> None:
        self.max_sessions, self.max_per_peer = max_sessions, max_per_peer
        self.entries: list[Entry] = []
        self.used: list[str] = []

    def of(self, peer: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.peer == peer]

    def use(self, peer: str, now: int) -> None:
        for entry in self.of(peer):
            if not entry.stored_at <= now < entry.expires_at:
                self.entries.remove(entry)
        self.used = [other for other in self.used if other != peer] + [peer]

    def take(self, peer: str, now: int) -> bytes | None:
        self.use(peer, now)
        if not self.of(peer):
            return None
        newest = self.of(peer)[-1]
        if newest.single_use:
            self.entries.remove(newest)
        return newest.session

    def store(self, peer: str, session: bytes, lifetime: int, now: int, *, single_use: bool) -> None:
        self.use(peer, now)
        if session not in [entry.session for entry in self.of(peer)]:
            self.entries.append(Entry(peer, session, single_use, now, now + lifetime))
        while len(self.of(peer)) > self.max_per_peer:
            self.entries.remove(self.of(peer)[0])
        for unused in self.used[:-1]:
            if len(self.entries) > self.max_sessions:
                self.forget(unused)
        while len(self.entries) > self.max_sessions:
            self.entries.remove(self.entries[0])

    def forget(self, peer: str) -> None:
        self.entries = [entry for entry in self.entries if entry.peer != peer]


SESSIONS = [
    (made(protocol, hint=lifetime, ticket=b"%d" % name), lifetime, protocol == TLS13)
    for protocol in (TLS12, TLS13)
    for lifetime in (1, 5, 20)
    for name in range(2)
]
PEERS = ["a", "b", "c", "d"]
steps = st.one_of(
    st.tuples(st.just("store"), st.sampled_from(PEERS), st.sampled_from(SESSIONS)),
    st.tuples(st.just("take"), st.sampled_from(PEERS), st.none()),
    st.tuples(st.just("forget"), st.sampled_from(PEERS), st.none()),
    # A clock goes back where another one takes its place.
    st.tuples(st.just("wait"), st.none(), st.integers(-3, 10)),
)


@given(st.integers(1, 6), st.integers(1, 4), st.lists(steps, max_size=40))
def test_cache_does_what_the_model_does(max_sessions: int, max_per_peer: int, done: list[Any]) -> None:
    cache, model, now = SessionCache(max_sessions, max_per_peer), Model(max_sessions, max_per_peer), 0
    asked = 0
    for step, peer, operand in done:
        match step:
            case "store":
                session, lifetime, single_use = operand
                cache.store(peer, session, now)
                model.store(peer, session, lifetime, now, single_use=single_use)
            case "take":
                asked += 1
                assert cache.take(peer, now) == model.take(peer, now)
            case "forget":
                cache.forget(peer)
                model.forget(peer)
            case "wait":
                now += operand
        assert len(cache) == len(model.entries) <= max_sessions
        assert all(1 <= len(kept) <= max_per_peer for kept in cache._peers.values())
        assert cache.statistics.hits + cache.statistics.misses == asked
