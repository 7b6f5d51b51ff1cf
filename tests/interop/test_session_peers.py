"""Sessions between us and others, and between our own processes: all of them resume."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from peers import (
    PATIENCE,
    NodePeer,
    in_both_versions,
    localhost,
    only,
    our_client,
    our_context,
    running,
    running_node,
    serving,
    standard_context,
    standard_socket,
    tcp_pair,
)

import trio_tlsnode as tls
from trio_tlsnode.options import SSL_OP_NO_TICKET
from trio_tlsnode.sessions import Session
from trio_tlsnode.testing import default_authority

pytestmark = pytest.mark.interop

by_both_names = pytest.mark.parametrize("secure_options", [0, SSL_OP_NO_TICKET], ids=["ticket", "identifier"])
in_thread = trio.to_thread.run_sync


class Host:
    """Our server, which greets, and notes what its clients offer.

    Attributes:
        server: The server.
        hellos: The clients' first messages.
        reused: Whether each of them has resumed a session.
    """

    def __init__(self, context: tls.SecureContext, **options: Any) -> None:
        self.server = tls.TLSServer(self._greet, context, **options)
        self.hellos: list[tls.ClientHello] = []
        self.reused: list[bool] = []

    async def _greet(self, stream: tls.TLSStream) -> None:
        assert stream.client_hello is not None
        self.hellos.append(stream.client_hello)
        self.reused.append(stream.info.session_reused)
        await stream.send_all(b"hello\n")
        with contextlib.suppress(tls.ConnectionLost):
            async for _ in stream:
                pass


async def visit(port: int, **options: Any) -> tuple[tls.ConnectionInfo, bytes | None, bytes | None]:
    """Visit a server that greets; return what was negotiated, the newest session, and its ticket."""
    async with await our_client(port, **{"context": our_context(), **options}) as stream:
        assert await stream.receive_some() == b"hello\n"
        return stream.info, stream.session, stream.tls_ticket


# Node.js is the client


async def node_visits(peer: NodePeer, port: int, session: str | None = None) -> dict[str, Any]:
    await peer.say(json.dumps({"port": port, "session": session}))
    return await peer.event("visited")


def node_only(version: str) -> dict[str, Any]:
    return {"minVersion": version, "maxVersion": version}


@pytest.mark.feature("C12")
@pytest.mark.feature("E1")
@in_both_versions
@by_both_names
async def test_a_node_client_resumes_our_sessions(node: str, version: str, secure_options: int) -> None:
    host = Host(our_context(secure_options=secure_options))
    options = {"servername": "localhost", "ca": default_authority().ca, **node_only(version)}
    async with serving(host.server) as ours, running_node(node, "sessions", options) as peer:
        first = await node_visits(peer, ours.port)
        assert first["reused"] is False
        assert len(first["told"]) == (2 if version == "TLSv1.3" else 1)
        for session in first["told"]:
            again = await node_visits(peer, ours.port, session)
            assert again["reused"] is True
            assert again["authorized"] is True
    assert host.reused == [False] + [True] * len(first["told"])
    assert host.server.statistics().resumed == len(first["told"])
    # What it calls its ticket is what it sends.
    hello = host.hellos[-1]
    sent = hello.psk_identities[0] if version == "TLSv1.3" else hello.session_ticket
    assert base64.b64decode(first.get("ticket", "")) == sent


@pytest.mark.feature("C12")
@in_both_versions
async def test_our_ticket_is_what_node_calls_its_ticket(node: str, version: str) -> None:
    """Both read it out of the session: of one session they say the same."""
    host = Host(our_context())
    options = {"servername": "localhost", "ca": default_authority().ca, **node_only(version)}
    async with serving(host.server) as ours, running_node(node, "sessions", options) as peer:
        theirs = await node_visits(peer, ours.port)
        of_session = Session.parse(base64.b64decode(theirs["told"][-1])).ticket
        assert of_session == base64.b64decode(theirs["ticket"])
        _, session, ticket = await visit(ours.port, context=our_context(**only(version)))
        assert session is not None
        assert ticket == Session.parse(session).ticket
        assert len(ticket or b"") == pytest.approx(len(of_session or b""), abs=32)


@pytest.mark.feature("A7")
@in_both_versions
async def test_a_session_of_nodes_leads_to_a_full_handshake_of_ours(node: str, version: str) -> None:
    host = Host(our_context())
    options = {"servername": "localhost", "ca": default_authority().ca, **node_only(version)}
    async with serving(host.server) as ours, running_node(node, "sessions", options) as peer:
        theirs = await node_visits(peer, ours.port)
        session = base64.b64decode(theirs["told"][-1])
        assert Session.parse(session).resumable
        info, _, _ = await visit(ours.port, session=session)
        assert not info.session_reused
        assert info.authorized


@pytest.mark.feature("E2")
@in_both_versions
async def test_a_node_client_notices_nothing_of_new_keys_and_certificates(node: str, version: str) -> None:
    host = Host(our_context(), ticket_rotation=3600)
    options = {"servername": "localhost", "ca": default_authority().ca, **node_only(version)}
    async with serving(host.server) as ours, running_node(node, "sessions", options) as peer:
        first = await node_visits(peer, ours.port)
        host.server.set_secure_context(our_context(**default_authority().good("localhost").options))
        assert (await node_visits(peer, ours.port, first["told"][0]))["reused"] is True


# Node.js is the server


@contextlib.asynccontextmanager
async def node_host(node: str, **options: Any) -> AsyncIterator[tuple[NodePeer, int]]:
    given = {**localhost().options, **options}
    async with running_node(node, "sessions", given, role="server") as peer:
        yield peer, (await peer.event("listening"))["port"]


@pytest.mark.feature("A7")
@pytest.mark.feature("A18")
@pytest.mark.feature("A19")
@pytest.mark.parametrize(
    ("version", "secure_options"),
    # Of TLS 1.3, Node.js does not resume what it keeps itself, not for its own clients either.
    [("TLSv1.2", 0), ("TLSv1.2", SSL_OP_NO_TICKET), ("TLSv1.3", 0)],
)
async def test_our_client_resumes_sessions_of_node(node: str, version: str, secure_options: int) -> None:
    async with node_host(node, secureOptions=secure_options, **node_only(version)) as (peer, port):
        sessions: list[bytes] = []
        await visit(port, on_session=sessions.append)
        assert (await peer.event("visited"))["reused"] is False
        assert len(sessions) == (2 if version == "TLSv1.3" else 1)
        for session in sessions:
            info, _, _ = await visit(port, session=session)
            assert info.session_reused
            assert info.authorized
            if version == "TLSv1.2" and secure_options:
                identifier = Session.parse(session).session_id
                assert (await peer.event("resumeSession"))["id"] == base64.b64encode(identifier).decode()
            assert (await peer.event("visited"))["reused"] is True
        context = our_context()
        for reused in (False, True, True):
            info, _, _ = await visit(port, context=context)
            assert info.session_reused == reused
            assert len(info.verified_chain) == 2


@pytest.mark.feature("A19")
@in_both_versions
async def test_our_client_gets_over_it_when_node_has_been_restarted(node: str, version: str) -> None:
    session = None
    for _ in range(2):
        async with node_host(node, **node_only(version)) as (peer, port):
            info, session, _ = await visit(port, session=session)
            assert not info.session_reused
            assert (await peer.event("visited"))["reused"] is False


# The openssl command


@pytest.mark.feature("E1")
@by_both_names
@pytest.mark.parametrize("client_auth", [False, True], ids=["", "with a certificate"])
async def test_s_client_reconnects_by_its_session(
    openssl: str, tmp_path: Path, secure_options: int, client_auth: bool
) -> None:
    # In TLS 1.3 it reconnects before it has read a ticket, from any server.
    host = Host(our_context(secure_options=secure_options), request_cert=client_auth)
    key, cert = default_authority().client("alice").write_to(tmp_path)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(default_authority().ca)
    async with serving(host.server) as ours:
        command = (openssl, "s_client", "-connect", f"127.0.0.1:{ours.port}", "-tls1_2", "-reconnect")
        async with running(*command, "-CAfile", ca, "-key", key, "-cert", cert) as peer:
            await peer.line_with("New, TLSv1.2")
            for _ in range(5):
                await peer.line_with("Reused, TLSv1.2")
    assert host.reused[-5:] == [True] * 5


@pytest.mark.feature("E1")
@in_both_versions
@by_both_names
async def test_s_client_resumes_in_another_process(
    openssl: str, tmp_path: Path, version: str, secure_options: int
) -> None:
    host = Host(our_context(secure_options=secure_options))
    ca, session = tmp_path / "ca.pem", tmp_path / "session.pem"
    ca.write_bytes(default_authority().ca)
    switch = f"-tls{version[4:].replace('.', '_')}"
    async with serving(host.server) as ours:
        command = (openssl, "s_client", "-connect", f"127.0.0.1:{ours.port}", switch, "-CAfile", ca)
        for word, what in (("-sess_out", "New"), ("-sess_in", "Reused")):
            async with running(*command, word, session) as peer:
                await peer.line_with(f"{what}, {version}")
                await peer.line_with("hello")
                await peer.say("Q")
                await peer.everything()
    assert host.reused == [False, True]


@pytest.mark.feature("A7")
@pytest.mark.feature("A18")
@in_both_versions
@pytest.mark.parametrize("switches", [(), ("-no_ticket",)], ids=["ticket", "identifier"])
async def test_our_client_resumes_sessions_of_s_server(
    openssl: str, tmp_path: Path, version: str, switches: tuple[str, ...]
) -> None:
    key, cert = localhost().write_to(tmp_path)
    command = (openssl, "s_server", "-accept", "127.0.0.1:0", "-rev", "-key", key, "-cert", cert)
    context = our_context(**only(version))
    async with running(*command, *switches) as peer:
        port = int((await peer.line_with("ACCEPT")).rpartition(":")[2])
        session = None
        for reused in (False, True, True):
            async with await our_client(port, context, session=session) as stream:
                assert stream.info.session_reused == reused
                await stream.send_all(b"abc\n")
                assert await stream.receive_some() == b"cba\n"
                session = stream.session
                assert session is not None


# The standard library


@pytest.mark.feature("E1")
@in_both_versions
async def test_the_standard_library_resumes_our_sessions(tmp_path: Path, version: str) -> None:
    context = standard_context("client", version, tmp_path)
    ours, session = our_context(), None
    for reused in (False, True):
        transport, sock = await tcp_pair()

        def use() -> Any:
            with standard_socket(context, sock, "client", session=session) as theirs:  # noqa: B023 - called in this turn of the loop
                assert theirs.recv(6) == b"hello\n"
                assert theirs.session_reused == reused  # noqa: B023 - called in this turn of the loop
                return theirs.session

        stream = tls.TLSStream(transport, ours, server_side=True)
        with trio.fail_after(PATIENCE):
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, b"hello\n")
                session = await in_thread(use)
        assert stream.info.session_reused == reused


# A process of our own

PROGRAM = """
import sys
from pathlib import Path
import trio
import trio_tlsnode as tls

async def main(port, ca, *files):
    for name in files:
        session = Path(name).read_bytes()
        async with await tls.connect(
            "127.0.0.1", int(port), server_name="localhost", ca=Path(ca), session=session
        ) as stream:
            await stream.receive_some()
            print(stream.info.protocol, stream.info.session_reused, stream.authorized)

trio.run(main, *sys.argv[1:])
"""


@pytest.mark.feature("A7")
async def test_sessions_are_resumed_in_another_process(tmp_path: Path) -> None:
    authority = default_authority()
    host = Host(tls.SecureContext(**localhost().options))
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.ca)
    files = []
    async with serving(host.server) as ours:
        for version in ("TLSv1.2", "TLSv1.3"):
            context = tls.SecureContext(ca=authority.ca, max_version=version)
            _, session, _ = await visit(ours.port, context=context)
            files.append(tmp_path / version)
            assert session is not None
            files[-1].write_bytes(session)
        process = await trio.run_process(
            [sys.executable, "-W", "error", "-c", PROGRAM, str(ours.port), str(ca), *map(str, files)],
            capture_stdout=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    # The one of TLS 1.2 is offered to a server that now may speak TLS 1.3, and does.
    assert process.stdout.decode().splitlines() == ["TLSv1.3 False True", "TLSv1.3 True True"]
    assert host.reused == [False, False, False, True]
