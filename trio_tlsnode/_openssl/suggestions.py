"""Suggestions: the known names that somebody may have meant by an unknown one."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean ...?)" with up to three known names, most similar first, or "" if none is."""
    import difflib

    by_lower_case = {candidate.lower(): candidate for candidate in known}
    similar = [by_lower_case[found] for found in difflib.get_close_matches(name.lower(), by_lower_case)]
    return f" (did you mean {' or '.join(similar)}?)" if similar else ""
