"""From drive logs to the training cache: render every state twice, branch some, and label all.

The logs hold the embedded world's whole state, so pictures are rendered here, in any appearance, and a
state can be left again under another action. Runs in several processes; each writes its own rows.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import Camera, CameraRig, EgoState, Frame
from drivesim.geometry import Pose, rotation_from_rpy
from drivesim.geometry.bicycle import actions_from_motion
from drivesim.logs import DriveLog
from drivesim.models.views import VIEW_HEIGHT_PX, VIEW_WIDTH_PX, ViewLayout
from drivesim.planning.kinematics import kinematics
from drivesim.planning.proposals import STEP_S, drive_route, two_phase
from drivesim.recording.branches import branch_readouts, drive_branch, stage
from drivesim.town.render import Appearance
from drivesim.town.state import TownState
from drivesim.town.weather import PRESETS, preset
from drivesim.worlds.town_world import SCENERY_SEED, picture
from training.labels import READOUT_COLUMNS, future_risks, readouts

Array = NDArray[np.float64]
UNSEEN_WEATHERS = ("HardRainNoon", "HardRainSunset", "dense fog")
# In the order of CARLA's WeatherParameters: cloudiness 80, fog density 60 from 5 m on.
DENSE_FOG = np.array([80.0, 0.0, 20.0, 10.0, 40.0, 35.0, 60.0, 5.0, 0.6, 30.0, 1.0, 0.03, 0.0331, 0.0])


@dataclass(frozen=True)
class CacheConfig:
    """What is rendered and branched."""

    branch_share: float = 0.15
    branch_steps: int = 4
    risk_steps: int = 6
    twin_share: float = 0.0  # of the ticks get a twin in which one thing of the world is another, see `training.twins`
    analogy_share: float = 0.0  # of the ticks are one side of an analogy, see `training.analogies`
    stance_share: float = 0.0  # of the ticks are one side of a stance, an analogy in which the ego itself is elsewhere
    jitter_deg: float = 1.0
    jitter_m: float = 0.03
    workers: int = 2
    seed: int = 0
    unseen_weather: bool = False
    looks: int = 60
    sceneries: int = 1  # ways in which a town's houses stand: a drive is seen in two of them, `sceneries_of`


def sceneries_of(config: CacheConfig, number: int) -> tuple[int, int]:
    """Seeds of the scenery that a drive is seen in: in its own look, and in all its other looks.

    Roads, lights and everybody on them are the same in both; houses and trees are not. So what stands beside a road can
    neither be what two pictures of a moment have in common, nor be learned by heart with the town.
    """
    if config.sceneries == 1:
        return SCENERY_SEED, SCENERY_SEED
    own, other = np.random.default_rng([config.seed, 59, number]).choice(config.sceneries, 2, replace=False)
    return int(own), int(other)


@lru_cache(maxsize=1)
def looks(config: CacheConfig) -> tuple[Appearance, ...]:
    """The pool of looks: dressing a new one costs as much as dozens of pictures."""
    rng = np.random.default_rng([config.seed, 3])
    return tuple(draw_look(config, rng) for _ in range(config.looks))


def look_of(config: CacheConfig, rng: np.random.Generator) -> Appearance:
    """A look of the pool."""
    pool = looks(config)
    return pool[int(rng.integers(len(pool)))]


def draw_look(config: CacheConfig, rng: np.random.Generator) -> Appearance:
    """A random appearance; of the weathers kept out of training where the config says so."""
    if not config.unseen_weather:
        look = Appearance.random(rng)  # hard rain and dense fog are kept for tests
        return replace(look, rain=min(look.rain, 0.5), fog_per_m=min(look.fog_per_m, 0.01), dust=min(look.dust, 0.3))
    name = UNSEEN_WEATHERS[int(rng.integers(len(UNSEEN_WEATHERS)))]
    weather = preset(name) if name in PRESETS else DENSE_FOG
    return Appearance.from_weather(weather, int(rng.integers(1 << 31)))


def jittered(rig: CameraRig, config: CacheConfig, rng: np.random.Generator) -> CameraRig:
    """The rig as a mechanic might have mounted it."""
    cameras = []
    for camera in rig.cameras:
        angles = np.radians(rng.normal(0.0, config.jitter_deg, 3))
        pose = camera.ego_from_camera
        turned = rotation_from_rpy(*(float(a) for a in angles)) @ pose.rotation
        moved = pose.translation_m + rng.normal(0.0, config.jitter_m, 3)
        cameras.append(Camera(camera.name, camera.intrinsics, Pose(turned, moved), camera.width_px, camera.height_px))
    return CameraRig(rig.id, tuple(cameras))


def frame_columns(log: DriveLog, i: int, next_ego: EgoState | None) -> dict[str, Any]:
    """Everything of tick i but pictures and risks."""
    frame, action = log.frame(i), np.zeros(2)
    if next_ego is not None:
        poses = np.array([[e.x_m, e.y_m, e.yaw_rad] for e in (frame.ego, next_ego)])
        action = actions_from_motion(poses, np.array([frame.ego.speed_mps, next_ego.speed_mps]), STEP_S)[0]
    return truth_columns(frame, log.column("expert")[i], float(log.column("mode")[i]), action)


def truth_columns(frame: Frame, expert: Array, mode: float, action: Array) -> dict[str, Any]:
    """What the cache says of a frame: read-outs, own motion, what the expert would do (2,) and what was done (2,)."""
    ego, found = frame.ego, dict(readouts(frame))
    return found | {
        "speed": ego.speed_mps, "curvature": found["curvature_ahead"], "kinematics": kinematics(ego, frame.route),
        "expert": expert, "mode": mode, "ego": np.array([ego.x_m, ego.y_m, ego.yaw_rad]),
        "action": np.clip(action, [-8.0, -0.3], [5.0, 0.3]),
    }  # fmt: skip


def risk_columns(frames: list[Frame], config: CacheConfig) -> dict[str, Any]:
    """Hypothetical drives from frames[0] with what would have come of them."""
    steps = config.risk_steps
    profiles = two_phase(steps)
    if len(frames) < steps + 1 or len(frames[0].route.points_m) < 3:
        k = len(profiles)
        empty = np.zeros((k, steps), np.float32)
        return {
            "risk_valid": 0.0, "risk": np.zeros((k, steps, 3), np.float32), "candidate_action": np.zeros((k, steps, 2)),
            "candidate_speed": empty, "candidate_distance": empty,
        }  # fmt: skip
    futures = drive_route(frames[0].ego.speed_mps, frames[0].route, profiles)
    return {
        "risk_valid": 1.0, "risk": future_risks(frames, futures.poses, futures.speeds_mps),
        "candidate_action": futures.actions, "candidate_speed": futures.speeds_mps,
        "candidate_distance": futures.distances_m,
    }  # fmt: skip


def branch_profiles(steps: int, rng: np.random.Generator) -> Array:
    """Two different things to do from one state: (2, steps) m/s2, one braking, one going on."""
    brake = np.full(steps, rng.uniform(-6.0, -1.5))
    go = np.full(steps, rng.uniform(-0.5, 2.5))
    if rng.random() < 0.3:  # change of mind half way
        brake[steps // 2 :], go[steps // 2 :] = rng.uniform(-1, 2), rng.uniform(-4, 0)
    return np.stack([brake, go])


class Paths:
    """Files of one cache under construction."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, name: str) -> NDArray[np.uint8]:
        """A picture array for writing rows into."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r+")  # type: ignore[no-any-return]

    def make(self, name: str, shape: tuple[int, ...]) -> None:
        """Allocate a picture array."""
        np.lib.format.open_memmap(self.folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape).flush()


def fill(
    path: Path, folder: Path, row: int, branch_row: int, branches: int, rig: CameraRig, config: CacheConfig, number: int
) -> int:
    """Render and label one log into its rows of the cache; writes `columns-<number>.npz`."""
    done = folder / f"columns-{number}.npz"
    if done.exists():
        return number
    log = DriveLog(path)
    (town, here), (_, there) = (stage(str(log.attrs["town"]), seed) for seed in sceneries_of(config, number))
    rng = np.random.default_rng([config.seed, number])
    files = Paths(folder)
    a, b, pictures = files.open("views_a"), files.open("views_b"), files.open("branch_views")
    layout = ViewLayout.of(rig)
    frames = [log.frame(i) for i in range(len(log))]
    ego_row = int(log.attrs["ego_row"])
    own = look_of(config, np.random.default_rng([config.seed, 1, number]))
    chosen = {int(i): k for k, i in enumerate(rng.choice(np.arange(1, len(log) - 1), size=branches, replace=False))}
    table: list[dict[str, Any]] = []
    cameras_b, branch = [], dict[int, dict[str, Any]]()
    for i, frame in enumerate(frames):
        state = log.state(i, TownState)
        seed = int(rng.integers(1 << 31))
        a[row + i] = layout.extract(picture(here, state, ego_row, frame.ego.world_from_ego, rig, own, seed))
        moved, fresh = jittered(rig, config, rng), look_of(config, rng)
        b[row + i] = layout.extract(picture(there, state, ego_row, frame.ego.world_from_ego, moved, fresh, seed + 1))
        cameras_b.append(ViewLayout.of(moved).ego_from_camera)
        after = frames[i + 1].ego if i + 1 < len(frames) else None
        table.append(frame_columns(log, i, after) | risk_columns(frames[i : i + config.risk_steps + 1], config))
        if i in chosen:
            k = chosen[i]
            actions, speeds, reads = [], [], []
            look = look_of(config, rng)  # one for both sides: they differ in what the action caused, in nothing else
            for side, profile in enumerate(branch_profiles(config.branch_steps, rng)):
                states, action = drive_branch(town, state, ego_row, frame.ego, frame.route, profile)
                for h, (then, ego) in enumerate(states):
                    image = picture(there, then, ego_row, ego.world_from_ego, rig, look, seed + 2 + h)
                    pictures[branch_row + k, side, h] = layout.extract(image)
                reads.append([branch_readouts(town, then, ego_row, ego, frame) for then, ego in states])
                actions.append(action)
                speeds.append([frame.ego.speed_mps, *(ego.speed_mps for _, ego in states)])
            branch[k] = {
                "start": row + i,
                "action": np.array(actions),
                "speed": np.array(speeds),
                "reads": np.array(reads),
            }
    write_columns(done, table, cameras_b, [branch[k] for k in range(len(chosen))], number)
    return number


def write_columns(
    done: Path, table: list[dict[str, Any]], cameras_b: list[Any], branch: list[dict[str, Any]], number: int
) -> None:
    """One log's columns, atomically."""
    arrays: dict[str, Any] = {key: np.array([row[key] for row in table], np.float32) for key in table[0]}
    arrays["cameras_b"] = np.array(cameras_b, np.float32)
    arrays["episode"] = np.full(len(table), number, np.int32)
    if branch:
        arrays |= {f"branch_{key}": np.array([item[key] for item in branch]) for key in branch[0]}
    partial = done.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    partial.replace(done)


def build_cache(
    logs: list[Path], folder: Path, rig: CameraRig, config: CacheConfig, on_progress: Callable[[float], None]
) -> None:
    """Render and label all logs; goes on where a killed call was, does nothing where all is there.

    Raises:
        LogError: a log cannot be read.
    """
    if (folder / "complete").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    lengths = [len(DriveLog(path)) for path in logs]
    branches = [min(math.ceil(config.branch_share * n), max(0, n - 2)) if config.branch_share else 0 for n in lengths]
    rows, branch_rows = np.cumsum([0, *lengths]), np.cumsum([0, *branches])
    layout = ViewLayout.of(rig)
    shape = (len(layout.views), VIEW_HEIGHT_PX, VIEW_WIDTH_PX, 3)
    files = Paths(folder)
    if not any(folder.glob("columns-*.npz")):
        for name in ("views_a", "views_b"):
            files.make(name, (int(rows[-1]), *shape))
        files.make("branch_views", (int(branch_rows[-1]), 2, config.branch_steps, *shape))
    jobs = [
        (path, folder, int(rows[i]), int(branch_rows[i]), branches[i], rig, config, i) for i, path in enumerate(logs)
    ]  # fmt: skip
    # Logs of one town go one after the other: a town's renderer, with its looks, is slow to make and big.
    jobs.sort(key=lambda job: str(DriveLog(job[0]).attrs["town"]))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.workers, mp_context=context) as pool:
        for finished, future in enumerate(as_completed([pool.submit(fill, *job) for job in jobs])):
            future.result()
            on_progress((finished + 1) / len(jobs))
    parts = [dict(np.load(folder / f"columns-{i}.npz")) for i in range(len(logs))]
    keys = [key for key in parts[0] if not key.startswith("branch_")]
    columns: dict[str, Any] = {key: np.concatenate([part[key] for part in parts]) for key in keys}
    steps = config.branch_steps
    empty: dict[str, NDArray[Any]] = {
        "branch_start": np.zeros(0, np.int64), "branch_action": np.zeros((0, 2, steps, 2), np.float32),
        "branch_speed": np.zeros((0, 2, steps + 1), np.float32),
        "branch_reads": np.zeros((0, 2, steps, len(READOUT_COLUMNS)), np.float32),
    }  # fmt: skip
    for key, nothing in empty.items():
        columns[key] = np.concatenate([nothing, *(part[key].astype(nothing.dtype) for part in parts if key in part)])
    partial = folder / "columns.partial.npz"
    np.savez(partial, intrinsics=layout.intrinsics, cameras_a=layout.ego_from_camera, **columns)
    partial.replace(folder / "columns.npz")
    for i in range(len(logs)):
        (folder / f"columns-{i}.npz").unlink()
    (folder / "complete").touch()
