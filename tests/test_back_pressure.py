"""Back-pressure: a peer that stops reading costs no memory, on either side."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# A process of its own: OpenSSL's memory counts, which is not Python's, and that of other tests does not.
PROGRAM = """
import sys
import trio
from trio.testing import wait_all_tasks_blocked
from trio_tlsnode.testing import tls_pair

MIB = 1 << 20
OFFERED = 1024 * MIB
PIECE = memoryview(bytes(4 * MIB))


def resident():
    with open("/proc/self/status", encoding="ascii") as status:
        (line,) = (line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


async def send(stream):
    for _ in range(OFFERED // len(PIECE)):
        await stream.send_all(PIECE)


async def connection(version, sender, way):
    one, other = trio.socket.socketpair()
    ends = await tls_pair((trio.SocketStream(one), trio.SocketStream(other)), version=version)
    writer, reader = ends if sender == "client" else ends[::-1]
    buffer = bytearray(MIB)

    async def receive(count):
        while count > 0:
            count -= await reader.receive_into(buffer) if way == "into" else len(await reader.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, writer)
        # What is allocated once is there by then.
        await receive(8 * MIB)
        await wait_all_tasks_blocked()
        before = resident()
        for _ in range(4):
            # It reads a little, and stops again.
            await receive(4 * MIB)
            await wait_all_tasks_blocked()
            print(resident() - before)
        # What is on the way.
        print(writer.statistics().plaintext_sent - reader.statistics().plaintext_received)
        nursery.cancel_scope.cancel()
    for end in ends:
        await trio.aclose_forcefully(end)


async def main(version):
    for sender in ("client", "server"):
        for way in ("some", "into"):
            await connection(version, sender, way)


trio.run(main, *sys.argv[1:])
"""
# A send of 256 KiB and its ciphertext, a read of as much, and what the kernel holds between them.
MOST = 2 << 20


@pytest.mark.feature("A15")
@pytest.mark.skipif(sys.platform != "linux", reason="memory is looked up in /proc")
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_sender_of_a_gibibyte_waits_for_a_reader_that_stops_and_memory_stays_flat(version: str) -> None:
    """In both directions, and whichever way it is received."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, version],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    figures = [int(figure) for figure in done.stdout.split()]
    assert len(figures) == 4 * 5
    assert max(figures) < MOST
