"""Where on the roads is this? Numba kernels over the arrays of a RoadNetwork, and `LaneMap` around them.

Frame: CARLA's (x east, y south, yaw clockwise from above, radians). A lateral offset is positive to
the RIGHT of the driving direction. The kernels are plain functions on arrays, callable from other
compiled code; NaN for `yaw_rad` or `z_m` means "any".
"""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.roads import LANE_DRIVING, RoadNetwork

HEADING_WEIGHT_M = 4.0  # pointing the wrong way costs as much as standing twice this far off
DECK_M = 4.0  # lanes further than this above or below are on another deck
LANE_CHANGE_M = 30.0  # length over which a route changes lanes, where there is room
LANE_CHANGE_COST_M = 60.0


@njit(cache=True, error_model="numpy", nogil=True)
def nearest_point(
    xyz_m: Any, point_yaw_rad: Any, grid_origin_m: Any, grid_shape: Any, grid_cell_m: float, grid_start: Any,
    grid_point: Any, x_m: float, y_m: float, z_m: float, yaw_rad: float, max_distance_m: float,
) -> int:  # pragma: no cover - compiled  # fmt: skip
    """Row of the driving lane point that fits best (distance, heading), or -1 within max_distance_m."""
    rows, columns = grid_shape[0], grid_shape[1]
    column = math.floor((x_m - grid_origin_m[0]) / grid_cell_m)
    row = math.floor((y_m - grid_origin_m[1]) / grid_cell_m)
    outside = max(max(-column, column - columns + 1), max(-row, row - rows + 1), 0)
    best, best_cost, found = -1, math.inf, False
    last_ring = math.ceil(max_distance_m / grid_cell_m)
    for ring in range(outside, last_ring + 1):
        if found and (ring - 1) * grid_cell_m > best_cost:
            break
        for r in range(max(row - ring, 0), min(row + ring, rows - 1) + 1):
            edge = r == row - ring or r == row + ring
            step = 1 if edge or ring == 0 else 2 * ring
            c = column - ring
            while c <= column + ring:
                if 0 <= c < columns:
                    cell = r * columns + c
                    for k in range(grid_start[cell], grid_start[cell + 1]):
                        p = grid_point[k]
                        distance = math.hypot(xyz_m[p, 0] - x_m, xyz_m[p, 1] - y_m)
                        if distance > max_distance_m or abs(xyz_m[p, 2] - z_m) > DECK_M:
                            continue
                        cost = distance
                        if not math.isnan(yaw_rad):
                            cost += HEADING_WEIGHT_M * (1.0 - math.cos(point_yaw_rad[p] - yaw_rad))
                        if cost < best_cost:
                            best, best_cost, found = p, cost, True
                c += step
    return best


@njit(cache=True, error_model="numpy", nogil=True)
def project_on_lane(
    xyz_m: Any, s_m: Any, first: int, count: int, near: int, x_m: float, y_m: float
) -> tuple[float, float]:  # pragma: no cover - compiled
    """(s, offset to the right) of a place on a lane's polyline, around the point `near` of that lane."""
    best_d2, best_s, best_offset = math.inf, 0.0, 0.0
    for a in range(max(near - 1, first), min(near, first + count - 2) + 1):
        dx = xyz_m[a + 1, 0] - xyz_m[a, 0]
        dy = xyz_m[a + 1, 1] - xyz_m[a, 1]
        length2 = max(dx * dx + dy * dy, 1e-12)
        u = min(max(((x_m - xyz_m[a, 0]) * dx + (y_m - xyz_m[a, 1]) * dy) / length2, 0.0), 1.0)
        ex = x_m - (xyz_m[a, 0] + u * dx)
        ey = y_m - (xyz_m[a, 1] + u * dy)
        d2 = ex * ex + ey * ey
        if d2 < best_d2:
            best_d2 = d2
            best_s = s_m[a] + u * (s_m[a + 1] - s_m[a])
            best_offset = (dx * ey - dy * ex) / math.sqrt(length2)
    return best_s, best_offset


@njit(cache=True, error_model="numpy", nogil=True)
def nearest_lane(
    xyz_m: Any, point_yaw_rad: Any, s_m: Any, point_lane: Any, lane_start: Any, lane_count: Any, grid_origin_m: Any,
    grid_shape: Any, grid_cell_m: float, grid_start: Any, grid_point: Any, x_m: float, y_m: float, z_m: float,
    yaw_rad: float, max_distance_m: float,
) -> tuple[int, float, float]:  # pragma: no cover - compiled  # fmt: skip
    """(driving lane, s, offset to the right); lane -1 when none is within max_distance_m."""
    p = nearest_point(
        xyz_m, point_yaw_rad, grid_origin_m, grid_shape, grid_cell_m, grid_start, grid_point, x_m, y_m, z_m, yaw_rad,
        max_distance_m,
    )  # fmt: skip
    if p < 0:
        return -1, 0.0, 0.0
    lane = point_lane[p]
    s, offset = project_on_lane(xyz_m, s_m, lane_start[lane], lane_count[lane], p, x_m, y_m)
    return lane, s, offset


@njit(cache=True, error_model="numpy", nogil=True)
def segment_on_lane(s_m: Any, first: int, count: int, at_s_m: float) -> tuple[int, float]:  # pragma: no cover
    """(point a, fraction u): the place lies at point a + u * (a + 1 - a); s is clamped to the lane."""
    low, high = first, first + count - 2
    while low < high:
        middle = (low + high + 1) // 2
        if s_m[middle] <= at_s_m:
            low = middle
        else:
            high = middle - 1
    span = max(s_m[low + 1] - s_m[low], 1e-6)
    return low, min(max((at_s_m - s_m[low]) / span, 0.0), 1.0)


@njit(cache=True, error_model="numpy", nogil=True)
def point_on_lane(
    xyz_m: Any, point_yaw_rad: Any, s_m: Any, lane_start: Any, lane_count: Any, lane: int, at_s_m: float
) -> tuple[float, float, float, float]:  # pragma: no cover - compiled
    """(x, y, z, yaw) on the centre line of a lane at s."""
    a, u = segment_on_lane(s_m, lane_start[lane], lane_count[lane], at_s_m)
    turn = point_yaw_rad[a + 1] - point_yaw_rad[a]
    turn -= 2.0 * math.pi * math.floor((turn + math.pi) / (2.0 * math.pi))
    return (
        xyz_m[a, 0] + u * (xyz_m[a + 1, 0] - xyz_m[a, 0]),
        xyz_m[a, 1] + u * (xyz_m[a + 1, 1] - xyz_m[a, 1]),
        xyz_m[a, 2] + u * (xyz_m[a + 1, 2] - xyz_m[a, 2]),
        point_yaw_rad[a] + u * turn,
    )


@njit(cache=True, error_model="numpy", nogil=True)
def ground_height(
    xyz_m: Any, point_yaw_rad: Any, s_m: Any, point_lane: Any, lane_start: Any, lane_count: Any, grid_origin_m: Any,
    grid_shape: Any, grid_cell_m: float, grid_start: Any, grid_point: Any, x_m: float, y_m: float, z_m: float,
) -> float:  # pragma: no cover - compiled  # fmt: skip
    """Height of the road surface at (x, y), nearest deck to z_m (NaN: any); z_m or 0 far from all roads."""
    lane, s, _ = nearest_lane(
        xyz_m, point_yaw_rad, s_m, point_lane, lane_start, lane_count, grid_origin_m, grid_shape, grid_cell_m,
        grid_start, grid_point, x_m, y_m, z_m, math.nan, 60.0,
    )  # fmt: skip
    if lane < 0:
        return 0.0 if math.isnan(z_m) else z_m
    height: float = point_on_lane(xyz_m, point_yaw_rad, s_m, lane_start, lane_count, lane, s)[2]
    return height


class LanePlace(NamedTuple):
    """A place on the road: driving lane (-1: none near), arc length along it, offset to the right."""

    lane: int
    s_m: float
    offset_m: float


class LanePoint(NamedTuple):
    """A point of a lane's centre line."""

    x_m: float
    y_m: float
    z_m: float
    yaw_rad: float
    width_m: float
    speed_limit_mps: float


class NoRoute(ValueError):  # noqa: N818
    """The goal cannot be reached from the start along driving lanes."""


class LaneMap:
    """Questions about one road network, in numpy's terms."""

    def __init__(self, network: RoadNetwork) -> None:
        self.network = network
        n = network
        self._lane_arrays = (n.point_xyz_m, n.point_yaw_rad, n.point_s_m, n.point_lane, n.lane_start, n.lane_count)
        self._grid = (n.grid_origin_m, n.grid_shape, float(n.grid_cell_m[0]), n.grid_start, n.grid_point)

    @property
    def kernel_arrays(self) -> tuple[Any, ...]:
        """The leading arguments of `nearest_lane` and `ground_height`, for other compiled code."""
        return (*self._lane_arrays, *self._grid)

    def nearest(
        self, x_m: float, y_m: float, yaw_rad: float | None = None, *, z_m: float | None = None,
        max_distance_m: float = 20.0,
    ) -> LanePlace:  # fmt: skip
        """The driving lane that fits a place (and heading) best; lane -1 when none is near."""
        z = math.nan if z_m is None else float(z_m)  # always floats: an int would compile the kernel anew
        yaw = math.nan if yaw_rad is None else float(yaw_rad)
        arrays = self.kernel_arrays
        lane, s, offset = nearest_lane(*arrays, float(x_m), float(y_m), z, yaw, float(max_distance_m))
        return LanePlace(int(lane), float(s), float(offset))

    def at(self, lane: int, s_m: float) -> LanePoint:
        """The centre line of a lane at s (clamped to the lane)."""
        n, s_m = self.network, float(s_m)
        lane = int(lane)
        first, count = int(n.lane_start[lane]), int(n.lane_count[lane])
        x, y, z, yaw = point_on_lane(n.point_xyz_m, n.point_yaw_rad, n.point_s_m, n.lane_start, n.lane_count, lane, s_m)
        a, u = segment_on_lane(n.point_s_m, first, count, s_m)
        width = float(n.point_width_m[a]) * (1.0 - u) + float(n.point_width_m[a + 1]) * u
        wrapped = math.atan2(math.sin(yaw), math.cos(yaw))
        return LanePoint(float(x), float(y), float(z), wrapped, width, float(n.point_speed_limit_mps[a]))

    def ground_height(self, x_m: float, y_m: float, z_m: float | None = None) -> float:
        """Height of the road surface under (x, y); z_m picks the deck."""
        z = math.nan if z_m is None else float(z_m)
        return float(ground_height(*self.kernel_arrays, float(x_m), float(y_m), z))

    def lane_points(self, lane: int) -> slice:
        """Rows of the lane's points in the `point_*` arrays."""
        first = int(self.network.lane_start[lane])
        return slice(first, first + int(self.network.lane_count[lane]))

    def route(self, start: tuple[float, float, float], goal: tuple[float, float]) -> list[int]:
        """Lanes from a pose (x, y, yaw) to a place (x, y), changing lanes where it pays.

        Raises:
            NoRoute: no road near either, or none between them.
        """
        begin, end = self.nearest(*start), self.nearest(*goal)
        if begin.lane < 0 or end.lane < 0:
            raise NoRoute(f"no driving lane within 20 m of {start if begin.lane < 0 else goal}")
        return self.route_lanes(begin.lane, begin.s_m, end.lane, end.s_m)

    def route_lanes(self, start_lane: int, start_s_m: float, goal_lane: int, goal_s_m: float) -> list[int]:
        """As `route`, between places on lanes. Dijkstra; a state knows whether it left the first section.

        Raises:
            NoRoute: there is none.
        """
        n = self.network
        start_share = start_s_m / float(n.lane_length_m[start_lane])
        goal_share = goal_s_m / float(n.lane_length_m[goal_lane])
        queue: list[tuple[float, int, int]] = [(0.0, start_lane, 0)]
        came: dict[tuple[int, int], tuple[int, int] | None] = {(start_lane, 0): None}
        cost: dict[tuple[int, int], float] = {(start_lane, 0): 0.0}
        while queue:
            spent, lane, moved = heapq.heappop(queue)
            if spent > cost[(lane, moved)]:
                continue
            if lane == goal_lane and (moved or goal_share >= start_share):
                return _walk_back(came, (lane, moved))
            left_m = float(n.lane_length_m[lane]) * (1.0 if moved else 1.0 - start_share)
            for ahead, further_m, state in self._moves(lane, moved, left_m):
                key = (ahead, state)
                if spent + further_m < cost.get(key, math.inf):
                    cost[key] = spent + further_m
                    came[key] = (lane, moved)
                    heapq.heappush(queue, (spent + further_m, ahead, state))
        raise NoRoute(f"no road of {n.name} leads from lane {start_lane} to lane {goal_lane}")

    def _moves(self, lane: int, moved: int, left_m: float) -> list[tuple[int, float, int]]:
        """(lane, cost, state) one step on: ahead, or beside where there is room to change lanes."""
        n = self.network
        moves = [(int(ahead), left_m, 1) for ahead in n.lane_next[lane] if ahead >= 0]
        if n.lane_junction[lane] < 0 and left_m > 5.0:
            haste_m = 10.0 * max(LANE_CHANGE_M - left_m, 0.0)
            for beside in (int(n.lane_left[lane]), int(n.lane_right[lane])):
                if beside >= 0:
                    moves.append((beside, LANE_CHANGE_COST_M + haste_m, moved))
        return moves

    def route_polyline(self, lanes: list[int], start_s_m: float, goal_s_m: float) -> NDArray[np.float64]:
        """(n, 3) places about 1 m apart along a route, with smooth lane changes.

        Args:
            lanes: what `route` gave; neighbours in it that lie side by side are lane changes.
            start_s_m: along the first lane.
            goal_s_m: along the last lane.
        """
        pieces = []
        runs = self._runs(lanes)
        for index, run in enumerate(runs):
            begin = start_s_m / float(self.network.lane_length_m[run[0]]) if index == 0 else 0.0
            end = goal_s_m / float(self.network.lane_length_m[run[-1]]) if index == len(runs) - 1 else 1.0
            pieces.append(self._blended(run, min(begin, 1.0), min(end, 1.0)))
        return _resample(np.concatenate(pieces), 1.0)

    def _runs(self, lanes: list[int]) -> list[list[int]]:
        """Split a route into sections: the lanes of one run lie side by side."""
        n = self.network
        runs = [[lanes[0]]]
        for before, lane in itertools.pairwise(lanes):
            if lane in (n.lane_left[before], n.lane_right[before]):
                runs[-1].append(lane)
            else:
                runs.append([lane])
        return runs

    def _blended(self, run: list[int], begin: float, end: float) -> NDArray[np.float64]:
        """(n, 3) from share `begin` to `end` of a section, moving from its first to its last lane."""
        n = self.network
        length_m = float(n.lane_length_m[run[0]]) * max(end - begin, 0.0)
        share = np.linspace(begin, max(end, begin), max(2, math.ceil(length_m) + 1))
        centre = [self._along(lane, share) for lane in run]
        if len(run) == 1:
            return centre[0]
        # all changes one after the other, LANE_CHANGE_M each or what room there is, at the section's start
        needed_m = min(LANE_CHANGE_M * (len(run) - 1), 0.9 * length_m)
        progress = np.clip((share - begin) * float(n.lane_length_m[run[0]]) / max(needed_m, 1e-6), 0.0, 1.0)
        progress *= len(run) - 1
        result = centre[0].copy()
        for k in range(1, len(run)):
            u = np.clip(progress - (k - 1), 0.0, 1.0)[:, None]
            result += (u * u * (3.0 - 2.0 * u)) * (centre[k] - centre[k - 1])
        return result

    def _along(self, lane: int, share: NDArray[np.float64]) -> NDArray[np.float64]:
        n, points = self.network, self.lane_points(lane)
        at_s = share * float(n.lane_length_m[lane])
        return np.stack([np.interp(at_s, n.point_s_m[points], n.point_xyz_m[points, axis]) for axis in range(3)], 1)


def _walk_back(came: dict[tuple[int, int], tuple[int, int] | None], last: tuple[int, int]) -> list[int]:
    lanes: list[int] = []
    step: tuple[int, int] | None = last
    while step is not None:
        lanes.append(step[0])
        step = came[step]
    return lanes[::-1]


def _resample(xyz_m: NDArray[np.float64], step_m: float) -> NDArray[np.float64]:
    """Equal steps of about `step_m` along a polyline; both ends are kept."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(xyz_m, axis=0), axis=1))])
    keep = np.concatenate([[True], np.diff(along) > 1e-6])
    wanted = np.linspace(0.0, along[-1], max(2, round(float(along[-1]) / step_m) + 1))
    return np.stack([np.interp(wanted, along[keep], xyz_m[keep, axis]) for axis in range(3)], 1)


def driving_lanes(network: RoadNetwork) -> NDArray[np.intp]:
    """Rows of the lanes that cars drive on."""
    return np.flatnonzero(network.lane_kind == LANE_DRIVING)
