# mypy: disable-error-code="untyped-decorator,assignment,operator,call-overload"
"""Rain streaks drawn over a finished picture."""

from __future__ import annotations

import numpy as np

from drivesim.town.render.kernels import kernel


@kernel
def draw_rain(pixels, width, amount, lean, seed):  # type: ignore[no-untyped-def]
    """Blend short slanted streaks into packed BGRA pixels (h * w,); `lean` columns to the left per row; their
    places follow `seed`.
    """
    height = pixels.shape[0] // width
    h = np.uint32(np.uint32(seed) ^ np.uint32(0x5BD1E995)) | np.uint32(1)
    for _ in range(int(amount * np.float32(width * height) / np.float32(260))):
        h = np.uint32(h ^ np.uint32(h << np.uint32(13)))
        h = np.uint32(h ^ np.uint32(h >> np.uint32(17)))
        h = np.uint32(h ^ np.uint32(h << np.uint32(5)))
        x = np.int64(h % np.uint32(width))
        y = np.int64(np.uint32(h >> np.uint32(9)) % np.uint32(height))
        length = 3 + np.int64(np.uint32(h >> np.uint32(5)) & np.uint32(7)) * height // 144
        alpha = 28 + np.int64(np.uint32(h >> np.uint32(20)) & np.uint32(31))
        for k in range(length):
            row, column = y + k, x - np.int64(np.float32(k) * lean)
            if row >= height or column < 0:
                break
            at = row * width + column
            old = pixels[at]
            new = np.uint32(0xFF000000)
            for shift in range(0, 24, 8):
                value = np.int64(np.uint32(old >> np.uint32(shift)) & np.uint32(255))
                value += max(min(value + 90, 200) - value, 0) * alpha // 90
                new = np.uint32(new | np.uint32(np.uint32(value) << np.uint32(shift)))
            pixels[at] = new
