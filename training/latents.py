"""Frozen latents of a cache: every picture encoded once, kept beside the run, read in a checkpoint's own units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.models import WorldModel
from drivesim.models.encoder import SlotEncoder
from training.clips import Clips

BATCH = 64
SAME_LATENT = 0.05  # mean squared difference below which kept latents are the model's own
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Latents:
    """Frozen, standardised latents of a cache.

    Attributes:
        a, b: (N, n, d) float32 of the two appearances.
        branch: (M, 2, h, n, d).
        mean, scale: (n, d) of the standardisation.
    """

    a: Tensor
    b: Tensor
    branch: Tensor
    mean: Tensor
    scale: Tensor

    def in_units(self, mean: Tensor, scale: Tensor) -> Latents:
        """The same latents, standardised by somebody else's mean and scale (n, d)."""
        a, b, branch = ((x * self.scale + self.mean - mean) / scale for x in (self.a, self.b, self.branch))
        return Latents(a, b, branch, mean, scale)


@torch.no_grad()
def encode_pictures(
    encoder: SlotEncoder, views: NDArray[np.uint8], intrinsics: NDArray[np.float32], cameras: NDArray[np.float32],
    rows: NDArray[np.int64] | None = None,
    on_progress: Callable[[float], None] | None = None, device: torch.device = CPU,
) -> Tensor:  # fmt: skip
    """Pictures to latents (m, n, d), as the encoder on `device` says them.

    Args:
        views: (N, v, h, w, 3) uint8, on disk or in memory.
        intrinsics: (v, 4) fx, fy, cx, cy in pixels.
        cameras: (v, 3, 4) ego from camera, or (N, v, 3, 4) where every row has its own.
        rows: (m,) which pictures; all of them when None. They are read one by one: of an array on disk a fancy index
            would page in far more.
    """
    count = len(views) if rows is None else len(rows)
    inner, out = torch.from_numpy(intrinsics).to(device), []
    for first in range(0, count, BATCH):
        part = slice(first, first + BATCH) if rows is None else rows[first : first + BATCH]
        read = views[part] if isinstance(part, slice) else np.stack([views[int(row)] for row in part])
        picture = torch.from_numpy(np.array(read)).to(device).permute(0, 1, 4, 2, 3)
        where = cameras if cameras.ndim == 3 else cameras[part]
        kept = inner if cameras.ndim == 3 else inner.expand(len(picture), -1, -1)
        out.append(encoder(picture, kept, torch.from_numpy(np.array(where)).to(device)).cpu())
        if on_progress is not None:
            on_progress(first / count)
    if not out:
        return torch.zeros(0, encoder.config.slots, encoder.config.latent_dim)
    return torch.cat(out)


def encode_clips(
    clips: Clips, encoder: SlotEncoder, on_progress: Callable[[float], None] | None = None, device: torch.device = CPU
) -> Latents:
    """Encode every picture of a cache once, on a device; standardise by the training ticks of both appearances."""
    encoder.eval().to(device)

    def run(views: NDArray[np.uint8], cameras: NDArray[np.float32], first: float, last: float) -> Tensor:
        def tell(share: float) -> None:
            if on_progress is not None:
                on_progress(first + (last - first) * share)

        return encode_pictures(encoder, views, clips.intrinsics, cameras, on_progress=tell, device=device)

    a = run(clips.views_a, clips.cameras_a, 0.0, 0.35)
    b = run(clips.views_b, clips.cameras_b, 0.35, 0.7)
    states, _, steps = clips.branch_views.shape[:3]
    branch = run(clips.branch_views.reshape(-1, *clips.branch_views.shape[3:]), clips.cameras_a, 0.7, 1.0)
    branch = branch.reshape(states, 2, steps, *branch.shape[1:])
    encoder.cpu()
    both = torch.cat([a, b])
    mean, scale = both.mean(0), both.std(0).clamp(min=1e-3)
    return Latents((a - mean) / scale, (b - mean) / scale, (branch - mean) / scale, mean, scale)


def encode_as(
    model: WorldModel, views: NDArray[np.uint8], intrinsics: NDArray[np.float32], cameras: NDArray[np.float32],
    rows: NDArray[np.int64] | None = None,
) -> Tensor:  # fmt: skip
    """As `encode_pictures`, standardised as the checkpoint says."""
    return (encode_pictures(model.encoder, views, intrinsics, cameras, rows) - model.mean) / model.scale


def save_latents(path: Path, latents: Latents) -> None:
    """Keep the encoded cache, so that a resumed run need not encode again."""
    partial = path.with_suffix(".partial")
    torch.save({key: getattr(latents, key) for key in ("a", "b", "branch", "mean", "scale")}, partial)
    partial.replace(path)


def load_latents(path: Path) -> Latents:
    """Inverse of `save_latents`; tensors only."""
    return Latents(**torch.load(path, weights_only=True))


def kept_latents(model: WorldModel, clips: Clips, path: Path) -> Latents | None:
    """The latents that a training run kept, if they are this model's and this cache's."""
    if not path.exists():
        return None
    latents = load_latents(path)
    if len(latents.a) != len(clips.episode) or latents.a.shape[1:] != model.mean.shape:
        return None
    rows = np.unique(np.linspace(0, len(clips.episode) - 1, 8).astype(np.int64))
    own = encode_as(model, clips.views_a, clips.intrinsics, clips.cameras_a, rows)
    return latents if float((own - latents.a[rows]).square().mean()) < SAME_LATENT else None


def latents_of(
    model: WorldModel, clips: Clips, kept: Path, on_progress: Callable[[float], None] | None = None
) -> Latents:
    """The cache by the checkpoint's own encoder, in its units: what the run kept, or encoded here."""
    found = kept_latents(model, clips, kept)
    return found or encode_clips(clips, model.encoder, on_progress).in_units(model.mean, model.scale)
