"""What this installation can do: the features, the report for bugs, and what an unusable one says."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_tlsnode as tls
from trio_tlsnode._openssl import library

pytestmark = pytest.mark.feature("F14")

PACKAGE = Path(tls.__file__).parent


def test_features_tell_what_is_there_and_cannot_be_changed() -> None:
    assert all(type(there) is bool for there in tls.features.values())
    assert tls.features["tls13"]
    assert tls.features["groups"]
    with pytest.raises(TypeError):
        tls.features["ticket_keys"] = True  # type: ignore[index]


def features_that_are_refused() -> Iterator[str]:
    """Yield the names that ``FeatureUnavailable(..., feature=...)`` has in the source."""
    for path in PACKAGE.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("FeatureUnavailable"):
                for keyword in node.keywords:
                    if keyword.arg == "feature" and isinstance(keyword.value, ast.Constant):
                        yield str(keyword.value.value)


def test_every_feature_that_may_be_refused_is_listed() -> None:
    refused = set(features_that_are_refused())
    assert {"groups", "sigalgs"} <= refused
    assert refused <= tls.features.keys()


def test_every_feature_is_documented() -> None:
    source = (PACKAGE / "_openssl" / "library.py").read_text(encoding="utf-8")
    _, _, documentation = source.partition('"""What the linked OpenSSL can do')
    lines = [line for line in documentation.partition('"""')[0].splitlines() if line.startswith("- ")]
    documented = {name for line in lines for name in line[2:].partition(":")[0].split(", ")}
    assert documented == set(tls.features)


@pytest.mark.parametrize(("feature", "option"), [("groups", "groups"), ("sigalgs", "sigalgs")])
def test_feature_that_is_missing_is_refused_by_its_name(
    feature: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("groups", "ssl_ctx"):
        features = {**tls.features, feature: False}
        monkeypatch.setattr(f"trio_tlsnode._openssl.{module}.features", features)
    with pytest.raises(tls.FeatureUnavailable) as caught:
        tls.SecureContext(**{option: "X25519"})  # type: ignore[arg-type]
    assert caught.value.feature == feature
    assert isinstance(caught.value, NotImplementedError)
    tls.SecureContext()


def test_version_report_names_everything_that_matters() -> None:
    report = tls.version_report()
    lines = report.splitlines()
    assert lines[0] == f"trio_tlsnode {tls.__version__}"
    for package in ("trio", "pyOpenSSL", "cryptography"):
        assert f"{package} {importlib.metadata.version(package)}" in lines
    assert library.openssl_version in lines
    assert f"CPython {platform.python_version()}" in lines or platform.python_version() in report
    assert platform.platform() in lines
    features, missing = lines[-2:]
    listed = {
        *features.removeprefix("features: ").split(", "),
        *missing.removeprefix("missing: ").split(", "),
    }
    assert listed - {"none"} == set(tls.features)


def test_version_report_says_nothing_of_the_machine_s_names() -> None:
    report = tls.version_report()
    assert str(Path.home()) not in report
    assert platform.node() not in report.splitlines()
    assert sys.prefix not in report


# An unusable installation


def import_with(folder: Path, code: str = "") -> str:
    """Import the package in a new process in which a folder goes before all others; return what it says."""
    program = f"{code}\nimport trio_tlsnode"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(PACKAGE.parent)))}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    return run.stderr.splitlines()[-1]


def write_package(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


OLD_PYOPENSSL = """
import sys, types
class Context: pass
SSL = sys.modules["OpenSSL.SSL"] = types.ModuleType("OpenSSL.SSL")
crypto = sys.modules["OpenSSL.crypto"] = types.ModuleType("OpenSSL.crypto")
_util = sys.modules["OpenSSL._util"] = types.ModuleType("OpenSSL._util")
SSL.Context, _util.ffi, _util.lib = Context, None, None
"""


@pytest.mark.parametrize(
    ("package", "code"),
    [
        ("cryptography", "raise ImportError('libssl.so.9: cannot open shared object file')"),
        ("cryptography", ""),
        ("OpenSSL", "raise ImportError('no OpenSSL here')"),
        ("OpenSSL", "raise AttributeError(\"module 'lib' has no attribute 'X509_V_FLAG_NOTIFY_POLICY'\")"),
        ("OpenSSL", OLD_PYOPENSSL),
    ],
    ids=["broken", "empty", "missing", "mismatched", "old"],
)
def test_unusable_packages_are_named_with_their_versions(package: str, code: str, tmp_path: Path) -> None:
    write_package(tmp_path, package, code)
    said = import_with(tmp_path)
    assert said.startswith("ImportError: trio_tlsnode needs pyOpenSSL >= 26.4 and cryptography >= 50")
    assert f"pyOpenSSL {importlib.metadata.version('pyOpenSSL')}" in said
    assert f"cryptography {importlib.metadata.version('cryptography')}" in said
    assert "pip install" in said


def test_package_that_is_not_installed_is_said_to_be_none(tmp_path: Path) -> None:
    hide = """
import importlib.metadata, sys
sys.modules["OpenSSL"] = None
def version(name):
    raise importlib.metadata.PackageNotFoundError(name)
importlib.metadata.version = version
"""
    assert "pyOpenSSL none and cryptography none" in import_with(tmp_path, hide)


def test_import_error_names_its_module(tmp_path: Path) -> None:
    write_package(tmp_path, "OpenSSL", "raise ImportError('no')")
    caught = """
try:
    import trio_tlsnode
except ImportError as error:
    assert error.name == "cryptography", error.name
    assert isinstance(error.__cause__, ImportError)
"""
    assert import_with(tmp_path, caught).startswith("ImportError")
