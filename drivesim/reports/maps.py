"""The piece of a town's map around a drive, in our frame, small enough for a page."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import LineString

from drivesim.reports.packing import path_deltas
from drivesim.town.roads import RoadNetwork

PER_M = 10.0  # map lines are kept to a decimetre
Box = tuple[float, float, float, float]  # x_min, y_min, x_max, y_max, metres


def around(points: NDArray[Any], margin_m: float) -> Box:
    """Bounding box of (n, 2) points with a margin."""
    low, high = points.min(axis=0) - margin_m, points.max(axis=0) + margin_m
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _runs_inside(points: NDArray[Any], box: Box) -> list[NDArray[Any]]:
    """Pieces of a polyline with at least one end inside the box."""
    inside = (points[:, 0] >= box[0]) & (points[:, 0] <= box[2]) & (points[:, 1] >= box[1]) & (points[:, 1] <= box[3])
    keep = inside.copy()
    keep[:-1] |= inside[1:]
    keep[1:] |= inside[:-1]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], keep.astype(np.int8), [0]])))
    return [points[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= 2]


def _packed(points: NDArray[Any], tolerance_m: float = 0.08) -> list[list[int]]:
    simple = LineString(points).simplify(tolerance_m, preserve_topology=False)
    return path_deltas(np.asarray(simple.coords), PER_M)


def _ours(xyz: NDArray[Any]) -> NDArray[np.float64]:
    """CARLA's frame to ours, in the plane: y points left."""
    return np.stack([xyz[:, 0], -xyz[:, 1]], axis=1).astype(np.float64)


def _lanes(network: RoadNetwork, box: Box) -> list[dict[str, Any]]:
    lanes = []
    for start, count, kind in zip(network.lane_start, network.lane_count, network.lane_kind, strict=True):
        rows = slice(int(start), int(start) + int(count))
        width_m = float(np.median(network.point_width_m[rows]))
        for run in _runs_inside(_ours(network.point_xyz_m[rows]), box):
            lanes.append({"k": int(kind), "w": round(width_m, 2), "p": _packed(run)})
    return lanes


def _marks(network: RoadNetwork, box: Box) -> list[dict[str, Any]]:
    marks = []
    for i in range(len(network.mark_start)):
        rows = slice(int(network.mark_start[i]), int(network.mark_start[i]) + int(network.mark_count[i]))
        for run in _runs_inside(_ours(network.mark_xyz_m[rows]), box):
            marks.append({"k": int(network.mark_kind[i]), "c": int(network.mark_color[i]), "p": _packed(run, 0.05)})
    return marks


def _crosswalks(network: RoadNetwork, box: Box) -> list[list[list[int]]]:
    polygons = []
    for start, count in zip(network.crosswalk_start, network.crosswalk_count, strict=True):
        points = _ours(network.crosswalk_xyz_m[int(start) : int(start) + int(count)])
        if len(points) >= 3 and _runs_inside(points, box):
            polygons.append(path_deltas(points, PER_M))
    return polygons


def map_data(network: RoadNetwork, box: Box) -> dict[str, Any]:
    """Lanes (kind, width, centre line), paint and crosswalks inside `box`, as the page's map reads them."""
    return {
        "box": [round(value, 1) for value in box],
        "lanes": _lanes(network, box),
        "marks": _marks(network, box),
        "crosswalks": _crosswalks(network, box),
    }
