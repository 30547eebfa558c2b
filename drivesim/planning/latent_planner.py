"""Plan by imagining: propose drives, predict their latent futures, score them with frozen heads, re-plan.

Receding horizon of three seconds. Proposals are standing two-phase profiles, a policy read from the same
latent, and the last plan shifted; a round of the cross-entropy method then searches around the best
(iCEM, Pinneri 2020). Nothing is rendered and no picture is predicted.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import CameraRig, EgoState, Frame, LatentState, Observation, Plan, Scenario, Trajectory
from drivesim.planning.kinematics import imagined_kinematics, kinematics
from drivesim.planning.proposals import STEP_S, Futures, drive_route, two_phase

Array = NDArray[np.float64]


class ImaginationModel(Protocol):
    """What the planner needs of a world model (drivesim.models.WorldModel has it)."""

    def encode(self, images: NDArray[np.uint8], rig: CameraRig, ego: EgoState) -> LatentState:
        """One tick's pictures to a latent (n, d)."""
        ...

    def imagine(self, latents: NDArray[np.float32], speed_mps: float, actions: Array) -> tuple[Any, Any]:
        """Latents (2, n, d) under actions (k, p, 2): imagined (k, p, n, d) and disagreement (k, p)."""
        ...

    def risks(
        self, current: NDArray[np.float32], imagined: Any, kinematics: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Probabilities (k, p, 3) of collision, near miss and red light at imagined moments."""
        ...

    def accelerations(
        self, previous: NDArray[np.float32], current: NDArray[np.float32], kinematics: NDArray[np.float32],
        head: str = "policy", quantiles: tuple[float, ...] = (0.15, 0.5, 0.85),
    ) -> Array:  # fmt: skip
        """Mean and quantiles of the acceleration that a policy head reads from the latent, m/s2."""
        ...


@dataclass(frozen=True)
class LatentPlannerConfig:
    """Weights of the cost and sizes of the search."""

    steps: int = 6
    samples: int = 12
    rounds: int = 1
    elites: int = 4
    noise_mps2: float = 0.8
    collision_weight: float = 6.0
    near_weight: float = 3.0
    red_weight: float = 4.0
    discount: float = 0.9
    risk_floor: float = 0.03  # probabilities below it are what the heads say of an empty street
    progress_weight: float = 1.5
    cruise_mps: float = 6.0  # no faster than what it sees in time to stop for
    patience_s: float = 2.0  # standing longer than this, progress counts more and more ...
    impatience_1ps: float = 1.0  # ... by this share a second ...
    impatience_cap: float = 10.0  # ... up to this factor: a static scene must not hold the car for ever
    progress_scale_m: float = 15.0
    band: tuple[float, float] = (0.15, 0.75)  # the policy's quantiles between which imagination decides freely
    trust_weight: float = 0.5  # per (m/s2)^2 that a plan's first second is faster than the band ...
    brake_trust: float = 0.3  # ... and this share of it where it is slower
    mean_weight: float = 0.1  # a light pull to the policy's mean everywhere
    comfort_weight: float = 0.01
    change_weight: float = 0.02
    disagreement_weight: float = 0.0
    fallback_disagreement: float = 1.2
    history_s: float = 0.5


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
        self.last: Array | None = None
        self.standing_since_us: int | None = None

    def reset(self, scenario: Scenario, rig: CameraRig, seed: int) -> None:
        """Forget the last episode."""
        self.rig = rig
        self.history.clear()
        self.last = None
        self.standing_since_us = None

    def eagerness(self, ego: EgoState) -> float:
        """Factor on progress: one while driving, growing with the time that the car has stood."""
        if ego.speed_mps > 0.5:
            self.standing_since_us = None
            return 1.0
        if self.standing_since_us is None:
            self.standing_since_us = ego.time_us
        waited_s = (ego.time_us - self.standing_since_us) * 1e-6 - self.config.patience_s
        return min(1.0 + self.config.impatience_1ps * max(waited_s, 0.0), self.config.impatience_cap)

    def observe(self, observation: Observation) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Encode what is seen now; return the latent of half a second ago and the present one.

        Raises:
            ValueError: the observation has no images, or `reset` was not called.
        """
        if observation.images is None or self.rig is None:
            raise ValueError("the latent planner needs images at every plan: set camera_period_s to the plan period")
        state = self.model.encode(observation.images, self.rig, observation.ego)
        self.history.append(state)
        then_us = state.time_us - round(self.config.history_s * 1e6)
        previous = min(self.history, key=lambda past: abs(past.time_us - then_us))
        return previous.tokens, state.tokens

    def plan(self, observation: Observation, truth: Frame | None, rng: np.random.Generator) -> Plan:
        """Encode, propose, imagine, score, refine."""
        began = time.perf_counter()
        previous, current = self.observe(observation)
        encoded = time.perf_counter()
        motion = kinematics(observation.ego, observation.route)
        policy = self.model.accelerations(previous, current, motion, "policy", self.config.band)
        wanted = self.proposals(policy)
        limits = np.minimum(observation.route.speed_limit_mps, self.config.cruise_mps)
        route = replace(observation.route, speed_limit_mps=limits)
        futures = drive_route(observation.ego.speed_mps, route, wanted)
        costs, terms, disagreement = self.score(futures, observation, np.stack([previous, current]), motion, policy)
        for _ in range(self.config.rounds):
            elite = wanted[np.argsort(costs)[: self.config.elites]]
            smooth = rng.normal(0.0, self.config.noise_mps2, (self.config.samples, 3))
            noise = np.repeat(smooth, -(-self.config.steps // 3), axis=1)[:, : self.config.steps]
            more = np.clip(elite[rng.integers(0, len(elite), self.config.samples)] + noise, -6.0, 2.5)
            extra = drive_route(observation.ego.speed_mps, route, more)
            more_costs, more_terms, more_doubt = self.score(
                extra, observation, np.stack([previous, current]), motion, policy
            )
            wanted, futures = np.concatenate([wanted, more]), Futures.join([futures, extra])
            costs, disagreement = np.concatenate([costs, more_costs]), np.concatenate([disagreement, more_doubt])
            terms = {key: np.concatenate([terms[key], more_terms[key]]) for key in terms}
        latency = {"encode_ms": (encoded - began) * 1e3, "search_ms": (time.perf_counter() - encoded) * 1e3}
        return self.choose(wanted, futures, costs, terms, disagreement, policy, latency)

    def proposals(self, policy: Array) -> Array:
        """Standing profiles, the policy's mean and quantiles, and the last plan shifted: (k, steps)."""
        steps = self.config.steps
        hold = [np.full(steps, a) for a in policy]
        ease = [np.concatenate([np.full(2, a), np.full(steps - 2, 0.3 * a)]) for a in policy]
        sets = [two_phase(steps), np.array(hold), np.array(ease)]
        if self.last is not None:
            sets.append(self.last[None])
        return np.concatenate(sets)

    def score(
        self,
        futures: Futures,
        observation: Observation,
        context: NDArray[np.float32],
        motion: NDArray[np.float32],
        policy: Array,
    ) -> tuple[Array, dict[str, Array], Array]:
        """Costs (k,), their terms, and the mean disagreement (k,) of imagined futures."""
        c = self.config
        imagined, doubt = self.model.imagine(context, observation.ego.speed_mps, futures.actions)
        features = imagined_kinematics(motion, futures.speeds_mps, futures.actions, futures.distances_m)
        risk = np.maximum(self.model.risks(context[1], imagined, features).astype(np.float64) - c.risk_floor, 0.0)
        eager = self.eagerness(observation.ego)
        weight = c.discount ** np.arange(c.steps)
        doubt_mean = np.asarray(doubt.numpy(), dtype=np.float64).mean(1)
        first = futures.actions[:, :2, 0].mean(1)
        faster, slower = np.maximum(first - policy[2], 0.0), np.maximum(policy[1] - first, 0.0)
        acceleration = futures.actions[..., 0]
        terms = {
            "collision": c.collision_weight * (risk[..., 0] * weight).sum(1),
            "near": c.near_weight * (risk[..., 1] * weight).sum(1),
            "red light": c.red_weight * risk[..., 2].sum(1),
            "progress": -c.progress_weight * eager * futures.distances_m[:, -1] / c.progress_scale_m,
            "trust": (
                c.trust_weight * (faster**2 + c.brake_trust * slower**2) + c.mean_weight * (first - policy[0]) ** 2
            )
            / eager,
            "comfort": c.comfort_weight * (acceleration**2).sum(1)
            + c.change_weight * (np.diff(acceleration) ** 2).sum(1),
            "disagreement": c.disagreement_weight * doubt_mean,
        }
        return np.sum(list(terms.values()), axis=0), terms, doubt_mean

    def choose(
        self, wanted: Array, futures: Futures, costs: Array, terms: dict[str, Array], disagreement: Array,
        policy: Array, latency: dict[str, float],
    ) -> Plan:  # fmt: skip
        """The cheapest future, unless imagination cannot be trusted there."""
        order = np.argsort(costs, kind="stable")
        best, fallback = int(order[0]), ""
        if disagreement[best] > self.config.fallback_disagreement:
            cautious = np.abs(wanted[:, 0] - min(policy[1], 0.0))
            best, fallback = int(np.argmin(cautious)), "ensemble disagrees: following the policy's cautious side"
        self.last = np.concatenate([wanted[best][1:], wanted[best][-1:]])
        steps = wanted.shape[1]
        trajectory = Trajectory(np.arange(1.0, steps + 1.0) * STEP_S, futures.poses[best], futures.speeds_mps[best])
        shown = order[:16]
        return Plan(
            trajectory=trajectory,
            actions=futures.actions[best],
            cost_terms={key: float(value[best]) for key, value in terms.items()},
            candidates=futures.poses[shown].astype(np.float32),
            candidate_costs=costs[shown].astype(np.float32),
            diagnostics=latency | {"disagreement": float(disagreement[best]), "policy_mps2": float(policy[0])},
            fallback=fallback,
        )
