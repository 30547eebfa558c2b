"""Behaviour cloning from scratch: the encoder learns nothing but what the expert did on its calm drives."""

from __future__ import annotations

import torch
from torch import Tensor

from drivesim.models.encoder import SlotEncoder
from drivesim.models.heads import ACCELERATION_BINS_MPS2, HeadConfig, TwoTowers
from training.heads import soft_bins
from training.pretrain import PretrainConfig
from training.rivals.shaping import Sample, Shaper, Terms


class Cloning(Shaper):
    """Cross-entropy of the expert's next acceleration, with the head that will drive."""

    branches = False

    def __init__(self, encoder: SlotEncoder, config: PretrainConfig) -> None:
        super().__init__(encoder, config)
        n, d = self.shape
        self.policy = TwoTowers(HeadConfig(latent_size=n * d), len(ACCELERATION_BINS_MPS2))

    def terms(self, sample: Sample, generator: torch.Generator) -> Terms:
        """Both moments of a clip that have a past."""
        b = len(sample.groups)
        a0, a1, b1, b2 = self.encode(sample.batch).view(4, b, *self.shape)
        parts = {"first": self.error(a0, a1, sample, 1), "second": self.error(b1, b2, sample, 2)}
        return Terms(parts["first"] + parts["second"], parts, torch.cat([a1, b2]))

    def error(self, previous: Tensor, current: Tensor, sample: Sample, tick: int) -> Tensor:
        """Where the expert drove; risky drives teach nothing."""
        table, rows = sample.clips.table, sample.rows + tick
        calm = torch.from_numpy(table["mode"][rows] == 0).float()
        logits = self.policy(torch.stack([previous, current], dim=1), torch.from_numpy(table["kinematics"][rows]))
        wanted = soft_bins(torch.from_numpy(table["action"][rows, 0]))
        surprise = -(wanted * logits.log_softmax(-1)).sum(-1)
        return torch.as_tensor((calm * surprise).sum() / calm.sum().clamp(min=1.0))
