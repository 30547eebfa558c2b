"""Stage two: freeze the encoder, cache its latents, and learn what actions do to them.

Multi-step rollouts on logged clips, and on pairs of branches that left the same state under different
actions: the loss on the pair's difference teaches what an action causes, where logs only show what it
betrays (drivers brake because the lead is near).

A predictor in prefix mode learns every horizon from the first step on, some of them a step (dense supervision of
prefixes, arXiv 2606.26217); an autoregressive one is rolled out over a horizon that grows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.models.predictor import LatentPredictor, PredictorConfig
from drivesim.runs import Run
from training.clips import Clips
from training.latents import Latents
from training.precision import half_precision
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
    noise: float = 0.05  # on the context of logged clips
    pair_noise: float = 0.0  # on that of pairs, the same for both
    mixed_looks: bool = False  # context of either look by clip, of some clips by slot; else by batch
    prefixes: int = 3  # horizons a step, in prefix mode
    left_out: float = 0.0  # share of the drives that each member never learns from (bootstrap; Osband 2016)
    difference_weight: float = 1.0
    branches: bool = True
    half: bool = True  # bfloat16 where it is safe and pays
    save_every: int = 300


def rollout_loss(
    predictor: LatentPredictor, context: Tensor, targets: Tensor, actions: Tensor, speeds: Tensor,
    horizons: Tensor | None = None, weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mean squared error of every member along a rollout.

    Args:
        context: (b, 2, n, d); targets (b, p, n, d); actions (b, p, 2); speeds (b,) now.
        horizons: (q,) steps that count; all by default.
        weights: (members, b) of each member's error; ones by default.

    Returns:
        loss (), and the mean member's imagined latents (b, p or q, n, d).
    """
    members, expected = predictor.unroll(context[:, 0], context[:, 1], actions, speeds, horizons)
    wanted = targets if horizons is None else targets[:, horizons]
    errors = (members - wanted).square().mean(dim=(3, 4))
    loss = (errors if weights is None else errors * weights[:, :, None]).mean()
    if expected is not None:  # its features carry no gradient, so that the weight only sets its own pace
        loss = loss + 0.1 * (expected - errors.detach().mean(0).clamp(min=1e-6).log()).square().mean()
    return loss, members.mean(0)


def contexts(latents: Latents, rows: Tensor, noise: float, mixed_looks: bool, rng: np.random.Generator) -> Tensor:
    """The last two latents (b, 2, n, d) at rows, in either look, with noise."""
    looks = [torch.stack([source[rows - 1], source[rows]], dim=1) for source in (latents.a, latents.b)]
    context = looks[int(rng.random() >= 0.5)]
    if mixed_looks:
        clip, slot, by_slot = (torch.rand(len(rows), 1, k, 1) < 0.5 for k in (1, context.shape[2], 1))
        context = torch.where(torch.where(by_slot, slot, clip), looks[0], looks[1])
    return context + noise * torch.randn_like(context) if noise > 0 else context


def log_batch(
    clips: Clips, latents: Latents, starts: NDArray[np.int64], config: DynamicsConfig, steps: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Logged clips: rows of now, context from either appearance, targets (the mean of both), actions, speeds."""
    now = torch.from_numpy(rng.choice(starts, size=config.batch)) + 1
    context = contexts(latents, now, config.noise, config.mixed_looks, rng)
    window = now[:, None] + 1 + torch.arange(steps)
    targets = 0.5 * (latents.a[window] + latents.b[window])
    actions = torch.from_numpy(clips.table["action"])[window - 1]
    return now, context, targets, actions, torch.from_numpy(clips.table["speed"])[now]


def pair_batch(
    clips: Clips, latents: Latents, usable: NDArray[np.int64], config: DynamicsConfig, steps: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Both branches of some states, stacked (2 * pairs, ...): first all first branches, then all second."""
    chosen = rng.choice(usable, size=config.pairs)
    rows = torch.from_numpy(clips.branch_start[chosen])
    context = contexts(latents, rows, config.pair_noise, config.mixed_looks, rng).repeat(2, 1, 1, 1)
    targets = latents.branch[chosen, :, :steps].transpose(0, 1).flatten(0, 1)
    actions = torch.from_numpy(clips.branch_action[chosen, :, :steps]).transpose(0, 1).flatten(0, 1)
    speeds = torch.from_numpy(clips.branch_speed[chosen, 0, 0]).repeat(2)
    return rows.repeat(2), context, targets, actions, speeds


def bootstrap(episode: NDArray[np.int32], members: int, left_out: float, seed: int) -> Tensor:
    """Weights (members, drives), mean one: zero on the share of the drives that a member never learns from.

    The drives are dealt out in turn, so that none is left out by every member while shares allow it.
    """
    drives = int(episode.max()) + 1 if len(episode) else 1
    order = np.random.default_rng([seed, 17]).permutation(drives) / drives
    place = (order[None] + np.arange(members)[:, None] / members) % 1.0
    kept = torch.from_numpy((place >= left_out).astype(np.float32))
    return kept / kept.mean(dim=1, keepdim=True).clamp(min=1e-6)


def some_horizons(
    model: LatentPredictor, steps: int, config: DynamicsConfig, rng: np.random.Generator
) -> Tensor | None:
    """The horizons (q,) of one step's loss: a few at random in prefix mode, else all (None)."""
    if model.config.mode != "prefix" or config.prefixes >= steps:
        return None
    return torch.from_numpy(np.sort(rng.choice(steps, size=config.prefixes, replace=False)))


@dataclass(frozen=True)
class DynamicsTrainer:
    """The loss of stage two.

    Attributes:
        usable: branches whose state has a tick before it; none where pairs are not to be used.
        weights: (members, drives), see `bootstrap`.
    """

    clips: Clips
    latents: Latents
    config: DynamicsConfig
    usable: NDArray[np.int64]
    weights: Tensor

    def shares(self, rows: Tensor) -> Tensor:
        """Weights (members, b) of the members' errors at rows of the cache."""
        return self.weights[:, torch.from_numpy(self.clips.episode[rows.numpy()]).long()]

    def loss(self, model: LatentPredictor, horizon: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """One step's loss, and its parts by name."""
        config, starts = self.config, self.clips.starts(horizon + 2)
        now, context, targets, actions, speeds = log_batch(self.clips, self.latents, starts, config, horizon, rng)
        chosen = some_horizons(model, horizon, config, rng)
        loss, _ = rollout_loss(model, context, targets, actions, speeds, chosen, self.shares(now))
        metrics = {"logged": float(loss.detach())}
        if len(self.usable):
            steps = min(horizon, self.clips.branch_action.shape[2])
            now, context, targets, actions, speeds = pair_batch(
                self.clips, self.latents, self.usable, config, steps, rng
            )
            chosen = some_horizons(model, steps, config, rng)
            branch, imagined = rollout_loss(model, context, targets, actions, speeds, chosen, self.shares(now))
            wanted, half = targets if chosen is None else targets[:, chosen], config.pairs
            difference = (imagined[:half] - imagined[half:]) - (wanted[:half] - wanted[half:])
            cause = difference.square().mean()
            loss = loss + 0.5 * branch + config.difference_weight * cause
            metrics |= {"branch": float(branch.detach()), "difference": float(cause.detach())}
        return loss, metrics | {"loss": float(loss.detach())}


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
    usable = clips.branched() if config.branches else np.zeros(0, np.int64)
    weights = bootstrap(clips.episode, predictor.members, config.left_out, seed)
    trainer = DynamicsTrainer(clips, latents, config, usable, weights)
    for step in range(first, config.steps):
        rng = np.random.default_rng([seed, 7, step])
        torch.manual_seed(seed * 1_000_003 + step)
        grown = 1.0 if predictor.mode == "prefix" else min(1.0, 1.5 * step / config.steps)
        horizon = 2 + round((config.horizon - 2) * grown)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * cosine_schedule(step, config.steps, config.warmup)
        began = time.monotonic()
        with half_precision(config.half):
            loss, metrics = trainer.loss(model, horizon, rng)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        metrics["step_s"] = time.monotonic() - began
        run.log(stage="dynamics", step=step, **metrics)
        if on_step is not None:
            on_step(step, metrics)
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            save(path, step + 1, model, optimizer)
    return model.eval()
