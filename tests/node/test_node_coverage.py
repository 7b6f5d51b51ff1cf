"""Every rule of Node.js's own tests that is portable has a test of ours, or an excuse that users can read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_pairs import node_table

ROOT = Path(__file__).parents[2]
ROWS = node_table("behaviours")["rows"]
PAGE = " ".join((ROOT / "docs" / "coming-from-node.md").read_text(encoding="utf-8").split())
PORTABLE = {name: excuse for name, (_, portable, excuse) in ROWS.items() if portable}


def marked() -> Iterator[str]:
    """Yield what stands in ``pytest.mark.node(...)`` anywhere in the tests."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if "mark.node(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.node":
                for argument in node.args:
                    yield str(ast.literal_eval(argument))


MARKED = set(marked())

# The module of each area of the list.
MODULES = {
    "alpn": "alpn",
    "ca-store": "ca_store",
    "cert object": "cert_object",
    "ciphers/versions": "ciphers",
    "client-auth": "client_auth",
    "close/half-close": "closing",
    "connect options": "connect_options",
    "context options": "context_options",
    "error/tlsClientError": "errors",
    "handshake": "handshake",
    "identity": "identity",
    "keylog": "keylog",
    "psk": "psk",
    "renegotiation": "renegotiation",
    "session": "session",
    "sni": "sni",
    "stream/write/backpressure": "stream",
    "ticket": "ticket",
    "timeout": "timeout",
}


def test_each_area_has_its_module() -> None:
    modules = {path.stem for path in Path(__file__).parent.glob("test_node_*.py")} - {Path(__file__).stem}
    assert {f"test_node_{name}" for name in MODULES.values()} == modules
    assert MODULES.keys() == {area for area, _, _ in ROWS.values()}


def test_a_rule_s_test_has_its_name_in_the_id(request: pytest.FixtureRequest) -> None:
    of_this_folder = [item for item in request.session.items if item.path.parent == Path(__file__).parent]
    for item in of_this_folder:
        for marker in item.iter_markers("node"):
            assert all(name in item.nodeid for name in marker.args), item.nodeid


@pytest.mark.parametrize("name", PORTABLE)
def test_a_portable_rule_has_a_test_or_an_excuse(name: str) -> None:
    excuse = PORTABLE[name]
    assert (name in MARKED) is (excuse is None)
    assert excuse is None or excuse in PAGE


def test_markers_name_rules_that_are_listed() -> None:
    assert ROWS.keys() >= MARKED
