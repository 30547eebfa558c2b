"""Episodes on disk: one .npz per episode, arrays and one JSON text in it; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.config import ConfigError, from_dict, to_dict
from drivesim.datatypes import EndReason, Episode, Event, Plan, Scenario, Snapshot, Trajectory

SCHEMA = 1
_ARRAYS = ("times_us", "ego", "controls", "route_points", "route_half_width_m", "progress_m", "actor_tick", "actor_id",
           "actor_kind", "actor_pose", "actor_size", "light_tick", "light_state", "stop_pose",
           "stop_half_width_m")  # fmt: skip
_NOT_IN_DIGEST = ("latencies_ms", "provenance", "error")


class EpisodeError(ValueError):
    """A file that is no whole episode of this version."""


def save_episode(episode: Episode, path: Path) -> None:
    """Write atomically: whoever finds the file finds it whole."""
    arrays, meta = _taken_apart(episode)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    text = json.dumps(meta, allow_nan=False)
    with partial.open("wb") as file:
        np.savez_compressed(file, **{"_meta": np.array(text), **arrays})  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_episode(path: Path) -> Episode:
    """Read what `save_episode` wrote.

    Raises:
        EpisodeError: it is cut short, not an episode, or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            meta: dict[str, Any] = json.loads(str(data["_meta"]))
            if meta.get("schema") != SCHEMA:
                raise EpisodeError(f"{path} has episode schema {meta.get('schema')}, this version reads {SCHEMA}")
            arrays = {name: data[name] for name in data.files if name != "_meta"}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, EpisodeError):
            raise
        raise EpisodeError(f"{path} is no whole episode file ({error}); delete it and run again") from error
    return _put_together(arrays, meta, path)


def episode_digest(episode: Episode) -> str:
    """Sixteen hex digits over all that was driven; latencies, provenance and traceback are left out."""
    arrays, meta = _taken_apart(episode)
    kept = {key: value for key, value in meta.items() if key not in _NOT_IN_DIGEST}
    for snapshot in kept["snapshots"]:
        plan = snapshot["plan"]
        if plan is not None:
            plan["diagnostics"] = {key: value for key, value in plan["diagnostics"].items() if not key.endswith("_ms")}
    h = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
    for name in sorted(arrays):
        if not name.startswith("latency:"):
            array = np.ascontiguousarray(arrays[name])
            h.update(f"{name} {array.dtype} {array.shape}".encode())
            h.update(array.tobytes())
    return h.hexdigest()[:16]


def _taken_apart(episode: Episode) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    arrays: dict[str, NDArray[Any]] = {name: getattr(episode, name) for name in _ARRAYS}
    for name, values in episode.latencies_ms.items():
        arrays[f"latency:{name}"] = values
    meta: dict[str, Any] = {
        "schema": SCHEMA,
        "scenario": to_dict(episode.scenario),
        "planner": episode.planner,
        "seed": episode.seed,
        "end": episode.end.value,
        "ego_size_m": list(episode.ego_size_m),
        "events": [to_dict(event) for event in episode.events],
        "snapshots": [_snapshot_apart(snapshot, k, arrays) for k, snapshot in enumerate(episode.snapshots)],
        "latencies_ms": sorted(episode.latencies_ms),
        "error": episode.error,
        "provenance": episode.provenance,
    }
    return arrays, meta


def _snapshot_apart(snapshot: Snapshot, number: int, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    key = f"snapshot{number}:"
    arrays[key + "jpeg"] = np.frombuffer(snapshot.thumbnail_jpeg, np.uint8)
    if snapshot.latent is not None:
        arrays[key + "latent"] = snapshot.latent
    plan = snapshot.plan
    described = None
    if plan is not None:
        arrays[key + "times"], arrays[key + "poses"] = plan.trajectory.times_s, plan.trajectory.poses
        arrays[key + "speeds"], arrays[key + "actions"] = plan.trajectory.speeds_mps, plan.actions
        if plan.candidates is not None:
            arrays[key + "candidates"] = plan.candidates
        if plan.candidate_costs is not None:
            arrays[key + "candidate_costs"] = plan.candidate_costs
        described = {
            "cost_terms": _finite(plan.cost_terms), "diagnostics": _finite(plan.diagnostics), "fallback": plan.fallback
        }  # fmt: skip
    return {"time_us": snapshot.time_us, "plan": described}


def _finite(values: dict[str, float]) -> dict[str, float]:
    """JSON has no NaN: what is not a number is left out."""
    return {key: float(value) for key, value in values.items() if np.isfinite(value)}


def _put_together(arrays: dict[str, NDArray[Any]], meta: dict[str, Any], path: Path) -> Episode:
    missing = [name for name in _ARRAYS if name not in arrays]
    if missing:
        raise EpisodeError(f"{path} lacks {missing[0]}; delete it and run again")
    try:
        scenario = from_dict(Scenario, meta["scenario"])
        events = tuple(from_dict(Event, event) for event in meta["events"])
    except ConfigError as error:
        raise EpisodeError(f"{path} was written by another version: {error}") from error
    length, width, axle = meta["ego_size_m"]
    return Episode(
        scenario=scenario, planner=meta["planner"], seed=int(meta["seed"]), end=EndReason(meta["end"]),
        **{name: arrays[name] for name in _ARRAYS}, ego_size_m=(length, width, axle), events=events,
        snapshots=tuple(_snapshot_together(item, k, arrays) for k, item in enumerate(meta["snapshots"])),
        latencies_ms={name: arrays[f"latency:{name}"] for name in meta["latencies_ms"]}, error=meta["error"],
        provenance=dict(meta["provenance"]),
    )  # fmt: skip


def _snapshot_together(item: dict[str, Any], number: int, arrays: dict[str, NDArray[Any]]) -> Snapshot:
    key = f"snapshot{number}:"
    plan = None
    if item["plan"] is not None:
        trajectory = Trajectory(arrays[key + "times"], arrays[key + "poses"], arrays[key + "speeds"])
        plan = Plan(
            trajectory, arrays[key + "actions"], dict(item["plan"]["cost_terms"]), arrays.get(key + "candidates"),
            arrays.get(key + "candidate_costs"), dict(item["plan"]["diagnostics"]), item["plan"]["fallback"],
        )  # fmt: skip
    return Snapshot(int(item["time_us"]), plan, arrays[key + "jpeg"].tobytes(), arrays.get(key + "latent"))
