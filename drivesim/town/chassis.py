"""What a vehicle is made of: CARLA's VehiclePhysicsControl in SI units, and the row of numbers that the kernels take.

Everything is relative to the town's ordinary car: a control that says nothing but the defaults gives the
ordinary motion of drivesim.town.physics. So the torque curve and the gears scale the ordinary drive force,
brake torques the ordinary brakes, and tyre friction the weather's grip.
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.catalogue import MODELS, ActorModel

Curve = tuple[tuple[float, float], ...]

GEAR_PLACES, TORQUE_PLACES, STEERING_PLACES = 8, 12, 8
STEERING_STEP_KMH = 20.0
# columns of a physics row
(CHANGED, MASS_KG, YAW_INERTIA, TO_FRONT_M, TO_REAR_M, COM_HEIGHT_M, GRIP_FRONT, GRIP_REAR, STIFF_FRONT, STIFF_REAR,
 MAX_STEER_RAD, PUSH, BRAKE, HAND_BRAKE, AIR, ROLLING, TOP, RADIUS_M, MAX_RPM, FINAL_RATIO,
 GEARS, MOST_LONGITUDINAL) = range(22)  # fmt: skip
FIRST_GEAR = 22
FIRST_TORQUE = FIRST_GEAR + GEAR_PLACES
FIRST_STEERING = FIRST_TORQUE + TORQUE_PLACES
PHYSICS_COLUMNS = FIRST_STEERING + STEERING_PLACES

TIRE_FRICTION = 3.5  # CARLA's number for an ordinary tyre
FRICTION_SCALE = 0.7  # a tyre of friction 0.5 grips as PhysX says (about 0.5 g); rubber on a road gives little over 1 g
COM_HEIGHT = 0.5
GRAVITY_MPS2 = 9.81
REAR_GRIP = 1.08  # an ordinary car lets go at its front axle first


@dataclass(frozen=True)
class Wheel:
    """What the model uses of CARLA's WheelPhysicsControl."""

    tire_friction: float = TIRE_FRICTION
    max_steer_rad: float = math.radians(45.0)
    radius_m: float = 0.35
    max_brake_torque: float = 1500.0
    max_handbrake_torque: float = 0.0
    lateral_stiffness: float = 20.0  # side force at a small slip angle, per rad and per load
    longitudinal_stiffness: float = 3000.0  # kg: weight that the wheel holds at a slip of one


FRONT_WHEEL = Wheel()
REAR_WHEEL = Wheel(max_steer_rad=0.0, max_handbrake_torque=3000.0)


@dataclass(frozen=True)
class VehiclePhysics:
    """What the model uses of CARLA's VehiclePhysicsControl; curves are points with growing x."""

    mass_kg: float
    drag_coefficient: float = 0.3
    center_of_mass: tuple[float, float, float] = (0.0, 0.0, -0.1)  # m ahead, right, up of the ordinary place
    torque_curve: Curve = ((0.0, 400.0), (1890.0, 500.0), (5730.0, 400.0))  # rpm, N m
    max_rpm: float = 5800.0
    final_ratio: float = 4.0
    forward_gears: tuple[float, ...] = (4.0, 2.0, 1.5, 1.1, 1.0)
    steering_curve: Curve = ((0.0, 1.0), (120.0, 1.0))  # km/h, share of the steer
    wheels: tuple[Wheel, ...] = (FRONT_WHEEL, FRONT_WHEEL, REAR_WHEEL, REAR_WHEEL)  # front ones first


@njit(cache=True, error_model="numpy")
def friction_factor(tire_friction: float) -> float:
    """Grip of a tyre relative to the ordinary one: 0 at friction 0, 1 at CARLA's 3.5, saturating beyond."""
    whole = 1.0 - math.exp(-TIRE_FRICTION / FRICTION_SCALE)
    return (1.0 - math.exp(-max(tire_friction, 0.0) / FRICTION_SCALE)) / whole


def physics_row(model: ActorModel, physics: VehiclePhysics) -> NDArray[np.float32]:
    """The (PHYSICS_COLUMNS,) row of a vehicle; CHANGED is 0 where nothing differs from the model's own.

    Numbers out of any reason are brought back to the nearest that can be stepped.
    """
    row = _filled(model, physics)
    row[CHANGED] = float(not np.allclose(row[1:], _ordinary(model)[1:], rtol=1e-4, atol=1e-5))
    return row


@cache
def ordinary_physics(model: ActorModel) -> VehiclePhysics:
    """What a vehicle of the catalogue is made of before any script changes it."""
    return VehiclePhysics(mass_kg=model.mass_kg)


@cache
def _ordinary(model: ActorModel) -> NDArray[np.float32]:
    return _filled(model, ordinary_physics(model))


def ordinary_rows() -> NDArray[np.float32]:
    """The rows of all models of the catalogue (M, PHYSICS_COLUMNS), CHANGED 0; walkers and props have their mass."""
    return np.stack([_ordinary(model) for model in MODELS])


def _axles(wheels: tuple[Wheel, ...]) -> tuple[tuple[Wheel, ...], tuple[Wheel, ...]]:
    half = (len(wheels) + 1) // 2
    return wheels[:half] or (FRONT_WHEEL,), wheels[half:] or wheels[:half] or (REAR_WHEEL,)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _filled(model: ActorModel, physics: VehiclePhysics) -> NDArray[np.float32]:
    row = np.zeros(PHYSICS_COLUMNS, np.float32)
    mass = _within(physics.mass_kg, 1.0, 1e6)
    lighter = model.mass_kg / mass
    front, rear = _axles(physics.wheels)
    radius = _within(_mean([wheel.radius_m for wheel in rear]), 0.05, 5.0)
    base = max(model.wheelbase_m, 0.5)
    ahead = _within(physics.center_of_mass[0], -0.3 * base, 0.3 * base)
    row[MASS_KG], row[YAW_INERTIA] = mass, mass * (model.length_m**2 + model.width_m**2) / 12.0
    row[TO_FRONT_M], row[TO_REAR_M] = 0.5 * base - ahead, 0.5 * base + ahead
    row[COM_HEIGHT_M] = _within(COM_HEIGHT + 0.1 + physics.center_of_mass[2], 0.0, 2.0)
    row[GRIP_FRONT] = _mean([friction_factor(wheel.tire_friction) for wheel in front])
    row[GRIP_REAR] = REAR_GRIP * _mean([friction_factor(wheel.tire_friction) for wheel in rear])
    row[STIFF_FRONT] = _within(_mean([wheel.lateral_stiffness for wheel in front]), 0.1, 60.0)
    row[STIFF_REAR] = _within(_mean([wheel.lateral_stiffness for wheel in rear]), 0.1, 60.0)
    row[MAX_STEER_RAD] = _within(max(wheel.max_steer_rad for wheel in front), 0.0, 1.4)
    row[PUSH] = lighter
    stiff = [_within(wheel.longitudinal_stiffness, 0.0, 1e6) for wheel in (*front, *rear)]
    row[MOST_LONGITUDINAL] = GRAVITY_MPS2 * sum(stiff) / mass  # a wheel that spins or stands slips by one
    torque = _mean([_within(wheel.max_brake_torque, 0.0, 1e6) for wheel in (*front, *rear)])
    hand = _mean([_within(wheel.max_handbrake_torque, 0.0, 1e6) for wheel in rear])
    row[BRAKE] = lighter * torque / FRONT_WHEEL.max_brake_torque * FRONT_WHEEL.radius_m / radius
    row[HAND_BRAKE] = lighter * hand / REAR_WHEEL.max_handbrake_torque * REAR_WHEEL.radius_m / radius
    row[AIR] = _within(physics.drag_coefficient, 0.0, 100.0) / 0.3 * lighter
    row[ROLLING] = min(0.5 * (row[GRIP_FRONT] + row[GRIP_REAR] / REAR_GRIP), 1.0)
    _fill_drive_train(row, physics, radius)
    return row


def _fill_drive_train(row: NDArray[np.float32], physics: VehiclePhysics, radius_m: float) -> None:
    rpm = _within(physics.max_rpm, 100.0, 1e5)
    final = _within(physics.final_ratio, 0.01, 100.0)
    gears = [_within(ratio, 0.01, 100.0) for ratio in physics.forward_gears[:GEAR_PLACES] if ratio > 0.0] or [1.0]
    row[RADIUS_M], row[MAX_RPM], row[FINAL_RATIO], row[GEARS] = radius_m, rpm, final, len(gears)
    row[FIRST_GEAR : FIRST_GEAR + len(gears)] = gears
    row[TOP] = rpm * radius_m / (final * min(gears)) / (5800.0 * FRONT_WHEEL.radius_m / 4.0)
    at = np.linspace(0.0, rpm, TORQUE_PLACES)
    row[FIRST_TORQUE : FIRST_TORQUE + TORQUE_PLACES] = np.maximum(_sampled(physics.torque_curve, at, 0.0), 0.0)
    speeds = np.arange(STEERING_PLACES, dtype=np.float64) * STEERING_STEP_KMH
    shares = np.clip(_sampled(physics.steering_curve, speeds, 1.0), 0.0, 1.0)
    row[FIRST_STEERING : FIRST_STEERING + STEERING_PLACES] = shares


def _sampled(curve: Curve, at: NDArray[np.float64], empty: float) -> NDArray[np.float64]:
    points = sorted(curve)
    if not points:
        return np.full(len(at), empty)
    return np.interp(at, [x for x, _ in points], [y for _, y in points])
