"""Plan by imagining: propose drives, predict their latent futures, score them with frozen heads, re-plan.

Receding horizon of three seconds. Proposals are standing two-phase profiles, a policy read from the same
latent, and the last plan shifted; a search (`search.py`) then looks around the best of them. Nothing is
rendered and no picture is predicted.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import (
    CameraRig,
    EgoState,
    Frame,
    LatentState,
    Observation,
    Plan,
    RouteAhead,
    Scenario,
    Trajectory,
)
from drivesim.planning.cost import LatentPlannerConfig
from drivesim.planning.kinematics import kinematics
from drivesim.planning.proposals import STEP_S, held, two_phase
from drivesim.planning.search import Candidates, Imagination, Problem, search

__all__ = ["ImaginationModel", "LatentPlanner", "LatentPlannerConfig", "cruising"]

Array = NDArray[np.float64]

SURPRISE_WITHIN_US = 60_000  # a prediction meant for this long before or after now is one for now
SHOWN = 16


class ImaginationModel(Imagination, Protocol):
    """What the planner needs of a world model (drivesim.models.WorldModel has it)."""

    def encode(self, images: NDArray[np.uint8], rig: CameraRig, ego: EgoState) -> LatentState:
        """One tick's pictures to a latent (n, d)."""
        ...

    def accelerations(
        self, previous: NDArray[np.float32], current: NDArray[np.float32], kinematics: NDArray[np.float32],
        head: str = "policy", quantiles: tuple[float, ...] = (0.15, 0.5, 0.85),
    ) -> Array:  # fmt: skip
        """Mean and quantiles of the acceleration that a policy head reads from the latent, m/s2."""
        ...


def cruising(route: RouteAhead, config: LatentPlannerConfig) -> RouteAhead:
    """The route with the speeds that the planner allows itself."""
    return replace(route, speed_limit_mps=np.minimum(route.speed_limit_mps, config.cruise_mps))


class LatentPlanner:
    """Model-predictive control in latent space."""

    needs_images = True
    privileged = False

    def __init__(
        self, model: ImaginationModel, config: LatentPlannerConfig | None = None, name: str = "latent"
    ) -> None:
        self.model, self.config, self.name = model, config or LatentPlannerConfig(), name
        self.rig: CameraRig | None = None
        self.history: deque[LatentState] = deque(maxlen=16)
        self.expected: deque[tuple[int, NDArray[np.float32]]] = deque(maxlen=16)
        self.last: Array | None = None
        self.lost_s = 0.0
        self.judged_us: int | None = None
        self.surprised: float | None = None

    def reset(self, scenario: Scenario, rig: CameraRig, seed: int) -> None:
        """Forget the last episode."""
        self.rig = rig
        self.history.clear()
        self.expected.clear()
        self.last = None
        self.lost_s = 0.0
        self.judged_us, self.surprised = None, None

    def eagerness(self, ego: EgoState) -> float:
        """Factor on progress: one while driving, growing with the time lost at a crawl; call it once a plan.

        Lost time is won back at the rate it was lost, so that a car which has just set off does not stop again; but
        whoever drives need not press on.
        """
        c = self.config
        passed_s = 0.0 if self.judged_us is None else (ego.time_us - self.judged_us) * 1e-6
        self.judged_us = ego.time_us
        rate = min(max(1.0 - abs(ego.speed_mps) / c.crawl_mps, -1.0), 1.0)
        self.lost_s = max(self.lost_s + rate * passed_s, 0.0)
        factor = min(1.0 + c.impatience_1ps * max(self.lost_s - c.patience_s, 0.0), c.impatience_cap)
        driving = min(max(abs(ego.speed_mps) - 0.5, 0.0) / c.crawl_mps, 1.0)
        return 1.0 + (factor - 1.0) * (1.0 - c.calm * driving)

    def observe(self, observation: Observation) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Encode what is seen now; return the latent of half a second ago and the present one.

        Raises:
            ValueError: the observation has no images, or `reset` was not called.
        """
        if observation.images is None or self.rig is None:
            raise ValueError("the latent planner needs images at every plan: set camera_period_s to the plan period")
        seen = self.model.encode(observation.images, self.rig, observation.ego)
        self.surprised = self.surprise(seen.time_us, seen.tokens)
        state = replace(seen, tokens=self.believed(seen.time_us, seen.tokens))
        self.history.append(state)
        then_us = state.time_us - round(self.config.history_s * 1e6)
        previous = min(self.history, key=lambda past: abs(past.time_us - then_us))
        return previous.tokens, state.tokens

    def believed(self, time_us: int, seen: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is seen, mixed with what was imagined for now: what nobody could foresee counts less."""
        expected = self.imagined_for(time_us)
        if expected is None or self.config.memory == 0.0:
            return seen
        return np.asarray((1.0 - self.config.memory) * seen + self.config.memory * expected, np.float32)

    def imagined_for(self, time_us: int) -> NDArray[np.float32] | None:
        """The latent (n, d) that was imagined for now, one step ago; None where nothing was."""
        if not self.expected:
            return None
        meant_us, tokens = min(self.expected, key=lambda past: abs(past[0] - time_us))
        return tokens if abs(meant_us - time_us) <= SURPRISE_WITHIN_US else None

    def surprise(self, time_us: int, seen: NDArray[np.float32]) -> float | None:
        """How far what is seen lies from what was imagined for now, one step ago.

        Root mean squared difference in standard deviations of the latent; None where nothing was imagined.
        What was imagined followed the plan of then, and plans change: some surprise is ordinary.
        """
        tokens = self.imagined_for(time_us)
        return None if tokens is None else float(np.sqrt(np.mean((tokens - seen) ** 2)))

    def plan(self, observation: Observation, truth: Frame | None, rng: np.random.Generator) -> Plan:
        """Encode, propose, imagine, score, refine."""
        began = time.perf_counter()
        previous, current = self.observe(observation)
        encoded = time.perf_counter()
        surprise = self.surprised
        problem = self.problem(observation, np.stack([previous, current]))
        found = search(problem, self.proposals(problem.policy), rng)
        told = {"encode_ms": (encoded - began) * 1e3, "search_ms": (time.perf_counter() - encoded) * 1e3}
        if surprise is not None:
            told["surprise"] = surprise
        best, fallback = self.choose(found, problem.policy, surprise)
        self.last = np.concatenate([found.wanted[best][1:], found.wanted[best][-1:]])
        self.expected.append((observation.time_us + round(STEP_S * 1e6), found.ahead[best].copy()))
        return self.report(found, best, fallback, told | {"policy_mps2": float(problem.policy[0])})

    def problem(self, observation: Observation, context: NDArray[np.float32]) -> Problem:
        """What is to be solved at this tick; context (2, n, d) is the latent half a second ago and now."""
        motion = kinematics(observation.ego, observation.route)
        policy = self.model.accelerations(context[0], context[1], motion, "policy", self.config.band)
        route, eager = cruising(observation.route, self.config), self.eagerness(observation.ego)
        return Problem(self.model, self.config, observation.ego, route, context, motion, policy, eager)

    def proposals(self, policy: Array) -> Array:
        """Standing profiles, the policy's mean and quantiles, and the last plan shifted: (k, steps).

        Where profiles are of one piece, so are all of these, and the last plan is left out: the present is judged anew.
        """
        steps = self.config.steps
        hold = [np.full(steps, a) for a in policy]
        if self.config.knots == 1:
            return np.concatenate([held(steps), np.array(hold)])
        ease = [np.concatenate([np.full(2, a), np.full(steps - 2, 0.3 * a)]) for a in policy]
        sets = [two_phase(steps), np.array(hold), np.array(ease)]
        if self.last is not None:
            sets.append(self.last[None])
        return np.concatenate(sets)

    def choose(self, found: Candidates, policy: Array, surprise: float | None) -> tuple[int, str]:
        """The cheapest future, unless imagination cannot be trusted there; and then why not."""
        c = self.config
        best, fallback = int(np.argsort(found.costs, kind="stable")[0]), ""
        if found.doubt[best] > c.fallback_disagreement:
            fallback = "imagination expects to err: following the policy's cautious side"
        elif surprise is not None and 0.0 < c.fallback_surprise < surprise:
            fallback = "what is seen was not expected: following the policy's cautious side"
        if fallback:
            best = int(np.argmin(np.abs(found.wanted[:, 0] - min(policy[1], 0.0))))
        return best, fallback

    def report(self, found: Candidates, best: int, fallback: str, told: dict[str, float]) -> Plan:
        """The chosen future as a plan, with what was imagined beside it."""
        steps, futures = found.wanted.shape[1], found.futures
        trajectory = Trajectory(np.arange(1.0, steps + 1.0) * STEP_S, futures.poses[best], futures.speeds_mps[best])
        shown = np.argsort(found.costs, kind="stable")[:SHOWN]
        return Plan(
            trajectory=trajectory,
            actions=futures.actions[best],
            cost_terms={key: float(value[best]) for key, value in found.terms.items()},
            candidates=futures.poses[shown].astype(np.float32),
            candidate_costs=found.costs[shown].astype(np.float32),
            diagnostics=told | {"disagreement": float(found.doubt[best]), "imagined": float(found.imagined)},
            fallback=fallback,
        )
