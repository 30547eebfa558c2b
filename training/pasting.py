"""Cut and paste between places around the car: local changes of a picture that no step of the world makes.

After CutPaste (Li et al. 2021), but in the rays of the rig: a window of the surroundings as wide and high as a vehicle
is set down elsewhere on flat ground, bigger where it is nearer, in every view that sees the place. Nothing is known
of what stands in a window: no truth is read. Frame: the ego's, azimuth to the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.models.views import VIEW_HEIGHT_PX, VIEW_WIDTH_PX

Array = NDArray[np.float64]
Views = NDArray[np.uint8]
Rays = NDArray[np.bool_]

PASTES = ("moment", "copy", "swap")  # from the same place at another time; from elsewhere now; exchanged
AZIMUTH_RAD = 0.45  # of places, to either side
DISTANCE_M = (6.0, 28.0)
HALF_WIDTH_M, ABOVE_CAMERA_M = (1.2, 3.0), (0.0, 1.0)
WIDER, HIGHER_M = 1.5, 0.5  # a window on another time
AHEAD = 0.3  # of an optical axis: cameras that look further aside see none of the places
NEAR_PLANE = 0.05


@dataclass(frozen=True)
class Place:
    """Somewhere on the ground ahead."""

    azimuth_rad: float
    distance_m: float

    @staticmethod
    def draw(rng: np.random.Generator) -> Place:
        """Anywhere ahead, as often near as far in angle of sight."""
        low, high = np.log(DISTANCE_M)
        return Place(float(rng.uniform(-AZIMUTH_RAD, AZIMUTH_RAD)), float(np.exp(rng.uniform(low, high))))


class Paster:
    """Pastes into the views of one rig.

    Args:
        intrinsics: (v, 4) fx, fy, cx, cy; cameras (v, 3, 4) ego_from_camera, as in the training cache.
    """

    def __init__(self, intrinsics: NDArray[np.float32], cameras: NDArray[np.float32]) -> None:
        self.intrinsics, self.cameras = intrinsics.astype(float), cameras.astype(float)
        forward = np.flatnonzero(self.cameras[:, 0, 2] > AHEAD)
        self.ahead = forward if len(forward) else np.arange(len(self.cameras))
        self.height_m = float(self.cameras[self.ahead, 2, 3].mean())
        y, x = np.meshgrid(np.arange(float(VIEW_HEIGHT_PX)), np.arange(float(VIEW_WIDTH_PX)), indexing="ij")
        fx, fy, cx, cy = (self.intrinsics[:, i, None, None] for i in range(4))
        local = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones((len(fx), *x.shape))], axis=-1)
        rays = np.einsum("vij,vhwj->vhwi", self.cameras[:, :, :3], local)
        self.azimuth = np.arctan2(rays[..., 1], rays[..., 0])
        self.slope = rays[..., 2] / np.hypot(rays[..., 0], rays[..., 1])

    def window(self, place: Place, half_width_m: float, above_m: float) -> Rays:
        """(v, h, w) pixels whose rays meet an upright rectangle that stands at a place and faces the car."""
        away = np.abs(np.arctan2(np.sin(self.azimuth - place.azimuth_rad), np.cos(self.azimuth - place.azimuth_rad)))
        wide = away < half_width_m / place.distance_m
        high = (self.slope < above_m / place.distance_m) & (self.slope > -1.1 * self.height_m / place.distance_m)
        return np.asarray(wide & high)

    def look_up(self, view: int, azimuth: Array, slope: Array) -> tuple[NDArray[np.int64], ...]:
        """View (-1 where none sees it), row and column of rays (k,); the given view first, else the sharpest."""
        rays = np.stack([np.cos(azimuth), np.sin(azimuth), slope], axis=-1)
        found = [np.full(len(rays), -1), np.zeros(len(rays), int), np.zeros(len(rays), int)]
        for other in (view, *(int(v) for v in self.ahead if v != view)):
            fx, fy, cx, cy = self.intrinsics[other]
            local = rays @ self.cameras[other, :, :3]
            depth = np.maximum(local[:, 2], NEAR_PLANE)
            x = np.rint(local[:, 0] / depth * fx + cx).astype(int)
            y = np.rint(local[:, 1] / depth * fy + cy).astype(int)
            seen = (local[:, 2] > NEAR_PLANE) & (found[0] < 0)
            seen &= (x >= 0) & (x < VIEW_WIDTH_PX) & (y >= 0) & (y < VIEW_HEIGHT_PX)
            for part, value in zip(found, (other, y, x), strict=True):
                part[seen] = value if isinstance(value, int) else value[seen]
        return tuple(found)

    def copy(self, out: Views, source: Views, there: Place, here: Place, half_width_m: float, above_m: float) -> None:
        """Write into `out` what `source` (v, h, w, 3) shows at `here`, as if it stood `there`."""
        nearer = there.distance_m / here.distance_m
        window = self.window(there, half_width_m, above_m)
        for view in np.flatnonzero(window.any((1, 2))):
            row, column = np.nonzero(window[view])
            aside = self.azimuth[view, row, column] - there.azimuth_rad
            aside = np.arctan2(np.sin(aside), np.cos(aside))
            seen, y, x = self.look_up(
                int(view), here.azimuth_rad + nearer * aside, nearer * self.slope[view, row, column]
            )
            known = seen >= 0
            out[view, row[known], column[known]] = source[seen[known], y[known], x[known]]

    def paste(self, kind: str, now: Views, other: Views, rng: np.random.Generator) -> Views:
        """One of PASTES into a copy of the views `now` (v, h, w, 3); `other` are those of another moment."""
        out, there, here = now.copy(), Place.draw(rng), Place.draw(rng)
        half_width_m, above_m = rng.uniform(*HALF_WIDTH_M), rng.uniform(*ABOVE_CAMERA_M)
        if kind == "moment":
            self.copy(out, other, there, there, WIDER * half_width_m, above_m + HIGHER_M)
            return out
        self.copy(out, now, there, here, half_width_m, above_m)
        if kind == "swap":
            self.copy(out, now, here, there, half_width_m, above_m)
        return out
