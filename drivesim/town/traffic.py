"""The town's own traffic: vehicles on lanes that follow, stop, yield, turn, change lanes and now and then brake hard.

A traffic vehicle runs on rails: its place is (lane, s, lateral offset) along `path`, its axles both sit on
that path. Each tick first plans all accelerations from one common state, then moves everybody, so the
order of the rows decides nothing but who gets a junction first. What a driver is like, and all its
timers, are columns of `TownState.traffic` (drivers.py).
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.arrays import Actors, Roads, draw, lane_point, locate, wrap_angle
from drivesim.town.drivers import (
    BRAKE_DECEL,
    BRAKE_LEFT,
    BRAKE_RATE,
    CHANGE_LEFT,
    CHANGE_TOTAL,
    COMFORT,
    COOLDOWN,
    IGNORE_ACTORS,
    IGNORES,
    MAX_ACCEL,
    OFFSET_FROM,
    PLANNED,
    PREVIOUS_LANE,
    RESERVED,
    STOPPED,
    WAIT,
    WANDER,
    roll_driver,
)  # fmt: skip
from drivesim.town.following import EMERGENCY_MPS2, free_driving, line_braking, respect_others
from drivesim.town.lane_changes import maybe_change
from drivesim.town.paths import SAMPLES, begin_path, fill_path, path_point, sample_path
from drivesim.town.right_of_way import lane_turn, mark_claims, next_junction, respect_junction
from drivesim.town.roads import LANE_DRIVING
from drivesim.town.state import KIND_FREE, KIND_VEHICLE, POLICY_EXTERNAL, POLICY_TRAFFIC

LAMP_POSITION, LAMP_LOW_BEAM, LAMP_BRAKE, LAMP_RIGHT, LAMP_LEFT = 1, 2, 8, 16, 32
RELOCATE_AFTER_S = 60.0
RELOCATE_CLEAR_M = 90.0


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
def adopt(roads: Roads, actors: Actors, row: int) -> bool:
    """Start a driver in a vehicle where it stands; False where no lane is near."""
    x, y, z = actors.xyz[row, 0], actors.xyz[row, 1], actors.xyz[row, 2]
    lane, s, offset, _ = locate(roads, x, y, z, actors.rotation[row, 2])
    if lane < 0 or abs(offset) > 4.0:
        return False
    roll_driver(actors, row)
    begin_path(roads, actors, row, lane, s)
    actors.lane_offset[row] = offset
    if abs(offset) > 0.3:
        driver = actors.traffic[row]
        driver[OFFSET_FROM], driver[CHANGE_TOTAL], driver[CHANGE_LEFT] = offset, 3.0, 3.0
    return True
