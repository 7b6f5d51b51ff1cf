"""Contenders: who is measured, and how each one's worker processes are started."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import sys
from pathlib import Path

from benchmarks.scenarios import Exchange, FirstByte, Handshakes, Idle, Resumptions, Workload

_NODE_PEER = Path(__file__).with_name("node_peer.js")


@dataclasses.dataclass(frozen=True)
class Contender:
    """An implementation that is measured.

    Attributes:
        name: Its name on the command line and in results.
        workloads: The kinds of workload that it can carry out.
        module: The module here that has its `Peer`, or None for Node.js.
        package: The package that this module needs.
        context_per_connect: Whether its client makes a TLS context for each connection.
        source: The folder that this package is imported from, where it is not the one beside the benchmarks.
    """

    name: str
    workloads: tuple[type[Workload], ...]
    module: str | None = None
    package: str = ""
    context_per_connect: bool = False
    source: Path | None = None

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return Handshakes in self.workloads

    @property
    def missing(self) -> str | None:
        """What has to be installed before it can run, or None."""
        if self.module is None:
            return None if shutil.which("node") else "Node.js"
        return None if importlib.util.find_spec(self.package) else self.package

    @property
    def command(self) -> tuple[str, ...]:
        """What starts a worker; its setup is the argument to add."""
        if self.module is None:
            # The garbage collector is called before memory is read.
            return ("node", "--expose-gc", str(_NODE_PEER))
        return (sys.executable, "-m", "benchmarks.worker")


OURS = "trio_tlsnode"
TRIO_SSLSTREAM = "trio_sslstream"
NODE = "node"
NODE_CONTEXT_PER_CONNECT = "node_context_per_connect"
TRIO_TCP = "trio_tcp"

_USUAL = (Exchange, Handshakes, Idle)
_ON_TRIO = (*_USUAL, Resumptions, FirstByte)

CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender(OURS, _ON_TRIO, "trio_tlsnode", "trio_tlsnode"),
        Contender(TRIO_SSLSTREAM, _ON_TRIO, "trio_sslstream", "trio"),
        Contender("anyio_on_trio", _USUAL, "anyio_on_trio", "anyio"),
        Contender("asyncio", _USUAL, "asyncio_streams", "asyncio"),
        Contender("uvloop", _USUAL, "uvloop_streams", "uvloop"),
        Contender(NODE, (*_USUAL, Resumptions)),
        Contender(NODE_CONTEXT_PER_CONNECT, (Handshakes,), context_per_connect=True),
        Contender(TRIO_TCP, (Exchange, FirstByte), "trio_tcp", "trio"),
    )
}
