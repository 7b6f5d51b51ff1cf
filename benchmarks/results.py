"""Results: the figures of a run, as data that can be kept and compared."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from .contenders import OURS
from .negotiation import Negotiated
from .scenarios import Measurement, Scenario


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

    def ratio(self, contender: str) -> float | None:
        """Return how many times a contender's figure ours is: the median of the rounds' own ratios.

        None where no round has both, and for ourselves.
        """
        if contender == OURS:
            return None
        pairs = zip(self.rounds.get(OURS, ()), self.rounds.get(contender, ()), strict=False)
        ratios = [ours / theirs for ours, theirs in pairs if ours is not None and theirs]
        return statistics.median(ratios) if ratios else None


@dataclasses.dataclass
class Results:
    """What one run came to.

    Attributes:
        settings: How it was measured.
        machine: Where and when.
        versions: What is in each contender, by name.
        negotiated: What each contender agrees on, in words.
        figures: The metrics, by name.
        failures: What went wrong, in the contenders' own words.
    """

    settings: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    negotiated: dict[str, str] = dataclasses.field(default_factory=dict)
    figures: dict[str, Figures] = dataclasses.field(default_factory=dict)
    failures: list[str] = dataclasses.field(default_factory=list)

    def add_contender(self, name: str, versions: dict[str, str], negotiated: Negotiated | None) -> None:
        """Note what is in a contender and what it agrees on; None is for one without TLS."""
        self.versions[name] = versions
        self.negotiated[name] = "no TLS" if negotiated is None else str(negotiated)

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
