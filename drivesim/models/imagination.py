"""The world model asked for many drives at once: numpy in, numpy out, one row per drive.

What the latent world and its batched planners need; `WorldModel` itself answers for one drive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.datatypes import CameraRig, EgoState
from drivesim.models.heads import READOUTS, expected_acceleration
from drivesim.models.world_model import WorldModel

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Imagination:
    """A world model with batched questions (`drivesim.worlds.latent_world.ImaginationCore`)."""

    model: WorldModel

    @property
    def digest(self) -> str:
        """Identity of the encoder."""
        return self.model.digest

    @property
    def readouts(self) -> tuple[str, ...]:
        """Names of the columns of `read`."""
        return READOUTS

    def encode(self, images: NDArray[np.uint8], rig: CameraRig, ego: EgoState) -> Floats:
        """One tick's pictures (v, h, w, 3) to a standardised latent (n, d)."""
        return self.model.encode(images, rig, ego).tokens

    @torch.no_grad()
    def rollout(
        self, previous: Floats, current: Floats, actions: NDArray[np.float64], speed_mps: NDArray[np.float64]
    ) -> tuple[Floats, Floats]:
        """Imagine (b, p, n, d), and the members' disagreement (b, p), from latents (b, n, d).

        Args:
            actions: (b, p, 2), each held for half a second.
            speed_mps: (b,) now.
        """
        imagined, doubt = self.model.predictor.rollout(
            _tensor(previous), _tensor(current), torch.from_numpy(actions).float(), torch.from_numpy(speed_mps).float()
        )
        return np.asarray(imagined.numpy()), np.asarray(doubt.numpy())

    @torch.no_grad()
    def risks(self, anchor: Floats, imagined: Floats, kinematics: Floats) -> Floats:
        """Calibrated probabilities (b, 3) of collision, near miss and red light.

        Args:
            anchor: (b, n, d) latents from which it was imagined.
            imagined: (b, n, d) the moments asked about.
            kinematics: (b, 16) of those moments (`drivesim.planning.kinematics.imagined_kinematics`).
        """
        logits = self.model.risk(torch.stack([_tensor(anchor), _tensor(imagined)], dim=1), _tensor(kinematics))
        return np.asarray((logits / self.model.risk_temperature).sigmoid().numpy())

    @torch.no_grad()
    def read(self, previous: Floats, current: Floats) -> Floats:
        """What the probe reads from the last two latents: (b, columns of `readouts`); detections as logits."""
        pair = torch.stack([_tensor(previous), _tensor(current)], dim=1)
        return np.asarray(self.model.read(pair, torch.zeros(len(pair), 16)).numpy())

    @torch.no_grad()
    def acceleration(self, previous: Floats, current: Floats, kinematics: Floats, head: str) -> NDArray[np.float64]:
        """Mean acceleration (b,) in m/s2 of a policy head ("policy" or "clone")."""
        asked: nn.Module = getattr(self.model, head)
        logits = asked(torch.stack([_tensor(previous), _tensor(current)], dim=1), _tensor(kinematics))
        return np.asarray(expected_acceleration(logits).double().numpy())


def _tensor(values: Floats) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
