"""What scripts do to a moving body: set its velocity, push it, turn it, hold its speed, switch its gravity.

Each function writes into a TownState, so that branches stay exact. Frame: CARLA's, world unless said; SI units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drivesim.town.catalogue import MODELS
from drivesim.town.chassis import (
    CHANGED,
    MASS_KG,
    TO_FRONT_M,
    TO_REAR_M,
    YAW_INERTIA,
    VehiclePhysics,
    physics_row,
)
from drivesim.town.contacts import SLIP_MPS
from drivesim.town.motion import (
    ACCELERATION_KD,
    AIRBORNE,
    HELD,
    HELD_X,
    HELD_Z,
    LATERAL,
    PEDAL,
    SLIDING,
    SPEED_KP,
    TRACK_AGE,
    TRACK_JERK,
    TRACK_STEER,
    TRACKING,
    TUNED,
    TURN_RATE,
    TURNED,
    WEIGHTLESS,
)
from drivesim.town.speed_control import DEFAULT_GAINS
from drivesim.town.state import KIND_VEHICLE, KIND_WALKER, POLICY_EXTERNAL, TownState

LIFT_MPS = 0.5  # a car that goes up faster leaves the ground
MOST_MPS = 500.0  # no push makes anything faster


def mass_kg(state: TownState, row: int) -> float:
    """Mass of an actor, as a script may have changed it."""
    if state.physics[row, CHANGED] > 0.0:
        return float(state.physics[row, MASS_KG])
    return MODELS[int(state.model[row])].mass_kg


def yaw_inertia(state: TownState, row: int) -> float:
    """Inertia of an actor about its upright axis, kg m2: a flat box of its mass."""
    if state.physics[row, CHANGED] > 0.0:
        return float(state.physics[row, YAW_INERTIA])
    half = state.half_size[row]
    return max(mass_kg(state, row) * float(half[0] ** 2 + half[1] ** 2) / 3.0, 1e-3)


def set_velocity(state: TownState, row: int, velocity: NDArray[np.float64]) -> None:
    """Set a velocity (3,), m/s: a car keeps what points along it, and slips where the rest is more than rolling."""
    total = float(np.linalg.norm(velocity))
    velocity = velocity * (MOST_MPS / total) if total > MOST_MPS else velocity
    c, s = math.cos(float(state.rotation[row, 2])), math.sin(float(state.rotation[row, 2]))
    along, across = float(c * velocity[0] + s * velocity[1]), float(c * velocity[1] - s * velocity[0])
    state.velocity[row] = velocity
    state.speed[row] = along
    if state.kind[row] == KIND_WALKER:
        return
    if state.kind[row] != KIND_VEHICLE:
        state.speed[row] = math.hypot(along, across)
        return
    if velocity[2] > LIFT_MPS:
        state.motion[row, AIRBORNE] = 1.0
    rolling = 0.5 * state.wheelbase[row] * state.yaw_rate[row]
    if state.motion[row, SLIDING] > 0.0 or abs(across - rolling) > SLIP_MPS:
        state.motion[row, SLIDING] = 1.0
        state.motion[row, LATERAL] = across + _ahead_m(state, row) * state.yaw_rate[row]


def _ahead_m(state: TownState, row: int) -> float:
    car = state.physics[row]
    return 0.5 * float(car[TO_REAR_M] - car[TO_FRONT_M]) if car[CHANGED] > 0.0 else 0.0


def add_impulse(
    state: TownState, row: int, impulse: Sequence[float], place: Sequence[float] | None = None
) -> None:  # fmt: skip
    """Change a momentum by an impulse (3,), N s, at a place in the world (the middle of the body if None).

    Nothing happens to what has no physics; a walker's legs hold it.
    """
    if state.policy[row] != POLICY_EXTERNAL:
        return
    push = np.asarray(impulse, np.float64)
    set_velocity(state, row, state.velocity[row] + push / mass_kg(state, row))
    if place is not None:
        arm = np.asarray(place, np.float64) - state.xyz[row]
        add_angular_impulse(state, row, float(arm[0] * push[1] - arm[1] * push[0]))


def add_angular_impulse(state: TownState, row: int, impulse: float) -> None:
    """Change the turn of a vehicle about its upright axis by an angular impulse, N m s; its tyres then resist."""
    if state.policy[row] != POLICY_EXTERNAL or state.kind[row] != KIND_VEHICLE:
        return
    _slip(state, row)
    change = impulse / yaw_inertia(state, row)
    state.yaw_rate[row] = min(max(float(state.yaw_rate[row]) + change, -50.0), 50.0)


def _slip(state: TownState, row: int) -> None:
    if state.motion[row, SLIDING] == 0.0:
        state.motion[row, SLIDING] = 1.0
        rear_m = 0.5 * float(state.wheelbase[row]) + _ahead_m(state, row)
        state.motion[row, LATERAL] = rear_m * state.yaw_rate[row]


def turn_for_a_step(state: TownState, row: int, rate_rad_s: float) -> None:
    """Make a vehicle turn at a rate through the coming step; afterwards its tyres have their say."""
    state.motion[row, TURNED], state.motion[row, TURN_RATE] = 1.0, min(max(rate_rad_s, -50.0), 50.0)


def hold_velocity(state: TownState, row: int, velocity: Sequence[float] | None) -> None:
    """Hold a velocity (3,) in the actor's own frame until None; pedals do nothing, steering turns it."""
    motion = state.motion[row]
    motion[HELD] = float(velocity is not None)
    if velocity is not None:
        motion[HELD_X : HELD_Z + 1] = np.clip(velocity, -MOST_MPS, MOST_MPS)


def set_gravity(state: TownState, row: int, enabled: bool) -> None:
    """Switch an actor's gravity; without it no tyre touches the road, and the vehicle goes straight on."""
    motion = state.motion[row]
    if enabled and motion[WEIGHTLESS] > 0.0:
        motion[AIRBORNE] = 1.0  # until it touches the ground
    motion[WEIGHTLESS] = float(not enabled)


def track(state: TownState, row: int, target: Sequence[float]) -> None:
    """Hand a vehicle to the Ackermann controller: steer (rad), its rate, speed (m/s), acceleration, jerk."""
    motion = state.motion[row]
    if motion[TRACKING] == 0.0:
        motion[TRACK_AGE : PEDAL + 1] = 0.0  # the controllers' memories
    motion[TRACKING] = 1.0
    motion[TRACK_STEER : TRACK_JERK + 1] = target


def stop_tracking(state: TownState, row: int) -> None:
    """Give a vehicle back to its pedals."""
    state.motion[row, TRACKING] = 0.0


def set_gains(state: TownState, row: int, gains: Sequence[float]) -> None:
    """The six gains of the Ackermann controller: speed kp, ki, kd, acceleration kp, ki, kd."""
    state.motion[row, TUNED] = 1.0
    state.motion[row, SPEED_KP : ACCELERATION_KD + 1] = gains


def gains_of(state: TownState, row: int) -> list[float]:
    """The six gains that a vehicle's Ackermann controller has."""
    if state.motion[row, TUNED] == 0.0:
        return list(DEFAULT_GAINS)
    gains: list[float] = state.motion[row, SPEED_KP : ACCELERATION_KD + 1].tolist()
    return gains


def set_physics(state: TownState, row: int, physics: VehiclePhysics) -> None:
    """Make a vehicle of something else; what equals its model's own is ordinary again."""
    made = physics_row(MODELS[int(state.model[row])], physics)
    state.physics[row] = made if made[CHANGED] > 0.0 else 0.0
