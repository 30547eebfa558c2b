"""An amortised policy: what the latent planner's search would choose, in one forward pass and without imagination."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import Frame, Observation, Plan, Trajectory
from drivesim.planning.kinematics import kinematics
from drivesim.planning.latent_planner import ImaginationModel, LatentPlanner, LatentPlannerConfig, cruising
from drivesim.planning.proposals import STEP_S, drive_route

Array = NDArray[np.float64]


class SearchHead(Protocol):
    """What the planner needs of a distilled policy (drivesim.models.distilled.DistilledPolicy has it)."""

    def phases(
        self, context: NDArray[np.float32], kinematics: NDArray[np.float32], eager: float, prior: Array
    ) -> Array:
        """Accelerations (2,) in m/s2 of a plan's first second and of its rest.

        Args:
            context: (2, n, d) latents; kinematics (16,); eager the factor on progress.
            prior: (3,) the policy's mean and band, m/s2.
        """
        ...


def two_phases(phases: Array, steps: int) -> Array:
    """Phases (2,) as a profile (steps,), as the standing proposals have them."""
    return np.repeat(phases, [2, steps - 2])


class DistilledPlanner(LatentPlanner):
    """Drives along the route at the accelerations that a head, taught by the search, reads from the latent."""

    def __init__(
        self, model: ImaginationModel, head: SearchHead, config: LatentPlannerConfig | None = None,
        name: str = "latent-distilled",
    ) -> None:  # fmt: skip
        super().__init__(model, config, name)
        self.head = head

    def plan(self, observation: Observation, truth: Frame | None, rng: np.random.Generator) -> Plan:
        """Encode, read the head, drive the route as it says."""
        began = time.perf_counter()
        context = np.stack(self.observe(observation))
        encoded = time.perf_counter()
        eager = self.eagerness(observation.ego)
        motion = kinematics(observation.ego, observation.route)
        policy = self.model.accelerations(context[0], context[1], motion, "policy", self.config.band)
        profile = two_phases(self.head.phases(context, motion, eager, policy), self.config.steps)
        route = cruising(observation.route, self.config)
        future = drive_route(observation.ego.speed_mps, route, profile[None])
        times = np.arange(1.0, self.config.steps + 1.0) * STEP_S
        told = {"encode_ms": (encoded - began) * 1e3, "search_ms": (time.perf_counter() - encoded) * 1e3}
        return Plan(
            Trajectory(times, future.poses[0], future.speeds_mps[0]),
            future.actions[0],
            diagnostics=told | {"eager": eager, "policy_mps2": float(policy[0])},
        )
