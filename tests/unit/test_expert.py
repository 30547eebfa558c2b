"""The privileged expert, the risky drivers made of it, and the constant-velocity baseline."""

import numpy as np
import pytest

from drivesim.datatypes import (
    ACTOR_PROP,
    ACTOR_VEHICLE,
    ACTOR_WALKER,
    LIGHT_GREEN,
    LIGHT_RED,
    LIGHT_YELLOW,
    ActorStates,
    EgoState,
    Frame,
    LightStates,
    RouteAhead,
    Scenario,
    Waypoint,
    default_rig,
)  # fmt: skip
from drivesim.planning.blockade import Blockade
from drivesim.planning.constant_velocity import ConstantVelocityPlanner
from drivesim.planning.expert import ExpertConfig, ExpertPlanner, expert_action
from drivesim.planning.forecast import forecast
from drivesim.planning.reference_path import SampledRoute, drive_onto, route_line

RNG = np.random.default_rng(0)
SCENARIO = Scenario("unit-v1", "Drivetown", "", (Waypoint(0, 0), Waypoint(100, 0)), 30.0)

Actor = tuple[int, float, float, float, float, float]  # kind, x, y, yaw, vx, vy


def actors_of(*rows: Actor) -> ActorStates:
    if not rows:
        return ActorStates.empty()
    sizes = {ACTOR_VEHICLE: (4.6, 1.9, 1.5), ACTOR_WALKER: (0.5, 0.5, 1.8), ACTOR_PROP: (1.0, 1.0, 1.0)}
    return ActorStates(
        ids=np.arange(len(rows), dtype=np.int64),
        kinds=np.array([row[0] for row in rows], np.uint8),
        pose=np.array([(row[1], row[2], 0.0, row[3]) for row in rows]),
        size_m=np.array([sizes[row[0]] for row in rows]),
        velocity_mps=np.array([row[4:6] for row in rows]),
    )


def frame_of(
    *rows: Actor, speed: float = 8.0, light: tuple[float, int] | None = None, points: np.ndarray | None = None,
    time_us: int = 0, limit: float = 10.0,
) -> Frame:  # fmt: skip
    """The ego at the world's origin, heading along x, on a straight route unless `points` are given."""
    if points is None:
        points = np.column_stack([np.arange(-2.0, 98.0), np.zeros(100)])
    lights = LightStates.empty()
    if light is not None:
        lights = LightStates(np.array([light[1]], np.uint8), np.array([[light[0], 0.0, 0.0, 0.0]]), np.array([1.75]))
    route = RouteAhead(points, np.full(len(points), limit), 200.0)
    return Frame(time_us, None, EgoState(time_us, 0, 0, 0, 0, 0, 0, speed, 0, 0), actors_of(*rows), lights, route)


def plan_for(frame: Frame, config: ExpertConfig | None = None):  # type: ignore[no-untyped-def]
    plan = ExpertPlanner(config).plan_frame(frame)
    plan.trajectory.validate()
    assert plan.trajectory.poses.shape == (16, 3) and plan.actions.shape == (16, 2)
    assert plan.trajectory.times_s[-1] == pytest.approx(4.0)
    return plan


class TestExpert:
    def test_an_empty_road_is_driven_at_the_limit(self) -> None:
        plan = plan_for(frame_of(speed=10.0))
        assert plan.trajectory.speeds_mps[-1] == pytest.approx(10.0, abs=0.5)
        assert np.abs(plan.trajectory.poses[:, 1]).max() < 0.05

    def test_it_starts_from_rest(self) -> None:
        assert plan_for(frame_of(speed=0.0)).trajectory.speeds_mps[-1] > 5.0

    def test_it_stops_behind_a_standing_car(self) -> None:
        plan = plan_for(frame_of((ACTOR_VEHICLE, 30.0, 0.0, 0.0, 0.0, 0.0)), ExpertConfig(overtakes=False))
        front = plan.trajectory.poses[-1, 0] + 1.44 + 4.79 / 2
        assert front < 30.0 - 2.3 and plan.trajectory.speeds_mps[-1] < 4.0
        ignorant = plan_for(frame_of((ACTOR_VEHICLE, 30.0, 0.0, 0.0, 0.0, 0.0)), ExpertConfig(ignore_vehicles=True))
        assert ignorant.trajectory.speeds_mps[-1] > 9.0

    def test_it_follows_a_slow_lead(self) -> None:
        plan = plan_for(frame_of((ACTOR_VEHICLE, 16.0, 0.0, 0.0, 4.0, 0.0)))
        assert 2.0 < plan.trajectory.speeds_mps[-1] < 6.0

    @pytest.mark.parametrize(("state", "stops"), [(LIGHT_RED, True), (LIGHT_YELLOW, True), (LIGHT_GREEN, False)])
    def test_lights(self, state: int, stops: bool) -> None:
        plan = plan_for(frame_of(light=(30.0, state)))
        front = plan.trajectory.poses[-1, 0] + 1.44 + 4.79 / 2
        assert (front < 30.0) == stops
        if stops:
            assert plan.trajectory.speeds_mps[-1] < 3.0

    def test_it_does_not_stop_for_a_yellow_that_it_cannot_make(self) -> None:
        assert plan_for(frame_of(light=(9.0, LIGHT_YELLOW), speed=10.0)).trajectory.speeds_mps[-1] > 8.0

    def test_a_risky_driver_runs_the_red_light(self) -> None:
        plan = plan_for(frame_of(light=(30.0, LIGHT_RED)), ExpertConfig(ignore_red=True))
        assert plan.trajectory.speeds_mps[-1] > 8.0

    def test_it_brakes_for_who_steps_out(self) -> None:
        walker = (ACTOR_WALKER, 22.0, -4.5, np.pi / 2, 0.0, 1.6)
        careful, careless = plan_for(frame_of(walker)), plan_for(frame_of(walker), ExpertConfig(ignore_walkers=True))
        assert careful.trajectory.poses[7, 0] < careless.trajectory.poses[7, 0] - 2.0
        assert careless.trajectory.speeds_mps[-1] > 9.0

    def test_it_gives_way_to_cross_traffic(self) -> None:
        crossing = (ACTOR_VEHICLE, 22.0, -24.0, np.pi / 2, 0.0, 8.0)
        plan = plan_for(frame_of(crossing, speed=8.0))
        ego_x = np.interp(3.0, plan.trajectory.times_s, plan.trajectory.poses[:, 0])
        assert plan.cost_terms["collision"] == 0.0
        assert ego_x + 3.84 < 22.0 - 0.95 or ego_x - 1.0 > 22.0 + 0.95

    def test_who_waits_at_a_red_light_is_not_expected_to_cross(self) -> None:
        crossing = (ACTOR_VEHICLE, 22.0, -16.0, np.pi / 2, 0.0, 6.0)
        frame = frame_of(crossing, speed=8.0)
        red = LightStates(np.array([LIGHT_RED], np.uint8), np.array([[22.0, -8.0, 0.0, np.pi / 2]]), np.array([1.75]))
        held = Frame(0, None, frame.ego, frame.actors, red, frame.route)
        assert plan_for(held).trajectory.poses[-1, 0] > plan_for(frame).trajectory.poses[-1, 0] + 3.0

    def test_who_follows_is_no_reason_to_flee(self) -> None:
        plan = plan_for(frame_of((ACTOR_VEHICLE, -8.0, 0.0, 0.0, 12.0, 0.0), speed=8.0))
        assert plan.trajectory.speeds_mps.max() < 11.0

    def test_it_slows_for_a_bend(self) -> None:
        angle = np.linspace(0, np.pi / 2, 14)
        bend = np.column_stack([20 + 8 * np.sin(angle), 8 * (1 - np.cos(angle))])
        points = np.concatenate([np.column_stack([np.arange(-2.0, 20.0), np.zeros(22)]), bend])
        exit_points = bend[-1] + np.column_stack([np.zeros(30), np.arange(1.0, 31.0)])
        plan = plan_for(frame_of(points=np.concatenate([points, exit_points])))
        assert plan.trajectory.speeds_mps.min() < 5.0

    def test_it_goes_around_who_is_parked_in_the_lane(self) -> None:
        plan = plan_for(frame_of((ACTOR_VEHICLE, 30.0, -1.0, 0.0, 0.0, 0.0), speed=6.0))
        assert plan.diagnostics["offset_m"] > 1.0
        assert plan.trajectory.speeds_mps[-1] > 3.0

    def test_it_drives_with_a_lateral_offset(self) -> None:
        plan = plan_for(frame_of(speed=8.0), ExpertConfig(lateral_offset_m=0.8))
        assert plan.trajectory.poses[-1, 1] == pytest.approx(0.8, abs=0.15)

    def test_a_mirrored_world_gets_a_mirrored_plan(self) -> None:
        rows = [(ACTOR_VEHICLE, 25.0, 3.5, np.pi, -6.0, 0.0), (ACTOR_WALKER, 18.0, -4.0, np.pi / 2, 0.0, 1.2)]
        flipped = [(kind, x, -y, -yaw, vx, -vy) for kind, x, y, yaw, vx, vy in rows]
        left = plan_for(frame_of(*rows), ExpertConfig(overtakes=False))
        right = plan_for(frame_of(*flipped), ExpertConfig(overtakes=False))
        assert np.allclose(left.trajectory.poses * [1, -1, -1], right.trajectory.poses, atol=1e-6)
        assert np.allclose(left.trajectory.speeds_mps, right.trajectory.speeds_mps, atol=1e-6)

    def test_the_same_frame_gives_the_same_plan(self) -> None:
        frame = frame_of((ACTOR_VEHICLE, 20.0, 0.0, 0.0, 3.0, 0.0))
        assert np.array_equal(plan_for(frame).trajectory.poses, plan_for(frame).trajectory.poses)

    def test_it_is_privileged(self) -> None:
        planner = ExpertPlanner()
        planner.reset(SCENARIO, default_rig(), 0)
        assert planner.privileged and planner.name == "expert"
        with pytest.raises(ValueError, match="privileged"):
            planner.plan(frame_of().observation, None, RNG)

    def test_the_action_of_the_moment(self) -> None:
        acceleration, curvature = expert_action(frame_of((ACTOR_VEHICLE, 14.0, 0.0, 0.0, 0.0, 0.0), speed=9.0))
        assert acceleration < -3.0
        assert abs(curvature) < 0.05
        assert expert_action(frame_of(speed=3.0))[0] > 1.0

    def test_a_short_route_is_no_wall(self) -> None:
        points = np.column_stack([np.arange(-2.0, 6.0), np.zeros(8)])
        assert plan_for(frame_of(points=points)).trajectory.speeds_mps[-1] > 7.0


class TestForecast:
    def route(self) -> SampledRoute:
        return SampledRoute.from_line(route_line(np.column_stack([np.arange(-2.0, 98.0), np.zeros(100)]), 40.0))

    def test_everybody_goes_on(self) -> None:
        frame = frame_of((ACTOR_VEHICLE, 10.0, 0.0, 0.0, 5.0, 0.0), (ACTOR_WALKER, 10.0, 5.0, 0.0, 0.0, -1.0))
        found = forecast(frame, self.route(), 8)
        assert found.poses[0, -1] == pytest.approx([20.0, 0.0, 0.0], abs=0.05)
        assert found.poses[1, -1, :2] == pytest.approx([10.0, 3.0], abs=0.05)
        assert found.route_s_m == pytest.approx([10.0, 10.0], abs=0.05)
        assert found.route_offset_m == pytest.approx([0.0, 5.0], abs=0.05)

    def test_oncoming_traffic_keeps_its_lane_in_a_bend(self) -> None:
        angle = np.linspace(0, np.pi / 2, 60)
        line = route_line(np.column_stack([40 * np.sin(angle), 40 * (1 - np.cos(angle))]), 20.0)
        route = SampledRoute.from_line(line)
        x, y, yaw = line.at(30.0)
        heading = yaw + np.pi
        place = (x - 3.5 * np.sin(yaw), y + 3.5 * np.cos(yaw))
        frame = frame_of((ACTOR_VEHICLE, *place, heading, 8 * np.cos(heading), 8 * np.sin(heading)))
        found = forecast(frame, route, 8)
        offsets = [line.project(*pose[:2])[1] for pose in found.poses[0]]
        assert np.allclose(offsets, 3.5, atol=0.4)

    def test_bridges_are_not_in_the_way(self) -> None:
        frame = frame_of((ACTOR_VEHICLE, 10.0, 0.0, 0.0, 0.0, 0.0))
        frame.actors.pose[0, 2] = 6.0
        assert len(forecast(frame, self.route(), 4).ids) == 0


class TestBlockade:
    def seen(self, stop_s: float, seconds: float, *rows: Actor, moving_before: bool = False) -> list[int]:
        route, blockade = TestForecast().route(), Blockade()
        if moving_before:
            going = [(kind, x, y, yaw, 3.0, 0.0) for kind, x, y, yaw, _, _ in rows]
            blockade.blockers(0, forecast(frame_of(*going), route, 4), stop_s, 1.7)
        blockade.blockers(1, forecast(frame_of(*rows), route, 4), stop_s, 1.7)
        return blockade.blockers(int(seconds * 1e6), forecast(frame_of(*rows), route, 4), stop_s, 1.7)

    def test_a_queue_at_a_red_light_is_none(self) -> None:
        rows = ((ACTOR_VEHICLE, 20.0, 0.0, 0.0, 0.0, 0.0), (ACTOR_VEHICLE, 27.0, 0.0, 0.0, 0.0, 0.0))
        assert self.seen(31.0, 60.0, *rows) == []
        assert self.seen(np.inf, 60.0, *rows) == [0, 1]

    def test_who_stands_far_from_the_line_is(self) -> None:
        assert self.seen(80.0, 5.0, (ACTOR_VEHICLE, 20.0, 0.0, 0.0, 0.0, 0.0)) == [0]

    def test_who_drove_gets_more_patience(self) -> None:
        row = (ACTOR_VEHICLE, 20.0, 0.0, 0.0, 0.0, 0.0)
        assert self.seen(np.inf, 5.0, row, moving_before=True) == []
        assert self.seen(np.inf, 15.0, row, moving_before=True) == [0]

    def test_people_are_waited_for(self) -> None:
        assert self.seen(np.inf, 60.0, (ACTOR_WALKER, 20.0, 0.0, 0.0, 0.0, 0.0)) == []


class TestReferencePath:
    def test_it_settles_on_the_offset_and_stays_feasible(self) -> None:
        route = SampledRoute.from_line(route_line(np.column_stack([np.arange(-2.0, 98.0), np.full(100, -2.0)]), 40.0))
        path = drive_onto(route, 1.0, 60.0, 5.0)
        assert path.route_offset_m[0] == pytest.approx(2.0, abs=0.01)
        assert path.route_offset_m[-1] == pytest.approx(1.0, abs=0.05)
        assert np.abs(path.curvature_1pm).max() <= 0.3
        assert np.allclose(path.poses[0], 0.0)
        assert np.allclose(path.at(path.s_m), path.poses)


class TestConstantVelocity:
    def test_it_keeps_its_speed_and_ignores_everybody(self) -> None:
        planner = ConstantVelocityPlanner()
        planner.reset(SCENARIO, default_rig(), 0)
        frame = frame_of((ACTOR_VEHICLE, 9.0, 0.0, 0.0, 0.0, 0.0), light=(20.0, LIGHT_RED), speed=7.0)
        plan = planner.plan(frame.observation, None, RNG)
        assert np.allclose(plan.trajectory.speeds_mps, 7.0)
        slower = planner.plan(frame_of(speed=5.0).observation, None, RNG)
        assert slower.trajectory.speeds_mps[-1] == pytest.approx(7.0)

    def test_from_rest_it_takes_the_limit(self) -> None:
        planner = ConstantVelocityPlanner()
        planner.reset(SCENARIO, default_rig(), 0)
        plan = planner.plan(frame_of(speed=0.0, limit=6.0).observation, None, RNG)
        assert plan.trajectory.speeds_mps[-1] == pytest.approx(6.0)
        assert np.all(np.diff(plan.trajectory.speeds_mps) >= 0.0)
