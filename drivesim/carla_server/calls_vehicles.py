"""Calls about vehicles and walkers: controls, physics, lamps, doors, wheels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from drivesim.carla_server import structs
from drivesim.carla_server.commands import Batch
from drivesim.carla_server.refusals import refused
from drivesim.carla_server.rpc import VALUE, VOID, Call, Peer
from drivesim.carla_server.telemetry import telemetry
from drivesim.town import pushes
from drivesim.town.speed_control import DEFAULT_GAINS
from drivesim.town.state import KIND_VEHICLE

if TYPE_CHECKING:
    from drivesim.carla_server.server import CarlaServer

FRONT_WHEELS = (0, 1)


class VehicleCalls:
    """Handlers; each takes the call's arguments (and the calling peer before them where the table says so)."""

    def __init__(self, server: CarlaServer) -> None:
        self._server = server
        self.batch = Batch(server)

    @property
    def _episode(self) -> Any:
        return self._server.simulation.episode

    def control(self, actor_id: Any, control: Any) -> None:
        """VehicleControl; held until the next."""
        self.batch.control(actor_id, control)

    def get_physics(self, actor_id: Any) -> list[Any]:
        """VehiclePhysicsControl."""
        return self._server.physics_controls.get(self._episode, actor_id)

    def get_ackermann_settings(self, actor_id: Any) -> list[float]:
        """AckermannControllerSettings."""
        row = self._episode.row(actor_id, "get Ackermann controller settings")
        return pushes.gains_of(self._episode.town.state, row)

    def set_ackermann_settings(self, actor_id: Any, settings: Any) -> None:
        """AckermannControllerSettings of a vehicle."""
        row = self._episode.row(actor_id, "apply Ackermann controller settings")
        pushes.set_gains(self._episode.town.state, row, structs.numbers(settings, DEFAULT_GAINS))

    def telemetry(self, actor_id: Any) -> list[Any]:
        """VehicleTelemetryData."""
        return telemetry(self._episode, actor_id)

    def light_state(self, actor_id: Any) -> list[int]:
        """VehicleLightState flags."""
        return [int(self._episode.town.state.lamps[self._episode.row(actor_id, "get vehicle light state")])]

    def set_light_state(self, actor_id: Any, flags: Any) -> None:
        """Set VehicleLightState flags."""
        self.batch.light_state(actor_id, flags[0])

    def light_states(self, peer: Peer) -> Any:
        """Flags of all vehicles; a Traffic Manager's step begins with this call."""
        episode = self._episode
        rows = np.flatnonzero((episode.actors.row_id != 0) & (episode.town.state.kind == KIND_VEHICLE))
        ids, lamps = episode.actors.row_id[rows].tolist(), episode.town.state.lamps[rows].tolist()
        return self._server.managers.light_states_asked(peer, [list(pair) for pair in zip(ids, lamps, strict=True)])

    def wheel_angle(self, actor_id: Any, wheel: Any) -> float:
        """Steer angle of a wheel in degrees."""
        row = self._episode.row(actor_id, "get wheel steer angle")
        return math.degrees(float(self._episode.town.state.steer_angle[row])) if wheel in FRONT_WHEELS else 0.0

    def pitch_angle(self, actor_id: Any, *_: Any) -> float:
        """Wheels of this town do not show their roll."""
        self._episode.row(actor_id, "get wheel pitch angle")
        return 0.0

    def checked(self, doing: str) -> Any:
        """A call that is accepted without effect, but for the check that its actor exists."""

        def handler(actor_id: Any, *_: Any) -> None:
            self._episode.find(actor_id, doing)

        return handler


def vehicle_calls(server: CarlaServer) -> dict[str, Call]:
    """The group's table."""
    calls = VehicleCalls(server)
    batch = calls.batch

    def accepted(doing: str, note: str) -> Call:
        return Call(VOID, calls.checked(doing), real=False, note=note)

    closed = "vehicles of this town have no moving parts"
    no_engine = "this town has its own vehicle physics"
    return {
        "apply_control_to_vehicle": Call(VOID, calls.control),
        "apply_ackermann_control_to_vehicle": Call(VOID, batch.ackermann),
        "get_ackermann_controller_settings": Call(VALUE, calls.get_ackermann_settings),
        "apply_ackermann_controller_settings": Call(VOID, calls.set_ackermann_settings),
        "get_physics_control": Call(VALUE, calls.get_physics),
        "apply_physics_control": Call(VOID, batch.physics_control),
        "get_telemetry_data": Call(VALUE, calls.telemetry),
        "show_vehicle_debug_telemetry": accepted("show debug telemetry", "there is no screen"),
        "get_vehicle_light_state": Call(VALUE, calls.light_state),
        "set_vehicle_light_state": Call(VOID, calls.set_light_state),
        "get_vehicle_light_states": Call(VALUE, calls.light_states, peer=True),
        "open_vehicle_door": accepted("open vehicle door", closed),
        "close_vehicle_door": accepted("close vehicle door", closed),
        "set_wheel_steer_direction": accepted("set wheel steer direction", closed),
        "get_wheel_steer_angle": Call(VALUE, calls.wheel_angle),
        "set_wheel_pitch_angle": accepted("set wheel pitch angle", closed),
        "get_wheel_pitch_angle": Call(VALUE, calls.pitch_angle, real=False, note=closed),
        "set_ignored_vehicles": accepted("set ignored vehicles", "sensors see all vehicles"),
        "enable_chrono_physics": refused("enable_chrono_physics", VOID, no_engine),
        "enable_carsim": refused("enable_carsim", VOID, no_engine),
        "use_carsim_road": refused("use_carsim_road", VOID, no_engine),
        "restore_physx_physics": accepted("restore physx physics", no_engine),
        "apply_control_to_walker": Call(VOID, batch.walker_control),
    }
