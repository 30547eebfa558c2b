"""Oriented boxes in the plane: corners, overlap, distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def box_corners(pose: Array, size_m: Array) -> Array:
    """Corners (..., 4, 2) of boxes with pose (..., 3) x, y, yaw and size (..., 2) length, width."""
    c, s = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]], dtype=np.float64) * 0.5
    local = signs * size_m[..., None, :]
    x = local[..., 0] * c[..., None] - local[..., 1] * s[..., None]
    y = local[..., 0] * s[..., None] + local[..., 1] * c[..., None]
    return np.stack([x + pose[..., 0, None], y + pose[..., 1, None]], axis=-1)


def boxes_gap(pose_a: Array, size_a: Array, pose_b: Array, size_b: Array) -> Array:
    """Separation (...) of boxes along their best separating axis: negative where they overlap.

    Exact in sign (separating axis theorem); where positive it is a lower bound of the distance.
    All inputs broadcast: poses (..., 3), sizes (..., 2).
    """
    delta = pose_b[..., :2] - pose_a[..., :2]
    relative = pose_b[..., 2] - pose_a[..., 2]
    c, s = np.abs(np.cos(relative)), np.abs(np.sin(relative))
    gap: Array | None = None
    for yaw, own, other in ((pose_a[..., 2], size_a, size_b), (pose_b[..., 2], size_b, size_a)):
        forward = np.abs(delta[..., 0] * np.cos(yaw) + delta[..., 1] * np.sin(yaw))
        left = np.abs(-delta[..., 0] * np.sin(yaw) + delta[..., 1] * np.cos(yaw))
        along = forward - 0.5 * (own[..., 0] + other[..., 0] * c + other[..., 1] * s)
        across = left - 0.5 * (own[..., 1] + other[..., 0] * s + other[..., 1] * c)
        best = np.maximum(along, across)
        gap = best if gap is None else np.maximum(gap, best)
    assert gap is not None
    return gap
