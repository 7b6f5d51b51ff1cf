"""The plug-in for pytest: the test kit `trio_tlsnode.testing` as fixtures, whose names begin with ``tls_``.

pytest imports this module at the start of every run in an environment that has the package.  So it lies
beside the package, which takes long to import, and imports it when a fixture is asked for.

Whatever is async is a function that the test awaits: so the fixtures do not depend on how tests are run,
by pytest-trio, by anyio's plug-in or by `trio.run`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    import trio

    from trio_tlsnode import SecureContext, TLSStream
    from trio_tlsnode.testing import Authority, MemoryListener

__all__ = [
    "TLSFiles",
    "tls_authority",
    "tls_client_context",
    "tls_faulty_pair",
    "tls_files",
    "tls_memory_listener",
    "tls_pair",
    "tls_server_context",
]


class TLSFiles(NamedTuple):
    """Files for a program that takes its credentials from files, all PEM.

    Attributes:
        ca: The authority's certificate: what clients are to trust.
        cert: The certificate for "localhost", "127.0.0.1" and "::1", with its chain.
        key: Its private key.
    """

    ca: Path
    cert: Path
    key: Path


class Pair(Protocol):
    """What `tls_pair` is."""

    async def __call__(
        self,
        transports: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
        *,
        version: str | None = None,
        client_context: SecureContext | None = None,
        server_context: SecureContext | None = None,
        client_options: dict[str, Any] | None = None,
        server_options: dict[str, Any] | None = None,
        handshake: bool = True,
    ) -> tuple[TLSStream, TLSStream]: ...


class FaultyPair(Protocol):
    """What `tls_faulty_pair` is."""

    async def __call__(
        self,
        *,
        client: Callable[[trio.abc.Stream], trio.abc.Stream] | None = None,
        server: Callable[[trio.abc.Stream], trio.abc.Stream] | None = None,
        **options: Any,
    ) -> tuple[TLSStream, TLSStream]: ...


def _testing() -> ModuleType:
    return importlib.import_module("trio_tlsnode.testing")


@pytest.fixture(scope="session")
def tls_authority() -> Authority:
    """An authority that issues certificates of every kind: the one of `tls_pair`'s contexts."""
    authority: Authority = _testing().default_authority()
    return authority


@pytest.fixture(scope="session")
def tls_server_context(tls_authority: Authority) -> SecureContext:
    """A server's context, with a certificate for "localhost", "127.0.0.1" and "::1"."""
    from trio_tlsnode import SecureContext

    return SecureContext(**tls_authority.good("localhost", "127.0.0.1", "::1").options, ca=tls_authority.ca)


@pytest.fixture(scope="session")
def tls_client_context(tls_authority: Authority) -> SecureContext:
    """A client's context that trusts `tls_authority`, and presents a certificate for "client" if asked."""
    from trio_tlsnode import SecureContext

    return SecureContext(**tls_authority.client("client").options, ca=tls_authority.ca)


@pytest.fixture(scope="session")
def tls_files(tls_authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> TLSFiles:
    """Files with an authority's certificate, a certificate for this host, and its key."""
    folder = tmp_path_factory.mktemp("tls_files")
    key, cert = tls_authority.good("localhost", "127.0.0.1", "::1").write_to(folder)
    ca = folder / "ca.pem"
    ca.write_bytes(tls_authority.ca)
    return TLSFiles(ca, cert, key)


@pytest.fixture
def tls_pair(tls_client_context: SecureContext, tls_server_context: SecureContext) -> Pair:
    """An async function that returns a client's and a server's stream, connected in memory.

    It takes what `trio_tlsnode.testing.tls_pair` takes; its contexts are those of the fixtures, which another
    fixture of the same name replaces, unless a ``version`` is asked for.
    """

    async def pair(
        transports: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
        *,
        version: str | None = None,
        client_context: SecureContext | None = None,
        server_context: SecureContext | None = None,
        **options: Any,
    ) -> tuple[TLSStream, TLSStream]:
        if version is None:
            client_context = client_context or tls_client_context
            server_context = server_context or tls_server_context
        streams: tuple[TLSStream, TLSStream] = await _testing().tls_pair(
            transports,
            version=version,
            client_context=client_context,
            server_context=server_context,
            **options,
        )
        return streams

    return pair


@pytest.fixture
def tls_faulty_pair(tls_pair: Pair) -> FaultyPair:
    """An async function that returns a pair over transports with faults, as of `trio_tlsnode.testing`.

    ``client`` and ``server`` are called with the transport of that side, and return what is to be used in its
    place: ``await tls_faulty_pair(server=lambda transport: TruncatingStream(transport, 2000))``.  The rest is
    as for `tls_pair`.
    """

    async def pair(
        *,
        client: Callable[[trio.abc.Stream], trio.abc.Stream] | None = None,
        server: Callable[[trio.abc.Stream], trio.abc.Stream] | None = None,
        **options: Any,
    ) -> tuple[TLSStream, TLSStream]:
        from trio.testing import memory_stream_pair

        ends = memory_stream_pair()
        faulty = [
            end if fault is None else fault(end) for end, fault in zip(ends, (client, server), strict=True)
        ]
        return await tls_pair((faulty[0], faulty[1]), **options)

    return pair


@pytest.fixture
def tls_memory_listener() -> MemoryListener:
    """A listener without sockets, for ``server.serve_listeners([tls_memory_listener])``."""
    listener: MemoryListener = _testing().MemoryListener()
    return listener
