"""Reload: the files of the credentials are replaced again and again under load; no request is lost.

They are replaced in all the ways that there are: a link to their folder is swapped, as Kubernetes and certbot
do; each is renamed into its place; each is written slowly, so that half of it is there for a while, which the
server refuses and reports.  Half-way, a client is revoked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio
from cryptography.hazmat.primitives.serialization import Encoding

import trio_tlsnode as tls
from trio_tlsnode.testing import Authority, IssuedCertificate

from .clients import connect, open_transport, pinging, trust_in
from .processes import Server, open_server
from .tables import milliseconds, table

_AT_ONCE: Final = 16
_REQUESTS_PER_CONNECTION: Final = 10
_REVOKED: Final = "ERR_SSL_SSLV3_ALERT_CERTIFICATE_REVOKED"
_PING_INTERVAL: Final = 0.02
_GLANCE: Final = 0.005
_PATIENCE: Final = 60.0
# The first ones' memory is the allocator's looking for its shape.
_SETTLING: Final = 20


class Result(NamedTuple):
    """What became of the requests.

    Attributes:
        asked: How many requests were sent.
        answered: How many of them were answered.
        connections: How many connections they took.
        resumed: How many of these resumed a session.
        failed: How many connections failed, on either side.
        reloads: How often the credentials were replaced.
        refused: How often files that were half there were refused, and reported.
        certificates: How many different certificates new clients have seen.
        revoked: With what the client failed that was revoked, or None.
        p99: An established connection's round trip of which 99 of 100 take no longer, in seconds.
        memory: How much more memory the server has with each reload, in bytes.
        seconds: How long it took.
    """

    asked: int
    answered: int
    connections: int
    resumed: int
    failed: int
    reloads: int
    refused: int
    certificates: int
    revoked: str | None
    p99: float
    memory: float
    seconds: float


class _Load:
    """Clients that ask, on new connections and on old ones, with sessions and without."""

    def __init__(self, port: int, context: tls.SecureContext) -> None:
        self._port = port
        self._context = context
        self.is_over = False
        self.asked = self.answered = self.connections = self.resumed = self.failed = 0

    async def client(self, number: int) -> None:
        session: bytes | None = None
        while not self.is_over:
            try:
                async with await tls.wrap_client(
                    await open_transport(self._port, number),
                    host="localhost",
                    context=self._context,
                    session=session,
                ) as stream:
                    self.connections += 1
                    self.resumed += stream.info.session_reused
                    for _ in range(_REQUESTS_PER_CONNECTION):
                        await self._ask(stream)
                    session = stream.session if number % 2 else None
            except (OSError, tls.TLSError):
                self.failed += 1

    async def _ask(self, stream: tls.TLSStream) -> None:
        self.asked += 1
        said = b"request %8d" % self.asked
        await stream.send_all(said)
        heard = b""
        while len(heard) < len(said) and (data := await stream.receive_some()):
            heard += data
        self.answered += heard == said


class _Files:
    """The files that the server watches, in a folder that is a link.

    Attributes:
        crl: The revocation list that they have from the next replacement on.
    """

    def __init__(self, server: Server, crl: bytes) -> None:
        self.crl = crl
        self._server = server
        self._folder = server.directory / "live"
        self._number = 0

    async def replace(self, leaf: IssuedCertificate) -> None:
        """Replace them in one of the ways, and wait until the server uses them."""
        ways = (self._swap, self._rename, self._write_slowly)
        self._number += 1
        await ways[self._number % len(ways)](_contents(leaf, self.crl))
        expected = tls.Certificate(leaf.certificate.public_bytes(Encoding.DER)).fingerprint256
        await self._until(lambda watched: watched["certificate"] == expected)

    async def refused(self) -> int:
        """How often the server has refused what it has found."""
        return int((await self._server.ask("watched"))["failures"])

    async def _swap(self, contents: dict[str, bytes]) -> None:
        folder = self._folder.with_name(f"..{self._number}")
        _write_new(folder, contents)
        link = self._folder.with_name("link")
        link.symlink_to(folder.name)
        os.replace(link, self._folder)

    async def _rename(self, contents: dict[str, bytes]) -> None:
        new = self._folder / "new"
        for name, content in contents.items():
            new.write_bytes(content)
            os.replace(new, self._folder / name)

    async def _write_slowly(self, contents: dict[str, bytes]) -> None:
        before = await self.refused()
        for name, content in contents.items():
            (self._folder / name).write_bytes(content[: len(content) // 2])
        await self._until(lambda watched: watched["failures"] > before)
        for name, content in contents.items():
            (self._folder / name).write_bytes(content)

    async def _until(self, is_so: Callable[[dict[str, Any]], bool]) -> None:
        with trio.fail_after(_PATIENCE):
            # Another process, which tells nothing by itself.
            while not is_so(await self._server.ask("watched")):  # noqa: ASYNC110
                await trio.sleep(_GLANCE)


def _contents(leaf: IssuedCertificate, crl: bytes) -> dict[str, bytes]:
    return {"key.pem": leaf.key, "cert.pem": leaf.cert, "crl.pem": crl}


def _write_new(folder: Path, contents: dict[str, bytes]) -> None:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)


async def reload(*, requests: int, reloads: int) -> Result:
    """Answer at least so many requests while the credentials are replaced so many times."""
    authority = Authority()
    first, *others = [authority.good("localhost") for _ in range(reloads + 1)]
    trust = trust_in(authority.ca)
    issued = authority.client("mallory")
    alice, mallory = (trust(**client.options) for client in (authority.client("alice"), issued))
    crl = authority.crl()

    def prepare(directory: Path) -> None:
        (directory / "ca.pem").write_bytes(authority.ca)
        _write_new(directory / "..0", _contents(first, crl))
        (directory / "live").symlink_to("..0")

    async with open_server(prepare=prepare, watches=True, request_cert=True, client_error_limit=1) as server:
        files = _Files(server, crl)
        load = _Load(server.port, alice)
        usage: list[dict[str, Any]] = []
        seen = {await _certificate(server.port, mallory)}
        async with pinging(server.port, alice, number=1, interval=_PING_INTERVAL) as pinger:
            started = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for number in range(_AT_ONCE):
                    nursery.start_soon(load.client, number)
                for number, leaf in enumerate(others, 1):
                    # Evenly among the requests.
                    while load.answered < requests * number / (reloads + 1):  # noqa: ASYNC110 - told by nobody
                        await trio.sleep(_GLANCE)
                    if number == max(reloads // 2, 1):
                        authority.revoke(issued)
                        files.crl = authority.crl()
                    if number - 1 == min(_SETTLING, reloads // 2):
                        usage.append(await server.ask("settle"))
                    await files.replace(leaf)
                    seen.add(await _certificate(server.port, alice))
                while load.answered < requests:  # noqa: ASYNC110 - the same
                    await trio.sleep(_GLANCE)
                load.is_over = True
            seconds = time.perf_counter() - started
            await server.until_open(1, _PATIENCE)
            usage.append(await server.ask("settle"))
            revoked = await _refusal(server.port, mallory)
            refused = await files.refused()
    settled, last = usage
    return Result(
        asked=load.asked,
        answered=load.answered,
        connections=load.connections,
        resumed=load.resumed,
        failed=load.failed + sum(last["statistics"]["failed"].values()),
        reloads=reloads,
        refused=refused,
        certificates=len(seen),
        revoked=revoked,
        p99=pinger.quantile(0.99),
        memory=(last["memory"] - settled["memory"]) / (reloads - min(_SETTLING, reloads // 2)),
        seconds=seconds,
    )


async def _certificate(port: int, context: tls.SecureContext) -> str:
    """Ask one question; return which certificate the server has shown."""
    async with await connect(port, context) as stream:
        await stream.send_all(b"x")
        await stream.receive_some()
        certificate = stream.info.peer_certificate
        assert certificate is not None
        return certificate.fingerprint256


async def _refusal(port: int, context: tls.SecureContext) -> str | None:
    """Return with what a client fails, or None."""
    try:
        await _certificate(port, context)
    except tls.TLSError as error:
        return error.code
    return None


def broken(result: Result) -> list[str]:
    """Return which promises were broken."""
    promises = {
        f"{result.asked - result.answered} requests were lost": result.asked != result.answered,
        f"{result.failed} connections failed": result.failed > 0,
        f"only {result.refused} halves were refused": result.refused < result.reloads // 3,
        f"only {result.certificates} certificates were seen": result.certificates != result.reloads + 1,
        f"the client that was revoked failed with {result.revoked}": result.revoked != _REVOKED,
    }
    return [promise for promise, is_broken in promises.items() if is_broken]


def report(result: Result) -> str:
    """Return the results as Markdown."""
    rows = [
        ("requests", f"{result.asked:,}"),
        ("lost", result.asked - result.answered),
        ("connections", f"{result.connections:,}"),
        ("of them resumed", f"{result.resumed:,}"),
        ("failed", result.failed),
        ("reloads", f"{result.reloads:,}"),
        ("of them with halves of files first, which were refused", f"{result.refused:,}"),
        ("certificates seen", f"{result.certificates:,}"),
        ("an established connection's p99, ms", milliseconds(result.p99)),
        ("memory for each reload, KiB", f"{result.memory / 1024:.1f}"),
    ]
    return table(f"Reload of watched files under load ({result.seconds:.0f} s)", ("", "figure"), rows)
