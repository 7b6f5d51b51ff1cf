"""A client's SessionCache: which connection takes a session from it, what it leaves, and what it drops."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode import (
    ConfigurationError,
    ConfigurationTypeError,
    IdentityError,
    SecureContext,
    SessionCache,
    TLSServer,
    TLSStream,
)
from trio_tlsnode.options import SSL_OP_NO_TICKET
from trio_tlsnode.testing import Authority, StallingStream, default_authority

pytestmark = pytest.mark.feature("A19")

CA = default_authority().ca
CLIENT = SecureContext(ca=CA)
LEAF = default_authority().good("localhost", "a.example", "b.example", intermediates=1)
VERSIONS = ["TLSv1.2", "TLSv1.3"]
in_both_versions = pytest.mark.parametrize("version", VERSIONS)


def context_for(version: str, **options: Any) -> SecureContext:
    return SecureContext(**LEAF.options, min_version=version, max_version=version, **options)


SERVERS = {version: context_for(version) for version in VERSIONS}


async def greet(stream: TLSStream) -> None:
    await stream.send_all(b"hello")
    async for _ in stream:
        pass


# Over memory, with a cache of one's own


class Place:
    """A server that greets, and a client of it with a cache.

    Attributes:
        cache: The cache.
        server: The server, which may be replaced.
        offered: What each client has offered by way of tickets of TLS 1.3.
    """

    def __init__(self, nursery: trio.Nursery, context: SecureContext, **options: Any) -> None:
        self.cache = SessionCache()
        self.offered: list[tuple[bytes, ...]] = []
        self.server = TLSServer(self._note_and_greet, context, **options)
        self._nursery = nursery

    async def _note_and_greet(self, stream: TLSStream) -> None:
        assert stream.client_hello is not None
        self.offered.append(stream.client_hello.psk_identities)
        await greet(stream)

    async def connect(
        self, wrap: Callable[[trio.abc.Stream], trio.abc.Stream] = lambda stream: stream, **options: Any
    ) -> TLSStream:
        """Return a client's stream that has not read anything yet."""
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self.server.handle, wrap(theirs))
        given: dict[str, Any] = {"context": CLIENT, "host": "localhost", "session_cache": self.cache}
        return await tls.wrap_client(ours, **{**given, **options})

    async def visit(self, **options: Any) -> tls.ConnectionInfo:
        """Connect, hear the greeting, and part; return what was negotiated."""
        async with await self.connect(**options) as stream:
            assert await stream.receive_some() == b"hello"
            return stream.info

    async def reused(self, **options: Any) -> bool:
        """Visit; return whether a session was resumed, as both sides know."""
        before = self.server.statistics().resumed
        info = await self.visit(**options)
        assert self.server.statistics().resumed == before + info.session_reused
        return info.session_reused

    async def leave_sessions(self) -> None:
        """Fill the cache by a visit."""
        await self.visit()
        assert len(self.cache) > 0


@pytest.fixture(params=VERSIONS)
async def place(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Place:
    return Place(nursery, SERVERS[request.param])


async def test_the_second_connection_resumes_and_so_do_all_later_ones(place: Place) -> None:
    assert [await place.reused() for _ in range(4)] == [False, True, True, True]
    statistics = place.cache.statistics
    assert (statistics.hits, statistics.misses) == (3, 1)


@pytest.mark.feature("A21")
async def test_a_session_of_a_server_that_keeps_them_is_used_again_and_again(nursery: trio.Nursery) -> None:
    place = Place(nursery, context_for("TLSv1.2", secure_options=SSL_OP_NO_TICKET))
    assert [await place.reused() for _ in range(4)] == [False, True, True, True]
    assert place.cache.statistics.stored == len(place.cache) == 1


async def test_a_ticket_of_tls_1_3_is_offered_once(nursery: trio.Nursery) -> None:
    place = Place(nursery, SERVERS["TLSv1.3"])
    await place.leave_sessions()
    # Two at a time have two tickets, and the third has none.
    streams = [await place.connect() for _ in range(3)]
    assert [stream.info.session_reused for stream in streams] == [True, True, False]
    for stream in streams:
        assert await stream.receive_some() == b"hello"
        await stream.aclose()
    for _ in range(4):
        await place.visit()
    tickets = [ticket for offered in place.offered for ticket in offered]
    assert len(tickets) == len(set(tickets)) == 6


async def test_without_goodbye_sessions_stay(place: Place) -> None:
    stream = await place.connect()
    assert await stream.receive_some() == b"hello"
    await trio.aclose_forcefully(stream)
    assert await place.reused()


@pytest.mark.feature("A19")
async def test_sessions_expire_on_trios_clock(place: Place, mock_clock: MockClock) -> None:
    await place.leave_sessions()
    mock_clock.jump(299.5)
    assert await place.reused()
    place.cache.clear()
    await place.leave_sessions()
    mock_clock.jump(300)
    assert not await place.reused()
    assert place.cache.statistics.misses == 3


async def test_it_stays_within_its_bounds(nursery: trio.Nursery) -> None:
    place = Place(nursery, SERVERS["TLSv1.2"])
    place.cache = SessionCache(max_sessions=1)
    for host in ("a.example", "b.example"):
        await place.visit(host=host)
        assert len(place.cache) == 1
    assert await place.reused(host="b.example")
    assert not await place.reused(host="a.example")


# It never crosses trust


@pytest.mark.parametrize(
    "options",
    [
        {"context": SecureContext(ca=CA)},
        {"context": SecureContext(ca=[CA, Authority().ca])},
        {"context": SecureContext(ca=CA, **default_authority().client("alice").options)},
        {"host": "a.example"},
        {"server_name": "a.example"},
        {"server_name": ""},
        {"alpn_protocols": ["h2"]},
        {"reject_unauthorized": False},
        {"min_dh_size": 2048},
        {"ocsp": "verify"},
        {"on_ocsp_response": lambda response: None},
    ],
    ids=[
        *("context", "ca", "certificate", "host", "server_name", "no server_name", "alpn_protocols"),
        *("reject_unauthorized", "min_dh_size", "ocsp", "on_ocsp_response"),
    ],
)
async def test_a_session_is_for_equal_demands_alone(options: dict[str, Any], place: Place) -> None:
    await place.leave_sessions()
    hits = place.cache.statistics.hits
    assert not await place.reused(**options)
    assert place.cache.statistics.hits == hits
    assert await place.reused()
    assert await place.reused(**options)


async def test_equal_options_given_directly_are_the_same_peers(place: Place) -> None:
    assert not await place.reused(context=None, ca=CA)
    assert not await place.reused(context=None, ca=[CA, Authority().ca])
    assert await place.reused(context=None, ca=CA)


@pytest.mark.feature("A5")
async def test_a_check_that_refuses_on_a_resumed_connection_is_obeyed_and_the_peer_forgotten(
    place: Place,
) -> None:
    refusing = False

    def check(host: str, certificate: tls.Certificate | None) -> None:
        assert certificate is not None
        if refusing:
            raise LookupError("not today")

    await place.visit(check_server_identity=check)
    assert await place.reused(check_server_identity=check)
    refusing = True
    with pytest.raises(IdentityError) as caught:
        await place.connect(check_server_identity=check)
    assert isinstance(caught.value.__cause__, LookupError)
    assert len(place.cache) == 0
    refusing = False
    assert not await place.reused(check_server_identity=check)


@pytest.mark.feature("C2")
async def test_who_was_not_verified_is_not_when_resumed_either(place: Place) -> None:
    lenient: dict[str, Any] = {"context": SecureContext(ca=[]), "reject_unauthorized": False}
    for reused in (False, True, True):
        info = await place.visit(**lenient)
        assert info.session_reused == reused
        assert not info.authorized
        assert info.authorization_error is not None
        assert info.verified_chain == ()
        assert len(info.peer_certificate_chain) == 2


@pytest.mark.feature("C3")
async def test_the_chains_of_the_full_handshake_are_known_on_resumed_connections(place: Place) -> None:
    full = await place.visit()
    assert len(full.peer_certificate_chain) == 2
    assert len(full.verified_chain) == 3
    for _ in range(3):
        info = await place.visit()
        assert info.session_reused
        assert info.authorized
        assert info.peer_certificate == full.peer_certificate
        assert info.peer_certificate_chain == full.peer_certificate_chain
        assert info.verified_chain == full.verified_chain
        assert info.peer_certificate is not None
        assert info.peer_certificate.issuer_certificate == full.verified_chain[1]


# What makes it forget


async def test_a_server_that_does_not_resume_is_forgotten(place: Place) -> None:
    await place.leave_sessions()
    version = (await place.visit()).protocol
    # It has been restarted, and has other keys.
    place.server = TLSServer(greet, context_for(version))
    assert not await place.reused()
    assert await place.reused()
    # It has been restarted, and resumes no more.
    place.server = TLSServer(greet, context_for(version, session_timeout=0))
    assert [await place.reused() for _ in range(3)] == [False] * 3


def refuse_name(name: str) -> None:
    raise LookupError(name)


async def test_a_server_that_refuses_the_handshake_is_forgotten(place: Place) -> None:
    await place.leave_sessions()
    place.server = TLSServer(greet, SERVERS["TLSv1.3"], sni_callback=refuse_name)
    with pytest.raises(tls.PeerAlert):
        await place.connect()
    assert len(place.cache) == 0


@pytest.mark.parametrize("how", ["hangs up", "is silent"])
async def test_a_server_that_chokes_on_a_session_is_forgotten(
    how: str, place: Place, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    await place.leave_sessions()
    ours, theirs = memory_stream_pair()

    async def choke() -> None:
        await theirs.receive_some()
        if how == "hangs up":
            await theirs.aclose()

    nursery.start_soon(choke)
    with pytest.raises((tls.ConnectionLost, tls.HandshakeTimeout)):
        await tls.wrap_client(
            ours, context=CLIENT, host="localhost", session_cache=place.cache, handshake_timeout=10
        )
    assert len(place.cache) == 0


FORGED = b"\x17\3\3\0\x20" + bytes(32)


@pytest.mark.parametrize("whose", ["ours", "theirs"])
async def test_a_fatal_alert_after_the_handshake_makes_it_forget(whose: str, place: Place) -> None:
    await place.leave_sessions()
    ends: list[trio.abc.Stream] = []

    def note(transport: trio.abc.Stream) -> trio.abc.Stream:
        ends.append(transport)
        return transport

    stream = await place.connect(note)
    assert await stream.receive_some() == b"hello"
    assert len(place.cache) > 0
    # What is no record of this connection's makes who reads it give up.
    await (ends[0] if whose == "ours" else stream.transport_stream).send_all(FORGED)
    with pytest.raises(tls.ProtocolError if whose == "ours" else tls.PeerAlert):
        await stream.receive_some()
    assert len(place.cache) == 0
    await stream.aclose()
    assert not await place.reused()


async def test_a_transport_that_breaks_leaves_the_sessions(place: Place) -> None:
    async def greet_and_go(stream: TLSStream) -> None:
        await stream.send_all(b"hello")
        await trio.aclose_forcefully(stream)

    handler, place.server.handler = place.server.handler, greet_and_go
    async with await place.connect() as stream:
        assert await stream.receive_some() == b"hello"
        with pytest.raises(tls.TruncationError):
            await stream.receive_some()
    place.server.handler = handler
    assert await place.reused()


async def test_a_peer_that_is_silent_leaves_the_sessions(place: Place, autojump_clock: MockClock) -> None:
    async with await place.connect(idle_timeout=10) as stream:
        assert await stream.receive_some() == b"hello"
        with pytest.raises(tls.IdleTimeout):
            await stream.receive_some()
    assert await place.reused()


async def test_a_connection_that_is_cancelled_leaves_the_sessions_of_others(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    place = Place(nursery, SERVERS["TLSv1.3"])
    await place.leave_sessions()
    assert len(place.cache) == 2
    with trio.move_on_after(1):
        await place.connect(partial(StallingStream, receive_after=0))
    # What was sent is used.
    assert len(place.cache) == 1
    assert await place.reused()


# connect


@pytest.fixture
async def port(nursery: trio.Nursery) -> int:
    """The port on 127.0.0.1 of a server that greets."""
    server = TLSServer(greet, SecureContext(**LEAF.options))
    await nursery.start(server.serve, 0, "127.0.0.1")
    return server.addresses[0].port


async def resumes(port: int, **options: Any) -> bool:
    given: dict[str, Any] = {"server_name": "localhost", "context": CLIENT}
    async with await tls.connect("127.0.0.1", port, **{**given, **options}) as stream:
        assert await stream.receive_some() == b"hello"
        return stream.info.session_reused


async def test_connect_has_a_cache_by_default(port: int) -> None:
    assert [await resumes(port) for _ in range(3)] == [False, True, True]


async def test_none_switches_it_off(port: int) -> None:
    assert not await resumes(port)
    for _ in range(2):
        assert not await resumes(port, session_cache=None)
    assert await resumes(port)


async def test_another_cache_takes_its_place(port: int) -> None:
    cache = SessionCache()
    assert not await resumes(port)
    assert [await resumes(port, session_cache=cache) for _ in range(2)] == [False, True]
    assert cache.statistics.hits == 1


def test_each_run_has_its_own() -> None:
    context = SecureContext(**LEAF.options)

    async def main() -> list[bool]:
        server = TLSServer(greet, context)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, 0, "127.0.0.1")
            found = [await resumes(server.addresses[0].port) for _ in range(2)]
            nursery.cancel_scope.cancel()
        return found

    assert [trio.run(main) for _ in range(2)] == [[False, True]] * 2


async def test_a_session_is_for_one_port(nursery: trio.Nursery) -> None:
    context = SecureContext(**LEAF.options)
    ports = []
    for _ in range(2):
        server = TLSServer(greet, context)
        await nursery.start(server.serve, 0, "127.0.0.1")
        ports.append(server.addresses[0].port)
    assert not await resumes(ports[0])
    assert not await resumes(ports[1])
    assert await resumes(ports[0])


async def test_over_a_socket_that_was_connected_before_a_session_is_for_one_place(
    nursery: trio.Nursery,
) -> None:
    cache = SessionCache()
    ports = []
    for _ in range(2):
        server = TLSServer(greet, SecureContext(**LEAF.options))
        await nursery.start(server.serve, 0, "127.0.0.1")
        ports.append(server.addresses[0].port)

    async def resumes_over(port: int) -> bool:
        transport = await trio.open_tcp_stream("127.0.0.1", port)
        wrapped = await tls.wrap_client(transport, context=CLIENT, host="localhost", session_cache=cache)
        async with wrapped as stream:
            assert await stream.receive_some() == b"hello"
            return stream.info.session_reused

    reused = [await resumes_over(port) for port in (*ports, *ports)]
    assert reused == [False, False, True, True]


async def test_who_brings_a_session_leaves_the_cache_alone(port: int) -> None:
    sessions: list[bytes] = []
    assert not await resumes(port, on_session=sessions.append)
    # The two that the cache was told of as well are still there.
    assert await resumes(port, session=sessions[0])
    assert [await resumes(port) for _ in range(2)] == [True, True]
    key = tls.PreSharedKey("nobody", bytes(32))
    assert not await resumes(port, psk=lambda hint: None)
    for option in ({"session": sessions[0]}, {"psk": lambda hint: key}):
        with pytest.raises(ConfigurationError, match="session_cache does not go with session") as caught:
            await resumes(port, session_cache=SessionCache(), **option)
        assert caught.value.option == "session_cache"


async def test_what_is_no_cache_is_refused(port: int) -> None:
    with pytest.raises(
        ConfigurationTypeError, match="session_cache must be a SessionCache or None"
    ) as caught:
        await resumes(port, session_cache={})
    assert caught.value.option == "session_cache"


async def test_a_connection_that_is_not_made_uses_up_no_ticket(port: int, nursery: trio.Nursery) -> None:
    cache = SessionCache()
    listening = TLSServer(greet, SecureContext(**LEAF.options))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as serving:
            await serving.start(listening.serve, 0, "127.0.0.1")
            gone = listening.addresses[0].port
            await resumes(gone, session_cache=cache)
            scope.cancel()
    left = len(cache)
    assert left == 2
    for _ in range(3):
        with pytest.raises(tls.ConnectError):
            await resumes(gone, session_cache=cache)
    assert len(cache) == left


async def test_over_a_unix_socket_there_is_one_if_it_is_given(
    tmp_path_factory: pytest.TempPathFactory, nursery: trio.Nursery
) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    server = TLSServer(greet, SecureContext(**LEAF.options))
    await nursery.start(server.serve_unix, path)

    async def reused(**options: Any) -> bool:
        async with await tls.connect_unix(path, context=CLIENT, host="localhost", **options) as stream:
            assert await stream.receive_some() == b"hello"
            return stream.info.session_reused

    assert [await reused() for _ in range(2)] == [False, False]
    cache = SessionCache()
    assert [await reused(session_cache=cache) for _ in range(2)] == [False, True]


# Nothing is kept alive


async def test_the_cache_keeps_no_context(nursery: trio.Nursery) -> None:
    place = Place(nursery, SERVERS["TLSv1.3"])
    context = SecureContext(ca=CA)
    await place.visit(context=context)
    assert len(place.cache) == 2
    kept = weakref.ref(context)
    await wait_all_tasks_blocked()
    del context
    assert kept() is None
    # Nor does another context get what that one has left.
    assert not await place.reused(context=SecureContext(ca=CA))


async def test_a_stream_that_is_dropped_goes_without_the_garbage_collector(place: Place) -> None:
    await place.leave_sessions()
    gc.collect()
    gc.disable()
    try:
        stream = await place.connect()
        assert await stream.receive_some() == b"hello"
        kept = weakref.ref(stream._engine)
        del stream
        assert kept() is None
    finally:
        gc.enable()
