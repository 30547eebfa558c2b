"""What the car knows of its own motion and route, without looking: inputs of every head."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import EgoState, RouteAhead
from drivesim.geometry import Polyline

LOOKAHEAD_M = (4.0, 8.0, 14.0, 22.0, 32.0)


def kinematics(ego: EgoState, route: RouteAhead, step_s: float = 0.0, distance_m: float = 0.0) -> NDArray[np.float32]:
    """Sixteen scaled numbers: motion, route curvature and limits ahead, and how far an imagined step lies away.

    Args:
        step_s: seconds into imagination (0 for now).
        distance_m: metres driven since the start of imagination.
    """
    values = np.zeros(16, np.float32)
    values[0] = ego.speed_mps / 10.0
    # 1 and 2 (acceleration, yaw rate) are set in imagination only: a policy that sees what its teacher is
    # doing now copies it instead of looking (held-out R2 .43 without any vision, and it never starts again).
    if len(route.points_m) >= 3:
        line = Polyline.from_points(route.points_m)
        s, lateral = line.project(0.0, 0.0)
        values[3:8] = line.curvature(s + np.array(LOOKAHEAD_M)) * 10.0
        values[8] = lateral
        values[9] = np.sin(line.at(s)[2])
    if len(route.speed_limit_mps):
        index = np.minimum([0, 10, 25], len(route.speed_limit_mps) - 1)
        values[10:13] = route.speed_limit_mps[index] / 10.0
    values[13] = min(route.remaining_m, 50.0) / 50.0
    values[14] = step_s / 4.0
    values[15] = distance_m / 20.0
    return values


def imagined_kinematics(
    now: NDArray[np.float32],
    speeds_mps: NDArray[np.float64],
    actions: NDArray[np.float64],
    distances_m: NDArray[np.float64],
    step_s: float = 0.5,
) -> NDArray[np.float32]:
    """The same sixteen numbers (k, p, 16) at imagined steps: own motion is integrated, never predicted."""
    k, p = speeds_mps.shape
    out = np.tile(now, (k, p, 1)).astype(np.float32)
    out[..., 0] = speeds_mps / 10.0
    out[..., 1] = actions[..., 0] / 3.0
    out[..., 2] = speeds_mps * actions[..., 1] * 2.0
    out[..., 14] = (np.arange(p) + 1) * step_s / 4.0
    out[..., 15] = distances_m / 20.0
    return out
