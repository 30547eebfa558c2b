"""Kinematic bicycle at the rear axle, in acceleration and curvature: the planner's analytic ego."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rollout(speed_mps: Array | float, actions: Array, dt_s: float, substeps: int = 5) -> tuple[Array, Array]:
    """Integrate action sequences from the origin of the ego frame.

    Args:
        speed_mps: (...) speed now.
        actions: (..., p, 2) acceleration (m/s2) and curvature (1/m), each held for `dt_s`.
        dt_s: duration of one planned step.
        substeps: integration steps within each planned step.

    Returns:
        poses (..., p, 3) x, y, yaw at the END of each step, and speeds (..., p). Speed never turns negative.
    """
    batch = actions.shape[:-2]
    x, y, yaw = np.zeros(batch), np.zeros(batch), np.zeros(batch)
    v = np.broadcast_to(np.asarray(speed_mps, dtype=np.float64), batch).copy()
    h = dt_s / substeps
    poses = np.empty((*actions.shape[:-1], 3))
    speeds = np.empty(actions.shape[:-1])
    for p in range(actions.shape[-2]):
        a, k = actions[..., p, 0], actions[..., p, 1]
        for _ in range(substeps):
            v_next = np.maximum(v + a * h, 0.0)
            distance = 0.5 * (v + v_next) * h
            turn = k * distance
            x = x + distance * np.cos(yaw + 0.5 * turn)
            y = y + distance * np.sin(yaw + 0.5 * turn)
            yaw = yaw + turn
            v = v_next
        poses[..., p, 0], poses[..., p, 1], poses[..., p, 2] = x, y, yaw
        speeds[..., p] = v
    return poses, speeds


def actions_from_motion(poses: Array, speeds_mps: Array, dt_s: float) -> Array:
    """Inverse of `rollout` for one driven path: poses (t, 3), speeds (t,) -> actions (t - 1, 2).

    Curvature is zero where the car barely moves (less than 0.1 m in a step).
    """
    acceleration = np.diff(speeds_mps) / dt_s
    distance = 0.5 * (speeds_mps[1:] + speeds_mps[:-1]) * dt_s
    turn = np.diff(np.unwrap(poses[:, 2]))
    curvature = np.where(distance > 0.1, turn / np.maximum(distance, 0.1), 0.0)
    return np.stack([acceleration, curvature], axis=-1)
