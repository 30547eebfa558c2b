"""The blueprint library: actor definitions for every model of the town and for the sensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from drivesim.carla_server.sensor_attributes import CHOICES, SENSORS, WHOLE_NUMBERS
from drivesim.town.catalogue import MODELS, ActorModel

BOOL, INT, FLOAT, STRING, COLOR = range(1, 6)
_CHILDREN = frozenset((9, 10, 11, 12, 13, 14, 48, 49))
_EMERGENCY = ("police", "ambulance", "firetruck")
_ELECTRIC = ("tesla", "etron", "microlino")
FRICTION_TRIGGER = "static.trigger.friction"

# Sensors that scripts look for by name: they are in the library, and spawning one is refused with this reason.
OUTSIDE: dict[str, str] = {
    "sensor.camera.cosmos_visualization": "the renderer has no Cosmos control pictures",
    "sensor.other.v2x": "vehicles of this server do not talk to each other",
    "sensor.other.v2x_custom": "vehicles of this server do not talk to each other",
    "sensor.other.rss": "the client from PyPI is built without RSS",
}


@dataclass(frozen=True)
class Attribute:
    """One attribute of a blueprint, as the wire has it."""

    name: str
    kind: int
    value: str
    recommended: tuple[str, ...] = ()
    modifiable: bool = True
    restricted: bool = False

    def to_wire(self) -> list[Any]:
        """The msgpack array."""
        return [self.name, self.kind, self.value, list(self.recommended), self.modifiable, self.restricted]


@dataclass(frozen=True)
class Blueprint:
    """An actor definition; `model` is the row of the town's catalogue, or -1."""

    uid: int
    type_id: str
    attributes: tuple[Attribute, ...]
    model: int = -1

    def to_wire(self) -> list[Any]:
        """The msgpack array."""
        tags = self.type_id.replace(".", ",")
        return [self.uid, self.type_id, tags, [attribute.to_wire() for attribute in self.attributes]]

    def values(self, given: dict[str, str]) -> tuple[tuple[str, int, str], ...]:
        """Attribute ids, types and values of an actor: what was asked for, else the blueprint's own."""
        return tuple((a.name, a.kind, given.get(a.name, a.value)) for a in self.attributes)


def _fixed(name: str, kind: int, value: str) -> Attribute:
    return Attribute(name, kind, value, (value,), modifiable=False)


def _vehicle(model: ActorModel) -> tuple[Attribute, ...]:
    colors = tuple(",".join(str(channel) for channel in color) for color in model.colors)
    name = model.blueprint
    special = "emergency" if any(word in name for word in _EMERGENCY) else "taxi" if "crown" in name else ""
    special = "electric" if not special and any(word in name for word in _ELECTRIC) else special
    lit = "false" if model.base_type == "bicycle" else "true"
    doors = "true" if model.generation == 2 and model.base_type in ("car", "van") else "false"
    return (
        _fixed("number_of_wheels", INT, str(model.wheels)),
        Attribute("sticky_control", BOOL, "true"),
        _fixed("object_type", STRING, ""),
        _fixed("base_type", STRING, model.base_type),
        _fixed("special_type", STRING, special),
        _fixed("generation", INT, str(model.generation)),
        _fixed("has_dynamic_doors", BOOL, doors),
        _fixed("has_lights", BOOL, lit),
        Attribute("terramechanics", BOOL, "false"),
        Attribute("color", COLOR, colors[0], colors),
        Attribute("driver_id", INT, "1", tuple(str(number) for number in range(1, 51))),
        Attribute("role_name", STRING, "autopilot", ("autopilot", "scenario", "ego_vehicle")),
    )


def _walker(model: ActorModel) -> tuple[Attribute, ...]:
    number = int(model.blueprint.rsplit(".", 1)[1])
    child = number in _CHILDREN
    speeds = ("0.0", "1.1", "1.9") if child else ("0.0", "1.43", "2.35")
    wheelchair = "false" if child else "true"
    return (
        _fixed("gender", STRING, "female" if number % 2 else "male"),
        _fixed("age", STRING, "child" if child else "adult"),
        _fixed("generation", INT, str(model.generation)),
        Attribute("speed", FLOAT, speeds[0], speeds),
        Attribute("is_invincible", BOOL, "true"),
        _fixed("can_use_wheelchair", BOOL, wheelchair),
        Attribute("use_wheelchair", BOOL, "false"),
        Attribute("role_name", STRING, "pedestrian", ("pedestrian",)),
    )


def _prop() -> tuple[Attribute, ...]:
    return (_fixed("size", STRING, "medium"), Attribute("role_name", STRING, "prop", ("prop",)))


def _friction() -> tuple[Attribute, ...]:
    extents = tuple(Attribute(f"extent_{axis}", FLOAT, "1.0", ("1.0",)) for axis in "xyz")  # half sizes, centimetres
    return (Attribute("friction", FLOAT, "3.5", ("3.5",)), *extents)


def _sensor(attributes: dict[str, str]) -> tuple[Attribute, ...]:
    roles = ("front", "back", "left", "right", "front_left", "front_right", "back_left", "back_right")
    named = tuple(_setting(name, value) for name, value in attributes.items())
    return (*named, Attribute("role_name", STRING, "front", roles), Attribute("ros_name", STRING, ""))


def _setting(name: str, value: str) -> Attribute:
    choices = CHOICES.get(name, (value,))
    if value in ("true", "false"):
        return Attribute(name, BOOL, value, choices)
    if name in WHOLE_NUMBERS:
        return Attribute(name, INT, value, choices)
    if name in CHOICES:
        return Attribute(name, STRING, value, choices, restricted=True)
    return Attribute(name, FLOAT, value, choices)


def _for_model(model: ActorModel) -> tuple[Attribute, ...]:
    if model.blueprint.startswith("vehicle."):
        return _vehicle(model)
    return _walker(model) if model.blueprint.startswith("walker.") else _prop()


def library() -> dict[str, Blueprint]:
    """All blueprints by their type id; uids are 1, 2, ... in that order."""
    entries: list[tuple[str, tuple[Attribute, ...], int]] = [
        (model.blueprint, _for_model(model), row) for row, model in enumerate(MODELS)
    ]
    entries += [(type_id, _sensor(attributes), -1) for type_id, attributes in SENSORS.items()]
    entries += [(type_id, _sensor(SENSORS["sensor.camera.depth"] if ".camera." in type_id else {}), -1)
                for type_id in OUTSIDE]  # fmt: skip
    entries += [("controller.ai.walker", (), -1), ("util.actor.empty", (), -1), (FRICTION_TRIGGER, _friction(), -1)]
    return {type_id: Blueprint(uid, type_id, attributes, model)
            for uid, (type_id, attributes, model) in enumerate(entries, start=1)}  # fmt: skip


LIBRARY = library()
BY_UID = {blueprint.uid: blueprint for blueprint in LIBRARY.values()}
