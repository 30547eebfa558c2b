"""Laws of the embedded world: exact branches, one seed one world, boxes that never share their place for free."""

import hashlib
import math
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest

from drivesim.town.contacts import box_overlap
from drivesim.town.state import POLICY_TRAFFIC, TownState
from drivesim.town.town import Town
from drivesim.town.towns import road_network

DT_S = 0.05


@pytest.fixture(scope="module")
def network():
    return road_network("Drivetown")


def busy_town(network, seed: int) -> tuple[Town, int]:
    town = Town(network, seed=seed, capacity=64)
    spot = network.spawn_xyz_m[0]
    ego = town.spawn("vehicle.tesla.model3", *map(float, spot), float(network.spawn_yaw_rad[0]))
    town.populate(14, 6, rng=np.random.default_rng(seed), jaywalks=5.0)
    town.set_control(ego, 0.4, 0.0, 0.0)
    return town, ego


def run(town: Town, ticks: int) -> bytes:
    for _ in range(ticks):
        town.step(DT_S)
    return town.state.to_bytes()


def digest_of_seed(seed: int) -> str:
    town, _ = busy_town(road_network("Drivetown"), seed)
    return hashlib.sha256(run(town, 300)).hexdigest()


def test_a_copy_is_an_exact_branch(network):
    town, ego = busy_town(network, 3)
    run(town, 60)
    branch = town.copy_state()
    first = run(town, 200)
    town.restore(branch)
    assert run(town, 200) == first
    other = Town(network, seed=99, capacity=64)
    other.restore(branch)
    assert run(other, 200) == first
    town.restore(branch)
    town.set_control(ego, 0.0, 0.1, 1.0)
    assert run(town, 200) != first


def test_stepping_a_branch_leaves_the_copy_alone(network):
    town, _ = busy_town(network, 4)
    branch = town.copy_state()
    before = branch.to_bytes()
    run(town, 20)
    assert branch.to_bytes() == before
    assert TownState.from_bytes(before).to_bytes() == before


def test_the_same_seed_is_the_same_world_in_another_process(network):
    code = f"import sys; sys.path.insert(0, {sys.path[0]!r}); sys.path[:0] = {sys.path!r}\n" + (
        "import importlib.util as u\n"
        f"s = u.spec_from_file_location('laws', {__file__!r}); m = u.module_from_spec(s); s.loader.exec_module(m)\n"
        "print(m.digest_of_seed(7))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300).stdout
    assert out.strip() == digest_of_seed(7)
    assert out.strip() != digest_of_seed(8)


def test_traffic_keeps_to_its_lanes_and_apart(network):
    town = Town(network, seed=5, capacity=64)
    rows = town.populate(16, 0, rng=np.random.default_rng(5))
    travelled = np.zeros(len(rows))
    crashes = 0
    for _ in range(1200):
        town.step(DT_S)
        crashes += len(town.collisions)
        travelled += town.state.speed[rows] * DT_S
        offsets = np.abs(town.state.lane_offset[rows])
        assert offsets.max() < 5.0
    assert crashes == 0
    assert np.median(travelled) > 60.0
    for row in rows:
        place = town.lane_map.nearest(*town.state.xyz[row, :2], yaw_rad=float(town.state.rotation[row, 2]))
        assert abs(place.offset_m) < 2.5


def test_lights_of_a_group_never_show_green_in_two_phases(network):
    town = Town(network, seed=0, capacity=4)
    seen = set()
    for _ in range(1400):
        town.step(DT_S)
        for group in range(len(town.state.group_phase)):
            members = np.flatnonzero(network.light_group == group)
            moving = members[(town.state.light_state[members] == 2) | (town.state.light_state[members] == 1)]
            assert len(set(network.light_phase[moving].tolist())) <= 1
            seen.update((int(k), int(town.state.light_state[k])) for k in members)
    assert seen >= {(k, v) for k in range(len(network.light_group)) for v in (0, 1, 2)}


def test_box_overlap_is_symmetric_and_turns_with_the_boxes():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        a, b = rng.uniform(-3, 3, 2), rng.uniform(-3, 3, 2)
        ya, yb = rng.uniform(-math.pi, math.pi, 2)
        size = rng.uniform(0.3, 2.5, 4)
        depth, nx, ny = box_overlap(*a, ya, *size[:2], *b, yb, *size[2:])
        back, mx, my = box_overlap(*b, yb, *size[2:], *a, ya, *size[:2])
        assert (depth > 0) == (back > 0)
        turn = rng.uniform(-math.pi, math.pi)
        c, s = math.cos(turn), math.sin(turn)
        ra, rb = (c * a[0] - s * a[1], s * a[0] + c * a[1]), (c * b[0] - s * b[1], s * b[0] + c * b[1])
        turned = box_overlap(*ra, ya + turn, *size[:2], *rb, yb + turn, *size[2:])
        assert (turned[0] > 0) == (depth > 0)
        if depth > 0:
            hits += 1
            assert depth == pytest.approx(back)
            assert (nx, ny) == pytest.approx((-mx, -my))
            apart = box_overlap(
                *a, ya, *size[:2], b[0] + nx * (depth + 1e-6), b[1] + ny * (depth + 1e-6), yb, *size[2:]
            )
            assert apart[0] <= 0
    assert 30 < hits < 270


def test_a_parked_car_stays_where_it_is(network):
    town = Town(network, seed=0, capacity=4)
    x, y, z = (float(v) for v in network.spawn_xyz_m[3])
    row = town.spawn("vehicle.audi.tt", x, y, z, float(network.spawn_yaw_rad[3]))
    for _ in range(200):
        town.step(DT_S)
    assert np.hypot(*(town.state.xyz[row, :2] - (x, y))) < 1e-9
    assert len(town.collisions) == 0


def test_traffic_stops_behind_a_standing_car(network):
    town = Town(network, seed=2, capacity=8)
    lanes = network.lane_length_m[network.spawn_lane] - network.spawn_s_m
    spot = int(np.argmax(lanes))
    lane, s = int(network.spawn_lane[spot]), float(network.spawn_s_m[spot])
    follower = town.lane_map.at(lane, s)
    standing = town.lane_map.at(lane, s + 45.0)
    parked = town.spawn("vehicle.tesla.model3", standing.x_m, standing.y_m, standing.z_m, standing.yaw_rad)
    row = town.spawn(
        "vehicle.nissan.micra", follower.x_m, follower.y_m, follower.z_m, follower.yaw_rad, policy=POLICY_TRAFFIC
    )
    town.state.speed[row] = 9.0
    town.state.traffic[row, 9] = 0.0  # no lane changes
    for _ in range(240):
        town.step(DT_S)
        assert len(town.collisions) == 0
    gap = np.hypot(*(town.state.xyz[row, :2] - town.state.xyz[parked, :2]))
    assert town.state.speed[row] < 0.3
    assert 4.5 < gap < 12.0


def test_a_state_of_an_earlier_version_is_ordinary_and_one_of_another_town_is_refused(network):
    town, _ = busy_town(network, 4)
    state = town.copy_state()
    earlier = {f.name: getattr(state, f.name) for f in fields(TownState)}
    earlier["physics"] = earlier["physics"][:, :-1]  # a column fewer than now
    widened = TownState(**earlier)
    assert widened.physics.shape == state.physics.shape and not widened.physics[:, -1].any()
    town.restore(widened)
    run(town, 5)
    before = town.copy_state().to_bytes()
    smaller = Town(network, seed=1, capacity=32).copy_state()
    with pytest.raises(ValueError, match="another town or version"):
        town.restore(smaller)
    assert town.copy_state().to_bytes() == before
