"""Renegotiation, up to TLS 1.2: another handshake inside a connection, which may show who a client is."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import trio
from later_handshakes import (
    CHUNK,
    TRANSPORTS,
    TRUSTED,
    UNTRUSTED,
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
    renegotiated,
    server_context,
)
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode import Engine, TLSStream, Want
from trio_tlsnode._openssl.library import NULL, lib
from trio_tlsnode._openssl.ssl_ctx import VERIFY_PEER
from trio_tlsnode.options import SSL_OP_NO_EXTENDED_MASTER_SECRET, SSL_OP_NO_RENEGOTIATION, SSL_OP_NO_TICKET
from trio_tlsnode.testing import MemoryListener, RecordingStream

pytestmark = pytest.mark.feature("C15")

over_both = pytest.mark.parametrize("transport", TRANSPORTS)
NOT_SHOWN = "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE"
UNTRUSTED_LEAF = "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
ALERT, HANDSHAKE = 21, 22


# A server asks who its client is


@over_both
@pytest.mark.feature("B8")
async def test_a_client_is_verified_long_after_it_has_connected(transport: str) -> None:
    async with pair(transports=transport, presents="alice") as (client, server):
        first = server.info
        assert (first.peer_certificate, first.authorized) == (None, False)
        async with beside(lambda: read_on(client)):
            await server.renegotiate()
        assert server.info.peer_certificate is not None
        assert server.info.peer_certificate.subject["CN"] == "alice"
        assert len(server.info.verified_chain) == len(server.info.peer_certificate_chain) == 2
        assert (server.authorized, server.authorization_error) == (True, None)
        assert client.info.certificate == server.info.peer_certificate


@over_both
async def test_what_was_negotiated_is_a_new_value_and_the_old_one_stays(transport: str) -> None:
    options = {"alpn_protocols": ["h2"]}
    async with pair(transports=transport, presents="alice", client=options, server=options) as ends:
        before = [end.info for end in ends]
        kept = [repr(info) for info in before]
        async with beside(lambda: read_on(ends[0])):
            await ends[1].renegotiate()
        for end, info, text in zip(ends, before, kept, strict=True):
            assert end.info is not info
            assert repr(info) == text
            assert (end.info.alpn_protocol, end.info.server_name) == ("h2", "localhost")
            assert end.info.protocol == "TLSv1.2"
            assert not end.info.session_reused


@over_both
async def test_data_flows_in_both_directions_meanwhile(transport: str) -> None:
    async with pair(transports=transport, presents="alice") as ends, full_duplex(ends) as traffic:
        for _ in range(3):
            info = ends[1].info
            await ends[1].renegotiate()
            assert ends[1].info is not info
            assert ends[1].authorized
            await traffic.goes_on()


@over_both
async def test_a_client_renegotiates_while_data_flows_in_both_directions(transport: str) -> None:
    async with pair(transports=transport) as ends, full_duplex(ends):
        for _ in range(3):
            finished = ends[0].finished
            await ends[0].renegotiate()
            assert ends[0].finished not in (None, finished)


@over_both
async def test_both_sides_may_renegotiate_at_once(transport: str) -> None:
    async with pair(transports=transport, presents="alice") as ends, full_duplex(ends):
        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(end.renegotiate)
        assert ends[1].authorized


@over_both
async def test_a_handler_that_only_renegotiates_keeps_what_arrives_for_later(transport: str) -> None:
    async with pair(transports=transport, presents="alice") as (client, server):
        await client.send_all(b"before the question, ")
        async with beside(lambda: read_on(client)):
            await server.renegotiate()
            await client.send_all(b"after it")
            assert await receive_exactly(server, 29) == b"before the question, after it"
            await server.send_all(b"x")


@over_both
async def test_a_server_that_only_writes_meanwhile_loses_nothing(transport: str) -> None:
    async with pair(transports=transport, presents="alice") as (client, server):
        received = bytearray()

        async def receive() -> None:
            async for data in client:
                received.extend(data)

        async def write() -> None:
            while not server.authorized:
                await server.send_all(CHUNK)
                written.append(len(CHUNK))
                await wait_all_tasks_blocked()
            await server.send_eof()

        written: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(write)
            nursery.start_soon(client.send_all, b"for later")
            await server.renegotiate()
        assert bytes(received) == CHUNK * len(written)
        assert await receive_exactly(server, 9) == b"for later"


# Who is refused


@over_both
@pytest.mark.parametrize(
    ("presents", "code", "alert"),
    [("mallory", UNTRUSTED_LEAF, tls.Alert.unknown_ca), (None, NOT_SHOWN, tls.Alert.handshake_failure)],
)
async def test_a_client_that_is_not_verified_is_refused(
    transport: str, presents: str | None, code: str, alert: tls.Alert
) -> None:
    async with pair(transports=transport, presents=presents) as (client, server):
        first = server.info
        said: list[tls.PeerAlert] = []

        async def listen() -> None:
            with pytest.raises(tls.PeerAlert) as caught:
                await client.receive_some()
            said.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            with pytest.raises(tls.CertificateError) as caught:
                await server.renegotiate()
        assert (caught.value.code, caught.value.phase, caught.value.stream) == (code, "secure", server)
        assert said[0].alert is alert
        assert server.info is first
        for call in (server.receive_some, server.renegotiate, lambda: server.send_all(b"x")):
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
    async with pair(transports=transport, presents=presents) as (client, server):
        async with beside(lambda: read_on(client)):
            await server.renegotiate(reject_unauthorized=False)
            assert (server.authorized, codes(server.info)) == (code is None, code)
        if code is None:
            return
        # The next one may be stricter.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, client)
            with pytest.raises(tls.CertificateError):
                await server.renegotiate()


async def refused(stream: TLSStream) -> None:
    with pytest.raises(tls.PeerAlert):
        await read_on(stream)


async def test_a_client_need_not_be_asked_at_all() -> None:
    async with pair(presents="alice") as (client, server), beside(lambda: read_on(client)):
        finished = server.finished
        await server.renegotiate(request_cert=False)
        assert server.finished != finished
        assert server.info.peer_certificate is None
        await server.renegotiate()
        assert server.authorized
        await server.renegotiate(request_cert=False)
        assert (server.info.peer_certificate, server.authorized) == (None, False)


@pytest.mark.parametrize("option", ["request_cert", "reject_unauthorized"])
async def test_flags_are_bools(option: str) -> None:
    wrong: dict[str, Any] = {option: "yes"}
    async with pair() as (_client, server):
        with pytest.raises(tls.ConfigurationTypeError):
            await server.renegotiate(**wrong)
        await server.send_all(b"it goes on")


# Nobody becomes somebody else


@pytest.mark.parametrize("presents", ["mallory", None])
def test_a_renegotiation_that_is_refused_verifies_nobody(presents: str | None) -> None:
    client, server = engines(
        of_client=client_context("TLSv1.2", presents),
        of_server=server_context("TLSv1.2", secure_options=SSL_OP_NO_RENEGOTIATION),
        server={"request_cert": True, "reject_unauthorized": False},
    )
    first = server.info
    assert first is not None
    assert not first.authorized
    client.renegotiate()
    assert client.finish_handshake() is Want.READ
    server.feed(client.drain())
    assert server.read() is Want.READ
    assert server.info is first


def test_a_server_that_is_refused_a_renegotiation_is_not_verified_by_that() -> None:
    client, server = engines(
        of_client=client_context("TLSv1.2", ca=UNTRUSTED.ca, secure_options=SSL_OP_NO_RENEGOTIATION),
        client={"reject_unauthorized": False},
    )
    first = client.info
    assert first is not None
    assert not first.authorized
    server.renegotiate()
    assert server.finish_handshake() is Want.READ
    client.feed(server.drain())
    assert client.read() is Want.READ
    assert client.info is first


def test_asking_verifies_nobody() -> None:
    _client, server = engines(
        of_client=client_context("TLSv1.2", "mallory"),
        server={"request_cert": True, "reject_unauthorized": False},
    )
    first = server.info
    server.renegotiate(reject_unauthorized=False)
    assert server.finish_handshake() is Want.READ
    assert server.info is first


@pytest.mark.feature("B10")
@pytest.mark.parametrize("name", [b"other.example", NULL])
@pytest.mark.parametrize("starting", ["client", "server"])
def test_a_second_hello_may_not_name_another_server(name: Any, starting: str) -> None:
    client, server = engines()
    lib.SSL_set_tlsext_host_name(client.ssl, name)
    {"client": client, "server": server}[starting].renegotiate()
    with pytest.raises(tls.ProtocolError) as caught:
        exchange(client, server)
    assert caught.value.code == "ERR_SSL_BAD_EXTENSION"
    assert server.info is not None
    assert server.info.server_name == "localhost"
    client.feed(server.drain())
    with pytest.raises(tls.PeerAlert) as told:
        client.read()
    assert told.value.alert is tls.Alert.illegal_parameter


def test_a_second_hello_without_a_name_is_as_good_as_the_first() -> None:
    client, server = engines(client={"server_name": ""}, of_client=client_context("TLSv1.2"))
    renegotiated(client, server)
    assert server.info is not None
    assert server.info.server_name is None


@pytest.mark.feature("B11")
def test_a_second_hello_does_not_change_the_application_protocol() -> None:
    client, server = engines(
        client={"alpn_protocols": ["h2", "http/1.1"]}, server={"alpn_protocols": ["http/1.1"]}
    )
    wire = b"\x02h2"
    lib.SSL_set_alpn_protos(client.ssl, wire, len(wire))
    for starting, other in ((client, server), (server, client)):
        renegotiated(starting, other)
        for end in (client, server):
            assert end.info is not None
            assert end.info.alpn_protocol == "http/1.1"


@pytest.mark.parametrize("reject_unauthorized", [True, False])
def test_a_server_that_becomes_another_one_is_found_out(reject_unauthorized: bool) -> None:
    client, server = engines(client={"reject_unauthorized": reject_unauthorized})
    other = server_context("TLSv1.2", **TRUSTED.good("other.example").options)
    ssl_ctx = other.ssl_ctx(server_side=True, verify_mode=0)
    lib.SSL_set_SSL_CTX(server.ssl, ssl_ctx.pointer)
    if reject_unauthorized:
        server.renegotiate(request_cert=False)
        with pytest.raises(tls.IdentityError):
            exchange(client, server)
        return
    renegotiated(server, client)
    assert client.info is not None
    assert not client.info.authorized
    assert codes(client.info) == "ERR_TLS_CERT_ALTNAME_INVALID"


@pytest.mark.feature("B8")
@pytest.mark.parametrize("starting", ["client", "server"])
@pytest.mark.parametrize("name", ["alice", "mallory", None])
def test_a_client_is_who_it_has_shown_itself_to_be_last(name: str | None, starting: str) -> None:
    client, server = engines(
        of_client=client_context("TLSv1.2", "alice"),
        server={"request_cert": True, "reject_unauthorized": False},
    )
    assert server.info is not None
    assert server.info.authorized
    other = client_context("TLSv1.2", name).ssl_ctx(server_side=False, verify_mode=VERIFY_PEER)
    lib.SSL_set_SSL_CTX(client.ssl, other.pointer)
    end = {"client": client, "server": server}[starting]
    end.renegotiate(reject_unauthorized=False)
    assert end.finish_handshake() is Want.READ
    exchange(server, client)
    info = server.info
    assert info.authorized is (name == "alice")
    assert (info.authorization_error is None) is (name == "alice")
    if info.peer_certificate is not None:
        assert info.peer_certificate.subject["CN"] == name


@pytest.mark.feature("B8")
@pytest.mark.parametrize("name", ["mallory", None])
def test_a_client_that_becomes_somebody_untrusted_is_refused(name: str | None) -> None:
    client, server = engines(of_client=client_context("TLSv1.2", "alice"), server={"request_cert": True})
    info = server.info
    other = client_context("TLSv1.2", name).ssl_ctx(server_side=False, verify_mode=VERIFY_PEER)
    lib.SSL_set_SSL_CTX(client.ssl, other.pointer)
    client.renegotiate()
    assert client.finish_handshake() is Want.READ
    with pytest.raises(tls.CertificateError):
        exchange(server, client)
    assert server.info is info


def test_a_renegotiation_is_no_place_for_another_session() -> None:
    """Otherwise nobody would be asked for a certificate."""
    sessions: list[bytes] = []
    contexts = client_context("TLSv1.2", "alice"), server_context("TLSv1.2")
    engines(of_client=contexts[0], of_server=contexts[1], client={"on_session": sessions.append})
    client, server = engines(of_client=contexts[0], of_server=contexts[1], client={"session": sessions[0]})
    assert server.info is not None
    assert server.info.session_reused
    renegotiated(server, client)
    exchange(client, server)
    for end in (client, server):
        assert end.info is not None
        assert not end.info.session_reused
        assert end.info.authorized is (end is client)


@pytest.mark.feature("D5")
@pytest.mark.parametrize(
    ("client", "code"),
    [
        ({}, None),
        ({"min_dh_size": 3072}, "ERR_TLS_DH_PARAM_SIZE"),
    ],
)
def test_a_server_may_not_exchange_weaker_keys_later(client: dict[str, Any], code: str | None) -> None:
    """Its group is not seen, as the message is encrypted; the default bound is left to OpenSSL."""
    suites = {"ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256"}
    reader, server = engines(
        of_client=client_context("TLSv1.2", **suites),
        of_server=server_context("TLSv1.2", **suites),
        client=client,
    )
    weaker = server_context("TLSv1.2", dhparam="auto", **suites, **_rsa())
    lib.SSL_set_SSL_CTX(server.ssl, weaker.ssl_ctx(server_side=True, verify_mode=0).pointer)
    if code is None:
        renegotiated(server, reader)
        assert reader.info is not None
        assert reader.info.cipher.name == "DHE-RSA-AES128-GCM-SHA256"
        assert reader.info.ephemeral_key is None
        return
    server.renegotiate(request_cert=False)
    assert server.finish_handshake() is Want.READ
    with pytest.raises(tls.ProtocolError) as caught:
        exchange(reader, server)
    assert caught.value.code == code


@functools.cache
def _rsa() -> dict[str, bytes]:
    return dict(TRUSTED.good("localhost", key_type="RSA").options)  # type: ignore[arg-type]  # a TypedDict


# How often a peer may


def answered(starting: Engine, other: Engine) -> bool:
    """Start a renegotiation; return whether the other side takes part in it."""
    starting.renegotiate(request_cert=False)
    try:
        renegotiated(starting, other)
    except tls.ConnectionFailed:
        return False
    return True


@pytest.mark.feature("C17")
@pytest.mark.parametrize("limit", [0, 1, 3, 5, 10])
@pytest.mark.parametrize("limited", ["client", "server"])
def test_a_peer_may_renegotiate_as_often_as_it_is_allowed_to(limited: str, limit: int) -> None:
    options: Any = {limited: {"renegotiation_limit": limit, "clock": lambda: 0.0}}
    client, server = engines(**options)
    starting, other = (server, client) if limited == "client" else (client, server)
    for _ in range(limit):
        renegotiated(starting, other)
    finished = other.finished(of_peer=True)
    starting.renegotiate(request_cert=False)
    assert starting.finish_handshake() is Want.READ
    other.feed(starting.drain())
    with pytest.raises(tls.ProtocolError) as caught:
        other.read()
    assert caught.value.code == "ERR_TLS_SESSION_ATTACK"
    assert f"more than {limit} times in 600 seconds" in caught.value.reason
    # It has cost us nothing, and the peer is told.
    assert other.finished(of_peer=True) == finished
    (alert,) = records(other.drain())
    assert alert[0] == ALERT
    starting.feed(alert)
    with pytest.raises(tls.ProtocolError) as refused:
        starting.read()
    assert refused.value.code == "ERR_SSL_NO_RENEGOTIATION"


@pytest.mark.feature("C17")
def test_what_was_long_ago_no_longer_counts() -> None:
    now = 0.0
    client, server = engines(
        server={"renegotiation_limit": 2, "renegotiation_window": 10.0, "clock": lambda: now}
    )
    for now in (0.0, 9.0, 10.0, 19.5, 20.0):  # noqa: B007 - the clock's
        renegotiated(client, server)
    now = 29.0
    assert not answered(client, server)


@pytest.mark.feature("C17")
def test_each_connection_is_counted_alone_and_our_own_questions_do_not_count() -> None:
    contexts: Any = {"of_client": client_context("TLSv1.2"), "of_server": server_context("TLSv1.2")}
    for _ in range(2):
        client, server = engines(**contexts, server={"renegotiation_limit": 1})
        for _ in range(3):
            renegotiated(server, client)
        renegotiated(client, server)
        assert not answered(client, server)


@pytest.mark.feature("C17")
def test_the_defaults_hold_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (tls.defaults.renegotiation_limit, tls.defaults.renegotiation_window) == (3, 600.0)
    try:
        tls.defaults.renegotiation_limit = 1
        tls.defaults.renegotiation_window = 5
        client, server = engines(server={"clock": lambda: 0.0})
        renegotiated(client, server)
        client.renegotiate()
        with pytest.raises(tls.ProtocolError, match="more than 1 times in 5 seconds"):
            exchange(client, server)
    finally:
        tls.defaults.reset()


@pytest.mark.feature("C17")
@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("renegotiation_limit", -1, "ERR_OUT_OF_RANGE"),
        ("renegotiation_limit", 1.5, "ERR_INVALID_ARG_TYPE"),
        ("renegotiation_limit", True, "ERR_INVALID_ARG_TYPE"),
        ("renegotiation_window", -1, "ERR_OUT_OF_RANGE"),
        ("renegotiation_window", "1", "ERR_INVALID_ARG_TYPE"),
        ("renegotiation_window", float("nan"), "ERR_OUT_OF_RANGE"),
    ],
)
def test_limits_are_numbers(option: str, value: Any, code: str) -> None:
    for make in (
        lambda: Engine(client_context("TLSv1.2"), **{option: value}),
        lambda: tls.TLSServer(read_on, server_context("TLSv1.2"), **{option: value}),
        lambda: setattr(tls.defaults, option, value),
    ):
        with pytest.raises(tls.ConfigurationError) as caught:
            make()
        assert (caught.value.code, caught.value.option) == (code, option)


@pytest.mark.feature("C16")
@over_both
async def test_a_renegotiation_that_is_disabled_ends_the_stream(transport: str) -> None:
    async with pair(transports=transport) as (client, server):
        async with beside(lambda: read_on(server)):
            await client.renegotiate()
        server.disable_renegotiation()
        await client.send_all(b"data")
        assert await server.receive_some() == b"data"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(not_renegotiated, client)
            with pytest.raises(tls.ProtocolError) as caught:
                await server.receive_some()
        assert caught.value.code == "ERR_TLS_RENEGOTIATION_DISABLED"
        assert caught.value.phase == "secure"
        with pytest.raises(tls.ProtocolError) as again:
            await server.send_all(b"x")
        assert again.value.code == "ERR_TLS_RENEGOTIATION_DISABLED"


async def not_renegotiated(client: TLSStream) -> None:
    with pytest.raises(tls.ProtocolError) as caught:
        await client.renegotiate()
    assert caught.value.code == "ERR_SSL_NO_RENEGOTIATION"


@pytest.mark.feature("C16")
async def test_it_may_be_disabled_before_the_handshake() -> None:
    ends = memory_stream_pair()
    server = TLSStream(ends[0], server_context("TLSv1.2"), server_side=True)
    server.disable_renegotiation()
    client = TLSStream(ends[1], client_context("TLSv1.2"), host="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(not_renegotiated, client)
        with pytest.raises(tls.ProtocolError) as caught:
            await server.receive_some()
    assert caught.value.code == "ERR_TLS_RENEGOTIATION_DISABLED"


@pytest.mark.feature("C17")
async def test_an_attack_ends_the_connection_and_is_reported_and_the_server_goes_on(
    nursery: trio.Nursery,
) -> None:
    server = tls.TLSServer(read_on, server_context("TLSv1.2"), renegotiation_limit=2)
    listener = MemoryListener()
    await nursery.start(server.serve_listeners, [listener])
    reports = server.client_errors()
    for count in (1, 2):
        client = await tls.wrap_client(await listener.connect(), context=client_context("TLSv1.2"))
        await client.renegotiate()
        await client.renegotiate()
        await not_renegotiated(client)
        (error,) = (await anext(reports)).exceptions
        assert isinstance(error, tls.ProtocolError)
        assert (error.code, error.phase) == ("ERR_TLS_SESSION_ATTACK", "secure")
        statistics = server.statistics()
        assert (statistics.open, statistics.secure) == (0, count)
        await trio.aclose_forcefully(client)
    nursery.cancel_scope.cancel()


@pytest.mark.feature("C17")
async def test_times_are_those_of_trio_s_clock(mock_clock: MockClock) -> None:
    options = {"renegotiation_limit": 1, "renegotiation_window": 10.0}
    async with pair(server=options) as (client, server), beside(lambda: read_on(server)):
        await client.renegotiate()
        mock_clock.jump(10)
        await client.renegotiate()
    async with pair(server=options) as (client, server), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def attacked() -> None:
            with pytest.raises(tls.ProtocolError):
                await read_on(server)

        await client.renegotiate()
        mock_clock.jump(9.9)
        await not_renegotiated(client)


# Who will not


@over_both
@pytest.mark.parametrize("unwilling", ["client", "server"])
async def test_who_does_not_renegotiate_says_so_and_the_other_side_fails(
    transport: str, unwilling: str
) -> None:
    options: dict[str, Any] = {"secure_options": SSL_OP_NO_RENEGOTIATION}
    contexts: dict[str, Any] = {
        "of_client": client_context("TLSv1.2", **(options if unwilling == "client" else {})),
        "of_server": server_context("TLSv1.2", **(options if unwilling == "server" else {})),
    }
    async with pair(transports=transport, **contexts) as (client, server):
        starting, other = (server, client) if unwilling == "client" else (client, server)
        info = other.info
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, other)
            await not_renegotiated(starting)
        assert other.info is info


@pytest.mark.parametrize("role", ["client", "server"])
async def test_an_option_forbids_our_own_as_well_and_the_connection_goes_on(role: str) -> None:
    options: dict[str, Any] = {"secure_options": SSL_OP_NO_RENEGOTIATION}
    async with pair(
        of_client=client_context("TLSv1.2", **options), of_server=server_context("TLSv1.2", **options)
    ) as ends:
        stream, other = ends if role == "client" else ends[::-1]
        for _ in range(2):
            with pytest.raises(tls.ConfigurationError) as caught:
                await stream.renegotiate()
            assert caught.value.code == "ERR_SSL_NO_RENEGOTIATION"
        await stream.send_all(b"it goes on")
        assert await other.receive_some() == b"it goes on"


@pytest.mark.feature("C15")
@pytest.mark.parametrize("role", ["client", "server"])
async def test_tls_1_3_has_none_and_the_connection_goes_on(role: str) -> None:
    async with pair("TLSv1.3") as ends:
        stream, other = ends if role == "client" else ends[::-1]
        with pytest.raises(tls.ConfigurationError) as caught:
            await stream.renegotiate()
        assert caught.value.code == "ERR_SSL_WRONG_SSL_VERSION"
        await stream.send_all(b"it goes on")
        assert await other.receive_some() == b"it goes on"


# Waiting for an answer


@over_both
async def test_who_never_answers_is_given_up_after_the_handshake_time_out(
    transport: str, autojump_clock: MockClock
) -> None:
    async with pair(transports=transport, server={"handshake_timeout": 30.0}) as (client, server):
        start = trio.current_time()
        with pytest.raises(tls.HandshakeTimeout) as caught:
            await server.renegotiate()
        assert trio.current_time() == start + 30
        assert (caught.value.timeout, caught.value.phase) == (30.0, "secure")
        assert caught.value.retryable
        with pytest.raises(tls.HandshakeTimeout):
            await server.send_all(b"x")
        with pytest.raises(tls.TruncationError):
            await client.receive_some()


@over_both
async def test_who_answers_half_is_given_up_too_and_whoever_waits_learns_of_it(
    transport: str, autojump_clock: MockClock
) -> None:
    async with pair(transports=transport, presents="alice") as (client, server):
        engine = client._engine
        failures: list[str] = []

        async def fails(call: Callable[[], Any]) -> None:
            with pytest.raises(tls.HandshakeTimeout):
                while True:
                    await call()
                    await trio.lowlevel.checkpoint()
            failures.append("done")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails, server.renegotiate)
            nursery.start_soon(fails, server.receive_some)
            await wait_all_tasks_blocked()
            # It says hello, and no more.
            assert client._link.fill_nowait(engine.feed_from) or transport == "memory"
            if transport == "memory":
                await client._link.fill(engine.feed_from)
            assert engine.read() is Want.READ
            await client.transport_stream.send_all(engine.drain())
            await wait_all_tasks_blocked()
            assert server._engine._renegotiating
            nursery.start_soon(fails, lambda: server.send_all(b"x"))
        assert len(failures) == 3


@over_both
async def test_a_peer_that_ends_instead_of_answering_fails_the_renegotiation_and_nothing_is_lost(
    transport: str,
) -> None:
    async with pair(transports=transport) as (client, server):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def asked() -> None:
                with pytest.raises(tls.TruncationError) as caught:
                    await server.renegotiate()
                assert caught.value.phase == "secure"

            await wait_all_tasks_blocked()
            await client.send_all(b"last words")
            await client.send_eof()
        assert await server.receive_some() == b"last words"
        assert await server.receive_some() == b""
        await server.send_all(b"so be it")


async def test_a_transport_that_ends_instead_is_a_truncation_for_those_who_receive() -> None:
    async with pair() as (client, server):
        await client.send_all(b"last words")
        await trio.aclose_forcefully(client.transport_stream)
        client._failure = None
        with pytest.raises(tls.ConnectionLost):
            await server.renegotiate()
        assert await server.receive_some() == b"last words"
        with pytest.raises(tls.TruncationError):
            await server.receive_some()


@over_both
async def test_more_than_a_mebibyte_of_data_waits_for_who_receives(transport: str) -> None:
    data = bytes(range(256)) * (12 * 1024)
    async with pair(transports=transport, presents="alice") as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, data)
            nursery.start_soon(server.renegotiate)
            await wait_all_tasks_blocked()
            nursery.start_soon(read_on, client)
            await wait_all_tasks_blocked()
            assert 1 << 20 <= len(server._engine._backlog) < (1 << 20) + (256 << 10)
            assert server.info.peer_certificate is None
            received = bytearray()
            while len(received) < len(data):
                received += await server.receive_some(70_000)
                await trio.lowlevel.checkpoint()
            assert received == data
            await wait_all_tasks_blocked()
            assert server.authorized
            nursery.cancel_scope.cancel()


async def test_a_mebibyte_that_nobody_receives_ends_with_the_time_out(autojump_clock: MockClock) -> None:
    async with pair(presents="alice", server={"handshake_timeout": 5.0}) as (client, server):
        await client.send_all(bytes(2 << 20))
        with pytest.raises(tls.HandshakeTimeout, match="nobody has received the data"):
            await server.renegotiate()


async def test_closing_wakes_who_waits_for_a_receiver() -> None:
    async with pair() as (client, server), trio.open_nursery() as nursery:
        await client.send_all(bytes(2 << 20))

        @nursery.start_soon
        async def renegotiates() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await server.renegotiate()

        await wait_all_tasks_blocked()
        await server.aclose()


def test_what_is_kept_is_read_in_small_pieces_in_no_time() -> None:
    client, server = engines()
    server.renegotiate()
    data = bytes(range(256)) * 4096
    client.write(data)
    server.feed(client.drain())
    assert server.finish_handshake() is Want.ROOM
    pieces = [server.read(5) for _ in range(100_000)]
    assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == data[:500_000]


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_it_starts_with_the_first_handshake_where_that_is_to_do(version: str) -> None:
    left, right = memory_stream_pair()
    client = TLSStream(left, client_context(version), host="localhost")
    server = TLSStream(right, server_context(version), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_on, client)
        if version == "TLSv1.2":
            await server.renegotiate(request_cert=False)
        else:
            with pytest.raises(tls.ConfigurationError):
                await server.renegotiate()
        assert server.info.protocol == version
        nursery.cancel_scope.cancel()


def test_an_engine_has_to_shake_hands_first() -> None:
    with pytest.raises(trio.NeedHandshakeError):
        Engine(client_context("TLSv1.2")).renegotiate()


async def test_a_closed_stream_does_no_more() -> None:
    async with pair() as (client, server):
        await server.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await server.renegotiate()
        await client.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await client.renegotiate()


async def test_two_at_once_on_one_stream_are_a_mistake() -> None:
    async with pair(presents="alice") as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.renegotiate)
        await wait_all_tasks_blocked()
        for call in (server.renegotiate, server.request_client_certificate):
            with pytest.raises(trio.BusyResourceError):
                await call()
        nursery.start_soon(read_on, client)
        await wait_all_tasks_blocked()
        assert server.authorized
        await server.renegotiate()
        nursery.cancel_scope.cancel()


# Cancelling


@over_both
@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("after", range(9))
async def test_it_may_be_cancelled_at_any_time_and_be_done_again(
    transport: str, role: str, after: int
) -> None:
    """A transport other than a socket may be left with half a record, which is then the sender's end."""
    async with pair(transports=transport, presents="alice") as (client, server):
        stream, other = (server, client) if role == "server" else (client, server)
        async with beside(lambda: read_on(other)):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def cancel() -> None:
                        for _ in range(after):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    await stream.renegotiate()
            await wait_all_tasks_blocked()
            try:
                await stream.renegotiate()
            except tls.ConnectionLost as error:
                assert error.code == "ECANCELED"
                assert transport == "memory"
                return
            assert server.authorized is (role == "server")
            await other.send_all(b"usable")
            assert await receive_exactly(stream, 6) == b"usable"


async def test_a_call_that_was_cancelled_before_says_nothing() -> None:
    left, right = memory_stream_pair()
    recording = RecordingStream(right)
    async with pair(transports=(left, recording)) as (client, server):
        said = len(recording.sent)
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.renegotiate()
        assert len(recording.sent) == said
        await client.send_all(b"data")
        assert await server.receive_some() == b"data"
        assert len(recording.sent) == said


async def test_one_that_was_cancelled_is_finished_by_who_receives() -> None:
    async with pair(presents="alice") as (client, server):
        with trio.move_on_after(1e9) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.renegotiate)
                await wait_all_tasks_blocked()
                scope.cancel()
        async with beside(lambda: read_on(client), lambda: read_on(server)):
            await wait_all_tasks_blocked()
            assert server.authorized


# What happens half-way


def half_way() -> tuple[Engine, Engine, bytes]:
    """Return ends of which the server has read the client's second hello, and the server's answer."""
    client, server = engines()
    server.write(b"in flight")
    in_flight = server.drain()
    client.renegotiate()
    assert client.finish_handshake() is Want.READ
    server.feed(client.drain())
    assert server.read() is Want.READ
    return client, server, in_flight + server.drain()


def test_nothing_can_be_written_half_way_and_nothing_is_lost_by_trying() -> None:
    client, server, answer = half_way()
    for end in (client, server):
        assert end.encrypt(b"data", 0, 4) is Want.READ
        with pytest.raises(tls.ProtocolError):
            end.write(b"data")
    client.feed(answer)
    assert exchange(client, server) == (b"in flight", b"")
    client.write(b"there")
    server.write(b"and back")
    assert exchange(client, server) == (b"and back", b"there")


def test_the_end_of_a_handshake_is_read_before_something_is_written() -> None:
    client, server, answer = half_way()
    client.feed(answer)
    assert client.encrypt(b"data", 0, 4) is Want.READ
    server.feed(client.drain())
    assert server.encrypt(b"data", 0, 4) == 4
    client.feed(server.drain())
    assert exchange(client, server) == (b"in flightdata", b"")


@over_both
async def test_a_goodbye_waits_for_the_end_of_a_handshake(transport: str) -> None:
    async with pair(transports=transport) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.renegotiate)
        await wait_all_tasks_blocked()
        nursery.start_soon(client.send_eof)
        await wait_all_tasks_blocked()
        await read_on(server)
        await server.aclose()
        await read_on(client)


async def test_who_closes_half_way_says_no_goodbye() -> None:
    async with pair() as (client, server), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def renegotiates() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await client.renegotiate()

        await wait_all_tasks_blocked()
        await client.aclose()
        with pytest.raises(tls.TruncationError):
            await read_on(server)


@pytest.mark.parametrize("half_is_read", [False, True])
@pytest.mark.parametrize("role", ["client", "server"])
def test_it_begins_when_a_record_that_has_come_in_part_is_whole(role: str, half_is_read: bool) -> None:
    client, server = engines()
    starting, other = (client, server) if role == "client" else (server, client)
    other.write(bytes(10_000))
    ciphertext = other.drain()
    starting.feed(ciphertext[:5000])
    if half_is_read:
        assert starting.read() is Want.READ
    starting.renegotiate(request_cert=False)
    assert starting.finish_handshake() is Want.READ
    starting.feed(ciphertext[5000:])
    assert starting.finish_handshake() is Want.READ
    begun = starting.drain()
    assert records(begun)[0][0] == HANDSHAKE
    other.feed(begun)
    assert len(exchange(client, server)[role == "server"]) == 10_000
    assert starting.finish_handshake() is True


def test_a_hello_that_crosses_our_question_is_its_answer_and_neither_counts() -> None:
    client, server = engines(server={"renegotiation_limit": 0})
    client.renegotiate()
    assert client.finish_handshake() is Want.READ
    hello = client.drain()
    server.feed(hello[:50])
    # OpenSSL asks later, as the hello has come in part.
    server.renegotiate(request_cert=False)
    assert server.finish_handshake() is Want.READ
    server.feed(hello[50:])
    exchange(server, client)
    assert server.finish_handshake() is client.finish_handshake() is True
    assert server.renegotiations_begun == 1
    client.write(b"it goes on")
    assert exchange(client, server) == (b"", b"it goes on")
    assert not answered(client, server)


def test_one_that_the_peer_has_begun_goes_first() -> None:
    client, server, answer = half_way()
    assert server.finish_handshake() is Want.READ
    client.feed(answer)
    exchange(client, server)
    assert server.finish_handshake() is True
    renegotiated(server, client)
    assert (client.renegotiations_begun, server.renegotiations_begun) == (2, 1)


@over_both
async def test_a_handshake_that_begins_at_the_last_moment_is_no_trouble(transport: str) -> None:
    options = {"renegotiation_limit": 100}
    async with pair(transports=transport, presents="alice", client=options, server=options) as ends:
        client, server = ends
        async with beside(lambda: read_on(server), lambda: read_on(client)):
            for turns in range(8):
                # Our own question, and theirs that is read some turns of the loop before.
                async with trio.open_nursery() as asking:
                    asking.start_soon(server.renegotiate)
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    asking.start_soon(client.renegotiate)
            await client.send_all(b"it goes on")


@pytest.mark.parametrize("role", ["client", "server"])
def test_it_begins_in_spite_of_data_that_nobody_has_read(role: str) -> None:
    client, server = engines()
    starting, other = (client, server) if role == "client" else (server, client)
    other.write(b"unread")
    starting.feed(other.drain())
    starting.renegotiate(request_cert=False)
    assert exchange(client, server)[role == "server"] == b"unread"
    assert starting.finish_handshake() is True


# What else looks on


@pytest.mark.parametrize("error", [KeyboardInterrupt, LookupError])
def test_what_a_callback_raises_comes_out_of_the_call(error: type[BaseException]) -> None:
    def check(_name: str, _certificate: object) -> None:
        if done:
            raise error

    done: list[bool] = []
    client, server = engines(client={"check_server_identity": check})
    done.append(True)
    server.renegotiate(request_cert=False)
    with pytest.raises((error, tls.IdentityError)):
        exchange(server, client)


def test_what_a_listener_raises_comes_out_of_the_call() -> None:
    def listen(_session: bytes) -> None:
        if done:
            raise KeyboardInterrupt

    done: list[bool] = []
    client, server = engines(client={"on_session": listen})
    done.append(True)
    with pytest.raises(KeyboardInterrupt):
        renegotiated(server, client)


def test_nothing_keeps_a_connection_that_has_renegotiated() -> None:
    ends = engines(of_client=client_context("TLSv1.2", "alice"), server={"renegotiation_limit": 1})
    renegotiated(ends[1], ends[0])
    renegotiated(ends[0], ends[1])
    ends[0].renegotiate()
    with pytest.raises(tls.ProtocolError):
        exchange(*ends)
    remaining = [weakref.ref(end) for end in ends]
    del ends
    assert [end() for end in remaining] == [None, None]


@pytest.mark.feature("C18")
async def test_a_renegotiation_is_traced_and_its_secrets_are_written_down() -> None:
    lines: dict[str, list[str]] = {"client": [], "server": []}
    options: Any = {
        role: {
            "keylog": lambda line, _stream, role=role: lines[role].append(line),
            "trace": tls.HandshakeTrace,
        }
        for role in lines
    }
    async with pair(presents="alice", **options) as (client, server):
        async with beside(lambda: read_on(client)):
            await server.renegotiate()
        assert lines["client"] == lines["server"]
        assert [line.split()[0] for line in lines["client"]] == ["CLIENT_RANDOM", "CLIENT_RANDOM"]
        assert lines["client"][0].split()[1:] != lines["client"][1].split()[1:]
        for stream in (client, server):
            assert stream.trace is not None
            text = str(stream.trace)
            assert text.count("HelloRequest") == 1
            assert text.count("ClientHello") >= 2


@pytest.mark.feature("E1")
@pytest.mark.parametrize("options", [{}, {"secure_options": SSL_OP_NO_TICKET}])
def test_a_session_is_told_when_it_is_whole(options: dict[str, Any]) -> None:
    sessions: list[bytes] = []

    def listen(session: bytes) -> None:
        sessions.append(session)
        half_way.extend(end._renegotiating for end in ends)

    ends: list[Engine] = []
    half_way: list[bool] = []
    contexts: Any = {
        "of_client": client_context("TLSv1.2"),
        "of_server": server_context("TLSv1.2", **options),
    }
    client, server = engines(**contexts, client={"on_session": listen})
    ends.append(client)
    for count in (1, 2):
        renegotiated(server, client)
        assert len(sessions) == 1 + count
    assert half_way == [False, False]
    assert client.session == sessions[-1]
    again, _ = engines(**contexts, client={"session": sessions[-1]})
    assert again.info is not None
    assert again.info.session_reused


@pytest.mark.feature("C23")
def test_a_connection_whose_keys_are_not_bound_renegotiates_all_the_same() -> None:
    client, server = engines(
        of_server=server_context("TLSv1.2", secure_options=SSL_OP_NO_EXTENDED_MASTER_SECRET)
    )
    renegotiated(client, server)
