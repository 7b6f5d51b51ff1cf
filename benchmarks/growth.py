"""Growth: how a cost changes along a size or a number of connections: scenarios, and the curves they draw."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from .scenarios import (
    KIB,
    MIB,
    Exchange,
    Handshakes,
    Idle,
    Measurement,
    Metric,
    Scenario,
    Workload,
    least_exchanging,
)


@dataclasses.dataclass(frozen=True)
class Curve:
    """A figure at every point of a growth.

    Attributes:
        name: What the names of its metrics begin with.
        title: What it is, for people.
        unit: What it is counted in.
        more_is_better: Whether the larger figure wins.
        value: Reads the figure off the measurement at a point.
        logarithmic: Whether it spans powers of ten.
    """

    name: str
    title: str
    unit: str
    more_is_better: bool
    value: Callable[[Measurement, int], float]
    logarithmic: bool = False

    def metric(self, point: int) -> str:
        """Return the name of its metric at a point."""
        return f"{self.name}-{point}"


@dataclasses.dataclass(frozen=True)
class Growth:
    """Scenarios that differ in one number.

    Attributes:
        name: What the names of its scenarios begin with.
        along: What grows, for people.
        points: The numbers.
        workload: Makes the workload of a point.
        curves: What is read off it.
        least_seconds: How long it is measured at least at a point, in seconds.
    """

    name: str
    along: str
    points: tuple[int, ...]
    workload: Callable[[int], Workload]
    curves: tuple[Curve, ...]
    least_seconds: Callable[[int], float] = lambda _point: 0.0

    def scenarios(self) -> list[Scenario]:
        """Return a scenario for each point."""
        return [
            Scenario(
                f"{self.name}-{point}",
                self.workload(point),
                tuple(self._metric(curve, point) for curve in self.curves),
                least_seconds=self.least_seconds(point),
            )
            for point in self.points
        ]

    def _metric(self, curve: Curve, point: int) -> Metric:
        return Metric(
            curve.metric(point),
            f"{curve.title}, {self.along}: {point:,}",
            curve.unit,
            curve.more_is_better,
            lambda measurement: curve.value(measurement, point),
        )


def _transfer_size(write_size: int) -> int:
    """Return how much is sent in writes of that size: 8192 of them, and at most 64 MiB."""
    return min(8192 * write_size, 64 * MIB)


def _transfer(write_size: int) -> Exchange:
    return Exchange(1, _transfer_size(write_size), 1, write_size)


def _rate(name: str, title: str, unit: str) -> Curve:
    return Curve(
        name, title, unit, more_is_better=True, value=lambda measurement, _point: measurement.per_second
    )


def _latency(name: str, title: str, value: Callable[[Measurement], float]) -> Curve:
    return Curve(
        name,
        title,
        "ms",
        more_is_better=False,
        value=lambda measurement, _point: value(measurement) * 1e3,
        logarithmic=True,
    )


def _latencies(name: str, title: str) -> tuple[Curve, Curve]:
    return (
        _latency(f"{name}-median", f"{title}, median", lambda measurement: measurement.median),
        _latency(f"{name}-p99", f"{title}, 99th percentile", lambda measurement: measurement.percentile_99),
    )


_CONNECTIONS = (1, 10, 100, 1000, 5000)

GROWTHS = (
    Growth(
        "growth-writes",
        "bytes of a write",
        (64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB),
        _transfer,
        (
            Curve(
                "growth-writes",
                "throughput in one direction",
                "MB/s",
                more_is_better=True,
                value=lambda measurement, point: measurement.per_second * _transfer_size(point) / 1e6,
                logarithmic=True,
            ),
        ),
    ),
    Growth(
        "growth-handshakes",
        "other connections that are open",
        _CONNECTIONS,
        partial(Handshakes, 16),
        (
            _rate("growth-handshakes", "full handshakes, sixteen at a time", "1/s"),
            *_latencies("growth-handshakes", "one of these handshakes"),
        ),
    ),
    Growth(
        "growth-exchanges",
        "connections, all at work",
        _CONNECTIONS,
        lambda connections: Exchange(connections, 64, 64, 64),
        (
            _rate("growth-exchanges", "64-byte ping-pong", "exchanges/s"),
            *_latencies("growth-exchanges", "one of these exchanges"),
        ),
        least_exchanging,
    ),
    Growth(
        "growth-memory",
        "idle connections",
        (100, 300, 1000, 2500, 5000),
        Idle,
        (
            Curve(
                "growth-memory",
                "server memory of a connection",
                "KiB",
                more_is_better=False,
                value=lambda measurement, _point: measurement.kib_each,
            ),
        ),
    ),
)
