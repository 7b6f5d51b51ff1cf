"""Streams, as Node.js's own tests have them: what is written arrives whole and in order."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from meetings import VERSIONS, come_to, in_both_versions, read_to_end, secure_pair
from parties import party, trust
from trio.testing import MockClock, memory_stream_pair, open_stream_to_socket_listener, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode import SecureContext, TLSServer, TLSStream, wrap_client
from trio_tlsnode.testing import RecordingStream

MEBIBYTE = 1 << 20
TRUSTING: dict[str, Any] = {"ca": trust("rsa_cert")}
LOCALHOST = party("rsa_cert").options


async def pair(**options: Any) -> tuple[TLSStream, TLSStream]:
    """Return a client and a server whose handshake is done."""
    return await secure_pair(TRUSTING, LOCALHOST, **options)


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await open_stream_to_socket_listener(listener)
        return client, await listener.accept()


def pattern(size: int) -> bytes:
    """Return bytes that are not the same everywhere."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


async def send_and_end(stream: TLSStream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()


# Order and completeness


@pytest.mark.feature("C21")
@pytest.mark.node("test-tls-buffersize.js", "test-tls-streamwrap-buffersize.js")
@in_both_versions
async def test_what_was_sent_is_counted_and_nothing_is_left_to_send(version: str) -> None:
    client, server = await pair(version=version)
    for count in range(1, 10):
        # In Node.js, write() returns at once, and bufferSize has what is still to be sent.
        await client.send_all(b"a")
        assert client.statistics().plaintext_sent == count
        assert await server.receive_some() == b"a"
    await client.send_eof()
    assert await read_to_end(server) == b""
    await client.aclose()
    assert client.statistics().plaintext_sent == server.statistics().plaintext_received == 9


@pytest.mark.feature("A15")
@pytest.mark.node("test-tls-streamwrap-buffersize.js")
async def test_a_send_lasts_until_the_transport_has_taken_it(nursery: trio.Nursery) -> None:
    left, right = memory_stream_pair()
    client, server = await pair(transports=(left, right))
    deliver = left.send_stream.send_all_hook
    assert deliver is not None
    released, sent = trio.Event(), trio.Event()

    async def stall() -> None:
        await released.wait()
        await deliver()

    left.send_stream.send_all_hook = stall

    async def send() -> None:
        await client.send_all(b"a" * 9)
        sent.set()

    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    assert not sent.is_set()
    released.set()
    await sent.wait()
    assert await server.receive_some() == b"a" * 9


@pytest.mark.feature("A3")
@pytest.mark.node("test-tls-connect-stream-writes.js")
async def test_fifty_small_writes_over_any_stream_are_one_text(nursery: trio.Nursery) -> None:
    received = []

    async def note(stream: TLSStream) -> None:
        received.append(await read_to_end(stream))

    server = TLSServer(note, SecureContext(**LOCALHOST, ciphers="AES256-GCM-SHA384"))
    client = await wrap_client(
        RecordingStream(come_to(server, nursery)), context=SecureContext(**TRUSTING), host="localhost"
    )
    for _ in range(50):
        await client.send_all(b"hello world")
    await send_and_end(client, b"")
    assert await read_to_end(client) == b""
    assert received == [b"hello world" * 50]


@pytest.mark.feature("C21")
@pytest.mark.node("test-tls-invoke-queued.js")
@in_both_versions
async def test_writes_arrive_in_the_order_in_which_they_were_done(version: str) -> None:
    client, server = await pair(version=version)
    await server.send_all(b"hello ")
    await server.send_all(b"world!")
    await server.send_all(b" gosh")
    await server.aclose()
    assert await read_to_end(client) == b"hello world! gosh"


@pytest.mark.feature("C21")
@pytest.mark.node("test-tls-zero-clear-in.js")
@in_both_versions
async def test_sending_nothing_before_the_handshake_is_no_error(version: str, nursery: trio.Nursery) -> None:
    only: dict[str, Any] = {"min_version": version, "max_version": version}
    left, right = memory_stream_pair()
    client = TLSStream(left, SecureContext(**TRUSTING, **only), host="localhost")
    server = TLSStream(right, SecureContext(**LOCALHOST), server_side=True)
    nursery.start_soon(send_and_end, client, b"")
    assert await read_to_end(server) == b""


@pytest.mark.feature("A3")
@pytest.mark.node("test-socket-writes-before-passed-to-tls-socket.js")
async def test_what_the_transport_has_sent_before_goes_before_the_hello() -> None:
    left, right = await tcp_pair()
    before = pattern(MEBIBYTE)

    async def send_and_upgrade() -> None:
        await left.send_all(before[: MEBIBYTE // 2])
        await left.send_all(before[MEBIBYTE // 2 :])
        await wrap_client(left, host="localhost", context=SecureContext(**TRUSTING))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_upgrade)
        received = b""
        while len(received) <= MEBIBYTE:
            received += await right.receive_some()
        nursery.cancel_scope.cancel()
    assert received[:MEBIBYTE] == before
    assert received[MEBIBYTE] == 0x16
    await right.aclose()


# Back-pressure


@pytest.mark.feature("A15")
@pytest.mark.node("test-tls-pause.js", "test-https-drain.js")
async def test_who_does_not_read_is_not_sent_more_and_gets_all_of_it_later() -> None:
    client, server = await pair(transports=await tcp_pair())
    chunk = pattern(MEBIBYTE)
    sent = received = 0
    may_read = False

    async def echo() -> None:
        async for data in server:
            await server.send_all(data)
        await server.send_eof()

    async def write() -> None:
        nonlocal sent
        while not may_read and sent < 100:
            sent += 1
            await client.send_all(chunk)
        await client.send_eof()

    async with client, server, trio.open_nursery() as nursery:
        nursery.start_soon(echo)
        nursery.start_soon(write)
        await wait_all_tasks_blocked(0.01)
        assert sent < 100
        assert client.statistics().plaintext_received == 0
        may_read = True
        async for part in client:
            received += len(part)
    assert received == sent * MEBIBYTE


@pytest.mark.feature("A15")
@pytest.mark.node("test-tls-server-large-request.js")
async def test_a_large_request_reaches_a_slow_sink_whole(autojump_clock: MockClock) -> None:
    client, server = await pair()
    data = pattern(MEBIBYTE - 4)
    sunk = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_end, client, data)
        async for part in server:
            await trio.sleep(1)
            sunk.append(part)
    assert b"".join(sunk) == data


@pytest.mark.feature("A15")
@pytest.mark.node("test-tls-throttle.js", "test-https-truncate.js")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [32769, 12 * MEBIBYTE])
async def test_a_reader_that_pauses_after_each_part_loses_nothing(
    size: int, version: str, autojump_clock: MockClock
) -> None:
    client, server = await pair(version=version)

    async def send() -> None:
        await server.send_all(bytes(size))
        await server.aclose()

    received = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        async for part in client:
            received += len(part)
            await trio.sleep(1)
    assert received == size
    await client.aclose()


# Records

# Of TLS 1.2: an explicit nonce and a tag.
OVERHEAD = 24


def lengths_of_records(data: bytes) -> list[int]:
    """Return the lengths of what records have behind their headers."""
    lengths = []
    while data:
        lengths.append(int.from_bytes(data[3:5]))
        data = data[5 + lengths[-1] :]
    return lengths


@pytest.mark.feature("C14")
@pytest.mark.node("test-tls-max-send-fragment.js")
@pytest.mark.parametrize("size", [None, "", {}, True, False, [], 768.0, math.nan, math.inf])
async def test_a_record_size_of_the_wrong_type_is_refused(size: Any) -> None:
    _, server = await pair()
    with pytest.raises(TypeError):
        server.set_max_send_fragment(size)


@pytest.mark.feature("C14")
@pytest.mark.node("test-tls-max-send-fragment.js")
@pytest.mark.parametrize("size", [0, -1, 511, 16385, 1 << 31])
async def test_a_record_size_that_no_record_can_have_is_refused(size: int) -> None:
    # In Node.js, 511 and 16385 are passed over, and told by false.
    _, server = await pair()
    with pytest.raises(ValueError, match="512 to 16384"):
        server.set_max_send_fragment(size)


@pytest.mark.feature("C14")
@pytest.mark.node("test-tls-max-send-fragment.js")
@in_both_versions
async def test_records_are_no_larger_than_was_set(version: str) -> None:
    left, right = memory_stream_pair()
    recorder = RecordingStream(right)
    client, server = await pair(transports=(left, recorder), version=version)
    handshake = len(recorder.sent)
    server.set_max_send_fragment(768)
    await server.send_all(bytes(10000))
    await server.send_eof()
    assert await read_to_end(client) == bytes(10000)
    assert 768 < max(lengths_of_records(recorder.sent[handshake:])) <= 768 + OVERHEAD


# Failing


@pytest.mark.feature("A21")
@pytest.mark.node("test-tls-writewrap-leak.js")
async def test_a_send_that_waits_for_a_handshake_fails_with_it(nursery: trio.Nursery) -> None:
    left, right = memory_stream_pair()
    client = TLSStream(left, SecureContext(**TRUSTING), host="localhost")
    failures: list[tls.TLSError] = []

    async def send() -> None:
        with pytest.raises(tls.ConnectionLost) as caught:
            await client.send_all(b"hello")
        failures.append(caught.value)

    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    assert not failures
    await right.aclose()
    await wait_all_tasks_blocked()
    (failure,) = failures
    assert failure.code == "ECONNRESET"
