"""The terminal: coloured where somebody looks, plain text everywhere else."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.text import Text

Row = tuple[str, str]
"""A label, and what it labels."""

# Lines longer than this are hard to read, however wide the window is.
_MAX_WIDTH: Final = 100
# Shorter ones are not worth folding.
_MIN_WIDTH: Final = 20
_LABEL_WIDTH: Final = 11


def terminal(*, stderr: bool = False) -> Console:
    """Return where a command writes.

    It is plain text where the output is no terminal, or the variable NO_COLOR is set (https://no-color.org).

    Args:
        stderr: Whether to write to the standard error output.
    """
    console = Console(
        stderr=stderr,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.width = min(console.width, _MAX_WIDTH)
    return console


def printable(text: str) -> str:
    """Return a text that comes from a peer without what could steer the terminal or forge further lines."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def print_line(console: Console, *parts: str | tuple[str, str]) -> None:
    """Print one line, which is never folded.

    Args:
        console: Where to.
        parts: Texts, with or without a style.
    """
    styled = [(part, "") if isinstance(part, str) else part for part in parts]
    console.print(Text.assemble(*((printable(text), style) for text, style in styled)), soft_wrap=True)


def print_text(console: Console, text: str, style: str = "", *, title: tuple[str, str] = ("", "")) -> None:
    """Print a text, folded to the width of the console.

    Args:
        console: Where to.
        text: The text.
        style: How it looks.
        title: What stands in front of it, and how that looks.
    """
    # Folded together, as it takes room on the first line.
    whole = "\n".join(_folded(title[0] + text, console.width))
    parts = (title, (whole.removeprefix(title[0]), style))
    console.print(Text.assemble(*parts), soft_wrap=True)


def print_rows(console: Console, rows: Iterable[Row], style: str = "dim") -> None:
    """Print labels and what they label, indented, each folded to the width of the console.

    Args:
        console: Where to.
        rows: The labels and values.
        style: How the labels look.
    """
    indent = _LABEL_WIDTH + 4
    for label, value in rows:
        text = f"\n{' ' * indent}".join(_folded(value, console.width - indent))
        console.print(Text.assemble((f"  {label:{_LABEL_WIDTH}}  ", style), text), soft_wrap=True)


def _folded(text: str, width: int) -> list[str]:
    # What is longer than a line, such as a fingerprint, stays in one piece: it is there to be copied.
    return textwrap.wrap(
        printable(text), max(width, _MIN_WIDTH), break_on_hyphens=False, break_long_words=False
    )
