"""Lidars and the radar over the wire: what comes back lies where the scene has it."""

from __future__ import annotations

from textwrap import dedent

import numpy as np
import pytest

from drivesim.town import towns
from drivesim.town.scenery import scenery

QUIET = "QUIET = dict(dropoff_general_rate=0.0, dropoff_intensity_limit=0.0, dropoff_zero_intensity=0.0)\n"


def test_a_truck_and_the_road_are_where_they_stand(street):
    answer = street(QUIET + dedent("""
        import numpy as np
        truck = world.spawn_actor(blueprint("vehicle.carlamotors.firetruck"), at(22.0))
        pose = at(0.0); pose.location.z += 1.9
        shape = dict(channels=32, range=60, points_per_second=128000, rotation_frequency=20, upper_fov=8,
                     lower_fov=-20)
        lidar, plain = sense("sensor.lidar.ray_cast", pose, noise_seed=3, **shape, **QUIET)
        other, tagged = sense("sensor.lidar.ray_cast_semantic", pose, **shape)
        frame = world.tick()
        one, two = plain.get(timeout=60.0), tagged.get(timeout=60.0)
        points = np.frombuffer(one.raw_data, np.float32).reshape(-1, 4)
        kind = np.dtype([("xyz", "<f4", 3), ("cosine", "<f4"), ("actor", "<u4"), ("label", "<u4")])
        rows = np.frombuffer(two.raw_data, kind)
        on_truck = rows["actor"] == truck.id
        box, turn = truck.bounding_box, np.array(truck.get_transform().get_inverse_matrix())
        into = np.array(lidar.get_transform().get_matrix())
        local = np.c_[rows["xyz"][on_truck], np.ones(on_truck.sum())] @ into.T @ turn.T
        low = local[:, :3] - np.array([box.location.x, box.location.y, box.location.z])
        inside = (np.abs(low) <= np.array([box.extent.x, box.extent.y, box.extent.z]) + 0.06).all()
        gap = 22.0 - box.extent.x
        road = np.isin(rows["label"], (1, 24)) & (rows["actor"] == 0)
        same = np.allclose(points[:, :3], rows["xyz"], atol=1e-4) if len(points) == len(rows) else False
        steep = rows["xyz"][road]
        result = dict(
            frame=[one.frame == frame, two.frame == frame], channels=[one.channels, two.channels], total=len(rows),
            counts=[sum(one.get_point_count(c) for c in range(32)), sum(two.get_point_count(c) for c in range(32))],
            angle=one.horizontal_angle, on_truck=int(on_truck.sum()), inside=bool(inside), gap=gap,
            nearest=float(rows["xyz"][on_truck][:, 0].min()), labels=sorted(set(rows["label"][on_truck].tolist())),
            cosine=float(np.median(rows["cosine"][on_truck])), road=int(road.sum()),
            road_z=[float(steep[:, 2].min()), float(steep[:, 2].max())], same=same,
            height=pose.location.z - start.transform.location.z,
            road_cosine=float(np.abs(rows["cosine"][road] + steep[:, 2] / np.linalg.norm(steep, axis=1)).max()),
            intensity=float(np.abs(points[:, 3] - np.exp(-0.004 * np.linalg.norm(points[:, :3], axis=1))).max()),
            first=[one[0].point.x, one[0].intensity], ids=sorted(set(rows["actor"].tolist()) - {0, truck.id}))
        close(lidar, other, truck)
        finish(**result)
    """))  # fmt: skip
    assert answer["frame"] == [True, True] and answer["channels"] == [32, 32]
    assert answer["counts"] == [answer["total"], answer["total"]] and 3000 < answer["total"] <= 6400
    assert answer["angle"] == pytest.approx(0.0, abs=1e-3)  # one whole turn in a tick
    assert answer["on_truck"] > 60 and answer["inside"] and answer["labels"] == [15]
    assert answer["nearest"] == pytest.approx(answer["gap"], abs=0.35) and answer["cosine"] > 0.8
    assert answer["road"] > 400 and answer["road_cosine"] < 1e-3
    assert answer["road_z"] == pytest.approx([-answer["height"]] * 2, abs=0.03)
    assert answer["same"] and answer["intensity"] < 1e-4 and answer["first"][1] <= 1.0


def test_a_wall_is_flat_and_where_the_scenery_has_it(client):
    network = towns.road_network("Drivetown")
    houses = scenery(network, 0).buildings
    near = np.hypot(houses[:, 0] - network.spawn_xyz_m[:, 0].mean(), houses[:, 1] - network.spawn_xyz_m[:, 1].mean())
    x, y, z, yaw, half_length, _, height = houses[int(np.argmin(np.where(houses[:, 4] > 5.0, near, np.inf)))][:7]
    nx, ny = np.cos(yaw), np.sin(yaw)
    answer = client("""
        import numpy as np, math
        synchronous()
        x, y, z, yaw = arguments
        pose = carla.Transform(carla.Location(x, y, z), carla.Rotation(yaw=yaw))
        lidar = world.spawn_actor(blueprint("sensor.lidar.ray_cast_semantic", channels=16, range=20, upper_fov=3,
                                            lower_fov=-3, horizontal_fov=16, points_per_second=32000), pose)
        seen = queue.Queue()
        lidar.listen(seen.put)
        world.tick()
        scan = seen.get(timeout=60.0)
        rows = np.array([(d.point.x, d.point.y, d.point.z, d.cos_inc_angle, d.object_idx, d.object_tag) for d in scan])
        lidar.stop(); lidar.destroy()
        finish(rows=rows.tolist())
    """, x + nx * (half_length + 1.5), y + ny * (half_length + 1.5), z + min(2.0, height / 2),
                    float(np.degrees(yaw) + 180.0))  # fmt: skip
    rows = np.array(answer["rows"])
    assert len(rows) == 1600 and set(rows[:, 5]) == {3.0} and set(rows[:, 4]) == {0.0}
    assert np.abs(rows[:, 0] - 1.5).max() < 2e-3
    assert np.allclose(rows[:, 3], rows[:, 0] / np.linalg.norm(rows[:, :3], axis=1), atol=1e-3)


def test_drop_off_noise_and_seeds(street):
    answer = street(QUIET + dedent("""
        import numpy as np
        shape = dict(channels=16, range=40, points_per_second=160000, rotation_frequency=20, upper_fov=-4,
                     lower_fov=-24)
        pose = at(0.0); pose.location.z += 1.9
        variants = dict(all=QUIET, half=dict(QUIET, dropoff_general_rate=0.5), a=dict(noise_seed=7),
                        b=dict(noise_seed=7), c=dict(noise_seed=8), noisy=dict(QUIET, noise_stddev=0.1),
                        dim=dict(QUIET, atmosphere_attenuation_rate=0.2, dropoff_intensity_limit=0.9,
                                 dropoff_zero_intensity=1.0))
        made = {name: sense("sensor.lidar.ray_cast", pose, **shape, **given) for name, given in variants.items()}
        for _ in range(2):
            world.tick()
            scans = {name: np.frombuffer(bytes(seen.get(timeout=60.0).raw_data), np.float32).reshape(-1, 4)
                     for name, (_, seen) in made.items()}
        n = {name: len(scan) for name, scan in scans.items()}
        reach = {name: np.linalg.norm(scan[:, :3], axis=1) for name, scan in scans.items()}
        off = reach["noisy"] - reach["all"]
        dim = scans["dim"]
        expected = float(np.minimum(np.exp(-0.2 * reach["all"]) / 0.9, 1.0).sum())
        result = dict(n=n, same=bool(np.array_equal(scans["a"], scans["b"])),
                      differ=not np.array_equal(scans["a"], scans["c"]), noise=[float(off.mean()), float(off.std())],
                      dim=float(np.abs(dim[:, 3] - np.exp(-0.2 * reach["dim"])).max()), expected=expected)
        close(*[sensor for sensor, _ in made.values()])
        finish(**result)
    """))  # fmt: skip
    n = answer["n"]
    assert n["all"] > 6000 and n["half"] == pytest.approx(n["all"] / 2, rel=0.06)
    assert answer["same"] and answer["differ"]
    assert n["a"] < 0.6 * n["all"]  # CARLA's defaults: 45 % are lost, and more of the faint ones
    assert answer["noise"][0] == pytest.approx(0.0, abs=0.01) and answer["noise"][1] == pytest.approx(0.1, rel=0.1)
    assert answer["dim"] < 1e-4 and n["dim"] == pytest.approx(answer["expected"], rel=0.06)


def test_the_head_turns_and_keeps_its_rhythm(street):
    answer = street(QUIET + dedent("""
        import numpy as np
        pose = at(0.0); pose.location.z += 1.9
        shape = dict(channels=8, range=80, points_per_second=80000, upper_fov=-3, lower_fov=-25)
        slow, seen = sense("sensor.lidar.ray_cast", pose, rotation_frequency=5, **shape, **QUIET)
        rare, some = sense("sensor.lidar.ray_cast", pose, rotation_frequency=5, sensor_tick=0.1, **shape, **QUIET)
        fan, ahead = sense("sensor.lidar.ray_cast", pose, rotation_frequency=20, horizontal_fov=60, **shape, **QUIET)
        few, empty = sense("sensor.lidar.ray_cast", pose, channels=64, points_per_second=10)
        quarters, sizes = [], []
        for _ in range(4):
            world.tick()
            scan = seen.get(timeout=60.0)
            xy = np.frombuffer(scan.raw_data, np.float32).reshape(-1, 4)[:, :2]
            angles = np.degrees(np.arctan2(xy[:, 1], xy[:, 0])) % 360.0
            quarters.append([float(angles.min()), float(angles.max()), scan.horizontal_angle])
            sizes.append(len(xy))
            front = np.frombuffer(ahead.get(timeout=60.0).raw_data, np.float32).reshape(-1, 4)
            none = empty.get(timeout=60.0)
        late = [some.get(timeout=60.0) for _ in range(2)]
        result = dict(quarters=quarters, sizes=sizes, rare=[len(s) for s in late], more=some.qsize(),
                      front=float(np.degrees(np.abs(np.arctan2(front[:, 1], front[:, 0]))).max()),
                      none=[len(none), none.channels])
        close(slow, rare, fan, few)
        finish(**result)
    """))  # fmt: skip
    quarters = np.array(answer["quarters"])
    assert np.allclose(quarters[:, 0], [180.0, 270.0, 0.0, 90.0], atol=1.0)
    assert np.allclose(quarters[:, 1], [270.0, 360.0, 90.0, 180.0], atol=1.0)
    assert np.allclose(quarters[:, 2] % (2 * np.pi), np.array([0.5, 1.0, 1.5, 0.0]) * np.pi, atol=1e-3)
    assert answer["more"] == 0 and answer["rare"][0] == pytest.approx(2 * answer["sizes"][0], rel=0.2)
    assert 29.0 < answer["front"] < 30.1 and answer["none"] == [0, 64]


def test_radar_ranges_and_speeds(street):
    answer = street(QUIET + dedent("""
        import numpy as np
        own = world.spawn_actor(blueprint("vehicle.tesla.model3"), at(0.0))
        truck = world.spawn_actor(blueprint("vehicle.carlamotors.firetruck"), at(32.0))
        nose = carla.Transform(carla.Location(x=own.bounding_box.extent.x + 0.1, z=1.2))
        radar, seen = sense("sensor.other.radar", nose, own, horizontal_fov=20, vertical_fov=6, range=60,
                            points_per_second=20000)
        own.enable_constant_velocity(carla.Vector3D(6.0, 0.0, 0.0))
        truck.enable_constant_velocity(carla.Vector3D(2.0, 0.0, 0.0))
        for _ in range(10):
            world.tick()
            scan = seen.get(timeout=60.0)
        rows = np.array([(d.velocity, d.azimuth, d.altitude, d.depth) for d in scan])
        gap = radar.get_location().distance(truck.get_location()) - truck.bounding_box.extent.x
        ahead = (np.abs(rows[:, 1]) < 0.02) & (np.abs(rows[:, 2]) < 0.02)
        moving = np.abs(rows[:, 0] + 4.0) < 0.3
        still = rows[~moving]
        cosine = np.cos(still[:, 1]) * np.cos(still[:, 2])
        result = dict(gap=gap, ahead=np.median(rows[ahead], axis=0).tolist(), n=len(rows),
                      most=np.abs(rows[:, 1:3]).max(axis=0).tolist(), moving=int(moving.sum()),
                      deepest=float(rows[:, 3].max()),
                      off=float(np.abs(still[:, 0] + 6.0 * cosine).max()), own=own.get_velocity().length())
        close(radar, own, truck)
        finish(**result)
    """))  # fmt: skip
    assert answer["own"] == pytest.approx(6.0, abs=0.05)
    assert answer["ahead"][0] == pytest.approx(-4.0, abs=0.05) and answer["ahead"][3] == pytest.approx(
        answer["gap"], abs=0.4
    )
    assert answer["moving"] > 20 and answer["n"] <= 1000 and answer["deepest"] < 62.0
    assert answer["most"][0] <= np.radians(10.01) and answer["most"][1] <= np.radians(3.01)
    assert answer["off"] < 0.1  # whatever stands comes nearer as fast as we drive


def test_two_clients_hear_the_same_lidar(street):
    answer = street(QUIET + dedent("""
        import time
        import numpy as np
        pose = at(0.0); pose.location.z += 1.9
        lidar, seen = sense("sensor.lidar.ray_cast", pose, range=40)
        second = carla.Client(host, port); second.set_timeout(60.0)
        twin = second.get_world().get_actor(lidar.id)
        heard = queue.Queue()
        twin.listen(heard.put)
        while heard.empty():  # it listens once its own socket is through, and what was said before is not repeated
            world.tick(); time.sleep(0.05)
        first = [world.tick() for _ in range(3)]
        def since(said):
            message = said.get(timeout=60.0)
            while message.frame < first[0]:
                message = said.get(timeout=60.0)
            return [message, *(said.get(timeout=60.0) for _ in first[1:])]
        mine, theirs = since(seen), since(heard)
        equal = [bytes(a.raw_data) == bytes(b.raw_data) and len(a) > 0 for a, b in zip(mine, theirs)]
        result = dict(frames=[m.frame for m in mine] == first, theirs=[m.frame for m in theirs] == first, equal=equal)
        twin.stop()
        world.tick(); seen.get(timeout=60.0)
        close(lidar)
        finish(**result)
    """))  # fmt: skip
    assert answer["frames"] and answer["theirs"] and answer["equal"] == [True] * 3
