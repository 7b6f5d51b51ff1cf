"""STARTTLS with programs of others: aiosmtpd, curl, smtplib and the openssl command."""

from __future__ import annotations

import contextlib
import runpy
import smtplib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from peers import PATIENCE, echo, in_both_versions, localhost, only, our_context, running, standard_context

import trio_tlsnode as tls
from trio_tlsnode.testing import default_authority

pytestmark = [pytest.mark.interop, pytest.mark.feature("G8")]

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
EXAMPLE: dict[str, Any] = runpy.run_path(str(EXAMPLES / "starttls_smtp.py"))
SWITCHES = {"TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}
MAIL = "Subject: hello\n\n.Over TLS.\n"


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    """The file of the authority that others trust."""
    path = tmp_path / "ca.pem"
    path.write_bytes(default_authority().ca)
    return path


@contextlib.asynccontextmanager
async def mail_server(folder: Path) -> AsyncIterator[int]:
    """Run the example's server; give its port."""
    serve = partial(EXAMPLE["serve"], *localhost().write_to(folder), 0)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(serve)
            yield listener.socket.getsockname()[1]
            nursery.cancel_scope.cancel()


async def said_by(*command: str | Path, to: bytes = b"") -> tuple[int | None, str]:
    """Run a command to its end; return its exit status, and all that it has said."""
    done = await trio.run_process(
        [str(word) for word in command], stdin=to, capture_stdout=True, capture_stderr=True, check=False
    )
    return done.returncode, (done.stdout + done.stderr).decode()


def interpreter_of(script: str) -> str:
    """Return what a script names in its first line."""
    with open(script, encoding="utf-8") as file:
        return file.readline().removeprefix("#!").strip()


# Our client


async def test_aiosmtpd_gets_our_mail(aiosmtpd: str, trusted: Path, tmp_path: Path) -> None:
    script = Path(__file__).parent / "aiosmtpd_server.py"
    async with running(interpreter_of(aiosmtpd), script, *localhost().write_to(tmp_path)) as server:
        port = int((await server.line_with("port")).split()[1])
        info = await EXAMPLE["send"]("localhost", port, "me@localhost", "you@localhost", MAIL, trusted)
        assert (info.authorized, info.protocol) == (True, "TLSv1.3")
        await server.line_with("Subject: hello")
        await server.line_with("X-Peer: ('127.0.0.1', ")
        assert await server.line_with("Over TLS") == ".Over TLS."


# Our server


async def test_curl_sends_a_mail(
    curl: str, trusted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with mail_server(tmp_path) as port:
        status, said = await said_by(
            curl,
            *("-sS", "--ssl-reqd", "--cacert", trusted, "--resolve", f"localhost:{port}:127.0.0.1"),
            *("--mail-from", "me@localhost", "--mail-rcpt", "you@localhost", "--upload-file", "-"),
            f"smtp://localhost:{port}",
            to=MAIL.replace("\n", "\r\n").encode(),
        )
    assert (status, said) == (0, "")
    assert capsys.readouterr() == (MAIL, "")


async def test_smtplib_sends_a_mail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = standard_context("client", "TLSv1.3", tmp_path)

    def send(port: int) -> None:
        with smtplib.SMTP("localhost", port, timeout=PATIENCE) as client:
            client.starttls(context=context)
            client.sendmail("me@localhost", ["you@localhost"], MAIL)

    async with mail_server(tmp_path) as port:
        await trio.to_thread.run_sync(send, port)
    assert capsys.readouterr() == (MAIL, "")


@in_both_versions
async def test_s_client_speaks_smtp(
    openssl: str, trusted: Path, tmp_path: Path, version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with mail_server(tmp_path) as port:
        async with running(
            openssl,
            *("s_client", "-connect", f"127.0.0.1:{port}", "-starttls", "smtp"),
            *("-CAfile", trusted, "-verify_return_error", "-verify_hostname", "localhost"),
            *("-quiet", SWITCHES[version]),
        ) as client:
            await client.say("DATA")
            await client.line_with("354 ")
            await client.say("Over TLS.")
            await client.say(".")
            await client.line_with("250 taken")
            await client.say("QUIT")
            await client.everything()
    assert capsys.readouterr() == ("Over TLS.\n", "")


@in_both_versions
async def test_s_client_speaks_postgres(openssl: str, trusted: Path, version: str) -> None:
    """PostgreSQL asks with eight bytes and is answered with one, so that nobody reads too far."""
    server = tls.TLSServer(echo, our_context(**only(version)))

    async def serve(stream: trio.SocketStream) -> None:
        request = b""
        while len(request) < 8:
            request += await stream.receive_some(8 - len(request))
        assert request == bytes.fromhex("0000000804d2162f")
        await stream.send_all(b"S")
        await server.handle(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with running(
            openssl,
            *("s_client", "-connect", f"127.0.0.1:{port}", "-starttls", "postgres", "-brief"),
            *("-CAfile", trusted, "-verify_return_error", "-verify_hostname", "localhost"),
        ) as client:
            await client.line_with(f"Protocol version: {version}")
            await client.say("hello")
            assert await client.line_with("hello") == "hello"
        nursery.cancel_scope.cancel()


async def test_a_client_that_says_more_behind_starttls_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with mail_server(tmp_path) as port:
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            await client.send_all(b"EHLO mallory\r\nSTARTTLS\r\nMAIL FROM:<mallory@localhost>\r\n")
            answer = b""
            async for data in client:
                answer += data
        assert answer.endswith(b"220 go ahead\r\n")
        errors = ""
        while not errors:
            errors = capsys.readouterr().err
            await trio.lowlevel.checkpoint()
    assert "NotTLS: the peer sent no TLS record where TLS was to begin" in errors
