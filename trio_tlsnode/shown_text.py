"""Text that is shown: on one line, harmless to a terminal whoever has chosen it, and of a known width."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Final

_LONGEST: Final = 240


def printable(text: str) -> str:
    """Return a text from a peer as one line of what is only text to a terminal, and not too long.

    Args:
        text: The text.
    """
    shown = "".join(
        [letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: _LONGEST + 1]]
    )
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number of things ("1 byte", "2,000 bytes").

    Args:
        number: How many.
        noun: What one of them is.
        plural: What more of them are, if that is not `noun` and an "s".
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Return how long something took ("1.250 ms").

    Args:
        seconds: The time.
    """
    return f"{1000 * seconds:,.3f} ms" if seconds < 100 else f"{seconds:,.1f} s"


def columns(text: str) -> int:
    """Return how many columns of a terminal a printable text takes at most.

    Args:
        text: The text.
    """
    return len(text) if text.isascii() else sum(2 if is_wide(letter) else 1 for letter in text)


def is_wide(letter: str) -> bool:
    """Whether a letter takes two columns of a terminal, as Chinese ones do.

    Args:
        letter: The letter.
    """
    return unicodedata.east_asian_width(letter) in ("W", "F")


def wrapped(text: str, width: float, measure: Callable[[str], float]) -> list[str]:
    """Return a text as lines; words that are too long are broken.

    Args:
        text: The text.
        width: How wide a line may be.
        measure: How wide a text is.
    """
    lines = [""]
    for word in text.split(" "):
        line = f"{lines[-1]} {word}" if lines[-1] else word
        if measure(line) <= width:
            lines[-1] = line
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if measure(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines
