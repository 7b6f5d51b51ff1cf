"""set_secure_context: new connections get the new context, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_tlsnode import (
    ConfigurationError,
    ConfigurationTypeError,
    PreSharedKey,
    SecureContext,
    TLSServer,
    TLSStream,
    wrap_client,
)
from trio_tlsnode.testing import MemoryListener, StallingStream, default_authority

pytestmark = pytest.mark.feature("B14")

CLIENT = SecureContext(ca=default_authority().ca)
OLD, NEW, OTHER = (
    SecureContext(**default_authority().good("localhost", name).options)
    for name in ("old.example", "new.example", "other.example")
)


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


def presented(stream: TLSStream) -> str:
    """Return the second name of the certificate that the server has presented."""
    certificate = stream.info.peer_certificate
    assert certificate is not None
    assert certificate.subject_alt_name is not None
    return certificate.subject_alt_name.rpartition("DNS:")[2]


async def connect_to(nursery: trio.Nursery, server: TLSServer, **options: Any) -> TLSStream:
    client, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    return await wrap_client(client, context=CLIENT, **options)


async def assert_echoes(client: TLSStream) -> None:
    await client.send_all(b"is this on?")
    assert await client.receive_some() == b"is this on?"


@pytest.mark.node("test-tls-set-secure-context.js")
async def test_new_connections_get_the_new_context_and_open_ones_keep_theirs(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, OLD)
    before = await connect_to(nursery, server)
    server.set_secure_context(NEW)
    after = await connect_to(nursery, server)
    assert (presented(before), presented(after)) == ("old.example", "new.example")
    for client in (before, after):
        await assert_echoes(client)
        await client.aclose()


async def test_handshake_that_has_begun_goes_on_with_the_old_context(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, OLD)
    client, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    # The server's answer is held back.
    stalling = StallingStream(client, receive_after=1)
    stream = TLSStream(stalling, CLIENT)
    nursery.start_soon(stream.do_handshake)
    await wait_all_tasks_blocked()
    assert (server.statistics().secure, server.statistics().handshaking) == (0, 1)
    server.set_secure_context(NEW)
    stalling.release()
    await assert_echoes(stream)
    assert presented(stream) == "old.example"
    await stream.aclose()


async def test_client_that_has_said_nothing_yet_gets_the_new_context(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, OLD)
    client, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    await wait_all_tasks_blocked()
    server.set_secure_context(NEW)
    stream = await wrap_client(client, context=CLIENT)
    assert presented(stream) == "new.example"
    await stream.aclose()


async def test_contexts_for_names_stay(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, OLD)
    server.add_context("other.example", OTHER)
    server.set_secure_context(NEW)
    for name, expected in (("other.example", "other.example"), ("localhost", "new.example")):
        client = await connect_to(nursery, server, server_name=name)
        assert presented(client) == expected
        await client.aclose()


async def test_contexts_are_changed_under_load_and_no_connection_is_lost(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, OLD)
    listener = MemoryListener()
    await nursery.start(server.serve_listeners, [listener])
    seen: set[str] = set()

    async def client() -> None:
        async with await wrap_client(await listener.connect(), context=CLIENT) as stream:
            seen.add(presented(stream))
            await assert_echoes(stream)

    async with trio.open_nursery() as clients:
        for number in range(30):
            clients.start_soon(client)
            server.set_secure_context((OLD, NEW)[number % 2])
            await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()
    assert seen == {"old.example", "new.example"}
    assert server.statistics().secure == 30
    assert not server.statistics().failed


@pytest.mark.parametrize("context", [None, {}, "context"])
async def test_what_is_no_context_is_refused(context: Any) -> None:
    server = TLSServer(echo, OLD)
    with pytest.raises(ConfigurationTypeError) as caught:
        server.set_secure_context(context)
    assert caught.value.option == "context"


async def test_context_without_certificate_is_refused_and_the_old_one_stays(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, OLD)
    with pytest.raises(ConfigurationError, match="certificate and its key") as caught:
        server.set_secure_context(SecureContext(ca=default_authority().ca))
    assert caught.value.option == "context"
    client = await connect_to(nursery, server)
    assert presented(client) == "old.example"
    await client.aclose()


async def test_context_without_certificate_serves_pre_shared_keys(nursery: trio.Nursery) -> None:
    key = PreSharedKey("me", b"k" * 32)
    server = TLSServer(echo, OLD, psk=lambda _stream, _identity: key)
    server.set_secure_context(SecureContext())
    client = await connect_to(nursery, server, psk=lambda _hint: key)
    assert client.info.psk_identity == "me"
    await client.aclose()
