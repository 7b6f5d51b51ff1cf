"""Early data of TLS 1.3: sent with the ClientHello, taken once, and told from what was proven."""

from __future__ import annotations

from typing import Any

import pytest
import trio

import trio_tlsnode as tls
from trio_tlsnode.testing import default_authority, tls_pair

AUTHORITY = default_authority()
CLIENT = tls.SecureContext(ca=AUTHORITY.ca)
MOST = 1000

pytestmark = pytest.mark.feature("A20")


def server_context() -> tls.SecureContext:
    return tls.SecureContext(**AUTHORITY.good("localhost").options)


async def pair(
    server: tls.SecureContext, *, most: int = MOST, **client_options: Any
) -> tuple[tls.TLSStream, tls.TLSStream]:
    return await tls_pair(
        client_context=CLIENT,
        server_context=server,
        client_options=client_options,
        server_options={"max_early_data": most, "alpn_protocols": ["h2", "http/1.1"]},
    )


async def exchange(client: tls.TLSStream, server: tls.TLSStream) -> None:
    """Show that data goes in both directions."""
    for sender, receiver in ((client, server), (server, client)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.send_all, b"proven")
            assert await receiver.receive_some() == b"proven"


async def close(*streams: tls.TLSStream) -> None:
    for stream in streams:
        await stream.aclose()


async def handler(stream: tls.TLSStream) -> None:
    await stream.send_all(stream.early_data)


async def session_of(server: tls.SecureContext, *, most: int = MOST, **options: Any) -> bytes:
    """Return a session that a client got from a server."""
    client, peer = await pair(server, most=most, **options)
    await exchange(client, peer)
    session = client.session
    assert session is not None
    await close(client, peer)
    return session


async def test_it_arrives_apart_from_what_is_sent_later() -> None:
    context = server_context()
    client, server = await pair(context, session=await session_of(context), early_data=b"GET /")
    assert server.early_data == b"GET /"
    assert (client.info.early_data_accepted, server.info.early_data_accepted) == (True, True)
    assert client.info.session_reused
    await exchange(client, server)
    await close(client, server)


@pytest.mark.parametrize("size", [1, MOST])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_any_amount_that_the_session_allows_is_sent(size: int, kind: Any) -> None:
    context = server_context()
    data = b"e" * size
    client, server = await pair(context, session=await session_of(context), early_data=kind(data))
    assert server.early_data == data
    await close(client, server)


async def test_a_session_carries_it_once() -> None:
    """Who has recorded the first flight and sends it again is refused its data."""
    context = server_context()
    session = await session_of(context)
    for accepted in (True, False):
        client, server = await pair(context, session=session, early_data=b"pay 5")
        assert server.early_data == (b"pay 5" if accepted else b"")
        assert client.info.early_data_accepted is accepted
        assert client.info.session_reused is accepted
        await exchange(client, server)
        await close(client, server)


async def test_a_recorded_first_flight_that_is_sent_again_brings_no_data() -> None:
    context = server_context()
    engine = tls.Engine(CLIENT, host="localhost", session=await session_of(context), early_data=b"pay 5")
    engine.do_handshake()
    flight = engine.drain()
    taken = []
    for _ in range(2):
        server = tls.Engine(context, server_side=True)
        server.feed(flight)
        assert isinstance(server.read_client_hello(), tls.ClientHello)
        server.choose(context, max_early_data=MOST)
        assert server.do_handshake() is tls.Want.READ
        taken.append(bytes(server.early_data))
        server.release()
    assert taken == [b"pay 5", b""]


async def test_without_a_session_for_it_nothing_is_sent() -> None:
    context = server_context()
    sessions: list[bytes | None] = [None, await session_of(context, most=0)]
    for session in sessions:
        client, server = await pair(context, session=session, early_data=b"GET /")
        assert client.info.early_data_accepted is None
        assert server.early_data == b""
        await exchange(client, server)
        await close(client, server)


async def test_more_than_the_session_allows_is_not_sent() -> None:
    context = server_context()
    client, server = await pair(context, session=await session_of(context), early_data=b"e" * (MOST + 1))
    assert client.info.session_reused
    assert client.info.early_data_accepted is None
    assert server.early_data == b""
    await close(client, server)


async def test_a_server_that_takes_none_any_more_refuses_it_and_goes_on() -> None:
    context = server_context()
    client, server = await pair(context, most=0, session=await session_of(context), early_data=b"GET /")
    assert client.info.early_data_accepted is False
    assert server.info.early_data_accepted is False
    assert server.early_data == b""
    await exchange(client, server)
    await close(client, server)


async def test_it_is_not_sent_for_another_protocol_than_the_sessions() -> None:
    context = server_context()
    session = await session_of(context, alpn_protocols=["h2"])
    client, server = await pair(context, session=session, early_data=b"x", alpn_protocols=["http/1.1"])
    assert client.info.early_data_accepted is None
    assert client.alpn_protocol == "http/1.1"
    await close(client, server)
    session = await session_of(context, alpn_protocols=["h2"])
    client, server = await pair(context, session=session, early_data=b"x", alpn_protocols=["http/1.1", "h2"])
    assert client.info.early_data_accepted is True
    await close(client, server)


async def test_it_is_off_unless_asked_for() -> None:
    context = server_context()
    client, server = await tls_pair(client_context=CLIENT, server_context=context)
    await exchange(client, server)
    assert client.session is not None
    assert client.info.early_data_accepted is None
    assert server.info.early_data_accepted is None
    await close(client, server)
    with pytest.raises(tls.ConfigurationTypeError):
        tls.TLSServer(handler, context, max_early_data="1")  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [-1, 16385])
def test_a_limit_that_openssl_would_not_keep_is_refused(most: int) -> None:
    with pytest.raises(tls.ConfigurationError) as caught:
        tls.TLSServer(handler, server_context(), max_early_data=most)
    assert (caught.value.code, caught.value.option) == ("ERR_OUT_OF_RANGE", "max_early_data")


async def test_tls12_has_none() -> None:
    older = tls.SecureContext(**AUTHORITY.good("localhost").options, max_version="TLSv1.2")
    client, server = await pair(older, session=await session_of(older), early_data=b"x")
    assert client.info.session_reused
    assert client.info.early_data_accepted is None
    await close(client, server)
