"""Stage one of every rival: the shipped model's loop, batches, optimiser and schedule; only the objective differs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.models.encoder import SlotEncoder
from drivesim.runs import Run, write_json
from training.batches import Batch, choose_views
from training.clips import Clips, episode_batches
from training.objectives import CollapseError, effective_rank, require_healthy
from training.precision import half_precision
from training.pretrain import PretrainConfig, cosine_schedule, restore, save
from training.rivals.pictures import PAIR, Pictures, read_pictures, ticks


class RivalUnavailableError(RuntimeError):
    """A rival that cannot be trained here; the message says what it lacks."""


@dataclass(frozen=True)
class Sample:
    """One step's batch, and the rows of the cache that it came from (for objectives that are taught the truth).

    Attributes:
        rows: (b,) first tick of each clip; groups: (b,) its episode within the batch.
    """

    clips: Clips
    rows: NDArray[np.int64]
    groups: Tensor
    batch: Batch


@dataclass(frozen=True)
class Terms:
    """A step's loss, what it is made of, and latents (m, n, d) whose rank says whether they have collapsed."""

    loss: Tensor
    parts: dict[str, Tensor]
    latents: Tensor


class Shaper(nn.Module):
    """An encoder with an objective of its own. `pictures`: what of a clip it sees; `branches`: whether those, too."""

    pictures: Pictures = PAIR
    branches = True

    def __init__(self, encoder: SlotEncoder, config: PretrainConfig) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config

    @property
    def shape(self) -> tuple[int, int]:
        """Slots and width (n, d) of the latent."""
        return self.encoder.config.slots, self.encoder.config.latent_dim

    def encode(self, batch: Batch) -> Tensor:
        """All pictures of a batch -> latents (4 b + 4 m, n, d)."""
        with half_precision(self.config.half):
            return torch.as_tensor(self.encoder(batch.views, batch.intrinsics[None], batch.cameras))

    def terms(self, sample: Sample, generator: torch.Generator) -> Terms:
        """The objective on one batch."""
        raise NotImplementedError

    def after_step(self) -> None:
        """What else moves when the optimiser has moved the weights."""


def draw(shaper: Shaper, clips: Clips, config: PretrainConfig, rng: np.random.Generator) -> Sample:
    """A batch for a rival; one that uses no branches gets as many pictures more of ordinary clips."""
    branched = clips.branched()
    pairs = min(config.pairs, len(branched))
    more = 0 if shaper.branches else round(pairs / config.episodes)
    starts = clips.starts(ticks(shaper.pictures))
    rows, groups = next(episode_batches(starts, clips.episode, config.episodes, config.clips + more, rng))
    visible = choose_views(len(clips.intrinsics), config, rng)
    ahead = int(rng.integers(2, clips.branch_action.shape[2] + 1)) if len(branched) else 1
    chosen = rng.choice(branched, pairs, replace=False) if shaper.branches else None
    batch = read_pictures(clips, rows, visible, shaper.pictures, chosen, ahead)
    return Sample(clips, rows, torch.from_numpy(groups), batch)


def shape_encoder(
    shaper: Shaper, clips: Clips, config: PretrainConfig, run: Run, seed: int,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> str:  # fmt: skip
    """Train `shaper.encoder` in place; resumes. A collapse ends the training and is a result, not an error.

    Returns:
        "" or how it collapsed, which is kept in `collapse.json` as well.
    """
    optimizer = torch.optim.AdamW(
        shaper.parameters(), config.learning_rate, (0.9, 0.98), weight_decay=config.weight_decay
    )
    path, ruin = run.checkpoints / "shape.pt", run.path / "collapse.json"
    first = restore(path, shaper, optimizer)
    if ruin.exists():
        return str(json.loads(ruin.read_text())["message"])
    for step in range(first, config.steps):
        try:
            metrics = one_step(shaper, clips, config, optimizer, seed, step)
        except CollapseError as collapse:
            save(path, step, shaper, optimizer)
            write_json(ruin, {"step": step, "message": str(collapse)})
            run.log(stage="shape", step=step, collapse=str(collapse))
            return str(collapse)
        run.log(stage="shape", step=step, **metrics)
        if on_step is not None:
            on_step(step, metrics)
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            save(path, step + 1, shaper, optimizer)
    return ""


def one_step(
    shaper: Shaper, clips: Clips, config: PretrainConfig, optimizer: torch.optim.Optimizer, seed: int, step: int
) -> dict[str, float]:
    """One step, the same whenever it is taken.

    Raises:
        CollapseError: the loss is not finite (the weights are as before), or the latents tell no states apart.
    """
    rng, generator = np.random.default_rng([seed, step]), torch.Generator().manual_seed(seed * 1_000_003 + step)
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * cosine_schedule(step, config.steps, config.warmup)
    began = time.monotonic()
    sample = draw(shaper, clips, config, rng)
    read_s = time.monotonic() - began
    shaper.train()
    terms = shaper.terms(sample, generator)
    metrics = {"loss": float(terms.loss.detach())}
    metrics |= {name: float(value.detach()) for name, value in terms.parts.items()}
    if not np.isfinite(metrics["loss"]):
        raise CollapseError(f"step {step}: the loss is {metrics['loss']}")
    optimizer.zero_grad()
    terms.loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(shaper.parameters(), 1.0)
    optimizer.step()
    shaper.after_step()
    metrics |= {"step_s": time.monotonic() - began, "read_s": read_s, "pictures": float(len(sample.batch.views))}
    if step % 50 == 0 or step == config.steps - 1:
        latents = terms.latents.detach()
        metrics["rank"] = effective_rank(latents.flatten(1))
        require_healthy(latents, metrics["loss"], step)
    return metrics
