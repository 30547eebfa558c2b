"""Lower controls: an encoder that was never trained, and none at all."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from drivesim.models.encoder import SlotEncoder
from training.clips import Clips, episode_batches
from training.pretrain import PretrainConfig
from training.rivals.pictures import PAIR, read_pictures, ticks


@torch.no_grad()
def scale(encoder: SlotEncoder, clips: Clips, config: PretrainConfig, seed: int) -> None:
    """Batch statistics alone, so that an untrained encoder is at least scaled like a trained one."""
    encoder.train()
    visible = np.arange(len(clips.intrinsics))
    for step in range(20):
        rng = np.random.default_rng([seed, step])
        rows, _ = next(episode_batches(clips.starts(ticks(PAIR)), clips.episode, config.episodes, config.clips, rng))
        batch = read_pictures(clips, rows, visible, PAIR)
        encoder(batch.views, batch.intrinsics[None], batch.cameras)


class Blind(SlotEncoder):
    """Sees nothing: latents of zeros. What is left are the heads' kinematic towers."""

    def forward(self, views: Tensor, intrinsics: Tensor, ego_from_camera: Tensor) -> Tensor:
        """(b, n, d) zeros."""
        return torch.zeros(len(views), self.config.slots, self.config.latent_dim)
