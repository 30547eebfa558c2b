"""The risk head's controls: the same head, trained the same way on the same cache, but shown less."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from drivesim.models import WorldModel
from drivesim.models.heads import HeadConfig, make_head
from drivesim.models.predictor import LatentPredictor
from drivesim.models.world_model import read_card
from drivesim.runs import Run
from training.clips import Clips
from training.heads import HeadsConfig, HeadTrainer, train_heads
from training.latents import Latents, latents_of
from training.staging import load_lessons, with_lessons

BEFORE = {"contested_share": 0.0}  # settings as they were before cards told them


class NoImagination(HeadTrainer):
    """Shown the last two latents, all that imagination starts from, instead of now and the imagined moment."""

    def foreseen(self, context: Tensor, actions: Tensor, speed: Tensor) -> Tensor:
        """(b, k, p, 2, n, d), the same for every candidate and step; what differs is the kinematics beside it."""
        k, p = actions.shape[1:3]
        return context[:, None, None].expand(-1, k, p, -1, -1, -1)


class NoVision(NoImagination):
    """Shown the kinematics of the asked moment alone."""

    def __init__(
        self, clips: Clips, latents: Latents, predictor: LatentPredictor, heads: HeadConfig, config: HeadsConfig
    ) -> None:
        super().__init__(clips, latents, predictor, heads, config)
        self.risk = make_head("risk", heads, vision=False)


TRAINERS: dict[str, type[HeadTrainer]] = {
    "imagination": HeadTrainer, "no imagination": NoImagination, "no vision": NoVision,
}  # fmt: skip


def heads_config(checkpoint: Path, steps: int) -> HeadsConfig:
    """How the checkpoint's own heads were trained, by its card; another number of steps where one is asked for."""
    card = read_card(checkpoint).get("stages", {}).get("heads")
    told = asdict(HeadsConfig()) if card is None else BEFORE | card
    known = {item.name: told[item.name] for item in fields(HeadsConfig) if item.name in told}
    return HeadsConfig(**(known | {"steps": steps or known["steps"]}))


def trained_heads(
    run: Path, clips: Clips, model: WorldModel, config: HeadsConfig, folder: Path, key: str, seed: int,
    labels: tuple[str, ...] = tuple(TRAINERS),
) -> dict[str, nn.Module]:  # fmt: skip
    """Risk heads by labels of TRAINERS; read from `folder` where an earlier call left them.

    Args:
        key: identity of the whole checkpoint: imagination depends on its predictor, too.
    """
    told = hashlib.sha256(repr(sorted(asdict(config).items())).encode()).hexdigest()[:8]
    found: dict[str, nn.Module] = {}
    latents: Latents | None = None
    for label in labels:
        kind = TRAINERS[label]
        path = folder / f"{label.replace(' ', '-')}-{key}-{told}-{seed}.pt"
        head = make_head("risk", model.config.heads, vision=kind is not NoVision)
        if not path.exists():
            if latents is None:
                lessons = load_lessons(run / "lessons", model.encoder)
                latents = latents_of(model, clips, run / "checkpoints" / "latents.pt")
                clips, latents = with_lessons(clips, latents, lessons)
            torch.manual_seed(seed)
            trainer = kind(clips, latents, model.predictor, model.config.heads, config)
            log = Run.create(folder / path.stem, config, head=label, checkpoint=key)
            torch.save(train_heads(trainer, log, seed, names=("risk",))["risk"].state_dict(), path)
        head.load_state_dict(torch.load(path, weights_only=True))
        found[label] = head.eval()
    return found
