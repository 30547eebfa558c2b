"""Twins of logged moments beside the training cache: one thing of the world changed, drawn in two looks."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import CameraRig
from drivesim.logs import DriveLog
from drivesim.models.views import VIEW_HEIGHT_PX, VIEW_WIDTH_PX, ViewLayout
from drivesim.recording.branches import stage
from drivesim.town.state import TownState
from drivesim.worlds.town_world import picture
from training.cache import CacheConfig, Paths, look_of, sceneries_of
from training.interventions import intervene

SEEN_PX, SEEN_STEP = 15, 30  # pixels that must differ, by how much
PASSES = 4  # over a drive's ticks, before it counts as one in which nothing can be changed


def seen(moment: NDArray[np.uint8], twin: NDArray[np.uint8]) -> bool:
    """Whether the views show what was changed."""
    return int((np.abs(moment.astype(np.int16) - twin).max(-1) > SEEN_STEP).sum()) >= SEEN_PX


def fill_twins(path: Path, folder: Path, row: int, twin_row: int, count: int, rig: CameraRig, config: CacheConfig,
               number: int) -> int:  # fmt: skip
    """Draw one log's twins into their rows; writes `twins-<number>.npy`, the ticks' rows in the cache."""
    done = folder / f"twins-{number}.npy"
    if done.exists():
        return number
    log = DriveLog(path)
    (town, here), (_, there) = (stage(str(log.attrs["town"]), seed) for seed in sceneries_of(config, number))
    rng = np.random.default_rng([config.seed, 17, number])
    own, ego_row = look_of(config, np.random.default_rng([config.seed, 1, number])), int(log.attrs["ego_row"])
    views, layout = Paths(folder).open("twin_views"), ViewLayout.of(rig)
    ticks: list[int] = []
    for tick in (int(t) for t in np.concatenate([rng.permutation(len(log)) for _ in range(PASSES)])):
        if len(ticks) == count:
            break
        state = log.state(tick, TownState)
        twin = intervene(town, state, ego_row, rng)
        if twin is None:
            continue
        where, other, noise = log.frame(tick).ego.world_from_ego, look_of(config, rng), int(rng.integers(1 << 31))
        drawn = [
            layout.extract(picture(renderer, each, ego_row, where, rig, look, noise + min(k, 1)))
            for k, (renderer, each, look) in enumerate(((here, twin, own), (there, state, other), (there, twin, other)))
        ]
        if seen(drawn[1], drawn[2]):
            views[twin_row + len(ticks)] = drawn
            ticks.append(row + tick)
    if len(ticks) < count:
        raise ValueError(f"{path}: only {len(ticks)} of {count} moments offered something to change")
    partial = done.with_suffix(".partial.npy")
    np.save(partial, np.array(ticks, np.int64))
    partial.replace(done)
    return number


def build_twins(
    logs: list[Path], folder: Path, rig: CameraRig, config: CacheConfig, on_progress: Callable[[float], None]
) -> None:
    """Make the twins of a cache; goes on where a killed call was, does nothing where all is there or none are wanted.

    Raises:
        LogError: a log cannot be read.
        ValueError: a drive in which nothing can be changed.
    """
    if (folder / "twins.npy").exists() or not config.twin_share:
        return
    lengths = [len(DriveLog(path)) for path in logs]
    counts = [math.ceil(config.twin_share * n) for n in lengths]
    rows, twin_rows = np.cumsum([0, *lengths]), np.cumsum([0, *counts])
    if not any(folder.glob("twins-*.npy")):
        views = len(ViewLayout.of(rig).views)
        Paths(folder).make("twin_views", (int(twin_rows[-1]), 3, views, VIEW_HEIGHT_PX, VIEW_WIDTH_PX, 3))
    jobs = [(path, folder, int(rows[i]), int(twin_rows[i]), counts[i], rig, config, i) for i, path in enumerate(logs)]
    jobs.sort(key=lambda job: str(DriveLog(job[0]).attrs["town"]))  # a town's renderer is slow to make and big
    with ProcessPoolExecutor(config.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for finished, future in enumerate(as_completed([pool.submit(fill_twins, *job) for job in jobs])):
            future.result()
            on_progress((finished + 1) / len(jobs))
    starts: list[NDArray[np.int64]] = [np.load(folder / f"twins-{i}.npy") for i in range(len(logs))]
    partial = folder / "twins.partial.npy"
    np.save(partial, np.concatenate(starts))
    partial.replace(folder / "twins.npy")
    for i in range(len(logs)):
        (folder / f"twins-{i}.npy").unlink()
