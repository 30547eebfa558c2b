"""The binary log of CARLA's recorder: its layout, and checked reading (`recorder_writer` makes the bytes).

A log is a header and packets, all little-endian and packed. A packet is its number (u8), its size (u32) and so many
bytes; most hold a count (u16) and records of one fixed layout. Lengths are centimetres, rotations roll, pitch, yaw in
degrees, velocities m/s and deg/s; texts are a length (u16) and UTF-8. Layouts after CARLA's
Unreal plugin, folder Carla/Recorder, of 0.9.15, and after logs of 0.9.12.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC, VERSION = "CARLA_RECORDER", 2  # since version 2 the types of attributes count from 1, as on the 0.9.16 wire
RECORDING_LIMIT = 512 << 20  # bytes of a log that is read or written
MOST_CREATIONS = 100_000
Records = NDArray[np.void]

(FRAME_START, FRAME_END, CREATED, DESTROYED, PARENTED, COLLISION, POSITION, LIGHT_STATE, VEHICLE, WALKER, LAMPS,
 STREET_LAMP, KINEMATICS, BOX, PLATFORM_TIME, PHYSICS, LIGHT_TIMES, TRIGGER_BOX, FRAME_COUNTER, BONES,
 VISUAL_TIME) = range(21)  # fmt: skip
DOORS, WHEELS, BIKERS, WEATHER = 21, 22, 23, 24
_SHUFFLED = (DOORS, WHEELS, BIKERS)  # releases number these three differently; `late_kind` goes by the layout
NAMES = (
    "FrameStart", "FrameEnd", "EventAdd", "EventDel", "EventParent", "Collision", "Position", "State", "AnimVehicle",
    "AnimWalker", "VehicleLight", "SceneLight", "Kinematics", "BoundingBox", "PlatformTime", "PhysicsControl",
    "TrafficLightTime", "TriggerVolume", "FrameCounter", "WalkerBones", "VisualTime", "VehicleDoor",
    "AnimVehicleWheels", "AnimBiker", "Weather",
)  # fmt: skip


def _layout(*fields: tuple[str, str]) -> np.dtype[np.void]:
    return np.dtype([(name, kind) for name, kind in fields])


_ID = ("id", "<u4")
LAYOUT: dict[int, np.dtype[np.void]] = {
    DESTROYED: _layout(_ID),
    PARENTED: _layout(_ID, ("parent", "<u4")),
    COLLISION: _layout(("number", "<u4"), ("first", "<u4"), ("second", "<u4"), ("hero1", "u1"), ("hero2", "u1")),
    POSITION: _layout(_ID, ("location", "(3,)<f4"), ("rotation", "(3,)<f4")),
    LIGHT_STATE: _layout(_ID, ("frozen", "u1"), ("elapsed", "<f4"), ("state", "u1")),
    VEHICLE: _layout(_ID, ("steer", "<f4"), ("throttle", "<f4"), ("brake", "<f4"), ("hand", "u1"), ("gear", "<i4")),
    WALKER: _layout(_ID, ("speed", "<f4")),
    LAMPS: _layout(_ID, ("flags", "<u4")),
    STREET_LAMP: _layout(("id", "<i4"), ("intensity", "<f4"), ("color", "(4,)<f4"), ("on", "u1"), ("kind", "u1")),
    KINEMATICS: _layout(_ID, ("velocity", "(3,)<f4"), ("angular", "(3,)<f4")),
    BOX: _layout(_ID, ("origin", "(3,)<f4"), ("extent", "(3,)<f4")),
    TRIGGER_BOX: _layout(_ID, ("origin", "(3,)<f4"), ("extent", "(3,)<f4")),
    LIGHT_TIMES: _layout(_ID, ("green", "<f4"), ("yellow", "<f4"), ("red", "<f4")),
    DOORS: _layout(_ID, ("door", "u1"), ("open", "u1")),
    BIKERS: _layout(_ID, ("speed", "<f4"), ("engine", "<f4")),
    WEATHER: _layout(("parameters", "(14,)<f4")),
}
_SIZE = {FRAME_START: 24, FRAME_END: 0, PLATFORM_TIME: 8, FRAME_COUNTER: 8, VISUAL_TIME: 8}
PACKET_STRUCT, FRAME_STRUCT, COUNT_STRUCT, WORD_STRUCT = (
    struct.Struct("<BI"),
    struct.Struct("<Qdd"),
    struct.Struct("<H"),
    struct.Struct("<I"),
)
CREATION_STRUCT = struct.Struct("<IB6fI")
PHYSICS_STRUCT = struct.Struct("<I5fB7f")
OTHER, A_VEHICLE, A_WALKER, A_LIGHT, A_SIGN, A_SENSOR = range(6)  # kinds of actors


class UnreadableRecording(ValueError):  # noqa: N818
    """The bytes are no whole log of CARLA's recorder; the message says where and why."""


@dataclass(frozen=True)
class Header:
    """What a log begins with."""

    version: int
    date_s: int  # since the epoch
    map_name: str


@dataclass(frozen=True)
class Creation:
    """An actor that came into being; the transform is relative to the parent where the frame gives it one."""

    actor_id: int
    kind: int  # OTHER, A_VEHICLE, ...
    location_cm: tuple[float, float, float]
    rotation_deg: tuple[float, float, float]  # roll, pitch, yaw
    uid: int
    type_id: str
    attributes: tuple[tuple[int, str, str], ...]  # type, id, value

    @property
    def hero(self) -> bool:
        """Is it somebody's ego vehicle?"""
        return any(name == "role_name" and value == "hero" for _, name, value in self.attributes)


class _Cursor:
    """Reads a packet's variable parts, never beyond its end."""

    def __init__(self, data: memoryview, at: int = 0) -> None:
        self.data, self.at = data, at

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        if self.at + layout.size > len(self.data):
            raise UnreadableRecording("its records are longer than it is")
        values = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return values

    def skip(self, size: int) -> None:
        if self.at + size > len(self.data):
            raise UnreadableRecording("its records are longer than it is")
        self.at += size

    def text(self) -> str:
        (size,) = self.take(COUNT_STRUCT)
        start = self.at
        self.skip(size)
        return str(self.data[start : self.at], "utf-8", "replace")

    def rows(self, width: int) -> NDArray[np.float32]:
        """A count (u32) and so many rows of `width` floats."""
        (count,) = self.take(WORD_STRUCT)
        start = self.at
        self.skip(4 * width * count)
        return np.frombuffer(self.data[start : self.at], "<f4").reshape(count, width)

    def done(self) -> None:
        if self.at != len(self.data):
            raise UnreadableRecording("it is longer than its records")


class RecorderFile:
    """A whole log, every length of it checked: frames, and the packets of each."""

    def __init__(self, data: bytes) -> None:
        """Check a log.

        Raises:
            UnreadableRecording: it is none, or it is cut off or damaged.
        """
        self._data = memoryview(data)
        self.header, self._first = _header(self._data)
        starts: list[int] = []
        elapsed: list[float] = []
        numbers: list[int] = []
        durations: list[float] = []
        self.event_frames: list[int] = []  # frames in which actors come, go or are attached
        self._creations = 0
        inside = False
        for at, number, payload in self._walk(self._first, len(data)):
            if number == FRAME_START and len(payload) == _SIZE[FRAME_START]:
                frame_id, duration_s, elapsed_s = FRAME_STRUCT.unpack(payload)
                if inside or not elapsed_s >= (elapsed[-1] if elapsed else 0.0) or elapsed_s > 1e9:
                    raise UnreadableRecording(f"damaged at byte {at}: a frame out of order")
                starts.append(at)
                elapsed.append(elapsed_s)
                numbers.append(frame_id)
                durations.append(duration_s)
                inside = True
                continue
            if not inside:
                raise UnreadableRecording(f"damaged at byte {at}: a packet outside of any frame")
            self._check(at, number, payload, len(starts) - 1)
            inside = number != FRAME_END
        if inside:
            raise UnreadableRecording(f"cut off at byte {len(data)}: its last frame has no end")
        self._starts = np.array([*starts, len(data)], np.int64)
        self.elapsed_s: NDArray[np.float64] = np.array(elapsed, np.float64)
        self.numbers = numbers
        self.durations_s: NDArray[np.float64] = np.array(durations, np.float64)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def total_s(self) -> float:
        """When the last frame begins."""
        return float(self.elapsed_s[-1]) if len(self) else 0.0

    def packets(self, frame: int) -> Iterator[tuple[int, memoryview]]:
        """Number and bytes of the packets of a frame, its FrameStart first."""
        for _, number, payload in self._walk(int(self._starts[frame]), int(self._starts[frame + 1])):
            yield number, payload

    def _walk(self, at: int, end: int) -> Iterator[tuple[int, int, memoryview]]:
        data = self._data
        while at < end:
            if end - at < PACKET_STRUCT.size:
                raise UnreadableRecording(f"cut off at byte {end}: a packet begins at byte {at}")
            number, size = PACKET_STRUCT.unpack_from(data, at)
            start = at + PACKET_STRUCT.size
            if size > end - start:
                name = NAMES[number] if number < len(NAMES) else f"packet {number}"
                raise UnreadableRecording(f"cut off: {name} at byte {at} has {size} bytes, {end - start} are left")
            yield at, number, data[start : start + size]
            at = start + size

    def _check(self, at: int, number: int, payload: memoryview, frame: int) -> None:
        try:
            count = _check_payload(number, payload)
        except UnreadableRecording as error:
            name = NAMES[number] if number < len(NAMES) else str(number)
            raise UnreadableRecording(f"damaged at byte {at}, packet {name}: {error}") from None
        if number in (CREATED, DESTROYED, PARENTED) and count:
            if not self.event_frames or self.event_frames[-1] != frame:
                self.event_frames.append(frame)
            self._creations += count if number == CREATED else 0
            if self._creations > MOST_CREATIONS:
                raise UnreadableRecording(f"more than {MOST_CREATIONS} actors in one log")


def load(path: Path) -> RecorderFile:
    """Read and check a log.

    Raises:
        FileNotFoundError: there is none.
        UnreadableRecording: it is no regular file, too long, or no whole log.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableRecording("it is no regular file")
        if status.st_size > RECORDING_LIMIT:
            raise UnreadableRecording(f"it is longer than {RECORDING_LIMIT >> 20} MB")
        return RecorderFile(file.read(RECORDING_LIMIT + 1)[:RECORDING_LIMIT])


def records(payload: memoryview, number: int) -> Records:
    """The records of a packet of fixed layout (a key of LAYOUT)."""
    return np.frombuffer(payload, LAYOUT[number], offset=2)


def creations(payload: memoryview) -> list[Creation]:
    """The records of an EventAdd packet."""
    cursor = _Cursor(payload)
    (count,) = cursor.take(COUNT_STRUCT)
    made = []
    for _ in range(count):
        actor_id, kind, x, y, z, roll, pitch, yaw, uid = cursor.take(CREATION_STRUCT)
        type_id = cursor.text()
        (given,) = cursor.take(COUNT_STRUCT)
        attributes = tuple((_byte(cursor), cursor.text(), cursor.text()) for _ in range(given))
        made.append(Creation(actor_id, kind, (x, y, z), (roll, pitch, yaw), uid, type_id, attributes))
    cursor.done()
    return made


def physics(payload: memoryview) -> list[tuple[tuple[Any, ...], list[NDArray[np.float32]]]]:
    """The records of a PhysicsControl packet.

    Each is (id, max rpm, moi, three damping rates, gearbox is automatic, clutch strength, final ratio, mass, drag,
    centre of mass x y z) and four arrays: torque curve (n, 2), gears (n, 3), steering curve (n, 2), wheels (n, 12).
    """
    cursor = _Cursor(payload)
    (count,) = cursor.take(COUNT_STRUCT)
    found = [(cursor.take(PHYSICS_STRUCT), [cursor.rows(width) for width in (2, 3, 2, 12)]) for _ in range(count)]
    cursor.done()
    return found


def bones(payload: memoryview) -> list[tuple[int, list[tuple[str, tuple[float, ...]]]]]:
    """The records of a WalkerBones packet: id, and name with relative location and rotation of each bone."""
    cursor = _Cursor(payload)
    (count,) = cursor.take(COUNT_STRUCT)
    found = []
    for _ in range(count):
        (actor_id,) = cursor.take(WORD_STRUCT)
        (own,) = cursor.take(COUNT_STRUCT)
        found.append((actor_id, [(cursor.text(), cursor.take(_SIX)) for _ in range(own)]))
    cursor.done()
    return found


def late_kind(payload: memoryview) -> int:
    """Which of DOORS, WHEELS and BIKERS a packet numbered 21 to 23 holds: the one whose layout fits.

    Raises:
        UnreadableRecording: none does.
    """
    for number in (DOORS, BIKERS):
        if len(payload) >= 2 and len(payload) == 2 + COUNT_STRUCT.unpack_from(payload)[0] * LAYOUT[number].itemsize:
            return number
    cursor = _Cursor(payload)
    (count,) = cursor.take(COUNT_STRUCT)
    for _ in range(count):
        cursor.skip(4)
        (wheels,) = cursor.take(WORD_STRUCT)
        cursor.skip(9 * wheels)
    cursor.done()
    return WHEELS


def value_s(payload: memoryview) -> float:
    """The number of a PlatformTime or VisualTime packet."""
    return float(struct.unpack("<d", payload)[0])


# ---- parts

_SIX = struct.Struct("<6f")


def _header(data: memoryview) -> tuple[Header, int]:
    cursor = _Cursor(data)
    try:
        (version,) = cursor.take(COUNT_STRUCT)
        (size,) = COUNT_STRUCT.unpack_from(data, cursor.at) if len(data) >= cursor.at + 2 else (0,)
        if size != len(MAGIC) or cursor.text() != MAGIC:
            raise UnreadableRecording("File is not a CARLA recorder")
        (date_s,) = cursor.take(struct.Struct("<q"))
        return Header(version, date_s, cursor.text()), cursor.at
    except UnreadableRecording as error:
        if "recorder" in str(error):
            raise
        raise UnreadableRecording("File is not a CARLA recorder, or cut off within its first bytes") from None


def _check_payload(number: int, payload: memoryview) -> int:
    """Check a packet against its layout; the number of its records (0 where it has none)."""
    if number in _SIZE:
        if len(payload) != _SIZE[number]:
            raise UnreadableRecording(f"{len(payload)} bytes instead of {_SIZE[number]}")
        return 0
    if number in _SHUFFLED:
        late_kind(payload)
        return 0
    if number in LAYOUT:
        count = int(COUNT_STRUCT.unpack_from(payload)[0]) if len(payload) >= 2 else -1
        if len(payload) != 2 + count * LAYOUT[number].itemsize:
            raise UnreadableRecording(f"{len(payload)} bytes do not hold {max(count, 0)} records")
        return count
    if number == CREATED:
        return len(creations(payload))
    if number == PHYSICS:
        return len(physics(payload))
    return len(bones(payload)) if number == BONES else 0  # packets of later versions are left alone


def _byte(cursor: _Cursor) -> int:
    cursor.skip(1)
    return cursor.data[cursor.at - 1]
