"""Physics that scripts can feel: the unmodified client changes what cars are made of, pushes, holds and turns them."""

from __future__ import annotations

import math

import pytest

DRIVE = """
synchronous()
spots = world.get_map().get_spawn_points()
town = world.get_map()

def straight_spot(length=130.0):
    for spot in spots:
        there = town.get_waypoint(spot.location)
        steps = [there]
        while len(steps) < length / 5 and steps[-1].next(5.0):
            steps.append(steps[-1].next(5.0)[0])
        turns = [abs((w.transform.rotation.yaw - spot.rotation.yaw + 180) % 360 - 180) for w in steps]
        if len(steps) >= length / 5 and max(turns) < 2.0:
            return spot
    raise SystemExit("no straight road")

def ticks(count):
    for _ in range(count):
        world.tick()

def along(car):
    forward, velocity = car.get_transform().get_forward_vector(), car.get_velocity()
    return velocity.x * forward.x + velocity.y * forward.y

def fresh(name="vehicle.tesla.model3", spot=None):
    car = world.spawn_actor(blueprint(name), spot or straight_spot())
    ticks(3)
    return car
"""


def test_a_physics_control_reads_back_and_changes_acceleration(client):
    answer = client(
        DRIVE
        + """
def launch(change):
    car = fresh()
    control = car.get_physics_control()
    change(control)
    car.apply_physics_control(control)
    world.tick()
    back = car.get_physics_control()
    same = abs(back.mass - control.mass) < 1e-2 and abs(back.drag_coefficient - control.drag_coefficient) < 1e-4
    car.apply_control(carla.VehicleControl(throttle=1.0)); ticks(40)
    speed = along(car)
    car.destroy(); world.tick()
    return speed, same, len(back.wheels)

def heavy(control): control.mass = 2 * control.mass
def strong(control): control.torque_curve = [carla.Vector2D(p.x, 2 * p.y) for p in control.torque_curve]
def short(control): control.final_ratio = 2 * control.final_ratio
def icy(control):
    wheels = control.wheels
    for wheel in wheels: wheel.tire_friction = 0.1
    control.wheels = wheels
def sail(control): control.drag_coefficient = 30.0
finish(plain=launch(lambda control: None), heavy=launch(heavy), strong=launch(strong), short=launch(short),
       icy=launch(icy), sail=launch(sail))
"""
    )
    speed = {name: value[0] for name, value in answer.items()}
    assert all(value[1] and value[2] == 4 for value in answer.values())
    assert speed["heavy"] == pytest.approx(0.5 * speed["plain"], rel=0.12)
    assert speed["strong"] > 1.5 * speed["plain"]
    assert speed["icy"] < 0.35 * speed["plain"]
    assert speed["sail"] < 0.9 * speed["plain"]
    assert speed["short"] != pytest.approx(speed["plain"], rel=0.02)


def test_braking_takes_longer_on_slippery_tyres(client):
    answer = client(
        DRIVE
        + """
def stop(friction):
    car = fresh()
    control = car.get_physics_control()
    wheels = control.wheels
    for wheel in wheels: wheel.tire_friction = friction
    control.wheels = wheels
    car.apply_physics_control(control)
    forward = car.get_transform().get_forward_vector()
    car.set_target_velocity(forward * 12.0)
    car.apply_control(carla.VehicleControl(brake=1.0))
    begin = car.get_location()
    count = 0
    while count < 150 and (count < 3 or along(car) > 0.05):
        world.tick(); count += 1
    way = car.get_location().distance(begin)
    car.destroy(); world.tick()
    return way
finish(ways=[stop(friction) for friction in (3.5, 1.0, 0.3)])
"""
    )
    dry, worn, ice = answer["ways"]
    assert 7.0 < dry < 12.0
    assert dry < 1.05 * worn < ice
    assert ice > 2.0 * dry


def test_impulses_and_forces_change_momentum(client):
    answer = client(
        DRIVE
        + """
car = fresh()
control = car.get_physics_control()
forward, right = car.get_transform().get_forward_vector(), car.get_transform().get_right_vector()
car.set_enable_gravity(False); world.tick()
car.add_impulse(forward * control.mass * 3.0); world.tick()
pushed = along(car)
car.add_force(forward * control.mass * 20.0); world.tick()
forced = along(car)
car.add_impulse(right * control.mass * 2.0); world.tick()
v = car.get_velocity()
aside = v.x * right.x + v.y * right.y
car.add_angular_impulse(carla.Vector3D(0, 0, 2000.0)); world.tick()
turning = car.get_angular_velocity().z
car.set_enable_gravity(True); ticks(60)
rest = car.get_velocity()
car.destroy()
finish(pushed=pushed, forced=forced, aside=aside, turning=turning, mass=control.mass,
       sliding=abs(rest.x * right.x + rest.y * right.y))
"""
    )
    assert answer["pushed"] == pytest.approx(3.0, abs=0.02)
    assert answer["forced"] - answer["pushed"] == pytest.approx(1.0, abs=0.02)
    assert answer["aside"] == pytest.approx(2.0, abs=0.02)
    inertia = answer["mass"] * (4.79**2 + 2.16**2) / 12.0
    assert answer["turning"] == pytest.approx(math.degrees(2000.0 / inertia), rel=0.02)
    assert answer["sliding"] < 0.5


def test_a_jump_comes_down_again(client):
    answer = client(
        DRIVE
        + """
car = fresh()
mass, ground = car.get_physics_control().mass, car.get_location().z
car.add_impulse(carla.Vector3D(0, 0, 5.0 * mass))
heights = []
for _ in range(40):
    world.tick(); heights.append(car.get_location().z - ground)
car.destroy()
finish(heights=heights)
"""
    )
    assert max(answer["heights"]) == pytest.approx(5.0**2 / (2 * 9.81), abs=0.15)
    assert abs(answer["heights"][-1]) < 0.05


def test_target_and_constant_velocity(client):
    answer = client(
        DRIVE
        + """
car = fresh()
forward = car.get_transform().get_forward_vector()
car.set_target_velocity(forward * 9.0); world.tick()
target = along(car)
car.enable_constant_velocity(carla.Vector3D(6.0, 0.0, 0.0))
car.apply_control(carla.VehicleControl(brake=1.0)); ticks(30)
held = along(car)
begin = car.get_transform().rotation.yaw
car.apply_control(carla.VehicleControl(steer=0.2)); ticks(20)
turned, bent = along(car), (car.get_transform().rotation.yaw - begin + 180) % 360 - 180
car.disable_constant_velocity()
car.apply_control(carla.VehicleControl(brake=1.0)); ticks(40)
stopped = along(car)
car.set_target_angular_velocity(carla.Vector3D(0, 0, 40.0))
before = car.get_transform().rotation.yaw; world.tick()
spun = (car.get_transform().rotation.yaw - before + 180) % 360 - 180
car.destroy()
finish(target=target, held=held, turned=turned, bent=bent, stopped=stopped, spun=spun)
"""
    )
    assert answer["target"] == pytest.approx(9.0, abs=0.1)
    assert answer["held"] == pytest.approx(6.0, abs=1e-3) and answer["turned"] == pytest.approx(6.0, abs=1e-3)
    assert answer["bent"] > 5.0 and abs(answer["stopped"]) < 0.01
    assert answer["spun"] == pytest.approx(2.0, abs=0.1)


def test_ackermann_reaches_its_speed_and_settings_read_back(client):
    answer = client(
        DRIVE
        + """
car = fresh()
default = car.get_ackermann_controller_settings()
car.apply_ackermann_control(carla.VehicleAckermannControl(speed=6.0)); ticks(300)
forward = along(car)
car.apply_ackermann_control(carla.VehicleAckermannControl(speed=0.0)); ticks(150)
stood, brake = along(car), car.get_control().brake
car.apply_ackermann_control(carla.VehicleAckermannControl(speed=-2.0)); ticks(200)
back, reverse = along(car), car.get_control().reverse
car.apply_ackermann_control(carla.VehicleAckermannControl(speed=-2.0, steer=0.1)); ticks(5)
angle = car.get_wheel_steer_angle(carla.VehicleWheelLocation.FL_Wheel)
car.apply_control(carla.VehicleControl(brake=1.0)); ticks(40)
ended = along(car)
settings = carla.AckermannControllerSettings(speed_kp=0.3, speed_ki=0.01, speed_kd=0.2, accel_kp=0.02)
car.apply_ackermann_controller_settings(settings); world.tick()
read = car.get_ackermann_controller_settings()
car.destroy()
finish(forward=forward, stood=stood, brake=brake, back=back, angle=angle, reverse=reverse, ended=ended,
       default=(default.speed_kp, default.speed_kd, default.accel_kp, default.accel_kd),
       read=(read.speed_kp, read.speed_ki, read.speed_kd, read.accel_kp, read.accel_ki))
"""
    )
    assert answer["forward"] == pytest.approx(6.0, abs=0.3)
    assert abs(answer["stood"]) < 0.01 and answer["brake"] == 1.0
    assert answer["back"] == pytest.approx(-2.0, abs=0.3) and answer["reverse"]
    assert answer["angle"] == pytest.approx(math.degrees(0.1), abs=0.2) and abs(answer["ended"]) < 0.01
    assert answer["default"] == pytest.approx([0.15, 0.25, 0.01, 0.01])
    assert answer["read"] == pytest.approx([0.3, 0.01, 0.2, 0.02, 0.0])


def test_hand_brake_reverse_and_gears(client):
    answer = client(
        DRIVE
        + """
car = fresh()
def launch(**control):
    car.set_target_velocity(carla.Vector3D()); car.apply_control(carla.VehicleControl(brake=1.0)); ticks(10)
    car.apply_control(carla.VehicleControl(**control)); ticks(20)
    return along(car)
def gear(number): return launch(throttle=1.0, manual_gear_shift=True, gear=number)
held = launch(throttle=1.0, hand_brake=True)
backwards, shown = launch(throttle=0.5, reverse=True), car.get_control().gear
neutral, first, fifth, back = gear(0), gear(1), gear(5), gear(-1)
car.set_target_velocity(car.get_transform().get_forward_vector() * 10.0)
car.apply_control(carla.VehicleControl(hand_brake=True)); ticks(60)
stopped = along(car)
car.destroy()
finish(held=held, backwards=backwards, shown=shown, neutral=neutral, first=first, fifth=fifth, back=back,
       stopped=stopped)
"""
    )
    assert abs(answer["held"]) < 0.05 and answer["backwards"] < -1.0 and answer["shown"] == -1
    assert abs(answer["neutral"]) < 0.05 and answer["first"] > 3.5 and answer["back"] < -2.5
    assert 0.2 * answer["first"] < answer["fifth"] < 0.5 * answer["first"]
    assert abs(answer["stopped"]) < 0.05


def test_telemetry_says_what_the_car_does(client):
    answer = client(
        DRIVE
        + """
car = fresh()
car.apply_control(carla.VehicleControl(throttle=1.0)); ticks(40)
def read():
    data = car.get_telemetry_data()
    names = ("tire_friction", "lat_slip", "long_slip", "omega", "tire_load", "normalized_tire_load", "torque",
             "long_force", "lat_force", "normalized_long_force", "normalized_lat_force")
    wheels = [{name: getattr(wheel, name) for name in names} for wheel in data.wheels]
    return dict(speed=data.speed, throttle=data.throttle, brake=data.brake, steer=data.steer, rpm=data.engine_rpm,
                gear=data.gear, drag=data.drag, wheels=wheels)
pushing = read()
car.apply_control(carla.VehicleControl(steer=0.15)); ticks(8)
cornering = read()
mass = car.get_physics_control().mass
car.destroy()
finish(pushing=pushing, cornering=cornering, mass=mass)
"""
    )
    push, corner, mass = answer["pushing"], answer["cornering"], answer["mass"]
    assert push["speed"] > 7.0 and push["throttle"] == 1.0 and push["gear"] == 1 and 800.0 < push["rpm"] < 5800.0
    assert push["drag"] == pytest.approx(0.003 * mass * push["speed"] ** 2, rel=0.02)
    assert len(push["wheels"]) == 4
    assert sum(w["tire_load"] for w in push["wheels"]) == pytest.approx(mass * 9.81, rel=0.01)
    assert sum(w["long_force"] for w in push["wheels"]) == pytest.approx(mass * 3.9, rel=0.1)
    assert all(w["omega"] == pytest.approx(push["speed"] / 0.35, rel=0.1) for w in push["wheels"])
    assert all(w["tire_friction"] == pytest.approx(3.5) for w in push["wheels"])
    assert sum(w["lat_force"] for w in corner["wheels"]) > 0.1 * mass and corner["steer"] == pytest.approx(0.15)
    assert all(w["lat_slip"] < 0.0 for w in corner["wheels"])


def test_without_physics_nothing_moves_and_friction_volumes_hold(client):
    answer = client(
        DRIVE
        + """
spot = straight_spot()
car = fresh(spot=spot)
car.set_simulate_physics(False); start = car.get_location()
car.apply_control(carla.VehicleControl(throttle=1.0)); car.add_impulse(carla.Vector3D(1e6, 0, 0)); ticks(20)
still = car.get_location().distance(start)
car.set_simulate_physics(True); ticks(20)
moved = car.get_location().distance(start)
car.destroy(); world.tick()
car = fresh(spot=spot)
bp = blueprint("static.trigger.friction", friction=0.3, extent_x=2000.0, extent_y=2000.0, extent_z=500.0)
volume = world.spawn_actor(bp, carla.Transform(car.get_location())); ticks(1)
inside = car.get_physics_control().wheels[0].tire_friction
car.apply_control(carla.VehicleControl(throttle=1.0)); ticks(20)
slow = along(car)
volume.destroy(); ticks(1)
outside = car.get_physics_control().wheels[0].tire_friction
ticks(20)
quick = along(car) - slow
car.destroy()
finish(still=still, moved=moved, inside=inside, outside=outside, slow=slow, quick=quick)
"""
    )
    assert answer["still"] < 1e-3 and answer["moved"] > 0.5
    assert answer["inside"] == pytest.approx(0.3) and answer["outside"] == pytest.approx(3.5)
    assert answer["slow"] < 0.8 * answer["quick"]
