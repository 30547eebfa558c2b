"""LeWorldModel's objective (2026): one vector a tick, squared error to a live target, SIGReg. Nothing else.

The encoder is ours, for an equal budget; its slots are read into one vector of 192 at the end, where LeWM has a
vision transformer's class token. One rendering, no branches, no inverse dynamics, as published.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from drivesim.models.encoder import EncoderConfig, SlotEncoder
from drivesim.models.predictor import LatentPredictor, PredictorConfig
from training.objectives import spread
from training.pretrain import PretrainConfig
from training.rivals.pictures import DRIVE
from training.rivals.shaping import Sample, Shaper, Terms

VECTOR = 192
SIGREG_WEIGHT = 0.09


@dataclass(frozen=True)
class VectorConfig(EncoderConfig):
    """An encoder whose latent is a single token."""

    latent_dim: int = VECTOR

    @property
    def slots(self) -> int:
        """One."""
        return 1


class VectorEncoder(SlotEncoder):
    """The slot encoder with its slots read into one vector: latents (b, 1, 192)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.join = nn.Linear(config.slots * config.latent_dim, VECTOR)
        self.join_norm = nn.BatchNorm1d(VECTOR, affine=False)
        sizes = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "latent_dim"}
        self.config = VectorConfig(**sizes)

    def forward(self, views: Tensor, intrinsics: Tensor, ego_from_camera: Tensor) -> Tensor:
        """As `SlotEncoder.forward`, with n = 1."""
        slots = super().forward(views, intrinsics, ego_from_camera)
        return torch.as_tensor(self.join_norm(self.join(slots.flatten(1)).float())[:, None])


class LeWM(Shaper):
    """Teacher-forced prediction on four ticks of one rendering."""

    pictures, branches = DRIVE, False

    def __init__(self, encoder: SlotEncoder, config: PretrainConfig) -> None:
        super().__init__(encoder, config)
        self.predictor = LatentPredictor(PredictorConfig(*self.shape, width=96, layers=1, members=1))

    def terms(self, sample: Sample, generator: torch.Generator) -> Terms:
        """Mean squared error of two predictions, and SIGReg at each tick across the batch."""
        batch = sample.batch
        z = self.encode(batch).view(4, len(sample.groups), *self.shape)
        errors = [
            (self.predictor(z[t - 1], z[t], batch.action[:, t], batch.speed[:, t])[0] - z[t + 1]).square().mean()
            for t in (1, 2)
        ]
        alike = torch.zeros_like(sample.groups)
        gaussian = torch.stack([spread(tick, alike, generator) for tick in z]).mean()
        parts = {"ahead": torch.stack(errors).mean(), "spread": SIGREG_WEIGHT * gaussian}
        return Terms(parts["ahead"] + parts["spread"], parts, torch.cat([z[1], z[2]]))
