"""What all test modules share: the foreign peers, and how hypothesis runs."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from cryptography.hazmat.backends.openssl import backend
from hypothesis import settings

FOREIGN_PEERS = {
    "node": "--version",
    "openssl": "version",
    "curl": "--version",
    "chromium": "--version",
    "tshark": "--version",
    "aiosmtpd": "--version",
}

# The same examples each time: a failure in one run is a failure in every run.
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")


def pytest_report_header() -> list[str]:
    versions = [f"linked: {backend.openssl_version_text()}"]
    for name, option in FOREIGN_PEERS.items():
        path = shutil.which(name)
        if path is None:
            versions.append(f"{name}: not on the PATH")
        else:
            output = subprocess.run([path, option], capture_output=True, text=True, check=False).stdout
            versions.append(f"{name}: {output.partition(os.linesep)[0].partition(' (')[0]}")
    return versions


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not FOREIGN_PEERS.keys().isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("interop")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Put the names of Node.js's own tests whose rule a test shows in front of its id.

    ``pytest -k test-tls-close-notify.js`` runs what shows the rule of that test.
    """
    markers = reversed(list(metafunc.definition.iter_markers("node")))
    names = "+".join(name for marker in markers for name in marker.args)
    if names:
        metafunc.fixturenames.append("node_test")
        metafunc.parametrize("node_test", [names], ids=[names], indirect=True)


@pytest.fixture
def node_test(request: pytest.FixtureRequest) -> object:
    """The tests of Node.js's own that stand in the id."""
    return request.param


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node.js."""
    return _foreign_peer("node")


@pytest.fixture(scope="session")
def openssl() -> str:
    """The path of the openssl command."""
    return _foreign_peer("openssl")


@pytest.fixture(scope="session")
def curl() -> str:
    """The path of curl."""
    return _foreign_peer("curl")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium."""
    return _foreign_peer("chromium")


@pytest.fixture(scope="session")
def tshark() -> str:
    """The path of tshark."""
    return _foreign_peer("tshark")


@pytest.fixture(scope="session")
def aiosmtpd() -> str:
    """The path of aiosmtpd."""
    return _foreign_peer("aiosmtpd")


def _foreign_peer(name: str) -> str:
    path = shutil.which(name)
    if path is not None:
        return path
    reason = f"{name} is not on the PATH"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI=true requires it")
    pytest.skip(reason)
