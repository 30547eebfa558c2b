"""The replay of a logged drive: what the model saw, what it imagined, what came, and what braking would have done."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.reports.maps import around, map_data
from drivesim.reports.packing import deltas, fit_jpegs, path_deltas, thin
from drivesim.reports.page import page
from drivesim.town.roads import RoadNetwork

SCRIPTS = ("base.js", "charts.js", "map.js", "cards.js", "replay_forecast.js", "replay.js")
PICTURES_BYTES = 12_000_000
MOST_PICTURES = 400
Floats = NDArray[Any]


@dataclass(frozen=True)
class Forecasts:
    """F moments at which the model looked H steps ahead, along the actions that were really taken.

    Attributes:
        times_s: (F,) when it looked, seconds since the log's first tick, increasing.
        horizon_s: (H,) how far ahead each step is, increasing.
        imagined_path: (F, H, 2) ego positions in the ego frame at that moment (x forward, y left) that it imagined.
        actual_path: (F, H, 2) the same, as it came.
        readouts: name -> (imagined (F, H), actual (F, H)); NaN where there is nothing (no car ahead). The name carries
            the unit (`lead_gap_m`, `collision_risk`); `lead_gap_m` is drawn onto the small map as well.
        imagined_grid, actual_grid: (F, H, gy, gx) occupancy in [0, 1] that probes read from the latent, and the truth;
            row 0 is the far end, column 0 is the left. None where no such probe is there.
        grid_extent_m: x_min, x_max, y_min, y_max of the grids in the ego frame.
    """

    times_s: Floats
    horizon_s: Floats
    imagined_path: Floats
    actual_path: Floats
    readouts: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)
    imagined_grid: Floats | None = None
    actual_grid: Floats | None = None
    grid_extent_m: tuple[float, float, float, float] = (-10.0, 40.0, -20.0, 20.0)

    def validate(self) -> None:
        """Raise ValueError unless the shapes agree."""
        f, h = len(self.times_s), len(self.horizon_s)
        shapes = {
            "imagined_path": self.imagined_path.shape == (f, h, 2),
            "actual_path": self.actual_path.shape == (f, h, 2),
        }
        for name, (imagined, actual) in self.readouts.items():
            shapes[name] = imagined.shape == (f, h) and actual.shape == (f, h)
        for name, grid in (("imagined_grid", self.imagined_grid), ("actual_grid", self.actual_grid)):
            shapes[name] = grid is None or (grid.ndim == 4 and grid.shape[:2] == (f, h))
        wrong = [name for name, fits in shapes.items() if not fits]
        if wrong:
            raise ValueError(f"forecasts of {f} moments and {h} steps: {', '.join(wrong)} have another shape")


@dataclass(frozen=True)
class Counterfactual:
    """One moment, several futures.

    Attributes:
        time_s: the moment of branching.
        action: what was tried instead, in words ("brake at 4 m/s²").
        times_s: (H,) seconds after the moment.
        series: quantity with its unit (`lead_gap_m`) -> line name ("as driven, imagined", "brake, imagined",
            "brake, true", ...) -> (H,) values, NaN where there is nothing.
    """

    time_s: float
    action: str
    times_s: Floats
    series: Mapping[str, Mapping[str, Floats]]


@dataclass(frozen=True)
class ReplayData:
    """Everything that the replay page shows.

    Attributes:
        title: of the page; usually the log's name.
        facts: label -> text for the header (log, town, checkpoint, encoder digest, commit...).
        times_s: (T,) ticks of the drive as encoded (the latent tick), seconds since the log's first tick.
        ego: (T, 5) x, y, yaw, speed_mps, acceleration_mps2 in the world frame (y left).
        surprise: name -> (T,), one line each: e.g. "1 step" and "4 s", each stamped with the tick whose arrival
            surprised; NaN where it cannot be had yet.
        latent_rgb: (T, n, 3) in [0, 1]: the n tokens' first three principal components over the drive.
        camera_times_s: (C,); camera_jpegs: C JPEGs of all cameras side by side, in the rig's order.
        forecasts, counterfactual: see there.
        actors: per tick (m, 5) boxes x, y, yaw, length, width in the world frame; empty tuple where unknown.
        town: name of the town for the big map, or "".
        latent_grid: (rows, columns) if the tokens lie on a grid, else None.
        notes: sentences under the header, e.g. how to read the surprise.
    """

    title: str
    facts: Mapping[str, str]
    times_s: Floats
    ego: Floats
    surprise: Mapping[str, Floats]
    latent_rgb: Floats
    camera_times_s: Floats
    camera_jpegs: tuple[bytes, ...]
    forecasts: Forecasts
    counterfactual: Counterfactual | None = None
    actors: tuple[Floats, ...] = ()
    town: str = ""
    latent_grid: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()

    def validate(self) -> None:
        """Raise ValueError unless the shapes agree."""
        ticks = len(self.times_s)
        if self.ego.shape != (ticks, 5) or self.latent_rgb.ndim != 3 or len(self.latent_rgb) != ticks:
            raise ValueError(f"replay of {ticks} ticks: ego {self.ego.shape}, latent_rgb {self.latent_rgb.shape}")
        if len(self.camera_jpegs) != len(self.camera_times_s) or (self.actors and len(self.actors) != ticks):
            raise ValueError("replay: pictures or actors do not fit their times")
        self.forecasts.validate()


def _numbers(values: Floats, digits: int = 3) -> list[float | None]:
    """JSON numbers, None where there is no number."""
    return [round(float(v), digits) if np.isfinite(v) else None for v in np.ravel(values)]


def _bytes(values: Floats) -> str:
    """[0, 1] as base64 bytes."""
    scaled = np.rint(np.clip(np.nan_to_num(values), 0.0, 1.0) * 255).astype(np.uint8)
    return base64.b64encode(scaled.tobytes()).decode()


def _forecasts(forecasts: Forecasts) -> dict[str, Any]:
    grids: dict[str, Any] = {}
    for name, grid in (("imagined", forecasts.imagined_grid), ("actual", forecasts.actual_grid)):
        if grid is not None:
            grids[name] = {"shape": list(grid.shape), "data": _bytes(grid)}
    return {
        "t": _numbers(forecasts.times_s), "horizon": _numbers(forecasts.horizon_s),
        "imagined": [path_deltas(path, 20) for path in forecasts.imagined_path],
        "actual": [path_deltas(path, 20) for path in forecasts.actual_path],
        "readouts": {
            name: {"imagined": [_numbers(row) for row in imagined], "actual": [_numbers(row) for row in actual]}
            for name, (imagined, actual) in forecasts.readouts.items()
        },
        "grids": grids, "extent": list(forecasts.grid_extent_m),
    }  # fmt: skip


def _counterfactual(branch: Counterfactual | None) -> dict[str, Any] | None:
    if branch is None:
        return None
    series = {
        quantity: {line: _numbers(values) for line, values in lines.items()}
        for quantity, lines in branch.series.items()
    }
    return {"t": round(branch.time_s, 3), "action": branch.action, "times": _numbers(branch.times_s), "series": series}


def _pictures(replay: ReplayData) -> dict[str, Any]:
    chosen = thin(len(replay.camera_jpegs), MOST_PICTURES)
    return {
        "t": _numbers(np.asarray(replay.camera_times_s)[chosen]),
        "jpeg": fit_jpegs([replay.camera_jpegs[i] for i in chosen], PICTURES_BYTES),
    }


def replay_report(replay: ReplayData, network: RoadNetwork | None = None) -> str:
    """The replay as one HTML file.

    Raises:
        ValueError: shapes of `replay` disagree.
    """
    replay.validate()
    ego = np.asarray(replay.ego, np.float64)
    data = {
        "title": replay.title, "facts": dict(replay.facts), "notes": list(replay.notes),
        "t": deltas(np.asarray(replay.times_s), 1000),
        "ego": {"x": deltas(ego[:, 0], 50), "y": deltas(ego[:, 1], 50), "yaw": deltas(np.unwrap(ego[:, 2]), 500)},
        "speed": _numbers(ego[:, 3], 2), "acceleration": _numbers(ego[:, 4], 2),
        "surprise": {name: _numbers(values, 4) for name, values in replay.surprise.items()},
        "latent": {
            "shape": list(replay.latent_rgb.shape), "data": _bytes(replay.latent_rgb),
            "grid": list(replay.latent_grid) if replay.latent_grid else None,
        },
        "pictures": _pictures(replay), "forecasts": _forecasts(replay.forecasts),
        "counterfactual": _counterfactual(replay.counterfactual),
        "actors": [[_numbers(box, 2) for box in np.reshape(boxes, (-1, 5))] for boxes in replay.actors],
    }  # fmt: skip
    nearby = None if network is None else map_data(network, around(ego[:, :2], 60.0))
    return page(f"drivesim replay: {replay.title}", SCRIPTS, {"replay": data, "map": nearby})
