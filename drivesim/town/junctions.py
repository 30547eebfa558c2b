"""Which junction lanes cross or merge with which (numba), from the baked arrays alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.roads import LANE_DRIVING

CLEARANCE_M = 2.0  # two cars on centre lines nearer than this would touch
DECK_M = 3.0  # lanes further apart in height are on different decks


def conflicts(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.int32]]:
    """CSR of conflicting lanes: `conflict_start` (L + 1,), `conflict_lane` (C,); symmetric.

    Lanes that fork from one approach lane are no conflict (the one behind follows), nor are lanes of
    one road (they run side by side).
    """
    junction = arrays["lane_junction"]
    lanes = np.flatnonzero((junction >= 0) & (arrays["lane_kind"] == LANE_DRIVING)).astype(np.int32)
    lanes = lanes[np.argsort(junction[lanes], kind="stable")]
    pairs = np.asarray(
        _conflicting_pairs(
            lanes, junction, arrays["lane_road"], approach_lanes(arrays), arrays["lane_start"], arrays["lane_count"],
            arrays["point_xyz_m"],
        ),
        dtype=np.int32,
    ).reshape(-1, 2)  # fmt: skip
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    start = np.zeros(len(junction) + 1, np.int32)
    start[1:] = np.cumsum(np.bincount(both[:, 0], minlength=len(junction)))
    return {"conflict_start": start, "conflict_lane": both[:, 1].astype(np.int32)}


def approach_lanes(arrays: dict[str, NDArray[Any]]) -> NDArray[np.int32]:
    """(L,) for a lane inside a junction the lane outside that leads to it; itself for all others."""
    junction, previous = arrays["lane_junction"], arrays["lane_previous"]
    result = np.arange(len(junction), dtype=np.int32)
    for _ in range(8):  # connecting roads have few sections
        back = previous[result, 0]
        result = np.where((junction[result] >= 0) & (back >= 0), back, result).astype(np.int32)
    return result


@njit(cache=True, error_model="numpy")
def _conflicting_pairs(
    lanes: Any, junction: Any, road: Any, approach: Any, start: Any, count: Any, xyz: Any
) -> Any:  # pragma: no cover - compiled
    pairs = [(np.int32(0), np.int32(0)) for _ in range(0)]
    for i in range(lanes.shape[0]):
        a = lanes[i]
        for j in range(i + 1, lanes.shape[0]):
            b = lanes[j]
            if junction[a] != junction[b]:
                break
            if road[a] != road[b] and approach[a] != approach[b] and _near(a, b, start, count, xyz):
                pairs.append((a, b))
    return pairs


@njit(cache=True, error_model="numpy")
def _near(a: Any, b: Any, start: Any, count: Any, xyz: Any) -> bool:  # pragma: no cover - compiled
    for p in range(start[a], start[a] + count[a]):
        for q in range(start[b], start[b] + count[b]):
            dx = xyz[p, 0] - xyz[q, 0]
            dy = xyz[p, 1] - xyz[q, 1]
            if dx * dx + dy * dy < CLEARANCE_M * CLEARANCE_M and abs(xyz[p, 2] - xyz[q, 2]) < DECK_M:
                return True
    return False
