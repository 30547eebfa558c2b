"""Stage one and a half: slots for what could be otherwise, shaped by changes alone, on the frozen tokens of stage one.

Twins and analogies (`training.twins`, `training.analogies`) say that something was changed, and that the same was
changed elsewhere. The losses are stage one's; everything else that stage one asks is left out, so that the slots hold
what may be there or not (things), or how the car stands in its lane (stance), and little of the place. The pictures are
encoded to tokens once, which are small enough to be kept in memory: a step costs a quarter of one of stage one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.models.change_slots import ChangeSlots
from drivesim.models.encoder import SlotEncoder
from drivesim.runs import Run
from training.batches import BatchConfig, choose_views
from training.clips import Clips
from training.objectives import CollapseError
from training.precision import half_precision
from training.pretrain import analogy_contrast, cosine_schedule, restore, save, twin_contrast

Progress = Callable[[str, float, dict[str, float]], None]
KINDS = ("things", "stance")  # of slots that changes shape, in their order in the latent


@dataclass(frozen=True)
class ChangesConfig:
    """Stage one and a half; it is done where the encoder has such slots."""

    things_steps: int = 2000
    stance_steps: int = 1000
    analogies: int = 64
    twins: int = 24
    most: int = 7000  # analogies and twins that are kept in memory, as many of each: 0.4 MB apiece
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    keep_side: float = 0.35  # probability that a step sees the cameras to the sides
    keep_rear: float = 0.25
    half: bool = True
    save_every: int = 250

    def steps(self, kind: str) -> int:
        """Steps of a kind of slots."""
        return self.things_steps if kind == "things" else self.stance_steps


@dataclass(frozen=True)
class Changes:
    """Tokens of moments and their changed copies.

    Attributes:
        analogies: (g, 4, t, c) bfloat16: a moment, the same changed, another, changed likewise; kinds (g,).
        twins: (k, 4, t, c): a moment and its twin in one look, both in another.
        about: (1, t, 28) ray features; view: (t,) the view that a token is of.
    """

    analogies: Tensor
    kinds: Tensor
    twins: Tensor
    about: Tensor
    view: NDArray[np.int64]

    @property
    def views(self) -> int:
        """How many views there are."""
        return int(self.view.max()) + 1


def pictures_of_changes(kind: str, clips: Clips, most: int) -> tuple[list[tuple[NDArray[np.uint8], NDArray[np.int64]]],
                                                                     NDArray[np.int64], int]:  # fmt: skip
    """What a kind of slots is taught by.

    Returns:
        pictures with the rows that count: four columns of analogies, then four of twins; the analogies' kinds; and how
        many twins there are.

    Raises:
        ValueError: the cache holds nothing of it.
    """
    if kind == "things":
        start, views, chosen = clips.analogy_start, clips.analogy_views, clips.analogies()[:most]
        twins = np.arange(len(clips.twin_start))[:most]
    else:
        start, views, chosen = clips.stance_start, clips.stance_views, clips.stances()[:most]
        twins = np.arange(0)
    if not len(chosen):
        share = "analogy_share" if kind == "things" else "stance_share"
        raise ValueError(
            f"slots for {kind} are taught by analogies, and the cache has none: "
            f"set cache.{share}, or model.encoder.{kind} = 0"
        )
    parts = [
        (clips.views_a, start[chosen, 0]), (views[:, 0], chosen), (clips.views_a, start[chosen, 1]),
        (views[:, 1], chosen),
    ]  # fmt: skip
    if len(twins):
        parts += [(clips.views_a, clips.twin_start[twins]), *((clips.twin_views[:, k], twins) for k in range(3))]
    return parts, start[chosen, 2], len(twins)


@torch.no_grad()
def tokens_of_changes(
    kind: str, clips: Clips, encoder: SlotEncoder, config: ChangesConfig, on_progress: Callable[[float], None],
    batch: int = 64,
) -> Changes:  # fmt: skip
    """Encode the moments of a cache's analogies and twins, and their changed copies, to tokens.

    Raises:
        ValueError: the cache has nothing that teaches this kind.
    """
    parts, kinds, twins = pictures_of_changes(kind, clips, config.most)
    encoder.eval()
    intrinsics, cameras = torch.from_numpy(clips.intrinsics), torch.from_numpy(clips.cameras_a)
    total, done, encoded = sum(len(rows) for _, rows in parts), 0, []
    about = torch.zeros(0)
    for source, rows in parts:
        found = []
        for first in range(0, len(rows), batch):
            picture = torch.from_numpy(source[rows[first : first + batch]]).permute(0, 1, 4, 2, 3)
            with half_precision(config.half):
                tokens, about, _ = encoder.places(picture, intrinsics, cameras)
            found.append(tokens.to(torch.bfloat16))
            done += len(picture)
            on_progress(done / total)
        encoded.append(torch.cat(found))
    view = np.repeat(np.arange(len(clips.intrinsics)), encoder.tokens_per_view(len(clips.intrinsics)))
    analogies = torch.stack(encoded[:4], 1)
    told_apart = torch.stack(encoded[4:], 1) if twins else analogies[:0]
    return Changes(analogies, torch.from_numpy(kinds), told_apart, about, view)


def changes_loss(
    slots: ChangeSlots, changes: Changes, config: ChangesConfig, rng: np.random.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step's loss, and its parts by name."""
    analogies, twins = (
        torch.from_numpy(rng.choice(len(rows), min(count, len(rows)), replace=False))
        for rows, count in ((changes.analogies, config.analogies), (changes.twins, config.twins))
    )
    seen = choose_views(changes.views, BatchConfig(keep_side=config.keep_side, keep_rear=config.keep_rear), rng)
    kept = torch.from_numpy(np.flatnonzero(np.isin(changes.view, seen)))
    tokens = torch.cat([
        changes.analogies[analogies].transpose(0, 1).flatten(0, 1), changes.twins[twins].transpose(0, 1).flatten(0, 1)
    ])[:, kept]  # fmt: skip
    with half_precision(config.half):
        latents = slots(tokens if torch.is_autocast_enabled("cpu") else tokens.float(), changes.about[:, kept]).float()
    changed, told_apart = latents.split([4 * len(analogies), 4 * len(twins)])  # type: ignore[no-untyped-call]
    added, standing, alike = analogy_contrast(changed, changes.kinds[analogies].clamp(min=0))
    loss = added + standing
    terms = {"added": added, "standing": standing, "alike": alike}
    if len(twins):
        other, told = twin_contrast(told_apart)
        loss = loss + other
        terms |= {"changed": other, "told": told}
    return loss, {name: value.detach() for name, value in ({"loss": loss} | terms).items()}


def train_changes(
    encoder: SlotEncoder, clips: Clips, config: ChangesConfig, run: Run, seed: int, on_step: Progress
) -> SlotEncoder:
    """Train an encoder's slots for things and for the stance, nothing else of it; resumes like stage one.

    Raises:
        ValueError: the cache has nothing to teach them.
        CollapseError: a loss is not finite.
    """
    for kind in KINDS:
        slots = getattr(encoder, kind)
        if slots is not None:
            train_slots(kind, slots, encoder, clips, config, run, seed, on_step)
    return encoder.eval()


def train_slots(
    kind: str, slots: ChangeSlots, encoder: SlotEncoder, clips: Clips, config: ChangesConfig, run: Run, seed: int,
    on_step: Progress,
) -> None:  # fmt: skip
    """Train one kind."""
    optimizer = torch.optim.AdamW(slots.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    path, steps = run.checkpoints / f"{kind}.pt", config.steps(kind)
    first = restore(path, slots, optimizer)
    if first >= steps:
        return
    changes = tokens_of_changes(kind, clips, encoder, config, lambda share: on_step("tokens", share, {}))
    slots.train()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * cosine_schedule(step, steps, config.warmup)
        began = time.monotonic()
        loss, terms = changes_loss(slots, changes, config, np.random.default_rng([seed, 41, step]))
        if not torch.isfinite(loss):
            raise CollapseError(f"{kind}, step {step}: the loss is {float(loss)}; lower the learning rate")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(slots.parameters(), 1.0)
        optimizer.step()
        metrics = {name: float(value) for name, value in terms.items()} | {"step_s": time.monotonic() - began}
        run.log(stage=kind, step=step, **metrics)
        on_step(kind, (step + 1) / steps, metrics)
        if (step + 1) % config.save_every == 0 or step + 1 == steps:
            save(path, step + 1, slots, optimizer)
