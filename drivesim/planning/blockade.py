"""Who blocks the lane for good, and who only waits."""

from __future__ import annotations

import math

import numpy as np

from drivesim.datatypes import ACTOR_PROP, ACTOR_WALKER
from drivesim.planning.forecast import Forecast

LOOK_AHEAD_M = 45.0
STANDING_MPS = 0.3
QUEUE_GAP_M = 12.0  # cars that wait for a light stand no further apart
PARKED_AFTER_S = 2.0  # who was never seen moving
BROKEN_DOWN_AFTER_S = 10.0  # who was


class Blockade:
    """Remembers who stands since when, and tells blockers from queues."""

    def __init__(self) -> None:
        self._standing_since_us: dict[int, int] = {}
        self._seen_moving: set[int] = set()
        self._closed_us = -(10**9)

    def blockers(self, time_us: int, everybody: Forecast, stop_s: float, clearance_m: float) -> list[int]:
        """Rows of `everybody` that stand in the ego's lane and will go on doing so.

        Args:
            stop_s: distance to the closed light's stop line on the route, or infinite.
            clearance_m: from the route's centre line to where others do not matter.
        """
        standing = everybody.speed_mps < STANDING_MPS
        ids = everybody.ids[standing].tolist()
        self._seen_moving.update(everybody.ids[~standing].tolist())
        self._standing_since_us = {i: self._standing_since_us.get(i, time_us) for i in ids}
        if math.isfinite(stop_s):
            self._closed_us = time_us
        inside = np.abs(everybody.route_offset_m) - everybody.half_size_m[:, 1] < clearance_m
        ahead = (everybody.route_s_m > -6.0) & (everybody.route_s_m < LOOK_AHEAD_M)
        rows = np.flatnonzero(standing & inside & ahead & (everybody.kinds != ACTOR_WALKER))
        queued = self._queue(everybody, rows, stop_s)
        return [int(n) for n in rows if n not in queued and self._stays(time_us, everybody, int(n))]

    def _stays(self, time_us: int, everybody: Forecast, n: int) -> bool:
        if everybody.kinds[n] == ACTOR_PROP:
            return True
        if abs(everybody.route_offset_m[n]) > 0.7 and int(everybody.ids[n]) not in self._seen_moving:
            return True
        actor = int(everybody.ids[n])
        since_us = self._standing_since_us[actor]
        if actor not in self._seen_moving:
            return (time_us - since_us) * 1e-6 > PARKED_AFTER_S
        return (time_us - max(since_us, self._closed_us)) * 1e-6 > BROKEN_DOWN_AFTER_S

    @staticmethod
    def _queue(everybody: Forecast, rows: np.ndarray, stop_s: float) -> set[int]:
        """Of `rows` those that stand one behind the other up to the closed stop line."""
        queued: set[int] = set()
        head = stop_s
        for n in sorted(rows.tolist(), key=lambda row: -float(everybody.route_s_m[row])):
            reach = float(everybody.half_size_m[n, 0])
            front = float(everybody.route_s_m[n]) + reach
            if not math.isfinite(head) or head - front > QUEUE_GAP_M:
                break
            if front < stop_s + 6.0:
                queued.add(n)
                head = front - 2.0 * reach
        return queued
