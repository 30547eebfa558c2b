"""What a planner returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Trajectory:
    """Future ego poses in the ego frame at the moment of planning.

    Attributes:
        times_s: (p,) seconds from now, increasing.
        poses: (p, 3) x, y, yaw of the rear axle.
        speeds_mps: (p,).
    """

    times_s: NDArray[np.float64]
    poses: NDArray[np.float64]
    speeds_mps: NDArray[np.float64]

    def validate(self) -> None:
        """Raise ValueError unless shapes agree, times increase and all is finite."""
        p = len(self.times_s)
        if self.poses.shape != (p, 3) or self.speeds_mps.shape != (p,):
            raise ValueError(f"trajectory shapes: {p} times, poses {self.poses.shape}, speeds {self.speeds_mps.shape}")
        if p == 0 or np.any(np.diff(self.times_s) <= 0) or not np.all(np.isfinite(self.poses)):
            raise ValueError("trajectory times must increase and poses be finite")


@dataclass(frozen=True)
class Plan:
    """The chosen future, and why.

    Attributes:
        trajectory: what the controller tracks.
        actions: (p, 2) acceleration and curvature of the chosen future.
        cost_terms: name -> cost of the chosen candidate.
        candidates: (k, p, 3) poses that were imagined, best first, or None.
        candidate_costs: (k,) or None.
        diagnostics: scalars for reports (risk, disagreement, surprise, latency parts...).
        fallback: why a safe proposal replaced the search's choice, or "".
    """

    trajectory: Trajectory
    actions: NDArray[np.float64]
    cost_terms: dict[str, float] = field(default_factory=dict)
    candidates: NDArray[np.float32] | None = None
    candidate_costs: NDArray[np.float32] | None = None
    diagnostics: dict[str, float] = field(default_factory=dict)
    fallback: str = ""
