"""Sheets of small pictures: a town in several weathers, every town, every preset, every weather parameter.

python tools/contact_sheet.py street Town10HD --seed 5 --out docs/look.jpg
python tools/contact_sheet.py towns --seed 9 --out docs/towns.jpg     ('all towns': also the large maps, slowly)
python tools/contact_sheet.py presets Town10HD --out docs/presets.jpg
python tools/contact_sheet.py parameters Town10HD --out docs/weather.jpg
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from drivesim.datatypes import Scenario, default_rig
from drivesim.recording import RecordConfig
from drivesim.recording.plans import plan_drive
from drivesim.town.render import Appearance
from drivesim.town.towns import list_towns
from drivesim.town.weather import PARAMETERS, PRESETS, preset
from drivesim.worlds.routes import lane_map
from drivesim.worlds.town_world import TownWorld, rig_views

Picture = NDArray[np.uint8]
WEATHERS = ("ClearNoon", "WetCloudySunset", "HardRainNoon", "ClearNight")
COLUMNS = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT")
LARGE = ("Town11", "Town12", "Town13")
TOWN_WEATHERS = ("ClearNoon", "CloudyNoon", "WetCloudySunset", "HardRainNoon", "ClearNight")
BASE = np.array([20.0, 0, 0, 10, 60, 30, 3, 0.75, 0.1, 0, 1, 0.03, 0.0331, 0])
FOG, RAIN = {"fog_density": 60.0}, {"precipitation": 50.0}
# parameter -> values from low to high, and what must be there for it to matter
RANGES: dict[str, tuple[tuple[float, ...], dict[str, float]]] = {
    "cloudiness": ((0, 30, 60, 100), {}),
    "precipitation": ((0, 25, 60, 100), {}),
    "precipitation_deposits": ((0, 30, 60, 100), {}),
    "wind_intensity": ((0, 50, 75, 100), RAIN),
    "sun_azimuth_angle": ((0, 90, 180, 270), {}),
    "sun_altitude_angle": ((70, 20, 3, -15), {}),
    "fog_density": ((0, 20, 50, 100), {}),
    "fog_distance": ((0, 30, 75, 150), FOG),
    "fog_falloff": ((0.1, 2, 4, 8), FOG),
    "wetness": ((0, 30, 60, 100), {}),
    "scattering_intensity": ((0, 1, 2, 3), FOG),
    "mie_scattering_scale": ((0, 0.03, 0.3, 1.0), {"sun_azimuth_angle": -1.0}),
    "rayleigh_scattering_scale": ((0, 0.0331, 0.1, 0.3), {"sun_altitude_angle": 9.0}),
    "dust_storm": ((0, 30, 60, 100), {}),
}


def place(town: str, seed: int) -> Scenario:
    """A random place of the town with traffic."""
    return plan_drive(RecordConfig(towns=(town,), seed=seed), 0, lane_map(town)).scenario


def busy_world(town: str, seed: int) -> TownWorld:
    """That place after five seconds, with more traffic about."""
    world = TownWorld()
    world.reset(place(town, seed), seed)
    x, y, _ = world.town.state.xyz[world.ego_row]
    world.town.populate(30, 25, near=(float(x), float(y)), radius_m=70.0, rng=np.random.default_rng(seed))
    for _ in range(100):
        world.town.step(0.05)
    return world


def blocked(world: TownWorld) -> bool:
    """Whether one actor fills more than a tenth of the front camera."""
    rig = default_rig()
    views = rig_views(rig, world.world_from_ego)
    drawn = world.renderer.render(world.town.state, views, Appearance(), hide_row=world.ego_row)
    front = drawn.instance[[c.name for c in rig.cameras].index("CAM_FRONT")]
    return bool(np.bincount(front.ravel())[1:].max(initial=0) > 0.1 * front.size)


def shots(world: TownWorld, weather: NDArray[np.float64], seed: int, cameras: tuple[str, ...]) -> list[Picture]:
    """(h, w, 3) of the named cameras."""
    rig = default_rig()
    images = world.render(rig, Appearance.from_weather(weather, seed))
    names = [c.name for c in rig.cameras]
    return [images[names.index(name)] for name in cameras]


def labelled(picture: Picture, text: str) -> Picture:
    """The picture with a line of text in its corner."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image, "RGBA")
    left, top, right, bottom = draw.textbbox((5, 3), text)
    draw.rectangle((left - 3, top - 2, right + 3, bottom + 2), fill=(0, 0, 0, 140))
    draw.text((5, 3), text, fill=(255, 255, 255, 255))
    return np.asarray(image)


def grid(pictures: list[Picture], columns: int) -> Picture:
    """One picture of many, row by row; empty places are grey."""
    while len(pictures) % columns:
        pictures.append(np.full_like(pictures[0], 60))
    rows = [np.concatenate(pictures[i : i + columns], axis=1) for i in range(0, len(pictures), columns)]
    return np.concatenate(rows, axis=0)


def street(town: str, seed: int) -> Picture:
    """Three cameras in four weathers."""
    world = busy_world(town, seed)
    return grid([p for w in WEATHERS for p in shots(world, preset(w), seed, COLUMNS)], len(COLUMNS))


def towns(_: str, seed: int, *, large: bool = False) -> Picture:
    """The front camera of every installed town in five weathers."""
    out: list[Picture] = []
    for town in [info.name for info in list_towns() if info.installed and (large or info.name not in LARGE)]:
        for attempt in range(4):
            world = busy_world(town, seed + attempt)
            if not blocked(world):
                break
        for name in TOWN_WEATHERS:
            (picture,) = shots(world, preset(name), seed, ("CAM_FRONT",))
            out.append(labelled(picture, f"{town} {name}"))
        print(town, flush=True)
    return grid(out, len(TOWN_WEATHERS))


def presets(town: str, seed: int) -> Picture:
    """The front camera under every preset of the client."""
    world = busy_world(town, seed)
    return grid([labelled(shots(world, preset(n), seed, ("CAM_FRONT",))[0], n) for n in PRESETS], 5)


def parameters(town: str, seed: int) -> Picture:
    """The front camera along each of the 14 parameters; two parameters to a row."""
    world = busy_world(town, seed)
    out: list[Picture] = []
    for name, (values, around) in RANGES.items():
        for value in values:
            weather = BASE.copy()
            for key, number in {**around, name: value}.items():
                weather[PARAMETERS.index(key)] = number
            with_what = "".join(f", {key} {number:g}" for key, number in around.items())
            (picture,) = shots(world, weather, seed, ("CAM_FRONT",))
            out.append(labelled(picture, f"{name} {value:g}{with_what}"))
    return grid(out, 8)


SHEETS: dict[str, Callable[[str, int], Picture]] = {
    "street": street, "towns": towns, "all towns": partial(towns, large=True), "presets": presets,
    "parameters": parameters,
}  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", choices=SHEETS)
    parser.add_argument("town", nargs="?", default="Town10HD")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--quality", type=int, default=86)
    options = parser.parse_args()
    sheet = SHEETS[options.sheet](options.town, options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(options.out, quality=options.quality, optimize=True)
    print(f"{options.out}: {sheet.shape[1]}x{sheet.shape[0]}, {options.out.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
