"""The baked arrays of a town: what they hold, and how they are kept."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from drivesim.town.builtin import drivetown_xodr
from drivesim.town.opendrive import bake
from drivesim.town.roads import LANE_DRIVING, MARK_CURB, MARK_STOP_LINE, RoadNetwork
from drivesim.town.xodr import OpenDriveError, read_xodr


@pytest.fixture(scope="module")
def network() -> RoadNetwork:
    return bake("Drivetown", drivetown_xodr())


def test_saved_and_loaded_networks_are_equal(network: RoadNetwork, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "town.npz"
    network.save(path)
    loaded = RoadNetwork.load(path)
    assert loaded.name == network.name
    for field in fields(RoadNetwork):
        if field.name != "name":
            before, after = getattr(network, field.name), getattr(loaded, field.name)
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(before, after)
    assert [each.name for each in path.parent.iterdir()] == ["town.npz"]  # nothing half-written stays


def test_a_file_of_another_version_says_what_it_lacks(network: RoadNetwork, tmp_path: Path) -> None:
    path = tmp_path / "old.npz"
    np.savez(path, _meta=np.array('{"name": "old"}'), point_xyz_m=network.point_xyz_m)
    with pytest.raises(ValueError, match="point_yaw_rad"):
        RoadNetwork.load(path)


def test_every_driving_lane_leads_on_without_a_jump(network: RoadNetwork) -> None:
    last = network.lane_start + network.lane_count - 1
    for lane in np.flatnonzero(network.lane_kind == LANE_DRIVING):
        following = network.lane_next[lane][network.lane_next[lane] >= 0]
        assert len(following) > 0
        starts = network.lane_start[following]
        gaps = network.point_xyz_m[starts] - network.point_xyz_m[last[lane]]
        turns = network.point_yaw_rad[starts] - network.point_yaw_rad[last[lane]]
        assert np.linalg.norm(gaps, axis=1).max() < 0.1
        assert np.abs(np.angle(np.exp(1j * turns))).max() < 0.05
        for ahead in following:
            assert lane in network.lane_previous[ahead]


def test_points_follow_each_other_in_driving_direction(network: RoadNetwork) -> None:
    same = np.diff(network.point_lane) == 0
    steps = np.diff(network.point_xyz_m, axis=0)[same]
    yaw = network.point_yaw_rad[:-1][same]
    ahead = steps[:, 0] * np.cos(yaw) + steps[:, 1] * np.sin(yaw)
    assert (ahead > 0).all()
    assert np.diff(network.point_s_m)[same].min() > 0


def test_neighbours_are_mutual_and_lie_on_their_side(network: RoadNetwork) -> None:
    paired = np.flatnonzero(network.lane_left >= 0)
    assert len(paired) == 2  # the avenue, one pair in each direction
    for lane in paired:
        left = network.lane_left[lane]
        assert network.lane_right[left] == lane
        first, other = network.lane_start[lane], network.lane_start[left]
        dx, dy = (network.point_xyz_m[other] - network.point_xyz_m[first])[:2]
        yaw = network.point_yaw_rad[first]
        assert dy * np.cos(yaw) - dx * np.sin(yaw) == pytest.approx(-3.5, abs=0.01)


def test_drivetown_has_what_it_promises(network: RoadNetwork) -> None:
    assert len(network.light_signal_id) == 7
    assert sorted(np.bincount(network.light_group).tolist()) == [3, 4]
    assert (network.lane_yields == 2).sum() == 1
    assert (network.lane_yields == 1).sum() == 2 + 3  # the avenue's end, the roundabout's legs
    assert len(network.crosswalk_count) == 7
    assert np.ptp(network.point_xyz_m[:, 2]) == pytest.approx(6.0, abs=0.05)
    assert {MARK_CURB, MARK_STOP_LINE} <= set(network.mark_kind.tolist())
    assert network.point_speed_limit_mps.max() == pytest.approx(50 / 3.6, rel=1e-3)


def test_stop_lines_lie_across_the_end_of_their_approach(network: RoadNetwork) -> None:
    assert len(network.stop_lane) == 4 + 1 + 3 + 1  # centre (one arm has two lanes), south, the stop sign
    for row, lane in enumerate(network.stop_lane):
        assert network.lane_junction[lane] < 0
        ahead = network.lane_next[lane, 0]
        assert network.lane_junction[ahead] >= 0
        last = network.lane_start[lane] + network.lane_count[lane] - 1
        assert np.linalg.norm(network.stop_xyz_m[row] - network.point_xyz_m[last]) < 1.0
        assert network.lane_light[lane] == network.stop_light[row]
        if network.stop_light[row] >= 0:
            facing = network.light_yaw_rad[network.stop_light[row]] - network.stop_yaw_rad[row]
            assert np.cos(facing) < -0.99


def test_lights_that_are_green_together_never_conflict(network: RoadNetwork) -> None:
    for lane in network.stop_lane[network.stop_light >= 0]:
        light = network.lane_light[lane]
        for path in network.lane_next[lane][network.lane_next[lane] >= 0]:
            crossing = network.conflict_lane[network.conflict_start[path] : network.conflict_start[path + 1]]
            for other in crossing:
                rival = network.lane_light[network.lane_previous[other, 0]]
                together = (
                    network.light_group[light] == network.light_group[rival]
                    and network.light_phase[light] == network.light_phase[rival]
                )
                assert not together or light == rival


def test_conflicts_are_mutual(network: RoadNetwork) -> None:
    owner = np.repeat(np.arange(len(network.lane_kind)), np.diff(network.conflict_start))
    pairs = set(zip(owner.tolist(), network.conflict_lane.tolist(), strict=True))
    assert pairs
    assert all((b, a) in pairs and a != b for a, b in pairs)


def test_spawn_points_leave_room_for_a_bus(network: RoadNetwork) -> None:
    assert len(network.spawn_lane) > 60
    assert (network.lane_junction[network.spawn_lane] < 0).all()
    offsets = network.spawn_xyz_m[:, None, :2] - network.spawn_xyz_m[None, :, :2]
    cos, sin = np.cos(network.spawn_yaw_rad)[:, None], np.sin(network.spawn_yaw_rad)[:, None]
    along = np.abs(offsets[..., 0] * cos + offsets[..., 1] * sin)
    across = np.abs(offsets[..., 1] * cos - offsets[..., 0] * sin)
    near = (along < 10.3) & (across < 3.9)
    np.fill_diagonal(near, False)
    assert not near.any()


@pytest.mark.parametrize(("text", "word"), [("<OpenDRIVE><road", "well-formed"), ("<OpenDRIVE/>", "no <road>")])
def test_bad_opendrive_is_refused_in_words(text: str, word: str) -> None:
    with pytest.raises(OpenDriveError, match=word):
        read_xodr(text)
