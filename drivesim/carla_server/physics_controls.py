"""CARLA's VehiclePhysicsControl, telemetry and Ackermann settings of the vehicles: defaults from the catalogue."""

from __future__ import annotations

import math
from typing import Any

from drivesim.carla_server.episode import Episode
from drivesim.carla_server.rpc import Refusal
from drivesim.carla_server.structs import numbers
from drivesim.town.catalogue import MODELS

WHEEL_RADIUS_M = 0.35
DEFAULT_ACKERMANN = (0.15, 0.0, 0.25, 0.01, 0.0, 0.01)
_GEARS = ((4.0, 0.5, 0.65), (2.0, 0.5, 0.65), (1.5, 0.5, 0.65), (1.1, 0.5, 0.65), (1.0, 0.5, 0.65))


class PhysicsControls:
    """What clients have set; the rest follows from each vehicle's model."""

    def __init__(self) -> None:
        self._given: dict[int, list[Any]] = {}
        self._ackermann: dict[int, list[float]] = {}

    def set(self, actor_id: int, control: Any) -> None:
        """Keep a VehiclePhysicsControl, so that it reads back as it was set."""
        if not isinstance(control, list) or len(control) < 17:
            raise TypeError("expected a VehiclePhysicsControl of 17 fields")
        self._given[actor_id] = control[:17]

    def get(self, episode: Episode, actor_id: int) -> list[Any]:
        """The VehiclePhysicsControl of a vehicle."""
        row = _vehicle_row(episode, actor_id, "get physics control")
        return self._given[actor_id] if actor_id in self._given else _default(episode, row)

    def set_ackermann(self, actor_id: int, settings: Any) -> None:
        """Keep AckermannControllerSettings."""
        self._ackermann[actor_id] = numbers(settings, DEFAULT_ACKERMANN)

    def get_ackermann(self, actor_id: int) -> list[float]:
        """The AckermannControllerSettings of a vehicle."""
        return self._ackermann.get(actor_id, list(DEFAULT_ACKERMANN))


def _vehicle_row(episode: Episode, actor_id: int, doing: str) -> int:
    row = episode.row(actor_id, doing)
    if not MODELS[int(episode.town.state.model[row])].blueprint.startswith("vehicle."):
        raise Refusal(f"unable to {doing}: the actor is not a vehicle")
    return row


def _wheels(episode: Episode, row: int) -> list[Any]:
    """One WheelPhysicsControl for each wheel; radius and position in centimetres, positions in the world."""
    state = episode.town.state
    model = MODELS[int(state.model[row])]
    base_m, half_width_m = model.wheelbase_m / 2.0, 0.8 * model.width_m / 2.0
    sides = (-half_width_m, half_width_m) if model.wheels == 4 else (0.0,)
    x, y, z = state.xyz[row].tolist()
    cosine, sine = math.cos(float(state.rotation[row, 2])), math.sin(float(state.rotation[row, 2]))
    wheels = []
    for ahead in (base_m, -base_m):
        for aside in sides:
            place = [100.0 * (x + ahead * cosine - aside * sine), 100.0 * (y + ahead * sine + aside * cosine),
                     100.0 * (z + WHEEL_RADIUS_M)]  # fmt: skip
            steer_deg, hand_brake = (45.0, 0.0) if ahead > 0.0 else (0.0, 3000.0)
            wheels.append([3.5, 0.25, steer_deg, 100.0 * WHEEL_RADIUS_M, 1500.0, hand_brake, 3.0, 20.0, 3000.0, place])
    return wheels


def _default(episode: Episode, row: int) -> list[Any]:
    model = MODELS[int(episode.town.state.model[row])]
    return [
        [[0.0, 400.0], [1890.0, 500.0], [5730.0, 400.0]], 5800.0, 1.0, 0.15, 2.0, 0.35, True, 0.5, 10.0, 4.0,
        [list(gear) for gear in _GEARS], model.mass_kg, 0.3, [0.0, 0.0, -0.1],
        [[0.0, 1.0], [20.0, 0.9], [60.0, 0.8], [120.0, 0.7]], _wheels(episode, row), True,
    ]  # fmt: skip


def telemetry(episode: Episode, actor_id: int) -> list[Any]:
    """VehicleTelemetryData of a vehicle: what a bicycle model without slip has to say."""
    row = _vehicle_row(episode, actor_id, "get telemetry data")
    state = episode.town.state
    model = MODELS[int(state.model[row])]
    speed_mps = float(state.speed[row])
    throttle, steer, brake, *_, gear = state.control[row].tolist()
    load_n = model.mass_kg * 9.81 / max(model.wheels, 1)
    wheel = [3.5, 0.0, 0.0, speed_mps / WHEEL_RADIUS_M, load_n, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    rpm = 800.0 + 5000.0 * min(abs(speed_mps) / 55.0 * 4.0 % 1.0, 1.0) if throttle > 0.0 or speed_mps else 800.0
    return [speed_mps, steer, throttle, brake, rpm, int(gear), 0.3, [list(wheel) for _ in range(model.wheels)]]
