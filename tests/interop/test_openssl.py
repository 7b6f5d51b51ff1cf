"""The openssl command on the other side: ``s_client`` of our servers, ``s_server`` of our clients."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from peers import (
    ForeignProcess,
    Issue,
    echo,
    in_both_versions,
    localhost,
    only,
    our_client,
    our_context,
    running,
    serving,
)

import trio_tlsnode as tls
from trio_tlsnode.testing import Authority, IssuedCertificate, TransportWrapper, default_authority

pytestmark = pytest.mark.interop

SWITCHES = {"TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    """The file of the authority that s_client trusts."""
    path = tmp_path / "ca.pem"
    path.write_bytes(default_authority().ca)
    return path


@contextlib.asynccontextmanager
async def s_client(
    openssl: str, port: int, trusted: Path, *switches: str | Path
) -> AsyncIterator[ForeignProcess]:
    async with running(
        openssl,
        "s_client",
        *("-connect", f"127.0.0.1:{port}"),
        *("-CAfile", trusted, "-verify_return_error"),
        *switches,
    ) as client:
        yield client


@contextlib.asynccontextmanager
async def s_server(
    openssl: str, folder: Path, *switches: str | Path, presented: IssuedCertificate | None = None
) -> AsyncIterator[tuple[ForeignProcess, int]]:
    """Run s_server for one connection; it reverses each line."""
    key, cert = (presented or localhost()).write_to(folder)
    async with running(
        openssl,
        "s_server",
        *("-accept", "127.0.0.1:0", "-naccept", "1", "-rev"),
        *("-key", key, "-cert_chain", cert, "-cert", cert),
        *switches,
    ) as server:
        accepting = await server.line_with("ACCEPT")
        yield server, int(accepting.rpartition(":")[2])


# s_client and our server


@pytest.mark.feature("B1")
@in_both_versions
async def test_s_client_gets_its_line_back(openssl: str, trusted: Path, version: str) -> None:
    async with serving(tls.TLSServer(echo, our_context())) as ours:
        async with s_client(openssl, ours.port, trusted, "-brief", SWITCHES[version]) as client:
            await client.line_with(f"Protocol version: {version}")
            await client.line_with("Verification: OK")
            await client.say("over and back")
            await client.line_with("over and back")
            await client.say_no_more()
            assert "DONE" in await client.everything()


@pytest.mark.feature("B10")
@pytest.mark.feature("B11")
@pytest.mark.feature("C3")
@in_both_versions
async def test_s_client_gets_the_certificate_and_the_protocol_that_it_asks_for(
    openssl: str, trusted: Path, version: str
) -> None:
    infos = []

    async def note(stream: tls.TLSStream) -> None:
        infos.append(stream.info)

    server = tls.TLSServer(note, our_context(), alpn_protocols=["h2", "http/1.1"])
    other = default_authority().good("other.example")
    server.add_context("other.example", tls.SecureContext(**other.options))
    async with serving(server) as ours:
        async with s_client(
            openssl,
            ours.port,
            trusted,
            SWITCHES[version],
            *("-servername", "other.example", "-verify_hostname", "other.example"),
            *("-alpn", "http/1.1,h2"),
        ) as client:
            await client.line_with("Verified peername: other.example")
            await client.line_with("ALPN protocol: h2")
            await client.everything()
    (info,) = infos
    assert info.server_name == "other.example"
    assert info.alpn_protocol == "h2"


@pytest.mark.feature("E1")
async def test_s_client_reconnects_with_its_session(openssl: str, trusted: Path) -> None:
    server = tls.TLSServer(echo, our_context())
    async with serving(server) as ours:
        async with s_client(openssl, ours.port, trusted, "-tls1_2", "-reconnect") as client:
            await client.line_with("New, TLSv1.2")
            for _ in range(5):
                await client.line_with("Reused, TLSv1.2")
            await client.say("still there")
            await client.line_with("still there")
    assert server.statistics().secure == 6
    assert server.statistics().resumed == 5


@pytest.mark.feature("E1")
@in_both_versions
async def test_s_client_resumes_a_session_that_it_has_saved(
    openssl: str, trusted: Path, tmp_path: Path, version: str
) -> None:
    saved = tmp_path / "session.pem"
    async with serving(tls.TLSServer(echo, our_context())) as ours:
        async with s_client(openssl, ours.port, trusted, SWITCHES[version], "-sess_out", saved) as client:
            await client.say("whatever brings the tickets")
            await client.line_with("whatever brings the tickets")
            await client.say_no_more()
            await client.everything()
        async with s_client(openssl, ours.port, trusted, SWITCHES[version], "-sess_in", saved) as client:
            await client.line_with(f"Reused, {version}")


async def test_s_client_renews_its_keys(openssl: str, trusted: Path) -> None:
    async with serving(tls.TLSServer(echo, our_context())) as ours:
        async with s_client(openssl, ours.port, trusted, "-tls1_3") as client:
            for renewal in ("with the old keys", "with new keys", "with newer keys"):
                await client.say(renewal)
                await client.line_with(renewal)
                # Asks us to renew ours as well.
                await client.say("K")
                await client.line_with("KEYUPDATE")


# What s_client is told


async def refusal(
    openssl: str, trusted: Path, version: str, *switches: str | Path, **options: Any
) -> tuple[tls.ConnectionFailed, str]:
    """Have our server refuse s_client; return its error, and all that s_client says."""
    server = tls.TLSServer(echo, our_context(), **options)
    async with (
        serving(server) as ours,
        s_client(openssl, ours.port, trusted, SWITCHES[version], *switches) as client,
    ):
        return await ours.failure(), await client.everything()


@pytest.mark.feature("B8")
@in_both_versions
@pytest.mark.parametrize(
    ("issue", "code", "number"),
    [
        (Authority.untrusted, "UNABLE_TO_VERIFY_LEAF_SIGNATURE", 48),
        (Authority.expired, "CERT_HAS_EXPIRED", 45),
    ],
)
async def test_s_client_hears_why_its_certificate_is_refused(
    openssl: str, trusted: Path, tmp_path: Path, version: str, issue: Issue, code: str, number: int
) -> None:
    key, cert = issue(default_authority(), "mallory").write_to(tmp_path)
    error, heard = await refusal(openssl, trusted, version, "-key", key, "-cert", cert, request_cert=True)
    assert isinstance(error, tls.CertificateError)
    assert error.code == code
    assert f"SSL alert number {number}" in heard


@pytest.mark.feature("B8")
@pytest.mark.parametrize(("version", "number"), [("TLSv1.2", 40), ("TLSv1.3", 116)])
async def test_s_client_hears_that_it_needs_a_certificate(
    openssl: str, trusted: Path, version: str, number: int
) -> None:
    error, heard = await refusal(openssl, trusted, version, request_cert=True)
    assert error.code == "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert f"SSL alert number {number}" in heard


@pytest.mark.feature("B11")
@in_both_versions
async def test_s_client_hears_that_there_is_no_protocol_in_common(
    openssl: str, trusted: Path, version: str
) -> None:
    error, heard = await refusal(openssl, trusted, version, "-alpn", "imap", alpn_protocols=["h2"])
    assert error.code == "ERR_SSL_NO_APPLICATION_PROTOCOL"
    assert "SSL alert number 120" in heard


class Garbling(TransportWrapper):
    """A transport that changes the last byte of whatever it receives, once it is told to."""

    garbling = False

    async def _receive(self, max_bytes: int) -> bytes:
        data = await super()._receive(max_bytes)
        return data[:-1] + bytes((data[-1] ^ 1,)) if self.garbling else data


@in_both_versions
async def test_s_client_hears_that_its_record_arrived_garbled(
    openssl: str, trusted: Path, version: str
) -> None:
    async def garble_and_echo(stream: tls.TLSStream) -> None:
        assert isinstance(stream.transport_stream, Garbling)
        stream.transport_stream.garbling = True
        await stream.send_all(b"go on\n")
        await echo(stream)

    server = tls.TLSServer(garble_and_echo, our_context())
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        port = listener.socket.getsockname()[1]
        async with s_client(openssl, port, trusted, SWITCHES[version]) as client:
            nursery.start_soon(server.handle, Garbling(await listener.accept()))
            await client.line_with("go on")
            await client.say("of which a bit is changed")
            assert "SSL alert number 20" in await client.everything()
    assert server.statistics().failed == {"ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC": 1}


# Our client and s_server


@pytest.mark.feature("A1")
@in_both_versions
async def test_s_server_reverses_our_lines(openssl: str, tmp_path: Path, version: str) -> None:
    async with s_server(openssl, tmp_path, SWITCHES[version], "-alpn", "h2,http/1.1") as (server, port):
        async with await our_client(port, alpn_protocols=["http/1.1", "h2"]) as stream:
            await stream.send_all(b"forwards\n")
            assert await stream.receive_some() == b"sdrawrof\n"
            assert stream.authorized
            assert stream.info.protocol == version
            assert stream.alpn_protocol == "h2"
        await server.line_with("CONNECTION CLOSED")


@pytest.mark.feature("A6")
@in_both_versions
@pytest.mark.parametrize(
    ("issue", "number"),
    [
        (Authority.untrusted, 48),
        (Authority.expired, 45),
        (Authority.wrong_name, 42),
        (Authority.wrong_purpose, 43),
    ],
)
async def test_s_server_hears_why_its_certificate_is_refused(
    openssl: str, tmp_path: Path, version: str, issue: Issue, number: int
) -> None:
    presented = issue(default_authority(), "localhost")
    async with s_server(openssl, tmp_path, SWITCHES[version], presented=presented) as (server, port):
        with pytest.raises(tls.CertificateError):
            await our_client(port)
        assert f"SSL alert number {number}" in await server.everything()


@pytest.mark.feature("B8")
@in_both_versions
async def test_s_server_tells_our_client_why_it_refuses_its_certificate(
    openssl: str, tmp_path: Path, trusted: Path, version: str
) -> None:
    context = our_context(**default_authority().untrusted("mallory").options, **only(version))
    async with s_server(openssl, tmp_path, "-Verify", "1", "-CAfile", trusted, "-verify_return_error") as (
        _,
        port,
    ):
        with pytest.raises(tls.PeerAlert) as raised:
            async with await our_client(port, context) as stream:
                await stream.receive_some()
    assert raised.value.alert is tls.Alert.unknown_ca
    assert raised.value.code == "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA"
    # In TLS 1.3, a client is done before the server has judged its certificate.
    assert raised.value.phase == ("handshake" if version == "TLSv1.2" else "secure")
