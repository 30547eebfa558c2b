"""The arrays of a road network and of a state as the compiled kernels take them, and the dice they roll.

The two tuples hold the very arrays of `RoadNetwork` and `TownState`, so a kernel writes straight into
the state. Points are found over the network's grid of driving-lane points.
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.queries import nearest_lane
from drivesim.town.roads import RoadNetwork
from drivesim.town.state import TownState

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]

REACH_M = 40.0  # farther from every lane is off the map


class Roads(NamedTuple):
    """What driving needs of a RoadNetwork; see there for the shapes."""

    point_xyz_m: F32
    point_yaw_rad: F32
    point_width_m: F32
    point_s_m: F32
    point_speed_limit_mps: F32
    lane_start: I32
    lane_count: I32
    lane_length_m: F32
    lane_kind: U8
    lane_junction: I32
    lane_next: I32
    lane_previous: I32
    lane_left: I32
    lane_right: I32
    lane_light: I32
    lane_yields: U8
    conflict_start: I32
    conflict_lane: I32
    grid_origin_m: F32
    grid_shape: I32
    grid_cell_m: F32
    grid_start: I32
    grid_point: I32
    point_lane: I32


class Actors(NamedTuple):
    """What moves of a TownState; see there for the shapes."""

    weather: F64
    kind: U8
    model: NDArray[np.int16]
    policy: U8
    xyz: F64
    rotation: F64
    velocity: F64
    acceleration: F64
    yaw_rate: F64
    speed: F64
    steer_angle: F64
    half_size: F64
    wheelbase: F64
    control: F64
    walker_control: F64
    lamps: NDArray[np.uint32]
    lane: I32
    lane_s: F64
    lane_offset: F64
    traffic: F64
    path: I32
    actor_rng: U64
    light_state: U8
    physics: F32
    motion: F32
    friction: F64


def roads_of(network: RoadNetwork) -> Roads:
    """The kernel view of a network."""
    return Roads(*(np.ascontiguousarray(getattr(network, name)) for name in Roads._fields))


def actors_of(state: TownState) -> Actors:
    """The kernel view of a state; it shares the state's arrays."""
    return Actors(*(getattr(state, name) for name in Actors._fields))


@njit(cache=True, error_model="numpy")
def draw(rng: U64, row: int) -> float:
    """Uniform in [0, 1) from the generator of one row (splitmix64), which it advances."""
    z = rng[row] + np.uint64(0x9E3779B97F4A7C15)
    rng[row] = z
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True, error_model="numpy")
def wrap_angle(angle_rad: float) -> float:
    """The same angle in [-pi, pi)."""
    return (angle_rad + math.pi) % (2.0 * math.pi) - math.pi


@njit(cache=True, error_model="numpy")
def lane_point(roads: Roads, lane: int, s_m: float) -> tuple[float, float, float, float]:
    """x, y, z, yaw on a lane's centre line; s outside the lane goes on straight ahead or back."""
    first, count = roads.lane_start[lane], roads.lane_count[lane]
    guess = int(s_m / max(roads.lane_length_m[lane], 0.01) * (count - 1))
    i = first + min(max(guess, 0), count - 2)
    while i > first and roads.point_s_m[i] > s_m:
        i -= 1
    while i < first + count - 2 and roads.point_s_m[i + 1] < s_m:
        i += 1
    span = max(roads.point_s_m[i + 1] - roads.point_s_m[i], 1e-3)
    t = (s_m - roads.point_s_m[i]) / span
    x = roads.point_xyz_m[i, 0] + t * (roads.point_xyz_m[i + 1, 0] - roads.point_xyz_m[i, 0])
    y = roads.point_xyz_m[i, 1] + t * (roads.point_xyz_m[i + 1, 1] - roads.point_xyz_m[i, 1])
    z = roads.point_xyz_m[i, 2] + t * (roads.point_xyz_m[i + 1, 2] - roads.point_xyz_m[i, 2])
    turn = wrap_angle(float(roads.point_yaw_rad[i + 1]) - float(roads.point_yaw_rad[i]))
    return x, y, z, roads.point_yaw_rad[i] + min(max(t, 0.0), 1.0) * turn


@njit(cache=True, error_model="numpy")
def lane_index(roads: Roads, lane: int, s_m: float) -> int:
    """The point of a lane next to arc length s."""
    share = s_m / max(roads.lane_length_m[lane], 0.01)
    last = roads.lane_count[lane] - 1
    return roads.lane_start[lane] + min(max(int(share * last + 0.5), 0), last)


@njit(cache=True, error_model="numpy")
def locate(roads: Roads, x: float, y: float, z: float, yaw_rad: float) -> tuple[int, float, float, float]:
    """Lane, arc length, lateral offset (right positive) and ground height of the driving lane next to a pose.

    Height keeps a vehicle on its own deck of a bridge, heading on its own side of the road; a NaN yaw
    takes any direction. Lane -1 (and height z) where no lane is near.
    """
    lane, s, offset = _nearest(roads, x, y, z, yaw_rad)
    if lane < 0:
        lane, s, offset = _nearest(roads, x, y, math.nan, yaw_rad)
    if lane < 0:
        return -1, 0.0, 0.0, z
    return lane, s, offset, lane_point(roads, lane, s)[2]


@njit(cache=True, error_model="numpy")
def _nearest(roads: Roads, x: float, y: float, z: float, yaw_rad: float) -> tuple[int, float, float]:
    return nearest_lane(
        roads.point_xyz_m, roads.point_yaw_rad, roads.point_s_m, roads.point_lane, roads.lane_start, roads.lane_count,
        roads.grid_origin_m, roads.grid_shape, roads.grid_cell_m[0], roads.grid_start, roads.grid_point,
        x, y, z, yaw_rad, REACH_M,
    )  # fmt: skip
