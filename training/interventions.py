"""One thing changed in the world and nothing else: twins of a moment, to teach the latent what small things matter.

A light shows another colour, somebody stands on the road or is not there, a car is nearer, farther, or gone. The
moment and its twin are then drawn in two looks each. What differs is known to be in the world, and the look cannot
tell it, so the encoder must find it: the hard negative that drives alone hardly ever offer. Like the branches of
actions, this is what only a simulator has; where anything is remains untold.

Frames: the town's (CARLA's, left-handed).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.town.catalogue import MODELS
from drivesim.town.state import (
    KIND_FREE,
    KIND_VEHICLE,
    KIND_WALKER,
    LIGHT_GREEN,
    LIGHT_OFF,
    LIGHT_RED,
    POLICY_KINEMATIC,
    TownState,
)
from drivesim.town.town import TRAFFIC_MODELS, WALKER_MODELS, Town

Array = NDArray[np.float64]
NEAREST_M, FARTHEST_M, VIEW_SLOPE = 5.0, 32.0, 0.6  # in front, and seen by the cameras ahead
WALKER_REACH_M, BESIDE_M = 26.0, 5.0
LIGHT_REACH_M, LIGHT_BESIDE_M, ALIGNED = 45.0, 6.0, 0.7
SHIFT_M = (1.5, 8.0)
CARS = tuple(row for row in TRAFFIC_MODELS if MODELS[row].wheels == 4)
ADDED_WALKERS = 0.65  # of what is added, the rest are cars
ADDED_WALKER_M, ADDED_CAR_M = (4.0, 32.0), (7.0, 42.0)  # ahead
ADDED_ASIDE_M = 7.0


def from_ego(state: TownState, ego_row: int, xy: Array) -> Array:
    """Places (n, 2) of the world seen from the ego: metres ahead and to the right."""
    yaw = float(state.rotation[ego_row, 2])
    turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    return np.asarray((xy - state.xyz[ego_row, :2]) @ turn.T)


def in_front(state: TownState, ego_row: int, xy: Array) -> NDArray[np.bool_]:
    """(n,) whether places are where the cameras ahead look."""
    ahead, right = from_ego(state, ego_row, xy).T
    return np.asarray((ahead > NEAREST_M) & (ahead < FARTHEST_M) & (np.abs(right) < VIEW_SLOPE * ahead))


def nearest(state: TownState, ego_row: int, kind: int) -> int | None:
    """Row of the nearest actor of a kind in front."""
    rows = np.flatnonzero(state.kind == kind)
    rows = rows[rows != ego_row]
    rows = rows[in_front(state, ego_row, state.xyz[rows, :2])]
    if not len(rows):
        return None
    return int(rows[np.argmin(np.linalg.norm(state.xyz[rows, :2] - state.xyz[ego_row, :2], axis=1))])


def other_light(
    town: Town, state: TownState, ego_row: int, _rng: np.random.Generator | None = None
) -> TownState | None:
    """The lights of the stop lines ahead turn from green to red, or from anything else to green."""
    network = town.network
    lines = np.flatnonzero(network.stop_light >= 0)
    ahead, right = from_ego(state, ego_row, network.stop_xyz_m[lines, :2].astype(np.float64)).T
    turn = network.stop_yaw_rad[lines] - state.rotation[ego_row, 2]
    mine = (ahead > 0.0) & (ahead < LIGHT_REACH_M) & (np.abs(right) < LIGHT_BESIDE_M) & (np.cos(turn) > ALIGNED)
    rows = np.unique(network.stop_light[lines[mine]])
    rows = rows[state.light_state[rows] != LIGHT_OFF]
    if not len(rows):
        return None
    changed = state.copy()
    changed.light_state[rows] = np.where(state.light_state[rows] == LIGHT_GREEN, LIGHT_RED, LIGHT_GREEN)
    return changed


@dataclass(frozen=True)
class Addition:
    """Somebody or something at a place seen from the ego: it can be added to any moment.

    Attributes:
        model: row of the catalogue.
        ahead_m, right_m: of the ego's origin.
        turn_rad: heading against the ego's, clockwise.
    """

    model: int
    ahead_m: float
    right_m: float
    turn_rad: float

    @staticmethod
    def draw(rng: np.random.Generator) -> Addition:
        """A walker or a car in front, as often near as far in angle of sight."""
        walker = rng.random() < ADDED_WALKERS
        ahead = float(np.exp(rng.uniform(*np.log(ADDED_WALKER_M if walker else ADDED_CAR_M))))
        aside = min(VIEW_SLOPE * ahead, ADDED_ASIDE_M)
        right = float(rng.uniform(-aside, aside))
        if walker:
            return Addition(int(rng.choice(WALKER_MODELS)), ahead, right, float(rng.uniform(-np.pi, np.pi)))
        turn = float(rng.choice([0.0, 0.0, np.pi, -np.pi / 2, np.pi / 2]) + rng.normal(0.0, 0.15))
        return Addition(int(rng.choice(CARS)), ahead, right, turn)


def add(town: Town, state: TownState, ego_row: int, addition: Addition) -> TownState | None:
    """The state with an addition in it; None where somebody or something is in its place."""
    town.restore(state)
    yaw = float(state.rotation[ego_row, 2])
    x, y = state.xyz[ego_row, :2] + [
        np.cos(yaw) * addition.ahead_m - np.sin(yaw) * addition.right_m,
        np.sin(yaw) * addition.ahead_m + np.cos(yaw) * addition.right_m,
    ]
    z = town.lane_map.ground_height(float(x), float(y), float(state.xyz[ego_row, 2]))
    placed = town.spawn(addition.model, float(x), float(y), z, yaw + addition.turn_rad, policy=POLICY_KINEMATIC)
    return None if placed < 0 else town.copy_state()


def other_walker(town: Town, state: TownState, ego_row: int, rng: np.random.Generator) -> TownState | None:
    """Whoever walks nearest in front is not there; where nobody does, somebody is."""
    row = nearest(state, ego_row, KIND_WALKER)
    if row is not None and rng.random() < 0.7:
        emptied = state.copy()
        emptied.kind[row] = KIND_FREE
        return emptied
    ahead, right = float(rng.uniform(NEAREST_M + 1.0, WALKER_REACH_M)), float(rng.uniform(-BESIDE_M, BESIDE_M))
    model, turn = int(rng.choice(WALKER_MODELS)), float(rng.uniform(-np.pi, np.pi))
    return add(town, state, ego_row, Addition(model, ahead, right, turn))


def other_car(_town: Town, state: TownState, ego_row: int, rng: np.random.Generator) -> TownState | None:
    """The nearest car in front is some metres nearer or farther, or is gone."""
    row = nearest(state, ego_row, KIND_VEHICLE)
    if row is None:
        return None
    changed = state.copy()
    if rng.random() < 0.3:
        changed.kind[row] = KIND_FREE
        return changed
    yaw, shift = float(state.rotation[row, 2]), float(rng.uniform(*SHIFT_M) * rng.choice([-1.0, 1.0]))
    place = state.xyz[row, :2] + shift * np.array([np.cos(yaw), np.sin(yaw)])
    if not in_front(state, ego_row, place[None])[0]:
        place = state.xyz[row, :2] - shift * np.array([np.cos(yaw), np.sin(yaw)])
    changed.xyz[row, :2] = place
    return changed


KINDS = (other_light, other_walker, other_car)
SHARES = (0.35, 0.4, 0.25)


def intervene(town: Town, state: TownState, ego_row: int, rng: np.random.Generator) -> TownState | None:
    """The state with one thing changed that the cameras ahead may see; None where nothing offers itself."""
    for kind in rng.choice(len(KINDS), size=len(KINDS), replace=False, p=SHARES):
        changed = KINDS[int(kind)](town, state, ego_row, rng)
        if changed is not None:
            return changed
    return None
