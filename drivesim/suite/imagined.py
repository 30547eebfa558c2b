"""`drivesim evaluate --world latent`: planners driven in imagination from logged starts, scored like anywhere else.

    out/latents/<log>.npz                            the logs, encoded once
    out/episodes/<log>@<tick>/<planner>/<seed>.npz   one file an episode, its trust in its provenance
    out/scorecard.json                               as of any suite, with "trust" beside every outcome

A score that cannot be trusted is not valid: it is in no mean, and the scorecard says why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from drivesim.build import (
    BATCH_PLANNERS,
    NEEDS_TOWN,
    load_world_model,
    make_imagination,
    make_planner,
    require_planner,
)
from drivesim.config import ConfigError
from drivesim.datatypes import CameraRig, Episode, Outcome, Scorecard, default_rig
from drivesim.episodes import EpisodeError, load_episode, save_episode
from drivesim.logs import DriveLog, LogError
from drivesim.runs import Run, write_json
from drivesim.scoring.outcome import score
from drivesim.scoring.scorecard import scorecard, scorecard_json
from drivesim.suite.files import Job
from drivesim.suite.imagining import Everybody, GivenPlans, Imagined, OneByOne, drive_batch, plans_along
from drivesim.suite.running import OnProgress, Progress
from drivesim.suite.trust import Trust, TrustGauge, TrustLimits, start_of
from drivesim.worlds.imagined_batch import STEP_S, ImaginationConfig, ImaginationCore, ImaginedBatch, LatentStart
from drivesim.worlds.logged_drive import (
    EncodedDrive,
    UnusableDrive,
    encode_drive,
    encoded_before,
    news_of,
    pictures,
    start_at,
)

Runner = Everybody | OneByOne


@dataclass(frozen=True)
class ImaginedConfig:
    """How imagined drives are cut out of logs.

    Attributes:
        seconds: longest drive.
        goal_m: distance along the route that counts as all of it.
        every_s: between the starts in a log.
        max_starts: at most so many, spread over all logs; 0 for all.
        batch: drives at once.
    """

    seconds: float = 6.0
    goal_m: float = 40.0
    every_s: float = 3.0
    max_starts: int = 0
    batch: int = 128
    limits: TrustLimits = field(default_factory=TrustLimits)

    def validate(self) -> None:
        """Raise ConfigError for numbers out of range."""
        if self.seconds < STEP_S or self.goal_m <= 0.0 or self.every_s < STEP_S or self.batch < 1:
            raise ConfigError(f"seconds and every_s must be at least {STEP_S:g}, goal_m positive and batch at least 1")

    @property
    def steps(self) -> int:
        """Latent ticks of the longest drive."""
        return int(self.seconds / STEP_S)


@dataclass(frozen=True)
class Asked:
    """What an evaluation was asked for; kept as config.toml in its folder."""

    suite: str
    planners: tuple[str, ...]
    seeds: tuple[int, ...]
    encoder: str
    world: str
    logs: str
    imagination: ImaginedConfig


def open_drives(folder: Path) -> list[DriveLog]:
    """The logs of a folder, or the one log that it is.

    Raises:
        LogError: there are none.
    """
    if (folder / "zarr.json").is_file():
        return [DriveLog(folder)]
    found = []
    for path in sorted(folder.glob("*.zarr")):
        try:
            found.append(DriveLog(path))
        except LogError:
            continue
    if not found:
        raise LogError(f"no drive log in {folder}; record some with `drivesim record --out {folder}`")
    return found


class LoggedWorld:
    """Logs with the model that imagines from them: drives, starts, and how far to trust what comes of them."""

    def __init__(
        self, logs: Sequence[DriveLog], checkpoint: Path | None, config: ImaginedConfig, kept: Path | None = None,
        reference: Sequence[EncodedDrive] | None = None,
    ) -> None:  # fmt: skip
        """Encode the logs and gauge the model on them.

        Args:
            kept: a folder where encoded logs are kept, or found.
            reference: drives that say what is usual, when the logs themselves shall not.

        Raises:
            LogError: none of the logs can be used.
            ConfigError: numbers out of range.
        """
        config.validate()
        self.config, self.checkpoint = config, checkpoint
        self.model, self.kinematics = make_imagination(checkpoint)
        self.rig = default_rig()
        self.logs: dict[str, DriveLog] = {}
        self.drives: dict[str, EncodedDrive] = {}
        refused = ""
        for log in logs:
            try:
                drive = self._encoded(log, kept)
            except (UnusableDrive, LogError) as error:
                refused = str(error)
                continue
            self.logs[drive.name], self.drives[drive.name] = log, drive
        if not self.drives:
            raise LogError(refused or "no logs")
        self.gauge = TrustGauge(self.model, list(self.drives.values()), config.steps, config.limits, reference)
        self.starts = {start.scenario.id: start for start in self._starts()}

    def _encoded(self, log: DriveLog, kept: Path | None) -> EncodedDrive:
        rig = self._rig_of(log)
        file = None if kept is None else kept / f"{log.path.name.removesuffix('.zarr')}.npz"
        stamp = f"{self.model.digest} {rig.digest} {len(log)}"
        if file is not None and file.is_file():
            with np.load(file, allow_pickle=False) as data:
                if str(data["stamp"]) == stamp:
                    return encoded_before(log, data["latents"])
        world_model = load_world_model(self.checkpoint)
        drive = encode_drive(log, rig, lambda *seen: world_model.encode(*seen).tokens)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".partial")
            with partial.open("wb") as out:
                np.savez(out, stamp=np.array(stamp), latents=drive.latents)
            partial.replace(file)
        return drive

    def _rig_of(self, log: DriveLog) -> CameraRig:
        rig = log.rig if log.has_images else self.rig
        wanted = load_world_model(self.checkpoint).rig_digest
        if rig.digest != wanted:
            raise LogError(f"{log.path} was recorded by rig {rig.digest}, the checkpoint was trained for {wanted}")
        return rig

    def _starts(self) -> list[LatentStart]:
        """Starts every `every_s`, with their past and at least half a drive of logged future to gauge drift on."""
        stride, least = max(round(self.config.every_s / STEP_S), 1), max(self.config.steps // 2, 1)
        places = [
            (drive, k) for drive in self.drives.values() for k in range(1, max(len(drive.frames) - least, 2), stride)
        ]
        most = self.config.max_starts
        if 0 < most < len(places):
            places = [places[int(i)] for i in np.linspace(0, len(places) - 1, most).round()]
        news = {name: news_of(self.model, drive) for name, drive in self.drives.items()}
        return [start_at(drive, k, self.config.seconds, self.config.goal_m, news[drive.name]) for drive, k in places]

    def batch(
        self, ids: Sequence[str], seeds: Sequence[int], model: ImaginationCore | None = None,
        imagination: ImaginationConfig | None = None,
    ) -> ImaginedBatch:  # fmt: skip
        """A batch of drives from starts by id; `model` answers instead of this world's own, for controls."""
        return ImaginedBatch(model or self.model, self.kinematics, [self.starts[i] for i in ids], seeds, imagination)

    def runner(self, name: str) -> Runner | None:
        """A planner for imagination by name; None for one that has to have pictures."""
        if name in BATCH_PLANNERS:
            return Everybody(BATCH_PLANNERS[name](self.model))
        if name in NEEDS_TOWN:
            raise ConfigError(f"planner {name!r} tries futures out in the embedded town: it cannot be imagined")
        planner = make_planner(name, self.checkpoint)
        if planner.needs_images and not hasattr(planner, "model"):
            return None
        sight = load_world_model(self.checkpoint) if planner.needs_images else None
        return OneByOne(name, lambda: make_planner(name, self.checkpoint), sight)

    def drive(self, name: str, ids: Sequence[str], seeds: Sequence[int]) -> list[Imagined]:
        """Drive one planner from starts, each with its seed, in batches; all in the order given."""
        runner, size = self.runner(name), self.config.batch
        pieces = [(ids[i : i + size], seeds[i : i + size]) for i in range(0, len(ids), size)]
        if runner is not None:
            return [drive_batch(self.batch(*piece), runner) for piece in pieces]
        return [imagined for piece in pieces for imagined in self._plans_rolled_out(name, *piece)]

    def _plans_rolled_out(self, name: str, ids: Sequence[str], seeds: Sequence[int]) -> list[Imagined]:
        """A pixel planner: its plans from what was logged, each driven to its end in imagination."""
        planner, found = make_planner(name, self.checkpoint), []
        for seed in dict.fromkeys(seeds):
            for log_name in dict.fromkeys(start_of(i)[0] for i, s in zip(ids, seeds, strict=True) if s == seed):
                drive, log = self.drives[log_name], self.logs[log_name]
                frames = [
                    replace(frame, images=pictures(log, int(tick), log.frame(int(tick)), self.rig))
                    for tick, frame in zip(drive.ticks, drive.frames, strict=True)
                ]
                plans = plans_along(planner, frames, seed, drive.scenario, self.rig)
                own = [i for i, s in zip(ids, seeds, strict=True) if s == seed and start_of(i)[0] == log_name]
                found.append(self._one_plan_each(name, own, [plans[start_of(i)[1]] for i in own], seed))
        return found

    def _one_plan_each(self, name: str, ids: Sequence[str], plans: Sequence[Any], seed: int) -> Imagined:
        reach_s = min(float(plans[0].trajectory.times_s[-1]), self.config.seconds)
        seconds = max(int(reach_s / STEP_S), 1) * STEP_S
        goal_m = self.config.goal_m * seconds / self.config.seconds
        starts = []
        for scenario_id in ids:
            log_name, tick = start_of(scenario_id)
            starts.append(start_at(self.drives[log_name], tick, seconds, goal_m))
        batch = ImaginedBatch(self.model, self.kinematics, starts, [seed] * len(starts))
        return drive_batch(batch, GivenPlans(name, plans), replan=False)

    def trusts(self, imagined: Imagined) -> list[Trust]:
        """How far each drive of a batch can be trusted."""
        return [
            self.gauge.judge(episode.scenario.id, imagined.latents(row), imagined.doubts(row))
            for row, episode in enumerate(imagined.episodes)
        ]


def with_trust(episode: Episode, trust: Trust) -> Episode:
    """An episode that knows how far to trust it."""
    return replace(episode, provenance=episode.provenance | {"trust": json.dumps(asdict(trust))})


def trust_of(episode: Episode) -> Trust:
    """What `with_trust` wrote.

    Raises:
        KeyError: it is no imagined episode.
    """
    return Trust(**json.loads(episode.provenance["trust"]))


def judged(episode: Episode) -> Outcome:
    """All measures of an imagined episode, not valid where imagination abstains."""
    outcome = score(episode)
    if trust_of(episode).valid:
        return outcome
    return replace(outcome, measures=tuple(replace(measure, valid=False) for measure in outcome.measures))


def evaluate_imagined(
    logs: Path, planners: Sequence[str], seeds: Sequence[int], *, out: Path, checkpoint: Path | None = None,
    config: ImaginedConfig | None = None, on_progress: OnProgress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Scorecard:  # fmt: skip
    """Drive what is not driven yet, score everything, write and return the scorecard.

    Args:
        logs: a folder of logs, or one log.
        seeds: every start is driven once a seed.
        out: the folder; an interrupted evaluation in it goes on.
        tell: is given a line when the logs are encoded.

    Raises:
        ConfigError, LogError, drivesim.models.CheckpointError: before any planner drives.
    """
    for name in planners:
        require_planner(name)
    config = config or ImaginedConfig()
    world = LoggedWorld(open_drives(logs), checkpoint, config, out / "latents")
    asked = Asked("imagined", tuple(planners), tuple(seeds), world.model.digest, "latent", str(logs), config)
    Run.create(out, asked, rig=world.rig.digest)
    if tell is not None:
        drift = world.gauge.table.drift(config.steps)
        tell(f"{len(world.drives)} logs, {len(world.starts)} starts; drift over {config.seconds:g} s: {drift:.2f}")
    kept = _Kept(world, out, on_progress, len(planners) * len(world.starts) * len(seeds))
    for name in planners:
        kept.drive(name, seeds)
    outcomes = [judged(episode) for episode in kept.episodes]
    keys = [(i, name, seed) for name in planners for i in world.starts for seed in seeds]
    card = scorecard(asked.suite, outcomes, keys)
    write_json(out / "scorecard.json", scorecard_json(card) | trust_json(kept.episodes, world, config))
    return card


def trust_json(episodes: Sequence[Episode], world: LoggedWorld, config: ImaginedConfig) -> dict[str, Any]:
    """What goes into scorecard.json beside the scores."""
    flags = [(episode, trust_of(episode)) for episode in episodes]
    names = dict.fromkeys(episode.planner for episode in episodes)
    return {
        "world": "latent",
        "drift": {"all": world.gauge.table.drift(config.steps), "by_step": world.gauge.table.curve().tolist()},
        "trusted": {
            name: {
                "n": sum(episode.planner == name for episode in episodes),
                "valid": sum(episode.planner == name and trust.valid for episode, trust in flags),
            }
            for name in names
        },
        "trust": [
            {"scenario": e.scenario.id, "planner": e.planner, "seed": e.seed, "valid": trust.valid, **asdict(trust)}
            for e, trust in flags
        ],
    }


class _Kept:
    """Episodes of a folder: what is there is read, what is not is driven and saved."""

    def __init__(self, world: LoggedWorld, out: Path, on_progress: OnProgress | None, total: int) -> None:
        self._world, self._out, self._on_progress, self._total = world, out, on_progress, total
        self.episodes: list[Episode] = []

    def drive(self, name: str, seeds: Sequence[int]) -> None:
        """All starts and seeds of one planner."""
        jobs = [Job(start.scenario, name, seed) for start in self._world.starts.values() for seed in seeds]
        left = []
        for job in jobs:
            found = self._found(job)
            if found is None:
                left.append(job)
            else:
                self._take(found, resumed=True)
        if not left:
            return
        for imagined in self._world.drive(name, [job.scenario.id for job in left], [job.seed for job in left]):
            share_s = imagined.wall_s / len(imagined.episodes)
            for episode, trust in zip(imagined.episodes, self._world.trusts(imagined), strict=True):
                whole = with_trust(replace(episode, planner=name), trust)
                save_episode(whole, Job(whole.scenario, name, whole.seed).path(self._out))
                self._take(whole, wall_s=share_s)

    def _found(self, job: Job) -> Episode | None:
        path = job.path(self._out)
        if not path.is_file():
            return None
        try:
            episode = load_episode(path)
        except EpisodeError:
            return None
        same = episode.provenance.get("encoder") == self._world.model.digest and "trust" in episode.provenance
        start, driven = self._world.starts[job.scenario.id].scenario, episode.scenario
        return episode if same and replace(driven, time_limit_s=start.time_limit_s) == start else None

    def _take(self, episode: Episode, *, wall_s: float = 0.0, resumed: bool = False) -> None:
        self.episodes.append(episode)
        if self._on_progress is None:
            return
        value = judged(episode).value("driving_score")
        end = episode.end.value if value is not None else "abstains"
        self._on_progress(
            Progress(len(self.episodes), self._total, *episode.key, end, value, wall_s, resumed)
        )  # fmt: skip
