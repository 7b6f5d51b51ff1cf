"""Stapled OCSP responses, from others to us and from us to others: Node.js, the openssl command and curl."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from peers import (
    NodePeer,
    echo,
    in_both_versions,
    localhost,
    only,
    our_client,
    our_context,
    running,
    running_node,
    serving,
)
from test_openssl import SWITCHES, s_client, s_server

import trio_tlsnode as tls
from trio_tlsnode.testing import default_authority

pytestmark = pytest.mark.interop


@functools.cache
def response_to(**options: Any) -> bytes:
    """Return a response to the certificate for "localhost"."""
    return default_authority().ocsp_response(localhost(), **options)


def our_server(version: str, **options: Any) -> tls.TLSServer:
    return tls.TLSServer(echo, our_context(**only(version)), **options)


# Node.js


@contextlib.asynccontextmanager
async def stapling_node(node: str, version: str, staple: bytes | None) -> AsyncIterator[tuple[NodePeer, int]]:
    """Run Node's server for "localhost", which staples a response; return it and its port."""
    options = {
        **localhost().options,
        "ca": default_authority().ca,
        "minVersion": version,
        "maxVersion": version,
    }
    told = None if staple is None else staple.hex()
    async with running_node(node, "stapling_server", options, staple=told) as peer:
        yield peer, (await peer.event("listening"))["port"]


@pytest.mark.feature("A10")
@in_both_versions
async def test_our_client_verifies_what_node_staples(node: str, version: str) -> None:
    async with stapling_node(node, version, response_to()) as (peer, port):
        async with await our_client(port, ocsp="require") as stream:
            request = await peer.event("OCSPRequest")
            await peer.event("secureConnection")
            assert stream.authorized
            assert stream.info.protocol == version
            assert stream.info.ocsp_response == response_to()
            # It staples for the same certificate and issuer as we would.
            (der,) = our_context().certificates
            certificate, issuer = our_context().issued(der)
            assert issuer is not None
            assert request["certificate"] == certificate.raw.hex()
            assert request["issuer"] == issuer.raw.hex()


@pytest.mark.feature("A10")
@pytest.mark.feature("D4")
@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: response_to(status="revoked"), "CERT_REVOKED"),
        (lambda: default_authority().expired_ocsp_response(localhost()), "OCSP_HAS_EXPIRED"),
        (lambda: default_authority().wrong_ocsp_response(localhost()), "OCSP_WRONG_CERTIFICATE"),
        (lambda: b"garbage", "OCSP_RESP_INVALID"),
        (lambda: None, "OCSP_NO_RESPONSE"),
    ],
    ids=["revoked", "expired", "wrong certificate", "garbage", "none"],
)
@in_both_versions
async def test_node_hears_why_our_client_refuses_what_it_staples(
    node: str, make: Any, code: str, version: str
) -> None:
    async with stapling_node(node, version, make()) as (peer, port):
        with pytest.raises(tls.CertificateError) as refused:
            await our_client(port, ocsp="require")
        assert refused.value.code == code
        told = await peer.event("tlsClientError")
    assert told["code"] == "ERR_SSL_TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE"


@pytest.mark.feature("B18")
@pytest.mark.parametrize("staple", [True, False], ids=["response", "none"])
@in_both_versions
async def test_a_node_client_gets_the_bytes_that_our_server_staples(
    node: str, version: str, *, staple: bool
) -> None:
    response = response_to() if staple else None
    options = {"servername": "localhost", "ca": default_authority().ca}
    async with serving(our_server(version, ocsp_callback=lambda *_: response)) as ours:
        async with running_node(node, "stapling_client", {"port": ours.port, **options}) as peer:
            event = await peer.event("OCSPResponse")
            assert event["response"] == (response and response.hex())
            assert (await peer.event("secureConnect"))["protocol"] == version
            await peer.order("end")
            await peer.event("close")


# The openssl command


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    """The file of the authority that others trust."""
    path = tmp_path / "ca.pem"
    path.write_bytes(default_authority().ca)
    return path


@pytest.mark.feature("B18")
@pytest.mark.parametrize(
    ("status", "lines"),
    [
        ("good", ["OCSP Response Status: successful (0x0)", "Cert Status: good"]),
        ("revoked", ["OCSP Response Status: successful (0x0)", "Cert Status: revoked"]),
        (None, ["OCSP response: no response sent"]),
    ],
)
@in_both_versions
async def test_s_client_shows_what_our_server_staples(
    openssl: str, trusted: Path, status: str | None, lines: list[str], version: str
) -> None:
    async def callback(*_: object) -> bytes | None:
        return None if status is None else response_to(status=status)

    async with serving(our_server(version, ocsp_callback=callback)) as ours:
        async with s_client(openssl, ours.port, trusted, "-status", SWITCHES[version]) as client:
            for line in lines:
                await client.line_with(line)
            await client.line_with("Verify return code: 0 (ok)")
            await client.say_no_more()
            await client.everything()


@pytest.mark.feature("A10")
@pytest.mark.parametrize(("status", "code"), [("good", None), ("revoked", "CERT_REVOKED")])
@in_both_versions
async def test_our_client_judges_the_status_file_of_s_server(
    openssl: str, tmp_path: Path, status: str, code: str | None, version: str
) -> None:
    response = response_to(status=status)
    status_file = tmp_path / "status.der"
    status_file.write_bytes(response)
    async with s_server(openssl, tmp_path, SWITCHES[version], "-status_file", status_file) as (server, port):
        if code is None:
            async with await our_client(port, ocsp="require") as stream:
                assert stream.authorized
                assert stream.info.ocsp_response == response
            return
        with pytest.raises(tls.CertificateError) as refused:
            await our_client(port, ocsp="require")
        assert refused.value.code == code
        assert f"SSL alert number {tls.Alert.bad_certificate_status_response}" in await server.everything()


# curl


async def one_page(stream: tls.TLSStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nwelcome")


@pytest.mark.feature("B18")
@pytest.mark.parametrize(
    ("status", "line"), [("good", "status: good (0)"), ("revoked", "status: revoked (1)")]
)
@in_both_versions
async def test_curl_verifies_the_status_that_our_server_staples(
    curl: str, trusted: Path, status: str, line: str, version: str
) -> None:
    response = response_to(status=status)
    server = tls.TLSServer(one_page, our_context(**only(version)), ocsp_callback=lambda *_: response)
    async with serving(server) as ours:
        async with running(
            *(curl, "--silent", "--show-error", "--verbose", "--cert-status", "--cacert", trusted),
            *("--resolve", f"localhost:{ours.port}:127.0.0.1", f"https://localhost:{ours.port}/"),
        ) as process:
            heard = await process.everything()
    if "doesn't support" in heard:
        pytest.skip("this curl does not look at a stapled status")
    assert f"SSL certificate {line}" in heard
    assert ("welcome" in heard) is (status == "good")
