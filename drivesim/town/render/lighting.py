"""Light on the ground around the cameras: sun shadows (0.25 m cells) and lamp light at night (1 m cells).

Both grids are rewritten for each call and follow the cameras, so they fit the second-level cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit

SIZE = 512
PER_M = 4.0
LIGHT = 128
REACH_M = SIZE / PER_M / 2


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_quad(grid, q, bit):  # type: ignore[no-untyped-def]
    """Or `bit` into the cells of a convex quad (4, 2) in cell units."""
    low, high = q[0, 1], q[0, 1]
    for i in range(1, 4):
        low, high = min(low, q[i, 1]), max(high, q[i, 1])
    if high <= 0.0 or low >= SIZE:
        return
    for y in range(int(max(low, 0.0)), int(min(high, SIZE - 1.0)) + 1):
        left, right = 1e9, -1e9
        fy = float(y)
        for i in range(4):
            j = (i + 1) & 3
            y0, y1 = q[i, 1], q[j, 1]
            if (y0 <= fy < y1) or (y1 <= fy < y0):
                x = q[i, 0] + (fy - y0) * (q[j, 0] - q[i, 0]) / (y1 - y0)
                left, right = min(left, x), max(right, x)
        if left >= right or right <= 0.0 or left >= SIZE:
            continue
        for x_cell in range(int(max(left, 0.0) + 0.999), int(min(right, SIZE - 1.0)) + 1):
            grid[y * SIZE + x_cell] |= bit


@njit(cache=True, nogil=True, error_model="numpy")
def cast_box(grid, x, y, cos, sin, half_length, half_width, from_m, to_m, shift_x, shift_y, bit):  # type: ignore[no-untyped-def]
    """Shadow of an upright box between two heights; x, y in metres from the grid's corner, shift per metre."""
    base = np.empty((4, 2))
    q = np.empty((4, 2))
    for i in range(4):
        a = half_length if i == 0 or i == 3 else -half_length
        b = half_width if i < 2 else -half_width
        base[i, 0] = (x + cos * a - sin * b + shift_x * from_m) * PER_M
        base[i, 1] = (y + sin * a + cos * b + shift_y * from_m) * PER_M
    ox, oy = shift_x * (to_m - from_m) * PER_M, shift_y * (to_m - from_m) * PER_M
    _fill_quad(grid, base, bit)
    for i in range(4):
        q[i, 0], q[i, 1] = base[i, 0] + ox, base[i, 1] + oy
    _fill_quad(grid, q, bit)
    for i in range(4):
        j = (i + 1) & 3
        q[0, 0], q[0, 1] = base[i, 0], base[i, 1]
        q[1, 0], q[1, 1] = base[j, 0], base[j, 1]
        q[2, 0], q[2, 1] = base[j, 0] + ox, base[j, 1] + oy
        q[3, 0], q[3, 1] = base[i, 0] + ox, base[i, 1] + oy
        _fill_quad(grid, q, bit)


@njit(cache=True, nogil=True, error_model="numpy")
def cast_static(grid, corner, casters, chosen, count, shift_x, shift_y):  # type: ignore[no-untyped-def]
    """Shadows of scenery; casters (n, 8): x, y, yaw cos, sin, half length, half width, from, to."""
    for k in range(count):
        c = casters[chosen[k]]
        x, y = c[0] - corner[0], c[1] - corner[1]
        cast_box(grid, x, y, c[2], c[3], c[4], c[5], c[6], c[7], shift_x, shift_y, np.uint8(1))


@njit(cache=True, nogil=True, error_model="numpy")
def cast_actors(grid, corner, kind, xyz, rotation, half_size, shift_x, shift_y, sunny):  # type: ignore[no-untyped-def]
    """Shadows of vehicles, walkers and props near the grid; bit 4 is the dark under them in any weather."""
    for i in range(kind.shape[0]):
        if kind[i] == 0:
            continue
        x, y = xyz[i, 0] - corner[0], xyz[i, 1] - corner[1]
        if not (-10.0 < x < 2 * REACH_M + 10.0 and -10.0 < y < 2 * REACH_M + 10.0):
            continue
        cos, sin = np.cos(rotation[i, 2]), np.sin(rotation[i, 2])
        a, b, h = half_size[i, 0], half_size[i, 1], 2.0 * half_size[i, 2]
        if a > 0.6:
            cast_box(grid, x, y, cos, sin, a * 1.0, b * 1.0, 0.0, 0.0, 0.0, 0.0, np.uint8(4))
        if not sunny:
            continue
        if kind[i] == 2:
            cast_box(grid, x, y, cos, sin, 0.18, 0.26, 0.0, h * 0.82, shift_x, shift_y, np.uint8(2))
            cast_box(grid, x, y, cos, sin, 0.10, 0.10, h * 0.80, h, shift_x, shift_y, np.uint8(2))
        elif a > 1.4 and h < 2.3:
            cast_box(grid, x, y, cos, sin, a * 0.97, b * 0.90, 0.0, h * 0.6, shift_x, shift_y, np.uint8(2))
            cast_box(
                grid,
                x - cos * a * 0.1,
                y - sin * a * 0.1,
                cos,
                sin,
                a * 0.55,
                b * 0.75,
                h * 0.6,
                h,
                shift_x,
                shift_y,
                np.uint8(2),
            )
        else:
            cast_box(grid, x, y, cos, sin, a * 0.97, b * 0.92, 0.0, h, shift_x, shift_y, np.uint8(2))


@njit(cache=True, nogil=True, error_model="numpy")
def add_pools(light, corner, lamps, chosen, count, r, g, b):  # type: ignore[no-untyped-def]
    """Round pools under street lamps (n, 3): x, y, reach in metres."""
    for k in range(count):
        i = chosen[k]
        x, y, reach = lamps[i, 0] - corner[0] - 0.5, lamps[i, 1] - corner[1] - 0.5, lamps[i, 2]
        inv = 1.0 / (reach * reach)
        for row in range(max(int(y - reach), 0), min(int(y + reach) + 2, LIGHT)):
            for column in range(max(int(x - reach), 0), min(int(x + reach) + 2, LIGHT)):
                q = 1.0 - ((column - x) ** 2 + (row - y) ** 2) * inv
                if q > 0.0:
                    power = np.float32(q * q * q)
                    at = row * LIGHT + column
                    light[at, 0] += r * power
                    light[at, 1] += g * power
                    light[at, 2] += b * power


@njit(cache=True, nogil=True, error_model="numpy")
def add_headlights(light, corner, kind, xyz, rotation, half_size, lamps, all_on, gain):  # type: ignore[no-untyped-def]
    """Cones of low beams, and the red behind brakes."""
    for i in range(kind.shape[0]):
        if kind[i] != 1 or not (all_on or (lamps[i] & np.uint32(6))):
            continue
        cos, sin = np.cos(rotation[i, 2]), np.sin(rotation[i, 2])
        x, y = xyz[i, 0] - corner[0] - 0.5 + cos * half_size[i, 0], xyz[i, 1] - corner[1] - 0.5 + sin * half_size[i, 0]
        middle_x, middle_y, reach = x + cos * 13.0, y + sin * 13.0, 15.0
        if not (-reach < middle_x < LIGHT + reach and -reach < middle_y < LIGHT + reach):
            continue
        for row in range(max(int(middle_y - reach), 0), min(int(middle_y + reach) + 2, LIGHT)):
            for column in range(max(int(middle_x - reach), 0), min(int(middle_x + reach) + 2, LIGHT)):
                dx, dy = column - x, row - y
                ahead, side = dx * cos + dy * sin, -dx * sin + dy * cos
                if ahead <= 0.0 or ahead > 28.0:
                    continue
                spread = 1.2 + 0.22 * ahead
                across = 1.0 - (side * side) / (spread * spread)
                if across > 0.0:
                    fade = 1.0 - ahead / 28.0
                    rise = min(1.0, 0.35 + ahead * 0.12)
                    power = np.float32(gain * across * fade * fade * rise)
                    at = row * LIGHT + column
                    light[at, 0] += power
                    light[at, 1] += power * np.float32(0.96)
                    light[at, 2] += power * np.float32(0.84)
