"""What is true about a frame, in the words of probes and reports: never seen by a driver or an encoder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import (
    ACTOR_VEHICLE,
    ACTOR_WALKER,
    LIGHT_RED,
    LIGHT_YELLOW,
    ActorStates,
    EgoState,
    Frame,
    LightStates,
)
from drivesim.geometry import Polyline

Array = NDArray[np.float64]

LANE_HALF_WIDTH_M = 1.6
VISIBLE_M = 40.0
AROUND_M = 25.0  # of the ego's centre: the nearest vehicle within it is the `other_*` of the read-outs
READOUT_COLUMNS = (
    "lead_gap", "lead_speed", "lead_present", "red_light", "red_distance", "walker_ahead", "lateral", "heading",
    "curvature_ahead", "other_ahead", "other_left", "other_present",
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


def nearest_vehicle(places_m: Array) -> dict[str, float]:
    """Where the nearest vehicle is, of places (n, 2) ahead of and left of the ego's centre; nothing beyond AROUND_M."""
    apart = np.hypot(places_m[:, 0], places_m[:, 1])
    if not len(apart) or apart.min() > AROUND_M:
        return {}
    ahead, left = (float(m) for m in places_m[int(apart.argmin())])
    return {"other_ahead": ahead, "other_left": left, "other_present": 1.0}


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
        "other_ahead": 0.0, "other_left": 0.0, "other_present": 0.0,
    }  # fmt: skip
    poses, velocities = to_ego(ego, frame.actors)
    out |= nearest_vehicle(poses[frame.actors.kinds == ACTOR_VEHICLE, :2] - [ego.rear_axle_to_center_m, 0.0])
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
