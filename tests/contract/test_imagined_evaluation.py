"""`drivesim evaluate --world latent`, from a recorded log to a report, and what is wrong with it in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from drivesim.build import BATCH_PLANNERS, PLANNERS, make_world
from drivesim.datatypes import default_rig
from drivesim.models import WorldModel, WorldModelConfig
from drivesim.recording import RecordConfig, record
from drivesim.suite.imagined import ImaginedConfig, LoggedWorld, open_drives

DRIVESIM = [sys.executable, "-m", "drivesim.cli", "evaluate"]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("logs")
    record(RecordConfig(("Drivetown",), 1, 4.0, 0.5, images=False, route_m=200.0, vehicles=4, walkers=1, seed=8), out)
    return out


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "untrained.safetensors"
    WorldModel(WorldModelConfig(), default_rig().digest).eval().save(path, {})
    return path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*DRIVESIM, *map(str, arguments)]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # threads that wait for each other cost more than they bring
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, env=alone)


def test_an_untrained_model_drives_and_abstains(logs: Path, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run("--world", "latent", "--logs", logs, "--checkpoint", checkpoint, "--planner", "readout-rule",
               "--planner", "latent", "--seconds", "1", "--out", out)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not to be trusted" in " ".join(done.stdout.split())
    card = json.loads((out / "scorecard.json").read_text())
    assert set(card["trusted"]) == {"readout-rule", "latent"}
    assert all(not flag["valid"] and flag["reason"] for flag in card["trust"])
    assert len(list((out / "episodes").glob("*/latent/*.npz"))) == card["trusted"]["latent"]["n"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--world", "dream"], "unknown world"),
        (["--world", "latent"], "--logs"),
        (["--logs", "somewhere"], "go together"),
        (["--world", "latent", "--logs", "no/such/folder"], "no drive log"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], said: str, checkpoint: Path, tmp_path: Path) -> None:
    done = run(*arguments, "--out", tmp_path / "run", "--checkpoint", checkpoint)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_the_latent_world_is_in_the_table(logs: Path, checkpoint: Path) -> None:
    world = LoggedWorld(open_drives(logs), checkpoint, ImaginedConfig(seconds=1.0))
    latent = make_world("latent", starts=world.starts.values(), checkpoint=checkpoint)
    start = next(iter(world.starts.values()))
    frame = latent.reset(start.scenario, 0)
    assert frame.ego.speed_mps == pytest.approx(start.frame.ego.speed_mps)
    latent.close()
    latent.close()


def test_batched_planners_are_planners_too() -> None:
    assert set(BATCH_PLANNERS) <= set(PLANNERS)
