"""Teach the critic what the world does not do, from training drives alone and without truth.

    python -m training.critic runs/nano --checkpoint runs/nano/checkpoints/last

Possible: the logged next tick, in the drive's own look and, with more weight, in another one, so that a look is
no reason. Impossible: the next tick with a window of the surroundings pasted from elsewhere (`pasting.py`), another
moment of the same drive, and a world that stands still, camera noise and all, while the car drives. Encoder and
predictor are frozen. The axes along which the critic measures errors come first, from covariances: those in which
pasted changes exceed ordinary errors most (generalised eigenvectors, as in Fisher's discriminant), and those in which
looks do.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.models import SHIPPED, WorldModel
from drivesim.models.critic import CriticConfig, Transition, TransitionCritic, critic_path
from training.clips import Clips
from training.latents import BATCH, Latents, encode_as, kept_latents
from training.pasting import PASTES, Paster

CHANGED_STEP, CHANGED_PX, TRIES = 24, 150, 5  # a paste that changes fewer pixels by so much is drawn again
MOVING_MPS, STANDING_MPS = 3.0, 0.1


@dataclass(frozen=True)
class CriticTraining:
    """How the critic is taught.

    Attributes:
        transitions: logged steps at most; pasted: of them with a pasted twin.
        look: share of the other look among what is possible.
        moment, frozen: weight of another moment and of time that stands still, where pasted has 1.
        least_change: mean squared change of the latent below which a paste is not seen, so teaches nothing.
        shrinkage: of covariances towards a multiple of one.
    """

    transitions: int = 16000
    pasted: int = 6000
    look: float = 0.6
    moment: float = 0.6
    frozen: float = 0.2
    least_change: float = 0.03
    shrinkage: float = 0.3
    steps: int = 300
    batch: int = 2048
    learning_rate: float = 1e-2
    decay: float = 5e-3


@dataclass(frozen=True)
class Lessons:
    """m logged steps and what became of k of them.

    Attributes:
        step: the steps as they came, in the drives' own looks.
        other_look: (m, n, d) what came, in another look.
        moment: (m, n, d) another tick of the same drive; `apart` (m,) whether it is another tick indeed.
        still: (m, n, d) the present once more, with the noise of cameras and weather: changed as in some step of a car
            that stood.
        moving: (m,) whether the car drives now and then.
        twin: (k,) step of each paste; pasted (k, n, d).
    """

    step: Transition
    other_look: Tensor
    moment: Tensor
    apart: Tensor
    still: Tensor
    moving: Tensor
    twin: Tensor
    pasted: Tensor


def paste_ticks(
    model: WorldModel, clips: Clips, ticks: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], Tensor]:
    """Ticks with something pasted: which of `ticks` they are, and their latents (k, n, d)."""
    paster, which = Paster(clips.intrinsics, clips.cameras_a), list[int]()
    pictures, out = list[NDArray[np.uint8]](), list[Tensor]()

    def flush() -> None:
        if pictures:
            views = np.stack(pictures)
            out.append(encode_as(model, views, clips.intrinsics, clips.cameras_a))
            pictures.clear()

    for k, tick in enumerate(int(t) for t in ticks):
        now, kind = np.array(clips.views_a[tick]), PASTES[int(rng.integers(len(PASTES)))]
        first, stop = np.searchsorted(clips.episode, [clips.episode[tick], clips.episode[tick] + 1])
        other = np.array(clips.views_a[int(rng.integers(first, stop))]) if kind == "moment" else now
        for _ in range(TRIES):
            made = paster.paste(kind, now, other, rng)
            if int((np.abs(made.astype(np.int16) - now).max(-1) > CHANGED_STEP).sum()) >= CHANGED_PX:
                which.append(k)
                pictures.append(made)
                break
        if len(pictures) == BATCH:
            flush()
    flush()
    return np.array(which, np.int64), torch.cat([torch.zeros(0, *model.mean.shape), *out])


def lessons(
    model: WorldModel, clips: Clips, latents: Latents | None, config: CriticTraining, rng: np.random.Generator
) -> Lessons:
    """Draw the logged steps, their other look, another moment each, and the pasted twins."""
    starts = np.sort(rng.permutation(clips.starts(3))[: config.transitions])
    first, stop = (np.searchsorted(clips.episode, clips.episode[starts], side=side) for side in ("left", "right"))
    moments = rng.integers(first, stop)

    def own(rows: NDArray[np.int64]) -> Tensor:
        if latents is not None:
            return latents.a[torch.from_numpy(rows)]
        return encode_as(model, clips.views_a, clips.intrinsics, clips.cameras_a, rows)

    if latents is not None:
        other_look = latents.b[torch.from_numpy(starts + 2)]
    else:
        other_look = encode_as(model, clips.views_b, clips.intrinsics, clips.cameras_b, starts + 2)
    action, speed = (torch.from_numpy(clips.table[name]) for name in ("action", "speed"))
    before, now, came = (own(starts + k) for k in range(3))
    step = Transition.of(model, before, now, came, action[starts + 1], speed[starts + 1])
    chosen = np.sort(rng.permutation(len(starts))[: config.pasted])
    which, pasted = paste_ticks(model, clips, starts[chosen] + 2, rng)
    slow, fast = (pick(speed[starts + 1], speed[starts + 2]) for pick in (torch.maximum, torch.minimum))
    return Lessons(
        step, other_look, own(moments), torch.from_numpy(np.abs(moments - starts - 2) > 0),
        once_more(step, (slow < STANDING_MPS).nonzero()[:, 0], rng), fast > MOVING_MPS,
        torch.from_numpy(chosen[which]), pasted,
    )  # fmt: skip


def once_more(step: Transition, stood: Tensor, rng: np.random.Generator) -> Tensor:
    """The present again (m, n, d), changed as it changed in a random one of the steps `stood`; as it is without any."""
    if not len(stood):
        return step.now
    drawn = stood[torch.from_numpy(rng.integers(0, len(stood), len(step.now)))]
    return step.now + (step.came - step.now)[drawn]


def covariance(x: Tensor) -> Tensor:
    """Second moments (size, size) of rows (m, ...), in double precision."""
    flat = x.flatten(1).double()
    return flat.T @ flat / max(len(flat), 1)


def leading_axes(wanted: Tensor, ordinary: Tensor, shrinkage: float, count: int) -> Tensor:
    """Axes (count, size) that maximise the variance `wanted` over the variance `ordinary`, which is 1 along each."""
    level = ordinary.diagonal().mean().clamp(min=1e-6)
    ordinary = ordinary + shrinkage * level * torch.eye(len(ordinary), dtype=ordinary.dtype)
    whiten = torch.linalg.inv(torch.linalg.cholesky(ordinary))
    _, vectors = torch.linalg.eigh(whiten @ wanted @ whiten.T)
    return torch.as_tensor((vectors[:, -count:].flip(1).T @ whiten).float())


def examples(critic: TransitionCritic, material: Lessons, config: CriticTraining) -> tuple[Tensor, Tensor, Tensor]:
    """Features (e, f), whether impossible (e,), and weights (e,) that sum to 1."""
    step, twin = material.step, material.twin
    seen = (material.pasted - step.came[twin]).square().mean((1, 2)) > config.least_change
    every = torch.ones(len(step.now), dtype=torch.bool)
    parts = [
        (every, step.came, 0.0, 1.0 - config.look), (every, material.other_look, 0.0, config.look),
        (material.moving & material.apart, material.moment, 1.0, config.moment),
        (material.moving, material.still, 1.0, config.frozen),
    ]  # fmt: skip
    features, labels, weights = [], [], []
    for chosen, came, label, weight in parts:
        found = critic.features(taken(step, chosen.nonzero()[:, 0], came[chosen]))
        features.append(found)
        labels.append(torch.full((len(found),), label))
        weights.append(torch.full((len(found),), weight / max(len(found), 1)))
    found = critic.features(taken(step, twin[seen], material.pasted[seen]))
    features.append(found)
    labels.append(torch.ones(len(found)))
    weights.append(torch.full((len(found),), 1.0 / max(len(found), 1)))
    impossible, share = torch.cat(labels), torch.cat(weights)
    for side in (0.0, 1.0):  # even odds
        share[impossible == side] *= 0.5 / share[impossible == side].sum().clamp(min=1e-9)
    return torch.cat(features), impossible, share


def taken(step: Transition, rows: Tensor, came: Tensor) -> Transition:
    """Some steps, but something else came."""
    return Transition(
        step.before[rows], step.now[rows], step.predicted[rows], came, step.doubt[rows], step.action[rows],
        step.speed[rows],
    )  # fmt: skip


def teach(material: Lessons, config: CriticTraining, sizes: CriticConfig, seed: int) -> TransitionCritic:
    """Axes from covariances, then a logistic regression with a small hidden layer beside it."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    critic, step = TransitionCritic(sizes), material.step
    error, change = step.came - step.predicted, material.pasted - step.came[material.twin]
    own, elsewhere = covariance(error), covariance(material.other_look - step.predicted)
    pasted, looks = covariance(change), covariance(material.other_look - step.came)
    critic.change_axes.copy_(
        leading_axes(pasted, 0.7 * own + 0.3 * elsewhere, config.shrinkage, len(critic.change_axes))
    )
    critic.look_axes.copy_(leading_axes(looks, 0.5 * own + 0.5 * pasted, config.shrinkage, len(critic.look_axes)))
    with torch.no_grad():
        features, label, weight = examples(critic, material, config)
    critic.mean.copy_((weight[:, None] * features).sum(0))
    critic.scale.copy_((weight[:, None] * (features - critic.mean).square()).sum(0).sqrt() + 1e-3)
    optimizer = torch.optim.Adam(critic.parameters(), config.learning_rate)
    for number in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1.0 + np.cos(np.pi * number / config.steps))
        rows = torch.multinomial(weight, config.batch, replacement=True, generator=generator)
        loss = nn.functional.binary_cross_entropy_with_logits(critic.judge(features[rows]), label[rows])
        loss = loss + config.decay * sum(part.square().sum() for part in critic.parameters())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return critic.eval()


def make_critic(
    model: WorldModel, run: Path, path: Path, config: CriticTraining | None = None, seed: int = 0
) -> TransitionCritic:
    """Teach a model's critic from a training run's cache and keep it.

    Args:
        run: folder that `drivesim train` wrote; its kept latents are used where they are this model's.
        path: file to write.

    Raises:
        FileNotFoundError: the run has no complete cache.
    """
    config, rng = config or CriticTraining(), np.random.default_rng([seed, 11])
    clips = Clips.load(run / "cache")
    latents = kept_latents(model, clips, run / "checkpoints" / "latents.pt")
    material = lessons(model, clips, latents, config, rng)
    sizes = CriticConfig(model.config.encoder.slots, model.config.encoder.latent_dim)
    critic = teach(material, config, sizes, seed)
    counts = {"transitions": len(material.moving), "pastes": len(material.pasted)}
    critic.save(path, model, {"recipe": asdict(config), "seed": seed} | counts)
    return TransitionCritic.load(path, model)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder that `drivesim train` wrote")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="world model; the shipped one by default")
    parser.add_argument("--out", type=Path, help="file; beside the checkpoint by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = options.out or critic_path(options.checkpoint)
    make_critic(WorldModel.load(options.checkpoint), options.run, path, seed=options.seed)
    print(path)


if __name__ == "__main__":
    main()
