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
from eval.probes import Probe, fit_probe, target_table
from training.clips import Clips
from training.dynamics import Latents, encode_clips
from training.labels import READOUT_COLUMNS

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
    raw = encode_clips(part, encoder)
    a = (raw.a * raw.scale + raw.mean - like.mean) / like.scale

    def at(of: NDArray[np.int64]) -> Tensor:
        return a[np.searchsorted(needed, of)]

    window = rows[:, None] + np.arange(STEPS)
    actions, speed = (
        torch.from_numpy(train.table[name][index]) for name, index in (("action", window), ("speed", rows))
    )
    imagined, _ = predictor.rollout(at(rows - 1), at(rows), actions, speed)
    pairs, (targets, weights) = [pairs_along(at(rows), imagined).flatten(0, 1)], logged_targets(train, window + 1)
    for side in range(2):
        actions = torch.from_numpy(train.branch_action[chosen, side])
        speed = torch.from_numpy(train.branch_speed[chosen, side, 0])
        imagined, _ = predictor.rollout(at(left - 1), at(left), actions, speed)
        pairs.append(pairs_along(at(left), imagined).flatten(0, 1))
        more, more_weights = branched_targets(train, chosen, side)
        targets, weights = torch.cat([targets, more]), torch.cat([weights, more_weights])
    with torch.enable_grad():
        return fit_probe(torch.cat(pairs), targets, weights, seed)


def logged_targets(train: Clips, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Targets and weights of rows (any shape), in their order."""
    return target_table(train.table, rows.reshape(-1))


def branched_targets(train: Clips, chosen: NDArray[np.int64], side: int) -> tuple[Tensor, Tensor]:
    """Targets and weights of one side's futures of branches, step after step."""
    table = {name: train.table_of_branches(name)[chosen, side].reshape(-1) for name in READOUT_COLUMNS}
    table["speed"] = train.branch_speed[chosen, side, 1:].reshape(-1)
    table["curvature"] = table["curvature_ahead"]
    return target_table(table, np.arange(len(table["speed"])))
