"""Rigid transforms: the only transform class of the house (right-handed, x forward, y left, z up)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def wrap_angle(angle_rad: float) -> float:
    """Map an angle into (-pi, pi]."""
    return -((math.pi - angle_rad) % (2.0 * math.pi) - math.pi)


def rotation_from_rpy(roll_rad: float, pitch_rad: float, yaw_rad: float) -> Array:
    """Rotation matrix (3, 3), Rz(yaw) @ Ry(pitch) @ Rx(roll), right-handed (positive pitch looks down)."""
    cr, sr = math.cos(roll_rad), math.sin(roll_rad)
    cp, sp = math.cos(pitch_rad), math.sin(pitch_rad)
    cy, sy = math.cos(yaw_rad), math.sin(yaw_rad)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


@dataclass(frozen=True)
class Pose:
    """A member of SE(3), named `target_from_source` where it is used.

    Attributes:
        rotation: (3, 3) float64, orthonormal.
        translation_m: (3,) float64.
    """

    rotation: Array
    translation_m: Array

    @staticmethod
    def identity() -> Pose:
        """The pose that changes nothing."""
        return Pose(np.eye(3), np.zeros(3))

    @staticmethod
    def from_xyz_rpy(
        x_m: float, y_m: float, z_m: float, roll_rad: float = 0.0, pitch_rad: float = 0.0, yaw_rad: float = 0.0
    ) -> Pose:
        """From a position and intrinsic z-y-x Euler angles."""
        return Pose(rotation_from_rpy(roll_rad, pitch_rad, yaw_rad), np.array([x_m, y_m, z_m], dtype=np.float64))

    def compose(self, other: Pose) -> Pose:
        """`a_from_b.compose(b_from_c)` is `a_from_c`."""
        return Pose(self.rotation @ other.rotation, self.rotation @ other.translation_m + self.translation_m)

    def inverse(self) -> Pose:
        """`source_from_target`."""
        return Pose(self.rotation.T, -self.rotation.T @ self.translation_m)

    def apply(self, points: Array) -> Array:
        """Map points (..., 3) from the source into the target frame."""
        return np.asarray(points @ self.rotation.T + self.translation_m)

    @property
    def yaw_rad(self) -> float:
        """Heading of the source's x axis in the target's x-y plane."""
        return math.atan2(self.rotation[1, 0], self.rotation[0, 0])

    def validate(self) -> None:
        """Raise ValueError unless shapes are right and the rotation is orthonormal."""
        if self.rotation.shape != (3, 3) or self.translation_m.shape != (3,):
            raise ValueError(f"pose shapes are {self.rotation.shape} and {self.translation_m.shape}")
        if not np.allclose(self.rotation @ self.rotation.T, np.eye(3), atol=1e-6):
            raise ValueError("pose rotation is not orthonormal")
