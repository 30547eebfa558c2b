# mypy: disable-error-code="untyped-decorator,assignment,operator,call-overload"
"""From polygon slots to pictures: one row at a time, so that everything stays in the first-level cache.

a. world offsets and fog of the row; b. runs of equal slots: sky, ground, facade, foliage, plain; c. fog, noise, pack.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivesim.town.render.facades import facade_run
from drivesim.town.render.ground_pixels import ground_run
from drivesim.town.render.kernels import inlined, kernel

SKY_SIZE = 512  # side of the octahedral sky


class Painting(NamedTuple):
    """Everything the shading reads besides the slots."""

    look: NDArray[np.float32]
    palette: NDArray[np.float32]  # (MATERIALS, 3)
    class_of: NDArray[np.uint8]  # (MATERIALS,)
    rough: NDArray[np.uint8]  # (MATERIALS,) 1: takes no puddles (grass)
    detail: NDArray[np.uint8]  # (128 * 128,)
    sky: NDArray[np.uint32]  # (SKY_SIZE ** 2,)
    facade: NDArray[np.uint32]  # (tiles * TILE_TEXELS,)
    shadow: NDArray[np.uint8]  # (SHADOW_SIZE ** 2,)
    light: NDArray[np.float32]  # (LIGHT_SIZE ** 2, 3)
    grid_origin: NDArray[np.float64]  # (2,) world corner of both grids


@inlined
def _sky_run(x0, x1, bx, by, bz, ax, ay, az, tangent, row, paint, semantic, at):  # type: ignore[no-untyped-def]
    """Sky above the horizon, far land below it; both are beyond the fog already."""
    look, sky = paint.look, paint.sky
    half = np.float32(SKY_SIZE // 2 - 1)
    for x in range(x0, x1):
        u = tangent[x]
        dx, dy, dz = bx + ax * u, by + ay * u, bz + az * u
        row[4, x] = np.float32(1)
        if dz > np.float32(0):
            over = np.float32(1) / (abs(dx) + abs(dy) + dz)
            px, py = dx * over, dy * over
            iu = np.uint32(np.int32((px + py) * half + half))
            iv = np.uint32(np.int32((px - py) * half + half))
            c = sky[np.uint64(iv * np.uint32(512) + iu)]
            row[5, x] = np.float32(np.int32(c & np.uint32(255)))
            row[6, x] = np.float32(np.int32((c >> np.uint32(8)) & np.uint32(255)))
            row[7, x] = np.float32(np.int32((c >> np.uint32(16)) & np.uint32(255)))
            semantic[at + x] = 11
        else:
            row[5, x], row[6, x], row[7, x] = look[25], look[26], look[27]
            semantic[at + x] = 10


@inlined
def _plain_run(x0, x1, slot, kind, origin, row, paint, slots, semantic, at):  # type: ignore[no-untyped-def]
    """One colour, or leaves: the colour with a grain that is fixed in the world."""
    r, g, b = slots.rgb[slot, 0], slots.rgb[slot, 1], slots.rgb[slot, 2]
    klass = slots.label[slot, 1]
    if kind == 7:
        cx, cz = (origin[0] + origin[1]) * 16.0 + 1048576.0, origin[2] * 16.0 + 1048576.0
        for x in range(x0, x1):
            iu = int((row[1, x] + row[2, x]) * np.float32(16) + cx)
            iv = int(row[3, x] * np.float32(16) + cz)
            fine = np.float32(paint.detail[((iv >> 1) & 127) * 128 + ((iu >> 1) & 127)])
            broad = np.float32(paint.detail[((iv >> 3) & 127) * 128 + ((iu >> 3) & 127)])
            gain = np.float32(0.28) + (fine + broad) * np.float32(0.0028)
            row[5, x], row[6, x], row[7, x] = r * gain, g * gain, b * gain
            semantic[at + x] = klass
        return
    for x in range(x0, x1):
        row[5, x], row[6, x], row[7, x] = r, g, b
        semantic[at + x] = klass
    if kind == 8:
        for x in range(x0, x1):
            row[4, x] = max(row[4, x], np.float32(0.45))


@kernel
def _finish(row, look, seed, at, width, pixels):  # type: ignore[no-untyped-def]
    """Fog, noise, clamp and pack as BGRA."""
    fog_r, fog_g, fog_b, amplitude = look[12], look[13], look[14], look[20] * np.float32(1.0 / 255.0)
    top = np.float32(255)
    low = np.float32(0)
    start = np.uint32(np.uint32(at) + seed)
    row_4, row_5, row_6, row_7 = row[4], row[5], row[6], row[7]
    for x in range(np.uint64(width)):
        h = np.uint32((np.uint32(x) + start) * np.uint32(0x9E3779B1))
        h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
        h = np.uint32(h ^ (h >> np.uint32(13)))
        speck = (
            np.float32(
                np.int32(np.int32(h & np.uint32(255)) + np.int32((h >> np.uint32(8)) & np.uint32(255)) - np.int32(255))
            )
            * amplitude
        )
        t = row_4[x]
        r = fog_r + (row_5[x] - fog_r) * t + speck
        g = fog_g + (row_6[x] - fog_g) * t + speck
        b = fog_b + (row_7[x] - fog_b) * t + speck
        ri = np.uint32(np.int32(min(max(r, low), top)))
        gi = np.uint32(np.int32(min(max(g, low), top)))
        bi = np.uint32(np.int32(min(max(b, low), top)))
        pixels[at + x] = bi | np.uint32(gi << np.uint32(8)) | np.uint32(ri << np.uint32(16)) | np.uint32(0xFF000000)


@kernel
def _low_fog(row, thickness, fall, eye, columns):  # type: ignore[no-untyped-def]
    """What is left of a row's light in fog that thins with height z above its floor as 1 / (1 + fall z)^2.

    The mean of that between the heights of the eye and of the point is 1 / ((1 + fall eye) (1 + fall z)).
    """
    one, zero = np.float32(1), np.float32(0)
    low = one + fall * max(eye, zero)
    row_0, row_3, row_4 = row[0], row[3], row[4]
    for x in range(columns):
        share = one / (low * (one + fall * max(eye + row_3[x], zero)))
        t = one / (one + row_0[x] * thickness * share)
        t *= t
        t *= t
        t *= t
        row_4[x] = t * t


@kernel
def shade_view(origin, axes, lens, s, slots, ground, paint, seed, pixels, depth, semantic, instance):  # type: ignore[no-untyped-def]
    """Colour, depth, class and instance of one view; outputs are flat (h * w,)."""
    width, height = int(lens[3]), int(lens[4])
    focal, centre_y = lens[0], lens[2]
    row, tangent, look = s.row, s.tangent, paint.look
    thickness = look[15] * np.float32(1.0 / 16.0)
    one = np.float32(1)
    columns = np.uint64(width)
    shown = s.slot
    for y in range(height):
        at = np.uint64(y * width)
        v = (np.float32(y) - centre_y) / focal
        bx, by, bz = axes[2, 0] + axes[1, 0] * v, axes[2, 1] + axes[1, 1] * v, axes[2, 2] + axes[1, 2] * v
        ax, ay, az = axes[0, 0], axes[0, 1], axes[0, 2]
        row_0, row_1, row_2, row_3, row_4 = row[0], row[1], row[2], row[3], row[4]
        for x in range(columns):
            d = one / s.inverse_z[at + x]
            row_0[x] = d
            depth[at + x] = d
        for x in range(columns):
            d, u = row_0[x], tangent[x]
            row_1[x] = (bx + ax * u) * d
            row_2[x] = (by + ay * u) * d
            row_3[x] = (bz + az * u) * d
        for x in range(columns):
            t = one / (one + row_0[x] * thickness)
            t *= t
            t *= t
            t *= t
            row_4[x] = t * t
        if look[35] > np.float32(0):
            _low_fog(row, thickness, look[35], np.float32(origin[2] - look[36]), columns)
        x = np.uint64(0)
        while x < columns:
            slot = shown[at + x]
            stop = x + np.uint64(1)
            while stop < columns and shown[at + stop] == slot:
                stop += np.uint64(1)
            ident = np.uint16(0)
            if slot < 0:
                _sky_run(x, stop, bx, by, bz, ax, ay, az, tangent, row, paint, semantic, at)
            else:
                kind = slots.label[slot, 0]
                ident = np.uint16(slots.label[slot, 2])
                if kind == 6:
                    ground_run(x, stop, slot, origin, focal, row, ground, paint, slots, semantic, at)
                elif kind == 5:
                    facade_run(x, stop, slot, focal, origin, row, paint, slots, semantic, at)
                else:
                    _plain_run(x, stop, slot, kind, origin, row, paint, slots, semantic, at)
            for k in range(at + x, at + stop):
                instance[k] = ident
            x = stop
        _finish(row, look, seed, at, width, pixels)
