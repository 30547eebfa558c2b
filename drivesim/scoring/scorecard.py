"""Many outcomes of a suite to one scorecard, and the scorecard to JSON and back.

Episodes that were planned but are missing count as 0 in the headline (as in the Leaderboard); the other
bound, missing as the best possible, is stated beside it. Duplicates are an error: they would count twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from drivesim.config import from_dict
from drivesim.datatypes import Estimate, Outcome, Scorecard
from drivesim.scoring.statistics import bootstrap_mean, paired_difference, wilson

Key = tuple[str, str, int]  # scenario id, planner, seed

BEST = {
    "driving_score": 100.0,
    "driving_score_2_0": 100.0,
    "driving_score_1_0": 100.0,
    "route_completion": 100.0,
    "success": 1.0,
}
RATES = {"success": "success_rate"}
UPPER = "_if_missing_were_best"


def scorecard(suite: str, outcomes: Iterable[Outcome], planned: Sequence[Key], seed: int = 0) -> Scorecard:
    """Estimates per planner and measure; `planned` are the keys (scenario id, planner, seed) of the whole suite.

    Raises:
        ValueError: two outcomes of one key.
    """
    table: dict[Key, Outcome] = {}
    for outcome in outcomes:
        key = (outcome.scenario_id, outcome.planner, outcome.seed)
        if key in table:
            raise ValueError(f"two outcomes of scenario {key[0]!r}, planner {key[1]!r}, seed {key[2]}")
        table[key] = outcome
    missing = tuple(key for key in dict.fromkeys(planned) if key not in table)
    names = dict.fromkeys([planner for _, planner, _ in planned] + [o.planner for o in table.values()])
    planners = {
        name: _estimates(
            [o for o in table.values() if o.planner == name], [key for key in missing if key[1] == name], seed
        )
        for name in names
    }
    return Scorecard(suite, planners, tuple(table.values()), missing)


def _estimates(outcomes: list[Outcome], missing: list[Key], seed: int) -> dict[str, Estimate]:
    names = dict.fromkeys(measure.name for outcome in outcomes for measure in outcome.measures)
    result: dict[str, Estimate] = {}
    for name in [*names, *(best for best in BEST if missing and best not in names)]:
        pairs = [(o.scenario_id, o.value(name)) for o in outcomes]
        known = [(scenario, value) for scenario, value in pairs if value is not None]
        if name in BEST and missing:
            absent = [scenario for scenario, _, _ in missing]
            best = known + [(scenario, BEST[name]) for scenario in absent]
            result[RATES.get(name, name) + UPPER] = _estimate(name, best, seed)
            known += [(scenario, 0.0) for scenario in absent]
        if known:
            result[RATES.get(name, name)] = _estimate(name, known, seed)
    return result


def _estimate(name: str, known: list[tuple[str, float]], seed: int) -> Estimate:
    if name in RATES:
        return wilson(round(sum(value for _, value in known)), len(known))
    return bootstrap_mean(
        [value for _, value in known], [scenario for scenario, _ in known], np.random.default_rng(seed)
    )


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    return {"mean": estimate.mean, "ci95": list(estimate.ci95), "n": estimate.n}


def differences(card: Scorecard, measure: str = "driving_score", seed: int = 0) -> dict[str, Estimate]:
    """`"a - b"` -> paired difference, for every two planners, the better one first."""
    result: dict[str, Estimate] = {}
    for a, b in combinations(card.planners, 2):
        estimate = paired_difference(card.outcomes, a, b, measure, np.random.default_rng(seed))
        if estimate is not None and estimate.mean < 0.0:
            estimate = Estimate(-estimate.mean, (-estimate.ci95[1], -estimate.ci95[0]), estimate.n)
            a, b = b, a
        if estimate is not None:
            result[f"{a} - {b}"] = estimate
    return result


def scorecard_json(card: Scorecard) -> dict[str, Any]:
    """Plain data for scorecard.json: `{"planners": {"latent": {"driving_score": {"mean", "ci95", "n"}, ...}}, ...}`."""
    return {
        "suite": card.suite,
        "headline": "driving_score (CARLA Leaderboard 2.1)",
        "planners": {
            planner: {name: _estimate_json(estimate) for name, estimate in measures.items()}
            for planner, measures in card.planners.items()
        },
        "differences": {
            "driving_score": {pair: _estimate_json(estimate) for pair, estimate in differences(card).items()}
        },
        "missing": [{"scenario": s, "planner": p, "seed": seed} for s, p, seed in card.missing],
        "outcomes": [
            {
                "scenario": o.scenario_id, "planner": o.planner, "seed": o.seed, "end": o.end,
                "measures": {m.name: {"value": m.value, "unit": m.unit, "valid": m.valid} for m in o.measures},
                "infractions": dict(o.infractions),
            }
            for o in card.outcomes
        ],
    }  # fmt: skip


def scorecard_from_json(data: dict[str, Any]) -> Scorecard:
    """Inverse of `scorecard_json`.

    Raises:
        KeyError: not such a file.
    """
    planners = {
        planner: {name: Estimate(e["mean"], (e["ci95"][0], e["ci95"][1]), e["n"]) for name, e in measures.items()}
        for planner, measures in data["planners"].items()
    }
    outcomes = tuple(
        from_dict(
            Outcome,
            {
                "scenario_id": o["scenario"], "planner": o["planner"], "seed": o["seed"], "end": o["end"],
                "measures": [{"name": name, **m} for name, m in o["measures"].items()], "infractions": o["infractions"],
            },
        )
        for o in data["outcomes"]
    )  # fmt: skip
    missing = tuple((m["scenario"], m["planner"], m["seed"]) for m in data["missing"])
    return Scorecard(data["suite"], planners, outcomes, missing)
