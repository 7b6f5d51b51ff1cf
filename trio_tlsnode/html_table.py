"""html_table: named facts as the HTML table that a notebook shows."""

from __future__ import annotations

import enum
import html
from collections.abc import Mapping

# Notebooks align cells to the right.  A name stays in one piece; a fingerprint may be broken anywhere.
_NAME = "text-align: left; vertical-align: top; white-space: nowrap"
_FACT = "text-align: left; vertical-align: top; overflow-wrap: anywhere"


def html_table(title: str, facts: Mapping[str, object]) -> str:
    """Return facts as an HTML table.  What is None or empty is left out.

    All text is escaped, as much of it comes from peers.  A fact that has an HTML form of its own stands in
    its cell in that form.

    Args:
        title: What the facts are of.
        facts: The facts by name; the parts of a tuple stand one below the other.
    """
    rows = [
        f'<tr><th style="{_NAME}">{html.escape(name)}</th><td style="{_FACT}">{_cell(fact)}</td></tr>'
        for name, fact in facts.items()
        if fact is not None and fact not in ("", ())
    ]
    return f"<table><caption>{html.escape(title)}</caption>{''.join(rows)}</table>"


def _cell(fact: object) -> str:
    if type(fact) is tuple:  # and not a named tuple, which knows how it is written
        return "<br>".join([_text(part) for part in fact])
    form = getattr(fact, "_repr_html_", None)
    return _text(fact) if form is None else form()


def _text(fact: object) -> str:
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    return html.escape(fact.name if isinstance(fact, enum.Enum) else str(fact))
