"""examples/http_server.py, loaded by curl and by Chromium."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from peers import PATIENCE, running
from sites import NAMES, issued
from test_chromium import load

import trio_tlsnode as tls
from trio_tlsnode.testing import default_authority

pytestmark = [pytest.mark.interop, pytest.mark.feature("G6")]

ROOT = Path(__file__).parent.parent.parent
EXAMPLE: Any = SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / "http_server.py")))
NAME = NAMES[0]
HTTP_VERSIONS = {"--http1.1": "1.1", "--http2": "2"}

in_both_versions_of_http = pytest.mark.parametrize("option", list(HTTP_VERSIONS))


class Site:
    """The example's server, and what is known of its clients.

    Attributes:
        site: The example's site.
        server: Its server.
        port: Where it listens.
        infos: What was negotiated for each request.
    """

    def __init__(self, site: Any, server: tls.TLSServer, infos: list[tls.ConnectionInfo]) -> None:
        self.site = site
        self.server = server
        self.port = server.addresses[0].port
        self.infos = infos


@contextlib.asynccontextmanager
async def serving(respond: Any = EXAMPLE.respond) -> AsyncIterator[Site]:
    """Serve until the end of the block."""
    infos = []

    async def respond_and_tell(request: Any) -> Any:
        infos.append(request.info)
        return await respond(request)

    site = EXAMPLE.Site(respond_and_tell)
    server = site.server(tls.SecureContext(**issued(NAME).options))
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, 0, "127.0.0.1")
            yield Site(site, server, infos)
            nursery.cancel_scope.cancel()


async def curled(
    curl: str, port: int, folder: Path, *options: str | Path, paths: Sequence[str] = ("",)
) -> str:
    """Return what curl says."""
    trusted = folder / "ca.pem"
    trusted.write_bytes(default_authority().ca)
    resolve = ["--noproxy", "*", "--resolve", f"{NAME}:{port}:127.0.0.1"]
    urls = [f"https://{NAME}:{port}/{path}" for path in paths]
    async with running(curl, "-sS", *resolve, "--cacert", trusted, *options, *urls) as process:
        return await process.everything()


@in_both_versions_of_http
async def test_curl_gets_the_page(curl: str, tmp_path: Path, option: str) -> None:
    async with serving() as site:
        said = await curled(curl, site.port, tmp_path, option, "-w", "version %{http_version}")
    protocol = {"--http1.1": "http/1.1", "--http2": "h2"}[option]
    assert f"<th>Protocol<td>{protocol}<" in said
    assert said.endswith(f"version {HTTP_VERSIONS[option]}")
    assert [info.alpn_protocol for info in site.infos] == [protocol]
    assert not site.server.statistics().failed


async def test_curl_gets_the_page_without_alpn(curl: str, tmp_path: Path) -> None:
    async with serving() as site:
        said = await curled(curl, site.port, tmp_path, "--no-alpn", "-w", "version %{http_version}")
    assert "<td>http/1.1, without ALPN<" in said
    assert said.endswith("version 1.1")


@in_both_versions_of_http
async def test_curl_asks_for_several_things_on_one_connection(curl: str, tmp_path: Path, option: str) -> None:
    async with serving() as site:
        asked = ("", "elsewhere", "?")
        said = await curled(
            curl, site.port, tmp_path, option, "-w", "%{http_code} %{num_connects}\n", paths=asked
        )
    assert re.findall(r"^\d+ \d+$", said, re.MULTILINE) == ["200 1", "404 0", "200 0"]
    assert site.server.statistics().accepted == 1


@in_both_versions_of_http
async def test_curl_asks_for_the_head_alone(curl: str, tmp_path: Path, option: str) -> None:
    async with serving() as site:
        said = await curled(curl, site.port, tmp_path, option, "--head")
    assert re.match(rf"HTTP/{HTTP_VERSIONS[option]} 200", said)
    assert re.search(r"^content-length: \d+\s*$", said, re.MULTILINE)
    assert "<html" not in said


@pytest.mark.parametrize("expects", [True, False])
@in_both_versions_of_http
async def test_curl_uploads_what_comes_back(curl: str, tmp_path: Path, option: str, *, expects: bool) -> None:
    body = tmp_path / "body"
    body.write_text("0123456789abcdef" * 4096)
    async with serving() as site:
        options = [option, "--data-binary", f"@{body}"]
        expect = "Expect: 100-continue" if expects else "Expect:"
        said = await curled(curl, site.port, tmp_path, *options, "--header", expect, paths=("echo",))
    assert said == body.read_text()


@pytest.mark.parametrize("expects", [True, False])
@in_both_versions_of_http
async def test_curl_is_told_that_what_it_uploads_is_too_much(
    curl: str, tmp_path: Path, option: str, *, expects: bool
) -> None:
    body = tmp_path / "body"
    body.write_bytes(bytes(2_000_000))
    async with serving() as site:
        options = [option, "--data-binary", f"@{body}", "-w", "%{http_code}\n"]
        expect = "Expect: 100-continue" if expects else "Expect:"
        said = await curled(curl, site.port, tmp_path, *options, "--header", expect, paths=("echo",))
    assert said.startswith("413")
    assert not site.infos


async def test_curl_gets_many_long_things_at_once_on_one_connection(curl: str, tmp_path: Path) -> None:
    async def respond(request: Any) -> Any:
        return EXAMPLE.Response(200, bytes([int(request.target[1:])]) * 500_000)

    numbers = [str(number) for number in range(20)]
    options = ["--http2", "--parallel", "-w", "code %{http_code}\n"]
    for number in numbers:
        options += ["-o", str(tmp_path / number)]
    async with serving(respond) as site:
        said = await curled(curl, site.port, tmp_path, *options, paths=numbers)
    assert said.count("code 200") == len(numbers)
    for number in numbers:
        assert (tmp_path / number).read_bytes() == bytes([int(number)]) * 500_000
    assert site.server.statistics().accepted == 1


async def test_curl_gets_what_it_has_asked_for_from_a_server_that_is_to_end(
    curl: str, tmp_path: Path
) -> None:
    async def respond(request: Any) -> Any:
        site.site.end()
        nursery.start_soon(site.server.aclose)
        return EXAMPLE.Response(200, bytes(1_000_000))

    output = tmp_path / "output"
    async with trio.open_nursery() as nursery, serving(respond) as site:
        said = await curled(curl, site.port, tmp_path, "--http2", "-o", output, "-w", "%{http_code}\n")
    assert (said, output.stat().st_size) == ("200", 1_000_000)


async def test_the_program_serves_curl_and_ends_when_asked_to(curl: str, tmp_path: Path) -> None:
    key, cert = issued(NAME).write_to(tmp_path)
    program = [ROOT / "examples" / "http_server.py", key, cert, "0"]
    with trio.fail_after(PATIENCE):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-W", "error", *map(str, program)],
            cwd=ROOT,
            # As this process has it, be it installed or not.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        async with process.stdout:
            line = b""
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some()
            assert "<td>h2<" in await curled(curl, int(line.split()[-1]), tmp_path, "--http2")
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


# Chromium


async def test_chromium_loads_a_page_and_its_parts_over_one_connection(chromium: str, tmp_path: Path) -> None:
    script = b"document.body.append('part %d;');\n" + b"/" * 100_000

    async def respond(request: Any) -> Any:
        if request.target == "/":
            parts = "".join(f"<script src=/{number}></script>" for number in range(20))
            page = f"<!DOCTYPE html><body>{EXAMPLE.page(request.info)}{parts}"
            return EXAMPLE.Response(200, page.encode(), "text/html; charset=utf-8")
        if request.target == "/favicon.ico":
            return EXAMPLE.Response(404)
        return EXAMPLE.Response(200, script % int(request.target[1:]), "text/javascript")

    async with serving(respond) as site:
        shown = await load(chromium, tmp_path, NAME, site.port, accepting=NAME)
    assert "<td>h2</td>" in shown
    assert re.findall(r"part (\d+);", shown.split("</table>")[1]) == [str(number) for number in range(20)]
    assert len({id(info) for info in site.infos}) == 1
    assert {info.alpn_protocol for info in site.infos} == {"h2"}


async def test_chromium_loads_the_page_over_http1(chromium: str, tmp_path: Path) -> None:
    site = EXAMPLE.Site(EXAMPLE.respond)
    context = tls.SecureContext(**issued(NAME).options)
    server = tls.TLSServer(site.serve, context, alpn_protocols=["http/1.1"], https_compatible=True)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, 0, "127.0.0.1")
            shown = await load(chromium, tmp_path, NAME, server.addresses[0].port, accepting=NAME)
            nursery.cancel_scope.cancel()
    assert "<td>http/1.1</td>" in shown
