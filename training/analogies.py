"""The same thing added to two moments of the world: A is to A with it as B is to B with it.

A twin (`training.twins`) says that something differs; nothing yet asks that the same walker at the same place before
the car changes the latent in the same way wherever the car is, and without that a head must learn the walker anew for
every street. Analogies ask for it (after the visual analogies of Reed et al. 2015): somebody is added, the lights ahead
turn, the lamps of the car in front go on. What it was, and where, remains untold; known is only that it is the same in
both moments.

Stances are the same for the car itself: it stands as far aside and as far turned in both moments; nothing else changes.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drivesim.datatypes import CameraRig, EgoState
from drivesim.logs import DriveLog
from drivesim.models.views import VIEW_HEIGHT_PX, VIEW_WIDTH_PX, ViewLayout
from drivesim.recording.branches import stage
from drivesim.town.state import KIND_VEHICLE, LIGHT_GREEN, LIGHT_RED, TownState
from drivesim.town.town import Town
from drivesim.town.traffic import LAMP_BRAKE
from drivesim.worlds.town_world import picture
from training.cache import CacheConfig, Paths, look_of, sceneries_of
from training.interventions import Addition, add, nearest, other_light
from training.twins import seen

TRIES = 32  # moments of a drive, before a change counts as one that is seen nowhere in it
NOWHERE = -1
ADDED, TO_GREEN, TO_RED, LAMPS_ON, LAMPS_OFF = range(5)  # no two additions are alike, all other changes of a kind are
SHARES = (0.72, 0.1, 0.1, 0.04, 0.04)
MOVED = -1  # the ego itself
ASIDE_M, TURNED_RAD = 1.2, math.radians(10.0)  # as far as it stands elsewhere, evenly


@dataclass(frozen=True)
class Change:
    """What is done to both moments of an analogy."""

    kind: int
    addition: Addition
    left_m: float = 0.0
    turned_rad: float = 0.0

    @staticmethod
    def draw(seed: int, analogy: int) -> Change:
        """That of an analogy, by its number."""
        rng = np.random.default_rng([seed, 31, analogy])
        return Change(int(rng.choice(len(SHARES), p=SHARES)), Addition.draw(rng))

    @staticmethod
    def stance(seed: int, number: int) -> Change:
        """That of a stance, by its number."""
        rng = np.random.default_rng([seed, 43, number])
        aside, turned = rng.uniform(-ASIDE_M, ASIDE_M), rng.uniform(-TURNED_RAD, TURNED_RAD)
        return Change(MOVED, Addition.draw(rng), aside, turned)

    def seen_from(self, ego: EgoState) -> EgoState:
        """Where the cameras are."""
        return ego.moved(self.left_m, self.turned_rad) if self.kind == MOVED else ego

    def __call__(self, town: Town, state: TownState, ego_row: int) -> TownState | None:
        """The changed state; None where the moment does not offer it."""
        if self.kind == MOVED:
            return state
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
class Sort:
    """Analogies or stances: the name of their rows' file and of their pictures', how a change is drawn, and dice."""

    rows: str
    views: str
    draw: Callable[[int, int], Change]
    dice: tuple[int, int]


ANALOGIES = Sort("analogies", "analogy_views", Change.draw, (29, 37))
STANCES = Sort("stances", "stance_views", Change.stance, (47, 53))


@dataclass(frozen=True)
class Job:
    """One drive's share: which analogies it takes part in, and on which side."""

    sort: Sort
    path: Path
    folder: Path
    row: int
    parts: tuple[tuple[int, int], ...]
    rig: CameraRig
    config: CacheConfig
    number: int


def fill_analogies(job: Job) -> int:
    """Draw one drive's moments with what is changed in them; writes `<rows>-<number>.npy`, the ticks' rows."""
    done = job.folder / f"{job.sort.rows}-{job.number}.npy"
    if done.exists():
        return job.number
    log, seed = DriveLog(job.path), job.config.seed
    town, renderer = stage(str(log.attrs["town"]), sceneries_of(job.config, job.number)[0])
    rng = np.random.default_rng([seed, job.sort.dice[0], job.number])
    own, ego_row = look_of(job.config, np.random.default_rng([seed, 1, job.number])), int(log.attrs["ego_row"])
    views, layout, rows = Paths(job.folder).open(job.sort.views), ViewLayout.of(job.rig), []
    for analogy, side in job.parts:
        change, row = job.sort.draw(seed, analogy), NOWHERE
        for tick in (int(t) for t in rng.integers(1, len(log), TRIES)):
            before = log.state(tick, TownState)
            after = change(town, before, ego_row)
            if after is None:
                continue
            ego, noise = log.frame(tick).ego, int(rng.integers(1 << 31))
            without, drawn = (
                layout.extract(picture(renderer, each, ego_row, eye.world_from_ego, job.rig, own, noise))
                for each, eye in ((before, ego), (after, change.seen_from(ego)))
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
    """Make the analogies and the stances of a cache; goes on where a killed call was, nothing where none are wanted.

    `analogies.npy` has (G, 3): the rows of both moments (NOWHERE where the change was seen nowhere), and the kind;
    `stances.npy` likewise.

    Raises:
        LogError: a log cannot be read.
    """
    wanted = [(ANALOGIES, config.analogy_share), (STANCES, config.stance_share)]
    left = [(sort, share) for sort, share in wanted if share and not (folder / f"{sort.rows}.npy").exists()]
    for number, (sort, share) in enumerate(left):

        def told(part: float, number: int = number) -> None:
            on_progress((number + part) / len(left))

        build(sort, share, logs, folder, rig, config, told)


def build(
    sort: Sort, share: float, logs: list[Path], folder: Path, rig: CameraRig, config: CacheConfig,
    on_progress: Callable[[float], None],
) -> None:  # fmt: skip
    """Make one sort: `share` of the ticks are one side of one."""
    lengths = [len(DriveLog(path)) for path in logs]
    turns = np.repeat(np.arange(len(logs)), [math.ceil(share * n) for n in lengths])
    turns = np.random.default_rng([config.seed, sort.dice[1]]).permutation(turns)
    pairs = turns[: len(turns) // 2 * 2].reshape(-1, 2)  # (analogies, 2) drives
    if not any(folder.glob(f"{sort.rows}-*.npy")):
        views = len(ViewLayout.of(rig).views)
        Paths(folder).make(sort.views, (len(pairs), 2, views, VIEW_HEIGHT_PX, VIEW_WIDTH_PX, 3))
    first = np.cumsum([0, *lengths])
    parts = [tuple((int(j), int(k)) for j, k in np.argwhere(pairs == i)) for i in range(len(logs))]
    jobs = [Job(sort, path, folder, int(first[i]), parts[i], rig, config, i) for i, path in enumerate(logs)]
    jobs.sort(key=lambda job: str(DriveLog(job.path).attrs["town"]))  # a town's renderer is slow to make and big
    with ProcessPoolExecutor(config.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for finished, future in enumerate(as_completed([pool.submit(fill_analogies, job) for job in jobs])):
            future.result()
            on_progress((finished + 1) / len(jobs))
    rows = np.full((len(pairs), 3), NOWHERE, np.int64)
    rows[:, 2] = [sort.draw(config.seed, i).kind for i in range(len(pairs))]
    for i in range(len(logs)):
        analogy, side, row = np.load(folder / f"{sort.rows}-{i}.npy").T
        rows[analogy, side] = row
    partial = folder / f"{sort.rows}.partial.npy"
    np.save(partial, rows)
    partial.replace(folder / f"{sort.rows}.npy")
    for i in range(len(logs)):
        (folder / f"{sort.rows}-{i}.npy").unlink()
