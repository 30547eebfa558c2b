"""A car beyond its grip: a planar rigid body on two axles whose tyres saturate.

Side force follows the brush tyre (Fiala 1954; Pacejka, Tire and Vehicle Dynamics, 3.2), which lets go at three
times the grip over the stiffness; drive and brakes take their part of the grip first (a friction circle, with
traction control and antilock brakes), a locked axle slides as a block. Slip is regularised at low speed, so
the same equations bring the car to rest. Forces are per mass, m/s2; loads are shares of the car's weight.
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.arrays import Actors, wrap_angle
from drivesim.town.chassis import COM_HEIGHT_M, MASS_KG, STIFF_FRONT, STIFF_REAR, TO_FRONT_M, TO_REAR_M, YAW_INERTIA
from drivesim.town.motion import LATERAL, SLIDING, TURN_RATE, TURNED

GRAVITY_MPS2 = 9.81
PART_S = 0.005
SLOW_MPS = 2.0  # below it, slip is taken against this speed
CREEP_MPS = 0.5  # a locked axle slides with full friction above it
LOCKED_SHARE = 0.9  # of the grip is left to a tyre that slides
LONGITUDINAL_SHARE = 0.95  # traction control and antilock brakes leave the rest to the side
STABILITY_RAD_S2 = 2.0  # one-sided brakes can turn a car so much
CALM_SLIP_MPS, CALM_TURN_RAD_S, CALM_SHARE = 0.15, 0.05, 0.85


@njit(cache=True, error_model="numpy")
def brush_force(slip: float, stiffness: float, limit: float) -> float:
    """Side force of a brush tyre, with the sign of the slip (tangent of the slip angle), at most `limit`."""
    if limit <= 0.0:
        return 0.0
    left = max(1.0 - stiffness * abs(slip) / (3.0 * limit), 0.0)
    return math.copysign(limit * (1.0 - left * left * left), slip)


@njit(cache=True, error_model="numpy")
def axle_force(
    along_mps: float, across_mps: float, push: float, grip: float, stiffness: float, locked: bool
) -> tuple[float, float]:
    """Force of an axle along and across its wheels, at the speed of its middle over the ground in their frame.

    Args:
        along_mps, across_mps: speed of the axle.
        push: what drive and brakes ask for, signed.
        grip: the most that the tyres can give.
        stiffness: side force at a small slip.
        locked: the wheels do not turn.
    """
    if grip <= 0.0:
        return 0.0, 0.0
    if locked:
        share = LOCKED_SHARE * grip / max(math.hypot(along_mps, across_mps), CREEP_MPS)
        return -share * along_mps, -share * across_mps
    most = LONGITUDINAL_SHARE * grip
    given = min(max(push, -most), most)
    left = math.sqrt(grip * grip - given * given)
    return given, -brush_force(across_mps / max(abs(along_mps), SLOW_MPS), stiffness, left)


@njit(cache=True, error_model="numpy")
def _stabilised(before: float, after: float, limit: float, dt_s: float) -> float:
    """Stability control: the tyres turn a car no faster than its path can bend; a spin is taken back slowly."""
    most = max(abs(before) - STABILITY_RAD_S2 * dt_s, limit)
    return min(max(after, -most), most)


@njit(cache=True, error_model="numpy")
def slide(
    actors: Actors, row: int, car: NDArray[np.float32], push: float, brake: float, locked: bool, drag: float,
    air: float, grip_front: float, grip_rear: float, dt_s: float,
) -> None:  # fmt: skip
    """Advance a slipping car by dt_s in the plane.

    Args:
        actors: the state.
        row: the vehicle; its speed, motion[LATERAL] and yaw_rate are those of the centre of mass.
        car: its physics row.
        push: drive, m/s2, signed.
        brake: all brakes, m/s2.
        locked: the hand brake holds the rear wheels.
        drag: rolling resistance, m/s2.
        air: drag over the square of the speed, 1/m.
        grip_front, grip_rear: of the axles, m/s2 at full load.
        dt_s: step.
    """
    motion = actors.motion[row]
    front, rear = float(car[TO_FRONT_M]), float(car[TO_REAR_M])
    base, ahead = front + rear, 0.5 * (rear - front)  # the centre of mass is so far ahead of the box's centre
    slope = -GRAVITY_MPS2 * math.sin(actors.rotation[row, 1])
    turning = car[MASS_KG] / car[YAW_INERTIA]
    wheel_c, wheel_s = math.cos(actors.steer_angle[row]), math.sin(actors.steer_angle[row])
    yaw, rate = actors.rotation[row, 2], actors.yaw_rate[row]
    c, s = math.cos(yaw), math.sin(yaw)
    x, y = actors.xyz[row, 0] + ahead * c, actors.xyz[row, 1] + ahead * s
    wx = c * actors.speed[row] - s * motion[LATERAL]
    wy = s * actors.speed[row] + c * motion[LATERAL]
    parts = max(math.ceil(dt_s / PART_S - 1e-9), 1)
    h = dt_s / parts
    ax = 0.0
    for _ in range(parts):
        if motion[TURNED] > 0.0:
            rate = float(motion[TURN_RATE])
        vx, vy = c * wx + s * wy, c * wy - s * wx
        load = min(max(rear / base - ax * car[COM_HEIGHT_M] / (GRAVITY_MPS2 * base), 0.1), 0.9)
        stop = min(brake, abs(vx + (push + slope) * h) / h)  # brakes hold, they never reverse
        wanted = push - math.copysign(stop, vx + (push + slope) * h)
        side = vy + front * rate
        fx, fy = axle_force(wheel_c * vx + wheel_s * side, wheel_c * side - wheel_s * vx, wanted * load,
                            grip_front * load, GRAVITY_MPS2 * car[STIFF_FRONT] * load, False)  # fmt: skip
        bx, by = axle_force(vx, vy - rear * rate, wanted * (1.0 - load), grip_rear * (1.0 - load),
                            GRAVITY_MPS2 * car[STIFF_REAR] * (1.0 - load), locked)  # fmt: skip
        turn_y = wheel_s * fx + wheel_c * fy
        ax, ay = wheel_c * fx - wheel_s * fy + bx + slope, turn_y + by
        wx, wy = wx + (c * ax - s * ay) * h, wy + (s * ax + c * ay) * h
        total = math.hypot(wx, wy)
        kept = max(1.0 - (drag + air * total * total) * h / total, 0.0) if total > 0.0 else 0.0
        wx, wy = wx * kept, wy * kept
        turned = rate + turning * (front * turn_y - rear * by) * h
        rate = turned if locked else _stabilised(rate, turned, grip_front / max(total, 1e-3), h)
        yaw += rate * h
        x, y = x + wx * h, y + wy * h
        c, s = math.cos(yaw), math.sin(yaw)
    actors.xyz[row, 0], actors.xyz[row, 1] = x - ahead * c, y - ahead * s
    actors.rotation[row, 2] = wrap_angle(yaw)
    _remember(actors, row, c, s, wx, wy, rate, ahead, dt_s)


@njit(cache=True, error_model="numpy")
def _remember(
    actors: Actors, row: int, c: float, s: float, wx: float, wy: float, rate: float, ahead: float, dt_s: float
) -> None:
    actors.speed[row], actors.motion[row, LATERAL] = c * wx + s * wy, c * wy - s * wx
    actors.yaw_rate[row] = rate
    vx, vy = wx + ahead * rate * s, wy - ahead * rate * c  # of the box's centre
    actors.acceleration[row, 0] = (vx - actors.velocity[row, 0]) / dt_s
    actors.acceleration[row, 1] = (vy - actors.velocity[row, 1]) / dt_s
    actors.velocity[row, 0], actors.velocity[row, 1] = vx, vy


@njit(cache=True, error_model="numpy")
def is_calm(actors: Actors, row: int, car: NDArray[np.float32], push: float, limit: float) -> bool:
    """Does the car roll again: its speeds are those of wheels that roll, and what is asked of the tyres is well below
    `limit` (m/s2)?"""
    speed = actors.speed[row]
    rate = speed * math.tan(actors.steer_angle[row]) / (car[TO_FRONT_M] + car[TO_REAR_M])
    across = car[TO_REAR_M] * rate
    return (
        abs(actors.motion[row, LATERAL] - across) < CALM_SLIP_MPS
        and abs(actors.yaw_rate[row] - rate) < CALM_TURN_RAD_S
        and math.hypot(push, rate * speed) <= CALM_SHARE * limit
    )


@njit(cache=True, error_model="numpy")
def begin_sliding(actors: Actors, row: int, car: NDArray[np.float32]) -> None:
    """From rolling to slipping: the rear axle has no side speed yet."""
    if actors.motion[row, SLIDING] == 0.0:
        actors.motion[row, SLIDING] = 1.0
        actors.motion[row, LATERAL] = car[TO_REAR_M] * actors.yaw_rate[row]
