"""Latitude and longitude of a place, as the 0.9.16 client's own `Map.transform_to_geolocation` has them.

Measured on the client: whatever projection the map names, it is a transverse Mercator of a sphere about the map's
origin with the scale 0.9996, and latitude grows with y.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

SCALED_RADIUS_M = 0.9996 * 6378137.0


@dataclass(frozen=True)
class GeoReference:
    """Where the origin of a map lies; the defaults are the client's for a map that does not say."""

    latitude_deg: float = 42.0
    longitude_deg: float = 2.0

    @staticmethod
    def of(opendrive: str) -> GeoReference:
        """Read `+lat_0` and `+lon_0` of an OpenDRIVE's <geoReference>."""
        found = re.search(r"<geoReference>(.*?)</geoReference>", opendrive[:20000], re.DOTALL)
        text = found.group(1) if found else ""
        latitude, longitude = _parameter(text, "lat_0"), _parameter(text, "lon_0")
        return GeoReference(latitude, longitude) if latitude is not None and longitude is not None else GeoReference()

    def locate(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """Latitude, longitude (degrees) and altitude (m) of a place in CARLA's frame."""
        across, along = x / SCALED_RADIUS_M, y / SCALED_RADIUS_M + math.radians(self.latitude_deg)
        latitude = math.asin(math.sin(along) / math.cosh(across))
        longitude = math.atan2(math.sinh(across), math.cos(along))
        return math.degrees(latitude), self.longitude_deg + math.degrees(longitude), z


def _parameter(text: str, name: str) -> float | None:
    found = re.search(rf"\+{name}=([-+0-9.eE]+)", text)
    try:
        return float(found.group(1)) if found else None
    except ValueError:
        return None
