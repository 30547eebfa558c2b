"""The studies of noise, surprise and actions: intervals, edits, disturbances, and each study end to end, small."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from drivesim.datatypes import default_rig
from drivesim.logs import DriveLog
from drivesim.logs.truth import readouts
from drivesim.models import WorldModel, WorldModelConfig
from drivesim.models.critic import CriticConfig, Transition, TransitionCritic
from drivesim.models.views import ViewLayout
from drivesim.recording import RecordConfig, record
from drivesim.recording.branches import stage
from drivesim.recording.rendering import appearance_of, town_state
from drivesim.reports.replay import CRITIC_LINE, replay_data
from drivesim.town.state import KIND_FREE, KIND_VEHICLE, TownState
from eval import actions, bootstrap, displacements, foresight, noise, surprise
from eval.bootstrap import over_drives
from eval.disturbed import DISTURBANCES, DisturbedWorld, Eye
from eval.figure import Bar, Chart, draw, figure
from eval.frozen import study_parser
from eval.impossible import from_ego, in_front, teleported, through_wall, vanished
from eval.moments import KINDS
from eval.nuisances import boards_along, leaves, miscalibrated, rain_streaks, sensor_noise
from eval.probes import DETECTIONS, REGRESSIONS, area_under_curve, fit_probe, r_squared
from eval.surprise import SCORES, Usual, separation
from training.cache import CacheConfig, build_cache, sceneries_of
from training.clips import Clips
from training.latents import Latents, encode_as, encode_clips, latents_of

RECORDING = RecordConfig(
    towns=("Drivetown",), episodes=2, seconds=8.0, period_s=0.5, images=False, route_m=200.0, seed=5, vehicles=8,
    walkers=2,
)  # fmt: skip
WALLS = np.array([[14.0, 11.0, 0.0, 6.0, 4.0, 8.0], [0.0, 0.0, 0.0, 0.1, 0.1, 8.0]])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a cache, the drives that judge it, and a checkpoint of random weights."""
    out = tmp_path_factory.mktemp("studies")
    logs = record(RECORDING, out / "held" / "logs")
    rig = default_rig()
    build_cache(logs, out / "cache", rig, CacheConfig(branch_share=0.35, workers=1, looks=2), lambda _: None)
    for name in ("seen_weather", "unseen_weather"):
        shutil.copytree(out / "cache", out / "held" / name)
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(), rig.digest)
    clips = Clips.load(out / "cache")
    model.encoder.train()  # so that batch statistics are some picture's
    with torch.no_grad():
        for _ in range(20):
            views = torch.from_numpy(np.array(clips.views_a[:16])).permute(0, 1, 4, 2, 3)
            model.encoder(views, torch.from_numpy(clips.intrinsics), torch.from_numpy(clips.cameras_a))
    model.eval().save(out / "random.safetensors", {})
    return out


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "DRAWS", 60)


def options(run: Path, out: Path, **more: object) -> argparse.Namespace:
    """What the command line would give."""
    arguments = [str(run), "--checkpoint", str(run / "random.safetensors"), "--held-out", str(run / "held")]
    found = study_parser(None, "").parse_args([*arguments, "--out", str(out), "--drives", "2", "--probe-rows", "24"])
    return argparse.Namespace(**vars(found), **more)


def a_town() -> TownState:
    """An ego at the origin that looks along x, a car 12 m ahead, one beside."""
    state = TownState.empty(4, 0, 0)
    state.kind[:3] = KIND_VEHICLE
    state.xyz[1], state.xyz[2] = (12.0, 1.0, 0.0), (0.0, 3.5, 0.0)
    return state


def test_intervals_draw_whole_drives() -> None:
    drive = np.repeat(np.arange(20), 10)
    value = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    found = over_drives(lambda rows: float(value[rows].mean()), drive)
    width = found["ci95"][1] - found["ci95"][0]
    assert found["n"] == 200 and found["drives"] == 20
    assert found["value"] == pytest.approx(value.mean())
    assert 0.5 < width / (4.0 * value.std() / np.sqrt(20)) < 1.5, "ten copies of a tick are one draw, not ten"
    assert over_drives(lambda rows: 1.0, np.zeros(5, int))["ci95"] is None, "one drive has no interval"
    assert over_drives(lambda rows: 1.0, np.zeros(0, int))["value"] is None


def test_area_under_curve_halves_ties() -> None:
    label = np.array([0.0, 0.0, 1.0, 1.0])
    assert area_under_curve(np.array([0.0, 1.0, 2.0, 3.0]), label) == 1.0
    assert area_under_curve(np.array([1.0, 1.0, 1.0, 1.0]), label) == 0.5
    assert area_under_curve(np.array([0.0, 2.0, 2.0, 3.0]), label) == pytest.approx(0.875)


def test_impossible_edits_leave_the_town_as_it_was() -> None:
    state, rng = a_town(), np.random.default_rng(0)
    before = state.to_bytes()
    jumped, gone, driven_in = teleported(state, 0, rng), vanished(state, 0), through_wall(state, 0, WALLS)
    assert state.to_bytes() == before
    assert jumped is not None and gone is not None and driven_in is not None
    assert 8.0 <= np.linalg.norm(jumped.xyz[1] - state.xyz[1]) <= 16.0
    assert in_front(jumped, 0, jumped.xyz[1:2, :2])[0]
    assert gone.kind[1] == KIND_FREE and gone.kind[2] == KIND_VEHICLE
    np.testing.assert_allclose(
        driven_in.xyz[1, :2], [12.0, 7.0], err_msg="the nearest point of the wall, not of the post"
    )
    alone = state.copy()
    alone.kind[1] = KIND_FREE
    assert teleported(alone, 0, rng) is None and through_wall(alone, 0, WALLS) is None


def test_what_is_ahead_turns_with_the_ego() -> None:
    state = a_town()
    state.rotation[0, 2] = 0.5 * np.pi
    np.testing.assert_allclose(from_ego(state, 0, state.xyz[2:3, :2]), [[3.5, 0.0]], atol=1e-12)


def test_painted_disturbances_follow_their_seed() -> None:
    images = np.full((2, 72, 128, 3), 120, np.uint8)
    for paint in (leaves, rain_streaks, sensor_noise):
        one, same, other = (paint(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert (one != other).any() and (one != images).any() and (images == 120).all()
    covered = (leaves(images, np.random.default_rng(1)) != 120).any(-1).mean()
    assert 0.01 < covered < 0.3, "leaves hide something, not everything"


def test_a_miscalibrated_camera_is_off_by_what_it_says() -> None:
    rig = default_rig()
    for camera, knocked in zip(rig.cameras, miscalibrated(rig, np.random.default_rng(0)).cameras, strict=True):
        turn = knocked.ego_from_camera.rotation @ camera.ego_from_camera.rotation.T
        assert np.degrees(np.arccos((np.trace(turn) - 1.0) / 2.0)) == pytest.approx(5.0)
        shift = knocked.ego_from_camera.translation_m - camera.ego_from_camera.translation_m
        assert np.linalg.norm(shift) == pytest.approx(0.10)


def test_billboards_stand_beside_the_path_and_face_who_comes() -> None:
    boards = boards_along(np.stack([np.linspace(0.0, 60.0, 40), np.zeros(40)], axis=1))
    assert len(boards) >= 6
    np.testing.assert_allclose(np.abs(boards[:, 1]), 9.0)
    np.testing.assert_allclose(np.cos(boards[:, 3]), -1.0, atol=1e-9)
    assert len(boards_along(np.zeros((5, 2)))) == 0, "a car that never moved has no path"


def test_an_eye_sees_every_disturbance(run: Path) -> None:
    log, rig = DriveLog(sorted((run / "held" / "logs").glob("*.zarr"))[0]), default_rig()
    renderer = stage("Drivetown")[1]
    path = log.column("ego")[:, :2]
    eye = Eye.of(renderer, int(log.attrs["ego_row"]), rig, appearance_of(log), path, 0, 3)
    state, ego = town_state(log, 4), log.frame(4).ego
    seen = eye.see(state, ego, 9, ("clean", *DISTURBANCES))
    np.testing.assert_array_equal(seen["clean"], eye.clean(state, ego, 9))
    for kind in DISTURBANCES:
        if kind != "billboards":  # none may be in sight
            assert (seen[kind] != seen["clean"]).mean() > 0.005, kind
        np.testing.assert_array_equal(seen[kind], eye.see(state, ego, 9, (kind,))[kind])
    in_the_way = replace(eye, boards=np.array([[*ego.world_from_ego.apply(np.array([6.0, 0.0, 0.0]))[:2], 1.5,
                                                ego.yaw_rad + np.pi]]))  # fmt: skip
    front = in_the_way.see(state, ego, 9, ("billboards",))["billboards"][0]
    assert (front != seen["clean"][0]).any(-1).mean() > 0.2


def test_a_disturbed_world_drives_like_the_undisturbed_one(run: Path) -> None:
    from drivesim.datatypes import Control
    from drivesim.worlds.scenario_files import load_scenario

    scenario, frames = load_scenario("parked_van_drivetown-v1"), {}
    for kind in ("clean", "leaves"):
        world = DisturbedWorld(default_rig(), kind)
        world.reset(scenario, 0)
        frames[kind] = [world.step(Control(0.0, 0.6, 0.0)) for _ in range(5)][-1]
    assert frames["clean"].ego == frames["leaves"].ego
    images = frames["clean"].images, frames["leaves"].images
    assert images[0] is not None and images[1] is not None and (images[0] != images[1]).any()


def ordinary(b: int, seed: int) -> Transition:
    """Steps whose errors are a tenth of what moves."""
    rng = torch.Generator().manual_seed(seed)
    before, now, move = torch.randn(3, b, 4, 8, generator=rng)
    predicted = now + move
    came = predicted + 0.3 * torch.randn(b, 4, 8, generator=rng)
    doubt, speed = 0.1 + torch.rand(b, generator=rng), torch.full((b,), 8.0)
    return Transition(before, now, predicted, came, doubt, torch.zeros(b, 2), speed)


def test_surprise_sees_a_jump_and_a_world_that_stands_still() -> None:
    usual, step = Usual.fit(ordinary(400, 0)), ordinary(60, 1)
    calm = usual.judge(step)["unusual"]
    jumped = usual.judge(replace(step, came=step.came + torch.randn(60, 4, 8)))
    frozen = usual.judge(replace(step, came=step.now.clone()))
    assert calm.abs().mean() < 2.0
    assert (jumped["unexpected"] > calm).float().mean() > 0.95
    assert (frozen["stillness"] > 5.0).all() and (frozen["unusual"] > calm).all()
    standing = usual.judge(replace(step, came=step.now.clone(), speed=torch.zeros(60)))
    torch.testing.assert_close(standing["unusual"], standing["unexpected"])


def test_a_replay_shows_what_the_critic_says_where_there_is_one(run: Path) -> None:
    model, log = WorldModel.load(run / "random.safetensors"), sorted((run / "held" / "logs").glob("*.zarr"))[0]
    plain = replay_data(DriveLog(log), model, None)
    judged = replay_data(DriveLog(log), model, None, TransitionCritic(CriticConfig()).eval())
    assert CRITIC_LINE not in plain.surprise and set(plain.surprise) < set(judged.surprise)
    said = np.asarray(judged.surprise[CRITIC_LINE])
    assert np.isnan(said[:2]).all() and ((said[2:] > 0.0) & (said[2:] < 1.0)).all()
    assert any("critic" in note for note in judged.notes)


def test_displaced_moments_know_where_the_car_is_and_are_drawn_once(run: Path, tmp_path: Path) -> None:
    logs = sorted((run / "held" / "logs").glob("*.zarr"))
    frame = DriveLog(logs[0]).frame(4)
    before, there = readouts(frame), readouts(displacements.moved(frame, 0.5, 0.1))
    assert there["lateral"] == pytest.approx(before["lateral"] + 0.5, abs=0.05)
    assert there["heading"] == pytest.approx(before["heading"] - 0.1, abs=0.03)
    config = CacheConfig(workers=1, looks=2)
    first = displacements.displaced(logs, tmp_path / "moments.npy", 8, config)
    again = displacements.displaced(logs, tmp_path / "moments.npy", 8, config)
    assert first.views.shape[:2] == (8, 2) and (first.views == again.views).all()
    assert (first.lateral == again.lateral).all() and first.lateral.std() > 0.3
    assert all((views[0] != views[1]).any() for views in first.views)
    model = WorldModel(WorldModelConfig(), default_rig().digest).eval()
    scores = displacements.judge_where(model.encoder, first, {"same": again}, 0)
    assert scores["same"]["n"] == 8 and set(scores["same"]) == {"lateral_r2", "heading_r2", "n"}


def test_a_drive_is_seen_in_two_sceneries_and_stays_the_same_drive(run: Path, tmp_path: Path) -> None:
    config = CacheConfig(workers=1, looks=2, branch_share=0.0, sceneries=3)
    pairs = [sceneries_of(config, number) for number in range(40)]
    assert pairs == [sceneries_of(config, number) for number in range(40)]
    assert {seed for pair in pairs for seed in pair} == {0, 1, 2} and all(own != other for own, other in pairs)
    assert sceneries_of(replace(config, sceneries=1), 7) == (0, 0)
    logs = sorted((run / "held" / "logs").glob("*.zarr"))[:1]
    for name, sceneries in (("as it is", 1), ("placed anew", 3)):
        build_cache(logs, tmp_path / name, default_rig(), replace(config, sceneries=sceneries), lambda _: None)
    plain, anew = Clips.load(tmp_path / "as it is"), Clips.load(tmp_path / "placed anew")
    assert all((anew.table[key] == column).all() for key, column in plain.table.items())
    assert (anew.cameras_b == plain.cameras_b).all()
    moved = [seed != 0 for seed in pairs[0]]
    differs = [(x != y).mean() > 0.02 for x, y in ((plain.views_a, anew.views_a), (plain.views_b, anew.views_b))]
    assert differs == moved


def test_a_probe_used_to_imagination_reads_two_steps_at_a_time(run: Path) -> None:
    now, imagined = torch.zeros(2, 4, 3), torch.arange(1.0, 4.0)[None, :, None, None].expand(2, 3, 4, 3)
    pairs = foresight.pairs_along(now, imagined)
    assert pairs.shape == (2, 3, 2, 4, 3)
    assert pairs[0, :, :, 0, 0].tolist() == [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
    clips, model = Clips.load(run / "cache"), WorldModel.load(run / "random.safetensors")
    n, d = model.mean.shape
    none = torch.zeros(0, n, d)
    like = Latents(none, none, none, model.mean, model.scale)
    probe = foresight.fit_on_imagined(model.encoder, model.predictor, clips, like, 0, ticks=4)
    assert torch.isfinite(probe(torch.zeros(5, 2, n, d))).all()


def test_separation_leaves_out_what_nobody_saw() -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(size=(40, len(KINDS)))
    there = np.ones(score.shape, bool)
    column = KINDS.index("teleported")
    score[:, column] += 8.0
    score[20:, column], there[20:, column] = -50.0, False
    found = separation(score, there, np.repeat(np.arange(8), 5), ("teleported",))
    assert found["auc"]["value"] == 1.0 and found["auc"]["n"] == 20
    assert found["above_twin"]["value"] == 1.0


def test_differences_of_the_right_size_have_slope_one() -> None:
    rng = np.random.default_rng(0)
    true, drive = rng.normal(size=50), np.repeat(np.arange(10), 5)
    found = actions.effect(true, 0.5 * true, drive.astype(np.int32))
    assert found["sign"]["value"] == 1.0 and found["slope"]["value"] == pytest.approx(0.5)
    assert actions.effect(true, -true, drive.astype(np.int32))["sign"]["value"] == 0.0


def test_actions_are_exchanged_with_other_drives_at_about_the_same_speed() -> None:
    speed, drive = np.repeat(np.arange(64.0), 2) / 8.0, np.tile(np.arange(4), 32).astype(np.int32)
    partner = actions.exchange(speed, drive, 0)
    assert (drive[partner] != drive).all()
    assert np.abs(speed[partner] - speed).max() < 3.0


def test_kept_shares_of_an_auc_are_above_a_half() -> None:
    assert noise.share(0.7, 0.9, "red_light_auc") == pytest.approx(0.5)
    assert noise.share(0.4, 0.8, "lead_gap_r2") == pytest.approx(0.5)
    assert noise.share(0.4, 0.01, "lead_gap_r2") is None and noise.share(None, 0.8, "lead_gap_r2") is None


def test_a_figure_is_one_page_without_requests() -> None:
    measured = {"value": 0.5, "ci95": [0.4, 2.0], "n": 3, "drives": 2}
    missing = {"value": None, "ci95": None, "n": 0, "drives": 0}
    chart = Chart("a < b", "c & d", [Bar("one", measured), Bar("none", missing)], goal=0.9)
    ElementTree.fromstring(draw(chart))
    page = figure("t", "about", [chart, Chart("empty", "", [])])
    assert "a &lt; b" in page and "not to be had" in page and "empty" not in page
    assert "http" not in page and "<script" not in page


def test_encoding_some_rows_equals_encoding_all(run: Path) -> None:
    model, clips = WorldModel.load(run / "random.safetensors"), Clips.load(run / "cache")
    rows = np.array([5, 0, 3])
    for views, cameras in ((clips.views_a, clips.cameras_a), (clips.views_b, clips.cameras_b)):
        some = encode_as(model, views, clips.intrinsics, cameras, rows)
        every = encode_as(model, views[:6], clips.intrinsics, cameras if cameras.ndim == 3 else cameras[:6])
        torch.testing.assert_close(some, every[rows])
        assert some.shape == (3, *model.mean.shape)
    assert encode_as(model, clips.views_a[:0], clips.intrinsics, clips.cameras_a).shape == (0, *model.mean.shape)


def test_latents_in_the_units_of_a_checkpoint(run: Path) -> None:
    model, clips = WorldModel.load(run / "random.safetensors"), Clips.load(run / "cache")
    encoded = latents_of(model, clips, run / "nothing.pt")
    rows = np.arange(4)
    torch.testing.assert_close(
        encoded.b[:4], encode_as(model, clips.views_b, clips.intrinsics, clips.cameras_b, rows), atol=1e-4, rtol=1e-4
    )
    own = encode_clips(clips, model.encoder)
    assert float((own.a - encoded.a).abs().max()) > 0.1, "a run's own units are not the checkpoint's"
    torch.testing.assert_close(encoded.in_units(own.mean, own.scale).branch, own.branch, atol=1e-4, rtol=1e-4)


def test_the_study_of_actions_runs_again_from_what_it_kept(run: Path, tmp_path: Path) -> None:
    wanted = options(run, tmp_path, states=12, without_branches=run / "random.safetensors")
    found = actions.study(wanted)
    assert set(found["models"]) == {"shipped", "without branches"}
    shipped = found["models"]["shipped"]
    assert shipped["effects"]["speed"]["encoded"]["2s"]["sign"]["n"] > 4
    assert 0.0 <= shipped["told_apart"]["1s"]["value"] <= 1.0
    again = actions.study(wanted)
    assert again["models"] == json.loads((tmp_path / "actions.json").read_text())["models"] == found["models"]
    assert "shuffled" in (tmp_path / "actions.html").read_text()


def test_the_study_of_surprise_runs_again_from_what_it_kept(run: Path, tmp_path: Path) -> None:
    wanted = options(run, tmp_path, states=8, skip=0, pasted=8)
    found = surprise.study(wanted)
    assert len(list(tmp_path.glob("critic-*.safetensors"))) == 1
    assert set(found["scores"]) == set(SCORES) and found["moments"] == 8
    assert found["occasions"]["weather"] == 8
    assert found["scores"]["error"]["visual"]["auc"]["n"] == 16
    assert surprise.study(wanted)["scores"] == found["scores"]
    assert (tmp_path / "surprise.html").stat().st_size > 2000


def test_the_study_of_noise_judges_rivals_on_the_same_pictures(run: Path, tmp_path: Path) -> None:
    more = {"states": 6, "draws": 10, "rival": [("twin", run / "random.safetensors")], "closed_loop": ""}
    found = noise.study(options(run, tmp_path, **more))
    shipped, twin = (found["models"][label] for label in ("shipped", "twin"))
    assert shipped == twin and shipped["moments"] == 6
    assert set(shipped["disturbed"]) == set(DISTURBANCES)
    assert shipped["clean"]["retrieval"]["value"] == 1.0
    assert ViewLayout.of(default_rig()).intrinsics.shape[0] == Clips.load(run / "cache").views_a.shape[1]
    assert (tmp_path / "noise.html").stat().st_size > 2000


def test_a_probe_hears_the_slots_that_know_and_needs_to_know_the_drives() -> None:
    rng = torch.Generator().manual_seed(0)
    pairs = torch.randn(400, 2, 5, 8, generator=rng)
    count = len(REGRESSIONS) + len(DETECTIONS)
    targets = torch.zeros(400, count)
    targets[:, 0] = 3.0 + 2.0 * pairs[:, 1, 4, 0]  # the last slot alone says it
    targets[:, 1] = 5.0 * pairs[:, 0, 0, 1]  # and the first one this
    drives = np.repeat(np.arange(20), 20)
    probe = fit_probe(pairs, targets, torch.ones(400, count), 0, steps=300, groups=(4, 1), drives=drives)
    assert probe.shares.sum(0) == pytest.approx(np.ones(count), abs=1e-6)
    assert probe.shares[1, 0] > 0.8 and probe.shares[0, 1] > 0.8
    read = probe(pairs)
    assert r_squared(read[:, 0].double().numpy(), targets[:, 0].double().numpy()) > 0.7
    with pytest.raises(ValueError, match="drives"):
        fit_probe(pairs, targets, torch.ones(400, count), 0, steps=1, groups=(4, 1))
