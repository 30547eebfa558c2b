"""Probes: what can be read from a frozen latent, and how to score it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from training.clips import Clips
from training.labels import READOUT_COLUMNS

REGRESSIONS = {"speed": None, "lead_gap": "lead_present", "lateral": None, "heading": None, "curvature": None}
DETECTIONS = ("red_light", "walker_ahead", "lead_present")


@dataclass(frozen=True)
class Probe:
    """An MLP on the last two latents, standardised targets inside."""

    net: nn.Sequential
    mean: Tensor
    scale: Tensor

    @torch.no_grad()
    def __call__(self, pairs: Tensor) -> Tensor:
        """pairs (b, 2, n, d) -> (b, targets): regressions in units, detections as logits."""
        return torch.as_tensor(self.net(pairs.flatten(1)) * self.scale + self.mean)


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


def probe_net(size: int) -> nn.Sequential:
    """The untrained MLP of a probe that reads `size` numbers."""
    outputs = len(REGRESSIONS) + len(DETECTIONS)
    return nn.Sequential(nn.Dropout(0.2), nn.Linear(size, 96), nn.GELU(), nn.Dropout(0.2), nn.Linear(96, outputs))


def fit_probe(pairs: Tensor, targets: Tensor, weights: Tensor, seed: int, steps: int = 1500) -> Probe:
    """Train one probe for all targets by AdamW, with noise on what it reads (held-out towns judge it)."""
    torch.manual_seed(seed)
    regressions = len(REGRESSIONS)
    mask = weights[:, :regressions]
    mean = (targets[:, :regressions] * mask).sum(0) / mask.sum(0).clamp(min=1)
    scale = (((targets[:, :regressions] - mean) ** 2 * mask).sum(0) / mask.sum(0).clamp(min=1)).sqrt().clamp(min=1e-3)
    ones = torch.ones(len(DETECTIONS))
    mean, scale = torch.cat([mean, 0 * ones]), torch.cat([scale, ones])
    net = probe_net(pairs[0].numel())
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / steps)
        rows = torch.randint(0, len(pairs), (256,))
        seen = pairs[rows].flatten(1)
        out = net(seen + 0.5 * torch.randn_like(seen))
        wanted = (targets[rows] - mean) / scale
        error = (out - wanted)[:, :regressions].square() * weights[rows][:, :regressions]
        chance = nn.functional.binary_cross_entropy_with_logits(out[:, regressions:], targets[rows][:, regressions:])
        loss = error.mean() + chance
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return Probe(net.eval(), mean, scale)


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
    for column, name in enumerate(DETECTIONS, start=len(REGRESSIONS)):
        scores[f"{name}_auc"] = area_under_curve(out[:, column], truth[:, column])
    return scores


def retrieval(a: Tensor, b: Tensor) -> float:
    """Share of states whose rendering in another appearance is the nearest of all (cosine of centred latents)."""
    x, y = a.flatten(1), b.flatten(1)
    x = nn.functional.normalize(x - x.mean(0), dim=1)
    y = nn.functional.normalize(y - y.mean(0), dim=1)
    return float(((x @ y.T).argmax(1) == torch.arange(len(x))).float().mean())
