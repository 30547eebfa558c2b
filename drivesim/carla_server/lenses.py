"""What a camera's lens and exposure do to a drawn picture. The defaults of CARLA's blueprints do nothing."""

# mypy: disable-error-code="untyped-decorator,no-any-return"
from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.carla_server.actors import ServerActor

Floats = NDArray[np.float64]
NATURAL_SIZE = 0.08  # lens_x_size and lens_y_size at which the lens is round
SHOWN_GAMMA = 2.2
RADII = 4096  # of the distortion's table


@dataclass(frozen=True)
class Lens:
    """Cubic radial distortion that grows towards the rim (attributes `lens_*`).

    A pixel at d from the picture's middle, in shares of its width and height, shows what an undistorted picture
    has at d * (1 + w * (k * r^2 + kcube * r^3)), where r = |d| * 0.08 / lens size and
    w = multiplier * (r / r_corner)^falloff. Where that would fold the picture back, the largest radius is kept.
    CARLA has the distortion in a shader without a published formula; these are its parameters with the meaning of
    their names, and its defaults (multiplier 0) are the pinhole camera.
    """

    k: float
    kcube: float
    falloff: float
    multiplier: float
    size_x: float
    size_y: float

    @staticmethod
    def of(actor: ServerActor) -> Lens | None:
        """Read the attributes; None where the picture is not distorted."""

        def number(name: str, default: float, low: float, high: float) -> float:
            return min(max(actor.number(f"lens_{name}", default), low), high)

        lens = Lens(number("k", -1.0, -100.0, 100.0), number("kcube", 0.0, -100.0, 100.0),
                    number("circle_falloff", 5.0, 0.0, 100.0), number("circle_multiplier", 0.0, 0.0, 1000.0),
                    number("x_size", NATURAL_SIZE, 1e-4, 10.0), number("y_size", NATURAL_SIZE, 1e-4, 10.0))  # fmt: skip
        return lens if lens.multiplier > 0.0 and (lens.k or lens.kcube) else None


@lru_cache(maxsize=16)
def lens_map(lens: Lens, width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Where each pixel looks in the undistorted picture: (h, w, 2) column and row; and the nearest pixel (h * w,)."""
    x = (np.arange(width) + 0.5) / width - 0.5
    y = (np.arange(height) + 0.5) / height - 0.5
    across, down = np.meshgrid(x, y)
    radius = np.hypot(across * NATURAL_SIZE / lens.size_x, down * NATURAL_SIZE / lens.size_y)
    table = np.linspace(0.0, float(radius.max()), RADII + 1)[1:]
    weight = lens.multiplier * (table / math.sqrt(0.5)) ** lens.falloff
    seen = np.maximum.accumulate(table * (1.0 + weight * (lens.k * table**2 + lens.kcube * table**3)))
    stretch = np.interp(radius, table, seen / table)
    column = np.clip((across * stretch + 0.5) * width - 0.5, 0.0, width - 1.0)
    row = np.clip((down * stretch + 0.5) * height - 0.5, 0.0, height - 1.0)
    nearest = np.rint(row).astype(np.intp) * width + np.rint(column).astype(np.intp)
    return np.stack([column, row], axis=-1).astype(np.float32), nearest.ravel()


def distort(values: NDArray[Any], lens: Lens | None) -> NDArray[Any]:
    """Each pixel's nearest value (h, w, ...): for depths, labels, normals, motion."""
    if lens is None:
        return values
    height, width = values.shape[:2]
    flat = values.reshape(height * width, *values.shape[2:])
    return np.ascontiguousarray(flat[lens_map(lens, width, height)[1]].reshape(values.shape))


def distort_picture(bgra: NDArray[np.uint8], lens: Lens | None) -> NDArray[np.uint8]:
    """A picture (h, w, 4), smooth between pixels."""
    if lens is None:
        return bgra
    out = np.empty_like(bgra)
    _blend(bgra, lens_map(lens, bgra.shape[1], bgra.shape[0])[0], out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _blend(bgra, place, out):  # type: ignore[no-untyped-def]
    """Bilinear look-ups."""
    height, width = bgra.shape[:2]
    for y in range(height):
        for x in range(width):
            u, v = place[y, x, 0], place[y, x, 1]
            column, row = min(int(u), width - 2 if width > 1 else 0), min(int(v), height - 2 if height > 1 else 0)
            fu, fv = u - column, v - row
            right, below = min(column + 1, width - 1), min(row + 1, height - 1)
            for c in range(4):
                top = bgra[row, column, c] * (1 - fu) + bgra[row, right, c] * fu
                low = bgra[below, column, c] * (1 - fu) + bgra[below, right, c] * fu
                out[y, x, c] = np.uint8(top * (1 - fv) + low * fv + 0.5)


@dataclass(frozen=True)
class Exposure:
    """Brightness and gamma of a camera.

    `exposure_compensation` brightens by that many stops. In the mode `manual` the stops of aperture, shutter and
    sensitivity count too, against the blueprint's defaults: N^2 * shutter * 100 / iso, with f/1.4, 1/200 s, ISO 100.
    In `histogram` the camera adapts by itself, so they do not. Gamma is what the picture is encoded with.
    """

    stops: float
    gamma: float

    @staticmethod
    def of(actor: ServerActor) -> Exposure | None:
        """Read the attributes; None where the picture stays as it is drawn."""
        stops = actor.number("exposure_compensation", 0.0)
        if actor.value("exposure_mode", "histogram") == "manual":
            aperture = max(actor.number("fstop", 1.4), 0.1)
            shutter, iso = max(actor.number("shutter_speed", 200.0), 1e-3), max(actor.number("iso", 100.0), 1e-3)
            stops -= math.log2(aperture**2 * shutter / iso) - math.log2(1.4**2 * 200.0 / 100.0)
        stops = min(max(stops, -20.0), 20.0)
        gamma = min(max(actor.number("gamma", SHOWN_GAMMA), 0.1), 10.0)
        return None if abs(stops) < 1e-9 and abs(gamma - SHOWN_GAMMA) < 1e-9 else Exposure(stops, gamma)

    def apply(self, bgra: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture (h, w, 4) as this camera shows it."""
        table = _exposed(self)
        shown = table[bgra]
        shown[..., 3] = bgra[..., 3]
        return shown


@lru_cache(maxsize=64)
def _exposed(exposure: Exposure) -> NDArray[np.uint8]:
    """What each of the 256 values becomes."""
    light = (np.arange(256) / 255.0) ** SHOWN_GAMMA * 2.0**exposure.stops
    return np.rint(255.0 * np.clip(light, 0.0, 1.0) ** (1.0 / exposure.gamma)).astype(np.uint8)
