"""The public names: all there, all documented, and nothing public besides them."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

import trio_tlsnode

PACKAGES = ["trio_tlsnode", "trio_tlsnode.testing"]


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def documented(package: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield this package's public classes and functions, and the classes' public members."""
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value):
            yield name, value
            for member_name, member in public_members(value).items():
                yield f"{name}.{member_name}", member
        elif inspect.isroutine(value):
            yield name, value


def public_members(cls: type) -> dict[str, Any]:
    """Return the functions and properties that a class has from this project, its own or inherited."""
    members: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("trio_tlsnode"):
            for name, value in vars(base).items():
                function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
                is_member = inspect.isfunction(function) or isinstance(
                    function, (property, functools.cached_property)
                )
                if is_member and not name.startswith("_"):
                    members[name] = function
    return members


def has_docstring(value: Any) -> bool:
    """Whether somebody wrote one: dataclasses and named tuples make up their own, which says their fields."""
    text = (value.__doc__ or "").strip()
    return bool(text) and not (inspect.isclass(value) and text.startswith(f"{value.__name__}("))


def undescribed_parameters(function: Callable[..., Any]) -> list[str]:
    """Return the parameters that the docstring's Args section does not name."""
    section = re.search(r"^ *Args:\n((?: {4,}.*\n|\n)*)", f"{inspect.getdoc(function)}\n", re.MULTILINE)
    described = set(re.findall(r"\w+", section[1])) if section else set()
    return [
        name for name in inspect.signature(function).parameters if name not in {"self", "cls", *described}
    ]


def test_every_public_name_is_there_once(package: ModuleType) -> None:
    assert len(package.__all__) == len(set(package.__all__))
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_no_public_name_is_a_modules_that_is_loaded_later() -> None:
    # Loading the module would put it in the name's place.
    later = trio_tlsnode._LATER
    assert later.keys().isdisjoint(later.values())
    assert later.keys() <= set(trio_tlsnode.__all__)


def test_nothing_else_is_public(package: ModuleType) -> None:
    own_modules = {
        name
        for name, value in vars(package).items()
        if isinstance(value, ModuleType) and value.__name__ == f"{package.__name__}.{name}"
    }
    public = {name for name in dir(package) if not name.startswith("_")}
    # `annotations` is what `from __future__ import annotations` leaves behind.
    assert public - own_modules - {*package.__all__, "annotations"} == set()


def test_every_public_class_function_and_member_has_a_docstring(package: ModuleType) -> None:
    assert [name for name, value in documented(package) if not has_docstring(value)] == []


def test_every_parameter_of_a_public_function_is_described_under_args(package: ModuleType) -> None:
    found = [
        f"{name}: {', '.join(missing)}"
        for name, value in documented(package)
        if inspect.isroutine(value) and (missing := undescribed_parameters(value))
    ]
    assert not found, "\n".join(found)
