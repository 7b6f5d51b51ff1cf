"""html_table: named facts as the HTML table that a notebook shows.

All text is escaped, as much of it comes from peers.  The table has the page's own colours, light or dark, and
every style is its own: those of notebooks align cells to the right and stripe rows.
"""

from __future__ import annotations

import dataclasses
import enum
import html
from collections.abc import Iterable, Mapping
from typing import Final, Literal

Tone = Literal["plain", "good", "bad"]
"""What the colour of a badge says."""

# White letters can be read on these, and these can be told from white and from black.
_TONES: Final = {"plain": "#6b7280", "good": "#047857", "bad": "#c02a2f"}
_LINE: Final = "1px solid rgba(128, 128, 128, .25)"
_CODE: Final = "font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .92em"
_TABLE: Final = (
    "border: none; border-collapse: collapse; table-layout: auto; color: inherit; background: none; "
    "font-size: 13px; margin: .8em 0 1.2em; width: auto; max-width: 62em"
)
_CAPTION: Final = (
    "caption-side: top; text-align: left; color: inherit; font-size: 14px; font-weight: 600; "
    "padding: 0 0 .4em"
)
_BADGE: Final = (
    "color: #fff; font-size: 11.5px; font-weight: 700; letter-spacing: .02em; border-radius: 1em; "
    "padding: .25em .8em; margin-left: .7em"
)
_DIM: Final = "opacity: .75"
_ROW: Final = "background: none; border: none"
_CELL: Final = (
    f"text-align: left; vertical-align: top; border: none; border-top: {_LINE}; background: none; "
    "color: inherit; line-height: 1.45"
)
# A name stays in one piece; a fingerprint may be broken anywhere.
_NAME: Final = f"{_CELL}; padding: .3em 1.6em .3em 0; font-weight: 400; white-space: nowrap; {_CODE}"
_FACT: Final = f"{_CELL}; padding: .3em 0; max-width: none; overflow-wrap: anywhere; white-space: normal"
# A line that is too long goes on further to the right.
_PART: Final = "padding-left: 1em; text-indent: -1em"
# The longest lists that clients send in earnest have some seventy items.
_MOST_ITEMS: Final = 100


def html_table(
    title: str,
    facts: Mapping[str, object] | Iterable[tuple[str, object]],
    *,
    badge: str = "",
    tone: Tone = "plain",
) -> str:
    """Return facts as an HTML table.  What is None or empty is left out.

    A fact that has a line of its own, by a method ``_html_line_``, is shown as that; of a tuple each part has
    a line, and of a mapping each item.

    Args:
        title: What the facts are of.
        facts: The facts and their names.
        badge: What is to be seen first, if anything.
        tone: What its colour says.
    """
    pairs = facts.items() if isinstance(facts, Mapping) else facts
    rows = [
        f'<tr style="{_ROW}"><th scope="row" style="{_NAME}"><span style="{_DIM}">{_text(name)}</span></th>'
        f'<td style="{_FACT}">{_cell(fact)}</td></tr>'
        for name, fact in pairs
        if fact is not None and (not isinstance(fact, (str, tuple, Mapping)) or fact)
    ]
    shown = badge and f'<span style="{_BADGE}; background: {_TONES[tone]}">{_text(badge)}</span>'
    return (
        f'<table style="{_TABLE}"><caption style="{_CAPTION}">{_text(title)}{shown}</caption>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def html_fields(value: object) -> str:
    """Return the fields of a dataclass as an HTML table.

    Args:
        value: The dataclass.
    """
    assert dataclasses.is_dataclass(value)
    facts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return html_table(type(value).__name__, facts)


def html_line(text: str, more: str = "", *, code: str = "") -> str:
    """Return one line of a table.

    Args:
        text: What it says.
        more: What it says besides, in a paler colour.
        code: What stands before it as it does in a program.
    """
    before = code and f'<span style="{_CODE}; font-weight: 600">{_text(code)}</span> '
    after = more and f'<span style="{_DIM}">, {_text(more)}</span>'
    return f"{before}{_text(text)}{after}"


def few(items: Iterable[object]) -> str:
    """Return a list as text, without its end if it is very long.

    Args:
        items: What is in it.
    """
    texts = [str(item) for item in items]
    more = len(texts) - _MOST_ITEMS
    return ", ".join(texts[:_MOST_ITEMS]) + (f" and {more} more" if more > 0 else "")


def _cell(fact: object) -> str:
    if type(fact) is tuple:  # and not a named tuple, which knows how it is written
        return _parts([_line(part) for part in fact])
    if isinstance(fact, Mapping):
        return _parts([f"{_line(name)}: {_line(value)}" for name, value in fact.items()])
    return _line(fact)


def _parts(lines: Iterable[str]) -> str:
    return "".join([f'<div style="{_PART}">{line}</div>' for line in lines])


def _line(fact: object) -> str:
    line = getattr(fact, "_html_line_", None)
    return _text(fact) if line is None else str(line())


def _text(fact: object) -> str:
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    text = fact.name if isinstance(fact, enum.Enum) else str(fact)
    # What cannot be printed might turn the text around that follows it.
    return html.escape("".join([letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text]))
