"""From a run folder (episodes, scorecard.json, manifest.json) to report.html."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from drivesim.config import ConfigError
from drivesim.datatypes import Episode, Scorecard
from drivesim.episodes import load_episode
from drivesim.reports.suite_page import About, suite_report
from drivesim.runs import code_version
from drivesim.scoring.scorecard import scorecard_from_json
from drivesim.town.roads import RoadNetwork
from drivesim.town.towns import TownUnavailable, UnknownTown, road_network

REPORT_FILE, SCORECARD_FILE, MANIFEST_FILE = "report.html", "scorecard.json", "manifest.json"


def _json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path} is cut short or no JSON ({error}): run `drivesim evaluate` again with the same --out"
        ) from error
    return value


def command_of(run: Path) -> str:
    """The command that made a run, from its config.toml; "" where there is none."""
    path = run / "config.toml"
    if not path.is_file():
        return ""
    config = tomllib.loads(path.read_text())
    planners = " ".join(f"--planner {name}" for name in config.get("planners", ()))
    carla = f" --carla {config['carla']}" if config.get("carla") else ""
    seeds = len(config.get("seeds", ()))
    return f"drivesim evaluate --suite {config.get('suite', '?')} {planners} --seeds {seeds}{carla} --out {run}"


def read_scorecard(run: Path) -> Scorecard:
    """The scorecard of a run folder.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    path = run / SCORECARD_FILE
    if not path.is_file():
        raise ConfigError(f"no {SCORECARD_FILE} in {run}: give the folder that `drivesim evaluate --out` wrote")
    try:
        return scorecard_from_json(_json(path))
    except KeyError as error:
        raise ConfigError(f"{path} lacks {error}: it was written by another version, evaluate again") from error


def read_episodes(run: Path) -> list[Episode]:
    """All whole episodes of a run folder.

    Raises:
        ConfigError: there are none.
        drivesim.episodes.EpisodeError: a file is cut short.
    """
    paths = sorted((run / "episodes").glob("*/*/*.npz"))
    if not paths:
        raise ConfigError(f"no episodes in {run}: give the folder that `drivesim evaluate --out` wrote")
    return [load_episode(path) for path in paths]


def roads_of(town: str) -> RoadNetwork | None:
    """The road network for a map, or None where the town is not to be had here."""
    try:
        return road_network(town)
    except (TownUnavailable, UnknownTown):
        return None


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write report.html into the run folder (or to `out`) and return its path.

    Raises:
        ConfigError, EpisodeError: the folder is no run, or holds damaged files.
    """
    card = read_scorecard(run)
    episodes = read_episodes(run)
    manifest = _json(run / MANIFEST_FILE) if (run / MANIFEST_FILE).is_file() else {}
    about = About(
        card.suite, str(manifest.get("started", "")).replace("T", " ").removesuffix("Z"),
        str(manifest.get("commit", code_version())), str(manifest.get("machine", "")), command_of(run),
    )  # fmt: skip
    path = out or run / REPORT_FILE
    path.write_text(suite_report(card, episodes, about, roads_of), encoding="utf-8")
    return path
