"""What the studies of a frozen world model share: its latents, a probe on them, and the held-out drives.

Everything is standardised as the checkpoint says, so imagined and encoded latents are of one kind.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.models import SHIPPED, WorldModel
from drivesim.runs import code_version
from eval.probes import (
    DETECTIONS,
    REGRESSIONS,
    Probe,
    branch_targets,
    drives_of,
    fit_probe,
    probe_net,
    target_table,
)
from eval.representation import test_caches
from training.clips import Clips
from training.heads import with_past
from training.latents import encode_as


def study_probe(model: WorldModel, train: Clips, rows: int, seed: int, keep: Path) -> Probe:
    """The studies' probe: fitted on training drives in both looks and on branches; read from `keep` where it is there.

    Args:
        rows: ticks it is fitted on; a sixth as many branched states join them.
        keep: file for this checkpoint, these sizes and this seed.
    """
    if keep.exists():
        kept = torch.load(keep, weights_only=True)
        net = probe_net(model.config.encoder.groups, model.mean.shape[-1])
        net.load_state_dict(kept["net"])
        return Probe(net.eval(), kept["mean"], kept["scale"], kept["shares"])
    rng = np.random.default_rng(seed)
    ticks = np.sort(rng.permutation(with_past(train))[:rows])
    branches = np.sort(rng.permutation(train.branched())[: rows // 6])
    pairs = []
    for views, cameras in ((train.views_a, train.cameras_a), (train.views_b, train.cameras_b)):
        both = [encode_as(model, views, train.intrinsics, cameras, shown) for shown in (ticks - 1, ticks)]
        pairs.append(torch.stack(both, dim=1))
    futures = encode_branches(model, train, branches)
    pairs.append(torch.stack([futures[:, :, :-1], futures[:, :, 1:]], dim=3).flatten(0, 2))
    targets, weights = target_table(train.table, ticks)
    more, more_weights = branch_targets(train, branches)
    probe = fit_probe(
        torch.cat(pairs), torch.cat([targets, targets, more]), torch.cat([weights, weights, more_weights]), seed,
        groups=model.config.encoder.groups, drives=drives_of(train, ticks, branches),
    )  # fmt: skip
    keep.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"net": probe.net.state_dict(), "mean": probe.mean, "scale": probe.scale, "shares": probe.shares}, keep)
    return probe


def encode_rows(model: WorldModel, clips: Clips, rows: NDArray[np.int64]) -> Tensor:
    """Latents (m, n, d) of ticks in their drive's own look."""
    return encode_as(model, clips.views_a, clips.intrinsics, clips.cameras_a, rows)


def encode_branches(model: WorldModel, clips: Clips, chosen: NDArray[np.int64]) -> Tensor:
    """Latents (m, 2, h, n, d) of what branches of some states really led to."""
    shape = clips.branch_views.shape
    flat = clips.branch_views.reshape(-1, *shape[3:])
    rows = (chosen[:, None] * 2 * shape[2] + np.arange(2 * shape[2])).reshape(-1)
    latents = encode_as(model, flat, clips.intrinsics, clips.cameras_a, rows)
    return latents.view(len(chosen), 2, shape[2], *latents.shape[1:])


@dataclass(frozen=True)
class HeldOut:
    """Drives on towns never trained on: their logs, and their caches in seen and in unseen weather."""

    logs: list[Path]
    seen: Clips
    unseen: Clips

    def place(self, row: int) -> tuple[int, int]:
        """Number of the log and tick in it of a row of the caches."""
        number = int(self.seen.episode[row])
        return number, row - int(np.searchsorted(self.seen.episode, number))


def held_out(folder: Path, drives: int, workers: int) -> HeldOut:
    """The caches of `eval.representation`: opened where they are whole, else recorded and rendered."""
    names = ("seen_weather", "unseen_weather")
    if all((folder / name / "complete").exists() for name in names):
        caches = {name: Clips.load(folder / name) for name in names}
    else:
        caches = test_caches(folder, drives, workers)
    logs = sorted((folder / "logs").glob("*.zarr"))
    if len(logs) <= int(caches["seen_weather"].episode.max()):
        raise FileNotFoundError(f"{folder}/logs has {len(logs)} drives, its cache was made of more: make it again")
    return HeldOut(logs, caches["seen_weather"], caches["unseen_weather"])


def spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the rows, evenly over all of them."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))] if len(rows) > count else rows


def first_drives(clips: Clips, rows: NDArray[np.int64], drives: int) -> NDArray[np.int64]:
    """Rows of the first drives alone."""
    return rows[np.isin(clips.episode[rows], np.unique(clips.episode)[:drives])]


def column_of(name: str) -> int:
    """Where the probe answers a target."""
    return (*REGRESSIONS, *DETECTIONS).index(name)


def study_parser(description: str | None, out: str) -> argparse.ArgumentParser:
    """The options that these studies share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder that `drivesim train` wrote; the probe is fitted on its cache")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="world model; the shipped one by default")
    parser.add_argument("--held-out", type=Path, default=Path("runs/representation"), help="drives that judge")
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--drives", type=int, default=60, help="held-out drives")
    parser.add_argument("--probe-rows", type=int, default=6000, help="training ticks that the probe is fitted on")
    parser.add_argument("--workers", type=int, default=2, help="processes, where drives must be recorded first")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def plain(value: Any) -> Any:
    """An option as JSON knows it: paths as text, also inside of lists."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def provenance(study: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a study's JSON says of how it was made."""
    weights = hashlib.sha256(Path(options.checkpoint).read_bytes()).hexdigest()[:16]  # not the encoder's digest alone
    return {
        "study": study, "checkpoint_sha256": weights, "command": f"python -m eval.{study}", "commit": code_version(),
        "options": {key: plain(value) for key, value in vars(options).items()},
    }  # fmt: skip
