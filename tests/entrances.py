"""Entrances: every way in which a stream comes about whose handshake is done."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import SecureContext, TLSListener, TLSServer, TLSStream
from trio_tlsnode.testing import MemoryListener, default_authority, tls_pair


def client_context(**options: Any) -> SecureContext:
    """Return a context that trusts the default authority."""
    return SecureContext(ca=default_authority().ca, **options)


def server_context(**options: Any) -> SecureContext:
    """Return a context for "localhost"."""
    return SecureContext(**default_authority().good("localhost").options, **options)


# Each takes the options of the stream, and a nursery for what else there has to be.


async def through_stream(_nursery: trio.Nursery, **options: Any) -> TLSStream:
    stream, _ = await tls_pair(client_options=options)
    return stream


async def through_wrap_client(nursery: trio.Nursery, **options: Any) -> TLSStream:
    left, right = memory_stream_pair()
    nursery.start_soon(_try_handshake, TLSStream(right, server_context(), server_side=True))
    return await tls.wrap_client(left, context=client_context(), **options)


async def through_connect(nursery: trio.Nursery, **options: Any) -> TLSStream:
    server = TLSServer(_leave, server_context())
    await nursery.start(server.serve, 0, "127.0.0.1")
    port = server.addresses[0].port
    context = client_context()
    return await tls.connect("127.0.0.1", port, server_name="localhost", context=context, **options)


async def through_server_stream(_nursery: trio.Nursery, **options: Any) -> TLSStream:
    _, stream = await tls_pair(server_options=options)
    return stream


async def through_server(nursery: trio.Nursery, **options: Any) -> TLSStream:
    streams = []

    async def keep(stream: TLSStream) -> None:
        streams.append(stream)

    left, right = memory_stream_pair()
    nursery.start_soon(TLSServer(keep, server_context(), **options).handle, right)
    async with await tls.wrap_client(left, context=client_context()) as client:
        await client.receive_some()
    return streams[0]


async def through_listener(nursery: trio.Nursery, **options: Any) -> TLSStream:
    below = MemoryListener()
    listener = TLSListener(below, server_context(), **options)
    nursery.start_soon(_try_handshake, TLSStream(await below.connect(), client_context()))
    return await listener.accept()


async def _try_handshake(stream: TLSStream) -> None:
    with contextlib.suppress(tls.ConnectionFailed):
        await stream.do_handshake()


async def _leave(_stream: TLSStream) -> None:
    pass


Entrance = Callable[..., Awaitable[TLSStream]]
_CLIENTS: list[Entrance] = [through_stream, through_wrap_client, through_connect]
_SERVERS: list[Entrance] = [through_server_stream, through_server, through_listener]
through_every_client = pytest.mark.parametrize("through", _CLIENTS)
through_every_server = pytest.mark.parametrize("through", _SERVERS)
through_every_entrance = pytest.mark.parametrize("through", [*_CLIENTS, *_SERVERS])
