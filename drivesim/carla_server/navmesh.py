"""The navigation mesh for AI walkers: a Detour tile of sidewalk quads and crosswalks, as the client reads it.

Edges join by their end points: the quads of one sidewalk share them exactly; a crosswalk, and a sidewalk that ends near
another, get connecting quads between the midpoints' nearest edges, so that a walker can cross.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.town.roads import LANE_SIDEWALK, RoadNetwork

AREA_SIDEWALK, AREA_CROSSWALK = 1, 2
FLAG_SIDEWALK, FLAG_CROSSWALK = 0x02, 0x04
NO_LINK = 0xFFFFFFFF
BOUNDARY_TRIANGLES = 0x15
WALKABLE = (2.0, 0.35, 0.6)  # height, radius, climb
QUAD_M = 4.0
JOIN_M = 4.0
POLYGON_LIMIT = 16_000  # vertices and neighbours are 16-bit numbers
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NavigationFile:
    """The file and its name; clients keep it by name for ever, so the name holds a hash of what is in it."""

    name: str
    data: bytes


class _Mesh:
    """Quads over shared vertices; a pair of vertices used by two quads is an edge that can be walked across."""

    def __init__(self) -> None:
        self.vertices: list[tuple[float, float, float]] = []
        self.quads: list[tuple[tuple[int, int, int, int], int, int]] = []  # corners, area, flags
        self._known: dict[tuple[int, int, int], int] = {}

    def vertex(self, xyz: Floats) -> int:
        key = (round(float(xyz[0]) * 100.0), round(float(xyz[1]) * 100.0), round(float(xyz[2]) * 100.0))
        if key not in self._known:
            self._known[key] = len(self.vertices)
            self.vertices.append((float(xyz[0]), float(xyz[2]), float(xyz[1])))  # Detour has its height second
        return self._known[key]

    def add(self, corners: list[Floats], area: int, flags: int) -> None:
        """Add a quad, turned so that its area has Detour's sign; one that is not convex is left out."""
        turns = _turns([(float(corner[0]), float(corner[1])) for corner in corners])
        if min(map(abs, turns)) < 1e-4 or min(turns) * max(turns) < 0.0:
            return
        if len(self.quads) >= POLYGON_LIMIT or len(self.vertices) > 65_000:
            return
        index = [self.vertex(corner) for corner in corners]
        if len(set(index)) < 4:
            return
        if turns[0] > 0.0:
            index.reverse()
        self.quads.append(((index[0], index[1], index[2], index[3]), area, flags))


def _turns(corners: list[tuple[float, float]]) -> list[float]:
    """Cross products of following edges: all of one sign where the polygon is convex."""
    edges = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)]
    return [a[0] * b[1] - a[1] * b[0] for a, b in zip(edges, edges[1:] + edges[:1], strict=True)]


def navigation_file(network: RoadNetwork) -> NavigationFile:
    """Build the mesh of a town."""
    mesh = _Mesh()
    ends = _add_sidewalks(mesh, network)
    _join_ends(mesh, ends)
    _add_crosswalks(mesh, network)
    data = _file(mesh) if mesh.quads else b""
    digest = hashlib.sha256(data).hexdigest()[:16]
    return NavigationFile(f"drivesim-{digest}.bin", data)


def _add_sidewalks(mesh: _Mesh, network: RoadNetwork) -> list[tuple[Floats, Floats]]:
    """Quads along every sidewalk; returns the left and right corners of all their ends."""
    ends: list[tuple[Floats, Floats]] = []
    for lane in np.flatnonzero(network.lane_kind == LANE_SIDEWALK):
        left, right = _borders(network, int(lane))
        for k in range(len(left) - 1):
            mesh.add([left[k], left[k + 1], right[k + 1], right[k]], AREA_SIDEWALK, FLAG_SIDEWALK)
        ends += [(left[0], right[0]), (right[-1], left[-1])]
    return ends


def _borders(network: RoadNetwork, lane: int) -> tuple[Floats, Floats]:
    first, count = int(network.lane_start[lane]), int(network.lane_count[lane])
    length_m = float(network.lane_length_m[lane])
    wanted = np.linspace(0.0, length_m, max(round(length_m / QUAD_M), 1) + 1)
    points = first + np.searchsorted(network.point_s_m[first : first + count], wanted - 0.5).clip(0, count - 1)
    points[0], points[-1] = first, first + count - 1
    points = np.unique(points)
    xyz, yaw = network.point_xyz_m[points].astype(np.float64), network.point_yaw_rad[points].astype(np.float64)
    half = np.maximum(network.point_width_m[points].astype(np.float64) / 2.0 - 0.1, 0.3)
    right = np.stack([-np.sin(yaw), np.cos(yaw), np.zeros(len(yaw))], axis=-1) * half[:, None]
    return xyz - right, xyz + right


def _join_ends(mesh: _Mesh, ends: list[tuple[Floats, Floats]]) -> None:
    """Bridge the ends of sidewalks that meet (at corners and between lane sections)."""
    if not ends:
        return
    middle = np.array([(a + b) / 2.0 for a, b in ends])
    for k, (a, b) in enumerate(ends):
        distance = np.linalg.norm(middle - middle[k], axis=1)
        for other in np.flatnonzero((distance < JOIN_M) & (np.arange(len(ends)) > k)):
            if other // 2 == k // 2:
                continue
            c, d = ends[other]
            # the two ends face each other: a lies across from d
            mesh.add([a, b, c, d] if _opens(a, b, c, d) else [a, b, d, c], AREA_SIDEWALK, FLAG_SIDEWALK)


def _opens(a: Floats, b: Floats, c: Floats, d: Floats) -> bool:
    return float(np.linalg.norm(a - d) + np.linalg.norm(b - c)) <= float(np.linalg.norm(a - c) + np.linalg.norm(b - d))


def _add_crosswalks(mesh: _Mesh, network: RoadNetwork) -> None:
    """A quad for each crosswalk, and a quad from each of its short sides to the nearest sidewalk quad's edge."""
    sidewalk = [quad for quad in mesh.quads if quad[1] == AREA_SIDEWALK]
    edges = [(q[0][k], q[0][(k + 1) % 4]) for q in sidewalk for k in range(4)]
    if not edges:
        return
    table = np.array(mesh.vertices)[:, [0, 2, 1]]
    pairs = np.array(edges)
    middles = (table[pairs[:, 0]] + table[pairs[:, 1]]) / 2.0
    for start, count in zip(network.crosswalk_start, network.crosswalk_count, strict=True):
        corners = [p.astype(np.float64) for p in network.crosswalk_xyz_m[start : start + min(int(count), 4)]]
        if len(corners) < 4:
            continue
        mesh.add(corners, AREA_CROSSWALK, FLAG_CROSSWALK)
        sides = [(corners[k], corners[(k + 1) % 4]) for k in range(4)]
        sides.sort(key=lambda side: float(np.linalg.norm(side[0] - side[1])))
        for a, b in sides[:2]:
            near = int(np.argmin(np.linalg.norm(middles - (a + b) / 2.0, axis=1)))
            c, d = table[pairs[near, 0]], table[pairs[near, 1]]
            if np.linalg.norm(middles[near] - (a + b) / 2.0) < 2.0 * JOIN_M:
                mesh.add([a, b, c, d] if _opens(a, b, c, d) else [a, b, d, c], AREA_CROSSWALK, FLAG_CROSSWALK)


def _file(mesh: _Mesh) -> bytes:
    """The bytes: a set header, and one tile."""
    vertices = np.array(mesh.vertices, "<f4")
    low, high = vertices.min(axis=0) - 1.0, vertices.max(axis=0) + 1.0
    bits = max(int(len(mesh.quads) - 1).bit_length(), 1)
    tile = _tile(mesh, vertices, low, high)
    head = struct.pack("<iii", 0x4D534554, 1, 1)
    head += struct.pack("<3fffii", *low, high[0] - low[0], high[2] - low[2], 1, 1 << bits)
    return head + struct.pack("<Ii", 1 << bits, len(tile)) + tile


def _tile(mesh: _Mesh, vertices: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]) -> bytes:
    neighbours = _neighbours(mesh)
    links = sum(1 for around in neighbours for other in around if other)
    polygons, details, triangles = [], [], []
    for number, (corners, area, flags) in enumerate(mesh.quads):
        polygons.append(struct.pack("<I6H6HHBB", NO_LINK, *corners, 0, 0, *neighbours[number], 0, 0, flags, 4, area))
        details.append(struct.pack("<IIBBxx", 0, 2 * number, 0, 2))
        triangles.append(struct.pack("<8B", 0, 1, 2, BOUNDARY_TRIANGLES, 0, 2, 3, BOUNDARY_TRIANGLES))
    count = len(mesh.quads)
    header = struct.pack("<iiiiiI", 0x444E4156, 7, 0, 0, 0, 0)
    header += struct.pack("<iiiiiiiii", count, len(vertices), links, count, 0, 2 * count, 0, 0, count)
    header += struct.pack("<3f3f3ff", *WALKABLE, *low, *high, 1.0)
    body = vertices.tobytes() + b"".join(polygons) + b"\0" * (12 * links) + b"".join(details) + b"".join(triangles)
    return header + body


def _neighbours(mesh: _Mesh) -> list[tuple[int, int, int, int]]:
    """For each quad's edges the quad beyond (its number + 1), or 0; an edge joins the first two quads that share it."""
    users: dict[tuple[int, int], list[int]] = {}
    for number, (corners, _, _) in enumerate(mesh.quads):
        for k in range(4):
            edge = (corners[k], corners[(k + 1) % 4])
            users.setdefault((min(edge), max(edge)), []).append(number)
    result = []
    for number, (corners, _, _) in enumerate(mesh.quads):
        around = []
        for k in range(4):
            edge = (corners[k], corners[(k + 1) % 4])
            pair = users[(min(edge), max(edge))][:2]
            around.append(next((other + 1 for other in pair if other != number), 0) if number in pair else 0)
        result.append((around[0], around[1], around[2], around[3]))
    return result
