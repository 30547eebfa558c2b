"""Candidate futures: acceleration profiles driven along the route by an analytic bicycle.

Steering follows the route (navigation is an input); what is searched is when to go and when to brake.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.datatypes import RouteAhead
from drivesim.geometry import Polyline

Array = NDArray[np.float64]

STEP_S = 0.5  # one latent tick
SUBSTEPS = 5
MAX_CURVATURE_1PM = 0.2
# Two-phase profiles: the first second, then the rest (m/s2).
FIRST_MPS2 = (-6.0, -3.5, -2.0, -1.0, 0.0, 1.0, 2.0)
THEN_MPS2 = (-3.0, 0.0, 1.0)
# One acceleration held all along; what lies between is the search's to find.
HELD_MPS2 = (-6.0, -4.0, -2.8, -2.0, -1.3, -0.8, -0.4, 0.0, 0.4, 1.0, 2.0)


@dataclass(frozen=True)
class Futures:
    """k imagined drives of p steps.

    Attributes:
        actions: (k, p, 2) realised acceleration and curvature.
        poses: (k, p, 3) rear axle in the ego frame now, at the end of each step.
        speeds_mps: (k, p) at the end of each step.
        distances_m: (k, p) driven since now.
    """

    actions: Array
    poses: Array
    speeds_mps: Array
    distances_m: Array

    def take(self, rows: NDArray[np.int64]) -> Futures:
        """Some of the candidates."""
        return Futures(self.actions[rows], self.poses[rows], self.speeds_mps[rows], self.distances_m[rows])

    @staticmethod
    def join(parts: list[Futures]) -> Futures:
        """All candidates of several sets."""
        return Futures(
            np.concatenate([f.actions for f in parts]), np.concatenate([f.poses for f in parts]),
            np.concatenate([f.speeds_mps for f in parts]), np.concatenate([f.distances_m for f in parts]),
        )  # fmt: skip


def two_phase(steps: int) -> Array:
    """The standing set of acceleration profiles (k, steps), m/s2."""
    profiles = [[first] * 2 + [then] * (steps - 2) for first in FIRST_MPS2 for then in THEN_MPS2]
    return np.array(profiles, dtype=np.float64)


def held(steps: int) -> Array:
    """The standing set of accelerations that are held (k, steps), m/s2."""
    return np.repeat(np.array(HELD_MPS2)[:, None], steps, axis=1)


def speed_caps(line: Polyline, route: RouteAhead, lateral_acceleration_mps2: float = 2.2) -> tuple[Array, Array]:
    """Arc lengths and the speed that limit and curvature allow there, looking back over comfortable braking."""
    s = np.arange(0.0, max(line.length_m, 1.0), 1.0)
    bend = np.abs(line.curvature(s, 3.0))
    cap = np.sqrt(lateral_acceleration_mps2 / np.maximum(bend, 1e-3))
    limit_index = np.minimum(np.arange(len(s)), len(route.speed_limit_mps) - 1)
    cap = np.minimum(cap, route.speed_limit_mps[limit_index])
    rising = 4.0 * s  # brake at no more than 2 m/s2 for what comes: v^2 falls by no more than 4 a metre
    return s, np.sqrt(np.minimum.accumulate((cap**2 + rising)[::-1])[::-1] - rising)


@njit(cache=True, error_model="numpy")
def _at(place: float, places: Array, values: Array) -> float:
    """Linear interpolation, held at the ends, as `np.interp`."""
    if place >= places[-1]:
        return float(values[-1])
    if place <= places[0]:
        return float(values[0])
    k = np.searchsorted(places, place, side="right") - 1
    share = (place - places[k]) / (places[k + 1] - places[k])
    return float(values[k] + share * (values[k + 1] - values[k]))


@njit(cache=True, error_model="numpy")
def _pursue(
    speed_mps: float, start_s_m: float, line_s_m: Array, points_m: Array, cap_s_m: Array, cap_mps: Array,
    accelerations: Array, obey_caps: bool, actions: Array, poses: Array, speeds: Array, distances: Array,
) -> None:  # fmt: skip
    """`drive_route`, one profile after the other; fills the last four."""
    h = STEP_S / SUBSTEPS
    along, aside = np.ascontiguousarray(points_m[:, 0]), np.ascontiguousarray(points_m[:, 1])
    for row in range(len(accelerations)):
        x, y, yaw, s, v, distance = 0.0, 0.0, 0.0, start_s_m, speed_mps, 0.0
        for step in range(accelerations.shape[1]):
            v_start, yaw_start, distance_start = v, yaw, distance
            for _ in range(SUBSTEPS):
                a = accelerations[row, step]
                if obey_caps:
                    room = (_at(s + v * STEP_S, cap_s_m, cap_mps) - v) / STEP_S
                    a = min(a, max(room, -3.0))
                v_next = max(v + a * h, 0.0)
                look = s + min(max(0.9 * v, 3.5), 14.0)
                dx, dy = _at(look, line_s_m, along) - x, _at(look, line_s_m, aside) - y
                left = -math.sin(yaw) * dx + math.cos(yaw) * dy
                bend = 2.0 * left / max(dx * dx + dy * dy, 1.0)
                bend = min(max(bend, -MAX_CURVATURE_1PM), MAX_CURVATURE_1PM)
                move = 0.5 * (v + v_next) * h
                x += move * math.cos(yaw + 0.5 * bend * move)
                y += move * math.sin(yaw + 0.5 * bend * move)
                yaw, s, v, distance = yaw + bend * move, s + move, v_next, distance + move
            driven = distance - distance_start
            actions[row, step, 0] = (v - v_start) / STEP_S
            actions[row, step, 1] = (yaw - yaw_start) / driven if driven > 0.05 else 0.0
            poses[row, step, 0], poses[row, step, 1], poses[row, step, 2] = x, y, yaw
            speeds[row, step], distances[row, step] = v, distance


def drive_route(speed_mps: float, route: RouteAhead, accelerations: Array, *, obey_caps: bool = True) -> Futures:
    """Drive acceleration profiles along the route with pure pursuit.

    Args:
        accelerations: (k, p) wanted m/s2 per step; cut where the speed limit or a bend asks for less.

    Raises:
        ValueError: the route has fewer than two points.
    """
    line = Polyline.from_points(route.points_m)
    cap_s, cap = speed_caps(line, route)
    k, p = accelerations.shape
    actions, poses = np.zeros((k, p, 2)), np.zeros((k, p, 3))
    speeds, distances = np.zeros((k, p)), np.zeros((k, p))
    wanted = np.ascontiguousarray(accelerations, np.float64)
    _pursue(
        max(speed_mps, 0.0), line.project(0.0, 0.0)[0], line.s_m, line.points_m, cap_s, cap, wanted, obey_caps,
        actions, poses, speeds, distances,
    )  # fmt: skip
    return Futures(actions, poses, speeds, distances)
