"""The key log and others: Wireshark reads a connection by it, and Node.js writes the same lines."""

from __future__ import annotations

import functools
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import trio
from peers import (
    OTHER_SIDE,
    NodePeer,
    in_both_roles,
    in_both_versions,
    localhost,
    only,
    our_client,
    our_context,
    our_stream,
    running_node,
    serving,
)
from trio.testing import memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode.testing import TransportWrapper, default_authority

pytestmark = [pytest.mark.interop, pytest.mark.feature("B19")]

QUESTION, ANSWER = b"What is said in secret?", b"What nobody else should read. " * 1000
LINES = {"TLSv1.2": 1, "TLSv1.3": 5}

# Wireshark

# From the client, or to it.
Segment = tuple[bool, bytes]


class Tapped(TransportWrapper):
    """A client's transport of which everything that passes is kept, in order."""

    def __init__(self, transport: trio.abc.Stream) -> None:
        super().__init__(transport)
        self.segments: list[Segment] = []

    async def _send(self, data: bytes) -> None:
        self.segments.append((True, data))
        await super()._send(data)

    async def _receive(self, max_bytes: int) -> bytes:
        data = await super()._receive(max_bytes)
        if data:
            self.segments.append((False, data))
        return data


_LINKTYPE_RAW = 101
_LONGEST_SEGMENT = 32 * 1024


def capture(segments: Iterable[Segment]) -> bytes:
    """Return a capture file with one connection to port 443."""
    packets = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 16, _LINKTYPE_RAW)]
    sent = {True: 1, False: 1}
    pieces = [
        (from_client, data[at : at + _LONGEST_SEGMENT])
        for from_client, data in segments
        for at in range(0, len(data), _LONGEST_SEGMENT)
    ]
    for number, (from_client, data) in enumerate(pieces):
        ends = ((bytes((192, 0, 2, 1)), 50000), (bytes((192, 0, 2, 2)), 443))
        (source, from_port), (destination, to_port) = ends if from_client else ends[::-1]
        places = (sent[from_client], sent[not from_client])
        tcp = struct.pack(">HHIIBBHHH", from_port, to_port, *places, 5 << 4, 0x18, 1 << 15, 0, 0) + data
        sent[from_client] += len(data)
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), number, 0, 64, 6, 0)
        packet = header + source + destination + tcp
        packets.append(struct.pack("<IIII", number, 0, len(packet), len(packet)) + packet)
    return b"".join(packets)


def read_by_tshark(
    tshark: str, segments: Iterable[Segment], folder: Path, keylog: Path | None
) -> list[bytes]:
    """Return what tshark reads of a connection, that is said by the client and by the server.

    Args:
        tshark: The path of tshark.
        segments: What was on the wire.
        folder: Where files may be put.
        keylog: The key log, if there is one.
    """
    path = folder / "connection.pcap"
    path.write_bytes(capture(segments))
    option = [] if keylog is None else ["-o", f"tls.keylog_file:{keylog}"]
    command = [tshark, "-n", "-r", str(path), *option, "-q", "-z", "follow,tls,raw,0"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    said = [b"", b""]
    # What the second of both says is indented.
    client_is_second = "Node 0: 192.0.2.1:50000" not in done.stdout
    for line in done.stdout.splitlines():
        digits = line.strip()
        if digits and set(digits) <= set("0123456789abcdef"):
            said[line.startswith("\t") != client_is_second] += bytes.fromhex(digits)
    return said


async def talk(client: tls.TLSStream, server: tls.TLSStream) -> None:
    """Ask and answer, and say goodbye."""

    async def answer() -> None:
        assert await server.receive_some() == QUESTION
        await server.send_all(ANSWER)
        await server.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        await client.send_all(QUESTION)
        assert b"".join([data async for data in client]) == ANSWER
        await client.aclose()


@in_both_versions
@in_both_roles
async def test_wireshark_reads_a_connection_by_the_key_log_of_either_side(
    tshark: str, role: str, version: str, tmp_path: Path
) -> None:
    keylog = tmp_path / "keys.log"
    left, right = memory_stream_pair()
    tapped = Tapped(left)
    context = our_context(**only(version))
    streams = {
        side: our_stream(transport, side, context, keylog=keylog if side == role else None)
        for side, transport in (("client", tapped), ("server", right))
    }
    await talk(streams["client"], streams["server"])
    read = functools.partial(read_by_tshark, tshark, tapped.segments, tmp_path)
    assert await trio.to_thread.run_sync(read, keylog) == [QUESTION, ANSWER]
    assert await trio.to_thread.run_sync(read, None) == [b"", b""]


@in_both_versions
async def test_wireshark_reads_a_resumed_connection_too(tshark: str, version: str, tmp_path: Path) -> None:
    keylog = tmp_path / "keys.log"
    context = our_context(**only(version))
    session = None
    for _ in range(2):
        left, right = memory_stream_pair()
        tapped = Tapped(left)
        sessions: list[bytes] = []
        client = our_stream(
            tapped, "client", context, session=session, on_session=sessions.append, keylog=keylog
        )
        await talk(client, our_stream(right, "server", context))
        session = next(iter(sessions), None)
    assert client.info.session_reused
    read = functools.partial(read_by_tshark, tshark, tapped.segments, tmp_path, keylog)
    assert await trio.to_thread.run_sync(read) == [QUESTION, ANSWER]


# Node.js


async def lines_of(peer: NodePeer, version: str) -> list[str]:
    return [(await peer.event("keylog"))["line"] for _ in range(LINES[version])]


@pytest.mark.feature("C20")
@in_both_versions
@in_both_roles
async def test_node_writes_the_same_lines(node: str, role: str, version: str) -> None:
    ours: list[str] = []

    def keylog(line: str, _stream: tls.TLSStream) -> None:
        ours.append(f"{line}\n")

    options: dict[str, Any] = {"minVersion": version, "maxVersion": version}
    if role == "client":
        options |= localhost().options
        async with running_node(node, "keylog", options, role=OTHER_SIDE[role]) as peer:
            port = (await peer.event("listening"))["port"]
            async with await our_client(port, keylog=keylog):
                theirs = await lines_of(peer, version)
    else:
        secure = trio.Event()

        async def wait_for_the_end(stream: tls.TLSStream) -> None:
            secure.set()
            async for _ in stream:
                pass

        server = tls.TLSServer(wait_for_the_end, our_context(), keylog=keylog)
        options |= {"servername": "localhost", "ca": default_authority().ca}
        async with serving(server) as listening:
            options["port"] = listening.port
            async with running_node(node, "keylog", options, role=OTHER_SIDE[role]) as peer:
                theirs = await lines_of(peer, version)
                await secure.wait()
    assert sorted(ours) == sorted(theirs)
