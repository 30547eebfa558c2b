"""Laws of twins and analogies: one thing of the world differs; the losses see what a latent makes of it."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch

from drivesim.datatypes import EgoState
from drivesim.models.encoder import EncoderConfig
from drivesim.town.state import KIND_FREE, TownState
from drivesim.town.town import Town
from drivesim.worlds.routes import lane_map
from training.analogies import ADDED, LAMPS_OFF, LAMPS_ON, MOVED, SHARES, TO_GREEN, TO_RED, Change
from training.interventions import KINDS, Addition, add, from_ego, intervene, other_walker
from training.pretrain import PretrainConfig, Pretrainer, analogy_contrast, twin_contrast


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


def test_an_addition_is_at_the_same_place_before_the_car_wherever_the_car_is() -> None:
    town, ego = a_town()
    rng, placed = np.random.default_rng(5), 0
    moments = []
    for _ in range(3):
        moments.append(town.copy_state())
        for _ in range(60):
            town.step(0.05)
    for _ in range(20):
        addition = Addition.draw(rng)
        for state in moments:
            kept = state.to_bytes()
            after = add(town, state, ego, addition)
            assert state.to_bytes() == kept
            if after is None:
                continue
            (row,) = np.flatnonzero((state.kind == KIND_FREE) & (after.kind != KIND_FREE))
            seen = from_ego(after, ego, after.xyz[[row], :2])[0]
            assert seen == pytest.approx([addition.ahead_m, addition.right_m], abs=0.3)
            turn = float(after.rotation[row, 2] - after.rotation[ego, 2]) - addition.turn_rad
            assert math.cos(turn) > 0.999 and changed_rows(state, after) == 1
            placed += 1
    assert placed > 20


def test_a_change_of_lights_or_lamps_leads_where_its_kind_says() -> None:
    town, ego = a_town()
    found = set()
    for _ in range(60):
        state = town.copy_state()
        for kind in (TO_GREEN, TO_RED, LAMPS_ON, LAMPS_OFF):
            after = Change(kind, Addition.draw(np.random.default_rng(0)))(town, state, ego)
            if after is None:
                continue
            found.add(kind)
            assert changed_rows(state, after) == 0
            if kind in (LAMPS_ON, LAMPS_OFF):
                assert int((state.lamps != after.lamps).sum()) == 1
            else:
                turned = state.light_state != after.light_state
                assert turned.any() and len(set(after.light_state[turned].tolist())) == 1
        for _ in range(20):
            town.step(0.05)
    assert found, "no moment offered anything"
    kinds = [Change.draw(0, i).kind for i in range(300)]
    assert set(kinds) == set(range(len(SHARES))) and Change.draw(0, 5) == Change.draw(0, 5)


def test_analogies_are_recognised_only_where_the_same_change_moves_the_latent_alike() -> None:
    torch.manual_seed(1)
    here, there, change = torch.randn(3, 16, 12, 8)
    kinds = torch.full((16,), ADDED)
    same, _, found = analogy_contrast(torch.cat([here, here + change, there, there + change]), kinds)
    assert same < 0.1 and found == 1.0
    other, _, lost = analogy_contrast(torch.cat([here, here + change, there, there + torch.randn(16, 12, 8)]), kinds)
    assert other > 2.0 and lost < 0.5
    alike = change[:1].expand(16, -1, -1)
    batch = torch.cat([here, here + alike, there, there + alike])
    assert analogy_contrast(batch, torch.full((16,), TO_RED))[0] < 1e-5  # one kind: nothing to tell apart
    assert analogy_contrast(batch, kinds)[0] > 1.0


def test_a_change_stands_out_only_where_moments_do_not_differ_that_way_anyhow() -> None:
    torch.manual_seed(2)
    here, there, change = torch.randn(3, 16, 12, 8)
    kinds = torch.full((16,), ADDED)
    change[..., 4:] = 0.0
    losses = []
    for spread in (4.0, 0.01):  # of what moments differ in anyway, along what is changed
        here[..., :4], there[..., :4] = spread * torch.randn(2, 16, 12, 4)
        same, standing, _ = analogy_contrast(torch.cat([here, here + change, there, there + change]), kinds)
        assert same < 0.1, "the change is the same in both"
        losses.append(float(standing))
    assert losses[1] < 0.5 * losses[0]


def test_the_learning_rate_rises_again_where_the_analogies_come_in() -> None:
    late = PretrainConfig(steps=40, analogies=4, analogies_from=20)
    rates = [late.rate(step) for step in range(40)]
    assert rates[19] < 0.05 and rates[21] > 0.5 and rates[39] < 0.05 and max(rates[20:]) < max(rates[:20])
    plain = PretrainConfig(steps=20)
    assert rates[:20] == [plain.rate(step) for step in range(20)]


def test_a_stance_is_the_same_world_seen_from_elsewhere() -> None:
    town, ego = a_town()
    state = town.copy_state()
    change = Change.stance(0, 7)
    after = change(town, state, ego)
    assert change.kind == MOVED and after is not None and changed_rows(state, after) == 0
    assert Change.stance(0, 7) == change != Change.stance(0, 8)
    here = EgoState(0, 3.0, 4.0, 0.0, 0.0, 0.0, 1.0, 5.0, 0.0, 0.0)
    there = change.seen_from(here)
    left = np.array([there.x_m - 3.0, there.y_m - 4.0]) @ [-math.sin(1.0), math.cos(1.0)]
    assert left == pytest.approx(change.left_m) and there.yaw_rad == pytest.approx(1.0 + change.turned_rad)
    assert Change(ADDED, change.addition).seen_from(here) is here


def test_what_was_left_as_it_is_warms_up_afterwards() -> None:
    gentle = PretrainConfig(steps=120, settle=20, warmup=0.1)
    rates = [gentle.rate(step) for step in range(120)]
    assert rates[20] == 0.1 and max(rates[20:30]) == rates[29] == 1.0 and rates[-1] < 0.01
    late = PretrainConfig(steps=120, settle=20, analogies=4, analogies_from=60)
    assert late.rate(59) < 0.02 and late.rate(60) < late.rate(61) < late.rate(62)


def test_slots_for_things_learn_at_a_pace_of_their_own() -> None:
    config = PretrainConfig(thing_rate=0.03)
    together = Pretrainer(EncoderConfig(things=2))
    first, things = together.paced(config)
    assert (first["pace"], things["pace"]) == (1.0, 0.03)
    assert {id(p) for p in things["params"]} == {id(p) for p in together.encoder.things.parameters()}  # type: ignore[union-attr]
    assert len(first["params"]) + len(things["params"]) == len(list(together.parameters()))
    assert [group["pace"] for group in Pretrainer(EncoderConfig()).paced(config)] == [1.0]
