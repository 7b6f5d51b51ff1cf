"""The notebooks as they are saved; ``make notebooks`` runs them."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    return "".join(line for line in cell["source"] if not line.startswith("%"))


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) >= 6


@each_notebook
def test_a_notebook_is_saved_without_what_it_shows(path: Path) -> None:
    for cell in cells(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@each_notebook
def test_a_notebook_begins_with_its_title(path: Path) -> None:
    assert source(cells(path, "markdown")[0]).startswith("# ")


@each_notebook
def test_the_code_of_a_notebook_is_python(path: Path) -> None:
    for cell in cells(path, "code"):
        compile(source(cell), path.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
