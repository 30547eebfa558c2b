"""Truth beside the latent: for heads on the frozen latent and for probes, never for the latent itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import LIGHT_RED, EgoState, Frame
from drivesim.geometry import boxes_gap
from drivesim.logs.truth import READOUT_COLUMNS, readouts, stop_lines_to_ego, to_ego

Array = NDArray[np.float64]

__all__ = ["READOUT_COLUMNS", "crossed_red", "future_risks", "readouts"]


def future_risks(frames: list[Frame], poses: Array, speeds: Array) -> NDArray[np.float32]:
    """What would happen to hypothetical drives if everybody else did what the log says.

    Args:
        frames: p + 1 frames half a second apart; frames[0] is now.
        poses: (k, p, 3) rear axle in the ego frame of frames[0]; speeds (k, p).

    Returns:
        (k, p, 3) float32 in {0, 1}: collision, near, red_light, at each step. Whoever is behind the ego
        now is left out (a log's follower does not brake for a hypothetical ego).
    """
    now = frames[0].ego
    k, p = speeds.shape
    out = np.zeros((k, p, 3), np.float32)
    d = now.rear_axle_to_center_m
    ego_size = np.array([now.length_m, now.width_m])
    start, _ = to_ego(now, frames[0].actors)
    behind = set(frames[0].actors.ids[start[:, 0] < -1.0].tolist())
    center = poses.copy()
    center[..., 0] += d * np.cos(poses[..., 2])
    center[..., 1] += d * np.sin(poses[..., 2])
    for step in range(p):
        frame = frames[step + 1]
        keep = np.array([int(i) not in behind for i in frame.actors.ids], dtype=bool)
        keep &= np.hypot(frame.actors.pose[:, 0] - now.x_m, frame.actors.pose[:, 1] - now.y_m) < 60.0
        if keep.any():
            others, velocity = to_ego(now, frame.actors)
            others, velocity = others[keep], velocity[keep]
            sizes = frame.actors.size_m[keep, :2]
            own = center[:, step, None]
            gap = boxes_gap(own, ego_size, others[None], sizes[None])
            ahead = own.copy()  # where the ego would be 0.8 s later at this speed
            ahead[..., 0] += 0.8 * speeds[:, step, None] * np.cos(own[..., 2])
            ahead[..., 1] += 0.8 * speeds[:, step, None] * np.sin(own[..., 2])
            later = others.copy()
            later[:, :2] += 0.8 * velocity
            soon = boxes_gap(ahead, ego_size, later[None], sizes[None])
            out[:, step, 0] = (gap < 0.0).any(1)
            out[:, step, 1] = ((gap < 0.4) | (soon < 0.2)).any(1)
        out[:, step, 2] = crossed_red(frame, now, center, poses, step)
    return out


def crossed_red(frame: Frame, now: EgoState, center: Array, poses: Array, step: int) -> NDArray[np.bool_]:
    """(k,) whether the front bumper passes a red stop line during `step`."""
    k = len(poses)
    if not len(frame.lights.states):
        return np.zeros(k, dtype=bool)
    lines = stop_lines_to_ego(now, frame.lights)[frame.lights.states == LIGHT_RED]
    half = frame.lights.half_width_m[frame.lights.states == LIGHT_RED]
    front = center[:, step, :2] + 0.5 * now.length_m * np.stack(
        [np.cos(poses[:, step, 2]), np.sin(poses[:, step, 2])], -1
    )
    if step == 0:
        origin = np.array([now.rear_axle_to_center_m + 0.5 * now.length_m, 0.0])
        before = np.broadcast_to(origin, front.shape)
    else:
        yaw = poses[:, step - 1, 2]
        before = center[:, step - 1, :2] + 0.5 * now.length_m * np.stack([np.cos(yaw), np.sin(yaw)], -1)
    hit = np.zeros(k, dtype=bool)
    for (x, y, yaw), reach in zip(lines, half, strict=True):
        forward, left = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
        s0, s1 = (before - [x, y]) @ forward, (front - [x, y]) @ forward
        hit |= (
            (s0 <= 0.0)
            & (s1 > 0.0)
            & (np.abs((front - [x, y]) @ left) < reach + 0.5)
            & (np.cos(poses[:, step, 2] - yaw) > 0.5)
        )
    return hit
