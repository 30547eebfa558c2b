"""Recording: plans by seed, resuming, what is refused, and that a log holds what a branch needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drivesim.build import make_planner
from drivesim.config import ConfigError
from drivesim.logs import MODE_PLANNER, MODE_RISKY, DriveLog
from drivesim.recording import RecordConfig, log_statistics, open_logs, record
from drivesim.recording.drivers import draw_style
from drivesim.recording.plans import plan_drive
from drivesim.town.state import TownState
from drivesim.town.town import Town
from drivesim.town.towns import UnknownTown
from drivesim.worlds.routes import lane_map, plan_route

CONFIG = RecordConfig(towns=("Drivetown",), episodes=2, seconds=3.0, period_s=0.5, images=False, route_m=200.0, seed=3)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recording")
    record(CONFIG, out)
    return out


def test_a_drive_is_a_function_of_config_and_index() -> None:
    lanes = lane_map("Drivetown")
    plans = [plan_drive(CONFIG, index, lanes) for index in range(12)]
    assert plans == [plan_drive(CONFIG, index, lanes) for index in range(12)]
    assert len({plan.scenario.route for plan in plans}) > 6
    for plan in plans:
        assert plan_route(plan.scenario).length_m > 90.0


def test_risky_drivers_are_of_many_kinds() -> None:
    rng = np.random.default_rng(0)
    styles = [draw_style(MODE_RISKY, rng) for _ in range(40)]
    assert {style.expert.ignore_red for style in styles} == {True, False}
    assert all(style.expert.headway_s <= 1.0 for style in styles)
    assert max(style.weave_m for style in styles) > 1.0


def test_a_log_has_actions_labels_and_every_state(recording: Path) -> None:
    log = open_logs(recording)[0]
    log.validate()
    assert len(log) == 7 and log.complete and not log.has_images and log.has_state
    ego, action = log.column("ego"), log.column("action")
    assert np.allclose(np.diff(ego[:, 6]) / 0.5, action[:-1, 0], atol=1e-6)
    assert np.array_equal(log.column("present")[:, 2], [1, 1, 1, 1, 1, 1, 0])
    assert np.all(np.isfinite(log.column("expert"))) and log.column("present")[:, 3].all()
    assert log.attrs["summary"]["ticks"] == len(log)
    assert log.scenario is not None and log.scenario.town == "Drivetown"


def test_a_logged_state_goes_on_exactly(recording: Path) -> None:
    log = open_logs(recording)[0]
    futures = []
    for _ in range(2):
        town = Town(lane_map("Drivetown").network)
        town.restore(log.state(2, TownState))
        for _ in range(10):
            town.set_control(int(log.attrs["ego_row"]), 0.0, 0.0, 1.0)
            town.step(0.05)
        futures.append(town.copy_state().to_bytes())
    assert futures[0] == futures[1]
    ego = log.state(2, TownState).xyz[log.attrs["ego_row"]]
    center = log.frame(2).ego.center_xy_m
    assert np.allclose([ego[0], -ego[1]], center, atol=0.1)


def test_a_killed_recording_goes_on(recording: Path) -> None:
    paths = sorted(recording.glob("*.zarr"))
    before = [DriveLog(path).column("ego") for path in paths]
    stamp = (paths[0] / "zarr.json").stat().st_mtime_ns
    (paths[1] / "time_us" / "c" / "0").unlink()  # as a kill leaves it
    seen: list[str] = []
    record(CONFIG, recording, lambda done, total, drive: seen.append(f"{done}/{total} {drive.name}"))
    assert seen == [f"2/2 {paths[1].name}"]
    assert (paths[0] / "zarr.json").stat().st_mtime_ns == stamp
    assert all(np.array_equal(DriveLog(path).column("ego"), old) for path, old in zip(paths, before, strict=True))


def test_another_config_does_not_mix_in(recording: Path) -> None:
    with pytest.raises(ConfigError, match="another config"):
        record(replace(CONFIG, seed=4), recording)


def test_what_is_wrong_is_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UnknownTown):
        record(replace(CONFIG, towns=("Twon01",)), tmp_path / "a")
    with pytest.raises(ConfigError, match="did you mean 'ClearNoon'"):
        record(replace(CONFIG, weathers=("ClearNon",)), tmp_path / "a")
    with pytest.raises(ConfigError, match="multiple of dt_s"):
        record(replace(CONFIG, period_s=0.12), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_statistics_count(recording: Path) -> None:
    counted = log_statistics(open_logs(recording))
    assert counted.drives == 2 and counted.ticks == sum(len(log) for log in open_logs(recording))
    assert 0.0 <= counted.lead_within_40m <= 1.0 and counted.mean_speed_mps > 0.0
    assert "mean_speed_mps" in str(counted)


@pytest.mark.parametrize("name", ["constant-velocity", "latent"])
def test_a_planner_can_drive_for_a_log(tmp_path: Path, name: str) -> None:
    config = replace(CONFIG, episodes=1, seconds=2.0, planner=name)
    log = DriveLog(record(config, tmp_path, make_planner=make_planner)[0])
    assert log.complete and len(log) == 5 and (log.column("mode") == MODE_PLANNER).all()
    assert log.column("present")[:, 3].all()  # what the expert would have done stands beside it
    assert log.attrs["extra"]["planner"] == name


def test_a_planner_that_cannot_be_made_is_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to make it with"):
        record(replace(CONFIG, planner="latent"), tmp_path / "a")
    assert not (tmp_path / "a").exists()
