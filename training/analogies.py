"""The same thing added to two moments of the world: A is to A with it as B is to B with it.

A twin (`training.twins`) says that something differs; nothing yet asks that the same walker at the same place before
the car changes the latent in the same way wherever the car is, and without that a head must learn the walker anew for
every street. Analogies ask for it (after the visual analogies of Reed et al. 2015): somebody is added, the lights ahead
turn, the lamps of the car in front go on. What it was, and where, remains untold; known is only that it is the same in
both moments.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drivesim.datatypes import CameraRig
from drivesim.logs import DriveLog
from drivesim.models.views import VIEW_HEIGHT_PX, VIEW_WIDTH_PX, ViewLayout
from drivesim.recording.branches import stage
from drivesim.town.state import KIND_VEHICLE, LIGHT_GREEN, LIGHT_RED, TownState
from drivesim.town.town import Town
from drivesim.town.traffic import LAMP_BRAKE
from drivesim.worlds.town_world import picture
from training.cache import CacheConfig, Paths, look_of
from training.interventions import Addition, add, nearest, other_light
from training.twins import seen

TRIES = 32  # moments of a drive, before a change counts as one that is seen nowhere in it
NOWHERE = -1
ADDED, TO_GREEN, TO_RED, LAMPS_ON, LAMPS_OFF = range(5)  # no two additions are alike, all other changes of a kind are
SHARES = (0.72, 0.1, 0.1, 0.04, 0.04)


@dataclass(frozen=True)
class Change:
    """What is done to both moments of an analogy."""

    kind: int
    addition: Addition

    @staticmethod
    def draw(seed: int, analogy: int) -> Change:
        """That of an analogy, by its number."""
        rng = np.random.default_rng([seed, 31, analogy])
        return Change(int(rng.choice(len(SHARES), p=SHARES)), Addition.draw(rng))

    def __call__(self, town: Town, state: TownState, ego_row: int) -> TownState | None:
        """The changed state; None where the moment does not offer it."""
        if self.kind == ADDED:
            return add(town, state, ego_row, self.addition)
        if self.kind in (TO_GREEN, TO_RED):
            wanted = LIGHT_GREEN if self.kind == TO_GREEN else LIGHT_RED
            turned = other_light(town, state, ego_row)
            if turned is None:
                return None
            rows = turned.light_state != state.light_state
            return turned if (turned.light_state[rows] == wanted).all() else None
        row, lit = nearest(state, ego_row, KIND_VEHICLE), self.kind == LAMPS_ON
        if row is None or bool(state.lamps[row] & np.uint32(LAMP_BRAKE)) == lit:
            return None
        changed = state.copy()
        changed.lamps[row] ^= np.uint32(LAMP_BRAKE)
        return changed


@dataclass(frozen=True)
class Job:
    """One drive's share: which analogies it takes part in, and on which side."""

    path: Path
    folder: Path
    row: int
    parts: tuple[tuple[int, int], ...]
    rig: CameraRig
    config: CacheConfig
    number: int


def fill_analogies(job: Job) -> int:
    """Draw one drive's moments with what is added to them; writes `analogies-<number>.npy`, the ticks' rows."""
    done = job.folder / f"analogies-{job.number}.npy"
    if done.exists():
        return job.number
    log, seed = DriveLog(job.path), job.config.seed
    town, renderer = stage(str(log.attrs["town"]))
    rng = np.random.default_rng([seed, 29, job.number])
    own, ego_row = look_of(job.config, np.random.default_rng([seed, 1, job.number])), int(log.attrs["ego_row"])
    views, layout, rows = Paths(job.folder).open("analogy_views"), ViewLayout.of(job.rig), []
    for analogy, side in job.parts:
        change, row = Change.draw(seed, analogy), NOWHERE
        for tick in (int(t) for t in rng.integers(1, len(log), TRIES)):
            before = log.state(tick, TownState)
            after = change(town, before, ego_row)
            if after is None:
                continue
            where = log.frame(tick).ego.world_from_ego
            noise = int(rng.integers(1 << 31))
            without, drawn = (
                layout.extract(picture(renderer, each, ego_row, where, job.rig, own, noise)) for each in (before, after)
            )  # the cache's own picture of the moment has other noise
            if seen(without, drawn):
                views[analogy, side], row = drawn, job.row + tick
                break
        rows.append((analogy, side, row))
    partial = done.with_suffix(".partial.npy")
    np.save(partial, np.array(rows, np.int64).reshape(-1, 3))
    partial.replace(done)
    return job.number


def build_analogies(
    logs: list[Path], folder: Path, rig: CameraRig, config: CacheConfig, on_progress: Callable[[float], None]
) -> None:
    """Make the analogies of a cache; goes on where a killed call was, nothing where all is there or none are wanted.

    `analogies.npy` has (G, 3): the rows of both moments (NOWHERE where the change was seen nowhere), and the kind.

    Raises:
        LogError: a log cannot be read.
    """
    if (folder / "analogies.npy").exists() or not config.analogy_share:
        return
    lengths = [len(DriveLog(path)) for path in logs]
    turns = np.repeat(np.arange(len(logs)), [math.ceil(config.analogy_share * n) for n in lengths])
    turns = np.random.default_rng([config.seed, 37]).permutation(turns)
    pairs = turns[: len(turns) // 2 * 2].reshape(-1, 2)  # (analogies, 2) drives
    if not any(folder.glob("analogies-*.npy")):
        views = len(ViewLayout.of(rig).views)
        Paths(folder).make("analogy_views", (len(pairs), 2, views, VIEW_HEIGHT_PX, VIEW_WIDTH_PX, 3))
    first = np.cumsum([0, *lengths])
    jobs = [
        Job(path, folder, int(first[i]), tuple((int(j), int(k)) for j, k in np.argwhere(pairs == i)), rig, config, i)
        for i, path in enumerate(logs)
    ]
    jobs.sort(key=lambda job: str(DriveLog(job.path).attrs["town"]))  # a town's renderer is slow to make and big
    with ProcessPoolExecutor(config.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for finished, future in enumerate(as_completed([pool.submit(fill_analogies, job) for job in jobs])):
            future.result()
            on_progress((finished + 1) / len(jobs))
    rows = np.full((len(pairs), 3), NOWHERE, np.int64)
    rows[:, 2] = [Change.draw(config.seed, i).kind for i in range(len(pairs))]
    for i in range(len(logs)):
        analogy, side, row = np.load(folder / f"analogies-{i}.npy").T
        rows[analogy, side] = row
    partial = folder / "analogies.partial.npy"
    np.save(partial, rows)
    partial.replace(folder / "analogies.npy")
    for i in range(len(logs)):
        (folder / f"analogies-{i}.npy").unlink()
