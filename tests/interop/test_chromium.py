"""Chromium and our servers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio
from peers import PATIENCE, in_both_versions, only
from sites import NAMES, page, pin, two_sites

import trio_tlsnode as tls

# Whatever it looks up is this machine, so that nothing is asked of the network.
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
    *("--disable-breakpad", "--no-proxy-server", "--host-resolver-rules=MAP * 127.0.0.1"),
)


@contextlib.asynccontextmanager
async def running(command: list[str], folder: Path) -> AsyncIterator[trio.Process]:
    """Run a command that starts processes of its own; they are killed with it."""
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()


async def load(chromium: str, folder: Path, name: str, port: int, *, accepting: str) -> str:
    """Return the page that Chromium shows for a name.

    Args:
        chromium: Its path.
        folder: For its profile.
        name: The name.
        port: Where the server listens.
        accepting: The site whose certificate it accepts, and no other.
    """
    command = [
        *(chromium, *SWITCHES, f"--user-data-dir={folder}/profile"),
        *(f"--ignore-certificate-errors-spki-list={pin(accepting)}", "--dump-dom", f"https://{name}:{port}/"),
    ]
    shown = b""
    with trio.fail_after(PATIENCE):
        async with running(command, folder) as process:
            assert process.stdout is not None
            async for data in process.stdout:
                shown += data
            await process.wait()
    return shown.decode()


@pytest.mark.feature("B10")
@pytest.mark.feature("B11")
@pytest.mark.feature("C3")
@in_both_versions
async def test_it_loads_a_page_by_two_names_with_two_certificates_over_one_port(
    chromium: str, tmp_path: Path, version: str
) -> None:
    pages = {}

    async def load_own(name: str, port: int) -> None:
        folder = tmp_path / name
        folder.mkdir()
        pages[name] = await load(chromium, folder, name, port, accepting=name)

    async with two_sites(**only(version)) as sites:
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                nursery.start_soon(load_own, name, sites.port)
    for name in NAMES:
        assert page(name) in pages[name]
    assert {info.server_name for info in sites.infos} == set(NAMES)
    assert {(info.protocol, info.alpn_protocol) for info in sites.infos} == {(version, "http/1.1")}


@pytest.mark.feature("F9")
async def test_it_is_asked_for_another_key_share(chromium: str, tmp_path: Path) -> None:
    async with two_sites(groups="P-384") as sites:
        shown = await load(chromium, tmp_path, NAMES[1], sites.port, accepting=NAMES[1])
    assert page(NAMES[1]) in shown
    assert {info.server_name for info in sites.infos} == {NAMES[1]}


@pytest.mark.feature("B6")
async def test_it_refuses_the_certificate_of_the_other_name(chromium: str, tmp_path: Path) -> None:
    async with two_sites() as sites:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(load, chromium, tmp_path, NAMES[1], sites.port, accepting=NAMES[0]))
            error = await sites.failure()
    assert isinstance(error, tls.PeerAlert)
    assert error.code == "ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN"
    assert error.server_name == NAMES[1]
    assert sites.infos == []
