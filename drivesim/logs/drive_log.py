"""A lazy view of one logged drive."""

from __future__ import annotations

import dataclasses
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import zarr
from numpy.typing import NDArray

from drivesim.config import from_dict
from drivesim.datatypes import CameraRig, Frame, Scenario
from drivesim.logs.schema import (
    FORMAT,
    PRESENT_IMAGES,
    SCHEMA_VERSION,
    STATE_GROUP,
    LogError,
    LogLimits,
    columns,
    frame_of_rows,
    rig_from_dict,
)
from drivesim.logs.writer import NO_STAMP

CACHED_BLOCKS = 512  # (column, block) pairs kept in memory; a block of all columns has about 55
CLIP_COLUMNS = ("time_us", "ego", "control", "action", "expert", "mode", "present")
_FRAME_COLUMNS = tuple(columns(LogLimits()))
S = TypeVar("S")


def _open_group(path: Path) -> zarr.Group:
    if not path.is_dir():
        raise LogError(f"no such log: {path}")
    if not (path / "zarr.json").is_file():
        raise LogError(f"{path} is not a drive log (no zarr.json in it); give the folder that `drivesim record` wrote")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            group = zarr.open_group(str(path), mode="r")
    except Exception as error:
        raise LogError(f"{path} is not a drive log ({_line(error)}); copy or record it again") from error
    if group.attrs.get("format") != FORMAT:
        raise LogError(f"{path} is a zarr store, but not a drive log; give a folder that `drivesim record` wrote")
    version = group.attrs.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise LogError(f"{path} has log schema {version}, this drivesim reads up to {SCHEMA_VERSION}: upgrade drivesim")
    return group


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


class DriveLog:
    """One drive; opening reads only the stamps, everything else comes when asked for.

    Attributes:
        path: the store's directory.
        attrs: schema version, town, scenario, seed, dt_s, period_s, ego_row, provenance, end...
        times_us: (T,) int64 of the committed ticks.
    """

    def __init__(self, path: Path | str) -> None:
        """Open a log, a killed recording up to its last whole block.

        Raises:
            LogError: missing, foreign, empty or damaged.
        """
        self.path = Path(path)
        self._group = _open_group(self.path)
        self.attrs: dict[str, Any] = dict(self._group.attrs)
        self.block_ticks = int(self.attrs["block_ticks"])
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._blocks: OrderedDict[tuple[str, int], NDArray[Any]] = OrderedDict()
        stamps = self._read("time_us", 0, self._array("time_us").shape[0], check=False)
        missing = np.flatnonzero(stamps == NO_STAMP)
        self.times_us: NDArray[np.int64] = stamps[: missing[0]] if len(missing) else stamps
        if len(self.times_us) == 0:
            raise LogError(f"{self.path} holds no whole block of ticks (killed at once?); record it again")
        self._check_length()
        for name in self.columns:
            self._require_block(name, (len(self) - 1) // self.block_ticks)

    def _check_length(self) -> None:
        ticks = self.attrs.get("ticks")
        if ticks is not None and ticks != len(self):
            raise LogError(f"{self.path} lost ticks: {len(self)} of {ticks} are there; copy or record it again")

    def __len__(self) -> int:
        return len(self.times_us)

    @property
    def complete(self) -> bool:
        """Whether the recording ended by itself."""
        return bool(self.attrs["complete"])

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        own = [*_FRAME_COLUMNS, "time_us"]
        own += ["images"] if (self.path / "images").is_dir() else []
        if self.has_state:
            own += sorted(f"{STATE_GROUP}/{p.name}" for p in (self.path / STATE_GROUP).iterdir() if p.is_dir())
        return tuple(own)

    @property
    def has_images(self) -> bool:
        """Whether the log has pictures at all."""
        return "images" in self.columns

    @property
    def has_state(self) -> bool:
        """Whether the log holds the embedded world's own state."""
        return (self.path / STATE_GROUP).is_dir()

    @cached_property
    def rig(self) -> CameraRig:
        """The cameras.

        Raises:
            LogError: a log of states alone that was recorded for no rig.
        """
        if self.attrs.get("rig") is None:
            raise LogError(f"{self.path} was recorded without cameras; render it with a rig of your own")
        return rig_from_dict(self.attrs["rig"])

    @cached_property
    def scenario(self) -> Scenario | None:
        """The scenario that was driven, if there was one."""
        data = self.attrs.get("scenario")
        return None if data is None else from_dict(Scenario, data)

    @property
    def frames(self) -> Frames:
        """The ticks as frames."""
        return Frames(self)

    def column(self, name: str) -> NDArray[Any]:
        """A whole column (T, ...)."""
        return self._read(name, 0, len(self))

    def images(self, i: int, t: int = 1) -> NDArray[np.uint8]:
        """Pictures (t, v, h, w, 3) of ticks i to i + t - 1; black where a tick has none."""
        if not self.has_images:
            raise LogError(f"{self.path} has no images; render them from its state")
        return self._read("images", i, i + t)

    def clip(self, i: int, t: int, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Ticks i to i + t - 1 as arrays (t, ...): images (where there are), stamps, ego, actions, who drove.

        Raises:
            IndexError: the clip leaves the log.
        """
        if not 0 <= i <= i + t <= len(self):
            raise IndexError(f"clip of {t} ticks at {i} leaves a log of {len(self)}")
        wanted = names if names is not None else (*CLIP_COLUMNS, *(("images",) if self.has_images else ()))
        reads = {name: self._read if name == "images" else self._cached for name in wanted}
        return {name: read(name, i, i + t) for name, read in reads.items()}

    def state(self, i: int, kind: type[S]) -> S:
        """The embedded world's whole state at tick i, e.g. `log.state(i, TownState)`; restoring it is exact."""
        if not self.has_state:
            raise LogError(f"{self.path} has no world state (it was not recorded in the embedded world)")
        i = self._index(i)
        known = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
        names = [name for name in known if f"{STATE_GROUP}/{name}" in self.columns]
        missing = [
            name
            for name, f in known.items()
            if name not in names and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise LogError(f"{self.path} is of another version (its state lacks {missing[0]}); record it again")
        return kind(**{name: self._cached(f"{STATE_GROUP}/{name}", i, i + 1)[0].copy() for name in names})

    def frame(self, i: int) -> Frame:
        """Tick i as the frame that was recorded."""
        i = self._index(i)
        rows = {name: self._cached(name, i, i + 1)[0] for name in _FRAME_COLUMNS}
        images = self._read("images", i, i + 1)[0] if self.has_images and rows["present"][PRESENT_IMAGES] else None
        return frame_of_rows(int(self.times_us[i]), rows, images)

    def validate(self) -> None:
        """Read everything once: every checksum is verified.

        Raises:
            LogError: the first thing that is wrong.
        """
        if np.any(np.diff(self.times_us) <= 0):
            raise LogError(f"{self.path}: time does not increase; record it again")
        for name in self.columns:
            for first in range(0, len(self), self.block_ticks):
                self._read(name, first, min(first + self.block_ticks, len(self)))
        if self.has_images and self.column_shape("images")[0] != len(self.rig.cameras):
            raise LogError(f"{self.path}: pictures and rig disagree about the number of cameras")

    def column_shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tick of a column."""
        return tuple(self._array(name).shape[1:])

    def _index(self, i: int) -> int:
        if not -len(self) <= i < len(self):
            raise IndexError(f"tick {i} of a log of {len(self)}")
        return i % len(self)

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self._arrays:
            try:
                array = self._group[name]
            except KeyError as error:
                raise LogError(f"{self.path} lacks column {name!r}: the copy is not whole, copy it again") from error
            except Exception as error:
                raise LogError(f"{self.path}: column {name!r} is damaged ({_line(error)}); copy it again") from error
            if not isinstance(array, zarr.Array):
                raise LogError(f"{self.path}: {name!r} is no column")
            self._arrays[name] = array
        return self._arrays[name]

    def _require_block(self, name: str, block: int) -> None:
        """A chunk file that is gone would read as zeros: refuse it."""
        file = self.path / name / "c" / str(block) / Path(*["0"] * (self._array(name).ndim - 1))
        if not file.is_file() or file.stat().st_size == 0:
            raise LogError(f"{self.path}: block {block} of column {name!r} is gone; copy it again or record it again")

    def _read(self, name: str, first: int, last: int, *, check: bool = True) -> NDArray[Any]:
        array = self._array(name)
        if check:
            for block in range(first // self.block_ticks, -(-last // self.block_ticks)):
                self._require_block(name, block)
        try:
            return np.asarray(array[first:last])
        except Exception as error:  # zarr and its codecs raise many kinds
            where = f"ticks {first} to {last - 1} of {name!r}"
            raise LogError(f"{self.path}: {where} are damaged ({_line(error)}); copy or record it again") from error

    def _block(self, name: str, block: int) -> NDArray[Any]:
        key = (name, block)
        if key in self._blocks:
            self._blocks.move_to_end(key)
        else:
            first = block * self.block_ticks
            self._blocks[key] = self._read(name, first, min(first + self.block_ticks, len(self)))
            while len(self._blocks) > CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        return self._blocks[key]

    def _cached(self, name: str, first: int, last: int) -> NDArray[Any]:
        parts = []
        for block in range(first // self.block_ticks, -(-last // self.block_ticks)):
            start = block * self.block_ticks
            parts.append(self._block(name, block)[max(first - start, 0) : last - start])
        if not parts:
            return np.empty((0, *self.column_shape(name)), self._array(name).dtype)
        return parts[0].copy() if len(parts) == 1 else np.concatenate(parts)


class Frames(Sequence[Frame]):
    """The ticks of a log as a sequence of frames."""

    def __init__(self, log: DriveLog) -> None:
        self._log = log

    def __len__(self) -> int:
        return len(self._log)

    @overload
    def __getitem__(self, i: int) -> Frame: ...

    @overload
    def __getitem__(self, i: slice) -> list[Frame]: ...

    def __getitem__(self, i: int | slice) -> Frame | list[Frame]:
        if isinstance(i, slice):
            return [self._log.frame(k) for k in range(*i.indices(len(self)))]
        return self._log.frame(i)

    def __iter__(self) -> Iterator[Frame]:
        return (self._log.frame(i) for i in range(len(self)))
