"""Exact branches of a logged drive: the same state under another action, driven in the embedded town.

A log of the embedded world holds its whole state per tick, so a branch is what would have happened.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from drivesim.control.tracker import TrajectoryTracker
from drivesim.datatypes import EgoState, Frame, Plan, RouteAhead, Trajectory
from drivesim.geometry.bicycle import actions_from_motion
from drivesim.logs.truth import READOUT_COLUMNS, readouts
from drivesim.planning.proposals import STEP_S, drive_route
from drivesim.town.render import TownRenderer
from drivesim.town.state import TownState
from drivesim.town.town import Town
from drivesim.worlds.carla_frames import mirrored, pose_from_carla
from drivesim.worlds.ego_motion import EgoMotion
from drivesim.worlds.routes import lane_map
from drivesim.worlds.town_world import SCENERY_SEED, actor_states, light_states

Array = NDArray[np.float64]
DT_S = 0.05


@lru_cache(maxsize=2)
def _town(name: str) -> Town:
    return Town(lane_map(name).network)


@lru_cache(maxsize=8)
def _renderer(town: str, scenery: int) -> TownRenderer:
    return TownRenderer(lane_map(town).network, seed=scenery)


def stage(town: str, scenery: int = SCENERY_SEED) -> tuple[Town, TownRenderer]:
    """A town and its renderer, kept between logs of the same town.

    Args:
        scenery: the seed by which houses, trees and props are placed; by default as where it is driven in.
    """
    return _town(town), _renderer(town, scenery)


def ego_of(town: Town, row: int, motion: EgoMotion, time_us: int) -> EgoState:
    """The ego's state after a step of a branch."""
    state = town.state
    return motion.state(time_us, pose_from_carla(state.xyz[row], state.rotation[row]), velocity_of(town, row))


def velocity_of(town: Town, row: int) -> tuple[float, float]:
    """An actor's velocity in our frame."""
    velocity = mirrored(town.state.velocity[row, :2])
    return float(velocity[0]), float(velocity[1])


def drive_branch(
    town: Town, state: TownState, ego_row: int, ego: EgoState, route: RouteAhead, profile: Array
) -> tuple[list[tuple[TownState, EgoState]], Array]:
    """Leave a state under an acceleration profile: the states every half second, and the actions (h, 2) realised."""
    town.restore(state)
    motion = EgoMotion()
    motion.state(
        ego.time_us, pose_from_carla(town.state.xyz[ego_row], town.state.rotation[ego_row]), velocity_of(town, ego_row)
    )
    future = drive_route(ego.speed_mps, route, profile[None], obey_caps=False)
    times = np.arange(1.0, len(profile) + 1.0) * STEP_S
    plan = Plan(Trajectory(times, future.poses[0], future.speeds_mps[0]), future.actions[0])
    tracker, now, path = TrajectoryTracker(), ego, [ego]
    ticks = round(STEP_S / DT_S)
    after = []
    for _ in range(len(profile)):
        for _ in range(ticks):
            control = tracker.control(plan, ego, now)
            town.set_control(ego_row, control.throttle, -control.steer, control.brake)
            town.step(DT_S)
            now = ego_of(town, ego_row, motion, now.time_us + round(DT_S * 1e6))
        after.append((town.copy_state(), now))
        path.append(now)
    poses = np.array([[e.x_m, e.y_m, e.yaw_rad] for e in path])
    return after, np.clip(
        actions_from_motion(poses, np.array([e.speed_mps for e in path]), STEP_S), [-8, -0.3], [5, 0.3]
    )


def branch_readouts(town: Town, state: TownState, ego_row: int, ego: EgoState, start: Frame) -> list[float]:
    """READOUT_COLUMNS after some steps of a branch."""
    town.restore(state)
    world = start.ego.world_from_ego.apply(np.pad(start.route.points_m, ((0, 0), (0, 1))))
    points = ego.world_from_ego.inverse().apply(world)[:, :2]
    route = RouteAhead(points, start.route.speed_limit_mps, start.route.remaining_m)
    found = readouts(Frame(ego.time_us, None, ego, actor_states(town, ego_row), light_states(town), route))
    return [found[name] for name in READOUT_COLUMNS]
