"""Stage two: freeze the encoder, cache its latents, and learn what actions do to them.

Multi-step rollouts on logged clips, and on pairs of branches that left the same state under different
actions: the loss on the pair's difference teaches what an action causes, where logs only show what it
betrays (drivers brake because the lead is near).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.models.encoder import SlotEncoder
from drivesim.models.predictor import LatentPredictor, PredictorConfig
from drivesim.runs import Run
from training.clips import Clips
from training.pretrain import cosine_schedule, restore, save


@dataclass(frozen=True)
class DynamicsConfig:
    """Stage two."""

    steps: int = 1500
    batch: int = 48
    pairs: int = 40
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    horizon: int = 6
    noise: float = 0.05
    difference_weight: float = 1.0
    branches: bool = True
    save_every: int = 300


@dataclass(frozen=True)
class Latents:
    """Frozen, standardised latents of a cache.

    Attributes:
        a, b: (N, n, d) float32 of the two appearances.
        branch: (M, 2, h, n, d).
        mean, scale: (n, d) of the standardisation.
    """

    a: Tensor
    b: Tensor
    branch: Tensor
    mean: Tensor
    scale: Tensor


@torch.no_grad()
def encode_clips(
    clips: Clips, encoder: SlotEncoder, batch: int = 64, on_progress: Callable[[float], None] | None = None
) -> Latents:
    """Encode every picture of a cache once; standardise by the training ticks of both appearances."""
    encoder.eval()
    intrinsics, fixed = torch.from_numpy(clips.intrinsics), torch.from_numpy(clips.cameras_a)

    def run(views: NDArray[np.uint8], cameras: NDArray[np.float32] | None, share: tuple[float, float]) -> Tensor:
        out = []
        for first in range(0, len(views), batch):
            picture = torch.from_numpy(np.array(views[first : first + batch])).permute(0, 1, 4, 2, 3)
            where = fixed if cameras is None else torch.from_numpy(cameras[first : first + batch])
            kept = intrinsics if cameras is None else intrinsics.expand(len(picture), -1, -1)
            out.append(encoder(picture, kept, where))
            if on_progress is not None:
                on_progress(share[0] + (share[1] - share[0]) * first / max(1, len(views)))
        if not out:
            return torch.zeros(0, encoder.config.slots, encoder.config.latent_dim)
        return torch.cat(out)

    a = run(clips.views_a, None, (0.0, 0.35))
    b = run(clips.views_b, clips.cameras_b, (0.35, 0.7))
    shape = clips.branch_views.shape
    flat = clips.branch_views.reshape(-1, *shape[3:]) if shape[0] else clips.branch_views.reshape(0, *shape[3:])
    branch = run(flat, None, (0.7, 1.0))
    branch = branch.reshape(shape[0], 2, shape[2], *branch.shape[1:])
    both = torch.cat([a, b])
    mean, scale = both.mean(0), both.std(0).clamp(min=1e-3)
    return Latents((a - mean) / scale, (b - mean) / scale, (branch - mean) / scale, mean, scale)


def rollout_loss(
    predictor: LatentPredictor, context: Tensor, targets: Tensor, actions: Tensor, speeds: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean squared error of every member along a rollout.

    Args:
        context: (b, 2, n, d); targets (b, p, n, d); actions (b, p, 2); speeds (b,) now.

    Returns:
        loss (), and the mean member's imagined latents (b, p, n, d).
    """
    previous, current, imagined = context[:, 0], context[:, 1], []
    total = torch.zeros(())
    steps = targets.shape[1]
    for step in range(steps):
        members = predictor(previous, current, actions[:, step], speeds)
        total = total + (members - targets[:, step]).square().mean()
        previous, current = current, members.mean(0)
        speeds = torch.relu(speeds + 0.5 * actions[:, step, 0])
        imagined.append(current)
    return total / steps, torch.stack(imagined, dim=1)


def log_batch(
    clips: Clips,
    latents: Latents,
    starts: NDArray[np.int64],
    config: DynamicsConfig,
    steps: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch of logged clips: context from either appearance, targets the mean of both."""
    rows = torch.from_numpy(rng.choice(starts, size=config.batch))
    source = latents.a if rng.random() < 0.5 else latents.b
    context = torch.stack([source[rows], source[rows + 1]], dim=1)
    window = rows[:, None] + 2 + torch.arange(steps)
    targets = 0.5 * (latents.a[window] + latents.b[window])
    taken = rows[:, None] + 1 + torch.arange(steps)
    actions = torch.from_numpy(clips.table["action"])[taken]
    return context, targets, actions, torch.from_numpy(clips.table["speed"])[rows + 1]


def pair_batch(
    clips: Clips,
    latents: Latents,
    usable: NDArray[np.int64],
    config: DynamicsConfig,
    steps: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both branches of some states, stacked (2 * pairs, ...): first all first branches, then all second."""
    chosen = rng.choice(usable, size=config.pairs)
    rows = torch.from_numpy(clips.branch_start[chosen])
    source = latents.a if rng.random() < 0.5 else latents.b
    context = torch.stack([source[rows - 1], source[rows]], dim=1).repeat(2, 1, 1, 1)
    targets = latents.branch[chosen, :, :steps].transpose(0, 1).flatten(0, 1)
    actions = torch.from_numpy(clips.branch_action[chosen, :, :steps]).transpose(0, 1).flatten(0, 1)
    speeds = torch.from_numpy(clips.branch_speed[chosen, 0, 0]).repeat(2)
    return context, targets, actions, speeds


def train_dynamics(
    clips: Clips, latents: Latents, predictor: PredictorConfig, config: DynamicsConfig, run: Run, seed: int,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> LatentPredictor:  # fmt: skip
    """Train the predictor on frozen latents; resumes like stage one."""
    torch.manual_seed(seed + 1)
    model = LatentPredictor(predictor)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    path = run.checkpoints / "dynamics.pt"
    first = restore(path, model, optimizer)
    usable = clips.branched()
    with_pairs = config.branches and len(usable) > 0
    for step in range(first, config.steps):
        rng = np.random.default_rng([seed, 7, step])
        torch.manual_seed(seed * 1_000_003 + step)
        horizon = 2 + round((config.horizon - 2) * min(1.0, 1.5 * step / config.steps))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * cosine_schedule(step, config.steps, config.warmup)
        began = time.monotonic()
        context, *batch = log_batch(clips, latents, clips.starts(horizon + 2), config, horizon, rng)
        logged, _ = rollout_loss(model, context + config.noise * torch.randn_like(context), *batch)
        loss, metrics = logged, {"logged": float(logged.detach())}
        if with_pairs:
            steps = min(horizon, clips.branch_action.shape[2])
            context, targets, *rest = pair_batch(clips, latents, usable, config, steps, rng)
            branch, imagined = rollout_loss(model, context, targets, *rest)
            half = config.pairs
            difference = (imagined[:half] - imagined[half:]) - (targets[:half] - targets[half:])
            cause = difference.square().mean()
            loss = loss + 0.5 * branch + config.difference_weight * cause
            metrics |= {"branch": float(branch.detach()), "difference": float(cause.detach())}
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        metrics |= {"loss": float(loss.detach()), "step_s": time.monotonic() - began}
        run.log(stage="dynamics", step=step, **metrics)
        if on_step is not None:
            on_step(step, metrics)
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            save(path, step + 1, model, optimizer)
    return model.eval()


def save_latents(path: Path, latents: Latents) -> None:
    """Keep the encoded cache, so that a resumed run need not encode again."""
    partial = path.with_suffix(".partial")
    torch.save({key: getattr(latents, key) for key in ("a", "b", "branch", "mean", "scale")}, partial)
    partial.replace(path)


def load_latents(path: Path) -> Latents:
    """Inverse of `save_latents`; tensors only."""
    return Latents(**torch.load(path, weights_only=True))
