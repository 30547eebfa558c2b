"""Long runs against the server, in parts that can be stopped and taken up again.

    python tools/soak_server.py runs --out soak            # 100 runs of 500 ticks, cameras, 30 TM vehicles; no hang
    python tools/soak_server.py alike --out soak           # three processes, one seed: the same poses
    python tools/soak_server.py hour --out soak            # one simulated hour, 50 vehicles, 30 walkers, six cameras

Every part appends what it did to `OUT/<part>.jsonl` and goes on from there. `--ticks`, `--count`, `--vehicles` and
`--cameras` shorten it; figures of a shortened run are not the whole run's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import statistics
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from drivesim.carla_server.embedded import EmbeddedServer

SIZE = (256, 144)
REPORT_TICKS = 200
HANG_S = 120.0  # without a tick: a run that hangs is killed and counted
DT_S = 0.05


# ------------------------------------------------------------------ one client, in a process of its own
def drive(host: str, port: int, wanted: dict[str, int]) -> None:
    """Drive traffic for some ticks; prints a line of JSON every REPORT_TICKS, the last one with the digest."""
    import carla

    client = carla.Client(host, port)
    client.set_timeout(120.0)
    world = client.get_world()
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, DT_S
    world.apply_settings(settings)
    world = client.reload_world(False)
    manager = client.get_trafficmanager(21000 + os.getpid() % 11000)
    manager.set_synchronous_mode(True)
    manager.set_random_device_seed(wanted["seed"])
    ids = spawn_vehicles(carla, client, world, manager, wanted["vehicles"])
    ids += spawn_walkers(carla, client, world, wanted["walkers"], wanted["seed"])
    cameras = [Camera(carla, world, ids[0], index) for index in range(wanted["cameras"])]
    digest, spans = hashlib.sha256(), []
    for tick in range(1, wanted["ticks"] + 1):
        began_s = time.perf_counter()
        frame = world.tick()
        for camera in cameras:
            camera.await_frame(frame)
        spans.append(time.perf_counter() - began_s)
        snapshot = world.get_snapshot()
        for place, number in enumerate(ids):
            actor = snapshot.find(number)
            if actor is not None:  # the Traffic Manager removes vehicles that are stuck
                at = actor.get_transform()
                digest.update(struct.pack("<i3f", place, at.location.x, at.location.y, at.rotation.yaw))
        if tick % REPORT_TICKS == 0 or tick == wanted["ticks"]:
            line = {"tick": tick, "tick_ms": round(1e3 * statistics.median(spans), 3), "digest": digest.hexdigest()}
            print("REPORT " + json.dumps(line), flush=True)
            spans.clear()
    for camera in cameras:
        camera.stop()
    manager.set_synchronous_mode(False)
    client.apply_batch_sync([carla.command.DestroyActor(number) for number in ids], True)
    settings.synchronous_mode, settings.fixed_delta_seconds = False, None
    world.apply_settings(settings)
    os._exit(0)  # the client library may abort while the interpreter ends


class Camera:
    """One rgb camera on a vehicle."""

    def __init__(self, carla: Any, world: Any, vehicle_id: int, index: int) -> None:
        blueprint = world.get_blueprint_library().find("sensor.camera.rgb")
        for name, value in zip(("image_size_x", "image_size_y"), SIZE, strict=True):
            blueprint.set_attribute(name, str(value))
        pose = carla.Transform(carla.Location(z=1.8), carla.Rotation(yaw=60.0 * index))
        vehicle = world.get_actors([vehicle_id])[0]
        self._actor = world.spawn_actor(blueprint, pose, attach_to=vehicle)
        self._pictures: queue.Queue[int] = queue.Queue()
        self._actor.listen(lambda picture: self._pictures.put(picture.frame))

    def await_frame(self, frame: int) -> None:
        """Wait for the picture of a tick; what was subscribed too late for its first picture is forgiven."""
        while self._pictures.get(timeout=60.0) < frame:
            pass

    def stop(self) -> None:
        """Stop and destroy."""
        self._actor.stop()
        self._actor.destroy()


def spawn_vehicles(carla: Any, client: Any, world: Any, manager: Any, count: int) -> list[int]:
    """Vehicles under the Traffic Manager."""
    library = [b for b in world.get_blueprint_library().filter("vehicle.*") if b.get_attribute("base_type") == "car"]
    spots = world.get_map().get_spawn_points()
    then = carla.command.SetAutopilot(carla.command.FutureActor, True, manager.get_port())
    step = max(len(spots) // count, 1)
    batch = [
        carla.command.SpawnActor(library[k % len(library)], spots[step * k % len(spots)]).then(then)
        for k in range(count)
    ]
    return [made.actor_id for made in client.apply_batch_sync(batch, True) if not made.error]


def spawn_walkers(carla: Any, client: Any, world: Any, count: int, seed: int) -> list[int]:
    """Walkers under the client's own navigation."""
    if count == 0:
        return []
    world.set_pedestrians_seed(seed)
    people = list(world.get_blueprint_library().filter("walker.pedestrian.*"))
    places = [world.get_random_location_from_navigation() for _ in range(count)]
    up = carla.Location(z=1.0)
    batch = [
        carla.command.SpawnActor(people[k % len(people)], carla.Transform(place + up))
        for k, place in enumerate(places)
        if place is not None
    ]
    ids = [made.actor_id for made in client.apply_batch_sync(batch, True) if not made.error]
    mind = world.get_blueprint_library().find("controller.ai.walker")
    minds = client.apply_batch_sync([carla.command.SpawnActor(mind, carla.Transform(), k) for k in ids], True)
    world.tick()
    for controller in world.get_actors([made.actor_id for made in minds]):
        controller.start()
        controller.go_to_location(world.get_random_location_from_navigation())
        controller.set_max_speed(1.4)
    return ids


# ------------------------------------------------------------------ the parts
class Log:
    """Lines of one part, kept over restarts."""

    def __init__(self, folder: Path, part: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{part}.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("}")]

    def add(self, **line: Any) -> None:
        """Append, on disk at once."""
        self.lines.append(line)
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def run_client(address: tuple[str, int], wanted: dict[str, int], each: Any = None) -> dict[str, Any]:
    """One client process; its last report, with `hung` or `failed` where it did not finish."""
    command = [sys.executable, __file__, "drive", *map(str, address), json.dumps(wanted)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    lines: queue.Queue[str | None] = queue.Queue()
    assert process.stdout is not None
    stdout = process.stdout
    threading.Thread(target=lambda: [*map(lines.put, stdout), lines.put(None)], daemon=True).start()
    last: dict[str, Any] = {"tick": 0}
    while True:
        try:
            line = lines.get(timeout=HANG_S)
        except queue.Empty:
            process.kill()
            return last | {"hung": True}
        if line is None:
            break
        if line.startswith("REPORT "):
            last = json.loads(line[7:])
            if each is not None:
                each(last)
    return last if last["tick"] == wanted["ticks"] else last | {"failed": process.wait()}


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    return round(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / (1 << 20), 1)


def soak_runs(options: argparse.Namespace) -> bool:
    """Many runs on one server; True where none hung or failed, and all were alike."""
    log = Log(options.out, "runs")
    wanted = _wanted(options, ticks=500, vehicles=30, walkers=0, cameras=2)
    with EmbeddedServer(options.town) as address:
        while len(log.lines) < (options.count or 100):
            log.add(run=len(log.lines), **run_client(address, wanted))
    bad = [line for line in log.lines if "hung" in line or "failed" in line]
    digests = {line["digest"] for line in log.lines if "digest" in line}
    print(f"{len(log.lines)} runs of {wanted['ticks']} ticks: {len(bad)} bad, {len(digests)} different outcome(s)")
    return not bad and len(digests) == 1


def soak_alike(options: argparse.Namespace) -> bool:
    """Some client processes with one seed, each on a server of its own; True where all poses are the same."""
    log = Log(options.out, "alike")
    wanted = _wanted(options, ticks=500, vehicles=30, walkers=0, cameras=0)
    while len(log.lines) < (options.count or 3):
        with EmbeddedServer(options.town, draw_ahead=wanted["cameras"] > 0) as address:
            log.add(process=len(log.lines), **run_client(address, wanted))
    digests = {line.get("digest") for line in log.lines}
    print(f"{len(log.lines)} processes: {len(digests)} different outcome(s)")
    return len(digests) == 1


def soak_hour(options: argparse.Namespace) -> bool:
    """One long run; True where memory stays flat and ticks do not slow down.

    A world cannot be taken up in the middle: a part that was stopped begins a stretch of its own, and the stretches
    add up to the hour.
    """
    log = Log(options.out, "hour")
    whole = options.ticks or round(3600.0 / DT_S)
    server = EmbeddedServer(options.town)
    with server as address:
        stretch = 1 + max((line["stretch"] for line in log.lines), default=-1)
        done = sum(max(n["tick"] for n in log.lines if n["stretch"] == k) for k in range(stretch))
        if done < whole:
            wanted = _wanted(options, ticks=whole - done, vehicles=50, walkers=30, cameras=6) | {"ticks": whole - done}
            pid = server.process.pid if server.process is not None else 0
            result = run_client(
                address, wanted, lambda report: log.add(stretch=stretch, server_rss_mib=rss_mib(pid), **report)
            )
            if "hung" in result or "failed" in result:
                print(f"stopped: {result}")
                return False
    return _judge_hour(log.lines)


def _judge_hour(lines: list[dict[str, Any]]) -> bool:
    early = [line for line in lines if line["tick"] > REPORT_TICKS][: max(len(lines) // 10, 1)]
    late = lines[-max(len(lines) // 10, 1) :]
    if not early:
        print("too short to judge")
        return True
    memory = [statistics.median(line["server_rss_mib"] for line in part) for part in (early, late)]
    speed = [statistics.median(line["tick_ms"] for line in part) for part in (early, late)]
    print(f"memory {memory[0]:.0f} -> {memory[1]:.0f} MiB, tick {speed[0]:.1f} -> {speed[1]:.1f} ms")
    return memory[1] < memory[0] + 60.0 and speed[1] < 1.5 * speed[0]


def _wanted(options: argparse.Namespace, **defaults: int) -> dict[str, int]:
    given = {name: getattr(options, name, None) for name in defaults}
    return {name: default if given[name] is None else given[name] for name, default in defaults.items()} | {
        "seed": options.seed
    }


def main() -> int:
    """Command line."""
    if len(sys.argv) > 2 and sys.argv[1] == "drive":
        drive(sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("runs", "alike", "hour"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--town", default="Town02")
    parser.add_argument("--seed", type=int, default=7)
    for name in ("ticks", "count", "vehicles", "walkers", "cameras"):
        parser.add_argument(f"--{name}", type=int)
    options = parser.parse_args()
    part = {"runs": soak_runs, "alike": soak_alike, "hour": soak_hour}[options.part]
    return int(not part(options))


if __name__ == "__main__":
    raise SystemExit(main())
