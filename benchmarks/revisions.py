"""Revisions: two commits of this package as contenders of one run."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import tarfile
from pathlib import Path

from .contenders import CONTENDERS, OURS, Contender

_REPOSITORY = Path(__file__).parents[1]


class RevisionError(Exception):
    """Git does not know the revision, or there is no repository; its own words are the text."""


def contender(role: str, revision: str, folder: Path) -> Contender:
    """Put the package as it was at a revision in a folder.

    Args:
        role: What it is called in the results, beside the revision.
        revision: The commit, in any form that Git knows.
        folder: Where to; is made.

    Returns:
        The contender that is the package from there, measured by the benchmarks from here.

    Raises:
        RevisionError: there is no such revision.
    """
    short = _git("rev-parse", "--short", "--verify", f"{revision}^{{commit}}").decode().strip()
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", short, "trio_tlsnode"))) as archive:
        archive.extractall(folder, filter="data")
    name = revision if revision == short else f"{revision} ({short})"
    return dataclasses.replace(CONTENDERS[OURS], name=f"{role}: {name}", source=folder)


def _git(*arguments: str) -> bytes:
    finished = subprocess.run(["git", "-C", str(_REPOSITORY), *arguments], capture_output=True, check=False)
    if finished.returncode:
        complaint = finished.stderr.decode(errors="replace").strip()
        raise RevisionError(f"git {' '.join(arguments)}: {complaint}")
    return finished.stdout
