"""Fit how risks become events: the hazards of the latent world, from what logs say would have happened.

Planners that need no pictures drive in imagination from many moments of fresh logs of the training towns. Beside
each drive stands what it would have met if everybody else had moved as the log says and the lights had changed as
logged. Nothing is driven in the town, and the logs that judge are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from drivesim.build import BATCH_PLANNERS
from drivesim.datatypes import Episode
from drivesim.datatypes.motions import Motions
from drivesim.planning.batch_planners import BatchConstantVelocity, BatchPlanner
from drivesim.scoring.infractions import red_lights
from drivesim.suite.expectation import Trace, traces
from drivesim.suite.imagined import LoggedWorld
from drivesim.suite.imagining import Everybody, Imagined, drive_batch
from drivesim.worlds.hazards import COLLISION, RED_LIGHT, STANDING_MPS, Hazard, Hazards, evidence, log_odds
from drivesim.worlds.imagined_batch import STEP_S, ImaginationConfig, LatentStart
from training.labels import future_risks

Array = NDArray[np.float64]
Truths = NDArray[np.bool_]

RIDGE = 1.0  # the pull towards PRIOR is worth about so many events
PRIOR = np.array([0.0, 0.5, 0.0, 0.0])
TUNERS = ("constant-velocity", "latent-policy", "behaviour-cloning", "readout-rule")


class BatchHasty(BatchConstantVelocity):
    """Three tenths and two metres a second faster than it started."""

    name = "hasty"

    def reset(self, motions: Motions) -> None:
        """Fix the target speeds."""
        super().reset(motions)
        self._target_mps = 1.3 * self._target_mps + 2.0


@dataclass(frozen=True)
class Tuned:
    """What was fitted, and to how much: number of drives, and of collisions and red lights in them."""

    hazards: Hazards
    drives: int
    collisions: int
    red_lights: int

    def told(self) -> dict[str, Any]:
        """For the study's JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Met:
    """An imagined drive and what it would have met by the log.

    Attributes:
        collided, ran_red: (t,) at the end of each half second, or within it.
    """

    trace: Trace
    collided: Truths
    ran_red: Truths


def tune(world: LoggedWorld, imagination: ImaginationConfig) -> Tuned:
    """Hazards from all starts of a world whose log goes on for a whole drive.

    Raises:
        ValueError: there is no such start.
    """
    ids = [i for i, start in world.starts.items() if len(start.logged) > world.config.steps]
    if not ids:
        raise ValueError("no log goes on for long enough to say what an imagined drive would have met")
    planners: list[BatchPlanner] = [BATCH_PLANNERS[name](world.model) for name in TUNERS]
    found: list[Met] = []
    for planner in (*planners, BatchHasty()):
        for first in range(0, len(ids), world.config.batch):
            piece = ids[first : first + world.config.batch]
            batch = world.batch(piece, [0] * len(piece), None, imagination)
            found += met(drive_batch(batch, Everybody(planner)))
    return fit(found, world.model.readouts)


def met(imagined: Imagined) -> Iterator[Met]:
    """What each drive of a batch would have met by its log."""
    batch = imagined.batch
    for start, episode, trace in zip(batch.starts, imagined.episodes, traces(imagined), strict=True):
        steps = len(trace.risks)
        poses = episode.ego[batch.latent_ticks * np.arange(1, steps + 1)]
        yield Met(trace, hit(start, poses), ran(start, episode, steps))


def hit(start: LatentStart, poses: Array) -> Truths:
    """Whether the ego's box overlaps somebody's at each of its poses (t, 8), everybody else where the log had them."""
    ego, steps = start.frame.ego, len(poses)
    if not steps:
        return np.zeros(0, dtype=bool)
    c, s = np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)
    dx, dy = poses[:, 0] - ego.x_m, poses[:, 1] - ego.y_m
    local = np.stack([c * dx + s * dy, -s * dx + c * dy, poses[:, 3] - ego.yaw_rad], axis=-1)
    told = future_risks(list(start.logged[: steps + 1]), local[None], poses[None, :, 4])
    return np.asarray(told[0, :, 0] > 0.5)


def ran(start: LatentStart, episode: Episode, steps: int) -> Truths:
    """Whether a red light is run in each half second, by the judge's own rule under the log's lights."""
    happened = np.zeros(steps, dtype=bool)
    known = {tuple(np.round(pose[:2], 1)): k for k, pose in enumerate(start.frame.lights.stop_pose)}
    if not known or not steps:
        return happened
    states = np.repeat(start.frame.lights.states[None], len(start.logged), axis=0)
    for row, frame in enumerate(start.logged):
        for pose, state in zip(frame.lights.stop_pose, frame.lights.states, strict=True):
            if (k := known.get(tuple(np.round(pose[:2], 1)))) is not None:
                states[row, k] = state
    ticks = np.round(np.arange(len(states)) * STEP_S / episode.scenario.dt_s).astype(np.int32)
    for event in red_lights(replace(episode, light_tick=ticks, light_state=states)):
        happened[min(max(int(np.ceil(event.time_us * 1e-6 / STEP_S - 1e-6)) - 1, 0), steps - 1)] = True
    return happened


def fit(drives: list[Met], readouts: tuple[str, ...]) -> Tuned:
    """Logistic regressions over moments at which a drive moves, and which no collision came before."""
    crash, reds = [], []
    for drive in drives:
        trace, moves = drive.trace, drive.trace.speeds_mps > STANDING_MPS
        first = int(np.argmax(drive.collided)) if drive.collided.any() else len(moves)
        seen = evidence(trace.readings, readouts, trace.speeds_mps)
        alive = moves & (np.arange(len(moves)) <= first)
        crash.append((trace.risks[alive, COLLISION], seen[alive], drive.collided[alive]))
        reds.append((trace.risks[moves, RED_LIGHT], drive.ran_red[moves]))
    collided = [np.concatenate(column) for column in zip(*crash, strict=True)]
    ran_red = [np.concatenate(column) for column in zip(*reds, strict=True)]
    hazards = Hazards(
        fitted(np.column_stack([log_odds(collided[0]), collided[1]]), collided[2]),
        fitted(log_odds(ran_red[0])[:, None], ran_red[1]),
    )
    return Tuned(hazards, len(drives), int(collided[2].sum()), int(ran_red[1].sum()))


def fitted(features: Array, happened: Truths) -> Hazard:
    """Logistic regression on features (m, f): log odds, then evidence; no weight below zero: more never means safer."""
    x = np.column_stack([np.ones(len(features)), features])
    y, prior = happened.astype(np.float64), PRIOR[: x.shape[1]]
    pull = np.array([0.0, *[RIDGE] * (x.shape[1] - 1)])

    def loss(w: Array) -> tuple[float, Array]:
        z = x @ w
        value = float((np.logaddexp(0.0, z) - y * z).sum() + 0.5 * (pull * np.square(w - prior)).sum())
        return value, x.T @ (1.0 / (1.0 + np.exp(-z)) - y) + pull * (w - prior)

    began = prior + np.array([-3.0, *[0.0] * (x.shape[1] - 1)])
    bounds = [(-9.0, 3.0), *[(0.0, 4.0)] * (x.shape[1] - 1)]
    found = minimize(loss, began, jac=True, method="L-BFGS-B", bounds=bounds)
    return Hazard(*map(float, found.x))
