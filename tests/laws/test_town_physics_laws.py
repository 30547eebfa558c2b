"""Laws of motion: the ordinary car rolls exactly, grip is never exceeded, nothing makes energy, branches stay exact."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest

from drivesim.town import pushes
from drivesim.town.catalogue import MODELS, model_row
from drivesim.town.chassis import (
    CHANGED,
    FRONT_WHEEL,
    REAR_WHEEL,
    VehiclePhysics,
    friction_factor,
    ordinary_physics,
    physics_row,
)
from drivesim.town.friction import add_friction_volume, remove_friction_volume
from drivesim.town.motion import AIRBORNE, SLIDING
from drivesim.town.state import POLICY_EXTERNAL, TownState
from drivesim.town.town import Town
from drivesim.town.towns import road_network
from drivesim.town.tyres import brush_force
from drivesim.town.weather import WETNESS, grip

DT_S = 0.05
MODEL3 = MODELS[model_row("vehicle.tesla.model3")]
FAR = (4000.0, 4000.0, 0.0)  # off every road: flat, and nothing to hit


@pytest.fixture(scope="module")
def network():
    return road_network("Drivetown")


@pytest.fixture
def town(network):
    return Town(network, seed=1, capacity=16)


def car_at(town: Town, speed_mps: float = 0.0, yaw: float = 0.0, x: float = 0.0, y: float = 0.0, model=MODEL3) -> int:
    row = town.spawn(model.blueprint, FAR[0] + x, FAR[1] + y, FAR[2], yaw)
    assert row >= 0
    town.teleport(row, FAR[0] + x, FAR[1] + y, FAR[2], yaw, speed_mps=speed_mps)
    return row


def run(town: Town, seconds: float, dt_s: float = DT_S) -> None:
    for _ in range(round(seconds / dt_s)):
        town.step(dt_s)


def on_tyres(friction: float) -> VehiclePhysics:
    front, rear = replace(FRONT_WHEEL, tire_friction=friction), replace(REAR_WHEEL, tire_friction=friction)
    return replace(ordinary_physics(MODEL3), wheels=(front, front, rear, rear))


def kinetic(town: Town, rows: list[int]) -> float:
    s = town.state
    return sum(
        0.5 * pushes.mass_kg(s, r) * float(s.velocity[r, :2] @ s.velocity[r, :2])
        + 0.5 * pushes.yaw_inertia(s, r) * float(s.yaw_rate[r]) ** 2
        for r in rows
    )


def braking_way(town: Town, speed_mps: float) -> float:
    row = car_at(town, speed_mps)
    town.set_control(row, 0.0, 0.0, 1.0)
    run(town, 30.0)
    assert town.state.speed[row] == 0.0
    return float(town.state.xyz[row, 0]) - FAR[0]


# ---- the ordinary car


def test_within_its_grip_the_ordinary_car_is_a_kinematic_bicycle(town):
    row = car_at(town, 8.0)
    rng = np.random.default_rng(0)
    x, y, yaw, speed, steer = FAR[0], FAR[1], 0.0, 8.0, 0.0
    base = MODEL3.wheelbase_m
    for tick in range(400):
        if tick % 8 == 0:
            throttle, brake = (rng.uniform(0, 1), 0.0) if rng.random() < 0.6 else (0.0, rng.uniform(0, 0.5))
            wheel = rng.uniform(-1, 1) * min(0.5 * 8.3 * base / max(speed + 2.0, 3.0) ** 2, 0.5) / math.radians(45.0)
            town.set_control(row, throttle, wheel, brake)
        town.step(DT_S)
        steer += np.clip(wheel * math.radians(45.0) - steer, -4.0 * DT_S, 4.0 * DT_S)
        push = 4.5 * throttle * min(max(1.0 - speed / 55.0, 0.0), 1.0)
        drag = 0.15 + 0.003 * speed * speed + (1.5 if throttle == 0.0 and speed < 0.3 else 0.0)
        after = max(speed + push * DT_S - (8.0 * brake + drag) * DT_S, 0.0)
        mean, curvature = 0.5 * (speed + after), math.tan(steer) / base
        turn = mean * curvature * DT_S
        rear = (x - 0.5 * base * math.cos(yaw) + mean * DT_S * math.cos(yaw + 0.5 * turn),
                y - 0.5 * base * math.sin(yaw) + mean * DT_S * math.sin(yaw + 0.5 * turn))  # fmt: skip
        yaw, speed = yaw + turn, after
        x, y = rear[0] + 0.5 * base * math.cos(yaw), rear[1] + 0.5 * base * math.sin(yaw)
        assert town.state.motion[row, SLIDING] == 0.0
        assert town.state.xyz[row, :2] == pytest.approx((x, y), abs=1e-9)
    assert town.state.speed[row] == pytest.approx(speed, abs=1e-9)


def test_the_models_own_physics_are_no_change(town):
    row = car_at(town, 5.0)
    pushes.set_physics(town.state, row, ordinary_physics(MODEL3))
    assert not town.state.physics[row].any()
    pushes.set_physics(town.state, row, replace(ordinary_physics(MODEL3), mass_kg=3000.0))
    assert town.state.physics[row, CHANGED] == 1.0
    pushes.set_physics(town.state, row, ordinary_physics(MODEL3))
    assert not town.state.physics[row].any()


# ---- grip


def test_braking_ways_grow_as_grip_shrinks(network):
    ways = []
    for friction, water in ((3.5, 0.0), (3.5, 100.0), (0.8, 0.0), (0.3, 0.0), (0.1, 0.0)):
        town = Town(network, capacity=4)
        town.state.weather[WETNESS] = water
        row = car_at(town, 15.0)
        pushes.set_physics(town.state, row, on_tyres(friction))
        town.set_control(row, 0.0, 0.0, 1.0)
        run(town, 60.0)
        ways.append(float(town.state.xyz[row, 0]) - FAR[0])
        limit = grip(town.state.weather) * friction_factor(friction) * 1.08 + 0.15 + 0.003 * 15.0**2
        assert ways[-1] > 0.5 * 15.0**2 / limit - 15.0 * DT_S
        assert town.state.speed[row] == 0.0
    assert ways == sorted(ways)
    assert ways[-1] > 3.0 * ways[0]


def test_an_ordinary_car_runs_wide_beyond_its_grip(town):
    row = car_at(town, 22.0)
    town.set_control(row, 0.0, 0.35, 0.0)
    wanted = math.tan(0.35 * math.radians(45.0)) / MODEL3.wheelbase_m
    before = town.state.velocity[row, :2].copy()
    slid = False
    for _ in range(40):
        town.step(DT_S)
        slid |= town.state.motion[row, SLIDING] > 0.0
        change = (town.state.velocity[row, :2] - before) / DT_S
        before = town.state.velocity[row, :2].copy()
        assert np.hypot(*change) <= 1.04 * 8.3 + 0.15 + 0.003 * 22.0**2  # grip, and what drags
        heading = math.atan2(before[1], before[0])
        assert abs(town.state.yaw_rate[row]) * np.hypot(*before) < 1.02 * 8.3
        assert abs(town.state.rotation[row, 2] - heading) < 0.5  # it does not spin
    assert slid
    assert 0.0 < town.state.yaw_rate[row] / town.state.speed[row] < 0.5 * wanted
    town.set_control(row, 0.0, 0.0, 0.3)
    run(town, 4.0)
    assert town.state.motion[row, SLIDING] == 0.0  # and it rolls again


def test_left_is_the_mirror_of_right(network):
    paths = []
    for side in (1.0, -1.0):
        town = Town(network, capacity=4)
        row = car_at(town, 20.0)
        town.set_control(row, 0.3, side * 0.5, 0.0)
        trail = []
        for tick in range(60):
            if tick == 30:
                town.set_control(row, 0.0, -side * 0.2, 0.4, hand_brake=True)
            town.step(DT_S)
            trail.append(town.state.xyz[row, :2] - FAR[:2])
        paths.append(np.array(trail) * (1.0, side))
    assert np.abs(paths[0]).max() > 10.0
    assert paths[0] == pytest.approx(paths[1], abs=1e-4)


def test_halving_the_step_hardly_changes_a_slide(network):
    ends = []
    for dt_s in (0.05, 0.025):
        town = Town(network, capacity=4)
        row = car_at(town, 20.0)
        town.set_control(row, 0.0, 0.4, 0.0)
        run(town, 2.0, dt_s)
        ends.append(town.state.xyz[row, :2] - FAR[:2])
    assert np.hypot(*(ends[0] - ends[1])) < 0.03 * np.hypot(*ends[0])


def test_a_hand_brake_in_a_corner_lets_the_rear_go(network):
    angles = []
    for hand_brake in (False, True):
        town = Town(network, capacity=4)
        row = car_at(town, 14.0)
        town.set_control(row, 0.0, 0.15, 0.0)
        run(town, 0.5)
        town.set_control(row, 0.0, 0.15, 0.0, hand_brake=hand_brake)
        worst = 0.0
        for _ in range(30):
            town.step(DT_S)
            velocity = town.state.velocity[row]
            if np.hypot(*velocity[:2]) > 3.0:
                drift = town.state.rotation[row, 2] - math.atan2(velocity[1], velocity[0])
                worst = max(worst, abs(math.remainder(drift, 2.0 * math.pi)))
        angles.append(worst)
    assert angles[0] < 0.1 < 0.2 < angles[1]


def test_without_tyre_friction_nothing_slows_or_turns_a_car(town):
    row = car_at(town, 27.0, yaw=0.4)
    pushes.set_physics(town.state, row, replace(on_tyres(0.0), drag_coefficient=0.0))
    town.set_control(row, 1.0, 1.0, 1.0, hand_brake=True)
    run(town, 5.0)
    assert town.state.velocity[row, :2] == pytest.approx((27.0 * math.cos(0.4), 27.0 * math.sin(0.4)), abs=1e-4)


def test_a_friction_volume_holds_within_it(town):
    place = add_friction_volume(town.state, FAR, 0.3, (60.0, 60.0, 5.0), 0.2)
    inside = braking_way(town, 8.0)
    remove_friction_volume(town.state, place)
    town.destroy(0)
    assert inside > 2.5 * braking_way(town, 8.0)


def test_the_brush_tyre_is_odd_linear_at_first_and_saturates():
    slips = np.linspace(0.0, 1.0, 201)
    forces = np.array([brush_force(slip, 60.0, 4.0) for slip in slips])
    assert (np.diff(forces) >= 0.0).all() and forces.max() == pytest.approx(4.0)
    assert brush_force(1e-5, 60.0, 4.0) == pytest.approx(60.0e-5, rel=1e-3)
    assert brush_force(-0.05, 60.0, 4.0) == -brush_force(0.05, 60.0, 4.0)
    assert brush_force(0.3, 60.0, 0.0) == 0.0


# ---- what a car is made of


def speed_after_launch(network, physics: VehiclePhysics | None, seconds: float = 2.0, gear: int = 0) -> float:
    town = Town(network, capacity=4)
    row = car_at(town)
    if physics is not None:
        pushes.set_physics(town.state, row, physics)
    town.set_control(row, 1.0, 0.0, 0.0, manual_gear_shift=gear > 0, gear=gear)
    run(town, seconds)
    return float(town.state.speed[row])


def test_mass_torque_gears_wheels_and_drag_change_acceleration(network):
    own = ordinary_physics(MODEL3)
    plain = speed_after_launch(network, None)
    heavier = [speed_after_launch(network, replace(own, mass_kg=own.mass_kg * k)) for k in (0.8, 1.5, 3.0, 10.0)]
    assert heavier == sorted(heavier, reverse=True) and heavier[0] > plain > heavier[1]
    assert heavier[2] == pytest.approx(plain / 3.0, rel=0.08)
    weak = replace(own, torque_curve=tuple((rpm, 0.5 * nm) for rpm, nm in own.torque_curve))
    assert speed_after_launch(network, weak) == pytest.approx(0.5 * plain, rel=0.08)
    large = tuple(replace(wheel, radius_m=0.7) for wheel in own.wheels)
    assert speed_after_launch(network, replace(own, wheels=large)) < 0.6 * plain
    assert speed_after_launch(network, replace(own, drag_coefficient=9.0), 8.0) < speed_after_launch(network, own, 8.0)
    soft = tuple(replace(wheel, longitudinal_stiffness=100.0) for wheel in own.wheels)
    assert speed_after_launch(network, replace(own, wheels=soft)) < 0.6 * plain
    gears = [speed_after_launch(network, None, gear=gear) for gear in (1, 2, 5)]
    assert gears == sorted(gears, reverse=True) and gears[0] == pytest.approx(plain, rel=1e-6)


def test_an_engines_highest_speed_ends_the_push(network):
    own = ordinary_physics(MODEL3)
    slow = speed_after_launch(network, replace(own, forward_gears=(4.0,), max_rpm=2900.0), 20.0)
    assert 5.5 < slow < 7.0  # 2900 rpm in the first gear
    assert speed_after_launch(network, None, 20.0, gear=1) == pytest.approx(13.3, abs=0.3)


def test_steering_curve_and_lock_bound_the_turn(network):
    own = ordinary_physics(MODEL3)
    rates = []
    curved = replace(own, steering_curve=((0.0, 0.5), (100.0, 0.5)))
    short = replace(own, wheels=(replace(FRONT_WHEEL, max_steer_rad=0.1),) * 2 + (REAR_WHEEL,) * 2)
    for physics in (own, curved, short):
        town = Town(network, capacity=4)
        row = car_at(town, 3.0)
        pushes.set_physics(town.state, row, physics)
        town.set_control(row, 0.1, 0.6, 0.0)
        run(town, 1.0)
        rates.append(float(town.state.yaw_rate[row]) / float(town.state.speed[row]))
    assert rates[1] == pytest.approx(math.tan(0.3 * math.radians(45.0)) / MODEL3.wheelbase_m, rel=0.02)
    assert rates[0] > 1.9 * rates[1] > rates[1] > rates[2] > 0.0


def test_numbers_out_of_any_reason_stay_finite(network):
    rng = np.random.default_rng(3)
    for _ in range(40):
        town = Town(network, capacity=4)
        row = car_at(town, float(rng.uniform(-10, 40)))
        wild = [float(10.0 ** rng.uniform(-9, 9) * rng.choice((-1, 1))) for _ in range(14)]
        wheel = replace(FRONT_WHEEL, tire_friction=wild[0], max_steer_rad=wild[1], radius_m=wild[2],
                        max_brake_torque=wild[3], max_handbrake_torque=wild[4], lateral_stiffness=wild[5])  # fmt: skip
        pushes.set_physics(town.state, row, VehiclePhysics(
            wild[6], wild[7], (wild[8], wild[9], wild[10]), ((wild[11], wild[12]), (wild[13], wild[0])), wild[1],
            wild[2], (wild[3], wild[4]), ((wild[5], wild[6]),), (wheel,) * 4))  # fmt: skip
        town.set_control(row, *rng.uniform((0, -1, 0), (1, 1, 1)).tolist(), bool(rng.random() < 0.3))
        pushes.add_impulse(town.state, row, (rng.normal(size=3) * 1e12).tolist())
        run(town, 2.0)
        for field in fields(TownState):
            values = getattr(town.state, field.name)
            assert values.dtype.kind != "f" or np.isfinite(values).all(), field.name


# ---- energy and momentum


def test_tyres_never_make_energy(network):
    rng = np.random.default_rng(1)
    for case in range(25):
        town = Town(network, capacity=4)
        row = car_at(town, float(rng.uniform(-5, 25)), float(rng.uniform(-3, 3)))
        if case % 2:
            pushes.set_physics(town.state, row, on_tyres(float(rng.uniform(0.1, 3.0))))
        town.state.yaw_rate[row] = 0.0
        pushes.set_velocity(town.state, row, np.array([*rng.uniform(-15, 15, 2), 0.0]))
        pushes.add_angular_impulse(town.state, row, float(rng.uniform(-1, 1)) * 8000.0)
        town.set_control(row, 0.0, float(rng.uniform(-1, 1)), float(rng.random() < 0.4), bool(rng.random() < 0.3))
        energy = kinetic(town, [row])
        for _ in range(160):
            town.step(DT_S)
            if town.state.motion[row, SLIDING] == 0.0:
                break  # a rolling bicycle that steers in gains the little that its middle swings out
            now = kinetic(town, [row])
            assert now <= energy * 1.001 + 1.0  # the error of a step of 5 ms
            energy = now
        assert np.hypot(*town.state.velocity[row, :2]) < 25.0


def test_contacts_keep_momentum_and_never_make_energy(network):
    rng = np.random.default_rng(2)
    met = turned = 0
    cars = [MODELS[model_row(name)] for name in ("vehicle.tesla.model3", "vehicle.audi.tt", "vehicle.mini.cooper_s",
                                                 "vehicle.carlamotors.firetruck")]  # fmt: skip
    for _ in range(120):
        town = Town(network, capacity=4)
        angle = float(rng.uniform(-math.pi, math.pi))
        away = float(rng.uniform(4.0, 6.5))
        first = car_at(town, yaw=float(rng.uniform(-3, 3)), model=cars[int(rng.integers(4))])
        second = town.spawn(cars[int(rng.integers(4))].blueprint, FAR[0] + away * math.cos(angle),
                            FAR[1] + away * math.sin(angle), 0.0, float(rng.uniform(-3, 3)))  # fmt: skip
        if second < 0:
            continue
        rows = [first, second]
        for row in rows:
            pushes.set_gravity(town.state, row, False)  # no tyres: only the contact acts
            pushes.set_velocity(town.state, row, np.array([*rng.uniform(-8, 8, 2), 0.0]))
        s = town.state
        masses = np.array([pushes.mass_kg(s, row) for row in rows])
        last_energy, last_momentum = kinetic(town, rows), masses @ s.velocity[rows, :2]
        for _ in range(20):
            town.step(0.02)
            energy, momentum = kinetic(town, rows), masses @ s.velocity[rows, :2]
            if len(town.collisions):
                met += 1
                turned += bool(np.abs(s.yaw_rate[rows]).max() > 0.05)
                assert energy <= last_energy * (1 + 1e-9)
                assert momentum == pytest.approx(last_momentum, rel=0.02, abs=masses.sum() * 0.05)
            last_energy, last_momentum = energy, momentum
    assert met > 20 and turned > 10


def test_a_wall_takes_speed_and_gives_none_back(network):
    wall = np.array([[FAR[0] + 20.0, FAR[1], 0.5, 0.5, 30.0, 3.0]])
    town = Town(network, capacity=4, solids=wall)
    row = car_at(town, 14.0)
    top = 0.0
    for _ in range(120):
        town.step(DT_S)
        if len(town.collisions):
            top = max(top, float(np.hypot(*town.state.velocity[row, :2])))
    assert 0.0 < top < 14.0
    assert abs(town.state.rotation[row, 2]) > 0.05  # a slanted wall turns the car along itself
    across = math.cos(0.5) * (town.state.xyz[row, 0] - wall[0, 0]) + math.sin(0.5) * (
        town.state.xyz[row, 1] - wall[0, 1]
    )
    assert across < -0.5


def test_a_car_rammed_from_the_side_is_thrown_aside(town):
    standing = car_at(town, 0.0, yaw=math.pi / 2, x=12.0, y=0.8)
    town.set_control(standing, 0.0, 0.0, 1.0)
    car_at(town, 14.0)
    seen = 0.0
    for _ in range(30):
        town.step(DT_S)
        seen = max(seen, float(town.state.velocity[standing, 0]))
    assert seen > 3.0 and abs(town.state.rotation[standing, 2] - math.pi / 2) > 0.1
    run(town, 5.0)
    assert np.hypot(*town.state.velocity[standing, :2]) < 0.05  # its tyres bring it to rest


def test_a_prop_with_physics_slides_and_stops(town):
    prop = town.spawn("static.prop.container", *FAR, 0.0, policy=POLICY_EXTERNAL)
    mass = pushes.mass_kg(town.state, prop)
    pushes.add_impulse(town.state, prop, (4.0 * mass, 0.0, 0.0))
    run(town, 3.0)
    assert town.state.speed[prop] == 0.0
    assert town.state.xyz[prop, 0] - FAR[0] == pytest.approx(4.0**2 / (2 * 5.0), abs=0.3)


# ---- flight, gravity, branches


def test_a_jump_is_a_parabola_and_without_gravity_there_is_none(town):
    row = car_at(town, 10.0)
    pushes.set_velocity(town.state, row, np.array([10.0, 0.0, 4.0]))
    assert town.state.motion[row, AIRBORNE] == 1.0
    heights = []
    for _ in range(30):
        town.step(0.02)
        heights.append(float(town.state.xyz[row, 2]))
    assert heights[4] == pytest.approx(4.0 * 0.1 - 0.5 * 9.81 * 0.1**2, abs=1e-3)
    run(town, 0.5)
    assert town.state.motion[row, AIRBORNE] == 0.0 and abs(town.state.xyz[row, 2]) < 0.03
    free = car_at(town, 10.0, y=50.0)
    pushes.set_gravity(town.state, free, False)
    town.set_control(free, 0.0, 1.0, 1.0)
    run(town, 1.0)
    assert town.state.velocity[free, 0] > 9.5 and town.state.rotation[free, 2] == 0.0


def test_branches_are_exact_amid_slides_tracking_and_holding(network):
    town = Town(network, seed=4, capacity=16)
    for k in range(4):
        row = car_at(town, 18.0, y=12.0 * k)
        town.set_control(row, 0.5, 0.4, 0.0, hand_brake=k == 1)
    pushes.set_physics(town.state, 0, on_tyres(0.7))
    pushes.track(town.state, 2, (0.1, 0.0, 6.0, 0.0, 0.0))
    pushes.hold_velocity(town.state, 3, (5.0, 1.0, 0.0))
    run(town, 0.5)
    assert town.state.motion[:2, SLIDING].all()
    branch = town.copy_state()
    run(town, 2.0)
    first = town.state.to_bytes()
    other = Town(network, seed=9, capacity=16)
    other.restore(TownState.from_bytes(branch.to_bytes()))
    run(other, 2.0)
    assert other.state.to_bytes() == first


def test_a_state_of_an_earlier_version_is_all_ordinary(network):
    town = Town(network, capacity=4)
    car_at(town, 5.0)
    old = {f.name: getattr(town.state, f.name) for f in fields(TownState)
           if f.name not in ("physics", "motion", "friction")}  # fmt: skip
    state = TownState(**old)
    assert state.physics.shape == town.state.physics.shape and not state.motion.any()
    assert state.to_bytes() == town.state.to_bytes()


def test_a_row_says_what_its_physics_are():
    own = ordinary_physics(MODEL3)
    assert physics_row(MODEL3, own)[CHANGED] == 0.0
    changes = (
        replace(own, mass_kg=1900.0), replace(own, drag_coefficient=0.4), replace(own, final_ratio=4.4),
        replace(own, max_rpm=6000.0), replace(own, steering_curve=((0.0, 1.0), (100.0, 0.4))),
        replace(own, center_of_mass=(0.3, 0.0, -0.1)), replace(own, forward_gears=(4.0, 2.0)),
        replace(own, torque_curve=((0.0, 300.0),)),
    )  # fmt: skip
    for changed in changes:
        assert physics_row(MODEL3, changed)[CHANGED] == 1.0
