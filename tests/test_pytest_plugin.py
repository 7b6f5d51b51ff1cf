"""The fixtures for pytest: docs/pytest.md, run as a test module; nothing is imported that is not used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pytest_trio_tlsnode

pytestmark = pytest.mark.feature("G2")

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "pytest.md").read_text(encoding="utf-8")


def run(folder: Path, *modules: str, plugins: tuple[str, ...] = ("pytest_trio.plugin",)) -> str:
    """Run test modules in a process of their own, with nothing but these plug-ins; return what is told."""
    for number, text in enumerate(modules):
        (folder / f"test_{number}.py").write_text(text, encoding="utf-8")
    loaded = [f"-p{name}" for name in ("pytest_trio_tlsnode", *plugins)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-Werror", "-pno:cacheprovider", *loaded, "."],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
    )
    return done.stdout + done.stderr


def test_the_page_is_a_test_module_that_passes(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    (module,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    output = run(tmp_path, module)
    assert re.search(r"^7 passed in", output, re.MULTILINE), output


def test_the_page_has_every_fixture_and_no_other_and_none_can_collide() -> None:
    fixtures = {name for name in pytest_trio_tlsnode.__all__ if name != "TLSFiles"}
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == fixtures
    assert all(name.startswith("tls_") for name in fixtures)


def test_pytest_finds_it_by_its_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["entry-points"]["pytest11"] == {"trio_tlsnode": "pytest_trio_tlsnode"}
    assert "pytest_trio_tlsnode" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_who_uses_none_of_it_imports_none_of_it(tmp_path: Path) -> None:
    module = """
import sys

def test_nothing_is_imported():
    assert {"trio", "trio_tlsnode", "trustme", "OpenSSL"}.isdisjoint(sys.modules)
"""
    assert re.search(r"^1 passed in", output := run(tmp_path, module, plugins=()), re.MULTILINE), output


def test_a_fixture_of_ones_own_takes_the_place_of_one_of_these(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("""
import pytest
import trio_tlsnode as tls

@pytest.fixture
def tls_server_context(tls_authority):
    return tls.SecureContext(**tls_authority.good("app.test").options)
""")
    module = """
import trio

def test_it_is_used(tls_pair):
    async def main():
        client, _ = await tls_pair(client_options={"host": "app.test"})
        assert client.authorized

    trio.run(main)
"""
    assert re.search(r"^1 passed in", output := run(tmp_path, module), re.MULTILINE), output
