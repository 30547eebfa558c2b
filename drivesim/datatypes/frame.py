"""One tick of a drive: what the driver may see (Observation) and what the judge may see (Frame)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes.action import Control
from drivesim.datatypes.state import ActorStates, EgoState, LightStates


@dataclass(frozen=True)
class RouteAhead:
    """The route from the ego on, in the ego frame; navigation is an input, not a secret.

    Attributes:
        points_m: (r, 2) centre line every metre, starting beside the ego (behind by at most a few metres).
        speed_limit_mps: (r,).
        remaining_m: distance to the goal along the route.
    """

    points_m: NDArray[np.float64]
    speed_limit_mps: NDArray[np.float64]
    remaining_m: float


@dataclass(frozen=True)
class Observation:
    """All that a driver may see; no truth.

    Attributes:
        images: (v, h, w, 3) uint8 RGB of the rig's cameras, or None between camera ticks.
        ego: ego state now (odometry).
        route: the route ahead.
    """

    time_us: int
    images: NDArray[np.uint8] | None
    ego: EgoState
    route: RouteAhead


@dataclass(frozen=True)
class Contact:
    """One collision of the ego this tick."""

    time_us: int
    other_id: int  # -1 for the scenery
    kind: str  # "vehicle", "walker" or "static"
    impulse: float


@dataclass(frozen=True)
class Frame:
    """One tick of truth: what the judge, the privileged expert and the log see."""

    time_us: int
    images: NDArray[np.uint8] | None
    ego: EgoState
    actors: ActorStates
    lights: LightStates
    route: RouteAhead
    control: Control | None = None  # the control that followed
    contacts: tuple[Contact, ...] = field(default=())

    @property
    def observation(self) -> Observation:
        """The part that a driver may see."""
        return Observation(self.time_us, self.images, self.ego, self.route)
