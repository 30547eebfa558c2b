"""Drive a batch of imagined drives to their ends, and make episodes of them: the batched `run_episode`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.control.batch_tracker import BatchTracker
from drivesim.datatypes import EndReason, Episode, Frame, Plan, default_rig
from drivesim.interfaces import Planner
from drivesim.planning.batch_planners import BatchPlan, BatchPlanner, Seen
from drivesim.runs import code_version
from drivesim.worlds.imagined_batch import ImaginedBatch, generator
from drivesim.worlds.latent_world import ImaginedSight, frame_of, told_frame

Array = NDArray[np.float64]


class Everybody:
    """A batched planner as the runner uses it: one call for all drives."""

    def __init__(self, planner: BatchPlanner) -> None:
        self.planner, self.name = planner, planner.name

    def reset(self, batch: ImaginedBatch) -> None:
        """Start a batch."""
        self.planner.reset(batch.motions)
        self._generators = [generator(s.scenario, seed, 1) for s, seed in zip(batch.starts, batch.seeds, strict=True)]

    def plan(self, batch: ImaginedBatch) -> BatchPlan:
        """Plan for everybody. At the start nobody has seen the past, as in any other world."""
        previous = batch.current if batch.tick == 0 else batch.previous
        reads = {name: batch.reads[:, column] for column, name in enumerate(batch.model.readouts)}
        seen = Seen(batch.motions, previous, batch.current, batch.features, reads, self._generators)
        return self.planner.plan(seen)


class OneByOne:
    """Planners of `drivesim.interfaces`, one for each drive, that take the latent where they would see pictures."""

    def __init__(self, name: str, make: Callable[[], Planner], sight: Any = None) -> None:
        """Args:
        make: a planner for one drive.
        sight: the world model whose eyes are the imagined latents; given to planners that have a `model`.
        """
        self.name, self._make, self._sight = name, make, sight

    def reset(self, batch: ImaginedBatch) -> None:
        """A planner for each drive."""
        self._planners: list[Planner] = []
        for row, (start, seed) in enumerate(zip(batch.starts, batch.seeds, strict=True)):
            planner = self._make()
            if self._sight is not None and hasattr(planner, "model"):
                sight = ImaginedSight(self._sight)
                sight.look_at(batch, row)
                planner.model = sight
            planner.reset(start.scenario, default_rig(), seed)
            self._planners.append(planner)
        self._rngs = [generator(s.scenario, seed, 1) for s, seed in zip(batch.starts, batch.seeds, strict=True)]
        self._plans: list[Plan | None] = [None] * len(self._planners)

    def plan(self, batch: ImaginedBatch) -> BatchPlan:
        """Ask everybody who still drives."""
        for row in np.flatnonzero(batch.alive):
            planner = self._planners[row]
            frame = told_frame(batch, int(row)) if planner.privileged else frame_of(batch, int(row))
            plan = planner.plan(frame.observation, frame if planner.privileged else None, self._rngs[row])
            plan.trajectory.validate()
            self._plans[row] = plan
        return joined(self._plans)


class GivenPlans:
    """Plans made from logged observations: each is driven to its end, none is made anew."""

    def __init__(self, name: str, plans: Sequence[Plan]) -> None:
        """One plan for each drive."""
        self.name, self._plans = name, list(plans)

    def reset(self, batch: ImaginedBatch) -> None:
        """Nothing to forget."""

    def plan(self, batch: ImaginedBatch) -> BatchPlan:
        """What was planned at the start."""
        return joined(self._plans)


def joined(plans: Sequence[Plan | None]) -> BatchPlan:
    """Plans of one planner as a batch.

    Raises:
        ValueError: they have different times.
    """
    first = next(plan for plan in plans if plan is not None).trajectory
    whole = [first if plan is None else plan.trajectory for plan in plans]
    if any(not np.array_equal(t.times_s, first.times_s) for t in whole):
        raise ValueError("plans of one planner must have the same times to be driven together")
    return BatchPlan(first.times_s, np.stack([t.poses for t in whole]), np.stack([t.speeds_mps for t in whole]))


@dataclass
class _Tape:
    """What is recorded at every tick of the batch."""

    ego: list[Array] = field(default_factory=list)
    progress: list[Array] = field(default_factory=list)
    controls: list[Array] = field(default_factory=list)
    alive: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, batch: ImaginedBatch, controls: Array) -> None:
        """One tick: who was alive at its beginning belongs to it."""
        m = batch.motions
        height = np.array([start.frame.ego.z_m for start in batch.starts])
        columns = (m.x_m, m.y_m, height, m.yaw_rad, m.speed_mps, batch.acceleration_mps2, batch.yaw_rate_radps)
        self.ego.append(np.stack([*columns, m.lateral_m], axis=-1))
        self.progress.append(m.s_m)
        self.controls.append(controls)
        self.alive.append(batch.alive.copy())


@dataclass(frozen=True)
class Imagined:
    """A batch that was driven.

    Attributes:
        episodes: one for each drive.
        wall_s: for all of them, planning included.
        simulated_s: seconds driven, added up over the drives.
    """

    batch: ImaginedBatch
    episodes: list[Episode]
    wall_s: float
    simulated_s: float

    def latents(self, row: int) -> NDArray[np.float32]:
        """(t + 1, n, d) of one drive, up to its end."""
        return np.stack([z[row] for z in self.batch.latents[: self._steps(row) + 1]])

    def doubts(self, row: int) -> Array:
        """(t,) disagreement of one drive's imagined steps."""
        return np.array([d[row] for d in self.batch.doubts[: self._steps(row)]], np.float64)

    def _steps(self, row: int) -> int:
        return (len(self.episodes[row].times_us) - 1) // self.batch.latent_ticks


def drive_batch(batch: ImaginedBatch, planner: Everybody | OneByOne | GivenPlans, *, replan: bool = True) -> Imagined:
    """Plan at every latent tick, track the plans at every world tick, until nobody drives any more.

    Args:
        replan: False drives the first plan to its end.
    """
    began = time.perf_counter()
    planner.reset(batch)
    wheelbase = np.array([2.0 * start.frame.ego.rear_axle_to_center_m for start in batch.starts])
    tracker, tape = BatchTracker(len(batch.starts), wheelbase), _Tape()
    plan_ms: list[float] = []
    plan, planned_from, planned_at = None, batch.motions.columns, 0.0
    while batch.alive.any():
        if plan is None or (replan and batch.at_latent_tick):
            asked = time.perf_counter()
            plan, planned_from, planned_at = planner.plan(batch), batch.motions.columns, batch.time_s
            plan_ms.append(1e3 * (time.perf_counter() - asked) / max(int(batch.alive.sum()), 1))
        controls = tracker.control(
            plan.times_s, plan.poses, plan.speeds_mps, planned_from, batch.motions.columns,
            batch.time_s - planned_at, batch.time_s,
        )  # fmt: skip
        tape.add(batch, controls)
        batch.settle()
        if batch.alive.any():
            batch.step(controls)
    alive = np.stack(tape.alive)
    episodes = _episodes(batch, planner.name, tape, alive, plan_ms)
    wall_s = time.perf_counter() - began
    each = {"wall_s": f"{wall_s / len(episodes):.6f}"}
    episodes = [replace(episode, provenance=episode.provenance | each) for episode in episodes]
    simulated = float(alive.sum()) * batch.dt_s - len(batch.starts) * batch.dt_s
    return Imagined(batch, episodes, wall_s, simulated)


def _episodes(
    batch: ImaginedBatch, name: str, tape: _Tape, alive: NDArray[np.bool_], plan_ms: list[float]
) -> list[Episode]:
    ego, controls, progress = np.stack(tape.ego, 1), np.stack(tape.controls, 1), np.stack(tape.progress, 1)
    provenance = {"commit": code_version(), "world": "latent", "encoder": batch.model.digest}
    found = []
    for row, start in enumerate(batch.starts):
        ticks = int(alive[:, row].sum())
        first, lights = start.frame.ego, start.frame.lights
        plans = min(len(plan_ms), -(-ticks // batch.latent_ticks))
        found.append(
            Episode(
                scenario=start.scenario, planner=name, seed=batch.seeds[row],
                end=batch.ends[row] or EndReason.TIMEOUT,
                times_us=np.round(np.arange(ticks) * batch.dt_s * 1e6).astype(np.int64), ego=ego[row, :ticks],
                controls=controls[row, :ticks], route_points=start.route.points_m.copy(),
                route_half_width_m=start.route.route_half_width_m.copy(), progress_m=progress[row, :ticks],
                actor_tick=np.zeros(0, np.int32), actor_id=np.zeros(0, np.int64), actor_kind=np.zeros(0, np.uint8),
                actor_pose=np.zeros((0, 3), np.float32), actor_size=np.zeros((0, 2), np.float32),
                light_tick=np.zeros(0, np.int32), light_state=np.zeros((0, len(lights.states)), np.uint8),
                stop_pose=lights.stop_pose, stop_half_width_m=lights.half_width_m,
                ego_size_m=(first.length_m, first.width_m, first.rear_axle_to_center_m),
                events=tuple(batch.events[row]), latencies_ms={"plan_ms": np.array(plan_ms[:plans])},
                provenance=provenance | {f"most_{k}": f"{v:.4f}" for k, v in batch.summary(row).items()},
            )
        )  # fmt: skip
        found[-1].validate()
    return found


def plans_along(planner: Planner, frames: Sequence[Frame], seed: int, scenario: Any, rig: Any) -> list[Plan]:
    """A pixel planner's plans from logged observations, one a tick, in the log's order.

    Raises:
        ValueError: the planner is privileged, or returned something that cannot be driven.
    """
    if planner.privileged:
        raise ValueError(f"{planner.name} sees the truth: it has no plans from observations alone")
    planner.reset(scenario, rig, seed)
    rng = np.random.default_rng([seed, 1])
    plans = []
    for frame in frames:
        plan = planner.plan(frame.observation, None, rng)
        plan.trajectory.validate()
        plans.append(plan)
    return plans
