# mypy: disable-error-code="untyped-decorator,assignment,operator,call-overload"
"""Polygons on the screen: clipping, a z-buffer of 1/z, and a coarse copy of it that tells what is hidden.

The coarse copy holds, per tile of TILE_W x TILE_H pixels, the least 1/z, as it was at the last `look_again`; what is
drawn since can only be nearer. So what lies behind it everywhere cannot change a pixel.
"""

from __future__ import annotations

import numpy as np

from drivesim.town.render.kernels import inlined, kernel

TILE_W, TILE_H = 16, 8


@inlined
def look_again(s, width, height):  # type: ignore[no-untyped-def]
    """Bring the coarse copy up to date."""
    inverse_z, coarse, line = s.inverse_z, s.coarse, s.row[0]
    columns = (width + 15) // 16
    for tile_row in range((height + 7) // 8):
        first, last = tile_row * 8, min(tile_row * 8 + 8, height)
        start = np.uint64(first * width)
        for x in range(np.uint64(width)):
            line[x] = inverse_z[start + x]
        for y in range(first + 1, last):
            start = np.uint64(y * width)
            for x in range(np.uint64(width)):
                z = inverse_z[start + x]
                line[x] = z if z < line[x] else line[x]
        for column in range(columns):
            least = line[column * 16]
            for x in range(column * 16 + 1, min(column * 16 + 16, width)):
                least = min(least, line[x])
            coarse[tile_row * columns + column] = least


@inlined
def hidden(coarse, left, top, right, bottom, width, nearest):  # type: ignore[no-untyped-def]
    """Whether nothing as far as 1/z = `nearest` shows in columns left..right and rows top..bottom (inclusive)."""
    columns = (width + 15) // 16
    for tile_row in range(top // 8, bottom // 8 + 1):
        for column in range(left // 16, right // 16 + 1):
            if coarse[tile_row * columns + column] < nearest:
                return False
    return True


@inlined
def hidden_box(coarse, left, top, right, bottom, width, height, nearest):  # type: ignore[no-untyped-def]
    """The same for bounds in pixels as numbers with fractions, one pixel wider; True where it is off the screen."""
    one, zero = np.float32(1), np.float32(0)
    x1, y1 = min(right + one, np.float32(width - 1)), min(bottom + one, np.float32(height - 1))
    x0, y0 = max(left - one, zero), max(top - one, zero)
    if x0 > x1 or y0 > y1:
        return True
    return hidden(coarse, np.int64(x0), np.int64(y0), np.int64(x1), np.int64(y1), width, nearest)


@inlined
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


@inlined
def _edges(n, ring, first, last, height, s):  # type: ignore[no-untyped-def]
    """Leftmost and rightmost crossing of the ring per row."""
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


@inlined
def _nearest(a, b, c, x0, y0, x1, y1):  # type: ignore[no-untyped-def]
    """The greatest 1/z that any pixel of a rectangle gets: rounding is monotone, so it is a corner's."""
    top, bottom = c + b * np.float32(y0), c + b * np.float32(y1)
    left, right = a * np.float32(x0), a * np.float32(x1)
    return max(max(top + left, top + right), max(bottom + left, bottom + right))


@inlined
def fill_convex(n, ring, a, b, c, slot, width, height, s):  # type: ignore[no-untyped-def]
    """Z-buffer one convex polygon whose 1/z is a x + b y + c; the number of pixels whose centres it covers.

    0 also where all of it is known to be hidden.
    """
    low, high, lowest_x, highest_x = ring[0, 4], ring[0, 4], ring[0, 3], ring[0, 3]
    for i in range(1, n):
        x, y = ring[i, 3], ring[i, 4]
        low, high = min(low, y), max(high, y)
        lowest_x, highest_x = min(lowest_x, x), max(highest_x, x)
    zero = np.float32(0)
    if high <= zero or low >= np.float32(height) or highest_x <= zero or lowest_x >= np.float32(width):
        return 0
    first, last = ceil_clamped(low, 0, height), ceil_clamped(high, 0, height)
    x_first, x_last = ceil_clamped(lowest_x, 0, width), ceil_clamped(highest_x, 0, width)
    if first >= last or x_first >= x_last:
        return 0
    x_first, x_last = max(x_first - 1, 0), min(x_last, width - 1)  # an edge may round over a corner
    if hidden(s.coarse, x_first, first, x_last, last - 1, width, _nearest(a, b, c, x_first, first, x_last, last - 1)):
        return 0
    _edges(n, ring, first, last, height, s)
    left, right, inverse_z, slots, column = s.left, s.right, s.inverse_z, s.slot, s.column
    covered = 0
    for y_row in range(first, last):
        start, stop = ceil_clamped(left[y_row], 0, width), ceil_clamped(right[y_row], 0, width)
        if start >= stop:
            continue
        covered += stop - start
        base = c + b * np.float32(y_row)
        offset = np.uint64(y_row * width)
        for x_u in range(np.uint64(start), np.uint64(stop)):
            z = base + a * column[x_u]
            if z > inverse_z[offset + x_u]:
                inverse_z[offset + x_u] = z
                slots[offset + x_u] = slot
    return covered


@inlined
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
