"""Reload: new credentials again and again, while clients connect; none is dropped."""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

import trio
import trustme

import trio_tlsnode as tls

from .clients import connect, pinging, trust_in
from .processes import Server, open_server
from .tables import milliseconds, table

_AT_ONCE: Final = 8
_PING_INTERVAL: Final = 0.02
_SETTLING: Final = 20


class Result(NamedTuple):
    """What became of the clients.

    Attributes:
        reloads: How often the credentials were replaced.
        connections: How many connections were made meanwhile.
        failed: How many of them failed, on either side.
        certificates: How many different certificates they have seen.
        p99: An established connection's round trip of which 99 of 100 take no longer, in seconds.
        memory: How much more memory the server has with each reload, in bytes.
        seconds: How long it took.
    """

    reloads: int
    connections: int
    failed: int
    certificates: int
    p99: float
    memory: float
    seconds: float


async def reload(*, reloads: int) -> Result:
    """Replace the server's credentials so many times."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    trust = trust_in(authority.cert_pem.bytes())()
    connections = failed = 0
    seen: set[str] = set()

    async with open_server(client_error_limit=1) as server:
        await _replace(server, authority)

        async def client(number: int) -> None:
            nonlocal connections, failed
            while True:
                try:
                    async with await connect(server.port, trust, number) as stream:
                        certificate = stream.info.peer_certificate
                        assert certificate is not None
                        seen.add(certificate.fingerprint256)
                        await stream.send_all(b"x")
                        await stream.receive_some()
                    connections += 1
                except (OSError, tls.TLSError):
                    failed += 1

        async with pinging(server.port, trust, number=1, interval=_PING_INTERVAL) as pinger:
            usage: list[dict[str, Any]] = []
            started = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for number in range(_AT_ONCE):
                    nursery.start_soon(client, number)
                for number in range(reloads):
                    # The first ones' memory is the allocator's looking for its shape.
                    if number == min(_SETTLING, reloads // 2):
                        usage.append(await server.ask("settle"))
                    await _replace(server, authority)
                    before = connections
                    while connections < before + _AT_ONCE:  # noqa: ASYNC110 - counted by several tasks
                        await trio.sleep(0.001)
                seconds = time.perf_counter() - started
                nursery.cancel_scope.cancel()
            await server.until_open(1, 10)
            usage.append(await server.ask("settle"))
    first, last = usage
    counted = reloads - min(_SETTLING, reloads // 2)
    # Those that were connecting at the end were broken off by their own side.
    lost = max(sum(last["statistics"]["failed"].values()) - _AT_ONCE, 0)
    return Result(
        reloads,
        connections,
        failed + lost,
        len(seen),
        pinger.quantile(0.99),
        (last["memory"] - first["memory"]) / counted,
        seconds,
    )


async def _replace(server: Server, authority: trustme.CA) -> None:
    leaf = authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
    leaf.private_key_pem.write_to_path(server.directory / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(server.directory / "cert.pem")
    await server.ask("reload")


def broken(result: Result) -> list[str]:
    """Return which promises were broken."""
    promises = {
        f"{result.failed} connections failed": result.failed > 0,
        f"only {result.certificates} certificates were seen": result.certificates < result.reloads,
    }
    return [promise for promise, is_broken in promises.items() if is_broken]


def report(result: Result) -> str:
    """Return the results as Markdown."""
    rows = [
        ("reloads", f"{result.reloads:,}"),
        ("connections made meanwhile", f"{result.connections:,}"),
        ("failed", result.failed),
        ("certificates seen", f"{result.certificates:,}"),
        ("an established connection's p99, ms", milliseconds(result.p99)),
        ("memory for each reload, KiB", f"{result.memory / 1024:.1f}"),
    ]
    return table(f"Hot reload under load ({result.seconds:.0f} s)", ("", "figure"), rows)
