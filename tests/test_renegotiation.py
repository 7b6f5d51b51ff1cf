"""Renegotiation, up to TLS 1.2: another handshake inside a connection, by which a client may prove who it is."""

from __future__ import annotations

import functools
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
from trio_tlsnode import SecureContext, TLSStream
from trio_tlsnode._openssl.library import NULL, lib
from trio_tlsnode.engine import Engine, Want
from trio_tlsnode.options import SSL_OP_NO_EXTENDED_MASTER_SECRET, SSL_OP_NO_RENEGOTIATION, SSL_OP_NO_TICKET
from trio_tlsnode.testing import MemoryListener, RecordingStream, StallingStream

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
        assert [len(server.info.verified_chain), len(server.info.peer_certificate_chain)] == [2, 1]
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
        for count in (1, 2, 3):
            before = list(traffic.received)
            await ends[1].renegotiate()
            assert ends[1].authorized
            assert traffic.received[0] > before[0], count
            assert traffic.received[1] > before[1], count


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
                await call()  # type: ignore[operator]  # they have nothing in common
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
            # The next one may be stricter.
            if code is not None:
                with pytest.raises(tls.CertificateError):
                    await server.renegotiate()


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
    async with pair() as (_client, server):
        with pytest.raises(tls.ConfigurationTypeError):
            await server.renegotiate(**{option: "yes"})
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
    assert client.info is not None
    assert client.info.authorized
    other = server_context("TLSv1.2", **TRUSTED.good("other.example").options)
    ssl_ctx = other.ssl_ctx(server_side=True, verify_mode=0)
    lib.SSL_set_SSL_CTX(server.ssl, ssl_ctx.pointer)
    if reject_unauthorized:
        server.renegotiate(request_cert=False)
        with pytest.raises(tls.IdentityError):
            exchange(client, server)
        assert client.info.authorized
        return
    renegotiated(server, client)
    client.read()
    assert not client.info.authorized
    assert codes(client.info) == "ERR_TLS_CERT_ALTNAME_INVALID"


def test_a_renegotiation_is_no_place_for_another_session() -> None:
    """Otherwise nobody would be asked for a certificate."""
    sessions: list[bytes] = []
    contexts = client_context("TLSv1.2", "alice"), server_context("TLSv1.2")
    engines(of_client=contexts[0], of_server=contexts[1], client={"on_session": sessions.append})
    client, server = engines(
        of_client=contexts[0], of_server=contexts[1], client={"session": sessions[0]}
    )
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
    ("of_client", "client", "code"),
    [
        ({}, {}, None),
        ({}, {"min_dh_size": 3072}, "ERR_TLS_DH_PARAM_SIZE"),
        ({"require_groups": "X25519"}, {}, "ERR_SSL_NO_SUITABLE_GROUPS"),
    ],
)
def test_a_server_may_not_exchange_weaker_keys_later(
    of_client: dict[str, Any], client: dict[str, Any], code: str | None
) -> None:
    """Its group is not seen, as its message is encrypted: the default bound is left to OpenSSL."""
    suites = {"ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256"}
    reader, server = engines(
        of_client=client_context("TLSv1.2", **suites, **of_client),
        of_server=server_context("TLSv1.2", **suites),
        client=client,
    )
    weaker = server_context("TLSv1.2", dhparam="auto", **suites, **_rsa())
    lib.SSL_set_SSL_CTX(server.ssl, weaker.ssl_ctx(server_side=True, verify_mode=0).pointer)
    server.renegotiate(request_cert=False)
    if code is None:
        renegotiated(server, reader)
        assert reader.info is not None
        assert reader.info.cipher.name == "DHE-RSA-AES128-GCM-SHA256"
        assert reader.info.ephemeral_key is None
        return
    with pytest.raises(tls.ProtocolError) as caught:
        exchange(reader, server)
    assert caught.value.code == code


@functools.cache
def _rsa() -> dict[str, bytes]:
    return dict(TRUSTED.good("localhost", key_type="RSA").options)  # type: ignore[arg-type]  # a TypedDict
