"""Painting the texels of the ground raster: quads, wear, verges, kerbs, borders between tiles, coarser levels.

Materials go by number here; ground.py names them.
"""

from __future__ import annotations

import numpy as np
from numba import njit


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
def fill(quads, material, page, tiles, texels, only_over):  # type: ignore[no-untyped-def]
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
def verges(page, tiles, texels, city):  # type: ignore[no-untyped-def]
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
def borders(page, tiles, texels):  # type: ignore[no-untyped-def]
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
def halve(fine, count, texels, paint):  # type: ignore[no-untyped-def]
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


@njit(cache=True, nogil=True, error_model="numpy")
def kerbs(page, tiles, texels):  # type: ignore[no-untyped-def]
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
