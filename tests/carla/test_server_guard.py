"""The watchdog: a Traffic Manager that misses its wake-up is woken over its own port, and its outcome is unchanged."""

from __future__ import annotations

import socket
import time

import msgpack
import pytest

from drivesim.carla_server.guard import GUARD_S, KICK_S, TrafficManagers
from drivesim.carla_server.server import CarlaServer


class Wire:
    """A plain msgpack-rpc socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._unpacker = msgpack.Unpacker()
        self.read: list[list[object]] = []
        sock.settimeout(5.0)

    def send(self, message: object) -> None:
        self.sock.sendall(msgpack.packb(message))

    def receive(self) -> list[object]:
        while not self.read:
            data = self.sock.recv(1 << 20)
            assert data, "closed"
            self._unpacker.feed(data)
            self.read += [list(message) for message in self._unpacker]
        return self.read.pop(0)

    def call(self, method: str, *arguments: object) -> list[object]:
        self.send([0, 1, method, [[False], *arguments]])
        return self.receive()


@pytest.fixture(scope="module")
def running():
    with CarlaServer("Drivetown", port=0) as server:
        yield server


def test_an_overslept_manager_is_kicked_and_its_answer_held(running):
    server = ("127.0.0.1", running.port)
    with socket.create_server(("127.0.0.1", 0)) as manager, socket.create_connection(server) as sock:
        client = Wire(sock)
        client.call("set_episode_settings", [True, False, [True, 0.05]])
        assert client.call("add_traffic_manager_running", ["10.0.0.1", manager.getsockname()[1]])[3] == [[1, True]]
        client.call("tick_cue")
        client.call("get_vehicle_light_states")  # a step, so that steps are expected from now on
        client.call("get_episode_settings")
        started_s = time.monotonic()
        client.call("tick_cue")
        manager.settimeout(5.0)
        kick = Wire(manager.accept()[0])  # we "sleep": no call for the light states
        assert KICK_S * 0.9 < time.monotonic() - started_s < KICK_S + 1.0
        alive = kick.receive()
        assert alive[2:] == ["health_check_remote_TM", []]
        kick.send([1, alive[1], None, None])
        first = kick.receive()
        assert first[2:] == ["set_synchronous_mode", [False]]
        client.send([0, 2, "get_vehicle_light_states", [[False]]])  # woken: the step begins, but must wait
        kick.send([1, first[1], None, None])
        second = kick.receive()
        assert second[2:] == ["set_synchronous_mode", [True]]
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.receive()
        kick.send([1, second[1], None, None])
        client.sock.settimeout(5.0)
        assert client.receive()[1] == 2
        assert running.managers.kicks == 1
        client.call("destroy_traffic_manager", manager.getsockname()[1])
        kick.sock.close()


def test_a_manager_that_was_only_slow_is_left_alone(running):
    server = ("127.0.0.1", running.port)
    with socket.create_server(("127.0.0.1", 0)) as manager, socket.create_connection(server) as sock:
        client, before = Wire(sock), running.managers.kicks
        client.call("set_episode_settings", [True, False, [True, 0.05]])
        client.call("add_traffic_manager_running", ["10.0.0.1", manager.getsockname()[1]])
        client.call("tick_cue")
        client.call("get_vehicle_light_states")
        client.call("get_episode_settings")
        client.call("tick_cue")
        manager.settimeout(5.0)
        probe = Wire(manager.accept()[0])
        assert probe.receive()[2] == "health_check_remote_TM"
        client.call("get_vehicle_light_states")  # it steps by itself, late
        probe.send([1, 1, None, None])
        assert probe.sock.recv(100) == b""  # the watchdog hangs up without a word
        assert running.managers.kicks == before
        client.call("destroy_traffic_manager", manager.getsockname()[1])
        probe.sock.close()


def test_the_answer_of_a_tick_waits_for_a_manager_that_just_went_to_sleep(running):
    with socket.create_connection(("127.0.0.1", running.port)) as sock:
        client = Wire(sock)
        client.call("set_episode_settings", [True, False, [True, 0.05]])
        client.call("add_traffic_manager_running", ["10.0.0.1", 9])
        for _ in range(5):
            asked_s = time.monotonic()
            client.call("get_episode_settings")
            client.call("tick_cue")
            assert time.monotonic() - asked_s > GUARD_S * 0.9


def test_a_closed_connection_leaves_no_manager_behind(running):
    with socket.create_connection(("127.0.0.1", running.port)) as sock:
        assert Wire(sock).call("add_traffic_manager_running", ["10.0.0.1", 4711])[3] == [[1, True]]
    with socket.create_connection(("127.0.0.1", running.port)) as sock:
        client = Wire(sock)
        deadline_s = time.monotonic() + 5.0
        while client.call("is_traffic_manager_running", 4711)[3] != [[1, False]]:
            assert time.monotonic() < deadline_s


def test_no_manager_costs_no_wait():
    assert TrafficManagers(lambda action: action()).release_in_s(0.0) == 0.0
