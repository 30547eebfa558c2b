"""Laws of the renderer: the same seed gives the same bytes, looks never change labels, rays agree with the raster."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from drivesim.town.render import Appearance, Rendered, TownRenderer, Views, staging
from drivesim.town.render.meshes import GROUND_KIND, Meshes
from drivesim.town.render.renderer import camera_axes
from drivesim.town.render.visibility import Instances
from drivesim.town.state import LIGHT_OFF, TownState
from drivesim.town.weather import FOG_DENSITY, FOG_FALLOFF, PARAMETERS, PRECIPITATION, PRESETS
from tests.street import busy_street, straight_street


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> TownRenderer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIVESIM_CACHE", str(tmp_path_factory.mktemp("cache")))
        return TownRenderer(straight_street())


def views(width: int = 256, height: int = 144, count: int = 3) -> Views:
    position = np.tile([[24.0, 1.75, 1.6]], (count, 1))
    rotation = np.zeros((count, 3))
    rotation[:, 2] = np.linspace(-0.7, 0.7, count) if count > 1 else 0.0
    rotation[:, 1] = 0.02
    return Views(position, rotation, np.full(count, np.deg2rad(70.0)), width, height)


NIGHT = np.array([20, 0, 0, 0, 30, -25.0, 0, 0, 0, 0, 0, 0, 0, 0])
STORM = np.array([95, 80, 80, 60, 30, 25.0, 20, 10, 0, 90, 0, 0, 0, 0])


def same(a: Rendered, b: Rendered) -> bool:
    return all(
        (x == y).all()
        for x, y in ((a.bgra, b.bgra), (a.depth_m, b.depth_m), (a.semantic, b.semantic), (a.instance, b.instance))
    )


@pytest.mark.parametrize("weather", [NIGHT, STORM])
def test_same_seed_same_bytes(renderer: TownRenderer, weather: NDArray[np.float64]) -> None:
    look, state = Appearance.from_weather(weather, 4), busy_street()
    first = renderer.render(state, views(), look, frame_seed=9)
    renderer.render(
        busy_street(), views(count=1), Appearance(), frame_seed=2
    )  # another call in between leaves no trace
    assert same(first, renderer.render(state, views(), look, frame_seed=9))
    assert not (first.bgra == renderer.render(state, views(), look, frame_seed=10).bgra).all()


def test_appearances_share_labels_exactly(renderer: TownRenderer) -> None:
    state, rng = busy_street(), np.random.default_rng(5)
    plain = renderer.render(state, views(), Appearance())
    for look in (
        Appearance.from_weather(NIGHT, 1),
        Appearance.from_weather(STORM, 2),
        Appearance.random(rng),
        Appearance.random(rng),
    ):
        other = renderer.render(state, views(), look)
        assert (plain.semantic == other.semantic).all()
        assert (plain.depth_m == other.depth_m).all()
        assert (plain.instance == other.instance).all()
        assert np.abs(plain.bgra.astype(int) - other.bgra).mean() > 2.0


def test_random_appearances_follow_the_generator() -> None:
    assert Appearance.random(np.random.default_rng(3)) == Appearance.random(np.random.default_rng(3))
    assert Appearance.random(np.random.default_rng(3)) != Appearance.random(np.random.default_rng(4))


def test_views_do_not_depend_on_their_neighbours_or_threads(renderer: TownRenderer) -> None:
    state, look = busy_street(), Appearance(noise=0.0)
    together = renderer.render(state, views(), look)
    v = views()
    single = Views(v.position_m[1:2], v.rotation_rad[1:2], v.fov_rad[1:2], v.width, v.height)
    alone = renderer.render(state, single, look)
    assert (together.bgra[1] == alone.bgra[0]).all() and (together.instance[1] == alone.instance[0]).all()
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(lambda _: renderer.render(state, views(), look), range(4)):
            assert same(together, result)


def test_the_state_is_only_read(renderer: TownRenderer) -> None:
    state = busy_street()
    before = state.to_bytes()
    renderer.render(state, views(), Appearance())
    assert state.to_bytes() == before


def test_the_raster_agrees_with_rays(renderer: TownRenderer) -> None:
    """Depth and ids against a slow ray caster in plain NumPy over the same polygons."""
    state = busy_street()
    state.light_state[:] = LIGHT_OFF
    look = views(64, 36, 1)
    out = renderer.render(state, look, Appearance())
    depth, ident = cast_rays(renderer, state, look)
    agree = ident == out.instance[0]
    assert agree.mean() >= 0.995
    error = np.abs(out.depth_m[0] - depth) / depth
    assert np.mean(error < 1e-3) >= 0.99
    assert np.median(error) < 1e-5


def cast_rays(renderer: TownRenderer, state: TownState, look: Views) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Nearest front-facing polygon along each pixel's ray: depth (h, w) and instance id."""
    axes = camera_axes(look.rotation_rad)[0].astype(float)
    focal = look.width / 2 / np.tan(look.fov_rad[0] / 2)
    column, row = np.meshgrid(
        np.arange(look.width) - look.width / 2 + 0.5, np.arange(look.height) - look.height / 2 + 0.5
    )
    rays = axes[2] + column[..., None] / focal * axes[0] + row[..., None] / focal * axes[1]
    depth, ident = np.full(column.shape, 1000.0), np.zeros(column.shape, int)
    actors = staged(renderer, state)
    origin = look.position_m[0]
    for things in (actors, renderer.standing.instances):
        for i in range(len(things.mesh)):
            mesh = int(things.mesh[i])
            if mesh < 0:
                continue
            rotation = things.rotation[i].reshape(3, 3).astype(float)
            centre = things.position[i] + rotation[:, 2] * things.centre_z[i] * things.scale[i] - origin
            ahead = float(axes[2] @ centre)
            reach = float(things.radius[i] * things.scale[i])
            if ahead > reach and reach * focal / ahead < things.far_px[i]:
                mesh = int(things.far[i])
            if ahead > reach and reach * focal / ahead < 0.5:
                continue
            hit_mesh(
                renderer.scene.meshes,
                mesh,
                rotation,
                things.position[i] - origin,
                float(things.scale[i]),
                rays,
                depth,
                ident,
                int(things.ident[i]),
            )
    return depth, ident


def staged(renderer: TownRenderer, state: TownState) -> Instances:
    """The instances the renderer made of the actors in its last call."""
    workers = renderer._local.__dict__["workers"]
    return next(worker.actors for key, worker in workers.items() if key[0] == 64 and key[2] == len(state.kind))


def hit_mesh(
    meshes: Meshes,
    mesh: int,
    rotation: NDArray[np.float64],
    offset: NDArray[np.float64],
    scale: float,
    rays: NDArray[np.float64],
    depth: NDArray[np.float64],
    ident: NDArray[np.int64],
    number: int,
) -> None:
    """Shorten `depth` where a polygon of the mesh is nearer."""
    first_vertex, _, first, count = (int(v) for v in meshes.table[mesh])
    for p in range(first, first + count):
        corners = (
            meshes.vertex[first_vertex + meshes.corner[p, : meshes.corners[p]]].astype(float) * scale @ rotation.T
            + offset
        )
        normal = rotation @ meshes.plane[p, :3].astype(float)
        height = -float(normal @ corners[0])
        if height <= 1e-4:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            t = -height / (rays @ normal)
        hit = (t > 0.12) & (t < depth)
        if not hit.any():
            continue
        at = rays[hit] * t[hit][:, None]
        edge = np.roll(corners, -1, axis=0) - corners
        side = np.einsum("k,nek->ne", normal, np.cross(edge[None], at[:, None] - corners[None]))
        inside = (side >= 0).all(axis=1) | (side <= 0).all(axis=1)
        rows, columns = np.nonzero(hit)
        depth[rows[inside], columns[inside]] = t[hit][inside]
        ident[rows[inside], columns[inside]] = number


def test_every_ground_polygon_is_of_the_ground(renderer: TownRenderer) -> None:
    meshes = renderer.scene.meshes
    assert (meshes.plane[meshes.kind == GROUND_KIND, 2] > 0.3).all()
    np.testing.assert_allclose(np.linalg.norm(meshes.plane[:, :3], axis=1), 1.0, atol=1e-4)
    assert staging.empty_instances(3).mesh.tolist() == [-1, -1, -1]


USUAL = np.array([20.0, 0, 0, 10, 60, 30.0, 3, 0.75, 0.1, 0, 1.0, 0.03, 0.0331, 0])
FOGGY = {FOG_DENSITY: 60.0}


@pytest.mark.parametrize(
    ("name", "value", "around"),
    [
        ("cloudiness", 90.0, {}),
        ("precipitation", 80.0, {}),
        ("precipitation_deposits", 90.0, {}),
        ("wind_intensity", 100.0, {}),
        ("wind_intensity", 100.0, {PRECIPITATION: 50.0}),
        ("sun_azimuth_angle", 200.0, {}),
        ("sun_altitude_angle", 5.0, {}),
        ("fog_density", 60.0, {}),
        ("fog_distance", 120.0, FOGGY),
        ("fog_falloff", 5.0, FOGGY),
        ("wetness", 90.0, {}),
        ("scattering_intensity", 0.0, FOGGY),
        ("mie_scattering_scale", 0.6, {}),
        ("rayleigh_scattering_scale", 0.15, {}),
        ("dust_storm", 90.0, {}),
    ],
)
def test_every_weather_parameter_shows(
    renderer: TownRenderer, name: str, value: float, around: dict[int, float]
) -> None:
    weather = USUAL.copy()
    for index, number in around.items():
        weather[index] = number
    changed = weather.copy()
    changed[PARAMETERS.index(name)] = value
    state = busy_street()
    before = renderer.render(state, views(), Appearance.from_weather(weather))
    after = renderer.render(state, views(), Appearance.from_weather(changed))
    difference = np.abs(after.bgra.astype(int) - before.bgra)[..., :3].max(axis=-1)
    assert (difference > 6).mean() > 0.003
    assert (before.semantic == after.semantic).all() and (before.depth_m == after.depth_m).all()


def test_usual_air_is_exactly_neutral() -> None:
    """Presets, also after the wire's float32, and random looks leave wind, falloff and scattering as they were."""
    fields = ("lean", "gale", "fog_low_1pm", "fog_glow", "mie", "rayleigh")
    usual = tuple(getattr(Appearance(), name) for name in fields)
    looks = [Appearance.random(np.random.default_rng(seed)) for seed in range(20)]
    looks += [Appearance.from_weather(np.array(row).astype(np.float32)) for row in PRESETS.values()]
    looks += [Appearance.from_weather(np.array(row)) for row in PRESETS.values()]
    assert all(tuple(getattr(look, name) for name in fields) == usual for look in looks)
    rows = np.arange(400)
    assert (rows.astype(np.float32) * np.float32(Appearance().lean)).astype(int).tolist() == (rows // 5).tolist()


def test_heavy_fog_lies_on_the_ground(renderer: TownRenderer) -> None:
    """With a high falloff roofs and poles come out of the fog before the road does."""
    weather = USUAL.copy()
    weather[FOG_DENSITY] = 80.0
    low = weather.copy()
    low[FOG_FALLOFF] = 6.0
    clear = weather.copy()
    clear[FOG_DENSITY] = 0.0
    state, v = busy_street(), views(count=1)
    seen = [renderer.render(state, v, replace(Appearance.from_weather(w), noise=0.0)) for w in (clear, weather, low)]
    lost = [np.abs(out.bgra.astype(int) - seen[0].bgra)[0, ..., :3].max(axis=-1) for out in seen[1:]]
    solid = seen[0].depth_m[0] < 200.0
    above, road = solid.copy(), solid.copy()
    above[45:], road[:90] = False, False
    assert lost[1][above].mean() < 0.6 * lost[0][above].mean()
    assert lost[1][road].mean() > 0.5 * lost[0][road].mean()
