"""docs/coming-from-node.md: each row has an example, each example does what stands behind its prints.

An example begins with a comment that names its row, and has the names of the page's beginning.  What Node.js
says instead stands before it; that it is JavaScript, and of Node's, is shown by Node.js.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_tlsnode as tls

PATH = Path(__file__).parent.parent / "docs" / "coming-from-node.md"
PAGE = PATH.read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([A-G]\d+) \|", PAGE, re.MULTILINE)


def blocks(language: str) -> list[tuple[int, str]]:
    """Return the code of each block with the number of its first line."""
    fences = re.finditer(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [(PAGE.count("\n", 0, fence.start(1)), fence[1]) for fence in fences]


[BEGINNING] = blocks("python")
[CONNECTIONS, *EXAMPLES] = blocks("python no-run")
IDS = [re.findall(r"\A# ([A-G]\d+): ", code) for _, code in EXAMPLES]
NODE_EXAMPLES = [code for _, code in blocks("js")]


def test_each_row_has_one_example_in_the_order_of_the_rows() -> None:
    assert [row for ids in IDS for row in ids] == ROWS
    assert all(len([line for line in code.splitlines() if line]) <= 16 for _, code in EXAMPLES)


def test_what_node_says_stands_before_the_example_of_its_row() -> None:
    labels = re.findall(r"^```(?:js|python no-run)\n(?://|#) ([A-G]\d+)\b", PAGE, re.MULTILINE)
    assert [row for row, _ in itertools.groupby(labels)] == ROWS
    assert len(NODE_EXAMPLES) == len(labels) - len(ROWS) > 50


async def run(block: tuple[int, str], names: dict[str, Any]) -> None:
    line, text = block
    code = compile("\n" * line + text, PATH.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if code.co_flags & inspect.CO_COROUTINE:
        await result


@pytest.fixture(scope="module")
def beginning(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page's beginning defines, made once, as keys take time."""
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(tmp_path_factory.mktemp("beginning")):
        trio.run(run, BEGINNING, names)
    return names


@pytest.fixture
def in_a_folder(beginning: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in a folder with the files of the beginning; what an example changes of the defaults is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(PATH.parent.parent / "examples")
    beginning["certificate"].write_to(tmp_path)
    Path("ca.pem").write_bytes(beginning["authority"].ca)
    yield
    tls.defaults.reset()


@pytest.mark.usefixtures("in_a_folder")
@pytest.mark.parametrize("example", EXAMPLES, ids=[" ".join(ids) for ids in IDS])
async def test_an_example_does_what_stands_behind_its_prints(
    example: tuple[int, str], beginning: dict[str, Any]
) -> None:
    printed: list[str] = []
    names = dict(beginning, print=lambda *values: printed.append(" ".join(map(str, values))))
    # The functions of the beginning look names up where they were made.
    beginning_names = beginning["meet"].__globals__
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            names["nursery"] = beginning_names["nursery"] = nursery
            await run(CONNECTIONS, names)
            await run(example, names)
            nursery.cancel_scope.cancel()
        for value in names.values():
            if isinstance(value, trio.abc.Stream):
                await trio.aclose_forcefully(value)
    expected = re.findall(r"^ *print\(.*\)  # (.*)$", example[1], re.MULTILINE)
    assert printed == expected
    assert len(expected) > 0


NODE_CHECK = r"""
const tls = require("node:tls");
const AsyncFunction = (async () => {}).constructor;
for (const code of JSON.parse(require("node:fs").readFileSync(0, "utf8"))) {
  new AsyncFunction(code);
  for (const [, name] of code.matchAll(/\btls\.(\w+)/g))
    if (!(name in tls) && !/^DEFAULT_|^CLIENT_/.test(name)) throw new Error(`no tls.${name}`);
}
"""


def test_what_node_says_is_javascript_and_of_node(node: str) -> None:
    done = subprocess.run(
        [node, "-e", NODE_CHECK], input=json.dumps(NODE_EXAMPLES), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
