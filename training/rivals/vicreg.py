"""VICReg (Bardes 2022), as PLDM uses it for world models: invariance, variance, covariance; no negatives.

Variance and covariance are those of episode-centred latents: the encoder ends in a batch norm, so that the variance
across the batch is one by construction and would say nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.rivals.joint_embedding import JointEmbedding

VARIANCE_WEIGHT, COVARIANCE_WEIGHT = 1.0, 0.04  # 25 : 25 : 1 with the invariance term's weight as the unit


class VICReg(JointEmbedding):
    """MSE without stop-gradient; a hinge on every dimension's deviation; decorrelation within a slot."""

    def regularise(self, latents: Tensor, groups: Tensor, generator: torch.Generator) -> Tensor:
        """Hinge and squared covariances of latents (b, n, d)."""
        b, d = len(latents), latents.shape[2]
        count = int(groups.max()) + 1
        totals = torch.zeros(count, *latents.shape[1:]).index_add_(0, groups, latents)
        centred = latents - (totals / torch.bincount(groups, minlength=count)[:, None, None])[groups]
        free = max(1, b - count)
        variance = centred.square().sum(0) / free
        hinge = torch.relu(1.0 - (variance + 1e-4).sqrt()).mean()
        covariance = torch.einsum("bnd,bne->nde", centred, centred) / free
        off = covariance - torch.diag_embed(torch.diagonal(covariance, dim1=1, dim2=2))
        return VARIANCE_WEIGHT * hinge + COVARIANCE_WEIGHT * off.square().sum(dim=(1, 2)).mean() / d
