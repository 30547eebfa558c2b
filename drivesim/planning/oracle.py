"""The latent planner with a perfect world model: imagined futures are exact branches of the embedded town.

It checks proposals, search and cost apart from anything learned, and says how well this planner could drive at
best. It is a ceiling, never a contestant, and it drives only where the town lives in the same process.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from drivesim.config import ConfigError
from drivesim.datatypes import (
    LIGHT_RED,
    CameraRig,
    Control,
    EgoState,
    Frame,
    LatentState,
    Observation,
    Plan,
    Trajectory,
)
from drivesim.geometry import boxes_gap
from drivesim.geometry.bicycle import rollout
from drivesim.interfaces import Controller
from drivesim.planning.cost import LatentPlannerConfig
from drivesim.planning.latent_planner import LatentPlanner
from drivesim.planning.proposals import STEP_S
from drivesim.planning.search import Candidates, Problem

Array = NDArray[np.float64]

TICK_S = 0.05
LOOK_TICKS = 5  # how often a branch is looked at for near misses; contacts and stop lines are seen at every tick
NEAR_M, SOON_M, SOON_S = 0.4, 0.2, 0.8  # near: this close, or this close soon at present speeds (as the heads learn)
AROUND_M, LIGHTS_M = 40.0, 45.0
TAIL_SHARE = 0.8  # of half a length behind the centre: the judge's tail, which must not cross a red line
COUNTS_FROM_MPS = 0.1  # whoever stands is hit, and hits nobody
COLLISION, NEAR, RED = 0, 1, 2  # columns of a risk, as drivesim.models.heads.RISKS


class BranchingWorld(Protocol):
    """A world that can be tried out (drivesim.worlds.town_world.TownWorld)."""

    def moment(self) -> Any:
        """This tick, to come back to."""
        ...

    def go_back(self, moment: Any) -> Frame:
        """Be there again."""
        ...

    def branch_step(self, control: Control) -> Frame:
        """One tick of a branch: truth without pictures."""
        ...


class ExactBranches:
    """A world model that never errs (see `latent_planner.ImaginationModel`): what it imagines is tried out.

    Its imagined futures (k, p, 3) are already what happens in them: collision, near miss, red light, 0 or 1.
    It has no latent and no policy of its own; both are zeros.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.world: BranchingWorld | None = None
        self.branches = 0  # how many were driven, ever

    def encode(self, images: NDArray[np.uint8], rig: CameraRig, ego: EgoState) -> LatentState:
        """Nothing to see."""
        return LatentState(np.zeros((1, 1), np.float32), ego.time_us, "oracle")

    def accelerations(
        self, previous: NDArray[np.float32], current: NDArray[np.float32], kinematics: NDArray[np.float32],
        head: str = "policy", quantiles: tuple[float, ...] = (0.15, 0.5, 0.85),
    ) -> Array:  # fmt: skip
        """No opinion: zeros (1 + quantiles,)."""
        return np.zeros(1 + len(quantiles))

    def imagine(self, latents: NDArray[np.float32], speed_mps: float, actions: Array) -> tuple[Any, Any]:
        """What happens (k, p, 3) in exact branches under actions (k, p, 2), and no doubt (k, p).

        Raises:
            ConfigError: there is no world to try it out in.
        """
        poses, speeds = rollout(speed_mps, actions, STEP_S)
        futures = [self.happens(*future) for future in zip(actions, poses, speeds, strict=True)]
        return np.array(futures).reshape(*actions.shape[:2], 3), np.zeros(actions.shape[:2])

    def risks(
        self, current: NDArray[np.float32], imagined: Any, kinematics: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """What was imagined is what happens, whatever is asked."""
        return np.repeat(np.asarray(imagined, np.float32)[:, :, None], kinematics.shape[2], axis=2)

    def happens(self, actions: Array, poses: Array, speeds_mps: Array) -> Array:
        """Drive one branch: events (p, 3) in {0, 1} at each step; after a collision nothing gets better.

        Args:
            actions: (p, 2); poses: (p, 3) in the ego frame now; speeds_mps: (p,).
        """
        if self.world is None:
            raise ConfigError("latent-oracle has no world to try futures out in: let it drive in the embedded town")
        steps = len(actions)
        times = np.arange(1.0, steps + 1.0) * STEP_S
        plan = Plan(Trajectory(times, poses, speeds_mps), actions)
        moment = self.world.moment()
        self.branches += 1
        try:
            return self._drive(self.world, moment, plan)
        finally:
            self.world.go_back(moment)

    def _drive(self, world: BranchingWorld, moment: Any, plan: Plan) -> Array:
        events = np.zeros((len(plan.actions), 3))
        frame = start = world.go_back(moment)
        self.controller.reset()
        watch = Watch(start)
        ticks = round(STEP_S / TICK_S)
        for tick in range(len(events) * ticks):
            step = tick // ticks
            before = frame
            frame = world.branch_step(self.controller.control(plan, start.ego, before.ego))
            if frame.contacts and max(before.ego.speed_mps, frame.ego.speed_mps) >= COUNTS_FROM_MPS:
                events[step:, [COLLISION, NEAR]] = 1.0
                break
            events[step, RED] = max(events[step, RED], watch.runs_red(before, frame))
            if (tick + 1) % LOOK_TICKS == 0:
                events[step, NEAR] = max(events[step, NEAR], watch.near(frame))
        return events


class Watch:
    """Who and what is looked at along one branch."""

    def __init__(self, start: Frame) -> None:
        ego, actors = start.ego, start.actors
        x, y = ego.center_xy_m
        offset = actors.pose[:, :2] - [x, y]
        along = offset @ [np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)]
        beside = np.abs(offset @ [-np.sin(ego.yaw_rad), np.cos(ego.yaw_rad)])
        self._followers = actors.ids[(along < -0.5 * ego.length_m) & (beside < 2.5)]  # they mind us, not we them
        gap = np.hypot(start.lights.stop_pose[:, 0] - x, start.lights.stop_pose[:, 1] - y)
        self._lines = np.flatnonzero(gap < LIGHTS_M)

    def near(self, frame: Frame) -> bool:
        """Whether somebody is close, or will be if all go on as they do."""
        ego, actors = frame.ego, frame.actors
        x, y = ego.center_xy_m
        keep = np.abs(actors.pose[:, :2] - [x, y]).max(axis=1, initial=0.0) < AROUND_M
        keep &= ~np.isin(actors.ids, self._followers)
        if not keep.any():
            return False
        others, sizes = actors.pose[keep][:, [0, 1, 3]], actors.size_m[keep, :2]
        own, size = np.array([x, y, ego.yaw_rad]), np.array([ego.length_m, ego.width_m])
        forward = ego.speed_mps * np.array([np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)])
        later_own, later = own.copy(), others.copy()
        later_own[:2] += SOON_S * forward
        later[:, :2] += SOON_S * actors.velocity_mps[keep]
        now_gap, soon_gap = boxes_gap(own, size, others, sizes), boxes_gap(later_own, size, later, sizes)
        return bool((now_gap < NEAR_M).any() or (soon_gap < SOON_M).any())

    def runs_red(self, before: Frame, after: Frame) -> bool:
        """Whether the nose or the tail passes a stop line whose light is red, between two ticks."""
        lights, ego = after.lights, after.ego
        rows = self._lines[lights.states[self._lines] == LIGHT_RED]
        if not len(rows):
            return False
        stop, reach = lights.stop_pose[rows], lights.half_width_m[rows] + 0.5
        c, s = np.cos(stop[:, 3]), np.sin(stop[:, 3])
        ours = np.cos(ego.yaw_rad - stop[:, 3]) > 0.5
        for share in (0.5, -0.5 * TAIL_SHARE):
            here = [_along(frame.ego, share * ego.length_m) for frame in (before, after)]
            s0, s1 = (c * (x - stop[:, 0]) + s * (y - stop[:, 1]) for x, y in here)
            aside = -s * (here[1][0] - stop[:, 0]) + c * (here[1][1] - stop[:, 1])
            if (ours & (s0 <= 0.0) & (s1 > 0.0) & (np.abs(aside) < reach)).any():
                return True
        return False


def _along(ego: EgoState, ahead_m: float) -> tuple[float, float]:
    x, y = ego.center_xy_m
    return x + ahead_m * float(np.cos(ego.yaw_rad)), y + ahead_m * float(np.sin(ego.yaw_rad))


@dataclass(frozen=True)
class OracleProblem(Problem):
    """A problem whose futures are dear to imagine: only those are tried out that could still be among the best.

    What is known without trying (progress, comfort) bounds a cost from below, since no risk is negative. A future
    whose bound is no better than the worst elite found so far stays untried, with its bound as its cost: the best
    plan and the elites are the same as if all had been tried.
    """

    found: list[float] = field(default_factory=list)  # costs of all futures that were tried

    def evaluate(self, wanted: Array) -> Candidates:
        """Drive, and try out what could be good, the most promising first."""
        model = cast(ExactBranches, self.model)
        futures = self.drive(wanted)
        k, p = wanted.shape
        risk, blank, doubt = np.zeros((k, p, 3)), np.zeros((k, 1, 1), np.float32), np.zeros(k)
        bound = self.scored(wanted, futures, risk, doubt, blank).costs
        kept = 1 if self.config.search == "proposals" else self.config.elites
        known: dict[bytes, Array] = {}
        tried = 0
        for row in np.argsort(bound, kind="stable"):
            if len(self.found) >= kept and bound[row] >= sorted(self.found)[kept - 1]:
                break
            key = np.round(futures.actions[row], 6).tobytes()
            if key not in known:
                tried += 1
                known[key] = model.happens(futures.actions[row], futures.poses[row], futures.speeds_mps[row])
            risk[row] = known[key]
            chosen = np.array([row])
            one = self.scored(wanted[chosen], futures.take(chosen), risk[chosen], doubt[chosen], blank[chosen])
            self.found.append(float(one.costs[0]))
        return replace(self.scored(wanted, futures, risk, doubt, blank), imagined=tried)


class OraclePlanner(LatentPlanner):
    """Proposals, search and cost of the latent planner; imagination by exact branches; no prior policy."""

    needs_images = False
    privileged = True

    def __init__(
        self, controller: Controller, config: LatentPlannerConfig | None = None, name: str = "latent-oracle"
    ) -> None:
        self.branches = ExactBranches(controller)
        # it has no policy to trust
        super().__init__(self.branches, config or LatentPlannerConfig(trust_weight=0.0, mean_weight=0.0), name)

    def enter(self, world: object) -> None:
        """Take the world to try futures out in.

        Raises:
            ConfigError: it is not one that can be tried out.
        """
        if not all(hasattr(world, name) for name in ("moment", "go_back", "branch_step")):
            raise ConfigError(
                f"planner {self.name!r} imagines by exact branches of the embedded town in this process, which "
                f"{type(world).__name__} does not give: drive it without --carla, in world 'town'"
            )
        self.branches.world = cast(BranchingWorld, world)

    def observe(self, observation: Observation) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Nothing is looked at: the world itself is asked."""
        blank = np.zeros((1, 1), np.float32)
        return blank, blank

    def surprise(self, time_us: int, seen: NDArray[np.float32]) -> float | None:
        """Nothing surprises an oracle."""
        return None

    def problem(self, observation: Observation, context: NDArray[np.float32]) -> Problem:
        """The same problem, with branches that are tried out sparingly."""
        plain = super().problem(observation, context)
        return OracleProblem(**{name: getattr(plain, name) for name in Problem.__dataclass_fields__})
