"""The cost study: what is timed, what is counted, and LeWM's planner where its packages are installed."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest

from drivesim.build import make_planner
from drivesim.datatypes import Scenario, Waypoint, default_rig
from eval import lewm
from eval.cost import GOAL_TIMES, WARM_UP, Spent, ahead, drive, measure, verdict
from eval.cost_figure import LogAxis, figure

STREET = Scenario("cost-v1", "Drivetown", "speed", (Waypoint(0, 0), Waypoint(100, 0)), 30.0, traffic_vehicles=4)


def a_row(ms: float, candidates: float = 40.0, steps: int = 6, drives_s: float = 0.25) -> dict[str, Any]:
    spent = Spent(steps, drives_s, [ms, ms, 1.5 * ms], [ms, ms, ms], [candidates] * 3)
    return spent.told()


def test_what_a_plan_takes_is_told_by_plan_by_step_and_by_second() -> None:
    told = a_row(60.0)
    assert told["wall_ms"]["p50"] == 60.0 and told["cpu_ms"]["p95"] == 60.0 and told["plans"] == 3
    assert told["cpu_ms"]["per_candidate_step"] == pytest.approx(60.0 / 240.0)
    assert told["cpu_ms"]["per_second_driven"] == pytest.approx(240.0)
    assert a_row(10.0, candidates=0.0)["wall_ms"]["per_candidate_step"] is None, "a policy imagines nothing"


def test_the_goals_compare_seconds_of_the_same_run() -> None:
    rows = {"latent": a_row(60.0), "lewm-cem-30": a_row(30_000.0, 9000.0, 5, 2.5), "lewm-small": a_row(300.0)}
    told = verdict(rows)
    assert told["plan_ms_p95"]["met"] and told["plan_ms_p95"]["value"] == pytest.approx(87.0)
    assert set(told["times_fewer_seconds"]) == {"lewm-cem-30", "lewm-small"}
    long, short = told["times_fewer_seconds"]["lewm-cem-30"], told["times_fewer_seconds"]["lewm-small"]
    assert long["wall_per_plan"] == pytest.approx(500.0) and long["cpu_per_second_driven"] == pytest.approx(50.0)
    assert long["met"] and not short["met"] and GOAL_TIMES == 10.0
    assert long["wall_least"] < long["wall_per_plan"], "their quickest against our slow tail"


def test_every_planner_has_its_row_in_the_figure() -> None:
    rows = {"latent": a_row(60.0), "lewm-cem-30": a_row(30_000.0, 9000.0, 5, 2.5)}
    machine = {"processor": "A & B", "threads": 2, "torch": "2"}
    result = {"planners": rows, "goals": verdict(rows), "machine": machine, "cameras": 6}
    drawn = ET.fromstring(figure(result))
    texts = ["".join(node.itertext()) for node in drawn.iter() if node.tag.endswith("text")]
    assert texts.count("latent") == 1 and texts.count("lewm-cem-30") == 1 and any("9000 candidates" in t for t in texts)
    axis = LogAxis([60.0, 30_000.0])
    assert axis.x(60.0) < axis.x(600.0) < axis.x(30_000.0)
    assert ET.fromstring(figure(result | {"goals": None})) is not None


def test_our_planners_take_turns_on_pictures_of_one_drive() -> None:
    seen = drive(STREET, default_rig(), WARM_UP + 2, 0)
    assert [o.time_us for o in seen] == [250_000 * k for k in range(WARM_UP + 2)]
    assert seen[0].images is not None and len(seen[0].images) == 6 and ahead(seen[0]).shape == seen[0].images[0].shape
    planners = {name: make_planner(name) for name in ("latent", "latent-policy")}
    for planner in planners.values():
        planner.reset(STREET, default_rig(), 0)
    asked: list[float] = []

    def nobody(candidates: float) -> dict[str, lewm.LeWMPlanner]:
        asked.append(candidates)
        return {}

    rows = measure(planners, nobody, seen, 1, 0, lambda _: None)
    assert rows["latent"]["plans"] == 2 and 10.0 < rows["latent"]["candidates"] <= 35.0
    assert rows["latent"]["candidates"] == pytest.approx(asked[0], abs=5.0), "asked for while warming up"
    assert rows["latent-policy"]["candidates"] == 0.0 and rows["latent"]["cpu_ms"]["p50"] > 0.0


@pytest.mark.skipif(bool(lewm.missing()), reason=f"LeWM's planner is not installed: {lewm.INSTALL}")
def test_lewms_planner_imagines_as_often_as_its_sizes_say() -> None:
    model = lewm.build_model()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(18.0e6, rel=0.01), "WORLD-MODEL.md, 1.1"
    planner = lewm.LeWMPlanner(model, lewm.Sizes(samples=6, iterations=2))
    image = np.random.default_rng(0).integers(0, 255, (144, 256, 3), dtype=np.uint8)
    actions = planner.plan(image, image[::-1])
    assert actions.shape == (25, 2) and np.isfinite(actions).all() and planner.imagined == 12
    assert planner.futures(image, image) == 12.0, "counted anew for every plan"


@pytest.mark.skipif(not lewm.missing(), reason="LeWM's planner is installed")
def test_without_lewms_packages_the_message_says_what_to_install() -> None:
    with pytest.raises(ValueError, match="pip install --no-deps stable-worldmodel"):
        lewm.build_model()
