"""The town's own traffic: vehicles on lanes that follow, stop, yield, turn, change lanes and now and then brake hard.

A traffic vehicle runs on rails: its place is (lane, s, lateral offset) along `path`, its axles both sit on
that path. Each tick first plans all accelerations from one common state, then moves everybody, so the
order of the rows decides nothing but who gets a junction first. What a driver is like, and all its
timers, are the columns of `TownState.traffic` named below.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.arrays import Actors, Roads, draw, lane_index, lane_point, locate, wrap_angle
from drivesim.town.state import (
    KIND_FREE, KIND_VEHICLE, KIND_WALKER, LIGHT_RED, LIGHT_YELLOW, POLICY_EXTERNAL, POLICY_KINEMATIC, POLICY_TRAFFIC,
)  # fmt: skip
from drivesim.town.roads import LANE_DRIVING

# columns of TownState.traffic for POLICY_TRAFFIC
(
    DESIRED,  # share of the speed limit
    HEADWAY,  # s
    MIN_GAP,  # m
    MAX_ACCEL,  # m/s2
    COMFORT,  # comfortable braking, m/s2
    LATERAL,  # comfortable lateral acceleration, m/s2
    BRAKE_DECEL,  # m/s2 of the hard brake that is going on
    BRAKE_LEFT,  # s it still lasts
    BRAKE_RATE,  # random hard brakes per s
    CHANGE_RATE,  # wishes to change lane per s
    CHANGE_TOTAL,  # s the lane change takes
    CHANGE_LEFT,  # s of it left
    OFFSET_FROM,  # m lateral offset at its start
    SET_SPEED,  # m/s ordered by a script, or -1
    RESERVED,  # junction id this vehicle holds a grant for, or -1
    WAIT,  # s it has stood without a red light
    STOPPED,  # s it has stood at a stop line
    ANTICIPATION,  # s it looks ahead at what others will do
    PREVIOUS_LANE,  # the lane its tail may still be on, or -1
    WANDER,  # m steady lateral offset
    CUT_GAP,  # share of a polite gap it takes for a lane change
    COOLDOWN,  # s until it may change lane or brake at random again
    IGNORES,  # IGNORE_* flags
    PLANNED,  # m/s2 planned in this tick
) = range(24)
IGNORE_LIGHTS, IGNORE_ACTORS, IGNORE_JUNCTIONS = 1, 2, 4

LAMP_POSITION, LAMP_LOW_BEAM, LAMP_BRAKE, LAMP_RIGHT, LAMP_LEFT, LAMP_FOG = 1, 2, 8, 16, 32, 128
SAMPLE_M = 2.0
SAMPLES = 44  # the path ahead that a driver looks at: 88 m
EMERGENCY_MPS2 = 8.0
RELOCATE_AFTER_S = 60.0
RELOCATE_CLEAR_M = 90.0
STOP_SHORT_M = 0.8  # bumper to stop line


# --------------------------------------------------------------------------- paths on lanes
@njit(cache=True, error_model="numpy")
def choose_next(roads: Roads, lane: int, rng: NDArray[np.uint64], row: int) -> int:
    """A successor of a lane by the dice of one row; a dead end only where there is nothing else; -1 for none."""
    options, dead = 0, -1
    for k in range(6):
        candidate = roads.lane_next[lane, k]
        if candidate >= 0 and roads.lane_kind[candidate] == LANE_DRIVING:
            if roads.lane_next[candidate, 0] >= 0:
                options += 1
            else:
                dead = candidate
    if options == 0:
        return dead
    pick = int(draw(rng, row) * options)
    for k in range(6):
        candidate = roads.lane_next[lane, k]
        if candidate >= 0 and roads.lane_kind[candidate] == LANE_DRIVING and roads.lane_next[candidate, 0] >= 0:
            if pick == 0:
                return candidate
            pick -= 1
    return dead


@njit(cache=True, error_model="numpy")
def fill_path(roads: Roads, path: NDArray[np.int32], rng: NDArray[np.uint64], row: int) -> None:
    """Extend the path of a row to its full length; path[row, 0] must be a lane."""
    for k in range(1, path.shape[1]):
        if path[row, k] < 0:
            if path[row, k - 1] < 0:
                return
            path[row, k] = choose_next(roads, path[row, k - 1], rng, row)


@njit(cache=True, error_model="numpy")
def begin_path(roads: Roads, actors: Actors, row: int, lane: int, s_m: float) -> None:
    """Put a row on a lane and let it choose its way from there."""
    actors.lane[row], actors.lane_s[row] = lane, s_m
    actors.path[row, :] = -1
    actors.path[row, 0] = lane
    actors.traffic[row, PREVIOUS_LANE] = -1.0
    actors.traffic[row, RESERVED] = -1.0
    fill_path(roads, actors.path, actors.actor_rng, row)


@njit(cache=True, error_model="numpy")
def path_point(roads: Roads, actors: Actors, row: int, s_m: float) -> tuple[float, float, float, float]:
    """x, y, z, yaw at arc length s of the row's current lane, going on over its path (or back over the last lane)."""
    path = actors.path[row]
    if s_m < 0.0:
        previous = int(actors.traffic[row, PREVIOUS_LANE])
        if previous >= 0:
            return lane_point(roads, previous, roads.lane_length_m[previous] + s_m)
        return lane_point(roads, path[0], s_m)
    k = 0
    while s_m > roads.lane_length_m[path[k]] and k + 1 < len(path) and path[k + 1] >= 0:
        s_m -= roads.lane_length_m[path[k]]
        k += 1
    return lane_point(roads, path[k], s_m)


@njit(cache=True, error_model="numpy")
def sample_path(roads: Roads, actors: Actors, row: int, horizon_m: float, sample: NDArray[np.float64]) -> int:
    """Fill (x, y, yaw, speed limit) each SAMPLE_M ahead of the box's centre; returns how many."""
    path = actors.path[row]
    k, s = 0, actors.lane_s[row]
    count = min(int(horizon_m / SAMPLE_M) + 2, len(sample))
    for i in range(count):
        while s > roads.lane_length_m[path[k]]:
            if k + 1 >= len(path) or path[k + 1] < 0:
                return i
            s -= roads.lane_length_m[path[k]]
            k += 1
        x, y, _, yaw = lane_point(roads, path[k], s)
        sample[i, 0], sample[i, 1], sample[i, 2] = x, y, yaw
        sample[i, 3] = roads.point_speed_limit_mps[lane_index(roads, path[k], s)]
        s += SAMPLE_M
    return count


# --------------------------------------------------------------------------- following
@njit(cache=True, error_model="numpy")
def follow(speed: float, gap_m: float, leader_speed: float, driver: NDArray[np.float64]) -> float:
    """Acceleration the intelligent driver model's interaction term leaves: a (1 - (s*/gap)^2)."""
    closing = speed * (speed - leader_speed) / (2.0 * math.sqrt(driver[MAX_ACCEL] * driver[COMFORT]))
    desired = driver[MIN_GAP] + max(speed * driver[HEADWAY] + closing, 0.0)
    ratio = desired / max(gap_m, 0.1)
    return driver[MAX_ACCEL] * (1.0 - ratio * ratio)


@njit(cache=True, error_model="numpy")
def line_braking(speed: float, distance_m: float, comfort: float) -> float:
    """Acceleration that stops at a line after distance_m; large where nothing needs doing yet."""
    room = max(distance_m, 0.0)
    reference = math.sqrt(2.0 * comfort * room)
    if speed < 0.85 * reference:
        return 99.0
    if room < 0.3:
        return -EMERGENCY_MPS2 if speed > 1.0 else -3.0
    needed = speed * speed / (2.0 * room)
    return max(-needed * 1.05 + 0.6 * (reference - speed) * (speed < reference), -EMERGENCY_MPS2)


@njit(cache=True, error_model="numpy")
def free_driving(sample: NDArray[np.float64], count: int, speed: float, driver: NDArray[np.float64]) -> float:
    """Acceleration on an empty road: the speed limit, the script's speed, and the curves ahead."""
    wish = sample[0, 3] * driver[DESIRED] if count > 0 else 0.0
    if driver[SET_SPEED] >= 0.0:
        wish = driver[SET_SPEED]
    for i in range(count - 2):
        bend = abs(wrap_angle(sample[i + 2, 2] - sample[i, 2])) / (2.0 * SAMPLE_M)
        if bend > 0.004:
            corner = max(driver[LATERAL] / bend, 6.0)
            wish = min(wish, math.sqrt(corner + 2.0 * driver[COMFORT] * 0.8 * i * SAMPLE_M))
    wish = max(wish, 0.01)
    share = speed / wish
    if share <= 1.0:
        return driver[MAX_ACCEL] * (1.0 - share**4)
    return max((wish - speed) * 1.5, -3.0)


@njit(cache=True, error_model="numpy")
def _gap_to(
    actors: Actors, row: int, other: int, ahead_s: float, sample: NDArray[np.float64], count: int
) -> tuple[float, float]:
    """Gap along the path (m, bumper to box) and speed along it of another actor; gap 1e9 where it is not in the way.

    With ahead_s > 0 the other is taken where it will be then, at its present velocity.
    """
    ox = actors.xyz[other, 0] + ahead_s * actors.velocity[other, 0]
    oy = actors.xyz[other, 1] + ahead_s * actors.velocity[other, 1]
    best, nearest = 1e18, -1
    for i in range(count):
        dx, dy = ox - sample[i, 0], oy - sample[i, 1]
        d = dx * dx + dy * dy
        if d < best:
            best, nearest = d, i
    reach = 2.5 + actors.half_size[other, 0] + actors.half_size[row, 1] + abs(actors.lane_offset[row])
    if nearest < 0 or best > (reach + SAMPLE_M) ** 2:
        return 1e9, 0.0
    yaw = sample[nearest, 2]
    c, s = math.cos(yaw), math.sin(yaw)
    dx, dy = ox - sample[nearest, 0], oy - sample[nearest, 1]
    along = nearest * SAMPLE_M + c * dx + s * dy
    lateral = c * dy - s * dx
    turn = actors.rotation[other, 2] - yaw
    length = abs(math.cos(turn)) * actors.half_size[other, 0] + abs(math.sin(turn)) * actors.half_size[other, 1]
    width = abs(math.sin(turn)) * actors.half_size[other, 0] + abs(math.cos(turn)) * actors.half_size[other, 1]
    margin = width + actors.half_size[row, 1] + (0.5 if actors.kind[other] == KIND_WALKER else 0.25)
    mine = actors.lane_offset[row]
    if lateral > max(mine, 0.0) + margin or lateral < min(mine, 0.0) - margin:
        return 1e9, 0.0
    if along <= 0.3 * actors.half_size[row, 0] or along > (count + 1) * SAMPLE_M:
        return 1e9, 0.0
    return along - length - actors.half_size[row, 0], c * actors.velocity[other, 0] + s * actors.velocity[other, 1]


@njit(cache=True, error_model="numpy")
def respect_others(
    actors: Actors, row: int, live: NDArray[np.int64], sample: NDArray[np.float64], count: int
) -> tuple[float, float, float]:
    """Acceleration for everybody in the way, and gap and speed of the nearest of them (1e9, 0 where none)."""
    driver = actors.traffic[row]
    speed = actors.speed[row]
    x, y, yaw = actors.xyz[row, 0], actors.xyz[row, 1], actors.rotation[row, 2]
    c, s = math.cos(yaw), math.sin(yaw)
    reach = count * SAMPLE_M + 8.0
    acceleration, nearest, nearest_speed = 99.0, 1e9, 0.0
    for other in live:
        dx, dy = actors.xyz[other, 0] - x, actors.xyz[other, 1] - y
        if other == row or dx * dx + dy * dy > reach * reach or c * dx + s * dy < -4.0:
            continue
        if abs(actors.xyz[other, 2] - actors.xyz[row, 2]) > 3.0:  # another deck of a bridge
            continue
        gap, along = _gap_to(actors, row, other, 0.0, sample, count)
        if gap < 1e8:
            wanted = follow(speed, gap, along, driver)
            acceleration = min(acceleration, wanted)
            if gap < nearest:
                nearest, nearest_speed = gap, along
        elif _moves_freely(actors, other) and c * dx + s * dy > 0.5 * actors.half_size[row, 0]:
            gap, along = _gap_to(actors, row, other, driver[ANTICIPATION], sample, count)
            if gap < 1e8 and gap > 0.0:
                acceleration = min(acceleration, max(follow(speed, gap, max(along, 0.0), driver), -0.7 * EMERGENCY_MPS2))
    return acceleration, nearest, nearest_speed


@njit(cache=True, error_model="numpy")
def _moves_freely(actors: Actors, row: int) -> bool:
    """True for who may leave its lane any moment: walkers, and vehicles steered from outside."""
    if actors.kind[row] == KIND_WALKER:
        return actors.speed[row] > 0.1
    policy = actors.policy[row]
    return (policy == POLICY_EXTERNAL or policy == POLICY_KINEMATIC) and actors.speed[row] > 0.5


# --------------------------------------------------------------------------- junctions
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
    exit_blocked = gap_m < distance + length + 2.0 * actors.half_size[row, 0] + 2.0 and leader_speed < 1.5 and gap_m > distance
    if driver[RESERVED] == junction:
        if exit_blocked and speed < 0.5 and distance > 0.0:
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


# --------------------------------------------------------------------------- lane changes
@njit(cache=True, error_model="numpy")
def neighbour_place(roads: Roads, actors: Actors, row: int, side: int) -> tuple[int, float, float]:
    """Lane to the right (+1) or left (-1), arc length on it, and the row's offset from it; lane -1 for none."""
    lane = actors.path[row, 0]
    target = roads.lane_right[lane] if side > 0 else roads.lane_left[lane]
    if target < 0:
        return -1, 0.0, 0.0
    share = actors.lane_s[row] / max(roads.lane_length_m[lane], 0.1)
    s = share * roads.lane_length_m[target]
    for _ in range(2):
        x, y, _z, yaw = lane_point(roads, target, s)
        dx, dy = actors.xyz[row, 0] - x, actors.xyz[row, 1] - y
        s = min(max(s + math.cos(yaw) * dx + math.sin(yaw) * dy, 0.0), float(roads.lane_length_m[target]))
    x, y, _z, yaw = lane_point(roads, target, s)
    offset = math.cos(yaw) * (actors.xyz[row, 1] - y) - math.sin(yaw) * (actors.xyz[row, 0] - x)
    if abs(offset) > 6.0:
        return -1, 0.0, 0.0
    return target, s, offset


@njit(cache=True, error_model="numpy")
def _gap_is_open(actors: Actors, row: int, live: NDArray[np.int64], lateral_m: float, share: float) -> bool:
    """Whether the strip at lateral_m (right positive) beside a vehicle has room, as polite as `share` asks."""
    yaw, speed = actors.rotation[row, 2], actors.speed[row]
    c, s = math.cos(yaw), math.sin(yaw)
    for other in live:
        if other == row:
            continue
        dx, dy = actors.xyz[other, 0] - actors.xyz[row, 0], actors.xyz[other, 1] - actors.xyz[row, 1]
        along, side = c * dx + s * dy, c * dy - s * dx
        if abs(along) > 60.0 or abs(side - lateral_m) > 1.2 + actors.half_size[other, 1]:
            continue
        gap = abs(along) - actors.half_size[row, 0] - actors.half_size[other, 0]
        theirs = c * actors.velocity[other, 0] + s * actors.velocity[other, 1]
        closing = max(speed - theirs, 0.0) if along > 0.0 else max(theirs - speed, 0.0)
        if gap < 2.0 + share * (2.0 + 0.8 * speed) + 1.5 * closing:
            return False
    return True


@njit(cache=True, error_model="numpy")
def begin_change(roads: Roads, actors: Actors, row: int, side: int, duration_s: float) -> bool:
    """Move a vehicle to its neighbouring lane within duration_s; False where there is none."""
    target, s, offset = neighbour_place(roads, actors, row, side)
    if target < 0:
        return False
    driver = actors.traffic[row]
    begin_path(roads, actors, row, target, s)
    driver[OFFSET_FROM] = offset
    actors.lane_offset[row] = offset
    driver[CHANGE_TOTAL] = driver[CHANGE_LEFT] = max(duration_s, 0.5)
    driver[COOLDOWN] = duration_s + 5.0
    return True


@njit(cache=True, error_model="numpy")
def maybe_change(roads: Roads, actors: Actors, row: int, live: NDArray[np.int64], dt_s: float, stuck: bool) -> None:
    """By the dice (or because something slow is ahead) try a lane change where there is room."""
    driver = actors.traffic[row]
    lane = actors.path[row, 0]
    left_m = roads.lane_length_m[lane] - actors.lane_s[row]
    rate = driver[CHANGE_RATE] * (20.0 if stuck else 1.0)
    if draw(actors.actor_rng, row) > rate * dt_s or driver[COOLDOWN] > 0.0 or driver[CHANGE_LEFT] > 0.0:
        return
    if roads.lane_junction[lane] >= 0 or actors.speed[row] < 3.0 or driver[SET_SPEED] >= 0.0:
        return
    if left_m < 10.0 + 3.5 * actors.speed[row] or actors.lane_s[row] < 8.0:
        return
    side = 1 if draw(actors.actor_rng, row) < 0.5 else -1
    target, _, offset = neighbour_place(roads, actors, row, side)
    if target >= 0 and roads.lane_next[target, 0] >= 0 and _gap_is_open(actors, row, live, -offset, driver[CUT_GAP]):
        begin_change(roads, actors, row, side, 2.0 + 2.0 * draw(actors.actor_rng, row))


# --------------------------------------------------------------------------- the tick
@njit(cache=True, error_model="numpy")
def _plan(
    roads: Roads, actors: Actors, row: int, live: NDArray[np.int64], claims: NDArray[np.int16],
    inside: NDArray[np.int16], sample: NDArray[np.float64], dt_s: float,
) -> None:  # fmt: skip
    driver = actors.traffic[row]
    speed = actors.speed[row]
    horizon = 14.0 + 3.0 * speed + speed * speed / (2.0 * driver[COMFORT])
    count = sample_path(roads, actors, row, horizon, sample)
    acceleration = free_driving(sample, count, speed, driver)
    others, gap, leader_speed = respect_others(actors, row, live, sample, count)
    if not int(driver[IGNORES]) & IGNORE_ACTORS:
        acceleration = min(acceleration, others)
    junction, held = respect_junction(roads, actors, row, gap, leader_speed, claims, inside)
    acceleration = min(acceleration, junction)
    if actors.path[row, 1] < 0:  # the road ends
        left_m = roads.lane_length_m[actors.path[row, 0]] - actors.lane_s[row] - actors.half_size[row, 0]
        acceleration = min(acceleration, line_braking(speed, left_m - 1.0, driver[COMFORT]))
    if driver[BRAKE_LEFT] > 0.0:
        acceleration = min(acceleration, -driver[BRAKE_DECEL])
    driver[PLANNED] = min(max(acceleration, -EMERGENCY_MPS2), driver[MAX_ACCEL])
    _tick_timers(actors, row, held, dt_s)
    maybe_change(roads, actors, row, live, dt_s, gap < 25.0 and leader_speed < 0.6 * sample[0, 3])


@njit(cache=True, error_model="numpy")
def _tick_timers(actors: Actors, row: int, held_by_light: bool, dt_s: float) -> None:
    driver = actors.traffic[row]
    standing = actors.speed[row] < 0.3
    driver[WAIT] = driver[WAIT] + dt_s if standing and not held_by_light else 0.0
    driver[STOPPED] = driver[STOPPED] + dt_s if standing else 0.0
    driver[BRAKE_LEFT] = max(driver[BRAKE_LEFT] - dt_s, 0.0)
    driver[CHANGE_LEFT] = max(driver[CHANGE_LEFT] - dt_s, 0.0)
    driver[COOLDOWN] = max(driver[COOLDOWN] - dt_s, 0.0)
    roll = draw(actors.actor_rng, row)
    if roll < driver[BRAKE_RATE] * dt_s and actors.speed[row] > 4.0 and driver[COOLDOWN] <= 0.0:
        driver[BRAKE_DECEL] = 5.0
        driver[BRAKE_LEFT] = 0.8 + 2.2 * draw(actors.actor_rng, row)
        driver[COOLDOWN] = 8.0


@njit(cache=True, error_model="numpy")
def _advance(roads: Roads, actors: Actors, row: int, dt_s: float) -> None:
    """Move along the path by the planned acceleration and set the pose from both axles."""
    driver = actors.traffic[row]
    speed = max(actors.speed[row] + driver[PLANNED] * dt_s, 0.0)
    s = actors.lane_s[row] + 0.5 * (actors.speed[row] + speed) * dt_s
    path = actors.path[row]
    while s > roads.lane_length_m[path[0]] and path[1] >= 0:
        s -= roads.lane_length_m[path[0]]
        _leave_lane(roads, actors, row)
    if s > roads.lane_length_m[path[0]]:
        s, speed = float(roads.lane_length_m[path[0]]), 0.0
    actors.speed[row], actors.lane[row], actors.lane_s[row] = speed, path[0], s
    share = driver[CHANGE_LEFT] / driver[CHANGE_TOTAL] if driver[CHANGE_TOTAL] > 0.0 else 0.0
    smooth = share * share * (3.0 - 2.0 * share)
    actors.lane_offset[row] = driver[WANDER] + (driver[OFFSET_FROM] - driver[WANDER]) * smooth
    slide = 0.0
    if share > 0.0:
        slide = -(driver[OFFSET_FROM] - driver[WANDER]) * 6.0 * share * (1.0 - share) / driver[CHANGE_TOTAL]
    place_on_path(roads, actors, row, math.atan2(slide, max(speed, 2.0)), dt_s)


@njit(cache=True, error_model="numpy")
def _leave_lane(roads: Roads, actors: Actors, row: int) -> None:
    path = actors.path[row]
    actors.traffic[row, PREVIOUS_LANE] = path[0]
    left = roads.lane_junction[path[0]]
    if left >= 0 and actors.traffic[row, RESERVED] == left and roads.lane_junction[path[1]] != left:
        actors.traffic[row, RESERVED] = -1.0
    path[:-1] = path[1:]
    path[-1] = -1
    fill_path(roads, actors.path, actors.actor_rng, row)


@njit(cache=True, error_model="numpy")
def place_on_path(roads: Roads, actors: Actors, row: int, crab_rad: float, dt_s: float) -> None:
    """Set pose and motion from (lane, s, offset): both axles on the path, the box between them."""
    half_base = 0.5 * max(actors.wheelbase[row], 0.5)
    s = actors.lane_s[row]
    fx, fy, fz, _ = path_point(roads, actors, row, s + half_base)
    rx, ry, rz, _ = path_point(roads, actors, row, s - half_base)
    yaw = math.atan2(fy - ry, fx - rx)
    x = 0.5 * (fx + rx) - actors.lane_offset[row] * math.sin(yaw)
    y = 0.5 * (fy + ry) + actors.lane_offset[row] * math.cos(yaw)
    z = 0.5 * (fz + rz)
    yaw = wrap_angle(yaw + crab_rad)
    rate = wrap_angle(yaw - actors.rotation[row, 2]) / dt_s
    actors.yaw_rate[row] = min(max(rate, -1.5), 1.5)
    speed = actors.speed[row]
    vx, vy = speed * math.cos(yaw), speed * math.sin(yaw)
    actors.acceleration[row, 0] = (vx - actors.velocity[row, 0]) / dt_s
    actors.acceleration[row, 1] = (vy - actors.velocity[row, 1]) / dt_s
    actors.velocity[row, 0], actors.velocity[row, 1] = vx, vy
    actors.velocity[row, 2] = min(max((z - actors.xyz[row, 2]) / dt_s, -5.0), 5.0)
    actors.xyz[row, 0], actors.xyz[row, 1], actors.xyz[row, 2] = x, y, z
    actors.rotation[row, 0] = 0.0
    actors.rotation[row, 1] = math.atan2(fz - rz, 2.0 * half_base)
    actors.rotation[row, 2] = yaw
    if speed > 0.5:
        actors.steer_angle[row] = math.atan(2.0 * half_base * actors.yaw_rate[row] / speed)


@njit(cache=True, error_model="numpy")
def _show(roads: Roads, actors: Actors, row: int) -> None:
    """Lamps and the control a driver of this vehicle would hold."""
    driver = actors.traffic[row]
    planned = driver[PLANNED]
    lamps = 0
    if actors.weather[5] < 12.0 or actors.weather[1] > 20.0 or actors.weather[6] > 30.0:
        lamps |= LAMP_POSITION | LAMP_LOW_BEAM
    if planned < -0.8 or actors.speed[row] < 0.2:
        lamps |= LAMP_BRAKE
    if driver[CHANGE_LEFT] > 0.0 and abs(driver[OFFSET_FROM]) > 1.5:
        lamps |= LAMP_LEFT if driver[OFFSET_FROM] > 0.0 else LAMP_RIGHT
    index, distance, _ = next_junction(roads, actors, row)
    ahead = actors.path[row, index] if index > 0 and distance < 30.0 else -1
    if roads.lane_junction[actors.path[row, 0]] >= 0:
        ahead = actors.path[row, 0]
    if ahead >= 0:
        turn = lane_turn(roads, ahead)
        if abs(turn) > 0.4:
            lamps |= LAMP_RIGHT if turn > 0.0 else LAMP_LEFT
    actors.lamps[row] = lamps
    actors.control[row, 0] = min(max((planned + 0.2) / 4.5, 0.0), 1.0) if planned > -0.2 else 0.0
    actors.control[row, 1] = min(max(actors.steer_angle[row] / 0.785, -1.0), 1.0)
    actors.control[row, 2] = min(max(-planned / 8.0, 0.0), 1.0) if planned <= -0.2 else 0.0
    actors.control[row, 6] = 1.0


@njit(cache=True, error_model="numpy")
def _relocate(roads: Roads, actors: Actors, row: int, live: NDArray[np.int64]) -> None:
    """Take a vehicle that is stuck for good to another free place, unless somebody outside could see it."""
    for other in live:
        if actors.policy[other] != POLICY_EXTERNAL:
            continue
        dx, dy = actors.xyz[other, 0] - actors.xyz[row, 0], actors.xyz[other, 1] - actors.xyz[row, 1]
        if dx * dx + dy * dy < RELOCATE_CLEAR_M**2:
            return
    lane = int(draw(actors.actor_rng, row) * len(roads.lane_start))
    if roads.lane_kind[lane] != LANE_DRIVING or roads.lane_junction[lane] >= 0 or roads.lane_length_m[lane] < 25.0:
        return
    s = 8.0 + draw(actors.actor_rng, row) * (roads.lane_length_m[lane] - 16.0)
    x, y, z, _ = lane_point(roads, lane, s)
    for other in live:
        dx, dy = actors.xyz[other, 0] - x, actors.xyz[other, 1] - y
        clear = RELOCATE_CLEAR_M if actors.policy[other] == POLICY_EXTERNAL else 20.0
        if other != row and dx * dx + dy * dy < clear**2:
            return
    begin_path(roads, actors, row, lane, s)
    actors.speed[row] = 0.0
    actors.traffic[row, WAIT] = 0.0
    actors.traffic[row, CHANGE_LEFT] = 0.0
    actors.xyz[row, 2] = z


@njit(cache=True, error_model="numpy", nogil=True)
def step_traffic(roads: Roads, actors: Actors, dt_s: float) -> None:
    """One tick of all traffic vehicles."""
    live = np.flatnonzero(actors.kind != KIND_FREE)
    claims = np.zeros(len(roads.lane_start), np.int16)
    inside = np.zeros(len(roads.lane_start), np.int16)
    sample = np.zeros((SAMPLES, 4))
    mark_claims(roads, actors, live, claims, inside)
    for row in live:
        if actors.policy[row] == POLICY_TRAFFIC and actors.kind[row] == KIND_VEHICLE:
            _plan(roads, actors, row, live, claims, inside, sample, dt_s)
    for row in live:
        if actors.policy[row] == POLICY_TRAFFIC and actors.kind[row] == KIND_VEHICLE:
            _advance(roads, actors, row, dt_s)
            if actors.traffic[row, WAIT] > RELOCATE_AFTER_S:
                _relocate(roads, actors, row, live)
            _show(roads, actors, row)


@njit(cache=True, error_model="numpy")
def start_driver(roads: Roads, actors: Actors, row: int, lane: int, s_m: float) -> None:
    """Roll a character for a new traffic vehicle and put it on its lane."""
    rng = actors.actor_rng
    driver = actors.traffic[row]
    driver[:] = 0.0
    driver[DESIRED] = 0.75 + 0.35 * draw(rng, row)
    driver[HEADWAY] = 0.9 + 0.9 * draw(rng, row)
    driver[MIN_GAP] = 1.6 + 1.4 * draw(rng, row)
    driver[MAX_ACCEL] = 1.3 + 0.9 * draw(rng, row)
    driver[COMFORT] = 1.8 + 0.9 * draw(rng, row)
    driver[LATERAL] = 1.8 + 1.2 * draw(rng, row)
    driver[BRAKE_RATE] = 0.02 * draw(rng, row) ** 2
    driver[CHANGE_RATE] = 0.08 * draw(rng, row)
    driver[ANTICIPATION] = 0.6 + 0.9 * draw(rng, row)
    driver[WANDER] = 0.3 * (draw(rng, row) - 0.5)
    driver[CUT_GAP] = 0.25 + 0.75 * draw(rng, row)
    driver[SET_SPEED] = -1.0
    begin_path(roads, actors, row, lane, s_m)


@njit(cache=True, error_model="numpy")
def adopt(roads: Roads, actors: Actors, row: int) -> bool:
    """Start a driver in a vehicle where it stands; False where no lane is near."""
    x, y, z = actors.xyz[row, 0], actors.xyz[row, 1], actors.xyz[row, 2]
    lane, s, offset, _ = locate(roads, x, y, z, actors.rotation[row, 2])
    if lane < 0 or abs(offset) > 4.0:
        return False
    start_driver(roads, actors, row, lane, s)
    actors.lane_offset[row] = offset
    if abs(offset) > 0.3:
        driver = actors.traffic[row]
        driver[OFFSET_FROM], driver[CHANGE_TOTAL], driver[CHANGE_LEFT] = offset, 3.0, 3.0
    return True
