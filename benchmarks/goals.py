"""Goals: what this package is meant to reach, next to others on the same machine in the same run."""

from __future__ import annotations

import dataclasses

from .contenders import NODE, NODE_CONTEXT_PER_CONNECT, OURS, TRIO_SSLSTREAM, TRIO_TCP
from .results import Figures


@dataclasses.dataclass(frozen=True)
class Goal:
    """What this package is meant to reach.

    Attributes:
        metric: Which figure.
        limit: The ratio to the contender that is the least, or where less is better the most; against
            this package itself, the figure.
        contender: Who it is measured against.
        difference: Whether the limit is for the difference to the contender, in place of the ratio.
    """

    metric: str
    limit: float
    contender: str = TRIO_SSLSTREAM
    difference: bool = False

    def figure(self, figures: Figures) -> float | None:
        """Return what is held against the limit, or None where it was not measured."""
        if self.contender == OURS:
            return figures.median(OURS)
        return figures.difference(self.contender) if self.difference else figures.ratio(self.contender)

    def reached(self, figures: Figures) -> bool | None:
        """Return whether it was reached, or None where that was not measured."""
        figure = self.figure(figures)
        if figure is None:
            return None
        return figure >= self.limit if figures.more_is_better else figure <= self.limit

    def text(self, figures: Figures) -> str:
        """Return the limit in words."""
        sign = "≥" if figures.more_is_better else "≤"
        return f"{sign} {self.limit:+g} {figures.unit}" if self.difference else f"{sign} {self.limit:g}"


GOALS = (
    Goal("bulk-256", 2.7),
    Goal("bulk-256", 1.8, NODE),
    Goal("bulk-64", 2.1),
    Goal("bulk-16", 1.9),
    Goal("bulk-16", 0.95, TRIO_TCP),
    Goal("ping-pong", 1.3),
    Goal("ping-pong", 0.8, TRIO_TCP),
    Goal("ping-pong-64", 1.8),
    Goal("ping-pong-64", 0.9, TRIO_TCP),
    Goal("exchange-1000", 1.5),
    Goal("handshakes-1", 1.2),
    Goal("handshakes-1", 1, NODE),
    Goal("handshakes-1", 1, NODE_CONTEXT_PER_CONNECT),
    Goal("handshakes-1-default-groups", 1.05),
    Goal("handshakes-16", 1.3),
    Goal("handshakes-16", 1, NODE),
    Goal("handshakes-16", 1, NODE_CONTEXT_PER_CONNECT),
    Goal("handshakes-16-default-groups", 1.1),
    Goal("handshakes-1-cpu", 1.1),
    Goal("handshakes-16-cpu", 1.1),
    Goal("resumptions-1", 1.1),
    Goal("resumptions-1", 1.3, NODE),
    Goal("resumptions-16", 1.1),
    Goal("resumptions-16", 1.3, NODE),
    Goal("memory", 30, OURS),
    Goal("memory", 1, NODE),
    Goal("memory-default-groups", 36.5, OURS),
    Goal("first-byte", 50, difference=True),
)
