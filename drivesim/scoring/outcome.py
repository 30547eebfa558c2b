"""One episode's measures: every metric is a name, a unit and a pure function of the episode."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from drivesim.datatypes import EndReason, Episode, Measure, Outcome
from drivesim.scoring.comfort import comfort
from drivesim.scoring.infractions import COLLISIONS, Verdict, judge
from drivesim.scoring.leaderboard import driving_score, penalty

_last: tuple[weakref.ref[Episode], Verdict] | None = None


def verdict_of(episode: Episode) -> Verdict:
    """`judge` with the default criteria, remembered for the last episode: all metrics ask for it."""
    global _last
    if _last is not None and _last[0]() is episode:
        return _last[1]
    verdict = judge(episode)
    _last = (weakref.ref(episode), verdict)
    return verdict


@dataclass(frozen=True)
class EpisodeMetric:
    """A metric made of a function; None means that the episode does not say (see `drivesim.interfaces.Metric`)."""

    name: str
    unit: str
    function: Callable[[Episode], float | None]

    def measure(self, episode: Episode) -> Measure:
        """The measure; not valid where the episode does not say."""
        value = self.function(episode)
        return Measure(self.name, 0.0 if value is None else float(value), self.unit, valid=value is not None)


def _score(version: str) -> Callable[[Episode], float]:
    def score_of(episode: Episode) -> float:
        verdict = verdict_of(episode)
        return driving_score(verdict.route_completion_percent, verdict.counts, version)

    return score_of


def _success(episode: Episode) -> float:
    return float(episode.end is EndReason.COMPLETED and verdict_of(episode).clean)


def _count(*kinds: str) -> Callable[[Episode], float]:
    return lambda episode: sum(verdict_of(episode).counts.counts.get(kind, 0.0) for kind in kinds)


def _collisions_per_km(episode: Episode) -> float:
    verdict = verdict_of(episode)
    count = sum(verdict.counts.counts.get(kind, 0.0) for kind in COLLISIONS)
    return count / max(_route_km(episode) * verdict.route_completion_percent / 100.0, 0.001)


def _route_km(episode: Episode) -> float:
    steps = np.diff(episode.route_points, axis=0)
    return float(np.hypot(steps[:, 0], steps[:, 1]).sum()) / 1000.0 if len(steps) else 0.0


def _mean_speed(episode: Episode) -> float | None:
    return float(np.abs(episode.ego[:, 4]).mean()) if len(episode.ego) else None


def _duration(episode: Episode) -> float | None:
    return float(episode.times_us[-1] - episode.times_us[0]) * 1e-6 if len(episode.times_us) else None


def _latency(percentile: float) -> Callable[[Episode], float | None]:
    def latency(episode: Episode) -> float | None:
        samples = episode.latencies_ms.get("plan_ms")
        return float(np.percentile(samples, percentile)) if samples is not None and len(samples) else None

    return latency


METRICS: tuple[EpisodeMetric, ...] = (
    EpisodeMetric("driving_score", "0-100", _score("2.1")),
    EpisodeMetric("driving_score_2_0", "0-100", _score("2.0")),
    EpisodeMetric("driving_score_1_0", "0-100", _score("1.0")),
    EpisodeMetric("route_completion", "%", lambda episode: verdict_of(episode).route_completion_percent),
    EpisodeMetric("penalty", "0-1", lambda episode: penalty(verdict_of(episode).counts, "2.1")),
    EpisodeMetric("success", "0-1", _success),
    EpisodeMetric("collisions", "1", _count(*COLLISIONS)),
    EpisodeMetric("collisions_walker", "1", _count("collision_walker")),
    EpisodeMetric("collisions_per_km", "1/km", _collisions_per_km),
    EpisodeMetric("red_lights", "1", _count("red_light")),
    EpisodeMetric("outside_lanes", "%", lambda episode: verdict_of(episode).counts.outside_lanes_percent),
    EpisodeMetric("mean_speed", "m/s", _mean_speed),
    EpisodeMetric("duration", "s", _duration),
    EpisodeMetric("comfort", "0-1", comfort),
    EpisodeMetric("plan_ms_p50", "ms", _latency(50.0)),
    EpisodeMetric("plan_ms_p95", "ms", _latency(95.0)),
)


def score(episode: Episode, metrics: tuple[EpisodeMetric, ...] = METRICS) -> Outcome:
    """All measures of one episode."""
    verdict = verdict_of(episode)
    infractions = {kind: count for kind, count in verdict.counts.counts.items() if count}
    if verdict.counts.outside_lanes_percent > 0.0:
        infractions["outside_lanes_percent"] = verdict.counts.outside_lanes_percent
    measures = tuple(metric.measure(episode) for metric in metrics)
    return Outcome(episode.scenario.id, episode.planner, episode.seed, episode.end.value, measures, infractions)
