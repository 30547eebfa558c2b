"""The recorder over a real socket: what is recorded replays, real logs replay, and bad files or names are refused."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from drivesim.carla_server import recorder_file as log
from drivesim.carla_server.embedded import EmbeddedServer
from drivesim.carla_server.episode import Episode
from drivesim.carla_server.recordings import Recordings
from drivesim.carla_server.replay_source import poses_of
from drivesim.carla_server.replayer import Replayer, ReplayRequest
from drivesim.carla_server.rpc import Refusal
from drivesim.carla_server.world_observer import WorldObserver
from drivesim.town import towns
from drivesim.town.town import Town

LOGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "carla_recorder"

SCENE = """
def scene():
    synchronous()
    spots = world.get_map().get_spawn_points()
    hero = world.spawn_actor(blueprint("vehicle.tesla.model3", role_name="hero"), spots[3])
    other = world.spawn_actor(blueprint("vehicle.audi.tt"), spots[9])
    walker_spot = carla.Transform(spots[5].location + carla.Location(0, 0, 1.0), spots[5].rotation)
    walker = world.spawn_actor(blueprint("walker.pedestrian.0002"), walker_spot)
    cone = world.spawn_actor(blueprint("static.prop.trafficcone01"), spots[12])
    hero.apply_control(carla.VehicleControl(throttle=0.7, steer=0.1))
    other.apply_control(carla.VehicleControl(throttle=0.4, steer=-0.05))
    walker.apply_control(carla.WalkerControl(carla.Vector3D(1, 0, 0), 1.5))
    other.set_light_state(carla.VehicleLightState(carla.VehicleLightState.LowBeam))
    return [hero, other, walker, cone]

def pose(transform):
    place, turn = transform.location, transform.rotation
    return [place.x, place.y, place.z, turn.pitch, turn.yaw, turn.roll]

def seen(actors):
    return [pose(world.get_snapshot().find(actor.id).get_transform()) for actor in actors]

def told(call, *arguments):
    try:
        return call(*arguments)
    except RuntimeError as error:
        return "RuntimeError: " + str(error)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def server(folder):
    with EmbeddedServer("Drivetown", draw_ahead=False, recordings=folder) as address:
        yield address


@pytest.fixture(scope="module")
def recorded(server, run_client_at):
    """A drive of 3 s, recorded as drive.log, and what the client saw of it."""
    return run_client_at(server, SCENE + """
actors = scene()
path = client.start_recorder("drive.log", True)
frames, lights, late = [], [], None
for number in range(60):
    world.tick()
    frames.append(seen(actors))
    lights.append([int(light.state) for light in sorted(world.get_actors().filter("traffic.traffic_light"),
                                                        key=lambda light: light.id)])
    if number == 20:
        camera = world.spawn_actor(blueprint("sensor.other.gnss"), carla.Transform(carla.Location(x=1.0, z=2.0)),
                                   attach_to=actors[0])
        late = world.spawn_actor(blueprint("vehicle.bmw.grandtourer"), world.get_map().get_spawn_points()[20])
    if number == 40:
        late.destroy()
client.stop_recorder()
ids = [actor.id for actor in actors]
for actor in [camera, *actors]:
    actor.destroy()
world.tick()
finish(path=path, ids=ids, frames=frames, lights=lights, late=late.id, left=len(world.get_actors().filter("vehicle.*")))
""")  # fmt: skip


def test_a_recording_replays_the_same_poses(client, recorded):
    answer = client(SCENE + """
synchronous(False)
ids, late = arguments
text = client.replay_file("drive.log", 0.0, 0.0, 0, False)
frames, lights, there, speeds, controls = [], [], [], [], None
for number in range(60):
    world.tick()
    actors = [world.get_actor(one) for one in ids]
    frames.append(seen(actors))
    lights.append([int(light.state) for light in sorted(world.get_actors().filter("traffic.traffic_light"),
                                                        key=lambda light: light.id)])
    there.append(world.get_snapshot().find(late) is not None)
    speeds.append(actors[0].get_velocity().length())
    if number == 30:
        control, beam = actors[0].get_control(), int(actors[1].get_light_state())
        controls = [control.throttle, control.steer, beam, actors[2].get_control().speed]
ends = []
for _ in range(3):
    world.tick()
    ends.append([world.get_actor(one).get_velocity().length() for one in ids])
types = [actor.type_id for actor in actors]
client.stop_replayer(True)
for actor in actors:
    actor.destroy()
world.tick()
finish(text=text, frames=frames, lights=lights, there=there, speeds=speeds, controls=controls, ends=ends, types=types,
       roles=actors[0].attributes["role_name"])
""", recorded["ids"], recorded["late"])  # fmt: skip
    assert recorded["path"].endswith("/drive.log") and recorded["left"] == 0
    assert answer["types"] == ["vehicle.tesla.model3", "vehicle.audi.tt", "walker.pedestrian.0002",
                               "static.prop.trafficcone01"]  # fmt: skip
    was, now = np.array(recorded["frames"]), np.array(answer["frames"])
    assert np.abs(now[..., :3] - was[..., :3]).max() < 2e-4
    turned = (now[..., 3:] - was[..., 3:] + 180.0) % 360.0 - 180.0
    assert np.abs(turned).max() < 1e-3
    assert np.abs(was[-1] - was[0]).max() > 3.0, "something moved at all"
    assert answer["lights"] == recorded["lights"]
    assert [k for k, there in enumerate(answer["there"]) if there] == list(range(21, 41))
    assert answer["controls"] == pytest.approx([0.7, 0.1, 2, 1.5], abs=1e-5)
    assert answer["speeds"][40] > 3.0 and answer["roles"] == "hero"
    assert np.abs(answer["ends"]).max() < 0.5, "after the end they stand"
    lines = answer["text"].splitlines()
    assert lines[0].startswith("Replaying File: ") and lines[1] == "Total time recorded: 2.95"
    assert lines[2] == "Replaying from 0 s - 2.95 s (2.95 s) at 1.0x" and lines[3] == "Ignoring Spectator camera"


def test_start_duration_factor_and_follow(client, recorded):
    answer = client(SCENE + """
synchronous(False)
(ids,) = arguments
def replay(ticks, *request):
    text, found = client.replay_file("drive.log", *request), []
    for _ in range(ticks):
        world.tick()
        found.append(seen([world.get_actor(ids[0])])[0])
    return text, found
fresh, part = replay(14, 1.0, 0.5, ids[0], False, carla.Transform(carla.Location(-3, 0, 2), carla.Rotation(-15, 0, 0)))
spectator, car = pose(world.get_spectator().get_transform()), part[-1]
for pattern in ("vehicle.*", "walker.*", "static.*"):
    for actor in world.get_actors().filter(pattern):
        actor.destroy()
world.tick()
_, tail = replay(1, -0.5, 0.0, 0)
client.set_replayer_time_factor(2.0)
_, fast = replay(6, 0.0, 0.0, 0)
client.set_replayer_time_factor(0.5)
_, slow = replay(6, 1.0, 0.0, 0)
client.set_replayer_time_factor(0.0)
_, held = replay(3, 1.0, 0.0, 0)
client.set_replayer_time_factor(1.0)
client.stop_replayer(False)
world.tick()
finish(text=fresh, part=part, spectator=spectator, car=car, tail=tail, fast=fast, slow=slow, held=held,
       left=len(world.get_actors().filter("vehicle.*")))
""", recorded["ids"])  # fmt: skip
    was = np.array(recorded["frames"])[:, 0]
    part = np.array(answer["part"])
    assert "Replaying from 1 s - 1.5 s (2.95 s) at 1.0x" in answer["text"]
    assert np.abs(part[:11, :2] - was[20:31, :2]).max() < 1e-3
    assert np.hypot(*(part[-1, :2] - was[30, :2])) < 0.5, "it stands where the part ended"
    x, y, z, pitch, yaw, _ = answer["spectator"]
    away = np.array([x, y, z]) - np.array(answer["car"][:3])
    heading = np.radians(answer["car"][4])
    assert away[:2] == pytest.approx([-3.0 * np.cos(heading), -3.0 * np.sin(heading)], abs=0.3)
    assert away[2] == pytest.approx(2.0, abs=0.3) and yaw == pytest.approx(answer["car"][4], abs=1.0)
    assert pitch == pytest.approx(-15.0 + answer["car"][3], abs=1.0)
    assert np.abs(np.array(answer["tail"])[0, :2] - was[49, :2]).max() < 1e-3
    assert np.abs(np.array(answer["fast"])[:, :2] - was[:12:2, :2]).max() < 1e-3
    slow = np.array(answer["slow"])
    assert np.abs(slow[::2, :2] - was[20:23, :2]).max() < 1e-3
    assert np.abs(slow[1::2, :2] - (was[20:23, :2] + was[21:24, :2]) / 2).max() < 1e-3
    assert np.abs(np.array(answer["held"])[:, :2] - was[20, :2]).max() < 1e-3
    assert answer["left"] == 0, "stop_replayer(False) removes what the replay made"


def test_ignoring_the_hero_and_replaying_sensors(client, recorded):
    answer = client(SCENE + """
synchronous(False)
(ids,) = arguments
client.set_replayer_ignore_hero(True)
text = client.replay_file("drive.log", 0.0, 0.0, 0)
world.tick()
ignored = [actor.type_id for actor in world.get_actors().filter("vehicle.*")]
client.set_replayer_ignore_hero(False)
client.replay_file("drive.log", 1.5, 0.0, 0, True)
world.tick()
sensors = list(world.get_actors().filter("sensor.*"))
parent = sensors[0].parent.id if sensors else 0
got = queue.Queue()
sensors[0].listen(got.put)
world.tick()
data = got.get(timeout=20.0)
pushes = []
for _ in range(5):
    world.tick()
    pushes.append(world.get_actor(ids[0]).get_acceleration().length())
hero = world.get_actor(ids[0]).get_transform().location
away = sensors[0].get_transform().location.distance(hero)
client.stop_replayer(False)
world.tick()
finish(text=text, ignored=ignored, sensors=[sensor.type_id for sensor in sensors], parent=parent,
       away=away, frame=data.frame, pushes=pushes)
""", recorded["ids"])  # fmt: skip
    assert "Ignoring Hero vehicle" in answer["text"] and answer["ignored"] == ["vehicle.audi.tt"]
    assert answer["sensors"] == ["sensor.other.gnss"] and answer["parent"] == recorded["ids"][0]
    assert answer["away"] < 3.0 and 0.5 < max(answer["pushes"]) < 20.0


def test_replaying_onto_living_actors_moves_them(client):
    answer = client(
        SCENE
        + """
actors = scene()
client.start_recorder("again.log")
for _ in range(20):
    world.tick()
client.stop_recorder()
there = seen(actors)
for _ in range(20):
    world.tick()
count = len(world.get_actors())
client.replay_file("again.log", -0.05, 0.0, 0)
world.tick()
moved, after = seen(actors), len(world.get_actors())
client.stop_replayer(False)
world.tick()
finish(there=there, moved=moved, count=count, after=after, alive=[actor.is_alive for actor in actors])
"""
    )
    assert answer["count"] == answer["after"] and all(answer["alive"]), "own actors are used again, and kept"
    there, moved = np.array(answer["there"]), np.array(answer["moved"])
    assert 0.0 < np.abs(there[:2, :2] - moved[:2, :2]).max() < 1.0


def test_what_a_recording_holds(client, recorded):
    answer = client(SCENE + """
synchronous()
spots = world.get_map().get_spawn_points()
cars = [world.spawn_actor(blueprint("vehicle.tesla.model3", role_name="hero"), spots[3])]
world.tick()
forward = spots[3].get_forward_vector()
place = carla.Transform(spots[3].location + carla.Location(7.0 * forward.x, 7.0 * forward.y, 0.0), spots[3].rotation)
cars.append(world.spawn_actor(blueprint("vehicle.audi.tt"), place))
client.start_recorder("crash.log")
cars[0].set_target_velocity(carla.Vector3D(12.0 * forward.x, 12.0 * forward.y, 0.0))
for _ in range(40):
    world.tick()
client.stop_recorder()
for car in cars:
    car.destroy()
finish(info=client.show_recorder_file_info("drive.log", False), all=client.show_recorder_file_info("drive.log", True),
       crash=client.show_recorder_collisions("crash.log", "h", "v"),
       none=client.show_recorder_collisions("crash.log", "w", "a"),
       blocked=client.show_recorder_actors_blocked("crash.log", 0.5, 5.0), ids=[car.id for car in cars],
       missing=told(client.show_recorder_file_info, "none.log", False),
       lost=told(client.replay_file, "none.log", 0, 0, 0),
       wrong=told(client.show_recorder_collisions, "crash.log", "x", "a"))
""")  # fmt: skip
    hero, other = recorded["ids"][:2]
    assert (
        f" Create {hero}: vehicle.tesla.model3 (1) at (" in answer["info"] and "  role_name = hero\n" in answer["info"]
    )
    assert "\nMap: Drivetown\n" in answer["info"] and answer["info"].endswith("\nFrames: 60\nDuration: 2.95 seconds\n")
    assert f" with {hero} (parent)\n" in answer["info"]
    assert f"Frame 42 at 2.05 seconds\n Destroy {recorded['late']}\n" in answer["info"]
    for title in (
        " Positions: ",
        " State traffic lights: ",
        " Vehicle animations: ",
        " Walker animations: 1",
        " Vehicle light animations: ",
        " Dynamic actors: ",
        " Actor bounding boxes: ",
        " Actor trigger volumes: ",
        " Physics Control events: ",
        " Traffic Light time events: ",
    ):
        assert title in answer["all"], title
    assert answer["all"].count("   max_rpm = ") >= 2 and "    wheel 3: tire_friction " in answer["all"]
    assert f"  Id: {other} LowBeam\n" in answer["all"] and f"  Id: {hero} Steering: 0.1 Throttle: 0.7" in answer["all"]
    crash = answer["crash"].splitlines()
    assert next(line.split() for line in crash if "audi" in line)[1:] == [
        "v", "v", str(answer["ids"][0]), "vehicle.tesla.model3", str(answer["ids"][1]), "vehicle.audi.tt"]  # fmt: skip
    assert "audi" not in answer["none"] and "spectator" in answer["blocked"]
    assert "not found on server" in answer["missing"] and answer["lost"].startswith("Replaying File: ")
    assert answer["wrong"].startswith("RuntimeError: show_recorder_collisions: unknown category")


def test_damaged_files_are_refused_and_the_server_goes_on(client, folder, recorded):
    whole = (folder / "drive.log").read_bytes()
    bad = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "text": b"hello, this is no log",
        "lengths": whole[:40] + b"\xff" * 400,
        "pickle": b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    }
    for name, data in bad.items():
        (folder / f"{name}.bad").write_bytes(data)
    (folder / "folder.bad").mkdir(exist_ok=True)
    names = [f"{name}.bad" for name in (*bad, "folder")]
    answer = client(SCENE + """
synchronous(False)
(names,) = arguments
texts = {name: [told(client.replay_file, name, 0, 0, 0), told(client.show_recorder_file_info, name, True),
                told(client.show_recorder_collisions, name, "a", "a"),
                told(client.show_recorder_actors_blocked, name, 1, 1)] for name in names}
frame = world.tick()
finish(texts=texts, ticks=world.tick() - frame)
""", names)  # fmt: skip
    assert answer["ticks"] == 1
    for name in names:
        for text in answer["texts"][name]:
            assert text.startswith("RuntimeError: ") and name in text, (name, text)
    assert "cut off" in answer["texts"]["cut.bad"][0] and "not a CARLA recorder" in answer["texts"]["text.bad"][0]


def test_names_stay_in_the_servers_folder(client, folder, recorded):
    outside = folder.parent / "outside.log"
    answer = client(SCENE + """
synchronous(False)
outside, inside = arguments
inner = client.start_recorder("deeper/inner.log")
world.tick()
client.stop_recorder()
finish(inner=inner, again=client.show_recorder_file_info(inner, False),
       absolute=told(client.start_recorder, outside), climbing=told(client.start_recorder, "../outside.log"),
       read=told(client.show_recorder_file_info, "/etc/passwd", False),
       replay=told(client.replay_file, outside, 0, 0, 0),
       nothing=told(client.start_recorder, ""), own=told(client.start_recorder, "."))
""", str(outside), str(folder))  # fmt: skip
    assert answer["inner"] == str(folder / "deeper" / "inner.log") and answer["again"].startswith("Version: ")
    for key in ("absolute", "climbing", "read", "replay"):
        assert "lies outside of this server's folder for recordings" in answer[key], answer[key]
        assert "--any-recording-path" in answer[key] and str(folder) in answer[key]
    assert "names no file" in answer["nothing"] and "names no file" in answer["own"]
    assert not outside.exists()


def test_paths(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    kept, free = Recordings(tmp_path / "in"), Recordings(tmp_path / "in", anywhere=True)
    assert kept.path("a/../b.log", "x") == tmp_path / "in" / "b.log"
    for name in ("../a", "a/../../b", "/etc/passwd", "link/secret", "\0", "", " ", ".", "a/.."):
        with pytest.raises(Refusal):
            kept.path(name, "x")
    assert free.path("/etc/hosts", "x") == Path("/etc/hosts") and free.path("../a", "x") == tmp_path / "a"


def test_a_new_episode_ends_recording_and_replay(client, folder, recorded):
    answer = client(
        SCENE
        + """
synchronous()
client.start_recorder("ended.log")
for _ in range(3):
    world.tick()
world = client.reload_world(False)
for _ in range(3):
    world.tick()
ended = client.show_recorder_file_info("ended.log", False)
client.replay_file("drive.log", 0, 0, 0)
world.tick()
world = client.reload_world(False)
for _ in range(3):
    world.tick()
finish(ended=ended, left=len(world.get_actors().filter("vehicle.*")))
"""
    )
    assert "\nFrames: 3\n" in answer["ended"] and answer["left"] == 0


def test_damaged_logs_replay_without_harm(folder, recorded):
    data, generator = (folder / "drive.log").read_bytes()[:40_000], random.Random(5)
    data = data[: data.rindex(b"\x01\x00\x00\x00\x00\x00\x18\x00\x00\x00") + 5]  # up to the end of its last whole frame
    town = Town(towns.road_network("Drivetown"), seed=0, capacity=32)
    episode = Episode(1, "Carla/Maps/Drivetown", "", town, 1)
    observer, replayed = WorldObserver(episode), 0
    before = len(episode.actors)
    for _ in range(120):
        damaged = bytearray(data)
        for _ in range(generator.randint(1, 8)):
            damaged[generator.randrange(len(damaged))] = generator.choice((0, 1, 127, 255, generator.randrange(256)))
        try:
            recording = log.RecorderFile(bytes(damaged))
        except log.UnreadableRecording:
            continue
        replayer = Replayer(lambda actor_id: episode.destroy(actor_id))
        replayer.start(recording, episode, ReplayRequest(0.0, 0.0, recorded["ids"][0], True, np.eye(4)))
        for frame in range(6):
            episode.step(0.05)
            replayer.tick(episode, 0.05)
            observer.observe(frame, 0.05, 0)
        replayer.stop(keep_actors=False)
        replayed += 1
        assert all(np.isfinite(values).all() for values in (town.state.xyz, town.state.velocity, town.state.control))
        assert len(episode.actors) == before
    assert replayed > 10


@pytest.fixture(scope="module")
def logs_server():
    if not LOGS.is_dir():
        pytest.skip(f"no real recorder logs at {LOGS}")
    try:
        towns.road_network("Town01")
    except towns.TownUnavailable as error:
        pytest.skip(f"Town01 is not to be had: {error}")
    with EmbeddedServer("Drivetown", draw_ahead=False, recordings=LOGS) as address:
        yield address


@pytest.mark.parametrize("name", ["DistanceBetweenVehicles", "DistanceToLaneCenter"])
def test_real_logs_replay_on_their_town(logs_server, run_client_at, name):
    answer = run_client_at(logs_server, SCENE + """
(name,) = arguments
synchronous()
info = [client.show_recorder_file_info(name, False), client.show_recorder_file_info(name, True),
        client.show_recorder_collisions(name, "a", "a"), client.show_recorder_actors_blocked(name, 5, 100)]
text = client.replay_file(name, 0, 0, 0)
world = client.get_world()
frames = []
for _ in range(200):
    world.tick()
    snapshot = world.get_snapshot()
    frames.append({actor.id: [actor.type_id, pose(snapshot.find(actor.id).get_transform())]
                   for actor in world.get_actors().filter("vehicle.*")})
lights = sorted([light.get_location().x, light.get_location().y, int(light.state)]
                for light in world.get_actors().filter("traffic.traffic_light"))
finish(text=text, map=world.get_map().name, frames=frames, sizes=[len(part) for part in info], lights=lights,
       refused=told(client.start_recorder, "/nowhere/x.log"))
""", f"{name}.log")  # fmt: skip
    recording = log.load(LOGS / f"{name}.log")
    assert answer["map"] == "Carla/Maps/Town01" and min(answer["sizes"]) > 60
    compared = 0
    for tick, shown in enumerate(answer["frames"]):
        time_s = min(0.05 * tick, recording.total_s)
        frame = int(np.searchsorted(recording.elapsed_s, time_s + 1e-6, "right")) - 1
        here, after = poses_of(recording, frame), poses_of(recording, min(frame + 1, len(recording) - 1))
        for actor_id, (_, now) in shown.items():
            if int(actor_id) not in here.ids or int(actor_id) not in after.ids:
                continue  # it has another id here
            xyz = here.xyz[here.ids.index(int(actor_id))]
            step = after.xyz[after.ids.index(int(actor_id))] - xyz
            span_s = float(recording.elapsed_s[min(frame + 1, len(recording) - 1)] - recording.elapsed_s[frame])
            share = (time_s - float(recording.elapsed_s[frame])) / span_s if span_s > 0.0 else 0.0
            assert np.abs(np.array(now[:3]) - (xyz + share * step)).max() < 2e-3, (tick, actor_id)
            compared += 1
    assert compared > 150, "the logged cars were there, at the logged places"
    assert len(answer["lights"]) == 36 and answer["text"].startswith("Replaying File")
    assert answer["refused"].startswith("RuntimeError: start_recorder: ")
