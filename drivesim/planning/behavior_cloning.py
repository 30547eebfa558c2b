"""Behaviour cloning: do what the expert did in states that look like this one. No imagination, no search."""

from __future__ import annotations

import time

import numpy as np

from drivesim.datatypes import Frame, Observation, Plan, Trajectory
from drivesim.planning.kinematics import kinematics
from drivesim.planning.latent_planner import ImaginationModel, LatentPlanner, LatentPlannerConfig
from drivesim.planning.proposals import STEP_S, drive_route


class PolicyPlanner(LatentPlanner):
    """Drives along the route at the acceleration that one head reads from the frozen latent.

    With head "clone" this is behaviour cloning of the expert's calm drives on the same latent that the
    latent planner uses; with head "policy" it is that planner's own prior, without imagination.
    """

    def __init__(self, model: ImaginationModel, name: str = "behaviour-cloning", head: str = "clone") -> None:
        super().__init__(model, LatentPlannerConfig(), name)
        self.head = head

    def plan(self, observation: Observation, truth: Frame | None, rng: np.random.Generator) -> Plan:
        """Encode, read the head, drive the route at that acceleration."""
        began = time.perf_counter()
        previous, current = self.observe(observation)
        motion = kinematics(observation.ego, observation.route)
        chosen = self.model.accelerations(previous, current, motion, self.head)
        steps = self.config.steps
        profile = np.concatenate([np.full(2, chosen[0]), np.full(steps - 2, 0.5 * chosen[0])])
        future = drive_route(observation.ego.speed_mps, observation.route, profile[None])
        times = np.arange(1.0, steps + 1.0) * STEP_S
        return Plan(
            Trajectory(times, future.poses[0], future.speeds_mps[0]),
            future.actions[0],
            diagnostics={"encode_ms": (time.perf_counter() - began) * 1e3, "policy_mps2": float(chosen[0])},
        )
