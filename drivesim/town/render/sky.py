"""Textures made from noise: the octahedral sky with sun and clouds, the grain of surfaces, the facades."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from drivesim.town.render.appearance import Appearance, sky_colors
from drivesim.town.render.shading import SKY_SIZE

FACADE_TILES = 12


def noise_image(size: int, cell: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth value noise (size, size) in 0..1 that repeats at its edges."""
    coarse = rng.random((size // cell, size // cell))
    return np.asarray(
        ndimage.zoom(np.pad(coarse, 3, mode="wrap"), cell, order=3, mode="nearest", grid_mode=True)[
            3 * cell : 3 * cell + size, 3 * cell : 3 * cell + size
        ]
    )


def detail_image(seed: int) -> NDArray[np.uint8]:
    """The surface grain (128 * 128,) around 128."""
    rng = np.random.default_rng(seed)
    mixed = 0.55 * rng.standard_normal((128, 128)) + 0.9 * (noise_image(128, 4, rng) - 0.5) * 3.0
    return np.clip(128 + 38 * mixed, 0, 255).astype(np.uint8).ravel()


@lru_cache(maxsize=64)  # the costly part of dressing a look; training draws from a pool of looks
def sky_image(a: Appearance) -> NDArray[np.uint32]:
    """The upper half of the sky: r | g << 8 | b << 16, (SKY_SIZE ** 2,)."""
    n = SKY_SIZE
    grid = (np.arange(n) - (n // 2 - 1)) / (n // 2 - 1)
    plus, minus = np.meshgrid(grid, grid)
    px, py = (plus + minus) / 2, (plus - minus) / 2
    pz = np.maximum(1.0 - np.abs(px) - np.abs(py), 0.0)
    norm = np.sqrt(px**2 + py**2 + pz**2) + 1e-9
    x, y, z = px / norm, py / norm, pz / norm
    zenith, horizon, halo = sky_colors(a)
    rise = 1.0 - (1.0 - np.clip(z, 0, 1)) ** 4.0
    color = horizon + (zenith - horizon) * rise[..., None]
    c, s = np.cos(a.sun_altitude_rad), np.sin(a.sun_altitude_rad)
    near_sun = x * c * np.cos(a.sun_azimuth_rad) + y * c * np.sin(a.sun_azimuth_rad) + z * s
    low = float(np.clip(1.0 - a.sun_altitude_rad / 0.5, 0.0, 1.0))
    wide = np.clip(near_sun, 0, 1) ** (4 + 20 * (1 - low)) * (0.25 + 0.4 * low) + np.clip(near_sun, 0, 1) ** 160 * 0.55
    if a.mie != 1.0:
        wide = wide * min(a.mie, 2.5)
    color = color + (halo - color) * np.clip(wide, 0, 1)[..., None] * (0.0 if a.night >= 1 else 1.0)
    color = _clouds(a, color, x, y, z, near_sun, halo, horizon)
    disc = np.clip((near_sun - 0.9990) / 0.0006, 0, 1) * (1.0 - min(1.0, a.cloud * 1.2)) * (a.sun_altitude_rad > -0.05)
    color = color + (np.array([255.0, 250.0, 232.0]) - color) * disc[..., None]
    if a.night > 0.5 and a.cloud < 0.6:
        rng = np.random.default_rng(a.seed + 11)
        stars = (rng.random((n, n)) > 0.9985) * (z > 0.05) * rng.uniform(30, 120, (n, n)) * a.night
        color = color + stars[..., None]
    out = np.clip(color * np.asarray(a.white_balance) * a.exposure, 0, 255).astype(np.uint32)
    return np.asarray((out[..., 0] | out[..., 1] << 8 | out[..., 2] << 16).astype(np.uint32).ravel())


def _clouds(
    a: Appearance,
    color: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
    near_sun: NDArray[np.float64],
    halo: NDArray[np.float64],
    horizon: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Flat-bottomed cumulus from noise on a plane above the town."""
    if a.cloud < 0.02:
        return color
    rng = np.random.default_rng(a.seed + 7)
    field = 0.55 * noise_image(256, 32, rng) + 0.28 * noise_image(256, 16, rng) + 0.17 * noise_image(256, 8, rng)
    field = (field - field.min()) / (np.ptp(field) + 1e-9)
    reach = 1.0 / (z + 0.14)
    u, v = x * reach * 62 + 128, y * reach * 62 + 128
    if a.gale > 0:  # wind along x draws the clouds out into streaks
        u = u / (1.0 + 3.0 * a.gale)
        v = v * (1.0 + 0.6 * a.gale)
    value = ndimage.map_coordinates(field, [v, u], order=1, mode="grid-wrap")
    edge = 0.80 - 0.62 * a.cloud
    density = np.clip((value - edge) / 0.24, 0, 1) * np.clip(z * 9, 0, 1) * min(1.0, 0.35 + a.cloud)
    level = float(horizon @ [0.30, 0.59, 0.11])
    bright = (horizon * 0.55 + np.full(3, level) * 0.5) * (1.08 - 0.26 * a.cloud) + halo * 0.16 * (
        np.clip(near_sun, 0, 1) ** 3
    )[..., None]
    shade = bright * (1.0 - 0.22 * np.clip((value - edge) / 0.6, 0, 1))[..., None]
    return np.asarray(color + (shade - color) * (density * 0.85)[..., None])


def facade_atlas() -> NDArray[np.uint32]:
    """FACADE_TILES wall tiles of 64 x 64 texels (12.8 m) with four coarser levels each, flat.

    Rows 0-15 are the ground floor, then three upper floors; the top byte says how much of a texel is glass.
    """
    out = []
    for tile in range(FACADE_TILES):
        image = _facade(tile)
        for _ in range(5):
            flat = np.clip(image, 0, 255).astype(np.uint32)
            out.append((flat[..., 0] | flat[..., 1] << 8 | flat[..., 2] << 16 | flat[..., 3] << 24).ravel())
            image = image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2, 4).mean(axis=(1, 3))
    return np.concatenate(out).astype(np.uint32)


def _facade(tile: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(100 + tile)
    image = np.zeros((64, 64, 4))
    wall = 235 + 14 * rng.standard_normal((64, 64, 1))
    style = tile % 6
    if style in (0, 3):  # brick courses
        wall[::2] -= 16
        wall += 10 * rng.standard_normal((64, 64, 1))
    image[..., :3] = wall
    if style in (1, 4):  # bands between the floors
        image[15::16, :, :3] -= 46
        image[0::16, :, :3] += 10
    bays = (4, 4, 2, 4, 8, 1)[style]
    width = (7, 9, 24, 6, 5, 62)[style] + (tile >= 6) * (1 if style != 5 else 0)
    low, high = ((4, 13), (4, 13), (5, 12), (3, 13), (4, 13), (3, 14))[style]
    for floor in range(4):
        for bay in range(bays):
            middle = int((bay + 0.5) * 64 / bays)
            u0, u1 = middle - width // 2, middle - width // 2 + width
            a, b = (low, high) if floor else ((1, 11) if style in (0, 1, 4) else (1, 13))
            if floor == 0 and style in (0, 1, 3) and bay % 2 == 0:
                u0, u1 = max(u0 - 2, 0), min(u1 + 2, 63)
            _window(image, u0, u1, floor * 16 + a, floor * 16 + b, rng)
    if style == 5:
        for mullion in range(0, 64, 8):
            image[:, mullion, :3], image[:, mullion, 3] = 150, 0
    if style in (0, 1, 3):  # a band over the shops, doors
        image[13:16, :, :3] = np.array([150, 120, 96]) + rng.uniform(-40, 40, 3)
        image[13:16, :, 3] = 0
    if style == 2:
        image[:4, 30:36, :3], image[:11, 30:36, 3] = 96, 0
        image[:11, 30:36, :3] = 110
    return image


def _window(image: NDArray[np.float64], u0: int, u1: int, v0: int, v1: int, rng: np.random.Generator) -> None:
    """Glass with a light sill and frame, a little different from pane to pane."""
    image[v0 - 1, max(u0 - 1, 0) : u1 + 1, :3] += 16
    glass = np.array([84.0, 92.0, 100.0]) * rng.uniform(0.65, 1.15)
    image[v0:v1, u0:u1, :3] = glass
    image[v0:v1, u0:u1, 3] = 255
    if u1 - u0 > 5:
        image[v0:v1, (u0 + u1) // 2, :3], image[v0:v1, (u0 + u1) // 2, 3] = 190, 60
    if rng.random() < 0.35:
        image[v1 - 3 : v1, u0:u1, :3] = 170 + rng.uniform(-30, 30)
        image[v1 - 3 : v1, u0:u1, 3] = 110
