"""From a latent back to pictures. RIVALS ONLY: nowhere else in this repository is a pixel a target."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from drivesim.models.attention import Attention
from drivesim.models.encoder import normalize_views, ray_features, token_rays
from drivesim.models.views import VIEW_HEIGHT_PX, VIEW_WIDTH_PX
from training.batches import Batch

PATCH_PX = 8
ROWS, COLUMNS = VIEW_HEIGHT_PX // PATCH_PX, VIEW_WIDTH_PX // PATCH_PX


class ViewDecoder(nn.Module):
    """Each patch of a view asks the slots what is seen along its ray: (b, n, d) -> (b, 3, 72, 128)."""

    def __init__(self, latent_dim: int, width: int = 96) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Linear(28, width), nn.ReLU(), nn.Linear(width, width))
        self.attention = Attention(width, 4, latent_dim)
        self.norm = nn.LayerNorm(width)
        self.paint = nn.Sequential(nn.Linear(width, 192), nn.GELU(), nn.Linear(192, 3 * PATCH_PX**2))

    def forward(self, latents: Tensor, intrinsics: Tensor, ego_from_camera: Tensor) -> Tensor:
        """latents (b, n, d), intrinsics (b, 1, 4), ego_from_camera (b, 1, 3, 4): one view of each row."""
        rays, origins = token_rays(intrinsics, ego_from_camera, ROWS, COLUMNS)
        asked = self.query(ray_features(rays, origins, intrinsics, ROWS * COLUMNS))
        found = asked + self.attention(asked, latents)
        patches = self.paint(self.norm(found)).transpose(1, 2).unflatten(2, (ROWS, COLUMNS))
        return nn.functional.pixel_shuffle(patches, PATCH_PX)


def picture_error(
    decoder: ViewDecoder, latents: Tensor, batch: Batch, rows: Tensor, generator: torch.Generator, views: int = 2
) -> Tensor:
    """Mean squared error of some views, drawn anew for each picture, in units of the picture's own contrast.

    Args:
        latents: (b, n, d) that should show the pictures `rows` (b,) of the batch.
    """
    total = torch.zeros(())
    count = batch.views.shape[1]
    for _ in range(views):
        view = torch.randint(count, (len(rows),), generator=generator)
        target = normalize_views(batch.views[rows, view][:, None])
        with torch.autocast("cpu", enabled=False):
            inner, where = batch.intrinsics[view][:, None], batch.cameras[rows, view][:, None]
            shown = decoder(latents.float(), inner, where)
            total = total + (shown - target.float()).square().mean()
    return total / views
