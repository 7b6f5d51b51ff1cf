"""TLS 1.3: a server asks for the client's certificate after the handshake (RFC 8446, section 4.6.2)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from later_handshakes import (
    CHUNK,
    TRANSPORTS,
    beside,
    client_context,
    codes,
    engines,
    exchange,
    full_duplex,
    pair,
    read_on,
    receive_exactly,
    records,
    server_context,
)
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode import Engine, TLSStream, Want
from trio_tlsnode.testing import MemoryListener

pytestmark = pytest.mark.feature("C15")

over_both = pytest.mark.parametrize("transport", TRANSPORTS)
WILLING: dict[str, Any] = {"post_handshake_auth": True}
NOT_SHOWN = "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE"
UNTRUSTED_LEAF = "UNABLE_TO_VERIFY_LEAF_SIGNATURE"


@over_both
@pytest.mark.feature("B8")
async def test_a_client_is_verified_long_after_it_has_connected(transport: str) -> None:
    async with pair("TLSv1.3", transport, presents="alice", client=WILLING) as (client, server):
        first = server.info
        text = repr(first)
        assert (first.peer_certificate, first.authorized) == (None, False)
        async with beside(lambda: read_on(client)):
            await server.request_client_certificate()
        assert server.info is not first
        assert repr(first) == text
        assert server.info.peer_certificate is not None
        assert server.info.peer_certificate.subject["CN"] == "alice"
        assert len(server.info.verified_chain) == len(server.info.peer_certificate_chain) == 2
        assert (server.authorized, server.authorization_error) == (True, None)


@over_both
async def test_data_flows_in_both_directions_meanwhile_and_it_can_be_done_twice(transport: str) -> None:
    async with pair("TLSv1.3", transport, presents="alice", client=WILLING) as ends:
        async with full_duplex(ends) as traffic:
            for _ in range(2):
                info = ends[1].info
                await ends[1].request_client_certificate()
                assert ends[1].info is not info
                assert ends[1].authorized
                await traffic.goes_on()


@over_both
async def test_a_handler_that_only_asks_keeps_what_arrives_for_later(transport: str) -> None:
    async with pair("TLSv1.3", transport, presents="alice", client=WILLING) as (client, server):
        await client.send_all(b"before the question, ")
        async with beside(lambda: read_on(client)):
            await server.request_client_certificate()
            await client.send_all(b"after it")
            assert await receive_exactly(server, 29) == b"before the question, after it"


@over_both
async def test_a_server_that_only_writes_meanwhile_loses_nothing(transport: str) -> None:
    async with pair("TLSv1.3", transport, presents="alice", client=WILLING) as (client, server):
        received, written = bytearray(), 0

        async def receive() -> None:
            async for data in client:
                received.extend(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(server.request_client_certificate)
            while not server.authorized:
                await server.send_all(CHUNK)
                written += 1
                await wait_all_tasks_blocked()
            await server.send_eof()
        assert bytes(received) == CHUNK * written


# Who is not asked, and who is refused


@over_both
async def test_a_client_that_has_not_offered_it_is_not_asked_and_the_connection_goes_on(
    transport: str,
) -> None:
    async with pair("TLSv1.3", transport, presents="alice") as (client, server):
        info = server.info
        for _ in range(2):
            with pytest.raises(tls.ProtocolError) as caught:
                await server.request_client_certificate()
            assert caught.value.code == "ERR_SSL_EXTENSION_NOT_RECEIVED"
            assert (caught.value.stream, caught.value.phase) == (server, "secure")
        assert server.info is info
        await server.send_all(b"it goes on")
        assert await receive_exactly(client, 10) == b"it goes on"
        await client.send_all(b"in both directions")
        assert await receive_exactly(server, 18) == b"in both directions"


async def test_such_a_client_does_not_bring_down_a_server_whose_handler_asks(nursery: trio.Nursery) -> None:
    server = tls.TLSServer(TLSStream.request_client_certificate, server_context("TLSv1.3"))
    listener = MemoryListener()
    await nursery.start(server.serve_listeners, [listener])
    client = await tls.wrap_client(await listener.connect(), context=client_context("TLSv1.3", "alice"))
    (error,) = (await anext(server.client_errors())).exceptions
    assert isinstance(error, tls.ProtocolError)
    assert error.code == "ERR_SSL_EXTENSION_NOT_RECEIVED"
    await trio.aclose_forcefully(client)
    nursery.cancel_scope.cancel()


@over_both
@pytest.mark.parametrize(
    ("presents", "code", "alert"),
    [
        ("mallory", UNTRUSTED_LEAF, tls.Alert.unknown_ca),
        (None, NOT_SHOWN, tls.Alert.certificate_required),
    ],
)
async def test_a_client_that_is_not_verified_is_refused_and_told_why(
    transport: str, presents: str | None, code: str, alert: tls.Alert
) -> None:
    async with pair("TLSv1.3", transport, presents=presents, client=WILLING) as (client, server):
        info = server.info
        said: list[tls.PeerAlert] = []

        async def listen() -> None:
            with pytest.raises(tls.PeerAlert) as caught:
                await read_on(client)
            said.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            with pytest.raises(tls.CertificateError) as caught:
                await server.request_client_certificate()
        assert (caught.value.code, caught.value.phase, caught.value.stream) == (code, "secure", server)
        assert caught.value.hint
        assert said[0].alert is alert
        assert server.info is info
        for call in (server.receive_some, lambda: server.send_all(b"x")):
            with pytest.raises(tls.CertificateError) as again:
                await call()
            assert again.value.code == code


@over_both
@pytest.mark.parametrize(
    ("presents", "code"), [("mallory", UNTRUSTED_LEAF), (None, "UNABLE_TO_GET_ISSUER_CERT"), ("alice", None)]
)
async def test_a_client_that_need_not_be_verified_is_judged(
    transport: str, presents: str | None, code: str | None
) -> None:
    async with pair("TLSv1.3", transport, presents=presents, client=WILLING) as (client, server):
        async with beside(lambda: read_on(client)):
            await server.request_client_certificate(reject_unauthorized=False)
            assert (server.authorized, codes(server.info)) == (code is None, code)
            assert (server.info.peer_certificate is None) is (presents is None)


@pytest.mark.feature("E1")
@pytest.mark.parametrize(
    ("presents", "code"), [("mallory", UNTRUSTED_LEAF), (None, "UNABLE_TO_GET_ISSUER_CERT"), ("alice", None)]
)
def test_a_client_that_resumes_is_judged_by_what_it_shows_now(presents: str | None, code: str | None) -> None:
    sessions: list[bytes] = []
    contexts: Any = {
        "of_client": client_context("TLSv1.3", presents),
        "of_server": server_context("TLSv1.3"),
    }
    engines("TLSv1.3", **contexts, client={"on_session": sessions.append})
    client, server = engines("TLSv1.3", **contexts, client={"session": sessions[-1], **WILLING})
    server.request_client_certificate(reject_unauthorized=False)
    assert server.finish_handshake() is Want.READ
    exchange(server, client)
    assert server.finish_handshake() is True
    info = server.info
    assert info is not None
    assert info.session_reused
    assert (info.authorized, codes(info)) == (code is None, code)
    if info.authorization_error is not None:
        problems = [problem.code for problem in info.authorization_error.problems]
        assert len(problems) == len(set(problems))


@pytest.mark.feature("E1")
def test_a_session_made_afterwards_remembers_who_the_client_is() -> None:
    sessions: list[bytes] = []
    contexts: Any = {
        "of_client": client_context("TLSv1.3", "alice"),
        "of_server": server_context("TLSv1.3"),
    }
    client, server = engines("TLSv1.3", **contexts, client={"on_session": sessions.append, **WILLING})
    before = len(sessions)
    server.request_client_certificate()
    assert server.finish_handshake() is Want.READ
    exchange(server, client)
    assert len(sessions) > before
    _, server = engines("TLSv1.3", **contexts, client={"session": sessions[-1]})
    assert server.info is not None
    assert server.info.session_reused
    assert server.info.peer_certificate is not None
    assert server.info.peer_certificate.subject["CN"] == "alice"


# Who may not ask


async def test_a_client_cannot_ask() -> None:
    async with pair("TLSv1.3", client=WILLING) as (client, server):
        with pytest.raises(tls.ConfigurationError, match="only a server"):
            await client.request_client_certificate()
        await client.send_all(b"it goes on")
        assert await server.receive_some() == b"it goes on"


async def test_tls_1_2_has_another_way() -> None:
    async with pair("TLSv1.2", client=WILLING) as (client, server):
        with pytest.raises(tls.ConfigurationError, match=r"renegotiate\(\)") as caught:
            await server.request_client_certificate()
        assert caught.value.code == "ERR_SSL_WRONG_SSL_VERSION"
        await client.send_all(b"it goes on")
        assert await server.receive_some() == b"it goes on"


async def test_flags_are_bools() -> None:
    wrong: dict[str, Any] = {"reject_unauthorized": 1}
    async with pair("TLSv1.3", presents="alice", client=WILLING) as (client, server):
        with pytest.raises(tls.ConfigurationTypeError):
            await server.request_client_certificate(**wrong)
        async with beside(lambda: read_on(client)):
            await server.request_client_certificate()
    with pytest.raises(tls.ConfigurationTypeError):
        Engine(client_context("TLSv1.3"), post_handshake_auth=1)  # type: ignore[arg-type]


def test_an_engine_has_to_shake_hands_first() -> None:
    with pytest.raises(trio.NeedHandshakeError):
        Engine(server_context("TLSv1.3"), server_side=True).request_client_certificate()


async def test_a_closed_stream_asks_nobody() -> None:
    async with pair("TLSv1.3", client=WILLING) as (_client, server):
        await server.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await server.request_client_certificate()


# Waiting for the answer


@over_both
async def test_who_never_answers_is_given_up_after_the_handshake_time_out(
    transport: str, autojump_clock: MockClock
) -> None:
    options = {"handshake_timeout": 30.0}
    async with pair("TLSv1.3", transport, client=WILLING, server=options) as (_client, server):
        start = trio.current_time()
        with pytest.raises(tls.HandshakeTimeout) as caught:
            await server.request_client_certificate()
        assert trio.current_time() == start + 30
        assert caught.value.phase == "secure"


@over_both
@pytest.mark.parametrize("after", range(7))
async def test_it_may_be_cancelled_at_any_time_and_be_done_again(transport: str, after: int) -> None:
    async with pair("TLSv1.3", transport, presents="alice", client=WILLING) as (client, server):
        async with beside(lambda: read_on(client)):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def cancel() -> None:
                        for _ in range(after):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    await server.request_client_certificate()
            await wait_all_tasks_blocked()
            try:
                await server.request_client_certificate()
            except tls.ConnectionLost as error:
                # Half a record may have gone.
                assert error.code == "ECANCELED"
                assert transport == "memory"
                return
            assert server.authorized
            await client.send_all(b"usable")
            assert await receive_exactly(server, 6) == b"usable"


# What happens half-way


def asked() -> tuple[Engine, Engine, list[bytes]]:
    """Return ends of which the client has answered, and its answer, record by record."""
    client, server = engines("TLSv1.3", of_client=client_context("TLSv1.3", "alice"), client=WILLING)
    server.request_client_certificate()
    assert server.finish_handshake() is Want.READ
    client.feed(server.drain())
    assert client.read() is Want.READ
    answer = records(client.drain())
    assert len(answer) == 3
    return client, server, answer


@pytest.mark.parametrize("have_come", [1, 2])
@pytest.mark.parametrize("read", [True, False])
def test_a_server_writes_when_the_answer_is_whole(have_come: int, read: bool) -> None:
    client, server, answer = asked()
    server.feed(b"".join(answer[:have_come]))
    if read:
        assert server.read() is Want.READ
        assert server.encrypt(b"data", 0, 4) is Want.READ
        assert server.shutdown() is Want.READ
    server.feed(b"".join(answer[have_come:]))
    server.write(b"data")
    client.feed(server.drain())
    assert client.read() == b"data"
    assert server.finish_handshake() is True
    assert server.info is not None
    assert server.info.authorized


def test_a_server_writes_before_the_answer_has_come() -> None:
    client, server, answer = asked()
    server.write(b"data")
    client.feed(server.drain())
    assert client.read() == b"data"
    client.write(b"behind the answer")
    server.feed(b"".join(answer) + client.drain())
    assert server.read() == b"behind the answer"
    assert server.finish_handshake() is True


@over_both
async def test_a_sender_waits_for_the_rest_of_an_answer(transport: str) -> None:
    async with pair("TLSv1.3", transport, presents="alice", client=WILLING) as (client, server):
        received: list[bytes] = []
        await server.send_all(b"x")
        assert await client.receive_some() == b"x"

        async def receive() -> None:
            received.append(await server.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(server.request_client_certificate)
            await wait_all_tasks_blocked()
            await client._link.fill(client._engine.feed_from)
            assert client._engine.read() is Want.READ
            first, *rest = records(client._engine.drain())
            await client.transport_stream.send_all(first)
            await wait_all_tasks_blocked()
            nursery.start_soon(server.send_all, b"data")
            await wait_all_tasks_blocked()
            assert server._engine.plaintext_sent == 1
            await client.transport_stream.send_all(b"".join(rest))
            await client.send_all(b"thanks")
            await wait_all_tasks_blocked()
        assert await client.receive_some() == b"data"
        assert received == [b"thanks"]
        assert server.authorized
