"""Laws of control: what is asked for is what the vehicle does, in the town's own physics."""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from drivesim.control.tracker import TrajectoryTracker, control_for_action, pedals_for_acceleration, steer_for_curvature
from drivesim.datatypes import EgoState, Frame, Plan, Scenario, Trajectory, Waypoint
from drivesim.geometry.bicycle import rollout
from drivesim.town.roads import LANE_DRIVING
from drivesim.worlds.routes import lane_map
from drivesim.worlds.town_world import TownWorld

TOWN = "Drivetown"


@lru_cache(maxsize=1)
def straight_road() -> tuple[Waypoint, Waypoint]:
    """Start and goal on the straightest long lane of the built-in town."""
    lanes = lane_map(TOWN)
    n = lanes.network
    best, lane = -math.inf, -1
    for k in np.flatnonzero((n.lane_kind == LANE_DRIVING) & (n.lane_junction < 0) & (n.lane_length_m > 60.0)):
        bend = float(np.abs(n.point_curvature_1pm[lanes.lane_points(int(k))]).max())
        if -bend * 1000.0 + float(n.lane_length_m[k]) / 1000.0 > best:
            best, lane = -bend * 1000.0 + float(n.lane_length_m[k]) / 1000.0, int(k)
    places = [lanes.at(lane, s) for s in (5.0, float(n.lane_length_m[lane]) - 5.0)]
    return Waypoint(places[0].x_m, -places[0].y_m), Waypoint(places[1].x_m, -places[1].y_m)


def start(speed_mps: float) -> tuple[TownWorld, Frame]:
    """The ego on an empty straight road at a speed."""
    scenario = Scenario("control-v1", TOWN, "", straight_road(), 60.0, initial_speed_mps=speed_mps)
    world = TownWorld()
    frame = world.reset(scenario, 0)
    world.town.state.speed[world.ego_row] = speed_mps  # exactly, whatever the seed made of it
    return world, replace(frame, ego=replace(frame.ego, speed_mps=speed_mps))


@pytest.mark.parametrize("speed", [0.0, 3.0, 8.0, 14.0])
@pytest.mark.parametrize("acceleration", [-6.0, -3.0, -1.0, 0.5, 1.5, 2.5])
def test_the_commanded_acceleration_is_realised(speed: float, acceleration: float) -> None:
    if speed + 0.4 * acceleration < 0.5 and acceleration < 0:
        pytest.skip("it would stand before it is measured")
    world, frame = start(speed)
    speeds = [speed]
    for _ in range(8):
        frame = world.step(control_for_action(acceleration, 0.0, frame.ego))
        speeds.append(frame.ego.speed_mps)
    realised = np.diff(speeds[1:]) / 0.05
    assert np.abs(realised - acceleration).max() < 0.3


@pytest.mark.parametrize("curvature", [-0.15, -0.05, 0.02, 0.1, 0.2])
def test_the_commanded_curvature_is_realised(curvature: float) -> None:
    world, frame = start(4.0)
    for _ in range(12):
        frame = world.step(control_for_action(0.0, curvature, frame.ego))
    assert frame.ego.yaw_rate_radps / frame.ego.speed_mps == pytest.approx(curvature, abs=0.01)


def test_pedals_never_push_and_brake_at_once() -> None:
    for speed in np.linspace(0, 30, 13):
        for acceleration in np.linspace(-10, 6, 33):
            throttle, brake = pedals_for_acceleration(float(acceleration), float(speed))
            assert 0.0 <= throttle <= 1.0 and 0.0 <= brake <= 1.0
            assert throttle == 0.0 or brake == 0.0


def test_steering_is_odd_and_bounded() -> None:
    for curvature in np.linspace(-2, 2, 41):
        steer = steer_for_curvature(float(curvature), 2.88)
        assert steer == pytest.approx(-steer_for_curvature(-float(curvature), 2.88))
        assert -1.0 <= steer <= 1.0


def plan_for(actions: np.ndarray, speed_mps: float) -> Plan:
    poses, speeds = rollout(speed_mps, actions, 0.25)
    return Plan(Trajectory(0.25 * np.arange(1, len(actions) + 1), poses, speeds), actions)


@pytest.mark.parametrize(
    ("speed", "acceleration", "curvature"),
    [(0.0, 1.5, 0.0), (6.0, 0.0, 0.06), (6.0, 0.0, -0.06), (8.0, -2.0, 0.0), (5.0, 1.0, 0.03), (3.0, 0.0, 0.15)],
)
def test_a_feasible_plan_is_followed_for_two_seconds(speed: float, acceleration: float, curvature: float) -> None:
    world, frame = start(speed)
    plan = plan_for(np.tile([acceleration, curvature], (16, 1)), speed)
    tracker, plan_ego = TrajectoryTracker(), frame.ego
    for _ in range(40):
        frame = world.step(tracker.control(plan, plan_ego, frame.ego))
    x, y, _ = plan_ego.world_from_ego.inverse().apply(np.array([frame.ego.x_m, frame.ego.y_m, frame.ego.z_m]))
    assert (x, y) == pytest.approx(tuple(plan.trajectory.poses[7, :2]), abs=0.45)
    assert frame.ego.speed_mps == pytest.approx(plan.trajectory.speeds_mps[7], abs=0.25)


def test_a_lateral_error_decays_without_ringing() -> None:
    world, frame = start(8.0)
    tracker, offsets = TrajectoryTracker(), []
    line = np.column_stack([2.0 * np.arange(1, 41), np.full(40, 1.0), np.zeros(40)])  # a metre to the left, straight on
    plan = Plan(Trajectory(0.25 * np.arange(1, 41), line, np.full(40, 8.0)), np.zeros((40, 2)))
    plan_ego = frame.ego
    for _ in range(80):
        frame = world.step(tracker.control(plan, plan_ego, frame.ego))
        place = plan_ego.world_from_ego.inverse().apply(np.array([frame.ego.x_m, frame.ego.y_m, frame.ego.z_m]))
        offsets.append(1.0 - float(place[1]))
    assert abs(offsets[-1]) < 0.1
    assert min(offsets) > -0.15


def test_a_full_stop_holds_the_brake() -> None:
    world, frame = start(3.0)
    tracker, plan_ego = TrajectoryTracker(), frame.ego
    plan = plan_for(np.tile([-3.0, 0.0], (16, 1)), 3.0)
    control = None
    for _ in range(60):
        control = tracker.control(plan, plan_ego, frame.ego)
        frame = world.step(control)
    assert control is not None
    assert control.brake == 1.0 and control.throttle == 0.0
    assert frame.ego.speed_mps == pytest.approx(0.0, abs=1e-6)


def test_a_mirrored_plan_gets_a_mirrored_control() -> None:
    ego = EgoState(0, 3.0, -2.0, 0.0, 0.0, 0.0, 0.0, 6.0, 0.0, 0.0)
    now = replace(ego, time_us=100_000, x_m=3.6, y_m=-1.9, yaw_rad=0.05)
    mirror = replace(now, y_m=-2.1, yaw_rad=-0.05)
    actions = np.tile([0.5, 0.04], (16, 1))
    left = TrajectoryTracker().control(plan_for(actions, 6.0), ego, now)
    right = TrajectoryTracker().control(plan_for(actions * [1, -1], 6.0), ego, mirror)
    assert left.steer == pytest.approx(-right.steer)
    assert (left.throttle, left.brake) == pytest.approx((right.throttle, right.brake))


@pytest.mark.parametrize("acceleration", [0.05, 0.1, 0.3])
def test_a_gentle_plan_that_is_made_anew_all_the_time_starts_the_car(acceleration: float) -> None:
    """A planner plans from where it stands four times a second: held until it is faster, it would stand for ever."""
    world, frame = start(0.0)
    tracker = TrajectoryTracker()
    for tick in range(60):
        if tick % 5 == 0:
            plan_ego = frame.ego
            plan = plan_for(np.tile([acceleration, 0.0], (12, 1)), plan_ego.speed_mps)
        frame = world.step(tracker.control(plan, plan_ego, frame.ego))
    assert frame.ego.speed_mps == pytest.approx(3.0 * acceleration, rel=0.2)


def test_a_plan_that_stands_holds_the_brake_though_it_goes_on_later() -> None:
    frame = start(0.0)[1]
    plan = plan_for(np.array([[0.0, 0.0]] * 4 + [[1.0, 0.0]] * 8), 0.0)
    assert TrajectoryTracker().control(plan, frame.ego, frame.ego).brake == 1.0
