# mypy: disable-error-code="untyped-decorator,assignment,operator,call-overload"
"""The colour of a polygon: its material, tint, sun, sky and lamps; one slot each."""

from __future__ import annotations

import numpy as np

from drivesim.town.render.kernels import inlined


@inlined
def _lamp(slots, slot, kind, lamps):  # type: ignore[no-untyped-def]
    """Colour of a lamp that is on; bit 31 says that the brakes are pressed."""
    rgb = slots.rgb
    r, g, b = np.float32(255), np.float32(170), np.float32(40)
    if kind == 8 or kind == 10 or kind == 14:
        r, g, b = np.float32(255), np.float32(250), np.float32(225)
    elif kind == 9:
        boost = np.float32(1.0) if (lamps >> np.uint32(31)) & np.uint32(1) else np.float32(0.72)
        r, g, b = np.float32(255) * boost, np.float32(38) * boost, np.float32(30) * boost
    elif kind == 13:
        r, g, b = np.float32(90), np.float32(140), np.float32(255)
    rgb[slot, 0], rgb[slot, 1], rgb[slot, 2] = r, g, b


@inlined
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
            _lamp(slots, slot, kind, things.lamps[i])
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
