"""Rivals: each goes the whole way at toy size; one budget, exact resuming, collapses kept, laws of objectives."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from drivesim.build import make_planner, require_planner
from drivesim.config import ConfigError
from drivesim.datatypes import EgoState, Measure, Observation, Outcome, RouteAhead, default_rig
from drivesim.logs import DriveLog
from drivesim.logs.truth import to_ego
from drivesim.models.encoder import SlotEncoder
from drivesim.models.predictor import PredictorConfig
from drivesim.runs import Run
from eval.rival_figure import figure, markdown
from eval.rival_planners import FOLDER, planner_name, run_of
from eval.rivals import by_rival, data_of, names_of, parse, scores, trained
from eval.speed import busy_scenario, street
from training.batches import read_batch
from training.clips import Clips
from training.rivals.bev import CHANNELS, X_M, Y_M, seen_from_above
from training.rivals.ema_target import MOMENTUM, EMATarget
from training.rivals.model import load_rival, sized
from training.rivals.pictures import DRIVE, PAIR, part_of, read_pictures
from training.rivals.shaping import RivalUnavailableError, Sample, Shaper, Terms, draw, shape_encoder
from training.rivals.table import RIVALS, shaper_of
from training.rivals.token_predictor import TokenPredictor
from training.rivals.tokens import WORDS, nearest_word, spelt
from training.rivals.training import train_rival
from training.rivals.vicreg import VICReg
from training.train import Recipe, load_recipe

RECIPE = Path(__file__).parents[2] / "training" / "recipes" / "smoke.toml"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # toy sizes: threads would only wait for each other
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    read = load_recipe(RECIPE)
    tiny = replace(read.pretrain, steps=2, episodes=2, clips=3, pairs=2, save_every=2)
    bare = replace(read.cache, twin_share=0.0, analogy_share=0.0, stance_share=0.0)
    return replace(
        read, threads=1, cache=bare, pretrain=tiny, dynamics=replace(read.dynamics, steps=2),
        heads=replace(read.heads, steps=2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = parse(["--workers", str(recipe.recording.workers), "--out", str(tmp_path_factory.mktemp("rivals"))])
    cache, logs = data_of(options, recipe)
    assert cache.parent == logs.parent and len(list(logs.glob("*.zarr"))) == recipe.recording.drives
    return cache.parent


@pytest.fixture(scope="module")
def clips(folder: Path) -> Clips:
    return Clips.load(folder / "cache")


@pytest.fixture
def study(folder: Path) -> Iterator[Path]:
    os.environ[FOLDER] = str(folder / "study")
    yield folder / "study"
    del os.environ[FOLDER]


def observation(seed: int) -> Observation:
    ego = EgoState(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 6.0, 0.0, 0.0)
    route = RouteAhead(np.column_stack([np.arange(-2.0, 62.0), np.zeros(64)]), np.full(64, 8.3), 60.0)
    return Observation(0, street(default_rig(), seed), ego, route)


@pytest.mark.parametrize("name", list(RIVALS))
def test_a_rival_goes_the_whole_way(name: str, recipe: Recipe, folder: Path, clips: Clips, study: Path) -> None:
    run = run_of(study, name, 0)
    try:
        path = train_rival(name, recipe, clips, run, folder / "logs")
    except RivalUnavailableError as reason:
        pytest.skip(str(reason))
    assert train_rival(name, recipe, clips, run, folder / "logs") == path  # what is there is not made again
    card = json.loads((run / "card.json").read_text())
    assert card["rival"] == name and card["targets"] == (RIVALS[name].targets or "none")
    model = load_rival(path)
    planner = make_planner(planner_name(name, 0))
    planner.reset(busy_scenario(), default_rig(), 0)
    plan = planner.plan(observation(0), None, np.random.default_rng(0))
    assert np.isfinite(plan.actions).all() and plan.trajectory.poses.shape == (6, 3)
    n, d = sized(name, recipe.model).predictor.slots, sized(name, recipe.model).predictor.latent_dim
    seen = observation(0)
    assert seen.images is not None
    tokens = model.encode(seen.images, default_rig(), seen.ego).tokens
    assert tokens.shape == (n, d) and np.isfinite(tokens).all()


def test_a_cache_that_is_named_is_taken_or_told_of(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    options = parse(["--cache", str(folder / "cache"), "--out", str(tmp_path)])
    assert data_of(options, recipe) == (folder / "cache", folder / "logs")
    with pytest.raises(ConfigError, match="leave --cache out"):
        data_of(parse(["--cache", str(tmp_path), "--out", str(tmp_path)]), recipe)
    assert not list(tmp_path.iterdir())


def test_every_rival_encodes_as_many_pictures(recipe: Recipe, clips: Clips) -> None:
    config = replace(recipe.pretrain, pairs=4)
    counts = {}
    for name in ("contrastive", "no-branches", "no-cross-appearance", "reconstruction", "vicreg", "supervised"):
        shaper = shaper_of(name, RIVALS[name].encoder(recipe.model.encoder), config, clips, None, Path("unused"))
        assert shaper is not None
        counts[name] = len(draw(shaper, clips, config, np.random.default_rng(0)).batch.views)
    assert len(set(counts.values())) == 1, counts


def test_pairs_are_read_as_the_shipped_model_reads_them(clips: Clips) -> None:
    starts, chosen = clips.starts(4)[:3], np.arange(2)
    ours, theirs = read_pictures(clips, starts, chosen, PAIR), read_batch(clips, starts, chosen)
    assert torch.equal(ours.views, theirs.views) and torch.equal(ours.cameras, theirs.cameras)
    drive = read_pictures(clips, starts, chosen, DRIVE)
    assert torch.equal(drive.views[6:9], torch.from_numpy(clips.views_a[starts + 2][:, :2]).permute(0, 1, 4, 2, 3))
    assert drive.action.shape == (3, 4, 2)


def test_a_part_of_a_cache_is_a_cache(clips: Clips) -> None:
    part = part_of(clips, 1, 3)
    assert set(part.episode) == {1, 2}
    low, high = (int((clips.episode < episode).sum()) for episode in (1, 3))
    assert len(part.views_a) == high - low and (part.views_a[0] == clips.views_a[low]).all()
    kept = (clips.branch_start >= low) & (clips.branch_start < high)
    assert (part.branch_start + low == clips.branch_start[kept]).all() and len(part.branch_views) == kept.sum()


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_to_the_step(recipe: Recipe, clips: Clips, tmp_path: Path) -> None:
    config = replace(recipe.pretrain, steps=4, save_every=2)

    def kill(step: int, _: dict[str, float]) -> None:
        if step == 2:
            raise Killed

    def shaped(folder: str, interrupted: bool) -> dict[str, torch.Tensor]:
        run = Run.create(tmp_path / folder, config)
        for again in range(1 + interrupted):
            torch.manual_seed(0)
            shaper = VICReg(SlotEncoder(recipe.model.encoder), config)
            try:
                shape_encoder(shaper, clips, config, run, 0, kill if interrupted and not again else None)
            except Killed:
                continue
        return shaper.encoder.state_dict()

    whole, resumed = shaped("whole", False), shaped("resumed", True)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


class Ruin(Shaper):
    """Maps everything to the same latent."""

    def terms(self, sample: Sample, generator: torch.Generator) -> Terms:
        latents = self.encode(sample.batch) * 0.0
        return Terms(latents.sum(), {}, latents)


def test_a_collapse_is_a_result(recipe: Recipe, clips: Clips, tmp_path: Path) -> None:
    run = Run.create(tmp_path, recipe.pretrain)
    for _ in range(2):
        message = shape_encoder(
            Ruin(SlotEncoder(recipe.model.encoder), recipe.pretrain), clips, recipe.pretrain, run, 0
        )
        assert "collapsed" in message
    lines = [line for line in run.metrics() if "collapse" in line]
    assert len(lines) == 1 and json.loads((tmp_path / "collapse.json").read_text())["step"] == 0


def test_vicreg_is_content_with_noise_and_not_with_a_constant(recipe: Recipe) -> None:
    shaper = VICReg(SlotEncoder(recipe.model.encoder), recipe.pretrain)
    torch.manual_seed(0)
    groups, generator = torch.arange(400) % 4, torch.Generator()
    noise = shaper.regularise(torch.randn(400, 2, 8), groups, generator)
    episode_code = torch.randn(4, 2, 8)[groups]  # tells episodes apart and nothing else
    assert float(noise) < 0.1 and float(shaper.regularise(episode_code, groups, generator)) > 0.9


def test_the_slow_encoder_follows(recipe: Recipe) -> None:
    shaper = EMATarget(SlotEncoder(recipe.model.encoder), recipe.pretrain)
    before = shaper.slow.queries.clone()
    with torch.no_grad():
        shaper.encoder.queries += 1.0
    shaper.after_step()
    assert torch.allclose(shaper.slow.queries - before, torch.full_like(before, 1.0 - MOMENTUM), atol=1e-6)


def test_writing_word_by_word_is_what_reading_would_expect() -> None:
    torch.manual_seed(0)
    model = TokenPredictor(PredictorConfig(slots=5, latent_dim=8, width=32, layers=2)).eval()
    model.codes.copy_(torch.randn(5, WORDS, 8))
    words = torch.randint(WORDS, (3, 5))
    assert torch.equal(nearest_word(model.codes, spelt(model.codes, words)), words)
    before, now = torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    action, speed = torch.randn(3, 2), torch.rand(3) * 8
    with torch.no_grad():
        written = model(before, now, action, speed)[0]
        read = model.logits(before, now, action, speed, written).argmax(2)
        imagined, doubt = model.rollout(before, now, action[:, None].expand(-1, 3, -1), speed)
    assert torch.equal(spelt(model.codes, read), written) and torch.equal(imagined[:, 0], written)
    assert not doubt.any()


def test_the_map_shows_who_is_there(folder: Path) -> None:
    shown = 0
    for path in sorted((folder / "logs").glob("*.zarr")):
        log = DriveLog(path)
        for i in range(0, len(log), 6):
            frame = log.frame(i)
            seen = seen_from_above(frame)
            assert seen.shape == (len(CHANNELS), len(X_M), len(Y_M)) and set(np.unique(seen)) <= {0, 1}
            for x, y, _ in to_ego(frame.ego, frame.actors)[0]:
                if X_M[0] < x < X_M[-1] and Y_M[0] < y < Y_M[-1]:
                    assert seen[:2, np.abs(X_M - x).argmin(), np.abs(Y_M - y).argmin()].any()
                    shown += 1
    assert shown > 3


def outcome(scenario: str, planner: str, seed: int, score: float) -> Outcome:
    return Outcome(scenario, planner, seed, "goal", (Measure("driving_score", score, ""),), {})


def test_differences_are_paired_by_scenario_and_seeds() -> None:
    driven = [
        outcome(s, planner_name(rival, seed), 0, base + gain + seed)
        for s, base in (("easy", 90.0), ("hard", 10.0)) for seed in (0, 1)
        for rival, gain in (("contrastive", 0.0), ("tokens", -4.0))
    ]  # fmt: skip
    driven += [outcome(s, "expert", 0, 95.0) for s in ("easy", "hard")]
    rows = by_rival(driven, ["contrastive", "tokens"], [0, 1])
    tokens = scores(rows["tokens"], rows["contrastive"], 1)
    assert tokens["minus_contrastive"]["mean"] == pytest.approx(-4.0)
    assert tokens["minus_contrastive"]["ci95"] == pytest.approx([-4.0, -4.0])
    assert tokens["driving_score"]["n"] == 4
    assert scores(rows["expert"], rows["contrastive"], 2)["driving_score"]["n"] == 2


def test_table_and_figure_tell_of_collapses_and_of_who_was_left_out() -> None:
    probes = {"effective_rank": 3.0, "held_out": {"speed_r2": 0.5, "lead_gap_r2": None}}
    row = {"collapse": "step 50: rank 1", "targets": "pixels", "encoder": {"step_s": 0.5}, "probes": probes}
    result = {
        "sizes": {"steps": [1, 1, 1], "ticks": [10, 5]}, "seeds": [0], "rivals": {"tokens": [row]},
        "skipped": {"pretrained-image": "not installed"}, "closed_loop": None,
    }  # fmt: skip
    text = markdown(result)
    assert "tokens (collapsed in 1 of 1)" in text and "Left out: pretrained-image: not installed" in text
    assert "tokens" in figure(result)


def test_a_run_of_other_sizes_is_not_mixed_in(recipe: Recipe, clips: Clips, tmp_path: Path) -> None:
    Run.create(run_of(tmp_path, "vicreg", 0), recipe)
    with pytest.raises(ConfigError, match="other sizes"):
        trained("vicreg", 0, recipe, (clips, clips), None, tmp_path)


def test_unknown_rivals_are_named() -> None:
    with pytest.raises(ConfigError, match="vicreg"):
        names_of("vicrge")
    with pytest.raises(ConfigError):
        require_planner("eval.rival_planners:nobody_0")
