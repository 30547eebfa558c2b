"""A probe that was taught on imagined latents: what imagination says to whoever is used to it.

A predictor that is sure of little says the mean of what may come, and a probe of encoded latents reads that as little
of anything. The planner's heads are taught on imagined latents, and so is this probe: on rollouts along the logged
actions and along both actions of branched states of the training drives.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.models.encoder import SlotEncoder
from drivesim.models.predictor import LatentPredictor
from eval.probes import Probe, branch_targets, fit_probe, target_table
from training.clips import Clips
from training.latents import Latents, encode_clips

STEPS = 6


def pairs_along(now: Tensor, imagined: Tensor) -> Tensor:
    """What a probe reads at each imagined step: (b, p, 2, n, d) of now (b, n, d) and imagined (b, p, n, d)."""
    full = torch.cat([now[:, None], imagined], dim=1)
    return torch.stack([full[:, :-1], full[:, 1:]], dim=2)


@torch.no_grad()
def fit_on_imagined(
    encoder: SlotEncoder, predictor: LatentPredictor, train: Clips, like: Latents, seed: int, ticks: int = 4000
) -> Probe:
    """Fit it on `ticks` logged moments and on all branches; `like` says how the latents are standardised."""
    rng = np.random.default_rng([seed, 3])
    starts = train.starts(STEPS + 2) + 1
    rows = np.sort(rng.permutation(starts)[:ticks])
    chosen = train.branched()
    left = train.branch_start[chosen]
    needed = np.unique(np.concatenate([rows - 1, rows, left - 1, left]))
    part = replace(
        train, views_a=train.views_a[needed], views_b=train.views_b[:0], cameras_b=train.cameras_b[:0],
        branch_views=train.branch_views[:0],
    )  # fmt: skip
    a = encode_clips(part, encoder).in_units(like.mean, like.scale).a

    def at(of: NDArray[np.int64]) -> Tensor:
        return a[np.searchsorted(needed, of)]

    window = rows[:, None] + np.arange(STEPS)
    actions, speed = (
        torch.from_numpy(train.table[name][index]) for name, index in (("action", window), ("speed", rows))
    )
    imagined, _ = predictor.rollout(at(rows - 1), at(rows), actions, speed)
    logged = pairs_along(at(rows), imagined).flatten(0, 1)
    actions = torch.from_numpy(train.branch_action[chosen]).flatten(0, 1)  # both sides of a branch in turn
    speed = torch.from_numpy(train.branch_speed[chosen, :, 0]).flatten()
    before, now = (at(np.repeat(index, 2)) for index in (left - 1, left))
    imagined, _ = predictor.rollout(before, now, actions, speed)
    targets, weights = target_table(train.table, (window + 1).reshape(-1))
    more, more_weights = branch_targets(train, chosen, first=0)
    pairs = torch.cat([logged, pairs_along(now, imagined).flatten(0, 1)])
    with torch.enable_grad():
        drives = [np.repeat(train.episode[rows], STEPS), np.repeat(train.episode[left], len(more) // len(left))]
        return fit_probe(
            pairs, torch.cat([targets, more]), torch.cat([weights, more_weights]), seed, groups=encoder.config.groups,
            drives=np.concatenate(drives),
        )  # fmt: skip
