"""Laws of recording: a log of states holds the pictures, too; and the drive does not depend on who looks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from drivesim.config import save_toml
from drivesim.datatypes.rig import CameraSpec, RigSpec
from drivesim.logs import DriveLog
from drivesim.recording import RecordConfig, record
from drivesim.recording.rendering import appearance_of, render_tick, renderer_of

CAMERAS = tuple(
    CameraSpec(name, 1.5, 0.0, 1.5, yaw, 0.0, 90.0, 64, 36) for name, yaw in (("FRONT", 0.0), ("BACK", 180.0))
)
STATES = RecordConfig(towns=("Drivetown",), episodes=1, seconds=1.0, period_s=0.25, images=False, route_m=200.0, seed=5)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[DriveLog, DriveLog]:
    out = tmp_path_factory.mktemp("laws")
    rig = out / "rig.toml"
    save_toml(RigSpec("two-v1", CAMERAS), rig)
    pictured = record(replace(STATES, images=True, rig=str(rig)), out / "images")
    return DriveLog(record(STATES, out / "states")[0]), DriveLog(pictured[0])


def test_the_drive_is_the_same_with_and_without_cameras(logs: tuple[DriveLog, DriveLog]) -> None:
    states, images = logs
    for name in states.columns:
        assert states.column(name)[:, ...].tobytes() == images.column(name).tobytes() or name == "present", name


def test_pictures_are_made_again_byte_for_byte(logs: tuple[DriveLog, DriveLog]) -> None:
    states, images = logs
    renderer = renderer_of(states)
    for i in (0, len(states) - 1):
        again = render_tick(states, i, renderer, images.rig)
        assert again.tobytes() == images.frame(i).images.tobytes()  # type: ignore[union-attr]


def test_another_appearance_is_another_picture_of_the_same_state(logs: tuple[DriveLog, DriveLog]) -> None:
    states, images = logs
    renderer, look = renderer_of(states), appearance_of(states)
    other = type(look).from_weather(states.column("state/weather")[0], 12345)
    pictures = [render_tick(states, 0, renderer, images.rig, appearance) for appearance in (look, other)]
    assert np.any(pictures[0] != pictures[1]) and pictures[0].shape == (2, 36, 64, 3)
