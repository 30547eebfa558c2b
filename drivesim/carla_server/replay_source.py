"""What a replay reads from a log: who comes and goes in a frame, and where everybody is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server import recorder_file as log
from drivesim.carla_server.blueprints import LIBRARY
from drivesim.carla_server.poses import Floats
from drivesim.carla_server.recorder_file import Creation, RecorderFile
from drivesim.carla_server.structs import MAP_LIMIT_M


@dataclass
class Poses:
    """Where a frame has its actors, (n, 3) metres and roll, pitch, yaw in radians."""

    ids: list[int] = field(default_factory=list)
    xyz: Floats = field(default_factory=lambda: np.zeros((0, 3)))
    rotation: Floats = field(default_factory=lambda: np.zeros((0, 3)))


def poses_of(recording: RecorderFile, frame: int) -> Poses:
    """The poses of a frame that lie on any map."""
    for payload in _packets_of(recording, frame, log.POSITION):
        rows = log.records(payload, log.POSITION)
        xyz = rows["location"].astype(np.float64) / 100.0
        rotation = np.radians(rows["rotation"].astype(np.float64))
        sane = (np.abs(xyz) < MAP_LIMIT_M).all(-1) & (np.abs(rotation) < 1e3).all(-1)
        return Poses(rows["id"][sane].tolist(), xyz[sane], rotation[sane])
    return Poses()


def way_between(here: Poses, after: Poses) -> tuple[Floats, Floats]:
    """How far each actor of a frame goes and turns until the next one, (n, 3) each; nowhere if it is not in that."""
    if here.ids == after.ids:
        return after.xyz - here.xyz, _shortest(after.rotation - here.rotation)
    index = {recorded: place for place, recorded in enumerate(after.ids)}
    both = [(place, index[recorded]) for place, recorded in enumerate(here.ids) if recorded in index]
    moved, turned = np.zeros_like(here.xyz), np.zeros_like(here.rotation)
    if both:
        own, next_ = np.array(both).T
        moved[own] = after.xyz[next_] - here.xyz[own]
        turned[own] = _shortest(after.rotation[next_] - here.rotation[own])
    return moved, turned


def _shortest(angles: NDArray[np.float64]) -> Floats:
    return (angles + math.pi) % (2.0 * math.pi) - math.pi


def left_out(recording: RecorderFile) -> dict[str, int]:
    """Type ids in a log that this server has no blueprint for, and how many actors each would be."""
    counts: dict[str, int] = {}
    for frame in recording.event_frames:
        for made in made_in(recording, frame):
            if made.type_id not in LIBRARY and not made.type_id.startswith(("traffic.", "spectator", "sensor.")):
                counts[made.type_id] = counts.get(made.type_id, 0) + 1
    return counts


def _packets_of(recording: RecorderFile, frame: int, number: int) -> Iterator[memoryview]:
    return (payload for found, payload in recording.packets(frame) if found == number)


def made_in(recording: RecorderFile, frame: int) -> Iterator[Creation]:
    """The actors that come into being in a frame."""
    for payload in _packets_of(recording, frame, log.CREATED):
        yield from log.creations(payload)


def gone_in(recording: RecorderFile, frame: int) -> Iterator[int]:
    """The recorded ids of the actors that a frame removes."""
    for payload in _packets_of(recording, frame, log.DESTROYED):
        yield from log.records(payload, log.DESTROYED)["id"].tolist()


def parents_in(recording: RecorderFile, frame: int) -> dict[int, int]:
    """Recorded id of each actor that is attached in a frame, to its parent's."""
    found: dict[int, int] = {}
    for payload in _packets_of(recording, frame, log.PARENTED):
        found |= dict(log.records(payload, log.PARENTED).tolist())
    return found
