"""docs/node-guides.md shows what really happens: what its code prints, and what its commands say."""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import os
import re
import shlex
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

import trio_tlsnode as tls

PATH = Path(__file__).parent.parent / "docs" / "node-guides.md"
PAGE = PATH.read_text(encoding="utf-8")


class Block(NamedTuple):
    """What stands between two fences.

    Attributes:
        kind: What stands behind the first one.
        text: What stands between them.
        line: The number of its first line, from 0.
    """

    kind: str
    text: str
    line: int


BLOCKS = [
    Block(fence[1], fence[2], PAGE.count("\n", 0, fence.start(2)))
    for fence in re.finditer(r"^```(\S[^\n]*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
]
FOREIGN = "import httpx"
# The certificate for another name, and who meets it.
_OF_OTHER = re.compile(rf"other/|{FOREIGN}")
_COMMANDS = re.compile(r"^\$ ([^\n]*)\n((?:(?!\$ )[^\n]*\n)*)", re.MULTILINE)


class OfflineResolver(trio.abc.HostnameResolver):
    """Knows this machine, and asks nobody."""

    async def getaddrinfo(self, host: Any, port: Any, *hints: int) -> list[Any]:
        await trio.lowlevel.checkpoint()
        if host in ("localhost", b"localhost"):
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


def unchanging(text: str) -> str:
    """Return what was printed, with what differs from run to run as on the page."""
    text = re.sub(r"(127\.0\.0\.1|localhost):\d+", r"\1:8443", text)
    return re.sub(r" \(_ssl\.c:\d+\)", "", text)


class Reader:
    """Somebody who tries out what the page says, from its beginning.

    Attributes:
        names: What the page has defined so far.
    """

    def __init__(self, nursery: trio.Nursery | None = None) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__", "nursery": nursery, "print": self._print}
        self._printed: list[str] = []

    def _print(self, *values: object) -> None:
        self._printed.append(" ".join(map(str, values)))

    async def run(self, block: Block) -> None:
        source = "\n" * block.line + block.text
        code = compile(source, PATH.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, self.names)
        else:
            # It may have a trio.run of its own.
            await trio.to_thread.run_sync(exec, code, self.names)

    def printed(self) -> str:
        """Return what was printed since this was asked for last."""
        text = "".join(f"{line}\n" for line in self._printed)
        self._printed.clear()
        return unchanging(text)


@contextlib.asynccontextmanager
async def reader() -> AsyncIterator[Reader]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            trio.socket.set_custom_hostname_resolver(OfflineResolver())
            one = Reader(nursery)
            yield one
            nursery.cancel_scope.cancel()


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    tls.defaults.reset()


@pytest.mark.feature("D4")
@pytest.mark.feature("A21")
@pytest.mark.usefixtures("_folder")
async def test_the_code_prints_what_stands_behind_it() -> None:
    async with reader() as one:
        shown = 0
        for block in BLOCKS:
            if block.kind.startswith("python"):
                foreign = FOREIGN in block.text
                if not foreign:
                    await one.run(block)
            elif block.kind == "text" and not foreign:
                assert one.printed() == block.text, f"line {block.line}"
                shown += 1
        assert one.printed() == ""
    assert shown > 15


def test_each_output_and_each_command_is_looked_at() -> None:
    assert {block.kind for block in BLOCKS} == {"python", "python no-run", "text", "console"}
    kinds = [block.kind for block in BLOCKS]
    assert all(before.startswith("python") for before, kind in itertools.pairwise(kinds) if kind == "text")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\btls\.(\w+)", PAGE))))
def test_a_public_name_of_the_page_exists_in_one_of_both(name: str) -> None:
    assert hasattr(tls, name) or name.startswith("DEFAULT_")


@pytest.mark.interop
@pytest.mark.feature("D4")
@pytest.mark.usefixtures("_folder")
async def test_commands_and_httpx_say_what_stands_behind_them(openssl: str) -> None:
    # What is about this failure, and what that is made of.
    blocks = [block for block in BLOCKS if block.kind != "python no-run" or _OF_OTHER.search(block.text)]
    commands = 0
    async with reader() as one:
        for before, block in itertools.pairwise([blocks[0], *blocks]):
            if block.kind.startswith("python"):
                await one.run(block)
            elif block.kind == "console":
                for command, expected in _COMMANDS.findall(block.text):
                    said = await typed(openssl, command, one.names.get("port", 0))
                    assert says(expected, said), command
                    commands += 1
            elif FOREIGN in before.text:
                assert one.printed() == block.text
            else:
                one.printed()
    assert commands == 7


async def typed(openssl: str, command: str, port: int) -> str:
    """Return what a command says, first on its standard error, then on its standard output."""
    programs = {"openssl": [openssl], "tlsnode": [sys.executable, "-m", "trio_tlsnode.cli"]}
    first, *rest = shlex.split(command.replace("8443", str(port)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "80"}
    done = await trio.run_process(
        [*programs.get(first, [first]), *rest],
        env=environment,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return (done.stderr + done.stdout).decode()


def says(expected: str, said: str) -> bool:
    """Return whether somebody said this; three dots are what is left out, of any length."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "..." else re.escape(line) + r"\n" for line in expected.splitlines()
    )
    return re.fullmatch(pattern, said) is not None
