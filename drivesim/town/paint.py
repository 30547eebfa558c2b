"""Lane paint as polylines. A mark lies on the outer border of its lane, so none is painted twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drivesim.town.roads import (
    COLOR_WHITE,
    COLOR_YELLOW,
    LANE_DRIVING,
    MARK_BROKEN,
    MARK_CURB,
    MARK_SOLID,
    MARK_SOLID_SOLID,
    MARK_STOP_LINE,
)
from drivesim.town.xodr import XodrMark

if TYPE_CHECKING:
    from drivesim.town.opendrive import SampledLane

MARK_KINDS = {
    "solid": MARK_SOLID, "broken": MARK_BROKEN, "solid solid": MARK_SOLID_SOLID, "curb": MARK_CURB,
    "solid broken": MARK_SOLID_SOLID, "broken solid": MARK_SOLID_SOLID, "broken broken": MARK_BROKEN,
    "botts dots": MARK_BROKEN,
}  # fmt: skip
STOP_LINE_WIDTH_M = 0.4
INSIDE_M = 0.4  # a line this far inside another lane of its junction is not painted
Polyline = tuple[NDArray[np.float64], int, int, float]  # points (n, 3), kind, color, width


def marks(lanes: list[SampledLane], arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """All `mark_*` arrays: the borders of every sampled lane, then the stop lines."""
    polylines: list[Polyline] = []
    centred: set[tuple[int, int]] = set()  # sections whose reference line is painted
    inner = _junction_points(arrays)
    for lane in lanes:
        xodr = {each.id: each for each in lane.section.lanes}
        lane_id = lane.key[2]
        polylines += _border(lane, xodr[lane_id].marks, inner.get(lane.junction), outer=True)
        if abs(lane_id) == 1 and lane.key[:2] not in centred and 0 in xodr:
            centred.add(lane.key[:2])
            polylines += _border(lane, xodr[0].marks, inner.get(lane.junction), outer=False)
    polylines += _stop_lines(arrays)
    counts = np.array([len(points) for points, _, _, _ in polylines], np.int32)
    flat = np.concatenate([points for points, _, _, _ in polylines]) if polylines else np.zeros((0, 3))
    return {
        "mark_xyz_m": flat.astype(np.float32),
        "mark_start": (np.cumsum(counts) - counts).astype(np.int32),
        "mark_count": counts,
        "mark_kind": np.array([kind for _, kind, _, _ in polylines], np.uint8),
        "mark_color": np.array([color for _, _, color, _ in polylines], np.uint8),
        "mark_width_m": np.array([width for _, _, _, width in polylines], np.float32),
    }


def _junction_points(arrays: dict[str, NDArray[Any]]) -> dict[int, NDArray[np.float64]]:
    """Junction -> (n, 5) its driving points: x, y, yaw, half width, road."""
    lane = arrays["point_lane"]
    inside = (arrays["lane_junction"][lane] >= 0) & (arrays["lane_kind"][lane] == LANE_DRIVING)
    rows = np.flatnonzero(inside)
    if not len(rows):
        return {}
    junction = arrays["lane_junction"][lane[rows]]
    columns = (arrays["point_yaw_rad"][rows], arrays["point_width_m"][rows] / 2, arrays["lane_road"][lane[rows]])
    table = np.column_stack([arrays["point_xyz_m"][rows, :2], *columns]).astype(np.float64)
    order = np.argsort(junction, kind="stable")
    ids, first = np.unique(junction[order], return_index=True)
    return dict(zip(ids.tolist(), np.split(table[order], first[1:]), strict=True))


def _unobstructed(points: NDArray[np.float64], road: int, inner: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) which points lie inside no lane of another road of the junction."""
    others = inner[inner[:, 4] != road]
    dx, dy = points[:, None, 0] - others[:, 0], points[:, None, 1] - others[:, 1]
    cos, sin = np.cos(others[:, 2]), np.sin(others[:, 2])
    crossed = (np.abs(dx * cos + dy * sin) < 0.75) & (np.abs(dy * cos - dx * sin) < others[:, 3] - INSIDE_M)
    return np.asarray(~crossed.any(axis=1), np.bool_)


def _pieces(points: NDArray[np.float64], keep: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """The unbroken stretches of kept points, of two points and more."""
    cuts = np.flatnonzero(np.diff(keep.astype(np.int8))) + 1
    parts = zip(np.split(points, cuts), np.split(keep, cuts), strict=True)
    return [part for part, kept in parts if len(part) >= 2 and kept[0]]


def _border(
    lane: SampledLane, records: tuple[XodrMark, ...], inner: NDArray[np.float64] | None, *, outer: bool
) -> list[Polyline]:
    """The polylines of one border of a lane, cut where the paint changes along the section."""
    side = _outer_side(lane) if outer else -_outer_side(lane)
    right = np.stack([-np.sin(lane.yaw_rad), np.cos(lane.yaw_rad), np.zeros_like(lane.yaw_rad)], axis=1)
    border = lane.xyz_m + side * 0.5 * lane.width_m[:, None] * right
    along = lane.road_s_m - lane.section.start_m
    result: list[Polyline] = []
    for record, following in zip(records, (*records[1:], None), strict=bool(records)):  # a lane may have no marks
        if record.kind not in MARK_KINDS:
            continue
        until = np.inf if following is None else following.s_m + 0.5
        keep = (along >= record.s_m - 0.5) & (along <= until)
        if inner is not None and record.kind != "broken":  # the lanes of a junction lie across each other
            keep &= _unobstructed(border, lane.key[0], inner)
        color = COLOR_YELLOW if record.color == "yellow" else COLOR_WHITE
        result += [(points, MARK_KINDS[record.kind], color, record.width_m) for points in _pieces(border, keep)]
    return result


def _outer_side(lane: SampledLane) -> float:
    """+1 when the outer border is on the driver's right: OpenDRIVE counts lanes outwards."""
    against = bool(lane.road_s_m[-1] < lane.road_s_m[0])
    return 1.0 if against == (lane.key[2] > 0) else -1.0


def _stop_lines(arrays: dict[str, NDArray[Any]]) -> list[Polyline]:
    result: list[Polyline] = []
    stops = zip(arrays["stop_xyz_m"], arrays["stop_yaw_rad"], arrays["stop_half_width_m"], strict=True)
    for place, yaw, half in stops:
        right = np.array([-np.sin(yaw), np.cos(yaw), 0.0]) * float(half)
        result.append((np.stack([place - right, place + right]), MARK_STOP_LINE, COLOR_WHITE, STOP_LINE_WIDTH_M))
    return result
