"""The import rule, walked over the syntax trees; its tables are those of docs/design.md."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "trio_tlsnode"


@dataclasses.dataclass(frozen=True)
class Rule:
    """What docs/design.md says.

    Attributes:
        layers: The layer of each module; a package below the top is one module.
        siblings: The modules of its own layer that a module imports.
        foreign: For each foreign import the layer from which it is allowed, or None, and the modules that
            may besides.
    """

    layers: dict[str, int]
    siblings: dict[str, set[str]]
    foreign: dict[str, tuple[int | None, set[str]]]


@dataclasses.dataclass(frozen=True)
class Import:
    """One name that a module imports, in full, and where.

    Attributes:
        module: The importing module, as the table calls it.
        name: What is imported: "trio_tlsnode.errors.TLSError", "trio.abc".
        where: File and line.
    """

    module: str
    name: str
    where: str


def read_rule(page: str) -> Rule:
    layers: dict[str, int] = {}
    siblings: dict[str, set[str]] = {}
    for row in _rows(page, "Module"):
        (module,) = _names(row[0])
        assert module not in layers, f"docs/design.md has two rows for {module}"
        layers[module] = int(row[1])
        siblings[module] = _names(row[2])
    foreign: dict[str, tuple[int | None, set[str]]] = {}
    for row in _rows(page, "Foreign import"):
        from_layer = re.search(r"layer (\d+) up", row[1])
        for name in _names(row[0]):
            foreign[name] = (int(from_layer[1]) if from_layer else None, _names(row[1]))
    return Rule(layers, siblings, foreign)


def _rows(page: str, first_heading: str) -> list[list[str]]:
    """Return the cells of the one table whose first column has this heading."""
    (table,) = re.findall(rf"^\| {first_heading} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def _names(cell: str) -> set[str]:
    return set(re.findall(r"`([\w.]+)`", cell))


def modules(package: Path) -> set[str]:
    return {
        path.stem
        for path in package.iterdir()
        if path.suffix == ".py" or (path.is_dir() and any(path.glob("**/*.py")))
    }


def imports(package: Path) -> Iterator[Import]:
    for path in sorted(package.glob("**/*.py")):
        relative = path.relative_to(package)
        containers = (package.name, *relative.parts[:-1])
        for node in _run_time_nodes(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{package.name}/{relative}:{getattr(node, 'lineno', 0)}"
            for name in _imported_names(node, containers):
                yield Import(Path(relative.parts[0]).stem, name, where)


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes below this one, functions' too, except those that only type checkers see."""
    children: list[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
        children = list(node.orelse)
    for child in children:
        yield child
        yield from _run_time_nodes(child)


def _imported_names(node: ast.AST, containers: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        base = containers[: len(containers) + 1 - node.level] if node.level else ()
        start = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            yield f"{start}.{alias.name}"


def violations(package: Path, rule: Rule) -> list[str]:
    found: list[str] = []
    present = modules(package)
    found += [f"docs/design.md has no row for {module}" for module in sorted(present - rule.layers.keys())]
    found += [
        f"docs/design.md has a row for {module}, which is not there"
        for module in sorted(rule.layers.keys() - present)
    ]
    unused = {(module, sibling) for module, siblings in rule.siblings.items() for sibling in siblings}
    for imported in imports(package):
        module, (top, _, rest) = imported.module, imported.name.partition(".")
        if module not in rule.layers or top in sys.stdlib_module_names:
            continue
        if top != package.name:
            refusal = _foreign_refusal(module, imported.name, rule)
        else:
            first = rest.partition(".")[0]
            target = first if first in present else "__init__"
            unused.discard((module, target))
            refusal = _own_refusal(module, target, rule)
        if refusal:
            found.append(f"{imported.where}: {module} imports {imported.name}: {refusal}")
    found += [
        f"docs/design.md lets {module} import {sibling}, which it does not"
        for module, sibling in sorted(unused)
    ]
    return found


def _foreign_refusal(module: str, name: str, rule: Rule) -> str:
    matching = [entry for entry in rule.foreign if f"{name}.".startswith(f"{entry}.")]
    if not matching:
        return "docs/design.md does not list this foreign import"
    entry = max(matching, key=len)
    from_layer, besides = rule.foreign[entry]
    if module in besides or (from_layer is not None and rule.layers[module] >= from_layer):
        return ""
    return f"docs/design.md keeps {entry} from layer {rule.layers[module]}"


def _own_refusal(module: str, target: str, rule: Rule) -> str:
    if target == module or target in rule.siblings[module] or target not in rule.layers:
        return ""
    layer, below = rule.layers[module], rule.layers[target]
    return "" if below < layer else f"layer {layer} may not import layer {below}"


def test_the_package_keeps_the_import_rule() -> None:
    rule = read_rule((ROOT / "docs" / "design.md").read_text(encoding="utf-8"))
    found = violations(ROOT / PACKAGE, rule)
    assert not found, "\n".join(found)


TOY_PAGE = """
| Module | Layer | Imports of its own layer |
|---|---|---|
| `errors` | 0 | `alerts` |
| `alerts` | 0 | |
| `seam` | 2 | |
| `stream` | 5 | |

| Foreign import | Allowed in |
|---|---|
| `trio` | layer 5 up; `errors` |
| `cryptography` | layer 1 up |
| `OpenSSL`, `cryptography.hazmat.bindings` | `seam` |
"""
TOY_PACKAGE = {
    "errors.py": "import trio\nfrom .alerts import Alert\n",
    "alerts.py": "import enum\n",
    "seam/__init__.py": "from OpenSSL import SSL\nfrom ..errors import TLSError\n",
    "seam/verbs.py": "from . import ciphers\nimport toy.seam\nfrom cryptography.hazmat import bindings\n",
    "stream.py": "from typing import TYPE_CHECKING\nimport trio.abc\nfrom . import seam\n",
}


def toy_violations(folder: Path, **changed: str) -> list[str]:
    for name, source in (TOY_PACKAGE | {f"{module}.py": text for module, text in changed.items()}).items():
        path = folder / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return violations(folder / "toy", read_rule(TOY_PAGE))


def test_a_package_that_keeps_the_rule_passes(tmp_path: Path) -> None:
    assert toy_violations(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("from .stream import x", "imports toy.stream.x: layer 0 may not import layer 5"),
        ("from . import seam", "imports toy.seam: layer 0 may not import layer 2"),
        ("import toy.errors", "imports toy.errors: layer 0 may not import layer 0"),
        ("import trio", "imports trio: docs/design.md keeps trio from layer 0"),
        ("from trio.abc import Stream", "imports trio.abc.Stream: docs/design.md keeps trio from layer 0"),
        (
            "from cryptography import x509",
            "imports cryptography.x509: docs/design.md keeps cryptography from layer 0",
        ),
        ("import click", "imports click: docs/design.md does not list this foreign import"),
        ("def late():\n    import trio", "imports trio: docs/design.md keeps trio from layer 0"),
        (
            "if TYPE_CHECKING:\n    pass\nelse:\n    import trio",
            "imports trio: docs/design.md keeps trio from layer 0",
        ),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, line: str, complaint: str) -> None:
    (found,) = toy_violations(tmp_path, alerts=line)
    assert found.endswith(f"alerts {complaint}")


@pytest.mark.parametrize("name", ["OpenSSL", "OpenSSL.SSL", "cryptography.hazmat.bindings._rust"])
def test_only_the_seam_imports_openssl_however_high_the_layer(tmp_path: Path, name: str) -> None:
    (found,) = toy_violations(tmp_path, stream=f"import {name}")
    assert f"stream imports {name}" in found


@pytest.mark.parametrize("condition", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_imports_for_type_checkers_do_not_count(tmp_path: Path, condition: str) -> None:
    assert (
        toy_violations(tmp_path, alerts=f"if {condition}:\n    from .stream import Stream\n    import trio")
        == []
    )


def test_a_module_without_a_row_is_found(tmp_path: Path) -> None:
    assert toy_violations(tmp_path, extra="") == ["docs/design.md has no row for extra"]


def test_a_row_without_a_module_is_found(tmp_path: Path) -> None:
    toy_violations(tmp_path)
    (tmp_path / "toy" / "stream.py").unlink()
    assert violations(tmp_path / "toy", read_rule(TOY_PAGE)) == [
        "docs/design.md has a row for stream, which is not there"
    ]


def test_a_permission_that_nobody_uses_is_found(tmp_path: Path) -> None:
    assert toy_violations(tmp_path, errors="") == [
        "docs/design.md lets errors import alerts, which it does not"
    ]
