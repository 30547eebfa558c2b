"""Meshes: convex planar polygons (triangles and quads) with a plane, a colour and a material kind.

Object frame: x forward, y right, z up, metres (CARLA's). Every polygon's normal points out of its part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# CARLA 0.9.16 CityObjectLabel
ROADS, SIDEWALKS, BUILDINGS, WALL, FENCE, POLES, TRAFFIC_LIGHT, TRAFFIC_SIGNS = 1, 2, 3, 4, 5, 6, 7, 8
VEGETATION, TERRAIN, SKY, PEDESTRIANS, RIDER, CAR, TRUCK, BUS = 9, 10, 11, 12, 13, 14, 15, 16
MOTORCYCLE, BICYCLE, STATIC, ROAD_LINES, GROUND, GUARD_RAIL = 18, 19, 20, 24, 25, 28

# material kinds of polygons
FIXED, TINT_A, TINT_B, TINT_C, GLASS, FACADE, GROUND_KIND, FOLIAGE = range(8)
LAMP = 8  # LAMP + channel: emissive when that bit of the instance's lamp word is set
LAMP_HEAD, LAMP_TAIL, LAMP_REVERSE, LAMP_LEFT, LAMP_RIGHT, LAMP_BEACON, LAMP_STREET = (LAMP + i for i in range(7))

Rgb = tuple[int, int, int]
Point = tuple[float, float, float]


class Meshes(NamedTuple):
    """The library as flat arrays; a mesh is a row of `table`."""

    vertex: NDArray[np.float32]  # (v, 3) object frame
    corner: NDArray[np.int32]  # (p, 4) vertex numbers, relative to the mesh
    corners: NDArray[np.uint8]  # (p,) 3 or 4
    plane: NDArray[np.float32]  # (p, 4) n . x + d = 0, outward
    rgb: NDArray[np.uint8]  # (p, 3)
    klass: NDArray[np.uint8]  # (p,) CityObjectLabel
    kind: NDArray[np.uint8]  # (p,)
    param: NDArray[np.float32]  # (p, 2) facade: u offset, z of the ground floor; ground: layer
    table: NDArray[np.int32]  # (m, 4) first vertex, vertices, first polygon, polygons


@dataclass
class Mesh:
    """A mesh being built."""

    vertices: list[Point] = field(default_factory=list)
    polygons: list[tuple[tuple[int, ...], Rgb, int, int, tuple[float, float]]] = field(default_factory=list)
    normals: list[tuple[float, float, float, float]] = field(default_factory=list)

    def polygon(self, points: Sequence[Point], rgb: Rgb, klass: int, kind: int = FIXED, *,
                away_from: Point | None = None, param: tuple[float, float] = (0.0, 0.0)) -> None:  # fmt: skip
        """Add one convex planar polygon; its front looks away from `away_from` (default: as wound)."""
        n = len(points)
        x0, y0, z0 = points[0]
        nx = ny = nz = 0.0
        for i in range(1, n - 1):
            (ax, ay, az), (bx, by, bz) = points[i], points[i + 1]
            ax, ay, az, bx, by, bz = ax - x0, ay - y0, az - z0, bx - x0, by - y0, bz - z0
            nx, ny, nz = nx + ay * bz - az * by, ny + az * bx - ax * bz, nz + ax * by - ay * bx
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        if length < 1e-12:
            return
        nx, ny, nz = nx / length, ny / length, nz / length
        mx, my, mz = (sum(p[k] for p in points) / n for k in range(3))
        if away_from is not None and nx * (mx - away_from[0]) + ny * (my - away_from[1]) + nz * (mz - away_from[2]) < 0:
            nx, ny, nz = -nx, -ny, -nz
        normal, offset = (nx, ny, nz), -(nx * mx + ny * my + nz * mz)
        for first in range(1, n - 1, 2):
            last = min(first + 2, n - 1)
            base = len(self.vertices)
            ring = [points[0], *points[first : last + 1]]
            self.vertices.extend(ring)
            self.polygons.append((tuple(range(base, base + len(ring))), rgb, klass, kind, param))
            self.normals.append((*normal, offset))

    def hexahedron(self, bottom: Sequence[Point], top: Sequence[Point], rgb: Rgb, klass: int, kind: int = FIXED,
                   *, skip_bottom: bool = True) -> None:  # fmt: skip
        """A convex solid between two rings of equal length."""
        rings = [*bottom, *top]
        count = len(rings)
        middle = (sum(p[0] for p in rings) / count, sum(p[1] for p in rings) / count, sum(p[2] for p in rings) / count)
        n = len(bottom)
        for i in range(n):
            j = (i + 1) % n
            self.polygon([bottom[i], bottom[j], top[j], top[i]], rgb, klass, kind, away_from=middle)
        self.polygon(list(top), rgb, klass, kind, away_from=middle)
        if not skip_bottom:
            self.polygon(list(bottom), rgb, klass, kind, away_from=middle)

    def box(
        self, low: Point, high: Point, rgb: Rgb, klass: int, kind: int = FIXED, *, skip_bottom: bool = True
    ) -> None:
        """An axis-aligned box."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        bottom = [(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)]
        top = [(x, y, z1) for x, y, _ in bottom]
        self.hexahedron(bottom, top, rgb, klass, kind, skip_bottom=skip_bottom)

    def pole(self, x: float, y: float, z0: float, z1: float, radius: float, rgb: Rgb, klass: int, sides: int = 4,
             top_radius: float | None = None, kind: int = FIXED) -> None:  # fmt: skip
        """An upright prism."""
        turn = (np.arange(sides) + 0.5) * 2 * np.pi / sides
        tip = radius if top_radius is None else top_radius
        bottom = [(x + radius * c, y + radius * s, z0) for c, s in zip(np.cos(turn), np.sin(turn), strict=True)]
        top = [(x + tip * c, y + tip * s, z1) for c, s in zip(np.cos(turn), np.sin(turn), strict=True)]
        self.hexahedron(bottom, top, rgb, klass, kind)

    def prism_y(self, profile: Sequence[tuple[float, float]], half_width: Sequence[float], rgb: Rgb, klass: int,
                kind: int = FIXED) -> None:  # fmt: skip
        """A convex x-z profile extruded to +-half_width[i] at its corner i."""
        left = [(x, -w, z) for (x, z), w in zip(profile, half_width, strict=True)]
        right = [(x, w, z) for (x, z), w in zip(profile, half_width, strict=True)]
        self.hexahedron(left, right, rgb, klass, kind, skip_bottom=False)

    def blob(self, centre: Point, radius: Point, rgb: Rgb, klass: int, kind: int = FIXED, *, rings: int = 3,
             sides: int = 6) -> None:  # fmt: skip
        """A low-polygon ellipsoid."""
        rows: list[list[Point]] = []
        for r in range(1, rings):
            lift = np.pi * (r / rings - 0.5)
            turn = (np.arange(sides) + 0.5 * (r % 2)) * 2 * np.pi / sides
            rows.append([
                (centre[0] + radius[0] * np.cos(lift) * c, centre[1] + radius[1] * np.cos(lift) * s,
                 centre[2] + radius[2] * np.sin(lift))
                for c, s in zip(np.cos(turn), np.sin(turn), strict=True)
            ])  # fmt: skip
        south, north = (*centre[:2], centre[2] - radius[2]), (*centre[:2], centre[2] + radius[2])
        for i in range(sides):
            j = (i + 1) % sides
            self.polygon([south, rows[0][i], rows[0][j]], rgb, klass, kind, away_from=centre)
            self.polygon([north, rows[-1][i], rows[-1][j]], rgb, klass, kind, away_from=centre)
            for below, above in pairwise(rows):
                self.polygon([below[i], below[j], above[j]], rgb, klass, kind, away_from=centre)
                self.polygon([below[i], above[j], above[i]], rgb, klass, kind, away_from=centre)


def pack(meshes: Sequence[Mesh]) -> Meshes:
    """Concatenate meshes, sharing equal vertices inside each."""
    vertex: list[NDArray[np.float32]] = []
    corner: list[tuple[int, int, int, int]] = []
    rows: list[tuple[int, int, int, int]] = []
    corners, plane, rgb, klass, kind, param = [], [], [], [], [], []
    vertices = 0
    for mesh in meshes:
        points = np.asarray(mesh.vertices, np.float32).reshape(-1, 3)
        unique, inverse = np.unique(points, axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        rows.append((vertices, len(unique), len(corner), len(mesh.polygons)))
        for (ring, color, label, material, extra), normal in zip(mesh.polygons, mesh.normals, strict=True):
            shared = [int(inverse[i]) for i in ring]
            corner.append((shared[0], shared[1], shared[2], shared[-1]))
            corners.append(len(shared))
            plane.append(normal)
            rgb.append(color)
            klass.append(label)
            kind.append(material)
            param.append(extra)
        vertex.append(unique)
        vertices += len(unique)
    return Meshes(
        vertex=np.concatenate(vertex) if vertex else np.zeros((0, 3), np.float32),
        corner=np.asarray(corner, np.int32).reshape(-1, 4), corners=np.asarray(corners, np.uint8),
        plane=np.asarray(plane, np.float32).reshape(-1, 4), rgb=np.asarray(rgb, np.uint8).reshape(-1, 3),
        klass=np.asarray(klass, np.uint8), kind=np.asarray(kind, np.uint8),
        param=np.asarray(param, np.float32).reshape(-1, 2), table=np.asarray(rows, np.int32).reshape(-1, 4),
    )  # fmt: skip


def bounds(mesh: Mesh) -> tuple[float, float]:
    """Height of the centre and radius of a sphere on the z axis around the mesh."""
    points = np.asarray(mesh.vertices, float).reshape(-1, 3)
    middle = 0.5 * (points[:, 2].min() + points[:, 2].max())
    return float(middle), float(np.linalg.norm(points - [0.0, 0.0, middle], axis=1).max())
