"""The drive loop through the real client: twice the same, tidy afterwards, and a suite that goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drivesim.carla_server.embedded import EmbeddedServer
from drivesim.episodes import load_episode
from drivesim.suite import Progress, Suite, run_suite

pytest.importorskip("carla", reason="the carla client is not installed")

ROOT = Path(__file__).parents[2]

SCENARIO = """
id = "carla_world_test-v1"
town = "Drivetown"
description = "A lead that brakes, somebody who crosses, traffic around."
route = [{{ x_m = {x0}, y_m = {y0} }}, {{ x_m = {x1}, y_m = {y1} }}]
time_limit_s = {limit}
initial_speed_mps = 7.0
traffic_vehicles = 6
traffic_walkers = 2

[[actors]]
behavior = "hard_brake"
blueprint = "vehicle.audi.etron"
route_s_m = 26.0
parameters = {{ speed_mps = 7.0, gap_m = 12.0, brake_at_s_m = 45.0 }}

[[actors]]
behavior = "cross_road"
blueprint = "walker.pedestrian.0018"
route_s_m = 70.0
lateral_m = -4.5
"""

DRIVE = """
import json, os, sys
from pathlib import Path
from drivesim.build import make_controller, make_planner
from drivesim.datatypes import default_rig
from drivesim.drive import Driver, run_episode
from drivesim.episodes import episode_digest
from drivesim.suite import load_scenario
from drivesim.worlds.carla_world import CarlaWorld

host, port, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
world = CarlaWorld(host, port, rig=default_rig(), camera_period_s=0.5)
digests = []
for seed in json.loads(sys.argv[4]):
    driver = Driver(make_planner("expert"), make_controller(), default_rig())
    episode = run_episode(world, driver, load_scenario(path), seed)
    digests.append(episode_digest(episode))
world.close()
import carla
left = carla.Client(host, port).get_world()
answer = {
    "digests": digests, "end": episode.end.value, "error": episode.error, "ticks": len(episode.times_us),
    "pictures": sum(bool(snapshot.thumbnail_jpeg) for snapshot in episode.snapshots),
    "speed": episode.ego[0, 4], "driven_m": episode.progress_m[-1] - episode.progress_m[0],
    "actors": len(set(episode.actor_id.tolist())), "synchronous": left.get_settings().synchronous_mode,
    "left_over": [a.type_id for a in left.get_actors() if a.type_id.split(".")[0] in ("vehicle", "walker", "sensor")],
}
print("ANSWER " + json.dumps(answer), flush=True)
os._exit(0)
"""


def scenario_file(folder: Path, limit_s: float) -> Path:
    from drivesim.worlds.routes import lane_map, straightest

    lanes = lane_map("Drivetown")
    n = lanes.network
    for lane in (int(k) for k in n.spawn_lane):
        chain, length = [lane], float(n.lane_length_m[lane])
        while length < 110.0 and straightest(lanes, chain[-1]) >= 0:
            chain.append(straightest(lanes, chain[-1]))
            length += float(n.lane_length_m[chain[-1]])
        if length < 110.0 or n.lane_junction[chain[-1]] >= 0:
            continue
        start, goal = lanes.at(lane, 1.0), lanes.at(chain[-1], float(n.lane_length_m[chain[-1]]) - 1.0)
        path = folder / "carla_world_test-v1.toml"
        path.write_text(SCENARIO.format(x0=start.x_m, y0=-start.y_m, x1=goal.x_m, y1=-goal.y_m, limit=limit_s))
        return path
    raise AssertionError("no road of 110 m in the built-in town")


def drive(address: tuple[str, int], path: Path, seeds: list[int]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", DRIVE, address[0], str(address[1]), str(path), json.dumps(seeds)],
        capture_output=True, text=True, timeout=500, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    answers = [line[7:] for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert answers, done.stdout[-2000:] + done.stderr[-4000:]
    result: dict[str, Any] = json.loads(answers[-1])
    return result


def test_two_processes_drive_the_same_episode_bit_for_bit(tmp_path: Path) -> None:
    path = scenario_file(tmp_path, 5.0)
    with EmbeddedServer("Drivetown") as address:
        first = drive(address, path, [0, 1, 0])
        second = drive(address, path, [0])
    assert first["error"] == "" and first["end"] in ("timeout", "completed")
    assert first["digests"][0] == first["digests"][2], "again, on the same server, after another episode"
    assert first["digests"][0] == second["digests"][0], "again, in another process"
    assert first["digests"][0] != first["digests"][1], "another seed is another episode"
    assert first["pictures"] >= 5 and first["actors"] >= 4
    assert first["speed"] == pytest.approx(7.0, rel=0.1) and first["driven_m"] > 10.0
    assert first["left_over"] == [] and not first["synchronous"], "the server is left as it was found"


def test_a_suite_goes_on_where_it_was(tmp_path: Path) -> None:
    path = scenario_file(tmp_path, 3.0)
    suite, out, told = Suite("test", (str(path),)), tmp_path / "run", []

    def tell(progress: Progress) -> None:
        told.append(progress)

    card = run_suite(suite, ["constant-velocity", "expert"], [0, 1], out=out, workers=1, on_progress=tell)
    assert not card.missing and len(card.outcomes) == 4 and not any(p.resumed for p in told)
    assert told[-1].done == told[-1].total == 4
    kept = out / "episodes" / "carla_world_test-v1" / "expert" / "0.npz"
    lost = out / "episodes" / "carla_world_test-v1" / "expert" / "1.npz"
    lost.write_bytes(lost.read_bytes()[:500])  # as if killed half-way
    before, told[:] = kept.stat().st_mtime_ns, []
    again = run_suite(suite, ["constant-velocity", "expert"], [0, 1], out=out, workers=1, on_progress=tell)
    assert kept.stat().st_mtime_ns == before and sum(p.resumed for p in told) == 3
    assert again.outcomes == card.outcomes or {o.end for o in again.outcomes} == {o.end for o in card.outcomes}
    assert load_episode(lost).key == ("carla_world_test-v1", "expert", 1)
    assert json.loads((out / "scorecard.json").read_text())["planners"]["expert"]["driving_score"]["n"] == 2


def test_an_episode_that_cannot_be_driven_is_missing_not_forgotten(tmp_path: Path) -> None:
    path = scenario_file(tmp_path, 3.0)
    blocked = '\n[[actors]]\nbehavior = "parked"\nroute_s_m = 6.0\n'
    path.write_text(path.read_text() + blocked)  # it stands where the ego is to start
    card = run_suite(Suite("test", (str(path),)), ["constant-velocity"], [0], out=tmp_path / "run", workers=1)
    assert card.missing == (("carla_world_test-v1", "constant-velocity", 0),)
    assert card.planners["constant-velocity"]["driving_score"].mean == 0.0
    assert "no room" in (tmp_path / "run" / "failures.json").read_text()
