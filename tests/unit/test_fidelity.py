"""The fidelity study's parts: worsened planners, resumed towns, agreement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from drivesim.config import ConfigError
from drivesim.control.tracker import TrajectoryTracker
from drivesim.datatypes import Control, EgoState, Plan, Trajectory, default_rig
from drivesim.drive import Driver, run_episode
from drivesim.planning.expert import ExpertPlanner
from drivesim.recording import RecordConfig, open_logs, record
from drivesim.suite.expectation import Expectation, Trace, counts, expected_events, expected_score, first_hits
from drivesim.town.state import TownState
from drivesim.worlds.hazards import Hazard, evidence, log_odds
from drivesim.worlds.imagined_batch import LatentStart
from drivesim.worlds.logged_drive import encoded_before, latent_ticks, start_at
from drivesim.worlds.resumed_town import ResumedTown, TownStart
from eval.agreement import agreement, ceiling, mean_interval, planner_means, with_intervals
from eval.hazards import fitted, hit
from eval.scatter import Box, placed, scatter
from eval.worsened import Biased, Delayed, Noisy, Standing, along_path, contestants, continued

RECORDING = RecordConfig(
    towns=("Drivetown",), episodes=1, seconds=5.0, period_s=0.5, images=False, route_m=200.0, seed=5, vehicles=6,
    walkers=2,
)  # fmt: skip


def ego(x: float, y: float, yaw: float, speed: float, time_us: int = 0) -> EgoState:
    return EgoState(time_us, x, y, 0.0, 0.0, 0.0, yaw, speed, 0.0, 0.0)


def a_plan() -> Plan:
    t = 0.5 * np.arange(1.0, 7.0)
    speeds = 5.0 + 0.5 * t
    driven = 5.0 * t + 0.25 * t**2
    turn = 0.02 * driven
    poses = np.stack([np.sin(turn) / 0.02, (1.0 - np.cos(turn)) / 0.02, turn], axis=-1)
    return Plan(Trajectory(t, poses, speeds), np.zeros((6, 2)))


def test_no_bias_and_no_delay_change_nothing() -> None:
    plan, now = a_plan(), ego(3.0, 4.0, 0.7, 5.0)
    for same in (along_path(plan, now, 0.0), continued(plan, now, now)):
        np.testing.assert_allclose(same.trajectory.poses, plan.trajectory.poses, atol=0.05)
        np.testing.assert_allclose(same.trajectory.speeds_mps, plan.trajectory.speeds_mps, atol=1e-9)


def test_a_bias_moves_along_the_same_path() -> None:
    plan, now = a_plan(), ego(0.0, 0.0, 0.0, 5.0)
    fast, slow = along_path(plan, now, 1.0).trajectory, along_path(plan, now, -20.0).trajectory
    assert fast.poses[-1, 0] > plan.trajectory.poses[-1, 0] + 2.0
    assert np.all(slow.speeds_mps >= 0.0) and slow.poses[-1, 0] == slow.poses[-2, 0], "it stands, it does not reverse"
    shared = fast.poses[fast.poses[:, 0] < plan.trajectory.poses[-1, 0]]
    on_path = np.interp(shared[:, 0], plan.trajectory.poses[:, 0], plan.trajectory.poses[:, 1])
    np.testing.assert_allclose(shared[:, 1], on_path, atol=0.05)


def test_a_delayed_plan_is_the_old_one_seen_from_here() -> None:
    plan, then = a_plan(), ego(10.0, -2.0, 0.3, 5.0)
    x, y, yaw = plan.trajectory.poses[1]
    c, s = np.cos(0.3), np.sin(0.3)
    now = ego(10.0 + c * x - s * y, -2.0 + s * x + c * y, 0.3 + yaw, 5.5, 1_000_000)
    later = continued(plan, then, now).trajectory
    np.testing.assert_allclose(later.speeds_mps[:4], plan.trajectory.speeds_mps[2:], atol=1e-9)
    assert np.hypot(*later.poses[0, :2]) == pytest.approx(np.hypot(*(plan.trajectory.poses[2] - [x, y, yaw])[:2]))
    assert np.all(np.diff(later.poses[:, 0]) > 1.0), "straight on beyond the plan's end"


def test_every_contestant_has_a_name_of_its_own() -> None:
    makers = contestants(None)
    assert len(makers) >= 12
    blind_to_weights = ("expert", "expert-fast", "expert-timid", "expert-blind", "expert-delayed", "expert-noisy",
                        "constant-velocity", "constant-velocity-fast", "standing")  # fmt: skip
    for name in blind_to_weights:
        assert makers[name]().name == name
    assert not hasattr(Delayed(ExpertPlanner(), "d", 1.0), "model"), "who has no eyes is given none"


def test_agreement_is_one_on_a_line_and_none_for_nobody() -> None:
    rng = np.random.default_rng(0)
    truth = np.linspace(10.0, 90.0, 8)[:, None] + rng.normal(0.0, 20.0, (8, 30))
    exact = with_intervals(truth, 0.5 * truth + 7.0, np.ones_like(truth))
    assert exact["r2"] == pytest.approx(1.0) and exact["rank_correlation"] == pytest.approx(1.0)
    turned = agreement(*planner_means(truth, -truth, np.ones_like(truth)))
    assert turned["rank_correlation"] == pytest.approx(-1.0)
    nobody = with_intervals(truth, truth, np.zeros_like(truth))
    assert nobody["r2"] is None and nobody["r2_ci95"] is None
    noise = with_intervals(truth, rng.permutation(truth), np.ones_like(truth))
    assert noise["r2_ci95"][0] <= noise["r2"] <= noise["r2_ci95"][1]


def test_a_ceiling_is_one_where_planners_differ_and_low_where_they_do_not() -> None:
    rng = np.random.default_rng(1)
    apart = np.linspace(0.0, 100.0, 12)[:, None] + rng.normal(0.0, 1.0, (12, 40))
    found, noise = ceiling(apart), ceiling(rng.normal(0.0, 10.0, (12, 40)))
    assert found["r2"] is not None and noise["r2"] is not None
    assert found["r2"] > 0.99 and noise["r2"] < 0.6
    assert ceiling(np.ones((5, 8))) == {"r2": None, "rank_correlation": None}
    low, high = mean_interval(apart[3])
    assert low < apart[3].mean() < high


def test_hazards_are_found_again() -> None:
    rng = np.random.default_rng(2)
    risk, seen = rng.uniform(0.001, 0.999, 20_000), rng.uniform(0.0, 1.5, (20_000, 2))
    true = Hazard(-2.0, 0.6, 0.9, 0.4)
    happened = rng.uniform(size=len(risk)) < true.of(risk, seen)
    found = fitted(np.column_stack([log_odds(risk), seen]), happened)
    for name in ("bias", "slope", "closing", "close"):
        assert getattr(found, name) == pytest.approx(getattr(true, name), abs=0.12), name
    never = fitted(log_odds(risk)[:, None], np.zeros(len(risk), dtype=bool))
    assert never.of(risk).max() < 0.05 and never.slope >= 0.0


def test_the_lead_is_evidence_as_far_as_it_is_seen_and_closes() -> None:
    names = ("lead_gap", "lead_speed", "lead_present")
    readings = np.array([[5.0, 0.0, 9.0], [5.0, 8.0, 9.0], [5.0, 0.0, -9.0], [40.0, 0.0, 9.0]])
    closing, close = evidence(readings, names, np.full(4, 8.0)).T
    assert closing[0] == pytest.approx(1.6, abs=0.01) and closing[1] == 0.0 and closing[2] < 0.01
    assert close[0] == close[1] > close[3] > close[2]
    assert not evidence(np.zeros((3, 1)), ("walker_ahead",), np.ones(3)).any()


def test_what_is_expected_adds_up() -> None:
    hazards = np.random.default_rng(3).uniform(0.0, 0.4, 9)
    hits, survived = first_hits(hazards)
    assert hits.sum() + survived == pytest.approx(1.0)
    table = counts(hazards)
    np.testing.assert_allclose(table.sum(axis=1), 1.0)
    assert table[-1] @ np.arange(table.shape[1]) <= hazards.sum() and table[-1, 0] == pytest.approx(survived)
    trace = Trace(np.array([0.0, 50.0, 100.0]), np.full((2, 3), 0.2), np.full(2, 5.0), np.zeros((2, 0)), 0.0)
    calm = replace(trace, risks=np.full((2, 3), 1e-3))
    assert expected_score(trace, ()) < expected_score(calm, ()) < expected_score(calm, (), Expectation(luck=False))
    assert expected_score(trace, (), Expectation(luck=False)) == 100.0
    standing = replace(trace, speeds_mps=np.zeros(2))
    assert expected_events(standing, ()) == (0.0, 0.0)


def a_result() -> dict[str, Any]:
    agreed = {"r2": 0.8, "r2_ci95": [0.5, 0.9], "rank_correlation": 0.7, "rank_correlation_ci95": [0.4, 0.9],
              "planners": 2}  # fmt: skip
    row = {"true": 40.0, "imagined": 50.0, "true_ci95": [30.0, 45.0], "imagined_ci95": [40.0, 60.0], "told": False}
    nobody = dict.fromkeys(("r2", "r2_ci95", "rank_correlation", "rank_correlation_ci95"))
    return {
        "headline": {"imagined": agreed, "control": nobody}, "with_told": {"imagined": agreed},
        "headline_moving": {"imagined": nobody},
        "speed": {"times_faster_than_rendered": 300.0, "times_faster_than_rendered_through_carla": 900.0},
        "starts": 4, "seconds": 6.0, "towns": ["Town02"],
        "planners": {"a<b": row, "told": row | {"told": True, "true": 41.0}, "near": row | {"imagined": 50.5}},
    }  # fmt: skip


def test_the_figure_is_svg_and_no_name_hides_another() -> None:
    root = ElementTree.fromstring(scatter(a_result()))
    assert len([node for node in root.iter() if node.tag.endswith("circle")]) >= 3
    points = [(f"planner-{k}", 300.0 + 9.0 * (k % 3), 300.0 + 7.0 * (k // 3)) for k in range(9)]
    boxes = [place[3] for place in placed(points, Box(0.0, 0.0, 700.0, 700.0))]
    assert max(a.overlap(b) for i, a in enumerate(boxes) for b in boxes[:i]) < 20.0


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> tuple[LatentStart, TownStart]:
    out = tmp_path_factory.mktemp("logs")
    record(RECORDING, out)
    log = open_logs(out)[0]
    drive = encoded_before(log, np.zeros((len(latent_ticks(log.times_us)), 2, 2), np.float32))
    found = start_at(drive, 4, 2.0, 15.0)
    tick = int(drive.ticks[4])
    town = TownStart(found.scenario, lambda: log.state(tick, TownState), int(log.attrs["ego_row"]), found.route,
                     found.s_m, int(log.attrs["appearance_seed"]))  # fmt: skip
    return found, town


def test_a_resumed_town_is_where_the_log_was_and_goes_on(start: tuple[LatentStart, TownStart]) -> None:
    logged, town = start
    world = ResumedTown({logged.scenario.id: town})
    first = world.reset(logged.scenario, 0)
    was = logged.frame
    assert (first.ego.x_m, first.ego.y_m) == pytest.approx((was.ego.x_m, was.ego.y_m), abs=1e-6)
    assert first.ego.speed_mps == pytest.approx(was.ego.speed_mps, abs=1e-6)
    assert set(was.actors.ids.tolist()) <= set(first.actors.ids.tolist())
    assert first.route.remaining_m == pytest.approx(15.0, abs=0.1)
    frames = [world.step(Control(0.0, 0.3, 0.0)) for _ in range(10)]
    world.reset(logged.scenario, 1)
    again = [world.step(Control(0.0, 0.3, 0.0)) for _ in range(10)]
    assert [f.ego for f in frames] == [f.ego for f in again], "the state says it all, the seed nothing"
    with pytest.raises(ConfigError, match="no start"):
        world.reset(logged.scenario.__class__(**{**logged.scenario.__dict__, "id": "elsewhere"}), 0)


def test_worsened_planners_drive_there(start: tuple[LatentStart, TownStart]) -> None:
    logged, town = start
    world, rng = ResumedTown({logged.scenario.id: town}), default_rig()
    planners = [Biased(ExpertPlanner(), "fast", 1.0), Noisy(ExpertPlanner(), "noisy", 2.0),
                Delayed(ExpertPlanner(), "late", 1.0), Standing()]  # fmt: skip
    driven = {}
    for planner in planners:
        episode = run_episode(world, Driver(planner, TrajectoryTracker(), rng), logged.scenario, 0)
        assert not episode.error, episode.error
        assert episode.route_points.shape == logged.route.points_m.shape
        driven[planner.name] = float(episode.progress_m[-1] - episode.progress_m[0])
    assert driven["standing"] < driven["fast"]


def test_who_drives_on_into_the_lead_has_met_it(start: tuple[LatentStart, TownStart]) -> None:
    logged, _ = start
    others = logged.frame.actors
    ego = logged.frame.ego
    dx, dy = others.pose[:, 0] - ego.x_m, others.pose[:, 1] - ego.y_m
    ahead = dx * np.cos(ego.yaw_rad) + dy * np.sin(ego.yaw_rad)
    row = int(np.argmin(np.where(ahead > 0.0, np.hypot(dx, dy), np.inf)))
    into = np.zeros((2, 8))
    into[:, :4] = [ego.x_m, ego.y_m, ego.z_m, ego.yaw_rad]
    into[1, :2] = logged.logged[2].actors.pose[list(logged.logged[2].actors.ids).index(others.ids[row]), :2]
    assert 0.0 < ahead[row] < 60.0 and hit(logged, into).tolist() == [False, True]
    assert len(logged.logged) == 5 and logged.logged[0] is logged.frame


def test_a_log_without_half_second_ticks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 Hz"):
        latent_ticks(np.array([0, 2_000_000, 4_000_000], np.int64))
