# mypy: disable-error-code="untyped-decorator,assignment,operator,call-overload"
"""The pixels of walls: one texel of the facade atlas each, lamp light, and at night some windows lit."""

from __future__ import annotations

import numpy as np

from drivesim.town.render.ground_pixels import LIGHT_SIZE
from drivesim.town.render.kernels import inlined

TILE_TEXELS = 4096 + 1024 + 256 + 64 + 16  # one facade tile with its levels


@inlined
def _level_of(want):  # type: ignore[no-untyped-def]
    """Level 0..4 of the atlas for a pixel that covers `want` texels of level 0."""
    if want < np.float32(1.2):
        return np.uint32(0)
    if want >= np.float32(9.6):
        return np.uint32(4)
    return np.uint32(1) if want < np.float32(2.4) else np.uint32(2) if want < np.float32(4.8) else np.uint32(3)


@inlined
def _texel(facade, base, iu, iv, level):  # type: ignore[no-untyped-def]
    """Texel iu, iv of a tile: the ground floor once, then the three upper floors again and again."""
    line = iv
    if iv >= np.uint32(16):
        line = np.uint32(16) + np.uint32((iv - np.uint32(16)) % np.uint32(48))
    offset = np.uint32(
        (np.uint32(4096) - (np.uint32(4096) >> np.uint32(level * np.uint32(2)))) * np.uint32(4)
    ) // np.uint32(3)
    cell = np.uint32(np.uint32(line >> level) << np.uint32(np.uint32(6) - level)) + np.uint32(
        (iu & np.uint32(63)) >> level
    )
    return facade[base + np.uint64(offset) + np.uint64(cell)]


@inlined
def _window_hash(iu, iv, building):  # type: ignore[no-untyped-def]
    """A number per window: its lower 16 bits say whether it is lit, the next 8 how warm."""
    h = (
        np.uint32(np.uint32(iu >> np.uint32(4)) * np.uint32(0x9E3779B1))
        ^ np.uint32(np.uint32(iv >> np.uint32(4)) * np.uint32(0x85EBCA77))
        ^ np.uint32(building * np.uint32(0xC2B2AE3D))
    )
    h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D))
    return np.uint32(h ^ (h >> np.uint32(13)))


@inlined
def _lamp_light(light, x, y, v):  # type: ignore[no-untyped-def]
    """Light of lamps on a wall at height v, x and y in metres from the grid's corner."""
    sx, sy = int(x), int(y)
    if 0 <= sx < LIGHT_SIZE and 0 <= sy < LIGHT_SIZE:
        fall = np.float32(60) * max(np.float32(0), np.float32(1) - v * np.float32(0.11))
        at = sy * LIGHT_SIZE + sx
        return light[at, 0] * fall, light[at, 1] * fall, light[at, 2] * fall
    return np.float32(0), np.float32(0), np.float32(0)


@inlined
def facade_run(x0, x1, slot, focal, origin, row, paint, slots, semantic, at):  # type: ignore[no-untyped-def]
    """Pixels x0..x1-1 of a row that show one wall."""
    look, frame, facade = paint.look, slots.frame, paint.facade
    tx, ty, u0, z0 = frame[slot, 0], frame[slot, 1], frame[slot, 2], frame[slot, 3]
    key, klass = slots.label[slot, 3], slots.label[slot, 1]
    base = np.uint64((key & 255) * TILE_TEXELS)
    night, p_lit = look[21] > np.float32(0), np.uint32(look[22] * np.float32(65535))
    gx0, gy0 = origin[0] - paint.grid_origin[0], origin[1] - paint.grid_origin[1]
    scale = np.float32(1.0 / 255.0)
    day = np.float32(1) - np.float32(0.6) * look[21]
    gr, gg, gb = look[16] * np.float32(0.55) * day, look[17] * np.float32(0.55) * day, look[18] * np.float32(0.55) * day
    gr, gg, gb = gr * np.float32(2), gg * np.float32(2), gb * np.float32(2)
    per_pixel = np.float32(5) / focal
    row_0, row_1, row_2, row_3, row_5, row_6, row_7 = row[0], row[1], row[2], row[3], row[5], row[6], row[7]
    for x in range(x0, x1):
        u = tx * row_1[x] + ty * row_2[x] + u0
        v = row_3[x] + z0
        iu = np.uint32(np.int32(u * np.float32(5) + np.float32(8192)))
        iv = np.uint32(np.int32(max(v, np.float32(0)) * np.float32(5)))
        c = _texel(facade, base, iu, iv, _level_of(row_0[x] * per_pixel))
        glass = np.float32(np.int32(c >> np.uint32(24))) * scale
        tr = np.float32(np.int32(c & np.uint32(255))) * scale
        tg = np.float32(np.int32((c >> np.uint32(8)) & np.uint32(255))) * scale
        tb = np.float32(np.int32((c >> np.uint32(16)) & np.uint32(255))) * scale
        r, g, b = slots.rgb[slot, 0], slots.rgb[slot, 1], slots.rgb[slot, 2]
        if night:
            add_r, add_g, add_b = _lamp_light(paint.light, row_1[x] + gx0, row_2[x] + gy0, v)
            r, g, b = r + add_r, g + add_g, b + add_b
        r, g, b = (r + (gr - r) * glass) * tr, (g + (gg - g) * glass) * tg, (b + (gb - b) * glass) * tb
        if night and glass > np.float32(0.3):
            h = _window_hash(iu, iv, np.uint32(key >> 8))
            if (h & np.uint32(65535)) < p_lit:
                warm = np.float32((h >> np.uint32(16)) & np.uint32(255)) * scale
                power = (np.float32(110) + np.float32(110) * warm) * glass
                r += power
                g += power * (np.float32(0.72) + np.float32(0.2) * warm)
                b += power * (np.float32(0.35) + np.float32(0.45) * warm)
        row_5[x], row_6[x], row_7[x] = r, g, b
        semantic[at + x] = klass
