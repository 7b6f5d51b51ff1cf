"""docs/coming-from-node.md promises nothing that is not there: its rows have tests, and its names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import trio_tlsnode as tls

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "coming-from-node.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([A-G]\d+) \|", PAGE, re.MULTILINE)
# "row | Node.js | here | what differs", or "row | here" where Node.js has nothing like it.
CELLS = [line.strip("|").split("|") for line in PAGE.splitlines() if re.match(r"\| [A-G]\d+ \|", line)]
OURS = [cells[1 if len(cells) == 2 else 2] for cells in CELLS]
NAMES = sorted({name for cell in OURS for name in re.findall(r"`tls\.(\w+)", cell)})
MARKERS = {
    row
    for path in (ROOT / "tests").rglob("test_*.py")
    for arguments in re.findall(r"mark\.feature\(([^)]*)\)", path.read_text(encoding="utf-8"))
    for row in re.findall(r'"([A-G]\d+)"', arguments)
}


def test_a_row_stands_once() -> None:
    assert len(ROWS) == len(set(ROWS)) > 40


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_shown_by_a_test_that_carries_its_name(row: str) -> None:
    assert row in MARKERS


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_of_the_page_exists(name: str) -> None:
    assert hasattr(tls, name)
