"""What stays of a client that dies: its actors unless `reap` is set, never its Traffic Manager."""

from __future__ import annotations

import pytest

from drivesim.carla_server.embedded import EmbeddedServer

DIE = """
synchronous()
port = free_port()
manager = client.get_trafficmanager(port)
manager.set_synchronous_mode(True)
car = world.spawn_actor(blueprint("vehicle.tesla.model3"), world.get_map().get_spawn_points()[0])
camera = world.spawn_actor(blueprint("sensor.other.imu"), carla.Transform(), attach_to=car)
car.set_autopilot(True, port)
made = client.apply_batch_sync([carla.command.SpawnActor(blueprint("vehicle.audi.tt"),
                                                         world.get_map().get_spawn_points()[9])], True)
for _ in range(5):
    world.tick()
print("ANSWER " + json.dumps({"made": 3, "port": port}), flush=True)
os.kill(os.getpid(), 9)
"""

LOOK = """
deadline = time.monotonic() + 10.0
while True:
    world.tick()
    left = [a.type_id for a in world.get_actors() if a.type_id.split(".")[0] in ("vehicle", "sensor")]
    if len(left) == arguments[1] or time.monotonic() > deadline:
        break
started = time.monotonic()
manager = client.get_trafficmanager(arguments[0])
manager.set_synchronous_mode(True)
for _ in range(3):
    world.tick()
finish(left=sorted(left), took_s=time.monotonic() - started)
"""


@pytest.mark.parametrize(("reap", "kept"), [(False, 3), (True, 0)])
def test_what_a_dead_client_leaves(run_client_at, reap, kept):
    with EmbeddedServer("Drivetown", draw_ahead=False, reap=reap) as address:
        died = run_client_at(address, DIE)
        assert died["made"] == 3
        answer = run_client_at(address, LOOK, died["port"], kept)
        assert len(answer["left"]) == kept
        assert answer["took_s"] < 3.5, "a dead Traffic Manager that is still registered costs four seconds"
