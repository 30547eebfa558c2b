"""What stands in a town can be left out of its pictures, repainted and switched off, and comes back to the bit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from drivesim.town import towns
from drivesim.town.render import TownRenderer, Views
from drivesim.town.render.appearance import Appearance
from drivesim.town.scenery_cache import load_scenery
from drivesim.town.town import Town

BUILDINGS = 3


@pytest.fixture(scope="module")
def scene():
    network = towns.road_network("Drivetown")
    return TownRenderer(network, seed=0), Town(network, seed=0, capacity=4), load_scenery(network, 0)


def look_at(renderer, town, xyz, *, from_m=25.0, up_m=12.0, appearance=Appearance(noise=0.0)):
    x, y, z = xyz
    position = np.array([[x - from_m, y, z + up_m]])
    rotation = np.array([[0.0, -math.atan2(up_m - 2.0, from_m), 0.0]])
    views = Views(position, rotation, np.array([1.2]), 96, 64)
    return renderer.render(town.state, views, appearance)


def test_a_house_that_is_left_out_is_not_seen_and_comes_back(scene):
    renderer, town, things = scene
    house = things.buildings[0]
    before = look_at(renderer, town, house[:3])
    renderer.standing.leave_out(house[None, :2], np.zeros(len(things.lamps), bool))
    without = look_at(renderer, town, house[:3])
    renderer.standing.restore()
    after = look_at(renderer, town, house[:3])
    assert (before.semantic == BUILDINGS).sum() > (without.semantic == BUILDINGS).sum() + 50
    np.testing.assert_array_equal(before.bgra, after.bgra)


def test_a_house_takes_paint_and_a_lamp_does_not(scene):
    renderer, town, things = scene
    house = things.buildings[0]
    before = look_at(renderer, town, house[:3])
    assert renderer.standing.repaint(house[:2], (255, 0, 0))
    assert not renderer.standing.repaint(things.lamps[0, :2], (255, 0, 0))
    red = look_at(renderer, town, house[:3])
    renderer.standing.restore()
    wall = (before.semantic[0] == BUILDINGS) & (before.bgra[0] != red.bgra[0]).any(axis=-1)
    assert wall.sum() > 50
    assert (red.bgra[0][wall][:, 0].mean() < before.bgra[0][wall][:, 0].mean()) and np.array_equal(
        before.bgra, look_at(renderer, town, house[:3]).bgra
    )


def test_lamps_that_are_switched_off_leave_the_night_darker(scene):
    renderer, town, things = scene
    night = Appearance(sun_altitude_rad=-0.5, noise=0.0)
    foot = things.lamps[0, :3]
    lit = look_at(renderer, town, foot, appearance=night)
    renderer.standing.leave_out(np.zeros((0, 2)), np.ones(len(things.lamps), bool))
    dark = look_at(renderer, town, foot, appearance=night)
    renderer.standing.restore()
    assert dark.bgra.mean() < lit.bgra.mean()
    np.testing.assert_array_equal(lit.semantic, dark.semantic)  # they still stand there
    np.testing.assert_array_equal(lit.bgra, look_at(renderer, town, foot, appearance=night).bgra)
