"""What CARLA's own smoke tests, agents and examples touch: real client, real socket, no files of CARLA's."""

from __future__ import annotations

import re

import pytest

from drivesim.carla_server import method_table
from drivesim.carla_server.embedded import EmbeddedServer
from drivesim.carla_server.server import CarlaServer


@pytest.fixture(scope="module")
def table():
    server = CarlaServer("Drivetown", port=0)
    yield method_table.method_table(server)
    server.listener.close()


def test_the_readme_has_the_table_of_the_code(table):
    readme = method_table.README.read_text(encoding="utf-8")
    again = method_table.with_table(readme, method_table.markdown(table))
    assert again == readme, "run `python -m drivesim.carla_server.method_table --write`"


def test_every_call_that_is_not_served_says_why(table):
    for name, call in table.items():
        if method_table.answer_of(call) != method_table.SERVED:
            assert call.note, name
    assert len(table) >= 129


def test_layered_maps_keep_their_names(client):
    answer = client("""
        name = world.get_map().name
        reloaded = client.reload_world().get_map().name
        listed = client.get_available_maps()
        try:
            client.load_world("Town99"); text = ""
        except RuntimeError as error:
            text = str(error)
        finish(name=name, reloaded=reloaded, listed=listed, text=text)
    """)
    assert answer["name"] == answer["reloaded"]
    assert "/Game/Carla/Maps/Town01_Opt" in answer["listed"]
    assert "Town99" in answer["text"] and "not found" in answer["text"]


def test_every_vehicle_fits_on_every_spawn_point_and_stands_as_it_was_put(client):
    answer = client("""
        synchronous()
        points = world.get_map().get_spawn_points()
        failed, crooked = [], []
        for kind in ("vehicle.mitsubishi.fusorosa", "vehicle.tesla.model3", "vehicle.bh.crossbike"):
            batch = [carla.command.SpawnActor(blueprint(kind), point) for point in points]
            results = client.apply_batch_sync(batch, False)
            failed += [result.error for result in results if result.error]
            frame = world.tick()
            snapshot = world.get_snapshot()
            assert snapshot.frame == frame
            for result, point in zip(results, points):
                seen = snapshot.find(result.actor_id).get_transform()
                pairs = [(seen.location.x, point.location.x), (seen.location.y, point.location.y),
                         (seen.rotation.pitch, point.rotation.pitch), (seen.rotation.yaw, point.rotation.yaw),
                         (seen.rotation.roll, point.rotation.roll)]
                if any(abs(a - b) > 0.005 for a, b in pairs):
                    crooked.append((kind, pairs))
            client.apply_batch_sync([carla.command.DestroyActor(result.actor_id) for result in results], True)
        finish(failed=failed, crooked=crooked[:2], points=len(points))
    """)
    assert answer["failed"] == [] and answer["crooked"] == [] and answer["points"] > 20


def test_all_props_spawn_in_one_batch(client):
    answer = client("""
        points = world.get_map().get_spawn_points()
        batch = []
        for height, prop in enumerate(world.get_blueprint_library().filter("static.prop.*")):
            point = points[height % len(points)]
            point.location.z += 100.0 * height
            batch.append(carla.command.SpawnActor(prop, point))
        results = client.apply_batch_sync(batch)
        client.apply_batch_sync([carla.command.DestroyActor(result.actor_id) for result in results])
        finish(errors=[result.error for result in results if result.error], count=len(results))
    """)
    assert answer["errors"] == [] and answer["count"] >= 30


def test_a_control_that_is_not_sticky_lasts_for_one_tick(client):
    answer = client("""
        synchronous()
        spot = world.get_map().get_spawn_points()[2]

        def drive(sticky, again):
            car = world.spawn_actor(blueprint("vehicle.tesla.model3", sticky_control=sticky), spot)
            for _ in range(10):
                world.tick()
            car.apply_control(carla.VehicleControl(throttle=1.0))
            world.tick()
            reported = car.get_control().throttle
            for _ in range(40):
                if again:
                    client.apply_batch_sync([carla.command.ApplyVehicleControl(car.id, carla.VehicleControl())])
                world.tick()
            speed = car.get_velocity().length()
            car.destroy()
            world.tick()
            return speed, reported

        finish(sticky=drive("true", False), once=drive("false", False), reset=drive("true", True))
    """)
    assert answer["sticky"][0] > 3.0 > 1.0 > answer["once"][0]
    assert answer["once"] == pytest.approx(answer["reset"], abs=1e-5) and answer["once"][1] == 1.0


def test_batches_tick_when_they_are_told_to(client):
    answer = client("""
        synchronous()
        spot = world.get_map().get_spawn_points()[0]

        def frames(tick_in_batch, tick_after):
            first = world.get_snapshot().frame
            results = client.apply_batch_sync(
                [carla.command.SpawnActor(blueprint("vehicle.audi.tt"), spot)], tick_in_batch)
            if tick_after:
                world.tick()
            last = world.get_snapshot().frame
            client.apply_batch_sync([carla.command.DestroyActor(results[0].actor_id)], True)
            return last - first

        finish(steps=[frames(False, False), frames(True, False), frames(False, True)])
    """)
    assert answer["steps"] == [0, 1, 1]


def test_the_maps_things_can_be_listed_hidden_and_hit(client):
    answer = client("""
        everything = world.get_environment_objects(carla.CityObjectLabel.Any)
        houses = world.get_environment_objects(carla.CityObjectLabel.Buildings)
        house = houses[0]
        above = house.bounding_box.location + carla.Location(z=30.0)
        below = above - carla.Location(z=60.0)

        def labels():
            world.get_weather()  # a call that is answered: the ones before it are done
            return [str(point.label) for point in world.cast_ray(above, below)]

        shown = labels()
        roof = world.ground_projection(above, 100.0)
        world.enable_environment_objects({house.id}, False)
        hidden = labels()
        world.enable_environment_objects({house.id}, True)
        again = labels()
        world.unload_map_layer(carla.MapLayer.Buildings)
        world.get_weather()
        unloaded = len(world.get_environment_objects(carla.CityObjectLabel.Buildings))
        world.load_map_layer(carla.MapLayer.Buildings)
        world.get_weather()
        names = world.get_names_of_all_objects()
        finish(shown=shown, hidden=hidden, again=again, unloaded=unloaded, houses=len(houses), names=len(set(names)),
               loaded=len(world.get_environment_objects(carla.CityObjectLabel.Buildings)), everything=len(everything),
               boxes=len(world.get_level_bbs(carla.CityObjectLabel.Buildings)), ids=len({o.id for o in everything}),
               roof=roof.location.z - house.bounding_box.location.z - house.bounding_box.extent.z,
               roads=len(world.get_environment_objects(carla.CityObjectLabel.Roads)))
    """)
    assert answer["shown"][0] == "Buildings" and answer["again"] == answer["shown"]
    assert "Buildings" not in answer["hidden"]
    assert answer["unloaded"] == 0 and answer["loaded"] == answer["houses"] == answer["boxes"] > 5
    assert answer["names"] == answer["everything"] == answer["ids"] and answer["roads"] > 5
    assert answer["roof"] == pytest.approx(0.0, abs=0.01)


def test_a_ray_meets_the_road_and_the_car_on_it(client):
    answer = client("""
        synchronous()
        spot = world.get_map().get_spawn_points()[1]
        car = world.spawn_actor(blueprint("vehicle.tesla.model3"), spot)
        for _ in range(20):
            world.tick()
        place = car.get_location()
        top = carla.Location(place.x, place.y, place.z + 10.0)
        first = world.project_point(top, carla.Vector3D(0.0, 0.0, -1.0), 50.0)
        all_of_it = world.cast_ray(top, carla.Location(place.x, place.y, place.z - 5.0))
        from_inside = world.ground_projection(place + carla.Location(z=0.5), 5.0)
        boxes = world.get_level_bbs(carla.CityObjectLabel.Car)
        up = world.project_point(top, carla.Vector3D(0.0, 0.0, 1.0), 50.0)
        car.destroy()
        finish(first=str(first.label), high=first.location.z - place.z, labels=[str(p.label) for p in all_of_it],
               inside=str(from_inside.label), cars=len(boxes), up=up is None)
    """)
    assert answer["first"] == "Car" and 1.3 < answer["high"] < 1.7
    assert answer["labels"] == ["Car", "Roads"] and answer["inside"] == "Roads"
    assert answer["cars"] == 1 and answer["up"]


def test_street_lamps_follow_the_sun_and_the_light_manager(client):
    answer = client("""
        def settled():
            synchronous(fresh=False)
            world.tick(); world.tick(); world.tick()

        def at(altitude):
            weather = world.get_weather()
            weather.sun_altitude_angle, weather.fog_density = altitude, 0.0
            world.set_weather(weather)
            settled()

        at(60.0)
        manager = world.get_lightmanager()
        lamps = manager.get_all_lights(carla.LightGroup.Street)
        day = len(manager.get_turned_on_lights(carla.LightGroup.Street))
        at(-30.0)
        night = len(manager.get_turned_on_lights(carla.LightGroup.Street))
        manager.turn_off(lamps[:3])
        settled()
        fewer = len(manager.get_turned_on_lights(carla.LightGroup.Street))
        manager.set_intensities(lamps[:1], [123.0])
        settled()
        other = carla.Client(host, port)
        other.set_timeout(20.0)
        seen = other.get_world().get_lightmanager()
        elsewhere = len(seen.get_turned_on_lights(carla.LightGroup.Street))
        bright = seen.get_intensity(lamps[:1])
        manager.set_day_night_cycle(True)
        settled()
        cycle = len(manager.get_turned_on_lights(carla.LightGroup.Street))
        finish(lamps=len(lamps), day=day, night=night, fewer=fewer, elsewhere=elsewhere, bright=bright, cycle=cycle)
    """)
    lamps = answer["lamps"]
    assert lamps > 5 and answer["day"] == 0 and answer["night"] == lamps == answer["cycle"]
    assert answer["fewer"] == answer["elsewhere"] == lamps - 3 and answer["bright"] == [123.0]


def test_textures_are_taken_and_unknown_names_passed_over(client):
    answer = client("""
        texture, floats = carla.TextureColor(4, 4), carla.TextureFloatColor(2, 2)
        for x in range(4):
            for y in range(4):
                texture.set(x, y, carla.Color(200, 10, 10, 255))
        name = world.get_environment_objects(carla.CityObjectLabel.Buildings)[0].name
        world.apply_color_texture_to_object(name, carla.MaterialParameter.Diffuse, texture)
        world.apply_float_color_texture_to_object("nothing", carla.MaterialParameter.Normal, floats)
        world.apply_textures_to_object(name, texture, floats, floats, floats)
        finish(version=client.get_server_version())
    """)
    assert answer["version"] == "0.9.16"


def test_walkers_have_carlas_bones_and_take_poses(client):
    answer = client("""
        synchronous()
        spot = world.get_map().get_spawn_points()[4]
        walker = world.spawn_actor(blueprint("walker.pedestrian.0001"), spot)
        for _ in range(20):
            world.tick()

        def hand():
            bones = {bone.name: bone for bone in walker.get_bones().bone_transforms}
            place = bones["crl_hand__R"].component.location
            return [place.x, place.y, place.z], len(bones), bones["crl_Head__C"].world.location.z

        before, count, head = hand()
        pose = carla.WalkerBoneControlIn()
        pose.bone_transforms = [("crl_arm__R", carla.Transform(carla.Location(0, 0.14, 0), carla.Rotation(pitch=90)))]
        walker.set_bones(pose)
        walker.show_pose()
        world.tick()
        shown = hand()[0]
        walker.hide_pose()
        world.tick()
        after = hand()[0]
        finish(before=before, shown=shown, after=after, count=count, names=len(walker.get_bone_names()),
               high=head - (walker.get_location().z - walker.bounding_box.extent.z), tall=walker.bounding_box.extent.z)
    """)
    assert answer["count"] == answer["names"] == 66
    assert answer["before"] == pytest.approx(answer["after"], abs=1e-5)
    assert answer["shown"][0] > answer["before"][0] + 0.3  # the arm points ahead
    assert 1.7 * answer["tall"] < answer["high"] < 2.0 * answer["tall"]


def test_components_and_wheels_have_names_and_places(client):
    answer = client("""
        synchronous()
        car = world.spawn_actor(blueprint("vehicle.audi.tt"), world.get_map().get_spawn_points()[6])
        world.tick()
        try:
            car.get_component_world_transform("no such part"); text = ""
        except RuntimeError as error:
            text = str(error)
        lamp = car.get_component_relative_transform("front-blinker-r-1").location
        finish(text=text, lamp=[lamp.x, lamp.y], bones=car.get_bone_names(), components=car.get_component_names(),
               wheels=len(car.get_vehicle_bone_world_transforms()))
    """)
    assert "no such part" in answer["text"] and "front-blinker-r-1" in answer["text"]
    assert answer["lamp"][0] > 1.5 and answer["lamp"][1] > 0.5
    assert len(answer["bones"]) == answer["wheels"] == 5 and len(answer["components"]) > 10


def test_what_is_not_served_says_so(client):
    answer = client("""
        synchronous()
        car = world.spawn_actor(blueprint("vehicle.tesla.model3"), world.get_map().get_spawn_points()[7])
        camera = world.spawn_actor(blueprint("sensor.camera.rgb"), carla.Transform(), attach_to=car)
        world.tick()
        texts = []
        for call in (lambda: camera.enable_gbuffers(True), lambda: client.load_world("nowhere"),
                     lambda: car.get_component_world_transform("x")):
            try:
                call(); texts.append("")
            except RuntimeError as error:
                texts.append(str(error))
        car.open_door(carla.VehicleDoor.All)  # accepted
        car.enable_carsim("")  # refused, but the client does not wait for the answer
        finish(texts=texts, version=client.get_server_version())
    """)
    assert all(answer["texts"]) and "enable_gbuffers" in answer["texts"][0] and answer["version"] == "0.9.16"


STRAIGHT = """<?xml version="1.0"?><OpenDRIVE><header revMajor="1" revMinor="4" name="two roads"/>
<road name="a" length="200.0" id="1" junction="-1"><link/>
<type s="0" type="town"><speed max="50" unit="km/h"/></type>
<planView><geometry s="0" x="0" y="0" hdg="0" length="200"><line/></geometry></planView>
<elevationProfile><elevation s="0" a="0" b="0.05" c="0" d="0"/></elevationProfile>
<lanes><laneSection s="0"><left><lane id="1" type="driving"><width sOffset="0" a="3.5" b="0" c="0" d="0"/>
</lane></left><center><lane id="0" type="none" level="false"/></center><right><lane id="-1" type="driving">
<width sOffset="0" a="3.5" b="0" c="0" d="0"/></lane></right></laneSection></lanes></road></OpenDRIVE>"""


def test_any_opendrive_text_becomes_a_world(client):
    answer = client(
        """
        new = client.generate_opendrive_world(arguments[0], carla.OpendriveGenerationParameters())
        town = new.get_map()
        car = new.spawn_actor(blueprint("vehicle.tesla.model3"), carla.Transform(carla.Location(50.0, 1.75, 3.0)))
        for _ in range(40):
            new.wait_for_tick()
        place = car.get_transform()
        try:
            client.generate_opendrive_world("<OpenDRIVE><nonsense/></OpenDRIVE>"); text = ""
        except RuntimeError as error:
            text = str(error)
        client.load_world("Drivetown")
        finish(name=town.name, lanes=len(town.get_topology()), z=place.location.z, pitch=place.rotation.pitch,
               text=text)
    """,
        STRAIGHT,
    )
    assert answer["name"].endswith("OpenDriveMap") and answer["lanes"] >= 1
    assert answer["z"] == pytest.approx(2.5, abs=0.3) and answer["pitch"] == pytest.approx(2.86, abs=0.2)
    assert "OpenDRIVE" in answer["text"]


def test_layers_can_be_left_out_when_a_map_is_loaded(client):
    answer = client("""
        bare = client.load_world("Drivetown", False, carla.MapLayer.Buildings)
        counts = [len(bare.get_environment_objects(label)) for label in
                  (carla.CityObjectLabel.Buildings, carla.CityObjectLabel.Vegetation)]
        client.load_world("Drivetown")
        finish(counts=counts)
    """)
    assert answer["counts"][0] > 0 and answer["counts"][1] == 0


@pytest.mark.parametrize("town", ["Town03", "Town04", "Town05", "Town07"])
def test_towns_with_slopes_load_and_hold_their_cars(town, run_client_at):
    from drivesim.town import towns

    if not any(info.installed for info in towns.list_towns() if info.name == town):
        pytest.skip(f"{town} is not installed (drivesim towns --install {town})")
    with EmbeddedServer(town, draw_ahead=False) as address:
        answer = run_client_at(
            address,
            """
            synchronous()
            points = world.get_map().get_spawn_points()
            steep = sorted(points, key=lambda point: -abs(point.rotation.pitch))[:10]
            cars = [car for car in (world.try_spawn_actor(blueprint("vehicle.tesla.model3"), p) for p in steep) if car]
            for car in cars:
                car.apply_control(carla.VehicleControl(hand_brake=True))
            for _ in range(60):
                world.tick()
            gaps = []
            for car in cars:
                place = car.get_location()
                lane = world.get_map().get_waypoint(place)
                gaps.append(abs(lane.transform.location.z - place.z))
            finish(name=world.get_map().name, gaps=gaps, cars=len(cars), points=len(points))
            """,
        )
    assert re.search(town, answer["name"]) and answer["cars"] >= 5 and answer["points"] > 50
    assert max(answer["gaps"]) < 0.5
