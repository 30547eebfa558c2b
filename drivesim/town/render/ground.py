"""The ground seen from above: a palette raster of roads, paint and verges in sparse tiles with mip levels.

A tile is TILE_M wide; a page table maps (row, column) to a tile, or to -1 - material where it is uniform.
Tiles carry one extra row and column so that bilinear look-ups need no second page.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from drivesim.town.render import meshes as labels
from drivesim.town.render.markings import crosswalk_quads, junction_quads, mark_quads, stop_quads, strips
from drivesim.town.render.texel_paint import borders, fill, halve, kerbs, verges
from drivesim.town.roads import (
    LANE_BIKING,
    LANE_DRIVING,
    LANE_MEDIAN,
    LANE_PARKING,
    LANE_SHOULDER,
    LANE_SIDEWALK,
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
        borders(page[0], levels[-1], size)
        borders(page[1], levels[-1], size)
        levels.append(halve(levels[-1], count, size, PAINT))
        size //= 2
    borders(page[0], levels[-1], size)
    borders(page[1], levels[-1], size)
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
        fill((quads - low) * (texels / TILE_M), material, page, tiles, texels, only_over)

    def of_kind(kind: int) -> NDArray[np.int64]:
        return np.nonzero(network.lane_kind == kind)[0]

    verges(page, tiles, texels, 1 if city else 0)
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
    kerbs(page, tiles, texels)
    for colour, quads in mark_quads(network, keep_marks).items():
        paint(quads, YELLOW_0 if colour else WHITE_0)
    if keep.mean() > 0.5:
        paint(crosswalk_quads(network), ZEBRA_0)
        paint(stop_quads(network), WHITE_0)
