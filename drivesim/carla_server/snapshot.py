"""The world snapshot: 36 bytes of header, then 119 packed bytes for each actor.

One array of records is viewed through three dtypes, because the last 54 bytes are a union by kind of actor.
"""

from __future__ import annotations

import struct

import numpy as np

RECORD_SIZE = 119
WORLD_OBSERVER = 17
STATE_MAP_CHANGE, STATE_PENDING_LIGHTS = 1, 2
ACTIVE = 1
HEADER = struct.Struct("<Qdf3iI")  # episode, platform time, delta, map origin, state flags

_COMMON = {
    "id": ("<u4", 0), "state": ("u1", 4), "location": ("(3,)<f4", 5), "rotation": ("(3,)<f4", 17),
    "velocity": ("(3,)<f4", 29), "angular_velocity": ("(3,)<f4", 41), "acceleration": ("(3,)<f4", 53),
}  # fmt: skip
_VEHICLE = {
    "pedals": ("(3,)<f4", 65), "flags": ("(3,)u1", 77), "gear": ("<i4", 80), "speed_limit_kmh": ("<f4", 84),
    "light_state": ("u1", 88), "has_light": ("u1", 89), "light_id": ("<u4", 90), "failure": ("u1", 94),
}  # fmt: skip
_WALKER = {"direction": ("(3,)<f4", 65), "speed": ("<f4", 77), "jump": ("u1", 81)}
_LIGHT = {
    "sign_id": ("S32", 65), "green": ("<f4", 97), "yellow": ("<f4", 101), "red": ("<f4", 105),
    "elapsed": ("<f4", 109), "pole": ("<u4", 113), "frozen": ("u1", 117), "light": ("u1", 118),
}  # fmt: skip


def _record(union: dict[str, tuple[str, int]]) -> np.dtype[np.void]:
    fields = {**_COMMON, **union}
    return np.dtype(
        {
            "names": list(fields),
            "formats": [kind for kind, _ in fields.values()],
            "offsets": [offset for _, offset in fields.values()],
            "itemsize": RECORD_SIZE,
        }
    )


VEHICLE_RECORD = _record(_VEHICLE)
WALKER_RECORD = _record(_WALKER)
LIGHT_RECORD = _record(_LIGHT)


def header(episode_id: int, platform_s: float, delta_s: float, flags: int) -> bytes:
    """The 36 bytes that follow the sensor header."""
    return HEADER.pack(episode_id, platform_s, delta_s, 0, 0, 0, flags)
