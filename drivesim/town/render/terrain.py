"""The shape of the land: heights from the lanes, smoothed between them, as cells that share their corners.

Roads that pass over others (bridges) are no part of the land; they become strips on ground layer 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from drivesim.town.render.meshes import GROUND, GROUND_KIND, TERRAIN, Mesh
from drivesim.town.roads import RoadNetwork

Floats = NDArray[np.float64]
CHUNK_M = 64.0
MARGIN_M = 320.0
FLAT_M, WILD_M = 0.06, 0.6  # how far the land may leave its cells: on roads, elsewhere and far away
DECK_M = 2.5  # a lane point that far above another one is on a bridge


@dataclass(frozen=True)
class Land:
    """Heights on a regular grid of corners."""

    origin: Floats  # (2,)
    step_m: float
    height: Floats  # (rows, columns)
    tolerance_m: Floats  # (rows, columns)
    deck: NDArray[np.bool_]  # (P,) lane points on bridges

    def at(self, xy: Floats) -> Floats:
        """Height (n,) by bilinear interpolation."""
        where = (np.asarray(xy, float) - self.origin) / self.step_m
        return np.asarray(ndimage.map_coordinates(self.height, [where[:, 1], where[:, 0]], order=1, mode="nearest"))


def build_land(network: RoadNetwork) -> Land:
    """Fit the land to the lanes of a network."""
    points = network.point_xyz_m.astype(np.float64)
    low, high = points[:, :2].min(axis=0) - MARGIN_M, points[:, :2].max(axis=0) + MARGIN_M
    span = float((high - low).max())
    step = 4.0 if span < 2600 else 8.0 if span < 6000 else 16.0
    low = np.floor(low / CHUNK_M) * CHUNK_M
    chunks = np.ceil((high - low) / CHUNK_M).astype(int)
    shape = chunks * int(CHUNK_M / step) + 1
    if np.ptp(points[:, 2]) < 0.05:
        flat = np.full((shape[1], shape[0]), float(points[:, 2].mean()))
        return Land(low, step, flat, np.full_like(flat, WILD_M), np.zeros(len(points), bool))
    deck = _deck_points(network, points)
    ground = points[~deck]
    columns, rows = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]))
    corners = low + np.stack([columns.ravel(), rows.ravel()], axis=1) * step
    distance, index = cKDTree(ground[:, :2]).query(corners, k=6)
    weight = 1.0 / (distance**2 + 0.3)
    height = ((ground[index, 2] * weight).sum(axis=1) / weight.sum(axis=1)).reshape(rows.shape)
    free = (distance[:, 0] > 7.0).reshape(rows.shape)
    for sigma in (12.0, 6.0, 3.0, 1.5, 1.0, 0.8):
        height = np.where(free, ndimage.gaussian_filter(height, sigma, mode="nearest"), height)
    return Land(low, step, height, np.where(distance[:, 0].reshape(rows.shape) < 9.0, FLAT_M, WILD_M), deck)


def _deck_points(network: RoadNetwork, points: Floats) -> NDArray[np.bool_]:
    """Points over a lower lane, and their neighbours along the lane as far as the bridge reaches."""
    cell = ((points[:, :2] - points[:, :2].min(axis=0)) / 3.0).astype(int)
    lowest = np.full(cell.max(axis=0) + 1, np.inf)
    np.minimum.at(lowest, (cell[:, 0], cell[:, 1]), points[:, 2])
    lowest = ndimage.minimum_filter(lowest, 3, mode="nearest")
    deck: NDArray[np.bool_] = points[:, 2] - lowest[cell[:, 0], cell[:, 1]] > DECK_M
    grown = deck.copy()
    for lane in np.unique(network.point_lane[deck]):
        first, count = int(network.lane_start[lane]), int(network.lane_count[lane])
        grown[first : first + count] = ndimage.binary_dilation(deck[first : first + count], iterations=6)
    return grown


def land_meshes(land: Land, *, coarse: bool = False) -> tuple[list[Mesh], Floats]:
    """One mesh per 64 m chunk, and its centre (n, 3); coarse ones are for the distance."""
    size = int(CHUNK_M / land.step_m)
    rows, columns = ((n - 1) // size for n in land.height.shape)
    leaves: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    used = np.zeros(land.height.shape, bool)
    tolerance = np.full_like(land.tolerance_m, WILD_M) if coarse else land.tolerance_m
    for row in range(rows):
        for column in range(columns):
            found: list[tuple[int, int, int]] = []
            _split(land.height, tolerance, row * size, column * size, size, found)
            leaves[row, column] = found
            for r, c, n in found:
                used[r, c] = used[r + n, c] = used[r, c + n] = used[r + n, c + n] = True
    meshes, centres = [], []
    for (row, column), found in leaves.items():
        middle = np.array([column * size + size / 2, row * size + size / 2]) * land.step_m + land.origin
        z = float(land.height[row * size + size // 2, column * size + size // 2])
        mesh = Mesh()
        for leaf in found:
            _leaf(mesh, land, used, leaf, (float(middle[0]), float(middle[1]), z))
        meshes.append(mesh)
        centres.append((float(middle[0]), float(middle[1]), z))
    return meshes, np.asarray(centres, float).reshape(-1, 3)


def _split(
    height: Floats, tolerance: Floats, row: int, column: int, size: int, out: list[tuple[int, int, int]]
) -> None:
    """Quarter a square until its heights lie within the tolerance of the bilinear patch of its corners."""
    at = (slice(row, row + size + 1), slice(column, column + size + 1))
    patch = height[at]
    if size > 1:
        t = np.linspace(0, 1, size + 1)
        top = patch[0, 0] * (1 - t) + patch[0, -1] * t
        bottom = patch[-1, 0] * (1 - t) + patch[-1, -1] * t
        flat = top[None] * (1 - t)[:, None] + bottom[None] * t[:, None]
        twist = abs(float(patch[0, 0] + patch[-1, -1] - patch[0, -1] - patch[-1, 0]))
        if bool((np.abs(flat - patch) > tolerance[at]).any()) or twist > 2 * float(tolerance[at].min()):
            half = size // 2
            for r, c in ((0, 0), (0, half), (half, 0), (half, half)):
                _split(height, tolerance, row + r, column + c, half, out)
            return
    out.append((row, column, size))


def _leaf(
    mesh: Mesh, land: Land, used: NDArray[np.bool_], leaf: tuple[int, int, int], middle: tuple[float, float, float]
) -> None:
    """A quad, or a fan about its centre when finer neighbours add corners to its edges."""
    r, c, n = leaf
    ring = [(r, c + k) for k in range(n)] + [(r + k, c + n) for k in range(n)]
    ring += [(r + n, c + n - k) for k in range(n)] + [(r + n - k, c) for k in range(n)]
    ring = [at for at in ring if used[at]]

    def point(row: float, column: float, z: float) -> tuple[float, float, float]:
        return (
            land.origin[0] + column * land.step_m - middle[0],
            land.origin[1] + row * land.step_m - middle[1],
            z - middle[2],
        )

    corners = [point(a, b, float(land.height[a, b])) for a, b in ring]
    below = (corners[0][0], corners[0][1], corners[0][2] - 1000.0)
    z = [p[2] for p in corners]
    if len(corners) == 4 and abs(z[0] + z[2] - z[1] - z[3]) < 0.005:
        mesh.polygon(corners, (255, 255, 255), TERRAIN, GROUND_KIND, away_from=below)
        return
    top = point(
        r + n / 2,
        c + n / 2,
        float(np.mean([land.height[r, c], land.height[r + n, c], land.height[r, c + n], land.height[r + n, c + n]])),
    )
    for i in range(len(corners)):
        mesh.polygon(
            [corners[i], corners[(i + 1) % len(corners)], top], (255, 255, 255), TERRAIN, GROUND_KIND, away_from=below
        )


def deck_meshes(network: RoadNetwork, deck: NDArray[np.bool_]) -> tuple[list[Mesh], Floats]:
    """Bridges: the lane's strip on layer 1, its underside and sides; one mesh per lane, and its centre (n, 3)."""
    meshes, centres = [], []
    for lane in np.unique(network.point_lane[deck]):
        first, count = int(network.lane_start[lane]), int(network.lane_count[lane])
        on = np.nonzero(deck[first : first + count])[0]
        for run in np.split(on, np.nonzero(np.diff(on) > 1)[0] + 1):
            picked = first + np.unique(np.concatenate([run[::4], run[-1:]]))
            if len(picked) < 2:
                continue
            for part in range(0, len(picked) - 1, 12):
                at = picked[part : part + 13]
                meshes.append(_strip(network, at))
                centres.append(network.point_xyz_m[at].mean(axis=0))
    return meshes, np.asarray(centres, float).reshape(-1, 3)


def _strip(network: RoadNetwork, at: NDArray[np.int64]) -> Mesh:
    mesh = Mesh()
    xyz = network.point_xyz_m[at].astype(float)
    xyz = xyz - network.point_xyz_m[at].mean(axis=0)
    yaw = network.point_yaw_rad[at].astype(float)
    half = network.point_width_m[at].astype(float)[:, None] / 2 + 0.02
    side = np.stack([-np.sin(yaw), np.cos(yaw), np.zeros(len(at))], axis=1) * half
    left, right = xyz - side, xyz + side
    drop = np.array([0.0, 0.0, 0.9])
    for i in range(len(at) - 1):
        below = tuple((xyz[i] - 1000 * drop).tolist())
        a, b, c, d = (tuple(p.tolist()) for p in (left[i], left[i + 1], right[i + 1], right[i]))
        for triangle in ((a, b, c), (a, c, d)):
            mesh.polygon(triangle, (255, 255, 255), TERRAIN, GROUND_KIND, away_from=below, param=(1.0, 0.0))
        lower = [tuple((p - drop).tolist()) for p in (left[i], left[i + 1], right[i + 1], right[i])]
        above = tuple((xyz[i] + 1000 * drop).tolist())
        for triangle in ((lower[0], lower[1], lower[2]), (lower[0], lower[2], lower[3])):
            mesh.polygon(triangle, (120, 118, 114), GROUND, away_from=above)
        middle = tuple(xyz[i].tolist())
        mesh.polygon([a, b, lower[1], lower[0]], (150, 148, 142), GROUND, away_from=middle)
        mesh.polygon([d, c, lower[2], lower[3]], (150, 148, 142), GROUND, away_from=middle)
    return mesh
