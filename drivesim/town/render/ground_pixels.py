# mypy: disable-error-code="untyped-decorator,assignment,operator,call-overload"
"""The ground's pixels: palette texels, grain, shadows, lamp light, wet shine."""

from __future__ import annotations

import numpy as np

from drivesim.town.render.kernels import inlined

SHADOW_SIZE = 512  # cells of the shadow grid, 0.25 m
LIGHT_SIZE = 128  # cells of the lamp-light grid, 1 m


@inlined
def _level_of(want):  # type: ignore[no-untyped-def]
    """Level 0..4 of the raster for a pixel that covers `want` texels of level 0."""
    if want < np.float32(1.3):
        return 0
    if want < np.float32(2.6):
        return 1
    if want < np.float32(5.2):
        return 2
    return 3 if want < np.float32(10.4) else 4


@inlined
def _four(tiles, a, side):  # type: ignore[no-untyped-def]
    """A texel and its neighbours right, below and right below."""
    return tiles[a], tiles[a + np.uint64(1)], tiles[a + np.uint64(side)], tiles[a + np.uint64(side + 1)]


@inlined
def _texels(ground, level, a, side):  # type: ignore[no-untyped-def]
    """The four materials around a point; from level 3 on one stands for all."""
    if level == 0:
        return _four(ground.level_0, a, side)
    if level == 1:
        return _four(ground.level_1, a, side)
    if level == 2:
        return _four(ground.level_2, a, side)
    m = ground.level_3[a] if level == 3 else ground.level_4[a]
    return m, m, m, m


@inlined
def _material(ground, palette, tile, texels, shift, level, gx, gy):  # type: ignore[no-untyped-def]
    """Material and colour of a tile at gx, gy (1/128 m), bilinear where materials meet."""
    side = (texels >> level) + 1
    u, v = (gx & 1023) >> shift, (gy & 1023) >> shift
    m0, m1, m2, m3 = _texels(ground, level, np.uint64(tile * side * side + v * side + u), side)
    m = np.uint64(m0)
    if m0 == m1 and m0 == m2 and m0 == m3:
        return m, palette[m, 0], palette[m, 1], palette[m, 2]
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
    return m, r, g, b


@inlined
def grain_at(detail, gx, gy, shift):  # type: ignore[no-untyped-def]
    """The surface noise, 0..255, at a scale of 2 ** shift / 128 m."""
    return np.float32(detail[np.uint64(((gy >> shift) & 127) * 128 + ((gx >> shift) & 127))])


@inlined
def _lamp_light(light, x, y):  # type: ignore[no-untyped-def]
    """Light of lamps at x, y in metres from the grid's corner, bilinear."""
    fx, fy = np.float32(x - 0.5), np.float32(y - 0.5)
    ix, iy = int(fx), int(fy)
    fx -= np.float32(ix)
    fy -= np.float32(iy)
    a = iy * LIGHT_SIZE + ix
    one = np.float32(1)
    k0, k1, k2, k3 = (one - fx) * (one - fy), fx * (one - fy), (one - fx) * fy, fx * fy
    return (
        light[a, 0] * k0 + light[a + 1, 0] * k1 + light[a + 128, 0] * k2 + light[a + 129, 0] * k3,
        light[a, 1] * k0 + light[a + 1, 1] * k1 + light[a + 128, 1] * k2 + light[a + 129, 1] * k3,
        light[a, 2] * k0 + light[a + 1, 2] * k1 + light[a + 128, 2] * k2 + light[a + 129, 2] * k3,
    )


@inlined
def _shade_of(shadow, sx, sy, shade):  # type: ignore[no-untyped-def]
    """Shares of ambient light and of sun in a cell of the shadow grid."""
    dark = shadow[np.uint64(sy * SHADOW_SIZE + sx)]
    if dark & np.uint8(4):
        return np.float32(0.5), np.float32(0)
    return np.float32(1), np.float32(1) - shade if dark & np.uint8(3) else np.float32(1)


@inlined
def _shine(detail, look, gx, gy, steepness, under):  # type: ignore[no-untyped-def]
    """Share of mirrored sky on wet ground; puddles where the broad noise is high."""
    grazing = np.float32(1) - min(np.float32(1), steepness * np.float32(2.2))
    pool = grain_at(detail, gx, gy, 9) > np.float32(255) - np.float32(150) * look[32]
    return look[19] * grazing * (np.float32(0.42) if not pool else np.float32(0.75)) * under


@inlined
def ground_run(x0, x1, slot, origin, focal, row, ground, paint, slots, semantic, at):  # type: ignore[no-untyped-def]
    """Pixels x0..x1-1 of a row that show ground."""
    look, palette, detail, frame = paint.look, paint.palette, paint.detail, slots.frame
    facing = max(np.float32(0), frame[slot, 0] * look[0] + frame[slot, 1] * look[1] + frame[slot, 2] * look[2])
    sun_r, sun_g, sun_b = look[3] * facing, look[4] * facing, look[5] * facing
    page = ground.page[slots.label[slot, 3]]
    rows, columns = page.shape
    texels = ground.texels[0]
    shift_0 = 4 if texels == 64 else 5 if texels == 32 else 6
    ox, oy = origin[0] - ground.origin[0], origin[1] - ground.origin[1]
    gx0, gy0 = origin[0] - paint.grid_origin[0], origin[1] - paint.grid_origin[1]
    night, wet, shade, grain = look[21] > np.float32(0), look[19] > np.float32(0), look[23], look[33]
    per_pixel = np.float32(128 >> shift_0) / focal
    row_0, row_1, row_2, row_3, row_5, row_6, row_7 = row[0], row[1], row[2], row[3], row[5], row[6], row[7]
    shadow, rough, class_of = paint.shadow, paint.rough, paint.class_of
    for x in range(x0, x1):
        depth, rx, ry = row_0[x], row_1[x], row_2[x]
        gx, gy = int((rx + ox) * 128.0 + 67108864.0) - 67108864, int((ry + oy) * 128.0 + 67108864.0) - 67108864
        level = _level_of(depth * per_pixel)
        tile = np.int32(-1)
        if gx >= 0 and gy >= 0 and gy >> 10 < rows and gx >> 10 < columns:
            tile = page[np.uint64(gy >> 10), np.uint64(gx >> 10)]
        if tile < 0:
            m = np.uint64(-1 - tile)
            r, g, b = palette[m, 0], palette[m, 1], palette[m, 2]
        else:
            m, r, g, b = _material(ground, palette, tile, texels, shift_0 + level, level, gx, gy)
        grit = grain_at(detail, gx, gy, 3 + level) - np.float32(128)
        grit += grain_at(detail, gx, gy, 6 + level) - np.float32(128)
        gain = np.float32(1) + grit * grain
        if rough[m]:
            gain += grit * grain
        under, sun = np.float32(1), np.float32(1)
        sx, sy = int((rx + gx0) * 4.0), int((ry + gy0) * 4.0)
        near_grid = 0 <= sx < SHADOW_SIZE and 0 <= sy < SHADOW_SIZE
        if near_grid:
            under, sun = _shade_of(shadow, sx, sy, shade)
        lr, lg, lb = look[6] * under + sun_r * sun, look[7] * under + sun_g * sun, look[8] * under + sun_b * sun
        if night and near_grid and 2 <= sx < SHADOW_SIZE - 6 and 2 <= sy < SHADOW_SIZE - 6:
            add_r, add_g, add_b = _lamp_light(paint.light, rx + gx0, ry + gy0)
            lr, lg, lb = lr + add_r, lg + add_g, lb + add_b
        r, g, b = r * gain * lr, g * gain * lg, b * gain * lb
        if wet and not rough[m]:
            shine = _shine(detail, look, gx, gy, abs(row_3[x]) / depth, under)
            r, g, b = r + (look[16] - r) * shine, g + (look[17] - g) * shine, b + (look[18] - b) * shine
        row_5[x], row_6[x], row_7[x] = r, g, b
        semantic[at + x] = class_of[m]
