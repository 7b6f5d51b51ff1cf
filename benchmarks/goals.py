"""Goals: what this package is meant to reach, next to others on the same machine in the same run."""

from __future__ import annotations

import dataclasses
from typing import Literal

from .contenders import OURS
from .results import Figures


@dataclasses.dataclass(frozen=True)
class Goal:
    """What this package is meant to reach.

    Attributes:
        metric: Which figure.
        limit: The ratio to the contender that is the least, or where less is better the most; against
            this package itself, the figure.
        contender: Who it is measured against.
        groups: The kind of run that it is meant for; None: every kind.
    """

    metric: str
    limit: float
    contender: str = "trio_sslstream"
    groups: Literal["x25519", "default"] | None = None

    def reached(self, figures: Figures) -> bool | None:
        """Return whether it was reached, or None where that was not measured."""
        figure = figures.median(OURS) if self.contender == OURS else figures.ratio(self.contender)
        if figure is None:
            return None
        return figure >= self.limit if figures.more_is_better else figure <= self.limit


GOALS = (
    Goal("bulk-256", 2.7),
    Goal("bulk-256", 1.8, "node"),
    Goal("bulk-64", 2.1),
    Goal("bulk-16", 1.9),
    Goal("bulk-16", 0.95, "trio_tcp"),
    Goal("ping-pong", 1.3),
    Goal("ping-pong", 0.8, "trio_tcp"),
    Goal("ping-pong-64", 1.8),
    Goal("ping-pong-64", 0.9, "trio_tcp"),
    Goal("handshakes-1", 1.2, groups="x25519"),
    Goal("handshakes-1", 1.05, groups="default"),
    Goal("handshakes-16", 1.3, groups="x25519"),
    Goal("handshakes-16", 1.1, groups="default"),
    Goal("handshakes-1-cpu", 1.1, groups="x25519"),
    Goal("handshakes-16-cpu", 1.1, groups="x25519"),
    Goal("resumptions-1", 1.1),
    Goal("resumptions-1", 1.3, "node"),
    Goal("resumptions-16", 1.1),
    Goal("resumptions-16", 1.3, "node"),
    Goal("memory", 30, OURS, groups="x25519"),
    Goal("memory", 36.5, OURS, groups="default"),
    Goal("memory", 1, "node"),
)
