"""Clients: the good ones, whose round trips tell what a server's other peers cost them."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

import trio_tlsnode as tls

from .misdeeds import Trust

HOST: Final = "127.0.0.1"
_MESSAGE: Final = bytes(64)
# As many addresses of this machine, so that no ports are lacking where many connections have just ended.
_ADDRESSES: Final = 8


def trust_in(ca: bytes) -> Trust:
    """Return what makes a client's contexts: by default they trust this root; equal ones are one."""

    @functools.cache
    def trust(**options: Any) -> tls.SecureContext:
        return tls.SecureContext(**{"ca": ca, **options})

    return trust


async def open_transport(port: int, number: int = 0) -> trio.SocketStream:
    """Connect to the server; the number tells from which address."""
    return await trio.open_tcp_stream(HOST, port, local_address=f"127.0.0.{2 + number % _ADDRESSES}")


async def connect(port: int, trust: tls.SecureContext, number: int = 0) -> tls.TLSStream:
    """Connect to the server, and do the handshake."""
    return await tls.wrap_client(await open_transport(port, number), host="localhost", context=trust)


class Pinger:
    """Established connections that ping, and how long their round trips take.

    Attributes:
        seconds: The round trips since `begin` was called last.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def begin(self) -> None:
        """Forget the round trips so far."""
        self.seconds = []

    def quantile(self, share: float) -> float:
        """Return the time that this share of the round trips took at most, in seconds."""
        if not self.seconds:
            return float("nan")
        return sorted(self.seconds)[min(int(len(self.seconds) * share), len(self.seconds) - 1)]

    @property
    def median(self) -> float:
        """The round trip in the middle, in seconds."""
        return statistics.median(self.seconds) if self.seconds else float("nan")

    async def ping(self, stream: tls.TLSStream, interval: float) -> None:
        """Ping for ever."""
        async with stream:
            while True:
                started = time.perf_counter()
                await stream.send_all(_MESSAGE)
                received = 0
                while received < len(_MESSAGE):
                    data = await stream.receive_some()
                    if not data:
                        raise tls.ConnectionLost("the server has said goodbye to a good client")
                    received += len(data)
                self.seconds.append(time.perf_counter() - started)
                await trio.sleep(interval)


@asynccontextmanager
async def pinging(
    port: int, trust: tls.SecureContext, *, number: int, interval: float
) -> AsyncIterator[Pinger]:
    """Let so many connections ping meanwhile; one that fails is an error.

    Args:
        port: The server's.
        trust: What they trust.
        number: How many there are.
        interval: How long each waits between two round trips, in seconds.
    """
    pinger = Pinger()
    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(pinger.ping, await connect(port, trust), interval)
        yield pinger
        nursery.cancel_scope.cancel()
