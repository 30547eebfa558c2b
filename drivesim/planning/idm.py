"""The intelligent driver model along a path, many candidates at once, against predicted actors (numba kernels).

A candidate is a row of `CANDIDATE_COLUMNS`; all share one path. Arrays: k candidates, t instants
`forecast.DT_S` apart, n actors.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from drivesim.planning.forecast import DT_S
from drivesim.planning.reference_path import STEP_M

# candidate: speed factor, 1 = waits for who will cross, hardest braking (m/s2); with factor 0 it brakes so all the time
TARGET, YIELDS, BRAKE = range(3)
CANDIDATE_COLUMNS = 3
# driver: columns of the parameter vector
ACCELERATION, COMFORT, HEADWAY, MIN_GAP, STANDING_GAP, FRONT, CENTER, HALF_LENGTH, HALF_WIDTH = range(9)
SIDE_MARGIN, WALKER_MARGIN = 9, 10
DRIVER_COLUMNS = 11


@njit(cache=True, error_model="numpy")
def occupy(
    path: np.ndarray, poses: np.ndarray, half_size: np.ndarray, walker: np.ndarray, driver: np.ndarray, out: np.ndarray
) -> None:
    """Who is on the ego's corridor, where and when.

    path (m, 3) every STEP_M; poses (n, t, 3); out (n, t, 4): rear and front arc length of the actor's
    footprint, its speed along the path, and 1.0 where it overlaps the corridor.
    """
    for n in range(len(poses)):
        margin = driver[WALKER_MARGIN] if walker[n] else driver[SIDE_MARGIN]
        for t in range(poses.shape[1]):
            x, y, yaw = poses[n, t, 0], poses[n, t, 1], poses[n, t, 2]
            best, k = 1e18, 0
            for i in range(len(path)):
                distance = (path[i, 0] - x) ** 2 + (path[i, 1] - y) ** 2
                if distance < best:
                    best, k = distance, i
            c, s = math.cos(path[k, 2]), math.sin(path[k, 2])
            dx, dy = x - path[k, 0], y - path[k, 1]
            at, side = k * STEP_M + c * dx + s * dy, c * dy - s * dx
            cr, sr = abs(math.cos(yaw - path[k, 2])), abs(math.sin(yaw - path[k, 2]))
            reach = half_size[n, 0] * cr + half_size[n, 1] * sr
            width = half_size[n, 0] * sr + half_size[n, 1] * cr
            out[n, t, 0], out[n, t, 1] = at - reach, at + reach
            out[n, t, 3] = 1.0 if abs(side) < width + driver[HALF_WIDTH] + margin and at > -5.0 else 0.0
        for t in range(poses.shape[1]):
            u = min(t + 1, poses.shape[1] - 1)
            w = max(u - 1, 0)
            out[n, t, 2] = (out[n, u, 0] - out[n, w, 0]) / DT_S


@njit(cache=True, error_model="numpy")
def _idm(v: float, wanted: float, gap: float, lead: float, minimum: float, driver: np.ndarray) -> float:
    """Acceleration towards `wanted` speed behind a lead at `gap` with speed `lead`."""
    a, b = driver[ACCELERATION], driver[COMFORT]
    dynamic = v * driver[HEADWAY] + v * (v - lead) / (2.0 * math.sqrt(a * b))
    desired = minimum + max(dynamic, 0.0)
    free = 1.0 - (v / max(wanted, 0.1)) ** 4
    return float(a * (max(free, -b / a) - (desired / max(gap, 0.1)) ** 2))


@njit(cache=True, error_model="numpy")
def _cap(caps: np.ndarray, s: float) -> float:
    return float(caps[min(max(int(s / STEP_M), 0), len(caps) - 1)])


@njit(cache=True, error_model="numpy")
def _behind_actors(
    s: float, v: float, wanted: float, t: int, yields: bool, occupied: np.ndarray, last: np.ndarray, entry: np.ndarray,
    standing: np.ndarray, driver: np.ndarray,
) -> float:  # fmt: skip
    """The hardest braking that any actor asks for at instant t."""
    hardest = 1e9
    for n in range(len(occupied)):
        if last[n] < t:
            continue
        rear, along = occupied[n, t, 0], max(occupied[n, t, 2], 0.0)
        if occupied[n, t, 3] == 0.0:
            if not yields:
                continue
            if entry[n] > t and abs(occupied[n, t, 2]) < 2.0:  # it crosses: keep off the place where it will enter
                rear, along = occupied[n, min(int(entry[n]), occupied.shape[1] - 1), 0], 0.0
        if 0.5 * (rear + occupied[n, t, 1]) < s + driver[CENTER] or rear < s + driver[CENTER]:
            continue  # beside or behind
        minimum = driver[STANDING_GAP] if standing[n] else driver[MIN_GAP]
        hardest = min(hardest, _idm(v, wanted, rear - s - driver[FRONT], along, minimum, driver))
    return hardest


@njit(cache=True, error_model="numpy")
def rollout(
    candidates: np.ndarray, speed: float, caps: np.ndarray, stop_s: float, occupied: np.ndarray, last: np.ndarray,
    entry: np.ndarray, standing: np.ndarray, driver: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """Drive every candidate along the path: out (k, t, 3) distance, speed, acceleration; the first instant is now.

    caps (m,): highest speed at every STEP_M of the path; stop_s: where the front bumper must stop, or infinite.
    """
    for k in range(len(candidates)):
        s, v = 0.0, max(speed, 0.0)
        out[k, 0, 0], out[k, 0, 1], out[k, 0, 2] = 0.0, v, 0.0
        for t in range(out.shape[1] - 1):
            wanted = candidates[k, TARGET] * _cap(caps, s + 0.3 * v)
            a = driver[ACCELERATION] * (1.0 - (v / max(wanted, 0.1)) ** 4)
            a = max(a, max(-driver[COMFORT], (wanted - v) / 0.5)) if v > wanted else a
            a = min(a, _behind_actors(s, v, wanted, t, candidates[k, YIELDS] > 0.5, occupied, last, entry, standing,
                                      driver))  # fmt: skip
            if stop_s < 1e6:
                a = min(a, _idm(v, max(wanted, v), stop_s - s - driver[FRONT], 0.0, 0.5, driver))
            a = min(max(a, -candidates[k, BRAKE]), driver[ACCELERATION])
            if candidates[k, TARGET] == 0.0:
                a = -candidates[k, BRAKE]
            if v < 0.05 and a < 0.4:
                a = 0.0  # who stands does not creep up
            v_next = max(v + a * DT_S, 0.0)
            s += 0.5 * (v + v_next) * DT_S
            out[k, t, 2] = (v_next - v) / DT_S
            v = v_next
            out[k, t + 1, 0], out[k, t + 1, 1], out[k, t + 1, 2] = s, v, 0.0


@njit(cache=True, error_model="numpy")
def _box_gap(
    x: float,
    y: float,
    yaw: float,
    half_l: float,
    half_w: float,
    ox: float,
    oy: float,
    oyaw: float,
    ol: float,
    ow: float,
) -> float:
    """Separation along the best separating axis (see `drivesim.geometry.box.boxes_gap`)."""
    dx, dy = ox - x, oy - y
    c, s = abs(math.cos(oyaw - yaw)), abs(math.sin(oyaw - yaw))
    ca, sa = math.cos(yaw), math.sin(yaw)
    gap = max(abs(dx * ca + dy * sa) - half_l - ol * c - ow * s, abs(dy * ca - dx * sa) - half_w - ol * s - ow * c)
    cb, sb = math.cos(oyaw), math.sin(oyaw)
    other = max(
        abs(dx * cb + dy * sb) - ol - half_l * c - half_w * s, abs(dy * cb - dx * sb) - ow - half_l * s - half_w * c
    )
    return max(gap, other)


@njit(cache=True, error_model="numpy")
def _unsure(poses: np.ndarray, n: int, t: int, yaw: float) -> float:
    """How many metres a crossing vehicle may be off its forecast at instant t: it may turn, hurry or wait."""
    if t == 0:
        return 0.0
    step = math.hypot(poses[n, t, 0] - poses[n, t - 1, 0], poses[n, t, 1] - poses[n, t - 1, 1])
    crossing = abs(math.sin(poses[n, t, 2] - yaw))
    return min(0.3 * t, 3.0) * max(2.0 * crossing - 1.0, 0.0) * min(step / DT_S / 4.0, 1.0)


@njit(cache=True, error_model="numpy")
def closest(
    rolled: np.ndarray, path: np.ndarray, poses: np.ndarray, half_size: np.ndarray, walker: np.ndarray,
    driver: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """Safety of every rollout: out (k, 4): first instant of a predicted collision or -1, the ego's speed then,
    the smallest gap to a vehicle less its uncertainty, the smallest gap to a walker (m, at most 5)."""
    half_l, half_w = driver[HALF_LENGTH], driver[HALF_WIDTH]
    for k in range(len(rolled)):
        out[k, 0], out[k, 1], out[k, 2], out[k, 3] = -1.0, 0.0, 5.0, 5.0
        for t in range(rolled.shape[1]):
            i = min(int(rolled[k, t, 0] / STEP_M + 0.5), len(path) - 1)
            rest = rolled[k, t, 0] - i * STEP_M + driver[CENTER]
            yaw = path[i, 2]
            x, y = path[i, 0] + rest * math.cos(yaw), path[i, 1] + rest * math.sin(yaw)
            for n in range(len(poses)):
                ox, oy = poses[n, t, 0], poses[n, t, 1]
                reach = half_l + half_w + half_size[n, 0] + half_size[n, 1] + 5.0
                if abs(ox - x) > reach or abs(oy - y) > reach:
                    continue
                gap = _box_gap(x, y, yaw, half_l, half_w, ox, oy, poses[n, t, 2], half_size[n, 0], half_size[n, 1])
                column = 3 if walker[n] else 2
                unsure = 0.0 if walker[n] else _unsure(poses, n, t, yaw)
                out[k, column] = min(out[k, column], gap + 0.03 * t - unsure)
                if gap < 0.0 and out[k, 0] < 0.0:
                    out[k, 0], out[k, 1] = t, rolled[k, t, 1]
