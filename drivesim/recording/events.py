"""What is made to happen in a drive: a red light, a lead that brakes, somebody who steps out.

Everything is put into the town's own state (its traffic and its walkers do it themselves), so that a
branch from any logged tick goes on with it.
"""

from __future__ import annotations

import math

import numpy as np

from drivesim.datatypes import Frame
from drivesim.recording.plans import DrivePlan
from drivesim.town.signals import ALL_RED_S, GREEN_S, YELLOW_S, phase_counts
from drivesim.town.state import KIND_VEHICLE, LIGHT_GREEN, LIGHT_RED, LIGHT_YELLOW, POLICY_TRAFFIC, POLICY_WALKER
from drivesim.town.town import TRAFFIC_MODELS, WALKER_MODELS, Town
from drivesim.worlds.routes import RoutePlan

NEVER = -1
AROUND_M = 150.0
CLEAR_M, CLEAR_BRAKING_MPS2 = 12.0, 2.5  # background cars start from rest: none nearer than the ego can stop
WALK_REACH_M = 9.0  # from the middle of the ego's lane to where somebody can stand


class Events:
    """The events of one drive; `start` once, `step` four times a second."""

    def __init__(self, plan: DrivePlan, route: RoutePlan, town: Town, ego_row: int, rng: np.random.Generator) -> None:
        self._ego_row, self._patience_until_s = ego_row, 0.0
        self._plan, self._route, self._town, self._rng = plan, route, town, rng
        self._brakes_left = 0 if plan.brake_at_s < 0.0 else int(rng.integers(1, 4))
        self._next_brake_s = plan.brake_at_s
        self._walkers_left = 0 if plan.walker_at_s < 0.0 else int(rng.integers(1, 4))
        self._next_walker_s = plan.walker_at_s
        self._walker_row = NEVER
        self._walker_from_m = np.zeros(2)  # our frame
        self._walker_s_m = 0.0
        self._walker_speed_mps = 1.5
        self._walker_hurry_s = 0.0
        self._ego_s_m = 0.0
        self.happened: list[str] = []

    def start(self, frame: Frame) -> None:
        """Put traffic around the ego and the lead on the road, and turn the light red."""
        self._ego_s_m = self._route.project(frame.ego.x_m, frame.ego.y_m, self._ego_s_m)[0]
        if self._plan.red_light >= 0:
            self._next_green(self._plan.red_light, float(self._rng.uniform(3.0, 12.0)))
            self.happened.append("red_light")
        if self._plan.lead:
            self._place_lead(frame)
        self._populate(frame)

    def step(self, frame: Frame, time_s: float) -> None:
        """Set off what is due."""
        self._ego_s_m = self._route.project(frame.ego.x_m, frame.ego.y_m, self._ego_s_m)[0]
        self._relieve(frame, time_s)
        if self._brakes_left > 0 and time_s >= self._next_brake_s:
            self._brake_lead(frame, time_s)
        if self._walker_row != NEVER:
            self._release_walker(frame, time_s)
        elif self._walkers_left > 0 and time_s >= self._next_walker_s:
            self._place_walker(frame)

    def _next_green(self, light: int, after_s: float) -> None:
        """All lights of a junction turn red but the one before ours, and ours turns green after about `after_s`."""
        network, state = self._town.network, self._town.state
        group = int(network.light_group[light])
        phases = max(int(phase_counts(network)[group]), 1)
        elapsed_s = max(GREEN_S + YELLOW_S + ALL_RED_S - after_s, GREEN_S + YELLOW_S if phases == 1 else 0.0)
        state.group_phase[group] = (network.light_phase[light] - 1) % phases
        state.group_elapsed_s[group] = elapsed_s
        mates = np.flatnonzero(network.light_group == group)
        turn = network.light_phase[mates] == state.group_phase[group]
        shown = LIGHT_GREEN if elapsed_s < GREEN_S else LIGHT_YELLOW if elapsed_s < GREEN_S + YELLOW_S else LIGHT_RED
        state.light_state[mates] = np.where(turn, shown, LIGHT_RED)
        state.light_elapsed_s[mates] = elapsed_s

    def _relieve(self, frame: Frame, time_s: float) -> None:
        """Nobody learns from a minute before a red light: after some seconds it is our turn."""
        light = self._town.vehicle_light_affecting(self._ego_row)[0]
        if frame.ego.speed_mps > 0.3 or light < 0 or self._town.state.light_state[light] != LIGHT_RED:
            self._patience_until_s = time_s + float(self._rng.uniform(2.0, 7.0))
        elif time_s >= self._patience_until_s:
            self._next_green(light, ALL_RED_S)
            self._patience_until_s = time_s + 20.0

    def _populate(self, frame: Frame) -> None:
        """The town's own traffic, most of it where the ego will come by."""
        town, plan = self._town, self._plan
        place = self._route.place(self._ego_s_m + AROUND_M / 2.0)
        near = (place.x_m, -place.y_m)
        rows = town.populate(plan.vehicles, plan.walkers, near=near, radius_m=AROUND_M, rng=self._rng)
        clear_m = CLEAR_M + frame.ego.speed_mps**2 / (2.0 * CLEAR_BRAKING_MPS2)
        for row in rows:
            x, y = float(town.state.xyz[row, 0]), -float(town.state.xyz[row, 1])
            s, lateral = self._route.project(x, y, self._ego_s_m)
            if abs(lateral) < 2.5 and -12.0 < s - self._ego_s_m < clear_m:
                town.destroy(row)

    def _place_lead(self, frame: Frame) -> None:
        """A traffic vehicle on the ego's route, at about the ego's speed."""
        town = self._town
        ahead_m = float(self._rng.uniform(12.0, 35.0))
        place = self._route.place(self._ego_s_m + ahead_m)
        row = town.spawn(int(self._rng.choice(TRAFFIC_MODELS)), place.x_m, -place.y_m, place.z_m, -place.yaw_rad)
        if row < 0:
            return
        try:
            town.set_policy(row, POLICY_TRAFFIC)
        except ValueError:  # no lane there
            town.destroy(row)
            return
        lane = int(town.state.lane[row])
        if lane in self._route.lanes:
            after = self._route.lanes[self._route.lanes.index(lane) + 1 :]
            town.set_path(row, list(after))
        town.state.speed[row] = max(frame.ego.speed_mps, 0.0) * float(self._rng.uniform(0.8, 1.1))
        self.happened.append("lead")

    def _brake_lead(self, frame: Frame, time_s: float) -> None:
        """Brake the nearest traffic vehicle on the route ahead, once there is one."""
        state = self._town.state
        best, best_m = NEVER, 35.0
        for row in np.flatnonzero((state.kind == KIND_VEHICLE) & (state.policy == POLICY_TRAFFIC)):
            x, y = float(state.xyz[row, 0]), -float(state.xyz[row, 1])
            if abs(x - frame.ego.x_m) + abs(y - frame.ego.y_m) > 60.0 or state.speed[row] < 3.5:
                continue
            s, lateral = self._route.project(x, y, self._ego_s_m + 20.0)
            if abs(lateral) < 1.5 and 4.0 < s - self._ego_s_m < best_m:
                best, best_m = int(row), s - self._ego_s_m
        if best == NEVER:
            return
        self._town.hard_brake(best, float(self._rng.uniform(4.0, 7.5)), float(self._rng.uniform(1.0, 3.0)))
        self._brakes_left -= 1
        self._next_brake_s = time_s + float(self._rng.uniform(6.0, 10.0))
        self.happened.append("lead_brake")

    def _place_walker(self, frame: Frame) -> None:
        """Somebody stands beside the road ahead, far enough to be seen in time."""
        speed = max(frame.ego.speed_mps, 4.0)
        s = self._ego_s_m + max(speed * float(self._rng.uniform(3.0, 4.5)), 22.0)
        if s > self._route.length_m:
            return
        place, lines = self._route.place(s), self._town.walk_table.line_xyz_m
        if len(lines) == 0:
            self._walkers_left = 0
            return
        gap = np.hypot(lines[:, 0] - place.x_m, lines[:, 1] + place.y_m)
        near = np.flatnonzero((gap < WALK_REACH_M) & (np.abs(lines[:, 2] - place.z_m) < 2.0))
        if len(near) == 0:
            return
        point = lines[near[np.argmin(gap[near])]] if self._rng.random() < 0.7 else lines[int(self._rng.choice(near))]
        facing = math.atan2(-place.y_m - point[1], place.x_m - point[0])
        model = int(self._rng.choice(WALKER_MODELS))
        row = self._town.spawn(model, point[0], point[1], point[2], facing, policy=POLICY_WALKER)
        if row < 0:
            return
        self._town.stand(row)
        self._walker_row, self._walker_from_m = row, np.array([point[0], -point[1]])
        self._walker_s_m = self._route.project(point[0], -point[1], s)[0]
        self._walker_speed_mps = float(self._rng.uniform(1.0, 2.4))
        self._walker_hurry_s = float(self._rng.uniform(-0.8, 1.2))

    def _release_walker(self, frame: Frame, time_s: float) -> None:
        """Let the walker go so that it meets the ego, but never so late that nobody could stop."""
        left_m = self._walker_s_m - self._ego_s_m - frame.ego.length_m / 2.0 - frame.ego.rear_axle_to_center_m
        speed = max(frame.ego.speed_mps, 1.5)
        place = self._route.place(self._walker_s_m)
        across = np.array([place.x_m, place.y_m]) - self._walker_from_m
        distance_m = max(float(np.hypot(*across)), 0.5)
        arrival_s = max(distance_m / self._walker_speed_mps + self._walker_hurry_s, speed / 5.0 + 1.0)
        if left_m > 0.0 and left_m > arrival_s * speed:
            return
        if left_m > 0.0:
            goal = self._walker_from_m + across * (1.0 + 5.0 / distance_m)
            self._town.cross_road(self._walker_row, (float(goal[0]), -float(goal[1])), self._walker_speed_mps)
            self.happened.append("walker")
        self._walker_row = NEVER
        self._walkers_left -= 1
        self._next_walker_s = time_s + float(self._rng.uniform(3.0, 8.0))
