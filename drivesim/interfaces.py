"""The protocols, on one page: the map of the house (floor 3).

worlds --Frame--> logs --clip--> Encoder --LatentState--> Predictor --imagined--> Planner
Planner --Plan--> Controller --Control--> worlds
Episode --> Metric --> Outcome --> reports
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import (
    CameraRig,
    Control,
    EgoState,
    Episode,
    Frame,
    LatentState,
    Measure,
    Observation,
    Plan,
    Scenario,
)


class World(Protocol):
    """What a driver drives in: CARLA (either server), the town in process, a log, or imagination."""

    def reset(self, scenario: Scenario, seed: int) -> Frame:
        """Build the scenario and return the first tick."""
        ...

    def step(self, control: Control) -> Frame:
        """Advance by the scenario's dt under `control` and return the next tick, truth included."""
        ...

    def close(self) -> None:
        """Give everything back; may be called twice."""
        ...


class Encoder(Protocol):
    """Images and calibration to an abstract state."""

    digest: str

    def encode(self, images: NDArray[np.uint8], rig: CameraRig, ego: EgoState) -> LatentState:
        """images (v, h, w, 3) uint8 RGB of the rig's cameras at one tick."""
        ...


class Predictor(Protocol):
    """What will be, given what is and what one does."""

    def rollout(
        self, latents: NDArray[np.float32], speed_mps: float, actions: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """latents (2, n, d) previous and current; actions (k, p, 2) -> imagined latents (k, p, n, d)."""
        ...


class Planner(Protocol):
    """Observation in, plan out. A planner that needs no latent gets None."""

    name: str
    needs_images: bool
    privileged: bool  # sees the truth (`truth` is passed); it is a ceiling, never a contestant

    def reset(self, scenario: Scenario, rig: CameraRig, seed: int) -> None:
        """Forget the last episode."""
        ...

    def plan(self, observation: Observation, truth: Frame | None, rng: np.random.Generator) -> Plan:
        """Plan from now; called every `plan_period_s`. `truth` is None unless `privileged`."""
        ...


class Controller(Protocol):
    """Tracks a plan with pedals and wheel, every world tick."""

    def reset(self) -> None:
        """Forget integrators."""
        ...

    def control(self, plan: Plan, plan_ego: EgoState, ego: EgoState) -> Control:
        """`plan_ego` is the ego state at the moment of planning (the plan's frame), `ego` the state now."""
        ...


class Metric(Protocol):
    """One number of one episode."""

    name: str
    unit: str

    def measure(self, episode: Episode) -> Measure:
        """Pure function of the episode."""
        ...
