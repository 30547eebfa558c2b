"""Laws of the log: reading gives back, byte for byte, what was written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivesim.datatypes import (
    ActorStates,
    Contact,
    Control,
    EgoState,
    Frame,
    LightStates,
    RouteAhead,
    Scenario,
    Waypoint,
    default_rig,
)
from drivesim.logs import DriveLog, LogHeader, LogWriter
from drivesim.town.state import TownState


def equal(a: Any, b: Any) -> bool:
    """Deep equality, bytes and dtypes included."""
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        return type(a) is type(b) and all(equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(a == b)


def random_frame(k: int, rng: np.random.Generator, images: bool) -> Frame:
    n, q, r = (int(v) for v in rng.integers(0, 20, 3))
    return Frame(
        time_us=1000 + k * 100_000,
        images=rng.integers(0, 255, (6, 144, 256, 3), dtype=np.uint8) if images else None,
        ego=EgoState(1000 + k * 100_000, *rng.normal(size=12)),
        actors=ActorStates(
            rng.integers(-(2**60), 2**60, n), rng.integers(0, 3, n).astype(np.uint8), rng.normal(size=(n, 4)),
            rng.normal(size=(n, 3)), rng.normal(size=(n, 2)),
        ),
        lights=LightStates(rng.integers(0, 4, q).astype(np.uint8), rng.normal(size=(q, 4)), rng.random(q)),
        route=RouteAhead(rng.normal(size=(r, 2)), rng.random(r), float(rng.random())),
        control=Control(*rng.random(3)) if rng.random() < 0.5 else None,
        contacts=tuple(Contact(k, int(j), "vehicle", float(rng.random())) for j in range(rng.integers(0, 3))),
    )  # fmt: skip


def random_state(rng: np.random.Generator) -> TownState:
    state = TownState.empty(9, 4, 2)
    for f in dataclasses.fields(state):
        array = getattr(state, f.name)
        array[...] = rng.integers(0, 200, array.shape) if array.dtype.kind in "iu" else rng.normal(size=array.shape)
    state.rng[:] = rng.integers(0, 2**64, 1, dtype=np.uint64)
    return state


@pytest.mark.parametrize("block", [1, 3, 8])
def test_write_then_read_is_byte_equal(tmp_path: Path, block: int) -> None:
    rng = np.random.default_rng(block)
    frames = [random_frame(k, rng, images=k % 2 == 0) for k in range(7)]
    states = [random_state(rng) for _ in frames]
    with LogWriter(tmp_path / "a.zarr", LogHeader("T", 1, 0.05, 0.1, rig=default_rig()), block_ticks=block) as writer:
        for frame, state in zip(frames, states, strict=True):
            writer.append(frame, state=state)
    log = DriveLog(tmp_path / "a.zarr")
    assert all(equal(a, b) for a, b in zip(frames, log.frames, strict=True))
    assert all(equal(a, log.state(i, TownState)) for i, a in enumerate(states))
    assert equal(log.frames[-1], frames[-1]) and equal(log.frames[2:4][1], frames[3])


def test_a_clip_equals_its_ticks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with LogWriter(tmp_path / "a.zarr", LogHeader("T", 1, 0.05, 0.1, images=False), block_ticks=4) as writer:
        for k in range(11):
            writer.append(random_frame(k, rng, False), action=rng.normal(size=2), expert=rng.normal(size=2), mode=k % 3)
    log = DriveLog(tmp_path / "a.zarr")
    for first in range(9):
        clip = log.clip(first, 3)
        for name, values in clip.items():
            assert np.array_equal(values, log.column(name)[first : first + 3]), name


def test_more_ticks_than_expected(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    header = LogHeader("T", 1, 0.05, 0.1, images=False)
    frames = [random_frame(k, rng, False) for k in range(25)]
    with LogWriter(tmp_path / "a.zarr", header, block_ticks=4, expected_ticks=6) as writer:
        for frame in frames:
            writer.append(frame)
    log = DriveLog(tmp_path / "a.zarr")
    assert len(log) == 25 and all(equal(a, b) for a, b in zip(frames, log.frames, strict=True))


def test_the_header_survives(tmp_path: Path) -> None:
    scenario = Scenario("cut_in-v1", "Town01", "text", (Waypoint(1.5, -2.25), Waypoint(3.0, 1 / 3)), 30.0, seed=7)
    header = LogHeader("Town01", 7, 0.05, 0.1, scenario=scenario, rig=default_rig(), images=False, extra={"a": [1, 2]})
    with LogWriter(tmp_path / "a.zarr", header) as writer:
        writer.append(random_frame(0, np.random.default_rng(0), False))
        writer.close(end="timeout")
    log = DriveLog(tmp_path / "a.zarr")
    assert log.scenario == scenario and log.attrs["extra"] == {"a": [1, 2]} and log.attrs["end"] == "timeout"
    assert all(equal(a, b) for a, b in zip(log.rig.cameras, default_rig().cameras, strict=True))
