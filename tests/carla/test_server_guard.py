"""Guard and watchdog: what a Traffic Manager does late, or sleeps through, changes no outcome."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import msgpack
import pytest

from drivesim.carla_server.guard import GUARD_S, KICK_S, TrafficManagers
from drivesim.carla_server.server import CarlaServer

SETTINGS = [True, False, [True, 0.05]]


class Wire:
    """A plain msgpack-rpc socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._unpacker = msgpack.Unpacker()
        self.read: list[list[object]] = []
        sock.settimeout(20.0)

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

    def step(self) -> None:
        """What a Traffic Manager sends for one step, and its next question."""
        for method in ("get_vehicle_light_states", "get_weather_parameters", "get_episode_settings"):
            self.call(method)


class Manager:
    """The rpc port of a Traffic Manager: notes what it is asked; `answers` says when to answer."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.asked: list[tuple[object, ...]] = []
        self.before: Callable[[str], None] = lambda _: None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._talk, args=(self._listener.accept()[0],), daemon=True).start()

    def _talk(self, sock: socket.socket) -> None:
        wire = Wire(sock)
        with contextlib.suppress(OSError, AssertionError):
            while True:
                _, number, method, arguments = wire.receive()
                self.asked.append((method, *arguments))  # type: ignore[misc]
                self.before(str(method))
                wire.send([1, number, None, None])

    def modes(self) -> list[object]:
        return [asked[1] for asked in list(self.asked) if asked[0] == "set_synchronous_mode"]

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def running() -> Iterator[CarlaServer]:
    with CarlaServer("Drivetown", port=0) as server:
        yield server


@pytest.fixture
def manager() -> Iterator[Manager]:
    made = Manager()
    yield made
    made.close()


@pytest.fixture
def wires(running: CarlaServer) -> Iterator[Callable[[], Wire]]:
    with contextlib.ExitStack() as stack:
        yield lambda: Wire(stack.enter_context(socket.create_connection(("127.0.0.1", running.port))))


def asleep(wire: Wire, manager: Manager, *, ticker: Wire | None = None) -> Wire:
    """Register a synchronous Traffic Manager, let it settle and make one step after a tick."""
    ticker = ticker or wire
    ticker.call("set_episode_settings", SETTINGS)
    assert wire.call("add_traffic_manager_running", ["10.0.0.1", manager.port])[3] == [[1, True]]
    wire.call("get_episode_settings")
    ticker.call("tick_cue")
    wire.step()
    return wire


def wait_for(truth: Callable[[], bool], limit_s: float = 15.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not truth():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


def test_an_overslept_manager_is_kicked_and_its_answer_held(running, manager, wires):
    client, kicks = asleep(wires(), manager), running.managers.kicks
    go = threading.Event()
    manager.before = lambda method: go.wait(10.0) if manager.modes() == [False, True] else None
    started_s = time.monotonic()
    client.call("tick_cue")  # we "sleep": no call for the light states
    wait_for(lambda: manager.modes() == [False, True])
    assert time.monotonic() - started_s > KICK_S
    client.send([0, 2, "get_vehicle_light_states", [[False]]])  # woken: the step begins, but must wait
    client.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.receive()
    go.set()
    client.sock.settimeout(20.0)
    assert client.receive()[1] == 2
    assert running.managers.kicks == kicks + 1
    client.call("destroy_traffic_manager", manager.port)


def test_a_manager_in_the_middle_of_a_slow_step_is_left_alone(running, manager, wires):
    client = asleep(wires(), manager)
    done = threading.Event()
    manager.before = lambda method: done.wait(10.0) if method == "unregister_vehicle" else None  # the step's lock
    client.call("tick_cue")
    wait_for(lambda: ("unregister_vehicle", []) in manager.asked)
    client.step()
    done.set()
    time.sleep(0.5)
    assert manager.modes() == []
    client.call("destroy_traffic_manager", manager.port)


def test_a_stopped_process_is_left_alone(running, manager, wires):
    client = asleep(wires(), manager)
    stopped = threading.Event()
    manager.before = lambda method: stopped.wait(3.0)
    client.call("tick_cue")
    wait_for(lambda: bool(manager.asked))
    time.sleep(1.0)
    client.step()  # all its threads go on at once; this one happens to come first
    stopped.set()
    time.sleep(1.0)
    assert manager.modes() == []
    client.call("destroy_traffic_manager", manager.port)


def test_a_client_that_has_not_read_its_snapshot_is_left_alone(running, manager, wires):
    client = wires()
    token = client.call("get_episode_info")[3][0][1][1][0]
    with socket.create_connection(("127.0.0.1", running.hub.port)) as world:
        world.sendall(token[:4])
        time.sleep(0.2)
        asleep(client, manager)
        client.call("tick_cue")
        wait_for(lambda: ("unregister_vehicle", []) in manager.asked)
        time.sleep(1.0)
        assert manager.modes() == [], "its snapshot lies unread: `tick()` cannot have woken its Traffic Manager"
        world.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while world.recv(1 << 20):
                pass
        wait_for(lambda: manager.modes() == [False, True])
    client.call("destroy_traffic_manager", manager.port)


def test_a_manager_on_another_client_of_the_process_is_kicked_too(running, manager, wires):
    owner, ticker = wires(), wires()
    asleep(owner, manager, ticker=ticker)
    ticker.call("tick_cue")
    wait_for(lambda: manager.modes() == [False, True])
    owner.call("destroy_traffic_manager", manager.port)


def test_a_manager_of_another_process_is_not_expected_to_follow(running, manager, wires):
    owner, stranger = asleep(wires(), manager), wires()
    owner.call("tick_cue")
    owner.step()
    for _ in range(3):
        stranger.call("tick_cue")
    time.sleep(KICK_S + 0.6)
    assert manager.asked == [asked for asked in manager.asked if asked[0] == "health_check_remote_TM"]
    owner.call("destroy_traffic_manager", manager.port)


def test_a_tick_waits_for_the_step_of_an_asynchronous_manager(running, manager, wires):
    owner, ticker = wires(), wires()
    ticker.call("set_episode_settings", SETTINGS)
    owner.call("add_traffic_manager_running", ["10.0.0.1", manager.port])
    for _ in range(6):
        owner.call("get_episode_settings")  # it spins
    stop = threading.Event()
    made = []

    def spin() -> None:
        while not stop.is_set():
            owner.call("get_episode_settings")
            time.sleep(0.001)

    for late_s in (0.0, 0.3):
        stop.clear()
        spinner = threading.Thread(target=spin)
        spinner.start()
        started_s = time.monotonic()
        if late_s:
            threading.Timer(late_s, stop.set).start()
            ticker.send([0, 1, "tick_cue", [[False]]])
            spinner.join()
            owner.step()
            spinner = threading.Thread(target=spin)
            stop.clear()
            spinner.start()
            ticker.receive()
        else:
            ticker.call("tick_cue")
        made.append(time.monotonic() - started_s)
        stop.set()
        spinner.join()
    assert made[1] > 0.3, "the tick was made before the step for the one before"
    owner.call("destroy_traffic_manager", manager.port)


def test_a_lost_manager_delays_others_only_once(running, wires):
    owner, ticker = wires(), wires()
    ticker.call("set_episode_settings", SETTINGS)
    owner.call("add_traffic_manager_running", ["10.0.0.1", 9])
    for _ in range(6):
        owner.call("get_episode_settings")
    ticker.call("tick_cue")
    started_s = time.monotonic()
    for _ in range(20):
        ticker.call("tick_cue")
    assert time.monotonic() - started_s < 10.0
    owner.call("destroy_traffic_manager", 9)


def test_the_answer_of_a_tick_waits_for_a_manager_that_just_went_to_sleep(running, manager, wires):
    client = asleep(wires(), manager)
    for _ in range(5):
        asked_s = time.monotonic()
        client.call("get_episode_settings")
        client.call("tick_cue")
        assert time.monotonic() - asked_s > GUARD_S * 0.9
        client.step()
    client.call("destroy_traffic_manager", manager.port)


def test_a_closed_connection_leaves_no_manager_behind(running, wires):
    with socket.create_connection(("127.0.0.1", running.port)) as sock:
        assert Wire(sock).call("add_traffic_manager_running", ["10.0.0.1", 4711])[3] == [[1, True]]
    client = wires()
    wait_for(lambda: client.call("is_traffic_manager_running", 4711)[3] == [[1, False]], 5.0)


def test_no_manager_costs_no_wait():
    managers = TrafficManagers(lambda action: action())
    assert managers.release_in_s(0.0) == 0.0 and managers.tick_in_s(0.0) == 0.0
