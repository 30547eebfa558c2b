"""Who goes first: lights, signs, and claims on junction lanes that cross or merge.

A vehicle asks for all lanes of the next junction on its path as it comes near, and holds them (column
RESERVED) until its tail has left. Claims are counted afresh each tick from the state, so a copy needs no more.
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.arrays import Actors, Roads, wrap_angle
from drivesim.town.drivers import (
    COMFORT,
    IGNORE_JUNCTIONS,
    IGNORE_LIGHTS,
    IGNORES,
    PREVIOUS_LANE,
    RESERVED,
    STOPPED,
    WAIT,
)  # fmt: skip
from drivesim.town.following import EMERGENCY_MPS2, line_braking
from drivesim.town.state import KIND_VEHICLE, LIGHT_RED, LIGHT_YELLOW, POLICY_TRAFFIC

STOP_SHORT_M = 0.8  # bumper to stop line


@njit(cache=True, error_model="numpy")
def _claim(claims: NDArray[np.int16], lane: int) -> None:
    claims[lane] += 1


@njit(cache=True, error_model="numpy")
def mark_claims(
    roads: Roads, actors: Actors, live: NDArray[np.int64], claims: NDArray[np.int16], inside: NDArray[np.int16]
) -> None:
    """Count, for each junction lane, who holds it (`claims`) and who is bodily on it (`inside`)."""
    for row in live:
        lane = actors.lane[row]
        if actors.kind[row] != KIND_VEHICLE or lane < 0:
            continue
        if actors.policy[row] == POLICY_TRAFFIC:
            _claims_of_traffic(roads, actors, row, claims, inside)
        elif roads.lane_junction[lane] >= 0:
            if abs(actors.lane_offset[row]) < 4.0:
                _claim(claims, lane)
                _claim(inside, lane)
        elif actors.speed[row] > 2.0:
            left = roads.lane_length_m[lane] - actors.lane_s[row] - actors.half_size[row, 0]
            light = roads.lane_light[lane]
            stops = light >= 0 and actors.light_state[light] == LIGHT_RED
            if left < 3.0 * actors.speed[row] and not stops:
                for k in range(6):
                    following = roads.lane_next[lane, k]
                    if following >= 0 and roads.lane_junction[following] >= 0:
                        _claim(claims, following)


@njit(cache=True, error_model="numpy")
def _claims_of_traffic(
    roads: Roads, actors: Actors, row: int, claims: NDArray[np.int16], inside: NDArray[np.int16]
) -> None:
    path = actors.path[row]
    if roads.lane_junction[path[0]] >= 0:
        _claim(claims, path[0])
        _claim(inside, path[0])
    previous = int(actors.traffic[row, PREVIOUS_LANE])
    if previous >= 0 and roads.lane_junction[previous] >= 0 and actors.lane_s[row] < actors.half_size[row, 0] + 0.5:
        _claim(claims, previous)
        _claim(inside, previous)
    held = actors.traffic[row, RESERVED]
    if held >= 0.0:
        _count_block(roads, path, int(held), claims)


@njit(cache=True, error_model="numpy")
def _count_block(roads: Roads, path: NDArray[np.int32], junction: int, claims: NDArray[np.int16]) -> None:
    """Claim the first run of path lanes (from the second on) that belong to a junction."""
    begun = False
    for k in range(1, len(path)):
        if path[k] < 0:
            return
        if roads.lane_junction[path[k]] == junction:
            _claim(claims, path[k])
            begun = True
        elif begun or roads.lane_junction[path[k]] >= 0:
            return


@njit(cache=True, error_model="numpy")
def next_junction(roads: Roads, actors: Actors, row: int) -> tuple[int, float, float]:
    """Index on the path of the next junction lane (0: none in sight), distance from bumper to it, and its length."""
    path = actors.path[row]
    here = roads.lane_junction[path[0]]
    distance = roads.lane_length_m[path[0]] - actors.lane_s[row] - actors.half_size[row, 0]
    for k in range(1, len(path)):
        if path[k] < 0 or distance > 120.0:
            return 0, 1e9, 0.0
        junction = roads.lane_junction[path[k]]
        if junction >= 0 and not (junction == here and roads.lane_junction[path[k - 1]] == here):
            length = 0.0
            for m in range(k, len(path)):
                if path[m] < 0 or roads.lane_junction[path[m]] != junction:
                    break
                length += roads.lane_length_m[path[m]]
            return k, distance, length
        distance += roads.lane_length_m[path[k]]
    return 0, 1e9, 0.0


@njit(cache=True, error_model="numpy")
def lane_turn(roads: Roads, lane: int) -> float:
    """How far a lane turns from its start to its end, rad, right positive."""
    first = roads.lane_start[lane]
    last = first + roads.lane_count[lane] - 1
    return wrap_angle(float(roads.point_yaw_rad[last]) - float(roads.point_yaw_rad[first]))


@njit(cache=True, error_model="numpy")
def _junction_is_free(roads: Roads, path: NDArray[np.int32], first: int, claims: NDArray[np.int16]) -> bool:
    junction = roads.lane_junction[path[first]]
    for k in range(first, len(path)):
        lane = path[k]
        if lane < 0 or roads.lane_junction[lane] != junction:
            return True
        for m in range(roads.conflict_start[lane], roads.conflict_start[lane + 1]):
            if claims[roads.conflict_lane[m]] > 0:
                return False
    return True


@njit(cache=True, error_model="numpy")
def respect_junction(
    roads: Roads, actors: Actors, row: int, gap_m: float, leader_speed: float, claims: NDArray[np.int16],
    inside: NDArray[np.int16],
) -> tuple[float, bool]:  # fmt: skip
    """Acceleration for lights, signs and who goes first at the next junction, and whether a light holds it back."""
    driver = actors.traffic[row]
    index, distance, length = next_junction(roads, actors, row)
    speed = actors.speed[row]
    path = actors.path[row]
    if index == 0 or distance < -1.5 or distance > 8.0 + 4.0 * speed + speed * speed / (2.0 * driver[COMFORT]):
        if index == 0 and roads.lane_junction[path[0]] < 0:
            driver[RESERVED] = -1.0
        return 99.0, False
    junction = roads.lane_junction[path[index]]
    room = distance - STOP_SHORT_M
    if _light_stops(roads, actors, path[index - 1], distance, speed, int(driver[IGNORES])):
        if driver[RESERVED] == junction:
            driver[RESERVED] = -1.0
            # the claim stays counted for this tick; it is gone in the next
        return line_braking(speed, room, driver[COMFORT]), True
    if int(driver[IGNORES]) & IGNORE_JUNCTIONS:
        return 99.0, False
    # nobody enters, or keeps a grant for, a junction that somebody slow keeps it from leaving
    exit_blocked = leader_speed < 2.0 and gap_m < distance + length + 2.0 * actors.half_size[row, 0] + 2.0
    if driver[RESERVED] == junction:
        if exit_blocked and room > 0.0 and speed * speed < 2.0 * 3.5 * room:
            driver[RESERVED] = -1.0
            return line_braking(speed, room, driver[COMFORT]), False
        return 99.0, False
    if not exit_blocked and _may_go(roads, actors, row, index, distance, claims, inside):
        driver[RESERVED] = junction
        driver[STOPPED] = 0.0
        _count_block(roads, path, junction, claims)
        return 99.0, False
    return line_braking(speed, room, driver[COMFORT]), False


@njit(cache=True, error_model="numpy")
def _light_stops(roads: Roads, actors: Actors, lane: int, distance: float, speed: float, ignores: int) -> bool:
    light = roads.lane_light[lane]
    if light < 0 or ignores & IGNORE_LIGHTS or distance < -0.5:
        return False
    needed = speed * speed / (2.0 * max(distance - 0.3, 0.1))
    if actors.light_state[light] == LIGHT_RED:
        return needed < EMERGENCY_MPS2 or speed < 1.0
    return actors.light_state[light] == LIGHT_YELLOW and (needed < 3.0 or speed < 1.0)


@njit(cache=True, error_model="numpy")
def _may_go(
    roads: Roads, actors: Actors, row: int, index: int, distance: float, claims: NDArray[np.int16],
    inside: NDArray[np.int16],
) -> bool:  # fmt: skip
    """Whether a vehicle may take the next junction now: near enough to ask, and nobody in the way."""
    driver = actors.traffic[row]
    path = actors.path[row]
    approach = path[index - 1]
    yields = roads.lane_yields[approach]
    if roads.lane_light[approach] >= 0:
        yields = 0
    if yields == 2 and driver[STOPPED] < 1.0:
        return False
    ask_s = 4.0
    if yields > 0:
        ask_s = 1.5
    elif abs(lane_turn(roads, path[index])) > 0.4:
        ask_s = 2.5
    if distance > max(ask_s * actors.speed[row], 4.0):
        return False
    # who has waited long goes as soon as nobody is bodily in the way
    return _junction_is_free(roads, path, index, inside if driver[WAIT] > 8.0 else claims)
