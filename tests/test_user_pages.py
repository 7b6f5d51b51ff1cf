"""The pages that teach: their commands exist, and what the tutorial shows is what happens.

That the Python code of all pages runs is shown by `test_readme`.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

import trio_tlsnode as tls
from trio_tlsnode.cli import main

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [
    "tutorial.md",
    "how-to-server.md",
    "how-to-client.md",
    "how-to-client-certificates.md",
    "how-to-proxy.md",
    "how-to-test.md",
    "coming-from-trio-sslstream.md",
    "security.md",
]
TUTORIAL = (DOCS / "tutorial.md").read_text(encoding="utf-8")

# A file with its name, or what is typed into a terminal and what that answers.
STEP = re.compile(
    r"^```(?:\{code-block\} \w+\n:caption: (?P<file>\S+)\n(?::[^\n]*\n)*\n|console\n)(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def commands(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8").replace("\\\n", "")
    return re.findall(r"^\$ (.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_exists_with_its_options(page: str) -> None:
    for command in commands(page):
        words = shlex.split(command, comments=True)
        if words[0] != "tlsnode":
            assert words[0] in {"python", "kill", "openssl", "curl", "systemctl"}, command
            continue
        options = {option for parameter in main.commands[words[1]].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, command


@pytest.mark.parametrize("page", PAGES)
def test_every_public_name_on_the_page_exists(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for name in re.findall(r"`tls\.(\w+)", text):
        assert hasattr(tls, name), name


def test_the_tests_with_pytest_run_as_they_stand(tmp_path: Path) -> None:
    for step in STEP.finditer((DOCS / "how-to-test.md").read_text(encoding="utf-8")):
        if step["file"]:
            (tmp_path / step["file"]).write_text(step["text"], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-Werror", "-ppytest_trio_tlsnode", "-ppytest_trio.plugin"],
        cwd=tmp_path,
        # Whether the package is installed, so that pytest finds its plug-in itself, is all the same.
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(DOCS.parent), *sys.path)),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


class Walk:
    """Somebody who does what the tutorial says, in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: subprocess.Popen[str] | None = None
        self.port = 0
        self._files: dict[str, str] = {}
        self._complaints: IO[str] = (folder / "complaints").open("w+", encoding="utf-8")
        # As this process has it, be the package installed or not.
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "80"}

    def write(self, name: str, content: str) -> None:
        self._files[name] = content

    def type(self, command: str) -> str:
        """Run a command, and return what it says, with what differs from run to run as on the page."""
        for name, content in self._files.items():
            port = 0 if name == "server.py" else self.port
            (self.folder / name).write_text(content.replace("8443", str(port)), encoding="utf-8")
        words = shlex.split(command.replace("8443", str(self.port)))
        if words[:4] == ["python", "-m", "pip", "install"]:
            return ""
        if words == ["python", "server.py"]:
            return self._start_server()
        words[:1] = [sys.executable] if words[0] == "python" else [sys.executable, "-m", "trio_tlsnode.cli"]
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        output = done.stdout.replace("[::1]", "127.0.0.1").replace(f":{self.port})", ":8443)")
        output = re.sub(r"'[\w.-]+@[\w.-]+'", "'alice@laptop'", output)
        output = re.sub(r"until [\d-]+", "until 2027-12-23", output)
        return re.sub(r"in [\d.]+s$", "in 0.12s", output, flags=re.MULTILINE)

    def _start_server(self) -> str:
        self.stop()
        self.server = subprocess.Popen(
            [sys.executable, "-u", "server.py"],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )
        line = self.server_says()
        self.port = int(line.rpartition(":")[2])
        return "listening on 127.0.0.1:8443\n" if line.startswith("listening on ") else line

    def server_says(self) -> str:
        assert self.server is not None
        assert self.server.stdout is not None
        return self.server.stdout.readline()

    def complaints(self) -> str:
        self._complaints.seek(0)
        return self._complaints.read()

    def stop(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.communicate()

    def close(self) -> None:
        self.stop()
        self._complaints.close()


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    walk = Walk(tmp_path)
    yield walk
    walk.close()


async def test_who_does_what_the_tutorial_says_sees_what_it_shows(walk: Walk) -> None:
    for step in STEP.finditer(TUTORIAL):
        if step["file"]:
            walk.write(step["file"], step["text"])
            continue
        command, _, shown = step["text"].removeprefix("$ ").partition("\n")
        assert walk.type(command) == shown, command

    # The client that does not trust the server has told it so.
    (line,) = re.findall(r"^PeerAlert .*$", TUTORIAL, re.MULTILINE)
    told = walk.complaints().replace("[::1]", "127.0.0.1")
    assert re.search(re.escape(line).replace("53210", r"\d+"), told)

    # The last server ends when its clients have ended.
    ca = walk.folder / "dev-ca" / "ca.pem"
    assert walk.server is not None
    async with await tls.connect("localhost", walk.port, ca=ca, alpn_protocols=["echo/2"]) as stream:
        walk.server.send_signal(signal.SIGINT)
        closing = walk.server_says().strip()
        await stream.send_all(b"still there")
        assert await stream.receive_some() == b"STILL THERE"
    assert closing == "closing; open connections: 1"
    assert f"`{closing}`" in TUTORIAL
    assert walk.server.wait() == 0
