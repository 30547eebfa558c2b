"""Sensors over the wire: cameras, collisions, position, motion, lanes."""

from __future__ import annotations

import pytest

from drivesim.carla_server.embedded import EmbeddedServer


@pytest.fixture(scope="module")
def server():
    """One that is ready to draw: the first picture on a machine takes minutes of compiling."""
    with EmbeddedServer("Drivetown", draw_ahead=True) as address:
        yield address


def test_camera_frames_equal_the_tick(client):
    answer = client("""
        synchronous()
        car = world.spawn_actor(blueprint("vehicle.tesla.model3"), world.get_map().get_spawn_points()[3])
        kinds = ["rgb", "depth", "semantic_segmentation", "instance_segmentation"]
        images, cameras = queue.Queue(), []
        for kind in kinds:
            camera = world.spawn_actor(blueprint("sensor.camera." + kind, image_size_x=64, image_size_y=36, fov=70),
                                       carla.Transform(carla.Location(x=0.5, z=1.6)), attach_to=car)
            camera.listen(lambda image, kind=kind: images.put((kind, image)))
            cameras.append(camera)
        slow = world.spawn_actor(blueprint("sensor.camera.rgb", image_size_x=16, image_size_y=16, sensor_tick=0.2),
                                 carla.Transform(), attach_to=car)
        rare = []
        slow.listen(rare.append)
        late, last = 0, {}
        for _ in range(12):
            frame = world.tick()
            for _ in kinds:
                kind, image = images.get(timeout=60.0)
                late += image.frame != frame
                last[kind] = image
        time.sleep(0.3)
        rgb = bytes(last["rgb"].raw_data)
        tags = set(bytes(last["semantic_segmentation"].raw_data)[2::4])
        depth = bytes(last["depth"].raw_data)
        def metres(row):
            at = 4 * (row * 64 + 32)
            return (depth[at + 2] + 256 * depth[at + 1] + 65536 * depth[at]) / (2**24 - 1) * 1000.0
        place = last["rgb"].transform.location.distance(car.get_location())
        for sensor in [*cameras, slow]:
            sensor.stop(); sensor.destroy()
        car.destroy()
        finish(late=late, size=(last["rgb"].width, last["rgb"].height, last["rgb"].fov), bytes=len(rgb),
               shades=len(set(rgb)), tags=sorted(tags), low=metres(35), high=metres(24), rare=len(rare), place=place)
    """)  # fmt: skip
    assert answer["late"] == 0 and answer["size"] == [64, 36, 70.0] and answer["bytes"] == 64 * 36 * 4
    assert answer["shades"] > 10 and 1 in answer["tags"] and len(answer["tags"]) > 2
    assert 2.0 < answer["low"] < answer["high"] < 60.0
    assert answer["rare"] == 3 and answer["place"] == pytest.approx(1.67, abs=0.1)


def test_collision_position_motion_and_lanes(client):
    answer = client("""
        synchronous()
        library, town = world.get_blueprint_library(), world.get_map()
        def straight(point):
            ahead = point
            for _ in range(4):
                following = ahead.next(10.0)
                if len(following) != 1 or following[0].is_junction:
                    return False
                ahead = following[0]
            return abs(ahead.transform.rotation.yaw - point.transform.rotation.yaw) % 360.0 < 2.0
        spot = next(p for p in town.get_spawn_points() if straight(town.get_waypoint(p.location)))
        ahead = town.get_waypoint(spot.location).next(18.0)[0].transform
        ahead.location.z += 0.5
        car, wall = (world.spawn_actor(blueprint(name), pose) for name, pose in
                     (("vehicle.tesla.model3", spot), ("vehicle.carlamotors.firetruck", ahead)))
        events, sensors = {}, []
        for name in ("collision", "gnss", "imu", "lane_invasion", "obstacle"):
            sensor = world.spawn_actor(blueprint("sensor.other." + name), carla.Transform(), attach_to=car)
            events[name] = []
            sensor.listen(events[name].append)
            sensors.append(sensor)
        frames = [world.tick()]
        time.sleep(0.2)
        still = events["imu"][0].accelerometer.z
        car.apply_control(carla.VehicleControl(throttle=1.0))
        frames += [world.tick() for _ in range(60)]
        time.sleep(0.3)
        hit = events["collision"][0]
        fix = events["gnss"][-1]
        expected = town.transform_to_geolocation(sensors[1].get_location())
        result = dict(self=hit.actor.id == car.id, other=hit.other_actor.id == wall.id, frame=hit.frame in frames,
                      impulse=hit.normal_impulse.length(), gnss=[f.frame for f in events["gnss"]] == frames,
                      off=max(abs(fix.latitude - expected.latitude), abs(fix.longitude - expected.longitude)),
                      imu=[f.frame for f in events["imu"]] == frames, still=still,
                      obstacle=events["obstacle"][0].other_actor.id == wall.id if events["obstacle"] else None)
        wall.destroy()
        car.set_transform(spot); car.set_target_velocity(carla.Vector3D(0, 0, 0))
        car.apply_control(carla.VehicleControl(throttle=0.6, steer=-0.25))
        for _ in range(60):
            world.tick()
        time.sleep(0.2)
        result["crossed"] = len(events["lane_invasion"])
        for sensor in sensors:
            sensor.stop(); sensor.destroy()
        car.destroy()
        finish(**result)
    """)
    assert answer["self"] and answer["other"] and answer["frame"] and answer["impulse"] > 100.0
    assert answer["gnss"] and answer["imu"] and answer["off"] < 1e-6
    assert answer["still"] == pytest.approx(9.81, abs=0.05)
    assert answer["obstacle"] is True and answer["crossed"] > 0


def test_a_tick_right_after_listen_is_not_missed(client):
    answer = client("""
        synchronous()
        car = world.spawn_actor(blueprint("vehicle.tesla.model3"), world.get_map().get_spawn_points()[3])
        world.tick()
        missed = []
        for _ in range(20):
            sensor = world.spawn_actor(blueprint("sensor.other.imu"), carla.Transform(), attach_to=car)
            seen = queue.Queue()
            sensor.listen(seen.put)
            frames = [world.tick() for _ in range(3)]
            missed.append([seen.get(timeout=5.0).frame for _ in frames] != frames)
            sensor.stop(); sensor.destroy()
        car.destroy()
        finish(missed=sum(missed))
    """)
    assert answer["missed"] == 0
