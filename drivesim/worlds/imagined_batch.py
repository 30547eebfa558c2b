"""Many drives in imagination at once: the heart of the latent world.

Every half second the predictor answers the motion that was driven; the ego itself is integrated by a
kinematic bicycle under the same pedals as everywhere. Frozen heads say how likely a collision or a run
red light is. One uniform number an encounter decides when a probability becomes an event, so that an
encounter of several steps counts as often as its largest probability says, and a seed decides it all.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import EndReason, Event, Frame, Scenario
from drivesim.datatypes.motions import Motions
from drivesim.geometry.curve_table import CurveTable
from drivesim.worlds.routes import RoutePlan

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

STEP_S = 0.5  # one latent tick
COLLISION, NEAR, RED_LIGHT = range(3)  # columns of the risks
COMPLETE_SHARE, COMPLETE_M, DEVIATION_M = 0.99, 10.0, 30.0  # as in drivesim.drive
REACH_M = 4.0  # along the route: nobody gets further in one tick


class ImaginationCore(Protocol):
    """What the latent world needs of a world model (`drivesim.models.imagination.Imagination` has it)."""

    @property
    def digest(self) -> str:
        """Identity of the encoder."""
        ...

    @property
    def readouts(self) -> tuple[str, ...]:
        """Names of the columns of `read`."""
        ...

    def rollout(self, previous: Floats, current: Floats, actions: Array, speed_mps: Array) -> tuple[Floats, Floats]:
        """Latents (b, n, d) under actions (b, p, 2): imagined (b, p, n, d) and disagreement (b, p)."""
        ...

    def risks(self, anchor: Floats, imagined: Floats, kinematics: Floats) -> Floats:
        """Probabilities (b, 3) of collision, near miss and red light at imagined moments."""
        ...

    def read(self, previous: Floats, current: Floats) -> Floats:
        """What the probe reads from the last two latents: (b, columns of `readouts`)."""
        ...

    def acceleration(self, previous: Floats, current: Floats, kinematics: Floats, head: str) -> Array:
        """Mean acceleration (b,) of a policy head."""
        ...


class Kinematics(Protocol):
    """What the heads are told of the ego's own motion (`drivesim.planning.batch_following.BatchKinematics`)."""

    def now(self, motions: Motions) -> Floats:
        """(b, 16) of this moment."""
        ...

    def later(self, now: Floats, speed_mps: Array, actions: Array, after_s: float, distance_m: Array) -> Floats:
        """(b, 16) of an imagined moment."""
        ...


@dataclass(frozen=True)
class LatentStart:
    """A logged tick to start from.

    Attributes:
        scenario: its id names log and tick; time limit and dt are those of the imagined drive.
        route: the log's route with the goal of the imagined drive.
        frame: the logged truth: where the ego stands, and where the map has stop lines.
        previous, current: (n, d) latents of half a second before and of the tick itself.
    """

    scenario: Scenario
    route: RoutePlan
    s_m: float
    frame: Frame
    previous: Floats
    current: Floats


@dataclass(frozen=True)
class ImaginationConfig:
    """How imagination runs. The pedals are those of the embedded town's vehicle.

    Attributes:
        risk_floor: below it an encounter is over.
        anchor_steps: risks are asked from at most this many steps before, as the heads were taught.
    """

    risk_floor: float = 0.03
    anchor_steps: int = 6
    ends_at_collision: bool = True  # what comes after one was never seen in training
    drive_mps2: float = 4.5
    top_speed_mps: float = 55.0
    brake_mps2: float = 8.0
    rolling_mps2: float = 0.15
    drag_1pm: float = 0.003
    max_wheel_angle_rad: float = math.pi / 4.0


def generator(scenario: Scenario, seed: int, purpose: int) -> np.random.Generator:
    """The random numbers of one drive; purpose 1 is the driver's (as in `drivesim.drive`), 2 the world's."""
    return np.random.default_rng([scenario.seed, seed, zlib.crc32(scenario.id.encode()), purpose])


class _Luck:
    """One uniform number for every drive and encounter."""

    def __init__(self, generators: list[np.random.Generator]) -> None:
        self._generators = generators
        self._uniform = np.array([g.random() for g in generators])
        self._open = np.zeros(len(generators), dtype=bool)  # an encounter is going on
        self._struck = np.zeros(len(generators), dtype=bool)  # and has become an event

    def strikes(self, probability: Array, floor: float, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Rows (of `rows`) whose event happens now, given their probabilities (len(rows),)."""
        risky = probability > floor
        for row in rows[~risky & self._open[rows]]:
            self._uniform[row] = self._generators[row].random()
        self._struck[rows[~risky]] = False
        self._open[rows] = risky
        happens = risky & ~self._struck[rows] & (probability > self._uniform[rows])
        self._struck[rows[happens]] = True
        return rows[happens]


class ImaginedBatch:
    """b drives, each from its own start; `step` until nobody is `alive`.

    Attributes:
        tick: world ticks so far; a latent tick is `latent_ticks` of them.
        previous, current: (b, n, d) latents of the last two latent ticks.
        reads: (b, read-outs) of the present.
        alive: (b,) who still drives; the rest keeps its last state.
        ends: why each drive ended, None while it goes on.
        events: what counts against each.
    """

    def __init__(
        self,
        model: ImaginationCore,
        kinematics: Kinematics,
        starts: Sequence[LatentStart],
        seeds: Sequence[int],
        config: ImaginationConfig | None = None,
    ) -> None:
        """Place everybody.

        Raises:
            ValueError: no starts, or starts of different time steps.
        """
        if not starts or len({start.scenario.dt_s for start in starts}) != 1 or len(seeds) != len(starts):
            raise ValueError("a batch needs starts of one dt_s, and as many seeds")
        self.model, self.kinematics, self.config = model, kinematics, config or ImaginationConfig()
        self.starts, self.seeds, b = list(starts), list(seeds), len(starts)
        self.dt_s = starts[0].scenario.dt_s
        self.latent_ticks = round(STEP_S / self.dt_s)
        curves = CurveTable.of([start.route.curve for start in starts])
        limits = np.zeros(curves.s_m.shape)
        for row, start in enumerate(starts):
            found = start.route.speed_limit_mps
            limits[row, : len(found)], limits[row, len(found) :] = found, found[-1]
        self._goal_m = np.array([start.route.length_m for start in starts])
        self._goals = curves.at(self._goal_m)[:, :2]
        egos = [start.frame.ego for start in starts]
        x, y = np.array([e.x_m for e in egos]), np.array([e.y_m for e in egos])
        s, lateral = curves.project(x, y, np.array([start.s_m for start in starts]))
        self.motions = Motions(
            x, y, np.array([e.yaw_rad for e in egos]), np.array([max(e.speed_mps, 0.0) for e in egos]), s, lateral,
            curves, limits, np.maximum(self._goal_m - s, 0.0),
        )  # fmt: skip
        self.acceleration_mps2 = np.array([e.acceleration_mps2 for e in egos])
        self.yaw_rate_radps = np.array([e.yaw_rate_radps for e in egos])
        self._wheelbase_m = np.array([2.0 * e.rear_axle_to_center_m for e in egos])
        self._limit_s = np.array([start.scenario.time_limit_s for start in starts])
        self.tick = 0
        self.previous = np.stack([start.previous for start in starts])
        self.current = np.stack([start.current for start in starts])
        self.reads = model.read(self.previous, self.current)
        self.alive = np.ones(b, dtype=bool)
        self.ends: list[EndReason | None] = [None] * b
        self.events: list[list[Event]] = [[] for _ in starts]
        luck = [generator(start.scenario, seed, 2) for start, seed in zip(starts, seeds, strict=True)]
        self._collision_luck, self._red_luck = _Luck(luck), _Luck(luck)
        self._driven_m = np.zeros(b)
        self._step_start = self.motions, self._driven_m
        self.latents: list[Floats] = [self.current]
        self.doubts: list[Floats] = []
        self.risks: list[Floats] = []
        self._features: list[Floats] = [kinematics.now(self.motions)]
        self._anchored_m: list[Array] = [self._driven_m]

    @property
    def time_s(self) -> float:
        """Since the start."""
        return self.tick * self.dt_s

    @property
    def at_latent_tick(self) -> bool:
        """Whether the latents are of this very tick."""
        return self.tick % self.latent_ticks == 0

    @property
    def features(self) -> Floats:
        """Kinematics (b, 16) of the last latent tick."""
        return self._features[-1]

    def step(self, controls: Array) -> None:
        """Advance by one tick under controls (b, 3): steer (left positive), throttle, brake."""
        now, c, h = self.motions, self.config, self.dt_s
        v = now.speed_mps
        drive = controls[:, 1] * c.drive_mps2 * np.maximum(1.0 - v / c.top_speed_mps, 0.05)
        a = drive - controls[:, 2] * c.brake_mps2 - c.rolling_mps2 - c.drag_1pm * v * v
        bend = np.tan(controls[:, 0] * c.max_wheel_angle_rad) / self._wheelbase_m
        v_next = np.where(self.alive, np.maximum(v + a * h, 0.0), v)
        move = np.where(self.alive, 0.5 * (v + v_next) * h, 0.0)
        turn = bend * move
        x, y = now.x_m + move * np.cos(now.yaw_rad + 0.5 * turn), now.y_m + move * np.sin(now.yaw_rad + 0.5 * turn)
        s, lateral = now.curves.project(x, y, now.s_m, REACH_M)
        self.motions = replace(
            now, x_m=x, y_m=y, yaw_rad=now.yaw_rad + turn, speed_mps=v_next, s_m=s, lateral_m=lateral,
            remaining_m=np.maximum(self._goal_m - s, 0.0),
        )  # fmt: skip
        self.acceleration_mps2, self.yaw_rate_radps = (v_next - v) / h, turn / h
        self._driven_m = self._driven_m + move
        self.tick += 1
        if self.at_latent_tick:
            self._imagine()

    def settle(self) -> None:
        """Note who is at an end at this tick; call once a tick, before `step`."""
        now = self.motions
        to_goal = np.hypot(self._goals[:, 0] - now.x_m, self._goals[:, 1] - now.y_m)
        struck = np.array([any(e.kind != "red_light" for e in events) for events in self.events])
        reasons = (
            (EndReason.COLLISION, struck if self.config.ends_at_collision else np.zeros_like(struck)),
            (EndReason.COMPLETED, (now.s_m > COMPLETE_SHARE * self._goal_m) & (to_goal < COMPLETE_M)),
            (EndReason.DEVIATED, np.abs(now.lateral_m) > DEVIATION_M),
            (EndReason.TIMEOUT, self.time_s >= self._limit_s - 1e-6),
        )
        for reason, rows in reasons:
            for row in np.flatnonzero(rows & self.alive):
                self.ends[row], self.alive[row] = reason, False

    def _imagine(self) -> None:
        """The half second that was driven, answered: new latents, read-outs, risks and what they bring."""
        before, driven_before = self._step_start
        distance = self._driven_m - driven_before
        turn = self.motions.yaw_rad - before.yaw_rad
        bend = np.where(distance > 0.1, turn / np.maximum(distance, 0.1), 0.0)
        actions = np.stack([(self.motions.speed_mps - before.speed_mps) / STEP_S, bend], axis=-1)
        actions = np.clip(actions, [-8.0, -0.3], [5.0, 0.3])  # as the predictor was taught
        rows = np.flatnonzero(self.alive)
        imagined, doubt, risk, reads = self.current.copy(), np.zeros(len(actions), np.float32), None, self.reads.copy()
        features = self.kinematics.now(self.motions)
        if len(rows):
            told, told_doubt = self.model.rollout(
                self.previous[rows], self.current[rows], actions[rows, None], before.speed_mps[rows]
            )
            imagined[rows], doubt[rows] = told[:, 0], told_doubt[:, 0]
            risk = self._risks(rows, imagined, actions)
            reads[rows] = self.model.read(self.current[rows], imagined[rows])
        self.previous, self.current, self.reads = self.current, imagined, reads
        self.latents.append(imagined)
        self.doubts.append(doubt)
        self._features.append(features)
        self._anchored_m.append(self._driven_m)
        self._step_start = self.motions, self._driven_m
        whole = np.zeros((len(actions), 3), np.float32)
        if risk is not None:
            whole[rows] = risk
            self._strike(rows, risk)
        self.risks.append(whole)

    def _risks(self, rows: NDArray[np.intp], imagined: Floats, actions: Array) -> Floats:
        """(len(rows), 3), asked from up to `anchor_steps` before."""
        steps = min(len(self.latents), self.config.anchor_steps)
        later = self.kinematics.later(
            self._features[-steps][rows], self.motions.speed_mps[rows], actions[rows], steps * STEP_S,
            self._driven_m[rows] - self._anchored_m[-steps][rows],
        )  # fmt: skip
        return self.model.risks(self.latents[-steps][rows], imagined[rows], later)

    def _strike(self, rows: NDArray[np.intp], risk: Floats) -> None:
        """Turn risks into events."""
        moving = self.motions.speed_mps[rows] > 0.1  # who stands hits nobody and crosses no line
        likely = np.where(moving[:, None], risk, 0.0).astype(np.float64)
        floor = self.config.risk_floor
        for row in self._collision_luck.strikes(likely[:, COLLISION], floor, rows):
            self._add(int(row), self._who_is_hit(int(row)), float(likely[rows == row, COLLISION][0]))
        for row in self._red_luck.strikes(likely[:, RED_LIGHT], floor, rows):
            self._add(int(row), "red_light", float(likely[rows == row, RED_LIGHT][0]))

    def _add(self, row: int, kind: str, probability: float) -> None:
        m = self.motions
        time_us = round(self.time_s * 1e6)
        self.events[row].append(Event(kind, time_us, float(m.x_m[row]), float(m.y_m[row]), -1, probability))

    def _who_is_hit(self, row: int) -> str:
        """The heads say that something is hit; the probe says what is ahead."""
        read = self.read_of(row)
        walks = read.get("walker_ahead", -math.inf) > max(read.get("lead_present", 0.0), 0.0)
        return "collision_walker" if walks else "collision_vehicle"

    def read_of(self, row: int) -> dict[str, float]:
        """Read-outs of one drive by name."""
        return dict(zip(self.model.readouts, self.reads[row].tolist(), strict=True))

    def summary(self, row: int) -> dict[str, Any]:
        """What the heads said in one drive: the largest risks."""
        if not self.risks:
            return {"collision": 0.0, "near": 0.0, "red_light": 0.0}
        most = np.max([risk[row] for risk in self.risks], axis=0)
        return dict(zip(("collision", "near", "red_light"), map(float, most), strict=True))
