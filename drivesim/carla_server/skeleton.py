"""Bones of walkers, with CARLA's names: a rest pose, a walk, and poses that clients set.

A bone's relative transform is in its parent's frame, x forward, y right, z up, metres. The component frame stands on
the ground under the walker. The pictures draw walkers of their own; bones are for clients that read or set them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server.poses import matrix_from_pose

Floats = NDArray[np.float64]
REST_HEIGHT_M = 1.75
STRIDE_HZ, SWING_RAD, WALK_MPS = 0.9, 0.45, 1.4
KEPT_POSES = 4096


def _bones() -> list[tuple[str, str, tuple[float, float, float]]]:
    """Name, parent, offset in the parent's frame of a person of REST_HEIGHT_M; parents come first."""
    rows = [
        ("crl_root", "", (0.0, 0.0, 0.0)), ("crl_hips__C", "crl_root", (0.0, 0.0, 0.93)),
        ("crl_spine__C", "crl_hips__C", (0.0, 0.0, 0.12)), ("crl_spine01__C", "crl_spine__C", (0.0, 0.0, 0.25)),
        ("crl_neck__C", "crl_spine01__C", (0.0, 0.0, 0.17)), ("crl_Head__C", "crl_neck__C", (0.02, 0.0, 0.10)),
    ]  # fmt: skip
    for side, sign in (("L", -1.0), ("R", 1.0)):
        arm, leg = f"crl_arm__{side}", f"crl_leg__{side}"
        rows += [
            (f"crl_eye__{side}", "crl_Head__C", (0.08, 0.03 * sign, 0.06)),
            (f"crl_shoulder__{side}", "crl_spine01__C", (0.0, 0.05 * sign, 0.12)),
            (arm, f"crl_shoulder__{side}", (0.0, 0.14 * sign, 0.0)),
            (f"crl_foreArm__{side}", arm, (0.0, 0.0, -0.28)),
            (f"crl_hand__{side}", f"crl_foreArm__{side}", (0.03, 0.0, -0.25)),
        ]
        for place, finger in enumerate(("Thumb", "Index", "Middle", "Ring", "Pinky")):
            before, across = f"crl_hand__{side}", 0.04 - 0.02 * place
            offset = (across, 0.0, -0.04 if finger == "Thumb" else -0.09)
            for joint in ("", "01", "02", "End"):
                name = f"crl_hand{finger}{joint}__{side}"
                rows.append((name, before, offset))
                before, offset = name, (0.0, 0.0, -0.028)
        rows += [
            (f"crl_thigh__{side}", "crl_hips__C", (0.0, 0.09 * sign, -0.04)),
            (leg, f"crl_thigh__{side}", (0.0, 0.0, -0.43)), (f"crl_foot__{side}", leg, (0.0, 0.0, -0.40)),
            (f"crl_toe__{side}", f"crl_foot__{side}", (0.13, 0.0, -0.05)),
            (f"crl_toeEnd__{side}", f"crl_toe__{side}", (0.07, 0.0, 0.0)),
        ]  # fmt: skip
    return rows


_TABLE = _bones()
BONE_NAMES: tuple[str, ...] = tuple(name for name, _, _ in _TABLE)
INDEX = {name: place for place, name in enumerate(BONE_NAMES)}
_PARENT = [INDEX.get(parent, -1) for _, parent, _ in _TABLE]
_OFFSET = np.array([offset for _, _, offset in _TABLE])


def walking(height_m: float, speed_mps: float, time_s: float) -> tuple[Floats, Floats]:
    """Relative transforms of a walker: offsets (bones, 3) and roll, pitch, yaw (bones, 3) in radians."""
    rotation = np.zeros_like(_OFFSET)
    swing = SWING_RAD * min(speed_mps / WALK_MPS, 1.5) * math.sin(2.0 * math.pi * STRIDE_HZ * time_s)
    for side, sign in (("L", 1.0), ("R", -1.0)):
        rotation[INDEX[f"crl_thigh__{side}"], 1] = sign * swing
        rotation[INDEX[f"crl_leg__{side}"], 1] = -max(-sign * swing, 0.0)
        rotation[INDEX[f"crl_arm__{side}"], 1] = -0.8 * sign * swing
    return _OFFSET * (height_m / REST_HEIGHT_M), rotation


def in_component(offset: Floats, rotation: Floats) -> Floats:
    """Component from bone, (bones, 4, 4), from relative transforms."""
    relative = matrix_from_pose(offset, rotation)
    out = np.empty((len(offset), 4, 4))
    for bone, parent in enumerate(_PARENT):
        out[bone] = relative[bone] if parent < 0 else out[parent] @ relative[bone]
    return out


@dataclass
class Pose:
    """What a client wants of one walker: relative transforms of some bones, and how much of them to show (0..1)."""

    offset: dict[int, Floats] = field(default_factory=dict)
    rotation: dict[int, Floats] = field(default_factory=dict)
    blend: float = 0.0

    def set(self, bone: str, offset: Floats, rotation: Floats) -> None:
        """Keep one bone's transform; an unknown name is passed over, as CARLA does."""
        if bone in INDEX:
            self.offset[INDEX[bone]], self.rotation[INDEX[bone]] = offset, rotation

    def mixed(self, offset: Floats, rotation: Floats) -> tuple[Floats, Floats]:
        """The animation's transforms with this pose blended in."""
        offset, rotation = offset.copy(), rotation.copy()
        for bone, wanted in self.offset.items():
            turn = (self.rotation[bone] - rotation[bone] + math.pi) % (2.0 * math.pi) - math.pi
            offset[bone] += self.blend * (wanted - offset[bone])
            rotation[bone] += self.blend * turn
        return offset, rotation


class Poses:
    """The poses of walkers by actor id; ids are never used again, so the oldest may go."""

    def __init__(self) -> None:
        self._by_id: dict[int, Pose] = {}

    def of(self, actor_id: int) -> Pose:
        """A walker's pose, to be changed in place."""
        if actor_id not in self._by_id:
            while len(self._by_id) >= KEPT_POSES:
                self._by_id.pop(next(iter(self._by_id)))
            self._by_id[actor_id] = Pose()
        return self._by_id[actor_id]
