"""Node.js on the other side: what both say to each other, how they part, and why they refuse each other."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import trio
from peers import (
    OTHER_SIDE,
    VERSIONS,
    Issue,
    NodePeer,
    echo,
    in_both_roles,
    in_both_versions,
    localhost,
    only,
    our_client,
    our_context,
    running_node,
    serving,
)

import trio_tlsnode as tls
from trio_tlsnode.testing import Authority, default_authority

pytestmark = pytest.mark.interop

NUMBERS = "0123456789abcdef"
REPEATED = (1 << 20) // len(NUMBERS)
MEBIBYTE = NUMBERS.encode() * REPEATED


def node_only(version: str) -> dict[str, str]:
    return {"minVersion": version, "maxVersion": version}


@contextlib.asynccontextmanager
async def node_server(
    node: str, echoing: bool = False, **options: Any
) -> AsyncIterator[tuple[NodePeer, int]]:
    """Run Node's server, for "localhost" unless told otherwise; return it and its port."""
    async with running_node(node, "server", {**localhost().options, **options}, echo=echoing) as peer:
        yield peer, (await peer.event("listening"))["port"]


@contextlib.asynccontextmanager
async def node_client(node: str, port: int, **options: Any) -> AsyncIterator[NodePeer]:
    """Run Node's client, which wants "localhost" from the default authority unless told otherwise."""
    defaults = {"port": port, "servername": "localhost", "ca": default_authority().ca}
    async with running_node(node, "client", {**defaults, **options}) as peer:
        yield peer


@contextlib.asynccontextmanager
async def connected(
    node: str, role: str, version: str, **node_options: Any
) -> AsyncIterator[tuple[tls.TLSStream, NodePeer]]:
    """Connect with Node; return our stream, which has the role that is asked for, and Node."""
    context = our_context(**only(version))
    if role == "client":
        async with node_server(node, **node_options) as (peer, port):
            async with await our_client(port, context) as stream:
                await peer.event("secureConnection")
                yield stream, peer
        return

    async def hand_over(stream: tls.TLSStream) -> None:
        to_test.send_nowait(stream)
        await trio.sleep_forever()

    to_test, from_handler = trio.open_memory_channel[tls.TLSStream](1)
    async with (
        serving(tls.TLSServer(hand_over, context)) as ours,
        node_client(node, ours.port, **node_options) as peer,
    ):
        await peer.event("secureConnect")
        yield await from_handler.receive(), peer


# What both say to each other


@pytest.mark.feature("B1")
@pytest.mark.feature("B8")
@pytest.mark.feature("B11")
@pytest.mark.feature("C2")
@pytest.mark.feature("C3")
@in_both_versions
async def test_a_node_client_with_a_certificate_is_verified_and_gets_its_mebibyte_back(
    node: str, version: str
) -> None:
    infos = []

    async def note_and_echo(stream: tls.TLSStream) -> None:
        infos.append(stream.info)
        await echo(stream)

    server = tls.TLSServer(
        note_and_echo,
        our_context(**only(version)),
        request_cert=True,
        alpn_protocols=["h2", "http/1.1"],
    )
    alice = default_authority().client("alice").options
    async with serving(server) as ours:
        async with node_client(node, ours.port, **alice, ALPNProtocols=["http/1.1", "h2"]) as peer:
            theirs = await peer.event("secureConnect")
            await peer.order("end", NUMBERS, REPEATED)
            end = await peer.event("end")
    assert end["length"] == len(MEBIBYTE)
    assert end["sha256"] == hashlib.sha256(MEBIBYTE).hexdigest()
    (info,) = infos
    assert theirs["authorized"] is True
    assert theirs["authorizationError"] is None
    assert info.authorized
    assert info.authorization_error is None
    assert info.peer_certificate is not None
    assert info.peer_certificate.subject["CN"] == "alice"
    assert info.protocol == theirs["protocol"] == version
    assert info.cipher.standard_name == theirs["cipher"]
    assert info.server_name == "localhost"
    assert info.alpn_protocol == theirs["alpnProtocol"] == "h2"


@pytest.mark.feature("A1")
@pytest.mark.feature("A4")
@pytest.mark.feature("A8")
@pytest.mark.feature("C2")
@pytest.mark.feature("C3")
@in_both_versions
async def test_our_client_with_a_certificate_is_verified_by_node_and_gets_its_mebibyte_back(
    node: str, version: str
) -> None:
    context = our_context(**default_authority().client("alice").options)
    async with node_server(
        node,
        echoing=True,
        **node_only(version),
        ca=default_authority().ca,
        requestCert=True,
        ALPNProtocols=["h2", "http/1.1"],
    ) as (peer, port):
        async with await our_client(port, context, alpn_protocols=["http/1.1", "h2"]) as stream:
            theirs = await peer.event("secureConnection")

            async def send() -> None:
                await stream.send_all(MEBIBYTE)
                await stream.send_eof()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                received = b"".join([data async for data in stream])
    assert received == MEBIBYTE
    assert stream.authorized
    assert stream.authorization_error is None
    assert theirs["authorized"] is True
    assert theirs["authorizationError"] is None
    assert theirs["peer"]["CN"] == "alice"
    assert stream.info.protocol == theirs["protocol"] == version
    assert stream.info.cipher.standard_name == theirs["cipher"]
    assert theirs["servername"] == "localhost"
    assert stream.alpn_protocol == theirs["alpnProtocol"] == "h2"


@pytest.mark.feature("A4")
async def test_node_sees_no_server_name_where_we_are_told_to_send_none(node: str) -> None:
    async with node_server(node) as (peer, port):
        async with await our_client(port, server_name="", reject_unauthorized=False):
            assert (await peer.event("secureConnection"))["servername"] is False


@pytest.mark.feature("B10")
async def test_a_node_client_gets_the_certificate_for_the_name_that_it_asks_for(node: str) -> None:
    server = tls.TLSServer(echo, our_context())
    wild = default_authority().client("wild", "*.example.com")
    server.add_context("*.example.com", tls.SecureContext(**wild.options))
    async with serving(server) as ours:
        async with node_client(node, ours.port, servername="a.example.com", rejectUnauthorized=False) as peer:
            assert (await peer.event("secureConnect"))["peer"]["CN"] == "wild"


# Whom nobody refuses

with_each_untrusted_certificate = pytest.mark.parametrize(
    ("issue", "code"),
    [
        (Authority.untrusted, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"),
        (Authority.self_signed, "DEPTH_ZERO_SELF_SIGNED_CERT"),
        (Authority.expired, "CERT_HAS_EXPIRED"),
    ],
)


@pytest.mark.feature("A5")
@with_each_untrusted_certificate
async def test_our_client_connects_to_a_node_server_that_it_need_not_trust(
    node: str, issue: Issue, code: str
) -> None:
    async with node_server(node, **issue(default_authority(), "localhost").options) as (peer, port):
        async with await our_client(port, reject_unauthorized=False) as stream:
            await peer.event("secureConnection")
            assert not stream.authorized
            assert stream.authorization_error is not None
            assert stream.authorization_error.code == code


@with_each_untrusted_certificate
async def test_a_node_client_connects_to_our_server_that_it_need_not_trust(
    node: str, issue: Issue, code: str
) -> None:
    context = tls.SecureContext(**issue(default_authority(), "localhost").options)
    async with serving(tls.TLSServer(echo, context)) as ours:
        async with node_client(node, ours.port, rejectUnauthorized=False) as peer:
            theirs = await peer.event("secureConnect")
            assert theirs["authorized"] is False
            assert theirs["authorizationError"] == code
            await peer.order("end", "echoed all the same")
            assert (await peer.event("end"))["length"] == len("echoed all the same")


# Who the client is, and how servers judge it.
with_each_unknown_client = pytest.mark.parametrize(
    ("client", "code"),
    [(None, "UNABLE_TO_GET_ISSUER_CERT"), ("mallory", "UNABLE_TO_VERIFY_LEAF_SIGNATURE")],
    ids=["no certificate", "untrusted certificate"],
)


def credentials(client: str | None) -> dict[str, Any]:
    return {} if client is None else {**default_authority().untrusted(client).options}


@pytest.mark.feature("B8")
@in_both_versions
@with_each_unknown_client
async def test_our_server_serves_a_node_client_that_it_need_not_trust(
    node: str, version: str, client: str | None, code: str
) -> None:
    infos = []

    async def note(stream: tls.TLSStream) -> None:
        infos.append(stream.info)

    server = tls.TLSServer(note, our_context(**only(version)), request_cert=True, reject_unauthorized=False)
    async with serving(server) as ours, node_client(node, ours.port, **credentials(client)) as peer:
        await peer.event("end")
    (info,) = infos
    assert not info.authorized
    assert info.authorization_error is not None
    assert info.authorization_error.code == code


@pytest.mark.feature("A5")
@in_both_versions
@with_each_unknown_client
async def test_a_node_server_serves_our_client_that_it_need_not_trust(
    node: str, version: str, client: str | None, code: str
) -> None:
    context = tls.SecureContext(ca=default_authority().ca, **credentials(client))
    async with node_server(
        node,
        echoing=True,
        **node_only(version),
        ca=default_authority().ca,
        requestCert=True,
        rejectUnauthorized=False,
    ) as (peer, port):
        async with await our_client(port, context) as stream:
            theirs = await peer.event("secureConnection")
            await stream.send_all(b"echoed all the same")
            assert await stream.receive_some() == b"echoed all the same"
    assert theirs["authorized"] is False
    assert theirs["authorizationError"] == code


# How both part


@pytest.mark.feature("A13")
@in_both_versions
@in_both_roles
async def test_node_may_answer_after_our_goodbye(node: str, role: str, version: str) -> None:
    async with connected(node, role, version, allowHalfOpen=True) as (stream, peer):
        await stream.send_all(b"question")
        await stream.send_eof()
        assert (await peer.event("end"))["length"] == len("question")
        await peer.order("write", "ans")
        assert await stream.receive_some() == b"ans"
        await peer.order("end", "wer")
        assert b"".join([data async for data in stream]) == b"wer"
        await stream.aclose()
        assert (await peer.event("close"))["hadError"] is False


@pytest.mark.feature("A13")
@in_both_versions
@in_both_roles
async def test_node_answers_our_goodbye_at_once_where_it_allows_no_half(
    node: str, role: str, version: str
) -> None:
    async with connected(node, role, version, allowHalfOpen=False) as (stream, peer):
        await peer.order("write", "unasked")
        assert await stream.receive_some() == b"unasked"
        await stream.send_all(b"question")
        await stream.send_eof()
        assert (await peer.event("end"))["length"] == len("question")
        assert await stream.receive_some() == b""
        assert (await peer.event("close"))["hadError"] is False


@pytest.mark.feature("A13")
@in_both_versions
@in_both_roles
@pytest.mark.parametrize("allow_half_open", [True, False])
async def test_we_may_answer_after_nodes_goodbye(
    node: str, role: str, version: str, allow_half_open: bool
) -> None:
    async with connected(node, role, version, allowHalfOpen=allow_half_open) as (stream, peer):
        await peer.order("end", "question")
        assert b"".join([data async for data in stream]) == b"question"
        await stream.send_all(b"ans")
        await stream.send_all(b"wer")
        await stream.aclose()
        assert (await peer.event("end"))["length"] == len("answer")
        assert (await peer.event("close"))["hadError"] is False


@pytest.mark.feature("C24")
@in_both_versions
@in_both_roles
async def test_a_node_peer_that_is_gone_without_goodbye_is_a_truncation(
    node: str, role: str, version: str
) -> None:
    async with connected(node, role, version) as (stream, peer):
        await peer.order("write", "half of it")
        assert await stream.receive_some() == b"half of it"
        await peer.order("destroy")
        with pytest.raises(tls.TruncationError):
            await stream.receive_some()


@pytest.mark.feature("C24")
@pytest.mark.parametrize("answer", ["answer", "answerSoon"], ids=["in its handler", "a turn later"])
async def test_a_node_server_of_tls_1_3_that_ends_in_its_handler_says_no_goodbye(
    node: str, answer: str
) -> None:
    options = {**localhost().options, **node_only("TLSv1.3")}
    async with running_node(node, "server", options, **{answer: "hello"}) as peer:
        port = (await peer.event("listening"))["port"]
        async with await our_client(port, https_compatible=True) as stream:
            assert b"".join([data async for data in stream]) == b"hello"
        async with await our_client(port) as stream:
            assert await stream.receive_some() == b"hello"
            if answer == "answer":
                with pytest.raises(tls.TruncationError):
                    await stream.receive_some()
            else:
                assert await stream.receive_some() == b""


# Why both refuse each other


class Refusal(NamedTuple):
    """A connection that failed: our error, and what Node told of it."""

    role: str
    ours: tls.ConnectionFailed
    node: dict[str, Any]

    @property
    def codes(self) -> dict[str, str]:
        """The code on each side."""
        return {self.role: self.ours.code, OTHER_SIDE[self.role]: self.node["code"]}


async def refusal(
    node: str, role: str, ours: dict[str, Any], theirs: dict[str, Any], **options: Any
) -> Refusal:
    """Have a connection fail.

    Args:
        node: The path of Node.js.
        role: Our role.
        ours: The options of our context.
        theirs: The options of Node's client or server.
        options: The options of our client or server.
    """
    context = our_context(**ours)
    if role == "client":
        async with node_server(node, **theirs) as (peer, port):
            with pytest.raises(tls.ConnectionFailed) as raised:
                async with await our_client(port, context, **options) as stream:
                    # In TLS 1.3, a client is done before the server has judged its certificate.
                    await stream.receive_some()
            return Refusal(role, raised.value, await peer.event("tlsClientError"))
    async with serving(tls.TLSServer(echo, context, **options)) as server:
        async with node_client(node, server.port, **theirs) as peer:
            return Refusal(role, await server.failure(), await peer.event("error"))


# How a server's certificate is made, why clients refuse it, and what the server hears if it hears anything.
with_each_bad_certificate = pytest.mark.parametrize(
    ("issue", "code", "alert"),
    [
        (Authority.untrusted, "UNABLE_TO_VERIFY_LEAF_SIGNATURE", "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA"),
        (Authority.expired, "CERT_HAS_EXPIRED", "ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED"),
        (Authority.wrong_name, "ERR_TLS_CERT_ALTNAME_INVALID", "ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE"),
    ],
)


@pytest.mark.feature("A6")
@pytest.mark.feature("D3")
@in_both_versions
@with_each_bad_certificate
async def test_a_node_server_hears_why_our_client_refuses_its_certificate(
    node: str, version: str, issue: Issue, code: str, alert: str
) -> None:
    presented = issue(default_authority(), "localhost").options
    refused = await refusal(node, "client", {}, {**presented, **node_only(version)})
    assert refused.codes == {"client": code, "server": alert}
    assert isinstance(refused.ours, tls.CertificateError)
    assert isinstance(refused.ours, tls.IdentityError) is (issue is Authority.wrong_name)
    assert refused.ours.phase == "handshake"


@pytest.mark.feature("B6")
@in_both_versions
@with_each_bad_certificate
async def test_a_node_client_refuses_our_certificate_with_our_codes_and_hangs_up(
    node: str, version: str, issue: Issue, code: str, alert: str
) -> None:
    presented = issue(default_authority(), "localhost").options
    refused = await refusal(node, "server", {**presented, **only(version)}, {})
    assert refused.node["code"] == code
    # Node judges after its handshake, and tells nobody.  Before TLS 1.3, ours is done by then too.
    assert isinstance(refused.ours, tls.ConnectionLost)
    assert refused.ours.phase == ("secure" if version == "TLSv1.2" else "handshake")


@pytest.mark.feature("D2")
async def test_node_gives_the_same_reason_why_a_certificate_is_for_another_name(node: str) -> None:
    presented = default_authority().wrong_name("localhost").options
    seen_by_us = await refusal(node, "client", {}, {**presented})
    seen_by_node = await refusal(node, "server", {**presented}, {})
    assert seen_by_us.ours.reason == seen_by_node.node["reason"]


@pytest.mark.feature("F8")
@in_both_roles
@pytest.mark.parametrize(("ours", "theirs"), [VERSIONS, VERSIONS[::-1]])
async def test_each_side_has_its_code_for_no_version_in_common(
    node: str, role: str, ours: str, theirs: str
) -> None:
    refused = await refusal(node, role, only(ours), node_only(theirs))
    assert refused.codes == {
        "client": "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION",
        "server": "ERR_SSL_UNSUPPORTED_PROTOCOL",
    }


@pytest.mark.feature("F7")
@in_both_versions
@in_both_roles
async def test_each_side_has_its_code_for_no_cipher_in_common(node: str, role: str, version: str) -> None:
    refused = await refusal(
        node,
        role,
        {"ciphers": "TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256", **only(version)},
        {"ciphers": "TLS_AES_256_GCM_SHA384:ECDHE-ECDSA-AES256-GCM-SHA384"},
    )
    assert refused.codes == {
        "client": "ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE",
        "server": "ERR_SSL_NO_SHARED_CIPHER",
    }


@pytest.mark.feature("B11")
@in_both_versions
@in_both_roles
async def test_each_side_has_its_code_for_no_application_protocol_in_common(
    node: str, role: str, version: str
) -> None:
    refused = await refusal(
        node, role, only(version), {"ALPNProtocols": ["imap"]}, alpn_protocols=["h2", "http/1.1"]
    )
    assert refused.codes == {
        "client": "ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        "server": "ERR_SSL_NO_APPLICATION_PROTOCOL",
    }


@pytest.mark.feature("B8")
@in_both_versions
@in_both_roles
async def test_each_side_has_its_code_for_a_missing_client_certificate(
    node: str, role: str, version: str
) -> None:
    without: dict[str, Any] = {"key": None, "cert": None}
    if role == "client":
        demand = {"requestCert": True, "ca": default_authority().ca}
        refused = await refusal(node, role, {**without, **only(version)}, demand)
        assert isinstance(refused.ours, tls.PeerAlert)
        assert refused.ours.phase == ("handshake" if version == "TLSv1.2" else "secure")
    else:
        refused = await refusal(node, role, only(version), {}, request_cert=True)
        assert isinstance(refused.ours, tls.CertificateError)
        assert refused.ours.phase == "handshake"
    assert refused.codes == {
        "client": {
            "TLSv1.2": "ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE",
            "TLSv1.3": "ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED",
        }[version],
        "server": "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE",
    }


@pytest.mark.feature("B8")
@in_both_versions
async def test_a_node_client_hears_why_our_server_refuses_its_certificate(node: str, version: str) -> None:
    refused = await refusal(node, "server", only(version), credentials("mallory"), request_cert=True)
    assert refused.codes == {
        "client": "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA",
        "server": "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    }


@pytest.mark.feature("B8")
@in_both_versions
async def test_a_node_server_refuses_our_certificate_without_a_word(node: str, version: str) -> None:
    demand = {"requestCert": True, "ca": default_authority().ca}
    refused = await refusal(node, "client", {**credentials("mallory"), **only(version)}, demand)
    assert isinstance(refused.ours, tls.ConnectionLost)
    assert refused.node["code"] == "ECONNRESET"


# Who speaks no TLS


@pytest.mark.feature("B6")
@pytest.mark.feature("G11")
async def test_a_node_http_client_on_our_port_is_named(node: str) -> None:
    async with serving(tls.TLSServer(echo, our_context())) as server:
        async with running_node(node, "http_client", {"port": server.port}) as peer:
            error = await server.failure()
            assert (await peer.event("error"))["code"] == "ECONNRESET"
    assert isinstance(error, tls.NotTLS)
    assert error.looks_like == "an HTTP request"
    assert error.code == "ERR_SSL_HTTP_REQUEST"
    assert error.phase == "hello"


@pytest.mark.feature("G11")
async def test_a_node_http_server_on_the_port_of_our_client_is_named(node: str) -> None:
    async with running_node(node, "http_server", {}) as peer:
        port = (await peer.event("listening"))["port"]
        with pytest.raises(tls.NotTLS) as raised:
            await our_client(port)
    assert raised.value.looks_like == "an HTTP response"
    assert raised.value.code == "ERR_SSL_WRONG_VERSION_NUMBER"
