# mypy: disable-error-code="untyped-decorator,no-any-return"
"""What each pixel shows beside its colour: which polygon of which thing, its normal, its motion.

The polygons are found by the pictures' own rasteriser: it draws numbers of polygons and things where it would
otherwise draw classes and ids, so the pixels fit the pictures exactly.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.town.render import staging
from drivesim.town.render import visibility as vis
from drivesim.town.render.kernels import kernel
from drivesim.town.render.raycast import MISS, Staged
from drivesim.town.render.renderer import VIEW_M, camera_axes
from drivesim.town.render.scene import CELL_M, Scene
from drivesim.town.render.visibility import Scratch, Slots, draw_instances

Floats = NDArray[np.float64]
KEPT_SIZES = 4  # picture sizes whose buffers a thread keeps


@dataclass(frozen=True)
class Camera:
    """One pinhole camera: CARLA's frame and rotation convention, radians."""

    position_m: Floats  # (3,)
    rotation_rad: Floats  # (3,) roll, pitch, yaw
    fov_rad: float
    width: int
    height: int

    @property
    def axes(self) -> NDArray[np.float32]:
        """Rows right, down, forward (3, 3) in the world."""
        axes: NDArray[np.float32] = camera_axes(np.asarray(self.rotation_rad, np.float64)[None])[0]
        return axes

    @property
    def lens(self) -> NDArray[np.float32]:
        """(6,) focal length, centre x, y, width, height (px), view distance (m), as the rasteriser takes them."""
        focal = 0.5 * self.width / np.tan(0.5 * self.fov_rad)
        centre = 0.5 * self.width - 0.5, 0.5 * self.height - 0.5
        return np.array([focal, *centre, self.width, self.height, VIEW_M], np.float32)


@dataclass(frozen=True)
class SeenThings:
    """What the h * w pixels of one view show, row by row."""

    thing: NDArray[np.int32]  # MISS (sky), a standing thing i >= 0, or -2 - row for an actor
    polygon: NDArray[np.int32]
    depth_m: NDArray[np.float32]  # along the optical axis


@kernel
def _find(  # type: ignore[no-untyped-def]
    origin, axes, lens, hide, meshes, actors, actor_order, scenery, order, count, look, s, slots, thing, polygon, depth
):
    """Draw one view and write what each pixel shows."""
    for k in range(s.inverse_z.shape[0]):
        s.inverse_z[k] = np.float32(0.001)
        s.slot[k] = np.int32(-1)
    for x in range(s.column.shape[0]):
        s.tangent[x] = (s.column[x] - lens[1]) / lens[0]
    near_first = staging.sort_actors(actor_order, actors, origin)
    split = draw_instances(actor_order, near_first, origin, axes, lens, meshes, actors, look, s, slots, 0, hide)
    draw_instances(order, count, origin, axes, lens, meshes, scenery, look, s, slots, split, -1)
    for k in range(s.slot.shape[0]):
        slot = s.slot[k]
        thing[k], polygon[k], depth[k] = MISS, 0, np.float32(1) / s.inverse_z[k]
        if slot >= 0:
            polygon[k] = slots.label[slot, 1]
            thing[k] = slots.label[slot, 2] if slot >= split else -2 - slots.label[slot, 2]


@kernel
def _normals(thing, polygon, plane, scenery, actors, out):  # type: ignore[no-untyped-def]
    """World normals; zeros for the sky."""
    for k in range(thing.shape[0]):
        out[k, 0] = out[k, 1] = out[k, 2] = np.float32(0)
        if thing[k] == MISS:
            continue
        p = polygon[k]
        r = scenery[thing[k]] if thing[k] >= 0 else actors[-2 - thing[k]]
        for c in range(3):
            out[k, c] = r[3 * c] * plane[p, 0] + r[3 * c + 1] * plane[p, 1] + r[3 * c + 2] * plane[p, 2]


@kernel
def _screen(axes, x, y, z, half_x, half_y):  # type: ignore[no-untyped-def]
    """Where a point seen from the camera stands on the screen: -1..1 to the right and up; depth."""
    depth = axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z
    over = 1.0 / max(depth, 1e-6)
    across = (axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z) * over / half_x
    return across, -(axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z) * over / half_y, depth


@kernel
def _flow(  # type: ignore[no-untyped-def]
    thing, depth, width, tangent_x, tangent_y, half_x, half_y, origin, axes, origin_before, axes_before,
    moving, moving_before, same, out,
):  # fmt: skip
    """Screen position now less that at the time before, per pixel; axes in float64."""
    for k in range(thing.shape[0]):
        u, v = tangent_x[k % width], tangent_y[k // width]
        dx = axes[2, 0] + axes[0, 0] * u + axes[1, 0] * v
        dy = axes[2, 1] + axes[0, 1] * u + axes[1, 1] * v
        dz = axes[2, 2] + axes[0, 2] * u + axes[1, 2] * v
        here_x, here_y, _ = _screen(axes, dx, dy, dz, half_x, half_y)
        if thing[k] != MISS:
            d = float(depth[k])
            px, py, pz = origin[0] + dx * d, origin[1] + dy * d, origin[2] + dz * d
            if thing[k] < MISS and same[-2 - thing[k]]:
                row = -2 - thing[k]
                r, q = moving.rotation[row], moving_before.rotation[row]
                ax, ay, az = px - moving.position[row, 0], py - moving.position[row, 1], pz - moving.position[row, 2]
                lx = r[0] * ax + r[3] * ay + r[6] * az
                ly = r[1] * ax + r[4] * ay + r[7] * az
                lz = r[2] * ax + r[5] * ay + r[8] * az
                px = moving_before.position[row, 0] + q[0] * lx + q[1] * ly + q[2] * lz
                py = moving_before.position[row, 1] + q[3] * lx + q[4] * ly + q[5] * lz
                pz = moving_before.position[row, 2] + q[6] * lx + q[7] * ly + q[8] * lz
            dx, dy, dz = px - origin_before[0], py - origin_before[1], pz - origin_before[2]
        x, y, ahead = _screen(axes_before, dx, dy, dz, half_x, half_y)
        out[k, 0] = out[k, 1] = np.float32(0)
        if ahead > 0.01:  # else it was behind the camera
            out[k, 0] = min(max(here_x - x, -2.0), 2.0)
            out[k, 1] = min(max(here_y - y, -2.0), 2.0)


class ThingFinder:
    """Finds what pixels show of one town's scene. Safe to use from several threads."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        count = len(scene.meshes.plane)
        self._numbered = scene.meshes._replace(klass=np.arange(count, dtype=np.int32), kind=np.zeros(count, np.uint8))
        self._look = np.zeros(vis.LOOK_COLUMNS, np.float32)
        self._local = threading.local()

    def find(self, staged: Staged, camera: Camera, *, hide_row: int = -1) -> SeenThings:
        """What each pixel of a camera shows; `hide_row` is an actor that is not drawn."""
        scene, origin = self._scene, np.ascontiguousarray(camera.position_m, np.float64)
        scratch, slots, order, actor_order = self._buffers(camera.width, camera.height, len(staged.actor_id))
        count = int(staging.gather(order, origin, VIEW_M + 60.0, scene.cell_start, scene.cell_shape, scene.cell_origin,
                                   CELL_M))  # fmt: skip
        pixels = camera.width * camera.height
        found = SeenThings(np.zeros(pixels, np.int32), np.zeros(pixels, np.int32), np.zeros(pixels, np.float32))
        actors = staged.actors._replace(ident=np.arange(len(staged.actor_id), dtype=np.int32))
        scenery = staged.scenery._replace(ident=np.arange(len(scene.mesh), dtype=np.int32))
        _find(origin, camera.axes, camera.lens, hide_row, self._numbered, actors, actor_order, scenery, order, count,
              self._look, scratch, slots, found.thing, found.polygon, found.depth_m)  # fmt: skip
        return found

    def normals(self, staged: Staged, found: SeenThings, camera: Camera) -> NDArray[np.float32]:
        """Outward unit normals (h, w, 3) in the world; zeros for the sky."""
        out = np.zeros((len(found.thing), 3), np.float32)
        _normals(found.thing, found.polygon, self._scene.meshes.plane, staged.scenery.rotation, staged.actors.rotation,
                 out)  # fmt: skip
        return out.reshape(camera.height, camera.width, 3)

    def flow(
        self, staged: Staged, found: SeenThings, camera: Camera, staged_before: Staged, before: Camera
    ) -> NDArray[np.float32]:
        """How far each pixel's point has moved on the screen since another time, (h, w, 2): right and up.

        The unit is half a picture's width or height, as in CARLA's velocity buffer, and 2 the most. Actors move as
        rigid bodies (limbs do not count); one that was not there before counts as standing.
        """
        out = np.zeros((len(found.thing), 2), np.float32)
        lens = camera.lens.astype(np.float64)
        across, down = (np.arange(camera.width) - lens[1]) / lens[0], (np.arange(camera.height) - lens[2]) / lens[0]
        same = (staged.actor_id == staged_before.actor_id) & (staged.actor_id != 0)
        _flow(found.thing, found.depth_m, camera.width, across, down,
              0.5 * camera.width / lens[0], 0.5 * camera.height / lens[0],
              np.asarray(camera.position_m, np.float64), camera.axes.astype(np.float64),
              np.asarray(before.position_m, np.float64), before.axes.astype(np.float64), staged.moving,
              staged_before.moving, same, out)  # fmt: skip
        return out.reshape(camera.height, camera.width, 2)

    def _buffers(
        self, width: int, height: int, actors: int
    ) -> tuple[Scratch, Slots, NDArray[np.int32], NDArray[np.int32]]:
        kept = self._local.__dict__.setdefault("buffers", {})
        key = (width, height, actors)
        if key not in kept:
            if len(kept) >= KEPT_SIZES:
                kept.clear()
            f = np.float32
            scratch = Scratch.empty(width, height)
            slots = Slots(np.zeros((vis.MAX_SLOTS, 3), f), np.zeros((vis.MAX_SLOTS, 4), np.int32),
                          np.zeros((vis.MAX_SLOTS, 4), f))  # fmt: skip
            kept[key] = scratch, slots, np.zeros(len(self._scene.mesh), np.int32), np.zeros(actors, np.int32)
        buffers: tuple[Scratch, Slots, NDArray[np.int32], NDArray[np.int32]] = kept[key]
        return buffers
