"""What a TLSStream owes to a peer while it only receives: the answers to key updates (RFC 8446, 4.6.3)."""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode._openssl.library import ffi, lib
from trio_tlsnode._openssl.ssl_ctx import VERIFY_PEER
from trio_tlsnode.stream import TLSStream
from trio_tlsnode.testing import FailingStream, RecordingStream, StallingStream, default_authority, tls_pair

HANDSHAKE, DATA = 22, 23
UPDATE_REQUESTED = bytes((24, 0, 0, 1, 1))
RECORD = 16384
# A key update in a record: 5 bytes of header, 5 of message, 1 of type, 16 of tag.
UPDATE_SIZE = 27


def expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446, section 7.1."""
    label = b"tls13 " + label
    info = length.to_bytes(2) + bytes((len(label),)) + label + b"\0"
    return HKDFExpand(SHA256(), length, info).derive(secret)


class Records:
    """A client's records, made by hand: OpenSSL's bindings cannot ask for an update.

    Args:
        secret: The client's application traffic secret.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._count = 0

    def record(self, kind: int, content: bytes) -> bytes:
        header = b"\x17\3\3" + (len(content) + 17).to_bytes(2)
        iv = int.from_bytes(expand(self._secret, b"iv", 12)) ^ self._count
        self._count += 1
        key = expand(self._secret, b"key", 16)
        return header + AESGCM(key).encrypt(iv.to_bytes(12), content + bytes((kind,)), header)

    def update(self) -> bytes:
        """Return a key update that asks for one in return."""
        record = self.record(HANDSHAKE, UPDATE_REQUESTED)
        self._secret, self._count = expand(self._secret, b"traffic upd", 32), 0
        return record


secrets: dict[str, bytes] = {}


@ffi.callback("void(SSL *, char *)")  # type: ignore[untyped-decorator]
def on_secret(_ssl: Any, line: Any) -> None:
    label, _, secret = ffi.string(line).decode().split()
    secrets[label] = bytes.fromhex(secret)


async def pair(transports: tuple[trio.abc.Stream, trio.abc.Stream]) -> tuple[TLSStream, TLSStream, Records]:
    """Return a client, a server, and what makes the client's records."""
    context = tls.SecureContext(ca=default_authority().ca, ciphers="TLS_AES_128_GCM_SHA256")
    ctx = context.ssl_ctx(server_side=False, verify_mode=VERIFY_PEER)
    lib.SSL_CTX_set_keylog_callback(ctx.pointer, on_secret)
    client, server = await tls_pair(transports, client_context=context)
    return client, server, Records(secrets.pop("CLIENT_TRAFFIC_SECRET_0"))


def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    one, other = trio.socket.socketpair()
    return trio.SocketStream(one), trio.SocketStream(other)


def clog(stream: TLSStream) -> None:
    """Fill the kernel's buffer, behind the stream's back, so that it takes nothing more."""
    assert isinstance(stream.transport_stream, trio.SocketStream)
    with pytest.raises(BlockingIOError):
        while True:
            write(stream, bytes(RECORD))


def write(stream: TLSStream, data: bytes) -> None:
    """Write to a stream's socket, without letting another task run."""
    transport = stream.transport_stream
    assert isinstance(transport, trio.SocketStream)
    assert os.write(transport.socket.fileno(), data)


async def close(*streams: trio.abc.AsyncResource) -> None:
    for stream in streams:
        await trio.aclose_forcefully(stream)


async def test_a_key_update_is_answered() -> None:
    left, right = memory_stream_pair()
    recording = RecordingStream(right)
    client, server, records = await pair((left, recording))
    sent = len(recording.sent)
    await left.send_all(records.update() + records.record(DATA, b"under new keys"))
    assert await server.receive_some() == b"under new keys"
    await left.send_all(records.update() + records.record(DATA, b"again"))
    assert await server.receive_some() == b"again"
    await server.send_all(b"data")
    assert await client.receive_some() == b"data"
    assert len(recording.sent) > sent + 2 * UPDATE_SIZE


async def test_what_arrives_while_an_answer_waits_for_room_is_not_mixed_with_another_connections() -> None:
    client, server, records = await pair(socket_pair())
    other_client, other_server = await tls_pair(socket_pair(), version="TLSv1.3")
    expected = bytes(range(256)) * (2 * RECORD // 256)
    received = bytearray()

    async def receive(stream: TLSStream, into: bytearray) -> None:
        async for data in stream:
            into += data

    async with trio.open_nursery() as nursery:
        clog(server)
        nursery.start_soon(receive, server, received)
        write(client, records.update() + records.update())
        await wait_all_tasks_blocked()
        nursery.start_soon(receive, other_server, bytearray())
        await wait_all_tasks_blocked()
        for _ in range(4):
            other_client._engine.encrypt(bytes(2 * RECORD), 0, 2 * RECORD)
            write(other_client, bytes(other_client._engine.collect()))
        half = len(expected) // 2
        write(client, records.record(DATA, expected[:half]) + records.record(DATA, expected[half:]))
        await wait_all_tasks_blocked()
        assert received == expected
        nursery.cancel_scope.cancel()
    await close(client, server, other_client, other_server)


@pytest.mark.parametrize("kind", ["socket", "stream"])
async def test_a_peer_that_takes_no_answers_is_not_read_from_for_ever(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("trio_tlsnode.stream._MOST_UNSENT", 2 * RECORD)
    left, inner = socket_pair() if kind == "socket" else memory_stream_pair()
    right = inner if kind == "socket" else StallingStream(inner, send_after=4096)
    client, server, records = await pair((left, right))
    updates = b"".join([records.update() for _ in range(2000)])
    async with trio.open_nursery() as nursery:
        if kind == "socket":
            clog(server)
        else:
            nursery.start_soon(server.send_all, bytes(RECORD))
        nursery.start_soon(server.receive_some)
        for start in range(0, len(updates), 4096):
            nursery.start_soon(left.send_all, updates[start : start + 4096])
            await wait_all_tasks_blocked()
        assert 2 * RECORD < len(server._unsent) < 3 * RECORD
        nursery.cancel_scope.cancel()
    await close(client, server)


async def test_an_answer_that_cannot_be_sent_does_not_end_the_receiving() -> None:
    left, right = memory_stream_pair()
    client, server, records = await pair((left, FailingStream(right, send=2)))
    await left.send_all(records.update() + records.update())
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            assert await server.receive_some() == b"still here"

        await wait_all_tasks_blocked()
        await left.send_all(records.record(DATA, b"still here"))
    with pytest.raises(tls.ConnectionLost):
        await server.send_all(b"x")
    await close(client, server)
