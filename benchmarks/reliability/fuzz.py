"""Fuzz: looks for bytes that break a promise, guided by the coverage of this package's code.

Each target of `hostile` runs in a process of its own, under atheris, from what is known already.  With
``--keep``, what reaches something new is added to the corpus; what breaks a promise is kept in any case.
"""

from __future__ import annotations

import importlib.util
import math
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from . import corpus
from .tables import table

_ROOT = Path(__file__).parents[2]
# Nothing that is judged takes a tenth of it.
_SECONDS_FOR_ONE = 30
_MOST_MEMORY = 2048  # MiB
_LONGEST_INPUT = 4096
# What libFuzzer prints whether it finds anything or not, and the input, which is in a file.
_CHATTER = (
    "INFO: ",
    "#",
    "\tNEW_FUNC",
    "MERGE-OUTER: ",
    "WARNING: Failed to find",
    "MS: ",
    "0x",
    "\\",
    "Base64: ",
)
_DONE = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+)")
_LAST = re.compile(r"#(\d+)\s.*? cov: (\d+)")


class FuzzerFailedError(Exception):
    """The fuzzer itself has ended, over no input."""


class Result(NamedTuple):
    """What became of one target.

    Attributes:
        target: Its name.
        inputs: How many were tried.
        coverage: How many branches of this package's code were reached.
        corpus: How many inputs reach something of their own.
        found: Where the input is that has broken a promise, or None.
        report: What the fuzzer has printed of it.
    """

    target: str
    inputs: int
    coverage: int
    corpus: int
    found: Path | None
    report: str


def missing() -> str | None:
    """Return what the fuzzer lacks, in words, or None."""
    if importlib.util.find_spec("atheris") is None:
        return (
            "fuzzing needs atheris, which there is for Linux on x86-64: "
            "python -m pip install --editable '.[fuzz]'"
        )
    return None


def fuzz(target: str, seconds: float, *, keep: bool, folder: Path = corpus.HOSTILE) -> Result:
    """Fuzz one target for so many seconds, or until it breaks a promise.

    Args:
        target: Its name in `hostile.TARGETS`.
        seconds: How long; at least one.
        keep: Whether the corpus is replaced by the new, smallest one.
        folder: Where the corpus is.

    Raises:
        FuzzerFailedError: it was not an input that the fuzzer has ended over.
    """
    with tempfile.TemporaryDirectory() as directory:
        known, crashes, smallest = (Path(directory) / name for name in ("known", "crashes", "smallest"))
        for each in (known, crashes, smallest):
            each.mkdir()
        for number, data in enumerate([*corpus.seeds(target), *corpus.kept(target, folder)]):
            (known / f"{number:06}").write_bytes(data)
        command = _command(target, Path(directory) / "command")
        done = _run(
            command, known, f"-max_total_time={max(math.ceil(seconds), 1)}", f"-artifact_prefix={crashes}/"
        )
        inputs, coverage = _progress(done.stdout)
        # What took long is written down too, and says more of the machine.
        for crash in sorted(path for path in crashes.iterdir() if not path.name.startswith("slow-unit")):
            path = corpus.keep_found(target, crash.read_bytes(), folder)
            return Result(target, inputs, coverage, len(list(known.iterdir())), path, _said(done))
        _check(done)
        _check(_run(command, smallest, known, "-merge=1"))
        if keep:
            corpus.keep(target, (path.read_bytes() for path in smallest.iterdir()), folder)
        return Result(target, inputs, coverage, len(list(smallest.iterdir())), None, "")


def _command(target: str, path: Path) -> Path:
    """Write the command that runs the fuzzer: libFuzzer starts itself again, and knows no other way."""
    words = [sys.executable, "-m", "benchmarks.reliability.fuzz_worker"]
    path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$0" {shlex.quote(target)} "$@"\n')
    path.chmod(0o700)
    return path


def _run(command: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    limits = (
        f"-timeout={_SECONDS_FOR_ONE}",
        f"-rss_limit_mb={_MOST_MEMORY}",
        f"-max_len={_LONGEST_INPUT}",
        "-len_control=0",
    )
    return subprocess.run(
        [command, *map(str, arguments), *limits],
        check=False,
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        # One writes the traceback, the other where it has got to.
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith(_CHATTER))


def _check(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise FuzzerFailedError(f"the fuzzer ended with the status {done.returncode}:\n{_said(done)}")


def _progress(output: str) -> tuple[int, int]:
    """Return how many inputs were tried, and what was covered, of what libFuzzer has printed."""
    match = _DONE.search(output) or [*_LAST.finditer(output), None][-2:][0]
    return (int(match[1]), int(match[2])) if match is not None else (0, 0)


def report(results: list[Result], seconds: float) -> str:
    """Return the results as Markdown."""
    rows = [
        (
            result.target,
            f"{result.inputs:,}",
            f"{result.coverage:,}",
            f"{result.corpus:,}",
            "no" if result.found is None else f"`{result.found.name}`",
        )
        for result in results
    ]
    title = f"Fuzzed for {seconds:,.0f} s each"
    return table(title, ("target", "inputs", "branches reached", "corpus", "has broken a promise"), rows)
