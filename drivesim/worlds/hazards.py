"""How likely something happens within an imagined half second, by what heads and probes say of its end.

A head says whether boxes overlap at a moment, asked of an imagination that drifts; what is wanted is the share of
drives to which it happens then and not before (discrete-time survival, Allison 1982). A logistic curve makes the one
of the other. Its numbers are fitted to what logs say would have happened (`eval.hazards`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

COLLISION, NEAR, RED_LIGHT = range(3)  # columns of the risks
STANDING_MPS = 0.1  # who stands hits nobody and crosses no line
LEAST = 1e-4  # what is told from no risk at all
NEAREST_M, SOON_1PS, CLOSE_M = 0.5, 3.0, 3.0


@dataclass(frozen=True)
class Hazard:
    """sigmoid(bias + slope logit p + closing c + close n) for a head's probability p and `evidence` (c, n)."""

    bias: float = 0.0
    slope: float = 1.0
    closing: float = 0.0
    close: float = 0.0

    def of(self, probability: Array, seen: Array | None = None) -> Array:
        """Of probabilities, any shape (...), with evidence (..., 2) or none."""
        logit = self.bias + self.slope * log_odds(probability)
        if seen is not None:
            logit = logit + seen @ np.array([self.closing, self.close])
        return np.asarray(1.0 / (1.0 + np.exp(-logit)))


@dataclass(frozen=True)
class Hazards:
    """Of collisions and of run red lights, as fitted for the shipped model on fresh drives in its training towns."""

    collision: Hazard = Hazard(-2.38, 0.49, 0.6, 0.76)
    red_light: Hazard = Hazard(-1.44, 0.67)

    def of(self, risks: Array, speed_mps: Array, seen: Array | None = None) -> Array:
        """Probabilities (..., 2) of a collision and of a run red light, from risks (..., 3), speeds (...), evidence."""
        both = [self.collision.of(risks[..., COLLISION], seen), self.red_light.of(risks[..., RED_LIGHT], seen)]
        return np.stack(both, axis=-1) * (speed_mps > STANDING_MPS)[..., None]


def log_odds(probability: Array) -> Array:
    """Of probabilities, bounded."""
    sure = np.clip(probability, LEAST, 1.0 - LEAST)
    return np.asarray(np.log(sure / (1.0 - sure)))


def evidence(readings: Array, readouts: Sequence[str], speed_mps: Array) -> Array:
    """What probes see of the car ahead (..., 2): how fast its gap closes (gaps a second), and how close it is.

    Both are weighted by how sure the probe is that there is one; zero where nothing reads the lead.

    Args:
        readings: (..., read-outs); speed_mps (...).
    """
    column = {name: k for k, name in enumerate(readouts)}
    if not {"lead_present", "lead_gap", "lead_speed"} <= set(column):
        return np.zeros((*speed_mps.shape, 2))
    present = 1.0 / (1.0 + np.exp(-readings[..., column["lead_present"]]))
    gap_m = np.maximum(readings[..., column["lead_gap"]], NEAREST_M)
    faster = np.maximum(speed_mps - readings[..., column["lead_speed"]], 0.0)
    return np.stack([np.minimum(present * faster / gap_m, SOON_1PS), present / (1.0 + gap_m / CLOSE_M)], axis=-1)
