"""TLSListener, over memory and as trio.serve_listeners uses it."""

from __future__ import annotations

import errno
import logging

import pytest
import trio
import trio.testing

import trio_tlsnode as tls
from trio_tlsnode.testing import MemoryListener, StallingStream, default_authority

pytestmark = pytest.mark.feature("G1")


def server_context() -> tls.SecureContext:
    return tls.SecureContext(**default_authority().good("localhost").options)


async def connect(listener: MemoryListener) -> tls.TLSStream:
    return await tls.wrap_client(await listener.connect(), ca=default_authority().ca)


async def echo(stream: tls.TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def test_serve_listeners_gets_streams_whose_handshake_is_done() -> None:
    below = MemoryListener()
    listener = tls.TLSListener(below, server_context(), alpn_protocols=["h2"])
    protocols = []

    async def handler(stream: tls.TLSStream) -> None:
        protocols.append(stream.alpn_protocol)
        await echo(stream)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handler, [listener])
        client = await tls.wrap_client(
            await below.connect(), ca=default_authority().ca, alpn_protocols=["http/1.1", "h2"]
        )
        async with client:
            await client.send_all(b"hello")
            assert await client.receive_some() == b"hello"
        nursery.cancel_scope.cancel()
    assert protocols == ["h2"]


async def test_a_failed_handshake_is_logged_and_counted_and_the_next_client_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trio_tlsnode")
    below = MemoryListener()
    listener = tls.TLSListener(below, server_context())
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, echo, [listener])
        bad = await below.connect()
        await bad.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await bad.receive_some() == b""
        client = await connect(below)
        await client.send_all(b"good")
        assert await client.receive_some() == b"good"
        nursery.cancel_scope.cancel()
    assert listener.failed == {"ERR_SSL_HTTP_REQUEST": 1}
    [record] = caplog.records
    assert "HTTP request" in record.message
    assert record.exc_info is None


async def test_a_silent_client_does_not_hold_up_the_next_one(autojump_clock: trio.testing.MockClock) -> None:
    below = MemoryListener()
    listener = tls.TLSListener(below, server_context(), handshake_timeout=7)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, echo, [listener])
        silent = await below.connect()
        client = await connect(below)
        await client.send_all(b"good")
        assert await client.receive_some() == b"good"
        assert trio.current_time() == 0
        assert await silent.receive_some() == b""
        assert trio.current_time() == 7
        nursery.cancel_scope.cancel()
    assert listener.failed == {"ERR_TLS_HANDSHAKE_TIMEOUT": 1}


async def test_without_a_context_manager_accept_does_the_handshakes_itself() -> None:
    below = MemoryListener()
    listener = tls.TLSListener(below, server_context())
    accepted = []

    async def accept() -> None:
        accepted.append(await listener.accept())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        bad = await below.connect()
        await bad.send_all(b"SSH-2.0-OpenSSH_9.6\r\n")
        assert await bad.receive_some() == b""
        client = await connect(below)
    [server] = accepted
    await client.send_all(b"x")
    assert await server.receive_some() == b"x"
    await listener.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()
    await client.aclose()
    await server.aclose()


async def test_a_failing_listener_below_fails_accept_and_a_passing_shortage_does_not_end_the_server() -> None:
    below = MemoryListener()
    async with tls.TLSListener(below, server_context()) as listener:
        below.fail(OSError(errno.EMFILE, "too many open files"))
        with pytest.raises(OSError, match="too many"):
            await listener.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect, below)
            stream = await listener.accept()
        await trio.aclose_forcefully(stream)


async def test_leaving_closes_streams_that_nobody_accepted_and_clients_in_their_handshake() -> None:
    below = MemoryListener()
    async with tls.TLSListener(below, server_context()):
        secured = await connect(below)
        handshaking = StallingStream(await below.connect())
        await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(tls.TruncationError):
        await secured.receive_some()
    assert await handshaking.receive_some() == b""


async def test_an_exception_of_the_body_comes_out_as_itself() -> None:
    with pytest.raises(KeyError):
        async with tls.TLSListener(MemoryListener(), server_context()):
            raise KeyError("mine")
