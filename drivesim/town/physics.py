"""Motion of actors that somebody steers from outside: a kinematic bicycle with limits, and walkers.

The rear axle rolls along the heading; the centre of the box rides half a wheelbase ahead of it. Grip
caps lateral acceleration, and what is left of it caps braking (a friction circle). Height and pitch
follow the road under both axles, and gravity pulls along the slope.
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math

import numpy as np
from numba import njit

from drivesim.town.arrays import Actors, Roads, locate, wrap_angle
from drivesim.town.state import (
    KIND_PROP,
    KIND_VEHICLE,
    KIND_WALKER,
    POLICY_EXTERNAL,
    POLICY_KINEMATIC,
    POLICY_PARKED,
)  # fmt: skip
from drivesim.town.weather import DEPOSITS, WETNESS

MAX_STEER_RAD = math.radians(45.0)  # steer = 1
STEER_RATE_RAD_S = 4.0
MAX_ACCELERATION_MPS2 = 4.5
MAX_SPEED_MPS = 55.0
MAX_REVERSE_MPS = 12.0
MAX_BRAKING_MPS2 = 8.0
HAND_BRAKING_MPS2 = 6.0
DRAG_ROLLING_MPS2, DRAG_AIR_1PM = 0.15, 0.003
GRAVITY_MPS2 = 9.81
WALKER_ACCELERATION_MPS2 = 8.0

THROTTLE, STEER, BRAKE, HAND_BRAKE, REVERSE, MANUAL_GEAR, GEAR = range(7)  # columns of TownState.control


@njit(cache=True, error_model="numpy")
def longitudinal(
    speed_mps: float, control: np.ndarray, slope_rad: float, braking_limit_mps2: float, dt_s: float
) -> float:
    """The new signed speed after dt_s under throttle, brakes, drag and gravity; brakes never reverse the motion."""
    backwards = control[REVERSE] > 0.5 or (control[MANUAL_GEAR] > 0.5 and control[GEAR] < 0.0)
    neutral = control[MANUAL_GEAR] > 0.5 and control[GEAR] == 0.0
    throttle = min(max(control[THROTTLE], 0.0), 1.0)
    sign = -1.0 if backwards else 1.0
    top = MAX_REVERSE_MPS if backwards else MAX_SPEED_MPS
    push = 0.0 if neutral else MAX_ACCELERATION_MPS2 * throttle * min(max(1.0 - sign * speed_mps / top, 0.0), 1.0)
    freely = speed_mps + (sign * push - GRAVITY_MPS2 * math.sin(slope_rad)) * dt_s
    brake = MAX_BRAKING_MPS2 * min(max(control[BRAKE], 0.0), 1.0)
    if control[HAND_BRAKE] > 0.5:
        brake = max(brake, HAND_BRAKING_MPS2)
    resistance = min(brake, braking_limit_mps2)
    # standing still with a free drive train still holds on any road slope, as an automatic gearbox does
    resistance += DRAG_ROLLING_MPS2 + DRAG_AIR_1PM * speed_mps * speed_mps
    if throttle == 0.0 and abs(speed_mps) < 0.3:
        resistance += 1.5
    loss = resistance * dt_s
    if abs(freely) <= loss:
        return 0.0
    return freely - math.copysign(loss, freely)


@njit(cache=True, error_model="numpy")
def grip_of(weather: np.ndarray) -> float:
    """Tyre grip in m/s2; equals drivesim.town.weather.grip."""
    water = max(weather[DEPOSITS], weather[WETNESS], 0.0) / 100.0
    return 8.3 - 2.1 * min(water, 1.0)


@njit(cache=True, error_model="numpy")
def step_vehicle(actors: Actors, row: int, grip_mps2: float, dt_s: float) -> None:
    """Advance one bicycle by dt_s in the plane; `settle` puts it on the ground afterwards."""
    base = max(actors.wheelbase[row], 0.5)
    wanted = min(max(actors.control[row, STEER], -1.0), 1.0) * MAX_STEER_RAD
    change = min(max(wanted - actors.steer_angle[row], -STEER_RATE_RAD_S * dt_s), STEER_RATE_RAD_S * dt_s)
    actors.steer_angle[row] += change
    speed = actors.speed[row]
    curvature = math.tan(actors.steer_angle[row]) / base
    sideways = min(abs(curvature) * speed * speed, grip_mps2)
    spare = math.sqrt(max(grip_mps2 * grip_mps2 - sideways * sideways, 0.0))
    new_speed = longitudinal(speed, actors.control[row], actors.rotation[row, 1], max(spare, 0.3 * grip_mps2), dt_s)
    mean = 0.5 * (speed + new_speed)
    limit = grip_mps2 / max(mean * mean, 1e-6)
    curvature = min(max(curvature, -limit), limit)  # beyond the grip the car runs wide
    yaw = actors.rotation[row, 2]
    turn = mean * curvature * dt_s
    rear_x = actors.xyz[row, 0] - 0.5 * base * math.cos(yaw) + mean * dt_s * math.cos(yaw + 0.5 * turn)
    rear_y = actors.xyz[row, 1] - 0.5 * base * math.sin(yaw) + mean * dt_s * math.sin(yaw + 0.5 * turn)
    yaw = wrap_angle(yaw + turn)
    rate = new_speed * curvature
    actors.xyz[row, 0] = rear_x + 0.5 * base * math.cos(yaw)
    actors.xyz[row, 1] = rear_y + 0.5 * base * math.sin(yaw)
    actors.rotation[row, 2] = yaw
    actors.yaw_rate[row] = rate
    actors.speed[row] = new_speed
    _set_motion(actors, row, new_speed * math.cos(yaw) - 0.5 * base * rate * math.sin(yaw),
                new_speed * math.sin(yaw) + 0.5 * base * rate * math.cos(yaw), dt_s)  # fmt: skip


@njit(cache=True, error_model="numpy")
def _set_motion(actors: Actors, row: int, vx: float, vy: float, dt_s: float) -> None:
    actors.acceleration[row, 0] = (vx - actors.velocity[row, 0]) / dt_s
    actors.acceleration[row, 1] = (vy - actors.velocity[row, 1]) / dt_s
    actors.velocity[row, 0] = vx
    actors.velocity[row, 1] = vy


@njit(cache=True, error_model="numpy")
def settle(roads: Roads, actors: Actors, row: int, dt_s: float) -> None:
    """Put a vehicle on the road below it (z, pitch) and note its lane; an unknown ground leaves it level."""
    x, y, z = actors.xyz[row, 0], actors.xyz[row, 1], actors.xyz[row, 2]
    yaw = actors.rotation[row, 2]
    lane, s, offset, _ = locate(roads, x, y, z, yaw)
    actors.lane[row], actors.lane_s[row], actors.lane_offset[row] = lane, s, offset
    reach = 0.5 * max(actors.wheelbase[row], 0.5)
    dx, dy = reach * math.cos(yaw), reach * math.sin(yaw)
    front = locate(roads, x + dx, y + dy, z, yaw)[3]
    rear = locate(roads, x - dx, y - dy, z, yaw)[3]
    height = 0.5 * (front + rear)
    limit = 6.0 * dt_s  # a car falls or climbs at most this fast, so that odd road data cannot throw it
    new_z = z + min(max(height - z, -limit), limit)
    actors.velocity[row, 2] = (new_z - z) / dt_s
    actors.xyz[row, 2] = new_z
    pitch = math.atan2(front - rear, 2.0 * reach)
    actors.rotation[row, 1] += min(max(pitch - actors.rotation[row, 1], -0.5 * dt_s), 0.5 * dt_s)
    actors.rotation[row, 0] *= max(1.0 - 2.0 * dt_s, 0.0)


@njit(cache=True, error_model="numpy")
def step_walker(roads: Roads, actors: Actors, row: int, dt_s: float) -> None:
    """A steered walker goes direction * speed and faces where it goes."""
    dx, dy = actors.walker_control[row, 0], actors.walker_control[row, 1]
    norm = math.hypot(dx, dy)
    speed = max(actors.walker_control[row, 3], 0.0)
    vx = dx / norm * speed if norm > 1e-6 else 0.0
    vy = dy / norm * speed if norm > 1e-6 else 0.0
    if norm > 1e-6:
        actors.rotation[row, 2] = math.atan2(dy, dx)
    actors.speed[row] = math.hypot(vx, vy)
    _set_motion(actors, row, vx, vy, dt_s)
    actors.xyz[row, 0] += vx * dt_s
    actors.xyz[row, 1] += vy * dt_s
    if actors.speed[row] > 0.0:
        lane, _, _, ground = locate(roads, actors.xyz[row, 0], actors.xyz[row, 1], actors.xyz[row, 2], math.nan)
        if lane >= 0 and abs(ground - actors.xyz[row, 2]) < 2.0:
            step = 2.0 * dt_s
            actors.xyz[row, 2] += min(max(ground - actors.xyz[row, 2], -step), step)


@njit(cache=True, error_model="numpy", nogil=True)
def step_external(roads: Roads, actors: Actors, dt_s: float) -> None:
    """Advance every actor that is steered from outside, and note the lanes of all that only stand or are carried."""
    grip = grip_of(actors.weather)
    for row in range(len(actors.kind)):
        kind, policy = actors.kind[row], actors.policy[row]
        if kind == KIND_VEHICLE and policy == POLICY_EXTERNAL:
            step_vehicle(actors, row, grip, dt_s)
            settle(roads, actors, row, dt_s)
            actors.control[row, GEAR] = _reported_gear(actors.control[row])
        elif kind == KIND_WALKER and policy == POLICY_EXTERNAL:
            step_walker(roads, actors, row, dt_s)
        elif kind == KIND_VEHICLE and policy == POLICY_KINEMATIC:
            pose = actors.xyz[row]
            lane, s, offset, _ = locate(roads, pose[0], pose[1], pose[2], actors.rotation[row, 2])
            actors.lane[row], actors.lane_s[row], actors.lane_offset[row] = lane, s, offset
        elif kind == KIND_PROP or policy == POLICY_PARKED:
            actors.speed[row] = 0.0
            actors.velocity[row] = 0.0
            actors.acceleration[row] = 0.0


@njit(cache=True, error_model="numpy")
def _reported_gear(control: np.ndarray) -> float:
    if control[MANUAL_GEAR] > 0.5:
        return control[GEAR]
    return -1.0 if control[REVERSE] > 0.5 else 1.0
