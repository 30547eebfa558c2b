"""Volumes with a friction of their own (CARLA's `static.trigger.friction`): boxes in which every tyre grips so much."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.state import TownState

# columns: middle, yaw, half sizes, and 1 + tyre friction (0: no volume)
X, Y, Z, YAW, HALF_X, HALF_Y, HALF_Z, HELD_FRICTION = range(8)


def add_friction_volume(
    state: TownState, xyz: tuple[float, float, float], yaw: float, half_m: tuple[float, float, float], friction: float
) -> int:
    """Put a friction volume into a town and return its place.

    Raises:
        ValueError: all places are taken.
    """
    free = np.flatnonzero(state.friction[:, HELD_FRICTION] == 0.0)
    if len(free) == 0:
        raise ValueError(f"a town holds at most {len(state.friction)} friction volumes")
    state.friction[free[0]] = (*xyz, yaw, *half_m, 1.0 + max(friction, 0.0))
    return int(free[0])


def remove_friction_volume(state: TownState, place: int) -> None:
    """Take a volume of `add_friction_volume` out again."""
    state.friction[place] = 0.0


@njit(cache=True, error_model="numpy")
def any_volume(friction: NDArray[np.float64]) -> bool:
    """Is there a volume at all?"""
    return friction[:, HELD_FRICTION].max() > 0.0


@njit(cache=True, error_model="numpy")
def friction_at(friction: NDArray[np.float64], x: float, y: float, z: float) -> float:
    """1 + tyre friction of the last volume around a place, 0 outside of all."""
    found = 0.0
    for place in range(len(friction)):
        box = friction[place]
        if box[HELD_FRICTION] == 0.0:
            continue
        dx, dy = x - box[X], y - box[Y]
        c, s = math.cos(box[YAW]), math.sin(box[YAW])
        inside = abs(c * dx + s * dy) <= box[HALF_X] and abs(c * dy - s * dx) <= box[HALF_Y]
        if inside and abs(z - box[Z]) <= box[HALF_Z] + 1.0:  # a car's wheels are within a metre of its origin
            found = box[HELD_FRICTION]
    return found
