"""The encoder: calibrated views to a few slots, each of which listens to one sector around the car.

Joint embedding only: nothing here, and nothing that trains it, ever produces a pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from drivesim.config import ConfigError
from drivesim.models.attention import Attention
from drivesim.models.change_slots import RAY_FEATURES, ChangeSlots
from drivesim.models.views import VIEW_HEIGHT_PX, VIEW_WIDTH_PX

# Sectors the slots listen to: azimuth (left positive), elevation, width; degrees. Dense ahead, where
# lights, leads and walkers decide; one wide slot per side and behind; two that hear everything.
SECTORS_DEG: tuple[tuple[float, float, float], ...] = (
    (-15.0, -2.0, 6.0), (-8.0, -2.0, 5.0), (-2.5, -2.5, 4.0), (2.5, -2.5, 4.0), (8.0, -2.0, 5.0), (15.0, -2.0, 6.0),
    (-7.0, 5.0, 6.0), (7.0, 5.0, 6.0), (0.0, -12.0, 9.0), (-24.0, -6.0, 9.0), (24.0, -6.0, 9.0),
    (-60.0, -6.0, 20.0), (60.0, -6.0, 20.0), (180.0, -6.0, 40.0), (0.0, 0.0, 400.0), (0.0, 0.0, 400.0),
)  # fmt: skip


# How far each glance's picture is moved to the right and down. The stem cuts it into squares of four pixels: half a
# square further what lay on a seam lies within one, and the mean of both latents has less of that chance in it.
GLANCES_PX: tuple[tuple[int, int], ...] = ((0, 0), (2, 2))


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the encoder.

    Raises:
        ConfigError: a number of glances that there is not.
    """

    stem: tuple[int, int, int] = (32, 48, 96)
    width: int = 128
    heads: int = 4
    latent_dim: int = 64
    fine_views: int = 2  # the first views, which look far ahead, give tokens of half the size
    things: int = 0  # slots for what may be there or not (`drivesim.models.change_slots`), behind those of the scene
    thing_width: int = 96
    stance: int = 0  # slots for how the car stands in its lane, behind those
    stance_width: int = 48
    glances: int = 1  # once trained, the mean latent of this many glances (1 or 2) is what counts, see `GLANCES_PX`

    def __post_init__(self) -> None:
        if not 1 <= self.glances <= len(GLANCES_PX):
            raise ConfigError(f"glances is {self.glances}: it is 1 or {len(GLANCES_PX)}")

    @property
    def slots(self) -> int:
        """Number of latent tokens."""
        return len(SECTORS_DEG) + self.things + self.stance

    @property
    def groups(self) -> tuple[int, ...]:
        """How many slots are the scene's, the things' and the stance's; those that there are."""
        return tuple(n for n in (self.slots - self.things - self.stance, self.things, self.stance) if n)


def sector_directions() -> tuple[Tensor, Tensor]:
    """Unit directions (n, 3) in the ego frame and angular widths (n,) in radians of all sectors."""
    table = torch.tensor(SECTORS_DEG) * (math.pi / 180.0)
    azimuth, elevation = table[:, 0], table[:, 1]
    directions = torch.stack(
        [elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()], dim=-1
    )
    return directions, table[:, 2]


class SlotEncoder(nn.Module):
    """Views with calibration -> latent slots (b, n, d)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        a, b, c = config.stem
        self.stem = nn.Sequential(
            nn.Conv2d(3, a, 4, stride=4), nn.BatchNorm2d(a), nn.ReLU(inplace=True),
            nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.last, self.last_norm = nn.Conv2d(b, c, 3, padding=1), nn.BatchNorm1d(c)
        width = config.width
        self.ray = nn.Sequential(nn.Linear(RAY_FEATURES, c // 2), nn.ReLU(), nn.Linear(c // 2, c))
        self.queries = nn.Parameter(torch.randn(len(SECTORS_DEG), width) * 0.1)
        self.cross_norm, self.cross = nn.LayerNorm(width), Attention(width, config.heads, c)
        self.self_norm, self.self_attention = nn.LayerNorm(width), Attention(width, config.heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.project = nn.Linear(width, 2 * width)
        self.project_norm = nn.BatchNorm1d(2 * width)
        self.project_out = nn.Linear(2 * width, config.latent_dim)
        self.latent_norm = nn.BatchNorm1d(len(SECTORS_DEG) * config.latent_dim, affine=False)
        self.things = ChangeSlots(c, config.things, config.latent_dim, config.thing_width) if config.things else None
        self.stance = ChangeSlots(c, config.stance, config.latent_dim, config.stance_width) if config.stance else None
        directions, widths = sector_directions()
        self.sector_directions: Tensor
        self.sector_widths: Tensor
        self.register_buffer("sector_directions", directions, persistent=False)
        self.register_buffer("sector_widths", widths, persistent=False)

    def forward(self, views: Tensor, intrinsics: Tensor, ego_from_camera: Tensor) -> Tensor:
        """`glance`; in evaluation the mean of `config.glances` of them."""
        if self.training or self.config.glances == 1:
            return self.glance(views, intrinsics, ego_from_camera)
        latents = []
        for right, down in GLANCES_PX[: self.config.glances]:
            center = intrinsics + intrinsics.new_tensor([0.0, 0.0, right, down])
            latents.append(self.glance(moved(views, right, down), center, ego_from_camera))
        return torch.stack(latents).mean(0)

    def glance(self, views: Tensor, intrinsics: Tensor, ego_from_camera: Tensor) -> Tensor:
        """Encode one tick per batch row.

        Args:
            views: (b, v, 3, 72, 128) uint8 or float in 0..255.
            intrinsics: (v, 4) or (b, v, 4) fx, fy, cx, cy in view pixels.
            ego_from_camera: (v, 3, 4) or (b, v, 3, 4).

        Returns:
            (b, n, d) latent slots, each dimension of zero mean and unit variance over training data.
        """
        seen, about, bias = self.places(views, intrinsics, ego_from_camera)
        latent = self.scene(seen, about, bias)
        beside = [part(seen, about).to(latent.dtype) for part in (self.things, self.stance) if part is not None]
        return torch.cat([latent, *beside], dim=1)

    def scene(self, seen: Tensor, about: Tensor, bias: Tensor) -> Tensor:
        """The scene's slots (b, n, d), from what `places` returns."""
        tokens = seen + self.ray(about)
        slots = self.queries.expand(len(seen), -1, -1)
        slots = slots + self.cross(self.cross_norm(slots), tokens, bias)
        normed = self.self_norm(slots)
        slots = slots + self.self_attention(normed, normed)
        slots = slots + self.mlp(self.mlp_norm(slots))
        hidden = self.project(slots)
        hidden = torch.relu(self.project_norm(hidden.flatten(0, 1)).view_as(hidden))
        latent = self.project_out(hidden)
        return torch.as_tensor(self.latent_norm(latent.flatten(1).float()).view_as(latent))

    def places(self, views: Tensor, intrinsics: Tensor, ego_from_camera: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is seen where: arguments as of `glance`.

        Returns:
            tokens (b, t, c), which do not know where they look; what is known of their rays (1 or b, t, 28); the
            slots' bias for sectors (b, n, t).
        """
        b, v = views.shape[:2]
        if intrinsics.ndim == 2:
            intrinsics, ego_from_camera = intrinsics[None], ego_from_camera[None]
        features = self.stem(normalize_views(views)).unflatten(0, (b, v))
        fine = min(self.config.fine_views, v)
        parts, about, biases = [], [], []
        for first, stop, stride in ((0, fine, 1), (fine, v, 2)):
            if first == stop:
                continue
            grid = nn.functional.conv2d(
                features[:, first:stop].flatten(0, 1), self.last.weight, self.last.bias, stride, padding=1
            )
            rows, columns = grid.shape[-2:]
            parts.append(grid.flatten(2).transpose(1, 2).reshape(b, (stop - first) * rows * columns, -1))
            inner, where = intrinsics[:, first:stop], ego_from_camera[:, first:stop]
            with torch.autocast(autocast_kind(views), enabled=False):  # angles need more than eight bits
                rays, origins = token_rays(inner, where, rows, columns)
                about.append(ray_features(rays, origins, inner, rows * columns))
                biases.append(self.sector_bias(rays))
        tokens, bias = torch.cat(parts, dim=1), torch.cat(biases, dim=2).expand(b, -1, -1)
        tokens = torch.relu(self.last_norm(tokens.flatten(0, 1))).view_as(tokens)
        return tokens, torch.cat(about, dim=1), bias

    def tokens_per_view(self, views: int) -> list[int]:
        """How many tokens each of so many views gives, in the order in which `places` has them."""
        rows, columns = VIEW_HEIGHT_PX // 8, VIEW_WIDTH_PX // 8
        return [
            rows * columns if view < self.config.fine_views else -(-rows // 2) * -(-columns // 2)
            for view in range(views)
        ]

    def sector_bias(self, rays: Tensor) -> Tensor:
        """Additive attention bias (b, n, tokens): how far each ray is from each slot's sector."""
        cosine = torch.einsum("btk,nk->bnt", rays, self.sector_directions).clamp(-1.0, 1.0)
        squared_angle = 2.0 * (1.0 - cosine)  # for small angles; saturates behind, as it should
        return -0.5 * squared_angle / self.sector_widths[None, :, None] ** 2


def moved(views: Tensor, right_px: int, down_px: int) -> Tensor:
    """Pictures (..., h, w) moved to the right and down; what comes in at the edges is what was there.

    The result lies in memory as the pictures do: an index would turn channels that lie side by side apart.
    """
    out, (height, width) = torch.empty_like(views), views.shape[-2:]
    out[..., down_px:, right_px:] = views[..., : height - down_px, : width - right_px]
    out[..., :down_px, right_px:] = views[..., :1, : width - right_px]
    out[..., :right_px] = out[..., right_px : right_px + 1]
    return out


def autocast_kind(views: Tensor) -> str:
    """The device type that decides on mixed precision; torch has none for tensors that hold nothing ("meta")."""
    return "cuda" if views.device.type == "cuda" else "cpu"


def normalize_views(views: Tensor) -> Tensor:
    """Per image and channel standardisation: exposure, white balance and weather carry no decision.

    (b, v, 3, h, w) -> (b * v, 3, h, w) float, channels last. Every second row and column gives the statistics.
    """
    flat = views.flatten(0, 1)
    sample = flat[:, :, ::2, ::2].float()
    variance, mean = torch.var_mean(sample, dim=(2, 3), keepdim=True)
    where = autocast_kind(views)
    kind = torch.get_autocast_dtype(where) if torch.is_autocast_enabled(where) else torch.float32
    level = flat.to(kind, memory_format=torch.channels_last, copy=True)  # 0..255 is exact in bfloat16
    return level.sub_(mean.to(kind)).mul_((1.0 / (variance.sqrt() + 8.0)).to(kind))


def token_rays(intrinsics: Tensor, ego_from_camera: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Unit rays (b, v * rows * columns, 3) of the token centres in the ego frame, camera centres (b, v, 3) m."""
    device = intrinsics.device
    y = (torch.arange(rows, device=device) + 0.5) * (VIEW_HEIGHT_PX / rows) - 0.5
    x = (torch.arange(columns, device=device) + 0.5) * (VIEW_WIDTH_PX / columns) - 0.5
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    fx, fy, cx, cy = (intrinsics[..., i, None] for i in range(4))
    ones = torch.ones((*fx.shape[:-1], rows * columns), device=device)
    direction = torch.stack([(grid_x.flatten() - cx) / fx, (grid_y.flatten() - cy) / fy, ones], dim=-1)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    rotated = torch.einsum("bvij,bvtj->bvti", ego_from_camera[..., :3], direction)
    return rotated.flatten(1, 2), ego_from_camera[..., 3]


def ray_features(rays: Tensor, origins: Tensor, intrinsics: Tensor, tokens_per_view: int) -> Tensor:
    """Fourier features of ray directions with camera centre and focal length: (b, tokens, 28)."""
    waves = [rays]
    for octave in (1.0, 2.0, 4.0):
        waves += [torch.sin(math.pi * octave * rays), torch.cos(math.pi * octave * rays)]
    waves.append(rays * rays)
    focal = torch.log(intrinsics[..., :1] / VIEW_WIDTH_PX).expand(len(origins), -1, -1)
    camera = torch.cat([origins * 0.5, focal], dim=-1).repeat_interleave(tokens_per_view, dim=1)
    return torch.cat([*waves, camera], dim=-1)
