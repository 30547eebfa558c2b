"""Latitude and longitude of a place, by the Mercator arithmetic of CARLA's maps."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

EARTH_RADIUS_M = 6378137.0


@dataclass(frozen=True)
class GeoReference:
    """Where the origin of a map lies."""

    latitude_deg: float = 0.0
    longitude_deg: float = 0.0

    @staticmethod
    def of(opendrive: str) -> GeoReference:
        """Read `+lat_0` and `+lon_0` of an OpenDRIVE's <geoReference>; zero where they lack."""
        found = re.search(r"<geoReference>(.*?)</geoReference>", opendrive[:20000], re.DOTALL)
        text = found.group(1) if found else ""
        return GeoReference(_parameter(text, "lat_0"), _parameter(text, "lon_0"))

    def locate(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """Latitude, longitude (degrees) and altitude (m) of a place in CARLA's frame (y points south)."""
        scale = math.cos(math.radians(self.latitude_deg))
        east = scale * math.radians(self.longitude_deg) * EARTH_RADIUS_M + x
        north = scale * EARTH_RADIUS_M * math.log(math.tan(math.radians(90.0 + self.latitude_deg) / 2.0)) - y
        longitude = math.degrees(east / (EARTH_RADIUS_M * scale))
        latitude = math.degrees(2.0 * math.atan(math.exp(north / (EARTH_RADIUS_M * scale)))) - 90.0
        return latitude, longitude, z


def _parameter(text: str, name: str) -> float:
    found = re.search(rf"\+{name}=([-+0-9.eE]+)", text)
    try:
        return float(found.group(1)) if found else 0.0
    except ValueError:
        return 0.0
