"""What all joint-embedding rivals share: predict the next latent as the other rendering gives it.

They differ in what a good prediction is (`match`), where the target comes from (`targets`) and what keeps the latent
from collapsing (`regularise`). Inverse dynamics and behaviour are the same for all, with the shipped weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from drivesim.models.encoder import SlotEncoder
from drivesim.models.predictor import LatentPredictor, PredictorConfig
from training.batches import Batch
from training.objectives import InverseDynamics, scaled_action
from training.pretrain import PretrainConfig
from training.rivals.shaping import Sample, Shaper, Terms


class JointEmbedding(Shaper):
    """Squared error to a latent, with something against collapse."""

    def __init__(self, encoder: SlotEncoder, config: PretrainConfig) -> None:
        super().__init__(encoder, config)
        n, d = self.shape
        self.predictor = LatentPredictor(PredictorConfig(n, d, width=96, layers=1, members=1))
        self.inverse, self.behavior = InverseDynamics(n * d), InverseDynamics(n * d)

    def match(self, predicted: Tensor, target: Tensor) -> Tensor:
        """How far a prediction (b, n, d) is from its target."""
        return torch.as_tensor((predicted - target).square().mean())

    def targets(self, batch: Batch, latents: Tensor) -> Tensor:
        """What is to be predicted, of all pictures: the latents themselves, gradients and all."""
        return latents

    def regularise(self, latents: Tensor, groups: Tensor, generator: torch.Generator) -> Tensor:
        """What keeps latents (b, n, d) of clips from `groups` apart, weighted."""
        raise NotImplementedError

    def terms(self, sample: Sample, generator: torch.Generator) -> Terms:
        """Next tick and other look, branches, actions, spread."""
        batch, groups, config = sample.batch, sample.groups, self.config
        latents = self.encode(batch)
        targets = self.targets(batch, latents)
        b = len(groups)
        a0, a1, b1, b2 = latents[: 4 * b].view(4, b, *self.shape)
        _, _, other, later = targets[: 4 * b].view(4, b, *self.shape)
        predicted = self.predictor(a0, a1, batch.action[:, 1], batch.speed[:, 1])[0]
        parts = {"ahead": self.match(predicted, later), "across": self.match(a1, other)}
        parts["spread"] = 0.5 * (self.regularise(a1, groups, generator) + self.regularise(b2, groups, generator))
        smooth = nn.functional.smooth_l1_loss
        inverse = smooth(self.inverse(a0, a1), scaled_action(batch.action[:, 0]))
        inverse = inverse + smooth(self.inverse(b1, b2), scaled_action(batch.action[:, 1]))
        parts["inverse"] = config.inverse_weight * inverse
        parts["behavior"] = config.behavior_weight * smooth(self.behavior(a0, a1), scaled_action(batch.action[:, 1]))
        if batch.branch_action is not None:
            imagined = self.branch_futures(latents[4 * b :], batch.branch_action, batch.branch_speed)
            parts["caused"] = config.branch_weight * self.match(imagined, futures(targets[4 * b :]))
        return Terms(torch.stack(list(parts.values())).sum(), parts, torch.cat([a1, b2]))

    def branch_futures(self, latents: Tensor, actions: Tensor, speeds: Tensor) -> Tensor:
        """Imagine both branches (2 m, n, d) of states (4 m, n, d) under actions (2, m, p, 2); speeds (m,)."""
        m, steps = actions.shape[1:3]
        before, now = latents.view(4, m, *latents.shape[1:])[:2]
        previous, current = before.repeat(2, 1, 1), now.repeat(2, 1, 1)
        chosen, speed = actions.flatten(0, 1), speeds.repeat(2)
        for step in range(steps):
            previous, current = current, self.predictor(previous, current, chosen[:, step], speed)[0]
            speed = torch.relu(speed + 0.5 * chosen[:, step, 0])
        return torch.as_tensor(current)


def futures(latents: Tensor) -> Tensor:
    """The two futures (2 m, n, d) among the four pictures (4 m, n, d) of each branched state."""
    return latents[len(latents) // 2 :]
