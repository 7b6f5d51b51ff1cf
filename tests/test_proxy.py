"""ProxyHandler: routes, rules, the PROXY protocol, and what goes wrong on either side of it."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode.proxy_protocol import proxy_header
from trio_tlsnode.testing import Authority

pytestmark = pytest.mark.feature("G5")

AUTHORITY = Authority()
ALICE = AUTHORITY.client("alice", "alice@clients.test", "web.clients.test", "10.1.2.3")


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    async for data in stream:
        await stream.send_all(data)
    await stream.send_eof()


@contextlib.asynccontextmanager
async def backend(
    handler: Callable[[trio.SocketStream], Awaitable[object]] = echo,
) -> AsyncIterator[tuple[str, int]]:
    """Run a plain service on a free port; give its address."""

    async def serve(stream: trio.SocketStream) -> None:
        # The proxy resets those whose client has not come to its end.
        with contextlib.suppress(trio.BrokenResourceError):
            await handler(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[:2]
        nursery.cancel_scope.cancel()


class Proxy:
    """A proxy in memory, and what became of its connections."""

    def __init__(self, nursery: trio.Nursery, routes: Any, *, proxy: Any = None, **options: Any) -> None:
        ends, self._ends = trio.open_memory_channel[tls.ProxiedConnection](1000)
        context = tls.SecureContext(**AUTHORITY.good("localhost", "*.app.test").options, ca=AUTHORITY.ca)
        handler = tls.ProxyHandler(
            [tls.ProxyRoute(routes)] if isinstance(routes, tuple) else routes,
            on_end=ends.send_nowait,
            **(proxy or {}),
        )
        self.server = tls.TLSServer(handler, context, **options)
        self.errors = self.server.client_errors()
        self._nursery = nursery

    async def connect(
        self, host: str = "localhost", *, pair: Any = memory_stream_pair, **options: Any
    ) -> tls.TLSStream:
        client, transport = pair()
        self._nursery.start_soon(self.server.handle, transport)
        return await tls.wrap_client(client, host=host, ca=AUTHORITY.ca, **options)

    async def ask(self, data: bytes = b"hello", **options: Any) -> bytes:
        """Send something and the end of it; return the whole answer."""
        async with await self.connect(**options) as stream:
            await stream.send_all(data)
            await stream.send_eof()
            return b"".join([piece async for piece in stream])

    async def end(self) -> tls.ProxiedConnection:
        """Return what became of the connection that has ended first."""
        return await self._ends.receive()


def closed_port() -> tuple[str, int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host, port = taken.getsockname()
        return host, port


# Passing on


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_bytes_pass_in_both_directions_until_both_have_ended(
    version: str, nursery: trio.Nursery
) -> None:
    data = bytes(range(256)) * 4096
    async with backend() as address:
        proxy = Proxy(nursery, address)
        assert await proxy.ask(data, min_version=version, max_version=version) == data
    ended = await proxy.end()
    assert (ended.outcome, ended.reason) == ("done", "")
    assert ended.bytes_received == ended.bytes_sent == len(data)
    assert (ended.backend, ended.server_name, ended.client) == (f"127.0.0.1:{address[1]}", "localhost", None)


async def test_a_client_that_has_ended_still_gets_its_answer(nursery: trio.Nursery) -> None:
    async def answer_at_the_end(stream: trio.SocketStream) -> None:
        received = b"".join([data async for data in stream])
        await stream.send_all(b"got " + received)

    async with backend(answer_at_the_end) as address:
        assert await Proxy(nursery, address).ask(b"all of it") == b"got all of it"


async def test_a_service_behind_a_unix_socket_is_reached(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listener = trio.socket.socket(socket.AF_UNIX)
    await listener.bind(str(path))
    listener.listen()
    nursery.start_soon(trio.serve_listeners, echo, [trio.SocketListener(listener)])
    proxy = Proxy(nursery, [tls.ProxyRoute(path)])
    assert await proxy.ask() == b"hello"
    assert (await proxy.end()).backend == str(path)
    nursery.cancel_scope.cancel()


async def test_what_became_of_a_connection_is_json(nursery: trio.Nursery) -> None:
    async with backend() as address:
        proxy = Proxy(nursery, address)
        await proxy.ask()
    facts = (await proxy.end()).to_dict()
    assert json.loads(json.dumps(facts)) == facts
    assert facts.keys() == {
        "remote_address", "server_name", "alpn_protocol", "client", "backend", "bytes_received",
        "bytes_sent", "duration", "outcome", "reason",
    }  # fmt: skip


# Routes


@pytest.mark.parametrize(
    ("names", "server_name", "matches"),
    [
        ((), "a.test", True),
        ((), None, True),
        (("a.test",), "a.test", True),
        (("a.test",), "A.TEST", True),
        (("a.test.",), "a.test", True),
        (("a.test",), "a.test.", True),
        (("a.test",), None, False),
        (("a.test",), "xa.test", False),
        (("a.test",), "axtest", False),
        (("*.a.test",), "x.a.test", True),
        (("*.a.test",), "x.y.a.test", False),
        (("*.a.test",), "a.test", False),
        (("*.a.test", "b.test"), "b.test", True),
        (("bücher.test",), "xn--bcher-kva.test", True),
    ],
)
def test_a_route_is_for_names(names: tuple[str, ...], server_name: str | None, matches: bool) -> None:
    assert tls.ProxyRoute(("h", 1), names=names).matches(server_name, None) is matches


@pytest.mark.parametrize(("alpn", "matches"), [("h2", True), ("http/1.1", False), (None, False)])
def test_a_route_is_for_application_protocols(alpn: str | None, matches: bool) -> None:
    assert tls.ProxyRoute(("h", 1), alpn_protocols=["h2"]).matches("a.test", alpn) is matches


@pytest.mark.parametrize(
    ("place", "text"), [(("a", 1), "a:1"), (("::1", 1), "[::1]:1"), (Path("/run/x"), "/run/x")]
)
def test_a_route_says_where_it_goes(place: Any, text: str) -> None:
    assert tls.ProxyRoute(place).place == text


async def say(text: bytes, stream: trio.SocketStream) -> None:
    assert await stream.receive_some()
    await stream.send_all(text)


async def test_the_first_route_that_matches_by_name_and_protocol_is_taken(nursery: trio.Nursery) -> None:
    async with (
        backend(partial(say, b"one")) as one,
        backend(partial(say, b"two")) as two,
        backend(partial(say, b"rest")) as rest,
    ):
        routes = [
            tls.ProxyRoute(one, names=["one.app.test"]),
            tls.ProxyRoute(two, alpn_protocols=["h2"]),
            tls.ProxyRoute(rest),
        ]
        proxy = Proxy(nursery, routes, alpn_protocols=["h2", "http/1.1"])
        assert await proxy.ask(host="one.app.test", alpn_protocols=["h2"]) == b"one"
        assert await proxy.ask(host="two.app.test", alpn_protocols=["h2"]) == b"two"
        assert await proxy.ask(host="two.app.test", alpn_protocols=["http/1.1"]) == b"rest"
        assert await proxy.ask(host="localhost") == b"rest"


async def test_without_a_route_the_connection_is_closed(nursery: trio.Nursery) -> None:
    async with backend() as address:
        proxy = Proxy(nursery, [tls.ProxyRoute(address, names=["other.test"])])
        async with await proxy.connect() as stream:
            with pytest.raises(tls.TruncationError):
                await stream.receive_some()
    ended = await proxy.end()
    assert (ended.outcome, ended.backend) == ("no route", None)
    assert ended.reason == "nothing is served by the name localhost"


# Rules


@pytest.mark.parametrize(
    ("rule", "allows"),
    [
        ("CN:alice", True),
        ("cn:alice", True),
        ("CN:Alice", False),
        ("CN:*", False),
        ("CN:alic", False),
        ("DNS:web.clients.test", True),
        ("DNS:WEB.clients.test", True),
        ("DNS:*.clients.test", True),
        ("DNS:*.test", False),
        ("DNS:web.clients.tes", False),
        ("DNS:webxclients.test", False),
        ("email:alice@clients.test", True),
        ("email:*@clients.test", True),
        ("email:*@other.test", False),
        ("email:*", False),
        ("IP:10.1.2.3", True),
        ("IP:10.0.0.0/8", True),
        ("IP:192.168.0.0/16", False),
        ("IP:fd00::/8", False),
        ("URI:spiffe://app.test/*", False),
    ],
)
def test_a_rule_lets_in_by_a_name_of_its_kind(rule: str, allows: bool) -> None:
    certificate = tls.Certificate.from_x509(ALICE.certificate)
    assert tls.ClientRule.parse(rule).allows(certificate) is allows


@pytest.mark.parametrize(
    ("rule", "allows"),
    [
        ("URI:spiffe://app.test/ns/web", True),
        ("URI:spiffe://app.test/ns/*", True),
        ("URI:spiffe://app.test/*/web", True),
        ("URI:spiffe://app.test/*", False),
        ("URI:spiffe://app.test/ns/", False),
        ("URI:spiffe://appxtest/ns/web", False),
    ],
)
def test_a_wildcard_in_a_uri_stands_between_slashes(rule: str, allows: bool, tmp_path: Path) -> None:
    issued = tls.LocalAuthority.open(tmp_path).issue("web", "spiffe://app.test/ns/web", client=True)
    assert tls.ClientRule.parse(rule).allows(issued.certificate) is allows


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("alice", "'alice' is no rule"),
        ("NAME:alice", "'NAME:alice' is no rule"),
        ("CN:", "a rule needs a name"),
        ("IP:x", "'x' is no address or network"),
        ("IP:10.0.0.1/8", "has host bits set"),
    ],
)
def test_what_is_no_rule_is_refused(text: str, reason: str) -> None:
    with pytest.raises(tls.ConfigurationError, match=reason) as caught:
        tls.ClientRule.parse(text)
    assert caught.value.option == "allow"
    with pytest.raises(tls.ConfigurationError, match="is no kind of name"):
        tls.ClientRule("name", "alice")  # type: ignore[arg-type]


def test_a_rule_is_written_as_it_is_read_and_lets_no_damaged_certificate_in() -> None:
    assert str(tls.ClientRule.parse("dns:*.a.test")) == "DNS:*.a.test"
    assert not tls.ClientRule("CN", "alice").allows(tls.Certificate(b"\x30\x00"))


@pytest.mark.parametrize(
    ("rules", "outcome"),
    [
        (["CN:bob", "DNS:*.clients.test"], "done"),
        (["CN:bob"], "not allowed"),
        ([], "done"),
    ],
)
async def test_rules_decide_who_comes_in(rules: list[str], outcome: str, nursery: trio.Nursery) -> None:
    async with backend() as address:
        allow = list(map(tls.ClientRule.parse, rules))
        proxy = Proxy(nursery, [tls.ProxyRoute(address, allow=allow)], request_cert=True)
        if outcome == "done":
            assert await proxy.ask(**ALICE.options) == b"hello"
        else:
            async with await proxy.connect(**ALICE.options) as stream:
                with pytest.raises(tls.TruncationError):
                    await stream.receive_some()
    ended = await proxy.end()
    assert (ended.outcome, ended.client) == (outcome, "alice")


@pytest.mark.parametrize("shown", [{}, Authority().client("alice").options])
async def test_who_is_not_verified_is_let_in_by_no_rule(shown: Any, nursery: trio.Nursery) -> None:
    connected = False

    async def note(stream: trio.SocketStream) -> None:
        nonlocal connected
        connected = True

    async with backend(note) as address:
        route = tls.ProxyRoute(address, allow=[tls.ClientRule("CN", "alice")])
        proxy = Proxy(nursery, [route], request_cert=True, reject_unauthorized=False)
        async with await proxy.connect(**shown) as stream:
            with pytest.raises(tls.TruncationError):
                await stream.receive_some()
    ended = await proxy.end()
    assert ended.reason == "the client has no verified certificate"
    assert (ended.outcome, ended.client, connected) == ("not allowed", None, False)


# What goes wrong


async def reset(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"half of")
    await stream.receive_some()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)


async def test_a_reset_behind_it_ends_one_connection_without_a_goodbye(nursery: trio.Nursery) -> None:
    async with backend(reset) as address:
        proxy = Proxy(nursery, address)
        async with await proxy.connect() as unlucky, await proxy.connect() as lucky:
            await unlucky.send_all(b"?")
            assert await unlucky.receive_some() == b"half of"
            await unlucky.send_all(b"?")
            with pytest.raises(tls.TruncationError):
                await unlucky.receive_some()
            ended = await proxy.end()
            assert (ended.outcome, ended.reason) == ("backend lost", "Connection reset by peer")
            await lucky.send_all(b"?")
            assert await lucky.receive_some() == b"half of"
            nursery.cancel_scope.cancel()


async def test_a_service_that_is_away_ends_the_connection_and_is_told(nursery: trio.Nursery) -> None:
    proxy = Proxy(nursery, closed_port())
    async with await proxy.connect() as stream:
        with pytest.raises(tls.TruncationError):
            await stream.receive_some()
    ended = await proxy.end()
    assert ended.outcome == "backend unreachable"
    assert "[ECONNREFUSED]" in ended.reason


async def test_a_service_that_does_not_answer_is_given_up(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(sock: Any, address: Any) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("trio._socket._SocketType.connect", connect)
    proxy = Proxy(nursery, ("192.0.2.1", 80), proxy={"connect_timeout": 3})
    async with await proxy.connect() as stream:
        with pytest.raises(tls.TruncationError):
            await stream.receive_some()
    ended = await proxy.end()
    assert (ended.outcome, trio.current_time()) == ("backend unreachable", 3)
    assert ended.reason == "no connection within 3 seconds"


async def test_what_a_service_said_before_it_stopped_reading_arrives(nursery: trio.Nursery) -> None:
    async def answer_early(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await stream.send_all(b"too large")
        # Over what was not read, this is a reset.
        await stream.aclose()

    async with backend(answer_early) as address:
        proxy = Proxy(nursery, address)
        async with await proxy.connect() as stream:
            with contextlib.suppress(tls.ConnectionFailed):
                await stream.send_all(bytes(8 * 1024 * 1024))
            assert await stream.receive_some() == b"too large"


async def test_a_client_that_vanishes_ends_its_connection_and_is_reported(nursery: trio.Nursery) -> None:
    ended = trio.Event()

    async def wait_for_the_end(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async for _ in stream:
                pass
        ended.set()

    async with backend(wait_for_the_end) as address:
        proxy = Proxy(nursery, address)
        stream = await proxy.connect()
        await stream.send_all(b"?")
        await trio.aclose_forcefully(stream)
        (error,) = (await anext(proxy.errors)).exceptions
        await ended.wait()
    assert isinstance(error, tls.TruncationError)
    assert (await proxy.end()).outcome == "client lost"


@contextlib.asynccontextmanager
async def in_memory(
    monkeypatch: pytest.MonkeyPatch, *, pair: Any = memory_stream_pair, **options: Any
) -> AsyncIterator[tuple[Proxy, tls.TLSStream, Any, list[bytes]]]:
    """Give a proxy, a client's stream, the service's end of the connection, and how it is reset."""
    towards, service = memory_stream_pair()
    resets: list[bytes] = []

    def setsockopt(level: int, option: int, value: bytes) -> None:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER)
        resets.append(value)

    async def connect(self: object, route: object) -> object:
        return towards

    towards.setsockopt = setsockopt  # type: ignore[attr-defined]
    service.peer = towards  # type: ignore[attr-defined]
    monkeypatch.setattr(tls.ProxyHandler, "_connect", connect)
    async with trio.open_nursery() as nursery:
        proxy = Proxy(nursery, ("localhost", 1), proxy=options)
        yield proxy, await proxy.connect(pair=pair), service, resets


async def test_a_client_that_goes_on_for_too_long_after_the_services_end_is_cut_off(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_memory(monkeypatch, half_open_timeout=7) as (proxy, stream, service, resets):
        await service.send_eof()
        assert await stream.receive_some() == b""
        ended = await proxy.end()
    assert (ended.outcome, trio.current_time()) == ("done", 7)
    assert ended.reason == "nothing came from the client for 7 seconds after the other side's end"
    assert resets == [struct.pack("ii", 1, 0)]
    await stream.aclose()


async def test_a_service_that_says_nothing_after_the_clients_end_is_given_up_without_a_goodbye(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_memory(monkeypatch, half_open_timeout=7) as (proxy, stream, service, resets):
        await service.send_all(b"half of")
        assert await stream.receive_some() == b"half of"
        await stream.send_eof()
        assert await service.receive_some() == b""
        ended = await proxy.end()
        with pytest.raises(tls.TruncationError):
            await stream.receive_some()
    assert (ended.outcome, trio.current_time()) == ("backend lost", 7)
    assert ended.reason == "nothing came from the service for 7 seconds after the other side's end"
    assert resets == []


@pytest.mark.parametrize("ends_first", ["client", "service"])
async def test_half_open_a_connection_lasts_as_long_as_something_passes(
    ends_first: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_memory(monkeypatch, half_open_timeout=7) as (proxy, stream, service, resets):
        sender, receiver = (service, stream) if ends_first == "client" else (stream, service)
        await receiver.send_eof()
        assert await sender.receive_some() == b""
        for _ in range(5):
            await trio.sleep(6)
            await sender.send_all(b"more")
            assert await receiver.receive_some() == b"more"
        await sender.send_eof()
        assert await receiver.receive_some() == b""
        ended = await proxy.end()
    assert (ended.outcome, ended.reason, trio.current_time()) == ("done", "", 30)
    assert resets == []
    await stream.aclose()


async def test_a_service_that_reads_slowly_holds_its_client_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(16 * 1024)
    sent = 0

    async def upload(stream: tls.TLSStream) -> None:
        nonlocal sent
        for _ in range(64):
            await stream.send_all(data)
            sent += 1
        await stream.send_eof()

    # Nothing is buffered between the client and the proxy.
    async with in_memory(monkeypatch, pair=lockstep_stream_pair) as (proxy, stream, service, _):
        reads_again = trio.Event()
        pump = service.peer.send_stream.send_all_hook

        async def when_it_reads_again() -> None:
            await reads_again.wait()
            await pump()

        service.peer.send_stream.send_all_hook = when_it_reads_again
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload, stream)
            await wait_all_tasks_blocked()
            assert sent < 16
            reads_again.set()
            assert sum([len(piece) async for piece in service]) == 64 * len(data)
            await service.send_eof()
            assert await stream.receive_some() == b""
        assert (await proxy.end()).bytes_received == 64 * len(data)
        await stream.aclose()


async def test_a_service_that_reads_no_more_may_go_on_with_its_answer(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_no_more() -> None:
        raise trio.BrokenResourceError

    async with in_memory(monkeypatch, half_open_timeout=7) as (proxy, stream, service, resets):
        service.peer.send_stream.send_all_hook = read_no_more
        await stream.send_all(b"too much")
        for _ in range(5):
            await trio.sleep(6)
            await service.send_all(b"more")
            assert await stream.receive_some() == b"more"
        await service.send_eof()
        assert await stream.receive_some() == b""
        ended = await proxy.end()
    assert (ended.outcome, ended.reason, trio.current_time()) == ("done", "", 30)
    assert len(resets) == 1
    await stream.aclose()


@pytest.mark.parametrize("how", ["truncated", "closing"])
async def test_a_service_is_reset_if_not_all_has_come_from_the_client(
    how: str, nursery: trio.Nursery
) -> None:
    endings: list[object] = []

    async def read_all(stream: trio.SocketStream) -> None:
        try:
            async for _ in stream:
                await stream.send_all(b"got it")
        except trio.BrokenResourceError as error:
            endings.append(type(error.__cause__))
        else:
            endings.append(None)

    async with backend(read_all) as address:
        proxy = Proxy(nursery, address)
        stream = await proxy.connect()
        await stream.send_all(b"half of it")
        assert await stream.receive_some() == b"got it"
        if how == "truncated":
            await trio.aclose_forcefully(stream)
        else:
            await proxy.server.aclose(0)
        assert (await proxy.end()).outcome == ("client lost" if how == "truncated" else "cancelled")
        with trio.fail_after(5):
            while not endings:
                await trio.lowlevel.checkpoint()
        await trio.aclose_forcefully(stream)
    assert endings == [ConnectionResetError]


async def test_draining_lets_what_is_passed_on_come_to_its_end(nursery: trio.Nursery) -> None:
    async with backend() as address:
        proxy = Proxy(nursery, address)
        async with await proxy.connect() as stream, trio.open_nursery() as closing:
            await stream.send_all(b"one")
            assert await stream.receive_some() == b"one"
            closing.start_soon(proxy.server.aclose, 1000)
            await wait_all_tasks_blocked()
            await stream.send_all(b"two")
            await stream.send_eof()
            assert b"".join([data async for data in stream]) == b"two"
        assert (await proxy.end()).outcome == "done"


async def test_closing_the_server_ends_what_is_passed_on(nursery: trio.Nursery) -> None:
    async with backend() as address:
        proxy = Proxy(nursery, address)
        stream = await proxy.connect()
        await stream.send_all(b"?")
        await stream.receive_some()
        await proxy.server.aclose(0)
        assert (await proxy.end()).outcome == "cancelled"
        await trio.aclose_forcefully(stream)


# Options


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"routes": []}, "routes"),
        ({"proxy_protocol": 3}, "proxy_protocol"),
        ({"connect_timeout": -1}, "connect_timeout"),
        ({"half_open_timeout": "x"}, "half_open_timeout"),
    ],
)
def test_what_cannot_be_used_is_refused(options: dict[str, Any], option: str) -> None:
    with pytest.raises(tls.ConfigurationError) as caught:
        tls.ProxyHandler(**{"routes": [tls.ProxyRoute(("a", 1))], **options})
    assert caught.value.option == option


@pytest.mark.parametrize("names", ["a.test", ["a..test"], [""]])
def test_a_route_for_no_name_is_refused(names: Any) -> None:
    with pytest.raises(tls.ConfigurationError):
        tls.ProxyRoute(("a", 1), names=names)


@pytest.mark.parametrize(
    "place", [("a", 65536), ("a", "1"), (1, 1), ("a",), "a:1", 1, ("a\u0378.test", 1), ("a", True)]
)
def test_a_route_to_nowhere_is_refused(place: Any) -> None:
    with pytest.raises(tls.ConfigurationError) as caught:
        tls.ProxyRoute(place)
    assert caught.value.option == "backend"


async def test_a_service_whose_name_cannot_be_one_is_unreachable(nursery: trio.Nursery) -> None:
    proxy = Proxy(nursery, (f"{'a' * 64}.test", 80))
    async with await proxy.connect() as stream:
        with pytest.raises(tls.TruncationError):
            await stream.receive_some()
    ended = await proxy.end()
    assert ended.outcome == "backend unreachable"


# The PROXY protocol


IPV4 = (tls.Address("192.0.2.1", 1000, "IPv4"), tls.Address("192.0.2.2", 443, "IPv4"))
IPV6 = (tls.Address("2001:db8::1", 1000, "IPv6"), tls.Address("2001:db8::2", 443, "IPv6"))
UNIX = (tls.Address("/run/a", 0, "unix"), tls.Address("/run/b", 0, "unix"))


async def negotiated(**options: Any) -> tls.ConnectionInfo:
    infos = []

    async def note(stream: tls.TLSStream) -> None:
        infos.append(stream.info)

    context = tls.SecureContext(**AUTHORITY.good("localhost").options, ca=AUTHORITY.ca)
    server = tls.TLSServer(note, context, request_cert=True, reject_unauthorized=False, alpn_protocols=["h2"])
    client, transport = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, transport)
        async with await tls.wrap_client(client, host="localhost", ca=AUTHORITY.ca, **options) as stream:
            await stream.receive_some()
    return infos[0]


@pytest.mark.parametrize(
    ("addresses", "line"),
    [
        (IPV4, b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n"),
        (IPV6, b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 443\r\n"),
        (UNIX, b"PROXY UNKNOWN\r\n"),
        ((None, None), b"PROXY UNKNOWN\r\n"),
        ((IPV4[0], IPV6[1]), b"PROXY UNKNOWN\r\n"),
    ],
)
async def test_version_1_is_a_line(addresses: Any, line: bytes) -> None:
    source, destination = addresses
    assert proxy_header(1, source, destination, await negotiated()) == line


def unpacked(header: bytes) -> tuple[int, bytes, dict[int, bytes]]:
    """Return family, addresses and facts of a header of version 2."""
    signature, command, family, length = struct.unpack_from("!12sBBH", header)
    assert (signature, command) == (b"\r\n\r\n\0\r\nQUIT\n", 0x21)
    assert len(header) == 16 + length
    size = {0x11: 12, 0x21: 36, 0: 0}[family]
    return family, header[16 : 16 + size], facts(header[16 + size :])


def facts(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        kind, size = struct.unpack_from("!BH", data)
        found[kind], data = data[3 : 3 + size], data[3 + size :]
    return found


async def test_version_2_tells_addresses_and_what_was_negotiated() -> None:
    info = await negotiated(alpn_protocols=["h2"], **ALICE.options)
    family, addresses, told = unpacked(proxy_header(2, *IPV4, info))
    assert family == 0x11
    assert addresses == bytes.fromhex("c0000201 c0000202 03e8 01bb")
    assert told.keys() == {0x01, 0x02, 0x20}
    assert (told[0x01], told[0x02]) == (b"h2", b"localhost")
    # Over TLS, with a certificate in this connection, verified.
    assert told[0x20][:5] == bytes((0x07, 0, 0, 0, 0))
    assert facts(told[0x20][5:]) == {0x21: b"TLSv1.3", 0x22: b"alice", 0x23: b"TLS_AES_256_GCM_SHA384"}


@pytest.mark.parametrize(
    ("shown", "client", "verify"),
    [({}, 0x01, 1), (Authority().client("alice").options, 0x07, 1)],
)
async def test_version_2_names_nobody_who_is_not_verified(shown: Any, client: int, verify: int) -> None:
    _, _, told = unpacked(proxy_header(2, *IPV6, await negotiated(**shown)))
    assert struct.unpack("!BI", told[0x20][:5]) == (client, verify)
    assert 0x22 not in facts(told[0x20][5:])


async def test_version_2_without_addresses_tells_none() -> None:
    family, addresses, _ = unpacked(proxy_header(2, None, None, await negotiated()))
    assert (family, addresses) == (0, b"")


async def test_the_header_comes_first() -> None:
    server_side: list[bytes] = []

    async def note(stream: trio.SocketStream) -> None:
        server_side.append(b"".join([data async for data in stream]))

    async with backend(note) as address:
        context = tls.SecureContext(**AUTHORITY.good("localhost").options)
        handler = tls.ProxyHandler([tls.ProxyRoute(address)], proxy_protocol=1)
        server = tls.TLSServer(handler, context)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(server.serve, 0, "127.0.0.1"))
            port = server.addresses[0].port
            async with await tls.connect("localhost", port, ca=AUTHORITY.ca) as stream:
                mine = stream.local_address
                await stream.send_all(b"hello")
                await stream.send_eof()
                assert await stream.receive_some() == b""
            await server.aclose()
    assert mine is not None
    assert server_side == [f"PROXY TCP4 127.0.0.1 127.0.0.1 {mine.port} {port}\r\nhello".encode()]
