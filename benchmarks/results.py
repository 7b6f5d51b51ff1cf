"""Results: the figures of a run, as data that can be kept and compared."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from pathlib import Path
from typing import Any

from .contenders import OURS
from .negotiation import Negotiated
from .scenarios import Measurement, Scenario

_LIKELY = 0.9  # how sure an interval has to be, where there are rounds enough


@dataclasses.dataclass
class Figures:
    """One metric: its figures by contender, one for each round, None where the contender failed.

    Attributes:
        title: What was measured.
        unit: What it is counted in.
        more_is_better: Whether the larger figure wins.
        rounds: The figures.
    """

    title: str
    unit: str
    more_is_better: bool
    rounds: dict[str, list[float | None]] = dataclasses.field(default_factory=dict)

    def sorted(self, contender: str) -> list[float]:
        """Return a contender's figures, the smallest first."""
        return sorted(figure for figure in self.rounds.get(contender, ()) if figure is not None)

    def median(self, contender: str) -> float | None:
        """Return the median of a contender's figures, or None where there is none."""
        figures = self.sorted(contender)
        return statistics.median(figures) if figures else None

    def ratio(self, contender: str, subject: str = OURS) -> float | None:
        """Return how many times a contender's figure the subject's is: the median of the rounds' ratios.

        None where no round has both, and for the subject itself.
        """
        ratios = self._ratios(contender, subject)
        return statistics.median(ratios) if ratios else None

    def interval(self, contender: str, subject: str = OURS) -> tuple[float, float] | None:
        """Return between which of the rounds' ratios the true median lies, as likely as `confidence` says.

        None as for `ratio`, and for a single round.
        """
        ratios = self._ratios(contender, subject)
        if len(ratios) < 2:
            return None
        left_out = _left_out(len(ratios))
        return ratios[left_out], ratios[-1 - left_out]

    def difference(self, contender: str) -> float | None:
        """Return by how much our figure is above a contender's: the median of the rounds' differences."""
        differences = [ours - theirs for ours, theirs in self._pairs(contender, OURS)]
        return statistics.median(differences) if differences else None

    def _ratios(self, contender: str, subject: str) -> list[float]:
        return sorted(of_subject / other for of_subject, other in self._pairs(contender, subject) if other)

    def _pairs(self, contender: str, subject: str) -> list[tuple[float, float]]:
        if contender == subject:
            return []
        pairs = zip(self.rounds.get(subject, ()), self.rounds.get(contender, ()), strict=False)
        return [
            (of_subject, other) for of_subject, other in pairs if of_subject is not None and other is not None
        ]


def confidence(rounds: int) -> float:
    """Return how likely the true median is in an interval from so many rounds, whatever the distribution is.

    Each round is on either side of the true median with the same probability: the median is outside only if
    no more rounds than were left out are on one of its sides.
    """
    return _coverage(rounds, _left_out(rounds))


def _left_out(rounds: int) -> int:
    """Return how many of the extremes on each side an interval can do without and be likely enough."""
    left_out = 0
    while _coverage(rounds, left_out + 1) >= _LIKELY:
        left_out += 1
    return left_out


def _coverage(rounds: int, left_out: int) -> float:
    outside = sum(math.comb(rounds, number) for number in range(left_out + 1))
    return 1 - outside * 0.5 ** (rounds - 1)


@dataclasses.dataclass
class Results:
    """What one run came to.

    Attributes:
        settings: How it was measured.
        machine: Where and when.
        versions: What is in each contender, by name.
        negotiated: What each contender agrees on, in words, one for each of the terms.
        figures: The metrics, by name.
        failures: What went wrong, in the contenders' own words.
        subject: The contender whom the others are compared with.
    """

    settings: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    negotiated: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    figures: dict[str, Figures] = dataclasses.field(default_factory=dict)
    failures: list[str] = dataclasses.field(default_factory=list)
    subject: str = OURS

    def add_contender(self, name: str, versions: dict[str, str], negotiated: Negotiated | None) -> None:
        """Note what is in a contender and what it agrees on; None is for one without TLS."""
        self.versions[name] = versions
        self.negotiated.setdefault(name, []).append("no TLS" if negotiated is None else str(negotiated))

    def add(self, scenario: Scenario, contender: str, measurement: Measurement | None) -> None:
        """Add one round's measurement of a contender; None is for one that failed."""
        for metric in scenario.metrics:
            figures = self.figures.setdefault(
                metric.name, Figures(metric.title, metric.unit, metric.more_is_better)
            )
            figure = None if measurement is None else metric.value(measurement)
            figures.rounds.setdefault(contender, []).append(figure)

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read what `write` wrote."""
        fields = json.loads(path.read_text())
        fields["figures"] = {name: Figures(**figures) for name, figures in fields["figures"].items()}
        return cls(**fields)
