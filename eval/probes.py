"""Probes: what can be read from a frozen latent, and how to score it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from drivesim.models.heads import Panel
from training.clips import Clips
from training.labels import READOUT_COLUMNS

REGRESSIONS = {
    "speed": None, "lead_gap": "lead_present", "lateral": None, "heading": None, "curvature": None,
    "other_ahead": "other_present", "other_left": "other_present",
}  # fmt: skip
PLACE = ("other_ahead", "other_left")  # where the nearest vehicle is, in any direction
DETECTIONS = ("red_light", "walker_ahead", "lead_present")


@dataclass(frozen=True)
class Probe:
    """An MLP on the last two latents for each group of slots, standardised targets inside.

    Attributes:
        shares: (groups, targets) of each MLP's answer.
    """

    net: Panel
    mean: Tensor
    scale: Tensor
    shares: Tensor

    @torch.no_grad()
    def __call__(self, pairs: Tensor) -> Tensor:
        """pairs (b, 2, n, d) -> (b, targets): regressions in units, detections as logits."""
        answers = self.net.answers(pairs, pairs[:0])
        return torch.as_tensor((answers * self.shares[:, None]).sum(0) * self.scale + self.mean)


def target_table(table: dict[str, NDArray[np.float32]], rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Targets (b, t) and weights (b, t): masked where a quantity does not exist."""
    values, weights = [], []
    for name, mask in REGRESSIONS.items():
        values.append(table[name][rows])
        weights.append(table[mask][rows] if mask else np.ones(len(rows), np.float32))
    for name in DETECTIONS:
        values.append(table[name][rows])
        weights.append(np.ones(len(rows), np.float32))
    return torch.from_numpy(np.stack(values, 1)), torch.from_numpy(np.stack(weights, 1))


def branch_targets(clips: Clips, chosen: NDArray[np.int64], first: int = 1) -> tuple[Tensor, Tensor]:
    """Targets and weights of the futures of chosen branches, from step `first` on (from 0): (m * 2 * steps, t)."""
    table = {name: clips.table_of_branches(name)[chosen][:, :, first:].reshape(-1) for name in READOUT_COLUMNS}
    table["speed"] = clips.branch_speed[chosen][:, :, first + 1 :].reshape(-1)
    table["curvature"] = table["curvature_ahead"]
    return target_table(table, np.arange(len(table["speed"])))


def drives_of(clips: Clips, ticks: NDArray[np.int64], branches: NDArray[np.int64]) -> NDArray[np.int32]:
    """Drives of ticks in both looks, and then of the later futures of branches, as the studies' probes read them."""
    left = clips.episode[clips.branch_start[branches]]
    futures = np.repeat(left, 2 * (clips.branch_views.shape[2] - 1))
    return np.concatenate([clips.episode[ticks], clips.episode[ticks], futures])


class Reader(nn.Module):
    """The MLP that reads one group of slots."""

    def __init__(self, size: int) -> None:
        super().__init__()
        outputs = len(REGRESSIONS) + len(DETECTIONS)
        self.net = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(size, 96), nn.GELU(), nn.Dropout(0.2), nn.Linear(96, outputs)
        )

    def forward(self, pairs: Tensor, _: Tensor) -> Tensor:
        """pairs (b, 2, n, d) -> (b, targets)."""
        return torch.as_tensor(self.net(pairs.flatten(1)))


def probe_net(groups: tuple[int, ...], width: int) -> Panel:
    """An untrained probe: one MLP for each group of slots, since one of all learns the scene by heart."""
    return Panel(groups, [Reader(2 * count * width) for count in groups])


@dataclass(frozen=True)
class Lesson:
    """What a probe learns from: pairs (b, 2, n, d), standardised targets and weights (b, t)."""

    pairs: Tensor
    targets: Tensor
    weights: Tensor

    def __getitem__(self, rows: Tensor) -> Lesson:
        return Lesson(self.pairs[rows], self.targets[rows], self.weights[rows])

    def losses(self, answers: Tensor) -> Tensor:
        """Squared errors of regressions and cross-entropies of detections, (t,), of answers (b, t)."""
        n = len(REGRESSIONS)
        error = ((answers - self.targets)[:, :n].square() * self.weights[:, :n]).mean(0)
        ask = nn.functional.binary_cross_entropy_with_logits
        return torch.cat([error, ask(answers[:, n:], self.targets[:, n:], reduction="none").mean(0)])


def taught(lesson: Lesson, groups: tuple[int, ...], seed: int, steps: int) -> Panel:
    """A probe's MLPs, trained by AdamW with noise on what they read."""
    torch.manual_seed(seed)
    net, regressions = probe_net(groups, lesson.pairs.shape[-1]), len(REGRESSIONS)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / steps)
        part = lesson[torch.randint(0, len(lesson.pairs), (256,))]
        losses = part.losses(net(part.pairs + 0.5 * torch.randn_like(part.pairs), part.pairs[:0]))
        loss = losses[:regressions].mean() + losses[regressions:].mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net.eval()


def fit_probe(
    pairs: Tensor, targets: Tensor, weights: Tensor, seed: int, steps: int = 1500,
    groups: tuple[int, ...] | None = None, drives: NDArray[Any] | None = None,
) -> Probe:  # fmt: skip
    """Train one probe for all targets (held-out towns judge it).

    Args:
        pairs: (b, 2, n, d); targets, weights (b, t).
        groups: slots of each group; one of all by default.
        drives: (b,) numbers of the drives that the pairs are of. Needed where there are several groups: how much each
            has to say about a target is found on every fifth drive, by MLPs that learned from the others.
    """
    regressions = len(REGRESSIONS)
    mask = weights[:, :regressions]
    mean = (targets[:, :regressions] * mask).sum(0) / mask.sum(0).clamp(min=1)
    scale = (((targets[:, :regressions] - mean) ** 2 * mask).sum(0) / mask.sum(0).clamp(min=1)).sqrt().clamp(min=1e-3)
    ones = torch.ones(len(DETECTIONS))
    mean, scale = torch.cat([mean, 0 * ones]), torch.cat([scale, ones])
    groups = groups or (pairs.shape[2],)
    lesson = Lesson(pairs, (targets - mean) / scale, weights)
    shares = torch.ones(1, targets.shape[1])
    if len(groups) > 1:
        if drives is None:
            raise ValueError("a probe of several groups of slots needs to know which drives its pairs are of")
        aside = torch.from_numpy(np.asarray(drives) % 5 == 4)
        others = taught(lesson[torch.nonzero(~aside)[:, 0]], groups, seed, steps)
        shares = best_shares(others, lesson[torch.nonzero(aside)[:, 0]])
    return Probe(taught(lesson, groups, seed, steps), mean, scale, shares)


@torch.no_grad()
def best_shares(net: Panel, lesson: Lesson, parts: int = 10) -> Tensor:
    """Shares (groups, t) in tenths, which add to one, by which the answers come nearest to each target."""
    count = len(net.groups)
    answers = net.answers(lesson.pairs, lesson.pairs[:0])
    cuts = [c for c in product(range(parts + 1), repeat=count) if sum(c) == parts]
    options = torch.tensor(cuts, dtype=torch.float32) / parts
    losses = torch.stack([lesson.losses((answers * share[:, None, None]).sum(0)) for share in options])
    return options[losses.argmin(0)].T.contiguous()


def r_squared(prediction: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Coefficient of determination; below zero where the mean would do better."""
    return float(1.0 - np.square(prediction - truth).sum() / max(np.square(truth - truth.mean()).sum(), 1e-9))


def area_under_curve(score: NDArray[np.float64], label: NDArray[np.float64]) -> float | None:
    """ROC AUC by ranks (ties halved); None where one class is absent."""
    positive = label > 0.5
    p, n = int(positive.sum()), int((~positive).sum())
    if p == 0 or n == 0:
        return None
    ranks = rankdata(score)
    return float((ranks[positive].sum() - p * (p + 1) / 2) / (p * n))


def score_probe(probe: Probe, pairs: Tensor, targets: Tensor, weights: Tensor) -> dict[str, float | None]:
    """R2 of regressions (where they exist) and AUC of detections."""
    out = probe(pairs).double().numpy()
    truth, kept = targets.double().numpy(), weights.numpy() > 0.5
    scores: dict[str, float | None] = {}
    for column, name in enumerate(REGRESSIONS):
        rows = kept[:, column]
        scores[f"{name}_r2"] = r_squared(out[rows, column], truth[rows, column]) if rows.sum() > 20 else None
    scores["other_place_r"] = place_correlation(out, truth, kept)
    for column, name in enumerate(DETECTIONS, start=len(REGRESSIONS)):
        scores[f"{name}_auc"] = area_under_curve(out[:, column], truth[:, column])
    return scores


def place_correlation(read: NDArray[np.float64], truth: NDArray[np.float64], kept: NDArray[np.bool_]) -> float | None:
    """Mean Pearson correlation of where the nearest vehicle is, ahead and to the left; (b, t) each, kept as masks."""
    found = []
    for name in PLACE:
        column = list(REGRESSIONS).index(name)
        rows = kept[:, column]
        if rows.sum() <= 20:
            return None
        found.append(float(np.corrcoef(read[rows, column], truth[rows, column])[0, 1]))
    return float(np.mean(found))


def retrieval(a: Tensor, b: Tensor) -> float:
    """Share of states whose rendering in another appearance is the nearest of all (cosine of centred latents)."""
    x, y = a.flatten(1), b.flatten(1)
    x = nn.functional.normalize(x - x.mean(0), dim=1)
    y = nn.functional.normalize(y - y.mean(0), dim=1)
    return float(((x @ y.T).argmax(1) == torch.arange(len(x))).float().mean())
