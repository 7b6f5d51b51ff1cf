"""Records: how large those are that a stream sends, and that it takes those of any size."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from later_handshakes import (
    TRANSPORTS,
    client_context,
    engines,
    pair,
    receive_exactly,
    records,
    renegotiated,
    server_context,
    socket_pair,
    transport_pair,
)
from test_key_updates import DATA, HANDSHAKE, UPDATE_REQUESTED, expand
from test_key_updates import pair as handmade_pair
from trio.testing import assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from trio_tlsnode.stream import TLSStream
from trio_tlsnode.testing import RecordingStream

pytestmark = pytest.mark.feature("C14")

# What a record has beside its plaintext, with AES-GCM: a header and a tag; and a nonce or a type.
OVERHEAD = {"TLSv1.2": 5 + 8 + 16, "TLSv1.3": 5 + 1 + 16}
in_both_versions = pytest.mark.parametrize("version", list(OVERHEAD))
over_both = pytest.mark.parametrize("transport", TRANSPORTS)
LARGEST = 16384


def plaintext_sizes(version: str, ciphertext: bytes) -> list[int]:
    return [len(record) - OVERHEAD[version] for record in records(ciphertext)]


def expected_sizes(size: int, fragment: int) -> list[int]:
    whole, rest = divmod(size, fragment)
    return [fragment] * whole + [rest] * (rest > 0)


@in_both_versions
@pytest.mark.parametrize("fragment", [512, 513, 768, 1024, 4096, LARGEST - 1, LARGEST])
@pytest.mark.parametrize("role", ["client", "server"])
async def test_records_are_as_large_as_was_said(version: str, fragment: int, role: str) -> None:
    left, right = memory_stream_pair()
    recording = RecordingStream(left if role == "client" else right)
    transports = (recording, right) if role == "client" else (left, recording)
    async with pair(version, transports) as ends:
        stream, other = ends if role == "client" else ends[::-1]
        # A server's tickets go with its first data.
        await stream.send_all(b"first")
        handshake = len(recording.sent)
        stream.set_max_send_fragment(fragment)
        data = bytes(index % 251 for index in range(40_000))
        await stream.send_all(data)
        assert plaintext_sizes(version, recording.sent[handshake:]) == expected_sizes(len(data), fragment)
        assert await receive_exactly(other, 5 + len(data)) == b"first" + data


@in_both_versions
@over_both
@pytest.mark.parametrize("fragment", [512, LARGEST])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, LARGEST - 1, LARGEST, LARGEST + 1, 2 * LARGEST + 1])
async def test_data_of_any_size_arrives(version: str, transport: str, fragment: int, size: int) -> None:
    data = bytes(index * 7 % 251 for index in range(size))
    async with pair(version, transport) as ends:
        for stream, other in (ends, ends[::-1]):
            stream.set_max_send_fragment(fragment)
            with assert_checkpoints():
                await stream.send_all(data)
            await stream.send_all(b"|")
            assert await receive_exactly(other, size + 1) == data + b"|"
            assert stream.statistics().plaintext_sent == size + 1


@in_both_versions
async def test_nothing_is_no_record(version: str) -> None:
    left, right = memory_stream_pair()
    recording = RecordingStream(left)
    async with pair(version, (recording, right)) as (client, _server):
        said = len(recording.sent)
        await client.send_all(b"")
        assert len(recording.sent) == said


@in_both_versions
async def test_the_default_is_the_largest_and_a_change_holds_from_then_on(version: str) -> None:
    left, right = memory_stream_pair()
    recording = RecordingStream(left)
    async with pair(version, (recording, right)) as (client, _server):
        sizes = []
        for fragment in (None, 1000, 2000, LARGEST):
            said = len(recording.sent)
            if fragment is not None:
                client.set_max_send_fragment(fragment)
            await client.send_all(bytes(LARGEST + 1))
            sizes.append(max(plaintext_sizes(version, recording.sent[said:])))
        assert sizes == [LARGEST, 1000, 2000, LARGEST]


@in_both_versions
async def test_it_may_be_set_before_the_handshake(version: str) -> None:
    left, right = memory_stream_pair()
    recording = RecordingStream(left)
    client = TLSStream(recording, client_context(version), host="localhost")
    server = TLSStream(right, server_context(version), server_side=True)
    client.set_max_send_fragment(512)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    said = len(recording.sent)
    await client.send_all(bytes(1024))
    assert plaintext_sizes(version, recording.sent[said:]) == [512, 512]


def test_a_renegotiation_leaves_it_as_it_is() -> None:
    client, server = engines()
    client.max_send_fragment = 600
    renegotiated(client, server)
    client.write(bytes(1300))
    assert plaintext_sizes("TLSv1.2", client.drain()) == [600, 600, 100]


@pytest.mark.parametrize("size", [511, 16385, 0, -1, 1 << 31])
async def test_other_sizes_are_refused(size: int) -> None:
    async with pair() as (client, _server):
        with pytest.raises(ValueError, match="512 to 16384 bytes"):
            client.set_max_send_fragment(size)


@pytest.mark.parametrize("size", [None, "", "512", 512.0, float("nan"), True, {}, []])
async def test_other_types_are_refused(size: Any) -> None:
    async with pair() as (client, _server):
        with pytest.raises(TypeError):
            client.set_max_send_fragment(size)


@over_both
async def test_a_message_that_has_come_in_part_is_waited_for_before_data_is_sent(transport: str) -> None:
    """OpenSSL cannot write in the middle of one, and takes it for an error to be asked to."""
    left, right = transport_pair(transport)
    client, server, made = await handmade_pair((left, right))
    update = UPDATE_REQUESTED
    received: list[bytes] = []

    async def receive() -> None:
        received.append(await server.receive_some())

    async with trio.open_nursery() as nursery:
        await left.send_all(made.record(HANDSHAKE, update[:4]))
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        nursery.start_soon(server.send_all, b"waits")
        await wait_all_tasks_blocked()
        assert server.statistics().plaintext_sent == 0
        await left.send_all(made.record(HANDSHAKE, update[4:]))
        await wait_all_tasks_blocked()
        assert server.statistics().plaintext_sent == 5
        assert await client.receive_some() == b"waits"
        made._secret, made._count = expand(made._secret, b"traffic upd", 32), 0
        await left.send_all(made.record(DATA, b"thanks"))
    assert received == [b"thanks"]
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


async def test_who_only_sends_reads_on_by_itself() -> None:
    left, right = socket_pair()
    client, server, made = await handmade_pair((left, right))
    async with trio.open_nursery() as nursery:
        await left.send_all(made.record(HANDSHAKE, UPDATE_REQUESTED[:4]))
        async with trio.open_nursery() as receiving:
            receiving.start_soon(server.receive_some)
            await wait_all_tasks_blocked()
            receiving.cancel_scope.cancel()
        nursery.start_soon(server.send_all, b"waits")
        await wait_all_tasks_blocked()
        await left.send_all(made.record(HANDSHAKE, UPDATE_REQUESTED[4:]) + b"\x17")
    assert await client.receive_some() == b"waits"
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


@in_both_versions
def test_more_records_than_a_send_has_room_for_are_sent_piece_by_piece(version: str) -> None:
    client, server = engines(version)
    client.max_send_fragment = 512
    data = bytes(range(256)) * 4096
    offset = 0
    received = bytearray()
    while offset < len(data):
        done = client.encrypt(data, offset, len(data))
        assert isinstance(done, int)
        offset = done
        server.feed(bytes(client.collect()))
        while isinstance(piece := server.read(), bytes):
            received += piece
    assert bytes(received) == data
