"""Many planar curves in one table, asked all at once: a batch of `Polyline`s with the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.geometry.curve import Polyline

Array = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class CurveTable:
    """b curves of up to r points; shorter ones are padded with their last point.

    Attributes:
        points_m: (b, r, 2).
        s_m: (b, r) arc length; padding goes on growing, so that every row is sorted.
        heading_rad: (b, r) unwrapped.
        length_m: (b,).
    """

    points_m: Array
    s_m: Array
    heading_rad: Array
    length_m: Array

    @staticmethod
    def of(curves: Sequence[Polyline]) -> CurveTable:
        """Stack curves.

        Raises:
            ValueError: none are given.
        """
        if not curves:
            raise ValueError("a curve table needs at least one curve")
        r = max(len(curve.s_m) for curve in curves)
        points, s, heading = np.empty((len(curves), r, 2)), np.empty((len(curves), r)), np.empty((len(curves), r))
        for row, curve in enumerate(curves):
            n = len(curve.s_m)
            points[row, :n], points[row, n:] = curve.points_m, curve.points_m[-1]
            s[row, :n], s[row, n:] = curve.s_m, curve.length_m + 1.0 + np.arange(r - n)
            heading[row, :n], heading[row, n:] = curve.heading_rad, curve.heading_rad[-1]
        return CurveTable(points, s, heading, np.array([curve.length_m for curve in curves]))

    def take(self, rows: Index) -> CurveTable:
        """Some of the curves."""
        return CurveTable(self.points_m[rows], self.s_m[rows], self.heading_rad[rows], self.length_m[rows])

    def locate(self, s_m: Array) -> tuple[Index, Array]:
        """Segment before each arc length (b, ...) and the share of it that is passed, clamped to the ends."""
        b, r = self.s_m.shape
        shape = (b,) + (1,) * (s_m.ndim - 1)
        s = np.clip(s_m, 0.0, self.length_m.reshape(shape))
        stride = float(self.s_m[:, -1].max()) + 1.0
        offset = stride * np.arange(b)
        flat = (self.s_m + offset[:, None]).ravel()
        found = np.searchsorted(flat, (s + offset.reshape(shape)).ravel(), side="right").reshape(s.shape) - 1
        k = np.clip(found - r * np.arange(b).reshape(shape), 0, r - 2)
        rows = np.arange(b).reshape(shape)
        begin = self.s_m[rows, k]
        share = np.clip((s - begin) / (self.s_m[rows, k + 1] - begin), 0.0, 1.0)
        return k, share

    def at(self, s_m: Array) -> Array:
        """Points (b, ..., 3) of x, y, heading at arc lengths (b, ...)."""
        k, share = self.locate(s_m)
        rows = np.arange(len(k)).reshape((len(k),) + (1,) * (k.ndim - 1))
        xy = self.points_m[rows, k] + share[..., None] * (self.points_m[rows, k + 1] - self.points_m[rows, k])
        turn = self.heading_rad[rows, k]
        heading = turn + share * (self.heading_rad[rows, k + 1] - turn)
        return np.concatenate([xy, heading[..., None]], axis=-1)

    def curvature(self, s_m: Array, half_window_m: float = 2.0) -> Array:
        """Signed curvature (b, ...) at arc lengths, by central difference of the heading."""
        length = self.length_m.reshape((len(s_m),) + (1,) * (s_m.ndim - 1))
        ahead, behind = np.clip(s_m + half_window_m, 0.0, length), np.clip(s_m - half_window_m, 0.0, length)
        turn = self._heading(ahead) - self._heading(behind)
        return np.asarray(turn / np.maximum(ahead - behind, 1e-6))

    def _heading(self, s_m: Array) -> Array:
        k, share = self.locate(s_m)
        rows = np.arange(len(k)).reshape((len(k),) + (1,) * (k.ndim - 1))
        return np.asarray(self.heading_rad[rows, k] * (1.0 - share) + self.heading_rad[rows, k + 1] * share)

    def project(self, x_m: Array, y_m: Array, near_s_m: Array, window_m: float = 30.0) -> tuple[Array, Array]:
        """Nearest arc length and lateral offset (b,), left positive, within `window_m` of a guess (b,)."""
        b, r = self.s_m.shape
        first, _ = self.locate(np.minimum(near_s_m - window_m, self.length_m - 1e-6))
        last, _ = self.locate(near_s_m + window_m)
        rows = np.arange(b)[:, None]
        k = np.minimum(first[:, None] + np.arange(int((last - first).max()) + 1), last[:, None])
        k = np.minimum(k, r - 2)
        start, begin = self.points_m[rows, k], self.s_m[rows, k]
        step, length = self.points_m[rows, k + 1] - start, self.s_m[rows, k + 1] - begin
        offset = np.stack([x_m, y_m], axis=-1)[:, None] - start
        along = np.clip((offset * step).sum(-1) / length**2, 0.0, 1.0)
        gap = offset - along[..., None] * step
        distance = np.where(begin < self.length_m[:, None], (gap**2).sum(-1), np.inf)
        best = np.argmin(distance, axis=1)
        at = np.arange(b), best
        side = (step[..., 0] * offset[..., 1] - step[..., 1] * offset[..., 0])[at] / length[at]
        return begin[at] + along[at] * length[at], side
