"""Many episodes: a suite of scenarios, several planners and seeds, on worker processes, resumable.

    out/episodes/<scenario>/<planner>/<seed>.npz   one file per episode, written whole or not at all
    out/failures.json                              what could not be driven, and why
    out/scorecard.json                             the result
    out/logs/worker-<n>.log                        what workers and simulators print

Every worker has a server process of its own and keeps it. A worker that dies or hangs costs one attempt of one
episode; after `ATTEMPTS` the episode counts as missing, which the scorecard shows and counts as zero.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drivesim.build import make_controller, make_planner, require_planner
from drivesim.config import ConfigError, from_dict, load_toml, nearest, to_dict
from drivesim.datatypes import Outcome, Scenario, Scorecard, default_rig
from drivesim.drive import PLAN_PERIOD_S, Driver, run_episode
from drivesim.episodes import EpisodeError, load_episode, save_episode
from drivesim.runs import Run, write_json
from drivesim.scoring.outcome import score
from drivesim.scoring.scorecard import scorecard, scorecard_json
from drivesim.town.towns import UnknownTown, canonical_name
from drivesim.worlds.behaviors import parameters_of
from drivesim.worlds.variation import weather_of

ATTEMPTS = 2
EPISODE_WALL_S = 900.0
BLIND_CAMERA_PERIOD_S = 1.0  # drivers that need no pictures: only the report's
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Suite:
    """A suite file: an id and the ids of its scenarios."""

    id: str
    scenarios: tuple[str, ...]
    description: str = ""


@dataclass(frozen=True)
class Job:
    """One episode to drive."""

    scenario: Scenario
    planner: str
    seed: int

    def path(self, out: Path) -> Path:
        """Its episode's file."""
        return out / "episodes" / self.scenario.id / self.planner.replace(":", ".") / f"{self.seed}.npz"

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes it unique in the suite."""
        return self.scenario.id, self.planner, self.seed


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


# ---------------------------------------------------------------------- files
def data_folder(name: str) -> Path:
    """`scenarios` or `eval/suites`: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
    inside = package / "_data" / name
    return inside if inside.is_dir() else package.parent / name


def scenario_files() -> dict[str, Path]:
    """Scenario id -> file of all shipped scenarios."""
    return {path.stem: path for path in sorted(data_folder("scenarios").glob("*/*.toml"))}


def load_scenario(name: str | Path) -> Scenario:
    """A scenario by id or by file.

    Raises:
        ConfigError: no such scenario, or one that cannot be used.
    """
    path = Path(name)
    if path.suffix != ".toml":
        files = scenario_files()
        if str(name) not in files:
            raise ConfigError(f"unknown scenario {str(name)!r}: {nearest(str(name), files)}, or a path to a .toml file")
        path = files[str(name)]
    scenario = load_toml(Scenario, path)
    check_scenario(scenario, str(path))
    return scenario


def check_scenario(scenario: Scenario, where: str) -> None:
    """Raise ConfigError unless town, weather, route, behaviours and parameters are known."""
    try:
        canonical_name(scenario.town)
        weather_of(scenario.weather)
        for spec in scenario.actors:
            parameters_of(spec)
    except (ConfigError, UnknownTown) as error:
        raise ConfigError(f"{where}: {error}") from error
    if len(scenario.route) < 2:
        raise ConfigError(f"{where}: route needs at least a start and a goal")
    if scenario.time_limit_s <= 0.0 or scenario.dt_s <= 0.0:
        raise ConfigError(f"{where}: time_limit_s and dt_s must be positive")


def suite_files() -> dict[str, Path]:
    """Suite id -> file of all shipped suites."""
    return {path.stem: path for path in sorted(data_folder("eval/suites").glob("*.toml"))}


def load_suite(name: str | Path) -> Suite:
    """A suite by id or by file.

    Raises:
        ConfigError: no such suite.
    """
    path = Path(name)
    if path.suffix != ".toml":
        files = suite_files()
        if str(name) not in files:
            raise ConfigError(f"unknown suite {str(name)!r}: {nearest(str(name), files)}, or a path to a .toml file")
        path = files[str(name)]
    suite = load_toml(Suite, path)
    if not suite.scenarios or len(set(suite.scenarios)) != len(suite.scenarios):
        raise ConfigError(f"{path}: scenarios must be there, each once")
    return suite


# ---------------------------------------------------------------------- running
def run_suite(
    suite: Suite, planners: Sequence[str], seeds: Sequence[int], *, out: Path, workers: int = 2,
    carla: tuple[str, int] | None = None, checkpoints: dict[str, Path] | None = None, on_progress: OnProgress | None = None,
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
    config = SuiteConfig(suite.id, suite.scenarios, tuple(planners), tuple(seeds), "" if carla is None else f"{carla[0]}:{carla[1]}")
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
        crew = _Crew(out, 1 if carla is not None else max(1, min(workers, len(left))), carla, checkpoints or {})
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


def episodes_of(out: Path) -> Iterator[Path]:
    """The episode files of a suite's folder, in order of scenario, planner, seed."""
    yield from sorted((out / "episodes").glob("*/*/*.npz"), key=lambda path: (*path.parts[-3:-1], len(path.stem), path.stem))


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


class _Crew:
    """Worker processes and what each is at."""

    def __init__(self, out: Path, size: int, carla: tuple[str, int] | None, checkpoints: dict[str, Path]) -> None:
        self._out, self._size, self._carla, self._checkpoints = out, size, carla, checkpoints
        self._context = multiprocessing.get_context("spawn")

    def run(self, jobs: list[Job]) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Yield every job with its reply, {"error", "wall_s"}, as they come."""
        waiting = [(job, 1) for job in jobs]
        crew = [_Worker(self._context, number, self._out, self._carla, self._checkpoints) for number in range(self._size)]
        try:
            while waiting or any(worker.job is not None for worker in crew):
                for worker in crew:
                    if worker.job is None and waiting:
                        worker.give(*waiting.pop(0))
                for worker, reply in _replies(crew):
                    assert worker.job is not None
                    job, attempt = worker.job, worker.attempt
                    worker.job = None
                    if reply["error"] and attempt < ATTEMPTS:
                        waiting.insert(0, (job, attempt + 1))
                    else:
                        yield job, reply
        finally:
            for worker in crew:
                worker.dismiss()


def _replies(crew: list[_Worker]) -> list[tuple[_Worker, dict[str, Any]]]:
    """Wait until a worker answers, dies or is overdue."""
    busy = [worker for worker in crew if worker.job is not None]
    multiprocessing.connection.wait([worker.pipe for worker in busy], timeout=1.0)
    found = []
    for worker in busy:
        reply = worker.reply()
        if reply is not None:
            found.append((worker, reply))
    return found


class _Worker:
    """One process, started when it is given work, and again after it died."""

    def __init__(
        self, context: Any, number: int, out: Path, carla: tuple[str, int] | None, checkpoints: dict[str, Path]
    ) -> None:
        self._context, self._number, self._out = context, number, out
        self._carla, self._checkpoints = carla, {name: str(path) for name, path in checkpoints.items()}
        self._process: Any = None
        self.pipe: Any = None
        self.job: Job | None = None
        self.attempt = 0
        self._since_s = 0.0

    def give(self, job: Job, attempt: int) -> None:
        """Send it a job."""
        if self._process is None or not self._process.is_alive():
            self._start()
        self.job, self.attempt, self._since_s = job, attempt, time.monotonic()
        order = {"scenario": to_dict(job.scenario), "planner": job.planner, "seed": job.seed, "path": str(job.path(self._out))}
        with contextlib.suppress(OSError):  # it died meanwhile: `reply` will say so
            self.pipe.send_bytes(json.dumps(order).encode())

    def reply(self) -> dict[str, Any] | None:
        """Its answer, or what stands for it when it died or hangs; None while it works."""
        wall_s = time.monotonic() - self._since_s
        try:
            if self.pipe.poll():
                answer: dict[str, Any] = json.loads(self.pipe.recv_bytes())
                return {**answer, "wall_s": wall_s}
        except (EOFError, OSError):
            pass
        else:
            if self._process.is_alive() and wall_s < EPISODE_WALL_S:
                return None
        cause = f"no answer in {EPISODE_WALL_S:.0f} s" if wall_s >= EPISODE_WALL_S else "the worker process died"
        self._end()
        return {"error": f"{cause}; see logs/worker-{self._number}.log", "wall_s": wall_s}

    def dismiss(self) -> None:
        """Let it end in peace, or end it."""
        if self._process is None:
            return
        if self.job is None:
            with contextlib.suppress(OSError):
                self.pipe.send_bytes(b"null")
            self._process.join(10.0)
        self._end()

    def _end(self) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.terminate()
            self._process.join(5.0)
            if self._process.is_alive():
                self._process.kill()
                self._process.join(5.0)
        if self.pipe is not None:
            self.pipe.close()
        self._process = self.pipe = None

    def _start(self) -> None:
        if self._process is not None:
            self._end()
        self.pipe, theirs = self._context.Pipe()
        log = self._out / "logs" / f"worker-{self._number}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        before = {name: os.environ.get(name) for name in _ONE_THREAD}
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
        try:
            self._process = self._context.Process(
                target=_work, args=(theirs, str(log), self._carla, self._checkpoints), daemon=True
            )
            self._process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
        theirs.close()


# ---------------------------------------------------------------------- in the worker process
def _work(pipe: Any, log: str, carla: tuple[str, int] | None, checkpoints: dict[str, str]) -> None:
    """Drive episodes until told to stop. Whatever is printed goes to the log, the Traffic Manager's chatter too."""
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(sink, stream)
    with contextlib.ExitStack() as stack:
        bench = _Bench(stack, carla, checkpoints)
        while True:
            try:
                order = json.loads(pipe.recv_bytes())
            except (EOFError, OSError):
                break
            if order is None:
                break
            try:
                bench.drive(order)
                error = ""
            except Exception as caught:
                traceback.print_exc()
                error = f"{type(caught).__name__}: {caught}"
                bench.start_over()
            pipe.send_bytes(json.dumps({"error": error}).encode())


class _Bench:
    """What a worker keeps between episodes: its server, its worlds, its planners."""

    def __init__(self, stack: contextlib.ExitStack, carla: tuple[str, int] | None, checkpoints: dict[str, str]) -> None:
        self._stack, self._carla, self._checkpoints = stack, carla, checkpoints
        self._server: contextlib.ExitStack | None = None
        self._address: tuple[str, int] | None = carla
        self._worlds: dict[bool, Any] = {}
        self._planners: dict[str, Any] = {}
        stack.callback(self.start_over)

    def drive(self, order: dict[str, Any]) -> None:
        """Drive one episode and save it."""
        scenario = from_dict(Scenario, order["scenario"])
        planner = self._planner(order["planner"])
        world = self._world(scenario.town, planner.needs_images)
        driver = Driver(planner, make_controller(), default_rig(), PLAN_PERIOD_S)
        try:
            episode = run_episode(world, driver, scenario, int(order["seed"]))
        finally:
            world.close()
        save_episode(replace(episode, planner=order["planner"]), Path(order["path"]))

    def start_over(self) -> None:
        """Give up the server and all worlds: after an error nobody knows what state they are in."""
        for world in self._worlds.values():
            with contextlib.suppress(Exception):
                world.close()
        self._worlds = {}
        if self._server is not None:
            self._server.close()
        self._server = None
        self._address = self._carla

    def _planner(self, name: str) -> Any:
        if name not in self._planners:
            path = self._checkpoints.get(name)
            self._planners[name] = make_planner(name, None if path is None else Path(path))
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
        return self._planners[name]

    def _world(self, town: str, needs_images: bool) -> Any:
        from drivesim.worlds.carla_world import CarlaWorld

        if self._address is None:
            from drivesim.carla_server.embedded import EmbeddedServer

            self._server = contextlib.ExitStack()
            self._address = self._server.enter_context(EmbeddedServer(canonical_name(town)))
        if needs_images not in self._worlds:
            host, port = self._address
            period_s = PLAN_PERIOD_S if needs_images else BLIND_CAMERA_PERIOD_S
            self._worlds[needs_images] = CarlaWorld(host, port, rig=default_rig(), camera_period_s=period_s)
        return self._worlds[needs_images]
