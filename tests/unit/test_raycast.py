"""Rays against the scene: as the pictures have it, and as plain arithmetic over all polygons has it."""

from __future__ import annotations

import numpy as np
import pytest

from drivesim.town import towns
from drivesim.town.render.boxtree import box_tree
from drivesim.town.render.raycast import MISS, RayCaster
from drivesim.town.render.renderer import Appearance, TownRenderer, Views, camera_axes
from drivesim.town.render.seen_things import Camera, ThingFinder
from drivesim.town.town import Town

WIDTH, HEIGHT = 160, 90


@pytest.fixture(scope="module")
def street():
    """A town with traffic, its renderer, and a caster."""
    network = towns.road_network("Drivetown")
    town = Town(network, seed=0)
    town.populate(30, 15, rng=np.random.default_rng(1))
    for _ in range(10):
        town.step(0.05)
    renderer = TownRenderer(network)
    return town, renderer, RayCaster(renderer.scene, renderer.standing)


def _eye(town, row=0):
    """Over a car, a little askew, with the nearest other actor in view."""
    away = town.state.xyz[town.state.kind > 0] - town.state.xyz[row]
    ahead = away[np.argsort(np.hypot(away[:, 0], away[:, 1]))[1]]
    return town.state.xyz[row] + [0.0, 0.0, 2.2], np.array([0.02, -0.12, np.arctan2(ahead[1], ahead[0]) + 0.1])


def _pixel_rays(rotation, fov_rad=1.4):
    focal = WIDTH / 2 / np.tan(fov_rad / 2)
    u, v = np.meshgrid(np.arange(WIDTH) - WIDTH / 2 + 0.5, np.arange(HEIGHT) - HEIGHT / 2 + 0.5)
    axes = camera_axes(rotation[None])[0].astype(float)
    rays = axes[0] * (u[..., None] / focal) + axes[1] * (v[..., None] / focal) + axes[2]
    length = np.linalg.norm(rays, axis=-1)
    return (rays / length[..., None]).reshape(-1, 3).astype(np.float32), length.ravel()


def test_rays_meet_what_the_pictures_show(street):
    town, renderer, caster = street
    origin, rotation = _eye(town)
    views = Views(origin[None], rotation[None], np.array([1.4]), WIDTH, HEIGHT)
    drawn = renderer.render(town.state, views, Appearance())
    rays, length = _pixel_rays(rotation)
    staged = caster.stage(town.state)
    hits = caster.cast(staged, origin, rays, 1500.0)
    points = origin + rays.astype(float) * hits.range_m[:, None]
    normals, labels = caster.surfaces(staged, hits, points)
    leaves = (labels == 9) | (drawn.semantic[0].ravel() == 9)  # pictures show coarser trees from a few metres on
    near = (drawn.depth_m[0].ravel() < 40.0) & ~leaves
    depth = hits.range_m / length
    assert near.mean() > 0.4
    assert (np.abs(depth - drawn.depth_m[0].ravel())[near] < 2e-3 * depth[near] + 1e-3).mean() > 0.998
    assert (hits.actor_row + 1 == drawn.instance[0].ravel())[near].mean() > 0.998
    fine = near & (depth < 12.0)  # farther off the pictures show a coarser ground
    assert (labels == drawn.semantic[0].ravel())[fine].mean() > 0.985
    found = ThingFinder(renderer.scene)
    camera = Camera(origin, rotation, 1.4, WIDTH, HEIGHT)
    seen = found.find(staged, camera)
    assert np.array_equal(seen.depth_m.reshape(HEIGHT, WIDTH)[HEIGHT // 2 :], drawn.depth_m[0, HEIGHT // 2 :])
    same = near & (seen.thing == hits.thing)
    shown = found.normals(staged, seen, camera).reshape(-1, 3)
    assert same[near].mean() > 0.998 and (np.abs(shown - normals).max(axis=1) < 1e-3)[same].mean() > 0.99


def test_the_tree_finds_what_a_search_of_all_polygons_finds(street):
    town, renderer, caster = street
    scene, origin = renderer.scene, _eye(town)[0]
    rng = np.random.default_rng(0)
    rays = rng.normal(size=(60, 3)) * [1.0, 1.0, 0.3]
    rays = (rays / np.linalg.norm(rays, axis=1)[:, None]).astype(np.float32)
    hits = caster.cast(caster.stage(town.state), origin, rays, 80.0)
    staged = caster.stage(town.state)
    best = np.full(len(rays), 80.0)
    for bodies in (staged.standing, staged.moving):
        for i in range(len(bodies.mesh)):
            if bodies.mesh[i] >= 0 and np.hypot(*(bodies.position[i] - origin)[:2]) < 160.0:
                best = np.minimum(best, _nearest(scene.meshes, bodies, i, origin, rays.astype(float)))
    assert hits.range_m == pytest.approx(best, abs=2e-3)
    assert np.array_equal(hits.thing == MISS, best >= 80.0)
    assert (best < 80.0).sum() > 20


def _nearest(meshes, bodies, i, origin, rays):
    """(n,) metres to the front of a body's polygons, or inf."""
    turn, scale = bodies.rotation[i].reshape(3, 3).astype(float), float(bodies.scale[i])
    o, d = (origin - bodies.position[i]) @ turn / scale, rays @ turn / scale
    base, _, first, count = meshes.table[bodies.mesh[i]]
    best = np.full(len(rays), np.inf)
    for p in range(first, first + count):
        plane = meshes.plane[p].astype(float)
        against = d @ plane[:3]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = -(o @ plane[:3] + plane[3]) / against
        ring = meshes.vertex[base + meshes.corner[p, : meshes.corners[p]]].astype(float)
        side = np.stack([np.cross(np.roll(ring, -1, 0)[k] - ring[k], o + t[:, None] * d - ring[k]) @ plane[:3]
                         for k in range(len(ring))])  # fmt: skip
        inside = (side >= -1e-9).all(axis=0) | (side <= 1e-9).all(axis=0)
        best = np.where((against < 0.0) & (t > 0.0) & inside, np.minimum(best, t), best)
    return best


def test_parts_hidden_actors_and_what_is_left_out(street):
    town, renderer, caster = street
    origin, rotation = _eye(town)
    rays, _ = _pixel_rays(rotation)
    staged = caster.stage(town.state)
    whole = caster.cast(staged, origin, rays, 100.0)
    pieces = caster.cast(staged, origin, rays, 100.0, part=(0, 5000))
    caster.cast(staged, origin, rays, 100.0, part=(5000, len(rays)), out=pieces)
    assert np.array_equal(whole.range_m, pieces.range_m) and np.array_equal(whole.thing, pieces.thing)
    row = int(whole.actor_row.max())
    assert row >= 0
    through = caster.cast(staged, origin, rays, 100.0, hide_row=row)
    behind = whole.actor_row == row
    assert not (through.actor_row == row).any() and (through.range_m[behind] > whole.range_m[behind]).all()
    assert np.array_equal(through.range_m[~behind], whole.range_m[~behind])
    short = caster.cast(staged, origin, rays, 12.0)
    assert np.array_equal(short.thing == MISS, whole.range_m >= 12.0)
    house = int(whole.thing[(whole.thing >= 0) & (renderer.scene.kind[whole.thing] == 1)][0])
    feet = renderer.scene.position[house : house + 1, :2]
    try:
        renderer.standing.leave_out(feet, np.zeros(len(renderer.scene.lamps), bool))
        assert not (caster.cast(caster.stage(town.state), origin, rays, 100.0).thing == house).any()
    finally:
        renderer.standing.restore()
    assert np.array_equal(caster.cast(caster.stage(town.state), origin, rays, 100.0).thing, whole.thing)


def test_trees_hold_every_box_once():
    rng = np.random.default_rng(3)
    for count in (0, 1, 2, 7, 500):
        low = rng.uniform(-50.0, 50.0, (count, 3))
        boxes = np.hstack([low, low + rng.uniform(0.1, 9.0, (count, 3))]).astype(np.float32)
        boxes[: count // 3] = boxes[:1]  # many in one place
        for leaf in (1, 4):
            tree = box_tree(boxes, leaf)
            ends = tree.link[tree.link[:, 1] > 0]
            assert sorted(tree.item.tolist()) == list(range(count)) and ends[:, 1].sum() == count
            for node, (first, number) in enumerate(tree.link):
                held = boxes[tree.item[first : first + number]] if number else tree.box[first : first + 2]
                if count:
                    assert (tree.box[node, :3] <= held[:, :3].min(0)).all()
                    assert (tree.box[node, 3:] >= held[:, 3:].max(0)).all()
