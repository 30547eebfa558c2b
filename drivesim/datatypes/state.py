"""Ego, actors and lights at one moment, in the world frame (right-handed, x forward/east, y left/north, z up)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drivesim.geometry import Pose

ACTOR_VEHICLE, ACTOR_WALKER, ACTOR_PROP = range(3)
LIGHT_RED, LIGHT_YELLOW, LIGHT_GREEN, LIGHT_OFF = range(4)


@dataclass(frozen=True)
class EgoState:
    """The ego at one tick; x, y, z is the rear axle's midpoint on the ground."""

    time_us: int
    x_m: float
    y_m: float
    z_m: float
    roll_rad: float
    pitch_rad: float
    yaw_rad: float
    speed_mps: float  # signed, along the heading
    acceleration_mps2: float  # along the heading
    yaw_rate_radps: float  # left positive
    length_m: float = 4.79
    width_m: float = 2.16
    rear_axle_to_center_m: float = 1.44

    @property
    def world_from_ego(self) -> Pose:
        """Pose of the ego frame."""
        return Pose.from_xyz_rpy(self.x_m, self.y_m, self.z_m, self.roll_rad, self.pitch_rad, self.yaw_rad)

    def moved(self, left_m: float, turned_rad: float) -> EgoState:
        """The same further to the left and turned to the left."""
        x, y = self.x_m - left_m * math.sin(self.yaw_rad), self.y_m + left_m * math.cos(self.yaw_rad)
        return replace(self, x_m=float(x), y_m=float(y), yaw_rad=self.yaw_rad + turned_rad)

    @property
    def center_xy_m(self) -> tuple[float, float]:
        """Centre of the ego's box in the plane."""
        d = self.rear_axle_to_center_m
        return self.x_m + d * float(np.cos(self.yaw_rad)), self.y_m + d * float(np.sin(self.yaw_rad))


@dataclass(frozen=True)
class ActorStates:
    """Everyone but the ego; n rows.

    Attributes:
        ids: (n,) int64.
        kinds: (n,) uint8, ACTOR_*.
        pose: (n, 4) float64: x, y, z of the box's centre on the ground, yaw.
        size_m: (n, 3) full length, width, height.
        velocity_mps: (n, 2) in the world frame.
    """

    ids: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    pose: NDArray[np.float64]
    size_m: NDArray[np.float64]
    velocity_mps: NDArray[np.float64]

    @staticmethod
    def empty() -> ActorStates:
        """Nobody there."""
        return ActorStates(
            np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros((0, 4)), np.zeros((0, 3)), np.zeros((0, 2))
        )

    def validate(self) -> None:
        """Raise ValueError unless all columns have the same number of rows."""
        n = len(self.ids)
        shapes = (self.kinds.shape, self.pose.shape, self.size_m.shape, self.velocity_mps.shape)
        if shapes != ((n,), (n, 4), (n, 3), (n, 2)):
            raise ValueError(f"actor columns disagree: {n} ids, shapes {shapes}")


@dataclass(frozen=True)
class LightStates:
    """Stop lines with the state of their lights; q rows.

    Attributes:
        states: (q,) uint8, LIGHT_*.
        stop_pose: (q, 4) float64: x, y, z, yaw (driving direction) of the stop line's centre.
        half_width_m: (q,).
    """

    states: NDArray[np.uint8]
    stop_pose: NDArray[np.float64]
    half_width_m: NDArray[np.float64]

    @staticmethod
    def empty() -> LightStates:
        """No lights."""
        return LightStates(np.zeros(0, np.uint8), np.zeros((0, 4)), np.zeros(0))
