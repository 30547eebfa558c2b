"""Study: does an imagined future follow the action, or only what actions betray?

    python -m eval.actions runs/nano --held-out runs/representation --out runs/actions
    python -m eval.actions runs/nano --without-branches runs/plain/checkpoints/last

Triples: a held-out state and the two futures it was really driven into, braking and going on. A probe reads the
lead gap and the own speed from the imagined futures and from the really encoded ones (what the probe can see at
best); compared are the differences between the two actions. The certificate: on logged clips the true actions must
predict better than those of another drive at the same speed, and in a triple each imagined future must be nearer
to its own outcome than to its sibling's. Intervals are over drives.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.models import WorldModel
from drivesim.models.predictor import LatentPredictor
from drivesim.runs import write_json
from eval.bootstrap import over_drives
from eval.figure import Bar, Chart, figure
from eval.frozen import (
    column_of,
    encode_branches,
    encode_rows,
    first_drives,
    held_out,
    provenance,
    spread,
    study_parser,
    study_probe,
)
from eval.probes import Probe
from training.clips import Clips

Array = NDArray[np.float64]
STEP_S = 0.5
LEAST = {"lead_gap": 0.3, "speed": 0.3}  # m and m/s: smaller true differences have no sign worth asking for
FAR_M = 40.0  # a lead farther away is none (`drivesim.logs.truth.VISIBLE_M`)
GOALS = {"sign": 0.85, "slope": 0.40}  # of the nano model, read from the lead gap
CLIP_TICKS = 6  # two of context, four imagined
TELLING_MPS = 0.5  # a shuffled action within this of the true one says nothing


@dataclass(frozen=True)
class Triples:
    """m states with two futures each, h steps of half a second.

    Attributes:
        context: (m, 2, n, d) the last two latents.
        action: (m, 2, h, 2), speed (m, 2, h + 1) m/s, gap (m, 2, h) m.
        encoded: (m, 2, h, n, d) what the futures were really encoded to.
        drive: (m,).
    """

    context: Tensor
    action: NDArray[np.float32]
    speed: NDArray[np.float32]
    gap: NDArray[np.float32]
    encoded: Tensor
    drive: NDArray[np.int32]


def triples_of(model: WorldModel, clips: Clips, drives: int, states: int) -> Triples:
    """At most `states` branched states of the first drives, with a tick before them."""
    usable = clips.branched()
    starts = clips.branch_start[usable]
    kept = spread(usable[np.isin(starts, first_drives(clips, starts, drives))], states)
    rows = clips.branch_start[kept]
    context = torch.stack([encode_rows(model, clips, rows - 1), encode_rows(model, clips, rows)], dim=1)
    return Triples(
        context, clips.branch_action[kept], clips.branch_speed[kept],
        clips.table_of_branches("lead_gap")[kept], encode_branches(model, clips, kept), clips.episode[rows],
    )  # fmt: skip


@torch.no_grad()
def imagined(predictor: LatentPredictor, triples: Triples) -> Tensor:
    """What the predictor makes of both actions: (m, 2, h, n, d)."""
    speed = torch.from_numpy(triples.speed[:, 0, 0])
    before, now = triples.context.unbind(1)
    actions = torch.from_numpy(triples.action)
    return torch.stack([predictor.rollout(before, now, actions[:, side], speed)[0] for side in range(2)], dim=1)


def read(probe: Probe, triples: Triples, futures: Tensor, name: str) -> Array:
    """A quantity (m, 2, h) that the probe reads along futures (m, 2, h, n, d)."""
    m, _, h = futures.shape[:3]
    now = triples.context[:, None, None, 1].expand(-1, 2, -1, -1, -1)
    full = torch.cat([now, futures], dim=2)
    pairs = torch.stack([full[:, :, :-1], full[:, :, 1:]], dim=3).flatten(0, 2)
    return np.asarray(probe(pairs)[:, column_of(name)].double().numpy()).reshape(m, 2, h)


def effect(true: Array, told: Array, drive: NDArray[np.int32]) -> dict[str, Any]:
    """Share of differences of the right sign, and the slope through zero of told on true, over rows of triples."""

    def sign(rows: NDArray[np.int64]) -> float:
        return float((np.sign(told[rows]) == np.sign(true[rows])).mean())

    def slope(rows: NDArray[np.int64]) -> float:
        return float((told[rows] * true[rows]).sum() / np.square(true[rows]).sum())

    return {"sign": over_drives(sign, drive), "slope": over_drives(slope, drive)}


def effects(triples: Triples, probe: Probe, futures: dict[str, Tensor]) -> dict[str, Any]:
    """Per quantity, kind of future and horizon: sign and slope of the difference between the two actions."""
    truths = {"lead_gap": triples.gap.astype(np.float64), "speed": triples.speed[:, :, 1:].astype(np.float64)}
    result: dict[str, Any] = {}
    for name, truth in truths.items():
        true = truth[:, 0] - truth[:, 1]
        for kind, latents in futures.items():
            reading = read(probe, triples, latents, name)
            told = reading[:, 0] - reading[:, 1]
            for h in range(true.shape[1]):
                kept = np.abs(true[:, h]) > LEAST[name]
                if name == "lead_gap":
                    kept &= (truth[:, :, h] < FAR_M).all(1)
                found = effect(true[kept, h], told[kept, h], triples.drive[kept])
                result.setdefault(name, {}).setdefault(kind, {})[f"{STEP_S * (h + 1):g}s"] = found
    return result


def told_apart(triples: Triples, futures: Tensor) -> dict[str, Any]:
    """Share of imagined futures nearer to their own outcome than to their sibling's, by horizon."""
    own = (futures - triples.encoded).square().flatten(3).mean(3)
    other = (futures - triples.encoded.flip(1)).square().flatten(3).mean(3)
    right = (own < other).double().mean(1).numpy()
    return {
        f"{STEP_S * (h + 1):g}s": over_drives(lambda rows, h=h: float(right[rows, h].mean()), triples.drive)  # type: ignore[misc]
        for h in range(right.shape[1])
    }


def exchange(speed: Array, drive: NDArray[np.int32], seed: int) -> NDArray[np.int64]:
    """For every clip another one at about its speed, of another drive where there is one in its block of 32."""
    order, rng = np.argsort(speed, kind="stable"), np.random.default_rng(seed)
    partner = np.arange(len(speed))
    for block in np.array_split(order, max(1, len(order) // 32)):
        for row in block:
            others = block[drive[block] != drive[row]]
            pool = others if len(others) else block[block != row]
            partner[row] = rng.choice(pool) if len(pool) else row
    return partner


@torch.no_grad()
def certificate(model: WorldModel, clips: Clips, drives: int, states: int, seed: int) -> dict[str, Any]:
    """Prediction error on logged clips with the true actions and with those of another drive at the same speed.

    Only clips count where the two differ: speeds more than `TELLING_MPS` apart by the end of the horizon.
    """
    starts = first_drives(clips, clips.starts(CLIP_TICKS), drives)
    starts = spread(starts, states)
    needed = np.unique(starts[:, None] + np.arange(CLIP_TICKS))
    latents = encode_rows(model, clips, needed)
    place = torch.from_numpy(np.searchsorted(needed, starts))
    actions = clips.table["action"][starts[:, None] + 1 + np.arange(CLIP_TICKS - 2)]
    speed, drive = clips.table["speed"][starts + 1], clips.episode[starts]
    partner = exchange(speed.astype(np.float64), drive, seed)
    errors = {}
    for kind, chosen in (("true", actions), ("shuffled", actions[partner])):
        future, _ = model.predictor.rollout(
            latents[place], latents[place + 1], torch.from_numpy(chosen), torch.from_numpy(speed)
        )
        target = latents[place[:, None] + 2 + torch.arange(CLIP_TICKS - 2)]
        errors[kind] = (future - target).square().flatten(2).mean(2).double().numpy()
    moved = np.abs(STEP_S * np.cumsum(actions[..., 0] - actions[partner][..., 0], axis=1))
    result: dict[str, Any] = {}
    for h in range(CLIP_TICKS - 2):
        kept = moved[:, h] > TELLING_MPS
        true, shuffled = errors["true"][kept, h], errors["shuffled"][kept, h]
        result[f"{STEP_S * (h + 1):g}s"] = {
            "error_ratio": over_drives(lambda r, t=true, s=shuffled: float(s[r].mean() / t[r].mean()), drive[kept]),  # type: ignore[misc]
            "true_better": over_drives(lambda r, t=true, s=shuffled: float((t[r] < s[r]).mean()), drive[kept]),  # type: ignore[misc]
        }
    return result


def judge(model: WorldModel, train: Clips, test: Clips, options: Any) -> dict[str, Any]:
    """One checkpoint's figures."""
    keep = options.out / f"probes-{model.digest}-{options.probe_rows}-{options.seed}.pt"
    probe = study_probe(model, train, options.probe_rows, options.seed, keep)
    triples = triples_of(model, test, options.drives, options.states)
    futures = {"imagined": imagined(model.predictor, triples), "encoded": triples.encoded}
    return {
        "encoder": model.digest, "triples": len(triples.drive), "drives": len(np.unique(triples.drive)),
        "effects": effects(triples, probe, futures), "told_apart": told_apart(triples, futures["imagined"]),
        "certificate": certificate(model, test, options.drives, options.states, options.seed),
    }  # fmt: skip


def charts(models: dict[str, Any]) -> list[Chart]:
    """The figure's parts."""
    found = []
    for name, unit in (("lead_gap", "lead gap"), ("speed", "own speed")):
        for measure, high in (("sign", 1.0), ("slope", 1.5)):
            bars = [
                Bar(f"{label}, {kind}, {horizon}", value[measure], hue=2 * k + (kind == "encoded"))
                for k, (label, result) in enumerate(models.items())
                for kind in ("imagined", "encoded")
                for horizon, value in result["effects"][name][kind].items()
            ]
            about = (
                "share of differences between the two actions that have the right sign"
                if measure == "sign"
                else "told difference per true difference; 1 is the right amount"
            )
            goal = GOALS[measure] if name == "lead_gap" else None
            found.append(Chart(f"{unit}: {measure}", about, bars, high=high, goal=goal))
    certificates = [
        Bar(f"{label}, {horizon}", value["true_better"], hue=2 * k)
        for k, (label, result) in enumerate(models.items())
        for horizon, value in result["certificate"].items()
    ]
    apart = [
        Bar(f"{label}, {horizon}", value, hue=2 * k)
        for k, (label, result) in enumerate(models.items())
        for horizon, value in result["told_apart"].items()
    ]
    found.append(Chart("true against shuffled action", "share of logged clips the true one predicts better",
                       certificates, goal=0.5))  # fmt: skip
    found.append(Chart("own outcome against the sibling's", "share of imagined futures nearer to their own",
                       apart, goal=0.5))  # fmt: skip
    return found


def study(options: Any) -> dict[str, Any]:
    """Run everything; writes actions.json and actions.html."""
    train = Clips.load(options.run / "cache")
    test = held_out(options.held_out, options.drives, options.workers).seen
    paths: dict[str, Path] = {"shipped": options.checkpoint}
    if options.without_branches is not None:
        paths["without branches"] = options.without_branches
    result = provenance("actions", options) | {"models": {}}
    for label, path in paths.items():
        result["models"][label] = judge(WorldModel.load(path), train, test, options)
        write_json(options.out / "actions.json", result)
    page = figure("What actions cause", "Held-out towns; intervals are 95 % over drives.", charts(result["models"]))
    (options.out / "actions.html").write_text(page, encoding="utf-8")
    return result


def main() -> None:
    """Command line."""
    parser = study_parser(__doc__, "runs/actions")
    parser.add_argument("--without-branches", type=Path, default=None, help="a checkpoint whose predictor saw none")
    parser.add_argument("--states", type=int, default=1000, help="branched states, and logged clips")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for label, found in study(options)["models"].items():
        gap = found["effects"]["lead_gap"]
        for kind in ("imagined", "encoded"):
            for horizon in ("1s", "2s"):
                sign, slope = (gap[kind][horizon][name] for name in ("sign", "slope"))
                print(f"{label}, {kind}, {horizon}: sign {sign['value']}, slope {slope['value']}, n {sign['n']}")


if __name__ == "__main__":
    main()
