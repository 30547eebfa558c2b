"""Laws of lane queries: the grid search equals the plain search, places and lanes are inverse, routes are smooth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from drivesim.town.queries import LaneMap, NoRoute, driving_lanes
from drivesim.town.towns import TownUnavailable, road_network


@pytest.fixture(scope="module", params=["Drivetown", "Town03"])
def lane_map(request: pytest.FixtureRequest) -> LaneMap:
    try:
        return LaneMap(road_network(request.param))
    except TownUnavailable as error:
        pytest.skip(str(error))


def _lane_places(lane_map: LaneMap, rng: np.random.Generator, count: int) -> list[tuple[int, float]]:
    lanes = rng.choice(driving_lanes(lane_map.network), count)
    return [(int(lane), float(rng.uniform(0, lane_map.network.lane_length_m[lane]))) for lane in lanes]


def test_grid_search_equals_plain_search(lane_map: LaneMap) -> None:
    network, rng = lane_map.network, np.random.default_rng(1)
    points = np.flatnonzero(network.lane_kind[network.point_lane] == 0)
    xy = network.point_xyz_m[points, :2].astype(np.float64)
    low, high = xy.min(axis=0) - 15.0, xy.max(axis=0) + 15.0
    for x, y in rng.uniform(low, high, (200, 2)):
        nearest = np.hypot(*(xy - (x, y)).T).min()
        place = lane_map.nearest(x, y)
        assert (place.lane >= 0) == (nearest <= 20.0)
        if place.lane >= 0:
            on_lane = lane_map.at(place.lane, place.s_m)
            assert np.hypot(on_lane.x_m - x, on_lane.y_m - y) <= nearest + 0.02


def test_place_and_lane_are_inverse(lane_map: LaneMap) -> None:
    network, rng = lane_map.network, np.random.default_rng(2)
    for lane, s_m in _lane_places(lane_map, rng, 300):
        point, offset = lane_map.at(lane, s_m), float(rng.uniform(-0.5, 0.5))
        x, y = point.x_m - offset * np.sin(point.yaw_rad), point.y_m + offset * np.cos(point.yaw_rad)
        found = lane_map.nearest(x, y, point.yaw_rad, z_m=point.z_m)
        if found.lane == lane:
            assert found.s_m == pytest.approx(s_m, abs=0.2)
            assert found.offset_m == pytest.approx(offset, abs=0.05)
        else:  # lanes overlap inside junctions, and meet at their ends
            at_end = min(s_m, network.lane_length_m[lane] - s_m) < 0.6
            assert at_end or network.lane_junction[lane] >= 0 or network.lane_junction[found.lane] >= 0
        assert lane_map.ground_height(x, y, point.z_m) == pytest.approx(point.z_m, abs=0.3)


def test_heading_picks_the_lane_of_that_direction(lane_map: LaneMap) -> None:
    network, rng = lane_map.network, np.random.default_rng(3)
    for lane, s_m in _lane_places(lane_map, rng, 100):
        point = lane_map.at(lane, s_m)
        if network.lane_junction[lane] < 0:
            found = lane_map.nearest(point.x_m, point.y_m, point.yaw_rad, z_m=point.z_m)
            assert np.cos(lane_map.at(found.lane, found.s_m).yaw_rad - point.yaw_rad) > 0.7


def test_routes_join_lanes_and_are_smooth(lane_map: LaneMap) -> None:
    network, rng = lane_map.network, np.random.default_rng(4)
    for _ in range(30):
        start, goal = rng.choice(len(network.spawn_lane), 2, replace=False)
        begin = (int(network.spawn_lane[start]), float(network.spawn_s_m[start]))
        end = (int(network.spawn_lane[goal]), float(network.spawn_s_m[goal]))
        lanes = lane_map.route_lanes(*begin, *end)
        assert (lanes[0], lanes[-1]) == (begin[0], end[0])
        for lane, following in itertools.pairwise(lanes):
            beside = following in (network.lane_left[lane], network.lane_right[lane])
            assert beside or following in network.lane_next[lane]
        line = lane_map.route_polyline(lanes, begin[1], end[1])
        steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
        assert np.hypot(*(line[0] - network.spawn_xyz_m[start])[:2]) < 0.1
        assert np.hypot(*(line[-1] - network.spawn_xyz_m[goal])[:2]) < 0.1
        assert steps.max() < 1.2
        headings = np.unwrap(np.arctan2(*np.diff(line[:, :2], axis=0).T[::-1]))
        assert np.abs(np.diff(headings)).max() < 0.6


def test_a_goal_behind_on_the_same_lane_means_going_round(lane_map: LaneMap) -> None:
    network = lane_map.network
    lane = int(network.spawn_lane[0])
    length = float(network.lane_length_m[lane])
    assert lane_map.route_lanes(lane, 0.2 * length, lane, 0.8 * length) == [lane]
    round_trip = lane_map.route_lanes(lane, 0.8 * length, lane, 0.2 * length)
    assert len(round_trip) > 2
    assert round_trip[0] == round_trip[-1] == lane


def test_far_from_all_roads_is_said(lane_map: LaneMap) -> None:
    assert lane_map.nearest(1e5, 1e5).lane == -1
    with pytest.raises(NoRoute, match="no driving lane"):
        lane_map.route((1e5, 1e5, 0.0), (0.0, 0.0))
