"""The shipped objective in the rivals' loop, and what it loses without each of the simulator's two gifts."""

from __future__ import annotations

import torch
from torch import nn

from drivesim.models.encoder import SlotEncoder
from drivesim.models.predictor import LatentPredictor, PredictorConfig
from training.objectives import InverseDynamics, contrast, scaled_action, spread
from training.pretrain import PretrainConfig, Pretrainer
from training.rivals.pictures import DRIVE
from training.rivals.shaping import Sample, Shaper, Terms


class Contrastive(Shaper):
    """`training.pretrain.Pretrainer`, to the letter."""

    def __init__(self, encoder: SlotEncoder, config: PretrainConfig) -> None:
        super().__init__(encoder, config)
        self.inner = Pretrainer(encoder.config)
        self.inner.encoder = encoder

    def terms(self, sample: Sample, generator: torch.Generator) -> Terms:
        """All of its terms, unweighted as it logs them."""
        loss, metrics, latents = self.inner.loss(sample.batch, sample.groups, self.config, generator)
        parts = {name: value for name, value in metrics.items() if name != "loss"}
        return Terms(loss, parts, latents)


class WithoutBranches(Contrastive):
    """Ablation: no exact counterfactual branches, in stage one and in stage two."""

    branches = False


class WithoutCrossAppearance(Shaper):
    """Ablation: one rendering of each drive, so the target is the next tick as the same camera saw it.

    Branches are rendered in looks of their own and would betray what is ablated: compare it with `WithoutBranches`.
    """

    pictures, branches = DRIVE, False

    def __init__(self, encoder: SlotEncoder, config: PretrainConfig) -> None:
        super().__init__(encoder, config)
        n, d = self.shape
        self.predictor = LatentPredictor(PredictorConfig(n, d, width=96, layers=1, members=1))
        self.inverse, self.behavior = InverseDynamics(n * d), InverseDynamics(n * d)

    def terms(self, sample: Sample, generator: torch.Generator) -> Terms:
        """Two predictions where the shipped objective has one and the match of two looks."""
        batch, config = sample.batch, self.config
        z = self.encode(batch).view(4, len(sample.groups), *self.shape)
        parts = {}
        for name, t in (("ahead", 1), ("later", 2)):
            predicted = self.predictor(z[t - 1], z[t], batch.action[:, t], batch.speed[:, t])[0]
            parts[name], _ = contrast(predicted, z[t + 1])
        gaussian = 0.5 * (spread(z[1], sample.groups, generator) + spread(z[3], sample.groups, generator))
        parts["spread"] = config.spread_weight * gaussian
        smooth = nn.functional.smooth_l1_loss
        inverse = smooth(self.inverse(z[0], z[1]), scaled_action(batch.action[:, 0]))
        inverse = inverse + smooth(self.inverse(z[2], z[3]), scaled_action(batch.action[:, 2]))
        parts["inverse"] = config.inverse_weight * inverse
        parts["behavior"] = config.behavior_weight * smooth(
            self.behavior(z[0], z[1]), scaled_action(batch.action[:, 1])
        )
        return Terms(torch.stack(list(parts.values())).sum(), parts, torch.cat([z[1], z[3]]))
