"""Where everybody will be in the next seconds, guessed from the truth of one frame.

Vehicles that drive along (or against) the ego's route keep their lane on it; all others keep their
turn rate. Who approaches a red light stops at its line if it still can. Walkers walk straight on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.datatypes import ACTOR_VEHICLE, ACTOR_WALKER, LIGHT_RED, LIGHT_YELLOW, EgoState, Frame
from drivesim.planning.reference_path import SampledRoute

Array = NDArray[np.float64]

DT_S = 0.25
REACH_M = 80.0  # nobody farther away matters within the horizon
_STOPS_MPS2 = 4.0  # who needs less than this to stop at a red light is expected to stop
_HEADING_TOLERANCE_RAD = 0.35
_STARTS_UP_TO_MPS = 9.0  # who accelerates goes on doing so up to this speed


@dataclass(frozen=True)
class Forecast:
    """n actors near the ego, t instants `DT_S` apart, the first now; ego frame.

    Attributes:
        ids, kinds: (n,).
        poses: (n, t, 3) x, y, yaw of the boxes' centres.
        half_size_m: (n, 2) half length, half width.
        speed_mps: (n,) now.
        route_s_m: (n,) distance along the ego's route from the ego's rear axle to the box's centre now.
        route_offset_m: (n,) offset from the ego's route now, left positive.
    """

    ids: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    poses: Array
    half_size_m: Array
    speed_mps: Array
    route_s_m: Array
    route_offset_m: Array

    def only(self, keep: NDArray[np.bool_]) -> Forecast:
        """The actors of a mask (n,)."""
        return Forecast(
            self.ids[keep], self.kinds[keep], self.poses[keep], self.half_size_m[keep], self.speed_mps[keep],
            self.route_s_m[keep], self.route_offset_m[keep],
        )  # fmt: skip


@dataclass
class MotionMemory:
    """Velocities and headings of the last frame, by actor id, for accelerations and turn rates."""

    time_us: int = -1
    ids: NDArray[np.int64] | None = None
    yaw_rad: Array | None = None
    speed_mps: Array | None = None

    def rates(self, frame: Frame, speed_mps: Array) -> tuple[Array, Array]:
        """Acceleration and turn rate (n,), zero and NaN for who was not seen less than a second ago; then remembers."""
        actors = frame.actors
        yaw = actors.pose[:, 3]
        acceleration, turn_rate = np.zeros(len(yaw)), np.full(len(yaw), np.nan)
        dt_s = (frame.time_us - self.time_us) * 1e-6
        if self.ids is not None and self.yaw_rad is not None and self.speed_mps is not None and 0.01 < dt_s < 1.0:
            _, here, there = np.intersect1d(actors.ids, self.ids, assume_unique=True, return_indices=True)
            change = yaw[here] - self.yaw_rad[there]
            turn_rate[here] = np.arctan2(np.sin(change), np.cos(change)) / dt_s
            acceleration[here] = (speed_mps[here] - self.speed_mps[there]) / dt_s
        if self.ids is None or dt_s >= 0.01 or dt_s < 0.0:
            self.time_us, self.ids, self.yaw_rad, self.speed_mps = frame.time_us, actors.ids, yaw, speed_mps
        return np.clip(acceleration, -8.0, 3.0), np.clip(turn_rate, -1.0, 1.0)


def to_ego_frame(ego: EgoState, x_m: Array, y_m: Array, yaw_rad: Array) -> Array:
    """World poses (n,) each -> (n, 3) in the ego frame."""
    c, s = math.cos(ego.yaw_rad), math.sin(ego.yaw_rad)
    dx, dy = x_m - ego.x_m, y_m - ego.y_m
    turn = yaw_rad - ego.yaw_rad
    return np.stack([c * dx + s * dy, c * dy - s * dx, np.arctan2(np.sin(turn), np.cos(turn))], axis=-1)


def _red_stop_distance(frame: Frame, poses: Array, half_length_m: Array) -> Array:
    """Distance (n,) from each bumper to the red stop line that it approaches; infinite without one."""
    lights = frame.lights
    closed = (lights.states == LIGHT_RED) | (lights.states == LIGHT_YELLOW)
    near = np.hypot(lights.stop_pose[:, 0] - frame.ego.x_m, lights.stop_pose[:, 1] - frame.ego.y_m) < REACH_M
    stops = lights.stop_pose[closed & near]
    if len(stops) == 0 or len(poses) == 0:
        return np.full(len(poses), np.inf)
    line = to_ego_frame(frame.ego, stops[:, 0], stops[:, 1], stops[:, 3])
    c, s = np.cos(poses[:, None, 2]), np.sin(poses[:, None, 2])
    dx, dy = line[None, :, 0] - poses[:, None, 0], line[None, :, 1] - poses[:, None, 1]
    ahead, aside = c * dx + s * dy - half_length_m[:, None], c * dy - s * dx
    aligned = np.cos(line[None, :, 2] - poses[:, None, 2]) > 0.85
    hit = aligned & (np.abs(aside) < 1.8) & (ahead > -1.0) & (ahead < 40.0)
    return np.asarray(np.where(hit, np.maximum(ahead, 0.0), np.inf).min(axis=1))


@njit(cache=True, error_model="numpy")
def _beside_route(rows: np.ndarray, x: float, y: float) -> tuple[float, float, float]:
    """Arc length, left offset and heading of the route (rows every 1 m) beside a point."""
    best, k = 1e18, 0
    for i in range(len(rows)):
        distance = (rows[i, 0] - x) ** 2 + (rows[i, 1] - y) ** 2
        if distance < best:
            best, k = distance, i
    c, s = math.cos(rows[k, 2]), math.sin(rows[k, 2])
    dx, dy = x - rows[k, 0], y - rows[k, 1]
    return k + c * dx + s * dy, c * dy - s * dx, rows[k, 2]


@njit(cache=True, error_model="numpy")
def _place_beside(rows: np.ndarray, at: float, offset: float, out: np.ndarray) -> None:
    k = min(max(math.floor(at), 0), len(rows) - 1)
    c, s = math.cos(rows[k, 2]), math.sin(rows[k, 2])
    rest = at - k
    out[0] = rows[k, 0] + rest * c - offset * s
    out[1] = rows[k, 1] + rest * s + offset * c
    out[2] = rows[k, 2]


@njit(cache=True, error_model="numpy")
def _predict_one(
    rows: np.ndarray, pose: np.ndarray, speed: float, acceleration: float, turn_rate: float, red_m: float,
    walker: bool, course: float, out: np.ndarray,
) -> tuple[float, float]:  # fmt: skip
    """Fill out (t, 3); returns arc length and offset from the route now."""
    at, offset, heading = _beside_route(rows, pose[0], pose[1])
    bearing = pose[2] - heading
    bearing -= 2.0 * math.pi * math.floor((bearing + math.pi) / (2.0 * math.pi))
    with_us, against = abs(bearing) < _HEADING_TOLERANCE_RAD, abs(bearing) > math.pi - _HEADING_TOLERANCE_RAD
    follows = not walker and abs(offset) < 7.0 and 0.0 < at < len(rows) - 1.0 and (with_us or against)
    sign = 1.0 if with_us else -1.0
    drift = 0.0
    if follows:
        k = min(max(int(at), 0), len(rows) - 1)
        # turns more than its lane does
        swerve = 0.0 if math.isnan(turn_rate) else turn_rate - sign * speed * rows[k, 3]
        ahead = 0.5 * swerve if abs(swerve) > 0.1 else 0.0
        drift = speed * math.sin((bearing if with_us else math.pi - bearing) + sign * ahead)
    if abs(drift) < 0.15:
        drift = 0.0
    if math.isnan(turn_rate):
        turn_rate = 0.0
    x, y, yaw, v, side, moved, start = pose[0], pose[1], pose[2], speed, offset, 0.0, at
    stops = red_m < 1e6 and speed * speed < 2.0 * _STOPS_MPS2 * max(red_m, 0.3)
    for t in range(len(out)):
        if follows:
            _place_beside(rows, at, side, out[t])
            if sign < 0.0:
                out[t, 2] += math.pi
        else:
            out[t, 0], out[t, 1], out[t, 2] = x, y, yaw
        pull = acceleration if acceleration < -0.5 or (t * DT_S < 2.5 and v < _STARTS_UP_TO_MPS) else 0.0
        if stops:
            pull = min(pull, -v * v / (2.0 * max(red_m - moved, 0.2)))
        v_next = max(v + pull * DT_S, 0.0)
        step = 0.5 * (v + v_next) * DT_S
        v = v_next
        moved += step
        at += sign * step
        before = side
        side += drift * DT_S * (v / max(speed, 0.1))
        if before * side < 0.0 and abs(before) > 0.3:
            side, drift = 0.0, 0.0  # who changes to our lane settles on it
        turn = turn_rate * DT_S * (v / max(speed, 0.1)) if t * DT_S < 2.5 else 0.0
        direction = course + (yaw - pose[2]) if walker else yaw
        x += step * math.cos(direction + 0.5 * turn)
        y += step * math.sin(direction + 0.5 * turn)
        yaw += turn
    return start, offset


@njit(cache=True, error_model="numpy")
def _predict(
    rows: np.ndarray, poses: np.ndarray, motion: np.ndarray, walker: np.ndarray, out: np.ndarray, place: np.ndarray
) -> None:
    for n in range(len(poses)):
        speed, acceleration, turn_rate, red_m, course = motion[n]
        place[n, 0], place[n, 1] = _predict_one(
            rows, poses[n], speed, acceleration, turn_rate, red_m, walker[n], course, out[n]
        )


def forecast(frame: Frame, route: SampledRoute, horizon_steps: int, memory: MotionMemory | None = None) -> Forecast:
    """Predict everybody within `REACH_M` of the ego for `horizon_steps` of `DT_S`."""
    actors, ego = frame.actors, frame.ego
    speed = np.hypot(actors.velocity_mps[:, 0], actors.velocity_mps[:, 1])
    zeros = np.zeros(len(speed))
    acceleration, turn_rate = (memory or MotionMemory()).rates(frame, speed)
    near = np.hypot(actors.pose[:, 0] - ego.x_m, actors.pose[:, 1] - ego.y_m) < REACH_M
    height = np.abs(actors.pose[:, 2] - ego.z_m) < 4.0  # not on a bridge above, nor below
    keep = near & height
    poses = to_ego_frame(ego, actors.pose[keep, 0], actors.pose[keep, 1], actors.pose[keep, 3])
    half = 0.5 * actors.size_m[keep, :2]
    walker = actors.kinds[keep] == ACTOR_WALKER
    vehicle = actors.kinds[keep] == ACTOR_VEHICLE
    course = np.arctan2(actors.velocity_mps[keep, 1], actors.velocity_mps[keep, 0]) - ego.yaw_rad
    red = np.where(vehicle, _red_stop_distance(frame, poses, half[:, 0]), np.inf)
    calm = np.where(vehicle, acceleration[keep], zeros[keep])
    motion = np.column_stack([speed[keep], calm, np.where(vehicle, turn_rate[keep], 0.0), red, course])
    out = np.empty((len(poses), horizon_steps + 1, 3))
    place = np.empty((len(poses), 2))
    _predict(route.rows, poses, motion, walker, out, place)
    return Forecast(
        actors.ids[keep], actors.kinds[keep], out, half, speed[keep], place[:, 0] - route.start_s_m, place[:, 1]
    )
