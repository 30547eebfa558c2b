"""Laws of the rollout that planners use: it says what the predictor says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from drivesim.datatypes import default_rig
from drivesim.models import SHIPPED, WorldModel, WorldModelConfig
from drivesim.models.fused_rollout import FusedRollout
from drivesim.models.predictor import LatentPredictor, PredictorConfig
from training.rivals.token_predictor import TokenPredictor

CONFIGS = (
    PredictorConfig(),
    PredictorConfig(error_head=True),
    PredictorConfig(slots=22, members=3, error_head=True),
    PredictorConfig(slots=7, latent_dim=24, width=32, layers=3, heads=2, members=1),
)


def trained(config: PredictorConfig) -> LatentPredictor:
    """A predictor whose every weight has a say, as after training; its first ones let nothing through."""
    torch.manual_seed(3)
    predictor = LatentPredictor(config).eval()
    with torch.no_grad():
        for weight in predictor.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return predictor


def question(config: PredictorConfig, futures: int) -> tuple[torch.Tensor, ...]:
    """Starts, actions and speeds of some futures."""
    torch.manual_seed(4)
    latents = torch.randn(2, futures, config.slots, config.latent_dim)
    actions = torch.randn(futures, 6, 2) * torch.tensor([2.0, 0.05])
    return latents[0], latents[1], actions, torch.rand(futures) * 10.0


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_it_says_what_the_predictor_says(config: PredictorConfig) -> None:
    predictor = trained(config)
    asked = question(config, 5)
    with torch.no_grad():
        latents, doubt = predictor.rollout(*asked)
    fused, own_doubt = FusedRollout.of(predictor).rollout(*asked)
    assert (latents[:, -1] - asked[1]).abs().mean() > 0.1  # there is something to agree on
    torch.testing.assert_close(fused, latents, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(own_doubt, doubt, atol=1e-3, rtol=1e-3)


def test_the_shipped_predictor_too() -> None:
    predictor = WorldModel.load(SHIPPED).predictor
    asked = question(predictor.config, 14)
    with torch.no_grad():
        latents, doubt = predictor.rollout(*asked)
    fused, own_doubt = FusedRollout.of(predictor).rollout(*asked)
    torch.testing.assert_close(fused, latents, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(own_doubt, doubt, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("futures", [1, 2, 7])
def test_threads_share_the_futures_and_change_nothing(futures: int) -> None:
    fused = FusedRollout.of(trained(CONFIGS[2]))
    asked, before, answers = question(CONFIGS[2], futures), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            answers.append(fused.rollout(*asked))
    finally:
        torch.set_num_threads(before)
    for latents, doubt in answers[1:]:
        torch.testing.assert_close(latents, answers[0][0], atol=1e-4, rtol=1e-5)  # torch's own sums differ by threads
        torch.testing.assert_close(doubt, answers[0][1], atol=1e-4, rtol=1e-5)


def test_a_future_is_the_same_alone_and_among_others() -> None:
    fused = FusedRollout.of(trained(CONFIGS[1]))
    asked = question(CONFIGS[1], 6)
    together = fused.rollout(*asked)[0]
    for k in range(6):
        alone = fused.rollout(*(part[k : k + 1] for part in asked))[0]
        torch.testing.assert_close(alone, together[k : k + 1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "config", [PredictorConfig(mode="prefix"), PredictorConfig(own_blocks=True), PredictorConfig(slot_modulation=True)],
    ids=str,
)  # fmt: skip
def test_other_predictors_are_left_to_torch(config: PredictorConfig) -> None:
    predictor = LatentPredictor(config)
    assert not FusedRollout.fits(predictor)
    with pytest.raises(ValueError, match="not one to be fused"):
        FusedRollout.of(predictor)


def test_a_rival_that_answers_otherwise_is_left_to_torch() -> None:
    assert issubclass(TokenPredictor, LatentPredictor)
    assert not FusedRollout.fits(TokenPredictor.__new__(TokenPredictor))


def test_a_world_model_imagines_with_the_weights_of_now() -> None:
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(), default_rig().digest).eval()
    latents = np.random.default_rng(0).normal(size=(2, 16, 64)).astype(np.float32)
    actions = np.random.default_rng(1).normal(size=(3, 6, 2))
    before = model.imagine(latents, 5.0, actions)[0]
    with torch.no_grad():
        model.predictor.members[0].bias.add_(1.0)  # type: ignore[union-attr, operator]
    after = model.imagine(latents, 5.0, actions)[0]
    expected = model.imagine_tensors(torch.from_numpy(latents), 5.0, torch.from_numpy(actions).float())[0]
    assert not torch.allclose(before, after, atol=0.1)
    torch.testing.assert_close(after, expected.detach(), atol=1e-3, rtol=1e-4)
