"""Calls about the world: weather, objects of the map, rays, street lamps, debug shapes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from drivesim.carla_server import structs
from drivesim.carla_server.rpc import VALUE, VOID, Call

if TYPE_CHECKING:
    from drivesim.carla_server.server import CarlaServer

LABEL_ROAD, LABEL_NONE = 1, 0
RAY_STEP_M = 0.5
RAY_LIMIT_M = 2000.0


class WorldCalls:
    """Handlers; each takes the call's arguments (and the calling peer before them where the table says so)."""

    def __init__(self, server: CarlaServer) -> None:
        self._server = server
        self._gravity_mps2 = 9.81

    @property
    def _town(self) -> Any:
        return self._server.simulation.episode.town

    def get_weather(self) -> list[float]:
        """WeatherParameters."""
        weather: list[float] = self._town.state.weather.tolist()
        return weather

    def set_weather(self, weather: Any) -> None:
        """Set all 14 parameters; the next picture shows them."""
        self._town.state.weather[:] = structs.weather(weather)

    def get_gravity(self) -> float:
        """Gravity as it was set (it has no other effect)."""
        return self._gravity_mps2

    def set_gravity(self, gravity: Any) -> None:
        """Remember it."""
        self._gravity_mps2 = structs.number(gravity)

    def project_point(self, start: Any, direction: Any, distance: Any) -> list[Any]:
        """Where a ray first meets the ground: [hit, [location, label]]."""
        origin, along = structs.location(start), structs.vector(direction)
        norm = math.sqrt(sum(component * component for component in along)) or 1.0
        reach_m = min(structs.number(distance), RAY_LIMIT_M)
        hit = self._ground_hit(origin, [component / norm for component in along], reach_m)
        return [True, [hit, LABEL_ROAD]] if hit is not None else [False, [[0.0, 0.0, 0.0], LABEL_NONE]]

    def cast_ray(self, start: Any, end: Any) -> list[Any]:
        """All that lies between two places: here the ground, at most once."""
        origin, goal = structs.location(start), structs.location(end)
        away = [b - a for a, b in zip(origin, goal, strict=True)]
        reach_m = math.sqrt(sum(component * component for component in away))
        if reach_m == 0.0:
            return []
        hit = self._ground_hit(origin, [component / reach_m for component in away], min(reach_m, RAY_LIMIT_M))
        return [[hit, LABEL_ROAD]] if hit is not None else []

    def _ground_hit(self, origin: Any, along: list[float], reach_m: float) -> list[float] | None:
        """March along the ray until it is under the road surface nearest to it."""
        def above(way_m: float) -> float:
            x, y, z = (a + way_m * d for a, d in zip(origin, along, strict=True))
            height_m: float = z - self._ground_m(x, y, z)
            return height_m

        if above(0.0) < 0.0:
            return None
        low_m, step_m = 0.0, max(RAY_STEP_M, reach_m / 400.0)
        while low_m < reach_m:
            high_m = min(low_m + step_m, reach_m)
            if above(high_m) <= 0.0:
                for _ in range(20):
                    middle_m = (low_m + high_m) / 2.0
                    low_m, high_m = (low_m, middle_m) if above(middle_m) <= 0.0 else (middle_m, high_m)
                return [a + high_m * d for a, d in zip(origin, along, strict=True)]
            low_m = high_m
        return None

    def _ground_m(self, x: float, y: float, z: float) -> float:
        return float(self._town.lane_map.ground_height(x, y, z))


def world_calls(server: CarlaServer) -> dict[str, Call]:
    """The group's table."""
    calls = WorldCalls(server)

    def accepted(note: str, kind: int = VOID, value: Any = None) -> Call:
        return Call(kind, lambda *_: value, real=False, note=note)

    return {
        "get_weather_parameters": Call(VALUE, calls.get_weather),
        "set_weather_parameters": Call(VOID, calls.set_weather),
        "get_imui_gravity": Call(VALUE, calls.get_gravity),
        "set_imui_gravity": Call(VOID, calls.set_gravity, real=False, note="remembered, without effect"),
        "update_day_night_cycle": accepted("lamps follow the sun"),
        "set_annotations_traverse_translucency": accepted("nothing is translucent to labels"),
        "query_lights_state": accepted("no street lamp can be switched yet", VALUE, []),
        "update_lights_state": accepted("no street lamp can be switched yet"),
        "get_all_level_BBs": accepted("no boxes of map objects yet", VALUE, []),
        "get_environment_objects": accepted("no environment objects yet", VALUE, []),
        "enable_environment_objects": accepted("no environment objects yet"),
        "project_point": Call(VALUE, calls.project_point, note="the ground alone"),
        "cast_ray": Call(VALUE, calls.cast_ray, note="the ground alone"),
        "draw_debug_shape": accepted("there is no screen"),
        "clear_debug_shape": accepted("there is no screen"),
        "clear_debug_string": accepted("there is no screen"),
        "load_map_layer": accepted("towns have one layer"),
        "unload_map_layer": accepted("towns have one layer"),
        "get_names_of_all_objects": accepted("no named objects yet", VALUE, []),
        "apply_color_texture_to_objects": accepted("no named objects yet"),
        "apply_float_color_texture_to_objects": accepted("no named objects yet"),
    }
