"""The path that a car would drive to settle on a route: kinematically feasible from where it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.geometry import Polyline

Array = NDArray[np.float64]

STEP_M = 0.5


@dataclass(frozen=True)
class ReferencePath:
    """A driven path of the rear axle in the ego frame, every `STEP_M` from the ego on.

    Attributes:
        poses: (n, 3) x, y, yaw; the first is the origin.
        curvature_1pm: (n,) curvature from each pose on.
        route_s_m: (n,) arc length of the route beside each pose.
        route_offset_m: (n,) offset from the route's centre line, left positive.
    """

    poses: Array
    curvature_1pm: Array
    route_s_m: Array
    route_offset_m: Array

    @property
    def s_m(self) -> Array:
        """(n,) distance driven at each pose."""
        return STEP_M * np.arange(len(self.poses), dtype=np.float64)

    def at(self, s_m: Array) -> Array:
        """Poses (..., 3) at driven distances; straight on beyond the end."""
        index = np.clip((s_m / STEP_M).astype(np.int64), 0, len(self.poses) - 1)
        rest = s_m - index * STEP_M
        base, curvature = self.poses[index], self.curvature_1pm[index]
        turn = curvature * np.minimum(rest, STEP_M)
        x = base[..., 0] + rest * np.cos(base[..., 2] + 0.5 * turn)
        y = base[..., 1] + rest * np.sin(base[..., 2] + 0.5 * turn)
        return np.stack([x, y, base[..., 2] + turn], axis=-1)


def route_line(points_m: Array, horizon_m: float) -> Polyline:
    """The route ahead (r, 2) as a curve, prolonged straight by `horizon_m` so that the goal is no wall."""
    points = np.asarray(points_m, dtype=np.float64).reshape(-1, 2)
    if len(points) == 0:
        points = np.zeros((1, 2))
    if len(points) < 2 or float(np.linalg.norm(points[-1] - points[0])) < 0.2:
        return Polyline.from_points(np.stack([points[0], points[0] + [max(horizon_m, 1.0), 0.0]]))
    line = Polyline.from_points(points)
    reach = np.arange(2.0, horizon_m + 2.0, 2.0)
    yaw = line.heading_rad[-1]
    tail = line.points_m[-1] + reach[:, None] * np.array([math.cos(yaw), math.sin(yaw)])
    return Polyline.from_points(np.concatenate([line.points_m, tail]))


@njit(cache=True, error_model="numpy")
def _interpolate(at: float, spacing: float, values: np.ndarray) -> float:
    position = min(max(at / spacing, 0.0), len(values) - 1.000001)
    k = int(position)
    return float(values[k] + (position - k) * (values[k + 1] - values[k]))


@njit(cache=True, error_model="numpy")
def _drive(
    line: np.ndarray, spacing_m: float, start_s_m: float, offset_m: float, settle_m: float,
    max_curvature: float, out: np.ndarray,
) -> None:  # fmt: skip
    """line (m, 4) x, y, heading, curvature every spacing_m; fills out (n, 6) x, y, yaw, curvature, s, offset."""
    x, y, yaw, s = 0.0, 0.0, 0.0, start_s_m
    lateral = 0.0
    for i in range(len(out)):
        cx = _interpolate(s, spacing_m, line[:, 0])
        cy = _interpolate(s, spacing_m, line[:, 1])
        heading = _interpolate(s, spacing_m, line[:, 2])
        ch, sh = math.cos(heading), math.sin(heading)
        along = ch * (x - cx) + sh * (y - cy)
        s = min(max(s + along, s), s + 2.0 * STEP_M)
        lateral = -sh * (x - cx) + ch * (y - cy)
        error = lateral - offset_m
        bearing = yaw - heading
        bearing -= 2.0 * math.pi * math.floor((bearing + math.pi) / (2.0 * math.pi))
        curvature = _interpolate(s + 0.5 * STEP_M, spacing_m, line[:, 3])
        # far off the line, steer towards it at no more than 0.6 rad
        pull = min(max(error / settle_m**2, -1.2 / settle_m), 1.2 / settle_m)
        curvature = curvature / max(1.0 - curvature * lateral, 0.3) - pull - 2.0 * bearing / settle_m
        curvature = min(max(curvature, -max_curvature), max_curvature)
        out[i, 0], out[i, 1], out[i, 2], out[i, 3], out[i, 4], out[i, 5] = x, y, yaw, curvature, s, lateral
        turn = curvature * STEP_M
        x += STEP_M * math.cos(yaw + 0.5 * turn)
        y += STEP_M * math.sin(yaw + 0.5 * turn)
        yaw += turn
        s += STEP_M * max(math.cos(bearing), 0.2)


@dataclass(frozen=True)
class SampledRoute:
    """A route line for `_drive`: rows (m, 4) x, y, heading, curvature every 1 m, and the ego's place on it."""

    rows: Array
    start_s_m: float
    start_offset_m: float

    @staticmethod
    def from_line(line: Polyline) -> SampledRoute:
        """Resample, smooth the heading over 4 m, and project the ego's rear axle (the origin)."""
        s = np.arange(0.0, line.length_m, 1.0)
        places = line.at(s)
        curvature = line.curvature(s, 2.0)
        start, offset = line.project(0.0, 0.0, near_s_m=0.0, window_m=15.0)
        return SampledRoute(np.column_stack([places, curvature]), start, offset)


def drive_onto(
    route: SampledRoute,
    offset_m: float,
    length_m: float,
    settle_m: float,
    max_curvature_1pm: float = 0.3,
) -> ReferencePath:
    """The path of a car that settles at `offset_m` beside the route, starting at the ego frame's origin."""
    out = np.empty((int(length_m / STEP_M) + 1, 6))
    _drive(route.rows, 1.0, route.start_s_m, offset_m, settle_m, max_curvature_1pm, out)
    return ReferencePath(out[:, :3], out[:, 3], out[:, 4], out[:, 5])
