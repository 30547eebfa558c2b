"""The tracker of `drivesim.control.tracker` for many cars at once: the same control, row by row."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from drivesim.control.tracker import DEFAULT_TRACKER, TrackerConfig

Array = NDArray[np.float64]


class BatchTracker:
    """Follows b plans; keeps one integrator per car."""

    def __init__(self, size: int, wheelbase_m: Array, config: TrackerConfig = DEFAULT_TRACKER) -> None:
        """`wheelbase_m` (b,)."""
        self.config = config
        self._wheelbase_m = wheelbase_m
        self._integral_mps2 = np.zeros(size)
        self._last_s = np.full(size, -1.0)

    def control(
        self, times_s: Array, poses: Array, speeds_mps: Array, planned_from: Array, now: Array, since_s: float,
        time_s: float,
    ) -> Array:  # fmt: skip
        """Steer (left positive), throttle and brake (b, 3) for this tick.

        Args:
            times_s: (p,) of the plans' steps, seconds since planning.
            poses, speeds_mps: (b, p, 3) in the ego frame at planning, (b, p).
            planned_from, now: (b, 4) x, y, yaw, speed at planning and at this tick.
            since_s: time since planning.
            time_s: time of this tick; increases from call to call.
        """
        acceleration, hold = self._acceleration(times_s, speeds_mps, planned_from[:, 3], now[:, 3], since_s, time_s)
        curvature = self._curvature(poses, planned_from, now)
        vehicle = self.config.vehicle
        steer = np.clip(np.arctan(curvature * self._wheelbase_m) / vehicle.max_wheel_angle_rad, -1.0, 1.0)
        v = np.maximum(now[:, 3], 0.0)
        force = acceleration + vehicle.rolling_mps2 + vehicle.drag_1pm * v * v
        drive = vehicle.drive_mps2 * np.maximum(1.0 - v / vehicle.top_speed_mps, 0.05)
        throttle = np.where(force >= 0.0, np.minimum(force / drive, 1.0), 0.0)
        brake = np.where(force >= 0.0, 0.0, np.minimum(-force / vehicle.brake_mps2, 1.0))
        return np.stack([steer, np.where(hold, 0.0, throttle), np.where(hold, 1.0, brake)], axis=-1)

    def _acceleration(
        self, times_s: Array, speeds_mps: Array, start_mps: Array, now_mps: Array, since_s: float, time_s: float
    ) -> tuple[Array, NDArray[np.bool_]]:
        config, window = self.config, self.config.feedforward_window_s
        times = np.concatenate([[0.0], times_s])
        speeds = np.concatenate([np.maximum(start_mps, 0.0)[:, None], speeds_mps], axis=1)
        at = [_interpolated(since_s + ahead * window, times, speeds) for ahead in range(3)]
        stays = (np.maximum(at[1], at[2]) < 0.1) & (at[2] - at[0] < config.setting_off_mps)
        hold = (now_mps < config.hold_speed_mps) & stays
        error = at[0] - now_mps
        dt_s = np.where(self._last_s >= 0.0, np.minimum(time_s - self._last_s, 0.2), 0.0)
        limit = config.integral_limit_mps2
        grown = np.clip(self._integral_mps2 + config.speed_integral_1ps2 * error * dt_s, -limit, limit)
        self._integral_mps2 = np.where(hold, 0.0, grown)
        self._last_s = np.where(hold, self._last_s, time_s)  # a held car's integrator sleeps, as the single tracker's
        wanted = (at[1] - at[0]) / window + config.speed_gain_1ps * error + self._integral_mps2
        return np.clip(wanted, -config.max_deceleration_mps2, config.max_acceleration_mps2), hold

    def _curvature(self, poses: Array, planned_from: Array, now: Array) -> Array:
        config = self.config
        dx, dy = now[:, 0] - planned_from[:, 0], now[:, 1] - planned_from[:, 1]
        c, s = np.cos(planned_from[:, 2]), np.sin(planned_from[:, 2])
        here = np.stack([c * dx + s * dy, -s * dx + c * dy], axis=-1)
        yaw = _wrapped(now[:, 2] - planned_from[:, 2])
        speed = np.maximum(now[:, 3], 0.0)
        lateral, heading, curvature = path_errors(poses, here, yaw, config.preview_s * speed)
        settle = np.clip(config.settle_s * speed, config.settle_min_m, config.settle_max_m)
        wanted = curvature - lateral / settle**2 - 2.0 * heading / settle
        return np.clip(wanted, -config.max_curvature_1pm, config.max_curvature_1pm)


def path_errors(poses: Array, here: Array, yaw_rad: Array, preview_m: Array) -> tuple[Array, Array, Array]:
    """Lateral error, heading error (left positive) and previewed curvature (b,) against paths (b, p, 3).

    Paths start at the origin. Steps on the spot (the plan stands) are passed over.
    """
    b = len(poses)
    path = np.concatenate([np.zeros((b, 1, 3)), poses], axis=1)
    path[..., 2] = np.unwrap(path[..., 2], axis=1)
    step = np.diff(path[..., :2], axis=1)
    length = np.hypot(step[..., 0], step[..., 1])
    moving = length > 1e-3
    safe = np.where(moving, length, 1.0)
    offset = here[:, None] - path[:, :-1, :2]
    along = (offset * step).sum(-1) / safe**2
    last = length.shape[1] - 1 - np.argmax(moving[:, ::-1], axis=1)  # beyond its end the path goes on straight
    upper = np.ones(length.shape)
    upper[np.arange(b), last] = 1e3
    along = np.clip(along, 0.0, upper)
    gap = offset - along[..., None] * step
    k = np.argmin(np.where(moving, (gap**2).sum(-1), np.inf), axis=1)
    at = np.arange(b), k
    lateral = (step[..., 0] * offset[..., 1] - step[..., 1] * offset[..., 0])[at] / safe[at]
    moved = np.where(moving, length, 0.0)
    stations = np.concatenate([np.zeros((b, 1)), np.cumsum(moved, axis=1)], axis=1)
    # what is turned on the spot belongs to the step before it, as if the pose there were the path's only one
    turn = np.diff(_heading_of_moves(path[..., 2], moving), axis=1)
    curvature = np.where(moving, turn / safe, 0.0)
    reached = stations[at] + along[at] * moved[at]
    headings = _heading_of_moves(path[..., 2], moving)
    share = np.clip(along[at], 0.0, 1.0)
    heading = headings[np.arange(b), k] + share * (headings[np.arange(b), k + 1] - headings[np.arange(b), k])
    ends = np.where(moving, stations[:, 1:], -np.inf)
    ahead = np.argmax(moving & (ends > (reached + preview_m)[:, None]), axis=1)
    beyond = ~(moving & (ends > (reached + preview_m)[:, None])).any(axis=1)
    ahead = np.where(beyond, last, ahead)
    previewed = curvature[np.arange(b), ahead]
    stands = ~moving.any(axis=1)
    lateral = np.where(stands, here[:, 1], lateral)
    heading = np.where(stands, 0.0, heading)
    return lateral, _wrapped(yaw_rad - heading), np.where(stands, 0.0, previewed)


def _heading_of_moves(yaw_rad: Array, moving: NDArray[np.bool_]) -> Array:
    """Headings (b, p + 1) where a pose that was not moved to has the heading of the one before it."""
    rows, columns = moving.shape
    kept = np.where(np.concatenate([np.ones((rows, 1), bool), moving], axis=1), np.arange(columns + 1), 0)
    latest = np.maximum.accumulate(kept, axis=1)
    return np.take_along_axis(yaw_rad, latest, axis=1)


def _interpolated(at_s: float, times_s: Array, values: Array) -> Array:
    """Values (b,) at one moment, clamped to the ends; values (b, p) at times (p,)."""
    if at_s >= times_s[-1]:
        return values[:, -1]
    k = max(int(np.searchsorted(times_s, at_s, side="right")) - 1, 0)
    share = min(max((at_s - times_s[k]) / (times_s[k + 1] - times_s[k]), 0.0), 1.0)
    return np.asarray(values[:, k] + share * (values[:, k + 1] - values[:, k]))


def _wrapped(angle_rad: Array) -> Array:
    """To (-pi, pi]."""
    return np.asarray(angle_rad - 2.0 * math.pi * np.round(angle_rad / (2.0 * math.pi)))
