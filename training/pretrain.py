"""Stage one: the encoder, by contrastive prediction across two renderings of the same drive."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.models.encoder import EncoderConfig, SlotEncoder
from drivesim.models.predictor import LatentPredictor, PredictorConfig
from drivesim.runs import Run
from training.clips import Clips, episode_batches
from training.objectives import InverseDynamics, contrast, effective_rank, require_healthy, scaled_action, spread


@dataclass(frozen=True)
class PretrainConfig:
    """Stage one. A clip is three ticks: 0 and 1 in appearance A, 1 and 2 in appearance B."""

    steps: int = 1200
    episodes: int = 12
    clips: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.05
    spread_weight: float = 0.1
    inverse_weight: float = 0.5
    behavior_weight: float = 0.5
    pairs: int = 16  # branched states a step: what another action would have led to is the hardest negative
    branch_weight: float = 0.5
    twins: int = (
        0  # moments a step beside which one thing of the world is another: the hardest negative for what is small
    )
    twin_weight: float = 0.5
    keep_side: float = 0.5  # probability that a step sees the cameras to the sides
    keep_rear: float = 0.25
    half: bool = True  # bfloat16 where it is safe: half the memory traffic of the stem
    save_every: int = 100


class Pretrainer(nn.Module):
    """The encoder with what its objective needs and a plan does not."""

    def __init__(self, encoder: EncoderConfig) -> None:
        super().__init__()
        size = encoder.slots * encoder.latent_dim
        self.encoder = SlotEncoder(encoder)
        self.predictor = LatentPredictor(
            PredictorConfig(encoder.slots, encoder.latent_dim, width=96, layers=1, members=1)
        )
        self.inverse = InverseDynamics(size)
        self.behavior = InverseDynamics(size)

    def loss(
        self, batch: Batch, groups: Tensor, config: PretrainConfig, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float], Tensor]:
        """All terms of a batch -> loss, metrics, latents (2 b, n, d)."""
        with torch.autocast("cpu", torch.bfloat16, enabled=config.half):
            latents = self.encoder(batch.views, batch.intrinsics[None], batch.cameras)
        b = len(groups)
        a0, a1, b1, b2 = latents[: 4 * b].view(4, b, *latents.shape[1:])
        action, speed = batch.action, batch.speed
        predicted = self.predictor(a0, a1, action[:, 1], speed[:, 1])[0]
        ahead, found = contrast(predicted, b2)
        across, same = contrast(a1, b1)
        gaussian = 0.5 * (spread(a1, groups, generator) + spread(b2, groups, generator))
        inverse = nn.functional.smooth_l1_loss(self.inverse(a0, a1), scaled_action(action[:, 0]))
        inverse = inverse + nn.functional.smooth_l1_loss(self.inverse(b1, b2), scaled_action(action[:, 1]))
        behavior = nn.functional.smooth_l1_loss(self.behavior(a0, a1), scaled_action(action[:, 1]))
        total = ahead + across + config.spread_weight * gaussian
        total = total + config.inverse_weight * inverse + config.behavior_weight * behavior
        caused = chosen = torch.zeros(())
        if batch.branch_action is not None:
            caused, chosen = self.branch_contrast(
                latents[4 * b : len(latents) - 4 * batch.twins], batch.branch_action, batch.branch_speed
            )
            total = total + config.branch_weight * caused
        changed = told = torch.zeros(())
        if batch.twins:
            changed, told = twin_contrast(latents[-4 * batch.twins :])
            total = total + config.twin_weight * changed
        terms = {
            "loss": total, "ahead": ahead, "across": across, "found": found, "same": same, "caused": caused,
            "chosen": chosen, "changed": changed, "told": told, "spread": gaussian, "inverse": inverse,
            "behavior": behavior,
        }  # fmt: skip
        metrics = {name: float(value.detach()) for name, value in terms.items()}
        return total, metrics, torch.cat([a1, b2]).detach()

    def branch_contrast(self, latents: Tensor, actions: Tensor, speeds: Tensor) -> tuple[Tensor, Tensor]:
        """What each of two actions led to, told from what the other one did to the same state.

        Args:
            latents: (4 m, n, d): the state's last two ticks, then the two futures.
            actions: (2, m, p, 2); speeds (m,).

        Returns:
            loss (), and the share of futures told from their sibling (0.5 by chance).
        """
        m, steps = actions.shape[1:3]
        before, now, first, second = latents.view(4, m, *latents.shape[1:])
        previous, current = before.repeat(2, 1, 1), now.repeat(2, 1, 1)
        chosen, speed = actions.flatten(0, 1), speeds.repeat(2)
        for step in range(steps):
            previous, current = current, self.predictor(previous, current, chosen[:, step], speed)[0]
            speed = torch.relu(speed + 0.5 * chosen[:, step, 0])
        target = torch.cat([first, second])
        loss, _ = contrast(current, target)
        own = nn.functional.cosine_similarity(current.flatten(1), target.flatten(1))
        other = nn.functional.cosine_similarity(current.flatten(1), target.roll(m, 0).flatten(1))
        return loss, (own > other).float().mean()


def twin_contrast(latents: Tensor, temperature: float = 0.1) -> tuple[Tensor, Tensor]:
    """A moment and its twin, each recognised in another look by what the two do not share.

    The slots' similarities are summed, not averaged: what is small is seen by one or two of them.

    Args:
        latents: (4 t, n, d): t moments and their twins in one look, then the same in another.

    Returns:
        loss (), and the share told from the twin (0.5 by chance).
    """
    here, there = latents.chunk(2)
    x = nn.functional.normalize(here - here.mean(0), dim=-1)
    y = nn.functional.normalize(there - there.mean(0), dim=-1)
    own = (x * y).sum((1, 2))
    other = torch.stack([(x * y.roll(len(y) // 2, 0)).sum((1, 2)), (y * x.roll(len(x) // 2, 0)).sum((1, 2))])
    loss = nn.functional.softplus((other - own) / temperature).mean()
    return loss, (own > other).float().mean()


def choose_views(views: int, config: PretrainConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """Camera dropout for a whole step: what looks ahead always, sides and rear sometimes (and then for free)."""
    keep = [True] * min(3, views)
    side, rear = rng.random() < config.keep_side, rng.random() < config.keep_rear
    keep += [side if row < 5 else rear for row in range(3, views)]
    return np.flatnonzero(keep)


@dataclass(frozen=True)
class Batch:
    """One step's pictures and what was done between them.

    Attributes:
        views: (4 b + 4 m + 4 t, v, 3, h, w) uint8: A0, A1, B1, B2 of b clips; two ticks and two futures of m states;
            t moments with their twins.
        intrinsics (v, 4); cameras (4 b + 4 m + 4 t, v, 3, 4).
        action (b, 3, 2), speed (b, 3) at the three ticks of a clip.
        branch_action: (2, m, p, 2) what leads to the futures, p steps ahead; None without branches.
        branch_speed: (m,).
        twins: how many moments stand at the end of the views with their twins: t in one look, their t twins, both again
            in another look.
    """

    views: Tensor
    intrinsics: Tensor
    cameras: Tensor
    action: Tensor
    speed: Tensor
    branch_action: Tensor | None
    branch_speed: Tensor
    twins: int = 0


def read_batch(
    clips: Clips, starts: NDArray[np.int64], chosen: NDArray[np.int64],
    branches: NDArray[np.int64] | None = None, steps: int = 1, twins: NDArray[np.int64] | None = None,
) -> Batch:  # fmt: skip
    """`chosen` views of clips from `starts`, of branched states with their futures `steps` steps on, and of twins."""
    fixed = np.broadcast_to(clips.cameras_a[chosen], (len(starts), len(chosen), 3, 4))
    pictures = [clips.views_a[starts], clips.views_a[starts + 1], clips.views_b[starts + 1], clips.views_b[starts + 2]]
    cameras = [fixed, fixed, clips.cameras_b[starts + 1][:, chosen], clips.cameras_b[starts + 2][:, chosen]]
    action, speed = None, torch.zeros(0)
    if branches is not None and len(branches):
        rows = clips.branch_start[branches]
        futures = clips.branch_views[branches, :, steps - 1]
        pictures += [clips.views_a[rows - 1], clips.views_a[rows], futures[:, 0], futures[:, 1]]
        cameras += [np.broadcast_to(clips.cameras_a[chosen], (len(rows), len(chosen), 3, 4))] * 4
        action = torch.from_numpy(clips.branch_action[branches, :, :steps]).transpose(0, 1)
        speed = torch.from_numpy(clips.branch_speed[branches, 0, 0])
    count = 0 if twins is None else len(twins)
    if twins is not None and count:
        drawn = clips.twin_views[twins]
        pictures += [clips.views_a[clips.twin_start[twins]], drawn[:, 0], drawn[:, 1], drawn[:, 2]]
        cameras += [np.broadcast_to(clips.cameras_a[chosen], (count, len(chosen), 3, 4))] * 4
    views = torch.from_numpy(np.concatenate([picture[:, chosen] for picture in pictures])).permute(0, 1, 4, 2, 3)
    window = starts[:, None] + np.arange(3)
    return Batch(
        views, torch.from_numpy(clips.intrinsics[chosen]), torch.from_numpy(np.concatenate(cameras)),
        torch.from_numpy(clips.table["action"][window]), torch.from_numpy(clips.table["speed"][window]), action, speed,
        count,
    )  # fmt: skip


def cosine_schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then half a cosine to zero."""
    rise = max(1, int(warmup * steps))
    return (step + 1) / rise if step < rise else 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def pretrain(
    clips: Clips, encoder: EncoderConfig, config: PretrainConfig, run: Run, seed: int,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> SlotEncoder:  # fmt: skip
    """Train the encoder; resumes from `run.checkpoints/pretrain.pt`'s step when it is there.

    Raises:
        CollapseError: the latent collapsed or the loss is not finite.
    """
    torch.manual_seed(seed)
    model = Pretrainer(encoder)
    optimizer = torch.optim.AdamW(
        model.parameters(), config.learning_rate, (0.9, 0.98), weight_decay=config.weight_decay
    )
    path = run.checkpoints / "pretrain.pt"
    first = restore(path, model, optimizer)
    starts, branched = clips.starts(3), clips.branched()
    for step in range(first, config.steps):
        rng, generator = np.random.default_rng([seed, step]), torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows, groups = next(episode_batches(starts, clips.episode, config.episodes, config.clips, rng))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * cosine_schedule(step, config.steps, config.warmup)
        began = time.monotonic()
        visible = choose_views(len(clips.intrinsics), config, rng)
        ahead = int(rng.integers(2, clips.branch_action.shape[2] + 1)) if len(branched) else 1
        pairs = rng.choice(branched, min(config.pairs, len(branched)), replace=False)
        twins = rng.choice(len(clips.twin_start), min(config.twins, len(clips.twin_start)), replace=False)
        batch = read_batch(clips, rows, visible, pairs, ahead, twins)
        read_s = time.monotonic() - began
        loss, metrics, latents = model.loss(batch, torch.from_numpy(groups), config, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        metrics |= {"step_s": time.monotonic() - began, "read_s": read_s}
        if step % 50 == 0 or step == config.steps - 1:
            require_healthy(latents, metrics["loss"], step)
            metrics["rank"] = effective_rank(latents.flatten(1))
        run.log(stage="pretrain", step=step, **metrics)
        if on_step is not None:
            on_step(step, metrics)
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            save(path, step + 1, model, optimizer)
    return model.encoder.eval()


def save(path: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write a resume point atomically (tensors and plain numbers only)."""
    partial = path.with_suffix(".partial")
    torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, partial)
    partial.replace(path)


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load a resume point if there is one; returns the next step. Unpickles nothing but tensors."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
