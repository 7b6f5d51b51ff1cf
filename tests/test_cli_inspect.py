"""``tlsnode inspect``: its words, its JSON, its exit statuses."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result
from json_shapes import INSPECTION, envelope, parsed, shape
from rich.console import Console

import trio_tlsnode as tls
from trio_tlsnode.cli import main
from trio_tlsnode.cli.destination import port_of, split_destination
from trio_tlsnode.cli.failure import ExitStatus
from trio_tlsnode.cli.inspect import show, status_of
from trio_tlsnode.cli.serve import echo
from trio_tlsnode.testing import IssuedCertificate, default_authority

pytestmark = pytest.mark.feature("G5")

# What is all right by today's measure.
STRONG: dict[str, Any] = {"ciphers": "TLS_AES_128_GCM_SHA256:ECDHE+AESGCM"}


@contextlib.asynccontextmanager
async def serving(issued: IssuedCertificate | None = None, **options: Any) -> AsyncIterator[int]:
    """Run a server on a free port of 127.0.0.1; give the port."""
    issued = issued or default_authority().good("localhost")
    server = tls.TLSServer(echo, tls.SecureContext(**issued.options, **{**STRONG, **options}))
    server.client_errors()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(server.serve, 0, "127.0.0.1"))
        yield server.addresses[0].port
        await server.aclose(0)


async def invoked(*args: str, **environment: str) -> Result:
    """Run the command with these arguments, in a thread, where it has an event loop of its own."""
    run = partial(CliRunner().invoke, main, ["inspect", *args], env={"COLUMNS": "80", **environment})
    return await trio.to_thread.run_sync(run)


@pytest.fixture
def ca(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    path.write_bytes(default_authority().ca)
    return str(path)


def inspection(**facts: Any) -> tls.Inspection:
    """Return an inspection of which nothing is known but these facts."""
    known: dict[str, Any] = {
        "host": "localhost", "port": 443, "server_name": None, "starttls": None, "address": None,
        "inspected_at": dt.datetime.now(dt.UTC), "duration": 0.1, "info": None, "failure": None,
        "wants_client_certificate": None, "protocols": {}, "cipher_suites": {}, "groups": {},
        "dh_bits": None, "alpn_protocols": (), "resumption": {}, "unfinished": (), "findings": (),
    }  # fmt: skip
    return tls.Inspection(**{**known, **facts})


def finding(severity: Any) -> tls.Finding:
    return tls.Finding(severity=severity, code="CODE", summary="what", cause="why", remedy="trust it by ca=")


# What a server says in plaintext, and what it is asked.
PLAINTEXT: dict[str, list[bytes]] = {
    "smtp": [
        b"220 mx.test ESMTP\r\n", b"EHLO localhost\r\n", b"250-mx.test\r\n250 STARTTLS\r\n", b"STARTTLS\r\n",
        b"220 go ahead\r\n",
    ],
    "imap": [b"* OK ready\r\n", b"a STARTTLS\r\n", b"a OK begin\r\n"],
    "pop3": [b"+OK ready\r\n", b"STLS\r\n", b"+OK begin\r\n"],
    "postgres": [b"", bytes.fromhex("0000000804d2162f"), b"S"],
}  # fmt: skip


@contextlib.asynccontextmanager
async def beginning_in_plaintext(protocol: str) -> AsyncIterator[int]:
    """Run a server of another protocol that changes to TLS; give the port."""
    server = tls.TLSServer(echo, tls.SecureContext(**default_authority().good("localhost").options, **STRONG))
    server.client_errors()

    async def begin(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            for index, line in enumerate(PLAINTEXT[protocol]):
                if index % 2 == 0:
                    await stream.send_all(line)
                elif await stream.receive_some() != line:
                    return
            await server.handle(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, begin, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


# In words


async def test_a_good_server_is_told_in_lines_of_80_columns(ca: str) -> None:
    async with serving() as port:
        result = await invoked(f"localhost:{port}", "--ca", ca)
    assert result.exit_code == ExitStatus.OK
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == f"localhost:{port} at 127.0.0.1:{port}"
    assert lines[-1] == "The server is verified."
    for line in (
        "  for          DNS:localhost",
        "  key          EC, P-256",
        "  TLSv1.3      TLS_AES_128_GCM_SHA256",
        "  TLSv1        no",
        "  ALPN         none of those that were asked for",
        "  resumption   TLSv1.3 by ticket, TLSv1.2 by ticket",
        "  OCSP         no response is stapled",
    ):
        assert line in lines
    assert "What is wrong" not in lines
    assert "\x1b" not in result.output


async def test_a_server_that_is_not_to_be_trusted_is_told_with_why_and_what_to_do(ca: str) -> None:
    async with serving(default_authority().expired("localhost")) as port:
        result = await invoked(f"localhost:{port}", "--ca", ca)
    assert result.exit_code == ExitStatus.CERTIFICATE
    told = " ".join(result.stdout.split())
    assert "error certificate has expired [CERT_HAS_EXPIRED] why The validity" in told
    assert "what to do The server's certificate expired on" in told
    assert told.endswith("The server is NOT verified: certificate has expired [CERT_HAS_EXPIRED]")


async def test_a_hint_names_the_options_of_the_command() -> None:
    async with serving(default_authority().self_signed("localhost")) as port:
        result = await invoked(f"localhost:{port}")
    assert "trust it by --ca" in " ".join(result.stdout.split())


@pytest.mark.parametrize("protocol", PLAINTEXT)
async def test_a_server_that_begins_in_plaintext_is_told_all_the_same(protocol: str, ca: str) -> None:
    async with beginning_in_plaintext(protocol) as port:
        result = await invoked(f"localhost:{port}", "--starttls", protocol, "--ca", ca)
    assert result.exit_code == ExitStatus.OK, result.output
    lines = result.stdout.splitlines()
    assert lines[-1] == "The server is verified."
    assert "  TLSv1.3      TLS_AES_128_GCM_SHA256" in lines


async def test_a_server_of_another_protocol_is_told_as_that() -> None:
    async with beginning_in_plaintext("pop3") as port:
        result = await invoked(f"localhost:{port}", "--starttls", "imap")
    assert result.exit_code == ExitStatus.PROTOCOL
    assert "the server does not speak IMAP (a POP3 greeting)" in " ".join(result.stdout.split())


def test_findings_are_coloured_on_a_terminal_alone(capsys: pytest.CaptureFixture[str]) -> None:
    found = inspection(findings=tuple(map(finding, ("error", "warning", "advice"))), unfinished=("ALPN",))
    show(Console(force_terminal=True, color_system="standard", width=80), found)
    coloured = capsys.readouterr().out
    for severity, colour in (("error", 31), ("warning", 33), ("advice", 36)):
        assert f"\x1b[1;{colour}m  {severity}" in coloured
    show(Console(color_system=None, width=80), found)
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    assert "  steps        ALPN" in plain


async def test_what_a_peer_writes_cannot_steer_the_terminal(ca: str) -> None:
    issued = default_authority().good("localhost")
    async with serving(issued) as port:
        found = await tls.inspect("127.0.0.1", port, server_name="localhost", ca=default_authority().ca)
    assert found.info is not None
    evil = tls.CertificateError("\x1b[2J\nverified", code="CERT_HAS_EXPIRED")
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        show(console, dataclasses.replace(found, failure=evil))
    assert "\x1b" not in captured.get()


# As JSON


async def test_the_report_is_json_with_keys_that_stay(ca: str) -> None:
    async with serving(groups="x25519") as port:
        result = await invoked(f"localhost:{port}", "--ca", ca, "--json")
    facts = parsed(result.stdout)
    assert facts["schema"] == "tlsnode/1"
    assert (facts["command"], facts["exit_status"], result.exit_code) == ("inspect", 0, 0)
    expected = {**INSPECTION, "alpn_protocols": []}
    assert shape(facts) == envelope("inspect", expected)


async def test_a_failure_is_json_too() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        result = await invoked(f"127.0.0.1:{taken.getsockname()[1]}", "--json")
    facts = parsed(result.stdout)
    assert result.exit_code == facts["exit_status"] == ExitStatus.NETWORK
    assert (facts["error"]["class"], facts["error"]["code"]) == ("ConnectError", "ECONNREFUSED")
    assert facts["report"] is None
    assert result.stderr == ""


# Exit statuses


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({}, ExitStatus.OK),
        ({"findings": (finding("advice"),)}, ExitStatus.OK),
        ({"findings": (finding("warning"), finding("advice"))}, ExitStatus.ATTENTION),
        ({"findings": (finding("error"),)}, ExitStatus.ATTENTION),
        ({"unfinished": ("ALPN",)}, ExitStatus.TIMEOUT),
        ({"unfinished": ("ALPN",), "findings": (finding("error"),)}, ExitStatus.ATTENTION),
        ({"failure": tls.CertificateError("expired", code="E")}, ExitStatus.CERTIFICATE),
        ({"failure": tls.ProtocolError("nothing in common")}, ExitStatus.PROTOCOL),
        ({"failure": tls.HandshakeTimeout("slow", timeout=1)}, ExitStatus.TIMEOUT),
        ({"failure": tls.ConnectionLost("lost")}, ExitStatus.NETWORK),
    ],
)
def test_the_exit_status_tells_the_class_of_what_is_wrong(facts: dict[str, Any], status: int) -> None:
    assert status_of(inspection(**facts)) == status


async def test_a_weakness_is_status_6(ca: str) -> None:
    async with serving(min_version="TLSv1.1", ciphers="DEFAULT@SECLEVEL=0") as port:
        result = await invoked(f"localhost:{port}", "--ca", ca)
    assert result.exit_code == ExitStatus.ATTENTION


async def test_a_server_that_does_not_answer_is_status_5() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = await invoked(f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.05")
    assert result.exit_code == ExitStatus.TIMEOUT


# Options


async def test_the_name_protocols_and_certificate_are_taken_from_the_options(ca: str, tmp_path: Path) -> None:
    key, cert = default_authority().client("alice").write_to(tmp_path)
    issued = default_authority().good("example.org")
    server = tls.TLSServer(
        echo,
        tls.SecureContext(**issued.options, **STRONG, ca=default_authority().ca),
        request_cert=True,
        alpn_protocols=["b", "a"],
    )
    server.client_errors()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(server.serve, 0, "127.0.0.1"))
        result = await invoked(
            f"127.0.0.1:{server.addresses[0].port}", "--servername", "example.org", "--ca", ca,
            "--cert", str(cert), "--key", str(key), "--alpn", "a", "--alpn", "b", "--connections", "2",
        )  # fmt: skip
        await server.aclose(0)
    assert result.exit_code == ExitStatus.OK
    assert "  ALPN         b, a\n" in result.stdout
    assert "  clients      are asked for a certificate\n" in result.stdout


@pytest.mark.parametrize(
    ("text", "starttls", "port"),
    [
        ("a", None, 443), ("a", "smtp", 587), ("a", "imap", 143), ("a", "pop3", 110), ("a", "postgres", 5432),
        ("a:25", "smtp", 25), ("[::1]", None, 443),
    ],
)  # fmt: skip
def test_the_port_is_that_of_the_protocol_unless_another_one_is_named(
    text: str, starttls: Any, port: int
) -> None:
    assert port_of(split_destination(text), starttls) == port


@pytest.mark.parametrize(
    "args", [["https://a/"], ["a", "--starttls", "ftp"], ["a", "--connections", "0"], []]
)
def test_wrong_usage_is_status_2(args: list[str]) -> None:
    result = CliRunner().invoke(main, ["inspect", *args])
    assert result.exit_code == ExitStatus.USAGE
    assert "Error: " in result.stderr
