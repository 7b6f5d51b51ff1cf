"""This package."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any, cast

import trio
from OpenSSL import SSL

import trio_tlsnode as tls

from .on_trio import TrioPeer, stream_channel
from .peer import HOST, SERVER_NAME, Channel


class TLSNodePeer(TrioPeer):
    """pyOpenSSL's TLS over trio, as this package does it."""

    packages = ("trio", "pyOpenSSL", "cryptography")

    def versions(self) -> dict[str, str]:
        openssl = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode()
        return {"trio_tlsnode": tls.__version__} | super().versions() | {"OpenSSL": openssl}

    async def serve(
        self, answer: Callable[[Channel], Awaitable[None]], listening: Callable[[int], None]
    ) -> None:
        async def handler(stream: tls.TLSStream) -> None:
            await answer(stream_channel(stream))

        context = self._context(key=self.setup.key, cert=self.setup.cert)
        server = tls.TLSServer(handler, context)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, 0, HOST)
            listening(server.addresses[0].port)

    async def connect(self, port: int) -> Channel:
        return await self.resume(port, None)

    async def resume(self, port: int, session: object) -> Channel:
        stream = await tls.connect(
            HOST,
            port,
            context=self._client_context,
            server_name=SERVER_NAME,
            session=cast("bytes | None", session),
            session_cache=None,
        )
        return Channel(stream.send_all, stream.receive_some, stream.aclose, lambda: stream.session)

    @cached_property
    def _client_context(self) -> tls.SecureContext:
        return self._context(ca=self.setup.ca)

    def _context(self, **options: Any) -> tls.SecureContext:
        if self.setup.group is not None:
            options["groups"] = self.setup.group
        return tls.SecureContext(min_version="TLSv1.3", ciphers=self.setup.cipher, **options)


PEER = TLSNodePeer
