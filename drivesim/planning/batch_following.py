"""Driving along many routes at once: the kinematics and the route following of single planners, row by row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes.motions import Motions
from drivesim.geometry.curve_table import CurveTable
from drivesim.planning.kinematics import LOOKAHEAD_M
from drivesim.planning.proposals import MAX_CURVATURE_1PM, STEP_S, SUBSTEPS

Array = NDArray[np.float64]
LIMIT_AHEAD_M = (0.0, 10.0, 25.0)


def limits_at(motions: Motions, ahead_m: Array) -> Array:
    """Speed limits (b, ...) at distances (...) ahead along the routes."""
    s = motions.s_m.reshape((-1,) + (1,) * ahead_m.ndim) + ahead_m
    k, _ = motions.curves.locate(s)
    return np.asarray(motions.limits_mps[np.arange(len(k)).reshape((-1,) + (1,) * ahead_m.ndim), k])


class BatchKinematics:
    """The sixteen numbers of `drivesim.planning.kinematics` for many cars at once."""

    @staticmethod
    def now(motions: Motions) -> NDArray[np.float32]:
        """What `kinematics` says of every car: (b, 16)."""
        values = np.zeros((len(motions.s_m), 16), np.float32)
        values[:, 0] = motions.speed_mps / 10.0
        ahead = motions.s_m[:, None] + np.array(LOOKAHEAD_M)
        values[:, 3:8] = motions.curves.curvature(ahead) * 10.0
        values[:, 8] = motions.lateral_m
        values[:, 9] = np.sin(motions.curves.at(motions.s_m)[:, 2] - motions.yaw_rad)
        values[:, 10:13] = limits_at(motions, np.array(LIMIT_AHEAD_M)) / 10.0
        values[:, 13] = np.minimum(motions.remaining_m, 50.0) / 50.0
        return values

    @staticmethod
    def later(
        now: NDArray[np.float32], speed_mps: Array, actions: Array, after_s: float, distance_m: Array
    ) -> NDArray[np.float32]:
        """What `imagined_kinematics` says of one later moment of every car: (b, 16).

        Args:
            now: (b, 16) at the moment from which it is imagined, `after_s` before.
            speed_mps: (b,) then; actions (b, 2) of the last half second; distance_m (b,) driven in between.
        """
        out = now.copy()
        out[:, 0] = speed_mps / 10.0
        out[:, 1] = actions[:, 0] / 3.0
        out[:, 2] = speed_mps * actions[:, 1] * 2.0
        out[:, 14] = after_s / 4.0
        out[:, 15] = distance_m / 20.0
        return out


class RouteFollower:
    """Pure pursuit along b routes (`drivesim.planning.proposals.drive_route` with one profile for each car)."""

    def __init__(self, curves: CurveTable, limits_mps: Array, lateral_acceleration_mps2: float = 2.2) -> None:
        """Work out the speed caps of the routes once: they do not change while they are driven."""
        self._curves = curves
        grid = np.arange(int(np.ceil(curves.length_m.max())) + 1, dtype=np.float64)
        s = np.broadcast_to(grid, (len(curves.s_m), len(grid)))
        bend = np.abs(curves.curvature(s, 3.0))
        k, _ = curves.locate(s)
        limit = limits_mps[np.arange(len(k))[:, None], k]
        squares = np.minimum(limit, np.sqrt(lateral_acceleration_mps2 / np.maximum(bend, 1e-3))) ** 2 + 4.0 * grid
        self._caps_mps = np.sqrt(np.minimum.accumulate(squares[:, ::-1], axis=1)[:, ::-1] - 4.0 * grid)

    def caps(self, s_m: Array) -> Array:
        """Highest speed (b,) at arc lengths (b,): limit, bends, braked for in time."""
        place = np.clip(s_m, 0.0, self._caps_mps.shape[1] - 1.000001)
        k = place.astype(np.intp)
        rows, share = np.arange(len(k)), place - k
        return np.asarray(self._caps_mps[rows, k] * (1.0 - share) + self._caps_mps[rows, k + 1] * share)

    def drive(self, now: Motions, accelerations: Array, *, obey_caps: bool = True) -> tuple[Array, Array, Array]:
        """Drive one acceleration profile (b, p) each, p steps of half a second.

        Returns:
            poses (b, p, 3) in each ego frame now, speeds (b, p), actions (b, p, 2).
        """
        b, p = accelerations.shape
        h = STEP_S / SUBSTEPS
        x, y, yaw, s = now.x_m.copy(), now.y_m.copy(), now.yaw_rad.copy(), now.s_m.copy()
        v = np.maximum(now.speed_mps, 0.0)
        poses, speeds, actions = np.empty((b, p, 3)), np.empty((b, p)), np.zeros((b, p, 2))
        for step in range(p):
            v_start, yaw_start, driven = v, yaw, np.zeros(b)
            for _ in range(SUBSTEPS):
                a = accelerations[:, step]
                if obey_caps:
                    room = (self.caps(s + v * STEP_S) - v) / STEP_S
                    a = np.minimum(a, np.maximum(room, -3.0))
                v_next = np.maximum(v + a * h, 0.0)
                target = self._curves.at(s + np.clip(0.9 * v, 3.5, 14.0))
                dx, dy = target[:, 0] - x, target[:, 1] - y
                left = -np.sin(yaw) * dx + np.cos(yaw) * dy
                bend = np.clip(2.0 * left / np.maximum(dx * dx + dy * dy, 1.0), -MAX_CURVATURE_1PM, MAX_CURVATURE_1PM)
                move = 0.5 * (v + v_next) * h
                x, y = x + move * np.cos(yaw + 0.5 * bend * move), y + move * np.sin(yaw + 0.5 * bend * move)
                yaw, s, v, driven = yaw + bend * move, s + move, v_next, driven + move
            actions[:, step, 0] = (v - v_start) / STEP_S
            actions[:, step, 1] = np.where(driven > 0.05, (yaw - yaw_start) / np.maximum(driven, 0.05), 0.0)
            poses[:, step], speeds[:, step] = np.stack([x, y, yaw], axis=-1), v
        return _to_ego(poses, now), speeds, actions


def _to_ego(poses: Array, now: Motions) -> Array:
    """World poses (b, p, 3) in the ego frames."""
    c, s = np.cos(now.yaw_rad)[:, None], np.sin(now.yaw_rad)[:, None]
    dx, dy = poses[..., 0] - now.x_m[:, None], poses[..., 1] - now.y_m[:, None]
    return np.stack([c * dx + s * dy, -s * dx + c * dy, poses[..., 2] - now.yaw_rad[:, None]], axis=-1)
