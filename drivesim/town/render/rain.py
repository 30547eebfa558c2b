"""Rain streaks drawn over a finished picture."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def draw_rain(bgra, amount, seed):  # type: ignore[no-untyped-def]
    """Blend short slanted streaks into (h, w, 4); their places follow `seed`."""
    height, width = bgra.shape[0], bgra.shape[1]
    count = int(amount * width * height / 260)
    h = np.uint32(seed) ^ np.uint32(0x5BD1E995)
    for _ in range(count):
        h = np.uint32(h ^ np.uint32(h << np.uint32(13)))
        h = np.uint32(h ^ (h >> np.uint32(17)))
        h = np.uint32(h ^ np.uint32(h << np.uint32(5)))
        x, y = int(h % np.uint32(width)), int((h >> np.uint32(9)) % np.uint32(height))
        length = 3 + int((h >> np.uint32(5)) & np.uint32(7)) * height // 144
        alpha = 28 + int((h >> np.uint32(20)) & np.uint32(31))
        for k in range(length):
            py, px = y + k, x - k // 5
            if py < height and px >= 0:
                for c in range(3):
                    value = int(bgra[py, px, c])
                    bgra[py, px, c] = np.uint8(value + (max(value + 30, 196) - value) * alpha // 255) if value < 196 else np.uint8(value)
