"""The training cache: views of every logged tick in two appearances, with what was done and what was true.

Truth is kept beside, for heads and probes only; nothing that shapes the latent reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.labels import READOUT_COLUMNS

STAGED = 4.0  # the mode of a moment that nobody drove (`training.staging`): nobody is cloned from it


def _no_pictures() -> NDArray[np.uint8]:
    return np.zeros((0, 3, 0, 0, 0, 3), np.uint8)


def _no_rows() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Clips:
    """N ticks half a second apart, episode after episode.

    Attributes:
        views_a: (N, v, 72, 128, 3) uint8 in the episode's appearance; on disk, read lazily.
        views_b: the same states in a fresh appearance per tick, from jittered cameras.
        cameras_b: (N, v, 3, 4) the jittered ego_from_camera of `views_b`.
        intrinsics (v, 4), cameras_a (v, 3, 4).
        episode: (N,) int32. A tick's successor is the next row where that has the same episode.
        table: further columns by name, each (N, ...), see `training.labels`.
        branch_views: (M, 2, h, v, 72, 128, 3) two futures of the same state under different actions.
        branch_start: (M,) row of the state they leave from.
        branch_action: (M, 2, h, 2), branch_speed: (M, 2, h + 1).
        branch_reads: (M, 2, h, columns) truth of `training.labels.READOUT_COLUMNS` along the branches.
        twin_views: (T, 3, v, 72, 128, 3) of `training.twins`: a moment's twin in the episode's look, then the moment
            and its twin in another look; twin_start: (T,) row of the moment. None of them where none were made.
        analogy_views: (G, 2, v, 72, 128, 3) of `training.analogies`: two moments of different drives with the same
            change, each in its own episode's look; analogy_start: (G, 3) rows of the moments, and the kind of change.
        stance_views, stance_start: the same where the ego itself stands elsewhere.
    """

    views_a: NDArray[np.uint8]
    views_b: NDArray[np.uint8]
    cameras_b: NDArray[np.float32]
    intrinsics: NDArray[np.float32]
    cameras_a: NDArray[np.float32]
    episode: NDArray[np.int32]
    table: dict[str, NDArray[np.float32]]
    branch_views: NDArray[np.uint8]
    branch_start: NDArray[np.int64]
    branch_action: NDArray[np.float32]
    branch_speed: NDArray[np.float32]
    branch_reads: NDArray[np.float32]
    twin_views: NDArray[np.uint8] = field(default_factory=_no_pictures)
    twin_start: NDArray[np.int64] = field(default_factory=_no_rows)
    analogy_views: NDArray[np.uint8] = field(default_factory=_no_pictures)
    analogy_start: NDArray[np.int64] = field(default_factory=_no_rows)
    stance_views: NDArray[np.uint8] = field(default_factory=_no_pictures)
    stance_start: NDArray[np.int64] = field(default_factory=_no_rows)

    @staticmethod
    def load(path: Path) -> Clips:
        """Open a cache folder; pictures stay on disk until they are read."""
        if not (path / "complete").exists():
            raise FileNotFoundError(f"{path} is not a complete cache: run its cache step again")

        def picture(name: str) -> NDArray[np.uint8]:
            return np.load(path / f"{name}.npy", mmap_mode="r")  # type: ignore[no-any-return]

        with np.load(path / "columns.npz", allow_pickle=False) as data:
            columns = {key: data[key] for key in data.files}
        own = ("cameras_b", "intrinsics", "cameras_a", "episode", "branch_start", "branch_action", "branch_speed",
               "branch_reads")  # fmt: skip
        fixed = {key: columns.pop(key) for key in own}
        if (path / "twins.npy").exists():
            fixed |= {"twin_start": np.load(path / "twins.npy"), "twin_views": picture("twin_views")}
        if (path / "analogies.npy").exists():
            fixed |= {"analogy_start": np.load(path / "analogies.npy"), "analogy_views": picture("analogy_views")}
        if (path / "stances.npy").exists():
            fixed |= {"stance_start": np.load(path / "stances.npy"), "stance_views": picture("stance_views")}
        return Clips(
            views_a=picture("views_a"), views_b=picture("views_b"), branch_views=picture("branch_views"),
            table=columns, **fixed,
        )  # fmt: skip

    def table_of_branches(self, name: str) -> NDArray[np.float32]:
        """One read-out (M, 2, h) along the branches."""
        return self.branch_reads[..., READOUT_COLUMNS.index(name)]

    def branched(self) -> NDArray[np.int64]:
        """Branches whose state has a tick before it in the same episode."""
        rows = self.branch_start
        return np.flatnonzero((rows > 0) & (self.episode[rows - 1] == self.episode[rows]))

    def analogies(self) -> NDArray[np.int64]:
        """Analogies of which both sides are there."""
        return both_there(self.analogy_start)

    def stances(self) -> NDArray[np.int64]:
        """Stances of which both sides are there."""
        return both_there(self.stance_start)

    def starts(self, length: int) -> NDArray[np.int64]:
        """Rows from which `length` consecutive ticks of one episode can be read."""
        n = len(self.episode)
        first = np.arange(max(0, n - length + 1))
        return np.asarray(first[self.episode[first] == self.episode[first + length - 1]])


def both_there(start: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows (G, 3) of analogies that have both moments."""
    return np.flatnonzero((start[:, :2] >= 0).all(1)) if start.ndim == 2 else _no_rows()


def episode_batches(
    starts: NDArray[np.int64], episode: NDArray[np.int32], episodes: int, clips: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Endless batches of `episodes` x `clips` starts, with each row's episode within the batch.

    Clips of one episode are at least two ticks apart, so negatives are never the same moment.
    """
    by_episode = [starts[episode[starts] == e] for e in np.unique(episode[starts])]
    by_episode = [rows for rows in by_episode if len(rows) >= 2 * clips]
    if len(by_episode) < 1:
        raise ValueError(f"no episode is long enough for {clips} clips: record longer ones")
    while True:
        chosen = rng.choice(len(by_episode), size=episodes, replace=len(by_episode) < episodes)
        rows = []
        for e in chosen:
            phase = rng.integers(0, 2)
            rows.append(rng.choice(by_episode[e][phase::2], size=clips, replace=False))
        yield np.concatenate(rows), np.repeat(np.arange(episodes), clips)
