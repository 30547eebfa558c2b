"""Engine and gearbox: how much a script's torque curve, gears and wheels push, relative to the ordinary car's.

The ordinary push (drivesim.town.physics) is that of a stepless drive. A changed drive train scales it by the
ratio of its best wheel force to the ordinary one at the same share of the top speed; a gear held by hand has
its own ratio, and nothing to give above the engine's highest speed.
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.chassis import (
    FINAL_RATIO,
    FIRST_GEAR,
    FIRST_STEERING,
    FIRST_TORQUE,
    GEARS,
    MAX_RPM,
    RADIUS_M,
    STEERING_PLACES,
    STEERING_STEP_KMH,
    TOP,
    TORQUE_PLACES,
)

F32 = NDArray[np.float32]
RPM_PER_RAD_S = 30.0 / math.pi
IDLE_RPM = 800.0
MOST_FACTOR = 20.0  # of the ordinary push; no script's engine lifts the car off


@njit(cache=True, error_model="numpy")
def engine_rpm(car: F32, gear: int, speed_mps: float) -> float:
    """Engine speed that the wheels ask for in a gear (1, 2, ...)."""
    return abs(speed_mps) / car[RADIUS_M] * car[FIRST_GEAR + gear - 1] * car[FINAL_RATIO] * RPM_PER_RAD_S


@njit(cache=True, error_model="numpy")
def gear_force(car: F32, gear: int, speed_mps: float) -> float:
    """Wheel force (N) at full throttle in a gear (1, 2, ...); 0 above the engine's highest speed."""
    rpm = engine_rpm(car, gear, speed_mps)
    if rpm > car[MAX_RPM]:
        return 0.0
    place = rpm / car[MAX_RPM] * (TORQUE_PLACES - 1)
    low = min(int(place), TORQUE_PLACES - 2)
    share = place - low
    torque = car[FIRST_TORQUE + low] * (1.0 - share) + car[FIRST_TORQUE + low + 1] * share
    return torque * car[FIRST_GEAR + gear - 1] * car[FINAL_RATIO] / car[RADIUS_M]


@njit(cache=True, error_model="numpy")
def automatic_gear(car: F32, speed_mps: float) -> int:
    """The gear (1, 2, ...) that pushes most at a speed; the longest one beyond every gear's reach."""
    best, most, longest = 0, 0.0, 1
    for gear in range(1, int(car[GEARS]) + 1):
        force = gear_force(car, gear, speed_mps)
        if force > most:
            best, most = gear, force
        if car[FIRST_GEAR + gear - 1] < car[FIRST_GEAR + longest - 1]:
            longest = gear
    return best if best > 0 else longest


@njit(cache=True, error_model="numpy")
def push_factor(car: F32, ordinary: F32, gear: int, speed_mps: float) -> float:
    """Drive force relative to the ordinary car's, mass apart.

    Args:
        car: physics row of the vehicle.
        ordinary: physics row of its model.
        gear: held by hand (1, 2, ...), or 0 for the automatic gearbox.
        speed_mps: along the heading.
    """
    same = abs(speed_mps) / max(car[TOP], 1e-3)
    usual = gear_force(ordinary, automatic_gear(ordinary, same), same)
    if usual <= 0.0:
        return 0.0
    held = min(gear, int(car[GEARS])) if gear > 0 else automatic_gear(car, speed_mps)
    return min(gear_force(car, held, speed_mps) / usual, MOST_FACTOR)


@njit(cache=True, error_model="numpy")
def steering_share(car: F32, speed_mps: float) -> float:
    """Share of the steer that the steering curve leaves at a speed."""
    place = min(abs(speed_mps) * 3.6 / STEERING_STEP_KMH, STEERING_PLACES - 1.0)
    low = min(int(place), STEERING_PLACES - 2)
    share = place - low
    return car[FIRST_STEERING + low] * (1.0 - share) + car[FIRST_STEERING + low + 1] * share
