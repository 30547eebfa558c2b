"""A rival from a cache to a checkpoint: stage one its own, stages two and three the shipped model's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from drivesim.config import ConfigError, nearest
from drivesim.datatypes import default_rig
from drivesim.models import WorldModel
from drivesim.models.heads import OUTPUTS
from drivesim.models.predictor import LatentPredictor
from drivesim.runs import Run, code_version, write_json
from training.calibrate import calibrate
from training.clips import Clips
from training.dynamics import train_dynamics
from training.heads import HeadTrainer, train_heads
from training.latents import Latents, encode_clips, load_latents, save_latents
from training.rivals.model import blank, sized
from training.rivals.shaping import shape_encoder
from training.rivals.table import RIVALS, Rival, shaper_of
from training.rivals.token_predictor import train_tokens
from training.rivals.tokens import TokenEncoder
from training.train import Recipe, keep_buffers

CHECKPOINT = "rival.safetensors"
Progress = Callable[[str, float, dict[str, float]], None]


@dataclass(frozen=True)
class RivalConfig:
    """What a rival's run was; kept as its config.toml."""

    rival: str
    recipe: Recipe


def quiet(stage: str, share: float, metrics: dict[str, float]) -> None:
    """Show nothing."""


def require_rival(name: str) -> Rival:
    """The rival of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in RIVALS:
        raise ConfigError(f"unknown rival {name!r}: {nearest(name, RIVALS)}")
    return RIVALS[name]


def train_rival(
    name: str, recipe: Recipe, clips: Clips, out: Path, logs: Path | None = None, on_progress: Progress = quiet
) -> Path:
    """Do what is left of a rival's training in `out`; returns its checkpoint, which tells of a collapse in its card.

    Args:
        recipe: its pretrain, dynamics and heads sizes, its model and its seed count; data is what `clips` holds.
        logs: the drives that the cache was made of, for rivals that are taught what only they tell.

    Raises:
        ConfigError: no such rival.
        RivalUnavailableError: it cannot be trained here.
    """
    rival, path = require_rival(name), out / "checkpoints" / CHECKPOINT
    if path.exists():
        return path
    keep_buffers()
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    model = blank(name, sized(name, recipe.model), default_rig().digest)
    began, run = time.monotonic(), Run.create(out, RivalConfig(name, recipe), rig=default_rig().digest)
    collapse = stage_one(name, model, recipe, clips, run, logs, on_progress)
    encoded = run.checkpoints / "latents.pt"
    if not encoded.exists():
        save_latents(encoded, encode_clips(clips, model.encoder, on_progress=lambda s: on_progress("encode", s, {})))
    latents = load_latents(encoded)
    model.mean.copy_(latents.mean)
    model.scale.copy_(latents.scale)
    model.predictor.load_state_dict(stage_two(rival, model, recipe, clips, latents, run, on_progress).state_dict())
    trainer = HeadTrainer(clips, latents, model.predictor.eval(), model.config.heads, recipe.heads)
    for head in OUTPUTS:
        setattr(trainer, head, getattr(model, head))
    train_heads(trainer, run, recipe.seed, lambda s, m: on_progress("heads", (s + 1) / recipe.heads.steps, m))
    calibration = calibrate(model, trainer, np.random.default_rng([recipe.seed, 13]))
    card = card_of(name, recipe, clips, run, collapse, model.encoder, calibration, time.monotonic() - began)
    model.eval().save(path, card)
    write_json(out / "card.json", card)
    encoded.unlink()
    return path


def stage_one(
    name: str, model: WorldModel, recipe: Recipe, clips: Clips, run: Run, logs: Path | None, on_progress: Progress
) -> str:
    """Shape (or fit) `model.encoder` in place; returns how it collapsed, or ""."""
    rival, config, collapse = RIVALS[name], recipe.pretrain, ""
    if rival.fit is not None:
        rival.fit(model.encoder, clips, config, recipe.seed)
    shaper = shaper_of(name, model.encoder, config, clips, logs, run.path / f"{name}.npy")
    if shaper is not None:
        steps = config.steps
        collapse = shape_encoder(
            shaper, clips, config, run, recipe.seed, lambda s, m: on_progress("encoder", (s + 1) / steps, m)
        )
    model.encoder.eval()
    return collapse


def stage_two(
    rival: Rival, model: WorldModel, recipe: Recipe, clips: Clips, latents: Latents, run: Run, on_progress: Progress
) -> LatentPredictor:
    """The predictor on the frozen latents, or one that was never trained where nobody will ask it."""
    config = replace(recipe.dynamics, branches=recipe.dynamics.branches and rival.branches)
    if not rival.imagines:
        config = replace(config, steps=0)

    def tell(step: int, metrics: dict[str, float]) -> None:
        on_progress("predictor", (step + 1) / config.steps, metrics)

    if rival.tokens:
        encoder = model.encoder
        assert isinstance(encoder, TokenEncoder)
        codes = (encoder.codes - latents.mean[:, None]) / latents.scale[:, None]
        return train_tokens(clips, latents, codes, model.config.predictor, config, run, recipe.seed, tell)
    return train_dynamics(clips, latents, model.config.predictor, config, run, recipe.seed, tell)


def card_of(
    name: str, recipe: Recipe, clips: Clips, run: Run, collapse: str, encoder: nn.Module,
    calibration: dict[str, float], seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """What a rival's checkpoint says of itself."""
    rival = RIVALS[name]
    steps = [line for line in run.metrics() if line.get("stage") == "shape" and "step_s" in line]
    return {
        "name": f"{name}-{recipe.seed}", "rival": name, "idea": rival.idea, "targets": rival.targets or "none",
        "seed": recipe.seed, "commit": code_version(), "collapse": collapse, "trained_s_this_call": round(seconds),
        "data": {
            "ticks": len(clips.episode), "drives": len(np.unique(clips.episode)), "branches": len(clips.branched()),
        },
        "encoder": {
            "parameters": sum(p.numel() for p in encoder.parameters()), "steps": len(steps),
            "pictures": sum(line["pictures"] for line in steps),
            "step_s": float(np.median([line["step_s"] for line in steps])) if steps else None,
            "rank": next((line["rank"] for line in reversed(steps) if "rank" in line), None),
        },
        "stages": {
            "pretrain": asdict(recipe.pretrain), "dynamics": asdict(recipe.dynamics), "heads": asdict(recipe.heads),
        },
        "calibration": calibration,
    }  # fmt: skip
