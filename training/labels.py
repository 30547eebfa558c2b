"""Truth beside the latent: for heads on the frozen latent and for probes, never for the latent itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import ACTOR_WALKER, LIGHT_RED, LIGHT_YELLOW, ActorStates, EgoState, Frame, LightStates
from drivesim.geometry import Polyline, boxes_gap

Array = NDArray[np.float64]

LANE_HALF_WIDTH_M = 1.6
VISIBLE_M = 40.0
READOUT_COLUMNS = (
    "lead_gap", "lead_speed", "lead_present", "red_light", "red_distance", "walker_ahead", "lateral", "heading",
    "curvature_ahead",
)  # fmt: skip


def to_ego(ego: EgoState, actors: ActorStates) -> tuple[Array, Array]:
    """Actor poses (n, 3) x, y, yaw and velocities (n, 2) in the ego frame."""
    c, s = np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)
    turn = np.array([[c, s], [-s, c]])
    xy = (actors.pose[:, :2] - [ego.x_m, ego.y_m]) @ turn.T
    return np.column_stack([xy, actors.pose[:, 3] - ego.yaw_rad]), actors.velocity_mps @ turn.T


def stop_lines_to_ego(ego: EgoState, lights: LightStates) -> Array:
    """Stop lines (q, 3) x, y, yaw in the ego frame."""
    c, s = np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)
    xy = (lights.stop_pose[:, :2] - [ego.x_m, ego.y_m]) @ np.array([[c, s], [-s, c]]).T
    return np.column_stack([xy, lights.stop_pose[:, 3] - ego.yaw_rad])


def readouts(frame: Frame) -> dict[str, float]:
    """What a probe should find in the latent of this frame; distances in metres, masked values as 1e3."""
    ego, route = frame.ego, frame.route
    line = Polyline.from_points(route.points_m)
    s0, lateral = line.project(0.0, 0.0)
    front_m = ego.rear_axle_to_center_m + 0.5 * ego.length_m
    out = {
        "lead_gap": 1e3, "lead_speed": 0.0, "lead_present": 0.0, "red_light": 0.0, "red_distance": 1e3,
        "walker_ahead": 0.0, "lateral": lateral, "heading": float(np.sin(line.at(s0)[2])),
        "curvature_ahead": float(line.curvature(s0 + 14.0, 4.0)),
    }  # fmt: skip
    poses, velocities = to_ego(ego, frame.actors)
    for i in range(len(poses)):
        x, y = poses[i, 0], poses[i, 1]
        if x < -2.0 or x > 60.0 or abs(y) > 30.0:
            continue
        s, offset = line.project(float(x), float(y))
        gap = s - s0 - front_m - 0.5 * float(frame.actors.size_m[i, 0])
        if frame.actors.kinds[i] == ACTOR_WALKER and -1.0 < s - s0 < 25.0 and abs(offset) < 4.0:
            out["walker_ahead"] = 1.0
        reach = LANE_HALF_WIDTH_M + 0.25 * float(frame.actors.size_m[i, 1])
        if abs(offset) < reach and -front_m < gap < min(out["lead_gap"], VISIBLE_M):
            heading = line.at(s)[2]
            along = float(velocities[i] @ [np.cos(heading), np.sin(heading)])
            out |= {"lead_gap": max(gap, 0.0), "lead_speed": along, "lead_present": 1.0}
    for x, y, yaw, state in zip(*stop_lines_to_ego(ego, frame.lights).T, frame.lights.states, strict=True):
        if state not in (LIGHT_RED, LIGHT_YELLOW) or not -2.0 < x < VISIBLE_M or abs(y) > 30.0:
            continue
        s, offset = line.project(float(x), float(y))
        aligned = np.cos(yaw - line.at(s)[2]) > 0.7
        if aligned and abs(offset) < 2.0 and 0.0 < s - s0 - front_m < min(out["red_distance"], VISIBLE_M):
            out |= {"red_light": 1.0, "red_distance": s - s0 - front_m}
    return out


def future_risks(frames: list[Frame], poses: Array, speeds: Array) -> Array:
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
