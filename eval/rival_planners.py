"""The rivals of a study as planners, by name: `eval.rival_planners:tokens_1` is rival "tokens" of training seed 1.

The study's folder is in the environment, for the processes that drive.
"""

from __future__ import annotations

import os
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from drivesim.interfaces import Planner
from drivesim.models import WorldModel
from drivesim.planning.behavior_cloning import PolicyPlanner
from drivesim.planning.latent_planner import LatentPlanner
from training.rivals.model import load_rival
from training.rivals.table import RIVALS
from training.rivals.training import CHECKPOINT

FOLDER = "DRIVESIM_RIVALS"
# Not trained for themselves: a head or a planner on somebody else's checkpoint.
DERIVED = {"cloning-frozen": ("contrastive", "clone"), "policy-frozen": ("contrastive", "policy")}


def run_of(out: Path, rival: str, seed: int) -> Path:
    """A rival's run in a study's folder."""
    return out / "runs" / rival / str(seed)


def planner_name(rival: str, seed: int) -> str:
    """What `drivesim.build.make_planner` knows it by."""
    return f"eval.rival_planners:{rival}_{seed}"


def source_of(rival: str) -> tuple[str, str]:
    """Whose checkpoint drives, and how: "latent", or the head of a policy.

    Raises:
        KeyError: no such rival.
    """
    return DERIVED[rival] if rival in DERIVED else (rival, RIVALS[rival].planner)


@lru_cache(maxsize=2)
def _model(path: Path) -> WorldModel:
    return load_rival(path)


def drive_with(rival: str, seed: int) -> Planner:
    """A fresh planner on a rival's checkpoint.

    Raises:
        CheckpointError: it was not trained in the folder that the environment names.
    """
    source, how = source_of(rival)
    path = run_of(Path(os.environ.get(FOLDER, "runs/rivals")), source, seed) / "checkpoints" / CHECKPOINT
    model, name = _model(path), f"{rival}_{seed}"
    return LatentPlanner(model, name=name) if how == "latent" else PolicyPlanner(model, name, how)


def __getattr__(name: str) -> Any:
    rival, _, seed = name.rpartition("_")
    if seed.isdigit() and (rival in RIVALS or rival in DERIVED):
        return partial(drive_with, rival, int(seed))
    raise AttributeError(name)
