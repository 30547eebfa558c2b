"""The study of foreseen risks: its figures on answers known by hand, its controls, and the whole of it, small."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from drivesim.datatypes import default_rig
from drivesim.models import WorldModel, WorldModelConfig
from drivesim.recording import RecordConfig, record
from eval import bootstrap, risk
from eval.frozen import study_parser
from eval.risk_heads import TRAINERS, heads_config
from training.cache import CacheConfig, build_cache
from training.clips import Clips
from training.heads import HeadsConfig, HeadTrainer, contested
from training.latents import encode_clips

RECORDING = RecordConfig(
    towns=("Drivetown",), episodes=2, seconds=8.0, period_s=0.5, images=False, route_m=200.0, seed=5, vehicles=8,
    walkers=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a cache, the drives that judge it, and a checkpoint of random weights."""
    out = tmp_path_factory.mktemp("risk")
    logs, rig = record(RECORDING, out / "held" / "logs"), default_rig()
    build_cache(logs, out / "cache", rig, CacheConfig(branch_share=0.35, workers=1, looks=2), lambda _: None)
    for name in ("seen_weather", "unseen_weather"):
        shutil.copytree(out / "cache", out / "held" / name)
    torch.manual_seed(0)
    WorldModel(WorldModelConfig(), rig.digest).eval().save(out / "random.safetensors", {})
    return out


@pytest.fixture
def trainers(run: Path) -> dict[str, HeadTrainer]:
    model, clips = WorldModel.load(run / "random.safetensors"), Clips.load(run / "cache")
    latents, config = encode_clips(clips, model.encoder), HeadsConfig(steps=2, risk_states=4)
    return {
        label: kind(clips, latents, model.predictor, model.config.heads, config) for label, kind in TRAINERS.items()
    }


def test_moments_are_joined_and_states_ranked() -> None:
    moments = torch.tensor([[[0.5, 0.5], [0.0, 0.0]], [[0.1, 0.0], [0.0, 0.1]]])
    score = risk.within(moments)
    np.testing.assert_allclose(score, [[0.75, 0.0], [0.1, 0.1]])
    ranked = risk.rankings(score, np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert ranked[0] == 1.0 and np.isnan(ranked[1])
    found = risk.measures(score, np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert found["which_state"](np.arange(2)) == 1.0 and found["ranking"](np.array([1])) is None


def test_a_head_that_says_what_happens_has_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    said = torch.from_numpy(rng.choice([0.02, 0.3, 0.9], (400, 5, 4)))
    happened = torch.from_numpy((rng.random((400, 5, 4)) < said.numpy()).astype(np.float64))
    drive = np.repeat(np.arange(20), 20)
    honest, proud = (risk.calibration(p, happened, drive, 20) for p in (said, said.sqrt()))
    assert honest["error"]["value"] < 0.02 < 0.1 < proud["error"]["value"]
    assert honest["error_where_loud"]["value"] < 0.05 < proud["error_where_loud"]["value"]
    told = [part for part in honest["reliability"] if part["moments"]]
    assert [round(part["said"], 2) for part in told] == [0.02, 0.3, 0.9]
    assert all(part["happened"]["ci95"][0] - 0.02 < part["said"] < part["happened"]["ci95"][1] + 0.02 for part in told)


def test_controls_are_shown_less(trainers: dict[str, HeadTrainer]) -> None:
    one = trainers["imagination"]
    rows, chosen = torch.from_numpy(one.risk_rows[:3]), torch.arange(2).expand(3, -1)
    context = one.noisy(rows, np.random.default_rng(0))
    asked = {label: trainer.risk_queries(context, rows, chosen) for label, trainer in trainers.items()}
    pairs, features, labels = asked["imagination"]
    m = 3 * 2 * one.config.horizon
    assert len(pairs) == len(features) == len(labels) == m
    torch.testing.assert_close(pairs[:, 0], context[:, 1].repeat_interleave(m // 3, 0))
    blind = asked["no imagination"][0]
    torch.testing.assert_close(blind, context.repeat_interleave(m // 3, 0))
    for other in asked.values():
        torch.testing.assert_close(other[1], features)
        torch.testing.assert_close(other[2], labels)
    head = trainers["no vision"].risk.eval()
    torch.testing.assert_close(head(pairs, features), head(torch.randn_like(pairs), features))


def test_hard_negatives_are_states_whose_own_drives_differ(trainers: dict[str, HeadTrainer]) -> None:
    risks = np.zeros((4, 3, 6, 3), np.float32)
    risks[0, 1, 3, 0] = 1.0  # one drive collides within two seconds
    risks[1, 1, 4, 0] = 1.0  # one collides later
    risks[2, :, 2, 2] = 1.0  # all of them cross
    risks[3, 0, 1, 1] = 1.0  # a near miss alone
    assert contested(risks).tolist() == [True, False, False, False]
    one, rng = trainers["imagination"], np.random.default_rng(0)
    one.calm_risk, one.eventful, one.contested = np.arange(0, 5), np.arange(10, 15), np.arange(20, 25)
    one.config = replace(one.config, risk_states=20, contested_share=0.4)
    assert np.bincount(one.risk_states(rng).numpy() // 10).tolist() == [10, 2, 8]
    one.contested = np.arange(0)
    assert np.bincount(one.risk_states(rng).numpy() // 10).tolist() == [10, 10]


def test_controls_are_trained_like_the_checkpoints_own_heads(run: Path, tmp_path: Path) -> None:
    assert heads_config(run / "random.safetensors", 0) == HeadsConfig()
    card = {"stages": {"heads": {"steps": 9, "noise": 0.5, "long gone": 1}}}
    WorldModel.load(run / "random.safetensors").save(tmp_path / "old.safetensors", card)
    wanted = HeadsConfig(steps=9, noise=0.5, contested_share=0.0)
    assert heads_config(tmp_path / "old.safetensors", 0) == wanted
    assert heads_config(tmp_path / "old.safetensors", 7) == replace(wanted, steps=7)


def test_the_study_runs_again_from_what_it_kept(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "DRAWS", 20)
    arguments = [str(run), "--checkpoint", str(run / "random.safetensors"), "--held-out", str(run / "held")]
    parsed = study_parser(None, "").parse_args([*arguments, "--out", str(tmp_path), "--drives", "2"])
    wanted = argparse.Namespace(**vars(parsed), states=12, branches=4, heads_steps=2, draws=10, twin=True)
    found = risk.study(wanted)
    assert set(found["questions"]) == {"seen_weather", "unseen_weather", "driven"}
    heads = {"shipped", "imagination", "no imagination", "no vision"}
    assert set(found["questions"]["seen_weather"]["collision"]["figures"]) == heads
    assert set(found["questions"]["driven"]["near"]["figures"]) == heads | {"what came"}
    assert 0.0 <= found["questions"]["seen_weather"]["near"]["calibration"]["error"]["value"] <= 1.0
    weights = sorted((tmp_path / "heads").glob("*.pt"))
    assert len(weights) == len(TRAINERS)
    made = [path.stat().st_mtime_ns for path in weights]
    again = risk.study(wanted)
    assert again["questions"] == json.loads((tmp_path / "risk.json").read_text())["questions"] == found["questions"]
    assert [path.stat().st_mtime_ns for path in weights] == made, "control heads are trained once"
    assert "no imagination" in (tmp_path / "risk.html").read_text()
