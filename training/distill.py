"""Distil the latent planner's search into a head that answers at once.

    python -m training.distill runs/nano                             # for the shipped checkpoint
    python -m training.distill runs/nano --checkpoint runs/nano/checkpoints/last

The search runs on latents of logged training moments, at the eagernesses that driving brings about; any run's cache
will do, and where its latents are of another encoder they are encoded here. The head learns what the search found of
every standing profile: a profile is as likely as it is cheap, so that one state teaches about all of them and a near
miss costs little. No logged action and no truth is a label: the teacher is the planner's own imagination. The file lies
beside the checkpoint and is bound to its encoder. One drive in ten is kept out, and says how much of what searching
adds to the policy's own answer the head keeps, in units of the planner's cost.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.config import ConfigError
from drivesim.datatypes import Scenario, default_rig
from drivesim.logs import DriveLog
from drivesim.models import SHIPPED, WorldModel
from drivesim.models.distilled import DistilledConfig, DistilledPolicy, distilled_path
from drivesim.planning.distilled import two_phases
from drivesim.planning.latent_planner import LatentPlanner, LatentPlannerConfig
from drivesim.planning.proposals import FIRST_MPS2, HELD_MPS2, THEN_MPS2
from drivesim.planning.search import Candidates, Problem, search
from drivesim.runs import code_version
from training.clips import Clips
from training.heads import with_past
from training.latents import Latents, latents_of
from training.pretrain import cosine_schedule
from training.recording import logs_of

Rows = NDArray[np.int64]
Array = NDArray[np.float64]
CRAWL_MPS = LatentPlannerConfig().crawl_mps
NOWHERE = Scenario("distill-v1", "Drivetown", "", (), 0.0)  # a planner is reset for one, and does not look at it


@dataclass(frozen=True)
class DistillConfig:
    """How many moments are searched, and how the head learns from them."""

    states: int = 5000
    judged: int = 200
    judged_share: float = 0.1  # of the drives
    eager_crawling: float = 0.6  # of the moments at a crawl are asked with more than ordinary eagerness ...
    eager_driving: float = 0.1  # ... and of the others
    steps: int = 800
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    noise: float = 3.0  # on latents, in their standard deviations: there are few moments and many directions
    temperature: float = 0.3  # dearer by this, times the eagerness, is likelier to be left by a factor e
    seed: int = 0


@dataclass(frozen=True)
class Lessons:
    """What the search found at m moments.

    Attributes:
        context: (m, 2, n, d); kinematics (m, 16); eager (m,); prior (m, 3) the policy's mean and band, m/s2.
        costs: (m, first, then) of the standing profiles.
    """

    context: Tensor
    kinematics: Tensor
    eager: Tensor
    prior: Tensor
    costs: Tensor


class Logs:
    """A run's logs by the cache's rows."""

    def __init__(self, folder: Path, clips: Clips) -> None:
        """Raises ConfigError: not the logs that the cache was made from."""
        self.paths, self.episode = logs_of(folder), clips.episode
        self.first = np.searchsorted(clips.episode, np.arange(int(clips.episode.max()) + 1))
        self.speed = clips.table["speed"]
        if len(self.paths) != len(self.first):
            raise ConfigError(f"{folder} has {len(self.paths)} drives, the cache beside it {len(self.first)}")
        self._open: tuple[int, DriveLog] | None = None

    def observation(self, row: int) -> Any:
        """What was observed at a row of the cache, without pictures.

        Raises:
            ConfigError: the log says another speed than the cache.
        """
        number = int(self.episode[row])
        if self._open is None or self._open[0] != number:
            self._open = (number, DriveLog(self.paths[number]))
        frame = self._open[1].frame(row - int(self.first[number]))
        if abs(frame.ego.speed_mps - float(self.speed[row])) > 1e-3:
            raise ConfigError(f"{self.paths[number]} is not the drive that row {row} of the cache was made from")
        return frame.observation


def eagernesses(speeds: NDArray[np.float32], config: DistillConfig, rng: np.random.Generator) -> Array:
    """Factors on progress (m,) such as driving brings about: often above one at a crawl, seldom elsewhere."""
    share = np.where(np.abs(speeds) < CRAWL_MPS, config.eager_crawling, config.eager_driving)
    most = np.log(LatentPlannerConfig().impatience_cap)
    return np.asarray(np.where(rng.random(len(speeds)) < share, np.exp(rng.uniform(0.0, most, len(speeds))), 1.0))


@dataclass(frozen=True)
class Lesson:
    """One moment: the problem, what the search found, and the row of `found` that it chose."""

    problem: Problem
    found: Candidates
    chosen: int

    @property
    def wanted(self) -> Array:
        """The chosen profile (p,), m/s2."""
        return np.asarray(self.found.wanted[self.chosen])

    @property
    def standing(self) -> Array:
        """Costs (first, then) of the standing profiles, which the planner proposes first; (first, 1) of held ones."""
        shape = (len(HELD_MPS2), 1) if self.problem.config.knots == 1 else (len(FIRST_MPS2), len(THEN_MPS2))
        return np.asarray(self.found.costs[: shape[0] * shape[1]].reshape(shape))


def searched(
    planner: LatentPlanner, logs: Logs, source: Tensor, row: int, eager: float, rng: np.random.Generator
) -> Lesson:
    """Ask the search at one row, without a past; source (N, n, d) are the latents of one appearance."""
    context = torch.stack([source[row - 1], source[row]]).numpy()
    planner.reset(NOWHERE, default_rig(), 0)
    problem = replace(planner.problem(logs.observation(row), context), eager=eager)
    found = search(problem, planner.proposals(problem.policy), rng)
    return Lesson(problem, found, planner.choose(found, problem.policy, None)[0])


def teach(
    planner: LatentPlanner, logs: Logs, latents: Latents, rows: Rows, config: DistillConfig,
    tell: Callable[[float], None],
) -> Lessons:  # fmt: skip
    """Search at every row, in the order of the logs, in either appearance."""
    rng = np.random.default_rng([config.seed, 17])
    eager = eagernesses(logs.speed[rows], config, rng)
    columns: list[list[NDArray[Any]]] = [[], [], [], []]
    for count, (row, factor) in enumerate(zip(rows, eager, strict=True)):
        source = latents.a if rng.random() < 0.5 else latents.b
        lesson = searched(planner, logs, source, int(row), float(factor), rng)
        problem = lesson.problem
        told: tuple[NDArray[Any], ...] = (problem.context, problem.motion, problem.policy, lesson.standing)
        for column, value in zip(columns, told, strict=True):
            column.append(value)
        if count % max(1, len(rows) // 10) == 0:
            tell(count / len(rows))
    context, motion, prior, costs = (torch.from_numpy(np.array(column, np.float32)) for column in columns)
    return Lessons(context, motion, torch.from_numpy(eager).float(), prior, costs)


def learn(policy: DistilledPolicy, lessons: Lessons, config: DistillConfig) -> float:
    """Cross-entropy to exp(-cost / temperature) over the profiles; returns the mean of the last steps."""
    optimizer = torch.optim.AdamW(policy.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    target = (-lessons.costs / (config.temperature * lessons.eager[:, None, None])).flatten(1).softmax(-1)
    policy.train()
    losses: list[float] = []
    for step in range(config.steps):
        torch.manual_seed(config.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * cosine_schedule(step, config.steps, 0.05)
        rows = torch.randint(len(target), (config.batch,))
        seen = lessons.context[rows]
        noisy = seen + config.noise * torch.randn_like(seen)
        told = policy(noisy, lessons.kinematics[rows], lessons.eager[rows], lessons.prior[rows])
        loss = -(target[rows] * told.flatten(1)).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(policy.parameters(), 5.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    policy.eval()
    return float(np.mean(losses[-50:]))


def judge(
    policy: DistilledPolicy, planner: LatentPlanner, logs: Logs, latents: Latents, rows: Rows, config: DistillConfig
) -> dict[str, float]:
    """On moments of kept-out drives: how dear the head's plan is, between the policy's own answer and the search's.

    Costs are divided by the eagerness, so that the moments of a car long held up do not outweigh all others.
    """
    rng = np.random.default_rng([config.seed, 19])
    steps = planner.config.steps
    ease = np.where(np.arange(steps) < 2, 1.0, 0.5)  # `PolicyPlanner`'s
    costs, first = [], []
    for row, factor in zip(rows, eagernesses(logs.speed[rows], config, rng), strict=True):
        lesson = searched(planner, logs, latents.a, int(row), float(factor), rng)
        problem, found = lesson.problem, lesson.found
        own = two_phases(policy.phases(problem.context, problem.motion, problem.eager, problem.policy), steps)
        answers = problem.evaluate(np.stack([own, problem.policy[0] * ease])).costs
        costs.append(np.array([*answers, lesson.standing.min(), found.costs[lesson.chosen]]) / problem.eager)
        first.append([own[0], lesson.wanted[0]])
    head, unsearched, standing, best = (float(value) for value in np.array(costs).mean(0))
    own_first, searched_first = np.array(first).T
    return {
        "moments": float(len(rows)), "regret_head": head - best, "regret_policy": unsearched - best,
        "regret_best_standing": standing - best, "kept": 1.0 - (head - best) / (unsearched - best),
        "first_mae_mps2": float(np.abs(own_first - searched_first).mean()),
        "first_correlation": float(np.corrcoef(own_first, searched_first)[0, 1]),
    }  # fmt: skip


def distill(
    run: Path, checkpoint: Path, out: Path | None, config: DistillConfig, tell: Callable[[str, float], None]
) -> dict[str, Any]:
    """Search, learn, judge, save; returns the card. `tell` hears what is done and how much of it.

    Raises:
        ConfigError: the logs are not those that the cache was made from.
    """
    model = WorldModel.load(checkpoint)
    clips = Clips.load(run / "cache")
    bare = replace(clips, branch_views=clips.branch_views[:0])  # branches teach nothing here
    latents = latents_of(model, bare, run / "checkpoints" / "latents.pt", lambda share: tell("encoding", share))
    logs, planner = Logs(run / "logs", clips), LatentPlanner(model)
    rng = np.random.default_rng([config.seed, 13])
    drives = rng.permutation(len(logs.paths))
    kept_out = drives[: max(1, round(config.judged_share * len(drives)))]
    rows = with_past(clips)
    rows = rows[clips.table["kinematics"][rows, 13] > 0.0]  # some route must be left
    out_of_sight = np.isin(clips.episode[rows], kept_out)
    taught = _some(rows[~out_of_sight], config.states, rng)
    judged = _some(rows[out_of_sight], config.judged, rng)
    what = f"searching at {len(taught)} moments"
    lessons = teach(planner, logs, latents, taught, config, lambda share: tell(what, share))
    torch.manual_seed(config.seed)
    phases = (HELD_MPS2, ()) if planner.config.knots == 1 else (FIRST_MPS2, THEN_MPS2)
    policy = DistilledPolicy(DistilledConfig(model.config.heads, *phases), model.digest)
    guide = getattr(model.policy, "latent", None)
    if policy.tower.latent is not None and isinstance(guide, nn.Linear):  # where the policy looks is a good start
        policy.tower.latent.load_state_dict(guide.state_dict())
    loss = learn(policy, lessons, config)
    figures = judge(policy, planner, logs, latents, judged, config)
    card = {
        "checkpoint": checkpoint.resolve().name, "encoder": model.digest, "commit": code_version(),
        "planner": asdict(planner.config), "distill": asdict(config), "loss": loss, "judged": figures,
        "command": f"python -m training.distill {run.name} --states {config.states} --seed {config.seed}",
    }  # fmt: skip
    policy.save(out or distilled_path(checkpoint), card)
    return card


def _some(rows: Rows, count: int, rng: np.random.Generator) -> Rows:
    return np.sort(rng.choice(rows, min(count, len(rows)), replace=False))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the training run: its cache, logs and latents")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--out", type=Path, default=None, help="beside the checkpoint by default")
    parser.add_argument("--states", type=int, default=DistillConfig.states)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = DistillConfig(states=options.states, seed=options.seed)
    began = time.monotonic()
    card = distill(
        options.run,
        options.checkpoint,
        options.out,
        config,
        lambda what, share: print(f"{what} {share:.0%}", flush=True),
    )
    for name, value in card["judged"].items():
        print(f"{name:<24} {value:8.3f}")
    print(f"written to {options.out or distilled_path(options.checkpoint)} in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
