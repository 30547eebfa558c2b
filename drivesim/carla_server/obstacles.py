"""What stands in the way: boxes of actors and scenery before a sphere that moves along a line."""

from __future__ import annotations

import numpy as np

from drivesim.carla_server.poses import Floats
from drivesim.town.state import KIND_FREE, KIND_PROP
from drivesim.town.town import Town


def nearest_ahead(
    town: Town, matrix: Floats, own_row: int, reach_m: float, radius_m: float, *, moving_only: bool = False
) -> tuple[int, float] | None:  # fmt: skip
    """The first thing that a sphere meets when it moves along the x axis of `matrix`: its row and the way to it.

    Rows are the town's; -1 stands for scenery (houses, trunks, poles), which `moving_only` leaves out. The ground is
    no obstacle.
    """
    state, start = town.state, matrix[:3, 3]
    rows = np.flatnonzero(state.kind != KIND_FREE)
    rows = rows[rows != own_row]
    if moving_only:
        rows = rows[state.kind[rows] != KIND_PROP]
    half = state.half_size[rows]
    place = np.column_stack([state.xyz[rows], state.rotation[rows, 2], half[:, :2], 2.0 * half[:, 2]])
    solids = town.solids
    if not moving_only and len(solids):
        near = (np.abs(solids[:, :2] - start[:2]) < reach_m + 60.0).all(axis=1)
        foot = np.full(int(near.sum()), float(state.xyz[own_row, 2]) if own_row >= 0 else min(float(start[2]), 0.0))
        solid = solids[near]
        place = np.concatenate([place, np.column_stack([solid[:, :2], foot, solid[:, 2:]])])
        rows = np.concatenate([rows, np.full(len(solid), -1, rows.dtype)])
    away = _way_to_boxes(place, start, matrix[:3, 0], radius_m)
    first = int(np.argmin(away)) if len(away) else -1
    return (int(rows[first]), float(away[first])) if first >= 0 and away[first] <= reach_m else None


def free_way(town: Town, own_row: int, radius_m: float, matrix: Floats, reach_m: float) -> float:
    """How far a sphere can move along the x axis of `matrix` (4, 4) before it meets something; at most `reach_m`."""
    hit = nearest_ahead(town, matrix, own_row, reach_m, radius_m)
    return reach_m if hit is None else hit[1]


def _way_to_boxes(place: Floats, start: Floats, ahead: Floats, radius_m: float) -> Floats:
    """(n,) metres until a sphere meets upright boxes (n, 7): x, y, z of the foot, yaw, half sizes, height; or inf."""
    yaw = place[:, 3]
    axes = np.stack([np.stack([np.cos(yaw), np.sin(yaw)], -1), np.stack([-np.sin(yaw), np.cos(yaw)], -1)], -2)
    middle = place[:, :3] + np.array([0.0, 0.0, 0.5]) * place[:, 6:7]
    away = start - middle
    from_middle = np.column_stack([(axes @ away[:, :2, None])[..., 0], away[:, 2]])
    along = np.column_stack([axes @ ahead[:2], np.full(len(place), ahead[2])])
    half = np.column_stack([place[:, 4:6], 0.5 * place[:, 6]]) + radius_m
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = (-half - from_middle) / along, (half - from_middle) / along
    enter = np.nan_to_num(np.minimum(low, high), nan=-np.inf).max(-1, initial=-np.inf)
    leave = np.nan_to_num(np.maximum(low, high), nan=np.inf).min(-1, initial=np.inf)
    return np.where((enter <= leave) & (leave >= 0.0), np.maximum(enter, 0.0), np.inf)
