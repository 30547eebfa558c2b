"""The distilled policy: its file, its planner, and the whole way from a toy run to both."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from drivesim.build import make_planner
from drivesim.datatypes import default_rig
from drivesim.models import SHIPPED, CheckpointError, WorldModel
from drivesim.models.critic import critic_beside, critic_path
from drivesim.models.distilled import DistilledConfig, DistilledPolicy, around_the_peak, distilled_path
from drivesim.planning.distilled import DistilledPlanner
from drivesim.planning.latent_planner import LatentPlanner, LatentPlannerConfig
from training.clips import Clips
from training.companions import companions
from training.distill import DistillConfig, Lessons, distill, eagernesses, learn
from training.latents import latents_of
from training.train import COMPANIONS, load_recipe, train

RECIPE = Path(__file__).parents[2] / "training" / "recipes" / "smoke.toml"


def a_policy(digest: str = "abc") -> DistilledPolicy:
    torch.manual_seed(0)
    return DistilledPolicy(DistilledConfig(), digest).eval()


def asked(policy: DistilledPolicy, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    context = rng.normal(size=(2, 16, 64)).astype(np.float32)
    return policy.phases(context, rng.normal(size=16).astype(np.float32), 2.0, rng.normal(size=3))


def test_a_file_gives_back_the_policy_and_knows_its_encoder(tmp_path: Path) -> None:
    policy, path = a_policy(), distilled_path(tmp_path / "nano.safetensors")
    assert path.name == "nano-distilled.safetensors"
    with pytest.raises(CheckpointError, match=r"training\.distill"):
        DistilledPolicy.load(path, "abc")
    policy.save(path, {"why": "test"})
    np.testing.assert_allclose(asked(DistilledPolicy.load(path, "abc")), asked(policy), atol=0.02)
    with pytest.raises(CheckpointError, match="of encoder abc, not of xyz"):
        DistilledPolicy.load(path, "xyz")
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="copy it again"):
        DistilledPolicy.load(path, "abc")


def test_torn_between_braking_and_going_it_does_one_of_them() -> None:
    config = DistilledConfig()
    torn = torch.full((2, len(config.first_mps2), len(config.then_mps2)), 1e-6)
    torn[0, 0, 1], torn[0, -1, 2] = 0.55, 0.45
    torn[1, 3, 0], torn[1, 4, 0], torn[1, 5, 2] = 0.4, 0.4, 0.2
    told = around_the_peak(torn.log(), config)
    assert told[0].tolist() == pytest.approx([config.first_mps2[0], config.then_mps2[1]], abs=1e-3)
    between = 0.5 * (config.first_mps2[3] + config.first_mps2[4])
    assert told[1].tolist() == pytest.approx([between, config.then_mps2[0]], abs=1e-3)


def test_without_second_phases_the_first_is_held(tmp_path: Path) -> None:
    config = DistilledConfig(then_mps2=())
    sure = torch.full((1, len(config.first_mps2), 1), 1e-6)
    sure[0, 2] = 1.0
    assert around_the_peak(sure.log(), config)[0].tolist() == pytest.approx([config.first_mps2[2]] * 2, abs=1e-3)
    policy = DistilledPolicy(config, "abc").eval()
    policy.save(tmp_path / "held.safetensors", {"planner": {"crawl_mps": 1.5}})
    found = DistilledPolicy.load(tmp_path / "held.safetensors", "abc")
    assert found.teacher == {"crawl_mps": 1.5} and asked(found)[0] == asked(found)[1]


def test_it_drives_as_its_teacher_did(tmp_path: Path) -> None:
    shipped = make_planner("latent-distilled")
    assert isinstance(shipped, DistilledPlanner) and shipped.config.knots == shipped.head.teacher["knots"] == 1
    checkpoint = tmp_path / SHIPPED.name
    shutil.copy(SHIPPED, checkpoint)
    teacher = asdict(replace(LatentPlannerConfig(), crawl_mps=1.5, calm=0.0))
    shipped.head.save(distilled_path(checkpoint), {"planner": teacher})
    planner = make_planner("latent-distilled", checkpoint)
    assert isinstance(planner, DistilledPlanner) and (planner.config.crawl_mps, planner.config.calm) == (1.5, 0.0)


def test_it_learns_which_profile_is_cheap() -> None:
    rng = torch.Generator().manual_seed(0)
    context, motion = torch.randn(400, 2, 16, 64, generator=rng), torch.randn(400, 16, generator=rng)
    prior, config = torch.randn(400, 3, generator=rng), DistilledConfig()
    wanted = torch.where(motion[:, 0] > 0, 1.0, -3.5)
    away = (torch.tensor(config.first_mps2) - wanted[:, None]).abs()
    costs = away[:, :, None] + torch.tensor(config.then_mps2).abs()
    policy = a_policy()
    learn(policy, Lessons(context, motion, torch.ones(400), prior, costs), DistillConfig(steps=150, batch=64))
    with torch.no_grad():
        told = around_the_peak(policy(context, motion, torch.ones(400), prior), config)
    assert float((told[:, 0] - wanted).abs().median()) < 0.5 and float(told[:, 1].abs().max()) < 1.5


def test_eagerness_is_asked_for_where_driving_brings_it_about() -> None:
    speeds = np.repeat(np.array([0.0, 6.0], np.float32), 500)
    eager = eagernesses(speeds, DistillConfig(), np.random.default_rng(0))
    assert eager.min() == 1.0 and eager.max() <= LatentPlannerConfig().impatience_cap
    assert (eager[:500] > 1.0).mean() > 0.5 > 0.2 > (eager[500:] > 1.0).mean() > 0.0


def test_the_whole_way_at_toy_size(tmp_path: Path) -> None:
    recipe = replace(load_recipe(RECIPE), threads=1)
    checkpoint = train(recipe, tmp_path / "run")
    small = DistillConfig(states=6, judged=3, judged_share=0.5, steps=2, batch=4)
    card = distill(tmp_path / "run", checkpoint, None, small, lambda _what, _share: None)
    model = WorldModel.load(checkpoint)
    assert card["encoder"] == model.digest and card["judged"]["moments"] == 3.0
    assert card["judged"]["regret_best_standing"] >= -1e-9, "the search tried all of them, and more"
    planner = DistilledPlanner(model, DistilledPolicy.load(distilled_path(checkpoint), model.digest))
    assert isinstance(planner, LatentPlanner) and planner.name == "latent-distilled" and default_rig() is not None
    own = torch.load(tmp_path / "run" / "checkpoints" / "latents.pt", weights_only=True)
    clips, nowhere = Clips.load(tmp_path / "run" / "cache"), tmp_path / "nothing.pt"
    encoded = latents_of(model, clips, nowhere)
    for look in ("a", "b"):
        assert float((getattr(encoded, look) - own[look]).square().mean()) < 0.01
    for beside in (distilled_path(checkpoint), critic_path(checkpoint)):
        beside.unlink()
    companions(
        recipe, tmp_path / "run", checkpoint, COMPANIONS, lambda _what, _share: None
    )  # the drives are there already
    assert DistilledPolicy.load(distilled_path(checkpoint), model.digest) and critic_beside(checkpoint, model)
    other = WorldModel(model.config, model.rig_digest).eval()
    other.mean += 1.0
    other.save(tmp_path / "other.safetensors", {})
    card = distill(tmp_path / "run", tmp_path / "other.safetensors", None, small, lambda _what, _share: None)
    assert card["encoder"] == WorldModel.load(tmp_path / "other.safetensors").digest != model.digest
