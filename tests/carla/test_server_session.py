"""Connecting, maps, settings, ticks, weather, lights, errors: the unmodified client over a real socket."""

from __future__ import annotations

import socket

import pytest

from drivesim.carla_server.server import CarlaServer


def test_connects_and_reads_the_map(client):
    answer = client("""
        town = world.get_map()
        finish(version=client.get_server_version(), name=town.name, points=len(town.get_spawn_points()),
               topology=len(town.get_topology()), maps=len(client.get_available_maps()),
               blueprints=len(world.get_blueprint_library()), opendrive=len(town.to_opendrive()))
    """)
    assert answer["version"] == "0.9.16" and answer["name"].endswith("Drivetown")
    assert answer["points"] > 20 and answer["topology"] > 20 and answer["maps"] >= 12
    assert answer["blueprints"] > 100 and answer["opendrive"] > 1000


def test_the_ticked_frame_is_the_snapshots_frame(client):
    answer = client("""
        synchronous()
        pairs = []
        for _ in range(50):
            frame = world.tick()
            snapshot = world.get_snapshot()
            pairs.append((frame, snapshot.frame, snapshot.timestamp.delta_seconds))
        finish(pairs=pairs, elapsed=world.get_snapshot().timestamp.elapsed_seconds)
    """)
    assert all(ticked == seen and abs(delta - 0.05) < 1e-6 for ticked, seen, delta in answer["pairs"])
    frames = [frame for frame, _, _ in answer["pairs"]]
    assert frames == list(range(frames[0], frames[0] + 50))
    assert 2.5 - 1e-6 <= answer["elapsed"] <= 2.7


def test_asynchronous_mode_ticks_by_itself(client):
    answer = client("""
        first = world.wait_for_tick().frame
        later = [world.wait_for_tick().frame for _ in range(10)]
        finish(first=first, later=later)
    """)
    assert answer["later"][-1] > answer["first"]


def test_a_vehicle_spawns_drives_and_dies(client):
    answer = client("""
        synchronous()
        spot = world.get_map().get_spawn_points()[3]
        car = world.spawn_actor(blueprint("vehicle.tesla.model3", role_name="hero", color="1,2,3"), spot)
        world.tick()
        start = car.get_location()
        blocked = world.try_spawn_actor(blueprint("vehicle.tesla.model3"), spot) is None
        try:
            world.spawn_actor(blueprint("vehicle.tesla.model3"), spot); text = ""
        except RuntimeError as error:
            text = str(error)
        car.apply_control(carla.VehicleControl(throttle=0.8))
        for _ in range(60):
            world.tick()
        moved, speed = car.get_location().distance(start), car.get_velocity().length()
        throttle = car.get_control().throttle
        near, attributes, listed = start.distance(spot.location), dict(car.attributes), len(world.get_actors([car.id]))
        car.destroy(); world.tick()
        finish(near=near, moved=moved, speed=speed, throttle=throttle, blocked=blocked, text=text, listed=listed,
               attributes=attributes, left=len(world.get_actors().filter("vehicle.*")))
    """)
    assert answer["near"] < 1.0 and answer["moved"] > 8.0 and answer["speed"] > 5.0
    assert answer["throttle"] == pytest.approx(0.8) and answer["blocked"]
    assert answer["text"] == "Spawn failed because of collision at spawn position"
    assert answer["attributes"]["role_name"] == "hero" and answer["attributes"]["color"] == "1,2,3"
    assert answer["listed"] == 1 and answer["left"] == 0


def test_weather_lights_and_teleports_read_back(client):
    answer = client("""
        synchronous()
        world.set_weather(carla.WeatherParameters(cloudiness=12.5, fog_density=33.0, sun_altitude_angle=-10.0))
        light = list(world.get_actors().filter("traffic.traffic_light"))[0]
        light.set_state(carla.TrafficLightState.Yellow); light.set_green_time(7.0); light.freeze(True)
        car = world.spawn_actor(blueprint("vehicle.audi.tt"), world.get_map().get_spawn_points()[0])
        goal = world.get_map().get_spawn_points()[9]
        car.set_transform(goal); car.set_light_state(carla.VehicleLightState(5))
        world.tick()
        weather = world.get_weather()
        got = (weather.cloudiness, weather.fog_density, weather.sun_altitude_angle)
        answer = dict(weather=got, state=str(light.state), green=light.get_green_time(), frozen=light.is_frozen(),
                      off=car.get_location().distance(goal.location), group=len(light.get_group_traffic_lights()),
                      stops=len(light.get_stop_waypoints()), lamps=int(car.get_light_state()))
        car.destroy(); light.freeze(False)
        finish(**answer)
    """)
    assert answer["weather"] == pytest.approx([12.5, 33.0, -10.0])
    assert answer["state"] == "Yellow" and answer["green"] == 7.0 and answer["frozen"]
    assert answer["off"] < 1.5 and answer["group"] >= 1 and answer["stops"] >= 1 and answer["lamps"] == 5


def test_errors_are_texts_never_casts(client):
    answer = client("""
        texts = []
        def refused(call, *arguments):
            try:
                call(*arguments); texts.append("")
            except RuntimeError as error:
                texts.append(str(error))
        refused(client.load_world, "Town99")
        refused(client.start_recorder, "/x.log")
        refused(client.replay_file, "../x.log", 0, 0, 0)
        refused(client.generate_opendrive_world, "<OpenDRIVE>nonsense")
        finish(texts=texts, alive=client.get_server_version())
    """)
    town, recorder, replay, opendrive = answer["texts"]
    assert "Town99" in town and "Town01" in town and "start_recorder" in recorder and "replay_file" in replay
    assert "OpenDRIVE" in opendrive and answer["alive"] == "0.9.16"
    assert not any("bad_cast" in text or "rpc_error" in text for text in answer["texts"])


def test_a_users_opendrive_becomes_a_world(client):
    answer = client("""
        text = world.get_map().to_opendrive()
        fresh = client.generate_opendrive_world(text)
        name = fresh.get_map().name
        world = client.load_world("Drivetown")
        finish(name=name, back=world.get_map().name)
    """)
    assert answer["name"].endswith("OpenDriveMap") and answer["back"].endswith("Drivetown")


def test_a_port_in_use_says_so():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} on 127.0.0.1 is in use"):
            CarlaServer("Drivetown", port=port)
