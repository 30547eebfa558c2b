"""From a rig's pictures to the encoder's views: every camera at a common small size, and a fovea.

A view is a crop of one camera at one scale, with its own pinhole intrinsics, so the encoder needs no
idea of which camera it is: rays in the ego frame say where it looks. Cameras that look forward get two
more views, the left and the right half of the band around their horizon at full resolution, because
what decides is small: a car far ahead, a light, somebody at the kerb.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from drivesim.datatypes import CameraRig

VIEW_HEIGHT_PX, VIEW_WIDTH_PX = 72, 128
FOVEA_HALF_ANGLE_RAD = math.radians(30.0)  # cameras whose axis is this close to straight ahead get a fovea


@dataclass(frozen=True)
class View:
    """A rectangle of one camera's image, resized to the common view size."""

    camera: int
    left_px: int
    top_px: int
    width_px: int
    height_px: int


@dataclass(frozen=True)
class ViewLayout:
    """All views of a rig, the ones that look ahead first.

    Attributes:
        views: v views.
        intrinsics: (v, 4) fx, fy, cx, cy in view pixels.
        ego_from_camera: (v, 3, 4) rotation and translation (m) of optical axes.
    """

    views: tuple[View, ...]
    intrinsics: NDArray[np.float32]
    ego_from_camera: NDArray[np.float32]

    @staticmethod
    def of(rig: CameraRig) -> ViewLayout:
        """The layout that a rig implies: foveas (two a forward camera), then all cameras from the front to the back."""
        forward = [float(c.ego_from_camera.rotation[0, 2]) for c in rig.cameras]
        order = sorted(range(len(rig.cameras)), key=lambda i: -forward[i])
        views = []
        for i in order:
            camera = rig.cameras[i]
            width = camera.width_px // 2
            height = width * VIEW_HEIGHT_PX // VIEW_WIDTH_PX
            if forward[i] > math.cos(FOVEA_HALF_ANGLE_RAD) and width >= VIEW_WIDTH_PX and height <= camera.height_px:
                top = (camera.height_px - height) // 2
                views += [View(i, left, top, width, height) for left in (0, width)]
        views += [View(i, 0, 0, rig.cameras[i].width_px, rig.cameras[i].height_px) for i in order]
        intrinsics, extrinsics = [], []
        for view in views:
            camera = rig.cameras[view.camera]
            sx, sy = VIEW_WIDTH_PX / view.width_px, VIEW_HEIGHT_PX / view.height_px
            k = camera.intrinsics
            # Pixel centres are integers: shift by half a pixel before and after scaling.
            cx = (k[0, 2] - view.left_px + 0.5) * sx - 0.5
            cy = (k[1, 2] - view.top_px + 0.5) * sy - 0.5
            intrinsics.append([k[0, 0] * sx, k[1, 1] * sy, cx, cy])
            pose = camera.ego_from_camera
            extrinsics.append(np.concatenate([pose.rotation, pose.translation_m[:, None]], axis=1))
        return ViewLayout(tuple(views), np.array(intrinsics, np.float32), np.array(extrinsics, np.float32))

    def extract(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut and resize: images (cameras, h, w, 3) uint8 -> views (v, 72, 128, 3) uint8, area-averaged."""
        out = np.empty((len(self.views), VIEW_HEIGHT_PX, VIEW_WIDTH_PX, 3), np.uint8)
        for row, view in enumerate(self.views):
            crop = images[
                view.camera, view.top_px : view.top_px + view.height_px, view.left_px : view.left_px + view.width_px
            ]
            out[row] = resize_area(crop, VIEW_HEIGHT_PX, VIEW_WIDTH_PX)
        return out


def resize_area(image: NDArray[np.uint8], height_px: int, width_px: int) -> NDArray[np.uint8]:
    """Area-average an image (h, w, 3) to (height_px, width_px, 3)."""
    h, w = image.shape[:2]
    if (h, w) == (height_px, width_px):
        return image
    if h % height_px == 0 and w % width_px == 0:
        fy, fx = h // height_px, w // width_px
        total = np.zeros((height_px, width_px, 3), np.uint16)
        for dy in range(fy):
            for dx in range(fx):
                total += image[dy::fy, dx::fx]
        half = np.uint16(fy * fx // 2)
        return ((total + half) // np.uint16(fy * fx)).astype(np.uint8)
    planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(planes, size=(height_px, width_px), mode="area")
    return np.asarray(resized[0].permute(1, 2, 0).round().to(torch.uint8).numpy())
