"""Append frames to a zarr v3 store, a block of ticks at a time.

The stamps of a block are written after everything else in it, so a recording that is killed opens up to
its last whole block. Images are sharded (one file per block, one checksummed chunk per tick); the small
columns have one checksummed chunk per block.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from drivesim.config import to_dict
from drivesim.datatypes import CameraRig, Frame, Scenario
from drivesim.logs.schema import (
    FORMAT,
    MODE_EXPERT,
    SCHEMA_VERSION,
    STATE_GROUP,
    Column,
    LogError,
    LogLimits,
    columns,
    rig_to_dict,
    rows_of_frame,
)
from drivesim.runs import code_version

NO_STAMP = -1  # fill value of `time_us`: this tick has not been committed


@dataclass(frozen=True)
class LogHeader:
    """What is known before the first tick; stored as the log's attributes.

    Attributes:
        period_s: between logged ticks; `dt_s` is the world's own step.
        images: whether ticks carry pictures (of `rig`).
        ego_row: the ego's row in the embedded world's state, -1 without one.
        appearance: what the renderer needs to make the pictures again (weather is in the state).
        extra: anything else that is JSON.
    """

    town: str
    seed: int
    dt_s: float
    period_s: float
    scenario: Scenario | None = None
    rig: CameraRig | None = None
    images: bool = True
    ego_row: int = -1
    appearance_seed: int = 0
    provenance: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def attributes(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "town": self.town,
            "seed": self.seed,
            "dt_s": self.dt_s,
            "period_s": self.period_s,
            "scenario": None if self.scenario is None else to_dict(self.scenario),
            "rig": None if self.rig is None else rig_to_dict(self.rig),
            "rig_digest": None if self.rig is None else self.rig.digest,
            "ego_row": self.ego_row,
            "appearance_seed": self.appearance_seed,
            "provenance": {"drivesim": code_version(), "recorded": _now(), **self.provenance},
            "extra": self.extra,
        }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class LogWriter:
    """Writes one drive into one directory; use it as a context manager.

    Args:
        path: directory to make; an older log there is an error unless `overwrite`.
        block_ticks: how many ticks are committed at a time.
        expected_ticks: a hint; more ticks are fine.
    """

    def __init__(
        self,
        path: Path,
        header: LogHeader,
        *,
        block_ticks: int = 16,
        expected_ticks: int = 256,
        limits: LogLimits | None = None,
        overwrite: bool = False,
    ) -> None:
        if path.exists() and not overwrite:
            raise LogError(f"{path} exists; give another folder or delete it")
        if path.exists():
            shutil.rmtree(path)
        if header.images and header.rig is None:
            raise LogError(f"{path}: a log with images needs the rig of its cameras")
        self.path = path
        self.header = header
        self.block_ticks = block_ticks
        self._limits = limits or LogLimits()
        self._capacity = max(block_ticks, expected_ticks)
        self._committed = 0
        self._filled = 0
        self._columns = dict(columns(self._limits))
        attributes = header.attributes() | {"block_ticks": block_ticks, "complete": False}
        self._group = zarr.create_group(str(path), attributes=attributes)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._buffers: dict[str, NDArray[Any]] = {}
        self._images: zarr.Array[Any] | None = None
        self._open_columns()

    def _open_columns(self) -> None:
        for name, column in self._columns.items():
            self._create(name, column)
        rig = self.header.rig
        if self.header.images and rig is not None:
            camera = rig.cameras[0]
            if any((c.width_px, c.height_px) != (camera.width_px, camera.height_px) for c in rig.cameras):
                raise LogError(f"rig {rig.id}: the cameras of a log share one image size")
            self._create("images", Column("u1", (len(rig.cameras), camera.height_px, camera.width_px, 3)), sharded=True)
        self._create("time_us", Column("i8"), fill=NO_STAMP)

    def _create(self, name: str, column: Column, *, sharded: bool = False, fill: int = 0) -> None:
        block = (self.block_ticks, *column.shape)
        shuffle = "noshuffle" if np.dtype(column.dtype).itemsize == 1 else "shuffle"
        self._arrays[name] = self._group.create_array(
            name,
            shape=(self._capacity, *column.shape),
            dtype=column.dtype,
            chunks=(1, *column.shape) if sharded else block,
            shards=block if sharded else None,
            compressors=[BloscCodec(cname="zstd", clevel=1, shuffle=shuffle), Crc32cCodec()],
            fill_value=fill,
            config={"write_empty_chunks": True},
        )
        self._buffers[name] = np.full(block, fill, dtype=column.dtype)

    def append(
        self,
        frame: Frame,
        *,
        action: NDArray[np.float64] | None = None,
        expert: NDArray[np.float64] | None = None,
        mode: int = MODE_EXPERT,
        state: Any = None,
    ) -> None:
        """Add one tick.

        Args:
            action: (2,) acceleration and curvature realised until the next tick.
            expert: (2,) what the safe expert would have done.
            mode: who drove, MODE_*.
            state: the embedded world's whole state, a dataclass of arrays of constant shapes.
        """
        if state is not None and not any(name.startswith(STATE_GROUP) for name in self._arrays):
            self._create_state(state)
        k = self._filled
        row = rows_of_frame(frame, self._limits)
        has_images = frame.images is not None and "images" in self._arrays
        row["present"] = [has_images, frame.control is not None, action is not None, expert is not None]
        row["mode"] = mode
        row["time_us"] = frame.time_us
        row["action"] = (0.0, 0.0) if action is None else action
        row["expert"] = (0.0, 0.0) if expert is None else expert
        if has_images:
            row["images"] = frame.images
        if state is not None:
            row |= {f"{STATE_GROUP}/{f.name}": getattr(state, f.name) for f in dataclasses.fields(state)}
        for name, buffer in self._buffers.items():
            _put(buffer, k, row.get(name, ()))
        self._filled += 1
        if self._filled == self.block_ticks:
            self.flush()

    def _create_state(self, state: Any) -> None:
        if self._committed or self._filled:
            raise LogError(f"{self.path}: the world's state must come with the first tick or never")
        for f in dataclasses.fields(state):
            array = getattr(state, f.name)
            self._create(f"{STATE_GROUP}/{f.name}", Column(array.dtype.str, array.shape))

    def flush(self) -> None:
        """Commit the buffered ticks; their stamps go last."""
        if not self._filled:
            return
        first, last = self._committed, self._committed + self._filled
        if last > self._capacity:
            self._capacity = max(2 * self._capacity, last)
            for name in (*(n for n in self._arrays if n != "time_us"), "time_us"):
                self._resize(name, self._capacity)
        for name, array in self._arrays.items():
            if name != "time_us":
                array[first:last] = self._buffers[name][: self._filled]
        self._arrays["time_us"][first:last] = self._buffers["time_us"][: self._filled]
        self._committed, self._filled = last, 0

    def _resize(self, name: str, ticks: int) -> None:
        array = self._arrays[name]
        array.resize((ticks, *array.shape[1:]))

    def close(self, *, complete: bool = True, **attributes: Any) -> None:
        """Write what is left; `attributes` (JSON) join the log's attributes, e.g. why it ended."""
        self.flush()
        for name in self._arrays:
            if self._arrays[name].shape[0] != self._committed:
                self._resize(name, self._committed)
        self._group.attrs.update({"complete": complete, "ticks": self._committed, **attributes})

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if not self._group.attrs.get("complete"):
            self.close(complete=kind is None)


def _put(buffer: NDArray[Any], k: int, value: Any) -> None:
    """Write one tick into its buffer, zero beyond the value's length."""
    if buffer.ndim == 1:
        buffer[k] = value
        return
    array = np.asarray(value, dtype=buffer.dtype)
    if array.shape == buffer.shape[1:]:
        buffer[k] = array
        return
    buffer[k] = 0
    if array.size:
        buffer[k, : len(array)] = array
