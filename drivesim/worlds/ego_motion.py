"""The ego's state out of successive poses: the same derivation for every world."""

from __future__ import annotations

import math

from drivesim.datatypes import EgoState
from drivesim.geometry import Pose, wrap_angle
from drivesim.worlds.carla_frames import axle_from_center

EGO_BLUEPRINT = "vehicle.tesla.model3"
EGO_LENGTH_M, EGO_WIDTH_M, EGO_AXLE_TO_CENTER_M = 4.79, 2.16, 1.44


class EgoMotion:
    """Differentiates speed and heading over ticks, because simulators differ in what they report."""

    def __init__(self) -> None:
        self._last: EgoState | None = None

    def state(self, time_us: int, center: Pose, velocity_xy_mps: tuple[float, float]) -> EgoState:
        """The ego state of a pose of the box's centre (on the ground) and its velocity, both in our frame."""
        axle = axle_from_center(center, EGO_AXLE_TO_CENTER_M)
        x, y, z = (float(value) for value in axle.translation_m)
        r = center.rotation
        yaw = math.atan2(float(r[1, 0]), float(r[0, 0]))
        speed = velocity_xy_mps[0] * math.cos(yaw) + velocity_xy_mps[1] * math.sin(yaw)
        acceleration, yaw_rate = 0.0, 0.0
        if self._last is not None and time_us > self._last.time_us:
            dt_s = (time_us - self._last.time_us) * 1e-6
            acceleration = (speed - self._last.speed_mps) / dt_s
            yaw_rate = wrap_angle(yaw - self._last.yaw_rad) / dt_s
        state = EgoState(
            time_us=time_us, x_m=x, y_m=y, z_m=z, roll_rad=math.atan2(float(r[2, 1]), float(r[2, 2])),
            pitch_rad=math.asin(min(max(-float(r[2, 0]), -1.0), 1.0)), yaw_rad=yaw, speed_mps=speed,
            acceleration_mps2=acceleration, yaw_rate_radps=yaw_rate, length_m=EGO_LENGTH_M, width_m=EGO_WIDTH_M,
            rear_axle_to_center_m=EGO_AXLE_TO_CENTER_M,
        )  # fmt: skip
        self._last = state
        return state
