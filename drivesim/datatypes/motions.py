"""Many cars on their routes at one moment, column by column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.geometry.curve_table import CurveTable

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Motions:
    """b cars, world frame.

    Attributes:
        x_m, y_m, yaw_rad, speed_mps: (b,) rear axle.
        s_m, lateral_m: (b,) place on the route, left positive.
        curves: the routes.
        limits_mps: (b, r) speed limit at each point of the curves.
        remaining_m: (b,) to the goal.
    """

    x_m: Array
    y_m: Array
    yaw_rad: Array
    speed_mps: Array
    s_m: Array
    lateral_m: Array
    curves: CurveTable
    limits_mps: Array
    remaining_m: Array

    @property
    def columns(self) -> Array:
        """(b, 4) x, y, yaw, speed."""
        return np.stack([self.x_m, self.y_m, self.yaw_rad, self.speed_mps], axis=-1)
