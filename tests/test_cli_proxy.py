"""``tlsnode proxy``: routes and rules from options, hot reload, what it tells, and its end."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
import trio
from click.testing import CliRunner
from cryptography import x509
from rich.console import Console

import trio_tlsnode as tls
from trio_tlsnode.cli import main
from trio_tlsnode.cli.failure import ExitStatus
from trio_tlsnode.cli.proxy import (
    Plan,
    Teller,
    parse_backend,
    parse_listen,
    parse_rule,
    pass_on_until_asked,
)
from trio_tlsnode.cli.report import JSONOutput
from trio_tlsnode.testing import Authority

pytestmark = pytest.mark.feature("G5")

AUTHORITY = Authority()


async def greet(text: bytes, stream: trio.SocketStream) -> None:
    # The proxy resets those whose client has not come to its end.
    with contextlib.suppress(trio.BrokenResourceError):
        await stream.send_all(text)
        async for data in stream:
            await stream.send_all(data)


@contextlib.asynccontextmanager
async def backend(text: bytes = b"hello") -> AsyncIterator[tuple[str, int]]:
    """Run a plain service on a free port; give its address."""
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, partial(greet, text), 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[:2]
        nursery.cancel_scope.cancel()


class Running:
    """A proxy that runs, and what it has told so far."""

    def __init__(self, port: int, output: io.StringIO) -> None:
        self.port = port
        self._output = output

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
        return await tls.wrap_client(transport, host=host, ca=AUTHORITY.ca, **options)

    async def certificate(self, host: str = "localhost") -> str:
        """Return the fingerprint of the certificate that is presented now."""
        async with await self.connect(host) as stream:
            assert stream.info.peer_certificate is not None
            return stream.info.peer_certificate.fingerprint256


def write(folder: Path, *names: str) -> dict[str, Path]:
    """Put a new certificate into a folder."""
    issued = AUTHORITY.good(*names)
    folder.mkdir(exist_ok=True)
    key, cert = issued.write_to(folder)
    return {"key": key, "cert": cert}


def fingerprint(folder: Path) -> str:
    pem = (folder / "cert.pem").read_bytes()
    return tls.Certificate.from_x509(x509.load_pem_x509_certificate(pem)).fingerprint256


@contextlib.asynccontextmanager
async def proxying(
    folder: Path, *routes: tls.ProxyRoute, as_json: bool = False, **facts: Any
) -> AsyncIterator[Running]:
    """Run ``tlsnode proxy`` on a free port, and end it with SIGTERM."""
    output = io.StringIO()
    known: dict[str, Any] = {
        "host": "127.0.0.1", "port": 0, "balancers": (), "named": {},
        "credentials": write(folder, "localhost"), "routes": routes, "proxy": {}, "server": {},
        "interval": 1000.0, "grace": 0.0,
    }  # fmt: skip
    json_output = JSONOutput("proxy", output, indent=None) if as_json else None
    teller = Teller(Console(file=output, width=80), json_output)
    async with trio.open_nursery() as nursery:
        plan = Plan(**{**known, **facts})
        (address,) = await nursery.start(pass_on_until_asked, plan, teller)
        yield Running(address.port, output)
        signal.raise_signal(signal.SIGTERM)


# Passing on


async def test_each_connection_and_each_failure_is_a_line(tmp_path: Path) -> None:
    async with backend() as address, proxying(tmp_path, tls.ProxyRoute(address)) as proxy:
        async with await proxy.connect() as stream:
            assert await stream.receive_some() == b"hello"
            client = stream.local_address
            await stream.send_eof()
            assert await stream.receive_some() == b""
        ended = await proxy.line_with("SNI localhost")
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as transport:
            await transport.send_all(b"GET / HTTP/1.1\r\n\r\n")
            assert await transport.receive_some() == b""
        await proxy.line_with("failed, hello: the peer sent an HTTP request where TLS was expected")
    place = f"127.0.0.1:{address[1]}"
    assert proxy.lines[0] == f"Passing 127.0.0.1:{proxy.port} on to {place}, until Ctrl-C"
    assert ended == f"{client} to {place}, SNI localhost, 0 bytes in, 5 out, 0.0 s, done"
    assert proxy.lines[-1] == "Closing; open connections: 0"


async def test_as_json_each_is_a_line_too(tmp_path: Path) -> None:
    async with backend() as address, proxying(tmp_path, tls.ProxyRoute(address), as_json=True) as proxy:
        async with await proxy.connect() as stream:
            await stream.send_eof()
            assert b"".join([data async for data in stream]) == b"hello"
        await proxy.line_with('"event": "connection"')
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as transport:
            await transport.send_all(b"GET / HTTP/1.1\r\n\r\n")
            await transport.receive_some()
        await proxy.line_with('"event": "failure"')
    told = [json.loads(line) for line in proxy.lines]
    assert {(line["schema"], line["command"], line["exit_status"]) for line in told} == {
        ("tlsnode/1", "proxy", None)
    }
    listening, connection, failure, closing = [line["report"] for line in told]
    assert listening["addresses"] == [{"host": "127.0.0.1", "port": proxy.port, "family": "IPv4"}]
    assert (connection["outcome"], connection["bytes_sent"]) == ("done", 5)
    assert failure["failure"]["class"] == "NotTLS"
    assert closing == {"event": "closing", "open": 0}


async def test_what_goes_wrong_behind_it_is_told_with_its_reason(tmp_path: Path) -> None:
    async with proxying(tmp_path, tls.ProxyRoute(tmp_path / "socket")) as proxy:
        async with await proxy.connect() as stream:
            with pytest.raises(tls.TruncationError):
                await stream.receive_some()
        line = await proxy.line_with("backend unreachable: ")
    assert "[ENOENT]" in line


async def test_a_balancer_in_front_of_it_says_who_its_clients_are(tmp_path: Path) -> None:
    async with backend() as address:
        async with proxying(tmp_path, tls.ProxyRoute(address), balancers=["127.0.0.1"]) as proxy:
            transport = await trio.open_tcp_stream("127.0.0.1", proxy.port)
            await transport.send_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n")
            async with await tls.wrap_client(transport, host="localhost", ca=AUTHORITY.ca) as stream:
                assert await stream.receive_some() == b"hello"
            await proxy.line_with("192.0.2.1:1000 to ")
            async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as transport:
                await transport.send_all(b"GET / HTTP/1.1\r\n\r\n")
                with contextlib.suppress(trio.BrokenResourceError):
                    assert await transport.receive_some() == b""
            line = await proxy.line_with("failed, hello: ")
    assert "is a trusted proxy, but there is no PROXY protocol header [EPROTO]" in line


async def test_a_balancer_that_can_be_nowhere_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.RaisesGroup(tls.ConfigurationError, flatten_subgroups=True):
        async with proxying(tmp_path, tls.ProxyRoute(("a", 1)), balancers=["x"]):
            pass


# Hot reload


async def test_a_new_certificate_is_presented_on_sighup_and_open_connections_go_on(tmp_path: Path) -> None:
    named = {"app.test": write(tmp_path / "named", "app.test")}
    async with backend() as address, proxying(tmp_path, tls.ProxyRoute(address), named=named) as proxy:
        async with await proxy.connect() as stream:
            assert await stream.receive_some() == b"hello"
            before = {await proxy.certificate(), await proxy.certificate("app.test")}
            write(tmp_path, "localhost")
            write(tmp_path / "named", "app.test")
            signal.raise_signal(signal.SIGHUP)
            await proxy.line_with("new credentials are used")
            while before & (after := {await proxy.certificate(), await proxy.certificate("app.test")}):
                await trio.lowlevel.checkpoint()
            assert after == {fingerprint(tmp_path), fingerprint(tmp_path / "named")}
            await stream.send_all(b"still there")
            assert await stream.receive_some() == b"still there"


async def test_files_that_cannot_be_used_are_told_and_the_old_ones_stay(tmp_path: Path) -> None:
    named = {"app.test": write(tmp_path / "named", "app.test")}
    async with backend() as address, proxying(tmp_path, tls.ProxyRoute(address), named=named) as proxy:
        before = await proxy.certificate(), await proxy.certificate("app.test")
        (tmp_path / "cert.pem").write_text("half a certificate")
        (tmp_path / "named" / "key.pem").unlink()
        signal.raise_signal(signal.SIGHUP)
        for text in ("no complete DER", "there is no such file"):
            assert "new credentials cannot be used, and the old ones stay" in await proxy.line_with(text)
        assert (await proxy.certificate(), await proxy.certificate("app.test")) == before


# Its end


async def test_asked_to_end_it_lets_open_connections_come_to_their_end(tmp_path: Path) -> None:
    async with backend() as address, trio.open_nursery() as nursery:
        async with proxying(tmp_path, tls.ProxyRoute(address), grace=10) as proxy:
            stream = await proxy.connect()
            assert await stream.receive_some() == b"hello"

            async def go_on() -> None:
                async with stream:
                    while "Closing; open connections: 1" not in proxy.lines:
                        await trio.lowlevel.checkpoint()
                    # SIGHUP means nothing any more.
                    signal.raise_signal(signal.SIGHUP)
                    with contextlib.suppress(OSError), trio.fail_after(10):
                        while True:
                            # Until the listener is closed.
                            await trio.aclose_forcefully(await trio.open_tcp_stream("127.0.0.1", proxy.port))
                    await stream.send_all(b"after")
                    assert await stream.receive_some() == b"after"
                    await stream.send_eof()
                    assert await stream.receive_some() == b""

            nursery.start_soon(go_on)
    assert proxy.lines[-1].endswith(", 5 bytes in, 10 out, 0.0 s, done")


async def test_asked_twice_it_ends_at_once(tmp_path: Path) -> None:
    async with backend() as address:
        async with proxying(tmp_path, tls.ProxyRoute(address), grace=1000) as proxy:
            stream = await proxy.connect()
            await stream.receive_some()
            signal.raise_signal(signal.SIGINT)
        async with stream:
            with pytest.raises(tls.TruncationError):
                await stream.receive_some()
    assert "cancelled" in proxy.lines[-1]


# From the command line


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("8080", ("localhost", 8080)),
        ("app.test:80", ("app.test", 80)),
        ("[::1]:80", ("::1", 80)),
        ("/run/app.sock", Path("/run/app.sock")),
        ("./app.sock", Path("app.sock")),
    ],
)
def test_a_backend_is_a_place_or_a_path(text: str, place: Any) -> None:
    assert parse_backend(text) == place


@pytest.mark.parametrize(
    ("text", "place"),
    [("443", (None, 443)), ("0", (None, 0)), ("a.test:443", ("a.test", 443)), ("[::1]:0", ("::1", 0))],
)
def test_a_place_to_listen_is_a_port_and_perhaps_a_host(text: str, place: Any) -> None:
    assert parse_listen(text) == place


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_backend, "app.test"), (parse_backend, "0"), (parse_listen, "a"), (parse_rule, "alice")],
)
def test_anything_else_is_wrong_usage(parse: Any, text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse(text)


def test_the_options_make_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []

    def take(main: Any, plan: Plan, teller: Any, **options: Any) -> None:
        plans.append(plan)

    monkeypatch.setattr("trio_tlsnode.cli.proxy.run", take)
    result = CliRunner().invoke(
        main,
        [
            "proxy", "--listen", "443", "--cert", "c", "--key", "k", "--ca", "a", "--to", "80",
            "--route", "*.app.test", "81", "--alpn-route", "h2", "82", "--alpn", "http/1.1",
            "--sni-cert", "app.test", "c2", "k2", "--allow", "CN:alice", "--proxy-protocol", "2",
            "--behind", "10.0.0.1", "--behind", "fd00::/8",
            "--connect-timeout", "3", "--max-connections", "9", "--interval", "5", "--grace", "7",
        ],
    )  # fmt: skip
    assert result.exit_code == ExitStatus.OK, result.output
    (plan,) = plans
    allow = (tls.ClientRule("CN", "alice"),)
    assert (plan.host, plan.port, plan.interval, plan.grace) == (None, 443, 5, 7)
    assert plan.balancers == ("10.0.0.1", "fd00::/8")
    assert plan.credentials == {"cert": Path("c"), "key": Path("k"), "passphrase": None, "ca": Path("a")}
    assert plan.named == {"app.test": {"cert": Path("c2"), "key": Path("k2"), "ca": Path("a")}}
    assert plan.routes == [
        tls.ProxyRoute(("localhost", 81), names=["*.app.test"], allow=allow),
        tls.ProxyRoute(("localhost", 82), alpn_protocols=["h2"], allow=allow),
        tls.ProxyRoute(("localhost", 80), allow=allow),
    ]
    assert plan.proxy == {"proxy_protocol": 2, "connect_timeout": 3}
    assert plan.server == {
        "alpn_protocols": ("h2", "http/1.1"), "request_cert": True, "max_connections": 9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--to", "80"], "--cert and --key are needed; tlsnode dev-ca issues them"),
        (["--to", "80", "--cert", "c"], "--cert and --key belong together"),
        (["--cert", "c", "--key", "k"], "there is nowhere to go"),
        (["--cert", "c", "--key", "k", "--to", "80"], "--cert c: there is no such file [ENOENT]"),
        (["--cert", "c", "--key", "k", "--to", "x"], "'x' has no port"),
        (["--allow", "alice"], "'alice' is no rule"),
        (["--listen", "x"], "'x' is no port"),
        (["--cert", "c", "--key", "k", "--route", "a..b", "80"], "'a..b' is no host name"),
    ],
)
def test_wrong_usage_is_status_2(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["proxy", *args])
    assert result.exit_code == ExitStatus.USAGE
    assert message in " ".join(result.stderr.split())


def test_a_port_that_is_in_use_is_status_3(tmp_path: Path) -> None:
    files = write(tmp_path, "localhost")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        args = ["--listen", place, "--to", "80", "--cert", str(files["cert"]), "--key", str(files["key"])]
        result = CliRunner().invoke(main, ["proxy", *args])
    assert result.exit_code == ExitStatus.NETWORK
    assert result.stderr == (
        f"Error: Address already in use: {place} [EADDRINUSE]\n"
        "  what to do   Another program listens there: end it, or take another port.\n"
    )
