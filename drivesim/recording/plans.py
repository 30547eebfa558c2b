"""Where a drive of a recording goes, under which sky, who drives, and what will happen: all by its seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivesim.datatypes import Scenario, Waypoint, WeatherSpec
from drivesim.logs import MODE_EXPERT, MODE_NOISE, MODE_PLANNER, MODE_RISKY
from drivesim.recording.config import RecordConfig
from drivesim.town.queries import LaneMap
from drivesim.town.roads import LANE_DRIVING
from drivesim.town.towns import canonical_name
from drivesim.worlds.routes import RouteError, route_along

ATTEMPTS = 200


@dataclass(frozen=True)
class DrivePlan:
    """One drive of a recording.

    Attributes:
        red_light: the light row that is red when the drive starts, or -1.
        walker_at_s: when somebody comes who will step out, or -1.
        brake_at_s: when the lead brakes hard, or -1.
        lead: a vehicle starts ahead of the ego and goes its way.
        vehicles, walkers: the town's own traffic, around the start.
    """

    name: str
    scenario: Scenario
    seed: int
    mode: int
    appearance_seed: int
    red_light: int
    walker_at_s: float
    brake_at_s: float
    lead: bool
    vehicles: int
    walkers: int


def drive_name(config: RecordConfig, index: int) -> str:
    """Folder name of drive `index`."""
    return f"{index:05d}-{_town(config, index)}.zarr"


def _town(config: RecordConfig, index: int) -> str:
    return canonical_name(config.towns[index % len(config.towns)])


def plan_drive(config: RecordConfig, index: int, lanes: LaneMap) -> DrivePlan:
    """Drive `index` of a recording: a pure function of the config, the index and the town."""
    rng = np.random.default_rng([config.seed, index, 20])
    at_light = rng.random() < config.red_light_fraction and bool(np.any(lanes.network.lane_light >= 0))
    waypoints, light = random_route(lanes, rng, config.route_m, at_light)
    limit_mps = lanes.at(*lanes.nearest(waypoints[0].x_m, -waypoints[0].y_m)[:2]).speed_limit_mps
    share = float(rng.random())
    if config.planner:
        mode = MODE_PLANNER
    elif share < config.risky_fraction:
        mode = MODE_RISKY
    else:
        mode = MODE_NOISE if share < config.risky_fraction + config.noise_fraction else MODE_EXPERT
    scenario = Scenario(
        id=f"record_{config.seed}_{index}-v1",
        town=_town(config, index),
        description="a random drive for a log",
        route=waypoints,
        time_limit_s=config.seconds,
        initial_speed_mps=0.0 if rng.random() < 0.15 else float(rng.uniform(0.3, 0.9)) * min(limit_mps, 14.0),
        weather=WeatherSpec(str(rng.choice(list(config.weathers)))),
        dt_s=config.dt_s,
        seed=int(rng.integers(2**31)),
        tags=("recording",),
    )
    brakes = rng.random() < config.brake_event_fraction
    walks = rng.random() < config.walker_event_fraction
    return DrivePlan(
        name=drive_name(config, index),
        scenario=scenario,
        seed=int(rng.integers(2**31)),
        mode=mode,
        appearance_seed=int(rng.integers(2**31)),
        red_light=light,
        walker_at_s=float(rng.uniform(config.seconds / 30.0, 0.5 * config.seconds)) if walks else -1.0,
        brake_at_s=float(rng.uniform(0.1 * config.seconds, 0.6 * config.seconds)) if brakes else -1.0,
        lead=bool(brakes or rng.random() < 0.4),
        vehicles=round(config.vehicles * rng.uniform(0.5, 1.4)),
        walkers=round(config.walkers * rng.uniform(0.3, 1.7)),
    )


def random_route(
    lanes: LaneMap, rng: np.random.Generator, length_m: float, at_light: bool
) -> tuple[tuple[Waypoint, ...], int]:
    """Waypoints of a drive along lanes, and the light it starts before (-1 without).

    Raises:
        RouteError: the town has no such route.
    """
    n = lanes.network
    starts = np.flatnonzero((n.lane_kind == LANE_DRIVING) & (n.lane_junction < 0) & (n.lane_length_m > 12.0))
    if at_light:
        starts = starts[(n.lane_light[starts] >= 0) & (n.lane_length_m[starts] > 30.0)]
    if len(starts) == 0:
        return random_route(lanes, rng, length_m, False) if at_light else _no_route(n.name, length_m)
    weight = np.minimum(n.lane_length_m[starts].astype(np.float64), 200.0)
    for attempt in range(ATTEMPTS):
        lane = int(rng.choice(starts, p=weight / weight.sum()))
        room = float(n.lane_length_m[lane])
        back = float(rng.uniform(25.0, 75.0)) if at_light else float(rng.uniform(6.0, room))
        start_s = max(room - back, 1.0)
        wanted = length_m * (1.0 if attempt < ATTEMPTS // 2 else 0.5)  # small towns end at their edges
        found = _walk(lanes, rng, lane, start_s, wanted)
        if found is not None:
            return found, int(n.lane_light[lane]) if at_light else -1
    return _no_route(n.name, length_m)


def _no_route(town: str, length_m: float) -> tuple[tuple[Waypoint, ...], int]:
    raise RouteError(f"{town} has no route of {length_m:.0f} m: ask for a shorter one (route_m)")


def _walk(
    lanes: LaneMap, rng: np.random.Generator, lane: int, start_s: float, length_m: float
) -> tuple[Waypoint, ...] | None:
    """Random successors until the length is reached; None at a dead end or where waypoints would mislead."""
    n = lanes.network
    chain, driven_m = [lane], float(n.lane_length_m[lane]) - start_s
    while driven_m < length_m or n.lane_junction[chain[-1]] >= 0 or n.lane_length_m[chain[-1]] < 6.0:
        options = [int(k) for k in n.lane_next[chain[-1]] if k >= 0 and n.lane_kind[k] == LANE_DRIVING]
        if not options or len(chain) > 120:
            return None
        chain.append(int(rng.choice(options)))
        driven_m += float(n.lane_length_m[chain[-1]])
    stations = [(chain[0], start_s)]
    stations += [(k, 0.5 * float(n.lane_length_m[k])) for k in chain[1:] if _is_plain(lanes, k)]
    points = [lanes.at(*station) for station in stations]
    waypoints = tuple(Waypoint(round(p.x_m, 2), round(-p.y_m, 2)) for p in points)
    if len(waypoints) < 2:
        return None
    try:
        route = route_along(lanes, waypoints)
    except RouteError:
        return None
    return waypoints if tuple(chain[: len(route.lanes)]) == route.lanes else None


def _is_plain(lanes: LaneMap, lane: int) -> bool:
    """Off junctions, where the nearest lane is not another one."""
    return bool(lanes.network.lane_junction[lane] < 0 and lanes.network.lane_length_m[lane] > 4.0)
