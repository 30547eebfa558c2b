"""The log store: what it refuses, and how a killed recording opens."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import zarr

from drivesim.datatypes import ActorStates, Contact, Control, EgoState, Frame, LightStates, RouteAhead, default_rig
from drivesim.logs import DriveLog, LogError, LogHeader, LogLimits, LogWriter

RIG = default_rig()


def make_frame(k: int, rng: np.random.Generator, *, images: bool = False, actors: int = 5) -> Frame:
    """A made-up tick."""
    route = np.column_stack([np.arange(80.0), rng.normal(size=80)])
    return Frame(
        time_us=k * 100_000,
        images=rng.integers(0, 255, (6, 144, 256, 3), dtype=np.uint8) if images else None,
        ego=EgoState(k * 100_000, *rng.normal(size=9)),
        actors=ActorStates(
            rng.integers(0, 2**40, actors), rng.integers(0, 3, actors).astype(np.uint8),
            rng.normal(size=(actors, 4)) * 50, rng.random((actors, 3)), rng.normal(size=(actors, 2)),
        ),
        lights=LightStates(np.array([0, 2], np.uint8), rng.normal(size=(2, 4)), np.full(2, 1.75)),
        route=RouteAhead(route[:60], np.full(60, 13.9), 123.5),
        control=None if k % 3 == 0 else Control(0.1, 0.5, 0.0),
        contacts=(Contact(k * 100_000 - 50_000, 7, "walker", 12.5),) if k == 4 else (),
    )  # fmt: skip


def write(path: Path, ticks: int, *, images: bool = False, block: int = 4) -> list[Frame]:
    """A whole log."""
    rng = np.random.default_rng(3)
    frames = [make_frame(k, rng, images=images) for k in range(ticks)]
    header = LogHeader("Town01", 3, 0.05, 0.1, rig=RIG, images=images)
    with LogWriter(path, header, block_ticks=block) as writer:
        for frame in frames:
            writer.append(frame, action=np.array([1.0, 0.1]), mode=1)
    return frames


def test_length_attributes_and_rig(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", 10)
    log = DriveLog(tmp_path / "a.zarr")
    assert len(log) == len(log.frames) == 10 and log.complete
    assert log.attrs["town"] == "Town01" and log.rig.digest == RIG.digest == log.attrs["rig_digest"]
    assert not log.has_images and not log.has_state
    log.validate()


def test_clip_is_contiguous_and_stays_inside(tmp_path: Path) -> None:
    frames = write(tmp_path / "a.zarr", 10, images=True)
    log = DriveLog(tmp_path / "a.zarr")
    clip = log.clip(3, 4)
    assert clip["images"].shape == (4, 6, 144, 256, 3)
    assert np.array_equal(clip["images"], np.stack([frame.images for frame in frames[3:7]]))
    assert clip["time_us"].tolist() == [300_000, 400_000, 500_000, 600_000]
    assert np.array_equal(clip["action"], np.tile([1.0, 0.1], (4, 1)))
    with pytest.raises(IndexError, match="leaves a log of 10"):
        log.clip(8, 4)


def test_more_actors_than_fit_keeps_the_nearest(tmp_path: Path) -> None:
    frame = make_frame(1, np.random.default_rng(0), actors=20)
    header = LogHeader("T", 0, 0.05, 0.1, images=False)
    with LogWriter(tmp_path / "a.zarr", header, limits=LogLimits(actors=6)) as writer:
        writer.append(frame)
    log = DriveLog(tmp_path / "a.zarr")
    kept = log.frames[0].actors
    distance = np.hypot(frame.actors.pose[:, 0] - frame.ego.x_m, frame.actors.pose[:, 1] - frame.ego.y_m)
    assert set(kept.ids) == set(frame.actors.ids[np.argsort(distance)[:6]])
    assert log.column("counts")[0, :2].tolist() == [6, 20]


def test_a_killed_recording_opens_up_to_its_last_whole_block(tmp_path: Path) -> None:
    script = f"""
        import os, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_logs import *
        header = LogHeader("T", 0, 0.05, 0.1, images=False)
        writer = LogWriter(Path({str(tmp_path / "k.zarr")!r}), header, block_ticks=4)
        rng = np.random.default_rng(0)
        for k in range(11):
            writer.append(make_frame(k, rng))
        writer._arrays["ego"][8:11] = 5.0  # the kill came in the middle of writing a block
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=Path.cwd())
    assert done.returncode == -9
    log = DriveLog(tmp_path / "k.zarr")
    assert len(log) == 8 and not log.complete
    log.validate()
    assert log.frames[7].time_us == 700_000


def test_killed_before_the_first_block(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.zarr", LogHeader("T", 0, 0.05, 0.1, images=False))
    writer.append(make_frame(0, np.random.default_rng(0)))
    with pytest.raises(LogError, match=r"no whole block.*record it again"):
        DriveLog(tmp_path / "a.zarr")


def test_refuses_what_is_not_a_log(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no such log"):
        DriveLog(tmp_path / "nothing")
    with pytest.raises(LogError, match=r"no zarr.json"):
        DriveLog(tmp_path)
    zarr.create_group(str(tmp_path / "other.zarr"))
    with pytest.raises(LogError, match="not a drive log"):
        DriveLog(tmp_path / "other.zarr")
    write(tmp_path / "a.zarr", 4)
    meta = tmp_path / "a.zarr" / "zarr.json"
    data = json.loads(meta.read_text())
    data["attributes"]["schema_version"] = 99
    meta.write_text(json.dumps(data))
    with pytest.raises(LogError, match=r"schema 99.*upgrade"):
        DriveLog(tmp_path / "a.zarr")
    meta.write_text("{")
    with pytest.raises(LogError, match="not a drive log") as error:
        DriveLog(tmp_path / "a.zarr")
    assert "\n" not in str(error.value)


def test_a_truncated_chunk_is_found(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", 10)
    chunk = tmp_path / "a.zarr" / "ego" / "c" / "1" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-7])
    log = DriveLog(tmp_path / "a.zarr")
    with pytest.raises(LogError, match=r"damaged.*record it again") as error:
        log.frame(5)
    assert "\n" not in str(error.value)
    with pytest.raises(LogError):
        log.validate()
    log.frame(0)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", 4, images=True)
    shard = next(p for p in (tmp_path / "a.zarr" / "images" / "c").rglob("*") if p.is_file())
    data = bytearray(shard.read_bytes())
    data[1000] ^= 4
    shard.write_bytes(bytes(data))
    with pytest.raises(LogError, match="damaged"):
        DriveLog(tmp_path / "a.zarr").validate()


def test_a_missing_chunk_or_column_is_found(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", 10)
    (tmp_path / "a.zarr" / "route" / "c" / "2" / "0" / "0").unlink()
    with pytest.raises(LogError, match="block 2 of column 'route' is gone"):
        DriveLog(tmp_path / "a.zarr")
    write(tmp_path / "b.zarr", 10)
    (tmp_path / "b.zarr" / "mode" / "zarr.json").unlink()
    with pytest.raises(LogError, match="lacks column 'mode'"):
        DriveLog(tmp_path / "b.zarr")


def test_lost_stamps_are_found(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", 10)
    (tmp_path / "a.zarr" / "time_us" / "c" / "1").unlink()
    with pytest.raises(LogError, match="4 of 10"):
        DriveLog(tmp_path / "a.zarr")


def test_does_not_overwrite_by_accident(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", 4)
    with pytest.raises(LogError, match="exists"):
        write(tmp_path / "a.zarr", 4)
    with pytest.raises(LogError, match="needs the rig"):
        LogWriter(tmp_path / "b.zarr", LogHeader("T", 0, 0.05, 0.1, images=True))


def test_asking_for_what_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", 4)
    log = DriveLog(tmp_path / "a.zarr")
    with pytest.raises(LogError, match="no images"):
        log.images(0)
    with pytest.raises(LogError, match="no world state"):
        log.state(0, LightStates)
    with pytest.raises(IndexError):
        log.frame(4)
