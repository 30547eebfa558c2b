"""The lanes a traffic vehicle has chosen ahead of it, and places along them."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.arrays import Actors, Roads, draw, lane_index, lane_point
from drivesim.town.drivers import PREVIOUS_LANE, RESERVED
from drivesim.town.roads import LANE_DRIVING

SAMPLE_M = 2.0
SAMPLES = 44  # the path ahead that a driver looks at: 88 m


@njit(cache=True, error_model="numpy")
def choose_next(roads: Roads, lane: int, rng: NDArray[np.uint64], row: int) -> int:
    """A successor of a lane by the dice of one row; a dead end only where there is nothing else; -1 for none."""
    options, dead = 0, -1
    for k in range(6):
        candidate = roads.lane_next[lane, k]
        if candidate >= 0 and roads.lane_kind[candidate] == LANE_DRIVING:
            if roads.lane_next[candidate, 0] >= 0:
                options += 1
            else:
                dead = candidate
    if options == 0:
        return dead
    pick = int(draw(rng, row) * options)
    for k in range(6):
        candidate = roads.lane_next[lane, k]
        if candidate >= 0 and roads.lane_kind[candidate] == LANE_DRIVING and roads.lane_next[candidate, 0] >= 0:
            if pick == 0:
                return candidate
            pick -= 1
    return dead


@njit(cache=True, error_model="numpy")
def fill_path(roads: Roads, path: NDArray[np.int32], rng: NDArray[np.uint64], row: int) -> None:
    """Extend the path of a row to its full length; path[row, 0] must be a lane."""
    for k in range(1, path.shape[1]):
        if path[row, k] < 0:
            if path[row, k - 1] < 0:
                return
            path[row, k] = choose_next(roads, path[row, k - 1], rng, row)


@njit(cache=True, error_model="numpy")
def begin_path(roads: Roads, actors: Actors, row: int, lane: int, s_m: float) -> None:
    """Put a row on a lane and let it choose its way from there."""
    actors.lane[row], actors.lane_s[row] = lane, s_m
    actors.path[row, :] = -1
    actors.path[row, 0] = lane
    actors.traffic[row, PREVIOUS_LANE] = -1.0
    actors.traffic[row, RESERVED] = -1.0
    fill_path(roads, actors.path, actors.actor_rng, row)


@njit(cache=True, error_model="numpy")
def path_point(roads: Roads, actors: Actors, row: int, s_m: float) -> tuple[float, float, float, float]:
    """x, y, z, yaw at arc length s of the row's current lane, going on over its path (or back over the last lane)."""
    path = actors.path[row]
    if s_m < 0.0:
        previous = int(actors.traffic[row, PREVIOUS_LANE])
        if previous >= 0:
            return lane_point(roads, previous, roads.lane_length_m[previous] + s_m)
        return lane_point(roads, path[0], s_m)
    k = 0
    while s_m > roads.lane_length_m[path[k]] and k + 1 < len(path) and path[k + 1] >= 0:
        s_m -= roads.lane_length_m[path[k]]
        k += 1
    return lane_point(roads, path[k], s_m)


@njit(cache=True, error_model="numpy")
def sample_path(roads: Roads, actors: Actors, row: int, horizon_m: float, sample: NDArray[np.float64]) -> int:
    """Fill (x, y, yaw, speed limit) each SAMPLE_M ahead of the box's centre; returns how many."""
    path = actors.path[row]
    k, s = 0, actors.lane_s[row]
    count = min(int(horizon_m / SAMPLE_M) + 2, len(sample))
    for i in range(count):
        while s > roads.lane_length_m[path[k]]:
            if k + 1 >= len(path) or path[k + 1] < 0:
                return i
            s -= roads.lane_length_m[path[k]]
            k += 1
        x, y, _, yaw = lane_point(roads, path[k], s)
        sample[i, 0], sample[i, 1], sample[i, 2] = x, y, yaw
        sample[i, 3] = roads.point_speed_limit_mps[lane_index(roads, path[k], s)]
        s += SAMPLE_M
    return count
