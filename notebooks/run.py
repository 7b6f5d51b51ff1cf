"""Runs the notebooks from top to bottom, for ``make notebooks``.

An error or a warning in any of them is a failure.  What they show goes to
``build/notebooks``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib.font_manager  # noqa: F401 - lists the fonts, and would tell so later
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).parent
SHOWN = FOLDER.parent / "build" / "notebooks"
# Seconds for a cell, which takes a second or two.
LONGEST = 120
# All warnings but what matplotlib's backend says of itself.
WARNINGS = "default,ignore:InlineBackend._figure_formats_changed is deprecated"


def run(path: Path) -> list[str]:
    """Run a notebook and keep what it shows; return what is wrong."""
    notebook = nbformat.read(path, as_version=4)
    if any(
        cell.outputs or cell.execution_count
        for cell in notebook.cells
        if cell.cell_type == "code"
    ):
        return ["it has outputs: clear them before it is saved"]
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=LONGEST,
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": folder}},
        )
        try:
            client.execute(env=os.environ | {"PYTHONWARNINGS": WARNINGS})
        except CellExecutionError as error:
            return [str(error)]
    SHOWN.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, SHOWN / path.name)
    return list(warnings(notebook))


def warnings(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """Yield what a notebook has written to the standard error."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "stream" and output.name == "stderr":
                yield f"{output.text}in the cell\n{cell.source}"


def main(names: list[str]) -> int:
    """Run the notebooks of these names, or all; return how many failed."""
    failed = 0
    for path in sorted(FOLDER.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        start = time.perf_counter()
        wrong = run(path)
        failed += bool(wrong)
        seconds = time.perf_counter() - start
        print(
            f"{path.stem}: {'failed' if wrong else 'passed'} in {seconds:.1f} s",
            flush=True,
        )
        print(*wrong, sep="\n\n", end="\n" if wrong else "")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
