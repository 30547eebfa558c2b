"""Study: what does searching longer buy? Driving score against compute for every search of the latent planner.

    python -m eval.planners --suite dev --seeds 3 --out runs/planners

Drives the suite closed loop (interrupted, the same command goes on), times every planner alone and interleaved on
the same pictures, and writes planners.json and planners.svg. Compare milliseconds of one run only, never of two.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from drivesim.build import NEEDS_CHECKPOINT, NEEDS_TOWN, make_planner, require_planner
from drivesim.datatypes import EgoState, Estimate, Observation, RouteAhead, Scorecard, default_rig
from drivesim.episodes import load_episode
from drivesim.interfaces import Planner
from drivesim.runs import code_version, write_json
from drivesim.scoring.statistics import bootstrap_mean, paired_difference
from drivesim.suite import Progress, episodes_of, load_suite, run_suite
from eval.frontier import frontier
from eval.speed import busy_scenario, street

PLANNERS = (
    "latent-policy", "latent-distilled", "latent-proposals", "latent", "latent-icem", "latent-cem", "latent-mppi",
    "latent-gradient", "constant-velocity", "expert",
)  # fmt: skip
BASE = "latent"  # every other planner's score is compared with this one's, scenario by scenario
MEASURES = ("driving_score", "success_rate", "route_completion", "collisions_per_km", "red_lights", "mean_speed")
PERIOD_US = 250_000


def timed(names: list[str], checkpoint: Path | None, plans: int, seed: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a whole plan, one thread, all planners in turn on the same pictures.

    Both the clock's and the processor's time: on a shared machine only the latter is the planner's own.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rig = default_rig()
    planners: dict[str, Planner] = {name: make_planner(name, checkpoint) for name in names}
    for planner in planners.values():
        planner.reset(busy_scenario(), rig, seed)
    route = RouteAhead(np.column_stack([np.arange(-2.0, 62.0), np.zeros(64)]), np.full(64, 8.3), 60.0)
    wall, cpu = defaultdict(list), defaultdict(list)
    for tick in range(plans + 3):
        ego = EgoState(tick * PERIOD_US, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 6.0, 0.0, 0.0)
        seen = Observation(tick * PERIOD_US, street(rig, seed + tick), ego, route)
        for name, planner in planners.items():
            began, spent = time.perf_counter(), time.process_time()
            planner.plan(seen, None, np.random.default_rng([seed, tick]))
            if tick >= 3:  # the first ones load and compile
                wall[name].append((time.perf_counter() - began) * 1e3)
                cpu[name].append((time.process_time() - spent) * 1e3)
    torch.set_num_threads(threads)
    return {
        name: {f"{what}_p{q}": float(np.percentile(values[name], q)) for what, values in (("wall_ms", wall),
               ("cpu_ms", cpu)) for q in (50, 95)} | {"plans": float(plans)} for name in names
    }  # fmt: skip


def closed_loop(out: Path, seed: int) -> dict[str, dict[str, Any]]:
    """What the driven episodes say of compute: planner -> latency, imagined futures, fallbacks."""
    latency: dict[str, list[float]] = defaultdict(list)
    imagined: dict[str, list[tuple[str, float]]] = defaultdict(list)
    surprise: dict[str, list[float]] = defaultdict(list)
    fallbacks: dict[str, list[bool]] = defaultdict(list)
    for path in episodes_of(out):
        episode = load_episode(path)
        name = episode.planner
        latency[name] += episode.latencies_ms.get("plan_ms", np.zeros(0)).tolist()
        plans = [snapshot.plan for snapshot in episode.snapshots if snapshot.plan is not None]
        fallbacks[name] += [bool(plan.fallback) for plan in plans]
        surprise[name] += [plan.diagnostics["surprise"] for plan in plans if "surprise" in plan.diagnostics]
        imagined[name] += [
            (episode.scenario.id, p.diagnostics["imagined"]) for p in plans if "imagined" in p.diagnostics
        ]
    told: dict[str, dict[str, Any]] = {}
    for name, values in latency.items():
        futures = imagined[name]
        told[name] = {
            "plan_ms_p50": float(np.percentile(values, 50)) if values else None,
            "plan_ms_p95": float(np.percentile(values, 95)) if values else None,
            "plans": len(values),
            "imagined_per_plan": None if not futures else _json(
                bootstrap_mean([k for _, k in futures], [s for s, _ in futures], np.random.default_rng(seed))
            ),
            "fallback_share": float(np.mean(fallbacks[name])) if fallbacks[name] else None,
            "surprise_p50": float(np.median(surprise[name])) if surprise[name] else None,
            "surprise_p95": float(np.percentile(surprise[name], 95)) if surprise[name] else None,
        }  # fmt: skip
    return told


def _json(estimate: Estimate) -> dict[str, Any]:
    return {"mean": estimate.mean, "ci95": list(estimate.ci95), "n": estimate.n}


def table(card: Scorecard, seed: int) -> dict[str, dict[str, Any]]:
    """Planner -> its scores with intervals, and its paired difference to BASE."""
    rows: dict[str, dict[str, Any]] = {}
    for name, estimates in card.planners.items():
        rows[name] = {measure: _json(estimates[measure]) for measure in MEASURES if measure in estimates}
        gain = paired_difference(card.outcomes, name, BASE, "driving_score", np.random.default_rng(seed))
        if gain is not None and name != BASE:
            rows[name][f"minus_{BASE}"] = _json(gain)
    return rows


def study(options: argparse.Namespace) -> dict[str, Any]:
    """Drive, time and gather everything."""
    names = list(dict.fromkeys(options.planner or PLANNERS))
    suite = load_suite(options.suite)
    if options.scenario:
        kept = tuple(s for s in suite.scenarios if any(part in s for part in options.scenario))
        suite = type(suite)(suite.id, kept, suite.description)
    for name in names:
        require_planner(name)
    for name in NEEDS_CHECKPOINT & set(names):
        make_planner(name, options.checkpoint)  # what cannot be loaded is known before hours of driving
    weights = {} if options.checkpoint is None else {n: options.checkpoint for n in names if n in NEEDS_CHECKPOINT}

    def tell(done: Progress) -> None:
        value = "-" if done.driving_score is None else f"{done.driving_score:5.1f}"
        line = (
            f"{done.done}/{done.total} {done.scenario_id} {done.planner} {done.seed}: {value} {done.end} {done.error}"
        )
        print(line, flush=True)

    card = run_suite(
        suite, names, range(options.seeds), out=options.out, workers=options.workers, checkpoints=weights,
        on_progress=tell,
    )  # fmt: skip
    alone = timed([n for n in names if n in NEEDS_CHECKPOINT], options.checkpoint, options.plans, 0)
    rows, driven = table(card, 0), closed_loop(options.out, 0)
    planners = {name: {**rows[name], "closed_loop": driven.get(name), "alone": alone.get(name)} for name in names}
    return {
        "suite": suite.id, "scenarios": list(suite.scenarios), "seeds": options.seeds, "commit": code_version(),
        "checkpoint": str(options.checkpoint or "shipped"), "missing": len(card.missing),
        "privileged": [name for name in names if name in NEEDS_TOWN or name == "expert"], "planners": planners,
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder; an unfinished study in it goes on")
    parser.add_argument("--suite", default="dev")
    parser.add_argument("--scenario", action="append", help="only scenarios whose id holds this; repeat for more")
    parser.add_argument("--planner", action="append", help=f"repeat for more; all of {', '.join(PLANNERS)} by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--plans", type=int, default=40, help="plans that are timed alone")
    parser.add_argument("--checkpoint", type=Path, default=None)
    options = parser.parse_args()
    result = study(options)
    write_json(options.out / "planners.json", result)
    (options.out / "planners.svg").write_text(frontier(result))
    for name, row in result["planners"].items():
        score, alone = row["driving_score"], row["alone"] or {}
        spent = f"{alone['cpu_ms_p50']:6.1f} / {alone['cpu_ms_p95']:6.1f} ms" if alone else " " * 18
        print(f"{name:<20} {score['mean']:5.1f} [{score['ci95'][0]:5.1f}, {score['ci95'][1]:5.1f}]  {spent}")
    print(f"written to {options.out / 'planners.json'} and {options.out / 'planners.svg'}")


if __name__ == "__main__":
    main()
