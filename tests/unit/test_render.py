"""The renderer on a street made by hand: depth, sizes, labels, lamps, buffers."""

from __future__ import annotations

import numpy as np
import pytest

from drivesim.town.render import Appearance, Rendered, TownRenderer, Views
from drivesim.town.render.meshes import PEDESTRIANS, ROAD_LINES, ROADS, SIDEWALKS, SKY, TRAFFIC_LIGHT
from drivesim.town.roads import LANE_DRIVING
from drivesim.town.scenery import CLEAR_M, Clearance, scenery
from drivesim.town.state import LIGHT_GREEN, LIGHT_OFF, LIGHT_RED, TownState
from tests.street import put, straight_street

FOV_RAD = float(np.deg2rad(70.0))
FOCAL_PX = 128.0 / np.tan(FOV_RAD / 2)


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> TownRenderer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIVESIM_CACHE", str(tmp_path_factory.mktemp("cache")))
        return TownRenderer(straight_street())


def camera(x: float, *, z: float = 1.6, pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> Views:
    return Views(np.array([[x, 1.75, z]]), np.array([[roll, pitch, yaw]]), np.array([FOV_RAD]), 256, 144)


def empty() -> TownState:
    state = TownState.empty(8, 1, 1)
    state.light_state[:] = LIGHT_OFF
    return state


def test_depth_of_the_road_is_that_of_a_plane(renderer: TownRenderer) -> None:
    out = renderer.render(empty(), camera(20.0), Appearance())
    rows = np.arange(90, 144)
    expected = 1.6 * FOCAL_PX / (rows - 71.5)
    np.testing.assert_allclose(out.depth_m[0, 90:, 128], expected, rtol=1e-4)


def test_a_car_twenty_metres_ahead_covers_its_pixels(renderer: TownRenderer) -> None:
    state = empty()
    put(state, 5, "vehicle.tesla.model3", 42.4, 1.75)
    out = renderer.render(state, camera(20.0), Appearance())
    rows, columns = np.nonzero(out.instance[0] == 6)
    rear_m = 42.4 - 4.79 / 2 - 20.0
    assert np.ptp(columns) + 1 == pytest.approx(FOCAL_PX * 2.16 * 0.93 / rear_m, rel=0.15)
    assert rows.max() == pytest.approx(71.5 + FOCAL_PX * 1.6 / rear_m, abs=2.0)
    assert abs(columns.mean() - 127.5) < 1.0
    assert set(np.unique(out.semantic[0][out.instance[0] == 6])) == {14}
    assert out.depth_m[0][out.instance[0] == 6].min() == pytest.approx(rear_m, abs=0.15)


def test_hide_row_takes_one_actor_out(renderer: TownRenderer) -> None:
    state = empty()
    put(state, 2, "vehicle.tesla.model3", 40.0, 1.75)
    assert (renderer.render(state, camera(20.0), Appearance()).instance == 3).any()
    assert not renderer.render(state, camera(20.0), Appearance(), hide_row=2).instance.any()


def test_a_walker_at_25_m_is_a_figure(renderer: TownRenderer) -> None:
    state = empty()
    put(state, 1, "walker.pedestrian.0001", 45.0, 3.0)
    out = renderer.render(state, camera(20.0), Appearance())
    mask = out.instance[0] == 2
    assert mask.sum() >= 25
    assert np.ptp(np.nonzero(mask)[0]) + 1 >= 12
    assert set(np.unique(out.semantic[0][mask])) == {PEDESTRIANS}
    around = out.bgra[0, ..., :3][mask].astype(int)
    assert len(np.unique(around // 24, axis=0)) >= 3, "clothes, skin and trousers differ"


@pytest.mark.parametrize(("state_of_light", "channel"), [(LIGHT_RED, 2), (LIGHT_GREEN, 1)])
def test_the_lit_lamp_is_seen_from_the_stop_line_and_from_far(
    renderer: TownRenderer, state_of_light: int, channel: int
) -> None:
    state = empty()
    for x in (85.0, 40.0):
        state.light_state[:] = LIGHT_OFF
        dark = renderer.render(state, camera(x), Appearance(noise=0.0))
        dark_bgra = dark.bgra.astype(int)
        state.light_state[:] = state_of_light
        lit = renderer.render(state, camera(x), Appearance(noise=0.0))
        changed = np.abs(lit.bgra.astype(int) - dark_bgra).max(axis=-1)[0] > 40
        assert changed.sum() >= 4
        assert (lit.semantic[0][changed] == TRAFFIC_LIGHT).all()
        assert (lit.bgra[0][changed].argmax(axis=-1) >= 1).all()
        assert np.median(lit.bgra[0][changed][:, :3].argmax(axis=-1)) == channel


def test_looking_down_sees_lanes_paint_and_sidewalks_where_they_are(renderer: TownRenderer) -> None:
    out = renderer.render(empty(), camera(60.0, z=12.0, pitch=-np.pi / 2), Appearance())
    labels = out.semantic[0]
    across = labels[72, :]
    at = 127.5 + FOCAL_PX * (np.array([0.6, 3.4, 4.5, -1.5]) - 1.75) / 12.0
    picked = across[np.round(at).astype(int)]
    assert picked[0] == ROADS and picked[3] == ROADS
    assert picked[1] == ROAD_LINES and picked[2] == SIDEWALKS


def test_roll_pitch_yaw_are_carlas(renderer: TownRenderer) -> None:
    up = renderer.render(empty(), camera(20.0, pitch=0.6), Appearance()).semantic[0]
    assert (up[:20] == SKY).mean() > 0.5
    state = empty()
    put(state, 0, "vehicle.tesla.model3", 32.0, 1.75)
    right = renderer.render(state, camera(20.0, yaw=0.35), Appearance())
    assert np.nonzero(right.instance[0])[1].mean() < 100, "a camera turned to the right sees the car on its left"
    rolled = renderer.render(empty(), camera(20.0, roll=0.2), Appearance()).depth_m[0]
    assert rolled[120, 20] != pytest.approx(rolled[120, 235], rel=0.05)


def test_outputs_and_buffers(renderer: TownRenderer) -> None:
    state, views = empty(), camera(20.0)
    first = renderer.render(state, views, Appearance())
    again = renderer.render(state, views, Appearance(), out=Rendered.empty(1, 144, 256))
    assert (first.bgra == again.bgra).all() and (first.bgra[..., 3] == 255).all()
    only = renderer.render(state, views, Appearance(), outputs=("rgb",))
    assert (only.bgra == first.bgra).all()
    with pytest.raises(ValueError, match="there are rgb"):
        renderer.render(state, views, Appearance(), outputs=("colour",))
    with pytest.raises(ValueError, match="the views need"):
        renderer.render(state, views, Appearance(), out=Rendered.empty(2, 144, 256))


def test_appearance_wants_carlas_fourteen() -> None:
    with pytest.raises(ValueError, match="14"):
        Appearance.from_weather(np.zeros(10))
    night = Appearance.from_weather(np.array([0, 0, 0, 0, 0, -30.0, 0, 0, 0, 0, 0, 0, 0, 0]))
    assert night.night == 1.0 and Appearance().night == 0.0


def test_nothing_stands_on_or_beside_a_driving_lane() -> None:
    network = straight_street()
    placed = scenery(network, 3)
    lanes = Clearance(network, (LANE_DRIVING,))
    assert len(placed.buildings) > 3 and len(placed.trees) > 3 and len(placed.heads) >= 1
    for x, y, yaw, half_length, half_width, _ in placed.solids:
        u, v = np.meshgrid([-half_length, 0.0, half_length], [-half_width, 0.0, half_width])
        corners = np.stack([x + u * np.cos(yaw) - v * np.sin(yaw), y + u * np.sin(yaw) + v * np.cos(yaw)], -1).reshape(
            -1, 2
        )
        assert lanes.at(corners).min() > CLEAR_M - 0.1
    assert (scenery(network, 3).solids == placed.solids).all()
