"""Does a latent say where in the lane the car is? Logged moments seen from beside the lane's centre, and turned.

Recorded drivers keep to their lanes within a foot, so their drives hardly ask. Here the same states are drawn once
more with the ego moved to the side and turned, at two ticks, and what it was moved by is known.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.datatypes import Frame, RouteAhead, default_rig
from drivesim.logs import DriveLog
from drivesim.logs.truth import readouts
from drivesim.models.encoder import SlotEncoder
from drivesim.models.views import VIEW_HEIGHT_PX, VIEW_WIDTH_PX, ViewLayout
from drivesim.recording.branches import stage
from drivesim.town.state import TownState
from drivesim.worlds.town_world import picture
from eval.probes import DETECTIONS, REGRESSIONS, fit_probe, score_probe, target_table
from training.cache import CacheConfig, look_of
from training.labels import READOUT_COLUMNS

ASIDE_M, TURNED_RAD = 1.2, np.radians(10.0)  # as far as either goes, evenly
WHERE = ("lateral", "heading")


@dataclass(frozen=True)
class Displaced:
    """k moments, each at two ticks half a second apart.

    Attributes:
        views: (k, 2, v, h, w, 3) uint8, on disk.
        lateral: (k,) m left of the route; heading: (k,) sine of the route's direction in the ego frame.
        drive: (k,) number of the drive.
    """

    views: NDArray[np.uint8]
    lateral: NDArray[np.float32]
    heading: NDArray[np.float32]
    drive: NDArray[np.int64]


def moved(frame: Frame, aside_m: float, turned_rad: float) -> Frame:
    """The frame as the ego would have it further to the left and turned to the left."""
    c, s = np.cos(turned_rad), np.sin(turned_rad)
    points = (frame.route.points_m - np.array([0.0, aside_m])) @ np.array([[c, -s], [s, c]])
    route: RouteAhead = replace(frame.route, points_m=points)
    return replace(frame, ego=frame.ego.moved(aside_m, turned_rad), route=route)


def draw(job: tuple[Path, Path, int, int, CacheConfig, int]) -> list[tuple[float, float]]:
    """Draw some moments of a log into their rows of the file; returns where the ego was."""
    path, file, first, count, config, number = job
    log, rig = DriveLog(path), default_rig()
    _, renderer = stage(str(log.attrs["town"]))
    rng, layout, row = np.random.default_rng([config.seed, 31, number]), ViewLayout.of(rig), int(log.attrs["ego_row"])
    views = np.load(file, mmap_mode="r+")
    ticks = [int(i) for i in rng.permutation(np.arange(1, len(log))) if len(log.frame(int(i)).route.points_m) > 2]
    found = []
    for k, tick in enumerate(ticks[:count]):
        aside, turned, look = rng.uniform(-ASIDE_M, ASIDE_M), rng.uniform(-TURNED_RAD, TURNED_RAD), look_of(config, rng)
        for then in range(2):
            frame = moved(log.frame(tick - 1 + then), aside, turned)
            seed, where = int(rng.integers(1 << 31)), frame.ego.world_from_ego
            drawn = picture(renderer, log.state(tick - 1 + then, TownState), row, where, rig, look, seed)
            views[first + k, then] = layout.extract(drawn)
        said = readouts(frame)
        found.append((said["lateral"], said["heading"]))
    return found


def displaced(logs: list[Path], file: Path, count: int, config: CacheConfig) -> Displaced:
    """About `count` moments of the logs, as many of each; read from `file` where a call with the same left them."""
    told, asked = (
        file.with_suffix(".npz"),
        [f"{count} of seed {config.seed}, with their drives", *(str(path.resolve()) for path in logs)],
    )
    if not told.exists() or list(np.load(told, allow_pickle=False)["asked"]) != asked:
        each = max(1, count // len(logs))
        lengths = [min(each, max(0, len(DriveLog(path)) - 1)) for path in logs]
        rows = np.cumsum([0, *lengths])
        shape = (int(rows[-1]), 2, len(ViewLayout.of(default_rig()).views), VIEW_HEIGHT_PX, VIEW_WIDTH_PX, 3)
        np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape).flush()
        jobs = [(path, file, int(rows[i]), lengths[i], config, i) for i, path in enumerate(logs)]
        jobs.sort(key=lambda job: str(DriveLog(job[0]).attrs["town"]))
        kept: dict[int, list[tuple[float, float]]] = {}
        with ProcessPoolExecutor(config.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            for job, found in zip(jobs, pool.map(draw, jobs), strict=True):
                kept[job[2]] = found
        row = np.concatenate([first + np.arange(len(found)) for first, found in kept.items()])
        drive = np.searchsorted(rows, row, side="right") - 1
        where = np.concatenate([np.array(found).reshape(-1, 2) for found in kept.values()]).astype(np.float32)
        partial = told.with_suffix(".partial.npz")
        np.savez(partial, asked=asked, row=row, drive=drive, lateral=where[:, 0], heading=where[:, 1])
        partial.replace(told)
    with np.load(told, allow_pickle=False) as data:
        order = np.argsort(data["row"])
        views = np.load(file, mmap_mode="r")
        if len(order) != len(views):
            views = views[data["row"][order]]
        return Displaced(views, data["lateral"][order], data["heading"][order], data["drive"][order])


@torch.no_grad()
def encoded(encoder: SlotEncoder, moments: Displaced, batch: int = 32) -> Tensor:
    """Latents (k, 2, n, d), not standardised."""
    layout, out = ViewLayout.of(default_rig()), []
    intrinsics, cameras = torch.from_numpy(layout.intrinsics), torch.from_numpy(layout.ego_from_camera)
    for first in range(0, len(moments.views), batch):
        pictures = torch.from_numpy(np.array(moments.views[first : first + batch])).flatten(0, 1).permute(0, 1, 4, 2, 3)
        out.append(encoder(pictures, intrinsics, cameras).unflatten(0, (-1, 2)))
    return torch.cat(out)


def targets(moments: Displaced) -> tuple[Tensor, Tensor]:
    """The probes' targets and weights, of where in the lane alone."""
    nothing = np.zeros(len(moments.lateral), np.float32)
    table = dict.fromkeys((*REGRESSIONS, *DETECTIONS, *READOUT_COLUMNS), nothing)
    return target_table(table | {"lateral": moments.lateral, "heading": moments.heading}, np.arange(len(nothing)))


def judge_where(encoder: SlotEncoder, train: Displaced, tests: dict[str, Displaced], seed: int) -> dict[str, Any]:
    """R2 of lateral offset and heading by a probe fitted on displaced moments of the training drives."""
    own = encoded(encoder, train)
    mean, scale = own.mean((0, 1)), own.std((0, 1)).clamp(min=1e-3)
    probe = fit_probe(
        (own - mean) / scale, *targets(train), seed, groups=encoder.config.groups, drives=train.drive
    )  # fmt: skip
    scores: dict[str, Any] = {}
    for name, test in tests.items():
        found: Any = score_probe(probe, (encoded(encoder, test) - mean) / scale, *targets(test))
        scores[name] = {f"{key}_r2": found[f"{key}_r2"] for key in WHERE} | {"n": len(test.lateral)}
    return scores
