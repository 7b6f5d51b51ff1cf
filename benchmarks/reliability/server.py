"""The server process, which does what it is asked: ``python -m benchmarks.reliability.server SETUP``.

The setup is JSON, as `processes.open_server` makes it.  The first line that it writes is ``{"port"}``.  Each
line of input is a question, and is answered by a line of JSON.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import logging
import os
import resource
import sys
import timeit
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil
import trio

import trio_tlsnode as tls
from trio_tlsnode import stream
from trio_tlsnode._openssl.callbacks import connections
from trio_tlsnode.turnstile import turnstile

_REPEATS: Final = 2000
# For so many seconds OpenSSL remembers the sessions of TLS 1.2 for which no ticket was made; it has room for
# 20,480 of them, of a kilobyte each, which would look like a leak until they are all there.
_SESSION_TIMEOUT: Final = 2
_WATCH_INTERVAL: Final = 0.02


async def echo(connection: tls.TLSStream) -> None:
    """The handler of README.md, which catches nothing."""
    async for data in connection:
        await connection.send_all(data)


class _FreeWay:
    """No turnstile: the expensive steps of handshakes are taken as they come."""

    async def pass_through(self) -> None:
        pass


class _Answers:
    """What the process tells of its server, and does to it."""

    def __init__(self, server: tls.TLSServer) -> None:
        self._server = server
        self._refused = 0

    def answer(self, question: str) -> dict[str, Any]:
        answer: dict[str, Any] = getattr(self, question)()
        return answer

    def count_refusal(self, _error: tls.ConfigurationError) -> None:
        """Take note that files could not be used."""
        self._refused += 1

    def usage(self) -> dict[str, Any]:
        """What there is now: memory in bytes, descriptors, ``SSL`` objects, and the statistics."""
        return {
            "memory": psutil.Process().memory_info().rss,
            "files": len(os.listdir("/proc/self/fd")),
            "ssl": len(connections),
            "statistics": dataclasses.asdict(self._server.statistics()),
        }

    def settle(self) -> dict[str, Any]:
        """The same, once the allocator has given back what is free."""
        ctypes.CDLL(None).malloc_trim(0)
        return self.usage()

    def kept_errors(self) -> dict[str, Any]:
        """Forget the errors that nobody has fetched; tell how many there were, and of how many bytes."""
        errors = self._server._client_errors._errors
        number = len(errors)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        errors.clear()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        return {"number": number, "bytes": before - after}

    def garbage(self) -> dict[str, Any]:
        """Collect garbage; tell how many objects were in cycles."""
        return {"garbage": gc.collect()}

    def statistics_cost(self) -> dict[str, Any]:
        """How long `TLSServer.statistics` takes, in seconds."""
        return {"seconds": timeit.timeit(self._server.statistics, number=_REPEATS) / _REPEATS}

    def watched(self) -> dict[str, Any]:
        """Which certificate the server presents now, and how often new files were refused."""
        (der,) = self._server.secure_context.certificates
        return {"certificate": tls.Certificate(der).fingerprint256, "failures": self._refused}


async def _serve(setup: dict[str, Any]) -> None:
    directory = Path(setup["directory"])
    files: dict[str, Any] = {option: directory / f"{option}.pem" for option in ("key", "cert")}
    if setup["watches"]:
        files = {option: directory / "live" / f"{option}.pem" for option in ("key", "cert", "crl")}
    # They trust each other.
    context = tls.SecureContext(**files, ca=directory / "ca.pem", session_timeout=_SESSION_TIMEOUT)
    server = tls.TLSServer(echo, context, **setup["options"])
    answers = _Answers(server)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, 0, "127.0.0.1")
        if setup["watches"]:
            await nursery.start(
                partial(
                    tls.watch_credentials,
                    server,
                    **files,
                    interval=_WATCH_INTERVAL,
                    on_failure=answers.count_refusal,
                )
            )
        _write({"port": server.addresses[0].port})
        pending = b""
        async with trio.lowlevel.FdStream(os.dup(0)) as questions:
            async for data in questions:
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    _write(answers.answer(line.decode()))
        nursery.cancel_scope.cancel()


def _write(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def allow_many_files() -> None:
    """Raise the limit of open files as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Be the server that the command line's setup says."""
    setup = json.loads(sys.argv[1])
    allow_many_files()
    if setup["core"] is not None:
        os.sched_setaffinity(0, {setup["core"]})
    # The failures that the files are to cause are counted, and not printed.
    logging.getLogger("trio_tlsnode").addHandler(logging.NullHandler())
    if not setup["turnstile"]:
        assert vars(stream)["turnstile"] is turnstile, "handshakes pass something else"
        vars(stream)["turnstile"] = _FreeWay
    if setup["traces_memory"]:
        tracemalloc.start()
    if not setup["collects_garbage"]:
        gc.disable()
    trio.run(_serve, setup)


if __name__ == "__main__":
    main()
