"""One episode as the page's script reads it: tracks, curves, plans and pictures, quantised."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import Episode, Outcome, Plan, Snapshot
from drivesim.reports.packing import deltas, fit_jpegs, path_deltas, rounded, thin
from drivesim.scoring.outcome import verdict_of

EGO_PERIOD_S = 0.1
ACTOR_PERIOD_S = 0.2
ACTOR_RANGE_M = 75.0
MOST_PLANS = 160
MOST_PICTURES = 48
MOST_CANDIDATES = 14
MOST_PLAN_POINTS = 9


def _stride(episode: Episode, period_s: float) -> int:
    return max(1, round(period_s / episode.scenario.dt_s))


def seconds(episode: Episode, time_us: int) -> float:
    """Seconds since the episode's first tick."""
    return round((time_us - int(episode.times_us[0])) / 1e6, 3)


def _ego(episode: Episode) -> dict[str, Any]:
    rows = slice(None, None, _stride(episode, EGO_PERIOD_S))
    ego, controls = episode.ego[rows], episode.controls[rows]
    return {
        "t": deltas((episode.times_us[rows] - episode.times_us[0]) / 1e6, 1000),
        "x": deltas(ego[:, 0], 50), "y": deltas(ego[:, 1], 50), "yaw": deltas(np.unwrap(ego[:, 3]), 500),
        "speed": deltas(ego[:, 4], 100), "acceleration": deltas(ego[:, 5], 100),
        "yaw_rate": deltas(ego[:, 6], 1000), "offset": deltas(ego[:, 7], 100),
        "steer": deltas(controls[:, 0], 500), "throttle": deltas(controls[:, 1], 100),
        "brake": deltas(controls[:, 2], 100),
        "progress": deltas(episode.progress_m[rows], 10),
    }  # fmt: skip


def _near_ego(episode: Episode) -> NDArray[np.bool_]:
    ticks = np.minimum(episode.actor_tick, len(episode.ego) - 1)
    gap_m = np.hypot(*(episode.actor_pose[:, :2] - episode.ego[ticks, :2]).T)
    return np.asarray(gap_m < ACTOR_RANGE_M)


def _kept_ticks(episode: Episode) -> NDArray[np.int64]:
    """Recorded ticks, thinned to one every ACTOR_PERIOD_S."""
    stride, kept, last = _stride(episode, ACTOR_PERIOD_S), [], -(10**9)
    for tick in np.unique(episode.actor_tick).tolist():
        if tick - last >= stride:
            kept.append(tick)
            last = tick
    return np.asarray(kept, np.int64)


def _actors(episode: Episode) -> dict[str, Any]:
    """Tracks of those who came near: per run of consecutive kept ticks, the first tick's index and the poses."""
    if len(episode.actor_tick) == 0:
        return {"t": [], "tracks": []}
    ticks = _kept_ticks(episode)
    chosen = np.isin(episode.actor_tick, ticks) & _near_ego(episode)
    order = np.flatnonzero(chosen)[np.lexsort((episode.actor_tick[chosen], episode.actor_id[chosen]))]
    slot = np.searchsorted(ticks, episode.actor_tick[order])
    breaks = np.flatnonzero((np.diff(episode.actor_id[order]) != 0) | (np.diff(slot) != 1)) + 1
    tracks = []
    for rows, slots in zip(np.split(order, breaks), np.split(slot, breaks), strict=True):
        if len(rows) == 0:
            continue
        pose, size = episode.actor_pose[rows], episode.actor_size[rows[0]]
        tracks.append({
            "id": int(episode.actor_id[rows[0]]), "k": int(episode.actor_kind[rows[0]]), "s": int(slots[0]),
            "l": round(float(size[0]), 2), "w": round(float(size[1]), 2),
            "x": deltas(pose[:, 0], 20), "y": deltas(pose[:, 1], 20), "yaw": deltas(np.unwrap(pose[:, 2]), 100),
        })  # fmt: skip
    times_s = (episode.times_us[np.minimum(ticks, len(episode.times_us) - 1)] - episode.times_us[0]) / 1e6
    return {"t": deltas(times_s, 1000), "tracks": tracks}


def _lights(episode: Episode) -> dict[str, Any]:
    """Stop lines near the driven path and, per change, a string of their states (0 red, 1 yellow, 2 green, 3 off)."""
    if len(episode.stop_pose) == 0 or len(episode.light_tick) == 0:
        return {"stops": [], "t": [], "states": []}
    path = np.concatenate([episode.ego[::10, :2], episode.route_points[::10]])
    gap_m = np.hypot(*(episode.stop_pose[:, None, :2] - path[None]).transpose(2, 0, 1)).min(axis=1)
    near = np.flatnonzero(gap_m < 50.0)
    states = episode.light_state[:, near]
    changed = np.concatenate([[True], np.any(np.diff(states.astype(np.int16), axis=0) != 0, axis=1)])
    ticks = np.minimum(episode.light_tick[changed], len(episode.times_us) - 1)
    return {
        "stops": [
            [
                round(float(v), 2)
                for v in (*episode.stop_pose[i, [0, 1]], episode.stop_pose[i, 3], episode.stop_half_width_m[i])
            ]
            for i in near
        ],
        "t": [seconds(episode, int(episode.times_us[tick])) for tick in ticks],
        "states": ["".join(str(int(v)) for v in row) for row in states[changed]],
    }


def _world_points(poses: NDArray[Any], ego: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., p, 3) poses of the ego frame -> (..., p, 2) of the world, the ego's own place first."""
    c, s = np.cos(ego[3]), np.sin(ego[3])
    local = np.asarray(poses, np.float64)[..., :2]
    world = local @ np.array([[c, s], [-s, c]]) + ego[:2]
    here = np.broadcast_to(ego[:2], (*world.shape[:-2], 1, 2))
    return np.concatenate([here, world], axis=-2)


def _plan(plan: Plan, ego: NDArray[np.float64]) -> dict[str, Any]:
    keep = thin(len(plan.trajectory.poses), MOST_PLAN_POINTS)
    data: dict[str, Any] = {
        "path": path_deltas(_world_points(plan.trajectory.poses[keep], ego), 20),
        "speed": [round(float(v), 1) for v in plan.trajectory.speeds_mps[keep]],
        "horizon": round(float(plan.trajectory.times_s[-1]), 2),
        "terms": rounded(plan.cost_terms), "diagnostics": rounded(plan.diagnostics), "fallback": plan.fallback,
    }  # fmt: skip
    if plan.candidates is not None and len(plan.candidates):
        # Best first: keep the head and a spread of the rest, so that the page shows what was rejected, too.
        chosen = thin(len(plan.candidates), MOST_CANDIDATES)
        points = _world_points(plan.candidates[chosen][:, thin(plan.candidates.shape[1], MOST_PLAN_POINTS)], ego)
        data["candidates"] = [path_deltas(path, 10) for path in points]
        if plan.candidate_costs is not None:
            costs = np.asarray(plan.candidate_costs, np.float64)[chosen]
            data["costs"] = [round(float(v), 3) for v in np.where(np.isfinite(costs), costs, 1e6)]
    return data


def _plans(episode: Episode) -> list[dict[str, Any]]:
    planned = [(snapshot.time_us, snapshot.plan) for snapshot in episode.snapshots if snapshot.plan is not None]
    rows = []
    for i in thin(len(planned), MOST_PLANS):
        time_us, plan = planned[i]
        tick = min(int(np.searchsorted(episode.times_us, time_us)), len(episode.ego) - 1)
        rows.append({"t": seconds(episode, time_us), **_plan(plan, episode.ego[tick])})
    return rows


def pictured(episode: Episode) -> list[Snapshot]:
    """Snapshots that hold a picture."""
    return [snapshot for snapshot in episode.snapshots if snapshot.thumbnail_jpeg]


def picture_data(episode: Episode, budget_bytes: int) -> dict[str, Any]:
    """Times and base64 JPEGs of the camera strip, within a budget."""
    snapshots = pictured(episode)
    chosen = [snapshots[i] for i in thin(len(snapshots), MOST_PICTURES)]
    return {
        "t": [seconds(episode, snapshot.time_us) for snapshot in chosen],
        "jpeg": fit_jpegs([snapshot.thumbnail_jpeg for snapshot in chosen], budget_bytes),
    }


def _latencies(episode: Episode) -> dict[str, list[float]]:
    """name -> [median, 95th percentile, most, n] in milliseconds."""
    return {
        name: [round(float(v), 2) for v in (*np.percentile(samples, [50, 95]), samples.max())] + [len(samples)]
        for name, samples in episode.latencies_ms.items()
        if len(samples)
    }


def path_data(episode: Episode) -> list[list[int]]:
    """The driven path alone, one point every half second: for the other planners' maps."""
    return path_deltas(episode.ego[:: _stride(episode, 0.5), :2], 20)


def episode_data(episode: Episode, outcome: Outcome | None, picture_budget_bytes: int) -> dict[str, Any]:
    """Everything that an episode's part of the page shows."""
    measures = {} if outcome is None else {m.name: [round(m.value, 4), m.unit] for m in outcome.measures if m.valid}
    return {
        "planner": episode.planner, "seed": episode.seed, "end": episode.end.value,
        "duration": seconds(episode, int(episode.times_us[-1])),
        "size": [round(float(v), 2) for v in episode.ego_size_m],
        "route": path_deltas(episode.route_points, 10),
        "measures": measures,
        "ego": _ego(episode), "actors": _actors(episode), "lights": _lights(episode), "plans": _plans(episode),
        "pictures": picture_data(episode, picture_budget_bytes),
        "events": [
            {"kind": e.kind, "t": seconds(episode, e.time_us), "x": round(e.x_m, 2), "y": round(e.y_m, 2),
             "value": round(float(e.value), 3), "text": e.text}
            for e in sorted(verdict_of(episode).events, key=lambda e: e.time_us)
        ],
        "latency": _latencies(episode), "error": episode.error,
    }  # fmt: skip
