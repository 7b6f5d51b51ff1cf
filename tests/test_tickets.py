"""The keys of session tickets: renewed on time, honoured for a while, handed on, and freed."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from trio.testing import MockClock, memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import (
    ConfigurationError,
    ConfigurationTypeError,
    FeatureUnavailable,
    PreSharedKey,
    SecureContext,
    TLSServer,
    TLSStream,
)
from trio_tlsnode._openssl.ssl_ctx import VERIFY_NONE, VERIFY_REQUIRED
from trio_tlsnode.der import OCTET_STRING, SEQUENCE, elements, encoded
from trio_tlsnode.options import SSL_OP_NO_TICKET
from trio_tlsnode.sessions import KEY_NAME_SIZE, Session
from trio_tlsnode.testing import IssuedCertificate, default_authority

AUTHORITY = default_authority()
CLIENT = SecureContext(ca=AUTHORITY.ca)
VERSIONS = ["TLSv1.2", "TLSv1.3"]
in_both_versions = pytest.mark.parametrize("version", VERSIONS)
PERIOD = 3600.0


def issued(*names: str) -> IssuedCertificate:
    return AUTHORITY.good(*(names or ("localhost",)))


def context_for(version: str, presented: IssuedCertificate | None = None, **options: Any) -> SecureContext:
    return SecureContext(
        **(presented or issued()).options, **{"min_version": version, "max_version": version, **options}
    )


def presents(presented: IssuedCertificate) -> tls.Certificate:
    return tls.Certificate(load_pem_x509_certificate(presented.cert).public_bytes(Encoding.DER))


async def greet(stream: TLSStream) -> None:
    await stream.send_all(b"hello")
    async for _ in stream:
        pass


class Visitor:
    """Clients of a server, over memory.

    Attributes:
        server: The server.
    """

    def __init__(self, nursery: trio.Nursery, context: SecureContext, **options: Any) -> None:
        self.server = TLSServer(greet, context, **options)
        self._nursery = nursery

    async def visit(self, session: bytes | None = None, **options: Any) -> tuple[tls.ConnectionInfo, bytes]:
        """Visit the server; return what was negotiated, and the newest session."""
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self.server.handle, theirs)
        sessions = [session]
        given: dict[str, Any] = {"context": CLIENT, "host": "localhost"}
        stream = await tls.wrap_client(
            ours, session=session, on_session=sessions.append, **{**given, **options}
        )
        async with stream:
            assert await stream.receive_some() == b"hello"
        assert sessions[-1] is not None
        return stream.info, sessions[-1]

    async def session(self, **options: Any) -> bytes:
        """Return the session of a full handshake."""
        info, session = await self.visit(**options)
        assert not info.session_reused
        return session

    async def resumes(self, session: bytes, **options: Any) -> bool:
        """Return whether a session is resumed, as both sides know."""
        before = self.server.statistics().resumed
        info, _ = await self.visit(session, **options)
        assert self.server.statistics().resumed == before + info.session_reused
        return info.session_reused


def key_name(session: bytes) -> bytes:
    ticket = Session.parse(session).ticket
    assert ticket is not None
    return ticket[:KEY_NAME_SIZE]


# Rotation


@pytest.mark.feature("E2")
@in_both_versions
async def test_keys_are_honoured_in_their_period_and_the_next(
    version: str, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    visitor = Visitor(nursery, context_for(version), ticket_rotation=PERIOD)
    session = await visitor.session()
    seen = []
    for _ in range(6):
        seen.append(await visitor.resumes(session))
        mock_clock.jump(PERIOD / 2)
    # The keys are replaced after one period, whenever the client comes in it.
    assert seen == [True, True, True, True, False, False]


@pytest.mark.feature("E2")
@in_both_versions
async def test_each_period_has_keys_of_its_own(
    version: str, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    visitor = Visitor(nursery, context_for(version), ticket_rotation=PERIOD)
    names = []
    for _ in range(3):
        names += [key_name(await visitor.session()) for _ in range(2)]
        mock_clock.jump(PERIOD)
    assert names[::2] == names[1::2]
    assert len(set(names)) == 3


@pytest.mark.feature("E2")
@in_both_versions
async def test_keys_that_nobody_used_for_two_periods_are_old(
    version: str, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    visitor = Visitor(nursery, context_for(version), ticket_rotation=PERIOD)
    session = await visitor.session()
    mock_clock.jump(2 * PERIOD)
    assert not await visitor.resumes(session)


@pytest.mark.feature("E2")
@in_both_versions
async def test_without_rotation_keys_stay(version: str, nursery: trio.Nursery, mock_clock: MockClock) -> None:
    visitor = Visitor(nursery, context_for(version))
    session = await visitor.session()
    mock_clock.jump(1e6)
    assert await visitor.resumes(session)


@pytest.mark.feature("E2")
async def test_no_handshake_fails_under_load_while_keys_rotate(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    visitor = Visitor(nursery, SecureContext(**issued().options), ticket_rotation=10)
    clients = [
        SecureContext(ca=AUTHORITY.ca, min_version=version, max_version=version) for version in VERSIONS
    ]
    resumed = []

    async def come_again(number: int) -> None:
        session = None
        for _ in range(8):
            info, session = await visitor.visit(session, context=clients[number % 2])
            resumed.append(info.session_reused)
            mock_clock.jump(0.25)

    async with trio.open_nursery() as clients_nursery:
        for number in range(10):
            clients_nursery.start_soon(come_again, number)
    assert trio.current_time() >= 20
    statistics = visitor.server.statistics()
    assert statistics.secure == len(resumed) == 80
    assert statistics.failed == {}
    # Each has a full handshake at first; after two periods a session of TLS 1.2 is over.
    assert sum(resumed) >= 60


@pytest.mark.feature("E2")
async def test_a_context_that_keeps_its_sessions_has_nothing_to_rotate(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    context = context_for("TLSv1.2", secure_options=SSL_OP_NO_TICKET)
    visitor = Visitor(nursery, context, ticket_rotation=PERIOD)
    session = await visitor.session()
    mock_clock.jump(5 * PERIOD)
    assert await visitor.resumes(session)


@pytest.mark.feature("E2")
@in_both_versions
async def test_each_context_chosen_by_name_rotates(
    version: str, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    visitor = Visitor(nursery, context_for(version), ticket_rotation=PERIOD)
    for name in ("a.example", "b.example"):
        visitor.server.add_context(name, context_for(version, issued(name)))
    session = await visitor.session(host="a.example")
    mock_clock.jump(PERIOD / 2)
    other = await visitor.session(host="b.example")
    mock_clock.jump(PERIOD)
    assert await visitor.resumes(session, host="a.example")
    assert await visitor.resumes(other, host="b.example")
    mock_clock.jump(PERIOD * 0.75)
    assert not await visitor.resumes(session, host="a.example")
    assert await visitor.resumes(other, host="b.example")


@pytest.mark.feature("B8")
@pytest.mark.feature("E2")
@in_both_versions
async def test_clients_with_certificates_are_known_by_earlier_keys_too(
    version: str, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    visitor = Visitor(
        nursery, context_for(version, ca=AUTHORITY.ca), ticket_rotation=PERIOD, request_cert=True
    )
    names: list[object] = []

    async def note(stream: TLSStream) -> None:
        assert stream.authorized
        assert stream.info.peer_certificate is not None
        names.append(stream.info.peer_certificate.subject["CN"])
        await greet(stream)

    visitor.server.handler = note
    alice = SecureContext(ca=AUTHORITY.ca, **AUTHORITY.client("alice").options)
    session = await visitor.session(context=alice)
    mock_clock.jump(PERIOD)
    assert await visitor.resumes(session, context=alice)
    assert names == ["alice", "alice"]


@pytest.mark.feature("B12")
@pytest.mark.feature("E2")
@in_both_versions
async def test_credentials_of_one_connection_rotate_too(
    version: str, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    presented = issued()
    chosen = context_for(version, presented)

    def choose(choice: tls.Choice) -> str:
        choice.use_credentials(chosen)
        return "h2"

    visitor = Visitor(nursery, context_for(version), alpn_callback=choose, ticket_rotation=PERIOD)
    info, session = await visitor.visit(alpn_protocols=["h2"])
    assert info.peer_certificate == presents(presented)
    mock_clock.jump(PERIOD)
    assert await visitor.resumes(session, alpn_protocols=["h2"])
    # Those of others are not opened by their keys.
    assert not await visitor.resumes(session)


@pytest.mark.feature("B13")
@pytest.mark.feature("E2")
@in_both_versions
async def test_a_server_with_pre_shared_keys_rotates_too(
    version: str, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    key = PreSharedKey("a", bytes(range(32)))
    ciphers = "DEFAULT:PSK" if version == "TLSv1.2" else None
    context = context_for(version, ciphers=ciphers)
    visitor = Visitor(
        nursery,
        context,
        psk=lambda stream, identity: key if identity == "a" else None,
        ticket_rotation=PERIOD,
    )
    with_key = SecureContext(ca=AUTHORITY.ca, ciphers="PSK" if version == "TLSv1.2" else None)
    session = await visitor.session()
    for _ in range(2):
        info, _ = await visitor.visit(
            context=with_key, psk=lambda hint: key, check_server_identity=lambda host, certificate: None
        )
        assert info.psk_identity == "a"
        mock_clock.jump(PERIOD / 2)
    assert await visitor.resumes(session)


@pytest.mark.feature("E2")
async def test_a_server_that_accepts_early_data_rotates_too(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    context = SecureContext(**issued().options)
    visitor = Visitor(nursery, context, max_early_data=1000, ticket_rotation=PERIOD)
    older = SecureContext(ca=AUTHORITY.ca, max_version="TLSv1.2")
    session, of_older = await visitor.session(), await visitor.session(context=older)
    assert await visitor.resumes(session)
    session = await visitor.session()
    mock_clock.jump(PERIOD)
    assert await visitor.resumes(of_older, context=older)
    # In TLS 1.3 it keeps its sessions, so that early data is accepted once.
    assert not await visitor.resumes(session)


@pytest.mark.feature("E2")
@pytest.mark.parametrize("value", [0, 0.5, -1, float("nan")])
async def test_a_period_is_a_second_at_least(value: float) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TLSServer(greet, context_for("TLSv1.3"), ticket_rotation=value)
    assert caught.value.option == "ticket_rotation"


# Another context in place of the old one


@pytest.mark.feature("B14")
@pytest.mark.feature("E2")
@in_both_versions
@pytest.mark.parametrize("rotation", [None, PERIOD])
async def test_sessions_go_on_where_only_certificates_differ(
    version: str, rotation: float | None, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    old, new = issued(), issued()
    visitor = Visitor(nursery, context_for(version, old), ticket_rotation=rotation)
    info, session = await visitor.visit()
    assert info.peer_certificate == presents(old)
    visitor.server.set_secure_context(context_for(version, new))
    assert await visitor.resumes(session)
    info, of_new = await visitor.visit()
    assert info.peer_certificate == presents(new)
    assert not info.session_reused
    assert key_name(of_new) != key_name(session)
    assert await visitor.resumes(of_new)
    # As long as they last.
    mock_clock.jump(299)
    assert await visitor.resumes(session)
    mock_clock.jump(1)
    assert not await visitor.resumes(session)
    assert await visitor.resumes(of_new)


@pytest.mark.feature("B14")
@pytest.mark.feature("E2")
@in_both_versions
async def test_who_cannot_resume_is_shown_the_new_certificate(version: str, nursery: trio.Nursery) -> None:
    visitor = Visitor(nursery, context_for(version))
    session = await visitor.session()
    new = issued()
    visitor.server.set_secure_context(context_for(version, new))
    ticket = Session.parse(session).ticket
    assert ticket is not None
    # The old keys are named, but do not open it.
    garbled = ticket[:-1] + bytes((ticket[-1] ^ 1,))
    [(_, content)] = elements(session)
    fields = [
        (tag, encoded(OCTET_STRING, garbled) if tag == 0xAA else value) for tag, value in elements(content)
    ]
    info, _ = await visitor.visit(encoded(SEQUENCE, b"".join(encoded(*field) for field in fields)))
    assert not info.session_reused
    assert info.peer_certificate == presents(new)


@pytest.mark.feature("B14")
@pytest.mark.feature("E2")
@in_both_versions
@pytest.mark.parametrize(
    "options",
    [
        {"ca": AUTHORITY.ca},
        {"crl": AUTHORITY.crl()},
        {"session_id_context": "another"},
        {"session_timeout": 100},
        {"groups": "P-256"},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_sessions_end_where_more_than_certificates_differs(
    version: str, options: dict[str, Any], nursery: trio.Nursery
) -> None:
    visitor = Visitor(nursery, context_for(version))
    session = await visitor.session()
    visitor.server.set_secure_context(context_for(version, **options))
    assert not await visitor.resumes(session)


@pytest.mark.feature("B14")
@in_both_versions
async def test_a_context_that_was_in_use_before_may_come_back(version: str, nursery: trio.Nursery) -> None:
    contexts = [context_for(version) for _ in range(2)]
    visitor = Visitor(nursery, contexts[0])
    sessions = []
    for turn in range(5):
        sessions.append(await visitor.session())
        visitor.server.set_secure_context(contexts[turn % 2])
        for session in sessions:
            assert await visitor.resumes(session)


@pytest.mark.feature("B14")
@pytest.mark.feature("E2")
async def test_a_context_that_comes_back_does_not_bring_back_keys_that_were_replaced(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    context = context_for("TLSv1.3")
    visitor = Visitor(nursery, context, ticket_rotation=PERIOD)
    session = await visitor.session()
    mock_clock.jump(PERIOD)
    await visitor.session()
    mock_clock.jump(PERIOD)
    visitor.server.set_secure_context(context)
    assert not await visitor.resumes(session)
    visitor.server.set_secure_context(context_for("TLSv1.3"))
    visitor.server.set_secure_context(context)
    assert not await visitor.resumes(session)


@pytest.mark.feature("B14")
def test_a_context_may_be_replaced_before_there_is_a_loop() -> None:
    server = TLSServer(greet, context_for("TLSv1.3"), ticket_rotation=PERIOD)
    server.set_secure_context(context_for("TLSv1.3"))


# Keys that nobody needs any more are gone


def keys_of(context: SecureContext) -> weakref.ref[Any]:
    return weakref.ref(context.ssl_ctx(server_side=True, verify_mode=VERIFY_NONE))


@pytest.fixture
def no_garbage_collector() -> Any:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.feature("E2")
async def test_the_keys_of_a_context_that_is_replaced_are_freed_when_its_sessions_are_over(
    nursery: trio.Nursery, mock_clock: MockClock, no_garbage_collector: None
) -> None:
    context = context_for("TLSv1.3")
    keys = keys_of(context)
    visitor = Visitor(nursery, context)
    del context
    await visitor.session()
    visitor.server.set_secure_context(context_for("TLSv1.3"))
    await visitor.session()
    assert keys() is not None
    mock_clock.jump(300)
    await visitor.session()
    assert keys() is None


@pytest.mark.feature("E2")
async def test_the_keys_of_a_context_are_freed_at_once_if_nobody_can_resume_by_them(
    nursery: trio.Nursery, no_garbage_collector: None
) -> None:
    first, second = context_for("TLSv1.3"), context_for("TLSv1.3")
    kept = [keys_of(first), keys_of(second)]
    visitor = Visitor(nursery, first)
    # To and fro: each is the other's predecessor.
    for context in (second, first, second):
        await visitor.session()
        visitor.server.set_secure_context(context)
    visitor.server.set_secure_context(context_for("TLSv1.3", ca=AUTHORITY.ca))
    del first, second, context
    await visitor.session()
    assert [keys() for keys in kept] == [None, None]


@pytest.mark.feature("E2")
async def test_the_keys_of_contexts_that_a_callback_makes_are_freed_with_them(
    nursery: trio.Nursery, mock_clock: MockClock, no_garbage_collector: None
) -> None:
    kept: list[weakref.ref[Any]] = []

    def make(name: str) -> SecureContext:
        context = context_for("TLSv1.3")
        kept.append(keys_of(context))
        return context

    visitor = Visitor(nursery, context_for("TLSv1.3"), sni_callback=make, ticket_rotation=PERIOD)
    for _ in range(3):
        await visitor.session()
    await trio.testing.wait_all_tasks_blocked()
    assert [keys() for keys in kept] == [None] * 3
    assert len(visitor.server._policy._generations) == 0


@pytest.mark.feature("E2")
async def test_the_keys_of_past_periods_are_freed(
    nursery: trio.Nursery, mock_clock: MockClock, no_garbage_collector: None
) -> None:
    context = context_for("TLSv1.3")
    visitor = Visitor(nursery, context, ticket_rotation=PERIOD)
    kept = []
    for _ in range(5):
        await visitor.session()
        kept.append(keys_of(visitor.server._policy._generations[context].honoured(context)[-1].context))
        mock_clock.jump(PERIOD)
    if sys.version_info >= (3, 12):
        # A traceback keeps the frames of those who called: of Trio's tasks too.
        gc.collect()
    assert [keys() is None for keys in kept] == [True, True, True, False, False]


@pytest.mark.feature("B14")
async def test_a_server_that_often_gets_another_context_keeps_a_few(nursery: trio.Nursery) -> None:
    visitor = Visitor(nursery, context_for("TLSv1.3"))
    oldest = await visitor.session()
    for _ in range(10):
        newest = await visitor.session()
        visitor.server.set_secure_context(context_for("TLSv1.3"))
    assert not await visitor.resumes(oldest)
    assert await visitor.resumes(newest)


# What is forked


@pytest.mark.feature("E2")
async def test_a_servers_keys_are_there_once_it_is_made() -> None:
    context = context_for("TLSv1.3", ca=AUTHORITY.ca)
    server = TLSServer(greet, context, request_cert=True)
    added = context_for("TLSv1.3", ca=AUTHORITY.ca)
    server.add_context("a.example", added)
    for made in (context, added):
        before = dict(made._ssl_ctxs)
        made.ssl_ctx(server_side=True, verify_mode=VERIFY_REQUIRED)
        assert made._ssl_ctxs == before


# Keys from outside


@pytest.mark.feature("B15")
@pytest.mark.feature("F10")
def test_keys_from_outside_are_refused_by_a_build_that_cannot_use_them() -> None:
    assert not tls.features["ticket_keys"]
    context = context_for("TLSv1.3")
    server = TLSServer(greet, context)
    with pytest.raises(FeatureUnavailable, match="ticket_rotation") as caught:
        TLSServer(greet, context, ticket_keys=bytes(48))
    assert caught.value.feature == "ticket_keys"
    for keys in (bytes(48), bytearray(48), memoryview(bytes(48))):
        with pytest.raises(FeatureUnavailable, match="stay within OpenSSL"):
            server.ticket_keys = keys  # type: ignore[assignment]
    with pytest.raises(FeatureUnavailable, match="stay within OpenSSL"):
        server.ticket_keys  # noqa: B018 - reading it is what is refused


@pytest.mark.feature("B15")
@pytest.mark.feature("F10")
@pytest.mark.node("test-tls-basic-validations.js")
@pytest.mark.parametrize("keys", [b"", bytes(1), bytes(47), bytes(49), bytearray(47), memoryview(bytes(96))])
def test_keys_from_outside_are_48_bytes(keys: Any) -> None:
    context = context_for("TLSv1.3")
    server = TLSServer(greet, context)
    with pytest.raises(ConfigurationError, match="must be exactly 48 bytes") as caught:
        TLSServer(greet, context, ticket_keys=keys)
    assert (caught.value.option, caught.value.code) == ("ticket_keys", "ERR_INVALID_ARG_VALUE")
    with pytest.raises(ConfigurationError, match="must be exactly 48 bytes"):
        server.ticket_keys = keys


@pytest.mark.feature("B15")
@pytest.mark.node("test-tls-basic-validations.js")
@pytest.mark.parametrize("keys", [None, 0, 1, "", "0" * 48, {}, [0] * 48, True, bytes])
def test_keys_from_outside_are_bytes(keys: Any) -> None:
    server = TLSServer(greet, context_for("TLSv1.3"))
    with pytest.raises(ConfigurationTypeError) as caught:
        server.ticket_keys = keys
    assert caught.value.code == "ERR_INVALID_ARG_TYPE"
    # What was given instead may be as secret.
    assert "000" not in str(caught.value)
