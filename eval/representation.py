"""Study: what the shipped latent holds, between an untrained and a supervised encoder of the same shape.

    python -m eval.representation runs/nano --out runs/representation

Probes are fitted on the training cache and judged on a town that was never trained on, in seen and in
unseen weather. The counterfactual test imagines braking and going on from the same state and compares
the imagined lead gap with what the simulator's exact branches say. Where in the lane the car is, is asked of the same
states seen from beside the lane's centre and turned (`where`): recorded drivers keep to it too well to ask.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.config import load_toml
from drivesim.datatypes import default_rig
from drivesim.models import WorldModel
from drivesim.models.encoder import SlotEncoder
from drivesim.models.predictor import LatentPredictor
from drivesim.runs import write_json
from eval.displacements import Displaced, displaced, judge_where
from eval.foresight import fit_on_imagined, pairs_along
from eval.probes import (
    REGRESSIONS,
    Probe,
    branch_targets,
    drives_of,
    fit_probe,
    r_squared,
    retrieval,
    score_probe,
    target_table,
)
from training.batches import choose_views, read_batch
from training.cache import CacheConfig, build_cache
from training.clips import Clips, episode_batches
from training.heads import with_past
from training.latents import Latents, encode_clips
from training.objectives import effective_rank
from training.precision import half_precision
from training.pretrain import cosine_schedule
from training.recording import RecordingConfig, ensure_logs
from training.train import Recipe

TEST_TOWNS = ("Town02", "Town10HD")
MAX_ROWS, MAX_BRANCHES = 6000, 1000


def test_caches(folder: Path, drives: int, workers: int) -> dict[str, Clips]:
    """Held-out towns, once in training weathers and once in weathers never trained on."""
    recording = RecordingConfig(towns=TEST_TOWNS, drives=drives, workers=workers)
    logs = ensure_logs(recording, folder / "logs", 1234, lambda _: None)
    caches = {}
    for name, unseen in (("seen_weather", False), ("unseen_weather", True)):
        config = CacheConfig(branch_share=0.3 if not unseen else 0.0, workers=workers, seed=77, unseen_weather=unseen)
        build_cache(logs, folder / name, default_rig(), config, lambda _: None)
        caches[name] = Clips.load(folder / name)
    return caches


def supervised(clips: Clips, recipe: Recipe, steps: int, seed: int, keep: Path | None = None) -> SlotEncoder:
    """The ceiling: the encoder without slots for changes, taught the probes' own targets; read from `keep` if there."""
    torch.manual_seed(seed)
    encoder = SlotEncoder(replace(recipe.model.encoder, things=0, stance=0))
    if keep is not None and keep.exists():
        encoder.load_state_dict(torch.load(keep, weights_only=True))
        return encoder.eval()
    size = encoder.config.slots * encoder.config.latent_dim
    targets_all, weights_all = target_table(clips.table, np.arange(len(clips.episode)))
    count = len(REGRESSIONS)
    mean, scale = targets_all.mean(0), targets_all.std(0).clamp(min=1e-3)
    head = nn.Sequential(nn.Linear(2 * size, 128), nn.GELU(), nn.Linear(128, targets_all.shape[1]))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], 1e-3, weight_decay=0.02)
    starts = clips.starts(3)
    for step in range(steps):
        rng = np.random.default_rng([seed, 5, step])
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * cosine_schedule(step, steps, 0.05)
        rows, _ = next(episode_batches(starts, clips.episode, 12, 8, rng))
        batch = read_batch(clips, rows, choose_views(len(clips.intrinsics), recipe.pretrain, rng))
        with half_precision(recipe.pretrain.half):
            latents = encoder(batch.views, batch.intrinsics[None], batch.cameras).view(4, len(rows), -1)
        loss = torch.zeros(())
        for first, second, offset in ((0, 1, 1), (2, 3, 2)):
            out = head(torch.cat([latents[first], latents[second]], dim=1))
            truth, weight = targets_all[rows + offset], weights_all[rows + offset]
            error = (out[:, :count] - ((truth - mean) / scale)[:, :count]).square() * weight[:, :count]
            loss = (
                loss + error.mean() + nn.functional.binary_cross_entropy_with_logits(out[:, count:], truth[:, count:])
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    if keep is not None:
        torch.save(encoder.state_dict(), keep)
    return encoder.eval()


def displaced_sets(run: Path, out: Path, workers: int) -> tuple[Displaced, dict[str, Displaced]]:
    """Moments seen from beside the lane's centre: of the run's own drives, and of the held-out ones, both weathers."""
    train = displaced(
        sorted((run / "logs").glob("*.zarr")), out / "displaced_train.npy", 3000, CacheConfig(workers=workers)
    )
    tests = {}
    for name, unseen in (("seen_weather", False), ("unseen_weather", True)):
        config = CacheConfig(workers=workers, seed=78, unseen_weather=unseen)
        tests[name] = displaced(sorted((out / "logs").glob("*.zarr")), out / f"displaced_{name}.npy", 480, config)
    return train, tests


def stack(latents: Latents, rows: np.ndarray[Any, Any], second: bool = False) -> Tensor:
    """Last two latents of rows, in appearance A or B."""
    source = latents.b if second else latents.a
    index = torch.from_numpy(rows)
    return torch.stack([source[index - 1], source[index]], dim=1)


def judge(
    encoder: SlotEncoder, train: Clips, tests: dict[str, Clips], seed: int, ticks: int = MAX_ROWS,
    branches: int = MAX_BRANCHES,
) -> tuple[dict[str, Any], Probe, dict[str, Latents]]:  # fmt: skip
    """Fit probes on the training cache (ticks in both looks, and branches), score them on every test cache."""
    rng = np.random.default_rng(seed)
    keep = np.sort(rng.permutation(with_past(train))[:ticks])
    chosen = np.sort(rng.permutation(train.branched())[:branches])
    needed = np.unique(np.concatenate([keep - 1, keep]))
    position = {int(row): k for k, row in enumerate(needed)}
    part = replace(
        train, views_a=train.views_a[needed], views_b=train.views_b[needed], cameras_b=train.cameras_b[needed],
        branch_views=train.branch_views[chosen],
    )  # fmt: skip
    own = encode_clips(part, encoder)
    local = np.array([position[int(row)] for row in keep])
    futures = torch.stack([own.branch[:, :, :-1], own.branch[:, :, 1:]], dim=3).flatten(0, 2)
    targets, weights = target_table(train.table, keep)
    more, more_weights = branch_targets(train, chosen)
    probe = fit_probe(
        torch.cat([stack(own, local), stack(own, local, True), futures]),
        torch.cat([targets, targets, more]), torch.cat([weights, weights, more_weights]), seed,
        groups=encoder.config.groups, drives=drives_of(train, keep, chosen),
    )  # fmt: skip
    result: dict[str, Any] = {"effective_rank": effective_rank(own.a.flatten(1)[:2000])}
    encoded = {}
    for name, test in tests.items():
        latents = encode_clips(test, encoder).in_units(own.mean, own.scale)
        rows = with_past(test)
        result[name] = score_probe(probe, stack(latents, rows), *target_table(test.table, rows))
        result[name]["retrieval"] = retrieval(latents.a[:1500], latents.b[:1500])
        moving = torch.from_numpy(moments_apart(test)[:1500])
        result[name] |= {"retrieval_apart": retrieval(latents.a[moving], latents.b[moving]), "n_apart": len(moving)}
        encoded[name] = latents
    return result, probe, encoded


def moments_apart(clips: Clips, least_m: float = 2.0) -> NDArray[np.int64]:
    """Rows at which the ego has moved on: one who waits sees nearly the same moment again and again."""
    kept: list[int] = []
    xy = clips.table["ego"][:, :2]
    for row, episode in enumerate(clips.episode):
        if not kept or clips.episode[kept[-1]] != episode or np.hypot(*(xy[row] - xy[kept[-1]])) >= least_m:
            kept.append(row)
    return np.array(kept)


@torch.no_grad()
def imagination(
    predictor: LatentPredictor, probe: Probe, clips: Clips, latents: Latents, foresight: Probe
) -> dict[str, float]:
    """R2 of the lead gap read from predicted latents at 1, 2 and 3 s, beside persistence.

    `foresight` is a probe that was taught on imagined latents (`eval.foresight`): its R2 are `foresight_*`.
    """
    starts = clips.starts(8)
    rows = torch.from_numpy(starts) + 1
    window = rows[:, None] + torch.arange(6)
    actions, speed = torch.from_numpy(clips.table["action"])[window], torch.from_numpy(clips.table["speed"])[rows]
    imagined, _ = predictor.rollout(latents.a[rows - 1], latents.a[rows], actions, speed)
    names = list(REGRESSIONS)
    out = {}
    now = probe(torch.stack([latents.a[rows - 1], latents.a[rows]], dim=1))
    for h in (2, 4, 6):
        pair = torch.stack([imagined[:, h - 2], imagined[:, h - 1]], dim=1)
        read, taught = probe(pair), foresight(pair)
        later = starts + 1 + h
        for name in ("lead_gap", "speed", "lateral"):
            column = names.index(name)
            truth = clips.table[name][later].astype(np.float64)
            kept = clips.table["lead_present"][later] > 0.5 if name == "lead_gap" else np.ones(len(later), bool)
            out[f"{name}_r2_{h / 2:g}s"] = r_squared(read[kept, column].double().numpy(), truth[kept])
            out[f"foresight_{name}_r2_{h / 2:g}s"] = r_squared(taught[kept, column].double().numpy(), truth[kept])
            out[f"{name}_persistence_r2_{h / 2:g}s"] = r_squared(now[kept, column].double().numpy(), truth[kept])
    return out


@torch.no_grad()
def counterfactual(
    predictor: LatentPredictor | None, probe: Probe, clips: Clips, latents: Latents, foresight: Probe | None = None
) -> dict[str, float]:
    """Brake against going on from the same state: does the imagined lead gap move the right way, by how much?

    `seen_*` is the same reading of the latents that the two futures were really encoded to: what the probe can see
    (and all there is without a predictor). `foresight_*`: imagination read by a probe that was taught on it.
    """
    gaps = clips.table_of_branches("lead_gap")
    rows = torch.from_numpy(clips.branch_start)
    column = list(REGRESSIONS).index("lead_gap")
    out: dict[str, float] = {}
    speeds = torch.from_numpy(clips.branch_speed[:, 0, 0])
    reads: dict[str, list[list[NDArray[np.float64]]]] = {}
    now = latents.a[rows]
    for side in range(2):
        actions = torch.from_numpy(clips.branch_action[:, side])
        futures = {"seen_": (latents.branch[:, side], probe)}
        if predictor is not None:
            imagined = predictor.rollout(latents.a[rows - 1], latents.a[rows], actions, speeds)[0]
            futures |= {"": (imagined, probe)} | ({} if foresight is None else {"foresight_": (imagined, foresight)})
        for kind, (future, reader) in futures.items():
            pairs = pairs_along(now, future)
            read = [reader(pairs[:, h])[:, column].double().numpy() for h in range(future.shape[1])]
            reads.setdefault(kind, []).append(read)
    for h in (1, 3):
        true = gaps[:, 0, h] - gaps[:, 1, h]
        kept = (gaps[:, 0, h] < 40.0) & (gaps[:, 1, h] < 40.0) & (np.abs(true) > 0.3)
        if kept.sum() < 10:
            continue
        out[f"n_{(h + 1) / 2:g}s"] = int(kept.sum())
        for kind, sides in reads.items():
            read = (sides[0][h] - sides[1][h])[kept]
            out[f"{kind}sign_{(h + 1) / 2:g}s"] = float((np.sign(read) == np.sign(true[kept])).mean())
            out[f"{kind}slope_{(h + 1) / 2:g}s"] = float((read * true[kept]).sum() / np.square(true[kept]).sum())
    return out


def study(run: Path, out: Path, drives: int, supervised_steps: int, workers: int) -> dict[str, Any]:
    """Run everything; writes representation.json."""
    recipe = load_toml(Recipe, run / "config.toml")
    model = WorldModel.load(run / "checkpoints" / "last")
    train, tests = Clips.load(run / "cache"), test_caches(out, drives, workers)
    beside = displaced_sets(run, out, workers)
    result: dict[str, Any] = {
        "checkpoint": model.digest,
        "test_towns": list(TEST_TOWNS),
        "ticks": len(tests["seen_weather"].episode),
    }
    own, probe, encoded = judge(model.encoder, train, tests, 0)
    used_to = fit_on_imagined(model.encoder, model.predictor, train, encoded["seen_weather"], 0)
    own["imagination"] = {
        name: imagination(model.predictor, probe, tests[name], encoded[name], used_to) for name in tests
    }
    seen = encoded["seen_weather"]
    own["counterfactual"] = counterfactual(model.predictor, probe, tests["seen_weather"], seen, used_to)
    own["where"] = judge_where(model.encoder, *beside, 0)
    result["shipped"] = own
    write_json(out / "representation.json", result)
    torch.manual_seed(0)
    fresh = SlotEncoder(recipe.model.encoder)
    with torch.no_grad():  # batch statistics, so that the untrained encoder is at least scaled
        fresh.train()
        rng = np.random.default_rng(0)
        for _ in range(10):
            rows, _ = next(episode_batches(train.starts(3), train.episode, 12, 8, rng))
            batch = read_batch(train, rows, np.arange(len(train.intrinsics)))
            fresh(batch.views[: len(rows)], batch.intrinsics[None], batch.cameras[: len(rows)])
    result["untrained"] = judge(fresh.eval(), train, tests, 0)[0]
    result["untrained"]["where"] = judge_where(fresh, *beside, 0)
    write_json(out / "representation.json", result)
    if supervised_steps:
        control = supervised(train, recipe, supervised_steps, 0, out / f"supervised-{supervised_steps}.pt")
        judged, probe, encoded = judge(control, train, tests, 0)
        judged["counterfactual"] = counterfactual(None, probe, tests["seen_weather"], encoded["seen_weather"])
        judged["where"] = judge_where(control, *beside, 0)
        result["supervised"] = judged
        result["supervised"]["steps"] = supervised_steps
        write_json(out / "representation.json", result)
    return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder that `drivesim train` wrote")
    parser.add_argument("--out", type=Path, default=Path("runs/representation"))
    parser.add_argument("--drives", type=int, default=60)
    parser.add_argument("--supervised-steps", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    study(options.run, options.out, options.drives, options.supervised_steps, options.workers)


if __name__ == "__main__":
    main()
