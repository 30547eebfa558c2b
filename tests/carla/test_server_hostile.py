"""Bytes that are no CARLA protocol, on both ports, beside a client that behaves."""

from __future__ import annotations

import contextlib
import random
import socket
import struct

import msgpack
import pytest

from drivesim.carla_server.reactor import Reactor
from drivesim.carla_server.server import CarlaServer, listen_on_neighbours


@pytest.fixture(scope="module")
def running():
    with CarlaServer("Drivetown", port=0) as server:
        yield server


def call(sock: socket.socket, method: str, *arguments: object) -> list[object]:
    sock.sendall(msgpack.packb([0, 7, method, [[False], *arguments]]))
    unpacker = msgpack.Unpacker()
    while True:
        data = sock.recv(1 << 20)
        assert data, "the server closed the connection"
        unpacker.feed(data)
        for message in unpacker:
            return list(message)


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=10.0)
    return sock


def hostile_messages(rng: random.Random) -> list[bytes]:
    deep = b"\x91" * 3000
    random_calls = [
        msgpack.packb([0, 1, method, [[False], *(rng.choice(_VALUES) for _ in range(rng.randrange(4)))]])
        for method in _METHODS
        for _ in range(6)
    ]
    return [
        b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", deep, b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xffabc", b"\x94\x00",
        b"\xc6\x7f\xff\xff\xff" + bytes(1000), msgpack.packb([0, -1, "version", []]), msgpack.packb({"a": 1}),
        msgpack.packb([0, 1, 5, 6]), msgpack.packb([0, 1, "version", "x"]), msgpack.packb([1, 2, None, 3]),
        bytes(rng.randrange(256) for _ in range(2000)), *random_calls,
    ]  # fmt: skip


_VALUES = [None, True, -1, 2**63, 1e300, float("nan"), "x" * 300, b"\x00" * 50, [], [[[[]]]], {"a": [1]}, [1, 2, 3],
           0, 1]  # fmt: skip
_METHODS = ["spawn_actor", "apply_batch", "set_actor_transform", "set_episode_settings", "destroy_actor",
            "get_actors_by_id", "apply_control_to_vehicle", "set_weather_parameters", "get_sensor_token",
            "load_new_episode", "request_file", "add_traffic_manager_running", "copy_opendrive_to_file",
            "project_point", "no_such_method"]  # fmt: skip


def test_hostile_bytes_stop_nobody(running):
    rng = random.Random(5)
    with connect(running.port) as good:
        settings = [True, False, [True, 0.05], True, 0.01, 10]
        assert call(good, "set_episode_settings", settings)[2] is None
        last = call(good, "tick_cue")[3][0][1]
        for number, message in enumerate(hostile_messages(rng)):
            if b"load_new_episode" in message:
                continue  # a well-formed one is obeyed, and would start another episode
            for port in (running.port, running.hub.port):
                with connect(port) as bad:
                    bad.sendall(message)
                    if number % 3 == 0:
                        bad.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            call(good, "set_episode_settings", settings)
            frame = call(good, "tick_cue")[3][0][1]
            assert frame > last
            last = frame
        assert call(good, "version")[3] == [[1, "0.9.16"]]


def test_malformed_arguments_are_answered_on_the_same_connection(running):
    with connect(running.port) as sock:
        for method in _METHODS[:-1]:
            answer = call(sock, method, {"wrong": "type"}, None, None, None)
            assert answer[0] == 1 and answer[1] == 7, method
        assert call(sock, "no_such_method")[2] is not None
        assert call(sock, "destroy_actor", 10**9)[3] == [[0, ["unable to destroy actor: not found"]]]
        assert call(sock, "version")[3] == [[1, "0.9.16"]]


def test_every_method_answers(running):
    """Each of the table's methods, called with nothing, gives a reply: never silence, never a closed connection."""
    left_out = {"tick_cue", "load_new_episode"}
    with connect(running.port) as sock:
        for method in sorted(set(running._table) - left_out):
            assert call(sock, method)[1] == 7, method


def test_a_reader_that_never_reads_is_dropped(running):
    with connect(running.port) as good, connect(running.hub.port) as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.sendall(struct.pack("<I", 1))
        call(good, "set_episode_settings", [True, False, [True, 0.05]])
        for _ in range(400):
            call(good, "tick_cue")
        backlog = max((connection.backlog for connection in running.hub.listener.connections), default=0)
        assert backlog <= 96 << 20


def test_the_streaming_port_is_the_neighbour_however_crowded_the_ports_are():
    reactor = Reactor()
    held = [socket.socket() for _ in range(400)]
    try:
        for number, sock in enumerate(held):  # as the outgoing connections of a busy machine would
            with contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", 33000 + 68 * number))
        for _ in range(100):
            listener, hub = listen_on_neighbours(reactor, "127.0.0.1", 0, lambda _: None)
            assert hub.port == listener.port + 1
            listener.close()
            hub.close()
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="is in use"):
            listen_on_neighbours(reactor, "127.0.0.1", taken.getsockname()[1] - 1, lambda _: None)
    finally:
        for sock in held:
            sock.close()
        reactor.close()
