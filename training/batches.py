"""What stage one reads for a step: clips, branched states and twins, with the cameras that are seen in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.clips import Clips, episode_batches
from training.ranks import Ranks


@dataclass(frozen=True)
class BatchConfig:
    """How much a step reads. A clip is three ticks: 0 and 1 in appearance A, 1 and 2 in appearance B."""

    episodes: int = 12
    clips: int = 8
    pairs: int = 16  # branched states a step: what another action would have led to is the hardest negative
    twins: int = 0  # moments a step beside which one thing of the world differs: the hardest negative for what is small
    analogies: int = 0  # pairs of moments a step in which the same thing changes, see `training.analogies`
    analogies_from: int = 0  # the step from which they are read: details are learned faster when the scene is known
    keep_side: float = 0.5  # probability that a step sees the cameras to the sides
    keep_rear: float = 0.25


def choose_views(views: int, config: BatchConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """Camera dropout for a whole step: what looks ahead always, sides and rear sometimes (and then for free)."""
    keep = [True] * min(3, views)
    side, rear = rng.random() < config.keep_side, rng.random() < config.keep_rear
    keep += [side if row < 5 else rear for row in range(3, views)]
    return np.flatnonzero(keep)


@dataclass(frozen=True)
class Batch:
    """One step's pictures and what was done between them.

    Attributes:
        views: (4 b + 4 m + 4 t + 4 g, v, 3, h, w) uint8: A0, A1, B1, B2 of b clips; two ticks and two futures of m
            states; t moments with their twins; g analogies.
        intrinsics (v, 4); cameras (4 b + 4 m + 4 t + 4 g, v, 3, 4).
        action (b, 3, 2), speed (b, 3) at the three ticks of a clip.
        branch_action: (2, m, p, 2) what leads to the futures, p steps ahead; None without branches.
        branch_speed: (m,).
        twins: how many moments stand behind those with their twins: t in one look, their t twins, both again in another
            look.
        analogies: (g,) kinds of the changes at the end: g moments, each changed, g others, each changed likewise.
    """

    views: Tensor
    intrinsics: Tensor
    cameras: Tensor
    action: Tensor
    speed: Tensor
    branch_action: Tensor | None
    branch_speed: Tensor
    twins: int = 0
    analogies: Tensor | None = None

    def parts(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows of the clips, the branched states, the twins and the analogies."""
        tail = [len(self.branch_speed), self.twins, 0 if self.analogies is None else len(self.analogies)]
        sizes = [len(latents) - 4 * sum(tail), *(4 * count for count in tail)]
        clips, branched, twins, analogies = torch.split(latents, sizes)  # type: ignore[no-untyped-call]
        return clips, branched, twins, analogies

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        branch_action = None if self.branch_action is None else self.branch_action.to(device)
        return Batch(
            self.views.to(device), self.intrinsics.to(device), self.cameras.to(device), self.action.to(device),
            self.speed.to(device), branch_action, self.branch_speed.to(device), self.twins,
            None if self.analogies is None else self.analogies.to(device),
        )  # fmt: skip


def read_batch(
    clips: Clips, starts: NDArray[np.int64], chosen: NDArray[np.int64],
    branches: NDArray[np.int64] | None = None, steps: int = 1, twins: NDArray[np.int64] | None = None,
    analogies: NDArray[np.int64] | None = None,
) -> Batch:  # fmt: skip
    """`chosen` views of clips from `starts`, branched states with futures `steps` steps on, twins and analogies."""
    fixed = np.broadcast_to(clips.cameras_a[chosen], (len(starts), len(chosen), 3, 4))
    pictures = [clips.views_a[starts], clips.views_a[starts + 1], clips.views_b[starts + 1], clips.views_b[starts + 2]]
    cameras = [fixed, fixed, clips.cameras_b[starts + 1][:, chosen], clips.cameras_b[starts + 2][:, chosen]]
    action, speed = None, torch.zeros(0)
    if branches is not None and len(branches):
        rows = clips.branch_start[branches]
        futures = clips.branch_views[branches, :, steps - 1]
        pictures += [clips.views_a[rows - 1], clips.views_a[rows], futures[:, 0], futures[:, 1]]
        cameras += [np.broadcast_to(clips.cameras_a[chosen], (len(rows), len(chosen), 3, 4))] * 4
        action = torch.from_numpy(clips.branch_action[branches, :, :steps]).transpose(0, 1)
        speed = torch.from_numpy(clips.branch_speed[branches, 0, 0])
    count = 0 if twins is None else len(twins)
    if twins is not None and count:
        drawn = clips.twin_views[twins]
        pictures += [clips.views_a[clips.twin_start[twins]], drawn[:, 0], drawn[:, 1], drawn[:, 2]]
        cameras += [np.broadcast_to(clips.cameras_a[chosen], (count, len(chosen), 3, 4))] * 4
    kinds = None
    if analogies is not None and len(analogies):
        (first, second, kind), added = clips.analogy_start[analogies].T, clips.analogy_views[analogies]
        pictures += [clips.views_a[first], added[:, 0], clips.views_a[second], added[:, 1]]
        cameras += [np.broadcast_to(clips.cameras_a[chosen], (len(analogies), len(chosen), 3, 4))] * 4
        kinds = torch.from_numpy(kind)
    views = torch.from_numpy(np.concatenate([picture[:, chosen] for picture in pictures])).permute(0, 1, 4, 2, 3)
    window = starts[:, None] + np.arange(3)
    return Batch(
        views, torch.from_numpy(clips.intrinsics[chosen]), torch.from_numpy(np.concatenate(cameras)),
        torch.from_numpy(clips.table["action"][window]), torch.from_numpy(clips.table["speed"][window]), action, speed,
        count, kinds,
    )  # fmt: skip


@dataclass(frozen=True)
class Draw:
    """What a step reads, from its number alone: a killed run goes on with the batches that it would have had."""

    clips: Clips
    config: BatchConfig
    seed: int
    ranks: Ranks

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Rows at which clips may begin."""
        return self.clips.starts(3)

    @cached_property
    def branched(self) -> NDArray[np.int64]:
        """Branches that may be read."""
        return self.clips.branched()

    @cached_property
    def analogies(self) -> NDArray[np.int64]:
        """Analogies that may be read."""
        return self.clips.analogies()

    def __call__(self, step: int) -> tuple[Batch, Tensor, float]:
        """The batch of a step, each clip's episode within it, and the seconds that reading took."""
        clips, config, began = self.clips, self.config, time.monotonic()
        rng = np.random.default_rng(self.ranks.seeds(self.seed, step))
        rows, groups = next(episode_batches(self.starts, clips.episode, config.episodes, config.clips, rng))
        # Which cameras are seen is the same on all ranks, so that they take equally long.
        visible = choose_views(len(clips.intrinsics), config, rng if self.ranks.count == 1 else self.shared(step))
        ahead = int(rng.integers(2, clips.branch_action.shape[2] + 1)) if len(self.branched) else 1
        pairs = rng.choice(self.branched, min(config.pairs, len(self.branched)), replace=False)
        twins = rng.choice(len(clips.twin_start), min(config.twins, len(clips.twin_start)), replace=False)
        analogies = None
        if config.analogies and step >= config.analogies_from:
            analogies = rng.choice(self.analogies, min(config.analogies, len(self.analogies)), replace=False)
        batch = read_batch(clips, rows, visible, pairs, ahead, twins, analogies)
        return batch, torch.from_numpy(groups), time.monotonic() - began

    def shared(self, step: int) -> np.random.Generator:
        """Dice that all ranks throw alike."""
        return np.random.default_rng([self.seed, step])


def read_ahead(draw: Draw, first: int, steps: int) -> Iterator[tuple[int, tuple[Batch, Tensor, float]]]:
    """Steps with their batches; the next one is read in a thread while this one is learned from."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(draw, first) if first < steps else None
        for step in range(first, steps):
            assert following is not None
            ready = following.result()
            following = pool.submit(draw, step + 1) if step + 1 < steps else None
            yield step, ready
