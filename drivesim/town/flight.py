"""Vehicles that no tyre holds: those in the air, those without gravity, and those whose velocity is held for them."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math

from numba import njit

from drivesim.town.arrays import Actors, wrap_angle
from drivesim.town.motion import (
    AIRBORNE,
    HELD_X,
    HELD_Y,
    HELD_Z,
    LATERAL,
    SLIDING,
    TURN_RATE,
    TURNED,
    WEIGHTLESS,
)

GRAVITY_MPS2 = 9.81
TOUCH_M = 0.02


@njit(cache=True, error_model="numpy")
def fly(actors: Actors, row: int, air: float, dt_s: float) -> None:
    """Advance a vehicle without tyre forces by dt_s: ballistic, or straight on where gravity is off.

    Args:
        actors: the state.
        row: the vehicle.
        air: drag over the square of the speed, 1/m.
        dt_s: step.
    """
    motion, velocity = actors.motion[row], actors.velocity[row]
    if motion[TURNED] > 0.0:
        actors.yaw_rate[row] = motion[TURN_RATE]
    total = math.hypot(velocity[0], velocity[1])
    kept = max(1.0 - air * total * dt_s, 0.0)
    vx, vy = velocity[0] * kept, velocity[1] * kept
    fall = 0.0 if motion[WEIGHTLESS] > 0.0 else GRAVITY_MPS2 * dt_s
    actors.acceleration[row, 0], actors.acceleration[row, 1] = (vx - velocity[0]) / dt_s, (vy - velocity[1]) / dt_s
    actors.xyz[row, 0] += vx * dt_s
    actors.xyz[row, 1] += vy * dt_s
    actors.xyz[row, 2] += (velocity[2] - 0.5 * fall) * dt_s
    velocity[0], velocity[1] = vx, vy
    velocity[2] -= fall
    yaw = wrap_angle(actors.rotation[row, 2] + actors.yaw_rate[row] * dt_s)
    actors.rotation[row, 2] = yaw
    motion[SLIDING] = 1.0
    actors.speed[row] = math.cos(yaw) * vx + math.sin(yaw) * vy
    motion[LATERAL] = math.cos(yaw) * vy - math.sin(yaw) * vx


@njit(cache=True, error_model="numpy")
def touch_down(actors: Actors, row: int, ground_m: float) -> bool:
    """Keep a flying vehicle above the ground; True where it has landed."""
    motion = actors.motion[row]
    if actors.xyz[row, 2] > ground_m + TOUCH_M:
        return False
    actors.xyz[row, 2] = max(actors.xyz[row, 2], ground_m)
    actors.velocity[row, 2] = max(actors.velocity[row, 2], 0.0)
    if actors.velocity[row, 2] == 0.0:
        motion[AIRBORNE] = 0.0
    return motion[AIRBORNE] == 0.0 and motion[WEIGHTLESS] == 0.0


@njit(cache=True, error_model="numpy")
def carry(actors: Actors, row: int, wheelbase_m: float, grip_mps2: float, dt_s: float) -> None:
    """Advance a vehicle at its held velocity, which turns with it as it steers; no pedal changes it."""
    motion = actors.motion[row]
    vx, vy = float(motion[HELD_X]), float(motion[HELD_Y])
    curvature = math.tan(actors.steer_angle[row]) / wheelbase_m
    limit = grip_mps2 / max(vx * vx, 1e-6)
    rate = vx * min(max(curvature, -limit), limit)
    if motion[TURNED] > 0.0:
        rate = float(motion[TURN_RATE])
    middle = actors.rotation[row, 2] + 0.5 * rate * dt_s
    actors.xyz[row, 0] += (vx * math.cos(middle) - vy * math.sin(middle)) * dt_s
    actors.xyz[row, 1] += (vx * math.sin(middle) + vy * math.cos(middle)) * dt_s
    if motion[WEIGHTLESS] > 0.0:
        actors.xyz[row, 2] += motion[HELD_Z] * dt_s
    yaw = wrap_angle(actors.rotation[row, 2] + rate * dt_s)
    actors.rotation[row, 2] = yaw
    actors.speed[row], actors.yaw_rate[row], motion[SLIDING] = vx, rate, 0.0
    wx, wy = vx * math.cos(yaw) - vy * math.sin(yaw), vx * math.sin(yaw) + vy * math.cos(yaw)
    actors.acceleration[row, 0] = (wx - actors.velocity[row, 0]) / dt_s
    actors.acceleration[row, 1] = (wy - actors.velocity[row, 1]) / dt_s
    actors.velocity[row, 0], actors.velocity[row, 1] = wx, wy
