"""Study: does the latent world rank planners as the embedded world does, and how much faster is it?

    drivesim record --config eval/recordings/fidelity-tune.toml --out logs/tune
    drivesim record --config eval/recordings/fidelity-judge.toml --out logs/judge
    python -m eval.fidelity logs/judge --tune logs/tune --out runs/fidelity

Every planner (ours, rivals on our latent, and versions made worse on purpose) drives from the same logged moments
twice: in the embedded town, whose exact state goes on (`ResumedTown`), and in imagination. The true drive has
CARLA's driving score; the imagined one the same score in expectation over what the heads say might have happened
(`drivesim.suite.expectation`). Compared are the planners' means over starts. How risks become events is fitted on
other logs, of training towns (`--tune`, `eval.hazards`); the judging logs are not looked at.

    imagined   with the log's news: what nobody could foresee at the start comes as it came (`ImaginationConfig.news`)
    alone      from the start's two latents and nothing else
    control    nothing is imagined: analytic ego motion along the route

Planners that are told the truth stand apart: they know more than the latent holds, so what they do betrays what
imagination cannot know (they brake because somebody is there), and their collisions are over-estimated by
construction. They are in the figure, hollow, and not in the headline; "with_told" has the figures with them.

Interrupted, the same command goes on. fidelity.json and fidelity.svg are written at the end.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drivesim.build import load_world_model
from drivesim.config import ConfigError, from_dict, nearest, to_dict
from drivesim.datatypes import Episode
from drivesim.interfaces import Planner
from drivesim.models.imagination import Imagination
from drivesim.runs import code_version, write_json
from drivesim.scoring.infractions import judge
from drivesim.scoring.leaderboard import driving_score
from drivesim.suite.expectation import Expectation, expected_events, expected_score
from drivesim.suite.imagined import ImaginedConfig, LoggedWorld, open_drives
from drivesim.worlds.hazards import Hazards
from drivesim.worlds.imagined_batch import ImaginationConfig
from eval.agreement import ceiling, mean_interval, with_intervals
from eval.fidelity_drives import choose_starts, drive_truly, eventful, seconds_of, town_starts, wall_of, weights_of
from eval.fidelity_imagined import FROM_THE_START_ALONE, ON_AND_ON, Drives, Standstill, imagine
from eval.fidelity_speed import SpeedTest
from eval.hazards import Tuned, tune
from eval.scatter import scatter
from eval.worsened import TOLD, contestants

Array = NDArray[np.float64]
Tell = Callable[[str], None]
Makers = dict[str, Callable[[], Planner]]
TUNING_S = 2.0  # between the moments of a log that hazards are fitted on


@dataclass(frozen=True)
class Sizes:
    """How much is driven.

    Attributes:
        starts, eventful: number of starts and the share of them that shall be eventful.
    """

    starts: int = 40
    eventful: float = 0.7


@dataclass(frozen=True)
class Way:
    """One of the worlds without a town.

    Attributes:
        expectation: how its risks become a score.
        control: what answers instead of the model.
    """

    name: str
    how: ImaginationConfig
    expectation: Expectation
    control: Standstill | None = None


class Study:
    """One folder of logs, driven in both worlds."""

    def __init__(self, logs: Path, out: Path, config: ImaginedConfig, checkpoint: Path | None, sizes: Sizes) -> None:
        self.out, self.config = out, config
        self.weights, self.sight = weights_of(checkpoint), load_world_model(checkpoint)
        found = [log for log in open_drives(logs) if log.has_state]
        self.world = LoggedWorld(found, checkpoint, config, out / "latents" / self.weights)
        choose_starts(self.world, sizes.starts, sizes.eventful)
        self.starts = town_starts(self.world)

    def imagined(self, way: Way, name: str, make: Callable[[], Planner]) -> Drives:
        """One planner in imagination."""
        return imagine(self.world, name, make, self.out / way.name, self.weights, self.sight, way.how, way.control)

    def true(self, name: str, make: Callable[[], Planner]) -> list[Episode]:
        """One planner in the embedded town."""
        return drive_truly(self.starts, name, make, self.out / "true", self.weights, self.config.goal_m)


def tuned(logs: Path, out: Path, config: ImaginedConfig, checkpoint: Path | None) -> dict[str, Tuned]:
    """Hazards with and without the logs' news; read where they were fitted before with the same weights."""
    config, kept = replace(config, every_s=TUNING_S, max_starts=0), out / "hazards.json"
    stamp = {"weights": weights_of(checkpoint), "logs": str(logs), "imagination": to_dict(config)}
    if kept.is_file() and (found := json.loads(kept.read_text()))["stamp"] == stamp:
        return {label: from_dict(Tuned, told) for label, told in found["tuned"].items()}
    drives = [log for log in open_drives(logs) if log.has_state]
    world = LoggedWorld(drives, checkpoint, config, out / "latents" / stamp["weights"])
    fitted = {"imagined": tune(world, ON_AND_ON), "alone": tune(world, FROM_THE_START_ALONE)}
    write_json(kept, {"stamp": stamp, "tuned": {label: one.told() for label, one in fitted.items()}})
    return fitted


def compare(study: Study, makers: Makers, names: Sequence[str], ways: Sequence[Way], tell: Tell) -> dict[str, Any]:
    """All planners in all worlds."""
    readouts = study.world.model.readouts
    tables = {
        label: np.zeros((len(names), len(study.starts))) for label in ("true", "trusted", *(w.name for w in ways))
    }
    planners: dict[str, dict[str, Any]] = {}
    for row, name in enumerate(names):
        drives = {way.name: study.imagined(way, name, makers[name]) for way in ways}
        true, first = study.true(name, makers[name]), drives[ways[0].name]
        tables["true"][row] = [true_score(episode) for episode in true]
        tables["trusted"][row] = [trust.valid for trust in first.trusts]
        for way in ways:
            traces = drives[way.name].traces
            tables[way.name][row] = [expected_score(trace, readouts, way.expectation) for trace in traces]
        planners[name] = {
            "told": name in TOLD, **{label: float(table[row].mean()) for label, table in tables.items()},
            "true_ci95": mean_interval(tables["true"][row]),
            "imagined_ci95": mean_interval(tables[ways[0].name][row]),
            **_events(true, first, ways[0].expectation, readouts),
            "true_s_per_s": seconds_of(true) / wall_of(true),
            "imagined_s_per_s": first.simulated_s / max(first.wall_s, 1e-6),
        }  # fmt: skip
        told = planners[name]
        scores = "  ".join(f"{label} {told[label]:5.1f}" for label in ("true", *(way.name for way in ways)))
        crashes = f"collisions {told['true_collisions']:.2f} / {told['imagined_collisions']:.2f}"
        tell(f"{name:<26} {scores}  trusted {told['trusted']:.2f}  {crashes}")
    return {"planners": planners, **_figures(names, tables, [way.name for way in ways])}


def _figures(names: Sequence[str], tables: dict[str, Array], ways: Sequence[str]) -> dict[str, Any]:
    """Agreement of those that are not told the truth, of those of them that drive at all, and of everybody."""
    sensing = np.array([name not in TOLD for name in names])
    moving = sensing & np.array([name != "standing" for name in names])
    groups = {"headline": sensing, "headline_moving": moving, "with_told": np.ones(len(names), dtype=bool)}
    found: dict[str, Any] = {}
    for label, rows in groups.items():
        truth, sure = tables["true"][rows], tables["trusted"][rows]
        found[label] = {"ceiling": ceiling(truth)}
        for way in ways:
            guess = tables[way][rows]
            found[label][way] = with_intervals(truth, guess, np.ones_like(truth)) | {
                "by_start": _by_start(truth, guess)
            }
        found[label]["trusted"] = with_intervals(truth, tables[ways[0]][rows], sure)
    return found


def _by_start(truth: Array, guess: Array) -> float | None:
    """Correlation of single drives' scores."""
    x, y = truth.ravel(), guess.ravel()
    return float(np.corrcoef(x, y)[0, 1]) if min(np.ptp(x), np.ptp(y)) > 1e-9 else None


def _events(
    true: Sequence[Episode], imagined: Drives, expectation: Expectation, readouts: Sequence[str]
) -> dict[str, float]:
    """Where scores come from: way driven, share of drives with a collision, red lights run, in both worlds."""
    verdicts = [judge(episode) for episode in true]
    crashed = [any(v.counts.counts[kind] for kind in v.counts.counts if kind.startswith("collision")) for v in verdicts]
    likely = np.array([expected_events(trace, readouts, expectation) for trace in imagined.traces])
    return {
        "true_completion": float(np.mean([v.route_completion_percent for v in verdicts])),
        "imagined_completion": float(np.mean([trace.completion[-1] for trace in imagined.traces])),
        "true_collisions": float(np.mean(crashed)), "imagined_collisions": float(likely[:, 0].mean()),
        "true_red_lights": float(np.mean([v.counts.counts["red_light"] for v in verdicts])),
        "imagined_red_lights": float(likely[:, 1].mean()),
    }  # fmt: skip


def true_score(episode: Episode) -> float:
    """CARLA Leaderboard 2.1."""
    verdict = judge(episode)
    return driving_score(verdict.route_completion_percent, verdict.counts)


def run(
    logs: Path, tuning_logs: Path | None, out: Path, config: ImaginedConfig, checkpoint: Path | None,
    names: Sequence[str], sizes: Sizes, tell: Tell,
) -> dict[str, Any]:  # fmt: skip
    """Drive what is not there yet, compare, write fidelity.json and fidelity.svg.

    Args:
        tuning_logs: fresh drives of training towns; without, the hazards of `drivesim.worlds.imagined_batch`.

    Raises:
        ConfigError: an unknown planner.
        drivesim.logs.LogError: no logs with the embedded world's state.
    """
    makers = contestants(checkpoint)
    for name in names:
        if name not in makers:
            raise ConfigError(f"unknown planner {name!r}: {nearest(name, makers)}")
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    fitted = tuned(tuning_logs, out / "tuning", config, checkpoint) if tuning_logs is not None else {}
    for label, found in fitted.items():
        tell(f"{label}: {found}")
    study = Study(logs, out, config, checkpoint, sizes)
    world = study.world
    tell(f"{len(world.drives)} logs, {len(study.starts)} starts, drift {world.gauge.table.drift(config.steps):.2f}")
    hazards = {label: found.hazards for label, found in fitted.items()}
    ways = [
        Way("imagined", ON_AND_ON, Expectation(hazards.get("imagined", Hazards()))),
        Way("alone", FROM_THE_START_ALONE, Expectation(hazards.get("alone", Hazards()))),
        Way("control", FROM_THE_START_ALONE, Expectation(luck=False), Standstill(Imagination(study.sight))),
    ]
    result: dict[str, Any] = {
        "study": "fidelity", "command": "python -m eval.fidelity", "commit": code_version(), "started": started,
        "encoder": world.model.digest, "weights": study.weights, "logs": sorted(world.drives),
        "towns": sorted({start.scenario.town for start in world.starts.values()}), "starts": len(world.starts),
        "eventful_starts": sum(eventful(world, i) for i in world.starts),
        "seconds": config.seconds, "goal_m": config.goal_m, "expectation": asdict(ways[0].expectation),
        "tuned": {label: found.told() for label, found in fitted.items()},
        "drift_by_step": world.gauge.table.curve().tolist(),
        **compare(study, makers, names, ways, tell),
        "speed": SpeedTest(world, study.sight, makers).run(tell),
    }  # fmt: skip
    write_json(out / "fidelity.json", result)
    (out / "fidelity.svg").write_text(scatter(result), encoding="utf-8")
    return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, help="folder of logs of the embedded world (`drivesim record`)")
    parser.add_argument("--tune", type=Path, default=None, help="other logs, of training towns, to fit hazards on")
    parser.add_argument("--out", type=Path, default=Path("runs/fidelity"))
    parser.add_argument("--checkpoint", type=Path, default=None, help="world model; the shipped one by default")
    parser.add_argument("--starts", type=int, default=40, help="logged moments, spread over all logs")
    parser.add_argument("--eventful", type=float, default=0.7, help="share of them with a lead, red light or walker")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--goal", type=float, default=40.0, help="metres along the route that count as all of it")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1, help="of torch; more pay only where cores are idle")
    parser.add_argument("--planner", action="append", help="only this one; repeat for more (all by default)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = ImaginedConfig(options.seconds, options.goal, 1.0, 0, options.batch)
    names = options.planner or list(contestants(options.checkpoint))
    sizes = Sizes(options.starts, options.eventful)
    result = run(
        options.logs, options.tune, options.out, config, options.checkpoint, names, sizes,
        lambda line: print(time.strftime("%H:%M:%S"), line, flush=True),
    )  # fmt: skip
    for label in ("headline", "headline_moving", "with_told"):
        for way in ("imagined", "alone", "control", "trusted"):
            print(f"{label:<16} {way:<9}", result[label][way])
    print(f"written to {options.out / 'fidelity.json'} and fidelity.svg")


if __name__ == "__main__":
    main()
