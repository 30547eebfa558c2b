"""Traffic lights, stop and yield signs, and speed limits, as the landmarks of a town tell them.

A landmark names a road, an s and the lanes it is valid for. Lights are mostly referenced from the
connecting roads INSIDE a junction, so each is traced back to the approach lane that ends at it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drivesim.town.roads import LANE_DRIVING
from drivesim.town.xodr import KMH_TO_MPS, MPH_TO_MPS, XodrFile

if TYPE_CHECKING:
    from drivesim.town.opendrive import SampledLane

TYPE_LIGHT, TYPE_YIELD, TYPE_STOP, TYPE_SPEED = "1000001", "205", "206", "274"
YIELDS = {TYPE_YIELD: 1, TYPE_STOP: 2}
DEFAULT_LIMIT_MPS = 30.0 * KMH_TO_MPS  # CARLA's own until a car has passed a sign
TOWN_LIMIT_MPS = 50.0 * KMH_TO_MPS
FASTEST_LIMIT_MPS = 90.0 * KMH_TO_MPS
HIGHWAY_MPS = 54.0 * MPH_TO_MPS
STOP_BACK_M = 0.5  # the stop line lies this far before the end of its lane
SIGN_REACH_M = 25.0  # a sign on an open road governs the lane's end within this
SAME_APPROACH_RAD = float(np.radians(30.0))


@dataclass(frozen=True)
class Landmark:
    """A landmark on a road: where it stands and which lanes of `road` it is for."""

    id: str
    kind: str
    road: int
    s_m: float
    value: float
    lanes: tuple[tuple[int, int], ...]  # inclusive ranges of OpenDRIVE lane ids
    direction: int  # sign of the ids of the lanes it faces, 0 for both
    xyz_m: tuple[float, float, float]
    yaw_rad: float


def read_landmarks(town_map: Any) -> list[Landmark]:
    """All landmarks of a `carla.Map` of the kinds that drivesim knows."""
    result = []
    for mark in town_map.get_all_landmarks():
        if mark.type in (TYPE_LIGHT, TYPE_YIELD, TYPE_STOP, TYPE_SPEED):
            place = mark.transform.location
            # RoadRunner, hence CARLA, writes "-" for the lanes with negative ids
            direction = {"Positive": 1, "Negative": -1}.get(str(mark.orientation), 0)
            spans = tuple((min(pair), max(pair)) for pair in mark.get_lane_validities())
            yaw_rad = float(np.radians(mark.transform.rotation.yaw))
            xyz_m = (place.x, place.y, place.z)
            result.append(
                Landmark(mark.id, mark.type, mark.road_id, mark.s, mark.value, spans, direction, xyz_m, yaw_rad)
            )
    return result


def lights_and_stops(lanes: list[SampledLane], marks: list[Landmark], file: XodrFile) -> dict[str, NDArray[Any]]:
    """`light_*`, `stop_*`, `lane_light`, `lane_yields`."""
    by_road = _by_road(lanes)
    poles: dict[str, Landmark] = {}
    votes: dict[int, Counter[str]] = {}
    yields = np.zeros(len(lanes), np.uint8)
    for mark in marks:
        if mark.kind == TYPE_LIGHT:
            poles.setdefault(mark.id, mark)
        for approach in _approaches(mark, lanes, by_road) if mark.kind != TYPE_SPEED else ():
            if mark.kind == TYPE_LIGHT:
                votes.setdefault(approach, Counter())[mark.id] += 1
            else:
                yields[approach] = max(int(yields[approach]), YIELDS[mark.kind])
    ids = sorted(poles, key=lambda each: (len(each), each))
    rows = {signal: row for row, signal in enumerate(ids)}
    lane_light = np.full(len(lanes), -1, np.int32)
    for approach, counted in votes.items():
        lane_light[approach] = rows[min(counted, key=lambda each: (-counted[each], rows[each]))]
    yields[lane_light >= 0] = 0
    result = _stops(lanes, lane_light, yields)
    result.update(_lights([poles[each] for each in ids], lanes, lane_light, file))
    return result | {"lane_light": lane_light, "lane_yields": yields}


def _by_road(lanes: list[SampledLane]) -> dict[int, list[int]]:
    result: dict[int, list[int]] = {}
    for row, lane in enumerate(lanes):
        if lane.kind == LANE_DRIVING:
            result.setdefault(lane.key[0], []).append(row)
    return result


def _approaches(mark: Landmark, lanes: list[SampledLane], by_road: dict[int, list[int]]) -> list[int]:
    """The lanes off junctions whose end the landmark governs."""
    result: list[int] = []
    for row in by_road.get(mark.road, ()):
        if _governs(mark, lanes[row]):
            result += _back_out(row, lanes) if lanes[row].junction >= 0 else _ahead_to_junction(row, mark, lanes)
    return result


def _governs(mark: Landmark, lane: SampledLane) -> bool:
    lane_id = lane.key[2]
    here = lane.section.start_m - 0.5 <= mark.s_m <= lane.section.end_m + 0.5 or lane.junction >= 0
    named = any(low <= lane_id <= high for low, high in mark.lanes)
    names_both_sides = any(low < 0 < high for low, high in mark.lanes)
    return here and named and (not names_both_sides or lane_id * mark.direction >= 0)


def _back_out(row: int, lanes: list[SampledLane]) -> list[int]:
    """From a lane inside a junction back to the lanes outside that lead to it."""
    frontier, found = [row], []
    for _ in range(8):
        behind = [back for each in frontier for back in lanes[each].previous]
        found += [each for each in behind if lanes[each].junction < 0]
        frontier = [each for each in behind if lanes[each].junction >= 0]
    return found


def _ahead_to_junction(row: int, mark: Landmark, lanes: list[SampledLane]) -> list[int]:
    """From a lane of an open road on to the lane that ends at a junction, if that is near."""
    lane = lanes[row]
    ahead_m = abs(float(lane.road_s_m[-1]) - mark.s_m)
    while len(lane.next) == 1 and lanes[lane.next[0]].junction < 0 and ahead_m < SIGN_REACH_M:
        row = lane.next[0]
        lane = lanes[row]
        ahead_m += lane.length_m
    return [row] if ahead_m < SIGN_REACH_M else []


def _stops(
    lanes: list[SampledLane], lane_light: NDArray[np.int32], yields: NDArray[np.uint8]
) -> dict[str, NDArray[Any]]:
    rows = np.flatnonzero((lane_light >= 0) | (yields == YIELDS[TYPE_STOP]))
    places, yaws, halves = [], [], []
    for row in rows:
        lane = lanes[row]
        s_m = max(lane.length_m - STOP_BACK_M, 0.5 * lane.length_m)
        places.append([np.interp(s_m, lane.s_m, lane.xyz_m[:, axis]) for axis in range(3)])
        yaws.append(float(np.interp(s_m, lane.s_m, lane.yaw_rad)))
        halves.append(max(0.5 * float(lane.width_m[-1]), 1.0))
    return {
        "stop_xyz_m": np.array(places, np.float32).reshape(-1, 3),
        "stop_yaw_rad": np.arctan2(np.sin(yaws), np.cos(yaws)).astype(np.float32),
        "stop_half_width_m": np.array(halves, np.float32),
        "stop_lane": rows.astype(np.int32),
        "stop_light": lane_light[rows].astype(np.int32),
    }


def _lights(
    poles: list[Landmark], lanes: list[SampledLane], lane_light: NDArray[np.int32], file: XodrFile
) -> dict[str, NDArray[Any]]:
    yaw = np.array([pole.yaw_rad for pole in poles], np.float64)
    feet = np.array([pole.xyz_m for pole in poles], np.float32).reshape(-1, 3)
    junction = np.full(len(poles), -1, np.int64)
    for row, light in enumerate(lane_light):
        if light >= 0:
            yaw[light] = lanes[row].yaw_rad[-1] + np.pi
            feet[light, 2] = lanes[row].xyz_m[-1, 2]  # the files have the pole's base under the ground
            junction[light] = max((lanes[ahead].junction for ahead in lanes[row].next), default=-1)
    group, phase = _cycles([pole.id for pole in poles], junction, yaw, file)
    return {
        "light_signal_id": np.array([pole.id for pole in poles], dtype=np.str_),
        "light_xyz_m": feet,
        "light_yaw_rad": np.arctan2(np.sin(yaw), np.cos(yaw)).astype(np.float32),
        "light_group": group,
        "light_phase": phase,
    }


def _cycles(
    ids: list[str], junction: NDArray[np.int64], yaw: NDArray[np.float64], file: XodrFile
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Group and phase of each light: a junction is a group, each of its controllers a phase.

    Lights that no controller names take turns by approach direction, after the controlled ones.
    """
    named: dict[str, tuple[int, int]] = {}
    for junction_id, controllers in file.junction_controllers.items():
        for order, controller in enumerate(controllers):
            for signal in file.controller_signals.get(controller, ()):
                named.setdefault(signal, (junction_id, order))
    own = [named.get(each, (int(junction[row]), -1)) for row, each in enumerate(ids)]
    group_ids = sorted({junction_id for junction_id, _ in own})
    group = np.array([group_ids.index(junction_id) for junction_id, _ in own], np.int32)
    phase = np.array([order for _, order in own], np.int32)
    for each in range(len(group_ids)):
        _number_phases(np.flatnonzero(group == each), phase, yaw)
    return group, phase


def _number_phases(members: NDArray[np.intp], phase: NDArray[np.int32], yaw: NDArray[np.float64]) -> None:
    """Make the phases of one group 0, 1, 2.. without gaps; unnamed lights by their direction."""
    used = sorted({int(phase[row]) for row in members if phase[row] >= 0})
    renumbered = {old: new for new, old in enumerate(used)}
    approaches: list[float] = []
    for row in members:
        if phase[row] >= 0:
            phase[row] = renumbered[int(phase[row])]
            continue
        apart = [abs(float(np.angle(np.exp(1j * (yaw[row] - other))))) for other in approaches]
        if not apart or min(apart) > SAME_APPROACH_RAD:
            approaches.append(float(yaw[row]))
            apart.append(0.0)
        phase[row] = len(used) + int(np.argmin(apart))


def speed_limits(lanes: list[SampledLane], marks: list[Landmark]) -> NDArray[np.float32]:
    """(P,) limits. A sign (its number is km/h, as CARLA's is) holds until the next one on the way.

    Lanes that no sign reaches: CARLA's default in a town with signs, else what the road says.
    """
    starts = _sign_starts(lanes, marks)
    limits = [np.full(len(lane.s_m), _road_limit_mps(lane, bool(starts))) for lane in lanes]
    entered = _spread_limits(lanes, starts)
    for row, lane in enumerate(lanes):
        if row in entered:
            limits[row][:] = entered[row]
        for s_m, value in sorted(starts.get(row, ())):
            limits[row][lane.s_m >= s_m] = value
    return np.concatenate(limits).astype(np.float32)


def _road_limit_mps(lane: SampledLane, town_has_signs: bool) -> float:
    written = lane.road.speed_limit_mps
    if town_has_signs or written <= 0.0:
        return DEFAULT_LIMIT_MPS
    return FASTEST_LIMIT_MPS if written >= HIGHWAY_MPS else min(written, TOWN_LIMIT_MPS)


def _sign_starts(lanes: list[SampledLane], marks: list[Landmark]) -> dict[int, list[tuple[float, float]]]:
    """Lane -> (s along the lane, limit) of the signs beside it."""
    by_road = _by_road(lanes)
    starts: dict[int, list[tuple[float, float]]] = {}
    for mark in marks:
        if mark.kind != TYPE_SPEED or mark.value <= 0.0:
            continue
        for row in by_road.get(mark.road, ()):
            lane = lanes[row]
            beside = lane.section.start_m <= mark.s_m <= lane.section.end_m
            if beside and lane.key[2] * mark.direction >= 0:
                s_m = abs(mark.s_m - float(lane.road_s_m[0]))
                starts.setdefault(row, []).append((s_m, min(mark.value * KMH_TO_MPS, FASTEST_LIMIT_MPS)))
    return starts


def _spread_limits(lanes: list[SampledLane], starts: dict[int, list[tuple[float, float]]]) -> dict[int, float]:
    """Lane -> limit with which one enters it, by the nearest sign behind."""
    queue = [(lanes[row].length_m - max(signs)[0], row, max(signs)[1]) for row, signs in starts.items()]
    heapq.heapify(queue)
    entered: dict[int, float] = {}
    while queue:
        distance_m, row, value = heapq.heappop(queue)
        for ahead in lanes[row].next:
            if ahead not in entered:
                entered[ahead] = value
                if ahead not in starts:  # beyond its own sign that sign speaks
                    heapq.heappush(queue, (distance_m + lanes[ahead].length_m, ahead, value))
    return entered
