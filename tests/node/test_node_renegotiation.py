"""Renegotiation, as Node.js's own tests have it: TLS 1.2 only, allowed to clients, and limited."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from faults import only
from meetings import come_to, failure_of
from parties import party, trust

import trio_tlsnode as tls
from trio_tlsnode import SecureContext, TLSServer, TLSStream, wrap_client
from trio_tlsnode.testing import tls_pair

LOCALHOST = SecureContext(**party("rsa_cert").options, **only("TLSv1.2"))
TRUSTING = SecureContext(ca=trust("rsa_cert"))


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


@pytest.mark.feature("C15")
@pytest.mark.node("test-tls-client-renegotiation-13.js")
async def test_tls_1_3_has_none() -> None:
    client, server = await tls_pair(version="TLSv1.3")
    with pytest.raises(tls.ConfigurationError, match="wrong SSL version") as caught:
        await client.renegotiate()
    assert caught.value.code == "ERR_SSL_WRONG_SSL_VERSION"
    await client.send_all(b"all the same")
    assert await server.receive_some() == b"all the same"


@pytest.mark.feature("C17")
@pytest.mark.node("test-tls-client-renegotiation-limit.js", "test-https-client-renegotiation-limit.js")
@pytest.mark.parametrize("limit", [0, 1, 2, 3, 5, 10, 16])
async def test_one_renegotiation_more_than_the_limit_ends_the_connection(
    limit: int, nursery: trio.Nursery
) -> None:
    server = TLSServer(echo, LOCALHOST, renegotiation_limit=limit)
    client = await wrap_client(come_to(server, nursery), context=TRUSTING)
    done = 0
    with pytest.raises(tls.ConnectionFailed) as caught:
        while True:
            await client.renegotiate()
            done += 1
    assert done == limit
    error = await failure_of(server)
    assert isinstance(error, tls.ProtocolError)
    assert error.code == "ERR_TLS_SESSION_ATTACK"
    # Node's connection just ends.
    assert caught.value.code == "ERR_SSL_NO_RENEGOTIATION"


@pytest.mark.feature("C16")
@pytest.mark.node("test-tls-disable-renegotiation.js")
async def test_it_can_be_disabled_for_one_stream(nursery: trio.Nursery) -> None:
    infos: list[tls.ConnectionInfo] = []

    async def handler(stream: TLSStream) -> None:
        infos.append(stream.info)
        assert await stream.receive_some() == b"data"
        infos.append(stream.info)
        stream.disable_renegotiation()
        await stream.send_all(b"data")
        await stream.receive_some()

    server = TLSServer(handler, LOCALHOST)
    client = await wrap_client(come_to(server, nursery), context=TRUSTING)
    before = client.info, client.finished, client.peer_finished
    await client.renegotiate()
    # There was another handshake.
    assert client.info is not before[0]
    assert client.finished != before[1]
    assert client.peer_finished != before[2]
    await client.send_all(b"data")
    assert await client.receive_some() == b"data"
    assert infos[0] is not infos[1]
    with pytest.raises(tls.ConnectionFailed) as caught:
        await client.renegotiate()
    assert caught.value.code == "ERR_SSL_NO_RENEGOTIATION"
    error = await failure_of(server)
    assert isinstance(error, tls.ProtocolError)
    assert error.code == "ERR_TLS_RENEGOTIATION_DISABLED"


@pytest.mark.feature("C15")
@pytest.mark.feature("F15")
@pytest.mark.node("test-tls-disable-renegotiation.js")
@pytest.mark.parametrize(
    "options",
    [
        {"request_cert": None},
        {"request_cert": 1},
        {"reject_unauthorized": None},
        {"reject_unauthorized": print},
    ],
    ids=repr,
)
async def test_options_of_the_wrong_type_are_refused_and_cost_nothing(options: dict[str, Any]) -> None:
    client, server = await tls_pair(version="TLSv1.2")
    with pytest.raises(tls.ConfigurationTypeError) as caught:
        await client.renegotiate(**options)
    assert caught.value.option in options
    await client.send_all(b"data")
    assert await server.receive_some() == b"data"
