"""The ground seen from above: a palette raster of roads, paint and verges in sparse tiles with mip levels.

A tile is TILE_M wide; a page table maps (row, column) to a tile, or to -1 - material where it is uniform.
Tiles carry one extra row and column so that bilinear look-ups need no second page.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from drivesim.town.render import meshes as labels
from drivesim.town.roads import (
    COLOR_YELLOW,
    LANE_BIKING,
    LANE_DRIVING,
    LANE_MEDIAN,
    LANE_PARKING,
    LANE_SHOULDER,
    LANE_SIDEWALK,
    MARK_BROKEN,
    MARK_SOLID_SOLID,
    RoadNetwork,
)

TILE_M = 8.0
LEVELS = 5
(GRASS, ASPHALT, ASPHALT_OLD, ASPHALT_NEW, TRACKS, JUNCTION, SHOULDER, PARKING, BIKING, MEDIAN, SIDEWALK, SIDEWALK_OLD,
 JOINT, KERB, WHITE_0, WHITE_1, WHITE_2, YELLOW_0, YELLOW_1, YELLOW_2, ZEBRA_0, ZEBRA_1, PLAZA, DRY_GRASS, DIRT,
 CRACK, COVER) = range(27)  # fmt: skip
MATERIALS = 32

CLASS_OF = np.zeros(MATERIALS, np.uint8)
CLASS_OF[[GRASS, DRY_GRASS, DIRT, MEDIAN]] = labels.TERRAIN
CLASS_OF[[ASPHALT, ASPHALT_OLD, ASPHALT_NEW, TRACKS, JUNCTION, SHOULDER, PARKING, BIKING, CRACK, COVER]] = labels.ROADS
CLASS_OF[[SIDEWALK, SIDEWALK_OLD, JOINT, KERB]] = labels.SIDEWALKS
CLASS_OF[[WHITE_0, WHITE_1, WHITE_2, YELLOW_0, YELLOW_1, YELLOW_2, ZEBRA_0, ZEBRA_1]] = labels.ROAD_LINES
CLASS_OF[PLAZA] = labels.GROUND
PAINT = np.zeros(MATERIALS, np.uint8)
PAINT[[WHITE_0, WHITE_1, WHITE_2, YELLOW_0, YELLOW_1, YELLOW_2, ZEBRA_0, ZEBRA_1]] = 1


class Ground(NamedTuple):
    """The raster: levels are flat arrays of tiles of ((texels >> level) + 1)^2 bytes."""

    origin: NDArray[np.float64]  # (2,) world x, y of the page table's corner
    page: NDArray[np.int32]  # (layers, rows, columns)
    level_0: NDArray[np.uint8]
    level_1: NDArray[np.uint8]
    level_2: NDArray[np.uint8]
    level_3: NDArray[np.uint8]
    level_4: NDArray[np.uint8]
    texels: NDArray[np.int64]  # (1,) of a tile at level 0


@njit(cache=True, nogil=True, error_model="numpy")
def _hash(x, y):  # type: ignore[no-untyped-def]
    h = np.uint32(np.uint32(x) * np.uint32(0x9E3779B1)) ^ np.uint32(np.uint32(y) * np.uint32(0x85EBCA77))
    h = np.uint32(h ^ (h >> np.uint32(15)))
    h = np.uint32(h * np.uint32(0x2C1B3C6D))
    h = np.uint32(h ^ (h >> np.uint32(12)))
    h = np.uint32(h * np.uint32(0x297A2D39))
    return np.uint32(h ^ (h >> np.uint32(15)))


@njit(cache=True, nogil=True, error_model="numpy")
def _smooth(x, y, cell):  # type: ignore[no-untyped-def]
    """Value noise in 0..1 over cells of `cell` texels."""
    ix, iy = x // cell, y // cell
    fx, fy = (x - ix * cell) / cell, (y - iy * cell) / cell
    a, b = _hash(ix, iy) & np.uint32(255), _hash(ix + 1, iy) & np.uint32(255)
    c, d = _hash(ix, iy + 1) & np.uint32(255), _hash(ix + 1, iy + 1) & np.uint32(255)
    return ((a * (1 - fx) + b * fx) * (1 - fy) + (c * (1 - fx) + d * fx) * fy) / 255.0


@njit(cache=True, nogil=True, error_model="numpy")
def _worn(material, x, y):  # type: ignore[no-untyped-def]
    """The variant of a material at a texel: wear of paint, age of asphalt, slabs of sidewalks."""
    if material == 1:
        age = _smooth(x, y, 180)
        if age > 0.70:
            return 2
        return 3 if age < 0.22 else 1
    if material == 14 or material == 17:
        wear = _smooth(x, y, 37) * 0.6 + (_hash(x, y) & np.uint32(255)) / 640.0
        return material + (2 if wear > 0.66 else 1 if wear > 0.46 else 0)
    if material == 20:
        wear = _smooth(x, y, 31) * 0.6 + (_hash(x, y) & np.uint32(255)) / 640.0
        return 21 if wear > 0.52 else 20
    if material == 10:
        if x % 12 == 0 or y % 12 == 0:
            return 12
        return 11 if (_hash(x // 12, y // 12) & np.uint32(3)) == np.uint32(0) else 10
    return material


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(quads, material, page, tiles, texels, only_over):  # type: ignore[no-untyped-def]
    """Paint convex quads (k, 4, 2), in texels from the page's corner; `only_over` >= 0: only over roads."""
    rows, columns = page.shape
    stride = texels + 1
    for k in range(quads.shape[0]):
        q = quads[k]
        low, high = q[:, 1].min(), q[:, 1].max()
        for y in range(max(int(np.ceil(low)), 0), min(int(np.ceil(high)), rows * texels)):
            left, right = 1e12, -1e12
            for i in range(4):
                j = (i + 1) % 4
                x0, y0, x1, y1 = q[i, 0], q[i, 1], q[j, 0], q[j, 1]
                if (y0 <= y < y1) or (y1 <= y < y0):
                    x = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                    left, right = min(left, x), max(right, x)
            if left > right:
                continue
            for x_texel in range(max(int(np.ceil(left)), 0), min(int(np.ceil(right)), columns * texels)):
                tile = page[y // texels, x_texel // texels]
                if tile >= 0:
                    at = tile * stride * stride + (y % texels) * stride + (x_texel % texels)
                    if only_over < 0 or tiles[at] == only_over:
                        tiles[at] = _worn(material, x_texel, y)


@njit(cache=True, nogil=True, error_model="numpy")
def _verges(page, tiles, texels, city):  # type: ignore[no-untyped-def]
    """The land between the roads: grass with dry spots, or paving in a city."""
    stride = texels + 1
    for row in range(page.shape[0]):
        for column in range(page.shape[1]):
            tile = page[row, column]
            if tile < 0:
                continue
            for v in range(texels):
                for u in range(texels):
                    x, y = column * texels + u, row * texels + v
                    spot = _smooth(x, y, 90)
                    value = 0 if spot < 0.62 else 23
                    if city == 1 and _smooth(x + 5000, y, 700) > 0.45:
                        value = 22
                    tiles[tile * stride * stride + v * stride + u] = value


@njit(cache=True, nogil=True, error_model="numpy")
def _borders(page, tiles, texels):  # type: ignore[no-untyped-def]
    """Fill each tile's extra row and column from its neighbours."""
    stride = texels + 1
    rows, columns = page.shape
    for row in range(rows):
        for column in range(columns):
            tile = page[row, column]
            if tile < 0:
                continue
            for k in range(stride):
                for side in range(2):
                    v, u = (k, texels) if side == 0 else (texels, k)
                    r, c = row + v // texels, column + u // texels
                    value = tiles[tile * stride * stride + min(v, texels - 1) * stride + min(u, texels - 1)]
                    if r < rows and c < columns:
                        other = page[r, c]
                        if other >= 0:
                            value = tiles[other * stride * stride + (v % texels) * stride + (u % texels)]
                    tiles[tile * stride * stride + v * stride + u] = value


@njit(cache=True, nogil=True, error_model="numpy")
def _halve(fine, count, texels, paint):  # type: ignore[no-untyped-def]
    """The next level: paint survives from two texels of four, otherwise the upper left wins."""
    half = texels // 2
    coarse = np.zeros(count * (half + 1) * (half + 1), np.uint8)
    stride = texels + 1
    for tile in range(count):
        for v in range(half):
            for u in range(half):
                at = tile * stride * stride + 2 * v * stride + 2 * u
                four = (fine[at], fine[at + 1], fine[at + stride], fine[at + stride + 1])
                best, marks = four[(u + v) & 3], 0
                for value in four:
                    if paint[value]:
                        marks += 1
                if marks >= 2:
                    for value in four:
                        if paint[value]:
                            best = value
                else:
                    for value in four:
                        if not paint[value]:
                            best = value
                coarse[tile * (half + 1) * (half + 1) + v * (half + 1) + u] = best
    return coarse


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
        _fill((quads - low) / 0.5, COVER, page, tile, side, -1)
        mask = tile.reshape(side + 1, side + 1) == COVER
        ball = np.hypot(*np.mgrid[-8:9, -8:9]) <= 8.0
        closed = ndimage.binary_closing(mask, ball)
        rows, columns = np.nonzero(closed & ~mask)
        at = low + np.stack([columns, rows], axis=1) * 0.5
        cell = np.array([[-0.3, -0.3], [0.3, -0.3], [0.3, 0.3], [-0.3, 0.3]])
        out.append(at[:, None, :] + cell[None])
    return np.concatenate(out) if out else np.zeros((0, 4, 2))


def build_ground(network: RoadNetwork, deck: NDArray[np.bool_], *, city: bool) -> Ground:
    """Bake the raster of a network, layer 0 the land and layer 1 its bridges; coarser where the town is huge."""
    xy = network.point_xyz_m[:, :2].astype(np.float64)
    low = np.floor(xy.min(axis=0) / TILE_M) * TILE_M - 10 * TILE_M
    shape = np.ceil((xy.max(axis=0) + 10 * TILE_M - low) / TILE_M).astype(int)
    reach = network.point_width_m[:, None].astype(np.float64) / 2 + 2.0
    marked = np.zeros((shape[1], shape[0]), bool)
    for ox in (-1.0, 0.0, 1.0):
        for oy in (-1.0, 0.0, 1.0):
            cell = ((xy + np.array([ox, oy]) * reach - low) / TILE_M).astype(int)
            marked[cell[:, 1], cell[:, 0]] = True
    marked = ndimage.binary_closing(marked, np.ones((3, 3), bool))
    count = int(marked.sum())
    texels = 64 if count < 30000 else 32 if count < 120000 else 16
    page = np.full((2, *marked.shape), -1, np.int32)
    page[0][marked] = np.arange(count)
    if deck.any():
        raised = np.zeros_like(marked)
        for offset in (-8.0, 0.0, 8.0):
            cell = (
                ((xy[deck][:, None] + np.array([[offset, 0.0], [0.0, offset]]) - low) / TILE_M)
                .astype(int)
                .reshape(-1, 2)
            )
            raised[cell[:, 1], cell[:, 0]] = True
        page[1][raised] = np.arange(count, count + int(raised.sum()))
        count += int(raised.sum())
    tiles = np.zeros(count * (texels + 1) ** 2, np.uint8)
    marks_up = _raised_marks(network, deck)
    _paint(network, page[0], tiles, texels, low, city, ~deck, ~marks_up)
    if deck.any():
        _paint(network, page[1], tiles, texels, low, city, deck, marks_up)
    levels = [tiles]
    size = texels
    for _ in range(LEVELS - 1):
        _borders(page[0], levels[-1], size)
        _borders(page[1], levels[-1], size)
        levels.append(_halve(levels[-1], count, size, PAINT))
        size //= 2
    _borders(page[0], levels[-1], size)
    _borders(page[1], levels[-1], size)
    return Ground(low, page, levels[0], levels[1], levels[2], levels[3], levels[4], np.array([texels], np.int64))


def _raised_marks(network: RoadNetwork, deck: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which paint points (M,) lie on bridges: as the nearest lane point in space does."""
    if not deck.any() or not len(network.mark_xyz_m):
        return np.zeros(len(network.mark_xyz_m), bool)
    stretch = np.array([1.0, 1.0, 3.0])
    _, index = cKDTree(network.point_xyz_m * stretch).query(network.mark_xyz_m * stretch)
    return np.asarray(deck[index])


def _paint(
    network: RoadNetwork,
    page: NDArray[np.int32],
    tiles: NDArray[np.uint8],
    texels: int,
    low: NDArray[np.float64],
    city: bool,
    keep: NDArray[np.bool_],
    keep_marks: NDArray[np.bool_],
) -> None:
    """One layer; `keep` says which lane points are on it."""

    def paint(quads: NDArray[np.float64], material: int, only_over: int = -1) -> None:
        _fill((quads - low) * (texels / TILE_M), material, page, tiles, texels, only_over)

    def of_kind(kind: int) -> NDArray[np.int64]:
        return np.nonzero(network.lane_kind == kind)[0]

    _verges(page, tiles, texels, 1 if city else 0)
    walks, driving = of_kind(LANE_SIDEWALK), of_kind(LANE_DRIVING)
    paint(strips(network, walks, -1.0, 1.0, keep=keep), SIDEWALK)
    if keep.mean() > 0.5:
        paint(junction_quads(network), JUNCTION)
    for kind, material in (
        (LANE_SHOULDER, SHOULDER),
        (LANE_MEDIAN, MEDIAN),
        (LANE_PARKING, PARKING),
        (LANE_BIKING, BIKING),
    ):
        paint(strips(network, of_kind(kind), -1.02, 1.02, keep=keep), material)
    paint(strips(network, driving, -1.03, 1.03, keep=keep), ASPHALT)
    for offset in (-0.85, 0.85):
        paint(strips(network, driving, offset - 0.28, offset + 0.28, scale=False, keep=keep), TRACKS, ASPHALT)
    _kerbs(page, tiles, texels)
    for colour, quads in mark_quads(network, keep_marks).items():
        paint(quads, YELLOW_0 if colour else WHITE_0)
    if keep.mean() > 0.5:
        paint(crosswalk_quads(network), ZEBRA_0)
        paint(stop_quads(network), WHITE_0)


@njit(cache=True, nogil=True, error_model="numpy")
def _kerbs(page, tiles, texels):  # type: ignore[no-untyped-def]
    """A light stone edge, one or two texels wide, where a sidewalk meets the road."""
    stride = texels + 1
    rows, columns = page.shape
    for row in range(rows):
        for column in range(columns):
            tile = page[row, column]
            if tile < 0:
                continue
            for v in range(texels):
                for u in range(texels):
                    at = tile * stride * stride + v * stride + u
                    if not 10 <= tiles[at] <= 12:
                        continue
                    touches = False
                    for k in range(8):
                        dv, du = ((0, 1), (1, 0), (0, -1), (-1, 0), (0, 2), (2, 0), (0, -2), (-2, 0))[k]
                        y, x = row * texels + v + dv, column * texels + u + du
                        if 0 <= y < rows * texels and 0 <= x < columns * texels:
                            other = page[y // texels, x // texels]
                            if other >= 0:
                                value = tiles[other * stride * stride + (y % texels) * stride + (x % texels)]
                                if 1 <= value <= 8:
                                    touches = True
                    if touches:
                        tiles[at] = 13


UNIFORM_GRASS = -1 - GRASS
