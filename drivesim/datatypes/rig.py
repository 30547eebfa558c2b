"""Cameras and rigs: intrinsics, and where each camera sits in the ego frame."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.config import load_toml
from drivesim.geometry import Pose

# Camera axes (x right, y down, z forward) expressed in a body frame (x forward, y left, z up).
BODY_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True)
class CameraSpec:
    """A camera as a rig file describes it: ego frame (rear axle, x forward, y left, z up), degrees only here."""

    name: str
    x_m: float
    y_m: float
    z_m: float
    yaw_deg: float
    pitch_deg: float  # positive looks down
    fov_deg: float  # horizontal
    width_px: int
    height_px: int


@dataclass(frozen=True)
class RigSpec:
    """A rig file: an id with a version and its cameras."""

    id: str
    cameras: tuple[CameraSpec, ...]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        intrinsics: (3, 3) pixels; pixel (0, 0) is the centre of the top-left pixel.
        ego_from_camera: optical axes x right, y down, z forward.
    """

    name: str
    intrinsics: NDArray[np.float64]
    ego_from_camera: Pose
    width_px: int
    height_px: int

    @property
    def fov_rad(self) -> float:
        """Horizontal field of view."""
        return 2.0 * math.atan(self.width_px / (2.0 * float(self.intrinsics[0, 0])))

    @staticmethod
    def from_spec(spec: CameraSpec) -> Camera:
        """Build a pinhole camera from its description."""
        focal_px = spec.width_px / (2.0 * math.tan(math.radians(spec.fov_deg) / 2.0))
        intrinsics = np.array(
            [[focal_px, 0.0, (spec.width_px - 1) / 2.0], [0.0, focal_px, (spec.height_px - 1) / 2.0], [0.0, 0.0, 1.0]]
        )
        pitch_rad, yaw_rad = math.radians(spec.pitch_deg), math.radians(spec.yaw_deg)
        body = Pose.from_xyz_rpy(spec.x_m, spec.y_m, spec.z_m, 0.0, pitch_rad, yaw_rad)
        return Camera(
            spec.name, intrinsics, body.compose(Pose(BODY_FROM_OPTICAL, np.zeros(3))), spec.width_px, spec.height_px
        )


@dataclass(frozen=True)
class CameraRig:
    """An ordered ring of cameras; the digest is stored with logs and checkpoints."""

    id: str
    cameras: tuple[Camera, ...]

    @staticmethod
    def from_spec(spec: RigSpec) -> CameraRig:
        """Build the rig that a rig file describes."""
        return CameraRig(spec.id, tuple(Camera.from_spec(camera) for camera in spec.cameras))

    @staticmethod
    def load(path: Path) -> CameraRig:
        """Read a rig file (TOML)."""
        return CameraRig.from_spec(load_toml(RigSpec, path))

    @cached_property
    def digest(self) -> str:
        """Twelve hex digits over names, sizes, intrinsics and poses."""
        h = hashlib.sha256()
        for camera in self.cameras:
            h.update(f"{camera.name} {camera.width_px} {camera.height_px}".encode())
            h.update(np.round(camera.intrinsics, 6).tobytes())
            h.update(np.round(camera.ego_from_camera.rotation, 6).tobytes())
            h.update(np.round(camera.ego_from_camera.translation_m, 6).tobytes())
        return h.hexdigest()[:12]


def default_rig() -> CameraRig:
    """Six 256x144 cameras around the car, as nuScenes places them."""
    return CameraRig.load(Path(__file__).parent.parent / "rigs" / "ring-6-v1.toml")
