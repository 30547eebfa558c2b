"""Tracks a plan with pedals and wheel.

Lateral: curvature feedforward plus state feedback in arc length, which is critically damped at every
speed. Longitudinal: the plan's acceleration plus a PI on the speed error, through the inverse of the
vehicle's drive line. The defaults invert the embedded town's vehicle; on another simulator the
feedback takes up the difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import Control, EgoState, Plan

Array = NDArray[np.float64]
GRAVITY_MPS2 = 9.81


@dataclass(frozen=True)
class VehicleModel:
    """The drive line that the pedals work on: acceleration = throttle - brake - drag.

    throttle term: `drive_mps2 * throttle * (1 - v / top_speed_mps)`; brake term: `brake_mps2 * brake`;
    drag: `rolling_mps2 + drag_1pm * v^2`.
    """

    drive_mps2: float = 4.5
    top_speed_mps: float = 55.0
    brake_mps2: float = 8.0
    rolling_mps2: float = 0.15
    drag_1pm: float = 0.003
    max_wheel_angle_rad: float = math.pi / 4.0  # steer = 1.0


@dataclass(frozen=True)
class TrackerConfig:
    """Gains of the tracker."""

    vehicle: VehicleModel = VehicleModel()
    speed_gain_1ps: float = 1.5
    speed_integral_1ps2: float = 0.25
    integral_limit_mps2: float = 0.8
    feedforward_window_s: float = 0.25
    settle_s: float = 0.5  # lateral errors decay over this time of driving ...
    settle_min_m: float = 3.0  # ... but never over less than this distance
    settle_max_m: float = 9.0
    preview_s: float = 0.1  # steering acts late by about this much
    hold_speed_mps: float = 0.3  # below it, a plan that stands still is held with the brake ...
    setting_off_mps: float = 0.01  # ... unless it gains so much in two windows: gentle plans must start, too
    max_acceleration_mps2: float = 4.0
    max_deceleration_mps2: float = 8.0
    max_curvature_1pm: float = 0.3


DEFAULT_TRACKER = TrackerConfig()


def pedals_for_acceleration(
    acceleration_mps2: float,
    speed_mps: float,
    vehicle: VehicleModel = DEFAULT_TRACKER.vehicle,
    climb_rad: float = 0.0,
) -> tuple[float, float]:
    """Throttle and brake in [0, 1] that realise an acceleration along the heading (inverse of `VehicleModel`).

    `climb_rad` is the slope of the road, positive uphill.
    """
    v = max(speed_mps, 0.0)
    drag = vehicle.rolling_mps2 + vehicle.drag_1pm * v * v
    force = acceleration_mps2 + drag + GRAVITY_MPS2 * math.sin(climb_rad)
    if force >= 0.0:
        drive = vehicle.drive_mps2 * max(1.0 - v / vehicle.top_speed_mps, 0.05)
        return min(force / drive, 1.0), 0.0
    return 0.0, min(-force / vehicle.brake_mps2, 1.0)


def steer_for_curvature(
    curvature_1pm: float, wheelbase_m: float, vehicle: VehicleModel = DEFAULT_TRACKER.vehicle
) -> float:
    """Steer in [-1, 1] (left positive) whose kinematic bicycle has this curvature at the rear axle."""
    angle = math.atan(curvature_1pm * wheelbase_m)
    return min(max(angle / vehicle.max_wheel_angle_rad, -1.0), 1.0)


def control_for_action(
    acceleration_mps2: float, curvature_1pm: float, ego: EgoState, vehicle: VehicleModel = DEFAULT_TRACKER.vehicle
) -> Control:
    """The low-level inverse: the control that realises one action (m/s2, 1/m left positive) from `ego` now.

    A car that stands and shall not move is held with the brake.
    """
    steer = steer_for_curvature(curvature_1pm, 2.0 * ego.rear_axle_to_center_m, vehicle)
    if abs(ego.speed_mps) < 0.2 and acceleration_mps2 <= 0.05:
        return Control(steer, 0.0, 1.0)
    throttle, brake = pedals_for_acceleration(acceleration_mps2, ego.speed_mps, vehicle, -ego.pitch_rad)
    return Control(steer, throttle, brake)


def _path_errors(
    poses: Array, ego_xy: tuple[float, float], ego_yaw: float, preview_m: float
) -> tuple[float, float, float]:
    """Lateral error, heading error (left positive) and previewed curvature against a path of poses (n, 3)."""
    step = np.diff(poses[:, :2], axis=0)
    length = np.hypot(step[:, 0], step[:, 1])
    moving = length > 1e-3
    if not moving.any():
        c, s = math.cos(poses[0, 2]), math.sin(poses[0, 2])
        dx, dy = ego_xy[0] - poses[0, 0], ego_xy[1] - poses[0, 1]
        return -s * dx + c * dy, math.remainder(ego_yaw - poses[0, 2], 2 * math.pi), 0.0
    keep = np.concatenate([[True], moving])
    points, yaw = poses[keep, :2], np.unwrap(poses[keep, 2])
    step = np.diff(points, axis=0)
    length = np.hypot(step[:, 0], step[:, 1])
    offset = np.array(ego_xy) - points[:-1]
    along = (offset * step).sum(1) / length**2
    upper = np.ones(len(along))
    upper[-1] = 1e3  # beyond its end the path goes on straight
    along = np.clip(along, 0.0, upper)
    gap = offset - along[:, None] * step
    k = int(np.argmin((gap**2).sum(1)))
    lateral = (step[k, 0] * offset[k, 1] - step[k, 1] * offset[k, 0]) / length[k]
    stations = np.concatenate([[0.0], np.cumsum(length)])
    curvature = np.diff(yaw) / length
    here = stations[k] + along[k] * length[k]
    heading = float(np.interp(here, stations, yaw))
    ahead = min(int(np.searchsorted(stations, here + preview_m, side="right")) - 1, len(curvature) - 1)
    return float(lateral), math.remainder(ego_yaw - heading, 2 * math.pi), float(curvature[max(ahead, 0)])


class TrajectoryTracker:
    """The controller of every planner: follows the plan's path and speeds (see `drivesim.interfaces.Controller`)."""

    def __init__(self, config: TrackerConfig = DEFAULT_TRACKER) -> None:
        self.config = config
        self._integral_mps2 = 0.0
        self._last_us: int | None = None

    def reset(self) -> None:
        """Forget the integrator."""
        self._integral_mps2 = 0.0
        self._last_us = None

    def control(self, plan: Plan, plan_ego: EgoState, ego: EgoState) -> Control:
        """Pedals and wheel for this tick; `plan_ego` is the ego when the plan was made."""
        now_s = (ego.time_us - plan_ego.time_us) * 1e-6
        acceleration, hold = self._acceleration(plan, plan_ego, ego, now_s)
        curvature = self._curvature(plan, plan_ego, ego)
        steer = steer_for_curvature(curvature, 2.0 * ego.rear_axle_to_center_m, self.config.vehicle)
        if hold:
            return Control(steer, 0.0, 1.0)
        throttle, brake = pedals_for_acceleration(acceleration, ego.speed_mps, self.config.vehicle, -ego.pitch_rad)
        return Control(steer, throttle, brake)

    def _acceleration(self, plan: Plan, plan_ego: EgoState, ego: EgoState, now_s: float) -> tuple[float, bool]:
        config = self.config
        times = np.concatenate([[0.0], plan.trajectory.times_s])
        speeds = np.concatenate([[max(plan_ego.speed_mps, 0.0)], plan.trajectory.speeds_mps])
        window = config.feedforward_window_s
        at = np.interp([now_s, now_s + window, now_s + 2.0 * window], times, speeds)
        stays = max(at[1], at[2]) < 0.1 and at[2] - at[0] < config.setting_off_mps
        if ego.speed_mps < config.hold_speed_mps and stays:
            self._integral_mps2 = 0.0
            return 0.0, True
        error = float(at[0]) - ego.speed_mps
        dt_s = 0.0 if self._last_us is None else min((ego.time_us - self._last_us) * 1e-6, 0.2)
        self._last_us = ego.time_us
        limit = config.integral_limit_mps2
        self._integral_mps2 += config.speed_integral_1ps2 * error * dt_s
        self._integral_mps2 = min(max(self._integral_mps2, -limit), limit)
        wanted = float(at[1] - at[0]) / window + config.speed_gain_1ps * error + self._integral_mps2
        return min(max(wanted, -config.max_deceleration_mps2), config.max_acceleration_mps2), False

    def _curvature(self, plan: Plan, plan_ego: EgoState, ego: EgoState) -> float:
        config = self.config
        dx, dy = ego.x_m - plan_ego.x_m, ego.y_m - plan_ego.y_m
        c, s = math.cos(plan_ego.yaw_rad), math.sin(plan_ego.yaw_rad)
        here = (c * dx + s * dy, -s * dx + c * dy)
        yaw = math.remainder(ego.yaw_rad - plan_ego.yaw_rad, 2 * math.pi)
        path = np.concatenate([np.zeros((1, 3)), plan.trajectory.poses])
        speed = max(ego.speed_mps, 0.0)
        lateral, heading, curvature = _path_errors(path, here, yaw, config.preview_s * speed)
        settle = min(max(config.settle_s * speed, config.settle_min_m), config.settle_max_m)
        wanted = curvature - lateral / settle**2 - 2.0 * heading / settle
        return min(max(wanted, -config.max_curvature_1pm), config.max_curvature_1pm)
