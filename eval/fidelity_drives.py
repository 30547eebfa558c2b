"""The drives of the fidelity study: where they start, and each planner from there in the embedded town."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from drivesim.build import make_controller
from drivesim.datatypes import Episode, default_rig
from drivesim.drive import PLAN_PERIOD_S, Driver, run_episode
from drivesim.episodes import EpisodeError, load_episode, save_episode
from drivesim.interfaces import Planner
from drivesim.logs import DriveLog
from drivesim.logs.truth import readouts
from drivesim.models import SHIPPED
from drivesim.suite.files import Job
from drivesim.suite.imagined import LoggedWorld
from drivesim.suite.trust import start_of
from drivesim.town.state import TownState
from drivesim.worlds.resumed_town import ResumedTown, TownStart

NEAR_M = 25.0
NEVER_S = 1e9


def eventful(world: LoggedWorld, scenario_id: str) -> bool:
    """Whether within the drive's time a lead is near, a light is closed or somebody walks ahead: by the log's truth."""
    log_name, k = start_of(scenario_id)
    for frame in world.drives[log_name].frames[k : k + world.config.steps + 1]:
        seen = readouts(frame)
        near = seen["lead_present"] > 0.5 and seen["lead_gap"] < NEAR_M
        if near or seen["red_light"] > 0.5 or seen["walker_ahead"] > 0.5:
            return True
    return False


def choose_starts(world: LoggedWorld, count: int, share: float) -> None:
    """Keep `count` starts, `share` of them eventful where there are so many, each kind spread over all logs.

    On an empty road planners differ by their speed alone, and any world without eyes ranks them. They come town by
    town, since a town's scenery takes longer to make than to drive through.
    """
    busy = [i for i in world.starts if eventful(world, i)]
    calm = [i for i in world.starts if i not in set(busy)]
    wanted = min(round(share * count), len(busy))
    rest = min(count - wanted, len(calm))
    kept = set(_spread(busy, min(count - rest, len(busy))) + _spread(calm, rest))
    order = sorted(kept, key=lambda i: (world.starts[i].scenario.town, i))
    world.starts = {i: world.starts[i] for i in order}


def _spread(items: list[str], count: int) -> list[str]:
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, count).round()] if count else []


def town_starts(world: LoggedWorld) -> dict[str, TownStart]:
    """The same moments in the embedded town; each state is read once."""
    found = {}
    for scenario_id, start in world.starts.items():
        log_name, k = start_of(scenario_id)
        log, tick = world.logs[log_name], int(world.drives[log_name].ticks[k])

        @cache
        def state(log: DriveLog = log, tick: int = tick) -> TownState:
            return log.state(tick, TownState)

        found[scenario_id] = TownStart(
            start.scenario, state, int(log.attrs["ego_row"]), start.route, start.s_m,
            int(log.attrs.get("appearance_seed", 0) or 0),
        )  # fmt: skip
    return found


def weights_of(checkpoint: Path | None) -> str:
    """Sixteen hex digits of a checkpoint's file: heads and predictor too, which `WorldModel.digest` leaves out."""
    return hashlib.sha256((checkpoint or SHIPPED).read_bytes()).hexdigest()[:16]


def drive_truly(
    starts: dict[str, TownStart], name: str, make: Callable[[], Planner], out: Path, weights: str, goal_m: float
) -> list[Episode]:
    """One planner from all starts in the embedded town, with cameras only where it looks; what is there is read.

    Args:
        weights: of the world model; only who drives by it has to drive again when they change.
        goal_m: of the starts' routes.

    Raises:
        RuntimeError: a planner failed.
    """
    planner = make()
    stamp = f"goal {goal_m:g} m" + (f", weights {weights}" if hasattr(planner, "model") else "")
    town = ResumedTown(
        starts, default_rig() if planner.needs_images else None,
        camera_period_s=PLAN_PERIOD_S if planner.needs_images else NEVER_S,
    )  # fmt: skip
    episodes = []
    for start in starts.values():
        path = Job(start.scenario, name, 0).path(out)
        episode = _kept(path, start, stamp)
        if episode is None:
            driven = run_episode(town, Driver(planner, make_controller(), default_rig()), start.scenario, 0)
            if driven.error:
                raise RuntimeError(f"{name} from {start.scenario.id}: {driven.error}")
            episode = replace(driven, planner=name, provenance=driven.provenance | {"study": stamp})
            save_episode(episode, path)
        episodes.append(episode)
    return episodes


def _kept(path: Path, start: TownStart, stamp: str) -> Episode | None:
    """An episode that was driven before from the same start with the same weights."""
    if not path.is_file():
        return None
    try:
        found = load_episode(path)
    except EpisodeError:
        return None
    return found if found.scenario == start.scenario and found.provenance.get("study") == stamp else None


def seconds_of(episodes: Sequence[Episode]) -> float:
    """Simulated seconds."""
    return float(sum((e.times_us[-1] - e.times_us[0]) * 1e-6 for e in episodes))


def wall_of(episodes: Sequence[Episode]) -> float:
    """Seconds that driving them took, planning included."""
    return max(sum(float(episode.provenance.get("wall_s", 0.0)) for episode in episodes), 1e-6)
