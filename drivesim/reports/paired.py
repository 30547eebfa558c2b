"""Two planners on the same scenarios: the difference is far less noisy than the two scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivesim.datatypes import Outcome

RESAMPLES = 4000


@dataclass(frozen=True)
class PairedDifference:
    """Mean of `first - second` over scenarios, with its 95 % bootstrap interval and who won how often."""

    first: str
    second: str
    mean: float
    ci95: tuple[float, float]
    scenarios: int
    wins: int
    ties: int


def by_scenario(outcomes: tuple[Outcome, ...], planner: str, measure: str) -> dict[str, float]:
    """Scenario id -> mean over the seeds; seeds of one scenario are no independent samples."""
    values: dict[str, list[float]] = {}
    for outcome in outcomes:
        value = outcome.value(measure)
        if outcome.planner == planner and value is not None:
            values.setdefault(outcome.scenario_id, []).append(value)
    return {scenario: float(np.mean(samples)) for scenario, samples in values.items()}


def paired_difference(
    outcomes: tuple[Outcome, ...], first: str, second: str, measure: str, rng: np.random.Generator
) -> PairedDifference | None:
    """Compare two planners on the scenarios that both drove; None where there is none."""
    a, b = by_scenario(outcomes, first, measure), by_scenario(outcomes, second, measure)
    common = sorted(set(a) & set(b))
    if not common:
        return None
    gaps = np.array([a[scenario] - b[scenario] for scenario in common])
    means = gaps[rng.integers(0, len(gaps), (RESAMPLES, len(gaps)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    wins, ties = int(np.sum(gaps > 1e-9)), int(np.sum(np.abs(gaps) <= 1e-9))
    return PairedDifference(first, second, float(gaps.mean()), (float(low), float(high)), len(gaps), wins, ties)


def all_pairs(outcomes: tuple[Outcome, ...], planners: list[str], measure: str, seed: int = 0) -> list[PairedDifference]:
    """Every pair of planners, in the order given."""
    rng = np.random.default_rng(seed)
    pairs = [(a, b) for i, a in enumerate(planners) for b in planners[i + 1 :]]
    found = (paired_difference(outcomes, a, b, measure, rng) for a, b in pairs)
    return [pair for pair in found if pair is not None]
