"""Weather as CARLA's 14 numbers: their names, their order on the wire, and CARLA's presets."""

from __future__ import annotations

import difflib

import numpy as np
from numpy.typing import NDArray

PARAMETERS: tuple[str, ...] = (
    "cloudiness", "precipitation", "precipitation_deposits", "wind_intensity", "sun_azimuth_angle",
    "sun_altitude_angle", "fog_density", "fog_distance", "fog_falloff", "wetness", "scattering_intensity",
    "mie_scattering_scale", "rayleigh_scattering_scale", "dust_storm",
)  # fmt: skip
(CLOUDINESS, PRECIPITATION, DEPOSITS, WIND, SUN_AZIMUTH, SUN_ALTITUDE, FOG_DENSITY, FOG_DISTANCE, FOG_FALLOFF, WETNESS,
 SCATTERING, MIE_SCALE, RAYLEIGH_SCALE, DUST_STORM) = range(14)  # fmt: skip

_SUN_DEG = {"Noon": 45.0, "Sunset": 15.0, "Night": -90.0}
# name without the time of day: cloudiness, precipitation, deposits, wind, and (fog, wetness) at noon, sunset, night
_SKIES: dict[str, tuple[float, float, float, float, tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "Clear": (5, 0, 0, 10, (2, 0), (2, 0), (60, 0)),
    "Cloudy": (60, 0, 0, 10, (3, 0), (3, 0), (60, 0)),
    "Wet": (5, 0, 50, 10, (3, 0), (2, 0), (60, 60)),
    "WetCloudy": (60, 0, 50, 10, (3, 0), (2, 0), (60, 60)),
    "SoftRain": (20, 30, 50, 30, (3, 0), (2, 0), (60, 60)),
    "MidRain": (60, 60, 60, 60, (3, 0), (3, 0), (60, 80)),
    "HardRain": (100, 100, 90, 100, (7, 0), (7, 0), (100, 100)),
}  # fmt: skip
# CARLA's own spelling and its own exceptions
_RENAMED = {"MidRainNoon": "MidRainyNoon", "MidRainNight": "MidRainyNight"}
_FAR_FOG = ("ClearNight", "WetNight")  # fog 75 m away with falloff 1; every other preset has 0.75 m and 0.1
_NIGHT_CLOUDS = {"SoftRainNight": 60.0, "MidRainyNight": 80.0}


def _presets() -> dict[str, tuple[float, ...]]:
    table: dict[str, tuple[float, ...]] = {}
    for sky, (clouds, rain, deposits, wind, *fog_and_wetness) in _SKIES.items():
        for (hour, altitude_deg), (fog, wetness) in zip(_SUN_DEG.items(), fog_and_wetness, strict=True):
            name = _RENAMED.get(sky + hour, sky + hour)
            distance, falloff = (75.0, 1.0) if name in _FAR_FOG else (0.75, 0.1)
            table[name] = (_NIGHT_CLOUDS.get(name, clouds), rain, deposits, wind, -1.0, altitude_deg, fog, distance,
                           falloff, wetness, 1.0, 0.03, 0.0331, 0.0)  # fmt: skip
    table["DustStorm"] = (100.0, 0.0, 0.0, 100.0, -1.0, 45.0, 2.0, 0.75, 0.1, 0.0, 1.0, 0.03, 0.0331, 100.0)
    table["Default"] = (-1.0,) * 10 + (1.0, 0.03, 0.0331, 0.0)
    return table


PRESETS: dict[str, tuple[float, ...]] = _presets()


def preset(name: str) -> NDArray[np.float64]:
    """One of CARLA's presets as a fresh (14,) array, in the wire's order.

    Raises:
        KeyError: no such preset; the message names the nearest.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 3) or sorted(PRESETS)
        raise KeyError(f"no weather preset {name!r}; near: {', '.join(near)}")
    return np.array(PRESETS[name], np.float64)


def grip(weather: NDArray[np.float64]) -> float:
    """Tyre grip in m/s2 under this weather: 8.3 on a dry road, 6.2 under standing water."""
    water = max(float(weather[DEPOSITS]), float(weather[WETNESS]), 0.0) / 100.0
    return 8.3 - 2.1 * min(water, 1.0)
