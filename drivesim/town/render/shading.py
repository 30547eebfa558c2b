# mypy: disable-error-code="untyped-decorator,assignment,operator,call-overload"
"""From polygon slots to pictures: one row at a time, so that everything stays in the first-level cache.

a. world offsets and fog of the row; b. runs of equal slots: sky, ground, facade, foliage, plain; c. fog, noise, pack.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivesim.town.render.kernels import kernel

SKY_SIZE = 512  # side of the octahedral sky
SHADOW_SIZE = 512  # cells of the shadow grid
SHADOW_PER_M = 4
LIGHT_SIZE = 128  # cells of the lamp-light grid, 1 m
TILE_TEXELS = 4096 + 1024 + 256 + 64 + 16  # one facade tile with its levels
FACADE_PER_M = 5
KNOBS = 8


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


@kernel
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


@kernel
def _ground_run(x0, x1, slot, origin, focal, row, ground, paint, slots, semantic, at):  # type: ignore[no-untyped-def]
    """Road, paint, kerbs, grass: palette texels, grain, shadows, lamp light, wet shine."""
    look, palette, detail = paint.look, paint.palette, paint.detail
    facing = max(
        np.float32(0), slots.frame[slot, 0] * look[0] + slots.frame[slot, 1] * look[1] + slots.frame[slot, 2] * look[2]
    )
    amb_r, amb_g, amb_b = look[6], look[7], look[8]
    sun_r, sun_g, sun_b = look[3] * facing, look[4] * facing, look[5] * facing
    layer = slots.label[slot, 3]
    page = ground.page[layer]
    rows, columns = page.shape
    texels = ground.texels[0]
    shift_0 = 4 if texels == 64 else 5 if texels == 32 else 6
    ox, oy = origin[0] - ground.origin[0], origin[1] - ground.origin[1]
    gx0, gy0 = (origin[0] - paint.grid_origin[0]), (origin[1] - paint.grid_origin[1])
    night, wet, shade, grain = look[21] > np.float32(0), look[19], look[23], look[33]
    per_pixel = np.float32(128 >> shift_0) / focal
    row_0, row_1, row_2, row_3, row_5, row_6, row_7 = row[0], row[1], row[2], row[3], row[5], row[6], row[7]
    shadow, light, rough, class_of = paint.shadow, paint.light, paint.rough, paint.class_of
    for x in range(x0, x1):
        depth, rx, ry, rz = row_0[x], row_1[x], row_2[x], row_3[x]
        gx, gy = int((rx + ox) * 128.0 + 67108864.0) - 67108864, int((ry + oy) * 128.0 + 67108864.0) - 67108864
        want = depth * per_pixel
        level = (
            0
            if want < np.float32(1.3)
            else 1
            if want < np.float32(2.6)
            else 2
            if want < np.float32(5.2)
            else 3
            if want < np.float32(10.4)
            else 4
        )
        tile = np.int32(-1)
        if gx >= 0 and gy >= 0:
            tr, tc = gy >> 10, gx >> 10
            if tr < rows and tc < columns:
                tile = page[np.uint64(tr), np.uint64(tc)]
        if tile < 0:
            m = np.uint64(-1 - tile)
            r, g, b = palette[m, 0], palette[m, 1], palette[m, 2]
        else:
            shift = shift_0 + level
            side = (texels >> level) + 1
            u, v = (gx & 1023) >> shift, (gy & 1023) >> shift
            a = np.uint64(tile * side * side + v * side + u)
            if level == 0:
                m0, m1, m2, m3 = (
                    ground.level_0[a],
                    ground.level_0[a + np.uint64(1)],
                    ground.level_0[a + np.uint64(side)],
                    ground.level_0[a + np.uint64(side + 1)],
                )
            elif level == 1:
                m0, m1, m2, m3 = (
                    ground.level_1[a],
                    ground.level_1[a + np.uint64(1)],
                    ground.level_1[a + np.uint64(side)],
                    ground.level_1[a + np.uint64(side + 1)],
                )
            elif level == 2:
                m0, m1, m2, m3 = (
                    ground.level_2[a],
                    ground.level_2[a + np.uint64(1)],
                    ground.level_2[a + np.uint64(side)],
                    ground.level_2[a + np.uint64(side + 1)],
                )
            elif level == 3:
                m0 = ground.level_3[a]
                m1, m2, m3 = m0, m0, m0
            else:
                m0 = ground.level_4[a]
                m1, m2, m3 = m0, m0, m0
            m = np.uint64(m0)
            if m0 == m1 and m0 == m2 and m0 == m3:
                r, g, b = palette[m, 0], palette[m, 1], palette[m, 2]
            else:
                mask, inv = (1 << shift) - 1, np.float32(1.0) / np.float32(1 << shift)
                fu, fv = np.float32(gx & mask) * inv, np.float32(gy & mask) * inv
                w3 = fu * fv
                w1, w2 = fu - w3, fv - w3
                w0 = np.float32(1) - fu - w2
                r = palette[m0, 0] * w0 + palette[m1, 0] * w1 + palette[m2, 0] * w2 + palette[m3, 0] * w3
                g = palette[m0, 1] * w0 + palette[m1, 1] * w1 + palette[m2, 1] * w2 + palette[m3, 1] * w3
                b = palette[m0, 2] * w0 + palette[m1, 2] * w1 + palette[m2, 2] * w2 + palette[m3, 2] * w3
                if fu > np.float32(0.5):
                    m = np.uint64(m3) if fv > np.float32(0.5) else np.uint64(m1)
                elif fv > np.float32(0.5):
                    m = np.uint64(m2)
        s1 = 3 + level
        grit = np.float32(detail[np.uint64(((gy >> s1) & 127) * 128 + ((gx >> s1) & 127))]) - np.float32(128)
        s2 = 6 + level
        grit += np.float32(detail[np.uint64(((gy >> s2) & 127) * 128 + ((gx >> s2) & 127))]) - np.float32(128)
        gain = np.float32(1) + grit * grain
        if rough[m]:
            gain += grit * grain
        sun = np.float32(1)
        sx, sy = int((rx + gx0) * 4.0), int((ry + gy0) * 4.0)
        near_grid = 0 <= sx < SHADOW_SIZE and 0 <= sy < SHADOW_SIZE
        under = np.float32(1)
        if near_grid:
            dark = shadow[np.uint64(sy * SHADOW_SIZE + sx)]
            if dark & np.uint8(3):
                sun = np.float32(1) - shade
            if dark & np.uint8(4):
                under, sun = np.float32(0.5), np.float32(0)
        lr, lg, lb = amb_r * under + sun_r * sun, amb_g * under + sun_g * sun, amb_b * under + sun_b * sun
        if night and near_grid and 2 <= sx < SHADOW_SIZE - 6 and 2 <= sy < SHADOW_SIZE - 6:
            fx, fy = np.float32((rx + gx0) - 0.5), np.float32((ry + gy0) - 0.5)
            ix, iy = int(fx), int(fy)
            fx -= np.float32(ix)
            fy -= np.float32(iy)
            at_l = iy * LIGHT_SIZE + ix
            k0, k1, k2, k3 = (
                (np.float32(1) - fx) * (np.float32(1) - fy),
                fx * (np.float32(1) - fy),
                (np.float32(1) - fx) * fy,
                fx * fy,
            )
            lr += light[at_l, 0] * k0 + light[at_l + 1, 0] * k1 + light[at_l + 128, 0] * k2 + light[at_l + 129, 0] * k3
            lg += light[at_l, 1] * k0 + light[at_l + 1, 1] * k1 + light[at_l + 128, 1] * k2 + light[at_l + 129, 1] * k3
            lb += light[at_l, 2] * k0 + light[at_l + 1, 2] * k1 + light[at_l + 128, 2] * k2 + light[at_l + 129, 2] * k3
        r, g, b = r * gain * lr, g * gain * lg, b * gain * lb
        if wet > np.float32(0) and not rough[m]:
            grazing = np.float32(1) - min(np.float32(1), abs(rz) / depth * np.float32(2.2))
            s3 = 9
            pool = (
                np.float32(detail[((gy >> s3) & 127) * 128 + ((gx >> s3) & 127)])
                > np.float32(255) - np.float32(150) * look[32]
            )
            shine = wet * grazing * (np.float32(0.42) if not pool else np.float32(0.75)) * under
            r += (look[16] - r) * shine
            g += (look[17] - g) * shine
            b += (look[18] - b) * shine
        row_5[x], row_6[x], row_7[x] = r, g, b
        semantic[at + x] = class_of[m]


@kernel
def _facade_run(x0, x1, slot, focal, origin, row, paint, slots, semantic, at):  # type: ignore[no-untyped-def]
    """Walls with windows; at night some windows are lit."""
    look, frame = paint.look, slots.frame
    tx, ty, u0, z0 = frame[slot, 0], frame[slot, 1], frame[slot, 2], frame[slot, 3]
    lit_r, lit_g, lit_b = slots.rgb[slot, 0], slots.rgb[slot, 1], slots.rgb[slot, 2]
    key = slots.label[slot, 3]
    base = np.uint64((key & 255) * TILE_TEXELS)
    building = np.uint32(key >> 8)
    night, p_lit = look[21] > np.float32(0), np.uint32(look[22] * np.float32(65535))
    gx0, gy0 = (origin[0] - paint.grid_origin[0]), (origin[1] - paint.grid_origin[1])
    scale = np.float32(1.0 / 255.0)
    klass = slots.label[slot, 1]
    day = np.float32(1) - np.float32(0.6) * look[21]
    gr, gg, gb = look[16] * np.float32(0.55) * day, look[17] * np.float32(0.55) * day, look[18] * np.float32(0.55) * day
    per_pixel = np.float32(5) / focal
    row_0, row_1, row_2, row_3, row_5, row_6, row_7 = row[0], row[1], row[2], row[3], row[5], row[6], row[7]
    facade, light = paint.facade, paint.light
    gr, gg, gb = gr * np.float32(2), gg * np.float32(2), gb * np.float32(2)
    for x in range(x0, x1):
        u = tx * row_1[x] + ty * row_2[x] + u0
        v = row_3[x] + z0
        iu = np.uint32(np.int32(u * np.float32(5) + np.float32(8192)))
        iv = np.uint32(np.int32(max(v, np.float32(0)) * np.float32(5)))
        want = row_0[x] * per_pixel
        level = np.uint32(0)
        if want >= np.float32(1.2):
            level = np.uint32(1) if want < np.float32(2.4) else np.uint32(2) if want < np.float32(4.8) else np.uint32(3)
            if want >= np.float32(9.6):
                level = np.uint32(4)
        line = iv
        if iv >= np.uint32(16):
            line = np.uint32(16) + np.uint32((iv - np.uint32(16)) % np.uint32(48))
        offset = np.uint32(
            (np.uint32(4096) - (np.uint32(4096) >> np.uint32(level * np.uint32(2)))) * np.uint32(4)
        ) // np.uint32(3)
        cell = np.uint32(np.uint32(line >> level) << np.uint32(np.uint32(6) - level)) + np.uint32(
            (iu & np.uint32(63)) >> level
        )
        c = facade[base + np.uint64(offset) + np.uint64(cell)]
        glass = np.float32(np.int32(c >> np.uint32(24))) * scale
        tr = np.float32(np.int32(c & np.uint32(255))) * scale
        tg = np.float32(np.int32((c >> np.uint32(8)) & np.uint32(255))) * scale
        tb = np.float32(np.int32((c >> np.uint32(16)) & np.uint32(255))) * scale
        r, g, b = lit_r, lit_g, lit_b
        if night:
            sx, sy = int(row_1[x] + gx0), int(row_2[x] + gy0)
            if 0 <= sx < LIGHT_SIZE and 0 <= sy < LIGHT_SIZE:
                fall = np.float32(60) * max(np.float32(0), np.float32(1) - v * np.float32(0.11))
                at_l = sy * LIGHT_SIZE + sx
                r += light[at_l, 0] * fall
                g += light[at_l, 1] * fall
                b += light[at_l, 2] * fall
        r, g, b = (r + (gr - r) * glass) * tr, (g + (gg - g) * glass) * tg, (b + (gb - b) * glass) * tb
        if night and glass > np.float32(0.3):
            h = (
                np.uint32(np.uint32(iu >> np.uint32(4)) * np.uint32(0x9E3779B1))
                ^ np.uint32(np.uint32(iv >> np.uint32(4)) * np.uint32(0x85EBCA77))
                ^ np.uint32(building * np.uint32(0xC2B2AE3D))
            )
            h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D))
            h = np.uint32(h ^ (h >> np.uint32(13)))
            if (h & np.uint32(65535)) < p_lit:
                warm = np.float32((h >> np.uint32(16)) & np.uint32(255)) * scale
                power = (np.float32(110) + np.float32(110) * warm) * glass
                r += power
                g += power * (np.float32(0.72) + np.float32(0.2) * warm)
                b += power * (np.float32(0.35) + np.float32(0.45) * warm)
        row_5[x], row_6[x], row_7[x] = r, g, b
        semantic[at + x] = klass


@kernel
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
                    _ground_run(x, stop, slot, origin, focal, row, ground, paint, slots, semantic, at)
                elif kind == 5:
                    _facade_run(x, stop, slot, focal, origin, row, paint, slots, semantic, at)
                else:
                    _plain_run(x, stop, slot, kind, origin, row, paint, slots, semantic, at)
            for k in range(at + x, at + stop):
                instance[k] = ident
            x = stop
        _finish(row, look, seed, at, width, pixels)
