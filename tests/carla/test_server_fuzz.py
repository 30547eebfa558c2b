"""Some thousand hostile messages at both ports of a server in a process of its own, beside a client that behaves."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import struct
import sys
import time
from pathlib import Path
from types import ModuleType

import msgpack
import pytest

from drivesim.carla_server.embedded import EmbeddedServer


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_server", Path(__file__).parents[2] / "tools" / "fuzz_server.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_server"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", [0, 1])
def test_hostile_messages_stop_nobody(tool, seed):
    report = tool.fuzz(3000, seed)
    assert report.died == "" and report.missed == 0, str(report)
    assert report.messages >= 3000 and report.ticks > 50 and report.snapshots > 50, str(report)
    assert report.grown_mib() < 150.0, str(report)


def test_readers_that_stall_are_not_waited_for_and_cost_bounded_memory(tool):
    with EmbeddedServer("Drivetown", draw_ahead=False) as (host, port):
        good = tool.Client(host, port)
        good.call("set_episode_settings", tool.SETTINGS)
        stalled = []
        for _ in range(60):  # ask for the map again and again, and read nothing
            sock = socket.create_connection((host, port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                sock.sendall(msgpack.packb([0, 1, "get_map_data", [[False]]]) * 500)
            stalled.append(sock)
        for _ in range(20):
            sock = socket.create_connection((host, port + 1))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(struct.pack("<I", 1))
            stalled.append(sock)
        for _ in range(200):
            asked_s = time.monotonic()
            assert good.call("tick_cue")[2] is None
            assert time.monotonic() - asked_s < 10.0
        for sock in stalled:
            sock.close()
        assert good.call("version")[3] == [[1, "0.9.16"]]


def test_silent_connections_make_room_for_others(tool):
    with EmbeddedServer("Drivetown", draw_ahead=False) as (host, port):
        first = tool.Client(host, port)
        first.call("version")
        crowd = [socket.create_connection((host, port), timeout=5.0) for _ in range(600)]
        late = tool.Client(host, port)
        assert late.call("version")[3] == first.call("version")[3] == [[1, "0.9.16"]]
        for sock in crowd:
            sock.close()
