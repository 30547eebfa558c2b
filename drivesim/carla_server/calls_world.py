"""Calls about the world: weather, gravity, debug shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drivesim.carla_server import structs
from drivesim.carla_server.rpc import VALUE, VOID, Call
from drivesim.carla_server.street_lamps import is_dark

if TYPE_CHECKING:
    from drivesim.carla_server.server import CarlaServer


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
        before = is_dark(self._town.state.weather)
        self._town.state.weather[:] = structs.weather(weather)
        if is_dark(self._town.state.weather) != before:
            self._server.simulation.lamps_changed()

    def get_gravity(self) -> float:
        """Gravity as it was set (it has no other effect)."""
        return self._gravity_mps2

    def set_gravity(self, gravity: Any) -> None:
        """Remember it."""
        self._gravity_mps2 = structs.number(gravity)


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
        "set_annotations_traverse_translucency": accepted("nothing is translucent to labels"),
        "draw_debug_shape": accepted("there is no screen"),
        "clear_debug_shape": accepted("there is no screen"),
        "clear_debug_string": accepted("there is no screen"),
    }
