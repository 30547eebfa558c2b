"""Things that cannot happen between two ticks, as edits of the town's state: cars that jump, stand in walls, vanish.

Frame: the town's (CARLA's, left-handed). Every edit returns a copy, or None where the moment offers no occasion.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivesim.town.state import KIND_FREE, KIND_VEHICLE, TownState
from training.interventions import from_ego

Array = NDArray[np.float64]
NEAREST_M, FARTHEST_M, VIEW_SLOPE = 5.0, 28.0, 0.6  # what counts as in front and seen; a camera sees a slope of 0.7
JUMP_M = (8.0, 16.0)
APART_M = 5.5  # between centres of cars that do not touch
WALL_REACH_M, LEAST_WALL_M = 25.0, 2.0
TRIES = 40


def in_front(state: TownState, ego_row: int, xy: Array) -> NDArray[np.bool_]:
    """(n,) whether places are where the cameras ahead look."""
    ahead, right = from_ego(state, ego_row, xy).T
    return np.asarray((ahead > NEAREST_M) & (ahead < FARTHEST_M) & (np.abs(right) < VIEW_SLOPE * ahead))


def nearest_car(state: TownState, ego_row: int) -> int | None:
    """Row of the nearest vehicle in front."""
    rows = np.flatnonzero(state.kind == KIND_VEHICLE)
    rows = rows[rows != ego_row]
    rows = rows[in_front(state, ego_row, state.xyz[rows, :2])]
    if not len(rows):
        return None
    return int(rows[np.argmin(np.linalg.norm(state.xyz[rows, :2] - state.xyz[ego_row, :2], axis=1))])


def teleported(state: TownState, ego_row: int, rng: np.random.Generator) -> TownState | None:
    """The nearest car in front stands `JUMP_M` away from where it is, still in front, in nobody."""
    row = nearest_car(state, ego_row)
    if row is None:
        return None
    others = np.flatnonzero((state.kind != KIND_FREE) & (np.arange(len(state.kind)) != row))
    for _ in range(TRIES):
        angle, distance = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(*JUMP_M)
        place = state.xyz[row, :2] + distance * np.array([np.cos(angle), np.sin(angle)])
        gaps = np.linalg.norm(state.xyz[others, :2] - place, axis=1)
        if in_front(state, ego_row, place[None])[0] and (gaps > APART_M).all():
            moved = state.copy()
            moved.xyz[row, :2] = place
            return moved
    return None


def vanished(state: TownState, ego_row: int) -> TownState | None:
    """The nearest car in front is gone."""
    row = nearest_car(state, ego_row)
    if row is None:
        return None
    emptied = state.copy()
    emptied.kind[row] = KIND_FREE
    return emptied


def through_wall(state: TownState, ego_row: int, buildings: Array) -> TownState | None:
    """The nearest car in front has driven half into the wall that is nearest to it.

    Args:
        buildings: (n, 6) x, y, yaw, half length, half width, height: what `Scenery.solids` begins with.
    """
    row = nearest_car(state, ego_row)
    walls = buildings[(buildings[:, 3:5] > LEAST_WALL_M).all(1)]
    if row is None or not len(walls):
        return None
    car = state.xyz[row, :2]
    c, s = np.cos(walls[:, 2]), np.sin(walls[:, 2])
    local = np.stack([c * (car[0] - walls[:, 0]) + s * (car[1] - walls[:, 1]),
                      -s * (car[0] - walls[:, 0]) + c * (car[1] - walls[:, 1])], axis=1)  # fmt: skip
    face = np.clip(local, -walls[:, 3:5], walls[:, 3:5])
    places = walls[:, :2] + np.stack([c * face[:, 0] - s * face[:, 1], s * face[:, 0] + c * face[:, 1]], axis=1)
    away = np.linalg.norm(places - car, axis=1)
    away[~in_front(state, ego_row, places) | (away < 2.0)] = np.inf
    if not len(away) or away.min() > WALL_REACH_M:
        return None
    place = places[int(np.argmin(away))]
    moved = state.copy()
    moved.xyz[row, :2] = place
    moved.rotation[row, 2] = np.arctan2(*(place - car)[::-1])
    return moved
