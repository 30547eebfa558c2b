"""One picture of a town in several weathers, as its cameras see it.

python tools/contact_sheet.py Town10HD --seed 5 --out docs/look.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from drivesim.datatypes import Scenario, default_rig
from drivesim.recording import RecordConfig
from drivesim.recording.plans import plan_drive
from drivesim.town.render import Appearance
from drivesim.town.weather import preset
from drivesim.worlds.routes import lane_map
from drivesim.worlds.town_world import TownWorld

WEATHERS = ("ClearNoon", "WetCloudySunset", "HardRainNoon", "ClearNight")
COLUMNS = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT")


def place(town: str, seed: int) -> Scenario:
    """A random place of the town with traffic."""
    return plan_drive(RecordConfig(towns=(town,), seed=seed), 0, lane_map(town)).scenario


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("town", nargs="?", default="Town10HD")
    parser.add_argument("--out", type=Path, default=Path("docs/look.jpg"))
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    world, rig = TownWorld(), default_rig()
    world.reset(place(options.town, options.seed), options.seed)
    x, y, _ = world.town.state.xyz[world.ego_row]
    world.town.populate(30, 25, near=(float(x), float(y)), radius_m=70.0, rng=np.random.default_rng(options.seed))
    for _ in range(100):
        world.town.step(0.05)
    chosen = [[c.name for c in rig.cameras].index(name) for name in COLUMNS]
    rows = []
    for weather in WEATHERS:
        images = world.render(rig, Appearance.from_weather(preset(weather), options.seed))
        rows.append(np.concatenate([images[i] for i in chosen], axis=1))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows, axis=0)).save(options.out, quality=88)
    print(options.out)


if __name__ == "__main__":
    main()
