"""What connect takes beside TLS, as Node.js's own tests have it: paths, names and where they lead.

More of it is in tests/test_client_tcp.py.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import trio
from meetings import read_to_end
from parties import party, trust

from trio_tlsnode import Address, SecureContext, TLSServer, TLSStream, connect, connect_unix

TRUSTING = SecureContext(ca=trust("rsa_cert"))
LOCALHOST = SecureContext(**party("rsa_cert").options)


async def say_name(stream: TLSStream) -> None:
    await stream.send_all(repr(stream.server_name).encode())


class Resolver(trio.abc.HostnameResolver):
    """Resolves every name to one address, and notes which names it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        trio.socket.set_custom_hostname_resolver(self)

    async def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0  # noqa: A002
    ) -> list[Any]:  # fmt: skip
        await trio.lowlevel.checkpoint()
        self.asked.append(host.decode() if isinstance(host, bytes) else host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


@pytest.fixture
async def port(nursery: trio.Nursery) -> int:
    """The port of a server for "localhost"."""
    server = TLSServer(say_name, LOCALHOST)
    await nursery.start(server.serve, 0, "127.0.0.1")
    return server.addresses[0].port


@pytest.mark.feature("A2")
@pytest.mark.node("test-tls-net-connect-prefer-path.js")
async def test_a_path_leads_to_a_socket_and_its_host_is_a_name_alone(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    await nursery.start(TLSServer(say_name, LOCALHOST).serve_unix, path)
    resolver = Resolver()
    async with await connect_unix(path, host="localhost", context=TRUSTING) as stream:
        assert stream.remote_address == Address(str(path), 0, "unix")
        assert await read_to_end(stream) == b"'localhost'"
    assert resolver.asked == []
    # Node.js would pass over a port.
    with pytest.raises(TypeError, match="port"):
        await connect_unix(path, port=443, context=TRUSTING)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="path"):
        await connect("localhost", 443, path=path, context=TRUSTING)  # type: ignore[call-arg]


@pytest.mark.feature("A2")
@pytest.mark.feature("A5")
@pytest.mark.node("test-https-unix-socket-self-signed.js")
async def test_who_is_behind_a_path_need_not_be_verified(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    await nursery.start(TLSServer(say_name, LOCALHOST).serve_unix, path)
    async with await connect_unix(path, reject_unauthorized=False) as stream:
        assert stream.authorization_error is not None
        assert stream.authorization_error.code == "DEPTH_ZERO_SELF_SIGNED_CERT"
        assert await read_to_end(stream) == b"'localhost'"


@pytest.mark.feature("A16")
@pytest.mark.node("test-tls-lookup.js")
async def test_names_are_looked_up_by_trio_s_resolver_once(port: int) -> None:
    resolver = Resolver()
    async with await connect("localhost", port, context=TRUSTING):
        assert resolver.asked == ["localhost"]


@pytest.mark.feature("A16")
@pytest.mark.node("test-tls-lookup.js")
@pytest.mark.parametrize("lookup", ["foobar", 1, {}, []])
async def test_lookup_is_no_option_and_refused_before_anything_is_looked_up(lookup: Any) -> None:
    options: dict[str, Any] = {"lookup": lookup}
    resolver = Resolver()
    with pytest.raises(TypeError, match="lookup"):
        await connect("localhost", 443, context=TRUSTING, **options)
    assert resolver.asked == []


@pytest.mark.feature("A16")
@pytest.mark.feature("A4")
@pytest.mark.node("test-tls-autoselectfamily-servername.js")
@pytest.mark.parametrize("delay", [0.25, None], ids=["at the same time", "one after the other"])
async def test_the_name_that_is_sent_is_the_one_that_was_given_however_addresses_are_tried(
    delay: float | None, port: int
) -> None:
    Resolver()
    stream = await connect(
        "somewhere.example", port, context=TRUSTING, server_name="localhost", happy_eyeballs_delay=delay
    )
    async with stream:
        assert stream.authorized
        assert await read_to_end(stream) == b"'localhost'"
