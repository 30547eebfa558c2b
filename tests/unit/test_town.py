"""The town's parts one by one: vehicles, walkers, lights, contacts, weather, scripts."""

import math

import numpy as np
import pytest

from drivesim.town import signals
from drivesim.town.catalogue import MODELS, SHAPE_WALKER, model_row
from drivesim.town.state import (
    LIGHT_GREEN,
    LIGHT_RED,
    POLICY_EXTERNAL,
    POLICY_KINEMATIC,
    POLICY_TRAFFIC,
    POLICY_WALKER,
)
from drivesim.town.town import Town, TownFullError
from drivesim.town.towns import road_network
from drivesim.town.weather import PARAMETERS, PRESETS, preset

DT_S = 0.05


@pytest.fixture(scope="module")
def network():
    return road_network("Drivetown")


@pytest.fixture
def town(network):
    return Town(network, seed=1, capacity=32)


def long_spot(network) -> tuple[int, float]:
    room = network.lane_length_m[network.spawn_lane] - network.spawn_s_m
    spot = int(np.argmax(room))
    return int(network.spawn_lane[spot]), float(network.spawn_s_m[spot])


def spawn_on_lane(
    town: Town, model: str, ahead_m: float = 0.0, side_m: float = 0.0, policy: int = POLICY_EXTERNAL
) -> int:
    lane, s = long_spot(town.network)
    p = town.lane_map.at(lane, s + ahead_m)
    x, y = p.x_m - side_m * math.sin(p.yaw_rad), p.y_m + side_m * math.cos(p.yaw_rad)
    return town.spawn(model, x, y, p.z_m, p.yaw_rad, policy=policy)


def steps(town: Town, seconds: float) -> int:
    contacts = 0
    for _ in range(round(seconds / DT_S)):
        town.step(DT_S)
        contacts += len(town.collisions)
    return contacts


def test_catalogue_has_carlas_blueprints():
    vehicles = [m for m in MODELS if m.blueprint.startswith("vehicle.")]
    walkers = [m for m in MODELS if m.shape == SHAPE_WALKER]
    assert len(vehicles) >= 40
    assert len(walkers) == 49
    assert len({m.blueprint for m in MODELS}) == len(MODELS)
    for model in vehicles:
        assert 0.5 * model.length_m < model.wheelbase_m < model.length_m
    with pytest.raises(KeyError, match="model3"):
        model_row("vehicle.tesla.model33")


def test_ids_grow_and_rows_are_reused(town):
    first = spawn_on_lane(town, "vehicle.tesla.model3")
    id_before = int(town.state.actor_id[first])
    assert town.row_of(id_before) == first
    assert spawn_on_lane(town, "vehicle.audi.tt", ahead_m=1.0) == -1
    town.destroy(first)
    again = spawn_on_lane(town, "vehicle.audi.tt")
    assert again == first
    assert town.state.actor_id[again] > id_before
    with pytest.raises(KeyError, match="no actor"):
        town.row_of(id_before)


def test_a_full_town_says_so(network):
    small = Town(network, capacity=1)
    spawn_on_lane(small, "vehicle.tesla.model3")
    with pytest.raises(TownFullError, match="capacity"):
        spawn_on_lane(small, "vehicle.tesla.model3", ahead_m=20.0)


def test_throttle_and_brake(town):
    row = spawn_on_lane(town, "vehicle.tesla.model3")
    town.set_control(row, 1.0, 0.0, 0.0)
    steps(town, 2.0)
    assert 7.5 < town.state.speed[row] < 9.0
    town.set_control(row, 0.0, 0.0, 1.0)
    speed = town.state.speed[row]
    steps(town, 0.5)
    assert town.state.speed[row] == pytest.approx(speed - 4.1, abs=0.4)
    steps(town, 2.0)
    assert town.state.speed[row] == 0.0
    town.set_control(row, 0.5, 0.0, 0.0, reverse=True)
    steps(town, 1.0)
    assert town.state.speed[row] < -1.0
    assert town.state.control[row, 6] == -1.0


def test_positive_steer_turns_right_within_the_grip(town):
    row = spawn_on_lane(town, "vehicle.tesla.model3")
    town.state.speed[row] = 4.0
    town.set_control(row, 0.2, 0.3, 0.0)
    yaw = town.state.rotation[row, 2]
    steps(town, 0.5)
    turned = (town.state.rotation[row, 2] - yaw + math.pi) % (2 * math.pi) - math.pi
    assert turned > 0.05
    town.state.speed[row] = 25.0
    town.set_control(row, 0.0, 1.0, 0.0)
    steps(town, 0.2)
    assert abs(town.state.yaw_rate[row] * town.state.speed[row]) <= 8.31


def test_a_crash_into_scenery_stops_the_car(network):
    bare = Town(network, capacity=4)
    lane, s = long_spot(network)
    p = bare.lane_map.at(lane, s + 20.0)
    wall = np.array([[p.x_m, p.y_m, p.yaw_rad, 0.3, 3.0, 2.0]])
    town = Town(network, capacity=4, solids=wall)
    row = spawn_on_lane(town, "vehicle.tesla.model3")
    town.set_control(row, 1.0, 0.0, 0.0)
    seen = []
    for _ in range(100):
        town.step(DT_S)
        seen += list(town.collisions)
    assert seen
    assert seen[0]["row_a"] == row
    assert seen[0]["row_b"] == -1
    assert np.hypot(*seen[0]["impulse"][:2]) > 1850.0 * 5.0
    assert abs(town.state.speed[row]) < 2.0
    away = np.hypot(*(town.state.xyz[row, :2] - wall[0, :2]))
    assert away > 2.3


def test_a_rear_end_crash_shares_the_impulse(town):
    ahead = spawn_on_lane(town, "vehicle.tesla.model3", ahead_m=12.0)
    row = spawn_on_lane(town, "vehicle.carlamotors.firetruck")
    town.state.speed[row] = 10.0
    contacts = steps(town, 1.0)
    assert contacts > 0
    assert town.state.speed[ahead] > 5.0
    assert 4.0 < town.state.speed[row] < 10.0


def test_walkers_go_where_they_are_told(town):
    row = spawn_on_lane(town, "walker.pedestrian.0001", side_m=6.0)
    start = town.state.xyz[row, :2].copy()
    town.set_walker_control(row, (0.0, 2.0, 0.0), 1.5)
    steps(town, 2.0)
    assert town.state.xyz[row, :2] - start == pytest.approx((0.0, 3.0), abs=1e-6)
    assert town.state.rotation[row, 2] == pytest.approx(math.pi / 2)


@pytest.mark.parametrize("policy", [POLICY_EXTERNAL, POLICY_WALKER])
def test_a_walker_who_is_hit_falls_where_they_are_and_gets_up_when_the_car_is_gone(town, policy):
    car = spawn_on_lane(town, "vehicle.tesla.model3")
    walker = spawn_on_lane(town, "walker.pedestrian.0001", ahead_m=10.0, policy=policy)
    if policy == POLICY_WALKER:
        town.stand(walker)
    town.state.speed[car] = 6.0
    seen, after_m = [], []
    for _ in range(round(3.0 / DT_S)):
        town.set_control(car, 0.4, 0.0, 0.0)
        town.step(DT_S)
        seen += [row for row in town.collisions if walker in (row["row_a"], row["row_b"])]
        if seen:
            after_m.append(town.state.xyz[walker, :2].copy())
    assert len(seen) == 1
    assert np.hypot(*(after_m[-1] - after_m[0])) < 0.05  # not carried along
    assert town.state.rotation[walker, 0] == pytest.approx(0.5 * math.pi)
    if policy == POLICY_EXTERNAL:
        town.set_walker_control(walker, (0.0, 1.0, 0.0), 1.0)
    steps(town, 7.0)
    assert town.state.rotation[walker, 0] == 0.0
    assert np.hypot(*(town.state.xyz[walker, :2] - after_m[-1])) > 0.5


def test_who_lies_under_a_standing_car_stays_there(town):
    car = spawn_on_lane(town, "vehicle.tesla.model3")
    walker = spawn_on_lane(town, "walker.pedestrian.0001", ahead_m=5.0)
    town.state.speed[car] = 4.0
    contacts = 0
    for tick in range(round(9.0 / DT_S)):
        town.set_control(car, 0.0, 0.0, float(tick > 12))
        town.step(DT_S)
        contacts += len(town.collisions)
    assert contacts == 1
    assert abs(town.state.xyz[walker, 0] - town.state.xyz[car, 0]) < 3.0
    assert town.state.rotation[walker, 0] == pytest.approx(0.5 * math.pi)


def test_traffic_brakes_for_a_crossing_walker(town):
    car = spawn_on_lane(town, "vehicle.tesla.model3", policy=POLICY_TRAFFIC)
    town.state.speed[car] = 8.0
    walker = spawn_on_lane(town, "walker.pedestrian.0003", ahead_m=32.0, side_m=6.0, policy=POLICY_WALKER)
    lane, s = long_spot(town.network)
    p = town.lane_map.at(lane, s + 32.0)
    town.cross_road(walker, (p.x_m + 8.0 * math.sin(p.yaw_rad), p.y_m - 8.0 * math.cos(p.yaw_rad)), 1.4)
    slowest = 99.0
    for _ in range(200):
        town.step(DT_S)
        assert len(town.collisions) == 0
        slowest = min(slowest, float(town.state.speed[car]))
    assert slowest < 3.0


def test_scripts_move_traffic(town):
    car = spawn_on_lane(town, "vehicle.tesla.model3", policy=POLICY_TRAFFIC)
    town.set_speed(car, 7.0)
    steps(town, 6.0)
    assert town.state.speed[car] == pytest.approx(7.0, abs=0.8)
    town.hard_brake(car, 6.0, 1.0)
    steps(town, 0.5)
    assert town.state.speed[car] < 4.8
    assert town.state.lamps[car] & 8
    with pytest.raises(ValueError, match="traffic"):
        town.set_speed(spawn_on_lane(town, "vehicle.audi.tt", ahead_m=-5.0, side_m=8.0), 3.0)


def test_a_lane_change_ends_on_the_other_lane(network):
    town = Town(network, seed=1, capacity=4)
    sided = np.flatnonzero((network.lane_right[network.spawn_lane] >= 0) & (network.spawn_s_m < 30.0))
    if len(sided) == 0:
        pytest.skip("this town has no two lanes in one direction")
    spot = int(sided[0])
    x, y, z = (float(v) for v in network.spawn_xyz_m[spot])
    car = town.spawn("vehicle.tesla.model3", x, y, z, float(network.spawn_yaw_rad[spot]), policy=POLICY_TRAFFIC)
    town.state.speed[car] = 6.0
    town.set_speed(car, 6.0)
    assert town.change_lane(car, 1, 2.0)
    steps(town, 0.1)
    assert abs(town.state.lane_offset[car]) > 2.0
    steps(town, 2.5)
    assert abs(town.state.lane_offset[car]) < 0.5
    assert town.state.lane[car] == network.lane_right[network.spawn_lane[spot]] or town.state.lane[car] != -1


def test_lights_can_be_set_and_frozen(town):
    if len(town.state.light_state) == 0:
        pytest.skip("this town has no lights")
    town.freeze_lights(True)
    town.set_light(0, LIGHT_GREEN)
    steps(town, 30.0)
    assert town.state.light_state[0] == LIGHT_GREEN
    town.freeze_lights(False)
    town.set_light_times(0, green_s=4.0)
    assert town.state.light_durations_s[0].tolist() == [4.0, signals.YELLOW_S, signals.ALL_RED_S]
    assert 0 in town.lights_of_group(0)
    town.reset_light_group(0)
    group = town.network.light_group[0]
    first = (town.network.light_group == group) & (town.network.light_phase == 0)
    assert (town.state.light_state[first] == LIGHT_GREEN).all()


def test_the_affecting_light_is_the_one_ahead(town):
    net = town.network
    lanes = np.flatnonzero((net.lane_light >= 0) & (net.lane_length_m > 25.0))
    if len(lanes) == 0:
        pytest.skip("this town has no lights")
    lane = int(lanes[0])
    for left_m, inside in ((20.0, False), (4.0, True)):
        p = town.lane_map.at(lane, float(net.lane_length_m[lane]) - left_m)
        row = town.spawn("vehicle.tesla.model3", p.x_m, p.y_m, p.z_m, p.yaw_rad)
        steps(town, DT_S)
        assert town.vehicle_light_affecting(row) == (int(net.lane_light[lane]), inside)


def test_traffic_waits_at_red(town):
    net = town.network
    lanes = np.flatnonzero((net.lane_light >= 0) & (net.lane_length_m > 40.0))
    lane = int(lanes[0])
    p = town.lane_map.at(lane, float(net.lane_length_m[lane]) - 35.0)
    row = town.spawn("vehicle.tesla.model3", p.x_m, p.y_m, p.z_m, p.yaw_rad, policy=POLICY_TRAFFIC)
    town.state.speed[row] = 8.0
    town.freeze_lights(True)
    town.state.light_state[:] = LIGHT_RED
    steps(town, 15.0)
    left = float(net.lane_length_m[lane]) - town.state.lane_s[row] - town.state.half_size[row, 0]
    assert town.state.lane[row] == lane
    assert town.state.speed[row] < 0.1
    assert 0.0 < left < 3.0
    town.state.light_state[:] = LIGHT_GREEN
    steps(town, 6.0)
    assert town.state.lane[row] != lane


def test_kinematic_actors_are_carried_not_moved(town):
    row = spawn_on_lane(town, "vehicle.tesla.model3", policy=POLICY_KINEMATIC)
    pose = town.state.xyz[row].copy()
    town.set_control(row, 1.0, 0.0, 0.0)
    steps(town, 1.0)
    assert (town.state.xyz[row] == pose).all()
    town.teleport(row, pose[0], pose[1], pose[2], 0.0, speed_mps=3.0)
    assert town.state.velocity[row, 0] == pytest.approx(3.0)


def test_weather_presets_are_complete():
    assert len(PARAMETERS) == 14
    assert len(PRESETS) == 23
    assert preset("HardRainNoon")[1] == 100.0
    with pytest.raises(KeyError, match="ClearNoon"):
        preset("ClearNon")


def test_weather_presets_are_the_clients():
    carla = pytest.importorskip("carla")
    for name, values in PRESETS.items():
        theirs = getattr(carla.WeatherParameters, name)
        assert [getattr(theirs, p) for p in PARAMETERS] == pytest.approx(values, abs=1e-4)
