# mypy: disable-error-code="untyped-decorator,assignment,operator,call-overload"
"""Halos around lamps at night: added to finished pixels where the lamp itself is not hidden."""

from __future__ import annotations

import numpy as np

from drivesim.town.render.kernels import kernel

REACH_M = 90.0


@kernel
def _add_halo(pixels, width, height, px, py, radius, r, g, b):  # type: ignore[no-untyped-def]
    """Add a soft disc to packed BGRA pixels."""
    inverse = np.float32(1) / (radius * radius)
    for row in range(max(np.int64(py - radius), 0), min(np.int64(py + radius) + 1, height)):
        for column in range(max(np.int64(px - radius), 0), min(np.int64(px + radius) + 1, width)):
            dx, dy = np.float32(column) - px, np.float32(row) - py
            share = np.float32(1) - (dx * dx + dy * dy) * inverse
            if share <= np.float32(0):
                continue
            share *= share * share
            at = row * width + column
            old = pixels[at]
            blue = min(np.int64(old & np.uint32(255)) + np.int64(b * share), 255)
            green = min(np.int64((old >> np.uint32(8)) & np.uint32(255)) + np.int64(g * share), 255)
            red = min(np.int64((old >> np.uint32(16)) & np.uint32(255)) + np.int64(r * share), 255)
            pixels[at] = np.uint32(0xFF000000 + red * 65536 + green * 256 + blue)


@kernel
def _halo_at(x, y, z, size_m, r, g, b, axes, lens, depth, pixels):  # type: ignore[no-untyped-def]
    """Halo of a lamp at x, y, z from the camera, if its pixel is as deep as the lamp."""
    cz = axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z
    if cz < np.float32(1.0) or cz > np.float32(REACH_M):
        return
    over = lens[0] / cz
    px = lens[1] + (axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z) * over
    py = lens[2] + (axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z) * over
    width, height = np.int64(lens[3]), np.int64(lens[4])
    if px < np.float32(0) or py < np.float32(0) or px >= lens[3] - np.float32(1) or py >= lens[4] - np.float32(1):
        return
    if depth[np.int64(py + np.float32(0.5)) * width + np.int64(px + np.float32(0.5))] < cz - np.float32(0.45):
        return
    radius = min(max(size_m * over, np.float32(2.5)), lens[4] * np.float32(0.14))
    fade = np.float32(1) - np.float32(0.5) * cz / np.float32(REACH_M)
    _add_halo(pixels, width, height, px, py, radius, r * fade, g * fade, b * fade)


@kernel
def draw_halos(  # type: ignore[no-untyped-def]
    lamp_top, order, count, static, light_state, actors, half_size, hide, origin, axes, lens, depth, pixels, power
):
    """Street lamps, lit signal lenses, head and tail lamps of one view."""
    f = np.float32
    for i in range(lamp_top.shape[0]):
        x, y = lamp_top[i, 0] - origin[0], lamp_top[i, 1] - origin[1]
        if abs(x) < REACH_M and abs(y) < REACH_M:
            _halo_at(
                f(x),
                f(y),
                f(lamp_top[i, 2] - origin[2]),
                f(0.9),
                f(120) * power,
                f(98) * power,
                f(62) * power,
                axes,
                lens,
                depth,
                pixels,
            )
    for k in range(count):
        i = order[k]
        light = static.signal[i]
        if light < 0 or light >= light_state.shape[0] or light_state[light] > 2:
            continue
        state = light_state[light]
        fx, fy = static.rotation[i, 0], static.rotation[i, 3]
        x, y = f(static.position[i, 0] + 0.3 * fx - origin[0]), f(static.position[i, 1] + 0.3 * fy - origin[1])
        if x * fx + y * fy < f(0) and abs(x) < f(REACH_M) and abs(y) < f(REACH_M):
            lift = f(0.40) if state == 0 else f(0.0) if state == 1 else f(-0.40)
            red, green = f(110) if state < 2 else f(12), f(14) if state == 0 else f(100)
            _halo_at(
                x,
                y,
                f(static.position[i, 2] - origin[2]) + lift,
                f(0.55),
                red * power,
                green * power,
                f(10) if state < 2 else f(60),
                axes,
                lens,
                depth,
                pixels,
            )
    for i in range(actors.mesh.shape[0]):
        if actors.mesh[i] < 0 or i == hide or (actors.lamps[i] & np.uint32(3)) == np.uint32(0):
            continue
        fx, fy = actors.rotation[i, 0], actors.rotation[i, 3]
        x, y = f(actors.position[i, 0] - origin[0]), f(actors.position[i, 1] - origin[1])
        if abs(x) > f(REACH_M) or abs(y) > f(REACH_M):
            continue
        z = f(actors.position[i, 2] - origin[2]) + f(0.66)
        long, wide = f(half_size[i, 0]), f(half_size[i, 1]) * f(0.74)
        front = (x + fx * long) * fx + (y + fy * long) * fy < f(0)
        way = long if front else -long
        for side in range(-1, 2, 2):
            px, py = x + fx * way - fy * wide * f(side), y + fy * way + fx * wide * f(side)
            if front and actors.lamps[i] & np.uint32(1):
                _halo_at(px, py, z, f(0.5), f(130) * power, f(124) * power, f(104) * power, axes, lens, depth, pixels)
            elif not front:
                _halo_at(px, py, z, f(0.35), f(90) * power, f(8) * power, f(6) * power, axes, lens, depth, pixels)
