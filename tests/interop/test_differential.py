"""One list of scenarios, by Node.js and by us: both do the same, or what the docs explain."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from differential import SCENARIOS, TABLE, Outcome, run_node, run_ours

# Of each scenario with a difference: its reason, and what is different as a pair of Node's and ours.
KNOWN: dict[str, dict[str, Any]] = TABLE["differences"]
# What Node.js, or the OpenSSL that it comes with, calls otherwise in other versions.
SPELLINGS: dict[str, list[str]] = TABLE["spellings"]
PAGE = Path(__file__).parents[2] / "docs" / "coming-from-node.md"


@pytest.fixture(scope="module")
def theirs(node: str) -> dict[str, Outcome]:
    """What came out of each scenario with Node.js on both sides; all run in one process."""
    return run_node(node)


def facts(outcome: Outcome) -> dict[str, Any]:
    """Return what is known of an outcome by the side and the name of each fact."""
    found = {} if "keylog" not in outcome else {"keylog": outcome["keylog"]}
    for side in ("client", "server"):
        result = dict(outcome[side] or {})
        found |= {f"{side}.{name}": fact for name, fact in (result.pop("facts", {}) | result).items()}
    return found


def same(node: Any, ours: Any) -> bool:
    if isinstance(node, list) and isinstance(ours, list):
        return len(node) == len(ours) and all(map(same, node, ours))
    if isinstance(node, str) and isinstance(ours, str):
        event, _, code = node.rpartition(" ")
        return ours in (node, *(f"{event} {other}".strip() for other in SPELLINGS.get(code, [])))
    return bool(node == ours)


@pytest.mark.interop
@pytest.mark.parametrize("name", SCENARIOS)
async def test_both_do_the_same_or_what_the_docs_explain(name: str, theirs: dict[str, Outcome]) -> None:
    node, ours = facts(theirs[name]), facts(await run_ours(SCENARIOS[name]))
    # Where a connection has not become secure, its events say so, and there is no more to compare.
    different = {
        fact: [node[fact], ours[fact]]
        for fact in node.keys() & ours.keys()
        if not same(node[fact], ours[fact])
    }
    known = {fact: pair for fact, pair in KNOWN.get(name, {}).items() if fact != "because"}
    assert different == known


def situations() -> list[str]:
    """Return what the docs' table of differences is about."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition("## Different on purpose\n")
    rows = re.findall(r"^\| (.+?) \|", section.partition("\n## ")[0], re.MULTILINE)
    return [row for row in rows if row not in ("situation", "---")]


@pytest.mark.parametrize("name", KNOWN)
def test_a_difference_is_explained_in_the_docs(name: str) -> None:
    assert KNOWN[name]["because"] in situations()
    assert len(KNOWN[name]) > 1


def test_differences_are_of_scenarios_that_there_are() -> None:
    assert KNOWN.keys() <= SCENARIOS.keys()


def test_the_docs_have_each_difference_once() -> None:
    assert [situation for situation, count in Counter(situations()).items() if count > 1] == []


def test_scenarios_are_of_all_areas() -> None:
    assert len(SCENARIOS) >= 60
    assert all(len(rows) > 1 for rows in TABLE["scenarios"].values())
