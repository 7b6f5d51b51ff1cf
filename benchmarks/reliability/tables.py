"""Tables: results as Markdown, to be pasted into the documentation."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import trio

import trio_tlsnode as tls


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table under a title; all columns but the first are numbers."""
    lines = [f"**{title}**", ""]
    lines.append(f"| {' | '.join(columns)} |")
    lines.append(f"|{'|'.join(['---', *['--:'] * (len(columns) - 1)])}|")
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines)


def conditions() -> str:
    """Return on what machine, and with which versions, something was measured, as one line."""
    openssl = next(line for line in tls.version_report().splitlines() if line.startswith("OpenSSL"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {_processor()}, {len(os.sched_getaffinity(0))} cores, load "
        f"{os.getloadavg()[0]:.1f}, CPython {sys.version.split()[0]}, Trio {trio.__version__}, "
        f"{' '.join(openssl.split()[:2])}, {platform.system()} {platform.release()}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def milliseconds(seconds: float) -> str:
    """Return a time in milliseconds."""
    return f"{seconds * 1e3:.1f}"
