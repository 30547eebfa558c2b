"""Temperatures of the risk heads, and how honest their probabilities are afterwards."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from drivesim.models import WorldModel
from drivesim.models.heads import RISKS
from training.clips import STAGED
from training.heads import HeadTrainer, pairs


def logged(trainer: HeadTrainer) -> np.ndarray:  # type: ignore[type-arg]
    """The risk states that were driven, not staged."""
    return np.asarray(trainer.risk_rows[trainer.clips.table["mode"][trainer.risk_rows] != STAGED])


@torch.no_grad()
def risk_logits(
    model: WorldModel, trainer: HeadTrainer, rng: np.random.Generator, states: int = 1200
) -> tuple[Tensor, Tensor]:
    """Logits and labels (m, 3) at imagined moments of a plain sample of logged states (no rare ones more often)."""
    logits, labels, rows_of_logs = [], [], logged(trainer)
    everything = torch.arange(trainer.table["risk"].shape[1])
    for rows in np.array_split(rng.choice(rows_of_logs, min(states, len(rows_of_logs)), replace=False), 12):
        index = torch.from_numpy(rows)
        context = pairs(trainer.latents, index, rng)
        seen, features, label = trainer.risk_queries(context, index, everything.expand(len(index), -1))
        logits.append(model.risk(seen, features))
        labels.append(label)
    return torch.cat(logits), torch.cat(labels)


def expected_calibration_error(probability: Tensor, label: Tensor, bins: int = 15) -> float:
    """Mean absolute gap between confidence and frequency over equal-width bins (Guo 2017)."""
    index = (probability * bins).long().clamp(max=bins - 1)
    total = 0.0
    for b in range(bins):
        rows = index == b
        if rows.any():
            total += float(rows.float().mean() * (probability[rows].mean() - label[rows].mean()).abs())
    return total


def calibrate(model: WorldModel, trainer: HeadTrainer, rng: np.random.Generator) -> dict[str, float]:
    """Set `model.risk_temperature` in place; returns calibration errors by risk."""
    model.eval()
    if len(logged(trainer)) < 12:
        return {}
    logits, labels = risk_logits(model, trainer, rng)
    out = {}
    for column, name in enumerate(RISKS):
        candidates = torch.linspace(0.5, 3.0, 26)
        losses = [
            nn.functional.binary_cross_entropy_with_logits(logits[:, column] / t, labels[:, column]) for t in candidates
        ]
        best = candidates[int(torch.stack(losses).argmin())]
        model.risk_temperature[column] = best
        out[f"{name}_temperature"] = float(best)
        probability = (logits[:, column] / best).sigmoid()
        out[f"{name}_calibration_error"] = expected_calibration_error(probability, labels[:, column])
        out[f"{name}_rate"] = float(labels[:, column].mean())
    return out
