"""Speeds, side by side in one run: `python -m eval.speed --out bench.json` (or `make bench`).

Medians over repeats on whatever machine this is; a goal beside every figure. Shared machines are noisy:
compare figures of one run, not of two.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drivesim.carla_server.embedded import EmbeddedServer
from drivesim.datatypes import (
    CameraRig,
    Control,
    EgoState,
    Frame,
    Observation,
    RouteAhead,
    Scenario,
    Waypoint,
    default_rig,
)
from drivesim.logs import DriveLog, LogHeader, LogWriter
from drivesim.models import SHIPPED, WorldModel
from drivesim.planning.latent_planner import LatentPlanner
from drivesim.recording.branches import stage
from drivesim.runs import code_version, write_json
from drivesim.town.render import Appearance
from drivesim.worlds.carla_world import CarlaWorld
from drivesim.worlds.town_world import TownWorld

GOALS = {
    "render_six_256x144_ms": ("ms", "<= 5.5 (fails above 12 on a shared machine)"),
    "closed_loop_ticks_per_s": ("ticks/s", ">= 80"),
    "closed_loop_ticks_per_s_no_cameras": ("ticks/s", ">= 300"),
    "town_ticks_per_s": ("ticks/s", ">= 2000"),
    "highway_env_ticks_per_s": ("ticks/s", ""),
    "town_over_highway_env": ("times", ""),
    "lidar_points_per_s": ("points/s", ""),
    "lidar_points_per_s_client": ("points/s", ""),
    "plan_ms_p50": ("ms", ""),
    "plan_ms_p95": ("ms", "<= 100"),
    "rollout_ms": ("ms", ""),
    "rollout_by_tensors_ms": ("ms", ""),
    "log_write_frames_per_s": ("frames/s", ""),
    "log_clips_per_s": ("clips/s", ""),
}


def busy_scenario(vehicles: int = 20, walkers: int = 10) -> Scenario:
    """A street of Town02 with Traffic Manager traffic."""
    route = (Waypoint(80.0, -105.0), Waypoint(170.0, -105.0))
    return Scenario("speed-v1", "Town02", "speed", route, 600.0, traffic_vehicles=vehicles, traffic_walkers=walkers)


def render_ms(repeats: int = 120) -> float:
    """Six 256x144 cameras, all four outputs, 60 vehicles and 20 people, one thread."""
    world = TownWorld()
    frame = world.reset(busy_scenario(0, 0), 0)
    world.town.populate(60, 20, near=None, radius_m=1e3, rng=np.random.default_rng(0))
    from drivesim.worlds.town_world import rig_views

    _, renderer = stage("Town02")
    views = rig_views(default_rig(), frame.ego.world_from_ego)
    look = Appearance()
    out = renderer.render(world.town.state, views, look)
    times = []
    for i in range(repeats):
        world.town.step(0.05)
        began = time.perf_counter()
        renderer.render(world.town.state, views, look, frame_seed=i, hide_row=world.ego_row, out=out)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def town_ticks_per_s(ticks: int = 1500) -> float:
    """The town in process with 30 vehicles and 10 walkers, no cameras."""
    world = TownWorld()
    world.reset(busy_scenario(30, 10), 0)
    for _ in range(100):
        world.town.step(0.05)
    began = time.perf_counter()
    for _ in range(ticks):
        world.town.step(0.05)
    return ticks / (time.perf_counter() - began)


def highway_env_ticks_per_s(ticks: int = 300) -> float | None:
    """A peer's step of 0.05 s with 30 other vehicles and no pictures; None where highway-env is not installed."""
    try:
        gymnasium = importlib.import_module("gymnasium")
        importlib.import_module("highway_env")  # registers its environments
    except ImportError:
        return None
    config = {"vehicles_count": 30, "simulation_frequency": 20, "policy_frequency": 20, "duration": 10**6}
    env = gymnasium.make("highway-v0", config=config, render_mode=None)
    env.reset(seed=0)
    spent_s = 0.0
    for _ in range(ticks):
        began = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(1)
        spent_s += time.perf_counter() - began
        if terminated or truncated:
            env.reset()
    env.close()
    return ticks / spent_s


def closed_loop_ticks_per_s(ticks: int = 300, rig: CameraRig | None = None) -> float:
    """Through the carla client, 20 Traffic Manager vehicles; with the rig's pictures at every tick, or without any."""
    with EmbeddedServer("Town02", draw_ahead=rig is not None) as (host, port):
        world = CarlaWorld(host, port, rig=rig, camera_period_s=0.0)
        world.reset(busy_scenario(walkers=0), 0)
        control = Control(0.0, 0.25, 0.0)
        for _ in range(60):
            world.step(control)
        rates = []
        for _ in range(3):
            began = time.perf_counter()
            for _ in range(ticks // 3):
                world.step(control)
            rates.append((ticks // 3) / (time.perf_counter() - began))
        world.close()
    return statistics.median(rates)


def lidar_points_per_s(repeats: int = 40, channels: int = 64, per_channel: int = 1000) -> float:
    """Points that come back, rays alone on one thread: Town02, 100 m, 60 vehicles and 20 people."""
    from drivesim.town.render.raycast import RayCaster

    world = TownWorld()
    world.reset(busy_scenario(0, 0), 0)
    world.town.populate(60, 20, near=None, radius_m=1e3, rng=np.random.default_rng(0))
    _, renderer = stage("Town02")
    caster = RayCaster(renderer.scene, renderer.standing)
    turn = np.linspace(-np.pi, np.pi, per_channel, endpoint=False)
    lift = np.radians(np.linspace(10.0, -30.0, channels))
    fan = [np.outer(np.cos(lift), np.cos(turn)), np.outer(np.cos(lift), np.sin(turn)), np.outer(np.sin(lift), turn**0)]
    rays = np.ascontiguousarray(np.stack(fan, axis=-1).reshape(-1, 3), np.float32)
    rates = []
    for _ in range(repeats):
        world.town.step(0.05)
        staged, origin = caster.stage(world.town.state), world.town.state.xyz[world.ego_row] + [0.0, 0.0, 2.0]
        began = time.perf_counter()
        hits = caster.cast(staged, origin, rays, 100.0, hide_row=world.ego_row)
        rates.append(float((hits.thing != -1).sum()) / (time.perf_counter() - began))
    return statistics.median(rates[1:])


def lidar_points_per_s_client(ticks: int = 60) -> float:
    """Points in the client's hands per second: one lidar of 64 channels and 1.28 million rays/s, 20 steps a second."""
    import queue

    import carla

    shape = {"channels": 64, "points_per_second": 1_280_000, "rotation_frequency": 20, "range": 100,
             "dropoff_general_rate": 0, "dropoff_zero_intensity": 0}  # fmt: skip
    with EmbeddedServer("Town02") as (host, port):
        client = carla.Client(host, port)
        client.set_timeout(120.0)
        world = client.get_world()
        settings = world.get_settings()
        settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
        world.apply_settings(settings)
        library = world.get_blueprint_library()
        places = world.get_map().get_spawn_points()[:21]
        cars = [world.try_spawn_actor(library.find("vehicle.tesla.model3"), place) for place in places]
        blueprint = library.find("sensor.lidar.ray_cast")
        for name, value in shape.items():
            blueprint.set_attribute(name, str(value))
        lidar = world.spawn_actor(blueprint, carla.Transform(carla.Location(z=2.0)), attach_to=cars[0])
        scans: queue.Queue[Any] = queue.Queue()
        lidar.listen(scans.put)
        rates = []
        for _ in range(ticks):
            began = time.perf_counter()
            world.tick()
            points = len(scans.get(timeout=120.0))
            rates.append(points / (time.perf_counter() - began))
        lidar.stop()
        lidar.destroy()
        settings.synchronous_mode = False
        world.apply_settings(settings)
    return statistics.median(rates[5:])


def street(rig: CameraRig, seed: int) -> NDArray[np.uint8]:
    """Pictures with the texture of streets, for what only moves them about."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 250, (len(rig.cameras), 18, 32, 3)).astype(np.uint8)
    fine = rng.integers(0, 4, (len(rig.cameras), 144, 256, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, 8, 8, 1), np.uint8)) + fine


def plan_ms(checkpoint: Path, plans: int = 60) -> tuple[float, float]:
    """One whole plan of the latent planner: encode six cameras, imagine, search. Median and 95th percentile."""
    rig = default_rig()
    planner = LatentPlanner(WorldModel.load(checkpoint, rig))
    planner.reset(busy_scenario(), rig, 0)
    points = np.stack([np.arange(-2.0, 62.0), np.zeros(64)], axis=1)
    route = RouteAhead(points, np.full(64, 8.3), 60.0)
    times, rng = [], np.random.default_rng(0)
    for i in range(plans + 5):
        ego = EgoState(i * 250_000, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 6.0, 0.0, 0.0)
        seen = Observation(i * 250_000, street(rig, i), ego, route)
        began = time.perf_counter()
        planner.plan(seen, None, rng)
        times.append((time.perf_counter() - began) * 1e3)
    return float(np.median(times[5:])), float(np.percentile(times[5:], 95))


def rollout_ms(checkpoint: Path, futures: tuple[int, ...] = (14, 6), repeats: int = 60) -> tuple[float, float]:
    """The rollouts of one plan, each future in one pass, and by tensor operations; in turns, medians."""
    model, rng = WorldModel.load(checkpoint), np.random.default_rng(0)
    c = model.config.predictor
    latents = rng.normal(size=(2, c.slots, c.latent_dim)).astype(np.float32)
    asked = [rng.normal(size=(count, 6, 2)) * (2.0, 0.02) for count in futures]

    def by_tensors() -> None:
        with torch.inference_mode():
            for actions in asked:
                model.imagine_tensors(torch.from_numpy(latents), 6.0, torch.from_numpy(actions).float())

    def in_one_pass() -> None:
        for actions in asked:
            model.imagine(latents, 6.0, actions)

    ways = (in_one_pass, by_tensors)
    times: list[list[float]] = [[], []]
    for _ in range(repeats + 5):
        for way, spent in zip(ways, times, strict=True):
            began = time.perf_counter()
            way()
            spent.append((time.perf_counter() - began) * 1e3)
    return float(np.median(times[0][5:])), float(np.median(times[1][5:]))


def log_rates(ticks: int = 64, clip: int = 4) -> tuple[float, float]:
    """Ticks with six cameras written per second, and random clips of four ticks read per second."""
    rig = default_rig()
    world = TownWorld()
    base = world.reset(busy_scenario(0, 0), 0)
    pictures = [street(rig, i) for i in range(8)]
    frames = [
        Frame(k * 100_000, pictures[k % 8], base.ego, base.actors, base.lights, base.route, Control(0.0, 0.5, 0.0))
        for k in range(ticks)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drive.zarr"
        began = time.perf_counter()
        with LogWriter(path, LogHeader("Town02", 0, 0.05, 0.1, rig=rig), expected_ticks=ticks) as writer:
            for frame in frames:
                writer.append(frame)
        written = ticks / (time.perf_counter() - began)
        log, rng = DriveLog(path), np.random.default_rng(0)
        starts = rng.integers(0, ticks - clip, 100)
        began = time.perf_counter()
        for start in starts:
            log.clip(int(start), clip)
        read = len(starts) / (time.perf_counter() - began)
    return written, read


def measure(checkpoint: Path, tell: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """All figures: name -> value, unit, goal."""
    figures: dict[str, float] = {}

    def add(**values: float) -> None:
        figures.update(values)
        for name, value in values.items():
            unit, goal = GOALS[name]
            tell(f"{name:<34} {value:10.2f} {unit:<9} {goal}")

    add(render_six_256x144_ms=render_ms())
    add(town_ticks_per_s=town_ticks_per_s())
    peer = highway_env_ticks_per_s()
    if peer is None:
        tell("highway-env is not installed: no ratio to it (pip install highway-env)")
    else:
        add(highway_env_ticks_per_s=peer, town_over_highway_env=figures["town_ticks_per_s"] / peer)
    add(closed_loop_ticks_per_s=closed_loop_ticks_per_s(rig=default_rig()))
    add(closed_loop_ticks_per_s_no_cameras=closed_loop_ticks_per_s(900))
    add(lidar_points_per_s=lidar_points_per_s(), lidar_points_per_s_client=lidar_points_per_s_client())
    middle, tail = plan_ms(checkpoint)
    add(plan_ms_p50=middle, plan_ms_p95=tail)
    one_pass, tensors = rollout_ms(checkpoint)
    add(rollout_ms=one_pass, rollout_by_tensors_ms=tensors)
    written, read = log_rates()
    add(log_write_frames_per_s=written, log_clips_per_s=read)
    return {
        name: {"value": round(value, 3), "unit": GOALS[name][0], "goal": GOALS[name][1]}
        for name, value in figures.items()
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    options = parser.parse_args()
    print(f"drivesim {code_version()}")
    write_json(options.out, measure(options.checkpoint, lambda line: print(line, flush=True)))
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
