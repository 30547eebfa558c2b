"""How sensors hang on their parents, and what the small ones say there: spring arms, motion, position, obstacles."""

from __future__ import annotations

import numpy as np
import pytest


def test_spring_arms_lag_behind_turns_and_stay_level(street):
    answer = street("""
        car = world.spawn_actor(blueprint("vehicle.tesla.model3"), at(10.0))
        pose = carla.Transform(carla.Location(x=-6.0, z=3.0), carla.Rotation(pitch=8.0))
        kinds = dict(rigid=carla.AttachmentType.Rigid, arm=carla.AttachmentType.SpringArm,
                     ghost=carla.AttachmentType.SpringArmGhost)
        made = {name: sense("sensor.other.gnss", pose, car, kind) for name, kind in kinds.items()}
        def look():
            world.tick()
            found = {}
            middle = car.get_transform()
            for name, (sensor, seen) in made.items():
                frame = seen.get(timeout=30.0).transform
                away = frame.location - middle.location
                turn = math.degrees(math.atan2(-away.y, -away.x)) - middle.rotation.yaw
                found[name] = [math.hypot(away.x, away.y), away.z, (turn + 180) % 360 - 180, frame.rotation.pitch,
                               frame.rotation.roll]
            return found
        look()
        straight = look()
        turned = car.get_transform()
        turned.rotation.yaw += 40.0
        car.set_transform(turned)
        swing = [look() for _ in range(40)]
        close(*[sensor for sensor, _ in made.values()], car)
        finish(straight=straight, swing=swing)
    """)  # fmt: skip
    straight, swing = answer["straight"], answer["swing"]
    assert straight["rigid"][:4] == pytest.approx([6.0, 3.0, 0.0, 8.0], abs=0.02)
    tilt = -np.degrees(np.arctan2(3.0, 6.0)) + 8.0  # it looks at the car, and is turned by its own pitch
    assert straight["ghost"][:4] == pytest.approx([6.0, 3.0, 0.0, tilt], abs=0.05)
    assert straight["arm"][:4] == pytest.approx([6.0, 3.3, 0.0, tilt], abs=0.05)
    assert swing[0]["rigid"][2] == pytest.approx(0.0, abs=0.5)
    lag = [frame["ghost"][2] for frame in swing]
    assert -40.0 < lag[0] < -20.0 and np.all(np.diff(lag[:10]) > 0.0) and lag[-1] == pytest.approx(0.0, abs=0.2)
    assert all(abs(frame["ghost"][4]) < 0.01 for frame in swing)


def test_a_spring_arm_shortens_before_a_truck_and_a_ghost_does_not(street):
    answer = street("""
        truck = world.spawn_actor(blueprint("vehicle.carlamotors.firetruck"), at(4.0))
        car = world.spawn_actor(blueprint("vehicle.tesla.model3"), at(13.0))
        pose = carla.Transform(carla.Location(x=-9.0, z=1.5))
        arm, one = sense("sensor.other.gnss", pose, car, carla.AttachmentType.SpringArm)
        ghost, two = sense("sensor.other.gnss", pose, car, carla.AttachmentType.SpringArmGhost)
        world.tick()
        away = [seen.get(timeout=30.0).transform.location.distance_2d(car.get_location()) for seen in (one, two)]
        room = car.get_location().distance_2d(truck.get_location()) - truck.bounding_box.extent.x
        close(arm, ghost, car, truck)
        finish(away=away, room=room)
    """)
    assert answer["away"][1] == pytest.approx(9.0, abs=0.05)
    assert answer["away"][0] == pytest.approx(answer["room"] - 0.12, abs=0.15)


def test_noise_and_bias_follow_the_seed(street):
    answer = street("""
        car = world.spawn_actor(blueprint("vehicle.tesla.model3"), at(10.0))
        gyro = dict(noise_gyro_stddev_z=0.02, noise_gyro_bias_x=0.3, noise_accel_stddev_y=0.5)
        place = dict(noise_lat_stddev=1e-5, noise_lon_bias=1e-3, noise_alt_stddev=2.0)
        made = {}
        for name, seed in (("a", 5), ("b", 5), ("c", 6)):
            made["imu " + name] = sense("sensor.other.imu", carla.Transform(), car, noise_seed=seed, **gyro)
            made["gnss " + name] = sense("sensor.other.gnss", carla.Transform(), car, noise_seed=seed, **place)
        made["plain"] = sense("sensor.other.gnss", carla.Transform(), car)
        rows = {name: [] for name in made}
        for _ in range(120):
            world.tick()
            for name, (_, seen) in made.items():
                data = seen.get(timeout=30.0)
                rows[name].append([data.accelerometer.y, data.gyroscope.x, data.gyroscope.z, data.compass]
                                  if "imu" in name else [data.latitude, data.longitude, data.altitude])
        close(*[sensor for sensor, _ in made.values()], car)
        finish(rows=rows)
    """)
    rows = {name: np.array(values)[20:] for name, values in answer["rows"].items()}
    assert np.array_equal(rows["imu a"], rows["imu b"]) and not np.array_equal(rows["imu a"], rows["imu c"])
    assert np.array_equal(rows["gnss a"], rows["gnss b"]) and not np.array_equal(rows["gnss a"], rows["gnss c"])
    assert rows["imu a"][:, 0].std() == pytest.approx(0.5, rel=0.25)
    assert rows["imu a"][:, 1] == pytest.approx(0.3, abs=1e-6) and rows["imu a"][:, 2].std() == pytest.approx(
        0.02, rel=0.25
    )
    off = rows["gnss a"] - rows["plain"]
    assert off[:, 1] == pytest.approx(1e-3, abs=1e-9) and off[:, 2].std() == pytest.approx(2.0, rel=0.25)
    assert off[:, 0].std() == pytest.approx(1e-5, rel=0.25)


def test_an_imu_off_the_middle_feels_the_turn(street):
    answer = street("""
        car = world.spawn_actor(blueprint("vehicle.tesla.model3"), at(0.0))
        middle, one = sense("sensor.other.imu", carla.Transform(), car)
        nose, two = sense("sensor.other.imu", carla.Transform(carla.Location(x=2.0)), car)
        turned, three = sense("sensor.other.imu", carla.Transform(carla.Location(), carla.Rotation(yaw=90.0)), car)
        car.apply_control(carla.VehicleControl(throttle=0.6))
        rows, yaw = [], []
        for tick in range(70):
            if tick == 30:
                car.apply_control(carla.VehicleControl(throttle=0.2, steer=0.3))
            world.tick()
            rows.append([[d.accelerometer.x, d.accelerometer.y, d.accelerometer.z, d.gyroscope.z, d.compass]
                         for d in (seen.get(timeout=30.0) for seen in (one, two, three))])
            yaw.append(math.radians(car.get_transform().rotation.yaw))
        close(middle, nose, turned, car)
        finish(rows=rows, yaw=yaw)
    """)
    rows, yaw = np.array(answer["rows"]), np.unwrap(answer["yaw"])
    rate = np.diff(yaw) / 0.05
    turning = slice(50, 69)
    assert abs(rate[turning].mean()) > 0.05
    assert rows[51:70, 0, 3] == pytest.approx(rate[50:69], abs=0.06)
    assert rows[51:70, 0, 0] - rows[51:70, 1, 0] == pytest.approx(2.0 * rows[51:70, 0, 3] ** 2, abs=1e-3)
    assert rows[:, 2, 0] == pytest.approx(rows[:, 0, 1], abs=1e-3) and rows[:, 2, 1] == pytest.approx(
        -rows[:, 0, 0], abs=1e-3
    )
    north = (np.array(answer["yaw"]) + np.pi / 2) % (2 * np.pi)  # the compass is 0 where yaw is -90 degrees
    assert np.cos(rows[:, 0, 4] - north) == pytest.approx(1.0, abs=1e-4)


def test_obstacles_ahead_and_their_distance(street):
    answer = street("""
        truck = world.spawn_actor(blueprint("vehicle.carlamotors.firetruck"), at(20.0))
        cone = world.spawn_actor(blueprint("static.prop.trafficcone01"), at(8.0))
        car = world.spawn_actor(blueprint("vehicle.tesla.model3"), at(0.0))
        front = carla.Transform(carla.Location(x=car.bounding_box.extent.x, z=0.8))
        reach = dict(distance=30, hit_radius=0.3)
        any_thing, one = sense("sensor.other.obstacle", front, car, **reach)
        moving, two = sense("sensor.other.obstacle", front, car, only_dynamics="true", **reach)
        short, three = sense("sensor.other.obstacle", front, car, distance=3, hit_radius=0.3)
        frame = world.tick()
        first, second = one.get(timeout=30.0), two.get(timeout=30.0)
        gap = lambda other: any_thing.get_location().distance_2d(other.get_location()) - other.bounding_box.extent.x
        time.sleep(0.2)
        result = dict(cone=first.other_actor.id == cone.id, truck=second.other_actor.id == truck.id,
                      me=first.actor.id == car.id, frames=[first.frame == frame, second.frame == frame],
                      none=three.qsize(), off=[first.distance - gap(cone), second.distance - gap(truck)])
        close(any_thing, moving, short, car, cone, truck)
        finish(**result)
    """)  # fmt: skip
    assert (
        answer["cone"] and answer["truck"] and answer["me"] and answer["frames"] == [True, True] and answer["none"] == 0
    )
    assert answer["off"] == pytest.approx([-0.3, -0.3], abs=0.1)
