"""Runner: starts the contenders' workers in turn and collects what they measure."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

import outcome
import trio

from .contenders import OURS, Contender
from .contenders.peer import HOST
from .negotiation import Negotiated, negotiated
from .results import Results
from .runs import Turn
from .scenarios import USUAL, Exchange, Idle, Measurement, Terms, Workload, workload_to_json

_ROOT = Path(__file__).parents[1]
_PATIENCE = 60.0  # seconds that a worker may take beyond the time that it was given: thousands of handshakes
_GLANCE = Exchange(connections=1, request_size=64, reply_size=64, write_size=64)


class ContenderError(Exception):
    """A contender's worker failed; what it wrote to stderr is in the text."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        key_type: The kind of key that the server has.
        rounds: How often each measurement is repeated.
        seconds: How long one measurement takes, in seconds.
    """

    key_type: str
    rounds: int
    seconds: float


class _Worker:
    """A worker process that is spoken to in JSON lines."""

    def __init__(self, name: str, process: trio.Process, stderr: IO[bytes]) -> None:
        assert process.stdio is not None
        self._name = name
        self._process = process
        self._stdio = process.stdio
        self._stderr = stderr
        self._unread = b""

    async def tell(self, message: dict[str, Any]) -> None:
        try:
            await self._stdio.send_all(json.dumps(message).encode() + b"\n")
        except trio.BrokenResourceError:
            raise await self._failure("ended") from None

    async def hear(self, patience: float = _PATIENCE) -> dict[str, Any]:
        """Return the next message; raise ContenderError if none comes in so many seconds."""
        with trio.move_on_after(patience) as scope:
            while b"\n" not in self._unread:
                data = await self._stdio.receive_some()
                if not data:
                    break
                self._unread += data
        line, newline, self._unread = self._unread.partition(b"\n")
        if not newline:
            raise await self._failure("said nothing" if scope.cancelled_caught else "ended")
        message: dict[str, Any] = json.loads(line)
        return message

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        await self.tell(message)
        return await self.hear()

    async def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        with trio.CancelScope(shield=True):
            await self._process.wait()
            await trio.aclose_forcefully(self._stdio)

    def complaints(self) -> str:
        """What the process has written to stderr."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace").strip()

    async def _failure(self, what: str) -> ContenderError:
        with trio.move_on_after(1):  # to write its last words
            await self._process.wait()
        return ContenderError(f"{self._name} {what}")


@dataclasses.dataclass
class Pair:
    """A contender's server and client, both running.

    Attributes:
        versions: What they say is in them, by name.
    """

    _server: _Worker
    _client: _Worker
    _port: int
    versions: dict[str, str]

    async def measure(
        self, workload: Workload, *, seconds: float, warm_up: float, port: int | None = None
    ) -> Measurement:
        """Let the client do the workload for so many seconds, after so many to warm up.

        Args:
            workload: What to do.
            seconds: How long it is measured.
            warm_up: How long it is done before.
            port: Where the client connects, if not to the server itself.
        """
        await self._client.tell(
            {
                "port": port or self._port,
                "workload": workload_to_json(workload),
                "seconds": seconds,
                "warm_up": warm_up,
            }
        )
        usages = []
        while "mark" in (message := await self._client.hear(_PATIENCE + seconds + warm_up)):
            usages.append(await self._server.ask({"settle": isinstance(workload, Idle)}))
            await self._client.tell({})
        before, after = usages
        return Measurement(
            **message,
            server_cpu=after["cpu"] - before["cpu"],
            server_memory=after["memory"] - before["memory"],
        )

    def complaints(self) -> str:
        """What both have written to stderr."""
        return "\n".join(filter(None, [self._server.complaints(), self._client.complaints()]))

    async def negotiate(self) -> Negotiated:
        """Make one connection and return what the wire says was agreed on."""
        from_server = bytearray()

        async def relay(source: trio.SocketStream, sink: trio.SocketStream, copy: bytearray) -> None:
            with suppress(trio.BrokenResourceError):
                async for data in source:
                    copy += data
                    await sink.send_all(data)
                await sink.send_eof()

        async def handler(client: trio.SocketStream) -> None:
            server = await trio.open_tcp_stream(HOST, self._port)
            async with client, server, trio.open_nursery() as nursery:
                nursery.start_soon(relay, client, server, bytearray())
                nursery.start_soon(relay, server, client, from_server)

        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host=HOST))
            port = listeners[0].socket.getsockname()[1]
            # Captured, so that its error does not come out in an exception group.
            glance = await outcome.acapture(partial(self.measure, _GLANCE, seconds=0, warm_up=0, port=port))
            nursery.cancel_scope.cancel()
        glance.unwrap()
        return negotiated(bytes(from_server))


@asynccontextmanager
async def open_pair(contender: Contender, credentials: Path, terms: Terms) -> AsyncIterator[Pair]:
    """Start a contender's server and client; end them afterwards.

    Args:
        contender: Who.
        credentials: The folder with key.pem, cert.pem and ca.pem.
        terms: What they are to agree on.

    Raises:
        ContenderError: a worker failed, inside this context too; with what both wrote to stderr.
    """
    setup = {
        "module": contender.module,
        "context_per_connect": contender.context_per_connect,
        "directory": str(credentials),
        "group": terms.group,
        "cipher": terms.cipher,
    }
    environment = os.environ | _own_source(contender) | _own_configuration(credentials, terms)
    server_core, client_core = cores() or (None, None)
    async with (
        _open_worker(contender, setup | {"role": "server"}, environment, server_core) as server,
        _open_worker(contender, setup | {"role": "client"}, environment, client_core) as client,
    ):
        try:
            ready = await server.hear()
            await client.hear()
            yield Pair(server, client, ready["port"], ready["versions"])
        except ContenderError as error:
            raise ContenderError("\n".join([str(error), server.complaints(), client.complaints()])) from None


def _own_source(contender: Contender) -> dict[str, str]:
    """Return the environment in which a contender is imported from its own folder."""
    if contender.source is None:
        return {}
    # The safe path leaves out the folder that a process starts in, which would come first.
    return {"PYTHONPATH": os.pathsep.join(map(str, (contender.source, _ROOT))), "PYTHONSAFEPATH": "1"}


def _own_configuration(directory: Path, terms: Terms) -> dict[str, str]:
    """Return the environment in which the standard library, too, takes the cipher suite.

    It has no call for those of TLS 1.3, but its OpenSSL reads a file.
    """
    if terms.cipher == USUAL.cipher:
        return {}
    path = directory / f"{terms.cipher}.cnf"
    path.write_text(
        "openssl_conf = main\n[main]\nssl_conf = ssl\n[ssl]\nsystem_default = contexts\n"
        f"[contexts]\nCiphersuites = {terms.cipher}\n"
    )
    return {"OPENSSL_CONF": str(path)}


@asynccontextmanager
async def _open_worker(
    contender: Contender, setup: dict[str, Any], environment: dict[str, str], core: int | None
) -> AsyncIterator[_Worker]:
    with tempfile.TemporaryFile() as stderr:
        process = await trio.lowlevel.open_process(
            [*contender.command, json.dumps(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=_ROOT,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the runner
            # Before the program starts, so that its threads inherit it.
            preexec_fn=None if core is None else partial(os.sched_setaffinity, 0, {core}),
        )
        worker = _Worker(f"{contender.name} {setup['role']}", process, stderr)
        try:
            yield worker
        finally:
            await worker.end()


def cores() -> tuple[int, int] | None:
    """Return the processor cores for server and client, or None if they cannot have one each."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[1]) if len(available) > 1 else None


async def run(
    settings: Settings,
    turns: Sequence[Turn],
    credentials: Path,
    progress: Callable[[str], None],
    subject: str = OURS,
) -> Results:
    """Let contenders do scenarios.

    Args:
        settings: How.
        turns: What, and who; in the order of a round.
        credentials: The folder with key.pem, cert.pem and ca.pem.
        progress: Is told what comes next, `steps` times.
        subject: The contender whom the others are compared with.

    Returns:
        The figures, with the failures of contenders beside them.
    """
    results = Results(
        settings=dataclasses.asdict(settings),
        machine={
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "system": platform.platform(),
            "processor": _processor(),
            "cores": cores(),
            "load": os.getloadavg()[0],
        },
        subject=subject,
    )
    for contender, terms in _negotiations(turns):
        progress(f"{contender.name}{terms.title}: what is negotiated")
        try:
            async with open_pair(contender, credentials, terms) as pair:
                agreed = await pair.negotiate() if contender.secure else None
                results.add_contender(contender.name, pair.versions, agreed)
                if agreed is not None and agreed != (wanted := _wanted(terms, agreed)):
                    results.failures.append(f"{contender.name} negotiates {agreed}, not {wanted}")
        except ContenderError as error:
            results.failures.append(f"{contender.name}: {error}")
    for number in range(settings.rounds):
        for scenario, contender in turns:
            progress(f"round {number + 1}/{settings.rounds}: {scenario.name}, {contender.name}")
            try:
                async with open_pair(contender, credentials, scenario.terms) as pair:
                    seconds = max(settings.seconds, scenario.least_seconds)
                    # Half as long before, to warm up.
                    measurement = await pair.measure(scenario.workload, seconds=seconds, warm_up=seconds / 2)
                    complaints = pair.complaints()
            except ContenderError as error:
                measurement = None
                complaints = str(error)
            if complaints:
                results.failures.append(f"{scenario.name}, {contender.name}: {complaints}")
            results.add(scenario, contender.name, measurement)
    return results


def steps(settings: Settings, turns: Sequence[Turn]) -> int:
    """Return how often `run` reports progress."""
    return len(_negotiations(turns)) + settings.rounds * len(turns)


def _negotiations(turns: Sequence[Turn]) -> list[tuple[Contender, Terms]]:
    """Return who negotiates on what terms; without TLS it is the same on all."""
    found = {
        (contender, scenario.terms if contender.secure else USUAL): None for scenario, contender in turns
    }
    return list(found)


def _wanted(terms: Terms, agreed: Negotiated) -> Negotiated:
    return Negotiated("TLSv1.3", terms.cipher, terms.group or agreed.group)


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
