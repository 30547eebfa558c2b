"""Planar curves by arc length: routes and lane centre lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Polyline:
    """A polyline in the plane with its arc length.

    Attributes:
        points_m: (n, 2), n >= 2, no repeated neighbours.
        s_m: (n,) arc length from the first point.
        heading_rad: (n,) direction at each point, unwrapped.
    """

    points_m: Array
    s_m: Array
    heading_rad: Array

    @staticmethod
    def from_points(points_m: Array) -> Polyline:
        """Build from (n, 2) points; drops repeated neighbours.

        Raises:
            ValueError: fewer than two distinct points.
        """
        points = np.asarray(points_m, dtype=np.float64)[:, :2]
        keep = np.concatenate([[True], np.linalg.norm(np.diff(points, axis=0), axis=1) > 1e-4])
        points = points[keep]
        if len(points) < 2:
            raise ValueError("a polyline needs at least two distinct points")
        steps = np.diff(points, axis=0)
        lengths = np.linalg.norm(steps, axis=1)
        directions = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
        heading = np.concatenate([directions[:1], 0.5 * (directions[1:] + directions[:-1]), directions[-1:]])
        return Polyline(points, np.concatenate([[0.0], np.cumsum(lengths)]), heading)

    @property
    def length_m(self) -> float:
        """Total arc length."""
        return float(self.s_m[-1])

    def project(
        self, x_m: float, y_m: float, near_s_m: float | None = None, window_m: float = 30.0
    ) -> tuple[float, float]:
        """Nearest arc length and signed lateral offset (left positive) of a point.

        Args:
            near_s_m: search only within `window_m` of this arc length, so that a route that crosses
                itself cannot jump.
        """
        first, last = 0, len(self.s_m) - 1
        if near_s_m is not None:
            first = max(0, int(np.searchsorted(self.s_m, near_s_m - window_m)) - 1)
            last = min(last, int(np.searchsorted(self.s_m, near_s_m + window_m)) + 1)
            if last <= first:
                first, last = max(0, last - 1), max(1, last)
        start = self.points_m[first:last]
        step = self.points_m[first + 1 : last + 1] - start
        length = self.s_m[first + 1 : last + 1] - self.s_m[first:last]
        offset = np.array([x_m, y_m]) - start
        along = np.clip((offset * step).sum(1) / length**2, 0.0, 1.0)
        gap = offset - along[:, None] * step
        k = int(np.argmin((gap**2).sum(1)))
        side = (step[k, 0] * offset[k, 1] - step[k, 1] * offset[k, 0]) / length[k]
        return float(self.s_m[first + k] + along[k] * length[k]), float(side)

    def at(self, s_m: Array | float) -> Array:
        """Points (..., 3) of x, y, heading at arc lengths, clamped to the ends."""
        s = np.clip(np.asarray(s_m, dtype=np.float64), 0.0, self.length_m)
        return np.stack(
            [
                np.interp(s, self.s_m, self.points_m[:, 0]),
                np.interp(s, self.s_m, self.points_m[:, 1]),
                np.interp(s, self.s_m, self.heading_rad),
            ],
            axis=-1,
        )

    def curvature(self, s_m: Array | float, half_window_m: float = 2.0) -> Array:
        """Signed curvature (left positive) at arc lengths, by central difference of the heading."""
        s = np.asarray(s_m, dtype=np.float64)
        ahead = np.interp(s + half_window_m, self.s_m, self.heading_rad)
        behind = np.interp(s - half_window_m, self.s_m, self.heading_rad)
        span = np.clip(s + half_window_m, 0, self.length_m) - np.clip(s - half_window_m, 0, self.length_m)
        return np.asarray((ahead - behind) / np.maximum(span, 1e-6))
