"""Bakes an OpenDRIVE town into a RoadNetwork, with the carla package as its OpenDRIVE engine.

`carla.Map` works without any server. Lanes are sampled about every metre at (road, lane, s), in
driving direction; the XML (xodr.py) says which sections, paint and controllers there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.town import junctions, landmarks, paint
from drivesim.town.roads import (
    LANE_BIKING,
    LANE_DRIVING,
    LANE_MEDIAN,
    LANE_PARKING,
    LANE_SHOULDER,
    LANE_SIDEWALK,
    RoadNetwork,
)
from drivesim.town.xodr import OpenDriveError, XodrFile, XodrRoad, XodrSection, read_xodr

BAKE_VERSION = 2  # raise it when what `bake` writes changes: old caches are then baked again
SAMPLE_M = 1.0
SHORTEST_SECTION_M = 0.1  # RoadRunner leaves slivers between sections; links jump over them
EDGE_M = 0.01  # how far inside its section a lane begins and ends
MAX_LINKS = 6
WIDEST_SEAM_M, MERGE_M = 0.3, 8.0  # a link that jumps by more than the one and less than the other is a merge
GRID_CELL_M = 5.0
SPAWN_SPACING_M = 12.0  # no other spawn point so near ahead or behind: a bus is 10.3 m long
SPAWN_BESIDE_M = 4.5  # nor so near at the side: that bus is 3.9 m wide
SPAWN_ALONG_M = 24.0  # along one lane
SPAWN_MARGIN_M = 7.0  # from the ends of a lane
SPAWN_MIN_WIDTH_M = 2.9
LANE_KINDS = {
    "driving": LANE_DRIVING, "entry": LANE_DRIVING, "exit": LANE_DRIVING, "onramp": LANE_DRIVING,
    "offramp": LANE_DRIVING, "sidewalk": LANE_SIDEWALK, "shoulder": LANE_SHOULDER, "border": LANE_SHOULDER,
    "stop": LANE_SHOULDER, "parking": LANE_PARKING, "biking": LANE_BIKING, "median": LANE_MEDIAN,
    "restricted": LANE_MEDIAN, "bidirectional": LANE_MEDIAN,
}  # fmt: skip
LINKED_KINDS = (LANE_DRIVING, LANE_SIDEWALK, LANE_BIKING)

LaneKey = tuple[int, int, int]  # road, section, lane
Taken = dict[tuple[int, int], list[tuple[float, float, float, float]]]  # poses by cell


@dataclass
class SampledLane:
    """One lane while it is baked; arrays are in driving direction. `road_s_m` is the road's own s."""

    key: LaneKey
    kind: int
    junction: int
    road: XodrRoad
    section: XodrSection
    xyz_m: NDArray[np.float64]
    yaw_rad: NDArray[np.float64]
    width_m: NDArray[np.float64]
    road_s_m: NDArray[np.float64]
    s_m: NDArray[np.float64]
    end: Any  # carla.Waypoint at the last point
    next: list[int] = field(default_factory=list)
    previous: list[int] = field(default_factory=list)
    left: int = -1
    right: int = -1

    @property
    def length_m(self) -> float:
        """Arc length of the sampled centre line."""
        return float(self.s_m[-1])


def bake(name: str, opendrive_xml: str) -> RoadNetwork:
    """Read a town into plain arrays.

    Raises:
        OpenDriveError: the text is not XML, has no roads, or no driving lane.
        ModuleNotFoundError: the carla package is not installed.
    """
    import carla

    file = read_xodr(opendrive_xml)
    try:
        town_map = carla.Map(name, opendrive_xml)
    except RuntimeError as error:
        raise OpenDriveError(f"the carla package cannot read {name}: {error}") from error
    lanes = _sample_lanes(town_map, file)
    if not any(lane.kind == LANE_DRIVING for lane in lanes):
        raise OpenDriveError(f"{name} has no driving lane")
    _link(lanes)
    _mend(lanes)
    signs = landmarks.read_landmarks(town_map)
    arrays = _lane_arrays(lanes)
    arrays["point_speed_limit_mps"] = landmarks.speed_limits(lanes, signs)
    arrays.update(junctions.conflicts(arrays))
    arrays.update(_crosswalks(town_map))
    arrays.update(landmarks.lights_and_stops(lanes, signs, file))
    arrays.update(paint.marks(lanes, arrays))
    arrays.update(_spawn_points(lanes))
    arrays.update(_grid(arrays))
    return RoadNetwork(name=name, **arrays)


def _sample_lanes(town_map: Any, file: XodrFile) -> list[SampledLane]:
    lanes = []
    for road in file.roads:
        for section in road.sections:
            if section.end_m - section.start_m < SHORTEST_SECTION_M:
                continue
            for lane in section.lanes:
                if lane.id != 0 and lane.kind in LANE_KINDS:
                    sampled = _sample_lane(town_map, road, section, lane.id, LANE_KINDS[lane.kind])
                    if sampled is not None:
                        lanes.append(sampled)
    return lanes


def _sample_lane(town_map: Any, road: XodrRoad, section: XodrSection, lane_id: int, kind: int) -> SampledLane | None:
    span_m = section.end_m - section.start_m
    stations = np.linspace(section.start_m + EDGE_M, section.end_m - EDGE_M, max(2, round(span_m / SAMPLE_M) + 1))
    waypoints = [town_map.get_waypoint_xodr(road.id, lane_id, float(s)) for s in stations]
    if any(waypoint is None for waypoint in waypoints):
        return None
    rows = np.array([_row(waypoint) for waypoint in waypoints])
    heading = rows[0, 3]
    along = rows[-1, :2] - rows[0, :2] if len(rows) == 2 else rows[1, :2] - rows[0, :2]
    if along[0] * np.cos(heading) + along[1] * np.sin(heading) < 0.0:  # the lane runs against its road's s
        rows, stations, waypoints = rows[::-1], stations[::-1], waypoints[::-1]
    steps = np.linalg.norm(np.diff(rows[:, :3], axis=0), axis=1)
    if not np.all(np.isfinite(rows)) or steps.sum() < SHORTEST_SECTION_M / 2:
        return None
    return SampledLane(
        key=(road.id, section.index, lane_id), kind=kind, junction=road.junction, road=road, section=section,
        xyz_m=rows[:, :3], yaw_rad=np.unwrap(rows[:, 3]), width_m=rows[:, 4], road_s_m=stations,
        s_m=np.concatenate([[0.0], np.cumsum(np.maximum(steps, 1e-4))]), end=waypoints[-1],
    )  # fmt: skip


def _row(waypoint: Any) -> tuple[float, float, float, float, float]:
    transform = waypoint.transform
    place = transform.location
    return place.x, place.y, place.z, np.radians(transform.rotation.yaw), waypoint.lane_width


def _link(lanes: list[SampledLane]) -> None:
    rows = {lane.key: row for row, lane in enumerate(lanes)}
    for row, lane in enumerate(lanes):
        if lane.kind in LINKED_KINDS:
            for target in _targets(lane.end, rows, lanes[row].key):
                if lanes[target].kind == lane.kind and len(lane.next) < MAX_LINKS:
                    lane.next.append(target)
                    lanes[target].previous.append(row)
        if lane.kind == LANE_DRIVING:
            lane.left, lane.right = _neighbours(lane, lanes, rows)
        lane.end = None


def _mend(lanes: list[SampledLane]) -> None:
    """Where a lane stops beside the lane it merges into, lead its last metres over to that lane's start."""
    for lane in lanes:
        if lane.kind != LANE_DRIVING or len(lane.next) != 1:
            continue
        gap = lanes[lane.next[0]].xyz_m[0] - lane.xyz_m[-1]
        if not WIDEST_SEAM_M < float(np.linalg.norm(gap)) < MERGE_M:
            continue
        u = np.clip(1.0 - (lane.length_m - lane.s_m) / MERGE_M / 2.0, 0.0, 1.0)[:, None]
        lane.xyz_m = lane.xyz_m + (u * u * (3.0 - 2.0 * u)) * gap
        lane.s_m = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(lane.xyz_m, axis=0), axis=1))])
        slope = np.gradient(lane.xyz_m[:, :2], lane.s_m, axis=0)
        lane.yaw_rad = np.unwrap(np.arctan2(slope[:, 1], slope[:, 0]))


def _targets(end: Any, rows: dict[LaneKey, int], own: LaneKey) -> list[int]:
    """Rows of the lanes that follow; a sliver of a section between them is jumped over."""
    found: dict[int, None] = {}
    frontier = [(end, 0.03)]
    for _ in range(3):
        further = []
        for waypoint, step_m in frontier:
            for ahead in waypoint.next(step_m):
                key = (ahead.road_id, ahead.section_id, ahead.lane_id)
                if key in rows and key != own:
                    found[rows[key]] = None
                else:
                    further.append((ahead, SHORTEST_SECTION_M))
        frontier = further
    return list(found)


def _neighbours(lane: SampledLane, lanes: list[SampledLane], rows: dict[LaneKey, int]) -> tuple[int, int]:
    """The driving lanes of the same direction on the driver's left and right, or -1."""
    road, section, lane_id = lane.key
    inward, outward = (lane_id + 1, lane_id - 1) if lane_id < 0 else (lane_id - 1, lane_id + 1)
    against = bool(lane.road_s_m[-1] < lane.road_s_m[0])
    right_hand_traffic = against == (lane_id > 0)
    ids = (inward, outward) if right_hand_traffic else (outward, inward)
    found = [rows.get((road, section, other), -1) if other != 0 else -1 for other in ids]
    driving = [row if row >= 0 and lanes[row].kind == LANE_DRIVING else -1 for row in found]
    return driving[0], driving[1]


def _padded(links: list[list[int]]) -> NDArray[np.int32]:
    table = np.full((len(links), MAX_LINKS), -1, np.int32)
    for row, targets in enumerate(links):
        table[row, : min(len(targets), MAX_LINKS)] = targets[:MAX_LINKS]
    return table


def _lane_arrays(lanes: list[SampledLane]) -> dict[str, NDArray[Any]]:
    counts = np.array([len(lane.s_m) for lane in lanes], np.int32)
    yaw = [np.arctan2(np.sin(lane.yaw_rad), np.cos(lane.yaw_rad)) for lane in lanes]
    curvature = [np.clip(np.gradient(lane.yaw_rad, lane.s_m), -0.5, 0.5) for lane in lanes]
    return {
        "point_xyz_m": np.concatenate([lane.xyz_m for lane in lanes]).astype(np.float32),
        "point_yaw_rad": np.concatenate(yaw).astype(np.float32),
        "point_width_m": np.concatenate([lane.width_m for lane in lanes]).astype(np.float32),
        "point_s_m": np.concatenate([lane.s_m for lane in lanes]).astype(np.float32),
        "point_curvature_1pm": np.concatenate(curvature).astype(np.float32),
        "point_lane": np.repeat(np.arange(len(lanes), dtype=np.int32), counts),
        "lane_start": (np.cumsum(counts) - counts).astype(np.int32),
        "lane_count": counts,
        "lane_length_m": np.array([lane.length_m for lane in lanes], np.float32),
        "lane_kind": np.array([lane.kind for lane in lanes], np.uint8),
        "lane_road": np.array([lane.key[0] for lane in lanes], np.int32),
        "lane_section": np.array([lane.key[1] for lane in lanes], np.int32),
        "lane_opendrive_id": np.array([lane.key[2] for lane in lanes], np.int32),
        "lane_junction": np.array([lane.junction for lane in lanes], np.int32),
        "lane_next": _padded([lane.next for lane in lanes]),
        "lane_previous": _padded([lane.previous for lane in lanes]),
        "lane_left": np.array([lane.left for lane in lanes], np.int32),
        "lane_right": np.array([lane.right for lane in lanes], np.int32),
    }


def _crosswalks(town_map: Any) -> dict[str, NDArray[Any]]:
    """`carla.Map` gives one flat list in which every polygon ends by repeating its first corner."""
    polygons: list[list[tuple[float, float, float]]] = []
    corners: list[tuple[float, float, float]] = []
    for place in town_map.get_crosswalks():
        corner = (place.x, place.y, place.z)
        if len(corners) >= 3 and np.hypot(corner[0] - corners[0][0], corner[1] - corners[0][1]) < 1e-3:
            polygons.append(corners)
            corners = []
        else:
            corners.append(corner)
    counts = np.array([len(polygon) for polygon in polygons], np.int32)
    flat = [corner for polygon in polygons for corner in polygon]
    return {
        "crosswalk_xyz_m": np.array(flat, np.float32).reshape(-1, 3),
        "crosswalk_start": (np.cumsum(counts) - counts).astype(np.int32),
        "crosswalk_count": counts,
    }


def _spawn_points(lanes: list[SampledLane]) -> dict[str, NDArray[Any]]:
    """Along lanes that lead on; where no lane does, along all."""
    rows = _spawn_rows(lanes, leads_on=True) or _spawn_rows(lanes, leads_on=False)
    table = np.array(rows, np.float64).reshape(-1, 6)
    return {
        "spawn_xyz_m": table[:, :3].astype(np.float32),
        "spawn_yaw_rad": table[:, 3].astype(np.float32),
        "spawn_lane": table[:, 4].astype(np.int32),
        "spawn_s_m": table[:, 5].astype(np.float32),
    }


def _spawn_rows(lanes: list[SampledLane], *, leads_on: bool) -> list[tuple[float, float, float, float, int, float]]:
    """Greedy: along each lane off junctions, then no two nearer than the longest vehicle; x, y, z, yaw, lane, s."""
    rows: list[tuple[float, float, float, float, int, float]] = []
    taken: Taken = {}
    for row, lane in enumerate(lanes):
        if lane.kind != LANE_DRIVING or lane.junction >= 0 or (leads_on and not lane.next):
            continue
        last_s_m = -SPAWN_ALONG_M
        for point in range(len(lane.s_m)):
            s_m = float(lane.s_m[point])
            inside = SPAWN_MARGIN_M <= s_m <= lane.length_m - SPAWN_MARGIN_M
            if not inside or s_m - last_s_m < SPAWN_ALONG_M or lane.width_m[point] < SPAWN_MIN_WIDTH_M:
                continue
            x, y, z = (float(v) for v in lane.xyz_m[point])
            yaw = float(np.arctan2(np.sin(lane.yaw_rad[point]), np.cos(lane.yaw_rad[point])))
            if _claim(taken, x, y, z, yaw):
                rows.append((x, y, z, yaw, row, s_m))
                last_s_m = s_m
    return rows


def _claim(taken: Taken, x: float, y: float, z: float, yaw: float) -> bool:
    """Take a pose unless one that is too near was taken; a bridge deck is apart."""
    column, row = int(x // SPAWN_SPACING_M), int(y // SPAWN_SPACING_M)
    for near_column in range(column - 1, column + 2):
        for near_row in range(row - 1, row + 2):
            for other_x, other_y, other_z, other_yaw in taken.get((near_column, near_row), ()):
                dx, dy = other_x - x, other_y - y
                parallel = abs(np.sin(other_yaw - yaw)) < 0.2
                beside = parallel and abs(dy * np.cos(yaw) - dx * np.sin(yaw)) >= SPAWN_BESIDE_M
                if abs(other_z - z) < 4.0 and np.hypot(dx, dy) < SPAWN_SPACING_M and not beside:
                    return False
    taken.setdefault((column, row), []).append((x, y, z, yaw))
    return True


def _grid(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """CSR of the driving points by cell."""
    points = np.flatnonzero(arrays["lane_kind"][arrays["point_lane"]] == LANE_DRIVING)
    xy = arrays["point_xyz_m"][points, :2].astype(np.float64)
    origin = np.floor(xy.min(axis=0)) - 1.0
    columns, rows = (np.floor((xy.max(axis=0) - origin) / GRID_CELL_M).astype(int) + 1).tolist()
    cell = ((xy[:, 1] - origin[1]) // GRID_CELL_M) * columns + (xy[:, 0] - origin[0]) // GRID_CELL_M
    cell = cell.astype(np.int64)
    order = np.argsort(cell, kind="stable")
    start = np.zeros(rows * columns + 1, np.int32)
    start[1:] = np.cumsum(np.bincount(cell, minlength=rows * columns))
    return {
        "grid_origin_m": origin.astype(np.float32),
        "grid_shape": np.array([rows, columns], np.int32),
        "grid_cell_m": np.array([GRID_CELL_M], np.float32),
        "grid_start": start,
        "grid_point": points[order].astype(np.int32),
    }
