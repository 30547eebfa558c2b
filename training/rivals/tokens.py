"""The language models' way: every slot becomes one word of a vocabulary, the future is written word by word.

RIVAL: pixels are the target here. Stage one is a VQ-VAE (van den Oord 2017; GAIA-1's tokeniser): the nearest of 512
code vectors, a vocabulary per slot, passes on the gradient as it comes, and pictures are decoded from the code alone.
Words that nobody uses are given the meaning of a latent that was just seen. Stage two is in `token_predictor.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from drivesim.models.encoder import EncoderConfig, SlotEncoder
from training.precision import half_precision
from training.pretrain import PretrainConfig
from training.rivals.decoder import ViewDecoder, picture_error
from training.rivals.pictures import MIXED
from training.rivals.shaping import Sample, Shaper, Terms

WORDS = 512
COMMITMENT_WEIGHT = 0.25
RENEW_EVERY = 25


class TokenEncoder(SlotEncoder):
    """The slot encoder with its latent rounded to the nearest code of each slot."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.codes: Tensor
        self.register_buffer("codes", torch.randn(config.slots, WORDS, config.latent_dim))

    def continuous(self, views: Tensor, intrinsics: Tensor, ego_from_camera: Tensor) -> Tensor:
        """What is to be rounded: latents (b, n, d)."""
        return super().forward(views, intrinsics, ego_from_camera)

    def forward(self, views: Tensor, intrinsics: Tensor, ego_from_camera: Tensor) -> Tensor:
        """As `SlotEncoder.forward`; every slot is one of its codes."""
        return spelt(self.codes, nearest_word(self.codes, self.continuous(views, intrinsics, ego_from_camera)))


def nearest_word(codes: Tensor, latents: Tensor) -> Tensor:
    """Index (b, n) of the nearest of codes (n, k, d) to latents (b, n, d)."""
    return torch.cdist(latents.transpose(0, 1).float(), codes).argmin(2).T


def spelt(codes: Tensor, words: Tensor) -> Tensor:
    """Code vectors (b, n, d) of words (b, n)."""
    return codes[torch.arange(len(codes)), words]


class Tokens(Shaper):
    """The tokeniser's training."""

    pictures, branches = MIXED, False

    def __init__(self, encoder: SlotEncoder, config: PretrainConfig) -> None:
        super().__init__(encoder, config)
        if not isinstance(encoder, TokenEncoder):
            raise TypeError("tokens need a TokenEncoder")
        self.rounding: TokenEncoder = encoder
        self.decoder = ViewDecoder(self.shape[1])
        self.codes = torch.nn.Parameter(encoder.codes.clone())
        self.steps: Tensor
        self.used: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("used", torch.zeros(encoder.codes.shape[:2]))

    def terms(self, sample: Sample, generator: torch.Generator) -> Terms:
        """Pictures from words; codes go to the latents, latents to their codes."""
        batch = sample.batch
        with half_precision(self.config.half):
            latents = self.rounding.continuous(batch.views, batch.intrinsics[None], batch.cameras)
        self.renew(latents.detach(), generator)
        words = nearest_word(self.codes.detach(), latents.detach())
        self.used.scatter_add_(1, words.T, torch.ones(words.T.shape))
        code = spelt(self.codes, words)
        straight = latents + (code - latents).detach()
        parts = {
            "picture": picture_error(self.decoder, straight, batch, torch.arange(len(latents)), generator),
            "codes": (code - latents.detach()).square().mean(),
            "commitment": COMMITMENT_WEIGHT * (latents - code.detach()).square().mean(),
        }
        loss = torch.stack(list(parts.values())).sum()
        b = len(sample.groups)
        parts["words"] = torch.stack([torch.unique(slot).numel() * torch.ones(()) for slot in words.T]).mean()
        return Terms(loss, parts, code.detach()[b : 3 * b])

    @torch.no_grad()
    def renew(self, latents: Tensor, generator: torch.Generator) -> None:
        """Now and then, give words that were not used since the last time the place of a latent (b, n, d)."""
        if int(self.steps) % RENEW_EVERY == 0:
            chosen = torch.randint(len(latents), self.used.shape, generator=generator)
            fresh = latents[chosen, torch.arange(latents.shape[1])[:, None]]
            fresh = fresh + 0.01 * torch.randn(fresh.shape, generator=generator)
            self.codes.copy_(torch.where((self.used > 0)[..., None], self.codes, fresh))
            self.used.zero_()
        self.steps += 1

    @torch.no_grad()
    def after_step(self) -> None:
        """The encoder rounds to the codes as they are now."""
        self.rounding.codes.copy_(self.codes)
