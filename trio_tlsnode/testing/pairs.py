"""tls_pair: two connected TLS streams, client and server, without a socket."""

from __future__ import annotations

import functools
from typing import Any

import trio
import trio.testing

from ..context import SecureContext
from ..stream import TLSStream
from .authority import Authority


@functools.cache
def default_authority() -> Authority:
    """Return the authority of all pairs that name none; made once in a process, as keys take time."""
    return Authority()


@functools.cache
def _contexts(min_version: str, max_version: str) -> tuple[SecureContext, SecureContext]:
    authority = default_authority()
    versions: Any = {"min_version": min_version, "max_version": max_version}
    return (
        SecureContext(ca=authority.ca, **versions),
        SecureContext(**authority.good("localhost").options, **versions),
    )


async def tls_pair(
    transports: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
    *,
    version: str | None = None,
    client_context: SecureContext | None = None,
    server_context: SecureContext | None = None,
    client_options: dict[str, Any] | None = None,
    server_options: dict[str, Any] | None = None,
    handshake: bool = True,
) -> tuple[TLSStream, TLSStream]:
    """Return a client's and a server's stream that are connected to each other.

    Args:
        transports: The transports of the client and of the server; by default a pair in memory.
        version: The only protocol version of the default contexts ("TLSv1.2"); None is TLS 1.2 and 1.3.
        client_context: The client's context; by default one that trusts `default_authority`.
        server_context: The server's context; by default one with a certificate for "localhost" from it.
        client_options: Further options of the client's `TLSStream`.
        server_options: Further options of the server's `TLSStream`.
        handshake: Whether to do the handshake too.

    Raises:
        ExceptionGroup: The handshake failed: of the `TLSError` of each side.  Both transports are closed.
    """
    client_transport, server_transport = transports or trio.testing.memory_stream_pair()
    default_client, default_server = _contexts(version or "TLSv1.2", version or "TLSv1.3")
    client = TLSStream(client_transport, client_context or default_client, **(client_options or {}))
    server = TLSStream(
        server_transport, server_context or default_server, server_side=True, **(server_options or {})
    )
    if handshake:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.do_handshake)
                nursery.start_soon(server.do_handshake)
        except BaseException:
            await trio.aclose_forcefully(client)
            await trio.aclose_forcefully(server)
            raise
    return client, server
