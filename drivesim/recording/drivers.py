"""Who drives for the logs: the safe expert, the expert with a shaky hand, risky drivers of many kinds, or a planner.

A planner's own drives hold what it gets itself into, which no other driver's do; the expert's label at each of their
ticks says what would have been right there (DAgger: Ross et al. 2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from drivesim.control.tracker import DEFAULT_TRACKER, TrajectoryTracker, control_for_action
from drivesim.datatypes import CameraRig, Control, EgoState, Frame, Plan, Scenario
from drivesim.drive import Driver
from drivesim.interfaces import Planner
from drivesim.logs import MODE_NOISE, MODE_RISKY
from drivesim.planning.expert import ExpertConfig, ExpertPlanner

PLAN_PERIOD_US = 250_000


@dataclass(frozen=True)
class DriverStyle:
    """A driver: how it plans, and how its foot and hand shake.

    Attributes:
        acceleration_noise_mps2, lateral_noise_mps2: standard deviation of a slow (1 s) wandering.
        weave_m: the lateral target wanders within this distance of the lane's centre.
        brake_rate_1ps: sudden brakes for no reason.
    """

    expert: ExpertConfig = field(default_factory=ExpertConfig)
    acceleration_noise_mps2: float = 0.0
    lateral_noise_mps2: float = 0.0
    weave_m: float = 0.0
    brake_rate_1ps: float = 0.0


def draw_style(mode: int, rng: np.random.Generator) -> DriverStyle:
    """A driver of a kind (MODE_*)."""
    if mode == MODE_NOISE:
        return DriverStyle(
            acceleration_noise_mps2=float(rng.uniform(0.3, 0.9)),
            lateral_noise_mps2=float(rng.uniform(0.2, 0.6)),
            weave_m=float(rng.uniform(0.0, 0.5)),
            brake_rate_1ps=0.02,
        )
    if mode != MODE_RISKY:
        return DriverStyle()
    expert = ExpertConfig(
        name="risky",
        headway_s=float(rng.uniform(0.2, 1.0)),
        min_gap_m=float(rng.uniform(0.8, 2.0)),
        standing_gap_m=float(rng.uniform(0.8, 3.0)),
        acceleration_mps2=float(rng.uniform(1.5, 3.5)),
        max_brake=float(rng.choice([1.5, 3.0, 4.5, 7.0, 7.0, 7.0])),
        lateral_acceleration_mps2=float(rng.uniform(2.0, 3.5)),
        speed_factor=float(rng.uniform(0.85, 1.3)),
        ignore_red=bool(rng.random() < 0.3),
        ignore_walkers=bool(rng.random() < 0.25),
        ignore_vehicles=bool(rng.random() < 0.05),
        overtakes=bool(rng.random() < 0.5),
        careful=bool(rng.random() < 0.3),
    )
    return DriverStyle(
        expert=expert,
        acceleration_noise_mps2=float(rng.uniform(0.2, 1.0)),
        lateral_noise_mps2=float(rng.uniform(0.1, 0.8)),
        weave_m=float(rng.choice([0.0, 0.4, 0.8, 1.3])),
        brake_rate_1ps=float(rng.uniform(0.0, 0.05)),
    )


class LogDriver:
    """Plans four times a second from the truth, tracks the plan every step, and errs as its style says."""

    def __init__(self, style: DriverStyle, rng: np.random.Generator) -> None:
        self.style = style
        self._rng = rng
        self._planner = ExpertPlanner(style.expert)
        self._tracker = TrajectoryTracker()
        self._plan: Plan | None = None
        self._plan_ego: EgoState | None = None
        self._wander = np.zeros(2)  # acceleration, lateral acceleration
        self._brake_until_us = -1
        self._weave_until_us = -1
        self._planner.forget()

    def control(self, frame: Frame, dt_s: float) -> Control:
        """The control of the coming step."""
        if self._plan is None or self._plan_ego is None or frame.time_us - self._plan_ego.time_us >= PLAN_PERIOD_US:
            self._weave(frame.time_us)
            self._plan, self._plan_ego = self._planner.plan_frame(frame), frame.ego
        control = self._tracker.control(self._plan, self._plan_ego, frame.ego)
        style = self.style
        if style.acceleration_noise_mps2 == 0.0 and style.brake_rate_1ps == 0.0:
            return control
        return self._disturbed(control, frame.ego, frame.time_us, dt_s)

    def _weave(self, time_us: int) -> None:
        if self.style.weave_m > 0.0 and time_us >= self._weave_until_us:
            offset_m = float(self._rng.uniform(-1.0, 1.0)) * self.style.weave_m
            self._planner.config = replace(self.style.expert, lateral_offset_m=offset_m)
            self._weave_until_us = time_us + int(self._rng.uniform(3e6, 8e6))

    def _disturbed(self, control: Control, ego: EgoState, time_us: int, dt_s: float) -> Control:
        style, vehicle = self.style, DEFAULT_TRACKER.vehicle
        sigma = np.array([style.acceleration_noise_mps2, style.lateral_noise_mps2])
        self._wander += -self._wander * dt_s + sigma * math.sqrt(2.0 * dt_s) * self._rng.normal(size=2)
        if self._rng.random() < style.brake_rate_1ps * dt_s:
            self._brake_until_us = time_us + int(self._rng.uniform(0.6e6, 2.0e6))
        if time_us < self._brake_until_us:
            return Control(control.steer, 0.0, 0.65)
        if ego.speed_mps < 0.5 and control.brake > 0.5:
            return control  # who waits, waits
        v = max(ego.speed_mps, 0.0)
        drive = control.throttle * vehicle.drive_mps2 * max(1.0 - v / vehicle.top_speed_mps, 0.05)
        wanted = drive - control.brake * vehicle.brake_mps2 - vehicle.rolling_mps2 - vehicle.drag_1pm * v * v
        curvature = math.tan(control.steer * vehicle.max_wheel_angle_rad) / (2.0 * ego.rear_axle_to_center_m)
        curvature += float(self._wander[1]) / max(v, 5.0) ** 2
        return control_for_action(wanted + float(self._wander[0]), curvature, ego)


class PlannerDriver:
    """A planner at the wheel, as in an evaluation: it sees the rig's pictures whenever its next plan is due."""

    def __init__(self, planner: Planner, rig: CameraRig, render: Callable[[], NDArray[np.uint8]]) -> None:
        self._driver, self._render = Driver(planner, TrajectoryTracker(), rig), render
        self._next_us = -1

    def reset(self, scenario: Scenario, seed: int) -> None:
        """Forget the last drive."""
        self._driver.reset(scenario, seed)
        self._next_us = -1

    def control(self, frame: Frame, _dt_s: float) -> Control:
        """The control of the coming step."""
        if frame.time_us < self._next_us:
            return self._driver.act(replace(frame, images=None))
        self._next_us = frame.time_us + PLAN_PERIOD_US
        seen = self._render() if self._driver.planner.needs_images else None
        return self._driver.act(replace(frame, images=seen))
