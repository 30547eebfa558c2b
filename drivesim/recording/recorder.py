"""Many drives, in several processes; a recording that was killed goes on with the drives that are not whole."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from drivesim.config import ConfigError, load_toml, save_toml
from drivesim.datatypes import CameraRig, default_rig
from drivesim.interfaces import Planner
from drivesim.logs import DriveLog, LogError
from drivesim.recording.config import RecordConfig
from drivesim.recording.episode import DriveSummary, record_drive
from drivesim.recording.plans import drive_name, plan_drive
from drivesim.worlds.routes import lane_map
from drivesim.worlds.town_world import TownWorld

CONFIG_FILE = "recording.toml"
Progress = Callable[[int, int, DriveSummary], None]  # drives done, drives in all, the last one
MakePlanner = Callable[[str, Path | None], Planner]  # drivesim.build.make_planner


def record(
    config: RecordConfig, out: Path, on_progress: Progress | None = None, make_planner: MakePlanner | None = None
) -> list[Path]:
    """Record `config.episodes` drives into `out`, one store each; returns their paths, in order.

    Call it again with the same config to go on after a kill, or with more `episodes` to add some.

    Args:
        make_planner: what the config's planner is made with (`drivesim.build.make_planner`); workers call it, too.

    Raises:
        ConfigError: the config is wrong, its planner cannot be made, or `out` holds another recording.
        drivesim.town.towns.UnknownTown, TownUnavailable
    """
    config.validate()
    rig = _rig(config)
    if config.planner and make_planner is None:
        raise ConfigError(f"planner {config.planner!r}: `record` was given nothing to make it with")
    _claim(config, out)
    paths = [out / drive_name(config, index) for index in range(config.episodes)]
    left = [index for index, path in enumerate(paths) if not is_whole(path)]
    done = config.episodes - len(left)
    for town in dict.fromkeys(config.towns):
        lane_map(town)  # baked once, here, and what cannot be had is said now
    for summary in _summaries(config, out, left, rig, make_planner):
        done += 1
        if on_progress is not None:
            on_progress(done, config.episodes, summary)
    return paths


def is_whole(path: Path) -> bool:
    """Whether a drive was recorded to its end."""
    if not path.exists():
        return False
    try:
        return DriveLog(path).complete
    except LogError:
        return False


def open_logs(out: Path) -> list[DriveLog]:
    """All whole drives of a recording, in order.

    Raises:
        LogError: there are none.
    """
    logs = [DriveLog(path) for path in sorted(out.glob("*.zarr")) if is_whole(path)]
    if not logs:
        raise LogError(f"no whole drive in {out}; record some with `drivesim record`")
    return logs


def _rig(config: RecordConfig) -> CameraRig | None:
    if not config.images:
        return None
    return CameraRig.load(Path(config.rig)) if config.rig else default_rig()


def _claim(config: RecordConfig, out: Path) -> None:
    """Write the config, or check that it is the one that is there."""
    file = out / CONFIG_FILE
    if file.exists():
        before = load_toml(RecordConfig, file)
        if replace(before, episodes=config.episodes, workers=config.workers) != config:
            raise ConfigError(f"{out} holds a recording of another config ({CONFIG_FILE}); give another folder")
    out.mkdir(parents=True, exist_ok=True)
    save_toml(config, file)


def _summaries(
    config: RecordConfig, out: Path, left: list[int], rig: CameraRig | None, make_planner: MakePlanner | None
) -> Any:
    if config.workers == 1 or len(left) < 2:
        for index in left:
            yield record_one(config, out, index, rig, make_planner)
        return
    with ProcessPoolExecutor(config.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(record_one, config, out, index, rig, make_planner) for index in left]
        for future in as_completed(futures):
            yield future.result()


def record_one(
    config: RecordConfig, out: Path, index: int, rig: CameraRig | None = None, make_planner: MakePlanner | None = None
) -> DriveSummary:
    """Record drive `index` (a pure function of config and index but for the wall clock)."""
    plan = plan_drive(config, index, lane_map(config.towns[index % len(config.towns)]))
    planner = None
    if config.planner and make_planner is not None:
        planner = make_planner(config.planner, Path(config.checkpoint) if config.checkpoint else None)
        if config.workers > 1 and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)  # the workers share the cores
    return record_drive(TownWorld(), plan, out / plan.name, config, rig, planner)
