"""What conditions the predictor: motion, not pedals, so that it is free of the simulator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Action:
    """Acceleration along the path and path curvature, held for one latent tick.

    Attributes:
        values: (..., 2) float: acceleration_mps2, curvature_1pm (left positive).
    """

    values: NDArray[np.float64]

    @property
    def acceleration_mps2(self) -> NDArray[np.float64]:
        """(...) acceleration."""
        return np.asarray(self.values[..., 0])

    @property
    def curvature_1pm(self) -> NDArray[np.float64]:
        """(...) curvature."""
        return np.asarray(self.values[..., 1])


@dataclass(frozen=True)
class Control:
    """What a world accepts: steer in [-1, 1] (LEFT positive), throttle and brake in [0, 1]."""

    steer: float
    throttle: float
    brake: float

    def validate(self) -> None:
        """Raise ValueError unless every pedal is in range."""
        if not (-1.0 <= self.steer <= 1.0 and 0.0 <= self.throttle <= 1.0 and 0.0 <= self.brake <= 1.0):
            raise ValueError(f"control out of range: {self}")
