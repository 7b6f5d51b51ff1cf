"""Ciphers and versions, as Node.js's own tests have them: what is negotiated, and what is refused how.

The tables are in tests/test_ciphers.py, tests/test_versions.py and tests/test_groups_and_dh.py.
"""

from __future__ import annotations

import pytest
import trio
from engine_pairs import shake_hands
from meetings import come_to, failure_of, read_to_end
from parties import party, trust

import trio_tlsnode as tls
from trio_tlsnode import Alert, SecureContext, TLSServer, TLSStream, wrap_client

LOCALHOST = party("rsa_cert").options


async def never(_stream: TLSStream) -> None:
    raise AssertionError("the handler was called")


@pytest.mark.feature("F8")
@pytest.mark.node("test-tls-alert.js")
async def test_a_client_too_old_for_the_server_is_told_so_by_alert_70(nursery: trio.Nursery) -> None:
    only = SecureContext(**LOCALHOST, min_version="TLSv1.2", max_version="TLSv1.2")
    server = TLSServer(never, only)
    older = SecureContext(
        ca=trust("rsa_cert"), min_version="TLSv1.1", max_version="TLSv1.1", ciphers="DEFAULT@SECLEVEL=0"
    )
    with pytest.raises(tls.PeerAlert) as caught:
        await wrap_client(come_to(server, nursery), context=older)
    assert caught.value.alert is Alert.protocol_version
    assert int(caught.value.alert) == 70
    assert (await failure_of(server)).code == "ERR_SSL_UNSUPPORTED_PROTOCOL"


def sslv3_hello() -> bytes:
    """Return the first message of a client that knows nothing newer than SSL 3.0 (RFC 6101)."""
    body = b"\x03\x00" + bytes(32) + b"\0" + b"\x00\x04\x00\x2f\x00\x35" + b"\x01\x00"
    message = b"\x01" + len(body).to_bytes(3) + body
    return b"\x16\x03\x00" + len(message).to_bytes(2) + message


@pytest.mark.feature("B6")
@pytest.mark.node("test-tls-no-sslv3.js")
async def test_a_client_of_sslv3_is_one_failure_and_gets_the_alert(nursery: trio.Nursery) -> None:
    server = TLSServer(never, SecureContext(**LOCALHOST))
    transport = come_to(server, nursery)
    await transport.send_all(sslv3_hello())
    error = await failure_of(server)
    assert error.code in ("ERR_SSL_VERSION_TOO_LOW", "ERR_SSL_UNSUPPORTED_PROTOCOL")
    assert error.client_hello is not None
    assert error.client_hello.supported_versions == (0x0300,)
    assert await read_to_end(transport) == bytes((0x15, 3, 0, 0, 2, 2, Alert.protocol_version))
    assert server.statistics().failed == {error.code: 1}


@pytest.mark.feature("F9")
@pytest.mark.node("test-tls-ecdh-auto.js")
def test_auto_finds_a_curve_for_a_server_of_one_suite() -> None:
    suite = "ECDHE-RSA-AES128-SHA256"
    server = SecureContext(**LOCALHOST, ciphers=f"-ALL:{suite}", ecdh_curve="auto", max_version="TLSv1.2")
    client = SecureContext(ca=trust("rsa_cert"), ciphers=suite)
    assert shake_hands(client, server).info.cipher.name == suite


@pytest.mark.feature("C6")
@pytest.mark.node("test-tls-getprotocol.js")
async def test_the_protocol_can_be_read_after_closing_too(nursery: trio.Nursery) -> None:
    async def close(_stream: TLSStream) -> None:
        """Return at once."""

    # In Node.js, getProtocol() is null then.
    server = TLSServer(close, SecureContext(**LOCALHOST, secure_protocol="TLSv1_2_method"))
    client = await wrap_client(come_to(server, nursery), context=SecureContext(ca=trust("rsa_cert")))
    await client.aclose()
    assert client.info.protocol == "TLSv1.2"
