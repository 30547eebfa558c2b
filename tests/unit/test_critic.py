"""The critic of transitions: pastes, what it is taught, and the file that keeps it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from drivesim.datatypes import default_rig
from drivesim.models import CheckpointError, WorldModel, WorldModelConfig
from drivesim.models.critic import CriticConfig, Transition, TransitionCritic, critic_beside, critic_path
from drivesim.models.views import ViewLayout
from training.critic import CriticTraining, Lessons, leading_axes, teach
from training.pasting import PASTES, Paster, Place

SIZES = CriticConfig(slots=6, latent_dim=16, hidden=8)
RECIPE = CriticTraining(steps=150, batch=512)


def layout() -> ViewLayout:
    return ViewLayout.of(default_rig())


def grid(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (len(layout().views), 72, 128, 3)).astype(np.uint8)


def test_a_window_set_down_where_it_was_changes_nothing() -> None:
    rig = layout()
    paster, now = Paster(rig.intrinsics, rig.ego_from_camera), grid()
    out, place = now.copy(), Place(0.1, 10.0)
    paster.copy(out, now, place, place, 1.5, 0.5)
    np.testing.assert_array_equal(out, now)


@pytest.mark.parametrize("kind", PASTES)
def test_a_paste_changes_the_places_it_says_and_nothing_behind(kind: str) -> None:
    rig = layout()
    paster, now, other = Paster(rig.intrinsics, rig.ego_from_camera), grid(), grid(1)
    kept = now.copy()
    changed = (paster.paste(kind, now, other, np.random.default_rng(4)) != now).any(-1)
    np.testing.assert_array_equal(now, kept)
    assert 20 < changed.sum() < 0.5 * changed.size
    assert not changed[len(rig.views) - 1].any(), "the last view looks back"


def test_what_is_set_down_nearer_is_bigger_and_lower() -> None:
    rig = layout()
    paster = Paster(rig.intrinsics, rig.ego_from_camera)
    near, far = (paster.window(Place(0.0, metres), 1.5, 0.2) for metres in (8.0, 24.0))
    assert near.sum() > 4 * far.sum()
    assert paster.slope[near].min() < paster.slope[far].min() < 0.0


def steps(m: int, seed: int) -> tuple[Transition, torch.Tensor]:
    """Ordinary steps at 6 m/s, and the same in another look: an offset in the last four dimensions of all slots."""
    rng = torch.Generator().manual_seed(seed)
    before, now, noise, look = torch.randn(4, m, 6, 16, generator=rng)
    predicted = now + 0.5 * (now - before)
    came = predicted + 0.3 * noise
    look = torch.where(torch.arange(16) >= 12, look[:, :1], torch.zeros(())).expand(-1, 6, -1)
    step = Transition(before, now, predicted, came, torch.full((m,), 0.1), torch.zeros(m, 2), torch.full((m,), 6.0))
    return step, came + look


def lessons(m: int, seed: int) -> Lessons:
    """Pastes change the first four dimensions of one slot."""
    step, other = steps(m, seed)
    rng = torch.Generator().manual_seed(seed + 1)
    twin, every = torch.arange(0, m, 2), torch.ones(m, dtype=torch.bool)
    return Lessons(step, other, step.came.roll(1, 0), every, step.now, every, twin, changed(step.came[twin], rng))


def changed(came: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    out = came.clone()
    out[torch.arange(len(out)), torch.randint(6, (len(out),), generator=rng), :4] += 1.5
    return out


def test_a_taught_critic_is_left_cold_by_looks_alone() -> None:
    critic = teach(lessons(600, 0), RECIPE, SIZES, 0)
    step, other = steps(200, 7)
    odds = {
        "as it came": critic(step), "other look": critic(replace(step, came=other)),
        "changed": critic(replace(step, came=changed(step.came, torch.Generator().manual_seed(3)))),
        "frozen": critic(replace(step, came=step.now)),
    }  # fmt: skip
    middle = {name: float(value.detach().median()) for name, value in odds.items()}
    assert max(middle["as it came"], middle["other look"]) < 0.0 < min(middle["changed"], middle["frozen"])
    plain = (other - step.predicted).square().mean((1, 2)).median()
    assert plain > (changed(step.came, torch.Generator()) - step.predicted).square().mean((1, 2)).median()
    torch.testing.assert_close(teach(lessons(600, 0), RECIPE, SIZES, 0)(step), odds["as it came"])


def test_leading_axes_have_unit_ordinary_variance_and_find_what_is_wanted() -> None:
    wanted, ordinary = torch.zeros(5, 5, dtype=torch.double), torch.eye(5, dtype=torch.double)
    wanted[3, 3] = 2.0
    axes = leading_axes(wanted, ordinary, 0.0, 2)
    torch.testing.assert_close(axes[0].abs(), torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0]))
    torch.testing.assert_close((axes @ axes.T).diagonal(), torch.ones(2))


def test_a_critic_is_kept_beside_its_checkpoint_and_refused_by_another(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, other = (WorldModel(WorldModelConfig(), default_rig().digest).eval() for _ in range(2))
    critic, path = TransitionCritic(CriticConfig()).eval(), tmp_path / "model.safetensors"
    assert critic_beside(path, model) is None
    critic.save(critic_path(path), model, {"seed": 0})
    found = critic_beside(path, model)
    assert found is not None and critic_beside(path, other) is None
    with pytest.raises(CheckpointError, match="make it again"):
        TransitionCritic.load(critic_path(path), other)
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((6, 16, 64)).astype(np.float32)
    told = found.along(model, latents, np.zeros((5, 2)), np.full(6, 5.0))
    assert np.isnan(told[:2]).all() and ((told[2:] >= 0.0) & (told[2:] <= 1.0)).all()
    assert np.isnan(found.along(model, latents[:2], np.zeros((1, 2)), np.full(2, 5.0))).all()
