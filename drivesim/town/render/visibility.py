# mypy: disable-error-code="untyped-decorator,assignment,operator,call-overload"
"""Which polygon does each pixel see: culling, projection and a z-buffer of 1/z with polygon slots.

Camera frame: x right, y down, z forward; pixel centres at integers. No fast maths, no library functions:
the same bytes everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivesim.town.render.kernels import inlined, kernel
from drivesim.town.render.polygon_light import shade_polygon
from drivesim.town.render.polygons import TILE_H, TILE_W, clip_near, fill_convex, hidden_box, look_again

NEAR_M = np.float32(0.12)
FAR_M = np.float32(1000.0)  # what an empty pixel reads, as in CARLA
MAX_SLOTS = 60000
MAX_MESH_VERTICES = 8192
HIDING_FROM_M = np.float32(2.0)  # things nearer than this are not asked whether others hide them
ROUNDING_1PM = np.float32(0.01)  # a polygon seen from its edge may come out that much too near
REFRESHES = 8  # the coarse depth is made anew when this share of the picture has been drawn over

# columns of `look`: one frozen row of numbers of an appearance (see appearance.py)
(SUN_X, SUN_Y, SUN_Z, SUN_R, SUN_G, SUN_B, SKY_R, SKY_G, SKY_B, BOUNCE_R, BOUNCE_G, BOUNCE_B, FOG_R, FOG_G, FOG_B,
 FOG_PER_M, GLASS_R, GLASS_G, GLASS_B, WET, NOISE, NIGHT, WINDOWS_LIT, SHADOW, RAIN, FAR_R, FAR_G, FAR_B, GLOW_R,
 GLOW_G, GLOW_B, LAMPS_ON, PUDDLES, GRAIN, LEAN, FOG_LOW_1PM, FOG_FLOOR_M) = range(37)  # fmt: skip
LOOK_COLUMNS = 40


class Instances(NamedTuple):
    """Things to draw; n rows."""

    position: NDArray[np.float64]  # (n, 3) world
    rotation: NDArray[np.float32]  # (n, 9) world_from_object, row-major
    scale: NDArray[np.float32]  # (n,)
    mesh: NDArray[np.int32]  # (n,)
    far: NDArray[np.int32]  # (n,) mesh for a few pixels
    centre_z: NDArray[np.float32]  # (n,) of the bounding sphere, object frame
    radius: NDArray[np.float32]  # (n,)
    tint: NDArray[np.uint8]  # (n, 3, 3) rgb of TINT_A, TINT_B, TINT_C
    lamps: NDArray[np.uint32]  # (n,) bit k lights LAMP + k
    ident: NDArray[np.uint16]  # (n,) instance id of the pictures
    lit: NDArray[np.float32]  # (n, 4) share of sun, then rgb of local lamps
    key: NDArray[np.int32]  # (n,) facade: tile | building << 8
    far_px: NDArray[np.float32]  # (n,) radius in pixels under which `far` is drawn
    signal: NDArray[np.int32]  # (n,) traffic light shown by this head, or -1


class Slots(NamedTuple):
    """What the polygons of one view look like."""

    rgb: NDArray[np.float32]  # (m, 3) lit colour
    label: NDArray[np.int32]  # (m, 4) material kind, class, instance id, key
    frame: NDArray[np.float32]  # (m, 4) facade: tangent x, y, u at the camera, z of its foot below the camera


class Scratch(NamedTuple):
    """Buffers of one worker, sized for one view."""

    inverse_z: NDArray[np.float32]  # (h * w,)
    slot: NDArray[np.int32]  # (h * w,)
    left: NDArray[np.float32]  # (h,)
    right: NDArray[np.float32]  # (h,)
    column: NDArray[np.float32]  # (w,) 0, 1, 2...
    tangent: NDArray[np.float32]  # (w,) of the ray, rightwards
    camera: NDArray[np.float32]  # (MAX_MESH_VERTICES, 5) x, y, z, screen x, screen y
    ring: NDArray[np.float32]  # (16, 5) a polygon while it is clipped
    row: NDArray[np.float32]  # (10, w)
    coarse: NDArray[np.float32]  # least 1/z per tile, see polygons.py

    @staticmethod
    def empty(width: int, height: int) -> Scratch:
        """Buffers for pictures of one size."""
        f, pixels = np.float32, width * height
        return Scratch(
            np.zeros(pixels, f), np.zeros(pixels, np.int32), np.zeros(height, f), np.zeros(height, f),
            np.arange(width, dtype=f), np.zeros(width, f), np.zeros((MAX_MESH_VERTICES, 5), f), np.zeros((24, 5), f),
            np.zeros((10, width), f), np.zeros(-(-width // TILE_W) * -(-height // TILE_H), f),
        )  # fmt: skip


@inlined
def _times(axes, rot):  # type: ignore[no-untyped-def]
    """axes @ rotation, row-major."""
    return (
        axes[0, 0] * rot[0] + axes[0, 1] * rot[3] + axes[0, 2] * rot[6],
        axes[0, 0] * rot[1] + axes[0, 1] * rot[4] + axes[0, 2] * rot[7],
        axes[0, 0] * rot[2] + axes[0, 1] * rot[5] + axes[0, 2] * rot[8],
        axes[1, 0] * rot[0] + axes[1, 1] * rot[3] + axes[1, 2] * rot[6],
        axes[1, 0] * rot[1] + axes[1, 1] * rot[4] + axes[1, 2] * rot[7],
        axes[1, 0] * rot[2] + axes[1, 1] * rot[5] + axes[1, 2] * rot[8],
        axes[2, 0] * rot[0] + axes[2, 1] * rot[3] + axes[2, 2] * rot[6],
        axes[2, 0] * rot[1] + axes[2, 1] * rot[4] + axes[2, 2] * rot[7],
        axes[2, 0] * rot[2] + axes[2, 1] * rot[5] + axes[2, 2] * rot[8],
    )


@inlined
def _eye(rot, dx, dy, dz, scale):  # type: ignore[no-untyped-def]
    """The camera in the frame of an object at dx, dy, dz from it, in units of the object."""
    inv = np.float32(1) / scale
    return (
        -(rot[0] * dx + rot[3] * dy + rot[6] * dz) * inv,
        -(rot[1] * dx + rot[4] * dy + rot[7] * dz) * inv,
        -(rot[2] * dx + rot[5] * dy + rot[8] * dz) * inv,
    )


@inlined
def _shown(i, mesh, dx, dy, dz, axes, lens, things, coarse):  # type: ignore[no-untyped-def]
    """The mesh to draw of an instance at dx, dy, dz from the camera, or -1, and the depth of its nearest point."""
    focal, reach = lens[0], lens[5]
    wide_x, wide_y = np.float32(0.5) * lens[3] / focal, np.float32(0.5) * lens[4] / focal
    slant_x, slant_y = np.sqrt(np.float32(1) + wide_x * wide_x), np.sqrt(np.float32(1) + wide_y * wide_y)
    near, rot = np.float32(0.12), things.rotation[i]
    lift = things.centre_z[i] * things.scale[i]
    sx, sy, sz = dx + rot[2] * lift, dy + rot[5] * lift, dz + rot[8] * lift
    radius = things.radius[i] * things.scale[i]
    cz = axes[2, 0] * sx + axes[2, 1] * sy + axes[2, 2] * sz
    nearest = cz - radius
    if cz + radius < near or nearest > reach:
        return -1, nearest
    cx = axes[0, 0] * sx + axes[0, 1] * sy + axes[0, 2] * sz
    if abs(cx) - cz * wide_x > radius * slant_x:
        return -1, nearest
    cy = axes[1, 0] * sx + axes[1, 1] * sy + axes[1, 2] * sz
    if abs(cy) - cz * wide_y > radius * slant_y:
        return -1, nearest
    if cz > radius:
        pixels = radius * focal / cz
        if pixels < np.float32(0.5):
            return -1, nearest
        if pixels < things.far_px[i]:
            mesh = things.far[i]
            if mesh < 0:
                return -1, nearest
    if nearest > HIDING_FROM_M:
        x0, x1, y0, y1 = cx - radius, cx + radius, cy - radius, cy + radius
        by, beyond = focal / nearest, focal / (cz + radius)
        left, right = lens[1] + x0 * (by if x0 < 0 else beyond), lens[1] + x1 * (by if x1 > 0 else beyond)
        top, bottom = lens[2] + y0 * (by if y0 < 0 else beyond), lens[2] + y1 * (by if y1 > 0 else beyond)
        if hidden_box(
            coarse, left, top, right, bottom, int(lens[3]), int(lens[4]), np.float32(1) / nearest + ROUNDING_1PM
        ):
            return -1, nearest
    return mesh, nearest


@inlined
def _project(cam, vertex, first, vertices, scale, m, tx, ty, tz, lens):  # type: ignore[no-untyped-def]
    """Corners of a mesh in the camera's frame and on the screen; bounds on the screen and the least depth."""
    focal, centre_x, centre_y, near = lens[0], lens[1], lens[2], np.float32(0.12)
    left, top, right, bottom = np.float32(1e9), np.float32(1e9), np.float32(-1e9), np.float32(-1e9)
    nearest = np.float32(1e9)
    for v in range(vertices):
        px = vertex[first + v, 0] * scale
        py = vertex[first + v, 1] * scale
        pz = vertex[first + v, 2] * scale
        x = m[0] * px + m[1] * py + m[2] * pz + tx
        y = m[3] * px + m[4] * py + m[5] * pz + ty
        z = m[6] * px + m[7] * py + m[8] * pz + tz
        cam[v, 0], cam[v, 1], cam[v, 2] = x, y, z
        nearest = min(nearest, z)
        if z >= near:
            over = focal / z
            at_x, at_y = centre_x + x * over, centre_y + y * over
            cam[v, 3], cam[v, 4] = at_x, at_y
            left, right, top, bottom = min(left, at_x), max(right, at_x), min(top, at_y), max(bottom, at_y)
    return left, top, right, bottom, nearest


@inlined
def _ring_of(corner, n, cam, ring, inside, lens):  # type: ignore[no-untyped-def]
    """Copy a polygon's corners into the ring, clipped if need be; how many there are."""
    if inside:
        for q in range(np.uint64(n)):
            v = np.uint64(corner[q])
            ring[q, 3], ring[q, 4] = cam[v, 3], cam[v, 4]
        return n
    near, behind = np.float32(0.12), 0
    for q in range(np.uint64(n)):
        v = np.uint64(corner[q])
        for col in range(5):
            ring[q, col] = cam[v, col]
        if cam[v, 2] < near:
            behind += 1
    if behind == n:
        return 0
    if behind > 0:
        n = clip_near(n, ring, near)
        for q in range(n):
            over = lens[0] / ring[q, 2]
            ring[q, 3], ring[q, 4] = lens[1] + ring[q, 0] * over, lens[2] + ring[q, 1] * over
    return n


@inlined
def _fill(p, n, distance, m, lens, meshes, slot, s):  # type: ignore[no-untyped-def]
    """Fill the ring; 1/z = -(normal . ray) / distance, affine in the pixel."""
    px, py, pz = meshes.plane[p, 0], meshes.plane[p, 1], meshes.plane[p, 2]
    qx = m[0] * px + m[1] * py + m[2] * pz
    qy = m[3] * px + m[4] * py + m[5] * pz
    qz = m[6] * px + m[7] * py + m[8] * pz
    over = np.float32(-1) / distance
    a, b = qx * over / lens[0], qy * over / lens[0]
    c = qz * over - a * lens[1] - b * lens[2]
    return fill_convex(n, s.ring, a, b, c, np.int32(slot), int(lens[3]), int(lens[4]), s)


@kernel
def draw_instances(order, count, origin, axes, lens, meshes, things, look, s, slots, used, hide):  # type: ignore[no-untyped-def]
    """Draw `count` instances in `order` into the z-buffer of one view, nearer ones first if it is to be quick.

    origin (3,) f64 world; axes (3, 3) f32 rows right, down, forward; lens (6,) f32: f px, centre x, y, width,
    height, view distance. `used` slots are taken already; returns the new number.
    """
    width, height = int(lens[3]), int(lens[4])
    plane, cam = meshes.plane, s.camera
    covered, enough = 0, width * height // REFRESHES
    look_again(s, width, height)
    for k in range(count):
        i = order[k]
        mesh = things.mesh[i]
        if mesh < 0 or i == hide:
            continue
        dx = np.float32(things.position[i, 0] - origin[0])
        dy = np.float32(things.position[i, 1] - origin[1])
        dz = np.float32(things.position[i, 2] - origin[2])
        mesh, nearest = _shown(i, mesh, dx, dy, dz, axes, lens, things, s.coarse)
        if mesh < 0:
            continue
        first_vertex, vertices = np.uint64(meshes.table[mesh, 0]), np.uint64(meshes.table[mesh, 1])
        first_polygon, polygons = np.uint64(meshes.table[mesh, 2]), np.uint64(meshes.table[mesh, 3])
        scale, rot = things.scale[i], things.rotation[i]
        m = _times(axes, rot)
        tx = axes[0, 0] * dx + axes[0, 1] * dy + axes[0, 2] * dz
        ty = axes[1, 0] * dx + axes[1, 1] * dy + axes[1, 2] * dz
        tz = axes[2, 0] * dx + axes[2, 1] * dy + axes[2, 2] * dz
        inside = nearest > np.float32(0.12)
        left, top, right, bottom, nearest = _project(
            cam, meshes.vertex, first_vertex, vertices, scale, m, tx, ty, tz, lens
        )
        if nearest > HIDING_FROM_M and hidden_box(
            s.coarse, left, top, right, bottom, width, height, np.float32(1) / nearest + ROUNDING_1PM
        ):
            continue
        ex, ey, ez = _eye(rot, dx, dy, dz, scale)
        for p in range(first_polygon, first_polygon + polygons):
            px, py, pz = plane[p, 0], plane[p, 1], plane[p, 2]
            distance = (px * ex + py * ey + pz * ez + plane[p, 3]) * scale
            if distance <= np.float32(1e-4):
                continue
            n = _ring_of(meshes.corner[p], np.int64(meshes.corners[p]), cam, s.ring, inside, lens)
            if n == 0:
                continue
            drawn = _fill(p, n, distance, m, lens, meshes, used, s)
            if drawn > 0:
                nx = rot[0] * px + rot[1] * py + rot[2] * pz
                ny = rot[3] * px + rot[4] * py + rot[5] * pz
                nz = rot[6] * px + rot[7] * py + rot[8] * pz
                shade_polygon(p, i, origin, nx, ny, nz, meshes, things, look, slots, used)
                if used < 59990:
                    used += 1
                covered += drawn
        if covered > enough:
            covered = 0
            look_again(s, width, height)
    return used
