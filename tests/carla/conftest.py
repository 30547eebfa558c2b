"""A real server in a process of its own, and real clients in theirs (the client may abort at interpreter exit)."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from drivesim.carla_server.embedded import EmbeddedServer

pytest.importorskip("carla", reason="the carla client is not installed")

PRELUDE = """
import json, os, queue, random, socket, sys, time
import carla
host, port, arguments = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
client = carla.Client(host, port)
client.set_timeout(60.0)
world = client.get_world()

def synchronous(fresh=True):
    global world
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
    world.apply_settings(settings)
    if fresh:
        world = client.reload_world(False)
    return world

def free_port():  # for a Traffic Manager: below the range from which the system takes ports of outgoing connections
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", random.randrange(20000, 32000)))
            except OSError:
                continue
            return probe.getsockname()[1]

def blueprint(name, **attributes):
    found = world.get_blueprint_library().find(name)
    for key, value in attributes.items():
        found.set_attribute(key, str(value))
    return found

def finish(**answer):
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = False, None
    world.apply_settings(settings)
    print("ANSWER " + json.dumps(answer), flush=True)
    os._exit(0)  # the client library may abort while the interpreter ends
"""

STREET = """
import math
synchronous()
town = world.get_map()
def straight(point):
    ahead = point
    for _ in range(5):
        following = ahead.next(8.0)
        if len(following) != 1 or following[0].is_junction:
            return False
        ahead = following[0]
    return abs(ahead.transform.rotation.yaw - point.transform.rotation.yaw) % 360.0 < 1.0
spot = next(p for p in town.get_spawn_points() if straight(town.get_waypoint(p.location)))
start = town.get_waypoint(spot.location)
def at(distance):
    pose = start.next(distance)[0].transform if distance else start.transform
    pose.location.z += 0.1
    return pose
def sense(name, pose, parent=None, attachment=carla.AttachmentType.Rigid, **attributes):
    sensor = world.spawn_actor(blueprint(name, **attributes), pose, attach_to=parent, attachment_type=attachment)
    seen = queue.Queue()
    sensor.listen(seen.put)
    return sensor, seen
def close(*actors):
    for actor in actors:
        if hasattr(actor, "stop"):
            actor.stop()
        actor.destroy()
"""

Client = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """Host and port of a server of the built-in town."""
    with EmbeddedServer("Drivetown", draw_ahead=False) as address:
        yield address


def run_client(address: tuple[str, int], script: str, *arguments: Any, timeout_s: float = 240.0) -> dict[str, Any]:
    """Run a script with PRELUDE's names in another process; what it gave to `finish`."""
    code = PRELUDE + textwrap.dedent(script)
    command = [sys.executable, "-c", code, address[0], str(address[1]), json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert answers, f"the client gave no answer (exit {done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    answer: dict[str, Any] = json.loads(answers[-1][7:])
    return answer


@pytest.fixture
def client(server: tuple[str, int]) -> Client:
    """`run_client` against the module's server."""
    return lambda script, *arguments, **options: run_client(server, script, *arguments, **options)


@pytest.fixture
def street(client: Client) -> Client:
    """`client` with the names of STREET: a straight street to put things on, and sensors to listen to."""
    return lambda script, *arguments, **options: client(STREET + textwrap.dedent(script), *arguments, **options)


@pytest.fixture(scope="session")
def run_client_at() -> Client:
    """`run_client` against any address."""
    return run_client
