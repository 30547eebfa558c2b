"""Dreamer's way at our scale: a recurrent latent that must be able to show what was seen.

RIVAL: pixels are the target here. A GRU carries state over three ticks, its prior guesses the next latent from state
and action, the encoder's posterior is a Gaussian of fixed width around the encoding, and both are decoded: the
posterior, and the prior alone. The KL of two such Gaussians is a squared distance; it is balanced 0.8 : 0.2 (KL
balancing, DreamerV2). In stages two and three the encoder is used like any other, under the same predictor and heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from drivesim.models.encoder import SlotEncoder
from drivesim.models.predictor import action_features
from training.pretrain import PretrainConfig
from training.rivals.decoder import ViewDecoder, picture_error
from training.rivals.pictures import MIXED
from training.rivals.shaping import Sample, Shaper, Terms

POSTERIOR_WIDTH = 0.3  # of a latent whose dimensions have unit deviation
KL_WEIGHT, PRIOR_SHARE = 0.1, 0.8
STATE = 256


class RecurrentPrior(nn.Module):
    """Deterministic state and what it expects to be seen next."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.cell, self.expect = nn.GRUCell(size + 5, STATE), nn.Linear(STATE, size)

    def forward(self, latent: Tensor, action: Tensor, speed: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """latent (b, n, d), action (b, 2), speed (b,), state (b, 256) -> the next state and expected latent."""
        seen = torch.cat([latent.flatten(1), action_features(action, speed)], dim=1)
        state = self.cell(seen, state)
        return state, self.expect(state).view_as(latent)


class Reconstruction(Shaper):
    """Three ticks of a drive, recurrent; a fourth picture, in another look, is only encoded and decoded."""

    pictures, branches = MIXED, False

    def __init__(self, encoder: SlotEncoder, config: PretrainConfig) -> None:
        super().__init__(encoder, config)
        n, d = self.shape
        self.prior, self.decoder = RecurrentPrior(n * d), ViewDecoder(d)

    def terms(self, sample: Sample, generator: torch.Generator) -> Terms:
        """Pictures from posteriors, a picture from the prior, and the balanced KL."""
        batch = sample.batch
        latents = self.encode(batch)
        b = len(sample.groups)
        drawn = latents + POSTERIOR_WIDTH * torch.randn(latents.shape, generator=generator)
        means, posts = latents.view(4, b, *self.shape), drawn.view(4, b, *self.shape)
        state, divergence = torch.zeros(b, STATE), torch.zeros(())
        for t in (0, 1):
            state, expected = self.prior(posts[t], batch.action[:, t], batch.speed[:, t], state)
            taught = (means[t + 1].detach() - expected).square().mean()
            regular = (means[t + 1] - expected.detach()).square().mean()
            divergence = divergence + 0.5 * (PRIOR_SHARE * taught + (1.0 - PRIOR_SHARE) * regular)
        rows = torch.arange(4 * b)
        parts = {
            "picture": picture_error(self.decoder, drawn, batch, rows, generator),
            "foreseen": picture_error(self.decoder, expected, batch, rows[2 * b : 3 * b], generator, views=1),
            "divergence": KL_WEIGHT * divergence / POSTERIOR_WIDTH**2,
        }
        return Terms(torch.stack(list(parts.values())).sum(), parts, torch.cat([means[1], means[2]]))
