"""Listening: TCP and Unix sockets, several at once, what a lack of room does, and what is left at the end."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import re
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_tlsnode import (
    Address,
    ConfigurationError,
    ConfigurationTypeError,
    ConnectError,
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
@pytest.mark.parametrize("host", ["127.0.0.1", b"127.0.0.1"])
async def test_address_in_use(host: str | bytes, server: TLSServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConnectError, match="in use") as caught:
            await server.serve(port, host)
    assert isinstance(caught.value, OSError)
    assert (caught.value.code, caught.value.errno) == ("EADDRINUSE", errno.EADDRINUSE)
    assert (caught.value.host, caught.value.port) == ("127.0.0.1", port)
    assert isinstance(caught.value.__cause__, OSError)
    assert server.addresses == ()


@pytest.mark.feature("B2")
async def test_port_in_use_on_one_of_all_addresses(server: TLSServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConnectError, match=re.escape(f"*:{port} [EADDRINUSE]")) as caught:
            await server.serve(port)
    assert caught.value.host == "*"


@pytest.mark.feature("B2")
async def test_address_of_another_machine(server: TLSServer) -> None:
    with pytest.raises(ConnectError) as caught:
        await server.serve(0, "192.0.2.1")
    assert caught.value.code == "EADDRNOTAVAIL"
    assert (caught.value.host, caught.value.port) == ("192.0.2.1", 0)


class Resolver(trio.abc.HostnameResolver):
    """Resolves nothing."""

    def __init__(self, number: int) -> None:
        self.number = number

    async def getaddrinfo(self, *_arguments: Any, **_options: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(self.number, "what getaddrinfo says")

    async def getnameinfo(self, *_arguments: Any) -> tuple[str, str]:
        raise NotImplementedError


@pytest.mark.feature("B2")
@pytest.mark.parametrize(
    ("number", "code"), [(socket.EAI_NONAME, "ENOTFOUND"), (socket.EAI_AGAIN, "EAI_AGAIN")]
)
async def test_unknown_host(number: int, code: str, server: TLSServer) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(number))
    with pytest.raises(ConnectError, match="what getaddrinfo says") as caught:
        await server.serve(443, "unknown.example")
    assert caught.value.code == code
    assert (caught.value.host, caught.value.port) == ("unknown.example", 443)


class NotPermitted(trio.socket.SocketType):
    """A socket that may not be bound."""

    def setsockopt(self, *_arguments: Any) -> None:
        pass

    async def bind(self, address: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def close(self) -> None:
        pass


class NobodyIsPermitted(trio.abc.SocketFactory):
    def socket(self, *_arguments: Any) -> trio.socket.SocketType:
        return NotPermitted()


@pytest.mark.feature("B2")
async def test_port_for_which_permission_is_lacking(server: TLSServer) -> None:
    trio.socket.set_custom_socket_factory(NobodyIsPermitted())
    with pytest.raises(ConnectError) as caught:
        await server.serve(443, "127.0.0.1")
    assert (caught.value.code, caught.value.errno) == ("EACCES", errno.EACCES)


class TwoAddresses(Resolver):
    """Resolves every name to two addresses."""

    async def getaddrinfo(self, *arguments: Any, **_options: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, arguments[1]))
            for address in ("192.0.2.1", "192.0.2.2")
        ]


class Kernel(trio.abc.SocketFactory):
    """Chooses port 1, then 2, and so on; some are taken at the second address."""

    def __init__(self, taken: Callable[[int], bool]) -> None:
        self.taken = taken
        self.chosen = itertools.count(1)
        self.open: set[Listening] = set()

    def socket(self, *_arguments: Any) -> trio.socket.SocketType:
        sock = Listening(self)
        self.open.add(sock)
        return sock


class Listening(trio.socket.SocketType):
    type = socket.SOCK_STREAM
    family = socket.AF_INET

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._name = ("0.0.0.0", 0)

    def setsockopt(self, *_arguments: Any) -> None:
        pass

    def getsockopt(self, *_arguments: Any) -> Any:
        return 1

    async def bind(self, address: Any) -> None:
        await trio.lowlevel.checkpoint()
        host, port = address
        if host == "192.0.2.2" and port and self._kernel.taken(port):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self._name = (host, port or next(self._kernel.chosen))

    def listen(self, backlog: int = 0) -> None:
        pass

    def getsockname(self) -> tuple[str, int]:
        return self._name

    async def accept(self) -> Any:
        await trio.sleep_forever()

    def close(self) -> None:
        self._kernel.open.discard(self)


@pytest.mark.feature("B2")
async def test_kernel_chooses_again_if_its_port_is_taken_on_another_address(
    server: TLSServer, nursery: trio.Nursery
) -> None:
    trio.socket.set_custom_hostname_resolver(TwoAddresses(0))
    kernel = Kernel(taken=lambda port: port < 5)
    trio.socket.set_custom_socket_factory(kernel)
    await nursery.start(server.serve, 0, "two.example")
    assert [(address.host, address.port) for address in server.addresses] == [
        ("192.0.2.1", 5),
        ("192.0.2.2", 5),
    ]
    assert len(kernel.open) == 2


@pytest.mark.feature("B2")
async def test_no_port_is_free_on_all_addresses(server: TLSServer) -> None:
    trio.socket.set_custom_hostname_resolver(TwoAddresses(0))
    kernel = Kernel(taken=lambda _port: True)
    trio.socket.set_custom_socket_factory(kernel)
    with pytest.raises(ConnectError) as caught:
        await server.serve(0, "two.example")
    assert caught.value.code == "EADDRINUSE"
    assert not kernel.open


@pytest.mark.feature("B2")
@pytest.mark.parametrize(
    ("arguments", "kind", "option", "code"),
    [
        (("443",), ConfigurationTypeError, "port", "ERR_INVALID_ARG_TYPE"),
        ((True,), ConfigurationTypeError, "port", "ERR_INVALID_ARG_TYPE"),
        ((-1,), ConfigurationError, "port", "ERR_SOCKET_BAD_PORT"),
        ((65536,), ConfigurationError, "port", "ERR_SOCKET_BAD_PORT"),
        ((0, 127), ConfigurationTypeError, "host", "ERR_INVALID_ARG_TYPE"),
        ((0, "b\xfc..example"), ConfigurationError, "host", "ERR_INVALID_ARG_VALUE"),
    ],
)
async def test_impossible_port_or_host_is_refused(
    arguments: tuple[Any, ...], kind: type[Exception], option: str, code: str, server: TLSServer
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await server.serve(*arguments)
    assert type(caught.value) is kind
    assert (caught.value.option, caught.value.code) == (option, code)


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
    with pytest.raises(ConnectError, match="in use") as caught:
        await TLSServer(echo, SERVER).serve_unix(path)
    assert caught.value.code == "EADDRINUSE"
    assert (caught.value.host, caught.value.port) == (str(path), None)
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
        with trio.fail_after(5), pytest.raises(ConnectError, match="in use") as caught:
            await server.serve_unix(path)
        assert caught.value.code == "EADDRINUSE"
        assert path.exists()


@pytest.mark.feature("B2")
async def test_other_file_is_refused_and_kept(server: TLSServer, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ConnectError, match="in use") as caught:
        await server.serve_unix(path)
    assert caught.value.code == "EADDRINUSE"
    assert path.read_text() == "data"


@pytest.mark.feature("B2")
async def test_path_that_cannot_be_used(server: TLSServer, tmp_path: Path) -> None:
    with pytest.raises(ConnectError) as caught:
        await server.serve_unix(tmp_path / "missing" / "socket")
    assert isinstance(caught.value, OSError)
    assert caught.value.code == "ENOENT"


# What is set on accepted connections


async def socket_options(
    nursery: trio.Nursery, how: str, tmp_path: Path, **options: Any
) -> tuple[int | None, int, int | None]:
    """Return TCP_NODELAY, SO_KEEPALIVE and TCP_KEEPIDLE of a connection that a server has accepted."""
    seen: list[tuple[int | None, int, int | None]] = []

    async def look(stream: TLSStream) -> None:
        assert isinstance(stream.transport_stream, trio.SocketStream)
        sock = stream.transport_stream.socket
        is_tcp = sock.family != socket.AF_UNIX
        seen.append(
            (
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) if is_tcp else None,
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                sock.getsockopt(socket.IPPROTO_TCP, KEEP_IDLE) if is_tcp else None,
            )
        )

    server = TLSServer(look, SERVER, **options)
    if how == "unix":
        await nursery.start(server.serve_unix, tmp_path / "socket")
        stream = await connect_unix(tmp_path / "socket", context=CLIENT)
    else:
        await nursery.start(server.serve, 0, how)
        stream = await connect(how, server.addresses[0].port, context=CLIENT)
    async with stream:
        assert await stream.receive_some() == b""
    return seen[0]


KEEP_IDLE: int = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 0))


@pytest.mark.feature("B22")
async def test_accepted_connections_do_not_wait_for_more_data_and_are_not_probed(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    no_delay, keep_alive, _ = await socket_options(nursery, "127.0.0.1", tmp_path)
    assert no_delay
    assert not keep_alive


@pytest.mark.feature("B22")
@pytest.mark.parametrize("how", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
@pytest.mark.parametrize(("keep_alive", "idle"), [(77, 77), (1.5, 2), (0.01, 1), (32767, 32767)])
async def test_options_of_accepted_connections(
    how: str, keep_alive: float, idle: int, nursery: trio.Nursery, tmp_path: Path
) -> None:
    seen = await socket_options(nursery, how, tmp_path, no_delay=False, keep_alive=keep_alive)
    assert not seen[0]
    assert seen[1]
    assert seen[2] == idle


@pytest.mark.feature("B22")
async def test_keep_alive_without_seconds_leaves_them_to_the_system(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    _, _, default = await socket_options(nursery, "127.0.0.1", tmp_path)
    _, keep_alive, idle = await socket_options(nursery, "127.0.0.1", tmp_path, keep_alive=True)
    assert keep_alive
    assert idle == default


@pytest.mark.feature("B22")
async def test_unix_sockets_have_no_options_of_tcp(nursery: trio.Nursery, tmp_path: Path) -> None:
    _, keep_alive, _ = await socket_options(nursery, "unix", tmp_path, no_delay=False, keep_alive=10)
    assert not keep_alive


@pytest.mark.feature("B22")
async def test_connection_that_was_reset_before_it_was_accepted_ends_alone(nursery: trio.Nursery) -> None:
    server = TLSServer(echo, SERVER, no_delay=False, keep_alive=10)
    server.client_errors()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    rude = await trio.open_tcp_stream("127.0.0.1", port)
    rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    rude.socket.close()
    await nursery.start(server.serve_listeners, [listener])
    await assert_echoes(await connect("127.0.0.1", port, context=CLIENT))


@pytest.mark.feature("F15")
@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [
        ({"no_delay": 1}, ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
        ({"no_delay": None}, ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
        ({"keep_alive": "10"}, ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
        ({"keep_alive": None}, ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
        ({"keep_alive": 0}, ConfigurationError, "ERR_OUT_OF_RANGE"),
        ({"keep_alive": -1.0}, ConfigurationError, "ERR_OUT_OF_RANGE"),
        ({"keep_alive": float("nan")}, ConfigurationError, "ERR_OUT_OF_RANGE"),
        ({"keep_alive": 32768}, ConfigurationError, "ERR_OUT_OF_RANGE"),
    ],
)
async def test_impossible_options_of_tcp_are_refused(
    options: dict[str, Any], kind: type[Exception], code: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TLSServer(echo, SERVER, **options)
    assert type(caught.value) is kind
    assert caught.value.code == code
    with pytest.raises(kind):
        await connect("127.0.0.1", 443, context=CLIENT, **options)


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
    assert server.statistics().no_room == 3
    # One line for a while, as clients alone can bring this about.
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (logging.ERROR, None)
    assert os.strerror(number) in record.getMessage()


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
