"""Moments of held-out drives with the next tick as it was, after something impossible and after a change of looks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import CameraRig
from drivesim.logs import DriveLog
from drivesim.models.views import ViewLayout
from drivesim.recording import TRAINING_WEATHERS
from drivesim.recording.branches import stage
from drivesim.recording.rendering import appearance_of, town_state
from drivesim.town.render import Appearance
from drivesim.town.scenery_cache import load_scenery
from drivesim.town.state import TownState
from drivesim.town.weather import preset
from drivesim.worlds.routes import lane_map
from drivesim.worlds.town_world import picture
from eval.frozen import spread
from eval.impossible import teleported, through_wall, vanished
from eval.nuisances import recoloured

PHYSICAL = ("teleported", "through_wall", "vanished", "frozen")
VISUAL = ("recoloured", "weather")
KINDS = ("normal", *PHYSICAL, *VISUAL)
MOVING_MPS = 3.0  # time that freezes shows only from a moving car
SEEN_PX, SEEN_STEP = 60, 24  # pixels that must change, by how much
LIMITS = np.array([[-8.0, -0.3], [5.0, 0.3]])  # of actions, as in training


@dataclass(frozen=True)
class Moments:
    """m moments of one drive.

    Attributes:
        views: (m, 2 + kinds, v, 72, 128, 3) uint8: the tick before, now, and the next tick in every kind.
        there: (m, kinds) whether the kind exists at the moment and is seen.
        action: (m, 2, 2) from now to the next tick and from there on; speed (m, 2) m/s now and then.
    """

    views: NDArray[np.uint8]
    there: NDArray[np.bool_]
    action: NDArray[np.float32]
    speed: NDArray[np.float32]


def looks_of(log: DriveLog, rng: np.random.Generator) -> dict[str, Appearance]:
    """The drive's own look, another palette with other paint on the cars, and another weather."""
    own, weather = appearance_of(log), town_state(log, 0).weather
    names = [name for name in TRAINING_WEATHERS if not np.allclose(preset(name), weather)]
    changed = Appearance.from_weather(preset(str(rng.choice(names))), own.seed)
    return {"own": own, "recoloured": recoloured(own, rng), "weather": changed}


def edited(
    now: TownState,
    after: TownState,
    ego_row: int,
    speed_mps: float,
    buildings: NDArray[np.float64],
    rng: np.random.Generator,
) -> dict[str, TownState | None]:
    """The next tick's state after every impossible edit but frozen time, which is the state of now."""
    return {
        "teleported": teleported(after, ego_row, rng), "through_wall": through_wall(after, ego_row, buildings),
        "vanished": vanished(after, ego_row), "frozen": now if speed_mps > MOVING_MPS else None,
    }  # fmt: skip


def moments_of(log: DriveLog, rig: CameraRig, count: int, seed: int) -> Moments:
    """Render a drive's moments: the same noise of the cameras in every kind of a next tick."""
    rng, ego_row = np.random.default_rng([seed, int(log.attrs["seed"])]), int(log.attrs["ego_row"])
    _, renderer = stage(str(log.attrs["town"]))
    network = lane_map(str(log.attrs["town"])).network
    scenery, layout, looks = load_scenery(network), ViewLayout.of(rig), looks_of(log, rng)
    buildings = scenery.solids[: len(scenery.buildings)]
    ticks = spread(np.arange(1, len(log) - 2), count)
    actions = np.clip(log.column("action"), *LIMITS).astype(np.float32)
    shape = (len(ticks), 2 + len(KINDS), len(layout.views), 72, 128, 3)
    views, there = np.zeros(shape, np.uint8), np.zeros((len(ticks), len(KINDS)), bool)
    speed = np.zeros((len(ticks), 2), np.float32)
    for m, t in enumerate(int(tick) for tick in ticks):
        frames = [log.frame(t + k) for k in (-1, 0, 1)]
        states = [town_state(log, t + k) for k in (-1, 0, 1)]
        speed[m] = frames[1].ego.speed_mps, frames[2].ego.speed_mps
        noise = int(rng.integers(1 << 31))
        for k in range(2):
            drawn = picture(renderer, states[k], ego_row, frames[k].ego.world_from_ego, rig, looks["own"], noise + k)
            views[m, k] = layout.extract(drawn)
        normal = picture(renderer, states[2], ego_row, frames[2].ego.world_from_ego, rig, looks["own"], noise + 2)
        changes = edited(states[1], states[2], ego_row, float(speed[m].min()), buildings, rng)
        for k, kind in enumerate(KINDS):
            state, look, ego = changes.get(kind, states[2]), looks.get(kind, looks["own"]), frames[2].ego
            if state is None:
                continue
            ego = frames[1].ego if kind == "frozen" else ego
            drawn = normal
            if kind != "normal":
                drawn = picture(renderer, state, ego_row, ego.world_from_ego, rig, look, noise + 2)
            step = np.abs(drawn.astype(np.int16) - normal).max(-1)
            there[m, k] = kind not in PHYSICAL or int((step > SEEN_STEP).sum()) >= SEEN_PX
            views[m, 2 + k] = layout.extract(drawn)
    return Moments(views, there, np.stack([actions[ticks], actions[ticks + 1]], axis=1), speed)


def kept_moments(log: DriveLog, rig: CameraRig, count: int, seed: int, folder: Path) -> Moments:
    """`moments_of`, rendered once and read ever after."""
    path = folder / f"{log.path.stem}-{rig.digest}-{count}-{seed}.npz"
    if not path.exists():
        made = moments_of(log, rig, count, seed)
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, views=made.views, there=made.there, action=made.action, speed=made.speed)
        partial.replace(path)
    with np.load(path, allow_pickle=False) as data:
        return Moments(data["views"], data["there"], data["action"], data["speed"])
