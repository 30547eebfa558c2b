"""The fidelity study's planners in imagination: one drive from each start that nothing stops, with its risks kept.

out/<planner>.npz   all drives of one planner: what `drivesim.suite.expectation` scores, and how far to trust it
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.build import BATCH_PLANNERS
from drivesim.interfaces import Planner
from drivesim.models.imagination import Imagination
from drivesim.suite.expectation import Trace, traces
from drivesim.suite.imagined import LoggedWorld
from drivesim.suite.imagining import Everybody, OneByOne, drive_batch
from drivesim.suite.trust import Trust
from drivesim.worlds.imagined_batch import ImaginationConfig

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
TRUSTED = Trust(0.0, 0.0, 0.0, "")
ON_AND_ON = ImaginationConfig(ends_at_collision=False, strikes=False, news=1.0)
FROM_THE_START_ALONE = replace(ON_AND_ON, news=0.0)


@dataclass(frozen=True)
class Drives:
    """One planner's drives, in the order of the starts.

    Attributes:
        traces, trusts: one for each start.
        simulated_s, wall_s: of all together, planning included.
    """

    traces: list[Trace]
    trusts: list[Trust]
    simulated_s: float
    wall_s: float


class Standstill:
    """The control: nothing is imagined. The latent stays what it was, and nobody is ever hit.

    What fidelity is left is that of analytic ego motion and of the route alone: progress tells planners apart
    without any vision, so a latent world has to be better than this.
    """

    def __init__(self, model: Imagination) -> None:
        self._model = model
        self.digest, self.readouts = model.digest, model.readouts

    def rollout(self, previous: Floats, current: Floats, actions: Array, speed_mps: Array) -> tuple[Floats, Floats]:
        """The same latents."""
        steps = actions.shape[1]
        return np.repeat(current[:, None], steps, axis=1), np.zeros((len(current), steps), np.float32)

    def risks(self, anchor: Floats, imagined: Floats, kinematics: Floats) -> Floats:
        """None."""
        return np.zeros((len(anchor), 3), np.float32)

    def read(self, previous: Floats, current: Floats) -> Floats:
        """What was there at the start."""
        return self._model.read(previous, current)

    def acceleration(self, previous: Floats, current: Floats, kinematics: Floats, head: str) -> Array:
        """Of the same policy."""
        return self._model.acceleration(previous, current, kinematics, head)


def imagine(
    world: LoggedWorld, name: str, make: Callable[[], Planner], out: Path, weights: str, sight: Any,
    how: ImaginationConfig = ON_AND_ON, control: Standstill | None = None,
) -> Drives:  # fmt: skip
    """One planner from all starts in imagination; read where it was driven before with the same weights.

    Args:
        sight: the world model whose eyes the imagined latents are.
        control: drive in this instead of the model; nothing is asked about trust then.
    """
    path, ids = out / f"{name}.npz", list(world.starts)
    stamp = json.dumps([weights, asdict(world.config), ids, how.news, how.news_reach_m])
    kept = _kept(path, stamp)
    if kept is not None:
        return kept
    runner = Everybody(BATCH_PLANNERS[name](world.model)) if name in BATCH_PLANNERS else OneByOne(name, make, sight)
    found: list[Trace] = []
    trusts: list[Trust] = []
    simulated_s = wall_s = 0.0
    for first in range(0, len(ids), world.config.batch):
        piece = ids[first : first + world.config.batch]
        imagined = drive_batch(world.batch(piece, [0] * len(piece), control, how), runner)
        found += traces(imagined)
        trusts += world.trusts(imagined) if control is None else [TRUSTED] * len(piece)
        simulated_s, wall_s = simulated_s + imagined.simulated_s, wall_s + imagined.wall_s
    drives = Drives(found, trusts, simulated_s, wall_s)
    _keep(path, stamp, drives)
    return drives


def _keep(path: Path, stamp: str, drives: Drives) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    t = drives.traces
    with partial.open("wb") as file:
        np.savez_compressed(
            file, stamp=np.array(stamp), steps=np.array([len(trace.risks) for trace in t]),
            completion=np.concatenate([trace.completion for trace in t]),
            risks=np.concatenate([trace.risks for trace in t]),
            speeds_mps=np.concatenate([trace.speeds_mps for trace in t]),
            readings=np.concatenate([trace.readings for trace in t]),
            outside_percent=np.array([trace.outside_percent for trace in t]),
            trusts=np.array(json.dumps([asdict(trust) for trust in drives.trusts])),
            pace=np.array([drives.simulated_s, drives.wall_s]),
        )  # fmt: skip
    partial.replace(path)


def _kept(path: Path, stamp: str) -> Drives | None:
    """What `_keep` wrote, if it is of these starts and weights."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as data:
        if str(data["stamp"]) != stamp:
            return None
        ends = np.cumsum(data["steps"])
        split = [np.split(data[name], ends[:-1]) for name in ("risks", "speeds_mps", "readings")]
        completion = np.split(data["completion"], (ends + np.arange(1, len(ends) + 1))[:-1])
        found = [
            Trace(done, risks, speeds, readings, float(outside))
            for done, risks, speeds, readings, outside in zip(
                completion, *split, data["outside_percent"], strict=True
            )
        ]  # fmt: skip
        trusts = [Trust(**told) for told in json.loads(str(data["trusts"]))]
        return Drives(found, trusts, *map(float, data["pace"]))
