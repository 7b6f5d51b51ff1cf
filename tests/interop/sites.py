"""Two sites behind one port: who serves which, and what a client of HTTP has been shown."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import trio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from peers import PATIENCE

import trio_tlsnode as tls
from trio_tlsnode.testing import IssuedCertificate, default_authority

NAMES = ("one.example", "two.example")


@functools.cache
def issued(name: str) -> IssuedCertificate:
    """Return the certificate of a site."""
    return default_authority().good(name)


def page(name: str) -> str:
    """Return what the page of a site says, also when another site's certificate is shown."""
    return f"{name}: {tls.Certificate.from_x509(issued(name).certificate).fingerprint256}"


def pin(name: str) -> str:
    """Return the hash of a site's public key, as browsers know it (RFC 7469, section 2.4)."""
    key = issued(name).certificate.public_key()
    return base64.b64encode(
        hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    ).decode()


class Sites:
    """A server of two sites.

    Attributes:
        port: Where it listens.
        infos: What was negotiated in each connection that has asked for something.
    """

    def __init__(self, server: tls.TLSServer, infos: list[tls.ConnectionInfo]) -> None:
        self.port = server.addresses[0].port
        self.infos = infos
        self._errors = server.client_errors()

    async def failure(self) -> tls.TLSError:
        """Return the first error that is reported next; browsers try more than once."""
        error = (await anext(self._errors)).exceptions[0]
        assert isinstance(error, tls.TLSError)
        return error


@contextlib.asynccontextmanager
async def two_sites(**options: Any) -> AsyncIterator[Sites]:
    """Serve the sites until the end of the block, over HTTP/1.1.

    Args:
        options: Further options of both contexts.
    """
    infos: list[tls.ConnectionInfo] = []

    async def answer(stream: tls.TLSStream) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            data = await stream.receive_some()
            if not data:
                return
            request += data
        assert stream.info is not None
        assert stream.info.certificate is not None
        infos.append(stream.info)
        body = f"{stream.info.server_name}: {stream.info.certificate.fingerprint256}\n".encode()
        lines = ("HTTP/1.1 200 OK", "Connection: close", "Content-Type: text/html")
        head = "\r\n".join((*lines, f"Content-Length: {len(body)}", "", ""))
        await stream.send_all(head.encode() + body)

    first, second = (tls.SecureContext(**issued(name).options, **options) for name in NAMES)
    server = tls.TLSServer(answer, first, alpn_protocols=["http/1.1"])
    server.add_context(NAMES[1], second)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, 0, "127.0.0.1")
            yield Sites(server, infos)
            nursery.cancel_scope.cancel()
