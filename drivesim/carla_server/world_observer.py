"""Fills the world snapshot from an episode, for all actors at once."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server import snapshot
from drivesim.carla_server.actors import ServerActor
from drivesim.carla_server.episode import Episode
from drivesim.carla_server.lights import states_at
from drivesim.carla_server.poses import Floats, matrix_from_pose, pose_from_matrix
from drivesim.carla_server.snapshot import LIGHT_RECORD, RECORD_SIZE, VEHICLE_RECORD, WALKER_RECORD
from drivesim.carla_server.streaming import HEADER
from drivesim.town.state import KIND_VEHICLE, KIND_WALKER

NO_TRANSFORM = (0.0,) * 6


class WorldObserver:
    """Keeps the latest snapshot of an episode: actor records, and the poses of sensors beside them."""

    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        self.latest: list[bytes | memoryview] = []
        self._changes = -1
        self._fixed: list[ServerActor] = []  # unattached: lights, signs, spectator, free sensors
        self._attached: list[ServerActor] = []
        self._place: dict[int, int] = {}  # actor id -> record, of attached and fixed actors
        self._records: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._loose: Floats = np.zeros((0, 4, 4))
        self._rotation: Floats = np.zeros((0, 3))

    def observe(self, frame: int, delta_s: float, flags: int) -> list[bytes | memoryview]:
        """The parts of a whole snapshot message (48-byte sensor header first); also kept as `latest`."""
        state = self.episode.town.state
        if self._changes != self.episode.actors.changes:
            self._arrange()
        rows = np.flatnonzero(self.episode.actors.row_id)
        vehicles = rows[state.kind[rows] == KIND_VEHICLE]
        walkers = rows[state.kind[rows] == KIND_WALKER]
        others = rows[(state.kind[rows] != KIND_VEHICLE) & (state.kind[rows] != KIND_WALKER)]
        loose = len(self._fixed) + len(self._attached)
        self._place_loose()
        records = np.empty((loose + len(rows)) * RECORD_SIZE, np.uint8)
        records[: loose * RECORD_SIZE] = self._records
        start = loose * RECORD_SIZE
        for group, fill in ((vehicles, self._fill_vehicles), (walkers, self._fill_walkers), (others, self._fill_rows)):
            end = start + len(group) * RECORD_SIZE
            if end > start:
                records[start:end] = 0
                fill(records[start:end], group)
            start = end
        time_s = float(state.time_s[0])
        head = HEADER.pack(snapshot.WORLD_OBSERVER, frame, time_s, *NO_TRANSFORM)
        head += snapshot.header(self.episode.episode_id, time.time(), delta_s, flags)
        self.latest = [head, records.data]
        return self.latest

    def pose(self, actor: ServerActor) -> tuple[Floats, Floats]:
        """World matrix (4, 4), and roll, pitch, yaw in radians, of an actor outside the town, as of this snapshot."""
        place = self._place[actor.actor_id]
        return self._loose[place], self._rotation[place]

    def _arrange(self) -> None:
        self._changes = self.episode.actors.changes
        loose = [actor for actor in self.episode.actors if actor.row < 0]
        self._fixed = [actor for actor in loose if actor.relative is None]
        self._attached = [actor for actor in loose if actor.relative is not None]
        ordered = self._fixed + self._attached
        self._place = {actor.actor_id: place for place, actor in enumerate(ordered)}
        self._records = np.zeros(len(ordered) * RECORD_SIZE, np.uint8)
        records = self._records.view(LIGHT_RECORD)
        records["id"] = [actor.actor_id for actor in ordered]
        records["state"] = snapshot.ACTIVE
        self._lit = np.array([place for place, actor in enumerate(ordered) if actor.light >= 0], np.int64)
        network = self.episode.town.network
        if len(self._lit):
            lights = np.array([ordered[place].light for place in self._lit])
            records["sign_id"][self._lit] = np.char.encode(network.light_signal_id[lights], "utf-8").astype("S32")
            self._light_index = lights
        self._loose = np.zeros((len(ordered), 4, 4))
        self._movable = [place for place, actor in enumerate(self._fixed) if not actor.type_id.startswith("traffic.")]
        for place, actor in enumerate(self._fixed):
            self._loose[place] = actor.matrix
        self._parent_rows = np.array([self._parent_row(actor) for actor in self._attached], np.int64)
        self._relative = np.array([actor.relative for actor in self._attached]).reshape(-1, 4, 4)
        self._chained = np.flatnonzero(self._parent_rows < 0)

    def _parent_row(self, actor: ServerActor) -> int:
        parent = self.episode.actors.get(actor.parent_id)
        return parent.row if parent is not None else -1

    def _place_loose(self) -> None:
        state = self.episode.town.state
        fixed = len(self._fixed)
        for place in self._movable:
            self._loose[place] = self._fixed[place].matrix
        if len(self._attached):
            rows = np.maximum(self._parent_rows, 0)
            for index, actor in enumerate(self._attached):
                if actor.relative is not None:
                    self._relative[index] = actor.relative
            self._loose[fixed:] = matrix_from_pose(self._wire_xyz(rows), state.rotation[rows]) @ self._relative
            for chained in self._chained.tolist():
                self._loose[fixed + chained] = self.episode.matrix_of(self._attached[chained])
        records = self._records.view(LIGHT_RECORD)
        xyz, self._rotation = pose_from_matrix(self._loose)
        records["location"] = xyz
        records["rotation"] = np.degrees(self._rotation[:, [1, 2, 0]])
        if len(self._lit):
            self._fill_lights(records)

    def _fill_lights(self, records: NDArray[np.void]) -> None:
        state, lit, lights = self.episode.town.state, self._lit, self._light_index
        records["green"][lit] = state.light_durations_s[lights, 0]
        records["yellow"][lit] = state.light_durations_s[lights, 1]
        records["red"][lit] = state.light_durations_s[lights, 2]
        records["elapsed"][lit] = state.light_elapsed_s[lights]
        records["frozen"][lit] = state.light_frozen[lights]
        records["light"][lit] = state.light_state[lights]

    def _wire_xyz(self, rows: NDArray[np.int64]) -> Floats:
        state = self.episode.town.state
        xyz = state.xyz[rows]
        xyz[:, 2] += np.where(state.kind[rows] == KIND_WALKER, state.half_size[rows, 2], 0.0)
        return xyz

    def _fill_common(self, records: NDArray[np.void], rows: NDArray[np.int64]) -> None:
        state = self.episode.town.state
        records["id"] = self.episode.actors.row_id[rows]
        records["state"] = snapshot.ACTIVE
        records["location"] = self._wire_xyz(rows)
        records["rotation"] = np.degrees(state.rotation[rows][:, [1, 2, 0]])
        records["velocity"] = state.velocity[rows]
        records["angular_velocity"][:, 2] = np.degrees(state.yaw_rate[rows])
        records["acceleration"] = state.acceleration[rows]

    def _fill_rows(self, data: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        self._fill_common(data.view(WALKER_RECORD), rows)

    def _fill_walkers(self, data: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        records, control = data.view(WALKER_RECORD), self.episode.town.state.walker_control[rows]
        self._fill_common(records, rows)
        records["direction"], records["speed"], records["jump"] = control[:, :3], control[:, 3], control[:, 4]

    def _fill_vehicles(self, data: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        records, state = data.view(VEHICLE_RECORD), self.episode.town.state
        self._fill_common(records, rows)
        control = state.control[rows]
        records["pedals"], records["flags"], records["gear"] = control[:, :3], control[:, 3:6] != 0.0, control[:, 6]
        records["speed_limit_kmh"] = 3.6 * self.episode.speed_limits_mps(rows)
        lights = self.episode.stop_boxes.lights_at(state.xyz[rows], state.rotation[rows, 2], state.half_size[rows, 0])
        records["light_state"] = states_at(lights, state.light_state)
        records["has_light"] = lights >= 0
        records["light_id"] = np.where(lights >= 0, self.episode.first_light_id + lights, 0)
