"""A worker process: one side of a Python contender, told by JSON lines what to do.

The only argument is the setup: ``{"module", "role", "directory", "group", "cipher"}``.  The first line that
a worker writes is ``{"versions"}``, a server's with its ``"port"``.  A server answers each ``{"settle"}``
with what it has used: ``{"cpu"}`` in seconds and ``{"memory"}`` in bytes.  A client answers each ``{"port",
"workload", "seconds", "warm_up"}`` with what `workloads.measure` returns; before that it writes ``{"mark"}``
twice, where the time begins and where it ends, and waits for a line each time.  A worker ends when its input
does.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from . import workloads
from .contenders.peer import Peer, Setup
from .limits import raise_file_limit
from .scenarios import workload_from_json


def main() -> None:
    """Be the side that the command line's setup says."""
    setup = json.loads(sys.argv[1])
    raise_file_limit()
    module = importlib.import_module(f"benchmarks.contenders.{setup['module']}")
    peer: Peer = module.PEER(Setup(Path(setup["directory"]), setup["group"], setup["cipher"]))
    if setup["role"] == "server":
        _serve(peer)
    else:
        _measure(peer)


def _serve(peer: Peer) -> None:
    def listening(port: int) -> None:
        _write({"versions": peer.versions(), "port": port})
        threading.Thread(target=_report_usage, daemon=True).start()

    peer.run(partial(peer.serve, partial(workloads.answer, peer), listening))


def _report_usage() -> None:
    # A file of its own: at the end of a process Python waits for the lock of sys.stdin, which is held here.
    with open(0, closefd=False) as questions:
        for line in questions:
            cpu = time.process_time()
            if json.loads(line)["settle"]:
                gc.collect()
                _return_free_memory()
            _write({"cpu": cpu, "memory": psutil.Process().memory_info().rss})
    os._exit(0)


def _measure(peer: Peer) -> None:
    _write({"versions": peer.versions()})
    while line := sys.stdin.readline():
        request = json.loads(line)
        measure = partial(
            workloads.measure,
            peer,
            request["port"],
            workload_from_json(request["workload"]),
            request["seconds"],
            request["warm_up"],
            _mark,
        )
        _write(peer.run(measure))


def _mark() -> None:
    _write({"mark": True})
    sys.stdin.readline()


def _write(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _return_free_memory() -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc
        libc.malloc_trim(0)


if __name__ == "__main__":
    main()
