"""First byte: how long a fresh process takes until a connection of its has brought it one.

As a program it is that process: it imports a contender, connects, receives a byte, and prints how long the
import and the connecting took, and when the byte was there.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

from .contenders.peer import HEADER, Peer, Setup


@dataclasses.dataclass(frozen=True)
class Start:
    """One process, from its start to its first byte; all times are in seconds.

    Attributes:
        total: All of it.
        importing: The import of the contender's modules.
        connecting: Making the context, connecting and the handshake.
    """

    total: float
    importing: float
    connecting: float


def start(peer: Peer, port: int) -> Start:
    """Start a process that does it with that peer's library, and wait for it."""
    setup = {**dataclasses.asdict(peer.setup), "directory": str(peer.setup.directory)}
    arguments = json.dumps([type(peer).__module__, setup, port])
    # The monotonic clock is the same in all processes.
    started = time.monotonic()
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.first_byte", arguments], check=True, stdout=subprocess.PIPE
    )
    importing, connecting, received = json.loads(finished.stdout)
    return Start(received - started, importing, connecting)


def _main() -> None:
    module, setup, port = json.loads(sys.argv[1])
    before = time.monotonic()
    peer_type: type[Peer] = importlib.import_module(module).PEER
    importing = time.monotonic() - before
    peer = peer_type(Setup(**{**setup, "directory": Path(setup["directory"])}))

    async def receive() -> tuple[float, float]:
        before = time.monotonic()
        channel = await peer.connect(port)
        connecting = time.monotonic() - before
        await channel.send(HEADER.pack(1, 1) + b"?")
        await channel.receive(1)
        received = time.monotonic()
        await channel.close()
        return connecting, received

    print(json.dumps([importing, *peer.run(receive)]))


if __name__ == "__main__":
    _main()
