"""Camera sensors: which views to draw, drawn together where they share a size, and their pixels for the wire."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server.actors import ServerActor
from drivesim.carla_server.lenses import Exposure, Lens, distort, distort_picture
from drivesim.carla_server.painter import Task
from drivesim.carla_server.poses import Floats
from drivesim.town.state import TownState

IMAGE_LIMIT_PX = 4096
DEPTH_RANGE_M = 1000.0
RGB, DEPTH, SEMANTIC, INSTANCE = "rgb", "depth", "semantic_segmentation", "instance_segmentation"
NORMALS, FLOW, EVENTS = "normals", "optical_flow", "dvs"
SURFACES = (NORMALS, FLOW)
_OUTPUTS = {
    RGB: ("rgb",), EVENTS: ("rgb",), DEPTH: ("depth",), SEMANTIC: ("semantic",), INSTANCE: ("semantic", "instance"),
}  # fmt: skip


@dataclass(frozen=True)
class CameraModel:
    """What a camera actor's attributes say."""

    kind: str
    width: int
    height: int
    fov_deg: float
    lens: Lens | None = None
    exposure: Exposure | None = None

    @staticmethod
    def of(actor: ServerActor) -> CameraModel:
        """Read the attributes; sizes are kept within 1 to 4096 pixels, the view within 1 to 170 degrees."""
        width = int(min(max(actor.number("image_size_x", 800), 1), IMAGE_LIMIT_PX))
        height = int(min(max(actor.number("image_size_y", 600), 1), IMAGE_LIMIT_PX))
        fov_deg = min(max(actor.number("fov", 90.0), 1.0), 170.0)
        kind = actor.type_id.rsplit(".", 1)[1]
        exposure = Exposure.of(actor) if kind in (RGB, EVENTS) else None
        return CameraModel(kind, width, height, fov_deg, Lens.of(actor), exposure)


@dataclass(frozen=True)
class Scene:
    """What a tick's pictures show: a copy of the state, and how it looks."""

    renderer: Any
    state: TownState
    appearance: Any
    frame_seed: int
    time_s: float
    row_id: NDArray[np.uint32]  # actor id of each row


@dataclass
class Shot:
    """One camera that is due: its pose, and where its picture goes."""

    actor: ServerActor
    model: CameraModel
    matrix: Floats
    rotation: Floats
    hide_row: int
    memory: Any = None  # what the kind keeps from one picture to the next
    body: NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.uint8))


def hidden_row(state: TownState, row: int, relative: Floats | None) -> int:
    """The parent's row if the camera sits in or on the parent's box (then it is not drawn), else -1."""
    if row < 0 or relative is None:
        return -1
    half = state.half_size[row]
    x, y, z = relative[:3, 3]
    inside = abs(x) < half[0] + 0.3 and abs(y) < half[1] + 0.3 and -0.3 < z < 2.0 * half[2] + 0.8
    return row if inside else -1


def drawing_tasks(scene: Scene, shots: list[Shot], threads: int) -> list[Task]:
    """The work of filling the shots' bodies, cut so that the threads share it."""
    return [partial(_draw, scene, part) for group in _groups(shots) for part in _parts(group, threads)]


def _groups(shots: list[Shot]) -> list[list[Shot]]:
    """Shots that one call can draw: the same size, hidden actor and noise; those that share a view stay together."""
    groups: dict[tuple[int, int, int, bool], list[Shot]] = {}
    for shot in shots:
        model = shot.model
        groups.setdefault((model.width, model.height, shot.hide_row, model.kind == EVENTS), []).append(shot)
    return list(groups.values())


def _parts(group: list[Shot], count: int) -> list[list[Shot]]:
    """Cut a group into at most `count` parts of about equally many views."""
    views: dict[tuple[float, ...], list[Shot]] = {}
    for shot in group:
        views.setdefault(_view_key(shot), []).append(shot)
    bundles = list(views.values())
    size = -(-len(bundles) // count)
    cuts = [bundles[first : first + size] for first in range(0, len(bundles), size)]
    return [[shot for bundle in cut for shot in bundle] for cut in cuts]


def _view_key(shot: Shot) -> tuple[float, ...]:
    return (*shot.matrix[:3, 3].tolist(), *shot.rotation.tolist(), math.radians(shot.model.fov_deg))


def _draw(scene: Scene, shots: list[Shot]) -> None:
    from drivesim.town.render import Views  # late: a server without cameras starts without the renderer

    seen: dict[tuple[float, ...], int] = {}
    index = [seen.setdefault(_view_key(shot), len(seen)) for shot in shots]
    table = np.array(list(seen), np.float64)
    model = shots[0].model
    views = Views(table[:, :3].copy(), table[:, 3:6].copy(), table[:, 6].copy(), model.width, model.height)
    outputs = tuple({output: None for shot in shots for output in _OUTPUTS[shot.model.kind]})
    seed = 0 if model.kind == EVENTS else scene.frame_seed  # noise and rain that move would make events
    drawn = scene.renderer.render(scene.state, views, scene.appearance, frame_seed=seed,
                                  hide_row=shots[0].hide_row, outputs=outputs)  # fmt: skip
    names = np.concatenate([[0], scene.row_id & 0xFFFF]).astype(np.uint16)
    for shot, view in zip(shots, index, strict=True):
        shot.body = _pixels(shot, drawn, view, names, scene.time_s)


def _pixels(shot: Shot, drawn: Any, view: int, names: NDArray[np.uint16], time_s: float) -> NDArray[Any]:
    model = shot.model
    if model.kind in (RGB, EVENTS):
        bgra = distort_picture(np.ascontiguousarray(drawn.bgra[view]), model.lens)
        bgra = bgra if model.exposure is None else model.exposure.apply(bgra)
        return bgra if model.kind == RGB else shot.memory.look(bgra, time_s)
    if model.kind == DEPTH:
        return depth_bgra(distort(drawn.depth_m[view], model.lens))
    semantic = distort(drawn.semantic[view], model.lens)
    if model.kind == SEMANTIC:
        return label_bgra(semantic, None)
    return label_bgra(semantic, names[distort(drawn.instance[view], model.lens)])


def depth_bgra(depth_m: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Depth as CARLA encodes it: R + 256 G + 65536 B of 2^24 - 1 steps over a kilometre; (h, w) -> (h, w, 4)."""
    share = np.clip(depth_m.astype(np.float64) / DEPTH_RANGE_M, 0.0, 1.0)
    steps = (share * (2**24 - 1)).astype(np.uint32)
    pixels = np.empty((*depth_m.shape, 4), np.uint8)
    pixels[..., 0] = steps >> 16
    pixels[..., 1] = (steps >> 8) & 255
    pixels[..., 2] = steps & 255
    pixels[..., 3] = 255
    return pixels


def label_bgra(semantic: NDArray[np.uint8], instance: NDArray[np.uint16] | None) -> NDArray[np.uint8]:
    """Labels in R, and the instance's 16 bits in G (low) and B (high); (h, w) -> (h, w, 4)."""
    pixels = np.zeros((*semantic.shape, 4), np.uint8)
    pixels[..., 2] = semantic
    pixels[..., 3] = 255
    if instance is not None:
        pixels[..., 1] = instance & 255
        pixels[..., 0] = instance >> 8
    return pixels
