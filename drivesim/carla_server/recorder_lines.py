"""The records of a recorder log as lines of text, as CARLA 0.9.15's server words them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from drivesim.carla_server import recorder_file as log

GEAR_SWITCH_S = 0.5  # a log does not hold it; CARLA prints its default
_LAMPS = (
    (1, "Position"), (2, "LowBeam"), (4, "HighBeam"), (8, "Brake"), (16, "RightBlinker"), (32, "LeftBlinker"),
    (64, "Reverse"), (256, "Interior"), (128, "Fog"), (512, "Special1"), (1024, "Special2"),
)  # fmt: skip
_DOORS = ("Front Left", "Front Right", "Rear Left", "Rear Right", "Hood", "Trunk", "All")
_WEATHER = (
    "Cloudiness", "Precipitation", "PrecipitationDeposits", "WindIntensity", "SunAzimuthAngle", "SunAltitudeAngle",
    "FogDensity", "FogDistance", "FogFalloff", "Wetness", "ScatteringIntensity", "MieScatteringScale",
    "RayleighScatteringScale", "DustStorm",
)  # fmt: skip


def num(value: float) -> str:
    """A number as C++ streams print it."""
    if value != value:
        return "-nan" if math.copysign(1.0, value) < 0.0 else "nan"
    return f"{value:g}"


def _place(values: Iterable[float]) -> str:
    return "(" + ", ".join(map(num, values)) + ")"


Lines = list[str]


def _created(payload: memoryview) -> Lines:
    lines = []
    for made in log.creations(payload):
        lines.append(f" Create {made.actor_id}: {made.type_id} ({made.kind}) at {_place(made.location_cm)}\n")
        lines += [f"  {name} = {value}\n" for _, name, value in made.attributes]
    return lines


def _destroyed(payload: memoryview) -> Lines:
    return [f" Destroy {actor_id}\n" for (actor_id,) in log.records(payload, log.DESTROYED).tolist()]


def _parented(payload: memoryview) -> Lines:
    rows = log.records(payload, log.PARENTED).tolist()
    return [f" Parenting {child} with {parent} (parent)\n" for child, parent in rows]


def _collided(payload: memoryview) -> Lines:
    rows = log.records(payload, log.COLLISION).tolist()
    return [f" Collision id {number} between {first}{' (hero) ' if hero1 else ''} with "
            f"{second}{' (hero) ' if hero2 else ''}\n" for number, first, second, hero1, hero2 in rows]  # fmt: skip


def _positions(payload: memoryview) -> Lines:
    rows = log.records(payload, log.POSITION).tolist()
    return [f" Positions: {len(rows)}\n"] + [
        f"  Id: {actor_id} Location: {_place(location)} Rotation: {_place(rotation)}\n"
        for actor_id, location, rotation in rows
    ]


def _light_states(payload: memoryview) -> Lines:
    rows = log.records(payload, log.LIGHT_STATE).tolist()
    return [f" State traffic lights: {len(rows)}\n"] + [
        f"  Id: {light} state: {chr(0x30 + state % 64)} frozen: {int(frozen > 0)} elapsedTime: {num(elapsed)}\n"
        for light, frozen, elapsed, state in rows
    ]


def _vehicles(payload: memoryview) -> Lines:
    rows = log.records(payload, log.VEHICLE).tolist()
    return [f" Vehicle animations: {len(rows)}\n"] + [
        f"  Id: {actor_id} Steering: {num(steer)} Throttle: {num(throttle)} Brake: {num(brake)} "
        f"Handbrake: {int(hand > 0)} Gear: {gear}\n"
        for actor_id, steer, throttle, brake, hand, gear in rows
    ]


def _walkers(payload: memoryview) -> Lines:
    rows = log.records(payload, log.WALKER).tolist()
    return [
        f" Walker animations: {len(rows)}\n",
        *(f"  Id: {one} speed: {num(speed)}\n" for one, speed in rows),
    ]


def doors(payload: memoryview) -> Lines:
    """The lines of a VehicleDoor packet."""
    rows = log.records(payload, log.DOORS).tolist()
    lines = [f" Vehicle door animations: {len(rows)}\n"]
    for actor_id, door, _ in rows:
        name = f" {_DOORS[door]} \n" if door < len(_DOORS) else ""
        lines.append(f"  Id: {actor_id}\n  Doors opened: {name}")
    return lines


def _lamps(payload: memoryview) -> Lines:
    rows = log.records(payload, log.LAMPS).tolist()
    return [f" Vehicle light animations: {len(rows)}\n"] + [
        f"  Id: {actor_id} {' '.join(name for bit, name in _LAMPS if flags & bit) or 'None'}\n"
        for actor_id, flags in rows
    ]


def _street_lamps(payload: memoryview) -> Lines:
    rows = log.records(payload, log.STREET_LAMP).tolist()
    return [f" Scene light changes: {len(rows)}\n"] + [
        f"  Id: {lamp} enabled: {bool(on)} intensity: {num(intensity)} RGB_color: {_place(color[:3])}\n"
        for lamp, intensity, color, on, _ in rows
    ]


def _kinematics(payload: memoryview) -> Lines:
    rows = log.records(payload, log.KINEMATICS).tolist()
    return [f" Dynamic actors: {len(rows)}\n"] + [
        f"  Id: {actor_id} linear_velocity: {_place(linear)} angular_velocity: {_place(angular)}\n"
        for actor_id, linear, angular in rows
    ]


def _boxes(title: str) -> Callable[[memoryview], Lines]:
    def describe(payload: memoryview) -> Lines:
        rows = log.records(payload, log.BOX).tolist()
        return [f" {title}: {len(rows)}\n"] + [
            f"  Id: {actor_id} origin: {_place(origin)} extension: {_place(extent)}\n"
            for actor_id, origin, extent in rows
        ]

    return describe


def _platform_time(payload: memoryview) -> Lines:
    return [f" Current platform time: {num(log.value_s(payload))}\n"]


def _light_times(payload: memoryview) -> Lines:
    rows = log.records(payload, log.LIGHT_TIMES).tolist()
    return [f" Traffic Light time events: {len(rows)}\n"] + [
        f"  Id: {light} green_time: {num(green)} yellow_time: {num(yellow)} red_time: {num(red)}\n"
        for light, green, yellow, red in rows
    ]


def _physics(payload: memoryview) -> Lines:
    found = log.physics(payload)
    lines = [f" Physics Control events: {len(found)}\n"]
    for plain, (torque, gears, steering, wheels) in found:
        actor_id, rpm, moi, full, engaged, free, automatic, clutch, final, mass, drag, *centre = plain
        values = {
            "max_rpm": num(rpm), "MOI": num(moi), "damping_rate_full_throttle": num(full),
            "damping_rate_zero_throttle_clutch_engaged": num(engaged),
            "damping_rate_zero_throttle_clutch_disengaged": num(free),
            "use_gear_auto_box": "true" if automatic else "false", "gear_switch_time": num(GEAR_SWITCH_S),
            "clutch_strength": num(clutch), "final_ratio": num(final), "mass": num(mass), "drag_coefficient": num(drag),
            "center_of_mass": _place(centre),
        }  # fmt: skip
        lines.append(f"  Id: {actor_id}\n" + "".join(f"   {name} = {value}\n" for name, value in values.items()))
        for name, curve in (("torque_curve", torque), ("steering_curve", steering)):
            lines.append(f"   {name} =" + "".join(" " + _place(point) for point in curve.tolist()) + "\n")
        lines.append("   forward_gears:\n")
        lines += [f"    gear {k}: ratio {num(ratio)} down_ratio {num(down)} up_ratio {num(up)}\n"
                  for k, (ratio, down, up) in enumerate(gears.tolist())]  # fmt: skip
        lines.append("   wheels:\n")
        lines += [_wheel(k, wheel) for k, wheel in enumerate(wheels.tolist())]
    return lines


def _wheel(number: int, wheel: list[float]) -> str:
    names = ("tire_friction", "damping_rate", "max_steer_angle", "radius", "max_brake_torque", "max_handbrake_torque")
    shown = " ".join(f"{name} {num(value)}" for name, value in zip(names, wheel[:6], strict=True))
    return f"    wheel {number}: {shown} position {_place(wheel[9:12])}\n"


def _bones(payload: memoryview) -> Lines:
    found = log.bones(payload)
    lines = [f" Walkers Bones: {len(found)}\n"]
    for actor_id, own in found:
        lines.append(f"  Id: {actor_id}\n")
        lines += [f'     Bone: "{name}" relative: Loc{_place(pose[:3])} Rot{_place(pose[3:])}\n' for name, pose in own]
    return [*lines, "\n"]


def _weather(payload: memoryview) -> Lines:
    rows: list[Any] = log.records(payload, log.WEATHER)["parameters"].tolist()
    shown = (" ".join(f"{name}: {num(value)}" for name, value in zip(_WEATHER, row, strict=True)) for row in rows)
    return [f" Weathers: {len(rows)}\n", *(f"  {line}\n" for line in shown)]


EVENTS: dict[int, Callable[[memoryview], Lines]] = {
    log.CREATED: _created, log.DESTROYED: _destroyed, log.PARENTED: _parented, log.COLLISION: _collided,
}  # fmt: skip
EVERYTHING = EVENTS | {
    log.POSITION: _positions, log.LIGHT_STATE: _light_states, log.VEHICLE: _vehicles, log.WALKER: _walkers,
    log.LAMPS: _lamps, log.STREET_LAMP: _street_lamps, log.KINEMATICS: _kinematics,
    log.BOX: _boxes("Actor bounding boxes"), log.TRIGGER_BOX: _boxes("Actor trigger volumes"),
    log.PLATFORM_TIME: _platform_time, log.PHYSICS: _physics, log.LIGHT_TIMES: _light_times, log.BONES: _bones,
    log.WEATHER: _weather,
}  # fmt: skip
