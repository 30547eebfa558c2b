"""What a driven episode did wrong, by the criteria of the CARLA Leaderboard.

Two rules differ from the original, for want of the map in an episode. Outside route lanes is judged
against the lane that the route follows: leaving it for a neighbouring lane counts too (stricter).
Minimum speed is not judged: the surrounding traffic's speed is not known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import LIGHT_RED, EndReason, Episode, Event
from drivesim.geometry import Polyline
from drivesim.scoring.leaderboard import InfractionCounts

Array = NDArray[np.float64]

COLLISIONS = ("collision_walker", "collision_vehicle", "collision_static")
# Judged by the world, taken from the events. A red light is among them where a world has no stop lines to watch.
REPORTED = ("red_light", "stop_sign", "scenario_timeout", "yield_emergency")
KINDS = (*COLLISIONS, *REPORTED)


@dataclass(frozen=True)
class Criteria:
    """Thresholds of the criteria."""

    collision_min_speed_mps: float = 0.1  # slower, it was the other's fault
    collision_same_place_m: float = 5.0
    collision_same_actor_s: float = 5.0
    outside_margin_m: float = 0.5
    stop_line_reach: float = 1.2  # of the half lane width
    complete_percent: float = 99.0
    complete_within_m: float = 10.0


DEFAULT_CRITERIA = Criteria()


@dataclass(frozen=True)
class Verdict:
    """The judged episode.

    Attributes:
        counts: what the driving score needs.
        route_completion_percent: 0 to 100.
        events: every infraction that counts, in order of time, for the report's time line.
        outside_lanes_m: distance driven outside the route's lanes.
        driven_m: distance driven.
    """

    counts: InfractionCounts
    route_completion_percent: float
    events: tuple[Event, ...]
    outside_lanes_m: float
    driven_m: float

    @property
    def clean(self) -> bool:
        """Whether nothing counts against the driver."""
        return not any(self.counts.counts.values()) and self.counts.outside_lanes_percent <= 0.0


def judge(episode: Episode, criteria: Criteria = DEFAULT_CRITERIA) -> Verdict:
    """Apply all criteria to an episode."""
    events = [*collisions(episode, criteria), *red_lights(episode, criteria)]
    events += [event for event in episode.events if event.kind in REPORTED]
    events.sort(key=lambda event: event.time_us)
    counts = {kind: float(sum(event.kind == kind for event in events)) for kind in KINDS}
    outside_m, driven_m = outside_lanes(episode, criteria)
    percent = 100.0 * min(outside_m / driven_m, 1.0) if driven_m > 0.5 else 0.0
    return Verdict(
        InfractionCounts(counts, percent), route_completion(episode, criteria), tuple(events), outside_m, driven_m
    )


def centers(episode: Episode) -> Array:
    """(T, 2) the centre of the ego's box."""
    yaw, ahead = episode.ego[:, 3], episode.ego_size_m[2]
    return np.asarray(episode.ego[:, :2] + ahead * np.stack([np.cos(yaw), np.sin(yaw)], axis=1))


def route_completion(episode: Episode, criteria: Criteria = DEFAULT_CRITERIA) -> float:
    """Percent of the route driven; 100 from 99 % on if the goal is within 10 m."""
    if episode.end is EndReason.COMPLETED:
        return 100.0
    if len(episode.progress_m) == 0 or len(episode.route_points) < 2:
        return 0.0
    steps = np.diff(episode.route_points, axis=0)
    length = float(np.hypot(steps[:, 0], steps[:, 1]).sum())
    start = min(max(float(episode.progress_m[0]), 0.0), length)
    reached = min(float(episode.progress_m.max()), length)
    percent = 100.0 * max(reached - start, 0.0) / max(length - start, 1e-6)
    if percent > criteria.complete_percent and length - reached < criteria.complete_within_m:
        return 100.0
    return min(max(percent, 0.0), 100.0)


def collisions(episode: Episode, criteria: Criteria = DEFAULT_CRITERIA) -> list[Event]:
    """The collisions that count: not while standing, not again at the same place, not again with the same actor."""
    kept: list[Event] = []
    for event in sorted((e for e in episode.events if e.kind in COLLISIONS), key=lambda e: e.time_us):
        if abs(_speed_before(episode, event.time_us)) < criteria.collision_min_speed_mps:
            continue
        near = kept and np.hypot(event.x_m - kept[-1].x_m, event.y_m - kept[-1].y_m) < criteria.collision_same_place_m
        again = any(
            k.other_id == event.other_id and (event.time_us - k.time_us) * 1e-6 < criteria.collision_same_actor_s
            for k in kept
            if event.other_id >= 0
        )
        if not near and not again:
            kept.append(event)
    return kept


def _speed_before(episode: Episode, time_us: int) -> float:
    """The faster of the ego's speeds at the tick of an event and at the one before: impact itself may stop the car."""
    tick = min(int(np.searchsorted(episode.times_us, time_us)), len(episode.times_us) - 1)
    return float(np.abs(episode.ego[max(tick - 1, 0) : tick + 1, 4]).max()) if len(episode.times_us) else 0.0


def light_states(episode: Episode) -> NDArray[np.uint8]:
    """(T, q) the light of every stop line at every tick."""
    ticks = np.arange(len(episode.times_us))
    row = np.clip(np.searchsorted(episode.light_tick, ticks, side="right") - 1, 0, None)
    return np.asarray(episode.light_state[row])


def red_lights(episode: Episode, criteria: Criteria = DEFAULT_CRITERIA) -> list[Event]:
    """Stop lines that the ego's tail crosses while their light is red; one per light until another one is met.

    The tail runs from 0.8 half lengths to a half length and a metre behind the box's centre. Of several lines
    within reach the laterally nearest is the ego's own.
    """
    if len(episode.light_tick) == 0 or len(episode.stop_pose) == 0 or len(episode.times_us) == 0:
        return []
    crossed, aside = _tail_crossings(episode, criteria)
    red = light_states(episode) == LIGHT_RED
    events: list[Event] = []
    last = -1
    for tick in np.flatnonzero(crossed.any(axis=1)):
        lines = np.flatnonzero(crossed[tick])
        line = int(lines[np.argmin(np.abs(aside[tick, lines]))])
        if line == last or not red[tick, line]:
            continue
        last = line
        x, y = episode.stop_pose[line, :2]
        events.append(
            Event(
                "red_light",
                int(episode.times_us[tick]),
                float(x),
                float(y),
                line,
                text=f"ran a red light (line {line})",
            )
        )
    return events


def _tail_crossings(episode: Episode, criteria: Criteria) -> tuple[NDArray[np.bool_], Array]:
    """(T, q) whether the tail lies across the line in driving direction, and the lateral distance from its centre."""
    half_m = 0.5 * episode.ego_size_m[0]
    yaw = episode.ego[:, 3]
    forward = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
    middle = centers(episode)
    close, far = middle - 0.8 * half_m * forward, middle - (half_m + 1.0) * forward
    stop, heading = episode.stop_pose[:, :2], episode.stop_pose[:, 3]
    along = np.stack([np.cos(heading), np.sin(heading)], axis=1)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    ahead_close = ((close[:, None] - stop) * along).sum(-1)
    ahead_far = ((far[:, None] - stop) * along).sum(-1)
    share = np.clip(
        ahead_close / np.where(np.abs(ahead_close - ahead_far) < 1e-9, 1e-9, ahead_close - ahead_far), 0.0, 1.0
    )
    point = close[:, None] + share[..., None] * (far - close)[:, None]
    aside = ((point - stop) * across).sum(-1)
    reach = criteria.stop_line_reach * episode.stop_half_width_m
    aligned = forward @ along.T > 0.0
    moving = np.abs(episode.ego[:, 4:5]) > 0.05
    return aligned & moving & (ahead_close >= 0.0) & (ahead_far <= 0.0) & (np.abs(aside) < reach), aside


def outside_lanes(episode: Episode, criteria: Criteria = DEFAULT_CRITERIA) -> tuple[float, float]:
    """Metres driven with the box's centre outside the route's lane (by more than 0.5 m), and metres driven."""
    if len(episode.times_us) < 2 or len(episode.route_points) < 2:
        return 0.0, 0.0
    middle = centers(episode)
    moved = np.hypot(*np.diff(middle, axis=0).T)
    line = Polyline.from_points(episode.route_points)
    stations, offset = project_along(line, middle, episode.progress_m + episode.ego_size_m[2])
    half = np.interp(
        stations, np.linspace(0.0, line.length_m, len(episode.route_half_width_m)), episode.route_half_width_m
    )
    within = (stations > 1e-6) & (
        stations < line.length_m - 1e-6
    )  # before the start and behind the goal nothing is known
    outside = within & (np.abs(offset) > half + criteria.outside_margin_m)
    return float(moved[outside[1:]].sum()), float(moved.sum())


def project_along(line: Polyline, points: Array, near_s_m: Array, window_m: int = 15) -> tuple[Array, Array]:
    """Arc length and left offset (T,) of points (T, 2), each searched within `window_m` of a guess (T,)."""
    centre = np.clip(np.searchsorted(line.s_m, near_s_m), 1, len(line.s_m) - 1)
    spread = np.arange(-window_m, window_m)
    index = np.clip(centre[:, None] + spread, 0, len(line.s_m) - 2)
    start, end = line.points_m[index], line.points_m[index + 1]
    step, offset = end - start, points[:, None] - start
    length = line.s_m[index + 1] - line.s_m[index]
    share = np.clip((offset * step).sum(-1) / length**2, 0.0, 1.0)
    gap = offset - share[..., None] * step
    best = np.argmin((gap**2).sum(-1), axis=1)
    rows = np.arange(len(points))
    side = (step[..., 0] * offset[..., 1] - step[..., 1] * offset[..., 0])[rows, best] / length[rows, best]
    return (line.s_m[index] + share * length)[rows, best], side
