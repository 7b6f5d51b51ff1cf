"""Names, protocols and groups, with Node.js and the openssl command on the other side."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from engine_pairs import node_table
from peers import (
    NodePeer,
    in_both_versions,
    only,
    our_client,
    running,
    running_node,
    serving,
)
from test_alpn import ThrownError, answering
from test_sni import agent, agents, authorities, choosing, context_for

import trio_tlsnode as tls
from trio_tlsnode import EphemeralKey
from trio_tlsnode.dh import DHGroup
from trio_tlsnode.testing import default_authority

pytestmark = pytest.mark.interop

NODE = node_table("alpn-sni")
ALPN, ADDED, CALLED = NODE["alpn"], NODE["sni"]["addContext"], NODE["sni"]["SNICallback"]
# Node closes the connection where its callbacks fail, mostly without an alert.
SILENT = "ECONNRESET"


def ca(*names: str) -> list[bytes]:
    return [authorities()[name].ca for name in names]


def presented(name: str, key_type: Any = None) -> dict[str, Any]:
    return {**default_authority().good(name, key_type=key_type).options}


@contextlib.asynccontextmanager
async def node_server(
    node: str, options: dict[str, Any], **config: Any
) -> AsyncIterator[tuple[NodePeer, int]]:
    """Run Node's server; return it and its port."""
    async with running_node(node, "choosing", options, role="server", **config) as peer:
        yield peer, (await peer.event("listening"))["port"]


@contextlib.asynccontextmanager
async def node_client(node: str, port: int, **options: Any) -> AsyncIterator[NodePeer]:
    """Run Node's client; it accepts any server."""
    options = {"port": port, "rejectUnauthorized": False, **options}
    async with running_node(node, "choosing", options, role="client") as peer:
        yield peer


class Noting:
    """A handler that keeps what was negotiated, and ends each connection.

    Attributes:
        infos: What was negotiated, of each connection.
    """

    def __init__(self) -> None:
        self.infos: list[tls.ConnectionInfo] = []

    async def __call__(self, stream: tls.TLSStream) -> None:
        self.infos.append(stream.info)


# Protocols

each_negotiation = pytest.mark.parametrize(ALPN["columns"], ALPN["rows"].values(), ids=ALPN["rows"])


@pytest.mark.feature("B11")
@pytest.mark.feature("B12")
@each_negotiation
async def test_our_server_and_a_node_client_negotiate_as_node_does(
    node: str,
    server: Any,
    callback: str | None,
    client: Any,
    selected: str | None,
    client_error: str | None,
    server_error: str | None,
) -> None:
    handler = Noting()
    choosing_server = tls.TLSServer(
        handler,
        tls.SecureContext(**presented("localhost")),
        alpn_protocols=server,
        alpn_callback=None if callback is None else answering(callback),
    )
    async with serving(choosing_server) as ours, node_client(node, ours.port, ALPNProtocols=client) as peer:
        if server_error is None:
            assert (await peer.event("secureConnect"))["alpnProtocol"] == (selected or False)
            await peer.event("end")
            (info,) = handler.infos
            assert info.alpn_protocol == selected
            return
        error = await ours.failure()
        assert (await peer.event("error"))["code"] == client_error
    if server_error == "what was thrown":
        assert isinstance(error.__cause__, ThrownError)
    else:
        assert error.code == server_error


@pytest.mark.feature("A8")
@each_negotiation
async def test_our_client_and_a_node_server_negotiate_as_node_does(
    node: str,
    server: Any,
    callback: str | None,
    client: Any,
    selected: str | None,
    client_error: str | None,
    server_error: str | None,
) -> None:
    options = {**presented("localhost"), "ALPNProtocols": server}
    async with node_server(node, options, alpn=callback) as (peer, port):
        connecting = our_client(port, tls.SecureContext(ca=default_authority().ca), alpn_protocols=client)
        if server_error is None:
            async with await connecting as stream:
                assert stream.alpn_protocol == selected
                assert (await peer.event("secureConnection"))["alpnProtocol"] == (selected or False)
            return
        with pytest.raises(tls.ConnectionFailed) as caught:
            await connecting
    assert caught.value.code in (client_error, SILENT)


@pytest.mark.feature("B12")
async def test_a_node_client_s_name_and_protocols_are_what_our_callback_is_told(node: str) -> None:
    told: list[tuple[str | None, tuple[str, ...]]] = []

    def choose(choice: tls.Choice) -> str:
        told.append((choice.server_name, choice.protocols))
        return "h2"

    server = tls.TLSServer(Noting(), tls.SecureContext(**presented("localhost")), alpn_callback=choose)
    async with serving(server) as ours:
        for options in ({"servername": "a.example"}, {"servername": ""}, {}):
            async with node_client(node, ours.port, ALPNProtocols=["x", "h2"], **options) as peer:
                await peer.event("secureConnect")
    assert told == [("a.example", ("x", "h2")), (None, ("x", "h2")), (None, ("x", "h2"))]


@pytest.mark.feature("B12")
async def test_our_name_and_protocols_are_what_node_s_callback_is_told(node: str) -> None:
    async with node_server(node, presented("localhost"), alpn="h2") as (peer, port):
        for name, servername in (("a.example", "a.example"), ("", False)):
            async with await our_client(
                port, server_name=name, alpn_protocols=["x", "h2"], reject_unauthorized=False
            ):
                choice = await peer.event("choice")
                assert (choice["servername"], choice["protocols"]) == (servername, ["x", "h2"])
                assert (await peer.event("secureConnection"))["servername"] == servername


@pytest.mark.feature("B13")
@in_both_versions
async def test_a_node_client_gets_the_certificate_that_goes_with_its_protocol(
    node: str, version: str
) -> None:
    special = tls.SecureContext(**default_authority().client("special", "localhost").options)

    def choose(choice: tls.Choice) -> str:
        if "special" in choice.protocols:
            choice.use_credentials(special)
        return choice.protocols[0]

    own = tls.SecureContext(**presented("localhost", "RSA"), **only(version))
    async with serving(tls.TLSServer(Noting(), own, alpn_callback=choose)) as ours:
        for protocol, name in (("special", "special"), ("h2", None)):
            async with node_client(node, ours.port, ALPNProtocols=[protocol]) as peer:
                secure = await peer.event("secureConnect")
                assert (secure["alpnProtocol"], secure["peer"].get("CN")) == (protocol, name)


@pytest.mark.feature("B13")
async def test_our_client_gets_the_certificate_that_goes_with_its_protocol_at_node(node: str) -> None:
    special = {"credentials": presented("special.example")}
    async with node_server(node, presented("localhost"), alpn=special) as (_, port):
        for protocols, name in ((["special"], "special.example"), (None, "localhost")):
            async with await our_client(
                port, server_name=name, alpn_protocols=protocols, reject_unauthorized=False
            ) as stream:
                assert stream.info.peer_certificate is not None
                assert stream.info.peer_certificate.subject_alt_name == f"DNS:{name}"


# Names

each_added = pytest.mark.parametrize(ADDED["columns"], ADDED["rows"].values(), ids=ADDED["rows"])
each_called = pytest.mark.parametrize(CALLED["columns"], CALLED["rows"].values(), ids=CALLED["rows"])
ALTNAME = "ERR_TLS_CERT_ALTNAME_INVALID"


@pytest.mark.feature("B10")
@each_added
async def test_our_added_contexts_serve_a_node_client_as_node_s_do(
    node: str, servername: str, client_ca: str, *, good: bool
) -> None:
    handler = Noting()
    server = tls.TLSServer(handler, agent(ADDED["default"]))
    for pattern, name in ADDED["contexts"].items():
        server.add_context(pattern, agent(name))
    async with serving(server) as ours:
        async with node_client(node, ours.port, servername=servername, ca=ca(client_ca)) as peer:
            secure = await peer.event("secureConnect")
            await peer.event("end")
    assert (secure["authorizationError"] == ALTNAME) is good
    (info,) = handler.infos
    assert info.server_name == secure["servername"] == servername


@pytest.mark.feature("A4")
@each_added
async def test_node_s_added_contexts_serve_our_client(
    node: str, servername: str, client_ca: str, *, good: bool
) -> None:
    contexts = {pattern: agents()[name].options for pattern, name in ADDED["contexts"].items()}
    options = {**agents()[ADDED["default"]].options}
    async with node_server(node, options, contexts=contexts) as (peer, port):
        trusting = tls.SecureContext(ca=ca(client_ca))
        async with await our_client(
            port, trusting, server_name=servername, reject_unauthorized=False
        ) as stream:
            assert (await peer.event("secureConnection"))["servername"] == servername
            assert stream.authorization_error is not None
            assert (stream.authorization_error.code == ALTNAME) is good


@pytest.mark.feature("B8")
@pytest.mark.feature("B9")
@each_called
async def test_our_callback_s_contexts_serve_a_node_client_as_node_s_do(
    node: str,
    servername: str,
    client_cert: str,
    client_ca: str,
    *,
    good: bool | None,
    authorized: bool | None,
) -> None:
    handler = Noting()

    async def look_up(name: str) -> Any:
        await trio.lowlevel.checkpoint()
        found = CALLED["contexts"].get(name)
        return agent(*found) if isinstance(found, list) else found and {}

    server = tls.TLSServer(
        handler,
        agent(CALLED["default"]),
        sni_callback=look_up,
        request_cert=True,
        reject_unauthorized=False,
    )
    own: Any = agents()[client_cert].options
    async with serving(server) as ours:
        async with node_client(node, ours.port, servername=servername, ca=ca(client_ca), **own) as peer:
            if good is None:
                assert isinstance(await ours.failure(), tls.CallbackError)
                assert (await peer.event("error"))["code"] == "ERR_SSL_TLSV1_ALERT_INTERNAL_ERROR"
                return
            secure = await peer.event("secureConnect")
            await peer.event("end")
    assert (secure["authorizationError"] == ALTNAME) is good
    (info,) = handler.infos
    assert info.server_name == servername
    assert info.authorized is authorized


@pytest.mark.feature("A4")
@each_called
async def test_node_s_callback_s_contexts_serve_our_client(
    node: str,
    servername: str,
    client_cert: str,
    client_ca: str,
    *,
    good: bool | None,
    authorized: bool | None,
) -> None:
    contexts: dict[str, Any] = {}
    for name, found in CALLED["contexts"].items():
        if isinstance(found, list):
            who, trusted = found
            contexts[name] = {**agents()[who].options, "ca": trusted and ca(*trusted)}
        else:
            contexts[name] = "wrong"
    options = {**agents()[CALLED["default"]].options, "requestCert": True, "rejectUnauthorized": False}
    async with node_server(node, options, sni=contexts) as (peer, port):
        connecting = our_client(
            port, agent(client_cert, [client_ca]), server_name=servername, reject_unauthorized=False
        )
        if good is None:
            with pytest.raises(tls.ConnectionLost):
                await connecting
            assert "Invalid SNI context" in (await peer.event("tlsClientError"))["message"]
            return
        async with await connecting as stream:
            secure = await peer.event("secureConnection")
            assert (secure["servername"], secure["authorized"]) == (servername, authorized)
            assert stream.authorization_error is not None
            assert (stream.authorization_error.code == ALTNAME) is good


@pytest.mark.feature("B9")
async def test_a_node_client_hears_by_an_alert_that_our_callback_failed(node: str) -> None:
    def refuse(_name: str) -> None:
        raise LookupError("no such host")

    server = tls.TLSServer(Noting(), tls.SecureContext(**presented("localhost")), sni_callback=refuse)
    async with serving(server) as ours, node_client(node, ours.port, servername="a.example") as peer:
        assert isinstance((await ours.failure()).__cause__, LookupError)
        assert (await peer.event("error"))["code"] == "ERR_SSL_TLSV1_UNRECOGNIZED_NAME"


@pytest.mark.feature("A21")
async def test_our_client_does_not_hear_why_node_s_callback_failed(node: str) -> None:
    async with node_server(node, presented("localhost"), sni={"a.example": "throw"}) as (peer, port):
        with pytest.raises(tls.ConnectionLost):
            await our_client(port, server_name="a.example")
        assert (await peer.event("tlsClientError"))["message"] == "no such host"


@pytest.mark.feature("A4")
@pytest.mark.feature("B9")
async def test_a_node_client_that_sends_no_name_gets_the_default_and_nobody_is_asked(node: str) -> None:
    handler = Noting()
    asked: list[str] = []
    server = tls.TLSServer(handler, tls.SecureContext(**presented("localhost")), sni_callback=asked.append)
    server.add_context("*", context_for("a.example"))
    async with serving(server) as ours, node_client(node, ours.port) as peer:
        assert (await peer.event("secureConnect"))["servername"] is False
        await peer.event("end")
    (info,) = handler.infos
    assert info.server_name is None
    assert info.certificate is not None
    assert info.certificate.subject_alt_name == "DNS:localhost"
    assert not asked


# Groups, as Node's getEphemeralKeyInfo() has them

OWN_GROUP = DHGroup.ffdhe(3072).pem().decode()
DHE = "DHE-RSA-AES128-GCM-SHA256"
KEYS: dict[str, tuple[str, dict[str, Any], dict[str, Any], EphemeralKey]] = {
    # Our options, Node's, and what both shall say.
    **{
        f"{group} in {version}": (
            version,
            {"groups": group},
            {"ecdhCurve": group},
            EphemeralKey(type="ECDH", name=name, size=size),
        )
        for version in ("TLSv1.2", "TLSv1.3")
        for group, name, size in (
            ("X25519", "X25519", 253),
            ("P-256", "prime256v1", 256),
            ("P-384", "secp384r1", 384),
            ("X448", "X448", 448),
        )
    },
    "DHE": (
        "TLSv1.2",
        {"ciphers": DHE, "dhparam": OWN_GROUP},
        {"ciphers": DHE, "dhparam": OWN_GROUP},
        EphemeralKey(type="DH", name=None, size=3072),
    ),
    "DHE where the client names no group": (
        "TLSv1.2",
        {"ciphers": DHE, "dhparam": OWN_GROUP, "groups": "X25519"},
        {"ciphers": DHE, "dhparam": OWN_GROUP, "ecdhCurve": "X25519"},
        EphemeralKey(type="DH", name=None, size=3072),
    ),
    "ffdhe2048 in TLSv1.3": (
        "TLSv1.3",
        {"groups": "ffdhe2048"},
        {"ecdhCurve": "ffdhe2048"},
        EphemeralKey(type="DH", name=None, size=2048),
    ),
}
each_key = pytest.mark.parametrize(("version", "ours", "theirs", "key"), KEYS.values(), ids=KEYS)


@pytest.mark.feature("C7")
@each_key
async def test_a_node_client_and_our_server_tell_the_same_of_the_key_exchange(
    node: str, version: str, ours: dict[str, Any], theirs: dict[str, Any], key: EphemeralKey
) -> None:
    handler = Noting()
    context = tls.SecureContext(**presented("localhost", "RSA"), **ours, **only(version))
    theirs = {name: value for name, value in theirs.items() if name != "dhparam"}
    async with serving(tls.TLSServer(handler, context)) as server:
        async with node_client(node, server.port, **theirs) as peer:
            told = (await peer.event("ephemeralKey"))["key"]
            await peer.event("end")
    assert told == {"type": key.type, "size": key.size} | ({} if key.name is None else {"name": key.name})
    (info,) = handler.infos
    assert info.ephemeral_key == key


@pytest.mark.feature("C7")
@each_key
async def test_our_client_tells_of_its_key_exchange_with_a_node_server(
    node: str, version: str, ours: dict[str, Any], theirs: dict[str, Any], key: EphemeralKey
) -> None:
    options = {**presented("localhost", "RSA"), **theirs}
    context = tls.SecureContext(ca=default_authority().ca, **ours, **only(version))
    async with node_server(node, options) as (peer, port):
        async with await our_client(port, context) as stream:
            assert stream.info.ephemeral_key == key
            # It has nothing to say of this.
            assert (await peer.event("ephemeralKey"))["key"] is None


@pytest.mark.feature("G9")
async def test_a_node_client_without_the_group_that_we_require_is_refused(node: str) -> None:
    context = tls.SecureContext(**presented("localhost"), require_groups="X25519MLKEM768")
    async with serving(tls.TLSServer(Noting(), context)) as ours:
        async with node_client(node, ours.port, ecdhCurve="X25519") as peer:
            assert isinstance(await ours.failure(), tls.ProtocolError)
            assert (await peer.event("error"))["code"] == "ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE"


@pytest.mark.feature("G9")
@in_both_versions
async def test_a_node_server_without_the_group_that_we_require_refuses_us(node: str, version: str) -> None:
    context = tls.SecureContext(ca=default_authority().ca, require_groups="P-384", **only(version))
    options = {**presented("localhost", "RSA"), "ecdhCurve": "X25519"}
    async with node_server(node, options) as (_, port):
        with pytest.raises(tls.PeerAlert) as caught:
            await our_client(port, context)
    assert caught.value.alert is tls.Alert.handshake_failure


# The openssl command


@contextlib.asynccontextmanager
async def s_client(openssl: str, port: int, folder: Path, *switches: str) -> AsyncIterator[list[str]]:
    """Run s_client; return what it says."""
    trusted = folder / "ca.pem"
    trusted.write_bytes(default_authority().ca)
    connect = ("-connect", f"127.0.0.1:{port}", "-CAfile", trusted)
    async with running(openssl, "s_client", *connect, *switches) as process:
        yield (await process.everything()).splitlines()


def said(lines: list[str], start: str) -> str | None:
    """Return what follows at the end of the line that starts so, or None."""
    return next((line.removeprefix(start) for line in lines if line.startswith(start)), None)


SWITCHES = {"TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}


@pytest.mark.feature("B9")
@pytest.mark.feature("B10")
@in_both_versions
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (["-servername", "chosen.example"], "chosen.example"),
        (["-servername", "CHOSEN.Example."], "chosen.example"),
        (["-servername", "elsewhere.invalid"], "default.example"),
        (["-noservername"], "default.example"),
    ],
    ids=["its name", "in capitals", "another name", "no name"],
)
@pytest.mark.parametrize("how", ["async sni_callback", "wildcard"])
async def test_s_client_gets_the_certificate_for_the_name_that_it_sends(
    openssl: str, tmp_path: Path, how: str, version: str, name: list[str], shown: str
) -> None:
    async with serving(choosing(how, context_for("chosen.example")).server) as ours:
        switches = (SWITCHES[version], *name, "-verify_hostname", shown)
        async with s_client(openssl, ours.port, tmp_path, *switches) as lines:
            assert said(lines, "Verified peername: ") == shown


@pytest.mark.feature("B12")
@in_both_versions
async def test_s_client_gets_the_protocol_that_our_callback_takes(
    openssl: str, tmp_path: Path, version: str
) -> None:
    handler = Noting()
    context = tls.SecureContext(**presented("localhost"))
    server = tls.TLSServer(handler, context, alpn_callback=lambda choice: choice.protocols[-1])
    async with serving(server) as ours:
        switches = (SWITCHES[version], "-alpn", "h2,http/1.1", "-servername", "a.example")
        async with s_client(openssl, ours.port, tmp_path, *switches) as lines:
            assert said(lines, "ALPN protocol: ") == "http/1.1"
        async with s_client(openssl, ours.port, tmp_path, SWITCHES[version]) as lines:
            assert "No ALPN negotiated" in lines
    assert [info.alpn_protocol for info in handler.infos] == ["http/1.1", None]


@pytest.mark.feature("B11")
@pytest.mark.feature("B12")
@in_both_versions
@pytest.mark.parametrize("options", [{"alpn_protocols": ["x"]}, {"alpn_callback": lambda _choice: None}])
async def test_s_client_hears_that_there_is_no_protocol_for_it(
    openssl: str, tmp_path: Path, version: str, options: dict[str, Any]
) -> None:
    server = tls.TLSServer(Noting(), tls.SecureContext(**presented("localhost")), **options)
    async with serving(server) as ours:
        async with s_client(openssl, ours.port, tmp_path, SWITCHES[version], "-alpn", "h2") as lines:
            assert any("SSL alert number 120" in line for line in lines)
        assert (await ours.failure()).code == "ERR_SSL_NO_APPLICATION_PROTOCOL"


@pytest.mark.feature("C7")
@in_both_versions
@pytest.mark.parametrize(
    ("group", "told", "key"),
    [
        ("X25519", "X25519, 253 bits", EphemeralKey(type="ECDH", name="X25519", size=253)),
        ("P-256", "ECDH, prime256v1, 256 bits", EphemeralKey(type="ECDH", name="prime256v1", size=256)),
        ("P-521", "ECDH, secp521r1, 521 bits", EphemeralKey(type="ECDH", name="secp521r1", size=521)),
    ],
)
async def test_s_client_tells_the_same_of_the_key_exchange(
    openssl: str, tmp_path: Path, version: str, group: str, told: str, key: EphemeralKey
) -> None:
    handler = Noting()
    server = tls.TLSServer(handler, tls.SecureContext(**presented("localhost", "RSA")))
    async with serving(server) as ours:
        switches = (SWITCHES[version], "-groups", group)
        async with s_client(openssl, ours.port, tmp_path, *switches) as lines:
            assert said(lines, "Server Temp Key: ") == told
    (info,) = handler.infos
    assert info.ephemeral_key == key
