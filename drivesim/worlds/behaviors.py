"""Scripted actors: how each one moves, as pure functions of what is around it.

A scripted actor is a point that slides along a curve: arc length, lateral offset, speed. Most slide along
the ego's own route (a lead, a walker who crosses it), some along a lane of their own (oncoming, running a
red light). `advance` gives the next `ScriptState` from the present one and the `Surroundings`; the worlds
only place the actor where it says. All in our frame (y left).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from drivesim.config import ConfigError, nearest
from drivesim.datatypes import ActorSpec, EgoState, Frame
from drivesim.geometry import Polyline
from drivesim.town.queries import LaneMap
from drivesim.worlds.routes import RoutePlan, straightest

Array = NDArray[np.float64]

PATH_ROUTE, PATH_LANE, PATH_NONE = "route", "lane", "none"
NEVER_S = -1.0
SIDEWAYS_MPS2 = 3.0


@dataclass(frozen=True)
class Surroundings:
    """What a scripted actor knows of the world at one tick.

    Attributes:
        ego_s_m, ego_lateral_m: the ego's box centre along the route.
        boxes: (n, 5) x, y, yaw, length, width of everyone, the ego first.
        ids: (n,) their ids, -1 for the ego.
    """

    time_s: float
    ego: EgoState
    ego_s_m: float
    ego_lateral_m: float
    boxes: Array
    ids: NDArray[np.int64]

    @staticmethod
    def of(frame: Frame, route: RoutePlan, start_us: int, near_s_m: float) -> Surroundings:
        """From one tick of truth; `near_s_m` is the ego's last known arc length."""
        ego, actors = frame.ego, frame.actors
        x, y = ego.center_xy_m
        s, lateral = route.project(x, y, near_s_m)
        own = np.array([[x, y, ego.yaw_rad, ego.length_m, ego.width_m]])
        others = np.column_stack([actors.pose[:, :2], actors.pose[:, 3], actors.size_m[:, :2]])
        ids = np.concatenate([[-1], actors.ids])
        return Surroundings((frame.time_us - start_us) * 1e-6, ego, s, lateral, np.concatenate([own, others]), ids)


@dataclass(frozen=True)
class ScriptState:
    """Where a scripted actor is on its curve, and what it has begun."""

    s_m: float
    lateral_m: float
    speed_mps: float = 0.0  # along the curve
    lateral_mps: float = 0.0  # to the left
    triggered_s: float = NEVER_S  # when it noticed the ego
    gone: bool = False  # it left its curve's end


@dataclass(frozen=True)
class Script:
    """One scripted actor of a scenario, bound to a curve."""

    spec: ActorSpec
    parameters: dict[str, float]
    curve: Polyline
    start: ScriptState
    length_m: float
    width_m: float
    is_walker: bool
    crosses_s_m: float  # where it meets the ego's route, along the route


@dataclass(frozen=True)
class Wish:
    """What a behaviour wants next; `advance` makes it possible."""

    speed_mps: float
    lateral_mps: float = 0.0
    acceleration_mps2: float = 3.0
    braking_mps2: float = 4.0
    yields: bool = True
    trigger: bool = False


Motion = Callable[[Script, ScriptState, Surroundings], Wish]


@dataclass(frozen=True)
class Behavior:
    """A way to behave: its motion, the curve it lives on, its parameters with their defaults."""

    motion: Motion
    path: str
    about: str
    defaults: dict[str, float] = field(default_factory=dict)


def _gap_m(script: Script, state: ScriptState, around: Surroundings) -> float:
    """Bumper to bumper, from the ego's nose to this actor's tail, along the route."""
    return state.s_m - around.ego_s_m - 0.5 * (script.length_m + around.ego.length_m)


def _reached(script: Script, around: Surroundings) -> bool:
    """Whether the ego is near enough to set the actor off: by distance, or by time to arrival."""
    p = script.parameters
    left_m = script.crosses_s_m - around.ego_s_m - 0.5 * around.ego.length_m
    early = p.get("trigger_time_s", 0.0) * max(around.ego.speed_mps, 2.0)
    return left_m <= max(p.get("trigger_distance_m", 0.0), early)


def _paced(script: Script, state: ScriptState, around: Surroundings) -> float:
    """A speed that keeps `gap_m` before the ego, so that what comes next comes at the right distance."""
    p = script.parameters
    speed = around.ego.speed_mps + 0.5 * (p["gap_m"] - _gap_m(script, state, around))
    return min(max(speed, 0.5 * p["speed_mps"]), 1.3 * p["speed_mps"])


def _parked(_script: Script, _state: ScriptState, _around: Surroundings) -> Wish:
    return Wish(0.0)


def _steady(script: Script, _state: ScriptState, _around: Surroundings) -> Wish:
    return Wish(script.parameters["speed_mps"])


def _hard_brake(script: Script, state: ScriptState, around: Surroundings) -> Wish:
    p = script.parameters
    if state.triggered_s < 0.0:
        return Wish(_paced(script, state, around), acceleration_mps2=4.0, trigger=state.s_m >= p["brake_at_s_m"])
    since = around.time_s - state.triggered_s
    if since < p["hold_s"]:
        return Wish(p["end_speed_mps"], braking_mps2=p["braking_mps2"])
    return Wish(p["resume_mps"], acceleration_mps2=2.0)


def _stop_and_go(script: Script, _state: ScriptState, around: Surroundings) -> Wish:
    p = script.parameters
    going = (around.time_s + p["phase_s"]) % (p["go_s"] + p["stop_s"]) < p["go_s"]
    return Wish(p["speed_mps"] if going else 0.0, acceleration_mps2=2.0, braking_mps2=p["braking_mps2"])


def _cut_in(script: Script, state: ScriptState, around: Surroundings) -> Wish:
    p = script.parameters
    if state.triggered_s < 0.0:
        if p["pre_speed_mps"] <= 0.0:  # pulls out from the kerb
            return Wish(0.0, trigger=_reached(script, around))
        pace = around.ego.speed_mps + 0.5 * (p["gap_m"] - _gap_m(script, state, around))
        limit = 1.4 * p["pre_speed_mps"]
        return Wish(min(max(pace, 0.0), limit), acceleration_mps2=3.5, trigger=state.s_m >= p["cut_at_s_m"])
    left_m = p["end_lateral_m"] - state.lateral_m
    rate = abs(p["end_lateral_m"] - script.start.lateral_m) / max(p["duration_s"], 0.5)
    sideways = math.copysign(min(rate, math.sqrt(2.0 * SIDEWAYS_MPS2 * abs(left_m))), left_m)
    sideways = sideways if abs(left_m) > 0.02 else 0.0
    settled = around.time_s - state.triggered_s > p["duration_s"] + p["hold_s"]
    speed = p["resume_mps"] if settled else p["speed_mps"]
    return Wish(speed, sideways, acceleration_mps2=2.5, braking_mps2=p["braking_mps2"])


def _cross_road(script: Script, state: ScriptState, around: Surroundings) -> Wish:
    p = script.parameters
    if state.triggered_s < 0.0:
        return Wish(0.0, trigger=_reached(script, around))
    side = -math.copysign(1.0, script.start.lateral_m)
    walked = abs(state.lateral_m - script.start.lateral_m)
    if walked >= p["distance_m"]:
        return Wish(0.0)
    pausing = p["pause_s"] > 0.0 and walked >= p["pause_after_m"]
    if pausing and around.time_s - state.triggered_s < p["pause_after_m"] / p["speed_mps"] + p["pause_s"]:
        return Wish(0.0)
    return Wish(0.0, side * p["speed_mps"])


def _stroll(script: Script, _state: ScriptState, _around: Surroundings) -> Wish:
    return Wish(script.parameters["speed_mps"], yields=False)


def _waiting_driver(script: Script, state: ScriptState, around: Surroundings) -> Wish:
    p = script.parameters
    if state.triggered_s < 0.0:
        return Wish(p["pre_speed_mps"], trigger=_reached(script, around))
    return Wish(p["speed_mps"], acceleration_mps2=p["acceleration_mps2"], braking_mps2=6.0)


_TRIGGER = {"trigger_distance_m": 0.0, "trigger_time_s": 0.0}
_LANE = {**_TRIGGER, "speed_mps": 8.0, "pre_speed_mps": 0.0, "acceleration_mps2": 3.0, "turn": 0.0,
         "x_m": math.nan, "y_m": math.nan}  # fmt: skip

BEHAVIORS: dict[str, Behavior] = {
    "parked": Behavior(_parked, PATH_ROUTE, "stands where it is"),
    "slow_lead": Behavior(_steady, PATH_ROUTE, "drives along the route at its own speed", {"speed_mps": 4.0}),
    "hard_brake": Behavior(
        _hard_brake, PATH_ROUTE, "leads at a fixed gap, brakes hard at a place, stands, goes on",
        {"speed_mps": 8.0, "gap_m": 12.0, "brake_at_s_m": 60.0, "braking_mps2": 8.0, "end_speed_mps": 0.0,
         "hold_s": 4.0, "resume_mps": 7.0},
    ),
    "stop_and_go": Behavior(
        _stop_and_go, PATH_ROUTE, "leads, and stops every few seconds",
        {"speed_mps": 6.0, "go_s": 5.0, "stop_s": 3.0, "phase_s": 0.0, "braking_mps2": 4.0},
    ),
    "cut_in": Behavior(
        _cut_in, PATH_ROUTE, "comes from the side into the ego's lane: beside it at a gap, or out of a parking place",
        {**_TRIGGER, "pre_speed_mps": 0.0, "gap_m": 2.0, "cut_at_s_m": 50.0, "duration_s": 2.0, "speed_mps": 5.0,
         "end_lateral_m": 0.0, "hold_s": 4.0, "resume_mps": 7.0, "braking_mps2": 4.0},
    ),
    "cross_road": Behavior(
        _cross_road, PATH_ROUTE, "walks (or rides) across the route when the ego comes near",
        {**_TRIGGER, "trigger_time_s": 2.5, "speed_mps": 1.6, "distance_m": 9.0, "pause_s": 0.0, "pause_after_m": 0.0},
    ),
    "stroll": Behavior(_stroll, PATH_ROUTE, "walks along the road, minding its own business", {"speed_mps": 1.3}),
    "follow_lane": Behavior(_waiting_driver, PATH_LANE, "drives along its own lane", {**_LANE, "pre_speed_mps": 8.0}),
    "oncoming": Behavior(_waiting_driver, PATH_LANE, "comes towards the ego on its own lane", _LANE),
    "run_red": Behavior(
        _waiting_driver, PATH_LANE, "crosses the junction whatever the light", {**_LANE, "speed_mps": 9.0}
    ),
    "light": Behavior(
        _parked, PATH_NONE, "no actor: the light at or after route_s_m is red until red_s after the ego came near",
        {"red_s": 5.0, "trigger_distance_m": 30.0},
    ),
}  # fmt: skip


def behavior(name: str) -> Behavior:
    """The behaviour of a name.

    Raises:
        ConfigError: there is none; the message lists the known ones.
    """
    if name not in BEHAVIORS:
        raise ConfigError(f"unknown behavior {name!r}: {nearest(name, BEHAVIORS)}")
    return BEHAVIORS[name]


def parameters_of(spec: ActorSpec) -> dict[str, float]:
    """A scripted actor's numbers, defaults filled in.

    Raises:
        ConfigError: an unknown behaviour or parameter.
    """
    known = behavior(spec.behavior).defaults
    for key in spec.parameters:
        if key not in known:
            raise ConfigError(f"behavior {spec.behavior!r} has no parameter {key!r}: {nearest(key, known)}")
    return {**known, **{key: float(value) for key, value in spec.parameters.items()}}


def bind(spec: ActorSpec, route: RoutePlan, lanes: LaneMap, size_m: tuple[float, float]) -> Script:
    """Put a scripted actor on its curve; `size_m` is its length and width.

    Raises:
        ConfigError: unknown behaviour or parameter, or no lane where it should drive.
    """
    p, kind = parameters_of(spec), behavior(spec.behavior)
    walker = spec.blueprint.startswith("walker")
    curve, start = route.curve, ScriptState(spec.route_s_m, spec.lateral_m)
    if kind.path == PATH_LANE:
        curve, start = _own_lane(spec, route, lanes, int(p["turn"]))
    moving = spec.behavior in ("slow_lead", "hard_brake", "stop_and_go", "stroll")
    first_mps = p["speed_mps"] if moving else p.get("pre_speed_mps", 0.0)
    if spec.behavior == "stroll" and abs(spec.yaw_offset_deg) > 90.0:
        first_mps, p = -first_mps, {**p, "speed_mps": -p["speed_mps"]}
    return Script(spec, p, curve, replace(start, speed_mps=first_mps), *size_m, walker, spec.route_s_m)


def _own_lane(spec: ActorSpec, route: RoutePlan, lanes: LaneMap, turn: int) -> tuple[Polyline, ScriptState]:
    """The lane at x_m, y_m (else beside the route, as the heading says), and what follows it for 200 m."""
    p = parameters_of(spec)
    if math.isnan(p["x_m"]) or math.isnan(p["y_m"]):
        place = route.place(spec.route_s_m, spec.lateral_m)
        x, y, yaw = place.x_m, place.y_m, -(place.yaw_rad + math.radians(spec.yaw_offset_deg))
    else:
        x, y, yaw = p["x_m"], p["y_m"], None
    found = lanes.nearest(x, -y, yaw, max_distance_m=10.0)
    if found.lane < 0:
        raise ConfigError(f"no lane for {spec.behavior!r} within 10 m of ({x:.1f}, {y:.1f})")
    pieces, lane, length_m = [], found.lane, 0.0
    while lane >= 0 and length_m < found.s_m + 200.0:
        pieces.append(lanes.network.point_xyz_m[lanes.lane_points(lane), :2].astype(np.float64))
        length_m += float(lanes.network.lane_length_m[lane])
        lane = straightest(lanes, lane, turn)
    points = np.concatenate(pieces)
    points[:, 1] *= -1.0
    keep = np.concatenate([[True], np.linalg.norm(np.diff(points, axis=0), axis=1) > 0.2])
    return Polyline.from_points(points[keep]), ScriptState(found.s_m, 0.0)


def advance(script: Script, state: ScriptState, around: Surroundings, own_id: int, dt_s: float) -> ScriptState:
    """The state one tick later. A pure function; `own_id` is left out of who is in the way."""
    if state.gone:
        return state
    wish = behavior(script.spec.behavior).motion(script, state, around)
    triggered = around.time_s if wish.trigger and state.triggered_s < 0.0 else state.triggered_s
    target, sideways = wish.speed_mps, wish.lateral_mps
    if script.is_walker:
        if _blocked_walker(script, state, around, target, sideways):
            target, sideways = 0.0, 0.0
        speed = target  # people start and stop within a tick
    else:
        if wish.yields:
            target = min(target, _free_speed(script, state, around, own_id))
        braking = max(wish.braking_mps2, 6.0 if target < wish.speed_mps else 0.0)
        speed = min(max(target, state.speed_mps - braking * dt_s), state.speed_mps + wish.acceleration_mps2 * dt_s)
        change = SIDEWAYS_MPS2 * dt_s  # a car turns into its lane, it does not slide there
        sideways = min(max(sideways, state.lateral_mps - change), state.lateral_mps + change)
        sideways = min(max(sideways, -0.5 * speed), 0.5 * speed)
    s = state.s_m + 0.5 * (state.speed_mps + speed) * dt_s
    lateral = state.lateral_m + sideways * dt_s
    gone = s >= script.curve.length_m - 1.0 or s <= 0.0
    return ScriptState(s, lateral, speed, sideways, triggered, gone)


def motion_of(script: Script, state: ScriptState) -> tuple[Array, Array]:
    """(3,) x, y, yaw of the actor's centre, and (2,) its velocity in the world frame."""
    x, y, yaw = (float(value) for value in script.curve.at(state.s_m))
    c, s = math.cos(yaw), math.sin(yaw)
    x, y = x - state.lateral_m * s, y + state.lateral_m * c
    velocity = np.array([state.speed_mps * c - state.lateral_mps * s, state.speed_mps * s + state.lateral_mps * c])
    if script.is_walker:
        moving = abs(state.speed_mps) + abs(state.lateral_mps) > 1e-3
        turned = math.atan2(state.lateral_mps, state.speed_mps) if moving else _facing(script)
    else:
        turned = math.atan2(state.lateral_mps, max(abs(state.speed_mps), 0.5))  # the slip of a lane change
        if behavior(script.spec.behavior).path == PATH_ROUTE:
            turned += math.radians(script.spec.yaw_offset_deg)
    return np.array([x, y, math.remainder(yaw + turned, 2.0 * math.pi)]), velocity


def pose_of(script: Script, state: ScriptState) -> Array:
    """(3,) x, y, yaw of the actor's centre."""
    return motion_of(script, state)[0]


def _facing(script: Script) -> float:
    """A standing walker looks across the road."""
    if script.spec.behavior == "stroll":
        return 0.0
    return -math.copysign(0.5 * math.pi, script.start.lateral_m or 1.0)


def _free_speed(script: Script, state: ScriptState, around: Surroundings, own_id: int) -> float:
    """The speed from which the actor can still stop behind whoever is in its way."""
    x, y, _ = pose_of(script, state)
    offsets = around.boxes[:, :2] - np.array([x, y])
    near = ((offsets**2).sum(1) < 35.0**2) & (around.ids != own_id)
    free = math.inf
    for box in around.boxes[near]:
        s, lateral = script.curve.project(float(box[0]), float(box[1]), state.s_m + 15.0, 25.0)
        ahead_m = s - state.s_m
        along = abs(math.cos(float(box[2]) - float(np.interp(s, script.curve.s_m, script.curve.heading_rad))))
        length = box[3] * along + box[4] * math.sqrt(max(1.0 - along * along, 0.0))
        width = box[4] * along + box[3] * math.sqrt(max(1.0 - along * along, 0.0))
        beside = abs(lateral - state.lateral_m) > 0.5 * (script.width_m + width) + 0.2
        gap_m = ahead_m - 0.5 * (script.length_m + length)
        if beside or ahead_m <= 0.5 * script.length_m:
            continue
        free = min(free, math.sqrt(2.0 * 4.0 * max(gap_m - 2.0, 0.0)))
    return free


def _blocked_walker(script: Script, state: ScriptState, around: Surroundings, along: float, sideways: float) -> bool:
    """Whether the next step would be into the ego's side: people do not walk into a car that is passing."""
    size = math.hypot(along, sideways)
    if size < 1e-3 or abs(state.s_m - around.ego_s_m) > around.ego.length_m + 2.0:
        return False
    yaw = float(script.curve.at(state.s_m)[2])
    heading = np.array([math.cos(yaw), math.sin(yaw)]) * along + np.array([-math.sin(yaw), math.cos(yaw)]) * sideways
    x, y, _ = pose_of(script, state)
    ahead = np.array([x, y]) + heading / size * 1.1
    ego = around.boxes[0]
    dx, dy = ahead[0] - ego[0], ahead[1] - ego[1]
    c, s = math.cos(ego[2]), math.sin(ego[2])
    inside_along = abs(c * dx + s * dy) < 0.5 * ego[3] + 0.3
    return bool(inside_along and abs(-s * dx + c * dy) < 0.5 * ego[4] + 0.2)
