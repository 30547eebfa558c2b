"""`drivesim train RECIPE`: logs to cache, cache to encoder, encoder to predictor, both to heads, one checkpoint.

Every stage resumes: a killed run goes on where it was when the same command is given again.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drivesim.config import load_toml
from drivesim.datatypes import CameraRig, default_rig
from drivesim.logs import DriveLog
from drivesim.models import WorldModel, WorldModelConfig, named_weights
from drivesim.models.critic import critic_path
from drivesim.models.encoder import EncoderConfig, SlotEncoder
from drivesim.runs import Run, code_version, write_json
from training.analogies import build_analogies
from training.cache import CacheConfig, build_cache
from training.calibrate import calibrate
from training.changes import ChangesConfig, train_changes
from training.clips import Clips
from training.critic import CriticTraining, make_critic
from training.curves import save_curves
from training.distill import DistillConfig, distill
from training.dynamics import DynamicsConfig, train_dynamics
from training.heads import HeadsConfig, HeadTrainer, train_heads
from training.latents import encode_clips, load_latents, save_latents
from training.pretrain import PretrainConfig, pretrain
from training.ranks import Ranks, join
from training.recording import RecordingConfig, ensure_logs
from training.staging import StagingConfig, stage_incidents, with_lessons
from training.twins import build_twins

OBJECTIVE = (
    "contrastive prediction across two renderings, twins of moments told apart, analogies between changes, inverse "
    "dynamics, behaviour, episode-centred SIGReg; no pixels, depth, maps or boxes as targets"
)
CHANGES = "; slots of their own for things and for the car's stance, shaped by twins and analogies alone"
Progress = Callable[[str, float, dict[str, float]], None]


@dataclass(frozen=True)
class Recipe:
    """A whole training: data, sizes, three stages."""

    name: str
    seed: int = 0
    start: str = ""  # weights whose encoder stage one goes on from: a name in drivesim/weights, or a file; else none
    threads: int = 2
    things_from_the_start: bool = False  # slots for things learn in stage one, too, and shape the tokens they look at
    device: str = "auto"  # of stage one and of encoding: a GPU where there is one
    recording: RecordingConfig = field(default_factory=RecordingConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    changes: ChangesConfig = field(default_factory=ChangesConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    staging: StagingConfig = field(default_factory=StagingConfig)
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    critic: CriticTraining = field(default_factory=CriticTraining)


def quiet(stage: str, share: float, metrics: dict[str, float]) -> None:
    """Show nothing."""


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        ConfigError: the file is missing or does not fit.
    """
    return load_toml(Recipe, path)


def keep_buffers() -> None:
    """Let glibc keep big activation buffers between steps: returning them to the kernel cost half of a step's time."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 256 << 20)):  # mmap_max, trim_threshold, top_pad
            libc.mallopt(option, value)
    except (OSError, AttributeError):  # another C library: slower, nothing worse
        return


def train(recipe: Recipe, out: Path, on_progress: Progress = quiet, rig: CameraRig | None = None) -> Path:
    """Run all stages that are not done yet; returns the checkpoint's path.

    Under `torchrun` all ranks share stage one; the first alone does the rest, the others wait for it.

    Raises:
        CollapseError: stage one went wrong; the message says what to change.
        ValueError: the recipe asks for a device that is not there, or starts from an encoder of other sizes.
        drivesim.models.CheckpointError: the weights it starts from cannot be read.
    """
    ranks, rig, start = join(recipe.device), rig or default_rig(), encoder_to_start_from(recipe)
    path = out / "checkpoints" / f"{recipe.name}.safetensors"
    keep_buffers()
    torch.set_num_threads(recipe.threads)
    began = time.monotonic()
    if ranks.first:
        Run.create(out, recipe, rig=rig.digest, device=str(ranks.device), ranks=ranks.count)
        logs = record_and_render(recipe, out, rig, on_progress)
    ranks.wait()
    clips, run, steps = Clips.load(out / "cache"), Run(out), recipe.pretrain.steps
    encoder = pretrain(
        clips, in_stage_one(recipe.model.encoder, recipe.things_from_the_start), recipe.pretrain, run, recipe.seed,
        lambda step, metrics: on_progress("encoder", (step + 1) / steps, metrics), ranks, start,
    )  # fmt: skip
    if ranks.first:
        encoder = with_changes(recipe, encoder, clips, run, on_progress)
        model, calibration = on_frozen_latents(recipe, clips, logs, encoder, run, rig, on_progress, ranks)
        told = card(recipe, clips, logs, calibration, time.monotonic() - began)
        model.save(path, told)
        link = run.checkpoints / "last"
        link.unlink(missing_ok=True)
        link.symlink_to(path.name)
        write_json(out / "card.json", told)
        save_curves(run)
        teach_companions(recipe, path, run.path, on_progress)
    ranks.wait()
    return path


def in_stage_one(config: EncoderConfig, together: bool) -> EncoderConfig:
    """What stage one trains: the scene's slots and, where the two learn together, those for things; one glance."""
    return replace(config, things=config.things if together else 0, stance=0, glances=1)


def encoder_to_start_from(recipe: Recipe) -> SlotEncoder | None:
    """The encoder that the recipe starts from, if any; with its slots for things where stage one goes on with them.

    Raises:
        ValueError: it has other sizes than the recipe's.
        drivesim.models.CheckpointError: no such weights.
    """
    if not recipe.start:
        return None
    path = named_weights(recipe.start)
    found = WorldModel.load(path).encoder
    together = recipe.things_from_the_start and found.things is not None
    wanted = SlotEncoder(in_stage_one(recipe.model.encoder, together))
    shapes = [{key: tuple(value.shape) for key, value in each.state_dict().items()} for each in (found, wanted)]
    if any(shapes[0].get(key) != shape for key, shape in shapes[1].items()):
        raise ValueError(f"start: the encoder in {path} has other sizes than the recipe's [model.encoder]")
    wanted.load_state_dict({key: value for key, value in found.state_dict().items() if key in shapes[1]})
    return wanted


def record_and_render(recipe: Recipe, out: Path, rig: CameraRig, on_progress: Progress) -> list[Path]:
    """The drives, their cache, its twins and analogies, as far as they are not there yet; returns the logs."""
    logs = ensure_logs(recipe.recording, out / "logs", recipe.seed, lambda share: on_progress("record", share, {}))
    build_cache(logs, out / "cache", rig, recipe.cache, lambda share: on_progress("render", share, {}))
    build_twins(logs, out / "cache", rig, recipe.cache, lambda share: on_progress("twins", share, {}))
    build_analogies(logs, out / "cache", rig, recipe.cache, lambda share: on_progress("analogies", share, {}))
    return logs


def with_changes(recipe: Recipe, encoder: SlotEncoder, clips: Clips, run: Run, on_progress: Progress) -> SlotEncoder:
    """The encoder of stage one with slots for things and for the stance beside the scene's, where there are to be."""
    torch.manual_seed(recipe.seed + 3)
    wider = SlotEncoder(recipe.model.encoder)
    wider.load_state_dict(encoder.state_dict(), strict=False)
    return train_changes(wider, clips, recipe.changes, run, recipe.seed, on_progress)


def on_frozen_latents(
    recipe: Recipe, clips: Clips, logs: list[Path], encoder: SlotEncoder, run: Run, rig: CameraRig,
    on_progress: Progress, ranks: Ranks,
) -> tuple[WorldModel, dict[str, float]]:  # fmt: skip
    """Predictor, heads and temperatures; returns the whole model and how well it is calibrated."""
    save_curves(run)
    encoded = run.checkpoints / "latents.pt"
    if not encoded.exists():
        made = encode_clips(clips, encoder, lambda share: on_progress("encode", share, {}), ranks.device)
        save_latents(encoded, made)
    lessons = stage_incidents(
        logs, run.path / "lessons", rig, recipe.cache, recipe.staging, encoder,
        lambda share: on_progress("incidents", share, {}),
    )  # fmt: skip
    clips, latents = with_lessons(clips, load_latents(encoded), lessons)
    predictor = train_dynamics(
        clips, latents, recipe.model.predictor, recipe.dynamics, run, recipe.seed,
        lambda step, metrics: on_progress("predictor", (step + 1) / recipe.dynamics.steps, metrics),
    )  # fmt: skip
    save_curves(run)
    trainer = HeadTrainer(clips, latents, predictor, recipe.model.heads, recipe.heads)
    heads = train_heads(
        trainer, run, recipe.seed, lambda step, metrics: on_progress("heads", (step + 1) / recipe.heads.steps, metrics)
    )
    model = WorldModel(recipe.model, rig.digest)
    model.encoder.load_state_dict(encoder.state_dict())
    model.predictor.load_state_dict(predictor.state_dict())
    for name, head in heads.items():
        getattr(model, name).load_state_dict(head.state_dict())
    model.mean.copy_(latents.mean)
    model.scale.copy_(latents.scale)
    calibration = calibrate(model, trainer, np.random.default_rng([recipe.seed, 13]))
    return model.eval(), calibration


COMPANIONS = ("distilled", "critic")


def teach_companions(
    recipe: Recipe, checkpoint: Path, run: Path, on_progress: Progress, kinds: tuple[str, ...] = COMPANIONS
) -> None:
    """The distilled policy and the critic beside a checkpoint: bound to it, so each new one gets its own.

    Args:
        run: folder with the cache, logs and latents that they are taught on.
    """
    torch.set_num_threads(recipe.threads)
    if "distilled" in kinds:
        told = distill(run, checkpoint, None, recipe.distill, lambda _, share: on_progress("distil", share, {}))
        on_progress("distil", 1.0, told["judged"])
    if "critic" in kinds:
        make_critic(WorldModel.load(checkpoint), run, critic_path(checkpoint), recipe.critic, recipe.seed)
        on_progress("critic", 1.0, {})


def card(
    recipe: Recipe, clips: Clips, logs: list[Path], calibration: dict[str, float], seconds: float
) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    towns = sorted({str(DriveLog(path).attrs["town"]) for path in logs})
    return {
        "name": recipe.name, "seed": recipe.seed, "started_from": recipe.start, "commit": code_version(),
        "trained_s_this_call": round(seconds),
        "data": {
            "towns": towns, "drives": len(logs), "by_a_planner": recipe.recording.practice,
            "ticks": len(clips.episode), "tick_s": 0.5,
            "branched_states": len(clips.branch_start), "twins": len(clips.twin_start),
            "analogies": len(clips.analogies()), "stances": len(clips.stances()),
        },
        "objective": OBJECTIVE + (CHANGES if recipe.model.encoder.things or recipe.model.encoder.stance else ""),
        "stages": {
            "pretrain": asdict(recipe.pretrain), "changes": asdict(recipe.changes), "staging": asdict(recipe.staging),
            "dynamics": asdict(recipe.dynamics), "heads": asdict(recipe.heads),
        },
        "calibration": calibration,
        "command": f"drivesim train {recipe.name}",
    }  # fmt: skip
