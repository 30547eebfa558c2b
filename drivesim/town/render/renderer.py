"""TownRenderer: pictures, depth, classes and ids of a town's state for any number of cameras, in one pass."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.town.render import lighting, shading, staging
from drivesim.town.render import visibility as vis
from drivesim.town.render.appearance import Appearance, look_row, palette_of
from drivesim.town.render.frames import render_views
from drivesim.town.render.ground import CLASS_OF, DIRT, DRY_GRASS, GRASS, MATERIALS, MEDIAN
from drivesim.town.render.scene import CELL_M, Scene, load_scene
from drivesim.town.render.sky import detail_image, facade_atlas, sky_image
from drivesim.town.render.standing import Standing
from drivesim.town.render.visibility import Instances, Scratch, Slots
from drivesim.town.roads import RoadNetwork
from drivesim.town.state import TownState

Floats = NDArray[np.float64]
OUTPUTS = ("rgb", "depth", "semantic", "instance")
VIEW_M = 400.0


@dataclass(frozen=True)
class Views:
    """Cameras, v of them, all of one size. CARLA's frame and rotation convention, radians."""

    position_m: Floats  # (v, 3)
    rotation_rad: Floats  # (v, 3) roll, pitch (up), yaw (right)
    fov_rad: Floats  # (v,) horizontal
    width: int
    height: int


@dataclass(frozen=True)
class Rendered:
    """One picture set per view. Depth is along the optical axis; 1000 m where there is nothing."""

    bgra: NDArray[np.uint8]  # (v, h, w, 4)
    depth_m: NDArray[np.float32]  # (v, h, w)
    semantic: NDArray[np.uint8]  # (v, h, w) CARLA's CityObjectLabel
    instance: NDArray[np.uint16]  # (v, h, w) actor row + 1, or 0

    @staticmethod
    def empty(views: int, height: int, width: int) -> Rendered:
        """Buffers to render into."""
        shape = (views, height, width)
        return Rendered(
            np.zeros((*shape, 4), np.uint8),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.uint8),
            np.zeros(shape, np.uint16),
        )


class _Dressed:
    """What an appearance turns into: a look row, textures, tints of the standing things."""

    def __init__(self, appearance: Appearance, scene: Scene) -> None:
        self.look = look_row(appearance)
        self.palette = palette_of(appearance)
        self.sky = sky_image(appearance)
        self.tint = staging.static_tints(scene, appearance)


class TownRenderer:
    """Renders one town; keeps its baked scene in the cache folder. Safe to use from several threads."""

    def __init__(self, network: RoadNetwork, *, seed: int = 0) -> None:
        self.network = network
        self.scene = load_scene(network, seed)
        self.standing = Standing(self.scene)
        self._facade = facade_atlas()
        self._detail = detail_image(seed)
        self._rough = np.zeros(MATERIALS, np.uint8)
        self._rough[[GRASS, DRY_GRASS, DIRT, MEDIAN]] = 1
        self._dressed: OrderedDict[Appearance, _Dressed] = OrderedDict()
        self._local = threading.local()
        self._lock = threading.Lock()

    @property
    def static_boxes(self) -> Floats:
        """Solid scenery, (n, 7): x, y, z, yaw, half length, half width, height."""
        return self.scene.boxes

    def ground_m(self, at: Floats) -> float:
        """Height of the lane point nearest to a position (3,)."""
        points = self.network.point_xyz_m
        return float(points[np.square(points[:, :2] - at[:2]).sum(axis=1).argmin(), 2])

    def render(self, state: TownState, views: Views, appearance: Appearance, *, frame_seed: int = 0, hide_row: int = -1,
               outputs: tuple[str, ...] = OUTPUTS, out: Rendered | None = None) -> Rendered:  # fmt: skip
        """Render every view of a state.

        Args:
            state: read only.
            frame_seed: of the camera noise and the rain.
            hide_row: an actor that is not drawn (the one that carries the cameras); its lamps still shine.
            outputs: which of OUTPUTS are wanted; the others' buffers hold anything.
            out: buffers to reuse, from an earlier call with the same sizes.
        """
        unknown = set(outputs) - set(OUTPUTS)
        if unknown:
            raise ValueError(f"unknown output {sorted(unknown)[0]!r}; there are {', '.join(OUTPUTS)}")
        count, height, width = len(views.fov_rad), views.height, views.width
        result = Rendered.empty(count, height, width) if out is None else out
        if result.bgra.shape != (count, height, width, 4):
            raise ValueError(f"out has shape {result.bgra.shape}, the views need {(count, height, width, 4)}")
        worker = self._worker(width, height, len(state.kind))
        dressed = self._dress(appearance)
        origins = np.ascontiguousarray(views.position_m, np.float64)
        for first, last, anchor in _groups(origins):
            worker.light_up(self, state, dressed, anchor, appearance)
            worker.draw(
                self, state, dressed, views, origins, first, last, frame_seed, hide_row, result, "rgb" in outputs
            )
        return result

    def _worker(self, width: int, height: int, actors: int) -> _Worker:
        workers: dict[tuple[int, int, int], _Worker] = self._local.__dict__.setdefault("workers", {})
        key = (width, height, actors)
        if key not in workers:
            workers[key] = _Worker(width, height, actors, self)
        return workers[key]

    def _dress(self, appearance: Appearance) -> _Dressed:
        with self._lock:
            if appearance not in self._dressed:
                self._dressed[appearance] = _Dressed(appearance, self.scene)
                if len(self._dressed) > 64:
                    self._dressed.popitem(last=False)
            self._dressed.move_to_end(appearance)
            return self._dressed[appearance]


class _Worker:
    """Buffers of one thread for one picture size."""

    def __init__(self, width: int, height: int, actors: int, owner: TownRenderer) -> None:
        f = np.float32
        self.scratch = Scratch.empty(width, height)
        self.slots = Slots(
            np.zeros((vis.MAX_SLOTS, 3), f), np.zeros((vis.MAX_SLOTS, 4), np.int32), np.zeros((vis.MAX_SLOTS, 4), f)
        )
        self.actors = staging.empty_instances(actors)
        self.actor_order = np.zeros(actors, np.int32)
        self.shadow = np.zeros(lighting.SIZE**2, np.uint8)
        self.standing = np.zeros(lighting.SIZE**2, np.uint8)
        self.cast: tuple[float, ...] = ()
        self.light = np.zeros((lighting.LIGHT**2, 3), f)
        self.corner = np.zeros(2, np.float64)
        self.order = np.zeros(len(owner.scene.mesh), np.int32)
        self.chosen = np.zeros(max(len(owner.scene.casters), len(owner.scene.lamps), 1), np.int32)
        self.count = 0
        self.static: Instances = owner.standing.instances

    def light_up(
        self, owner: TownRenderer, state: TownState, dressed: _Dressed, anchor: Floats, appearance: Appearance
    ) -> None:
        """Choose the scenery around `anchor`, rewrite the shadow and lamp grids, stage the actors."""
        scene, look, standing = owner.scene, dressed.look, owner.standing
        self.corner[:] = np.floor(anchor[:2] / 8.0) * 8.0 - lighting.REACH_M + 4.0
        self.static = standing.instances._replace(tint=standing.tinted(dressed.tint))
        self.count = int(
            staging.gather(
                self.order, anchor, VIEW_M + 60.0, scene.cell_start, scene.cell_shape, scene.cell_origin, CELL_M
            )
        )
        sun = look[:3].astype(np.float64)
        if max(look[3:6]) > 0.02 and sun[2] > 0.02:
            shift = -sun[:2] / max(float(sun[2]), 0.12)
            cast = (float(self.corner[0]), float(self.corner[1]), float(shift[0]), float(shift[1]), standing.version)
            if cast != self.cast:  # the standing shadows change only when the grid or the sun moves
                self.standing[:] = 0
                chosen = int(staging.near(self.chosen, standing.casters, self.corner, 2 * lighting.REACH_M, 60.0))
                lighting.cast_static(
                    self.standing, self.corner, standing.casters, self.chosen, chosen, shift[0], shift[1]
                )
                self.cast = cast
            self.shadow[:] = self.standing
        else:
            shift = np.zeros(2)
            self.shadow[:] = 0
        lighting.cast_actors(
            self.shadow,
            self.corner,
            state.kind,
            state.xyz,
            state.rotation,
            state.half_size,
            float(shift[0]),
            float(shift[1]),
            bool(shift.any()),
        )
        self.light[:] = 0
        if look[vis.NIGHT] > 0:
            chosen = int(staging.near(self.chosen, standing.lamps, self.corner, 2 * lighting.REACH_M, 16.0))
            power = look[vis.NIGHT]
            lighting.add_pools(
                self.light,
                self.corner,
                standing.lamps,
                self.chosen,
                chosen,
                np.float32(0.74) * power,
                np.float32(0.60) * power,
                np.float32(0.40) * power,
            )
            lighting.add_headlights(
                self.light,
                self.corner,
                state.kind,
                state.xyz,
                state.rotation,
                state.half_size,
                state.lamps,
                True,
                float(0.85 * power),
            )
        staging.stage_actors(
            self.actors,
            state.kind,
            state.model,
            state.xyz,
            state.rotation,
            state.half_size,
            state.velocity,
            state.actor_id,
            state.lamps,
            state.tint,
            state.time_s[0],
            scene.model_mesh,
            scene.walker_mesh,
            scene.walker_far[0],
            scene.mesh_sphere,
            look,
            self.shadow,
            self.light,
            self.corner,
            appearance.shuffle_tints,
            appearance.seed & 0x7FFFFFFF,
        )
        staging.light_statics(self.static, self.order, self.count, look, self.light, self.corner, scene.kind)

    def draw(
        self,
        owner: TownRenderer,
        state: TownState,
        dressed: _Dressed,
        views: Views,
        origins: Floats,
        first: int,
        last: int,
        frame_seed: int,
        hide_row: int,
        out: Rendered,
        post: bool,
    ) -> None:
        """Views first..last-1 into `out`."""
        count, pixels = len(origins), views.width * views.height
        lens = np.empty((count, 6), np.float32)
        lens[:, 0] = 0.5 * views.width / np.tan(0.5 * np.asarray(views.fov_rad, np.float64))
        lens[:, 1:] = 0.5 * views.width - 0.5, 0.5 * views.height - 0.5, views.width, views.height, VIEW_M
        seeds = ((frame_seed * 2654435761 + np.arange(count, dtype=np.int64) * 2654404609) & 0xFFFFFFFF).astype(
            np.uint32
        )
        look = dressed.look
        if look[vis.FOG_LOW_1PM] > 0:
            look = look.copy()
            look[vis.FOG_FLOOR_M] = owner.ground_m(origins[first])
        paint = shading.Painting(look, dressed.palette, CLASS_OF, owner._rough, owner._detail, dressed.sky,
                                 owner._facade, self.shadow, self.light, self.corner)  # fmt: skip
        render_views(
            first,
            last,
            origins,
            camera_axes(np.asarray(views.rotation_rad, np.float64)),
            lens,
            hide_row,
            seeds,
            owner.scene.meshes,
            self.actors,
            self.actor_order,
            self.static,
            self.order,
            self.count,
            state.light_state,
            owner.scene.ground,
            paint,
            self.scratch,
            self.slots,
            out.bgra.reshape(count, -1).view(np.uint32),
            out.depth_m.reshape(count, pixels),
            out.semantic.reshape(count, pixels),
            out.instance.reshape(count, pixels),
            post,
            owner.standing.lamp_top,
            state.half_size,
        )


def _groups(origins: Floats) -> list[tuple[int, int, Floats]]:
    """Runs of views (first, last, middle) whose cameras are close enough to share light and scenery."""
    out: list[tuple[int, int, Floats]] = []
    first = 0
    for v in range(1, len(origins) + 1):
        if v == len(origins) or np.hypot(*(origins[v, :2] - origins[first, :2])) > 24.0:
            out.append((first, v, origins[first:v].mean(axis=0)))
            first = v
    return out


def camera_axes(rotation: Floats) -> NDArray[np.float32]:
    """Rows right, down, forward (v, 3, 3) of roll, pitch, yaw (v, 3) in CARLA's convention."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(rotation).T, np.cos(rotation).T
    right = (cy * sp * sr - sy * cr, sy * sp * sr + cy * cr, -cp * sr)
    down = (cy * sp * cr + sy * sr, sy * sp * cr - cy * sr, -cp * cr)
    forward = (cp * cy, cp * sy, sp)
    return np.ascontiguousarray(np.stack([np.stack(row, axis=1) for row in (right, down, forward)], axis=1), np.float32)
