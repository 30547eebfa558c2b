"""Calls about traffic lights."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from drivesim.carla_server import structs
from drivesim.carla_server.commands import Batch
from drivesim.carla_server.rpc import VALUE, VOID, Call
from drivesim.town import signals

if TYPE_CHECKING:
    from drivesim.carla_server.server import CarlaServer

LAMP_HEIGHT_M, LAMP_EXTENT = 5.0, (0.25, 0.25, 0.55)


class LightCalls:
    """Handlers; each takes the call's arguments (and the calling peer before them where the table says so)."""

    def __init__(self, server: CarlaServer) -> None:
        self._server = server
        self._batch = Batch(server)

    @property
    def _town(self) -> Any:
        return self._server.simulation.episode.town

    def set_state(self, actor_id: int, state: int) -> None:
        """Set one light; it holds until its next change."""
        self._batch.traffic_light(actor_id, state)

    def set_time(self, stage: str, actor_id: int, seconds: Any) -> None:
        """Set how long a stage (green, yellow, red) of a light lasts."""
        light = self._batch.light(actor_id, f"set {stage} time")
        self._town.set_light_times(light, **{f"{stage}_s": min(max(structs.number(seconds), 0.0), 1.0e5)})

    def freeze(self, actor_id: int, frozen: bool) -> None:
        """Freeze one light."""
        self._town.state.light_frozen[self._batch.light(actor_id, "freeze traffic light")] = structs.flag(frozen)

    def freeze_all(self, frozen: bool) -> None:
        """Freeze all lights, or let them go on."""
        self._town.freeze_lights(structs.flag(frozen))

    def reset_group(self, actor_id: int) -> None:
        """Restart the cycle of a light's group."""
        self._town.reset_light_group(self._batch.light(actor_id, "reset traffic light group"))

    def reset_all(self) -> None:
        """Restart all cycles."""
        for group in range(len(self._town.state.group_phase)):
            signals.reset_group(self._town.network, self._town.state, group)

    def group(self, actor_id: int) -> list[int]:
        """Ids of the lights that cycle with this one, itself included."""
        light = self._batch.light(actor_id, "get group of traffic lights")
        first = self._server.simulation.episode.first_light_id
        return [first + other for other in self._town.lights_of_group(light)]

    def boxes(self, actor_id: int) -> list[Any]:
        """World boxes of a light's heads."""
        light = self._batch.light(actor_id, "get light boxes")
        x, y, z = self._town.network.light_xyz_m[light].tolist()
        return [structs.box_to_wire((x, y, z + LAMP_HEIGHT_M), LAMP_EXTENT)]


def light_calls(server: CarlaServer) -> dict[str, Call]:
    """The group's table."""
    calls = LightCalls(server)
    return {
        "set_traffic_light_state": Call(VOID, calls.set_state),
        "set_traffic_light_green_time": Call(VOID, partial(calls.set_time, "green"), note="its length, s"),
        "set_traffic_light_yellow_time": Call(VOID, partial(calls.set_time, "yellow"), note="its length, s"),
        "set_traffic_light_red_time": Call(VOID, partial(calls.set_time, "red"), note="its length, s"),
        "freeze_traffic_light": Call(VOID, calls.freeze),
        "freeze_all_traffic_lights": Call(VOID, calls.freeze_all),
        "reset_traffic_light_group": Call(VOID, calls.reset_group),
        "reset_all_traffic_lights": Call(VOID, calls.reset_all),
        "get_group_traffic_lights": Call(VALUE, calls.group),
        "get_light_boxes": Call(VALUE, calls.boxes),
    }
