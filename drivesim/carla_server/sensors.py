"""The sensors of an episode: which are due in a tick, and what they say."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server.actors import ServerActor
from drivesim.carla_server.cameras import EVENTS, FLOW, SURFACES, CameraModel, Scene, Shot, drawing_tasks, hidden_row
from drivesim.carla_server.connection import Part
from drivesim.carla_server.episode import Episode
from drivesim.carla_server.painter import Painter, Task
from drivesim.carla_server.poses import Floats
from drivesim.carla_server.readings import Noise, Readings
from drivesim.carla_server.sensor_attributes import SENSOR_INDEX
from drivesim.carla_server.streaming import HEADER, StreamHub
from drivesim.carla_server.world_observer import WorldObserver

IMAGE = struct.Struct("<IIf")
DUE_SLACK_S = 1e-6
LIDARS = ("sensor.lidar.ray_cast", "sensor.lidar.ray_cast_semantic")
RADAR = "sensor.other.radar"
RAY_SENSORS = (*LIDARS, RADAR)


@dataclass
class Sensor:
    """A listening sensor: its rhythm, its dice, and what its kind keeps from one measurement to the next."""

    actor: ServerActor
    period_s: float
    noise: Noise
    camera: CameraModel | None = None
    kept: Any = None  # Lidar, Radar, EventCamera, or what a motion camera saw
    next_due_s: float | None = None
    last_s: float | None = None

    @staticmethod
    def of(actor: ServerActor) -> Sensor:
        """Read a sensor actor's attributes."""
        camera = CameraModel.of(actor) if actor.type_id.startswith("sensor.camera.") else None
        noise = Noise.of(actor)
        return Sensor(actor, max(actor.number("sensor_tick", 0.0), 0.0), noise, camera, _kept(actor, camera, noise))

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

    def span_s(self, time_s: float, delta_s: float) -> float:
        """Seconds that this measurement stands for: since the last one, but not more than its rhythm says."""
        last, self.last_s = self.last_s, time_s
        most = max(self.period_s, delta_s)
        return most if last is None else min(max(time_s - last, 0.0), self.period_s + delta_s)


def _kept(actor: ServerActor, camera: CameraModel | None, noise: Noise) -> Any:
    """What a sensor's kind remembers, or None; late imports: the kernels take a while to load."""
    if camera is not None and camera.kind == EVENTS:
        from drivesim.carla_server.event_camera import EventCamera, EventModel

        return EventCamera(EventModel.of(actor), noise.rng)
    if camera is not None and camera.kind == FLOW:
        from drivesim.carla_server.surface_camera import Before

        return Before()
    if actor.type_id in LIDARS:
        from drivesim.carla_server.lidar import Lidar, LidarModel

        return Lidar(LidarModel.of(actor), noise.rng)
    if actor.type_id == RADAR:
        from drivesim.carla_server.radar import Radar, RadarModel

        return Radar(RadarModel.of(actor), noise.rng)
    return None


class SensorRig:
    """All sensors of an episode; `publish` sends what they see after a tick to whoever listens."""

    def __init__(
        self, episode: Episode, hub: StreamHub, observer: WorldObserver, renderer: Callable[[], Any], painter: Painter,
        ray_caster: Callable[[], Any], thing_finder: Callable[[], Any],
    ) -> None:  # fmt: skip
        self._episode = episode
        self._painter = painter
        self._hub = hub
        self._observer = observer
        self._renderer = renderer
        self._ray_caster = ray_caster
        self._thing_finder = thing_finder
        self._readings = Readings(episode, hub)
        self._sensors: dict[int, Sensor] = {}
        self._changes = -1
        self._appearance: Any = None
        self._weather: NDArray[np.float64] = np.zeros(0)

    def publish(self, frame: int, delta_s: float, *, lossy: bool, draw: bool) -> None:
        """Send the data of every sensor that is due and has a reader.

        Args:
            frame: the snapshot's frame, which tags all data.
            delta_s: seconds that the tick advanced.
            lossy: skip readers that lag (asynchronous mode).
            draw: False leaves the cameras out (no-rendering mode).
        """
        self._refresh()
        time_s = float(self._episode.town.state.time_s[0])
        shots: list[Shot] = []
        sweeps: list[Any] = []
        for sensor in self._sensors.values():
            if not self._hub.has_readers(sensor.actor.stream_id) or not sensor.due(time_s):
                continue
            if sensor.camera is not None:
                if draw:
                    shots.append(self._shot(sensor, sensor.camera))
            elif sensor.actor.type_id in RAY_SENSORS:
                sweeps.append(self._sweep(sensor, sensor.span_s(time_s, delta_s)))
            else:
                matrix, rotation = self._observer.pose(sensor.actor)
                for body in self._readings.of(sensor.actor, matrix, sensor.noise):
                    self._send(sensor.actor, frame, time_s, matrix, rotation, [body], lossy)
        if shots or sweeps:
            self.draw(shots, frame, time_s, lossy=lossy, sweeps=sweeps)

    def _refresh(self) -> None:
        table = self._episode.actors
        if self._changes == table.changes:
            return
        self._changes = table.changes
        self._sensors = {
            actor.actor_id: self._sensors.get(actor.actor_id) or Sensor.of(actor) for actor in table if actor.stream_id
        }

    def _send(
        self, actor: ServerActor, frame: int, time_s: float, matrix: Floats, rotation: Floats, parts: list[Part],
        lossy: bool,
    ) -> None:  # fmt: skip
        if self._hub.has_readers(actor.stream_id):
            head = _head(SENSOR_INDEX[actor.type_id], frame, time_s, matrix, rotation)
            self._hub.publish(actor.stream_id, [head, *parts], lossy=lossy)

    # ---- cameras, lidars, radars

    def _shot(self, sensor: Sensor, camera: CameraModel) -> Shot:
        matrix, rotation = self._observer.pose(sensor.actor)
        row = self._readings.parent_row(sensor.actor)
        hide = hidden_row(self._episode.town.state, row, sensor.actor.relative)
        return Shot(sensor.actor, camera, matrix.copy(), rotation.copy(), hide, sensor.kept)

    def _sweep(self, sensor: Sensor, span_s: float) -> Any:
        from drivesim.carla_server.rays import enclosing_row

        actor = sensor.actor
        matrix, rotation = self._observer.pose(actor)
        hide = enclosing_row(self._episode.town.state, self._readings.parent_row(actor), matrix)
        pose = (actor, matrix.copy(), rotation.copy(), hide, span_s)
        if actor.type_id == RADAR:
            return sensor.kept.sweep(*pose, self._readings.velocity(actor, matrix))
        return sensor.kept.sweep(*pose)

    def draw(
        self, shots: list[Shot], frame: int, time_s: float, *, lossy: bool, sweeps: list[Any] | None = None
    ) -> None:
        """Begin to draw and cast; all goes to its stream when it is done, at the latest before the next step."""
        table, state = self._episode.actors, self._episode.town.state.copy()
        row_id = table.row_id.copy()
        tasks: list[Task] = []
        pictures = [shot for shot in shots if shot.model.kind not in SURFACES]
        if pictures:
            self._dress(state.weather)
            seed = int(state.tick[0])
            scene = Scene(self._renderer(), state, self._appearance, seed, time_s, row_id)
            tasks += drawing_tasks(scene, pictures, self._painter.threads)
        space: Any = None
        if sweeps or len(pictures) < len(shots):
            from drivesim.carla_server.rays import RayScene

            space = RayScene(self._ray_caster(), state, row_id, self._episode.first_light_id)
            tasks += self._surface_tasks([shot for shot in shots if shot.model.kind in SURFACES], space)
            tasks += [task for sweep in sweeps or [] for task in sweep.tasks(space, self._painter.threads)]
        self._painter.start(tasks, lambda: self._deliver(shots, sweeps or [], space, frame, time_s, lossy))

    def _surface_tasks(self, shots: list[Shot], space: Any) -> list[Task]:
        if not shots:
            return []
        from drivesim.carla_server.surface_camera import SurfaceScene

        scene = SurfaceScene(self._thing_finder(), space.staged)
        return [partial(scene.draw, shot) for shot in shots]

    def _dress(self, weather: NDArray[np.float64]) -> None:
        if not np.array_equal(self._weather, weather):
            from drivesim.town.render import Appearance

            self._weather = weather.copy()
            self._appearance = Appearance.from_weather(self._weather, seed=0)

    def _deliver(
        self, shots: list[Shot], sweeps: list[Any], space: Any, frame: int, time_s: float, lossy: bool
    ) -> None:
        for shot in shots:
            if shot.model.kind == EVENTS and not len(shot.body):
                continue  # as in CARLA: no events, no message
            lens = IMAGE.pack(shot.model.width, shot.model.height, shot.model.fov_deg)
            self._send(
                shot.actor, frame, time_s, shot.matrix, shot.rotation, [lens, shot.body.view(np.uint8).data], lossy
            )
        for sweep in sweeps:
            self._send(sweep.actor, frame, time_s, sweep.matrix, sweep.rotation, [sweep.pack(space, sweep)], lossy)


def _head(index: int, frame: int, time_s: float, matrix: Floats, rotation: Floats) -> bytes:
    """The 48 bytes before every sensor's data."""
    roll, pitch, yaw = np.degrees(rotation).tolist()
    return HEADER.pack(index, frame, time_s, *matrix[:3, 3].tolist(), pitch, yaw, roll)
