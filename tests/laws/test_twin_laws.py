"""Laws of twins: one thing of the world differs, nothing else; the loss sees whether a latent tells them apart."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import torch

from drivesim.town.state import KIND_FREE, TownState
from drivesim.town.town import Town
from drivesim.worlds.routes import lane_map
from training.interventions import KINDS, intervene, other_walker
from training.pretrain import twin_contrast


def a_town() -> tuple[Town, int]:
    network = lane_map("Drivetown").network
    town = Town(network, seed=3)
    x, y, z = (float(v) for v in network.point_xyz_m[10])
    ego = town.spawn("vehicle.lincoln.mkz_2020", x, y, z, float(network.point_yaw_rad[10]))
    town.populate(20, 10, near=(x, y), radius_m=120.0, rng=np.random.default_rng(1))
    for _ in range(40):
        town.step(0.05)
    return town, ego


def changed_rows(before: TownState, after: TownState) -> int:
    there = before.kind != after.kind
    there |= (before.xyz != after.xyz).any(1) & (before.kind != KIND_FREE)
    return int(there.sum())


def test_an_intervention_changes_one_actor_or_only_lights_and_leaves_the_original() -> None:
    town, ego = a_town()
    state = town.copy_state()
    kept = state.to_bytes()
    rng, seen = np.random.default_rng(0), set()
    for _ in range(40):
        twin = intervene(town, state, ego, rng)
        if twin is None:
            continue
        actors, lights = changed_rows(state, twin), int((state.light_state != twin.light_state).sum())
        assert (actors == 1 and lights == 0) or (actors == 0 and lights >= 1)
        seen.add(actors)
        assert state.to_bytes() == kept
        assert (twin.xyz[ego] == state.xyz[ego]).all()
    assert seen


def test_a_walker_who_is_put_stands_on_the_ground_in_front() -> None:
    town, ego = a_town()
    state = town.copy_state()
    rng = np.random.default_rng(2)
    twins = [twin for twin in (other_walker(town, state, ego, rng) for _ in range(20)) if twin is not None]
    assert twins
    for twin in twins:
        new = np.flatnonzero((state.kind == KIND_FREE) & (twin.kind != KIND_FREE))
        for row in new:
            ground = town.lane_map.ground_height(float(twin.xyz[row, 0]), float(twin.xyz[row, 1]))
            assert math.isfinite(twin.xyz[row, 2]) and abs(float(twin.xyz[row, 2]) - ground) < 0.5


def test_every_kind_of_intervention_says_none_in_an_empty_world_or_adds_somebody() -> None:
    network = lane_map("Drivetown").network
    town = Town(network, seed=3)
    x, y, z = (float(v) for v in network.point_xyz_m[10])
    ego = town.spawn("vehicle.lincoln.mkz_2020", x, y, z, float(network.point_yaw_rad[10]))
    state = town.copy_state()
    for kind in KINDS:
        twin = kind(town, state, ego, np.random.default_rng(0))
        for field in fields(TownState) if twin is not None else ():
            assert np.asarray(getattr(twin, field.name)).shape == np.asarray(getattr(state, field.name)).shape


def test_the_loss_is_small_only_where_another_look_leaves_the_difference() -> None:
    torch.manual_seed(0)
    moments, change = torch.randn(12, 16, 8), torch.zeros(12, 16, 8)
    change[:, 3] = 2.0 * torch.randn(12, 8)  # one slot of sixteen sees it
    here = torch.cat([moments, moments + change])
    kept, told = twin_contrast(torch.cat([here, here + 0.05 * torch.randn_like(here)]))
    blind = torch.cat([moments, moments])
    lost, chance = twin_contrast(torch.cat([blind, blind]))
    assert kept < 0.1 and told == 1.0
    assert abs(float(lost) - math.log(2.0)) < 1e-5 and chance == 0.0
