"""MILE's way: the latent is shaped by a map from above. RIVAL: truth is the target here.

Where vehicles, walkers, the route and red stop lines are around the car, from the logs that the cache was made of; from
the encoded latent and from the one that was predicted for the next tick, with imitation beside, as MILE has it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.datatypes import ACTOR_WALKER, LIGHT_RED, Frame
from drivesim.logs import DriveLog
from drivesim.logs.truth import stop_lines_to_ego, to_ego
from drivesim.models.encoder import SlotEncoder
from drivesim.models.predictor import LatentPredictor, PredictorConfig
from training.clips import Clips
from training.objectives import InverseDynamics, scaled_action
from training.pretrain import PretrainConfig
from training.recording import logs_of
from training.rivals.shaping import RivalUnavailableError, Sample, Shaper, Terms

CELL_M = 2.0
X_M, Y_M = np.arange(-7.0, 41.0, CELL_M), np.arange(-15.0, 17.0, CELL_M)  # centres of cells, ego frame
CHANNELS = ("vehicle", "walker", "route", "red_line")
ROUTE_HALF_WIDTH_M, RARE_WEIGHT, BEHAVIOR_WEIGHT = 1.75, 5.0, 0.5


def seen_from_above(frame: Frame) -> NDArray[np.uint8]:
    """Occupancy (4, x, y) in {0, 1} of one frame: cells whose centre lies in a box, somewhat grown."""
    out = np.zeros((len(CHANNELS), len(X_M), len(Y_M)), np.uint8)
    x, y = np.meshgrid(X_M, Y_M, indexing="ij")
    poses, _ = to_ego(frame.ego, frame.actors)
    for pose, size, kind in zip(poses, frame.actors.size_m, frame.actors.kinds, strict=True):
        if abs(pose[0] - 17.0) < 32.0 and abs(pose[1]) < 24.0:
            out[1 if kind == ACTOR_WALKER else 0] |= inside(x, y, pose, size[0], size[1])
    points = frame.route.points_m
    if len(points):
        gap = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1]).min(-1)
        out[2] = gap < ROUTE_HALF_WIDTH_M
    red = frame.lights.states == LIGHT_RED
    for pose, half in zip(stop_lines_to_ego(frame.ego, frame.lights)[red], frame.lights.half_width_m[red], strict=True):
        out[3] |= inside(x, y, pose, 0.0, 2.0 * float(half))
    return out


def inside(
    x: NDArray[np.float64], y: NDArray[np.float64], pose: NDArray[np.float64], length: float, width: float
) -> NDArray[np.bool_]:
    """Cells within a box at pose (x, y, yaw), grown by half a cell's diagonal: nobody falls between cells."""
    half = 0.5 * CELL_M * 2.0**0.5
    c, s = np.cos(pose[2]), np.sin(pose[2])
    along, aside = c * (x - pose[0]) + s * (y - pose[1]), -s * (x - pose[0]) + c * (y - pose[1])
    within = (np.abs(along) < 0.5 * length + half) & (np.abs(aside) < 0.5 * width + half)
    return np.asarray(within)


def bev_of(clips: Clips, logs: Path | None, keep: Path) -> NDArray[np.uint8]:
    """Occupancy (N, 4, x, y) of a cache's ticks from its logs; kept at `keep`.

    Raises:
        RivalUnavailableError: there are no logs, or they are not those that the cache was made of.
    """
    if keep.exists():
        return np.load(keep, mmap_mode="r")  # type: ignore[no-any-return]
    paths = logs_of(logs) if logs is not None else []
    if not paths:
        raise RivalUnavailableError(f"bev: the cache holds no map, and there are no drive logs at {logs} (--logs)")
    rows = []
    for number in np.unique(clips.episode):
        own = np.flatnonzero(clips.episode == number)
        log = DriveLog(paths[number]) if number < len(paths) else None
        frames = [] if log is None or len(log) != len(own) else [log.frame(i) for i in range(len(log))]
        speeds = np.array([frame.ego.speed_mps for frame in frames])
        if not frames or not np.allclose(speeds, clips.table["speed"][own], atol=1e-3):
            raise RivalUnavailableError(f"bev: drive {number} of the logs at {logs} is not the one in the cache")
        rows += [seen_from_above(frame) for frame in frames]
    np.save(keep, np.array(rows))
    return np.array(rows)


class BirdsEyeView(Shaper):
    """Binary segmentation from above, now and for the next tick, and imitation."""

    branches = False

    def __init__(self, encoder: SlotEncoder, config: PretrainConfig, maps: NDArray[np.uint8]) -> None:
        super().__init__(encoder, config)
        n, d = self.shape
        self.maps = maps
        self.predictor = LatentPredictor(PredictorConfig(n, d, width=96, layers=1, members=1))
        self.above = nn.Sequential(nn.Linear(n * d, 256), nn.GELU(), nn.Linear(256, int(np.prod(maps.shape[1:]))))
        self.behavior = InverseDynamics(n * d)

    def terms(self, sample: Sample, generator: torch.Generator) -> Terms:
        """All four pictures, and what was predicted for the last."""
        batch, b = sample.batch, len(sample.groups)
        latents = self.encode(batch)
        a0, a1, _, b2 = latents.view(4, b, *self.shape)
        predicted = self.predictor(a0, a1, batch.action[:, 1], batch.speed[:, 1])[0]
        rows = np.concatenate([sample.rows + tick for tick in (0, 1, 1, 2)])
        taught = nn.functional.smooth_l1_loss(self.behavior(a0, a1), scaled_action(batch.action[:, 1]))
        parts = {
            "map": self.error(latents, rows), "map_ahead": self.error(predicted, sample.rows + 2),
            "behavior": BEHAVIOR_WEIGHT * taught,
        }  # fmt: skip
        return Terms(torch.stack(list(parts.values())).sum(), parts, torch.cat([a1, b2]))

    def error(self, latents: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """Cross-entropy of the cells; the few that are taken weigh more."""
        truth = torch.from_numpy(np.asarray(self.maps[rows])).float().flatten(1)
        weight = 1.0 + (RARE_WEIGHT - 1.0) * truth
        logits = self.above(latents.flatten(1))
        return nn.functional.binary_cross_entropy_with_logits(logits, truth, weight)
