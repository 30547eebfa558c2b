"""The radar: random rays within its cone, each with the speed of what it meets (0.9.16, Radar.cpp)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from drivesim.carla_server.actors import ServerActor
from drivesim.carla_server.poses import Floats
from drivesim.carla_server.rays import RAYS_PER_TICK, RayScene, Sweep


@dataclass(frozen=True)
class RadarModel:
    """What a radar's attributes say."""

    across_rad: float
    upright_rad: float
    reach_m: float
    points_per_s: float

    @staticmethod
    def of(actor: ServerActor) -> RadarModel:
        """Read the attributes; what makes no sense is brought into range."""
        across = min(max(actor.number("horizontal_fov", 30.0), 0.1), 178.0)
        upright = min(max(actor.number("vertical_fov", 30.0), 0.1), 178.0)
        reach_m = min(max(actor.number("range", 100.0), 0.01), 1000.0)
        points = min(max(actor.number("points_per_second", 1500), 0.0), 1e9)
        return RadarModel(math.radians(across), math.radians(upright), reach_m, points)


class Radar:
    """A radar. A detection is (velocity m/s, azimuth rad, altitude rad, depth m); what comes nearer is negative."""

    def __init__(self, model: RadarModel, rng: np.random.Generator) -> None:
        self.model = model
        self._rng = rng

    def sweep(
        self, actor: ServerActor, matrix: Floats, rotation: Floats, hide_row: int, dt_s: float, velocity: Floats
    ) -> Sweep:
        """The rays of `dt_s` seconds; velocity (3,) is the radar's own in the world.

        A ray ends on a flat disc at the radar's range, so that those to the rim reach a little farther, as in CARLA.
        """
        count = min(int(self.model.points_per_s * dt_s + 1e-6), RAYS_PER_TICK)
        dice = self._rng.random((count, 2))
        radius, angle = dice[:, 0], dice[:, 1] * 2.0 * math.pi
        across = math.tan(self.model.across_rad / 2) * radius * np.cos(angle)
        upright = math.tan(self.model.upright_rad / 2) * radius * np.sin(angle)
        rays = np.column_stack([np.ones(count), across, upright])
        length = np.linalg.norm(rays, axis=1)
        rays = (rays / length[:, None]).astype(np.float32)
        farthest = self.model.reach_m * float(length.max(initial=1.0))
        return Sweep(actor, matrix, rotation, rays, farthest, hide_row,
                     lambda scene, sweep: self._pack(scene, sweep, velocity, length))  # fmt: skip

    def _pack(self, scene: RayScene, sweep: Sweep, velocity: Floats, length: Floats) -> bytes:
        reach, row = sweep.hits.range_m, sweep.hits.actor_row
        met = (sweep.hits.thing != -1) & (reach <= self.model.reach_m * length)
        target = np.where(row[:, None] >= 0, scene.state.velocity[np.maximum(row, 0)], 0.0)
        closing = ((target - velocity) * sweep.world).sum(axis=1)
        azimuth, altitude = np.arctan2(sweep.rays[:, 1], sweep.rays[:, 0]), np.arcsin(sweep.rays[:, 2])
        return bytes(np.column_stack([closing, azimuth, altitude, reach])[met].astype("<f4").tobytes())
