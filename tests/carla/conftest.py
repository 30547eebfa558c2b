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
import json, os, queue, sys, time
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


@pytest.fixture(scope="session")
def run_client_at() -> Client:
    """`run_client` against any address."""
    return run_client
