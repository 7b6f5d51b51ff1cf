"""Time-outs, as Node.js's own tests have them."""

from __future__ import annotations

import pytest
import trio
from meetings import come_to, failure_of, read_to_end
from parties import party, trust
from trio.testing import MockClock

import trio_tlsnode as tls
from trio_tlsnode import SecureContext, TLSServer, TLSStream, wrap_client

LOCALHOST = SecureContext(**party("rsa_cert").options)
TRUSTING = SecureContext(ca=trust("rsa_cert"))


@pytest.mark.feature("A12")
@pytest.mark.node("test-tls-request-timeout.js")
async def test_a_cancel_scope_tells_of_an_idle_connection_without_ending_it(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    idle: list[float] = []

    async def handler(stream: TLSStream) -> None:
        start = trio.current_time()
        with trio.move_on_after(0.1):
            await stream.receive_some()
        idle.append(trio.current_time() - start)
        await stream.send_all(b"still there")

    client = await wrap_client(come_to(TLSServer(handler, LOCALHOST), nursery), context=TRUSTING)
    assert await read_to_end(client) == b"still there"
    assert idle == [0.1]


@pytest.mark.feature("A12")
@pytest.mark.feature("G12")
@pytest.mark.node("test-tls-timeout-server-2.js")
async def test_an_idle_time_out_ends_the_connection(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    start = trio.current_time()

    async def handler(stream: TLSStream) -> None:
        await stream.receive_some()

    server = TLSServer(handler, LOCALHOST, idle_timeout=0.05)
    client = await wrap_client(come_to(server, nursery), context=TRUSTING)
    error = await failure_of(server)
    assert isinstance(error, tls.IdleTimeout)
    assert trio.current_time() - start == 0.05
    # It was given up, and has not come to its end.
    with pytest.raises(tls.TruncationError):
        await client.receive_some()
