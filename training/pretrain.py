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
    keep_side: float = 0.7  # probability that a step sees the cameras to the sides
    keep_rear: float = 0.35
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
        self, views: Tensor, intrinsics: Tensor, cameras: Tensor, table: dict[str, Tensor], groups: Tensor,
        config: PretrainConfig, generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, float], Tensor]:  # fmt: skip
        """Views (4, b, v, 3, h, w): A0, A1, B1, B2; cameras (4, b, v, 3, 4) -> loss, metrics, latents (b, size)."""
        four, b = views.shape[:2]
        latents = self.encoder(views.flatten(0, 1), intrinsics[None], cameras.flatten(0, 1))
        a0, a1, b1, b2 = latents.view(four, b, *latents.shape[1:])
        action, speed = table["action"], table["speed"]
        predicted = self.predictor(a0, a1, action[:, 1], speed[:, 1])[0]
        ahead, found = contrast(predicted, b2)
        across, same = contrast(a1, b1)
        gaussian = 0.5 * (spread(a1, groups, generator) + spread(b2, groups, generator))
        inverse = nn.functional.smooth_l1_loss(self.inverse(a0, a1), scaled_action(action[:, 0]))
        inverse = inverse + nn.functional.smooth_l1_loss(self.inverse(b1, b2), scaled_action(action[:, 1]))
        behavior = nn.functional.smooth_l1_loss(self.behavior(a0, a1), scaled_action(action[:, 1]))
        total = ahead + across + config.spread_weight * gaussian
        total = total + config.inverse_weight * inverse + config.behavior_weight * behavior
        terms = {
            "loss": total, "ahead": ahead, "across": across, "found": found, "same": same, "spread": gaussian,
            "inverse": inverse, "behavior": behavior,
        }  # fmt: skip
        metrics = {name: float(value.detach()) for name, value in terms.items()}
        return total, metrics, torch.cat([a1, b2]).detach()


def choose_views(views: int, config: PretrainConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """Camera dropout for a whole step: what looks ahead always, sides and rear sometimes (and then for free)."""
    keep = [True] * min(2, views)
    side, rear = rng.random() < config.keep_side, rng.random() < config.keep_rear
    keep += [side if row < 4 else rear for row in range(2, views)]
    return np.flatnonzero(keep)


def read_batch(
    clips: Clips, starts: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Pictures (4, b, v, 3, h, w), intrinsics (v, 4), cameras (4, b, v, 3, 4), action and speed columns (b, 3, ..)."""
    pictures = [clips.views_a[starts], clips.views_a[starts + 1], clips.views_b[starts + 1], clips.views_b[starts + 2]]
    stacked = np.stack([picture[:, chosen] for picture in pictures])
    views = torch.from_numpy(stacked).permute(0, 1, 2, 5, 3, 4)
    fixed = np.broadcast_to(clips.cameras_a[chosen], (len(starts), len(chosen), 3, 4))
    cameras = [fixed, fixed, clips.cameras_b[starts + 1][:, chosen], clips.cameras_b[starts + 2][:, chosen]]
    window = starts[:, None] + np.arange(3)
    table = {key: torch.from_numpy(clips.table[key][window]) for key in ("action", "speed")}
    return views, torch.from_numpy(clips.intrinsics[chosen]), torch.from_numpy(np.stack(cameras)), table


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
    starts = clips.starts(3)
    for step in range(first, config.steps):
        rng, generator = np.random.default_rng([seed, step]), torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows, groups = next(episode_batches(starts, clips.episode, config.episodes, config.clips, rng))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * cosine_schedule(step, config.steps, config.warmup)
        began = time.monotonic()
        batch = read_batch(clips, rows, choose_views(len(clips.intrinsics), config, rng))
        read_s = time.monotonic() - began
        loss, metrics, latents = model.loss(*batch, torch.from_numpy(groups), config, generator)
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
