"""Planners made worse on purpose, the same in every world: delayed, blind, over-fast, noisy, timid."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.build import load_world_model, make_planner
from drivesim.datatypes import CameraRig, EgoState, Frame, Observation, Plan, Scenario, Trajectory
from drivesim.interfaces import Planner
from drivesim.planning.behavior_cloning import PolicyPlanner
from drivesim.planning.expert import ExpertConfig, ExpertPlanner

Array = NDArray[np.float64]

# Told the truth, they know more than a latent holds.
TOLD = frozenset(("expert", "expert-fast", "expert-timid", "expert-delayed", "expert-noisy"))
IGNORES_ALL: dict[str, Any] = {
    "ignore_red": True, "ignore_walkers": True, "ignore_vehicles": True, "overtakes": False, "careful": False,
}  # fmt: skip


class Worsened:
    """A planner whose plans are spoilt; sees through the eyes of the one inside."""

    def __init__(self, inner: Planner, name: str) -> None:
        self.inner, self.name = inner, name
        self.needs_images, self.privileged = inner.needs_images, inner.privileged

    @property
    def model(self) -> Any:
        """The inner planner's world model; no attribute where it has none."""
        return self.inner.model  # type: ignore[attr-defined]

    @model.setter
    def model(self, model: Any) -> None:
        self.inner.model = model  # type: ignore[attr-defined]

    def reset(self, scenario: Scenario, rig: CameraRig, seed: int) -> None:
        """Forget the last episode."""
        self.inner.reset(scenario, rig, seed)

    def plan(self, observation: Observation, truth: Frame | None, rng: np.random.Generator) -> Plan:
        """Plan, then spoil it."""
        return self.spoilt(self.inner.plan(observation, truth, rng), observation.ego, rng)

    def spoilt(self, plan: Plan, ego: EgoState, rng: np.random.Generator) -> Plan:
        """The plan that is driven instead."""
        return plan


class Biased(Worsened):
    """Drives the same path, always accelerating more (or less) than it should."""

    def __init__(self, inner: Planner, name: str, bias_mps2: float) -> None:
        super().__init__(inner, name)
        self.bias_mps2 = bias_mps2

    def spoilt(self, plan: Plan, ego: EgoState, rng: np.random.Generator) -> Plan:
        """Speeds of the plan with the bias added; a standing car is not held back from standing."""
        return along_path(plan, ego, self.bias_mps2)


class Noisy(Worsened):
    """Its foot shakes: every plan has another bias."""

    def __init__(self, inner: Planner, name: str, sigma_mps2: float) -> None:
        super().__init__(inner, name)
        self.sigma_mps2 = sigma_mps2

    def spoilt(self, plan: Plan, ego: EgoState, rng: np.random.Generator) -> Plan:
        """Speeds of the plan with a drawn bias."""
        return along_path(plan, ego, float(rng.normal(0.0, self.sigma_mps2)))


class Delayed(Worsened):
    """Drives what it planned some time ago."""

    def __init__(self, inner: Planner, name: str, delay_s: float) -> None:
        super().__init__(inner, name)
        self.delay_s = delay_s
        self._past: deque[tuple[EgoState, Plan]] = deque(maxlen=64)

    def reset(self, scenario: Scenario, rig: CameraRig, seed: int) -> None:
        """Forget the last episode."""
        super().reset(scenario, rig, seed)
        self._past.clear()

    def spoilt(self, plan: Plan, ego: EgoState, rng: np.random.Generator) -> Plan:
        """The youngest plan that is old enough (the first one until then), continued from here."""
        self._past.append((ego, plan))
        old = [item for item in self._past if (ego.time_us - item[0].time_us) * 1e-6 >= self.delay_s - 1e-6]
        then, chosen = old[-1] if old else self._past[0]
        return continued(chosen, then, ego)


class Frozen(PolicyPlanner):
    """A policy that looks once and never again."""

    def reset(self, scenario: Scenario, rig: CameraRig, seed: int) -> None:
        """Open the eyes once more."""
        super().reset(scenario, rig, seed)
        self._first: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def observe(self, observation: Observation) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What was seen first."""
        if self._first is None:
            self._first = super().observe(observation)
        return self._first


class Standing:
    """Stays, or comes to a stand."""

    name, needs_images, privileged = "standing", False, False

    def reset(self, scenario: Scenario, rig: CameraRig, seed: int) -> None:
        """Nothing to forget."""

    def plan(self, observation: Observation, truth: Frame | None, rng: np.random.Generator) -> Plan:
        """Brake at 3 m/s2, straight on."""
        times = 0.5 * np.arange(1.0, 9.0)
        start = max(observation.ego.speed_mps, 0.0)
        speeds = np.maximum(start - 3.0 * times, 0.0)
        stop_s = np.minimum(times, start / 3.0)
        driven = start * stop_s - 1.5 * stop_s**2
        poses = np.stack([driven, np.zeros(8), np.zeros(8)], axis=-1)
        return Plan(Trajectory(times, poses, speeds), np.stack([np.full(8, -3.0), np.zeros(8)], axis=-1))


def along_path(plan: Plan, ego: EgoState, bias_mps2: float) -> Plan:
    """The plan's path at other speeds: v(t) + bias t, never backwards; straight on beyond its end."""
    trajectory = plan.trajectory
    times = np.concatenate([[0.0], trajectory.times_s])
    path = np.concatenate([np.zeros((1, 3)), trajectory.poses])
    planned = np.concatenate([[max(ego.speed_mps, 0.0)], trajectory.speeds_mps])
    speeds = np.maximum(planned + bias_mps2 * times, 0.0)
    driven = np.concatenate([[0.0], np.cumsum(0.5 * (speeds[1:] + speeds[:-1]) * np.diff(times))])
    poses = _on_path(path, driven)
    return replace(plan, trajectory=Trajectory(trajectory.times_s, poses[1:], speeds[1:]))


def _on_path(path: Array, driven_m: Array) -> Array:
    """Poses (p, 3) at distances along a path (n, 3)."""
    step = np.hypot(*np.diff(path[:, :2], axis=0).T)
    keep = np.concatenate([[True], step > 1e-4])
    stations = np.concatenate([[0.0], np.cumsum(step)])[keep]
    points = path[keep]
    x, y, yaw = (np.interp(driven_m, stations, points[:, k]) for k in range(3))
    beyond = np.maximum(driven_m - stations[-1], 0.0)
    return np.stack([x + beyond * np.cos(yaw), y + beyond * np.sin(yaw), yaw], axis=-1)


def continued(plan: Plan, then: EgoState, now: EgoState) -> Plan:
    """A plan made at `then`, from `now` on, in the frame of now; held straight on beyond its end."""
    late_s = (now.time_us - then.time_us) * 1e-6
    trajectory = plan.trajectory
    times = np.concatenate([[0.0], trajectory.times_s])
    path = np.concatenate([np.zeros((1, 3)), trajectory.poses])
    speeds = np.concatenate([[max(then.speed_mps, 0.0)], trajectory.speeds_mps])
    at = trajectory.times_s + late_s
    speed = np.interp(at, times, speeds)
    x, y, yaw = (np.interp(at, times, path[:, k]) for k in range(3))
    beyond = np.maximum(at - times[-1], 0.0) * speeds[-1]
    x, y = x + beyond * np.cos(yaw), y + beyond * np.sin(yaw)
    c, s = math.cos(then.yaw_rad), math.sin(then.yaw_rad)
    dx, dy = then.x_m + c * x - s * y - now.x_m, then.y_m + s * x + c * y - now.y_m
    c, s = math.cos(now.yaw_rad), math.sin(now.yaw_rad)
    poses = np.stack([c * dx + s * dy, -s * dx + c * dy, yaw + then.yaw_rad - now.yaw_rad], axis=-1)
    return replace(plan, trajectory=Trajectory(trajectory.times_s, poses, speed))


def contestants(checkpoint: Path | None) -> dict[str, Callable[[], Planner]]:
    """Name -> a fresh planner: ours, and versions of them made worse on purpose."""

    def ours(name: str) -> Callable[[], Planner]:
        return lambda: make_planner(name, checkpoint)

    def expert(name: str, **changes: Any) -> Callable[[], Planner]:
        return lambda: ExpertPlanner(ExpertConfig(name=name, **changes))

    def policy() -> Planner:
        return make_planner("latent-policy", checkpoint)

    return {
        "expert": ours("expert"),
        "expert-fast": expert("expert-fast", speed_factor=1.6, headway_s=0.4, min_gap_m=1.0, acceleration_mps2=3.5,
                              lateral_acceleration_mps2=4.0, careful=False),
        "expert-timid": expert("expert-timid", speed_factor=0.4, headway_s=3.0),
        "expert-blind": expert("expert-blind", **IGNORES_ALL),
        "expert-blind-slow": expert("expert-blind-slow", speed_factor=0.5, **IGNORES_ALL),
        "expert-blind-fast": expert("expert-blind-fast", speed_factor=1.6, **IGNORES_ALL),
        "expert-delayed": lambda: Delayed(ExpertPlanner(), "expert-delayed", 1.5),
        "expert-noisy": lambda: Noisy(ExpertPlanner(), "expert-noisy", 2.5),
        "constant-velocity": ours("constant-velocity"),
        "constant-velocity-fast": lambda: Biased(make_planner("constant-velocity"), "constant-velocity-fast", 1.0),
        "latent": ours("latent"),
        "latent-policy": policy,
        "latent-policy-delayed": lambda: Delayed(policy(), "latent-policy-delayed", 1.5),
        "latent-policy-fast": lambda: Biased(policy(), "latent-policy-fast", 1.0),
        "latent-policy-timid": lambda: Biased(policy(), "latent-policy-timid", -0.8),
        "latent-policy-noisy": lambda: Noisy(policy(), "latent-policy-noisy", 2.5),
        "latent-policy-blind": lambda: Frozen(load_world_model(checkpoint), "latent-policy-blind", "policy"),
        "behaviour-cloning": ours("behaviour-cloning"),
        "behaviour-cloning-delayed": lambda: Delayed(
            make_planner("behaviour-cloning", checkpoint), "behaviour-cloning-delayed", 1.5
        ),
        "readout-rule": ours("readout-rule"),
        "readout-rule-fast": lambda: Biased(make_planner("readout-rule", checkpoint), "readout-rule-fast", 1.0),
        "standing": Standing,
    }  # fmt: skip
