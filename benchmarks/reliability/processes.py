"""Processes: a server of its own for each measurement, and what can be asked of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import trio

from benchmarks.credentials import write_credentials
from benchmarks.runner import cores

_ROOT: Final = Path(__file__).parents[2]
_PATIENCE: Final = 120.0
_GLANCE: Final = 0.01


class ProcessFailedError(Exception):
    """A process ended, or was silent for too long."""


class Process:
    """A process that is spoken to in lines and answers in JSON."""

    def __init__(self, name: str, stdio: trio.StapledStream[Any, Any]) -> None:
        self._name = name
        self._stdio = stdio
        self._unread = b""

    async def hear(self) -> dict[str, Any]:
        """Return the next thing that it says.

        Raises:
            ProcessFailedError: it says nothing.
        """
        with trio.move_on_after(_PATIENCE):
            while b"\n" not in self._unread:
                data = await self._stdio.receive_some()
                if not data:
                    break
                self._unread += data
        line, newline, self._unread = self._unread.partition(b"\n")
        if not newline:
            raise ProcessFailedError(f"the {self._name} process says nothing")
        message: dict[str, Any] = json.loads(line)
        return message

    async def ask(self, question: str) -> dict[str, Any]:
        """Ask something; return the answer.

        Raises:
            ProcessFailedError: there is none.
        """
        try:
            await self._stdio.send_all(question.encode() + b"\n")
        except trio.BrokenResourceError:
            raise ProcessFailedError(f"the {self._name} process has ended") from None
        return await self.hear()


class Server:
    """The server process.

    Attributes:
        port: Where it listens.
        directory: Where its key, its certificate, and the root are.
    """

    def __init__(self, process: Process, port: int, directory: Path) -> None:
        self._process = process
        self.port = port
        self.directory = directory

    async def ask(self, question: str) -> dict[str, Any]:
        """Ask something of `server._Answers`; return the answer."""
        return await self._process.ask(question)

    async def until(self, is_so: Callable[[dict[str, Any]], bool], patience: float) -> bool:
        """Wait until something is so of the statistics; return whether that was in time."""
        with trio.move_on_after(patience) as scope:
            # Another process, which tells nothing by itself.
            while not is_so((await self.ask("usage"))["statistics"]):  # noqa: ASYNC110
                await trio.sleep(_GLANCE)
        return not scope.cancelled_caught

    async def until_open(self, number: int, patience: float) -> bool:
        """Wait until there are so many connections, or fewer; return whether that was in time."""
        return await self.until(lambda statistics: statistics["open"] <= number, patience)


@asynccontextmanager
async def open_process(module: str, setup: dict[str, Any]) -> AsyncIterator[Process]:
    """Start a module of this package with a setup; end it afterwards."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", f"benchmarks.reliability.{module}", json.dumps(setup)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
        start_new_session=True,
    )
    assert process.stdio is not None
    try:
        yield Process(module, process.stdio)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await trio.aclose_forcefully(process.stdio)


def _write_credentials(directory: Path) -> None:
    write_credentials(directory, "ecdsa-p256")


@asynccontextmanager
async def open_server(
    *,
    prepare: Callable[[Path], None] = _write_credentials,
    watches: bool = False,
    turnstile: bool = True,
    collects_garbage: bool = True,
    traces_memory: bool = False,
    **options: Any,
) -> AsyncIterator[Server]:
    """Start a server; end it afterwards.

    Args:
        prepare: Makes the files of its credentials in a directory.
        watches: Whether it watches those in the folder ``live`` there.
        turnstile: Whether its handshakes pass the turnstile.
        collects_garbage: Whether its garbage collector runs.
        traces_memory: Whether it traces what Python's objects take, which makes it slow.
        options: The `TLSServer`'s.
    """
    with tempfile.TemporaryDirectory() as directory:
        prepare(Path(directory))
        setup = {
            "directory": directory,
            "watches": watches,
            "core": (cores() or [None])[0],
            "turnstile": turnstile,
            "collects_garbage": collects_garbage,
            "traces_memory": traces_memory,
            "options": options,
        }
        async with open_process("server", setup) as process:
            port: int = (await process.hear())["port"]
            yield Server(process, port, Path(directory))


@contextmanager
def own_core() -> Iterator[None]:
    """Run on a core that is not the server's, if there are two."""
    available = os.sched_getaffinity(0)
    chosen = cores()
    if chosen is not None:
        os.sched_setaffinity(0, {chosen[1]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, available)
