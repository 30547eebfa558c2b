"""Recording a running episode: what clients saw of each tick goes into a log of CARLA's format.

A frame of the log holds the snapshot that its tick published, so a replay of it shows clients the same poses.
Actors that came or went since the frame before are told from the table of actors; unlike CARLA's, this recorder notes
contacts of all actors, whether they carry a collision sensor or not.
"""

from __future__ import annotations

import logging
import os
import stat
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server import recorder_file as log
from drivesim.carla_server import recorder_writer as writer
from drivesim.carla_server.actors import ServerActor
from drivesim.carla_server.episode import Episode
from drivesim.carla_server.poses import pose_from_matrix
from drivesim.carla_server.recorder_file import LAYOUT, Creation
from drivesim.carla_server.snapshot import LIGHT_RECORD, RECORD_SIZE, VEHICLE_RECORD, WALKER_RECORD
from drivesim.carla_server.world_observer import WorldObserver

messages = logging.getLogger(__name__)

CM = 100.0
NOBODY = 0xFFFFFFFF
COLLISION_SENSOR = "sensor.other.collision"
PhysicsControl = Callable[[Episode, int], list[Any]]  # VehiclePhysicsControl of an actor, as the wire has it


def kind_of(type_id: str) -> int:
    """CARLA's kind of an actor, by its type id."""
    for start, kind in (("vehicle.", log.A_VEHICLE), ("walker.", log.A_WALKER), ("sensor.", log.A_SENSOR),
                        ("traffic.traffic_light", log.A_LIGHT), ("traffic.", log.A_SIGN)):  # fmt: skip
        if type_id.startswith(start):
            return kind
    return log.OTHER


class Recorder:
    """At most one recording at a time."""

    def __init__(self, physics_control: PhysicsControl) -> None:
        self._physics_control = physics_control
        self._recording: _Recording | None = None

    @property
    def running(self) -> bool:
        """Is a recording going on?"""
        return self._recording is not None

    def start(self, path: Path, episode: Episode, additional: bool) -> None:
        """Begin a log, in place of an older one of that name; the coming tick is its first frame.

        Args:
            path: the file; its folder exists.
            episode: what is recorded.
            additional: with velocities, boxes, physics and light times.

        Raises:
            OSError: the file cannot be written.
        """
        self.stop()
        flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(f"{path} is no regular file")
            os.ftruncate(descriptor, 0)
            self._recording = _Recording(descriptor, episode, additional, self._physics_control)
        except OSError:
            os.close(descriptor)
            raise

    def stop(self) -> None:
        """End the recording; harmless where there is none."""
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.close()

    def tick(self, episode: Episode, observer: WorldObserver, delta_s: float) -> None:
        """Add the snapshot that was just published; a new episode, or a full disk, ends the recording."""
        recording = self._recording
        if recording is None:
            return
        if recording.episode is not episode:
            self.stop()
            return
        try:
            recording.add(observer, delta_s)
        except OSError as error:
            messages.warning("the recording ends: %s", error)
            self.stop()


class _Recording:
    def __init__(
        self, descriptor: int, episode: Episode, additional: bool, physics_control: PhysicsControl
    ) -> None:  # fmt: skip
        self.episode = episode
        self._descriptor = descriptor
        self._additional = additional
        self._physics_control = physics_control
        self._known: dict[int, ServerActor] = {}
        self._changes = -1
        self._frames = 0
        self._elapsed_s = 0.0
        self._frame_at = 0
        self._size = 0
        self._contacts = 0
        self._began_s = time.monotonic()
        self._write(writer.header_bytes(episode.map_name.rsplit("/", 1)[-1], int(time.time())))

    def close(self) -> None:
        os.close(self._descriptor)

    def add(self, observer: WorldObserver, delta_s: float) -> None:
        """Write one frame, and the duration of the one before."""
        made, gone = self._changed()
        data: Any = observer.latest[1]
        shown = np.frombuffer(data, VEHICLE_RECORD)
        order = np.argsort(shown["id"])
        frame = _Frame(self.episode, self._known, np.frombuffer(data, np.uint8).reshape(-1, RECORD_SIZE)[order])
        self._elapsed_s += delta_s if self._frames else 0.0
        self._frames += 1
        parts = [
            writer.frame_start(self._frames, self._elapsed_s),
            writer.packet(log.VISUAL_TIME, struct.pack("<d", float(self.episode.town.state.time_s[0]))),
            writer.creations_packet([_creation(actor, frame) for actor in made]),
            writer.records_packet(log.DESTROYED, _rows(log.DESTROYED, ((one,) for one in gone))),
            writer.records_packet(log.PARENTED, _rows(log.PARENTED, _attached(made))),
            writer.records_packet(log.COLLISION, self._collisions()),
            frame.positions(), frame.light_states(), frame.vehicles(), frame.walkers(), frame.lamps(),
        ]  # fmt: skip
        if self._additional:
            parts += [frame.kinematics(), *self._extras(made)]
        parts.append(writer.packet(log.FRAME_END, b""))
        begin = self._size
        self._write(b"".join(parts))
        if self._frame_at:
            os.pwrite(self._descriptor, struct.pack("<d", delta_s), self._frame_at + writer.DURATION_OFFSET)
        self._frame_at = begin

    def _write(self, data: bytes) -> None:
        if self._size + len(data) > log.RECORDING_LIMIT:
            raise OSError(f"a recording has at most {log.RECORDING_LIMIT >> 20} MB")
        if os.pwrite(self._descriptor, data, self._size) != len(data):
            os.ftruncate(self._descriptor, self._size)  # whole frames only
            raise OSError("the disk is full")
        self._size += len(data)

    def _changed(self) -> tuple[list[ServerActor], list[int]]:
        actors = self.episode.actors
        if actors.changes == self._changes:
            return [], []
        self._changes = actors.changes
        made = [actor for actor in actors if self._known.get(actor.actor_id) is not actor]
        gone = [actor_id for actor_id, actor in self._known.items() if actors.get(actor_id) is not actor]
        self._known = {actor.actor_id: actor for actor in actors}
        return made, gone

    def _collisions(self) -> log.Records:
        """The contacts of this tick, each pair once; who carries a collision sensor comes first, else the hero."""
        contacts = self.episode.town.collisions
        pairs: dict[tuple[int, int], None] = {}
        if len(contacts):
            felt = {actor.parent_id for actor in self._known.values() if actor.type_id == COLLISION_SENSOR}
            for row_a, row_b in zip(contacts["row_a"].tolist(), contacts["row_b"].tolist(), strict=True):
                first, second = self._id_of(row_a), self._id_of(row_b)
                if not felt & {first, second} and self._hero(second):
                    first, second = second, first
                if first in felt or second not in felt:
                    pairs[first, second] = None
                if second in felt:
                    pairs[second, first] = None
        start, self._contacts = self._contacts, self._contacts + len(pairs)
        return _rows(log.COLLISION, ((start + k, *pair, *map(self._hero, pair)) for k, pair in enumerate(pairs)))

    def _id_of(self, row: int) -> int:
        actor = self.episode.actors.of_row(row)
        return actor.actor_id if actor is not None else NOBODY

    def _hero(self, actor_id: int) -> bool:
        actor = self._known.get(actor_id)
        return actor is not None and actor.value("role_name") == "hero"

    def _extras(self, made: list[ServerActor]) -> list[bytes]:
        """The additional data of new actors, and the wall clock."""
        signs = [actor for actor in made if actor.type_id.startswith("traffic.")]
        others = [actor for actor in made if not actor.type_id.startswith("traffic.")]
        parts = [writer.records_packet(log.BOX, _rows(log.BOX, (
            (actor.actor_id, _cm(actor.box_centre), _cm(actor.box_extent)) for actor in others)))]  # fmt: skip
        if signs:
            parts.append(writer.records_packet(log.TRIGGER_BOX, _rows(log.TRIGGER_BOX, map(_trigger_box, signs))))
        parts.append(writer.packet(log.PLATFORM_TIME, struct.pack("<d", time.monotonic() - self._began_s)))
        controls = [self._physics(actor) for actor in others if kind_of(actor.type_id) == log.A_VEHICLE]
        if controls:
            parts.append(writer.physics_packet(control for control in controls if control is not None))
        lights = [actor for actor in signs if actor.light >= 0]
        if lights:
            seconds = self.episode.town.state.light_durations_s
            rows = ((actor.actor_id, *seconds[actor.light].tolist()) for actor in lights)
            parts.append(writer.records_packet(log.LIGHT_TIMES, _rows(log.LIGHT_TIMES, rows)))
        return parts

    def _physics(self, actor: ServerActor) -> tuple[tuple[Any, ...], list[NDArray[np.float32]]] | None:
        try:
            control = self._physics_control(self.episode, actor.actor_id)
            torque, rpm, moi, full, engaged, free, automatic, _, clutch, final, gears = control[:11]
            mass, drag, centre, steering, wheels = control[11:16]
            plain = (actor.actor_id, rpm, moi, full, engaged, free, bool(automatic), clutch, final, mass, drag, *centre)
            struct.pack("<I5fB7f", *plain)
            curves = [(torque, 2), (gears, 3), (steering, 2), ([[*wheel[:9], *wheel[9]] for wheel in wheels], 12)]
            return plain, [np.array(rows, np.float32).reshape(-1, width) for rows, width in curves]
        except (TypeError, ValueError, IndexError, struct.error):  # kept as a client set it, whatever that was
            return None


class _Frame:
    """The records of one snapshot, in the order of their ids, as packets of the log."""

    def __init__(self, episode: Episode, actors: dict[int, ServerActor], data: NDArray[np.uint8]) -> None:
        self._episode, self._actors = episode, actors
        self._data = np.ascontiguousarray(data)
        self.shown = self._data.reshape(-1).view(VEHICLE_RECORD)
        ids = self.shown["id"].tolist()
        self._kind = np.array([kind_of(actors[one].type_id) if one in actors else -1 for one in ids], np.int8)

    def place(self, actor_id: int) -> tuple[Any, Any]:
        """Location (m) and pitch, yaw, roll (deg) of an actor."""
        record = self.shown[int(np.searchsorted(self.shown["id"], actor_id))]
        return record["location"], record["rotation"]

    def positions(self) -> bytes:
        chosen = self.shown[(self._kind >= log.OTHER) & (self._kind <= log.A_WALKER)]
        rows = self._begun(log.POSITION, chosen)
        rows["location"], rows["rotation"] = chosen["location"] * CM, chosen["rotation"][:, [2, 0, 1]]
        return writer.records_packet(log.POSITION, rows)

    def light_states(self) -> bytes:
        chosen = self._of(log.A_LIGHT, LIGHT_RECORD)
        rows = self._begun(log.LIGHT_STATE, chosen)
        rows["frozen"], rows["elapsed"], rows["state"] = chosen["frozen"], chosen["elapsed"], chosen["light"]
        return writer.records_packet(log.LIGHT_STATE, rows)

    def vehicles(self) -> bytes:
        chosen = self._of(log.A_VEHICLE, VEHICLE_RECORD)
        rows = self._begun(log.VEHICLE, chosen)
        rows["throttle"], rows["steer"], rows["brake"] = chosen["pedals"].T
        rows["hand"], rows["gear"] = chosen["flags"][:, 0], chosen["gear"]
        return writer.records_packet(log.VEHICLE, rows)

    def walkers(self) -> bytes:
        chosen = self._of(log.A_WALKER, WALKER_RECORD)
        rows = self._begun(log.WALKER, chosen)
        rows["speed"] = chosen["speed"]
        return writer.records_packet(log.WALKER, rows)

    def lamps(self) -> bytes:
        chosen = self._of(log.A_VEHICLE, VEHICLE_RECORD)
        rows = self._begun(log.LAMPS, chosen)
        rows["flags"] = self._episode.town.state.lamps[[self._actors[one].row for one in chosen["id"].tolist()]]
        return writer.records_packet(log.LAMPS, rows)

    def kinematics(self) -> bytes:
        chosen = self.shown[(self._kind == log.A_VEHICLE) | (self._kind == log.A_WALKER)]
        rows = self._begun(log.KINEMATICS, chosen)
        rows["velocity"], rows["angular"] = chosen["velocity"], chosen["angular_velocity"]
        return writer.records_packet(log.KINEMATICS, rows)

    def _of(self, kind: int, layout: np.dtype[np.void]) -> log.Records:
        chosen: log.Records = self._data[self._kind == kind].reshape(-1).view(layout)
        return chosen

    @staticmethod
    def _begun(number: int, chosen: log.Records) -> log.Records:
        rows = np.zeros(len(chosen), LAYOUT[number])
        rows["id"] = chosen["id"]
        return rows


def _rows(number: int, values: Iterable[tuple[Any, ...]]) -> log.Records:
    rows: log.Records = np.array(list(values), LAYOUT[number])
    return rows


def _cm(metres: Iterable[float]) -> tuple[float, ...]:
    return tuple(CM * float(value) for value in metres)


def _attached(made: list[ServerActor]) -> list[tuple[int, int]]:
    return [(actor.actor_id, actor.parent_id) for actor in made if actor.relative is not None]


def _creation(actor: ServerActor, frame: _Frame) -> Creation:
    """How an actor came into being: at its place in the world, or on its parent."""
    if actor.relative is not None:
        xyz, rotation = pose_from_matrix(actor.relative)
        roll, pitch, yaw = np.degrees(rotation).tolist()
    else:
        xyz, (pitch, yaw, roll) = frame.place(actor.actor_id)
    x, y, z = _cm(xyz)
    attributes = tuple((kind, name, value) for name, kind, value in actor.attributes)
    return Creation(actor.actor_id, kind_of(actor.type_id), (x, y, z), (float(roll), float(pitch), float(yaw)),
                    actor.uid, actor.type_id, attributes)  # fmt: skip


def _trigger_box(actor: ServerActor) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    centre = actor.matrix @ np.array([*actor.box_centre, 1.0])
    return actor.actor_id, _cm(centre[:3]), _cm(actor.box_extent)
