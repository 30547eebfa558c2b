"""The report of a suite: planners side by side, and a part per scenario, in one file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from drivesim.datatypes import Episode, Outcome, Scenario, Scorecard
from drivesim.reports.episode_page import episode_data, path_data, pictured
from drivesim.reports.maps import around, map_data
from drivesim.reports.page import page
from drivesim.scoring.outcome import verdict_of
from drivesim.scoring.statistics import paired_difference
from drivesim.town.roads import RoadNetwork

SCRIPTS = ("base.js", "charts.js", "map.js", "cards.js", "suite.js", "episode.js", "start_suite.js")
PICTURES_BYTES = 15_000_000
MAP_MARGIN_M = 60.0
Roads = Callable[[str], "RoadNetwork | None"]


@dataclass(frozen=True)
class About:
    """Where a report comes from."""

    suite: str
    date: str
    commit: str
    machine: str = ""
    command: str = ""


def _estimates(card: Scorecard) -> dict[str, Any]:
    return {
        planner: {
            name: {"mean": round(e.mean, 4), "ci95": [round(v, 4) for v in e.ci95], "n": e.n}
            for name, e in measures.items()
        }
        for planner, measures in card.planners.items()
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "scenario": outcome.scenario_id, "planner": outcome.planner, "seed": outcome.seed, "end": outcome.end,
        "measures": {m.name: round(m.value, 4) for m in outcome.measures if m.valid},
        "infractions": {kind: round(value, 3) for kind, value in outcome.infractions.items() if value},
    }  # fmt: skip


def _latencies(episodes: Iterable[Episode]) -> dict[str, dict[str, list[float]]]:
    """planner -> name -> [p50, p95, most, n] over all its plans."""
    samples: dict[str, dict[str, list[Any]]] = {}
    for episode in episodes:
        for name, values in episode.latencies_ms.items():
            samples.setdefault(episode.planner, {}).setdefault(name, []).append(values)
    return {
        planner: {
            name: [round(float(v), 2) for v in (*np.percentile(joined, [50, 95]), joined.max())] + [len(joined)]
            for name, parts in names.items()
            if len(joined := np.concatenate(parts))
        }
        for planner, names in samples.items()
    }


def _pairs(card: Scorecard, measure: str = "driving_score") -> list[dict[str, Any]]:
    """Every two planners on what both drove: the difference is far less noisy than the two scores."""
    pairs = []
    for first, second in combinations(card.planners, 2):
        gap = paired_difference(card.outcomes, first, second, measure, np.random.default_rng(0))
        if gap is None:
            continue
        means = [_means(card.outcomes, planner, measure) for planner in (first, second)]
        shared = set(means[0]) & set(means[1])
        pairs.append({
            "first": first, "second": second, "mean": gap.mean, "ci95": list(gap.ci95), "scenarios": len(shared),
            "wins": sum(means[0][scenario] > means[1][scenario] + 1e-9 for scenario in shared),
        })  # fmt: skip
    return pairs


def _means(outcomes: Sequence[Outcome], planner: str, measure: str) -> dict[str, float]:
    """Scenario id -> mean over the seeds."""
    values: dict[str, list[float]] = {}
    for outcome in outcomes:
        value = outcome.value(measure)
        if outcome.planner == planner and value is not None:
            values.setdefault(outcome.scenario_id, []).append(value)
    return {scenario: float(np.mean(samples)) for scenario, samples in values.items()}


def _driven_km(episodes: Iterable[Episode]) -> dict[str, float]:
    """planner -> kilometres over all its episodes."""
    total: dict[str, float] = {}
    for episode in episodes:
        total[episode.planner] = total.get(episode.planner, 0.0) + verdict_of(episode).driven_m / 1000.0
    return {planner: round(km, 4) for planner, km in total.items()}


def _scenario(scenario: Scenario) -> dict[str, Any]:
    return {
        "id": scenario.id, "town": scenario.town, "description": scenario.description,
        "weather": scenario.weather.preset, "tags": list(scenario.tags), "limit": scenario.time_limit_s,
        "traffic": [scenario.traffic_vehicles, scenario.traffic_walkers],
        "actors": [actor.behavior for actor in scenario.actors],
    }  # fmt: skip


def _map(episodes: list[Episode], roads: Roads) -> dict[str, Any] | None:
    """The map around everything that any planner did in this scenario."""
    network = roads(episodes[0].scenario.town)
    if network is None:
        return None
    points = np.concatenate([part for e in episodes for part in (e.ego[:, :2], e.route_points)])
    return map_data(network, around(points, MAP_MARGIN_M))


def _shown(episodes: list[Episode]) -> list[Episode]:
    """The first seed of every planner is shown in full; the others count in the scores."""
    first: dict[str, Episode] = {}
    for episode in sorted(episodes, key=lambda e: e.seed):
        first.setdefault(episode.planner, episode)
    return list(first.values())


def suite_report(card: Scorecard, episodes: Iterable[Episode], about: About, roads: Roads) -> str:
    """The whole report as HTML.

    Args:
        card: scores of all seeds; the order of its planners is the order of the page.
        episodes: in any order; the first seed of each scenario and planner is shown in full.
        about: provenance, for the header.
        roads: town name -> road network, or None where the map cannot be had.
    """
    planners = list(card.planners)
    driven = sorted(episodes, key=lambda e: (e.scenario.id, planners.index(e.planner) if e.planner in planners else 99))
    outcomes = {(o.scenario_id, o.planner, o.seed): o for o in card.outcomes}
    scenarios: dict[str, list[Episode]] = {}
    for episode in driven:
        scenarios.setdefault(episode.scenario.id, []).append(episode)
    shown = {scenario: _shown(group) for scenario, group in scenarios.items()}
    with_pictures = sum(bool(pictured(e)) for group in shown.values() for e in group)
    budget_bytes = PICTURES_BYTES // max(1, with_pictures)
    data: dict[str, Any] = {
        "summary": {
            "about": asdict(about), "planners": planners, "estimates": _estimates(card),
            "outcomes": [_outcome(o) for o in card.outcomes], "missing": [list(key) for key in card.missing],
            "pairs": _pairs(card), "km": _driven_km(driven),
            "latency": _latencies(driven),
            "scenarios": [
                {**_scenario(group[0].scenario), "planners": [e.planner for e in group]} for group in shown.values()
            ],
        }
    }  # fmt: skip
    for scenario, group in shown.items():
        data[f"map:{scenario}"] = _map(group, roads)
        data[f"paths:{scenario}"] = {e.planner: path_data(e) for e in group}
        for e in group:
            data[f"episode:{scenario}:{e.planner}"] = episode_data(e, outcomes.get(e.key), budget_bytes)
    return page(f"drivesim: {about.suite}", SCRIPTS, data)
