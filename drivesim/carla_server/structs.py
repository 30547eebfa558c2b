"""The structs of the wire: msgpack arrays of fields in fixed order, read leniently and written exactly.

A missing trailing field keeps its default and an extra one is ignored, as CARLA's own decoder does.
Every reader raises ValueError or TypeError on a wrong type or a number that is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]
MAP_LIMIT_M = 1.0e6
WEATHER_FIELDS = (
    "cloudiness", "precipitation", "precipitation_deposits", "wind_intensity", "sun_azimuth_angle",
    "sun_altitude_angle", "fog_density", "fog_distance", "fog_falloff", "wetness", "scattering_intensity",
    "mie_scattering_scale", "rayleigh_scattering_scale", "dust_storm",
)  # fmt: skip
DEFAULT_WEATHER = (0.0, 0.0, 0.0, 0.0, 45.0, 45.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 0.0331, 0.0)


def number(value: Any) -> float:
    """A finite number."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def numbers(value: Any, defaults: Sequence[float]) -> list[float]:
    """Finite numbers, as many as there are defaults; missing trailing ones take theirs."""
    if not isinstance(value, list):
        raise TypeError(f"expected an array of {len(defaults)} numbers")
    given = [number(item) for item in value[: len(defaults)]]
    return given + list(defaults[len(given) :])


def vector(value: Any) -> Vector:
    """A Vector3D."""
    x, y, z = numbers(value, (0.0, 0.0, 0.0))
    return x, y, z


def location(value: Any) -> Vector:
    """A Location within a thousand kilometres of the origin."""
    x, y, z = vector(value)
    if max(abs(x), abs(y), abs(z)) > MAP_LIMIT_M:
        raise ValueError(f"location ({x:g}, {y:g}, {z:g}) is outside of any map")
    return x, y, z


def transform(value: Any) -> tuple[Vector, Vector]:
    """A Transform: location in metres, and roll, pitch, yaw in radians."""
    if not isinstance(value, list):
        raise TypeError("expected a transform")
    xyz = location(value[0]) if value else (0.0, 0.0, 0.0)
    pitch, yaw, roll = numbers(value[1], (0.0, 0.0, 0.0)) if len(value) > 1 else (0.0, 0.0, 0.0)
    return xyz, (math.radians(roll), math.radians(pitch), math.radians(yaw))


def transform_to_wire(
    xyz: Sequence[float] | NDArray[np.float64], rotation_rad: Sequence[float] | NDArray[np.float64]
) -> list[list[float]]:
    """A Transform from metres and roll, pitch, yaw in radians."""
    roll, pitch, yaw = (math.degrees(float(angle)) for angle in rotation_rad)
    return [[float(v) for v in xyz], [pitch, yaw, roll]]


def box_to_wire(centre: Sequence[float], extent: Sequence[float], actor_id: int = 0, yaw_deg: float = 0.0) -> list[Any]:
    """A BoundingBox; `extent` is half sizes in metres."""
    return [[float(v) for v in centre], [float(v) for v in extent], [0.0, yaw_deg, 0.0], actor_id]


def flag(value: Any) -> bool:
    """A bool."""
    if not isinstance(value, (bool, int)):
        raise TypeError(f"{value!r} is not a bool")
    return bool(value)


def identifier(value: Any, bits: int = 32) -> int:
    """An unsigned integer of so many bits."""
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise ValueError(f"{value!r} is not an unsigned number of {bits} bits")
    return value


def text(value: Any, limit: int = 1 << 16) -> str:
    """A string of bounded length."""
    if not isinstance(value, str) or len(value) > limit:
        raise TypeError(f"expected a text of at most {limit} characters")
    return value


def vehicle_control(value: Any) -> list[float]:
    """VehicleControl as 7 numbers: throttle, steer, brake, hand_brake, reverse, manual_gear_shift, gear."""
    throttle, steer, brake, hand, reverse, manual, gear = numbers(value, (0.0,) * 7)
    return [
        min(max(throttle, 0.0), 1.0), min(max(steer, -1.0), 1.0), min(max(brake, 0.0), 1.0),
        float(hand > 0.0), float(reverse > 0.0), float(manual > 0.0), float(int(min(max(gear, -1.0), 12.0))),
    ]  # fmt: skip


def walker_control(value: Any) -> list[float]:
    """WalkerControl as 5 numbers: direction x y z, speed in m/s, jump."""
    if not isinstance(value, list):
        raise TypeError("expected a walker control")
    direction = vector(value[0]) if value else (1.0, 0.0, 0.0)
    speed_mps, jump = numbers(value[1:3], (0.0, 0.0))
    return [*direction, min(max(speed_mps, 0.0), 50.0), float(jump > 0.0)]


def weather(value: Any) -> NDArray[np.float64]:
    """WeatherParameters, (14,)."""
    return np.array(numbers(value, DEFAULT_WEATHER))


@dataclass(frozen=True)
class EpisodeSettings:
    """carla.WorldSettings, in the wire's order."""

    synchronous_mode: bool = False
    no_rendering_mode: bool = False
    fixed_delta_s: float | None = None
    substepping: bool = True
    max_substep_delta_s: float = 0.01
    max_substeps: int = 10
    max_culling_distance_m: float = 0.0
    deterministic_ragdolls: bool = True
    tile_stream_distance_m: float = 3000.0
    actor_active_distance_m: float = 2000.0
    spectator_as_ego: bool = True

    @staticmethod
    def from_wire(value: Any) -> EpisodeSettings:
        """Read what the client sends.

        Raises:
            ValueError: the fixed step is negative or longer than ten seconds.
        """
        if not isinstance(value, list):
            raise TypeError("expected episode settings")
        fields: list[Any] = [*value[:11]]
        delta = fields[2] if len(fields) > 2 else [False]
        fixed_delta_s = number(delta[1]) if delta[0] else None
        if fixed_delta_s is not None and not 0.0 <= fixed_delta_s <= 10.0:
            raise ValueError(f"fixed_delta_seconds {fixed_delta_s:g} is not within 0 to 10")
        fields[2:3] = [fixed_delta_s or None]
        settings = replace(EpisodeSettings(), **dict(zip(EpisodeSettings.__dataclass_fields__, fields, strict=False)))
        for name in ("synchronous_mode", "no_rendering_mode"):
            flag(getattr(settings, name))
        return settings

    def to_wire(self) -> list[Any]:
        """The msgpack array."""
        fields = list(astuple(self))
        fields[2] = [False] if self.fixed_delta_s is None else [True, self.fixed_delta_s]
        return fields


@dataclass(frozen=True)
class ActorDescription:
    """What a client asks to spawn: a blueprint and the values of its attributes."""

    uid: int
    type_id: str
    attributes: tuple[tuple[str, int, str], ...]  # id, type, value

    @staticmethod
    def from_wire(value: Any) -> ActorDescription:
        """Read what the client sends."""
        uid, type_id, attributes = value[:3]
        read = tuple((text(a[0]), identifier(a[1], 8), text(a[2])) for a in attributes[:256])
        return ActorDescription(identifier(uid), text(type_id), read)

    def to_wire(self) -> list[Any]:
        """The msgpack array."""
        return [self.uid, self.type_id, [list(attribute) for attribute in self.attributes]]

    def values(self) -> dict[str, str]:
        """Attribute id to its value."""
        return {name: value for name, _, value in self.attributes}
