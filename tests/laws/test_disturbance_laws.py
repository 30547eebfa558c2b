"""Laws of disturbed pictures: only what was chosen changes, the same dice disturb the same way, and cameras stay so."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from training.disturbances import disturb, exposure, grain, knocked, specks

ROWS, CAMERAS = 64, 3


def pictures() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(40, 200, (ROWS, CAMERAS, 24, 48, 3)).astype(np.uint8)


def poses(count: int = ROWS) -> NDArray[np.float32]:
    flat = np.concatenate([np.eye(3), np.array([[1.0], [0.0], [1.6]])], axis=1)
    return np.broadcast_to(flat, (count, CAMERAS, 3, 4)).astype(np.float32)


def test_a_share_of_the_rows_is_disturbed_in_pictures_or_in_calibration() -> None:
    views, cameras = pictures(), poses()
    disturb(views, cameras, 0.5, np.random.default_rng(1))
    seen = (views != pictures()).reshape(ROWS, -1).any(1)
    told = (cameras != poses()).reshape(ROWS, -1).any(1)
    assert seen.any() and told.any() and (seen & told).sum() < min(seen.sum(), told.sum())
    assert 0.3 < (seen | told).mean() < 0.7


def test_no_share_changes_nothing() -> None:
    views, cameras = pictures(), poses()
    disturb(views, cameras, 0.0, np.random.default_rng(1))
    assert (views == pictures()).all() and (cameras == poses()).all()


def test_the_same_dice_disturb_the_same_way() -> None:
    twice = []
    for _ in range(2):
        views, cameras = pictures(), poses()
        disturb(views, cameras, 0.5, np.random.default_rng(7))
        twice.append((views, cameras))
    assert (twice[0][0] == twice[1][0]).all() and (twice[0][1] == twice[1][1]).all()


@pytest.mark.parametrize("worsen", [specks, grain, exposure])
def test_a_picture_is_worse_and_still_that_picture(worsen) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:72, 0:128]
    before = np.broadcast_to((60 + x + y // 2)[..., None], (1, 72, 128, 3)).astype(np.uint8)
    for _ in range(20):
        after = before.copy()
        worsen(after, rng)
        assert (after != before).any()
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.5


def test_a_knocked_camera_is_turned_by_a_few_degrees_and_stays_a_rotation() -> None:
    rng = np.random.default_rng(4)
    out = np.concatenate([knocked(poses(1)[0], rng) for _ in range(200)])
    rotation = out[:, :, :3].astype(np.float64)
    assert np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max() < 0.01
    turn_deg = np.degrees(np.arccos(np.clip((np.trace(rotation, axis1=1, axis2=2) - 1.0) / 2.0, -1.0, 1.0)))
    shift_m = np.linalg.norm(out[:, :, 3] - poses(1)[0, 0, :, 3], axis=1)
    assert 1.0 < np.median(turn_deg) < 4.0 and turn_deg.max() < 12.0
    assert 0.03 < np.median(shift_m) < 0.12
