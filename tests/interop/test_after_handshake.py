"""After the handshake, with others: renegotiation, late certificates, key material, half-closed streams."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from peers import (
    NodePeer,
    in_both_roles,
    in_both_versions,
    localhost,
    only,
    our_client,
    our_context,
    our_stream,
    running,
    running_node,
    serving,
    standard_context,
    standard_socket,
    tcp_pair,
)

import trio_tlsnode as tls
from trio_tlsnode.options import SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION
from trio_tlsnode.testing import Authority, default_authority, tls_pair

pytestmark = pytest.mark.interop

LABEL = "EXPORTER-trio-tlsnode"
ALICE = default_authority().client("alice").options
MALLORY = Authority().client("mallory").options
SWITCHES = {"TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}


class Node:
    """Node.js on the other side of a connection."""

    def __init__(self, peer: NodePeer) -> None:
        self._peer = peer

    async def order(self, name: str, *arguments: object) -> None:
        await self._peer.say(json.dumps([name, *arguments]))

    async def told(self, event: str) -> dict[str, Any]:
        return await self._peer.event(event)

    async def asked(self, name: str, *arguments: object) -> dict[str, Any]:
        await self.order(name, *arguments)
        return await self.told(name)


@contextlib.asynccontextmanager
async def connected(
    node: str,
    role: str,
    version: str = "TLSv1.2",
    *,
    context: tls.SecureContext | None = None,
    ours: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    **theirs: Any,
) -> AsyncIterator[tuple[tls.TLSStream, Node]]:
    """Connect with Node; return our stream, which has the role that is asked for, and Node."""
    context = context or our_context(**only(version))
    versions = {"minVersion": version, "maxVersion": version, "ca": default_authority().ca}
    told = config or {}
    if role == "client":
        options = {**localhost().options, **versions, **theirs}
        async with running_node(node, "after_handshake", options, role="serve", **told) as peer:
            port = (await peer.event("listening"))["port"]
            stream = await our_client(port, context, **(ours or {}))
            await peer.event("secure")
            try:
                yield stream, Node(peer)
            finally:
                await trio.aclose_forcefully(stream)
        return
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    (listener,) = listeners
    port = listener.socket.getsockname()[1]
    options = {"port": port, "servername": "localhost", **versions, **theirs}
    async with listener, running_node(node, "after_handshake", options, role="connect", **told) as peer:
        stream = our_stream(await listener.accept(), "server", context, **(ours or {}))
        try:
            await stream.do_handshake()
            yield stream, Node(peer)
        finally:
            await trio.aclose_forcefully(stream)


@contextlib.asynccontextmanager
async def read_from(stream: tls.TLSStream) -> AsyncIterator[bytearray]:
    """Receive meanwhile, until the peer says goodbye or is gone."""
    received = bytearray()

    async def read() -> None:
        with contextlib.suppress(tls.ConnectionFailed):
            async for data in stream:
                received.extend(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        yield received
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that a task beside this one brings about."""
    while not condition():  # noqa: ASYNC110 - what is waited for does not tell
        await trio.sleep(0.001)


# Renegotiation with Node.js


@pytest.mark.feature("C15")
@pytest.mark.feature("C17")
async def test_a_node_client_renegotiates_as_often_as_we_allow(node: str) -> None:
    async with connected(node, "server", ours={"renegotiation_limit": 2}) as (stream, peer):
        async with read_from(stream) as received:
            assert await peer.asked("renegotiate", {}, 2) == {"event": "renegotiate", "done": 2, "code": None}
            await stream.send_all(b"to Node")
            assert (await peer.told("data"))["received"] == "to Node"
            await peer.asked("write", "from Node")
            await until(lambda: received == b"from Node")
        await peer.order("renegotiate", {}, 1)
        with pytest.raises(tls.ProtocolError) as caught:
            await stream.receive_some()
        assert caught.value.code == "ERR_TLS_SESSION_ATTACK"
        assert (await peer.told("error"))["code"] == "ERR_SSL_NO_RENEGOTIATION"


@pytest.mark.feature("C16")
async def test_a_node_client_that_renegotiates_in_spite_of_being_forbidden_ends_the_stream(node: str) -> None:
    async with connected(node, "server") as (stream, peer):
        stream.disable_renegotiation()
        await peer.order("renegotiate", {}, 1)
        with pytest.raises(tls.ProtocolError) as caught:
            await stream.receive_some()
        assert caught.value.code == "ERR_TLS_RENEGOTIATION_DISABLED"


@pytest.mark.feature("C15")
@pytest.mark.feature("B8")
@pytest.mark.parametrize(("presents", "authorized"), [(ALICE, True), (MALLORY, False), ({}, False)])
async def test_a_node_client_is_asked_for_its_certificate_later(
    node: str, presents: Any, authorized: bool
) -> None:
    async with connected(node, "server", **presents) as (stream, peer):
        await peer.asked("write", "before")
        await stream.renegotiate(reject_unauthorized=False)
        assert stream.authorized is authorized
        assert (stream.info.peer_certificate is None) is (not presents)
        assert await stream.receive_some() == b"before"
        if authorized:
            await stream.renegotiate()
            return
        with pytest.raises(tls.CertificateError):
            await stream.renegotiate()
        assert (await peer.told("error"))["code"].startswith("ERR_SSL_")


@pytest.mark.feature("C15")
@pytest.mark.parametrize("name", ["alice", "mallory", None])
async def test_a_node_server_asks_us_for_our_certificate_later(node: str, name: str | None) -> None:
    presents: Any = {"alice": ALICE, "mallory": MALLORY, None: {}}[name]
    context = our_context(**only("TLSv1.2"), **presents)
    # Otherwise Node would resume the session, and ask nobody.
    options: dict[str, Any] = {"secureOptions": SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION}
    async with connected(node, "client", context=context, **options) as (stream, peer):
        async with read_from(stream):
            await stream.send_all(b"before")
            assert (await peer.told("data"))["length"] == 6
            finished = stream.finished
            # Node answers as soon as it has asked.
            await peer.asked("renegotiate", {"requestCert": True, "rejectUnauthorized": False}, 1)
            await until(lambda: stream.finished != finished)
            await stream.send_all(b"|")
            assert (await peer.told("data"))["length"] == 7
            assert (await peer.asked("peer")).get("name") == name


@pytest.mark.feature("C15")
async def test_a_node_server_that_resumes_the_session_meanwhile_is_still_the_same(node: str) -> None:
    async with connected(node, "client") as (stream, peer), read_from(stream):
        first = stream.info
        await peer.asked("renegotiate", {}, 1)
        await until(lambda: stream.info is not first)
        assert stream.info.session_reused
        assert stream.authorized
        assert stream.info.peer_certificate_chain == first.peer_certificate_chain


@pytest.mark.feature("C17")
async def test_a_node_server_has_limits_too(node: str) -> None:
    config = {"renegotiationLimit": 2}
    async with connected(node, "client", config=config) as (stream, peer):
        # Node leaves it to the application to end such a connection.
        for _ in range(3):
            await stream.renegotiate()
        assert (await peer.told("error"))["code"] == "ERR_TLS_SESSION_ATTACK"


@pytest.mark.feature("C17")
async def test_a_node_server_that_renegotiates_without_end_is_refused(node: str) -> None:
    async with connected(node, "client", ours={"renegotiation_limit": 1}) as (stream, peer):
        await peer.order("renegotiate", {}, 3)
        with pytest.raises(tls.ProtocolError) as caught:
            await stream.receive_some()
        assert caught.value.code == "ERR_TLS_SESSION_ATTACK"


@pytest.mark.feature("C15")
async def test_data_flows_in_both_directions_while_we_renegotiate_with_node(node: str) -> None:
    async with connected(node, "client") as (stream, peer), read_from(stream) as received:
        for count in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.order, "write", "x" * 50_000)
                nursery.start_soon(stream.send_all, b"." * 300_000)
                nursery.start_soon(stream.renegotiate)
            await stream.send_all(b"|")
            while (facts := await peer.told("data"))["length"] < (count + 1) * 300_001:
                pass
            assert facts["received"].endswith("|")
        await until(lambda: len(received) == 150_000)


# Key material, as Node.js has it


@pytest.mark.feature("C11")
@pytest.mark.feature("C13")
@in_both_versions
@in_both_roles
@pytest.mark.parametrize("context", [None, b"", b"\0\1\2\3"])
async def test_key_material_is_that_of_node(
    node: str, role: str, version: str, context: bytes | None
) -> None:
    async with connected(node, role, version) as (stream, peer):
        await stream.send_all(b"x")
        await peer.told("data")
        for length in (1, 128):
            theirs = await peer.asked("keys", length, LABEL, None if context is None else context.hex())
            assert stream.finished is not None
            assert stream.peer_finished is not None
            assert stream.finished.hex() == theirs["peerFinished"]
            assert stream.peer_finished.hex() == theirs["finished"]
            assert stream.export_keying_material(length, LABEL, context).hex() == theirs["exported"]


@pytest.mark.feature("C11")
@pytest.mark.feature("C13")
async def test_after_a_renegotiation_key_material_is_still_that_of_node(node: str) -> None:
    async with connected(node, "client") as (stream, peer):
        before = stream.finished
        async with read_from(stream):
            await stream.renegotiate()
        theirs = await peer.asked("keys", 32, LABEL, None)
        assert stream.finished is not None
        assert stream.peer_finished is not None
        assert stream.finished != before
        assert stream.finished.hex() == theirs["peerFinished"]
        assert stream.peer_finished.hex() == theirs["finished"]
        assert stream.export_keying_material(32, LABEL).hex() == theirs["exported"]


SIGALGS = "RSA+SHA256:RSA-PSS+SHA256:ECDSA+SHA256:RSA-PSS+SHA512:ECDSA+SHA384:RSA+SHA224"


@pytest.mark.feature("C8")
@in_both_versions
@pytest.mark.parametrize("client_sigalgs", [None, "RSA-PSS+SHA512:RSA-PSS+SHA256:ECDSA+SHA256:RSA+SHA224"])
@pytest.mark.parametrize("server_sigalgs", [None, SIGALGS])
@pytest.mark.parametrize("honor_cipher_order", [True, False])
async def test_a_server_of_ours_shares_the_signature_algorithms_that_node_s_does(
    node: str,
    version: str,
    client_sigalgs: str | None,
    server_sigalgs: str | None,
    honor_cipher_order: bool,
) -> None:
    client = our_context(**only(version), sigalgs=client_sigalgs)
    server = our_context(
        **only(version),
        sigalgs=server_sigalgs,
        honor_cipher_order=honor_cipher_order,
    )
    theirs: dict[str, Any] = {"honorCipherOrder": honor_cipher_order}
    if server_sigalgs is not None:
        theirs["sigalgs"] = server_sigalgs
    async with connected(node, "client", version, context=client, **theirs) as (_stream, peer):
        shared = (await peer.asked("sigalgs"))["shared"]
    ours = await tls_pair(client_context=client, server_context=server)
    assert list(ours[1].info.shared_signature_algorithms) == shared
    for stream in ours:
        await trio.aclose_forcefully(stream)


# Half-closed


@pytest.mark.feature("A13")
@in_both_versions
@in_both_roles
@pytest.mark.parametrize("half_open", [True, False])
async def test_who_has_said_goodbye_to_node_still_gets_its_answer(
    node: str, role: str, version: str, half_open: bool
) -> None:
    async with connected(node, role, version, allowHalfOpen=half_open) as (stream, peer):
        await stream.send_all(b"question")
        await peer.told("data")
        await stream.send_eof()
        assert (await peer.told("ended"))["received"] == "question"
        if half_open:
            await peer.asked("write", "answer")
            assert await stream.receive_some() == b"answer"
            await peer.order("end", "goodbye")
            assert await stream.receive_some() == b"goodbye"
        # Otherwise Node says goodbye by itself.
        assert await stream.receive_some() == b""
        assert await peer.told("close") == {"event": "close", "hadError": False}


@pytest.mark.feature("A13")
@in_both_versions
@in_both_roles
@pytest.mark.parametrize("half_open", [True, False])
async def test_whom_node_has_said_goodbye_to_may_still_answer(
    node: str, role: str, version: str, half_open: bool
) -> None:
    async with connected(node, role, version, allowHalfOpen=half_open) as (stream, peer):
        await peer.order("end", "question")
        assert await stream.receive_some() == b"question"
        assert await stream.receive_some() == b""
        await stream.send_all(b"answer")
        assert (await peer.told("data"))["received"] == "answer"
        await stream.send_eof()
        await peer.told("ended")
        await stream.aclose()
        assert await peer.told("close") == {"event": "close", "hadError": False}


# openssl


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    """The file of the authority that s_client trusts."""
    path = tmp_path / "ca.pem"
    path.write_bytes(default_authority().ca)
    return path


@contextlib.asynccontextmanager
async def s_client(openssl: str, port: int, trusted: Path, *switches: str | Path) -> AsyncIterator[Any]:
    async with running(
        openssl,
        "s_client",
        *("-connect", f"127.0.0.1:{port}", "-CAfile", trusted, "-verify_return_error"),
        *switches,
    ) as client:
        yield client


@pytest.mark.feature("C15")
async def test_s_client_renegotiates_by_its_command(openssl: str, trusted: Path) -> None:
    finished: list[bytes | None] = []

    async def handler(stream: tls.TLSStream) -> None:
        async for data in stream:
            finished.append(stream.finished)
            await stream.send_all(data)

    async with serving(tls.TLSServer(handler, our_context(**only("TLSv1.2")))) as ours:
        async with s_client(openssl, ours.port, trusted, "-tls1_2") as client:
            await client.line_with("Verify return code: 0")
            await client.say("before")
            await client.line_with("before")
            await client.say("R")
            await client.line_with("RENEGOTIATING")
            await client.say("after")
            await client.line_with("after")
    assert len(finished) == 2
    assert finished[0] != finished[1]


@pytest.mark.feature("C15")
@pytest.mark.feature("B8")
@in_both_versions
async def test_s_client_is_asked_for_its_certificate_later(
    openssl: str, trusted: Path, tmp_path: Path, version: str
) -> None:
    key, cert = default_authority().client("alice").write_to(tmp_path)
    names: list[str] = []

    async def handler(stream: tls.TLSStream) -> None:
        ask = stream.renegotiate if version == "TLSv1.2" else stream.request_client_certificate
        for _ in range(2):
            await ask()
            certificate = stream.info.peer_certificate
            assert certificate is not None
            names.append(str(certificate.subject["CN"]))
        await stream.send_all(b"welcome, " + names[0].encode() + b"\n")
        assert await stream.receive_some() == b"thanks\n"
        await stream.send_all(b"bye\n")

    async with serving(tls.TLSServer(handler, our_context(**only(version)))) as ours:
        switches = ("-key", key, "-cert", cert, SWITCHES[version], "-enable_pha")
        async with s_client(openssl, ours.port, trusted, *switches) as client:
            await client.line_with("welcome, alice")
            await client.say("thanks")
            await client.line_with("bye")
    assert names == ["alice", "alice"]


@pytest.mark.feature("C15")
async def test_s_client_that_has_not_offered_it_is_not_asked(openssl: str, trusted: Path) -> None:
    async def handler(stream: tls.TLSStream) -> None:
        with pytest.raises(tls.ProtocolError) as caught:
            await stream.request_client_certificate()
        await stream.send_all(caught.value.code.encode() + b"\n")

    async with serving(tls.TLSServer(handler, our_context(**only("TLSv1.3")))) as ours:
        async with s_client(openssl, ours.port, trusted, "-tls1_3") as client:
            await client.line_with("ERR_SSL_EXTENSION_NOT_RECEIVED")


@pytest.mark.feature("C15")
@pytest.mark.parametrize(("version", "command"), [("TLSv1.2", "R"), ("TLSv1.3", "c")])
async def test_s_server_asks_us_for_our_certificate_later(
    openssl: str, trusted: Path, tmp_path: Path, version: str, command: str
) -> None:
    key, cert = localhost().write_to(tmp_path)
    async with running(
        openssl,
        "s_server",
        *("-accept", "127.0.0.1:0", "-naccept", "1", "-key", key, "-cert", cert, "-cert_chain", cert),
        *("-CAfile", trusted, "-verify_return_error", "-state", "-no_resumption_on_reneg"),
    ) as server:
        port = int((await server.line_with("ACCEPT")).rpartition(":")[2])
        context = our_context(**only(version), **ALICE)
        async with await our_client(port, context, post_handshake_auth=True) as stream:
            async with read_from(stream) as received:
                await stream.send_all(b"before\n")
                await server.line_with("before")
                await server.say(command)
                await server.line_with("read certificate verify")
                await stream.send_all(b"after\n")
                await server.line_with("after")
                await server.say("and back")
                await until(lambda: b"and back" in received)


@pytest.mark.feature("C13")
@in_both_versions
async def test_s_client_exports_the_same_key_material(openssl: str, trusted: Path, version: str) -> None:
    exported: list[str] = []

    async def handler(stream: tls.TLSStream) -> None:
        exported.append(stream.export_keying_material(48, LABEL).hex())
        await stream.receive_some()

    async with serving(tls.TLSServer(handler, our_context(**only(version)))) as ours:
        switches = ("-keymatexport", LABEL, "-keymatexportlen", "48")
        async with s_client(openssl, ours.port, trusted, SWITCHES[version], *switches) as client:
            line = await client.line_with("Keying material: ")
            await client.say_no_more()
            await client.everything()
    assert line.rpartition(" ")[2].lower() == exported[0]


@pytest.mark.feature("C8")
@in_both_versions
@pytest.mark.parametrize("honor_cipher_order", [True, False])
async def test_s_server_shares_the_same_signature_algorithms(
    openssl: str, tmp_path: Path, version: str, honor_cipher_order: bool
) -> None:
    key, cert = localhost().write_to(tmp_path)
    client = our_context(**only(version), sigalgs="ECDSA+SHA512:ECDSA+SHA256:RSA-PSS+SHA256:RSA+SHA224")
    preference = ["-serverpref"] if honor_cipher_order else []
    async with running(
        openssl,
        "s_server",
        *("-accept", "127.0.0.1:0", "-naccept", "1", "-key", key, "-cert", cert, "-cert_chain", cert),
        *("-sigalgs", SIGALGS, *preference),
    ) as server:
        port = int((await server.line_with("ACCEPT")).rpartition(":")[2])
        async with await our_client(port, client):
            shared = (await server.line_with("Shared Signature Algorithms: ")).rpartition(" ")[2]
    context = our_context(**only(version), sigalgs=SIGALGS, honor_cipher_order=honor_cipher_order)
    ours = await tls_pair(client_context=client, server_context=context)
    assert ":".join(ours[1].info.shared_signature_algorithms) == shared
    for stream in ours:
        await trio.aclose_forcefully(stream)


# The standard library


@pytest.mark.feature("C11")
@in_both_roles
async def test_tls_unique_is_that_of_the_standard_library(role: str, tmp_path: Path) -> None:
    ours, theirs = await tcp_pair()
    side = "server" if role == "client" else "client"
    stream = our_stream(ours, role, our_context(**only("TLSv1.2")))
    context = standard_context(side, "TLSv1.2", tmp_path)
    bindings: list[bytes | None] = []

    def talk() -> None:
        with standard_socket(context, theirs, side) as sock:
            bindings.append(sock.get_channel_binding("tls-unique"))
            sock.sendall(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, talk)
        await stream.do_handshake()
        assert await stream.receive_some() == b"x"
    assert bindings == [stream.channel_binding("tls-unique")]
    await trio.aclose_forcefully(stream)
