"""The critic: how possible is the step from one latent to the next, whatever the world looks like.

A large error of the predictor is no proof of the impossible: errors grow with speed and with what moves, and another
look of the same state moves the latent, too. The critic sets the error against what is ordinary: it compares energies
of the error (in all, slot by slot, along the axes in which local changes of the picture show, and along those in which
looks differ) with what the step itself lets expect. It answers log odds; `training/critic.py` teaches it, never with
truth.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.config import from_dict
from drivesim.models.weights_file import CheckpointError, read_weights, write_weights
from drivesim.models.world_model import WorldModel

FORMAT = "drivesim-critic-1"
FLOOR = 1e-3  # mean squares of standardised latents below this are all as good as none
STILL, FAST_MPS = 0.03, 3.0  # a step of the latent that is none, a speed at which the world cannot stand still
CHANGE_BANDS = ((0, 8), (8, 24), (24, 64))  # of axes, in the order of how well a local change shows in them
LOOK_BANDS = ((0, 8), (8, 24))


@dataclass(frozen=True)
class Transition:
    """b steps of half a second and what was predicted of them.

    Attributes:
        before, now, predicted, came: (b, n, d) standardised latents.
        doubt: (b,) disagreement of the predictor's members.
        action: (b, 2) acceleration m/s2 and curvature 1/m of the step; speed (b,) m/s at its start.
    """

    before: Tensor
    now: Tensor
    predicted: Tensor
    came: Tensor
    doubt: Tensor
    action: Tensor
    speed: Tensor

    @staticmethod
    @torch.no_grad()
    def of(model: WorldModel, before: Tensor, now: Tensor, came: Tensor, action: Tensor, speed: Tensor) -> Transition:
        """Predict the step from (b, n, d) latents and say beside it what came."""
        predicted, doubt = model.predictor.rollout(before, now, action[:, None], speed)
        return Transition(before, now, predicted[:, 0], came, doubt[:, 0], action, speed)


def log_energy(x: Tensor) -> Tensor:
    """Logarithm of the mean square over the last axis."""
    return torch.log(x.square().mean(-1) + FLOOR)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of (b, k) rows; near 0 where either hardly is."""
    return torch.as_tensor((a * b).sum(-1) / ((a.square().sum(-1) * b.square().sum(-1)).sqrt() + 1e-2))


@dataclass(frozen=True)
class CriticConfig:
    """Sizes of the critic."""

    slots: int = 16
    latent_dim: int = 64
    hidden: int = 32

    @property
    def features(self) -> int:
        """Columns of `TransitionCritic.features`."""
        return 15 + len(CHANGE_BANDS) + len(LOOK_BANDS) + 4 * self.slots


class TransitionCritic(nn.Module):
    """Log odds (at even odds before) that a transition is none that the world makes.

    Buffers:
        change_axes: (64, n * d) in which local changes of a picture stand out of ordinary errors; look_axes (24, n * d)
            in which looks differ more than anything else. See `training/critic.py`.
        mean, scale: of the features.
    """

    def __init__(self, config: CriticConfig) -> None:
        super().__init__()
        self.config = config
        size, count = config.slots * config.latent_dim, config.features
        self.change_axes: Tensor
        self.look_axes: Tensor
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("change_axes", torch.zeros(CHANGE_BANDS[-1][1], size))
        self.register_buffer("look_axes", torch.zeros(LOOK_BANDS[-1][1], size))
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        self.straight = nn.Linear(count, 1)
        last = nn.Linear(config.hidden, 1)
        self.curved = nn.Sequential(nn.Linear(count, config.hidden), nn.GELU(), last)
        for layer in (self.straight, last):
            nn.init.zeros_(layer.weight)

    def features(self, step: Transition) -> Tensor:
        """What the critic judges by: (b, features)."""
        slots = [step.came - step.predicted, step.came - step.now, step.now - step.before, step.predicted - step.now]
        error, moved, past, foreseen = (part.flatten(1) for part in slots)
        acceleration, curvature = step.action.unbind(1)
        still = torch.exp(-moved.square().mean(1) / STILL)
        columns = [
            log_energy(foreseen), log_energy(past), (step.doubt + 1e-6).log(), step.speed / 10.0,
            (step.speed / 10.0).square(), acceleration / 3.0, acceleration.abs() / 3.0, (step.speed * curvature).abs(),
            log_energy(error), log_energy(moved), cosine(error, foreseen), cosine(moved, past), cosine(error, past),
            cosine(moved, foreseen), still * (step.speed / FAST_MPS).clamp(max=1.0),
        ]  # fmt: skip
        changes, looks = error @ self.change_axes.T, error @ self.look_axes.T
        columns += [log_energy(changes[:, first:stop]) for first, stop in CHANGE_BANDS]
        columns += [log_energy(looks[:, first:stop]) for first, stop in LOOK_BANDS]
        return torch.cat([torch.stack(columns, dim=1), *(log_energy(part) for part in slots)], dim=1)

    def judge(self, features: Tensor) -> Tensor:
        """Log odds (b,) from `features`."""
        x = (features - self.mean) / self.scale
        return torch.as_tensor((self.straight(x) + self.curved(x))[:, 0])

    def forward(self, step: Transition) -> Tensor:
        """Log odds (b,) that the transition is impossible."""
        return self.judge(self.features(step))

    @torch.no_grad()
    def along(
        self,
        model: WorldModel,
        latents: NDArray[np.float32],
        actions: NDArray[np.float64],
        speeds_mps: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Probability, at even odds, that a drive's tick could not follow from the two before.

        Args:
            latents: (t, n, d) half a second apart; actions (>= t - 1, 2) from each tick to the next; speeds (t,).

        Returns:
            (t,), stamped with the tick that came; NaN for the first two.
        """
        found = np.full(len(latents), np.nan)
        if len(latents) < 3:
            return found
        z, taken = torch.from_numpy(latents), torch.from_numpy(actions).float()
        speed = torch.from_numpy(np.asarray(speeds_mps, np.float32))
        last = len(z) - 1
        step = Transition.of(model, z[: last - 1], z[1:last], z[2:], taken[1:last], speed[1:last])
        found[2:] = self(step).sigmoid().double().numpy()
        return found

    def save(self, path: Path, model: WorldModel, card: dict[str, Any]) -> None:
        """Write one .safetensors file (matrices in half precision) that names the model it belongs to."""
        header = {
            "format": FORMAT, "model": dynamics_digest(model), "config": json.dumps(asdict(self.config)),
            "card": json.dumps(card),
        }  # fmt: skip
        write_weights(path, self.state_dict(), header)

    @staticmethod
    def load(path: Path, model: WorldModel) -> TransitionCritic:
        """Read what `save` wrote.

        Raises:
            CheckpointError: no such file, not a critic, or one of another model.
        """
        again = "make it again with `python -m training.critic`"
        header, tensors = read_weights(path, FORMAT, again)
        if header["model"] != dynamics_digest(model):
            raise CheckpointError(f"{path} is of model {header['model']}, not of {dynamics_digest(model)}: {again}")
        critic = TransitionCritic(from_dict(CriticConfig, json.loads(header["config"])))
        critic.load_state_dict(tensors)
        return critic.eval()


def dynamics_digest(model: WorldModel) -> str:
    """Identity of encoder and predictor together: what a critic judges by."""
    h = hashlib.sha256(model.digest.encode())
    for tensor in model.predictor.state_dict().values():
        h.update(tensor.detach().cpu().float().numpy().tobytes())
    return h.hexdigest()[:12]


def critic_path(checkpoint: Path) -> Path:
    """Where the critic of a checkpoint lies: beside it."""
    return checkpoint.with_name(f"{checkpoint.stem}-critic.safetensors")


def critic_beside(checkpoint: Path, model: WorldModel) -> TransitionCritic | None:
    """The critic that lies beside a checkpoint; None where there is none, or one of other weights."""
    path = critic_path(checkpoint)
    if not path.exists():
        return None
    try:
        return TransitionCritic.load(path, model)
    except CheckpointError:
        return None
