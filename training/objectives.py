"""What shapes the latent: contrastive prediction across two renderings, spread, inverse dynamics.

No term sees a pixel as a target, nor any truth: images, calibration, ego motion and logged actions only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.ranks import gathered


def contrast(predicted: Tensor, target: Tensor, temperature: float = 0.1) -> tuple[Tensor, Tensor]:
    """Identify each row's target among all targets of the batch (CPC, van den Oord 2018; InfoNCE).

    Half of the loss asks it of every slot alone, so that each sector must keep what is decisive in it;
    half of the mean similarity of all slots. Batches hold many clips of the same episode, so the place
    and the weather do not give the answer away.

    Args:
        predicted, target: (b, n, d).

    Returns:
        loss (), and the share of rows whose target was found by the mean similarity ().
    """
    x = nn.functional.normalize(predicted - predicted.mean(0, keepdim=True), dim=-1)
    y = nn.functional.normalize(target - target.mean(0, keepdim=True), dim=-1)
    similarity = torch.einsum("ind,jnd->nij", x, y) / temperature
    rows = torch.arange(len(x), device=x.device)
    labels = rows.expand(similarity.shape[0], -1)
    per_slot = nn.functional.cross_entropy(similarity.flatten(0, 1), labels.flatten())
    joint = similarity.mean(0) * 2.0
    loss = 0.5 * per_slot + 0.5 * nn.functional.cross_entropy(joint, rows)
    return loss, (joint.argmax(1) == rows).float().mean()


def spread(
    latents: Tensor, episodes: Tensor, generator: torch.Generator, directions: int = 64, knots: int = 9
) -> Tensor:
    """Sketched isotropic Gaussian regularisation of episode-centred latents (SIGReg, LeJEPA 2025).

    Compares the empirical characteristic function along random directions with a Gaussian's, per slot.
    Centring by episode keeps the term from being satisfied by a code of the episode's appearance. With several ranks it
    is the statistic of all their rows.

    Args:
        latents: (b, n, d).
        episodes: (b,) index of each row's episode within the batch, 0..e-1.
    """
    n, d = latents.shape[1:]
    count = int(episodes.max()) + 1
    sizes = torch.bincount(episodes, minlength=count).clamp(min=1)[:, None, None]
    device = latents.device
    sizes, episodes = sizes.to(device), episodes.to(device)
    totals = torch.zeros(count, n, d, device=device).index_add_(0, episodes, latents)
    centred = gathered(latents - (totals / sizes)[episodes])
    drawn = torch.randn(d, directions, generator=generator)  # by the same dice on every device
    basis = nn.functional.normalize(drawn, dim=0).to(device)
    projected = (centred @ basis).permute(1, 0, 2)  # (n, b, directions)
    projected = projected / projected.std(dim=1, keepdim=True).mean().clamp(min=0.2)
    step = 3.0 / (knots - 1)
    # Chebyshev recurrence: one cosine and one sine, then multiply-adds for the other knots.
    cos_1, sin_1 = torch.cos(step * projected), torch.sin(step * projected)
    cos_k, sin_k, cos_before, sin_before = cos_1, sin_1, torch.ones_like(cos_1), torch.zeros_like(sin_1)
    total = torch.zeros((), device=device)
    for k in range(1, knots):
        gaussian = math.exp(-0.5 * (k * step) ** 2)
        error = (cos_k.mean(1) - gaussian).square() + sin_k.mean(1).square()
        weight = step * gaussian * (0.5 if k == knots - 1 else 1.0)
        total = total + weight * error.mean()
        cos_k, cos_before = 2.0 * cos_1 * cos_k - cos_before, cos_k
        sin_k, sin_before = 2.0 * cos_1 * sin_k - sin_before, sin_k
    return len(centred) * total


class InverseDynamics(nn.Module):
    """Reads the action between two latents, so that motion is kept (PLDM, EB-JEPA)."""

    def __init__(self, latent_size: int, hidden: int = 128) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2 * latent_size, hidden), nn.GELU(), nn.Linear(hidden, 2))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """(b, n, d) twice -> (b, 2) scaled acceleration and curvature."""
        return torch.as_tensor(self.net(torch.cat([before, after], dim=-1).flatten(1)))


def scaled_action(actions: Tensor) -> Tensor:
    """Actions (..., 2) in units of typical size: 2 m/s2 and 0.05 1/m."""
    return actions * torch.tensor([0.5, 20.0], device=actions.device)


def effective_rank(latents: Tensor) -> float:
    """RankMe (Garrido 2023): exp of the entropy of normalised singular values of (b, size) centred latents."""
    values = torch.linalg.svdvals(latents - latents.mean(0))
    share = values / values.sum().clamp(min=1e-9)
    return float(torch.exp(-(share * (share + 1e-12).log()).sum()))


class CollapseError(RuntimeError):
    """Training has collapsed or diverged; the message says what was seen."""


def require_healthy(latents: Tensor, loss: float, step: int) -> None:
    """Stop a run whose latent no longer tells states apart.

    Raises:
        CollapseError: the loss is not finite, or the latent's effective rank is below 3 % of its size.
    """
    if not torch.isfinite(torch.tensor(loss)):
        raise CollapseError(f"step {step}: the loss is {loss}; lower the learning rate")
    flat = latents.flatten(1)
    floor = 0.03 * min(flat.shape)
    rank = effective_rank(flat)
    if rank < max(floor, 2.0):
        raise CollapseError(f"step {step}: effective rank {rank:.1f} of {min(flat.shape)}: the latent has collapsed")
