"""The scripted part of an episode: its actors and its lights, the same in every world."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.config import ConfigError
from drivesim.datatypes import LIGHT_GREEN, LIGHT_RED, LIGHT_YELLOW, ActorSpec, Frame
from drivesim.town.catalogue import MODELS, model_row
from drivesim.town.queries import LaneMap
from drivesim.town.roads import RoadNetwork
from drivesim.worlds.behaviors import (
    PATH_NONE,
    Script,
    ScriptState,
    Surroundings,
    advance,
    behavior,
    bind,
    motion_of,
    parameters_of,
)
from drivesim.worlds.carla_frames import mirrored
from drivesim.worlds.routes import RoutePlan

YELLOW_S, CLEAR_S = 2.0, 1.5
CLEAR_AHEAD_M, CLEAR_BESIDE_M = 45.0, 2.5  # no background car in the ego's lane at the start


@dataclass(frozen=True)
class LightScript:
    """A light on the route that waits for the ego, and the others of its junction.

    Until the ego has waited, one crossing phase is open; then nobody, for a moment; then the ego's.
    """

    lights: tuple[int, ...]  # this one and those of the same phase
    crossing: tuple[int, ...]  # those of the next phase
    closed: tuple[int, ...]  # all others
    stop_s_m: float
    red_s: float
    trigger_distance_m: float


@dataclass(frozen=True)
class Placement:
    """Where a scripted actor is, in our world frame."""

    pose: NDArray[np.float64]  # (3,) x, y, yaw of its centre
    z_m: float  # ground
    velocity_mps: NDArray[np.float64]  # (2,)
    gone: bool


class Cast:
    """All scripted actors of one episode, with their present states."""

    def __init__(self, specs: tuple[ActorSpec, ...], route: RoutePlan, lanes: LaneMap) -> None:
        self._route, self._lanes = route, lanes
        self.scripts: list[Script] = []
        self.lights: list[LightScript] = []
        for spec in specs:
            if behavior(spec.behavior).path == PATH_NONE:
                self.lights.append(_light_script(spec, route, lanes.network))
            else:
                model = MODELS[model_row(spec.blueprint)]
                self.scripts.append(bind(spec, route, lanes, (model.length_m, model.width_m)))
        self.states: list[ScriptState] = [script.start for script in self.scripts]
        self._placements: list[Placement | None] = [None] * len(self.scripts)  # of this tick, made when asked for
        self._near_s_m = 0.0
        self._noticed_s = [-1.0] * len(self.lights)

    def advance(self, frame: Frame, ids: list[int], dt_s: float) -> None:
        """Move every scripted actor one tick on; `ids[i]` is actor i's id in `frame`."""
        if not self.scripts and not self.lights:
            return
        around = Surroundings.of(frame, self._route, 0, self._near_s_m)
        self._near_s_m = around.ego_s_m
        self.states = [
            advance(script, state, around, own_id, dt_s)
            for script, state, own_id in zip(self.scripts, self.states, ids, strict=True)
        ]
        self._placements = [None] * len(self.scripts)
        for index, light in enumerate(self.lights):
            left_m = light.stop_s_m - around.ego_s_m - 0.5 * around.ego.length_m
            if self._noticed_s[index] < 0.0 and left_m <= light.trigger_distance_m:
                self._noticed_s[index] = around.time_s

    def branch(self) -> Cast:
        """An independent copy: advancing one does not move the other."""
        other = copy.copy(self)  # states are replaced at every tick, never changed in place; these two are
        other._placements, other._noticed_s = list(self._placements), list(self._noticed_s)
        return other

    def placement(self, index: int) -> Placement:
        """Where actor `index` is now."""
        known = self._placements[index]
        if known is not None:
            return known
        script, state = self.scripts[index], self.states[index]
        pose, velocity = motion_of(script, state)
        if script.curve is self._route.curve:
            z = float(np.interp(state.s_m, self._route.curve.s_m, self._route.z_m))
        else:
            z = self._lanes.ground_height(float(pose[0]), -float(pose[1]))
        made = Placement(pose, z, velocity, state.gone)
        self._placements[index] = made
        return made

    def light_states(self, time_s: float) -> dict[int, int]:
        """What every scripted light shows at `time_s`: light row -> LIGHT_*."""
        shown: dict[int, int] = {}
        for script, noticed_s in zip(self.lights, self._noticed_s, strict=True):
            left_s = script.red_s if noticed_s < 0.0 else noticed_s + script.red_s - time_s
            crossing = LIGHT_GREEN if left_s > CLEAR_S + YELLOW_S else LIGHT_YELLOW if left_s > CLEAR_S else LIGHT_RED
            shown.update(dict.fromkeys(script.closed, LIGHT_RED))
            shown.update(dict.fromkeys(script.crossing, crossing))
            shown.update(dict.fromkeys(script.lights, LIGHT_RED if left_s > 0.0 else LIGHT_GREEN))
        return shown


def _light_script(spec: ActorSpec, route: RoutePlan, network: RoadNetwork) -> LightScript:
    p = parameters_of(spec)
    best: tuple[float, int] | None = None
    on_route = set(route.lanes)
    for row, lane in enumerate(network.stop_lane):
        if int(lane) not in on_route or network.stop_light[row] < 0:
            continue
        x, y, _ = mirrored(network.stop_xyz_m[row])
        s, lateral = route.project(float(x), float(y))
        if abs(lateral) < 2.0 and s >= spec.route_s_m and (best is None or s < best[0]):
            best = (s, int(network.stop_light[row]))
    if best is None:
        raise ConfigError(f"no traffic light on the route at or after route_s_m = {spec.route_s_m}")
    stop_s_m, light = best
    group = network.light_group == network.light_group[light]
    phase, phases = int(network.light_phase[light]), np.unique(network.light_phase[group])
    following = int(phases[(int(np.searchsorted(phases, phase)) + 1) % len(phases)])
    masks = [group & (network.light_phase == phase), group & (network.light_phase == following)]
    masks[1] &= ~masks[0]
    masks.append(group & ~masks[0] & ~masks[1])
    own, crossing, closed = (tuple(int(row) for row in np.flatnonzero(mask)) for mask in masks)
    return LightScript(own, crossing, closed, stop_s_m, p["red_s"], p["trigger_distance_m"])


def in_the_way(route: RoutePlan, start_s_m: float, x_m: float, y_m: float) -> bool:
    """Whether a background car at this place would stand in the ego's lane right ahead of (or behind) its start."""
    s, lateral = route.project(x_m, y_m, start_s_m)
    return abs(lateral) < CLEAR_BESIDE_M and -15.0 < s - start_s_m < CLEAR_AHEAD_M
