"""Straight lines through the world: what they meet, where, and its CityObjectLabel (cast_ray, project_point)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server.episode import Episode
from drivesim.carla_server.map_objects import ROADS, SIDEWALKS, MapObjects
from drivesim.carla_server.structs import Vector
from drivesim.town.queries import DECK_M, LaneMap
from drivesim.town.roads import LANE_SIDEWALK
from drivesim.town.state import KIND_FREE

Floats = NDArray[np.float64]
TERRAIN = 10
STEP_M = 0.5
MOST_STEPS = 400
LONGEST_M = 2000.0
ROAD_REACH_M = 60.0  # ground farther from every road than this is at height 0
SIDEWALK_REACH_M = 3.0


class Crossing(NamedTuple):
    """One thing on a line."""

    way_m: float  # from the line's start
    place: Vector
    label: int


def crossings(episode: Episode, objects: MapObjects, start: Vector, goal: Vector) -> list[Crossing]:
    """All that lies between two places, nearest first: boxes of things and actors, and the ground, each once.

    A box that holds the start is not met. Lines longer than LONGEST_M end there.
    """
    origin = np.array(start)
    away = np.array(goal) - origin
    reach_m = float(np.linalg.norm(away))
    if reach_m == 0.0:
        return []
    along, reach_m = away / reach_m, min(reach_m, LONGEST_M)
    centre, half, yaw, label = _boxes(episode, objects)
    entry = _entries(origin, along, centre, half, yaw)
    met = np.flatnonzero(entry <= reach_m)
    found = [Crossing(float(entry[k]), _at(origin, along, float(entry[k])), int(label[k])) for k in met]
    ground_m = _ground_way_m(episode.town.lane_map, origin, along, reach_m)
    if ground_m is not None:
        place = _at(origin, along, ground_m)
        found.append(Crossing(ground_m, place, ground_label(episode.town.lane_map, place)))
    return sorted(found)


def _boxes(episode: Episode, objects: MapObjects) -> tuple[Floats, Floats, Floats, NDArray[np.uint8]]:
    """Centres (n, 3), half sizes (n, 3), yaw and label (n,) of all that stands and goes."""
    state = episode.town.state
    shown = np.flatnonzero(~objects.hidden & ~objects.flat)
    rows = np.flatnonzero(state.kind != KIND_FREE)
    centre = state.xyz[rows].copy()
    centre[:, 2] += state.half_size[rows, 2]
    actors = [episode.actors.of_row(int(row)) for row in rows]
    tags = np.array([actor.tags[0] if actor is not None and actor.tags else 0 for actor in actors], np.uint8)
    return (
        np.concatenate([objects.centre[shown], centre]), np.concatenate([objects.half[shown], state.half_size[rows]]),
        np.concatenate([objects.yaw[shown], state.rotation[rows, 2]]), np.concatenate([objects.label[shown], tags]),
    )  # fmt: skip


def _entries(origin: Floats, along: Floats, centre: Floats, half: Floats, yaw: Floats) -> Floats:
    """(n,) way to where a ray enters each upright box (slab method); inf where it misses or begins inside."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    gap = origin - centre
    local = np.stack([cosine * gap[:, 0] + sine * gap[:, 1], -sine * gap[:, 0] + cosine * gap[:, 1], gap[:, 2]], axis=1)
    turned = np.stack([cosine * along[0] + sine * along[1], -sine * along[0] + cosine * along[1],
                       np.full(len(yaw), along[2])], axis=1)  # fmt: skip
    safe = np.where(np.abs(turned) < 1e-12, 1e-12, turned)
    first, second = (-half - local) / safe, (half - local) / safe
    enter, leave = np.minimum(first, second).max(axis=1), np.maximum(first, second).min(axis=1)
    return np.asarray(np.where((enter <= leave) & (enter > 0.0), enter, np.inf))


def _at(origin: Floats, along: Floats, way_m: float) -> Vector:
    x, y, z = (origin + way_m * along).tolist()
    return x, y, z


def _ground_way_m(lane_map: LaneMap, origin: Floats, along: Floats, reach_m: float) -> float | None:
    """March down the ray until it is under the road surface nearest to it, then bisect."""

    def above(way_m: float) -> float:
        x, y, z = (origin + way_m * along).tolist()
        return float(z) - _ground_m(lane_map, x, y, z)

    if above(0.0) < 0.0:
        return None
    low_m, step_m = 0.0, max(STEP_M, reach_m / MOST_STEPS)
    while low_m < reach_m:
        high_m = min(low_m + step_m, reach_m)
        if above(high_m) <= 0.0:
            for _ in range(20):
                middle_m = (low_m + high_m) / 2.0
                low_m, high_m = (low_m, middle_m) if above(middle_m) <= 0.0 else (middle_m, high_m)
            return high_m
        low_m = high_m
    return None


def _ground_m(lane_map: LaneMap, x: float, y: float, z: float) -> float:
    """Height of the ground: the deck within reach of z, else whatever road is near, but none high overhead."""
    place = lane_map.nearest(x, y, z_m=z, max_distance_m=ROAD_REACH_M)
    if place.lane < 0:
        place = lane_map.nearest(x, y, max_distance_m=ROAD_REACH_M)
    if place.lane < 0:
        return 0.0
    height_m = lane_map.at(place.lane, place.s_m).z_m
    return height_m if height_m < z + DECK_M else -math.inf


def ground_label(lane_map: LaneMap, place: Vector) -> int:
    """Road, sidewalk or terrain."""
    x, y, z = place
    lane = lane_map.nearest(x, y, z_m=z, max_distance_m=ROAD_REACH_M)
    if lane.lane >= 0 and abs(lane.offset_m) <= lane_map.at(lane.lane, lane.s_m).width_m / 2.0:
        return ROADS
    network = lane_map.network
    gap = network.point_xyz_m - np.array(place, np.float32)
    near = (np.abs(gap[:, 2]) < DECK_M) & (np.hypot(gap[:, 0], gap[:, 1]) < np.minimum(
        network.point_width_m / 2 + 0.5, SIDEWALK_REACH_M))  # fmt: skip
    near &= network.lane_kind[network.point_lane] == LANE_SIDEWALK
    return SIDEWALKS if near.any() else TERRAIN
