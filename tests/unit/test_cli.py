"""The command line from outside: what is wrong is said in one line, with exit code 2, before any work starts."""

from __future__ import annotations

import contextlib
import io
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from drivesim.cli import main
from drivesim.config import save_toml
from drivesim.episodes import save_episode
from drivesim.runs import Run, write_json
from drivesim.scoring.scorecard import scorecard_json
from drivesim.suite import Suite
from drivesim.town.towns import BUILTIN_TOWN, road_network
from tests.browser.synthetic_drives import scorecard, suite_episodes

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from drivesim.cli import main; main()"]
COMMANDS = ("serve", "record", "train", "evaluate", "report", "replay", "towns")


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run(*arguments: object) -> Done:
    """A command in this process: its exit code and what it said."""
    before = signal.getsignal(signal.SIGTERM)
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
    finally:
        signal.signal(signal.SIGTERM, before)
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def refusal(*arguments: object) -> str:
    """The one line of a refusal."""
    done = run(*arguments)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_with_an_example(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "Example: drivesim" in done.stdout


def test_help_loads_nothing_heavy() -> None:
    heavy = ("torch", "numba", "carla", "zarr", "rich.progress")
    code = f"import sys, drivesim.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version() -> None:
    assert run("--version").stdout.startswith("drivesim")


def test_unknown_option_and_missing_value() -> None:
    assert "--bogus" in refusal("evaluate", "--bogus")
    assert "--out" in refusal("evaluate")


def test_unknown_town() -> None:
    assert "Did you mean Town02" in refusal("serve", "--town", "Towm02")
    assert "Town02" in refusal("towns", "install", "Towm02")
    assert "Town02" in refusal("record", "--town", "Towm02", "--out", "nowhere")


def test_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refusal("serve", "--port", port)
    assert str(port) in line
    assert "--port" in line


def test_unknown_suite_planner_scenario_and_address(tmp_path: Path) -> None:
    suite = tmp_path / "small.toml"
    scenario = tmp_path / "a-v1.toml"
    episode = suite_episodes(road_network(BUILTIN_TOWN), 1, ("expert",))[0]
    save_toml(episode.scenario, scenario)
    save_toml(Suite("small", (str(scenario),)), suite)
    out = tmp_path / "out"
    assert "unknown suite 'demmo'" in refusal("evaluate", "--suite", "demmo", "--out", out)
    assert "latent" in refusal("evaluate", "--suite", suite, "--planner", "latnet", "--out", out)
    assert "unknown scenario" in refusal("evaluate", "--suite", suite, "--scenario", "b-v1", "--out", out)
    assert "host:port" in refusal(
        "evaluate", "--suite", suite, "--carla", "localhost", "--planner", "expert", "--out", out
    )
    scenario.write_text(scenario.read_text().replace("time_limit_s", "time_limit"))
    assert "time_limit_s" in refusal("evaluate", "--suite", suite, "--planner", "expert", "--out", out)
    assert not out.exists(), "nothing may be written before the input is known to be right"


def test_checkpoint_that_is_none(tmp_path: Path) -> None:
    suite, scenario, weights = tmp_path / "s.toml", tmp_path / "a-v1.toml", tmp_path / "w.safetensors"
    save_toml(suite_episodes(road_network(BUILTIN_TOWN), 1, ("expert",))[0].scenario, scenario)
    save_toml(Suite("s", (str(scenario),)), suite)
    arguments = (
        "evaluate",
        "--suite",
        suite,
        "--planner",
        "latent",
        "--checkpoint",
        weights,
        "--out",
        tmp_path / "out",
    )
    assert "no checkpoint" in refusal(*arguments)
    weights.write_bytes(b"cut short")
    assert str(weights) in refusal(*arguments)


def test_unknown_recipe() -> None:
    assert "no recipe 'nanno'" in refusal("train", "nanno")


def test_not_a_run_and_not_a_log(tmp_path: Path) -> None:
    assert "scorecard.json" in refusal("report", tmp_path)
    assert "log" in refusal("replay", tmp_path / "nothing")


def test_interrupted_server_ends_with_130() -> None:
    command = [*COMMAND, "serve", "--town", BUILTIN_TOWN, "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"serving {BUILTIN_TOWN}")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_report_of_a_run(tmp_path: Path) -> None:
    episodes = suite_episodes(road_network(BUILTIN_TOWN), 1, ("latent", "expert"))
    card = scorecard(episodes)
    Run.create(tmp_path, Suite("demo", ("a-v1",)))
    write_json(tmp_path / "scorecard.json", scorecard_json(card))
    for episode in episodes:
        save_episode(episode, tmp_path / "episodes" / episode.scenario.id / episode.planner / "0.npz")
    done = run("report", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "driving score" in done.stdout
    assert (tmp_path / "report.html").stat().st_size > 50_000
    damaged = next((tmp_path / "episodes").rglob("*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:1000])
    assert str(damaged) in refusal("report", tmp_path)
    (tmp_path / "scorecard.json").write_text('{"planners": {')
    assert "cut short" in refusal("report", tmp_path)
