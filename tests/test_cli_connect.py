"""``tlsnode connect``: what it tells, what it passes on, and the exit statuses of its failures."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
import trio
from click.testing import CliRunner, Result
from json_shapes import ADDRESS, INFO, envelope, parsed, shape

import trio_tlsnode as tls
from trio_tlsnode.cli import main
from trio_tlsnode.cli.connect import converse
from trio_tlsnode.cli.destination import split_destination
from trio_tlsnode.cli.failure import ExitStatus, exit_status, run
from trio_tlsnode.cli.serve import echo
from trio_tlsnode.server import Handler
from trio_tlsnode.testing import Authority, default_authority

pytestmark = pytest.mark.feature("G5")


@functools.cache
def server_context() -> tls.SecureContext:
    return tls.SecureContext(**default_authority().good("localhost", "127.0.0.1").options)


@contextlib.asynccontextmanager
async def serving(handler: Handler = echo, **options: Any) -> AsyncIterator[int]:
    """Run a server on a free port of 127.0.0.1; give the port."""
    server = tls.TLSServer(handler, options.pop("context", server_context()), **options)
    server.client_errors()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(server.serve, 0, "127.0.0.1"))
        yield server.addresses[0].port
        await server.aclose(0)


async def connected(port: int, data: bytes = b"", *, brief: bool = True, **options: Any) -> bytes:
    """Run ``tlsnode connect`` with a pipe at each end; return what it wrote."""
    host = options.pop("host", "localhost")
    options = {"ca": default_authority().ca, "server_name": host, **options}
    with pipe() as (source, source_end), pipe() as (sink_end, sink):
        received = b""

        async def write() -> None:
            await trio.to_thread.run_sync(os.write, source_end, data)
            os.close(source_end)

        async def read() -> None:
            nonlocal received
            while piece := await trio.to_thread.run_sync(os.read, sink_end, 65536):
                received += piece

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(read)
            await converse(("127.0.0.1", port), options, 10, brief, source, sink)
            os.close(sink)
    return received


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Make a pipe, to be closed unless it was meanwhile."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)


async def invoked(*args: str) -> Result:
    """Run the command with these arguments, in a thread, where it has an event loop of its own."""
    return await trio.to_thread.run_sync(partial(CliRunner().invoke, main, ["connect", *args]))


@pytest.fixture
def ca(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    path.write_bytes(default_authority().ca)
    return str(path)


# Where to


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("example.com", ("example.com", None)),
        ("example.com:8443", ("example.com", 8443)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("[::1]", ("::1", None)),
        ("[::1]:65535", ("::1", 65535)),
        ("::1", ("::1", None)),
        ("fe80::1%eth0", ("fe80::1%eth0", None)),
    ],
)
def test_a_destination_is_a_host_and_perhaps_a_port(text: str, destination: tuple[str, int | None]) -> None:
    assert split_destination(text) == destination


@pytest.mark.parametrize(
    "text", ["", ":443", "host:", "host:0", "host:65536", "host:x", "host:४", "[::1", "[]:1", "https://host/"]
)
def test_anything_else_is_wrong_usage(text: str) -> None:
    with pytest.raises(click.BadParameter):
        split_destination(text)
    result = CliRunner().invoke(main, ["connect", text])
    assert result.exit_code == ExitStatus.USAGE
    assert "Error: Invalid value for 'HOST[:PORT]'" in result.output


# What is passed on


async def test_input_is_sent_and_output_written_byte_by_byte() -> None:
    data = bytes(range(256)) * 16
    async with serving() as port:
        assert await connected(port, data) == data


async def test_at_the_end_of_input_the_server_is_told_and_its_answer_still_received() -> None:
    async def answer_at_the_end(stream: tls.TLSStream) -> None:
        received = b"".join([data async for data in stream])
        await stream.send_all(b"got " + received)

    async with serving(answer_at_the_end) as port:
        assert await connected(port, b"all of it") == b"got all of it"


async def test_the_servers_end_is_the_end_though_there_may_be_more_input() -> None:
    async def greet(stream: tls.TLSStream) -> None:
        await stream.send_all(b"bye")

    async with serving(greet) as port:
        with pipe() as (source, _), pipe() as (sink_end, sink):
            options = {"ca": default_authority().ca}
            await converse(("127.0.0.1", port), options, 10, True, source, sink)
            assert os.read(sink_end, 10) == b"bye"


async def test_who_reads_no_more_of_the_output_ends_it_quietly() -> None:
    async with serving() as port:
        with pipe() as (source, source_end), pipe() as (sink_end, sink):
            os.close(sink_end)
            os.write(source_end, b"hello")
            await converse(("127.0.0.1", port), {"ca": default_authority().ca}, 10, True, source, sink)


async def test_an_end_without_goodbye_is_a_failure_after_all_output_was_written() -> None:
    async def vanish(stream: tls.TLSStream) -> None:
        await stream.send_all(b"half of")
        await stream.receive_some()
        await trio.aclose_forcefully(stream.transport_stream)

    async with serving(vanish) as port:
        with pipe() as (source, source_end), pipe() as (sink_end, sink):
            os.write(source_end, b"?")
            with pytest.RaisesGroup(tls.TruncationError, allow_unwrapped=True, flatten_subgroups=True):
                await converse(("127.0.0.1", port), {"ca": default_authority().ca}, 10, True, source, sink)
            assert os.read(sink_end, 10) == b"half of"


# What is told


async def test_what_was_negotiated_is_told_on_the_standard_error_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with serving(alpn_protocols=["echo"]) as port:
        await connected(port, brief=False, alpn_protocols=["echo"])
    output, told = capsys.readouterr()
    assert output == ""
    lines = told.splitlines()
    assert lines[0] == f"Connected to 127.0.0.1:{port}"
    assert lines[-1] == "The server is verified."
    for label, value in {
        "protocol": "TLSv1.3",
        "cipher": "TLS_AES_256_GCM_SHA384 (256 bits)",
        "group": "X25519MLKEM768 (KEM)",
        "session": "new",
        "server name": "localhost",
        "ALPN": "echo",
        "for": "DNS:localhost, IP Address:127.0.0.1",
    }.items():
        assert f"  {label:11}  {value}" in lines
    assert any(line.startswith("  valid        2000-01-01 00:00 to 3000-01-01 00:00 UTC (") for line in lines)


async def test_brief_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as port:
        await connected(port)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("TLSv1.3 TLS_AES_256_GCM_SHA384, SNI localhost, ")
    assert line.endswith("(verified)")


@pytest.mark.parametrize("brief", [False, True])
async def test_a_server_that_is_not_verified_is_told_where_verification_is_skipped(
    capsys: pytest.CaptureFixture[str], brief: bool
) -> None:
    context = tls.SecureContext(**default_authority().expired("localhost").options)
    async with serving(context=context) as port:
        assert await connected(port, b"x", brief=brief, reject_unauthorized=False) == b"x"
    told = capsys.readouterr().err
    assert "The server is NOT verified: certificate has expired [CERT_HAS_EXPIRED]" in told
    assert "is verified" not in told


async def test_as_json_it_is_one_line_on_the_standard_error_output(ca: str) -> None:
    async with serving() as port:
        result = await invoked(f"127.0.0.1:{port}", "--ca", ca, "--json")
    assert (result.exit_code, result.stdout) == (0, "")
    (line,) = result.stderr.splitlines()
    report = {
        "local_address": ADDRESS,
        "remote_address": ADDRESS,
        "info": {**INFO, "server_name": "NoneType"},
    }
    # While the command goes on, nobody knows how it ends.
    assert shape(parsed(line)) == {**envelope("connect", report), "exit_status": "NoneType"}


async def test_as_json_a_failure_is_one_line_too(ca: str) -> None:
    async with serving() as port:
        result = await invoked(f"127.0.0.1:{port}", "--servername", "example.org", "--ca", ca, "--json")
    (line,) = result.stderr.splitlines()
    facts = parsed(line)
    assert result.exit_code == facts["exit_status"] == ExitStatus.CERTIFICATE
    assert (facts["error"]["class"], facts["error"]["host"]) == ("IdentityError", "example.org")


async def test_a_server_that_begins_in_plaintext_is_asked_for_tls(ca: str) -> None:
    server = tls.TLSServer(echo, server_context())

    async def speak_pop3(stream: trio.SocketStream) -> None:
        await stream.send_all(b"+OK hello\r\n")
        await stream.receive_some()
        await stream.send_all(b"+OK go ahead\r\n")
        await server.handle(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, speak_pop3, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        result = await invoked(f"127.0.0.1:{port}", "--starttls", "pop3", "--ca", ca, "--brief")
        nursery.cancel_scope.cancel()
    assert result.exit_code == ExitStatus.OK
    assert result.stderr.startswith("TLSv1.3 TLS_AES_256_GCM_SHA384")


async def test_a_certificate_that_is_refused_is_explained(ca: str) -> None:
    async with serving() as port:
        result = await invoked(f"127.0.0.1:{port}", "--ca", ca, "--servername", "example.org")
    assert result.exit_code == ExitStatus.CERTIFICATE
    told = result.stderr
    assert told.startswith("Error: Host: example.org. is not in the cert's altnames: DNS:localhost")
    assert "[ERR_TLS_CERT_ALTNAME_INVALID]" in told
    assert "\n  what to do   The certificate is for localhost" in told
    assert "\n  issued by    O=trustme" in told
    assert "Traceback" not in result.output


async def test_every_problem_of_a_chain_is_told(ca: str) -> None:
    context = tls.SecureContext(**Authority().good("localhost").options)
    async with serving(context=context) as port:
        result = await invoked(f"127.0.0.1:{port}", "--ca", ca, "--servername", "localhost")
    assert result.exit_code == ExitStatus.CERTIFICATE
    problems = " ".join(result.stderr.split())
    assert "[UNABLE_TO_GET_ISSUER_CERT_LOCALLY], depth 0: O=trustme" in problems
    assert "[UNABLE_TO_VERIFY_LEAF_SIGNATURE], depth 0: O=trustme" in problems


async def test_a_hint_names_the_options_of_the_command_and_keeps_a_fingerprint_in_one_piece() -> None:
    issued = default_authority().self_signed("localhost")
    async with serving(context=tls.SecureContext(**issued.options)) as port:
        result = await invoked(f"127.0.0.1:{port}", "--servername", "localhost")
    told = " ".join(result.stderr.split())
    assert "trust it by --ca; otherwise" in told
    assert tls.Certificate.from_x509(issued.certificate).fingerprint256 in told


# Exit statuses


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (tls.CertificateError("refused", code="CERT_HAS_EXPIRED"), 1),
        (tls.IdentityError("another name", host="localhost"), 1),
        (tls.ConfigurationError("wrong"), 2),
        (tls.ConfigurationTypeError("wrong"), 2),
        (tls.FeatureUnavailable("missing", feature="ocsp"), 2),
        (tls.ConnectError("refused", code="ECONNREFUSED", host="localhost", port=1), 3),
        (tls.ConnectionLost("lost"), 3),
        (tls.TruncationError("cut"), 3),
        (PermissionError(13, "Permission denied"), 3),
        (tls.NotTLS("HTTP", code="ERR_SSL_HTTP_REQUEST", looks_like="HTTP", first_bytes=b""), 4),
        (tls.PeerAlert("alert", code="ERR_SSL_TLSV1_ALERT_UNKNOWN_CA", alert=tls.Alert.unknown_ca), 4),
        (tls.ProtocolError("nothing in common"), 4),
        (tls.CallbackError("raised", callback="check_server_identity"), 4),
        (tls.HandshakeTimeout("slow", timeout=1), 5),
        (trio.TooSlowError(), 5),
        (AssertionError(), None),
    ],
)
def test_the_exit_status_tells_the_class_of_the_failure(error: Exception, status: int | None) -> None:
    assert exit_status(error) == status


async def test_nobody_listening_is_status_3() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        result = await invoked(f"127.0.0.1:{port}")
    assert result.exit_code == ExitStatus.NETWORK
    error, *advice = result.stderr.splitlines()
    assert error == f"Error: Connection refused: 127.0.0.1:{port} [ECONNREFUSED]"
    assert advice[0].startswith("  what to do   Nothing listens there: start the server")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no-such-host.invalid"])
async def test_nobody_listening_is_told_with_starttls_too(host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        result = await invoked(f"{host}:{port}", "--starttls", "imap")
    assert result.exit_code == ExitStatus.NETWORK
    told = " ".join(result.stderr.split())
    known = "the name cannot be resolved (" if host.endswith("invalid") else "Connection refused: "
    assert told.startswith(f"Error: {known}")
    assert f"{host}:{port} [E" in told
    assert " what to do " in told


async def test_a_server_that_speaks_no_tls_is_status_4() -> None:
    async def speak_plainly(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, speak_plainly, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        result = await invoked(f"127.0.0.1:{port}")
        nursery.cancel_scope.cancel()
    assert result.exit_code == ExitStatus.PROTOCOL
    told = " ".join(result.stderr.split())
    assert told.startswith("Error: the peer sent an HTTP response where TLS was expected")
    assert told.endswith(
        "what to do Name the port on which the server speaks TLS; where it begins in plaintext, "
        "ask by --starttls."
    )
    assert max(map(len, result.stderr.splitlines())) <= 80


async def test_a_server_that_says_nothing_is_status_5() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        result = await invoked(f"127.0.0.1:{port}", "--timeout", "0.02")
    assert result.exit_code == ExitStatus.TIMEOUT
    assert result.stderr == f"Error: no secure connection to 127.0.0.1:{port} in 0.02 seconds\n"


async def test_a_server_that_hangs_up_is_status_3_and_told_how_far_it_got() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
        result = await invoked(f"127.0.0.1:{listener.socket.getsockname()[1]}")
        nursery.cancel_scope.cancel()
    assert result.exit_code == ExitStatus.NETWORK
    assert "\n  progress     " in result.stderr
    assert " bytes sent, 0 received\n  what to do   Look whether the server speaks TLS" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--cert", "cert.pem"], "--cert and --key belong together"),
        (["--passphrase-file", os.devnull], "--passphrase-file is for --key"),
        (["--ca", "missing.pem"], "--ca missing.pem: there is no such file [ENOENT]"),
        (
            ["--ca", "key.pem"],
            "it holds a private key, which belongs into --key [ERR_OSSL_PEM_NO_START_LINE]",
        ),
        (["--min-version", "TLSv9"], "'TLSv9' is not a valid"),
    ],
)
def test_wrong_usage_is_status_2(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("key.pem").write_bytes(default_authority().good("localhost").key)
    result = CliRunner().invoke(main, ["connect", "localhost", *args])
    assert result.exit_code == ExitStatus.USAGE
    assert "Error: " in result.stderr
    assert message in " ".join(result.stderr.split())


async def test_the_passphrase_of_a_key_is_the_first_line_of_a_file(tmp_path: Path, ca: str) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    issued = default_authority().client("alice")
    key = load_pem_private_key(issued.key, password=None)
    cert_file, key_file, passphrase_file = (tmp_path / name for name in ("cert.pem", "key.pem", "passphrase"))
    cert_file.write_bytes(issued.cert)
    key_file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"s3cret"))
    )
    passphrase_file.write_bytes(b"s3cret\nnot this\n")
    context = tls.SecureContext(**default_authority().good("localhost").options, ca=default_authority().ca)
    names = []

    async def note_name(stream: tls.TLSStream) -> None:
        assert stream.info.peer_certificate is not None
        names.append(stream.info.peer_certificate.subject["CN"])

    async with serving(note_name, context=context, request_cert=True) as port:
        result = await invoked(
            f"localhost:{port}", "--servername", "localhost", "--ca", ca, "--cert", str(cert_file),
            "--key", str(key_file), "--passphrase-file", str(passphrase_file),
        )  # fmt: skip
    assert (result.exit_code, names) == (0, ["alice"])


# Failures as such


def test_of_failures_in_several_tasks_the_first_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        raise ExceptionGroup("two", [tls.ProtocolError("first"), OSError("second")])

    with pytest.raises(SystemExit) as ended:
        run(fail)
    assert ended.value.code == ExitStatus.PROTOCOL
    assert capsys.readouterr().err == "Error: first [ERR_SSL_PROTOCOL_ERROR]\n"


def test_an_interrupt_is_status_130_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    async def interrupt() -> None:
        raise BaseExceptionGroup("both", [KeyboardInterrupt(), tls.ConnectionLost("lost")])

    with pytest.raises(SystemExit) as ended:
        run(interrupt)
    assert ended.value.code == 130
    assert capsys.readouterr().err == ""


def test_a_defect_of_the_program_is_not_hidden() -> None:
    async def fail() -> None:
        raise ExceptionGroup("two", [tls.ProtocolError("first"), ZeroDivisionError()])

    with pytest.raises(ExceptionGroup):
        run(fail)
