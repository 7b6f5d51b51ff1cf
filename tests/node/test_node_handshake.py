"""Handshakes, as Node.js's own tests have them: what they are made over, and what is known after them."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from faults import only
from meetings import come_to, in_both_versions, read_to_end, secure_pair
from parties import agent, party, trust
from trio.testing import memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import ConfigurationError, SecureContext, TLSServer, TLSStream, wrap_client
from trio_tlsnode.testing import RecordingStream, tls_pair

LOCALHOST = SecureContext(**party("rsa_cert").options)
TRUSTING = SecureContext(ca=trust("rsa_cert"))
MANY = 2 * 1024 * 1024


async def say_hello(stream: TLSStream) -> None:
    await stream.send_all(b"hello")


# Who is trusted


@pytest.mark.feature("F2")
@pytest.mark.node("test-tls-cnnic-whitelist.js")
def test_a_key_among_the_authorities_is_refused_and_not_passed_over() -> None:
    with pytest.raises(ConfigurationError, match="private key") as caught:
        SecureContext(**agent("agent6"), ca=party("agent6").key_pem)
    assert caught.value.option == "ca"


@pytest.mark.feature("D3")
@pytest.mark.node("test-tls-cnnic-whitelist.js", "test-tls-friendly-error-message.js")
@pytest.mark.parametrize(
    ("server", "code"),
    [("agent6", "UNABLE_TO_GET_ISSUER_CERT_LOCALLY"), ("agent1", "UNABLE_TO_VERIFY_LEAF_SIGNATURE")],
)
async def test_the_default_roots_know_no_private_authority(
    server: str, code: str, nursery: trio.Nursery
) -> None:
    served = TLSServer(say_hello, SecureContext(**agent(server)))
    served.client_errors()
    with pytest.raises(tls.CertificateError) as caught:
        await wrap_client(come_to(served, nursery), host="agent1")
    assert caught.value.code == code
    assert (served.statistics().accepted, served.statistics().secure) == (1, 0)


@pytest.mark.feature("A5")
@pytest.mark.node("test-https-client-reject.js", "test-tls-client-reject-12.js")
@in_both_versions
@pytest.mark.parametrize(
    ("trusted", "options", "code"),
    [
        ([], {"reject_unauthorized": False}, None),
        ([], {}, "DEPTH_ZERO_SELF_SIGNED_CERT"),
        (["rsa_cert"], {}, None),
        (["rsa_cert"], {"reject_unauthorized": False}, None),
    ],
    ids=["may be anybody", "must be trusted", "trusted", "trusted, may be anybody"],
)
async def test_who_is_not_trusted_is_refused_unless_told_otherwise(
    trusted: list[str], options: dict[str, Any], code: str | None, version: str, nursery: trio.Nursery
) -> None:
    server = TLSServer(say_hello, LOCALHOST)
    server.client_errors()
    context = SecureContext(ca=trust(*trusted), **only(version))
    transport = come_to(server, nursery)
    if code is not None:
        with pytest.raises(tls.CertificateError) as caught:
            await wrap_client(transport, host="localhost", context=context, **options)
        assert caught.value.code == code
        return
    client = await wrap_client(transport, host="localhost", context=context, **options)
    assert client.authorized is bool(trusted)
    assert (client.authorization_error is None) is bool(trusted)
    assert await read_to_end(client) == b"hello"


@pytest.mark.feature("A5")
@pytest.mark.node("test-https-strict.js")
async def test_no_variable_of_the_environment_switches_verification_off(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setenv("NODE_TLS_REJECT_UNAUTHORIZED", "0")
    server = TLSServer(say_hello, SecureContext(**agent("agent2")))
    server.client_errors()
    with pytest.raises(tls.CertificateError) as caught:
        await wrap_client(come_to(server, nursery), host="agent2", context=SecureContext())
    assert caught.value.code == "DEPTH_ZERO_SELF_SIGNED_CERT"


@pytest.mark.node("test-tls-no-rsa-key.js")
@in_both_versions
async def test_a_server_needs_no_rsa_key(version: str, nursery: trio.Nursery) -> None:
    server = TLSServer(say_hello, SecureContext(**agent("ec")))
    context = SecureContext(ca=trust("ec"), **only(version))
    client = await wrap_client(come_to(server, nursery), host="agent2", context=context)
    assert client.info.peer_certificate is not None
    assert client.info.peer_certificate.subject["C"] == "US"
    assert await read_to_end(client) == b"hello"


# What is known after it


@pytest.mark.feature("C13")
@pytest.mark.feature("C23")
@pytest.mark.node("test-tls-exportkeyingmaterial.js")
@in_both_versions
async def test_key_material_is_the_same_on_both_sides_and_differs_by_context(version: str) -> None:
    client, server = await tls_pair(version=version, handshake=False)
    for stream in (client, server):
        with pytest.raises(trio.NeedHandshakeError):
            stream.export_keying_material(128, "label")
    client, server = await tls_pair(version=version)
    exported = []
    for context in (None, bytes(range(4)), b""):
        material = client.export_keying_material(128, "EXPERIMENTAL label", context)
        assert len(material) == 128
        assert server.export_keying_material(128, "EXPERIMENTAL label", context) == material
        exported.append(material)
    # In TLS 1.3 no context is the empty one (RFC 8446, section 7.5).
    assert len(set(exported)) == (2 if version == "TLSv1.3" else 3)


@pytest.mark.feature("C13")
@pytest.mark.node("test-tls-exportkeyingmaterial.js")
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((128, "label", "stringAsContextNotSupported"), TypeError),
        ((128, "label", 1234), TypeError),
        ((10, None), TypeError),
        (("length", "label"), TypeError),
        ((-3, "label"), ValueError),
        ((0, "label"), ValueError),
    ],
    ids=repr,
)
async def test_key_material_of_no_length_or_no_label_is_refused(
    arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    client, _ = await tls_pair()
    with pytest.raises(error):
        client.export_keying_material(*arguments)


@pytest.mark.feature("C13")
@pytest.mark.node("test-tls-exportkeyingmaterial.js")
async def test_a_label_of_tls_s_own_is_refused_up_to_tls_1_2_and_costs_nothing() -> None:
    client, server = await tls_pair(version="TLSv1.3")
    assert len(client.export_keying_material(128, "client finished")) == 128
    client, server = await tls_pair(version="TLSv1.2")
    with pytest.raises(ConfigurationError) as caught:
        client.export_keying_material(128, "client finished")
    assert caught.value.code == "ERR_SSL_TLS_ILLEGAL_EXPORTER_LABEL"
    await client.send_all(b"more")
    assert await server.receive_some() == b"more"


@pytest.mark.feature("C11")
@pytest.mark.node("test-tls-finished.js")
@in_both_versions
async def test_each_side_s_finished_message_is_the_other_s_peer_s(version: str) -> None:
    client, server = await tls_pair(version=version, handshake=False)
    for stream in (client, server):
        assert (stream.finished, stream.peer_finished) == (None, None)
    client, server = await tls_pair(version=version)
    assert client.finished
    assert server.finished
    assert (client.finished, server.finished) == (server.peer_finished, client.peer_finished)


# What it is made over


@pytest.mark.feature("C1")
@pytest.mark.node("test-tls-generic-stream.js")
async def test_any_pair_of_streams_will_do() -> None:
    client, server = await secure_pair(
        {"ca": trust("ca1")}, agent("agent1"), client_options={"host": "agent1"}
    )
    assert client.authorized
    await client.send_all(b"foobar")
    assert await server.receive_some() == b"foobar"


@pytest.mark.feature("B24")
@pytest.mark.node("test-tls-server-connection-server.js")
async def test_a_callback_of_the_server_s_knows_the_server(nursery: trio.Nursery) -> None:
    known: list[tls.ServerStatistics] = []
    server = TLSServer(say_hello, LOCALHOST, on_connection=lambda _address: known.append(server.statistics()))
    client = await wrap_client(come_to(server, nursery), context=TRUSTING)
    assert await read_to_end(client) == b"hello"
    assert [(each.open, each.handshaking, each.secure) for each in known] == [(1, 1, 0)]


@pytest.mark.feature("C1")
@pytest.mark.node("test-tls-on-empty-socket.js")
async def test_a_socket_may_be_connected_after_its_stream_was_made(nursery: trio.Nursery) -> None:
    server = TLSServer(say_hello, LOCALHOST)
    await nursery.start(server.serve, 0, "127.0.0.1")
    unconnected = trio.socket.socket()
    client = TLSStream(trio.SocketStream(unconnected), TRUSTING, host="localhost")
    assert client.remote_address is None
    await unconnected.connect(("127.0.0.1", server.addresses[0].port))
    async with client:
        assert await read_to_end(client) == b"hello"
        assert client.remote_address == server.addresses[0]


@pytest.mark.feature("A3")
@pytest.mark.node("test-tls-reuse-host-from-socket.js")
async def test_a_stream_that_is_connected_already_needs_no_host(nursery: trio.Nursery) -> None:
    client = await wrap_client(come_to(TLSServer(say_hello, LOCALHOST), nursery), context=TRUSTING)
    assert client.authorized
    # Nothing tells to whom it is connected.
    assert client.server_name == "localhost"
    assert await read_to_end(client) == b"hello"


@pytest.mark.feature("A3")
@pytest.mark.node("test-tls-over-http-tunnel.js")
async def test_tls_begins_on_a_stream_that_has_been_used(nursery: trio.Nursery) -> None:
    request = b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n"
    answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
    left, right = memory_stream_pair()

    async def proxy() -> None:
        assert await right.receive_some() == request
        await right.send_all(answer)
        await TLSServer(say_hello, LOCALHOST).handle(right)

    nursery.start_soon(proxy)
    await left.send_all(request)
    assert await left.receive_some() == answer
    client = await wrap_client(left, host="localhost", context=TRUSTING)
    assert await read_to_end(client) == b"hello"


@pytest.mark.feature("A3")
@pytest.mark.feature("B3")
@pytest.mark.node("test-double-tls-client.js")
async def test_what_was_sent_before_goes_before_the_inner_handshake(nursery: trio.Nursery) -> None:
    outer, theirs = await secure_pair({"ca": trust("rsa_cert")}, party("rsa_cert").options)
    # Nobody has read it yet.
    await outer.send_all(b"XXXX")

    async def upgrade() -> None:
        assert await theirs.receive_some(4) == b"XXXX"
        await TLSServer(say_hello, LOCALHOST).handle(theirs)

    nursery.start_soon(upgrade)
    inner = await wrap_client(outer, host="localhost", context=TRUSTING)
    assert await read_to_end(inner) == b"hello"


@pytest.mark.feature("A3")
@pytest.mark.node("test-double-tls-client.js")
async def test_who_still_sends_cannot_hand_the_stream_over() -> None:
    left, right = memory_stream_pair()
    outer, _ = await secure_pair(
        {"ca": trust("rsa_cert")}, party("rsa_cert").options, transports=(left, right)
    )
    left.send_stream.send_all_hook = trio.sleep_forever
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outer.send_all, b"XXXX")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await wrap_client(outer, host="localhost", context=TRUSTING)
        nursery.cancel_scope.cancel()


@pytest.mark.feature("B12")
@pytest.mark.node("test-double-tls-server.js")
async def test_two_mebibytes_of_the_outer_stream_go_before_the_inner_handshake(
    nursery: trio.Nursery,
) -> None:
    outer, theirs = await secure_pair({"ca": trust("rsa_cert")}, party("rsa_cert").options)
    offered: list[tuple[str, ...]] = []

    def choose(choice: tls.Choice) -> str:
        offered.append(choice.protocols)
        return "h2"

    async def upgrade() -> None:
        await theirs.send_all(bytes(MANY))
        await TLSServer(say_hello, LOCALHOST, alpn_callback=choose).handle(theirs)

    nursery.start_soon(upgrade)
    client = TLSStream(recorded := RecordingStream(outer), TRUSTING, host="localhost", alpn_protocols=["h2"])
    received = 0
    while received < MANY:
        received += len(await outer.receive_some(MANY - received))
    await client.do_handshake()
    assert recorded.received[:1] == b"\x16"
    assert offered == [("h2",)]
    assert client.alpn_protocol == "h2"
    assert await read_to_end(client) == b"hello"
