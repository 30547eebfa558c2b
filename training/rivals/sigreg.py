"""Plain JEPA: squared error to a target that moves along, kept apart by SIGReg over the whole batch (LeJEPA, 2025).

The known trap in driving: a code of the episode's place and weather is constant in time, hence perfectly
predictable, and perfectly Gaussian across episodes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.objectives import spread
from training.rivals.joint_embedding import JointEmbedding

SIGREG_WEIGHT = 0.09  # LeWorldModel's


class PlainSIGReg(JointEmbedding):
    """MSE without stop-gradient; SIGReg per slot, centred by the batch alone."""

    def regularise(self, latents: Tensor, groups: Tensor, generator: torch.Generator) -> Tensor:
        """SIGReg as if all clips were of one episode."""
        return SIGREG_WEIGHT * spread(latents, torch.zeros_like(groups), generator)
