"""Lidars: the beams of one tick, and CARLA's model of what comes back (0.9.16, RayCastLidar.cpp).

The intensity is exp(-attenuation * range). A share `dropoff_general_rate` of the beams is lost outright;
a point of intensity i <= `dropoff_intensity_limit` is kept with the probability
1 - z + z * i / limit, z being `dropoff_zero_intensity`. `noise_stddev` moves points along their beam.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server.actors import ServerActor
from drivesim.carla_server.poses import Floats
from drivesim.carla_server.rays import RAYS_PER_TICK, RayScene, Sweep

CHANNEL_LIMIT, REACH_LIMIT_M = 1024, 1000.0
SEMANTIC_POINT = np.dtype([("xyz", "<f4", 3), ("cosine", "<f4"), ("actor", "<u4"), ("label", "<u4")])


@dataclass(frozen=True)
class LidarModel:
    """What a lidar's attributes say; angles in degrees, as CARLA computes with them."""

    channels: int
    reach_m: float
    points_per_s: float
    turns_per_s: float
    upper_deg: float
    lower_deg: float
    across_deg: float
    semantic: bool
    attenuation_1pm: float
    lost_share: float
    kept_above: float
    lost_at_zero: float
    noise_m: float

    @staticmethod
    def of(actor: ServerActor) -> LidarModel:
        """Read the attributes; what makes no sense is brought into range."""

        def number(name: str, default: float, low: float, high: float) -> float:
            return min(max(actor.number(name, default), low), high)

        return LidarModel(
            channels=int(number("channels", 32, 1, CHANNEL_LIMIT)),
            reach_m=number("range", 10.0, 0.01, REACH_LIMIT_M),
            points_per_s=number("points_per_second", 56000, 0, 1e9),
            turns_per_s=number("rotation_frequency", 10.0, 0.0, 1e4),
            upper_deg=number("upper_fov", 10.0, -90.0, 90.0),
            lower_deg=number("lower_fov", -30.0, -90.0, 90.0),
            across_deg=number("horizontal_fov", 360.0, 0.01, 360.0),
            semantic=actor.type_id.endswith("semantic"),
            attenuation_1pm=number("atmosphere_attenuation_rate", 0.004, 0.0, 1e3),
            lost_share=number("dropoff_general_rate", 0.45, 0.0, 1.0),
            kept_above=number("dropoff_intensity_limit", 0.8, 0.0, 1e3),
            lost_at_zero=number("dropoff_zero_intensity", 0.4, 0.0, 1.0),
            noise_m=number("noise_stddev", 0.0, 0.0, 1e3),
        )


class Lidar:
    """A lidar that turns."""

    def __init__(self, model: LidarModel, rng: np.random.Generator) -> None:
        self.model = model
        self._rng = rng
        self._angle_deg = 0.0

    def sweep(self, actor: ServerActor, matrix: Floats, rotation: Floats, hide_row: int, dt_s: float) -> Sweep:
        """The beams of `dt_s` seconds; the head turns on."""
        model = self.model
        per_channel = math.floor(model.points_per_s * dt_s / model.channels + 0.5)
        per_channel = min(per_channel, RAYS_PER_TICK // model.channels)
        turn_deg = model.turns_per_s * model.across_deg * dt_s
        steps = np.arange(per_channel) * (turn_deg / max(per_channel, 1))
        azimuth = np.radians(np.fmod(self._angle_deg + steps, model.across_deg) - model.across_deg / 2)
        altitude = np.radians(np.linspace(model.upper_deg, model.lower_deg, model.channels))
        if per_channel:
            self._angle_deg = math.fmod(self._angle_deg + turn_deg, model.across_deg)
        fan = np.empty((model.channels, per_channel, 3), np.float32)
        fan[..., 0] = np.cos(altitude)[:, None] * np.cos(azimuth)
        fan[..., 1] = np.cos(altitude)[:, None] * np.sin(azimuth)
        fan[..., 2] = np.sin(altitude)[:, None]
        channel = np.repeat(np.arange(model.channels), per_channel)
        rays = fan.reshape(-1, 3)
        if not model.semantic and model.lost_share > 0.0:
            kept = self._rng.random(len(rays)) >= model.lost_share
            rays, channel = rays[kept], channel[kept]
        head_rad = math.radians(self._angle_deg)
        return Sweep(actor, matrix, rotation, rays, model.reach_m, hide_row,
                     lambda scene, sweep: self._pack(scene, sweep, channel, head_rad))  # fmt: skip

    def _pack(self, scene: RayScene, sweep: Sweep, channel: NDArray[np.intp], head_rad: float) -> bytes:
        met = sweep.hits.thing != -1
        if self.model.semantic:
            points = self._semantic(scene, sweep)[met]
        else:
            points, stay = self._intense(sweep, met)
            met[met] = stay
        counts = np.bincount(channel[met], minlength=self.model.channels).astype("<u4")
        return b"".join((struct.pack("<fI", head_rad, self.model.channels), counts.tobytes(), points.tobytes()))

    def _intense(self, sweep: Sweep, met: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Points (k, 4): x, y, z, intensity; and which of the hits they are."""
        model, reach = self.model, sweep.hits.range_m[met]
        intensity = np.exp(np.float32(-model.attenuation_1pm) * reach)
        if model.noise_m > 0.0:
            reach = reach + self._rng.normal(0.0, model.noise_m, len(reach)).astype(np.float32)
        chance = 1.0 - model.lost_at_zero + model.lost_at_zero * intensity / max(model.kept_above, 1e-9)
        stay = (intensity > model.kept_above) | (self._rng.random(len(reach)) < chance)
        points = np.column_stack([sweep.rays[met] * reach[:, None], intensity])[stay]
        return np.ascontiguousarray(points, "<f4"), stay

    def _semantic(self, scene: RayScene, sweep: Sweep) -> NDArray[np.void]:
        normals, labels = scene.caster.surfaces(scene.staged, sweep.hits, sweep.points_m())
        points = np.zeros(len(sweep.rays), SEMANTIC_POINT)
        points["xyz"] = sweep.rays * sweep.hits.range_m[:, None]
        points["cosine"] = -(normals * sweep.world).sum(axis=1)
        points["actor"] = scene.actor_ids(sweep.hits)
        points["label"] = labels
        return points
