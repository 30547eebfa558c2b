"""Laws of incidents: what is drawn is what is labelled, nothing else changes, and lessons stand behind the cache."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from drivesim.datatypes import (
    ACTOR_WALKER,
    LIGHT_GREEN,
    LIGHT_RED,
    ActorStates,
    EgoState,
    Frame,
    LightStates,
    RouteAhead,
)
from drivesim.planning.proposals import drive_route
from drivesim.town.state import KIND_FREE
from drivesim.town.town import WALKER_MODELS, Town
from drivesim.worlds.town_world import actor_states
from tests.street import straight_street
from training.clips import STAGED, Clips
from training.incidents import KINDS, Incident, Scene, draw, in_frame, in_state, on_foot
from training.labels import future_risks, readouts
from training.latents import Latents
from training.staging import with_lessons

STEPS = 6


def moment() -> tuple[Town, int, Frame]:
    """A car on the straight street that drives along +x, alone."""
    town = Town(straight_street(), seed=1)
    ego_row = town.spawn("vehicle.tesla.model3", 20.0, 1.75, 0.0, 0.0)
    ego = EgoState(0, 20.0 - 1.44, -1.75, 0.0, 0.0, 0.0, 0.0, 6.0, 0.0, 0.0)
    points = np.column_stack([np.arange(-1.0, 60.0), np.zeros(61)])
    route = RouteAhead(points, np.full(61, 8.0), 60.0)
    return town, ego_row, Frame(0, None, ego, ActorStates.empty(), LightStates.empty(), route)


def standing_walker(scene: Scene, ahead_m: float, left_m: float) -> Incident:
    return Incident("standing", (scene.track(WALKER_MODELS[0], ahead_m, left_m),))


@pytest.mark.parametrize("kind", [name for name, (_, make) in KINDS.items() if make is not None])
def test_what_is_drawn_is_what_is_labelled(kind: str) -> None:
    town, ego_row, frame = moment()
    state, scene, rng = town.copy_state(), Scene.of(frame, STEPS), np.random.default_rng(5)
    kept, placed = state.to_bytes(), 0
    make = KINDS[kind][1]
    assert make is not None
    for _ in range(40):
        incident = Incident(kind, make(scene, rng))
        for step in (0, 1, 4):
            changed = in_state(town, state, frame.ego, incident, step)
            assert state.to_bytes() == kept
            if changed is None:
                continue
            placed += 1
            assert (changed.xyz[ego_row] == state.xyz[ego_row]).all()
            town.restore(changed)
            drawn = actor_states(town, ego_row)
            told = in_frame(frame, frame.ego, incident, step, np.zeros(0, np.intp)).actors
            told.validate()
            assert len(drawn.ids) == len(told.ids) == len(incident.tracks)
            assert np.allclose(drawn.pose[:, :2], told.pose[:, :2], atol=1e-6)
            assert np.allclose(np.cos(drawn.pose[:, 3]), np.cos(told.pose[:, 3]), atol=1e-6)
            assert np.allclose(drawn.velocity_mps, told.velocity_mps, atol=1e-6)
            assert np.allclose(drawn.size_m, told.size_m) and (drawn.kinds == told.kinds).all()
            assert [k == ACTOR_WALKER for k in told.kinds] == [on_foot(track) for track in incident.tracks]
    assert placed


def test_a_walker_on_the_road_is_hit_by_who_goes_on_and_not_by_who_stops() -> None:
    _, _, frame = moment()
    scene = Scene.of(frame, STEPS)
    for left_m, hit in ((0.0, True), (4.0, False)):
        incident = standing_walker(scene, 14.0, left_m)
        frames = [in_frame(frame, frame.ego, incident, k + 1, np.zeros(0, np.intp)) for k in range(STEPS + 1)]
        drives = drive_route(6.0, frame.route, np.array([[0.0] * STEPS, [-6.0] * STEPS]))
        collides = future_risks(frames, drives.poses, drives.speeds_mps)[..., 0].any(1)
        assert collides.tolist() == [hit, False]
        assert readouts(frames[0])["walker_ahead"] == float(left_m < 4.0)


def test_another_light_is_another_light_in_the_picture_and_in_the_label() -> None:
    town, ego_row, frame = moment()
    town.state.light_state[:] = LIGHT_GREEN
    state, scene = town.copy_state(), Scene.of(frame, STEPS)
    near = replace(frame, ego=replace(frame.ego, x_m=70.0))
    state.xyz[ego_row, 0] = 70.0
    rng = np.random.default_rng(0)
    found = [draw(town, state, ego_row, scene, rng) for _ in range(300)]
    lights = [incident for incident in found if incident is not None and incident.lights is not None]
    assert lights
    changed = in_state(town, state, near.ego, lights[0], 1)
    assert changed is not None and (changed.light_state[lights[0].lights] == LIGHT_RED).all()
    assert ((changed.kind != KIND_FREE) == (state.kind != KIND_FREE)).all()
    rows = np.array([int(np.asarray(lights[0].lights)[0]), 10_000])
    told = replace(near, lights=LightStates(np.full(2, LIGHT_GREEN, np.uint8), np.zeros((2, 4)), np.ones(2)))
    assert in_frame(told, near.ego, lights[0], 1, rows).lights.states.tolist() == [LIGHT_RED, LIGHT_GREEN]


def test_lessons_stand_behind_the_cache_as_episodes_of_two_ticks() -> None:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:  # type: ignore[type-arg]
        return rng.normal(size=shape).astype(np.float32)

    n, count = 10, 3
    clips = Clips(
        views_a=np.zeros((n, 1, 2, 2, 3), np.uint8), views_b=np.zeros((n, 1, 2, 2, 3), np.uint8),
        cameras_b=normal(n, 1, 3, 4), intrinsics=normal(1, 4), cameras_a=normal(1, 3, 4),
        episode=np.repeat([0, 1], 5).astype(np.int32),
        table={"speed": normal(n), "mode": np.zeros(n, np.float32), "risk_valid": np.ones(n, np.float32)},
        branch_views=np.zeros((1, 2, 4, 1, 2, 2, 3), np.uint8), branch_start=np.array([2]),
        branch_action=normal(1, 2, 4, 2), branch_speed=normal(1, 2, 5), branch_reads=normal(1, 2, 4, 9),
    )  # fmt: skip
    mean, scale = torch.full((2, 3), 0.5), torch.full((2, 3), 2.0)
    latents = Latents(torch.zeros(n, 2, 3), torch.zeros(n, 2, 3), torch.zeros(1, 2, 4, 2, 3), mean, scale)
    lessons = {
        "speed": normal(count), "mode": np.full(count, STAGED, np.float32), "risk_valid": np.ones(count, np.float32),
        "context": normal(count, 2, 2, 3), "branched": np.array([1, 0, 1], np.float32),
        "branch": normal(count, 2, 4, 2, 3), "branch_action": normal(count, 2, 4, 2),
        "branch_speed": normal(count, 2, 5),
    }  # fmt: skip
    more, wide = with_lessons(clips, latents, lessons)
    assert with_lessons(clips, latents, {}) == (clips, latents)
    now = np.array([11, 13, 15])
    assert more.starts(2).tolist() == [*range(4), *range(5, 9), 10, 12, 14]
    assert more.starts(3).tolist() == [*range(3), *range(5, 8)]
    assert (more.table["speed"][now] == lessons["speed"]).all()
    assert more.table["risk_valid"][10:].tolist() == [0, 1] * 3
    assert more.branch_start.tolist() == [2, 11, 15] and more.branched().tolist() == [0, 1, 2]
    assert torch.allclose(wide.a[now] * 2.0 + 0.5, torch.from_numpy(lessons["context"][:, 1]))
    assert torch.allclose(wide.b[now - 1] * 2.0 + 0.5, torch.from_numpy(lessons["context"][:, 0]))
    assert torch.allclose(wide.branch[1:] * 2.0 + 0.5, torch.from_numpy(lessons["branch"][[0, 2]]))
    assert (wide.a[:n] == 0).all()
