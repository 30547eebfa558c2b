"""Study: what one plan costs, against LeWM's planner as stable-worldmodel implements it; same processor, one run.

    python -m eval.cost --out runs/cost
    python -m eval.cost --rounds 5 --threads 1 --out runs/cost

Ours plans from six cameras rendered along one drive through a town, in the order of the drive, so that histories and
warm starts are the ordinary ones. Theirs (see `eval/lewm.py`: their model, their solver, sizes of their
configurations, untrained weights) plans from one 224x224 picture of the same moments to the picture of a later one.
All planners take turns on the same threads, so that whatever else the machine does hits them alike: both the clock's
and the processor's time are told, and on a busy machine the processor's and the ratios are what to read.

What they pay is not what they get: theirs chooses 25 actions and carries all of them out, ours plans anew every
quarter of a second. Milliseconds per second of driving and per imagined step of a candidate stand beside.

Writes cost.json and cost.svg. Exit code 0; 3 where LeWM's packages are missing, and then ours is measured alone.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drivesim.build import make_controller, make_planner, require_planner
from drivesim.datatypes import CameraRig, Observation, Scenario, default_rig
from drivesim.drive import PLAN_PERIOD_S, Driver
from drivesim.interfaces import Planner
from drivesim.models import SHIPPED
from drivesim.planning.latent_planner import LatentPlannerConfig
from drivesim.runs import write_json
from drivesim.worlds.town_world import TownWorld
from eval import lewm
from eval.cost_figure import figure
from eval.frozen import provenance
from eval.speed import busy_scenario

OURS = (
    "latent", "latent-proposals", "latent-icem", "latent-cem", "latent-mppi", "latent-gradient", "latent-policy",
    "latent-distilled",
)  # fmt: skip
SHIPPED_PLANNER = "latent"  # the one whose cost has a goal
WARM_UP = 3  # plans that load and compile
GOAL_MS, GOAL_TIMES = 100.0, 10.0
MISSING = 3
PER = {"per_plan": "p50", "per_second_driven": "per_second_driven", "per_candidate_step": "per_candidate_step"}


@dataclass
class Spent:
    """What the plans of one planner took.

    Attributes:
        steps: latent steps in one candidate.
        drives_s: seconds driven before the next plan.
    """

    steps: int
    drives_s: float
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    candidates: list[float] = field(default_factory=list)

    def time(self, plan: Callable[[], float]) -> None:
        """Time one plan, which returns how many candidates it imagined."""
        began, spent = time.perf_counter(), time.process_time()
        candidates = plan()
        self.wall_ms.append((time.perf_counter() - began) * 1e3)
        self.cpu_ms.append((time.process_time() - spent) * 1e3)
        self.candidates.append(candidates)

    def told(self) -> dict[str, Any]:
        """For the JSON; medians over plans."""
        row: dict[str, Any] = {"plans": len(self.wall_ms), "candidates": float(np.median(self.candidates))}
        row |= {"steps": self.steps, "drives_s": self.drives_s}
        for name, values in (("wall_ms", self.wall_ms), ("cpu_ms", self.cpu_ms)):
            middle, steps = float(np.median(values)), row["candidates"] * self.steps
            row[name] = {"p50": middle, "p95": float(np.percentile(values, 95)), "min": min(values)}
            row[name]["per_candidate_step"] = middle / steps if steps else None
            row[name]["per_second_driven"] = middle / self.drives_s
        return row


def drive(scenario: Scenario, rig: CameraRig, count: int, seed: int) -> list[Observation]:
    """What the expert sees at `count` moments of a drive, a plan's period apart."""
    world = TownWorld(rig, camera_period_s=PLAN_PERIOD_S)
    driver = Driver(make_planner("expert"), make_controller(), rig)
    frame = world.reset(scenario, seed)
    seen: list[Observation] = []
    driver.reset(scenario, seed)
    while len(seen) < count:
        if frame.images is not None:
            seen.append(frame.observation)
        frame = world.step(driver.act(frame))
    world.close()
    return seen


def taking_turns(
    planners: dict[str, Planner], seen: list[Observation], spent: dict[str, Spent], seed: int
) -> dict[str, Spent]:
    """Every planner plans at every moment, one after the other; returns `spent`, longer by their plans."""
    for observation in seen:
        for name, planner in planners.items():
            spent[name].time(
                partial(imagined, planner, observation, np.random.default_rng([seed, observation.time_us]))
            )
    return spent


def imagined(planner: Planner, observation: Observation, rng: np.random.Generator) -> float:
    """Plan, and say how many futures were weighed; none by a policy that answers at once."""
    return planner.plan(observation, None, rng).diagnostics.get("imagined", 0.0)


def rival_sizes(ours: float) -> dict[str, lewm.Sizes]:
    """Their two settings, and one iteration over as many candidates as ours imagines."""
    count = max(round(ours), 1)
    return {
        "lewm-cem-30": lewm.Sizes(300, 30), "lewm-cem-10": lewm.Sizes(300, 10),
        "lewm-cem-as-few-as-ours": lewm.Sizes(count, 1),
    }  # fmt: skip


def ahead(observation: Observation) -> NDArray[np.uint8]:
    """The picture (h, w, 3) of the default rig's camera that looks ahead.

    Raises:
        ValueError: the observation has no pictures.
    """
    if observation.images is None:
        raise ValueError("no pictures at this moment")
    return np.asarray(observation.images[[camera.name for camera in default_rig().cameras].index("CAM_FRONT")])


def measure(
    planners: dict[str, Planner], theirs: Callable[[float], dict[str, lewm.LeWMPlanner]], seen: list[Observation],
    rounds: int, seed: int, tell: Callable[[str], None],
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Planner -> what its plans took, round by round: each round is a stretch of the drive, then a plan of each rival.

    Args:
        planners: ours, reset for the rig of `seen`.
        theirs: makes the rivals, given how many candidates ours imagines.
        seen: WARM_UP moments that are not counted, then those that are.
    """
    steps = LatentPlannerConfig().steps
    warm = taking_turns(planners, seen[:WARM_UP], {name: Spent(steps, PLAN_PERIOD_S) for name in planners}, seed)
    spent = {name: Spent(steps, PLAN_PERIOD_S) for name in planners}
    rivals = theirs(float(np.median(warm[SHIPPED_PLANNER].candidates)) if SHIPPED_PLANNER in warm else 50.0)
    spent |= {name: Spent(lewm.HORIZON, lewm.HORIZON * lewm.BLOCK * lewm.CONTROL_S) for name in rivals}
    for rival in rivals.values():
        if rival.sizes.iterations == 1:  # warm: they share one model
            rival.plan(ahead(seen[0]), ahead(seen[-1]))
    for part, chunk in enumerate(np.array_split(np.arange(WARM_UP, len(seen)), rounds)):
        taking_turns(planners, [seen[int(i)] for i in chunk], spent, seed)
        here, goal = ahead(seen[int(chunk[0])]), ahead(seen[int(chunk[-1])])
        for name, rival in rivals.items():
            spent[name].time(partial(rival.futures, here, goal))
            tell(f"round {part + 1} of {rounds}: {name} {spent[name].cpu_ms[-1]:.0f} ms of processor time")
    return {name: values.told() for name, values in spent.items()}


def verdict(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The goals: milliseconds of the shipped planner, and how many times more LeWM's takes, at each of its settings."""
    own = rows[SHIPPED_PLANNER]
    told: dict[str, Any] = {
        "plan_ms_p95": {"value": own["wall_ms"]["p95"], "goal": GOAL_MS, "met": own["wall_ms"]["p95"] <= GOAL_MS},
        "plan_cpu_ms_p95": own["cpu_ms"]["p95"], "times_fewer_seconds": {},
    }  # fmt: skip
    for name, row in rows.items():
        if not name.startswith("lewm"):
            continue
        times = {
            f"{clock}_{what}": row[f"{clock}_ms"][key] / own[f"{clock}_ms"][key]
            for clock in ("wall", "cpu")
            for what, key in PER.items()
        }
        times["wall_least"] = row["wall_ms"]["min"] / own["wall_ms"]["p95"]
        told["times_fewer_seconds"][name] = times | {"goal": GOAL_TIMES, "met": times["wall_per_plan"] >= GOAL_TIMES}
    return told


def processor() -> str:
    """The name of the processor, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def study(options: argparse.Namespace) -> dict[str, Any]:
    """Drive, plan in turns, and gather."""
    torch.set_num_threads(options.threads)
    names = list(dict.fromkeys(options.planner or OURS))
    for name in names:
        require_planner(name)
    lacking = lewm.missing()
    if lacking:
        print(f"LeWM's planner is left out, for want of {', '.join(lacking)}: {lewm.INSTALL}", flush=True)
    scenario, rig = busy_scenario(), default_rig()
    planners = {name: make_planner(name, options.checkpoint) for name in names}
    for planner in planners.values():
        planner.reset(scenario, rig, options.seed)

    def theirs(candidates: float) -> dict[str, lewm.LeWMPlanner]:
        if lacking:
            return {}
        model = lewm.build_model(seed=options.seed)
        return {name: lewm.LeWMPlanner(model, sizes) for name, sizes in rival_sizes(candidates).items()}

    seen = drive(scenario, rig, WARM_UP + options.plans, options.seed)
    rows = measure(planners, theirs, seen, options.rounds, options.seed, lambda line: print(line, flush=True))
    return provenance("cost", options) | {
        "machine": {"processor": processor(), "threads": options.threads, "torch": torch.__version__},
        "lewm": None if lacking else lewm.versions() | {"weights": "untrained"},
        "cameras": len(rig.cameras), "planners": rows, "goals": verdict(rows) if SHIPPED_PLANNER in rows else None,
    }  # fmt: skip


def tell(result: dict[str, Any]) -> None:
    """The table, in words."""
    print(f"{'planner':<26}{'wall ms p50 / p95':>24}{'cpu ms p50 / p95':>24}{'candidates':>12}{'cpu ms a step':>15}")
    for name, row in result["planners"].items():
        spans = "".join(f"{row[clock]['p50']:13.1f} /{row[clock]['p95']:9.1f}" for clock in ("wall_ms", "cpu_ms"))
        step = row["cpu_ms"]["per_candidate_step"]
        told = "" if step is None else f"{step:.3f}"
        print(f"{name:<26}{spans}{row['candidates']:12.0f}{told:>15}  n {row['plans']}")
    for name, times in ((result["goals"] or {}).get("times_fewer_seconds", {})).items():
        told = ", ".join(f"{times[f'cpu_{what}']:.1f} {what.replace('_', ' ')}" for what in PER)
        print(f"{name}: {times['wall_per_plan']:.1f} times the seconds of {SHIPPED_PLANNER}; processor: {told}")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--planner", action="append", help=f"repeat for more; all of {', '.join(OURS)} by default")
    parser.add_argument("--plans", type=int, default=60, help="plans of each of ours")
    parser.add_argument("--rounds", type=int, default=3, help="plans of each of theirs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not 1 <= options.rounds <= options.plans:
        parser.error(f"--rounds {options.rounds}: between 1 and --plans {options.plans}")
    result = study(options)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "cost.json", result)
    (options.out / "cost.svg").write_text(figure(result))
    tell(result)
    print(f"written to {options.out / 'cost.json'} and {options.out / 'cost.svg'}")
    return 0 if result["lewm"] else MISSING


if __name__ == "__main__":
    sys.exit(main())
