"""VehicleTelemetryData and WheelTelemetryData, worked out from a vehicle's state when a client asks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server.episode import Episode
from drivesim.carla_server.physics_controls import vehicle_row
from drivesim.town.catalogue import MODELS
from drivesim.town.chassis import (
    AIR,
    CHANGED,
    COM_HEIGHT_M,
    MASS_KG,
    RADIUS_M,
    STIFF_FRONT,
    STIFF_REAR,
    TIRE_FRICTION,
    TO_FRONT_M,
    TO_REAR_M,
    ordinary_physics,
    physics_row,
)
from drivesim.town.drive_train import IDLE_RPM, automatic_gear, engine_rpm
from drivesim.town.motion import AIRBORNE, FRICTION, WEIGHTLESS
from drivesim.town.physics import DRAG_AIR_1PM, GEAR, GRAVITY_MPS2, HAND_BRAKE, MANUAL_GEAR, REVERSE

REAL_WHEELS = 4


def telemetry(episode: Episode, actor_id: int) -> list[Any]:
    """VehicleTelemetryData of a vehicle: speeds in m/s and rad/s, forces in N, slips in rad and as a ratio."""
    row = vehicle_row(episode, actor_id, "get telemetry data")
    state = episode.town.state
    model = MODELS[int(state.model[row])]
    car = state.physics[row] if state.physics[row, CHANGED] > 0.0 else physics_row(model, ordinary_physics(model))
    speed = float(state.speed[row])
    control = state.control[row]
    gear = _gear(control, car, speed)
    rpm = max(float(engine_rpm(car, max(abs(gear), 1), speed)), IDLE_RPM) if gear else IDLE_RPM
    drag_n = DRAG_AIR_1PM * float(car[AIR] * car[MASS_KG]) * speed * speed
    wheels = [wheel for front in (True, False) for wheel in _axle(episode, actor_id, row, car, front)]
    throttle, steer, brake = control[:3].tolist()
    return [speed, steer, throttle, brake, rpm, gear, drag_n, wheels]


def _gear(control: NDArray[np.float64], car: NDArray[np.float32], speed_mps: float) -> int:
    if control[MANUAL_GEAR] > 0.5:
        return int(control[GEAR])
    return -1 if control[REVERSE] > 0.5 else int(automatic_gear(car, speed_mps))


def _axle(episode: Episode, actor_id: int, row: int, car: NDArray[np.float32], front: bool) -> list[list[float]]:
    """The two wheels of an axle, alike: forces follow from the acceleration, loads from it and the weight."""
    state = episode.town.state
    yaw, rate, speed = (float(v) for v in (state.rotation[row, 2], state.yaw_rate[row], state.speed[row]))
    mass, base = float(car[MASS_KG]), float(car[TO_FRONT_M] + car[TO_REAR_M])
    c, s = math.cos(yaw), math.sin(yaw)
    ax, ay = (float(v) for v in state.acceleration[row, :2])
    along, across = c * ax + s * ay, c * ay - s * ax
    rest = float(car[TO_REAR_M] if front else car[TO_FRONT_M]) / base
    shift = along * float(car[COM_HEIGHT_M]) / (GRAVITY_MPS2 * base)
    share = min(max(rest - shift if front else rest + shift, 0.05), 0.95)
    flying = state.motion[row, AIRBORNE] > 0.0 or state.motion[row, WEIGHTLESS] > 0.0
    load = 0.0 if flying else 0.5 * mass * GRAVITY_MPS2 * share
    tyres = 0.0 if flying else 0.5 * mass
    push = along + GRAVITY_MPS2 * math.sin(float(state.rotation[row, 1])) + DRAG_AIR_1PM * float(car[AIR]) * speed**2
    lateral, longitudinal = tyres * across * rest, tyres * push * share
    stiffness = max(float(car[STIFF_FRONT] if front else car[STIFF_REAR]) * load, 1e-3)
    velocity = state.velocity[row]
    arm = 0.5 * base if front else -0.5 * base
    aside = float(c * velocity[1] - s * velocity[0]) + arm * rate
    steer = float(state.steer_angle[row]) if front else 0.0
    ahead = math.cos(steer) * speed + math.sin(steer) * aside
    slipping = math.atan2(math.cos(steer) * aside - math.sin(steer) * speed, max(abs(ahead), 1.0))
    slip = slipping if state.motion[row, 0] > 0.0 else -lateral / stiffness
    locked = not front and state.control[row, HAND_BRAKE] > 0.5 and abs(speed) > 0.1
    creep = -1.0 if locked else min(max(longitudinal / stiffness, -1.0), 1.0)
    radius = float(car[RADIUS_M])
    wheel = [
        _tire_friction(episode, actor_id, row, front), slip, creep, ahead / radius * (1.0 + creep), load,
        share / rest if load else 0.0, longitudinal * radius, longitudinal, lateral,
        longitudinal / load if load else 0.0, lateral / load if load else 0.0,
    ]  # fmt: skip
    return [wheel, list(wheel)]


def _tire_friction(episode: Episode, actor_id: int, row: int, front: bool) -> float:
    held = float(episode.town.state.motion[row, FRICTION])
    if held > 0.0:
        return held - 1.0
    given = episode.given_physics.get(actor_id)
    wheels = given[15] if given else []
    return float(wheels[0 if front else len(wheels) - 1][0]) if wheels else TIRE_FRICTION
