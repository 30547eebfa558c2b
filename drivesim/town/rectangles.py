"""Oriented rectangles on the ground: which of many overlap a given one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Rectangles:
    """Oriented rectangles in a hash grid: overlap and containment."""

    CELL_M = 24.0

    def __init__(self, rows: Floats | None = None) -> None:
        self.cells: dict[tuple[int, int], list[tuple[float, ...]]] = {}
        for row in rows if rows is not None else ():
            self.add((row[0], row[1], row[3], row[4], row[5]))

    def _keys(self, x: float, y: float, reach: float) -> list[tuple[int, int]]:
        c = self.CELL_M
        return [(i, j) for i in range(int((x - reach) // c), int((x + reach) // c) + 1)
                for j in range(int((y - reach) // c), int((y + reach) // c) + 1)]  # fmt: skip

    def add(self, box: tuple[float, ...]) -> None:
        """One more: x, y, yaw, half length, half width."""
        for key in self._keys(box[0], box[1], float(np.hypot(box[3], box[4]))):
            self.cells.setdefault(key, []).append(box)

    def overlaps(self, box: tuple[float, ...], gap: float) -> bool:
        """Separating axes against every rectangle near."""
        seen: set[tuple[float, ...]] = set()
        for key in self._keys(box[0], box[1], float(np.hypot(box[3], box[4])) + gap):
            for other in self.cells.get(key, ()):
                if other not in seen:
                    seen.add(other)
                    if not _separated(box, other, gap):
                        return True
        return False


def _separated(a: tuple[float, ...], b: tuple[float, ...], gap: float) -> bool:
    dx, dy = b[0] - a[0], b[1] - a[1]
    for yaw in (a[2], a[2] + np.pi / 2, b[2], b[2] + np.pi / 2):
        ux, uy = np.cos(yaw), np.sin(yaw)
        reach = gap
        for box in (a, b):
            reach += box[3] * abs(np.cos(box[2] - yaw)) + box[4] * abs(np.sin(box[2] - yaw))
        if abs(dx * ux + dy * uy) > reach:
            return True
    return False
