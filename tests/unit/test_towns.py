"""Names of towns, and where they come from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from drivesim.town import towns


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Town02", "Town02"),
        ("town02", "Town02"),
        ("Carla/Maps/Town02", "Town02"),
        ("/Game/Carla/Maps/Town10HD_Opt", "Town10HD"),
        ("Town10", "Town10HD"),
        ("Drivetown", "Drivetown"),
    ],
)
def test_names_may_be_written_as_carla_does(written: str, meant: str) -> None:
    assert towns.canonical_name(written) == meant


def test_an_unknown_town_lists_the_known_ones() -> None:
    with pytest.raises(towns.UnknownTown, match=r"Did you mean Town02\?.*Town10HD.*Drivetown"):
        towns.road_network("Towm02")


def test_without_the_wheel_the_message_names_the_builtin_town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVESIM_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(towns.TownUnavailable, match="Drivetown"):
        towns.install(["Town02"])
    assert not any(info.installed for info in towns.list_towns() if info.source == "carla")


def test_a_changed_wheel_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVESIM_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    wheel = tmp_path / "wheels" / towns.WHEEL_FILE
    wheel.parent.mkdir()
    wheel.write_bytes(b"not what was pinned")
    with pytest.raises(towns.TownUnavailable):
        towns.opendrive_text("Town01")


def test_the_builtin_town_is_baked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVESIM_CACHE", str(tmp_path))
    said: list[str] = []
    assert towns.install(["Drivetown"], said.append) == ["Drivetown"]
    assert any("first time" in line for line in said)
    (info,) = (each for each in towns.list_towns() if each.name == "Drivetown")
    assert info.baked
    assert info.lane_km is not None
    assert 3.0 < info.lane_km < 6.0
    (baked,) = (tmp_path / "roads").iterdir()
    said.clear()
    again = towns.road_network_from_text("Drivetown", towns.opendrive_text("Drivetown"), said.append)
    assert not said
    baked.write_bytes(b"cut short")  # a broken cache heals itself
    healed = towns.road_network_from_text("Drivetown", towns.opendrive_text("Drivetown"), said.append)
    assert (healed.point_xyz_m == again.point_xyz_m).all()


def test_the_builtin_text_is_the_same_in_another_process() -> None:
    code = (
        "import hashlib; from drivesim.town.builtin import drivetown_xodr;"
        "print(hashlib.sha256(drivetown_xodr().encode()).hexdigest())"
    )
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("name", "lights", "groups", "crosswalks", "lane_km"),
    [("Town02", 24, 8, 0, 2.9), ("Town03", 38, 11, 73, 13.7), ("Town10HD", 17, 5, 16, 5.9)],
)
def test_carla_towns_have_their_known_sizes(
    name: str, lights: int, groups: int, crosswalks: int, lane_km: float
) -> None:
    try:
        network = towns.road_network(name)
    except towns.TownUnavailable as error:
        pytest.skip(str(error))
    driving = network.lane_kind == 0
    assert network.lane_length_m[driving].sum() / 1000 == pytest.approx(lane_km, abs=0.1)
    assert len(network.light_signal_id) == lights
    assert len(set(network.light_group.tolist())) == groups
    assert len(network.crosswalk_count) == crosswalks
    assert (network.lane_next[driving, 0] >= 0).all()
    assert set(network.lane_light[network.lane_light >= 0].tolist()) == set(range(lights))
