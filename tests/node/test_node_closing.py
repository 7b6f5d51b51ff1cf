"""The end of connections, as Node.js's own tests have it."""

from __future__ import annotations

import pytest
import trio
from faults import only
from meetings import come_to, in_both_versions, read_to_end
from parties import party, trust
from trio.testing import MockClock, memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import SecureContext, TLSServer, TLSStream, wrap_client
from trio_tlsnode.testing import tls_pair

LOCALHOST = SecureContext(**party("rsa_cert").options)
TRUSTING = SecureContext(ca=trust("rsa_cert"))
MANY = 2 * 1024 * 1024


@pytest.mark.feature("A21")
@pytest.mark.node("test-tls-client-abort2.js")
async def test_nobody_listens_on_port_0() -> None:
    with pytest.raises(tls.ConnectError) as caught:
        await tls.connect("127.0.0.1", 0, context=TRUSTING)
    assert caught.value.code in ("ECONNREFUSED", "EADDRNOTAVAIL")
    assert caught.value.port == 0


@pytest.mark.feature("C21")
@pytest.mark.node("test-tls-client-destroy-soon.js")
async def test_closing_at_once_loses_nothing_of_what_was_sent(nursery: trio.Nursery) -> None:
    async def handler(stream: TLSStream) -> None:
        await stream.send_all(bytes(MANY))
        await stream.aclose()

    server = TLSServer(handler, LOCALHOST)
    await nursery.start(server.serve, 0, "127.0.0.1")
    async with await tls.connect(
        "127.0.0.1", server.addresses[0].port, context=TRUSTING, server_name="localhost"
    ) as client:
        assert len(await read_to_end(client)) == MANY


@pytest.mark.feature("C21")
@pytest.mark.node("test-tls-close-event-after-write.js")
async def test_a_connection_has_ended_when_both_sides_have_said_goodbye(nursery: trio.Nursery) -> None:
    ended = trio.Event()

    async def handler(stream: TLSStream) -> None:
        await stream.send_all(bytes(MANY))
        await stream.send_eof()
        assert await read_to_end(stream) == b""

    async def handle(transport: trio.abc.Stream) -> None:
        await TLSServer(handler, LOCALHOST).handle(transport)
        ended.set()

    left, right = memory_stream_pair()
    nursery.start_soon(handle, right)
    client = await wrap_client(left, context=TRUSTING)
    assert len(await read_to_end(client)) == MANY
    assert not ended.is_set()
    await client.aclose()
    await ended.wait()


@pytest.mark.feature("A13")
@pytest.mark.node("test-tls-close-notify.js")
@in_both_versions
async def test_a_goodbye_is_an_end_though_the_transport_stays_open(version: str) -> None:
    client, server = await tls_pair(version=version)
    await client.send_eof()
    assert await server.receive_some() == b""
    assert await server.receive_some() == b""


@pytest.mark.feature("A13")
@pytest.mark.node("test-tls-connect-allow-half-open-option.js")
async def test_after_the_server_s_goodbye_the_client_goes_on(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    received: list[bytes] = []

    async def handler(stream: TLSStream) -> None:
        assert await stream.receive_some() == b"Hello"
        await stream.send_all(b"Hello")
        await stream.send_eof()
        received.append(await read_to_end(stream))

    async with await wrap_client(come_to(TLSServer(handler, LOCALHOST), nursery), context=TRUSTING) as client:
        await client.send_all(b"Hello")
        assert await read_to_end(client) == b"Hello"
        await trio.sleep(0.05)
        await client.send_all(b"Bye")
    await trio.testing.wait_all_tasks_blocked()
    assert received == [b"Bye"]


@pytest.mark.feature("C21")
@pytest.mark.feature("C24")
@pytest.mark.node("test-tls-destroy-stream.js", "test-tls-destroy-stream-12.js")
@in_both_versions
@pytest.mark.parametrize("https_compatible", [False, True])
async def test_who_is_cut_off_is_told_so_after_what_has_arrived(
    version: str, *, https_compatible: bool, nursery: trio.Nursery
) -> None:
    async def handler(stream: TLSStream) -> None:
        await stream.send_all(b"Hello World")
        await trio.aclose_forcefully(stream)
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"more")

    client = await wrap_client(
        come_to(TLSServer(handler, LOCALHOST), nursery),
        ca=trust("rsa_cert"),
        https_compatible=https_compatible,
        **only(version),
    )
    assert await client.receive_some() == b"Hello World"
    if https_compatible:
        assert await client.receive_some() == b""
    else:
        with pytest.raises(tls.TruncationError):
            await client.receive_some()


@pytest.mark.feature("A13")
@pytest.mark.node("test-tls-net-socket-keepalive.js")
async def test_both_sides_say_something_and_goodbye_at_once(nursery: trio.Nursery) -> None:
    async def say_and_hear(stream: TLSStream) -> None:
        await stream.send_all(b"hello")
        await stream.send_eof()
        assert await read_to_end(stream) == b"hello"

    server = TLSServer(say_and_hear, LOCALHOST)
    await nursery.start(server.serve, 0, "127.0.0.1")
    unconnected = trio.socket.socket()
    client = TLSStream(trio.SocketStream(unconnected), TRUSTING, host="localhost")
    await unconnected.connect(("127.0.0.1", server.addresses[0].port))
    async with client:
        await say_and_hear(client)


@pytest.mark.feature("B22")
@pytest.mark.node("test-tls-server-parent-constructor-options.js")
async def test_nothing_flows_to_a_handler_that_does_not_receive(nursery: trio.Nursery) -> None:
    resume = trio.Event()
    received: list[bytes] = []

    async def handler(stream: TLSStream) -> None:
        await resume.wait()
        assert stream.statistics().plaintext_received == 0
        received.append(await read_to_end(stream))
        # Always half-open.
        await stream.send_all(b"there was more to say")

    async with await wrap_client(come_to(TLSServer(handler, LOCALHOST), nursery), context=TRUSTING) as client:
        await client.send_all(b"hello")
        await client.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        resume.set()
        assert await read_to_end(client) == b"there was more to say"
    assert received == [b"hello"]
    for option in ("allowHalfOpen", "pauseOnConnect"):
        with pytest.raises(TypeError, match=option):
            TLSServer(handler, LOCALHOST, **{option: True})  # type: ignore[arg-type]


@pytest.mark.feature("C21")
@pytest.mark.node("test-https-eof-for-eom.js")
async def test_an_answer_may_end_with_the_connection(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def handler(stream: TLSStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(2):
            await stream.send_all(b"hello world\n")
            await trio.sleep(0.1)

    client = await wrap_client(come_to(TLSServer(handler, LOCALHOST), nursery), context=TRUSTING)
    answer = await read_to_end(client)
    assert answer.partition(b"\r\n\r\n")[2] == b"hello world\nhello world\n"
