"""The town's own people: they stroll along sidewalks, cross at crosswalks when it is safe, and some step out anywhere.

A strolling walker chases a point on its walking line (a sidewalk; the road's edge where there is none).
Its character and timers are the columns of `TownState.traffic` named below; nothing else is remembered.
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from drivesim.town.arrays import Actors, Roads, draw, lane_point, wrap_angle
from drivesim.town.roads import LANE_DRIVING, LANE_SHOULDER, LANE_SIDEWALK, RoadNetwork
from drivesim.town.state import KIND_FREE, KIND_VEHICLE, KIND_WALKER, POLICY_EXTERNAL, POLICY_WALKER

# columns of TownState.traffic for POLICY_WALKER; a steered walker (POLICY_EXTERNAL) has the first two
(
    WALK_MODE,
    WALK_TIMER,  # s, meaning depends on the mode
    WALK_SPEED,  # m/s
    WALK_LANE,  # lane of its walking line
    WALK_S,  # m, place of the point it chases
    WALK_WAY,  # +1 or -1 along the lane
    WALK_SIDE,  # m, its own line beside the walking line
    GOAL_X,
    GOAL_Y,
    GOAL_Z,
    GOAL_LANE,  # walking line it joins after its goal, or -1
    GOAL_S,
    CROSS_X,  # far end of the crosswalk it is going to
    CROSS_Y,
    CROSS_Z,
    CROSS_LANE,
    CROSS_S,
    CROSS_RATE,  # per s beside a crosswalk
    JAYWALK_RATE,  # per s, anywhere
    HURRY,  # factor of its speed on the road
) = range(20)
MODE_STROLL, MODE_APPROACH, MODE_WAIT, MODE_CROSS, MODE_FALLEN, MODE_STAND = range(6)

LOOK_M, CROSSWALK_REACH_M = 1.5, 6.0
SAFE_S, PATIENCE_S = 4.5, 20.0
EDGE_M = 0.9  # beside the outermost lane, where a road has no sidewalk


class WalkTable(NamedTuple):
    """Where people can walk and cross; rows of `line_*` are points of walking lines."""

    lane_offset_m: NDArray[np.float64]  # (L,) lateral offset of the walking line; NaN for lanes without one
    line_lane: NDArray[np.int32]  # (W,) lane of each walking-line point
    line_s_m: NDArray[np.float64]
    line_xyz_m: NDArray[np.float64]  # (W, 3)
    lane_first: NDArray[np.int32]  # (L,) first of a lane's points in `line_*`, -1 for none
    lane_points: NDArray[np.int32]
    opposite: NDArray[np.int32]  # (W,) walking-line point across the road, -1 for none
    crosswalk_end_m: NDArray[np.float64]  # (C, 2, 3)
    crosswalk_line: NDArray[np.int32]  # (C, 2) walking-line point next to each end


def walk_table(network: RoadNetwork) -> WalkTable:
    """Derive walking lines and crossings from a network: sidewalks, else shoulders, else the edges of the road."""
    offset = _walking_offsets(network)
    chosen = np.flatnonzero(~np.isnan(offset[network.point_lane]))
    lane = network.point_lane[chosen].astype(np.int32)
    yaw = network.point_yaw_rad[chosen].astype(np.float64)
    xyz = network.point_xyz_m[chosen].astype(np.float64)
    xyz[:, 0] -= offset[lane] * np.sin(yaw)
    xyz[:, 1] += offset[lane] * np.cos(yaw)
    first = np.full(len(network.lane_start), -1, np.int32)
    points = np.zeros(len(network.lane_start), np.int32)
    lanes, start, counts = np.unique(lane, return_index=True, return_counts=True)
    first[lanes], points[lanes] = start, counts
    ends = _crosswalk_ends(network)
    line_s = network.point_s_m[chosen].astype(np.float64)
    if len(xyz) == 0:
        none = np.zeros(0, np.int32)
        return WalkTable(offset, lane, line_s, xyz, first, points, none, ends[:0], np.zeros((0, 2), np.int32))
    tree = cKDTree(xyz[:, :2])
    nearest = (
        tree.query(ends[:, :, :2].reshape(-1, 2))[1].reshape(-1, 2).astype(np.int32)
        if len(ends)
        else np.zeros((0, 2), np.int32)
    )
    return WalkTable(offset, lane, line_s, xyz, first, points, _opposites(network, xyz, yaw, lane, tree), ends, nearest)


def _walking_offsets(network: RoadNetwork) -> NDArray[np.float64]:
    offset = np.full(len(network.lane_start), np.nan)
    for kind in (LANE_SIDEWALK, LANE_SHOULDER):
        if np.any(network.lane_kind == kind):
            offset[network.lane_kind == kind] = 0.0
            return offset
    edge = (network.lane_kind == LANE_DRIVING) & (network.lane_right < 0) & (network.lane_junction < 0)
    offset[edge] = 0.5 * network.point_width_m[network.lane_start[edge]] + EDGE_M
    return offset


def _crosswalk_ends(network: RoadNetwork) -> NDArray[np.float64]:
    """The two ends (C, 2, 3) of each crosswalk: the middles of its two short sides, seen along its longer axis."""
    ends = []
    for start, count in zip(network.crosswalk_start, network.crosswalk_count, strict=True):
        corner = network.crosswalk_xyz_m[start : start + count].astype(np.float64)
        if len(corner) < 3:
            continue
        middle = corner.mean(0)
        _, _, axes = np.linalg.svd(corner[:, :2] - middle[:2])
        reach = np.abs((corner[:, :2] - middle[:2]) @ axes[0]).max()
        step = np.array([axes[0, 0] * reach, axes[0, 1] * reach, 0.0])
        ends.append((middle - step, middle + step))
    return np.array(ends, np.float64).reshape(-1, 2, 3)


def _opposites(
    network: RoadNetwork, xyz: NDArray[np.float64], yaw: NDArray[np.float64], lane: NDArray[np.int32], tree: cKDTree
) -> NDArray[np.int32]:
    """For each walking-line point the point of another line straight across a road, -1 where there is none."""
    opposite = np.full(len(xyz), -1, np.int32)
    driving = network.point_xyz_m[network.lane_kind[network.point_lane] == LANE_DRIVING, :2]
    if len(driving) == 0:
        return opposite
    roads = cKDTree(driving)
    normal = np.stack([-np.sin(yaw), np.cos(yaw)], 1)
    for sign in (-1.0, 1.0):
        for reach in np.arange(6.0, 24.0, 1.0):
            open_rows = np.flatnonzero(opposite < 0)
            target = xyz[open_rows, :2] + sign * reach * normal[open_rows]
            distance, found = tree.query(target)
            halfway, _ = roads.query(0.5 * (target + xyz[open_rows, :2]))
            good = (distance < 1.0) & (lane[found] != lane[open_rows]) & (halfway < 2.5)
            good &= np.abs(xyz[found, 2] - xyz[open_rows, 2]) < 1.0
            opposite[open_rows[good]] = found[good]
    return opposite


@njit(cache=True, error_model="numpy")
def _line_point(roads: Roads, table: WalkTable, lane: int, s: float, side: float) -> tuple[float, float, float, float]:
    x, y, z, yaw = lane_point(roads, lane, s)
    offset = table.lane_offset_m[lane] + side
    return x - offset * math.sin(yaw), y + offset * math.cos(yaw), z, yaw


@njit(cache=True, error_model="numpy")
def _line_index(table: WalkTable, lane: int, s: float, length: float) -> int:
    last = table.lane_points[lane] - 1
    return table.lane_first[lane] + min(max(int(s / max(length, 0.01) * last + 0.5), 0), last)


@njit(cache=True, error_model="numpy")
def start_walker(roads: Roads, table: WalkTable, actors: Actors, row: int, point: int, jaywalks: float) -> None:
    """Roll a character for a new walker and put it on a walking-line point."""
    rng = actors.actor_rng
    walker = actors.traffic[row]
    walker[:] = 0.0
    walker[WALK_SPEED] = 1.0 + 0.6 * draw(rng, row)
    walker[WALK_WAY] = 1.0 if draw(rng, row) < 0.5 else -1.0
    walker[WALK_SIDE] = 0.8 * (draw(rng, row) - 0.5)
    walker[HURRY] = 1.0 + draw(rng, row) ** 2
    walker[CROSS_RATE] = 0.1 + 0.3 * draw(rng, row)
    walker[JAYWALK_RATE] = jaywalks * 0.02 * draw(rng, row) ** 2
    join_line(actors, row, table.line_lane[point], table.line_s_m[point])
    x, y, z, yaw = _line_point(roads, table, table.line_lane[point], table.line_s_m[point], walker[WALK_SIDE])
    actors.xyz[row, 0], actors.xyz[row, 1], actors.xyz[row, 2] = x, y, z
    actors.rotation[row, 2] = yaw if walker[WALK_WAY] > 0.0 else wrap_angle(yaw + math.pi)


@njit(cache=True, error_model="numpy")
def join_line(actors: Actors, row: int, lane: int, s: float) -> None:
    """Go on strolling from a place on a walking line."""
    walker = actors.traffic[row]
    walker[WALK_MODE] = MODE_STROLL if lane >= 0 else MODE_STAND
    walker[WALK_LANE], walker[WALK_S], walker[WALK_TIMER] = lane, s, 0.0
    actors.rotation[row, 0] = 0.0  # upright, whoever lay


@njit(cache=True, error_model="numpy")
def _advance_target(roads: Roads, table: WalkTable, actors: Actors, row: int) -> tuple[float, float, float]:
    """The point on the walking line that the walker chases, moved on until it is LOOK_M away."""
    walker = actors.traffic[row]
    lane = int(walker[WALK_LANE])
    x, y, z, _ = _line_point(roads, table, lane, walker[WALK_S], walker[WALK_SIDE])
    for _ in range(8):
        if math.hypot(x - actors.xyz[row, 0], y - actors.xyz[row, 1]) >= LOOK_M:
            break
        walker[WALK_S] += 0.5 * walker[WALK_WAY]
        if walker[WALK_S] < 0.0 or walker[WALK_S] > roads.lane_length_m[lane]:
            lane = _next_line(roads, table, actors, row, lane)
        x, y, z, _ = _line_point(roads, table, lane, walker[WALK_S], walker[WALK_SIDE])
    return x, y, z


@njit(cache=True, error_model="numpy")
def _next_line(roads: Roads, table: WalkTable, actors: Actors, row: int, lane: int) -> int:
    """The walking line after the end of this one; without one the walker turns round."""
    walker = actors.traffic[row]
    forward = walker[WALK_WAY] > 0.0
    ex, ey, _, _ = _line_point(roads, table, lane, float(roads.lane_length_m[lane]) if forward else 0.0, 0.0)
    for k in range(6):
        candidate = roads.lane_next[lane, k] if forward else roads.lane_previous[lane, k]
        if candidate < 0 or math.isnan(table.lane_offset_m[candidate]):
            continue
        length = float(roads.lane_length_m[candidate])
        for end in range(2):
            x, y, _, _ = _line_point(roads, table, candidate, end * length, 0.0)
            if math.hypot(x - ex, y - ey) < 2.5:
                walker[WALK_LANE], walker[WALK_S] = candidate, end * length
                walker[WALK_WAY] = 1.0 if end == 0 else -1.0
                return candidate
    walker[WALK_WAY] = -walker[WALK_WAY]
    walker[WALK_S] = min(max(walker[WALK_S], 0.0), float(roads.lane_length_m[lane]))
    return lane


@njit(cache=True, error_model="numpy")
def crossing_is_safe(
    actors: Actors, live: NDArray[np.int64], ax: float, ay: float, bx: float, by: float, seconds: float
) -> bool:
    """Whether no vehicle comes over the line from a to b within some seconds at its present speed."""
    for row in live:
        if actors.kind[row] != KIND_VEHICLE:
            continue
        speed = actors.speed[row]
        c, s = math.cos(actors.rotation[row, 2]), math.sin(actors.rotation[row, 2])
        for k in range(5):
            px, py = ax + 0.25 * k * (bx - ax), ay + 0.25 * k * (by - ay)
            along = c * (px - actors.xyz[row, 0]) + s * (py - actors.xyz[row, 1])
            across = abs(c * (py - actors.xyz[row, 1]) - s * (px - actors.xyz[row, 0]))
            front = along - actors.half_size[row, 0]
            near = front > -2.0 * actors.half_size[row, 0] and front < max(speed, 0.0) * seconds + 1.0
            if across < 3.0 and near and (speed > 0.5 or front < 0.5):
                return False
    return True


@njit(cache=True, error_model="numpy")
def _set_goal(actors: Actors, row: int, mode: int, table: WalkTable, point: int) -> None:
    walker = actors.traffic[row]
    walker[WALK_MODE], walker[WALK_TIMER] = mode, 0.0
    walker[GOAL_X], walker[GOAL_Y], walker[GOAL_Z] = (
        table.line_xyz_m[point, 0],
        table.line_xyz_m[point, 1],
        table.line_xyz_m[point, 2],
    )
    walker[GOAL_LANE], walker[GOAL_S] = table.line_lane[point], table.line_s_m[point]


@njit(cache=True, error_model="numpy")
def _maybe_cross(
    roads: Roads, table: WalkTable, actors: Actors, row: int, live: NDArray[np.int64], dt_s: float
) -> None:
    """By the dice: turn to a crosswalk that is near, or step out right here (rather when somebody is coming)."""
    walker = actors.traffic[row]
    if draw(actors.actor_rng, row) < walker[CROSS_RATE] * dt_s:
        for k in range(len(table.crosswalk_end_m)):
            for end in range(2):
                place = table.crosswalk_end_m[k, end]
                if math.hypot(place[0] - actors.xyz[row, 0], place[1] - actors.xyz[row, 1]) < CROSSWALK_REACH_M:
                    _head_for_crosswalk(table, actors, row, k, end)
                    return
    roll = draw(actors.actor_rng, row)
    if roll > 12.0 * walker[JAYWALK_RATE] * dt_s:
        return
    lane = int(walker[WALK_LANE])
    point = _line_index(table, lane, walker[WALK_S], float(roads.lane_length_m[lane]))
    across = table.opposite[point]
    if across < 0:
        return
    x, y, goal = actors.xyz[row, 0], actors.xyz[row, 1], table.line_xyz_m[across]
    # not right under a bumper (nobody could stop), but gladly within a few seconds of one
    surely = not crossing_is_safe(actors, live, x, y, goal[0], goal[1], 1.6)
    tempting = not crossing_is_safe(actors, live, x, y, goal[0], goal[1], SAFE_S)
    if not surely and (tempting or roll < walker[JAYWALK_RATE] * dt_s):
        _set_goal(actors, row, MODE_CROSS, table, across)


@njit(cache=True, error_model="numpy")
def _head_for_crosswalk(table: WalkTable, actors: Actors, row: int, crosswalk: int, end: int) -> None:
    walker = actors.traffic[row]
    near, far = table.crosswalk_end_m[crosswalk, end], table.crosswalk_end_m[crosswalk, 1 - end]
    walker[WALK_MODE], walker[WALK_TIMER] = MODE_APPROACH, 0.0
    walker[GOAL_X], walker[GOAL_Y], walker[GOAL_Z] = near[0], near[1], near[2]
    walker[CROSS_X], walker[CROSS_Y], walker[CROSS_Z] = far[0], far[1], far[2]
    point = table.crosswalk_line[crosswalk, 1 - end]
    walker[CROSS_LANE], walker[CROSS_S] = table.line_lane[point], table.line_s_m[point]


@njit(cache=True, error_model="numpy")
def _walk_towards(actors: Actors, row: int, x: float, y: float, z: float, speed: float, dt_s: float) -> float:
    """Step towards a point; returns the distance that was left before the step."""
    dx, dy = x - actors.xyz[row, 0], y - actors.xyz[row, 1]
    distance = math.hypot(dx, dy)
    pace = min(speed, distance / dt_s)
    change = 4.0 * dt_s  # people start and stop within half a second
    pace = min(max(pace, actors.speed[row] - change), actors.speed[row] + change)
    pace = min(pace, distance / dt_s)
    vx, vy = (dx / distance * pace, dy / distance * pace) if distance > 1e-9 else (0.0, 0.0)
    actors.acceleration[row, 0] = (vx - actors.velocity[row, 0]) / dt_s
    actors.acceleration[row, 1] = (vy - actors.velocity[row, 1]) / dt_s
    actors.velocity[row, 0], actors.velocity[row, 1], actors.velocity[row, 2] = vx, vy, 0.0
    actors.speed[row] = pace
    actors.xyz[row, 0] += vx * dt_s
    actors.xyz[row, 1] += vy * dt_s
    if distance > 1e-9:
        actors.xyz[row, 2] += (z - actors.xyz[row, 2]) * min(pace * dt_s / distance, 1.0)
        if pace > 0.05:
            turn = wrap_angle(math.atan2(dy, dx) - actors.rotation[row, 2])
            actors.yaw_rate[row] = min(max(turn, -5.0 * dt_s), 5.0 * dt_s) / dt_s
            actors.rotation[row, 2] = wrap_angle(actors.rotation[row, 2] + actors.yaw_rate[row] * dt_s)
    return distance


@njit(cache=True, error_model="numpy")
def _body_ahead(actors: Actors, row: int, live: NDArray[np.int64], x: float, y: float) -> bool:
    """Whether a vehicle's body is right before a walker on its way to (x, y)."""
    dx, dy = x - actors.xyz[row, 0], y - actors.xyz[row, 1]
    distance = max(math.hypot(dx, dy), 1e-6)
    px, py = actors.xyz[row, 0] + 0.7 * dx / distance, actors.xyz[row, 1] + 0.7 * dy / distance
    for other in live:
        if actors.kind[other] != KIND_VEHICLE:
            continue
        ex, ey = px - actors.xyz[other, 0], py - actors.xyz[other, 1]
        c, s = math.cos(actors.rotation[other, 2]), math.sin(actors.rotation[other, 2])
        if (
            abs(c * ex + s * ey) < actors.half_size[other, 0] + 0.3
            and abs(c * ey - s * ex) < actors.half_size[other, 1] + 0.3
        ):
            return True
    return False


@njit(cache=True, error_model="numpy")
def _cross(actors: Actors, row: int, live: NDArray[np.int64], dt_s: float) -> None:
    """Go straight to the goal; wait at a body in the way, and turn back to the own line when it does not move."""
    walker = actors.traffic[row]
    x, y, z = walker[GOAL_X], walker[GOAL_Y], walker[GOAL_Z]
    if walker[GOAL_LANE] >= 0.0 and _body_ahead(actors, row, live, x, y):
        _walk_towards(actors, row, actors.xyz[row, 0], actors.xyz[row, 1], actors.xyz[row, 2], 0.0, dt_s)
        walker[WALK_TIMER] += dt_s
        if walker[WALK_TIMER] > 6.0:
            join_line(actors, row, int(walker[WALK_LANE]), walker[WALK_S])
    elif _walk_towards(actors, row, x, y, z, walker[WALK_SPEED] * walker[HURRY], dt_s) < 0.3:
        join_line(actors, row, int(walker[GOAL_LANE]), walker[GOAL_S])


@njit(cache=True, error_model="numpy")
def _step_one(roads: Roads, table: WalkTable, actors: Actors, row: int, live: NDArray[np.int64], dt_s: float) -> None:
    walker = actors.traffic[row]
    mode = int(walker[WALK_MODE])
    x, y, z = walker[GOAL_X], walker[GOAL_Y], walker[GOAL_Z]
    if mode == MODE_STROLL:
        _maybe_cross(roads, table, actors, row, live, dt_s)
        x, y, z = _advance_target(roads, table, actors, row)
        _walk_towards(actors, row, x, y, z, walker[WALK_SPEED], dt_s)
    elif mode == MODE_APPROACH:
        if _walk_towards(actors, row, x, y, z, walker[WALK_SPEED], dt_s) < 0.3:
            walker[WALK_MODE] = MODE_WAIT
    elif mode == MODE_WAIT:
        _walk_towards(actors, row, actors.xyz[row, 0], actors.xyz[row, 1], actors.xyz[row, 2], 0.0, dt_s)
        walker[WALK_TIMER] += dt_s
        seconds = SAFE_S if walker[WALK_TIMER] < PATIENCE_S else 2.5
        if crossing_is_safe(actors, live, x, y, walker[CROSS_X], walker[CROSS_Y], seconds):
            walker[WALK_MODE], walker[WALK_TIMER] = MODE_CROSS, 0.0
            walker[GOAL_X], walker[GOAL_Y], walker[GOAL_Z] = walker[CROSS_X], walker[CROSS_Y], walker[CROSS_Z]
            walker[GOAL_LANE], walker[GOAL_S] = walker[CROSS_LANE], walker[CROSS_S]
    elif mode == MODE_CROSS:
        _cross(actors, row, live, dt_s)
    else:
        _walk_towards(actors, row, actors.xyz[row, 0], actors.xyz[row, 1], actors.xyz[row, 2], 0.0, dt_s)
        walker[WALK_TIMER] -= dt_s
        if mode == MODE_FALLEN and walker[WALK_TIMER] <= 0.0:
            join_line(actors, row, int(walker[WALK_LANE]), walker[WALK_S])


@njit(cache=True, error_model="numpy")
def walks(actors: Actors, row: int) -> bool:
    """Is this somebody on foot who moves by their own legs, the town's or a steered one?"""
    policy = actors.policy[row]
    return actors.kind[row] == KIND_WALKER and policy in (POLICY_WALKER, POLICY_EXTERNAL)


@njit(cache=True, error_model="numpy")
def is_fallen(actors: Actors, row: int) -> bool:
    """Is this somebody on foot who was knocked down?"""
    return walks(actors, row) and actors.traffic[row, WALK_MODE] == MODE_FALLEN


@njit(cache=True, error_model="numpy", nogil=True)
def step_walkers(roads: Roads, table: WalkTable, actors: Actors, dt_s: float) -> None:
    """One tick of all the town's own walkers."""
    live = np.flatnonzero(actors.kind != KIND_FREE)
    for row in live:
        if actors.kind[row] == KIND_WALKER and actors.policy[row] == POLICY_WALKER:
            _step_one(roads, table, actors, row, live, dt_s)
