"""Calls about the session: versions, maps, files, settings, ticks, batches and the registry of Traffic Managers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from drivesim.carla_server.commands import Batch
from drivesim.carla_server.map_objects import ALL_LAYERS
from drivesim.carla_server.rpc import BARE, VALUE, VOID, Call, Packed, Peer, Refusal, encode
from drivesim.carla_server.structs import EpisodeSettings, flag, identifier, text, transform_to_wire
from drivesim.town.arrays import wrap_angle
from drivesim.town.town import Town
from drivesim.town.towns import KNOWN_TOWNS

if TYPE_CHECKING:
    from drivesim.carla_server.server import CarlaServer

VERSION = "0.9.16"
LAYERED_TOWNS = ("Town01", "Town02", "Town03", "Town04", "Town05", "Town06", "Town07", "Town10HD")

MOST_SPAWN_POINTS = 384  # CARLA's own towns have 100 to 370
SPAWN_LIFT_M = 0.5  # above the road, as CARLA's spawn points are
AXLES_M = (0.5, 1.4, 2.85)  # half the wheelbases of a bicycle, a car, a bus
MOST_BEND_RAD = math.radians(0.003)


class SessionCalls:
    """Handlers; each takes the call's arguments (and the calling peer before them where the table says so)."""

    def __init__(self, server: CarlaServer) -> None:
        self._server = server
        self._simulation = server.simulation
        self._batch = Batch(server)
        self._map_data: tuple[str, Packed] | None = None
        self._spawn_points: tuple[int, list[Any]] | None = None

    def get_episode_info(self, peer: Peer) -> Any:
        """Episode id, and the token of the world's snapshots."""
        peer.world_name = self._server.hub.new_world_name()
        return [self._simulation.episode.episode_id, [self._server.hub.token(peer.world_name)]]

    def get_map_info(self) -> Any:
        """Map name and spawn points."""
        episode = self._simulation.episode
        if self._spawn_points is None or self._spawn_points[0] != episode.episode_id:
            self._spawn_points = (episode.episode_id, spawn_points(episode.town))
        return [episode.map_name, self._spawn_points[1]]

    def get_map_data(self) -> Any:
        """The OpenDRIVE text, packed once for each map."""
        opendrive = self._simulation.episode.opendrive
        if self._map_data is None or self._map_data[0] is not opendrive:
            self._map_data = (opendrive, Packed(encode(opendrive)))
        return self._map_data[1]

    def get_required_files(self, folder: str = "", *_: Any) -> list[str]:
        """Files that the client wants on its disk: only the walkers' navigation mesh."""
        if folder != "Nav":
            return []
        navigation = self._simulation.navigation
        return [navigation.name] if navigation.data else []

    def request_file(self, name: str) -> bytes:
        """The bytes of a file that `get_required_files` named."""
        navigation = self._simulation.navigation
        if name.rsplit("/", 1)[-1] != navigation.name:
            raise Refusal(f"request_file: no file {name!r}")
        return navigation.data

    def load_new_episode(self, name: str, reset_settings: Any = True, layers: Any = ALL_LAYERS, *_: Any) -> None:
        """Load or reload a map, with only these of its layers."""
        self._simulation.load(text(name), flag(reset_settings), identifier(layers, 16))
        self._server.settings_changed()

    def copy_opendrive_to_file(self, opendrive: str, *_: Any) -> None:
        """Take a user's OpenDRIVE; the client then loads `OpenDriveMap`."""
        self._simulation.generate(text(opendrive, 1 << 28))

    def get_episode_settings(self, peer: Peer) -> Any:
        """The settings; a Traffic Manager asks for them just before it sleeps."""
        self._server.managers.settings_asked(peer)
        return self._simulation.settings.to_wire()

    def set_episode_settings(self, peer: Peer, settings: Any) -> Any:
        """Take new settings; answers the current frame, on which the client lets its Traffic Managers step."""
        self._simulation.settings = EpisodeSettings.from_wire(settings)
        self._server.settings_changed()
        return self._server.ticks.hold(peer, self._simulation.frame)

    def tick_cue(self, peer: Peer) -> Any:
        """Step once, in either mode."""
        return self._server.tick_for(peer)

    def apply_batch(self, peer: Peer, commands: Any, do_tick: Any = False) -> Any:
        """Run commands; a failing one does not stop the rest."""
        results = self._batch.run(commands)
        return self._server.tick_for(peer, results) if flag(do_tick) else results

    def is_traffic_manager_running(self, port: int) -> bool:
        """Is a Traffic Manager registered on this port?"""
        return self._server.managers.find(identifier(port, 16)) is not None

    def get_traffic_manager_running(self, port: int) -> Any:
        """Where the Traffic Manager of a port runs."""
        found = self._server.managers.find(identifier(port, 16))
        return list(found) if found is not None else ["", 0]

    def add_traffic_manager_running(self, peer: Peer, endpoint: Any) -> bool:
        """Register the client's Traffic Manager."""
        return self._server.managers.register(peer, text(endpoint[0], 256), identifier(endpoint[1], 16))

    def destroy_traffic_manager(self, port: int) -> bool:
        """Forget a Traffic Manager."""
        self._server.managers.remove(identifier(port, 16))
        return True


def spawn_points(town: Town) -> list[Any]:
    """Transforms over driving lanes, pitched as the road is; no more than the town could hold at once.

    Places where the road bends under the wheels are left out: there the pitch depends on the wheelbase.
    """
    network = town.network
    most = min(MOST_SPAWN_POINTS, 3 * len(town.state.kind) // 4)
    poses = []
    for point in _evenly(len(network.spawn_yaw_rad), 2 * most):  # twice as many, so that some can be left out
        x, y, z = network.spawn_xyz_m[point].tolist()
        yaw = as_reported(float(network.spawn_yaw_rad[point]))
        pitches = [_road_pitch(town, x, y, z, yaw, axle_m) for axle_m in AXLES_M]
        bend = max(pitches) - min(pitches)
        poses.append((bend > MOST_BEND_RAD, transform_to_wire((x, y, z + SPAWN_LIFT_M), (0.0, pitches[1], yaw))))
    level = [pose for bent, pose in poses if not bent] or [pose for _, pose in poses]
    return [level[point] for point in _evenly(len(level), most)]


def _evenly(count: int, most: int) -> list[int]:
    """At most so many of the rows 0..count-1, evenly spread."""
    chosen: list[int] = np.linspace(0, count - 1, min(count, most)).round().astype(np.int64).tolist()
    return chosen


def as_reported(yaw_rad: float) -> float:
    """The yaw that a vehicle reports that was put there: the wire's numbers are floats, and half a turn is minus."""
    return float(wrap_angle(math.radians(float(np.float32(math.degrees(yaw_rad))))))


def _road_pitch(town: Town, x: float, y: float, z: float, yaw: float, axle_m: float) -> float:
    """Slope in radians between two axles, each so far from the middle."""
    ahead_x, ahead_y = axle_m * math.cos(yaw), axle_m * math.sin(yaw)
    front, rear = (_road_height_m(town, x + k * ahead_x, y + k * ahead_y, z, yaw) for k in (1.0, -1.0))
    return math.atan2(front - rear, 2.0 * axle_m)


def _road_height_m(town: Town, x: float, y: float, z: float, yaw: float) -> float:
    place = town.lane_map.nearest(x, y, yaw, z_m=z)
    return town.lane_map.at(place.lane, place.s_m).z_m if place.lane >= 0 else z


def session_calls(server: CarlaServer) -> dict[str, Call]:
    """The group's table."""
    calls = SessionCalls(server)
    maps = [f"/Game/Carla/Maps/{name}" for name in (*KNOWN_TOWNS, *(f"{name}_Opt" for name in LAYERED_TOWNS))]
    return {
        "version": Call(VALUE, lambda: VERSION),
        "get_available_maps": Call(VALUE, lambda: maps),
        "get_episode_info": Call(VALUE, calls.get_episode_info, peer=True),
        "get_map_info": Call(VALUE, calls.get_map_info),
        "get_map_data": Call(VALUE, calls.get_map_data),
        "get_required_files": Call(VALUE, calls.get_required_files),
        "request_file": Call(VALUE, calls.request_file),
        "get_navigation_mesh": Call(VALUE, lambda: server.simulation.navigation.data),
        "load_new_episode": Call(VOID, calls.load_new_episode),
        "copy_opendrive_to_file": Call(VOID, calls.copy_opendrive_to_file),
        "get_episode_settings": Call(VALUE, calls.get_episode_settings, peer=True),
        "set_episode_settings": Call(VALUE, calls.set_episode_settings, peer=True),
        "tick_cue": Call(VALUE, calls.tick_cue, peer=True),
        "apply_batch": Call(BARE, calls.apply_batch, peer=True),
        "drivesim_state": Call(VALUE, lambda: server.simulation.episode.town.state.to_bytes(), note="not CARLA's"),
        "is_traffic_manager_running": Call(VALUE, calls.is_traffic_manager_running),
        "get_traffic_manager_running": Call(VALUE, calls.get_traffic_manager_running),
        "add_traffic_manager_running": Call(VALUE, calls.add_traffic_manager_running, peer=True),
        "destroy_traffic_manager": Call(VALUE, calls.destroy_traffic_manager),
    }
