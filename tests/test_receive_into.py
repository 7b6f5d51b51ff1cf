"""`receive_into`: decrypting into memory of the application's own."""

from __future__ import annotations

import array
import ctypes
import tracemalloc
from typing import Any

import pytest
import trio
from later_handshakes import TRANSPORTS, beside, pair, read_on, renegotiated
from later_handshakes import engines as connected
from trio.testing import assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode import Want
from trio_tlsnode._openssl.buffers import buffers
from trio_tlsnode.stream import TLSStream

pytestmark = pytest.mark.feature("A14")

VERSIONS = ("TLSv1.2", "TLSv1.3")
in_both_versions = pytest.mark.parametrize("version", VERSIONS)
over_both = pytest.mark.parametrize("transport", TRANSPORTS)
RECORD = 16384


@in_both_versions
@over_both
@pytest.mark.parametrize("size", [1, 7, RECORD - 1, RECORD, RECORD + 1, 300_000])
async def test_any_amount_arrives_in_a_buffer_of_any_size(version: str, transport: str, size: int) -> None:
    data = bytes(index * 7 % 251 for index in range(100_000))
    async with pair(version, transport) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, data if size > 7 else data[:1000])
        buffer, received = bytearray(size), bytearray()
        while len(received) < (len(data) if size > 7 else 1000):
            count = await server.receive_into(buffer)
            assert 1 <= count <= size
            received += buffer[:count]
        assert received == data[: len(received)]


@in_both_versions
async def test_it_takes_as_much_as_there_is_and_leaves_the_rest_of_the_buffer_alone(version: str) -> None:
    async with pair(version) as (client, server):
        await client.send_all(b"one")
        await client.send_all(b"two")
        buffer = bytearray(b"." * 10)
        assert await server.receive_into(buffer) == 6
        assert buffer == b"onetwo...."


@pytest.mark.parametrize(
    "memory",
    [
        bytearray(8),
        memoryview(bytearray(8)),
        memoryview(bytearray(20))[6:14],
        array.array("i", [0, 0]),
        memoryview(bytearray(8)).cast("d"),
        memoryview(bytearray(8)).cast("B", shape=[2, 4]),
        (ctypes.c_int * 2)(),
        (ctypes.c_ubyte * 8)(),
    ],
    ids=[
        "bytearray",
        "view",
        "part of a view",
        "array",
        "view of doubles",
        "view of two dimensions",
        "ints",
        "bytes",
    ],
)
@pytest.mark.parametrize("kept", [False, True])
async def test_memory_of_any_kind_will_do(memory: Any, kept: bool) -> None:
    async with pair() as (client, server):
        await client.send_all(b"12345678, and more")
        if kept:
            # What came before another handshake.
            async with beside(lambda: read_on(client)):
                await server.renegotiate(request_cert=False)
        assert await server.receive_into(memory) == 8
        assert memoryview(memory).tobytes() == b"12345678"
        assert await server.receive_some() == b", and more"


async def test_a_part_of_a_buffer_is_filled_where_it_is() -> None:
    async with pair() as (client, server):
        buffer = bytearray(b"." * 12)
        view = memoryview(buffer)
        await client.send_all(b"first")
        assert await server.receive_into(view[2:]) == 5
        await client.send_all(b"second")
        assert await server.receive_into(view[7:9]) == 2
        assert buffer == b"..firstse..."
        assert await server.receive_some() == b"cond"


@pytest.mark.parametrize(
    ("memory", "error"),
    [
        (b"readonly", BufferError),
        (memoryview(b"readonly"), BufferError),
        (memoryview(bytearray(10))[::2], BufferError),
        (bytearray(), ValueError),
        (memoryview(bytearray(5))[5:], ValueError),
        ("text", TypeError),
        (5, TypeError),
        (None, TypeError),
    ],
    ids=["bytes", "read-only", "not contiguous", "empty", "an empty part", "text", "a number", "nothing"],
)
async def test_other_memory_is_refused_and_nothing_is_lost(memory: Any, error: type[Exception]) -> None:
    async with pair() as (client, server):
        await client.send_all(b"data")
        with pytest.raises(error):
            await server.receive_into(memory)
        assert await server.receive_into(bytearray(4)) == 4


@in_both_versions
@over_both
async def test_the_peer_s_goodbye_is_nothing_at_all(version: str, transport: str) -> None:
    async with pair(version, transport) as (client, server):
        await client.send_all(b"last words")
        await client.send_eof()
        buffer = bytearray(100)
        assert await server.receive_into(buffer) == 10
        for _ in range(2):
            with assert_checkpoints():
                assert await server.receive_into(buffer) == 0
        assert buffer == b"last words" + bytes(90)


@in_both_versions
@over_both
@pytest.mark.parametrize("https_compatible", [False, True])
async def test_the_end_without_a_goodbye_is_a_truncation_unless_told_otherwise(
    version: str, transport: str, https_compatible: bool
) -> None:
    options = {"https_compatible": https_compatible}
    async with pair(version, transport, server=options) as (client, server):
        await client.send_all(b"data")
        await client.transport_stream.aclose()
        buffer = bytearray(4)
        assert await server.receive_into(buffer) == 4
        for _ in range(2):
            if https_compatible:
                assert await server.receive_into(buffer) == 0
                continue
            with pytest.raises(tls.TruncationError):
                await server.receive_into(buffer)
        assert buffer == b"data"


@in_both_versions
@over_both
async def test_cancelling_loses_nothing_and_writes_nothing(version: str, transport: str) -> None:
    async with pair(version, transport) as (client, server):
        buffer = bytearray(4)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.receive_into, buffer)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await client.send_all(b"data")
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.receive_into(buffer)
        assert buffer == bytes(4)
        assert await server.receive_into(buffer) == 4
        assert buffer == b"data"


async def test_two_receivers_are_a_mistake() -> None:
    async with pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.receive_into, bytearray(4))
        await wait_all_tasks_blocked()
        for call in (server.receive_some, lambda: server.receive_into(bytearray(4))):
            with pytest.raises(trio.BusyResourceError):
                await call()
        await client.send_all(b"data")


async def test_a_closed_stream_gives_nothing() -> None:
    async with pair() as (_client, server), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def waiting() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await server.receive_into(bytearray(4))

        await wait_all_tasks_blocked()
        await server.aclose()
        await wait_all_tasks_blocked()
        with pytest.raises(trio.ClosedResourceError):
            await server.receive_into(bytearray(4))


async def test_it_does_the_handshake_first() -> None:
    async with pair() as (client, server):
        first = client._engine.context, server._engine.context
    left, right = memory_stream_pair()
    client = TLSStream(left, first[0], host="localhost")
    server = TLSStream(right, first[1], server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"data")
        assert await server.receive_into(bytearray(4)) == 4


@in_both_versions
def test_data_is_decrypted_right_there(version: str) -> None:
    """OpenSSL writes it where it belongs, and nobody copies it."""
    client, server = connected(version)
    data = bytes(range(256)) * 1024
    buffers.plaintext_view[:] = bytes(len(buffers.plaintext_view))
    target = bytearray(len(data))
    client.write(data)
    server.feed(client.drain())
    server.settle()
    tracemalloc.start()
    try:
        assert server.read_in_place(target) == len(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert target == data
    assert not any(buffers.plaintext_view)
    assert peak < 8192


def test_of_what_came_before_another_handshake_the_rest_is_kept() -> None:
    client, server = connected()
    server.renegotiate(request_cert=False)
    client.write(b"0123456789")
    server.feed(client.drain())
    assert server.finish_handshake() is Want.READ
    buffer = bytearray(4)
    for expected in (b"0123", b"4567", b"89"):
        count = server.read_in_place(buffer)
        assert isinstance(count, int)
        assert bytes(buffer[:count]) == expected
    assert server.read_in_place(buffer) is Want.READ
    renegotiated(server, client)


async def test_a_buffer_may_be_resized_afterwards() -> None:
    async with pair() as (client, server):
        buffer = bytearray(4)
        await client.send_all(b"data")
        await server.receive_into(buffer)
        buffer += b", and more"
        assert buffer == b"data, and more"
