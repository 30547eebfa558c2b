"""Means with their spread: cluster bootstrap, Wilson intervals, paired differences."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import Estimate, Outcome

Array = NDArray[np.float64]

DRAWS = 4000
Z_95 = 1.959963984540054


def bootstrap_mean(
    values: Sequence[float], clusters: Sequence[Hashable], rng: np.random.Generator, draws: int = DRAWS
) -> Estimate:
    """The mean of values with a 95 % percentile interval; whole clusters (scenarios) are drawn, with all their seeds.

    Raises:
        ValueError: no values, or as many clusters as values are not given.
    """
    data = np.asarray(values, dtype=np.float64)
    if len(data) == 0 or len(clusters) != len(data):
        raise ValueError(f"{len(data)} values with {len(clusters)} clusters have no mean")
    names = {name: row for row, name in enumerate(dict.fromkeys(clusters))}
    row = np.array([names[name] for name in clusters])
    total = np.bincount(row, weights=data, minlength=len(names))
    count = np.bincount(row, minlength=len(names)).astype(np.float64)
    drawn = rng.integers(0, len(names), size=(draws, len(names)))
    means = total[drawn].sum(axis=1) / count[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(data.mean()), (float(low), float(high)), len(data))


def wilson(successes: int, n: int) -> Estimate:
    """A success rate with Wilson's 95 % interval.

    Raises:
        ValueError: n is 0, or there are more successes than trials.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no rate")
    p, z = successes / n, Z_95
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Estimate(p, (max(centre - half, 0.0), min(centre + half, 1.0)), n)


def paired_difference(
    outcomes: Sequence[Outcome], planner: str, against: str, measure: str, rng: np.random.Generator
) -> Estimate | None:
    """Mean of `planner` minus `against` over the scenarios and seeds that both drove; None where there are none."""

    def values(name: str) -> dict[tuple[str, int], float]:
        found = {(o.scenario_id, o.seed): o.value(measure) for o in outcomes if o.planner == name}
        return {key: value for key, value in found.items() if value is not None}

    ours, theirs = values(planner), values(against)
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        return None
    return bootstrap_mean([ours[key] - theirs[key] for key in shared], [scenario for scenario, _ in shared], rng)


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's statistic (with continuity correction) on discordant pairs; above 3.84 the two differ at 5 %."""
    discordant = only_a + only_b
    return 0.0 if discordant == 0 else max(abs(only_a - only_b) - 1, 0) ** 2 / discordant
