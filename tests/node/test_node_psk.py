"""Pre-shared keys, as Node.js's own tests have them; with the openssl command in tests/interop."""

from __future__ import annotations

import pytest
import trio
from meetings import come_to

from trio_tlsnode import PreSharedKey, SecureContext, TLSServer, TLSStream, wrap_client

KEY = PreSharedKey("TestUser", bytes.fromhex("d731ef57be09e5204f0b205b60627028"))


@pytest.mark.feature("A11")
@pytest.mark.feature("B20")
@pytest.mark.node("test-tls-psk-server.js")
async def test_a_server_is_asked_once_for_the_key_of_a_client(nursery: trio.Nursery) -> None:
    asked: list[tuple[TLSStream, str]] = []
    served: list[TLSStream] = []
    hints: list[str | None] = []

    def look_up(stream: TLSStream, identity: str) -> bytes:
        asked.append((stream, identity))
        return KEY.key

    async def echo(stream: TLSStream) -> None:
        served.append(stream)
        await stream.send_all(b"hello\r\n")
        async for data in stream:
            await stream.send_all(data)

    def offer(hint: str | None) -> PreSharedKey:
        hints.append(hint)
        return KEY

    context = SecureContext(ciphers="PSK", max_version="TLSv1.2")
    server = TLSServer(echo, context, psk=look_up, psk_identity_hint="TestUser")
    async with await wrap_client(come_to(server, nursery), context=context, psk=offer) as client:
        assert await client.receive_some() == b"hello\r\n"
        await client.send_all(b"world\r\n")
        assert await client.receive_some() == b"world\r\n"
    assert asked == [(served[0], "TestUser")]
    assert hints == ["TestUser"]
