"""Moments with incidents (`training.incidents`), drawn, encoded and labelled: lessons for the predictor and the heads.

Made after stage one, with the encoder that it left: pictures live only until they are encoded. Every lesson is an
episode of two ticks, the one before the moment and the moment itself, so whatever wants a past finds it; some have two
futures under different actions as well, drawn along the analytic drive of `drive_route`. One file per drive, so a
killed call goes on.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.datatypes import CameraRig, EgoState, Frame
from drivesim.logs import DriveLog
from drivesim.models.encoder import EncoderConfig, SlotEncoder
from drivesim.models.views import ViewLayout
from drivesim.planning.expert import ExpertPlanner, expert_action
from drivesim.planning.proposals import drive_route
from drivesim.recording.branches import stage
from drivesim.town.render import Appearance
from drivesim.town.state import TownState
from drivesim.worlds.town_world import picture, stop_lines
from training.cache import CacheConfig, branch_profiles, look_of, risk_columns, sceneries_of, truth_columns
from training.clips import STAGED, Clips
from training.incidents import Incident, Scene, draw, in_frame, in_state, to_world
from training.labels import future_risks
from training.latents import Latents

Array = NDArray[np.float64]
TRIES = 4  # draws for a moment, and for two futures in which nobody drives through anybody


@dataclass(frozen=True)
class StagingConfig:
    """How many incidents, and how many of them with two futures.

    Attributes:
        share: of the logged ticks that get one; 0: none.
        branch_share: of those that get two futures.
        near_people: of the people who cross or stand, those near enough to matter at once.
    """

    share: float = 0.0
    branch_share: float = 0.6
    near_people: float = 0.6


@dataclass(frozen=True)
class Job:
    """One drive's lessons."""

    path: Path
    out: Path
    number: int
    rig: CameraRig
    cache: CacheConfig
    config: StagingConfig
    encoder: EncoderConfig
    weights: dict[str, NDArray[Any]]

    @property
    def done(self) -> Path:
        """Where its lessons are kept: those of another encoder have another name."""
        return self.out / f"{digest(self.weights)}-{self.number}.npz"


def digest(weights: dict[str, NDArray[Any]]) -> str:
    """Eight letters that tell encoders apart; a checkpoint keeps half precision, and is still the same encoder."""
    told = hashlib.sha256()
    for key in sorted(key for key, value in weights.items() if value.dtype.kind == "f"):
        told.update(key.encode() + weights[key].astype(np.float16).tobytes())
    return told.hexdigest()[:8]


def weights_of(encoder: SlotEncoder) -> dict[str, NDArray[Any]]:
    """An encoder's parameters and buffers."""
    return {key: value.detach().cpu().numpy() for key, value in encoder.state_dict().items()}


class Stage:
    """A drive's town, its renderer and an encoder."""

    def __init__(self, job: Job) -> None:
        self.job, self.log = job, DriveLog(job.path)
        self.town, self.renderer = stage(str(self.log.attrs["town"]), sceneries_of(job.cache, job.number)[1])
        self.ego_row, self.layout = int(self.log.attrs["ego_row"]), ViewLayout.of(job.rig)
        self.frames = [self.log.frame(i) for i in range(len(self.log))]
        self.encoder = SlotEncoder(job.encoder).eval()
        self.encoder.load_state_dict({key: torch.from_numpy(value) for key, value in job.weights.items()})
        self.rng = np.random.default_rng([job.cache.seed, 23, job.number])

    def light_rows(self, frame: Frame) -> NDArray[np.intp]:
        """The town's rows (q,) of a frame's stop lines: the nearest ones, since a log may hold not all of them."""
        rows, poses, _ = stop_lines(self.town.network)
        apart = frame.lights.stop_pose[:, None, :2] - poses[None, :, :2]
        return np.asarray(rows[np.square(apart).sum(-1).argmin(1)] if len(rows) else np.zeros(0, np.intp))

    def views(self, state: TownState, ego: EgoState, look: Appearance) -> NDArray[np.uint8]:
        """What the rig sees."""
        seed = int(self.rng.integers(1 << 31))
        where = ego.world_from_ego
        return self.layout.extract(picture(self.renderer, state, self.ego_row, where, self.job.rig, look, seed))

    @torch.no_grad()
    def encoded(self, views: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Latents (k, n, d), not standardised."""
        pictures = torch.from_numpy(np.stack(views)).permute(0, 1, 4, 2, 3)
        intrinsics = torch.from_numpy(self.layout.intrinsics)
        return np.asarray(self.encoder(pictures, intrinsics, torch.from_numpy(self.layout.ego_from_camera)).numpy())

    def lesson(self, tick: int) -> dict[str, Any] | None:
        """What an incident at a tick teaches; None where none could be placed."""
        steps, ego = self.job.cache.risk_steps, self.frames[tick].ego
        if len(self.frames[tick].route.points_m) < 3:
            return None
        state, scene = self.log.state(tick, TownState), Scene.of(self.frames[tick], steps, self.job.config.near_people)
        for _ in range(TRIES):
            incident = draw(self.town, state, self.ego_row, scene, self.rng)
            if incident is None:
                continue
            now = in_state(self.town, state, ego, incident, 1)
            before = in_state(self.town, self.log.state(tick - 1, TownState), ego, incident, 0)
            if now is not None and before is not None:
                return self.taught(tick, incident, before, now)
        return None

    def taught(self, tick: int, incident: Incident, before: TownState, now: TownState) -> dict[str, Any]:
        """Latents and labels of an incident that has been placed."""
        cache, look = self.job.cache, look_of(self.job.cache, self.rng)
        ego, rows = self.frames[tick].ego, self.light_rows(self.frames[tick])
        frames = [in_frame(self.frames[tick + k], ego, incident, k + 1, rows) for k in range(-1, cache.risk_steps + 1)]
        views = [self.views(before, self.frames[tick - 1].ego, look), self.views(now, ego, look)]
        out = labels_of(frames, self.log.column("action")[tick], cache)
        count = cache.branch_steps
        out |= {
            "branched": 0.0, "branch_action": np.zeros((2, count, 2)), "branch_speed": np.zeros((2, count + 1)),
            "branch": np.zeros((2, count, self.encoder.config.slots, self.encoder.config.latent_dim), np.float32),
        }  # fmt: skip
        futures = None
        if self.rng.random() < self.job.config.branch_share:
            futures = self.futures(tick, incident, frames[1:], look)
        if futures is not None:
            out |= futures[0]
            views += futures[1]
        latents = self.encoded(views)
        out["context"] = latents[:2]
        if futures is not None:
            out["branch"] = latents[2:].reshape(out["branch"].shape)
        return out

    def futures(
        self, tick: int, incident: Incident, frames: list[Frame], look: Appearance
    ) -> tuple[dict[str, Any], list[NDArray[np.uint8]]] | None:
        """Two drives from a moment and what the rig sees on them; None where they meet somebody."""
        count, now = self.job.cache.branch_steps, frames[0]
        for _ in range(TRIES):
            drives = drive_route(now.ego.speed_mps, now.route, branch_profiles(count, self.rng), obey_caps=False)
            if not future_risks(frames[: count + 1], drives.poses, drives.speeds_mps)[..., 0].any():
                break
        else:
            return None
        views = []
        states = [
            in_state(self.town, self.log.state(tick + h + 1, TownState), now.ego, incident, h + 2) for h in range(count)
        ]
        for side in range(2):
            for h, state in enumerate(states):
                if state is None:
                    return None
                views.append(self.views(state, self.placed(tick, now.ego, drives.poses[side, h]), look))
        start = np.full((2, 1), now.ego.speed_mps)
        told = {"branched": 1.0, "branch_action": drives.actions,
                "branch_speed": np.concatenate([start, drives.speeds_mps], axis=1)}  # fmt: skip
        return told, views

    def placed(self, tick: int, ego: EgoState, pose: Array) -> EgoState:
        """The ego at a pose (3,) of its frame at the moment, on the slope that the drive found thereabouts."""
        x, y, yaw = (float(value) for value in to_world(ego, pose))
        near = min(self.frames[tick : tick + 12], key=lambda f: (f.ego.x_m - x) ** 2 + (f.ego.y_m - y) ** 2).ego
        return replace(near, x_m=x, y_m=y, yaw_rad=yaw)


def labels_of(frames: list[Frame], action: Array, cache: CacheConfig) -> dict[str, Any]:
    """The columns of the cache's table at frames[1]; frames[0] is the tick before."""
    now = frames[1]
    careful = ExpertPlanner()
    careful.forget()
    expert_action(frames[0], careful)
    expert = np.array(expert_action(now, careful))
    return truth_columns(now, expert, STAGED, action) | risk_columns(frames[1:], cache)


def fill(job: Job) -> int:
    """Make one drive's lessons and write their file; nothing where it is there."""
    done = job.done
    if done.exists():
        return job.number
    torch.set_num_threads(1)
    staged = Stage(job)
    ticks = np.arange(1, len(staged.log) - job.cache.risk_steps - 1)
    wanted = round(job.config.share * len(staged.log))
    lessons: list[dict[str, Any]] = []
    for tick in staged.rng.permutation(ticks):
        if len(lessons) == wanted:
            break
        lesson = staged.lesson(int(tick))
        if lesson is not None:
            lessons.append(lesson)
    partial = done.with_suffix(".partial.npz")
    arrays = {key: np.array([item[key] for item in lessons], np.float32) for key in lessons[0]} if lessons else {}
    np.savez(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(done)
    return job.number


def stage_incidents(
    logs: list[Path], out: Path, rig: CameraRig, cache: CacheConfig, config: StagingConfig, encoder: SlotEncoder,
    on_progress: Callable[[float], None],
) -> dict[str, NDArray[np.float32]]:  # fmt: skip
    """The lessons of all drives, made where they are not there yet; see `load_lessons`.

    Raises:
        LogError: a log cannot be read.
    """
    if not config.share:
        return {}
    out.mkdir(parents=True, exist_ok=True)
    weights = weights_of(encoder)
    jobs = [Job(path, out, i, rig, cache, config, encoder.config, weights) for i, path in enumerate(logs)]
    jobs.sort(key=lambda job: str(DriveLog(job.path).attrs["town"]))  # a town's renderer is slow to make and big
    with ProcessPoolExecutor(cache.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for finished, future in enumerate(as_completed([pool.submit(fill, job) for job in jobs])):
            future.result()
            on_progress((finished + 1) / len(jobs))
    return load_lessons(out, encoder)


def load_lessons(out: Path, encoder: SlotEncoder) -> dict[str, NDArray[np.float32]]:
    """What was staged with this encoder: columns (k, ...) by name, drive after drive; none where nothing was.

    Columns are those of the cache's table, `context` (2, n, d) latents of the tick before and of the moment, not
    standardised, and, where `branched`, `branch` (2, h, n, d), `branch_action` (2, h, 2), `branch_speed` (2, h + 1).
    """
    whole = [path for path in out.glob(f"{digest(weights_of(encoder))}-*.npz") if ".partial" not in path.name]
    found = sorted(whole, key=lambda path: int(path.stem.split("-")[1]))
    parts = []
    for path in found:
        with np.load(path, allow_pickle=False) as data:
            parts.append({key: data[key] for key in data.files})
    parts = [part for part in parts if part]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}


def with_lessons(clips: Clips, latents: Latents, lessons: dict[str, NDArray[np.float32]]) -> tuple[Clips, Latents]:
    """The cache and its latents with the lessons behind them, as episodes of two ticks; pictures stay as they are."""
    if not lessons:
        return clips, latents
    count, n = len(lessons["speed"]), len(clips.episode)
    twice = {name: np.repeat(lessons[name], 2, axis=0) for name in clips.table}
    twice["risk_valid"][::2] = 0.0  # of the tick before, nothing was asked
    table = {name: np.concatenate([column, twice[name]]) for name, column in clips.table.items()}
    episode = int(clips.episode.max()) + 1 + np.repeat(np.arange(count, dtype=np.int32), 2)

    def standard(raw: NDArray[np.float32]) -> Tensor:
        return (torch.from_numpy(raw) - latents.mean) / latents.scale

    context, chosen = standard(lessons["context"]).flatten(0, 1), np.flatnonzero(lessons["branched"] > 0.5)
    more = replace(
        clips, table=table, episode=np.concatenate([clips.episode, episode.astype(np.int32)]),
        branch_start=np.concatenate([clips.branch_start, n + 2 * chosen + 1]),
        branch_action=np.concatenate([clips.branch_action, lessons["branch_action"][chosen]]),
        branch_speed=np.concatenate([clips.branch_speed, lessons["branch_speed"][chosen]]),
    )  # fmt: skip
    return more, replace(
        latents,
        a=torch.cat([latents.a, context]),
        b=torch.cat([latents.b, context]),
        branch=torch.cat([latents.branch, standard(lessons["branch"][chosen])]),
    )
