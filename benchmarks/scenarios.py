"""Scenarios: what is measured, as data; the workers of every contender carry it out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

KIB = 1024
MIB = 1024 * KIB

AES_256_GCM = "TLS_AES_256_GCM_SHA384"
X25519 = "X25519"


@dataclasses.dataclass(frozen=True)
class Exchange:
    """Connections on which the client sends a request and the server a reply, over and over.

    Attributes:
        connections: How many do so at the same time.
        request_size: Bytes of a request.
        reply_size: Bytes of a reply.
        write_size: Bytes given to one send call; divides the request.
    """

    kind: ClassVar = "exchange"
    connections: int
    request_size: int
    reply_size: int
    write_size: int


@dataclasses.dataclass(frozen=True)
class Handshakes:
    """Connections that are made and closed again; every handshake is a full one.

    Attributes:
        at_once: How many are under way at the same time.
        held: How many others are open meanwhile, and idle.
    """

    kind: ClassVar = "handshakes"
    at_once: int
    held: int = 0


@dataclasses.dataclass(frozen=True)
class Resumptions:
    """Connections that resume the session of the one before, make one small exchange, and are closed.

    Attributes:
        at_once: How many are under way at the same time.
    """

    kind: ClassVar = "resumptions"
    at_once: int


@dataclasses.dataclass(frozen=True)
class Idle:
    """Connections that are made, used once and kept.

    Attributes:
        connections: How many.
        before: How many more are made before, so that what a first connection costs the process is not
            counted.
    """

    kind: ClassVar = "idle"
    connections: int
    before: int = 500


@dataclasses.dataclass(frozen=True)
class FirstByte:
    """Processes that are started one after the other, and end once they have received a byte.

    Attributes:
        starts: How many.
    """

    kind: ClassVar = "first-byte"
    starts: int


Workload = Exchange | Handshakes | Resumptions | Idle | FirstByte
_WORKLOADS: dict[str, type[Workload]] = {
    kind.kind: kind for kind in (Exchange, Handshakes, Resumptions, Idle, FirstByte)
}


def workload_to_json(workload: Workload) -> dict[str, Any]:
    """Return the workload as the workers are told it."""
    return {"kind": workload.kind, **dataclasses.asdict(workload)}


def workload_from_json(fields: dict[str, Any]) -> Workload:
    """Return the workload that `workload_to_json` made the fields from."""
    return _WORKLOADS[fields["kind"]](**{name: value for name, value in fields.items() if name != "kind"})


@dataclasses.dataclass(frozen=True)
class Terms:
    """What the connections of a scenario are to agree on.

    Attributes:
        group: The only key exchange group to offer and take, or None for what each library takes by itself.
        cipher: The only TLS 1.3 cipher suite.
        name: What tells a scenario on these terms from the usual one, in names.
        title: The same, for people.
    """

    group: str | None = X25519
    cipher: str = AES_256_GCM
    name: str = ""
    title: str = ""


USUAL = Terms()
OWN_GROUPS = Terms(group=None, name="-default-groups", title=", each library's own groups")
AES_128_GCM = Terms(cipher="TLS_AES_128_GCM_SHA256", name="-aes-128-gcm", title=", AES-128-GCM")
CHACHA20 = Terms(cipher="TLS_CHACHA20_POLY1305_SHA256", name="-chacha20", title=", ChaCha20-Poly1305")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one run of a workload came to.

    Attributes:
        count: Exchanges, handshakes, connections or processes done.
        seconds: How long they took, by the client's clock.
        median: The median of how long each of them took, in seconds.
        percentile_99: What 99 in 100 of them took at most, in seconds.
        parts: The medians of parts of it that are told apart, in seconds, by name.
        server_cpu: Processor time that the server used for them, in seconds.
        server_memory: By how many bytes the server's resident memory grew.
    """

    count: int
    seconds: float
    median: float
    percentile_99: float
    parts: dict[str, float]
    server_cpu: float
    server_memory: int

    @property
    def per_second(self) -> float:
        """How many were done in a second."""
        return self.count / self.seconds

    @property
    def kib_each(self) -> float:
        """By how much each made the server's memory grow, in KiB."""
        return self.server_memory / self.count / KIB


@dataclasses.dataclass(frozen=True)
class Metric:
    """A figure that is read off a measurement.

    Attributes:
        name: Its name in results.
        title: What it is, for people.
        unit: What it is counted in.
        more_is_better: Whether the larger figure wins.
        value: Reads it.
    """

    name: str
    title: str
    unit: str
    more_is_better: bool
    value: Callable[[Measurement], float]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A workload and what is read off it.

    Attributes:
        name: Its name on the command line.
        workload: What the client does.
        metrics: The figures that it gives.
        terms: What its connections are to agree on.
        least_seconds: How long it is measured at least, in seconds: where starting takes a while.
    """

    name: str
    workload: Workload
    metrics: tuple[Metric, ...]
    terms: Terms = USUAL
    least_seconds: float = 0.0

    def on(self, terms: Terms) -> Scenario:
        """Return the same on other terms, which its names then tell."""
        metrics = tuple(
            dataclasses.replace(metric, name=metric.name + terms.name, title=metric.title + terms.title)
            for metric in self.metrics
        )
        return dataclasses.replace(self, name=self.name + terms.name, metrics=metrics, terms=terms)


def bulk(kib: int) -> Scenario:
    """Return a transfer in one direction, in writes of so many KiB."""
    # Large enough that the single byte of reply, which ends the clock's interval, is not seen.
    size = 64 * MIB
    name = f"bulk-{kib}"
    speed = Metric(
        name,
        f"bulk one way, {kib} KiB writes",
        "MB/s",
        more_is_better=True,
        value=lambda measurement: measurement.per_second * size / 1e6,
    )
    return Scenario(name, Exchange(1, size, 1, kib * KIB), (speed,))


def messages(name: str, title: str, connections: int, size: int) -> Scenario:
    """Return exchanges of messages of the same size."""
    rate = Metric(name, title, "exchanges/s", more_is_better=True, value=lambda each: each.per_second)
    workload = Exchange(connections, size, size, size)
    return Scenario(name, workload, (rate,), least_seconds=least_exchanging(connections))


def least_exchanging(connections: int) -> float:
    """Return for how many seconds connections exchange at least, so that their start is not what counts."""
    return connections / 1500


def _handshakes(name: str, title: str, workload: Handshakes | Resumptions) -> Scenario:
    rate = Metric(name, title, "1/s", more_is_better=True, value=lambda each: each.per_second)
    cpu = Metric(
        f"{name}-cpu",
        f"server CPU of {title}",
        "µs each",
        more_is_better=False,
        value=lambda measurement: measurement.server_cpu / measurement.count * 1e6,
    )
    return Scenario(name, workload, (rate, cpu))


def _first_byte() -> Scenario:
    def time(name: str, title: str, value: Callable[[Measurement], float]) -> Metric:
        return Metric(
            name, title, "ms", more_is_better=False, value=lambda measurement: value(measurement) * 1e3
        )

    metrics = (
        time("first-byte", "from the start of a process to its first byte", lambda each: each.median),
        time("first-byte-import", "the import in it", lambda each: each.parts["import"]),
        time("first-byte-connect", "the context and the handshake in it", lambda each: each.parts["connect"]),
    )
    return Scenario("first-byte", FirstByte(3), metrics)


_MEMORY = Metric(
    "memory",
    "memory of an idle server connection",
    "KiB",
    more_is_better=False,
    value=lambda measurement: measurement.kib_each,
)

BULK = (bulk(16), bulk(64), bulk(256))
PING_PONG = messages("ping-pong", "64-byte ping-pong", 1, 64)
PING_PONG_64 = messages("ping-pong-64", "64 connections, 64-byte ping-pong", 64, 64)
EXCHANGE_1000 = messages("exchange-1000", "1000 connections, 1 KiB each way", 1000, KIB)
HANDSHAKES = (
    _handshakes("handshakes-1", "full handshakes, one at a time", Handshakes(1)),
    _handshakes("handshakes-16", "full handshakes, sixteen at a time", Handshakes(16)),
)
RESUMPTIONS = (
    _handshakes("resumptions-1", "resumed handshakes with an exchange, one at a time", Resumptions(1)),
    _handshakes("resumptions-16", "resumed handshakes with an exchange, sixteen at a time", Resumptions(16)),
)
MEMORY = Scenario("memory", Idle(500), (_MEMORY,))
FIRST_BYTE = _first_byte()
