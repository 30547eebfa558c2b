"""The sensors of an episode: which are due in a tick, and what they say."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server.actors import ServerActor
from drivesim.carla_server.cameras import CameraModel, Painter, Scene, Shot, hidden_row
from drivesim.carla_server.connection import Part
from drivesim.carla_server.episode import Episode
from drivesim.carla_server.geography import GeoReference
from drivesim.carla_server.poses import Floats
from drivesim.carla_server.rpc import encode, pack
from drivesim.carla_server.sensor_attributes import SENSOR_INDEX
from drivesim.carla_server.streaming import HEADER, StreamHub
from drivesim.carla_server.world_observer import WorldObserver
from drivesim.town.state import KIND_FREE

GRAVITY_MPS2 = 9.81
IMAGE = struct.Struct("<IIf")
SCENERY = ServerActor(0, "static.other", tags=b"\x16")
DUE_SLACK_S = 1e-6


@dataclass
class Sensor:
    """A listening sensor: its data's index on the wire, its rhythm and its own generator."""

    actor: ServerActor
    index: int
    period_s: float
    rng: np.random.Generator
    camera: CameraModel | None = None
    next_due_s: float | None = None
    noise: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def of(actor: ServerActor) -> Sensor:
        """Read a sensor actor's attributes."""
        camera = CameraModel.of(actor) if actor.type_id.startswith("sensor.camera.") else None
        noise = {name: actor.number(name, 0.0) for name, _, _ in actor.attributes if name.startswith("noise_")}
        seed = int(abs(noise.get("noise_seed", 0.0)))
        return Sensor(actor, SENSOR_INDEX[actor.type_id], max(actor.number("sensor_tick", 0.0), 0.0),
                      np.random.default_rng(seed), camera, noise=noise)  # fmt: skip

    def due(self, time_s: float) -> bool:
        """Is it the sensor's turn? The first time is at once; then every `period_s`."""
        if self.next_due_s is None:
            self.next_due_s = time_s
        if time_s < self.next_due_s - DUE_SLACK_S:
            return False
        if self.period_s > 0.0:
            missed = math.floor((time_s - self.next_due_s + DUE_SLACK_S) / self.period_s)
            self.next_due_s += self.period_s * (missed + 1)
        return True

    def blur(self, values: list[float], kind: str, axes: tuple[str, ...]) -> list[float]:
        """Add the sensor's own bias and gaussian noise (attributes `noise_<kind>_stddev_<axis>` and alike)."""
        result = []
        for value, axis in zip(values, axes, strict=True):
            stem = (f"noise_{kind}_stddev_{axis}", f"noise_{kind}_bias_{axis}") if kind else (
                f"noise_{axis}_stddev", f"noise_{axis}_bias")  # fmt: skip
            spread = self.noise.get(stem[0], 0.0)
            noise = self.rng.normal(0.0, spread) if spread > 0.0 else 0.0
            result.append(value + self.noise.get(stem[1], 0.0) + noise)
        return result


class SensorRig:
    """All sensors of an episode; `publish` sends what they see after a tick to whoever listens."""

    def __init__(
        self, episode: Episode, hub: StreamHub, observer: WorldObserver, renderer: Callable[[], Any], painter: Painter
    ) -> None:  # fmt: skip
        self._episode = episode
        self._painter = painter
        self._hub = hub
        self._observer = observer
        self._renderer = renderer
        self._sensors: dict[int, Sensor] = {}
        self._changes = -1
        self._geography = GeoReference.of(episode.opendrive)
        self._appearance: Any = None
        self._weather: NDArray[np.float64] = np.zeros(0)

    def publish(self, frame: int, *, lossy: bool, draw: bool) -> None:
        """Send the data of every sensor that is due and has a reader.

        Args:
            frame: the snapshot's frame, which tags all data.
            lossy: skip readers that lag (asynchronous mode).
            draw: False leaves the cameras out (no-rendering mode).
        """
        self._refresh()
        time_s = float(self._episode.town.state.time_s[0])
        shots: list[Shot] = []
        for sensor in self._sensors.values():
            if not self._hub.has_readers(sensor.actor.stream_id) or not sensor.due(time_s):
                continue
            if sensor.camera is not None:
                if draw:
                    shots.append(self._shot(sensor, sensor.camera))
                continue
            for body in self._bodies(sensor):
                self._send(sensor, frame, time_s, [body], lossy)
        if shots:
            self.draw(shots, frame, time_s, lossy=lossy)

    def _refresh(self) -> None:
        table = self._episode.actors
        if self._changes == table.changes:
            return
        self._changes = table.changes
        self._sensors = {
            actor.actor_id: self._sensors.get(actor.actor_id) or Sensor.of(actor) for actor in table if actor.stream_id
        }

    def _send(self, sensor: Sensor, frame: int, time_s: float, parts: list[Part], lossy: bool) -> None:
        head = _head(sensor.index, frame, time_s, *self._observer.pose(sensor.actor))
        self._hub.publish(sensor.actor.stream_id, [head, *parts], lossy=lossy)

    # ---- cameras

    def _shot(self, sensor: Sensor, camera: CameraModel) -> Shot:
        matrix, rotation = self._observer.pose(sensor.actor)
        hide = hidden_row(self._episode.town.state, self._parent_row(sensor.actor), sensor.actor.relative)
        return Shot(sensor.actor, camera, matrix.copy(), rotation.copy(), hide)

    def draw(self, shots: list[Shot], frame: int, time_s: float, *, lossy: bool) -> None:
        """Begin to draw; the pictures go to their streams when they are done, at the latest before the next step."""
        state = self._episode.town.state
        if not np.array_equal(self._weather, state.weather):
            from drivesim.town.render import Appearance

            self._weather = state.weather.copy()
            self._appearance = Appearance.from_weather(self._weather, seed=0)
        row_id = self._episode.actors.row_id.copy()
        scene = Scene(self._renderer(), state.copy(), self._appearance, int(state.tick[0]), row_id)
        self._painter.start(scene, shots, lambda: self._deliver(shots, frame, time_s, lossy))

    def _deliver(self, shots: list[Shot], frame: int, time_s: float, lossy: bool) -> None:
        for shot in shots:
            if not self._hub.has_readers(shot.actor.stream_id):
                continue
            lens = IMAGE.pack(shot.model.width, shot.model.height, shot.model.fov_deg)
            head = _head(SENSOR_INDEX[shot.actor.type_id], frame, time_s, shot.matrix, shot.rotation)
            self._hub.publish(shot.actor.stream_id, [head, lens, shot.body.data], lossy=lossy)

    # ---- everything else

    def _bodies(self, sensor: Sensor) -> list[bytes]:
        kind = sensor.actor.type_id
        if kind == "sensor.other.imu":
            return [self._imu(sensor)]
        if kind == "sensor.other.gnss":
            return [self._gnss(sensor)]
        if kind == "sensor.other.collision":
            return self._collisions(sensor)
        return self._obstacles(sensor) if kind == "sensor.other.obstacle" else []

    def _parent_row(self, actor: ServerActor) -> int:
        parent = self._episode.actors.get(actor.parent_id) if actor.relative is not None else None
        return parent.row if parent is not None else -1

    def _imu(self, sensor: Sensor) -> bytes:
        state = self._episode.town.state
        row = self._parent_row(sensor.actor)
        matrix, _ = self._observer.pose(sensor.actor)
        local = matrix[:3, :3].T
        acceleration = state.acceleration[row] if row >= 0 else np.zeros(3)
        felt = local @ (acceleration + np.array([0.0, 0.0, GRAVITY_MPS2]))
        turn = local @ np.array([0.0, 0.0, float(state.yaw_rate[row]) if row >= 0 else 0.0])
        compass = math.atan2(matrix[0, 0], -matrix[1, 0]) % (2.0 * math.pi)  # 0 is north, which is -y
        axes = ("x", "y", "z")
        shown = [sensor.blur(felt.tolist(), "accel", axes), sensor.blur(turn.tolist(), "gyro", axes), compass]
        return bytes(pack(shown))

    def _gnss(self, sensor: Sensor) -> bytes:
        matrix, _ = self._observer.pose(sensor.actor)
        place = self._geography.locate(*matrix[:3, 3].tolist())
        return bytes(pack(sensor.blur(list(place), "", ("lat", "lon", "alt"))))

    def _collisions(self, sensor: Sensor) -> list[bytes]:
        contacts = self._episode.town.collisions
        row = self._parent_row(sensor.actor)
        if row < 0 or not len(contacts):
            return []
        bodies = []
        for contact in contacts[(contacts["row_a"] == row) | (contacts["row_b"] == row)]:
            first = int(contact["row_a"]) == row
            other = int(contact["row_b"] if first else contact["row_a"])
            impulse = (contact["impulse"] if first else -contact["impulse"]).tolist()
            bodies.append(self._event(row, other, impulse))
        return bodies

    def _obstacles(self, sensor: Sensor) -> list[bytes]:
        row = self._parent_row(sensor.actor)
        matrix, _ = self._observer.pose(sensor.actor)
        reach_m, radius_m = sensor.actor.number("distance", 5.0), sensor.actor.number("hit_radius", 0.5)
        hit = nearest_ahead(self._episode, matrix, row, reach_m, radius_m)
        return [self._event(row, hit[0], hit[1])] if hit is not None else []

    def _event(self, row: int, other: int, what: Any) -> bytes:
        table, token = self._episode.actors, self._hub.token
        own, met = table.of_row(row) or SCENERY, table.of_row(other) or SCENERY
        return b"\x93" + encode(own.to_wire(token)) + encode(met.to_wire(token)) + encode(what)


def _head(index: int, frame: int, time_s: float, matrix: Floats, rotation: Floats) -> bytes:
    """The 48 bytes before every sensor's data."""
    roll, pitch, yaw = np.degrees(rotation).tolist()
    return HEADER.pack(index, frame, time_s, *matrix[:3, 3].tolist(), pitch, yaw, roll)


def nearest_ahead(
    episode: Episode, matrix: Floats, own_row: int, reach_m: float, radius_m: float
) -> tuple[int, float] | None:  # fmt: skip
    """The first actor that a sphere meets when it moves along the x axis of `matrix`: its row and the way to it."""
    state = episode.town.state
    rows = np.flatnonzero(state.kind != KIND_FREE)
    rows = rows[rows != own_row]
    away = state.xyz[rows, :2] - matrix[:2, 3]
    near = (away**2).sum(-1) < (reach_m + 15.0) ** 2
    rows, away = rows[near], away[near]
    yaw = state.rotation[rows, 2]
    axes = np.stack([np.stack([np.cos(yaw), np.sin(yaw)], -1), np.stack([-np.sin(yaw), np.cos(yaw)], -1)], -2)
    start = -(axes @ away[:, :, None])[..., 0]
    along = (axes @ matrix[:2, 0])
    half = state.half_size[rows, :2] + radius_m
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = (-half - start) / along, (half - start) / along
    enter = np.nan_to_num(np.minimum(low, high), nan=-np.inf).max(-1, initial=-np.inf)
    leave = np.nan_to_num(np.maximum(low, high), nan=np.inf).min(-1, initial=np.inf)
    level = np.abs(matrix[2, 3] - state.xyz[rows, 2] - state.half_size[rows, 2]) < state.half_size[rows, 2] + radius_m
    hit = (enter <= leave) & (leave >= 0.0) & (enter <= reach_m) & level
    if not hit.any():
        return None
    first = int(np.argmin(np.where(hit, enter, np.inf)))
    return int(rows[first]), max(float(enter[first]), 0.0)


