"""The privileged expert of the IDM / PDM family: sees the truth, forecasts everybody, simulates a few ways to go on
and takes the one that gets far without hitting anyone. It is the ceiling, the teacher and the driver of the logs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import (
    ACTOR_VEHICLE,
    ACTOR_WALKER,
    LIGHT_GREEN,
    LIGHT_OFF,
    LIGHT_RED,
    CameraRig,
    Frame,
    Observation,
    Plan,
    Scenario,
    Trajectory,
)  # fmt: skip
from drivesim.planning import idm
from drivesim.planning.blockade import Blockade
from drivesim.planning.forecast import DT_S, Forecast, MotionMemory, forecast, to_ego_frame
from drivesim.planning.reference_path import STEP_M, ReferencePath, SampledRoute, drive_onto, route_line

Array = NDArray[np.float64]

PLAN_STEPS = 16  # 4 s, what a plan holds
HORIZON_STEPS = 20  # 5 s, what is imagined
PATH_M = 90.0
OVERSHOOT_M = 3.0  # how far the nose may stand over a red light's stop line


@dataclass(frozen=True)
class ExpertConfig:
    """How the expert drives. The defaults are the safe expert; the rest makes the risky drivers of the logs."""

    name: str = "expert"
    headway_s: float = 1.2
    min_gap_m: float = 2.5
    standing_gap_m: float = 4.5  # to who stands although no light is red: room to go around
    acceleration_mps2: float = 2.2
    comfort_braking_mps2: float = 2.5
    max_brake: float = 7.5  # m/s2
    lateral_acceleration_mps2: float = 2.0
    speed_factor: float = 1.0  # of the speed limit
    lateral_offset_m: float = 0.0  # left of the centre line
    ignore_red: bool = False
    ignore_walkers: bool = False
    ignore_vehicles: bool = False
    overtakes: bool = True  # goes around who blocks the lane
    careful: bool = True  # slows beside walkers and parked cars, gives way by forecast


class ExpertPlanner:
    """See `drivesim.interfaces.Planner`; `plan` needs the truth."""

    needs_images = False
    privileged = True

    def __init__(self, config: ExpertConfig | None = None) -> None:
        self.config = config or ExpertConfig()
        self.name = self.config.name
        self._memory = MotionMemory()
        self._blockade = Blockade()
        self._offset_m = self.config.lateral_offset_m

    def reset(self, scenario: Scenario, rig: CameraRig, seed: int) -> None:
        """Forget the last episode."""
        self.forget()

    def forget(self) -> None:
        """Forget what was seen of other actors' motion."""
        self._memory = MotionMemory()
        self._blockade = Blockade()
        self._offset_m = self.config.lateral_offset_m

    def plan(self, observation: Observation, truth: Frame | None, rng: np.random.Generator) -> Plan:
        """The best of the simulated ways to go on.

        Raises:
            ValueError: `truth` is None.
        """
        if truth is None:
            raise ValueError("the expert is privileged: it plans from the truth of a frame, which was not given")
        return self.plan_frame(truth)

    def plan_frame(self, frame: Frame) -> Plan:
        """Plan from a frame of truth."""
        config, ego = self.config, frame.ego
        line = route_line(frame.route.points_m, PATH_M)
        route = SampledRoute.from_line(line)
        everybody = self._visible(forecast(frame, route, HORIZON_STEPS, self._memory))
        settle_m = min(max(2.5, 0.7 * ego.speed_mps), 9.0)
        stop_s, light_ahead = self._stop_line(frame, drive_onto(route, config.lateral_offset_m, PATH_M, settle_m))
        best: tuple[float, Plan] | None = None
        for offset_m in self._offsets(frame, everybody, stop_s):
            path = drive_onto(route, offset_m, PATH_M, settle_m)
            cost, plan = self._best_along(frame, path, everybody, stop_s, light_ahead, offset_m)
            if best is None or cost < best[0]:
                best = (cost, plan)
                chosen = offset_m
        assert best is not None
        self._offset_m = chosen
        return best[1]

    def _visible(self, everybody: Forecast) -> Forecast:
        """Everybody whom this driver minds."""
        keep = np.ones(len(everybody.ids), dtype=bool)
        if self.config.ignore_walkers:
            keep &= everybody.kinds != ACTOR_WALKER
        if self.config.ignore_vehicles:
            keep &= everybody.kinds != ACTOR_VEHICLE
        start = everybody.poses[:, 0]
        behind = (start[:, 0] + everybody.half_size_m[:, 0] < 0.0) & (np.abs(start[:, 1]) < 2.0)
        following = behind & (np.abs(start[:, 2]) < 1.0)  # who follows has to mind us, not we him
        return everybody.only(keep & ~following)

    def _stop_line(self, frame: Frame, path: ReferencePath) -> tuple[float, bool]:
        """Arc length of the path where the nose must stop (inf: nowhere), and whether a closed light is near."""
        lights, ego = frame.lights, frame.ego
        if len(lights.states) == 0 or self.config.ignore_red:
            return math.inf, False
        near = np.hypot(lights.stop_pose[:, 0] - ego.x_m, lights.stop_pose[:, 1] - ego.y_m) < PATH_M
        near &= (lights.states != LIGHT_GREEN) & (lights.states != LIGHT_OFF)
        if not near.any():
            return math.inf, False
        stops, states = lights.stop_pose[near], lights.states[near]
        line = to_ego_frame(ego, stops[:, 0], stops[:, 1], stops[:, 3])
        gap = line[:, None, :2] - path.poses[None, :, :2]
        k = np.argmin((gap**2).sum(-1), axis=1)
        c, s = np.cos(path.poses[k, 2]), np.sin(path.poses[k, 2])
        rows = np.arange(len(k))
        dx, dy = gap[rows, k, 0], gap[rows, k, 1]
        at, aside = k * STEP_M + c * dx + s * dy, c * dy - s * dx
        aligned = np.cos(line[:, 2] - path.poses[k, 2]) > 0.7
        ahead = at - (ego.length_m / 2.0 + ego.rear_axle_to_center_m)
        ours = aligned & (np.abs(aside) < lights.half_width_m[near] + 0.3) & (ahead > -OVERSHOOT_M)
        needed = ego.speed_mps**2 / (2.0 * np.maximum(ahead - 0.3, 0.1))
        runs_yellow = (states != LIGHT_RED) & (needed > 3.5)
        # a nose over the line is no crossing yet: the tail counts
        overshoot = np.maximum(ego.speed_mps**2 / (1.6 * self.config.max_brake) + 0.3 - ahead, 0.0)
        closed = ours & ~runs_yellow & (overshoot < OVERSHOOT_M)
        if not closed.any():
            return math.inf, bool(ours.any())
        return float((at + overshoot)[closed].min()), True

    def _offsets(self, frame: Frame, everybody: Forecast, stop_s: float) -> list[float]:
        """Lateral offsets worth simulating: the lane, and what passes who blocks it."""
        base = self.config.lateral_offset_m
        clearance = 0.5 * frame.ego.width_m + 0.6
        blockers = self._blockade.blockers(frame.time_us, everybody, stop_s, clearance)
        if not self.config.overtakes:
            return [base]
        options = {round(base, 2)}
        for n in blockers:
            side, half = float(everybody.route_offset_m[n]), float(everybody.half_size_m[n, 1])
            left, right = side + half + clearance, side - half - clearance
            options |= {round(left, 2)} if 0.0 < left < 4.2 else set()
            options |= {round(right, 2)} if -1.3 < right < 0.0 else set()
        if abs(self._offset_m - base) > 0.3 and len(options) > 1:
            options.add(round(self._offset_m, 2))
        return sorted(options, key=lambda offset: abs(offset - base))[:5]

    def _driver(self, frame: Frame, light_ahead: bool) -> Array:
        config, ego = self.config, frame.ego
        driver = np.zeros(idm.DRIVER_COLUMNS)
        driver[idm.ACCELERATION], driver[idm.COMFORT] = config.acceleration_mps2, config.comfort_braking_mps2
        driver[idm.HEADWAY] = config.headway_s
        driver[idm.MIN_GAP] = config.min_gap_m
        driver[idm.STANDING_GAP] = config.min_gap_m if light_ahead else max(config.min_gap_m, config.standing_gap_m)
        driver[idm.FRONT] = ego.length_m / 2.0 + ego.rear_axle_to_center_m
        driver[idm.CENTER] = ego.rear_axle_to_center_m
        driver[idm.HALF_LENGTH], driver[idm.HALF_WIDTH] = ego.length_m / 2.0, ego.width_m / 2.0
        driver[idm.SIDE_MARGIN], driver[idm.WALKER_MARGIN] = 0.25, 0.7
        return driver

    def _best_along(
        self, frame: Frame, path: ReferencePath, everybody: Forecast, stop_s: float, light_ahead: bool, offset_m: float
    ) -> tuple[float, Plan]:
        """Simulate the candidates on one path; the cheapest and its cost."""
        driver = self._driver(frame, light_ahead)
        walker = everybody.kinds == ACTOR_WALKER
        occupied = np.empty((len(everybody.ids), HORIZON_STEPS + 1, 4))
        idm.occupy(path.poses, everybody.poses, everybody.half_size_m, walker, driver, occupied)
        caps = self._speed_caps(frame, path, everybody, occupied, driver)
        inside = occupied[:, :, 3] > 0.0
        ever = inside.any(axis=1)
        entry = np.where(ever, np.argmax(inside, axis=1), -1)
        last = np.where(ever, HORIZON_STEPS - np.argmax(inside[:, ::-1], axis=1), -1)
        candidates = self._candidates()
        rolled = np.empty((len(candidates), HORIZON_STEPS + 1, 3))
        standing = everybody.speed_mps < 0.3
        idm.rollout(candidates, frame.ego.speed_mps, caps, stop_s, occupied, last, entry, standing, driver, rolled)
        safety = np.empty((len(candidates), 4))
        idm.closest(rolled, path.poses, everybody.poses, everybody.half_size_m, walker, driver, safety)
        terms = self._costs(rolled, safety, stop_s - driver[idm.FRONT], offset_m)
        total = np.sum(list(terms.values()), axis=0)
        k = int(np.argmin(total))
        return float(total[k]), _plan_of(
            path, rolled[k], {name: float(cost[k]) for name, cost in terms.items()}, offset_m
        )

    def _candidates(self) -> Array:
        """Speed factors, reactive or giving way, gentle or not, and three ways to brake."""
        hardest = self.config.max_brake
        gives_way = (0.0, 1.0) if self.config.careful else (0.0,)
        brakes = (min(3.5, hardest), hardest)
        rows = [
            (factor, yields, brake) for factor in (1.0, 0.75, 0.5, 0.25) for yields in gives_way for brake in brakes
        ]
        rows += [(0.0, 0.0, brake) for brake in (min(2.0, hardest), min(4.5, hardest), hardest)]
        return np.array(rows)

    def _speed_caps(
        self, frame: Frame, path: ReferencePath, everybody: Forecast, occupied: Array, driver: Array
    ) -> Array:
        """Highest speed (m,) along the path: limit, curves, care beside walkers and parked cars, braked for in time."""
        config = self.config
        limits = np.asarray(frame.route.speed_limit_mps, dtype=np.float64)
        limit = (
            limits[np.clip(path.route_s_m.astype(np.int64), 0, len(limits) - 1)]
            if len(limits)
            else np.full(len(path.poses), 8.0)
        )
        bend = np.sqrt(config.lateral_acceleration_mps2 / np.maximum(np.abs(path.curvature_1pm), 1e-3))
        caps = np.minimum(limit, bend) * config.speed_factor
        if config.careful:
            slow = (everybody.speed_mps < 0.3) | (np.abs(everybody.poses[:, 0, 2]) < 0.5)
            for n in np.flatnonzero((everybody.kinds == ACTOR_WALKER) | slow):
                self._care_beside(int(n), path, everybody, occupied, driver, caps)
        squares = caps**2 + 2.0 * 2.0 * path.s_m  # what braking at 2 m/s2 allows before each place
        return np.sqrt(np.minimum.accumulate(squares[::-1])[::-1] - 2.0 * 2.0 * path.s_m)

    def _care_beside(
        self, n: int, path: ReferencePath, everybody: Forecast, occupied: Array, driver: Array, caps: Array
    ) -> None:
        """Lower `caps` where the path passes actor n closely."""
        rear, front = occupied[n, 0, 0], occupied[n, 0, 1]
        if occupied[n, 0, 3] > 0.0 or front < 0.0 or rear > 60.0:
            return
        gap = path.poses[:, :2] - everybody.poses[n, 0, :2]
        distance = math.sqrt(float((gap**2).sum(-1).min()))
        walker = everybody.kinds[n] == ACTOR_WALKER
        width = 0.3 if walker else float(everybody.half_size_m[n, 1])
        clearance = max(distance - width - driver[idm.HALF_WIDTH], 0.0)
        speed = 3.0 + (2.5 if walker else 5.0) * clearance
        if not walker and everybody.speed_mps[n] > 1.0:  # it may change lanes
            speed = max(float(everybody.speed_mps[n]) + 2.5, 4.0 * clearance)
        first, end = max(int((rear - 5.0) / STEP_M), 0), max(int(front / STEP_M) + 1, 1)
        caps[first:end] = np.minimum(caps[first:end], speed)

    def _costs(self, rolled: Array, safety: Array, room_m: float, offset_m: float) -> dict[str, Array]:
        """Cost terms (k,) of every candidate; `room_m` is the distance to drive before a closed light."""
        hit = safety[:, 0] >= 0.0
        sooner = 1.0 + (HORIZON_STEPS - safety[:, 0]) / HORIZON_STEPS
        collision = np.where(hit, 400.0 * sooner * (0.2 + 0.2 * safety[:, 1]), 0.0)
        vehicle, walker = 0.4 - safety[:, 2], 1.0 - safety[:, 3]
        closeness = 25.0 * np.clip(vehicle / 0.4, 0.0, 1.0) + 12.0 * np.clip(vehicle - 0.4, 0.0, 3.0)
        closeness += 40.0 * np.maximum(walker, 0.0)
        return {
            "collision": collision,
            "closeness": closeness,
            "progress": -1.0 * rolled[:, -1, 0],
            "red_light": np.where(rolled[:, -1, 0] > room_m + 0.3, 200.0, 0.0),
            "comfort": 0.8 * np.maximum(-rolled[:, :, 2].min(axis=1) - 3.0, 0.0) ** 2,
            "offset": np.full(len(rolled), 2.0 * abs(offset_m - self.config.lateral_offset_m)
                              + 2.0 * (abs(offset_m - self._offset_m) > 0.3)),
        }  # fmt: skip


def _plan_of(path: ReferencePath, rolled: Array, terms: dict[str, float], offset_m: float) -> Plan:
    """The first four seconds of one rollout as a plan."""
    s, v = rolled[1 : PLAN_STEPS + 1, 0], rolled[1 : PLAN_STEPS + 1, 1]
    poses = path.at(s)
    start = rolled[:PLAN_STEPS, 0]
    turn = np.diff(poses[:, 2], prepend=0.0)
    length = s - start
    index = np.clip((start / STEP_M).astype(np.int64), 0, len(path.poses) - 1)
    curvature = np.where(length > 0.1, turn / np.maximum(length, 0.1), path.curvature_1pm[index])
    actions = np.column_stack([rolled[:PLAN_STEPS, 2], curvature])
    times = DT_S * np.arange(1, PLAN_STEPS + 1, dtype=np.float64)
    return Plan(Trajectory(times, poses, v), actions, cost_terms=terms, diagnostics={"offset_m": offset_m})


def expert_action(frame: Frame, planner: ExpertPlanner | None = None) -> tuple[float, float]:
    """What the safe expert would do now: acceleration (m/s2) and curvature (1/m), the mean of the next half second.

    Args:
        frame: truth, of whatever state a risky driver got into.
        planner: the expert that saw the frames before (call in order of time); a fresh one knows nobody's
            acceleration and turn rate.
    """
    plan = (planner or ExpertPlanner()).plan_frame(frame)
    return float(plan.actions[:2, 0].mean()), float(plan.actions[:2, 1].mean())
