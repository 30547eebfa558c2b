"""The same script gives the same poses, whatever is slow: the wire, a thread of the client, or all of it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import msgpack
import pytest

from drivesim.carla_server.server import CarlaServer

TRAFFIC = """
import hashlib, struct
vehicles, ticks, pause_s = arguments
synchronous()
manager = client.get_trafficmanager(free_port())
time.sleep(0.2 + pause_s)  # it runs asynchronously so far: asks for the settings again and again
manager.set_synchronous_mode(True)
manager.set_random_device_seed(7)
library = [b for b in world.get_blueprint_library().filter("vehicle.*") if b.get_attribute("base_type") == "car"]
spots = world.get_map().get_spawn_points()
then = carla.command.SetAutopilot(carla.command.FutureActor, True, manager.get_port())
batch = [carla.command.SpawnActor(library[k % len(library)], spots[5 * k]).then(then) for k in range(vehicles)]
ids = [made.actor_id for made in client.apply_batch_sync(batch, False) if not made.error]
digest = hashlib.sha256()
for _ in range(ticks):
    world.tick()
    snapshot = world.get_snapshot()
    for place, number in enumerate(ids):
        at = snapshot.find(number).get_transform()
        digest.update(struct.pack("<i3f", place, at.location.x, at.location.y, at.rotation.yaw))
client.apply_batch_sync([carla.command.DestroyActor(number) for number in ids], True)
manager.set_synchronous_mode(False)
finish(digest=digest.hexdigest(), spawned=len(ids))
"""


class SlowWire:
    """A proxy of the calls' port that delays the answers of some methods, as a slow thread or wire would."""

    def __init__(self, port: int, delay_s: Callable[[str], float]) -> None:
        self._server_port, self._delay_s = port, delay_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._server_port))
                for sock in (client, server):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                slow: dict[int, str] = {}
                threading.Thread(target=self._forward, args=(client, server, slow), daemon=True).start()
                threading.Thread(target=self._backward, args=(server, client, slow), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, slow: dict[int, str]) -> None:
        calls = msgpack.Unpacker(raw=False, max_buffer_size=1 << 26)
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 18):
                calls.feed(data)
                for call in calls:
                    slow[call[1]] = call[2]
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    def _backward(self, server: socket.socket, client: socket.socket, slow: dict[int, str]) -> None:
        answers = msgpack.Unpacker(raw=False, max_buffer_size=1 << 26)
        lock = threading.Lock()

        def send(answer: object) -> None:
            with contextlib.suppress(OSError), lock:
                client.sendall(msgpack.packb(answer))

        with contextlib.suppress(OSError):
            while data := server.recv(1 << 18):
                answers.feed(data)
                for answer in answers:
                    delay_s = self._delay_s(slow.pop(answer[1], ""))
                    if delay_s > 0.0:
                        threading.Timer(delay_s, send, (answer,)).start()
                    else:
                        send(answer)
            client.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def running() -> Iterator[CarlaServer]:
    with CarlaServer("Drivetown", port=0) as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(running, run_client_at) -> str:
    return run_client_at(("127.0.0.1", running.port), TRAFFIC, 8, 60, 0.0)["digest"]


@pytest.mark.parametrize("late_s", [0.03, 0.15])
def test_a_manager_that_is_slow_to_leave_asynchronous_mode_steps_once(running, run_client_at, undisturbed, late_s):
    """It read its mode before the client changed it, and goes on only when the first tick's snapshot is out."""
    wire = SlowWire(running.port, lambda method: late_s if method == "get_episode_settings" else 0.0)
    for pause_s in (0.0, 0.3 * late_s, 0.6 * late_s):
        assert run_client_at(("127.0.0.1", wire.port), TRAFFIC, 8, 60, pause_s)["digest"] == undisturbed
    wire.close()


SLOW = [("get_vehicle_light_states", 3.0), ("apply_batch", 3.0), ("tick_cue", 1.0)]


@pytest.mark.parametrize(("method", "late_s"), SLOW)
def test_a_slow_step_changes_nothing(running, run_client_at, undisturbed, method, late_s):
    """Slower than the watchdog's patience, now and then; answers of ticks that a proxy withholds are beyond proof."""
    count = iter(range(10**9))
    wire = SlowWire(running.port, lambda name: late_s if name == method and next(count) % 25 == 12 else 0.0)
    assert run_client_at(("127.0.0.1", wire.port), TRAFFIC, 8, 60, 0.0)["digest"] == undisturbed
    wire.close()


STOPPED = """
import signal, threading
def stop_now_and_then():
    import subprocess
    line = f"for n in 1 2 3; do sleep 0.3; kill -STOP {os.getpid()}; sleep 2.5; kill -CONT {os.getpid()}; done"
    subprocess.Popen(["sh", "-c", line])
stop_now_and_then()
"""


def test_a_client_that_is_stopped_now_and_then_drives_the_same(running, run_client_at, undisturbed):
    kicks = running.managers.kicks
    answer = run_client_at(("127.0.0.1", running.port), STOPPED + TRAFFIC, 8, 60, 0.0)
    assert answer["digest"] == undisturbed and running.managers.kicks == kicks
    time.sleep(0.1)
