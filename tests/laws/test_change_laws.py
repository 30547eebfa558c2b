"""Laws of the slots that changes shape, of glances and of heads that answer together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from drivesim.config import ConfigError
from drivesim.datatypes import default_rig
from drivesim.models.encoder import EncoderConfig, SlotEncoder, moved
from drivesim.models.heads import HeadConfig, Panel, make_head, of_moments
from drivesim.models.views import VIEW_HEIGHT_PX, VIEW_WIDTH_PX, ViewLayout
from drivesim.runs import Run
from training.analogies import MOVED
from training.batches import Batch
from training.changes import ChangesConfig, tokens_of_changes, train_changes
from training.clips import Clips
from training.pretrain import PretrainConfig, Pretrainer

LAYOUT = ViewLayout.of(default_rig())
SMALL = EncoderConfig(stem=(8, 8, 16), width=16, latent_dim=8, thing_width=16, stance_width=16)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    shape = (count, len(LAYOUT.views), VIEW_HEIGHT_PX, VIEW_WIDTH_PX, 3)
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def seen_by(encoder: SlotEncoder, views: np.ndarray) -> Tensor:
    with torch.no_grad():
        return encoder(
            torch.from_numpy(views).permute(0, 1, 4, 2, 3), torch.from_numpy(LAYOUT.intrinsics),
            torch.from_numpy(LAYOUT.ego_from_camera),
        )  # fmt: skip


def changed_clips(analogies: int = 6, twins: int = 5) -> Clips:
    """Moments of noise, and copies of them with a white square in one place or another."""
    ticks = pictures(8)

    def with_square(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        out = ticks[rows].copy()
        for row, place in enumerate(places):
            out[row, :, 8 * place : 8 * place + 16, 40:72] = 255
        return out

    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 4, analogies), rng.integers(4, 8, analogies)
    place = rng.integers(0, 6, analogies)
    start = np.stack([first, second, np.zeros(analogies, np.int64)], axis=1)
    at = rng.integers(0, 8, twins)
    twin = with_square(at, rng.integers(0, 6, twins))
    return Clips(
        views_a=ticks, views_b=ticks,
        cameras_b=np.broadcast_to(LAYOUT.ego_from_camera, (8, *LAYOUT.ego_from_camera.shape)),
        intrinsics=LAYOUT.intrinsics, cameras_a=LAYOUT.ego_from_camera, episode=np.zeros(8, np.int32), table={},
        branch_views=np.zeros((0, 2, 1, 1, 1, 1, 3), np.uint8), branch_start=np.zeros(0, np.int64),
        branch_action=np.zeros((0, 2, 1, 2), np.float32), branch_speed=np.zeros((0, 2, 2), np.float32),
        branch_reads=np.zeros((0, 2, 1, 1), np.float32), twin_start=at,
        twin_views=np.stack([twin, 255 - ticks[at], 255 - twin], axis=1), analogy_start=start,
        analogy_views=np.stack([with_square(first, place), with_square(second, place)], axis=1),
    )  # fmt: skip


def test_slots_for_things_leave_the_scene_as_it_was() -> None:
    torch.manual_seed(0)
    plain = SlotEncoder(SMALL).eval()
    wider = SlotEncoder(replace(SMALL, things=2, stance=1)).eval()
    missing = wider.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing and all(name.startswith(("things.", "stance.")) for name in missing)
    views = pictures(2)
    alone, both = seen_by(plain, views), seen_by(wider, views)
    assert alone.shape == (2, 16, 8) and both.shape == (2, 19, 8) and wider.config.slots == 19
    torch.testing.assert_close(both[:, :16], alone)


def test_two_glances_are_the_mean_of_a_picture_and_the_same_picture_moved() -> None:
    torch.manual_seed(0)
    once = SlotEncoder(SMALL).eval()
    twice = SlotEncoder(replace(SMALL, glances=2)).eval()
    twice.load_state_dict(once.state_dict())
    views = pictures(2)
    elsewhere = torch.from_numpy(views).permute(0, 1, 4, 2, 3)
    with torch.no_grad():
        second = once(
            moved(elsewhere, 2, 2), torch.from_numpy(LAYOUT.intrinsics) + torch.tensor([0.0, 0.0, 2.0, 2.0]),
            torch.from_numpy(LAYOUT.ego_from_camera),
        )  # fmt: skip
    first = seen_by(once, views)
    assert (first - second).abs().max() > 1e-3
    torch.testing.assert_close(seen_by(twice, views), 0.5 * (first + second))
    twice.train()
    once.train()
    torch.testing.assert_close(seen_by(twice, views), seen_by(once, views))  # training has one


def test_a_moved_picture_is_the_same_elsewhere() -> None:
    picture = torch.randint(0, 255, (2, 3, 20, 30), dtype=torch.uint8)
    assert (moved(picture, 2, 3)[..., 3:, 2:] == picture[..., :-3, :-2]).all()
    assert (moved(picture, 0, 0) == picture).all() and moved(picture, 2, 2).shape == picture.shape


@pytest.mark.parametrize("glances", [0, 3])
def test_a_number_of_glances_that_there_is_not_is_refused(glances: int) -> None:
    with pytest.raises(ConfigError, match="glances"):
        EncoderConfig(glances=glances)


def test_a_panel_answers_with_the_mean_of_its_groups_and_learns_one_at_a_time() -> None:
    torch.manual_seed(0)
    config = HeadConfig(latent_size=20 * 8, slots=20, groups=(16, 4), dropout=0.0, risk="slots")
    latents, kinematics = torch.randn(64, 2, 20, 8), torch.randn(64, 16)
    for name in ("policy", "risk"):
        panel = make_head(name, config)
        assert isinstance(panel, Panel)
        scene, things = (
            head(part, kinematics) for head, part in zip(panel.heads, latents.split([16, 4], dim=2), strict=True)
        )
        torch.testing.assert_close(panel.eval()(latents, kinematics), 0.5 * (scene + things))
        answers = panel.train()(latents, kinematics)
        by_scene = (answers - scene).abs().amax(1) < 1e-6
        by_things = (answers - things).abs().amax(1) < 1e-6
        assert (by_scene ^ by_things).all() and 0.2 < by_scene.float().mean() < 0.8


def test_groups_that_are_not_the_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="groups"):
        make_head("policy", HeadConfig(latent_size=160, slots=20, groups=(16, 3)))


def test_training_things_moves_nothing_else_and_learns_what_was_added(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, clips = SlotEncoder(replace(SMALL, things=2)), changed_clips()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    config = ChangesConfig(things_steps=40, analogies=6, twins=5, half=False, learning_rate=1e-2)
    found: list[dict[str, float]] = []

    def told(stage: str, _: float, metrics: dict[str, float]) -> None:
        if stage == "things":
            found.append(metrics)

    train_changes(encoder, clips, config, Run.create(tmp_path, {}), 0, told)
    for name, value in encoder.state_dict().items():
        assert name.startswith("things.") or torch.equal(value, before[name]), name
    assert np.mean([step["loss"] for step in found[-5:]]) < 0.7 * np.mean([step["loss"] for step in found[:5]])
    assert np.mean([step["told"] for step in found[-5:]]) > 0.8


def test_slots_for_the_stance_learn_from_stances_and_from_nothing_else(tmp_path: Path) -> None:
    clips = changed_clips()
    stances = replace(
        clips, analogy_start=clips.analogy_start[:0], stance_views=clips.analogy_views,
        stance_start=np.concatenate([clips.analogy_start[:, :2], np.full((6, 1), MOVED)], axis=1),
    )  # fmt: skip
    torch.manual_seed(0)
    encoder = SlotEncoder(replace(SMALL, stance=2))
    config = ChangesConfig(stance_steps=40, analogies=6, half=False, learning_rate=1e-2)
    found: list[dict[str, float]] = []

    def told(stage: str, _: float, metrics: dict[str, float]) -> None:
        if stage == "stance":
            found.append(metrics)

    train_changes(encoder, stances, config, Run.create(tmp_path, {}), 0, told)
    assert len(found) == 40 and "told" not in found[0]  # twins say nothing of it
    assert np.mean([step["loss"] for step in found[-5:]]) < 0.7 * np.mean([step["loss"] for step in found[:5]])


def test_a_killed_training_of_things_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    clips, config = changed_clips(), ChangesConfig(things_steps=6, analogies=4, twins=3, half=False, save_every=2)

    def weights(path: Path, stop: int | None = None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        encoder, run = SlotEncoder(replace(SMALL, things=2)), Run.create(path, {})

        def told(stage: str, share: float, _: dict[str, float]) -> None:
            if stage == "things" and stop is not None and round(share * config.things_steps) > stop:
                raise KeyboardInterrupt

        train_changes(encoder, clips, config, run, 0, told)
        return {name: value.clone() for name, value in encoder.state_dict().items()}

    whole = weights(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        weights(tmp_path / "killed", stop=3)
    again = weights(tmp_path / "killed")
    for name, value in whole.items():
        torch.testing.assert_close(again[name], value)


def test_tokens_of_changes_are_the_encoders_own_and_need_something_to_learn_from() -> None:
    torch.manual_seed(0)
    encoder, clips = SlotEncoder(replace(SMALL, things=2)).eval(), changed_clips()
    config = ChangesConfig(half=False)
    changes = tokens_of_changes("things", clips, encoder, config, lambda _: None, batch=4)
    assert changes.analogies.shape[:2] == (6, 4) and changes.twins.shape[:2] == (5, 4)
    assert len(changes.view) == changes.analogies.shape[2] and changes.views == len(LAYOUT.views)
    with torch.no_grad():
        own, about, _ = encoder.places(
            torch.from_numpy(clips.analogy_views[:, 1]).permute(0, 1, 4, 2, 3), torch.from_numpy(LAYOUT.intrinsics),
            torch.from_numpy(LAYOUT.ego_from_camera),
        )  # fmt: skip
    torch.testing.assert_close(changes.analogies[:, 3], own.to(torch.bfloat16))
    torch.testing.assert_close(changes.about, about)
    with pytest.raises(ValueError, match="analogy_share"):
        tokens_of_changes("things", changed_clips(analogies=0), encoder, config, lambda _: None)
    with pytest.raises(ValueError, match="stance_share"):
        tokens_of_changes("stance", clips, encoder, config, lambda _: None)


@pytest.mark.parametrize("things", [0, 2])
def test_slots_for_things_learn_in_stage_one_and_shape_the_tokens(things: int) -> None:
    torch.manual_seed(0)
    model, b, m, t, g = Pretrainer(replace(SMALL, things=things)), 4, 2, 2, 3
    n = 4 * (b + m + t + g)
    batch = Batch(
        torch.from_numpy(pictures(n)).permute(0, 1, 4, 2, 3), torch.from_numpy(LAYOUT.intrinsics),
        torch.from_numpy(LAYOUT.ego_from_camera).expand(n, -1, -1, -1), torch.zeros(b, 3, 2), torch.zeros(b, 3),
        torch.zeros(2, m, 2, 2), torch.zeros(m), t, torch.zeros(g, dtype=torch.long),
    )  # fmt: skip
    groups, dice = torch.arange(2).repeat_interleave(2), torch.Generator().manual_seed(0)
    _, terms, latents = model.loss(batch, groups, PretrainConfig(), dice)
    asked = {name for name in terms if name.startswith("thing_")}
    assert latents.shape == (2 * b, 16, 8)  # the scene's slots alone
    assert asked == ({"thing_changed", "thing_added", "thing_standing"} if things else set())
    if things and model.encoder.things is not None:
        told = model.thing_slots(batch, *model.encoder.places(batch.views, batch.intrinsics[None], batch.cameras)[:2])
        assert told is not None and told.shape == (4 * (t + g), 2, 8)
        told[0].sum().backward()  # type: ignore[no-untyped-call]
        weight = model.encoder.stem[0].weight.grad
        assert weight is not None and float(weight.abs().sum()) > 0.0


@pytest.mark.parametrize("kind", ["towers", "slots"])
@pytest.mark.parametrize("groups", [(), (16, 4)])
def test_several_questions_about_moments_of_one_present_are_answered_as_each_alone(
    kind: str, groups: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    head = make_head("risk", HeadConfig(latent_size=160, slots=20, groups=groups, risk=kind)).eval()
    now, then, asked = torch.randn(20, 8), torch.randn(5, 20, 8), torch.randn(5, 3, 16)
    pair = torch.stack([now.expand(5, -1, -1), then], dim=1)
    with torch.no_grad():
        alone = torch.stack([head(pair, asked[:, i]) for i in range(3)], dim=1)
        torch.testing.assert_close(of_moments(head, now, then, asked), alone, rtol=1e-4, atol=1e-5)
