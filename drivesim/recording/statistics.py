"""What a set of logs holds: how often something was ahead, how often it went wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import ACTOR_VEHICLE, ACTOR_WALKER, LIGHT_RED
from drivesim.logs import MODE_RISKY, DriveLog
from drivesim.logs.schema import COUNT_ACTORS, COUNT_CONTACTS, COUNT_LIGHTS, COUNT_ROUTE

_AHEAD_COLUMNS = ("ego", "counts", "route", "actor_kind", "actor_pose", "light_state", "light_stop")
LEAD_M, RED_M, WALKER_M = 40.0, 40.0, 25.0


@dataclass(frozen=True)
class LogStatistics:
    """Figures over many logs; fractions of ticks unless the name says drives."""

    drives: int
    risky_drives: int
    ticks: int
    hours: float
    safe_drives_with_collision: float
    risky_drives_with_collision: float
    mean_speed_mps: float
    standing: float
    lead_within_40m: float
    red_light_within_40m: float
    walker_ahead_within_25m: float
    drives_with_walker_on_route: float
    mean_abs_curvature_1pm: float
    braking_harder_than_3mps2: float
    expert_disagrees_1mps2: float

    def __str__(self) -> str:
        return "\n".join(f"{name:32s} {value:.3f}" if isinstance(value, float) else f"{name:32s} {value}"
                         for name, value in self.__dict__.items())  # fmt: skip


def log_statistics(logs: Iterable[DriveLog]) -> LogStatistics:
    """Figures over logs.

    Raises:
        ValueError: no logs.
    """
    rows = [_of_log(log) for log in logs]
    if not rows:
        raise ValueError("no logs to count")
    risky = np.array([row["risky"] for row in rows]) > 0
    hit = np.array([row["hit"] for row in rows])
    ticks = np.array([row["ticks"] for row in rows])

    def over_ticks(name: str) -> float:
        return float(np.average([row[name] for row in rows], weights=ticks))

    return LogStatistics(
        drives=len(rows),
        risky_drives=int(risky.sum()),
        ticks=int(ticks.sum()),
        hours=sum(row["seconds"] for row in rows) / 3600.0,
        safe_drives_with_collision=float(hit[~risky].mean()) if np.any(~risky) else 0.0,
        risky_drives_with_collision=float(hit[risky].mean()) if np.any(risky) else 0.0,
        mean_speed_mps=over_ticks("speed"),
        standing=over_ticks("standing"),
        lead_within_40m=over_ticks("lead"),
        red_light_within_40m=over_ticks("red"),
        walker_ahead_within_25m=over_ticks("walker"),
        drives_with_walker_on_route=float(np.mean([row["crossing"] > 0 for row in rows])),
        mean_abs_curvature_1pm=over_ticks("curvature"),
        braking_harder_than_3mps2=over_ticks("braking"),
        expert_disagrees_1mps2=over_ticks("disagrees"),
    )


def _of_log(log: DriveLog) -> dict[str, float]:
    ego, action, expert = log.column("ego"), log.column("action"), log.column("expert")
    columns = {name: log.column(name) for name in _AHEAD_COLUMNS}
    ahead = np.array([_ahead({name: values[i] for name, values in columns.items()}) for i in range(len(log))])
    speed = ego[:, 6]
    return {
        "risky": float(np.any(log.column("mode") == MODE_RISKY)),
        "hit": float(np.any(log.column("counts")[:, COUNT_CONTACTS] > 0)),
        "ticks": float(len(log)),
        "seconds": float(log.times_us[-1] - log.times_us[0]) * 1e-6,
        "speed": float(speed.mean()),
        "standing": float((np.abs(speed) < 0.3).mean()),
        "lead": float((ahead[:, 0] < LEAD_M).mean()),
        "red": float((ahead[:, 1] < RED_M).mean()),
        "walker": float((ahead[:, 2] < WALKER_M).mean()),
        "crossing": float((ahead[:, 3] < WALKER_M).sum()),
        "curvature": float(np.abs(action[:, 1]).mean()),
        "braking": float((action[:, 0] < -3.0).mean()),
        "disagrees": float((np.abs(action[:, 0] - expert[:, 0]) > 1.0).mean()),
    }


def _ahead(tick: dict[str, NDArray[Any]]) -> tuple[float, float, float, float]:
    """Distance (inf: none) to the lead, the next red light, the nearest walker ahead, and the nearest on the route."""
    ego, counts = tick["ego"], tick["counts"]
    route = tick["route"][: counts[COUNT_ROUTE], :2]
    poses = tick["actor_pose"][: counts[COUNT_ACTORS]]
    kinds = tick["actor_kind"][: counts[COUNT_ACTORS]]
    at, side, turn = _beside(route, ego, poses[:, [0, 1, 3]])
    lights = tick["light_stop"][: counts[COUNT_LIGHTS]]
    red_at, red_side, red_turn = _beside(route, ego, lights[:, [0, 1, 3]])
    front = ego[9] / 2.0 + ego[11]
    lead = (kinds == ACTOR_VEHICLE) & (np.abs(side) < 1.7) & (np.cos(turn) > 0.5) & (at > 2.0)
    walker = (kinds == ACTOR_WALKER) & (np.abs(side) < 8.0) & (at > 0.0)
    crossing = walker & (np.abs(side) < 1.9)
    red = (tick["light_state"][: len(lights)] == LIGHT_RED) & (np.abs(red_side) < 1.7) & (np.cos(red_turn) > 0.5)
    return (
        _nearest(at, lead),
        _nearest(red_at, red & (red_at > front - 1.0)),
        _nearest(at, walker),
        _nearest(at, crossing),
    )


def _nearest(at: NDArray[np.float64], who: NDArray[np.bool_]) -> float:
    return float(at[who].min()) if np.any(who) else np.inf


def _beside(
    route: NDArray[np.float64], ego: NDArray[np.float64], poses: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Arc length from the ego, left offset and turn against the route (ego frame) of world poses (n, 3)."""
    if len(poses) == 0 or len(route) < 2:
        return np.full(len(poses), np.inf), np.full(len(poses), np.inf), np.zeros(len(poses))
    c, s = np.cos(ego[5]), np.sin(ego[5])
    dx, dy = poses[:, 0] - ego[0], poses[:, 1] - ego[1]
    place = np.stack([c * dx + s * dy, c * dy - s * dx], axis=1)
    steps = np.diff(route, axis=0)
    heading = np.arctan2(steps[:, 1], steps[:, 0])
    length = np.concatenate([[0.0], np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))])
    gap = place[:, None] - route[None, :-1]
    k = np.argmin((gap**2).sum(-1), axis=1)
    rest = gap[np.arange(len(k)), k]
    ch, sh = np.cos(heading[k]), np.sin(heading[k])
    origin = length[int(np.argmin((route**2).sum(1)))]
    along = length[k] + ch * rest[:, 0] + sh * rest[:, 1] - origin
    beyond = np.hypot(rest[:, 0], rest[:, 1]) > 12.0
    turn = poses[:, 2] - ego[5] - heading[k]
    return np.where(beyond, np.inf, along), np.where(beyond, np.inf, ch * rest[:, 1] - sh * rest[:, 0]), turn
