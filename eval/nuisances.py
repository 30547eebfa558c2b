"""What must not matter, written into pictures: leaves, rain, flickering billboards, noise, dead and moved cameras.

Every transform takes pictures (v, h, w, 3) uint8 of one tick and a generator, and returns new ones; nothing of a
tick is remembered by the next, so what is painted cannot be predicted. Frames are ours (y left).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.datatypes import Camera, CameraRig, EgoState
from drivesim.geometry import Pose
from drivesim.town.render import Appearance

Images = NDArray[np.uint8]
Array = NDArray[np.float64]
AUTUMN = np.array([[176.0, 92.0, 28.0], [201.0, 142.0, 40.0], [133.0, 54.0, 22.0], [110.0, 96.0, 38.0]])  # RGB
BOARD_EVERY_M, BOARD_ASIDE_M, BOARD_HIGH_M = 18.0, 9.0, 3.5
BOARD_HALF_M = (2.2, 1.3)
CELLS = (4, 3)  # of a billboard, each with a colour of its own at every tick
BEYOND_M = 60.0  # boards stand beyond the end of the drive, too


@njit(cache=True)  # type: ignore[untyped-decorator]
def paint_ellipses(image: Images, shapes: Array) -> None:
    """Paint into image (h, w, 3); shapes (k, 9): x, y, half length, half width (px), angle, r, g, b, opacity."""
    height, width = image.shape[:2]
    for k in range(len(shapes)):
        x0, y0, a, b, angle, opacity = (
            shapes[k, 0],
            shapes[k, 1],
            shapes[k, 2],
            shapes[k, 3],
            shapes[k, 4],
            shapes[k, 8],
        )
        c, s, reach = np.cos(angle), np.sin(angle), max(a, b) + 1.0
        for y in range(max(0, int(y0 - reach)), min(height, int(y0 + reach) + 1)):
            for x in range(max(0, int(x0 - reach)), min(width, int(x0 + reach) + 1)):
                u, v = c * (x - x0) + s * (y - y0), -s * (x - x0) + c * (y - y0)
                if (u / a) ** 2 + (v / b) ** 2 <= 1.0:
                    for channel in range(3):
                        value = (1.0 - opacity) * image[y, x, channel] + opacity * shapes[k, 5 + channel]
                        image[y, x, channel] = np.uint8(min(max(value, 0.0), 255.0))


@njit(cache=True)  # type: ignore[untyped-decorator]
def paint_boards(
    image: Images, depth_m: NDArray[np.float32], rays: Array, origin: Array, boards: Array, colors: Array
) -> None:
    """Paint upright rectangles into one camera's picture where nothing stands before them.

    Args:
        image: (h, w, 3); depth_m (h, w) along the optical axis.
        rays: (h, w, 3) in the world, of length 1 along the optical axis; origin (3,).
        boards: (k, 4) centre x, y, z and the yaw they face.
        colors: (k, cells across, cells up, 3).
    """
    height, width = image.shape[:2]
    half_w, half_h = BOARD_HALF_M
    across, up = colors.shape[1:3]
    for k in range(len(boards)):
        nx, ny = np.cos(boards[k, 3]), np.sin(boards[k, 3])
        away = (boards[k, 0] - origin[0]) * nx + (boards[k, 1] - origin[1]) * ny
        if away > 0.0 or away < -BEYOND_M:  # seen from behind, or too far to matter
            continue
        for y in range(height):
            for x in range(width):
                toward = rays[y, x, 0] * nx + rays[y, x, 1] * ny
                if toward > -1e-6:
                    continue
                t = away / toward
                if t < 0.5 or t > depth_m[y, x]:
                    continue
                dx, dy = origin[0] + t * rays[y, x, 0] - boards[k, 0], origin[1] + t * rays[y, x, 1] - boards[k, 1]
                u, v = -ny * dx + nx * dy, origin[2] + t * rays[y, x, 2] - boards[k, 2]
                if abs(u) < half_w and abs(v) < half_h:
                    i, j = int((u + half_w) / (2.0 * half_w) * across), int((v + half_h) / (2.0 * half_h) * up)
                    depth_m[y, x] = t
                    for channel in range(3):
                        image[y, x, channel] = np.uint8(colors[k, i, j, channel])


def leaves(images: Images, rng: np.random.Generator, per_camera: int = 22) -> Images:
    """Leaves that fall before the cameras: most small, some right before the lens."""
    out = images.copy()
    height, width = out.shape[1:3]
    for image in out:
        k = per_camera
        size = np.clip(rng.lognormal(np.log(0.014 * width), 0.7, k), 1.0, 0.08 * width)
        color = AUTUMN[rng.integers(len(AUTUMN), size=k)] * rng.uniform(0.6, 1.25, (k, 1))
        paint_ellipses(image, np.column_stack([
            rng.uniform(0, width, k), rng.uniform(0, height, k), size, size * rng.uniform(0.3, 0.8, k),
            rng.uniform(0, np.pi, k), color, rng.uniform(0.8, 1.0, k),
        ]))  # fmt: skip
    return out


def rain_streaks(images: Images, rng: np.random.Generator, per_camera: int = 130) -> Images:
    """Bright slanted streaks, one slant for all cameras of a tick."""
    out = images.copy()
    height, width = out.shape[1:3]
    slant = 0.5 * np.pi + rng.uniform(-0.3, 0.3)
    for image in out:
        k = per_camera
        grey = rng.uniform(170, 230, (k, 1)) * np.ones(3)
        paint_ellipses(image, np.column_stack([
            rng.uniform(0, width, k), rng.uniform(0, height, k), rng.uniform(0.015, 0.06, k) * width,
            rng.uniform(0.5, 0.8, k), slant + rng.normal(0.0, 0.04, k), grey, rng.uniform(0.25, 0.5, k),
        ]))  # fmt: skip
    return out


def sensor_noise(images: Images, rng: np.random.Generator, read: float = 10.0, shot: float = 0.9) -> Images:
    """Read noise and shot noise (standard deviations in grey values), and three pixels in a thousand dead or hot."""
    level = images.astype(np.float32)
    noise = rng.standard_normal(images.shape, np.float32)
    noisy = np.clip(level + noise * np.sqrt(read**2 + shot**2 * level), 0.0, 255.0).astype(np.uint8)
    broken = rng.random(images.shape[:3]) < 0.003
    noisy[broken] = np.where(rng.random(int(broken.sum())) < 0.5, 0, 255)[:, None]
    return np.asarray(noisy)


def lost(images: Images, camera: int) -> Images:
    """One camera sends black pictures; nobody is told."""
    out = images.copy()
    out[camera] = 0
    return out


def boards_along(path_m: Array) -> Array:
    """Billboards (k, 4) beside a driven path (n, 2), left and right in turn, facing who comes."""
    step = np.linalg.norm(np.diff(path_m, axis=0), axis=1)
    kept = np.concatenate([[True], step > 0.05])
    path = path_m[kept]
    if len(path) < 2:
        return np.zeros((0, 4))
    last = path[-1] - path[-2]
    path = np.concatenate([path, path[-1:] + BEYOND_M * last / np.linalg.norm(last)])
    s = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    at = np.arange(BOARD_EVERY_M / 2, s[-1], BOARD_EVERY_M)
    xy = np.stack([np.interp(at, s, path[:, k]) for k in range(2)], axis=1)
    ahead = np.stack([np.interp(at + 1.0, s, path[:, k]) for k in range(2)], axis=1)
    behind = np.stack([np.interp(at - 1.0, s, path[:, k]) for k in range(2)], axis=1)
    yaw = np.arctan2(*(ahead - behind).T[::-1])
    side = np.where(np.arange(len(at)) % 2 == 0, 1.0, -1.0) * BOARD_ASIDE_M
    xy = xy + side[:, None] * np.stack([-np.sin(yaw), np.cos(yaw)], axis=1)
    return np.column_stack([xy, np.full(len(at), BOARD_HIGH_M), yaw + np.pi])


def billboards(
    images: Images,
    depth_m: NDArray[np.float32],
    rig: CameraRig,
    ego: EgoState,
    boards: Array,
    rng: np.random.Generator,
) -> Images:
    """Billboards whose picture changes at every tick; what stands before them hides them.

    Args:
        depth_m: (v, h, w) along the optical axis, of the same cameras.
        boards: (k, 4) in the world, heights above the ego's ground.
    """
    out, depth = images.copy(), depth_m.copy()
    colors = rng.uniform(10, 250, (len(boards), *CELLS, 3))
    raised = boards + np.array([0.0, 0.0, ego.z_m, 0.0])
    for view, camera in enumerate(rig.cameras):
        pose, k = ego.world_from_ego.compose(camera.ego_from_camera), camera.intrinsics
        x, y = np.meshgrid(np.arange(camera.width_px), np.arange(camera.height_px))
        local = np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], np.ones(x.shape)], axis=-1)
        rays = np.ascontiguousarray(local @ pose.rotation.T)
        paint_boards(out[view], depth[view], rays, pose.translation_m, raised, colors)
    return out


def recoloured(look: Appearance, rng: np.random.Generator) -> Appearance:
    """The same weather and light on other materials, other houses' colours and other paint on the cars."""
    other = Appearance.palette(rng)
    names = ("asphalt", "grass", "sidewalk", "foliage", "paint_wear", "grain", "windows_lit")
    seed = int(rng.integers(1 << 31))
    return replace(look, **{name: getattr(other, name) for name in names}, shuffle_tints=True, seed=seed)


def miscalibrated(rig: CameraRig, rng: np.random.Generator, angle_deg: float = 5.0, shift_m: float = 0.10) -> CameraRig:
    """Every camera turned by exactly this angle about some axis and moved by exactly this far; nobody is told."""
    return CameraRig(rig.id, tuple(_knocked(camera, rng, np.radians(angle_deg), shift_m) for camera in rig.cameras))


def _knocked(camera: Camera, rng: np.random.Generator, angle_rad: float, shift_m: float) -> Camera:
    axis, along = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 3)))
    cross = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
    turn = np.eye(3) + np.sin(angle_rad) * cross + (1.0 - np.cos(angle_rad)) * cross @ cross  # Rodrigues
    pose = camera.ego_from_camera
    moved = Pose(turn @ pose.rotation, pose.translation_m + shift_m * along)
    return Camera(camera.name, camera.intrinsics, moved, camera.width_px, camera.height_px)


@dataclass(frozen=True)
class Painter:
    """The transforms of pictures alone, by name, of one drive.

    Attributes:
        camera: the one that is lost under `lost_camera`, never one that looks ahead.
        front: the one that is lost under `lost_front_camera`.
    """

    camera: int
    front: int

    @staticmethod
    def of(rig: CameraRig, rng: np.random.Generator) -> Painter:
        """Choose what is lost."""
        ahead = [float(camera.ego_from_camera.rotation[0, 2]) for camera in rig.cameras]
        front = int(np.argmax(ahead))
        return Painter(int(rng.choice([k for k in range(len(ahead)) if k != front] or [front])), front)

    def paint(self, kind: str, images: Images, rng: np.random.Generator) -> Images:
        """Apply one of PAINTED."""
        if kind == "lost_camera":
            return lost(images, self.camera)
        if kind == "lost_front_camera":
            return lost(images, self.front)
        if kind == "leaves":
            return leaves(images, rng)
        return rain_streaks(images, rng) if kind == "rain_streaks" else sensor_noise(images, rng)


PAINTED = ("leaves", "rain_streaks", "sensor_noise", "lost_camera", "lost_front_camera")
