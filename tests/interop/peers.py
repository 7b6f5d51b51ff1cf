"""Peers: those that speak TLS with us, which are processes and sockets of others, and what we are to them.

What a process has to say is waited for, line by line, so nothing here depends on time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_tlsnode as tls
from trio_tlsnode.testing import Authority, IssuedCertificate, default_authority

# Longer than anything here takes, so that what hangs fails with its traceback.
PATIENCE = 20.0

VERSIONS = ("TLSv1.2", "TLSv1.3")
OTHER_SIDE = {"client": "server", "server": "client"}

in_both_versions = pytest.mark.parametrize("version", VERSIONS)
# The role is ours.
in_both_roles = pytest.mark.parametrize("role", list(OTHER_SIDE))

Issue = Callable[[Authority, str], IssuedCertificate]

_SCRIPTS = Path(__file__).parent / "node"

# What we are


def only(version: str) -> dict[str, Any]:
    """Return the options for one protocol version."""
    return {"min_version": version, "max_version": version}


@functools.cache
def localhost() -> IssuedCertificate:
    """Return a certificate for "localhost" from the default authority."""
    return default_authority().good("localhost")


def our_context(**options: Any) -> tls.SecureContext:
    """Return a context for "localhost" that trusts the default authority, unless told otherwise."""
    return tls.SecureContext(**{"ca": default_authority().ca, **localhost().options, **options})


async def our_client(port: int, context: tls.SecureContext | None = None, **options: Any) -> tls.TLSStream:
    """Connect to "localhost" on a port of 127.0.0.1."""
    return await tls.connect(
        "127.0.0.1", port, context=context or our_context(), **{"server_name": "localhost", **options}
    )


def our_stream(
    transport: trio.abc.Stream, role: str, context: tls.SecureContext | None = None, **options: Any
) -> tls.TLSStream:
    """Return a stream whose handshake is still to be done."""
    return tls.TLSStream(
        transport, context or our_context(), server_side=role == "server", host="localhost", **options
    )


class OurServer:
    """A server of ours on a port of 127.0.0.1.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, server: tls.TLSServer) -> None:
        self.port = server.addresses[0].port
        self._errors = server.client_errors()

    async def failure(self) -> tls.ConnectionFailed:
        """Return the error that is reported next, and alone."""
        group = await anext(self._errors)
        (error,) = group.exceptions
        assert isinstance(error, tls.ConnectionFailed)
        return error


@contextlib.asynccontextmanager
async def serving(server: tls.TLSServer) -> AsyncIterator[OurServer]:
    """Serve until the end of the block."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, 0, "127.0.0.1")
            yield OurServer(server)
            nursery.cancel_scope.cancel()


async def echo(stream: tls.TLSStream) -> None:
    """Send back what comes, until the peer says goodbye."""
    async for data in stream:
        await stream.send_all(data)


# Programs of others


class ForeignProcess:
    """A process that is read and written line by line.

    Attributes:
        lines: What it has said so far.
    """

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._received = b""
        self.lines: list[str] = []

    async def line(self) -> str | None:
        """Return the next line that it says, or None when it says no more."""
        assert self._process.stdout is not None
        while b"\n" not in self._received:
            data = await self._process.stdout.receive_some()
            if not data and not self._received:
                return None
            self._received += data or b"\n"
        line, _, self._received = self._received.partition(b"\n")
        self.lines.append(line.decode(errors="replace"))
        return self.lines[-1]

    async def line_with(self, text: str) -> str:
        """Return the next line in which the text stands."""
        while (line := await self.line()) is not None:
            if text in line:
                return line
        raise AssertionError(f"{text!r} was not said after:\n" + "\n".join(self.lines))

    async def everything(self) -> str:
        """Wait for its end; return all that it has said."""
        while await self.line() is not None:
            pass
        return "\n".join(self.lines)

    async def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(line.encode() + b"\n")

    async def say_no_more(self) -> None:
        """Close its standard input."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()


class NodePeer(ForeignProcess):
    """One of the scripts under Node.js, which tells each event as a line of JSON."""

    async def event(self, name: str) -> dict[str, Any]:
        """Return the facts of the next event of this name; others may come before it."""
        facts: dict[str, Any] = json.loads(await self.line_with(f'{{"event":"{name}"'))
        if isinstance(code := facts.get("code"), str):
            # Since OpenSSL 3.2 these texts are different.
            facts["code"] = code.replace("ERR_SSL_SSL/TLS_ALERT_", "ERR_SSL_SSLV3_ALERT_")
        return facts

    async def order(self, method: str, text: str | None = None, times: int = 1) -> None:
        """Have a method of its socket called ("write", "end"), with a text that may be repeated."""
        await self.say(json.dumps({"method": method, "text": text, "times": times}))


@contextlib.asynccontextmanager
async def _opened(command: Sequence[str], **options: Any) -> AsyncIterator[trio.Process]:
    with trio.fail_after(PATIENCE):
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
        )
        try:
            yield process
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                assert process.stdin is not None
                assert process.stdout is not None
                await process.stdin.aclose()
                await process.stdout.aclose()


@contextlib.asynccontextmanager
async def running(*command: str | Path) -> AsyncIterator[ForeignProcess]:
    """Run a command; its errors are lines like all others.  It is killed at the end."""
    async with _opened([str(word) for word in command], stderr=subprocess.STDOUT) as process:
        yield ForeignProcess(process)


@contextlib.asynccontextmanager
async def running_node(
    node: str, script: str, options: dict[str, Any], **config: Any
) -> AsyncIterator[NodePeer]:
    """Run one of the scripts; it is killed at the end.

    Args:
        node: The path of Node.js.
        script: Its name, without ``.js``.
        options: The options of its client or server, as Node names them; bytes are PEM.
        config: What else the script is told.
    """
    told = json.dumps({"options": options, **config}, default=bytes.decode)
    async with _opened([node, str(_SCRIPTS / f"{script}.js"), told]) as process:
        yield NodePeer(process)


# The standard library


async def tcp_pair() -> tuple[trio.SocketStream, socket.socket]:
    """Return two ends of a connection: Trio's, and a blocking one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        ours = await trio.open_tcp_stream("127.0.0.1", port)
        theirs, _ = listener.accept()
    theirs.settimeout(PATIENCE)
    return ours, theirs


def standard_context(
    side: str, version: str, folder: Path, presented: IssuedCertificate | None = None
) -> ssl.SSLContext:
    """Return a context of the standard library for one protocol version.

    Args:
        side: "client", which trusts the default authority, or "server".
        version: The version.
        folder: Where files may be put.
        presented: The certificate to present; a server's is by default one for "localhost".
    """
    if side == "client":
        context = ssl.create_default_context(cadata=default_authority().ca.decode())
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        presented = presented or localhost()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    if presented is not None:
        key, cert = presented.write_to(folder)
        context.load_cert_chain(cert, key)
    return context


def standard_socket(context: ssl.SSLContext, sock: socket.socket, side: str, **options: Any) -> ssl.SSLSocket:
    """Return a TLS socket of the standard library, for "localhost" on this side."""
    return context.wrap_socket(
        sock,
        server_side=side == "server",
        server_hostname="localhost" if side == "client" else None,
        **options,
    )
