"""The standard library's TLS contexts, for every contender that is built on them."""

from __future__ import annotations

import ssl
from functools import cached_property

from .peer import Peer


class StdlibPeer(Peer):
    """A peer that takes `ssl.SSLContext`.

    Its TLS 1.3 suites cannot be chosen; TLS_AES_256_GCM_SHA384 is OpenSSL's first, and the runner configures
    OpenSSL for another.
    """

    def versions(self) -> dict[str, str]:
        return super().versions() | {"OpenSSL": ssl.OPENSSL_VERSION}

    @cached_property
    def server_context(self) -> ssl.SSLContext:
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.setup.cert, self.setup.key)
        return context

    @cached_property
    def client_context(self) -> ssl.SSLContext:
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.setup.ca)
        return context

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.setup.group is not None:
            # Named after curves, but it takes any group of OpenSSL that has a number, and sets the only one.
            context.set_ecdh_curve(self.setup.group)
        return context
