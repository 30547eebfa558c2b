"""Contracts over every entry of the tables in `drivesim.build`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from drivesim.build import (
    NEEDS_CHECKPOINT,
    NEEDS_TOWN,
    PLANNERS,
    WORLDS,
    make_controller,
    make_planner,
    make_world,
    metrics,
)
from drivesim.config import ConfigError
from drivesim.datatypes import ActorStates, EgoState, Frame, LightStates, RouteAhead, Scenario, Waypoint, default_rig

SCENARIO = Scenario("contract-v1", "Drivetown", "", (Waypoint(0, 0), Waypoint(100, 0)), 20.0)


def a_frame(speed_mps: float, time_us: int = 0) -> Frame:
    """A straight road, nobody there, pictures of noise."""
    rig = default_rig()
    shape = (len(rig.cameras), rig.cameras[0].height_px, rig.cameras[0].width_px, 3)
    images = np.random.default_rng(5).integers(0, 255, shape, dtype=np.uint8)
    ego = EgoState(time_us, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, speed_mps, 0.0, 0.0)
    route = RouteAhead(np.column_stack([np.arange(100.0), np.zeros(100)]), np.full(100, 8.0), 99.0)
    return Frame(time_us, images, ego, ActorStates.empty(), LightStates.empty(), route)


@pytest.mark.parametrize("name", sorted(PLANNERS))
@pytest.mark.parametrize("speed_mps", [0.0, 7.0])
def test_planners_plan(name: str, speed_mps: float) -> None:
    try:
        planner = make_planner(name)
    except (OSError, ValueError) as error:
        if name in NEEDS_CHECKPOINT and "checkpoint" in str(error):
            pytest.skip(str(error))
        raise
    planner.reset(SCENARIO, default_rig(), 0)
    controller = make_controller()
    controller.reset()
    world = make_world("town")
    for tick in range(3):
        frame = a_frame(speed_mps, tick * 250_000)
        if name in NEEDS_TOWN:  # it tries its futures out in a town, which must be there
            planner.enter(world)  # type: ignore[attr-defined]
            frame = world.reset(replace(SCENARIO, initial_speed_mps=speed_mps), tick)
        truth = frame if planner.privileged else None
        plan = planner.plan(frame.observation, truth, np.random.default_rng(tick))
        plan.trajectory.validate()
        steps = len(plan.trajectory.times_s)
        assert plan.trajectory.times_s[-1] >= 2.0, "a plan reaches at least two seconds ahead"
        assert plan.actions.shape == (steps, 2) and np.isfinite(plan.actions).all()
        assert np.abs(plan.trajectory.poses[:, 1]).max() < 2.0, "the road is straight"
        if plan.candidates is not None:
            assert plan.candidates.shape[1:] == (steps, 3)
        controller.control(plan, frame.ego, frame.ego).validate()


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="constant-velocity"):
        make_planner("constant-velocty")
    with pytest.raises(ConfigError, match="town"):
        make_world("twon")
    with pytest.raises(ConfigError, match="cannot import"):
        make_planner("no.such.module:Planner")
    with pytest.raises(ConfigError, match="lacks"):
        make_planner("collections:OrderedDict")


def test_a_planner_from_outside() -> None:
    assert make_planner("drivesim.planning.constant_velocity:ConstantVelocityPlanner").name == "constant-velocity"


def test_tables_hold_what_the_house_promises() -> None:
    assert {"latent", "behaviour-cloning", "constant-velocity", "expert"} <= set(PLANNERS)
    assert {"town", "carla"} <= set(WORLDS)
    assert "driving_score" in metrics()


def test_the_baseline_does_not_load_torch() -> None:
    code = "import sys, drivesim.build as b; b.make_planner('constant-velocity'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
