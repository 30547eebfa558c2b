"""The client's own Traffic Manager and AI walkers against the server; the same script gives the same poses."""

from __future__ import annotations

TRAFFIC = """
import hashlib, struct
vehicles, ticks = arguments
synchronous()
manager = client.get_trafficmanager(free_port())
manager.set_synchronous_mode(True)
manager.set_random_device_seed(7)
library = [b for b in world.get_blueprint_library().filter("vehicle.*") if b.get_attribute("base_type") == "car"]
spots = world.get_map().get_spawn_points()
then = carla.command.SetAutopilot(carla.command.FutureActor, True, manager.get_port())
batch = [carla.command.SpawnActor(library[k % len(library)], spots[5 * k]).then(then) for k in range(vehicles)]
ids = [made.actor_id for made in client.apply_batch_sync(batch, True) if not made.error]
digest, starts, frames_match = hashlib.sha256(), {}, True
for _ in range(ticks):
    frame = world.tick()
    snapshot = world.get_snapshot()
    frames_match &= snapshot.frame == frame
    for place, number in enumerate(ids):
        at = snapshot.find(number).get_transform()
        starts.setdefault(number, at.location)
        digest.update(struct.pack("<i3f", place, at.location.x, at.location.y, at.rotation.yaw))
moved = [snapshot.find(number).get_transform().location.distance(starts[number]) for number in ids]
town = world.get_map()
off = [at.distance(town.get_waypoint(at).transform.location) for at in
       (snapshot.find(number).get_transform().location for number in ids)]
client.apply_batch_sync([carla.command.DestroyActor(number) for number in ids], True)
manager.set_synchronous_mode(False)
finish(digest=digest.hexdigest(), spawned=len(ids), moved=sorted(moved), off=max(off), frames_match=frames_match)
"""


def test_traffic_manager_drives_and_repeats_itself(client):
    first = client(TRAFFIC, 10, 200)
    assert first["spawned"] == 10 and first["frames_match"]
    assert first["moved"][-1] > 20.0 and sum(way > 1.0 for way in first["moved"]) >= 7
    assert first["off"] < 1.5
    second = client(TRAFFIC, 10, 200)
    assert second["digest"] == first["digest"]


def test_two_servers_agree(client, run_client_at):
    from drivesim.carla_server.embedded import EmbeddedServer

    with EmbeddedServer("Drivetown", draw_ahead=False) as other:
        assert run_client_at(other, TRAFFIC, 6, 80)["digest"] == client(TRAFFIC, 6, 80)["digest"]


def test_ai_walkers_walk_on_sidewalks(client):
    answer = client("""
        synchronous()
        people = list(world.get_blueprint_library().filter("walker.pedestrian.*"))
        world.set_pedestrians_seed(3)
        places = [world.get_random_location_from_navigation() for _ in range(12)]
        batch = [carla.command.SpawnActor(people[k], carla.Transform(place + carla.Location(z=1.0)))
                 for k, place in enumerate(places)]
        ids = [made.actor_id for made in client.apply_batch_sync(batch, True) if not made.error]
        mind = blueprint("controller.ai.walker")
        minds = [carla.command.SpawnActor(mind, carla.Transform(), number) for number in ids]
        minds = [made.actor_id for made in client.apply_batch_sync(minds, True)]
        world.tick()
        controllers = world.get_actors(minds)
        for controller in controllers:
            controller.start()
            controller.go_to_location(world.get_random_location_from_navigation())
            controller.set_max_speed(1.4)
        before = {actor.id: actor.get_location() for actor in world.get_actors(ids)}
        for _ in range(200):
            world.tick()
        moved = [actor.get_location().distance(before[actor.id]) for actor in world.get_actors(ids)]
        town, kinds = world.get_map(), []
        for actor in world.get_actors(ids):
            kinds.append(str(town.get_waypoint(actor.get_location(), lane_type=carla.LaneType.Any).lane_type))
        speeds = [actor.get_velocity().length() for actor in world.get_actors(ids)]
        for controller in controllers:
            controller.stop(); controller.destroy()
        client.apply_batch_sync([carla.command.DestroyActor(number) for number in ids], True)
        finish(spawned=len(ids), distinct=len({(round(p.x), round(p.y)) for p in places}), moved=moved, kinds=kinds,
               speeds=speeds)
    """)
    assert answer["spawned"] >= 10 and answer["distinct"] >= 10
    assert sum(way > 5.0 for way in answer["moved"]) >= 8 and max(answer["speeds"]) > 0.8
    assert answer["kinds"].count("Driving") <= 3
