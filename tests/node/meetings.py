"""Meetings: clients and servers that find each other, over memory as a rule."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from faults import only
from trio.testing import memory_stream_pair

from trio_tlsnode import ConnectionFailed, SecureContext, TLSServer, TLSStream
from trio_tlsnode.testing import tls_pair

VERSIONS = ["TLSv1.2", "TLSv1.3"]
in_both_versions = pytest.mark.parametrize("version", VERSIONS)


async def secure_pair(
    client: dict[str, Any],
    server: dict[str, Any],
    *,
    version: str | None = None,
    transports: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
    client_options: dict[str, Any] | None = None,
    server_options: dict[str, Any] | None = None,
) -> tuple[TLSStream, TLSStream]:
    """Return a client and a server whose handshake is done.

    Args:
        client: The options of the client's context.
        server: The options of the server's context.
        version: The only version of both.
        transports: Those of the client and of the server.
        client_options: The options of the client's stream.
        server_options: The options of the server's stream.
    """
    versions = {} if version is None else only(version)
    return await tls_pair(
        transports,
        client_context=SecureContext(**client, **versions),
        server_context=SecureContext(**server, **versions),
        client_options=client_options,
        server_options=server_options,
    )


def come_to(server: TLSServer, nursery: trio.Nursery) -> trio.StapledStream[Any, Any]:
    """Have a server handle a connection in memory; return the client's end of it."""
    left, right = memory_stream_pair()
    nursery.start_soon(server.handle, right)
    return left


async def failure_of(server: TLSServer) -> ConnectionFailed:
    """Return the one failure that a server has to tell of."""
    (error,) = (await anext(server.client_errors())).exceptions
    assert isinstance(error, ConnectionFailed)
    return error


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    """Return all that comes until the peer's goodbye."""
    return b"".join([data async for data in stream])
