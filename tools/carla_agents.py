"""Drive CARLA's own agents over a route in several towns of a server that this starts; prints a table.

    python tools/carla_agents.py PATH/TO/PythonAPI [--town Town01 --town Town03] [--route-m 400]

PythonAPI is CARLA's folder of that name (0.9.16); its `carla/agents` are imported as they are. The agents need
shapely and networkx.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivesim.carla_server.embedded import EmbeddedServer

TOWNS = ("Town01", "Town02", "Town03", "Town05", "Town10HD")
AGENTS = ("BasicAgent", "BehaviorAgent", "ConstantVelocityAgent")
DELTA_S = 0.05
LONGEST_S = 420.0  # of a route: red lights take long
TARGET_KMH = 30.0
NEAR_GOAL_M = 12.0


@dataclass
class Drive:
    """What became of one route."""

    route_m: float
    done: bool
    simulated_s: float
    wall_s: float
    off_goal_m: float
    worst_offset_m: float
    collisions: int

    @property
    def passed(self) -> bool:
        """The agent said that it had arrived, and it had, without touching anything."""
        return self.done and self.off_goal_m < NEAR_GOAL_M and self.collisions == 0


def _agent_makers() -> dict[str, Callable[[Any], Any]]:
    from agents.navigation.basic_agent import BasicAgent  # type: ignore[import-not-found]
    from agents.navigation.behavior_agent import BehaviorAgent  # type: ignore[import-not-found]
    from agents.navigation.constant_velocity_agent import ConstantVelocityAgent  # type: ignore[import-not-found]

    return {
        "BasicAgent": lambda car: BasicAgent(car, TARGET_KMH, opt_dict={}),
        "BehaviorAgent": lambda car: BehaviorAgent(car, behavior="normal"),
        "ConstantVelocityAgent": lambda car: ConstantVelocityAgent(car, TARGET_KMH, opt_dict={"restart_time": 3.0}),
    }


def _route(world_map: Any, wanted_m: float) -> tuple[Any, Any, float]:
    """Start, goal and length of the first route between spawn points that is as long as wanted (to a fifth more)."""
    from agents.navigation.global_route_planner import GlobalRoutePlanner  # type: ignore[import-not-found]

    planner = GlobalRoutePlanner(world_map, 2.0)
    points = world_map.get_spawn_points()
    best: tuple[float, Any, Any] | None = None
    for first in range(0, len(points), max(len(points) // 8, 1)):
        for last in range(0, len(points), max(len(points) // 40, 1)):
            start, goal = points[first], points[last]
            if start.location.distance(goal.location) < wanted_m / 4.0:
                continue
            try:
                places = [step[0].transform.location for step in planner.trace_route(start.location, goal.location)]
            except Exception:  # networkx: no way between the two
                continue
            length_m = sum(a.distance(b) for a, b in itertools.pairwise(places))
            if wanted_m <= length_m <= 1.2 * wanted_m:
                return start, goal, length_m
            if length_m > wanted_m and (best is None or length_m < best[0]):
                best = (length_m, start, goal)
    if best is None:
        raise RuntimeError(f"no route of {wanted_m:.0f} m")
    return best[1], best[2], best[0]


def _drive(carla: Any, world: Any, make: Callable[[Any], Any], start: Any, goal: Any, route_m: float) -> Drive:
    library = world.get_blueprint_library()
    car = world.spawn_actor(library.find("vehicle.tesla.model3"), start)
    bumper = world.spawn_actor(library.find("sensor.other.collision"), carla.Transform(), attach_to=car)
    hits: list[int] = []
    bumper.listen(lambda event: hits.append(event.frame))
    for _ in range(10):
        world.tick()
    agent = make(car)
    agent.set_destination(goal.location, start.location)
    begun_s, tick, worst_m, done = time.monotonic(), 0, 0.0, False
    world_map = world.get_map()
    while tick * DELTA_S < LONGEST_S and not done:
        world.tick()
        tick += 1
        done = agent.done()
        if not done:
            car.apply_control(agent.run_step())
        place = car.get_location()
        lane = world_map.get_waypoint(place)
        if lane is not None and not lane.is_junction:
            aside = lane.transform.get_right_vector()
            gap = place - lane.transform.location
            worst_m = max(worst_m, abs(aside.x * gap.x + aside.y * gap.y))
    end = car.get_location()
    if hasattr(agent, "destroy_sensor"):
        agent.destroy_sensor()
    bumper.stop()
    bumper.destroy()
    car.destroy()
    world.tick()
    return Drive(route_m, done, tick * DELTA_S, time.monotonic() - begun_s, end.distance(goal.location), worst_m,
                 len(hits))  # fmt: skip


def _town(carla: Any, client: Any, town: str, agents: list[str], route_m: float) -> bool:
    world = client.load_world(town)
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, DELTA_S
    world.apply_settings(settings)
    world = client.reload_world(False)
    start, goal, length_m = _route(world.get_map(), route_m)
    good = True
    for name in agents:
        try:
            drive = _drive(carla, world, _agent_makers()[name], start, goal, length_m)
        except Exception as error:
            print(f"| {town} | {name} | {length_m:.0f} | {type(error).__name__}: {error} | | | | |", flush=True)
            good = False
            continue
        good &= drive.passed
        verdict = "arrived" if drive.passed else "failed" if drive.done else "did not arrive"
        print(
            f"| {town} | {name} | {length_m:.0f} | {verdict} | {drive.simulated_s:.0f} | {drive.worst_offset_m:.2f} "
            f"| {drive.collisions} | {drive.simulated_s / DELTA_S / max(drive.wall_s, 1e-3):.0f} |",
            flush=True,
        )
    world.apply_settings(carla.WorldSettings())
    return good


def main() -> int:
    """Parse, serve, drive."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("python_api", type=Path, help="CARLA's PythonAPI folder")
    parser.add_argument("--town", action="append", help=f"repeat for more; default {', '.join(TOWNS)}")
    parser.add_argument("--agent", action="append", choices=AGENTS)
    parser.add_argument("--route-m", type=float, default=400.0)
    options = parser.parse_args()
    folder = options.python_api / "carla"
    if not (folder / "agents").is_dir():
        parser.error(f"{folder} holds no agents")
    sys.path.insert(0, str(folder))
    import carla

    good = True
    towns = options.town or TOWNS
    with EmbeddedServer(towns[0], draw_ahead=False) as (host, port):
        client = carla.Client(host, port)
        client.set_timeout(120.0)
        print("| town | agent | route m | result | simulated s | worst lane offset m | collisions | ticks/s |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for town in towns:
            good &= _town(carla, client, town, options.agent or list(AGENTS), options.route_m)
    sys.stdout.flush()
    os._exit(0 if good else 1)  # the client library may abort while the interpreter ends


if __name__ == "__main__":
    raise SystemExit(main())
