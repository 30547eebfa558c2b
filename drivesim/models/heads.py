"""Small heads on the frozen latent: a policy, the risk of an imagined moment, and read-outs for reports.

Every head has a low-rank latent tower beside a tower of its own for ego kinematics, because a wide
latent over-fits rare events and because motion the car measures itself needs no imagination.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

KINEMATICS = 16  # columns of `kinematics`, see drivesim.planning.kinematics
RISKS = ("collision", "near", "red_light")
READOUTS = (
    "lead_gap",
    "lead_speed",
    "lead_present",
    "red_light",
    "walker_ahead",
    "lateral",
    "heading",
    "speed",
    "curvature",
)
ACCELERATION_BINS_MPS2 = (-6.0, -4.0, -3.0, -2.0, -1.2, -0.6, -0.2, 0.2, 0.6, 1.2, 2.0, 3.0)


@dataclass(frozen=True)
class HeadConfig:
    """Sizes shared by the heads."""

    latent_size: int = 1024
    rank: int = 24
    kinematic_width: int = 48
    hidden: int = 128
    dropout: float = 0.2


class TwoTowers(nn.Module):
    """A latent tower of low rank and a kinematic tower, joined by an MLP."""

    def __init__(
        self, config: HeadConfig, outputs: int, latents: int = 2, vision: bool = True, kinematics: int = KINEMATICS
    ) -> None:
        super().__init__()
        self.vision = vision
        self.latent = nn.Linear(latents * config.latent_size, config.rank) if vision else None
        self.kinematic = nn.Sequential(nn.Linear(kinematics, config.kinematic_width), nn.GELU())
        joined = config.kinematic_width + (config.rank if vision else 0)
        self.join = nn.Sequential(
            nn.LayerNorm(joined), nn.Dropout(config.dropout), nn.Linear(joined, config.hidden), nn.GELU(),
            nn.Dropout(config.dropout), nn.Linear(config.hidden, config.hidden), nn.GELU(),
            nn.Linear(config.hidden, outputs),
        )  # fmt: skip

    def forward(self, latents: Tensor, kinematics: Tensor) -> Tensor:
        """latents (b, 2, n, d) previous and current; kinematics (b, columns) -> (b, outputs)."""
        towers = [self.kinematic(kinematics)]
        if self.latent is not None:
            towers.append(self.latent(latents.flatten(1)))
        return torch.as_tensor(self.join(torch.cat(towers, dim=-1)))


def expected_acceleration(logits: Tensor) -> Tensor:
    """Mean acceleration (...) in m/s2 of a policy's distribution over ACCELERATION_BINS_MPS2."""
    return torch.as_tensor((logits.softmax(-1) * torch.tensor(ACCELERATION_BINS_MPS2)).sum(-1))


def acceleration_quantile(logits: Tensor, quantile: float) -> Tensor:
    """Quantile (...) of a policy's distribution, interpolated between bins."""
    bins = torch.tensor(ACCELERATION_BINS_MPS2)
    cumulative = logits.softmax(-1).cumsum(-1)
    above = (cumulative >= quantile).float().argmax(-1)
    return bins[above]
