"""Calls about the things of the map: environment objects, layers, boxes, textures, street lamps, lines of sight."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from drivesim.carla_server import structs
from drivesim.carla_server.map_objects import ANY_LABEL
from drivesim.carla_server.probes import LONGEST_M, crossings
from drivesim.carla_server.rpc import VALUE, VOID, Call

if TYPE_CHECKING:
    from drivesim.carla_server.server import CarlaServer

NOWHERE = [[0.0, 0.0, 0.0], 0]
DIFFUSE = 2
MOST_PIXELS = 1 << 22


class ObjectCalls:
    """Handlers; each takes the call's arguments."""

    def __init__(self, server: CarlaServer) -> None:
        self._server = server

    @property
    def _around(self) -> Any:
        return self._server.simulation.surroundings

    @property
    def _episode(self) -> Any:
        return self._server.simulation.episode

    # ---- objects

    def environment_objects(self, label: Any = ANY_LABEL) -> list[Any]:
        """EnvironmentObject of everything of a CityObjectLabel that is shown."""
        objects = self._around.objects
        return [objects.to_wire(row) for row in objects.rows(structs.identifier(label, 8)).tolist()]

    def enable_environment_objects(self, ids: Any, enabled: Any) -> None:
        """Show or hide things: what is hidden is neither drawn nor hit. Roads always stay."""
        if self._around.objects.enable([structs.identifier(value, 63) for value in ids], structs.flag(enabled)):
            self._server.simulation.surroundings_changed()

    def load_layer(self, layers: Any) -> None:
        """Show carla.MapLayer bits: buildings, foliage, props and street lights are layers here."""
        self._show_layers(layers, True)

    def unload_layer(self, layers: Any) -> None:
        """Hide them."""
        self._show_layers(layers, False)

    def _show_layers(self, layers: Any, shown: bool) -> None:
        if self._around.objects.show_layers(structs.identifier(layers, 16), shown):
            self._server.simulation.surroundings_changed()

    def level_boxes(self, label: Any = ANY_LABEL) -> list[Any]:
        """World boxes of the map's things, and of vehicles, walkers and props, of a CityObjectLabel."""
        wanted, objects, town = structs.identifier(label, 8), self._around.objects, self._episode.town
        boxes = [objects.box_to_wire(row) for row in objects.rows(wanted).tolist()]
        for actor in self._episode.actors:
            if actor.row >= 0 and (wanted == ANY_LABEL or wanted in actor.tags):
                centre = town.state.xyz[actor.row] + (0.0, 0.0, town.state.half_size[actor.row, 2])
                yaw_deg = math.degrees(float(town.state.rotation[actor.row, 2]))
                boxes.append(structs.box_to_wire(centre, actor.box_extent, actor.actor_id, yaw_deg))
        return boxes

    def names(self) -> list[str]:
        """Names of all things of the map."""
        names: list[str] = self._around.objects.names
        return names

    def apply_color_texture(self, names: Any, material: Any, texture: Any) -> None:
        """Houses and trees take the mean colour of a diffuse texture of bytes; other materials change nothing."""
        self._paint(names, material, texture, 1.0)

    def apply_float_texture(self, names: Any, material: Any, texture: Any) -> None:
        """The same with a texture of shares."""
        self._paint(names, material, texture, 255.0)

    def _paint(self, names: Any, material: Any, texture: Any, scale: float) -> None:
        rows = [self._around.objects.row(structs.text(name, 256)) for name in names]
        if structs.identifier(material, 8) != DIFFUSE:
            return
        width, height, pixels = structs.identifier(texture[0]), structs.identifier(texture[1]), texture[2]
        if width * height != len(pixels) or len(pixels) > MOST_PIXELS:
            raise ValueError(f"a texture of {width} x {height} with {len(pixels)} pixels")
        if not pixels:
            return
        mean = np.asarray(pixels, np.float64).reshape(len(pixels), -1)[:, :3].mean(axis=0) * scale
        red, green, blue = np.clip(np.nan_to_num(mean), 0.0, 255.0).astype(np.int64).tolist()
        self._around.paint.update({row: (red, green, blue) for row in rows if row >= 0})
        self._server.simulation.surroundings_changed()

    # ---- lamps

    def lamp_states(self, *_: Any) -> list[Any]:
        """LightState of every street lamp."""
        states: list[Any] = self._around.lamps.to_wire(self._episode.town.state.weather)
        return states

    def set_lamp_states(self, _: Any, states: Any, *__: Any) -> None:
        """Take LightStates; on and off are drawn (at night), the rest is kept."""
        lamps = self._around.lamps
        before = lamps.switched_off()
        for state in states:
            lamps.update(state)
        self._lamps_changed(before)

    def day_night_cycle(self, _: Any, active: Any) -> None:
        """Let the lamps follow the sun, or leave them as clients set them."""
        before = self._around.lamps.switched_off()
        self._around.lamps.follow_sun(structs.flag(active))
        self._lamps_changed(before)

    def _lamps_changed(self, before: Any) -> None:
        self._server.simulation.lamps_changed()
        if (before != self._around.lamps.switched_off()).any():
            self._server.simulation.surroundings_changed()

    # ---- lines

    def project_point(self, start: Any, direction: Any, distance: Any) -> list[Any]:
        """What a ray meets first: [hit, [location, label]]."""
        origin, along = structs.location(start), structs.vector(direction)
        norm = math.sqrt(sum(component * component for component in along))
        reach_m = min(structs.number(distance), LONGEST_M)
        if norm == 0.0 or reach_m <= 0.0:
            return [False, NOWHERE]
        x, y, z = (a + reach_m * component / norm for a, component in zip(origin, along, strict=True))
        found = crossings(self._episode, self._around.objects, origin, (x, y, z))
        return [True, [list(found[0].place), found[0].label]] if found else [False, NOWHERE]

    def cast_ray(self, start: Any, end: Any) -> list[Any]:
        """All that lies between two places, nearest first."""
        found = crossings(self._episode, self._around.objects, structs.location(start), structs.location(end))
        return [[list(crossing.place), crossing.label] for crossing in found]


def object_calls(server: CarlaServer) -> dict[str, Call]:
    """The group's table."""
    calls = ObjectCalls(server)
    boxes = "boxes of things and actors, and the ground"
    painted = "houses and trees take the mean colour of a diffuse texture"
    return {
        "get_environment_objects": Call(VALUE, calls.environment_objects),
        "enable_environment_objects": Call(VOID, calls.enable_environment_objects, note="roads always stay"),
        "load_map_layer": Call(VOID, calls.load_layer, note="buildings, foliage, props, street lights; on any map"),
        "unload_map_layer": Call(VOID, calls.unload_layer, note="buildings, foliage, props, street lights; on any map"),
        "get_all_level_BBs": Call(VALUE, calls.level_boxes),
        "get_names_of_all_objects": Call(VALUE, calls.names),
        "apply_color_texture_to_objects": Call(VOID, calls.apply_color_texture, note=painted),
        "apply_float_color_texture_to_objects": Call(VOID, calls.apply_float_texture, note=painted),
        "query_lights_state": Call(VALUE, calls.lamp_states),
        "update_lights_state": Call(
            VOID, calls.set_lamp_states, note="on and off are drawn at night, the rest is kept"
        ),
        "update_day_night_cycle": Call(VOID, calls.day_night_cycle),
        "project_point": Call(VALUE, calls.project_point, note=boxes),
        "cast_ray": Call(VALUE, calls.cast_ray, note=boxes),
    }
