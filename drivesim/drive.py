"""The drive loop: a driver (observe, plan, control) in a world, and the episode that comes of it."""

from __future__ import annotations

import io
import math
import time
import traceback
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drivesim.datatypes import (
    CameraRig,
    Control,
    EgoState,
    EndReason,
    Episode,
    Event,
    Frame,
    LightStates,
    Plan,
    Scenario,
    Snapshot,
)
from drivesim.interfaces import Controller, Planner, World
from drivesim.runs import code_version
from drivesim.worlds.routes import RoutePlan, plan_route

PLAN_PERIOD_S = 0.25
BLOCKED_S, BLOCKED_MPS = 60.0, 0.1  # Bench2Drive's limit; the leaderboard waits 180 s
DEVIATION_M = 30.0
COMPLETE_SHARE, COMPLETE_M = 0.99, 10.0
SNAPSHOT_PERIOD_S, MAX_SNAPSHOTS = 1.0, 40
KEPT_CANDIDATES = 16
ACTOR_RADIUS_M = 100.0  # actors further away are not kept in the episode
LIGHT_RADIUS_M = 30.0  # stop lines further from the route are not kept
THUMBNAIL_WIDTH_PX = 160
COAST = Control(0.0, 0.0, 0.0)

OnTick = Callable[[Frame, Control], None]


class Driver:
    """Observation in, control out: plans every `plan_period_s`, tracks the plan at every tick."""

    def __init__(
        self, planner: Planner, controller: Controller, rig: CameraRig, plan_period_s: float = PLAN_PERIOD_S
    ) -> None:
        self.planner, self.controller, self.rig, self.plan_period_s = planner, controller, rig, plan_period_s
        self.plan: Plan | None = None
        self.plan_ego: EgoState | None = None
        self.latencies_ms: dict[str, list[float]] = {}
        self._rng = np.random.default_rng(0)

    def reset(self, scenario: Scenario, seed: int) -> None:
        """Forget the last episode."""
        self.plan, self.plan_ego, self.latencies_ms = None, None, {}
        self._rng = np.random.default_rng([scenario.seed, seed, zlib.crc32(scenario.id.encode()), 1])
        self.controller.reset()
        self.planner.reset(scenario, self.rig, seed)

    def act(self, frame: Frame) -> Control:
        """The control for this tick. A planner that needs images waits for the next ones.

        Raises:
            ValueError: the planner or the controller returned something that cannot be driven.
        """
        if self._due(frame):
            started = time.perf_counter()
            plan = self.planner.plan(frame.observation, frame if self.planner.privileged else None, self._rng)
            elapsed_ms = 1e3 * (time.perf_counter() - started)
            plan.trajectory.validate()
            self.plan, self.plan_ego = plan, frame.ego
            parts = {key: value for key, value in plan.diagnostics.items() if key.endswith("_ms")}
            for key, value in {**parts, "plan_ms": elapsed_ms}.items():
                self.latencies_ms.setdefault(key, []).append(float(value))
        if self.plan is None or self.plan_ego is None:
            return COAST
        control = self.controller.control(self.plan, self.plan_ego, frame.ego)
        control.validate()
        return control

    def _due(self, frame: Frame) -> bool:
        if self.planner.needs_images and frame.images is None:
            return False
        if self.plan_ego is None:
            return True
        return (frame.time_us - self.plan_ego.time_us) * 1e-6 >= self.plan_period_s - 1e-3


def run_episode(world: World, driver: Driver, scenario: Scenario, seed: int, on_tick: OnTick | None = None) -> Episode:
    """Drive one scenario to its end.

    A driver that raises ends the episode as CRASHED, with its traceback in `error`; an error of the world
    is raised, because then there is no episode to score. So is that of a planner which cannot drive in this
    world at all.

    Args:
        on_tick: called with every frame and the control that follows it.
    """
    enter = getattr(driver.planner, "enter", None)
    if enter is not None:  # a planner that tries its futures out in the world itself
        enter(world)
    frame = world.reset(scenario, seed)
    route: RoutePlan = getattr(world, "route", None) or plan_route(scenario)  # a logged start has its own goal
    recorder = EpisodeRecorder(scenario, driver.planner.name, seed, route)
    error = ""
    try:
        driver.reset(scenario, seed)
    except Exception:
        error = traceback.format_exc()
    while True:
        control = COAST
        if not error:
            try:
                control = driver.act(frame)
            except Exception:
                error = traceback.format_exc()
        recorder.add(frame, control, driver.plan, driver.plan_ego)
        if on_tick is not None:
            on_tick(frame, control)
        end = EndReason.CRASHED if error else getattr(world, "end", None) or recorder.end_reason()
        if end is not None:
            break
        frame = world.step(control)
    late = getattr(world, "late_contacts", None)
    if late is not None:
        recorder.add_contacts(late())
    reported = getattr(world, "reported_events", None)
    if reported is not None:
        recorder.add_events(reported())
    return recorder.episode(end, error, driver.latencies_ms)


class EpisodeRecorder:
    """Gathers an episode tick by tick, and knows when it is over."""

    def __init__(self, scenario: Scenario, planner: str, seed: int, route: RoutePlan) -> None:
        self.scenario, self.planner, self.seed, self.route = scenario, planner, seed, route
        self._times: list[int] = []
        self._ego: list[tuple[float, ...]] = []
        self._controls: list[tuple[float, float, float]] = []
        self._progress: list[float] = []
        self._actors: list[tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.float64]]] = []
        self._light_ticks: list[int] = []
        self._light_states: list[NDArray[np.uint8]] = []
        self._light_rows: NDArray[np.intp] | None = None
        self._lights: LightStates = LightStates.empty()
        self._events: list[Event] = []
        self._snapshots: list[Snapshot] = []
        self._plan_us = -1
        self._still_since_us: int | None = None
        self._size_m = (4.79, 2.16, 1.44)
        self._started = time.perf_counter()

    def add(self, frame: Frame, control: Control, plan: Plan | None, plan_ego: EgoState | None) -> None:
        """Take one tick: the truth, the control that follows, and the plan in force."""
        ego = frame.ego
        near = self._progress[-1] if self._progress else None
        s, lateral = self.route.project(ego.x_m, ego.y_m, near)
        self._times.append(frame.time_us)
        self._ego.append((ego.x_m, ego.y_m, ego.z_m, ego.yaw_rad, ego.speed_mps, ego.acceleration_mps2,
                          ego.yaw_rate_radps, lateral))  # fmt: skip
        self._controls.append((control.steer, control.throttle, control.brake))
        self._progress.append(s)
        self._size_m = (ego.length_m, ego.width_m, ego.rear_axle_to_center_m)
        self._add_actors(frame)
        self._add_lights(frame.lights)
        self.add_contacts([(c.time_us, c.other_id, c.kind, c.impulse) for c in frame.contacts])
        self._add_snapshot(frame, plan, plan_ego)
        if abs(ego.speed_mps) >= BLOCKED_MPS:
            self._still_since_us = None
        elif self._still_since_us is None:
            self._still_since_us = frame.time_us

    def end_reason(self) -> EndReason | None:
        """Why the episode is over after the last tick, or None."""
        ego, now_us, s = self._ego[-1], self._times[-1], self._progress[-1]
        goal = self.route.place(self.route.length_m)
        to_goal_m = math.hypot(goal.x_m - ego[0], goal.y_m - ego[1])
        if s > COMPLETE_SHARE * self.route.length_m and to_goal_m < COMPLETE_M:
            return EndReason.COMPLETED
        nearest = self.route.curve.at(s)
        if math.hypot(nearest[0] - ego[0], nearest[1] - ego[1]) > DEVIATION_M:
            return EndReason.DEVIATED
        if self._still_since_us is not None and (now_us - self._still_since_us) * 1e-6 >= BLOCKED_S:
            return EndReason.BLOCKED
        if now_us * 1e-6 >= self.scenario.time_limit_s - 1e-6:
            return EndReason.TIMEOUT
        return None

    def add_contacts(self, contacts: list[tuple[int, int, str, float]]) -> None:
        """Turn contacts (time_us, other id, kind, impulse) into events; scoring decides which of them count."""
        for time_us, other, kind, impulse in contacts:
            tick = max(int(np.searchsorted(self._times, time_us, side="right")) - 1, 0)
            x, y = self._ego[tick][:2]
            name = {"walker": "collision_walker", "vehicle": "collision_vehicle"}.get(kind, "collision_static")
            self._events.append(Event(name, time_us, x, y, other, impulse))

    def add_events(self, events: list[Event]) -> None:
        """Take what the world itself judges."""
        self._events.extend(events)

    def episode(self, end: EndReason, error: str, latencies_ms: dict[str, list[float]]) -> Episode:
        """All of it, validated."""
        ticks = np.repeat(np.arange(len(self._actors)), [len(ids) for ids, _, _ in self._actors]).astype(np.int32)
        ids = np.concatenate([ids for ids, _, _ in self._actors])
        kinds = np.concatenate([kinds for _, kinds, _ in self._actors])
        boxes = np.concatenate([boxes for _, _, boxes in self._actors]).astype(np.float32)
        lights = self._lights
        events = tuple(sorted(self._events, key=lambda event: (event.time_us, event.other_id, event.kind, event.value)))
        shown = np.stack(self._light_states) if self._light_states else np.zeros((0, 0), np.uint8)
        result = Episode(
            scenario=self.scenario, planner=self.planner, seed=self.seed, end=end,
            times_us=np.array(self._times, np.int64), ego=np.array(self._ego), controls=np.array(self._controls),
            route_points=self.route.points_m.copy(), route_half_width_m=self.route.route_half_width_m.copy(),
            progress_m=np.array(self._progress), actor_tick=ticks, actor_id=ids, actor_kind=kinds,
            actor_pose=boxes[:, :3], actor_size=boxes[:, 3:], light_tick=np.array(self._light_ticks, np.int32),
            light_state=shown, stop_pose=lights.stop_pose, stop_half_width_m=lights.half_width_m,
            ego_size_m=self._size_m, events=events,
            snapshots=tuple(self._snapshots),
            latencies_ms={key: np.array(values) for key, values in latencies_ms.items()}, error=error,
            provenance={"commit": code_version(), "wall_s": f"{time.perf_counter() - self._started:.2f}"},
        )  # fmt: skip
        result.validate()
        return result

    def _add_actors(self, frame: Frame) -> None:
        actors = frame.actors
        offset = actors.pose[:, :2] - np.array([frame.ego.x_m, frame.ego.y_m])
        near = (offset**2).sum(axis=1) < ACTOR_RADIUS_M**2
        boxes = np.column_stack([actors.pose[near][:, [0, 1, 3]], actors.size_m[near, :2]])
        self._actors.append((actors.ids[near], actors.kinds[near], boxes))

    def _add_lights(self, lights: LightStates) -> None:
        if self._light_rows is None:
            route = self.route.points_m
            gaps = np.linalg.norm(lights.stop_pose[:, None, :2] - route[None], axis=2).min(axis=1, initial=np.inf)
            rows = np.flatnonzero(gaps < LIGHT_RADIUS_M)
            self._light_rows = rows
            self._lights = LightStates(lights.states[rows], lights.stop_pose[rows], lights.half_width_m[rows])
        states = lights.states[self._light_rows]
        if not self._light_states or not np.array_equal(states, self._light_states[-1]):
            self._light_ticks.append(len(self._times) - 1)
            self._light_states.append(states.astype(np.uint8))

    def _add_snapshot(self, frame: Frame, plan: Plan | None, plan_ego: EgoState | None) -> None:
        if len(self._snapshots) >= MAX_SNAPSHOTS:
            return
        if self._snapshots and (frame.time_us - self._snapshots[-1].time_us) * 1e-6 < SNAPSHOT_PERIOD_S - 1e-3:
            return
        # a plan is kept at the tick it was made, so that its frame is that tick's ego
        fresh = plan is not None and plan_ego is not None and plan_ego.time_us == frame.time_us
        if plan is not None and not fresh:
            return
        kept = None if plan is None else _trimmed(plan)
        self._snapshots.append(Snapshot(frame.time_us, kept, b"" if frame.images is None else thumbnail(frame.images)))


def _trimmed(plan: Plan) -> Plan:
    if plan.candidates is None or len(plan.candidates) <= KEPT_CANDIDATES:
        return plan
    costs = None if plan.candidate_costs is None else plan.candidate_costs[:KEPT_CANDIDATES]
    return replace(plan, candidates=plan.candidates[:KEPT_CANDIDATES], candidate_costs=costs)


def thumbnail(images: NDArray[np.uint8], width_px: int = THUMBNAIL_WIDTH_PX, quality: int = 72) -> bytes:
    """One JPEG of the cameras side by side, images (v, h, w, 3), each `width_px` wide."""
    strip = Image.fromarray(np.ascontiguousarray(np.concatenate(list(images), axis=1)))
    views, height, width = images.shape[:3]
    size = (views * width_px, max(round(height * width_px / width), 1))
    buffer = io.BytesIO()
    strip.resize(size, Image.Resampling.BOX).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
