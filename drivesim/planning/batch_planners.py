"""Planners that need no pictures, for many drives at once: one call plans for everybody.

They take the present latents where their single counterparts encode pictures, or look at nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes.motions import Motions
from drivesim.planning.batch_following import RouteFollower
from drivesim.planning.constant_velocity import ConstantVelocityConfig
from drivesim.planning.proposals import STEP_S
from drivesim.planning.readout_rule import ReadoutRuleConfig, rule_acceleration

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
STEPS = 6


@dataclass(frozen=True)
class Seen:
    """What batched planners may see at a latent tick.

    Attributes:
        motions: the cars on their routes.
        previous, current: (b, n, d) the last two latents.
        kinematics: (b, 16) of this moment.
        reads: (b,) by read-out name.
        generators: one for each drive.
    """

    motions: Motions
    previous: Floats
    current: Floats
    kinematics: Floats
    reads: dict[str, Floats]
    generators: list[np.random.Generator]


@dataclass(frozen=True)
class BatchPlan:
    """Plans of everybody.

    Attributes:
        times_s: (p,) from now.
        poses: (b, p, 3) in each ego frame now; speeds_mps (b, p).
    """

    times_s: Array
    poses: Array
    speeds_mps: Array


class BatchPlanner(Protocol):
    """As `drivesim.interfaces.Planner`, for a batch."""

    name: str

    def reset(self, motions: Motions) -> None:
        """Forget the last batch; everybody stands at the start."""
        ...

    def plan(self, seen: Seen) -> BatchPlan:
        """Plan for everybody from now."""
        ...


class AccelerationModel(Protocol):
    """A world model whose policy heads answer for many drives."""

    def acceleration(self, previous: Floats, current: Floats, kinematics: Floats, head: str) -> Array:
        """Mean acceleration (b,) in m/s2 of a policy head."""
        ...


class _Following:
    """Everybody follows its route at an acceleration."""

    def reset(self, motions: Motions) -> None:
        """Take the routes."""
        self._follower = RouteFollower(motions.curves, motions.limits_mps)

    def _follow(self, motions: Motions, accelerations: Array, *, obey_caps: bool = True) -> BatchPlan:
        poses, speeds, _ = self._follower.drive(motions, accelerations, obey_caps=obey_caps)
        return BatchPlan(STEP_S * np.arange(1.0, accelerations.shape[1] + 1.0), poses, speeds)


class BatchPolicy(_Following):
    """`PolicyPlanner`: the acceleration that one head reads from the latent, along the route."""

    def __init__(self, model: AccelerationModel, name: str, head: str) -> None:
        self.model, self.name, self.head = model, name, head

    def plan(self, seen: Seen) -> BatchPlan:
        """Read the head, drive the route at that acceleration, half of it after the first second."""
        chosen = self.model.acceleration(seen.previous, seen.current, seen.kinematics, self.head)
        share = np.where(np.arange(STEPS) < 2, 1.0, 0.5)
        return self._follow(seen.motions, chosen[:, None] * share)


class BatchConstantVelocity(_Following):
    """`ConstantVelocityPlanner`: the speed of the start, or the limit from rest; looks at nothing."""

    name = "constant-velocity"

    def __init__(self, config: ConstantVelocityConfig | None = None) -> None:
        self.config = config or ConstantVelocityConfig()

    def reset(self, motions: Motions) -> None:
        """Fix the target speeds."""
        super().reset(motions)
        k, _ = motions.curves.locate(motions.s_m)
        limit = motions.limits_mps[np.arange(len(k)), k]
        self._target_mps = np.where(motions.speed_mps > self.config.at_rest_mps, motions.speed_mps, limit)

    def plan(self, seen: Seen) -> BatchPlan:
        """Lane keeping at the target speed."""
        speed, steps = seen.motions.speed_mps.copy(), []
        most = self.config.acceleration_mps2 * STEP_S
        for _ in range(STEPS + 2):
            change = np.clip(self._target_mps - speed, -most, most)
            steps.append(change / STEP_S)
            speed = speed + change
        return self._follow(seen.motions, np.stack(steps, axis=1), obey_caps=False)


class BatchReadoutRule(_Following):
    """`ReadoutRulePlanner`: an intelligent driver model on what the probes read."""

    def __init__(self, config: ReadoutRuleConfig | None = None, name: str = "readout-rule") -> None:
        self.config, self.name = config or ReadoutRuleConfig(), name

    def plan(self, seen: Seen) -> BatchPlan:
        """One acceleration from the rule, held; the route's caps do the rest."""
        k, _ = seen.motions.curves.locate(seen.motions.s_m)
        limit = seen.motions.limits_mps[np.arange(len(k)), k]
        chosen = rule_acceleration(seen.motions.speed_mps, limit, seen.reads, self.config)
        return self._follow(seen.motions, np.repeat(chosen[:, None], STEPS, axis=1))
