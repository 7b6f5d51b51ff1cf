"""Peers that misbehave after the handshake, a handler that catches nothing, and a handler with defects."""

from __future__ import annotations

import contextlib
import gc
import inspect
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from benchmarks.reliability.clients import trust_in
from benchmarks.reliability.misdeeds import AFTER, BEFORE, Misdeed, commit
from trio_tlsnode._openssl.callbacks import connections
from trio_tlsnode.testing import MemoryListener, default_authority

pytestmark = pytest.mark.feature("B6")

Handler = Callable[[tls.TLSStream], Awaitable[None]]

ROOT = Path(__file__).parent.parent
trust = trust_in(default_authority().ca)
SERVER = tls.SecureContext(**default_authority().good("localhost").options)
MISDEEDS = [*BEFORE, *AFTER]
OVER_MEMORY = [misdeed for misdeed in MISDEEDS if not misdeed.needs_socket]
# How many peers misbehave here; ``python -m benchmarks.reliability late`` takes ten thousand.
PEERS = 160
AT_ONCE = 20


async def echo(stream: tls.TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


def test_the_handler_of_the_readme_is_this_one() -> None:
    assert inspect.getsource(echo) in (ROOT / "README.md").read_text(encoding="utf-8")


async def assert_serves(connect: Callable[[], Awaitable[trio.abc.Stream]]) -> None:
    async with await tls.wrap_client(await connect(), host="localhost", context=trust()) as client:
        await client.send_all(b"still there?")
        assert await client.receive_some() == b"still there?"


async def failures(server: tls.TLSServer) -> list[tls.ConnectionFailed]:
    group = await anext(server.client_errors())
    return [error for error in group.exceptions if isinstance(error, tls.ConnectionFailed)]


@pytest.mark.parametrize("misdeed", OVER_MEMORY, ids=str)
async def test_a_misdeed_ends_its_own_connection_and_is_told_of_once(
    misdeed: Misdeed, nursery: trio.Nursery
) -> None:
    server = tls.TLSServer(echo, SERVER)
    listener = MemoryListener()
    await nursery.start(server.serve_listeners, [listener])
    await commit(misdeed, await listener.connect(), trust)
    (error,) = await failures(server)
    assert error.code in misdeed.codes
    assert (error.phase == "secure") == (misdeed in AFTER)
    await assert_serves(listener.connect)
    await wait_all_tasks_blocked()
    assert server.statistics().open == 0
    assert sum(server.statistics().failed.values()) == 1


@pytest.mark.parametrize("misdeed", MISDEEDS, ids=str)
async def test_a_misdeed_over_a_socket_ends_its_own_connection_and_is_told_of_once(
    misdeed: Misdeed, nursery: trio.Nursery
) -> None:
    server = tls.TLSServer(echo, SERVER)
    (listener,) = await nursery.start(server.serve, 0, "127.0.0.1")
    port = listener.socket.getsockname()[1]
    await commit(misdeed, await trio.open_tcp_stream("127.0.0.1", port), trust)
    (error,) = await failures(server)
    assert error.code in misdeed.codes
    await assert_serves(partial(trio.open_tcp_stream, "127.0.0.1", port))
    assert sum(server.statistics().failed.values()) == 1


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted by /proc")
async def test_the_naive_handler_survives_all_of_them_at_once(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    server = tls.TLSServer(echo, SERVER, client_error_limit=PEERS)
    (listener,) = await nursery.start(server.serve, 0, "127.0.0.1")
    port = listener.socket.getsockname()[1]
    gc.collect()
    files, ssl = len(os.listdir("/proc/self/fd")), len(connections)
    limiter = trio.CapacityLimiter(AT_ONCE)
    done: Counter[Misdeed] = Counter()

    async def misbehave(misdeed: Misdeed) -> None:
        async with limiter:
            await commit(misdeed, await trio.open_tcp_stream("127.0.0.1", port), trust)
            done[misdeed] += 1

    with caplog.at_level(logging.INFO, "trio_tlsnode"):
        async with trio.open_nursery() as peers:
            for number in range(PEERS):
                peers.start_soon(misbehave, AFTER[number % len(AFTER)])
        while server.statistics().open:
            await wait_all_tasks_blocked()
    await assert_serves(partial(trio.open_tcp_stream, "127.0.0.1", port))
    told = Counter(error.code for error in await failures(server))
    assert told.total() == PEERS
    assert told == Counter(server.statistics().failed)
    for code, number in told.items():
        assert number <= sum(done[misdeed] for misdeed in AFTER if code in misdeed.codes)
    # Nobody supervised: a burst of lines, none of them with a traceback, and one that there are more.
    assert len(caplog.records) == 21
    assert all(record.exc_info is None and record.getMessage().isprintable() for record in caplog.records)
    while server.statistics().open:
        await wait_all_tasks_blocked()
    # The peers' own streams, which nobody has closed.
    gc.collect()
    assert (len(os.listdir("/proc/self/fd")), len(connections)) == (files, ssl)


# Defects of a handler's own


def isolated() -> Callable[[Handler], Handler]:
    """Return the decorator that the documentation shows."""
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    block = page.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(block, names)
    decorator: Callable[[Handler], Handler] = names["isolated"]
    return decorator


async def wrong(_stream: tls.TLSStream) -> None:
    raise LookupError("a defect")


async def wrong_in_the_background(stream: tls.TLSStream) -> None:
    assert stream.nursery is not None
    stream.nursery.start_soon(wrong, stream)
    await echo(stream)


async def wrong_upstream(_stream: tls.TLSStream) -> None:
    upstream, nobody = memory_stream_pair()
    await nobody.aclose()
    await tls.wrap_client(upstream, context=trust())


async def wrong_in_a_group(_stream: tls.TLSStream) -> None:
    raise ExceptionGroup("several", [LookupError("a defect"), ExceptionGroup("more", [KeyError("another")])])


DEFECTS = [wrong, wrong_in_the_background, wrong_upstream, wrong_in_a_group]


@pytest.mark.parametrize("defect", DEFECTS)
async def test_a_defect_ends_the_server_as_in_trio(defect: Handler, nursery: trio.Nursery) -> None:
    server = tls.TLSServer(defect, SERVER)
    client_end, server_end = memory_stream_pair()

    async def connect() -> None:
        with contextlib.suppress(tls.TLSError):
            async with await tls.wrap_client(client_end, host="localhost", context=trust()) as client:
                await client.receive_some()

    nursery.start_soon(connect)
    with pytest.raises(ExceptionGroup):
        await server.handle(server_end)
    assert not server.statistics().failed


@pytest.mark.parametrize("defect", DEFECTS)
async def test_a_defect_that_is_isolated_ends_its_own_connection(
    defect: Handler, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(stream: tls.TLSStream) -> None:
        await (defect if stream.alpn_protocol == "defect" else echo)(stream)

    server = tls.TLSServer(isolated()(handler), SERVER, alpn_protocols=["defect"])
    listener = MemoryListener()
    await nursery.start(server.serve_listeners, [listener])
    transport = await listener.connect()
    async with await tls.wrap_client(
        transport, host="localhost", context=trust(), alpn_protocols=["defect"]
    ) as client:
        assert await client.receive_some() == b""
    await assert_serves(listener.connect)
    assert not server.statistics().failed
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("my_server", logging.ERROR)
    assert record.exc_info is not None


@pytest.mark.parametrize("misdeed", [misdeed for misdeed in AFTER if not misdeed.needs_socket], ids=str)
async def test_what_clients_do_wrong_to_an_isolated_handler_is_told_of_as_ever(
    misdeed: Misdeed, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    server = tls.TLSServer(isolated()(echo), SERVER)
    server.client_errors()
    listener = MemoryListener()
    await nursery.start(server.serve_listeners, [listener])
    await commit(misdeed, await listener.connect(), trust)
    (error,) = await failures(server)
    assert error.code in misdeed.codes
    assert not caplog.records
    await assert_serves(listener.connect)


async def test_cancelling_is_not_isolated(autojump_clock: MockClock) -> None:
    server = tls.TLSServer(isolated()(echo), SERVER)
    client_end, server_end = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, server_end)
        await tls.wrap_client(client_end, host="localhost", context=trust())
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert server.statistics().open == 0
    assert not server.statistics().failed
