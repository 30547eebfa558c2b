"""How fast a traffic driver may go: the road, the curves, and everybody in the way."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.arrays import Actors, wrap_angle
from drivesim.town.drivers import ANTICIPATION, COMFORT, DESIRED, HEADWAY, LATERAL, MAX_ACCEL, MIN_GAP, SET_SPEED
from drivesim.town.paths import SAMPLE_M
from drivesim.town.state import KIND_WALKER, POLICY_EXTERNAL, POLICY_KINEMATIC

EMERGENCY_MPS2 = 8.0


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
            for half in range(1, 3):
                gap, along = _gap_to(actors, row, other, 0.5 * half * driver[ANTICIPATION], sample, count)
                if gap < 1e8 and gap > 0.0:
                    wanted = follow(speed, gap, max(along, 0.0), driver)
                    acceleration = min(acceleration, max(wanted, -0.7 * EMERGENCY_MPS2))
    return acceleration, nearest, nearest_speed


@njit(cache=True, error_model="numpy")
def _moves_freely(actors: Actors, row: int) -> bool:
    """True for who may leave its lane any moment: walkers, and vehicles steered from outside."""
    if actors.kind[row] == KIND_WALKER:
        return actors.speed[row] > 0.1
    policy = actors.policy[row]
    return (policy in (POLICY_EXTERNAL, POLICY_KINEMATIC)) and actors.speed[row] > 0.5
