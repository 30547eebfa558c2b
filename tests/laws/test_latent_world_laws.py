"""Laws of the latent world: a batch is a loop, a seed is a drive, and what is not known is not scored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from drivesim.config import ConfigError
from drivesim.control.batch_tracker import BatchTracker
from drivesim.control.tracker import DEFAULT_TRACKER, TrajectoryTracker, control_for_action
from drivesim.datatypes import EgoState, EndReason, Episode, Plan, RouteAhead, Trajectory, default_rig
from drivesim.datatypes.motions import Motions
from drivesim.drive import Driver, run_episode
from drivesim.episodes import episode_digest
from drivesim.geometry import Polyline
from drivesim.geometry.curve_table import CurveTable
from drivesim.models import WorldModel, WorldModelConfig
from drivesim.models.imagination import Imagination
from drivesim.planning.batch_following import BatchKinematics, RouteFollower
from drivesim.planning.batch_planners import BatchConstantVelocity, BatchPolicy, BatchReadoutRule
from drivesim.planning.behavior_cloning import PolicyPlanner
from drivesim.planning.constant_velocity import ConstantVelocityPlanner
from drivesim.planning.expert import ExpertPlanner
from drivesim.planning.kinematics import imagined_kinematics, kinematics
from drivesim.planning.proposals import drive_route
from drivesim.recording import RecordConfig, open_logs, record
from drivesim.scoring.outcome import score
from drivesim.suite.expectation import Expectation, expected_score, traces
from drivesim.suite.imagined import ImaginedConfig, evaluate_imagined
from drivesim.suite.imagining import Everybody, Imagined, OneByOne, drive_batch
from drivesim.suite.trust import TrustGauge, TrustLimits
from drivesim.worlds.hazards import Hazard, Hazards
from drivesim.worlds.imagined_batch import ImaginationConfig, ImaginedBatch, LatentStart, _Luck
from drivesim.worlds.latent_world import ImaginedSight, LatentWorld
from drivesim.worlds.logged_drive import EncodedDrive, encode_drive, start_at

RECORDING = RecordConfig(
    towns=("Drivetown",), episodes=2, seconds=6.0, period_s=0.5, images=False, route_m=200.0, seed=3, vehicles=6,
    walkers=2,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small batches on shared machines: threads that wait for each other cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("logs")
    record(RECORDING, out)
    return out


@pytest.fixture(scope="module")
def model(logs: Path) -> WorldModel:
    """Untrained, but standardised on the logs, as training leaves a model."""
    torch.manual_seed(0)
    made = WorldModel(WorldModelConfig(), default_rig().digest).eval()
    drives = [encode_drive(log, default_rig(), Imagination(made).encode) for log in open_logs(logs)]
    latents = torch.from_numpy(np.concatenate([drive.latents for drive in drives]))
    made.mean.copy_(latents.mean(0))
    made.scale.copy_(latents.std(0))
    made._digest = ""
    return made


@pytest.fixture(scope="module")
def core(model: WorldModel) -> Imagination:
    return Imagination(model)


@pytest.fixture(scope="module")
def drives(logs: Path, core: Imagination) -> list[EncodedDrive]:
    return [encode_drive(log, default_rig(), core.encode) for log in open_logs(logs)]


@pytest.fixture(scope="module")
def starts(drives: list[EncodedDrive]) -> list[LatentStart]:
    return [start_at(drive, k, 3.0, 25.0) for drive in drives for k in (1, 4, 7)]


def batch_of(core: Imagination, starts: list[LatentStart], seeds: list[int]) -> ImaginedBatch:
    return ImaginedBatch(core, BatchKinematics(), starts, seeds)


def bent_lines(count: int, seed: int) -> list[Polyline]:
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        heading = np.cumsum(rng.normal(0.0, 0.03, int(rng.integers(60, 150)))) + rng.uniform(-3.0, 3.0)
        points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], -1), axis=0) + rng.uniform(-50.0, 50.0, 2)
        lines.append(Polyline.from_points(points))
    return lines


# ---------------------------------------------------------------- what is done for many is done for one
def test_a_table_of_curves_answers_like_each_curve() -> None:
    lines, rng = bent_lines(7, 1), np.random.default_rng(2)
    table = CurveTable.of(lines)
    s = rng.uniform(-5.0, 160.0, (7, 4))
    for row, line in enumerate(lines):
        np.testing.assert_allclose(table.at(s)[row], line.at(s[row]), atol=1e-9)
        np.testing.assert_allclose(table.curvature(s, 2.5)[row], line.curvature(s[row], 2.5), atol=1e-9)
    places = table.at(s[:, 0])
    x, y = places[:, 0] + rng.normal(0.0, 1.0, 7), places[:, 1] + rng.normal(0.0, 1.0, 7)
    found, aside = table.project(x, y, s[:, 0])
    for row, line in enumerate(lines):
        assert (found[row], aside[row]) == pytest.approx(line.project(x[row], y[row], float(s[row, 0])), abs=1e-9)


def ego(x: float, y: float, yaw: float, speed: float, time_us: int = 0) -> EgoState:
    return EgoState(time_us, x, y, 0.0, 0.0, 0.0, yaw, speed, 0.0, 0.0)


def test_a_batch_is_tracked_like_each_car() -> None:
    rng, b, p = np.random.default_rng(3), 9, 6
    times = 0.5 * np.arange(1.0, p + 1.0)
    speeds = np.abs(rng.normal(5.0, 3.0, (b, p)))
    speeds[0] = 0.0
    speeds[1, 3:] = 0.0  # comes to a stand
    driven = np.cumsum(speeds * 0.5, axis=1)
    bend = rng.normal(0.0, 0.02, b)[:, None]
    poses = np.stack([driven * np.cos(bend * driven), driven * np.sin(bend * driven), bend * driven * 1.5], axis=-1)
    start = np.column_stack([rng.normal(0.0, 20.0, (b, 2)), rng.uniform(-3.0, 3.0, b), np.abs(rng.normal(4.0, 3.0, b))])
    start[0, 3] = 0.0
    batch, singles = BatchTracker(b, np.full(b, 2.88)), [TrajectoryTracker() for _ in range(b)]
    for tick in range(12):
        now = start + rng.normal(0.0, 0.2, start.shape) + tick * np.array([0.2, 0.0, 0.0, 0.0])
        now[0, 3] = 0.05
        together = batch.control(times, poses, speeds, start, now, 0.05 * tick, 0.05 * tick)
        for row, tracker in enumerate(singles):
            plan = Plan(Trajectory(times, poses[row], speeds[row]), np.zeros((p, 2)))
            alone = tracker.control(plan, ego(*start[row]), ego(*now[row], time_us=50_000 * tick))
            np.testing.assert_allclose(together[row], [alone.steer, alone.throttle, alone.brake], atol=1e-9)


def motions_on(lines: list[Polyline], seed: int) -> tuple[Motions, list[RouteAhead]]:
    """Cars beside their routes, and what each would be told of its own."""
    rng, b = np.random.default_rng(seed), len(lines)
    table = CurveTable.of(lines)
    limits = np.repeat(rng.uniform(5.0, 12.0, (b, 1)), table.s_m.shape[1], axis=1)
    at = table.at(rng.uniform(5.0, 20.0, b))
    x, y, yaw = at[:, 0] + rng.normal(0, 0.3, b), at[:, 1] + rng.normal(0, 0.3, b), at[:, 2] + rng.normal(0, 0.1, b)
    s, lateral = table.project(x, y, np.full(b, 12.0))
    motions = Motions(x, y, yaw, rng.uniform(0.0, 9.0, b), s, lateral, table, limits, table.length_m - s)
    routes = []
    for row, line in enumerate(lines):
        c, n = np.cos(yaw[row]), np.sin(yaw[row])
        points = (line.points_m - [x[row], y[row]]) @ np.array([[c, n], [-n, c]]).T
        routes.append(RouteAhead(points, limits[row, : len(points)], float(line.length_m - s[row])))
    return motions, routes


def test_batched_kinematics_and_driving_are_those_of_each_car() -> None:
    motions, routes = motions_on(bent_lines(6, 4), 5)
    wanted = np.random.default_rng(6).uniform(-2.0, 1.5, (6, 6))
    features = BatchKinematics.now(motions)
    poses, speeds, actions = RouteFollower(motions.curves, motions.limits_mps).drive(motions, wanted)
    later = BatchKinematics.later(features, speeds[:, 2], actions[:, 2], 1.5, np.full(6, 7.0))
    for row, route in enumerate(routes):
        car = ego(0.0, 0.0, 0.0, float(motions.speed_mps[row]))
        alone = kinematics(car, route)
        np.testing.assert_allclose(features[row], alone, atol=2e-3)
        future = drive_route(car.speed_mps, route, wanted[row : row + 1])
        np.testing.assert_allclose(poses[row, :, :2], future.poses[0, :, :2], atol=0.1)
        np.testing.assert_allclose(speeds[row], future.speeds_mps[0], atol=0.1)
        moments = imagined_kinematics(alone, speeds[row][None], actions[row][None], np.full((1, 6), 7.0))
        np.testing.assert_allclose(later[row], moments[0, 2], atol=2e-3)


def test_the_pedals_are_those_that_the_tracker_inverts(core: Imagination, starts: list[LatentStart]) -> None:
    vehicle, config = DEFAULT_TRACKER.vehicle, ImaginationConfig()
    for name in ("drive_mps2", "top_speed_mps", "brake_mps2", "rolling_mps2", "drag_1pm", "max_wheel_angle_rad"):
        assert getattr(vehicle, name) == getattr(config, name)
    batch = batch_of(core, starts[:1], [0])
    before, car = batch.motions, replace(starts[0].frame.ego, pitch_rad=0.0)
    control = control_for_action(-0.8, 0.05, car)
    batch.step(np.array([[control.steer, control.throttle, control.brake]]))
    speed = float(before.speed_mps[0])
    assert speed > 1.0 and batch.motions.speed_mps[0] == pytest.approx(speed - 0.8 * 0.05, abs=1e-9)
    assert batch.yaw_rate_radps[0] == pytest.approx(0.05 * (speed - 0.02), abs=1e-6)


# ---------------------------------------------------------------- batch, loop, world
def same(a: Episode, b: Episode, atol: float) -> None:
    assert (a.end, a.scenario.id, [e.kind for e in a.events]) == (b.end, b.scenario.id, [e.kind for e in b.events])
    np.testing.assert_array_equal(a.times_us, b.times_us)
    np.testing.assert_allclose(a.ego, b.ego, atol=atol)
    np.testing.assert_allclose(a.progress_m, b.progress_m, atol=atol)
    assert score(a).value("driving_score") == pytest.approx(score(b).value("driving_score"), abs=100.0 * atol)


@pytest.mark.parametrize("kind", ["policy", "constant", "rule"])
def test_a_batch_equals_a_loop(kind: str, core: Imagination, starts: list[LatentStart]) -> None:
    def planner() -> Everybody:
        made = {"policy": BatchPolicy(core, "p", "policy"), "constant": BatchConstantVelocity(),
                "rule": BatchReadoutRule()}  # fmt: skip
        return Everybody(made[kind])

    seeds = list(range(len(starts)))
    together = drive_batch(batch_of(core, starts, seeds), planner())
    assert len(together.episodes) == len(starts) and together.simulated_s > 0.0
    for row, start in enumerate(starts):
        alone = drive_batch(batch_of(core, [start], [seeds[row]]), planner())
        same(together.episodes[row], alone.episodes[0], 1e-3)
        np.testing.assert_allclose(together.latents(row), alone.latents(0), atol=1e-3)


@pytest.mark.parametrize("kind", ["expert", "policy", "constant"])
def test_the_runner_does_what_the_drive_loop_does_in_the_world(
    kind: str, core: Imagination, model: WorldModel, starts: list[LatentStart]
) -> None:
    world = LatentWorld(core, BatchKinematics(), starts, told=kind == "expert")
    sight = ImaginedSight(model, world)
    makers = {"expert": ExpertPlanner, "policy": lambda: PolicyPlanner(model, "policy", "policy"),
              "constant": ConstantVelocityPlanner}  # fmt: skip
    runner = OneByOne(kind, makers[kind], model)
    together = drive_batch(batch_of(core, starts[:3], [0, 1, 2]), runner)
    for row in range(3):
        planner = PolicyPlanner(sight, "policy", "policy") if kind == "policy" else makers[kind]()
        driver = Driver(planner, TrajectoryTracker(), default_rig(), plan_period_s=0.5)
        alone = run_episode(world, driver, starts[row].scenario, row)
        assert not alone.error, alone.error
        same(together.episodes[row], alone, 1e-3)


def test_the_batched_policy_drives_like_the_single_one(
    core: Imagination, model: WorldModel, starts: list[LatentStart]
) -> None:
    batched = drive_batch(batch_of(core, starts, [0] * len(starts)), Everybody(BatchPolicy(core, "p", "policy")))
    single = drive_batch(
        batch_of(core, starts, [0] * len(starts)), OneByOne("p", lambda: PolicyPlanner(model, "p", "policy"), model)
    )
    for a, b in zip(batched.episodes, single.episodes, strict=True):
        ticks = min(len(a.times_us), len(b.times_us))
        assert np.abs(a.ego[:ticks, :2] - b.ego[:ticks, :2]).max() < 0.5


def test_a_start_is_where_the_log_was(core: Imagination, starts: list[LatentStart]) -> None:
    world = LatentWorld(core, BatchKinematics(), starts)
    for start in starts:
        frame = world.reset(start.scenario, 0)
        assert (frame.ego.x_m, frame.ego.y_m) == (start.frame.ego.x_m, start.frame.ego.y_m)
        assert frame.route.remaining_m == pytest.approx(25.0, abs=1.5)
        assert frame.images is not None and frame.images.dtype == np.uint8
        gap = np.abs(frame.route.points_m[0] - start.frame.route.points_m[0])
        assert gap.max() < 1.1, "the route ahead is the logged one"
    with pytest.raises(ConfigError, match="no start"):
        world.reset(replace(starts[0].scenario, id="elsewhere"), 0)


# ---------------------------------------------------------------- seeds and horizons
def test_a_seed_is_a_drive(core: Imagination, starts: list[LatentStart]) -> None:
    def drive(seed: int) -> Imagined:
        return drive_batch(batch_of(core, starts[:2], [seed, seed]), Everybody(BatchConstantVelocity()))

    first, again = drive(4), drive(4)
    assert [episode_digest(e) for e in first.episodes] == [episode_digest(e) for e in again.episodes]


def test_a_drive_of_no_length_has_one_tick_and_no_score(core: Imagination, starts: list[LatentStart]) -> None:
    start = replace(starts[0], scenario=replace(starts[0].scenario, time_limit_s=0.0))
    imagined = drive_batch(batch_of(core, [start], [0]), Everybody(BatchConstantVelocity()))
    episode = imagined.episodes[0]
    assert (len(episode.times_us), episode.end, imagined.simulated_s) == (1, EndReason.TIMEOUT, 0.0)
    assert imagined.latents(0).shape[0] == 1 and imagined.doubts(0).shape == (0,)
    assert score(episode).value("driving_score") == 0.0
    driver = Driver(ConstantVelocityPlanner(), TrajectoryTracker(), default_rig(), plan_period_s=0.5)
    alone = run_episode(LatentWorld(core, BatchKinematics(), [start]), driver, start.scenario, 0)
    same(episode, alone, 1e-9)


def test_events_come_as_often_as_hazards_say() -> None:
    count, course = 4000, (0.0, 0.3, 1.0, 0.05)
    luck = _Luck([np.random.default_rng([7, k]) for k in range(count)])
    rows = np.arange(1000, count)
    for p in course:
        struck = luck.strikes(np.full(len(rows), p), rows)
        assert set(struck.tolist()) <= set(rows.tolist())
        assert len(struck) / len(rows) == pytest.approx(p, abs=0.03)


def test_a_hazard_grows_with_the_risk_and_who_stands_is_safe() -> None:
    risks = np.repeat(np.linspace(0.0, 1.0, 9)[:, None], 3, axis=1)
    likely = Hazards().of(risks, np.full(9, 5.0))
    assert np.all(np.diff(likely, axis=0) > 0.0) and np.all((likely > 0.0) & (likely < 1.0))
    assert not Hazards().of(risks, np.zeros(9)).any()
    np.testing.assert_allclose(Hazard().of(risks[1:-1, 0]), risks[1:-1, 0])


def test_an_expected_score_is_the_mean_of_drawn_ones(core: Imagination, starts: list[LatentStart]) -> None:
    start, seeds = starts[1], list(range(400))
    config = ImaginationConfig(hazards=Hazards(Hazard(-2.5, 0.0), Hazard(-2.0, 0.0)))
    drawn = drive_batch(
        ImaginedBatch(core, BatchKinematics(), [start] * len(seeds), seeds, config), Everybody(BatchConstantVelocity())
    )
    told = replace(config, strikes=False, ends_at_collision=False)
    whole = drive_batch(ImaginedBatch(core, BatchKinematics(), [start], [0], told), Everybody(BatchConstantVelocity()))
    assert not whole.episodes[0].events
    expected = expected_score(traces(whole)[0], core.readouts, Expectation(config.hazards))
    values = np.array([score(episode).value("driving_score") for episode in drawn.episodes])
    assert values.std() > 5.0 and expected == pytest.approx(values.mean(), abs=4.0 * values.std() / len(values) ** 0.5)


# ---------------------------------------------------------------- trust
LOOSE = TrustLimits(drift=1e6, disagreement=1e6)  # an untrained predictor drifts


def test_it_abstains_on_noise_pictures(
    logs: Path, core: Imagination, drives: list[EncodedDrive], starts: list[LatentStart]
) -> None:
    rng, rig = np.random.default_rng(0), default_rig()
    shape = (len(rig.cameras), rig.cameras[0].height_px, rig.cameras[0].width_px, 3)
    noise = [
        encode_drive(log, rig, core.encode, lambda *_: rng.integers(0, 255, shape, dtype=np.uint8))
        for log in open_logs(logs)
    ]
    gauge = TrustGauge(core, drives, 6, LOOSE)
    planner = Everybody(BatchConstantVelocity())
    known = drive_batch(batch_of(core, starts, [0] * len(starts)), planner)
    for row, start in enumerate(starts):
        seen = gauge.judge(start.scenario.id, known.latents(row)[:1], np.zeros(0))
        assert seen.valid, seen.reason
    strange = [start_at(drive, k, 3.0, 25.0) for drive in noise for k in (1, 4, 7)]
    imagined = drive_batch(batch_of(core, strange, [0] * len(strange)), planner)
    for row, start in enumerate(strange):
        trust = gauge.judge(start.scenario.id, imagined.latents(row), imagined.doubts(row))
        assert not trust.valid and trust.out_of_distribution > 1.0
        assert "distribution" in trust.reason or "trained" in trust.reason


def test_what_is_noise_to_the_model_is_never_trusted_for_beating_persistence(core: Imagination) -> None:
    """Latents without any order: a model that says their mean halves persistence's error, and knows nothing."""

    class MeanSayer:
        digest, readouts = core.digest, core.readouts

        def rollout(self, previous, current, actions, speed_mps):  # type: ignore[no-untyped-def]
            shape = (len(current), actions.shape[1], *current.shape[1:])
            return np.zeros(shape, np.float32), np.zeros(shape[:2], np.float32)

    rng = np.random.default_rng(1)
    frames = [type("F", (), {"ego": ego(0.0, 0.0, 0.0, 5.0)})() for _ in range(40)]
    drives = [
        EncodedDrive(f"n{k}", None, np.arange(40), frames, rng.normal(size=(40, 4, 8)).astype(np.float32),  # type: ignore[arg-type]
                     np.zeros((39, 2)), None, np.zeros(40))  # type: ignore[arg-type]
        for k in range(3)
    ]  # fmt: skip
    gauge = TrustGauge(MeanSayer(), drives, 6)  # type: ignore[arg-type]
    assert gauge.table.drift(6) > 0.95
    trust = gauge.judge("n0@1", np.zeros((7, 4, 8), np.float32) + 1.0, np.zeros(6))
    assert "drift" in trust.reason


def test_an_untrusted_score_is_in_no_mean(logs: Path, model: WorldModel, tmp_path: Path) -> None:
    checkpoint = tmp_path / "untrained.safetensors"
    model.save(checkpoint, {})
    names, config = ["constant-velocity", "readout-rule"], ImaginedConfig(seconds=2.0, every_s=2.0, batch=4)
    card = evaluate_imagined(logs, names, [0, 1], out=tmp_path / "run", checkpoint=checkpoint, config=config)
    told = json.loads((tmp_path / "run" / "scorecard.json").read_text())
    assert told["world"] == "latent" and len(told["trust"]) == len(card.outcomes) > 8
    for flag, outcome in zip(told["trust"], card.outcomes, strict=True):
        assert flag["valid"] == (not flag["reason"]) == (outcome.value("driving_score") is not None)
    valid = sum(flag["valid"] for flag in told["trust"] if flag["planner"] == names[0])
    assert told["trusted"][names[0]] == {"n": len(card.outcomes) // 2, "valid": valid}
    estimate = card.planners[names[0]].get("driving_score")
    assert (0 if estimate is None else estimate.n) == valid

    loose = replace(config, limits=replace(LOOSE, out_of_distribution=1e6))
    shutil.copytree(tmp_path / "run" / "latents", tmp_path / "loose" / "latents")  # encoded once
    again = evaluate_imagined(logs, names, [0, 1], out=tmp_path / "loose", checkpoint=checkpoint, config=loose)
    assert again.planners[names[0]]["driving_score"].n == len(again.outcomes) // 2
    resumed: list[bool] = []
    once_more = evaluate_imagined(
        logs, names, [0, 1], out=tmp_path / "loose", checkpoint=checkpoint, config=loose,
        on_progress=lambda done: resumed.append(done.resumed),
    )  # fmt: skip
    assert all(resumed) and once_more.planners == again.planners


PIXEL_PLANNER = '''
import numpy as np
from drivesim.datatypes import Plan, Trajectory

class Eyes:
    """Goes straight on, the faster the brighter it is."""
    name, needs_images, privileged = "eyes", True, False

    def reset(self, scenario, rig, seed):
        self.seen = 0

    def plan(self, observation, truth, rng):
        assert truth is None and observation.images.shape[1:] == (144, 256, 3)
        self.seen += 1
        v = 2.0 + observation.images.mean() / 50.0
        t = 0.5 * np.arange(1.0, 5.0)
        poses = np.stack([v * t, 0 * t, 0 * t], axis=-1)
        return Plan(Trajectory(t, poses, np.full(4, v)), np.zeros((4, 2)))
'''


def test_a_pixel_planner_has_its_logged_plans_rolled_out(
    logs: Path, model: WorldModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bright_eyes.py").write_text(PIXEL_PLANNER)
    monkeypatch.syspath_prepend(str(tmp_path))
    checkpoint = tmp_path / "untrained.safetensors"
    model.save(checkpoint, {})
    config = ImaginedConfig(seconds=6.0, every_s=2.0, limits=replace(LOOSE, out_of_distribution=1e6))
    card = evaluate_imagined(
        logs, ["bright_eyes:Eyes"], [0], out=tmp_path / "run", checkpoint=checkpoint, config=config
    )
    assert card.outcomes and not card.missing
    durations = [outcome.value("duration") for outcome in card.outcomes]
    assert all(value is not None and value <= 2.0 + 1e-6 for value in durations), "no longer than its plan"
    assert max(outcome.value("route_completion") or 0.0 for outcome in card.outcomes) > 20.0
