"""CARLA's VehiclePhysicsControl on the wire: defaults from the catalogue, and what a script's numbers make of a car."""

from __future__ import annotations

import math
from typing import Any

from drivesim.carla_server.episode import Episode
from drivesim.carla_server.rpc import Refusal
from drivesim.carla_server.structs import flag, number, numbers, vector
from drivesim.town import pushes
from drivesim.town.catalogue import MODELS
from drivesim.town.chassis import VehiclePhysics, Wheel, ordinary_physics
from drivesim.town.motion import FRICTION
from drivesim.town.state import KIND_VEHICLE

FIELDS = 17
(TORQUE_CURVE, MAX_RPM, _MOI, _D1, _D2, _D3, _AUTOBOX, _SWITCH, _CLUTCH, FINAL_RATIO, GEARS, MASS, DRAG,
 CENTER_OF_MASS, STEERING_CURVE, WHEELS, _SWEEP) = range(FIELDS)  # fmt: skip
MOST_POINTS = 64
_WHEEL_DEFAULTS = (3.5, 0.25, 45.0, 35.0, 1500.0, 0.0, 3.0, 20.0, 3000.0)
_SHIFT_DOWN, _SHIFT_UP = 0.5, 0.65


class PhysicsControls:
    """What clients have set reads back as it was set; the motion follows it by way of the town's state."""

    def set(self, episode: Episode, actor_id: int, control: Any) -> None:
        """Take a VehiclePhysicsControl.

        Raises:
            Refusal: no such vehicle.
            TypeError, ValueError: not a VehiclePhysicsControl of finite numbers.
        """
        row = vehicle_row(episode, actor_id, "apply physics control")
        checked = _checked(control)
        pushes.set_physics(episode.town.state, row, physics_from_wire(checked))
        episode.given_physics[actor_id] = checked

    def get(self, episode: Episode, actor_id: int) -> list[Any]:
        """The VehiclePhysicsControl of a vehicle; in a friction volume, with the tyre friction that it has there."""
        row = vehicle_row(episode, actor_id, "get physics control")
        control = list(episode.given_physics.get(actor_id) or _default(episode, row))
        held = float(episode.town.state.motion[row, FRICTION])
        if held > 0.0:
            control[WHEELS] = [[held - 1.0, *wheel[1:]] for wheel in control[WHEELS]]
        return control


def vehicle_row(episode: Episode, actor_id: int, doing: str) -> int:
    """The town's row of a vehicle.

    Raises:
        Refusal: no such actor, or it is no vehicle.
    """
    row = episode.row(actor_id, doing)
    if int(episode.town.state.kind[row]) != KIND_VEHICLE:
        raise Refusal(f"unable to {doing}: the actor is not a vehicle")
    return row


def _points(value: Any, width: int) -> list[list[float]]:
    if not isinstance(value, list) or len(value) > MOST_POINTS:
        raise TypeError(f"expected an array of at most {MOST_POINTS} points")
    return [numbers(point, (0.0,) * width) for point in value]


def _checked(control: Any) -> list[Any]:
    """The same VehiclePhysicsControl with nothing in it but what the wire has there."""
    if not isinstance(control, list) or len(control) < FIELDS:
        raise TypeError(f"expected a VehiclePhysicsControl of {FIELDS} fields")
    wheels = control[WHEELS]
    if not isinstance(wheels, list) or len(wheels) > MOST_POINTS or not all(isinstance(w, list) for w in wheels):
        raise TypeError("expected an array of WheelPhysicsControl")
    curves = {TORQUE_CURVE: 2, GEARS: 3, STEERING_CURVE: 2}
    flags = (_AUTOBOX, _SWEEP)
    checked: list[Any] = []
    for place, value in enumerate(control[:FIELDS]):
        if place in curves:
            checked.append(_points(value, curves[place]))
        elif place == CENTER_OF_MASS:
            checked.append(list(vector(value)))
        elif place == WHEELS:
            places = [list(vector(wheel[9])) if len(wheel) > 9 else [0.0] * 3 for wheel in wheels]
            numbered = [numbers(wheel[:9], _WHEEL_DEFAULTS) for wheel in wheels]
            checked.append([[*wheel, at] for wheel, at in zip(numbered, places, strict=True)])
        else:
            checked.append(flag(value) if place in flags else number(value))
    return checked


def _wheel(value: Any) -> Wheel:
    friction, _, steer_deg, radius_cm, brake, hand_brake, _, side, ahead = numbers(value[:9], _WHEEL_DEFAULTS)
    return Wheel(friction, math.radians(steer_deg), radius_cm / 100.0, brake, hand_brake, side, ahead)


def physics_from_wire(control: list[Any]) -> VehiclePhysics:
    """What the town's model uses of a checked VehiclePhysicsControl."""
    return VehiclePhysics(
        mass_kg=control[MASS],
        drag_coefficient=control[DRAG],
        center_of_mass=tuple(control[CENTER_OF_MASS]),
        torque_curve=tuple((x, y) for x, y in control[TORQUE_CURVE]),
        max_rpm=control[MAX_RPM],
        final_ratio=control[FINAL_RATIO],
        forward_gears=tuple(gear[0] for gear in control[GEARS]),
        steering_curve=tuple((x, y) for x, y in control[STEERING_CURVE]),
        wheels=tuple(_wheel(wheel) for wheel in control[WHEELS]) or ordinary_physics(MODELS[0]).wheels,
    )


def _wheels(episode: Episode, row: int, physics: VehiclePhysics) -> list[Any]:
    """Four WheelPhysicsControl, also of two-wheelers, as CARLA has them; radius and world position in centimetres."""
    state = episode.town.state
    model = MODELS[int(state.model[row])]
    ahead_m, half_width_m = model.wheelbase_m / 2.0, 0.8 * model.width_m / 2.0
    x, y, z = state.xyz[row].tolist()
    cosine, sine = math.cos(float(state.rotation[row, 2])), math.sin(float(state.rotation[row, 2]))
    corners = [(ahead, aside) for ahead in (ahead_m, -ahead_m) for aside in (-half_width_m, half_width_m)]
    made = []
    for wheel, (ahead, aside) in zip(physics.wheels, corners, strict=True):
        place = [100.0 * (x + ahead * cosine - aside * sine), 100.0 * (y + ahead * sine + aside * cosine),
                 100.0 * (z + wheel.radius_m)]  # fmt: skip
        made.append([
            wheel.tire_friction, _WHEEL_DEFAULTS[1], math.degrees(wheel.max_steer_rad), 100.0 * wheel.radius_m,
            wheel.max_brake_torque, wheel.max_handbrake_torque, _WHEEL_DEFAULTS[6], wheel.lateral_stiffness,
            wheel.longitudinal_stiffness, place,
        ])  # fmt: skip
    return made


def _default(episode: Episode, row: int) -> list[Any]:
    physics = ordinary_physics(MODELS[int(episode.town.state.model[row])])
    return [
        [list(point) for point in physics.torque_curve], physics.max_rpm, 1.0, 0.15, 2.0, 0.35, True, 0.5, 10.0,
        physics.final_ratio, [[ratio, _SHIFT_DOWN, _SHIFT_UP] for ratio in physics.forward_gears], physics.mass_kg,
        physics.drag_coefficient, list(physics.center_of_mass), [list(point) for point in physics.steering_curve],
        _wheels(episode, row, physics), True,
    ]  # fmt: skip
