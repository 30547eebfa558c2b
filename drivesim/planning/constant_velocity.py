"""The baseline that everybody must beat: keeps its lane along the route at the speed that it had at the start.

Exactly: the first plan of an episode fixes the target speed: the ego's speed then, or, if it starts
(nearly) from rest, the speed limit of the route beside it. From then on every plan follows the route's
centre line at that speed, accelerating or braking towards it gently. It never looks at an image, an
actor, a light, a bend or a later speed limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import CameraRig, Frame, Observation, Plan, Scenario, Trajectory
from drivesim.planning.reference_path import STEP_M, SampledRoute, drive_onto, route_line

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ConstantVelocityConfig:
    """The baseline's few numbers."""

    at_rest_mps: float = 0.5  # slower at the start counts as standing: then the speed limit is the target
    acceleration_mps2: float = 2.0
    settle_m: float = 6.0
    steps: int = 16
    dt_s: float = 0.25


class ConstantVelocityPlanner:
    """See the module's text and `drivesim.interfaces.Planner`."""

    name = "constant-velocity"
    needs_images = False
    privileged = False

    def __init__(self, config: ConstantVelocityConfig | None = None) -> None:
        self.config = config or ConstantVelocityConfig()
        self._target_mps: float | None = None

    def reset(self, scenario: Scenario, rig: CameraRig, seed: int) -> None:
        """Forget the target speed."""
        self._target_mps = None

    def plan(self, observation: Observation, truth: Frame | None, rng: np.random.Generator) -> Plan:
        """Lane keeping at the target speed."""
        config, route = self.config, observation.route
        speed = max(observation.ego.speed_mps, 0.0)
        if self._target_mps is None:
            limit = float(route.speed_limit_mps[0]) if len(route.speed_limit_mps) else 8.0
            self._target_mps = speed if speed > config.at_rest_mps else limit
        speeds = _towards(speed, self._target_mps, config)
        driven = np.cumsum(0.5 * (speeds[1:] + speeds[:-1]) * config.dt_s)
        length_m = max(float(driven[-1]), 10.0) + 10.0
        path = drive_onto(SampledRoute.from_line(route_line(route.points_m, length_m)), 0.0, length_m, config.settle_m)
        poses = path.at(driven)
        start = np.clip((np.concatenate([[0.0], driven[:-1]]) / STEP_M).astype(np.int64), 0, len(path.poses) - 1)
        actions = np.column_stack([np.diff(speeds) / config.dt_s, path.curvature_1pm[start]])
        times = config.dt_s * np.arange(1, config.steps + 1, dtype=np.float64)
        return Plan(Trajectory(times, poses, speeds[1:]), actions, diagnostics={"target_mps": self._target_mps})


def _towards(speed_mps: float, target_mps: float, config: ConstantVelocityConfig) -> Array:
    """Speeds (steps + 1,) from now on, changing at no more than the configured acceleration."""
    change = config.acceleration_mps2 * config.dt_s * np.arange(config.steps + 1)
    sign = 1.0 if target_mps >= speed_mps else -1.0
    return np.asarray(speed_mps + sign * np.minimum(change, abs(target_mps - speed_mps)))
