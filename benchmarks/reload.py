"""Reload: ``python -m benchmarks.reload`` renews a server's certificate under load, and counts what is lost.

Clients ask over loopback, on new connections and on old ones, with sessions and without, while the files are
replaced again and again.  The exit status is 1 if a request was not answered.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

import trio_tlsnode as tls
from trio_tlsnode.testing import Authority

_CLIENTS = 16
_REQUESTS_PER_CONNECTION = 10
_INTERVAL = 0.02


@dataclass(kw_only=True)
class Outcome:
    """What happened.

    Attributes:
        asked: How many requests were sent.
        answered: How many of them were answered.
        connections: How many connections they took.
        resumed: How many of these resumed a session.
        reloads: How often the server has taken a new certificate.
        certificates: How many connections were shown which certificate, by its number.
        slowest: The longest time that a request took, its connection included where it was the first, in
            seconds.
        seconds: How long all of it took.
    """

    asked: int = 0
    answered: int = 0
    connections: int = 0
    resumed: int = 0
    reloads: int = 0
    certificates: dict[int, int] = field(default_factory=dict)
    slowest: float = 0.0
    seconds: float = 0.0


async def measure(requests: int, reloads: int, folder: Path) -> Outcome:
    """Answer at least so many requests while the certificate is replaced so many times."""
    outcome = Outcome()
    authority = Authority()
    # Two are enough: each time it is the other one.
    issued = [authority.good("localhost") for _ in range(2)]
    numbers = {leaf.certificate.serial_number: number for number, leaf in enumerate(issued)}
    for number, leaf in enumerate(issued):
        leaf.write_to(folder / str(number))
    current = folder / "current"
    current.symlink_to("0")
    key, cert = current / "key.pem", current / "cert.pem"
    server = tls.TLSServer(_echo, tls.SecureContext(key=key, cert=cert))
    context = tls.SecureContext(ca=authority.ca)

    async def replace() -> None:
        for number in range(1, reloads + 1):
            # Evenly among the requests.
            while outcome.answered < requests * number / (reloads + 1):  # noqa: ASYNC110 - of this nobody tells
                await trio.sleep(_INTERVAL / 4)
            before = server.secure_context
            link = folder / "link"
            link.symlink_to(str(number % 2))
            os.replace(link, current)
            while server.secure_context is before:  # noqa: ASYNC110 - nor of this
                await trio.sleep(_INTERVAL / 4)
            outcome.reloads += 1

    async def ask(cache: tls.SessionCache | None) -> None:
        port = server.addresses[0].port
        while outcome.answered < requests or outcome.reloads < reloads:
            started = time.perf_counter()
            stream = await tls.connect("localhost", port, context=context, session_cache=cache)
            async with stream:
                outcome.connections += 1
                outcome.resumed += stream.info.session_reused
                certificate = stream.info.peer_certificate
                assert certificate is not None
                shown = numbers[int(certificate.serial_number, 16)]
                outcome.certificates[shown] = outcome.certificates.get(shown, 0) + 1
                for _ in range(_REQUESTS_PER_CONNECTION):
                    outcome.asked += 1
                    said = b"request %d" % outcome.asked
                    await stream.send_all(said)
                    if await stream.receive_some() == said:
                        outcome.answered += 1
                    outcome.slowest = max(outcome.slowest, time.perf_counter() - started)
                    started = time.perf_counter()

    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, 0, "127.0.0.1")
        await nursery.start(partial(tls.watch_credentials, server, key=key, cert=cert, interval=_INTERVAL))
        async with trio.open_nursery() as load:
            load.start_soon(replace)
            for number in range(_CLIENTS):
                load.start_soon(ask, tls.SessionCache() if number % 2 else None)
        nursery.cancel_scope.cancel()
    outcome.seconds = time.perf_counter() - started
    assert not server.statistics().failed
    return outcome


async def _echo(stream: tls.TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


def main() -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reload", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--reloads", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = trio.run(measure, options.requests, options.reloads, Path(folder))
    lost = outcome.asked - outcome.answered
    print("| requests | lost | connections | of them resumed | reloads | slowest request | all |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {outcome.asked:,} | {lost:,} | {outcome.connections:,} | {outcome.resumed:,} "
        f"| {outcome.reloads} | {outcome.slowest * 1000:.0f} ms | {outcome.seconds:.1f} s |"
    )
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
