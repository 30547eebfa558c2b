"""Lane changes of traffic vehicles: where a neighbour lane is, whether its gap is open, and cutting in."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.arrays import Actors, Roads, draw, lane_point
from drivesim.town.drivers import CHANGE_LEFT, CHANGE_RATE, CHANGE_TOTAL, COOLDOWN, CUT_GAP, OFFSET_FROM, SET_SPEED
from drivesim.town.paths import begin_path


@njit(cache=True, error_model="numpy")
def neighbour_place(roads: Roads, actors: Actors, row: int, side: int) -> tuple[int, float, float]:
    """Lane to the right (+1) or left (-1), arc length on it, and the row's offset from it; lane -1 for none."""
    lane = actors.path[row, 0]
    target = roads.lane_right[lane] if side > 0 else roads.lane_left[lane]
    if target < 0:
        return -1, 0.0, 0.0
    share = actors.lane_s[row] / max(roads.lane_length_m[lane], 0.1)
    s = share * roads.lane_length_m[target]
    for _ in range(2):
        x, y, _z, yaw = lane_point(roads, target, s)
        dx, dy = actors.xyz[row, 0] - x, actors.xyz[row, 1] - y
        s = min(max(s + math.cos(yaw) * dx + math.sin(yaw) * dy, 0.0), float(roads.lane_length_m[target]))
    x, y, _z, yaw = lane_point(roads, target, s)
    offset = math.cos(yaw) * (actors.xyz[row, 1] - y) - math.sin(yaw) * (actors.xyz[row, 0] - x)
    if abs(offset) > 6.0:
        return -1, 0.0, 0.0
    return target, s, offset


@njit(cache=True, error_model="numpy")
def _gap_is_open(actors: Actors, row: int, live: NDArray[np.int64], lateral_m: float, share: float) -> bool:
    """Whether the strip at lateral_m (right positive) beside a vehicle has room, as polite as `share` asks."""
    yaw, speed = actors.rotation[row, 2], actors.speed[row]
    c, s = math.cos(yaw), math.sin(yaw)
    for other in live:
        if other == row:
            continue
        dx, dy = actors.xyz[other, 0] - actors.xyz[row, 0], actors.xyz[other, 1] - actors.xyz[row, 1]
        along, side = c * dx + s * dy, c * dy - s * dx
        if abs(along) > 60.0 or abs(side - lateral_m) > 1.2 + actors.half_size[other, 1]:
            continue
        gap = abs(along) - actors.half_size[row, 0] - actors.half_size[other, 0]
        theirs = c * actors.velocity[other, 0] + s * actors.velocity[other, 1]
        closing = max(speed - theirs, 0.0) if along > 0.0 else max(theirs - speed, 0.0)
        if gap < 2.0 + share * (2.0 + 0.8 * speed) + 1.5 * closing:
            return False
    return True


@njit(cache=True, error_model="numpy")
def begin_change(roads: Roads, actors: Actors, row: int, side: int, duration_s: float) -> bool:
    """Move a vehicle to its neighbouring lane within duration_s; False where there is none."""
    target, s, offset = neighbour_place(roads, actors, row, side)
    if target < 0:
        return False
    driver = actors.traffic[row]
    begin_path(roads, actors, row, target, s)
    driver[OFFSET_FROM] = offset
    actors.lane_offset[row] = offset
    driver[CHANGE_TOTAL] = driver[CHANGE_LEFT] = max(duration_s, 0.5)
    driver[COOLDOWN] = duration_s + 5.0
    return True


@njit(cache=True, error_model="numpy")
def maybe_change(roads: Roads, actors: Actors, row: int, live: NDArray[np.int64], dt_s: float, stuck: bool) -> None:
    """By the dice (or because something slow is ahead) try a lane change where there is room."""
    driver = actors.traffic[row]
    lane = actors.path[row, 0]
    left_m = roads.lane_length_m[lane] - actors.lane_s[row]
    ends = actors.path[row, 1] < 0  # this lane leads nowhere
    rate = 1.0 if ends else driver[CHANGE_RATE] * (20.0 if stuck else 1.0)
    if draw(actors.actor_rng, row) > rate * dt_s or driver[CHANGE_LEFT] > 0.0 or roads.lane_junction[lane] >= 0:
        return
    free = driver[COOLDOWN] <= 0.0 and driver[SET_SPEED] < 0.0 and actors.speed[row] > 3.0 and actors.lane_s[row] > 8.0
    if not ends and (not free or left_m < 10.0 + 3.5 * actors.speed[row]):
        return
    side = 1 if draw(actors.actor_rng, row) < 0.5 else -1
    target, _, offset = neighbour_place(roads, actors, row, side)
    if target >= 0 and roads.lane_next[target, 0] >= 0 and _gap_is_open(actors, row, live, -offset, driver[CUT_GAP]):
        begin_change(roads, actors, row, side, 2.0 + 2.0 * draw(actors.actor_rng, row))
