"""Speed of the log store with six 256x144 cameras: ticks written and clips read per second."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import (
    ActorStates,
    CameraRig,
    Control,
    EgoState,
    Frame,
    LightStates,
    RouteAhead,
    default_rig,
)
from drivesim.logs import DriveLog, LogHeader, LogWriter

TICKS = 64
CLIP_TICKS = 4


def _pictures(rng: np.random.Generator, rig: CameraRig) -> NDArray[np.uint8]:
    """Smooth shapes with a little noise, about as hard to compress as rendered streets."""
    coarse = rng.integers(0, 250, (len(rig.cameras), 18, 32, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((1, 8, 8, 1), np.uint8)) + rng.integers(0, 4, (6, 144, 256, 3), dtype=np.uint8)


def _frames(rig: CameraRig) -> list[Frame]:
    rng = np.random.default_rng(0)
    n = 40
    return [
        Frame(
            time_us=k * 100_000,
            images=_pictures(rng, rig),
            ego=EgoState(k * 100_000, *rng.normal(size=9)),
            actors=ActorStates(
                np.arange(n), np.zeros(n, np.uint8), rng.normal(size=(n, 4)), rng.random((n, 3)), rng.random((n, 2))
            ),
            lights=LightStates(np.zeros(12, np.uint8), rng.normal(size=(12, 4)), np.ones(12)),
            route=RouteAhead(rng.normal(size=(64, 2)), np.full(64, 13.9), 100.0),
            control=Control(0.0, 0.5, 0.0),
        )
        for k in range(TICKS)
    ]


def measure() -> dict[str, float]:
    """log_write_frames_per_s and log_clips_per_s (random clips of four ticks, six cameras)."""
    rig = default_rig()
    frames = _frames(rig)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drive.zarr"
        begin = time.perf_counter()
        with LogWriter(path, LogHeader("Town01", 0, 0.05, 0.1, rig=rig), expected_ticks=TICKS) as writer:
            for frame in frames:
                writer.append(frame)
        write_s = time.perf_counter() - begin
        log = DriveLog(path)
        starts = np.random.default_rng(1).integers(0, TICKS - CLIP_TICKS, 64)
        begin = time.perf_counter()
        for start in starts:
            log.clip(int(start), CLIP_TICKS)
        read_s = time.perf_counter() - begin
    return {"log_write_frames_per_s": TICKS / write_s, "log_clips_per_s": len(starts) / read_s}


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name} {value:.1f}")
