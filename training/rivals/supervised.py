"""Upper control: the encoder is taught what the read-out probes will ask. RIVAL: truth is the target here."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.models.encoder import SlotEncoder
from drivesim.models.heads import READOUTS
from training.clips import Clips
from training.pretrain import PretrainConfig
from training.rivals.shaping import Sample, Shaper, Terms

UNITS = {"lead_gap": 10.0, "lead_speed": 4.0, "lateral": 0.5, "heading": 0.1, "speed": 4.0, "curvature": 0.03}


class Supervised(Shaper):
    """Truth of a tick from the latents of it and of the tick before, in either look."""

    branches = False

    def __init__(self, encoder: SlotEncoder, config: PretrainConfig) -> None:
        super().__init__(encoder, config)
        n, d = self.shape
        self.read = nn.Sequential(nn.Linear(2 * n * d, 128), nn.GELU(), nn.Linear(128, len(READOUTS)))

    def terms(self, sample: Sample, generator: torch.Generator) -> Terms:
        """The same at both moments that have a past."""
        b = len(sample.groups)
        a0, a1, b1, b2 = self.encode(sample.batch).view(4, b, *self.shape)
        parts = {
            "first": readout_error(self.read(torch.cat([a0, a1], dim=1).flatten(1)), sample.clips, sample.rows + 1),
            "second": readout_error(self.read(torch.cat([b1, b2], dim=1).flatten(1)), sample.clips, sample.rows + 2),
        }
        return Terms(parts["first"] + parts["second"], parts, torch.cat([a1, b2]))


def readout_error(out: Tensor, clips: Clips, rows: NDArray[np.int64]) -> Tensor:
    """Smooth L1 of quantities (of a lead only where there is one) and cross-entropy of detections; out (b, 9)."""
    total = torch.zeros(())
    present = torch.from_numpy(clips.table["lead_present"][rows])
    for column, name in enumerate(READOUTS):
        truth = torch.from_numpy(clips.table[name][rows])
        if name not in UNITS:
            total = total + nn.functional.binary_cross_entropy_with_logits(out[:, column], truth)
            continue
        weight = present if name.startswith("lead") else torch.ones_like(present)
        error = nn.functional.smooth_l1_loss(out[:, column] / UNITS[name], truth / UNITS[name], reduction="none")
        total = total + (weight * error).sum() / weight.sum().clamp(min=1.0)
    return total
