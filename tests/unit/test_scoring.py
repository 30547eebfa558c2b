"""The driving score, its criteria, comfort and statistics, pinned by worked examples."""

import math

import numpy as np
import pytest

from drivesim.datatypes import (
    LIGHT_GREEN,
    LIGHT_RED,
    EndReason,
    Episode,
    Event,
    Measure,
    Outcome,
    Scenario,
    Waypoint,
)  # fmt: skip
from drivesim.scoring.comfort import comfort, savitzky_golay, signals
from drivesim.scoring.infractions import judge
from drivesim.scoring.leaderboard import InfractionCounts, driving_score, penalty
from drivesim.scoring.outcome import METRICS, score
from drivesim.scoring.scorecard import scorecard, scorecard_from_json, scorecard_json
from drivesim.scoring.statistics import bootstrap_mean, mcnemar, paired_difference, wilson


def straight(
    *, seconds: float = 20.0, speed: float = 5.0, events: tuple[Event, ...] = (), end: EndReason = EndReason.COMPLETED,
    lateral: float = 0.0, stop_x: float | None = None, light: tuple[tuple[int, int], ...] = ((0, LIGHT_RED),),
    route_m: float = 100.0,
) -> Episode:  # fmt: skip
    """A drive along the x axis at constant speed, 20 Hz."""
    ticks = int(seconds * 20) + 1
    t = np.arange(ticks) * 0.05
    ego = np.zeros((ticks, 8))
    ego[:, 0], ego[:, 1], ego[:, 4], ego[:, 7] = speed * t, lateral, speed, lateral
    rows = int(route_m) + 1
    stops = np.zeros((0, 4)) if stop_x is None else np.array([[stop_x, 0.0, 0.0, 0.0]])
    states = np.zeros((0, 0), np.uint8) if stop_x is None else np.array([[state] for _, state in light], np.uint8)
    light_ticks = np.zeros(0, np.int32) if stop_x is None else np.array([tick for tick, _ in light], np.int32)
    return Episode(
        scenario=Scenario("straight-v1", "Drivetown", "", (Waypoint(0, 0), Waypoint(route_m, 0)), 60.0),
        planner="test",
        seed=0,
        end=end,
        times_us=(t * 1e6).round().astype(np.int64),
        ego=ego,
        controls=np.zeros((ticks, 3)),
        route_points=np.column_stack([np.arange(rows), np.zeros(rows)]).astype(float),
        route_half_width_m=np.full(rows, 1.75),
        progress_m=np.clip(speed * t, 0, route_m),
        actor_tick=np.zeros(0, np.int32),
        actor_id=np.zeros(0, np.int64),
        actor_kind=np.zeros(0, np.uint8),
        actor_pose=np.zeros((0, 3), np.float32),
        actor_size=np.zeros((0, 2), np.float32),
        light_tick=light_ticks,
        light_state=states,
        stop_pose=stops,
        stop_half_width_m=np.full(len(stops), 1.75),
        ego_size_m=(4.79, 2.16, 1.44),
        events=events,
        latencies_ms={"plan_ms": np.array([1.0, 2.0, 3.0])},
    )


def hit(kind: str, second: float, x: float, other: int) -> Event:
    return Event(kind, int(second * 1e6), x, 0.0, other)


class TestLeaderboard:
    def test_two_vehicles_and_a_red_light(self) -> None:
        counts = InfractionCounts({"collision_vehicle": 2, "red_light": 1})
        assert driving_score(80.0, counts, "2.0") == pytest.approx(20.16)
        assert driving_score(80.0, counts, "2.1") == pytest.approx(28.571, abs=1e-3)

    def test_one_pedestrian(self) -> None:
        counts = InfractionCounts({"collision_walker": 1})
        for version in ("1.0", "2.0", "2.1"):
            assert driving_score(100.0, counts, version) == pytest.approx(50.0)

    def test_five_vehicles(self) -> None:
        counts = InfractionCounts({"collision_vehicle": 5})
        assert driving_score(100.0, counts, "2.0") == pytest.approx(7.776)
        assert driving_score(100.0, counts, "2.1") == pytest.approx(22.222, abs=1e-3)

    def test_half_the_speed_of_the_traffic(self) -> None:
        counts = InfractionCounts(min_speed_percent=(50.0,))
        assert penalty(counts, "2.0") == pytest.approx(0.85)
        assert penalty(counts, "2.1") == pytest.approx(0.8333, abs=1e-4)
        assert penalty(counts, "1.0") == 1.0
        assert penalty(InfractionCounts(min_speed_percent=(140.0,)), "2.1") == 1.0

    def test_outside_lanes_multiplies_in_every_version(self) -> None:
        for version in ("1.0", "2.0", "2.1"):
            assert penalty(InfractionCounts(outside_lanes_percent=25.0), version) == pytest.approx(0.75)

    def test_stop_sign_timeout_and_emergency(self) -> None:
        counts = InfractionCounts({"stop_sign": 1, "scenario_timeout": 1, "yield_emergency": 1})
        assert penalty(counts, "1.0") == pytest.approx(0.8)
        assert penalty(counts, "2.0") == pytest.approx(0.8 * 0.7 * 0.7)
        assert penalty(counts, "2.1") == pytest.approx(1.0 / 2.05)

    def test_an_unknown_version_lists_the_known(self) -> None:
        with pytest.raises(ValueError, match=r"1\.0, 2\.0, 2\.1"):
            penalty(InfractionCounts(), "3.0")


class TestCollisions:
    def test_the_same_place_or_the_same_actor_counts_once(self) -> None:
        events = (
            hit("collision_vehicle", 2.0, 10.0, 7),
            hit("collision_vehicle", 2.5, 12.5, 8),  # within 5 m of the first
            hit("collision_vehicle", 4.0, 20.0, 7),  # the same actor within 5 s
            hit("collision_vehicle", 8.0, 40.0, 7),
            hit("collision_walker", 12.0, 60.0, 9),
        )
        counts = judge(straight(events=events)).counts.counts
        assert counts["collision_vehicle"] == 2
        assert counts["collision_walker"] == 1

    def test_who_stands_is_not_at_fault(self) -> None:
        episode = straight(speed=0.0, events=(hit("collision_vehicle", 2.0, 0.0, 7),), end=EndReason.TIMEOUT)
        assert judge(episode).clean

    def test_scenery_has_no_id_and_counts_at_each_place(self) -> None:
        events = (hit("collision_static", 2.0, 10.0, -1), hit("collision_static", 3.0, 15.5, -1))
        assert judge(straight(events=events)).counts.counts["collision_static"] == 2


class TestRedLight:
    def test_the_tail_crosses_on_red(self) -> None:
        verdict = judge(straight(stop_x=50.0))
        assert verdict.counts.counts["red_light"] == 1
        event = verdict.events[0]
        tail_us = (50.0 - 1.44 + 0.8 * 4.79 / 2) / 5.0 * 1e6  # when the tail's front end passes the line
        assert event.kind == "red_light"
        assert event.time_us == pytest.approx(tail_us, abs=1e5)

    def test_green_when_the_tail_crosses(self) -> None:
        assert judge(straight(stop_x=50.0, light=((0, LIGHT_RED), (180, LIGHT_GREEN)))).clean

    def test_a_light_that_turned_red_behind_the_tail(self) -> None:
        assert judge(straight(stop_x=50.0, light=((0, LIGHT_GREEN), (230, LIGHT_RED)))).clean

    def test_standing_with_the_nose_over_the_line(self) -> None:
        assert judge(straight(stop_x=2.0, speed=0.0, end=EndReason.TIMEOUT)).clean

    def test_a_light_of_another_lane(self) -> None:
        assert judge(straight(stop_x=50.0, lateral=3.5)).counts.counts["red_light"] == 0


class TestRoute:
    def test_completion(self) -> None:
        assert judge(straight()).route_completion_percent == 100.0
        half = judge(straight(seconds=10.0, end=EndReason.TIMEOUT))
        assert half.route_completion_percent == pytest.approx(50.0, abs=0.5)

    def test_outside_lanes(self) -> None:
        assert judge(straight(lateral=2.2)).counts.outside_lanes_percent == 0.0
        outside = judge(straight(seconds=10.0, lateral=2.3, end=EndReason.TIMEOUT))
        assert outside.counts.outside_lanes_percent == pytest.approx(100.0, abs=1.0)


class TestComfort:
    def test_savitzky_golay_is_exact_on_polynomials(self) -> None:
        t = np.arange(30) * 0.1
        values = 1.0 + 2.0 * t - 0.5 * t**2
        assert np.allclose(savitzky_golay(values, 7, 2), values)
        assert np.allclose(savitzky_golay(values, 7, 2, 1), 2.0 - t)
        assert np.allclose(savitzky_golay(values, 5, 3, 2), -1.0)

    def test_a_circle_has_lateral_acceleration(self) -> None:
        times = (np.arange(200) * 5e4).astype(np.int64)
        values = signals(times, np.full(200, 10.0), times * 1e-6 * 0.5, 1.44)
        assert np.allclose(values["lateral"], 5.0)
        assert np.allclose(values["longitudinal"], -1.44 * 0.25)

    def test_constant_speed_is_comfortable_and_a_dive_is_not(self) -> None:
        calm = straight()
        assert comfort(calm) == 1.0
        rough = straight()
        rough.ego[:, 4] = 5.0 + 2.0 * np.sin(rough.times_us * 1e-6 * 4.0)
        assert comfort(rough) is not None and comfort(rough) < 0.5  # type: ignore[operator]


class TestStatistics:
    def test_wilson(self) -> None:
        estimate = wilson(8, 10)
        assert estimate.mean == 0.8
        assert estimate.ci95 == pytest.approx((0.4902, 0.9433), abs=1e-3)
        assert wilson(10, 10).ci95[1] == pytest.approx(1.0)

    def test_the_bootstrap_draws_clusters(self) -> None:
        values, clusters = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0], ["a"] * 3 + ["b"] * 3
        estimate = bootstrap_mean(values, clusters, np.random.default_rng(0))
        assert estimate.mean == 0.5
        assert estimate.ci95 == (0.0, 1.0)  # two clusters say little, however many seeds each has

    def test_the_bootstrap_finds_the_standard_error(self) -> None:
        values = np.random.default_rng(1).normal(0.0, 1.0, 400)
        low, high = bootstrap_mean(list(values), list(range(400)), np.random.default_rng(0)).ci95
        assert high - low == pytest.approx(2 * 1.96 / 20.0, rel=0.15)

    def test_paired_differences_take_out_the_scenarios(self) -> None:
        outcomes = [
            Outcome(f"s{k}", planner, 0, "completed", (Measure("driving_score", 10.0 * k + bonus, "0-100"),), {})
            for k in range(8) for planner, bonus in (("a", 3.0), ("b", 0.0))
        ]  # fmt: skip
        estimate = paired_difference(outcomes, "a", "b", "driving_score", np.random.default_rng(0))
        assert estimate is not None
        assert estimate.mean == pytest.approx(3.0)
        assert estimate.ci95 == pytest.approx((3.0, 3.0))

    def test_mcnemar(self) -> None:
        assert mcnemar(15, 5) == pytest.approx(81 / 20)
        assert mcnemar(0, 0) == 0.0


class TestScorecard:
    def test_all_metrics_of_a_clean_drive(self) -> None:
        outcome = score(straight())
        assert {m.name for m in outcome.measures} == {m.name for m in METRICS}
        assert outcome.value("driving_score") == 100.0
        assert outcome.value("success") == 1.0
        assert outcome.value("plan_ms_p50") == 2.0
        assert outcome.infractions == {}

    def test_missing_episodes_count_as_zero_and_are_bounded(self) -> None:
        planned = [("straight-v1", "test", 0), ("straight-v1", "test", 1)]
        card = scorecard("suite", [score(straight())], planned)
        measures = card.planners["test"]
        assert measures["driving_score"].mean == 50.0
        assert measures["driving_score_if_missing_were_best"].mean == 100.0
        assert measures["success_rate"].mean == 0.5
        assert card.missing == (("straight-v1", "test", 1),)

    def test_a_planner_with_nothing_but_missing_episodes(self) -> None:
        card = scorecard("suite", [], [("straight-v1", "test", 0)])
        assert card.planners["test"]["driving_score"].mean == 0.0

    def test_duplicates_are_refused(self) -> None:
        with pytest.raises(ValueError, match="two outcomes"):
            scorecard("suite", [score(straight()), score(straight())], [])

    def test_json_round_trip_and_shape(self) -> None:
        card = scorecard("suite", [score(straight())], [("straight-v1", "test", 0)])
        data = scorecard_json(card)
        entry = data["planners"]["test"]["driving_score"]
        assert set(entry) == {"mean", "ci95", "n"} and len(entry["ci95"]) == 2
        assert "success_rate" in data["planners"]["test"]
        assert scorecard_from_json(data) == card
        assert all(math.isfinite(e["mean"]) for m in data["planners"].values() for e in m.values())
