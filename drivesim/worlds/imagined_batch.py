"""Many drives in imagination at once: the heart of the latent world.

Every half second the predictor answers the motion that was driven; the ego itself is integrated by a
kinematic bicycle under the same pedals as everywhere. Frozen heads say how likely a collision or a run
red light is at each imagined moment, `drivesim.worlds.hazards` makes of that how likely it happens just then and
not before, and one uniform number a moment decides: a seed decides it all.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import EndReason, Event, Frame, Scenario
from drivesim.datatypes.motions import Motions
from drivesim.geometry.curve_table import CurveTable
from drivesim.worlds.hazards import Hazards, evidence
from drivesim.worlds.routes import RoutePlan

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

STEP_S = 0.5  # one latent tick
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
        logged: what the log saw from this tick on, every half second, as far as it goes: all the truth that there is
            for a planner that has to be told (`drivesim.worlds.latent_world.told_frame`).
        news: (t, n, d) what each following half second of the log brought that the predictor had not expected, as
            far as the log goes (`drivesim.worlds.logged_drive.news_of`); None for nothing.
    """

    scenario: Scenario
    route: RoutePlan
    s_m: float
    frame: Frame
    previous: Floats
    current: Floats
    logged: Sequence[Frame] = ()
    news: Floats | None = None


@dataclass(frozen=True)
class ImaginationConfig:
    """How imagination runs. The pedals are those of the embedded town's vehicle.

    Attributes:
        hazards: how risks become events.
        anchor_steps: risks are asked from at most this many steps before, as the heads were taught.
        news: share of the log's news that comes in imagination too: abduction, action, prediction (Pearl 2009). What
            nobody could foresee at the start, somebody who steps out or a lead that brakes, happens again, and the
            predictor answers for what is driven otherwise. Driven as logged, imagination is the log. 0 imagines from
            the start alone.
        news_reach_m: the share halves with every such distance from where the log's car was.
        strikes: risks become events by luck. Without, drives go on as if nothing ever happened, for whoever scores
            them in expectation (`drivesim.suite.expectation`).
    """

    hazards: Hazards = field(default_factory=Hazards)
    anchor_steps: int = 6
    news: float = 1.0
    news_reach_m: float = 20.0
    ends_at_collision: bool = True  # what comes after one was never seen in training
    strikes: bool = True
    drive_mps2: float = 4.5
    top_speed_mps: float = 55.0
    brake_mps2: float = 8.0
    rolling_mps2: float = 0.15
    drag_1pm: float = 0.003
    max_wheel_angle_rad: float = math.pi / 4.0


def generator(scenario: Scenario, seed: int, purpose: int) -> np.random.Generator:
    """The random numbers of one drive; purpose 1 is the driver's (as in `drivesim.drive`), 2 the world's."""
    return np.random.default_rng([scenario.seed, seed, zlib.crc32(scenario.id.encode()), purpose])


def _news_of(starts: Sequence[LatentStart]) -> tuple[Floats, Array]:
    """News (b, t, n, d), zero where a log is over, and where the log's car was: (b, t + 1, 2)."""
    steps = max((0 if start.news is None else len(start.news)) for start in starts)
    news = np.zeros((len(starts), steps, *starts[0].current.shape), np.float32)
    places = np.zeros((len(starts), steps + 1, 2))
    for row, start in enumerate(starts):
        if start.news is not None and len(start.news):
            news[row, : len(start.news)] = start.news
            known = np.array([[frame.ego.x_m, frame.ego.y_m] for frame in start.logged])
            places[row] = known[np.minimum(np.arange(steps + 1), len(known) - 1)]
    return news, places


class _Luck:
    """One uniform number for every drive and moment: as often as a probability says it becomes an event."""

    def __init__(self, generators: list[np.random.Generator]) -> None:
        self._generators = generators

    def strikes(self, probability: Array, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Rows (of `rows`) whose event happens now, given their probabilities (len(rows),)."""
        drawn = np.array([self._generators[row].random() for row in rows])
        return rows[probability > drawn]


class ImaginedBatch:
    """b drives, each from its own start; `step` until nobody is `alive`.

    Attributes:
        tick: world ticks so far; a latent tick is `latent_ticks` of them.
        previous, current: (b, n, d) latents of the last two latent ticks.
        reads: (b, read-outs) of the present; `readings` has those of all latent ticks.
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
        self._luck = _Luck([generator(start.scenario, seed, 2) for start, seed in zip(starts, seeds, strict=True)])
        self._driven_m = np.zeros(b)
        self._step_start = self.motions, self._driven_m
        self.latents: list[Floats] = [self.current]
        self.doubts: list[Floats] = []
        self.risks: list[Floats] = []
        self.readings: list[Floats] = [self.reads]
        self._news, self._logged_xy = _news_of(starts)
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
            imagined[rows], doubt[rows] = told[:, 0] + self._came(rows), told_doubt[:, 0]
            risk = self._risks(rows, imagined, actions)
            reads[rows] = self.model.read(self.current[rows], imagined[rows])
        self.previous, self.current, self.reads = self.current, imagined, reads
        self.latents.append(imagined)
        self.readings.append(reads)
        self.doubts.append(doubt)
        self._features.append(features)
        self._anchored_m.append(self._driven_m)
        self._step_start = self.motions, self._driven_m
        whole = np.zeros((len(actions), 3), np.float32)
        if risk is not None:
            whole[rows] = risk
            if self.config.strikes:
                self._strike(rows, risk)
        self.risks.append(whole)

    def _came(self, rows: NDArray[np.intp]) -> Floats | float:
        """The log's news (len(rows), n, d) of the half second that was driven."""
        step = len(self.latents) - 1
        if self.config.news <= 0.0 or step >= self._news.shape[1]:
            return 0.0
        x, y = self._logged_xy[rows, step + 1].T
        away = np.hypot(self.motions.x_m[rows] - x, self.motions.y_m[rows] - y)
        share = self.config.news * 0.5 ** (away / self.config.news_reach_m)
        return np.asarray(self._news[rows, step] * share[:, None, None], np.float32)

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
        speed = self.motions.speed_mps[rows]
        seen = evidence(self.reads[rows].astype(np.float64), self.model.readouts, speed)
        likely = self.config.hazards.of(risk.astype(np.float64), speed, seen)
        for row in self._luck.strikes(likely[:, 0], rows):
            self._add(int(row), self._who_is_hit(int(row)), float(likely[rows == row, 0][0]))
        for row in self._luck.strikes(likely[:, 1], rows):
            self._add(int(row), "red_light", float(likely[rows == row, 1][0]))

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
