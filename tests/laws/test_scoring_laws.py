"""Laws of the score: it is the same in the mirror, never rises with a stricter rule, and a parked car gets nothing."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from drivesim.datatypes import LIGHT_GREEN, LIGHT_RED, EndReason, Episode, Event, Scenario, Waypoint
from drivesim.scoring.comfort import ComfortBounds, comfort
from drivesim.scoring.infractions import Criteria, judge
from drivesim.scoring.leaderboard import VERSIONS, InfractionCounts, driving_score, penalty
from drivesim.scoring.outcome import METRICS, score


def wild_drive(seed: int, moving: bool = True) -> Episode:
    """A wobbly drive along a bent route past lights, with bumps."""
    rng = np.random.default_rng(seed)
    ticks, route_m = 500, 150
    angle = np.cumsum(rng.normal(0.0, 0.01, route_m))
    route = np.concatenate([np.zeros((1, 2)), np.cumsum(np.stack([np.cos(angle), np.sin(angle)], axis=1), axis=0)])
    speed = np.abs(5.0 + np.cumsum(rng.normal(0.0, 0.15, ticks))) if moving else np.zeros(ticks)
    s = np.minimum(np.concatenate([[0.0], np.cumsum(speed[:-1] * 0.05)]), route_m - 1.0)
    heading = np.interp(s, np.arange(route_m), angle)
    lateral = np.cumsum(rng.normal(0.0, 0.12, ticks)) * moving
    ego = np.zeros((ticks, 8))
    for axis in range(2):
        ego[:, axis] = np.interp(s, np.arange(route_m + 1), route[:, axis])
    ego[:, 0] -= lateral * np.sin(heading)
    ego[:, 1] += lateral * np.cos(heading)
    ego[:, 3], ego[:, 4], ego[:, 7] = heading, speed, lateral
    stop_rows = np.array([30, 70, 110])
    stops = np.column_stack([route[stop_rows], np.zeros(3), angle[stop_rows]])
    kinds = ["collision_vehicle", "collision_walker", "collision_static"]
    hits = rng.choice(ticks, 4, replace=False)
    events = tuple(Event(kinds[k % 3], int(t) * 50_000, ego[t, 0], ego[t, 1], k - 1) for k, t in enumerate(hits))
    return Episode(
        scenario=Scenario("wild-v1", "Drivetown", "", (Waypoint(0, 0), Waypoint(1, 0)), 30.0),
        planner="test",
        seed=seed,
        end=EndReason.TIMEOUT,
        times_us=np.arange(ticks, dtype=np.int64) * 50_000,
        ego=ego,
        controls=np.zeros((ticks, 3)),
        route_points=route,
        route_half_width_m=np.full(route_m + 1, 1.75),
        progress_m=s,
        actor_tick=np.zeros(0, np.int32),
        actor_id=np.zeros(0, np.int64),
        actor_kind=np.zeros(0, np.uint8),
        actor_pose=np.zeros((0, 3), np.float32),
        actor_size=np.zeros((0, 2), np.float32),
        light_tick=np.array([0, 250], np.int32),
        light_state=np.array([[LIGHT_RED, LIGHT_GREEN, LIGHT_RED], [LIGHT_RED, LIGHT_RED, LIGHT_RED]], np.uint8),
        stop_pose=stops,
        stop_half_width_m=np.full(3, 1.75),
        ego_size_m=(4.79, 2.16, 1.44),
        events=events,
    )


def mirrored(episode: Episode) -> Episode:
    """The same drive in a world with left and right swapped."""
    flip, stop_flip = np.array([1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0])
    return replace(
        episode,
        ego=episode.ego * [1, -1, 1, -1, 1, 1, -1, -1],
        controls=episode.controls * [-1, 1, 1],
        route_points=episode.route_points * flip,
        stop_pose=episode.stop_pose * stop_flip,
        events=tuple(replace(event, y_m=-event.y_m) for event in episode.events),
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_mirrored_world_gets_the_same_score(seed: int) -> None:
    episode = wild_drive(seed)
    here, there = score(episode), score(mirrored(episode))
    assert here.infractions == pytest.approx(there.infractions)
    for metric in METRICS:
        assert here.value(metric.name) == pytest.approx(there.value(metric.name)), metric.name


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "strict",
    [
        Criteria(outside_margin_m=0.2),
        Criteria(outside_margin_m=0.0),
        Criteria(collision_same_place_m=1.0),
        Criteria(collision_same_actor_s=0.5),
        Criteria(collision_min_speed_mps=0.0),
        Criteria(stop_line_reach=2.0),
        Criteria(complete_within_m=1.0),
    ],
)
def test_a_stricter_threshold_never_raises_the_score(seed: int, strict: Criteria) -> None:
    episode = wild_drive(seed)
    for version in VERSIONS:
        lenient = judge(episode)
        harder = judge(episode, strict)
        before = driving_score(lenient.route_completion_percent, lenient.counts, version)
        after = driving_score(harder.route_completion_percent, harder.counts, version)
        assert after <= before + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_tighter_comfort_bounds_never_raise_comfort(seed: int) -> None:
    episode, base = wild_drive(seed), comfort(wild_drive(seed))
    for name, value in (
        ("lateral_mps2", 2.0),
        ("jerk_mps3", 3.0),
        ("max_longitudinal_mps2", 1.0),
        ("yaw_rate_radps", 0.1),
    ):
        tight = comfort(episode, ComfortBounds(**{name: value}))
        assert tight is not None and base is not None and tight <= base


@pytest.mark.parametrize("version", VERSIONS)
def test_one_more_infraction_never_helps(version: str) -> None:
    rng = np.random.default_rng(0)
    kinds = ["collision_walker", "collision_vehicle", "collision_static", "red_light", "stop_sign"]
    for _ in range(30):
        counts = {kind: float(rng.integers(0, 3)) for kind in kinds}
        outside = float(rng.uniform(0, 50))
        base = penalty(InfractionCounts(counts, outside), version)
        assert 0.0 <= base <= 1.0
        for kind in kinds:
            assert penalty(InfractionCounts({**counts, kind: counts[kind] + 1}, outside), version) < base
        assert penalty(InfractionCounts(counts, outside + 10.0), version) < base


@pytest.mark.parametrize("seed", range(3))
def test_a_parked_car_has_no_progress_and_no_collision(seed: int) -> None:
    outcome = score(wild_drive(seed, moving=False))
    assert outcome.value("route_completion") == 0.0
    assert outcome.value("driving_score") == 0.0
    assert outcome.value("collisions") == 0.0
    assert outcome.value("red_lights") == 0.0
    assert outcome.value("success") == 0.0
    assert outcome.infractions == {}


def test_more_of_the_route_is_never_worth_less() -> None:
    episode = wild_drive(0)
    completion = [
        judge(replace(episode, progress_m=episode.progress_m[:k], times_us=episode.times_us[:k], ego=episode.ego[:k]))
        .route_completion_percent
        for k in range(1, 500, 25)
    ]  # fmt: skip
    assert all(b >= a for a, b in pairwise(completion))
