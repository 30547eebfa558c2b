# mypy: disable-error-code="untyped-decorator,assignment,operator,call-overload"
"""Which polygon does each pixel see: culling, projection and a z-buffer of 1/z with polygon slots.

Camera frame: x right, y down, z forward; pixel centres at integers. No fast maths, no library functions:
the same bytes everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivesim.town.render.kernels import kernel

NEAR_M = np.float32(0.12)
FAR_M = np.float32(1000.0)  # what an empty pixel reads, as in CARLA
MAX_SLOTS = 60000
MAX_MESH_VERTICES = 8192

# columns of `look`: one frozen row of numbers of an appearance (see appearance.py)
(SUN_X, SUN_Y, SUN_Z, SUN_R, SUN_G, SUN_B, SKY_R, SKY_G, SKY_B, BOUNCE_R, BOUNCE_G, BOUNCE_B, FOG_R, FOG_G, FOG_B,
 FOG_PER_M, GLASS_R, GLASS_G, GLASS_B, WET, NOISE, NIGHT, WINDOWS_LIT, SHADOW, RAIN, FAR_R, FAR_G, FAR_B, GLOW_R,
 GLOW_G, GLOW_B, LAMPS_ON, PUDDLES, GRAIN) = range(34)  # fmt: skip
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


@kernel
def ceil_clamped(value: float, low: int, high: int) -> int:
    """ceil(value) in [low, high], low >= 0."""
    if not value > low:
        return low
    if value >= high:
        return high
    whole = int(value)
    if np.float32(whole) < value:
        whole += 1
    return whole


@kernel
def fill_convex(n, ring, a, b, c, slot, width, height, s):  # type: ignore[no-untyped-def]
    """Z-buffer one convex polygon whose 1/z is a x + b y + c; True if it covered a pixel's centre."""
    low, high, lowest_x, highest_x = ring[0, 4], ring[0, 4], ring[0, 3], ring[0, 3]
    for i in range(1, n):
        x, y = ring[i, 3], ring[i, 4]
        low, high = min(low, y), max(high, y)
        lowest_x, highest_x = min(lowest_x, x), max(highest_x, x)
    if (
        high <= np.float32(0)
        or low >= np.float32(height)
        or highest_x <= np.float32(0)
        or lowest_x >= np.float32(width)
    ):
        return False
    first, last = ceil_clamped(low, 0, height), ceil_clamped(high, 0, height)
    if first >= last or ceil_clamped(lowest_x, 0, width) >= ceil_clamped(highest_x, 0, width):
        return False
    left, right = s.left, s.right
    for y_row in range(first, last):
        left[y_row] = np.float32(1e9)
        right[y_row] = np.float32(-1e9)
    for i in range(n):
        j = i + 1 if i + 1 < n else 0
        x0, y0, x1, y1 = ring[i, 3], ring[i, 4], ring[j, 3], ring[j, 4]
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        top, bottom = ceil_clamped(y0, 0, height), ceil_clamped(y1, 0, height)
        if top < bottom:
            slope = (x1 - x0) / (y1 - y0)
            for y_row in range(top, bottom):
                x = x0 + (np.float32(y_row) - y0) * slope
                left[y_row] = min(left[y_row], x)
                right[y_row] = max(right[y_row], x)
    inverse_z, slots, column = s.inverse_z, s.slot, s.column
    drawn = False
    for y_row in range(first, last):
        start, stop = ceil_clamped(left[y_row], 0, width), ceil_clamped(right[y_row], 0, width)
        if start >= stop:
            continue
        drawn = True
        base = c + b * np.float32(y_row)
        offset = np.uint64(y_row * width)
        for x_u in range(np.uint64(start), np.uint64(stop)):
            z = base + a * column[x_u]
            if z > inverse_z[offset + x_u]:
                inverse_z[offset + x_u] = z
                slots[offset + x_u] = slot
    return drawn


@kernel
def clip_near(n, ring, near):  # type: ignore[no-untyped-def]
    """Clip the ring to z >= near in place (rows 0..n-1, camera coordinates); the new count."""
    count = 8
    for i in range(n):
        j = i + 1 if i + 1 < n else 0
        z0, z1 = ring[i, 2], ring[j, 2]
        if z0 >= near:
            ring[count, 0], ring[count, 1], ring[count, 2] = ring[i, 0], ring[i, 1], z0
            count += 1
        if (z0 >= near) != (z1 >= near):
            front, back = (i, j) if z0 >= near else (j, i)
            t = (ring[front, 2] - near) / (ring[front, 2] - ring[back, 2])
            ring[count, 0] = ring[front, 0] + t * (ring[back, 0] - ring[front, 0])
            ring[count, 1] = ring[front, 1] + t * (ring[back, 1] - ring[front, 1])
            ring[count, 2] = near
            count += 1
    for i in range(8, count):
        for k in range(3):
            ring[i - 8, k] = ring[i, k]
    return count - 8


@kernel
def shade_polygon(p, i, o, nx, ny, nz, meshes, things, look, slots, slot):  # type: ignore[no-untyped-def]
    """Fill slot `slot` for polygon `p` of instance `i`; nx, ny, nz its normal in the world, o the camera."""
    kind = meshes.kind[p]
    label = slots.label
    label[slot, 0] = kind
    label[slot, 1] = meshes.klass[p]
    label[slot, 2] = things.ident[i]
    r, g, b = np.float32(meshes.rgb[p, 0]), np.float32(meshes.rgb[p, 1]), np.float32(meshes.rgb[p, 2])
    if 1 <= kind <= 3 or kind == 5 or kind == 7:
        t = kind - 1 if kind < 5 else 0
        scale = np.float32(1.0 / 255.0)
        r *= np.float32(things.tint[i, t, 0]) * scale
        g *= np.float32(things.tint[i, t, 1]) * scale
        b *= np.float32(things.tint[i, t, 2]) * scale
    elif kind >= 8:
        if (things.lamps[i] >> np.uint32(kind - 8)) & np.uint32(1):
            label[slot, 0] = 8
            boost = np.float32(1.0)
            if kind == 8 or kind == 10 or kind == 14:
                r, g, b = np.float32(255), np.float32(250), np.float32(225)
            elif kind == 9:
                strong = (things.lamps[i] >> np.uint32(31)) & np.uint32(1)
                boost = np.float32(1.0) if strong else np.float32(0.72)
                r, g, b = np.float32(255) * boost, np.float32(38) * boost, np.float32(30) * boost
            elif kind == 13:
                r, g, b = np.float32(90), np.float32(140), np.float32(255)
            else:
                r, g, b = np.float32(255), np.float32(170), np.float32(40)
            slots.rgb[slot, 0], slots.rgb[slot, 1], slots.rgb[slot, 2] = r, g, b
            return
        label[slot, 0] = 0
    facing = nx * look[0] + ny * look[1] + nz * look[2]
    sun = max(facing, np.float32(0)) * things.lit[i, 0]
    up = np.float32(0.5) + np.float32(0.5) * nz
    wall = np.float32(1.0) if kind != 7 else np.float32(1.12)
    r *= (look[9] + up * (look[6] - look[9])) * wall + look[3] * sun + things.lit[i, 1]
    g *= (look[10] + up * (look[7] - look[10])) * wall + look[4] * sun + things.lit[i, 2]
    b *= (look[11] + up * (look[8] - look[11])) * wall + look[5] * sun + things.lit[i, 3]
    if kind == 4:  # glass mirrors the sky, more so when it looks up
        mirror = np.float32(0.16) + np.float32(0.34) * max(nz, np.float32(0))
        r += (look[16] - r) * mirror
        g += (look[17] - g) * mirror
        b += (look[18] - b) * mirror
        label[slot, 0] = 0
    slots.rgb[slot, 0], slots.rgb[slot, 1], slots.rgb[slot, 2] = r, g, b
    if kind == 5:
        frame = slots.frame
        tx, ty = -ny, nx
        frame[slot, 0], frame[slot, 1] = tx, ty
        frame[slot, 2] = (
            np.float32((o[0] - things.position[i, 0]) * tx + (o[1] - things.position[i, 1]) * ty) + meshes.param[p, 0]
        )
        frame[slot, 3] = np.float32(o[2] - things.position[i, 2]) - meshes.param[p, 1]
        label[slot, 3] = things.key[i]
    elif kind == 6:
        label[slot, 3] = np.int32(meshes.param[p, 0])
        slots.frame[slot, 0], slots.frame[slot, 1], slots.frame[slot, 2] = nx, ny, nz


@kernel
def _row_times(axes, r, rot):  # type: ignore[no-untyped-def]
    """Row r of axes @ rotation."""
    a, b, c = axes[r, 0], axes[r, 1], axes[r, 2]
    return (
        a * rot[0] + b * rot[3] + c * rot[6],
        a * rot[1] + b * rot[4] + c * rot[7],
        a * rot[2] + b * rot[5] + c * rot[8],
    )


@kernel
def draw_instances(order, count, origin, axes, lens, meshes, things, look, s, slots, used, hide):  # type: ignore[no-untyped-def]
    """Draw `count` instances in `order` into the z-buffer of one view.

    origin (3,) f64 world; axes (3, 3) f32 rows right, down, forward; lens (6,) f32: f px, centre x, y, width,
    height, view distance. `used` slots are taken already; returns the new number.
    """
    focal, centre_x, centre_y, reach = lens[0], lens[1], lens[2], lens[5]
    width, height = int(lens[3]), int(lens[4])
    wide_x, wide_y = np.float32(0.5) * lens[3] / focal, np.float32(0.5) * lens[4] / focal
    slant_x, slant_y = np.sqrt(np.float32(1) + wide_x * wide_x), np.sqrt(np.float32(1) + wide_y * wide_y)
    near = np.float32(0.12)
    ring, cam = s.ring, s.camera
    vertex, plane, corner = meshes.vertex, meshes.plane, meshes.corner
    for k in range(count):
        i = order[k]
        mesh = things.mesh[i]
        if mesh < 0 or i == hide:
            continue
        dx = np.float32(things.position[i, 0] - origin[0])
        dy = np.float32(things.position[i, 1] - origin[1])
        dz = np.float32(things.position[i, 2] - origin[2])
        scale = things.scale[i]
        rot = things.rotation[i]
        lift = things.centre_z[i] * scale
        sx, sy, sz = dx + rot[2] * lift, dy + rot[5] * lift, dz + rot[8] * lift
        radius = things.radius[i] * scale
        cz = axes[2, 0] * sx + axes[2, 1] * sy + axes[2, 2] * sz
        if cz + radius < near or cz - radius > reach:
            continue
        cx = axes[0, 0] * sx + axes[0, 1] * sy + axes[0, 2] * sz
        if abs(cx) - cz * wide_x > radius * slant_x:
            continue
        cy = axes[1, 0] * sx + axes[1, 1] * sy + axes[1, 2] * sz
        if abs(cy) - cz * wide_y > radius * slant_y:
            continue
        if cz > radius:
            pixels = radius * focal / cz
            if pixels < np.float32(0.5):
                continue
            if pixels < things.far_px[i]:
                mesh = things.far[i]
                if mesh < 0:
                    continue
        first_vertex, vertices = np.uint64(meshes.table[mesh, 0]), np.uint64(meshes.table[mesh, 1])
        first_polygon, polygons = np.uint64(meshes.table[mesh, 2]), np.uint64(meshes.table[mesh, 3])
        m0, m1, m2 = _row_times(axes, 0, rot)
        m3, m4, m5 = _row_times(axes, 1, rot)
        m6, m7, m8 = _row_times(axes, 2, rot)
        tx = axes[0, 0] * dx + axes[0, 1] * dy + axes[0, 2] * dz
        ty = axes[1, 0] * dx + axes[1, 1] * dy + axes[1, 2] * dz
        tz = axes[2, 0] * dx + axes[2, 1] * dy + axes[2, 2] * dz
        # the camera in the object frame, in units of the object
        inv = np.float32(1) / scale
        ex = -(rot[0] * dx + rot[3] * dy + rot[6] * dz) * inv
        ey = -(rot[1] * dx + rot[4] * dy + rot[7] * dz) * inv
        ez = -(rot[2] * dx + rot[5] * dy + rot[8] * dz) * inv
        inside = cz - radius > near
        for v in range(vertices):
            px = vertex[first_vertex + v, 0] * scale
            py = vertex[first_vertex + v, 1] * scale
            pz = vertex[first_vertex + v, 2] * scale
            x = m0 * px + m1 * py + m2 * pz + tx
            y = m3 * px + m4 * py + m5 * pz + ty
            z = m6 * px + m7 * py + m8 * pz + tz
            cam[v, 0], cam[v, 1], cam[v, 2] = x, y, z
            if z >= near:
                over = focal / z
                cam[v, 3], cam[v, 4] = centre_x + x * over, centre_y + y * over
        for p in range(first_polygon, first_polygon + polygons):
            px, py, pz = plane[p, 0], plane[p, 1], plane[p, 2]
            distance = (px * ex + py * ey + pz * ez + plane[p, 3]) * scale
            if distance <= np.float32(1e-4):
                continue
            n = np.int64(meshes.corners[p])
            if inside:
                for q in range(np.uint64(n)):
                    v = np.uint64(corner[p, q])
                    ring[q, 3], ring[q, 4] = cam[v, 3], cam[v, 4]
            else:
                behind = 0
                for q in range(np.uint64(n)):
                    v = np.uint64(corner[p, q])
                    for col in range(5):
                        ring[q, col] = cam[v, col]
                    if cam[v, 2] < near:
                        behind += 1
                if behind == n:
                    continue
                if behind > 0:
                    n = clip_near(n, ring, near)
                    for q in range(n):
                        over = focal / ring[q, 2]
                        ring[q, 3], ring[q, 4] = centre_x + ring[q, 0] * over, centre_y + ring[q, 1] * over
            # 1/z = -(normal . ray) / distance, affine in the pixel
            qx = m0 * px + m1 * py + m2 * pz
            qy = m3 * px + m4 * py + m5 * pz
            qz = m6 * px + m7 * py + m8 * pz
            over = np.float32(-1) / distance
            a, b = qx * over / focal, qy * over / focal
            c = qz * over - a * centre_x - b * centre_y
            if fill_convex(n, ring, a, b, c, np.int32(used), width, height, s):
                nx = rot[0] * px + rot[1] * py + rot[2] * pz
                ny = rot[3] * px + rot[4] * py + rot[5] * pz
                nz = rot[6] * px + rot[7] * py + rot[8] * pz
                shade_polygon(p, i, origin, nx, ny, nz, meshes, things, look, slots, used)
                if used < 59990:
                    used += 1
    return used


@kernel
def draw_splat(x, y, inverse_z, half, r, g, b, klass, ident, s, width, height, slots, used):  # type: ignore[no-untyped-def]
    """A round emissive spot of at least 2x2 px at a depth; returns the new number of slots."""
    half = max(half, np.float32(1.0))
    x0, x1 = ceil_clamped(x - half, 0, width), ceil_clamped(x + half, 0, width)
    y0, y1 = ceil_clamped(y - half, 0, height), ceil_clamped(y + half, 0, height)
    drawn = False
    limit = half * half * np.float32(1.1)
    if half < np.float32(1.6):
        limit = np.float32(100.0)
    for row in range(y0, y1):
        for col in range(x0, x1):
            ox, oy = np.float32(col) - x, np.float32(row) - y
            at = row * width + col
            if ox * ox + oy * oy <= limit and inverse_z >= s.inverse_z[at]:
                s.inverse_z[at] = inverse_z
                s.slot[at] = used
                drawn = True
    if drawn and used < 59990:
        slots.rgb[used, 0], slots.rgb[used, 1], slots.rgb[used, 2] = r, g, b
        slots.label[used, 0], slots.label[used, 1], slots.label[used, 2] = 8, klass, ident
        used += 1
    return used
