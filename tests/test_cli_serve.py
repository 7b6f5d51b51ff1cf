"""``tlsnode serve``: echo and page, the folder of its authority, and its end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner
from rich.console import Console
from trio.testing import MockClock

import trio_tlsnode as tls
from trio_tlsnode.cli import main
from trio_tlsnode.cli.authority_folder import AuthorityFolder
from trio_tlsnode.cli.events import Events
from trio_tlsnode.cli.failure import ExitStatus
from trio_tlsnode.cli.http_folder import look_up
from trio_tlsnode.cli.http_page import BadRequest, Request, parse_request, serve_page
from trio_tlsnode.cli.report import JSONOutput
from trio_tlsnode.cli.serve import Service, serve_until_asked
from trio_tlsnode.testing import Authority, tls_pair

pytestmark = pytest.mark.feature("G5")

ROOT = Path(__file__).parent.parent


class Running:
    """A server that runs, and what it has told so far.

    Attributes:
        port: Its port.
    """

    def __init__(self, folder: Path, port: int, output: io.StringIO) -> None:
        self._folder = folder
        self._output = output
        self.port = port

    @property
    def lines(self) -> list[str]:
        return self._output.getvalue().splitlines()

    async def line_with(self, text: str) -> str:
        """Wait for the line with a text, and return it."""
        with trio.fail_after(10):
            while not (lines := [line for line in self.lines if text in line]):
                await trio.lowlevel.checkpoint()
        return lines[0]

    async def connect(self, host: str = "localhost", **options: Any) -> tls.TLSStream:
        transport = await trio.open_tcp_stream("127.0.0.1", self.port)
        return await tls.wrap_client(transport, host=host, ca=self._folder / "ca.pem", **options)


@contextlib.asynccontextmanager
async def serving(folder: Path, *, as_json: bool = False, **options: Any) -> AsyncIterator[Running]:
    """Run ``tlsnode serve`` on a free port, and end it with SIGTERM."""
    output = io.StringIO()
    defaults = {
        "host": "127.0.0.1",
        "port": 0,
        "http": False,
        "files": None,
        "credentials": {"cert": None, "key": None, "passphrase": None, "ca": None},
        "folder": AuthorityFolder(folder),
        "request_cert": False,
        "alpn_protocols": (),
        "grace": 0.0,
    }
    async with trio.open_nursery() as nursery:
        json_output = JSONOutput("serve", output, indent=None) if as_json else None
        events = Events(Console(file=output, width=80), json_output)
        (address,) = await nursery.start(serve_until_asked, Service(**{**defaults, **options}), events)
        yield Running(folder, address.port, output)
        signal.raise_signal(signal.SIGTERM)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def exchange(stream: tls.TLSStream, data: bytes) -> bytes:
    await stream.send_all(data)
    return bytes(await stream.receive_some())


# Echo


async def test_it_echoes_and_tells_each_connection_and_each_failure_in_a_line(tmp_path: Path) -> None:
    async with serving(tmp_path, alpn_protocols=("echo",)) as server:
        async with await server.connect(alpn_protocols=["echo"]) as stream:
            assert await exchange(stream, b"hello") == b"hello"
            client = stream.local_address
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as transport:
            await transport.send_all(b"GET / HTTP/1.1\r\n\r\n")
            assert await transport.receive_some() == b""
        failed = await server.line_with("[ERR_SSL_HTTP_REQUEST]")
    assert failed.endswith(
        " failed, hello: the peer sent an HTTP request where TLS was expected [ERR_SSL_HTTP_REQUEST]"
    )
    assert server.lines[:5] == [
        f"Made a throw-away authority in {tmp_path}",
        "It vouches for localhost, 127.0.0.1, ::1",
        f"Serving an echo on 127.0.0.1:{server.port}, until Ctrl-C",
        f"Try: tlsnode connect 127.0.0.1:{server.port} --ca {tmp_path}/ca.pem",
        f"{client} TLSv1.3 TLS_AES_256_GCM_SHA384, SNI localhost, ALPN echo",
    ]
    assert server.lines[-1] == "Closing; open connections: 0"


async def test_a_client_certificate_that_is_required_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path, request_cert=True) as server:
        assert server.lines[-1].endswith(f" --cert {tmp_path}/cert.pem --key {tmp_path}/key.pem")
        credentials: dict[str, Any] = {"cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
        async with await server.connect(**credentials) as stream:
            assert await exchange(stream, b"hello") == b"hello"
        async with await server.connect() as stream:
            with pytest.raises(tls.PeerAlert):
                await stream.receive_some()
        await server.line_with("(verified)")
        await server.line_with("[ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE]")


async def test_it_presents_the_certificate_that_it_is_given(tmp_path: Path) -> None:
    authority = Authority()
    key, cert = authority.good("localhost").write_to(tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.ca)
    credentials = {"cert": cert, "key": key, "passphrase": None, "ca": None}
    async with serving(tmp_path, credentials=credentials) as server:
        async with await server.connect() as stream:
            assert await exchange(stream, b"hello") == b"hello"
        assert server.lines[1] == f"Try: tlsnode connect 127.0.0.1:{server.port}"


# Its end


async def test_asked_to_end_it_accepts_no_more_and_serves_open_connections_to_their_end(
    tmp_path: Path,
) -> None:
    async with trio.open_nursery() as nursery:
        async with serving(tmp_path, grace=10) as server:
            stream = await server.connect()
            await exchange(stream, b"hello")

            async def go_on() -> None:
                async with stream:
                    while "Closing; open connections: 1" not in server.lines:
                        assert await exchange(stream, b"before") == b"before"
                    with pytest.raises(OSError, match="failed"):
                        await trio.open_tcp_stream("127.0.0.1", server.port)
                    assert await exchange(stream, b"after") == b"after"

            nursery.start_soon(go_on)
    assert server.lines[-1] == "Closing; open connections: 1"


async def test_after_the_grace_open_connections_are_ended(tmp_path: Path) -> None:
    async with serving(tmp_path, grace=0) as server:
        stream = await server.connect()
        await exchange(stream, b"hello")
    async with stream:
        with pytest.raises(tls.TruncationError):
            await stream.receive_some()


async def test_asked_twice_it_ends_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, grace=1000) as server:
        stream = await server.connect()
        await exchange(stream, b"hello")
        signal.raise_signal(signal.SIGINT)
    async with stream:
        with pytest.raises(tls.TruncationError):
            await stream.receive_some()


@contextlib.asynccontextmanager
async def process(folder: Path, *options: str) -> AsyncIterator[tuple[trio.Process, Callable[[str], Any]]]:
    """Run the command until it ends; give its process, and what waits for the line with a text."""
    command = [sys.executable, "-m", "trio_tlsnode.cli", "serve", "--port", "0", "--authority", str(folder)]
    said = b""
    running = await trio.lowlevel.open_process([*command, *options], cwd=ROOT, stdout=subprocess.PIPE)

    async def line_with(text: str) -> str:
        nonlocal said
        assert running.stdout is not None
        while not (lines := [line for line in said.decode().splitlines(keepends=True) if text in line]):
            data = await running.stdout.receive_some()
            assert data, f"{text!r} was not said after {said!r}"
            said += data
        return lines[0].strip()

    try:
        with trio.fail_after(20):
            yield running, line_with
            await running.wait()
    finally:
        if running.poll() is None:
            running.kill()
            await running.wait()
        assert running.stdout is not None
        await running.stdout.aclose()


async def connect_to(line_with: Callable[[str], Any], folder: Path) -> tls.TLSStream:
    port = int((await line_with("Serving an echo on")).partition(",")[0].rpartition(":")[2])
    return await tls.connect("localhost", port, ca=folder / "ca.pem")


@pytest.mark.feature("B5")
@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_that_is_asked_to_end_answers_what_was_asked_of_it_and_exits_with_0(
    asked: signal.Signals, tmp_path: Path
) -> None:
    # More than fits into the kernel's buffers both ways: the server is in the middle of it.
    request = bytes(range(256)) * 65536
    answer = bytearray()
    async with process(tmp_path, "--grace", "15") as (running, line_with):
        stream = await connect_to(line_with, tmp_path)

        async def ask() -> None:
            await stream.send_all(request)
            await stream.send_eof()

        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            answer += await stream.receive_some()
            running.send_signal(asked)
            await line_with("Closing; open connections: 1")
            address = stream.remote_address
            assert address is not None
            # It says so just before it does so.
            with pytest.raises(OSError, match="failed"):
                while True:
                    await trio.aclose_forcefully(await trio.open_tcp_stream("127.0.0.1", address.port))
            # It ends with a goodbye, or this would be a TruncationError.
            async for data in stream:
                answer += data
    assert answer == request
    assert running.returncode == ExitStatus.OK


@pytest.mark.feature("B5")
async def test_the_process_that_is_asked_twice_ends_at_once_and_exits_with_0(tmp_path: Path) -> None:
    async with process(tmp_path, "--grace", "1000") as (running, line_with):
        stream = await connect_to(line_with, tmp_path)
        assert await exchange(stream, b"hello") == b"hello"
        running.send_signal(signal.SIGTERM)
        await line_with("Closing; open connections: 1")
        assert await exchange(stream, b"still there?") == b"still there?"
        running.send_signal(signal.SIGTERM)
        async with stream:
            with pytest.raises(tls.TruncationError):
                await stream.receive_some()
    assert running.returncode == ExitStatus.OK


# Its authority


async def test_its_files_are_made_once_and_the_key_is_the_owners_alone(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path / "new" / "folder")
    assert await folder.make()
    made = contents(folder.path)
    assert made.keys() == {"ca.pem", "cert.pem", "key.pem"}
    assert stat.S_IMODE(os.stat(folder.key).st_mode) == 0o600
    assert not await folder.make()
    assert contents(folder.path) == made


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
async def test_its_certificate_is_for_this_host_by_each_of_its_names(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path) as server:
        async with await server.connect(name) as stream:
            assert stream.authorized


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder, _: folder.ca.unlink(), "has cert.pem and key.pem, but not the rest"),
        (lambda folder, _: folder.cert.write_text("x"), "Failed to parse certificate"),
        (
            lambda folder, authority: authority.expired("localhost").write_to(folder.path),
            "certificate has expired",
        ),
        (lambda folder, authority: authority.good("localhost").write_to(folder.path), "IP: 127.0.0.1 is not"),
        (lambda folder, _: folder.ca.write_bytes(Authority().ca), "verify"),
    ],
)
async def test_files_that_cannot_be_used_are_told_and_never_replaced(
    tmp_path: Path, spoil: Callable[[AuthorityFolder, Authority], object], reason: str
) -> None:
    folder, authority = AuthorityFolder(tmp_path), Authority()
    authority.good("localhost", "127.0.0.1", "::1").write_to(tmp_path)
    folder.ca.write_bytes(authority.ca)
    spoil(folder, authority)
    before = contents(tmp_path)
    with pytest.raises(tls.ConfigurationError) as refused:
        await folder.make()
    assert reason in str(refused.value)
    assert refused.value.path == str(tmp_path)
    assert contents(tmp_path) == before


# Wrong usage


def test_a_port_that_is_in_use_is_one_line_and_status_3(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["serve", "--port", str(port), "--authority", str(tmp_path)])
    assert result.exit_code == ExitStatus.NETWORK
    assert result.stderr == (
        f"Error: Address already in use: 127.0.0.1:{port} [EADDRINUSE]\n"
        "  what to do   Another program listens there: end it, or take another port.\n"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--cert", "cert.pem"], "--cert and --key belong together"),
        (["--cert", "c", "--key", "k", "--authority", "f"], "--authority is for a server without --cert"),
        (["--http", "--alpn", "h2"], "with --http, the only application protocol is http/1.1"),
        (["--cert", "c", "--key", "k"], "--cert c: there is no such file [ENOENT]"),
        (["--authority", "file"], "the folder file cannot be used: "),
        (["--port", "65536"], "Invalid value for '--port'"),
    ],
)
def test_wrong_usage_is_status_2(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    result = CliRunner().invoke(main, ["serve", *args])
    assert result.exit_code == ExitStatus.USAGE
    assert f"Error: {message}" in result.stderr


# The page


@pytest.mark.parametrize(
    ("head", "request_"),
    [
        (b"GET / HTTP/1.1\r\nHost: a", Request("GET", "/", keep_alive=True)),
        (b"GET /x?y HTTP/1.1\r\nhost:a\r\nConnection: x , Close", Request("GET", "/x?y", keep_alive=False)),
        (b"HEAD http://a/ HTTP/1.1\nHost: \t a \t", Request("HEAD", "http://a/", keep_alive=True)),
        (b"GET / HTTP/1.0", Request("GET", "/", keep_alive=False)),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive", Request("GET", "/", keep_alive=True)),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5", Request("POST", "/", keep_alive=False)),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0", Request("GET", "/", keep_alive=True)),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", Request("PUT", "/", keep_alive=False)),
    ],
)
def test_a_request_is_read_as_rfc_9112_has_it(head: bytes, request_: Request) -> None:
    assert parse_request(head) == request_


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"garbage", 400),
        (b"GET  / HTTP/1.1\r\nHost: a", 400),
        (b"GET / HTTP/1.1 \r\nHost: a", 400),
        (b"GET / HTTP/2.0\r\nHost: a", 505),
        (b"GET / HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b", 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b", 400),
        (b"GET / HTTP/1.1\r\nHost : a", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded", 400),
        (b"GET / HTTP/1.1\r\nHost: a\rb", 400),
        (b"GET / HTTP/1.1\r\nHost: a\0", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nx:" + b" " * 16000 + b"\0", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1", 400),
    ],
)
def test_what_is_no_request_has_a_status(head: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_request(head)
    assert refused.value.status == status


async def page(*pieces: bytes) -> list[bytes]:
    """Send these pieces to the page, and then the end; return the answers."""
    client, server = await tls_pair()
    answers = b""

    async def send() -> None:
        for piece in pieces:
            await client.send_all(piece)
        await client.send_eof()

    async def serve() -> None:
        async with server:
            await serve_page(server)

    async with client, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        nursery.start_soon(send)
        async for data in client:
            answers += data
    return [b"HTTP/1.1 " + answer for answer in answers.split(b"HTTP/1.1 ")[1:]]


async def test_the_page_shows_what_was_negotiated() -> None:
    (answer,) = await page(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert head.startswith(b"HTTP/1.1 200 OK\r\nDate: ")
    assert fields[b"Content-Length"] == str(len(body)).encode()
    assert fields[b"Connection"] == b"keep-alive"
    assert b"\nprotocol     TLSv1.3\ncipher       TLS_AES_256_GCM_SHA384 (256 bits)\n" in body
    assert b"\nserver name  localhost\n" in body


async def test_an_answer_to_head_has_the_length_and_not_the_body() -> None:
    (whole,) = await page(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    (head,) = await page(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    def without_date(answer: bytes) -> list[bytes]:
        return [line for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n") if b"Date" not in line]

    assert without_date(head) == without_date(whole)
    assert head.endswith(b"\r\nConnection: close\r\n\r\n")


async def test_requests_on_one_connection_are_answered_in_order_however_they_are_cut() -> None:
    requests = b"".join(b"\r\nGET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(3))
    at_once = await page(requests)
    in_pieces = await page(*(bytes((byte,)) for byte in requests))
    for answers in (at_once, in_pieces):
        assert [b"\ntarget       /%d\n" % number in answer for number, answer in enumerate(answers)] == [
            True
        ] * 3


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"garbage\n", b"400 Bad Request"),
        (b"\x16\x03\x01\0\n", b"400 Bad Request"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345", b"405 Method Not Allowed"),
        (b"x" * 20000, b"431 Request Header Fields Too Large"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 20000 + b"\r\n\r\n", b"431 Request Header Fields Too Large"),
    ],
)
async def test_what_is_not_answered_with_the_page_ends_the_connection(request_: bytes, status: bytes) -> None:
    (answer,) = await page(request_, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert (b"\r\nAllow: GET, HEAD\r\n" in answer) == status.startswith(b"405")


@pytest.mark.parametrize(
    ("beginning", "answer"), [(b"", b""), (b"GET /", b"HTTP/1.1 408 Request Timeout\r\n")]
)
async def test_a_client_that_takes_too_long_is_not_waited_for(
    beginning: bytes, answer: bytes, autojump_clock: MockClock
) -> None:
    client, server = await tls_pair()
    async with client, trio.open_nursery() as nursery:

        async def serve() -> None:
            async with server:
                await serve_page(server)

        nursery.start_soon(serve)
        await client.send_all(beginning)
        received = b"".join([data async for data in client])
    assert received.partition(b"Date")[0] == answer
    assert trio.current_time() >= 30


async def test_as_json_each_event_is_a_line(tmp_path: Path) -> None:
    async with serving(tmp_path, as_json=True) as server:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as transport:
            await transport.send_all(b"GET / HTTP/1.1\r\n\r\n")
            assert await transport.receive_some() == b""
        async with await tls.connect("localhost", server.port, ca=tmp_path / "ca.pem") as stream:
            assert await exchange(stream, b"hello") == b"hello"
    told = [json.loads(line) for line in server.lines]
    assert {(line["schema"], line["command"], line["exit_status"]) for line in told} == {
        ("tlsnode/1", "serve", None)
    }
    reports = {line["report"]["event"]: line["report"] for line in told}
    assert reports.keys() == {"authority", "listening", "failure", "connection", "closing"}
    assert reports["authority"]["made"] is True
    assert reports["listening"]["addresses"] == [{"host": "127.0.0.1", "port": server.port, "family": "IPv4"}]
    assert reports["failure"]["failure"]["class"] == "NotTLS"
    assert reports["connection"]["info"]["protocol"] == "TLSv1.3"


# A folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "public"
    (folder / "sub" / "with index").mkdir(parents=True)
    (folder / "a b.txt").write_text("text")
    (folder / "large.bin").write_bytes(bytes(700_000))
    (folder / "sub" / "<b>.html").write_text("<p>")
    (folder / "sub" / "with index" / "index.html").write_text("index")
    (folder / ".secret").write_text("secret")
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "inside.txt").symlink_to(folder / "a b.txt")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(
    ("target", "status", "content_type", "content"),
    [
        ("/a%20b.txt", 200, "text/plain; charset=utf-8", b"text"),
        ("/a%20b.txt?x=1", 200, "text/plain; charset=utf-8", b"text"),
        ("https://localhost/a%20b.txt", 200, "text/plain; charset=utf-8", b"text"),
        ("//a%20b.txt", 200, "text/plain; charset=utf-8", b"text"),
        ("/inside.txt", 200, "text/plain; charset=utf-8", b"text"),
        ("/sub//with%20index/", 200, "text/html; charset=utf-8", b"index"),
        ("/large.bin", 200, "application/octet-stream", bytes(700_000)),
        ("/a%20b.txt/", 404, None, None),
        ("/missing", 404, None, None),
        ("/.secret", 404, None, None),
        ("/link.txt", 404, None, None),
        ("/pipe", 404, None, None),
        ("/../outside.txt", 404, None, None),
        ("/sub/%2e%2e/%2e%2e/outside.txt", 404, None, None),
        ("/..%2foutside.txt", 404, None, None),
        ("/%00", 404, None, None),
        ("/" + "x" * 300, 404, None, None),
        ("*", 404, None, None),
        ("http://[", 404, None, None),
    ],
)
def test_a_folder_has_what_is_in_it_and_nothing_else(
    target: str, status: int, content_type: str | None, content: bytes | None, files: Path
) -> None:
    found = look_up(files, target)
    assert found.status == status
    if content is not None:
        told = found.content if isinstance(found.content, bytes) else found.content.read_bytes()
        assert (told, found.size, found.content_type) == (content, len(content), content_type)


def test_a_folder_without_an_index_is_a_list_of_links(files: Path) -> None:
    page = look_up(files, "/sub/").content
    assert isinstance(page, bytes)
    assert b'<a href="./%3Cb%3E.html">&lt;b&gt;.html</a>' in page
    assert b'<a href="./with%20index/">with index/</a>' in page
    root = look_up(files, "/").content
    assert isinstance(root, bytes)
    assert b"secret" not in root


def test_a_folder_without_its_slash_is_elsewhere_on_the_same_host(files: Path) -> None:
    for target, location in (
        ("/sub", "/sub/"),
        ("/sub/with%20index", "/sub/with%20index/"),
        ("/sub?x", "/sub/"),
    ):
        found = look_up(files, target)
        assert (found.status, found.location) == (301, location)


async def test_files_are_served_over_one_connection(files: Path) -> None:
    client, server = await tls_pair()

    async def answers() -> None:
        async with server:
            await serve_page(server, files)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answers)
        for method, target in (("GET", "/a%20b.txt"), ("HEAD", "/large.bin"), ("GET", "/sub"), ("GET", "/x")):
            await client.send_all(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await client.send_all(b"GET /large.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        told = b"".join([data async for data in client])
        await client.aclose()
    assert told.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\ntextHTTP/1.1 200 OK\r\n" in told
    # Behind HEAD's answer, the next one.
    assert b"Content-Length: 700000\r\n" in told
    assert b"\r\n\r\nHTTP/1.1 301 Moved Permanently\r\n" in told
    assert b"\r\nLocation: /sub/\r\n" in told
    assert b"HTTP/1.1 404 Not Found\r\n" in told
    assert told.endswith(b"\r\n\r\n" + bytes(700_000))


def test_a_folder_that_is_not_there_is_wrong_usage() -> None:
    result = CliRunner().invoke(main, ["serve", "--http", "missing folder"])
    assert result.exit_code == ExitStatus.USAGE
    assert "--http missing folder: there is no such folder" in result.stderr
