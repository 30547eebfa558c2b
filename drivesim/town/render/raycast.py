# mypy: disable-error-code="untyped-decorator,no-any-return"
"""Rays against the scene that the pictures show: the same meshes, instances and ground raster.

Two levels: a box tree over the standing things, one over the actors (grown anew for every state), and one
over the polygons of each mesh. Polygons are hit from their front alone, as in the pictures, so a ray that
starts inside a body leaves it. Things are hit in full detail at any distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.render import lighting, staging
from drivesim.town.render.boxtree import STACK, BoxTree, box_tree, enters, grow
from drivesim.town.render.ground import CLASS_OF, TILE_M
from drivesim.town.render.kernels import kernel
from drivesim.town.render.meshes import GROUND_KIND, Meshes
from drivesim.town.render.scene import Scene
from drivesim.town.render.standing import Standing
from drivesim.town.render.visibility import LOOK_COLUMNS, Instances
from drivesim.town.state import KIND_FREE, TownState

Floats = NDArray[np.float64]
MISS = -1
LEAF_POLYGONS = 4
EDGE_M = np.float32(2e-4)  # how far past an edge a polygon still stops a ray: closes the cracks between polygons


class Bodies(NamedTuple):
    """Placed meshes that rays can meet; n of them."""

    position: NDArray[np.float64]  # (n, 3)
    rotation: NDArray[np.float32]  # (n, 9) world_from_object, row-major
    scale: NDArray[np.float32]  # (n,)
    mesh: NDArray[np.int32]  # (n,), -1: nothing


class Shapes(NamedTuple):
    """The meshes' polygons, ready for rays, and their trees; p polygons, m meshes."""

    plane: NDArray[np.float32]  # (p, 4)
    fence: NDArray[np.float32]  # (p, 4, 4) inward planes of the edges
    box: NDArray[np.float32]
    link: NDArray[np.int32]
    item: NDArray[np.int32]  # polygon numbers
    root: NDArray[np.int32]  # (m,) nodes, -1: an empty mesh


@dataclass(frozen=True)
class Hits:
    """What n rays met."""

    range_m: NDArray[np.float32]  # (n,) along the ray; the largest range where nothing is hit
    thing: NDArray[np.int32]  # (n,) MISS, a standing thing i >= 0, or -2 - row for an actor
    polygon: NDArray[np.int32]  # (n,)

    @staticmethod
    def empty(count: int) -> Hits:
        """Buffers."""
        return Hits(np.zeros(count, np.float32), np.full(count, MISS, np.int32), np.zeros(count, np.int32))

    @property
    def actor_row(self) -> NDArray[np.int32]:
        """(n,) row of the town, -1 for anything else."""
        return np.where(self.thing < MISS, -2 - self.thing, -1).astype(np.int32)


@dataclass(frozen=True)
class Staged:
    """One state of a town, ready for rays; a actor rows."""

    standing: Bodies
    stands: BoxTree
    moving: Bodies  # (a,)
    moves: BoxTree
    actors: Instances  # (a,) as they are drawn
    scenery: Instances  # what stands, as it is drawn
    actor_id: NDArray[np.uint32]  # (a,) 0: a free row


@njit(cache=True, nogil=True, error_model="numpy")
def _fences(meshes, fence):  # type: ignore[no-untyped-def]
    """The planes through each polygon's edges, at right angles to it, that look inwards."""
    for m in range(meshes.table.shape[0]):
        base = meshes.table[m, 0]
        for p in range(meshes.table[m, 2], meshes.table[m, 2] + meshes.table[m, 3]):
            n = int(meshes.corners[p])
            middle = np.zeros(3, np.float32)
            for k in range(n):
                middle += meshes.vertex[base + meshes.corner[p, k]] / np.float32(n)
            normal = meshes.plane[p]
            fence[p, 3, 3] = np.float32(1)  # a triangle's fourth side never keeps a ray out
            for k in range(n):
                a = meshes.vertex[base + meshes.corner[p, k]]
                b = meshes.vertex[base + meshes.corner[p, k + 1 if k + 1 < n else 0]]
                ex, ey, ez = b[0] - a[0], b[1] - a[1], b[2] - a[2]
                x, y = ey * normal[2] - ez * normal[1], ez * normal[0] - ex * normal[2]
                z = ex * normal[1] - ey * normal[0]
                length = np.sqrt(x * x + y * y + z * z)
                if length < np.float32(1e-9):
                    fence[p, k, 3] = np.float32(1)
                    continue
                if x * (middle[0] - a[0]) + y * (middle[1] - a[1]) + z * (middle[2] - a[2]) < 0:
                    length = -length
                fence[p, k, 0], fence[p, k, 1], fence[p, k, 2] = x / length, y / length, z / length
                fence[p, k, 3] = -(x * a[0] + y * a[1] + z * a[2]) / length


@njit(cache=True, nogil=True, error_model="numpy")
def _mesh_trees(meshes, boxes, item, box, link, root):  # type: ignore[no-untyped-def]
    """A tree per mesh over its polygons; returns the number of nodes."""
    free = 0
    for m in range(meshes.table.shape[0]):
        base, first, count = meshes.table[m, 0], meshes.table[m, 2], meshes.table[m, 3]
        root[m] = -1
        if count == 0:
            continue
        for p in range(first, first + count):
            for c in range(3):
                low, high = np.float32(3e38), np.float32(-3e38)
                for k in range(int(meshes.corners[p])):
                    value = meshes.vertex[base + meshes.corner[p, k], c]
                    low, high = min(low, value), max(high, value)
                boxes[p, c], boxes[p, 3 + c] = low - np.float32(1e-3), high + np.float32(1e-3)
        root[m] = free
        free = grow(boxes, item, first, count, LEAF_POLYGONS, box, link, free)
    return free


def shapes_of(meshes: Meshes) -> Shapes:
    """Prepare a library of meshes for rays."""
    count = len(meshes.plane)
    fence = np.zeros((count, 4, 4), np.float32)
    _fences(meshes, fence)
    box, link = np.zeros((max(2 * count, 1), 6), np.float32), np.zeros((max(2 * count, 1), 2), np.int32)
    item, root = np.arange(count, dtype=np.int32), np.zeros(len(meshes.table), np.int32)
    used = int(_mesh_trees(meshes, np.zeros((count, 6), np.float32), item, box, link, root))
    return Shapes(meshes.plane, fence, box[:used], link[:used], item, root)


@kernel
def _world_boxes(bodies, shapes, out, number):  # type: ignore[no-untyped-def]
    """Boxes in the world of all bodies that have a mesh, and their numbers; returns how many."""
    count = 0
    for i in range(bodies.mesh.shape[0]):
        if bodies.mesh[i] < 0 or shapes.root[bodies.mesh[i]] < 0:
            continue
        b, r, scale = shapes.box[shapes.root[bodies.mesh[i]]], bodies.rotation[i], bodies.scale[i]
        for c in range(3):
            middle, half = np.float32(0), np.float32(0)
            for k in range(3):
                middle += r[3 * c + k] * np.float32(0.5) * (b[k] + b[3 + k]) * scale
                half += abs(r[3 * c + k]) * np.float32(0.5) * (b[3 + k] - b[k]) * scale
            half += np.float32(2e-3)
            out[i, c] = np.float32(bodies.position[i, c]) + middle - half
            out[i, 3 + c] = np.float32(bodies.position[i, c]) + middle + half
        number[count] = i
        count += 1
    return count


@kernel
def _meet_mesh(shapes, root, ox, oy, oz, dx, dy, dz, reach, stack):  # type: ignore[no-untyped-def]
    """The first polygon of a mesh that a ray in the object's frame meets before `reach`: range, polygon or -1."""
    tiny = np.float32(1e-12)
    ix = np.float32(1) / (dx if abs(dx) > tiny else tiny)
    iy = np.float32(1) / (dy if abs(dy) > tiny else tiny)
    iz = np.float32(1) / (dz if abs(dz) > tiny else tiny)
    box, link = shapes.box, shapes.link
    found = -1
    if enters(box, root, ox, oy, oz, ix, iy, iz, reach) >= reach:
        return reach, found
    stack[0] = root
    depth = 1
    while depth > 0:
        depth -= 1
        node = stack[depth]
        count = link[node, 1]
        if count > 0:
            for k in range(link[node, 0], link[node, 0] + count):
                p = shapes.item[k]
                nx, ny, nz = shapes.plane[p, 0], shapes.plane[p, 1], shapes.plane[p, 2]
                against = nx * dx + ny * dy + nz * dz
                if against >= np.float32(0):
                    continue
                t = -(nx * ox + ny * oy + nz * oz + shapes.plane[p, 3]) / against
                if not (np.float32(0) < t < reach):
                    continue
                x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
                inside = True
                for e in range(4):
                    f = shapes.fence[p, e]
                    if f[0] * x + f[1] * y + f[2] * z + f[3] < -EDGE_M:
                        inside = False
                        break
                if inside:
                    reach, found = t, p
            continue
        first = link[node, 0]
        a = enters(box, first, ox, oy, oz, ix, iy, iz, reach)
        b = enters(box, first + 1, ox, oy, oz, ix, iy, iz, reach)
        if a <= b:
            if b < reach:
                stack[depth] = first + 1
                depth += 1
            if a < reach:
                stack[depth] = first
                depth += 1
        else:
            if a < reach:
                stack[depth] = first
                depth += 1
            stack[depth] = first + 1
            depth += 1
    return reach, found


@kernel
def _meet_bodies(tree, bodies, shapes, o, x, y, z, reach, hide, stack, inner):  # type: ignore[no-untyped-def]
    """The first of many bodies on a ray of the world: range, body or -1, polygon. `hide` is passed through."""
    tiny = np.float32(1e-12)
    ix = np.float32(1) / (x if abs(x) > tiny else tiny)
    iy = np.float32(1) / (y if abs(y) > tiny else tiny)
    iz = np.float32(1) / (z if abs(z) > tiny else tiny)
    ox, oy, oz = np.float32(o[0]), np.float32(o[1]), np.float32(o[2])
    found, polygon = -1, -1
    if tree.item.shape[0] == 0 or enters(tree.box, 0, ox, oy, oz, ix, iy, iz, reach) >= reach:
        return reach, found, polygon
    stack[0] = 0
    depth = 1
    while depth > 0:
        depth -= 1
        node = stack[depth]
        count = tree.link[node, 1]
        if count > 0:
            for k in range(tree.link[node, 0], tree.link[node, 0] + count):
                i = tree.item[k]
                if i == hide:
                    continue
                r, inv = bodies.rotation[i], np.float32(1) / bodies.scale[i]
                px = np.float32(o[0] - bodies.position[i, 0])
                py = np.float32(o[1] - bodies.position[i, 1])
                pz = np.float32(o[2] - bodies.position[i, 2])
                t, p = _meet_mesh(
                    shapes, shapes.root[bodies.mesh[i]],
                    (r[0] * px + r[3] * py + r[6] * pz) * inv, (r[1] * px + r[4] * py + r[7] * pz) * inv,
                    (r[2] * px + r[5] * py + r[8] * pz) * inv, (r[0] * x + r[3] * y + r[6] * z) * inv,
                    (r[1] * x + r[4] * y + r[7] * z) * inv, (r[2] * x + r[5] * y + r[8] * z) * inv, reach, inner,
                )  # fmt: skip
                if p >= 0:
                    reach, found, polygon = t, i, p
            continue
        first = tree.link[node, 0]
        a = enters(tree.box, first, ox, oy, oz, ix, iy, iz, reach)
        b = enters(tree.box, first + 1, ox, oy, oz, ix, iy, iz, reach)
        near_one = first if a <= b else first + 1
        if max(a, b) < reach:
            stack[depth] = first + 1 if a <= b else first
            depth += 1
        if min(a, b) < reach:
            stack[depth] = near_one
            depth += 1
    return reach, found, polygon


@kernel
def cast_rays(  # type: ignore[no-untyped-def]
    shapes, standing, stands, moving, moves, origin, rays, reach, hide, first, last, range_m, thing, polygon,
    stack, inner,
):  # fmt: skip
    """Rays first..last-1 from one origin; rays (n, 3) f32 unit directions in the world; outputs (n,)."""
    for k in range(first, last):
        x, y, z = rays[k, 0], rays[k, 1], rays[k, 2]
        best, i, p = _meet_bodies(moves, moving, shapes, origin, x, y, z, reach, hide, stack, inner)
        thing[k], polygon[k] = MISS, p
        if i >= 0:
            thing[k] = -2 - i
        best, i, p = _meet_bodies(stands, standing, shapes, origin, x, y, z, best, -1, stack, inner)
        if i >= 0:
            thing[k], polygon[k] = i, p
        range_m[k] = best


@kernel
def _surfaces(  # type: ignore[no-untyped-def]
    thing, polygon, points, shapes, standing, moving, kind, klass, param, ground, class_of, normals, labels
):
    """World normals (n, 3) and classes (n,) at hits; points (n, 3) f64 in the world."""
    texels = ground.texels[0]
    stride = texels + 1
    for k in range(thing.shape[0]):
        labels[k] = 0
        if thing[k] == MISS:
            normals[k, 0] = normals[k, 1] = normals[k, 2] = np.float32(0)
            continue
        p = polygon[k]
        r = standing.rotation[thing[k]] if thing[k] >= 0 else moving.rotation[-2 - thing[k]]
        for c in range(3):
            normals[k, c] = (
                r[3 * c] * shapes.plane[p, 0] + r[3 * c + 1] * shapes.plane[p, 1] + r[3 * c + 2] * shapes.plane[p, 2]
            )
        labels[k] = klass[p]
        if kind[p] == GROUND_KIND:  # as the pictures have it: a texel of the raster, or one material for a whole tile
            page = ground.page[int(param[p, 0])]
            x, y = (points[k, 0] - ground.origin[0]) / TILE_M, (points[k, 1] - ground.origin[1]) / TILE_M
            tile = -1
            if x >= 0 and y >= 0 and int(y) < page.shape[0] and int(x) < page.shape[1]:
                tile = page[int(y), int(x)]
            if tile < 0:
                labels[k] = class_of[-1 - tile]
            else:
                u, v = int((x - int(x)) * texels + 0.5), int((y - int(y)) * texels + 0.5)  # the nearest, as drawn
                labels[k] = class_of[ground.level_0[tile * stride * stride + v * stride + u]]


class RayCaster:
    """Casts rays into one town's scene. Safe to use from several threads."""

    def __init__(self, scene: Scene, standing: Standing | None = None) -> None:
        """`standing` says what is left out of the scene for now."""
        self.scene = scene
        self._standing = standing if standing is not None else Standing(scene)
        self._shapes = shapes_of(scene.meshes)
        self._version = -1
        self._kept: tuple[Bodies, BoxTree] | None = None
        lights = np.zeros((lighting.LIGHT**2, 3), np.float32)  # what staging asks for; rays need no light
        self._dark = np.zeros(LOOK_COLUMNS, np.float32), np.zeros(lighting.SIZE**2, np.uint8), lights, np.zeros(2)

    def _tree(self, bodies: Bodies) -> BoxTree:
        boxes = np.zeros((len(bodies.mesh), 6), np.float32)
        number = np.zeros(len(bodies.mesh), np.int32)
        count = int(_world_boxes(bodies, self._shapes, boxes, number))
        tree = box_tree(boxes[number[:count]])
        return tree._replace(item=number[:count][tree.item])

    def stage(self, state: TownState) -> Staged:
        """What stands now and the actors of a state as they are drawn, each under a tree. One thread at a time."""
        if self._kept is None or self._version != self._standing.version:
            drawn = self._standing.instances
            bodies = Bodies(drawn.position, drawn.rotation, drawn.scale, drawn.mesh)
            self._kept, self._version = (bodies, self._tree(bodies)), self._standing.version
        scene, made = self.scene, staging.empty_instances(len(state.kind))
        look, shadow, light, corner = self._dark
        staging.stage_actors(made, state.kind, state.model, state.xyz, state.rotation, state.half_size, state.velocity,
                             state.actor_id, state.lamps, state.tint, state.time_s[0], scene.model_mesh,
                             scene.walker_mesh, scene.walker_far[0], scene.mesh_sphere, look, shadow, light, corner,
                             False, 0)  # fmt: skip
        moving = Bodies(made.position, made.rotation, made.scale, made.mesh)
        ids = np.where(state.kind == KIND_FREE, 0, state.actor_id)
        return Staged(*self._kept, moving, self._tree(moving), made, self._standing.instances, ids)

    def cast(
        self, staged: Staged, origin_m: Floats, rays: NDArray[np.float32], reach_m: float, *, hide_row: int = -1,
        part: tuple[int, int] | None = None, out: Hits | None = None,
    ) -> Hits:  # fmt: skip
        """The first thing on each ray.

        Args:
            staged: from `stage`.
            origin_m: (3,) world.
            rays: (n, 3) unit directions in the world.
            reach_m: nothing farther is met.
            hide_row: an actor that rays pass through, or -1.
            part: cast only rays first..last-1 (to share the work between threads).
            out: buffers to reuse.
        """
        hits = Hits.empty(len(rays)) if out is None else out
        stacks = np.zeros((2, STACK), np.int32)
        first, last = part or (0, len(rays))
        cast_rays(self._shapes, staged.standing, staged.stands, staged.moving, staged.moves,
                  np.asarray(origin_m, np.float64), rays, np.float32(reach_m), hide_row, first, last,
                  hits.range_m, hits.thing, hits.polygon, stacks[0], stacks[1])  # fmt: skip
        return hits

    def surfaces(
        self, staged: Staged, hits: Hits, points_m: Floats
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:  # fmt: skip
        """Outward world normals (n, 3) and CityObjectLabels (n,) of hits at points (n, 3); zeros where nothing is."""
        normals, labels = np.zeros((len(points_m), 3), np.float32), np.zeros(len(points_m), np.uint8)
        meshes = self.scene.meshes
        _surfaces(hits.thing, hits.polygon, points_m, self._shapes, staged.standing, staged.moving, meshes.kind,
                  meshes.klass, meshes.param, self.scene.ground, CLASS_OF, normals, labels)  # fmt: skip
        return normals, labels

    def signal(self, hits: Hits) -> NDArray[np.int32]:
        """(n,) traffic light whose head was hit, -1 for anything else."""
        return np.where(hits.thing >= 0, self.scene.signal[np.maximum(hits.thing, 0)], -1).astype(np.int32)
