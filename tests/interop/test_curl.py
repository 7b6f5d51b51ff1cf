"""curl against ``tlsnode serve --http``, each in a process of its own, and against two sites of ours."""

from __future__ import annotations

import contextlib
import shlex
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import pytest
from peers import in_both_versions, only, running
from sites import NAMES, page, two_sites

from trio_tlsnode.testing import default_authority

pytestmark = pytest.mark.feature("G5")

ROOT = Path(__file__).parent.parent.parent


class PageServer:
    """``tlsnode serve --http``, which has told where it is.

    Attributes:
        url: Where it is.
        options: What curl needs to trust it.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._asked = False
        _, program, self.url, *self.options = shlex.split(self.line_with("Try: "))
        assert program == "curl"

    def line_with(self, text: str) -> str:
        """Wait for the next line with a text, and return it."""
        output: IO[str] = self._process.stdout  # type: ignore[assignment]  # a pipe was asked for
        said = []
        for line in output:
            if text in line:
                return line.rstrip("\n")
            said.append(line)
        raise AssertionError(f"{text!r} was not said after:\n" + "".join(said))

    def ask_to_end(self) -> None:
        """Send SIGTERM; only once, as a second one ends it at once."""
        if not self._asked:
            self._asked = True
            self._process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def page_server(folder: Path) -> Iterator[PageServer]:
    """Run the server on a free port, and have it end."""
    command = [sys.executable, "-m", "trio_tlsnode.cli", "serve", "--http", "--port", "0", "--authority"]
    with subprocess.Popen(
        [*command, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            server = PageServer(process)
            yield server
            server.ask_to_end()
            process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    with page_server(tmp_path_factory.mktemp("authority")) as running:
        yield running


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)


def test_it_gets_the_page_by_the_command_that_is_told(curl: str, server: PageServer) -> None:
    done = run(curl, "-sSi", server.url, *server.options)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("HTTP/1.1 200 OK\n")
    assert "\nALPN         http/1.1\n" in done.stdout
    assert server.line_with("TLSv1.3").endswith(", ALPN http/1.1")


def test_it_sends_two_requests_on_one_connection(curl: str, server: PageServer) -> None:
    connects = ["--write-out", "connects: %{num_connects}\n"]
    done = run(curl, "-sS", *connects, f"{server.url}first", f"{server.url}second", *server.options)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("target")] == [
        "target       /first",
        "target       /second",
    ]
    assert [line for line in lines if line.startswith("connects")] == ["connects: 1", "connects: 0"]


def test_it_asks_for_the_head_alone(curl: str, server: PageServer) -> None:
    done = run(curl, "-sSI", server.url, *server.options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nContent-Length: " in done.stdout
    assert "target" not in done.stdout


def test_what_it_uploads_is_declined(curl: str, server: PageServer) -> None:
    done = run(curl, "-sSi", "--data", "x" * 100, server.url, *server.options)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("HTTP/1.1 405 Method Not Allowed\n")


def test_it_refuses_an_authority_that_it_does_not_know(curl: str, server: PageServer) -> None:
    assert run(curl, "-sS", server.url).returncode == 60
    assert server.line_with(" failed, ").endswith("[ERR_SSL_TLSV1_ALERT_UNKNOWN_CA]")


def test_http_without_tls_is_recognised(curl: str, server: PageServer) -> None:
    assert run(curl, "-sS", server.url.replace("https", "http")).returncode == 52
    assert server.line_with(" failed, ").endswith("[ERR_SSL_HTTP_REQUEST]")


@pytest.mark.interop
def test_asked_to_end_it_answers_the_request_that_has_begun(tmp_path: Path) -> None:
    with page_server(tmp_path) as server:
        address = urlsplit(server.url)
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        with (
            socket.create_connection((address.hostname, address.port), timeout=10) as connection,
            context.wrap_socket(connection, server_hostname="localhost") as client,
        ):
            client.sendall(b"GET / HTTP/1.1\r\n")
            server.line_with("SNI localhost")
            server.ask_to_end()
            server.line_with("Closing; open connections: 1")
            client.sendall(b"Host: localhost\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


# Two sites


def site_of(name: str, port: int, folder: Path) -> list[str]:
    """Return how to ask for the page of a site whose name nobody has to look up."""
    trusted = folder / "ca.pem"
    trusted.write_bytes(default_authority().ca)
    resolve = ["--noproxy", "*", "--resolve", f"{name}:{port}:127.0.0.1"]
    return ["-sS", *resolve, "--cacert", str(trusted), f"https://{name}:{port}/"]


@pytest.mark.feature("B10")
@pytest.mark.feature("B11")
@in_both_versions
async def test_it_gets_a_page_by_two_names_with_two_certificates_over_one_port(
    curl: str, tmp_path: Path, version: str
) -> None:
    async with two_sites(**only(version)) as sites:
        for name in NAMES:
            async with running(curl, *site_of(name, sites.port, tmp_path)) as client:
                assert await client.everything() == page(name)
    assert [info.server_name for info in sites.infos] == list(NAMES)
    assert {(info.protocol, info.alpn_protocol) for info in sites.infos} == {(version, "http/1.1")}


@pytest.mark.feature("B10")
async def test_a_name_without_a_certificate_of_its_own_gets_the_default_one(
    curl: str, tmp_path: Path
) -> None:
    async with two_sites() as sites:
        async with running(curl, *site_of("three.example", sites.port, tmp_path)) as client:
            await client.line_with("no alternative certificate subject name matches")
        async with running(curl, "-k", *site_of("three.example", sites.port, tmp_path)) as client:
            assert await client.everything() == page(NAMES[0]).replace(NAMES[0], "three.example")
