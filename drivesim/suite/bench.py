"""What happens in a worker process: one server, kept worlds and planners, one episode after the other."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from drivesim.build import NEEDS_TOWN, make_controller, make_planner, make_world
from drivesim.config import ConfigError, from_dict
from drivesim.datatypes import Scenario, default_rig
from drivesim.drive import PLAN_PERIOD_S, Driver, run_episode
from drivesim.episodes import save_episode
from drivesim.town.towns import TownUnavailable, canonical_name
from drivesim.worlds.errors import ScenarioError
from drivesim.worlds.routes import RouteError

HOPELESS = (ConfigError, RouteError, ScenarioError, TownUnavailable)  # would be the same a second time
BLIND_CAMERA_PERIOD_S = 1.0  # drivers that need no pictures: only the report's


def work(pipe: Any, log: str, carla: tuple[str, int] | None, checkpoints: dict[str, str]) -> None:
    """Drive episodes until told to stop. Whatever is printed goes to the log, the Traffic Manager's chatter too."""
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(sink, stream)
    with contextlib.ExitStack() as stack:
        bench = _Bench(stack, carla, checkpoints)
        while True:
            try:
                order = json.loads(pipe.recv_bytes())
            except (EOFError, OSError):
                break
            if order is None:
                break
            error, hopeless = "", False
            try:
                bench.drive(order)
            except HOPELESS as caught:
                error, hopeless = f"{type(caught).__name__}: {caught}", True
            except Exception as caught:
                traceback.print_exc()
                error = f"{type(caught).__name__}: {caught}"
                bench.start_over()
            pipe.send_bytes(json.dumps({"error": error, "hopeless": hopeless}).encode())


class _Bench:
    """What a worker keeps between episodes: its server, its worlds, its planners."""

    def __init__(self, stack: contextlib.ExitStack, carla: tuple[str, int] | None, checkpoints: dict[str, str]) -> None:
        self._stack, self._carla, self._checkpoints = stack, carla, checkpoints
        self._server: contextlib.ExitStack | None = None
        self._address: tuple[str, int] | None = carla
        self._worlds: dict[bool, Any] = {}
        self._planners: dict[str, Any] = {}
        stack.callback(self.start_over)

    def drive(self, order: dict[str, Any]) -> None:
        """Drive one episode and save it."""
        scenario = from_dict(Scenario, order["scenario"])
        planner = self._planner(order["planner"])
        tries_out = order["planner"] in NEEDS_TOWN and self._carla is None
        world = _town_world() if tries_out else self._world(scenario.town, planner.needs_images)
        driver = Driver(planner, make_controller(), default_rig(), PLAN_PERIOD_S)
        try:
            episode = run_episode(world, driver, scenario, int(order["seed"]))
        finally:
            world.close()
        save_episode(replace(episode, planner=order["planner"]), Path(order["path"]))

    def start_over(self) -> None:
        """Give up the server and all worlds: after an error nobody knows what state they are in."""
        for world in self._worlds.values():
            with contextlib.suppress(Exception):
                world.close()
        self._worlds = {}
        if self._server is not None:
            self._server.close()
        self._server = None
        self._address = self._carla

    def _planner(self, name: str) -> Any:
        if name not in self._planners:
            path = self._checkpoints.get(name)
            self._planners[name] = make_planner(name, None if path is None else Path(path))
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
        return self._planners[name]

    def _world(self, town: str, needs_images: bool) -> Any:
        from drivesim.worlds.carla_world import CarlaWorld

        if self._address is None:
            from drivesim.carla_server.embedded import EmbeddedServer

            self._server = contextlib.ExitStack()
            self._address = self._server.enter_context(EmbeddedServer(canonical_name(town)))
        if needs_images not in self._worlds:
            host, port = self._address
            period_s = PLAN_PERIOD_S if needs_images else BLIND_CAMERA_PERIOD_S
            self._worlds[needs_images] = CarlaWorld(
                host, port, rig=default_rig(), camera_period_s=period_s, draws_every_tick=self._carla is not None
            )
        return self._worlds[needs_images]


def _town_world() -> Any:
    """The embedded town in this very process, for planners that try futures out in it."""
    return make_world("town", rig=default_rig(), camera_period_s=BLIND_CAMERA_PERIOD_S)
