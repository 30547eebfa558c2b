"""A straight street made by hand: two lanes, two sidewalks, one light with its stop line, a crosswalk."""

from __future__ import annotations

import numpy as np

from drivesim.town.catalogue import model_row
from drivesim.town.roads import LANE_DRIVING, LANE_SIDEWALK, MARK_BROKEN, MARK_SOLID, RoadNetwork
from drivesim.town.state import KIND_VEHICLE, KIND_WALKER, TownState

LENGTH_M, LANE_M, WALK_M = 160.0, 3.5, 2.5
STOP_X_M = 90.0


def straight_street() -> RoadNetwork:
    """Lane 0 drives along +x at y = 1.75 (right-hand traffic, y is right), lane 1 back; lanes 2, 3 are sidewalks."""
    steps = np.arange(0.0, LENGTH_M + 0.5, 1.0)
    n, f = len(steps), np.float32
    sides = [(1.75, 1, LANE_M), (-1.75, -1, LANE_M), (3.5 + WALK_M / 2, 1, WALK_M), (-3.5 - WALK_M / 2, -1, WALK_M)]
    xyz = [np.column_stack([steps[::d], np.full(n, y), np.zeros(n)]) for y, d, _ in sides]
    mark = [np.column_stack([steps, np.full(n, y), np.zeros(n)]) for y in (0.0, -3.4, 3.4)]
    walk = np.array([[94.0, -3.5, 0], [97.0, -3.5, 0], [97.0, 3.5, 0], [94.0, 3.5, 0]])
    none, i32, u8 = np.full(4, -1), np.int32, np.uint8
    return RoadNetwork(
        name="Street",
        point_xyz_m=np.concatenate(xyz).astype(f),
        point_yaw_rad=np.repeat([0.0, np.pi, 0.0, np.pi], n).astype(f),
        point_width_m=np.repeat([w for _, _, w in sides], n).astype(f),
        point_s_m=np.tile(steps, 4).astype(f),
        point_curvature_1pm=np.zeros(4 * n, f),
        point_speed_limit_mps=np.full(4 * n, 13.9, f),
        lane_start=(np.arange(4) * n).astype(i32),
        lane_count=np.full(4, n, i32),
        lane_length_m=np.full(4, LENGTH_M, f),
        lane_kind=np.array([LANE_DRIVING, LANE_DRIVING, LANE_SIDEWALK, LANE_SIDEWALK], u8),
        lane_road=np.zeros(4, i32),
        lane_section=np.zeros(4, i32),
        lane_opendrive_id=np.array([-1, 1, -2, 2], i32),
        lane_junction=none.astype(i32),
        lane_next=np.full((4, 6), -1, i32),
        lane_previous=np.full((4, 6), -1, i32),
        lane_left=none.astype(i32),
        lane_right=none.astype(i32),
        lane_light=np.array([0, -1, -1, -1], i32),
        lane_yields=np.zeros(4, u8),
        conflict_start=np.zeros(5, i32),
        conflict_lane=np.zeros(0, i32),
        light_signal_id=np.array(["1"]),
        light_xyz_m=np.array([[110.0, 4.6, 0.0]], f),
        light_yaw_rad=np.array([np.pi], f),
        light_group=np.zeros(1, i32),
        light_phase=np.zeros(1, i32),
        stop_xyz_m=np.array([[STOP_X_M, 1.75, 0.0]], f),
        stop_yaw_rad=np.zeros(1, f),
        stop_half_width_m=np.full(1, LANE_M / 2, f),
        stop_lane=np.zeros(1, i32),
        stop_light=np.zeros(1, i32),
        mark_xyz_m=np.concatenate(mark).astype(f),
        mark_start=(np.arange(3) * n).astype(i32),
        mark_count=np.full(3, n, i32),
        mark_kind=np.array([MARK_BROKEN, MARK_SOLID, MARK_SOLID], u8),
        mark_color=np.array([1, 0, 0], u8),
        mark_width_m=np.full(3, 0.15, f),
        crosswalk_xyz_m=walk.astype(f),
        crosswalk_start=np.zeros(1, i32),
        crosswalk_count=np.full(1, 4, i32),
        spawn_xyz_m=np.array([[20.0, 1.75, 0.0]], f),
        spawn_yaw_rad=np.zeros(1, f),
        spawn_lane=np.zeros(1, i32),
        spawn_s_m=np.full(1, 20.0, f),
        grid_origin_m=np.zeros(2, f),
        grid_shape=np.ones(2, i32),
        grid_cell_m=np.full(1, 1000.0, f),
        grid_start=np.array([0, 2 * n], i32),
        grid_point=np.arange(2 * n).astype(i32),
        point_lane=np.repeat(np.arange(4), n).astype(i32),
    )


def put(state: TownState, row: int, blueprint: str, x: float, y: float, yaw: float = 0.0) -> None:
    """Stand an actor on the street."""
    from drivesim.town.catalogue import MODELS

    model = MODELS[model_row(blueprint)]
    state.kind[row] = KIND_WALKER if model.base_type == "pedestrian" else KIND_VEHICLE
    state.actor_id[row], state.model[row] = 100 + row, model_row(blueprint)
    state.xyz[row], state.rotation[row] = (x, y, 0.0), (0.0, 0.0, yaw)
    state.half_size[row] = model.length_m / 2, model.width_m / 2, model.height_m / 2
    state.wheelbase[row] = model.wheelbase_m
    state.tint[row] = (200, 30, 30)


def busy_street() -> TownState:
    """Three vehicles and two walkers around x = 20..60."""
    state = TownState.empty(8, 1, 1)
    put(state, 0, "vehicle.tesla.model3", 40.0, 1.75)
    put(state, 1, "vehicle.tesla.model3", 52.0, -1.75, np.pi)
    put(state, 2, "vehicle.tesla.model3", 66.0, 1.75, 0.3)
    put(state, 3, "walker.pedestrian.0001", 38.0, 4.8, 1.0)
    put(state, 4, "walker.pedestrian.0001", 45.0, -4.8, -2.0)
    return state
