"""Drive a suite: what is left of it, on a crew of workers; then score it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from drivesim.build import require_planner
from drivesim.datatypes import Outcome, Scorecard, default_rig
from drivesim.episodes import EpisodeError, load_episode
from drivesim.runs import Run, write_json
from drivesim.scoring.outcome import score
from drivesim.scoring.scorecard import scorecard, scorecard_json
from drivesim.suite.crew import Crew
from drivesim.suite.files import Job, Suite
from drivesim.worlds.scenario_files import load_scenario


@dataclass(frozen=True)
class Progress:
    """What `on_progress` is told after every episode."""

    done: int
    total: int
    scenario_id: str
    planner: str
    seed: int
    end: str  # an EndReason's value, or "missing"
    driving_score: float | None
    wall_s: float
    resumed: bool = False
    error: str = ""


@dataclass(frozen=True)
class SuiteConfig:
    """What was asked for; kept as config.toml in the output folder."""

    suite: str
    scenarios: tuple[str, ...]
    planners: tuple[str, ...]
    seeds: tuple[int, ...]
    carla: str = ""


OnProgress = Callable[[Progress], None]


def run_suite(
    suite: Suite, planners: Sequence[str], seeds: Sequence[int], *, out: Path, workers: int = 2,
    carla: tuple[str, int] | None = None, checkpoints: dict[str, Path] | None = None,
    on_progress: OnProgress | None = None,
) -> Scorecard:  # fmt: skip
    """Drive what is not driven yet, score everything, write and return the scorecard.

    Args:
        suite: scenarios by id (or path).
        planners: names of `drivesim.build`.
        seeds: each scenario is driven once per seed.
        out: the folder; one of an interrupted run goes on where it was.
        workers: processes; 1 with an external server.
        carla: host and port of a running CARLA server; None starts embedded ones.
        checkpoints: planner -> weights, for planners that are not to use the shipped ones.
        on_progress: told after every episode, in this process.

    Raises:
        ConfigError: unknown planner or scenario, before any work starts.
    """
    scenarios = [load_scenario(name) for name in suite.scenarios]
    for planner in planners:
        require_planner(planner)
    jobs = [Job(scenario, planner, seed) for scenario in scenarios for planner in planners for seed in seeds]
    address = "" if carla is None else f"{carla[0]}:{carla[1]}"
    config = SuiteConfig(suite.id, suite.scenarios, tuple(planners), tuple(seeds), address)
    Run.create(out, config, rig=default_rig().digest)
    tell = _Teller(len(jobs), on_progress)
    outcomes: dict[tuple[str, str, int], Outcome] = {}
    for job in jobs:
        found = _already_driven(job, out)
        if found is not None:
            outcomes[job.key] = found
            tell(job, found.end, found.value("driving_score"), 0.0, resumed=True)
    left = [job for job in jobs if job.key not in outcomes]
    failures: dict[str, str] = {}
    if left:
        crew = Crew(out, 1 if carla is not None else max(1, min(workers, len(left))), carla, checkpoints or {})
        with contextlib.closing(crew.run(left)) as results:
            for job, reply in results:
                found = _already_driven(job, out) if not reply["error"] else None
                error = str(reply["error"]) if reply["error"] else "" if found else "its file cannot be read back"
                if found is None:
                    failures["/".join(map(str, job.key))] = error
                else:
                    outcomes[job.key] = found
                end, value = (found.end, found.value("driving_score")) if found else ("missing", None)
                tell(job, end, value, float(reply["wall_s"]), error=error)
    write_json(out / "failures.json", failures)
    card = scorecard(suite.id, [outcomes[job.key] for job in jobs if job.key in outcomes], [job.key for job in jobs])
    write_json(out / "scorecard.json", scorecard_json(card))
    return card


def _already_driven(job: Job, out: Path) -> Outcome | None:
    """The outcome of a job whose whole episode lies in the folder; another version of the scenario does not count."""
    path = job.path(out)
    if not path.is_file():
        return None
    try:
        episode = load_episode(path)
    except EpisodeError:
        return None
    return score(episode) if episode.scenario == job.scenario else None


class _Teller:
    def __init__(self, total: int, on_progress: OnProgress | None) -> None:
        self._total, self._done, self._on_progress = total, 0, on_progress

    def __call__(
        self, job: Job, end: str, value: float | None, wall_s: float, *, resumed: bool = False, error: str = ""
    ) -> None:
        self._done += 1
        if self._on_progress is not None:
            what = Progress(self._done, self._total, *job.key, end, value, wall_s, resumed, error)
            self._on_progress(what)
