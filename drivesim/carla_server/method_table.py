"""Every method that the 0.9.16 client can call, from the groups of handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivesim.carla_server.calls_actors import actor_calls
from drivesim.carla_server.calls_lights import light_calls
from drivesim.carla_server.calls_objects import object_calls
from drivesim.carla_server.calls_outside import outside_calls
from drivesim.carla_server.calls_recorder import recorder_calls
from drivesim.carla_server.calls_session import session_calls
from drivesim.carla_server.calls_vehicles import vehicle_calls
from drivesim.carla_server.calls_world import world_calls
from drivesim.carla_server.rpc import Call

if TYPE_CHECKING:
    from drivesim.carla_server.server import CarlaServer


def method_table(server: CarlaServer) -> dict[str, Call]:
    """Method name to its call."""
    table: dict[str, Call] = {}
    for group in (
        session_calls,
        world_calls,
        object_calls,
        actor_calls,
        vehicle_calls,
        light_calls,
        recorder_calls,
        outside_calls,
    ):
        table.update(group(server))
    return table
