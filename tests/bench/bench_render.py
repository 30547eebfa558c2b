"""Speed of the cameras: six 256x144 views with all outputs of a town with 60 vehicles and 20 walkers, one thread.

python tests/bench/bench_render.py [--town Town02] [--frames 200]
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from drivesim.town.render import Appearance, TownRenderer, Views
from drivesim.town.state import KIND_FREE
from drivesim.town.town import Town
from drivesim.town.towns import road_network

YAWS_RAD = np.deg2rad([-55.0, 0.0, 55.0, -110.0, 180.0, 110.0])
DAY = np.array([15, 0, 0, 10, 250, 50, 2, 0, 0.2, 0, 1, 0.03, 0.0331, 0])


def six_views(x: float, y: float, z: float, yaw: float, width: int = 256, height: int = 144) -> Views:
    """Six cameras around one point, 70 degrees each."""
    rotation = np.zeros((6, 3))
    rotation[:, 2] = yaw + YAWS_RAD
    return Views(np.tile([x, y, z + 1.6], (6, 1)), rotation, np.full(6, np.deg2rad(70.0)), width, height)


def main() -> None:
    """Print the medians as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--town", default="Town02")
    parser.add_argument("--frames", type=int, default=200)
    options = parser.parse_args()
    network = road_network(options.town)
    renderer, town = TownRenderer(network), Town(network, seed=1)
    at, yaw = network.spawn_xyz_m[10], float(network.spawn_yaw_rad[10])
    ego = town.spawn("vehicle.tesla.model3", *(float(v) for v in at), yaw)
    town.populate(60, 20, near=(float(at[0]), float(at[1])), radius_m=150.0, rng=np.random.default_rng(3))
    look, wall_ms, cpu_ms = Appearance.from_weather(DAY, 0), [], []
    buffers = renderer.render(town.state, six_views(*town.state.xyz[ego], yaw), look, hide_row=ego)
    for frame in range(max(options.frames, 100)):
        town.step(0.05)
        views = six_views(*town.state.xyz[ego], float(town.state.rotation[ego, 2]))
        wall, cpu = time.perf_counter(), time.thread_time()
        renderer.render(town.state, views, look, frame_seed=frame, hide_row=ego, out=buffers)
        wall_ms.append(1e3 * (time.perf_counter() - wall))
        cpu_ms.append(1e3 * (time.thread_time() - cpu))
    print(
        json.dumps(
            {
                "render_six_256x144_ms": round(float(np.median(wall_ms)), 2),
                "render_six_256x144_cpu_ms": round(float(np.median(cpu_ms)), 2),
                "render_six_256x144_best_ms": round(float(min(wall_ms)), 2),
                "actors": int((town.state.kind != KIND_FREE).sum()),
                "frames": len(wall_ms),
                "town": options.town,
            }
        )
    )


if __name__ == "__main__":
    main()
