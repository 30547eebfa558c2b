"""A small head that answers at once what a search would choose: taught by the search, on one encoder's latents.

It lives in a file of its own beside the checkpoint that it was distilled from, and says of which encoder it is: latents
of another one mean nothing to it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.config import from_dict
from drivesim.models.heads import KINEMATICS, HeadConfig, TwoTowers
from drivesim.models.weights_file import CheckpointError, read_weights, write_weights

FORMAT = "drivesim-distilled-1"


@dataclass(frozen=True)
class DistilledConfig:
    """Sizes of the towers, and the profiles to choose from: every first phase with every second one, m/s2.

    Without second ones the first phase is held.
    """

    heads: HeadConfig = field(default_factory=HeadConfig)
    first_mps2: tuple[float, ...] = (-6.0, -3.5, -2.0, -1.0, 0.0, 1.0, 2.0)
    then_mps2: tuple[float, ...] = (-3.0, 0.0, 1.0)


def distilled_path(checkpoint: Path) -> Path:
    """Where the distilled policy of a checkpoint lies."""
    real = checkpoint.resolve()  # a run's `last` is a link
    return real.with_name(f"{real.stem}-distilled.safetensors")


PRIOR = 3  # the mean and the band of the policy's acceleration, from which the search sets out


class DistilledPolicy(nn.Module):
    """Latents, own motion, eagerness and the policy's answer to the accelerations of a plan's two phases, m/s2."""

    def __init__(self, config: DistilledConfig, encoder_digest: str) -> None:
        super().__init__()
        self.config, self.encoder_digest = config, encoder_digest
        self.teacher: dict[str, Any] = {}  # the configuration of the planner that taught it
        choices = len(config.first_mps2) * max(1, len(config.then_mps2))
        self.tower = TwoTowers(config.heads, choices, kinematics=KINEMATICS + 1 + PRIOR)

    def forward(self, latents: Tensor, kinematics: Tensor, eager: Tensor, prior: Tensor) -> Tensor:
        """Log-probabilities (b, first, then) of the profiles.

        Args:
            latents: (b, 2, n, d) half a second ago and now; kinematics (b, KINEMATICS).
            eager: (b,) factor on progress, from one up.
            prior: (b, PRIOR) mean and band of the policy's acceleration, m/s2.
        """
        known = torch.cat([kinematics, eager.log()[:, None], prior / 3.0], dim=-1)
        logits = self.tower(latents, known).log_softmax(-1)
        return torch.as_tensor(logits.view(len(latents), len(self.config.first_mps2), -1))

    @torch.no_grad()
    def phases(
        self, context: NDArray[np.float32], kinematics: NDArray[np.float32], eager: float, prior: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Accelerations (2,) of first second and rest, for context (2, n, d), kinematics (16,) and prior (PRIOR,)."""
        told = self(
            torch.from_numpy(context)[None], torch.from_numpy(kinematics)[None], torch.tensor([float(eager)]),
            torch.from_numpy(prior).float()[None],
        )  # fmt: skip
        return np.asarray(around_the_peak(told, self.config)[0].double().numpy())

    def save(self, path: Path, card: dict[str, Any]) -> None:
        """Write one .safetensors file (half precision) with config, encoder and card in its header."""
        header = {
            "format": FORMAT, "encoder": self.encoder_digest, "config": json.dumps(asdict(self.config)),
            "card": json.dumps(card),
        }  # fmt: skip
        write_weights(path, self.state_dict(), header)

    @staticmethod
    def load(path: Path, encoder_digest: str) -> DistilledPolicy:
        """Read what `save` wrote.

        Raises:
            CheckpointError: no such file, not a distilled policy, or one of another encoder than `encoder_digest`.
        """
        again = "make it with `python -m training.distill RUN --checkpoint` and the checkpoint's path"
        header, tensors = read_weights(path, FORMAT, again)
        if header["encoder"] != encoder_digest:
            raise CheckpointError(
                f"{path} was distilled on the latents of encoder {header['encoder']}, not of {encoder_digest}: {again}"
            )
        policy = DistilledPolicy(from_dict(DistilledConfig, json.loads(header["config"])), encoder_digest)
        policy.load_state_dict(tensors)
        policy.teacher = json.loads(header.get("card", "{}")).get("planner", {})
        return policy.eval()


def around_the_peak(log_probabilities: Tensor, config: DistilledConfig) -> Tensor:
    """Accelerations (b, 2) of distributions (b, first, then): the likeliest profile, drawn towards its neighbours.

    A search either brakes or goes on; the mean of both, which a distribution torn between them has, it never chooses.
    """
    first, then = torch.tensor(config.first_mps2), torch.tensor(config.then_mps2)
    best = log_probabilities.flatten(1).argmax(-1)
    row, column = best // max(1, len(then)), best % max(1, len(then))
    weight = log_probabilities.exp()[torch.arange(len(best)), :, column]  # of the first phases, the second one given
    weight = weight * ((torch.arange(len(first)) - row[:, None]).abs() <= 1)
    mean = (weight * first).sum(-1) / weight.sum(-1)
    return torch.stack([mean, then[column] if len(then) else mean], dim=-1)
