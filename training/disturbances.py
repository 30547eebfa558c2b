"""Pictures and calibration made worse on purpose, untold: what an encoder is to recognise a moment through.

Specks, grey values' noise, exposure, and cameras that do not stand where they are said to. They resemble none of what
`eval.noise` judges with in shape or make: no ellipses, no streaks, noise that knows nothing of brightness.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
NOISE_GREY = 22.0  # the largest standard deviation
SPECKS = 28  # the most in one picture
TURN_DEG, SHIFT_M = 3.0, 0.08  # standard deviations of a knocked camera


def disturb(views: Images, cameras: NDArray[np.float32], share: float, rng: np.random.Generator) -> None:
    """Disturb a share of the rows, in place; each gets one or two of the four kinds.

    Args:
        views: (k, v, h, w, 3).
        cameras: (k, v, 3, 4) ego_from_camera, as the encoder is told.
    """
    chosen = np.flatnonzero(rng.random(len(views)) < share)
    for row in chosen:
        for kind in rng.choice(4, 1 + int(rng.random() < 0.3), replace=False):
            if kind == 0:
                specks(views[row], rng)
            elif kind == 1:
                grain(views[row], rng)
            elif kind == 2:
                exposure(views[row], rng)
            else:
                cameras[row] = knocked(cameras[row], rng)


def specks(images: Images, rng: np.random.Generator) -> None:
    """Small boxes of any colour, some see-through, on every picture (v, h, w, 3)."""
    height, width = images.shape[1:3]
    for image in images:
        for _ in range(int(rng.integers(2, SPECKS + 1))):
            w, h = np.maximum(1, np.round(np.clip(rng.lognormal(np.log(0.03 * width), 0.7, 2), 1, 0.16 * width)))
            x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
            part = image[max(0, y - int(h) // 2) : y + int(h + 1) // 2, max(0, x - int(w) // 2) : x + int(w + 1) // 2]
            alpha, color = rng.uniform(0.5, 1.0), rng.uniform(0, 255, 3)
            part[:] = (part * (1.0 - alpha) + alpha * color).astype(np.uint8)


@lru_cache(1)
def noise_bank() -> NDArray[np.float32]:
    """Four million normal numbers: enough to read from anywhere, much faster than to throw again."""
    return np.random.default_rng(5).standard_normal(1 << 22, np.float32)


def grain(images: Images, rng: np.random.Generator) -> None:
    """Normal noise on every grey value, the same strength everywhere."""
    bank, size = noise_bank(), images[0].size
    for image in images:
        first = int(rng.integers(0, len(bank) - size))
        noise = bank[first : first + size].reshape(image.shape) * np.float32(rng.uniform(2.0, NOISE_GREY))
        image[:] = np.clip(image + noise, 0, 255).astype(np.uint8)


def exposure(images: Images, rng: np.random.Generator) -> None:
    """Brightness, contrast and gamma of all pictures alike, and a tint."""
    grey = np.arange(256, dtype=np.float32) / 255.0
    gain, gamma, lift = rng.uniform(0.6, 1.5), np.exp(rng.normal(0.0, 0.25)), rng.normal(0.0, 0.04)
    for channel in range(3):
        curve = np.clip(lift + gain * rng.uniform(0.9, 1.1) * grey**gamma, 0.0, 1.0)
        images[..., channel] = (255.0 * curve).astype(np.uint8)[images[..., channel]]


def knocked(cameras: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Calibration (v, 3, 4) that is wrong by a few degrees and centimetres, each camera's own way."""
    turns = np.radians(TURN_DEG) * rng.standard_normal((len(cameras), 3)) / np.sqrt(3.0)
    x, y, z = turns.T
    o = np.zeros(len(cameras))
    skew = np.stack([o, -z, y, z, o, -x, -y, x, o], 1).reshape(-1, 3, 3)
    rotation = np.eye(3) + skew + 0.5 * skew @ skew  # to the second order: the angles are small
    shift = SHIFT_M * rng.standard_normal((len(cameras), 3)) / np.sqrt(3.0)
    out = cameras.copy()
    out[:, :, :3] = rotation @ cameras[:, :, :3]
    out[:, :, 3] += shift
    return out
