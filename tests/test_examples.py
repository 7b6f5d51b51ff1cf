"""The programs in examples/ do what they say."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import trio_tlsnode as tls
from trio_tlsnode.testing import Authority

EXAMPLES = Path(__file__).parent.parent / "examples"


async def test_the_echo_server_answers_and_tells_what_clients_do_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority()
    key, cert = authority.good("localhost").write_to(tmp_path)
    example: dict[str, Any] = runpy.run_path(str(EXAMPLES / "echo_server.py"))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(example["main"], key, cert, 0)
            output = ""
            while "listening on" not in output:
                await trio.testing.wait_all_tasks_blocked()
                output += capsys.readouterr().out
            port = int(output.split(":")[-1])
            async with await trio.open_tcp_stream("localhost", port) as plain:
                await plain.send_all(b"GET / HTTP/1.1\r\n\r\n")
                assert await plain.receive_some() == b""
            async with await tls.connect("localhost", port, ca=authority.ca) as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
            nursery.cancel_scope.cancel()
    assert "NotTLS: the peer sent an HTTP request" in capsys.readouterr().err


async def test_the_metrics_are_those_of_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority()
    key, cert = authority.good("localhost").write_to(tmp_path)
    example: dict[str, Any] = runpy.run_path(str(EXAMPLES / "metrics.py"))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(example["main"], key, cert, 0, 0)
            output = ""
            while "metrics at" not in output:
                await trio.testing.wait_all_tasks_blocked()
                output += capsys.readouterr().out
            first, second, *_ = output.splitlines()
            port, metrics_port = int(first.split(":")[-1]), int(second.split(":")[-1].split("/")[0])
            async with await trio.open_tcp_stream("localhost", port) as plain:
                await plain.send_all(b"GET / HTTP/1.1\r\n\r\n")
                assert await plain.receive_some() == b""
            async with await tls.connect("localhost", port, ca=authority.ca):
                async with await trio.open_tcp_stream("127.0.0.1", metrics_port) as rude:
                    rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                async with await trio.open_tcp_stream("127.0.0.1", metrics_port) as scraper:
                    await scraper.send_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    head, _, body = b"".join([data async for data in scraper]).decode().partition("\r\n\r\n")
            nursery.cancel_scope.cancel()
    assert head.startswith("HTTP/1.1 200 OK")
    assert f"Content-Length: {len(body)}" in head
    samples = dict(line.rsplit(" ", 1) for line in body.splitlines() if not line.startswith("#"))
    assert samples == {
        "tls_connections_open": "1",
        "tls_connections_handshaking": "0",
        "tls_handshakes_waiting": "0",
        "tls_connections_total": "2",
        "tls_connections_secure_total": "1",
        "tls_connections_resumed_total": "0",
        "tls_failures_dropped_total": "0",
        "tls_no_room_total": "0",
        'tls_failures_total{code="ERR_SSL_HTTP_REQUEST"}': "1",
    }
    families = {line.split()[2] for line in body.splitlines() if line.startswith("# TYPE")}
    assert families == {sample.partition("{")[0] for sample in samples}


@pytest.fixture
async def prefork(tmp_path: Path) -> AsyncIterator[tuple[trio.Process, bytes]]:
    """The server of several processes, with two workers; and whom its clients trust."""
    authority = Authority()
    key, cert = authority.good("localhost").write_to(tmp_path)
    command = [sys.executable, "-W", "error", EXAMPLES / "prefork.py", key, cert, "0", "2"]
    process = await trio.lowlevel.open_process(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        start_new_session=True,
        # As this process has it, be it installed or not.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield process, authority.ca
    finally:
        if process.returncode is None:
            process.terminate()
            with trio.move_on_after(5) as scope:
                await process.wait()
            if scope.cancelled_caught:
                os.killpg(process.pid, signal.SIGKILL)


class Lines:
    """What a process says, line by line."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        self._stdout = process.stdout
        self._received = b""

    async def number_after(self, text: str) -> int:
        """Return the number that is the last word of the next line, which begins with a text."""
        while b"\n" not in self._received:
            data = await self._stdout.receive_some()
            assert data, self._received
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        assert line.decode().startswith(text)
        return int(line.split()[-1])


async def worker_of(stream: tls.TLSStream) -> int:
    """Return which process has accepted a connection."""
    return int((await stream.receive_some()).split()[-1])


@pytest.mark.feature("E2")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
async def test_the_workers_of_the_prefork_server_resume_each_others_sessions(
    prefork: tuple[trio.Process, bytes],
) -> None:
    process, ca = prefork
    versions = ("TLSv1.2", "TLSv1.3")
    contexts = {version: tls.SecureContext(ca=ca, max_version=version) for version in versions}
    with trio.fail_after(20):
        said = Lines(process)
        port = await said.number_after("listening on port")
        workers = {await said.number_after("started worker") for _ in range(2)}

        async def connect(version: str, session: bytes | None = None) -> tls.TLSStream:
            return await tls.connect(
                "localhost", port, context=contexts[version], session=session, session_cache=None
            )

        sessions: dict[str, tuple[bytes, int]] = {}
        for version in versions:
            async with await connect(version) as stream:
                made_by = await worker_of(stream)
                assert made_by in workers
                assert stream.session is not None
                sessions[version] = stream.session, made_by
        # Those that made them die, and are replaced.
        for worker in {made_by for _, made_by in sessions.values()}:
            os.kill(worker, signal.SIGKILL)
            workers.remove(worker)
            workers.add(await said.number_after("started worker"))
        for version, (session, made_by) in sessions.items():
            async with await connect(version, session) as stream:
                assert stream.info.session_reused
                assert await worker_of(stream) in workers - {made_by}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
async def test_the_prefork_server_lets_its_clients_finish_when_it_is_to_end(
    prefork: tuple[trio.Process, bytes],
) -> None:
    process, ca = prefork
    with trio.fail_after(20):
        said = Lines(process)
        port = await said.number_after("listening on port")
        workers = {await said.number_after("started worker") for _ in range(2)}
        async with await tls.connect("localhost", port, ca=ca) as stream:
            worker = await worker_of(stream)
            process.send_signal(signal.SIGTERM)
            assert await said.number_after("ended worker") in workers - {worker}
            # Until the other one, too, has heard of it.
            with pytest.raises((tls.ConnectError, tls.ConnectionLost)):
                while True:
                    await trio.aclose_forcefully(await tls.connect("localhost", port, ca=ca))
            await stream.send_all(b"still here")
            assert await stream.receive_some() == b"still here"
        assert await said.number_after("ended worker") == worker
        assert await process.wait() == 0
