"""``tlsnode trace``: the timeline of a handshake, also of one that fails."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result
from json_shapes import parsed
from rich.console import Console

import trio_tlsnode as tls
from trio_tlsnode.cli import main
from trio_tlsnode.cli.failure import ExitStatus
from trio_tlsnode.cli.serve import echo
from trio_tlsnode.cli.trace import observe, show
from trio_tlsnode.testing import default_authority

pytestmark = pytest.mark.feature("G5")


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[int]:
    """Run a server on a free port of 127.0.0.1; give the port."""
    context = tls.SecureContext(**default_authority().good("localhost", "127.0.0.1").options)
    server = tls.TLSServer(echo, context, **options)
    server.client_errors()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(server.serve, 0, "127.0.0.1"))
        yield server.addresses[0].port
        await server.aclose(0)


async def invoked(*args: str) -> Result:
    """Run the command with these arguments, in a thread, where it has an event loop of its own."""
    run = partial(CliRunner().invoke, main, ["trace", *args], env={"COLUMNS": "80"})
    return await trio.to_thread.run_sync(run)


@pytest.fixture
def ca(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    path.write_bytes(default_authority().ca)
    return str(path)


async def test_a_handshake_is_shown_as_a_timeline_of_80_columns(ca: str) -> None:
    async with serving(alpn_protocols=["h2"]) as port:
        result = await invoked(f"localhost:{port}", "--ca", ca, "--alpn", "h2")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("TLSv1.3, TLS_AES_256_GCM_SHA384, full handshake, 1 round trip, ")
    names = [line.split()[0].strip("{}") for line in lines if line.startswith("    ") and line[4] != " "]
    assert names[0] == "ClientHello"
    # What comes after the handshake is shown too.
    assert names[-3:] == ["NewSessionTicket", "NewSessionTicket", "Alert"]
    assert "\x1b" not in result.output


async def test_a_session_is_resumed_where_that_is_asked_for(ca: str) -> None:
    async with serving() as port:
        result = await invoked(f"localhost:{port}", "--ca", ca, "--resume")
    full, resumed = result.stdout.split("\n\nTLSv1.3")
    assert "full handshake" in full
    assert ", resumed handshake," in resumed
    assert "pre-shared key accepted" in " ".join(resumed.split())


async def test_a_handshake_that_fails_is_shown_up_to_there_and_explained() -> None:
    async with serving() as port:
        result = await invoked(f"127.0.0.1:{port}")
    assert result.exit_code == ExitStatus.CERTIFICATE
    told = " ".join(result.stdout.split())
    assert "Alert 2 fatal unknown_ca" in told
    assert "failed: CertificateError: unable to verify the first certificate" in told
    assert result.stderr.startswith("Error: unable to verify the first certificate")
    assert "\n  what to do   " in result.stderr


async def test_as_json_there_is_each_trace(ca: str) -> None:
    async with serving() as port:
        result = await invoked(f"localhost:{port}", "--ca", ca, "--resume", "--json")
    facts = parsed(result.stdout)
    assert (facts["command"], facts["exit_status"], facts["error"]) == ("trace", 0, None)
    full, resumed = facts["report"]["traces"]
    assert (full["resumed"], resumed["resumed"]) == (False, True)
    assert full["flights"][0]["messages"][0]["name"] == "ClientHello"


async def test_as_json_a_failure_stands_beside_its_trace(ca: str) -> None:
    async with serving() as port:
        result = await invoked(f"127.0.0.1:{port}", "--servername", "example.org", "--ca", ca, "--json")
    facts = parsed(result.stdout)
    assert result.exit_code == facts["exit_status"] == ExitStatus.CERTIFICATE
    assert facts["error"]["class"] == "IdentityError"
    assert facts["report"]["traces"][0]["failure"]["error"] == "IdentityError"


async def test_nobody_listening_is_a_failure_without_a_trace() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        result = await invoked(f"127.0.0.1:{taken.getsockname()[1]}")
    assert (result.exit_code, result.stdout) == (ExitStatus.NETWORK, "")
    assert result.stderr.startswith("Error: Connection refused")


async def test_a_server_that_says_nothing_is_shown_with_what_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = await invoked(f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.05")
    assert result.exit_code == ExitStatus.TIMEOUT
    assert "    ClientHello" in result.stdout
    assert " in 0.05 seconds" in result.stderr


async def test_the_secrets_go_to_a_file(ca: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.log"
    async with serving() as port:
        await invoked(f"localhost:{port}", "--ca", ca, "--keylog", str(path))
    assert "CLIENT_HANDSHAKE_TRAFFIC_SECRET " in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("color_system", [None, "standard"])
async def test_directions_have_colours_on_a_terminal_alone(color_system: Any) -> None:
    async with serving() as port:
        connect = partial(tls.connect, "localhost", port, ca=default_authority().ca)
        traces, error = await observe(connect)
    assert error is None
    console = Console(width=80, color_system=color_system, force_terminal=color_system is not None)
    with console.capture() as captured:
        show(console, traces)
    assert ("\x1b[36m" in captured.get()) == (color_system is not None)
