"""Spring arms: what hangs on one follows its parent's heading softly and stays level (0.9.16, ActorAttacher.cpp).

The arm reaches from the parent's origin to where the child was asked to be. It turns with the parent's yaw, not with
its pitch or roll, with a lag; the child looks along the arm towards the parent, turned further by its own rotation.
`SpringArm` starts 0.3 m higher and shortens where scenery is in its way, `SpringArmGhost` does neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from drivesim.carla_server.poses import Floats, matrix_from_pose, pose_from_matrix

RIGID, SPRING_ARM, SPRING_ARM_GHOST = range(3)
LAG_PER_S = 8.0
LAG_STEP_S = 1.0 / 60.0
LIFT_M = 0.3
PROBE_M = 0.12  # radius of what must fit between the parent and the child

FreeWay = Callable[[Floats, float], float]  # along the x axis of a matrix (4, 4), up to a length: metres that are free


@dataclass
class SpringArm:
    """One arm; angles in radians."""

    length_m: float
    pitch: float
    yaw: float  # of the arm against the parent's
    turn: Floats  # (3, 3) of the child against the arm
    ghost: bool
    heading: float  # where the arm points now, in the world

    @staticmethod
    def of(relative: Floats, parent: Floats, attachment: int) -> SpringArm:
        """The arm to a child at `relative` (4, 4, parent from child) of a parent at `parent` (4, 4)."""
        x, y, z = (-relative[:3, 3]).tolist()
        length = math.sqrt(x * x + y * y + z * z)
        pitch = math.asin(z / length) if length > 1e-6 else 0.0
        yaw = math.atan2(y, x) if length > 1e-6 else 0.0
        heading = float(pose_from_matrix(parent)[1][2]) + yaw
        return SpringArm(length, pitch, yaw, relative[:3, :3].copy(), attachment == SPRING_ARM_GHOST, heading)

    def advance(self, parent: Floats, dt_s: float) -> None:
        """Turn after the parent (4, 4) for `dt_s` seconds, in the steps that the engine lags by."""
        wanted = float(pose_from_matrix(parent)[1][2]) + self.yaw
        gap = _wrapped(wanted - self.heading)
        target, left_s = self.heading, dt_s
        while left_s > 1e-4:
            step_s = min(LAG_STEP_S, left_s)
            target += gap / dt_s * step_s
            self.heading += _wrapped(target - self.heading) * min(step_s * LAG_PER_S, 1.0)
            left_s -= step_s

    def place(self, parent: Floats, free_way: FreeWay) -> Floats:
        """Where the child is in the world (4, 4)."""
        along = matrix_from_pose(parent[:3, 3], np.array([0.0, self.pitch, self.heading]))
        length = self.length_m
        if not self.ghost:
            along[2, 3] += LIFT_M
            back = along.copy()
            back[:3, 0] = -along[:3, 0]
            length = min(length, free_way(back, length))
        child = along.copy()
        child[:3, 3] -= along[:3, 0] * length
        child[:3, :3] = along[:3, :3] @ self.turn
        return child


def _wrapped(angle: float) -> float:
    return (angle + math.pi) % (2.0 * math.pi) - math.pi
