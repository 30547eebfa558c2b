"""From the town's state and an appearance to instances: poses, tints, lamps, and what is near the cameras."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivesim.town.render.appearance import Appearance
from drivesim.town.render.kernels import kernel
from drivesim.town.render.polygons import draw_splat
from drivesim.town.render.scene import KIND_HOUSE, KIND_LAND, KIND_TREE, Scene
from drivesim.town.render.visibility import Instances

SWITCHED_OFF = -2  # as the signal of a street lamp that gives no light
HOUSE_TINTS = np.array(
    [
        [178, 118, 92],
        [196, 172, 140],
        [206, 198, 184],
        [150, 150, 152],
        [168, 104, 84],
        [214, 190, 150],
        [140, 122, 108],
        [186, 186, 178],
        [120, 128, 138],
        [204, 160, 122],
        [222, 214, 200],
        [152, 92, 78],
    ],
    np.float64,
)
ROOF_TINTS = np.array([[128, 66, 52], [92, 84, 82], [112, 76, 60], [78, 82, 92]], np.float64)


def empty_instances(n: int) -> Instances:
    """n rows that draw nothing."""
    f = np.float32
    return Instances(
        np.zeros((n, 3), np.float64),
        np.zeros((n, 9), f),
        np.ones(n, f),
        np.full(n, -1, np.int32),
        np.full(n, -1, np.int32),
        np.zeros(n, f),
        np.zeros(n, f),
        np.full((n, 3, 3), 255, np.uint8),
        np.zeros(n, np.uint32),
        np.zeros(n, np.uint16),
        np.zeros((n, 4), f),
        np.zeros(n, np.int32),
        np.full(n, 7.0, f),
        np.full(n, -1, np.int32),
    )


def static_instances(scene: Scene) -> Instances:
    """The scene's standing things as instances; tints come with an appearance."""
    n = len(scene.mesh)
    out = empty_instances(n)
    c, s = np.cos(scene.yaw), np.sin(scene.yaw)
    out.position[:] = scene.position
    out.rotation[:, 0], out.rotation[:, 1], out.rotation[:, 3], out.rotation[:, 4], out.rotation[:, 8] = (
        c,
        -s,
        s,
        c,
        1.0,
    )
    out.lit[:, 0] = 1.0
    out.far_px[scene.kind == KIND_TREE] = 17.0
    out.far_px[scene.kind == KIND_LAND] = 55.0
    return out._replace(scale=scene.scale, mesh=scene.mesh, far=scene.far, key=scene.key, signal=scene.signal,
                        centre_z=scene.mesh_sphere[scene.mesh, 0], radius=scene.mesh_sphere[scene.mesh, 1])  # fmt: skip


def static_tints(scene: Scene, appearance: Appearance) -> NDArray[np.uint8]:
    """(n, 3, 3) colours of houses, roofs and leaves for one appearance."""
    n = len(scene.mesh)
    rng = np.random.default_rng([appearance.seed & 0x7FFFFFFF, 31])
    tint = np.full((n, 3, 3), 255.0)
    house = scene.kind == KIND_HOUSE
    walls = HOUSE_TINTS * rng.uniform(0.88, 1.12, (1, 3)) * rng.uniform(0.9, 1.1, HOUSE_TINTS.shape)
    tint[house, 0] = walls[rng.integers(len(walls), size=int(house.sum()))] * rng.uniform(
        0.85, 1.15, (int(house.sum()), 1)
    )
    tint[house, 1] = ROOF_TINTS[rng.integers(len(ROOF_TINTS), size=int(house.sum()))]
    tree = scene.kind == KIND_TREE
    count = int(tree.sum())
    leaf = np.asarray(appearance.foliage) * rng.uniform(0.75, 1.2, (count, 1)) * rng.uniform(0.92, 1.08, (count, 3))
    fall = np.array([[190, 120, 40], [170, 80, 36], [196, 160, 60]], float)[rng.integers(3, size=count)]
    share = np.clip(appearance.autumn * rng.uniform(0.6, 1.4, (count, 1)), 0, 1)
    tint[tree, 0] = leaf + (fall - leaf) * share
    return np.asarray(np.clip(tint, 0, 255).astype(np.uint8))


@kernel
def gather(order, anchor, reach, cell_start, cell_shape, cell_origin, cell_m):  # type: ignore[no-untyped-def]
    """Instances of the cells within reach, ring by ring from the anchor's cell outwards."""
    column, row = int((anchor[0] - cell_origin[0]) // cell_m), int((anchor[1] - cell_origin[1]) // cell_m)
    count = 0
    for ring in range(int(reach / cell_m) + 2):
        for r in range(row - ring, row + ring + 1):
            for c in range(column - ring, column + ring + 1):
                if (
                    max(abs(r - row), abs(c - column)) != ring
                    or r < 0
                    or c < 0
                    or r >= cell_shape[0]
                    or c >= cell_shape[1]
                ):
                    continue
                cell = r * cell_shape[1] + c
                for i in range(cell_start[cell], cell_start[cell + 1]):
                    order[count] = i
                    count += 1
    return count


@kernel
def near(chosen, rows, corner, span, margin):  # type: ignore[no-untyped-def]
    """Rows (x, y, ...) within a square and a margin."""
    count = 0
    for i in range(rows.shape[0]):
        x, y = rows[i, 0] - corner[0], rows[i, 1] - corner[1]
        if -margin < x < span + margin and -margin < y < span + margin:
            chosen[count] = i
            count += 1
    return count


@kernel
def _mix(a, b):  # type: ignore[no-untyped-def]
    h = np.uint32(np.uint32(a) * np.uint32(0x9E3779B1)) ^ np.uint32(np.uint32(b) * np.uint32(0x85EBCA77))
    h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D))
    h = np.uint32((h ^ (h >> np.uint32(12))) * np.uint32(0x297A2D39))
    return np.uint32(h ^ (h >> np.uint32(15)))


CLOTHES = np.array(
    [
        [196, 44, 42],
        [38, 70, 140],
        [226, 186, 60],
        [232, 232, 228],
        [44, 46, 52],
        [58, 122, 76],
        [206, 118, 52],
        [128, 70, 130],
        [92, 148, 186],
        [122, 92, 70],
        [214, 96, 128],
        [112, 116, 122],
    ],
    np.uint8,
)
TROUSERS = np.array([[42, 52, 82], [36, 36, 40], [108, 96, 80], [72, 78, 86], [60, 66, 48], [150, 140, 120]], np.uint8)
SKIN = np.array([[226, 184, 156], [198, 150, 118], [150, 104, 76], [98, 66, 48]], np.uint8)
CARS = np.array(
    [
        [24, 24, 27],
        [214, 214, 216],
        [138, 140, 144],
        [172, 30, 32],
        [28, 58, 120],
        [70, 74, 80],
        [196, 176, 140],
        [36, 84, 62],
        [224, 160, 36],
        [106, 28, 34],
        [86, 128, 172],
        [236, 236, 232],
    ],
    np.uint8,
)


@kernel
def stage_actors(  # type: ignore[no-untyped-def]
    a,
    kind,
    model,
    xyz,
    rotation,
    half_size,
    velocity,
    actor_id,
    lamps,
    tint,
    time_s,
    model_mesh,
    walker_mesh,
    walker_far,
    sphere,
    look,
    shadow,
    light,
    corner,
    shuffle,
    seed,
):
    """Fill the instances of all actors from the state."""
    night = look[31] > np.float32(0.5)
    for i in range(kind.shape[0]):
        a.mesh[i] = -1
        if kind[i] == 0:
            continue
        a.position[i, 0], a.position[i, 1], a.position[i, 2] = xyz[i, 0], xyz[i, 1], xyz[i, 2]
        sr, cr = np.sin(rotation[i, 0]), np.cos(rotation[i, 0])
        sp, cp = np.sin(rotation[i, 1]), np.cos(rotation[i, 1])
        sy, cy = np.sin(rotation[i, 2]), np.cos(rotation[i, 2])
        rot = a.rotation[i]
        rot[0], rot[3], rot[6] = cp * cy, cp * sy, sp
        rot[1], rot[4], rot[7] = cy * sp * sr - sy * cr, sy * sp * sr + cy * cr, -cp * sr
        rot[2], rot[5], rot[8] = -cy * sp * cr - sy * sr, -sy * sp * cr + cy * sr, cp * cr
        a.ident[i] = np.uint16(i + 1)
        who = _mix(actor_id[i], 0)  # decides the figure; the look's own hash only its colours
        h = _mix(actor_id[i], seed) if shuffle else who
        a.scale[i] = np.float32(1)
        if kind[i] == 2:
            moving = np.sqrt(velocity[i, 0] ** 2 + velocity[i, 1] ** 2)
            phase = 0
            if moving > 0.15:
                stride = time_s * (0.6 + 0.55 * moving) * 2.0 + float(who & np.uint32(3))
                phase = 1 + int(stride * 2.0) % 4
            build = int((who >> np.uint32(4)) & np.uint32(3)) == 0
            a.mesh[i] = walker_mesh[1 if build else 0, phase]
            a.far[i] = walker_far
            a.scale[i] = np.float32(half_size[i, 2] * 2.0 / 1.8)
            top, low, skin = (
                CLOTHES[(h >> np.uint32(8)) % np.uint32(12)],
                TROUSERS[(h >> np.uint32(13)) % np.uint32(6)],
                SKIN[(h >> np.uint32(18)) & np.uint32(3)],
            )
            for c in range(3):
                a.tint[i, 0, c], a.tint[i, 1, c], a.tint[i, 2, c] = top[c], low[c], skin[c]
        else:
            a.mesh[i], a.far[i] = model_mesh[model[i], 0], model_mesh[model[i], 1]
            coat = CARS[(h >> np.uint32(7)) % np.uint32(12)]
            dressed = tint[i, 0] | tint[i, 1] | tint[i, 2]
            second, skin = CLOTHES[(h >> np.uint32(13)) % np.uint32(12)], SKIN[(h >> np.uint32(18)) & np.uint32(3)]
            for c in range(3):
                a.tint[i, 0, c] = coat[c] if shuffle or dressed == 0 else tint[i, c]
                a.tint[i, 1, c] = second[c]
                a.tint[i, 2, c] = skin[c]
        if a.mesh[i] < 0:
            continue
        a.centre_z[i], a.radius[i] = sphere[a.mesh[i], 0], sphere[a.mesh[i], 1]
        word, flags = np.uint32(0), lamps[i]
        if kind[i] == 1:
            on = (int(time_s * 3.0) & 1) == 0
            if (flags & np.uint32(7)) or night:
                word |= np.uint32(1)
                word |= np.uint32(2)
            if flags & np.uint32(8):
                word |= np.uint32(0x80000002)
            if flags & np.uint32(64):
                word |= np.uint32(4)
            if (flags & np.uint32(32)) and on:
                word |= np.uint32(8)
            if (flags & np.uint32(16)) and on:
                word |= np.uint32(16)
            if (flags & np.uint32(512)) or (flags & np.uint32(1024)):
                word |= np.uint32(32) if on else np.uint32(0)
        a.lamps[i] = word
        _light_at(a.lit[i], xyz[i, 0], xyz[i, 1], shadow, light, corner)


@kernel
def _light_at(lit, x, y, shadow, light, corner):  # type: ignore[no-untyped-def]
    """Sun share and lamp light of a thing at x, y; only standing things shade it."""
    lit[0], lit[1], lit[2], lit[3] = 1.0, 0.0, 0.0, 0.0
    sx, sy = int((x - corner[0]) * 4.0), int((y - corner[1]) * 4.0)
    if 0 <= sx < 512 and 0 <= sy < 512:
        if shadow[sy * 512 + sx] & 1:
            lit[0] = 0.12
        at = (sy >> 2) * 128 + (sx >> 2)
        for c in range(3):
            lit[1 + c] = light[at, c] * np.float32(0.55)


@kernel
def light_statics(things, order, count, look, light, corner, kind):  # type: ignore[no-untyped-def]
    """Street lamps on or off, and lamp light on whatever stands around (not on houses: those do it per pixel)."""
    on = look[31] > np.float32(0.5)
    for k in range(count):
        i = order[k]
        things.lamps[i] = np.uint32(64) if on and things.signal[i] != SWITCHED_OFF else np.uint32(0)
        things.lit[i, 1], things.lit[i, 2], things.lit[i, 3] = 0.0, 0.0, 0.0
        if look[21] > np.float32(0) and kind[i] >= 2:
            x, y = int(things.position[i, 0] - corner[0]), int(things.position[i, 1] - corner[1])
            if 0 <= x < 128 and 0 <= y < 128:
                for c in range(3):
                    things.lit[i, 1 + c] = light[y * 128 + x, c] * np.float32(0.5)


@kernel
def sort_actors(order, a, origin):  # type: ignore[no-untyped-def]
    """Actors to draw, nearest first (insertion sort: the order of the last view is almost right)."""
    n = order.shape[0]
    count = 0
    for i in range(n):
        if a.mesh[i] >= 0:
            order[count] = i
            count += 1
    for k in range(1, count):
        i = order[k]
        d = (a.position[i, 0] - origin[0]) ** 2 + (a.position[i, 1] - origin[1]) ** 2
        j = k - 1
        while j >= 0:
            o = order[j]
            if (a.position[o, 0] - origin[0]) ** 2 + (a.position[o, 1] - origin[1]) ** 2 <= d:
                break
            order[j + 1] = o
            j -= 1
        order[j + 1] = i
    return count


@kernel
def draw_signals(order, count, things, light_state, origin, axes, lens, s, slots, used):  # type: ignore[no-untyped-def]
    """The lit lens of every signal head in view, at least 2x2 px."""
    for k in range(count):
        i = order[k]
        light = things.signal[i]
        if light < 0 or light >= light_state.shape[0] or light_state[light] > 2:
            continue
        state = light_state[light]
        fx, fy = things.rotation[i, 0], things.rotation[i, 3]
        lift = 0.40 if state == 0 else 0.0 if state == 1 else -0.40
        x = np.float32(things.position[i, 0] + 0.235 * fx - origin[0])
        y = np.float32(things.position[i, 1] + 0.235 * fy - origin[1])
        z = np.float32(things.position[i, 2] + lift - origin[2])
        if x * fx + y * fy >= np.float32(0):
            continue
        cz = axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z
        if cz < np.float32(0.5) or cz > np.float32(180):
            continue
        over = lens[0] / cz
        px = lens[1] + (axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z) * over
        py = lens[2] + (axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z) * over
        r, g, b = np.float32(255), np.float32(42), np.float32(32)
        if state == 1:
            r, g, b = np.float32(255), np.float32(190), np.float32(40)
        elif state == 2:
            r, g, b = np.float32(40), np.float32(240), np.float32(130)
        used = draw_splat(px, py, np.float32(1) / (cz - np.float32(0.03)), np.float32(0.17) * over, r, g, b, 7, 0, s,
                          int(lens[3]), int(lens[4]), slots, used)  # fmt: skip
    return used
