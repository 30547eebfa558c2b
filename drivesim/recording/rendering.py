"""Pictures of a logged drive, made again from the world's state: in its own appearance or another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import CameraRig
from drivesim.logs import DriveLog
from drivesim.town.render import Appearance, TownRenderer
from drivesim.town.state import TownState
from drivesim.worlds.routes import lane_map
from drivesim.worlds.town_world import picture


def town_state(log: DriveLog, i: int) -> TownState:
    """The whole town at tick i; `Town.restore` takes it, and the town goes on exactly as it did.

    Raises:
        LogError: the log was not recorded in the embedded world.
    """
    return log.state(i, TownState)


def renderer_of(log: DriveLog) -> TownRenderer:
    """The renderer of the log's town; make it once for many logs of a town."""
    return TownRenderer(lane_map(str(log.attrs["town"])).network)


def appearance_of(log: DriveLog) -> Appearance:
    """How the drive looked: its weather, and the seed of everything else that one sees."""
    return Appearance.from_weather(town_state(log, 0).weather, int(log.attrs["appearance_seed"]))


def render_tick(
    log: DriveLog, i: int, renderer: TownRenderer, rig: CameraRig, appearance: Appearance | None = None
) -> NDArray[np.uint8]:
    """Pictures (cameras, h, w, 3) RGB of tick i; the drive's own appearance when None."""
    state = town_state(log, i)
    look = appearance if appearance is not None else appearance_of(log)
    place, ego_row = log.frame(i).ego.world_from_ego, int(log.attrs["ego_row"])
    return picture(renderer, state, ego_row, place, rig, look, int(state.tick[0]))
