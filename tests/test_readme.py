"""The Python code of README.md and of all documentation pages runs as it stands.

The blocks of a page run in order and share their names, in an empty folder.  A block may await at its top
level.  A block inside an HTML comment is run but not seen: it is where a page makes the key or the server
that the others use.  A block that starts with ```` ```python no-run ```` is shown only.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import trio

ROOT = Path(__file__).parent.parent
FENCE = "\n```python\n"
PAGES = [
    str(page.relative_to(ROOT))
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if FENCE in page.read_text(encoding="utf-8")
]


def blocks(text: str, filename: str) -> Iterator[CodeType]:
    """Yield the code of each block, with the page's own line numbers."""
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start(1))
        yield compile("\n" * line + match[1], filename, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def run(code: CodeType, names: dict[str, Any]) -> None:
    async def awaiting() -> None:
        with trio.fail_after(10):
            await eval(code, names)

    if code.co_flags & inspect.CO_COROUTINE:
        trio.run(awaiting)
    else:
        exec(code, names)


def test_the_pages_are_found() -> None:
    assert {"README.md", "docs/certificate-errors.md", "docs/how-to-staple.md"} <= {*PAGES}


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_the_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for code in blocks(text, page):
        run(code, names)


PAGE = """
<!--
```python
kept = [1]
```
-->
```python no-run
unknown
```
```python
import trio
await trio.lowlevel.checkpoint()
kept.append(2)
```
```python
trio.run(trio.lowlevel.checkpoint)
kept.append(3)
```
"""


def test_blocks_share_their_names_and_hidden_ones_run() -> None:
    names: dict[str, Any] = {}
    for code in blocks(PAGE, "page.md"):
        run(code, names)
    assert names["kept"] == [1, 2, 3]


def test_a_failing_block_is_found_by_its_line_in_the_page() -> None:
    (code,) = blocks("# Title\n\n```python\nx = 1\nunknown\n```\n", "page.md")
    with pytest.raises(NameError) as caught:
        run(code, {})
    assert caught.traceback[-1].lineno == 4
    assert str(caught.traceback[-1].path).endswith("page.md")
