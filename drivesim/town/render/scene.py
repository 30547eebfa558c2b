"""The baked scene of a town: meshes, standing instances, ground raster; cached on disk by content."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from drivesim.town.catalogue import MODELS, SHAPE_WALKER
from drivesim.town.render import people, street, vehicles
from drivesim.town.render.ground import Ground, build_ground
from drivesim.town.render.meshes import Mesh, Meshes, bounds, pack
from drivesim.town.render.terrain import build_land, deck_meshes, land_meshes
from drivesim.town.roads import RoadNetwork
from drivesim.town.scenery import CITY, STYLES, SUBURB, Scenery, scenery

SCENE_VERSION = 6
CELL_M = 64.0
KIND_LAND, KIND_HOUSE, KIND_TREE, KIND_LAMP, KIND_MAST, KIND_HEAD, KIND_SIGN, KIND_PROP = range(8)


@dataclass(frozen=True)
class Scene:
    """What stands still; n instances sorted by cell, m meshes."""

    position: NDArray[np.float64]  # (n, 3)
    yaw: NDArray[np.float64]  # (n,)
    scale: NDArray[np.float32]  # (n,)
    mesh: NDArray[np.int32]  # (n,)
    far: NDArray[np.int32]  # (n,)
    kind: NDArray[np.uint8]  # (n,) KIND_*
    key: NDArray[np.int32]  # (n,)
    signal: NDArray[np.int32]  # (n,)
    mesh_sphere: NDArray[np.float32]  # (m, 2) height of the centre, radius
    cell_start: NDArray[np.int32]  # (rows * columns + 1,)
    cell_shape: NDArray[np.int32]  # (2,) rows, columns
    cell_origin: NDArray[np.float64]  # (2,)
    model_mesh: NDArray[np.int32]  # (models, 2) near, far
    walker_mesh: NDArray[np.int32]  # (builds, phases)
    walker_far: NDArray[np.int32]  # (1,)
    casters: NDArray[np.float64]  # (c, 8) shadow boxes, see lighting.cast_static
    lamps: NDArray[np.float64]  # (l, 3) x, y, reach of the lamp light
    lamp_top: NDArray[np.float64]  # (l, 3) the bulbs
    boxes: NDArray[np.float64]  # (b, 7) x, y, z, yaw, half length, half width, height
    meshes: Meshes
    ground: Ground


def cache_folder() -> Path:
    """$DRIVESIM_CACHE or ~/.cache/drivesim."""
    return Path(os.environ.get("DRIVESIM_CACHE") or Path.home() / ".cache" / "drivesim")


def content_hash(network: RoadNetwork) -> str:
    """Of every array of the network."""
    digest = hashlib.sha256(network.name.encode())
    for item in fields(RoadNetwork):
        if item.name != "name":
            digest.update(np.ascontiguousarray(getattr(network, item.name)).tobytes())
    return digest.hexdigest()[:16]


def load_scene(network: RoadNetwork, seed: int = 0) -> Scene:
    """The scene from the cache, or built and cached."""
    models = hashlib.sha256(repr(MODELS).encode()).hexdigest()[:6]
    name = network.name.rsplit("/", 1)[-1]
    folder = cache_folder() / "scenes" / f"{name}-{content_hash(network)}-{models}-s{seed}-v{SCENE_VERSION}"
    if not (folder / "complete").exists():
        _save(build_scene(network, seed), folder)
    return _load(folder)


def _save(scene: Scene, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for item in fields(Scene):
        value = getattr(scene, item.name)
        if isinstance(value, (Meshes, Ground)):
            for name, array in value._asdict().items():
                np.save(partial / f"{item.name}.{name}.npy", array)
        else:
            np.save(partial / f"{item.name}.npy", value)
    (partial / "complete").write_text("")
    try:
        partial.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(partial, ignore_errors=True)


def _load(folder: Path) -> Scene:
    def read(name: str) -> NDArray[np.generic]:
        # only the raster is large enough to share between processes
        mode: Literal["r"] | None = "r" if name.startswith("ground.level") else None
        array: NDArray[np.generic] = np.load(folder / f"{name}.npy", mmap_mode=mode, allow_pickle=False)
        return array

    groups: dict[str, Any] = {"meshes": Meshes, "ground": Ground}
    values: dict[str, object] = {}
    for item in fields(Scene):
        if item.name in groups:
            kind = groups[item.name]
            values[item.name] = kind(**{name: read(f"{item.name}.{name}") for name in kind._fields})
        else:
            values[item.name] = read(item.name)
    return Scene(**values)  # type: ignore[arg-type]


class _Builder:
    """Collects meshes and instances."""

    def __init__(self) -> None:
        self.meshes: list[Mesh] = []
        self.rows: list[tuple[float, float, float, float, float, int, int, int, int, int]] = []

    def mesh(self, mesh: Mesh) -> int:
        self.meshes.append(mesh)
        return len(self.meshes) - 1

    def put(self, xyz: tuple[float, float, float], yaw: float, mesh: int, far: int, kind: int, *, scale: float = 1.0,
            key: int = 0, signal: int = -1) -> None:  # fmt: skip
        self.rows.append((*xyz, yaw, scale, mesh, far, kind, key, signal))


def build_scene(network: RoadNetwork, seed: int = 0) -> Scene:
    """Assemble the meshes and the standing instances of a town; a few seconds."""
    things = scenery(network, seed)
    land = build_land(network)
    b = _Builder()
    model_mesh = np.full((len(MODELS), 2), -1, np.int32)
    for row, model in enumerate(MODELS):
        if model.shape != SHAPE_WALKER:
            model_mesh[row] = b.mesh(vehicles.vehicle_mesh(model)), b.mesh(vehicles.far_mesh(model))
    walker = np.array(
        [
            [b.mesh(people.walker_mesh(build, phase)) for phase in range(people.PHASES)]
            for build in range(people.BUILDS)
        ],
        np.int32,
    )
    walker_far = np.array([b.mesh(people.far_walker_mesh())], np.int32)
    chunks, centres = land_meshes(land)
    decks, deck_centres = deck_meshes(network, land.deck)
    distant, _ = land_meshes(land, coarse=True)
    for mesh, afar, at in zip([*chunks, *decks], [*distant, *decks], [*centres, *deck_centres], strict=True):
        near = b.mesh(mesh)
        b.put(
            (at[0], at[1], at[2]),
            0.0,
            near,
            near if len(afar.polygons) >= len(mesh.polygons) else b.mesh(afar),
            KIND_LAND,
        )
    _stand(b, things, land.at)
    style = STYLES.get(network.name.rsplit("/", 1)[-1], SUBURB)
    meshes = pack(b.meshes)
    sphere = np.array([bounds(mesh) if mesh.vertices else (0.0, 0.1) for mesh in b.meshes], np.float32)
    return _finish(
        b, meshes, sphere, things, model_mesh, walker, walker_far, build_ground(network, land.deck, city=style == CITY)
    )


def _stand(b: _Builder, s: Scenery, height_at) -> None:  # type: ignore[no-untyped-def]
    """Instances of the scenery, set on the land."""

    def z_of(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(height_at(rows[:, :2])) if len(rows) else np.zeros(0)

    for k, (row, z) in enumerate(zip(s.buildings, z_of(s.buildings), strict=True)):
        mesh = b.mesh(street.building_mesh(row[4], row[5], row[6], int(row[7])))
        b.put(
            (row[0], row[1], min(float(z), row[2]) - 0.1),
            row[3],
            mesh,
            mesh,
            KIND_HOUSE,
            key=int(row[8]) | (k & 0x7FFFF) << 8,
        )
    trees = [(b.mesh(street.tree_mesh(k)), b.mesh(street.far_tree_mesh(k))) for k in range(street.TREES)]
    for row, z in zip(s.trees, z_of(s.trees), strict=True):
        near, far = trees[int(row[5])]
        b.put((row[0], row[1], float(z) - 0.05), row[3], near, far, KIND_TREE, scale=row[4])
    lamp, lamp_far = b.mesh(street.lamp_mesh()), b.mesh(street.lamp_mesh(far=True))
    for row, z in zip(s.lamps, z_of(s.lamps), strict=True):
        b.put((row[0], row[1], float(z)), row[3], lamp, lamp_far, KIND_LAMP)
    masts: dict[tuple[int, float], int] = {}
    for row in s.masts:
        size = (int(row[4]), float(row[5]))
        if size not in masts:
            masts[size] = b.mesh(street.mast_mesh(*size))
        b.put((row[0], row[1], row[2]), row[3], masts[size], masts[size], KIND_MAST)
    head = b.mesh(street.head_mesh())
    for row in s.heads:
        b.put((row[0], row[1], row[2]), row[3], head, head, KIND_HEAD, signal=int(row[4]))
    signs = [b.mesh(street.sign_mesh(k)) for k in range(street.SIGNS)]
    for row, z in zip(s.signs, z_of(s.signs), strict=True):
        b.put((row[0], row[1], float(z)), row[3], signs[int(row[4])], signs[int(row[4])], KIND_SIGN)
    props = [b.mesh(street.prop_mesh(k)) for k in range(5)]
    for row, z in zip(s.props, z_of(s.props), strict=True):
        b.put((row[0], row[1], float(z)), row[3], props[int(row[4])], -1, KIND_PROP)


def _finish(b: _Builder, meshes: Meshes, sphere: NDArray[np.float32], s: Scenery, model_mesh: NDArray[np.int32],
            walker: NDArray[np.int32], walker_far: NDArray[np.int32], ground: Ground) -> Scene:  # fmt: skip
    table = np.asarray(b.rows, np.float64).reshape(-1, 10)
    low = np.floor(table[:, :2].min(axis=0) / CELL_M) * CELL_M
    cell = ((table[:, :2] - low) / CELL_M).astype(int)
    shape = cell.max(axis=0)[::-1] + 1
    flat = cell[:, 1] * shape[1] + cell[:, 0]
    order = np.argsort(flat, kind="stable")
    table = table[order]
    start = np.searchsorted(flat[order], np.arange(shape[0] * shape[1] + 1)).astype(np.int32)
    arm = np.stack([np.cos(s.lamps[:, 3]), np.sin(s.lamps[:, 3])], axis=1) * 1.5
    top = np.column_stack([s.lamps[:, :2] + arm, s.lamps[:, 2] + 7.8])
    return Scene(
        position=np.ascontiguousarray(table[:, :3]),
        yaw=np.ascontiguousarray(table[:, 3]),
        scale=table[:, 4].astype(np.float32),
        mesh=table[:, 5].astype(np.int32),
        far=table[:, 6].astype(np.int32),
        kind=table[:, 7].astype(np.uint8),
        key=table[:, 8].astype(np.int32),
        signal=table[:, 9].astype(np.int32),
        mesh_sphere=sphere,
        cell_start=start,
        cell_shape=shape.astype(np.int32),
        cell_origin=low,
        model_mesh=model_mesh,
        walker_mesh=walker,
        walker_far=walker_far,
        casters=_casters(s),
        lamps=np.column_stack([top[:, :2], np.full(len(top), 15.0)]),
        lamp_top=top,
        boxes=_boxes(s),
        meshes=meshes,
        ground=ground,
    )


def _casters(s: Scenery) -> NDArray[np.float64]:
    """Shadow boxes of houses, crowns, trunks and poles."""

    def boxes(
        xy: NDArray[np.float64], yaw: NDArray[np.float64], half: list[NDArray[np.float64] | float]
    ) -> NDArray[np.float64]:
        return np.column_stack([xy, np.cos(yaw), np.sin(yaw), *[np.broadcast_to(h, (len(xy),)) for h in half]])

    t = s.trees
    k = t[:, 4]
    bush = t[:, 5] == 6
    crown = np.where(bush, 0.6, 1.55) * k
    low, high = np.where(bush, 0.0, 3.2) * k, np.where(bush, 0.9, 6.3) * k
    out = [
        boxes(s.buildings[:, :2], s.buildings[:, 3], [s.buildings[:, 4], s.buildings[:, 5], 0.0, s.buildings[:, 6]]),
        boxes(t[:, :2], t[:, 3], [crown, crown, low, high]),
        boxes(t[:, :2], t[:, 3] + np.pi / 4, [crown, crown, low + 0.2 * k, high - 0.3 * k]),
        boxes(t[:, :2], t[:, 3], [0.16 * k, 0.16 * k, 0.0, 3.3 * k]),
        boxes(s.lamps[:, :2], s.lamps[:, 3], [0.1, 0.1, 0.0, 8.0]),
        boxes(s.masts[:, :2], s.masts[:, 3], [0.11, 0.11, 0.0, s.masts[:, 5]]),
        boxes(s.heads[:, :2], s.heads[:, 3], [0.2, 0.25, 4.0, 5.2]),
        boxes(s.props[:, :2], s.props[:, 3], [0.25, 0.5, 0.0, 0.8]),
    ]
    return np.concatenate(out).astype(np.float64)


def _boxes(s: Scenery) -> NDArray[np.float64]:
    solids = s.solids
    return np.column_stack([solids[:, :2], np.zeros(len(solids)), solids[:, 2:]])
