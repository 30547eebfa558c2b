"""What the server serves: the current episode, its clock, its settings, and the snapshots and sensor data of a tick."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from drivesim.carla_server.connection import Connection
from drivesim.carla_server.episode import Episode
from drivesim.carla_server.map_objects import ALL_LAYERS
from drivesim.carla_server.navmesh import NavigationFile, navigation_file
from drivesim.carla_server.painter import Painter
from drivesim.carla_server.rehearsal import rehearse
from drivesim.carla_server.rpc import Refusal
from drivesim.carla_server.sensors import SensorRig
from drivesim.carla_server.snapshot import STATE_MAP_CHANGE, STATE_PENDING_LIGHTS
from drivesim.carla_server.streaming import WORLD_STREAM, StreamHub, stream_of
from drivesim.carla_server.structs import EpisodeSettings
from drivesim.carla_server.surroundings import Surroundings
from drivesim.carla_server.world_observer import WorldObserver
from drivesim.town import towns
from drivesim.town.roads import RoadNetwork
from drivesim.town.scenery import Scenery
from drivesim.town.scenery_cache import load_scenery
from drivesim.town.town import Town

log = logging.getLogger(__name__)

FREE_RUN_S = 1.0 / 30.0
MAP_CHANGE_SNAPSHOTS = 3
LIGHT_UPDATE_SNAPSHOTS = 2
KEPT_RENDERERS = 2
KEPT_SCENERIES = 4
OPENDRIVE_LIMIT = 48 << 20
GENERATED_MAP = "OpenDriveMap"


class Simulation:
    """Loads episodes and steps the current one; publishes every tick to the streams."""

    def __init__(
        self, town_name: str, hub: StreamHub, painter: Painter, *, seed: int = 0, capacity: int = 512
    ) -> None:  # fmt: skip
        self.settings = EpisodeSettings()
        self.frame = 0
        self.hub = hub
        self.painter = painter
        self._seed = seed
        self._capacity = capacity
        self._episodes = 0
        self._renderers: dict[str, Any] = {}
        self._casters: dict[str, Any] = {}
        self._finders: dict[str, Any] = {}
        self._scenery: dict[str, Scenery] = {}
        self._navigation: dict[str, NavigationFile] = {}
        self._generated: tuple[str, RoadNetwork] | None = None
        self._unseen = 0
        self._stale_lamps = 0
        self.stepped: Callable[[float], None] = _nothing  # after the town's step: a replay moves its actors
        self.published: Callable[[float], None] = _nothing  # after the snapshot: a recording notes it
        hub.on_subscribed = self._subscribed
        hub.is_stream = self._is_stream
        self.episode = self._opened(town_name)
        self._start()

    # ---- episodes

    def load(self, map_name: str, reset_settings: bool, layers: int = ALL_LAYERS) -> None:
        """Start a fresh episode; the empty name reloads the present map. `layers` are carla.MapLayer bits to show.

        Raises:
            Refusal: no such map.
        """
        self.painter.finish()
        old = self.episode
        self.episode = self._opened(map_name or old.map_name, old.actors.next_id)
        for actor in old.actors:
            if actor.stream_id:
                self.hub.close_stream(actor.stream_id)
        if reset_settings:
            self.settings = EpisodeSettings()
        self._start(layers)

    def generate(self, opendrive: str) -> None:
        """Keep an OpenDRIVE text for the `OpenDriveMap` that a client loads next.

        Raises:
            Refusal: it cannot be read.
        """
        if len(opendrive) > OPENDRIVE_LIMIT:
            raise Refusal(f"the OpenDRIVE text is longer than {OPENDRIVE_LIMIT >> 20} MB")
        try:
            self._generated = (opendrive, towns.road_network_from_text(GENERATED_MAP, opendrive))
        except Exception as error:
            log.debug("unreadable OpenDRIVE", exc_info=True)
            raise Refusal(f"the OpenDRIVE text cannot be read: {error}") from None

    def _opened(self, name: str, first_id: int = 1) -> Episode:
        short = name.rstrip("/").rsplit("/", 1)[-1]
        layered = "_Opt" if short.lower().endswith("_opt") else ""  # CARLA's layered maps keep their own names
        if short == GENERATED_MAP and self._generated is not None:
            text, network = self._generated
        else:
            try:
                short = towns.canonical_name(short)
                text, network = towns.opendrive_text(short), towns.road_network(short)
            except (towns.UnknownTown, towns.TownUnavailable) as error:
                raise Refusal(f"Map '{name}' not found: {error}") from None
        self._episodes += 1
        town = Town(network, seed=self._seed, capacity=self._capacity)
        return Episode(self._episodes, f"Carla/Maps/{short}{layered}", text, town, first_id)

    def _start(self, layers: int = ALL_LAYERS) -> None:
        """Make what goes with the new episode, and tell all listeners at once."""
        self.surroundings = Surroundings(self.episode.town.network, self._things(), layers)
        self.surroundings.settle(self.episode.town)
        if self._map_key in self._renderers:
            self.surroundings.dress(self._renderers[self._map_key])
        self.observer = WorldObserver(self.episode)
        self.rig = SensorRig(self.episode, self.hub, self.observer, self.renderer, self.painter, self.ray_caster,
                             self.thing_finder)  # fmt: skip
        self._unseen = MAP_CHANGE_SNAPSHOTS
        self.frame += 1
        self._publish_snapshot()

    def _things(self) -> Scenery:
        """The scenery of the present map, kept for reloads."""
        key = self._map_key
        if key not in self._scenery:
            _make_room(self._scenery, KEPT_SCENERIES)
            self._scenery[key] = load_scenery(self.episode.town.network, self._seed)
        return self._scenery[key]

    def surroundings_changed(self) -> None:
        """Bring what clients did to the map's objects and lamps into the town and its pictures."""
        self.painter.finish()
        self.surroundings.changed = True
        self.surroundings.settle(self.episode.town)
        if self._map_key in self._renderers:
            self.surroundings.dress(self._renderers[self._map_key])

    def lamps_changed(self) -> None:
        """Make all clients ask for the street lamps again."""
        self._stale_lamps = LIGHT_UPDATE_SNAPSHOTS

    def renderer(self) -> Any:
        """The renderer of the present map; made on first use, because a scene takes a while to bake."""
        from drivesim.town.render import TownRenderer

        key = self._map_key
        if key not in self._renderers:
            _make_room(self._renderers, KEPT_RENDERERS)
            self._renderers[key] = TownRenderer(self.episode.town.network, seed=self._seed)
            self.surroundings.dress(self._renderers[key])
        return self._renderers[key]

    def ray_caster(self) -> Any:
        """What casts rays into the present map; made on first use."""
        from drivesim.town.render.raycast import RayCaster

        key = self._map_key
        if key not in self._casters:
            _make_room(self._casters, KEPT_RENDERERS)
            renderer = self.renderer()
            self._casters[key] = RayCaster(renderer.scene, renderer.standing)
        return self._casters[key]

    def thing_finder(self) -> Any:
        """What finds the things that pixels of the present map show; made on first use."""
        from drivesim.town.render.seen_things import ThingFinder

        key = self._map_key
        if key not in self._finders:
            _make_room(self._finders, KEPT_RENDERERS)
            self._finders[key] = ThingFinder(self.renderer().scene)
        return self._finders[key]

    @property
    def _map_key(self) -> str:
        """Names the present map, also among several that a client generated."""
        return f"{self.episode.town.network.name} {hash(self.episode.opendrive)}"

    @property
    def navigation(self) -> NavigationFile:
        """The navigation mesh of the present map."""
        key = self._map_key
        if key not in self._navigation:
            _make_room(self._navigation, KEPT_SCENERIES)
            self._navigation[key] = navigation_file(self.episode.town.network)
        return self._navigation[key]

    def warm_up(self) -> None:
        """Compile what a step needs, in a town aside, so that no client waits for it."""
        network = self.episode.town.network
        town = Town(network, seed=0, capacity=4, solids=np.zeros((1, 6)))
        if len(network.spawn_yaw_rad):
            x, y, z = network.spawn_xyz_m[0].tolist()
            town.spawn("vehicle.tesla.model3", x, y, z, float(network.spawn_yaw_rad[0]))
            town.spawn("walker.pedestrian.0001", x, y, z, 0.0, check_collision=False)
        town.step(FREE_RUN_S)

    def draw_ahead(self) -> None:
        """Make the renderer and draw and cast a little, which compiles what sensors need."""
        rehearse(self.rig, self.painter)

    # ---- time

    @property
    def delta_s(self) -> float:
        """Seconds that the next tick advances."""
        return self.settings.fixed_delta_s or FREE_RUN_S

    def tick(self) -> int:
        """Advance by one step; snapshot and sensor data are in the sockets when it returns the new frame."""
        self.painter.finish()
        self.episode.step(self.delta_s)
        self.stepped(self.delta_s)
        self.frame += 1
        self._publish_snapshot()
        self.published(self.delta_s)
        draw = not self.settings.no_rendering_mode
        self.rig.publish(self.frame, self.delta_s, lossy=self._lossy, draw=draw)
        return self.frame

    @property
    def _lossy(self) -> bool:
        return not self.settings.synchronous_mode

    def _publish_snapshot(self) -> None:
        flags = STATE_MAP_CHANGE if self._unseen > 0 else 0
        flags |= STATE_PENDING_LIGHTS if self._stale_lamps > 0 else 0
        self._unseen -= 1
        self._stale_lamps -= 1
        parts = self.observer.observe(self.frame, self.delta_s, flags)
        self.hub.publish(WORLD_STREAM, parts, lossy=self._lossy)

    # ---- streams

    def _is_stream(self, stream_id: int) -> bool:
        wanted = stream_of(stream_id) == WORLD_STREAM
        return wanted or any(actor.stream_id == stream_id for actor in self.episode.actors)

    def _subscribed(self, stream_id: int, connection: Connection) -> None:
        if stream_id == WORLD_STREAM and self.observer.latest:
            self.hub.send_to(connection, self.observer.latest)


def _nothing(_: float) -> None:
    """What listens where nobody does."""


def _make_room(kept: dict[str, Any], most: int) -> None:
    """Drop the oldest entries until there is room for one more."""
    while len(kept) >= most:
        kept.pop(next(iter(kept)))
