"""Hostile bytes at both ports, beside a client that behaves: `python tools/fuzz_server.py --messages 100000`.

Real messages of the wire with flipped bytes, wrong types, wrong lengths, cut short or doubled; raw garbage; heads that
announce gigabytes; connections that stall, vanish, or come by the hundred. Beside them one client ticks and looks at
its frame numbers, and one reads the world's stream. Prints what happened; the exit code is 1 if the server died, a tick
was missed or memory grew by more than `--grown-mib`.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from drivesim.carla_server.embedded import EmbeddedServer

SETTINGS = [True, False, [True, 0.05], True, 0.01, 10]
KEPT_CONNECTIONS, CROWD = 40, 700
AWAY = [[5000.0, 5000.0, 0.5], [0.0, 0.0, 0.0]]  # actors that a hostile client does spawn are out of the way


@dataclass
class Report:
    """What the fuzz did and saw."""

    messages: int = 0
    connections: int = 0
    ticks: int = 0
    missed: int = 0
    longest_tick_s: float = 0.0
    snapshots: int = 0
    died: str = ""
    rss_mib: list[float] = field(default_factory=list)

    def grown_mib(self) -> float:
        """Resident memory at the end, over that after the first tenth."""
        return self.rss_mib[-1] - self.rss_mib[0] if self.rss_mib else 0.0

    def __str__(self) -> str:
        first, last = (self.rss_mib[0], self.rss_mib[-1]) if self.rss_mib else (0.0, 0.0)
        return (
            f"{self.messages} messages, {self.connections} connections; {self.ticks} ticks beside them, "
            f"{self.missed} missed, longest {self.longest_tick_s * 1e3:.0f} ms; {self.snapshots} snapshots read; "
            f"memory {first:.0f} -> {last:.0f} MiB; server {'died: ' + self.died if self.died else 'alive'}"
        )


class Client:
    """A plain client that behaves."""

    def __init__(self, host: str, port: int) -> None:
        self.sock = socket.create_connection((host, port), timeout=60.0)
        self._unpacker = msgpack.Unpacker()

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """Call and wait."""
        self.sock.sendall(msgpack.packb([0, 7, method, [[False], *arguments]]))
        while True:
            data = self.sock.recv(1 << 20)
            if not data:
                raise ConnectionError("the server closed the connection of a client that behaves")
            self._unpacker.feed(data)
            for message in self._unpacker:
                return list(message)


def real_calls(client: Client) -> list[list[Any]]:
    """Calls as CARLA's client makes them, of every method that does not change what the good client relies on."""
    definition = next(d for d in client.call("get_actor_definitions")[3][0][1] if d[1] == "vehicle.tesla.model3")
    car = [definition[0], definition[1], [[a[0], a[1], a[2]] for a in definition[3]]]
    control = [0.5, 0.1, 0.0, False, False, False, 1]
    batch = [[[2, [1, control]]], [[6, [1, AWAY]]], [[0, [car, AWAY, [False], 0, "", []]]], [[1, [10**8]]]]
    return [
        ["version"], ["get_episode_info"], ["get_map_info"], ["get_map_data"], ["get_required_files", "Nav"],
        ["request_file", "x"], ["get_episode_settings"], ["get_weather_parameters"], ["get_actor_definitions"],
        ["get_actors_by_id", list(range(1, 60))], ["spawn_actor", car, AWAY], ["destroy_actor", 10**8],
        ["spawn_actor_with_parent", car, AWAY, 3, 0, ""], ["set_actor_transform", 1, AWAY], ["get_sensor_token", 1],
        ["apply_control_to_vehicle", 1, control], ["apply_batch", batch, False], ["get_vehicle_light_states"],
        ["set_weather_parameters", [10.0] * 14], ["project_point", [0.0, 0.0, 5.0], [0.0, 0.0, -1.0], 50.0],
        ["cast_ray", [0.0, 0.0, 5.0], [0.0, 0.0, -5.0]], ["get_environment_objects", 255], ["get_all_level_BBs", 7],
        ["is_traffic_manager_running", 8000], ["get_traffic_manager_running", 8000], ["query_lights_state", "a:1"],
        ["add_traffic_manager_running", ["10.0.0.1", 8000]], ["destroy_traffic_manager", 8000],
        ["get_group_traffic_lights", 1], ["set_traffic_light_state", 1, 2], ["get_physics_control", 1],
        ["apply_walker_state", 1, AWAY, 1.0], ["draw_debug_shape", [[0, [[0.0] * 3, 0.1]], [1, 2, 3], 1.0, False]],
        ["get_actor_bounding_box", 1], ["add_actor_impulse", 1, [1.0, 0.0, 0.0]], ["tick_cue"],
    ]  # fmt: skip


ODD: list[Any] = [None, True, -1, 2**63, 2**64 - 1, 1e300, float("nan"), float("inf"), "x" * 3000, b"\x00" * 50, [],
                  [[[[[]]]]], {"a": [1]}, [1, 2, 3], 0, 1, "", "\udcff", [[]] * 500, -(2**31)]  # fmt: skip
BOMBS = [b"\x91" * 5000, b"\xdd\x00\x0f\xff\xff" * 40, b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xffabc", b"\xc1" * 9,
         b"\xc6\x03\xff\xff\xff" + bytes(2000), b"\xdf\x00\x0f\xff\xff", b"GET / HTTP/1.1\r\n\r\n",
         msgpack.packb([1, 2, None, 3]), msgpack.packb({"a": 1}), b"\xc9\x00\x00\xff\xff\x01" + bytes(99)]  # fmt: skip


def warped(value: Any, rng: random.Random) -> Any:
    """A value with one of its parts exchanged, dropped or doubled."""
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        changed = [*value]
        how = rng.randrange(6)
        if how == 0:
            del changed[at]
        elif how == 1:
            changed.insert(at, changed[at])
        else:
            changed[at] = warped(changed[at], rng)
        return changed
    return rng.choice(ODD)


def hostile(calls: list[list[Any]], rng: random.Random) -> bytes:
    """One hostile message."""
    kind = rng.random()
    if kind < 0.04:
        return rng.choice(BOMBS)
    if kind < 0.10:
        return rng.randbytes(rng.choice([1, 4, 30, 500]))
    method, *arguments = rng.choice(calls)
    if method == "tick_cue" and kind > 0.2:
        method = "version"  # a few hostile ticks are enough: they cost what ticks cost
    message: list[Any] = [0, rng.randrange(1 << 32), method, [[rng.random() < 0.3], *arguments]]
    if kind < 0.60:
        changed = warped(arguments, rng)
        message[3] = [message[3][0], *(changed if isinstance(changed, list) else [changed])]
    elif kind < 0.66:
        message = warped(message, rng)
    with contextlib.suppress(ValueError, OverflowError, TypeError):
        data = bytearray(msgpack.packb(message, unicode_errors="surrogateescape"))
        if kind > 0.80:
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data[: rng.randrange(len(data))]) if kind > 0.97 else bytes(data)
    return b"\x94"


class Attack:
    """Hostile connections to both ports."""

    def __init__(self, host: str, port: int, calls: list[list[Any]], seed: int, report: Report) -> None:
        self._addresses = [(host, port), (host, port + 1)]
        self._calls, self._rng, self._report = calls, random.Random(seed), report
        self._kept: list[socket.socket] = []

    def run(self, messages: int) -> None:
        """Send so many, over connections that live for some of them each; now and then a crowd that says nothing."""
        crowd_at = self._rng.randrange(max(messages // 2, 1))
        while self._report.messages < messages and not self._report.died:
            with contextlib.suppress(OSError):
                self._one_connection(messages)
            if self._report.messages > crowd_at:
                crowd_at = messages + 1
                self._crowd()
        for sock in self._kept:
            sock.close()

    def _one_connection(self, messages: int) -> None:
        rng, report = self._rng, self._report
        calls_port = rng.random() < 0.8
        sock = socket.create_connection(self._addresses[0 if calls_port else 1], timeout=5.0)
        report.connections += 1
        sock.settimeout(0.5)
        try:
            for _ in range(min(rng.choice([1, 1, 3, 20, 100]), messages - report.messages)):
                data = hostile(self._calls, rng)
                if not calls_port and rng.random() < 0.5:
                    data = struct.pack("<I", rng.choice([0, 1, 2, 77, 1_000_001, 2**32 - 1]))
                report.messages += 1
                sock.sendall(data)
                if rng.random() < 0.1:
                    sock.recv(1 << 16)
        finally:
            if rng.random() < 0.3:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if rng.random() < 0.1:
                self._kept.append(sock)  # stalls: neither reads nor ends
                if len(self._kept) > KEPT_CONNECTIONS:
                    self._kept.pop(0).close()
            else:
                sock.close()

    def _crowd(self) -> None:
        """Hundreds of connections at once, half of them with half a message."""
        with contextlib.ExitStack() as stack:
            for number in range(CROWD):
                with contextlib.suppress(OSError):
                    sock = stack.enter_context(socket.create_connection(self._addresses[number % 2], timeout=2.0))
                    self._report.connections += 1
                    if number % 4 < 2:
                        sock.sendall(b"\x94\x00\x01\xdb\x00\x10\x00\x00" + bytes(5000))
            time.sleep(0.5)


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / (1 << 20)


def behave(host: str, port: int, attacking: threading.Thread, report: Report, target: int, pid: int) -> None:
    """Tick until the attack is over; every tick must bring a newer frame."""
    client, last = Client(host, port), -1
    token = client.call("get_episode_info")[3][0][1][1][0]
    with socket.create_connection((host, port + 1)) as world:
        world.sendall(token[:4])
        threading.Thread(target=_read_snapshots, args=(world, report), daemon=True).start()
        try:
            while attacking.is_alive():
                client.call("set_episode_settings", SETTINGS)
                asked_s = time.monotonic()
                frame = client.call("tick_cue")[3][0][1]
                report.longest_tick_s = max(report.longest_tick_s, time.monotonic() - asked_s)
                report.ticks += 1
                report.missed += not (isinstance(frame, int) and frame > last)
                last = frame
                if report.messages > target // 10:
                    report.rss_mib.append(rss_mib(pid))
                time.sleep(0.002)
        except (OSError, TypeError, IndexError) as error:
            report.died = f"{type(error).__name__}: {error}"


def _read_snapshots(world: socket.socket, report: Report) -> None:
    with contextlib.suppress(OSError, struct.error):
        stream = world.makefile("rb")
        while len(stream.read(struct.unpack("<I", stream.read(4))[0])):
            report.snapshots += 1


def fuzz(messages: int, seed: int, town: str = "Drivetown") -> Report:
    """Start a server, attack it, and report."""
    report = Report()
    server = EmbeddedServer(town, draw_ahead=False)
    sys.setswitchinterval(0.001)  # the two sides of it share this interpreter
    with server as (host, port):
        assert server.process is not None
        setup = Client(host, port)
        setup.call("set_episode_settings", SETTINGS)
        attack = Attack(host, port, real_calls(setup), seed, report)
        attacking = threading.Thread(target=attack.run, args=(messages,), daemon=True)
        attacking.start()
        behave(host, port, attacking, report, messages, server.process.pid)
        if server.process.poll() is not None:
            report.died = f"exit code {server.process.returncode}"
    return report


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--town", default="Drivetown")
    parser.add_argument("--grown-mib", type=float, default=100.0)
    options = parser.parse_args()
    report = fuzz(options.messages, options.seed, options.town)
    print(report)
    return int(bool(report.died) or report.missed > 0 or report.grown_mib() > options.grown_mib)


if __name__ == "__main__":
    raise SystemExit(main())
