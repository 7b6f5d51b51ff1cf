"""The standard library on the other side: ``ssl``, blocking in threads, and Trio's own stream."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from peers import (
    OTHER_SIDE,
    PATIENCE,
    in_both_roles,
    in_both_versions,
    our_stream,
    standard_context,
    standard_socket,
    tcp_pair,
)

import trio_tlsnode as tls

pytestmark = pytest.mark.interop

MEBIBYTE = bytes(range(256)) * 4096

in_thread = trio.to_thread.run_sync


# Blocking sockets


@contextlib.asynccontextmanager
async def connected(
    role: str,
    version: str,
    folder: Path,
    *,
    suppress_ragged_eofs: bool = False,
    their_alpn_protocols: tuple[str, ...] = (),
    **options: Any,
) -> AsyncIterator[tuple[tls.TLSStream, ssl.SSLSocket]]:
    """Connect our stream, in this role, and a blocking socket of the standard library."""
    context = standard_context(OTHER_SIDE[role], version, folder)
    context.set_alpn_protocols(their_alpn_protocols)
    transport, sock = await tcp_pair()
    with (
        trio.fail_after(PATIENCE),
        standard_socket(
            context,
            sock,
            OTHER_SIDE[role],
            do_handshake_on_connect=False,
            suppress_ragged_eofs=suppress_ragged_eofs,
        ) as theirs,
    ):
        async with our_stream(transport, role, **options) as ours:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(in_thread, theirs.do_handshake))
                await ours.do_handshake()
            yield ours, theirs


@pytest.mark.feature("C1")
@pytest.mark.feature("C3")
@in_both_versions
@in_both_roles
async def test_a_mebibyte_goes_there_and_back(tmp_path: Path, role: str, version: str) -> None:
    def echo() -> None:
        received = b""
        while len(received) < len(MEBIBYTE):
            received += theirs.recv(len(MEBIBYTE))
        theirs.sendall(received)

    async with connected(
        role,
        version,
        tmp_path,
        alpn_protocols=["h2", "http/1.1"],
        their_alpn_protocols=("http/1.1", "h2"),
    ) as (ours, theirs):
        assert ours.info.protocol == theirs.version() == version
        assert ours.alpn_protocol == theirs.selected_alpn_protocol()
        assert ours.alpn_protocol == ("h2" if role == "server" else "http/1.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, echo)
            await ours.send_all(MEBIBYTE)
            received = b""
            while len(received) < len(MEBIBYTE):
                received += await ours.receive_some()
    assert received == MEBIBYTE


@pytest.mark.feature("A13")
@in_both_versions
@in_both_roles
async def test_our_goodbye_is_their_end_and_they_may_go_on(tmp_path: Path, role: str, version: str) -> None:
    async with connected(role, version, tmp_path) as (ours, theirs):
        await ours.send_all(b"the last we say")
        await ours.send_eof()
        assert await in_thread(theirs.recv, 100) == b"the last we say"
        assert await in_thread(theirs.recv, 100) == b""
        await in_thread(theirs.sendall, b"the last word")
        assert await ours.receive_some() == b"the last word"
        await in_thread(theirs.unwrap)
        assert await ours.receive_some() == b""


@pytest.mark.feature("A13")
@in_both_versions
@in_both_roles
async def test_unwrap_is_a_goodbye_and_waits_for_ours(tmp_path: Path, role: str, version: str) -> None:
    order = []

    async def unwrap() -> None:
        await in_thread(theirs.unwrap)
        order.append("they are done")

    async with connected(role, version, tmp_path) as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(unwrap)
        assert await ours.receive_some() == b""
        order.append("we say goodbye")
        await ours.send_eof()
    assert order == ["we say goodbye", "they are done"]


@pytest.mark.feature("C21")
@in_both_versions
@in_both_roles
async def test_closing_is_a_goodbye(tmp_path: Path, role: str, version: str) -> None:
    async with connected(role, version, tmp_path) as (ours, theirs):
        await ours.send_all(b"the last we say")
        await ours.aclose()
        assert await in_thread(theirs.recv, 100) == b"the last we say"
        assert await in_thread(theirs.recv, 100) == b""


@pytest.mark.feature("C21")
@in_both_versions
@in_both_roles
@pytest.mark.parametrize("suppress_ragged_eofs", [True, False])
async def test_closing_forcefully_says_no_goodbye(
    tmp_path: Path, role: str, version: str, suppress_ragged_eofs: bool
) -> None:
    async with connected(role, version, tmp_path, suppress_ragged_eofs=suppress_ragged_eofs) as (
        ours,
        theirs,
    ):
        await ours.send_all(b"half of it")
        await trio.aclose_forcefully(ours)
        assert await in_thread(theirs.recv, 100) == b"half of it"
        if suppress_ragged_eofs:
            assert await in_thread(theirs.recv, 100) == b""
        else:
            with pytest.raises(ssl.SSLEOFError):
                await in_thread(theirs.recv, 100)


@pytest.mark.feature("C24")
@in_both_versions
@in_both_roles
@pytest.mark.parametrize("https_compatible", [True, False])
async def test_their_end_without_a_goodbye_is_a_truncation_unless_it_is_allowed(
    tmp_path: Path, role: str, version: str, https_compatible: bool
) -> None:
    async with connected(role, version, tmp_path, https_compatible=https_compatible) as (ours, theirs):
        await in_thread(theirs.sendall, b"half of it")
        theirs.close()
        assert await ours.receive_some() == b"half of it"
        if https_compatible:
            assert await ours.receive_some() == b""
        else:
            with pytest.raises(tls.TruncationError):
                await ours.receive_some()


# Trio's stream

TheirStream = trio.SSLStream[
    trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]
]


@contextlib.asynccontextmanager
async def connected_with_trio(
    role: str, version: str, folder: Path, *, theirs_is_https_compatible: bool = False, **options: Any
) -> AsyncIterator[tuple[tls.TLSStream, TheirStream]]:
    """Connect our stream, in this role, and one of Trio's, in memory."""
    our_end, their_end = trio.testing.memory_stream_pair()
    theirs = trio.SSLStream(
        their_end,
        standard_context(OTHER_SIDE[role], version, folder),
        server_side=role == "client",
        server_hostname="localhost",
        https_compatible=theirs_is_https_compatible,
    )
    with trio.fail_after(PATIENCE):
        async with our_stream(our_end, role, **options) as ours, theirs:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(theirs.do_handshake)
                await ours.do_handshake()
            yield ours, theirs


@pytest.mark.feature("G1")
@in_both_versions
@in_both_roles
async def test_a_mebibyte_goes_to_trios_stream_and_back(tmp_path: Path, role: str, version: str) -> None:
    async def echo() -> None:
        async for data in theirs:
            await theirs.send_all(data)
        await theirs.aclose()

    async def send() -> None:
        await ours.send_all(MEBIBYTE)
        await ours.send_eof()

    async with (
        connected_with_trio(role, version, tmp_path) as (ours, theirs),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(echo)
        nursery.start_soon(send)
        assert b"".join([data async for data in ours]) == MEBIBYTE


@pytest.mark.feature("C21")
@in_both_versions
@in_both_roles
async def test_trios_stream_hears_our_goodbye(tmp_path: Path, role: str, version: str) -> None:
    async with connected_with_trio(role, version, tmp_path) as (ours, theirs):
        await ours.aclose()
        assert await theirs.receive_some() == b""


@pytest.mark.feature("C21")
@in_both_versions
@in_both_roles
async def test_trios_stream_misses_the_goodbye_of_a_forceful_end(
    tmp_path: Path, role: str, version: str
) -> None:
    async with connected_with_trio(role, version, tmp_path) as (ours, theirs):
        await trio.aclose_forcefully(ours)
        with pytest.raises(trio.BrokenResourceError):
            await theirs.receive_some()


@in_both_versions
@in_both_roles
async def test_trios_stream_is_unwrapped_when_we_have_said_goodbye_too(
    tmp_path: Path, role: str, version: str
) -> None:
    async with connected_with_trio(role, version, tmp_path) as (ours, theirs):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def unwrap() -> None:
                transport, trailing = await theirs.unwrap()
                assert trailing == b""
                await transport.send_all(b"in the clear")

            assert await ours.receive_some() == b""
            await ours.send_eof()
        assert await ours.transport_stream.receive_some() == b"in the clear"


@pytest.mark.feature("C24")
@in_both_versions
@in_both_roles
@pytest.mark.parametrize("https_compatible", [True, False])
async def test_the_end_of_trios_https_compatible_stream_is_a_truncation_unless_it_is_allowed(
    tmp_path: Path, role: str, version: str, https_compatible: bool
) -> None:
    async with connected_with_trio(
        role, version, tmp_path, theirs_is_https_compatible=True, https_compatible=https_compatible
    ) as (ours, theirs):
        await theirs.aclose()
        if https_compatible:
            assert await ours.receive_some() == b""
        else:
            with pytest.raises(tls.TruncationError):
                await ours.receive_some()
