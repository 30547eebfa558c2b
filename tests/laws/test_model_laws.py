"""Laws of the latent world model: what must hold whatever it has learned."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from drivesim.config import ConfigError
from drivesim.datatypes import Camera, CameraRig, CameraSpec, EgoState, RouteAhead, default_rig
from drivesim.models import SHIPPED, CheckpointError, WorldModel, WorldModelConfig, read_card
from drivesim.models.encoder import EncoderConfig, token_rays
from drivesim.models.heads import ACCELERATION_BINS_MPS2, acceleration_quantile, expected_acceleration
from drivesim.models.predictor import LatentPredictor, PredictorConfig, prefix_features, speeds_along
from drivesim.models.views import VIEW_HEIGHT_PX, VIEW_WIDTH_PX, ViewLayout, resize_area
from drivesim.planning.latent_planner import LatentPlanner
from drivesim.planning.proposals import drive_route, two_phase
from training.calibrate import expected_calibration_error
from training.dynamics import bootstrap, rollout_loss
from training.heads import soft_bins
from training.objectives import CollapseError, contrast, effective_rank, require_healthy, spread
from training.train import Recipe, encoder_to_start_from, load_recipe


@pytest.fixture(scope="module")
def model() -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(WorldModelConfig(), default_rig().digest).eval()


def straight_route(length_m: int = 64, limit_mps: float = 8.0) -> RouteAhead:
    points = np.stack([np.arange(-2.0, length_m - 2.0), np.zeros(length_m)], axis=1)
    return RouteAhead(points, np.full(length_m, limit_mps), float(length_m))


def ego(speed_mps: float, time_us: int = 0) -> EgoState:
    return EgoState(time_us, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, speed_mps, 0.0, 0.0)


def noise_images(rig: CameraRig, seed: int = 0) -> np.ndarray:
    camera = rig.cameras[0]
    shape = (len(rig.cameras), camera.height_px, camera.width_px, 3)
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def test_a_batch_encodes_like_a_loop(model: WorldModel) -> None:
    layout = ViewLayout.of(default_rig())
    views = torch.randint(0, 255, (3, len(layout.views), 3, VIEW_HEIGHT_PX, VIEW_WIDTH_PX), dtype=torch.uint8)
    intrinsics, cameras = torch.from_numpy(layout.intrinsics), torch.from_numpy(layout.ego_from_camera)
    with torch.no_grad():
        together = model.encoder(views, intrinsics, cameras)
        alone = torch.cat([model.encoder(views[i : i + 1], intrinsics, cameras) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_any_rig_of_one_to_eight_cameras_is_encoded(model: WorldModel, count: int) -> None:
    specs = [CameraSpec(f"c{i}", 1.0, 0.0, 1.5, i * 360.0 / count, 0.0, 80.0, 160, 120) for i in range(count)]
    rig = CameraRig(f"ring-{count}", tuple(Camera.from_spec(spec) for spec in specs))
    state = model.encode(noise_images(rig), rig, ego(5.0))
    assert state.tokens.shape == (16, 64)
    assert np.isfinite(state.tokens).all()


def test_the_order_of_the_cameras_does_not_matter(model: WorldModel) -> None:
    rig = default_rig()
    turned = CameraRig("turned", rig.cameras[::-1])
    images = noise_images(rig)
    straight, reversed_ = model.encode(images, rig, ego(5.0)), model.encode(images[::-1].copy(), turned, ego(5.0))
    np.testing.assert_allclose(straight.tokens, reversed_.tokens, atol=1e-3)


def test_the_calibration_is_read(model: WorldModel) -> None:
    rig = default_rig()
    specs = [
        CameraSpec(c.name, 0.0, 0.0, 1.5, 40.0 * i, 0.0, 70.0, c.width_px, c.height_px)
        for i, c in enumerate(rig.cameras)
    ]
    other = CameraRig("other", tuple(Camera.from_spec(spec) for spec in specs))
    images = noise_images(rig)
    a, b = model.encode(images, rig, ego(5.0)), model.encode(images, other, ego(5.0))
    assert np.abs(a.tokens - b.tokens).max() > 1e-3


def test_rays_point_where_the_cameras_look() -> None:
    layout = ViewLayout.of(default_rig())
    rays, origins = token_rays(
        torch.from_numpy(layout.intrinsics)[None], torch.from_numpy(layout.ego_from_camera)[None], 5, 8
    )
    left, right, front = (torch.nn.functional.normalize(rays[0, 40 * i : 40 * i + 40].mean(0), dim=0) for i in range(3))
    assert front[0] > 0.99
    assert abs(float(front[1])) < 1e-3
    assert left[1] > 0.2  # the two foveas look to either side of the axis and meet in it
    assert abs(float(left[1] + right[1])) < 1e-3
    torch.testing.assert_close(rays.norm(dim=-1), torch.ones(rays.shape[:2]))
    assert float(origins[0, 0, 2]) == pytest.approx(1.55, abs=1e-5)


def test_resizing_by_area_keeps_the_mean() -> None:
    image = np.random.default_rng(0).integers(0, 255, (144, 256, 3), dtype=np.uint8)
    small = resize_area(image, 72, 128)
    assert abs(float(small.mean()) - float(image.mean())) < 0.6
    assert resize_area(image[:100, :150], 72, 128).shape == (72, 128, 3)


def test_a_rollout_is_its_steps() -> None:
    torch.manual_seed(1)
    predictor = LatentPredictor(PredictorConfig(slots=4, latent_dim=8, width=32)).eval()
    for block in predictor.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.1)
    z0, z1, actions = torch.randn(2, 4, 8), torch.randn(2, 4, 8), torch.randn(2, 3, 2)
    speed = torch.tensor([4.0, 1.0])
    with torch.no_grad():
        latents, doubt = predictor.rollout(z0, z1, actions, speed)
        previous, current = z0, z1
        for step in range(3):
            previous, current = current, predictor(previous, current, actions[:, step], speed).mean(0)
            speed = torch.relu(speed + 0.5 * actions[:, step, 0])
            torch.testing.assert_close(latents[:, step], current)
    assert doubt.shape == (2, 3)
    assert (doubt >= 0).all()


def prefix_predictor(members: int = 2) -> LatentPredictor:
    """One whose blocks do something, in prefix mode, of members that part before the last block."""
    config = PredictorConfig(
        4, 8, width=32, members=members, mode="prefix", own_blocks=True, slot_modulation=True, horizon=3
    )
    predictor = LatentPredictor(config).eval()
    for name, value in predictor.named_parameters():
        if "modulation" in name or "slot" in name:
            torch.nn.init.normal_(value, std=0.1)
    return predictor


def test_a_prefix_is_told_whatever_comes_after_it() -> None:
    torch.manual_seed(4)
    predictor, speed = prefix_predictor(), torch.tensor([4.0, 1.0])
    z0, z1, actions = torch.randn(2, 4, 8), torch.randn(2, 4, 8), torch.randn(2, 5, 2)
    with torch.no_grad():
        latents, doubt = predictor.rollout(z0, z1, actions, speed)
        assert latents.shape == (2, 5, 4, 8) and doubt.shape == (2, 5) and (doubt > 0).all()
        for steps in (1, 2, 3):
            torch.testing.assert_close(predictor.rollout(z0, z1, actions[:, :steps], speed)[0], latents[:, :steps])
        torch.testing.assert_close(predictor(z0, z1, actions[:, 0], speed).mean(0), latents[:, 0])
        some = predictor.unroll(z0, z1, actions[:, :3], speed, torch.tensor([0, 2]))[0].mean(0)
        torch.testing.assert_close(some, latents[:, [0, 2]])
        # beyond its horizon it goes on from what it imagined
        later = speeds_along(actions[:, :3], speed)[:, -1]
        onward, _ = predictor.rollout(latents[:, 1], latents[:, 2], actions[:, 3:], later)
        torch.testing.assert_close(onward, latents[:, 3:])


@pytest.mark.parametrize("mode", ["autoregressive", "prefix"])
def test_a_head_learns_what_error_to_expect_and_shapes_nothing_else(mode: str) -> None:
    torch.manual_seed(6)
    predictor = LatentPredictor(PredictorConfig(3, 8, width=32, mode=mode, error_head=True))
    context, actions, speeds = torch.randn(4, 2, 3, 8), torch.randn(4, 3, 2), torch.rand(4) * 8
    members, expected = predictor.unroll(context[:, 0], context[:, 1], actions, speeds)
    assert expected is not None and expected.shape == (4, 3)
    expected.sum().backward()  # type: ignore[no-untyped-call]
    touched = {name for name, value in predictor.named_parameters() if value.grad is not None and value.grad.any()}
    assert touched and all(name.startswith("expected") for name in touched)
    spread = (members - members.mean(0)).square().mean(dim=(0, 3, 4))
    doubt = predictor.rollout(context[:, 0], context[:, 1], actions, speeds)[1]
    torch.testing.assert_close(doubt.square(), spread + expected.exp())


def test_many_candidates_are_told_like_one() -> None:
    torch.manual_seed(5)
    predictor = prefix_predictor()
    z0, z1, actions = torch.randn(1, 4, 8), torch.randn(1, 4, 8), torch.randn(150, 3, 2)
    with torch.no_grad():
        wide = [z.expand(150, -1, -1) for z in (z0, z1)]
        together, _ = predictor.rollout(*wide, actions, torch.full((150,), 5.0))
        alone, _ = predictor.rollout(z0, z1, actions[77:78], torch.tensor([5.0]))
    torch.testing.assert_close(together[77:78], alone, atol=1e-5, rtol=1e-4)


def test_dead_reckoning_stands_in_the_prefix() -> None:
    """Three seconds along a circle of 10 m radius at 5 m/s; and braking to a stop."""
    circle = torch.tensor([[[0.0, 0.1]] * 6])
    told = prefix_features(circle, torch.tensor([5.0]))[0, -1]
    angle = 5.0 * 3.0 / 10.0
    expected = [10 * math.sin(angle) / 10, 10 * (1 - math.cos(angle)) / 2, 3 * angle]
    torch.testing.assert_close(told[5:8], torch.tensor(expected), atol=0.02, rtol=0.01)
    stop = prefix_features(torch.tensor([[[-4.0, 0.0]] * 6]), torch.tensor([4.0]))[0, -1]
    assert float(stop[8]) == 0.0 and float(stop[5]) == pytest.approx(0.2, abs=0.01)  # v^2 / 2a = 2 m


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(ConfigError, match="autoregressive, prefix"):
        PredictorConfig(mode="recursive")


def test_each_member_leaves_other_drives_out() -> None:
    weights = bootstrap(np.repeat(np.arange(40), 3).astype(np.int32), 2, 0.5, 0)
    assert weights.shape == (2, 40)
    assert torch.equal((weights > 0).sum(0), torch.ones(40, dtype=torch.long))
    torch.testing.assert_close(weights.mean(1), torch.ones(2))
    assert torch.equal(bootstrap(np.arange(10).astype(np.int32), 2, 0.0, 0), torch.ones(2, 10))


def test_the_rollout_loss_of_perfect_targets_is_zero_for_one_member() -> None:
    torch.manual_seed(2)
    predictor = LatentPredictor(PredictorConfig(slots=3, latent_dim=8, width=32, members=1))
    context, actions, speeds = torch.randn(2, 2, 3, 8), torch.randn(2, 4, 2), torch.tensor([3.0, 6.0])
    with torch.no_grad():
        targets, _ = predictor.rollout(context[:, 0], context[:, 1], actions, speeds)
        loss, imagined = rollout_loss(predictor, context, targets, actions, speeds)
    assert float(loss) < 1e-10
    torch.testing.assert_close(imagined, targets)


def test_contrast_is_lowest_for_the_truth_and_at_chance_for_noise() -> None:
    torch.manual_seed(3)
    target = torch.randn(32, 4, 16)
    right, found = contrast(target, target)
    wrong, chance = contrast(torch.randn(32, 4, 16), target)
    assert float(right) < 0.1 < float(wrong)
    assert float(found) == 1.0
    assert float(chance) < 0.2


def test_spread_prefers_a_gaussian_to_a_collapsed_latent() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(96) // 8
    wide = torch.randn(96, 2, 32, generator=generator)
    line = torch.randn(96, 1, 1, generator=generator).expand(96, 2, 32) + 0.01 * torch.randn(
        96, 2, 32, generator=generator
    )
    assert float(spread(wide, groups, generator)) < 0.5 * float(spread(line, groups, generator))


def test_spread_is_not_satisfied_by_a_code_of_the_episode() -> None:
    generator = torch.Generator().manual_seed(1)
    groups = torch.arange(96) // 8
    wide = torch.randn(96, 2, 32, generator=generator)
    per_episode = torch.randn(12, 2, 32, generator=generator)[groups] + 0.01 * wide
    assert float(spread(per_episode, groups, generator)) > 2.0 * float(spread(wide, groups, generator))


def test_a_collapsed_latent_stops_the_run() -> None:
    line = torch.outer(torch.randn(96), torch.randn(64)).view(96, 4, 16)
    with pytest.raises(CollapseError, match="collapsed"):
        require_healthy(line, 1.0, 50)
    with pytest.raises(CollapseError, match="learning rate"):
        require_healthy(torch.randn(96, 4, 16), math.nan, 50)
    require_healthy(torch.randn(96, 4, 16), 1.0, 50)


def test_the_effective_rank_of_noise_is_its_size_and_of_a_line_one() -> None:
    torch.manual_seed(4)
    assert effective_rank(torch.randn(4000, 20)) == pytest.approx(20.0, abs=0.2)
    assert effective_rank(torch.outer(torch.randn(100), torch.randn(20))) == pytest.approx(1.0, abs=0.01)


def test_soft_bins_keep_the_acceleration() -> None:
    wanted = torch.tensor([-7.0, -3.3, 0.0, 0.1, 2.9])
    shares = soft_bins(wanted)
    torch.testing.assert_close(shares.sum(-1), torch.ones(5))
    mean = (shares * torch.tensor(ACCELERATION_BINS_MPS2)).sum(-1)
    torch.testing.assert_close(mean, wanted.clamp(-6.0, 3.0))
    logits = (shares + 1e-6).log()
    torch.testing.assert_close(expected_acceleration(logits), mean, atol=1e-3, rtol=1e-3)
    assert (acceleration_quantile(logits, 0.05) <= acceleration_quantile(logits, 0.95)).all()


def test_calibration_error_of_honest_probabilities_is_small() -> None:
    generator = torch.Generator().manual_seed(5)
    probability = torch.rand(20000, generator=generator)
    label = (torch.rand(20000, generator=generator) < probability).float()
    assert expected_calibration_error(probability, label) < 0.02
    assert expected_calibration_error(torch.full((1000,), 0.9), torch.zeros(1000)) == pytest.approx(0.9)


def test_a_checkpoint_comes_back_as_it_was(model: WorldModel, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model.save(path, {"seed": 3})
    again = WorldModel.load(path, default_rig())
    assert read_card(path) == {"seed": 3}
    rig = default_rig()
    a, b = (
        again.encode(noise_images(rig), rig, ego(4.0)),
        WorldModel.load(path).encode(noise_images(rig), rig, ego(4.0)),
    )
    np.testing.assert_array_equal(a.tokens, b.tokens)
    assert a.encoder_digest == b.encoder_digest


def test_a_wrong_checkpoint_is_one_clear_line(model: WorldModel, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model.save(path, {})
    other = CameraRig("other", default_rig().cameras[:2])
    with pytest.raises(CheckpointError, match="trained for rig"):
        WorldModel.load(path, other)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        WorldModel.load(tmp_path / "none.safetensors")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="not a whole"):
        WorldModel.load(path)


def test_driving_the_route_keeps_to_it_and_to_the_limit() -> None:
    futures = drive_route(5.0, straight_route(limit_mps=8.0), two_phase(6))
    assert np.abs(futures.poses[..., 1]).max() < 0.05
    assert futures.speeds_mps.max() < 8.3
    assert futures.speeds_mps.min() >= 0.0
    np.testing.assert_allclose(np.diff(futures.distances_m, axis=1).min(), 0.0, atol=5.0)


def test_harder_braking_never_drives_farther() -> None:
    profiles = np.array([[a] * 6 for a in (-6.0, -3.0, -1.0, 0.0, 1.0)])
    distance = drive_route(7.0, straight_route(), profiles).distances_m[:, -1]
    assert (np.diff(distance) >= -1e-9).all()


class KnownRisk:
    """A world with a wall `wall_m` ahead, so that the planner's optimum is known."""

    def __init__(self, wall_m: float) -> None:
        self.wall_m = wall_m

    def encode(self, images: np.ndarray, rig: CameraRig, state: EgoState):
        from drivesim.datatypes import LatentState

        return LatentState(np.zeros((2, 2), np.float32), state.time_us, "known")

    def imagine(self, latents: np.ndarray, speed_mps: float, actions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        k, p = actions.shape[:2]
        return torch.zeros(k, p, 2, 2), torch.zeros(k, p)

    def risks(self, current: np.ndarray, imagined: torch.Tensor, kinematics: np.ndarray) -> np.ndarray:
        risk = np.zeros((*kinematics.shape[:3], 3), np.float32)
        risk[..., 0] = kinematics[..., 15] * 20.0 > self.wall_m
        return risk

    def accelerations(self, *_: object) -> np.ndarray:
        return np.zeros(4)


@pytest.mark.parametrize(("wall_m", "goes"), [(8.0, False), (1000.0, True)])
def test_the_planner_stops_before_a_wall_and_goes_where_there_is_none(wall_m: float, goes: bool) -> None:
    from drivesim.datatypes import Observation

    planner = LatentPlanner(KnownRisk(wall_m))
    planner.reset(None, default_rig(), 0)  # type: ignore[arg-type]
    seen = Observation(0, noise_images(default_rig()), ego(6.0), straight_route())
    plan = planner.plan(seen, None, np.random.default_rng(0))
    plan.trajectory.validate()
    end = float(plan.trajectory.poses[-1, 0])
    assert (end > 15.0) if goes else (end < 8.0)


def test_a_recipe_starts_from_weights_that_ship_or_says_why_not() -> None:
    started, shipped = encoder_to_start_from(Recipe("x", start=SHIPPED.stem)), WorldModel.load(SHIPPED).encoder
    assert started is not None and encoder_to_start_from(Recipe("x")) is None
    assert started.config.things == 0 and started.config.glances == 1
    theirs = shipped.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in started.state_dict().items())
    with pytest.raises(CheckpointError):
        encoder_to_start_from(Recipe("x", start="nano-v999"))
    found = WorldModel.load(SHIPPED.with_name("nano-v7.safetensors")).encoder
    things = WorldModelConfig(encoder=found.config)
    alone = encoder_to_start_from(Recipe("x", start="nano-v7", model=things))
    goes_on = encoder_to_start_from(Recipe("x", start="nano-v7", model=things, things_from_the_start=True))
    assert alone is not None and alone.things is None and goes_on is not None and goes_on.stance is None
    kept = {key: value for key, value in goes_on.state_dict().items() if key.startswith("things.")}
    assert kept and all(torch.equal(value, found.state_dict()[key]) for key, value in kept.items())
    wider = WorldModelConfig(encoder=EncoderConfig(width=64))
    with pytest.raises(ValueError, match="other sizes"):
        encoder_to_start_from(Recipe("x", start=SHIPPED.stem, model=wider))


RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_has_the_name_that_it_is_trained_by(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert not recipe.start or SHIPPED.with_name(f"{recipe.start}.safetensors").exists()
