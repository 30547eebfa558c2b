"""The predictor: what the latent will be, given what it is and what the car does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from drivesim.models.encoder import Attention


@dataclass(frozen=True)
class PredictorConfig:
    """Sizes of the predictor. Actions are acceleration, curvature and the speed at the start of the step."""

    slots: int = 16
    latent_dim: int = 64
    width: int = 128
    layers: int = 2
    heads: int = 4
    members: int = 2  # output heads; their disagreement says how far to trust a prediction


def action_features(actions: Tensor, speed_mps: Tensor) -> Tensor:
    """Scaled inputs (..., 5) from actions (..., 2) and the speed (...) at the start of the step.

    Distance and turn within the step are given outright: they decide how the picture moves.
    """
    acceleration, curvature = actions[..., 0], actions[..., 1]
    distance = torch.relu(speed_mps + 0.25 * acceleration) * 0.5
    return torch.stack(
        [acceleration / 3.0, curvature * 10.0, speed_mps / 10.0, distance / 5.0, curvature * distance * 10.0], dim=-1
    )


class Block(nn.Module):
    """Transformer block with AdaLN-zero conditioning (DiT; LeWM's predictor)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm_2 = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (b, n, d), condition (b, d)."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(condition)[:, None].chunk(6, dim=-1)
        normed = self.norm_1(x) * (1 + scale_1) + shift_1
        x = x + gate_1 * self.attention(normed, normed)
        normed = self.norm_2(x) * (1 + scale_2) + shift_2
        return torch.as_tensor(x + gate_2 * self.mlp(normed))


class LatentPredictor(nn.Module):
    """One step of half a second: [z_{t-1}, z_t], action, speed -> z_{t+1}, for each ensemble member."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(2 * config.latent_dim, config.width)
        self.position = nn.Parameter(torch.randn(config.slots, config.width) * 0.02)
        self.condition = nn.Sequential(nn.Linear(5, config.width), nn.SiLU(), nn.Linear(config.width, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.members = nn.ModuleList(nn.Linear(config.width, config.latent_dim) for _ in range(config.members))
        for member in self.members:
            nn.init.normal_(next(member.parameters()), std=0.01)  # the weight: start near "nothing changes"

    def forward(self, previous: Tensor, current: Tensor, action: Tensor, speed_mps: Tensor) -> Tensor:
        """previous, current (b, n, d); action (b, 2); speed (b,) -> (members, b, n, d)."""
        x = self.embed(torch.cat([previous, current], dim=-1)) + self.position
        condition = self.condition(action_features(action, speed_mps))
        for block in self.blocks:
            x = block(x, condition)
        x = self.norm(x)
        return torch.stack([current + member(x) for member in self.members])

    def rollout(self, previous: Tensor, current: Tensor, actions: Tensor, speed_mps: Tensor) -> tuple[Tensor, Tensor]:
        """Imagine several steps on the members' mean.

        Args:
            previous, current: (b, n, d).
            actions: (b, p, 2), each held for half a second.
            speed_mps: (b,) now; later speeds follow from the accelerations.

        Returns:
            latents (b, p, n, d), and the members' disagreement (b, p): root mean squared difference.
        """
        latents, disagreements = [], []
        for step in range(actions.shape[1]):
            members = self(previous, current, actions[:, step], speed_mps)
            mean = members.mean(0)
            disagreements.append((members - mean).square().mean(dim=(0, 2, 3)).sqrt())
            previous, current = current, mean
            speed_mps = torch.relu(speed_mps + 0.5 * actions[:, step, 0])
            latents.append(mean)
        return torch.stack(latents, dim=1), torch.stack(disagreements, dim=1)
