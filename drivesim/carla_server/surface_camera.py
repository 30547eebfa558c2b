"""Cameras that show surfaces: their normals, and their motion on the screen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server.cameras import FLOW, Shot
from drivesim.carla_server.lenses import distort
from drivesim.town.render.raycast import Staged
from drivesim.town.render.seen_things import Camera, ThingFinder


@dataclass
class Before:
    """What a motion camera saw last."""

    camera: Camera | None = None
    staged: Staged | None = None


@dataclass(frozen=True)
class SurfaceScene:
    """One tick's state for these cameras."""

    finder: ThingFinder
    staged: Staged

    def draw(self, shot: Shot) -> None:
        """Fill a shot's body."""
        model = shot.model
        camera = Camera(shot.matrix[:3, 3], shot.rotation, math.radians(model.fov_deg), model.width, model.height)
        found = self.finder.find(self.staged, camera, hide_row=shot.hide_row)
        if model.kind != FLOW:
            shot.body = normal_bgra(distort(self.finder.normals(self.staged, found, camera), model.lens))
            return
        before: Before = shot.memory
        flow = np.zeros((model.height, model.width, 2), np.float32)
        if before.camera is not None and before.staged is not None:
            flow = self.finder.flow(self.staged, found, camera, before.staged, before.camera)
        before.camera, before.staged = camera, self.staged
        shot.body = distort(flow, model.lens).view(np.uint8)


def normal_bgra(normals: NDArray[np.float32]) -> NDArray[np.uint8]:
    """World normals (h, w, 3) as colours (h, w, 4): x in R, y in G, z in B, each from -1..1 to 0..255.

    World space is what CARLA has since its pull request 8810 (before 0.9.16; 0.9.14 and 0.9.15 had view space).
    """
    pixels = np.full((*normals.shape[:2], 4), 255, np.uint8)
    pixels[..., 2::-1] = np.rint((normals * 0.5 + 0.5) * 255.0)
    return pixels
