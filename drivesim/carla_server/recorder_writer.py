"""The bytes of CARLA's recorder log (layout and units as in `recorder_file`)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from drivesim.carla_server.recorder_file import (
    COUNT_STRUCT,
    CREATED,
    CREATION_STRUCT,
    FRAME_START,
    FRAME_STRUCT,
    MAGIC,
    PACKET_STRUCT,
    PHYSICS,
    PHYSICS_STRUCT,
    VERSION,
    WORD_STRUCT,
    Creation,
    Records,
)  # fmt: skip

DURATION_OFFSET = PACKET_STRUCT.size + 8  # of a frame's duration, from the start of its FrameStart packet


def header_bytes(map_name: str, date_s: int) -> bytes:
    """The beginning of a log."""
    return COUNT_STRUCT.pack(VERSION) + _text(MAGIC) + struct.pack("<q", date_s) + _text(map_name)


def frame_start(number: int, elapsed_s: float) -> bytes:
    """A frame's first packet; its duration is known, and written at DURATION_OFFSET, when the next one begins."""
    return packet(FRAME_START, FRAME_STRUCT.pack(number, -1.0, elapsed_s))


def packet(number: int, payload: bytes) -> bytes:
    """A packet of any payload."""
    return PACKET_STRUCT.pack(number, len(payload)) + payload


def records_packet(number: int, rows: Records) -> bytes:
    """A packet of records in the layout LAYOUT[number]; at most 65535 of them."""
    kept = rows[:65535]
    return packet(number, COUNT_STRUCT.pack(len(kept)) + kept.tobytes())


def creations_packet(made: Sequence[Creation]) -> bytes:
    """An EventAdd packet."""
    parts = [COUNT_STRUCT.pack(min(len(made), 65535))]
    for one in made[:65535]:
        parts += [CREATION_STRUCT.pack(one.actor_id, one.kind, *one.location_cm, *one.rotation_deg, one.uid),
                  _text(one.type_id), COUNT_STRUCT.pack(len(one.attributes))]  # fmt: skip
        parts += [bytes((kind,)) + _text(name) + _text(value) for kind, name, value in one.attributes]
    return packet(CREATED, b"".join(parts))


def physics_packet(controls: Iterable[tuple[tuple[Any, ...], Sequence[Any]]]) -> bytes:
    """A PhysicsControl packet from what `physics` returns."""
    bodies = [PHYSICS_STRUCT.pack(*plain) + b"".join(_rows(part) for part in parts) for plain, parts in controls]
    return packet(PHYSICS, COUNT_STRUCT.pack(len(bodies)) + b"".join(bodies))


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "replace")[:65535]
    return COUNT_STRUCT.pack(len(data)) + data


def _rows(values: Any) -> bytes:
    rows = np.asarray(values, "<f4")
    return WORD_STRUCT.pack(len(rows)) + rows.tobytes()
