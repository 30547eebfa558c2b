"""Batched rigid transforms in CARLA's frame (left-handed; rotation = roll, pitch, yaw in radians)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def matrix_from_pose(xyz: Floats, rotation: Floats) -> Floats:
    """World-from-local matrices.

    Args:
        xyz: (..., 3) metres.
        rotation: (..., 3) roll, pitch, yaw in radians; pitch up, yaw and roll clockwise are positive.

    Returns:
        (..., 4, 4) homogeneous matrices.
    """
    cosine, sine = np.cos(rotation), np.sin(rotation)
    cr, cp, cy = cosine[..., 0], cosine[..., 1], cosine[..., 2]
    sr, sp, sy = sine[..., 0], sine[..., 1], sine[..., 2]
    matrix = np.zeros((*xyz.shape[:-1], 4, 4))
    matrix[..., 0, 0], matrix[..., 1, 0], matrix[..., 2, 0] = cp * cy, cp * sy, sp
    matrix[..., 0, 1] = cy * sp * sr - sy * cr
    matrix[..., 1, 1] = sy * sp * sr + cy * cr
    matrix[..., 2, 1] = -cp * sr
    matrix[..., 0, 2] = -cy * sp * cr - sy * sr
    matrix[..., 1, 2] = -sy * sp * cr + cy * sr
    matrix[..., 2, 2] = cp * cr
    matrix[..., :3, 3] = xyz
    matrix[..., 3, 3] = 1.0
    return matrix


def pose_from_matrix(matrix: Floats) -> tuple[Floats, Floats]:
    """The inverse of `matrix_from_pose`: (..., 3) metres and (..., 3) roll, pitch, yaw in radians."""
    pitch = np.arcsin(np.clip(matrix[..., 2, 0], -1.0, 1.0))
    yaw = np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0])
    roll = np.arctan2(-matrix[..., 2, 1], matrix[..., 2, 2])
    return matrix[..., :3, 3], np.stack([roll, pitch, yaw], axis=-1)
