"""Calls that this version refuses with a text that names them: ROS, G-buffers, messages to actors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drivesim.carla_server.refusals import refused
from drivesim.carla_server.rpc import VALUE, VOID, Call

if TYPE_CHECKING:
    from drivesim.carla_server.server import CarlaServer

_ROS = "the server has no ROS bridge"
_BUFFERS = "the renderer has no G-buffers"
_REFUSED: dict[str, tuple[int, str]] = {
    "enable_sensor_for_ros": (VOID, _ROS), "disable_sensor_for_ros": (VOID, _ROS),
    "get_gbuffer_token": (VALUE, _BUFFERS), "enable_gbuffers": (VOID, _BUFFERS),
    "send": (VOID, "no actor of this server takes messages"),
}  # fmt: skip


def outside_calls(_: CarlaServer) -> dict[str, Call]:
    """The group's table."""
    table = {name: refused(name, kind, why) for name, (kind, why) in _REFUSED.items()}
    table["is_sensor_enabled_for_ros"] = Call(VALUE, _no, real=False, note=_ROS)
    table["are_gbuffers_enabled"] = Call(VALUE, _no, real=False, note=_BUFFERS)
    return table


def _no(*_: Any) -> bool:
    return False
