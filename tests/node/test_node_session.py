"""Sessions, as Node.js's own tests have them."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from faults import only
from meetings import come_to, failure_of
from parties import party, trust
from trio.testing import memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import SecureContext, TLSServer, TLSStream, wrap_client
from trio_tlsnode.options import SSL_OP_NO_TICKET
from trio_tlsnode.sessions import Session

# TLS 1.0 has no suite that is allowed at a higher level.
OLDEST: dict[str, Any] = {"min_version": "TLSv1", "ciphers": "DEFAULT:@SECLEVEL=0"}
TICKETS_OFF = {"secure_options": SSL_OP_NO_TICKET}


async def say_hello(stream: TLSStream) -> None:
    await stream.send_all(b"hello")
    async for _ in stream:
        pass


def serving(**options: Any) -> SecureContext:
    return SecureContext(**party("rsa_cert").options, **options)


def trusting(**options: Any) -> SecureContext:
    return SecureContext(ca=trust("rsa_cert"), **options)


class Server:
    """A server that counts what it is asked and told.

    Attributes:
        told: The identifiers of the sessions that were made.
        asked: How many clients wanted to resume one.
    """

    def __init__(self, nursery: trio.Nursery, context: SecureContext, *, may_resume: bool = True) -> None:
        self.told: list[bytes] = []
        self.asked = 0
        self._nursery = nursery
        self._may_resume = may_resume
        self.server = TLSServer(
            say_hello, context, resume=self._may, on_new_session=lambda name, _: self.told.append(name)
        )

    async def _may(self, _choice: tls.Choice) -> bool:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        return self._may_resume

    async def visit(self, context: SecureContext, session: bytes | None = None) -> tuple[bool, list[bytes]]:
        """Have a client come; return whether it resumed, and what sessions it was told of."""
        told: list[bytes] = []
        stream = await wrap_client(
            come_to(self.server, self._nursery), context=context, session=session, on_session=told.append
        )
        async with stream:
            assert await stream.receive_some() == b"hello"
            return stream.info.session_reused, told


@pytest.mark.feature("A18")
@pytest.mark.feature("C12")
@pytest.mark.node("test-tls-client-resume.js", "test-tls-client-resume-12.js", "test-https-client-resume.js")
@pytest.mark.parametrize(("version", "count"), [("TLSv1.2", 1), ("TLSv1.3", 2)])
async def test_the_session_that_is_told_resumes(version: str, count: int, nursery: trio.Nursery) -> None:
    server = Server(nursery, serving(**only(version)))
    context = trusting()
    told: list[bytes] = []
    async with await wrap_client(
        come_to(server.server, nursery), context=context, on_session=told.append
    ) as stream:
        early = stream.session
        # Node gives bytes in TLS 1.3 too, which no server resumes.
        assert (early is None) is (version == "TLSv1.3")
        assert not stream.info.session_reused
        assert await stream.receive_some() == b"hello"
    assert len(told) == count
    assert early in (None, told[0])
    reused, _ = await server.visit(context, told[0])
    assert reused


@pytest.mark.feature("A18")
@pytest.mark.node("test-tls-secure-session.js")
async def test_in_tls_1_2_one_session_is_told_once_the_handshake_is_done() -> None:
    told: list[str] = []

    def on_session(_session: bytes) -> None:
        # There is no info before the handshake is done.
        told.append(client.info.protocol)

    left, right = memory_stream_pair()
    client: TLSStream = TLSStream(left, trusting(**only("TLSv1.2")), on_session=on_session)
    server = TLSStream(right, serving(), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.send_all, b"hello")
    assert await client.receive_some() == b"hello"
    assert told == ["TLSv1.2"]


@pytest.mark.feature("B17")
@pytest.mark.feature("E4")
@pytest.mark.node("test-tls-session-cache.js")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1.2"])
@pytest.mark.parametrize(
    ("options", "may_resume", "resumed", "told", "asked"),
    [
        (TICKETS_OFF, True, [False, True, True, True, True, True], 1, 5),
        # Node asks nobody about tickets.
        ({}, True, [False, True, True, True, True, True], 0, 5),
        # Node's answer would be a session that there is not; who may not resume gets no session either.
        (TICKETS_OFF, False, [False] * 6, 1, 5),
    ],
    ids=["tickets off", "tickets on", "nobody may resume"],
)
async def test_a_server_is_asked_for_each_session_and_told_of_those_it_keeps(
    options: dict[str, Any],
    may_resume: bool,
    resumed: list[bool],
    told: int,
    asked: int,
    version: str,
    nursery: trio.Nursery,
) -> None:
    server = Server(nursery, serving(**OLDEST | {"max_version": version}, **options), may_resume=may_resume)
    context = trusting(**OLDEST | {"max_version": version})
    first, sessions = await server.visit(context)
    visits = [first]
    for _ in range(5):
        reused, _ = await server.visit(context, sessions[0])
        visits.append(reused)
    assert visits == resumed
    assert (len(server.told), server.asked) == (told, asked)
    if server.told:
        assert server.told == [Session.parse(sessions[0]).session_id]


@pytest.mark.feature("B17")
@pytest.mark.node("test-tls-async-cb-after-socket-end.js")
async def test_an_answer_that_comes_when_the_client_is_gone_is_harmless(nursery: trio.Nursery) -> None:
    gate, asked, told = trio.Event(), trio.Event(), []

    async def may_resume(_choice: tls.Choice) -> bool:
        asked.set()
        await gate.wait()
        return True

    context = trusting(**only("TLSv1.2"))
    server = TLSServer(
        say_hello,
        serving(**TICKETS_OFF),
        resume=may_resume,
        on_new_session=lambda _name, session: told.append(session),
    )
    async with await wrap_client(come_to(server, nursery), context=context) as client:
        session = client.session
    transport = come_to(server, nursery)
    with trio.CancelScope() as scope:

        async def leave() -> None:
            await asked.wait()
            scope.cancel()

        nursery.start_soon(leave)
        await wrap_client(transport, context=context, session=session)
    gate.set()
    error = await failure_of(server)
    assert isinstance(error, tls.ConnectionLost)
    assert (server.statistics().secure, len(told)) == (1, 1)


@pytest.mark.feature("B16")
@pytest.mark.node("test-tls-session-timeout.js")
@pytest.mark.parametrize(("seconds", "reused"), [(5, True), (0, False)])
async def test_a_session_resumes_as_long_as_its_time_out_says(
    seconds: int, *, reused: bool, nursery: trio.Nursery
) -> None:
    server = Server(nursery, serving(session_timeout=seconds, session_id_context="test"))
    context = trusting(**only("TLSv1.2"))
    first, sessions = await server.visit(context)
    assert not first
    # What cannot be resumed is not even told.
    assert [Session.parse(session).lifetime for session in sessions] == [seconds] * reused
    if sessions:
        assert (await server.visit(context, sessions[0]))[0]


@pytest.mark.interop
@pytest.mark.feature("B16")
@pytest.mark.node("test-tls-session-timeout.js")
@pytest.mark.parametrize("options", [TICKETS_OFF, {}], ids=["tickets off", "tickets on"])
async def test_a_session_resumes_until_its_time_is_over(
    options: dict[str, Any], nursery: trio.Nursery
) -> None:
    # OpenSSL goes by the system's clock, which no test can turn: this one waits.
    server = Server(nursery, serving(session_timeout=2, session_id_context="test", **options))
    context = trusting(**only("TLSv1.2"))
    _, sessions = await server.visit(context)
    visits = [(await server.visit(context, sessions[0]))[0]]
    await trio.sleep(2.05)
    visits.append((await server.visit(context, sessions[0]))[0])
    assert visits == [True, False]


@pytest.mark.feature("A7")
@pytest.mark.node("test-https-agent-session-eviction.js")
async def test_a_session_of_a_newer_version_does_not_break_the_connection(nursery: trio.Nursery) -> None:
    context = trusting(**OLDEST)
    _, sessions = await Server(nursery, serving(max_version="TLSv1.2")).visit(context)
    old = Server(nursery, serving(**OLDEST, max_version="TLSv1"))
    async with await wrap_client(
        come_to(old.server, nursery), context=context, session=sessions[0]
    ) as stream:
        assert (stream.info.protocol, stream.info.session_reused) == ("TLSv1", False)
