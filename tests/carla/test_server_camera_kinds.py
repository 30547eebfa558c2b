"""Cameras beyond the plain picture: normals, motion, events; lenses and exposure. Against known geometry."""

from __future__ import annotations

from textwrap import dedent

import numpy as np
import pytest

from drivesim.carla_server.embedded import EmbeddedServer
from drivesim.town import towns
from drivesim.town.scenery import scenery

STUDIO = """
import numpy as np
synchronous()
town = world.get_map()
def camera(kind, pose, parent=None, **attributes):
    shape = dict(image_size_x=96, image_size_y=54, fov=60) | attributes
    made = world.spawn_actor(blueprint("sensor.camera." + kind, **shape), pose, attach_to=parent)
    seen = queue.Queue()
    made.listen(seen.put)
    return made, seen
def bgra(seen):
    image = seen.get(timeout=120.0)
    return np.frombuffer(bytes(image.raw_data), np.uint8).reshape(image.height, image.width, 4)
def metres(seen):
    pixels = bgra(seen).astype(float)
    return (pixels[..., 2] + 256 * pixels[..., 1] + 65536 * pixels[..., 0]) / (2**24 - 1) * 1000.0
def motion(seen):
    image = seen.get(timeout=120.0)
    return np.frombuffer(bytes(image.raw_data), np.float32).reshape(image.height, image.width, 2)
def close(*actors):
    for actor in actors:
        if hasattr(actor, "stop"):
            actor.stop()
        actor.destroy()
"""


@pytest.fixture(scope="module")
def server():
    """One that is ready to draw."""
    with EmbeddedServer("Drivetown", draw_ahead=True) as address:
        yield address


@pytest.fixture
def studio(client):
    """Runs a script with STUDIO's names."""
    return lambda script, *arguments: client(STUDIO + dedent(script), *arguments, timeout_s=400.0)


@pytest.fixture(scope="module")
def wall():
    """x, y, z 1.5 m in front of a house's wall, and the yaw (degrees) that looks at it."""
    network = towns.road_network("Drivetown")
    houses = scenery(network, 0).buildings
    near = np.hypot(houses[:, 0] - network.spawn_xyz_m[:, 0].mean(), houses[:, 1] - network.spawn_xyz_m[:, 1].mean())
    x, y, z, yaw, half_length, _, height = houses[int(np.argmin(np.where(houses[:, 4] > 5.0, near, np.inf)))][:7]
    away = half_length + 1.5
    return [x + np.cos(yaw) * away, y + np.sin(yaw) * away, z + min(2.0, height / 2), float(np.degrees(yaw)) + 180.0]


def test_normals_of_a_wall_and_of_the_road(studio, wall):
    answer = studio("""
        x, y, z, yaw = arguments[0]
        one, wall = camera("normals", carla.Transform(carla.Location(x, y, z), carla.Rotation(yaw=yaw)), fov=30)
        place = town.get_spawn_points()[3].location + carla.Location(z=6.0)
        two, road = camera("normals", carla.Transform(place, carla.Rotation(pitch=-90, yaw=31)), fov=20)
        three, sky = camera("normals", carla.Transform(place, carla.Rotation(pitch=80)), fov=20)
        frame = world.tick()
        found = [np.unique(bgra(seen).reshape(-1, 4), axis=0).tolist() for seen in (wall, road, sky)]
        close(one, two, three)
        finish(wall=found[0], road=found[1], sky=found[2])
    """, wall)  # fmt: skip
    facing = np.radians(wall[3] + 180.0)
    expected = np.rint((np.array([np.cos(facing), np.sin(facing), 0.0]) * 0.5 + 0.5) * 255.0)[::-1]
    assert len(answer["wall"]) == 1 and np.abs(np.array(answer["wall"][0][:3]) - expected).max() <= 1.0
    assert np.abs(np.array(answer["road"]) - [255, 128, 128, 255]).max() <= 1
    assert answer["sky"] == [[128, 128, 128, 255]]


def test_motion_of_a_camera_before_a_wall(studio, wall):
    answer = studio("""
        import math
        x, y, z, yaw = arguments[0]
        def pose(right=0.0, up=0.0, ahead=0.0, turn=0.0):
            c, s = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
            at = carla.Location(x + ahead * c - right * s, y + ahead * s + right * c, z + up)
            return carla.Transform(at, carla.Rotation(yaw=yaw + turn))
        eye, seen = camera("optical_flow", pose(), fov=40)
        result = {}
        world.tick(); result["first"] = float(np.abs(motion(seen)).max())
        world.tick(); result["still"] = float(np.abs(motion(seen)).max())
        for name, place in (("right", pose(right=0.1)), ("back", pose()), ("up", pose(up=0.05)), ("down", pose()),
                            ("turn", pose(turn=2.0)), ("home", pose()), ("ahead", pose(ahead=0.3))):
            eye.set_transform(place)
            world.tick()
            flow = motion(seen)
            result[name] = [flow[..., 0].min().item(), flow[..., 0].max().item(), flow[..., 1].min().item(),
                            flow[..., 1].max().item(), flow[27, 48].tolist(), flow[0, 95].tolist()]
        close(eye)
        finish(**result)
    """, wall)  # fmt: skip
    half = np.tan(np.radians(20.0))  # of the picture's width, a metre away
    assert answer["first"] == 0.0 and answer["still"] < 1e-6
    shift = 0.1 / 1.5 / half
    assert answer["right"][:4] == pytest.approx([-shift, -shift, 0.0, 0.0], abs=2e-4)
    assert answer["back"][:4] == pytest.approx([shift, shift, 0.0, 0.0], abs=2e-4)
    lift = 0.05 / 1.5 / (half * 54 / 96)
    assert answer["up"][:4] == pytest.approx([0.0, 0.0, -lift, -lift], abs=2e-4)  # the wall sinks
    assert answer["turn"][4][0] == pytest.approx(-np.tan(np.radians(2.0)) / half, rel=0.03)
    corner = np.array([95.5 / 48 - 1.0, 1.0 - 0.5 / 27])  # what comes nearer grows away from the middle
    assert answer["ahead"][5] == pytest.approx((corner * (1.0 - 1.2 / 1.5)).tolist(), abs=2e-3)


def test_a_car_that_drives_moves_on_the_screen_and_makes_events(studio):
    answer = studio("""
        spot = town.get_spawn_points()[3]
        car = world.spawn_actor(blueprint("vehicle.tesla.model3", color="250,250,250"), spot)
        side = spot.get_right_vector()
        place = spot.location - carla.Location(side.x * 10.0, side.y * 10.0, -1.2)
        view = carla.Transform(place, carla.Rotation(yaw=spot.rotation.yaw + 90.0))
        made = [camera(kind, view) for kind in ("optical_flow", "instance_segmentation", "depth", "dvs", "rgb")]
        eye, names, depth, events, picture = [seen for _, seen in made]
        for _ in range(8):
            frame = world.tick()
            flow, name, away, _ = motion(eye), bgra(names), metres(depth), bgra(picture)
        quiet = sum(events.get().frame > frame - 4 for _ in range(events.qsize()))  # it sinks to the ground at first
        rest = float(np.abs(flow).max())
        car.enable_constant_velocity(carla.Vector3D(5.0, 0.0, 0.0))
        world.tick(); motion(eye); bgra(names); metres(depth); bgra(picture)
        while not events.empty():
            events.get()
        before = car.get_location()
        world.tick()
        moved = before.distance(car.get_location())
        flow, name, away, _ = motion(eye), bgra(names), metres(depth), bgra(picture)
        burst = events.get(timeout=60.0)
        rows = np.array([(e.x, e.y, e.t, e.pol) for e in burst], dtype=np.int64)
        on_car = (name[..., 1].astype(int) + 256 * name[..., 0].astype(int)) == (car.id & 0xFFFF)
        measured, expected = flow[on_car][:, 0], -moved / away[on_car] / np.tan(np.radians(30.0))
        elsewhere = flow[~on_car]
        now = world.get_snapshot().timestamp.elapsed_seconds
        columns = np.flatnonzero(on_car.any(0))
        near = (rows[:, 0] >= columns.min() - 3) & (rows[:, 0] <= columns.max() + 3)
        result = dict(quiet=quiet, rest=rest, pixels=int(on_car.sum()), moved=moved,
                      off=float(np.abs(measured - expected).max() / moved), still=float(np.abs(elsewhere).max()),
                      events=len(rows), near=float(near.mean()), both=sorted(set(rows[:, 3].tolist())),
                      ordered=bool((np.diff(rows[:, 2]) >= 0).all()),
                      span=[int(rows[0, 2]) / 1e9, int(rows[-1, 2]) / 1e9],
                      now=now, size=[burst.width, burst.height])
        close(*[sensor for sensor, _ in made], car)
        finish(**result)
    """)  # fmt: skip
    assert answer["quiet"] == 0 and answer["rest"] < 1e-6
    assert answer["pixels"] > 150 and answer["moved"] == pytest.approx(0.25, abs=0.02)
    assert answer["off"] < 0.03 and answer["still"] < 1e-6
    assert answer["events"] > 20 and answer["near"] > 0.9 and answer["both"] == [0, 1] and answer["ordered"]
    assert answer["now"] - 0.0501 < answer["span"][0] <= answer["span"][1] <= answer["now"] + 1e-6
    assert answer["size"] == [96, 54]


def test_lens_and_exposure(studio, wall):
    answer = studio("""
        x, y, z, yaw = arguments[0]
        here = carla.Transform(carla.Location(x, y, z), carla.Rotation(yaw=yaw + 150.0))
        bent = dict(lens_circle_multiplier=0.8, lens_circle_falloff=1.5, lens_k=-0.6, lens_kcube=0.2)
        variants = dict(plain={}, same=dict(lens_k=-1.0, lens_circle_falloff=5.0, gamma=2.2, iso=400, shutter_speed=50),
                        bright=dict(exposure_compensation=1.0), flat=dict(gamma=1.1), bent=bent,
                        manual=dict(exposure_mode="manual"), iso=dict(exposure_mode="manual", iso=200),
                        slow=dict(exposure_mode="manual", shutter_speed=100),
                        dark=dict(exposure_mode="manual", fstop=2.8))
        made = {name: camera("rgb", here, **given) for name, given in variants.items()}
        one, straight = camera("depth", here)
        two, curved = camera("depth", here, **bent)
        world.tick()
        pictures = {name: bgra(seen)[..., :3] for name, (_, seen) in made.items()}
        depth, distorted = metres(straight), metres(curved)
        v, u = np.mgrid[0:54, 0:96]
        dx, dy = (u + 0.5) / 96 - 0.5, (v + 0.5) / 54 - 0.5
        r = np.hypot(dx, dy)
        s = 1 + 0.8 * (r / 0.5**0.5) ** 1.5 * (-0.6 * r**2 + 0.2 * r**3)
        column = np.rint(np.clip((dx * s + 0.5) * 96 - 0.5, 0, 95)).astype(int)
        row = np.rint(np.clip((dy * s + 0.5) * 54 - 0.5, 0, 53)).astype(int)
        plain, bright, flat = (pictures[name].astype(float) / 255.0 for name in ("plain", "bright", "flat"))
        result = dict(
            same=bool(np.array_equal(pictures["plain"], pictures["same"])),
            manual=bool(np.array_equal(pictures["plain"], pictures["manual"])),
            iso=bool(np.array_equal(pictures["bright"], pictures["iso"])),
            slow=bool(np.array_equal(pictures["bright"], pictures["slow"])),
            dark=float(pictures["dark"].mean() / pictures["plain"].mean()),
            bright=float(np.abs(bright - np.minimum(plain**2.2 * 2.0, 1.0) ** (1 / 2.2)).max()),
            flat=float(np.abs(flat - plain ** (2.2 / 1.1)).max()),
            depth=float((np.abs(distorted - depth[row, column]) < 1e-6).mean()),
            bent=float(np.abs(distorted - depth).max()),
            picture=float(np.abs(pictures["bent"].astype(float) - pictures["plain"][row, column]).mean()),
            straightness=float(np.abs(pictures["bent"].astype(float) - pictures["plain"]).mean()))
        close(*[sensor for sensor, _ in made.values()], one, two)
        finish(**result)
    """, wall)  # fmt: skip
    assert answer["same"] and answer["manual"] and answer["iso"] and answer["slow"]
    assert (
        answer["bright"] < 0.003
        and answer["flat"] < 0.003
        and answer["dark"] == pytest.approx(0.25 ** (1 / 2.2), rel=0.05)
    )
    assert answer["depth"] > 0.999 and answer["bent"] > 0.1
    assert answer["picture"] < 0.6 * answer["straightness"]
