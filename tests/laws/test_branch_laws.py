"""Laws of trying out: branches of the embedded town are exact, leave no trace, and the oracle uses them well."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from drivesim.build import make_controller, make_planner
from drivesim.config import ConfigError
from drivesim.datatypes import ActorStates, Control, Frame, LightStates, Scenario, default_rig
from drivesim.drive import Driver, run_episode
from drivesim.episodes import episode_digest
from drivesim.planning.oracle import ExactBranches, OraclePlanner, OracleProblem, Watch
from drivesim.planning.search import Problem
from drivesim.preflight import WrongInput, require_planners
from drivesim.suite import load_scenario
from drivesim.worlds.town_world import TownWorld

GO, BRAKE = Control(0.0, 0.6, 0.0), Control(0.0, 0.0, 0.7)


def busy() -> Scenario:
    """A parked van, somebody who steps out behind it, a light on the route, and traffic; no download needed."""
    return load_scenario("parked_van_drivetown-v1")


def at_the_van(ticks: int = 90) -> TownWorld:
    world = TownWorld()
    world.reset(busy(), 0)
    for _ in range(ticks):
        world.step(GO)
    return world


def seen(frame: Frame) -> tuple[object, ...]:
    return (frame.ego, frame.actors.pose.tolist(), frame.lights.states.tolist(), frame.contacts, frame.time_us)


def test_a_branch_is_what_would_have_happened() -> None:
    world = at_the_van()
    moment = world.moment()
    tried = [seen(world.branch_step(GO)) for _ in range(60)]
    world.go_back(moment)
    assert [seen(world.step(GO)) for _ in range(60)] == tried


def test_branches_leave_no_trace() -> None:
    plain, tried = at_the_van(), at_the_van()
    for tick in range(30):
        if tick % 6 == 0:
            moment = tried.moment()
            for _ in range(40):
                tried.branch_step(BRAKE)
            tried.go_back(moment)
        assert seen(plain.step(GO)) == seen(tried.step(GO))


def test_what_is_not_worth_trying_changes_nothing() -> None:
    world = at_the_van(100)
    planner = OraclePlanner(make_controller())
    planner.enter(world)
    planner.reset(busy(), default_rig(), 0)
    frame = world.moment().frame
    blank = np.zeros((2, 1, 1), np.float32)
    problem = planner.problem(frame.observation, blank)
    assert isinstance(problem, OracleProblem)
    wanted = planner.proposals(problem.policy)[::2]
    sparing = problem.evaluate(wanted)
    full = Problem.evaluate(problem, wanted)
    kept = planner.config.elites
    best = np.argsort(full.costs, kind="stable")[:kept]
    np.testing.assert_array_equal(np.argsort(sparing.costs, kind="stable")[:kept], best)
    np.testing.assert_allclose(sparing.costs[best], full.costs[best])
    assert (sparing.costs <= full.costs + 1e-9).all()
    assert sparing.imagined <= full.imagined


def test_driving_on_into_the_van_is_seen_and_braking_is_not_blamed() -> None:
    scenario = replace(busy(), traffic_vehicles=0, traffic_walkers=0)
    van = replace(scenario.actors[0], route_s_m=30.0, lateral_m=0.0)
    world = TownWorld()
    frame = world.reset(replace(scenario, actors=(van,), initial_speed_mps=7.0), 0)
    model = ExactBranches(make_controller())
    model.world = world
    actions = np.zeros((2, 8, 2))
    actions[1, :, 0] = -3.0
    events, doubt = model.imagine(np.zeros((2, 1, 1), np.float32), frame.ego.speed_mps, actions)
    assert events.shape == (2, 8, 3) and not doubt.any()
    assert events[0, -1, 0] == 1.0 and events[0, 0, 0] == 0.0, "it is hit, not at once, and for good"
    assert (np.diff(events[0, :, 0]) >= 0.0).all()
    assert not events[1].any()


def test_a_red_line_is_crossed_by_nose_and_tail() -> None:
    world = at_the_van(1)
    start = world.moment().frame
    ego = start.ego
    lights = LightStates(np.array([2], np.uint8), np.array([[ego.x_m, ego.y_m, 0.0, ego.yaw_rad]]), np.array([2.0]))
    from drivesim.datatypes import LIGHT_GREEN, LIGHT_RED

    def frame(line_ahead_m: float, state: int) -> Frame:
        c, s = np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)
        x, y = ego.center_xy_m
        pose = np.array([[x + line_ahead_m * c, y + line_ahead_m * s, 0.0, ego.yaw_rad]])
        shown = replace(lights, states=np.array([state], np.uint8), stop_pose=pose)
        return replace(start, actors=ActorStates.empty(), lights=shown)

    nose, tail = 0.5 * ego.length_m, -0.4 * ego.length_m
    for place, counts in ((nose, True), (tail, True), (0.0, False), (nose + 5.0, False)):
        # the line moves past a car that stands: the same as the other way round
        before, after = frame(place + 0.2, LIGHT_RED), frame(place - 0.2, LIGHT_RED)
        moved = replace(before, ego=replace(ego, x_m=ego.x_m - 0.4 * np.cos(ego.yaw_rad),
                                            y_m=ego.y_m - 0.4 * np.sin(ego.yaw_rad)))  # fmt: skip
        assert Watch(before).runs_red(moved, after) is counts, place
        green = frame(place - 0.2, LIGHT_GREEN)
        assert not Watch(before).runs_red(moved, green)


class Elsewhere:
    """A world that cannot be tried out."""


def test_the_oracle_needs_a_world_to_try_out() -> None:
    planner = make_planner("latent-oracle")
    with pytest.raises(ConfigError, match="does not give"):
        planner.enter(Elsewhere())  # type: ignore[attr-defined]
    frame = at_the_van(0).moment().frame
    planner.reset(busy(), default_rig(), 0)
    with pytest.raises(ConfigError, match="no world"):
        planner.plan(frame.observation, frame, np.random.default_rng(0))


def test_the_oracle_does_not_drive_through_a_server_that_is_not_ours() -> None:
    require_planners(["latent-oracle"], None)
    with pytest.raises(WrongInput, match="leave --carla out"):
        require_planners(["expert", "latent-oracle"], None, ("localhost", 2000))


def test_the_oracle_drives_the_same_twice() -> None:
    scenario = replace(busy(), time_limit_s=3.0)

    def drive() -> str:
        driver = Driver(make_planner("latent-oracle"), make_controller(), default_rig())
        return episode_digest(run_episode(TownWorld(), driver, scenario, 0))

    assert drive() == drive()
