"""A logged moment of the embedded town as a world: the exact state goes on, with another driver at the wheel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from drivesim.config import ConfigError
from drivesim.datatypes import CameraRig, Frame, Scenario
from drivesim.town.state import TownState
from drivesim.town.town import Town
from drivesim.town.walkers import WalkTable
from drivesim.worlds.cast import Cast
from drivesim.worlds.ego_motion import EgoMotion
from drivesim.worlds.routes import RoutePlan, lane_map
from drivesim.worlds.town_world import TownWorld, town_solids
from drivesim.worlds.variation import vary


@dataclass(frozen=True)
class TownStart:
    """A state to go on from.

    Attributes:
        state: reads the whole town (called at every reset; `Town.restore` copies it).
        route: with the goal of the drive; s_m is the ego's place on it.
        appearance_seed: how the logged drive looked, beside its weather.
    """

    scenario: Scenario
    state: Callable[[], TownState]
    ego_row: int
    route: RoutePlan
    s_m: float
    appearance_seed: int


class ResumedTown(TownWorld):
    """`TownWorld` that begins in the middle: the starts' scenarios are its scenarios.

    What the drive's script had in store (somebody who steps out, a lead that brakes) goes on only as far as
    the town's own state carries it.
    """

    def __init__(
        self, starts: Mapping[str, TownStart], rig: CameraRig | None = None, *, camera_period_s: float = 0.25
    ) -> None:
        """Starts by the id of their scenario."""
        super().__init__(rig, camera_period_s=camera_period_s)
        self.starts = dict(starts)
        self._walks: dict[str, WalkTable] = {}  # a town's own, and slow to derive

    def reset(self, scenario: Scenario, seed: int) -> Frame:
        """Restore a start; the seed is the driver's alone, since the state says all of the town.

        Raises:
            ConfigError: the scenario is none of the starts, or its log is of another version of the town.
        """
        if scenario.id not in self.starts:
            raise ConfigError(f"{scenario.id!r} is no start of these logs; there are {len(self.starts)}")
        start = self.starts[scenario.id]
        lanes = lane_map(scenario.town)
        self.route, self.variation = start.route, vary(scenario, seed)
        self._scenario, self._seed = scenario, seed
        self.town = Town(lanes.network, solids=town_solids(scenario.town))
        if scenario.town not in self._walks:
            self._walks[scenario.town] = self.town.walk_table
        self.town.walk_table = self._walks[scenario.town]
        try:
            self.town.restore(start.state())
        except ValueError as error:
            raise ConfigError(f"{scenario.id}: its log is of another version of the town; record it again") from error
        self.ego_row, self._near_s_m = start.ego_row, start.s_m
        self._motion, self._tick = EgoMotion(), 0
        self._cast, self._rows = Cast((), self.route, lanes), []
        self._appearance = self._look(start)
        self._frame = self._observe()
        return self._frame

    def _look(self, start: TownStart) -> Any:
        if self.rig is None:
            return None
        from drivesim.town.render import Appearance

        return Appearance.from_weather(self.town.state.weather, start.appearance_seed)
