"""Temperatures of the risk heads, and how honest their probabilities are afterwards."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from drivesim.models import WorldModel
from drivesim.models.heads import RISKS
from training.heads import HeadTrainer, imagined_kinematics, pairs


@torch.no_grad()
def risk_logits(
    model: WorldModel, trainer: HeadTrainer, rng: np.random.Generator, states: int = 1200
) -> tuple[Tensor, Tensor]:
    """Logits and labels (m, 3) at imagined moments of a plain sample of states (no rare ones drawn more often)."""
    table, horizon = trainer.table, trainer.config.horizon
    logits, labels = [], []
    for rows in np.array_split(rng.choice(trainer.risk_rows, min(states, len(trainer.risk_rows)), replace=False), 12):
        index = torch.from_numpy(rows)
        context = pairs(trainer.latents, index, rng)
        k = table["risk"].shape[1]
        actions, speeds = (
            table["candidate_action"][index][:, :, :horizon],
            table["candidate_speed"][index][:, :, :horizon],
        )
        distances = table["candidate_distance"][index][:, :, :horizon]
        wide = context.repeat_interleave(k, dim=0)
        start = table["speed"][index].repeat_interleave(k)
        imagined, _ = model.predictor.rollout(wide[:, 0], wide[:, 1], actions.flatten(0, 1), start)
        features = imagined_kinematics(
            table["kinematics"][index][:, None].expand(-1, k, -1), speeds, actions, distances
        )
        now = context[:, None, None, 1].expand(-1, k, horizon, -1, -1).flatten(0, 2)
        logits.append(model.risk(torch.stack([now, imagined.flatten(0, 1)], dim=1), features.flatten(0, 2)))
        labels.append(table["risk"][index][:, :, :horizon].flatten(0, 2))
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
    if len(trainer.risk_rows) < 12:
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
