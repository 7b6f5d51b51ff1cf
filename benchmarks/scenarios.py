"""Scenarios: what is measured, as data; the workers of every contender carry it out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

KIB = 1024
MIB = 1024 * KIB


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
    """

    kind: ClassVar = "handshakes"
    at_once: int


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
        connections: How many; as many again are made before, so that what a first connection costs the
            process is not counted.
    """

    kind: ClassVar = "idle"
    connections: int


Workload = Exchange | Handshakes | Resumptions | Idle
_WORKLOADS: dict[str, type[Workload]] = {
    kind.kind: kind for kind in (Exchange, Handshakes, Resumptions, Idle)
}


def workload_to_json(workload: Workload) -> dict[str, Any]:
    """Return the workload as the workers are told it."""
    return {"kind": workload.kind, **dataclasses.asdict(workload)}


def workload_from_json(fields: dict[str, Any]) -> Workload:
    """Return the workload that `workload_to_json` made the fields from."""
    return _WORKLOADS[fields["kind"]](**{name: value for name, value in fields.items() if name != "kind"})


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one run of a workload came to.

    Attributes:
        count: Exchanges, handshakes or connections done.
        seconds: How long they took, by the client's clock.
        server_cpu: Processor time that the server used for them, in seconds.
        server_memory: By how many bytes the server's resident memory grew.
    """

    count: int
    seconds: float
    server_cpu: float
    server_memory: int


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
        run: The shortest kind of run that it belongs to; "named" ones are measured only when asked for.
        metrics: The figures that it gives.
    """

    name: str
    workload: Workload
    run: Literal["quick", "default", "named"]
    metrics: tuple[Metric, ...]


def _per_second(measurement: Measurement) -> float:
    return measurement.count / measurement.seconds


def _bulk(write_kib: int, run: Literal["quick", "default"]) -> Scenario:
    # Large enough that the single byte of reply, which ends the clock's interval, is not seen.
    size = 64 * MIB
    name = f"bulk-{write_kib}"
    speed = Metric(
        name,
        f"bulk one way, {write_kib} KiB writes",
        "MB/s",
        more_is_better=True,
        value=lambda measurement: _per_second(measurement) * size / 1e6,
    )
    return Scenario(name, Exchange(1, size, 1, write_kib * KIB), run, (speed,))


def _messages(name: str, title: str, run: Literal["quick", "named"], connections: int, size: int) -> Scenario:
    rate = Metric(name, title, "exchanges/s", more_is_better=True, value=_per_second)
    return Scenario(name, Exchange(connections, size, size, size), run, (rate,))


def _handshakes(name: str, title: str, workload: Handshakes | Resumptions) -> Scenario:
    rate = Metric(name, title, "1/s", more_is_better=True, value=_per_second)
    cpu = Metric(
        f"{name}-cpu",
        f"server CPU of {title}",
        "µs each",
        more_is_better=False,
        value=lambda measurement: measurement.server_cpu / measurement.count * 1e6,
    )
    return Scenario(name, workload, "quick", (rate, cpu))


_MEMORY = Metric(
    "memory",
    "memory of an idle server connection",
    "KiB",
    more_is_better=False,
    value=lambda measurement: measurement.server_memory / measurement.count / KIB,
)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        _bulk(16, "default"),
        _bulk(64, "default"),
        _bulk(256, "quick"),
        _messages("ping-pong", "64-byte ping-pong", "quick", 1, 64),
        _messages("ping-pong-64", "64 connections, 64-byte ping-pong", "quick", 64, 64),
        _messages("exchange-1000", "1000 connections, 1 KiB each way", "named", 1000, KIB),
        _handshakes("handshakes-1", "full handshakes, one at a time", Handshakes(1)),
        _handshakes("handshakes-16", "full handshakes, sixteen at a time", Handshakes(16)),
        _handshakes("resumptions-1", "resumed handshakes with an exchange, one at a time", Resumptions(1)),
        _handshakes(
            "resumptions-16", "resumed handshakes with an exchange, sixteen at a time", Resumptions(16)
        ),
        Scenario("memory", Idle(500), "quick", (_MEMORY,)),
    )
}
