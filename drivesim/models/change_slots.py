"""Slots for what could be otherwise, beside the slots that say what the scene is like.

The scene's slots are shaped by telling moments apart, and of that the place is nearly all: somebody on the road moves
them by a third of what moments differ by anyway, and where in its lane the car stands hardly at all. These slots look
at the same tokens and are shaped by changes alone (`training.changes`): things that may be there or not, and the car's
own stance. Nothing else competes for them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from drivesim.models.attention import Attention

RAY_FEATURES = 28


class ChangeSlots(nn.Module):
    """Tokens of the whole rig -> a few slots (b, k, d), by two rounds of attention that may look anywhere."""

    def __init__(self, channels: int, slots: int, latent_dim: int, width: int, heads: int = 4, rounds: int = 2) -> None:
        super().__init__()
        self.ray = nn.Sequential(nn.Linear(RAY_FEATURES, channels), nn.GELU(), nn.Linear(channels, channels))
        self.mix = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels)
        )
        self.queries = nn.Parameter(torch.randn(slots, width) * 0.1)
        self.cross_norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(rounds))
        self.cross = nn.ModuleList(Attention(width, heads, channels) for _ in range(rounds))
        self.mlp_norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(rounds))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)) for _ in range(rounds)
        )
        self.out = nn.Linear(width, latent_dim)
        self.latent_norm = nn.BatchNorm1d(slots * latent_dim, affine=False)

    def forward(self, tokens: Tensor, about: Tensor) -> Tensor:
        """Tokens (b, t, channels) before they are told where they look, ray features (1 or b, t, 28) -> (b, k, d)."""
        tokens = tokens + self.ray(about)
        tokens = tokens + self.mix(tokens)
        slots = self.queries.expand(len(tokens), -1, -1)
        for cross_norm, cross, mlp_norm, mlp in zip(self.cross_norm, self.cross, self.mlp_norm, self.mlp, strict=True):
            slots = slots + cross(cross_norm(slots), tokens)
            slots = slots + mlp(mlp_norm(slots))
        latent = self.out(slots)
        return torch.as_tensor(self.latent_norm(latent.flatten(1).float()).view_as(latent))
