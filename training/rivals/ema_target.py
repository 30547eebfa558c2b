"""Targets from a slow copy of the encoder (BYOL, V-JEPA), or from the encoder itself without a gradient.

Squared error needs more than that at this scale: SIGReg on latents that are centred by episode, as the nano study's
repaired JEPA had it.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from drivesim.models.encoder import SlotEncoder
from training.batches import Batch
from training.objectives import spread
from training.precision import half_precision
from training.pretrain import PretrainConfig
from training.rivals.joint_embedding import JointEmbedding

SIGREG_WEIGHT = 0.3
MOMENTUM = 0.99


class StopGradient(JointEmbedding):
    """The target is the encoder's own latent, seen as a constant."""

    def targets(self, batch: Batch, latents: Tensor) -> Tensor:
        """The same latents without a gradient."""
        return latents.detach()

    def regularise(self, latents: Tensor, groups: Tensor, generator: torch.Generator) -> Tensor:
        """SIGReg of episode-centred latents."""
        return SIGREG_WEIGHT * spread(latents, groups, generator)


class EMATarget(StopGradient):
    """The target comes from an exponential moving average of the encoder (one more forward pass a step)."""

    def __init__(self, encoder: SlotEncoder, config: PretrainConfig) -> None:
        super().__init__(encoder, config)
        self.slow = copy.deepcopy(encoder).requires_grad_(False)

    @torch.no_grad()
    def targets(self, batch: Batch, latents: Tensor) -> Tensor:
        """What the slow encoder says of the same pictures."""
        with half_precision(self.config.half):
            return torch.as_tensor(self.slow(batch.views, batch.intrinsics[None], batch.cameras))

    @torch.no_grad()
    def after_step(self) -> None:
        """Follow the encoder slowly."""
        for slow, fast in zip(self.slow.parameters(), self.encoder.parameters(), strict=True):
            slow.lerp_(fast, 1.0 - MOMENTUM)
