"""Stage one: the encoder, by contrastive prediction across two renderings of the same drive.

Where the encoder has slots for things, twins and analogies shape them here already, and through them the tokens that
all slots look at: what changes alone ask for must be seen by the stem first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drivesim.models.encoder import EncoderConfig, SlotEncoder, autocast_kind
from drivesim.models.predictor import LatentPredictor, PredictorConfig
from drivesim.runs import Run
from training.batches import Batch, BatchConfig, Draw, read_ahead
from training.clips import Clips
from training.objectives import InverseDynamics, contrast, effective_rank, require_healthy, scaled_action, spread
from training.precision import half_precision
from training.ranks import Ranks


@dataclass(frozen=True)
class PretrainConfig(BatchConfig):
    """Stage one."""

    steps: int = 1200
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.05
    spread_weight: float = 0.1
    inverse_weight: float = 0.5
    behavior_weight: float = 0.5
    branch_weight: float = 0.5
    twin_weight: float = 0.5
    analogy_weight: float = 0.5
    thing_weight: float = 1.0  # of twins and analogies asked of the slots for things, where there are some
    analogy_rate: float = 0.6  # of the learning rate, once analogies come in: more would undo what is known by then
    thing_rate: float = 1.0  # of the learning rate, for the slots for things: those that know something forget it soon
    settle: int = 0  # steps in which a given encoder is left as it is, while what its objective needs learns to read it
    half: bool = True  # bfloat16 where it is safe and pays: half the memory traffic of the stem
    save_every: int = 100

    def rate(self, step: int) -> float:
        """Share of the learning rate: up and down, and once more where the analogies come in later.

        What was left as it is (`settle`) rises from nothing afterwards: Adam's first steps are as long as its rate.
        """
        if step < self.settle:
            return cosine_schedule(step, 2 * self.settle, self.warmup)
        step, steps = step - self.settle, self.steps - self.settle
        first = max(self.analogies_from - self.settle, 0) if self.analogies else 0
        if step < first:
            return cosine_schedule(step, first, self.warmup)
        share = self.analogy_rate if first else 1.0
        return share * cosine_schedule(step - first, steps - first, self.warmup)


class Pretrainer(nn.Module):
    """The encoder with what its objective needs and a plan does not."""

    def __init__(self, encoder: EncoderConfig) -> None:
        super().__init__()
        self.scene = encoder.groups[0]
        size = self.scene * encoder.latent_dim
        self.encoder = SlotEncoder(encoder)
        self.predictor = LatentPredictor(PredictorConfig(self.scene, encoder.latent_dim, width=96, layers=1, members=1))
        self.inverse = InverseDynamics(size)
        self.behavior = InverseDynamics(size)

    def paced(self, config: PretrainConfig) -> list[dict[str, Any]]:
        """The parameters by pace, a factor on the learning rate: slots for things may have one of their own."""
        things = [] if self.encoder.things is None else list(self.encoder.things.parameters())
        kept = {id(parameter) for parameter in things}
        others = [parameter for parameter in self.parameters() if id(parameter) not in kept]
        return [{"params": others, "pace": 1.0}, {"params": things, "pace": config.thing_rate}][: 2 if things else 1]

    def loss(
        self, batch: Batch, groups: Tensor, config: PretrainConfig, generator: torch.Generator, frozen: bool = False
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """All terms of a batch -> loss, the terms without gradient, latents (2 b, n, d); a frozen encoder gets none."""
        half = half_precision(config.half, autocast_kind(batch.views))
        with half, torch.set_grad_enabled(not frozen):
            seen, about, bias = self.encoder.places(batch.views, batch.intrinsics[None], batch.cameras)
            latents, b = self.encoder.scene(seen, about, bias), len(groups)
            slots = self.thing_slots(batch, seen, about)
        clips, branched, twins, analogies = batch.parts(latents)
        a0, a1, b1, b2 = clips.view(4, b, *latents.shape[1:])
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
        caused = chosen = torch.zeros((), device=latents.device)
        if batch.branch_action is not None:
            caused, chosen = self.branch_contrast(branched, batch.branch_action, batch.branch_speed)
            total = total + config.branch_weight * caused
        changed = told = torch.zeros((), device=latents.device)
        if batch.twins:
            changed, told = twin_contrast(twins)
            total = total + config.twin_weight * changed
        added = standing = alike = torch.zeros((), device=latents.device)
        if batch.analogies is not None:
            added, standing, alike = analogy_contrast(analogies, batch.analogies)
            total = total + config.analogy_weight * (added + 0.5 * standing)
        things = of_things(batch, slots)
        if things:
            total = total + config.thing_weight * torch.stack(list(things.values())).sum()
        terms = things | {
            "loss": total, "ahead": ahead, "across": across, "found": found, "same": same, "caused": caused,
            "chosen": chosen, "changed": changed, "told": told, "added": added, "standing": standing, "alike": alike,
            "spread": gaussian, "inverse": inverse, "behavior": behavior,
        }  # fmt: skip
        return total, {name: value.detach() for name, value in terms.items()}, torch.cat([a1, b2]).detach()

    def thing_slots(self, batch: Batch, seen: Tensor, about: Tensor) -> Tensor | None:
        """Slots for things of the twins and analogies of a batch; None without such slots, or without any of them."""
        count = 4 * (batch.twins + (0 if batch.analogies is None else len(batch.analogies)))
        if self.encoder.things is None or not count:
            return None
        slots = self.encoder.things(seen[-count:], about if len(about) == 1 else about[-count:])
        return torch.as_tensor(slots.float())

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


def of_things(batch: Batch, slots: Tensor | None) -> dict[str, Tensor]:
    """What a batch's twins and analogies ask of their slots for things."""
    losses: dict[str, Tensor] = {}
    if slots is None:
        return losses
    if batch.twins:
        losses["thing_changed"], _ = twin_contrast(slots[: 4 * batch.twins])
    if batch.analogies is not None:
        added, standing, _ = analogy_contrast(slots[4 * batch.twins :], batch.analogies)
        losses |= {"thing_added": added, "thing_standing": standing}
    return losses


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


def analogy_contrast(
    latents: Tensor, kinds: Tensor, temperature: float = 0.1, sharpness: float = 0.5
) -> tuple[Tensor, Tensor, Tensor]:
    """What was changed in a moment, recognised by what the same change does to another moment.

    The first loss compares change with change, so that the same moves the latent the same way. The second asks for the
    changed moment among all others by the change alone, as a linear head would have to: its direction must stand out
    from what moments differ in anyway.

    Args:
        latents: (4 g, n, d): g moments, each changed, g others, each changed in the same way.
        kinds: (g,) those of one kind but 0 are the same change, so they are not told apart.

    Returns:
        both losses (), and the share recognised among the g by the first.
    """
    here, here_changed, there, there_changed = latents.flatten(1).chunk(4)
    rows = torch.arange(len(kinds), device=latents.device)
    same = (kinds[:, None] == kinds) & (kinds > 0) & (rows[:, None] != rows)
    x, y = here_changed - here, there_changed - there
    centre = torch.cat([here, there]).mean(0)
    standing = torch.zeros((), device=latents.device)
    for change, among, plain in ((x, there_changed, there), (y, here_changed, here)):
        filters = sharpness * nn.functional.normalize(change, dim=-1)
        scores = torch.cat(
            [(filters @ (among - centre).T).masked_fill(same, -torch.inf), filters @ (plain - centre).T], 1
        )
        standing = standing + 0.5 * nn.functional.cross_entropy(scores, rows)
    x, y = (nn.functional.normalize(change - change.mean(0), dim=-1) for change in (x, y))
    similarity = (x @ y.T / temperature).masked_fill(same, -torch.inf)
    loss = 0.5 * (nn.functional.cross_entropy(similarity, rows) + nn.functional.cross_entropy(similarity.T, rows))
    found = (similarity.argmax(1) == rows).float().mean()
    return loss, standing, found


def cosine_schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then half a cosine to zero."""
    rise = max(1, int(warmup * steps))
    return (step + 1) / rise if step < rise else 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def pretrain(
    clips: Clips, encoder: EncoderConfig, config: PretrainConfig, run: Run, seed: int,
    on_step: Callable[[int, dict[str, float]], None] | None = None, ranks: Ranks | None = None,
    start: SlotEncoder | None = None,
) -> SlotEncoder:  # fmt: skip
    """Train the encoder; resumes from `run.checkpoints/pretrain.pt`'s step when it is there.

    Args:
        start: an encoder of the same sizes to go on from, instead of a random one; it may be without slots for things.

    With several ranks each reads `config.episodes` episodes of its own; the encoder comes back on the CPU.

    Raises:
        CollapseError: the latent collapsed or the loss is not finite.
    """
    ranks = ranks or Ranks(torch.device("cpu"))
    torch.manual_seed(seed)
    model = Pretrainer(encoder)
    if start is not None:  # slots for things it may lack: they start from nothing
        model.encoder.load_state_dict(start.state_dict(), strict=False)
    model = model.to(ranks.device)
    optimizer = torch.optim.AdamW(
        model.paced(config), config.learning_rate, (0.9, 0.98), weight_decay=config.weight_decay
    )
    path = run.checkpoints / "pretrain.pt"
    first = restore(path, model, optimizer)
    ranks.agree(model)
    draw = Draw(clips, config, seed, ranks)
    for step, (batch, groups, read_s) in read_ahead(draw, first, config.steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * config.rate(step) * group["pace"]
        began = time.monotonic()
        loss, terms, latents = model.loss(batch.to(ranks.device), groups, config, generator, step < config.settle)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        ranks.average(list(model.parameters()))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        metrics = {name: float(value) for name, value in terms.items()}
        metrics |= {"step_s": time.monotonic() - began, "read_s": read_s}
        if step % 50 == 0 or step == config.steps - 1:
            require_healthy(latents.cpu(), metrics["loss"], step)
            metrics["rank"] = effective_rank(latents.cpu().flatten(1))
        done = (step + 1) % config.save_every == 0 or step + 1 == config.steps
        if done:
            ranks.agree(model)  # statistics of the normalisations drift apart between ranks
        if ranks.first:
            run.log(stage="pretrain", step=step, **metrics)
            if on_step is not None:
                on_step(step, metrics)
            if done:
                save(path, step + 1, model, optimizer)
    return model.encoder.cpu().eval()


def save(path: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write a resume point beside `path`, by number, and link `path` to it; the one before it is kept.

    Tensors and plain numbers only. Killed at any moment, the link leads to a whole file.
    """
    numbered = path.with_name(f"{path.stem}-{step:07d}{path.suffix}")
    partial = path.with_suffix(".partial")
    torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, partial)
    partial.replace(numbered)
    link = path.with_suffix(".link")
    link.unlink(missing_ok=True)
    link.symlink_to(numbered.name)
    link.replace(path)
    for old in sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))[:-2]:
        old.unlink()


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load a resume point if there is one; returns the next step. Unpickles nothing but tensors."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
