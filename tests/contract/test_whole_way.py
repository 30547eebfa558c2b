"""The whole way, small: record, train, evaluate through the carla client, report, replay."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVESIM = [sys.executable, "-m", "drivesim.cli"]


def run(*arguments: str | Path, timeout_s: float = 500.0) -> str:
    command = [*DRIVESIM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "smoke"
    run("train", "smoke", "--out", out)
    return out


def test_training_leaves_a_checkpoint_with_a_card(trained: Path) -> None:
    from drivesim.models import WorldModel, read_card

    path = trained / "checkpoints" / "smoke.safetensors"
    assert (trained / "checkpoints" / "last").resolve() == path.resolve()
    assert read_card(path)["data"]["towns"] == ["Drivetown"]
    WorldModel.load(path)
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == {"pretrain", "things", "stance", "dynamics", "heads"}


def test_training_leaves_the_checkpoints_companions(trained: Path) -> None:
    from drivesim.models import WorldModel
    from drivesim.models.critic import critic_beside
    from drivesim.models.distilled import DistilledPolicy, distilled_path

    path = trained / "checkpoints" / "smoke.safetensors"
    model = WorldModel.load(path)
    assert critic_beside(path, model) is not None
    DistilledPolicy.load(distilled_path(path), model.digest)


def test_training_again_does_nothing_twice(trained: Path) -> None:
    before = (trained / "checkpoints" / "smoke.safetensors").read_bytes()
    run("train", "smoke", "--out", trained)
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["stage"] == "pretrain" for line in lines) == 3
    from drivesim.models import WorldModel

    after = trained / "checkpoints" / "smoke.safetensors"
    copy = trained / "before.safetensors"
    copy.write_bytes(before)
    assert WorldModel.load(after).digest == WorldModel.load(copy).digest


def test_the_trained_model_drives_and_is_reported(trained: Path, tmp_path: Path) -> None:
    checkpoint, out = trained / "checkpoints" / "last", tmp_path / "run"
    scenario = next(Path("scenarios").glob("*/*.toml")).stem
    run("evaluate", "--suite", "demo", "--scenario", scenario, "--planner", "latent", "--planner", "constant-velocity",
        "--checkpoint", checkpoint, "--seeds", "1", "--workers", "1", "--out", out)  # fmt: skip
    card = json.loads((out / "scorecard.json").read_text())
    assert set(card["planners"]) == {"latent", "constant-velocity"}
    assert card["planners"]["latent"]["driving_score"]["n"] == 1
    run("report", out)
    assert "<html" in (out / "report.html").read_text()[:2000]


def test_a_logged_drive_is_replayed(trained: Path, tmp_path: Path) -> None:
    log = sorted((trained / "logs").glob("*.zarr"))[0]
    page = tmp_path / "replay.html"
    run("replay", log, "--checkpoint", trained / "checkpoints" / "last", "--out", page)
    assert page.stat().st_size > 20_000
