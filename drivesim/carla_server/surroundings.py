"""The map's objects and lamps of one episode, and how changes of them reach the town and its pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from drivesim.carla_server.map_objects import ALL_LAYERS, MapObjects
from drivesim.carla_server.street_lamps import StreetLamps
from drivesim.town.roads import RoadNetwork
from drivesim.town.scenery import Scenery
from drivesim.town.town import Town

Color = tuple[int, int, int]


class Surroundings:
    """What stands around the roads, as clients have it now."""

    def __init__(self, network: RoadNetwork, scenery: Scenery, layers: int = ALL_LAYERS) -> None:
        self.objects = MapObjects(network, scenery)
        self.lamps = StreetLamps(scenery.lamps)
        self.paint: dict[int, Color] = {}  # row of an object -> its colour
        self.changed = self.objects.show_layers(ALL_LAYERS & ~layers, False)

    def settle(self, town: Town) -> None:
        """Only what is shown stops cars."""
        town.set_solids(self.objects.solids)

    def dress(self, renderer: Any) -> None:
        """Only what is shown is drawn. Call it while nobody draws.

        Args:
            renderer: a TownRenderer of the same town.
        """
        renderer.standing.restore()
        if not self.changed:
            return
        objects = self.objects
        hidden = objects.hidden
        renderer.standing.leave_out(np.ascontiguousarray(objects.foot[hidden, :2]), self.lamps.switched_off())
        for row, color in self.paint.items():
            renderer.standing.repaint(objects.foot[row, :2], color)
