"""Scores with their validity and spread: a mask, never NaN."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One number of one episode."""

    name: str
    value: float
    unit: str
    valid: bool = True


@dataclass(frozen=True)
class Outcome:
    """All measures of one episode."""

    scenario_id: str
    planner: str
    seed: int
    end: str
    measures: tuple[Measure, ...]
    infractions: dict[str, float]

    def value(self, name: str) -> float | None:
        """The measure's value, or None where it is absent or not valid."""
        for measure in self.measures:
            if measure.name == name and measure.valid:
                return measure.value
        return None


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval over n samples."""

    mean: float
    ci95: tuple[float, float]
    n: int


@dataclass(frozen=True)
class Scorecard:
    """Many outcomes of one suite: planner -> measure -> estimate."""

    suite: str
    planners: dict[str, dict[str, Estimate]]
    outcomes: tuple[Outcome, ...]
    missing: tuple[tuple[str, str, int], ...] = ()
