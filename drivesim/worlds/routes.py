"""A scenario's route as a curve: waypoints joined along lanes, one point per metre, in our frame."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import EgoState, RouteAhead, Scenario, Waypoint
from drivesim.geometry import Polyline
from drivesim.town.queries import LaneMap
from drivesim.town.towns import canonical_name, road_network
from drivesim.worlds.carla_frames import mirrored

Array = NDArray[np.float64]

AHEAD_M = 100.0  # how far a driver is told the route
RUN_OUT_M = 60.0  # the route goes on beyond its goal, so that nobody has to stop there
SNAP_M = 8.0  # a waypoint further than this from every driving lane is a mistake


class RouteError(ValueError):
    """A route that cannot be driven; the message names the waypoint."""


@dataclass(frozen=True)
class Place:
    """A place on the route: x, y, z, yaw in the world frame."""

    x_m: float
    y_m: float
    z_m: float
    yaw_rad: float


@dataclass(frozen=True)
class RoutePlan:
    """The route as everyone uses it. One row per metre, run-out included.

    Attributes:
        curve: centre line in the world frame.
        z_m, speed_limit_mps, half_width_m: (r,) height, limit and half lane width along it.
        length_m: arc length of the goal (the curve goes on behind it).
        lanes: lanes of the town's road network, in driving order.
    """

    curve: Polyline
    z_m: Array
    speed_limit_mps: Array
    half_width_m: Array
    length_m: float
    lanes: tuple[int, ...]

    @property
    def points_m(self) -> Array:
        """(r, 2) the route proper, start to goal, every metre."""
        return self.curve.points_m[: self._goal_rows]

    @property
    def _goal_rows(self) -> int:
        return int(np.searchsorted(self.curve.s_m, self.length_m, side="right"))

    @property
    def route_half_width_m(self) -> Array:
        """(r,) half lane width beside `points_m`."""
        return self.half_width_m[: self._goal_rows]

    def project(self, x_m: float, y_m: float, near_s_m: float | None = None) -> tuple[float, float]:
        """Arc length and lateral offset (left positive) of a place; `near_s_m` keeps crossings apart."""
        return self.curve.project(x_m, y_m, near_s_m)

    def place(self, s_m: float, lateral_m: float = 0.0) -> Place:
        """The place at an arc length, moved to the left by `lateral_m`."""
        x, y, yaw = (float(value) for value in self.curve.at(s_m))
        z = float(np.interp(s_m, self.curve.s_m, self.z_m))
        x, y = x - lateral_m * math.sin(yaw), y + lateral_m * math.cos(yaw)
        return Place(x, y, z, math.remainder(yaw, 2.0 * math.pi))

    def limit_mps(self, s_m: float) -> float:
        """Speed limit at an arc length."""
        row = min(max(int(np.searchsorted(self.curve.s_m, s_m, side="right")) - 1, 0), len(self.speed_limit_mps) - 1)
        return float(self.speed_limit_mps[row])

    def ahead(self, ego: EgoState, near_s_m: float | None = None) -> RouteAhead:
        """What a driver is told of the route: the next `AHEAD_M` metres in the ego frame."""
        s, _ = self.project(ego.x_m, ego.y_m, near_s_m)
        first = min(max(int(np.searchsorted(self.curve.s_m, s, side="right")) - 1, 0), len(self.curve.s_m) - 2)
        last = int(np.searchsorted(self.curve.s_m, s + AHEAD_M, side="right"))
        delta = self.curve.points_m[first:last] - np.array([ego.x_m, ego.y_m])
        c, sine = math.cos(ego.yaw_rad), math.sin(ego.yaw_rad)
        points = np.stack([delta[:, 0] * c + delta[:, 1] * sine, -delta[:, 0] * sine + delta[:, 1] * c], axis=1)
        return RouteAhead(points, self.speed_limit_mps[first:last].copy(), max(self.length_m - s, 0.0))


@lru_cache(maxsize=8)
def lane_map(town: str) -> LaneMap:
    """The lane map of a town, loaded once per process."""
    return LaneMap(road_network(canonical_name(town)))


def plan_route(scenario: Scenario) -> RoutePlan:
    """The route of a scenario.

    Raises:
        RouteError: a waypoint off the road, or no way without a lane change.
    """
    return _plan_route(scenario.town, scenario.route)


@lru_cache(maxsize=64)
def _plan_route(town: str, waypoints: tuple[Waypoint, ...]) -> RoutePlan:
    return route_along(lane_map(town), waypoints)


def route_along(lanes: LaneMap, waypoints: tuple[Waypoint, ...]) -> RoutePlan:
    """Join waypoints along lanes, never changing lanes.

    Raises:
        RouteError: as `plan_route`.
    """
    if len(waypoints) < 2:
        raise RouteError("a route needs a start and a goal")
    places = [_snap(lanes, waypoint, number) for number, waypoint in enumerate(waypoints)]
    chain = [places[0][0]]
    for number, ((lane, s_m), (goal, goal_s_m)) in enumerate(pairwise(places)):
        if goal == lane and goal_s_m >= s_m:
            continue
        leg = _lanes_between(lanes, lane, goal)
        if leg is None:
            a, b = waypoints[number], waypoints[number + 1]
            raise RouteError(
                f"no way from waypoint {number} ({a.x_m:.1f}, {a.y_m:.1f}) to waypoint {number + 1} "
                f"({b.x_m:.1f}, {b.y_m:.1f}) of {lanes.network.name} without changing lanes: move one of them"
            )
        chain += leg[1:]
    return _curve_of(lanes, chain, places[0][1], places[-1][1])


def _snap(lanes: LaneMap, waypoint: Waypoint, number: int) -> tuple[int, float]:
    place = lanes.nearest(waypoint.x_m, -waypoint.y_m, max_distance_m=SNAP_M)
    if place.lane < 0:
        raise RouteError(
            f"waypoint {number} ({waypoint.x_m:.1f}, {waypoint.y_m:.1f}) is not within {SNAP_M:.0f} m "
            f"of a driving lane of {lanes.network.name}"
        )
    return place.lane, place.s_m


def _lanes_between(lanes: LaneMap, start: int, goal: int) -> list[int] | None:
    """Shortest chain of successors from `start` (left first) to `goal`; None where there is none."""
    n = lanes.network
    queue = [(float(n.lane_length_m[start]), int(ahead), start) for ahead in n.lane_next[start] if ahead >= 0]
    heapq.heapify(queue)
    came: dict[int, int] = {}
    while queue:
        spent, lane, before = heapq.heappop(queue)
        if lane in came:
            continue
        came[lane] = before
        if lane == goal:
            chain = [goal]
            while came[chain[-1]] != start:
                chain.append(came[chain[-1]])
            return [start, *chain[::-1]]
        for ahead in n.lane_next[lane]:
            if ahead >= 0:
                heapq.heappush(queue, (spent + float(n.lane_length_m[lane]), int(ahead), lane))
    return None


def _curve_of(lanes: LaneMap, chain: list[int], start_s_m: float, goal_s_m: float) -> RoutePlan:
    n = lanes.network
    rows: list[Array] = []  # x, y, z, limit, half width, in CARLA's frame
    for index, lane in enumerate(chain):
        begin = start_s_m if index == 0 else 0.0
        end = goal_s_m if index == len(chain) - 1 else float(n.lane_length_m[lane])
        rows.append(_lane_rows(lanes, lane, begin, end))
    proper = _thinned(np.concatenate(rows))
    length_m = float(np.linalg.norm(np.diff(proper[:, :2], axis=0), axis=1).sum())
    beyond = _run_out(lanes, chain[-1], goal_s_m)
    table = _thinned(np.concatenate([proper, *beyond]))
    table[:, :2] = mirrored(table[:, :2])
    raw = Polyline.from_points(table[:, :2])
    s = np.arange(0.0, raw.length_m, 1.0)
    columns = [np.interp(s, raw.s_m, table[:, column]) for column in (2, 3, 4)]
    curve = Polyline.from_points(raw.at(s)[:, :2])
    return RoutePlan(curve, columns[0], columns[1], columns[2], length_m, tuple(chain))


def _lane_rows(lanes: LaneMap, lane: int, begin_m: float, end_m: float) -> Array:
    n, points = lanes.network, lanes.lane_points(lane)
    s = n.point_s_m[points].astype(np.float64)
    wanted = np.concatenate([[begin_m], s[(s > begin_m + 0.3) & (s < end_m - 0.3)], [max(end_m, begin_m)]])
    xyz = n.point_xyz_m[points]
    columns = [np.interp(wanted, s, xyz[:, axis]) for axis in range(3)]
    columns.append(np.interp(wanted, s, n.point_speed_limit_mps[points]))
    columns.append(0.5 * np.interp(wanted, s, n.point_width_m[points]))
    return np.stack(columns, axis=1)


def _run_out(lanes: LaneMap, lane: int, s_m: float) -> list[Array]:
    """The road straight on beyond the goal, for `RUN_OUT_M` metres or to its end."""
    n = lanes.network
    pieces: list[Array] = []
    left_m, begin = RUN_OUT_M, s_m
    while left_m > 0.0:
        end = min(float(n.lane_length_m[lane]), begin + left_m)
        if end - begin > 0.5:
            pieces.append(_lane_rows(lanes, lane, begin, end))
        left_m -= end - begin
        following = straightest(lanes, lane)
        if following < 0 or left_m <= 0.0:
            break
        lane, begin = following, 0.0
    return pieces


def straightest(lanes: LaneMap, lane: int, turn: int = 0) -> int:
    """The successor of a lane that bends least (turn 0), or most to the left (1) or right (-1); -1 at a dead end."""
    n = lanes.network
    options = [int(ahead) for ahead in n.lane_next[lane] if ahead >= 0]
    if not options:
        return -1

    def bend(option: int) -> float:  # left positive, as our frame has it
        points = lanes.lane_points(option)
        yaw = n.point_yaw_rad[points]
        return -math.remainder(float(yaw[-1]) - float(yaw[0]), 2.0 * math.pi)

    if turn == 0:
        return min(options, key=lambda option: abs(bend(option)))
    return max(options, key=lambda option: turn * bend(option))


def _thinned(table: Array, step_m: float = 0.2) -> Array:
    """Drop rows that lie closer than `step_m` to the one kept before them, save the last."""
    keep = [0]
    for row in range(1, len(table)):
        if math.hypot(*(table[row, :2] - table[keep[-1], :2])) >= step_m:
            keep.append(row)
    if len(keep) > 1 and keep[-1] != len(table) - 1:
        keep[-1] = len(table) - 1
    return np.asarray(table[keep])
