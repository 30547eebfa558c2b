"""Every shipped scenario loads and drives; routes, scripted actors, variation, episodes on disk."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drivesim.build import make_controller, make_planner
from drivesim.config import ConfigError
from drivesim.datatypes import (
    ActorSpec,
    Control,
    EndReason,
    Episode,
    Frame,
    Observation,
    Plan,
    Scenario,
    Waypoint,
    default_rig,
)
from drivesim.drive import Driver, run_episode
from drivesim.episodes import EpisodeError, episode_digest, load_episode, save_episode
from drivesim.suite import load_scenario, load_suite, scenario_files
from drivesim.town.towns import TownUnavailable, road_network
from drivesim.worlds.behaviors import BEHAVIORS, Surroundings, advance, bind, pose_of
from drivesim.worlds.routes import RouteError, lane_map, plan_route, straightest
from drivesim.worlds.town_world import TownWorld
from drivesim.worlds.variation import vary

COAST = Control(0.0, 0.0, 0.0)


def available(town: str) -> None:
    try:
        road_network(town)
    except TownUnavailable as error:
        pytest.skip(str(error))


def drivetown(**changes: object) -> Scenario:
    """A 120 m drive in the built-in town, which needs no download."""
    lanes = lane_map("Drivetown")
    for spawn in range(len(lanes.network.spawn_lane)):
        lane, length = int(lanes.network.spawn_lane[spawn]), 0.0
        start = lanes.at(lane, 2.0)
        while length < 140.0 and lane >= 0:
            length += float(lanes.network.lane_length_m[lane])
            last, lane = lane, straightest(lanes, lane)
        goal = lanes.at(last, float(lanes.network.lane_length_m[last]) - 1.0)
        scenario = Scenario(
            id="test-v1", town="Drivetown", description="", time_limit_s=20.0, initial_speed_mps=7.0,
            route=(Waypoint(start.x_m, -start.y_m), Waypoint(goal.x_m, -goal.y_m)),
        )  # fmt: skip
        try:
            if 110.0 < plan_route(scenario).length_m < 250.0:
                return replace(scenario, **changes)  # type: ignore[arg-type]
        except RouteError:
            continue
    raise AssertionError("the built-in town has no road of 120 m")


@pytest.mark.parametrize("name", sorted(scenario_files()))
def test_every_scenario_drives_twenty_ticks(name: str) -> None:
    scenario = load_scenario(name)
    available(scenario.town)
    assert scenario.id == name and name.endswith("-v1")
    assert plan_route(scenario).length_m > 80.0
    world = TownWorld()
    frame = world.reset(scenario, seed=1)
    assert frame.ego.speed_mps == pytest.approx(scenario.initial_speed_mps, rel=0.06)
    assert len(frame.actors.ids) >= sum(spec.behavior != "light" for spec in scenario.actors)
    for tick in range(1, 21):
        frame = world.step(Control(0.0, 0.2, 0.0))
        assert frame.time_us == tick * 50_000
        assert not frame.contacts
    frame.actors.validate()
    _, lateral = plan_route(scenario).project(frame.ego.x_m, frame.ego.y_m)
    assert abs(lateral) < 2.0
    world.close()


def test_the_demo_suite_has_all_that_was_promised() -> None:
    scenarios = [load_scenario(name) for name in load_suite("demo").scenarios]
    assert len(scenarios) >= 10
    assert len({scenario.town for scenario in scenarios}) >= 2
    tags = {tag for scenario in scenarios for tag in scenario.tags}
    assert {"unseen-town", "unseen-weather", "pedestrian", "light", "lead", "cut-in"} <= tags
    for scenario in scenarios:
        available(scenario.town)
        assert scenario.time_limit_s <= 40.0
        assert 100.0 <= plan_route(scenario).length_m <= 250.0


def test_unknown_names_teach() -> None:
    with pytest.raises(ConfigError, match="hard_brake_town02-v1"):
        load_scenario("hard_brake_town02")
    with pytest.raises(ConfigError, match="demo"):
        load_suite("dem")
    spec = ActorSpec("hard_brak")
    with pytest.raises(ConfigError, match="hard_brake"):
        vary(drivetown(actors=(spec,)), 0)


def test_a_route_off_the_road_names_its_waypoint() -> None:
    scenario = drivetown()
    with pytest.raises(RouteError, match="waypoint 1"):
        plan_route(replace(scenario, route=(scenario.route[0], Waypoint(9000.0, 9000.0))))


def test_route_ahead_starts_beside_the_ego() -> None:
    scenario = drivetown()
    world = TownWorld()
    frame = world.reset(scenario, 0)
    points = frame.route.points_m
    assert np.hypot(*points[0]) < 1.5
    np.testing.assert_allclose(np.linalg.norm(np.diff(points, axis=0), axis=1), 1.0, atol=0.15)
    assert len(points) == len(frame.route.speed_limit_mps)
    assert frame.route.remaining_m == pytest.approx(plan_route(scenario).length_m, abs=9.0)
    assert abs(points[1, 1]) < 0.3, "the ego starts on the route, along it"


@pytest.mark.parametrize("name", sorted(set(BEHAVIORS) - {"light"}))
def test_scripted_actors_are_continuous(name: str) -> None:
    """No behaviour jumps, whatever the ego does: at most 1.5 m in a tick, and a heading that follows."""
    scenario = drivetown()
    world = TownWorld()
    frame = world.reset(scenario, 0)
    blueprint = "walker.pedestrian.0005" if name in ("cross_road", "stroll") else "vehicle.audi.a2"
    spec = ActorSpec(name, blueprint, 40.0, -4.0 if name in ("cross_road", "stroll", "cut_in", "parked") else 0.0)
    script = bind(spec, world.route, lane_map(scenario.town), (3.7, 1.8))
    state, near = script.start, 0.0
    before = pose_of(script, state)
    for _ in range(200):
        around = Surroundings.of(frame, world.route, 0, near)
        near = around.ego_s_m
        state = advance(script, state, around, -2, 0.05)
        now = pose_of(script, state)
        assert np.hypot(*(now - before)[:2]) < 1.0
        if not script.is_walker:
            assert abs(math.remainder(now[2] - before[2], 2.0 * math.pi)) < 0.35
        before = now
        frame = world.step(Control(0.0, 0.3, 0.0))


def test_a_seed_changes_something_and_always_the_same() -> None:
    scenario = drivetown(actors=(ActorSpec("hard_brake", route_s_m=30.0, parameters={"gap_m": 12.0}),))
    one, again, other = vary(scenario, 1), vary(scenario, 1), vary(scenario, 2)
    assert one.actors == again.actors and one.start_s_m == again.start_s_m
    np.testing.assert_array_equal(one.weather, again.weather)
    assert one.actors != other.actors and one.start_s_m != other.start_s_m
    assert one.traffic_seed != other.traffic_seed and not np.array_equal(one.weather, other.weather)


def drive(seed: int = 0, planner: str = "constant-velocity", **changes: object) -> Episode:
    changes = {"time_limit_s": 5.0, "traffic_vehicles": 4, "traffic_walkers": 3, **changes}
    driver = Driver(make_planner(planner), make_controller(), default_rig())
    return run_episode(TownWorld(), driver, drivetown(**changes), seed)


def test_the_same_seed_gives_the_same_episode(tmp_path: Path) -> None:
    episode, again, other = drive(0), drive(0), drive(1)
    assert episode_digest(episode) == episode_digest(again) != episode_digest(other)
    assert episode.end is EndReason.TIMEOUT and len(episode.times_us) == 101
    save_episode(episode, tmp_path / "e.npz")
    loaded = load_episode(tmp_path / "e.npz")
    assert episode_digest(loaded) == episode_digest(episode)
    assert loaded.scenario == episode.scenario and loaded.key == episode.key
    np.testing.assert_array_equal(loaded.actor_pose, episode.actor_pose)
    assert loaded.snapshots[1].plan is not None


def test_a_cut_short_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.npz"
    save_episode(drive(time_limit_s=1.0), path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(EpisodeError, match="whole"):
        load_episode(path)


class Faulty:
    """Plans once, then raises."""

    name, needs_images, privileged = "faulty", False, False

    def __init__(self) -> None:
        self._inner, self._plans = make_planner("constant-velocity"), 0

    def reset(self, scenario: Scenario, rig: object, seed: int) -> None:
        self._inner.reset(scenario, default_rig(), seed)

    def plan(self, observation: Observation, truth: Frame | None, rng: np.random.Generator) -> Plan:
        self._plans += 1
        if self._plans > 3:
            raise RuntimeError("no idea")
        assert truth is None, "a driver that is not privileged is shown no truth"
        return self._inner.plan(observation, truth, rng)


def test_a_planner_that_raises_ends_the_episode_not_the_run() -> None:
    episode = run_episode(TownWorld(), Driver(Faulty(), make_controller(), default_rig()), drivetown(), 0)
    assert episode.end is EndReason.CRASHED
    assert "no idea" in episode.error and len(episode.times_us) == 16


def test_a_parked_car_has_no_progress_and_no_collision() -> None:
    class Parked(Driver):
        def act(self, frame: Frame) -> Control:
            return Control(0.0, 0.0, 1.0)

    driver = Parked(make_planner("constant-velocity"), make_controller(), default_rig())
    episode = run_episode(TownWorld(), driver, drivetown(initial_speed_mps=0.0, time_limit_s=62.0), 0)
    assert episode.end is EndReason.BLOCKED
    assert episode.progress_m[-1] == pytest.approx(episode.progress_m[0], abs=0.2)
    assert not episode.events
