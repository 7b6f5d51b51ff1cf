"""connect, connect_unix, wrap_client: names, trust, errors, and what is known of a connection."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode import (
    Address,
    Certificate,
    CertificateError,
    ConfigurationError,
    ConfigurationTypeError,
    ConnectError,
    ConnectionLost,
    IdentityError,
    PeerAlert,
    SecureContext,
    TLSServer,
    TLSStream,
    connect,
    connect_unix,
    wrap_client,
)
from trio_tlsnode.testing import OneByteStream, RecordingStream, default_authority

CA = default_authority().ca
CLIENT = SecureContext(ca=CA)
NAMES = ("localhost", "a.example", "xn--bcher-kva.example", "127.0.0.1", "::1")
SERVER = SecureContext(**default_authority().good(*NAMES).options)


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


class Resolver(trio.abc.HostnameResolver):
    """Resolves every name to some addresses, and notes what was asked for."""

    def __init__(self, *addresses: tuple[str, int], error: OSError | None = None) -> None:
        self.addresses = addresses
        self.error = error
        self.asked: list[str] = []

    async def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0  # noqa: A002
    ) -> list[Any]:  # fmt: skip
        await trio.lowlevel.checkpoint()
        self.asked.append(host.decode())
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in self.addresses]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


def resolve(*addresses: tuple[str, int], error: OSError | None = None) -> Resolver:
    """Resolve names in this run so."""
    resolver = Resolver(*addresses, error=error)
    trio.socket.set_custom_hostname_resolver(resolver)
    return resolver


@pytest.fixture
async def port(nursery: trio.Nursery) -> int:
    """The port on 127.0.0.1 of a server that echoes."""
    server = TLSServer(echo, SERVER)
    await nursery.start(server.serve, 0, "127.0.0.1")
    return server.addresses[0].port


@contextlib.asynccontextmanager
async def raw_server(handler: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """Serve without TLS, on 127.0.0.1; give the port."""
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def open_files() -> int | None:
    """Return how many files this process has open, or None where the system does not tell."""
    with contextlib.suppress(FileNotFoundError):
        return len(os.listdir("/proc/self/fd"))
    return None


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """Give a port of 127.0.0.1 on which nobody listens, nor can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def connect_in_memory(
    nursery: trio.Nursery, server_options: dict[str, Any] | None = None, **options: Any
) -> tuple[TLSStream, TLSStream]:
    """Return a client and the server's stream, connected over memory."""
    accepted: list[TLSStream] = []

    async def handler(stream: TLSStream) -> None:
        accepted.append(stream)
        await echo(stream)

    settings = {"context": SERVER} | (server_options or {})
    server = TLSServer(handler, settings.pop("context"), **settings)
    server.client_errors()
    client_end, server_end = memory_stream_pair()
    nursery.start_soon(server.handle, server_end)
    client = await wrap_client(client_end, **({"context": CLIENT} | options))
    await wait_all_tasks_blocked()
    (stream,) = accepted
    return client, stream


# connect


@pytest.mark.feature("A1")
@pytest.mark.feature("A17")
async def test_connect_returns_a_stream_whose_handshake_is_done(port: int) -> None:
    async with await connect("127.0.0.1", port, context=CLIENT) as stream:
        assert type(stream) is TLSStream
        assert stream.info.protocol == "TLSv1.3"
        assert stream.authorized
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"


@pytest.mark.feature("A1")
async def test_host_and_port_have_node_s_defaults() -> None:
    resolver = resolve(error=socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    with pytest.raises(ConnectError) as caught:
        await connect()
    assert resolver.asked == ["localhost"]
    assert (caught.value.host, caught.value.port) == ("localhost", 443)


@pytest.mark.feature("A1")
async def test_of_several_addresses_the_first_that_answers_is_taken(port: int) -> None:
    with closed_port() as nobody:
        resolve(("127.0.0.1", nobody), ("127.0.0.1", port))
        async with await connect("a.example", 443, context=CLIENT) as stream:
            assert stream.remote_address == Address("127.0.0.1", port, "IPv4")
            assert stream.authorized


@pytest.mark.feature("A1")
async def test_equal_options_given_directly_share_one_context(port: int) -> None:
    options: dict[str, Any] = {"ca": CA, "min_version": "TLSv1.3"}
    contexts = []
    for given in (options, dict(options), {"ca": [CA], "min_version": "TLSv1.3"}, options | {"ca": [CA, CA]}):
        async with await connect("127.0.0.1", port, **given) as stream:
            contexts.append(stream._engine.context)
    assert contexts[0] is contexts[1] is contexts[2]


@pytest.mark.feature("A1")
async def test_different_options_do_not_share_a_context(nursery: trio.Nursery) -> None:
    context = SecureContext(**default_authority().good("localhost").options)
    contexts = []
    for options in ({"ca": CA}, {"ca": CA, "max_version": "TLSv1.2"}):
        client, _ = await connect_in_memory(nursery, {"context": context}, context=None, **options)
        contexts.append(client._engine.context)
        await client.aclose()
    assert contexts[0] is not contexts[1]


@pytest.mark.feature("A1")
async def test_options_given_directly_read_the_defaults_of_now(nursery: trio.Nursery) -> None:
    tls.defaults.max_version = "TLSv1.2"
    try:
        client, _ = await connect_in_memory(nursery, context=None, ca=CA)
        assert client.info.protocol == "TLSv1.2"
    finally:
        tls.defaults.reset()
    client, _ = await connect_in_memory(nursery, context=None, ca=CA)
    assert client.info.protocol == "TLSv1.3"
    await client.aclose()


@pytest.mark.feature("A1")
async def test_server_of_an_unknown_authority_is_refused_by_default(port: int) -> None:
    with pytest.raises(CertificateError) as caught:
        await connect("127.0.0.1", port)
    assert caught.value.code == "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
    assert not caught.value.retryable


@pytest.mark.feature("A1")
@pytest.mark.node("test-tls-addca.js")
@pytest.mark.parametrize("function", ["connect", "connect_unix", "wrap_client"])
async def test_context_and_its_options_together_are_refused(function: str, tmp_path: Path) -> None:
    transport, peer = memory_stream_pair()
    target: dict[str, Any] = {
        "connect": "127.0.0.1",
        "connect_unix": tmp_path / "socket",
        "wrap_client": transport,
    }
    with pytest.raises(ConfigurationError, match="ca, ciphers") as caught:
        await getattr(tls, function)(target[function], context=CLIENT, ciphers="HIGH", ca=CA)
    assert not isinstance(caught.value, TypeError)
    assert caught.value.option in ("ca", "ciphers")
    if function == "wrap_client":
        assert await peer.receive_some() == b""


@pytest.mark.feature("A1")
@pytest.mark.parametrize(
    ("port", "kind", "code"),
    [
        ("443", ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
        (443.0, ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
        (True, ConfigurationTypeError, "ERR_INVALID_ARG_TYPE"),
        (-1, ConfigurationError, "ERR_SOCKET_BAD_PORT"),
        (65536, ConfigurationError, "ERR_SOCKET_BAD_PORT"),
    ],
)
async def test_impossible_port_is_refused(port: Any, kind: type[Exception], code: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await connect("127.0.0.1", port, context=CLIENT)
    assert type(caught.value) is kind
    assert caught.value.code == code
    assert caught.value.option == "port"


@pytest.mark.feature("A1")
@pytest.mark.parametrize("option", ["server_side", "sni_callback", "request_cert", "no_such_option"])
async def test_option_that_clients_do_not_have_is_a_type_error(option: str) -> None:
    transport, peer = memory_stream_pair()
    options: dict[str, Any] = {option: None}
    with pytest.raises(TypeError, match=option):
        await wrap_client(transport, context=CLIENT, **options)
    assert await peer.receive_some() == b""


@pytest.mark.feature("F15")
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("context", {}),
        ("host", b"localhost"),
        ("server_name", 1),
        ("check_server_identity", None),
        ("check_server_identity", "localhost"),
        ("alpn_protocols", "h2"),
        ("reject_unauthorized", None),
        ("reject_unauthorized", 0),
        ("https_compatible", 1),
        ("handshake_timeout", "1"),
        ("close_timeout", None),
    ],
)
async def test_option_of_the_wrong_type_is_refused_and_the_transport_closed(option: str, value: Any) -> None:
    transport, peer = memory_stream_pair()
    with pytest.raises(ConfigurationTypeError) as caught:
        await wrap_client(transport, **({"context": CLIENT} | {option: value}))
    assert caught.value.option == option
    assert await peer.receive_some() == b""


@pytest.mark.feature("F15")
@pytest.mark.parametrize("host", [None, b"localhost", 1])
async def test_host_of_the_wrong_type_is_refused(host: Any) -> None:
    with pytest.raises(ConfigurationTypeError) as caught:
        await connect(host, 443, context=CLIENT)
    assert caught.value.option == "host"


# Errors before there is a connection


@pytest.mark.feature("A21")
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (socket.EAI_NONAME, "ENOTFOUND"),
        (getattr(socket, "EAI_NODATA", socket.EAI_NONAME), "ENOTFOUND"),
        (socket.EAI_AGAIN, "EAI_AGAIN"),
    ],
)
async def test_name_that_cannot_be_resolved(number: int, code: str) -> None:
    error = socket.gaierror(number, "what getaddrinfo says")
    resolve(error=error)
    with pytest.raises(ConnectError, match="what getaddrinfo says") as caught:
        await connect("unknown.example", 443, context=CLIENT)
    assert isinstance(caught.value, OSError)
    assert caught.value.code == code
    assert caught.value.errno is None
    assert (caught.value.host, caught.value.port) == ("unknown.example", 443)
    assert caught.value.side == "network"
    assert caught.value.retryable
    assert caught.value.__cause__ is error
    assert "unknown.example:443" in str(caught.value)


@pytest.mark.feature("A21")
async def test_resolver_of_the_application_may_say_why_in_its_own_words() -> None:
    resolve(error=OSError("not in our book"))
    with pytest.raises(ConnectError, match="not in our book") as caught:
        await connect("unknown.example", 443, context=CLIENT)
    assert (caught.value.code, caught.value.errno) == ("ENOTFOUND", None)


@pytest.mark.feature("A21")
async def test_name_without_an_address_cannot_be_resolved() -> None:
    resolve()
    with pytest.raises(ConnectError) as caught:
        await connect("empty.example", 443, context=CLIENT)
    assert caught.value.code == "ENOTFOUND"


@pytest.mark.feature("A21")
@pytest.mark.parametrize("host", ["b\xfc..example", "b\xfc" * 64, "a" * 64 + ".example"])
async def test_name_that_cannot_be_one_is_a_configuration_error(host: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await connect(host, 443, context=CLIENT)
    assert caught.value.option == "host"


@pytest.mark.feature("A21")
@pytest.mark.node("test-tls-connect.js")
async def test_closed_port() -> None:
    with closed_port() as port:
        with pytest.raises(ConnectError) as caught:
            await connect("127.0.0.1", port, context=CLIENT)
    assert caught.value.code == "ECONNREFUSED"
    assert caught.value.errno == errno.ECONNREFUSED
    assert (caught.value.host, caught.value.port) == ("127.0.0.1", port)
    assert caught.value.retryable


class UnreachableSocket(trio.socket.SocketType):
    """A socket on which connecting fails."""

    def __init__(self, error: OSError) -> None:
        self._error = error

    async def connect(self, address: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise self._error

    def close(self) -> None:
        pass


class UnreachableNetwork(trio.abc.SocketFactory):
    """Makes sockets that fail to connect, each with the next error."""

    def __init__(self, *numbers: int) -> None:
        self.errors = [OSError(number, os.strerror(number)) for number in numbers]

    def socket(self, *_arguments: Any) -> trio.socket.SocketType:
        return UnreachableSocket(self.errors.pop(0))


@pytest.mark.feature("A21")
@pytest.mark.parametrize("code", ["ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "ECONNRESET"])
async def test_host_that_cannot_be_reached(code: str) -> None:
    resolve(("192.0.2.1", 443))
    trio.socket.set_custom_socket_factory(UnreachableNetwork(getattr(errno, code)))
    with pytest.raises(ConnectError) as caught:
        await connect("away.example", 443, context=CLIENT)
    assert caught.value.code == code
    assert caught.value.errno == getattr(errno, code)
    assert os.strerror(getattr(errno, code)) in str(caught.value)
    assert caught.value.retryable


@pytest.mark.feature("A21")
async def test_of_several_addresses_that_fail_the_first_one_s_reason_is_told() -> None:
    resolve(("192.0.2.1", 443), ("192.0.2.2", 443))
    trio.socket.set_custom_socket_factory(UnreachableNetwork(errno.ETIMEDOUT, errno.ECONNREFUSED))
    with pytest.raises(ConnectError) as caught:
        await connect("away.example", 443, context=CLIENT)
    assert caught.value.code == "ETIMEDOUT"
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert len(caught.value.__cause__.exceptions) == 2


# Errors before it is secure


async def reset(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def hang_up(stream: trio.SocketStream) -> None:
    await stream.receive_some()


@pytest.mark.feature("A21")
@pytest.mark.feature("A22")
@pytest.mark.parametrize("behave", [reset, hang_up])
async def test_connection_that_is_lost_half_way_says_how_far_it_got(
    behave: Callable[[trio.SocketStream], Awaitable[None]],
) -> None:
    async with raw_server(behave) as port:
        with pytest.raises(ConnectionLost) as caught:
            await connect("127.0.0.1", port, context=CLIENT)
    error = caught.value
    assert type(error) is ConnectionLost
    assert error.code == "ECONNRESET"
    assert error.phase == "handshake"
    assert error.progress == "SSLv3/TLS write client hello"
    assert error.bytes_sent > 100
    assert error.bytes_received == 0
    assert error.remote_address == Address("127.0.0.1", port, "IPv4")
    assert error.retryable


@pytest.mark.feature("A22")
async def test_network_and_time_may_pass_and_certificates_and_mistakes_do_not(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    errors: list[tls.TLSError] = []
    settings: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"alpn_protocols": ["http/1.1"]}, {"alpn_protocols": ["h2"]}),
        ({"context": SecureContext(ca=[])}, {}),
        ({"host": "b.example"}, {}),
        ({"server_name": "127.0.0.1"}, {}),
    ]
    for options, server_options in settings:
        with pytest.raises(tls.TLSError) as caught:
            await connect_in_memory(nursery, server_options, **options)
        errors.append(caught.value)
    transport, _peer = memory_stream_pair()
    with pytest.raises(tls.HandshakeTimeout) as timed_out:
        await wrap_client(transport, context=CLIENT)
    errors.append(timed_out.value)
    with closed_port() as port, pytest.raises(ConnectError) as refused:
        await connect("127.0.0.1", port)
    errors.append(refused.value)
    assert [(type(error), error.retryable) for error in errors] == [
        (PeerAlert, False),
        (CertificateError, False),
        (IdentityError, False),
        (ConfigurationError, False),
        (tls.HandshakeTimeout, True),
        (ConnectError, True),
    ]


@pytest.mark.feature("A12")
async def test_caller_s_cancel_scope_bounds_the_whole_call(autojump_clock: MockClock) -> None:
    class Slow(Resolver):
        async def getaddrinfo(self, *arguments: Any, **options: Any) -> list[Any]:
            await trio.sleep(6)
            return await super().getaddrinfo(*arguments, **options)

    async def silent(stream: trio.SocketStream) -> None:
        async for _ in stream:
            pass

    async with raw_server(silent) as port:
        trio.socket.set_custom_hostname_resolver(Slow(("127.0.0.1", port)))
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(10):
                await connect("a.example", 443, context=CLIENT)
        assert trio.current_time() == 10


@pytest.mark.feature("A1")
@pytest.mark.feature("A12")
async def test_cancelling_closes_the_socket() -> None:
    hello = trio.Event()
    ended = trio.Event()

    async def silent(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        hello.set()
        async for _ in stream:
            pass
        ended.set()

    async def connect_until_cancelled(port: int, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await connect("127.0.0.1", port, context=CLIENT)

    async with raw_server(silent) as port, trio.open_nursery() as nursery:
        before = open_files()
        scope = await nursery.start(connect_until_cancelled, port)
        await hello.wait()
        scope.cancel()
        await ended.wait()
        await wait_all_tasks_blocked()
        assert scope.cancelled_caught
        assert open_files() == before


# Unix sockets and streams that are there already


@pytest.mark.feature("A2")
@pytest.mark.node("test-tls-connect-pipe.js")
async def test_connect_unix(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    await nursery.start(TLSServer(echo, SERVER).serve_unix, path)
    async with await connect_unix(path, context=CLIENT) as stream:
        assert stream.remote_address == Address(str(path), 0, "unix")
        assert stream.authorized
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
    async with await connect_unix(str(path), host="a.example", ca=CA) as stream:
        assert stream.server_name == "a.example"
    with pytest.raises(IdentityError):
        await connect_unix(os.fsencode(path), host="b.example", ca=CA)


@pytest.mark.feature("A2")
@pytest.mark.feature("A21")
async def test_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "missing"
    with pytest.raises(ConnectError) as caught:
        await connect_unix(path, context=CLIENT)
    assert (caught.value.code, caught.value.errno) == ("ENOENT", errno.ENOENT)
    assert (caught.value.host, caught.value.port) == (str(path), None)
    assert caught.value.retryable


@pytest.mark.feature("A2")
@pytest.mark.feature("A21")
async def test_unix_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    with pytest.raises(ConnectError) as caught:
        await connect_unix(path, context=CLIENT)
    assert caught.value.code == "ECONNREFUSED"
    assert str(path) in str(caught.value)


@pytest.mark.feature("A3")
async def test_tls_in_tls(nursery: trio.Nursery) -> None:
    inner = TLSServer(echo, SERVER)
    tunnel, _ = await connect_in_memory(nursery, {"context": SERVER})
    await tunnel.aclose()
    outer = TLSServer(inner.handle, SERVER)
    await nursery.start(outer.serve, 0, "127.0.0.1")
    tunnel = await connect("127.0.0.1", outer.addresses[0].port, context=CLIENT)
    client = await wrap_client(tunnel, host="a.example", context=CLIENT)
    await client.send_all(b"twice encrypted")
    assert await client.receive_some() == b"twice encrypted"
    assert client.transport_stream is tunnel
    assert client.remote_address == tunnel.remote_address
    await client.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await tunnel.send_all(b"?")


@pytest.mark.feature("A3")
async def test_stream_owns_its_transport(nursery: trio.Nursery) -> None:
    client, _ = await connect_in_memory(nursery)
    transport = client.transport_stream
    await client.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await transport.receive_some()


@pytest.mark.feature("A3")
async def test_transport_is_closed_when_the_handshake_fails() -> None:
    transport, peer = memory_stream_pair()
    await peer.send_all(b"220 mail.example ESMTP\r\n")
    with pytest.raises(tls.NotTLS):
        await wrap_client(transport, context=CLIENT)
    with pytest.raises(trio.ClosedResourceError):
        await transport.receive_some()


@pytest.mark.feature("A3")
async def test_transport_is_closed_when_the_handshake_is_cancelled(autojump_clock: MockClock) -> None:
    transport, peer = memory_stream_pair()
    with trio.move_on_after(1):
        await wrap_client(transport, context=CLIENT)
    with pytest.raises(trio.ClosedResourceError):
        await transport.receive_some()
    async for _ in peer:
        pass


@pytest.mark.feature("C1")
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_streams_made_by_hand(version: str, nursery: trio.Nursery) -> None:
    client_end, server_end = memory_stream_pair()
    versions: Any = {"min_version": version, "max_version": version}
    client = TLSStream(OneByteStream(client_end), SecureContext(ca=CA, **versions), alpn_protocols=["h2"])
    server = TLSStream(server_end, SERVER, server_side=True, alpn_protocols=["h2"])
    for stream in (client, server):
        with pytest.raises(trio.NeedHandshakeError):
            _ = stream.info
    nursery.start_soon(server.do_handshake)
    await client.do_handshake()
    await server.do_handshake()
    assert client.info.protocol == server.info.protocol == version
    assert client.alpn_protocol == server.alpn_protocol == "h2"
    assert client.nursery is None
    await server.send_all(b"hello")
    assert await client.receive_some() == b"hello"
    await client.aclose()
    await server.aclose()


@pytest.mark.feature("C1")
async def test_stream_over_what_is_no_stream_is_refused() -> None:
    with pytest.raises(ConfigurationTypeError):
        TLSStream(object(), CLIENT)  # type: ignore[call-overload]


# Names


@pytest.mark.feature("A4")
@pytest.mark.parametrize(
    ("options", "sent", "verified"),
    [
        ({"host": "a.example"}, "a.example", "a.example"),
        ({"host": "a.example."}, "a.example", "a.example."),
        ({"host": "A.Example"}, "A.Example", "A.Example"),
        ({"host": "b\xfccher.example"}, "xn--bcher-kva.example", "b\xfccher.example"),
        ({"host": "a.example", "server_name": "localhost"}, "localhost", "localhost"),
        ({"host": "127.0.0.1", "server_name": "a.example"}, "a.example", "a.example"),
        ({"host": "a.example", "server_name": ""}, None, "a.example"),
        ({"host": "a.example", "server_name": None}, "a.example", "a.example"),
        ({"server_name": "a.example"}, "a.example", "a.example"),
        ({"server_name": "b\xfccher.example"}, "xn--bcher-kva.example", "b\xfccher.example"),
        ({"server_name": ""}, None, "localhost"),
        ({}, "localhost", "localhost"),
        ({"host": "127.0.0.1"}, None, "127.0.0.1"),
        ({"host": "127.0.0.1."}, None, "127.0.0.1."),
        ({"host": "::1"}, None, "::1"),
        ({"host": "::1%lo"}, None, "::1%lo"),
        ({"host": "0:0:0:0:0:0:0:1"}, None, "0:0:0:0:0:0:0:1"),
    ],
)
async def test_which_name_is_sent_and_which_is_verified(
    options: dict[str, Any], sent: str | None, verified: str, nursery: trio.Nursery
) -> None:
    checked: list[str] = []

    def check(name: str, certificate: Certificate | None) -> None:
        checked.append(name)
        tls.check_server_identity(name, certificate)

    client, server = await connect_in_memory(nursery, check_server_identity=check, **options)
    assert checked == [verified]
    assert server.client_hello is not None
    assert server.client_hello.server_name == sent
    assert client.server_name == server.server_name == sent
    assert client.info.server_name == server.info.server_name == sent
    assert client.authorized
    await client.aclose()


@pytest.mark.feature("A4")
async def test_connect_sends_and_verifies_the_host_it_connects_to(port: int) -> None:
    resolver = resolve(("127.0.0.1", port))
    async with await connect("a.example", port, context=CLIENT) as stream:
        assert stream.server_name == "a.example"
    with pytest.raises(IdentityError) as caught:
        await connect("b.example", port, context=CLIENT)
    assert caught.value.host == "b.example"
    assert set(caught.value.presented) == set(NAMES)
    assert resolver.asked == ["a.example", "b.example"]


@pytest.mark.feature("A4")
@pytest.mark.node("test-tls-ip-servername-forbidden.js")
@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "127.0.0.1.", "fe80::1%eth0"])
async def test_ip_address_is_refused_as_server_name(name: str) -> None:
    transport, peer = memory_stream_pair()
    with pytest.raises(ConfigurationError, match="IP address") as caught:
        await wrap_client(transport, context=CLIENT, server_name=name)
    assert not isinstance(caught.value, TypeError)
    assert caught.value.option == "server_name"
    assert await peer.receive_some() == b""


@pytest.mark.feature("A4")
@pytest.mark.parametrize("host", ["127.0.0.2", "::2"])
async def test_ip_address_is_verified_as_one(host: str, nursery: trio.Nursery) -> None:
    with pytest.raises(IdentityError) as caught:
        await connect_in_memory(nursery, host=host)
    assert caught.value.code == "ERR_TLS_CERT_ALTNAME_INVALID"
    assert caught.value.host == host


@pytest.mark.feature("A4")
@pytest.mark.parametrize("option", ["host", "server_name"])
async def test_name_that_cannot_be_sent_is_refused(option: str) -> None:
    transport, peer = memory_stream_pair()
    options: dict[str, Any] = {option: "b\xfc..example"}
    with pytest.raises(ConfigurationError) as caught:
        await wrap_client(transport, context=CLIENT, **options)
    assert caught.value.option == option
    assert await peer.receive_some() == b""


# Trust


@pytest.mark.feature("A5")
@pytest.mark.feature("C2")
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_who_is_not_to_be_refused_is_connected_and_told_of(version: str, nursery: trio.Nursery) -> None:
    context = SecureContext(ca=[], min_version=version, max_version=version)
    client, _ = await connect_in_memory(nursery, context=context, reject_unauthorized=False)
    assert client.authorized is False
    error = client.authorization_error
    assert type(error) is CertificateError
    assert error.code == "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
    assert (error.phase, error.stream) == (None, None)
    assert client.info.authorization_error is error
    assert client.info.authorized is False
    assert client.info.verified_chain == ()
    assert len(client.info.peer_certificate_chain) == 1
    await client.send_all(b"hello")
    assert await client.receive_some() == b"hello"
    await client.aclose()


@pytest.mark.feature("A5")
async def test_wrong_name_that_is_not_to_be_refused_is_told_of(nursery: trio.Nursery) -> None:
    client, _ = await connect_in_memory(nursery, host="b.example", reject_unauthorized=False)
    assert client.authorized is False
    assert type(client.authorization_error) is IdentityError
    assert client.authorization_error.host == "b.example"
    # Its chain is trusted all the same.
    assert len(client.info.verified_chain) == 2
    await client.aclose()


@pytest.mark.feature("A5")
@pytest.mark.feature("C2")
async def test_who_is_verified_is_authorized_without_error(nursery: trio.Nursery) -> None:
    client, server = await connect_in_memory(nursery, reject_unauthorized=False)
    assert client.authorized is True
    assert client.authorization_error is None
    # The server asked for nothing: nobody was verified, and nothing is wrong with that.
    assert server.authorized is False
    assert server.authorization_error is None
    await client.aclose()


@pytest.mark.feature("A6")
async def test_identity_check_is_called_with_name_and_certificate(nursery: trio.Nursery) -> None:
    calls: list[tuple[str, Certificate | None]] = []

    def check(name: str, certificate: Certificate | None) -> object:
        calls.append((name, certificate))
        return "anything that is no exception accepts"

    client, _ = await connect_in_memory(nursery, host="b.example", check_server_identity=check)
    ((name, certificate),) = calls
    assert name == "b.example"
    assert certificate == client.info.peer_certificate
    assert client.authorized
    await client.aclose()


@pytest.mark.feature("A6")
@pytest.mark.parametrize("returns", [False, True])
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_identity_check_s_refusal_is_the_cause(
    version: str, *, returns: bool, nursery: trio.Nursery
) -> None:
    refusal = LookupError("not on the list")

    def check(_name: str, _certificate: Certificate | None) -> object:
        if returns:
            return refusal
        raise refusal

    context = SecureContext(ca=CA, min_version=version, max_version=version)
    with pytest.raises(IdentityError, match="not on the list") as caught:
        await connect_in_memory(nursery, context=context, check_server_identity=check)
    assert caught.value.__cause__ is refusal
    assert caught.value.host == "localhost"
    assert caught.value.certificate is not None
    assert caught.value.phase == "handshake"


@pytest.mark.feature("A6")
async def test_identity_check_s_refusal_is_told_where_nobody_is_refused(nursery: trio.Nursery) -> None:
    refusal = LookupError("not on the list")
    client, _ = await connect_in_memory(
        nursery, check_server_identity=lambda _name, _certificate: refusal, reject_unauthorized=False
    )
    assert client.authorized is False
    assert client.authorization_error is not None
    assert client.authorization_error.__cause__ is refusal
    await client.aclose()


@pytest.mark.feature("A6")
async def test_identity_is_not_checked_before_the_chain_is_trusted(nursery: trio.Nursery) -> None:
    with pytest.raises(CertificateError) as caught:
        await connect_in_memory(
            nursery,
            context=SecureContext(ca=[]),
            check_server_identity=lambda _name, _certificate: pytest.fail("was called"),
        )
    assert type(caught.value) is CertificateError


# What is known


@pytest.mark.feature("C3")
@pytest.mark.feature("C5")
@pytest.mark.feature("C6")
@pytest.mark.parametrize(
    ("versions", "ciphers", "cipher"),
    [
        (
            ("TLSv1.3", "TLSv1.3"),
            "TLS_AES_128_GCM_SHA256",
            ("TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", "TLSv1.3", 128),
        ),
        (
            ("TLSv1.2", "TLSv1.3"),
            None,
            ("TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384", "TLSv1.3", 256),
        ),
        (
            ("TLSv1.2", "TLSv1.2"),
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLSv1.2", 128),
        ),
        (
            ("TLSv1.2", "TLSv1.2"),
            "ECDHE-ECDSA-AES256-SHA",
            ("ECDHE-ECDSA-AES256-SHA", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", "TLSv1.0", 256),
        ),
    ],
)
async def test_info_tells_what_was_negotiated(
    versions: tuple[str, str],
    ciphers: str | None,
    cipher: tuple[str, str, str, int],
    nursery: trio.Nursery,
) -> None:
    context = SecureContext(ca=CA, min_version=versions[0], max_version=versions[1], ciphers=ciphers)
    client, server = await connect_in_memory(
        nursery,
        {"alpn_protocols": ["h2"]},
        context=context,
        host="a.example",
        alpn_protocols=["http/1.1", "h2"],
    )
    for stream in (client, server):
        info = stream.info
        assert info.protocol == versions[1]
        found = info.cipher
        assert (found.name, found.standard_name, found.version, found.secret_bits) == cipher
        assert info.alpn_protocol == stream.alpn_protocol == "h2"
        assert info.server_name == stream.server_name == "a.example"
        assert info.session_reused is False
        assert stream.encrypted is True
    assert client.info.certificate is None
    assert server.info.certificate == client.info.peer_certificate
    assert server.info.peer_certificate is None
    await client.aclose()


@pytest.mark.feature("C3")
async def test_info_has_none_for_what_was_not_negotiated(nursery: trio.Nursery) -> None:
    client, server = await connect_in_memory(nursery, server_name="")
    for stream in (client, server):
        assert stream.info.alpn_protocol is None
        assert stream.info.server_name is None
    await client.aclose()


@pytest.mark.feature("C2")
async def test_info_is_frozen_and_readable_for_ever(nursery: trio.Nursery) -> None:
    client, server = await connect_in_memory(nursery, host="a.example")
    infos = [client.info, server.info]
    await client.aclose()
    await wait_all_tasks_blocked()
    assert [client.info, server.info] == infos
    assert client.authorized
    assert client.server_name == server.server_name == "a.example"
    assert client.info.peer_certificate is not None
    assert client.info.peer_certificate.subject_alt_name is not None
    assert server.client_hello is not None
    with pytest.raises(AttributeError):
        infos[0].protocol = "TLSv1"  # type: ignore[misc]


@pytest.mark.feature("C2")
async def test_info_of_a_failed_handshake_stays_unknown() -> None:
    transport, peer = memory_stream_pair()
    stream = TLSStream(transport, CLIENT)
    await peer.aclose()
    with pytest.raises(ConnectionLost):
        await stream.do_handshake()
    for read in (lambda: stream.info, lambda: stream.authorized, lambda: stream.alpn_protocol):
        with pytest.raises(trio.NeedHandshakeError):
            read()
    await stream.aclose()


@pytest.mark.feature("C19")
async def test_addresses_are_known_before_the_handshake_and_after_closing(nursery: trio.Nursery) -> None:
    accepted: list[TLSStream] = []

    async def handler(stream: TLSStream) -> None:
        accepted.append(stream)
        await echo(stream)

    server = TLSServer(handler, SERVER)
    await nursery.start(server.serve, 0, "127.0.0.1")
    (address,) = server.addresses
    transport = await trio.open_tcp_stream("127.0.0.1", address.port)
    stream = TLSStream(transport, CLIENT)
    own = Address("127.0.0.1", transport.socket.getsockname()[1], "IPv4")
    assert (stream.local_address, stream.remote_address) == (own, address)
    await stream.do_handshake()
    await stream.aclose()
    while server.statistics().open:
        await wait_all_tasks_blocked()
    assert (stream.local_address, stream.remote_address) == (own, address)
    (other_end,) = accepted
    assert (other_end.local_address, other_end.remote_address) == (address, own)


@pytest.mark.feature("C19")
async def test_addresses_are_none_where_the_transport_cannot_tell(nursery: trio.Nursery) -> None:
    client, server = await connect_in_memory(nursery)
    assert client.local_address is client.remote_address is None
    assert server.local_address is server.remote_address is None
    await client.aclose()


@pytest.mark.feature("C21")
async def test_statistics_count_plaintext_and_ciphertext(nursery: trio.Nursery) -> None:
    client_end, server_end = memory_stream_pair()
    recorded = RecordingStream(client_end)
    nursery.start_soon(TLSServer(echo, SERVER).handle, server_end)
    client = await wrap_client(recorded, context=CLIENT)
    await client.send_all(bytes(50_000))
    received = 0
    while received < 50_000:
        received += len(await client.receive_some())
    await client.aclose()
    statistics = client.statistics()
    assert statistics.plaintext_sent == statistics.plaintext_received == 50_000
    assert statistics.ciphertext_sent == len(recorded.sent) > 50_000
    assert statistics.ciphertext_received == len(recorded.received) > 50_000


@pytest.mark.feature("C21")
async def test_async_for_ends_with_the_peer_s_goodbye(nursery: trio.Nursery) -> None:
    client, _ = await connect_in_memory(nursery)
    await client.send_all(b"some data")
    await client.send_eof()
    assert b"".join([data async for data in client]) == b"some data"
    await client.aclose()


@pytest.mark.node("test-tls-wrap-event-emmiter.js")
@pytest.mark.parametrize("transport", [None, "socket"])
async def test_what_is_no_stream_is_refused(transport: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a trio") as caught:
        await wrap_client(transport, context=CLIENT)
    assert caught.value.option == "transport"


@pytest.mark.feature("A1")
@pytest.mark.parametrize(
    ("spelt", "meant"),
    [("rejectUnauthorized", "reject_unauthorized"), ("ALPNProtocols", "alpn_protocols"), ("hostt", None)],
)
async def test_an_unknown_option_is_refused_with_the_one_that_was_meant(
    spelt: str, meant: str | None
) -> None:
    options: dict[str, Any] = {spelt: False}
    with pytest.raises(TypeError, match=f"did you mean {meant}" if meant else "no option hostt"):
        await tls.connect("127.0.0.1", 1, **options)


@pytest.mark.feature("A1")
@pytest.mark.parametrize(
    "options", [{"alpn_protocols": [""]}, {"handshake_timeout": -1}, {"server_name": "::1"}]
)
async def test_an_option_is_refused_before_anything_is_connected(options: dict[str, Any]) -> None:
    with pytest.raises(tls.ConfigurationError):
        await tls.connect("127.0.0.1", 1, **options)
