"""Pre-shared keys with Node.js, and with the openssl command, on the other side."""

from __future__ import annotations

import base64
import contextlib
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from peers import (
    OTHER_SIDE,
    ForeignProcess,
    NodePeer,
    OurServer,
    echo,
    in_both_roles,
    in_both_versions,
    localhost,
    only,
    our_client,
    running,
    running_node,
    serving,
)

import trio_tlsnode as tls
from trio_tlsnode.psk import psk_session
from trio_tlsnode.testing import default_authority

pytestmark = [pytest.mark.interop, pytest.mark.feature("A11"), pytest.mark.feature("B20")]

IDENTITY = "caf\u00e9 7"
SECRET = bytes.fromhex("d731ef57be09e5204f0b205b60627028")
WRONG = bytes(16)
KEY = tls.PreSharedKey(IDENTITY, SECRET)
HINT = "which table?"
# Node has no suites of TLS 1.2 with keys by default, as we have none.
CIPHERS = "PSK:ECDHE-ECDSA-AES128-GCM-SHA256"
# What a server of TLS 1.3 says to a wrong key: OpenSSL 4 decrypt_error, as RFC 8446 has it in section 6.2;
# older ones say illegal_parameter.
BAD_BINDER = {tls.Alert.decrypt_error, tls.Alert.illegal_parameter}
BAD_BINDER_CODES = {"ERR_SSL_TLSV1_ALERT_DECRYPT_ERROR", "ERR_SSL_SSLV3_ALERT_ILLEGAL_PARAMETER"}


def context(version: str, *, certificate: bool = False) -> tls.SecureContext:
    options: Any = localhost().options if certificate else {}
    return tls.SecureContext(ca=default_authority().ca, ciphers=CIPHERS, **options, **only(version))


def client_key(secret: bytes | None) -> Any:
    """Return a client's callback."""
    return lambda _hint: None if secret is None else tls.PreSharedKey(IDENTITY, secret)


def server_keys(keys: dict[str, bytes]) -> Any:
    """Return a server's callback."""
    return lambda _stream, identity: keys.get(identity)


class Handler:
    """Echoes, and keeps what was negotiated."""

    def __init__(self) -> None:
        self.infos: list[tls.ConnectionInfo] = []

    async def __call__(self, stream: tls.TLSStream) -> None:
        self.infos.append(stream.info)
        await echo(stream)


# Node


@contextlib.asynccontextmanager
async def node_peer(
    node: str, role: str, version: str, keys: dict[str, bytes], *, session: str | None = None, **options: Any
) -> AsyncIterator[NodePeer]:
    """Run Node in a role, with these keys."""
    versions = {"minVersion": version, "maxVersion": version, "ciphers": CIPHERS}
    if role == "client":
        options = {"servername": "localhost", "ca": default_authority().ca, **options}
    async with running_node(
        node,
        "psk",
        {**versions, **options},
        role={"client": "connect", "server": "serve"}[role],
        keys={identity: secret.hex() for identity, secret in keys.items()},
        session=session,
        echo=role == "server",
    ) as peer:
        yield peer


@in_both_versions
@pytest.mark.parametrize("request_cert", [False, True])
async def test_a_node_client_connects_by_its_key(node: str, version: str, request_cert: bool) -> None:
    handler = Handler()
    server = tls.TLSServer(
        handler,
        context(version),
        psk=server_keys({IDENTITY: SECRET}),
        psk_identity_hint=HINT,
        request_cert=request_cert,
    )
    async with serving(server) as ours:
        async with node_peer(node, "client", version, {IDENTITY: SECRET}, port=ours.port) as peer:
            assert (await peer.event("asked"))["hint"] == (HINT if version == "TLSv1.2" else None)
            theirs = await peer.event("secureConnect")
            reused = (await peer.event("reused"))["reused"]
            await peer.order("end", "over and back")
            assert (await peer.event("end"))["length"] == len("over and back")
    (info,) = handler.infos
    assert theirs["authorized"] is True
    assert info.authorized is request_cert
    assert info.authorization_error is None
    assert info.psk_identity == IDENTITY
    assert info.session_reused is reused is (version == "TLSv1.3")
    assert info.cipher.standard_name == theirs["cipher"]


@in_both_versions
@pytest.mark.parametrize("request_cert", [False, True])
async def test_our_client_connects_to_a_node_server_by_its_key(
    node: str, version: str, request_cert: bool
) -> None:
    hints = []

    def psk(hint: str | None) -> tls.PreSharedKey:
        hints.append(hint)
        return KEY

    options: Any = {"pskIdentityHint": HINT, "requestCert": request_cert}
    async with node_peer(node, "server", version, {IDENTITY: SECRET}, **options) as peer:
        port = (await peer.event("listening"))["port"]
        async with await our_client(port, context(version), psk=psk) as stream:
            assert (await peer.event("asked"))["identity"] == IDENTITY
            theirs = await peer.event("secureConnection")
            reused = (await peer.event("reused"))["reused"]
            await stream.send_all(b"over and back")
            assert await stream.receive_some() == b"over and back"
    assert hints == [HINT if version == "TLSv1.2" else None]
    assert theirs["authorized"] is request_cert
    assert stream.authorized
    assert stream.info.psk_identity == IDENTITY
    assert stream.info.session_reused is reused is (version == "TLSv1.3")
    assert stream.info.cipher.standard_name == theirs["cipher"]


@in_both_roles
async def test_in_tls_1_3_an_unknown_key_makes_a_full_handshake_where_there_is_a_certificate(
    node: str, role: str
) -> None:
    version = "TLSv1.3"
    if role == "client":
        async with node_peer(node, "server", version, {}, **localhost().options) as peer:
            port = (await peer.event("listening"))["port"]
            async with await our_client(port, context(version), psk=client_key(SECRET)) as stream:
                await peer.event("secureConnection")
                info = stream.info
        assert info.authorized
        assert info.peer_certificate is not None
    else:
        handler = Handler()
        server = tls.TLSServer(handler, context(version, certificate=True), psk=server_keys({}))
        async with serving(server) as ours:
            async with node_peer(node, "client", version, {IDENTITY: SECRET}, port=ours.port) as peer:
                theirs = await peer.event("secureConnect")
                await peer.order("end", "thanks")
                await peer.event("end")
        assert theirs["authorized"] is True
        assert theirs["peer"] is not None
        (info,) = handler.infos
    assert info.psk_identity is None
    assert not info.session_reused


class Refusal(NamedTuple):
    """What our side and Node's have for an error."""

    ours: tls.ConnectionFailed
    codes: dict[str, str]


async def refusal(
    node: str, role: str, version: str, *, client: bytes | None, server: dict[str, bytes]
) -> Refusal:
    """Have a connection fail, without certificates; the role is ours."""
    client_keys = {} if client is None else {IDENTITY: client}
    if role == "client":
        async with node_peer(node, "server", version, server) as peer:
            port = (await peer.event("listening"))["port"]
            with pytest.raises(tls.ConnectionFailed) as raised:
                await our_client(port, context(version), psk=client_key(client))
            ours, theirs = raised.value, await peer.event("tlsClientError")
    else:
        async with serving(tls.TLSServer(echo, context(version), psk=server_keys(server))) as our_server:
            async with node_peer(node, "client", version, client_keys, port=our_server.port) as peer:
                ours, theirs = await our_server.failure(), await peer.event("error")
    return Refusal(ours, {role: ours.code, OTHER_SIDE[role]: theirs["code"]})


@in_both_versions
@in_both_roles
async def test_each_side_has_its_code_for_an_unknown_identity(node: str, role: str, version: str) -> None:
    refused = await refusal(node, role, version, client=SECRET, server={"somebody": SECRET})
    assert refused.codes == (
        {
            "client": "ERR_SSL_TLSV1_ALERT_UNKNOWN_PSK_IDENTITY",
            "server": "ERR_SSL_PSK_IDENTITY_NOT_FOUND",
        }
        if version == "TLSv1.2"
        else {
            "client": "ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE",
            "server": "ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM",
        }
    )


@in_both_versions
@in_both_roles
async def test_each_side_has_its_code_for_a_wrong_key(node: str, role: str, version: str) -> None:
    refused = await refusal(node, role, version, client=WRONG, server={IDENTITY: SECRET})
    if version == "TLSv1.2":
        assert refused.codes == {
            "client": "ERR_SSL_SSLV3_ALERT_BAD_RECORD_MAC",
            "server": "ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
        }
    else:
        assert refused.codes["server"] == "ERR_SSL_BINDER_DOES_NOT_VERIFY"
        assert refused.codes["client"] in BAD_BINDER_CODES


@in_both_versions
@in_both_roles
async def test_each_side_has_its_code_for_a_client_that_has_no_key_after_all(
    node: str, role: str, version: str
) -> None:
    refused = await refusal(node, role, version, client=None, server={IDENTITY: SECRET})
    assert refused.codes == {
        "client": "ERR_SSL_PSK_IDENTITY_NOT_FOUND"
        if version == "TLSv1.2"
        else "ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE",
        "server": "ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE"
        if version == "TLSv1.2"
        else "ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM",
    }


@pytest.mark.feature("E1")
@in_both_versions
async def test_a_node_client_that_resumes_is_known_by_the_key_of_the_first_time(
    node: str, version: str
) -> None:
    handler = Handler()
    server = tls.TLSServer(handler, context(version), psk=server_keys({IDENTITY: SECRET}), request_cert=True)

    async def visit(port: int, session: str | None) -> str:
        async with node_peer(node, "client", version, {IDENTITY: SECRET}, session=session, port=port) as peer:
            await peer.event("reused")
            await peer.order("write", "whatever brings the tickets")
            made = session if session is not None and version == "TLSv1.2" else None
            made = made or (await peer.event("session"))["hex"]
            await peer.order("end")
            await peer.event("end")
            return str(made)

    async with serving(server) as ours:
        session = await visit(ours.port, None)
        await visit(ours.port, session)
    first, second = handler.infos
    assert first.psk_identity == second.psk_identity == IDENTITY
    assert second.session_reused
    assert second.authorized


# openssl

ASCII_KEY = tls.PreSharedKey("table 7", SECRET)
SWITCHES: dict[str, list[str]] = {
    "TLSv1.2": ["-tls1_2", "-cipher", "PSK"],
    "TLSv1.3": ["-tls1_3"],
}


def key_switches(psk: tls.PreSharedKey = ASCII_KEY) -> list[str]:
    return ["-psk", psk.key.hex(), "-psk_identity", psk.identity]


def session_switches(psk: tls.PreSharedKey, folder: Path) -> list[str | Path]:
    """Return the switches for a key with a hash of its own, which is read from a session."""
    data = base64.b64encode(psk_session(psk, timeout=300, session_id_context=b"")).decode()
    path = folder / "psk.pem"
    begin, end = "-----BEGIN SSL SESSION PARAMETERS-----", "-----END SSL SESSION PARAMETERS-----"
    path.write_text("\n".join([begin, *textwrap.wrap(data, 64), end, ""]))
    return ["-psk_session", path, "-psk_identity", psk.identity]


@contextlib.asynccontextmanager
async def s_client(openssl: str, port: int, *switches: str | Path) -> AsyncIterator[ForeignProcess]:
    async with running(openssl, "s_client", "-connect", f"127.0.0.1:{port}", *switches) as client:
        yield client


@contextlib.asynccontextmanager
async def s_server(openssl: str, *switches: str | Path) -> AsyncIterator[tuple[ForeignProcess, int]]:
    """Run s_server without a certificate for one connection; it reverses each line."""
    async with running(
        openssl, "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-rev", "-nocert", *switches
    ) as server:
        accepting = await server.line_with("ACCEPT")
        yield server, int(accepting.rpartition(":")[2])


@contextlib.asynccontextmanager
async def our_psk_server(
    version: str, psk: tls.PreSharedKey = ASCII_KEY, **options: Any
) -> AsyncIterator[tuple[OurServer, Handler]]:
    def look_up(_stream: tls.TLSStream, identity: str) -> tls.PreSharedKey | None:
        return psk if identity == psk.identity else None

    handler = Handler()
    async with serving(tls.TLSServer(handler, context(version), psk=look_up, **options)) as ours:
        yield ours, handler


@pytest.mark.node("test-tls-psk-server.js")
@in_both_versions
async def test_s_client_gets_its_line_back_by_its_key(openssl: str, version: str) -> None:
    async with our_psk_server(version, psk_identity_hint=HINT) as (ours, handler):
        async with s_client(openssl, ours.port, *SWITCHES[version], *key_switches()) as client:
            if version == "TLSv1.2":
                await client.line_with(f"PSK identity: {ASCII_KEY.identity}")
                await client.line_with(f"PSK identity hint: {HINT}")
            await client.say("over and back")
            await client.line_with("over and back")
            await client.say_no_more()
            await client.everything()
    (info,) = handler.infos
    assert (info.psk_identity, info.protocol) == (ASCII_KEY.identity, version)


@in_both_versions
@pytest.mark.parametrize("mistake", ["unknown identity", "wrong key"])
async def test_s_client_hears_why_its_key_is_refused(openssl: str, version: str, mistake: str) -> None:
    psk = (
        tls.PreSharedKey(ASCII_KEY.identity, WRONG)
        if mistake == "wrong key"
        else tls.PreSharedKey("stranger", SECRET)
    )
    number = {
        ("TLSv1.2", "unknown identity"): tls.Alert.unknown_psk_identity,
        ("TLSv1.3", "unknown identity"): tls.Alert.handshake_failure,
        ("TLSv1.2", "wrong key"): tls.Alert.bad_record_mac,
        ("TLSv1.3", "wrong key"): tls.Alert.decrypt_error,
    }[version, mistake]
    async with our_psk_server(version) as (ours, _):
        async with s_client(openssl, ours.port, *SWITCHES[version], *key_switches(psk)) as client:
            assert isinstance(await ours.failure(), tls.ProtocolError)
            assert f"SSL alert number {int(number)}" in await client.everything()


@pytest.mark.feature("E1")
@in_both_versions
@pytest.mark.parametrize("request_cert", [False, True])
async def test_s_client_that_resumes_is_known_by_the_key_of_the_first_time(
    openssl: str, tmp_path: Path, version: str, request_cert: bool
) -> None:
    saved = tmp_path / "session.pem"
    async with our_psk_server(version, request_cert=request_cert) as (ours, handler):
        for switch in ("-sess_out", "-sess_in"):
            switches = [*SWITCHES[version], *key_switches(), switch]
            async with s_client(openssl, ours.port, *switches, saved) as client:
                await client.say("whatever brings the tickets")
                await client.line_with("whatever brings the tickets")
                await client.say_no_more()
                await client.everything()
    first, second = handler.infos
    assert first.psk_identity == second.psk_identity == ASCII_KEY.identity
    assert second.session_reused
    assert second.authorized is request_cert


@in_both_versions
async def test_s_server_reverses_our_line_by_our_key(openssl: str, version: str) -> None:
    hints = []

    def psk(hint: str | None) -> tls.PreSharedKey:
        hints.append(hint)
        return ASCII_KEY

    switches = [*SWITCHES[version], *key_switches(), "-psk_hint", HINT]
    async with s_server(openssl, *switches) as (server, port):
        async with await our_client(port, context(version), psk=psk) as stream:
            await stream.send_all(b"forwards\n")
            assert await stream.receive_some() == b"sdrawrof\n"
            assert stream.authorized
            assert stream.info.psk_identity == ASCII_KEY.identity
        await server.line_with("CONNECTION CLOSED")
    assert hints == [HINT if version == "TLSv1.2" else None]


@in_both_versions
async def test_s_server_tells_our_client_that_its_key_is_wrong(openssl: str, version: str) -> None:
    async with s_server(openssl, *SWITCHES[version], *key_switches()) as (_, port):
        wrong = tls.PreSharedKey(ASCII_KEY.identity, WRONG)
        with pytest.raises(tls.PeerAlert) as raised:
            await our_client(port, context(version), psk=lambda _hint: wrong)
    assert raised.value.alert in ({tls.Alert.bad_record_mac} if version == "TLSv1.2" else BAD_BINDER)


SHA384 = tls.PreSharedKey("table 7", SECRET * 3, hash="SHA384")


async def test_s_client_and_our_server_use_a_key_for_sha_384(openssl: str, tmp_path: Path) -> None:
    async with our_psk_server("TLSv1.3", SHA384) as (ours, handler):
        async with s_client(openssl, ours.port, "-tls1_3", *session_switches(SHA384, tmp_path)) as client:
            await client.say("over and back")
            await client.line_with("over and back")
            await client.say_no_more()
            await client.everything()
    (info,) = handler.infos
    assert info.psk_identity == SHA384.identity
    assert info.cipher.name == "TLS_AES_256_GCM_SHA384"


async def test_our_client_and_s_server_use_a_key_for_sha_384(openssl: str, tmp_path: Path) -> None:
    async with s_server(openssl, "-tls1_3", *session_switches(SHA384, tmp_path)) as (_, port):
        async with await our_client(port, context("TLSv1.3"), psk=lambda _hint: SHA384) as stream:
            await stream.send_all(b"forwards\n")
            assert await stream.receive_some() == b"sdrawrof\n"
            assert stream.info.psk_identity == SHA384.identity
            assert stream.info.cipher.name == "TLS_AES_256_GCM_SHA384"


async def test_both_sides_retry_with_another_group_and_keep_the_key(openssl: str) -> None:
    asked: list[str | None] = []

    def psk(hint: str | None) -> tls.PreSharedKey:
        asked.append(hint)
        return ASCII_KEY

    async with s_server(openssl, "-tls1_3", "-groups", "P-384", *key_switches()) as (_, port):
        ours = tls.SecureContext(groups="X25519:P-384", min_version="TLSv1.3")
        async with await our_client(port, ours, psk=psk) as stream:
            assert stream.info.psk_identity == ASCII_KEY.identity
            assert stream.info.ephemeral_key is not None
            assert stream.info.ephemeral_key.size == 384
    assert asked == [None]
    async with our_psk_server("TLSv1.3") as (server, handler):
        async with s_client(
            openssl, server.port, "-tls1_3", "-groups", "P-521:P-256", *key_switches()
        ) as client:
            await client.say("over and back")
            await client.line_with("over and back")
    (info,) = handler.infos
    assert info.psk_identity == ASCII_KEY.identity
