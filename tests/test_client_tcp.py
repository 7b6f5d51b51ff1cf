"""connect's options of TCP: families, local addresses and ports, socket options, and whom it tries when."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode import (
    ConfigurationError,
    ConfigurationTypeError,
    ConnectError,
    SecureContext,
    TLSServer,
    TLSStream,
    connect,
)
from trio_tlsnode.dialing import Dialer
from trio_tlsnode.testing import default_authority

pytestmark = pytest.mark.feature("A16")

CLIENT = SecureContext(ca=default_authority().ca)
SERVER = SecureContext(**default_authority().good("both.example", "127.0.0.1", "::1").options)
KEEP_IDLE: int = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 0))


def can_bind(address: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not can_bind("::1"), reason="this machine has no IPv6")
needs_second_address = pytest.mark.skipif(not can_bind("127.0.0.2"), reason="loopback is one address here")


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


@pytest.fixture
async def port(nursery: trio.Nursery) -> int:
    """The port of a server on all addresses of the machine."""
    server = TLSServer(echo, SERVER)
    await nursery.start(server.serve, 0)
    return server.addresses[0].port


class Resolver(trio.abc.HostnameResolver):
    """Resolves every name to some addresses, whatever the family, and notes which family was asked for."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.families: list[int] = []

    async def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0  # noqa: A002
    ) -> list[Any]:  # fmt: skip
        await trio.lowlevel.checkpoint()
        self.families.append(family)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 0, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))
            for address in self.addresses
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


def resolve(*addresses: str) -> Resolver:
    """Resolve names in this run so."""
    resolver = Resolver(*addresses)
    trio.socket.set_custom_hostname_resolver(resolver)
    return resolver


# Families


@pytest.mark.node("test-tls-connect-address-family.js")
@needs_ipv6
@pytest.mark.parametrize(
    ("family", "expected", "asked"),
    [
        ("IPv4", "IPv4", socket.AF_INET),
        (4, "IPv4", socket.AF_INET),
        ("IPv6", "IPv6", socket.AF_INET6),
        (6, "IPv6", socket.AF_INET6),
        (0, "IPv6", socket.AF_UNSPEC),
        (None, "IPv6", socket.AF_UNSPEC),
    ],
)
async def test_only_addresses_of_the_family_are_tried(
    family: Any, expected: str, asked: int, port: int
) -> None:
    resolver = resolve("::1", "127.0.0.1")
    async with await connect("both.example", port, context=CLIENT, family=family) as stream:
        assert stream.remote_address is not None
        assert stream.remote_address.family == expected
    assert resolver.families == [asked]


async def test_name_without_an_address_of_the_family() -> None:
    resolve("127.0.0.1")
    with pytest.raises(ConnectError) as caught:
        await connect("one.example", 443, context=CLIENT, family="IPv6")
    assert caught.value.code == "ENOTFOUND"
    assert (caught.value.host, caught.value.port) == ("one.example", 443)


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", "IPv6"), ("::1", "IPv4")])
async def test_ip_address_of_the_other_family(host: str, family: Any) -> None:
    with pytest.raises(ConnectError) as caught:
        await connect(host, 443, context=CLIENT, family=family)
    assert caught.value.code == "ENOTFOUND"


# Where from


@needs_second_address
async def test_local_address(port: int) -> None:
    async with await connect("127.0.0.1", port, context=CLIENT, local_address="127.0.0.2") as stream:
        assert stream.local_address is not None
        assert stream.local_address.host == "127.0.0.2"


@needs_ipv6
@pytest.mark.parametrize(("local_address", "family"), [("127.0.0.1", "IPv4"), ("::1", "IPv6")])
async def test_local_address_decides_about_the_family(local_address: str, family: str, port: int) -> None:
    resolve("::1", "127.0.0.1")
    async with await connect("both.example", port, context=CLIENT, local_address=local_address) as stream:
        assert stream.remote_address is not None
        assert stream.remote_address.family == family


async def test_local_address_of_another_machine(port: int) -> None:
    with pytest.raises(ConnectError) as caught:
        await connect("127.0.0.1", port, context=CLIENT, local_address="192.0.2.1")
    assert caught.value.code == "EADDRNOTAVAIL"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("local_address", [None, "127.0.0.1"])
async def test_local_port(local_address: str | None, port: int) -> None:
    local_port = free_port()
    async with await connect(
        "127.0.0.1", port, context=CLIENT, local_port=local_port, local_address=local_address
    ) as stream:
        assert stream.local_address == tls.Address("127.0.0.1", local_port, "IPv4")


async def test_local_port_may_be_used_for_the_next_server_at_once(port: int, nursery: trio.Nursery) -> None:
    other = TLSServer(echo, SERVER)
    await nursery.start(other.serve, 0, "127.0.0.1")
    local_port = free_port()
    for number in (port, other.addresses[0].port):
        async with await connect("127.0.0.1", number, context=CLIENT, local_port=local_port):
            pass


@needs_ipv6
async def test_local_port_serves_attempts_of_both_families(port: int) -> None:
    # Nobody answers at the first address, and the second is tried from the same port meanwhile.
    resolve("::1", "127.0.0.1")
    local_port = free_port()
    async with await connect(
        "both.example", port, context=CLIENT, local_port=local_port, happy_eyeballs_delay=0
    ) as stream:
        assert stream.local_address is not None
        assert stream.local_address.port == local_port


async def test_local_port_on_which_somebody_listens(port: int) -> None:
    with pytest.raises(ConnectError) as caught:
        await connect("127.0.0.1", port, context=CLIENT, local_port=port)
    assert caught.value.code == "EADDRINUSE"
    assert (caught.value.host, caught.value.port) == ("127.0.0.1", port)


# What is set on the socket


def socket_of(stream: TLSStream) -> trio.socket.SocketType:
    assert isinstance(stream.transport_stream, trio.SocketStream)
    return stream.transport_stream.socket


@pytest.mark.node("test-tls-connect-keepalive-nodelay.js")
@pytest.mark.parametrize(
    ("options", "no_delay", "keep_alive", "idle"),
    [
        ({}, True, False, None),
        ({"no_delay": False}, False, False, None),
        ({"keep_alive": True}, True, True, None),
        ({"keep_alive": 77}, True, True, 77),
        ({"keep_alive": 1.5, "no_delay": False}, False, True, 2),
    ],
)
async def test_options_of_the_socket(
    options: dict[str, Any], no_delay: bool, keep_alive: bool, idle: int | None, port: int
) -> None:
    async with await connect("127.0.0.1", port, context=CLIENT, **options) as stream:
        sock = socket_of(stream)
        assert bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) is no_delay
        assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is keep_alive
        if idle is not None:
            assert sock.getsockopt(socket.IPPROTO_TCP, KEEP_IDLE) == idle


# Nonsense


@pytest.mark.feature("F15")
@pytest.mark.parametrize(
    ("option", "value", "kind", "code"),
    [
        ("family", "ipv4", ConfigurationError, "ERR_INVALID_ARG_VALUE"),
        ("family", 5, ConfigurationError, "ERR_INVALID_ARG_VALUE"),
        ("family", False, ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
        ("family", ["IPv4"], ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
        ("local_address", "localhost", ConfigurationError, "ERR_INVALID_IP_ADDRESS"),
        ("local_address", "", ConfigurationError, "ERR_INVALID_IP_ADDRESS"),
        ("local_address", 1, ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
        ("local_port", "1", ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
        ("local_port", None, ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
        ("local_port", 65536, ConfigurationError, "ERR_SOCKET_BAD_PORT"),
        ("happy_eyeballs_delay", "1", ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
        ("happy_eyeballs_delay", -1, ConfigurationError, "ERR_OUT_OF_RANGE"),
        ("no_delay", 1, ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
        ("keep_alive", None, ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
    ],
)
async def test_impossible_option_is_refused_before_anything_is_opened(
    option: str, value: Any, kind: type[Exception], code: str
) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(ConfigurationError) as caught:
        await connect("127.0.0.1", 443, context=CLIENT, **options)
    assert type(caught.value) is kind
    assert (caught.value.option, caught.value.code) == (option, code)


@pytest.mark.feature("F15")
async def test_local_address_that_is_not_of_the_family_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="family") as caught:
        await connect("127.0.0.1", 443, context=CLIENT, family="IPv6", local_address="127.0.0.1")
    assert caught.value.option == "local_address"


@pytest.mark.parametrize(
    "option", ["family", "local_address", "local_port", "no_delay", "keep_alive", "happy_eyeballs_delay"]
)
async def test_other_transports_have_no_options_of_tcp(option: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {option: 4}
    with pytest.raises(TypeError, match=option):
        await tls.connect_unix(tmp_path / "socket", context=CLIENT, **options)
    with pytest.raises(TypeError, match=option):
        await tls.wrap_client(memory_stream_pair()[0], context=CLIENT, **options)


@pytest.mark.parametrize(
    ("name", "meant"), [("localPort", "local_port"), ("noDelay", "no_delay"), ("keepAlive", "keep_alive")]
)
async def test_option_in_node_s_spelling_is_suggested(name: str, meant: str) -> None:
    options: dict[str, Any] = {name: 1}
    with pytest.raises(TypeError, match=f"did you mean {meant}"):
        await connect("127.0.0.1", 443, context=CLIENT, **options)


# Happy Eyeballs


class Attempt(trio.socket.SocketType):
    """A socket whose connection is made, or fails, when the test says so."""

    type = socket.SOCK_STREAM

    def __init__(self, attempts: list[Attempt]) -> None:
        self._attempts = attempts
        self._outcome = trio.Event()
        self._error: OSError | None = None
        self.address = ""
        self.begun = 0.0
        self.closed = False

    async def connect(self, address: Any) -> None:
        self.address, self.begun = address[0], trio.current_time()
        self._attempts.append(self)
        await self._outcome.wait()
        if self._error is not None:
            raise self._error

    def succeed(self) -> None:
        self._outcome.set()

    def fail(self, number: int) -> None:
        self._error = OSError(number, os.strerror(number))
        self._outcome.set()

    def setsockopt(self, *_arguments: Any) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Network(trio.abc.SocketFactory):
    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        trio.socket.set_custom_socket_factory(self)

    def socket(self, *_arguments: Any) -> trio.socket.SocketType:
        return Attempt(self.attempts)

    @property
    def begun(self) -> list[tuple[str, float]]:
        return [(attempt.address, attempt.begun) for attempt in self.attempts]


async def dial(nursery: trio.Nursery, **options: Any) -> list[trio.SocketStream]:
    """Begin to connect; what comes out of it is in the list."""
    connections: list[trio.SocketStream] = []

    async def run() -> None:
        connections.append(await Dialer(**options).dial("some.example", 443))

    nursery.start_soon(run)
    return connections


@pytest.mark.parametrize(("options", "delay"), [({}, 0.25), ({"delay": 2}, 2)])
async def test_next_address_is_tried_after_the_delay(
    options: dict[str, Any], delay: float, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    resolve("192.0.2.1", "192.0.2.2", "192.0.2.3")
    network = Network()
    connections = await dial(nursery, **options)
    await trio.sleep(10)
    assert network.begun == [("192.0.2.1", 0), ("192.0.2.2", delay), ("192.0.2.3", 2 * delay)]
    network.attempts[1].succeed()
    await wait_all_tasks_blocked()
    (connection,) = connections
    assert connection.socket is network.attempts[1]
    assert [attempt.closed for attempt in network.attempts] == [True, False, True]


@pytest.mark.parametrize("delay", [None, float("inf")])
async def test_without_delay_the_next_address_waits_for_a_failure(
    delay: float | None, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    resolve("192.0.2.1", "192.0.2.2")
    network = Network()
    connections = await dial(nursery, delay=delay)
    await trio.sleep(1000)
    assert network.begun == [("192.0.2.1", 0)]
    network.attempts[0].fail(errno.EHOSTUNREACH)
    await trio.sleep(1)
    assert network.begun == [("192.0.2.1", 0), ("192.0.2.2", 1000)]
    network.attempts[1].succeed()
    await wait_all_tasks_blocked()
    assert len(connections) == 1


async def test_families_take_turns_and_the_first_address_s_is_first(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    resolve("2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2")
    network = Network()
    await dial(nursery)
    await trio.sleep(10)
    assert [address for address, _ in network.begun] == [
        *("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3")
    ]
    network.attempts[0].succeed()


async def test_of_two_that_answer_at_once_one_is_closed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    resolve("192.0.2.1", "192.0.2.2")
    network = Network()
    connections = await dial(nursery)
    await trio.sleep(10)
    for attempt in network.attempts:
        attempt.succeed()
    await wait_all_tasks_blocked()
    (connection,) = connections
    assert [attempt.closed for attempt in network.attempts].count(True) == 1
    assert not connection.socket.closed  # type: ignore[attr-defined]


@pytest.mark.parametrize("succeeds", [True, False])
async def test_cancelling_closes_what_was_opened(succeeds: bool, autojump_clock: MockClock) -> None:
    resolve("192.0.2.1", "192.0.2.2")
    network = Network()
    async with trio.open_nursery() as nursery:
        connections = await dial(nursery)
        await trio.sleep(10)
        if succeeds:
            network.attempts[0].succeed()
        nursery.cancel_scope.cancel()
    assert not connections
    assert [attempt.closed for attempt in network.attempts] == [True, True]


@pytest.mark.skipif(sys.platform != "linux", reason="a flag of Linux")
async def test_local_address_without_port_leaves_the_port_to_the_moment_of_connecting(port: int) -> None:
    async with await connect("127.0.0.1", port, context=CLIENT, local_address="127.0.0.1") as stream:
        sock = socket_of(stream)
        assert sock.getsockopt(socket.IPPROTO_IP, trio.socket.IP_BIND_ADDRESS_NO_PORT)
