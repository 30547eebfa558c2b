"""Study: does the abstract latent earn its keep? Every rival on the same drives, steps, heads and planner.

    python -m eval.rivals --drives 110 --suite demo --seeds 3 --out runs/rivals
    python -m eval.rivals --cache runs/nano/cache --steps 120 --seeds 1 --rivals contrastive,vicreg --no-drive

Records and renders the recipe's drives (or takes a cache that is there), trains what is not trained yet (a killed
call goes on to the step), reads held-out drives with the same probes, drives a suite closed loop, and writes
rivals.json, rivals.md and rivals.svg. Differences are paired by
scenario, training seed and drive; intervals are over scenarios.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from drivesim.build import require_planner
from drivesim.config import ConfigError, nearest
from drivesim.datatypes import Estimate, Outcome, default_rig
from drivesim.runs import code_version, write_json
from drivesim.scoring.statistics import bootstrap_mean
from drivesim.suite import Progress as Driven
from drivesim.suite import load_suite, run_suite
from eval.representation import judge
from eval.rival_figure import figure, markdown
from eval.rival_planners import DERIVED, FOLDER, planner_name, run_of, source_of
from training.clips import Clips
from training.rivals.model import load_rival
from training.rivals.pictures import part_of
from training.rivals.shaping import RivalUnavailableError
from training.rivals.table import RIVALS
from training.rivals.training import require_rival, train_rival
from training.train import Progress, Recipe, load_recipe, record_and_render

BASE = "contrastive"
PROBE_TICKS, PROBE_BRANCHES = 1500, 200  # what probes are fitted on: as many for every rival, encoded anew for each
BESIDE = ("constant-velocity", "expert", "latent-oracle")  # not trained here: floor, rule on truth, planner's ceiling
MEASURES = ("driving_score", "success", "route_completion", "collisions_per_km", "red_lights", "mean_speed")
RECIPE = Path(__file__).parent.parent / "training" / "recipes" / "rivals.toml"


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe with the sizes that were asked for."""
    recipe = load_recipe(options.recipe)
    steps = options.steps or recipe.pretrain.steps
    return replace(
        recipe, threads=options.threads, pretrain=replace(recipe.pretrain, steps=steps),
        dynamics=replace(recipe.dynamics, steps=options.dynamics_steps or recipe.dynamics.steps),
        heads=replace(recipe.heads, steps=options.heads_steps or recipe.heads.steps),
    )  # fmt: skip


def divided(cache: Path, drives: int, held_out: int) -> tuple[Clips, Clips]:
    """The drives that teach (all, or the first so many), and the last ones, which only probe."""
    clips = Clips.load(cache)
    count = int(clips.episode[-1]) + 1
    if count < 2:
        raise ConfigError(f"{cache} holds {count} drive: one to train on and one to probe on are the least")
    held = min(held_out, count // 2)
    return part_of(clips, 0, min(drives or count, count - held)), part_of(clips, count - held, count)


def data_of(options: argparse.Namespace, recipe: Recipe) -> tuple[Path, Path]:
    """The cache and its logs: those that were named, or the recipe's, recorded and rendered as far as they are missing.

    Raises:
        ConfigError: no cache lies where one was named.
    """
    if options.cache is not None:
        if not (options.cache / "complete").exists():
            raise ConfigError(f"no finished cache in {options.cache}: leave --cache out to record and render one")
        return options.cache, options.logs or options.cache.parent / "logs"
    folder, drives = options.out / "data", options.drives + options.held_out if options.drives else 0
    recording = replace(recipe.recording, drives=drives or recipe.recording.drives, workers=options.workers)
    recipe = replace(recipe, recording=recording, cache=replace(recipe.cache, workers=options.workers))
    record_and_render(recipe, folder, default_rig(), tell("data"))
    return folder / "cache", folder / "logs"


def tell(what: str) -> Progress:
    """Progress lines, one in twenty seconds."""
    last = [0.0]

    def on_progress(stage: str, share: float, metrics: dict[str, float]) -> None:
        if time.monotonic() - last[0] > 20.0:
            last[0] = time.monotonic()
            loss = f" loss {metrics['loss']:.3f}" if "loss" in metrics else ""
            print(f"{what}: {stage} {100 * share:.0f} %{loss}", flush=True)

    return on_progress


def trained(
    rival: str, seed: int, recipe: Recipe, parts: tuple[Clips, Clips], logs: Path | None, out: Path
) -> dict[str, Any]:
    """Train (or find) one rival and read it on the held-out drives; kept in its run as probes.json."""
    run = run_of(out, rival, seed)
    sizes, kept = sizes_of(recipe, parts), run / "sizes.json"
    begun = kept.exists() or (run / "config.toml").exists()
    if begun and (not kept.exists() or json.loads(kept.read_text()) != sizes):
        raise ConfigError(f"{run} was trained with other sizes than are asked for now: choose another --out")
    write_json(kept, sizes)
    path = train_rival(rival, replace(recipe, seed=seed), parts[0], run, logs, tell(f"{rival} seed {seed}"))
    done = run / "probes.json"
    if not done.exists():
        encoder = load_rival(path).encoder
        scores, _, _ = judge(encoder, parts[0], {"held_out": parts[1]}, seed, PROBE_TICKS, PROBE_BRANCHES)
        write_json(done, finite(scores))
    card = json.loads((run / "card.json").read_text())
    kept_parts = ("collapse", "encoder", "calibration", "targets", "idea")
    return {part: card[part] for part in kept_parts} | {"probes": json.loads(done.read_text())}


def sizes_of(recipe: Recipe, parts: tuple[Clips, Clips]) -> dict[str, Any]:
    """What makes two trainings comparable."""
    return {
        "steps": [recipe.pretrain.steps, recipe.dynamics.steps, recipe.heads.steps],
        "batch": [recipe.pretrain.episodes, recipe.pretrain.clips, recipe.pretrain.pairs],
        "ticks": [len(part.episode) for part in parts],
    }  # fmt: skip


def finite(value: Any) -> Any:
    """The same with None for what is no number."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def told(estimate: Estimate) -> dict[str, Any]:
    """An estimate for JSON."""
    return {"mean": estimate.mean, "ci95": list(estimate.ci95), "n": estimate.n}


Drives = dict[tuple[str, int, int], Outcome]


def by_rival(outcomes: Sequence[Outcome], rivals: Sequence[str], seeds: Sequence[int]) -> dict[str, Drives]:
    """Rival -> (scenario, training seed, drive seed) -> outcome; who was not trained counts for every training seed."""
    names = {planner_name(rival, seed): (rival, seed) for rival in rivals for seed in seeds}
    out: dict[str, Drives] = defaultdict(dict)
    for outcome in outcomes:
        rival, own = names.get(outcome.planner, (outcome.planner, None))
        for seed in seeds if own is None else (own,):
            out[rival][outcome.scenario_id, seed, outcome.seed] = outcome
    return dict(out)


def scores(drives: Drives, base: Drives | None, planner_seeds: int) -> dict[str, Any]:
    """Means with intervals over scenarios, and the difference to the base over what both drove."""
    rows: dict[str, Any] = {}
    for measure in MEASURES:
        found = {key: outcome.value(measure) for key, outcome in drives.items()}
        values = {key: value for key, value in found.items() if value is not None}
        if values:
            clusters = [scenario for scenario, _, _ in values]
            rows[measure] = told(bootstrap_mean(list(values.values()), clusters, np.random.default_rng(0)))
            rows[measure]["n"] //= planner_seeds
    if base is not None:
        pairs = [
            (key[0], own - other) for key in sorted(set(drives) & set(base))
            if (own := drives[key].value("driving_score")) is not None
            and (other := base[key].value("driving_score")) is not None
        ]  # fmt: skip
        if pairs:
            gain = bootstrap_mean([d for _, d in pairs], [s for s, _ in pairs], np.random.default_rng(0))
            rows[f"minus_{BASE}"] = told(gain)
    return rows


def closed_loop(options: argparse.Namespace, rivals: list[str], seeds: list[int]) -> dict[str, Any]:
    """Drive the suite with all rivals of all training seeds, and what stands beside; name -> its scores."""
    suite = load_suite(options.suite)
    if options.scenario:
        kept = tuple(s for s in suite.scenarios if any(part in s for part in options.scenario))
        if not kept:
            raise ConfigError(f"no scenario of {suite.id} holds {options.scenario}: {', '.join(suite.scenarios)}")
        suite = replace(suite, scenarios=kept)
    os.environ[FOLDER] = str(options.out.resolve())
    names = [planner_name(rival, seed) for rival in rivals for seed in seeds]

    def on_progress(done: Driven) -> None:
        value = "-" if done.driving_score is None else f"{done.driving_score:5.1f}"
        what = f"{done.scenario_id} {done.planner} {done.seed}"
        print(f"{done.done}/{done.total} {what}: {value} {done.end} {done.error}", flush=True)

    card = run_suite(
        suite, [*names, *options.beside], range(options.episodes), out=options.out / "drives", workers=options.workers,
        on_progress=on_progress,
    )  # fmt: skip
    drives = by_rival(card.outcomes, rivals, seeds)
    base = drives.get(BASE)
    rows = {
        name: scores(own, base if name != BASE else None, 1 if name in rivals else len(seeds))
        for name, own in drives.items()
    }
    return {"suite": suite.id, "scenarios": list(suite.scenarios), "episodes": options.episodes,
            "missing": len(card.missing), "rows": rows}  # fmt: skip


def earlier_drives(out: Path) -> dict[str, Any] | None:
    """Closed-loop rows of an earlier call, which training on does not take away."""
    kept = out / "rivals.json"
    return json.loads(kept.read_text())["closed_loop"] if kept.exists() else None


def study(options: argparse.Namespace) -> dict[str, Any]:
    """Train, probe, drive; writes rivals.json, rivals.md and rivals.svg as it goes."""
    recipe, seeds = recipe_of(options), list(range(options.seeds))
    for name in options.beside:
        require_planner(name)
    cache, logs = data_of(options, recipe)
    parts = divided(cache, options.drives, options.held_out)
    rows: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    result = {
        "commit": code_version(), "sizes": sizes_of(recipe, parts), "seeds": seeds, "rivals": rows, "skipped": skipped,
        "threads": options.threads, "closed_loop": earlier_drives(options.out),
    }  # fmt: skip
    for rival in [name for name in options.rivals if name in RIVALS]:
        try:
            rows[rival] = [trained(rival, seed, recipe, parts, logs, options.out) for seed in seeds]
        except RivalUnavailableError as reason:
            skipped[rival] = str(reason)
            print(f"{rival} is left out: {reason}", flush=True)
        write(options.out, result)
    if not options.no_drive:
        ready = [name for name in options.rivals if source_of(name)[0] in rows]
        skipped |= {n: f"needs {source_of(n)[0]}" for n in options.rivals if n not in ready and n not in skipped}
        result["closed_loop"] = closed_loop(options, ready, seeds)
        write(options.out, result)
    return result


def write(out: Path, result: dict[str, Any]) -> None:
    """JSON, table and figure."""
    write_json(out / "rivals.json", result)
    (out / "rivals.md").write_text(markdown(result))
    (out / "rivals.svg").write_text(figure(result))


def names_of(text: str) -> list[str]:
    """Rivals of a comma-separated list, each known.

    Raises:
        ConfigError: one is not.
    """
    names = list(dict.fromkeys(name for name in text.split(",") if name))
    for name in names:
        if name not in DERIVED:
            require_rival(name)
    if not names:
        raise ConfigError(f"no rivals: {nearest(text, [*RIVALS, *DERIVED])}")
    return names


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=None, help="a cache that is there (default: the recipe's, made)")
    parser.add_argument("--logs", type=Path, default=None, help="its drives (default: beside it), for rivals of truth")
    parser.add_argument("--out", type=Path, default=Path("runs/rivals"), help="an unfinished study in it goes on")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--rivals", type=names_of, default=[*RIVALS, *DERIVED], help="comma-separated; all by default")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds")
    parser.add_argument("--steps", type=int, default=0, help="of the encoder; 0: the recipe's")
    parser.add_argument("--dynamics-steps", type=int, default=0)
    parser.add_argument("--heads-steps", type=int, default=0)
    parser.add_argument(
        "--drives", type=int, default=0, help="to train on; 0: all of the recipe or the cache but the held-out ones"
    )
    parser.add_argument("--held-out", type=int, default=20, help="the last drives, for probes alone")
    parser.add_argument("--suite", default="demo")
    parser.add_argument("--scenario", action="append", help="only scenarios whose id holds this; repeat for more")
    parser.add_argument("--episodes", type=int, default=1, help="drives of each scenario by each planner")
    parser.add_argument("--beside", type=lambda text: [n for n in text.split(",") if n], default=list(BESIDE))
    parser.add_argument("--no-drive", action="store_true", help="train and probe only")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(arguments)


def main() -> None:
    """Run the study; wrong input is one line and exit code 2."""
    options = parse()
    try:
        result = study(options)
    except ConfigError as wrong:
        print(wrong, file=sys.stderr)
        raise SystemExit(2) from None
    print(markdown(result))
    print(f"written to {options.out / 'rivals.json'}, rivals.md and rivals.svg")


if __name__ == "__main__":
    main()
