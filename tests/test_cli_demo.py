"""``tlsnode demo``, and what all commands have in common."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner
from rich.console import Console

import trio_tlsnode as tls
from trio_tlsnode.cli import main
from trio_tlsnode.cli.demo import BAD_CLIENTS, BadClient, Stage, demonstrate
from trio_tlsnode.cli.terminal import print_line, print_rows, terminal

ROOT = Path(__file__).parent.parent

QUICK_CLIENTS = [client for client in BAD_CLIENTS if client.error is not tls.HandshakeTimeout]


def plain_console() -> tuple[Console, io.StringIO]:
    output = io.StringIO()
    return Console(file=output, width=80), output


async def get_served(stage: Stage, transport: trio.SocketStream) -> str:
    """Be a good client among the bad ones."""
    async with await stage.handshake(transport) as stream:
        await stream.send_all(b"hello")
        await stream.receive_some()
    return "its echo"


@pytest.mark.feature("G5")
def test_the_demonstration_succeeds_in_a_few_seconds_and_prints_plain_text_into_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trio_tlsnode.cli", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=10,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("All of it is as it should be")


@pytest.mark.feature("G5")
async def test_the_supervising_task_is_told_of_every_bad_client_by_class_code_phase_and_peer() -> None:
    console, output = plain_console()
    assert await demonstrate(console, QUICK_CLIENTS) == []
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert f"TLSClientErrors: clients failed ({len(QUICK_CLIENTS)} sub-exceptions)" in lines
    phases = set()
    for client in QUICK_CLIENTS:
        (port,) = (line.split()[0] for line in lines if f" {client.what} " in line)
        (leaf,) = (at for at, line in enumerate(lines) if f", 127.0.0.1:{port}: " in line)
        assert lines[leaf - 1].endswith(f"── {client.error.__name__} {client.code}")
        phases.add(lines[leaf].strip("│ ").partition(",")[0])
    assert phases == {"hello", "handshake", "secure"}


async def test_a_client_that_fails_otherwise_than_it_should_is_told() -> None:
    console, output = plain_console()
    client = BAD_CLIENTS[0]
    expecting_otherwise = BadClient(client.what, client.deed, tls.PeerAlert, "ERR_SSL_ALERT")
    (complaint,) = await demonstrate(console, [expecting_otherwise])
    assert complaint == (
        "the client that speaks HTTP without TLS was reported as NotTLS ERR_SSL_HTTP_REQUEST "
        "instead of PeerAlert ERR_SSL_ALERT"
    )
    assert f"Not as it should be: {complaint}" in output.getvalue()
    assert "All of it" not in output.getvalue()


async def test_a_client_that_does_not_fail_is_told() -> None:
    console, output = plain_console()
    good = BadClient("is good", get_served, tls.NotTLS, "ERR_SSL_HTTP_REQUEST")
    assert await demonstrate(console, [good], patience=0.05) == ["the client that is good was not reported"]
    assert "Nothing." in output.getvalue()


# All commands


@pytest.mark.parametrize("missing", ["click", "rich", "trustme"])
def test_without_the_extra_the_import_fails_with_a_sentence_that_names_it(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import trio_tlsnode.cli"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: the command tlsnode needs {missing}: pip install 'trio-tlsnode[cli]'"
    )


@pytest.mark.parametrize("missing", ["click", "rich", "trustme"])
def test_without_the_extra_the_command_says_what_to_install_without_a_traceback(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from trio_tlsnode.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"Error: the command tlsnode needs {missing}: pip install 'trio-tlsnode[cli]'\n"


def test_it_is_started_as_a_module_too() -> None:
    command = [sys.executable, "-m", "trio_tlsnode", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"tlsnode {tls.__version__}\n"


def test_the_command_tells_its_version_and_its_commands() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"tlsnode {tls.__version__}\n"
    usage = CliRunner().invoke(main, ["--help"]).output
    assert all(command in usage for command in ("connect", "demo", "serve"))


def test_output_is_plain_where_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert terminal().color_system is not None
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal().color_system is None


def test_what_a_peer_says_cannot_steer_the_terminal() -> None:
    console, output = plain_console()
    print_line(console, "evil\x1b[2J\nname", (" [red]x", "red"))
    print_rows(console, [("label", "\x1b]0;title\x07 and\r")])
    assert output.getvalue() == ("evil\\x1b[2J\\nname [red]x\n  label        \\x1b]0;title\\x07 and\\r\n")


def test_rows_are_folded_to_the_width() -> None:
    console, output = plain_console()
    print_rows(console, [("label", "word " * 30)])
    lines = output.getvalue().splitlines()
    assert lines[0].startswith("  label        word word")
    assert lines[1].startswith(" " * 15 + "word")
    assert max(map(len, lines)) <= 80
