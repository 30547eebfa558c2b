"""How a town looks, apart from what happens in it: light, sky, weather, palettes, camera noise.

Nothing here may change geometry, classes or ids: two appearances of one state share their labels exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drivesim.town.render import ground as materials
from drivesim.town.render import visibility as look
from drivesim.town.render.ground import MATERIALS

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Appearance:
    """One look. Angles in radians (CARLA's frame), colours 0..255, shares 0..1."""

    sun_azimuth_rad: float = 0.8
    sun_altitude_rad: float = 0.8
    cloud: float = 0.2
    rain: float = 0.0
    wet: float = 0.0
    puddles: float = 0.0
    fog_per_m: float = 0.0008
    haze: Color = (190.0, 205.0, 222.0)
    dust: float = 0.0
    lean: float = 0.2  # of rain streaks, columns per row
    gale: float = 0.0  # how far wind draws the clouds out
    fog_low_1pm: float = 0.0  # how fast the fog thins with height; 0: it does not
    fog_glow: float = 1.0  # brightness of fog against what it is usually
    mie: float = 1.0  # light of large particles about the sun against what it is usually: halo and haze
    rayleigh: float = 1.0  # blueness of the sky against what it is usually
    exposure: float = 1.0
    white_balance: Color = (1.0, 1.0, 1.0)
    noise: float = 2.0
    grain: float = 1.0
    asphalt: Color = (78.0, 78.0, 82.0)
    grass: Color = (88.0, 116.0, 56.0)
    sidewalk: Color = (152.0, 148.0, 140.0)
    paint_wear: float = 0.35
    foliage: Color = (70.0, 110.0, 48.0)
    autumn: float = 0.0
    windows_lit: float = 0.45
    shuffle_tints: bool = False
    seed: int = 0

    @property
    def night(self) -> float:
        """0 by day, 1 when the sun is well under the horizon."""
        return float(np.clip((np.deg2rad(3.0) - self.sun_altitude_rad) / np.deg2rad(11.0), 0.0, 1.0))

    @staticmethod
    def from_weather(weather: NDArray[np.float64], seed: int = 0) -> Appearance:
        """The look of CARLA's WeatherParameters (14,), in the wire's order; `seed` picks the town's palette."""
        w = np.asarray(weather, np.float64)
        if w.shape != (14,):
            raise ValueError(f"weather has shape {w.shape}; CARLA's WeatherParameters are (14,)")
        cloud, rain, deposits, wind, azimuth, altitude, fog, fog_from_m, falloff, wetness, scatter, mie, ray, dust = w
        wet = float(np.clip(max(wetness, deposits * 0.8, rain * 0.6) / 100.0, 0.0, 1.0))
        fog_share = float(np.clip(fog / 100.0, 0.0, 1.0))
        density = 0.0007 + 0.035 * fog_share**1.6 / (1.0 + max(float(fog_from_m), 0.0) / 60.0) + 0.0025 * rain / 100.0
        hazy = _times_usual(mie, 0.03, 0.5)
        if hazy > 1.0:
            density += 0.0010 * (hazy - 1.0)
        base = Appearance.palette(np.random.default_rng(seed))
        return replace(
            base, sun_azimuth_rad=float(np.deg2rad(azimuth)), sun_altitude_rad=float(np.deg2rad(altitude)),
            cloud=float(np.clip(cloud / 100.0, 0.0, 1.0)), rain=float(np.clip(rain / 100.0, 0.0, 1.0)), wet=wet,
            puddles=float(np.clip(deposits / 100.0, 0.0, 1.0)), fog_per_m=density,
            dust=float(np.clip(dust / 100.0, 0.0, 1.0)), seed=seed,
            # drops of heavy rain fall faster: wind as strong as the rain gives the usual slant
            lean=float(np.clip(0.2 + 0.008 * (wind - rain), 0.0, 1.0)) if rain > 0 and wind != rain else 0.2,
            gale=float(np.clip((wind - max(10.0, rain, dust)) / 90.0, 0.0, 1.0)),
            # CARLA: up to 1 fog is as dense as air and reaches over houses, from 5 on it lies on the ground
            fog_low_1pm=0.08 * max(float(falloff) - 1.0, 0.0),
            fog_glow=_times_usual(scatter, 1.0, 1.0), mie=hazy, rayleigh=_times_usual(ray, 0.0331, 0.5),
        )  # fmt: skip

    @staticmethod
    def palette(rng: np.random.Generator) -> Appearance:
        """Mild variation of materials around the default; weather untouched."""

        def near(color: Color, spread: float) -> Color:
            gain = 1.0 + rng.uniform(-spread, spread)
            r, g, b = (float(np.clip(c * gain + rng.uniform(-5, 5), 5, 250)) for c in color)
            return (r, g, b)

        d = Appearance()
        return replace(
            d, asphalt=near(d.asphalt, 0.18), grass=near(d.grass, 0.15), sidewalk=near(d.sidewalk, 0.12),
            foliage=near(d.foliage, 0.15), paint_wear=float(rng.uniform(0.1, 0.6)), grain=float(rng.uniform(0.7, 1.3)),
            windows_lit=float(rng.uniform(0.25, 0.6)),
        )  # fmt: skip

    @staticmethod
    def random(rng: np.random.Generator) -> Appearance:
        """A look for training: any hour and weather, other palettes, exposure, noise and tints."""
        base = Appearance.palette(rng)
        hour = rng.choice(["day", "low", "night"], p=[0.62, 0.20, 0.18])
        altitude = {"day": rng.uniform(18, 75), "low": rng.uniform(1, 14), "night": rng.uniform(-40, -6)}[str(hour)]
        cloud = float(rng.beta(0.8, 0.9))
        rain = float(rng.uniform(0.2, 1.0)) if rng.random() < 0.2 else 0.0
        wet = max(rain * 0.8, float(rng.uniform(0.2, 0.9)) if rng.random() < 0.15 else 0.0)
        fog = float(rng.uniform(0.004, 0.03)) if rng.random() < 0.15 else float(rng.uniform(0.0004, 0.0022))
        tone = rng.uniform(0.93, 1.07, 3)
        return replace(
            base,
            sun_azimuth_rad=float(rng.uniform(0, 2 * np.pi)),
            sun_altitude_rad=float(np.deg2rad(altitude)),
            cloud=max(cloud, 0.7 * (rain > 0)),
            rain=rain,
            wet=wet,
            puddles=wet * float(rng.uniform(0, 1)),
            fog_per_m=fog,
            exposure=float(rng.uniform(0.82, 1.2)),
            white_balance=(float(tone[0]), float(tone[1]), float(tone[2])),
            noise=float(rng.uniform(0.5, 5.0)),
            autumn=float(rng.random() ** 3),
            shuffle_tints=True,
            seed=int(rng.integers(1 << 31)),
        )

    def sun_direction(self) -> NDArray[np.float64]:
        """Unit vector to the sun (the moon at night)."""
        altitude = self.sun_altitude_rad if self.night < 0.9 else abs(self.sun_altitude_rad) + 0.3
        c = np.cos(altitude)
        return np.array([c * np.cos(self.sun_azimuth_rad), c * np.sin(self.sun_azimuth_rad), np.sin(altitude)])


def _times_usual(value: float, usual: float, power: float) -> float:
    """A parameter against its usual value, bent and bounded; exactly 1 for the usual one, also as float32."""
    ratio = max(float(value), 0.0) / usual
    return 1.0 if abs(ratio - 1.0) < 1e-4 else float(min(ratio, 16.0) ** power)


def sky_colors(a: Appearance) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Zenith, horizon and glow colours (3,) each, before exposure."""
    altitude = np.rad2deg(a.sun_altitude_rad)
    stops = np.array([-14.0, -5.0, 0.0, 6.0, 16.0, 35.0])
    zenith = np.array([[7, 10, 22], [34, 40, 74], [66, 78, 130], [76, 104, 170], [74, 124, 196], [72, 128, 206]], float)
    horizon = np.array(
        [[16, 19, 34], [106, 74, 84], [232, 150, 96], [238, 188, 140], [206, 214, 220], [188, 210, 230]], float
    )
    glow = np.array(
        [[6, 7, 12], [150, 70, 50], [255, 150, 60], [255, 190, 110], [255, 232, 190], [255, 246, 226]], float
    )

    def at(table: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([np.interp(altitude, stops, table[:, k]) for k in range(3)])

    top, low, halo = at(zenith), at(horizon), at(glow)
    top, low = _scattered(a, top, low)
    grey = 0.34 * top + 0.66 * low
    level = float(grey @ [0.30, 0.59, 0.11]) * (0.95 - 0.16 * a.cloud - 0.10 * a.rain)
    overcast = np.array([0.97, 1.0, 1.05]) * level
    veil = max(0.0, a.cloud - 0.35) / 0.65
    fog = min(1.0, a.fog_per_m * 60.0)
    if a.fog_low_1pm > 0.0:
        fog /= 1.0 + 8.0 * a.fog_low_1pm
    cover = max(veil, 0.8 * fog)
    top = top + (overcast * 0.88 - top) * cover
    low = low + (overcast * 1.06 - low) * cover
    if a.dust > 0:
        low = low + (np.array([196.0, 164.0, 118.0]) * level / 200 - low) * a.dust
    if a.fog_glow != 1.0:
        low = low * (
            1.0
            + float(np.clip(0.35 * (a.fog_glow - 1.0), -0.35, 0.0) + 0.15 * np.clip(a.fog_glow - 1.0, 0.0, 2.0)) * fog
        )
    return top, low, halo * (1.0 - 0.9 * cover)


def _scattered(
    a: Appearance, top: NDArray[np.float64], low: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Zenith and horizon of a clear sky with more or less air (blue, red at low sun) and haze (white) than usual."""
    weights = np.array([0.30, 0.59, 0.11])
    if a.rayleigh != 1.0:
        grey = float(top @ weights)
        top = np.clip(grey + (top - grey) * min(a.rayleigh, 1.7), 0.0, 255.0)
        red = float(np.clip(1.0 - np.rad2deg(a.sun_altitude_rad) / 14.0, 0.0, 1.0)) * min(a.rayleigh - 1.0, 1.0)
        low = np.clip(low * np.array([1.0, 1.0 - 0.22 * red, 1.0 - 0.45 * red]), 0.0, 255.0)
    if a.mie != 1.0:
        white = float(low @ weights) * np.array([1.03, 1.0, 0.96])
        low = low + (white - low) * float(np.clip(0.3 * (a.mie - 1.0), -0.3, 0.7))
        top = top + (white * 0.92 - top) * float(np.clip(0.14 * (a.mie - 1.0), -0.14, 0.5))
    return top, low


def look_row(a: Appearance) -> NDArray[np.float32]:
    """The appearance as the kernels' row of numbers."""
    row = np.zeros(look.LOOK_COLUMNS, np.float32)
    zenith, horizon, _ = sky_colors(a)
    altitude = np.rad2deg(a.sun_altitude_rad)
    veil = max(a.cloud - 0.25, min(1.0, a.fog_per_m * 45.0), 0.0)
    strength = float(np.clip((altitude + 1.0) / 14.0, 0.0, 1.0)) ** 0.6 * (1.0 - 0.93 * min(1.0, veil * 1.25))
    low = float(np.clip(altitude / 30.0, 0.0, 1.0))
    warm = np.array([1.0, 0.62 + 0.34 * low, 0.34 + 0.55 * low])
    direction = a.sun_direction()
    day = float(np.clip((altitude + 9.0) / 20.0, 0.0, 1.0))
    mean_sky = 0.55 * zenith + 0.45 * horizon
    hue = mean_sky / max(float(mean_sky.max()), 1.0)
    tone = np.asarray(a.white_balance) * a.exposure
    grey = float(mean_sky @ [0.30, 0.59, 0.11])
    mirrored = 0.55 * (0.3 * zenith + 0.7 * horizon) + 0.45 * grey
    ambient = (0.17 + 0.46 * day**0.6 + 0.30 * day * min(1.0, veil * 1.25)) * (0.72 + 0.28 * hue)
    moon = np.array([0.06, 0.07, 0.095]) * a.night
    row[[look.SUN_X, look.SUN_Y, look.SUN_Z]] = direction
    row[[look.SUN_R, look.SUN_G, look.SUN_B]] = (warm * strength * 0.92 + moon) * tone
    row[[look.SKY_R, look.SKY_G, look.SKY_B]] = ambient * tone
    row[[look.BOUNCE_R, look.BOUNCE_G, look.BOUNCE_B]] = ambient * tone * np.array([0.66, 0.64, 0.60])
    row[[look.FOG_R, look.FOG_G, look.FOG_B]] = np.clip(horizon * tone, 0, 255)
    row[look.FOG_PER_M] = a.fog_per_m
    row[[look.GLASS_R, look.GLASS_G, look.GLASS_B]] = np.clip(mirrored * tone, 0, 255)
    row[[look.WET, look.PUDDLES, look.NOISE, look.NIGHT]] = a.wet, a.puddles, a.noise * (1.0 + 0.8 * a.night), a.night
    row[[look.WINDOWS_LIT, look.SHADOW, look.RAIN]] = a.windows_lit * a.night, 1.0, a.rain
    land = np.asarray(a.grass) * ambient * 0.35 + horizon * 0.65
    row[[look.FAR_R, look.FAR_G, look.FAR_B]] = np.clip(land * tone, 0, 255)
    row[look.LAMPS_ON] = 1.0 if a.night > 0.05 or a.fog_per_m > 0.012 else 0.0
    row[look.GRAIN] = 0.00085 * a.grain
    row[[look.LEAN, look.FOG_LOW_1PM]] = a.lean, a.fog_low_1pm
    return row


def palette_of(a: Appearance) -> NDArray[np.float32]:
    """Colours of the ground's materials (MATERIALS, 3), darkened by water."""
    road, grass, walk = np.asarray(a.asphalt), np.asarray(a.grass), np.asarray(a.sidewalk)
    worn = 1.0 - a.paint_wear
    out = np.zeros((MATERIALS, 3))
    m = materials
    straw = np.array([150.0, 136.0, 84.0])
    grass = grass + (straw - grass) * 0.5 * a.autumn
    table: dict[int, NDArray[np.float64]] = {
        m.GRASS: grass,
        m.DRY_GRASS: grass * 0.72 + straw * 0.26,
        m.DIRT: np.array([120.0, 104.0, 82.0]),
        m.MEDIAN: grass * 0.9 + 12,
        m.ASPHALT: road,
        m.ASPHALT_OLD: road * 1.09,
        m.ASPHALT_NEW: road * 0.92,
        m.TRACKS: road * 0.94,
        m.JUNCTION: road * 0.98,
        m.SHOULDER: road * 1.1,
        m.PARKING: road * 1.06,
        m.BIKING: road * np.array([1.35, 0.85, 0.8]),
        m.CRACK: road * 0.7,
        m.COVER: road * 0.75,
        m.SIDEWALK: walk,
        m.SIDEWALK_OLD: walk * 0.95,
        m.JOINT: walk * 0.84,
        m.KERB: walk * 1.15 + 8,
        m.PLAZA: walk * 0.86,
    }
    white, yellow = np.array([226.0, 226.0, 220.0]), np.array([222.0, 170.0, 48.0])
    for first, color in ((m.WHITE_0, white), (m.YELLOW_0, yellow)):
        for step, share in enumerate((1.0, 0.55 + 0.45 * worn, 0.25 + 0.7 * worn)):
            table[first + step] = road + (color - road) * share
    table[m.ZEBRA_0], table[m.ZEBRA_1] = road + (white - road) * 0.97, road + (white - road) * (0.5 + 0.45 * worn)
    for material, color in table.items():
        out[material] = color
    dark = 1.0 - 0.42 * a.wet
    rough = np.isin(np.arange(MATERIALS), [m.GRASS, m.DRY_GRASS, m.DIRT, m.MEDIAN])
    out *= np.where(rough, 1.0 - 0.15 * a.wet, dark)[:, None]
    return np.clip(out, 0, 255).astype(np.float32)
