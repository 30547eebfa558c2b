"""A rule on read-outs: the intelligent driver model on the gap, the lead and the light that probes read.

A study's instrument (it needs the probes, which are no planner's input elsewhere): it says how far the
latent alone carries a driver that can do nothing but follow a formula (Treiber, Hennecke, Helbing 2000).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import Frame, Observation, Plan, Trajectory
from drivesim.planning.latent_planner import LatentPlanner, LatentPlannerConfig
from drivesim.planning.proposals import STEP_S, drive_route

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ReadoutRuleConfig:
    """The driver model's numbers."""

    headway_s: float = 1.4
    min_gap_m: float = 3.0
    acceleration_mps2: float = 1.8
    comfort_braking_mps2: float = 2.5
    max_brake_mps2: float = 6.0
    light_brake_mps2: float = 2.5  # the probe says that a light is closed, not how far it is
    walker_mps: float = 3.0  # no faster than this beside somebody on foot


def rule_acceleration(
    speed_mps: Array, limit_mps: Array, reads: Mapping[str, NDArray[np.float32]], config: ReadoutRuleConfig
) -> Array:
    """Acceleration (b,) in m/s2.

    Args:
        reads: (b,) of lead_gap (m), lead_speed (m/s), and the logits lead_present, red_light and walker_ahead.
    """
    v = np.maximum(speed_mps, 0.0)
    wanted = np.where(reads["walker_ahead"] > 0.0, np.minimum(limit_mps, config.walker_mps), limit_mps)
    free = 1.0 - (v / np.maximum(wanted, 0.5)) ** 4
    lead = np.asarray(reads["lead_present"]) > 0.0
    gap = np.maximum(np.asarray(reads["lead_gap"], np.float64), 0.3)
    closing = v * (v - np.asarray(reads["lead_speed"], np.float64))
    root = 2.0 * np.sqrt(config.acceleration_mps2 * config.comfort_braking_mps2)
    desired = config.min_gap_m + np.maximum(config.headway_s * v + closing / root, 0.0)
    chosen = config.acceleration_mps2 * (free - np.where(lead, (desired / gap) ** 2, 0.0))
    chosen = np.where(reads["red_light"] > 0.0, np.minimum(chosen, -config.light_brake_mps2), chosen)
    return np.clip(chosen, -config.max_brake_mps2, config.acceleration_mps2)


class ReadoutRulePlanner(LatentPlanner):
    """Encodes pictures, reads the probes, follows the rule along the route."""

    def __init__(self, model: Any, config: ReadoutRuleConfig | None = None, name: str = "readout-rule") -> None:
        """`model` has `readout` besides what a latent planner needs (drivesim.models.WorldModel)."""
        super().__init__(model, LatentPlannerConfig(), name)
        self.rule = config or ReadoutRuleConfig()

    def plan(self, observation: Observation, truth: Frame | None, rng: np.random.Generator) -> Plan:
        """Encode, read, drive the route at the rule's acceleration."""
        began = time.perf_counter()
        previous, current = self.observe(observation)
        model: Any = self.model
        read = model.readout(previous, current, np.zeros(16, np.float32))
        reads = {name: np.array([value], np.float32) for name, value in read.items()}
        limits = observation.route.speed_limit_mps
        speed, limit = np.array([observation.ego.speed_mps]), np.array([limits[0] if len(limits) else 8.0])
        chosen = float(rule_acceleration(speed, limit, reads, self.rule)[0])
        steps = self.config.steps
        future = drive_route(observation.ego.speed_mps, observation.route, np.full((1, steps), chosen))
        times = np.arange(1.0, steps + 1.0) * STEP_S
        return Plan(
            Trajectory(times, future.poses[0], future.speeds_mps[0]),
            future.actions[0],
            diagnostics={"encode_ms": (time.perf_counter() - began) * 1e3, "rule_mps2": chosen},
        )
