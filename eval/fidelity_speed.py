"""How many times faster imagination is than the embedded town: one run, one machine, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from drivesim.build import BATCH_PLANNERS, make_controller
from drivesim.carla_server.embedded import EmbeddedServer
from drivesim.datatypes import default_rig
from drivesim.drive import PLAN_PERIOD_S, Driver, run_episode
from drivesim.interfaces import Planner
from drivesim.scoring.outcome import score
from drivesim.suite.imagined import LoggedWorld
from drivesim.suite.imagining import Everybody, OneByOne, drive_batch
from drivesim.worlds.carla_world import CarlaWorld
from drivesim.worlds.resumed_town import ResumedTown
from eval.fidelity_drives import seconds_of, town_starts

DRIVES = 256
CARLA_SECONDS = 8.0
PLANNER = "latent-policy"
Makers = dict[str, Callable[[], Planner]]


class SpeedTest:
    """The same planner in each world; planning and scoring are part of all."""

    def __init__(self, world: LoggedWorld, sight: Any, makers: Makers) -> None:
        self.world, self.ids = world, list(world.starts)
        self.planner, self.few = makers[PLANNER](), self.ids[:: max(len(self.ids) // 3, 1)][:3]
        self.town = ResumedTown(town_starts(world), default_rig(), camera_period_s=PLAN_PERIOD_S)
        self.batched = Everybody(BATCH_PLANNERS[PLANNER](world.model))
        self.single = OneByOne("latent", makers["latent"], sight)
        self.began = 0.0

    def rendered(self) -> float:
        """The town in process, with cameras."""
        episodes = [
            run_episode(self.town, Driver(self.planner, make_controller(), default_rig()),
                        self.world.starts[i].scenario, 0)
            for i in self.few
        ]  # fmt: skip
        for episode in episodes:
            score(episode)
        return seconds_of(episodes)

    def through_carla(self) -> float:
        """The town behind its server and the carla client, as `drivesim evaluate` drives."""
        log = next(drive for drive in self.world.drives.values()).scenario
        scenario = replace(log, time_limit_s=CARLA_SECONDS, traffic_vehicles=20, traffic_walkers=10)
        with EmbeddedServer(scenario.town) as (host, port):
            carla = CarlaWorld(host, port, rig=default_rig(), camera_period_s=PLAN_PERIOD_S)
            carla.reset(scenario, 0)  # the town is loaded and painted once before the clock starts
            self.began = time.perf_counter()
            episode = run_episode(carla, Driver(self.planner, make_controller(), default_rig()), scenario, 0)
            score(episode)
            carla.close()
        return seconds_of([episode])

    def imagined(self, runner: Everybody | OneByOne, drives: list[str]) -> float:
        """The latent world."""
        found = drive_batch(self.world.batch(drives, list(range(len(drives)))), runner)
        for episode in found.episodes:
            score(episode)
        return found.simulated_s

    def run(self, tell: Callable[[str], None]) -> dict[str, Any]:
        """Simulated seconds per second of every way."""
        many = [self.ids[k % len(self.ids)] for k in range(DRIVES)]
        self.rendered(), self.imagined(self.batched, many[:8])  # compiled and warm
        figures: dict[str, Any] = {}
        for label, work in (
            ("rendered", self.rendered),
            ("rendered_through_carla", self.through_carla),
            ("imagined_batch", lambda: self.imagined(self.batched, many)),
            ("imagined_latent_planner", lambda: self.imagined(self.single, self.ids[:4])),
        ):
            self.began = time.perf_counter()
            simulated = work()
            figures[f"{label}_s_per_s"] = simulated / (time.perf_counter() - self.began)
            tell(f"speed: {label:<24} {figures[f'{label}_s_per_s']:10.2f} simulated s/s")
        for slow in ("rendered", "rendered_through_carla"):
            figures[f"times_faster_than_{slow}"] = figures["imagined_batch_s_per_s"] / figures[f"{slow}_s_per_s"]
        return {**figures, "planner": PLANNER, "imagined_drives": DRIVES, "rendered_drives": len(self.few)}
