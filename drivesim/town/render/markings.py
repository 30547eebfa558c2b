"""What is painted on the ground, as quads (k, 4, 2) in metres: lane strips, lines, stop bars, zebras, junctions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from drivesim.town.render.texel_paint import fill
from drivesim.town.roads import (
    COLOR_YELLOW,
    LANE_DRIVING,
    MARK_BROKEN,
    MARK_SOLID_SOLID,
    RoadNetwork,
)

UNWORN = 26  # a material that wear leaves as it is


def strips(network: RoadNetwork, lanes: NDArray[np.int64], low: float, high: float, *, scale: bool = True,
           keep: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:  # fmt: skip
    """Quads (k, 4, 2) along lanes between two lateral offsets, as fractions of the half width or metres."""
    out: list[NDArray[np.float64]] = []
    for lane in lanes:
        first, count = int(network.lane_start[lane]), int(network.lane_count[lane])
        at = slice(first, first + count)
        yaw = network.point_yaw_rad[at].astype(np.float64)
        right = np.stack([-np.sin(yaw), np.cos(yaw)], axis=1)
        xy = network.point_xyz_m[at, :2].astype(np.float64)
        half = network.point_width_m[at, None].astype(np.float64) / 2 if scale else np.ones((count, 1))
        a, b = xy + right * half * low, xy + right * half * high
        quads = np.stack([a[:-1], a[1:], b[1:], b[:-1]], axis=1)
        out.append(quads if keep is None else quads[keep[at][:-1] | keep[at][1:]])
    return np.concatenate(out) if out else np.zeros((0, 4, 2))


def mark_quads(network: RoadNetwork, keep: NDArray[np.bool_] | None = None) -> dict[int, NDArray[np.float64]]:
    """Quads of the lane paint by colour; broken lines are 3 m on, 4.5 m off; `keep` (M,) by point of a line."""
    out: dict[int, list[NDArray[np.float64]]] = {0: [], 1: []}
    for line in range(len(network.mark_start)):
        first, count = int(network.mark_start[line]), int(network.mark_count[line])
        if count < 2:
            continue
        kind = int(network.mark_kind[line])
        if kind not in (0, MARK_BROKEN, MARK_SOLID_SOLID, 4):
            continue
        width = max(float(network.mark_width_m[line]), 0.12)
        colour = 1 if network.mark_color[line] == COLOR_YELLOW else 0
        offsets = (-0.15, 0.15) if kind == MARK_SOLID_SOLID else (0.0,)
        for part in _line_parts(network, first, count, keep, broken=kind == MARK_BROKEN):
            step = np.diff(part, axis=0)
            length = np.linalg.norm(step, axis=1, keepdims=True)
            sound = length[:, 0] > 1e-4
            side = np.stack([-step[:, 1], step[:, 0]], axis=1) / np.maximum(length, 1e-6)
            grow = step / np.maximum(length, 1e-6) * 0.03
            for offset in offsets:
                a, b = part[:-1] - grow + side * offset, part[1:] + grow + side * offset
                quad = np.stack(
                    [a - side * width / 2, b - side * width / 2, b + side * width / 2, a + side * width / 2], axis=1
                )
                out[colour].append(quad[sound])
    return {c: np.concatenate(q) if q else np.zeros((0, 4, 2)) for c, q in out.items()}


def _line_parts(
    network: RoadNetwork, first: int, count: int, keep: NDArray[np.bool_] | None, *, broken: bool
) -> list[NDArray[np.float64]]:
    """The pieces of one line that are kept, cut into dashes where it is broken."""
    xy = network.mark_xyz_m[first : first + count, :2].astype(np.float64)
    runs = [xy]
    if keep is not None:
        kept = keep[first : first + count]
        cuts = np.nonzero(np.diff(kept.astype(np.int8)))[0] + 1
        runs = [run for run, on in zip(np.split(xy, cuts), np.split(kept, cuts), strict=True) if on[0] and len(run) > 1]
    return [dash for run in runs for dash in _dashes(run)] if broken else runs


def _dashes(xy: NDArray[np.float64], on_m: float = 3.0, off_m: float = 4.5) -> list[NDArray[np.float64]]:
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(xy, axis=0), axis=1))])
    parts = []
    start = 0.0
    while start < arc[-1]:
        end = min(start + on_m, float(arc[-1]))
        s = np.linspace(start, end, 4)
        parts.append(np.stack([np.interp(s, arc, xy[:, 0]), np.interp(s, arc, xy[:, 1])], axis=1))
        start += on_m + off_m
    return parts


def stop_quads(network: RoadNetwork) -> NDArray[np.float64]:
    """One 0.4 m bar per stop line."""
    yaw = network.stop_yaw_rad.astype(np.float64)
    ahead, right = np.stack([np.cos(yaw), np.sin(yaw)], 1), np.stack([-np.sin(yaw), np.cos(yaw)], 1)
    half = network.stop_half_width_m[:, None].astype(np.float64)
    at = network.stop_xyz_m[:, :2].astype(np.float64)
    return np.stack(
        [
            at - right * half - ahead * 0.2,
            at - right * half + ahead * 0.2,
            at + right * half + ahead * 0.2,
            at + right * half - ahead * 0.2,
        ],
        axis=1,
    ).reshape(-1, 4, 2)


def crosswalk_quads(network: RoadNetwork) -> NDArray[np.float64]:
    """Zebra bars: 0.5 m on, 0.5 m off, along the road."""
    out = []
    for walk in range(len(network.crosswalk_start)):
        first, count = int(network.crosswalk_start[walk]), int(network.crosswalk_count[walk])
        ring = network.crosswalk_xyz_m[first : first + count, :2].astype(np.float64)
        if len(ring) < 3:
            continue
        if np.linalg.norm(ring[0] - ring[-1]) < 1e-3:
            ring = ring[:-1]
        edge = np.roll(ring, -1, axis=0) - ring
        walking = edge[np.argmax(np.linalg.norm(edge, axis=1))]
        walking = walking / max(float(np.linalg.norm(walking)), 1e-6)
        across = np.array([-walking[1], walking[0]])
        u, v = ring @ walking, ring @ across
        v0, v1 = float(v.min()), float(v.max())
        for start in np.arange(u.min() + 0.25, u.max() - 0.4, 1.0):
            out.append(
                [walking * a + across * b for a, b in ((start, v0), (start + 0.5, v0), (start + 0.5, v1), (start, v1))]
            )
    return np.asarray(out, np.float64).reshape(-1, 4, 2)


def junction_quads(network: RoadNetwork) -> NDArray[np.float64]:
    """Asphalt between the lanes of a junction: a morphological closing on a 0.5 m raster."""
    out = []
    driving = network.lane_kind == LANE_DRIVING
    for junction in np.unique(network.lane_junction[(network.lane_junction >= 0) & driving]):
        lanes = np.nonzero((network.lane_junction == junction) & driving)[0]
        quads = strips(network, lanes, -1.0, 1.0)
        low, high = quads.min(axis=(0, 1)) - 8.0, quads.max(axis=(0, 1)) + 8.0
        shape = np.ceil((high - low) / 0.5).astype(int)
        if shape.max() > 1200:
            continue
        page = np.zeros((1, 1), np.int32)
        side = int(shape.max())
        tile = np.zeros((side + 1) ** 2, np.uint8)
        fill((quads - low) / 0.5, UNWORN, page, tile, side, -1)
        mask = tile.reshape(side + 1, side + 1) == UNWORN
        ball = np.hypot(*np.mgrid[-8:9, -8:9]) <= 8.0
        closed = ndimage.binary_closing(mask, ball)
        rows, columns = np.nonzero(closed & ~mask)
        at = low + np.stack([columns, rows], axis=1) * 0.5
        cell = np.array([[-0.3, -0.3], [0.3, -0.3], [0.3, 0.3], [-0.3, 0.3]])
        out.append(at[:, None, :] + cell[None])
    return np.concatenate(out) if out else np.zeros((0, 4, 2))
