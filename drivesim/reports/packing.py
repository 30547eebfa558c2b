"""Small numbers for a self-contained page: quantised, delta-coded integers and shrunk pictures."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def deltas(values: NDArray[Any], per_unit: float) -> list[int]:
    """Quantise (n,) to 1 / per_unit and keep the first value and the differences: short in JSON, exact to add up."""
    if len(values) == 0:
        return []
    steps = np.rint(np.nan_to_num(np.asarray(values, np.float64)) * per_unit).astype(np.int64)
    return [int(steps[0]), *np.diff(steps).tolist()]


def path_deltas(points: NDArray[Any], per_m: float) -> list[list[int]]:
    """(n, 2) points to [x deltas, y deltas]."""
    return [deltas(points[:, 0], per_m), deltas(points[:, 1], per_m)]


def rounded(values: dict[str, float], digits: int = 4) -> dict[str, float]:
    """Finite values only, shortened."""
    return {key: round(float(value), digits) for key, value in values.items() if np.isfinite(value)}


def thin(n: int, most: int) -> NDArray[np.int64]:
    """At most `most` indices out of n, evenly spread, first and last kept."""
    if n <= most:
        return np.arange(n)
    return np.unique(np.rint(np.linspace(0, n - 1, most)).astype(np.int64))


RING_ROWS = ((1, 0, 2), (4, 3, 5))  # front left, front, front right over back left, back, back right


def ring_rows(strip: Image.Image) -> Image.Image:
    """Six cameras side by side, in the order of the ring rig, to two rows of three; anything else stays as it is."""
    if strip.width < 6 * strip.height:
        return strip
    width, height = strip.width // 6, strip.height
    sheet = Image.new("RGB", (3 * width, 2 * height))
    for row, cameras in enumerate(RING_ROWS):
        for column, camera in enumerate(cameras):
            sheet.paste(strip.crop((camera * width, 0, (camera + 1) * width, height)), (column * width, row * height))
    return sheet


def shrink_jpeg(jpeg: bytes, width_px: int, quality: int) -> bytes:
    """Encode again, a ring of cameras in two rows, at most `width_px` wide."""
    with Image.open(io.BytesIO(jpeg)) as image:
        picture = ring_rows(image.convert("RGB"))
    if picture.width > width_px:
        picture = picture.resize(
            (width_px, max(1, round(picture.height * width_px / picture.width))), Image.Resampling.BOX
        )
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


def fit_jpegs(jpegs: list[bytes], budget_bytes: int) -> list[str]:
    """Base64 of all pictures within a budget: sharper where there is room, smaller where there is none."""
    for width_px, quality in ((900, 80), (768, 72), (640, 65), (512, 58), (400, 50), (300, 42)):
        # Two in the middle tell the size of all: pictures of one drive are alike.
        probe = jpegs[len(jpegs) // 3 :: max(1, len(jpegs) // 3)][:3]
        size = np.mean([len(shrink_jpeg(jpeg, width_px, quality)) for jpeg in probe]) if probe else 0.0
        if size * len(jpegs) * 4 / 3 <= budget_bytes:
            break
    return [base64.b64encode(shrink_jpeg(jpeg, width_px, quality)).decode() for jpeg in jpegs]
