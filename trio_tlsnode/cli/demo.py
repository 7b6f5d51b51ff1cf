"""``tlsnode demo``: a server, bad clients of every kind at once, and the task that supervises the server."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import click
import trio
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from .. import (
    Address,
    CertificateError,
    ConnectionFailed,
    ConnectionLost,
    Engine,
    HandshakeTimeout,
    NotTLS,
    PeerAlert,
    ProtocolError,
    SecureContext,
    TLSClientErrors,
    TLSServer,
    TLSStream,
    TruncationError,
    wrap_client,
)
from ..testing import Authority
from .failure import run
from .serve import echo
from .terminal import print_line, printable, terminal

# Long enough for a handshake on a busy machine, short enough to wait for a client that says nothing.
_HANDSHAKE_TIMEOUT: Final = 1.0
# How wide the column of what clients do is.
_WIDTH: Final = 36


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """What all clients of the demonstration find.

    Attributes:
        authority: Who issued the server's certificate, and those of good clients.
        server: The server.
    """

    authority: Authority
    server: TLSServer

    async def connect(self) -> trio.SocketStream:
        """Return a connection to the server, before any TLS."""
        (address,) = self.server.addresses
        return await trio.open_tcp_stream(address.host, address.port)

    async def handshake(self, transport: trio.SocketStream, **wrong: Any) -> TLSStream:
        """Do the handshake of a good client, but for the options that are wrong with it."""
        options = {
            "ca": self.authority.ca,
            "alpn_protocols": ["echo"],
            **self.authority.client("alice").options,
        }
        return await wrap_client(transport, host="localhost", **{**options, **wrong})


Deed = Callable[[Stage, trio.SocketStream], Awaitable[str]]
"""What a bad client does over its connection; returns what it got from it."""


@dataclasses.dataclass(frozen=True, slots=True)
class BadClient:
    """A kind of client that a server has to live with.

    Attributes:
        what: What it does, as the rest of a sentence.
        deed: How it does that.
        error: The class of the error that the server is to report.
        code: The code of that error.
    """

    what: str
    deed: Deed
    error: type[ConnectionFailed]
    code: str


async def _say(_stage: Stage, transport: trio.SocketStream, *, data: bytes) -> str:
    await transport.send_all(data)
    return "an answer" if await transport.receive_some() else "the end of the connection"


async def _say_nothing(_stage: Stage, transport: trio.SocketStream) -> str:
    started = trio.current_time()
    await transport.receive_some()
    return f"the end of the connection after {trio.current_time() - started:.1f} s"


async def _offer(stage: Stage, transport: trio.SocketStream, **wrong: Any) -> str:
    stream = await stage.handshake(transport, **wrong)
    # In TLS 1.3 a client learns only now that its certificate was refused.
    await stream.receive_some()
    return "an answer"


async def _distrust(stage: Stage, transport: trio.SocketStream) -> str:
    return await _offer(stage, transport, ca=Authority().ca)


async def _present(stage: Stage, transport: trio.SocketStream, *, issue: Callable[..., Any]) -> str:
    return await _offer(stage, transport, **issue(stage.authority, "mallory").options)


async def _hang_up(stage: Stage, transport: trio.SocketStream) -> str:
    engine = Engine(SecureContext(ca=stage.authority.ca), host="localhost")
    engine.do_handshake()
    await transport.send_all(engine.drain())
    await transport.receive_some()
    return "the server's part of the handshake"


async def _vanish(stage: Stage, transport: trio.SocketStream) -> str:
    await _served(await stage.handshake(transport))
    return "its echo"


BAD_CLIENTS: Final = (
    BadClient(
        "speaks HTTP without TLS",
        partial(_say, data=b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        NotTLS,
        "ERR_SSL_HTTP_REQUEST",
    ),
    BadClient(
        "sends garbage", partial(_say, data=bytes(range(128, 192))), NotTLS, "ERR_SSL_WRONG_VERSION_NUMBER"
    ),
    BadClient("says nothing at all", _say_nothing, HandshakeTimeout, "ERR_TLS_HANDSHAKE_TIMEOUT"),
    BadClient(
        "speaks TLS 1.2 at most",
        partial(_offer, max_version="TLSv1.2"),
        ProtocolError,
        "ERR_SSL_UNSUPPORTED_PROTOCOL",
    ),
    BadClient(
        "has no cipher in common with us",
        partial(_offer, ciphers="TLS_CHACHA20_POLY1305_SHA256"),
        ProtocolError,
        "ERR_SSL_NO_SHARED_CIPHER",
    ),
    BadClient(
        "has no ALPN protocol in common",
        partial(_offer, alpn_protocols=["h2"]),
        ProtocolError,
        "ERR_SSL_NO_APPLICATION_PROTOCOL",
    ),
    BadClient("does not trust our authority", _distrust, PeerAlert, "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA"),
    BadClient(
        "presents no certificate",
        partial(_offer, key=None, cert=None),
        CertificateError,
        "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE",
    ),
    BadClient(
        "presents one of another authority",
        partial(_present, issue=Authority.untrusted),
        CertificateError,
        "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    ),
    BadClient(
        "presents one that has expired",
        partial(_present, issue=Authority.expired),
        CertificateError,
        "CERT_HAS_EXPIRED",
    ),
    BadClient("hangs up during the handshake", _hang_up, ConnectionLost, "ECONNRESET"),
    BadClient("vanishes without a goodbye", _vanish, TruncationError, "ERR_SSL_UNEXPECTED_EOF_WHILE_READING"),
)


@dataclasses.dataclass(slots=True)
class Encounter:
    """What became of a bad client.

    Attributes:
        client: The client.
        address: Where it came from.
        got: What it got.
        error: What the supervising task was told about it.
    """

    client: BadClient
    address: Address | None = None
    got: str = "nothing"
    error: ConnectionFailed | None = None

    @property
    def complaint(self) -> str | None:
        """What is not as it should be, if anything."""
        client, error = self.client, self.error
        if error is None:
            return f"the client that {client.what} was not reported"
        if type(error) is not client.error or error.code != client.code:
            return (
                f"the client that {client.what} was reported as {type(error).__name__} {error.code} "
                f"instead of {client.error.__name__} {client.code}"
            )
        return None


@click.command()
def demo() -> None:
    """Show a server that no client can bring down.

    A good client, bad ones of every kind at once, what the server's supervising task is told about them, and
    good clients again.  The exit status is 0 if all of it was as it should be.
    """
    if run(demonstrate, terminal()):
        raise click.exceptions.Exit(1)


async def demonstrate(
    console: Console, clients: Sequence[BadClient] = BAD_CLIENTS, patience: float = 10.0
) -> list[str]:
    """Run the demonstration.

    Args:
        console: Where to tell about it.
        clients: The bad clients.
        patience: How long to wait for what does not come, in seconds.

    Returns:
        What was not as it should be.

    Raises:
        TLSError: a good client failed.
    """
    started = trio.current_time()
    stage = _stage()
    server = stage.server
    encounters = [Encounter(client) for client in clients]
    told: list[ConnectionFailed] = []
    all_told = trio.Event()
    complaints: list[str] = []

    async def supervise() -> None:
        async for group in server.client_errors():
            told.extend(error for error in group.exceptions if isinstance(error, ConnectionFailed))
            if len(told) >= len(clients):
                all_told.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise)
        await nursery.start(partial(server.serve, 0, "127.0.0.1"))
        print_line(console, (f"An echo server on {server.addresses[0]}", "bold"))
        print_line(console, "TLS 1.3 alone, ALPN echo; clients need a certificate of its own authority.")

        _tell_step(console, "1. A good client")
        async with await stage.handshake(await stage.connect()) as first:
            complaints += await _served(first)
            print_line(console, "It sends something, gets it back, and stays connected.")

            _tell_step(console, f"2. {len(clients)} bad clients, all at once")
            with trio.move_on_after(patience):
                async with trio.open_nursery() as meanwhile:
                    for encounter in encounters:
                        meanwhile.start_soon(_meet, stage, encounter)
                await all_told.wait()
            _tell_encounters(console, encounters)

            _tell_step(console, "3. What the supervising task was told, as one exception group")
            _tell_errors(console, _in_order(told, encounters))
            complaints += [encounter.complaint for encounter in encounters if encounter.complaint]
            if len(told) > len(clients):
                complaints.append(f"{len(told)} failures were reported, of {len(clients)} bad clients")

            _tell_step(console, "4. Good clients again")
            complaints += await _served(first)
            async with await stage.handshake(await stage.connect()) as second:
                complaints += await _served(second)
            print_line(console, "The first one, still connected, is served as before, and so is a new one.")
        await server.aclose(patience)

    console.print()
    for complaint in complaints:
        print_line(console, ("Not as it should be: ", "bold red"), complaint)
    if not complaints:
        seconds = trio.current_time() - started
        print_line(console, (f"All of it is as it should be, after {seconds:.1f} s.", "bold green"))
    return complaints


def _stage() -> Stage:
    authority = Authority()
    context = SecureContext(
        **authority.good("localhost").options,
        ca=authority.ca,
        min_version="TLSv1.3",
        ciphers="TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256",
    )
    server = TLSServer(
        echo,
        context,
        alpn_protocols=["echo"],
        request_cert=True,
        handshake_timeout=_HANDSHAKE_TIMEOUT,
    )
    return Stage(authority, server)


async def _served(stream: TLSStream) -> list[str]:
    """Have the server echo something; return what is not as it should be."""
    await stream.send_all(b"hello")
    echoed = await stream.receive_some()
    return [] if echoed == b"hello" else [f"a good client sent b'hello' and got {echoed!r}"]


async def _meet(stage: Stage, encounter: Encounter) -> None:
    async with await stage.connect() as transport:
        encounter.address = Address.from_sockname(transport.socket.family, transport.socket.getsockname())
        try:
            encounter.got = await encounter.client.deed(stage, transport)
        except PeerAlert as refusal:
            encounter.got = f"the alert {getattr(refusal.alert, 'name', refusal.alert)}"
        except ConnectionFailed as failure:
            encounter.got = failure.code
        except trio.BrokenResourceError:
            encounter.got = "a broken connection"


def _in_order(errors: Sequence[ConnectionFailed], encounters: Sequence[Encounter]) -> list[ConnectionFailed]:
    """Give each encounter the error of its address; return the errors in the order of the encounters."""
    by_address = {encounter.address: encounter for encounter in encounters}
    for error in errors:
        encounter = by_address.get(error.remote_address)
        if encounter is not None:
            encounter.error = error
    order = [*by_address, *(error.remote_address for error in errors)]
    return sorted(errors, key=lambda error: order.index(error.remote_address))


def _tell_step(console: Console, title: str) -> None:
    console.print()
    print_line(console, (title, "bold"))


def _tell_encounters(console: Console, encounters: Sequence[Encounter]) -> None:
    print_line(console, (f"{'port':7}{'the client ...':{_WIDTH}}... and what it gets", "dim"))
    for encounter in encounters:
        port = "" if encounter.address is None else str(encounter.address.port)
        print_line(console, (f"{port:7}", "cyan"), f"{encounter.client.what:{_WIDTH}}{encounter.got}")


def _tell_errors(console: Console, errors: Sequence[ConnectionFailed]) -> None:
    if not errors:
        print_line(console, "Nothing.")
        return
    group = TLSClientErrors("clients failed", errors)
    tree = Tree(Text.assemble((type(group).__name__, "red"), f": {group}"), guide_style="dim")
    for error in errors:
        tree.add(
            Text.assemble(
                (type(error).__name__, "bold"),
                (f" {error.code}\n", "yellow"),
                f"{error.phase}, ",
                (str(error.remote_address), "cyan"),
                f": {printable(error.reason)}",
            )
        )
    console.print(tree)
