"""Listening: TCP and Unix sockets, several at once, what a lack of room does, and what is left at the end."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_tlsnode import (
    Address,
    SecureContext,
    TLSServer,
    TLSStream,
    connect,
    connect_unix,
    wrap_client,
)
from trio_tlsnode.testing import MemoryListener, default_authority

CLIENT = SecureContext(ca=default_authority().ca)
SERVER = SecureContext(**default_authority().good("localhost", "127.0.0.1", "::1").options)


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


@pytest.fixture
def server() -> TLSServer:
    return TLSServer(echo, SERVER)


async def assert_echoes(client: TLSStream) -> None:
    async with client:
        await client.send_all(b"is this on?")
        assert await client.receive_some() == b"is this on?"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")

# TCP


@pytest.mark.feature("B2")
@pytest.mark.feature("B4")
async def test_port_zero_lets_the_kernel_choose_and_addresses_tells(
    server: TLSServer, nursery: trio.Nursery
) -> None:
    assert list(server.addresses) == []
    listeners = await nursery.start(server.serve, 0, "127.0.0.1")
    assert [type(listener) for listener in listeners] == [trio.SocketListener]
    (address,) = server.addresses
    assert address == Address("127.0.0.1", listeners[0].socket.getsockname()[1], "IPv4")
    assert address.port > 0
    await assert_echoes(await connect(address.host, address.port, context=CLIENT))


@pytest.mark.feature("B2")
@pytest.mark.feature("B4")
@needs_ipv6
async def test_ipv6_address(server: TLSServer, nursery: trio.Nursery) -> None:
    await nursery.start(server.serve, 0, "::1")
    (address,) = server.addresses
    assert (address.host, address.family) == ("::1", "IPv6")
    assert str(address) == f"[::1]:{address.port}"
    await assert_echoes(await connect("::1", address.port, context=CLIENT))


@pytest.mark.feature("B2")
async def test_without_a_host_all_addresses_of_the_machine_are_served(
    server: TLSServer, nursery: trio.Nursery
) -> None:
    listeners = await nursery.start(server.serve, 0)
    assert len(server.addresses) == len(listeners)
    assert {address.family for address in server.addresses} == {"IPv4", "IPv6"} if has_ipv6() else {"IPv4"}
    for address in server.addresses:
        loopback = "127.0.0.1" if address.family == "IPv4" else "::1"
        await assert_echoes(await connect(loopback, address.port, context=CLIENT))


@pytest.mark.feature("B2")
@pytest.mark.feature("B4")
async def test_several_listeners_of_any_kind_are_served_at_once(
    server: TLSServer, nursery: trio.Nursery
) -> None:
    in_memory = MemoryListener()
    over_tcp = [(await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(2)]
    listeners = await nursery.start(server.serve_listeners, [in_memory, *over_tcp])
    assert listeners == [in_memory, *over_tcp]
    assert [address.port for address in server.addresses] == [
        listener.socket.getsockname()[1] for listener in over_tcp
    ]
    await assert_echoes(await wrap_client(await in_memory.connect(), context=CLIENT))
    for address in server.addresses:
        await assert_echoes(await connect("127.0.0.1", address.port, context=CLIENT))


@pytest.mark.feature("B2")
@pytest.mark.feature("B4")
async def test_server_may_serve_several_times_at_once(server: TLSServer, nursery: trio.Nursery) -> None:
    scope = trio.CancelScope()

    async def serve_for_a_while(task_status: trio.TaskStatus[Any]) -> None:
        with scope:
            await server.serve(0, "127.0.0.1", task_status=task_status)

    await nursery.start(serve_for_a_while)
    await nursery.start(server.serve, 0, "127.0.0.1")
    first, second = server.addresses
    scope.cancel()
    await wait_all_tasks_blocked()
    assert server.addresses == (second,)
    assert first != second
    await assert_echoes(await connect("127.0.0.1", second.port, context=CLIENT))


@pytest.mark.feature("B2")
async def test_address_in_use_is_an_os_error(server: TLSServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="in use") as caught:
            await server.serve(taken.getsockname()[1], "127.0.0.1")
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.feature("B2")
async def test_closed_server_serves_no_more(server: TLSServer) -> None:
    await server.aclose()
    listener = MemoryListener()
    with pytest.raises(trio.ClosedResourceError):
        await server.serve_listeners([listener])
    with pytest.raises(ConnectionRefusedError):
        await listener.connect()


@pytest.mark.feature("B2")
async def test_cancelled_server_may_serve_again(server: TLSServer, nursery: trio.Nursery) -> None:
    async with trio.open_nursery() as first:
        await first.start(server.serve, 0, "127.0.0.1")
        first.cancel_scope.cancel()
    assert list(server.addresses) == []
    await nursery.start(server.serve, 0, "127.0.0.1")
    (address,) = server.addresses
    await assert_echoes(await connect("127.0.0.1", address.port, context=CLIENT))


# Unix sockets


@pytest.mark.feature("B2")
@pytest.mark.feature("B4")
@pytest.mark.feature("A2")
@pytest.mark.parametrize("form", [str, os.fsencode, Path])
async def test_unix_socket(
    form: Callable[[str], Any], server: TLSServer, nursery: trio.Nursery, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    await nursery.start(server.serve_unix, form(str(path)))
    assert server.addresses == (Address(str(path), 0, "unix"),)
    assert stat.S_ISSOCK(path.stat().st_mode)
    await assert_echoes(await connect_unix(form(str(path)), context=CLIENT))


@pytest.mark.feature("B2")
@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_socket_file_is_removed_at_the_end(how: str, server: TLSServer, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_unix, path)
        assert path.exists()
        if how == "closed":
            await server.aclose()
        else:
            nursery.cancel_scope.cancel()
    assert os.listdir(tmp_path) == []


def leave_stale_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))


@pytest.mark.feature("B2")
async def test_stale_socket_file_is_replaced(
    server: TLSServer, nursery: trio.Nursery, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    leave_stale_socket(path)
    assert path.exists()
    await nursery.start(server.serve_unix, path)
    await assert_echoes(await connect_unix(path, context=CLIENT))


@pytest.mark.feature("B2")
async def test_socket_of_a_live_server_is_refused_and_kept(
    server: TLSServer, nursery: trio.Nursery, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    await nursery.start(server.serve_unix, path)
    with pytest.raises(OSError, match="in use") as caught:
        await TLSServer(echo, SERVER).serve_unix(path)
    assert caught.value.errno == errno.EADDRINUSE
    await assert_echoes(await connect_unix(path, context=CLIENT))


@pytest.mark.feature("B2")
async def test_socket_of_a_live_server_whose_queue_is_full_is_refused_and_kept(
    server: TLSServer, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(os.fspath(path))
        busy.listen(0)
        waiting.connect(os.fspath(path))
        with trio.fail_after(5), pytest.raises(OSError, match="in use") as caught:
            await server.serve_unix(path)
        assert caught.value.errno == errno.EADDRINUSE
        assert path.exists()


@pytest.mark.feature("B2")
async def test_other_file_is_refused_and_kept(server: TLSServer, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match="in use") as caught:
        await server.serve_unix(path)
    assert caught.value.errno == errno.EADDRINUSE
    assert path.read_text() == "data"


@pytest.mark.feature("B2")
async def test_path_that_cannot_be_used_is_an_os_error(server: TLSServer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await server.serve_unix(tmp_path / "missing" / "socket")


@pytest.mark.feature("B2")
async def test_socket_that_took_the_place_meanwhile_is_not_removed(server: TLSServer, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_unix, path)
        path.unlink()
        leave_stale_socket(path)
        await server.aclose()
    assert path.exists()


@pytest.mark.feature("B2")
async def test_closed_server_leaves_no_socket_file(server: TLSServer, tmp_path: Path) -> None:
    await server.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await server.serve_unix(tmp_path / "socket")
    assert os.listdir(tmp_path) == []


# Errors of accepting


@pytest.mark.feature("B2")
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
async def test_lack_of_room_is_waited_for(
    number: int,
    server: TLSServer,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = MemoryListener()
    for _ in range(3):
        listener.fail(OSError(number, os.strerror(number)))
    await nursery.start(server.serve_listeners, [listener])
    client = await wrap_client(await listener.connect(), context=CLIENT)
    # A tenth of a second each time, so that no processor is kept busy by it.
    assert trio.current_time() == pytest.approx(0.3)
    await assert_echoes(client)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3
    assert os.strerror(number) in caplog.messages[0]
    assert caplog.records[0].exc_info is None


@pytest.mark.feature("B2")
async def test_lack_of_room_at_one_listener_does_not_stop_the_other(
    server: TLSServer, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    poor, rich = MemoryListener(), MemoryListener()
    poor.fail(OSError(errno.EMFILE, "Too many open files"))
    await nursery.start(server.serve_listeners, [poor, rich])
    await assert_echoes(await wrap_client(await rich.connect(), context=CLIENT))


@pytest.mark.feature("B2")
async def test_server_is_closed_while_it_waits_for_room(server: TLSServer, mock_clock: MockClock) -> None:
    listener = MemoryListener()
    listener.fail(OSError(errno.EMFILE, "Too many open files"))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners, [listener])
        await wait_all_tasks_blocked()
        await server.aclose()
    assert trio.current_time() == 0


@pytest.mark.feature("B2")
@pytest.mark.parametrize(
    "error", [OSError(errno.EBADF, "Bad file descriptor"), RuntimeError("broken listener")]
)
async def test_other_error_of_a_listener_propagates_and_ends_all(error: Exception, server: TLSServer) -> None:
    broken, other = MemoryListener(), MemoryListener()
    with pytest.RaisesGroup(type(error), flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve_listeners, [broken, other])
            client = await wrap_client(await other.connect(), context=CLIENT)
            broken.fail(error)
            await trio.sleep_forever()
    assert server.statistics().open == 0
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    with pytest.raises(ConnectionRefusedError):
        await other.connect()
