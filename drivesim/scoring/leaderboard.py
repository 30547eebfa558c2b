"""CARLA Leaderboard driving score: route completion (percent) times a penalty in [0, 1].

Counts come by the names of the infraction table; `outside_lanes` is the percentage of the driven
route outside the route's lanes, `min_speed` lists the ego's speeds in percent of the surrounding
traffic's (an entry of 100 or more costs nothing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# event -> factor per occurrence of Leaderboard 1.0 and 2.0
FACTORS: Mapping[str, Mapping[str, float]] = {
    "1.0": {
        "collision_walker": 0.50, "collision_vehicle": 0.60, "collision_static": 0.65, "red_light": 0.70,
        "stop_sign": 0.80,
    },
    "2.0": {
        "collision_walker": 0.50, "collision_vehicle": 0.60, "collision_static": 0.65, "red_light": 0.70,
        "stop_sign": 0.80,
        "scenario_timeout": 0.70, "yield_emergency": 0.70,
    },
}  # fmt: skip

# event -> coefficient of Leaderboard 2.1: the penalty is 1 / (1 + sum of coefficients times counts)
COEFFICIENTS_2_1: Mapping[str, float] = {
    "collision_walker": 1.0, "collision_vehicle": 0.70, "collision_static": 0.60, "red_light": 0.40, "stop_sign": 0.25,
    "scenario_timeout": 0.40, "yield_emergency": 0.40,
}  # fmt: skip
MIN_SPEED_FACTOR_2_0 = 0.3
MIN_SPEED_COEFFICIENT_2_1 = 0.40
VERSIONS = ("1.0", "2.0", "2.1")


@dataclass(frozen=True)
class InfractionCounts:
    """What a route cost.

    Attributes:
        counts: infraction -> number of occurrences (names of the tables above; others cost nothing).
        outside_lanes_percent: of the driven route.
        min_speed_percent: one entry per checkpoint; empty where the traffic's speed is not known.
    """

    counts: Mapping[str, float] = field(default_factory=dict)
    outside_lanes_percent: float = 0.0
    min_speed_percent: tuple[float, ...] = ()


def penalty(infractions: InfractionCounts, version: str = "2.1") -> float:
    """The infraction penalty in [0, 1].

    Raises:
        ValueError: an unknown version.
    """
    if version not in VERSIONS:
        raise ValueError(f"unknown leaderboard version {version!r}: known: {', '.join(VERSIONS)}")
    inside = min(max(1.0 - infractions.outside_lanes_percent / 100.0, 0.0), 1.0)
    slow = [1.0 - percent / 100.0 for percent in infractions.min_speed_percent if percent < 100.0]
    if version == "2.1":
        cost = sum(COEFFICIENTS_2_1.get(kind, 0.0) * count for kind, count in infractions.counts.items())
        cost += MIN_SPEED_COEFFICIENT_2_1 * sum(slow)
        return inside / (1.0 + cost)
    factor = inside
    for kind, count in infractions.counts.items():
        factor *= FACTORS[version].get(kind, 1.0) ** count
    if version == "2.0":
        for part in slow:
            factor *= 1.0 - MIN_SPEED_FACTOR_2_0 * part
    return factor


def driving_score(route_completion_percent: float, infractions: InfractionCounts, version: str = "2.1") -> float:
    """Route completion (0 to 100) times the penalty, never negative."""
    return max(route_completion_percent * penalty(infractions, version), 0.0)
